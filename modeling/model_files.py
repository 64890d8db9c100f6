"""JSON files of a model folder: an object, or an error that names the file and the field."""

import json
import os
from pathlib import Path
from typing import Any


class ModelFileError(ValueError):
    """A file of a model folder does not hold what the model needs.

    Attributes:
        path (str): The file.
        field (str | None): The field, with dots between its parts (`action_config.num_frames`); None where it is the whole file.
        found, expected (str): What stands there, and what should.
    """

    def __init__(self, path: str | os.PathLike, field: str | None, found: str, expected: str):
        self.path, self.field, self.found, self.expected = os.fspath(path), field, found, expected
        place = self.path if field is None else f"{self.path}, field {field}"
        super().__init__(f"{place}: expected {expected}, found {found}")

    def __reduce__(self):  # errors travel between processes
        return type(self), (self.path, self.field, self.found, self.expected)


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelFileError: Not UTF-8, not JSON, nested too deep, or not an object.
        OSError: The file cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelFileError(path, None, f"{error.msg} at line {error.lineno}, column {error.colno}", "JSON") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(path, None, f"{type(error).__name__}: {error}", "JSON in UTF-8") from error
    if not isinstance(content, dict):
        raise ModelFileError(path, None, f"a JSON {type(content).__name__}", "a JSON object")
    return content


__all__ = ["ModelFileError", "read_json_object"]
