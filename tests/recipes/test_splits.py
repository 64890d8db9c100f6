"""The repository of a benchmark: names of recordings in the splits of protocols, an `eval.yaml`, and a card."""

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard

from action_llm_recipes.hub import splits


@pytest.fixture
def recordings(tmp_path):
    """Empty files with the names of the 861 recordings of UTD-MHAD: splits are made of names."""
    folder = tmp_path / "utd"
    folder.mkdir()
    # Three of 27 x 8 x 4 were not recorded.
    missing = {(8, 1, 4), (23, 6, 4), (27, 8, 4)}
    for action, subject, trial in np.ndindex(27, 8, 4):
        if (action + 1, subject + 1, trial + 1) not in missing:
            (folder / f"a{action + 1}_s{subject + 1}_t{trial + 1}_skeleton.mat").touch()
    return folder


def write(protocols: list[str], folders, output):
    return splits.main(splits.SplitsArguments(protocols, list(map(str, folders)), str(output)))


def test_a_repository_has_names_and_nothing_of_the_recordings(recordings, tmp_path):
    folder = write(["utd-mhad", "utd-mhad-unseen-0"], [recordings] * 2, tmp_path / "repository")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == [
        "README.md",
        "eval.yaml",
        "utd-mhad-unseen-0-seen/train.parquet",
        "utd-mhad-unseen-0-unseen/test.parquet",
        "utd-mhad/test.parquet",
        "utd-mhad/train.parquet",
    ]
    # As the Hub reads it: by the configs of the card.
    loaded = load_dataset(str(folder), "utd-mhad", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == {"train": 431, "test": 430}
    assert loaded["test"].column_names == ["sample_id", "label", "held_out"]
    row = loaded["train"][0]
    assert row["sample_id"] == "a10_s1_t1"
    assert loaded["train"].features["label"].int2str(row["label"]) == "draw circle (counter clockwise)"
    assert {row["sample_id"].split("_")[1] for row in loaded["train"] if row["held_out"]} == {"s7"}

    task, unseen = yaml.safe_load((folder / "eval.yaml").read_text())["tasks"]
    assert task == {"id": "utd-mhad", "config": "utd-mhad", "split": "test"}
    assert unseen == {"id": "utd-mhad-unseen-0", "config": "utd-mhad-unseen-0-unseen", "split": "test"}
    card = DatasetCard((folder / "README.md").read_text())
    assert "skeleton-based-action-recognition" in card.data.tags and card.data.task_categories == [
        "video-classification"
    ]
    assert "| utd-mhad | test | 430 | 27 |" in card.content and "| utd-mhad | top-1 accuracy |" in card.content
    assert str(tmp_path) not in card.content


def test_what_is_not_a_benchmark_is_refused(recordings, tmp_path):
    next(recordings.glob("a1_s2*")).unlink()
    with pytest.raises(splits.SplitsError, match=r"expected the 430 recordings .*\(test\), found 429"):
        write(["utd-mhad"], [recordings], tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    for private in ("folder", "simulated-xsub", "utd-mhad-video"):
        with pytest.raises(ValueError, match=f"expected protocols of published skeletons, found {private}"):
            splits.SplitsArguments([private], ["x"], "y")
    with pytest.raises(ValueError, match="found 1 folders for 2 protocols"):
        splits.SplitsArguments(["utd-mhad", "nw-ucla-xview"], ["x"], "y")
