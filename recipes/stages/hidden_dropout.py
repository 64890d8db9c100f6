"""Dropout for language models without any, to train all their weights on a few hundred recordings.

Transformers that are trained on little data use dropout on the output of each sublayer (Vaswani et al. 2017, section 5.4), on
the attention weights, and on the hidden layer of the MLP. Today's language models leave it out, since they read each text only
once. Here, hooks add it for training; nothing of it is saved.
"""

import logging

import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from action_llm.language_models import decoder_layers

logger = logging.getLogger(__name__)

# Names of the attention dropout in the model families: a number, or a module.
ATTENTION_DROPOUT = ("attention_dropout", "attn_dropout", "dropout", "attn_dropout_p")


def add_hidden_dropout(language_model, p: float) -> dict[str, int]:
    """
    Adds dropout in training: on the input embeddings, on what each decoder layer adds to the residual stream, on the attention
    weights, and on the input of the MLP's output projection.

    Call it after adding an adapter: the input of LoRA on the output projection then has this dropout besides LoRA's own.

    Args:
        language_model (`PreTrainedModel`): model without a head, which is called with `inputs_embeds`.
        p (`float`): probability of an element to be zeroed, at least 0 and below 1.

    Returns:
        `dict[str, int]`: the number of decoder layers with dropout on their output (`layers`), on their attention weights
        (`attention`), and in their MLP (`mlp`). Experts that are stored as one tensor, and unusual attention, are left without
        dropout, with a warning.

    Raises:
        ValueError: if the decoder layers of the model are not found.
    """

    def drop_embeddings(module, args, kwargs):
        if not module.training:
            return None
        return args, {**kwargs, "inputs_embeds": F.dropout(kwargs["inputs_embeds"], p)}

    def drop_update(module, args, kwargs, output):
        if not module.training:
            return None
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        after = before + F.dropout(after - before, p)
        return (after, *output[1:]) if isinstance(output, tuple) else after

    def drop_input(module, args):
        return (F.dropout(args[0], p, module.training), *args[1:])

    layers = list(decoder_layers(language_model))
    width = language_model.config.get_text_config().hidden_size
    counts = {"layers": len(layers), "attention": 0, "mlp": 0}
    language_model.register_forward_pre_hook(drop_embeddings, with_kwargs=True)
    for layer in layers:
        counts["attention"] += set_attention_dropout(layer, p)
        projections = output_projections(layer, width)
        for projection in projections:
            projection.register_forward_pre_hook(drop_input)
        counts["mlp"] += bool(projections)
        layer.register_forward_hook(drop_update, with_kwargs=True)
    for part in ("attention", "mlp"):
        if counts[part] < len(layers):
            logger.warning(
                "hidden_dropout has no effect on the %s of %d of %d layers of this %s",
                part,
                len(layers) - counts[part],
                len(layers),
                language_model.config.model_type,
            )
    return counts


def in_attention(name: str) -> bool:
    """Whether the name of a module in a decoder layer is that of attention, or of a part of it."""
    return "attn" in name.lower() or "attention" in name.lower()


def set_attention_dropout(layer: nn.Module, p: float) -> bool:
    """Sets the dropout on the attention weights of a layer; returns whether the layer has such a setting."""
    has_dropout = False
    for name, module in layer.named_modules():
        if not in_attention(name):
            continue
        for attribute in ATTENTION_DROPOUT:
            value = getattr(module, attribute, None)
            if isinstance(value, nn.Dropout):
                value.p, has_dropout = p, True
            elif isinstance(value, float | int):
                setattr(module, attribute, p)
                has_dropout = True
    return has_dropout


def output_projections(layer: nn.Module, width: int) -> list[nn.Module]:
    """The output projection of a layer's MLP, or those of all its experts, each with its adapter.

    Args:
        layer: a decoder layer.
        width: width of the hidden states.
    """
    projections = {}
    for name, module in layer.named_modules():
        if in_attention(name) or any(name.startswith(f"{outer}.") for outer in projections):
            continue
        if isinstance(getattr(module, "base_layer", module), nn.Linear | Conv1D):
            projections[name] = module
    candidates = {name: module for name, module in projections.items() if output_width(module) == width}
    if not candidates:
        return []
    *_, last = candidates
    return [module for name, module in candidates.items() if name.rpartition(".")[2] == last.rpartition(".")[2]]


def output_width(projection: nn.Module) -> int:
    """Output width of a linear layer: `nn.Linear`, or the `Conv1D` of GPT-2."""
    projection = getattr(projection, "base_layer", projection)
    return projection.nf if isinstance(projection, Conv1D) else projection.out_features
