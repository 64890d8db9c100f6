"""Simulated actions of one person: seventeen actions of NTU RGB+D (A006 to A043) as key poses with timing and style.

Each action is a function from a `Take` (a person and the random variation) to a `Motion`. Wrist poses are (outward, up, ahead)
of the shoulder in arm lengths; other lengths are in metres. `s` is the x direction of the person's preferred side.
"""

from collections.abc import Callable

import numpy as np

from .people import LEFT, OUTWARD, RIGHT, Motion, Take, spline

GRAVITY = 9.81


def zigzag(count: int, low, high) -> np.ndarray:
    """2 * count + 1 key values that alternate between `low` and `high`, starting and ending with `low`."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    return np.stack([high if index % 2 else low for index in range(2 * count + 1)])


def ballistic(times: np.ndarray, takeoff: float, landing: float) -> np.ndarray:
    """Height of a body in free flight above its height at take-off, (T,), in metres."""
    since = np.clip(times - takeoff, 0.0, landing - takeoff)
    return 0.5 * GRAVITY * since * (landing - takeoff - since)


def pick_up(take: Take) -> Motion:
    person, s, main = take.person, take.sign, take.main
    down, low, grasped, risen, end = take.start(0.75, 0.2, 0.7, 0.35)
    motion = Motion(take)
    squat = np.clip(take.vary(person.squat, 0.2), 0, 1)
    size = person.stature / 1.7
    spot = np.array([s * take.vary(0.14, 0.06), take.vary(0.09, 0.03), take.vary(0.40, 0.06)]) * size
    keys = [down, low, grasped, risen]
    motion.move(keys, size * np.outer([0, 1, 1, 0], [0.0, -0.14 - 0.34 * squat, -0.13 + 0.05 * squat]))
    motion.turn("pelvis", keys, np.outer([0, 1, 1, 0], [-s * 0.1, 0.75 - 0.35 * squat, -s * 0.06]))
    motion.turn("spine", keys, np.outer([0, 1, 1, 0], [-s * 0.12, 0.62 - 0.1 * squat, -s * 0.05]))
    motion.turn("chest", keys, np.outer([0, 1, 1, 0], [-s * 0.15, 0.38 - 0.12 * squat, 0.0]))
    motion.turn("head", keys, np.outer([0, 1, 0.8, 0], [0.0, 0.25, 0.0]))
    # The hand starts late and arrives with the trunk; afterwards it may carry the object.
    carries = take.likes(0.6)
    carried = (0.05, -0.62, 0.48) if carries else None
    motion.reach(
        main,
        [down, low - 0.25, low, grasped, risen, end],
        [None, (0.05, -0.75, 0.5), (0.0, -0.72, 0.62), (0.0, -0.72, 0.6), carried, carried],
    )
    late = down + 0.45 * (low - down)
    motion.touch(main, [late, low, grasped, grasped + 0.5 * (risen - grasped)], [0, 1, 1, 0], "floor", spot)
    if take.likes(0.3 + 0.4 * squat):
        knee = size * np.array([-s * 0.15, 0.47 - 0.1 * squat, 0.24])
        motion.touch(take.other, keys, [0, 0.85, 0.85, 0], "floor", knee, palm=False)
    return motion


def throw(take: Take) -> Motion:
    person, s, main = take.person, take.sign, take.main
    ready, cocked, release, through, end = take.start(0.6, 0.29, 0.3, 0.5)
    motion = Motion(take)
    size, force = person.stature / 1.7, person.amplitude
    overhand = take.likes(0.75)
    if overhand:
        poses = [None, (0.45, 0.42, -0.38), (-0.02, 0.52, 0.82), (-0.45, -0.45, 0.55), None]
        elbows = [None, (1.0, 0.1, -0.3), (0.9, -0.4, -0.2), (0.6, -0.5, -0.3), None]
        lean = 0.16
    else:
        poses = [None, (0.2, -0.75, -0.6), (0.05, -0.15, 0.95), (-0.2, 0.4, 0.75), None]
        elbows = [None, (0.3, -0.6, -0.8), (0.3, -0.9, -0.2), (0.4, -0.9, 0.0), None]
        lean = 0.3
    keys = [ready, cocked, release, through, end]
    motion.reach(main, keys, poses, elbow=elbows, hand=[None, (0, 0.3, -0.7), (0, 0.1, 0.3), (0, -0.6, 0.2), None])
    balance = take.between(0.2, 1.0)
    motion.reach(
        take.other,
        keys,
        [None, (0.3, -0.75 + 0.6 * balance, 0.55), (0.35, -0.7, 0.1), (0.35, -0.85, -0.15), None],
    )
    share = person.trunk_share * force
    motion.turn(
        "chest",
        keys,
        [
            [0, 0, 0],
            [s * 0.45 * share, -0.1, s * 0.08],
            [-s * 0.25 * share, lean, 0],
            [-s * 0.4 * share, lean + 0.1, 0],
            [0, 0, 0],
        ],
    )
    motion.turn(
        "spine",
        keys,
        [
            [0, 0, 0],
            [s * 0.25 * share, -0.06, s * 0.06],
            [-s * 0.15 * share, 0.12, 0],
            [-s * 0.25 * share, 0.18, 0],
            [0, 0, 0],
        ],
    )
    motion.turn(
        "pelvis",
        keys,
        [[0, 0, 0], [s * 0.22 * share, 0, 0], [-s * 0.12 * share, 0.05, 0], [-s * 0.2 * share, 0.08, 0], [0, 0, 0]],
    )
    stride = take.between(-0.1, 0.42) * size
    if stride > 0.08:
        toes = motion.toe_start(take.other)
        motion.step(take.other, cocked - 0.3, cocked + 0.08, (toes[0], toes[2] + stride))
    back, ahead = 0.05 * force * size, 0.07 * force * size
    motion.move(
        keys,
        [
            [0, 0, 0],
            [s * 0.03, -0.02, -back],
            [-s * 0.02, -0.04, ahead],
            [-s * 0.02, -0.04, ahead],
            [0, 0, 0.3 * ahead],
        ],
    )
    return motion


def _sit(motion: Motion, times, amounts, seat_height: float) -> None:
    """Moves the pelvis back and down to the seat; inverse kinematics brings the knees forward."""
    person = motion.person
    size = person.stature / 1.7
    down = seat_height - person.pelvis_height
    motion.move(times, np.outer(amounts, [0.0, down, -0.36 * size]))


def _hands_in_lap(take: Take, motion: Motion, times, amounts, seat_height: float) -> None:
    if take.likes(0.75):
        size = take.person.stature / 1.7
        ahead, apart = take.vary(0.02, 0.06), take.vary(0.13, 0.03)
        for side in (LEFT, RIGHT):
            lap = np.array([OUTWARD[side] * apart, seat_height + 0.10 * size, ahead * size])
            motion.touch(side, times, np.asarray(amounts) * 0.95, "floor", lap, palm=False)


def sit_down(take: Take) -> Motion:
    size = take.person.stature / 1.7
    begin, lowering, seated, end = take.start(0.4, 0.85, 0.35)
    motion = Motion(take)
    seat = take.vary(0.53, 0.025)
    lean = take.person.trunk_share * take.vary(0.38, 0.08)
    _sit(motion, [begin, lowering, seated], [0, 0.15, 1], seat)
    middle = lowering + 0.5 * (seated - lowering)
    keys = [begin, lowering, middle, seated, end]
    motion.turn("pelvis", keys, np.outer([0, 0.5, 0.8, -0.1, -0.25], [0, lean, 0]))
    motion.turn("spine", keys, np.outer([0, 0.4, 0.7, 0.2, 0.1], [0, lean, 0]))
    motion.turn("chest", keys, np.outer([0, 0.2, 0.4, 0.2, 0.1], [0, lean, 0]))
    if take.likes(0.4):  # a glance at the chair
        motion.turn("head", [begin - 0.3, begin, lowering, middle], np.outer([0, 1, 1, 0], [take.sign * 0.7, 0.2, 0]))
    for side in (LEFT, RIGHT):
        ahead = take.vary(0.28, 0.1)
        motion.reach(
            side, [begin, middle, seated, end], [None, (0.1, -0.85, ahead), (0.12, -0.8, 0.35), (0.12, -0.8, 0.3)]
        )
    _hands_in_lap(take, motion, [middle, seated + 0.1], [0, 1], seat)
    if take.likes(0.35):  # feet together under the chair afterwards
        toes = motion.toe_start(take.main)
        motion.step(
            take.main, seated + 0.05, seated + 0.4, (toes[0], toes[2] + take.vary(0.0, 0.08) * size), lift=0.03
        )
    return motion


def stand_up(take: Take) -> Motion:
    size = take.person.stature / 1.7
    begin, leaning, rising, up, end = take.start(0.38, 0.22, 0.75, 0.3)
    motion = Motion(take)
    seat = take.vary(0.53, 0.025)
    lean = take.person.trunk_share * take.vary(0.62, 0.1)
    motion.toe[..., 2] -= take.vary(0.03, 0.04) * size
    _sit(motion, [begin, leaning, rising, up], [1, 0.97, 0.72, 0], seat)
    keys = [begin, leaning, rising, up, end]
    motion.turn("pelvis", keys, np.outer([-0.15, 0.7, 0.75, 0.05, 0], [0, lean, 0]))
    motion.turn("spine", keys, np.outer([0.12, 0.55, 0.5, 0.02, 0], [0, lean, 0]))
    motion.turn("chest", keys, np.outer([0.1, 0.3, 0.25, 0.0, 0], [0, lean, 0]))
    motion.turn("head", keys, np.outer([0, -0.25, -0.2, 0, 0], [0, lean, 0]))
    pushes = take.likes(0.45)
    for side in (LEFT, RIGHT):
        swing = (0.15, -0.75, 0.55) if not pushes else (0.15, -0.9, 0.15)
        motion.reach(side, keys, [(0.12, -0.8, 0.3), (0.12, -0.8, 0.4), swing, None, None])
    _hands_in_lap(take, motion, [begin, rising if pushes else leaning, up], [1, 0.8 if pushes else 0.2, 0], seat)
    return motion


def _hands_together(take: Take, motion: Motion, times, weights, points, *, spread: float = 0.0) -> None:
    """Brings both wrists to mirrored points (K or T, 3) in the frame of the chest; x is outward."""
    for side in (LEFT, RIGHT):
        point = np.asarray(points, dtype=np.float64) * [OUTWARD[side], 1.0, 1.0]
        point = point + spread * take.chance.standard_normal(3)
        motion.touch(side, times, weights, "chest", point, palm=False)


def _hold(motion: Motion, side: int, keys, pose, *, elbow, hand) -> None:
    """Moves a hand to a pose at the second key and keeps it until the third; the arm hangs at the first and fourth key."""
    motion.reach(side, keys, [None, pose, pose, None], elbow=[None, elbow, elbow, None], hand=[None, hand, hand, None])


def _front_pose(take: Take, motion: Motion, keys, up: float, ahead: float) -> None:
    """Raises both hands in front of the trunk at the inner keys; they hang at the first and last key."""
    for side in (LEFT, RIGHT):
        _hold(motion, side, keys, (-0.15, up, ahead), elbow=(0.75, -0.7, -0.2), hand=(-0.3, 0.5, 0.3))


def clap(take: Take) -> Motion:
    person, size = take.person, take.person.stature / 1.7
    count, begin, claps, down = take.repeat((2.6, 6.4), (0.28, 0.46), raising=0.5, lowering=0.55, at_ease=0.5)
    motion = Motion(take)
    height, ahead = take.vary(-0.14, 0.07) * size, take.vary(0.30, 0.04) * size
    gap = np.clip(take.vary(0.11, 0.035) * person.amplitude, 0.05, 0.24)
    keys = [begin, claps[0], claps[-1], down]
    _front_pose(take, motion, keys, height / person.arm, 0.6)
    apart = spline(claps, zigzag(count, [gap], [0.022]), motion.times)
    points = np.concatenate([apart, np.full_like(apart, height), np.full_like(apart, ahead)], axis=1)
    _hands_together(take, motion, keys, [0, 1, 1, 0], points)
    motion.turn("chest", claps, zigzag(count, [0, 0, 0], [0, 0.03 * person.trunk_share, 0]))
    return motion


def cheer_up(take: Take) -> Motion:
    person, size = take.person, take.person.stature / 1.7
    count, begin, pumps, down = take.repeat((0.6, 3.4), (0.42, 0.7), raising=0.55, lowering=0.6, at_ease=0.45)
    raised = pumps[0]
    motion = Motion(take)
    both = take.likes(0.9)
    amount = np.clip(take.vary(0.35, 0.12) * person.amplitude, 0.1, 0.7)
    for side in (LEFT, RIGHT):
        if side == take.other and not both:
            continue
        top = take.vary(np.array([0.32, 0.86, 0.18]), 0.1)
        low = top * (1 - 0.45 * amount) + np.array([0.25, -0.45, 0.25]) * amount
        keys = np.concatenate([[begin, begin + 0.5 * (raised - begin)], pumps, [0.5 * (pumps[-1] + down), down]])
        way = (0.6, 0.0, 0.6)
        poses = [None, way, *zigzag(count, top, low), way, None]
        out = (1.0, -0.3, 0.1)
        motion.reach(side, keys, poses, elbow=[None, *[out] * (len(keys) - 2), None], spread=0.02)
    bounce = 0.05 * size * person.amplitude * take.between(0.0, 1.0)
    motion.move(pumps, zigzag(count, [0, 0, 0], [0, -bounce, 0]))
    proud = -take.vary(0.1, 0.06)
    motion.turn("chest", [begin, raised, pumps[-1], down], np.outer([0, 1, 1, 0], [0, proud, 0]))
    motion.turn("head", [begin, raised, pumps[-1], down], np.outer([0, 1, 1, 0], [0, 1.3 * proud, 0]))
    return motion


def wave_hand(take: Take) -> Motion:
    person, s, main = take.person, take.sign, take.main
    count, begin, waves, down = take.repeat((1.6, 5.0), (0.42, 0.72), raising=0.55, lowering=0.55, at_ease=0.5)
    motion = Motion(take)
    height = take.between(0.1, 0.85)
    width = np.clip(take.vary(0.24, 0.07) * person.amplitude, 0.1, 0.45)
    middle = np.array([0.36 - 0.1 * height, 0.15 + 0.75 * height, 0.55 - 0.4 * height])
    swing = np.array([width, -0.15 * width, 0.0])
    keys = np.concatenate([[begin], waves, [down]])
    elbow = (0.75 + 0.2 * height, -0.75, 0.1)
    bend = 0.28 * np.clip(take.vary(1.0, 0.4), 0, 1.8)
    motion.reach(
        main,
        keys,
        [None, *zigzag(count, middle - swing, middle + swing), None],
        elbow=[None, *[elbow] * (len(keys) - 2), None],
        hand=[None, *zigzag(count, [-bend, 0.2, 0], [bend, 0.2, 0]), None],
        spread=0.02,
    )
    tilt = s * 0.05 * person.trunk_share
    motion.turn("chest", waves, zigzag(count, [0, 0, tilt], [0, 0, -tilt]))
    motion.turn("head", [begin, waves[0], waves[-1], down], np.outer([0, 1, 1, 0], [s * take.vary(0.0, 0.12), 0, 0]))
    return motion


def kick_foot(motion: Motion, keys, back: float, ahead: float, height: float) -> None:
    """Moves the preferred foot at five key times: lift, back, hit, recoil, ground."""
    take, person = motion.take, motion.person
    s, main = take.sign, take.main
    home = motion.toe_start(main)
    size = person.stature / 1.7
    toes = home + size * np.array(
        [
            [0, 0, 0],
            [0, 0.16, -back],
            [-s * 0.05, height, ahead],
            [-s * 0.02, 0.35 * height + 0.05, 0.3 * ahead],
            [0, 0, 0],
        ]
    )
    motion.swing_foot(main, keys, toes, [0.0, 0.8, 0.25, 0.4, 0.0])
    support = -s * (person.stance + 0.02)
    motion.move(keys, [[0, 0, 0], [support, 0.0, -0.02], [support, -0.01, -0.03], [support, 0, 0], [0, 0, 0]])
    force = person.amplitude
    motion.turn(
        "pelvis", keys, [[0, 0, 0], [s * 0.1, 0.08, 0], [-s * 0.22, -0.22 * force, 0], [0, -0.05, 0], [0, 0, 0]]
    )
    motion.turn("spine", keys, np.outer([0, -0.4, 1, 0.5, 0], [s * 0.1, 0.16 * force, 0]))
    motion.turn("chest", keys, np.outer([0, -0.6, 1, 0.3, 0], [s * 0.25, 0.06, 0]))
    balance = take.between(0.15, 1.0)
    for side, ahead_at in ((take.other, (-0.2, 0.5)), (main, (0.4, -0.45))):
        poses = [None, *[(0.3 + 0.3 * balance, -0.9 + 0.4 * balance, z * balance + 0.05) for z in ahead_at]]
        motion.reach(side, keys, [*poses, (0.25, -0.9, 0.1), None])


def kick(take: Take) -> Motion:
    keys = take.start(0.38, 0.22, 0.28, 0.35)
    motion = Motion(take)
    height = np.clip(take.vary(0.32, 0.13), 0.12, 0.75)
    kick_foot(motion, keys, take.vary(0.3, 0.06), np.clip(take.vary(0.62, 0.08), 0.4, 0.8), height)
    motion.turn("head", keys, np.outer([0, 1, 1, 1, 0], [0, 0.3, 0]))
    return motion


def _leap(motion: Motion, feet, takeoff: float, landing: float) -> None:
    """Adds free flight of the whole body: the pelvis and the given feet rise together."""
    height = ballistic(motion.times, takeoff, landing)
    motion.shift[:, 1] += height
    for side in feet:
        motion.toe[:, side, 1] += np.maximum(height - 0.02, 0.0)
        motion.foot_pitch[:, side] += spline(
            [takeoff - 0.14, takeoff, landing - 0.04, landing + 0.08], [0.0, 0.75, 0.35, 0.0], motion.times
        )
        motion.planted[:, side] &= (motion.times <= takeoff) | (motion.times >= landing)


def hop(take: Take) -> Motion:
    person, s, main = take.person, take.sign, take.main
    size = person.stature / 1.7
    count = int(np.rint(take.between(2.6, 4.6)))
    lifting, ready = take.start(0.45)
    flights = np.clip(take.vary(np.full(count, 0.25 * np.sqrt(person.amplitude)), 0.02), 0.17, 0.34)
    ground = take.durations(*[0.24] * count)
    takeoffs = ready + np.cumsum(ground) + np.concatenate([[0.0], np.cumsum(flights)[:-1]])
    landings = takeoffs + flights
    settled = landings[-1] + take.durations(0.5)[0]
    take.run_until(settled + take.chance.uniform(0.1, 0.4))
    motion = Motion(take)
    other = take.other
    home = motion.toe_start(other)
    lifted = home + size * np.array([0.0, take.vary(0.3, 0.07), -take.vary(0.22, 0.08)])
    motion.swing_foot(
        other, [lifting, ready, landings[-1] + 0.1, settled], [home, lifted, lifted, home], [0.0, 0.7, 0.7, 0.0]
    )
    support = s * (person.stance + 0.01)
    motion.move([lifting, ready, landings[-1] + 0.1, settled], np.outer([0, 1, 1, 0], [support, 0, 0.01]))
    dip = 0.05 * size
    for takeoff, landing in zip(takeoffs, landings, strict=True):
        _leap(motion, (main,), takeoff, landing)
        motion.toe[:, other, 1] += ballistic(motion.times, takeoff, landing)
        motion.move([takeoff - 0.2, takeoff - 0.1, takeoff], [[0, 0, 0], [0, -dip, 0], [0, 0, 0]])
        motion.move([landing, landing + 0.09, landing + 0.2], [[0, 0, 0], [0, -dip, 0], [0, 0, 0]])
    arms_out = take.between(0.0, 1.0)
    pose = (0.25 + 0.5 * arms_out, -0.85 + 0.35 * arms_out, 0.3)
    beats = np.stack([takeoffs, landings], axis=1).ravel()
    for side in (LEFT, RIGHT):
        bob = np.tile([[0.0, 0.0, 0.0], [0.06, 0.12, 0.0]], (count, 1))
        poses = [None, *(np.array(pose) + bob), None]
        motion.reach(side, [lifting, *beats, settled], poses, spread=0.03)
    motion.turn("spine", [lifting, ready, landings[-1], settled], np.outer([0, 1, 1, 0], [0, 0.12, -s * 0.05]))
    return motion


def jump_up(take: Take) -> Motion:
    person = take.person
    size = person.stature / 1.7
    jumps = 1 + int(take.likes(0.35))
    begin = take.start(0.1)[0]
    motion_keys = []
    now = begin
    for _ in range(jumps):
        crouch, launch = take.durations(0.42, 0.2)
        flight = float(np.clip(take.vary(0.42, 0.05) * np.sqrt(person.amplitude), 0.26, 0.58))
        absorb, rise = take.durations(0.16, 0.36)
        keys = now + np.cumsum([0.0, crouch, launch, flight, absorb, rise])
        motion_keys.append(keys)
        now = keys[-1]
    take.run_until(now + take.chance.uniform(0.1, 0.4))
    motion = Motion(take)
    depth = np.clip(take.vary(0.22, 0.06) * person.amplitude, 0.1, 0.36) * size
    swings = take.between(0.25, 1.0)
    arm_keys, arm_poses = [], []
    for low, crouched, takeoff, landing, absorbed, up in motion_keys:
        motion.move([low, crouched, takeoff], [[0, 0, 0], [0, -depth, -0.05], [0, 0.0, 0.0]])
        motion.move([landing, absorbed, up], [[0, 0, 0], [0, -0.7 * depth, -0.03], [0, 0, 0]])
        _leap(motion, (LEFT, RIGHT), takeoff, landing)
        keys = [low, crouched, takeoff, landing, absorbed, up]
        motion.turn("pelvis", keys, np.outer([0, 1, 0, 0.1, 0.6, 0], [0, 0.35, 0]))
        motion.turn("spine", keys, np.outer([0, 1, -0.1, 0.1, 0.7, 0], [0, 0.28, 0]))
        motion.turn("head", keys, np.outer([0, -0.2, -0.5, 0, 0, 0], [0, 0.3, 0]))
        high = 0.5 * (takeoff + landing)
        arm_keys += [low, crouched, high, absorbed]
        arm_poses += [
            None,
            (0.2, -0.85, -0.15 - 0.45 * swings),
            (0.3, -0.75 + 1.35 * swings, 0.45 + 0.2 * swings),
            (0.3, -0.75, 0.3),
        ]
    for side in (LEFT, RIGHT):
        motion.reach(side, [*arm_keys, now], [*arm_poses, None], spread=0.04)
    return motion


def point_at(take: Take) -> Motion:
    person, s, main = take.person, take.sign, take.main
    begin, there, held, down = take.start(0.55, take.between(0.6, 1.3), 0.6)
    motion = Motion(take)
    azimuth = np.clip(take.vary(0.2, 0.45), -0.5, 1.3)
    elevation = np.clip(take.vary(0.08, 0.2), -0.4, 0.5)
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    keys = [begin, there, held, down]
    way = begin + 0.5 * (there - begin)
    motion.reach(
        main,
        [begin, way, there, held, down],
        [None, 0.72 * (0.6 * direction + np.array([0, -0.45, 0.1])), 0.97 * direction, 0.96 * direction, None],
        spread=0.03,
    )
    turned = s * azimuth
    motion.turn("head", keys, np.outer([0, 1, 1, 0], [0.7 * turned, -0.4 * elevation, 0]))
    motion.turn("chest", keys, np.outer([0, 1, 1, 0], [(0.25 * turned - s * 0.12) * person.trunk_share, 0, 0]))
    motion.turn("spine", keys, np.outer([0, 1, 1, 0], [0.12 * turned * person.trunk_share, 0.03, 0]))
    return motion


def rub_hands(take: Take) -> Motion:
    person, size = take.person, take.person.stature / 1.7
    count, begin, strokes, down = take.repeat((2.6, 6.4), (0.3, 0.5), raising=0.5, lowering=0.55, at_ease=0.5)
    motion = Motion(take)
    height, ahead = take.vary(-0.22, 0.07) * size, take.vary(0.27, 0.04) * size
    keys = [begin, strokes[0], strokes[-1], down]
    _front_pose(take, motion, keys, height / person.arm, 0.55)
    length = np.clip(take.vary(0.045, 0.012) * person.amplitude, 0.02, 0.08)
    path = spline(strokes, zigzag(count, [-length], [length]), motion.times)
    upright = take.between(0.2, 0.8)
    for side in (LEFT, RIGHT):
        along = OUTWARD[side] * path
        rest = np.full_like(path, OUTWARD[side] * 0.025)
        points = np.concatenate([rest, height + upright * along, ahead + (1 - upright) * along], axis=1)
        motion.touch(side, keys, [0, 1, 1, 0], "chest", points, palm=False)
    motion.turn("spine", keys, np.outer([0, 1, 1, 0], [0, take.vary(0.05, 0.05), 0]))
    motion.turn("head", keys, np.outer([0, 1, 1, 0], [0, take.vary(0.15, 0.1), 0]))
    return motion


def bow(take: Take) -> Motion:
    """A nod of the head, a bow of the trunk, or something between, depending on the person's habit."""
    person = take.person
    depth = take.between(0.0, 1.0)
    if depth < 0.35:
        count, period = int(np.rint(take.between(1.6, 3.4))), take.between(0.55, 0.85)
        begin = take.start(0.1)[0]
        keys = take.cycles(begin, count, period)
        pattern = zigzag(count, [0.0], [1.0])[:, 0]
    else:
        keys = take.start(0.75, take.between(0.15, 0.6), 0.8)
        pattern = np.array([0.0, 1.0, 1.0, 0.0])
    take.run_until(keys[-1] + take.chance.uniform(0.2, 0.6))
    motion = Motion(take)
    amount = person.amplitude * depth
    motion.turn("head", keys, np.outer(pattern, [0, 0.5 - 0.1 * depth, 0]))
    motion.turn("chest", keys, np.outer(pattern, [0, 0.05 + 0.18 * amount, 0]))
    motion.turn("spine", keys, np.outer(pattern, [0, 0.03 + 0.4 * amount, 0]))
    motion.turn("pelvis", keys, np.outer(pattern, [0, 0.6 * max(amount - 0.15, 0.0), 0]))
    motion.move(keys, np.outer(pattern, [0, 0, -0.15 * max(amount - 0.15, 0.0)]))
    if depth > 0.35 and take.likes(0.5):  # hands on the thighs
        for side in (LEFT, RIGHT):
            motion.touch(side, keys, 0.9 * pattern, "pelvis", [OUTWARD[side] * 0.13, -0.22, 0.12], palm=False)
    return motion


def wipe_face(take: Take) -> Motion:
    main, size = take.main, take.person.stature / 1.7
    count, begin, strokes, down = take.repeat((0.8, 3.2), (0.42, 0.75), raising=0.6, lowering=0.6, at_ease=0.45)
    motion = Motion(take)
    across, downward = take.vary(0.055, 0.02), take.vary(0.035, 0.03)
    sides = (LEFT, RIGHT) if take.likes(0.25) else (main,)
    keys = [begin, strokes[0], strokes[-1], down]
    for side in sides:
        middle = np.array([0.045 if len(sides) == 2 else 0.01, -0.01, 0.12])
        swing = np.array([across, downward, 0.0])
        points = size * spline(strokes, zigzag(count, middle - swing, middle + swing), motion.times)
        _hold(motion, side, keys, (-0.25, 0.3, 0.5), elbow=(0.7, -0.75, 0.1), hand=(-0.7, 0.6, -0.1))
        motion.touch(side, keys, [0, 1, 1, 0], "head", points * [OUTWARD[side], 1, 1])
    motion.turn("head", keys, np.outer([0, 1, 1, 0], [0, take.vary(0.15, 0.1), 0]))
    return motion


def salute(take: Take) -> Motion:
    s, main, size = take.sign, take.main, take.person.stature / 1.7
    begin, there, held, down = take.start(0.5, take.between(0.5, 1.1), 0.5)
    motion = Motion(take)
    keys = [begin, there, held, down]
    _hold(motion, main, keys, (0.1, 0.36, 0.3), elbow=(1.0, -0.15, 0.15), hand=(-0.3, 0.2, -0.1))
    brow = size * np.array([s * take.vary(0.11, 0.015), take.vary(0.05, 0.02), take.vary(0.09, 0.02)])
    motion.touch(main, keys, [0, 1, 1, 0], "head", brow)
    straight = take.vary(-0.7, 0.3) * take.person.slouch
    motion.turn("chest", keys, np.outer([0, 1, 1, 0.5], [0, straight, 0]))
    motion.turn("head", keys, np.outer([0, 1, 1, 0.5], [0, straight, 0]))
    return motion


def cross_hands(take: Take) -> Motion:
    person, size = take.person, take.person.stature / 1.7
    begin, there, held, down = take.start(0.6, take.between(0.5, 1.2), 0.6)
    motion = Motion(take)
    height, ahead = take.vary(0.02, 0.09) * size, take.vary(0.28, 0.05) * size
    way = begin + 0.55 * (there - begin)
    for side in (LEFT, RIGHT):
        motion.reach(
            side,
            [begin, way, there, held, down],
            [None, (0.25, -0.35, 0.6), (-0.5, height / person.arm, 0.55), (-0.5, height / person.arm, 0.55), None],
            elbow=[None, *[(0.8, -0.65, 0.0)] * 3, None],
            hand=[None, (0, 0.3, 0), (-0.2, 0.75, 0), (-0.2, 0.75, 0), None],
        )
        crossed = -OUTWARD[side] * np.clip(take.vary(0.085, 0.03), 0.03, 0.16) * size
        front = 0.03 if side == take.main else -0.03
        motion.touch(
            side,
            [way, there, held, 0.5 * (held + down)],
            [0, 1, 1, 0],
            "chest",
            [crossed, height, ahead + front],
            palm=False,
        )
    return motion


def fall(take: Take) -> Motion:
    """A fall to the side, backward or forward, depending on the person's habit."""
    person, s = take.person, take.sign
    size = person.stature / 1.7
    begin, tipping, impact, still = take.start(0.35, 0.5, 0.45)
    take.run_until(still + take.chance.uniform(0.4, 0.8))
    motion = Motion(take)
    keys = [begin, tipping, impact, still]
    manner = take.habit.random()
    lying = (0.21 if 0.4 <= manner < 0.75 else 0.16) * size - person.pelvis_height
    motion.turn("head", keys, np.outer([0, 1, 0.4, 0.2], [take.vary(0.0, 0.3), 0.2, take.vary(0.0, 0.1)]))
    if manner < 0.4:  # sits down hard and rolls onto the back
        motion.move(
            keys,
            size
            * np.array(
                [[0, 0, 0], [0, -0.16, -0.18], [s * 0.05, lying / size, -0.42], [s * 0.05, lying / size, -0.5]]
            ),
        )
        motion.turn("pelvis", keys, [[0, 0, 0], [0, -0.1, 0], [s * 0.2, -0.7, 0], [s * 0.2, -1.2, 0]])
        motion.turn("spine", keys, [[0, 0, 0], [0, 0.3, 0], [0, 0.3, 0], [0, -0.1, 0]])
        hands = [(0.35, -0.6, 0.5), (0.5, -0.7, -0.3), (0.6, -0.55, -0.1)]
    elif manner < 0.75:  # knees give way, down on one side
        motion.move(
            keys,
            size
            * np.array(
                [[0, 0, 0], [s * 0.12, -0.25, -0.05], [s * 0.42, lying / size, -0.12], [s * 0.46, lying / size, -0.14]]
            ),
        )
        motion.turn(
            "pelvis",
            keys,
            [[0, 0, 0], [s * 0.15, 0.2, -s * 0.25], [s * 0.3, 0.25, -s * 1.0], [s * 0.3, 0.15, -s * 1.35]],
        )
        motion.turn("spine", keys, [[0, 0, 0], [0, 0.25, s * 0.1], [0, 0.3, s * 0.2], [0, 0.2, -s * 0.05]])
        hands = [(0.45, -0.5, 0.5), (0.35, -0.3, 0.75), (0.2, -0.45, 0.6)]
    else:  # onto the knees, then flat forward on the hands
        flat = 0.97 * person.leg + person.hip_drop + 0.09 * size  # the toes stay in place, so the legs end up straight
        motion.move(keys, [[0, 0, 0], [0, -0.34 * size, 0.05], [0, lying + 0.18, 0.82 * flat], [0, lying, flat]])
        motion.turn("pelvis", keys, [[0, 0, 0], [0, 0.2, 0], [0, 1.25, 0], [0, 1.5, 0]])
        motion.turn("spine", keys, [[0, 0, 0], [0, 0.3, 0], [0, -0.2, 0], [0, -0.05, 0]])
        motion.foot_pitch += spline(keys, [0.0, 0.9, 1.25, 1.3], motion.times)[:, None]
        hands = [(0.2, -0.2, 0.8), (0.3, 0.15, 0.55), (0.4, 0.45, 0.35)]
    for side in (LEFT, RIGHT):
        motion.reach(side, keys, [None, *hands], spread=0.08)
    motion.knee_out += spline(keys, [0.0, 0.15, 0.3, 0.35], motion.times)[:, None]
    return motion


SINGLE_ACTIONS: dict[int, Callable[[Take], Motion]] = {
    6: pick_up,
    7: throw,
    8: sit_down,
    9: stand_up,
    10: clap,
    22: cheer_up,
    23: wave_hand,
    24: kick,
    26: hop,
    27: jump_up,
    31: point_at,
    34: rub_hands,
    35: bow,
    37: wipe_face,
    38: salute,
    40: cross_hands,
    43: fall,
}
