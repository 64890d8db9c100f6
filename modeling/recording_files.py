"""One way to read any recording of skeletons: the kind of file says which reader."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .array_files import ARRAY_SUFFIXES, read_joint_array
from .skeleton_files import SkeletonFileError, SkeletonRecording, read_skeleton, read_utd_mhad
from .skeleton_layouts import SkeletonLayout, get_layout

RECORDING_SUFFIXES = (".skeleton", ".mat", *ARRAY_SUFFIXES)


def read_recording(
    path: str | os.PathLike, *, layout: str | Mapping[str, Any] | SkeletonLayout = "kinect25", fps: float = 30.0
) -> SkeletonRecording:
    """Reads a recording by the end of its name: `.skeleton` (also as `.txt`, as UAV-Human has it), UTD-MHAD's `.mat`, `.npy`,
    `.npz`, or `.txt` with a joint a row.

    Args:
        path: The file.
        layout: The joint layout, by its name or its description. Of a derived layout, recordings of its source are read.
        fps: Frames per second, where the file does not say it.

    Raises:
        SkeletonFileError: The file is not what its format says, or has a name that says nothing of its kind.
        OSError: The file cannot be read.
    """
    path, skeleton = Path(path), get_layout(layout)
    suffix = path.suffix.lower()
    if suffix == ".mat":
        return read_utd_mhad(path)
    if suffix == ".skeleton" or (suffix == ".txt" and _starts_with_a_count(path)):
        return read_skeleton(path, layout=skeleton.source or skeleton.name, fps=fps)
    if suffix in ARRAY_SUFFIXES:
        return read_joint_array(path, layout=skeleton, fps=fps)
    raise SkeletonFileError(path, None, f"a name that ends in {suffix!r}", f"one of {', '.join(RECORDING_SUFFIXES)}")


def _starts_with_a_count(path: Path) -> bool:
    """Whether the first line is a number alone, as in `.skeleton` files: rows of joints have at least two."""
    with path.open("rb") as file:
        return len(file.readline(4096).replace(b",", b" ").split()) == 1


__all__ = ["RECORDING_SUFFIXES", "read_recording"]
