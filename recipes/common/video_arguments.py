"""Command-line arguments for the frames of videos: the settings of `VideoFeatureExtractor`."""

from dataclasses import field

from action_llm_recipes.common.field_arguments import extractor_arguments

# Settings whose default depends on the visual encoder.
TYPES = {
    **dict.fromkeys(("height", "width", "frames_per_segment"), int | None),
    **dict.fromkeys(("image_mean", "image_std"), list[float] | None),
    **dict.fromkeys(("fit", "channels", "resample"), str | None),
    "resize": list[int] | None,
    "trim_black": bool | None,
}


def _of_the_backbone(name: str):
    """The field of a setting whose default depends on the visual encoder; None for other settings."""
    if name not in TYPES:
        return None
    help_text = "by default that of the visual encoder"
    if name == "frames_per_segment":
        help_text = "by default the clip length of the visual encoder, or 2 if it has none"
    return name, TYPES[name], field(default=None, metadata={"help": help_text, "belongs_to": "backbone"})


VideoArguments = extractor_arguments(
    "action_llm.feature_extraction_video", "VideoFeatureExtractor", "VideoArguments", _of_the_backbone
)
