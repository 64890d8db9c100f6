"""Visual encoders: features of the segments of a video, from any transformers model of images or clips."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel

from .modeling_resnet3d import ResNet3DModel

# Backbones that read clips, by their `model_type`; all others read images.
CLIP_BACKBONES = ("resnet3d", "timesformer", "videomae", "vivit", "vjepa2")
# Maximum number of tokens of a vision transformer that are not patches: a class token and four registers.
MAX_SPECIAL_TOKENS = 5


class VisualEncoder(nn.Module):
    """Computes features of segments of a video, by a transformers model of images or clips.

    An image model gives a feature per frame (the pooled output, or the mean over patches). A clip model gives a feature per
    segment (the mean over patches, or over the feature map of a 3-D ResNet). With a `grid`, every frame or clip is divided into
    grid × grid cells, ordered in time, then in space, and the feature of a cell is the mean over its patches.

    Args:
        backbone (`PreTrainedModel`): the model, as `AutoModel.from_pretrained` returns it.
        feature_layer (`int`, *optional*): index of the hidden state that is read with a grid, such as LLaVA's −2; by default
            the last hidden state.
        grid (`int`, *optional*): number of cells along height and width.

    Raises:
        ValueError: if a clip model other than a 3-D ResNet is used with a grid above 1, or a clip model with `feature_layer`.
    """

    def __init__(self, backbone: PreTrainedModel, feature_layer: int | None = None, grid: int | None = None):
        super().__init__()
        self.backbone, self.feature_layer, self.grid = backbone, feature_layer, grid
        self.reads_clips = backbone.config.model_type in CLIP_BACKBONES
        model_type = backbone.config.model_type
        has_map = not self.reads_clips or model_type == ResNet3DModel.config_class.model_type
        if (not has_map and (grid or 1) > 1) or (self.reads_clips and feature_layer is not None):
            raise ValueError(
                f"{model_type} reads clips: only its last layer can be used, without cells unless it is a resnet3d. Set `grid` "
                "to 1 and omit `feature_layer`."
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
            `torch.Tensor` of shape `(batch_size, num_segments, views, feature_size)`, float32; with a grid, of shape
            `(batch_size, num_segments * grid ** 2, views, feature_size)`. Views are frames; a clip has a single view.
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
            # V-JEPA 2 would also run its predictor of masked patches.
            options = {"skip_predictor": True} if self.backbone.config.model_type == "vjepa2" else {}
            features = self.backbone(**{name: pixel_values.flatten(0, 1)}, **options).last_hidden_state.float()
            if features.dim() == 5:  # (clips, channels, frames, height, width)
                return self._cells(features.mean(dim=2), (batch_size, segments, 1))
            return features.mean(dim=1).view(batch_size, segments, 1, -1)
        images = pixel_values.flatten(0, 2)
        if self.grid is None:
            outputs = self.backbone(pixel_values=images)
            features = getattr(outputs, "pooler_output", None)
            if features is None:
                features = outputs.last_hidden_state.mean(dim=1)
            return features.flatten(1).view(batch_size, segments, frames, -1).float()
        return self._cells(self._maps(images), (batch_size, segments, frames))

    def _cells(self, maps: torch.Tensor, sizes: tuple[int, int, int]) -> torch.Tensor:
        """Maps (batch_size * segments * views, feature_size, …) → (batch_size, segments * cells, views, feature_size)."""
        cells = F.adaptive_avg_pool2d(maps, self.grid or 1).flatten(2)
        return cells.view(*sizes, *cells.shape[1:]).permute(0, 1, 4, 2, 3).flatten(1, 2)

    def _maps(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, height, width) → features of their patches (N, feature_size, rows, columns), float32."""
        if self.feature_layer is None:
            states = self.backbone(pixel_values=images).last_hidden_state
        else:
            states = self.backbone(pixel_values=images, output_hidden_states=True).hidden_states
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
        rows, columns = patch_rows_and_columns(states.shape[1], *images.shape[-2:], patch)
        return states[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))


def fresh_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """An untrained visual encoder."""
    # When this code is loaded from a repository, `AutoModel` does not know this project's own visual encoder.
    if config.model_type == ResNet3DModel.config_class.model_type:
        return ResNet3DModel(config)
    return AutoModel.from_config(config, trust_remote_code=False)


def patch_rows_and_columns(length: int, height: int, width: int, patch_size: int | None = None) -> tuple[int, int]:
    """
    Number of rows and columns of the patches of an image. Class token and registers, if any, come before the patches.

    Args:
        length (`int`): number of tokens: patches and special tokens.
        height, width (`int`): size of the image in pixels.
        patch_size (`int`, *optional*): patch size of the first layer; in hierarchical encoders, the last layer has larger
            patches.

    Raises:
        ValueError: if no number of rows matches the proportions of the image.
    """
    if isinstance(patch_size, int):
        rows, columns = height // patch_size, width // patch_size
        if rows * columns and 0 <= length - rows * columns <= MAX_SPECIAL_TOKENS:
            return rows, columns
    for special in range(min(MAX_SPECIAL_TOKENS + 1, length)):
        rows = round(((length - special) * height / width) ** 0.5)
        if rows and (length - special) % rows == 0 and (length - special) // rows * height == rows * width:
            return rows, (length - special) // rows
    raise ValueError(
        f"{length} patches cannot be arranged in rows and columns of an image of {height} x {width} pixels."
    )


class FeatureStandardisation(nn.Module):
    """Standardises features by their mean and standard deviation (size,) over training videos; initially the identity."""

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
        """Sets the statistics. The deviation has a lower bound, so that nearly constant channels are not amplified."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(1e-3 * deviation.mean().clamp_min(1e-8)))


def keep_weights(module: nn.Module) -> None:
    """Marks weights as initialised, so that transformers does not initialise them again."""
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
