"""Checks the boxes of MP4 and MOV files (ISO/IEC 14496-12) that determine the memory of the index.

FFmpeg allocates an entry of its index for every sample (frame) that a box announces, before it looks for the sample: a file of
2 KB can make it allocate gigabytes.
"""

import io
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# Boxes that contain boxes. FFmpeg accepts known boxes anywhere.
CONTAINERS = frozenset(
    b"moov hoov free trak mdia minf stbl edts mvex moof traf cmov udta dinf tref wave sinf schi iprp".split()
)
# Boxes that contain counts, or the type of a track.
COUNTING = frozenset(b"stsz stz2 stco co64 stsc stts hdlr elst trun iloc".split())
# In descriptions of samples, boxes may follow fields of variable length, so they are found by name.
_NAMES = re.compile(b"|".join(sorted(COUNTING)))
MAX_DESCRIPTION_BYTES = 1 << 20
# Maximum numbers of boxes of a file and of bytes of its index: ten hours at 60 frames per second have an index of 30 MB.
MAX_BOXES, MAX_INDEX_BYTES = 1_000_000, 1 << 26
# An index may have this many entries, or as many as the file has bytes, because a sample has at least a byte.
MIN_ENTRIES = 2_000_000
# FFmpeg makes one entry for this many samples of uncompressed sound.
SOUND_SAMPLES = 1024


class TooManyBoxesError(ValueError):
    """An MP4 file announces more than it can contain; the message names the actual numbers."""


@dataclass
class _Track:
    """The numbers that the boxes of a track announce."""

    samples: int = 0
    chunks: int = 0
    samples_per_chunk: int = 0
    edits: int = 1
    is_sound: bool = False
    is_uncompressed: bool = False

    def entries(self) -> int:
        """Number of entries of FFmpeg's index; each edit may show all samples again."""
        by_chunk = self.is_sound and self.is_uncompressed
        samples = self.chunks * self.samples_per_chunk // SOUND_SAMPLES if by_chunk else self.samples
        return samples * max(self.edits, 1)


def lacks_index(file: BinaryIO) -> bool:
    """Whether a file is an MP4 (or MOV) file that ends before or within the box `moov`, which recorders write last."""
    end, names = file.seek(0, os.SEEK_END), []
    for name, start, length in _boxes(file, 0, end):
        if name == b"moov" and start + length <= end:
            return False
        names.append(name)
        if len(names) >= MAX_BOXES:
            break
    return names[:1] == [b"ftyp"]


def check_index(file: BinaryIO) -> None:
    """Raises `TooManyBoxesError` if the index of an MP4 file announces more than the file can contain.

    FFmpeg finds MP4 content behind unknown boxes, so files of all formats are checked; of other formats, little is read.
    """
    end = file.seek(0, os.SEEK_END)
    track, announced = _Track(), 0
    most_boxes = max(MAX_BOXES, end // 16)  # long recordings may have a fragment for each frame
    for count, (name, length, content) in enumerate(_walk(file, end)):
        if count > most_boxes:
            raise TooManyBoxesError(f"more than {most_boxes:,} boxes")
        if name == b"trak":
            announced, track = announced + track.entries(), _Track()
        elif name in (b"stsz", b"stz2"):
            track.samples = max(track.samples, _number(content, 8))
        elif name in (b"stco", b"co64"):
            track.chunks = max(track.chunks, min(_number(content, 4), length // 4))
        elif name == b"stsc":
            # 12 bytes for each run of chunks; the second number is the number of samples per chunk.
            track.samples_per_chunk = max(
                (_number(content, place) for place in range(12, len(content), 12)), default=0
            )
        elif name == b"stts":
            track.is_uncompressed = _number(content, 4) == 1 and _number(content, 12) == 1
        elif name == b"hdlr" and content[8:12] in (b"soun", b"vide"):
            track.is_sound = content[8:12] == b"soun"
        elif name == b"elst":
            track.edits = min(_number(content, 4), length // 12)
        elif name == b"trun":
            announced += _number(content, 4)
        elif name == b"iloc":  # of still images
            announced += int.from_bytes(content[6:10] if content[:1] >= b"\2" else content[6:8], "big")
    announced += track.entries()
    if announced > max(end, MIN_ENTRIES):
        raise TooManyBoxesError(f"an index of {announced:,} samples in {end:,} bytes")


def _number(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "big")


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start of the content and its length, of the boxes between two positions; the last box may end after the second."""
    while place + 8 <= end:
        file.seek(place)
        head = file.read(16)
        length, name, size = _number(head, 0), head[4:8], 8
        if length == 1:
            length, size = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:  # extends to the end
            length = end - place
        if length < size:
            return
        yield name, place + size, length - size
        place += length


def _walk(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Name and length of all boxes, nested boxes after their parents, and the first bytes of counting boxes (`stsc`: all)."""
    inner, was_compressed = [(file, _boxes(file, 0, end), end)], False
    while inner:
        file, boxes, end = inner[-1]
        name, place, length = next(boxes, (None, 0, 0))
        if name is None:
            inner.pop()
            continue
        length, content = min(length, end - place), b""
        if name in COUNTING:
            file.seek(place)
            content = file.read(min(length, MAX_INDEX_BYTES) if name == b"stsc" else min(length, 16))
        yield name, length, content
        if name == b"stsd":
            file.seek(place)
            content = file.read(min(length, MAX_DESCRIPTION_BYTES))
            for match in _NAMES.finditer(content):
                yield match[0], len(content) - match.end(), content[match.end() : match.end() + 16]
        elif name in CONTAINERS or name == b"meta":
            # FFmpeg looks for the first of the boxes in `meta` in steps of 4 bytes.
            start = place + _place_of_boxes(file, place, length) if name == b"meta" else place
            inner.append((file, _boxes(file, start, place + length), place + length))
        elif name == b"cmvd":
            if was_compressed:
                raise TooManyBoxesError("two compressed indexes")
            was_compressed = True
            index = _inflated(file, place + 4, length)
            inner.append((index, _boxes(index, 0, len(index.getbuffer())), len(index.getbuffer())))


def _place_of_boxes(file: BinaryIO, place: int, length: int) -> int:
    """Offset of the first box in `meta`."""
    file.seek(place)
    content = file.read(min(length, MAX_DESCRIPTION_BYTES))
    tags = (tag for tag in range(4, len(content) - 3, 4) if content[tag : tag + 4] == b"hdlr")
    return next(tags, 4) - 4


def _inflated(file: BinaryIO, place: int, length: int) -> io.BytesIO:
    """Decompresses an index; empty if it is damaged, which FFmpeg reports."""
    file.seek(place)
    inflate = zlib.decompressobj()
    try:
        index = inflate.decompress(file.read(min(length, MAX_INDEX_BYTES)), MAX_INDEX_BYTES)
    except zlib.error:
        return io.BytesIO()
    if inflate.unconsumed_tail:
        raise TooManyBoxesError(f"a compressed index of more than {MAX_INDEX_BYTES:,} bytes")
    return io.BytesIO(index)


__all__ = ["TooManyBoxesError", "check_index", "lacks_index"]
