"""Simulated actions of two people: seven mutual actions of NTU RGB+D (A050 to A060).

Each interaction is a function from the takes of an actor and a partner to their two motions, and the distance in metres at
which they start face to face. Each motion is in the coordinates of its person (`people`); `facing` places both in a room. The
point (x, y, z) of the actor is (-x, y, distance - z) for the partner.
"""

from collections.abc import Callable

import numpy as np

from .actions import zigzag
from .people import LEFT, OUTWARD, RIGHT, Motion, Take, spline

REACTION = 0.13  # seconds between a touch and the response of the body


def facing(joints: np.ndarray, distance: float, *, partner: bool) -> np.ndarray:
    """Joints (T, 25, 3) in room coordinates: the origin is half way between the two people, and the actor looks along +z."""
    if partner:
        joints = joints * [-1.0, 1.0, -1.0]
    return joints + np.array([0.0, 0.0, 0.5 * distance if partner else -0.5 * distance])


def _together(actor: Take, partner: Take) -> tuple[Motion, Motion]:
    partner.times = actor.times
    return Motion(actor), Motion(partner)


def _chest_height(take: Take) -> float:
    person = take.person
    return person.pelvis_height + person.lower_spine + 0.6 * person.upper_spine


def _step_by(motion: Motion, side: int, begin: float, end: float, ahead: float, lift: float = 0.06) -> None:
    frame = int(np.searchsorted(motion.times, begin))
    toes = motion.toe[min(frame, len(motion.times) - 1), side]
    motion.step(side, begin, end, (toes[0], toes[2] + ahead), lift=lift)


def _give_way(motion: Motion, hit: float, force: float, turn: float, *, steps: float) -> None:
    """The response of a body that is hit or pushed at time `hit`: trunk and head go back, with a step after a hard hit."""
    take = motion.take
    keys = [hit, hit + REACTION + 0.08, hit + 0.45, hit + 0.95]
    amounts = np.array([0.0, 1.0, 0.6, 0.1]) * force
    motion.turn("spine", keys, np.outer(amounts, [0.3 * turn, -0.26, 0.0]))
    motion.turn("chest", keys, np.outer(amounts, [0.5 * turn, -0.2, 0.0]))
    motion.turn("head", keys, np.outer(amounts, [1.2 * turn, -0.25 * (1 - abs(turn)), 0.0]))
    motion.move(keys, np.outer(amounts, [0.0, -0.03, -0.10]))
    for side in (LEFT, RIGHT):
        fling = 0.75 * force
        pose = (0.35, -0.9 + 0.3 * fling, 0.15 + 0.6 * fling)
        motion.reach(side, keys, [None, pose, (0.3, -0.85, 0.25), None], spread=0.1)
    if steps > 0.08:
        first = take.main if take.likes(0.6) else take.other
        begin = hit + REACTION
        _step_by(motion, first, begin, begin + 0.3, -steps)
        _step_by(motion, 1 - first, begin + 0.28, begin + 0.62, -0.9 * steps)


def punch(actor: Take, partner: Take) -> tuple[Motion, Motion, float]:
    s, main = actor.sign, actor.main
    size = actor.person.stature / 1.7
    slap = actor.likes(0.35)
    ready, cocked, hit, back, end = actor.start(0.5, 0.26, 0.32, 0.45)
    distance = float(np.clip(actor.vary(0.80, 0.07), 0.65, 1.0)) * size
    motion, other = _together(actor, partner)
    keys = [ready, cocked, hit, back, end]
    if slap:
        poses = [None, (0.75, 0.1, 0.3), (-0.3, 0.3, 0.8), (-0.6, 0.0, 0.5), None]
        elbows = [None, (0.7, -0.7, -0.3), (0.9, -0.5, 0.0), (0.7, -0.7, 0.0), None]
    else:
        poses = [None, (0.25, -0.25, -0.05), (-0.15, 0.2, 0.95), (0.1, -0.2, 0.4), None]
        elbows = [None, (0.6, -0.5, -0.9), (0.6, -0.7, -0.2), (0.5, -0.8, -0.4), None]
    motion.reach(main, keys, poses, elbow=elbows)
    low = 0.0 if slap or actor.likes(0.5) else 0.28
    face = partner.person.stature * 0.88 - low
    target = np.array([s * actor.vary(0.03, 0.02), face, distance - 0.08])
    motion.touch(main, [cocked, hit, hit + 0.6 * (back - hit)], [0, 0.95, 0], "floor", target)
    guard = actor.between(0.0, 0.6)
    motion.reach(
        actor.other, keys, [None, (0.1, -0.7 + 0.6 * guard, 0.3 + 0.3 * guard), (0.15, -0.75, 0.15), None, None]
    )
    share = actor.person.trunk_share
    motion.turn("chest", keys, np.outer([0, 0.7, -1, -0.3, 0], [s * 0.4 * share, -0.08, 0]))
    motion.turn("spine", keys, np.outer([0, 0.6, -1, -0.3, 0], [s * 0.25 * share, -0.12, 0]))
    motion.turn("pelvis", keys, np.outer([0, 0.6, -1, -0.3, 0], [s * 0.2 * share, -0.03, 0]))
    motion.move(keys, np.outer([0, -0.6, 1, 0.4, 0], [0, 0, 0.07 * size]))
    stride = actor.between(-0.12, 0.25)
    if stride > 0.06:
        _step_by(motion, actor.other, cocked - 0.28, cocked + 0.05, stride)
    force = float(np.clip(partner.vary(0.8, 0.2), 0.3, 1.3))
    _give_way(other, hit, force, -s * (0.6 if slap else 0.2), steps=partner.between(-0.2, 0.3))
    return motion, other, distance


def push(actor: Take, partner: Take) -> tuple[Motion, Motion, float]:
    size = actor.person.stature / 1.7
    ready, cocked, touch, pushed, end = actor.start(0.5, 0.18, 0.25, 0.55)
    distance = float(np.clip(actor.vary(0.74, 0.06), 0.6, 0.92)) * size
    motion, other = _together(actor, partner)
    keys = [ready, cocked, touch, pushed, end]
    height = _chest_height(partner)
    drive = 0.16 * actor.person.amplitude
    for side in (LEFT, RIGHT):
        poses = [None, (0.05, -0.15, 0.35), (0.0, -0.05, 0.8), (0.0, -0.05, 0.97), None]
        motion.reach(
            side,
            keys,
            poses,
            elbow=[None, (0.6, -0.8, -0.3), (0.5, -0.8, 0), (0.5, -0.8, 0), None],
            hand=[None, (0, 0.7, 0.1), (0, 0.8, 0), (0, 0.7, 0), None],
        )
        at = [cocked, touch, pushed, pushed + 0.25]
        path = spline([touch, pushed], [distance - 0.10, distance - 0.10 + drive], motion.times)
        points = np.stack([np.full_like(path, OUTWARD[side] * 0.12), np.full_like(path, height), path], axis=1)
        motion.touch(side, at, [0, 0.9, 0.9, 0], "floor", points)
    lean = actor.person.trunk_share * 0.22
    motion.turn("pelvis", keys, np.outer([0, -0.2, 0.6, 1, 0], [0, lean, 0]))
    motion.turn("spine", keys, np.outer([0, -0.2, 0.6, 1, 0], [0, lean, 0]))
    motion.move(keys, size * np.outer([0, -0.3, 0.5, 1, 0], [0, -0.03, 0.10]))
    if actor.likes(0.6):
        _step_by(motion, actor.other, cocked - 0.25, touch, actor.vary(0.2, 0.05))
    force = float(np.clip(partner.vary(1.0, 0.2), 0.5, 1.5))
    _give_way(other, touch, force, 0.0, steps=float(np.clip(partner.vary(0.32, 0.08), 0.12, 0.5)))
    return motion, other, distance


def hug(actor: Take, partner: Take) -> tuple[Motion, Motion, float]:
    size = actor.person.stature / 1.7
    begin, near, held, apart = actor.start(0.85, actor.between(0.6, 1.1), 0.8)
    close = float(np.clip(actor.vary(0.30, 0.03), 0.24, 0.36)) * size
    distance = close + actor.between(0.2, 0.55)
    motion, other = _together(actor, partner)
    keys = [begin, near, held, apart]
    way = begin + 0.55 * (near - begin)
    over = actor.likes(0.5)  # whether the arms of the actor go over the partner's shoulders
    for mine, theirs, high in ((motion, other, over), (other, motion, not over)):
        take = mine.take
        stride = 0.5 * (distance - close)
        first = take.main
        _step_by(mine, first, begin, begin + 0.45 * (near - begin), stride)
        _step_by(mine, 1 - first, begin + 0.45 * (near - begin), near, stride)
        _step_by(mine, first, held + 0.25, apart, -actor.vary(0.16, 0.04))
        back = _chest_height(theirs.take) + (0.12 if high else -0.14)
        # The partner's back in the coordinates of this person.
        behind = stride + close + 0.10
        for side in (LEFT, RIGHT):
            up = 0.25 if high else -0.25
            mine.reach(
                side,
                [begin, way, near, held, apart],
                [None, (0.45, up, 0.7), (0.05, up, 0.85), (0.05, up, 0.85), None],
                elbow=[None, *[(1.0, -0.5, 0.2)] * 3, None],
                hand=[None, (-0.3, 0, 0), (-0.9, 0, -0.2), (-0.9, 0, -0.2), None],
            )
            point = np.array([OUTWARD[side] * take.vary(0.05, 0.03), back, behind])
            mine.touch(side, [way, near, held, held + 0.4 * (apart - held)], [0, 1, 1, 0], "floor", point)
        aside = 0.16 * (1 if high else -1)
        mine.turn("spine", keys, np.outer([0, 1, 1, 0.1], [0, 0.12, 0.4 * aside]))
        mine.turn("chest", keys, np.outer([0, 1, 1, 0.1], [0, 0.08, 0.4 * aside]))
        mine.turn("head", keys, np.outer([0, 1, 1, 0], [-2.0 * aside, 0.15, aside]))
        mine.move(keys, np.outer([0, 1, 1, 0.2], [-0.35 * aside, 0, 0.02]))
    patted = actor.cycles(near + 0.1, 2, 0.4)
    motion.turn("chest", patted, zigzag(2, [0, 0, 0], [0, 0.03, 0]))
    return motion, other, distance


def _meeting_hands(motion: Motion, side: int, keys, weights, point, *, up: float, elbow_out: float) -> None:
    person = motion.person
    poses = [None, *[(0.0, up, 0.7)] * (len(keys) - 2), None]
    elbow = (elbow_out, -0.9, -0.3)
    motion.reach(
        side,
        keys,
        poses,
        elbow=[None, *[elbow] * (len(keys) - 2), None],
        hand=[None, *[(0.05, 0.15, 0.1)] * (len(keys) - 2), None],
    )
    motion.touch(side, keys, weights, "floor", point)
    s = OUTWARD[side]
    lean = np.array([0.0, *[1.0] * (len(keys) - 2), 0.0])
    motion.turn("chest", keys, np.outer(lean, [-s * 0.14 * person.trunk_share, 0.03, 0]))
    motion.turn("spine", keys, np.outer(lean, [-s * 0.05, 0.07 * person.trunk_share, 0]))


def shake_hands(actor: Take, partner: Take) -> tuple[Motion, Motion, float]:
    """Both people use the right hand, whatever their preferred hand."""
    size = 0.5 * (actor.person.stature + partner.person.stature) / 1.7
    count, period = int(np.rint(actor.between(1.6, 4.4))), actor.between(0.3, 0.45)
    begin, together = actor.start(0.6)
    shakes = actor.cycles(together + 0.08, count, period)
    parted = shakes[-1] + actor.durations(0.55)[0]
    actor.run_until(parted + actor.chance.uniform(0.15, 0.5))
    distance = float(np.clip(actor.vary(0.86, 0.06), 0.72, 1.02)) * size
    motion, other = _together(actor, partner)
    height = actor.vary(0.96, 0.05) * size
    amount = np.clip(actor.vary(0.045, 0.012) * actor.person.amplitude, 0.02, 0.09)
    shaking = spline(shakes, zigzag(count, [0.0], [1.0])[:, 0] - 0.5, motion.times) * amount
    for mine in (motion, other):
        keys = [begin, together, shakes[-1], parted]
        zero = np.zeros_like(shaking)
        point = np.stack([zero - 0.015, height + shaking, zero + 0.5 * distance - 0.02], axis=1)
        _meeting_hands(mine, RIGHT, keys, [0, 1, 1, 0], point, up=-0.4, elbow_out=0.35)
    if actor.likes(0.5):
        _step_by(motion, actor.main, begin, together, 0.12)
    motion.turn("head", [begin, together, parted], [[0, 0, 0], [0, actor.vary(0.1, 0.08), 0], [0, 0, 0]])
    return motion, other, distance


def give(actor: Take, partner: Take) -> tuple[Motion, Motion, float]:
    size = 0.5 * (actor.person.stature + partner.person.stature) / 1.7
    begin, offered, taken, drawn, end = actor.start(0.65, 0.35, 0.45, 0.3)
    distance = float(np.clip(actor.vary(0.92, 0.07), 0.76, 1.1)) * size
    motion, other = _together(actor, partner)
    point = np.array([-actor.sign * 0.04, actor.vary(1.02, 0.06) * size, 0.5 * distance])
    # The giver brings the object from the waist; the receiver's hand follows a little later and takes it back.
    motion.reach(
        actor.main,
        [begin - 0.1, begin, offered, taken, drawn],
        [(0.02, -0.62, 0.42), (0.02, -0.6, 0.45), (0.0, -0.3, 0.85), (0.0, -0.3, 0.85), None],
        elbow=[*[(0.4, -0.9, -0.3)] * 4, None],
    )
    motion.touch(actor.main, [begin, offered, taken, 0.6 * taken + 0.4 * drawn], [0, 1, 1, 0], "floor", point)
    late = begin + partner.between(0.1, 0.5) * (offered - begin)
    other.reach(
        partner.main,
        [late, 0.8 * offered + 0.2 * taken, taken, drawn, end],
        [None, (0.0, -0.3, 0.85), (0.0, -0.3, 0.85), (0.05, -0.6, 0.42), (0.05, -0.62, 0.4)],
        elbow=[None, *[(0.4, -0.9, -0.3)] * 4],
    )
    theirs = np.array([-point[0], point[1] - 0.03, distance - point[2] - 0.02])
    other.touch(
        partner.main, [late, 0.8 * offered + 0.2 * taken, taken, 0.5 * (taken + drawn)], [0, 1, 1, 0], "floor", theirs
    )
    for mine, lean in ((motion, 0.1), (other, 0.07)):
        share = lean * mine.person.trunk_share
        side = -OUTWARD[mine.take.main]
        mine.turn("spine", [begin, offered, taken, drawn], np.outer([0, 1, 1, 0], [0, share, 0]))
        mine.turn(
            "chest", [begin, offered, taken, drawn], np.outer([0, 1, 1, 0], [1.2 * side * share, 0.5 * share, 0])
        )
        mine.turn("head", [begin, offered, taken, drawn], np.outer([0, 1, 1, 0.4], [0, mine.take.vary(0.22, 0.1), 0]))
    return motion, other, distance


def _walk(motion: Motion, begin: float, distance: float, *, turn: float = 0.0) -> float:
    """Walks `distance` metres, after a turn by `turn` radians; returns the time when the last foot is down.

    Steps alternate, and the heel comes up before each step. The pelvis moves over the standing foot and drops as the step
    opens; arms and shoulders swing against the legs.
    """
    take, person = motion.take, motion.person
    size = person.stature / 1.7
    length = np.clip(take.vary(0.52, 0.04) * np.sqrt(person.amplitude), 0.40, 0.68) * size
    step_time = take.vary(0.50, 0.02) / person.tempo
    first = take.main if turn == 0.0 else (LEFT if turn > 0 else RIGHT)
    turning = 2 if turn else 0
    count = max(2, int(np.rint(distance / length)) + 1) + turning
    offset = [motion.toe[0, side, 0] for side in (LEFT, RIGHT)]
    ahead = 0.55 * person.foot
    now, travelled, heading = begin, 0.0, 0.0
    heading_keys, heading_values = [begin], [0.0]
    swing_keys, swing_values = [begin - 0.1], [0.0]
    last_down = begin
    for index in range(count):
        side = first if index % 2 == 0 else 1 - first
        if index < turning:
            heading = turn * (index + 1) / turning
            travelled += 0.25 * length
        elif index < count - 1:
            travelled = min(travelled + length, distance)
        direction = np.array([np.sin(heading), np.cos(heading)])
        left = np.array([np.cos(heading), -np.sin(heading)])
        to = direction * (travelled + ahead) + left * (0.85 * offset[side])
        swing = step_time * 0.78
        motion.step(side, now, now + swing, to, lift=0.085 * size)
        standing = OUTWARD[1 - side] * 0.028 * size
        motion.move([now - 0.1, now + 0.5 * swing, now + swing + 0.1], [[0, 0, 0], [standing, 0.012, 0], [0, 0, 0]])
        heading_keys.append(now + 0.8 * swing)
        heading_values.append(heading)
        swing_keys.append(now + 0.8 * swing)
        swing_values.append(OUTWARD[side] if index < count - 1 else 0.0)
        last_down = now + swing
        now += step_time
    motion.heading += spline(heading_keys, heading_values, motion.times)
    # Positive if the left foot is ahead, and with it the right arm and shoulder.
    stride = spline(swing_keys, swing_values, motion.times)
    amount = 0.3 * person.amplitude
    for side in (LEFT, RIGHT):
        forward = -OUTWARD[side] * stride * amount
        motion.wrist[:, side, 2] += forward + 0.35 * np.maximum(forward, 0)
        motion.wrist[:, side, 1] += 0.35 * forward**2 + 0.12 * np.maximum(forward, 0)
    counter = 0.09 * person.trunk_share * stride
    motion.pelvis[:, 0] -= 0.8 * counter
    motion.chest[:, 0] += 1.6 * counter
    walking = spline([begin, begin + 0.3, last_down - 0.3, last_down + 0.1], [0.0, 1.0, 1.0, 0.0], motion.times)
    motion.pelvis[:, 1] += 0.05 * walking
    motion.shift[:, 1] -= 0.012 * walking
    return last_down


def _walk_length(take: Take, distance: float, turn: bool) -> float:
    """A generous estimate of the time of a walk in seconds, to set the length of the take before the walk is planned."""
    return (distance / (0.46 * take.person.stature / 1.7) + (2 if turn else 0)) * 0.42 / take.person.tempo


def walk_towards(actor: Take, partner: Take) -> tuple[Motion, Motion, float]:
    size = actor.person.stature / 1.7
    final = float(np.clip(actor.vary(0.8, 0.1), 0.6, 1.1))
    each = float(np.clip(actor.vary(0.95, 0.12), 0.7, 1.25)) * size
    distance = final + 2 * each
    begin = actor.chance.uniform(0.25, 0.6)
    actor.run_until(begin + max(_walk_length(take, each, False) for take in (actor, partner)) + 0.9)
    motion, other = _together(actor, partner)
    _walk(motion, begin, each)
    _walk(other, begin + partner.chance.uniform(-0.1, 0.25), each)
    return motion, other, distance


def walk_apart(actor: Take, partner: Take) -> tuple[Motion, Motion, float]:
    size = actor.person.stature / 1.7
    distance = float(np.clip(actor.vary(0.75, 0.1), 0.55, 1.05))
    each = float(np.clip(actor.vary(0.95, 0.12), 0.7, 1.25)) * size
    begin = actor.chance.uniform(0.25, 0.6)
    actor.run_until(begin + max(_walk_length(take, each, True) for take in (actor, partner)) + 0.6)
    motion, other = _together(actor, partner)
    for mine, delay in ((motion, 0.0), (other, partner.chance.uniform(-0.1, 0.25))):
        take = mine.take
        turn = np.clip(take.vary(2.85, 0.25), 2.3, np.pi) * (take.sign if take.likes(0.65) else -take.sign)
        _walk(mine, begin + delay, each, turn=turn)
    return motion, other, distance


MUTUAL_ACTIONS: dict[int, Callable[[Take, Take], tuple[Motion, Motion, float]]] = {
    50: punch,
    52: push,
    55: hug,
    56: give,
    58: shake_hands,
    59: walk_towards,
    60: walk_apart,
}
