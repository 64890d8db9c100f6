"""Reader of Toyota Smarthome's skeletons: poses detected by LCR-Net, in a JSON file per clip.

    {"K": …, "njts": 13, "frames": [frame, …]}
        frame: a list of detections, [] if nobody was detected
            detection: {"pose2d": 26 numbers, "pose3d": 39 numbers, …}

A pose is ordered by coordinate: x of all 13 joints, then y, then z. `pose2d` is in pixels of a 640 x 480 image, `pose3d` in
metres from the camera; y grows downwards in both. The coordinate system of `pose3d` is not documented: neither the floor nor
common axes of the cameras can be relied on.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from .json_files import describe_json, parse_json
from .size_limits import json_fault
from .skeleton_files import (
    SkeletonFileError,
    SkeletonRecording,
    check_size,
    checked_rate,
    parse_numbers,
    read_content,
)  # fmt: skip
from .skeleton_layouts import get_layout

LAYOUTS = {"pose2d": "lcrnet13-2d", "pose3d": "lcrnet13"}
POSES = {"pose2d": 2, "pose3d": 3}
MISSING = -1.0
# A list that begins with a number, up to the first closing bracket.
NUMBER_LIST = re.compile(rb"\[(\s*[-0-9][^]]*)\]")


def read_smarthome(
    file: str | os.PathLike | BinaryIO, *, pose: str = "pose3d", fps: float = 20.0
) -> SkeletonRecording:
    """Reads a skeleton of Toyota Smarthome, layout lcrnet13, or lcrnet13-2d for the pixels of `pose2d`.

    Detections have no ids: the n-th detection of a frame is body n. The refined poses (V1.2) have at most one detection per
    frame. The older poses (V1.1) have several, which are not tracked from frame to frame. Frames without a detection are kept.

    Args:
        file: Path, or open file.
        pose: "pose3d" (metres), or "pose2d" (pixels, z = 0, and 0 for joints that the file marks as missing by -1).
        fps: Frames per second, which the file does not contain. The videos have 20, though the official code decodes them at
            30.

    Raises:
        SkeletonFileError: If the file is not JSON, or has another structure or number of joints, or a coordinate is not a
            number. NaN is a number and is kept. Only the requested poses are checked.
        ValueError: If `pose` is unknown.
        OSError: If the file cannot be read.
    """
    if pose not in POSES:
        raise ValueError(f"pose must be one of {list(POSES)}, got {pose!r}")
    num_joints = get_layout(LAYOUTS[pose]).num_joints
    path, data = read_content(file)
    rate = checked_rate(path, fps)
    fault = json_fault(data)
    if fault is not None:
        raise SkeletonFileError(path, None, *fault)
    poses = _scan_lists(path, data, pose, POSES[pose] * num_joints)
    if poses is None:
        poses = _read_json(path, data, pose, POSES[pose] * num_joints)
    counts, values = poses

    frame = np.repeat(np.arange(len(counts)), counts)
    slot = np.arange(len(frame)) - (np.cumsum(counts) - counts)[frame]
    joints = values.reshape(len(values), POSES[pose], num_joints).transpose(0, 2, 1)
    if pose == "pose2d":
        joints = np.where((joints == MISSING).all(-1, keepdims=True), 0, joints)
    shape = (len(counts), int(counts.max(initial=0)))
    check_size(path, *shape, num_joints)
    keypoints = np.zeros((*shape, num_joints, 3), np.float32)
    present = np.zeros(shape, bool)
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, as in float32(float(number))
        keypoints[frame, slot, :, : POSES[pose]] = joints
    present[frame, slot] = True
    return SkeletonRecording(keypoints, present, np.arange(shape[1]), LAYOUTS[pose], rate, path.name)


# The result of both readers below, for F frames with N detections in total: number of detections of each frame int64 (F,), and
# the numbers of their poses float64 (N, length), in the order of the file.
_Poses = tuple[np.ndarray, np.ndarray]


def _scan_lists(path: Path, data: bytes, pose: str, length: int) -> _Poses | None:
    """Reads a file fast, by cutting the lists of numbers out of the JSON; returns None if it is not in plain form.

    Each list is replaced by its index, [0], [1], …, so that `json` has little to parse, and all numbers are parsed at once.
    Plain form is the output of `json.dump`. All other files are left to `_read_json`.
    """
    if b"\0" in data:  # UTF-16, in which the pattern does not match
        return None
    pieces = NUMBER_LIST.split(data)
    lists = pieces[1::2]
    pieces[1::2] = [b"[%d]" % index for index in range(len(lists))]
    try:
        counts, indices = _poses_of(path, json.loads(b"".join(pieces)), pose)
    except (SkeletonFileError, ValueError, RecursionError):
        return None
    # Lists that do not begin with a number were not replaced by an index.
    if any(len(index) != 1 or type(index[0]) is not int for index in indices):
        return None
    separator = b", " if lists and b", " in lists[0] else b","
    text = separator.join(lists)
    numbers = _parse_list(text, len(separator))
    if numbers is None:
        return None
    values, commas = numbers
    # The number of commas before a position is the number of numbers before it.
    ends = np.cumsum([len(piece) + len(separator) for piece in lists], dtype=np.int64)
    ends = np.searchsorted(commas, ends - len(separator)) + 1
    chosen = np.array(indices, np.int64).reshape(-1)
    ends, lengths = ends[chosen], np.diff(ends, prepend=0)[chosen]
    if (lengths != length).any():
        return None
    return np.array(counts, np.int64), values[(ends - length)[:, None] + np.arange(length)]


def _parse_list(text: bytes, separator: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The numbers of `1.5, -2, …`, float64 (N,), and the positions of the N - 1 commas; None if the text is anything else."""
    if not text:
        return np.empty(0), np.empty(0, np.int32)
    characters = np.frombuffer(text, np.uint8)
    commas = (characters == ord(",")).nonzero()[0].astype(np.int32)
    edges = np.empty((len(commas) + 1, 2), np.int32)
    edges[0, 0], edges[1:, 0], edges[:-1, 1], edges[-1, 1] = 0, commas + separator, commas, len(text)

    def is_digit(places):
        return characters[places] - np.uint8(ord("0")) < 10

    # Arrow accepts some numbers that JSON does not: 01, 1., 1.e5, .5, inf. It refuses everything else that is not a number.
    if not is_digit(edges[:, 1] - 1).all() or any(e in text and b"." + e in text for e in (b"e", b"E")):
        return None
    if separator == 2 and not (characters[commas + 1] == ord(" ")).all():
        return None
    first = edges[:, 0] + (characters[edges[:, 0]] == ord("-"))
    longer = edges[:, 1] - first > 1
    leading_zero = longer & (characters[first] == ord("0")) & is_digit(first + longer)
    if not is_digit(first).all() or leading_zero.any():
        return None
    try:
        return parse_numbers(text, edges, pa.float64()), commas
    except pa.ArrowInvalid:
        return None


def _read_json(path: Path, data: bytes, pose: str, length: int) -> _Poses:
    """Reads a file with `json`; errors name the place of the fault."""
    content = parse_json(path, data)
    counts, poses = _poses_of(path, content, pose)
    frame = np.repeat(np.arange(len(counts)), counts)
    for index, values in enumerate(poses):
        wrong = [value for value in values if type(value) is not float]
        if len(values) != length or wrong:
            actual = f"{len(values)} numbers" if not wrong else describe_json(wrong[0])
            raise SkeletonFileError(path, None, actual, f"{length} numbers as {pose} of frame {frame[index]}")
    return np.array(counts, np.int64), np.array(poses, np.float64).reshape(len(poses), length)


def _poses_of(path: Path, content: Any, pose: str) -> tuple[list[int], list[list]]:
    """Number of detections of each frame, and the unchecked `pose` lists of all detections."""

    def check(value: Any, json_type: type, expected: str, frame: int | None = None):
        if not isinstance(value, json_type):
            raise SkeletonFileError(path, None, describe_json(value), expected.format(pose=pose, frame=frame))
        return value

    check(content, dict, "an object with frames")
    num_joints = get_layout(LAYOUTS[pose]).num_joints
    if content.get("njts", num_joints) != num_joints:
        raise SkeletonFileError(path, None, f"njts {describe_json(content['njts'])}", f"{num_joints} joints")
    frames = check(content.get("frames"), list, "frames as a list")
    poses = []
    for number, frame in enumerate(frames):
        for detection in check(frame, list, "frame {frame} as a list of detections", number):
            check(detection, dict, "a detection of frame {frame} as an object", number)
            poses.append(check(detection.get(pose), list, "{pose} of frame {frame} as a list", number))
    return [len(frame) for frame in frames], poses


__all__ = ["read_smarthome"]
