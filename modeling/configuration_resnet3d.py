"""Configuration of 3-D ResNets, visual encoders of clips (VT-LVLM-AR, section III.A)."""

from typing import ClassVar, Literal

from .checked_config import CheckedConfig, strict


@strict
class ResNet3DConfig(CheckedConfig):
    r"""
    Configuration of [`ResNet3DModel`]. The defaults are those of torchvision's `r3d_18` for Kinetics-400.

    Args:
        convolution (`"3d"`, `"(2+1)d"` or `"mixed"`, defaults to `"3d"`):
            How space and time are convolved (arXiv:1711.11248, section 3): together (R3D); first space, then time
            (R(2+1)D); or together in the stem and the first stage, and only space in the others (MC3).
        hidden_sizes (`list[int]`, defaults to `[64, 128, 256, 512]`):
            Number of channels of each stage; the stem has as many as the first. Every stage but the first halves height and
            width, and also the number of frames if it convolves time.
        depths (`list[int]`, defaults to `[2, 2, 2, 2]`):
            Number of residual blocks of each stage.
        num_channels (`int`, defaults to 3):
            Number of channels of a frame.
        num_frames (`int`, defaults to 16), image_size (`int`, defaults to 112):
            Number of frames of the training clips, and their height and width in pixels. The model accepts clips of any
            size.

    Raises:
        ConfigError (a `ValueError`): if a field has the wrong type or is out of range, or a name is not a field.
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
        """Sizes must be positive, and every stage needs a width and a depth."""
        self.check_sizes("num_channels", "num_frames", "image_size")
        for name in ("hidden_sizes", "depths"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise ValueError(f"`{name}` must be a list of numbers of at least 1, got {values}.")
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"`hidden_sizes` and `depths` must have one entry per stage, got {self.hidden_sizes} and {self.depths}."
            )

    @property
    def hidden_size(self) -> int:
        """Width of the features."""
        return self.hidden_sizes[-1]


__all__ = ["ResNet3DConfig"]
