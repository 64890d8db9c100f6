"""Arguments that say how frames of a video are taken and normalised."""

from dataclasses import field

from action_llm_recipes.common.field_arguments import extractor_arguments


def _of_the_backbone(name: str):
    """What the backbone decides unless it is given."""
    if name in ("height", "width"):
        kind = int | None
    elif name in ("image_mean", "image_std"):
        kind = list[float] | None
    elif name in ("fit", "channels"):
        kind = str | None
    elif name == "trim_black":
        kind = bool | None
    elif name == "frames_per_segment":
        help_text = "by default as many as the backbone was made for, where it says so, or 2"
        return name, int | None, field(default=None, metadata={"help": help_text, "belongs_to": "backbone"})
    else:
        return None
    metadata = {"help": "by default that of the backbone", "belongs_to": "backbone"}
    return name, kind, field(default=None, metadata=metadata)


VideoArguments = extractor_arguments(
    "action_llm.feature_extraction_video", "VideoFeatureExtractor", "VideoArguments", _of_the_backbone
)
