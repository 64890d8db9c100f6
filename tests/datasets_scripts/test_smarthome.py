"""Toyota Smarthome: names, classes and splits compared with the official lists, and the builder on synthetic clips."""

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skeleton_people import smarthome_text

from action_llm.smarthome_files import read_smarthome
from action_llm_datasets.building import DataFolderError
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.protocols import NotInProtocolError
from action_llm_datasets.smarthome import (
    FACTS,
    Smarthome,
    SmarthomeName,
    parse_smarthome_name,
    place_smarthome,
    smarthome_activities,
    smarthome_splits,
)

PROTOCOLS = {"smarthome-cs": "CS", "smarthome-cv1": "CV1", "smarthome-cv2": "CV2"}


@pytest.fixture(scope="module")
def official(real_data):
    """The official lists: {"CS": {"train": [names], "validation": …, "test": …}, …}."""
    folder = real_data / "smarthome/protocol_splits/splits"
    return {
        title: {
            split: [parse_smarthome_name(line[:-4]) for line in (folder / f"{split}_{title}.txt").read_text().split()]
            for split in ("train", "validation", "test")
        }
        for title in PROTOCOLS.values()
    }


@pytest.fixture(scope="module")
def clips(official):
    """All clips, which the lists of CS partition."""
    return [name for names in official["CS"].values() for name in names]


def placed(protocol, names):
    """{name: placement} of the names that the protocol uses."""
    placements = {}
    for name in names:
        try:
            placements[name] = place_smarthome(protocol, name)
        except NotInProtocolError:
            continue
    return placements


@given(st.from_regex(r"[A-Za-z.]+", fullmatch=True), st.tuples(*[st.integers(0, 99)] * 4), st.booleans())
def test_names_are_parsed(activity, numbers, refined):
    name = SmarthomeName(activity, *numbers)
    assert parse_smarthome_name(f"{name}_pose3d" if refined else str(name)) == name


@pytest.mark.parametrize(
    "stem", ["", "Walk", "Walk_p2_r00_v01_c01", "Walk_p002_r00_v01_c01", "Walk_p02_r00_v01_c01_", "Walk_p02_r00_v01"]
)
def test_other_names_are_refused(stem):
    with pytest.raises(NotInProtocolError, match="expected <Activity>_p") as error:
        parse_smarthome_name(stem)
    assert error.value.kind == "name"


def test_classes():
    activities = smarthome_activities()
    assert len(activities) == 31 == len(set(activities)) and list(activities) == sorted(activities)
    cross_view = smarthome_activities(cross_view=True)
    assert len(cross_view) == 19 and list(cross_view) == sorted(set(cross_view) & set(activities))
    assert cross_view[16:18] == ("Usetablet", "Usetelephone") and "WatchTV" not in cross_view
    names = [entry["name"] for entry in FACTS["classes"]]
    assert len(set(names)) == 31
    assert dict(zip(activities, names, strict=True))["Drink.Frombottle"] == "drinking from a bottle"


@pytest.mark.parametrize(
    ("protocol", "stem", "category", "message"),
    [
        ("smarthome-cs", "Pour.Fromcup_p02_r00_v01_c01", "no class", "not one of the 31 classes"),
        ("smarthome-cv1", "Pour.Fromcup_p02_r00_v01_c01", "no class", "not one of the 31 classes"),
        ("smarthome-cs", "Dance_p02_r00_v01_c01", "activity", "activity 'Dance' of Dance_p02"),
        ("smarthome-cs", "walk_p02_r00_v01_c01", "activity", "activity 'walk'"),
        ("smarthome-cs", "Walk_p05_r00_v01_c01", "subject", "subject 5"),
        ("smarthome-cv1", "Walk_p05_r00_v01_c01", "subject", "subject 5"),
        ("smarthome-cv2", "Walk_p02_r00_v01_c08", "camera", "camera 8"),
        ("smarthome-cs", "Walk_p02_r00_v01_c00", "camera", "camera 0"),
        ("smarthome-cv1", "WatchTV_p02_r00_v01_c01", "unused", "smarthome-cv1 does not use WatchTV"),
        ("smarthome-cv1", "Walk_p02_r00_v01_c03", "unused", "smarthome-cv1 does not use camera 3"),
    ],
)
def test_reasons_for_clips_outside_a_protocol(protocol, stem, category, message):
    with pytest.raises(NotInProtocolError, match=message) as error:
        place_smarthome(protocol, parse_smarthome_name(stem))
    assert error.value.kind == category


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_clip_has_one_split(protocol):
    """Labels and splits of all possible names, without the lists."""
    facts, activities = FACTS, smarthome_activities(protocol != "smarthome-cs")
    rule = facts["protocols"][protocol]
    assert smarthome_splits(protocol)[0] == "train" and smarthome_splits(protocol)[-1] == "test"
    values = [value for split in smarthome_splits(protocol) for value in rule[split]]
    assert len(values) == len(set(values)) and set(values) <= set(facts[rule["split_by"] + "s"])
    for activity, subject, camera in product(activities, facts["subjects"], facts["cameras"]):
        for name, placement in placed(protocol, [SmarthomeName(activity, subject, 0, 1, camera)]).items():
            assert activities[placement.label] == activity
            assert getattr(name, rule["split_by"]) in rule[placement.split]
            assert placement.held_out == (placement.split == "train" and subject in (19, 25))


@pytest.mark.real_data
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_splits_match_the_official_lists(official, clips, protocol):
    rule, listed = FACTS["protocols"][protocol], official[PROTOCOLS[protocol]]
    placements = placed(protocol, clips)
    by_split = {
        split: {name for name in placements if placements[name].split == split} for split in smarthome_splits(protocol)
    }
    held_out = {name for name in placements if placements[name].held_out}
    counts = {split: len(names) for split, names in by_split.items()} | {"held_out": len(held_out)}
    assert counts == rule["counts"]

    lists = {split: {name for name in names if name.activity != "Pour.Fromcup"} for split, names in listed.items()}
    if protocol == "smarthome-cs":
        assert held_out == lists["validation"]  # the official validation set, part of train
        lists["train"] |= lists.pop("validation")
        raw = {"train": len(listed["train"] + listed["validation"]), "held_out": len(listed["validation"])}
        assert raw | {"test": len(listed["test"])} == rule["listed"]
    else:
        assert {split: len(names) for split, names in listed.items()} | {"held_out": len(held_out)} == rule["listed"]
        assert not held_out & by_split["validation"]
        assert 0.10 < len(held_out) / len(by_split["train"]) < 0.15
    assert by_split == lists

    # Splits are disjoint by clip, and by the field of the protocol.
    assert sum(map(len, by_split.values())) == len(placements)
    values = [{getattr(name, rule["split_by"]) for name in names} for names in by_split.values()]
    assert sum(map(len, values)) == len(set().union(*values))


@pytest.mark.real_data
def test_counts_of_the_clips(clips):
    assert len(clips) == len(set(clips)) == 16_129
    without = [name for name in clips if name.activity == "Pour.Fromcup"]
    assert len(without) == 14 and len(placed("smarthome-cs", clips)) == 16_115
    assert {name.subject for name in clips} == set(FACTS["subjects"])
    assert {name.camera for name in clips} == set(FACTS["cameras"])


@pytest.mark.real_data
def test_cv2_by_subject_would_train_on_test_clips(official, clips):
    """Widely copied code selects the training clips of CV2 by subject ids, by mistake."""
    activities = smarthome_activities(cross_view=True)
    by_subject = {name for name in clips if name.subject in (1, 3, 4, 6, 7) and name.activity in activities}
    test = set(official["CV2"]["test"])
    assert (len(by_subject), len(by_subject & test)) == (3297, 477)
    placements = placed("smarthome-cv2", clips)
    assert not {name for name in placements if placements[name].split == "train"} & test
    assert {name.camera for name in placements if placements[name].split == "train"} == {1, 3, 4, 6, 7}


@pytest.fixture
def folder(tmp_path):
    """A folder of clips; returns a function that adds a clip."""

    def add(name, content=None):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(smarthome_text((1, 0, 1)) if content is None else content)
        return tmp_path / "data"

    return add


def prepare(config, folder, cache):
    builder = Smarthome(config_name=config, data_dir=folder, cache_dir=str(cache))
    builder.download_and_prepare()
    return builder, builder.as_dataset()


def test_rows_are_the_clips(folder, tmp_path):
    folder("a/Drink.Fromcup_p03_r01_v16_c06_pose3d.json")
    folder("a/WatchTV_p25_r00_v02_c01_pose3d.JSON", smarthome_text((0, 2, 1)))
    data = folder("b/Walk_p02_r53_v27_c02.json")
    splits = load_action_dataset("smarthome-cs", data, cache_dir=tmp_path / "cache")
    train, test = splits["train"], splits["test"]
    assert train["sample_id"] == ["Drink.Fromcup_p03_r01_v16_c06", "WatchTV_p25_r00_v02_c01"]
    assert train["held_out"] == [False, True] and train["label"] == [8, 30] == train["action"]
    assert train.features["label"].int2str(8) == "drinking from a cup" and train.features["label"].num_classes == 31
    row = test[0]
    assert [row[field] for field in ("subject", "take", "session", "camera", "label")] == [2, 53, 27, 2, 29]
    recording = read_smarthome(data / "b/Walk_p02_r53_v27_c02.json")
    keypoints = np.array(row["keypoints"], np.float32).reshape(row["shape"])
    np.testing.assert_array_equal(keypoints, recording.keypoints)
    assert (row["layout"], row["fps"]) == ("lcrnet13", 20.0)
    assert train[1]["shape"] == [3, 2, 13, 3] and train[1]["body_ids"] == [0, 1]


def test_a_validation_split_by_camera(folder, tmp_path):
    for camera, subject in product((1, 2, 3, 5), (19, 20)):
        data = folder(f"Walk_p{subject}_r00_v01_c{camera:02d}.json")
    splits = load_action_dataset("smarthome-cv1", data, cache_dir=tmp_path / "cache")
    assert {split: set(rows["camera"]) for split, rows in splits.items()} == {
        "train": {1}, "validation": {5}, "test": {2},
    }  # fmt: skip
    assert {split: [row["subject"] for row in rows if row["held_out"]] for split, rows in splits.items()} == {
        "train": [19], "validation": [], "test": [],
    }  # fmt: skip
    assert splits["test"][0]["label"] == 18 and splits["test"][0]["action"] == 29


def test_unusable_clips_are_skipped_and_listed(folder, tmp_path):
    folder("Walk_p02_r00_v01_c01.json")
    folder("Walk_p02_r00_v01_c01_pose3d.json")
    folder("Pour.Fromcup_p02_r00_v01_c01.json")
    folder("Dance_p02_r00_v01_c01.json")
    folder("Walk_p05_r00_v01_c01.json")
    folder("Walk_p03_r00_v01_c01.json", smarthome_text((1,))[:-300])
    folder("Walk_p03_r01_v01_c01.json", smarthome_text((0, 0)))
    folder("Walk_p03_r02_v01_c01.json", smarthome_text((1,)).replace(b'"njts": 13', b'"njts": 17'))
    folder("annotation.json", b"{}")
    data = folder(".Walk_p03_r03_v01_c01.json", b"half written")
    builder, splits = prepare("smarthome-cs", data, tmp_path / "cache")
    assert list(splits) == ["test"] and len(splits["test"]) == 1
    assert builder.report["skipped"] == {
        "duplicate": 1, "no class": 1, "activity": 1, "subject": 1, "unreadable": 2, "no body": 1, "name": 1,
    }  # fmt: skip
    assert builder.report["published"] == {"train": 10682, "test": 5433}
    reasons = {entry["file"]: entry["reason"] for entry in builder.report["files"]}
    assert re.search(r"line 1: found .* at character \d+, expected JSON", reasons["Walk_p03_r00_v01_c01.json"])
    assert "found njts 17, expected 13 joints" in reasons["Walk_p03_r02_v01_c01.json"]


def test_folders_of_other_files(folder, tmp_path):
    data = folder("labels.json", b"{}")
    with pytest.raises(DataFolderError, match=r"belongs to smarthome-cs: 1 skipped \{'name': 1\}.*found 'labels'"):
        prepare("smarthome-cs", data, tmp_path / "cache")
    (data / "labels.json").rename(data / "clip.mp4")
    with pytest.raises(DataFolderError, match=r"holds no \.json file .* found 1 \.mp4"):
        prepare("smarthome-cs", data, tmp_path / "cache")


@pytest.mark.parametrize("protocol", ["smarthome-cs", "smarthome-cv1", "smarthome-cv2"])
def test_class_counts_add_up_to_split_counts(protocol, folder):
    builder = Smarthome(config_name=protocol, data_dir=folder("Walk_p02_r00_v01_c01.json"))
    counts = builder.published_class_counts()
    assert {split: sum(classes.values()) for split, classes in counts.items()} == builder.published_counts()
