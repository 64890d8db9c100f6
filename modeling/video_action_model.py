"""Base of the action models of videos: a frozen visual encoder, and the checks of its features."""

from typing import Self

import torch
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from .codebook import TRAINING_BUFFERS, Codebook
from .saved_weights import SavedWeights
from .visual_encoder import FeatureStandardisation, VisualEncoder


class VideoActionModel(SavedWeights, PreTrainedModel):
    """
    Base of [`VSTModel`] and [`VTEMModel`].

    A subclass has `visual_encoder`, a [`VisualEncoder`], and `code_deviation`, the standard deviation of the channels of the
    codes at the start.
    """

    main_input_name = "pixel_values"
    input_modalities = ("video",)
    _keys_to_ignore_on_load_missing = TRAINING_BUFFERS
    accepts_loss_kwargs = False
    # These flags refer to the visual encoder: its attention implementation can be chosen.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # The parts of a video that have features: "segments", or "cells" of the frames of segments.
    feature_unit = "segments"
    features_per_segment = 1

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, Codebook):
            module.reset_parameters(self.code_deviation)
        elif isinstance(module, FeatureStandardisation):
            init.zeros_(module.mean)
            init.ones_(module.deviation)
        elif isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Like [`PreTrainedModel.from_pretrained`]; the visual encoder is frozen."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()
        return loaded

    @classmethod
    def from_backbone(cls, backbone: PreTrainedModel, **config_fields) -> Self:
        """
        An untrained action model around a pretrained visual encoder.

        Args:
            backbone (`PreTrainedModel`): a model of images or clips, as `AutoModel.from_pretrained` returns it.
            **config_fields: fields of the configuration; `backbone_config` and `feature_size` follow from the visual encoder.
        """
        # The folder from which it was loaded must not be saved with the model.
        backbone.config._name_or_path = ""
        config_fields = {"feature_size": VisualEncoder(backbone).feature_size, **config_fields}
        if cls.codes_are_features(config_fields):
            config_fields.setdefault("codebook_dim", config_fields["feature_size"])
        config_fields["backbone_config"] = backbone.config
        return cls(cls.config_class(**config_fields), backbone=backbone)

    @staticmethod
    def codes_are_features(config_fields: dict) -> bool:
        """Whether, with these fields of the configuration, the codes are as wide as the visual encoder's features."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Freezes the visual encoder; needed after loading too, because `requires_grad` is not saved."""
        self.visual_encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True):
        super().train(mode)
        self.visual_encoder.eval()
        return self

    @torch.no_grad()
    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features of the frozen visual encoder, float32; see [`VisualEncoder`] for the shapes."""
        return self.visual_encoder(pixel_values)

    def _inputs(
        self, pixel_values: torch.Tensor | None, input_features: torch.Tensor | None, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (batch_size, num_segments or num_cells, views, feature_size), and their mask without the last two
        dimensions. The mask of `pixel_values` is that of their segments."""
        if (pixel_values is None) == (input_features is None):
            raise ValueError("give either `pixel_values` or `input_features`.")
        if input_features is None:
            features = self.features(pixel_values)
            mask = None if mask is None else mask.repeat_interleave(self.features_per_segment, dim=1)
        else:
            features = input_features.float()
        if features.dim() != 4 or features.shape[-1] != self.config.feature_size or 0 in features.shape:
            raise ValueError(
                f"`input_features` must have the shape (batch_size, num_{self.feature_unit}, views, "
                f"{self.config.feature_size}), got {tuple(features.shape)}."
            )
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.long, device=features.device)
        if mask.shape != features.shape[:2]:
            raise ValueError(
                f"`feature_attention_mask` must have the shape {tuple(features.shape[:2])} of the {self.feature_unit}, "
                f"got {tuple(mask.shape)}."
            )
        return features, mask.long()

    def _segment_rates(self, frame_rate: torch.Tensor | None, features: torch.Tensor) -> torch.Tensor:
        """Segments per second (batch_size,) of the videos; 1 if no `frame_rate` was passed."""
        rates = features.new_ones(len(features)) if frame_rate is None else frame_rate.to(features)
        if rates.shape != (len(features),):
            raise ValueError(f"`frame_rate` must have the shape ({len(features)},), got {tuple(rates.shape)}.")
        return rates


__all__ = ["VideoActionModel"]
