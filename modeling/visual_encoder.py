"""Visual encoders: any transformers model of pictures or of clips, and what it makes of the segments of a video."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from .modeling_resnet3d import ResNet3DModel

# Backbones that read clips, by their `model_type`; all others read pictures.
CLIP_BACKBONES = ("resnet3d", "timesformer", "videomae", "vivit", "vjepa2")
# Words of a transformer that stand for no patch, at most: a class token and four registers.
MAX_SPECIAL_TOKENS = 5


class VisualEncoder(nn.Module):
    """A transformers model of pictures or clips, and what it makes of a segment.

    Pictures give a feature each (their pooled output, or the mean over patches); a clip gives one, the mean over patches or
    over the map of a 3-D ResNet. With a `grid`, every picture (or clip) is grid × grid cells in place of a whole, and a feature
    is the mean of a cell's patches: cells are ordered in time, then in space.

    Args:
        backbone (`PreTrainedModel`): as `AutoModel.from_pretrained` gives it.
        feature_layer (`int`, *optional*): hidden state that is read with a grid, such as LLaVA's −2; by default the last.
        grid (`int`, *optional*): cells along height and width.

    Raises:
        ValueError: cells are asked of a backbone whose patches have no known place, or a layer of one that does not tell it.
    """

    def __init__(self, backbone: PreTrainedModel, feature_layer: int | None = None, grid: int | None = None):
        super().__init__()
        self.backbone, self.feature_layer, self.grid = backbone, feature_layer, grid
        self.reads_clips = backbone.config.model_type in CLIP_BACKBONES
        kind = backbone.config.model_type
        has_map = not self.reads_clips or kind == ResNet3DModel.config_class.model_type
        if (not has_map and (grid or 1) > 1) or (self.reads_clips and feature_layer is not None):
            raise ValueError(
                f"{kind} reads clips, of which no layer but the last is read and, but for resnet3d, no cells: set `grid` to 1 "
                "and leave `feature_layer` out."
            )

    @property
    def feature_size(self) -> int:
        """Width of a feature."""
        sizes = getattr(self.backbone.config, "hidden_sizes", None)
        return sizes[-1] if sizes else self.backbone.config.hidden_size

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_segments, frames, 3, height, width)`).

        Returns:
            `torch.Tensor` of shape `(batch_size, num_segments, views, feature_size)`, float32: a view a frame, or one a clip;
            with a grid `(batch_size, num_segments * grid ** 2, views, feature_size)`.
        """
        if pixel_values.dim() != 6 or pixel_values.shape[3] != 3:
            raise ValueError(
                "`pixel_values` must have the shape (batch_size, num_segments, frames, 3, height, width), "
                f"got {tuple(pixel_values.shape)}."
            )
        batch_size, segments, frames = pixel_values.shape[:3]
        pixel_values = pixel_values.to(self.backbone.dtype)
        if self.reads_clips:
            name = "pixel_values_videos" if self.backbone.main_input_name == "pixel_values_videos" else "pixel_values"
            # V-JEPA 2 would guess what is hidden, too.
            options = {"skip_predictor": True} if self.backbone.config.model_type == "vjepa2" else {}
            features = self.backbone(**{name: pixel_values.flatten(0, 1)}, **options).last_hidden_state.float()
            if features.dim() == 5:  # (clips, channels, frames, height, width)
                return self._cells(features.mean(dim=2), (batch_size, segments, 1))
            return features.mean(dim=1).view(batch_size, segments, 1, -1)
        pictures = pixel_values.flatten(0, 2)
        if self.grid is None:
            outputs = self.backbone(pixel_values=pictures)
            features = getattr(outputs, "pooler_output", None)
            if features is None:
                features = outputs.last_hidden_state.mean(dim=1)
            return features.flatten(1).view(batch_size, segments, frames, -1).float()
        return self._cells(self._maps(pictures), (batch_size, segments, frames))

    def _cells(self, maps: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
        """Maps (batch_size * segments * views, feature_size, …) → (batch_size, segments * cells, views, feature_size)."""
        cells = F.adaptive_avg_pool2d(maps, self.grid or 1).flatten(2)
        return cells.view(*sizes, *cells.shape[1:]).permute(0, 1, 4, 2, 3).flatten(1, 2)

    def _maps(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, height, width) → features of their patches (N, feature_size, rows, columns), float32."""
        if self.feature_layer is None:
            states = self.backbone(pixel_values=pictures).last_hidden_state
        else:
            states = self.backbone(pixel_values=pictures, output_hidden_states=True).hidden_states
            if not -len(states) <= self.feature_layer < len(states):
                raise ValueError(
                    f"`feature_layer` is {self.feature_layer}, but {type(self.backbone).__name__} has the hidden states "
                    f"0 to {len(states) - 1}."
                )
            states = states[self.feature_layer]
        states = states.float()
        if states.dim() == 4:
            return states
        patch = getattr(self.backbone.config, "patch_size", None)
        rows, columns = patch_rows_and_columns(states.shape[1], *pictures.shape[-2:], patch)
        return states[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))


def fresh_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """A visual encoder with weights of no meaning yet."""
    # By name: where this code comes from a repository, `AutoModel` knows of no other model of this project.
    if config.model_type == ResNet3DModel.config_class.model_type:
        return ResNet3DModel(config)
    return AutoModel.from_config(config, trust_remote_code=False)


def patch_rows_and_columns(length: int, height: int, width: int, patch_size: int | None = None) -> tuple[int, int]:
    """
    Rows and columns of the patches of a picture, of which there are `length`, behind a class token and registers, if any.

    Args:
        length (`int`): patches and special tokens.
        height, width (`int`): of the picture, pixels.
        patch_size (`int`, *optional*): of the first layer; hierarchical encoders have larger ones at their end.

    Raises:
        ValueError: no number of rows has the proportions of the picture.
    """
    if isinstance(patch_size, int):
        rows, columns = height // patch_size, width // patch_size
        if rows * columns and 0 <= length - rows * columns <= MAX_SPECIAL_TOKENS:
            return rows, columns
    for special in range(min(MAX_SPECIAL_TOKENS + 1, length)):
        rows = round(((length - special) * height / width) ** 0.5)
        if rows and (length - special) % rows == 0 and (length - special) // rows * height == rows * width:
            return rows, (length - special) // rows
    raise ValueError(f"{length} patches do not fill a picture of {height} x {width} pixels in rows and columns.")


class FeatureStandardisation(nn.Module):
    """Mean and standard deviation (size,) of features over training videos; as it comes, it changes nothing."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("deviation", torch.ones(size, dtype=torch.float32))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return (features - self.mean) / self.deviation

    def inverse(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.deviation + self.mean

    @torch.no_grad()
    def set(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Takes statistics over; channels that hardly change are not blown up."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(1e-3 * deviation.mean().clamp_min(1e-8)))


def keep_weights(module: nn.Module) -> None:
    """Tells transformers that weights are there already."""
    for parameter in (*module.parameters(), *module.buffers()):
        parameter._is_hf_initialized = True


__all__ = [
    "CLIP_BACKBONES",
    "FeatureStandardisation",
    "VisualEncoder",
    "fresh_backbone",
    "keep_weights",
    "patch_rows_and_columns",
]
