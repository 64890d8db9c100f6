"""Reader of motion capture in C3D files (Coordinate 3D): markers on the skin, from which joints are computed.

A file has blocks of 512 bytes: a header; parameters in groups, of which POINT has the LABELS, the RATE and the UNITS of the
markers; and the frames, with x, y, z and a residual for each marker, and analogue samples, which are skipped. Numbers are
16-bit integers with a scale, or floats, in the byte order of Intel, DEC or SGI machines. Source: "The C3D File Format User
Guide" (Motion Lab Systems).

`read_c3d` knows the markers of Vicon's Plug-in Gait and of the CMU motion capture database by their names, and uses joint
centres named `LHJC`, `LKJC`, … where a file has them. Markers lie a few centimetres from the joint centres.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from .model_files import shortened
from .size_limits import MAX_BODIES
from .skeleton_files import SkeletonFileError, SkeletonRecording, check_size, checked_rate, read_content
from .skeleton_layouts import get_layout
from .upright import AXES, turned_upright

LAYOUT = "smpl22"
BLOCK = 512
# The byte after the place of the parameters in the header marks a C3D file.
MARK = 0x50
INTEL, DEC, SGI = 84, 85, 86
METRES = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "in": 0.0254, "inch": 0.0254, "inches": 0.0254}

# Joint of smpl22 → choices of markers, whose mean it is; in each frame, the first choice of which all markers are seen is used.
# L is the side.
_LIMBS = {
    "knee": (("LKJC",), ("LKNE", "LKNM"), ("LKNE",)),
    "ankle": (("LAJC",), ("LANK", "LANM"), ("LANK",)),
    "foot": (("LTOE",), ("LMT5",)),
    "shoulder": (("LSJC",), ("LSHO",)),
    "elbow": (("LEJC",), ("LELB", "LELM"), ("LELB",)),
    "wrist": (("LWJC",), ("LWRA", "LWRB"), ("LWRA",), ("LWRB",)),
}
_TRUNK = {
    "spine2": (("T10", "STRN"), ("T10",), ("STRN",)),
    "neck": (("C7", "CLAV"), ("C7",)),
    "head": (("LFHD", "RFHD", "LBHD", "RBHD"), ("LFHD", "RFHD"), ("LBHD", "RBHD"), ("ARIEL",)),
}
# The front and the back of the pelvis.
_FRONT = (("LASI", "RASI"), ("LFWT", "RFWT"))
_BACK = (("LPSI", "RPSI"), ("LBWT", "RBWT"), ("SACR",))
_HIP_CENTRE = (("LHJC",),)
# Hip centres from the middle of the front markers, in distances between them: outwards, forwards, upwards (Bell et al. 1990,
# for markers on the iliac spines; the waist markers of CMU, which lie near them, are taken for these).
_HIP = (0.36, -0.19, -0.30)
_NEEDED = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
# What a 16-bit count of frames holds if there are more.
_MANY = 0xFFFF


class Markers(NamedTuple):
    """The content of a C3D file.

    Attributes:
        labels: Names of the markers.
        positions: float64 (T, number of markers, 3), in the units of the file; NaN where a marker was not seen.
        rate: Frames per second.
        units: As stated, such as "mm", or "".
        vertical: The axis that points up as stated by POINT:Y_SCREEN, such as "z", or None.
    """

    labels: list[str]
    positions: np.ndarray
    rate: float
    units: str
    vertical: str | None


def read_c3d(file: str | os.PathLike | BinaryIO, *, up: str | None = None) -> SkeletonRecording:
    """Reads a C3D file: people in metres, y up, layout smpl22, at the rate of the file.

    Names of markers may begin with that of a person, `Anna:LKNE`. A joint is NaN in frames in which its markers are not seen.

    Args:
        file: Path, or open file.
        up: The axis that points up in the file, as in `read_recording`. None is the one that the file states, or z.

    Raises:
        SkeletonFileError: If the file does not follow the format, markers of the hips or shoulders are missing, the units are
            unknown, or the recording is too large.
        OSError: If the file cannot be read.
    """
    path, data = read_content(file)
    markers = parse_c3d(path, data)
    metres = METRES.get(markers.units.lower())
    if metres is None:
        raise SkeletonFileError(path, None, f"POINT:UNITS {shortened(markers.units)!r}", f"one of {', '.join(METRES)}")
    people = _people(path, markers)
    check_size(path, len(markers.positions), len(people), get_layout(LAYOUT).num_joints)
    keypoints = np.stack([_joints(names, markers.positions) for names in people], axis=1) * metres
    keypoints = turned_upright(keypoints, up or markers.vertical or "z", get_layout(LAYOUT))
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        keypoints = keypoints.astype(np.float32)
    present = np.isfinite(keypoints).any((2, 3))
    keypoints[~present] = 0
    ids = np.arange(len(people), dtype=np.int64)
    return SkeletonRecording(keypoints, present, ids, LAYOUT, markers.rate, path.name)


def parse_c3d(path: Path, data: bytes) -> Markers:
    """The markers of a C3D file.

    Raises:
        SkeletonFileError: If the content does not follow the format, or is cut off.
    """
    if len(data) < 2 * BLOCK or data[1] != MARK or data[0] < 2:
        actual = f"{len(data):,} bytes that begin with {data[:2].hex(' ')}"
        raise SkeletonFileError(path, None, actual, f"a C3D file, whose second byte is {MARK:x}")
    start = (data[0] - 1) * BLOCK
    if len(data) < start + BLOCK:
        raise SkeletonFileError(path, None, f"the end of the file after {len(data):,} bytes", "parameters")
    processor = data[start + 3]
    if processor not in (INTEL, DEC, SGI):
        raise SkeletonFileError(path, None, f"processor {processor}", "84 (Intel), 85 (DEC) or 86 (SGI)")
    order = ">" if processor == SGI else "<"
    number, analogue, first, last = struct.unpack_from(f"{order}4H", data, 2)
    (data_block,) = struct.unpack_from(f"{order}H", data, 16)
    header_scale, header_rate = _floats(np.frombuffer(data[12:16] + data[20:24], "u1").reshape(2, 4), processor)
    if not number:
        raise SkeletonFileError(path, None, "no markers in the header", "at least one")
    parameters = _Parameters(path, data, start, (data_block - 1) * BLOCK, processor)
    labels = [label for name in _label_names() for label in parameters.texts("POINT", name)][:number]
    labels += [""] * (number - len(labels))  # the last markers may have no name
    scale = parameters.number("POINT", "SCALE", header_scale)
    if scale == 0:
        raise SkeletonFileError(path, None, "POINT:SCALE 0", "a number that is not 0")
    size = 2 if scale > 0 else 4
    row = (number * 4 + analogue) * size
    begin = (int(parameters.number("POINT", "DATA_START", data_block)) - 1) * BLOCK
    if not start < begin <= len(data):
        expected = f"a place after the parameters, up to {len(data):,}"
        raise SkeletonFileError(path, None, f"data at byte {begin:,}", expected)
    frames = _num_frames(parameters, last - first + 1 if last != _MANY else _MANY)
    # The last block may be filled up.
    if frames < 1 or not frames * row <= len(data) - begin < frames * row + max(row, BLOCK):
        actual = f"{len(data) - begin:,} bytes of data"
        raise SkeletonFileError(path, None, actual, f"{frames:,} frames of {row:,} bytes")
    check_size(path, frames, 1, number)
    rate = checked_rate(path, parameters.number("POINT", "RATE", header_rate))
    table = np.frombuffer(data, "u1", frames * row, begin).reshape(frames, row // size, size)[:, : number * 4]
    if scale > 0:
        points = np.ascontiguousarray(table).view(f"{order}i2").astype(np.float64)
    else:
        points = _floats(table, processor)
    points = points.reshape(frames, number, 4)
    positions = points[..., :3] * (scale if scale > 0 else 1)
    positions[points[..., 3] < 0] = np.nan
    (vertical,) = parameters.texts("POINT", "Y_SCREEN")[:1] or [""]
    vertical = vertical.lower().removeprefix("+")
    (units,) = parameters.texts("POINT", "UNITS")[:1] or [""]
    return Markers(labels, positions, rate, units, vertical if vertical in AXES else None)


def _label_names() -> list[str]:
    """LABELS, and LABELS2, … of files with more than 255 markers."""
    return ["LABELS", *(f"LABELS{place}" for place in range(2, 256))]


def _num_frames(parameters: "_Parameters", of_header: int) -> int:
    """The number of frames: of POINT:FRAMES, or of the header; if 16 bits cannot hold it, of TRIAL or POINT:LONG_FRAMES."""
    frames = int(parameters.number("POINT", "FRAMES", of_header))
    frames = frames % 0x10000 if frames < 0 else frames  # an integer without a sign
    if frames != _MANY:
        return frames
    fields = [parameters.numbers("TRIAL", f"ACTUAL_{name}_FIELD") for name in ("START", "END")]
    if all(len(field) == 2 for field in fields):  # a low and a high word each
        first, last = (int(low) % 0x10000 + (int(high) % 0x10000 << 16) for low, high in fields)
        return last - first + 1
    return int(parameters.number("POINT", "LONG_FRAMES", frames))


def _floats(data: np.ndarray, processor: int) -> np.ndarray:
    """32-bit floats, uint8 (..., 4) → float64 (...). Those of DEC have their halves swapped, and are four times as large."""
    if processor == DEC:
        data = np.ascontiguousarray(data).view("<u2")[..., ::-1]
        return np.ascontiguousarray(data).view("<f4")[..., 0].astype(np.float64) / 4
    return np.ascontiguousarray(data).view(">f4" if processor == SGI else "<f4")[..., 0].astype(np.float64)


class _Parameters:
    """The parameters of a file, by group and name.

    Args:
        path: Of the file, for errors.
        data: Content of the file.
        start: Byte at which the parameters begin.
        data_start: Byte at which the frames begin, by the header; more parameters than stated end there.
        processor: Of the machine.
    """

    def __init__(self, path: Path, data: bytes, start: int, data_start: int, processor: int):
        self._path, self._data, self._processor = path, data, processor
        self._order = ">" if processor == SGI else "<"
        self._end = min(max(start + data[start + 2] * BLOCK, data_start, start + BLOCK), len(data))
        self._position = start + 4
        groups: dict[int, str] = {}
        values: list[tuple[int, str, tuple[int, tuple[int, ...], bytes]]] = []
        while self._position + 2 <= self._end:
            length, group = struct.unpack("bb", self._take(2))
            if length == 0:
                break
            name = self._take(abs(length)).decode("latin-1").strip().upper()
            place = self._position
            (offset,) = struct.unpack(f"{self._order}h", self._take(2))
            if group < 0:
                groups[-group] = name
            else:
                values.append((group, name, self._value(name)))
            if offset <= 0:
                break
            if place + offset < self._position:
                actual = f"a parameter that begins before {shortened(name)} ends"
                raise SkeletonFileError(path, None, actual, "parameters one after the other")
            self._position = place + offset
        self._values = {(groups.get(group, ""), name): value for group, name, value in values}

    def texts(self, group: str, name: str) -> list[str]:
        """The texts of a parameter; none without it."""
        kind, shape, content = self._values.get((group, name), (-1, (), b""))
        if kind != -1:
            raise SkeletonFileError(self._path, None, f"{group}:{name} with numbers", "text")
        width = max(shape[0] if shape else 1, 1)
        pieces = [content[place : place + width] for place in range(0, len(content), width)]
        return [piece.decode("utf-8", "replace").strip(" \0") for piece in pieces]

    def numbers(self, group: str, name: str) -> np.ndarray:
        """The numbers of a parameter, float64 (number,); none without it."""
        kind, _, content = self._values.get((group, name), (4, (), b""))
        if kind == -1:
            raise SkeletonFileError(self._path, None, f"{group}:{name} with text", "numbers")
        data = np.frombuffer(content, "u1").reshape(-1, kind)
        if kind == 4:
            numbers = _floats(data, self._processor)
        else:
            numbers = data.view(f"{self._order}i{kind}")[:, 0].astype(np.float64)
        if not np.isfinite(numbers).all():
            raise SkeletonFileError(self._path, None, f"{group}:{name} {numbers.tolist()[:3]}", "finite numbers")
        return numbers

    def number(self, group: str, name: str, default: float) -> float:
        """The first number of a parameter, or a default, which must be finite, too."""
        values = self.numbers(group, name)
        value = float(values[0] if len(values) else default)
        if not np.isfinite(value):
            raise SkeletonFileError(self._path, None, f"{value} for {group}:{name} in the header", "a finite number")
        return value

    def _take(self, count: int) -> bytes:
        if self._position + count > self._end:
            raise SkeletonFileError(
                self._path, None, "parameters that are cut off", f"{count} more bytes from byte {self._position:,}"
            )
        self._position += count
        return self._data[self._position - count : self._position]

    def _value(self, name: str) -> tuple[int, tuple[int, ...], bytes]:
        """Type, dimensions and content of a parameter."""
        kind, dimensions = struct.unpack("bB", self._take(2))
        if kind not in (-1, 1, 2, 4) or dimensions > 7:
            actual = f"parameter {shortened(name)} of type {kind} and {dimensions} dimensions"
            raise SkeletonFileError(self._path, None, actual, "type -1, 1, 2 or 4, and at most 7 dimensions")
        shape = tuple(self._take(dimensions))
        return kind, shape, self._take(abs(kind) * int(np.prod(shape, dtype=np.int64)))


def _people(path: Path, markers: Markers) -> list[dict[str, int]]:
    """For each person, the index of each marker by its name without the person. Markers that are never seen are left out."""
    people: dict[str, dict[str, int]] = {}
    seen = np.isfinite(markers.positions).all(-1).any(0)
    for number, label in enumerate(markers.labels):
        person, _, name = label.rpartition(":")
        names = people.setdefault(person, {})
        if seen[number]:
            names.setdefault(name.strip().upper(), number)
    complete = [names for names in people.values() if not _missing(names)]
    if not complete:
        missing = min((_missing(names) for names in people.values()), key=len)
        actual = f"no markers for {', '.join(missing)} among {shortened(', '.join(markers.labels), 200)}"
        raise SkeletonFileError(
            path, None, actual, "markers of Plug-in Gait or CMU: LASI, RASI, LPSI, RPSI or SACR, LSHO, RSHO, LKNE, …"
        )
    if len(complete) > MAX_BODIES:
        raise SkeletonFileError(path, None, f"{len(complete)} people", f"at most {MAX_BODIES}")
    return complete


def _available(choices: tuple[tuple[str, ...], ...], names: dict[str, int], side: str = "L") -> list[list[int]]:
    """Indices of the markers of each choice that the person has."""
    sided = [[side + name[1:] if name[0] == "L" and side == "R" else name for name in choice] for choice in choices]
    return [[names[name] for name in choice] for choice in sided if all(name in names for name in choice)]


def _missing(names: dict[str, int]) -> list[str]:
    """Needed joints for which a person has no markers."""
    has_pelvis = bool(_available(_FRONT, names) and _available(_BACK, names))
    has_shoulders = [bool(_available(_LIMBS["shoulder"], names, side)) for side in "LR"]
    is_there = [has_pelvis, has_pelvis, *has_shoulders]
    return [joint for joint, there in zip(_NEEDED, is_there, strict=True) if not there]


def _mean(positions: np.ndarray, choices: list[list[int]]) -> np.ndarray:
    """In each frame, the mean of the markers of the first choice of which all are seen, float64 (T, 3); else NaN."""
    result = np.full((len(positions), 3), np.nan)
    for markers in choices:
        mean = positions[:, markers].mean(1)
        result = np.where(np.isnan(result), mean, result)
    return result


def _joints(names: dict[str, int], positions: np.ndarray) -> np.ndarray:
    """Joints of smpl22 of a person, float64 (T, 22, 3), in the units and axes of the file; NaN if unknown."""
    layout = get_layout(LAYOUT)
    joints = np.full((len(positions), layout.num_joints, 3), np.nan)

    def put(joint: str, position: np.ndarray) -> None:
        joints[:, layout.joint_names.index(joint)] = position

    left, right = (positions[:, marker] for marker in _available(_FRONT, names)[0])
    back = _mean(positions, _available(_BACK, names))
    middle, distance = (left + right) / 2, np.linalg.norm(right - left, axis=-1, keepdims=True)
    put("pelvis", (middle + back) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        outwards = (right - left) / distance
        forwards = middle - back
        forwards = forwards - (forwards * outwards).sum(-1, keepdims=True) * outwards
        forwards = forwards / np.linalg.norm(forwards, axis=-1, keepdims=True)
    upwards = np.cross(outwards, forwards)
    for side, sign in (("left", -1), ("right", 1)):
        letter = side[0].upper()
        centre = _mean(positions, _available(_HIP_CENTRE, names, letter))
        regressed = middle + distance * (sign * _HIP[0] * outwards + _HIP[1] * forwards + _HIP[2] * upwards)
        put(f"{side}_hip", np.where(np.isnan(centre), regressed, centre))
        for joint, choices in _LIMBS.items():
            put(f"{side}_{joint}", _mean(positions, _available(choices, names, letter)))
    for joint, choices in _TRUNK.items():
        put(joint, _mean(positions, _available(choices, names)))
    return joints


__all__ = ["Markers", "parse_c3d", "read_c3d"]
