"""UAV-Human: names, classes and splits, and the builder on synthetic recordings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skeleton_people import uav_human_text

from action_llm.skeleton_files import read_skeleton
from action_llm_datasets.building import DataFolderError
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.protocols import NotInProtocolError
from action_llm_datasets.uav_human import (
    FACTS,
    UAVHuman,
    UAVHumanName,
    parse_uav_human_name,
    place_uav_human,
)

EXAMPLE = "P070S01G10B00H10UC102000LC092000A031R0_09131758"
PROTOCOLS = ("uav-human-csv1", "uav-human-csv2")


@given(st.tuples(*(st.integers(0, 10**digits - 1) for digits in (3, 2, 2, 2, 2, 6, 6, 3, 1, 8))))
def test_names_are_parsed_in_any_case(numbers):
    name = UAVHumanName(*numbers)
    assert parse_uav_human_name(str(name)) == parse_uav_human_name(str(name).lower()) == name


def test_the_example_of_the_data_set():
    name = parse_uav_human_name(EXAMPLE)
    assert name == (70, 1, 10, 0, 10, 102000, 92000, 31, 0, 9131758) and str(name) == EXAMPLE


@pytest.mark.parametrize(
    "stem", ["", "0000", EXAMPLE.replace("R0", "R00"), EXAMPLE[:-1], EXAMPLE + "_rgb", "S001C001P001R001A001"]
)
def test_other_names_are_refused(stem):
    with pytest.raises(NotInProtocolError, match="R with one digit") as error:
        parse_uav_human_name(stem)
    assert error.value.kind == "name"


def test_facts_match_published_numbers():
    classes = FACTS["classes"]
    assert [entry["action"] for entry in classes] == list(range(155))
    assert len({entry["name"] for entry in classes}) == 155
    corrected = {entry["action"]: (entry["official"], entry["name"]) for entry in classes if "official" in entry}
    assert sorted(corrected) == [43, 87, 93, 131] and corrected[43] == ("figure snap", "finger snap")
    two_person = [entry["action"] for entry in classes if entry.get("two_person")]
    assert two_person == [*range(74, 99), *range(130, 136), 146, 148]
    totals = set()
    for protocol in PROTOCOLS:
        rule = FACTS["protocols"][protocol]
        assert (len(rule["train"]), len(rule["test"])) == (89, 30)
        assert sorted(rule["train"] + rule["test"]) == list(range(FACTS["persons"])) == list(range(119))
        assert set(rule["held_out_persons"]) < set(rule["train"]) and len(rule["held_out_persons"]) == 9
        totals.add(sum(rule["counts"].values()))
    assert totals == {23_031}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_person_has_one_split(protocol):
    rule, example = FACTS["protocols"][protocol], parse_uav_human_name(EXAMPLE)
    for person in range(119):
        placement = place_uav_human(protocol, example._replace(person=person, action=person + 36))
        assert person in rule[placement.split] and placement.label == person + 36
        assert placement.held_out == (person in rule["held_out_persons"])
        assert not (placement.held_out and placement.split == "test")


@pytest.mark.parametrize(("field", "value"), [("person", 119), ("setup", 55), ("action", 155)])
def test_numbers_outside_the_data_set(field, value):
    name = parse_uav_human_name(EXAMPLE)._replace(**{field: value})
    with pytest.raises(NotInProtocolError, match=f"{field} {value} of P.* expected 0 to {value - 1}") as error:
        place_uav_human("uav-human-csv1", name)
    assert error.value.kind == field
    place_uav_human("uav-human-csv1", name._replace(**{field: 0}))  # ids count from 0


def write(folder, text, **numbers):
    folder.mkdir(exist_ok=True)
    path = folder / f"{parse_uav_human_name(EXAMPLE)._replace(**numbers)}.txt"
    path.write_text(text)
    return path


def test_rows_are_the_recordings(tmp_path):
    data = tmp_path / "Skeleton"
    longest = write(data, uav_human_text([1] * 303 + [2, 2]), person=0, action=0, replicate=2)
    write(data, uav_human_text([0, 1]), person=8, action=154)
    write(data, uav_human_text([1]), person=1, action=87)
    splits = load_action_dataset("uav-human-csv1", data, cache_dir=tmp_path / "cache", accept_doubts=True)
    train, test = splits["train"], splits["test"]
    assert (train["person"], train["label"], train["held_out"]) == ([0, 8], [0, 154], [False, True])
    assert test["person"] == [1] and test["action"] == [87]
    assert test.features["label"].int2str(87) == "threaten someone with a knife"
    row, recording = train[0], read_skeleton(longest, layout="coco17")
    assert row["sample_id"] == longest.stem and row["shape"] == [305, 2, 17, 3] and row["body_ids"] == [0, 1]
    keypoints = np.array(row["keypoints"], np.float32).reshape(row["shape"])
    np.testing.assert_array_equal(keypoints, recording.keypoints)
    assert (row["layout"], row["fps"], row["replicate"], row["timestamp"]) == ("coco17", 30.0, 2, 9131758)
    assert (row["gender"], row["upper"]) == (10, 102000)


def test_unusable_files_are_skipped_and_listed(tmp_path):
    data = tmp_path / "Skeleton"
    write(data, uav_human_text([1, 1]), person=5)
    write(data, uav_human_text([1], joints=25), person=6)
    write(data, uav_human_text([0, 0]), person=7)
    write(data, uav_human_text([1]), person=119)
    (data / "readme.txt").write_text("how to cite")
    (data / "0000.txt").write_text(uav_human_text([1]))
    builder = UAVHuman(
        config_name="uav-human-csv2", data_dir=data, cache_dir=str(tmp_path / "cache"), accept_doubts=True
    )
    builder.download_and_prepare()
    assert builder.report["recordings"]["train"] == 1
    assert builder.report["published"] == {"train": 16432, "test": 6599}
    assert builder.report["skipped"] == {"unreadable": 1, "no body": 1, "person": 1, "name": 2}
    reasons = " ".join(entry["reason"] for entry in builder.report["files"])
    assert "found 25 joints, expected 17 joints" in reasons and "person 119" in reasons and "'0000'" in reasons
    (data / "other").mkdir()
    with pytest.raises(DataFolderError, match=r"holds no \.txt file in any of its 1 folders; found nothing"):
        UAVHuman(config_name="uav-human-csv1", data_dir=data / "other")
