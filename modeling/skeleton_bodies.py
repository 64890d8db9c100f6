"""Whose skeleton is it: from the tracked bodies of a recording to the people who act in it.

A depth sensor gives a person a new body id whenever it loses and finds them again, and sees bodies in furniture. The filters
and their thresholds are those of the SGN and CTR-GCN data preparation; made for Kinect 2, upright people and metres, they are
used for every layout. What is different here, each time so that less is lost:

- Time is never shifted; there, tracks are moved to close gaps.
- If all bodies are flat (two people lying down), all stay; there, the last of them does.
- A body joins a person whom it never shares a frame with and whose track ends or begins near it, bodies in the order in which
  they appear; there, in the order of motion, by the first and last frames alone and wherever they are.
- Whole people are put in the order of motion; there, the liveliest body is the first actor, and who fits no actor is dropped.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

# Neither metres nor pixels nor millimetres go so far: such a coordinate is a broken number.
NOWHERE = 1e6


def valid_joints(keypoints: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Which joints were measured.

    A joint is lost where a coordinate is not finite or so large that it is no place (`NOWHERE`), and where all its
    coordinates are exactly 0, or exactly -1 (z may be 0), which is how sensors and detectors write "nothing here". A joint
    that is 0 whenever its body is there is what the recording is centred on, and kept, if it is the only one and the body
    lies around it; otherwise it was never seen.

    Args:
        keypoints: (T, P, J, C).
        present: bool (T, P).

    Returns:
        bool (T, P, J).
    """
    size = np.abs(keypoints[..., 0]) + np.abs(keypoints[..., 1])
    if keypoints.shape[-1] == 3:
        size += np.abs(keypoints[..., 2])
    valid = (size < NOWHERE) & present[..., None]  # False for NaN too
    # Three coordinates of -1, or two of them and a 0: nothing else of that size is looked at.
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

    The spread of the posture counts with the movement, so a person who stands upright beats a flickering chair.
    """
    points = keypoints.reshape(-1, keypoints.shape[-1]) if valid.all() else keypoints[valid]
    # The mean as a product: several times faster than reducing an axis next to one of length 3.
    points = points - np.full(len(points), 1 / len(points)) @ points
    return float((points * points).sum() / len(points))


# Slots of an array are exchanged where a person would otherwise step further than this, in sizes of the body.
LONGEST_STEP = 0.5
# The same person twice: joints as near as this, in sizes of the body, in such a share of the frames.
SAME_PLACE, SAME_SHARE = 0.05, 0.8


def follow_people(keypoints: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Who is who in an array whose slots are detections, without an identity from frame to frame.

    People keep their slot as long as they make no step that is too long for a body; where they do, detections are given
    to the nearest person of the frames before, the nearest pair first. A detection that lies where another one does in
    nearly all frames is left out.

    Args:
        keypoints: (T, P, J, C), finite where valid.
        valid: bool (T, P, J).

    Returns:
        int64 (T, P), the slot of each person in each frame, -1 where they are not there; the number of frames in which
        people change slots; and the number of detections that were left out.
    """
    slots = np.where(valid.any(-1), np.arange(valid.shape[1]), -1)
    if valid.shape[1] < 2 or not valid.any():
        return slots, 0, 0
    joints = _Measured(keypoints, valid)
    bodies = valid.any((0, 2)).nonzero()[0]
    size = float(np.median([_size(joints[:, body], valid[:, body]) for body in bodies]))
    left_out = _leave_out_copies(joints, valid, slots, size)
    changes = 0
    if _has_long_steps(joints, valid, slots, LONGEST_STEP * size):
        changes = _reassign(joints, valid, slots, LONGEST_STEP * size)
    return slots, changes, left_out


class _Measured:
    """Joints float64 (T, P, J, C), 0 where not valid, as many as are asked for: of an hour, all would fill the memory."""

    def __init__(self, keypoints: np.ndarray, valid: np.ndarray):
        self._keypoints, self._valid = keypoints, valid

    def __getitem__(self, index) -> np.ndarray:
        return np.where(self._valid[index][..., None], self._keypoints[index], 0).astype(np.float64, copy=False)


def _distance(joints: np.ndarray, there: np.ndarray, others: np.ndarray, others_there: np.ndarray) -> np.ndarray:
    """Mean distance of the joints that both have, infinite where there are none; (..., J, C), bool (..., J) → (...)."""
    both = there & others_there
    total = np.where(both, np.linalg.norm(joints - others, axis=-1), 0).sum(-1)
    return np.where(both.any(-1), total / np.maximum(both.sum(-1), 1), np.inf)


def _leave_out_copies(joints: _Measured, valid: np.ndarray, slots: np.ndarray, size: float) -> int:
    """Takes those detections out of `slots` (T, P) that lie where an earlier one does; returns their number."""
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
    """Whether anything in a slot moves further than `longest` from where it was seen last."""
    for slot in range(slots.shape[1]):
        frames = (slots[:, slot] >= 0).nonzero()[0]
        body, there = joints[frames, slot], valid[frames, slot]
        steps = _distance(body[1:], there[1:], body[:-1], there[:-1])
        if (np.isfinite(steps) & (steps > longest)).any():
            return True
    return False


def _reassign(joints: _Measured, valid: np.ndarray, slots: np.ndarray, longest: float) -> int:
    """Gives detections to the people whom they are nearest to, in `slots` (T, P); returns in how many frames any changes."""
    people = np.arange(slots.shape[1])
    last, last_there = np.zeros_like(joints[0]), np.zeros_like(valid[0])
    order, changes = people.copy(), 0  # slot of each person in the frame before
    for frame in range(len(slots)):
        there = valid[frame] & (slots[frame] >= 0)[:, None]
        detected = joints[frame]
        steps = _distance(last[:, None], last_there[:, None], detected[None], there[None])  # (people, slots)
        kept = steps[people, order]
        if (np.isfinite(kept) & (kept > longest)).any():
            # A person who goes, or one who comes, costs as much as the longest step.
            one_sided = last_there.any(-1)[:, None] != there.any(-1)[None]
            costs = np.where(np.isfinite(steps), steps, np.where(one_sided, longest, 0))
            nearest = _nearest_slots(steps, order, longest)
            if costs[people, order].sum() - costs[people, nearest].sum() > longest:
                changes += 1
                order = nearest
        slots[frame] = np.where(there.any(-1)[order], order, -1)
        seen = there[order].any(-1)
        last[seen], last_there[seen] = detected[order][seen], there[order][seen]
    return changes


def _nearest_slots(steps: np.ndarray, order: np.ndarray, longest: float) -> np.ndarray:
    """Slot of each person, the shortest steps (people, slots) first; who has no short one keeps the slot, if it is free."""
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
    """The convention by which bodies become people (`select_actors`); its thresholds are published ones.

    Attributes:
        clean: Whether bodies are dropped and joined at all. Without, the first `num_persons` bodies in order of first
            appearance are the people.
        num_persons: Most people of a recording.
        min_body_frames: A body seen in so few frames or fewer is dropped (11: SGN, CTR-GCN).
        max_width_ratio, max_flat_share: A frame is flat where the body is wider than this times its height; a body that
            is flat in such a share of its frames is dropped (0.8, 0.69754: SGN, CTR-GCN).
        max_join_distance: A body joins a person only if their mean joints, where the two tracks come closest in time, are
            this near, in sizes of the body (its largest extent, median over frames).

    Raises:
        ValueError: A threshold that cannot be; the message names it.
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
    """Assigns bodies to at most `num_persons` people, the one who moves most first.

    1. A body seen in `min_body_frames` frames or fewer is dropped, unless all are.
    2. A frame is flat where the body is wider (x) than `max_width_ratio` times its height (y). A body that is flat in
       a share of `max_flat_share` of its frames or more is dropped, unless all are. The motion of the others is the
       smaller of that over all and that over their frames that are not flat.
    3. In order of first appearance, a body continues a person with whom it never shares a frame, the one who is
       nearest where the two tracks come closest in time; if there is none within `max_join_distance`, it is a new person.
    4. People are ordered by motion, that of their liveliest body. Those after `num_persons` are left out.

    Args:
        keypoints: (T, P, J, C), finite where valid.
        valid: bool (T, P, J).
        cleaning: The thresholds, or that nothing is to be cleaned.

    Returns:
        int64 (T, S), S <= num_persons: which body each person is in each frame, -1 where they are not seen; and what
        became of each body: "person", "continues" (a person who had another id before), "short", "flat", "surplus", or
        "never seen".
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
    # Sorting is stable: equals stay in order of appearance.
    people.sort(key=lambda person: -max(motion[body] for body in set(person.tolist()) - {-1}))
    fates |= dict.fromkeys(bodies, "surplus")
    for person in people[: cleaning.num_persons]:
        first, *later = dict.fromkeys(person[person >= 0].tolist())
        fates |= {first: "person"} | dict.fromkeys(later, "continues")
    actors = np.stack(people[: cleaning.num_persons], axis=1) if people else np.zeros((len(keypoints), 0), np.int64)
    return actors, list(fates.values())


def describe_cleaning(actors: np.ndarray, fates: list[str], body_ids: np.ndarray, seen: np.ndarray) -> dict:
    """What `select_actors` did to a recording, for a report; empty where every body is a person without a gap.

    Args:
        actors, fates: What it returned.
        body_ids: int64 (P,).
        seen: bool (T, P), in which frames each body is.

    Returns:
        `bodies`: of each body that is not simply a person, its id, its number of frames and its fate; `gap_frames`: of
        each person, frames between their first and their last in which they are not seen.
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
    """Of many recordings' `describe_cleaning`: how many have a body of each fate, and how many a gap."""
    counts = Counter()
    for description in descriptions:
        counts.update({body["fate"] for body in description["bodies"]})
        counts["gap"] += any(description["gap_frames"])
    return {fate: count for fate, count in sorted(counts.items()) if count}


def _is_flat(keypoints: np.ndarray, valid: np.ndarray, max_width_ratio: float) -> np.ndarray:
    """(T, J, C), bool (T, J) -> bool (T,): wider than `max_width_ratio` times its height."""
    # The joint axis last and contiguous: several times faster to reduce.
    x, y = np.ascontiguousarray(keypoints[..., 0]), np.ascontiguousarray(keypoints[..., 1])
    if valid.all():
        width, height = x.max(1) - x.min(1), y.max(1) - y.min(1)
    else:
        width, height = (
            np.where(valid, axis, -np.inf).max(1) - np.where(valid, axis, np.inf).min(1) for axis in (x, y)
        )
    return width > max_width_ratio * height


def _size(keypoints: np.ndarray, valid: np.ndarray) -> float:
    """(T, J, C), bool (T, J) -> the largest extent along an axis, median over the frames in which there is a joint."""
    seen = valid.any(1)
    points, there = keypoints[seen], valid[seen][..., None]
    extent = np.where(there, points, -np.inf).max(1) - np.where(there, points, np.inf).min(1)
    return float(np.median(extent.max(1)))


def _gap(keypoints: np.ndarray, valid: np.ndarray, person: np.ndarray, body: int) -> float:
    """Distance between the mean joints of a person and of a body, at the two frames of theirs closest in time."""
    theirs, own = (person >= 0).nonzero()[0], valid[:, body].any(-1).nonzero()[0]
    after = np.searchsorted(theirs, own)
    before = theirs[np.maximum(after - 1, 0)]
    after = theirs[np.minimum(after, len(theirs) - 1)]
    nearest = np.where(np.abs(own - before) <= np.abs(after - own), before, after)
    closest = np.abs(nearest - own).argmin()
    ends = []
    for frame, index in ((nearest[closest], person[nearest[closest]]), (own[closest], body)):
        ends.append(keypoints[frame, index][valid[frame, index]].mean(0))
    return float(np.linalg.norm(ends[0] - ends[1]))


def fill_gaps(tracks: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Interpolates joints linearly over the frames where they were not measured, and holds them before and after.

    A joint that was never measured is put at the mean of the person's other joints.

    Args:
        tracks: (T, S, J, C), any value where not valid.
        valid: bool (T, S, J), for every person at least once true.

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
