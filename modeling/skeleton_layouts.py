"""Joint layouts: the name, the parent and the body part of each row of a skeleton.

Joint orders and bones: Kinect SDK 2.0 `JointType` as written in NTU RGB+D files (`kinect25`); the 20 joints of the first
Kinect in three orders, that of its SDK as in Northwestern-UCLA (`kinect20-sdk`), that of UTD-MHAD (`kinect20`) and that of
MSR Action3D (`msr20`); OpenNI's 15 joints as in SBU Kinect Interaction (`sbu15`); COCO keypoints as in UAV-Human (`coco17`);
the `body`, `foot`, `face`, `lefthand` and `righthand` keypoints of COCO-WholeBody (`wholebody133`); Halpe-FullBody as in
AlphaPose (`halpe26`); OpenPose BODY_25 (`openpose25`) and its COCO model, as in Kinetics-Skeleton (`openpose18`); MediaPipe
`PoseLandmark` (`blazepose33`); the 17 joints of Human3.6M in the order of VideoPose3D and MMPose, which networks that lift 2-D
poses to 3-D write (`h36m17`); the joints of SMPL (`smpl24`) and the first 22 of them, as in HumanML3D, with which those of
SMPL-H and SMPL-X begin (`smpl22`); LCR-Net as in Toyota Smarthome (`lcrnet13`) and the two joint sets derived from it: 15
joints (2s-AGCN for daily living) and 17 joints (UNIK).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from numbers import Integral
from typing import Any

import numpy as np

from .model_files import as_written

# Bodies with hands and face have 144 joints.
MAX_JOINTS = 1000


@dataclass(frozen=True)
class SkeletonLayout:
    """The joints of a type of skeleton. Indices are rows of the joint axis, from 0.

    Args:
        name: Name of the layout, by which a recording refers to it.
        joint_names: Names of the joints. "left" and "right" are the person's own.
        parents: Parent of each joint. The bones form a tree, whose root has the parent -1.
        parts: Partition of the joints into body parts: trunk (including the head), left_arm, right_arm, left_leg, right_leg.
        left_right: Pairs (left joint, right joint).
        pelvis, neck: Joints whose mean is the middle of the hips, and the point between the shoulders.
        left_hip, right_hip, left_shoulder, right_shoulder: Joints that determine the direction that a person faces.
        dimensions: Number of coordinates that carry information: 3 (metres), or 2 (pixels, z = 0).
        up: +1 if y grows upwards, -1 if it grows downwards, as in pixels.
        source: Name of the layout from which this one is derived, if any.
        derivation: With `source`, the source joints that are averaged for each joint; repeated joints count repeatedly.

    Raises:
        ValueError: If the fields contradict each other; the message names the layout and the field.
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    parts: dict[str, tuple[int, ...]] = field(hash=False)
    left_right: tuple[tuple[int, int], ...]
    pelvis: tuple[int, ...]
    neck: tuple[int, ...]
    left_hip: int
    right_hip: int
    left_shoulder: int
    right_shoulder: int
    dimensions: int = 3
    up: int = 1
    source: str | None = None
    derivation: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self):
        joints = range(self.num_joints)
        if len(set(self.joint_names)) != self.num_joints or not self.joint_names:
            self._refuse("joint_names", "must be distinct and not empty", self.joint_names)
        if self.num_joints > MAX_JOINTS:
            self._refuse("joint_names", f"must be at most {MAX_JOINTS}", self.num_joints)
        if len(self.parents) != self.num_joints or list(self.parents).count(-1) != 1:
            self._refuse("parents", f"must have {self.num_joints} entries, -1 exactly once", self.parents)
        for joint in joints:
            ancestor, steps = joint, 0
            while ancestor != -1:
                if ancestor not in joints or steps == self.num_joints:
                    self._refuse("parents", "must lead from every joint to the root", self.parents)
                ancestor, steps = self.parents[ancestor], steps + 1
        if sorted(joint for part in self.parts.values() for joint in part) != list(joints):
            self._refuse("parts", "must contain every joint exactly once", self.parts)
        paired = [joint for pair in self.left_right for joint in pair]
        if (
            len(set(paired)) != len(paired)
            or not set(paired) <= set(joints)
            or len(paired) != 2 * len(self.left_right)
        ):
            self._refuse("left_right", "must be pairs of distinct joints", self.left_right)
        for anchor in ("pelvis", "neck"):
            if not getattr(self, anchor) or not set(getattr(self, anchor)) <= set(joints):
                self._refuse(anchor, "must name joints of the layout", getattr(self, anchor))
        for anchor in ("left_hip", "right_hip", "left_shoulder", "right_shoulder"):
            if getattr(self, anchor) not in joints:
                self._refuse(anchor, "must be a joint of the layout", getattr(self, anchor))
        if self.dimensions not in (2, 3):
            self._refuse("dimensions", "must be 2 or 3", self.dimensions)
        if self.up not in (-1, 1):
            self._refuse("up", "must be +1 or -1", self.up)
        if (self.source is None) != (self.derivation is None):
            self._refuse("derivation", "and source must be set together", self.derivation)
        if self.derivation is not None and (len(self.derivation) != self.num_joints or not all(self.derivation)):
            self._refuse(
                "derivation", f"must name source joints for each of {self.num_joints} joints", self.derivation
            )

    def _refuse(self, field: str, rule: str, value: Any):
        _refuse(self.name, field, rule, value)

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """Pairs (child, parent) for every joint but the root, in the order of the joints."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent != -1)

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """Permutation that swaps left and right: row i of a mirrored skeleton is row `mirror[i]` of the original."""
        permutation = list(range(self.num_joints))
        for left, right in self.left_right:
            permutation[left], permutation[right] = right, left
        return tuple(permutation)

    def derive(self, keypoints: np.ndarray) -> np.ndarray:
        """Computes joints of this layout from joints of its `source` layout: (..., J_source, C) -> (..., J, C)."""
        if self.derivation is None:
            raise ValueError(f"skeleton layout {self.name!r} is not derived from another layout")
        joints = [keypoints[..., list(rows), :].mean(-2) for rows in self.derivation]
        return np.stack(joints, axis=-2).astype(keypoints.dtype, copy=False)

    def to_dict(self) -> dict[str, Any]:
        """The fields as values of JSON, with lists instead of tuples."""

        def plain(value):
            if isinstance(value, Mapping):
                return {key: plain(entry) for key, entry in value.items()}
            return [plain(entry) for entry in value] if isinstance(value, tuple) else value

        return plain(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SkeletonLayout":
        """Inverse of `to_dict`. Joints may also be given by name, and a single joint without a list. If pelvis, neck, hips and
        shoulders are missing, they are found by the names of the joints.

        Raises:
            ValueError: If a field is missing, unknown or invalid.
        """
        if not isinstance(values, Mapping):
            raise ValueError(
                f"skeleton layout: expected an object with {', '.join(_READERS)}, got {as_written(values)}"
            )
        layout = values.get("name")
        unknown = [name for name in values if name not in _READERS]
        if unknown:
            raise ValueError(f"skeleton layout {layout!r}: unknown field {unknown[0]!r}, known are {list(_READERS)}")
        fields, joint_names = {}, ()
        for name in sorted(values, key=list(_READERS).index):  # joint_names before the fields that use them
            try:
                fields[name] = _READERS[name](values[name], joint_names)
            except ValueError as error:
                _refuse(layout, name, str(error), values[name])
            joint_names = fields.get("joint_names", ())
        fields = _anchors(joint_names) | fields
        optional = ("dimensions", "up", "source", "derivation")
        missing = [repr(name) for name in _READERS if name not in fields and name not in optional]
        if missing:
            raise ValueError(f"skeleton layout {layout!r}: missing {', '.join(missing)}")
        return cls(**fields)


def _refuse(layout: Any, field: str, rule: str, value: Any):
    raise ValueError(f"skeleton layout {layout!r}: {field} {rule}, got {as_written(value)}")


def _read_text(value: Any, joint_names: Sequence[str]) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text")
    return value


def _read_list(value: Any) -> list:
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list")
    return list(value)


def _read_number(value: Any, joint_names: Sequence[str]) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError("must be an integer")
    return int(value)


def _read_joint(value: Any, joint_names: Sequence[str]) -> int:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value in joint_names:
        return joint_names.index(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    raise ValueError("must be a joint: its index, or its name in joint_names")


def _read_joints(value: Any, joint_names: Sequence[str]) -> tuple[int, ...]:
    return tuple(_read_joint(joint, joint_names) for joint in (value if isinstance(value, list | tuple) else [value]))


def _read_parents(value: Any, joint_names: Sequence[str]) -> tuple[int, ...]:
    return _read_joints(_read_list(value), joint_names)


def _read_parts(value: Any, joint_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for part in value):
        raise ValueError("must be an object of lists of joints")
    return {part: _read_joints(joints, joint_names) for part, joints in value.items()}


def _read_pairs(value: Any, joint_names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    pairs = tuple(_read_joints(pair, joint_names) for pair in _read_list(value))
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("must be pairs of distinct joints")
    return pairs


def _read_derivation(value: Any, joint_names: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
    """Indices of joints of another layout, whose names are not known here."""
    return None if value is None else tuple(_read_joints(joints, ()) for joints in _read_list(value))


# The fields of a layout, in order, and the function that reads each from JSON, given the joint names. Its `ValueError` says
# what the value must be.
_READERS: dict[str, Callable[[Any, Sequence[str]], Any]] = {
    "name": _read_text,
    "joint_names": lambda value, _: tuple(_read_text(name, ()) for name in _read_list(value)),
    "parents": _read_parents,
    "parts": _read_parts,
    "left_right": _read_pairs,
    "pelvis": _read_joints,
    "neck": _read_joints,
    "left_hip": _read_joint,
    "right_hip": _read_joint,
    "left_shoulder": _read_joint,
    "right_shoulder": _read_joint,
    "dimensions": _read_number,
    "up": _read_number,
    "source": lambda value, names: None if value is None else _read_text(value, names),
    "derivation": _read_derivation,
}


def _anchors(names: Sequence[str]) -> dict[str, Any]:
    """Pelvis, neck, hips and shoulders, as far as joint names tell. The pelvis is between the hips, the neck between the
    shoulders."""
    words = [name.lower() for name in names]

    def find(*together: str) -> int | None:
        return next((joint for joint, word in enumerate(words) if all(part in word for part in together)), None)

    anchors = {f"{side}_{part}": find(side, part) for part in ("hip", "shoulder") for side in ("left", "right")}
    for anchor, own, part in (
        ("pelvis", ("pelvis", "spine_base", "hip_center", "mid_hip"), "hip"),
        ("neck", ("spine_shoulder", "shoulder_center", "thorax", "neck"), "shoulder"),
    ):
        joint = next((joint for name in own if (joint := find(name)) is not None), None)
        both = [anchors[f"left_{part}"], anchors[f"right_{part}"]]
        anchors[anchor] = (joint,) if joint is not None else None if None in both else tuple(sorted(both))
    return {anchor: joint for anchor, joint in anchors.items() if joint is not None}


def _limb_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs (left, right) of joints whose names differ only in these words."""
    return tuple(
        (joint, names.index(name.replace("left_", "right_"))) for joint, name in enumerate(names) if "left_" in name
    )


# Words in the names of the joints of a limb. Legs come first: a `foot_index` is no finger.
_LIMBS = {
    "leg": ("hip", "knee", "ankle", "heel", "foot", "toe"),
    "arm": ("shoulder", "elbow", "wrist", "hand", "thumb", "finger", "index", "pinky"),
}


def _parts(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The body parts of joints whose names begin with their side; all other joints belong to the trunk."""
    parts: dict[str, list[int]] = {part: [] for part in ("trunk", "left_arm", "right_arm", "left_leg", "right_leg")}
    for joint, name in enumerate(names):
        side, _, rest = name.partition("_")
        limb = next((limb for limb, words in _LIMBS.items() if any(word in rest for word in words)), None)
        parts[f"{side}_{limb}" if side in ("left", "right") and limb else "trunk"].append(joint)
    return {part: tuple(joints) for part, joints in parts.items()}


def _named(name: str, joint_names: Sequence[str], parents: Sequence[int], **fields: Any) -> SkeletonLayout:
    """A layout whose body parts, pairs and anchors follow from the names of its joints."""
    names = tuple(joint_names)
    fields = {"parts": _parts(names), "left_right": _limb_pairs(names)} | _anchors(names) | fields
    return SkeletonLayout(name, names, tuple(parents), **fields)


_KINECT25 = (
    "spine_base", "spine_mid", "neck", "head",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_foot",
    "right_hip", "right_knee", "right_ankle", "right_foot",
    "spine_shoulder", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb",
)  # fmt: skip

_KINECT20 = (
    "head", "shoulder_center", "spine", "hip_center",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_foot",
    "right_hip", "right_knee", "right_ankle", "right_foot",
)  # fmt: skip

# The trunk from the hips up; in UTD-MHAD, it goes from the head down. The limbs have the same rows.
_KINECT20_SDK = (*_KINECT20[3::-1], *_KINECT20[4:])

_MSR20 = (
    "left_shoulder", "right_shoulder", "shoulder_center", "spine", "left_hip", "right_hip", "hip_center",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
    "left_knee", "right_knee", "left_ankle", "right_ankle", "left_foot", "right_foot", "head",
)  # fmt: skip

_SBU15 = (
    "head", "neck", "torso",
    "left_shoulder", "left_elbow", "left_hand", "right_shoulder", "right_elbow", "right_hand",
    "left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot",
)  # fmt: skip

_COCO17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
_COCO17_PARENTS = (-1, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)

_HALPE26 = (
    *_COCO17, "head", "neck", "mid_hip",
    "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel", "right_heel",
)  # fmt: skip

_OPENPOSE25 = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip

# BODY_25 without the hips' middle and the feet.
_OPENPOSE18 = (*_OPENPOSE25[:8], *_OPENPOSE25[9:19])

_BLAZEPOSE33 = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "left_mouth", "right_mouth",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_pinky", "right_pinky", "left_index", "right_index", "left_thumb", "right_thumb",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
_BLAZEPOSE33_PARENTS = (
    -1, 0, 1, 2, 0, 4, 5, 3, 6, 0, 0, 0, 0, 11, 12, 13, 14,
    15, 16, 15, 16, 15, 16, 11, 12, 23, 24, 25, 26, 27, 28, 27, 28,
)  # fmt: skip

_H36M17 = (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "spine", "thorax", "neck", "head",
    "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip

_SMPL24 = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hand", "right_hand",
)  # fmt: skip
_SMPL24_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

_LCRNET13 = (
    "right_ankle", "left_ankle", "right_knee", "left_knee", "right_hip", "left_hip",
    "right_wrist", "left_wrist", "right_elbow", "left_elbow", "right_shoulder", "left_shoulder", "head",
)  # fmt: skip
_LCRNET13_PARENTS = (2, 3, 4, 5, 10, 11, 8, 9, 10, 11, 12, 12, -1)

# The two derived layouts have the limbs of lcrnet13 in reversed order, and another trunk.
_LCRNET13_LIMBS = _LCRNET13[11::-1]
_LCRNET15 = ("head", *_LCRNET13_LIMBS, "neck", "hip_center")
_LCRNET17 = ("head", "nose", "neck", "chest", "hip_center", *_LCRNET13_LIMBS)

# COCO-WholeBody: the body, the feet, 68 points of the face, and 21 of each hand. The points of the face are those of iBUG's
# 300-W. A point on the right is named by its number, and that on the left by the number of its counterpart.
_FEET6 = (
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip
_FACE68_SIDES = (
    (*range(8), *range(17, 22), 31, 32, *range(36, 42), 48, 49, 50, 58, 59, 60, 61, 67),
    (*range(16, 8, -1), *range(26, 21, -1), 35, 34, 45, 44, 43, 42, 47, 46, 54, 53, 52, 56, 55, 64, 63, 65),
)
# Chains of neighbours from the nose (30) to the eyes, the eyebrows, the mouth and the jaw: the parent of each point.
_FACE68_PARENTS = (
    1, 2, 3, 4, 5, 6, 7, 8, 57, 8, 9, 10, 11, 12, 13, 14, 15,
    18, 19, 20, 21, 27, 27, 22, 23, 24, 25,
    28, 29, 30, -1, 32, 33, 30, 33, 34,
    37, 38, 39, 27, 39, 40, 27, 42, 43, 44, 47, 42,
    49, 50, 51, 33, 51, 52, 53, 56, 57, 66, 57, 58,
    61, 62, 51, 62, 63, 66, 62, 66,
)  # fmt: skip
_HAND21 = ("hand_root", *(f"{finger}{knuckle}" for finger in (
    "thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger") for knuckle in (1, 2, 3, 4)))  # fmt: skip


def _wholebody133() -> SkeletonLayout:
    face = [f"face{point}" for point in range(68)]
    for right, left in zip(*_FACE68_SIDES, strict=True):
        face[right], face[left] = f"right_face{right}", f"left_face{right}"
    hands = [f"{side}_{name}" for side in ("left", "right") for name in _HAND21]
    # A finger begins at the root of its hand, which is the wrist.
    left_hand = [
        9,
        *(91 if knuckle == 1 else 90 + 4 * finger + knuckle for finger in range(5) for knuckle in (1, 2, 3, 4)),
    ]
    right_hand = [10, *(joint + 21 for joint in left_hand[1:])]
    face_parents = (23 + parent if parent >= 0 else 0 for parent in _FACE68_PARENTS)
    parents = (*_COCO17_PARENTS, *[15] * 3, *[16] * 3, *face_parents)
    names = (*_COCO17, *_FEET6, *face, *hands)
    return _named("wholebody133", names, (*parents, *left_hand, *right_hand), dimensions=2, up=-1)


LAYOUTS: dict[str, SkeletonLayout] = {
    layout.name: layout
    for layout in (
        _named(
            "kinect25",
            _KINECT25,
            (-1, 0, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 1, 7, 7, 11, 11),
        ),
        _named("kinect20", _KINECT20, (1, 2, 3, -1, 1, 4, 5, 6, 1, 8, 9, 10, 3, 12, 13, 14, 3, 16, 17, 18)),
        _named("kinect20-sdk", _KINECT20_SDK, (-1, 0, 1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18)),
        _named("msr20", _MSR20, (2, 2, 3, 6, 6, 6, -1, 0, 1, 7, 8, 9, 10, 4, 5, 13, 14, 15, 16, 2)),
        # The torso is in the middle of the trunk; there is no joint between the hips.
        _named("sbu15", _SBU15, (1, 2, -1, 1, 3, 4, 1, 6, 7, 2, 9, 10, 2, 12, 13)),
        # The bone lists that circulate for these joints have cycles; this is the tree from nose to limbs.
        _named("coco17", _COCO17, _COCO17_PARENTS, dimensions=2, up=-1),
        _named(
            "halpe26",
            _HALPE26,
            (18, 0, 0, 1, 2, 18, 18, 5, 6, 7, 8, 19, 19, 11, 12, 13, 14, 18, 19, -1, 24, 25, 24, 25, 15, 16),
            dimensions=2,
            up=-1,
        ),
        _wholebody133(),
        _named(
            "openpose25",
            _OPENPOSE25,
            (1, 8, 1, 2, 3, 1, 5, 6, -1, 8, 9, 10, 8, 12, 13, 0, 0, 15, 16, 14, 19, 14, 11, 22, 11),
            dimensions=2,
            up=-1,
        ),
        _named(
            "openpose18",
            _OPENPOSE18,
            (1, -1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15),
            dimensions=2,
            up=-1,
        ),
        # World landmarks: metres from the middle of the hips, y down and z away from the camera.
        _named(
            "blazepose33",
            _BLAZEPOSE33,
            _BLAZEPOSE33_PARENTS,
            up=-1,
        ),
        # In metres in the axes of a camera, y down, as lifting networks write them; in Human3.6M's own files, z points up.
        _named("h36m17", _H36M17, (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15), up=-1),
        # In metres, y up as in HumanML3D; in AMASS, z points up. smpl22 leaves out the hands.
        _named("smpl24", _SMPL24, _SMPL24_PARENTS),
        _named("smpl22", _SMPL24[:22], _SMPL24_PARENTS[:22]),
        _named("lcrnet13", _LCRNET13, _LCRNET13_PARENTS, up=-1),
        # The same joints in pixels.
        _named("lcrnet13-2d", _LCRNET13, _LCRNET13_PARENTS, dimensions=2, up=-1),
        _named(
            "lcrnet15",
            _LCRNET15,
            (13, 13, 13, 1, 2, 3, 4, 14, 14, 7, 8, 9, 10, 14, -1),
            up=-1,
            source="lcrnet13",
            derivation=((12,), *((row,) for row in range(11, -1, -1)), (10, 11), (4, 5)),
        ),
        _named(
            "lcrnet17",
            _LCRNET17,
            (1, 2, 3, 4, -1, 2, 2, 5, 6, 7, 8, 4, 4, 11, 12, 13, 14),
            dimensions=2,
            up=-1,
            source="lcrnet13-2d",
            # The nose is the mean of head and neck, and the neck is the mean of the shoulders: the head counts twice.
            derivation=(
                (12,),
                (12, 12, 10, 11),
                (10, 11),
                (4, 5, 10, 11),
                (4, 5),
                *((row,) for row in range(11, -1, -1)),
            ),
        ),
    )
}


@lru_cache(maxsize=64)
def _parse_layout(text: str) -> SkeletonLayout:
    try:
        return SkeletonLayout.from_dict(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"skeleton layout: {text[:60]!r} is not JSON: {error}") from error


def get_layout(layout: str | Mapping[str, Any] | SkeletonLayout) -> SkeletonLayout:
    """A layout by its name, or from its description: a dict (see `SkeletonLayout.to_dict`), or the JSON text of it.

    A recording of a layout that is not among `LAYOUTS` stores the description, so that it can be read anywhere.

    Raises:
        ValueError: If there is no layout of that name (the message lists all names), or the description is invalid.
    """
    if isinstance(layout, SkeletonLayout):
        return layout
    if isinstance(layout, Mapping):
        return SkeletonLayout.from_dict(layout)
    if not isinstance(layout, str):
        raise ValueError(
            f"skeleton layout: expected the name or the description of a layout, got {as_written(layout)}"
        )
    if layout.lstrip().startswith("{"):
        return _parse_layout(layout)
    if layout not in LAYOUTS:
        raise ValueError(f"unknown skeleton layout {as_written(layout)}, known are {sorted(LAYOUTS)}")
    return LAYOUTS[layout]


__all__ = ["LAYOUTS", "SkeletonLayout", "get_layout"]
