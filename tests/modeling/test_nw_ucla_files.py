"""The JSON of Northwestern-UCLA: made-up files, and what is refused."""

import io
import json
import math
import re

import numpy as np
import pytest
from skeleton_people import nw_ucla_text, person, smarthome_text

from action_llm import size_limits
from action_llm.nw_ucla_files import read_nw_ucla
from action_llm.recording_files import read_recording
from action_llm.skeleton_files import SkeletonFileError

BODY = person(5, "kinect20-sdk")


def test_a_recording(tmp_path):
    path = tmp_path / "a01_s01_e00_v01.json"
    path.write_bytes(nw_ucla_text(BODY))
    recording = read_nw_ucla(path)
    np.testing.assert_array_equal(recording.keypoints[:, 0], BODY)
    assert recording.keypoints.dtype == np.float32 and recording.present.all()
    assert (recording.layout, recording.fps, recording.source) == ("kinect20-sdk", 30.0, path.name)
    assert recording.body_ids.tolist() == [0] and not recording.fps_is_assumed
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_nw_ucla(file).keypoints, recording.keypoints)


def test_its_keys_tell_it_from_other_json(tmp_path):
    path = tmp_path / "clip.json"
    path.write_bytes(nw_ucla_text(BODY))
    assert read_recording(path).layout == "kinect20-sdk"
    turned = read_recording(path, layout="kinect20-sdk", up="-y")
    np.testing.assert_array_equal(turned.keypoints[:, 0], BODY * np.float32([1, -1, -1]))
    path.write_bytes(smarthome_text((1, 1)))
    assert read_recording(path, layout="lcrnet13").layout == "lcrnet13"


def test_integers_nan_and_frames_without_a_body():
    frames = np.zeros((3, 20, 3)).tolist()
    frames[1] = [[1, -2, 3]] * 20
    frames[2][4] = [math.nan, 1e300, 0]
    recording = read_nw_ucla(io.BytesIO(json.dumps({"skeletons": frames}).encode()))
    assert recording.present[:, 0].tolist() == [False, True, True]
    assert (recording.keypoints[1, 0] == [1, -2, 3]).all()
    assert np.isnan(recording.keypoints[2, 0, 4, 0]) and np.isinf(recording.keypoints[2, 0, 4, 1])


def changed(place, value):
    content = json.loads(nw_ucla_text(BODY))
    target = content
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "expected", "found"),
    [
        ("", "JSON", "Expecting value at character 1"),
        ("[" * 100_000, "JSON", "RecursionError"),
        ("[1]", "an object with skeletons", "a list of 1"),
        ('{"label": 1}', "skeletons as a list of frames", "null"),
        (changed(["skeletons"], []), "skeletons as a list of frames", "a list of 0"),
        (changed(["skeletons"], {}), "skeletons as a list of frames", "an object of 0"),
        (changed(["skeletons", 2], BODY[2, :15].tolist()), "20 joints in frame 2", "a list of 15"),
        (changed(["skeletons", 2], None), "20 joints in frame 2", "null"),
        (changed(["skeletons", 4, 19], [1, 2]), "3 numbers for joint 19 of frame 4", "a list of 2"),
        (changed(["skeletons", 4, 19, 2], "1"), "3 numbers for joint 19 of frame 4", '"1"'),
        (changed(["skeletons", 4, 19, 2], True), "3 numbers for joint 19 of frame 4", "true"),
        (changed(["skeletons", 4, 19, 2], [3]), "3 numbers for joint 19 of frame 4", "a list of 1"),
    ],
)
def test_faults_are_named(tmp_path, text, expected, found):
    path = tmp_path / "a01_s01_e00_v01.json"
    path.write_text(text)
    with pytest.raises(SkeletonFileError, match=re.escape(f"expected {expected}, found {found}")) as error:
        read_nw_ucla(path)
    assert error.value.path == str(path)


def test_large_files_are_refused(monkeypatch):
    monkeypatch.setattr(size_limits, "MAX_JSON_BYTES", 1 << 10)
    with pytest.raises(SkeletonFileError, match="expected at most 0 MiB"):
        read_nw_ucla(io.BytesIO(nw_ucla_text(BODY)))
    monkeypatch.undo()
    monkeypatch.setattr(size_limits, "MAX_JOINTS", 99)
    with pytest.raises(SkeletonFileError, match="found 5 frames of 1 people with 20 joints"):
        read_nw_ucla(io.BytesIO(nw_ucla_text(BODY)))
    with pytest.raises(OSError):
        read_nw_ucla("none.json")
