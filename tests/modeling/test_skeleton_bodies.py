"""Whose body is whose, and when: seen through an extractor that changes nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skeleton_people import frames_of, person, plain, recording

from action_llm.skeleton_bodies import Cleaning, count_cleaning, describe_cleaning, select_actors, valid_joints


def seen_ids(made, **kwargs):
    """Which body stands for each person in each frame from the first that anybody is in, found by comparing coordinates;
    -1 where zeros."""
    recorded = made.keypoints[made.present.any(1).argmax() :]

    def body_of(frame, pose):
        if not pose.any():
            return -1
        return next((b for b, body in enumerate(recorded[frame]) if (body == pose).all()), "nobody recorded")

    frames = frames_of(plain(**kwargs), made)
    return [[body_of(frame, pose) for pose in people] for frame, people in enumerate(frames)]


def test_who_moves_most_is_first():
    calm, lively = person(20, activity=0.02), person(20, activity=0.6, place=(1, 0, 3))
    assert seen_ids(recording([(0, calm), (0, lively)])) == [[1, 0]] * 20
    assert seen_ids(recording([(0, lively), (0, calm)])) == [[0, 1]] * 20
    assert seen_ids(recording([(0, calm), (0, lively)]), num_persons=1) == [[1]] * 20


def test_three_bodies():
    bodies = [person(20, seed=s, activity=a, place=(s, 0, 3)) for s, a in enumerate((0.1, 0.02, 0.6))]
    assert seen_ids(recording([(0, body) for body in bodies])) == [[2, 0]] * 20
    assert seen_ids(recording([(0, body) for body in bodies]), num_persons=3) == [[2, 0, 1]] * 20


def test_bodies_seen_briefly_are_dropped_unless_they_are_all_there_is():
    brief = person(11, activity=0.9, place=(1, 0, 3))
    assert seen_ids(recording([(0, person(20)), (3, brief)])) == [[0, -1]] * 20
    assert seen_ids(recording([(0, person(20)), (3, brief)]), min_body_frames=10)[5] == [1, 0]
    assert seen_ids(recording([(0, person(8)), (0, person(8, place=(1, 0, 3)))]))[0] in ([0, 1], [1, 0])
    assert seen_ids(recording([(0, brief)])) == [[0, -1]] * 11


def test_flat_bodies_are_dropped_unless_they_are_all_there_is():
    table = person(20, activity=0.2)[..., [1, 0, 2]]  # lies along x
    assert seen_ids(recording([(0, table), (0, person(20, activity=0.02))])) == [[1, -1]] * 20
    assert seen_ids(recording([(0, table)])) == [[0, -1]] * 20
    both = recording([(0, table), (0, person(20, seed=1)[..., [1, 0, 2]])])
    assert -1 not in seen_ids(both)[0]
    # Somebody who falls is flat in some frames only.
    falling = np.concatenate([person(20), person(20)[..., [1, 0, 2]]])
    assert -1 not in seen_ids(recording([(0, falling), (0, person(40, place=(1, 0, 3)))]))[30]


def cleaned(made, **settings):
    actors, fates = select_actors(made.keypoints, valid_joints(made.keypoints, made.present), Cleaning(**settings))
    return actors, fates, describe_cleaning(actors, fates, made.body_ids, made.present)


def test_what_became_of_each_body():
    table = person(20, activity=0.2)[..., [1, 0, 2]]
    bodies = [
        (0, person(90, activity=0.5)), (0, person(20, seed=1, place=(1, 0, 3))), (30, person(11, place=(2, 0, 3))),
        (60, person(30, seed=2, place=(1, 0, 3))), (5, table), (0, person(90, seed=3, activity=0.01, place=(-1, 0, 3))),
    ]  # fmt: skip
    made = recording(bodies, ids=[10, 11, 12, 13, 14, 15])
    actors, fates, said = cleaned(made)
    assert fates == ["person", "person", "short", "continues", "flat", "surplus"]
    assert actors[:, 0].tolist() == [0] * 90
    assert actors[:, 1].tolist() == [1] * 20 + [-1] * 40 + [3] * 30
    assert said == {
        "bodies": [
            {"body_id": 12, "frames": 11, "fate": "short"}, {"body_id": 13, "frames": 30, "fate": "continues"},
            {"body_id": 14, "frames": 20, "fate": "flat"}, {"body_id": 15, "frames": 90, "fate": "surplus"},
        ],
        "gap_frames": [0, 40],
    }  # fmt: skip
    assert cleaned(recording([(0, person(20))]))[2] == {}
    _, _, other = cleaned(recording([(0, person(20)), (40, person(20))], ids=[5, 5]))
    assert other == {"bodies": [], "gap_frames": [20]}
    assert count_cleaning([said, other, said]) == {"continues": 2, "flat": 2, "gap": 3, "short": 2, "surplus": 2}


def test_a_body_far_away_is_somebody_else():
    """What a person's gap shows 2.5 m away is not that person; what it shows close by is."""

    def fates(distance):
        phantom = (35, person(20, seed=1, place=(0.3 + distance, -0.2, 3), activity=0.1))
        made = recording([(0, person(30, activity=0.5)), phantom, (60, person(40, activity=0.5))], ids=[7, 8, 7])
        return cleaned(made)[1]

    assert fates(2.5) == ["person", "person"] and fates(0.5) == ["person", "continues"]
    made = recording([(0, person(30)), (35, person(20, place=(2.8, -0.2, 3)))])
    assert cleaned(made, max_join_distance=5.0)[1] == ["person", "continues"]


def test_without_cleaning_bodies_are_people_in_order_of_appearance():
    table = person(20, activity=0.2)[..., [1, 0, 2]]
    made = recording([(5, person(60, activity=0.5)), (0, table), (30, person(5, place=(2, 0, 3)))], ids=[10, 11, 12])
    actors, fates, _ = cleaned(made, clean=False)
    assert fates == ["person", "person", "surplus"]
    assert actors[:, 0].tolist() == [1] * 20 + [-1] * 45 and actors[:, 1].tolist() == [-1] * 5 + [0] * 60
    assert cleaned(made)[1] == ["person", "flat", "short"]
    # The same through an extractor: the table is a person, and first.
    assert seen_ids(made, clean=False, max_gap=0.0)[5] == [1, 0]
    with pytest.raises(ValueError, match="clean: expected True or False, got 'no'"):
        plain(clean="no")


def _selection_by_loops(made):
    """The convention of SGN and CTR-GCN in plain loops: bodies in order of motion after both filters."""
    motion = {}
    tracks = {b: made.keypoints[made.present[:, b], b].astype(np.float64) for b in range(made.present.shape[1])}
    if len(tracks) == 1:
        return list(tracks)
    tracks = {b: track for b, track in tracks.items() if len(track) > 11} or tracks
    if len(tracks) == 1:
        return list(tracks)
    good = {}
    for b, track in tracks.items():
        good[b] = [frame for frame in track if np.ptp(frame[:, 0]) <= 0.8 * np.ptp(frame[:, 1])]
    kept = [b for b in tracks if 1 - len(good[b]) / len(tracks[b]) < 0.69754]
    for b in kept or tracks:
        motion[b] = sum(np.var(tracks[b][..., axis]) for axis in range(3))
        if kept:
            motion[b] = min(motion[b], sum(np.var(np.array(good[b])[..., axis]) for axis in range(3)))
    return sorted(motion, key=lambda b: -motion[b])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_selection_by_the_published_convention(data):
    """All bodies overlap in one frame here, so that order and filters alone decide."""
    bodies = []
    for seed in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, 9))
        body = person(data.draw(st.integers(10 - start, 30)), seed=seed, activity=data.draw(st.floats(0.01, 0.8)))
        flat = data.draw(st.integers(0, len(body)))
        body[:flat] = body[:flat, :, [1, 0, 2]]
        bodies.append((start, body))
    made = recording(bodies)
    expected = _selection_by_loops(made)
    shared = 9 - min(start for start, _ in bodies)  # time begins with the first body
    assert [body for body in seen_ids(made, num_persons=4)[shared] if body >= 0] == expected


def test_two_then_one_then_two():
    """The second person leaves and comes back under another id: same slot, their own time, zeros in between."""
    first, second = person(90, activity=0.5), person(90, seed=1, activity=0.1, place=(1, 0, 3))
    made = recording([(0, first), (0, second[:20]), (60, second[60:])])
    assert made.keypoints.shape[1] == 3
    assert seen_ids(made, max_gap=1.0) == [[0, 1]] * 20 + [[0, -1]] * 40 + [[0, 2]] * 30
    # 40 frames of absence are 4/3 s. A gap that is short enough is interpolated, between the right frames.
    assert seen_ids(made, max_gap=1.33)[30] == [0, -1]
    assert seen_ids(made, max_gap=1.34)[30] == [0, "nobody recorded"]
    filled = frames_of(plain(max_gap=2.0), made)[:, 1]
    weight = (np.arange(20, 60)[:, None, None] - 19) / 41
    np.testing.assert_allclose(filled[20:60], second[19] + weight * (second[60] - second[19]), atol=1e-6)
    np.testing.assert_array_equal(filled[:20], second[:20])
    np.testing.assert_array_equal(filled[60:], second[60:])


def test_both_people_get_new_ids_and_keep_their_places():
    """Motion alone would exchange them: in the second half, the other is the livelier one."""
    left = [person(40, seed=1, activity=0.8), person(40, seed=2, activity=0.02)]
    right = [person(40, seed=s, place=(1.5, 0, 3), activity=a) for s, a in ((3, 0.05), (4, 0.5))]
    made = recording([(0, left[0]), (0, right[0]), (45, left[1]), (45, right[1])])
    seen = seen_ids(made, max_gap=0.0)
    assert seen[:40] == [[0, 1]] * 40 and seen[45:] == [[2, 3]] * 40
    made = recording([(0, left[0]), (0, right[0]), (45, right[1]), (45, left[1])])
    seen = seen_ids(made, max_gap=0.0)
    assert seen[:40] == [[0, 1]] * 40 and seen[45:] == [[3, 2]] * 40


def test_a_body_that_comes_back_keeps_its_time():
    body = person(60)
    made = recording([(0, body[:20]), (35, body[35:])], ids=[7, 7])
    frames = frames_of(plain(), made)[:, 0]
    np.testing.assert_array_equal(frames[:20], body[:20])
    np.testing.assert_array_equal(frames[35:], body[35:])
    weight = (np.arange(20, 35)[:, None, None] - 19) / 16
    np.testing.assert_allclose(frames[20:35], body[19] + weight * (body[35] - body[19]), atol=1e-6)


def test_empty_frames_around_everybody_are_cut_off():
    body = person(20)
    made = recording([(10, body)])
    made.keypoints = np.concatenate([made.keypoints, np.zeros_like(made.keypoints[:5])])
    made.present = np.concatenate([made.present, np.zeros_like(made.present[:5])])
    np.testing.assert_array_equal(frames_of(plain(), made)[:, 0], body)
    assert plain()(made)["start_time"].tolist() == pytest.approx([10 / 30])
    assert plain()(body)["start_time"].tolist() == [0]


@pytest.mark.parametrize("lost", [np.nan, np.inf, 0.0])
def test_lost_joints_are_interpolated(lost):
    body = person(30)
    damaged = body.copy()
    damaged[10:14, 7] = lost
    damaged[:3, 2] = lost
    if lost != 0:
        damaged[20, 9, 1] = lost  # one coordinate is enough
    frames = frames_of(plain(num_persons=1), damaged)[:, 0]
    expected = body.copy()
    for axis in range(3):
        expected[10:14, 7, axis] = np.interp(range(10, 14), [9, 14], body[[9, 14], 7, axis])
    expected[:3, 2] = body[3, 2]
    if lost != 0:
        expected[20, 9] = (body[19, 9] + body[21, 9]) / 2
    np.testing.assert_allclose(frames, expected, atol=1e-6)


def test_a_joint_never_measured_is_put_between_its_neighbours():
    body = person(10)
    body[:, 5] = np.nan
    frames = frames_of(plain(num_persons=1), body)[:, 0]
    np.testing.assert_allclose(frames[:, 5], (body[:, 4] + body[:, 6]) / 2, atol=1e-6)


def test_a_joint_at_the_origin_in_every_frame_is_where_the_recording_is_centred():
    body = person(10)
    body -= body[:, :1]
    np.testing.assert_array_equal(frames_of(plain(num_persons=1), body)[:, 0], body)


def test_a_coordinate_that_is_no_place_is_a_lost_joint():
    keypoints = np.ones((3, 1, 4, 3))
    keypoints[1, 0, 2, 0], keypoints[2, 0, 3, 1] = 1e30, -1e7
    expected = np.ones((3, 1, 4), bool)
    expected[1, 0, 2] = expected[2, 0, 3] = False
    assert np.array_equal(valid_joints(keypoints, np.ones((3, 1), bool)), expected)
