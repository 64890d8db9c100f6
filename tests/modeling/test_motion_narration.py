"""The narrator beside motions that are known: what moved, where to, how often, which way round, and what was still."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skeleton_people import person, recording

from action_llm.motion_narration import describe_moment, narrate
from action_llm.skeleton_files import read_utd_mhad
from action_llm.skeleton_layouts import LAYOUTS


def still(seconds=3.0, layout="kinect25"):
    """Somebody who stands and faces the sensor: +x is their right, +y up, +z behind them; 30 frames a second."""
    return person(round(30 * seconds), layout, activity=0.0, place=(0, 0, 3)).astype(np.float64)


def ease(start, stop, length):
    """0 before frame `start`, 1 from `stop` on, smooth between."""
    share = np.clip((np.arange(length) - start) / (stop - start), 0, 1)
    return (1 - np.cos(np.pi * share)) / 2


def moved(body, joints, path, layout="kinect25"):
    """The same with some joints shifted by `path` (T, 3)."""
    body = body.copy()
    names = LAYOUTS[layout].joint_names
    for joint in joints:
        body[:, names.index(joint)] += path
    return body


RIGHT_HAND = ("right_wrist", "right_hand", "right_hand_tip", "right_thumb")
LEFT_HAND = tuple(name.replace("right", "left") for name in RIGHT_HAND)


def up_and_down(length, height, ahead=0.3, first=10):
    bump = ease(first, first + 15, length) - ease(length - first - 15, length - first, length)
    return np.stack([0 * bump, height * bump, -ahead * bump], axis=1)


def text(body, layout="kinect25"):
    return narrate(recording([(0, body.astype(np.float32))], layout=layout)).text


def test_nobody_moves():
    assert text(still()) == "The person stands or sits still."
    noise = np.random.default_rng(0).normal(0, 0.005, still().shape)
    assert text(still() + noise) == "The person stands or sits still."


def test_a_hand_goes_up_and_stays():
    body = moved(still(), RIGHT_HAND, np.outer(ease(10, 30, 90), [0, 0.75, -0.1]))
    assert text(body) == (
        "The person: the right hand rises from the waist to the head. The left arm and the legs are still."
    )


def test_a_hand_goes_up_and_comes_back():
    said = text(moved(still(), RIGHT_HAND, up_and_down(90, 0.6)))
    assert said.startswith("The person: the right hand rises from the waist to the ")
    assert "drops from" in said or "comes back" in said


@pytest.mark.parametrize(("count", "words"), [(2, "twice"), (3, "three times"), (5, "five times")])
def test_waving(count, words):
    length = 60 + 20 * count
    path = up_and_down(length, 0.65)
    inside = np.clip(np.arange(length) - 28, 0, 20 * count)
    path[:, 0] += 0.2 * np.sin(2 * np.pi * inside / 20)
    assert "the right hand rises from the waist to the " in text(moved(still(length / 30), RIGHT_HAND, path))
    assert f"swings from side to side {words} at the height of the" in text(
        moved(still(length / 30), RIGHT_HAND, path)
    )


@pytest.mark.parametrize(("turn", "word"), [(1, "counter clockwise"), (-1, "clockwise")])
@pytest.mark.parametrize("hand", [RIGHT_HAND, LEFT_HAND])
def test_circles_as_the_person_sees_them(turn, word, hand):
    length = 120
    path = up_and_down(length, 0.55)
    angle = turn * 2 * np.pi * ease(30, 90, length)
    path[:, 0] += 0.25 * (np.cos(angle) - 1)
    path[:, 1] += 0.25 * np.sin(angle)
    assert f"goes round in a circle {word} at the height of" in text(moved(still(4), hand, path))


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ((-0.5, 0, 0), "goes across the body to the left"),
        ((0.5, 0, 0), "goes out to the right"),
        ((0, 0, -0.5), "goes forward"),
        ((0, 0, 0.5), "goes backward"),
    ],
)
def test_ways_are_those_of_the_person(way, words):
    body = moved(still(), RIGHT_HAND, np.outer(np.ones(90), [0, 0.4, 0]) + np.outer(ease(20, 35, 90), way))
    assert f"the right hand {words} at the height of the" in text(body)


def test_clapping():
    length = 120
    body = still(4)
    near = np.abs(
        np.cos(np.pi * np.clip(np.arange(length) - 30, 0, 60) / 20)
    )  # apart at both ends, together three times
    for hand, sign in ((RIGHT_HAND, -1), (LEFT_HAND, 1)):
        joint = LAYOUTS["kinect25"].joint_names.index(hand[0])
        to_the_middle = -body[0, joint, 0] - 0.03 * sign
        path = np.outer(ease(5, 25, length) - ease(95, 115, length), [0, 0.3, -0.3])
        path[:, 0] += to_the_middle * (1 - near)
        body = moved(body, hand, path)
    assert "meet three times" in text(body)


def test_the_whole_body():
    names = LAYOUTS["kinect25"].joint_names
    upper = [name for name in names if not any(part in name for part in ("knee", "ankle", "foot"))]
    down = ease(10, 30, 120) - ease(80, 100, 120)
    said = text(moved(still(4), upper, np.outer(down, [0, -0.4, 0])))
    assert "the body goes down with the hips, then comes up with the hips" in said
    walked = still(4) + np.outer(ease(10, 110, 120), [0, 0, -1.6])[:, None]
    assert "the body walks forward" in text(walked)
    jump = np.zeros(120)
    jump[40:52] = 0.3 * np.sin(np.pi * np.arange(12) / 12)
    jump[70:82] = jump[40:52]
    assert "the body jumps twice" in text(still(4) + np.outer(jump, [0, 1, 0])[:, None])
    bent = still(4)
    pelvis = bent[:, [names.index("left_hip"), names.index("right_hip")]].mean(1)
    trunk = [j for j, n in enumerate(names) if not any(p in n for p in ("hip", "knee", "ankle", "foot", "spine_base"))]
    for frame, share in enumerate(ease(20, 60, 120)):
        turn = Rotation.from_euler("x", -70 * share, degrees=True)
        bent[frame, trunk] = turn.apply(bent[frame, trunk] - pelvis[frame]) + pelvis[frame]
    assert "the body bends forward" in text(bent)


def test_two_people():
    first = moved(still(), RIGHT_HAND, up_and_down(90, 0.7))
    second = still() + np.array([1.2, 0, 0])
    said = narrate(recording([(0, first.astype(np.float32)), (0, second.astype(np.float32))]))
    assert said.text.startswith("The first person: the right hand rises")
    assert said.text.endswith("The second person stands or sits still.") and said.events[1] == []


def test_events_have_their_times():
    body = moved(still(4), RIGHT_HAND, np.outer(ease(30, 60, 120), [0, 0.8, -0.1]))
    (event,) = narrate(recording([(0, body.astype(np.float32))])).events[0]
    assert event.part == "right hand" and event.start == pytest.approx(1.0, abs=0.25)
    assert event.end == pytest.approx(2.0, abs=0.35)


@settings(max_examples=15, deadline=None)
@given(yaw=st.floats(-60, 60), scale=st.floats(0.5, 2), shift=st.floats(-2, 2))
def test_place_size_and_view_do_not_matter(yaw, scale, shift):
    body = moved(still(), RIGHT_HAND, up_and_down(90, 0.7))
    turned = Rotation.from_euler("y", yaw, degrees=True).apply(body.reshape(-1, 3)).reshape(body.shape)
    assert text(scale * turned + [shift, 0, 3]) == text(body)


def test_a_mirrored_body_does_the_same_on_the_other_side():
    body = moved(still(), RIGHT_HAND, np.outer(ease(10, 30, 90), [0.4, 0.6, -0.1]))
    mirrored = body[:, list(LAYOUTS["kinect25"].mirror)] * [-1, 1, 1]
    swapped = text(body).replace("right", "X").replace("left", "right").replace("X", "left")
    assert text(mirrored) == swapped


@pytest.mark.parametrize("layout", ["kinect20", "coco17", "lcrnet13"])
def test_other_layouts(layout):
    up = LAYOUTS[layout].up
    body = moved(still(layout=layout), ["right_wrist"], np.outer(ease(10, 30, 90), [0, 0.7 * up, 0]), layout)
    said = text(body, layout)
    assert "the right hand rises from" in said and "The left arm and the legs are still." in said


def test_arrays_have_the_frame_rate_that_is_given():
    body = moved(still(), RIGHT_HAND, np.outer(ease(10, 30, 90), [0, 0.8, -0.1])).astype(np.float32)
    at_30, at_15 = narrate(body), narrate(body[::2], fps=15.0)
    assert at_30.text == at_15.text
    assert narrate(body, fps=60.0).events[0][0].end == pytest.approx(at_30.events[0][0].end / 2, abs=0.1)


@pytest.mark.real_data
def test_real_recordings_say_what_their_class_says(real_data):
    """UTD-MHAD: of all eight people, first trial; one of the words for the class."""
    expected = {
        3: ["from side to side"], 4: ["meet"], 9: ["circle clockwise"], 10: ["circle counter clockwise"],
        16: ["both hands rise"], 18: ["both hands rise"], 24: ["comes up with the hips"], 25: ["goes down with the hips"],
        26: ["goes down with the hips"], 27: ["goes down with the hips"],
    }  # fmt: skip
    right = {}
    for action, words in expected.items():
        said = [
            narrate(read_utd_mhad(real_data / "utd_mhad" / "skeleton" / f"a{action}_s{subject}_t1_skeleton.mat")).text
            for subject in range(1, 9)
        ]
        right[action] = sum(any(word in one for word in words) for one in said)
    print(right)
    assert sum(right.values()) >= 0.75 * 8 * len(expected), right


def test_a_moment():
    """In torsos, as features are: four frames of a hand that goes up, of a body that leans, and of one that is low."""
    body = still(0.2)[:4]
    names = LAYOUTS["kinect25"].joint_names
    torso = 0.47
    body = (body - body[:1, :1]) / torso
    assert describe_moment(body, "kinect25") == "left hand at the waist, right hand at the waist"
    up = moved(body, RIGHT_HAND, np.outer(1.2 + 0.1 * np.arange(4), [0, 1, 0]))
    assert describe_moment(up, "kinect25") == "left hand at the waist, right hand at the head going up"
    low = body.copy()
    low[:, [j for j, name in enumerate(names) if "ankle" in name or "foot" in name], 1] += 1.2
    assert describe_moment(low, "kinect25").endswith(", hips low")
