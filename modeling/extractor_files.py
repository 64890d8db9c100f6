"""Loads feature extractors from the files of a model folder.

The settings of a recogniser's feature extractor are stored twice: in `processor_config.json` for `ActionLLMProcessor`, and in
`preprocessor_config.json` for `AutoFeatureExtractor`. If the two differ, the same recording would give different tokens,
depending on how the feature extractor is loaded; loading is refused.
"""

import os
from collections.abc import Sequence
from typing import Any

from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils.hub import cached_file

from .checked_settings import SettingError
from .model_files import HUB_ARGUMENTS, ModelFileError, as_written, read_json_object

PROCESSOR_FILE = "processor_config.json"
EXTRACTOR_FILE = "preprocessor_config.json"
# The settings of the feature extractor in `PROCESSOR_FILE`.
EXTRACTOR_FIELD = "feature_extractor"
# Fields that transformers writes beside the settings, without effect on features.
_NOT_SETTINGS = ("feature_extractor_type", "_processor_class", "auto_map")


class RecordingFeatureExtractor(FeatureExtractionMixin):
    """Base of [`SkeletonFeatureExtractor`] and [`VideoFeatureExtractor`].

    Raises:
        SettingError: If a setting is unknown.
    """

    def __init__(self, **kwargs):
        kwargs.pop("feature_extractor_type", None)
        unknown = sorted(set(kwargs) - {"processor_class", "auto_map"})
        if unknown:
            name, known = unknown[0], list(type(self).__init__.__annotations__)
            message = f"{type(self).__name__} has no setting {name!r}; its settings are {known}"
            raise SettingError(name, f"one of the settings {known}", f"the setting {name!r}", message)
        check_class_references(kwargs)
        super().__init__(**kwargs)

    @classmethod
    def get_feature_extractor_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict, dict]:
        """The settings in the files of a model folder, and the arguments that do not concern the download.

        Raises:
            ModelFileError: If a file has no settings of this class, or two files have different settings.
            OSError: If there are no such files.
        """
        hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        for internal in ("_from_auto", "_from_pipeline"):
            kwargs.pop(internal, None)
        values, _ = read_feature_extractor(pretrained_model_name_or_path, hub, (cls,))
        return values, kwargs


def model_file(name_or_path: str | os.PathLike, file_name: str, hub: dict[str, Any]) -> str | None:
    """Path of a file of a model folder or repository, or None if it has no such file.

    Args:
        name_or_path: Folder, or repository on the Hub.
        file_name: Name of the file.
        hub: The `HUB_ARGUMENTS` of `from_pretrained`.

    Raises:
        OSError: If there is no such folder or repository.
    """
    hub = {**hub, "subfolder": hub.get("subfolder") or ""}
    return cached_file(os.fspath(name_or_path), file_name, _raise_exceptions_for_missing_entries=False, **hub)


def check_class_references(values: dict[str, Any]) -> None:
    """Raises `SettingError` if `auto_map` or `processor_class` are not names of classes."""
    auto_map = values.get("auto_map")
    if not isinstance(auto_map, dict | None):
        raise SettingError("auto_map", "an object from auto classes to class names", as_written(auto_map))
    for auto_class, reference in (auto_map or {}).items():
        # Tokenizers have a pair of classes, and one of them may be missing.
        is_pair = isinstance(reference, list) and len(reference) == 2 and auto_class == "AutoTokenizer"
        if not all(isinstance(name, str) for name in (filter(None, reference) if is_pair else [reference])):
            raise SettingError(f"auto_map.{auto_class}"[:100], "the name of a class", as_written(reference))
    if not isinstance(values.get("processor_class"), str | None):
        raise SettingError("processor_class", "the name of a class", as_written(values["processor_class"]))


def read_feature_extractor(
    name_or_path: str | os.PathLike, hub: dict[str, Any], classes: Sequence[type[RecordingFeatureExtractor]]
) -> tuple[dict[str, Any], RecordingFeatureExtractor]:
    """The saved settings of a feature extractor of a model folder, and the feature extractor.

    Args:
        name_or_path: Folder, or repository on the Hub; or one of the two files.
        hub: The `HUB_ARGUMENTS` of `from_pretrained`.
        classes: Classes that the feature extractor may have. If there is only one, the file need not name it.

    Raises:
        ModelFileError: If a file has no settings of one of these classes, or two files have different settings.
        OSError: If there are no such files.
    """
    sources = []
    if os.path.isfile(name_or_path):
        sources.append((os.fspath(name_or_path), None, read_json_object(name_or_path)))
    else:
        path = model_file(name_or_path, PROCESSOR_FILE, hub)
        content = {} if path is None else read_json_object(path)
        if EXTRACTOR_FIELD in content:  # transformers 4 saved it only in the other file
            sources.append((path, EXTRACTOR_FIELD, content[EXTRACTOR_FIELD]))
        path = model_file(name_or_path, EXTRACTOR_FILE, hub)
        if path is not None:
            sources.append((path, None, read_json_object(path)))
    if not sources:
        raise OSError(
            f"{name_or_path} has no feature extractor: expected its settings in {PROCESSOR_FILE} or {EXTRACTOR_FILE}."
        )
    extractors = [_extractor(path, field, values, classes) for path, field, values in sources]
    if len(extractors) == 2:
        _check_equal(*extractors, sources[1][0], sources[0][0])
    return sources[0][2], extractors[0]


def _extractor(path: str, field: str | None, values: Any, classes: Sequence[type]) -> RecordingFeatureExtractor:
    def within(setting: str) -> str:
        return setting if field is None else f"{field}.{setting}"

    if not isinstance(values, dict):
        raise ModelFileError(path, field, as_written(values), "an object with the settings of a feature extractor")
    names = [extractor_class.__name__ for extractor_class in classes]
    class_name = values.get("feature_extractor_type", names[0] if len(names) == 1 else None)
    if class_name not in names:
        raise ModelFileError(path, within("feature_extractor_type"), as_written(class_name), " or ".join(names))
    try:
        return classes[names.index(class_name)](**values)
    except SettingError as error:
        raise ModelFileError(path, within(error.setting), error.actual, error.expected) from error
    except (ValueError, TypeError) as error:  # contradictory settings, or a setting called "self"
        raise ModelFileError(path, field, str(error), f"settings of a {class_name}") from error


def _check_equal(used: RecordingFeatureExtractor, other: RecordingFeatureExtractor, path: str, used_path: str) -> None:
    """Raises `ModelFileError` if a setting of the file `path` differs from that of `used_path`."""
    if type(used) is not type(other):
        expected = f"{type(used).__name__}, as in {used_path}"
        raise ModelFileError(path, "feature_extractor_type", type(other).__name__, expected)
    settings, others = used.to_dict(), other.to_dict()
    for name in settings:
        if name not in _NOT_SETTINGS and settings[name] != others[name]:
            expected = f"{as_written(settings[name])}, as in {used_path} (make both equal, or remove {EXTRACTOR_FILE})"
            raise ModelFileError(path, name, as_written(others[name]), expected)


__all__ = ["RecordingFeatureExtractor", "read_feature_extractor"]
