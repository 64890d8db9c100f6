"""Base of the configurations of action models of videos: the configuration of their visual encoder."""

from .action_model_config import ActionModelConfig
from .checked_config import config_errors
from .compatibility import PreTrainedConfig
from .configuration_resnet3d import ResNet3DConfig

# Maximum number of patches of an image or a clip (or pixels, without patches): 256 frames of 224 x 224 pixels, in patches of 1.
MAX_PATCHES = 2**24


class VideoActionConfig(ActionModelConfig):
    """Base of [`VSTConfig`] and [`VTEMConfig`], which have a visual encoder, `backbone_config`."""

    def __post_init__(self, **kwargs):
        self.backbone_config = backbone_config_of(self.backbone_config)
        # The visual encoder may have an attention implementation already, which the base class would reset.
        attention = getattr(self.backbone_config, "_attn_implementation", None)
        if attention is not None:
            kwargs.setdefault("attn_implementation", attention)
        super().__post_init__(**kwargs)

    def validate_backbone(self):
        """The visual encoder must read images or clips of a possible size."""
        with config_errors("backbone_config"):
            check_backbone(self.backbone_config)


def backbone_config_of(config: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig | None:
    """
    Builds the configuration of a [`ResNet3DModel`] from a `dict`; returns every other value unchanged. When this code is loaded
    from a repository, `AutoConfig` does not know this project's own visual encoder.
    """
    if isinstance(config, dict) and config.get("model_type") == ResNet3DConfig.model_type:
        with config_errors("backbone_config"):
            return ResNet3DConfig(**config)
    return config


def check_backbone(config: PreTrainedConfig) -> None:
    """Raises `ValueError` for a visual encoder of impossible size: some models compute a table of all patches before any weight
    is read."""
    image, patch = getattr(config, "image_size", 1), getattr(config, "patch_size", 1)
    sides = [side if isinstance(side, list | tuple) else [side, side] for side in (image, patch)]
    numbers = [*sides[0], *sides[1], getattr(config, "num_frames", 1) or 1]
    if not all(isinstance(number, int) and 0 < number < 2**16 for number in numbers):
        raise ValueError(
            f"image_size {image}, patch_size {patch} and num_frames {numbers[-1]} are not sizes of a video: expected positive "
            "integers below 65,536."
        )
    height, width = (whole / part for whole, part in zip(*sides, strict=False))
    if height * width * numbers[-1] > MAX_PATCHES:
        raise ValueError(
            f"image_size {image}, patch_size {patch} and num_frames {numbers[-1]} make more than {MAX_PATCHES:,} patches."
        )


__all__ = ["VideoActionConfig", "backbone_config_of", "check_backbone"]
