"""Readers of users' own recordings: joints as arrays (`.npy`, `.npz`) or as rows of numbers (`.txt`)."""

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
# Detectors give undetected joints a score near 0; OpenPose does not draw joints below this score.
MIN_SCORE = 0.05
# A column with at most this many distinct integers holds the state of a joint, not a coordinate.
MAX_STATES = 3
# Visibility flags are 0, 1 or 2 in COCO; detectors give undetected joints a score of 0 or -1.
MAX_SCORE, NOT_FOUND = 2.0, -1.0
# A number with a decimal comma. Only a row of such numbers alone is certain; others could be pairs of integers.
_DECIMAL_COMMA = re.compile(rb"[-+]?\d+,\d+(?:[eE][-+]?\d+)?;?")
# Maximum number of values in a file of rows, at 8 bytes each.
_MAX_NUMBERS = MAX_TEXT_BYTES // 8
# Maximum number of arrays of an `.npz`, of which few are read.
MAX_ARRAYS = 1000
PYSKL_ARRAYS = ("keypoint", "keypoint_score")
# Maximum number of values in a row that holds a single joint: as many as in a line of `.skeleton` files.
JOINT_NUMBERS = 12
# Number of elements of an array that are compared at a time.
_BLOCK = 1 << 20
# Numbers of joints of SMPL-H, and of SMPL-X without and with points on its surface.
SMPL_JOINTS = (52, 55, 73, 127, 144)
_ZIP = (b"PK\3\4", b"PK\5\6")
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_PICKLED = (
    "a pickled object, which is not read because unpickling can run code: if you trust it, load it with "
    "numpy.load(…, allow_pickle=True) and save its joints as an array (frames, people, joints, coordinates)"
)


def read_joint_array(
    file: str | os.PathLike | BinaryIO, *, layout: str | Mapping[str, Any] | SkeletonLayout, fps: float | None = None
) -> SkeletonRecording:
    """Reads a recording of T frames, P people and J joints from a file of numbers.

    `.npy`: an array (T, J, C) or (T, P, J, C), see `recording_from_array`.

    `.npz`: such an array named `keypoints`, or the only array of the file. Beside it, a number `fps` and the integers
    `body_ids` (P,) of people who were tracked are read, too. `keypoint` (P, T, J, C) and `keypoint_score` (P, T, J), as in an
    annotation of PYSKL, are also read.

    `.txt`: rows of numbers, separated by spaces or commas. A row is a frame or a joint. A frame has all joints of a person, or
    of several people one after the other, optionally after a frame number. A joint is "x y z" or "x y", for a single person,
    with J rows per frame; the indices of frame and joint may come before it, and the rest of the row is ignored.

    Args:
        file: Path, or open file.
        layout: The joint layout, by name or description.
        fps: Frames per second, if the file does not define the rate. None assumes 30, and sets `fps_is_assumed`.

    Returns:
        The recording; bodies without ids have the ids 0, 1, … in the order of the array.

    Raises:
        SkeletonFileError: If there is no array or several arrays, the shape is wrong, values are not numbers, ids are not
            distinct integers, rows are neither frames nor joints, or the array is pickled.
        OSError: If the file cannot be read.
    """
    skeleton = get_layout(layout)
    path, data = read_content(file)
    body_ids = None
    if path.suffix.lower() == ".txt":
        if len(data) > MAX_TEXT_BYTES:
            raise SkeletonFileError(path, None, *bytes_fault(MAX_TEXT_BYTES))
        keypoints = _read_rows(path, data, skeleton)
    else:
        keypoints, fps, body_ids = _read_numpy(path, data, fps)
    recording = recording_from_array(keypoints, layout=skeleton, fps=fps, source=str(path), body_ids=body_ids)
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        recording.keypoints = recording.keypoints.astype(np.float32)
    return recording


def recording_from_array(
    keypoints: np.ndarray,
    *,
    layout: str | Mapping[str, Any] | SkeletonLayout,
    fps: float | None = None,
    source: str = "array",
    body_ids: np.ndarray | None = None,
) -> SkeletonRecording:
    """Makes a recording of an array of joints.

    NaN marks missing joints. A person whose joints are all 0, -1 or NaN is absent from the frame. A number from 0 to 2 behind
    the coordinates is a score, unless it is 0 everywhere; joints with a score below 0.05 are missing. Without `body_ids`,
    people who change their place in the array are tracked by distance, and copies of a person are dropped
    (`skeleton_bodies.follow_people`).

    Args:
        keypoints: Joints, (T, J, C) or (T, P, J, C) with C = 2 (2-D layouts) or 3 coordinates, and a score if there is one;
            floating point keeps its precision.
        layout: The joint layout, by name or description.
        fps: Frames per second. None assumes 30, and sets `fps_is_assumed`.
        source: Name of the recording in errors.
        body_ids: Distinct ids of people who were tracked, integers (P,).

    Raises:
        SkeletonFileError: If the shape is wrong, values are not numbers, ids are not distinct integers, there are more people
            than frames and no ids, the recording is too large (`size_limits`), or the frame rate is impossible.
    """
    skeleton = get_layout(layout)
    shape = keypoints.shape
    if keypoints.ndim == 3:
        keypoints = keypoints[:, None]
    if (
        keypoints.ndim != 4
        or keypoints.shape[2] != skeleton.num_joints
        or not skeleton.dimensions <= keypoints.shape[3] <= skeleton.dimensions + 1
        or keypoints.dtype.kind not in "fiu"
        or not len(keypoints)
    ):
        expected = f"numbers (frames, {skeleton.num_joints}, {skeleton.dimensions}) or (frames, people, …)"
        actual = f"{keypoints.dtype} {shape}{_guess_axes(shape, skeleton)}"
        raise SkeletonFileError(source, None, actual, f"{expected}, layout {skeleton.name}")
    # People first, as in PYSKL and MMAction2; ids tell which axis is that of people.
    if body_ids is None and keypoints.shape[1] > len(keypoints):
        frames = f"{len(keypoints)} frame" + "s" * (len(keypoints) > 1)
        actual = f"{keypoints.shape[1]} people in {frames}; if people come first, transpose the first two axes"
        raise SkeletonFileError(source, None, actual, "(frames, people, joints, coordinates)")
    check_size(source, *keypoints.shape[:3])
    if body_ids is not None:
        body_ids = _checked_ids(source, body_ids, keypoints.shape[1])
    if _has_people_first(keypoints[..., : skeleton.dimensions]):
        actual = (
            f"{shape[0]} frames of {shape[1]} people who jump from frame to frame, but hardly differ from each other; if "
            "people come first, transpose the first two axes"
        )
        raise SkeletonFileError(source, None, actual, "(frames, people, joints, coordinates)")
    coordinates, further = keypoints[..., : skeleton.dimensions], keypoints[..., skeleton.dimensions :]
    if _are_scores(further):
        scores = np.where(further[..., 0] == NOT_FOUND, 0, np.nan_to_num(further[..., 0]))
        return recording_of_people(coordinates, scores, layout=skeleton, fps=fps, source=source, body_ids=body_ids)
    recording = recording_of_people(coordinates, None, layout=skeleton, fps=fps, source=source, body_ids=body_ids)
    if further[np.isfinite(further)].any():
        if skeleton.dimensions == 3:
            actual = f"{keypoints.dtype} {shape} whose fourth numbers are no scores"
            raise SkeletonFileError(source, None, actual, "x, y, z, and a score from 0 to 1 if there is one")
        recording.symptoms["third number"] = [
            float(f"{value:.3g}") for value in (np.nanmin(further), np.nanmax(further))
        ]
    return recording


def recording_of_people(
    keypoints: np.ndarray,
    scores: np.ndarray | None,
    *,
    layout: SkeletonLayout,
    fps: float | None,
    source: str,
    body_ids: np.ndarray | None = None,
) -> SkeletonRecording:
    """Makes a recording of joints whose axes and layout are known.

    Args:
        keypoints: Joints, (T, P, J, C) with the C coordinates of the layout; they become float32 or, if they are, float64.
        scores: Score of each joint, (T, P, J), or None. Joints with a score below 0.05 are missing.
        layout: The joint layout.
        fps: Frames per second. None assumes 30, and sets `fps_is_assumed`.
        source: Name of the recording in errors.
        body_ids: Distinct ids of people who were tracked, int64 (P,). None tracks people by distance and numbers them.

    Raises:
        SkeletonFileError: If there are too many people in too many frames, or the frame rate is impossible.
    """
    rate = 30.0 if fps is None else checked_rate(source, fps)
    dtype = np.float64 if keypoints.dtype.kind == "f" and keypoints.dtype.itemsize > 4 else np.float32
    recorded = np.zeros((*keypoints.shape[:3], 3), dtype)
    recorded[..., : layout.dimensions] = keypoints
    if scores is not None:
        recorded[..., : layout.dimensions][~(scores >= MIN_SCORE)] = np.nan
    valid = valid_joints(recorded, np.ones(recorded.shape[:2], bool))
    present, symptoms = valid.any(-1), {}
    if body_ids is None:
        fault = comparisons_fault(*keypoints.shape[:2])
        if fault is not None:
            raise SkeletonFileError(source, None, *fault)
        people, changes, copies = follow_people(recorded, valid)
        symptoms = {
            kind: count for kind, count in (("changed places", changes), ("same person twice", copies)) if count
        }
        if symptoms:
            frame = np.arange(len(people))[:, None]
            recorded, valid = recorded[frame, people], valid[frame, people]
            scores = None if scores is None else scores[frame, people]
        present = valid.any(-1) & (people >= 0)
        body_ids = np.arange(recorded.shape[1], dtype=np.int64)
    if fps is None:
        symptoms["frame rate"] = rate
    recorded[~present] = 0
    if scores is not None:
        scores = np.where(present[..., None], scores, 0).astype(np.float32)
    return SkeletonRecording(
        recorded,
        present,
        body_ids,
        layout.name,
        rate,
        Path(source).name,
        scores=scores,
        fps_is_assumed=fps is None,
        symptoms=symptoms,
    )


def _checked_ids(source: str, body_ids: np.ndarray, people: int) -> np.ndarray:
    """The ids as int64 (P,). Raises `SkeletonFileError` if they are not distinct integers, one of each person."""
    body_ids = np.asarray(body_ids)
    fits = body_ids.shape == (people,) and body_ids.dtype.kind in "iu"
    if not fits or len(np.unique(body_ids)) < people:
        actual = f"body_ids {body_ids.dtype} {body_ids.shape}" + ", some of them equal" * fits
        raise SkeletonFileError(source, None, actual, f"{people} distinct integers, one of each person")
    return body_ids.astype(np.int64)


def _guess_axes(shape: tuple[int, ...], skeleton: SkeletonLayout) -> str:
    """A guess of what an array of another shape is, for an error."""
    joints = skeleton.num_joints
    if len(shape) == 4 and shape[0] in (2, 3) and shape[2] == joints:
        return " (coordinates first, as in ST-GCN: transpose to (frames, people, joints, coordinates))"
    if len(shape) == 2 and shape[1] in (2 * joints, 3 * joints):
        return f" (a frame per row: reshape to ({shape[0]}, {joints}, {shape[1] // joints}))"
    if len(shape) == 3 and shape[1] in SMPL_JOINTS and skeleton.name in ("smpl22", "smpl24"):
        return " (joints of SMPL-H or SMPL-X, which begin with those of smpl22: keep the first 22)"
    if len(shape) == 2 and shape[1] in (263, 251):
        return " (the features of HumanML3D or KIT-ML: use the joints in the folder new_joints)"
    fitting = [layout.name for layout in LAYOUTS.values() if layout.num_joints in shape[1:] and layout.source is None]
    return f" (the layouts with that many joints are {', '.join(fitting)})" if fitting and joints not in shape else ""


def _has_people_first(keypoints: np.ndarray) -> bool:
    """Whether the first axis is probably that of people: neighbours on the second axis are as close as consecutive frames, and
    neighbours on the first axis as far apart as people.

    Args:
        keypoints: The joints as passed by the caller, (T, P, J, C).
    """
    if min(keypoints.shape[:2]) < 2:
        return False
    is_seen = np.isfinite(keypoints).all((2, 3)) & (keypoints != 0).any((2, 3)) & (keypoints != -1).any((2, 3))
    if not is_seen.all():
        return False
    size = float(np.median((keypoints.max(2).astype(np.float64) - keypoints.min(2)).max(-1)))
    nearest, farthest = np.inf, 0.0
    frames = max(1, _BLOCK // keypoints[0].size)
    for start in range(0, len(keypoints), frames):  # in blocks, to save memory
        bodies = keypoints[start : start + frames + 1].astype(np.float64)
        down, across = (np.linalg.norm(np.diff(bodies, axis=axis), axis=-1).mean(-1) for axis in (0, 1))
        nearest, farthest = min(nearest, down.min(initial=np.inf)), max(farthest, across.max())
        if farthest >= LONGEST_STEP * size:
            return False
    return bool(nearest > LONGEST_STEP * size)


def _are_scores(numbers: np.ndarray) -> bool:
    """Whether the numbers behind the coordinates of joints are scores that are not 0 everywhere."""
    finite = numbers[np.isfinite(numbers) & (numbers != NOT_FOUND)]
    return bool(finite.any() and finite.min() >= 0 and finite.max() <= MAX_SCORE)


def _read_numpy(path: Path, data: bytes, fps: float | None) -> tuple[np.ndarray, Any, np.ndarray | None]:
    """The array of a `.npy` or `.npz` file, the frames per second, and the ids of the people if there are any."""
    expected = "an array `keypoints`, or a single array"
    try:
        if not data.startswith(_ZIP):
            return _parse_npy(data), fps, None
        if data.count(b"PK\1\2") > MAX_ARRAYS:  # zipfile lists all of them before it reads the first
            raise SkeletonFileError(path, None, f"more than {MAX_ARRAYS:,} arrays", expected)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            rate, ids = members.pop("fps", None), members.pop("body_ids", None)
            if rate is not None:
                fps = _read_array(path, archive, rate)
                checked_rate(path, fps)  # refuses a huge array before it is printed or converted
            body_ids = _read_array(path, archive, ids)
            if "keypoint" in members:
                arrays = (_read_array(path, archive, members.get(name)) for name in PYSKL_ARRAYS)
                return _of_pyskl(path, *arrays), fps, body_ids
            if "keypoints" not in members and len(members) != 1:
                actual = f"the arrays {shortened(', '.join(sorted(members)))}{_guess_content(set(members))}"
                raise SkeletonFileError(path, None, actual, expected)
            keypoints = _read_array(path, archive, members.get("keypoints", next(iter(members.values()))))
            return keypoints, fps, body_ids
    except SkeletonFileError:
        raise
    except Exception as error:  # damaged files make NumPy and zipfile raise nearly anything
        actual = shortened(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        raise SkeletonFileError(path, None, actual, "a NumPy file of numbers") from error


def _of_pyskl(path: Path, keypoints: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
    """Joints (T, P, J, C), with a score if there are any, of the arrays of PYSKL, whose first axis is that of people."""
    if keypoints.ndim != 4 or (scores is not None and scores.shape != keypoints.shape[:3]):
        actual = f"keypoint {keypoints.shape}" + ("" if scores is None else f", keypoint_score {scores.shape}")
        raise SkeletonFileError(
            path, None, actual, "(people, frames, joints, coordinates), and the same without coordinates"
        )
    if scores is not None:
        keypoints = np.concatenate([keypoints, scores[..., None]], axis=-1)
    return keypoints.transpose(1, 0, 2, 3)


def _guess_content(names: set[str]) -> str:
    """A guess of what the arrays of an `.npz` are, for an error."""
    if {"x_train", "y_train"} <= names:
        return " (a data set of CTR-GCN: python -m action_llm_datasets.unpack writes a file for each recording)"
    if {"poses", "betas"} <= names:
        return " (parameters of a body model, as in AMASS: compute its joints with that model, and save them)"
    return ""


def _read_array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo | None) -> np.ndarray | None:
    """The array of a member of an `.npz`, up to the size limit; None for no member."""
    if member is None:
        return None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked without a limit
        raise ValueError(f"{member.filename} is compressed in a way that NumPy does not write")
    with archive.open(member) as file:
        data = read_bounded(file)
    if data is None:
        actual, expected = bytes_fault()
        raise SkeletonFileError(path, None, f"{member.filename} of {actual}", expected)
    return _parse_npy(data)


def read_npy_header(content: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Reads the header of a `.npy` file: its shape, whether columns come first, and the type of its numbers.

    Raises:
        ValueError: If there is no such header, or the array is not one of numbers.
    """
    version = np.lib.format.read_magic(content)
    if version not in _READ_HEADER:
        raise ValueError(f"format version {version} of NumPy, which is not for arrays of numbers")
    shape, by_column, dtype = _READ_HEADER[version](content)
    if dtype.hasobject:
        raise ValueError(_PICKLED)
    return shape, by_column, dtype


def _parse_npy(data: bytes) -> np.ndarray:
    """The array of a `.npy` file, read-only. Its shape is compared with the number of bytes first.

    Raises:
        ValueError: If the data is not an array of numbers.
    """
    if data.startswith(b"\x80"):
        raise ValueError(_PICKLED)
    content = io.BytesIO(data)
    shape, by_column, dtype = read_npy_header(content)
    count, size = math.prod(shape), len(data) - content.tell()
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or count * dtype.itemsize > size:
        needed = f"the shape {shape} of {dtype} needs {count * dtype.itemsize:,}"
        raise ValueError(f"{size:,} bytes of numbers, where {needed}")
    return np.frombuffer(data, dtype, count, content.tell()).reshape(shape, order="F" if by_column else "C")


def _read_rows(path: Path, data: bytes, skeleton: SkeletonLayout) -> np.ndarray:
    """Joints (T, P, J, C) from rows that are frames, or (T, J, C) from rows that are joints."""
    # Arrays of numbers, because lists would take several times the memory of the file.
    values, widths, lines = array("d"), array("q"), array("q")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SkeletonFileError(path, None, "text in UTF-16", "numbers in plain text (UTF-8)")
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(io.BytesIO(text), start=1):
        if len(line) > MAX_LINE_BYTES:
            expected = f"at most {MAX_LINE_BYTES:,}: a line for each frame or joint"
            raise SkeletonFileError(path, number, f"a line of {len(line):,} bytes", expected)
        if b"," in line and all(map(_DECIMAL_COMMA.fullmatch, line.split())):
            shown = repr(line.strip()[:40].decode("ascii", "backslashreplace"))
            raise SkeletonFileError(path, number, f"decimal commas ({shown})", "decimal points")
        tokens = line.replace(b",", b" ").replace(b";", b" ").split()
        if not tokens:
            continue
        numbers = _leading_numbers(tokens)
        # The coordinates of a joint may be followed by anything.
        if len(numbers) == len(tokens) or (len(tokens) <= JOINT_NUMBERS and len(numbers) >= 2):
            values.extend(numbers)
            widths.append(len(numbers))
            lines.append(number)
            if len(values) > _MAX_NUMBERS:
                expected = f"at most {_MAX_NUMBERS:,} numbers: cut the recording into shorter ones"
                raise SkeletonFileError(path, number, f"{len(values):,} numbers so far", expected)
        elif widths or numbers:  # column names may come before the first row
            shown = repr(line.strip()[:40].decode("ascii", "backslashreplace"))
            raise SkeletonFileError(path, number, shown, "the coordinates of a joint")
    joints = skeleton.num_joints
    if not widths:
        raise SkeletonFileError(path, None, "0 rows", f"{joints} rows per frame")
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
        raise SkeletonFileError(path, None, f"{len(table)} rows", f"{joints} rows per frame")
    table = _without_indices(table, joints)
    few = np.unique(table[:, 0])
    if (
        table.shape[1] > 3
        and len(few) <= MAX_STATES
        and (few == np.rint(few)).all()
        and len(np.unique(table[:, 1])) > MAX_STATES
    ):
        actual = f"rows that begin with {', '.join(f'{value:g}' for value in few)}"
        raise SkeletonFileError(path, None, actual, "rows that begin with a coordinate: remove the first column")
    return table[:, :3].reshape(-1, joints, min(table.shape[1], 3))


def _leading_numbers(tokens: list[bytes]) -> list[float]:
    """The numbers at the start of a row, up to the first token that is not a number."""
    numbers = []
    for token in tokens:
        try:
            if b"_" in token:  # underscores between digits are Python's syntax, not that of recorders
                break
            numbers.append(float(token))
        except ValueError:
            break
    return numbers


def _frames_of_rows(path: Path, table: np.ndarray, skeleton: SkeletonLayout) -> np.ndarray:
    """Joints (T, P, J, C) from rows with a frame each, one person after the other."""
    joints, width = skeleton.num_joints, table.shape[1]
    sizes = (3,) if skeleton.dimensions == 3 else (2, 3)
    for before in (0, 1):
        size = next((size for size in sizes if width > before and (width - before) % (joints * size) == 0), None)
        if size is not None and (not before or _counts(table[:, 0])):
            return table[:, before:].reshape(len(table), -1, joints, size)
    expected = f"{joints} joints of {sizes[-1]} numbers in a row, with or without a frame number before them"
    raise SkeletonFileError(path, None, f"rows of {width} numbers", f"{expected}, or a joint per row")


def _without_indices(table: np.ndarray, joints: int) -> np.ndarray:
    """Removes the indices of frame and joint before the coordinates from rows of joints."""
    if table.shape[1] < 3:
        return table
    columns = table[:, :2].T.reshape(2, -1, joints)
    counts_joints = [
        bool((column - column[:, :1] == np.arange(joints)).all() and np.isin(column[:, 0], (0, 1)).all())
        for column in columns
    ]
    # A column that is equal for all joints of a frame is not x, but the number or time of the frame.
    first = columns[0][:, 0]
    counts_frames = bool((columns[0] == columns[0][:, :1]).all() and (np.diff(first) > 0).all())
    if counts_joints[0]:
        return table[:, 1:]
    if counts_frames and counts_joints[1]:
        return table[:, 2:]
    return table[:, 1:] if counts_frames and len(first) > 1 else table


def _counts(numbers: np.ndarray) -> bool:
    """Whether numbers are consecutive integers."""
    return bool((numbers == np.rint(numbers)).all() and (np.diff(numbers) == 1).all())


__all__ = ["ARRAY_SUFFIXES", "read_joint_array", "read_npy_header", "recording_from_array", "recording_of_people"]
