"""C3D files: numbers of all machines, beside ezc3d, and joints from the markers of Plug-in Gait."""

from pathlib import Path

import ezc3d
import numpy as np
import pytest
from c3d_writer import DEC, INTEL, NAMES, SGI, c3d_bytes, gait_markers
from skeleton_people import person

from action_llm import SkeletonFeatureExtractor
from action_llm.c3d_files import parse_c3d, read_c3d
from action_llm.recording_files import read_recording
from action_llm.skeleton_files import SkeletonFileError

PATH = Path("walk.c3d")


def write(folder, *args, **kwargs):
    path = folder / "walk.c3d"
    path.write_bytes(c3d_bytes(*args, **kwargs))
    return path


@pytest.mark.parametrize("processor", [INTEL, DEC, SGI])
@pytest.mark.parametrize("scale", [-1.0, 0.1])
def test_numbers_of_all_machines(processor, scale):
    points = np.random.default_rng(0).normal(size=(7, 4, 3)) * 900
    labels = ["LASI", "RASI", "a b", "C7"]
    content = c3d_bytes(
        labels, points, processor, scale, rate=119.88, missing=[(2, 1)], more={("POINT", "Y_SCREEN"): ["+Z"]}
    )
    markers = parse_c3d(PATH, content)
    assert markers.labels == labels and (markers.units, markers.vertical) == ("mm", "z")
    assert markers.rate == pytest.approx(119.88)
    assert np.isnan(markers.positions[2, 1]).all() and np.isnan(markers.positions).sum() == 3
    seen = np.isfinite(markers.positions)
    np.testing.assert_allclose(markers.positions[seen], points[seen], atol=0.051 if scale > 0 else 1e-3)


@pytest.mark.parametrize("processor", [INTEL, DEC])
@pytest.mark.parametrize("scale", [-1.0, 0.1])
def test_the_same_numbers_as_ezc3d(tmp_path, processor, scale):
    labels, points = gait_markers(9)
    # ezc3d looks for the group ANALOG.
    ours = write(tmp_path, labels, points, processor, scale, missing=[(3, 5)], analogue=0)
    by_ezc3d = ezc3d.c3d(str(ours))["data"]["points"][:3].transpose(2, 1, 0)
    np.testing.assert_allclose(parse_c3d(ours, ours.read_bytes()).positions, by_ezc3d, rtol=1e-6)


def test_files_that_ezc3d_writes(tmp_path):
    labels, points = gait_markers(9)
    written = ezc3d.c3d()
    written["parameters"]["POINT"]["RATE"]["value"] = [60]
    written["parameters"]["POINT"]["LABELS"]["value"] = labels
    written["parameters"]["POINT"]["UNITS"]["value"] = ["m"]
    written["data"]["points"] = np.concatenate([points.transpose(2, 1, 0) / 1000, np.ones((1, len(labels), 9))])
    written["data"]["points"][:3, 0, 4] = np.nan
    written.write(str(tmp_path / "other.c3d"))
    theirs = parse_c3d(PATH, (tmp_path / "other.c3d").read_bytes())
    assert theirs.labels == labels and theirs.rate == 60
    expected = points / 1000
    expected[4, 0] = np.nan
    np.testing.assert_allclose(theirs.positions, expected, atol=1e-6)


def test_joints_of_a_person(tmp_path):
    labels, points = gait_markers(12)
    file = write(tmp_path, [f"Anna:{label}" for label in labels], points)
    recording = read_recording(file)
    assert (recording.layout, recording.fps, recording.source) == ("smpl22", 100, "walk.c3d")
    truth = person(12, "smpl22")
    for name in (
        "head",
        "neck",
        "spine2",
        "left_knee",
        "right_knee",
        "left_wrist",
        "right_ankle",
        "left_shoulder",
        "right_foot",
        "left_elbow",
    ):
        place = NAMES.index(name)
        np.testing.assert_allclose(recording.keypoints[:, 0, place], truth[:, place], atol=1e-4, err_msg=name)
    missing = {name for place, name in enumerate(NAMES) if np.isnan(recording.keypoints[:, 0, place]).all()}
    assert missing == {"spine1", "spine3", "left_collar", "right_collar"}
    # Bell's numbers for a pelvis of 24 cm: the hip is 14 % inwards, 19 % backwards and 30 % downwards of the marker beside it.
    markers = np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1) / 1000
    place = {label: markers[:, number] for number, label in enumerate(labels)}
    for side, other in (("left", "right"), ("right", "left")):
        hip = recording.keypoints[:, 0, NAMES.index(f"{side}_hip")]
        near, far = (np.linalg.norm(hip - place[f"{of[0].upper()}ASI"], axis=-1) / 0.24 for of in (side, other))
        np.testing.assert_allclose(near, np.sqrt(0.14**2 + 0.19**2 + 0.30**2), atol=1e-4)
        np.testing.assert_allclose(far, np.sqrt(0.86**2 + 0.19**2 + 0.30**2), atol=1e-4)
        back = (place["LPSI"] + place["RPSI"]) / 2
        to_back = np.linalg.norm(hip - back, axis=-1) / 0.24
        np.testing.assert_allclose(to_back, np.sqrt(0.36**2 + (160 / 240 - 0.19) ** 2 + 0.30**2), atol=1e-4)
    hips = recording.keypoints[:, 0, [NAMES.index("left_hip"), NAMES.index("right_hip")]].mean(1)
    assert (hips[:, 1] < (place["LASI"] + place["RASI"])[:, 1] / 2).all()
    features = SkeletonFeatureExtractor("kinect25", num_persons=1)(recording)
    assert np.isfinite(features["input_features"]).all()


@pytest.mark.parametrize(("y_screen", "up"), [("Y", None), ("+Y", None), (None, "y"), ("-Z", "y")])
def test_the_axis_that_points_up(tmp_path, y_screen, up):
    labels, points = gait_markers(3)
    upright = np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)
    stated = {} if y_screen is None else {("POINT", "Y_SCREEN"): [y_screen]}
    turned = read_recording(write(tmp_path, labels, upright, more=stated), up=up)
    usual = read_recording(write(tmp_path, labels, points))
    np.testing.assert_allclose(turned.keypoints, usual.keypoints, atol=1e-6)


def test_two_people_and_cmu_names(tmp_path):
    (labels, first), (_, second) = gait_markers(5, seed=0), gait_markers(5, seed=1)
    cmu = {"LASI": "LFWT", "RASI": "RFWT", "LPSI": "LBWT", "RPSI": "RBWT"}
    names = [f"A:{label}" for label in labels] + [f"B:{cmu.get(label, label)}" for label in labels] + ["*3"]
    points = np.concatenate([first, second + 500, np.zeros((5, 1, 3))], axis=1)
    hidden = [(2, len(labels) + place) for place in range(len(labels))]
    recording = read_c3d(write(tmp_path, names, points, missing=hidden))
    assert recording.keypoints.shape == (5, 2, 22, 3)
    assert recording.present.tolist() == [[True, frame != 2] for frame in range(5)]
    alone = read_c3d(write(tmp_path, labels, first))
    np.testing.assert_allclose(recording.keypoints[:, 0], alone.keypoints[:, 0], atol=1e-6)
    other = read_c3d(write(tmp_path, labels, second + 500)).keypoints[[0, 1, 3, 4], 0]
    np.testing.assert_allclose(recording.keypoints[[0, 1, 3, 4], 1], other, atol=1e-6)
    assert (recording.keypoints[2, 1] == 0).all()


def test_a_joint_without_its_marker_is_missing_in_that_frame(tmp_path):
    labels, points = gait_markers(4)
    recording = read_c3d(
        write(tmp_path, labels, points, missing=[(1, labels.index("LKNE")), (2, labels.index("LASI"))])
    )
    is_missing = np.isnan(recording.keypoints[:, 0]).all(-1)
    pelvis = read_c3d(write(tmp_path, labels, points)).keypoints[:, 0, 0]
    markers = np.stack([points[:, labels.index(name)] for name in ("LASI", "RASI", "LPSI", "RPSI")]).mean(0) / 1000
    np.testing.assert_allclose(pelvis, np.stack([markers[:, 0], markers[:, 2], -markers[:, 1]], axis=-1), atol=1e-5)
    assert is_missing[:, NAMES.index("left_knee")].tolist() == [False, True, False, False]
    assert is_missing[:, NAMES.index("left_hip")].tolist() == [False, False, True, False]
    assert not is_missing[:, NAMES.index("right_knee")].any()


@pytest.mark.parametrize(
    ("frames", "more", "count"),
    [
        ((1, 6), {}, 6),
        ((3, 8), {}, 6),  # a part of a longer recording
        ((1, 2), {("POINT", "FRAMES"): 6.0}, 6),
        ((1, 6), {("TRIAL", "ACTUAL_START_FIELD"): [2, 0], ("TRIAL", "ACTUAL_END_FIELD"): [4, 0]}, 6),
        ((1, 0xFFFF), {("POINT", "LONG_FRAMES"): 6.0}, 6),
        ((1, 2), {("POINT", "FRAMES"): [-1], ("POINT", "LONG_FRAMES"): 6.0}, 6),
        (
            (1, 0xFFFF),
            {("TRIAL", "ACTUAL_START_FIELD"): [-4, 1], ("TRIAL", "ACTUAL_END_FIELD"): [1, 2]},
            6,  # from 2 * 65536 - 4 to 2 * 65536 + 1
        ),
    ],
)
def test_the_number_of_frames(frames, more, count):
    """Of POINT:FRAMES or the header; of others only where 16 bits cannot hold it."""
    labels, points = gait_markers(6)
    assert len(parse_c3d(PATH, c3d_bytes(labels, points, frames=frames, more=more)).positions) == count


def test_frames_are_never_left_out_silently():
    labels, points = gait_markers(6)
    with pytest.raises(SkeletonFileError, match="2 frames of"):
        parse_c3d(PATH, c3d_bytes(labels, points, frames=(1, 2)))


def test_labels_may_be_fewer_or_go_on():
    labels, points = gait_markers(3)
    more = np.concatenate([points, np.zeros((3, 2, 3))], axis=1)
    assert parse_c3d(PATH, c3d_bytes(labels, more)).labels == [*labels, "", ""]
    split = c3d_bytes(labels[:9], points, more={("POINT", "LABELS2"): labels[9:]})
    assert parse_c3d(PATH, split).labels == labels


def test_the_best_markers_that_are_seen_are_used(tmp_path):
    labels, points = gait_markers(4)
    place = {name: number for number, name in enumerate(labels)}
    names = [*labels, "LKNM", "LHJC", "SACR", "LANM"]
    sacrum = (points[:, place["LPSI"]] + points[:, place["RPSI"]]) / 2
    extra = [points[:, place["LKNE"]] + 80, points[:, place["LASI"]] - 50, sacrum, np.zeros((4, 3))]
    extra = np.stack([*points.swapaxes(0, 1), *extra], axis=1)
    number = len(labels)
    missing = [(0, number), (1, number + 1), (2, place["LPSI"]), (3, place["LWRA"]), (3, place["LFHD"])]
    missing += [(frame, number + 3) for frame in range(4)]  # a marker of the static trial
    usual, recording = (
        read_c3d(write(tmp_path, labels, points)),
        read_c3d(write(tmp_path, names, extra, missing=missing)),
    )
    joints, expected = (of.keypoints[:, 0] for of in (recording, usual))

    def moved(joint):
        return np.linalg.norm(joints[:, NAMES.index(joint)] - expected[:, NAMES.index(joint)], axis=-1)

    np.testing.assert_allclose(moved("left_knee"), np.array([0, 1, 1, 1]) * 0.04 * np.sqrt(3), atol=1e-5)
    assert (moved("left_hip") > 0.01).tolist() == [True, False, True, True]
    np.testing.assert_allclose(moved("right_hip"), 0, atol=1e-5)  # by the sacrum in frame 2
    for joint in ("left_ankle", "left_wrist", "head", "pelvis"):
        np.testing.assert_allclose(moved(joint), 0, atol=1e-5, err_msg=joint)


@pytest.mark.parametrize(("units", "metres"), [("m", 1), ("cm", 0.01), ("MM", 0.001), ("inch", 0.0254)])
def test_units(tmp_path, units, metres):
    labels, points = gait_markers(3)
    recording = read_c3d(write(tmp_path, labels, points / 1000 / metres, units=units))
    np.testing.assert_allclose(recording.keypoints, read_c3d(write(tmp_path, labels, points)).keypoints, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SCALE", ["x"], "numbers"),
        ("RATE", ["fast"], "numbers"),
        ("DATA_START", float("nan"), "finite numbers"),
        ("LABELS", [1, 2], "text"),
        ("DATA_START", [2], "a place after the parameters"),
        ("FRAMES", float("inf"), "finite numbers"),
    ],
)
def test_parameters_of_the_wrong_type(name, value, expected):
    labels, points = gait_markers(3)
    with pytest.raises(SkeletonFileError, match=f"expected {expected}"):
        parse_c3d(PATH, c3d_bytes(labels, points, more={("POINT", name): value}))


def test_parameters_do_not_overlap():
    """Else a small file could have any number of large ones."""
    labels, points = gait_markers(3)
    content = bytearray(c3d_bytes(labels, points))
    place = content.index(b"LABELS") + len("LABELS")
    content[place : place + 2] = (9).to_bytes(2, "little")
    with pytest.raises(SkeletonFileError, match="a parameter that begins before LABELS ends"):
        parse_c3d(PATH, bytes(content))


def test_more_parameters_than_stated():
    labels, points = gait_markers(3)
    content = bytearray(c3d_bytes(labels, points, more={("POINT", "DESCRIPTIONS"): ["x" * 100] * len(labels)}))
    content[512 + 2] = 1
    assert parse_c3d(PATH, bytes(content)).labels == labels


def test_no_byte_can_be_missing():
    labels, points = gait_markers(3)
    content = c3d_bytes(labels, points)
    parse_c3d(PATH, content)
    for length in range(0, len(content), 61):
        with pytest.raises(SkeletonFileError, match=r"walk\.c3d: expected"):
            parse_c3d(PATH, content[:length])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels, points: c3d_bytes(labels, points, units="furlong"), "one of m, dm, cm, mm.*'furlong'"),
        (
            lambda labels, points: c3d_bytes(labels[:4], points[:, :4]),
            "no markers for left_shoulder, right_shoulder among",
        ),
        (lambda labels, points: c3d_bytes(labels, points, rate=0), "a positive number of frames per second.*fps 0"),
        (lambda labels, points: c3d_bytes(labels, points, processor=99), r"84 \(Intel\).*processor 99"),
        (lambda labels, points: b"\x02\x51" * 600, "second byte is 50"),
    ],
)
def test_faults_are_named(tmp_path, change, message):
    path = tmp_path / "walk.c3d"
    path.write_bytes(change(*gait_markers(3)))
    with pytest.raises(SkeletonFileError, match=message):
        read_recording(path)
