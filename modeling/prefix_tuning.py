"""P-Tuning v2 in chosen layers: learned keys and values that every word of a prompt can attend to (VT-LVLM-AR, section III.C).

The prompts have no place in the sequence: nothing is inserted into it, so masks, positions, caches, packing and left padding
stay as they are. In the chosen layers, keys and values are put in front of those of the words, after positions were rotated in
and after the cache was read.
"""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

SUFFIX = "_prefix"
# Share of the layers that have prompts by default, from the last one down: 9 of 32, 1.2 M parameters in a model of 7 B.
DEFAULT_SHARE = 9 / 32
INIT_STD = 0.02


class LayerPrefix(nn.Module):
    """
    Keys and values of `length` prompts in some layers of a language model.

    Args:
        config (`PreTrainedConfig`): of the language model; its heads for keys and values, and their width, are those of the
            prompts.
        length (`int`): number of prompts.
        layers (`Sequence[int]`, *optional*): those that have prompts, from 0; by default the last 9 of 32 (`default_layers`).

    Raises:
        ValueError: A layer that there is not, or one that stands twice.
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
        Makes a language model attend to the prompts. Its weights are not touched.

        Raises:
            ValueError: It runs with another attention than eager or sdpa, or has attention layers of another kind.
        """
        kind = language_model.config._attn_implementation.removesuffix(SUFFIX)
        if kind not in ("eager", "sdpa"):
            raise ValueError(
                f"prompts in layers were tested with eager and sdpa attention; this language model runs with {kind!r}: load it "
                "with attn_implementation='sdpa'."
            )
        attentions = attention_layers(language_model)
        for place, layer in enumerate(self.layers):
            if layer not in attentions:
                raise ValueError(
                    f"layer {layer} of {type(language_model).__name__} has no attention that prompts could be put before."
                )
            # Past nn.Module's registration: the prompts are the wrapper's, not the language model's.
            attentions[layer].__dict__["layer_prefix"] = _PromptsOf(self, place)
        language_model.config._attn_implementation = kind + SUFFIX


class _PromptsOf:
    """The prompts of one layer; an object and no closure, so that a copied model has copied prompts."""

    def __init__(self, prefix: LayerPrefix, place: int):
        self.prefix, self.place = prefix, place

    def __call__(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (batch_size, heads, length, width) in the dtype and on the device of `like`."""
        keys, values = self.prefix.weight[self.place].to(like.device, like.dtype)
        return (one[None].expand(len(like), -1, -1, -1) for one in (keys, values))


def default_layers(depth: int) -> list[int]:
    """The last layers of a model of `depth`: 9 of 32, and as large a share of others."""
    return list(range(depth - max(1, round(DEFAULT_SHARE * depth)), depth))


def attention_layers(language_model: nn.Module) -> dict[int, nn.Module]:
    """The module of each layer that attends, by its `layer_idx`."""
    found = {}
    for module in language_model.modules():
        layer = module.__dict__.get("layer_idx")
        # Some families number the layers, too: the innermost one is the attention.
        if layer is not None and not any("layer_idx" in child.__dict__ for child in list(module.modules())[1:]):
            found.setdefault(layer, module)
    return found


def _attention_with_prompts(kind: str) -> Callable:
    """An attention function of transformers that puts prompts before the keys and values of layers that have some."""

    def forward(module, query, key, value, attention_mask, **kwargs):
        attend = sdpa_attention_forward
        if kind == "eager":  # each family has its own, some with soft-capping
            attend = sys.modules[type(module).__module__].eager_attention_forward
        prompts = module.__dict__.get("layer_prefix")
        if prompts is None:
            return attend(module, query, key, value, attention_mask, **kwargs)
        prompt_keys, prompt_values = prompts(key)
        length, queries, words = prompt_keys.shape[2], query.shape[2], key.shape[2]
        if attention_mask is None and queries > 1:
            # What "causal" would mean has to be written down: the prompts come before everything.
            visible = torch.ones(queries, words, dtype=torch.bool, device=query.device).tril(words - queries)
            attention_mask = visible[None, None]
            if kind == "eager":
                attention_mask = torch.zeros_like(visible, dtype=query.dtype).masked_fill(
                    ~visible, torch.finfo(query.dtype).min
                )[None, None]
        if attention_mask is not None:
            seen = attention_mask.new_full((*attention_mask.shape[:-1], length), attention_mask.dtype == torch.bool)
            attention_mask = torch.cat([seen, attention_mask], dim=-1)
        key, value = torch.cat([prompt_keys, key], dim=2), torch.cat([prompt_values, value], dim=2)
        return attend(module, query, key, value, attention_mask, **kwargs)

    return forward


for _kind, _mask in (("eager", eager_mask), ("sdpa", sdpa_mask)):
    AttentionInterface.register(_kind + SUFFIX, _attention_with_prompts(_kind))
    AttentionMaskInterface.register(_kind + SUFFIX, _mask)


__all__ = ["LayerPrefix", "attention_layers", "default_layers"]
