"""Reads JSON files of a model folder; errors name the file and the field."""

import json
import os
from pathlib import Path
from typing import Any

# Arguments of `from_pretrained` that concern the download.
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


class ModelFileError(ValueError):
    """A file of a model folder lacks something that the model needs.

    Attributes:
        path (str): The file.
        field (str | None): Path of the field (`action_config.num_frames`); None for the whole file.
        actual, expected (str): The actual content, and what was expected.
    """

    def __init__(self, path: str | os.PathLike, field: str | None, actual: str, expected: str):
        self.path, self.field = os.fspath(path), None if field is None else shortened(field)
        self.actual, self.expected = shortened(actual, 300), expected
        place = self.path if field is None else f"{self.path}, field {self.field}"
        super().__init__(f"{place}: expected {expected}, found {self.actual}")

    def __reduce__(self):  # errors are sent between processes
        return type(self), (self.path, self.field, self.actual, self.expected)


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
        ModelFileError: If the file is not UTF-8, not JSON, nested too deeply, or not an object.
        OSError: If the file cannot be read.
    """
    return read_json(path, dict)


def read_json(path: str | os.PathLike, json_type: type) -> Any:
    """Reads the object (`dict`) or list (`list`) in a JSON file; raises the errors of `read_json_object`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelFileError(
            path, None, f"{error.msg} at line {error.lineno}, column {error.colno}", "JSON"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(path, None, f"{type(error).__name__}: {error}", "JSON in UTF-8") from error
    if not isinstance(content, json_type):
        raise ModelFileError(
            path, None, f"a JSON {type(content).__name__}", f"a JSON {'object' if json_type is dict else 'list'}"
        )
    return content


def read_field(path: str | os.PathLike, content: dict[str, Any], field: str, *types: type) -> Any:
    """The value of a field of an object from `read_json_object`; None if it is missing.

    Args:
        path: The file, for errors.
        content: The object.
        field: Path of the field, with dots (`action_config.num_frames`).
        *types: Types that the value may have.

    Raises:
        ModelFileError: If the value has another type, or a part of the path is not an object.
    """
    value, place = content, ""
    for name in field.split("."):
        if not isinstance(value, dict):
            raise ModelFileError(path, place, as_written(value), "an object")
        value, place = value.get(name), f"{place}.{name}".lstrip(".")
        if value is None:
            return None
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join(JSON_TYPES[json_type] for json_type in types)
        raise ModelFileError(path, field, as_written(value), expected)
    return value


JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
}


def shortened(text: str, length: int = 120) -> str:
    """A text cut to `length` characters, for a message."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def as_written(value: Any) -> str:
    """The shortened `repr` of a value, for a message."""
    try:
        return shortened(repr(value))
    except ValueError:  # an int of more than 4300 digits
        return f"a number of {value.bit_length()} bits"


__all__ = [
    "HUB_ARGUMENTS",
    "JSON_TYPES",
    "ModelFileError",
    "as_written",
    "read_field",
    "read_json",
    "read_json_object",
    "shortened",
]
