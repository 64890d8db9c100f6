"""`--pose`: recipes that read skeletons, given videos."""

import pytest
from tiny_poses import BrightCorner
from tiny_videos import tiny_video

from action_llm import pose_estimators
from action_llm_recipes.common.data_arguments import DataArguments
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


def test_poses_are_of_videos_in_a_folder(tmp_path):
    with pytest.raises(ValueError, match="--pose reads the videos of --dataset folder-video, not of utd-mhad-video"):
        DataArguments(dataset="utd-mhad-video", data_dir=str(tmp_path), pose="mediapipe")
