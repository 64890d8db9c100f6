"""Configuration of 3-D ResNets, which read clips (VT-LVLM-AR, section III.A)."""

from typing import ClassVar, Literal

from .checked_config import CheckedConfig, strict


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


__all__ = ["ResNet3DConfig"]
