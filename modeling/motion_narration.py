"""A kinematic narrator: describes the movements of a body in plain English, part by part and in order, from the joints alone.

It knows neither actions nor objects; everything it says is measured. The unit of length is a torso (pelvis to neck), heights
refer to the person's own body, and left and right are the person's own.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .feature_extraction_skeleton import SkeletonFeatureExtractor
from .skeleton_layouts import SkeletonLayout, get_layout

FPS = 30.0
SMOOTHING = 5  # frames
SPEED = 0.6  # torsos per second; slower points count as still
MIN_SECONDS, MAX_PAUSE = 0.15, 0.25
MIN_PATH = 0.35  # torsos; shorter movements are ignored
SWING = 0.18  # torsos; least distance between two turning points of a repeated movement
# Heights above the pelvis, in torsos: a hand below HANGING hangs down; ZONES are upper bounds and names.
HANGING = 0.4
ZONES = (
    (-1.3, "the feet"), (-0.65, "the knees"), (-0.05, "the hips"), (0.35, "the waist"), (0.8, "the chest"),
    (1.15, "the shoulders"), (1.65, "the head"), (np.inf, "above the head"),
)  # fmt: skip
_NUMBERS = (
    "no",
    "once",
    "twice",
    "three times",
    "four times",
    "five times",
    "six times",
    "seven times",
    "eight times",
)


@dataclass(frozen=True)
class MotionEvent:
    """A movement of a part of the body.

    Attributes:
        part: The part: "right hand", "both hands", "left foot", "body".
        movement: The movement in words, without subject: "rises from the hips to the head".
        start, end: Seconds from the start of the recording.
    """

    part: str
    movement: str
    start: float
    end: float


@dataclass(frozen=True)
class MotionNarration:
    """The movements of the people of a recording.

    Attributes:
        text: The movements in English.
        events: For each person, the movements in order of time.
    """

    text: str
    events: list[list[MotionEvent]]


def narrate(
    recording: Any, layout: str | dict | SkeletonLayout | None = None, fps: float | None = None
) -> MotionNarration:
    """
    Describes the movements of up to two people.

    Args:
        recording: Anything that `SkeletonFeatureExtractor` reads: a path, a `SkeletonRecording`, a row, an array.
        layout: The joint layout; by default that of the recording, or kinect25 for paths and arrays.
        fps: Frames per second of an array; 30 by default.

    Raises:
        SkeletonInputError, SkeletonFileError: If the feature extractor cannot read the recording.
    """
    if layout is None:
        layout = recording.get("layout") if isinstance(recording, dict) else getattr(recording, "layout", "kinect25")
    skeleton = get_layout(layout)
    settings = {"center": "first", "scale": "torso", "frame_multiple": 1, "num_persons": 2}
    if isinstance(recording, np.ndarray) and fps is not None:
        recording = {
            "keypoints": _with_three(recording).ravel(), "shape": _with_three(recording).shape, "layout": skeleton.name,
            "fps": fps,
        }  # fmt: skip
    extractor = SkeletonFeatureExtractor(layout=skeleton, fps=FPS, **settings)
    features = extractor(recording, return_tensors=None, return_transform=True)
    present = features["transforms"][0].present
    tracks = features["input_features"][0].reshape(len(present), 2, skeleton.num_joints, extractor.coordinates)
    events, texts = [], []
    people = [person for person in range(2) if present[:, person].sum() > FPS * MIN_SECONDS]
    for person in people:
        frames = present[:, person].nonzero()[0]
        person_events = _events(tracks[frames, person].astype(np.float64), skeleton, frames[0] / FPS)
        events.append(person_events)
        subject = "The person" if len(people) == 1 else ("The first person", "The second person")[person]
        texts.append(_narrated(subject, person_events))
    return MotionNarration(" ".join(texts), events)


def describe_moment(track: np.ndarray, layout: str | dict | SkeletonLayout) -> str:
    """
    Describes a few frames: position and direction of the hands, and whether the body leans or the hips are low.

    Args:
        track: (T, J, C), the joints of a person at 30 frames per second, in torsos, +x to the person's right, as
            `SkeletonFeatureExtractor` computes features with `scale="torso"` and an aligned view.
        layout: The joint layout.
    """
    body = _Body(np.asarray(track, np.float64), get_layout(layout))
    parts = []
    for side, end in body.hands.items():
        relative = end - body.neck
        height = float(np.median(end[:, 1] - body.pelvis[:, 1]))
        moved = relative[-1] - relative[0]
        way = ""
        if np.linalg.norm(moved) > 0.25 * SPEED * len(track) / FPS and np.linalg.norm(moved) > 0.05:
            axis = int(np.abs(moved).argmax())
            way = (
                f" going {_sideways(moved[0], side)}",
                f" going {'up' if moved[1] > 0 else 'down'}",
                f" going {'forward' if moved[2] > 0 else 'backward'}",
            )[axis]
        zone = _zone(height)
        parts.append(f"{side} hand {zone if zone.startswith('above') else f'at {zone}'}{way}")
    trunk = (body.neck - body.pelvis).mean(0)
    if trunk[1] < 0.8 * np.linalg.norm(trunk):
        parts.append("body leaning")
    if body.feet and min(float(np.median(body.pelvis[:, 1] - foot[:, 1])) for foot in body.feet.values()) < 0.9:
        parts.append("hips low")
    return ", ".join(parts)


def _with_three(array: np.ndarray) -> np.ndarray:
    """(T, J, C) or (T, P, J, C) → (T, P, J, 3)."""
    array = array[:, None] if array.ndim == 3 else array
    return np.pad(array, [(0, 0)] * 3 + [(0, 3 - array.shape[-1])])


# ------------------------------------------------------------------------------------------------------------ measuring


def _events(track: np.ndarray, skeleton: SkeletonLayout, start: float) -> list[MotionEvent]:
    """Joints (T, J, C) in torsos, +x to the person's right → movements in order; `start` in seconds."""
    body = _Body(track, skeleton)
    events = [*body.posture(), *body.travel()]
    hands, feet = {side: body.hand(side) for side in body.hands}, {side: body.foot(side) for side in body.feet}
    claps = body.claps()
    if claps is not None:
        events.append(claps)
        inside = (claps.start - MAX_PAUSE, claps.end + MAX_PAUSE)
        hands = {
            side: [event for event in hand if not inside[0] <= (event.start + event.end) / 2 <= inside[1]]
            for side, hand in hands.items()
        }
    events += _together(hands.get("left", []), hands.get("right", []), "both hands")
    walks = [event for event in events if event.movement.startswith(("walks", "jumps"))]
    steps = _together(feet.get("left", []), feet.get("right", []), "both feet")
    events += [step for step in steps if not any(walk.start - 0.3 <= step.start <= walk.end + 0.3 for walk in walks)]
    events = sorted(events, key=lambda event: (event.start, event.part))
    return [
        MotionEvent(event.part, event.movement, round(event.start + start, 2), round(event.end + start, 2))
        for event in events
    ]


class _Body:
    """Joint positions of a person, (T, 3) in torsos: right, up and ahead; ahead is 0 in recordings without depth."""

    def __init__(self, track: np.ndarray, skeleton: SkeletonLayout):
        self.skeleton = skeleton
        depth = -skeleton.up * track[..., 2] if track.shape[-1] == 3 else np.zeros(track.shape[:-1])
        axes = np.stack([track[..., 0], skeleton.up * track[..., 1], depth], axis=-1)
        if skeleton.dimensions == 2:
            axes[..., 0] *= -1  # the right of a person who faces the camera is the left of the image
        self.axes = _smooth(axes)
        self.pelvis = self.axes[:, list(skeleton.pelvis)].mean(1)
        self.neck = self.axes[:, list(skeleton.neck)].mean(1)
        self.hands = self._ends("arm", ("wrist", "hand"))
        self.feet = self._ends("leg", ("ankle", "foot"))

    def _ends(self, limb: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        ends = {}
        for side in ("left", "right"):
            joints = self.skeleton.parts.get(f"{side}_{limb}", ())
            named = [joint for name in names for joint in joints if name in self.skeleton.joint_names[joint]]
            if named or joints:
                ends[side] = self.axes[:, named[0] if named else joints[-1]]
        return ends

    def hand(self, side: str) -> list[MotionEvent]:
        """Movements of a hand relative to the shoulders: its way up, its movement there, and its way down."""
        end = self.hands[side]
        relative, height = end - self.neck, end[:, 1] - self.pelvis[:, 1]
        events = []
        for first, last in _moving(relative):
            for start, stop in _strokes(height, first, last):
                movement = _repeated(relative[start:stop], height[start:stop])
                movement = movement or _single(relative[start:stop], height[start:stop], side)
                if movement is not None:
                    events.append(MotionEvent(f"{side} hand", movement, start / FPS, stop / FPS))
        return _without_return(events)

    def foot(self, side: str) -> list[MotionEvent]:
        """Movements of a foot relative to the floor."""
        events = []
        for first, last in _moving(self.feet[side]):
            movement = _step(self.feet[side][first:last], side)
            if movement is not None:
                events.append(MotionEvent(f"{side} foot", movement, first / FPS, last / FPS))
        return events

    def posture(self) -> list[MotionEvent]:
        """Movements of the whole body: down, up, bending over, straightening up, jumping."""
        events, jumps = [], []
        if self.feet and self.skeleton.dimensions == 3:
            floor = {side: np.percentile(foot[:, 1], 10) for side, foot in self.feet.items()}
            jumps = _runs(np.min([foot[:, 1] - floor[side] for side, foot in self.feet.items()], axis=0) > 0.15)
        if jumps:
            movement = f"jumps {_times(len(jumps))}" if len(jumps) > 1 else "jumps"
            events.append(MotionEvent("body", movement, jumps[0][0] / FPS, jumps[-1][1] / FPS))
        for first, last in _changes(self.pelvis[:, 1], 0.45):
            if any(start - 10 < last and first < stop + 10 for start, stop in jumps):
                continue
            height = self.pelvis[:, 1]
            movement = "goes down with the hips" if height[last] < height[first] else "comes up with the hips"
            events.append(MotionEvent("body", movement, first / FPS, last / FPS))
        trunk = self.neck - self.pelvis
        lean = np.rad2deg(np.arccos(np.clip(trunk[:, 1] / np.maximum(np.linalg.norm(trunk, axis=1), 1e-9), -1, 1)))
        for first, last in _changes(lean / 35, 1.0):
            side = (
                "sideways"
                if abs(trunk[last, 0]) > abs(trunk[last, 2])
                else "forward"
                if trunk[last, 2] > 0
                else "backward"
            )
            movement = f"bends {side}" if lean[last] > lean[first] else "straightens up"
            events.append(MotionEvent("body", movement, first / FPS, last / FPS))
        return events

    def travel(self) -> list[MotionEvent]:
        """Walking: movement of the pelvis over the floor."""
        place = self.pelvis[:, [0, 2]]
        moved = place[-1] - place[0]
        if np.linalg.norm(moved) < 1.2:
            return []
        way = ("right" if moved[0] > 0 else "left") if abs(moved[0]) > abs(moved[1]) else None
        way = f"to the {way}" if way else "forward" if moved[1] > 0 else "backward"
        share = (place - place[0]) @ moved / (moved @ moved)
        first, last = int((share > 0.05).argmax()), int(len(share) - 1 - (share[::-1] < 0.95).argmax())
        return [MotionEvent("body", f"walks {way}", first / FPS, last / FPS)]

    def claps(self) -> MotionEvent | None:
        """Hands that meet at least twice."""
        if len(self.hands) < 2:
            return None
        apart = np.linalg.norm(self.hands["left"] - self.hands["right"], axis=1)
        turns = _turning_points(-apart, 0.25)
        meetings = [frame for frame, is_top in turns if is_top and apart[frame] < 0.4]
        if len(meetings) < 2:
            return None
        return MotionEvent("both hands", f"meet {_times(len(meetings))}", meetings[0] / FPS, meetings[-1] / FPS)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over `SMOOTHING` frames along the first axis, shorter at the ends."""
    reach = SMOOTHING // 2
    padded = np.concatenate([values[:1].repeat(reach, 0), values, values[-1:].repeat(reach, 0)])
    return np.stack([padded[shift : shift + len(values)] for shift in range(2 * reach + 1)]).mean(0)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of True; runs less than `MAX_PAUSE` apart are joined."""
    edges = np.diff(np.concatenate([[0], flags.astype(int), [0]])).nonzero()[0].reshape(-1, 2).tolist()
    joined: list[list[int]] = []
    for first, last in edges:
        if joined and first - joined[-1][1] < MAX_PAUSE * FPS:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    return [(first, last) for first, last in joined]


def _moving(path: np.ndarray) -> list[tuple[int, int]]:
    """Intervals in which a point moves, and gets at least `MIN_PATH` away from its start."""
    speed = np.linalg.norm(np.diff(path, axis=0), axis=1) * FPS
    intervals = []
    for first, last in _runs(speed > SPEED):
        part = path[first : last + 1]
        if last - first >= MIN_SECONDS * FPS and np.linalg.norm(part - part[0], axis=1).max() >= MIN_PATH:
            intervals.append((first, last + 1))
    return intervals


def _strokes(height: np.ndarray, first: int, last: int) -> list[tuple[int, int]]:
    """Splits a movement of a hand into up to three parts: its way up, its movement there, and its way down."""
    inside = height[first:last]
    top = inside.max()
    cuts = [first, last]
    if inside[0] < HANGING < top - 0.1 and top - inside[0] > 0.5:
        cuts.append(first + int((inside >= inside[0] + 0.75 * (top - inside[0])).argmax()) + 1)
    if inside[-1] < HANGING < top - 0.1 and top - inside[-1] > 0.5:
        cuts.append(last - int((inside[::-1] >= inside[-1] + 0.75 * (top - inside[-1])).argmax()) - 1)
    cuts = sorted(cuts)
    return [(start, stop) for start, stop in pairwise(cuts) if stop - start >= 3]


def _without_return(events: list[MotionEvent]) -> list[MotionEvent]:
    """Joins "rises" and a following "drops" to the same height into "rises … and comes back"."""
    kept: list[MotionEvent] = []
    for event in events:
        before = kept[-1] if kept else None
        up = before is not None and before.movement.startswith("rises from ")
        if up and event.movement.startswith("drops from ") and event.start - before.end < 0.4:
            low = before.movement.removeprefix("rises from ").replace(" to ", " above ").split(" above ")[0]
            if event.movement.endswith(f"to {low}"):
                movement = f"{before.movement} and comes back"
                kept[-1] = MotionEvent(event.part, movement, before.start, event.end)
                continue
        kept.append(event)
    return kept


def _changes(values: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Intervals between consecutive turning points over which a signal changes by at least the threshold."""
    turns = [0, *(frame for frame, _ in _turning_points(values, threshold)), len(values) - 1]
    return [(first, last) for first, last in pairwise(turns) if abs(values[last] - values[first]) >= threshold]


def _turning_points(values: np.ndarray, swing: float) -> list[tuple[int, bool]]:
    """Frames at which a signal turns by at least `swing`, and whether each is a maximum."""
    turns: list[tuple[int, bool]] = []
    low = high = 0
    rising = None
    for frame in range(len(values)):
        low = frame if values[frame] < values[low] else low
        high = frame if values[frame] > values[high] else high
        if rising is not False and values[high] - values[frame] >= swing:
            if rising:
                turns.append((high, True))
            rising, low = False, frame
        elif rising is not True and values[frame] - values[low] >= swing:
            if rising is False:
                turns.append((low, False))
            rising, high = True, frame
    return turns


def _zone(height: float) -> str:
    return next(name for limit, name in ZONES if height < limit)


def _level(height: float) -> str:
    zone = _zone(height)
    return zone if zone.startswith("above") else f"at the height of {zone}"


def _times(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else "many times"


def _repeated(path: np.ndarray, height: np.ndarray) -> str | None:
    """A movement that goes round, or turns at least three times, in words; None if it does neither."""
    centered = path - path.mean(0)
    _, strength, axes = np.linalg.svd(centered, full_matrices=False)
    first, second = centered @ axes[0], centered @ axes[1]
    if strength[1] > 0.5 * strength[0] and strength[1] / np.sqrt(len(path)) > 0.12:
        # Number of rounds about the middle, and direction as the person sees it.
        swept = np.unwrap(np.arctan2(second, first))
        rounds = abs(swept[-1] - swept[0]) / (2 * np.pi)
        if rounds > 0.8:
            circle = "a circle" if rounds < 1.6 else "circles"
            right, up = centered[:, 0], centered[:, 1]
            # The direction is only given if the circle faces the person.
            turned = (right[:-1] * up[1:] - up[:-1] * right[1:]).sum()
            facing = min(right.std(), up.std()) > 0.5 * strength[1] / np.sqrt(len(path))
            way = f" {'counter ' if turned > 0 else ''}clockwise" if facing else ""
            return f"goes round in {circle}{way} {_level(np.median(height))}"
    turns = _turning_points(first, SWING)
    if len(turns) < 3:
        return None
    way = ("from side to side", "up and down", "forward and back")[int(np.abs(axes[0]).argmax())]
    swings = (len(turns) + 1) // 2
    middle = height[turns[0][0] : turns[-1][0] + 1]
    return f"swings {way} {_times(swings)} {_level(np.median(middle))}"


def _single(path: np.ndarray, height: np.ndarray, side: str) -> str | None:
    """A movement of a hand away, and perhaps back, in words; None if it is shorter than `MIN_PATH`."""
    away = path - path[0]
    far = int(np.linalg.norm(away, axis=1).argmax())
    reach, end = away[far], away[-1]
    if np.linalg.norm(reach) < MIN_PATH:
        return None
    back = " and comes back" if np.linalg.norm(end) < 0.45 * np.linalg.norm(reach) else ""
    start, farthest = height[0], height[far]
    axis = int(np.abs(reach).argmax())
    if axis == 1:
        verb = "rises" if reach[1] > 0 else "drops"
        if _zone(start) == _zone(farthest):
            return f"{verb} a little {_level(farthest)}{back}"
        target = _zone(farthest)
        return f"{verb} from {_zone(start)} {'' if target.startswith('above') else 'to '}{target}{back}"
    if axis == 2:
        return f"goes {'forward' if reach[2] > 0 else 'backward'} {_level(farthest)}{back}"
    return f"goes {_sideways(reach[0], side)} {_level(farthest)}{back}"


def _step(path: np.ndarray, side: str) -> str | None:
    """A movement of a foot in words; None if it is shorter than `MIN_PATH`."""
    away = path - path[0]
    far = int(np.linalg.norm(away, axis=1).argmax())
    reach = away[far]
    if np.linalg.norm(reach) < MIN_PATH:
        return None
    back = " and comes back" if np.linalg.norm(away[-1]) < 0.45 * np.linalg.norm(reach) else ""
    if (axis := int(np.abs(reach).argmax())) == 1:
        return f"{'lifts' if reach[1] > 0 else 'goes down'}{back}"
    way = _sideways(reach[0], side) if axis == 0 else "forward" if reach[2] > 0 else "backward"
    return f"steps {way}{back}"


def _sideways(right: float, side: str) -> str:
    toward = "right" if right > 0 else "left"
    return f"out to the {toward}" if toward == side else f"across the body to the {toward}"


# -------------------------------------------------------------------------------------------------------------- telling


def _together(left: list[MotionEvent], right: list[MotionEvent], both: str) -> list[MotionEvent]:
    """Movements of both sides; equal movements at the same time are joined."""
    joined, rest = [], list(right)
    for event in left:
        for other in rest:
            overlap = min(event.end, other.end) - max(event.start, other.start)
            mirrored = other.movement.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left")
            is_same = event.movement in (other.movement, mirrored)
            if is_same and overlap > 0.5 * max(event.end - event.start, other.end - other.start):
                movement = event.movement
                for side in ("left", "right"):
                    movement = movement.replace(f"out to the {side}", "out to the sides").replace(
                        f"across the body to the {side}", "inwards across the body"
                    )
                start, end = min(event.start, other.start), max(event.end, other.end)
                joined.append(MotionEvent(both, _plural(movement), start, end))
                rest.remove(other)
                break
        else:
            joined.append(event)
    return joined + rest


def _narrated(subject: str, events: list[MotionEvent]) -> str:
    """The text of the movements of a person in order, and of the limbs that are still."""
    if not events:
        return f"{subject} stands or sits still."
    clauses, last = [], None
    for event in events:
        clause = f"{event.part if event.part.startswith('both') else f'the {event.part}'} {event.movement}"
        if last is not None:
            if event.part == last.part:
                clause = f"then {event.movement}"
            else:
                clause = f"{'at the same time' if event.start < last.end - 0.3 else 'then'} {clause}"
        clauses.append(clause)
        last = event
    moved = " ".join(event.part for event in events)
    limbs = {"left arm": "left hand", "right arm": "right hand", "left leg": "left foot", "right leg": "right foot"}
    both = {"hand": "both hands" in moved, "foot": "both feet" in moved}
    goes = any(event.movement.startswith(("walks", "jumps")) for event in events)
    still = [
        limb
        for limb, end in limbs.items()
        if end not in moved and not both[end.split()[1]] and not (goes and "leg" in limb)
    ]
    text = f"{subject}: {', '.join(clauses)}."
    if len(still) == 4:
        return text
    if {"left leg", "right leg"} <= set(still):
        still = [limb for limb in still if "leg" not in limb] + ["legs"]
    if {"left arm", "right arm"} <= set(still):
        still = ["arms"] + [limb for limb in still if "arm" not in limb]
    if not still:
        return text
    verb = "is" if len(still) == 1 and still[0] not in ("legs", "arms") else "are"
    return f"{text} The {' and the '.join(still)} {verb} still."


_PLURALS = {
    "goes": "go", "rises": "rise", "drops": "drop", "swings": "swing", "lifts": "lift", "steps": "step", "comes": "come",
}  # fmt: skip


def _plural(movement: str) -> str:
    """ "goes out and comes back" → "go out and come back"."""
    return " ".join(_PLURALS.get(word, word) for word in movement.split(" "))


__all__ = ["MotionEvent", "MotionNarration", "describe_moment", "narrate"]
