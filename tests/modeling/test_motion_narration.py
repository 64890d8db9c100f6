"""The narrator beside motions that are known: what moved, where to, how often, which way round, and what was still."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skeleton_people import LEFT_HAND, RIGHT_HAND, ease, moved, recording, still

from action_llm import SkeletonFeatureExtractor
from action_llm.motion_narration import describe_moment, narrate
from action_llm.skeleton_layouts import LAYOUTS


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
        "The person raises the right hand from the hips to the shoulders. The left arm and the legs are still."
    )


def test_a_hand_goes_up_and_comes_back():
    said = text(moved(still(), RIGHT_HAND, up_and_down(90, 0.6)))
    assert said.startswith("The person raises the right hand from the hips to the ")
    assert "lowers it" in said


@pytest.mark.parametrize(("count", "words"), [(2, "twice"), (3, "three times"), (5, "five times")])
def test_waving(count, words):
    length = 60 + 20 * count
    path = up_and_down(length, 0.65)
    inside = np.clip(np.arange(length) - 28, 0, 20 * count)
    path[:, 0] += 0.2 * np.sin(2 * np.pi * inside / 20)
    assert "raises the right hand from the hips to the " in text(moved(still(length / 30), RIGHT_HAND, path))
    assert f"swings it from side to side {words} at the height of the" in text(
        moved(still(length / 30), RIGHT_HAND, path)
    )


@pytest.mark.parametrize(("turn", "word"), [(1, "counterclockwise"), (-1, "clockwise")])
@pytest.mark.parametrize("hand", [RIGHT_HAND, LEFT_HAND])
def test_circles_as_the_person_sees_them(turn, word, hand):
    length = 120
    path = up_and_down(length, 0.55)
    angle = turn * 2 * np.pi * ease(30, 90, length)
    path[:, 0] += 0.25 * (np.cos(angle) - 1)
    path[:, 1] += 0.25 * np.sin(angle)
    assert f"in a {word} circle at the height of" in text(moved(still(4), hand, path))


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ((-0.5, 0, 0), "across the body to the left"),
        ((0.5, 0, 0), "out to the right"),
        ((0, 0, -0.5), "forward"),
        ((0, 0, 0.5), "backward"),
    ],
)
def test_ways_are_those_of_the_person(way, words):
    body = moved(still(), RIGHT_HAND, np.outer(np.ones(90), [0, 0.4, 0]) + np.outer(ease(20, 35, 90), way))
    assert f"moves the right hand {words} at the height of the" in text(body)


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
    assert "then brings them together three times at the height of the chest, then lowers" in text(body)


def test_a_clap_lasts_from_hands_apart_to_hands_apart():
    wide = 2 * abs(still()[0, LAYOUTS["kinect25"].joint_names.index("right_hand"), 0])
    clap = np.exp(-(((np.arange(120) - 60) / 8.0) ** 2))
    events = narrate(recording([(0, hands_apart(wide - (wide - 0.06) * clap).astype(np.float32))])).events[0]
    (event,) = (event for event in events if event.kind == "meet")
    assert event.start < 1.9 and event.end > 2.1 and event.end - event.start < 0.6
    assert event.amount > 0.5  # torsos


def test_the_whole_body():
    names = LAYOUTS["kinect25"].joint_names
    upper = [name for name in names if not any(part in name for part in ("knee", "ankle", "foot"))]
    down = ease(10, 30, 120) - ease(80, 100, 120)
    said = text(moved(still(4), upper, np.outer(down, [0, -0.4, 0])))
    assert said == "The person lowers the hips, then raises the hips. The arms are still."
    raised = moved(moved(still(4), upper, np.outer(down, [0, -0.4, 0])), RIGHT_HAND, np.outer(down, [0, 0.75, -0.1]))
    assert text(raised).endswith(" The left arm is still.")  # the legs are not
    walked = still(4) + np.outer(ease(10, 110, 120), [0, 0, -1.6])[:, None]
    assert "The person walks forward" in text(walked)
    jump = np.zeros(120)
    jump[40:52] = 0.3 * np.sin(np.pi * np.arange(12) / 12)
    jump[70:82] = jump[40:52]
    assert "The person jumps twice" in text(still(4) + np.outer(jump, [0, 1, 0])[:, None])
    bent = still(4)
    pelvis = bent[:, [names.index("left_hip"), names.index("right_hip")]].mean(1)
    trunk = [j for j, n in enumerate(names) if not any(p in n for p in ("hip", "knee", "ankle", "foot", "spine_base"))]
    for frame, share in enumerate(ease(20, 60, 120)):
        turn = Rotation.from_euler("x", -70 * share, degrees=True)
        bent[frame, trunk] = turn.apply(bent[frame, trunk] - pelvis[frame]) + pelvis[frame]
    assert text(bent) == "The person bends forward."
    for joint in map(names.index, (*LEFT_HAND, *RIGHT_HAND)):
        bent[:, joint] = still(4)[:, joint]  # on a table
    assert text(bent) == "The person bends forward."


def turned(body, degrees):
    """The same, turned to the left by `degrees` (T,) about a vertical line through the body."""
    middle = body[0].mean(0) * [1, 0, 1]
    about = Rotation.from_euler("y", degrees[:, None], degrees=True)
    return np.stack([turn.apply(frame - middle) + middle for turn, frame in zip(about, body, strict=True)])


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ((-0.5, 0.4, 0), "across the body to the left"),
        ((0.5, 0.4, 0), "out to the right"),
        ((0, 0.4, -0.6), "forward"),
    ],
)
@pytest.mark.parametrize(
    ("degrees", "turn"),
    [
        (90, "turns to the left"),
        (-180, "turns around to the right"),
        (180, "turns around to the left"),
        (360, "turns all the way around to the left"),
        (-720, "turns all the way around to the right twice"),
    ],
)
def test_ways_are_those_of_the_person_after_a_turn(degrees, turn, way, words):
    body = moved(still(5), RIGHT_HAND, np.outer(ease(105, 125, 150), way))
    said = text(turned(body, degrees * ease(5, 75, 150)))
    assert said.startswith(f"The person {turn}. The person also moves the right hand {words} at the height of the")
    assert said.endswith("The left arm is still.")


def test_a_twist_is_no_turn_nor_are_swapped_sides():
    swapped = still()
    swapped[40:44] = swapped[40:44, list(LAYOUTS["kinect25"].mirror)]
    assert "turns" not in text(swapped)
    assert text(turned(still(), 40 * (ease(10, 30, 90) - ease(50, 70, 90)))) == "The person stands or sits still."


def test_the_second_person_has_a_left_and_a_right_of_their_own():
    body = moved(still(), RIGHT_HAND, np.outer(ease(20, 40, 90), [0.6, 0.3, 0]))
    opposite = np.array([1.2, 0, -1.5]) + turned(body, np.full(90, 180.0))
    first = moved(still(), LEFT_HAND, np.outer(ease(20, 40, 90), [0, 1, -0.1]))  # the one who moves more
    narration = narrate(recording([(0, first.astype(np.float32)), (0, opposite.astype(np.float32))]))
    assert "The second person moves the right hand out to the right" in narration.text
    assert "the right hand at the waist going out to the right" in narration.bodies[1].pose(0.9, 1.1)


@pytest.mark.parametrize(
    ("metres", "words"),
    [((0, 0, -3), "walks forward, then walks backward"), ((2, 0, 0), "walks to the right, then walks to the left")],
)
def test_walks_end_where_they_turn(metres, words):
    there = ease(10, 70, 150) - ease(80, 140, 150)
    body = still(5) + np.outer(there, metres)[:, None]
    for side, sign in (("left", 1), ("right", -1)):  # steps
        path = sign * np.outer(np.sin(8 * np.pi * np.cumsum(np.abs(np.gradient(there)))), np.array(metres) / 10)
        body = moved(body, [f"{side}_knee", f"{side}_ankle", f"{side}_foot"], path)
    assert text(body) == f"The person {words}. The arms are still."
    forth, back = narrate(recording([(0, body.astype(np.float32))])).events[0]
    assert (forth.start, forth.end) == pytest.approx((20 / 30, 61 / 30), abs=0.2)
    assert (back.start, back.end) == pytest.approx((89 / 30, 131 / 30), abs=0.2)


def test_walking_round_is_walking_ahead():
    angle = 270 * ease(10, 170, 180)
    place = np.stack([np.cos(np.deg2rad(angle)) - 1, 0 * angle, -np.sin(np.deg2rad(angle))], axis=1)
    said = text(turned(still(6), angle) + 1.5 * place[:, None])
    assert said == "The person turns around to the left and at the same time walks forward. The arms are still."


def test_two_people():
    first = moved(still(), RIGHT_HAND, up_and_down(90, 0.7))
    second = still() + np.array([1.2, 0, 0])
    said = narrate(recording([(0, first.astype(np.float32)), (0, second.astype(np.float32))]))
    assert said.text.startswith("The first person raises the right hand")
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
    up, names = LAYOUTS[layout].up, LAYOUTS[layout].joint_names
    joints = [name for name in ("right_wrist", "right_hand") if name in names]
    body = moved(still(layout=layout), joints, np.outer(ease(10, 30, 90), [0, 0.7 * up, 0]), layout)
    said = text(body, layout)
    assert "raises the right hand from" in said and "The left arm and the legs are still." in said


def test_arrays_have_the_frame_rate_that_is_given():
    body = moved(still(), RIGHT_HAND, np.outer(ease(10, 30, 90), [0, 0.9, -0.1])).astype(np.float32)
    at_30, at_15 = narrate(body), narrate(body[::2], fps=15.0)
    assert at_30.text == at_15.text
    assert narrate(body, fps=60.0).events[0][0].end == pytest.approx(at_30.events[0][0].end / 2, abs=0.1)


def hands_apart(distances):
    """Raised hands, `distances` (T,) metres apart; negative if crossed."""
    body, names = still(len(distances) / 30), LAYOUTS["kinect25"].joint_names
    up = ease(5, 20, len(distances)) - ease(len(distances) - 20, len(distances) - 5, len(distances))
    for hand, sign in ((RIGHT_HAND, 1), (LEFT_HAND, -1)):
        path = np.outer(up, [0, 0.3, -0.3])
        path[:, 0] = sign * distances / 2 - body[0, names.index(hand[1]), 0]
        body = moved(body, hand, path)
    return body


def test_hands_cross():
    wide = 2 * abs(still()[0, LAYOUTS["kinect25"].joint_names.index("right_hand"), 0])
    crossed = ease(25, 40, 90) - ease(55, 70, 90)
    assert "crosses them at the height of the" in text(hands_apart(wide - (wide + 0.2) * crossed))
    assert "crosses" not in text(hands_apart(wide - (wide - 0.1) * crossed))


def test_a_lunge_and_steps_on_the_spot():
    there = ease(10, 30, 120) - ease(80, 100, 120)
    body = still(4) + np.outer(there, [0, -0.25, -0.3])[:, None]
    feet = {side: [f"{side}_ankle", f"{side}_foot"] for side in ("left", "right")}
    body = moved(body, feet["left"], np.outer(there, [0, 0.25, -0.3]))  # on the floor, ahead
    body = moved(body, feet["right"], np.outer(there, [0, 0.25, 0.3]))  # where it was
    assert "lunges forward with the left foot" in text(body)
    assert "lunges" not in text(moved(body, feet["left"], np.outer(there, [0, 0, 0.5])))
    body, lift = still(4), np.sin(2 * np.pi * np.clip(np.arange(120) - 20, 0, 80) / 40)
    for side, up in (("left", np.maximum(lift, 0)), ("right", np.maximum(-lift, 0))):
        body = moved(body, [f"{side}_knee"], np.outer(up, [0, 0.1, -0.2]))
    assert "steps on the spot four times" in text(body)
    assert "on the spot" not in text(body + np.outer(ease(20, 100, 120), [0, 0, -0.4])[:, None])


def test_what_moves_most_comes_first():
    body = moved(still(), ["left_foot", "left_ankle"], np.outer(ease(2, 12, 90), [0, 0, -0.3]))
    body = moved(body, RIGHT_HAND, np.outer(ease(20, 40, 90), [0.2, 0.8, -0.1]))
    said = text(body)
    assert (
        said.startswith("The person raises the right hand") and "The person also steps forward with the left" in said
    )


def test_a_version_is_described_as_it_is_encoded():
    """Of a mirrored version, left and right are exchanged."""
    reading = SkeletonFeatureExtractor("kinect25", num_persons=1, augment_mirror=1.0).to_dict()
    body = moved(still(), RIGHT_HAND, np.outer(ease(10, 30, 90), [0, 0.75, -0.1])).astype(np.float32)
    assert narrate(body, reading=reading).text.startswith("The person raises the right hand")
    assert narrate(body, reading=reading, augment=True, seed=1).text.startswith("The person raises the left hand")


@pytest.mark.real_data
def test_real_recordings_say_what_their_class_says(real_data, tmp_path):
    """UTD-MHAD, the training subjects, on which the rules were chosen."""
    from action_llm_recipes.benchmarks import measure_narrator
    from action_llm_recipes.common.data_arguments import DataArguments

    data = DataArguments("utd-mhad", str(real_data / "utd_mhad" / "skeleton"), cache_dir=str(tmp_path))
    chosen = measure_narrator.NarratorArguments(output=str(tmp_path / "narrator"), split="train")
    assert measure_narrator.main(chosen, data)["share"]["estimate"] > 0.9


def test_a_moment():
    """In torsos, as features are: four frames of a hand that goes up, of a body that leans, and of one that is low."""
    body = still(0.2)[:4]
    names = LAYOUTS["kinect25"].joint_names
    torso = 0.47
    body = (body - body[:1, :1]) / torso
    assert describe_moment(body, "kinect25") == "the left hand at the hips, the right hand at the hips"
    up = moved(body, RIGHT_HAND, np.outer(1.2 + 0.1 * np.arange(4), [0, 1, 0]))
    assert describe_moment(up, "kinect25") == "the left hand at the hips, the right hand at the head going up"
    low = body.copy()
    low[:, [j for j, name in enumerate(names) if "ankle" in name or "foot" in name], 1] += 1.2
    assert describe_moment(low, "kinect25").endswith(", the hips low")
