"""The reader of Toyota Smarthome's JSON, against `json.load` and a loop over joints."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skeleton_people import smarthome_text

from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor
from action_llm.skeleton_files import SkeletonFileError
from action_llm.smarthome_files import _read_json, _scan_lists, read_smarthome

LENGTHS = {"pose2d": 26, "pose3d": 39}


def naive_reader(path, pose):
    """float32 (T, P, 13, 3) and bool (T, P), the plain way."""
    with open(path) as file:
        frames = json.load(file)["frames"]
    keypoints = np.zeros((len(frames), max(map(len, frames), default=0), 13, 3), np.float32)
    present = np.zeros(keypoints.shape[:2], bool)
    for t, frame in enumerate(frames):
        for p, detection in enumerate(frame):
            present[t, p] = True
            for joint in range(13):
                for coordinate in range(LENGTHS[pose] // 13):
                    with np.errstate(over="ignore"):
                        keypoints[t, p, joint, coordinate] = np.float64(detection[pose][joint + 13 * coordinate])
    return keypoints, present


def assert_equals_naive(path, pose):
    recording = read_smarthome(path, pose=pose)
    keypoints, present = naive_reader(path, pose)
    assert recording.keypoints.dtype == np.float32
    np.testing.assert_array_equal(recording.keypoints.view(np.int32), keypoints.view(np.int32))
    np.testing.assert_array_equal(recording.present, present)
    assert recording.body_ids.tolist() == list(range(present.shape[1])) and recording.body_ids.dtype == np.int64
    return recording


numbers = st.one_of(
    st.floats(width=32), st.floats(), st.floats(-3, 3), st.integers(-(10**20), 10**20), st.just(-0.0), st.just(1e-7)
)
# Joints of (-1, -1) are the one thing that a plain loop reads otherwise.
detections = st.fixed_dictionaries(
    {pose: st.lists(numbers.filter(lambda n: n != -1), min_size=n, max_size=n) for pose, n in LENGTHS.items()},
    optional={"cumscore": numbers, "note": st.text(max_size=5)},
)
clips = st.lists(st.lists(detections, max_size=3), max_size=3)


@settings(max_examples=40, deadline=None)
@given(frames=clips, pose=st.sampled_from(list(LENGTHS)), separators=st.sampled_from([None, (",", ":"), (" ,", ": ")]))
def test_reads_what_a_naive_reader_reads(tmp_path_factory, frames, pose, separators):
    path = tmp_path_factory.getbasetemp() / "property.json"
    path.write_text(json.dumps({"K": 100, "njts": 13, "frames": frames}, separators=separators))
    assert_equals_naive(path, pose)


@settings(max_examples=40, deadline=None)
@given(frames=clips, pose=st.sampled_from(list(LENGTHS)), separators=st.sampled_from([None, (",", ":")]))
def test_both_ways_of_reading_agree(frames, pose, separators):
    text = json.dumps({"K": 100, "njts": 13, "frames": frames}, separators=separators).encode()
    scanned = _scan_lists(Path("x"), text, pose, LENGTHS[pose])
    if scanned is None:  # no numbers in JSON, though Python writes them so
        assert b"NaN" in text or b"Infinity" in text
        return
    for fast, slow in zip(scanned, _read_json(Path("x"), text, pose, LENGTHS[pose]), strict=True):
        np.testing.assert_array_equal(fast, slow)


FRAMES = (1, 0, 0, 2, 1)  # detections in each frame


def test_a_recording(tmp_path):
    path = tmp_path / "Drink.Fromcup_p02_r00_v02_c03_pose3d.json"
    path.write_bytes(smarthome_text(FRAMES))
    frames = json.loads(path.read_bytes())["frames"]
    for pose in LENGTHS:
        recording = assert_equals_naive(path, pose)
        assert recording.present.tolist() == [[1, 0], [0, 0], [0, 0], [1, 1], [1, 0]]
        assert not recording.keypoints[~recording.present].any()
        # Coordinates stand one after the other, not joints.
        assert recording.keypoints[3, 1, 12, 1] == np.float32(frames[3][1][pose][13 + 12])
        layout = {"pose3d": "lcrnet13", "pose2d": "lcrnet13-2d"}[pose]
        assert (recording.layout, recording.fps, recording.source) == (layout, 20.0, path.name)
    assert not read_smarthome(path, pose="pose2d").keypoints[..., 2].any()
    assert _scan_lists(path, path.read_bytes(), "pose3d", 39) is not None


@pytest.mark.parametrize(("layout", "pose"), [("lcrnet13", "pose3d"), ("lcrnet15", "pose3d"), ("lcrnet17", "pose2d")])
def test_features_of_a_path(tmp_path, layout, pose):
    path = tmp_path / "a.json"
    path.write_bytes(smarthome_text((1,) * 12))
    extractor = SkeletonFeatureExtractor(layout=layout)
    by_path, by_recording = (
        extractor(one, return_tensors="np")["input_features"] for one in (path, read_smarthome(path, pose=pose))
    )
    assert np.isfinite(by_path).all() and by_path.any()
    np.testing.assert_array_equal(by_path, by_recording)


def test_joints_marked_as_missing(tmp_path):
    content = json.loads(smarthome_text((1, 1)))
    pose2d, pose3d = (content["frames"][1][0][pose] for pose in LENGTHS)
    pose2d[4] = pose2d[4 + 13] = -1
    pose2d[7] = -1  # one coordinate is a place
    pose3d[4] = pose3d[4 + 13] = pose3d[4 + 26] = -1  # and so is (-1, -1, -1) metres
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    keypoints = read_smarthome(path, pose="pose2d").keypoints[1, 0]
    assert keypoints[4].tolist() == [0, 0, 0] and keypoints[7, 0] == -1
    assert read_smarthome(path).keypoints[1, 0, 4].tolist() == [-1, -1, -1]


def test_readable_extremes(tmp_path):
    path = tmp_path / "a.json"
    for counts in ((), (0,) * 5):
        path.write_bytes(smarthome_text(counts))
        empty = read_smarthome(path)
        assert empty.keypoints.shape == (len(counts), 0, 13, 3) and empty.present.shape == (len(counts), 0)
    path.write_text('\ufeff{"frames": []}', encoding="utf-8")
    assert read_smarthome(path).keypoints.shape == (0, 0, 13, 3)
    path.write_text(smarthome_text(FRAMES).decode(), encoding="utf-16")
    assert read_smarthome(path).present.sum() == 4
    path.write_text(json.dumps({"frames": [[{"pose3d": [0]}]]}), encoding="utf-16")
    with pytest.raises(SkeletonFileError, match="expected 39 numbers"):
        read_smarthome(path)


def test_infinite_and_nan_are_numbers(tmp_path):
    path = tmp_path / "a.json"
    for token, value in (("NaN", np.nan), ("-Infinity", -np.inf), ("1e999", np.inf), ("1" + "0" * 5000, np.inf)):
        content = json.loads(smarthome_text((1,)))
        content["frames"][0][0]["pose3d"][17] = "here"
        path.write_text(json.dumps(content).replace('"here"', token))
        np.testing.assert_array_equal(read_smarthome(path).keypoints[0, 0, 4, 1], value)


def changed(where, value):
    """Text of a clip in which something else stands at a path of keys."""
    content = json.loads(smarthome_text(FRAMES))
    if not where:
        return json.dumps(value)
    parent = content
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    return json.dumps(content)


TEXT = smarthome_text(FRAMES).decode()
LAST = ("frames", 4, 0, "pose3d")


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ("", 1, "Expecting value at character 1", "JSON"),
        ("a poem", 1, "Expecting value at character 1", "JSON"),
        (b"\x89PNG\r\n\x1a\n", None, "UnicodeDecodeError", "JSON"),
        (TEXT[:700], 1, "at character", "JSON"),
        (TEXT[:-1], 1, f"at character {len(TEXT)}", "JSON"),
        (TEXT + "{}", 1, "Extra data", "JSON"),
        (TEXT.replace("[[{", "[\n[{").replace("}],", "}]"), 2, "Expecting ',' delimiter", "JSON"),
        ("[" * 100_000, None, "RecursionError", "JSON"),
        (changed([], [1, 2]), None, "a list of 2", "an object with frames"),
        (changed([], "frames"), None, '"frames"', "an object with frames"),
        (changed([], {"K": 1}), None, "null", "frames as a list"),
        (changed(["frames"], {"0": []}), None, "an object of 1", "frames as a list"),
        (changed(["njts"], 17), None, "njts 17", "13 joints"),
        (changed(["njts"], "13"), None, 'njts "13"', "13 joints"),
        (changed(["frames", 1], None), None, "null", "frame 1 as a list of detections"),
        (changed(["frames", 1], 3), None, "3", "frame 1 as a list of detections"),
        (changed(["frames", 1], [5]), None, "5", "a detection of frame 1 as an object"),
        (changed(["frames", 3, 1], {}), None, "null", "pose3d of frame 3 as a list"),
        (changed(LAST, "x" * 80), None, '"xxx', "pose3d of frame 4 as a list"),
        (changed(LAST, 7), None, "7", "pose3d of frame 4 as a list"),
        (changed(LAST, [0]), None, "1 numbers", "39 numbers as pose3d of frame 4"),
        (changed(LAST, []), None, "0 numbers", "39 numbers as pose3d of frame 4"),
        (changed(LAST, [0.5] * 51), None, "51 numbers", "39 numbers as pose3d of frame 4"),
        (changed([*LAST, 20], "1.5"), None, '"1.5"', "39 numbers as pose3d of frame 4"),
        (changed([*LAST, 20], None), None, "null", "39 numbers as pose3d of frame 4"),
        (changed([*LAST, 0], True), None, "true", "39 numbers as pose3d of frame 4"),
        (changed([*LAST, 20], [1.5]), None, "a list of 1", "39 numbers as pose3d of frame 4"),
        *(
            (changed([*LAST, place], "here").replace('"here"', token), 1, "at character", "JSON")
            for place in (0, 20, 38)
            for token in ("01", "1.", "1.e5", ".5", "+1", "inf", "nan", "0x10", "1_0", "1e", "-", "", "1 2", "1..2")
        ),
        (changed(["frames", 0, 0, "pose2d", 3], "here").replace('"here"', "1.2.3"), 1, "at character", "JSON"),
    ],
)
@pytest.mark.parametrize("compact", [False, True])
def test_bad_files_name_the_place(tmp_path, text, line, found, expected, compact):
    path = tmp_path / "bad.json"
    text = text if isinstance(text, bytes) else text.encode()
    if compact:
        text = text.replace(b", ", b",")
        found = found if f"{len(TEXT)}" not in found else "at character"
    path.write_bytes(text)
    with pytest.raises(SkeletonFileError) as caught:
        read_smarthome(path)
    error = caught.value
    assert (error.path, error.line) == (str(path), line)
    assert found in error.actual and expected in error.expected and len(error.actual) < 120
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(TEXT) - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_text(TEXT[:cut])
    with pytest.raises(SkeletonFileError):
        read_smarthome(path)


def test_missing_files_and_poses(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_smarthome(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"pose must be one of \['pose2d', 'pose3d'\], got 'pose4d'"):
        read_smarthome(tmp_path / "none.json", pose="pose4d")
