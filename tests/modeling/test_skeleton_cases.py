"""Recordings as people bring them: each with what is right about it, with real files where there are any, made up otherwise."""

import dataclasses
import io

import numpy as np
import pytest
from skeleton_people import NO_AUGMENTATION, frames_of, person, plain, recording, row

from action_llm.array_files import read_joint_array, recording_from_array
from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor, SkeletonInputError
from action_llm.recording_files import read_recording
from action_llm.skeleton_bodies import follow_people, valid_joints
from action_llm.skeleton_files import SkeletonFileError
from action_llm.skeleton_layouts import LAYOUTS


@pytest.fixture(scope="module")
def cases(real_data):
    folder = real_data / "cases"
    if not folder.is_dir():
        pytest.skip("the small inputs that fail are not there")
    return folder


def features(extractor, recordings, **kwargs):
    return {name: value.numpy() for name, value in extractor(recordings, **kwargs).items()}


def assert_same_features(extractor, one, other):
    first, second = features(extractor, one), features(extractor, other)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


# ------------------------------------------------------------------------------------------ padding


def test_zeros_behind_a_recording_change_nothing():
    body = person(70)
    extractor = SkeletonFeatureExtractor()
    assert_same_features(extractor, np.concatenate([body, np.zeros((230, 25, 3))]), body)
    assert "frames without a body are cut off, 230 at the end" in extractor.doubts(
        np.concatenate([body, np.zeros((230, 25, 3))])
    )


def test_zeros_before_a_recording_change_its_times_alone():
    body = person(70)
    made = features(SkeletonFeatureExtractor(), np.concatenate([np.zeros((15, 25, 3)), body]))
    alone = features(SkeletonFeatureExtractor(), body)
    np.testing.assert_array_equal(made["input_features"], alone["input_features"])
    assert made["start_time"].tolist() == [0.5] and alone["start_time"].tolist() == [0.0]


def test_real_recordings_padded_to_300_frames(cases):
    files = sorted((cases / "s09_zero_padded").glob("*_padded300.npy"))
    assert len(files) == 6
    for path in files:
        unpadded = path.with_name(path.name.replace("_padded300", ""))
        assert_same_features(SkeletonFeatureExtractor(), path, unpadded)


# ------------------------------------------------------------------------------------------ the recorded rate


def test_the_recorded_rate_is_saved_and_used_again(tmp_path):
    body = person(56)
    np.save(tmp_path / "x.npy", body)
    extractor = SkeletonFeatureExtractor(recorded_fps=15)
    extractor.save_pretrained(tmp_path)
    loaded = SkeletonFeatureExtractor.from_pretrained(tmp_path)
    in_training = features(extractor, row(recording([(0, body)], fps=15.0)))
    assert in_training["input_features"].shape[1] == 112
    for given in (tmp_path / "x.npy", body):
        np.testing.assert_array_equal(features(loaded, given)["input_features"], in_training["input_features"])
        assert any("15 frames per second" in doubt for doubt in loaded.doubts(given))
        assert features(loaded, given, fps=30)["input_features"].shape[1] == 56
        assert loaded.doubts(given, fps=30) == []
    np.savez(tmp_path / "x.npz", keypoints=body, fps=28.0)
    assert features(loaded, tmp_path / "x.npz")["input_features"].shape[1] == 60  # what a file says counts
    assert loaded.doubts(tmp_path / "x.npz") == []
    assert features(loaded, tmp_path / "x.npz", fps=14)["input_features"].shape[1] == 120  # unless the call says it
    assert features(loaded, recording([(0, body)]), fps=60)["input_features"].shape[1] == 28
    assert features(loaded, row(recording([(0, body)])), fps=60)["input_features"].shape[1] == 28


def test_a_rate_of_15_read_from_real_files(cases):
    for path in sorted((cases / "s04_fps_inference").glob("*_15fps.npy")):
        body = np.load(path)
        in_training = row(recording([(0, body[:, 0])], fps=15.0))
        extractor = SkeletonFeatureExtractor(recorded_fps=15)
        np.testing.assert_array_equal(
            features(extractor, path)["input_features"], features(extractor, in_training)["input_features"]
        )


def test_a_recording_that_was_read_before_has_the_rate_of_the_model():
    extractor = SkeletonFeatureExtractor(recorded_fps=15)
    read = recording_from_array(person(56), layout="kinect25")
    np.testing.assert_array_equal(
        features(extractor, read)["input_features"], features(extractor, person(56))["input_features"]
    )
    assert read.fps == 30 and read.fps_is_assumed  # the caller's own is left alone


def test_bad_rates_are_refused():
    for fps in (0, -1, float("nan")):
        with pytest.raises(SkeletonInputError, match="frames per second"):
            SkeletonFeatureExtractor()(person(5), fps=fps)
    with pytest.raises(ValueError, match="recorded_fps"):
        SkeletonFeatureExtractor(recorded_fps=0)


# ------------------------------------------------------------------------------------------ axes


@pytest.mark.parametrize("up", ["z", "-y"])
def test_files_with_another_axis_up(tmp_path, up):
    body = person(20)
    np.save(tmp_path / "x.npy", body[..., [0, 2, 1]] * [1, -1, 1] if up == "z" else body * [1, -1, -1])
    extractor = SkeletonFeatureExtractor(recorded_up=up)
    np.testing.assert_allclose(
        frames_of(extractor, tmp_path / "x.npy"), frames_of(extractor, row(recording([(0, body)]))), atol=1e-6
    )
    np.testing.assert_array_equal(
        frames_of(extractor, tmp_path / "x.npy"), frames_of(extractor, np.load(tmp_path / "x.npy").astype(np.float32))
    )
    assert any('set "up"' in doubt for doubt in SkeletonFeatureExtractor().doubts(tmp_path / "x.npy"))
    with pytest.raises(ValueError, match="up: expected one of y, -y, z"):
        SkeletonFeatureExtractor(recorded_up="down")


# ------------------------------------------------------------------------------------------ joints that were not seen


def coco(**kwargs):
    return plain(layout="coco17", num_persons=1, scale="torso", center="first", **kwargs)


@pytest.mark.parametrize("mark", [(0, 0, 0), (-1, -1, 0), (-1, -1, -1), (7, 9, 0.02), (np.nan, np.nan, 0)])
def test_a_joint_that_was_not_seen_is_not_the_corner_of_the_picture(mark):
    body = person(30, "coco17") * [150, 150, 0] + [320, 240, 0.9]
    lost, unknown = body.copy(), body.copy()
    lost[:, 15:] = mark  # both ankles, always
    lost[10:15, 9] = mark
    unknown[:, 15:, :2] = unknown[10:15, 9, :2] = np.nan
    np.testing.assert_array_equal(frames_of(coco(), lost), frames_of(coco(), unknown))
    assert "joints that were never seen: left_ankle, right_ankle" in coco().doubts(lost)


def test_a_recording_that_is_centred_on_a_joint_keeps_it():
    body = person(20)
    centred = body - body[:, :1]
    recorded = recording_from_array(centred, layout="kinect25")
    assert valid_joints(recorded.keypoints, recorded.present).all()
    centred[:, [19, 15]] = (
        0  # feet in the middle of the body: they were not seen, and nothing tells which joint is the centre
    )
    recorded = recording_from_array(centred, layout="kinect25")
    assert not valid_joints(recorded.keypoints, recorded.present)[..., [15, 19]].any()


@pytest.mark.parametrize("layout", ["coco17", "openpose25", "kinect25"])
def test_an_upper_body_hangs_on_its_neck(layout):
    """The pelvis is where that of an average body would be, so that the head is above it and the scale is about right."""
    skeleton = LAYOUTS[layout]
    body = person(30, layout, activity=0.02)
    legs = [joint for part in ("left_leg", "right_leg") for joint in skeleton.parts[part]] + list(skeleton.pelvis)
    seen = body.copy()
    seen[:, legs] = 0
    extractor = plain(layout=layout, num_persons=1, scale="torso", center="first")
    whole, upper = frames_of(extractor, body), frames_of(extractor, seen)
    top = [joint for part in ("left_arm", "right_arm") for joint in skeleton.parts[part]]
    assert (
        np.sqrt(((whole[:, 0, top] - upper[:, 0, top]) ** 2).sum(-1).mean()) < 0.35
    )  # torsos; in the corner it was 2 to 5
    assert np.isfinite(upper).all()


def test_legs_alone_have_a_neck_above_them():
    skeleton = LAYOUTS["kinect25"]
    body = person(30, activity=0.02)
    seen = body.copy()
    seen[:, [joint for part in ("left_arm", "right_arm") for joint in skeleton.parts[part]] + [1, 2, 3, 20]] = np.nan
    extractor = plain(num_persons=1, scale="torso", center="first")
    legs = list(skeleton.parts["left_leg"])
    error = frames_of(extractor, body)[:, 0, legs] - frames_of(extractor, seen)[:, 0, legs]
    assert np.sqrt((error**2).sum(-1).mean()) < 0.3


def test_a_pelvis_between_hips_that_were_seen():
    """It is their middle, also of somebody who bends."""
    body = person(30, activity=0.02)
    body[..., 2] += 0.8 * (body[..., 1] + 0.25)  # leans by 40 degrees
    lost = body.copy()
    lost[:, 0] = np.nan
    extractor = plain(num_persons=1, scale="torso", center="first")
    arms = list(LAYOUTS["kinect25"].parts["left_arm"])
    error = frames_of(extractor, body)[:, 0, arms] - frames_of(extractor, lost)[:, 0, arms]
    assert np.sqrt((error**2).sum(-1).mean()) < 0.15


def test_what_has_no_trunk_is_refused():
    body = person(30)
    body[:, [joint for joint in range(25) if joint not in (3, 11, 24)]] = 0
    with pytest.raises(
        SkeletonInputError, match=r"expected hips, or shoulders and a neck, .* found no more than head, right_hand"
    ):
        SkeletonFeatureExtractor()(body)


@pytest.mark.parametrize(("layout", "up"), [("kinect25", "z"), ("kinect25", "-y"), ("coco17", "y")])
def test_marks_of_lost_joints_are_none_once_turned(layout, up):
    body = person(40, layout)
    marked, unknown = body.copy(), body.copy()
    marked[5:25, 11, : LAYOUTS[layout].dimensions] = -1
    unknown[5:25, 11, : LAYOUTS[layout].dimensions] = np.nan
    extractor = plain(layout=layout, num_persons=1, recorded_up=up)
    np.testing.assert_array_equal(frames_of(extractor, marked), frames_of(extractor, unknown))


def test_depth_around_zero_is_no_score():
    """A pose estimator that lifts joints gives z around the hips; half of a body is no further from the camera than they."""
    body = person(20, "coco17") * [150, 150, 0] + [320, 240, 0]
    lifted = body.copy()
    lifted[..., 2] = np.random.default_rng(0).normal(size=lifted.shape[:2]) * 0.3
    np.testing.assert_array_equal(frames_of(coco(), lifted), frames_of(coco(), body))
    assert any("it is no score" in doubt for doubt in coco().doubts(lifted, fps=30))


def test_the_lost_joints_of_the_cases(cases):
    folder = cases / "s03_minus_one_missing"
    read = {path.stem: frames_of(coco(), path) for path in sorted(folder.glob("*.npy"))}
    np.testing.assert_array_equal(read["clip"], read["clip_nan"])
    np.testing.assert_array_equal(read["clip_zero"], read["clip_nan"])
    np.testing.assert_array_equal(read["upper_body_zero"], read["upper_body_nan"])
    seen = [joint for joint in range(17) if joint not in (15, 16)]
    rms = np.sqrt(((read["clip"] - read["clip_full"])[:, 0, seen] ** 2).sum(-1).mean())
    assert rms < 0.05
    nose = read["upper_body_zero"][:, 0, 0, 1].mean()
    assert nose == pytest.approx(read["clip_full"][:, 0, 0, 1].mean(), abs=0.2)  # y grows downwards; it was -4.7


def test_a_third_number_that_is_no_score_is_said():
    doubts = SkeletonFeatureExtractor(layout="openpose25").doubts(person(9, "kinect25"), fps=30)
    assert any(
        "third number, from 2.91 to 3.1: it is no score, and openpose25 has two dimensions" in doubt
        for doubt in doubts
    )
    assert any("set the layout to kinect25" in doubt for doubt in doubts)


# ------------------------------------------------------------------------------------------ rows of text


def written(tmp_path, lines, separator=" "):
    path = tmp_path / "clip.txt"
    path.write_text(
        "\n".join(
            separator.join(f"{number:.9g}" if not isinstance(number, str) else number for number in line)
            for line in lines
        )
        + "\n"
    )
    return path


def text_forms():
    body = person(23, "kinect20")
    joints = [(frame, joint, body[frame, joint].tolist()) for frame in range(23) for joint in range(20)]
    rows = [(frame, body[frame].ravel().tolist()) for frame in range(23)]
    return body, {
        "a frame a row": [values for _, values in rows],
        "a frame number before the frame": [[252 + frame, *values] for frame, values in rows],
        "a joint a row": [values for _, _, values in joints],
        "a confidence behind the joint": [[*values, 1] for _, _, values in joints],
        "a word behind the joint": [[*values, "tracked"] for _, _, values in joints],
        "the joint's number before it": [[joint, *values, 2] for _, joint, values in joints],
        "counted from 1": [[joint + 1, *values] for _, joint, values in joints],
        "frame and joint before it": [[frame + 7, joint, *values] for frame, joint, values in joints],
        "the frame before it": [[frame, *values] for frame, joint, values in joints],
        "frame numbers with gaps": [[2 * frame + (frame > 9), joint, *values] for frame, joint, values in joints],
        "the time before it": [[frame / 30, *values] for frame, joint, values in joints],
        "the time and the joint before it": [[frame / 30, joint, *values] for frame, joint, values in joints],
        "names of the columns": [["x", "y", "z"], *(values for _, _, values in joints)],
        "numbers of frames and joints first": [[23, 20], *(values for _, _, values in joints)],
    }


@pytest.mark.parametrize("form", list(text_forms()[1]))
@pytest.mark.parametrize("separator", [" ", ", ", "\t"])
def test_rows_are_read_as_what_they_are(tmp_path, form, separator):
    body, forms = text_forms()
    made = read_recording(written(tmp_path, forms[form], separator), layout="kinect20")
    np.testing.assert_allclose(made.keypoints[:, 0], body, rtol=1e-6)


def test_two_people_a_row(tmp_path):
    """As SBU has it: the frame number, then all joints of the one and of the other."""
    one, other = person(12, "kinect20"), person(12, "kinect20", seed=1, place=(1, 0, 3))
    lines = [[frame + 1, *one[frame].ravel(), *other[frame].ravel()] for frame in range(12)]
    made = read_joint_array(written(tmp_path, lines, ","), layout="kinect20")
    np.testing.assert_allclose(made.keypoints, np.stack([one, other], 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([0.5] * 61, "found rows of 61 numbers"),
        ([0.5] * 59, "found rows of 59 numbers"),
        ([0.5] * 45, "expected 20 joints of 3 numbers in a row"),  # fifteen joints
    ],
)
def test_rows_that_are_neither_frames_nor_joints_are_refused(tmp_path, line, message):
    with pytest.raises(SkeletonFileError, match=message):
        read_joint_array(written(tmp_path, [line] * 60), layout="kinect20")


def test_a_word_among_the_numbers_of_a_frame_is_refused_by_line(tmp_path):
    path = written(tmp_path, [[0.5] * 60, [*[0.5] * 30, "lost", *[0.5] * 29]])
    with pytest.raises(SkeletonFileError, match="line 2"):
        read_joint_array(path, layout="kinect20")


def test_rows_of_the_cases(cases):
    read = {
        path.stem: read_joint_array(path, layout="kinect20").keypoints
        for path in (cases / "s01_txt_frame_per_row").glob("*.txt")
    }
    assert {name: len(keypoints) for name, keypoints in read.items()} == {
        "clip": 60,
        "clip_61": 61,
        "clip_utkinect": 60,
    }
    np.testing.assert_array_equal(read["clip"], read["clip_utkinect"])
    np.testing.assert_array_equal(read["clip_61"][:60], read["clip"])
    indexed = [
        read_joint_array(path, layout="kinect20").keypoints for path in (cases / "s02_txt_index_column").glob("*.txt")
    ]
    assert len(indexed) == 4
    for keypoints in indexed:
        np.testing.assert_allclose(keypoints, read["clip"][:40], atol=2e-5)


# ------------------------------------------------------------------------------------------ people


def two_people():
    return np.stack([person(60, "coco17"), person(60, "coco17", seed=1, place=(2, 0, 0))], 1) * [150, 150, 0]


def test_people_who_change_slots_are_followed():
    tracked = two_people()
    swapped = tracked.copy()
    places = np.random.default_rng(0).random(60) < 0.5
    swapped[places] = swapped[places][:, ::-1]
    made = recording_from_array(swapped, layout="coco17")
    first = 1 if places[0] else 0
    np.testing.assert_array_equal(made.keypoints, tracked[:, [first, 1 - first]])
    assert made.symptoms["changed places"] > 5
    assert "changed places" not in recording_from_array(tracked, layout="coco17").symptoms


def test_people_who_are_tracked_keep_their_slots_when_they_cross_and_come_back():
    tracked = two_people()
    tracked[:, 0] += np.linspace(0, 600, 60)[:, None, None] * [1, 0, 0]  # walks past the other one
    tracked[20:40, 1] = 0  # leaves, and comes back elsewhere
    tracked[40:, 1] += [300, 0, 0]
    made = recording_from_array(tracked, layout="coco17")
    np.testing.assert_array_equal(made.keypoints, tracked)
    assert made.present[:, 1].tolist() == [True] * 20 + [False] * 20 + [True] * 20


def test_a_person_who_was_detected_three_times_is_one():
    body = person(40, "coco17") * [150, 150, 0]
    thrice = np.stack([body, body + np.array([2, 0, 0]), body + np.array([0, 1, 0])], 1)
    made = recording_from_array(thrice, layout="coco17")
    np.testing.assert_array_equal(made.keypoints[:, 0], body)
    assert made.present.sum(0).tolist() == [40, 0, 0] and made.symptoms["same person twice"] == 80
    assert frames_of(plain(layout="coco17"), thrice).any((2, 3)).sum(0).tolist() == [40, 0]


def test_who_moves_up_when_another_leaves_stays_who_they_are():
    """As detectors number people anew in each frame: the first leaves, and the second becomes the first."""
    tracked = two_people()
    detections = tracked.copy()
    detections[30:, 0], detections[30:, 1] = tracked[30:, 1], 0
    made = recording_from_array(detections, layout="coco17")
    np.testing.assert_array_equal(made.keypoints[:, 1], tracked[:, 1])
    assert made.present[:, 0].tolist() == [True] * 30 + [False] * 30 and made.symptoms["changed places"] == 1


def test_people_who_swap_while_nobody_is_seen():
    tracked = two_people()
    detections = tracked.copy()
    detections[30:] = detections[30:, ::-1]
    detections[29] = 0
    made = recording_from_array(detections, layout="coco17")
    np.testing.assert_array_equal(np.delete(made.keypoints, 29, axis=0), np.delete(tracked, 29, axis=0))


@pytest.mark.parametrize("shape", [(2, 2), (8, 8), (10, 8), (3, 30)])
def test_people_before_frames_are_told_by_how_they_move(shape):
    """(people, frames): in the other order they are as they should be."""
    people, frames = shape
    bodies = np.stack([person(frames, "coco17", seed=seed, place=(2 * seed, 0, 0)) for seed in range(people)]) * [
        150,
        150,
        0,
    ]
    with pytest.raises(SkeletonFileError, match="if people come first, transpose the first two axes"):
        recording_from_array(bodies, layout="coco17")
    if frames >= people:
        recording_from_array(bodies.transpose(1, 0, 2, 3), layout="coco17")


def test_following_gives_permutations():
    """Every detection is somebody's, once, or left out as a copy."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        keypoints = generator.normal(size=(15, 3, 5, 3)) * 3
        valid = np.repeat(generator.random((15, 3, 1)) < 0.7, 5, axis=2)
        slots, _, copies = follow_people(keypoints, valid)
        there = [sorted(slot for slot in frame if slot >= 0) for frame in slots.tolist()]
        assert copies or there == [frame.nonzero()[0].tolist() for frame in valid.any(-1)]
        assert all(len(set(frame)) == len(frame) for frame in there)


def test_people_of_the_cases(cases):
    folder = cases / "s06_person_order"
    swapped, tracked = (read_joint_array(folder / f"{name}.npy", layout="coco17") for name in ("swapped", "tracked"))
    steps = np.abs(np.diff(swapped.keypoints, axis=0)).max(), np.abs(np.diff(tracked.keypoints, axis=0)).max()
    assert (
        steps[0] == pytest.approx(steps[1])
        and swapped.symptoms["changed places"] > 0
        and "changed places" not in tracked.symptoms
    )


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("m1_t6", "coco17", "6 people in 1 frame; if people come first"),
        ("m2_t8", "coco17", "8 people in 2 frames; if people come first"),
        ("m2_t60", "coco17", "60 people in 2 frames"),
        ("ctvm", "kinect20", "coordinates first, as in ST-GCN"),
        ("flat", "kinect20", r"a frame per row: reshape to \(60, 20, 3\)"),
        ("v4", "kinect25", r"\(60, 20, 4\)"),
        ("dict.skeleton", "kinect25", "a pickled object, which is not read because unpickling can run code"),
    ],
)
def test_arrays_with_other_axes(cases, name, layout, message):
    with pytest.raises(SkeletonFileError, match=message):
        read_joint_array(cases / "s05_pyskl_person_first" / f"{name}.npy", layout=layout)


# ------------------------------------------------------------------------------------------ joints in another order


@pytest.mark.parametrize("wrong", ["kinect20", "msr20"])
def test_nw_ucla_in_another_layout_is_doubted(cases, wrong):
    path = cases / "s10_same_count_other_order/nw_ucla_a01.npy"
    assert any(
        "set the layout to kinect20-sdk" in doubt
        for doubt in SkeletonFeatureExtractor(layout=wrong).doubts(path, fps=30)
    )
    assert SkeletonFeatureExtractor(layout="kinect20-sdk").doubts(path, fps=30) == []


# ------------------------------------------------------------------------------------------ open files and rows


def test_an_open_file_is_a_recording(tmp_path):
    np.save(tmp_path / "x.npy", person(12))
    opened = io.BytesIO((tmp_path / "x.npy").read_bytes())
    opened.name = "x.npy"
    np.testing.assert_array_equal(frames_of(plain(), opened), frames_of(plain(), tmp_path / "x.npy"))


def test_read_once_and_looked_at_it_is_the_same_recording(tmp_path):
    np.save(tmp_path / "x.npy", person(12))
    extractor = SkeletonFeatureExtractor(**NO_AUGMENTATION)
    read = extractor.read(tmp_path / "x.npy", fps=15)
    assert read.fps == 15 and not read.fps_is_assumed
    assert_same_features(extractor, read, dataclasses.replace(read))
    assert extractor.doubts(read) == extractor.doubts(row(recording([(0, person(12))]))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,103 0,48 2,857\n" * 20, r"line 1: expected decimal points, found decimal commas \('0,103 0,48 2,857'\)"),
        ("\ufeff0.5 1.5 2.5\n".encode("utf-16"), "found text in UTF-16"),
        ("".join(f"{joint % 2} {joint / 7} 1.5 {joint / 9}\n" for joint in range(40)), "rows that begin with 0, 1"),
        ("".join(f"2 {joint / 7} 1.5 {joint / 9}\n" for joint in range(40)), "rows that begin with 2"),
    ],
)
def test_text_that_would_be_read_as_other_numbers(tmp_path, text, message):
    path = tmp_path / "clip.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SkeletonFileError, match=message):
        read_joint_array(path, layout="kinect20")


def test_a_byte_order_mark_and_semicolons_change_nothing(tmp_path):
    body, forms = text_forms()
    for form in ("a frame a row", "a joint a row"):
        path = written(tmp_path, forms[form], "; ")
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        np.testing.assert_allclose(read_joint_array(path, layout="kinect20").keypoints[:, 0], body, rtol=1e-6)


def test_people_who_are_not_read_are_said():
    """A model of one person that reads a recording of two names the way to read both."""
    two = np.stack([person(30), person(30, seed=1, place=(1.5, 0, 3.0))], axis=1)
    said = "of 2 people, only 1 is read: whoever moves most; per_person=True recognises each"
    assert SkeletonFeatureExtractor(num_persons=1).doubts(two, fps=30) == [said]
    pair = recording([(0, two[:, 0]), (1, two[:, 1])])
    assert SkeletonFeatureExtractor(num_persons=1).doubts(row(pair)) == [said]
    first = SkeletonFeatureExtractor(num_persons=1, clean=False).doubts(two, fps=30)
    assert first == [said.replace("moves most", "comes first")]
    assert SkeletonFeatureExtractor(num_persons=2).doubts(two, fps=30) == []


def test_an_array_of_another_layout_names_what_tells_its_layout():
    with pytest.raises(SkeletonInputError, match=r"of another layout, a dict of keypoints, shape .*coco17, .*h36m17"):
        SkeletonFeatureExtractor("kinect20")(np.ones((9, 17, 3)))
    with pytest.raises(SkeletonInputError, match="of another layout, a dict of keypoints"):
        SkeletonFeatureExtractor("kinect20")(np.ones((9, 20, 2)))
    with pytest.raises(SkeletonInputError) as error:
        SkeletonFeatureExtractor("kinect20")(np.full((9, 20, 3), "x"))
    assert "another layout" not in str(error.value)
