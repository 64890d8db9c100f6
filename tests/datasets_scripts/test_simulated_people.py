"""Bodies, trajectories and kinematics of the simulator, and the properties of each action."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from action_llm.skeleton_layouts import get_layout
from action_llm_datasets.simulation.actions import SINGLE_ACTIONS, ballistic
from action_llm_datasets.simulation.interactions import MUTUAL_ACTIONS, facing
from action_llm_datasets.simulation.people import (
    ARMS,
    FRAME_RATE,
    LEFT,
    LEFT_HANDED,
    LEGS,
    RIGHT,
    Joint,
    Take,
    draw_person,
    drift,
    rotation,
    spline,
    two_bone,
)
from action_llm_datasets.simulation.sensor import RESTLESSNESS
from action_llm_datasets.simulation.simulate import SIMULATED_ACTION_IDS

PEOPLE = (1, 2, 3, 6, 11)
KINECT = get_layout("kinect25")
PARENTS = np.where(np.array(KINECT.parents) < 0, np.arange(25), KINECT.parents)
FALLING = 43


def take_of(number: int, action: int, replication: int = 1, seed: int = 0) -> Take:
    habit = np.random.default_rng([seed, 2, number, action])
    chance = np.random.default_rng([seed, 3, number, action, replication])
    return Take(draw_person(seed, number), habit, chance)


def solo(action: int, number: int, replication: int = 1):
    motion = SINGLE_ACTIONS[action](take_of(number, action, replication))
    return motion, motion.solve()


def duo(action: int, number: int, replication: int = 1):
    """Motions and joints of actor and partner, in room coordinates."""
    takes = take_of(number, action, replication), take_of(1000 + number, action, replication)
    motion, other, distance = MUTUAL_ACTIONS[action](*takes)
    rooms = facing(motion.solve(), distance, partner=False), facing(other.solve(), distance, partner=True)
    return (motion, other), rooms


def everybody(action: int):
    """(motion, joints in the person's coordinates) of several people who do an action."""
    for number in PEOPLE:
        if action in SINGLE_ACTIONS:
            yield solo(action, number)
        else:
            for motion in MUTUAL_ACTIONS[action](take_of(number, action), take_of(1000 + number, action))[:2]:
                yield motion, motion.solve()


# ------------------------------------------------------------------------------------------------ trajectories


def test_spline_between_two_keys_is_the_minimum_jerk_movement():
    times = np.linspace(0, 2, 41)
    s = times / 2
    expected = 3 + 4 * (10 * s**3 - 15 * s**4 + 6 * s**5)  # Flash and Hogan 1985, rest to rest
    np.testing.assert_allclose(spline([0, 2], [3.0, 7.0], times), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    spans=st.lists(st.floats(0.05, 2.0), min_size=1, max_size=6),
    data=st.data(),
)
def test_spline_passes_its_keys_and_never_overshoots(spans, data):
    times = np.concatenate([[0.0], np.cumsum(spans)])
    values = np.array(data.draw(st.lists(st.floats(-5, 5), min_size=len(times), max_size=len(times))))
    np.testing.assert_allclose(spline(times, values, times), values, atol=1e-9)
    fine = np.linspace(-0.5, times[-1] + 0.5, 400)
    path = spline(times, values, fine)
    for begin, end, low, high in zip(times[:-1], times[1:], values[:-1], values[1:], strict=True):
        inside = path[(fine >= begin) & (fine <= end)]
        assert (inside >= min(low, high) - 1e-9).all() and (inside <= max(low, high) + 1e-9).all()
    assert path[0] == pytest.approx(values[0]) and path[-1] == pytest.approx(values[-1])


def test_spline_velocity_has_no_jumps():
    times, values = [0.0, 0.3, 0.9, 1.0, 2.0], np.array([[0.0, 1.0], [1.0, 0.2], [3.0, -1.0], [3.5, -1.0], [0.0, 2.0]])

    def largest_jump(steps):
        fine = np.linspace(0, 2, steps + 1)
        speed = np.diff(spline(times, values, fine), axis=0) / np.diff(fine)[:, None]
        return np.abs(np.diff(speed, axis=0)).max()

    assert largest_jump(20000) < 0.6 * largest_jump(10000)  # a jump would not shrink


def test_drift_has_unit_variance_and_no_fast_content():
    signal = drift(np.random.default_rng(0), 4096, 16, cutoff=0.5)
    assert signal.std() == pytest.approx(1.0, abs=0.1)
    power = np.abs(np.fft.rfft(signal, axis=0)) ** 2
    hertz = np.fft.rfftfreq(len(signal), 1 / FRAME_RATE)
    assert power[hertz > 2.0].sum() < 1e-3 * power.sum()


@settings(max_examples=50, deadline=None)
@given(angles=st.lists(st.floats(-3.2, 3.2), min_size=3, max_size=3))
def test_rotation_is_yaw_then_pitch_then_roll(angles):
    np.testing.assert_allclose(rotation(np.array(angles)), Rotation.from_euler("YXZ", angles).as_matrix(), atol=1e-12)


def test_rotation_signs_are_those_of_the_documentation():
    ahead, up = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    assert (rotation(np.array([0.3, 0, 0])) @ ahead)[0] > 0  # yaw turns left, where x grows
    assert (rotation(np.array([0, 0.3, 0])) @ up)[2] > 0  # pitch leans forward
    assert (rotation(np.array([0, 0, 0.3])) @ up)[0] < 0  # roll leans right


vector = st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3).map(np.array)


@settings(max_examples=150, deadline=None)
@given(root=vector, target=vector, pole=vector, upper=st.floats(0.15, 0.5), lower=st.floats(0.15, 0.5))
def test_two_bones_keep_their_lengths_and_reach_what_they_can(root, target, pole, upper, lower):
    if np.linalg.norm(target - root) < 1e-3 or np.linalg.norm(np.cross(pole, target - root)) < 1e-3:
        return  # no direction is defined
    middle, end = two_bone(root, target, upper, lower, pole)
    assert np.linalg.norm(middle - root) == pytest.approx(upper, abs=1e-9)
    assert np.linalg.norm(end - middle) == pytest.approx(lower, abs=1e-9)
    distance = np.linalg.norm(target - root)
    if abs(upper - lower) + 0.02 <= distance <= 0.998 * (upper + lower):
        np.testing.assert_allclose(end, target, atol=1e-9)
    axis = (target - root) / distance
    assert (middle - root) @ (pole - (pole @ axis) * axis) >= -1e-9  # bent towards the pole


def test_ballistic_flight_rises_as_high_as_its_duration_says():
    times = np.linspace(0, 1, 1001)
    height = ballistic(times, 0.2, 0.6)
    assert height.max() == pytest.approx(9.81 * 0.4**2 / 8, rel=1e-4)
    assert (height[times <= 0.2] == 0).all() and np.abs(height[times >= 0.6]).max() < 1e-12


# ------------------------------------------------------------------------------------------------------ people


def test_joints_are_those_of_the_layout():
    def parts(name):  # "left_hand_tip" and HAND_TIP_LEFT are the same joint
        return sorted(name.lower().split("_"))

    assert [parts(name) for name in KINECT.joint_names] == [parts(joint.name) for joint in Joint]
    assert RESTLESSNESS.shape == (25,) and RESTLESSNESS[Joint.HAND_TIP_LEFT] > RESTLESSNESS[Joint.SPINE_MID]


def test_people_are_reproducible_and_differ():
    assert draw_person(3, 7) == draw_person(3, 7) != draw_person(4, 7)
    crowd = [draw_person(0, number) for number in range(1, 41)]
    statures = np.array([person.stature for person in crowd])
    assert 0.06 < statures.std() < 0.13 and statures.min() >= 1.48 and statures.max() <= 1.95
    assert {person.number for person in crowd if person.main_side == LEFT} == LEFT_HANDED
    assert np.std([person.tempo for person in crowd]) > 0.08


@pytest.mark.parametrize("number", PEOPLE)
def test_the_stature_of_a_standing_person(number):
    _, joints = solo(23, number)  # waving starts and ends at ease
    person = draw_person(0, number)
    head = joints[0, Joint.HEAD, 1]  # the middle of the head, about 12 cm below the top
    assert 0.85 * person.stature < head + 0.12 < 1.08 * person.stature


@pytest.mark.parametrize("action", SIMULATED_ACTION_IDS)
def test_bones_feet_and_floor(action):
    for motion, joints in everybody(action):
        lengths = np.linalg.norm(joints - joints[:, PARENTS], axis=-1)
        assert lengths.std(axis=0).max() < 1e-9
        assert lengths[0, Joint.KNEE_LEFT] == pytest.approx(motion.person.thigh)
        assert np.isfinite(joints).all()
        for side in (LEFT, RIGHT):
            standing = motion.planted[1:, side] & motion.planted[:-1, side]
            slip = np.linalg.norm(np.diff(joints[:, LEGS[side][3]], axis=0), axis=-1)[standing]
            # Only a falling person may drag a foot.
            assert slip.max(initial=0.0) < (0.015 if action == FALLING else 1e-4)
        assert joints[..., 1].min() > -0.07
        assert 48 <= len(joints) <= 128


@pytest.mark.parametrize("action", SIMULATED_ACTION_IDS)
def test_speeds_are_plausible(action):
    for _, joints in everybody(action):
        speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * FRAME_RATE
        assert speed[:, Joint.SPINE_BASE].max() < 5.0
        assert speed.max() < 20.0  # the finger tips of a throw
        assert speed.max() > 0.3  # and everybody moves


def test_repetitions_and_people_vary_reproducibly():
    first, second = (solo(23, 1, replication)[1] for replication in (1, 2))
    again = solo(23, 1, 1)[1]
    np.testing.assert_array_equal(first, again)
    assert first.shape != second.shape or np.abs(first - second).max() > 0.05


# ----------------------------------------------------------------------------- what the motions are named after


def wrist(joints, side):
    return joints[:, ARMS[side][2]]


@pytest.mark.parametrize("number", PEOPLE)
def test_single_actions_match_their_names(number):
    main = draw_person(0, number).main_side
    other = 1 - main

    _, joints = solo(6, number)
    assert joints[:, ARMS[main][3], 1].min() < 0.25, "picks something up from the floor"

    _, joints = solo(8, number)
    assert joints[0, Joint.SPINE_BASE, 1] - joints[-1, Joint.SPINE_BASE, 1] > 0.2, "sits down"
    _, joints = solo(9, number)
    assert joints[-1, Joint.SPINE_BASE, 1] - joints[0, Joint.SPINE_BASE, 1] > 0.2, "stands up"

    _, joints = solo(10, number)
    gap = np.linalg.norm(wrist(joints, LEFT) - wrist(joints, RIGHT), axis=-1)
    closed = gap < 0.085
    assert gap.min() < 0.1 and np.diff(closed.astype(int)).clip(0).sum() >= 2, "claps more than once"

    _, joints = solo(23, number)
    assert wrist(joints, main)[:, 1].max() > joints[:, ARMS[main][0], 1].mean(), "waves above the shoulder"
    assert wrist(joints, other)[:, 1].max() < joints[:, Joint.SPINE_MID, 1].mean() + 0.05, "with the preferred hand"

    _, joints = solo(24, number)
    foot = joints[:, LEGS[main][3]]
    assert foot[:, 2].max() - foot[0, 2] > 0.3 and foot[:, 1].max() > 0.1, "kicks forward"

    _, joints = solo(26, number)
    up = joints[:, [LEGS[main][3], LEGS[other][3]], 1] > 0.03
    assert np.diff(up[:, 0].astype(int)).clip(0).sum() >= 2 and up[up[:, 0], 1].all(), "hops on one foot"

    _, joints = solo(27, number)
    assert joints[:, [Joint.FOOT_LEFT, Joint.FOOT_RIGHT], 1].min(axis=1).max() > 0.04, "leaves the ground"

    _, joints = solo(38, number)
    brow = np.linalg.norm(joints[:, ARMS[main][3]] - joints[:, Joint.HEAD], axis=-1)
    assert brow.min() < 0.25, "hand at the head"

    _, joints = solo(40, number)
    across = (wrist(joints, LEFT) - wrist(joints, RIGHT))[:, 0]
    assert across.max() > 0.15 and across.min() < -0.02, "the wrists cross"

    _, joints = solo(43, number)
    assert joints[-1, Joint.HEAD, 1] < 0.6 < 1.2 < joints[0, Joint.HEAD, 1], "ends on the floor"


@pytest.mark.parametrize("number", PEOPLE)
def test_mutual_actions_match_their_names(number):
    def apart(first, second, joint=Joint.SPINE_BASE):
        return np.linalg.norm((first - second)[:, joint, [0, 2]], axis=-1)

    _, (first, second) = duo(58, number)
    hands = np.linalg.norm(first[:, Joint.HAND_RIGHT] - second[:, Joint.HAND_RIGHT], axis=-1)
    assert hands.min() < 0.16 and hands[0] > 0.4, "right hands meet, whatever the preferred hand"

    _, (first, second) = duo(55, number)
    assert apart(first, second).min() < 0.5, "close enough to hug"

    _, (first, second) = duo(59, number)
    assert apart(first, second)[0] - apart(first, second)[-1] > 1.0, "walk towards each other"
    _, (first, second) = duo(60, number)
    assert apart(first, second)[-1] - apart(first, second)[0] > 1.0, "walk apart"

    for action in (50, 52):
        (motion, _), (first, second) = duo(action, number)
        hand = first[:, ARMS[motion.take.main][3]]
        touch = np.linalg.norm(hand[:, None] - second, axis=-1).min()
        assert touch < 0.22, "the hand arrives at the other body"
        moved = np.linalg.norm(second[:, Joint.HEAD] - second[0, Joint.HEAD], axis=-1)
        assert moved.max() > 0.06, "the other body moves"


def test_a_take_has_at_most_its_longest_length():
    take = Take(draw_person(0, 1), np.random.default_rng(0), np.random.default_rng(1))
    longer = Take(draw_person(0, 1), np.random.default_rng(0), np.random.default_rng(1), longest=300)
    for each in (take, longer):
        each.run_until(8.0)
    assert (len(take.times), len(longer.times)) == (128, 240)
