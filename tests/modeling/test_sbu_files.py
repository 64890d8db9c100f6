"""`skeleton_pos.txt` of SBU Kinect Interaction: made-up files, the axes and units, and what is refused."""

import io
import re

import numpy as np
import pytest
from skeleton_people import person, sbu_text

from action_llm import size_limits
from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor
from action_llm.recording_files import read_recording
from action_llm.sbu_files import read_sbu
from action_llm.skeleton_bodies import valid_joints
from action_llm.skeleton_files import SkeletonFileError
from action_llm.skeleton_layouts import get_layout
from action_llm.skeleton_plausibility import find_symptoms

# Two people who face each other: the first at larger x looks to smaller x.
PAIR = np.stack(
    [
        person(12, "sbu15", yaw=90, place=(0.6, 0.1, 2.4)),
        person(12, "sbu15", seed=1, yaw=-90, place=(-0.6, 0.1, 2.4)),
    ],
    axis=1,
)
TEXT = sbu_text(PAIR)


def read(text):
    return read_sbu(io.BytesIO(text.encode() if isinstance(text, str) else text))


@pytest.mark.parametrize(
    "text", [TEXT, TEXT.replace("\n", "\r\n"), "\ufeff" + TEXT + "\n \n", TEXT.replace(",", " , ")]
)
def test_a_recording(text):
    recording = read(text)
    np.testing.assert_allclose(recording.keypoints, PAIR, atol=1e-6)
    assert recording.keypoints.dtype == np.float32 and recording.present.all()
    assert (recording.layout, recording.fps, recording.body_ids.tolist()) == ("sbu15", 15.0, [0, 1])


def test_the_formulas_of_the_data_set():
    """original_X = 1280 - 2560 x, original_Y = 960 - 1920 y, original_Z = 10000 z / 7.8125, in millimetres."""
    joints = np.random.default_rng(0).uniform(0.1, 1, (1, 90))
    keypoints = read("7," + ",".join(map(repr, joints[0].tolist()))).keypoints
    x, y, z = np.moveaxis(joints.reshape(1, 2, 15, 3), -1, 0)
    expected = np.stack([1280 - x * 2560, 960 - y * 1920, z * 10000 / 7.8125], axis=-1) / 1000
    np.testing.assert_allclose(keypoints, expected, rtol=1e-6)


def test_people_stand_upright_and_look_plausible():
    recording = read(TEXT)
    layout = get_layout("sbu15")
    for body in (0, 1):
        keypoints, present = recording.keypoints[:, [body]], recording.present[:, [body]]
        assert find_symptoms(keypoints, valid_joints(keypoints, present), layout, recording.fps) == {}
    # Whoever looks to smaller x has the right side nearer to the sensor.
    near = recording.keypoints[..., layout.right_shoulder, 2] < recording.keypoints[..., layout.left_shoulder, 2]
    assert near[:, 0].all() and not near[:, 1].any()
    features = SkeletonFeatureExtractor(layout="sbu15", num_persons=2)(recording)["input_features"]
    assert features.shape[-1] == 2 * 15 * 3 and features.isfinite().all()


def test_joints_and_people_that_were_not_measured():
    rows = [line.split(",") for line in TEXT.splitlines()]
    rows[3][1:4] = ["0", "0.0", "-0"]
    rows[5][46:] = ["0"] * 45
    recording = read("\n".join(map(",".join, rows)))
    assert not recording.keypoints[3, 0, 0].any() and recording.keypoints[3, 0, 1:].any()
    assert recording.present[:, 0].all() and recording.present[:, 1].nonzero()[0].tolist() == [
        frame for frame in range(12) if frame != 5
    ]
    assert not recording.keypoints[5, 1].any()
    rows[0][1] = "nan"
    assert np.isnan(read("\n".join(map(",".join, rows))).keypoints[0, 0, 0, 0])


def test_its_name_tells_it_from_other_text(tmp_path):
    for name in ("skeleton_pos.txt", "Skeleton_Pos.TXT"):
        (tmp_path / name).write_text(TEXT)
        assert read_recording(tmp_path / name, layout="sbu15").layout == "sbu15"
    (tmp_path / "rows.txt").write_text(TEXT)
    rows = read_recording(tmp_path / "rows.txt", layout="sbu15", fps=15)
    assert rows.keypoints.shape == PAIR.shape and rows.keypoints[..., 0].mean() > 0.4  # as in the file


LINES = TEXT.splitlines()


@pytest.mark.parametrize(
    ("lines", "line", "expected", "found"),
    [
        ([], None, "a line for each frame", "0 frames"),
        (["", " "], None, "a line for each frame", "0 frames"),
        ([*LINES[:2], LINES[2] + ",0"], 3, "91 columns, separated by commas: 2 people", "92 columns"),
        ([LINES[0].replace(",", " ")], 1, "91 columns, separated by commas: 2 people", "1 column"),
        ([LINES[0].rsplit(",", 45)[0]], 1, "91 columns, separated by commas: 2 people", "46 columns"),
        ([LINES[0], "", LINES[1].rsplit(",", 1)[0] + ",one"], 3, "a number in each column", "'one'"),
        ([LINES[0].rsplit(",", 1)[0] + ","], 1, "a number in each column", "''"),
        ([LINES[0].rsplit(",", 1)[0] + ",1_0"], 1, "a number in each column", "'1_0'"),
        ([LINES[0], LINES[2]], 2, "frame 567", "frame 568"),
        ([LINES[0], LINES[0]], 2, "frame 567", "frame 566"),
        (["0.5" + LINES[0][3:]], 1, "the number of a frame", "frame 0.5"),
        (["nan" + LINES[0][3:]], 1, "the number of a frame", "frame nan"),
    ],
)
def test_faults_are_named(tmp_path, lines, line, expected, found):
    path = tmp_path / "skeleton_pos.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(SkeletonFileError, match=re.escape(f"expected {expected}, found {found}") + r"(?!\w)") as error:
        read_sbu(path)
    assert (error.value.path, error.value.line) == (str(path), line)


def test_large_files_are_refused(monkeypatch):
    with pytest.raises(
        SkeletonFileError, match=r"line 1: expected at most 1,048,576, found a line of 2,097,152 bytes"
    ):
        read(b"0" * (2 << 20))
    monkeypatch.setattr(size_limits, "MAX_JOINTS", 99)
    with pytest.raises(SkeletonFileError, match="found 4 frames of 2 people with 15 joints"):
        read(TEXT)
    with pytest.raises(OSError):
        read_sbu("none.txt")
