"""SBU Kinect Interaction: paths, folds, archives, and the builder on made-up files. No recording of it is at hand."""

import zipfile

import numpy as np
import pytest
from skeleton_people import person, sbu_text

from action_llm_datasets.building import DataFolderError
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.protocols import NotInProtocolError
from action_llm_datasets.sbu import FACTS, SBU

PAIRS = [pair for pairs in FACTS["folds"].values() for pair in pairs]


def pair_of(seed=0):
    bodies = [
        person(12, "sbu15", seed=2 * seed + k, yaw=90 - 180 * k, place=(0.6 - 1.2 * k, 0.1, 2.4)) for k in (0, 1)
    ]
    return np.stack(bodies, axis=1)


def write(folder, *places, seed=0):
    for number, place in enumerate(places):
        path = folder / place / "skeleton_pos.txt"
        path.parent.mkdir(parents=True)
        path.write_text(sbu_text(pair_of(seed + number)))
        (path.parent / "rgb_000566.png").write_bytes(b"")
    return folder


def builder_of(protocol, tmp_path, **settings):
    return SBU(config_name=protocol, data_dir=tmp_path, cache_dir=str(tmp_path / "cache"), hash="x", **settings)


def test_folds_of_the_authors():
    assert sorted(PAIRS) == FACTS["sets"] and len(set(PAIRS)) == 21
    assert [len(pairs) for pairs in FACTS["folds"].values()] == [4, 4, 4, 4, 5]
    assert {int(pair[1:3]) for pair in PAIRS} | {int(pair[4:]) for pair in PAIRS} == set(range(1, 8))
    # The README numbers the sets: Fold 1 - Set# 01, 09, 15, 19, and so on.
    folds = [[FACTS["sets"].index(pair) + 1 for pair in pairs] for pairs in FACTS["folds"].values()]
    assert folds == [[1, 9, 15, 19], [5, 7, 10, 16], [2, 3, 20, 21], [4, 6, 8, 11], [12, 13, 14, 17, 18]]


def test_every_pair_is_tested_once(tmp_path):
    tested = []
    for fold, protocol in enumerate(FACTS["folds"]):
        builder = builder_of(protocol, tmp_path)
        held_out = set()
        for pair in PAIRS:
            sample_id, placement, fields = builder.place(f"SBU/x/{pair}/08/002/skeleton_pos.txt")
            assert (sample_id, placement.label) == (f"{pair}_08_002", 7)
            assert fields == {
                "set": FACTS["sets"].index(pair) + 1,
                "first_subject": int(pair[1:3]),
                "second_subject": int(pair[4:]),
                "sequence": 2,
                "action": 8,
            }
            if placement.split == "test":
                assert pair in FACTS["folds"][f"sbu-fold-{fold}"] and not placement.held_out
                tested.append(pair)
            elif placement.held_out:
                held_out.add(pair)
        assert held_out == set(FACTS["folds"][f"sbu-fold-{(fold + 1) % 5}"])
    assert sorted(tested) == sorted(PAIRS)


def test_held_out_folds(tmp_path):
    builder = builder_of("sbu-fold-2", tmp_path, held_out_fold=0)
    assert builder.place("s01s02/01/001/skeleton_pos.txt")[1].held_out
    assert not builder.place("s02s01/01/001/skeleton_pos.txt")[1].held_out
    with pytest.raises(ValueError, match=r"held_out_fold must be one of \[0, 1, 3, 4\]; got 2"):
        builder_of("sbu-fold-2", tmp_path, held_out_fold=2)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("skeleton_pos.txt", "name"),
        ("01/001/skeleton_pos.txt", "name"),
        ("s01s02_noisy/01/001/skeleton_pos.txt", "name"),
        ("s01s02/01/001/more/skeleton_pos.txt", "name"),
        ("xs01s02/01/001/skeleton_pos.txt", "name"),
        ("s01s04/01/001/skeleton_pos.txt", "pair"),
        ("s01s02/00/001/skeleton_pos.txt", "action"),
        ("s01s02/09/001/skeleton_pos.txt", "action"),
    ],
)
def test_other_paths_are_refused(path, kind, tmp_path):
    with pytest.raises(NotInProtocolError) as error:
        builder_of("sbu-fold-0", tmp_path).place(path)
    assert error.value.kind == kind and path in error.value.detail


def test_rows_are_the_recordings(tmp_path):
    data = write(tmp_path / "clean", "s01s02/01/001", "s01s02/01/002", "s02s03/05/001", "s07s03/06/001")
    splits = load_action_dataset("sbu-fold-0", data, cache_dir=tmp_path / "cache")
    train, test = splits["train"], splits["test"]
    assert test["sample_id"] == ["s01s02_01_001", "s01s02_01_002"] and test["set"] == [1, 1]
    assert train["sample_id"] == ["s02s03_05_001", "s07s03_06_001"] and train["held_out"] == [True, False]
    assert train.features["label"].int2str(train["label"]) == ["shaking hands", "hugging"]
    row = train[1]
    keypoints = np.array(row["keypoints"], np.float32).reshape(row["shape"])
    np.testing.assert_allclose(keypoints, pair_of(3), atol=1e-6)
    assert (row["layout"], row["fps"], row["first_subject"], row["second_subject"]) == ("sbu15", 15.0, 7, 3)


def test_archives_and_what_is_unpacked_of_them(tmp_path):
    """All files have the same name, so the folders tell which members of an archive are unpacked."""
    data = write(tmp_path / "clean", "s01s02/01/001", "s02s03/05/001")
    with zipfile.ZipFile(data / "s01s02.zip", "w") as archive:
        for place in ("s01s02/01/001", "s01s02/01/002"):
            archive.writestr(f"{place}/skeleton_pos.txt", sbu_text(pair_of(5)))
            archive.writestr(f"__MACOSX/{place}/._skeleton_pos.txt", "resource fork")
    builder = SBU(config_name="sbu-fold-0", data_dir=data, cache_dir=str(tmp_path / "cache"))
    paths, skipped = builder.assign()
    assert paths["test"] == ["s01s02.zip/s01s02/01/002/skeleton_pos.txt", "s01s02/01/001/skeleton_pos.txt"]
    assert not skipped
    builder.download_and_prepare()
    assert builder.report["recordings"] == {"train": 1, "test": 2}
    # The same recording in two folders is skipped and listed.
    write(tmp_path / "clean" / "copy", "s01s02/01/001", seed=9)
    builder = SBU(config_name="sbu-fold-0", data_dir=data, cache_dir=str(tmp_path / "cache"))
    (skipped,) = builder.assign()[1]
    assert skipped["kind"] == "duplicate"


def test_unusable_files_are_skipped_and_listed(tmp_path):
    data = write(tmp_path / "clean", "s01s02/01/001", "s02s03/01/001", "s01s04/01/001")
    for place, text in (("s02s03/02/001", "1,2,3\n"), ("s02s03/03/001", ",".join(["7"] + ["0"] * 90))):
        (data / place).mkdir(parents=True)
        (data / place / "skeleton_pos.txt").write_text(text)
    builder = SBU(config_name="sbu-fold-0", data_dir=data, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert builder.report["recordings"] == {"train": 1, "test": 1} and builder.report["published"] == {"in all": 282}
    assert builder.report["skipped"] == {"pair": 1, "unreadable": 1, "no body": 1}
    assert "s02s03/02/001/skeleton_pos.txt, line 1: found 3 columns, expected 91 columns" in str(
        builder.report["files"]
    )
    assert "278 of 282 published recordings are not in the folder" in str(builder.report["doubts"])
    with pytest.raises(DataFolderError, match=r"expected s<subject>s<subject>/<action>/<sequence>/skeleton_pos\.txt"):
        load_action_dataset("sbu-fold-0", data / "s01s02" / "01", cache_dir=tmp_path)
