"""Readers of people's own recordings: joints as arrays (`.npy`, `.npz`) or as rows of numbers (`.txt`)."""

import io
import math
import os
import re
import zipfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .model_files import shortened
from .size_limits import (
    MAX_LINE_BYTES,
    MAX_TEXT_BYTES,
    bytes_fault,
    comparisons_fault,
    read_bounded,
)  # fmt: skip
from .skeleton_bodies import LONGEST_STEP, follow_people, valid_joints
from .skeleton_files import SkeletonFileError, SkeletonRecording, check_size, checked_rate, read_content
from .skeleton_layouts import LAYOUTS, SkeletonLayout, get_layout

ARRAY_SUFFIXES = (".npy", ".npz", ".txt")
# Detectors give joints that they did not find a score near 0; OpenPose does not draw those below this.
MIN_SCORE = 0.05
# Whole numbers that a column holds, at most, which says in which state a joint is and not where.
MAX_STATES = 3
# Visibility flags are 0, 1 or 2 in COCO; detectors give joints that they did not find a score of 0, or of -1.
MAX_SCORE, NOT_FOUND = 2.0, -1.0
# A number as it is written where the comma is the decimal sign; alone in its row it could be two.
_DECIMAL_COMMA = re.compile(rb"[-+]?\d+,\d+(?:[eE][-+]?\d+)?;?")
# Numbers of a file of rows, at 8 bytes each.
_MAX_NUMBERS = MAX_TEXT_BYTES // 8
# Arrays in an `.npz`, of which one is read.
MAX_ARRAYS = 1000
# Numbers of a row that holds one joint, at most: as many as a line of `.skeleton` files.
JOINT_NUMBERS = 12
# Numbers of an array that are compared at a time.
_BLOCK = 1 << 20
_ZIP = (b"PK\3\4", b"PK\5\6")
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


_PICKLED = (
    "a pickled object, which is not read because unpickling can run code: where you trust it, load it with "
    "numpy.load(…, allow_pickle=True) and save its joints as an array (frames, people, joints, coordinates)"
)


def read_joint_array(
    file: str | os.PathLike | BinaryIO, *, layout: str | Mapping[str, Any] | SkeletonLayout, fps: float | None = None
) -> SkeletonRecording:
    """Reads a recording of T frames, P people and J joints from a file of numbers.

    `.npy`: one array (T, J, C) or (T, P, J, C), see `recording_from_array`. `.npz`: such an array under the name
    `keypoints`, or as the only one; a number `fps` beside it is taken. `.txt`: rows of numbers between spaces or commas,
    each either a frame (all joints of one person, or of several people after each other; a frame number may stand before
    them) or a joint ("x y z" or "x y", the J joints of a frame after each other, one person; the numbers of the frame and
    of the joint may stand before them, and whatever follows on the row is left out).

    Args:
        file: Its path, or the open file.
        layout: The joint layout, by its name or its description.
        fps: Frames per second, where the file does not say it. None is 30, and `fps_is_assumed`.

    Returns:
        The recording; bodies have the ids 0, 1, … in the order of the array.

    Raises:
        SkeletonFileError: No array, several of them, a wrong shape, no numbers, rows that are neither frames nor joints, or
            pickled objects, which are not read.
        OSError: The file cannot be read.
    """
    skeleton = get_layout(layout)
    path, data = read_content(file)
    if path.suffix.lower() == ".txt":
        if len(data) > MAX_TEXT_BYTES:
            raise SkeletonFileError(path, None, *bytes_fault(MAX_TEXT_BYTES))
        keypoints = _read_rows(path, data, skeleton)
    else:
        keypoints, fps = _read_numpy(path, data, fps)
    recording = recording_from_array(keypoints, layout=skeleton, fps=fps, source=str(path))
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        recording.keypoints = recording.keypoints.astype(np.float32)
    return recording


def recording_from_array(
    keypoints: np.ndarray,
    *,
    layout: str | Mapping[str, Any] | SkeletonLayout,
    fps: float | None = None,
    source: str = "array",
) -> SkeletonRecording:
    """A recording of joints in an array.

    NaN is kept: a joint that was not seen. A person all of whose joints are 0, -1 or NaN is absent from that frame. Of a
    2-D layout, a third number from 0 to 2 is a score, and joints whose score is below 0.05 were not seen; where it is 0
    everywhere, it is no score. People are followed by distance where they change their place in the array, and copies of a
    person are left out (`skeleton_bodies.follow_people`).

    Args:
        keypoints: (T, J, C) or (T, P, J, C) of C = 2 (2-D layouts) or 3 numbers; floating point keeps its precision.
        layout: The joint layout, by its name or its description.
        fps: Frames per second. None is 30, and `fps_is_assumed`.
        source: What errors call it.

    Raises:
        SkeletonFileError: Another shape, no numbers, more people than frames, a recording that is too large (`size_limits`), or
            a rate that no camera has.
    """
    skeleton = get_layout(layout)
    shape, name = keypoints.shape, Path(source).name
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
        found = f"{keypoints.dtype} {shape}{_guess_axes(shape, skeleton)}"
        raise SkeletonFileError(source, None, found, f"{expected}, layout {skeleton.name}")
    rate = 30.0 if fps is None else checked_rate(source, fps)
    if keypoints.shape[1] > len(keypoints):  # people first, as PYSKL and MMAction2 have them
        frames = f"{len(keypoints)} frame" + "s" * (len(keypoints) > 1)
        found = f"{keypoints.shape[1]} people in {frames}; if people come first, transpose the first two axes"
        raise SkeletonFileError(source, None, found, "(frames, people, joints, coordinates)")
    check_size(source, *keypoints.shape[:3])
    fault = comparisons_fault(*keypoints.shape[:2])
    if fault is not None:
        raise SkeletonFileError(source, None, *fault)
    if _has_people_first(keypoints[..., : skeleton.dimensions]):
        found = (
            f"{shape[0]} frames of {shape[1]} people who jump from frame to frame, but hardly differ from each other"
        )
        raise SkeletonFileError(
            source,
            None,
            f"{found}; if people come first, transpose the first two axes",
            "(frames, people, joints, coordinates)",
        )
    dtype = keypoints.dtype if keypoints.dtype.kind == "f" else np.float32
    recorded = np.zeros((*keypoints.shape[:3], 3), dtype)
    recorded[..., : skeleton.dimensions] = keypoints[..., : skeleton.dimensions]
    third = keypoints[..., skeleton.dimensions :]
    if _are_scores(third):
        recorded[..., :2][~(third[..., 0] >= MIN_SCORE)] = np.nan
    valid = valid_joints(recorded, np.ones(recorded.shape[:2], bool))
    people, changes, copies = follow_people(recorded, valid)
    symptoms = {kind: count for kind, count in (("changed places", changes), ("same person twice", copies)) if count}
    if fps is None:
        symptoms["frame rate"] = rate
    if third[np.isfinite(third)].any() and not _are_scores(third):
        symptoms["third number"] = [float(f"{value:.3g}") for value in (np.nanmin(third), np.nanmax(third))]
    if changes or copies:
        recorded = recorded[np.arange(len(people))[:, None], people]
        valid = valid[np.arange(len(people))[:, None], people]
    present = valid.any(-1) & (people >= 0)
    recorded[~present] = 0
    ids = np.arange(recorded.shape[1], dtype=np.int64)
    return SkeletonRecording(
        recorded, present, ids, skeleton.name, rate, name, fps_is_assumed=fps is None, symptoms=symptoms
    )


def _guess_axes(shape: tuple[int, ...], skeleton: SkeletonLayout) -> str:
    """What an array of another shape probably is, for an error."""
    joints = skeleton.num_joints
    if len(shape) == 4 and shape[0] in (2, 3) and shape[2] == joints:
        return " (coordinates first, as ST-GCN has them: transpose to (frames, people, joints, coordinates))"
    if len(shape) == 2 and shape[1] in (2 * joints, 3 * joints):
        return f" (a frame a row: reshape to ({shape[0]}, {joints}, {shape[1] // joints}))"
    fitting = [layout.name for layout in LAYOUTS.values() if layout.num_joints in shape[1:] and layout.source is None]
    return f" (that many joints have {', '.join(fitting)})" if fitting and joints not in shape else ""


def _has_people_first(keypoints: np.ndarray) -> bool:
    """Whether neighbours on the axis of people are as near as frames are, and those on the axis of frames as far as people.

    Args:
        keypoints: (T, P, J, C) as they were given.
    """
    if min(keypoints.shape[:2]) < 2:
        return False
    seen = np.isfinite(keypoints).all((2, 3)) & (keypoints != 0).any((2, 3)) & (keypoints != -1).any((2, 3))
    if not seen.all():
        return False
    size = float(np.median((keypoints.max(2).astype(np.float64) - keypoints.min(2)).max(-1)))
    nearest, farthest = np.inf, 0.0
    frames = max(1, _BLOCK // keypoints[0].size)
    for start in range(0, len(keypoints), frames):  # of an hour, not all at once
        bodies = keypoints[start : start + frames + 1].astype(np.float64)
        down, across = (np.linalg.norm(np.diff(bodies, axis=axis), axis=-1).mean(-1) for axis in (0, 1))
        nearest, farthest = min(nearest, down.min(initial=np.inf)), max(farthest, across.max())
        if farthest >= LONGEST_STEP * size:
            return False
    return bool(nearest > LONGEST_STEP * size)


def _are_scores(numbers: np.ndarray) -> bool:
    """Whether the third numbers of joints are scores, and not 0 everywhere."""
    finite = numbers[np.isfinite(numbers) & (numbers != NOT_FOUND)]
    return bool(finite.any() and finite.min() >= 0 and finite.max() <= MAX_SCORE)


def _read_numpy(path: Path, data: bytes, fps: float | None) -> tuple[np.ndarray, Any]:
    """The array of a `.npy` or `.npz` file, and the frames per second."""
    try:
        if not data.startswith(_ZIP):
            return _parse_npy(data), fps
        if data.count(b"PK\1\2") > MAX_ARRAYS:  # all of them would be listed before the first is read
            raise SkeletonFileError(
                path, None, f"more than {MAX_ARRAYS:,} arrays", "an array `keypoints`, or one array alone"
            )
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            rate = members.pop("fps", None)
            if rate is not None:
                fps = _parse_npy(_read_member(path, archive, rate))
                checked_rate(path, fps)  # a huge array is refused before it is printed or converted
            if "keypoints" not in members and len(members) != 1:
                found = f"the arrays {shortened(str(sorted(members)))}"
                raise SkeletonFileError(path, None, found, "an array `keypoints`, or one array alone")
            return _parse_npy(_read_member(path, archive, members.get("keypoints", next(iter(members.values()))))), fps
    except SkeletonFileError:
        raise
    except Exception as error:  # damaged files make NumPy and zipfile raise nearly anything
        found = shortened(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        raise SkeletonFileError(path, None, found, "a NumPy file of numbers") from error


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member of an `.npz`, unpacked as far as the limit."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        raise ValueError(f"{member.filename} is compressed in a way that NumPy does not write")
    with archive.open(member) as file:
        data = read_bounded(file)
    if data is None:
        found, expected = bytes_fault()
        raise SkeletonFileError(path, None, f"{member.filename} of {found}", expected)
    return data


def _parse_npy(data: bytes) -> np.ndarray:
    """The array of a `.npy` file, read-only; its shape is compared with the bytes that are there before anything else.

    Raises:
        ValueError: No such array, or one of objects.
    """
    if data.startswith(b"\x80"):
        raise ValueError(_PICKLED)
    content = io.BytesIO(data)
    version = np.lib.format.read_magic(content)
    if version not in _READ_HEADER:
        raise ValueError(f"format version {version} of NumPy, which no array of numbers needs")
    shape, by_column, dtype = _READ_HEADER[version](content)
    if dtype.hasobject:
        raise ValueError(_PICKLED)
    count, size = math.prod(shape), len(data) - content.tell()
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or count * dtype.itemsize > size:
        needed = f"the shape {shape} of {dtype} needs {count * dtype.itemsize:,}"
        raise ValueError(f"{size:,} bytes of numbers, where {needed}")
    return np.frombuffer(data, dtype, count, content.tell()).reshape(shape, order="F" if by_column else "C")


def _read_rows(path: Path, data: bytes, skeleton: SkeletonLayout) -> np.ndarray:
    """(T, P, J, C) of rows that are frames, or (T, J, C) of rows that are joints."""
    # Of numbers, not of lists, which take several times the memory of the file.
    values, widths, lines = array("d"), array("q"), array("q")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SkeletonFileError(path, None, "text in UTF-16", "numbers in plain text (UTF-8)")
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(io.BytesIO(text), start=1):
        if len(line) > MAX_LINE_BYTES:
            found, expected = (
                f"a line of {len(line):,} bytes",
                f"at most {MAX_LINE_BYTES:,}: a line for each frame or joint",
            )
            raise SkeletonFileError(path, number, found, expected)
        if b"," in line and all(map(_DECIMAL_COMMA.fullmatch, line.split())):
            shown = repr(line.strip()[:40].decode("ascii", "backslashreplace"))
            raise SkeletonFileError(path, number, f"decimal commas ({shown})", "decimal points")
        tokens = line.replace(b",", b" ").replace(b";", b" ").split()
        if not tokens:
            continue
        numbers = _leading_numbers(tokens)
        # What stands behind the coordinates of a joint may be anything.
        if len(numbers) == len(tokens) or (len(tokens) <= JOINT_NUMBERS and len(numbers) >= 2):
            values.extend(numbers)
            widths.append(len(numbers))
            lines.append(number)
            if len(values) > _MAX_NUMBERS:
                expected = f"at most {_MAX_NUMBERS:,} numbers: cut the recording into shorter ones"
                raise SkeletonFileError(path, number, f"{len(values):,} numbers so far", expected)
        elif widths or numbers:  # names of columns may stand before the first row
            shown = repr(line.strip()[:40].decode("ascii", "backslashreplace"))
            raise SkeletonFileError(path, number, shown, "the coordinates of a joint")
    joints = skeleton.num_joints
    if not widths:
        raise SkeletonFileError(path, None, "0 rows", f"{joints} rows a frame")
    if len(widths) > 1 and widths[0] == 2 < widths[1] and list(values[:2]) == [(len(widths) - 1) / joints, joints]:
        del values[:2], widths[0], lines[0]  # the numbers of frames and of joints
    first, widths = widths[0], np.frombuffer(widths, np.int64)
    is_frame = first > JOINT_NUMBERS
    fits = (widths == first if is_frame else np.minimum(widths, 3) == min(first, 3)) & (widths >= 2)
    if not fits.all():
        row = int(fits.argmin())
        expected = f"the {first} numbers of a frame" if is_frame else "the 2 or 3 coordinates of a joint"
        raise SkeletonFileError(path, lines[row], f"{widths[row]} numbers", f"{expected}, as in the first row")
    table, width = np.frombuffer(values), int(widths.min())
    if width == widths.max():
        table = table.reshape(-1, width)
    else:
        table = table[(np.cumsum(widths) - widths)[:, None] + np.arange(width)]
    if is_frame:
        return _frames_of_rows(path, table, skeleton)
    if len(table) % joints:
        raise SkeletonFileError(path, None, f"{len(table)} rows", f"{joints} rows a frame")
    table = _without_indices(table, joints)
    few = np.unique(table[:, 0])
    if (
        table.shape[1] > 3
        and len(few) <= MAX_STATES
        and (few == np.rint(few)).all()
        and len(np.unique(table[:, 1])) > MAX_STATES
    ):
        found = f"rows that begin with {', '.join(f'{value:g}' for value in few)}"
        raise SkeletonFileError(path, None, found, "rows that begin with a coordinate: take the first column out")
    return table[:, :3].reshape(-1, joints, min(table.shape[1], 3))


def _leading_numbers(tokens: list[bytes]) -> list[float]:
    """The numbers at the start of a row, as far as they are numbers."""
    numbers = []
    for token in tokens:
        try:
            if b"_" in token:  # Python's own spelling of digits, which nobody else writes
                break
            numbers.append(float(token))
        except ValueError:
            break
    return numbers


def _frames_of_rows(path: Path, table: np.ndarray, skeleton: SkeletonLayout) -> np.ndarray:
    """(T, P, J, C) of rows that hold a frame each, people after each other."""
    joints, width = skeleton.num_joints, table.shape[1]
    sizes = (3,) if skeleton.dimensions == 3 else (2, 3)
    for before in (0, 1):
        size = next((size for size in sizes if width > before and (width - before) % (joints * size) == 0), None)
        if size is not None and (not before or _counts(table[:, 0])):
            return table[:, before:].reshape(len(table), -1, joints, size)
    expected = f"{joints} joints of {sizes[-1]} numbers in a row, with or without a frame number before them"
    raise SkeletonFileError(path, None, f"rows of {width} numbers", f"{expected}, or a joint a row")


def _without_indices(table: np.ndarray, joints: int) -> np.ndarray:
    """Rows of joints without the numbers of the frame and of the joint that stand before the coordinates."""
    if table.shape[1] < 3:
        return table
    columns = table[:, :2].T.reshape(2, -1, joints)
    counts_joints = [
        bool((column - column[:, :1] == np.arange(joints)).all() and np.isin(column[:, 0], (0, 1)).all())
        for column in columns
    ]
    # All joints of a frame in one place is no x: it is the number of the frame, or its time.
    first = columns[0][:, 0]
    counts_frames = bool((columns[0] == columns[0][:, :1]).all() and (np.diff(first) > 0).all())
    if counts_joints[0]:
        return table[:, 1:]
    if counts_frames and counts_joints[1]:
        return table[:, 2:]
    return table[:, 1:] if counts_frames and len(first) > 1 else table


def _counts(numbers: np.ndarray) -> bool:
    """Whether numbers are whole and grow by 1."""
    return bool((numbers == np.rint(numbers)).all() and (np.diff(numbers) == 1).all())


__all__ = ["ARRAY_SUFFIXES", "read_joint_array", "recording_from_array"]
