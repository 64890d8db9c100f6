"""What looks wrong in recordings that fit: every pair of layouts that could be mistaken, axes, units, joints, steps."""

import warnings
from itertools import permutations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skeleton_people import person

from action_llm.array_files import read_joint_array
from action_llm.skeleton_bodies import valid_joints
from action_llm.skeleton_files import read_skeleton, read_utd_mhad
from action_llm.skeleton_layouts import LAYOUTS, SkeletonLayout, get_layout
from action_llm.skeleton_plausibility import find_symptoms, judge
from action_llm.upright import turned_upright

RECORDED = [layout for layout in LAYOUTS.values() if layout.source is None]
MISTAKEN = [
    (right.name, wrong.name)
    for right, wrong in permutations(RECORDED, 2)
    if right.num_joints == wrong.num_joints and right.parents != wrong.parents
]


def symptoms_of(keypoints, layout):
    keypoints = keypoints[:, None] if keypoints.ndim == 3 else keypoints
    keypoints = keypoints * (np.arange(3) < layout.dimensions)
    return find_symptoms(keypoints, valid_joints(keypoints, np.ones(keypoints.shape[:2], bool)), layout)


def doubts_of(recordings, layout):
    layout = get_layout(layout)
    found = {str(index): symptoms_of(keypoints, layout) for index, keypoints in enumerate(recordings)}
    return judge(found, len(recordings), layout)


def bodies(layout, count=6):
    scale = [150, 150, 0] if LAYOUTS[layout].dimensions == 2 else 1
    offset = [320, 240, 0] if LAYOUTS[layout].dimensions == 2 else 0
    return [person(20, layout, seed=seed, yaw=15 * seed, activity=0.05) * scale + offset for seed in range(count)]


@pytest.mark.parametrize("layout", [layout.name for layout in RECORDED])
def test_a_body_in_its_own_layout_is_believed(layout):
    assert doubts_of(bodies(layout), layout) == []


@pytest.mark.parametrize(("right", "wrong"), MISTAKEN)
def test_joints_in_another_order_are_refused_with_the_right_one(right, wrong):
    recordings = bodies(right)
    if LAYOUTS[wrong].dimensions > LAYOUTS[right].dimensions:
        recordings = [np.dstack([body[..., :2], np.full(body.shape[:2], 0.8)]) for body in recordings]
    doubts = doubts_of(recordings, wrong)
    assert doubts[0].stops and doubts[0].kind == "joint order" and len(doubts[0].files) == 6
    assert (
        f"those of the layout {right}, not of {wrong}: set the layout to {right} (6 of 6 recordings)"
        in doubts[0].reason
    )


def test_pairs_of_layouts_are_those_that_the_data_sets_mix_up():
    named = {frozenset(pair) for pair in MISTAKEN}
    assert frozenset(("kinect20", "kinect20-sdk")) in named and frozenset(("kinect20", "msr20")) in named
    assert frozenset(("kinect25", "openpose25")) in named


@pytest.mark.parametrize(("right", "wrong"), MISTAKEN)
def test_a_joint_that_is_never_seen_hides_no_wrong_order(right, wrong):
    seen = (~np.isin(np.arange(LAYOUTS[right].num_joints), (9, 16)))[:, None]
    recordings = [body * seen for body in bodies(right)]
    believed = doubts_of(recordings, right)
    assert "lost joints" in {doubt.kind for doubt in believed} and not any(doubt.stops for doubt in believed)
    if LAYOUTS[wrong].dimensions > LAYOUTS[right].dimensions:
        recordings = [np.dstack([body[..., :2], np.full(body.shape[:2], 0.8)]) * seen for body in recordings]
    doubts = doubts_of(recordings, wrong)
    assert doubts[0].stops and f"set the layout to {right}" in doubts[0].reason


def test_a_wrong_order_is_one_whatever_layout_fits_each_recording():
    shuffled = np.random.default_rng(0).permutation(20)
    recordings = [
        *bodies("kinect20-sdk", 3),
        *bodies("msr20", 3),
        *(body[:, shuffled] for body in bodies("kinect20", 3)),
    ]
    doubts = doubts_of(recordings, "kinect20")
    assert {len(doubt.files) for doubt in doubts} == {3} and all(doubt.stops for doubt in doubts)


def test_bodies_in_one_place_and_rates_that_nothing_has():
    doubt, frozen = doubts_of([np.ones((60, 25, 3))] * 4, "kinect25")
    assert (
        frozen.kind == "frozen"
        and doubt.stops
        and doubt.reason == "all joints of a body are in one place (4 of 4 recordings)"
    )
    keypoints = bodies("kinect25", 1)[0][:, None]
    valid = valid_joints(keypoints, np.ones(keypoints.shape[:2], bool))
    for fps, is_odd in ((30, False), (1e9, True), (0.01, True)):
        assert ("impossible rate" in find_symptoms(keypoints, valid, LAYOUTS["kinect25"], fps)) == is_odd


def test_joints_in_no_known_order():
    shuffled = np.random.default_rng(0).permutation(20)
    (doubt,) = doubts_of([body[:, shuffled] for body in bodies("kinect20")], "kinect20")
    assert doubt.stops and "do not fit the layout kinect20" in doubt.reason
    own = SkeletonLayout.from_dict(LAYOUTS["kinect20-sdk"].to_dict() | {"name": "mine"})
    (doubt,) = doubts_of(bodies("kinect20"), own)
    assert doubt.stops and "those of the layout kinect20, not of mine" in doubt.reason


@pytest.mark.parametrize("up", ["z", "-z", "-y", "x", "-x"])
@pytest.mark.parametrize("layout", ["kinect25", "lcrnet13"])
def test_another_axis_that_points_up_is_named_and_turned(up, layout):
    skeleton = LAYOUTS[layout]
    if skeleton.up < 0 and up == "-y":
        up = "y"
    upright = bodies(layout)
    # Whatever `up` says: turning it upright must give the body back, so its inverse is the transpose.
    turn = np.stack([turned_upright(axis, up, skeleton) for axis in np.eye(3)])
    assert np.allclose(np.linalg.det(turn), 1)  # a rotation: nobody is mirrored
    lying = [body @ np.linalg.inv(turn) for body in upright]
    (doubt,) = doubts_of(lying, layout)
    assert doubt.kind == "up axis" and doubt.stops and f'set "up": "{up}" in skeleton.json' in doubt.reason
    for body, before in zip(lying, upright, strict=True):
        np.testing.assert_allclose(turned_upright(body, up, skeleton), before, atol=1e-5)


def test_two_dimensions_turn_by_reversing_y():
    upright = bodies("coco17")
    (doubt,) = doubts_of([body * [1, -1, 1] for body in upright], "coco17")
    assert doubt.kind == "up axis" and 'set "up": "y"' in doubt.reason
    np.testing.assert_array_equal(turned_upright(upright[0] * [1, -1, 1], "y", LAYOUTS["coco17"]), upright[0])
    with pytest.raises(ValueError, match=r"up: expected one of y, -y \(layout coco17\), got 'z'"):
        turned_upright(upright[0], "z", LAYOUTS["coco17"])
    with pytest.raises(ValueError, match=r"up: expected one of y, -y, z, -z, x, -x .*got 'up'"):
        turned_upright(upright[0], "up", LAYOUTS["kinect25"])


def test_one_person_who_lies_is_no_folder_on_its_side():
    recordings = bodies("kinect25", 12)
    recordings[3] = recordings[3][..., [1, 0, 2]]
    assert doubts_of(recordings, "kinect25") == []
    for number in (5, 7, 9):  # some who lie are told, and stop nothing
        recordings[number] = recordings[number][..., [1, 0, 2]]
    (doubt,) = doubts_of(recordings, "kinect25")
    assert doubt.kind == "up axis" and not doubt.stops and "(4 of 12 recordings)" in doubt.reason


def test_z_up_shows_also_where_the_sensor_looks_down():
    tilt = Rotation.from_euler("x", 25, degrees=True).as_matrix()
    recordings = [(body @ tilt.T)[..., [0, 2, 1]] * [1, -1, 1] for body in bodies("kinect25")]
    (doubt,) = doubts_of(recordings, "kinect25")
    assert doubt.stops and 'set "up": "z"' in doubt.reason


def test_mirrored_bodies():
    recordings = [person(20, seed=seed, activity=0.02) for seed in range(12)]
    feet = [index for index, name in enumerate(LAYOUTS["kinect25"].joint_names) if "foot" in name or "knee" in name]
    for body in recordings:
        body[:, feet, 2] -= 0.1  # towards the sensor, where the person looks
    assert doubts_of(recordings, "kinect25") == []
    (doubt,) = doubts_of([body * [-1, 1, 1] for body in recordings], "kinect25")
    assert doubt.kind == "mirrored" and not doubt.stops and "backwards" in doubt.reason


def test_units():
    (doubt,) = doubts_of([1000 * body for body in bodies("kinect25")], "kinect25")
    assert doubt.kind == "units" and not doubt.stops and "millimetres or pixels?" in doubt.reason
    (doubt,) = doubts_of([body * [1, 1, 0] for body in bodies("kinect25")], "kinect25")
    assert doubt.kind == "units" and not doubt.stops and "z is 0 everywhere" in doubt.reason
    scored = [np.dstack([body[..., :2] * 150 + 300, np.full(body.shape[:2], 0.9)]) for body in bodies("kinect20")]
    doubts = doubts_of([body * [1, -1, 1] for body in scored], "kinect20")
    assert doubts[0].kind == "units" and doubts[0].stops and "the third number like a score" in doubts[0].reason


def test_joints_that_are_lost_or_stand_still():
    recordings = bodies("kinect25")
    recordings[0][:, [15, 19]] = 0
    recordings[1][:, 21] = recordings[1][0, 21]
    doubts = {doubt.kind: doubt for doubt in doubts_of(recordings, "kinect25")}
    assert doubts["lost joints"].reason == "joints that were never seen: left_foot, right_foot (1 of 6 recordings)"
    assert doubts["still joints"].reason == "joints that never move: left_hand_tip (1 of 6 recordings)"
    assert doubts["lost joints"].files == ("0",) and doubts["still joints"].files == ("1",)
    assert not any(doubt.stops for doubt in doubts.values())


def test_empty_frames_and_jumps():
    recordings = bodies("kinect25")
    recordings[0] = np.concatenate([np.zeros((3, 25, 3)), recordings[0], np.zeros((280, 25, 3))])
    recordings[1][10:] += [2, 0, 0]
    doubts = {doubt.kind: doubt.reason for doubt in doubts_of(recordings, "kinect25")}
    assert (
        doubts["empty frames"]
        == "frames without a body are cut off, 3 at the start and 280 at the end (1 of 6 recordings)"
    )
    assert doubts["jumps"].startswith("bodies jump by more than half their size from a frame to the next, once")


def test_what_is_empty_or_a_point_is_no_reason_to_fail():
    lost_by_turns = np.where(np.arange(25)[:, None] % 2 == np.arange(4)[:, None, None] % 2, person(4), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for keypoints in (np.zeros((4, 25, 3)), np.ones((4, 25, 3)), np.full((1, 25, 3), np.nan), lost_by_turns):
            symptoms_of(keypoints, LAYOUTS["kinect25"])


# ------------------------------------------------------------------------------------------ real recordings


def recorded(real_data, layout):
    if layout == "kinect20":
        files = sorted((real_data / "utd_mhad/skeleton").rglob("*.mat"))[::9]
        return [read_utd_mhad(path).keypoints for path in files]
    if layout == "kinect20-sdk":
        with np.load(real_data / "nw_ucla_views12/skeletons.npz") as stored:
            return [stored[name] for name in stored.files[::11]]
    if layout == "msr20":
        files = sorted((real_data / "msr_action3d").rglob("*skeleton3D.txt"))[::6]
        return [read_joint_array(path, layout="msr20").keypoints for path in files]
    return [read_skeleton(path).keypoints for path in sorted((real_data / "ntu_rgbd/skeletons").glob("*.skeleton"))]


@pytest.mark.parametrize("right", ["kinect20", "kinect20-sdk", "msr20", "kinect25"])
def test_real_recordings_are_believed_in_their_layout_and_in_no_other(real_data, right):
    recordings = recorded(real_data, right)
    assert len(recordings) > 8
    assert not any(doubt.stops for doubt in doubts_of(recordings, right))
    (z_up,) = [
        doubt for doubt in doubts_of([body[..., [0, 2, 1]] * [1, -1, 1] for body in recordings], right) if doubt.stops
    ]
    assert z_up.kind == "up axis" and '"up": "z"' in z_up.reason and len(z_up.files) > 0.8 * len(recordings)
    for wrong in [wrong for one, wrong in MISTAKEN if one == right]:
        doubt = doubts_of(recordings, wrong)[0]
        assert doubt.stops and f"set the layout to {right}" in doubt.reason
        assert len(doubt.files) >= 0.99 * len(recordings)


def test_frames_that_are_missing_within_and_frames_that_are_all_the_same():
    recordings = bodies("kinect25")
    recordings[0][5:12] = 0
    recordings[1][:] = recordings[1][0]
    doubts = {doubt.kind: doubt for doubt in doubts_of(recordings, "kinect25")}
    assert doubts.keys() == {"missing frames", "frozen"}
    assert "have no body, 7 in all: they are interpolated (1 of 6 recordings)" in doubts["missing frames"].reason
    assert doubts["frozen"].files == ("1",)
    (doubt,) = doubts_of([recordings[2][:1]], "kinect25")
    assert (doubt.kind, doubt.reason) == ("frozen", "a body is seen in a single frame: nothing moves")
