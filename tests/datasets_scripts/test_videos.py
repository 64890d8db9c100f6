"""Videos have the splits and labels of the skeletons with the same names; other files are skipped and listed."""

import io
import json
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from skeleton_people import smarthome_text
from tiny_videos import tiny_video

from action_llm import VideoFeatureExtractor
from action_llm.video_files import VIDEO_SUFFIXES, open_video
from action_llm_datasets.building import DataFolderError, open_source
from action_llm_datasets.load import PROTOCOLS, load_action_dataset
from action_llm_datasets.prepare import prepare
from action_llm_datasets.protocols import NTU_PROTOCOLS, ntu_missing_skeletons, parse_ntu_name
from action_llm_datasets.videos import NTUVideos, open_row

AVI, MP4 = tiny_video(container="avi"), tiny_video()


def half(content):
    return content[: len(content) // 2]


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def builder(config, folder, cache):
    made = NTUVideos(config_name=config, data_dir=folder, cache_dir=str(cache))
    made.download_and_prepare()
    return made


def test_rows(tmp_path):
    folder = write(tmp_path / "rgb", S001C001P001R001A001_rgb__avi=AVI, S001C002P003R001A050__mp4=MP4, notes__txt=b"x")
    splits = load_action_dataset("ntu60-xsub-video", folder, cache_dir=tmp_path / "cache")
    train, test = splits["train"][0], splits["test"][0]
    assert (train["sample_id"], train["video"]) == ("S001C001P001R001A001", "S001C001P001R001A001_rgb.avi")
    assert (train["label"], test["label"], test["camera"], test["performer"]) == (0, 49, 2, 3)
    assert (train["num_frames"], train["video_fps"], train["width"], train["height"]) == (6, 30.0, 48, 32)
    assert train["seconds"] == pytest.approx(0.2)
    assert set(train) == {
        "sample_id", "video", "num_frames", "video_fps", "seconds", "width", "height",
        "label", "held_out", "setup", "camera", "performer", "replication", "action",
    }  # fmt: skip


def test_recordings_without_skeletons_can_be_left_out(tmp_path):
    missing = next(name for name in sorted(ntu_missing_skeletons()) if parse_ntu_name(name).action <= 60)
    folder = write(tmp_path / "rgb", **{f"{missing}_rgb__avi": AVI, "S001C001P001R001A001_rgb__avi": AVI})
    every = builder("ntu60-xview-video", folder, tmp_path / "cache")
    assert sum(every.report["recordings"].values()) == 2
    assert every.report["published"] == NTU_PROTOCOLS["ntu60-xview"].counts["full"] == {"train": 37920, "test": 18960}
    fewer = builder("ntu60-xview-video-with-skeletons", folder, tmp_path / "cache")
    assert sum(fewer.report["recordings"].values()) == 1 and fewer.report["skipped"] == {"missing skeleton": 1}
    assert fewer.report["published"] == NTU_PROTOCOLS["ntu60-xview"].counts["clean"]


def test_files_that_are_not_videos_are_skipped(tmp_path):
    folder = write(
        tmp_path / "rgb",
        S001C001P001R001A001_rgb__avi=AVI,
        S001C001P001R001A002_rgb__avi=b"",
        S001C001P001R001A003_rgb__mp4=b"<html>not found</html>",
        S001C001P001R001A004_rgb__avi=AVI,
        S001C001P001R001A004_depth__avi=AVI,
        S001C001P001R001A004__avi=AVI,
        S001C001P001R001A006_rgb__avi=half(tiny_video(200, container="avi", height=128, width=128)),
        S001C001P001R001A007_rgb__avi=AVI.replace(b"FMP4", b"ZZZZ"),
        S001C001P001R001A061_rgb__avi=AVI,
        S001C001P001R001A005_rgb__mp4=MP4[:-1000],
    )
    files = {
        entry["file"]: entry["reason"] for entry in builder("ntu60-xsub-video", folder, tmp_path / "c").report["files"]
    }
    assert "found an empty file, expected a video" in files["S001C001P001R001A002_rgb.avi"]
    assert "found Invalid data" in files["S001C001P001R001A003_rgb.mp4"]
    assert "found an MP4 file without its index (moov atom)" in files["S001C001P001R001A005_rgb.mp4"]
    assert files["S001C001P001R001A004_depth.avi"] == "S001C001P001R001A004_depth.avi is depth, not rgb"
    assert "has the same name as S001C001P001R001A004.avi" in files["S001C001P001R001A004_rgb.avi"]
    assert "A061" in files["S001C001P001R001A061_rgb.avi"] and len(files) == 8
    assert "found 200 frames at 30 per second in" in files["S001C001P001R001A006_rgb.avi"]
    assert "found a codec that FFmpeg does not support" in files["S001C001P001R001A007_rgb.avi"]


@pytest.mark.real_data
def test_all_video_suffixes(real_data, tmp_path):
    """GIF, MPEG-TS, WMV and MPEG files of a second each; samples are named by their file without the suffix."""
    folder = real_data / "cases" / "d11_video_suffixes"
    for number, path in enumerate(sorted(folder.glob("test*"))):
        (tmp_path / f"clip{number}{path.suffix}").write_bytes(path.read_bytes())
    (tmp_path / "old.AVI").write_bytes(AVI)
    names = sorted(path.name for path in tmp_path.iterdir())
    lines = [f"{name},{'ab'[number % 2]},{'test' if number == 5 else 'train'}" for number, name in enumerate(names)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label,split", *lines]))
    splits = load_action_dataset("folder-video", tmp_path, cache_dir=tmp_path / "cache")
    rows = {row["video"]: row["seconds"] for split in splits.values() for row in split}
    assert {Path(name).suffix for name in rows} == {".MTS", ".gif", ".mpg", ".wmv", ".mp4", ".AVI"}
    assert [rows[name] for name in names if name != "old.AVI"] == pytest.approx([1.0] * 5)


def test_archive_members(tmp_path):
    (tmp_path / "rgb").mkdir()
    with zipfile.ZipFile(tmp_path / "rgb" / "nturgbd_rgb_s001.zip", "w") as archive:
        archive.writestr("nturgb+d_rgb/S001C001P001R001A001_rgb.avi", AVI)
    row = load_action_dataset("ntu60-xsub-video", tmp_path / "rgb", cache_dir=tmp_path / "cache")["train"][0]
    assert row["video"] == "nturgbd_rgb_s001.zip/nturgb+d_rgb/S001C001P001R001A001_rgb.avi"
    with open_source(tmp_path / "rgb", row["video"]) as file:
        assert file.read() == AVI


@pytest.mark.parametrize(
    ("protocol", "name", "split"),
    [
        ("smarthome-cs-video", "Cook.Cut_p02_r00_v01_c03.mp4", "test"),
        ("smarthome-cv2-video", "Walk_p03_r00_v01_c05.mp4", "validation"),
        ("uav-human-csv1-video", "P070S01G10B00H10UC102000LC092000A031R0_09131758.avi", "train"),
        ("utd-mhad-video", "a3_s7_t2_depth.mp4", "train"),
        ("utd-mhad-video", "a3_s2_t2_color.avi", "test"),
    ],
)
def test_the_other_data_sets(tmp_path, protocol, name, split):
    content = AVI if name.endswith(".avi") else MP4
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / name).write_bytes(content)
    splits = load_action_dataset(protocol, tmp_path / "videos", cache_dir=tmp_path / "cache")
    assert list(splits) == [split]
    assert next(iter(splits.values()))[0]["video"] == name


def test_videos_of_unseen_classes(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a4_s7_t2_depth.mp4", "a7_s2_t1_depth.mp4", "a7_s7_t1_depth.mp4"):
        (tmp_path / "videos" / name).write_bytes(MP4)
    splits = load_action_dataset("utd-mhad-unseen-2-video", tmp_path / "videos", cache_dir=tmp_path / "cache")
    assert {split: rows["video"][:] for split, rows in splits.items()} == {
        "train": ["a4_s7_t2_depth.mp4"],
        "test": ["a7_s2_t1_depth.mp4"],
    }
    assert splits["test"].features["label"].names == ["basketball shoot", "tennis serve", "lunge"]


def test_every_protocol_of_skeletons_has_its_videos():
    for name in PROTOCOLS:
        if "video" not in name:
            if name.startswith(("nw-ucla-", "sbu-")):  # only their skeletons are read
                assert f"{name}-video" not in PROTOCOLS
                continue
            assert f"{name}-video" in PROTOCOLS
            assert [c.replace("-video", "") for c in PROTOCOLS[f"{name}-video"][1]] == PROTOCOLS[name][1]


def test_videos_with_their_skeletons(tmp_path):
    """Skeletons of six frames, with videos of as many, a few more and many more frames, and a video without a skeleton."""
    text = "6\n" + "".join(
        "1\n72057594037931101 0 1 1 1 1 0 0 0 2\n25\n" + "0.5 1.5 3 0 0 0 0 0 0 0 0 2\n" * 25 for _ in range(6)
    )
    skeletons = tmp_path / "skeletons"
    skeletons.mkdir()
    for action in (1, 2, 3):
        (skeletons / f"S001C001P001R001A00{action}.skeleton").write_text(text)
    folder = write(
        tmp_path / "rgb",
        S001C001P001R001A001_rgb__avi=AVI,
        S001C001P001R001A002_rgb__mp4=tiny_video(20),
        S001C001P001R001A003_rgb__mp4=tiny_video(22),
        S001C001P001R001A004_rgb__avi=AVI,
    )
    made = NTUVideos(
        config_name="ntu60-xsub-video", data_dir=folder, cache_dir=str(tmp_path / "cache"), skeletons=str(skeletons),
        accept_doubts=True,  # all joints are at one place
    )  # fmt: skip
    made.download_and_prepare()
    rows = made.as_dataset()["train"]
    assert rows["sample_id"] == ["S001C001P001R001A001", "S001C001P001R001A002"]
    assert rows[0]["shape"] == [6, 1, 25, 3] and rows[0]["video"] == "S001C001P001R001A001_rgb.avi"
    reasons = {entry["kind"]: entry["reason"] for entry in made.report["files"]}
    assert reasons == {
        "length": "S001C001P001R001A003_rgb.mp4: the video has 0.73 s (22 frames), its skeleton 0.20 s (6 frames)",
        "no skeleton": "S001C001P001R001A004_rgb.avi: S001C001P001R001A004 has no skeleton",
    }
    before = made.hash
    (skeletons / "S001C001P001R001A003.skeleton").unlink()
    again = NTUVideos(
        config_name="ntu60-xsub-video", data_dir=folder, cache_dir=str(tmp_path / "cache"), skeletons=str(skeletons),
        accept_doubts=True,  # all joints are at one place
    )  # fmt: skip
    assert again.hash != before


def test_settings_of_skeletons_are_refused(tmp_path):
    folder = write(tmp_path / "rgb", S001C001P001R001A001_rgb__avi=AVI)
    with pytest.raises(ValueError, match="ntu60-xsub-video has skeletons only if `skeletons` is set"):
        load_action_dataset("ntu60-xsub-video", folder, cache_dir=tmp_path / "cache", clean=True)
    (folder / "S001C001P001R001A001.skeleton").write_text("0\n")
    with pytest.raises(ValueError, match="skeletons and modality are settings for videos; ntu60-xsub has skeletons"):
        load_action_dataset("ntu60-xsub", folder, cache_dir=tmp_path / "cache", skeletons=str(folder))


def test_several_cameras(tmp_path):
    folder = write(tmp_path / "videos", a1_s1_t1_depth__mp4=MP4, a1_s1_t1_color__mp4=MP4, a2_s1_t1_depth__mp4=MP4)
    with pytest.raises(DataFolderError, match="several cameras: set modality to one of color, depth"):
        load_action_dataset("utd-mhad-video", folder, cache_dir=tmp_path / "cache")
    rows = load_action_dataset("utd-mhad-video", folder, cache_dir=tmp_path / "cache", modality="depth")["train"]
    assert rows["video"] == ["a1_s1_t1_depth.mp4", "a2_s1_t1_depth.mp4"]
    rows = load_action_dataset("utd-mhad-video", folder, cache_dir=tmp_path / "cache", modality="color")["train"]
    assert rows["video"] == ["a1_s1_t1_color.mp4"]


def test_skeletons_get_the_frame_rate_of_their_video(tmp_path):
    """The frame rate of Toyota Smarthome is documented by a single source; the container of the video has it."""
    name = "Walk_p02_r00_v01_c01"
    folder = write(tmp_path / "mp4", **{f"{name}__mp4": tiny_video(20, 25)})
    skeletons = write(tmp_path / "json", **{f"{name}_pose3d__json": smarthome_text((1,) * 20)})
    rows = load_action_dataset("smarthome-cs-video", folder, cache_dir=tmp_path / "cache", skeletons=str(skeletons))[
        "test"
    ]
    assert rows["fps"] == [25.0] and rows["num_frames"] == [20] and rows[0]["shape"][0] == 20


def test_metadata_that_is_not_unicode(tmp_path):
    """Older programs write metadata in other encodings."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        out.metadata["title"] = "caXX"
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    content = file.getvalue()
    assert content.count(b"caXX") == 1
    folder = write(tmp_path / "rgb", S001C001P001R001A001_rgb__avi=content.replace(b"caXX", b"caf\xe9"))
    assert load_action_dataset("ntu60-xsub-video", folder, cache_dir=tmp_path / "cache")["train"]["num_frames"] == [3]


def test_reserved_column_names_are_refused(tmp_path):
    folder = write(tmp_path / "mine", a__mp4=MP4)
    for column in ("width", "video", "cleaning", "label"):
        (folder / "metadata.csv").write_text(f"file_name,label,split,{column}\na.mp4,wave,train,1\n")
        with pytest.raises(DataFolderError, match=f"the column name '{column}' is repeated or reserved"):
            load_action_dataset("folder-video", folder, cache_dir=tmp_path / "cache")


def test_your_own_videos(tmp_path):
    folder = write(tmp_path / "mine", a__mp4=MP4, more__webm=tiny_video(container="webm"), b__npy=b"x")
    table = "file_name,label,split,place\na.mp4,wave,train,1\nmore.webm,fall,test,2\nb.npy,fall,test,2\nc.avi,fall,test,2\n"
    (folder / "metadata.csv").write_text(table)
    splits = load_action_dataset("folder-video", folder, cache_dir=tmp_path / "cache")
    row = splits["test"][0]
    assert (row["sample_id"], row["video"], row["place"], row["label"]) == ("more", "more.webm", 2, 0)
    assert splits["train"].features["label"].names == ["fall", "wave"]
    report = json.loads(next((tmp_path / "cache").rglob("preparation.json")).read_text())
    reasons = {entry["file"]: entry["reason"] for entry in report["files"]}
    assert reasons["b.npy"].endswith(f"folder-video reads {', '.join(VIDEO_SUFFIXES)}, not b.npy")
    assert reasons["c.avi"] == "metadata.csv, line 5: there is no c.avi"


def test_videos_in_folders_of_classes(tmp_path):
    """The names of the folders are the labels, as with `imagefolder`; other files are left out."""
    folder = tmp_path / "mine"
    for name in ("train/wave/a.mp4", "train/fall/b.mp4", "test/fall/a.mp4", "test/fall/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(MP4)
    splits = load_action_dataset("folder-video", folder, cache_dir=tmp_path / "cache")
    assert splits["train"].features["label"].names == ["fall", "wave"]
    rows = [(row["video"], row["label"]) for split in ("train", "test") for row in splits[split]]
    assert rows == [("train/fall/b.mp4", 0), ("train/wave/a.mp4", 1), ("test/fall/a.mp4", 0)]


def frames(folder, count, first=0):
    """Numbered pictures in different greys."""
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((24, 32, 3), 20 * number + first, np.uint8)).save(folder / f"{number:05d}.png")


def test_folders_of_pictures(tmp_path):
    """Folders have the frame rate of the column or of skeleton.json; video files have their own."""
    folder = write(tmp_path / "mine", c__mp4=MP4)
    frames(folder / "a_rgb", 8)
    frames(folder / "deep" / "b.v2", 6, first=3)
    frames(folder / "stranger", 3)
    (folder / "empty").mkdir()
    for name in ("bad", "same"):
        frames(folder / name, 8 if name == "same" else 2)
    table = "file_name,label,split,fps\na_rgb,wave,train,10\ndeep\\b.v2,fall,test,\nc.mp4,wave,train,99\n"
    table += "empty,wave,train,5\nbad,wave,train,fast\nsame,wave,test,\n"
    (folder / "metadata.csv").write_text(table)
    (folder / "skeleton.json").write_text('{"fps": 12}')
    accounts = prepare("folder-video", folder, tmp_path / "out", num_proc=1)
    assert (tmp_path / "out" / "report-folder-video-typical.png").stat().st_size > 500  # drawn from the pictures
    rows = load_action_dataset("folder-video", folder, cache_dir=tmp_path / "cache")
    rows = {row["sample_id"]: row for split in rows.values() for row in split}
    assert {name: (row["video_fps"], row["num_frames"], row["height"]) for name, row in rows.items()} == {
        "a_rgb": (10, 8, 24), "deep/b.v2": (12, 6, 24), "c": (30, 6, 32), "same": (12, 8, 24),
    }  # fmt: skip
    reasons = {entry["file"]: entry["reason"] for entry in accounts["folder-video"]["files"]}
    assert set(reasons) == {"empty", "bad"}  # pictures without a row are not reported
    assert "line 5: empty is a folder without pictures (.jpg, " in reasons["empty"]
    assert reasons["bad"] == "metadata.csv, line 6: fps: expected a positive number, found 'fast'"
    _, doubt = accounts["folder-video"]["doubts"]  # the first doubt: fall has no training recording
    assert (doubt["kind"], doubt["files"]) == ("same recording in two splits", ["a_rgb", "same"])
    with open_row(folder, rows["a_rgb"]) as opened, open_video(opened) as video:
        assert video.info.seconds == pytest.approx(0.8)
        assert video.frames_at([0.35])[0, 0, 0].tolist() == [60, 60, 60]
    with open_row(folder, rows["c"]) as opened, open_video(opened) as video:
        assert video.info.num_frames == 6
    extractor = VideoFeatureExtractor(2, 2, height=16, width=16)
    with open_row(folder, rows["a_rgb"]) as opened:
        features = extractor(opened)
    assert features["frame_rate"].tolist() == pytest.approx([2 / 0.8])


def test_a_changed_picture_is_read_again(tmp_path):
    folder = tmp_path / "mine"
    frames(folder / "a", 4)
    (folder / "metadata.csv").write_text("file_name,label,split\na,wave,train\n")
    assert load_action_dataset("folder-video", folder, cache_dir=tmp_path / "cache")["train"]["num_frames"] == [4]
    (folder / "a" / "00003.png").unlink()
    assert load_action_dataset("folder-video", folder, cache_dir=tmp_path / "cache")["train"]["num_frames"] == [3]


@pytest.mark.real_data
def test_a_real_folder_of_pictures(real_data, tmp_path):
    splits = load_action_dataset("folder-video", real_data / "cases" / "d10_frame_folders", cache_dir=tmp_path)
    assert [
        (row["sample_id"], row["num_frames"], row["video_fps"]) for row in (*splits["train"], *splits["test"])
    ] == [
        ("a", 8, 30),
        ("b", 8, 30),
    ]


@pytest.mark.real_data
def test_ntu_videos_are_as_long_as_their_skeletons(real_data, tmp_path):
    source = real_data / "ntu_rgbd"
    splits = load_action_dataset(
        "ntu60-xsub-video", source / "rgb", cache_dir=tmp_path, skeletons=str(source / "skeletons")
    )
    rows = {row["sample_id"]: row for row in splits["train"]}
    assert {name: (row["num_frames"], row["shape"][0]) for name, row in rows.items()} == {
        "S001C001P001R001A001": (103, 103), "S001C001P001R001A050": (74, 74),
    }  # fmt: skip


@pytest.mark.real_data
def test_depth_videos_of_utd_mhad(real_data, tmp_path):
    videos = load_action_dataset("utd-mhad-video", real_data / "utd_mhad" / "depth_video", cache_dir=tmp_path)
    skeletons = load_action_dataset("utd-mhad", real_data / "utd_mhad" / "skeleton", cache_dir=tmp_path)
    for split in skeletons:
        columns = ["sample_id", "label", "held_out"]
        assert videos[split].select_columns(columns).to_list() == skeletons[split].select_columns(columns).to_list()
