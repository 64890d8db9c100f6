"""P-Tuning v2 in some layers: trained keys and values that every token can attend to (VT-LVLM-AR, section III.C).

The prompts are not part of the sequence, so masks, positions, caches, packing and left padding do not change. In the chosen
layers, their keys and values are put before those of the tokens, after rotary embedding and after the cache was read.

PEFT's prefix tuning has prompts in all layers and counts them as tokens, in positions and in sliding windows: the first token
has position `length`; here it has 0. With the same position ids, both give the same logits. With rotary embeddings, the shift
rotates the prompts' keys: prompts trained here are prompts of PEFT whose keys are rotated by `length` positions.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

SUFFIX = "_prefix"
# By default, this share of the layers has prompts, counted from the last: 9 of 32, or 1.2 M parameters in a model of 7 B.
DEFAULT_SHARE = 9 / 32
INIT_STD = 0.02


class LayerPrefix(nn.Module):
    """
    Keys and values of `length` prompts in some layers of a language model.

    Args:
        config (`PreTrainedConfig`): configuration of the language model; gives number and width of the key-value heads.
        length (`int`): number of prompts.
        layers (`Sequence[int]`, *optional*): indices of the layers with prompts, from 0; by default the last 9 of 32
            (`default_layers`).

    Raises:
        ValueError: if `length` is below 1, or a layer does not exist or is given twice.
    """

    def __init__(self, config: PreTrainedConfig, length: int, layers: Sequence[int] | None = None):
        super().__init__()
        depth = config.num_hidden_layers
        self.layers = default_layers(depth) if layers is None else sorted(layers)
        if length < 1:
            raise ValueError(f"`prefix_length` must be at least 1, got {length}.")
        wrong = [layer for layer in self.layers if not 0 <= layer < depth]
        if not self.layers or wrong or len(set(self.layers)) < len(self.layers):
            raise ValueError(
                f"`prefix_layers` must be different layers of 0 to {depth - 1}, got {list(layers or self.layers)}."
            )
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.weight = nn.Parameter(torch.empty(len(self.layers), 2, heads, length, width))
        self.reset_parameters()

    def reset_parameters(self):
        init.normal_(self.weight, std=INIT_STD)

    def attach(self, language_model: nn.Module) -> None:
        """
        Makes a language model attend to the prompts; its weights do not change.

        Raises:
            ValueError: if its attention implementation is not eager or sdpa, or a chosen layer has no attention.
        """
        implementation = language_model.config._attn_implementation.removesuffix(SUFFIX)
        if implementation not in ("eager", "sdpa"):
            raise ValueError(
                f"prompts in layers need eager or sdpa attention, but the language model has {implementation!r}: load it with "
                "attn_implementation='sdpa'."
            )
        attentions = attention_layers(language_model)
        for place, layer in enumerate(self.layers):
            if layer not in attentions:
                raise ValueError(
                    f"layer {layer} of {type(language_model).__name__} has no attention that could read prompts: leave it out "
                    "of `prefix_layers`."
                )
            # Not registered as a submodule: the prompts belong to the wrapper, not to the language model.
            attentions[layer].__dict__["layer_prefix"] = _PromptsOf(self, place)
        language_model.config._attn_implementation = implementation + SUFFIX


class _PromptsOf:
    """The prompts of a layer. An object rather than a closure, so that a copied model gets copied prompts."""

    def __init__(self, prefix: LayerPrefix, place: int):
        self.prefix, self.place = prefix, place

    def __call__(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (batch_size, heads, length, width) in the dtype and on the device of `like`."""
        keys, values = self.prefix.weight[self.place].to(like.device, like.dtype)
        return (states[None].expand(len(like), -1, -1, -1) for states in (keys, values))


@contextmanager
def without_prompts(model: nn.Module) -> Iterator[None]:
    """Turns off the prompts in the layers of a model, if it has any. No other thread may use it meanwhile."""
    attached = [
        (module, module.__dict__.pop("layer_prefix"))
        for module in model.modules()
        if "layer_prefix" in module.__dict__
    ]
    try:
        yield
    finally:
        for module, prompts in attached:
            module.__dict__["layer_prefix"] = prompts


def default_layers(depth: int) -> list[int]:
    """The last layers of a model of `depth` layers: 9 of 32, and the same share of other depths."""
    return list(range(depth - max(1, round(DEFAULT_SHARE * depth)), depth))


def attention_layers(language_model: nn.Module) -> dict[int, nn.Module]:
    """The attention module of each layer, by `layer_idx`."""
    attentions = {}
    for module in language_model.modules():
        layer = module.__dict__.get("layer_idx")
        # In some models, the decoder layer has a `layer_idx` too: the innermost module with an index is the attention.
        if layer is not None and not any("layer_idx" in child.__dict__ for child in list(module.modules())[1:]):
            attentions.setdefault(layer, module)
    return attentions


def _attention_with_prompts(implementation: str) -> Callable:
    """An attention function of transformers that, in layers with prompts, puts them before keys and values."""

    def forward(module, query, key, value, attention_mask, **kwargs):
        attend = sdpa_attention_forward
        if implementation == "eager":  # each model has its own function, some with soft-capping
            attend = sys.modules[type(module).__module__].eager_attention_forward
        prompts = module.__dict__.get("layer_prefix")
        if prompts is None:
            return attend(module, query, key, value, attention_mask, **kwargs)
        prompt_keys, prompt_values = prompts(key)
        length, queries, words = prompt_keys.shape[2], query.shape[2], key.shape[2]
        if attention_mask is None and queries > 1:
            # Without a mask, attention is causal. With prompts before all tokens, the mask has to be explicit.
            visible = torch.ones(queries, words, dtype=torch.bool, device=query.device).tril(words - queries)
            attention_mask = visible[None, None]
            if implementation == "eager":
                attention_mask = torch.zeros_like(visible, dtype=query.dtype).masked_fill(
                    ~visible, torch.finfo(query.dtype).min
                )[None, None]
        if attention_mask is not None:
            # True in a boolean mask, 0 in an additive mask: all prompts are visible.
            prompt_mask = attention_mask.new_full(
                (*attention_mask.shape[:-1], length), attention_mask.dtype == torch.bool
            )
            attention_mask = torch.cat([prompt_mask, attention_mask], dim=-1)
        key, value = torch.cat([prompt_keys, key], dim=2), torch.cat([prompt_values, value], dim=2)
        return attend(module, query, key, value, attention_mask, **kwargs)

    return forward


for _implementation, _mask in (("eager", eager_mask), ("sdpa", sdpa_mask)):
    AttentionInterface.register(_implementation + SUFFIX, _attention_with_prompts(_implementation))
    AttentionMaskInterface.register(_implementation + SUFFIX, _mask)


__all__ = ["LayerPrefix", "attention_layers", "default_layers", "without_prompts"]
