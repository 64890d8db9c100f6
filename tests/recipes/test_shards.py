"""Datasets as shards: which rows and processes a shard belongs to, what a resumed run writes again, and damaged shards."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from action_llm_recipes.common.shards import (
    SplitShards,
    check_columns,
    load_shards,
    read_entries,
    shard_damage,
    shards_of_splits,
    value_type,
    write_shard,
)

COLUMNS = Features(
    {"sample_id": Value("string"), "label": ClassLabel(names=["a", "b"]), "tokens": List(Value("int16"))}
)


def write(path, numbers, **notes):
    columns = {"sample_id": [f"r{number}" for number in numbers], "label": [number % 2 for number in numbers]}
    write_shard(path, columns | {"tokens": [[number] for number in numbers]}, COLUMNS, **{"skipped": [], **notes})


def write_split(folder, num_rows=5, size=2):
    shards = SplitShards(folder, "train", num_rows, size)
    for path, rows in shards.rows.items():
        write(path, rows)
    (folder / "record.json").write_text(json.dumps({"splits": {"train": {}}}), encoding="utf-8")
    return shards


def load(folder):
    return load_shards(folder, "recipe.py")


def test_shards_cover_the_rows_of_a_split(tmp_path):
    shards = SplitShards(tmp_path, "train", 5, 2)
    assert [path.relative_to(tmp_path).as_posix() for path in shards.paths] == [
        f"train/0000{index}-of-00003.parquet" for index in range(3)
    ]
    assert list(shards.rows.values()) == [range(0, 2), range(2, 4), range(4, 5)]
    assert len(SplitShards(tmp_path, "train", 1025).paths) == 2 and SplitShards(tmp_path, "train", 0).paths == []


def test_processes_share_the_shards(tmp_path):
    shards = SplitShards(tmp_path, "train", 5, 2)
    shares = [list(shards.missing(index, 2)) for index in range(2)]
    assert shares == [[shards.paths[0], shards.paths[2]], [shards.paths[1]]]


def test_the_shards_of_all_splits_are_dealt_out_in_turn(tmp_path):
    dataset = {"train": range(5), "test": range(3)}
    shards = shards_of_splits(tmp_path, dataset, 2)
    shares = [[path for split in shards.values() for path in split.missing(share, 5)] for share in range(5)]
    assert sorted(path for share in shares for path in share) == sorted(shards["train"].paths + shards["test"].paths)
    assert [len(share) for share in shares] == [1] * 5


def test_written_shards_are_loaded_in_the_order_of_their_rows(tmp_path):
    write_split(tmp_path)
    rows = load(tmp_path)["train"]
    assert rows["sample_id"] == [f"r{number}" for number in range(5)] and rows.features == COLUMNS


def test_only_missing_and_damaged_shards_are_written_again(tmp_path, caplog):
    shards = write_split(tmp_path)
    assert shards.missing() == {} and not caplog.messages
    first, second, third = shards.paths
    first.write_bytes(first.read_bytes()[:-10])
    second.unlink()
    third.with_suffix(".skipped.json").write_text("{", encoding="utf-8")
    assert shards.missing() == shards.rows
    assert [message.partition(" is damaged")[0] for message in caplog.messages] == [str(first), str(third)]
    assert "its notes cannot be read" in caplog.text


def test_notes_are_those_of_all_shards(tmp_path):
    shards = SplitShards(tmp_path, "train", 4, 2)
    for path, rows in shards.rows.items():
        write(path, rows, skipped=[{"sample_id": f"x{rows.start}"}])
    assert shards.notes("skipped") == [{"sample_id": "x0"}, {"sample_id": "x2"}]
    assert shards.notes("damaged") == [], "an older version wrote no such notes"


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[" * 5000])
def test_damaged_notes_are_not_read(text, tmp_path):
    (tmp_path / "notes.json").write_text(text, encoding="utf-8")
    assert read_entries(tmp_path / "notes.json") is None
    assert read_entries(tmp_path / "missing.json") is None


def test_a_shard_is_whole_if_its_footer_can_be_read(tmp_path):
    path = write_split(tmp_path).paths[0]
    assert shard_damage(path) is None
    path.write_bytes(b"PAR1 but no table")
    assert shard_damage(path)


def test_an_unfinished_or_damaged_folder_names_the_recipe_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"recipe\.py writes it"):
        load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"run recipe\.py with --output_dir"):
        load(tmp_path)
    shards = write_split(tmp_path)
    shards.paths[0].write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"00000-of-00003\.parquet is damaged \(.*\): delete it, and run recipe\.py again"
    ):
        load(tmp_path)
    for path in shards.paths:
        path.unlink()
    with pytest.raises(ValueError, match=r"train has no shards: run recipe\.py again"):
        load(tmp_path)


def check(folder, changed_columns, changed_values):
    columns = dict(COLUMNS) | changed_columns
    values = {"sample_id": ["r"], "label": [0], "tokens": [[1]]} | changed_values
    rows = Dataset.from_dict(values, features=Features(columns))
    check_columns(folder, {"train": rows}, COLUMNS, "recipe.py")


@pytest.mark.parametrize(
    ("columns", "values", "problem"),
    [
        ({"sample_id": Value("int64")}, {"sample_id": [3]}, "has a column sample_id of the type .*int64.*, expected"),
        ({"tokens": List(Value("float32"))}, {"tokens": [[1.0]]}, "has a column tokens of the type"),
        ({}, {"sample_id": [None]}, "has rows without sample_id"),
    ],
)
def test_columns_of_another_type_are_refused(columns, values, problem, tmp_path):
    with pytest.raises(ValueError, match=rf"train {problem}.*: delete .*, and run recipe\.py again"):
        check(tmp_path, columns, values)


def test_a_missing_column_is_refused(tmp_path):
    rows = Dataset.from_dict({"sample_id": ["r"]})
    with pytest.raises(ValueError, match="train has no column label"):
        check_columns(tmp_path, {"train": rows}, COLUMNS, "recipe.py")


def test_widths_and_class_names_may_differ(tmp_path):
    check(tmp_path, {"label": ClassLabel(names=["other"]), "tokens": List(Value("int64"))}, {})
    check(tmp_path, {"tokens": List(List(Value("int16")))}, {"tokens": [[[1, 2]]]})


def test_types_of_values_are_compared_without_their_width():
    assert value_type(Value("int16")) == value_type(Value("int64")) == ("int",)
    assert value_type(ClassLabel(names=["a"])) == ("class",) != value_type(Value("int64"))
    assert value_type(List(Value("float32"))) == ("list", "float")
    assert value_type(List(List(Value("int16"), length=2))) == value_type(List(Value("int32"))) == ("list", "int")
