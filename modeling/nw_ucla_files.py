"""Reader of Northwestern-UCLA's skeletons, in the JSON files that CTR-GCN and Shift-GCN use, one per recording.

    {"file_name": "a01_s01_e00_v01", "skeletons": [frame, …], "label": 1}
        frame: 20 joints [x, y, z] in metres, y up

The joints have the order of the SDK of the first Kinect (layout kinect20-sdk). Only `skeletons` is read: the name of a file
determines its class, and `label` counts the classes from 1.
"""

import os
from typing import Any, BinaryIO

import numpy as np

from .json_files import describe_json, parse_json
from .skeleton_files import SkeletonFileError, SkeletonRecording, check_size, read_content
from .skeleton_layouts import get_layout

LAYOUT, RATE = "kinect20-sdk", 30.0
COORDINATES = 3


def has_nw_ucla_keys(data: bytes) -> bool:
    """Whether JSON text is of Northwestern-UCLA, by its keys; that of Toyota Smarthome has `frames`."""
    return b'"skeletons"' in data and b'"frames"' not in data


def read_nw_ucla(file: str | os.PathLike | BinaryIO) -> SkeletonRecording:
    """Reads a skeleton of Northwestern-UCLA: a single person in metres, 30 frames per second.

    Args:
        file: Path, or open file.

    Raises:
        SkeletonFileError: If the file is not JSON, has no frames or another structure or number of joints, or a coordinate is
            not a number. NaN is a number and is kept.
        OSError: If the file cannot be read.
    """
    path, data = read_content(file)
    content = parse_json(path, data)
    num_joints = get_layout(LAYOUT).num_joints

    def check(value: Any, length: int | None, expected: str) -> list:
        if not isinstance(value, list) or len(value) != (length or len(value)) or not value:
            raise SkeletonFileError(path, None, describe_json(value), expected)
        return value

    if not isinstance(content, dict):
        raise SkeletonFileError(path, None, describe_json(content), "an object with skeletons")
    frames = check(content.get("skeletons"), None, "skeletons as a list of frames")
    check_size(path, len(frames), 1, num_joints)
    for number, frame in enumerate(frames):
        for joint, position in enumerate(check(frame, num_joints, f"{num_joints} joints in frame {number}")):
            expected = f"{COORDINATES} numbers for joint {joint} of frame {number}"
            for coordinate in check(position, COORDINATES, expected):
                if type(coordinate) is not float:
                    raise SkeletonFileError(path, None, describe_json(coordinate), expected)
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        keypoints = np.array(frames, np.float64).astype(np.float32)[:, None]
    present = (keypoints != 0).any((2, 3))
    return SkeletonRecording(keypoints, present, np.zeros(1, np.int64), LAYOUT, RATE, path.name)


__all__ = ["has_nw_ucla_keys", "read_nw_ucla"]
