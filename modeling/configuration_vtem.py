"""Configuration of the Video-to-Event Mapper (VTEM), which turns long videos into event sentences (VT-LVLM-AR, III.A)."""

from typing import ClassVar, Literal

from transformers import AutoConfig

from .checked_config import strict
from .compatibility import PreTrainedConfig, SubConfigSpec
from .temporal_pooling import LEAST_WEIGHT, largest_sum
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
    Configuration of [`VTEMModel`]. The defaults are for the vision tower of LLaVA-1.5, because LLaVA's frozen projector reads
    only the features of that tower. They follow VT-LVLM-AR (section IV.A); values that the paper does not give are this
    project's.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*, defaults to LLaVA-1.5's `CLIPVisionConfig`):
            Configuration of the visual encoder: any transformers model of images or of clips.
        feature_layer (`int`, *optional*, defaults to -2):
            Index of the hidden state of the visual encoder that is used as feature. `None` is the last.
        grid (`int`, defaults to 1):
            A frame is divided into `grid` × `grid` cells. The feature of a cell is the mean over its patches. Use 4 for short
            clips, 1 for long videos.
        feature_size (`int`, defaults to 1024):
            Width of the visual encoder's features.
        codebook_dim (`int`, defaults to 1024):
            Width of the codes: the feature width of the language model's vision tower.
        maps_features (`bool`, defaults to `False`):
            Whether the visual encoder differs from that vision tower. If so, a linear layer maps its features to those of the
            tower, which training has to provide.
        codebook_size (`int`, defaults to 2048):
            Number K of visual event tokens (Table VI).
        max_events (`int`, defaults to 256), window_cells (`int`, defaults to 1280):
            At most `max_events` events (M, Table V) begin in any `window_cells` consecutive cells, at all places of the grid
            together. Every place has at least one event, so M must be at least `grid` ** 2.
        pooling (`"adaptive"` or `"uniform"`, defaults to `"adaptive"`):
            Adaptive pooling begins events where the video changes; uniform pooling makes events of equal length (Table II).
            Both aim at about three quarters of M events per window on average.
        pooling_scope (`"place"`, `"frame"` or `"raster"`, defaults to `"place"`):
            Whether events are of each place of the grid (`"place"`) or of whole frames (`"frame"`); `"raster"` is for models
            that earlier versions saved. `"place"` pools the cells of each place over time. `"frame"` pools frames, by the mean
            weight of their cells, and an event has one token for each place. `"raster"` pools all cells as one sequence, row by
            row and frame by frame, so an event is a strip of a frame. Without a grid, all three are the same.
        quantize (`bool`, defaults to `True`):
            `False` gives pooled features without a codebook (Table II).
        weight_size (`int`, defaults to 128), weight_reach (`int`, defaults to 5):
            Hidden width of the network that computes the weight of a cell, and its receptive field: the number of cells at the
            same place of the frame, which are the cell and those before it.
        codebook_training (`"gradient"` or `"ema"`, defaults to `"gradient"`), ema_decay (`float`, defaults to 0.99):
            See [`ActionVQVAEConfig`].
        kmeans_init (`bool`, defaults to `True`), dead_code_threshold (`float`, defaults to 0.1):
            See [`ActionVQVAEConfig`]. Both place codes on features, because codes stand for features here.
        reconstruction_weight (`float`, defaults to 1.0):
            α of Eq. 4: weight of the mean squared error of the standardised features of the cells.
        coherence_weight (`float`, defaults to 0.1):
            β of Eq. 4: weight of InfoNCE over temporal proximity. 0 is Table II, "w/o event coherence bias".
        negative_distance (`float`, defaults to 4.0):
            Events of the same video are negatives if their middles are further apart in time than this many mean lengths of an
            event. Positives are consecutive events at the same place.
        contrast_temperature (`float`, defaults to 0.1):
            Temperature of the InfoNCE loss.
        embedding_weight (`float`, defaults to 1.0), commitment_weight (`float`, defaults to 0.25):
            Weights of the mean squared errors between latents and codes, which Eq. 4 does not have.
        quantity_weight (`float`, defaults to 1.0):
            Weight of the squared relative error of the number of events in a batch; the target is three quarters of M per
            window. Without this loss, more events would always be better.
        familiar_distance (`float`, *optional*):
            See [`ActionVQVAEConfig`].

    Raises:
        ConfigError (a `ValueError`): if a field has the wrong type or is out of range, or a name is not a field.
    """

    model_type = "vtem"
    _auto_class: ClassVar[str] = "AutoConfig"
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
    pooling_scope: Literal["place", "frame", "raster"] = "place"
    quantize: bool = True
    weight_size: int = 128
    weight_reach: int = 5
    codebook_training: Literal["gradient", "ema"] = "gradient"
    kmeans_init: bool = True
    ema_decay: float | int = 0.99
    dead_code_threshold: float | int = 0.1
    reconstruction_weight: float | int = 1.0
    coherence_weight: float | int = 0.1
    negative_distance: float | int = 4.0
    contrast_temperature: float | int = 0.1
    embedding_weight: float | int = 1.0
    commitment_weight: float | int = 0.25
    quantity_weight: float | int = 1.0
    familiar_distance: float | int | None = None

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = dict(LLAVA_VISION_TOWER)
        # Earlier versions saved the distance of negatives as a number of events, and pooled the cells of frames row by row.
        if "model_type" in kwargs and kwargs.pop("coherence_distance", None) is not None and self.grid > 1:
            self.pooling_scope = "raster"
        super().__post_init__(**kwargs)

    @property
    def num_places(self) -> int:
        """Number of sequences of cells that are pooled, each over time."""
        return 1 if self.pooling_scope == "raster" else self.grid**2

    def validate_sizes(self):
        """Sizes must be positive, and a cell is compared with at least the cell before it."""
        self.check_sizes("grid", "feature_size", "codebook_dim", "codebook_size")
        self.check_sizes("max_events", "window_cells", "weight_size")
        self.check_not_negative("negative_distance")
        self.check_positive("contrast_temperature")
        if self.weight_reach < 2:
            raise ValueError(
                f"`weight_reach` must be at least 2, the cell and the cell before it, got {self.weight_reach}."
            )

    def validate_events(self):
        """An event has at least one cell, a place at least one event, and without a map codes are as wide as the features."""
        if self.max_events > self.window_cells:
            raise ValueError(
                f"`max_events` must be at most the {self.window_cells} cells of `window_cells`, got {self.max_events}."
            )
        if largest_sum(self.max_events, self.num_places) / self.window_cells < 10 * LEAST_WEIGHT:
            raise ValueError(
                f"`max_events` must be at least one for every {1 / (10 * LEAST_WEIGHT):g} of the {self.window_cells} cells of "
                f"`window_cells` and one for each of the {self.num_places} places but the first, got {self.max_events}."
            )
        if not self.maps_features and self.codebook_dim != self.feature_size:
            raise ValueError(
                f"`codebook_dim` {self.codebook_dim} must equal `feature_size` {self.feature_size}, because codes are features "
                "of the vision tower. For another visual encoder, set `maps_features=True`."
            )


__all__ = ["VTEMConfig"]
