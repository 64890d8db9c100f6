"""People's own files of joints: every way to write the same recording reads the same, and what is none says so."""

import pickle
import re
import shlex
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skeleton_people import person

from action_llm.array_files import read_joint_array
from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor
from action_llm.recording_files import read_recording
from action_llm.skeleton_files import SkeletonFileError, read_skeleton
from action_llm.skeleton_layouts import LAYOUTS

BODY = person(9, "kinect20", seed=1).astype(np.float32)


def written(folder, form, body=BODY):
    path = folder / f"clip.{form.split('-')[0]}"
    if form == "npy":
        np.save(path, body)
    elif form == "npy-people":
        np.save(path, body[:, None].astype(np.float64))
    elif form == "npz":
        np.savez(path, keypoints=body, confidence=np.ones(3))
    elif form == "npz-alone":
        np.savez_compressed(path, anything=body)
    elif form == "txt":
        np.savetxt(path, body.reshape(-1, 3), fmt="%.9g")
    elif form == "txt-confidence":
        np.savetxt(
            path, np.concatenate([body.reshape(-1, 3), np.ones((body[..., 0].size, 1))], 1), fmt="%.9g", delimiter=","
        )
    return path


@pytest.mark.parametrize("form", ["npy", "npy-people", "npz", "npz-alone", "txt", "txt-confidence"])
def test_every_form_is_the_same_recording(tmp_path, form):
    recording = read_recording(written(tmp_path, form), layout="kinect20", fps=15)
    assert np.array_equal(recording.keypoints[:, 0], BODY) and recording.keypoints.dtype == np.float32
    assert recording.present.all() and recording.body_ids.tolist() == [0]
    assert (recording.layout, recording.fps, recording.source) == ("kinect20", 15, f"clip.{form.split('-')[0]}")


def test_the_feature_extractor_takes_the_path(tmp_path):
    extractor = SkeletonFeatureExtractor("kinect20", num_persons=1)
    found = extractor(written(tmp_path, "npz"), return_tensors="np")["input_features"]
    assert np.array_equal(found, extractor(BODY, return_tensors="np")["input_features"])


def test_two_people_one_of_whom_leaves(tmp_path):
    both = np.stack([BODY, BODY + 1], axis=1)
    both[4:, 1] = np.nan
    both[0, 0, 3] = np.nan
    np.save(tmp_path / "two.npy", both)
    recording = read_joint_array(tmp_path / "two.npy", layout="kinect20")
    assert recording.present[:, 0].all() and recording.present[:, 1].tolist() == [True] * 4 + [False] * 5
    assert np.isnan(recording.keypoints[0, 0, 3]).all() and not recording.keypoints[4:, 1].any()


def test_people_who_were_tracked_keep_their_ids(tmp_path):
    both = np.stack([BODY, BODY + 5], axis=1)
    both[5:] = both[5:, ::-1]  # people by distance would change places
    path = tmp_path / "two.npz"
    np.savez(path, keypoints=both, body_ids=np.array([7, -(2**62)]))
    recording = read_recording(path, layout="kinect20")
    assert recording.body_ids.dtype == np.int64 and recording.body_ids.tolist() == [7, -(2**62)]
    assert np.array_equal(recording.keypoints, both) and "changed places" not in recording.symptoms
    np.savez(path, keypoints=both[:1], body_ids=np.array([7, 9]))
    assert read_recording(path, layout="kinect20").present.shape == (1, 2)  # more people than frames
    for ids, actual in (([0, 0], r"\(2,\), some of them equal"), ([0], r"int64 \(1,\)"), ([0.0, 1.0], "float64")):
        np.savez(path, keypoints=both, body_ids=np.array(ids))
        with pytest.raises(SkeletonFileError, match=f"expected 2 distinct integers, .*found body_ids .*{actual}"):
            read_recording(path, layout="kinect20")


def test_two_dimensions(tmp_path):
    flat = person(5, "coco17", seed=2)[..., :2]
    np.save(tmp_path / "flat.npy", flat)
    recording = read_joint_array(tmp_path / "flat.npy", layout="coco17")
    assert (
        np.array_equal(recording.keypoints[:, 0, :, :2], flat.astype(np.float32))
        and not recording.keypoints[..., 2].any()
    )


def test_frames_per_second_in_the_file(tmp_path):
    np.savez(tmp_path / "slow.npz", keypoints=BODY, fps=12.5)
    assert read_joint_array(tmp_path / "slow.npz", layout="kinect20", fps=30).fps == 12.5
    np.savez(tmp_path / "bad.npz", keypoints=BODY, fps=-1)
    with pytest.raises(SkeletonFileError, match=r"bad\.npz: expected a positive number of frames"):
        read_joint_array(tmp_path / "bad.npz", layout="kinect20")


def test_a_skeleton_file_under_the_name_of_a_text(tmp_path):
    lines = ["1", "1", "7 0 0 0 0 0 0 0 0 0", "17", *["1 2 0 0 0 0 0 0 0 0 0 2"] * 17]
    (tmp_path / "clip.txt").write_text("\n".join(lines) + "\n")
    recording = read_recording(tmp_path / "clip.txt", layout="coco17")
    assert np.array_equal(recording.keypoints, read_skeleton(tmp_path / "clip.txt", layout="coco17").keypoints)


def test_a_layout_of_ones_own(tmp_path):
    own = LAYOUTS["kinect20"].to_dict() | {"name": "mine"}
    path = written(tmp_path, "npy")
    assert read_recording(path, layout=own).layout == "mine"
    extractor = SkeletonFeatureExtractor(own, num_persons=1)
    extractor.save_pretrained(tmp_path / "saved")
    loaded = SkeletonFeatureExtractor.from_pretrained(tmp_path / "saved")
    assert loaded.skeleton_layout == extractor.skeleton_layout
    expected = SkeletonFeatureExtractor("kinect20", num_persons=1)(path, return_tensors="np")["input_features"]
    assert np.array_equal(loaded(path, return_tensors="np")["input_features"], expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.zeros((4, 25, 3)), r"expected numbers \(frames, 20, 3\) .*, found float64 \(4, 25, 3\)"),
        ("a.npy", np.zeros((0, 20, 3)), r"found float64 \(0, 20, 3\)"),
        ("a.npy", np.zeros((4, 20, 2)), r"found float64 \(4, 20, 2\)"),
        ("a.npy", np.full((4, 20, 3), "x"), r"expected numbers"),
        ("a.npy", np.array([{"pickled": 1}], dtype=object), r"expected a NumPy file of numbers, found ValueError"),
        ("a.npz", {"one": BODY, "two": BODY}, "found the arrays one, two"),
        (
            "a.npz",
            {"x_train": BODY, "y_train": BODY},
            r"CTR-GCN: python -m action_llm_datasets\.unpack writes a file for each",
        ),
        ("a.npz", {"poses": BODY, "betas": BODY}, "parameters of a body model, as in AMASS"),
        ("a.npz", {"keypoint": BODY}, r"expected \(people, frames, joints, coordinates\).*, found keypoint \("),
        ("a.npy", np.zeros((9, 263)), "the features of HumanML3D or KIT-ML: use the joints in the folder new_joints"),
        ("a.pkl", b"\x80\x04", r"\.npz, .*run python -c .*numpy\.savez.* a\.pkl, found a pickle, which is not read"),
        ("a.npy", b"\x93NUMPY half", r"expected a NumPy file of numbers"),
        ("a.npz", b"no archive", r"expected a NumPy file of numbers"),
        ("a.txt", b"", r"expected 20 rows per frame, found 0 rows"),
        ("a.txt", b"1 2 3\n" * 21, r"expected 20 rows per frame, found 21 rows"),
        ("a.txt", b"1 2 3\n1 2\n", r"a\.txt, line 2: .*found 2 numbers"),
        ("a.txt", b"1 2 3\n1 b 3\n", r"a\.txt, line 2: expected the coordinates of a joint, found '1 b 3'"),
        ("a.mp4", b"video", r"found a name that ends in '\.mp4'"),
    ],
)
def test_what_is_no_recording_says_so(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(SkeletonFileError, match=message):
        read_recording(path, layout="kinect20")


@given(data=st.data())
def test_broken_bytes_end_in_data_or_in_the_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    path = written(folder, data.draw(st.sampled_from(["npy", "npz", "txt"])))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            del content[place : place + data.draw(st.integers(1, 200))]
        if not content:
            break
    path.write_bytes(content)
    try:
        recording = read_recording(path, layout="kinect20")
    except SkeletonFileError as error:
        assert path.name in str(error)
    else:
        assert recording.keypoints.shape[2:] == (20, 3)


@given(arrays(np.float32, (3, 20, 3), elements=st.floats(-100, 100, width=32)))
def test_text_keeps_every_bit(tmp_path_factory, body):
    path = written(tmp_path_factory.mktemp("text"), "txt", body)
    recording = read_joint_array(path, layout="kinect20")
    present = recording.present[:, 0]
    assert np.array_equal(recording.keypoints[present, 0], body[present])
    assert np.isin(body[~present], (0, -1)).all()


@pytest.mark.parametrize(
    "fps", [np.array("30"), np.array(1j), np.array("2020-01-01", "datetime64[D]"), np.array([30.0])]
)
def test_frames_per_second_that_are_none(tmp_path, fps):
    np.savez(tmp_path / "a.npz", keypoints=np.ones((4, 20, 3)), fps=fps)
    with pytest.raises(SkeletonFileError, match=r"fps|no array"):
        read_joint_array(tmp_path / "a.npz", layout="kinect20")


def test_people_before_frames(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 60, 20, 3)))
    with pytest.raises(SkeletonFileError, match="60 people in 2 frames"):
        read_joint_array(tmp_path / "a.npy", layout="kinect20")
    np.save(tmp_path / "a.npy", np.ones((3, 3, 20, 3)))
    assert read_joint_array(tmp_path / "a.npy", layout="kinect20").keypoints.shape == (3, 3, 20, 3)


def test_members_that_are_no_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("keypoints.txt", "1 2 3")
    with pytest.raises(SkeletonFileError, match="expected a NumPy file of numbers"):
        read_joint_array(tmp_path / "a.npz", layout="kinect20")


def test_an_annotation_of_pyskl(tmp_path):
    """People come first, scores are an array of their own, and the rest is not read. The command for pickles writes it."""
    people = (
        np.stack([person(30, "coco17", seed=seed, place=(2 * seed, 0, 0)) for seed in (0, 1)]) * [150, 150, 0] + 300
    )
    scores = np.full(people.shape[:3], 0.8, np.float16)
    scores[1, 4, 9] = 0
    annotation = {
        "frame_dir": "S001C001P001R001A001", "label": 0, "img_shape": (1080, 1920), "total_frames": 30,
        "keypoint": people[..., :2].astype(np.float16), "keypoint_score": scores,
    }  # fmt: skip
    with open(tmp_path / "set.pkl", "wb") as file:
        pickle.dump({"split": {}, "annotations": [annotation]}, file)
    with pytest.raises(SkeletonFileError) as error:
        read_recording(tmp_path / "set.pkl", layout="coco17")
    command = re.search(r"run (python .*) set\.pkl", str(error.value))[1]
    subprocess.run([sys.executable, *shlex.split(command)[1:], "set.pkl"], cwd=tmp_path, check=True)
    recording = read_recording(tmp_path / "S001C001P001R001A001.npz", layout="coco17")
    np.testing.assert_array_equal(recording.keypoints[:4, :, :, :2], annotation["keypoint"].transpose(1, 0, 2, 3)[:4])
    assert recording.scores[4, 1, 9] == 0 and np.isnan(recording.keypoints[4, 1, 9, :2]).all()
    np.savez(tmp_path / "three.npz", keypoint=np.stack([person(30, seed=seed, place=(seed, 0, 3)) for seed in (0, 1)]))
    assert read_recording(tmp_path / "three.npz", layout="kinect25").keypoints.shape == (30, 2, 25, 3)


def test_a_fourth_number_is_a_score(tmp_path):
    """As of MediaPipe: x, y, z and visibility."""
    body = np.dstack([person(20, "blazepose33"), np.full((20, 33), 0.9)])
    body[3, 7, 3] = 0.01
    np.save(tmp_path / "a.npy", body)
    recording = read_recording(tmp_path / "a.npy", layout="blazepose33")
    assert np.isnan(recording.keypoints[3, 0, 7]).all() and recording.scores[3, 0, 8] == np.float32(0.9)
    np.testing.assert_array_equal(recording.keypoints[4, 0], body[4, :, :3].astype(np.float32))
    np.save(tmp_path / "a.npy", body - 1)
    with pytest.raises(
        SkeletonFileError, match=r"x, y, z, and a score from 0 to 1.*, found float64 \(20, 33, 4\) whose fourth"
    ):
        read_recording(tmp_path / "a.npy", layout="blazepose33")


def test_joints_of_smpl(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 52, 3)))
    with pytest.raises(
        SkeletonFileError, match="SMPL-H or SMPL-X, which begin with those of smpl22: keep the first 22"
    ):
        read_recording(tmp_path / "a.npy", layout="smpl22")


@pytest.mark.real_data
def test_a_recording_of_humanml3d(real_data):
    path = real_data / "cases" / "s07_axes" / "yup.npy"
    recording = read_recording(path, layout="smpl22", fps=20)
    joints = dict(zip(LAYOUTS["smpl22"].joint_names, recording.keypoints[:, 0].transpose(1, 0, 2), strict=True))
    assert 1.2 < joints["head"][:, 1].mean() < 1.8 and 0 <= joints["left_foot"][:, 1].mean() < 0.2
    extractor = SkeletonFeatureExtractor("smpl22")
    assert extractor.doubts(path, fps=20) == []
    assert 'set "up": "z"' in extractor.doubts(path.with_name("zup.npy"), fps=20)[0]
    assert SkeletonFeatureExtractor("smpl22", recorded_up="z").doubts(path.with_name("zup.npy"), fps=20) == []
    # A model of Kinect skeletons reads it as it is, and the body stays upright.
    kinect = SkeletonFeatureExtractor(
        "kinect25", num_persons=1, center="none", align_view="none", scale="none", fps=None
    )
    read = kinect(recording, return_tensors="np")["input_features"].reshape(-1, 25, 3)
    names = LAYOUTS["kinect25"].joint_names
    np.testing.assert_allclose(read[:170, names.index("left_wrist")], joints["left_wrist"], atol=1e-6)
    assert (read[:, names.index("head"), 1] > read[:, names.index("left_foot"), 1]).all()
