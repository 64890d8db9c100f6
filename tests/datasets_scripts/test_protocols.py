"""Splits of NTU RGB+D by file name, compared with published and computed counts."""

import gzip
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from action_llm_datasets.protocols import (
    NTU_PROTOCOLS,
    NotInProtocolError,
    NTUName,
    ntu_class_names,
    ntu_missing_skeletons,
    parse_ntu_name,
)
from action_llm_datasets.unseen_classes import unseen_classes
from action_llm_datasets.utd_mhad import FACTS

# Counts without the missing skeletons, from papers and from lists of names.
PUBLISHED = {
    "ntu60-xsub": {"train": 40091, "test": 16487},
    "ntu60-xview": {"train": 37646, "test": 18932},
    "ntu120-xsub": {"train": 63026, "test": 50919},
    "ntu120-xset": {"train": 54468, "test": 59477},
    "ntu120-one-shot": {"train": 95001, "exemplars": 20, "test": 18924},
}
REAL = [name for name, protocol in NTU_PROTOCOLS.items() if protocol.dataset != "simulated"]


@pytest.fixture(scope="module")
def available(real_data):
    with gzip.open(real_data / "ntu_rgbd/available_names.txt.gz", "rt") as file:
        return [parse_ntu_name(line.strip()) for line in file if line.strip()]


def placed(protocol, names):
    """(name, placement) of each name that the protocol uses."""
    placements = []
    for name in names:
        try:
            placements.append((name, protocol.place(name)))
        except NotInProtocolError:
            continue
    return placements


@given(st.tuples(*[st.integers(0, 999)] * 5))
def test_names_are_parsed_in_any_case(numbers):
    name = NTUName(*numbers)
    assert parse_ntu_name(str(name)) == parse_ntu_name(str(name).lower()) == name


@pytest.mark.parametrize(
    "stem",
    ["", "S001C001P001R001", "S1C1P1R1A1", "S001C001P001R001A001_rgb", "XS001C001P001R001A001", "a1_s1_t1_skeleton"],
)
def test_other_names_are_refused(stem):
    with pytest.raises(NotInProtocolError, match="expected SsssCcccPpppRrrrAaaa") as error:
        parse_ntu_name(stem)
    assert error.value.kind == "name"


def test_facts_match_published_numbers():
    assert len(ntu_class_names()) == 120 == len(set(ntu_class_names()))
    assert ntu_class_names()[0] == "drink water" and ntu_class_names()[119].startswith("finger-guessing game")
    missing = {parse_ntu_name(name) for name in ntu_missing_skeletons()}
    assert len(missing) == 535 and sum(name.action <= 60 for name in missing) == 302
    for name, counts in PUBLISHED.items():
        assert NTU_PROTOCOLS[name].counts["clean"] == counts
    assert len(NTU_PROTOCOLS["ntu60-xsub"].train) == 20 and len(NTU_PROTOCOLS["ntu120-xsub"].train) == 53
    assert len(FACTS["classes"]) == 27 == len({entry["name"] for entry in FACTS["classes"]})
    assert not set(FACTS["train_subjects"]) & set(FACTS["test_subjects"])


@pytest.mark.parametrize("name", REAL)
def test_counts_of_the_official_names(available, name):
    protocol = NTU_PROTOCOLS[name]
    placements = placed(protocol, available)
    counts = {split: sum(placement.split == split for _, placement in placements) for split in protocol.splits}
    assert counts == protocol.counts["clean"]

    # Splits are disjoint by recording, and by the deciding field or by class.
    by_split = {
        split: [entry for entry, placement in placements if placement.split == split] for split in protocol.splits
    }
    assert sum(map(len, by_split.values())) == len({entry for entry, _ in placements})
    train, test = by_split["train"], by_split["test"]
    if protocol.split_by is not None:
        train_values, test_values = ({getattr(entry, protocol.split_by) for entry in part} for part in (train, test))
        assert not train_values & test_values
    if protocol.has_unseen_classes:
        assert not {entry.action for entry in train} & {entry.action for entry in test}
        assert not set(protocol.class_names("train")) & set(protocol.class_names("test"))
    else:
        assert {entry.action for entry in train} == {entry.action for entry in test} == set(protocol.train_actions)

    # Held-out recordings are training recordings, about an eighth of them.
    held_out = [entry for entry, placement in placements if placement.held_out]
    assert {entry.performer for entry in held_out} == protocol.held_out
    assert 0.10 < len(held_out) / len(train) < 0.15
    assert not any(placement.held_out for _, placement in placements if placement.split != "train")
    if protocol.split_by == "performer":
        assert protocol.held_out < protocol.train


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "ntu120-one-shot"])
def test_full_counts_include_the_missing_recordings(available, name):
    protocol = NTU_PROTOCOLS[name]
    everything = [*available, *map(parse_ntu_name, ntu_missing_skeletons())]
    splits = [placement.split for _, placement in placed(protocol, everything)]
    assert {split: splits.count(split) for split in protocol.splits} == protocol.counts["full"]


def test_labels_are_positions_in_the_class_names():
    for protocol in NTU_PROTOCOLS.values():
        limit = 60 if protocol.dataset != "ntu120" else 120
        for setup, camera, performer, action in product((1, 2, 17), (1, 2), (1, 2, 3), range(1, limit + 1)):
            for name, placement in placed(protocol, [NTUName(setup, camera, performer, 1, action)]):
                split_names = protocol.class_names(placement.split)
                assert split_names[placement.label] == ntu_class_names()[name.action - 1]


@pytest.mark.parametrize(
    ("protocol", "name", "category", "message"),
    [
        ("ntu60-xsub", "S018C001P008R001A061", "action", "action A061 is not in NTU RGB.D 60, expected A001 to A060"),
        ("ntu60-xsub", "S001C001P041R001A001", "performer", "performer P041"),
        ("ntu60-xview", "S001C004P001R001A001", "camera", "camera C004"),
        ("ntu120-xset", "S033C001P001R001A001", "setup", "setup S033"),
        ("ntu60-xsub", "S000C001P001R001A001", "setup", "setup S000"),
        ("ntu60-zero-shot-55-5", "S001C001P003R001A001", "unused", "does not use seen classes of performer 3"),
        ("ntu60-zero-shot-55-5", "S001C001P001R001A011", "unused", "does not use unseen classes of performer 1"),
    ],
)
def test_reasons_for_recordings_outside_a_protocol(protocol, name, category, message):
    with pytest.raises(NotInProtocolError, match=message) as error:
        NTU_PROTOCOLS[protocol].place(parse_ntu_name(name))
    assert error.value.kind == category


def test_one_exemplar_of_each_novel_class():
    protocol = NTU_PROTOCOLS["ntu120-one-shot"]
    exemplars = [protocol.place(parse_ntu_name(name)) for name in protocol.exemplars]
    assert sorted(placement.label for placement in exemplars) == list(range(20))
    assert {placement.split for placement in exemplars} == {"exemplars"}
    assert not protocol.exemplars & ntu_missing_skeletons()
    assert protocol.test_actions == tuple(range(1, 121, 6))


def test_unseen_draws_are_five_times_three_classes():
    draws = [NTU_PROTOCOLS[f"ntu120-unseen-{draw}"].test_actions for draw in range(5)]
    assert all(len(set(draw)) == 3 for draw in draws) and len(set(draws)) == 5
    for draw in range(5):
        protocol = NTU_PROTOCOLS[f"ntu120-unseen-{draw}"]
        assert len(protocol.train_actions) == 117 and not set(protocol.train_actions) & set(protocol.test_actions)


def test_unseen_draws_of_utd_mhad():
    """The draws are those of NumPy's generator; together with the subjects they give the counts of 861 file names."""
    drawn = np.random.default_rng(0).permutation(27)[:15].reshape(5, 3) + 1
    for draw, actions in enumerate(np.sort(drawn).tolist()):
        facts = FACTS["unseen"][f"utd-mhad-unseen-{draw}"]
        assert facts["actions"] == actions
        # Each of three classes has four recordings of each of four subjects; a test recording of the squat is missing.
        assert facts["counts"] == {"train": 383, "test": 48 - (27 in actions)}
        assert list(unseen_classes(f"utd-mhad-unseen-{draw}")) == [FACTS["classes"][a - 1]["name"] for a in actions]
    assert unseen_classes("utd-mhad-unseen-0")["catch"] == "right hand catch an object"
    assert unseen_classes("simulated-unseen") == {
        name: name for name in NTU_PROTOCOLS["simulated-unseen"].class_names("test")
    }
    permutation = np.random.default_rng(0).permutation(27) + 1
    for unseen in (5, 10, 14):
        facts = FACTS["unseen"][f"utd-mhad-zero-shot-{27 - unseen}-{unseen}"]
        assert facts["actions"] == sorted(permutation[:unseen].tolist())
        # A training recording of a seen class (draw x) is missing as well.
        assert facts["counts"] == {"train": 16 * (27 - unseen) - 1, "test": 16 * unseen - 1}
    with pytest.raises(ValueError, match="no protocol 'utd-mhad' with unseen classes: choose from ntu120-one-shot, "):
        unseen_classes("utd-mhad")
