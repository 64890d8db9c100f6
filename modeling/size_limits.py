"""How large a recording may be, and reading no more than that: sizes are checked before memory is asked for.

Files say how much they hold, and compressed ones unpack to a thousand times their size. So that a damaged or hostile file ends
in an error and not in a process without memory, there is a limit for a recording, and none of its readers allocates more. The
limit is an hour of 30 frames per second with 8 people of 25 joints, at 8 bytes a number: 512 MiB, or 22.4 million joints
(frames x people x joints).
"""

import io
import os
import stat
from typing import BinaryIO

# Of a file, and of what an archive or a compressed array unpacks to.
MAX_BYTES = 512 << 20
# Of a text file of rows, which takes several times its size while it is read, and of a line of it.
MAX_TEXT_BYTES, MAX_LINE_BYTES = MAX_BYTES // 2, 1 << 20
# Of JSON: its characters take up to 4 bytes each, in the text and in its values.
MAX_JSON_BYTES = MAX_BYTES // 4
# Objects and lists of a JSON text, and its names and values, of which Python needs up to 400 and up to 160 bytes each.
MAX_JSON_CONTAINERS, MAX_JSON_VALUES = 1_500_000, 5_000_000
# Three numbers of 8 bytes each.
MAX_JOINTS = MAX_BYTES // 24
# Distinct bodies of a recording. A sensor finds a person anew a few times; thousands are a damaged file, or people where
# frames should be, and their absence alone would fill the memory.
MAX_BODIES = 256
# People of an array are compared with each other in every frame: frames x people x people, 8 people for an hour.
MAX_COMPARISONS = 8_000_000
_PIECE = 1 << 20


def size_fault(frames: int, people: int, joints: int) -> tuple[str, str] | None:
    """What was found and what was expected, of a recording that is too large to be one; None for all others."""
    if people > MAX_BODIES:
        return f"{people:,} bodies", f"at most {MAX_BODIES}: keep the people who act"
    count = frames * max(people, 1) * joints
    if count <= MAX_JOINTS:
        return None
    found = f"{frames:,} frames of {people:,} people with {joints} joints ({count:,} in all)"
    return found, f"at most {MAX_JOINTS:,} joints in all: cut the recording into shorter ones"


def comparisons_fault(frames: int, people: int) -> tuple[str, str] | None:
    """As `size_fault`, of an array whose people are followed from frame to frame (`skeleton_bodies.follow_people`)."""
    if frames * people**2 <= MAX_COMPARISONS:
        return None
    most = MAX_COMPARISONS // people**2
    return f"{people:,} people in {frames:,} frames", f"at most {most:,} frames of so many: keep the people who act"


def json_fault(data: bytes) -> tuple[str, str] | None:
    """As `size_fault`, of JSON text that would take too much memory as objects."""
    if len(data) > MAX_JSON_BYTES:
        return bytes_fault(MAX_JSON_BYTES)
    if len(data) <= MAX_JSON_CONTAINERS:  # each takes a byte at least
        return None
    containers = data.count(b"[") + data.count(b"{")
    values = containers + data.count(b",") + data.count(b":")
    if containers > MAX_JSON_CONTAINERS or values > MAX_JSON_VALUES:
        found = f"{values:,} values, {containers:,} of them lists and objects"
        most = f"at most {MAX_JSON_VALUES:,} and {MAX_JSON_CONTAINERS:,}"
        return found, f"{most}: cut the recording into shorter ones"
    return None


def read_bounded(file: BinaryIO, most: int = MAX_BYTES) -> bytes | None:
    """What a file holds from where it stands, or None if that is more than `most` bytes; no more than that is unpacked."""
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
    """As `read_bounded`, of a path.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return read_bounded(file, most)
        return file.read() if status.st_size <= most else None


def bytes_fault(most: int = MAX_BYTES) -> tuple[str, str]:
    """As `size_fault`, where `read_bounded` found too much."""
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
