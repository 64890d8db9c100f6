"""Recordings of skeletons as videos: what is drawn and copied, and what a second run does."""

import json

import av
import numpy as np
import pytest
from fresh_python import python
from skeleton_people import person

from action_llm.video_files import read_video_info
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.render import RenderFolderError, render, video_name
from action_llm_datasets.rendering import render_frames


@pytest.fixture(scope="module")
def videos(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    render("simulated-xsub", simulated, folder, size=64, num_proc=1)
    return folder


def test_videos_load_with_the_splits_of_their_skeletons(simulated, videos, tmp_path):
    drawn = load_action_dataset("simulated-xsub-video", videos, cache_dir=tmp_path, skeletons=str(simulated))
    recorded = load_action_dataset("simulated-xsub", simulated, cache_dir=tmp_path)
    for split in recorded:
        assert drawn[split]["sample_id"] == recorded[split]["sample_id"]
        assert drawn[split]["label"] == recorded[split]["label"]
        assert drawn[split]["num_frames"] == [shape[0] for shape in recorded[split]["shape"]]
    assert (videos / "SIMULATED.txt").read_text().startswith("SIMULATED RECORDINGS")


def test_videos_have_the_rendered_frames(simulated, videos, tmp_path):
    row = load_action_dataset("simulated-xsub", simulated, cache_dir=tmp_path, clean=True)["train"][0]
    expected = render_frames(np.reshape(row["keypoints"], row["shape"]), size=(64, 64))
    with av.open(str(videos / f"{row['sample_id']}.mp4")) as container:
        assert container.streams.video[0].average_rate == 30
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected).mean() < 6  # out of 255; the codec subsamples colours
    assert (expected != expected[0, 0, 0]).any(-1).mean() > 0.03


def test_batches_do_not_change_a_video(tmp_path):
    from action_llm_datasets.rendering import write_video

    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), dtype=np.uint8)
    write_video(tmp_path / "whole.mp4", [frames], 20)
    write_video(tmp_path / "batches.mp4", [frames[:4], frames[4:5], frames[5:]], 20)
    assert (tmp_path / "batches.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert read_video_info(tmp_path / "batches.mp4").num_frames == 9


def test_a_second_run_draws_missing_videos(simulated, videos):
    lost = min(videos.glob("*.mp4"))
    content, others = lost.read_bytes(), {path: path.stat().st_mtime_ns for path in videos.glob("*.mp4")}
    lost.unlink()
    summary = render("simulated-xsub", simulated, videos, size=64, num_proc=1)
    assert summary["videos"] == 45 and summary["skipped"] == []
    assert lost.read_bytes() == content
    assert all(path.stat().st_mtime_ns == time for path, time in others.items() if path != lost)
    with pytest.raises(RenderFolderError, match="was made with other settings: expected size 32, found size 64"):
        render("simulated-xsub", simulated, videos, size=32, num_proc=1)


def test_your_own_folder(tmp_path):
    source = tmp_path / "mine"
    (source / "more").mkdir(parents=True)
    np.save(source / "more" / "a.npy", person(12, "kinect20"))
    np.save(source / "b.npy", np.zeros((4, 20, 3), np.float32))
    (source / "skeleton.json").write_text('{"layout": "kinect20", "fps": 12.5, "class_names": ["fall", "wave"]}')
    (source / "metadata.csv").write_text("file_name,label,split,who\nmore/a.npy,wave,train,x\nb.npy,fall,train,y\n")
    summary = render("folder", source, tmp_path / "videos", size=32, num_proc=1)
    assert summary["videos"] == 1
    assert summary["skipped"] == [{"file": "b.npy", "kind": "no body", "reason": "b.npy: no body in any of 4 frames"}]
    assert json.loads((tmp_path / "videos" / "rendering.json").read_text()) == summary
    row = load_action_dataset("folder-video", tmp_path / "videos", cache_dir=tmp_path / "cache")["train"][0]
    assert (row["video"], row["who"], row["label"], row["num_frames"]) == ("more/a.mp4", "x", 1, 12)
    assert read_video_info(tmp_path / "videos" / "more" / "a.mp4").fps == 12.5


def test_two_recordings_with_the_same_name(tmp_path):
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "a.npy", person(4, "kinect20"))
    np.savez(tmp_path / "mine" / "a.npz", person(5, "kinect20"))
    (tmp_path / "mine" / "skeleton.json").write_text('{"layout": "kinect20"}')
    (tmp_path / "mine" / "metadata.csv").write_text(
        "file_name,label,split\na.npy,wave,train,7\na.npz,fall,train\n,x,train\n"
    )
    summary = render("folder", tmp_path / "mine", tmp_path / "videos", size=32, num_proc=1)
    (tmp_path / "mine" / "metadata.csv").write_text("file_name,label,split\na.npy,wave,train\na.npz,fall,train\n")
    summary = render("folder", tmp_path / "mine", tmp_path / "again", size=32, num_proc=1)
    assert summary["videos"] == 1 and summary["skipped"][0]["kind"] == "duplicate"


def test_an_outlier_joint_does_not_blank_the_picture():
    body = person(8, "coco17")
    body[3, 4, 0], body[5, 2, 1] = np.inf, 1e7
    frames = render_frames(body, "coco17", size=(64, 64))
    assert (frames != frames[0, 0, 0]).any(-1).mean((1, 2)).min() > 0.02


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b_pose3d.json", "a/b_pose3d.mp4"),
        ("all.zip/in/Drink.Fromcup_p02_r00_v03_c01.json", "all/in/Drink.Fromcup_p02_r00_v03_c01.mp4"),
    ],
)
def test_names(path, name):
    assert video_name(path) == name


def test_wrong_arguments(simulated, tmp_path):
    with pytest.raises(
        ValueError, match="there is no protocol 'ntu60-xsub-video' of skeletons; did you mean ntu60-xsub"
    ):
        render("ntu60-xsub-video", simulated, tmp_path)
    with pytest.raises(ValueError, match="size must be an even number of at least 16; got 65"):
        render("simulated-xsub", simulated, tmp_path, size=65)


@pytest.mark.slow
def test_the_command(simulated, tmp_path):
    command = ["-m", "action_llm_datasets.render", "simulated-xsub", "--size", "32", "--output"]
    done = python(*command, tmp_path / "out", "--source", simulated)
    assert done.returncode == 0 and "45 videos in" in done.stdout, done.stderr
    failed = python(*command, tmp_path / "other", "--source", tmp_path / "none")
    assert failed.returncode == 2 and "Traceback" not in failed.stderr and "is not a folder" in failed.stderr
