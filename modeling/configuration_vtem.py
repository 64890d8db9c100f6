"""Configuration of the Video-to-Event Mapper, which writes long videos as visual event sentences (VT-LVLM-AR, III.A)."""

from typing import ClassVar, Literal

from transformers import AutoConfig

from .checked_config import strict
from .compatibility import PreTrainedConfig, SubConfigSpec
from .temporal_pooling import LEAST_WEIGHT
from .video_action_config import VideoActionConfig

# CLIP ViT-L/14 at 336 pixels, the vision tower of LLaVA-1.5.
LLAVA_VISION_TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


@strict
class VTEMConfig(VideoActionConfig):
    r"""
    Configuration of [`VTEMModel`]. The defaults are those of VT-LVLM-AR (section IV.A) and, where it is silent, of this
    project, for LLaVA-1.5's own vision tower: nothing else is what its frozen projector reads.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*, defaults to LLaVA-1.5's `CLIPVisionConfig`):
            Configuration of the visual encoder: any transformers model of pictures or of clips.
        feature_layer (`int`, *optional*, defaults to -2):
            Hidden state of the visual encoder that is its feature. `None` is the last.
        grid (`int`, defaults to 1):
            A picture is `grid` × `grid` cells, each the mean of its patches: 4 for short clips, 1 for long videos.
        feature_size (`int`, defaults to 1024):
            Width of the visual encoder's features.
        codebook_dim (`int`, defaults to 1024):
            Width of the codes: that of the features of the language model's vision tower.
        maps_features (`bool`, defaults to `False`):
            Whether the visual encoder is another than that vision tower. Its features are mapped to those of the tower, which
            it is shown in training, then.
        codebook_size (`int`, defaults to 2048):
            Number K of visual event tokens (Table VI).
        max_events (`int`, defaults to 256), window_cells (`int`, defaults to 1280):
            At most M events (Table V) begin in every stretch of so many cells.
        pooling (`"adaptive"` or `"uniform"`, defaults to `"adaptive"`):
            Table II: events where the video changes, or of equal length, as many as the others are on average: three
            quarters of M in a window.
        quantize (`bool`, defaults to `True`):
            Table II: `False` gives pooled features without codes.
        weight_size (`int`, defaults to 128), weight_reach (`int`, defaults to 5):
            Width of what weighs a cell, and how many cells of the same place in the picture it sees: the cell and those
            before it.
        codebook_training (`"gradient"` or `"ema"`, defaults to `"gradient"`), ema_decay (`float`, defaults to 0.99):
            As of [`ActionVQVAEConfig`].
        kmeans_init (`bool`, defaults to `True`), dead_code_threshold (`float`, defaults to 0.1):
            As of [`ActionVQVAEConfig`]. Codes are features: they begin, and begin again, as such.
        reconstruction_weight (`float`, defaults to 1.0):
            α of Eq. 4: mean squared error of the standardised features of the cells.
        coherence_weight (`float`, defaults to 0.1):
            β of Eq. 4: InfoNCE over temporal proximity. 0 is Table II, "w/o event coherence bias".
        coherence_distance (`int`, defaults to 4):
            Events of the same video are negatives when they are further away than this.
        contrast_temperature (`float`, defaults to 0.1): of it.
        embedding_weight (`float`, defaults to 1.0), commitment_weight (`float`, defaults to 0.25):
            Weights of the mean squared errors between latents and codes, which Eq. 4 lacks.
        quantity_weight (`float`, defaults to 1.0):
            Weight of the squared relative error of the number of events in a batch, against three quarters of M in a window:
            otherwise, more events would always be better.
        familiar_distance (`float`, *optional*):
            As of [`ActionVQVAEConfig`].

    Raises:
        ConfigError (a `ValueError`): a field of the wrong type, a value out of range, or a name that is no field.
    """

    model_type = "vtem"
    _auto_class: ClassVar[str] = "AutoConfig"
    num_codebooks: ClassVar[int] = 1
    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model")}

    backbone_config: dict | PreTrainedConfig | None = None
    feature_layer: int | None = -2
    grid: int = 1
    feature_size: int = 1024
    codebook_dim: int = 1024
    maps_features: bool = False
    codebook_size: int = 2048
    max_events: int = 256
    window_cells: int = 1280
    pooling: Literal["adaptive", "uniform"] = "adaptive"
    quantize: bool = True
    weight_size: int = 128
    weight_reach: int = 5
    codebook_training: Literal["gradient", "ema"] = "gradient"
    kmeans_init: bool = True
    ema_decay: float | int = 0.99
    dead_code_threshold: float | int = 0.1
    reconstruction_weight: float | int = 1.0
    coherence_weight: float | int = 0.1
    coherence_distance: int = 4
    contrast_temperature: float | int = 0.1
    embedding_weight: float | int = 1.0
    commitment_weight: float | int = 0.25
    quantity_weight: float | int = 1.0
    familiar_distance: float | int | None = None

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = dict(LLAVA_VISION_TOWER)
        super().__post_init__(**kwargs)

    def validate_sizes(self):
        """Everything that is counted is at least 1."""
        counted = (
            "grid",
            "feature_size",
            "codebook_dim",
            "codebook_size",
            "max_events",
            "window_cells",
            "weight_size",
        )
        for name in counted:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.weight_reach < 2:
            raise ValueError(
                f"`weight_reach` must be at least 2, the cell and one before it, got {self.weight_reach}."
            )
        if self.coherence_distance < 0:
            raise ValueError(f"`coherence_distance` must not be negative, got {self.coherence_distance}.")

    def validate_events(self):
        """There are fewer events than cells, and codes are features or learn to be."""
        if self.max_events > self.window_cells:
            raise ValueError(
                f"`max_events` {self.max_events} must not be more than the cells of `window_cells`, {self.window_cells}."
            )
        if 0 < self.max_events / self.window_cells < 10 * LEAST_WEIGHT:
            raise ValueError(
                f"`max_events` {self.max_events} in `window_cells` {self.window_cells} are less than one in "
                f"{1 / (10 * LEAST_WEIGHT):g} cells."
            )
        if not self.maps_features and self.codebook_dim != self.feature_size:
            raise ValueError(
                f"`codebook_dim` {self.codebook_dim} must be the `feature_size` {self.feature_size}: codes are features of the "
                "vision tower. Another visual encoder needs `maps_features=True`."
            )

    def validate_fractions(self):
        """Fractions are fractions, weights are not negative."""
        for name in ("ema_decay", "dead_code_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 0 and below 1, got {getattr(self, name)}.")
        for name in self.__dataclass_fields__:
            if name.endswith("_weight") and not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        if not 0 < self.contrast_temperature < float("inf"):
            raise ValueError(f"`contrast_temperature` must be a positive number, got {self.contrast_temperature}.")

    @property
    def num_action_tokens(self) -> int:
        """Tokens of all codebooks, of which there is one."""
        return self.codebook_size


__all__ = ["VTEMConfig"]
