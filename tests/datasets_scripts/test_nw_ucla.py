"""Northwestern-UCLA: names, splits and counts, and the builder on made-up files and on the recordings of two views."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
from skeleton_people import nw_ucla_text, person

from action_llm_datasets.building import DataFolderError
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.nw_ucla import FACTS, NWUCLA
from action_llm_datasets.protocols import NotInProtocolError

VIEWS = {
    "nw-ucla-xview": ({1, 2}, {3}),
    "nw-ucla-views13-view2": ({1, 3}, {2}),
    "nw-ucla-views23-view1": ({2, 3}, {1}),
    **{
        f"nw-ucla-view{train}-view{test}": ({train}, {test})
        for train in (1, 2, 3)
        for test in (1, 2, 3)
        if test != train
    },
}
SUBJECTS = {
    "nw-ucla-xsub": ({1, 3, 5, 7, 9}, {2, 4, 6, 8, 10}),
    **{f"nw-ucla-xsub-{test}": (set(range(1, 11)) - {test}, {test}) for test in range(1, 11)},
}
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)


def builder_of(protocol, tmp_path, **settings):
    return NWUCLA(config_name=protocol, data_dir=tmp_path, cache_dir=str(tmp_path / "cache"), hash="x", **settings)


def write(folder, *names, seed=0):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / f"{name}.json").write_bytes(nw_ucla_text(person(12, "kinect20-sdk", seed=seed + number)))
    return folder


def test_facts():
    assert list(FACTS["protocols"]) == [*VIEWS, *SUBJECTS]
    assert tuple(entry["action"] for entry in FACTS["classes"]) == ACTIONS
    assert FACTS["protocols"]["nw-ucla-xview"]["counts"] == {"train": 1020, "test": 464}
    assert sum(FACTS["protocols"]["nw-ucla-xview"]["counts"].values()) == FACTS["recordings"] == 1484


@pytest.mark.parametrize("protocol", VIEWS | SUBJECTS)
def test_every_name_has_its_split(protocol, tmp_path):
    builder, (train, test) = builder_of(protocol, tmp_path), (VIEWS | SUBJECTS)[protocol]
    held_out = set()
    for action in ACTIONS:
        for subject in range(1, 11):
            for view in (1, 2, 3):
                name = f"a{action:02d}_s{subject:02d}_e03_v{view:02d}"
                sample_id, placement, fields = builder.place(name.upper())
                assert sample_id == name
                assert fields == {"subject": subject, "episode": 3, "view": view, "action": action}
                value = view if protocol in VIEWS else subject
                if value not in train | test:
                    assert placement is None
                    continue
                assert placement.split == ("train" if value in train else "test")
                assert ACTIONS[placement.label] == action
                if placement.held_out:
                    assert placement.split == "train"
                    held_out.add(subject)
    assert len(held_out) == 1


@pytest.mark.parametrize(
    ("stem", "kind"),
    [
        ("a07_s01_e00_v01", "action"),
        ("a10_s01_e00_v01", "action"),
        ("a01_s11_e00_v01", "subject"),
        ("a01_s00_e00_v01", "subject"),
        ("a01_s01_e00_v04", "view"),
        ("a1_s1_e0_v1", "name"),
        ("a01_s01_e00", "name"),
    ],
)
def test_other_names_are_refused(stem, kind, tmp_path):
    with pytest.raises(NotInProtocolError, match="expected") as error:
        builder_of("nw-ucla-xview", tmp_path).place(stem)
    assert error.value.kind == kind


def test_held_out_subjects(tmp_path):
    assert builder_of("nw-ucla-xview", tmp_path, held_out_subject=2).place("a01_s02_e00_v01")[1].held_out
    assert not builder_of("nw-ucla-xview", tmp_path, held_out_subject=2).place("a01_s10_e00_v01")[1].held_out
    with pytest.raises(ValueError, match=r"held_out_subject must be one of \[1, 3, 5, 7, 9\]; got 2"):
        builder_of("nw-ucla-xsub", tmp_path, held_out_subject=2)
    with pytest.raises(ValueError, match="held_out_subject must be one of"):
        builder_of("nw-ucla-view1-view2", tmp_path, held_out_subject=11)


def test_rows_are_the_recordings(tmp_path):
    data = write(tmp_path / "all_sqe", "a01_s01_e00_v01", "a12_s10_e04_v02", "a08_s02_e00_v03")
    splits = load_action_dataset("nw-ucla-xview", data, cache_dir=tmp_path / "cache")
    train, test = splits["train"], splits["test"]
    assert train["sample_id"] == ["a01_s01_e00_v01", "a12_s10_e04_v02"] and train["held_out"] == [False, True]
    assert test["view"] == [3] and test.features["label"].int2str(test["label"]) == ["donning"]
    row = train[1]
    keypoints = np.array(row["keypoints"], np.float32).reshape(row["shape"])
    np.testing.assert_array_equal(keypoints[:, 0], person(12, "kinect20-sdk", seed=1))
    assert (row["layout"], row["fps"], row["action"], row["episode"]) == ("kinect20-sdk", 30.0, 12, 4)


def test_unusable_files_are_skipped_and_listed(tmp_path):
    data = write(tmp_path / "all_sqe", "a01_s01_e00_v01", "a02_s01_e00_v02", "a07_s01_e00_v01", "labels")
    (data / "a03_s01_e00_v01.json").write_text('{"skeletons": [[[0, 0, 0]]]}')
    (data / "a04_s01_e00_v01.json").write_text(json.dumps({"skeletons": np.zeros((3, 20, 3)).tolist()}))
    builder = NWUCLA(config_name="nw-ucla-xview", data_dir=data, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert builder.report["recordings"] == {"train": 2, "test": 0}
    assert builder.report["skipped"] == {"action": 1, "name": 1, "unreadable": 1, "no body": 1}
    assert "found a list of 1, expected 20 joints in frame 0" in str(builder.report["files"])
    assert "1,480 of 1,484 published recordings are not in the folder" in str(builder.report["doubts"])
    with pytest.raises(DataFolderError, match=r"no \.json file .* belongs to nw-ucla-view3-view2"):
        load_action_dataset("nw-ucla-view3-view2", write(tmp_path / "one", "a01_s01_e00_v01"), cache_dir=tmp_path)


def test_doubtful_published_labels_are_listed(tmp_path):
    names = ("a05_s04_e00_v02", "a06_s04_e00_v02", "a05_s04_e00_v01", "a09_s05_e00_v02", "a09_s04_e00_v02")
    data = write(tmp_path / "all_sqe", *names)
    builder = NWUCLA(config_name="nw-ucla-view1-view2", data_dir=data, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    doubts = [doubt for doubt in builder.report["doubts"] if doubt["kind"] == "published label"]
    assert [[file[:15] for file in doubt["files"]] for doubt in doubts] == [list(names[:2]), [names[3]]]
    assert "'sit down' and 'stand up' are interchanged" in doubts[0]["reason"]
    assert builder.as_dataset("test")["action"] == [5, 6, 9, 9]  # the labels stay


def test_joints_of_utd_mhad_are_refused(tmp_path):
    data = tmp_path / "all_sqe"
    data.mkdir()
    for episode in range(4):
        body = person(12, "kinect20", seed=episode)
        (data / f"a01_s01_e{episode:02d}_v01.json").write_bytes(nw_ucla_text(body))
    with pytest.raises(
        DataFolderError, match="the joints look like those of the layout kinect20, not of kinect20-sdk"
    ):
        load_action_dataset("nw-ucla-xview", data, cache_dir=tmp_path / "cache")


@pytest.fixture(scope="module")
def two_views(real_data, tmp_path_factory):
    """The recordings of views 1 and 2 in JSON files as published, and the table that describes them."""
    folder = tmp_path_factory.mktemp("all_sqe")
    with open(real_data / "nw_ucla_views12" / "recordings.csv", newline="") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    labels = [entry["action"] for entry in FACTS["classes"]]
    with np.load(real_data / "nw_ucla_views12" / "skeletons.npz") as skeletons:
        for name in table:
            content = {
                "file_name": name,
                "skeletons": skeletons[name].tolist(),
                "label": labels.index(int(name[1:3])) + 1,
            }
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder, table


@pytest.mark.real_data
def test_recordings_of_two_views(two_views, tmp_path):
    data, table = two_views
    builder = NWUCLA(config_name="nw-ucla-view1-view2", data_dir=data, cache_dir=str(tmp_path))
    builder.download_and_prepare()
    report = builder.report
    assert report["recordings"] == report["published"] == {"train": 516, "test": 504} and not report["skipped"]
    kinds = Counter(doubt["kind"] for doubt in report["doubts"])
    assert not {"joint order", "up axis", "units", "mirrored", "published recordings"} & set(kinds), kinds
    for split, view in (("train", 1), ("test", 2)):
        rows = builder.as_dataset(split)
        assert set(rows["view"]) == {view} and set(rows["subject"]) == set(range(1, 11))
        names = rows.features["label"].int2str(rows["label"])
        for name, label, subject, episode in zip(
            rows["sample_id"], names, rows["subject"], rows["episode"], strict=True
        ):
            expected = table[name]
            assert (label, str(subject), str(episode)) == (expected["label"], expected["subject"], expected["episode"])
        held_out = {subject for subject, held_out in zip(rows["subject"], rows["held_out"], strict=True) if held_out}
        assert held_out == ({10} if split == "train" else set())


@pytest.mark.real_data
def test_the_pelvis_rises_where_labels_are_interchanged(two_views, tmp_path):
    splits = load_action_dataset("nw-ucla-view1-view2", two_views[0], cache_dir=tmp_path)
    class_names = splits["train"].features["label"].names
    rises = {}
    for row in (row for part in splits.values() for row in part.with_format("numpy")):
        action = class_names[row["label"]]
        if row["subject"] == 4 and action in ("sit down", "stand up"):
            height = row["keypoints"].reshape(row["shape"])[:, 0, 0, 1]  # joint 0 is the centre of the hips
            rises.setdefault((int(row["view"]), action), []).append(height[-3:].mean() - height[:3].mean())
    assert {key: np.median(values) > 0 for key, values in rises.items()} == {
        (1, "sit down"): False,
        (1, "stand up"): True,
        (2, "sit down"): True,
        (2, "stand up"): False,
    }
    assert all(abs(np.median(values)) > 0.1 for values in rises.values())  # metres


@pytest.mark.real_data
def test_the_training_views_of_the_published_split(two_views, tmp_path):
    splits = load_action_dataset("nw-ucla-xview", two_views[0], cache_dir=tmp_path)
    assert len(splits["train"]) == 1020 and "test" not in splits
