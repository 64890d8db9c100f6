"""What action models of videos share: a visual encoder that may stay as it is, and statistics of its features."""

import torch
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .codebook import TRAINING_BUFFERS, Codebook
from .saved_weights import SavedWeights
from .visual_encoder import FeatureStandardisation


class VideoActionModel(SavedWeights, PreTrainedModel):
    """
    Base of [`VSTModel`] and [`VTEMModel`]. A subclass has `visual_encoder`, a [`VisualEncoder`], and says with what deviation
    codes begin, `code_deviation`.
    """

    main_input_name = "pixel_values"
    input_modalities = ("video",)
    _keys_to_ignore_on_load_missing = TRAINING_BUFFERS
    accepts_loss_kwargs = False
    # It is the visual encoder's attention that is chosen.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, Codebook):
            init.normal_(module.weight, std=self.code_deviation)
            if hasattr(module, "average_usage"):
                init.constant_(module.average_usage, 1 / len(module.weight))
            if hasattr(module, "initialized"):
                init.zeros_(module.initialized)
        elif isinstance(module, FeatureStandardisation):
            init.zeros_(module.mean)
            init.ones_(module.deviation)
        elif isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As [`PreTrainedModel.from_pretrained`]; the visual encoder is frozen."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()
        return loaded

    def freeze(self) -> None:
        """`requires_grad` is not saved: the visual encoder is frozen again after loading."""
        self.visual_encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        super().train(mode)
        self.visual_encoder.eval()
        return self

    @torch.no_grad()
    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the frozen visual encoder makes of videos, float32: see [`VisualEncoder`]."""
        return self.visual_encoder(pixel_values)


__all__ = ["VideoActionModel"]
