"""Simulated people: bodies with bone lengths and habits, and the kinematics that turn a motion into 25 joints.

A `Person` has a body (bone lengths in metres) and a way of moving (tempo, amplitude, posture, handedness). A `Motion` gives,
for each frame, the positions of the pelvis and the toes, the rotations of the trunk, the position of each wrist relative to
its shoulder, and the points that the hands touch. `Motion.solve` computes the joints, by forward kinematics for the trunk and
two-bone inverse kinematics for arms and legs: bones keep their length in every frame, and planted toes do not move.

Coordinates of a person are in metres: y up, z ahead, x to the person's left, and the floor at y = 0. Rotations are (yaw, pitch,
roll) in radians, applied as R_y(yaw) R_x(pitch) R_z(roll): positive yaw turns left, positive pitch leans forward, positive roll
leans right. Sides have the index 0 (left) or 1 (right).
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

FRAME_RATE = 30.0
LEFT, RIGHT = 0, 1
OUTWARD = np.array([1.0, -1.0])  # x direction of "outward" on each side


class Joint(IntEnum):
    """The 25 joints of Kinect v2, with their index in the file."""

    SPINE_BASE = 0
    SPINE_MID = 1
    NECK = 2
    HEAD = 3
    SHOULDER_LEFT = 4
    ELBOW_LEFT = 5
    WRIST_LEFT = 6
    HAND_LEFT = 7
    SHOULDER_RIGHT = 8
    ELBOW_RIGHT = 9
    WRIST_RIGHT = 10
    HAND_RIGHT = 11
    HIP_LEFT = 12
    KNEE_LEFT = 13
    ANKLE_LEFT = 14
    FOOT_LEFT = 15
    HIP_RIGHT = 16
    KNEE_RIGHT = 17
    ANKLE_RIGHT = 18
    FOOT_RIGHT = 19
    SPINE_SHOULDER = 20
    HAND_TIP_LEFT = 21
    THUMB_LEFT = 22
    HAND_TIP_RIGHT = 23
    THUMB_RIGHT = 24


LEFT_HANDED = frozenset({2, 6, 9, 14, 20, 23, 28, 33, 38})
"""Left-handed performers. The list is fixed so that both parts of the subject split of NTU RGB+D 60 have some."""

ARMS = np.array([[4, 5, 6, 7, 21, 22], [8, 9, 10, 11, 23, 24]])  # shoulder, elbow, wrist, hand, tip, thumb
LEGS = np.array([[12, 13, 14, 15], [16, 17, 18, 19]])  # hip, knee, ankle, foot (toes)


@dataclass(frozen=True)
class Person:
    """A body and a way of moving. Lengths are in metres and angles in radians; `draw_person` has their distributions."""

    number: int
    stature: float
    lower_spine: float
    upper_spine: float
    neck: float
    head: float
    clavicle: float
    upper_arm: float
    forearm: float
    palm: float
    fingers: float
    thumb: float
    hip: float
    thigh: float
    shin: float
    ankle_height: float
    foot: float
    main_side: int
    """LEFT or RIGHT: the preferred hand and foot."""
    tempo: float
    """Divides durations."""
    amplitude: float
    """Multiplies oscillations, leans and leaps."""
    slouch: float
    """Pitch of the upper trunk and head when standing at ease."""
    stance: float
    """Half the distance between the feet."""
    toe_out: float
    carry: float
    """How far hanging arms are away from the body and bent, 0 to 1."""
    trunk_share: float
    """How much the trunk moves with an arm."""
    squat: float
    """0 bends the back, 1 bends the knees."""
    unrest: float
    """Scale of sway and idle motion."""
    lag: float
    """Seconds by which the hands follow the arms, and the trunk leads them."""

    @property
    def arm(self) -> float:
        """Length of the straight arm from shoulder to wrist, the unit of wrist positions."""
        return self.upper_arm + self.forearm

    @property
    def leg(self) -> float:
        return self.thigh + self.shin

    @cached_property
    def hip_drop(self) -> float:
        """Distance of the hip joints below the base of the spine."""
        return 0.45 * self.hip

    @cached_property
    def pelvis_height(self) -> float:
        """Height of the base of the spine when the person stands with almost straight knees."""
        spread = max(self.stance - self.hip, 0.0)
        return self.ankle_height + np.sqrt((0.985 * self.leg) ** 2 - spread**2) + self.hip_drop

    @cached_property
    def toe_offset(self) -> np.ndarray:
        """Vector from the ankle to the toes of a flat foot, (3,)."""
        drop = self.ankle_height - 0.02
        return np.array([0.0, -drop, np.sqrt(max(self.foot**2 - drop**2, 1e-4))])


def draw_person(seed: int, number: int) -> Person:
    """The person with this number in the simulation of this seed: the same in every call."""
    rng = np.random.default_rng([seed, 1, number])

    def near(mean, spread, low, high):
        return float(np.clip(rng.normal(mean, spread), low, high))

    stature = near(1.70, 0.095, 1.48, 1.95)
    size = stature / 1.70
    trunk, arms, legs = (near(1.0, 0.035, 0.92, 1.08) for _ in range(3))
    breadth, hips = near(1.0, 0.07, 0.84, 1.16), near(1.0, 0.08, 0.82, 1.2)

    def bone(length, share):
        return size * length * share * near(1.0, 0.02, 0.95, 1.05)

    return Person(
        number=number,
        stature=stature,
        lower_spine=bone(0.287, trunk),
        upper_spine=bone(0.215, trunk),
        neck=bone(0.072, trunk),
        head=bone(0.128, 1.0),
        clavicle=bone(0.168, breadth),
        upper_arm=bone(0.262, arms),
        forearm=bone(0.240, arms),
        palm=bone(0.072, arms),
        fingers=bone(0.060, arms),
        thumb=bone(0.050, arms),
        hip=bone(0.078, hips),
        thigh=bone(0.385, legs),
        shin=bone(0.372, legs),
        ankle_height=bone(0.078, 1.0),
        foot=bone(0.130, legs),
        main_side=LEFT if number in LEFT_HANDED else RIGHT,
        tempo=float(np.clip(np.exp(rng.normal(0.0, 0.13)), 0.72, 1.38)),
        amplitude=near(1.0, 0.16, 0.68, 1.4),
        slouch=near(0.07, 0.05, -0.03, 0.2),
        stance=size * near(0.115, 0.03, 0.06, 0.2),
        toe_out=near(0.16, 0.1, -0.05, 0.45),
        carry=float(rng.random()),
        trunk_share=near(1.0, 0.35, 0.3, 1.8),
        squat=float(rng.random()),
        unrest=float(np.clip(np.exp(rng.normal(0.0, 0.35)), 0.45, 2.2)),
        lag=near(0.05, 0.02, 0.01, 0.1),
    )


# ---------------------------------------------------------------------------------------------------- trajectories


def spline(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A smooth path through key values, (K,), (K, ...), (T,) → (T, ...); constant outside the keys.

    The pieces are quintic polynomials with zero acceleration at the keys. At a key where the direction reverses, the velocity
    is zero, so that a piece between two such keys is the minimum-jerk movement of Flash and Hogan (1985). At other keys, the
    velocity is the harmonic mean of the neighbouring velocities, which never overshoots.
    """
    times = np.asarray(times, dtype=np.float64)
    values = np.asarray(values, dtype=np.float64)
    trailing = (1,) * (values.ndim - 1)
    spans = np.diff(times).reshape(-1, *trailing)
    slopes = np.diff(values, axis=0) / spans
    before, after = slopes[:-1], slopes[1:]
    passing = before * after > 0
    velocity = np.zeros_like(values)
    velocity[1:-1][passing] = 2 * (before * after)[passing] / (before + after)[passing]

    at = np.clip(at, times[0], times[-1])
    piece = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    span = spans[piece]
    s = (at - times[piece]).reshape(-1, *trailing) / span
    s3 = s**3
    end = s3 * (10 + s * (-15 + 6 * s))
    start_speed = s + s3 * (-6 + s * (8 - 3 * s))
    end_speed = s3 * (-4 + s * (7 - 3 * s))
    return (
        values[piece] * (1 - end)
        + values[piece + 1] * end
        + span * (velocity[piece] * start_speed + velocity[piece + 1] * end_speed)
    )


def drift(rng: np.random.Generator, frames: int, channels: int, cutoff: float) -> np.ndarray:
    """Slow random motion (frames, channels) with unit variance and almost no frequencies above `cutoff` Hz."""
    from scipy.ndimage import gaussian_filter1d

    sigma = FRAME_RATE / (2 * np.pi * cutoff)
    noise = rng.standard_normal((frames, channels))
    return gaussian_filter1d(noise, sigma, axis=0, mode="reflect") * np.sqrt(2 * np.sqrt(np.pi) * sigma)


# ------------------------------------------------------------------------------------------------------- rotations


def rotation(angles: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in radians (..., 3) → rotation matrices (..., 3, 3)."""
    (cy, cp, cr), (sy, sp, sr) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    matrix = np.empty((*np.shape(angles)[:-1], 3, 3))
    matrix[..., 0, 0] = cy * cr + sy * sp * sr
    matrix[..., 0, 1] = sy * sp * cr - cy * sr
    matrix[..., 0, 2] = sy * cp
    matrix[..., 1, 0] = cp * sr
    matrix[..., 1, 1] = cp * cr
    matrix[..., 1, 2] = -sp
    matrix[..., 2, 0] = cy * sp * sr - sy * cr
    matrix[..., 2, 1] = cy * sp * cr + sy * sr
    matrix[..., 2, 2] = cy * cp
    return matrix


def apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) times vectors (..., 3), broadcast."""
    return (matrix @ np.asarray(vector)[..., None])[..., 0]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)


def two_bone(root, target, upper: float, lower: float, pole):
    """Middle and end joint of a limb with two bones that reaches for `target` and bends towards `pole`.

    Positions and directions are (..., 3), lengths are in metres. If the target is out of reach, the limb points towards it:
    bones keep their length.
    """
    towards = target - root
    distance = np.linalg.norm(towards, axis=-1, keepdims=True)
    axis = towards / np.maximum(distance, 1e-9)
    reach = np.clip(distance, abs(upper - lower) + 0.02, 0.998 * (upper + lower))
    along = (upper**2 + reach**2 - lower**2) / (2 * reach)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    bend = unit(pole - (pole * axis).sum(-1, keepdims=True) * axis)
    return root + along * axis + aside * bend, root + reach * axis


# ---------------------------------------------------------------------------------------------------------- motion


def _around_the_shoulder(times: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds a key outward and ahead between nearly opposite wrist positions, so that the path does not cross the shoulder."""
    directions = unit(keys)
    for index in np.flatnonzero((directions[1:] * directions[:-1]).sum(axis=1) < -0.2)[::-1]:
        between = unit(directions[index] + directions[index + 1] + [0.5, 0.0, 0.7])
        distance = 0.5 * (np.linalg.norm(keys[index]) + np.linalg.norm(keys[index + 1]))
        times = np.insert(times, index + 1, 0.5 * (times[index] + times[index + 1]))
        keys = np.insert(keys, index + 1, between * distance, axis=0)
    return times, keys


@dataclass
class Contact:
    """A point that a hand touches: `point` (3,) or (T, 3) in the frame of head, chest, pelvis or floor."""

    side: int
    weight: np.ndarray
    frame: str
    point: np.ndarray
    palm: bool
    """Whether the palm reaches the point; otherwise the wrist does."""


class Take:
    """A person in a performance, with its frame times and two sources of random variation.

    `habit` is the same in every repetition of an action by this person; `chance` differs. A recording has at most `longest`
    frames, even if the action is not finished.
    """

    def __init__(self, person: Person, habit: np.random.Generator, chance: np.random.Generator, *, longest: int = 128):
        self.person = person
        self.habit = habit
        self.chance = chance
        self.longest = longest
        self.times = np.zeros(0)

    @property
    def main(self) -> int:
        return self.person.main_side

    @property
    def other(self) -> int:
        return 1 - self.person.main_side

    @property
    def sign(self) -> float:
        """The x direction of the preferred side."""
        return OUTWARD[self.person.main_side]

    def vary(self, mean, spread):
        """`mean` (number or array) plus variation by habit and by chance, with the standard deviation `spread` in total."""
        shape = np.shape(mean)
        return mean + spread * (0.8 * self.habit.standard_normal(shape) + 0.6 * self.chance.standard_normal(shape))

    def between(self, low: float, high: float) -> float:
        """A value between two bounds, which depends mostly on the person's habit."""
        return low + (high - low) * float(np.clip(0.75 * self.habit.random() + 0.25 * self.chance.random(), 0, 1))

    def likes(self, probability: float) -> bool:
        """Whether the person does something that way; mostly the same in every repetition."""
        habit, whim, chance = self.habit.random(), self.chance.random(), self.chance.random()
        return (chance if whim < 0.15 else habit) < probability

    def durations(self, *seconds: float) -> np.ndarray:
        """Durations at this person's tempo, with a small variation."""
        pace = self.person.tempo * np.exp(0.06 * self.chance.standard_normal())
        each = np.exp(self.vary(np.zeros(len(seconds)), 0.14))
        return np.array(seconds) * each / pace

    def start(self, *seconds: float) -> np.ndarray:
        """Key times of a sequence of phases that starts after a moment at ease; the take ends a moment after the last phase."""
        lead = self.chance.uniform(0.15, 0.6)
        keys = lead + np.concatenate([[0.0], np.cumsum(self.durations(*seconds))])
        self.run_until(keys[-1] + self.chance.uniform(0.15, 0.55))
        return keys

    def repeat(
        self,
        counts: tuple[float, float],
        periods: tuple[float, float],
        *,
        raising: float,
        lowering: float,
        at_ease: float,
    ) -> tuple[int, float, np.ndarray, float]:
        """Times of a repeated movement: the hands rise, move back and forth, and go down. Sets the length of the take.

        Args:
            counts: bounds of the number of repetitions.
            periods: bounds of the duration of a repetition, in seconds.
            raising, lowering: durations in seconds.
            at_ease: longest time at ease after the movement, in seconds.

        Returns:
            The number of repetitions; the time when the hands begin to rise; the times when the movement reverses,
            (2 * count + 1,); and the time when the hands are down.
        """
        count, period = int(np.rint(self.between(*counts))), self.between(*periods)
        begin, raised = self.start(raising)
        reversals = self.cycles(raised, count, period)
        down = reversals[-1] + self.durations(lowering)[0]
        self.run_until(down + self.chance.uniform(0.1, at_ease))
        return count, begin, reversals, down

    def run_until(self, seconds: float) -> None:
        frames = int(np.clip(round(seconds * FRAME_RATE), 48, self.longest))
        self.times = np.arange(frames) / FRAME_RATE

    def cycles(self, begin: float, count: int, period: float) -> np.ndarray:
        """Times at which `count` back-and-forth movements reverse, (2 * count + 1,)."""
        halves = np.full(2 * count, period / 2 / self.person.tempo) * np.exp(
            0.09 * self.chance.standard_normal(2 * count)
        )
        return begin + np.concatenate([[0.0], np.cumsum(halves)])


class Motion:
    """The motion of a person over the frames of a take. It starts as standing at ease; the methods add movements."""

    def __init__(self, take: Take):
        person, rng, frames = take.person, take.chance, len(take.times)
        self.take, self.person, self.times = take, person, take.times
        slow, quick = drift(rng, frames, 12, 0.25), drift(rng, frames, 16, 0.9)
        unrest = person.unrest
        breath = rng.uniform(0, 2 * np.pi) + 2 * np.pi * rng.uniform(0.2, 0.34) * self.times
        breath = np.sin(breath + 0.35 * np.sin(breath))  # breathing in is faster than breathing out

        # Trunk: yaw, pitch, roll (T, 3) of each part relative to the part below.
        self.pelvis = unrest * 0.018 * slow[:, 0:3]
        self.spine = unrest * 0.014 * slow[:, 3:6]
        self.chest = unrest * 0.010 * quick[:, 0:3]
        self.head = unrest * 0.030 * quick[:, 3:6]
        self.chest[:, 1] += person.slouch - 0.012 * breath
        self.head[:, 1] += 0.6 * person.slouch
        weight_shift = 0.012 * slow[:, 6] + 0.5 * person.stance * np.clip(take.vary(0.0, 0.5), -1, 1)
        self.shift = np.stack([unrest * weight_shift, np.zeros(frames), unrest * 0.007 * slow[:, 7]], axis=1)
        self.pelvis[:, 2] -= 0.35 * self.shift[:, 0]
        self.heading = np.zeros(frames)
        self.airborne = np.zeros(frames)

        # Arms: wrist relative to the shoulder (outward, up, ahead) in arm lengths; `hang` is 1 for an arm that hangs freely.
        self.rest = np.empty((2, 3))
        for side in (LEFT, RIGHT):
            stand_off = 0.10 + 0.14 * person.carry
            self.rest[side] = take.vary(
                np.array([stand_off, -0.975 + 0.06 * person.carry, 0.05 + 0.13 * person.carry]), 0.03
            )
        idle = unrest * 0.016 * np.stack([slow[:, 8:11], np.roll(slow[:, 8:11], frames // 3, axis=0)], axis=1)
        self.wrist = self.rest + idle
        self.shrug = 0.02 * breath[:, None] + unrest * 0.015 * quick[:, 6:8]
        self.hang = np.ones((frames, 2))
        self.elbow = np.tile([0.35, -0.8, -0.5], (frames, 2, 1))
        self.hand = 0.06 * unrest * quick[:, 8:14].reshape(frames, 2, 3) + [-0.08, 0.0, 0.12]
        self.contacts: list[Contact] = []

        # Feet: position of the toes, direction of the foot (yaw), and lift of the heel (pitch).
        stagger = take.vary(0.0, 0.03)
        self.toe = np.zeros((frames, 2, 3))
        self.toe[..., 0] = OUTWARD * (person.stance + 0.3 * person.toe_out * person.foot)
        self.toe[..., 1] = 0.02
        self.toe[..., 2] = 0.55 * person.foot + np.array([stagger, -stagger])
        self.foot_yaw = np.tile(OUTWARD * person.toe_out, (frames, 1))
        self.foot_pitch = np.zeros((frames, 2))
        self.planted = np.ones((frames, 2), dtype=bool)
        self.knee_out = np.zeros((frames, 2))

    # ------------------------------------------------------------------------------------------------- trunk

    def turn(self, part: str, times, angles) -> None:
        """Adds a rotation path to "pelvis", "spine", "chest" or "head"; the trunk leads the arms by a fraction of `lag`."""
        lead = {"pelvis": 1.0, "spine": 0.6, "chest": 0.3, "head": 1.4}[part] * self.person.lag
        getattr(self, part).__iadd__(spline(times, angles, self.times + lead))

    def move(self, times, offsets) -> None:
        """Adds a path (K, 3) to the position of the pelvis over the feet."""
        self.shift += spline(times, offsets, self.times)

    # -------------------------------------------------------------------------------------------------- arms

    def reach(self, side: int, times, poses, *, elbow=None, hand=None, spread: float = 0.05) -> None:
        """Moves a wrist through poses, each (outward, up, ahead) of the shoulder in arm lengths, or None for a hanging arm.

        Direction and distance are interpolated separately, so that the wrist moves on arcs. `elbow` (K, 3) are directions of
        the elbow, and `hand` (K, 3) directions in which the hand bends; None leaves the default.
        """
        hanging = np.array([pose is None for pose in poses], dtype=np.float64)
        keys = np.stack(
            [self.rest[side] if pose is None else self.take.vary(np.array(pose), spread) for pose in poses]
        )
        path_times, path_keys = _around_the_shoulder(np.asarray(times), keys)
        distance = np.linalg.norm(path_keys, axis=1)
        path = unit(spline(path_times, path_keys / distance[:, None], self.times))
        self.hang[:, side] = spline(times, hanging, self.times)
        idle = self.wrist[:, side] - self.rest[side]
        self.wrist[:, side] = path * spline(path_times, distance, self.times)[:, None] + idle
        if elbow is not None:
            default = self.elbow[0, side]
            self.elbow[:, side] = spline(times, [default if e is None else e for e in elbow], self.times)
        if hand is not None:
            bends = np.array([(0.0, 0.0, 0.0) if h is None else h for h in hand], dtype=np.float64)
            self.hand[:, side] += spline(times, bends, self.times - self.person.lag)

    def touch(self, side: int, times, weights, frame: str, point, *, palm: bool = True) -> None:
        """Brings a hand to a point. The frames "head", "chest" and "pelvis" move with the body; "floor" is fixed."""
        weight = spline(times, weights, self.times)
        self.contacts.append(Contact(side, weight, frame, np.asarray(point, dtype=np.float64), palm))

    # -------------------------------------------------------------------------------------------------- feet

    def step(self, side: int, begin: float, end: float, to, *, yaw: float | None = None, lift: float = 0.07) -> None:
        """Lifts a foot, heel first, and puts its toes down at `to` (x, z), where they stay."""
        times = self.times
        phase = np.clip((times - begin) / (end - begin), 0, 1)
        done = phase**3 * (10 + phase * (-15 + 6 * phase))
        start = self.toe[max(np.searchsorted(times, begin) - 1, 0), side].copy()
        after = times >= begin
        self.toe[after, side, 0] = start[0] + (to[0] - start[0]) * done[after]
        self.toe[after, side, 2] = start[2] + (to[1] - start[2]) * done[after]
        self.toe[after, side, 1] = 0.02 + lift * (16 * phase**2 * (1 - phase) ** 2)[after]
        heel = spline([begin - 0.16, begin + 0.02, begin + 0.6 * (end - begin), end], [0.0, 0.5, 0.1, 0.0], times)
        self.foot_pitch[:, side] += heel * min(1.0, lift / 0.05)
        if yaw is not None:
            self.foot_yaw[after, side] += (yaw - self.foot_yaw[after, side]) * done[after]
        self.planted[:, side] &= (phase <= 0) | (phase >= 1)

    def swing_foot(self, side: int, times, toes, pitch) -> None:
        """Moves the toes of a lifted foot through points (K, 3); the foot is planted again at the last point."""
        self.toe[:, side] = spline(times, toes, self.times)
        self.foot_pitch[:, side] += spline(times, pitch, self.times)
        self.planted[:, side] &= (self.times <= times[0]) | (self.times >= times[-1])

    def toe_start(self, side: int) -> np.ndarray:
        return self.toe[0, side].copy()

    # ------------------------------------------------------------------------------------------------ joints

    def solve(self) -> np.ndarray:
        """The joints, float64 (T, 25, 3) in metres, in the person's coordinates."""
        person, frames = self.person, len(self.times)
        joints = np.empty((frames, 25, 3))
        upright = rotation(np.stack([self.heading, np.zeros(frames), np.zeros(frames)], axis=1))
        pelvis = upright @ rotation(self.pelvis)
        base = self._pelvis_position(upright, pelvis)

        spine = pelvis @ rotation(self.spine)
        chest = spine @ rotation(self.chest)
        joints[:, Joint.SPINE_BASE] = base
        joints[:, Joint.SPINE_MID] = base + person.lower_spine * spine[..., 1]
        top = joints[:, Joint.SPINE_MID] + person.upper_spine * chest[..., 1]
        joints[:, Joint.SPINE_SHOULDER] = top
        joints[:, Joint.NECK] = top + person.neck * chest[..., 1]
        # The gaze stays fixed: the head compensates part of the rotation of the trunk.
        gaze = (
            self.head
            - np.array([0.5, 0.35, 0.4]) * (self.spine + self.chest)
            - np.array([0.0, 0.2, 0.3]) * self.pelvis
        )
        head = chest @ rotation(gaze)
        joints[:, Joint.HEAD] = joints[:, Joint.NECK] + apply(head, person.head * np.array([0.0, 0.985, 0.173]))

        frame_of = {
            "head": (joints[:, Joint.HEAD], head),
            "chest": (top, chest),
            "pelvis": (base, pelvis),
            "floor": (np.zeros(3), np.eye(3)),
        }
        for side in (LEFT, RIGHT):
            self._solve_arm(joints, side, upright, chest, frame_of)
            self._solve_leg(joints, side, upright, pelvis)
        return joints

    def _toe_to_ankle(self, side: int, upright) -> np.ndarray:
        foot = np.stack([self.foot_yaw[:, side], self.foot_pitch[:, side], np.zeros(len(self.times))], axis=1)
        return -apply(upright @ rotation(foot), self.person.toe_offset)

    def _hip_offset(self, side: int, pelvis) -> np.ndarray:
        person = self.person
        across = np.sqrt(person.hip**2 - person.hip_drop**2)
        return apply(pelvis, np.array([OUTWARD[side] * across, -person.hip_drop, 0.0]))

    def _pelvis_position(self, upright, pelvis) -> np.ndarray:
        """Position of the pelvis: it follows the feet, and is lowered if a planted leg would be too short."""
        from scipy.ndimage import gaussian_filter1d, maximum_filter1d

        person = self.person
        between = gaussian_filter1d(self.toe[..., [0, 2]].mean(axis=1), 3.5, axis=0, mode="nearest")
        position = np.zeros((len(self.times), 3))
        position[:, [0, 2]] = between
        position += apply(upright, self.shift - np.array([0.0, 0.0, 0.55 * person.foot]))
        position[:, 1] += person.pelvis_height
        excess = np.zeros(len(self.times))
        for side in (LEFT, RIGHT):
            ankle = self.toe[:, side] + self._toe_to_ankle(side, upright)
            hip = position + self._hip_offset(side, pelvis)
            aside = ((hip - ankle)[:, [0, 2]] ** 2).sum(axis=1)
            highest = ankle[:, 1] + np.sqrt(np.maximum((0.99 * person.leg) ** 2 - aside, 0.0))
            excess = np.where(self.planted[:, side], np.maximum(excess, hip[:, 1] - highest), excess)
        if excess.any():
            position[:, 1] -= gaussian_filter1d(maximum_filter1d(excess, 5, mode="nearest"), 1.2, mode="nearest")
        return position

    def _solve_arm(self, joints, side: int, upright, chest, frame_of) -> None:
        person, outward = self.person, OUTWARD[side]
        shoulder_joint, elbow_joint, wrist_joint, hand_joint, tip_joint, thumb_joint = ARMS[side]
        mirror = np.array([outward, 1.0, 1.0])
        # A raised arm lifts the shoulder.
        lift = self.shrug[:, side] + 0.22 * np.clip(self.wrist[:, side, 1] + 0.1, 0, 1.2)
        forward = 0.25 * np.clip(self.wrist[:, side, 2], -0.6, 1.0) * (1 - self.hang[:, side])
        turn = rotation(np.stack([-outward * forward, np.zeros_like(lift), outward * lift], axis=1))
        joints[:, shoulder_joint] = joints[:, Joint.SPINE_SHOULDER] + apply(
            chest @ turn, person.clavicle * np.array([0.975 * outward, -0.222, 0.0])
        )
        shoulder = joints[:, shoulder_joint]

        local = person.arm * self.wrist[:, side] * mirror
        hang = self.hang[:, side, None]
        wrist = shoulder + (1 - hang) * apply(chest, local) + hang * apply(upright, local)
        for contact in self.contacts:
            if contact.side != side:
                continue
            origin, axes = frame_of[contact.frame]
            goal = origin + apply(axes, contact.point)
            if contact.palm:
                goal = goal - 0.9 * person.palm * unit(goal - shoulder)
            wrist = wrist + contact.weight[:, None] * (goal - wrist)
        wrist[:, 1] = np.maximum(wrist[:, 1], 0.05)
        pole = apply(chest, self.elbow[:, side] * mirror)
        pole[:, 1] += 2.0 * np.clip((0.7 - shoulder[:, 1]) / 0.4, 0, 1)  # keeps the elbow above the floor
        joints[:, elbow_joint], joints[:, wrist_joint] = two_bone(
            shoulder, wrist, person.upper_arm, person.forearm, pole
        )
        along = unit(joints[:, wrist_joint] - joints[:, elbow_joint])
        palm = unit(along + apply(chest, self.hand[:, side] * mirror))
        palm[:, 1] = np.maximum(palm[:, 1], (0.02 - joints[:, wrist_joint, 1]) / (person.palm + person.fingers))
        palm = unit(palm)
        joints[:, hand_joint] = joints[:, wrist_joint] + person.palm * palm
        joints[:, tip_joint] = joints[:, hand_joint] + person.fingers * unit(palm + 0.35 * (palm - along))
        inward = apply(chest, np.array([-0.5 * outward, 0.45, 0.75]))
        inward = unit(inward - (inward * palm).sum(-1, keepdims=True) * palm)
        joints[:, thumb_joint] = joints[:, hand_joint] + person.thumb * unit(0.45 * palm + inward)

    def _solve_leg(self, joints, side: int, upright, pelvis) -> None:
        person = self.person
        hip_joint, knee_joint, ankle_joint, foot_joint = LEGS[side]
        to_ankle = self._toe_to_ankle(side, upright)
        joints[:, hip_joint] = joints[:, Joint.SPINE_BASE] + self._hip_offset(side, pelvis)
        splay = OUTWARD[side] * (0.12 + self.knee_out[:, side]) + 0.5 * self.foot_yaw[:, side]
        pole = apply(pelvis, np.stack([np.sin(splay), np.zeros_like(splay), np.cos(splay)], axis=1))
        pole = pole + 0.6 * apply(upright, np.array([0.0, 0.0, 1.0]))
        joints[:, knee_joint], joints[:, ankle_joint] = two_bone(
            joints[:, hip_joint], self.toe[:, side] + to_ankle, person.thigh, person.shin, pole
        )
        joints[:, foot_joint] = joints[:, ankle_joint] - to_ankle
