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
    content = c3d_bytes(labels, points, processor, scale, rate=119.88, y_screen="+Z", missing=[(2, 1)])
    markers = parse_c3d(PATH, content)
    assert markers.labels == labels and (markers.units, markers.vertical) == ("mm", "z")
    assert markers.rate == pytest.approx(119.88)
    assert np.isnan(markers.positions[2, 1]).all() and np.isnan(markers.positions).sum() == 3
    seen = np.isfinite(markers.positions)
    np.testing.assert_allclose(markers.positions[seen], points[seen], atol=0.051 if scale > 0 else 1e-3)


def test_the_same_numbers_as_ezc3d(tmp_path):
    labels, points = gait_markers(9)
    ours = write(tmp_path, labels, points, missing=[(3, 5)], analogue=0)  # ezc3d looks for the group ANALOG
    by_ezc3d = ezc3d.c3d(str(ours))["data"]["points"][:3].transpose(2, 1, 0)
    np.testing.assert_array_equal(parse_c3d(ours, ours.read_bytes()).positions, by_ezc3d)

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
    for name in ("head", "neck", "spine2", "left_knee", "right_knee", "left_wrist", "right_ankle", "left_shoulder"):
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
    turned = read_recording(write(tmp_path, labels, upright, y_screen=y_screen), up=up)
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


def test_a_joint_without_its_marker_is_missing_in_that_frame(tmp_path):
    labels, points = gait_markers(4)
    recording = read_c3d(
        write(tmp_path, labels, points, missing=[(1, labels.index("LKNE")), (2, labels.index("LASI"))])
    )
    is_missing = np.isnan(recording.keypoints[:, 0]).all(-1)
    assert is_missing[:, NAMES.index("left_knee")].tolist() == [False, True, False, False]
    assert is_missing[:, NAMES.index("left_hip")].tolist() == [False, False, True, False]
    assert not is_missing[:, NAMES.index("right_knee")].any()


def test_a_long_recording_has_its_frames_in_trial_fields():
    """More frames than 16 bits can count: the low and the high word of the last frame."""
    labels, points = gait_markers(2)
    content = bytearray(c3d_bytes(labels, points))
    group = bytes([5, 0x100 - 2]) + b"TRIAL" + (3).to_bytes(2, "little") + b"\0"
    fields = b""
    for name, words in (("ACTUAL_START_FIELD", (1, 0)), ("ACTUAL_END_FIELD", (2, 0))):
        value = bytes([2, 1, 2]) + b"".join(word.to_bytes(2, "little") for word in words)
        fields += bytes([len(name), 2]) + name.encode() + (2 + len(value) + 1).to_bytes(2, "little") + value + b"\0"
    end = content.index(b"USED") - 2
    content[end : end + len(group + fields)] = group + fields
    content[8:10] = b"\xff\xff"
    assert parse_c3d(PATH, bytes(content)).positions.shape == (2, len(labels), 3)


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
