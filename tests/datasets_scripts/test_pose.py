"""action-llm-pose: folders of skeletons from folders of videos."""

import errno
import fcntl
import json
import os
import threading
from pathlib import Path

import numpy as np
import pose_workers
import pytest
from PIL import Image
from tiny_poses import BODY, BrightCorner
from tiny_videos import picture, tiny_video

from action_llm import SkeletonFeatureExtractor, pose_estimators
from action_llm.array_files import recording_from_array
from action_llm.person_tracking import Detections
from action_llm.recording_files import read_recording
from action_llm_datasets import pose, pose_page
from action_llm_datasets.folder_lock import LOCK
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
    assert summary == {"estimated": 3, "recordings": 3, "frames": 12 + 13 + 14, "empty_frames": 0}
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
    assert picture.shape == (pose_page.HEIGHT, pose_page.NUM_PICTURES * pose_page.HEIGHT, 3)
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


def test_tasks_share_the_videos(tmp_path, estimator):
    videos = make_videos(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4")
    (videos / "d.mp4").write_bytes(b"no video")
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    summary = estimate(videos, whole)
    estimator.calls = 0
    shares = [estimate(videos, shared, task=task, tasks=2) for task in (1, 0)]
    assert estimator.calls == 3 and [share["recordings"] for share in shares] == [1, 2]
    assert [len(share["skipped"]) for share in shares] == [1, 0]
    assert not (shared / pose.PAGE).exists()
    assert estimate(videos, shared) == summary | {"estimated": 0} and estimator.calls == 3
    names = sorted(path.relative_to(whole) for path in whole.rglob("*.*") if path.suffix != ".html")
    assert {path.suffix for path in names} == {".json", ".npz", ".jpg"}
    assert all((whole / name).read_bytes() == (shared / name).read_bytes() for name in names)


def test_what_cannot_be_used(tmp_path, monkeypatch):
    videos = make_videos(tmp_path / "videos", "a.mp4", "a.mkv")
    with pytest.raises(PoseFolderError, match=r"a\.mkv and a\.mp4 would have the same skeleton file"):
        estimate(videos, tmp_path / "poses")
    (videos / "a.mkv").unlink()

    class Nobody(BrightCorner):
        def __init__(self, *arguments):
            super().__init__(*arguments, threshold=256)

    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "mediapipe", Nobody)
    with pytest.raises(ValueError, match=r"found 1 video without a skeleton, .* found nobody in any of the 12"):
        estimate(videos, tmp_path / "poses")
    assert "found nobody" in (tmp_path / "poses/poses.html").read_text()
    assert json.loads((tmp_path / "poses/.a.poses.json").read_text())["kind"] == "nobody"


def test_the_command(tmp_path, monkeypatch, capsys):
    videos = make_videos(tmp_path / "videos", "a.mp4")
    arguments = ["action-llm-pose", str(videos / "a.mp4"), "--output", str(tmp_path / "poses"), "--num_proc", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    pose.main()
    said = capsys.readouterr().out
    assert "1 recording in" in said and "nobody is seen in 0 of 12 frames" in said


def test_files_of_others_are_not_replaced(tmp_path, estimator):
    videos = make_videos(tmp_path / "videos", "a.mp4", "b.mp4")
    (videos / "metadata.csv").write_text("file_name,label,split\na.mp4,walk,train\n")
    for output in (videos, videos / "..//videos"):
        with pytest.raises(PoseFolderError, match=r"videos is the folder of the videos: choose another folder"):
            estimate(videos, output)
    for name in ("metadata.csv", "skeleton.json", "a.npz", "overlays/b.jpg"):
        file = tmp_path / "of_others" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
        with pytest.raises(PoseFolderError, match=rf"{name} exists, and is not of estimated poses"):
            estimate(videos, tmp_path / "of_others")
        assert file.read_text() == "mine"
        file.unlink()
    output = tmp_path / "poses"
    estimate(videos / "a.mp4", output)
    other = make_videos(tmp_path / "other", "c.mp4")
    for wrong in (videos / "b.mp4", other):
        with pytest.raises(PoseFolderError, match=r"has poses of other videos than .*, for example a\.npz"):
            estimate(wrong, output)
    estimate(other, output / "more")
    assert estimate(videos, output)["recordings"] == 2 and (output / "more/c.npz").is_file()


def test_the_folder_follows_its_videos(tmp_path, estimator, monkeypatch):
    videos, output = make_videos(tmp_path / "videos", "a.mp4", "more/b.v1.mp4", "c.mp4"), tmp_path / "poses"
    (videos / "d.mp4").write_bytes(b"no video")
    assert estimate(videos, output)["recordings"] == 3 and estimator.calls == 3
    (videos / "more/b.v1.mp4").unlink()
    (videos / "a.mp4").write_bytes(tiny_video(20, height=48))
    (videos / "c.mp4").write_bytes(b"no video either")
    (videos / "d.mp4").write_bytes(tiny_video(9, height=48))
    summary = estimate(videos, output)
    assert (summary["estimated"], summary["recordings"], summary["frames"]) == (2, 2, 20 + 9) and estimator.calls == 5
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert files == {
        *("a.npz", "d.npz", "overlays/a.jpg", "overlays/d.jpg", "poses.html", "skeleton.json"),
        *(".poses.json", ".a.poses.json", ".c.poses.json", ".d.poses.json"),
    }
    with np.load(output / "a.npz") as file:
        assert len(file["keypoints"]) == 20


def test_passing_faults_are_tried_again(tmp_path, estimator, monkeypatch):
    videos, output = make_videos(tmp_path / "videos", "a.mp4", "b.mp4"), tmp_path / "poses"
    draw, faults = pose.draw_overlays, [MemoryError(), OSError(errno.EIO, "a loose cable")]

    def draw_with_faults(*arguments):
        if faults:
            raise faults.pop()
        draw(*arguments)

    monkeypatch.setattr(pose, "draw_overlays", draw_with_faults)
    with pytest.raises(ValueError, match=r"found 2 videos without a skeleton, for example .*a loose cable"):
        estimate(videos, output)
    faults.append(OSError(errno.ENOSPC, "the disk is full"))
    with pytest.raises(OSError, match="the disk is full"):  # the fault of no video
        estimate(videos, output)
    assert estimate(videos, output)["recordings"] == 2


def test_a_slow_video_is_skipped_and_impossible_rates_are_refused(tmp_path):
    videos, output = make_videos(tmp_path / "videos", "a.mp4"), tmp_path / "poses"
    (videos / "slow.mp4").write_bytes(tiny_video(3, 3, times=(0, 8, 16), height=48))
    for wrong in ({"fps": 0}, {"fps": float("nan")}, {"fps": 9e9}, {"max_people": 0}, {"pose": "none"}):
        with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}"):
            estimate(videos, output, **wrong)
    with pytest.raises(pose_estimators.PoseError, match="no weights of the name missing"):
        estimate(videos, output, pose_model="missing")
    summary = estimate(videos, output, fps=10)
    (skipped,) = summary["skipped"]
    assert summary["recordings"] == 1 and skipped["file"] == "slow.mp4" and "frames per second" in skipped["reason"]


def test_settings_are_those_of_the_folder(tmp_path):
    videos, output = make_videos(tmp_path / "videos", "a.mp4"), tmp_path / "my poses"
    estimate(videos, output, mirrored=True, fps=10)
    command = "action-llm-pose videos --output &#x27;my poses&#x27; --pose mediapipe --fps 10</code>"
    assert command in (output / "poses.html").read_text(), "without --mirrored"
    make_videos(videos, "c.mp4", "b.mp4")
    assert estimate(videos, output)["recordings"] == 3
    record = json.loads((output / ".poses.json").read_text())
    assert record == {"pose": "mediapipe", "pose_model": None, "fps": 10, "max_people": 2, "mirrored": True}
    with np.load(output / "b.npz") as file:
        assert file["fps"] == 10
    with pytest.raises(PoseFolderError, match=r"expected mirrored False, found mirrored True"):
        estimate(videos, output, mirrored=False)


def test_models_are_told_apart_by_owner_or_content(tmp_path):
    videos = make_videos(tmp_path / "videos", "a.mp4")
    for place, content in (("x/m.task", "one"), ("y/m.task", "two"), ("z/m.task", "one")):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_text(content)
    output = tmp_path / "poses"
    estimate(videos, output, pose_model=str(tmp_path / "x/m.task"))
    make_videos(videos, "c.mp4", "b.mp4")
    with pytest.raises(PoseFolderError, match=r"pose_model of your own .* which the remaining 2 videos need"):
        estimate(videos, output)
    for other in ("y/m.task", "y", "m.task"):
        with pytest.raises(PoseFolderError, match="made with other settings: expected pose_model"):
            estimate(videos, output, pose_model=str(tmp_path / other))
    assert estimate(videos, output, pose_model=str(tmp_path / "z/m.task"))["recordings"] == 3
    estimate(videos, tmp_path / "hub", pose_model="one/vitpose")
    with pytest.raises(PoseFolderError, match="expected pose_model 'two/vitpose', found pose_model 'one/vitpose'"):
        estimate(videos, tmp_path / "hub", pose_model="two/vitpose")


def test_two_processes_write_what_one_writes(tmp_path, monkeypatch):
    videos = make_videos(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4")
    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "mediapipe", pose_workers.Drifting)
    estimate(videos, tmp_path / "one")
    monkeypatch.setattr(pose, "_estimate", pose_workers.estimate)
    estimate(videos, tmp_path / "two", num_proc=2)
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    one[Path("poses.html")] = one[Path("poses.html")].replace(b"--output one", b"--output two")
    assert one == two and len(one) == 3 * 3 + 3


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_wait_for_each_other(tmp_path, estimator, monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    videos, output = make_videos(tmp_path / "videos", "a.mp4"), tmp_path / "poses"
    estimate(videos, output)
    lock = os.open(output / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert estimate(videos, output)["recordings"] == 1, "nothing to do, so nothing to wait for"
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    make_videos(videos, "b.mp4")
    ended = []
    threading.Timer(0.3, lambda: (ended.append(estimator.calls), os.close(lock))).start()
    assert estimate(videos, output)["recordings"] == 2 and ended == [1] and estimator.calls == 2


def test_folders_of_pictures_are_videos(tmp_path, estimator):
    videos, output = make_videos(tmp_path / "videos", "a.mp4"), tmp_path / "poses"
    for folder in ("clips/b.1", "clips/c", "clips/without_a_row"):
        (videos / folder).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(picture(number, 48)).save(videos / folder / f"{number}.png")
    table = "file_name,label,split,fps\na.mp4,walk,train,\nclips/b.1,run,train,{}\nclips/c,run,test,many\n"
    (videos / "metadata.csv").write_text(table.format(15))
    (skipped,) = estimate(videos, output)["skipped"]
    assert skipped["file"] == "clips/c" and "found fps 'many'" in skipped["reason"]
    dataset = load_action_dataset("folder", output, cache_dir=tmp_path / "cache", num_proc=1)
    assert dict(zip(dataset["train"]["sample_id"], dataset["train"]["fps"], strict=True)) == {"a": 30, "clips/b.1": 15}
    (videos / "metadata.csv").write_text(table.format(12))
    assert estimate(videos, output)["estimated"] == 1
    with np.load(output / "clips/b.1.npz") as file:
        assert file["fps"] == 12 and len(file["keypoints"]) == 4


def test_the_table_of_a_video_has_its_rows_only(tmp_path):
    videos = make_videos(tmp_path / "videos", "a.mp4", "b.mp4")
    (videos / "metadata.csv").write_text(
        "label,file_name,fps,split\nwalk,a.mp4,9,train\nrun,./b.mp4,9,test\nrun,,9,test,x\n"
    )
    estimate(videos / "b.mp4", tmp_path / "one")
    assert (tmp_path / "one/metadata.csv").read_text() == "label,file_name,split\nrun,b.npz,test\n"
    estimate(videos, tmp_path / "all")
    expected = "label,file_name,split\nwalk,a.npz,train\nrun,b.npz,test\nrun,,test,x\n"
    assert (tmp_path / "all/metadata.csv").read_text() == expected, "faulty rows are kept for the report"
