"""Recorded skeletons, and the readers of `.skeleton` files (NTU RGB+D, UAV-Human) and of UTD-MHAD's `.mat` files.

Other data sets have modules of their own (`smarthome_files`, `nw_ucla_files`, `sbu_files`). A `.skeleton` file is text with
lines of numbers:

    number of frames
        number of bodies in the frame (may be 0)
            body id, nine numbers that are ignored
            number of joints
                x y z, depth x y, colour x y, orientation w x y z, tracking state      (a line per joint)

UAV-Human's `.txt` files have the same format with 17 joints (layout coco17): x and y are pixels, z and the rest carry no
information, and bodies are numbered 000, 001.

Nothing is dropped, sorted or resampled here: a `SkeletonRecording` has the content of the file.
"""

import codecs
import io
import math
import os
from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from .mat_files import MatFileError, read_mat_array
from .model_files import shortened
from .size_limits import (
    MAX_BODIES,
    MAX_BYTES,
    MAX_LINE_BYTES,
    bytes_fault,
    read_bounded,
    read_file_bounded,
    size_fault,
)
from .skeleton_layouts import SkeletonLayout, get_layout
from .skeleton_plausibility import RATES, is_possible_rate

BODY_COLUMNS = 10
JOINT_COLUMNS = 12
# Optional columns of a joint: first, and last (exclusive).
JOINT_EXTRAS = {"depth_pixels": (3, 5), "color_pixels": (5, 7), "tracking_state": (11, 12)}
# Temporary arrays of a block stay below 128 KB, the size from which malloc maps fresh pages.
SCAN_BYTES = 1 << 16
# Bytes of a long file that are scanned at a time, and the maximum number of bytes of two consecutive lines of such a file.
BLOCK_BYTES, LINES_BYTES = 1 << 23, 1 << 14


class SkeletonFileError(ValueError):
    """A file does not follow its format.

    Attributes:
        path (str): The file.
        line (int | None): Line number, from 1; None for files without lines.
        actual, expected (str): The actual content, and what was expected.
    """

    def __init__(self, path: str | os.PathLike, line: int | None, actual: str, expected: str):
        self.path, self.line, self.actual, self.expected = os.fspath(path), line, shortened(actual, 300), expected
        place = f"{self.path}, line {line}" if line is not None else self.path
        super().__init__(f"{place}: expected {expected}, found {self.actual}")

    def __reduce__(self):  # errors are sent between processes
        return type(self), (self.path, self.line, self.actual, self.expected)


@dataclass
class SkeletonRecording:
    """A recording of T frames, P bodies and J joints, as in its file.

    Attributes:
        keypoints: Joints, float32 (T, P, J, 3), in metres, or in pixels with z = 0; zeros where a body is absent.
        present: Whether each body is in each frame, bool (T, P).
        body_ids: Distinct ids of the bodies, int64 (P,), in order of first appearance.
        layout: Name of the joint layout.
        fps: Frames per second.
        source: Name of the file, without its folder.
        tracking_state: int8 (T, P, J): 0 not tracked, 1 inferred, 2 tracked; None if not requested.
        depth_pixels, color_pixels: Position of each joint in the depth image and in the colour image, float32 (T, P, J, 2);
            None if not requested.
        scores: Score of each joint from a pose estimator, float32 (T, P, J), 0 where it was not seen; None without any.
        fps_is_assumed: Whether `fps` is only the usual rate of such files, because neither the file nor the caller gave it.
        symptoms: Observations of the reader that affect plausibility, by their names in `skeleton_plausibility`.
        cleaned: Whether the bodies are already people, as in rows of data sets; otherwise they are as they were tracked.
    """

    keypoints: np.ndarray
    present: np.ndarray
    body_ids: np.ndarray
    layout: str
    fps: float
    source: str
    tracking_state: np.ndarray | None = None
    depth_pixels: np.ndarray | None = None
    color_pixels: np.ndarray | None = None
    scores: np.ndarray | None = None
    fps_is_assumed: bool = False
    symptoms: dict[str, Any] = field(default_factory=dict)
    cleaned: bool = False


def read_content(file: str | os.PathLike | BinaryIO, most: int = MAX_BYTES) -> tuple[Path, bytes]:
    """Name and content of a file: a path, or an open binary file (a member of an archive, a stream).

    Raises:
        SkeletonFileError: If it has more than `most` bytes.
        OSError: If it cannot be read.
    """
    is_open = hasattr(file, "read")
    path = Path(getattr(file, "name", "stream")) if is_open else Path(file)
    data = read_bounded(file, most) if is_open else read_file_bounded(file, most)
    if data is None:
        raise SkeletonFileError(path, None, *bytes_fault(most))
    return path, data


def checked_rate(source: str | os.PathLike, fps: Any) -> float:
    """The frame rate of a file, a row or a caller as a float.

    Raises:
        SkeletonFileError: If the rate is impossible (`skeleton_plausibility.is_possible_rate`).
    """
    rate = np.asarray(fps)
    is_number = not rate.shape and rate.dtype.kind in "fiu"
    if not is_number or not is_possible_rate(float(rate)):
        expected = f"a positive number of frames per second, from {RATES[0]} to {RATES[1]}"
        raise SkeletonFileError(source, None, f"fps {float(rate):g}" if is_number else f"fps {fps!r}", expected)
    return float(rate)


def check_size(source: str | os.PathLike, frames: int, people: int, joints: int) -> None:
    """Raises `SkeletonFileError` for a recording that is too large (`size_limits`)."""
    fault = size_fault(frames, people, joints)
    if fault is not None:
        raise SkeletonFileError(source, None, *fault)


def read_skeleton(
    file: str | os.PathLike | BinaryIO,
    *,
    layout: str | Mapping[str, Any] | SkeletonLayout = "kinect25",
    fps: float | None = None,
    keep: Collection[str] = (),
) -> SkeletonRecording:
    """Reads a `.skeleton` file, or a `.txt` file of UAV-Human with `layout="coco17"`.

    Bodies are distinguished by their 64-bit ids, which floats cannot represent. Frames without a body are kept: the time of a
    frame is its index / fps. A file whose frames are all empty gives P = 0.

    Args:
        file: Path, or open file. Lines may end with LF or CRLF; blank lines at the end are ignored.
        layout: Joint layout, by name or description. Every body must have its number of joints.
        fps: Frames per second, which the file does not contain; by default 30, the rate of the sensor.
        keep: Further columns to read, from `JOINT_EXTRAS`.

    Raises:
        SkeletonFileError: If the file is truncated or has surplus lines, a number of joints or columns is wrong, a token is
            not a number, or a body id exceeds int64 or occurs twice in a frame. NaN is a number and is kept.
        ValueError: If `keep` has an unknown name.
        OSError: If the file cannot be read.
    """
    unknown = sorted(set(keep) - set(JOINT_EXTRAS))
    if unknown:
        raise ValueError(f"keep: expected some of {', '.join(JOINT_EXTRAS)}; got {unknown[0]!r}")
    skeleton = get_layout(layout)
    num_joints, layout = skeleton.num_joints, skeleton.name
    path, data = read_content(file)
    rate = 30.0 if fps is None else checked_rate(path, fps)
    data = data.removeprefix(codecs.BOM_UTF8)  # editors on Windows write it before the number of frames
    bodies = _scan_columns(data, num_joints, keep)
    if bodies is None:
        bodies = _read_lines(path, data, num_joints, layout, keep)
    body_counts, body_ids, columns = bodies

    frame = np.repeat(np.arange(len(body_counts)), body_counts)
    distinct, first, slot = np.unique(body_ids, return_index=True, return_inverse=True)
    if len(distinct) > MAX_BODIES:
        raise SkeletonFileError(path, None, f"{len(distinct)} different body ids", f"at most {MAX_BODIES}")
    by_appearance = np.argsort(first)
    slot = np.argsort(by_appearance)[slot]
    shape = (len(body_counts), len(distinct), num_joints)
    check_size(path, *shape)
    present = np.zeros(shape[:2], bool)
    present[frame, slot] = True
    arrays = {}
    for name, values in columns.items():
        arrays[name] = np.zeros((*shape, *values.shape[2:]), np.int8 if name == "tracking_state" else np.float32)
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, as in float32(float(token))
            arrays[name][frame, slot] = values
    return SkeletonRecording(
        arrays.pop("keypoints"),
        present,
        distinct[by_appearance],
        layout,
        rate,
        path.name,
        fps_is_assumed=fps is None,
        **arrays,
    )


def parse_numbers(text: bytes, edges: np.ndarray, number_type: pa.DataType) -> np.ndarray:
    """Parses the numbers of a text in place.

    Args:
        text: The text.
        edges: Start and end of each number, int32 (N, 2), in order.
        number_type: The Arrow type of the numbers.

    Returns:
        The numbers, (N,), equal bit for bit to those of Python's int() and float().

    Raises:
        pa.ArrowInvalid: If a piece of text is not a number of that type.
    """
    # Arrow needs adjacent strings, so the text between two numbers becomes a null string.
    offsets = np.append(edges, np.int32(len(text)))
    is_number = pa.py_buffer(b"\x55" * (len(offsets) // 8 + 1))
    strings = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text), is_number)
    values = np.frombuffer(strings.cast(number_type).buffers()[1], number_type.to_pandas_dtype())
    return values[: 2 * len(edges) : 2]


# The result of both readers below, for F frames with N bodies in total: number of bodies of each frame int64 (F,), their ids
# int64 (N,), and a dict of "keypoints", x y z (N, J, 3) in float32 or more, and the further columns of `keep`.
_Bodies = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def _scan_columns(data: bytes, num_joints: int, keep: Collection[str]) -> _Bodies | None:
    """Reads a file with a few vectorised passes over its bytes; returns None if it is not in plain form (`_scan_block`).

    A long file is read in blocks of frames, because the positions of all its numbers would take several times its size.
    """
    if len(data) <= BLOCK_BYTES:
        block = _scan_block(data, num_joints, keep)
        return None if block is None or block[0] != len(block[1][0]) else block[1]
    blocks, start, num_frames, frames = [], 0, 0, 0
    while start < len(data):
        stop = len(data) if start + BLOCK_BYTES >= len(data) else _last_frame(data, start, start + BLOCK_BYTES)
        # Only the first block begins with the number of frames; the others get a dummy line.
        head = b"" if start == 0 else b"0\r\n" if b"\r" in data[: data.find(b"\n")] else b"0\n"
        block = None if stop is None else _scan_block(head + data[start:stop], num_joints, keep)
        if block is None:
            return None
        num_frames = block[0] if start == 0 else num_frames
        body_counts, body_ids, columns = block[1]
        frames += len(body_counts)
        if size_fault(frames, 0, num_joints) is not None:
            return None
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
            columns = {
                name: values if values.dtype == np.int8 else values.astype(np.float32)
                for name, values in columns.items()
            }
        blocks.append((body_counts, body_ids, columns))
        start = stop
    if num_frames != frames:
        return None
    body_counts, body_ids, columns = zip(*blocks, strict=True)
    columns = {name: np.concatenate([block[name] for block in columns]) for name in columns[0]}
    return np.concatenate(body_counts), np.concatenate(body_ids), columns


def _last_frame(data: bytes, start: int, stop: int) -> int | None:
    """Start of the last frame between two positions: a line with a single number that does not follow the line of a body."""
    end = data.rfind(b"\n", start, stop)
    while end > start:
        begin = data.rfind(b"\n", start, end) + 1
        before = data.rfind(b"\n", start, max(begin - 1, start)) + 1
        if begin <= start or end - before > LINES_BYTES:
            return None
        if len(data[begin:end].split()) == 1 and len(data[before : begin - 1].split()) != BODY_COLUMNS:
            return begin
        end = begin - 1
    return None


def _scan_block(data: bytes, num_joints: int, keep: Collection[str]) -> tuple[int, _Bodies] | None:
    """Reads a number of frames and the frames after it; returns None if they are not in plain form.

    Files of the data sets are in plain form: single spaces between numbers, consistent line ends, and lines that match the
    counts. All other files are left to `_read_lines`, which either reads them or names the faulty line.
    """
    line_end = b"\r\n" if data[: data.find(b"\n")].endswith(b"\r") else b"\n"
    if not data.endswith(line_end) or data.endswith(2 * line_end):
        data = data.rstrip() + line_end
    text = np.frombuffer(data, np.uint8)
    # Starts with a virtual line end before the first line. Of CRLF, the CR is the separator, and the LF is skipped.
    separators = [np.full(1, -len(line_end), np.int32)]
    for start in range(0, len(text), SCAN_BYTES):
        block = text[start : start + SCAN_BYTES]
        is_separator = block <= 32
        if len(line_end) == 2:
            is_separator &= block != 10
        separators.append(np.add(is_separator.nonzero()[0], start, dtype=np.int32, casting="unsafe"))
    separators = np.concatenate(separators)
    characters = text[separators]
    characters[0] = line_end[0]
    line_starts = (characters == line_end[0]).nonzero()[0]  # index of the separator before each line
    if (
        np.count_nonzero(characters == 32) + len(line_starts) != len(characters)  # tabs and the like
        or (np.diff(separators) < 2).any()  # adjacent separators
        or (len(line_end) == 2 and not _is_crlf_throughout(text, separators[line_starts[1:]]))
        or b"x" in data  # Arrow would read 0x10 as an integer
        or b"X" in data
    ):
        return None
    columns = np.diff(line_starts)
    single, body, joint = ((columns == count).nonzero()[0] for count in (1, BODY_COLUMNS, JOINT_COLUMNS))
    if len(single) + len(body) + len(joint) != len(columns) or len(joint) != num_joints * len(body):
        return None
    stride = 2 + num_joints  # lines of a body

    def parse(lines: np.ndarray, column: int, width: int, number_type: pa.DataType) -> np.ndarray:
        """Numbers (lines, width) of `width` columns of some lines, from `column` on."""
        around = separators[(line_starts[lines] + column)[:, None] + np.arange(width + 1)]
        edges = np.stack([around[:, :-1] + 1, around[:, 1:]], axis=-1)
        if column == 0:
            edges[:, 0, 0] += len(line_end) - 1
        return parse_numbers(data, edges.reshape(-1, 2), number_type).reshape(len(lines), width)

    is_count = columns == 1
    is_count[0] = False
    is_count[np.minimum(body + 1, len(columns) - 1)] = False
    frame = is_count.nonzero()[0]
    try:
        integers = parse(np.concatenate([[0], frame, body + 1, body]), 0, 1, pa.int64())[:, 0]
        num_frames, body_counts = integers[0], integers[1 : 1 + len(frame)]
        joint_counts, body_ids = integers[1 + len(frame) :].reshape(2, len(body))
        # Checked first, because a body id in the place of a count would allocate too much memory.
        if ((body_counts < 0) | (body_counts > len(body))).any():
            return None
        # The line numbers that follow from the counts.
        bodies_before = np.cumsum(body_counts) - body_counts
        expected_frame = 1 + np.arange(len(frame)) + stride * bodies_before
        in_frame = np.repeat(np.arange(len(frame)), body_counts)
        expected_body = 2 + in_frame + stride * np.arange(len(in_frame))
        if (
            not np.array_equal(frame, expected_frame)
            or not np.array_equal(body, expected_body)
            or (joint_counts != num_joints).any()
            or len(set(zip(in_frame.tolist(), body_ids.tolist(), strict=True))) != len(body)
        ):
            return None
        kept = {"keypoints": parse(joint, 0, 3, pa.float64()).reshape(len(body), num_joints, 3)}
        for name in keep:
            first, last = JOINT_EXTRAS[name]
            number_type = pa.int8() if name == "tracking_state" else pa.float64()
            kept[name] = parse(joint, first, last - first, number_type).reshape(len(body), num_joints, last - first)
        if "tracking_state" in kept:
            kept["tracking_state"] = states = kept["tracking_state"][..., 0]
            if ((states < 0) | (states > 2)).any():
                return None
    except (pa.ArrowInvalid, IndexError, ValueError):
        return None
    return int(num_frames), (body_counts, body_ids, kept)


def _is_crlf_throughout(text: np.ndarray, carriage_returns: np.ndarray) -> bool:
    """Whether line feeds follow all of these positions, and no others."""
    follows = text[np.minimum(carriage_returns + 1, len(text) - 1)] == 10
    return bool(follows.all()) and np.count_nonzero(text == 10) == len(carriage_returns)


def _read_lines(path: Path, data: bytes, num_joints: int, layout: str, keep: Collection[str]) -> _Bodies:
    """Reads a file line by line; errors name the line."""
    lines = io.BytesIO(data)
    position = 0

    def refuse(actual: str, expected: str):
        raise SkeletonFileError(path, position, actual, expected)

    def line(count: int, what: str) -> list[bytes]:
        nonlocal position
        position += 1
        text = lines.readline()
        if not text.strip() and not data[lines.tell() :].strip():
            refuse("the end of the file", what)
        row = text.split(None, count)
        if len(row) != count:
            # A very long line is not split only to count its columns.
            columns = len(text.split()) if len(text) <= MAX_LINE_BYTES else f"more than {count}"
            refuse(f"{columns} columns ({_quote(text)})", f"{what} in {count} columns")
        return row

    def number(token: bytes, number_type: type, what: str):
        try:
            if b"_" in token:  # underscores between digits are Python's syntax, not that of recorders
                raise ValueError
            return number_type(token)
        except ValueError:
            if number_type is float and token.lower().lstrip(b"+-").startswith(b"nan("):  # NaN as written by C
                return math.nan
            refuse(_quote(token), what)

    def integer(token: bytes, what: str, least: int, most: int) -> int:
        value = number(token, int, what)
        return value if least <= value <= most else refuse(str(value), f"{what} between {least} and {most}")

    def count(what: str) -> int:
        return integer(line(1, what)[0], what, 0, 2**63 - 1)

    # Arrays of numbers, because lists of objects would take several times the memory of the file.
    body_counts, body_ids = array("q"), array("q")
    kept = {name: array("d") for name in ("keypoints", *keep)}
    for frame in range(count("the number of frames")):
        body_counts.append(count(f"the number of bodies in frame {frame}"))
        check_size(path, frame + 1, 0, num_joints)
        in_frame = set()
        for _ in range(body_counts[-1]):
            body_id = integer(line(BODY_COLUMNS, f"a body of frame {frame}")[0], "a body id", -(2**63), 2**63 - 1)
            if body_id in in_frame:
                refuse(f"body {body_id} a second time", f"another body in frame {frame}")
            in_frame.add(body_id)
            body_ids.append(body_id)
            joints = count("the number of joints")
            if joints != num_joints:
                refuse(f"{joints} joints", f"{num_joints} joints (layout {layout})")
            for _ in range(num_joints):
                row = line(JOINT_COLUMNS, f"a joint of body {body_id}, frame {frame}")
                kept["keypoints"].extend([number(token, float, "a coordinate") for token in row[:3]])
                for name in keep:
                    if name == "tracking_state":
                        kept[name].append(integer(row[-1], "a tracking state", 0, 2))
                    else:
                        kept[name].extend(
                            [number(token, float, "a pixel") for token in row[slice(*JOINT_EXTRAS[name])]]
                        )
    for text in lines:
        position += 1
        if text.strip():
            refuse(_quote(text), f"the end of the file after {len(body_counts)} frames")
    per_body = (len(body_ids), num_joints)
    widths = {name: () if name == "tracking_state" else (2,) for name in keep} | {"keypoints": (3,)}
    columns = {
        name: np.frombuffer(values, np.float64).reshape(*per_body, *widths[name]) for name, values in kept.items()
    }
    return np.frombuffer(body_counts, np.int64), np.frombuffer(body_ids, np.int64), columns


def _quote(text: bytes, length: int = 40) -> str:
    text = text.strip().decode("ascii", "backslashreplace")
    return repr(text if len(text) <= length else text[:length] + "…")


def read_utd_mhad(file: str | os.PathLike | BinaryIO) -> SkeletonRecording:
    """Reads a skeleton of UTD-MHAD: `d_skel` (20, 3, T) in a `.mat` file; a single person in metres, 30 frames per second.

    Args:
        file: Path, or open file.

    Raises:
        SkeletonFileError: If the file is not a `.mat` file of level 5 (`mat_files`), or `d_skel` is missing or has another
            shape.
        OSError: If the file cannot be read.
    """
    path, data = read_content(file)
    try:
        skeleton = read_mat_array(data, "d_skel")
    except MatFileError as error:
        raise SkeletonFileError(path, None, error.actual, error.expected) from error
    num_joints = get_layout("kinect20").num_joints
    if skeleton.ndim != 3 or skeleton.shape[:2] != (num_joints, 3):
        actual = f"d_skel {skeleton.dtype.name} {skeleton.shape}"
        raise SkeletonFileError(path, None, actual, f"d_skel of numbers ({num_joints}, 3, frames)")
    check_size(path, skeleton.shape[2], 1, num_joints)
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        keypoints = np.ascontiguousarray(skeleton.transpose(2, 0, 1)[:, None], np.float32)
    return SkeletonRecording(
        keypoints, np.ones((len(keypoints), 1), bool), np.zeros(1, np.int64), "kinect20", 30.0, path.name
    )


__all__ = ["SkeletonFileError", "SkeletonRecording", "check_size", "checked_rate", "read_skeleton", "read_utd_mhad"]
