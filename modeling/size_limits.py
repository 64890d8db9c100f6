"""Size limits of recordings, and readers that respect them: sizes are checked before memory is allocated.

A file can claim any size, and a compressed file can unpack to a thousand times its own. No reader of recordings allocates more
than the limit, so that a damaged or hostile file gives an error instead of exhausting the memory. The limit is an hour at 30
frames per second with 8 people of 25 joints, at 8 bytes per number: 512 MiB, or 22.4 million joints (frames x people x joints).
"""

import io
import os
import stat
from typing import BinaryIO

# Bytes of a file, and of an unpacked archive member or compressed array.
MAX_BYTES = 512 << 20
# Bytes of a text file of rows, which takes several times its size while it is read, and of a line.
MAX_TEXT_BYTES, MAX_LINE_BYTES = MAX_BYTES // 2, 1 << 20
# Bytes of JSON, whose characters take up to 4 bytes each, in the text and in its values.
MAX_JSON_BYTES = MAX_BYTES // 4
# Objects and lists of a JSON text, which take up to 400 bytes each in Python, and its names and values, up to 160 bytes each.
MAX_JSON_CONTAINERS, MAX_JSON_VALUES = 1_500_000, 5_000_000
# Joints of three numbers of 8 bytes each.
MAX_JOINTS = MAX_BYTES // 24
# Distinct bodies of a recording. A sensor may detect the same person as a new body a few times. Thousands of bodies mean that
# the file is damaged, or that the axes of people and frames are swapped; even absent bodies would fill the memory.
MAX_BODIES = 256
# Comparisons of people with each other in every frame of an array: frames x people x people, 8 people for an hour.
MAX_COMPARISONS = 8_000_000
_PIECE = 1 << 20


def size_fault(frames: int, people: int, joints: int) -> tuple[str, str] | None:
    """Actual and expected size, in words, of a recording that is too large; None if it is not."""
    if people > MAX_BODIES:
        return f"{people:,} bodies", f"at most {MAX_BODIES}: keep only the people who act"
    count = frames * max(people, 1) * joints
    if count <= MAX_JOINTS:
        return None
    actual = f"{frames:,} frames of {people:,} people with {joints} joints ({count:,} in all)"
    return actual, f"at most {MAX_JOINTS:,} joints in all: cut the recording into shorter ones"


def comparisons_fault(frames: int, people: int) -> tuple[str, str] | None:
    """Like `size_fault`, for an array whose people are tracked from frame to frame (`skeleton_bodies.follow_people`)."""
    if frames * people**2 <= MAX_COMPARISONS:
        return None
    most = MAX_COMPARISONS // people**2
    actual = f"{people:,} people in {frames:,} frames"
    return actual, f"at most {most:,} frames of so many people: keep only the people who act"


def json_fault(data: bytes) -> tuple[str, str] | None:
    """Like `size_fault`, for JSON text that would take too much memory as Python objects."""
    if len(data) > MAX_JSON_BYTES:
        return bytes_fault(MAX_JSON_BYTES)
    if len(data) <= MAX_JSON_CONTAINERS:  # each takes at least a byte
        return None
    containers = data.count(b"[") + data.count(b"{")
    values = containers + data.count(b",") + data.count(b":")
    if containers > MAX_JSON_CONTAINERS or values > MAX_JSON_VALUES:
        actual = f"{values:,} values, {containers:,} of them lists and objects"
        most = f"at most {MAX_JSON_VALUES:,} and {MAX_JSON_CONTAINERS:,}"
        return actual, f"{most}: cut the recording into shorter ones"
    return None


def read_bounded(file: BinaryIO, most: int = MAX_BYTES) -> bytes | None:
    """Reads a file from its current position; None if it has more than `most` bytes. No more than that is unpacked."""
    if isinstance(file, io.BytesIO):  # in memory already
        data = file.read()
        return data if len(data) <= most else None
    pieces, size = [], 0
    while piece := file.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            return None
    return b"".join(pieces)


def read_file_bounded(path: str | os.PathLike, most: int = MAX_BYTES) -> bytes | None:
    """Like `read_bounded`, for a path.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return read_bounded(file, most)
        return file.read() if status.st_size <= most else None


def bytes_fault(most: int = MAX_BYTES) -> tuple[str, str]:
    """Like `size_fault`, for a file that exceeds the limit of `read_bounded`."""
    return f"more than {most >> 20} MiB", f"at most {most >> 20} MiB: cut the recording into shorter ones"


__all__ = [
    "MAX_BODIES",
    "MAX_BYTES",
    "MAX_JSON_BYTES",
    "MAX_LINE_BYTES",
    "MAX_JOINTS",
    "MAX_TEXT_BYTES",
    "bytes_fault",
    "comparisons_fault",
    "json_fault",
    "read_bounded",
    "read_file_bounded",
    "size_fault",
]
