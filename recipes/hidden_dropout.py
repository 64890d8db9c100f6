"""Dropout inside a language model that has none of its own, for training all of it on a few hundred recordings.

A transformer that learns from little has dropout on what its layers add to the residual stream (Vaswani et al. 2017, section
5.4), on the weights of its attention and on the inner numbers of its MLP. Language models of today leave it out: they do not
read a text twice. Here it is put into any of them while it is trained; nothing of it is saved.
"""

import torch.nn.functional as F

from action_llm.modeling_action_llm import decoder_layers


def add_hidden_dropout(language_model, share: float) -> None:
    """
    Dropout on the vectors of all words, on what each decoder layer adds to its hidden states, and within the layer on the
    weights of attention and on what the MLP's last projection reads; in training alone.

    The last two need the names that most families of today share, `attention_dropout` and `down_proj`: older ones, and those
    with experts, go without one or both. An adapter that is put on `down_proj` afterwards reads what was there: LoRA has a
    dropout of its own.

    Args:
        language_model (`PreTrainedModel`): without a head; it is called with `inputs_embeds`.
        share (`float`): of the numbers, at least 0 and below 1, that become 0 each time.
    """

    def on_words(module, args, kwargs):
        if not module.training:
            return None
        return args, {**kwargs, "inputs_embeds": F.dropout(kwargs["inputs_embeds"], share)}

    def on_layer(module, args, kwargs, output):
        if not module.training:
            return None
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        after = before + F.dropout(after - before, share)
        return (after, *output[1:]) if isinstance(output, tuple) else after

    def on_inner(module, args):
        return (F.dropout(args[0], share, module.training), *args[1:])

    language_model.register_forward_pre_hook(on_words, with_kwargs=True)
    for layer in decoder_layers(language_model):
        for name, module in layer.named_modules():
            if isinstance(getattr(module, "attention_dropout", None), float | int):
                module.attention_dropout = share
            elif name.endswith(".down_proj"):
                module.register_forward_pre_hook(on_inner)
        layer.register_forward_hook(on_layer, with_kwargs=True)
