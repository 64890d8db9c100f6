"""Configuration of 3-D ResNets, which read clips (VT-LVLM-AR, section III.A)."""

from typing import ClassVar, Literal

from .checked_config import CheckedConfig, config_errors, strict
from .compatibility import PreTrainedConfig

# Of a picture or a clip, pixels counting where there are no patches: 256 frames of 224 x 224, in patches of 1.
MAX_PATCHES = 2**24


@strict
class ResNet3DConfig(CheckedConfig):
    r"""
    Configuration of [`ResNet3DModel`]. The defaults are those of torchvision's `r3d_18` for Kinetics-400.

    Args:
        convolution (`"3d"`, `"(2+1)d"` or `"mixed"`, defaults to `"3d"`):
            How space and time are convolved (arXiv:1711.11248, section 3): together (R3D); first space, then time
            (R(2+1)D); or together in the stem and the first stage, and space alone in the others (MC3).
        hidden_sizes (`list[int]`, defaults to `[64, 128, 256, 512]`):
            Channels of the stages; the stem has those of the first. Every stage but the first halves height and width, and
            the frames where it convolves time.
        depths (`list[int]`, defaults to `[2, 2, 2, 2]`):
            Residual blocks of the stages.
        num_channels (`int`, defaults to 3):
            Channels of a picture.
        num_frames (`int`, defaults to 16), image_size (`int`, defaults to 112):
            Frames of the clips that the weights were trained on, and their height and width in pixels. The model itself
            takes clips of any size.

    Raises:
        ConfigError (a `ValueError`): a field of the wrong type, a value out of range, or a name that is no field.
    """

    model_type = "resnet3d"
    _auto_class: ClassVar[str] = "AutoConfig"

    convolution: Literal["3d", "(2+1)d", "mixed"] = "3d"
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    num_channels: int = 3
    num_frames: int = 16
    image_size: int = 112

    def __post_init__(self, **kwargs):
        self.hidden_sizes, self.depths = list(self.hidden_sizes), list(self.depths)
        super().__post_init__(**kwargs)

    def validate_sizes(self):
        """Everything that is counted is at least 1, and every stage has a width and a depth."""
        for name in ("num_channels", "num_frames", "image_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in ("hidden_sizes", "depths"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"`{name}` must be numbers of at least 1, one for each stage, got {values}.")
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"`hidden_sizes` and `depths` must be as many as there are stages, got {self.hidden_sizes} and {self.depths}."
            )

    @property
    def hidden_size(self) -> int:
        """Width of the features."""
        return self.hidden_sizes[-1]


def backbone_config_of(found: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig | None:
    """
    The configuration of a visual encoder, by name that of this project's own model: where this code comes from a repository,
    transformers knows of no other model of this project.
    """
    if isinstance(found, dict) and found.get("model_type") == ResNet3DConfig.model_type:
        with config_errors("backbone_config"):
            return ResNet3DConfig(**found)
    return found


def check_backbone(config: PreTrainedConfig) -> None:
    """Raises `ValueError` for a visual encoder with more patches than there can be: some families compute a table of them all
    before any weight is read."""
    picture, patch = getattr(config, "image_size", 1), getattr(config, "patch_size", 1)
    sides = [side if isinstance(side, list | tuple) else [side, side] for side in (picture, patch)]
    numbers = [*sides[0], *sides[1], getattr(config, "num_frames", 1) or 1]
    if not all(isinstance(number, int) and 0 < number < 2**16 for number in numbers):
        raise ValueError(
            f"image_size {picture}, patch_size {patch} and num_frames {numbers[-1]} are no sizes of a video."
        )
    height, width = (whole / part for whole, part in zip(*sides, strict=False))
    if height * width * numbers[-1] > MAX_PATCHES:
        raise ValueError(
            f"image_size {picture}, patch_size {patch} and num_frames {numbers[-1]} make more than {MAX_PATCHES:,} patches."
        )


__all__ = ["ResNet3DConfig", "backbone_config_of", "check_backbone"]
