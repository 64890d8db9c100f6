"""Plausibility of skeletons: cheap checks of the anatomy, the axes and the units of recordings.

A recording of the right shape can still be wrong: joints in another order, z pointing up, pixels instead of metres.
`find_symptoms` checks a single recording. `judge` summarises the symptoms of the recordings of a folder (or of a single
recording) in sentences: what looks wrong, in how many recordings, and the probable cause. The thresholds were set on UTD-MHAD,
MSR Action3D, Northwestern-UCLA and nine files of NTU RGB+D; no recording of these is mistaken for another layout.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .skeleton_layouts import LAYOUTS, SkeletonLayout

# Number of frames of a recording whose anatomy is checked, and the fewest joints for this check.
FRAMES, LEAST_JOINTS = 8, 8
# Another layout fits better if its bones are shorter by the first factor in total, or by the second and its head is up.
SHORTER, A_LITTLE_SHORTER = 0.85, 0.95
# The bones of a body are at most this many times as long as the shortest tree between its joints (1.1 to 1.9 measured).
LONGEST_TREE = 2.2
# Least cosine of the angle between the trunk and an axis along which it counts as aligned.
ALONG_AXIS = 0.7
# Range of the largest extent of a body in metres.
METRES = (0.3, 3.0)
# Bones of the left and right side differ by at most this factor.
UNEQUAL_SIDES = 1.35
# Largest share of frames without a body between the first and the last frame with a body.
MISSING = 0.2
# Longest plausible step between two frames, in body sizes.
JUMP = 0.5
# Range of the frames per second of cameras and sensors.
RATES = (1, 500)
# Knees and feet point backwards if they are behind the body's plane by this share of its trunk, on average.
BACKWARDS = 0.02
# A symptom in the share MOST of at least MANY recordings is due to the data, not to people who lie down or turn round. FEW is
# the fewest recordings in which a vertical axis is judged.
MOST, MANY, FEW = 0.8, 10, 3


@dataclass(frozen=True)
class Doubt:
    """A fault that some recordings probably have.

    Attributes:
        kind: Name of the symptom, a key of `KINDS`.
        reason: A sentence: the observation, in how many recordings, the probable cause, and what to do.
        files: Names of the recordings.
        stops: Whether the recordings are certainly wrong, so that they should not be used for training.
    """

    kind: str
    reason: str
    files: tuple[str, ...]
    stops: bool = False


def find_symptoms(
    keypoints: np.ndarray, valid: np.ndarray, layout: SkeletonLayout, fps: float | None = None
) -> dict[str, Any]:
    """Finds the symptoms of faults in a recording.

    Args:
        keypoints: Joints in recorded units, (T, P, J, 3); z = 0 for 2-D layouts.
        valid: Whether each joint was measured (`valid_joints`), bool (T, P, J).
        layout: The stated layout.
        fps: The stated frame rate.

    Returns:
        `dict` of values of JSON, empty for most recordings: `joint order` (the layout that fits better, "" if none does),
        `up axis` (the axis that points up), `units` ("score", "flat", "point", or the largest extent of the body), `sides`
        (the factor by which bones of the left and right side differ), `impossible rate` (frames per second), `mirrored` (True),
        `lost joints` and `still joints` (their names), `empty frames` (number of frames without a body at the start and at the
        end), `missing frames` (their number in between), `frozen` (True, or "single frame"), `jumps` (their number).
    """
    symptoms: dict[str, Any] = {}
    seen = valid.any((1, 2)).nonzero()[0]
    if not len(seen):
        return symptoms
    if seen[0] > 0 or seen[-1] < len(valid) - 1:
        symptoms["empty frames"] = [int(seen[0]), int(len(valid) - 1 - seen[-1])]
    inside = int(seen[-1] - seen[0] + 1 - len(seen))
    if inside > MISSING * (seen[-1] - seen[0]):
        symptoms["missing frames"] = inside
    body = int(valid.sum((0, 2)).argmax())
    joints, valid = keypoints[:, body, :, : layout.dimensions], valid[:, body]
    unseen = ~valid.any(0)
    if unseen.any():
        symptoms["lost joints"] = [layout.joint_names[joint] for joint in unseen.nonzero()[0]]
    still = _still_joints(joints, valid)
    if len(seen) == 1:
        symptoms["frozen"] = "single frame"
    elif len(still) == layout.num_joints:
        symptoms["frozen"] = True
    elif len(still):
        symptoms["still joints"] = [layout.joint_names[joint] for joint in still]
    counts = valid.sum(1)
    fullest = np.argsort(-counts, kind="stable")[: max(FRAMES, int((counts == counts.max()).sum()))]
    fullest = np.sort(fullest)
    picked = fullest[np.linspace(0, len(fullest) - 1, min(FRAMES, len(fullest))).astype(int)]
    frames = np.where(valid[picked][..., None], joints[picked], np.nan).astype(np.float64)
    size = float(np.nanmedian((np.nanmax(frames, axis=1) - np.nanmin(frames, axis=1)).max(-1)))
    if fps is not None and not is_possible_rate(fps):
        symptoms["impossible rate"] = float(fps)
    if not size > 0:
        return symptoms | {"units": "point"}
    if layout.dimensions == 3:
        symptoms |= _odd_units(frames, size)
    jumps = _count_jumps(joints, valid, size)
    if jumps:
        symptoms["jumps"] = jumps
    if "units" in symptoms and symptoms["units"] in ("score", "flat"):
        frames = frames[..., :2]
    symptoms |= _odd_anatomy(frames, layout, size)
    if symptoms.get("units") == "score":
        symptoms.pop("up axis", None)  # y grows downwards in images
    return symptoms


def is_possible_rate(fps: float) -> bool:
    """Whether a camera or a sensor can have this frame rate."""
    return RATES[0] <= fps <= RATES[1]


def _still_joints(joints: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Joints that never move, except an origin on which the recording is centred; (T, J, C), bool (T, J) → indices."""
    often = valid.sum(0) >= 10
    if valid.all() and not (joints == joints[0]).all((0, 2)).any():
        return np.array([], int)
    span = np.where(valid[..., None], joints, -np.inf).max(0) - np.where(valid[..., None], joints, np.inf).min(0)
    still = often & (span == 0).all(-1)
    if still.all():
        return still.nonzero()[0]
    centre = still & (np.where(valid[..., None], joints, 0) == 0).all((0, 2))
    return (still & ~centre).nonzero()[0]


def _odd_units(frames: np.ndarray, size: float) -> dict[str, Any]:
    """Pixels, scores and other units instead of metres; (F, J, 3)."""
    depth = frames[..., 2][np.isfinite(frames[..., 2])]
    across = float(np.nanmax(frames[..., :2]) - np.nanmin(frames[..., :2]))
    if across > 20 and depth.min() >= 0 and depth.max() <= 1 and depth.max() > 0:
        return {"units": "score"}
    if not depth.any():
        return {"units": "flat"}
    return {} if METRES[0] <= size <= METRES[1] else {"units": float(f"{size:.3g}")}


def _count_jumps(joints: np.ndarray, valid: np.ndarray, size: float) -> int:
    """Number of steps between consecutive frames that are longer than `JUMP` body sizes; (T, J, C), bool (T, J)."""
    both = valid[1:] & valid[:-1]
    steps = np.linalg.norm(np.where(both[..., None], np.diff(joints, axis=0), 0), axis=-1).sum(1)
    return int((steps > JUMP * size * np.maximum(both.sum(1), 1)).sum())


def _odd_anatomy(frames: np.ndarray, layout: SkeletonLayout, size: float) -> dict[str, Any]:
    """Symptoms of joint order, vertical axis, sides and facing; (F, J, C) with NaN for missing joints, largest extent."""
    symptoms: dict[str, Any] = {}
    distances = _joint_distances(frames)
    if np.isfinite(distances).any(0).sum() < LEAST_JOINTS:
        return symptoms
    length, trunk = _tree_length(distances, layout), _trunk(frames, layout)
    best, best_length = layout, length
    is_image = frames.shape[-1] < layout.dimensions
    for other in LAYOUTS.values():
        if other.num_joints != layout.num_joints or other.parents == layout.parents or other.source:
            continue
        if other.dimensions > layout.dimensions and size > METRES[1]:  # pixels
            continue
        other_length = _tree_length(distances, other)
        is_up = _is_up(_trunk(frames, other), other) and not _is_up(trunk, layout)
        most = (A_LITTLE_SHORTER if is_up else SHORTER) * length
        if is_up and is_image and other.dimensions == 2:  # the stated layout is wrong in any case
            most = np.inf
        if other_length < most and (best is layout or other_length < best_length):
            best, best_length = other, other_length
    if best_length > LONGEST_TREE * _shortest_tree(distances):
        return {"joint order": ""}
    if best is not layout:
        return {"joint order": best.name}
    axis = int(np.abs(trunk).argmax())
    if abs(trunk[axis]) > ALONG_AXIS and (axis != 1 or trunk[1] * layout.up < 0):
        symptoms["up axis"] = ("-" if trunk[axis] < 0 else "") + "xyz"[axis]
    if layout.dimensions == frames.shape[-1] == 3:
        mirror, (child, parent) = np.array(layout.mirror), np.array(layout.bones).T
        left = mirror[child] > child
        lengths = np.stack([distances[child, parent], distances[mirror[child], mirror[parent]]])[:, left]
        lengths = lengths[:, (lengths > 0).all(0)]  # drops NaN, too
        unequal = np.exp(np.median(np.abs(np.log(lengths[0] / lengths[1])))) if lengths.size else 1.0
        if unequal > UNEQUAL_SIDES:
            symptoms["sides"] = float(f"{unequal:.3g}")
        if _bends_backwards(frames, layout):
            symptoms["mirrored"] = True
    return symptoms


def _joint_distances(frames: np.ndarray) -> np.ndarray:
    """Distance between any two joints, the median over frames with both, NaN without any; (F, J, C) → (J, J)."""
    offsets = frames[:, :, None] - frames[:, None]
    distances = np.sqrt(np.einsum("fijc,fijc->fij", offsets, offsets))
    if np.isfinite(distances).all():
        return np.median(distances, axis=0)
    count = np.isfinite(distances).sum(0)
    middle = np.maximum(count - 1, 0) // 2  # NaN is sorted last
    return np.take_along_axis(np.sort(distances, axis=0), middle[None], axis=0)[0]


def _tree_length(distances: np.ndarray, layout: SkeletonLayout) -> float:
    """Mean length of the bones of a layout whose joints were seen; `distances` (J, J)."""
    child, parent = np.array(layout.bones).T
    lengths = distances[child, parent]
    return float(lengths[np.isfinite(lengths)].mean()) if np.isfinite(lengths).any() else np.inf


def _shortest_tree(distances: np.ndarray) -> float:
    """Mean length of an edge of the minimum spanning tree of the joints that were seen (Prim); `distances` (J, J)."""
    seen = np.isfinite(distances.diagonal())
    distances = np.nan_to_num(distances[seen][:, seen], nan=np.inf)
    reached, nearest, length = np.zeros(len(distances), bool), distances[0].copy(), 0.0
    reached[0] = True
    for _ in range(len(distances) - 1):
        joint = int(np.where(reached, np.inf, nearest).argmin())
        length += float(nearest[joint])
        reached[joint] = True
        nearest = np.minimum(nearest, distances[joint])
    return length / max(len(distances) - 1, 1)


def _trunk(frames: np.ndarray, layout: SkeletonLayout) -> np.ndarray:
    """Mean direction from the pelvis to the head, or to the neck if there is no head; (F, J, C) → (C,), of length up to 1."""
    names = layout.joint_names
    top = next(((names.index(name),) for name in ("head", "nose") if name in names), layout.neck)
    trunk = frames[:, list(top)].mean(1) - frames[:, list(layout.pelvis)].mean(1)
    trunk = trunk[np.isfinite(trunk).all(-1)]
    length = np.sqrt((trunk * trunk).sum(-1, keepdims=True))
    return (trunk / np.where(length > 0, length, 1)).sum(0) / max(len(trunk), 1)


def _is_up(trunk: np.ndarray, layout: SkeletonLayout) -> bool:
    return float(trunk[1]) * layout.up > 1 - ALONG_AXIS


def _bends_backwards(frames: np.ndarray, layout: SkeletonLayout) -> bool:
    """Whether knees and feet point backwards, which means that left and right are swapped or an axis is mirrored."""
    names = layout.joint_names
    pairs = [(f"{side}_{part}") for side in ("left", "right") for part in ("hip", "knee", "ankle")]
    if not set(pairs) <= set(names):
        return False
    frames = frames[np.isfinite(frames).all((1, 2))]
    if not len(frames):
        return False
    across = frames[:, layout.right_hip] - frames[:, layout.left_hip]
    across = across + frames[:, layout.right_shoulder] - frames[:, layout.left_shoulder]
    up = frames[:, list(layout.neck)].mean(1) - frames[:, list(layout.pelvis)].mean(1)
    # With x to the left of the sensor, y up and z away from it, a person who faces it has their right at +x, and looks along
    # -(across x up).
    (ax, ay, az), (ux, uy, uz) = across.T, up.T
    back = np.stack([ay * uz - az * uy, az * ux - ax * uz, ax * uy - ay * ux], axis=-1)
    length = np.sqrt((back * back).sum(-1, keepdims=True))
    back = back / np.where(length > 0, length, 1)
    forward_of = [(f"{side}_knee", (f"{side}_hip", f"{side}_ankle")) for side in ("left", "right")]
    forward_of += [(f"{side}_foot", (f"{side}_ankle",)) for side in ("left", "right") if f"{side}_foot" in names]
    offsets = sum(
        (frames[:, names.index(front)] - frames[:, [names.index(name) for name in behind]].mean(1))
        for front, behind in forward_of
    ) / len(forward_of)
    trunk = float(np.median(np.sqrt((up * up).sum(-1))))
    return bool((offsets * back).sum(-1).mean() > BACKWARDS * trunk)


def judge(symptoms: Mapping[str, Mapping[str, Any]], total: int, layout: SkeletonLayout) -> list[Doubt]:
    """Summarises the symptoms of recordings.

    Args:
        symptoms: The symptoms of each recording that has any, from `find_symptoms` and the reader, by name of the recording.
        total: Number of recordings, including those without symptoms.
        layout: Their layout.

    Returns:
        `list[Doubt]`, beginning with doubts that stop.
    """
    doubts = []
    for kind, (sentence, stops, least_share, least_total) in KINDS.items():
        by_value: dict[Any, list[str]] = {}
        for name, of_recording in symptoms.items():
            if kind in of_recording:
                value = of_recording[kind]
                # Numbers and lists differ between recordings, so they are grouped together.
                by_value.setdefault(value if isinstance(value, str | bool) else "", []).append(name)
        for value, files in by_value.items():
            share, share_of_kind = (count / max(total, 1) for count in (len(files), sum(map(len, by_value.values()))))
            if share < least_share or total < least_total:
                continue
            examples = [symptoms[name][kind] for name in files]
            reason = sentence(value, examples, layout) + (
                f" ({len(files):,} of {total:,} recordings)" if total > 1 else ""
            )
            # In one or two recordings, people may be lying down.
            stop = stops is not None and share_of_kind > stops and total >= (FEW if kind == "up axis" else 1)
            stop = stop and (kind != "units" or value in ("score", "point"))
            doubts.append(Doubt(kind, reason, tuple(files), stop))
    return sorted(doubts, key=lambda doubt: not doubt.stops)


def _order(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    if value:
        return f"the joints look like those of the layout {value}, not of {layout.name}: set the layout to {value}"
    return (
        f"the joints do not fit the layout {layout.name}: its bones would connect joints that lie far apart; check the order "
        "of the joints, or describe the layout yourself"
    )


def _up(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    lying = "" if value[-1] == "y" else " (or everybody lies down)"
    expected = "y" if layout.up > 0 else "-y"
    return f'{value} points up{lying}, {expected} is expected: set "up": "{value}" in skeleton.json'


def _units(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    if value == "score":
        flat = [
            other.name for other in LAYOUTS.values() if other.num_joints == layout.num_joints and other.dimensions == 2
        ]
        return (
            f"x and y look like pixels and the third number like a score, {layout.name} is in metres: set a 2-D layout"
            + (f", such as {' or '.join(flat)}" if flat else "")
        )
    if value == "flat":
        return f"z is 0 everywhere: {layout.name} has three dimensions; a 2-D recording needs a 2-D layout"
    if value == "point":
        return "all joints of a body are in one place"
    size = float(np.median(examples))
    guess = " (millimetres or pixels?)" if size > 100 else ""
    expected = f"{METRES[0]} to {METRES[1]} m are expected"
    return f"a body is {size:.3g} units large, {expected}{guess}; `scale: torso` undoes that, other settings do not"


def _sides(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    return f"bones of the left and right side differ by a factor of {np.median(examples):.2g}: check the order of the joints"


def _mirrored(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    return "knees and feet point backwards: left and right are swapped, or an axis is mirrored"


def _joints(sentence: str):
    def say(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
        names = sorted({name for example in examples for name in example}, key=layout.joint_names.index)
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return f"{sentence}: {', '.join(names[:6])}{more}"

    return say


def _empty(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    head, tail = (sum(example[place] for example in examples) for place in (0, 1))
    where = [f"{count:,} at the {place}" for count, place in ((head, "start"), (tail, "end")) if count]
    return f"frames without a body are cut off, {' and '.join(where)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _missing(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    share = f"more than {MISSING:.0%} of the frames within a recording"
    return f"{share} have no body, {sum(examples):,} in all: they are interpolated"


def _frozen(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    return "a body is seen in a single frame: nothing moves" if value else "nothing moves: all frames are the same"


def _jumps(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    return f"bodies jump by more than half their size from a frame to the next, {_times(sum(examples))}"


def _slots(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    return f"people change places in the array, {_times(sum(examples))}: they were followed by distance"


def _duplicates(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    return f"the same person stands in the array twice, in {sum(examples):,} frames in all: the copies were left out"


def _impossible_rate(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    rate = f"{np.median(examples):g} frames per second"
    return f"{rate} cannot be right: expected from {RATES[0]} to {RATES[1]}; is fps given in milliseconds?"


def _third(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    low, high = min(example[0] for example in examples), max(example[1] for example in examples)
    return (
        f"joints have a third number, from {low:g} to {high:g}: it is no score, and {layout.name} has two dimensions"
    )


def _rate(value: str, examples: Sequence, layout: SkeletonLayout) -> str:
    return f"the frame rate is unknown and taken to be {np.median(examples):g} frames per second: set fps if it is another one"


class _Kind(NamedTuple):
    """The report of a symptom.

    Attributes:
        sentence: Function of the value, all examples and the layout that returns the sentence.
        stops: Share of recordings above which the symptom stops a build; None never stops.
        least_share, least_total: Least share and number of recordings for a report.
    """

    sentence: Callable[[str, Sequence, SkeletonLayout], str]
    stops: float | None = None
    least_share: float = 0.0
    least_total: int = 1


KINDS = {
    "joint order": _Kind(_order, stops=0.1),
    "up axis": _Kind(_up, stops=0.5, least_share=0.1),
    "units": _Kind(_units, stops=0.1),
    "sides": _Kind(_sides),
    "mirrored": _Kind(_mirrored, least_share=MOST, least_total=MANY),
    "lost joints": _Kind(_joints("joints that were never seen")),
    "still joints": _Kind(_joints("joints that never move")),
    "empty frames": _Kind(_empty),
    "missing frames": _Kind(_missing),
    "frozen": _Kind(_frozen),
    "jumps": _Kind(_jumps),
    "changed places": _Kind(_slots),
    "same person twice": _Kind(_duplicates),
    "third number": _Kind(_third),
    "impossible rate": _Kind(_impossible_rate),
    "frame rate": _Kind(_rate),
}


__all__ = ["KINDS", "Doubt", "find_symptoms", "is_possible_rate", "judge"]
