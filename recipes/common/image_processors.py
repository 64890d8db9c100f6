"""The image processor of a pretrained visual encoder, as settings of `VideoFeatureExtractor`.

Image processors of transformers resize an image, crop its centre, rescale its values, and normalise them. Their classes have
different defaults for what their file leaves out, so the class is loaded, without code of the repository.
"""

import importlib
import math
from typing import Any

# Classes that only resize, crop, rescale and normalise, beside those with a branch below.
PLAIN = (
    *("BitImageProcessor", "CLIPImageProcessor", "DeiTImageProcessor", "LlavaImageProcessor", "SiglipImageProcessor"),
    *("ViTImageProcessor", "VideoMAEImageProcessor"),
    *("TimesformerVideoProcessor", "VideoMAEVideoProcessor", "VJEPA2VideoProcessor"),
)
SUPPORTED = (*PLAIN, "ConvNextImageProcessor", "VivitImageProcessor")
# Steps that are translated, or change nothing in frames of videos.
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_sample_frames")
# Settings that `pretraining/backbone.py` and `convert_resnet3d.py` write.
OWN = (
    *("image_mean", "image_std", "height", "width", "fit", "resize", "resample", "trim_black", "channels"),
    "frames_per_segment",
)
# Below this size, a ConvNextImageProcessor crops.
CONVNEXT_SIZE = 384
VIDEO_PROCESSOR_FILE = "video_preprocessor_config.json"


def processor_settings(name_or_path: str, revision: str | None, config) -> dict[str, Any]:
    """
    The settings of the feature extractor by which frames become what the visual encoder was trained on.

    Args:
        name_or_path, revision: the visual encoder, and the commit of its repository.
        config: configuration of the visual encoder.

    Raises:
        OSError: if the encoder has no image processor.
        ValueError: if its image processor does more than the feature extractor can; names the setting.
    """
    from transformers import AutoImageProcessor, BaseImageProcessor

    from action_llm.model_files import shortened

    source = {"revision": revision or "main"}
    try:
        values, _ = BaseImageProcessor.get_image_processor_dict(name_or_path, **source)
    except OSError as error:
        if (processor := _video_processor(name_or_path, source, config)) is None:
            raise OSError(
                f"{name_or_path} has no image processor: expected preprocessor_config.json or {VIDEO_PROCESSOR_FILE} beside "
                "the weights, which tells how to resize and normalise frames."
            ) from error
    else:
        if values.get("feature_extractor_type") == "VideoFeatureExtractor":
            return {name: values[name] for name in OWN if name in values}
        try:
            processor = AutoImageProcessor.from_pretrained(name_or_path, trust_remote_code=False, **source)
        except (ValueError, ImportError) as error:
            reason = shortened(" ".join(str(error).split()), 200)
            raise ValueError(f"the image processor of {name_or_path} cannot be loaded: {reason}.") from error
    values = processor.to_dict()
    class_name = values.get("image_processor_type") or values["video_processor_type"]
    try:
        return _translated(class_name, values)
    except ValueError as error:
        raise ValueError(f"the image processor of {name_or_path} ({class_name}): {error}.") from error


def _video_processor(name_or_path: str, source: dict, config):
    """The video processor of transformers for a visual encoder of clips, or None if it has no file of one."""
    from action_llm.extractor_files import model_file
    from action_llm.model_files import read_json_object

    path = model_file(name_or_path, VIDEO_PROCESSOR_FILE, source)
    if path is None:
        return None
    values = read_json_object(path)
    # `AutoVideoProcessor` needs torchvision even to read settings; the classes need it only to process.
    module = importlib.import_module(f"transformers.models.{config.model_type}.video_processing_{config.model_type}")
    name = values.get("video_processor_type")
    if not isinstance(name, str) or not hasattr(module, name):
        raise ValueError(f"{path}: video_processor_type: expected a class for {config.model_type}, found {name!r}")
    return getattr(module, name)(**{key: value for key, value in values.items() if key != "video_processor_type"})


def _translated(class_name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Settings of an image processor → settings of the feature extractor. Raises `ValueError` for those without equivalent."""
    from PIL import Image

    if class_name not in SUPPORTED:
        raise ValueError(f"expected one of {', '.join(SUPPORTED)}")
    for name, value in values.items():
        if name.startswith("do_") and value and name not in STEPS:
            raise ValueError(f"{name}: expected false, found {value}, which frames of videos cannot have")
    if not values.get("do_resize"):
        raise ValueError("do_resize: expected true, because videos have any size")
    size = _size(values, "size")
    crop = _size(values, "crop_size") if values.get("do_center_crop") else None
    if class_name == "ConvNextImageProcessor":
        (edge,) = size if len(size) == 1 else (None,)
        if edge is None:
            raise ValueError(f"size: expected shortest_edge, found {values['size']}")
        size, crop = (
            ((edge, edge), None) if edge >= CONVNEXT_SIZE else ((int(edge / values["crop_pct"]),), (edge, edge))
        )
    fit = "crop" if len(size) == 1 else "squash"
    resized = size * 2 if fit == "crop" else size
    if crop is None:
        if fit == "crop":
            raise ValueError(
                f"size: expected height and width, or do_center_crop, found {values['size']}, which gives images of any width"
            )
        crop = size
    if len(crop) == 1:
        crop = crop * 2
    if crop[0] > resized[0] or crop[1] > resized[1]:
        raise ValueError(f"crop_size: expected at most the size {values['size']}, found {values['crop_size']}")
    mean, std = _normalisation(class_name, values)
    return {
        "height": crop[0],
        "width": crop[1],
        "fit": fit,
        "resize": list(resized) if resized != crop else None,
        "resample": Image.Resampling(values.get("resample") or Image.Resampling.BILINEAR).name.lower(),
        "channels": "color",
        "image_mean": mean,
        "image_std": std,
    }


def _size(values: dict[str, Any], name: str) -> tuple[int, ...]:
    """Height and width, or only the shorter side."""
    size = dict(values.get(name) or {})
    given = {side for side, length in size.items() if length is not None}
    if given == {"height", "width"}:
        return size["height"], size["width"]
    if given == {"shortest_edge"}:
        return (size["shortest_edge"],)
    raise ValueError(f"{name}: expected height and width, or shortest_edge, found {values.get(name)}")


def _normalisation(class_name: str, values: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of channels between 0 and 1, for values that an image processor scales differently."""
    mean, std = (values["image_mean"], values["image_std"]) if values.get("do_normalize") else (0.0, 1.0)
    mean, std = ([value] * 3 if isinstance(value, int | float) else list(value) for value in (mean, std))
    scale = 255 * values["rescale_factor"] if values.get("do_rescale") else 255.0
    offset = 1.0 if class_name == "VivitImageProcessor" and values.get("offset") else 0.0
    if offset or not math.isclose(scale, 1.0):
        mean, std = [(value + offset) / scale for value in mean], [value / scale for value in std]
    return mean, std
