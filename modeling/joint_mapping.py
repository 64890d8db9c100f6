"""Reads the joints of one layout as those of another, so that a model of one kind of skeleton reads recordings of another.

Every joint of the target is a weighted mean of joints of the source, found by the names of the joints and by the anchors of
the layouts: a joint of the same name; the hip centre between the hips, and the shoulder centre between the shoulders; spine and
neck at their usual height between hip centre, shoulder centre and head; the head between the ears, between the eyes, or at the
nose, and the nose at the head; a foot at its big toe, and a toe at its foot; a hand between the wrist and the knuckles of the
index and the little finger. All other joints are missing: a wrist alone does not tell where the hand is.

Features have a place for every joint of the model. `placement` puts a joint that was never measured evenly between its
neighbours, or in line with the bone above it. This was chosen on training subjects of UTD-MHAD, by a classifier (kernel ridge)
that was trained on complete recordings of other people. With a fifth of the joints missing, its accuracy was 88 %, and 90 %
with all joints; with missing joints at their parents, it was 82 %, at their place in a standing body 81 %, and in the middle of
the body 57 %.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .skeleton_layouts import LAYOUTS, SkeletonLayout

# Names of the same joint, without its side: words in lower case, joined.
_SYNONYMS = {
    **dict.fromkeys(("pelvis", "root", "hipcenter", "spinebase", "midhip"), "hip_center"),
    **dict.fromkeys(("thorax", "shouldercenter", "spineshoulder", "midshoulder"), "shoulder_center"),
    **dict.fromkeys(("spinemid", "spine2", "chest", "torso"), "spine"),
    **dict.fromkeys(("bigtoe", "footindex"), "toe"),
    "neckbase": "neck",
    "forefinger1": "index",
    "pinkyfinger1": "pinky",
    "middlefinger4": "handtip",
    "thumb4": "thumb",
}
# Height of spine and neck on the line from the hip centre (0) over the shoulder centre (1) to the head (2), for layouts with
# joints of these names: medians over UTD-MHAD (Kinect v1) and nine recordings of NTU RGB+D (Kinect v2), the mean bones of
# Human3.6M, and the upright frames of a recording of HumanML3D.
_HEIGHTS = {
    ("hip_center", "spine", "shoulder_center"): {"spine": 0.17, "neck": 1.5},
    ("spine_base", "spine_mid", "spine_shoulder"): {"spine": 0.57, "neck": 1.38},
    ("pelvis", "spine", "thorax"): {"spine": 0.48, "neck": 1.51},
    ("pelvis", "spine2", "neck"): {"spine1": 0.23, "spine": 0.5, "spine3": 0.58, "neck": 1.5},
}
_USUAL_HEIGHTS = {"spine": 0.5, "neck": 1.5}
# From the shoulder centre to the head, in lengths of the trunk: the median is 0.47 over UTD-MHAD and 0.40 over NTU RGB+D.
HEAD_ABOVE_NECK = 0.43
# Lengths of the bones that end at a joint, as shares of the body's height (Drillis and Contini, "Body segment parameters",
# 1966); that of a hand ends at its middle, and that of a foot is the height of the ankle.
_LENGTHS = {
    "shoulder": 0.129, "elbow": 0.186, "wrist": 0.146, "hand": 0.054,
    "hip": 0.096, "knee": 0.245, "ankle": 0.246, "foot": 0.039, "toe": 0.1, "head": 0.1,
}  # fmt: skip
_USUAL_LENGTH = 0.05
_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}


@dataclass(frozen=True, eq=False)
class JointMapping:
    """How joints of one layout are computed from those of another; made by `map_layout`.

    Attributes:
        source, target: The two layouts.
        weights: Weights of the joints of the source for each joint of the target, float64 (J_target, J_source). They are not
            negative and add up to 1, or are all 0 for a missing joint.
        is_estimated: Whether a joint has no counterpart in the source, but is estimated from others, bool (J_target,).
    """

    source: SkeletonLayout
    target: SkeletonLayout
    weights: np.ndarray
    is_estimated: np.ndarray

    @property
    def is_known(self) -> np.ndarray:
        """Whether a joint of the target can be computed, bool (J_target,)."""
        return self.weights.any(1)

    @property
    def is_flat(self) -> bool:
        """Whether depth is missing: a 2-D source of a 3-D target."""
        return self.source.dimensions < self.target.dimensions

    @property
    def missing(self) -> list[str]:
        """Joints of the target that cannot be computed, as in "hands"."""
        return _summarised(self.target, ~self.is_known)

    @property
    def estimated(self) -> list[str]:
        """Joints of the target that are estimated, as in "spine"."""
        return _summarised(self.target, self.is_estimated)

    def map_joints(self, keypoints: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes joints of the target.

        The axes become those of the target: if y grows in the other direction, the body is turned by half a turn about the line
        of sight, so that it is not mirrored. The depth is 0 if one of the layouts is 2-D.

        Args:
            keypoints: Joints of the source, (..., J_source, 3), z = 0 if it is 2-D.
            valid: Whether each joint was measured, bool (..., J_source).

        Returns:
            `tuple`: joints of the target, (..., J_target, 3), 0 where not valid; and whether each was measured, bool (...,
            J_target), which is the case if all joints from which it is computed were.
        """
        mapped = self.weights @ np.where(valid[..., None], keypoints, 0)
        # The number of unmeasured joints with a weight; a product of matrices is faster than a reduction.
        mapped_valid = ((~valid).astype(np.float32) @ (self.weights > 0).T.astype(np.float32) == 0) & self.is_known
        if self.source.up != self.target.up:
            mapped[..., :2] *= -1
        mapped[..., min(self.source.dimensions, self.target.dimensions) :] = 0
        return np.where(mapped_valid[..., None], mapped, 0).astype(keypoints.dtype, copy=False), mapped_valid

    def describe(self) -> str | None:
        """A sentence about what is missing or estimated; None if every joint has a counterpart."""
        clauses = [
            f"{_listed(names)} {'is' if len(names) == 1 and not names[0].endswith(('s', 'feet')) else 'are'} {state}"
            for names, state in ((self.missing, "missing"), (self.estimated, "estimated"))
            if names
        ]
        if self.is_flat:
            clauses.append("depth is missing, so the view cannot be aligned")
        if not clauses:
            return None
        return f"recorded with {self.source.name}, read as {self.target.name}: {'; '.join(clauses)}"


@lru_cache(maxsize=64)
def map_layout(source: SkeletonLayout, target: SkeletonLayout) -> JointMapping:
    """The mapping from one layout to another. A derived target is computed from its source, if that is one of `LAYOUTS`."""
    shape = (target.num_joints, source.num_joints)
    if source.joint_names == target.joint_names:
        return JointMapping(source, target, np.eye(shape[1]), np.zeros(shape[0], bool))
    if target.source in LAYOUTS:
        mapping = map_layout(source, LAYOUTS[target.source])
        rows = [list(joints) for joints in target.derivation]
        is_known = np.array([mapping.is_known[joints].all() for joints in rows])
        weights = np.stack([mapping.weights[joints].mean(0) for joints in rows]) * is_known[:, None]
        is_estimated = np.array([mapping.is_estimated[joints].any() for joints in rows]) & is_known
        return JointMapping(source, target, weights, is_estimated)

    points, heights, target_heights = _points(source), _heights(source), _heights(target)
    own = set(_canonical_names(source))
    line = {0.0: "hip_center", heights["spine"]: "spine", 1.0: "shoulder_center", heights["neck"]: "neck", 2.0: "head"}
    line = {height: points[name] for height, name in line.items() if name in points}
    weights, is_estimated = np.zeros(shape), np.zeros(shape[0], bool)
    for joint, name in enumerate(_canonical_names(target)):
        if name in target_heights:
            row = _between(line, target_heights[name])
            is_estimated[joint] = row is not None and (name not in own or heights[name] != target_heights[name])
        else:
            row = points.get(name)
            is_estimated[joint] = row is not None and name not in own
        weights[joint] = 0 if row is None else row
    return JointMapping(source, target, weights, is_estimated)


@lru_cache(maxsize=1024)
def placement(layout: SkeletonLayout, known: tuple[bool, ...]) -> np.ndarray:
    """Matrix that places the unknown joints of a body, float64 (J, J), and keeps the known ones.

    An unknown joint between its parent and the nearest known joints further from the root divides the line between them evenly.
    The end of a limb continues the bone of its parent in a straight line, at its usual length. The root is placed at the mean
    of its known children.

    Args:
        layout: The joint layout.
        known: Whether each joint is known.
    """
    names, children = _canonical_names(layout), [[] for _ in known]
    for child, parent in layout.bones:
        children[parent].append(child)
    matrix = np.eye(layout.num_joints)
    order = [layout.parents.index(-1)]
    for joint in order:  # grows: parents come before their children
        order.extend(children[joint])
        parent = layout.parents[joint]
        if known[joint]:
            continue
        if parent < 0:
            below = [child for child in children[joint] if known[child]]
            matrix[joint] = matrix[below].mean(0) if below else matrix[joint]
        elif (found := _nearest_known(joint, children, known)) is not None:
            ends, steps = found
            matrix[joint] = matrix[parent] + (matrix[ends].mean(0) - matrix[parent]) / (steps + 1)
        elif layout.parents[parent] < 0:
            matrix[joint] = matrix[parent]
        else:
            length, parent_length = (
                _LENGTHS.get(names[bone].removeprefix("left_").removeprefix("right_"), _USUAL_LENGTH)
                for bone in (joint, parent)
            )
            bone = matrix[parent] - matrix[layout.parents[parent]]
            matrix[joint] = matrix[parent] + length / parent_length * bone
    return matrix


def _nearest_known(joint: int, children: list[list[int]], known: tuple[bool, ...]) -> tuple[list[int], int] | None:
    """The nearest known joints below a joint, and the number of bones to them; None if there are none."""
    level, steps = children[joint], 1
    while level:
        if ends := [below for below in level if known[below]]:
            return ends, steps
        level, steps = [child for below in level for child in children[below]], steps + 1
    return None


def _canonical_names(layout: SkeletonLayout) -> list[str]:
    """Names of the joints that do not depend on the layout. A joint whose name is not known keeps it."""
    plain = []
    for name in layout.joint_names:
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
        sides = [_SIDES[word] for word in words if word in _SIDES]
        plain.append((sides[:1], "".join(word for word in words if word not in _SIDES)))
    taken = {joint for _, joint in plain}  # where there are "spine" and "spine2", only the first is the spine
    names = [
        "_".join([*side, joint if _SYNONYMS.get(joint) in taken else _SYNONYMS.get(joint, joint)])
        for side, joint in plain
    ]
    for anchor in ("left_hip", "right_hip", "left_shoulder", "right_shoulder"):
        names[getattr(layout, anchor)] = anchor
    for anchor, joints in (("hip_center", layout.pelvis), ("shoulder_center", layout.neck)):
        if len(joints) == 1:
            names[joints[0]] = anchor
    return names


def _points(layout: SkeletonLayout) -> dict[str, np.ndarray]:
    """Weights (J,) of the points of a body that the joints of a layout determine, by canonical name."""
    one = np.eye(layout.num_joints)
    points = {}
    for joint, name in enumerate(_canonical_names(layout)):
        points.setdefault(name, one[joint])
    points.setdefault("hip_center", one[list(layout.pelvis)].mean(0))
    points.setdefault("shoulder_center", one[list(layout.neck)].mean(0))
    for substitutes in (("left_ear", "right_ear"), ("left_eye", "right_eye"), ("nose",)):
        if set(substitutes) <= set(points):
            points.setdefault("head", np.mean([points[name] for name in substitutes], axis=0))
    for name, *substitutes in (
        ("nose", "head"),
        *([f"{side}_{joint}" for joint in joints] for side in ("left", "right") for joints in _ENDS_OF_LIMBS),
    ):
        if set(substitutes) <= set(points):
            points.setdefault(name, np.mean([points[name] for name in substitutes], axis=0))
    return points


# A joint at the end of a limb, and the joints whose mean is about there.
_ENDS_OF_LIMBS = (("foot", "toe"), ("toe", "foot"), ("hand", "wrist", "index", "pinky"))


def _heights(layout: SkeletonLayout) -> dict[str, float]:
    """Heights of spine and neck, see `_HEIGHTS`."""
    found = (heights for names, heights in _HEIGHTS.items() if set(names) <= set(layout.joint_names))
    return next(found, _USUAL_HEIGHTS)


def heights_of_trunk(layout: SkeletonLayout) -> dict[float, int]:
    """Joints in the middle of the body by their height, in lengths of the trunk: the pelvis is at 0, the neck at 1."""
    names, heights = _canonical_names(layout), _heights(layout)
    head = 1 + HEAD_ABOVE_NECK
    found = {heights["spine"]: "spine", 1 + (heights["neck"] - 1) * HEAD_ABOVE_NECK: "neck", head: "head"}
    return {height: names.index(name) for height, name in found.items() if name in names}


def relation_joints(layout: SkeletonLayout) -> dict[str, list[int]]:
    """The joints at which `ActionVQVAEConfig` measures the relation of two people, by the name of the point.

    Raises:
        ValueError: If the layout has no joint for one of the points.
    """
    names, pairs = _canonical_names(layout), [("left_ear", "right_ear"), ("left_eye", "right_eye")]
    substitutes = {"head": [("head",), *pairs, ("nose",)]}
    for side in ("left", "right"):
        substitutes[f"{side}_hand"] = [(f"{side}_hand",), (f"{side}_wrist",)]
        substitutes[f"{side}_foot"] = [(f"{side}_foot",), (f"{side}_ankle",)]
    joints = {}
    for point, choices in substitutes.items():
        named = next((choice for choice in choices if set(choice) <= set(names)), None)
        if named is None:
            known = " or ".join(" and ".join(choice) for choice in choices)
            raise ValueError(
                f"skeleton layout {layout.name!r}: expected a joint {known}, got {list(layout.joint_names)}"
            )
        joints[point] = [names.index(name) for name in named]
    sides = {
        "left_side": [layout.left_hip, layout.left_shoulder],
        "right_side": [layout.right_hip, layout.right_shoulder],
    }
    return {**joints, "neck": list(layout.neck), **sides}


def _between(line: dict[float, np.ndarray], height: float) -> np.ndarray | None:
    """Weights of the point at a height of a line of points, or None above its last point."""
    if height > max(line):
        return None
    below, above = max(place for place in line if place <= height), min(place for place in line if place >= height)
    share = (height - below) / (above - below) if above > below else 0.0
    return (1 - share) * line[below] + share * line[above]


def _summarised(layout: SkeletonLayout, chosen: np.ndarray) -> list[str]:
    """Names of joints in words, with those of both sides as a plural."""
    names = []
    for joint in chosen.nonzero()[0]:
        name = layout.joint_names[joint].replace("_", " ")
        if layout.mirror[joint] != joint and chosen[layout.mirror[joint]]:
            name = name.removeprefix("left ").removeprefix("right ")
            name = f"{name.removesuffix('foot')}feet" if name.endswith("foot") else f"{name}s"
        names.append(name)
    return list(dict.fromkeys(names))


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


__all__ = ["JointMapping", "heights_of_trunk", "map_layout", "placement", "relation_joints"]
