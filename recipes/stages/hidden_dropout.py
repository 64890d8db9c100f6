"""Dropout inside a language model that has none of its own, for training all of it on a few hundred recordings.

A transformer that learns from little has dropout on what its layers add to the residual stream (Vaswani et al. 2017, section
5.4), on the weights of its attention and on the inner numbers of its MLP. Language models of today leave it out: they do not
read a text twice. Here it is put into any of them while it is trained; nothing of it is saved.
"""

import logging

import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from action_llm.modeling_action_llm import decoder_layers

logger = logging.getLogger(__name__)

# What attention calls its dropout: a number, or a module, by family.
ATTENTION_DROPOUT = ("attention_dropout", "attn_dropout", "dropout", "attn_dropout_p")


def add_hidden_dropout(language_model, share: float) -> dict[str, int]:
    """
    Dropout on the vectors of all words, on what each decoder layer adds to its hidden states, and within the layer on the
    weights of attention and on what the MLP's last projection reads; in training alone.

    Call it after an adapter is put on: what LoRA on the last projection reads has dropout then, too, beside LoRA's own.

    Args:
        language_model (`PreTrainedModel`): without a head; it is called with `inputs_embeds`.
        share (`float`): of the numbers, at least 0 and below 1, that become 0 each time.

    Returns:
        `dict` of how many decoder layers it reached: `layers` (what they add), `attention` (its weights), `mlp` (what the last
        projection reads). Experts that are one tensor, and attention of its own kind, go without: a warning says so.

    Raises:
        ValueError: the model has no decoder layers that are known.
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

    layers = list(decoder_layers(language_model))
    width = language_model.config.get_text_config().hidden_size
    reached = {"layers": len(layers), "attention": 0, "mlp": 0}
    language_model.register_forward_pre_hook(on_words, with_kwargs=True)
    for layer in layers:
        reached["attention"] += set_attention_dropout(layer, share)
        for projection in last_projections(layer, width):
            projection.register_forward_pre_hook(on_inner)
        reached["mlp"] += bool(last_projections(layer, width))
        layer.register_forward_hook(on_layer, with_kwargs=True)
    for part in ("attention", "mlp"):
        if reached[part] < len(layers):
            logger.warning(
                "hidden_dropout: the %s of %d of %d layers of a %s goes without",
                part,
                len(layers) - reached[part],
                len(layers),
                language_model.config.model_type,
            )
    return reached


def in_attention(name: str) -> bool:
    """Whether a module of a decoder layer is a part of its attention, by its name."""
    return "attn" in name.lower() or "attention" in name.lower()


def set_attention_dropout(layer: nn.Module, share: float) -> bool:
    """Sets the dropout on the weights of a layer's attention, and says whether there is any."""
    has_any = False
    for name, module in layer.named_modules():
        if not in_attention(name):
            continue
        for attribute in ATTENTION_DROPOUT:
            value = getattr(module, attribute, None)
            if isinstance(value, nn.Dropout):
                value.p, has_any = share, True
            elif isinstance(value, float | int):
                setattr(module, attribute, share)
                has_any = True
    return has_any


def last_projections(layer: nn.Module, width: int) -> list[nn.Module]:
    """
    What brings the inner numbers of a layer's MLP back to the width of its hidden states, with the adapter on it: the last
    such projection, or that of each expert.
    """
    projections = {}
    for name, module in layer.named_modules():
        if in_attention(name) or any(name.startswith(f"{outer}.") for outer in projections):
            continue
        if isinstance(getattr(module, "base_layer", module), nn.Linear | Conv1D):
            projections[name] = module
    out = {name: module for name, module in projections.items() if output_width(module) == width}
    if not out:
        return []
    *_, last = out
    return [module for name, module in out.items() if name.rpartition(".")[2] == last.rpartition(".")[2]]


def output_width(projection: nn.Module) -> int:
    """Numbers that a linear layer, of torch or of GPT-2, writes."""
    projection = getattr(projection, "base_layer", projection)
    return projection.nf if isinstance(projection, Conv1D) else projection.out_features
