"""Readers of people's own recordings: joints as arrays (`.npy`, `.npz`) or as rows of numbers (`.txt`)."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .skeleton_files import MAX_BODIES, SkeletonFileError, SkeletonRecording, read_content
from .skeleton_layouts import SkeletonLayout, get_layout

ARRAY_SUFFIXES = (".npy", ".npz", ".txt")


def read_joint_array(
    file: str | os.PathLike | BinaryIO, *, layout: str | Mapping[str, Any] | SkeletonLayout, fps: float = 30.0
) -> SkeletonRecording:
    """Reads a recording of T frames, P people and J joints from a file of numbers.

    `.npy`: one array (T, J, C) or (T, P, J, C) of C = 2 or 3 coordinates. `.npz`: such an array under the name
    `keypoints`, or as the only one; a number `fps` beside it is taken. `.txt`: a joint a row, "x y z" or "x y", whatever
    follows on the row is left out, the J joints of a frame after each other, one person.

    NaN is kept: a joint that was not seen. A person all of whose joints are 0 or NaN is absent from that frame.

    Args:
        file: Its path, or the open file.
        layout: The joint layout, by its name or its description.
        fps: Frames per second, where the file does not say it.

    Returns:
        The recording; bodies have the ids 0, 1, … in the order of the array.

    Raises:
        SkeletonFileError: No array, several of them, a wrong shape, no numbers, or pickled objects, which are not read.
        OSError: The file cannot be read.
    """
    skeleton = get_layout(layout)
    path, data = read_content(file)
    if path.suffix.lower() == ".txt":
        keypoints = _read_rows(path, data, skeleton.num_joints)
    else:
        keypoints, fps = _read_numpy(path, data, fps)
    shape = keypoints.shape
    if keypoints.ndim == 3:
        keypoints = keypoints[:, None]
    if (
        keypoints.ndim != 4
        or keypoints.shape[2] != skeleton.num_joints
        or not skeleton.dimensions <= keypoints.shape[3] <= 3
        or keypoints.dtype.kind not in "fiu"
        or not len(keypoints)
    ):
        expected = f"numbers (frames, {skeleton.num_joints}, {skeleton.dimensions}) or (frames, people, …)"
        raise SkeletonFileError(path, None, f"{keypoints.dtype} {shape}", f"{expected}, layout {skeleton.name}")
    rate = np.asarray(fps)
    if rate.shape or rate.dtype.kind not in "fiu" or not (np.isfinite(rate) and rate > 0):
        raise SkeletonFileError(path, None, f"fps {fps!r}", "a positive number of frames per second")
    if keypoints.shape[1] > max(8, min(len(keypoints), MAX_BODIES)):  # people first, as MMAction has them
        expected = "(frames, people, joints, coordinates)"
        raise SkeletonFileError(path, None, f"{keypoints.shape[1]} people in {len(keypoints)} frames", expected)
    recorded = np.zeros((*keypoints.shape[:3], 3), np.float32)
    with np.errstate(over="ignore"):
        recorded[..., : keypoints.shape[3]] = keypoints
    present = (np.nan_to_num(recorded) != 0).any((2, 3))
    recorded[~present] = 0
    ids = np.arange(recorded.shape[1], dtype=np.int64)
    return SkeletonRecording(recorded, present, ids, skeleton.name, float(fps), path.name)


def _read_numpy(path: Path, data: bytes, fps: float) -> tuple[np.ndarray, Any]:
    """The array of a `.npy` or `.npz` file, and the frames per second."""
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, fps
        arrays = {name: np.asarray(loaded[name]) for name in loaded.files}
        if any(array.dtype.kind in "OSV" for array in arrays.values()):
            raise ValueError("a member that is no array")
    except Exception as error:  # damaged files make NumPy raise nearly anything
        found = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise SkeletonFileError(path, None, found, "a NumPy file of numbers") from error
    fps = arrays.pop("fps", fps)
    if "keypoints" not in arrays and len(arrays) != 1:
        raise SkeletonFileError(path, None, f"the arrays {sorted(arrays)}", "an array `keypoints`, or one array alone")
    return arrays.get("keypoints", next(iter(arrays.values()))), fps


def _read_rows(path: Path, data: bytes, num_joints: int) -> np.ndarray:
    """(T, J, 3) of the first three numbers of each row, or (T, J, 2) where rows have two."""
    rows = []
    for number, line in enumerate(data.splitlines(), start=1):
        tokens = line.replace(b",", b" ").split()
        if not tokens:
            continue
        try:
            if b"_" in b"".join(tokens[:3]):  # Python's own spelling of digits, which nobody else writes
                raise ValueError
            rows.append([float(token) for token in tokens[:3]])
        except ValueError:
            found = repr(line.strip()[:40].decode("ascii", "backslashreplace"))
            raise SkeletonFileError(path, number, found, "the coordinates of a joint") from None
        if len(rows[-1]) != len(rows[0]) or len(rows[-1]) < 2:
            found = f"{len(tokens)} numbers"
            raise SkeletonFileError(path, number, found, "the 2 or 3 coordinates of a joint, as in the first row")
    if not rows or len(rows) % num_joints:
        raise SkeletonFileError(path, None, f"{len(rows)} rows", f"{num_joints} rows a frame")
    return np.array(rows).reshape(-1, num_joints, len(rows[0]))


__all__ = ["ARRAY_SUFFIXES", "read_joint_array"]
