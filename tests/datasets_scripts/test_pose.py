"""action-llm-pose: folders of skeletons from folders of videos."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_poses import BODY, BrightCorner
from tiny_videos import tiny_video

from action_llm import SkeletonFeatureExtractor, pose_estimators
from action_llm.array_files import recording_from_array
from action_llm.person_tracking import Detections
from action_llm.recording_files import read_recording
from action_llm_datasets import pose
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.pose import PoseFolderError, estimate_poses


@pytest.fixture(autouse=True)
def estimator(monkeypatch):
    """The estimator of the tests, in this process."""
    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "mediapipe", BrightCorner)
    monkeypatch.setattr(BrightCorner, "calls", 0)
    return BrightCorner


def make_videos(folder: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(tiny_video(12 + number, height=48))
    return folder


def estimate(videos, output, **settings):
    return estimate_poses(videos, output, **{"num_proc": 1} | settings)


def test_labels_and_people_of_a_table_are_carried_over(tmp_path, estimator):
    videos = make_videos(tmp_path / "videos", "a.mp4", "more/b.mp4", "c.mp4")
    (videos / "bad.mp4").write_bytes(b"no video")
    (videos / "metadata.csv").write_text(
        "file_name,label,split,person,fps\na.mp4,walk,train,p1,99\nmore/b.mp4,run,train,p2,\nc.mp4,run,test,p3,\n"
        "bad.mp4,run,test,p3,\n"
    )
    (videos / "skeleton.json").write_text('{"class_names": ["walk", "run"], "fps": 12}')
    output = tmp_path / "poses"
    summary = estimate(videos, output)
    (skipped,) = summary.pop("skipped")
    assert summary == {"estimated": 4, "recordings": 3, "frames": 12 + 13 + 14, "empty_frames": 0}
    assert (skipped["file"], skipped["kind"]) == ("bad.mp4", "unreadable") and "bad.mp4" in skipped["reason"]
    dataset = load_action_dataset("folder", output, cache_dir=tmp_path / "cache", num_proc=1)
    train = dataset["train"]
    assert train.features["label"].names == ["walk", "run"] and train["person"][:] == ["p1", "p2"]
    assert (train[0]["layout"], train[0]["fps"], train[0]["shape"]) == ("blazepose33", 30.0, [12, 1, 33, 3])
    expected = estimator()(videos / "a.mp4").keypoints
    np.testing.assert_array_equal(np.reshape(train[0]["keypoints"], train[0]["shape"]), expected)
    assert dataset["test"]["sample_id"][:] == ["c"]
    with np.load(output / "a.npz") as file:
        assert file["keypoints"].shape == (12, 1, 33, 4) and file["keypoints"][0, 0, 1, 3] == np.float32(0.9)


def test_class_folders_are_labels(tmp_path):
    videos = make_videos(tmp_path / "videos", "train/walk/a.mp4", "train/run/b.mp4", "test/run/c.mp4")
    estimate(videos, tmp_path / "poses")
    dataset = load_action_dataset("folder", tmp_path / "poses", cache_dir=tmp_path / "cache", num_proc=1)
    assert {split: len(rows) for split, rows in dataset.items()} == {"train": 2, "test": 1}
    assert dataset["train"].features["label"].names == ["run", "walk"]


def test_people_who_cross_while_hidden_are_the_same_in_the_file_and_in_the_pipeline(tmp_path, monkeypatch):
    class Crossing(BrightCorner):
        def detect(self, pictures):
            for number, _ in enumerate(pictures):
                middle = 0.1 * (20 - number)
                people = [BODY - [middle, 0, 0], 0.9 * BODY + [middle, 0, 0]] if abs(middle) > 0.5 else []
                joints = np.array(people).reshape(-1, 33, 3)
                yield Detections(100 * joints[..., :2], np.full(joints.shape[:2], 0.9), joints)

    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "mediapipe", Crossing)
    videos = make_videos(tmp_path / "videos", "train/run/b.mp4")
    (videos / "train/walk").mkdir()
    (videos / "train/walk/a.mp4").write_bytes(tiny_video(41, height=48))
    estimate(videos, tmp_path / "poses")
    seen, path = Crossing()(videos / "train/walk/a.mp4"), tmp_path / "poses/train/walk/a.npz"
    read = read_recording(path, layout="blazepose33")
    np.testing.assert_array_equal(read.keypoints, seen.keypoints)
    assert read.body_ids.tolist() == seen.body_ids.tolist() == [0, 1] and not read.symptoms
    with np.load(path) as file:  # the tracks are not those by distance
        assert recording_from_array(file["keypoints"], layout="blazepose33", fps=30).symptoms == {"changed places": 1}
    dataset = load_action_dataset("folder", tmp_path / "poses", cache_dir=tmp_path / "cache", num_proc=1)
    extractor = SkeletonFeatureExtractor("blazepose33", num_persons=2)
    trained, answered = (extractor(of)["input_features"] for of in (dataset["train"][1], extractor.read(seen)))
    np.testing.assert_array_equal(trained, answered)


def test_the_page_shows_people_and_counts_empty_frames(tmp_path, monkeypatch):
    class Sometimes(BrightCorner):
        def detect(self, pictures):
            for number, found in enumerate(super().detect(pictures)):
                yield type(found)(*(part[: len(part) * (number >= 4)] for part in found))

    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "mediapipe", Sometimes)
    videos = make_videos(tmp_path / "videos", "a<b>.mp4")
    summary = estimate(videos, tmp_path / "poses")
    assert summary["empty_frames"] == 4
    page = (tmp_path / "poses/poses.html").read_text()
    assert "Nobody is seen in 4 of 12 frames" in page and "a&lt;b&gt;.mp4: 1 person" in page and "a<b>" not in page
    picture = np.asarray(Image.open(tmp_path / "poses/overlays/a<b>.jpg"))
    assert picture.shape == (pose.HEIGHT, pose.NUM_PICTURES * pose.HEIGHT, 3)
    warm = (picture[..., 0].astype(int) - picture[..., 2] > 60).any()
    cool = (picture[..., 2].astype(int) - picture[..., 0] > 60).any()
    assert warm and cool  # left and right limbs


def test_a_run_resumes_and_keeps_its_settings(tmp_path, estimator):
    videos = make_videos(tmp_path / "videos", "a.mp4")
    output = tmp_path / "poses"
    first = estimate(videos, output)
    assert estimator.calls == 1
    make_videos(videos, "b.mp4")
    (output / "a.npz").touch()
    assert estimate(videos, output)["recordings"] == 2 and estimator.calls == 2
    assert estimate(videos, output)["recordings"] == 2 and estimator.calls == 2 and first["recordings"] == 1
    with pytest.raises(
        PoseFolderError, match=r"made with other settings: expected mirrored True, found mirrored False"
    ):
        estimate(videos, output, mirrored=True)


def test_what_cannot_be_used(tmp_path, monkeypatch):
    videos = make_videos(tmp_path / "videos", "a.mp4", "a.mkv")
    with pytest.raises(PoseFolderError, match=r"a\.mkv and a\.mp4 would have the same skeleton file"):
        estimate(videos, tmp_path / "poses")
    (videos / "a.mkv").unlink()

    class Nobody(BrightCorner):
        def __init__(self, *arguments):
            super().__init__(*arguments, threshold=256)

    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "mediapipe", Nobody)
    with pytest.raises(ValueError, match=r"none of the 1 videos .* found nobody in any of the 12 frames"):
        estimate(videos, tmp_path / "poses")
    assert "found nobody" in (tmp_path / "poses/poses.html").read_text()
    assert json.loads((tmp_path / "poses/.a.poses.json").read_text())["kind"] == "nobody"


def test_the_command(tmp_path, monkeypatch, capsys):
    videos = make_videos(tmp_path / "videos", "a.mp4")
    arguments = ["action-llm-pose", str(videos / "a.mp4"), "--output", str(tmp_path / "poses"), "--num_proc", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    pose.main()
    said = capsys.readouterr().out
    assert "1 recordings in" in said and "nobody is seen in 0 of 12 frames" in said
