"""Estimates a pelvis or a neck that was never measured, from the joints of the body that were.

They centre and scale a recording: without an estimate, one of the upper body would be centred and scaled by a point in the
middle of the chest, or could not be read at all.
"""

from collections.abc import Mapping

import numpy as np

from .joint_mapping import heights_of_trunk
from .skeleton_layouts import SkeletonLayout

# Ratio of trunk to bone for bones from which the length of the trunk is estimated (Drillis and Contini, "Body segment
# parameters", 1966: trunk 0.288, shoulders 0.259, upper arm 0.186, thigh 0.245, shank 0.246 of the height).
_BONES_BELOW_NECK = {("left_shoulder", "right_shoulder"): 0.288 / 0.259, ("shoulder", "elbow"): 0.288 / 0.186}
_BONES_BELOW_PELVIS = {("hip", "knee"): 0.288 / 0.245, ("knee", "ankle"): 0.288 / 0.246}
# Two joints of the spine that are at least this part of the trunk apart determine its line.
_MIN_APART = 0.4


def estimate_trunk(tracks: np.ndarray, measured: np.ndarray, skeleton: SkeletonLayout) -> np.ndarray:
    """
    Estimates a pelvis and a neck that were never measured, by the first of these rules that applies:

    1. a pelvis between the hips, and a neck between the shoulders;
    2. on the line through two joints of the spine, such as spine and head;
    3. a pelvis at the height of the hip, and a neck at that of the shoulder, in the middle of the trunk;
    4. straight below the neck, or above the pelvis, at a distance that follows from the bones beside it.

    Args:
        tracks: Joints (T, S, J, C), changed in place.
        measured: Whether each joint was measured at least once, bool (S, J).
        skeleton: The layout.

    Returns:
        Whether each joint was measured or estimated, bool (S, J).
    """
    pelvis, neck = list(skeleton.pelvis), list(skeleton.neck)
    hips, shoulders = [skeleton.left_hip, skeleton.right_hip], [skeleton.left_shoulder, skeleton.right_shoulder]
    all_known = measured.copy()
    for person, known in enumerate(all_known):
        joints = tracks[:, person]
        for anchor, sides in ((pelvis, hips), (neck, shoulders)):
            if not known[anchor].all() and known[sides].all():
                joints[:, anchor] = joints[:, sides].mean(1, keepdims=True)
                known[anchor] = True
        _along_spine(joints, known, skeleton)
        # Both are found before either is set, because each helps to find the other.
        found = [
            (anchor, _beside(joints, known, sides, skeleton))
            for anchor, sides in ((pelvis, hips), (neck, shoulders))
            if not known[anchor].all()
        ]
        for anchor, position in found:
            if position is not None:
                joints[:, anchor] = position
                known[anchor] = True
        vertical = np.zeros(tracks.shape[-1])
        vertical[1] = skeleton.up
        for anchor, sides, other, bones, direction in (
            (pelvis, hips, neck, _BONES_BELOW_NECK, -1),
            (neck, shoulders, pelvis, _BONES_BELOW_PELVIS, 1),
        ):
            if known[anchor].all() or not known[other].all():
                continue
            length = _trunk_length(joints, known, bones, skeleton)
            if length is not None:
                position = joints[:, other].mean(1, keepdims=True) + direction * length * vertical
                unknown = [joint for joint in {*anchor, *sides} if not known[joint]]
                joints[:, unknown] = position
                known[unknown] = True
    return all_known


def _along_spine(joints: np.ndarray, known: np.ndarray, skeleton: SkeletonLayout):
    """Rule 2, in place: joints (T, J, C), bool (J,)."""
    anchors = {0.0: list(skeleton.pelvis), 1.0: list(skeleton.neck)}
    line = {height: [joint] for height, joint in heights_of_trunk(skeleton).items()} | anchors
    line = {height: of_height for height, of_height in line.items() if known[of_height].all()}
    if not line or max(line) - min(line) < _MIN_APART:
        return
    low, high = min(line), max(line)
    bottom, top = (joints[:, line[height]].mean(1) for height in (low, high))
    for height, anchor in anchors.items():
        if not known[anchor].all():
            joints[:, anchor] = (bottom + (top - bottom) * (height - low) / (high - low))[:, None]
            known[anchor] = True


def _beside(joints: np.ndarray, known: np.ndarray, sides: list[int], skeleton: SkeletonLayout) -> np.ndarray | None:
    """Rule 3: the position (T, 1, C) beside the known ones of `sides`; None if none is known."""
    beside = [joint for joint in sides if known[joint]]
    if not beside:
        return None
    middle = [joint for joint in skeleton.parts["trunk"] if known[joint] and skeleton.mirror[joint] == joint] or [
        joint
        for joint in (skeleton.left_hip, skeleton.right_hip, skeleton.left_shoulder, skeleton.right_shoulder)
        if known[joint]
    ]
    position = joints[:, middle].mean(1, keepdims=True)
    position[..., 1] = joints[:, beside, 1].mean(1, keepdims=True)
    return position


def _trunk_length(
    joints: np.ndarray, known: np.ndarray, bones: Mapping[tuple[str, str], float], skeleton: SkeletonLayout
) -> float | None:
    """Length of the trunk, from the first of these bones whose joints are known; (T, J, C), bool (J,). None without any."""
    names = skeleton.joint_names
    for ends, factor in bones.items():
        pairs = [ends] if ends[0] in names else [tuple(f"{side}_{end}" for end in ends) for side in ("left", "right")]
        pairs = [[names.index(end) for end in pair] for pair in pairs if set(pair) <= set(names)]
        pairs = [pair for pair in pairs if known[pair].all()]
        if pairs:
            # In 2-D, bones look shorter when they point towards the camera, so frames with long bones count.
            lengths = [np.linalg.norm(joints[:, first] - joints[:, second], axis=-1) for first, second in pairs]
            return factor * float(np.percentile(lengths, 90))
    return None


__all__ = ["estimate_trunk"]
