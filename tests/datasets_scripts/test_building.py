"""Builders with simulated folders, real recordings and faulty source folders."""

import json
import os
import random
import shutil
import zipfile
from collections import Counter
from itertools import product

import numpy as np
import pyarrow.parquet
import pytest
from scipy.io import loadmat, savemat
from tiny_videos import tiny_video

from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor
from action_llm.skeleton_files import read_skeleton
from action_llm_datasets import building
from action_llm_datasets.building import REPORT_NAME, DataFolderError, find_files
from action_llm_datasets.load import PROTOCOLS, load_action_dataset
from action_llm_datasets.ntu import NTUSkeletons
from action_llm_datasets.protocols import NTU_PROTOCOLS, NotInProtocolError, ntu_class_names, ntu_missing_skeletons
from action_llm_datasets.utd_mhad import UTDMHAD
from action_llm_datasets.videos import NTUVideos

ACTIONS = (10, 23, 58)  # of the fixture `simulated`


@pytest.fixture(scope="module")
def recording(simulated):
    """The content of a valid recording."""
    return (simulated / "S001C001P001R001A010.skeleton").read_text()


@pytest.fixture
def ntu_folder(tmp_path, recording):
    """A folder of recordings without simulation.json; returns a function that adds a file."""

    def add(name, text=recording):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return tmp_path / "data"

    return add


def prepare(config, folder, cache, **options):
    builder = NTUSkeletons(config_name=config, data_dir=folder, cache_dir=str(cache), **options)
    builder.download_and_prepare()
    return builder, builder.as_dataset()


def test_rows_are_the_recordings(simulated, tmp_path):
    splits = load_action_dataset("simulated-xsub", simulated, cache_dir=tmp_path)
    train, test = splits["train"], splits["test"]
    assert train.features["label"].names == [ntu_class_names()[action - 1] for action in ACTIONS]
    assert set(train["performer"]) == {1, 2, 4, 5} and set(test["performer"]) == {3}
    assert {row["performer"] for row in train if row["held_out"]} == {5} and not any(test["held_out"])
    assert len(train) + len(test) == 5 * 3 * 3
    for row in [*train.select(range(0, len(train), 7)), test[0]]:
        recording = read_skeleton(simulated / f"{row['sample_id']}.skeleton")
        keypoints = np.array(row["keypoints"], np.float32).reshape(row["shape"])
        np.testing.assert_array_equal(keypoints, recording.keypoints)
        assert row["body_ids"] == recording.body_ids.tolist() and row["body_ids"][0] > 2**56
        assert (row["layout"], row["fps"]) == ("kinect25", 30.0)
        assert ACTIONS[row["label"]] == row["action"]
        assert row["sample_id"].endswith(f"C{row['camera']:03d}P{row['performer']:03d}R001A{row['action']:03d}")
    features = SkeletonFeatureExtractor()(list(train.select(range(3))), return_tensors="np")
    assert features["input_features"].shape[::2] == (3, 150)


def test_several_processes_and_streaming_give_the_same_rows(simulated, tmp_path):
    single = load_action_dataset("simulated-xview", simulated, cache_dir=tmp_path / "one")
    parallel = load_action_dataset("simulated-xview", simulated, cache_dir=tmp_path / "two", num_proc=2)
    stream = NTUSkeletons(config_name="simulated-xview", data_dir=simulated, cache_dir=str(tmp_path / "three"))
    for split in ("train", "test"):
        assert single[split].data.table.equals(parallel[split].data.table)
        assert list(stream.as_streaming_dataset(split)) == list(single[split])


def test_cache_follows_files_and_arguments(ntu_folder, tmp_path, recording):
    folder = ntu_folder("S001C001P001R001A001.skeleton")
    first, _ = prepare("ntu60-xsub", folder, tmp_path / "cache")
    again, _ = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert again.cache_dir == first.cache_dir
    ntu_folder("S001C001P003R001A001.skeleton")
    grown, splits = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert grown.cache_dir != first.cache_dir and len(splits["test"]) == 1
    ntu_folder("S001C001P003R001A001.skeleton", recording.replace("\n25\n", "\n25 \n"))  # same name, other content
    changed, _ = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert changed.cache_dir != grown.cache_dir


def test_unusable_files_are_skipped_counted_and_listed(ntu_folder, tmp_path, recording, caplog):
    lines = recording.splitlines(keepends=True)
    missing = min(name for name in ntu_missing_skeletons() if name.endswith("A008"))
    empty = f"{3}\n" + "0\n" * 3
    ntu_folder("good/S001C002P001R001A001.skeleton")
    ntu_folder("deep/er/s001c003p003r001a002.SKELETON")  # lower case, nested
    ntu_folder("good/S001C001P002R001A001.skeleton", recording.replace("\n", "\r\n"))
    ntu_folder("again/S001C002P001R001A001.skeleton")
    ntu_folder("S001C001P001R001A002.skeleton", "".join(lines[:40]))
    ntu_folder("S001C001P001R001A003.skeleton", recording + "1 2 3\n")
    ntu_folder("S001C001P001R001A004.skeleton", recording.replace("\n25\n", "\n18\n"))
    ntu_folder("S001C001P001R001A005.skeleton", empty)
    ntu_folder("S001C001P001R001A006.skeleton", "")
    ntu_folder("S018C001P008R001A061.skeleton")
    ntu_folder("S001C001P001R001A007_rgb.skeleton")
    ntu_folder("notes.skeleton")
    ntu_folder(".S001C001P001R001A009.skeleton.88", "half written")
    folder = ntu_folder(f"{missing}.skeleton")
    builder, splits = prepare("ntu60-xsub", folder, tmp_path / "cache")

    assert sorted(splits["train"]["sample_id"]) == ["S001C001P002R001A001", "S001C002P001R001A001"]
    assert splits["test"]["sample_id"] == ["S001C003P003R001A002"]
    report = json.loads((tmp_path / "cache").rglob(REPORT_NAME).__next__().read_text())
    assert report == builder.report
    assert report["recordings"] == {"train": 2, "test": 1}
    assert report["published"] == {"train": 40091, "test": 16487}
    assert report["skipped"] == {
        "unreadable": 4, "no body": 1, "action": 1, "name": 2, "missing skeleton": 1, "duplicate": 1,
    }  # fmt: skip
    reasons = {entry["file"]: entry["reason"] for entry in report["files"]}
    assert len(reasons) == 10
    assert "A061 is not in NTU RGB+D 60" in reasons["S018C001P008R001A061.skeleton"]
    assert "no body in any of 3 frames" in reasons["S001C001P001R001A005.skeleton"]
    assert "line" in reasons["S001C001P001R001A002.skeleton"] and "18" in reasons["S001C001P001R001A004.skeleton"]
    assert "same name as again/" in reasons["good/S001C002P001R001A001.skeleton"]
    assert "list of incomplete skeletons" in reasons[f"{missing}.skeleton"]
    builder.log_report()
    for category in report["skipped"]:
        assert f"({category})" in caplog.text
    assert not list((tmp_path / "cache").rglob("tally-*"))

    complete, splits = prepare("ntu60-xsub", folder, tmp_path / "cache", skip_missing=False)
    assert missing in [*splits["train"]["sample_id"], *splits["test"]["sample_id"]]
    assert complete.report["published"] == {"train": 40320, "test": 16560}


def test_a_killed_preparation_leaves_nothing_behind(ntu_folder, tmp_path):
    folder = ntu_folder("S001C001P001R001A001.skeleton")
    ntu_folder("S001C001P001R001A002.skeleton", "broken")
    builder = NTUSkeletons(config_name="ntu60-xsub", data_dir=folder, cache_dir=str(tmp_path / "cache"))
    unfinished = tmp_path / (builder.cache_dir + ".incomplete")
    unfinished.mkdir(parents=True)
    old = {"split": "train", "labels": {"0": 7}, "skipped": [{"file": "x", "kind": "unreadable", "reason": "old"}]}
    (unfinished / "tally-train-1.jsonl").write_text(json.dumps(old) + "\n")
    (unfinished / "ntu-train-00000-00000-of-NNNNN.arrow").write_text("half a table")
    builder.download_and_prepare()
    assert [entry["file"] for entry in builder.report["files"]] == ["S001C001P001R001A002.skeleton"]
    assert len(builder.as_dataset()["train"]) == 1 == builder.report["recordings"]["train"]


@pytest.mark.parametrize("config", ["ntu120-unseen-1", "ntu120-one-shot", "ntu60-zero-shot-55-5"])
def test_training_data_of_seen_classes_never_name_an_unseen_class(ntu_folder, tmp_path, config):
    protocol = NTU_PROTOCOLS[config]
    for action in range(1, protocol.train_actions[-1] + 1):
        setup = 1 if action <= 60 else 18
        folder = ntu_folder(f"S{setup:03d}C003P008R001A{action:03d}.skeleton")
        if action <= 60:
            folder = ntu_folder(f"S001C003P003R001A{action:03d}.skeleton")
    splits = load_action_dataset(config, folder, cache_dir=tmp_path / "cache")
    train, test = splits["train"], splits["test"]
    unseen = set(protocol.class_names("test"))
    assert train.features["label"].names == protocol.class_names("train")
    assert test.features["label"].names == protocol.class_names("test")
    assert not set(train["action"]) & set(protocol.test_actions)
    assert set(test["action"]) <= set(protocol.test_actions)
    assert {train.features["label"].int2str(label) for label in train["label"]} & unseen == set()
    # No prepared file of the seen part contains the name of an unseen class.
    prepared = [path for path in (tmp_path / "cache").rglob(f"{config}-seen*/**/*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in prepared)
    assert all(json.dumps(name).encode() in content for name in protocol.class_names("train"))
    assert not [name for name in unseen if json.dumps(name).encode() in content]
    if config == "ntu120-one-shot":
        assert set(splits) == {"train", "exemplars", "test"}
        assert set(splits["exemplars"]["sample_id"]) <= protocol.exemplars


def test_a_folder_needs_at_least_one_split(ntu_folder, tmp_path, caplog):
    folder = ntu_folder("S001C001P003R001A001.skeleton")
    _, splits = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert list(splits) == ["test"] and "the split train has no recording" in caplog.text
    assert list(prepare("ntu60-xsub", folder, tmp_path / "cache")[1]) == ["test"]  # from the cache
    ntu_folder("S001C001P003R001A001.skeleton", "broken")
    with pytest.raises(
        DataFolderError, match=r"could be read for ntu60-xsub; for example S001.*line 1: found 'broken'"
    ):
        prepare("ntu60-xsub", folder, tmp_path / "cache")


def test_errors_of_wrong_folders_name_their_content(tmp_path, simulated, ntu_folder):
    with pytest.raises(DataFolderError, match="is not a folder"):
        NTUSkeletons(config_name="ntu60-xsub", data_dir=tmp_path / "nowhere")
    (tmp_path / "pictures" / "old").mkdir(parents=True)
    for index in range(3):
        (tmp_path / "pictures" / "old" / f"{index}.png").touch()
    with zipfile.ZipFile(tmp_path / "pictures" / "archive.zip", "w") as archive:
        archive.writestr("3.png", "a picture")
    with pytest.raises(DataFolderError, match=r"no \.skeleton file in any of its 2 folders; found 3 \.png, 1 \.zip"):
        load_action_dataset("ntu60-xsub", tmp_path / "pictures")
    with pytest.raises(DataFolderError, match=r"expects recordings of people, but .* holds simulated"):
        load_action_dataset("ntu60-xsub", simulated, cache_dir=tmp_path / "cache")
    folder = ntu_folder("other names/person_1.skeleton")
    with pytest.raises(DataFolderError, match=r"has no simulation\.json"):
        load_action_dataset("simulated-xsub", folder, cache_dir=tmp_path / "cache")
    (folder / "simulation.json").write_text('{"actions": null}')
    with pytest.raises(DataFolderError, match=r"simulation\.json: expected the record of a simulation \(TypeError"):
        load_action_dataset("simulated-xsub", folder, cache_dir=tmp_path / "cache")
    (folder / "simulation.json").unlink()
    builder = NTUSkeletons(config_name="ntu60-xsub", data_dir=folder, cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataFolderError, match=r"belongs to ntu60-xsub: 1 skipped \{'name': 1\}.*found 'person_1'"):
        builder.download_and_prepare()


def test_archive_members_with_paths_outside_are_refused(ntu_folder, tmp_path, recording):
    folder = ntu_folder("S001C001P001R001A001.skeleton")
    with zipfile.ZipFile(folder / "bad.zip", "w") as archive:
        archive.writestr("../../escaped/S001C001P001R001A002.skeleton", recording)
    (folder / "broken.zip").write_bytes(b"PK no archive")
    builder, splits = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert splits["train"]["sample_id"] == ["S001C001P001R001A001"]
    reasons = {entry["file"]: entry["reason"] for entry in builder.report["files"]}
    assert "members with paths outside of the archive, such as '../../escaped" in reasons["bad.zip"]
    assert "'broken.zip' cannot be read" in reasons["broken.zip"]


def test_a_broken_link_is_skipped(ntu_folder, tmp_path):
    folder = ntu_folder("S001C001P001R001A001.skeleton")
    (folder / "S001C001P001R001A002.skeleton").symlink_to(folder / "gone")
    builder, splits = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert builder.report["skipped"] == {"unreadable": 1} and len(splits["train"]) == 1


def test_the_cache_depends_on_all_code_that_assigns_splits(ntu_folder, monkeypatch):
    folder = ntu_folder("S001C001P001R001A001.skeleton")
    read = []
    monkeypatch.setattr(building, "fingerprint", lambda files, read_with: read.extend(map(str, read_with)) or "x")
    NTUSkeletons(config_name="ntu60-xsub", data_dir=folder)
    names = {path.rsplit("/", 1)[-1] for path in read}
    assert names >= {
        "ntu.py",
        "building.py",
        "protocols.py",
        "ntu_protocols.json",
        "skeleton_files.py",
        "skeleton_layouts.py",
    }
    (folder / "S001C001P001R001A001_rgb.avi").write_bytes(tiny_video(container="avi"))
    read.clear()
    NTUVideos(config_name="ntu60-xsub-video", data_dir=folder)
    assert {path.rsplit("/", 1)[-1] for path in read} >= {"videos.py", "ntu.py", "video_files.py", "building.py"}


def test_thresholds_out_of_range(ntu_folder, tmp_path):
    folder = ntu_folder("S001C001P001R001A001.skeleton")
    for name, value in (("num_persons", 0), ("max_width_ratio", float("nan")), ("min_body_frames", "11")):
        with pytest.raises(ValueError, match=f"{name}: expected a number of at least"):
            prepare("ntu60-xsub", folder, tmp_path / "cache", **{name: value})


def test_circular_links_are_followed_once(ntu_folder):
    folder = ntu_folder("a/S001C001P001R001A001.skeleton")
    (folder / "a" / "back").symlink_to(folder, target_is_directory=True)
    assert [file.stem for file in find_files(folder, ".skeleton")] == ["S001C001P001R001A001"]


def test_unknown_protocol_and_settings(simulated, tmp_path):
    with pytest.raises(ValueError, match=r"no protocol 'ntu-60'; did you mean ntu60-xsub\?"):
        load_action_dataset("ntu-60", simulated)
    with pytest.raises(ValueError, match="skip_mising"):
        load_action_dataset("simulated-xsub", simulated, cache_dir=tmp_path, skip_mising=True)
    assert {"simulated-xsub", "simulated-xview", "utd-mhad", "ntu120-unseen-4"} < set(PROTOCOLS)
    assert {"smarthome-cs", "smarthome-cv1", "smarthome-cv2", "uav-human-csv1", "uav-human-csv2"} < set(PROTOCOLS)
    assert len(PROTOCOLS["ntu120-unseen-4"][1]) == 2


def test_real_ntu_files(real_data, tmp_path):
    source = real_data / "ntu_rgbd"
    splits = load_action_dataset("ntu60-xsub", source, cache_dir=tmp_path)
    rows = {row["sample_id"]: row for split in splits.values() for row in split}
    assert len(rows) == 9
    assert set(splits["train"]["performer"]) == {1, 8, 15} and set(splits["test"]["performer"]) == {3, 20}
    for name, row in rows.items():
        recording = read_skeleton(source / "skeletons" / f"{name}.skeleton")
        np.testing.assert_array_equal(
            np.array(row["keypoints"], np.float32).reshape(row["shape"]), recording.keypoints
        )
    assert rows["S001C003P008R002A058"]["body_ids"] == [72057594037944738, 72057594037944734]
    views = load_action_dataset("ntu60-xview", source, cache_dir=tmp_path)
    assert {row["camera"] for row in views["test"]} == {1}


def test_utd_mhad_is_complete(real_data, tmp_path):
    splits = load_action_dataset("utd-mhad", real_data / "utd_mhad", cache_dir=tmp_path)
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (431, 430)
    assert set(train["subject"]) == {1, 3, 5, 7} and set(test["subject"]) == {2, 4, 6, 8}
    assert {row["subject"] for row in train.select_columns(["subject", "held_out"]) if row["held_out"]} == {7}
    assert set(train["label"]) == set(test["label"]) == set(range(27))
    row = train[200]
    raw = loadmat(real_data / "utd_mhad/skeleton" / f"{row['sample_id']}_skeleton.mat")["d_skel"]
    keypoints = np.array(row["keypoints"], np.float32).reshape(row["shape"])
    np.testing.assert_array_equal(keypoints[:, 0], raw.transpose(2, 0, 1).astype(np.float32))
    assert row["layout"] == "kinect20"

    rotated = load_action_dataset("utd-mhad", real_data / "utd_mhad", cache_dir=tmp_path, held_out_subject=3)["train"]
    assert {row["subject"] for row in rotated.select_columns(["subject", "held_out"]) if row["held_out"]} == {3}
    assert len(rotated) == 431


def test_unseen_classes_of_utd_mhad(tmp_path):
    """Seen classes of the training subjects, unseen classes of the test subjects, and nothing else."""
    folder = tmp_path / "Skeleton"
    folder.mkdir()
    skeleton = np.random.default_rng(0).normal(size=(20, 3, 12))
    for action, subject in product((13, 5, 11, 20), (1, 2, 7)):
        savemat(folder / f"a{action}_s{subject}_t1_skeleton.mat", {"d_skel": skeleton})
    splits = load_action_dataset("utd-mhad-unseen-0", folder, cache_dir=tmp_path / "cache")
    assert splits["train"]["sample_id"] == ["a13_s1_t1", "a13_s7_t1"] and splits["train"]["held_out"] == [False, True]
    assert splits["test"]["sample_id"] == ["a11_s2_t1", "a20_s2_t1", "a5_s2_t1"]
    train, test = (splits[split].features["label"] for split in ("train", "test"))
    assert len(train.names) == 24 and not set(train.names) & set(test.names)
    assert test.names == ["throw", "draw triangle", "catch"]
    assert train.int2str(splits["train"][0]["label"]) == "boxing"
    assert test.int2str(splits["test"]["label"][:]) == ["draw triangle", "catch", "throw"]
    with pytest.raises(NotInProtocolError, match="does not use seen classes of test subjects"):
        UTDMHAD(config_name="utd-mhad-unseen-0-seen", data_dir=folder, cache_dir=str(tmp_path)).place("a13_s2_t1")


def test_unseen_draws_of_the_real_utd_mhad(real_data, tmp_path):
    for draw in range(5):
        splits = load_action_dataset(f"utd-mhad-unseen-{draw}", real_data / "utd_mhad", cache_dir=tmp_path)
        assert (len(splits["train"]), len(splits["test"])) == (383, 47 if draw == 1 else 48)
        assert set(splits["test"]["subject"]) == {2, 4, 6, 8} and len(set(splits["test"]["action"])) == 3
    splits = load_action_dataset("utd-mhad-zero-shot-13-14", real_data / "utd_mhad", cache_dir=tmp_path)
    assert {split: len(set(splits[split]["action"])) for split in splits} == {"train": 13, "test": 14}


def test_utd_mhad_without_the_data(tmp_path):
    folder = tmp_path / "Skeleton"
    folder.mkdir()
    skeleton = np.random.default_rng(0).normal(size=(20, 3, 12))
    for name in ("a1_s1_t1", "A27_S2_T4", "a28_s1_t1", "a3_s9_t1", "b1_s1_t1"):
        savemat(folder / f"{name}_skeleton.mat", {"d_skel": skeleton})
    savemat(folder / "a2_s3_t1_skeleton.mat", {"d_iner": skeleton})
    savemat(folder / "a2_s3_t1_inertial.mat", {"d_iner": skeleton})
    builder = UTDMHAD(config_name="utd-mhad", data_dir=folder, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    splits = builder.as_dataset()
    assert splits["train"]["sample_id"] == ["a1_s1_t1"] and splits["test"]["sample_id"] == ["a27_s2_t4"]
    assert splits["test"].features["label"].int2str(splits["test"][0]["label"]) == "squat"
    assert builder.report["skipped"] == {"action": 1, "subject": 1, "name": 1, "unreadable": 1}
    with pytest.raises(ValueError, match=r"held_out_subject must be one of \[1, 3, 5, 7\]; got 2"):
        UTDMHAD(config_name="utd-mhad", data_dir=folder, cache_dir=str(tmp_path), held_out_subject=2)


def test_prepared_data_are_published_as_plain_parquet(simulated, tmp_path):
    """Readers without this code see Parquet with a flat list and its shape."""
    split = load_action_dataset("simulated-xsub", simulated, cache_dir=tmp_path / "cache")["train"]
    split.to_parquet(tmp_path / "train.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "train.parquet")
    shape = table["shape"][0].as_py()
    assert len(table["keypoints"][0]) == np.prod(shape) and shape[2:] == [25, 3]
    shutil.rmtree(tmp_path / "cache")


def test_archives_are_read_like_folders(simulated, ntu_folder, tmp_path, recording, caplog):
    loose = tmp_path / "loose"
    shutil.copytree(simulated, loose)
    (loose / "simulation.json").unlink()
    packed = tmp_path / "packed" / "deep"
    packed.mkdir(parents=True)
    paths = sorted(loose.glob("*.skeleton"))
    with zipfile.ZipFile(packed / "Skeletons.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths[::2]:
            archive.write(path, f"nturgb+d_skeletons/{path.name}")
        archive.writestr("nturgb+d_skeletons/S001C001P001R001A002.skeleton", "broken")
        archive.writestr("__MACOSX/._S001C001P001R001A010.skeleton", "hidden")
        archive.writestr("readme.md", "not a recording")
    with zipfile.ZipFile(packed / "more.zip", "w", zipfile.ZIP_STORED) as archive:
        for path in paths[1::2]:
            archive.write(path, path.name)
    expected = load_action_dataset("ntu60-xview", loose, cache_dir=tmp_path / "cache")
    for num_proc in (None, 2):
        cache = tmp_path / f"cache {num_proc}"
        splits = load_action_dataset("ntu60-xview", packed.parent, cache_dir=cache, num_proc=num_proc)
        for split, rows in expected.items():
            assert sorted(splits[split], key=lambda row: row["sample_id"]) == list(rows)
    assert "deep/Skeletons.ZIP/nturgb+d_skeletons/S001C001P001R001A002.skeleton, line 1: found 'broken'" in caplog.text

    # A file that is both in an archive and unpacked counts once.
    (packed / paths[0].name).write_text(recording)
    listed = [file.path for file in find_files(packed, ".skeleton")]
    assert len(listed) == len(paths) + 1
    assert [path for path in listed if path.endswith(paths[0].name)] == [paths[0].name]


def test_damaged_and_encrypted_archives(ntu_folder, tmp_path, recording):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.zip").write_bytes(b"half a download")
    with pytest.raises(DataFolderError, match=r"a\.zip' cannot be read: File is not a zip file"):
        find_files(data, ".skeleton")
    with zipfile.ZipFile(data / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        for action in (1, 2, 3):
            archive.writestr(f"S001C001P001R001A{action:03d}.skeleton", recording)
    content = bytearray((data / "a.zip").read_bytes())
    place = content.find(b"\n25\n", len(content) // 2)  # in the second or third member
    content[place + 6] ^= 1
    (data / "a.zip").write_bytes(content)
    builder, splits = prepare("ntu60-xsub", data, tmp_path / "cache")
    assert len(splits["train"]) == 2
    assert [entry["kind"] for entry in builder.report["files"]] == ["unreadable"]
    assert "Bad CRC-32" in builder.report["files"][0]["reason"]
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.find(signature) + flags] |= 1
    (data / "a.zip").write_bytes(content)
    with pytest.raises(DataFolderError, match=r"a\.zip' is encrypted: unpack it"):
        find_files(data, ".skeleton")
    for action in (1, 2, 3):
        (data / f"S001C001P001R001A{action:03d}.skeleton").write_text(recording)
    assert len(find_files(data, ".skeleton")) == 3


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large")])
@pytest.mark.parametrize("place", ["read", "recording_columns"])
def test_a_recording_that_is_too_large_is_skipped(ntu_folder, tmp_path, monkeypatch, error, place):
    """Memory runs out while the file is read, or later."""
    small, large = "S001C001P001R001A010.skeleton", "S001C001P001R001A023.skeleton"
    ntu_folder(small)
    folder = ntu_folder(large)
    original = getattr(NTUSkeletons, place)

    def fail(self, given):
        if large in str(getattr(given, "name", given)):
            raise error
        return original(self, given)

    monkeypatch.setattr(NTUSkeletons, place, fail)
    builder, splits = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert len(splits["train"]) == 1 and builder.report["skipped"]["unreadable"] == 1
    (skipped,) = [entry for entry in builder.report["files"] if entry["kind"] == "unreadable"]
    assert (
        skipped["file"] == large and large in skipped["reason"] and (str(error) or "MemoryError") in skipped["reason"]
    )


def test_wrong_sizes_and_other_compressions_in_archives(ntu_folder, tmp_path, recording):
    folder = ntu_folder("S001C001P001R001A010.skeleton")
    with (
        zipfile.ZipFile(folder / "large.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("S001C001P001R001A023.skeleton", "w", force_zip64=True) as member,
    ):
        for _ in range(513):
            member.write(b"0\n" * (1 << 19))
    with zipfile.ZipFile(folder / "other.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("S001C001P001R001A058.skeleton", recording)
    builder, splits = prepare("ntu60-xsub", folder, tmp_path / "cache")
    assert len(splits["train"]) == 1
    large, other = (entry["reason"] for entry in builder.report["files"] if entry["kind"] == "unreadable")
    assert "found more than 512 MiB, expected at most 512 MiB" in large
    assert "other.zip: expected compression with deflate, found bzip2: unpack the archive" in other


def test_mutated_archives_are_read_or_reported(tmp_path, recording):
    """For any damage of an archive, `find_files` and `open_source` return files or raise an error of `UNREADABLE`."""
    generator, ends = random.Random(0), Counter()
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.skeleton", "b/ü.skeleton", "c.skeleton"):
            archive.writestr(name, recording[:2000])
    whole = path.read_bytes()
    places = [
        place
        for place in range(len(whole))
        if whole[place - 3 : place + 1].startswith(b"PK") or place > len(whole) - 300
    ]
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(generator.choice((1, 2, 4))):
            content[generator.choice((generator.choice(places), generator.randrange(len(whole))))] = (
                generator.randrange(256)
            )
        path.write_bytes(content)
        os.utime(path, ns=(0, ends.total()))
        try:
            files = find_files(tmp_path, ".skeleton")
        except DataFolderError as error:
            assert "a.zip" in str(error) or "holds no .skeleton" in str(error)
            ends["refused"] += 1
            continue
        for file in files:
            try:
                with building.open_source(tmp_path, file.path) as opened:
                    ends["read"] += opened.read() == recording[:2000].encode()
            except building.UNREADABLE:
                ends["unreadable"] += 1
    assert min(ends["refused"], ends["read"], ends["unreadable"]) > 5
