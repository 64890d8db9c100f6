"""Assigns the tracked bodies of a recording to the people who act in it.

A depth sensor gives a person a new body id whenever it loses and re-detects them, and also sees bodies in furniture. The
filters and their thresholds are those of the data preparation of SGN and CTR-GCN. They were made for Kinect 2, upright people
and metres, and are used for all layouts here. The differences from SGN and CTR-GCN keep more of the recording:

- Time is never shifted. (There, tracks are moved to close gaps.)
- If all bodies are flat (two people lying down), all are kept. (There, only the last.)
- Bodies are processed in order of appearance. A body continues a person if they never share a frame, and their tracks are close
  where they are closest in time. (There, bodies are processed in order of motion, and only the first and last frames count, not
  distances.)
- People are ordered by motion. (There, the body with the most motion is the first actor, and bodies that fit no actor are
  dropped.)
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

# Larger coordinates are impossible in metres, pixels and millimetres: they are corrupt numbers.
NOWHERE = 1e6


def valid_joints(keypoints: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Which joints were measured.

    A joint is missing if a coordinate is not finite or impossible (`NOWHERE`), or if all its coordinates are exactly 0, or
    exactly -1 (z may be 0), by which sensors and detectors mark missing joints. A joint that is 0 in all frames of its body may
    also be the origin of a centred recording: it is kept if it is the only such joint and the body lies around it.

    Args:
        keypoints: Joints, (T, P, J, C).
        present: Whether each body is in each frame, bool (T, P).

    Returns:
        bool (T, P, J).
    """
    size = np.abs(keypoints[..., 0]) + np.abs(keypoints[..., 1])
    if keypoints.shape[-1] == 3:
        size += np.abs(keypoints[..., 2])
    valid = (size < NOWHERE) & present[..., None]  # False for NaN too
    # The absolute values of (-1, -1, -1) sum to 3, and those of (-1, -1, 0) to 2.
    suspect = (size == 3) | (size == 2)
    if suspect.any():
        places = keypoints[suspect]
        valid[suspect] &= ~((places[:, :2] == -1).all(-1) & np.isin(places[:, 2:], (-1, 0)).all(-1))
    if valid.all() and size.all():
        return valid
    nonzero = valid & (size != 0)
    always_zero = valid.any(0) & ~nonzero.any(0)
    for body in (always_zero.sum(-1) == 1).nonzero()[0]:
        around = keypoints[:, body][nonzero[:, body]]
        if len(around) and ((around.min(0) <= 0) & (around.max(0) >= 0)).all():
            joint = always_zero[body].nonzero()[0]
            nonzero[:, body, joint] = valid[:, body, joint] & nonzero[:, body].any(-1, keepdims=True)
    return nonzero


def body_motion(keypoints: np.ndarray, valid: np.ndarray) -> float:
    """Variance of the coordinates over joints and frames, summed over coordinates: (T, J, C), bool (T, J) -> float.

    It includes the extent of the posture, so that a person who stands still ranks above a flickering chair.
    """
    points = keypoints.reshape(-1, keypoints.shape[-1]) if valid.all() else keypoints[valid]
    # The mean as a matrix product is several times faster than a reduction beside an axis of length 3.
    points = points - np.full(len(points), 1 / len(points)) @ points
    return float((points * points).sum() / len(points))


# People change slots of an array if they would otherwise step further than this, in body sizes.
LONGEST_STEP = 0.5
# Two detections are the same person if their joints are closer than SAME_PLACE body sizes in SAME_SHARE of the frames.
SAME_PLACE, SAME_SHARE = 0.05, 0.8


def follow_people(keypoints: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Tracks people in an array whose slots are detections without identity.

    People keep their slot unless they would make a step that is too long for a body. In that case, detections are assigned to
    the nearest person of the previous frames, closest pairs first. A detection that coincides with another detection in nearly
    all frames is dropped.

    Args:
        keypoints: Joints, (T, P, J, C), finite where valid.
        valid: Whether each joint was measured, bool (T, P, J).

    Returns:
        `tuple`: the slot of each person in each frame, int64 (T, P), -1 where they are absent; the number of frames in which
        people change slots; and the number of dropped detections.
    """
    slots = np.where(valid.any(-1), np.arange(valid.shape[1]), -1)
    if valid.shape[1] < 2 or not valid.any():
        return slots, 0, 0
    joints = _Measured(keypoints, valid)
    bodies = valid.any((0, 2)).nonzero()[0]
    size = float(np.median([_size(joints[:, body], valid[:, body]) for body in bodies]))
    num_copies = _drop_copies(joints, valid, slots, size)
    changes = 0
    if _has_long_steps(joints, valid, slots, LONGEST_STEP * size):
        changes = _reassign(joints, valid, slots, LONGEST_STEP * size)
    return slots, changes, num_copies


class _Measured:
    """Joints as float64 (T, P, J, C), 0 where not valid, converted when indexed: those of an hour would fill the memory."""

    def __init__(self, keypoints: np.ndarray, valid: np.ndarray):
        self._keypoints, self._valid = keypoints, valid

    def __getitem__(self, index) -> np.ndarray:
        return np.where(self._valid[index][..., None], self._keypoints[index], 0).astype(np.float64, copy=False)


def _distance(joints: np.ndarray, valid: np.ndarray, others: np.ndarray, others_valid: np.ndarray) -> np.ndarray:
    """Mean distance of the joints that are valid in both bodies, or infinity; (..., J, C), bool (..., J) → (...)."""
    both = valid & others_valid
    total = np.where(both, np.linalg.norm(joints - others, axis=-1), 0).sum(-1)
    return np.where(both.any(-1), total / np.maximum(both.sum(-1), 1), np.inf)


def _drop_copies(joints: _Measured, valid: np.ndarray, slots: np.ndarray, size: float) -> int:
    """Removes detections that coincide with an earlier slot from `slots` (T, P); returns their number."""
    count = 0
    for slot in range(1, valid.shape[1]):
        body = joints[:, slot]
        for earlier in range(slot):
            both = (slots[:, slot] >= 0) & (slots[:, earlier] >= 0)
            near = both & (_distance(body, valid[:, slot], joints[:, earlier], valid[:, earlier]) < SAME_PLACE * size)
            if both.any() and near.sum() >= SAME_SHARE * both.sum():
                slots[near, slot] = -1
                count += int(near.sum())
    return count


def _has_long_steps(joints: _Measured, valid: np.ndarray, slots: np.ndarray, longest: float) -> bool:
    """Whether the body in a slot moves further than `longest` between two consecutive detections."""
    for slot in range(slots.shape[1]):
        frames = (slots[:, slot] >= 0).nonzero()[0]
        body, body_valid = joints[frames, slot], valid[frames, slot]
        steps = _distance(body[1:], body_valid[1:], body[:-1], body_valid[:-1])
        if (np.isfinite(steps) & (steps > longest)).any():
            return True
    return False


def _reassign(joints: _Measured, valid: np.ndarray, slots: np.ndarray, longest: float) -> int:
    """Assigns detections to the nearest people, in `slots` (T, P); returns the number of frames with a change."""
    people = np.arange(slots.shape[1])
    last, last_valid = np.zeros_like(joints[0]), np.zeros_like(valid[0])
    order, changes = people.copy(), 0  # slot of each person in the previous frame
    for frame in range(len(slots)):
        detected_valid = valid[frame] & (slots[frame] >= 0)[:, None]
        detected = joints[frame]
        steps = _distance(last[:, None], last_valid[:, None], detected[None], detected_valid[None])  # (people, slots)
        kept = steps[people, order]
        if (np.isfinite(kept) & (kept > longest)).any():
            # A person who leaves or enters costs as much as the longest step.
            one_sided = last_valid.any(-1)[:, None] != detected_valid.any(-1)[None]
            costs = np.where(np.isfinite(steps), steps, np.where(one_sided, longest, 0))
            nearest = _nearest_slots(steps, order, longest)
            if costs[people, order].sum() - costs[people, nearest].sum() > longest:
                changes += 1
                order = nearest
        slots[frame] = np.where(detected_valid.any(-1)[order], order, -1)
        is_detected = detected_valid[order].any(-1)
        last[is_detected], last_valid[is_detected] = (
            detected[order][is_detected],
            detected_valid[order][is_detected],
        )
    return changes


def _nearest_slots(steps: np.ndarray, order: np.ndarray, longest: float) -> np.ndarray:
    """Slot of each person: shortest steps (people, slots) first; a person without a short step keeps their slot if free."""
    slots, free = np.full(len(order), -1), set(order.tolist())
    for pair in np.argsort(steps, axis=None, kind="stable"):
        person, slot = divmod(int(pair), len(order))
        if slots[person] < 0 and slot in free and steps[person, slot] <= longest:
            slots[person] = slot
            free.remove(slot)
    for person in (slots < 0).nonzero()[0]:
        slot = int(order[person]) if int(order[person]) in free else None
        if slot is not None:
            slots[person] = slot
            free.remove(slot)
    for person, slot in zip((slots < 0).nonzero()[0], sorted(free), strict=True):
        slots[person] = slot
    return slots


@dataclass(frozen=True)
class Cleaning:
    """The settings of `select_actors`.

    Attributes:
        clean: Whether bodies are dropped and joined. If not, the first `num_persons` bodies in order of appearance are the
            people.
        num_persons: Maximum number of people of a recording.
        min_body_frames: A body that is seen in at most this many frames is dropped (11: SGN, CTR-GCN).
        max_width_ratio, max_flat_share: A body is flat in a frame if its width exceeds `max_width_ratio` times its height. A
            body that is flat in at least `max_flat_share` of its frames is dropped (0.8, 0.69754: SGN, CTR-GCN).
        max_join_distance: A body continues a person only if their mean joints, at the two frames closest in time, are within
            this distance, in body sizes (largest extent, median over frames).

    Raises:
        ValueError: If a threshold is out of range; the message names it.
    """

    clean: bool = True
    num_persons: int = 2
    min_body_frames: int = 11
    max_width_ratio: float = 0.8
    max_flat_share: float = 0.69754
    max_join_distance: float = 1.0

    def __post_init__(self):
        least = {
            "num_persons": 1,
            "min_body_frames": 0,
            "max_width_ratio": 0,
            "max_flat_share": 0,
            "max_join_distance": 0,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= smallest:
                raise ValueError(f"{name}: expected a number of at least {smallest}, got {value!r}")
        if not isinstance(self.clean, bool):
            raise ValueError(f"clean: expected true or false, got {self.clean!r}")


def select_actors(keypoints: np.ndarray, valid: np.ndarray, cleaning: Cleaning) -> tuple[np.ndarray, list[str]]:
    """Assigns bodies to at most `num_persons` people, in order of decreasing motion.

    1. A body seen in at most `min_body_frames` frames is dropped, unless all are.
    2. A body is flat in a frame if its width (x) exceeds `max_width_ratio` times its height (y). A body that is flat in at
       least `max_flat_share` of its frames is dropped, unless all are. The motion of the others is the smaller of that over
       all frames and that over frames in which they are not flat.
    3. In order of first appearance, a body continues a person with whom it never shares a frame: the nearest person at the
       frames where the two tracks are closest in time. If none is within `max_join_distance`, the body is a new person.
    4. People are ordered by the motion of their body with the most motion. People after `num_persons` are dropped.

    Args:
        keypoints: Joints, (T, P, J, C), finite where valid.
        valid: Whether each joint was measured, bool (T, P, J).
        cleaning: The settings.

    Returns:
        `tuple`: the body of each person in each frame, int64 (T, S), S <= num_persons, -1 where the person is not seen; and
        the fate of each body: "person", "continues" (a person with an earlier id), "short", "flat", "surplus", or "never
        seen".
    """
    seen = valid.any(-1)
    bodies = seen.any(0).nonzero()[0].tolist()
    fates = dict.fromkeys(range(seen.shape[1]), "never seen")
    if not cleaning.clean:
        fates |= dict.fromkeys(bodies, "surplus")
        bodies = sorted(bodies, key=lambda body: seen[:, body].argmax())[: cleaning.num_persons]
        fates |= dict.fromkeys(bodies, "person")
        return np.where(seen[:, bodies], bodies, -1).astype(np.int64), list(fates.values())

    motion = dict.fromkeys(bodies, 0.0)
    fates |= dict.fromkeys(bodies, "short")
    if len(bodies) > 1:
        bodies = [body for body in bodies if seen[:, body].sum() > cleaning.min_body_frames] or bodies
    fates |= dict.fromkeys(bodies, "flat")
    if len(bodies) > 1:
        flat = {body: _is_flat(keypoints[:, body], valid[:, body], cleaning.max_width_ratio) for body in bodies}
        upright = [body for body in bodies if flat[body][seen[:, body]].mean() < cleaning.max_flat_share]
        bodies = upright or bodies
        for body in bodies:
            motion[body] = body_motion(keypoints[:, body], valid[:, body])
            standing = valid[:, body] & ~flat[body][:, None]
            if upright and standing.any():
                motion[body] = min(motion[body], body_motion(keypoints[:, body], standing))

    people = []
    for body in sorted(bodies, key=lambda body: seen[:, body].argmax()):
        free = [person for person in people if not (seen[:, body] & (person >= 0)).any()]
        gaps = [_gap(keypoints, valid, person, body) for person in free]
        if gaps and min(gaps) <= cleaning.max_join_distance * _size(keypoints[:, body], valid[:, body]):
            person = free[int(np.argmin(gaps))]
        else:
            person = np.full(len(keypoints), -1)
            people.append(person)
        person[seen[:, body]] = body
    # Sorting is stable, so people of equal motion stay in order of appearance.
    people.sort(key=lambda person: -max(motion[body] for body in set(person.tolist()) - {-1}))
    fates |= dict.fromkeys(bodies, "surplus")
    for person in people[: cleaning.num_persons]:
        first, *later = dict.fromkeys(person[person >= 0].tolist())
        fates |= {first: "person"} | dict.fromkeys(later, "continues")
    actors = np.stack(people[: cleaning.num_persons], axis=1) if people else np.zeros((len(keypoints), 0), np.int64)
    return actors, list(fates.values())


def describe_cleaning(actors: np.ndarray, fates: list[str], body_ids: np.ndarray, seen: np.ndarray) -> dict:
    """Describes the effect of `select_actors` on a recording, for a report.

    Args:
        actors, fates: The result of `select_actors`.
        body_ids: Ids of the bodies, int64 (P,).
        seen: Whether each body is in each frame, bool (T, P).

    Returns:
        `dict`, empty if every body is a person without gaps: `bodies`, the id, number of frames and fate of each body that is
        not a person; `gap_frames`, for each person the number of frames between the first and the last in which they are not
        seen.
    """
    unusual = [
        {"body_id": int(body_ids[body]), "frames": int(seen[:, body].sum()), "fate": fate}
        for body, fate in enumerate(fates)
        if fate != "person"
    ]
    gaps = []
    for person in (actors >= 0).T:
        frames = person.nonzero()[0]
        gaps.append(int(frames[-1] - frames[0] + 1 - len(frames)))
    return {"bodies": unusual, "gap_frames": gaps} if unusual or any(gaps) else {}


def count_cleaning(descriptions: list[dict]) -> dict[str, int]:
    """Counts the recordings that have a body of each fate, and those with gaps, from their `describe_cleaning`."""
    counts = Counter()
    for description in descriptions:
        counts.update({body["fate"] for body in description["bodies"]})
        counts["gap"] += any(description["gap_frames"])
    return {fate: count for fate, count in sorted(counts.items()) if count}


def _is_flat(keypoints: np.ndarray, valid: np.ndarray, max_width_ratio: float) -> np.ndarray:
    """Joints (T, J, C), bool (T, J) -> bool (T,): whether the width exceeds `max_width_ratio` times the height."""
    # A reduction over a contiguous last axis is several times faster.
    x, y = np.ascontiguousarray(keypoints[..., 0]), np.ascontiguousarray(keypoints[..., 1])
    if valid.all():
        width, height = x.max(1) - x.min(1), y.max(1) - y.min(1)
    else:
        width, height = (
            np.where(valid, axis, -np.inf).max(1) - np.where(valid, axis, np.inf).min(1) for axis in (x, y)
        )
    return width > max_width_ratio * height


def _size(keypoints: np.ndarray, valid: np.ndarray) -> float:
    """Largest extent along an axis, median over frames with a valid joint; (T, J, C), bool (T, J) -> float."""
    has_joints = valid.any(1)
    points, is_valid = keypoints[has_joints], valid[has_joints][..., None]
    extent = np.where(is_valid, points, -np.inf).max(1) - np.where(is_valid, points, np.inf).min(1)
    return float(np.median(extent.max(1)))


def _gap(keypoints: np.ndarray, valid: np.ndarray, person: np.ndarray, body: int) -> float:
    """Distance between the mean joints of a person and of a body, at their two frames closest in time."""
    person_frames, body_frames = (person >= 0).nonzero()[0], valid[:, body].any(-1).nonzero()[0]
    after = np.searchsorted(person_frames, body_frames)
    before = person_frames[np.maximum(after - 1, 0)]
    after = person_frames[np.minimum(after, len(person_frames) - 1)]
    nearest = np.where(np.abs(body_frames - before) <= np.abs(after - body_frames), before, after)
    closest = np.abs(nearest - body_frames).argmin()
    ends = []
    for frame, index in ((nearest[closest], person[nearest[closest]]), (body_frames[closest], body)):
        ends.append(keypoints[frame, index][valid[frame, index]].mean(0))
    return float(np.linalg.norm(ends[0] - ends[1]))


def fill_gaps(tracks: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Interpolates missing joints linearly over time; before the first and after the last measurement, they stay constant.

    A joint that was never measured gets the mean of the person's other joints.

    Args:
        tracks: Joints, (T, S, J, C), with any value where not valid.
        valid: Whether each joint was measured, bool (T, S, J); every person has at least one valid joint.

    Returns:
        (T, S, J, C), equal to `tracks` where valid, finite everywhere.
    """
    if valid.all():
        return tracks
    tracks = np.where(valid[..., None], tracks, 0)
    num_frames = len(tracks)
    frame = np.arange(num_frames)[:, None, None]
    before = np.maximum.accumulate(np.where(valid, frame, -1), axis=0)
    after = np.minimum.accumulate(np.where(valid, frame, num_frames)[::-1], axis=0)[::-1]
    before, after = np.where(before < 0, after, before), np.where(after == num_frames, before, after)
    never = ~valid.any(0)
    before, after = np.where(never, 0, before), np.where(never, 0, after)
    weight = ((frame - before) / np.maximum(after - before, 1))[..., None]
    early = np.take_along_axis(tracks, before[..., None], axis=0)
    late = np.take_along_axis(tracks, after[..., None], axis=0)
    filled = early + weight * (late - early)
    if never.any():
        measured = ~never[..., None]
        middle = (filled * measured).sum(2, keepdims=True) / measured.sum(1, keepdims=True)
        filled = np.where(measured, filled, middle)
    return filled


__all__ = [
    "Cleaning",
    "body_motion",
    "count_cleaning",
    "describe_cleaning",
    "fill_gaps",
    "follow_people",
    "select_actors",
    "valid_joints",
]
