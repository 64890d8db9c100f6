"""`--pose`: recipes that read skeletons, given videos."""

import pytest
from tiny_poses import BrightCorner
from tiny_videos import tiny_video

from action_llm import pose_estimators
from action_llm_datasets.pose import estimate_poses
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import HARMLESS
from action_llm_recipes.run_line import PipelineArguments, choose_pipeline


def test_recipes_of_skeletons_read_the_poses_of_videos(tmp_path, monkeypatch):
    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "mediapipe", BrightCorner)
    monkeypatch.setattr(BrightCorner, "calls", 0)
    videos = tmp_path / "videos"
    videos.mkdir()
    lines = ["file_name,label,split,person"]
    for number, (label, split) in enumerate([("wave", "train"), ("fall", "train"), ("wave", "test")]):
        (videos / f"{number}.mp4").write_bytes(tiny_video(12 + number))
        lines.append(f"{number}.mp4,{label},{split},p{number}")
    (videos / "metadata.csv").write_text("\n".join(lines) + "\n")
    settings = {
        "dataset": "folder-video",
        "data_dir": str(videos),
        "cache_dir": str(tmp_path / "cache"),
        "num_proc": 1,
    }
    data = DataArguments(**settings, pose="mediapipe")
    assert not data.is_video and choose_pipeline(PipelineArguments(output_dir="run"), data) == "llm_ar"
    for _ in range(2):  # estimated once
        dataset = data.load("skeletons")
        assert BrightCorner.calls == 3
    assert dataset["train"].features["label"].names == ["fall", "wave"]
    assert dataset["test"][0]["layout"] == "blazepose33" and data.people(dataset)["2"] == "p2"
    assert (tmp_path / "videos_mediapipe/poses.html").is_file()
    assert DataArguments(**settings).is_video
    with pytest.raises(ValueError, match="expected mirrored True, found mirrored False"):
        DataArguments(**settings, pose="mediapipe", mirrored=True).load()
    elsewhere = estimate_poses(videos, tmp_path / "mirrored", mirrored=True, num_proc=1)
    assert elsewhere["recordings"] == 3
    DataArguments(**settings, pose="mediapipe", pose_dir=str(tmp_path / "mirrored")).load()
    assert BrightCorner.calls == 6


def test_poses_are_of_videos_in_a_folder(tmp_path):
    with pytest.raises(ValueError, match="--pose reads the videos of --dataset folder-video, not of utd-mhad-video"):
        DataArguments(dataset="utd-mhad-video", data_dir=str(tmp_path), pose="mediapipe")


def test_the_folder_of_the_poses_is_beside_the_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data_dir in (".", "./", str(tmp_path)):
        data = DataArguments(dataset="folder-video", data_dir=data_dir, pose="mediapipe")
        assert data.pose_dir == f"{tmp_path}_mediapipe"
    assert "pose_dir" in HARMLESS, "runs can be resumed when the videos have moved"


@pytest.mark.parametrize("setting", [{"pose_dir": "poses"}, {"pose_model": "weights"}, {"mirrored": True}])
def test_settings_of_poses_need_poses(tmp_path, setting):
    with pytest.raises(
        ValueError, match=f"--{next(iter(setting))} is a setting of the estimated skeletons: set --pose"
    ):
        DataArguments(dataset="folder-video", data_dir=str(tmp_path), **setting)
