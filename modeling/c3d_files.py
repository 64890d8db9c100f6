"""Reader of motion capture in C3D files (Coordinate 3D): markers on the skin, from which joints are computed.

A file has blocks of 512 bytes: a header; parameters in groups, of which POINT has the LABELS, the RATE and the UNITS of the
markers; and a frame after another, with x, y, z and a residual for each marker, and analogue samples, which are passed over.
Numbers are integers of 16 bits with a scale, or floats; in the order of Intel, DEC or SGI machines. Source: "The C3D File
Format User Guide" (Motion Lab Systems).

`read_c3d` knows the markers of Vicon's Plug-in Gait and of the CMU motion capture database by their names, and the joint
centres that Plug-in Gait computes (`LKJC`). Markers lie some centimetres beside the joints.
"""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .model_files import shortened
from .size_limits import MAX_BODIES
from .skeleton_files import SkeletonFileError, SkeletonRecording, check_size, checked_rate, read_content
from .skeleton_layouts import get_layout
from .upright import turned_upright

LAYOUT = "smpl22"
BLOCK = 512
# The byte after the place of the parameters in the header marks a C3D file.
MARK = 0x50
INTEL, DEC, SGI = 84, 85, 86
METRES = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "in": 0.0254, "inch": 0.0254, "inches": 0.0254}

# Joint of smpl22 → choices of markers, whose mean it is; the first choice that a file has counts. L is the side.
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
    "head": (("LFHD", "RFHD", "LBHD", "RBHD"), ("LFHD", "RFHD"), ("ARIEL",)),
}
# The front and the back of the pelvis.
_FRONT = (("LASI", "RASI"), ("LFWT", "RFWT"))
_BACK = (("LPSI", "RPSI"), ("LBWT", "RBWT"), ("SACR",))
# Hip centres from the middle of the front markers, in distances between them: outwards, forwards, upwards (Bell et al. 1990).
_HIP = (0.36, -0.19, -0.30)
_NEEDED = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")


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

    Names of markers may begin with that of a person, `Anna:LKNE`. A joint is NaN in frames in which one of its markers was not
    seen.

    Args:
        file: Path, or open file.
        up: The axis that points up in the file, as in `read_recording`. None is the one that the file states, or z.

    Raises:
        SkeletonFileError: If the file does not follow the format, the markers do not tell hips and shoulders, the units are
            unknown, or the recording is too large.
        OSError: If the file cannot be read.
    """
    path, data = read_content(file)
    markers = parse_c3d(path, data)
    if markers.units.lower() not in METRES:
        raise SkeletonFileError(path, None, f"POINT:UNITS {shortened(markers.units)!r}", f"one of {', '.join(METRES)}")
    people = _people(path, markers)
    keypoints = np.stack([_joints(of_person, markers.positions) for of_person in people], axis=1)
    check_size(path, *keypoints.shape[:3])
    keypoints = turned_upright(
        keypoints * METRES[markers.units.lower()], up or markers.vertical or "z", get_layout(LAYOUT)
    )
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        keypoints = keypoints.astype(np.float32)
    present = np.isfinite(keypoints).any((2, 3))
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
    scale, header_rate = _floats(data[12:16] + data[20:24], processor)
    parameters = _parameters(path, data, start, processor)

    def single(name: str, default: Any) -> Any:
        value = parameters.get(("POINT", name))
        return default if value is None or not np.size(value) else np.ravel(value)[0]

    labels = [
        label
        for name in ("LABELS", *(f"LABELS{place}" for place in range(2, 256)))
        for label in parameters.get(("POINT", name), ())
    ][:number]
    if len(labels) < number or not number:
        raise SkeletonFileError(
            path, None, f"{len(labels)} POINT:LABELS", f"names of the {number} markers of the header"
        )
    scale = float(single("SCALE", scale))
    is_float = scale < 0
    if not np.isfinite(scale) or scale == 0:
        raise SkeletonFileError(path, None, f"POINT:SCALE {scale:g}", "a number that is not 0")
    size = 4 if is_float else 2
    row = number * 4 + analogue
    begin = (int(single("DATA_START", data_block)) - 1) * BLOCK
    if not start < begin <= len(data):
        raise SkeletonFileError(
            path, None, f"data at byte {begin:,}", f"a place after the parameters, up to {len(data):,}"
        )
    frames = last - first + 1
    fields = [parameters.get(("TRIAL", f"ACTUAL_{name}_FIELD")) for name in ("START", "END")]
    if all(np.size(field) == 2 for field in fields):  # of long recordings, whose frames the header cannot count
        first, last = (int(low) % 0x10000 + (int(high) % 0x10000 << 16) for low, high in fields)
        frames = last - first + 1
    if frames < 1 or begin + frames * row * size > len(data):
        actual = f"{len(data) - begin:,} bytes of data"
        raise SkeletonFileError(path, None, actual, f"{frames:,} frames of {row * size:,} bytes")
    check_size(path, frames, 1, number)
    rate = checked_rate(path, float(single("RATE", header_rate)))
    content = data[begin : begin + frames * row * size]
    if is_float:
        table = _floats(content, processor).reshape(frames, row)
    else:
        table = np.frombuffer(content, np.dtype("i2").newbyteorder(order)).reshape(frames, row)
    points = table[:, : number * 4].reshape(frames, number, 4).astype(np.float64)
    positions = points[..., :3] if is_float else points[..., :3] * scale
    positions[points[..., 3] < 0] = np.nan
    vertical = str(single("Y_SCREEN", "")).strip().lower().removeprefix("+")
    units = str(single("UNITS", "")).strip()
    return Markers(
        labels, positions, rate, units, vertical if vertical.strip("-") in tuple("xyz") and vertical else None
    )


def _floats(data: bytes, processor: int) -> np.ndarray:
    """Floats of 32 bits, float64 (number,). Those of DEC have their halves exchanged, and are four times as large."""
    if processor == DEC:
        halves = np.frombuffer(data, "<u2").reshape(-1, 2)[:, ::-1]
        return np.ascontiguousarray(halves).view("<f4").ravel().astype(np.float64) / 4
    return np.frombuffer(data, ">f4" if processor == SGI else "<f4").astype(np.float64)


def _parameters(path: Path, data: bytes, start: int, processor: int) -> dict[tuple[str, str], Any]:
    """Group and name, in capitals, of each parameter → its values: a list of texts, or an array."""
    end = min(start + max(data[start + 2], 1) * BLOCK, len(data))
    order = ">" if processor == SGI else "<"
    names: dict[int, str] = {}
    found: list[tuple[int, str, Any]] = []
    position = start + 4

    def take(count: int) -> bytes:
        nonlocal position
        if position + count > end:
            raise SkeletonFileError(path, None, "parameters that end too early", f"{count} more bytes")
        position += count
        return data[position - count : position]

    while position + 2 <= end:
        length, group = struct.unpack("bb", take(2))
        if length == 0:
            break
        name = take(abs(length)).decode("latin-1").strip().upper()
        place = position
        (offset,) = struct.unpack(f"{order}h", take(2))
        if group < 0:
            names[-group] = name
        else:
            kind, dimensions = struct.unpack("bB", take(2))
            if kind not in (-1, 1, 2, 4) or dimensions > 7:
                actual = f"parameter {shortened(name)} of type {kind} and {dimensions} dimensions"
                raise SkeletonFileError(path, None, actual, "type -1, 1, 2 or 4, and at most 7 dimensions")
            shape = tuple(take(dimensions))
            content = take(abs(kind) * int(np.prod(shape, dtype=np.int64)))
            found.append((group, name, _values(content, kind, shape, processor)))
        if offset <= 0:
            break
        position = place + offset
    return {(names.get(group, ""), name): value for group, name, value in found}


def _values(content: bytes, kind: int, shape: tuple[int, ...], processor: int) -> Any:
    if kind == -1:
        width = shape[0] if shape else 1
        text = content.decode("utf-8", "replace") if width == len(content) else None
        if text is not None:
            return [text.strip(" \0")]
        pieces = [content[place : place + width] for place in range(0, len(content), width or 1)]
        return [piece.decode("utf-8", "replace").strip(" \0") for piece in pieces]
    if kind == 4:
        return _floats(content, processor)
    order = ">" if processor == SGI else "<"
    return np.frombuffer(content, np.dtype(f"i{kind}").newbyteorder(order))


def _people(path: Path, markers: Markers) -> list[dict[str, int]]:
    """For each person, the number of each marker by its name without the person."""
    people: dict[str, dict[str, int]] = {}
    for number, label in enumerate(markers.labels):
        person, _, name = label.rpartition(":")
        people.setdefault(person, {}).setdefault(name.strip().upper(), number)
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


def _chosen(choices: tuple[tuple[str, ...], ...], names: dict[str, int], side: str = "L") -> list[int]:
    """Numbers of the markers of the first choice that there is; none without."""
    for choice in choices:
        markers = [side + name[1:] if name[0] == "L" and side == "R" else name for name in choice]
        if all(marker in names for marker in markers):
            return [names[marker] for marker in markers]
    return []


def _missing(names: dict[str, int]) -> list[str]:
    has_pelvis = bool(_chosen(_FRONT, names) and _chosen(_BACK, names))
    shoulders = [_chosen(_LIMBS["shoulder"], names, side) for side in "LR"]
    found = {"left_hip": has_pelvis, "right_hip": has_pelvis}
    found |= {"left_shoulder": bool(shoulders[0]), "right_shoulder": bool(shoulders[1])}
    return [joint for joint in _NEEDED if not found[joint]]


def _joints(names: dict[str, int], positions: np.ndarray) -> np.ndarray:
    """Joints of smpl22 of a person, float64 (T, 22, 3), in the units and axes of the file; NaN if unknown."""
    layout = get_layout(LAYOUT)
    joints = np.full((len(positions), layout.num_joints, 3), np.nan)

    def put(joint: str, position: np.ndarray) -> None:
        joints[:, layout.joint_names.index(joint)] = position

    left, right = (positions[:, marker] for marker in _chosen(_FRONT, names))
    back = positions[:, _chosen(_BACK, names)].mean(1)
    middle, distance = (left + right) / 2, np.linalg.norm(right - left, axis=-1, keepdims=True)
    put("pelvis", (middle + back) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        outwards = (right - left) / distance
        forwards = middle - back
        forwards = forwards - (forwards * outwards).sum(-1, keepdims=True) * outwards
        forwards = forwards / np.linalg.norm(forwards, axis=-1, keepdims=True)
    upwards = np.cross(outwards, forwards)
    for side, sign in (("left", -1), ("right", 1)):
        offset = sign * _HIP[0] * outwards + _HIP[1] * forwards + _HIP[2] * upwards
        put(f"{side}_hip", middle + distance * offset)
        for joint, choices in _LIMBS.items():
            if markers := _chosen(choices, names, side[0].upper()):
                put(f"{side}_{joint}", positions[:, markers].mean(1))
    for joint, choices in _TRUNK.items():
        if markers := _chosen(choices, names):
            put(joint, positions[:, markers].mean(1))
    return joints


__all__ = ["Markers", "parse_c3d", "read_c3d"]
