"""Reader of SBU Kinect Interaction: a file `skeleton_pos.txt` for each recording of two people.

    566,0.28719,0.36784,1.9413,…    (a line per frame)
        number of the frame, then x, y, z of the 15 joints of the first person, then those of the second

x, y and z are normalised. The README of the data set has the formulas of the original position, 1280 - 2560 x, 960 - 1920 y
and 1280 z. They undo what OSCeleton, a program that sends the joints of OpenNI, does with positions in millimetres. `read_sbu`
returns metres in the axes of the Kinect layouts: x to the left of the sensor, y up, z away from it. The two axes that the
formulas negate make a rotation, so left and right stay the person's own.
"""

import io
import os
from array import array
from typing import BinaryIO

import numpy as np

from .size_limits import MAX_LINE_BYTES, MAX_TEXT_BYTES
from .skeleton_files import SkeletonFileError, SkeletonRecording, check_size, read_content
from .skeleton_layouts import get_layout

FILE_NAME = "skeleton_pos.txt"
LAYOUT, RATE, PEOPLE, COORDINATES = "sbu15", 15.0, 2, 3
# Metres at 0, and metres per unit, of the normalised x, y and z.
ORIGIN, UNIT = (1.28, 0.96, 0.0), (-2.56, -1.92, 1.28)


def read_sbu(file: str | os.PathLike | BinaryIO) -> SkeletonRecording:
    """Reads a skeleton of SBU Kinect Interaction: two people in metres, layout sbu15, 15 frames per second.

    Joints at 0, 0, 0 in the file, where no sensor measures, stay zeros. A person without any other joint is absent.

    Args:
        file: Path, or open file. Blank lines are ignored.

    Raises:
        SkeletonFileError: If a line has another number of columns, a column is not a number, the numbers of the frames are not
            consecutive, or there is no frame. NaN is a number and is kept.
        OSError: If the file cannot be read.
    """
    path, data = read_content(file, MAX_TEXT_BYTES)
    num_joints = get_layout(LAYOUT).num_joints
    columns = 1 + PEOPLE * num_joints * COORDINATES
    values, frames, last = array("d"), 0, None
    for number, line in enumerate(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            raise SkeletonFileError(path, number, f"a line of {len(line):,} bytes", f"at most {MAX_LINE_BYTES:,}")
        tokens = line.strip().split(b",")
        if len(tokens) != columns:
            actual = f"{len(tokens)} column" + "s" * (len(tokens) > 1)
            raise SkeletonFileError(path, number, actual, f"{columns} columns, separated by commas: {PEOPLE} people")
        row = [_number(path, number, token) for token in tokens]
        if not row[0].is_integer() or (last is not None and row[0] != last + 1):
            expected = "the number of a frame" if last is None else f"frame {last + 1:.15g}"
            raise SkeletonFileError(path, number, f"frame {row[0]:.15g}", expected)
        last, frames = row[0], frames + 1
        check_size(path, frames, PEOPLE, num_joints)
        values.extend(row[1:])
    if not frames:
        raise SkeletonFileError(path, None, "0 frames", "a line for each frame")
    normalised = np.frombuffer(values).reshape(frames, PEOPLE, num_joints, COORDINATES)
    measured = (normalised != 0).any(-1)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers beyond float32 become infinite
        keypoints = np.where(measured[..., None], normalised * UNIT + ORIGIN, 0).astype(np.float32)
    return SkeletonRecording(keypoints, measured.any(-1), np.arange(PEOPLE), LAYOUT, RATE, path.name)


def _number(path: os.PathLike, line: int, token: bytes) -> float:
    try:
        if b"_" in token:  # underscores between digits are Python's syntax, not that of recorders
            raise ValueError
        return float(token)
    except ValueError:
        shown = token.strip()[:40].decode("ascii", "backslashreplace")
        raise SkeletonFileError(path, line, repr(shown), "a number in each column") from None


__all__ = ["read_sbu"]
