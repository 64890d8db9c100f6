"""A kinematic narrator: describes the movements of a body in plain English, part by part and in order, from the joints alone.

It knows neither actions nor objects; everything it says is measured. The unit of length is a torso (pelvis to neck), heights
refer to the person's own body, and left, right, forward and backward are the person's own at each moment, also after a turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from .feature_extraction_skeleton import SkeletonFeatureExtractor
from .skeleton_layouts import SkeletonLayout, get_layout

FPS = 30.0
# How recordings are read, whatever the settings of a recogniser.
_READING = {
    "coordinates": None, "fps": FPS, "length": None, "max_frames": None, "frame_multiple": 1, "center": "first",
    "align_view": None, "scale": "torso",
}  # fmt: skip
SMOOTHING = 5  # frames
SPEED = 0.6  # torsos per second; slower points count as still
MIN_SECONDS, MAX_PAUSE = 0.15, 0.25
MIN_PATH = 0.35  # torsos; shorter movements are ignored
SWING = 0.18  # torsos; least distance between two turning points of a repeated movement
ROUND = 0.8  # share of a full turn about its middle, from which a movement is a circle
LARGE = 0.25  # torsos; standard deviation of the width and height of a large circle
# Heights above the pelvis, in torsos: a hand below HANGING hangs down; ZONES are upper bounds and names.
HANGING = 0.4
ZONES = (
    (-1.3, "the feet"), (-0.8, "the knees"), (-0.05, "the hips"), (0.35, "the waist"), (0.8, "the chest"),
    (1.15, "the shoulders"), (1.65, "the head"), (np.inf, "above the head"),
)  # fmt: skip
# Torsos: hands that meet are at most this far apart, after they were MEETING_APART farther; crossed hands are at least
# CROSSED beyond each other for CROSSED_SECONDS. They come together and part within MEETING_SECONDS.
MEETING, MEETING_APART, MEETING_SECONDS = 0.42, 0.12, 0.5
CROSSED, CROSSED_SECONDS = 0.08, 0.15
# In a lunge, one foot is this far from the other, and the hips sink by this much, in torsos. A step moves one knee this far
# ahead of the other.
LUNGE_APART, LUNGE_SINKS = 0.85, 0.3
STRIDE, FEWEST_STEPS = 0.12, 4
# Torsos: the pelvis of somebody who walks goes at least WALK in one direction; on the spot, it stays within SPOT.
WALK, SPOT = 1.2, 0.5
# Degrees of a turn, and of larger ones with their words.
TURN, AROUND = 60.0, ((300.0, "all the way around "), (135.0, "around "))
# Seconds over which the line from left to right is averaged, since sensors swap the sides for a few frames, and then the
# direction of the person, since arms pull the shoulders along. It is unknown while that line is shorter than ACROSS on the
# floor, in torsos, as of somebody who lies on their side.
SWAPPED_SECONDS, HEADING_SECONDS, ACROSS = 0.5, 1.0, 0.15
_KNEES = ("left_knee", "right_knee")
_CARRYING = ("walk", "pace", "jump", "lunge", "turn")  # movements of the body that say what the feet do
_NUMBERS = ("no", "once", "twice", *(f"{n} times" for n in ("three", "four", "five", "six", "seven", "eight")))


@dataclass(frozen=True)
class MotionEvent:
    """A movement of a part of the body.

    Attributes:
        part: "right hand", "both hands", "left foot", "both feet" or "body".
        kind: Of hands: "raise", "lower", "move", "swing" (there and back several times), "circle", "meet" or "cross". Of feet:
            "step", "lift" or "put down". Of the body: "sink" and "rise" (of the hips), "bend", "straighten", "jump", "walk",
            "pace" (on the spot), "lunge", "turn".
        start, end: Seconds from the start of the recording.
        amount: How much moves: the length of the path in torsos; four times that of the body, which carries all limbs.
        way: Direction, such as "forward", "out to the right", "from side to side", or that of a circle that faces the person:
            "clockwise" or "counterclockwise", as the person sees it.
        heights: Of hands at the start and at the end of "raise" and "lower", else the height, in torsos above the pelvis.
        count: Number of times.
        returns: Whether the part comes back.
        foot: Of a lunge, the foot in front: "left foot" or "right foot".
    """

    part: str
    kind: str
    start: float
    end: float
    amount: float
    way: str = ""
    heights: tuple[float, ...] = ()
    count: int = 1
    returns: bool = False
    foot: str = ""

    @property
    def movement(self) -> str:
        """The movement in words, without subject: "raises the right hand from the hips to the head"."""
        return _worded(self, self.part if self.part.startswith("both") else f"the {self.part}")


@dataclass(frozen=True)
class MotionNarration:
    """The movements of the people of a recording.

    Attributes:
        text: The movements in English.
        events: For each person, the movements in order of time.
        bodies: For each person, the measured motion.
    """

    text: str
    events: list[list[MotionEvent]]
    bodies: list["MeasuredBody"]


@dataclass(frozen=True)
class MeasuredBody:
    """The motion of a person.

    Attributes:
        track: (T, J, C), joints in torsos at `FPS` frames per second.
        layout: The joint layout.
        start: Seconds from the start of the recording to the first frame.
    """

    track: np.ndarray
    layout: SkeletonLayout
    start: float

    def pose(self, start: float, end: float) -> str:
        """The pose between two times, in seconds from the start of the recording; see `describe_moment`."""
        first, last = (round((time - self.start) * FPS) for time in (start, end))
        first = min(max(first, 0), len(self.track) - 1)
        return describe_moment(self.track[first : max(last, first + 1)], self.layout)


def narrate(
    recording: Any,
    layout: str | dict | SkeletonLayout | None = None,
    fps: float | None = None,
    *,
    reading: Mapping[str, Any] | None = None,
    **version,
) -> MotionNarration:
    """
    Describes the movements of up to two people.

    Args:
        recording: Anything that `SkeletonFeatureExtractor` reads: a path, a `SkeletonRecording`, a row, an array.
        layout: The joint layout; by default that of the recording, or kinect25 for paths and arrays.
        fps: Frames per second of the recording; by default its own, or 30 for arrays.
        reading: Settings of a feature extractor (`to_dict`), such as that of a recogniser, which then also give the layout.
        version: `augment` and `seed` of a call of that feature extractor, to describe the version of the recording that it
            computes. By default, the recording itself is described.

    Raises:
        SkeletonInputError, SkeletonFileError: If the feature extractor cannot read the recording.
    """
    if layout is None and reading is None:
        layout = recording.get("layout") if isinstance(recording, dict) else getattr(recording, "layout", "kinect25")
    settings = {"num_persons": 2, **(reading or {}), **_READING}
    extractor = SkeletonFeatureExtractor(**settings if layout is None else {**settings, "layout": layout})
    features = extractor(recording, fps=fps, return_tensors=None, return_transform=True, **version)
    skeleton, present = extractor.skeleton_layout, features["transforms"][0].present
    shape = (len(present), extractor.num_persons, skeleton.num_joints, extractor.coordinates)
    tracks = features["input_features"][0].reshape(shape)
    start = float(features["start_time"][0])
    events, texts, bodies = [], [], []
    people = [
        person for person in range(min(2, extractor.num_persons)) if present[:, person].sum() > FPS * MIN_SECONDS
    ]
    for person in people:
        frames = present[:, person].nonzero()[0]
        body = MeasuredBody(tracks[frames, person].astype(np.float64), skeleton, start + frames[0] / FPS)
        bodies.append(body)
        person_events = _events(body.track, skeleton, body.start)
        events.append(person_events)
        subject = "The person" if len(people) == 1 else ("The first person", "The second person")[person]
        texts.append(_narrated(subject, person_events))
    return MotionNarration(" ".join(texts), events, bodies)


def describe_moment(track: np.ndarray, layout: str | dict | SkeletonLayout) -> str:
    """
    Describes a few frames: position and direction of the hands, and whether the body leans or the hips are low.

    Args:
        track: (T, J, C), the joints of a person at 30 frames per second, in torsos, as `SkeletonFeatureExtractor` computes
            features with `scale="torso"`. 2-D layouts: of a person who faces the camera.
        layout: The joint layout.
    """
    body = BodyPoints(np.asarray(track, np.float64), get_layout(layout))
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
        parts.append(f"the {side} hand {zone if zone.startswith('above') else f'at {zone}'}{way}")
    trunk = (body.neck - body.pelvis).mean(0)
    if trunk[1] < 0.8 * np.linalg.norm(trunk):
        parts.append("the body leaning")
    if body.feet and min(float(np.median(body.pelvis[:, 1] - foot[:, 1])) for foot in body.feet.values()) < 0.9:
        parts.append("the hips low")
    return ", ".join(parts)


# ------------------------------------------------------------------------------------------------------------ measuring


def _events(track: np.ndarray, skeleton: SkeletonLayout, start: float) -> list[MotionEvent]:
    """Joints (T, J, C) in torsos, +x to the person's right → movements in order; `start` in seconds."""
    body = BodyPoints(track, skeleton)
    meetings = body.meetings()
    events = [*body.turns(), *body.travel(), *meetings, *body.postures()]
    hands, feet = {side: body.hand(side) for side in body.hands}, {side: body.foot(side) for side in body.feet}
    # Hands go sideways to meet.
    hands = {
        side: [event for event in moves if not any(_is_part_of(event, meeting) for meeting in meetings)]
        for side, moves in hands.items()
    }
    events += _together(hands.get("left", []), hands.get("right", []), "both hands")
    # The movement of the body says what the feet do.
    carried = [event for event in events if event.kind in _CARRYING]
    events += [
        step
        for step in _together(feet.get("left", []), feet.get("right", []), "both feet")
        if not any(other.start - 0.3 <= step.end and step.start <= other.end + 0.3 for other in carried)
    ]
    events = sorted(events, key=lambda event: (event.start, event.part))
    return [
        replace(
            event, start=round(event.start + start, 2), end=round(event.end + start, 2), amount=round(event.amount, 2)
        )
        for event in events
    ]


def _is_part_of(event: MotionEvent, meeting: MotionEvent) -> bool:
    """Whether a movement of a hand is a sideways one of hands that meet or cross."""
    is_sideways = event.kind in ("move", "swing") and event.way.startswith(("out", "across", "from side"))
    middle = (event.start + event.end) / 2
    return is_sideways and meeting.start - MAX_PAUSE <= middle <= meeting.end + MAX_PAUSE


class BodyPoints:
    """
    Joint positions of a person, (T, 3) in torsos: right, up and ahead; ahead is 0 in recordings without depth.

    Right and ahead are the person's own in each frame. The path over the floor is unrolled accordingly: whoever walks around a
    table walks ahead.
    """

    def __init__(self, track: np.ndarray, skeleton: SkeletonLayout):
        self.skeleton = skeleton
        depth = -skeleton.up * track[..., 2] if track.shape[-1] == 3 else np.zeros(track.shape[:-1])
        axes = np.stack([track[..., 0], skeleton.up * track[..., 1], depth], axis=-1)
        if skeleton.dimensions == 2:
            axes[..., 0] *= -1  # the right of a person who faces the camera is the left of the image
        self.axes = _smooth(axes)
        self.heading = self._heading()
        self.axes = self._unrolled()
        self.pelvis = self.axes[:, list(skeleton.pelvis)].mean(1)
        self.neck = self.axes[:, list(skeleton.neck)].mean(1)
        self.hands = self._ends("arm", ("hand", "wrist"))
        self.feet = self._ends("leg", ("ankle", "foot"))

    def _heading(self) -> np.ndarray:
        """(T,), the direction that the person faces, in radians to the left of the first axis; 0 without depth."""
        across = np.mean(
            [
                self.axes[:, self.skeleton.right_hip] - self.axes[:, self.skeleton.left_hip],
                self.axes[:, self.skeleton.right_shoulder] - self.axes[:, self.skeleton.left_shoulder],
            ],
            axis=0,
        )
        right, ahead = _smooth(across, round(SWAPPED_SECONDS * FPS))[:, [0, 2]].T
        known = (np.hypot(right, ahead) > ACROSS).nonzero()[0]
        if self.skeleton.dimensions == 2 or not len(known):
            return np.zeros(len(right))
        heading = np.interp(np.arange(len(right)), known, np.unwrap(np.arctan2(ahead, right)[known]))
        return _smooth(heading, round(HEADING_SECONDS * FPS))

    def _unrolled(self) -> np.ndarray:
        """(T, J, 3), the joints in the person's own axes."""
        floor = self.axes[..., 0] + 1j * self.axes[..., 2]  # as complex numbers, right + i ahead
        pelvis, turn = floor[:, list(self.skeleton.pelvis)].mean(1), np.exp(-1j * self.heading)
        path = np.cumsum(turn * np.diff(pelvis, prepend=0))
        floor = turn[:, None] * (floor - pelvis[:, None]) + path[:, None]
        return np.stack([floor.real, self.axes[..., 1], floor.imag], axis=-1)

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
            strokes = _strokes(height, first, last, 0.75)
            if not any(_circle(relative[i:j], height[i:j]) or _swing(relative[i:j], height[i:j]) for i, j in strokes):
                # A large circle begins and ends lower.
                low = _strokes(height, first, last, 0.4)
                if any(_circle(relative[i:j], height[i:j], least=LARGE) for i, j in low):
                    strokes = low
            for start, stop in strokes:
                path, heights = relative[start:stop], height[start:stop]
                # A hand that rests on a table stays where it is, although the shoulders move.
                if _reach(end[start:stop]) < MIN_PATH:
                    continue
                movement = _circle(path, heights) or _swing(path, heights) or _single(path, heights, side)
                if movement is not None:
                    events.append(_event(f"{side} hand", start, stop, path, **movement))
        return _without_return(events)

    def foot(self, side: str) -> list[MotionEvent]:
        """Movements of a foot relative to the floor."""
        events = []
        for first, last in _moving(self.feet[side]):
            path = self.feet[side][first:last]
            movement = _step(path, side)
            if movement is not None:
                events.append(_event(f"{side} foot", first, last, path, **movement))
        return events

    def postures(self) -> list[MotionEvent]:
        """Movements of the whole body: lunging, down, up, bending over, straightening up, jumping."""
        events = self._lunges()
        if (jumps := self._jumps()) is not None:
            events.append(jumps)
        for first, last in _changes(self.pelvis[:, 1], 0.45):
            if jumps is not None and jumps.start - 0.33 < last / FPS and first / FPS < jumps.end + 0.33:
                continue
            kind = "sink" if self.pelvis[last, 1] < self.pelvis[first, 1] else "rise"
            events.append(_event("body", first, last, self.pelvis[first : last + 1], kind=kind))
        trunk, lean = self.neck - self.pelvis, self.lean()
        for first, last in _changes(lean / 35, 1.0):
            kind, way = "straighten", ""
            if lean[last] > lean[first]:
                kind, way = "bend", "forward" if trunk[last, 2] > 0 else "backward"
                if abs(trunk[last, 0]) > abs(trunk[last, 2]):
                    way = "sideways"
            events.append(_event("body", first, last, trunk[first : last + 1], kind=kind, way=way))
        return events

    def lean(self) -> np.ndarray:
        """(T,), the angle between the trunk and the vertical, in degrees."""
        trunk = self.neck - self.pelvis
        return np.rad2deg(np.arccos(np.clip(trunk[:, 1] / np.maximum(np.linalg.norm(trunk, axis=1), 1e-9), -1, 1)))

    def _jumps(self) -> MotionEvent | None:
        """Both feet off the floor. The floor is where each foot mostly is, since sensors err in the height of a foot."""
        if not self.feet or self.skeleton.dimensions == 2:
            return None
        lowest = np.min([foot[:, 1] - np.percentile(foot[:, 1], 10) for foot in self.feet.values()], axis=0)
        # The hips leave with the feet; those of somebody who gets up do not come down again.
        hips = self.pelvis[:, 1]
        jumps = [
            (first, last)
            for first, last in _runs(lowest > 0.15)
            if hips[first:last].max() - max(hips[first], hips[min(last, len(hips) - 1)]) > 0.02 and last - first < FPS
        ]
        if not jumps:
            return None
        first, last = jumps[0][0], jumps[-1][1]
        return _event("body", first, last, self.pelvis[first : last + 1], kind="jump", count=len(jumps))

    def _lunges(self) -> list[MotionEvent]:
        """Steps with which the hips sink, while one foot stays behind."""
        if len(self.feet) < 2 or self.skeleton.dimensions == 2:
            return []
        apart = (self.feet["left"] - self.feet["right"])[:, [0, 2]]
        apart = apart - np.median(apart[:3], axis=0)
        height, events = self.pelvis[:, 1], []
        for first, last in _runs(np.linalg.norm(apart, axis=1) > LUNGE_APART):
            if last - first < MIN_SECONDS * FPS or height[: first + 1].max() - height[first:last].min() < LUNGE_SINKS:
                continue
            aside, ahead = apart[first:last].mean(0)
            moved = {side: np.linalg.norm(foot[first:last].mean(0) - foot[0]) for side, foot in self.feet.items()}
            front = max(moved, key=moved.get)
            sign = 1 if front == "left" else -1
            way = ("forward" if sign * ahead > 0 else "backward") if abs(ahead) > abs(aside) else "sideways"
            path = self.pelvis[first : last + 1]
            events.append(_event("body", first, last, path, kind="lunge", way=way, foot=f"{front} foot"))
        return events

    def travel(self) -> list[MotionEvent]:
        """Walking: movement of the pelvis over the floor, or of the knees in turn on the spot."""
        place = self.pelvis[:, [0, 2]]
        walks = []
        for first, last in _straight(place, 0, len(place) - 1):
            moved = place[last] - place[first]
            if np.linalg.norm(moved) < WALK:
                continue
            way = ("right" if moved[0] > 0 else "left") if abs(moved[0]) > abs(moved[1]) else None
            way = f"to the {way}" if way else "forward" if moved[1] > 0 else "backward"
            first, last = _trimmed((place - place[first]) @ moved, first, last)
            walks.append(_event("body", first, last, self.pelvis[first : last + 1], kind="walk", way=way))
        if walks:
            return walks
        turns = [frame for frame, _ in _turning_points(self._strides(), STRIDE)]
        if len(turns) < FEWEST_STEPS or np.linalg.norm(np.ptp(place[turns[0] : turns[-1] + 1], axis=0)) > SPOT:
            return []
        path = self.feet["left"][turns[0] : turns[-1] + 1]
        return [_event("body", turns[0], turns[-1], path, kind="pace", count=len(turns))]

    def turns(self) -> list[MotionEvent]:
        """Turning; the path is that of a shoulder."""
        shoulders = self.axes[:, self.skeleton.right_shoulder] - self.axes[:, self.skeleton.left_shoulder]
        radius = float(np.median(np.linalg.norm(shoulders, axis=1))) / 2
        degrees, events = np.rad2deg(self.heading), []
        for first, last in _changes(degrees, TURN):
            angle = (degrees[last] - degrees[first]) / 0.9  # the interval has the middle 90 %
            around = next((words for least, words in AROUND if abs(angle) >= least), "")
            way, count = f"{around}to the {'left' if angle > 0 else 'right'}", max(1, round(abs(angle) / 360))
            heading = self.heading[first : last + 1]
            path = radius * np.stack([np.cos(heading), np.sin(heading)], axis=1)
            events.append(_event("body", first, last, path, kind="turn", way=way, count=count))
        return events

    def _strides(self) -> np.ndarray:
        """(T,), how far the left knee is ahead of the right one in torsos; without depth, how far above."""
        knees = [self.skeleton.joint_names.index(name) for name in _KNEES if name in self.skeleton.joint_names]
        if len(knees) < 2 or not self.feet:
            return np.zeros(len(self.axes))
        left, right = self.axes[:, knees, 2 if self.skeleton.dimensions == 3 else 1].T
        return left - right

    def meetings(self) -> list[MotionEvent]:
        """Hands that meet, or cross."""
        if len(self.hands) < 2:
            return []
        between = self.hands["right"] - self.hands["left"]
        height = np.min([hand[:, 1] - self.pelvis[:, 1] for hand in self.hands.values()], axis=0)
        path, apart = self.hands["right"] - self.neck, np.linalg.norm(between, axis=1)
        crossed = [
            (first, last)
            for first, last in _runs((between[:, 0] < -CROSSED) & (height > 0))
            if last - first >= CROSSED_SECONDS * FPS
        ]
        events = [
            _event(
                "both hands",
                first,
                last,
                path[first:last],
                kind="cross",
                heights=(float(np.median(height[first:last])),),
            )
            for first, last in crossed
        ]
        meetings = [
            frame
            for frame, is_top in _turning_points(-apart, MEETING_APART)
            if is_top
            and apart[frame] < MEETING
            and height[frame] > 0
            and apart[0] - apart[frame] > MIN_PATH
            and not any(first - 10 <= frame <= last + 10 for first, last in crossed)
        ]
        if meetings:
            # From hands apart to hands apart.
            longest, middle = round(MEETING_SECONDS * FPS), float(np.median(height[meetings]))
            far = (apart > MEETING + MEETING_APART).nonzero()[0]
            first = max(*far[far < meetings[0]], meetings[0] - longest, 0)
            last = min(*far[far > meetings[-1]], meetings[-1] + longest, len(apart) - 1)
            events.append(
                _event(
                    "both hands",
                    first,
                    last,
                    between[first : last + 1],
                    kind="meet",
                    heights=(middle,),
                    count=len(meetings),
                )
            )
        return events


def _event(part: str, first: int, last: int, path: np.ndarray, **movement) -> MotionEvent:
    """An event from frame `first` to `last`, whose point moves along a path (T, 3)."""
    amount = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()) * (4 if part == "body" else 1)
    return MotionEvent(part, movement.pop("kind"), first / FPS, last / FPS, amount, **movement)


def _smooth(values: np.ndarray, frames: int = SMOOTHING) -> np.ndarray:
    """Running mean over a window of frames along the first axis, which is extended by its first and its last value."""
    reach = frames // 2
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
        if last - first >= MIN_SECONDS * FPS and _reach(part) >= MIN_PATH:
            intervals.append((first, last + 1))
    return intervals


def _strokes(height: np.ndarray, first: int, last: int, share: float) -> list[tuple[int, int]]:
    """Splits a movement of a hand into up to three parts: its way up, up to a share of it, its movement there, and its way
    down."""
    inside = height[first:last]
    top = inside.max()
    cuts = [first, last]
    if inside[0] < HANGING < top - 0.1 and top - inside[0] > 0.5:
        cuts.append(first + int((inside >= inside[0] + share * (top - inside[0])).argmax()) + 1)
    if inside[-1] < HANGING < top - 0.1 and top - inside[-1] > 0.5:
        cuts.append(last - int((inside[::-1] >= inside[-1] + share * (top - inside[-1])).argmax()) - 1)
    cuts = sorted(cuts)
    return [(start, stop) for start, stop in pairwise(cuts) if stop - start >= 3]


def _without_return(events: list[MotionEvent]) -> list[MotionEvent]:
    """Joins a way up and a following way down to the same height."""
    kept: list[MotionEvent] = []
    for event in events:
        before = kept[-1] if kept else None
        is_return = before is not None and (before.kind, event.kind) == ("raise", "lower") and not before.returns
        if is_return and event.start - before.end < 0.4 and _zone(event.heights[1]) == _zone(before.heights[0]):
            kept[-1] = replace(before, end=event.end, amount=before.amount + event.amount, returns=True)
        else:
            kept.append(event)
    return kept


def _reach(path: np.ndarray) -> float:
    """How far a path (T, 3) gets from its start."""
    return float(np.linalg.norm(path - path[0], axis=1).max())


def _changes(values: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Intervals in which a signal changes by at least the threshold, from one turning point to the next, without rests."""
    turns = [0, *(frame for frame, _ in _turning_points(values, threshold)), len(values) - 1]
    return [
        _trimmed(values, first, last)
        for first, last in pairwise(turns)
        if abs(values[last] - values[first]) >= threshold
    ]


def _trimmed(values: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """The part of an interval in which a signal makes the middle 90 % of its change."""
    share = (values[first : last + 1] - values[first]) / (values[last] - values[first])
    return first + int((share > 0.05).argmax()), last - int((share[::-1] < 0.95).argmax())


def _straight(place: np.ndarray, first: int, last: int) -> list[tuple[int, int]]:
    """Splits a path (T, 2) over the floor where it turns: at the frame that is farthest from the line between its ends, if that
    is at least `WALK` (Ramer 1972; Douglas and Peucker 1973)."""
    start, line = place[first], place[last] - place[first]
    share = np.clip((place[first : last + 1] - start) @ line / max(line @ line, 1e-9), 0, 1)
    distance = np.linalg.norm(place[first : last + 1] - start - share[:, None] * line, axis=1)
    if distance.max() < WALK:
        return [(first, last)]
    turn = first + int(distance.argmax())
    return _straight(place, first, turn) + _straight(place, turn, last)


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


def _circle(path: np.ndarray, height: np.ndarray, least: float = 0.0) -> dict | None:
    """A movement that goes round; None if it does not, or if the standard deviation of its width or height, as the person sees
    it, is below `least` torsos."""
    centered = path - path.mean(0)
    _, strength, axes = np.linalg.svd(centered, full_matrices=False)
    first, second = centered @ axes[0], centered @ axes[1]
    if strength[1] < 0.5 * strength[0] or strength[1] / np.sqrt(len(path)) < 0.12:
        return None
    # Number of rounds about the middle, and direction as the person sees it.
    swept = np.unwrap(np.arctan2(second, first))
    rounds = abs(swept[-1] - swept[0]) / (2 * np.pi)
    if rounds < ROUND:
        return None
    right, up = centered[:, 0], centered[:, 1]
    if min(right.std(), up.std()) < least:
        return None
    # The direction is only given if the circle faces the person.
    turned = (right[:-1] * up[1:] - up[:-1] * right[1:]).sum()
    facing = min(right.std(), up.std()) > 0.5 * strength[1] / np.sqrt(len(path))
    way = ("counterclockwise" if turned > 0 else "clockwise") if facing else ""
    return {"kind": "circle", "way": way, "heights": (float(np.median(height)),), "count": max(1, round(rounds))}


def _swing(path: np.ndarray, height: np.ndarray) -> dict | None:
    """A movement that turns at least three times; None if it does not."""
    centered = path - path.mean(0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    turns = _turning_points(centered @ axes[0], SWING)
    if len(turns) < 3:
        return None
    way = ("from side to side", "up and down", "forward and back")[int(np.abs(axes[0]).argmax())]
    middle = float(np.median(height[turns[0][0] : turns[-1][0] + 1]))
    return {"kind": "swing", "way": way, "heights": (middle,), "count": (len(turns) + 1) // 2}


def _single(path: np.ndarray, height: np.ndarray, side: str) -> dict | None:
    """A movement of a hand away, and perhaps back; None if it is shorter than `MIN_PATH`."""
    if (excursion := _excursion(path, side)) is None:
        return None
    far, way, returns = excursion
    if way in ("up", "down"):
        kind = "raise" if way == "up" else "lower"
        return {"kind": kind, "heights": (float(height[0]), float(height[far])), "returns": returns}
    return {"kind": "move", "way": way, "heights": (float(height[far]),), "returns": returns}


def _step(path: np.ndarray, side: str) -> dict | None:
    """A movement of a foot; None if it is shorter than `MIN_PATH`."""
    if (excursion := _excursion(path, side)) is None:
        return None
    _, way, returns = excursion
    if way in ("up", "down"):
        return {"kind": "lift" if way == "up" else "put down", "returns": returns}
    return {"kind": "step", "way": way, "returns": returns}


def _excursion(path: np.ndarray, side: str) -> tuple[int, str, bool] | None:
    """The frame in which a point of a side of the body is farthest from its start, its way there, and whether it comes back;
    None if it does not get `MIN_PATH` away."""
    away = path - path[0]
    distance = np.linalg.norm(away, axis=1)
    far = int(distance.argmax())
    if distance[far] < MIN_PATH:
        return None
    right, up, ahead = away[far]
    ways = (_sideways(right, side), "up" if up > 0 else "down", "forward" if ahead > 0 else "backward")
    return far, ways[int(np.abs(away[far]).argmax())], bool(distance[-1] < 0.45 * distance[far])


def _sideways(right: float, side: str) -> str:
    toward = "right" if right > 0 else "left"
    return f"out to the {toward}" if toward == side else f"across the body to the {toward}"


# -------------------------------------------------------------------------------------------------------------- telling


def _together(left: list[MotionEvent], right: list[MotionEvent], both: str) -> list[MotionEvent]:
    """Movements of both sides; those of the same kind at the same time are joined."""
    joined, rest = [], list(right)
    for event in left:
        for other in rest:
            overlap = min(event.end, other.end) - max(event.start, other.start)
            is_same = (event.kind, event.returns) == (other.kind, other.returns)
            is_same = is_same and event.way in (other.way, _mirrored(other.way))
            if is_same and overlap > 0.5 * max(event.end - event.start, other.end - other.start):
                way = event.way
                if way != other.way:
                    way = (
                        "out to the sides" if way.startswith("out") else "inwards" if way.startswith("across") else ""
                    )
                joined.append(
                    replace(
                        event,
                        part=both,
                        way=way,
                        heights=tuple(np.mean([event.heights, other.heights], axis=0).tolist()),
                        start=min(event.start, other.start),
                        end=max(event.end, other.end),
                        amount=event.amount + other.amount,
                        count=max(event.count, other.count),
                    )
                )
                rest.remove(other)
                break
        else:
            joined.append(event)
    return joined + rest


def _mirrored(way: str) -> str:
    if way.endswith("clockwise"):
        return {"clockwise": "counterclockwise", "counterclockwise": "clockwise"}[way]
    return way.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left")


def _worded(event: MotionEvent, thing: str) -> str:
    """The movement in words, of a part that is called `thing`: "the right hand", or "it"."""
    times = f" {_times(event.count)}" if event.count > 1 else ""
    again = "them" if event.part.startswith("both") else "it"
    level = _level(event.heights[-1]) if event.heights else ""
    if event.kind in ("raise", "lower"):
        start, end = map(_zone, event.heights)
        ways = f"a little {level}" if start == end else f"from {start} to {end}"
        back = f" and {'lowers' if event.kind == 'raise' else 'raises'} {again} again" if event.returns else ""
        return f"{event.kind}s {thing} {ways}{back}"
    if event.kind == "circle":
        way = f"{event.way} " if event.way else ""
        return f"moves {thing} in {f'a {way}circle' if event.count == 1 else f'{way}circles'} {level}"
    back = " and back" if event.returns else ""
    return {
        "move": f"moves {thing} {event.way} {level}{back}",
        "swing": f"swings {thing} {event.way}{times} {level}",
        "meet": f"brings {thing} together{times} {level}",
        "cross": f"crosses {thing} {level}",
        "step": f"steps {event.way} with {thing}{back}",
        "lift": f"lifts {thing}{f' and puts {again} down again' if event.returns else ''}",
        "put down": f"puts {thing} down{f' and lifts {again} again' if event.returns else ''}",
        "sink": "lowers the hips",
        "rise": "raises the hips",
        "bend": f"bends {event.way}",
        "straighten": "straightens up",
        "jump": f"jumps{times}",
        "walk": f"walks {event.way}",
        "pace": f"steps on the spot{times}",
        "turn": f"turns {event.way}{times}",
        "lunge": f"lunges {event.way} with the {event.foot}",
    }[event.kind]


def _narrated(subject: str, events: list[MotionEvent]) -> str:
    """The text of the movements of a person, of what moves most first, and of the limbs that are still."""
    if not events:
        return f"{subject} stands or sits still."
    groups = [
        [event for event in events if event.part == "body"],
        [event for event in events if "hand" in event.part],
        [event for event in events if event.part.endswith(("foot", "feet"))],
    ]
    groups = sorted(filter(None, groups), key=lambda group: -sum(event.amount for event in group))
    sentences = [_sentence(subject, groups[0]), *(_sentence(f"{subject} also", group) for group in groups[1:])]
    return " ".join([*sentences, *_still(events)])


def _sentence(subject: str, events: list[MotionEvent]) -> str:
    """Movements in order of time as a sentence."""
    text, last = f"{subject} {events[0].movement}", events[0]
    for event in events[1:]:
        is_same = event.part == last.part != "body"
        movement = _worded(event, "them" if event.part.startswith("both") else "it") if is_same else event.movement
        text += f"{' and at the same time' if event.start < last.end - 0.3 else ', then'} {movement}"
        last = event
    return f"{text}."


def _still(events: list[MotionEvent]) -> list[str]:
    """A sentence about the limbs that are still; none if none or all of them are."""
    moved = " ".join(event.part for event in events)
    limbs = {"left arm": "left hand", "right arm": "right hand", "left leg": "left foot", "right leg": "right foot"}
    both = {"hand": "both hands" in moved, "foot": "both feet" in moved}
    goes = any(event.kind in (*_CARRYING, "sink", "rise") for event in events)
    still = [
        limb
        for limb, end in limbs.items()
        if end not in moved and not both[end.split()[1]] and not (goes and "leg" in limb)
    ]
    if not still or len(still) == 4:
        return []
    if {"left leg", "right leg"} <= set(still):
        still = [limb for limb in still if "leg" not in limb] + ["legs"]
    if {"left arm", "right arm"} <= set(still):
        still = ["arms"] + [limb for limb in still if "arm" not in limb]
    verb = "is" if len(still) == 1 and still[0] not in ("legs", "arms") else "are"
    return [f"The {' and the '.join(still)} {verb} still."]


__all__ = ["MeasuredBody", "MotionEvent", "MotionNarration", "describe_moment", "narrate"]
