"""What the configurations of action models of videos share: the one of their visual encoder."""

from .checked_config import CheckedConfig, config_errors
from .compatibility import PreTrainedConfig
from .configuration_resnet3d import ResNet3DConfig

# Of a picture or a clip, pixels counting where there are no patches: 256 frames of 224 x 224, in patches of 1.
MAX_PATCHES = 2**24


class VideoActionConfig(CheckedConfig):
    """Base of the configurations of action models with a visual encoder, `backbone_config`."""

    def __post_init__(self, **kwargs):
        self.backbone_config = backbone_config_of(self.backbone_config)
        # The attention of a visual encoder that is there already is its own; the base class would reset it.
        attention = getattr(self.backbone_config, "_attn_implementation", None)
        if attention is not None:
            kwargs.setdefault("attn_implementation", attention)
        super().__post_init__(**kwargs)

    def validate_backbone(self):
        """The visual encoder reads pictures that there can be."""
        with config_errors("backbone_config"):
            check_backbone(self.backbone_config)


def backbone_config_of(config: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig | None:
    """
    The configuration of a visual encoder, by name that of this project's own model: where this code comes from a repository,
    transformers knows of no other model of this project.
    """
    if isinstance(config, dict) and config.get("model_type") == ResNet3DConfig.model_type:
        with config_errors("backbone_config"):
            return ResNet3DConfig(**config)
    return config


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


__all__ = ["VideoActionConfig", "backbone_config_of", "check_backbone"]
