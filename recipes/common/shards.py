"""Datasets as Parquet shards. A shard is written whole or not at all, so a resumed run writes only those that are missing."""

import json
import logging
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, load_dataset

from action_llm.model_files import shortened
from action_llm_datasets.atomic_files import write_atomically, written_whole
from action_llm_datasets.endings import disk_errno
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.written_folders import check_written_folder

logger = logging.getLogger(__name__)


RECORDINGS_PER_SHARD = 1024


class SplitShards:
    """
    The shards of a split. Processes and tasks write them in turn, with lists of notes beside each shard.

    ```
    FOLDER/SPLIT/00000-of-00003.parquet          the rows
    FOLDER/SPLIT/00000-of-00003.skipped.json     a list of notes, here of recordings that were skipped
    ```

    Args:
        folder: of the dataset.
        split: name of the split.
        num_rows: number of source rows of the split.
        size: number of source rows per shard, by default `RECORDINGS_PER_SHARD`.
        before: number of shards of other splits that are dealt out to the shares before.

    Attributes:
        rows (`dict[Path, range]`): path of each shard → its source rows.
    """

    def __init__(self, folder: Path, split: str, num_rows: int, size: int | None = None, before: int = 0):
        self.split, self.before = split, before
        size = RECORDINGS_PER_SHARD if size is None else size
        count = -(-num_rows // size)
        self.rows = {
            folder / split / f"{index:05d}-of-{count:05d}.parquet": range(
                index * size, min((index + 1) * size, num_rows)
            )
            for index in range(count)
        }

    @property
    def paths(self) -> list[Path]:
        return list(self.rows)

    def of_share(self, share: int = 0, shares: int = 1) -> list[Path]:
        """The shards of a share, of a process or a task: every `shares`-th of all splits."""
        return self.paths[(share - self.before) % shares :: shares]

    def missing(self, share: int = 0, shares: int = 1) -> dict[Path, range]:
        """The shards of a share that are yet to be written → their source rows."""
        return {path: self.rows[path] for path in self.of_share(share, shares) if not is_whole(path)}

    def notes(self, name: str, share: int = 0, shares: int = 1) -> list[dict]:
        """The notes `name` of the shards of a share. Shards of older versions may lack them."""
        files = (path.with_suffix(f".{name}.json") for path in self.of_share(share, shares))
        return [entry for file in files for entry in read_entries(file) or []]


def shards_of_splits(folder: Path, dataset: DatasetDict, size: int | None = None) -> dict[str, SplitShards]:
    """The shards of each split of a dataset, see `SplitShards`."""
    shards, before = {}, 0
    for split, rows in dataset.items():
        shards[split] = SplitShards(folder, split, len(rows), size, before)
        before += len(shards[split].paths)
    return shards


def write_shard(path: Path, columns: dict, features: Features, **notes: list[dict]):
    """
    Writes a shard, whole or not at all. Its notes are written first, so a shard that exists has its notes.

    Args:
        path: of the shard (`SplitShards`).
        columns: name → values.
        features: types of the columns.
        **notes: lists of JSON objects, each written to its own file beside the shard.
    """
    for name, entries in notes.items():
        write_atomically(path.with_suffix(f".{name}.json"), json.dumps(entries))
    with written_whole(path) as unfinished:
        Dataset.from_dict(columns, features=features).to_parquet(str(unfinished))


def is_whole(path: Path) -> bool:
    """Whether a shard and its notes are on disk and can be read. Every shard has notes on skipped recordings."""
    if not path.is_file():
        return False
    problem = shard_damage(path)
    notes = {path.with_suffix(".skipped.json"), *path.parent.glob(f"{path.stem}.*.json")}
    if problem is None and any(read_entries(note) is None for note in notes):
        problem = "its notes cannot be read"
    if problem is not None:
        logger.warning("%s is damaged (%s) and is written again", path, problem)
    return problem is None


def shard_damage(path: Path) -> str | None:
    """What is wrong with a Parquet file, or None. Only its footer is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def read_entries(path: Path) -> list[dict] | None:
    """The notes in a JSON file beside a shard, or None if the file is missing or damaged."""
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return entries if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries) else None


def load_shards(folder: Path, recipe: str) -> DatasetDict:
    """
    Loads the splits that a recipe wrote.

    Args:
        folder: that the recipe wrote to.
        recipe: its file name, for errors.

    Raises:
        FileNotFoundError: if the folder does not exist, or the recipe has not finished.
        ValueError: if a shard or the record is damaged.
    """
    check_written_folder(folder, recipe)
    splits = read_written(folder, "record.json", recipe, "splits")["splits"]
    way_on = f"delete it, and run {recipe} again with --output_dir {folder}."
    dataset = DatasetDict()
    for split in splits:
        paths = sorted((folder / split).glob("[0-9]*.parquet"))
        if not paths:
            raise ValueError(f"{folder / split} has no shards: run {recipe} again with --output_dir {folder}.")
        for path in paths:
            if (damage := shard_damage(path)) is not None:
                raise ValueError(f"{path} is damaged ({damage}): {way_on}")
        try:
            dataset[split] = load_dataset(
                "parquet", data_files=list(map(str, paths)), split="train", cache_dir=str(folder / ".cache")
            )
        except Exception as error:  # datasets raises almost any error for a damaged schema
            if disk_errno(error):
                raise
            cause = error.__cause__ or error
            raise ValueError(
                f"a shard in {folder / split} is damaged ({' '.join(str(cause).split())}): {way_on}"
            ) from error
    return dataset


def check_columns(folder: Path, splits: DatasetDict, columns: Features, recipe: str) -> None:
    """
    Checks the columns of a dataset that a recipe wrote.

    Args:
        folder, splits: of the dataset.
        columns: that the recipe writes. The width of numbers and the names of classes may differ.
        recipe: its file name, for errors.

    Raises:
        ValueError: if a column is missing, has another type or null values, or holds labels without a class.
    """
    for split, rows in splits.items():
        for name, expected in columns.items():
            actual = rows.features.get(name)
            if actual is None:
                problem = f"has no column {name}"
            elif value_type(actual) != value_type(expected):
                problem = f"has a column {name} of the type {actual}, expected {expected}"
            elif rows.data.column(name).null_count:
                problem = f"has rows without {name}"
            elif isinstance(actual, ClassLabel) and not all(isinstance(label, str) for label in actual.names):
                problem = f"has class names in {name} that are not strings"
            elif isinstance(actual, ClassLabel) and not set(rows[name]) <= set(range(len(actual.names))):
                problem = f"has a {name} outside its {len(actual.names)} classes"
            else:
                continue
            raise ValueError(f"{folder / split} {shortened(problem, 400)}: delete {folder}, and run {recipe} again.")


def value_type(column) -> tuple:
    """The type of the values in a column, without their width: class, string, int, float or bool, or lists of these."""
    if isinstance(column, List):
        inner = value_type(column.feature)
        return inner if inner[0] == "list" else ("list", *inner)  # words of several tokens are lists of lists
    if isinstance(column, ClassLabel):
        return ("class",)
    return (getattr(column, "dtype", "?").rstrip("0123456789"),)
