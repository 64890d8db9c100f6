"""Reader of motion capture in BVH files (Biovision Hierarchy): bones with rotations, from which the joints are computed.

    HIERARCHY
    ROOT Hips { OFFSET 0 0 0  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
        JOINT LeftUpLeg { OFFSET 9.1 0 0  CHANNELS 3 Zrotation Xrotation Yrotation … End Site { OFFSET 0 -5 0 } } … }
    MOTION
    Frames: 120
    Frame Time: 0.0333333
    0.1 90.2 …                  (a line per frame, with the numbers of all channels)

Source: Meredith and Maddock, "Motion Capture File Formats Explained" (2001). Rotations are in degrees and are applied in the
order of the channels from left to right; positions replace the offset, as in Blender. Bones begin at joints: `LeftForeArm`
begins at the elbow. `read_bvh` chooses the 22 joints of SMPL by the names that Mixamo, MotionBuilder, the CMU files of cgspeed,
Rokoko, Xsens, 3ds Max and Unreal give their bones. All other bones are only passed through.
"""

import io
import math
import os
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from .model_files import shortened
from .size_limits import MAX_LINE_BYTES, MAX_TEXT_BYTES
from .skeleton_files import SkeletonFileError, SkeletonRecording, check_size, checked_rate, read_content
from .skeleton_layouts import MAX_JOINTS, get_layout

LAYOUT = "smpl22"
# Joint of a limb → names of the bones that begin there, without their side, in lower case and without separators. The first
# name that a file has counts, unless another joint took it: "foot" is the ankle of files that do not have an "ankle", and
# "shoulder" the collar bone of files that have an "arm".
_LIMBS = {
    "hip": ("upleg", "upperleg", "thigh", "hip"),
    "knee": ("knee", "leg", "lowerleg", "shin", "calf"),
    "ankle": ("ankle", "foot"),
    "foot": ("toebase", "toe", "toe0", "toes", "ball", "forefoot", "foot"),
    "shoulder": ("arm", "upperarm", "uparm", "shldr", "shoulder"),
    "elbow": ("elbow", "forearm", "lowerarm", "lowarm"),
    "wrist": ("wrist", "hand"),
    "collar": ("collar", "clavicle", "clav", "shoulder"),
}
_TRUNK = {"pelvis": ("hips", "pelvis", "hip", "root"), "neck": ("neck", "neck1", "neck01"), "head": ("head",)}
_NEEDED = ("pelvis", "left_hip", "right_hip", "left_shoulder", "right_shoulder")
_SIDE = re.compile(r"([Ll]eft|LEFT|[Rr]ight|RIGHT)|(?:^|(?<=[_. -]))([lrLR])(?=[A-Z_. -])|[_. -]([lrLR])$")
_PREFIX = re.compile(r"^bip\d+(?=.)")
_CHANNELS = {f"{axis}{kind}": (kind, number) for kind in ("position", "rotation") for number, axis in enumerate("xyz")}
# Maximum number of numbers in the motion, and of bones times frames that are computed at a time.
_MAX_NUMBERS, _BLOCK = MAX_TEXT_BYTES // 8, 1 << 20


class Bone(NamedTuple):
    """A bone: its name, parent, the offset of its joint from that of the parent, and its channels in order."""

    name: str
    parent: int
    offset: tuple[float, float, float]
    channels: tuple[tuple[str, int], ...]


def read_bvh(file: str | os.PathLike | BinaryIO) -> SkeletonRecording:
    """Reads a BVH file: a person in the units of the file (often centimetres), layout smpl22, at the rate of the file.

    The joints between pelvis and neck are spread over the three joints of the spine. Joints that the hierarchy lacks are NaN.

    Args:
        file: Path, or open file.

    Raises:
        SkeletonFileError: If the hierarchy or the motion does not follow the format, a number is missing or not finite, the
            names of the bones do not tell pelvis, hips and shoulders, or the recording is too large.
        OSError: If the file cannot be read.
    """
    path, data = read_content(file, MAX_TEXT_BYTES)
    bones, rate, motion = _parse(path, data)
    rows = _smpl_joints(path, bones)
    keypoints = np.empty((len(motion), 1, len(rows), 3), np.float32)
    step = max(1, _BLOCK // len(bones))
    for start in range(0, len(motion), step):
        joints = bone_positions(bones, motion[start : start + step])
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
            keypoints[start : start + step, 0] = joints[:, [max(row, 0) for row in rows]]
    keypoints[:, :, [row < 0 for row in rows]] = np.nan
    present = np.ones((len(keypoints), 1), bool)
    return SkeletonRecording(keypoints, present, np.zeros(1, np.int64), LAYOUT, rate, path.name)


def bone_positions(bones: Sequence[Bone], motion: np.ndarray) -> np.ndarray:
    """Forward kinematics: positions of the joints at which the bones begin.

    Args:
        bones: The bones, parents first.
        motion: Numbers of the channels, (T, number of channels), rotations in degrees.

    Returns:
        float64 (T, number of bones, 3).
    """
    positions = np.empty((len(motion), len(bones), 3))
    rotations: list[np.ndarray] = []
    start = 0
    for number, bone in enumerate(bones):
        offset = np.tile(bone.offset, (len(motion), 1))
        rotation = np.broadcast_to(np.eye(3), (len(motion), 3, 3))
        for kind, axis in bone.channels:
            if kind == "position":
                offset[:, axis] = motion[:, start]
            else:
                rotation = rotation @ _rotation(axis, np.deg2rad(motion[:, start]))
            start += 1
        if bone.parent >= 0:
            parent = rotations[bone.parent]
            offset = positions[:, bone.parent] + (parent @ offset[..., None])[..., 0]
            rotation = parent @ rotation
        positions[:, number] = offset
        rotations.append(rotation)
    return positions


def _rotation(axis: int, angles: np.ndarray) -> np.ndarray:
    """Rotation matrices (T, 3, 3) about a coordinate axis, by angles (T,) in radians."""
    matrices = np.tile(np.eye(3), (len(angles), 1, 1))
    one, other = (axis + 1) % 3, (axis + 2) % 3
    matrices[:, one, one] = matrices[:, other, other] = np.cos(angles)
    matrices[:, other, one] = np.sin(angles)
    matrices[:, one, other] = -matrices[:, other, one]
    return matrices


def _parse(path: Path, data: bytes) -> tuple[list[Bone], float, np.ndarray]:
    """The bones, the frames per second, and the motion (T, number of channels)."""
    head, keyword, body = data.partition(b"MOTION")
    if not keyword or not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"HIERARCHY"):
        raise SkeletonFileError(path, None, "no HIERARCHY followed by MOTION", "a BVH file")
    if len(head) > MAX_LINE_BYTES:
        raise SkeletonFileError(path, None, f"a hierarchy of {len(head):,} bytes", f"at most {MAX_JOINTS} bones")
    bones = _parse_hierarchy(path, head.decode("utf-8", "backslashreplace").split()[1:])
    settings = dict.fromkeys((b"frames", b"frame time"), math.nan)
    numbers, width, frames = array("d"), sum(len(bone.channels) for bone in bones), 0
    first = head.count(b"\n") + 1
    for place, line in enumerate(io.BytesIO(body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")), start=first):
        if len(line) > MAX_LINE_BYTES:
            raise SkeletonFileError(path, place, f"a line of {len(line):,} bytes", f"at most {MAX_LINE_BYTES:,}")
        name, colon, value = line.partition(b":")
        name, row = name.strip().lower(), line.split()
        if colon and name not in settings:
            actual = shortened(name.decode("ascii", "backslashreplace"))
            raise SkeletonFileError(path, place, f"the setting {actual}", "Frames or Frame Time")
        if colon:
            settings[name] = _finite_number(path, value.strip().decode("ascii", "backslashreplace"), place)
        elif row and len(row) != width:
            raise SkeletonFileError(path, place, f"{len(row)} numbers", f"the {width} numbers of the channels")
        elif row:
            numbers.extend([_finite_number(path, token.decode("ascii", "backslashreplace"), place) for token in row])
            frames += 1
            check_size(path, frames, 1, len(bones))
            if len(numbers) > _MAX_NUMBERS:
                raise SkeletonFileError(path, place, f"{len(numbers):,} numbers so far", f"at most {_MAX_NUMBERS:,}")
    if not frames or settings[b"frames"] != frames:
        stated = "their number" if math.isnan(settings[b"frames"]) else f"{settings[b'frames']:g}"
        expected = f"Frames: {stated}, and a line for each of them"
        raise SkeletonFileError(path, None, f"{frames} lines of motion", expected)
    seconds = settings[b"frame time"]
    if not seconds > 0:
        actual = "none" if math.isnan(seconds) else f"Frame Time {seconds:g}"
        raise SkeletonFileError(path, None, actual, "a positive Frame Time in seconds")
    return bones, checked_rate(path, 1 / seconds), np.frombuffer(numbers).reshape(frames, width)


def _parse_hierarchy(path: Path, tokens: list[str]) -> list[Bone]:
    bones: list[Bone] = []
    open_bones: list[int] = []  # -1 is an end site, whose offset is not needed
    position = 0

    def take(count: int, what: str) -> list[str]:
        nonlocal position
        taken = tokens[position : position + count]
        if len(taken) < count:
            raise SkeletonFileError(path, None, "the end of the hierarchy", what)
        position += count
        return taken

    while position < len(tokens):
        (keyword,) = take(1, "a keyword")
        inside = open_bones[-1] if open_bones else None
        if keyword in ("ROOT", "JOINT") and (inside is None) == (keyword == "ROOT") and inside != -1:
            end = next((place for place in range(position, len(tokens)) if tokens[place] == "{"), len(tokens))
            name = " ".join(take(end - position + 1, "{ after the name of a bone")[:-1])
            if bones and keyword == "ROOT":
                raise SkeletonFileError(path, None, "a second ROOT", "a single person: split the file")
            bones.append(Bone(name, -1 if inside is None else inside, (0.0, 0.0, 0.0), ()))
            open_bones.append(len(bones) - 1)
            if len(bones) > MAX_JOINTS:
                raise SkeletonFileError(path, None, f"more than {MAX_JOINTS} bones", f"at most {MAX_JOINTS} bones")
        elif keyword == "End" and inside is not None and inside >= 0:
            take(2, "Site {")
            open_bones.append(-1)
        elif keyword == "OFFSET" and inside is not None:
            offset = [_finite_number(path, token, None) for token in take(3, "three numbers after OFFSET")]
            if inside >= 0:
                bones[inside] = bones[inside]._replace(offset=tuple(offset))
        elif keyword == "CHANNELS" and inside is not None and inside >= 0:
            (count,) = take(1, "the number of CHANNELS")
            names = take(int(count) if count in list("0123456") else 7, "up to 6 CHANNELS")
            unknown = [name for name in names if name.lower() not in _CHANNELS]
            if unknown:
                raise SkeletonFileError(
                    path, None, f"the channel {shortened(unknown[0])}", f"one of {', '.join(_CHANNELS)}"
                )
            bones[inside] = bones[inside]._replace(channels=tuple(_CHANNELS[name.lower()] for name in names))
        elif keyword == "}" and open_bones:
            open_bones.pop()
        else:
            raise SkeletonFileError(
                path, None, f"{shortened(keyword)} in the hierarchy", "ROOT, JOINT, End Site, OFFSET or CHANNELS"
            )
    if open_bones or not bones:
        raise SkeletonFileError(
            path, None, f"{len(open_bones)} open braces" if bones else "no ROOT", "a complete hierarchy"
        )
    return bones


def _finite_number(path: Path, token: str, line: int | None) -> float:
    """The number that a token is; `line` is its line for the error."""
    try:
        value = float(token) if "_" not in token else math.nan  # underscores between digits are Python's syntax
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SkeletonFileError(path, line, repr(token[:40]), "a finite number")
    return value


def _smpl_joints(path: Path, bones: Sequence[Bone]) -> list[int]:
    """The bone of each joint of smpl22, -1 for a joint that there is not."""
    by_name: dict[tuple[str, str], int] = {}
    for number, bone in enumerate(bones):
        by_name.setdefault(_side_and_name(bone.name), number)

    def find(names: Sequence[str], side: str = "") -> int:
        return next((by_name[side, name] for name in names if (side, name) in by_name), -1)

    joints = {joint: find(names) for joint, names in _TRUNK.items()}
    for side in ("left", "right"):
        for joint, names in _LIMBS.items():
            joints[f"{side}_{joint}"] = find(
                [name for name in names if by_name.get((side, name)) not in joints.values()], side
            )
    missing = [name for name in _NEEDED if joints[name] < 0]
    if missing:
        actual = f"no bone for {', '.join(missing)} among {shortened(', '.join(bone.name for bone in bones), 200)}"
        raise SkeletonFileError(
            path, None, actual, "names of bones as of Mixamo, MotionBuilder or CMU, such as LeftUpLeg"
        )
    # From the neck, or from a shoulder if there is none, down to the pelvis.
    spine, bone = [], bones[joints["neck"] if joints["neck"] >= 0 else joints["left_shoulder"]].parent
    while bone >= 0 and bone != joints["pelvis"]:
        spine.insert(0, bone)
        bone = bones[bone].parent
    spine = [bone for bone in spine if _side_and_name(bones[bone].name)[0] == ""]
    if len(spine) > 3:
        spine = [spine[0], spine[len(spine) // 2], spine[-1]]
    names = {0: (), 1: ("spine2",), 2: ("spine1", "spine3"), 3: ("spine1", "spine2", "spine3")}[len(spine)]
    joints |= dict(zip(names, spine, strict=True))
    return [joints.get(name, -1) for name in get_layout(LAYOUT).joint_names]


def _side_and_name(name: str) -> tuple[str, str]:
    """Side of a bone, or "", and its name without its side, a prefix such as "mixamorig:", separators and capitals."""
    name = name.rpartition(":")[2]
    match = _SIDE.search(name)
    side = next((group for group in match.groups() if group), "")[0].lower() if match else ""
    rest = re.sub(r"[\W_]", "", _SIDE.sub("", name, count=1)).lower()
    return {"l": "left", "r": "right"}.get(side, ""), _PREFIX.sub("", rest)


__all__ = ["Bone", "bone_positions", "read_bvh"]
