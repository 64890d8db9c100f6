"""Reader of Toyota Smarthome's skeletons: poses found by LCR-Net, one JSON file per clip.

    {"K": …, "njts": 13, "frames": [frame, …]}
        frame: a list of detections, [] when nobody was found
            detection: {"pose2d": 26 numbers, "pose3d": 39 numbers, …}

A pose lists coordinates, not joints: x of all 13 joints, then y, then z. `pose2d` is in pixels of a 640 x 480 picture,
`pose3d` in metres as the camera sees it; y grows downwards in both. The frame of `pose3d` is documented nowhere: no
floor and no common axis of the cameras is to be relied on.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

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
# A list that begins like a number, up to the first bracket that closes.
NUMBER_LIST = re.compile(rb"\[(\s*[-0-9][^]]*)\]")


def read_smarthome(
    file: str | os.PathLike | BinaryIO, *, pose: str = "pose3d", fps: float = 20.0
) -> SkeletonRecording:
    """Reads a skeleton of Toyota Smarthome, layout lcrnet13, or lcrnet13-2d for the pixels of `pose2d`.

    A detection has no id. The n-th of a frame is body n: the refined poses (V1.2) have one per frame at most, the older
    ones (V1.1) have several, of which nothing says who is who from frame to frame. Frames without a detection count.

    Args:
        file: Its path, or the open file.
        pose: "pose3d" (metres), or "pose2d" (pixels, z = 0, and 0 for joints that the file marks as missing by -1).
        fps: Frames per second; the file does not say it. 20 is what its videos were found to have, though the official
            code decodes them at 30.

    Raises:
        SkeletonFileError: Not JSON, another structure, a wrong number of joints, something among the coordinates that
            is not a number. NaN is a number and is kept. Only the poses that were asked for are looked at.
        ValueError: No such pose.
        OSError: The file cannot be read.
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
    with np.errstate(over="ignore"):  # beyond float32 is infinite, as float32(float(number)) is
        keypoints[frame, slot, :, : POSES[pose]] = joints
    present[frame, slot] = True
    return SkeletonRecording(keypoints, present, np.arange(shape[1]), LAYOUTS[pose], rate, path.name)


# What both ways of reading return, for F frames that hold N detections in total: number of detections of each frame
# int64 (F,), the numbers of their poses float64 (N, length), in the order of the file.
_Poses = tuple[np.ndarray, np.ndarray]


def _scan_lists(path: Path, data: bytes, pose: str, length: int) -> _Poses | None:
    """Reads a file with its lists of numbers cut out of the JSON, or returns None when that has not the plain form.

    Every such list becomes its own index, [0], [1], …, which leaves little to `json`; all numbers are parsed at once.
    Plain is what `json.dump` writes. Whatever differs, in a list that is read or in another, is left to `_read_json`.
    """
    if b"\0" in data:  # UTF-16, in which no list would be found
        return None
    pieces = NUMBER_LIST.split(data)
    lists = pieces[1::2]
    pieces[1::2] = [b"[%d]" % index for index in range(len(lists))]
    try:
        counts, indices = _poses_of(path, json.loads(b"".join(pieces)), pose)
    except (SkeletonFileError, ValueError, RecursionError):
        return None
    # A list that begins otherwise is still there, and no index.
    if any(len(index) != 1 or type(index[0]) is not int for index in indices):
        return None
    separator = b", " if lists and b", " in lists[0] else b","
    text = separator.join(lists)
    numbers = _parse_list(text, len(separator))
    if numbers is None:
        return None
    values, commas = numbers
    # A number stands behind as many numbers as commas.
    ends = np.cumsum([len(one) + len(separator) for one in lists], dtype=np.int64)
    ends = np.searchsorted(commas, ends - len(separator)) + 1
    chosen = np.array(indices, np.int64).reshape(-1)
    ends, lengths = ends[chosen], np.diff(ends, prepend=0)[chosen]
    if (lengths != length).any():
        return None
    return np.array(counts, np.int64), values[(ends - length)[:, None] + np.arange(length)]


def _parse_list(text: bytes, separator: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers of `1.5, -2, …` as float64 (N,), and where its N - 1 commas are; None where it is not just that."""
    if not text:
        return np.empty(0), np.empty(0, np.int32)
    characters = np.frombuffer(text, np.uint8)
    commas = (characters == ord(",")).nonzero()[0].astype(np.int32)
    edges = np.empty((len(commas) + 1, 2), np.int32)
    edges[0, 0], edges[1:, 0], edges[:-1, 1], edges[-1, 1] = 0, commas + separator, commas, len(text)

    def is_digit(places):
        return characters[places] - np.uint8(ord("0")) < 10

    # Arrow reads numbers that are none in JSON: 01, 1., 1.e5, .5, inf. It does refuse what else is none.
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
    """Reads a file with `json` alone, and knows the place of whatever is wrong."""
    try:
        content = json.loads(data, parse_int=float)
    except json.JSONDecodeError as error:
        found = f"{error.msg} at character {error.colno}"
        raise SkeletonFileError(path, error.lineno, found, "JSON") from error
    except (ValueError, RecursionError) as error:
        raise SkeletonFileError(path, None, f"{type(error).__name__}: {error}", "JSON") from error
    counts, poses = _poses_of(path, content, pose)
    frame = np.repeat(np.arange(len(counts)), counts)
    for index, values in enumerate(poses):
        wrong = [value for value in values if type(value) is not float]
        if len(values) != length or wrong:
            found = f"{len(values)} numbers" if not wrong else _describe(wrong[0])
            raise SkeletonFileError(path, None, found, f"{length} numbers as {pose} of frame {frame[index]}")
    return np.array(counts, np.int64), np.array(poses, np.float64).reshape(len(poses), length)


def _poses_of(path: Path, content: Any, pose: str) -> tuple[list[int], list[list]]:
    """Number of detections of each frame, and the `pose` lists of all detections, whatever is in them."""

    def check(value: Any, kind: type, expected: str, frame: int | None = None):
        if not isinstance(value, kind):
            raise SkeletonFileError(path, None, _describe(value), expected.format(pose=pose, frame=frame))
        return value

    check(content, dict, "an object with frames")
    num_joints = get_layout(LAYOUTS[pose]).num_joints
    if content.get("njts", num_joints) != num_joints:
        raise SkeletonFileError(path, None, f"njts {_describe(content['njts'])}", f"{num_joints} joints")
    frames = check(content.get("frames"), list, "frames as a list")
    poses = []
    for number, frame in enumerate(frames):
        for detection in check(frame, list, "frame {frame} as a list of detections", number):
            check(detection, dict, "a detection of frame {frame} as an object", number)
            poses.append(check(detection.get(pose), list, "{pose} of frame {frame} as a list", number))
    return [len(frame) for frame in frames], poses


def _describe(value: Any, length: int = 40) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= length else text[:length] + "…"


__all__ = ["read_smarthome"]
