"""Self-attention over time: segments of a video attend to each other (LVLM-VAR, section 3.1)."""

import math

import torch
from torch import nn


class TemporalSelfAttention(nn.Module):
    """
    A transformer encoder over time, between two linear layers.

    Args:
        width_in, width_out (`int`): width of the inputs and of the outputs.
        hidden_size, num_layers, num_heads, intermediate_size (`int`), dropout (`float`): sizes of the transformer.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        intermediate_size: int,
        dropout: float,
    ):
        super().__init__()
        self.input = nn.Linear(width_in, hidden_size)
        layer = nn.TransformerEncoderLayer(
            hidden_size, num_heads, intermediate_size, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(hidden_size)
        self.output = nn.Linear(hidden_size, width_out)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states (batch_size, length, width_in), mask (batch_size, length), 0 where padded → (…, width_out)."""
        hidden_states = self.input(hidden_states)
        hidden_states = hidden_states + _positions(hidden_states)
        hidden_states = self.layers(hidden_states, src_key_padding_mask=~mask.bool())
        return self.output(self.norm(hidden_states))


def _positions(hidden_states: torch.Tensor) -> torch.Tensor:
    """Sinusoidal position embeddings (length, width); computed in each call, so that loading cannot lose them."""
    length, width = hidden_states.shape[1:]
    half = -(-width // 2)
    place = torch.arange(length, device=hidden_states.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(half, device=hidden_states.device) * (-math.log(10000.0) / half))
    return torch.cat([(place * rate).sin(), (place * rate).cos()], dim=1)[:, :width].to(hidden_states.dtype)


__all__ = ["TemporalSelfAttention"]
