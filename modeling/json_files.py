"""JSON text of recordings, with errors that name the file and the place of the fault."""

import json
from pathlib import Path
from typing import Any

from .size_limits import json_fault
from .skeleton_files import SkeletonFileError


def parse_json(path: Path, data: bytes) -> Any:
    """Parses the content of a file. All numbers become floats, NaN and Infinity included.

    Raises:
        SkeletonFileError: If the text is not JSON, or would take too much memory (`size_limits`).
    """
    fault = json_fault(data)
    if fault is not None:
        raise SkeletonFileError(path, None, *fault)
    try:
        return json.loads(data, parse_int=float)
    except json.JSONDecodeError as error:
        actual = f"{error.msg} at character {error.colno}"
        raise SkeletonFileError(path, error.lineno, actual, "JSON") from error
    except (ValueError, RecursionError) as error:
        raise SkeletonFileError(path, None, f"{type(error).__name__}: {error}", "JSON") from error


def describe_json(value: Any, length: int = 40) -> str:
    """A parsed value in a few words, for an error."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= length else text[:length] + "…"


__all__ = ["describe_json", "parse_json"]
