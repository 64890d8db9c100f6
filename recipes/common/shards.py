"""Datasets on disk as Parquet shards, written whole or not at all: a resumed run writes those that are missing."""

import json
import logging
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, load_dataset

from action_llm.model_files import shortened
from action_llm_datasets.atomic_files import write_atomically, written_whole
from action_llm_datasets.endings import disks_error
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.written_folders import check_written_folder

logger = logging.getLogger(__name__)


RECORDINGS_PER_SHARD = 1024


class SplitShards:
    """
    The shards of one split, each written by the process whose turn it is, with lists of notes beside it.

    ```
    FOLDER/SPLIT/00000-of-00003.parquet          some rows
    FOLDER/SPLIT/00000-of-00003.skipped.json     a list about them, written before the rows
    ```

    Args:
        folder: of the dataset.
        split: its name.
        num_rows: how many rows of the source the split has.
        size: rows of the source per shard.
    """

    def __init__(self, folder: Path, split: str, num_rows: int, size: int | None = None):
        self.split = split
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

    def missing(self, process_index: int = 0, num_processes: int = 1) -> dict[Path, range]:
        """The shards of a process that are not whole yet, and which rows of the source they are made of."""
        return {path: self.rows[path] for path in self.paths[process_index::num_processes] if not is_whole(path)}

    def notes(self, name: str) -> list[dict]:
        """The notes of all shards; older versions wrote no list of damaged frames."""
        return [entry for path in self.paths for entry in read_entries(path.with_suffix(f".{name}.json")) or []]


def write_shard(path: Path, columns: dict, features: Features, **notes: list[dict]):
    """Writes one shard, whole or not at all, after the notes on it, so that a whole shard has its notes."""
    for name, entries in notes.items():
        write_atomically(path.with_suffix(f".{name}.json"), json.dumps(entries))
    with written_whole(path) as unfinished:
        Dataset.from_dict(columns, features=features).to_parquet(str(unfinished))


def is_whole(path: Path) -> bool:
    """Whether the footer of a shard and all notes on it can be read; what was skipped is always noted."""
    if not path.is_file():
        return False
    problem = shard_damage(path)
    notes = {path.with_suffix(".skipped.json"), *path.parent.glob(f"{path.stem}.*.json")}
    if problem is None and any(read_entries(note) is None for note in notes):
        problem = "what was skipped is not known"
    if problem is not None:
        logger.warning("%s is damaged (%s): it is made again", path, problem)
    return problem is None


def shard_damage(path: Path) -> str | None:
    """What is wrong with a Parquet file, as far as its end tells; None where nothing is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def read_entries(path: Path) -> list[dict] | None:
    """The objects of a list that was written beside a shard; None where the file is missing or damaged."""
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return entries if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries) else None


def load_shards(folder: Path, recipe: str) -> DatasetDict:
    """The splits that a recipe wrote.

    Raises:
        `FileNotFoundError`: it did not, or was not finished.
        `ValueError`: a shard, or the record, is damaged.
    """
    check_written_folder(folder, recipe)
    splits = read_written(folder, "record.json", recipe, "splits")["splits"]
    way_on = f"delete it, and run {recipe} again with --output_dir {folder}."
    sentences = DatasetDict()
    for split in splits:
        paths = sorted((folder / split).glob("[0-9]*.parquet"))
        if not paths:
            raise ValueError(f"{folder / split} has no shards: run {recipe} again with --output_dir {folder}.")
        for path in paths:
            if (damage := shard_damage(path)) is not None:
                raise ValueError(f"{path} is damaged ({damage}): {way_on}")
        try:
            sentences[split] = load_dataset(
                "parquet", data_files=list(map(str, paths)), split="train", cache_dir=str(folder / ".cache")
            )
        except Exception as error:  # the schema in a damaged file makes datasets raise nearly anything
            if disks_error(error):
                raise
            cause = error.__cause__ or error
            raise ValueError(
                f"a shard in {folder / split} is damaged ({' '.join(str(cause).split())}): {way_on}"
            ) from error
    return sentences


def check_columns(folder: Path, splits: DatasetDict, columns: Features, recipe: str) -> None:
    """Raises `ValueError` where a split lacks a column that a recipe writes, has it as another kind of value, or not in
    every row."""
    for split, rows in splits.items():
        for name, expected in columns.items():
            found = rows.features.get(name)
            if found is None:
                problem = f"has no column {name}"
            elif kind_of(found) != kind_of(expected):
                problem = f"has {name} of the type {found}, expected one like {expected}"
            elif rows.data.column(name).null_count:
                problem = f"has rows without {name}"
            elif isinstance(found, ClassLabel) and not all(isinstance(label, str) for label in found.names):
                problem = "has names of classes that are no text"
            elif isinstance(found, ClassLabel) and not set(rows[name]) <= set(range(len(found.names))):
                problem = f"has labels outside of its {len(found.names)} classes"
            else:
                continue
            raise ValueError(f"{folder / split} {shortened(problem, 400)}: delete {folder}, and run {recipe} again.")


def kind_of(column) -> tuple:
    """What the values of a column are, without their width: class, text, int, float or bool, or lists of one of these."""
    if isinstance(column, List):
        inner = kind_of(column.feature)
        return inner if inner[0] == "list" else ("list", *inner)  # words of several tokens are lists in lists
    if isinstance(column, ClassLabel):
        return ("class",)
    return (getattr(column, "dtype", "?").rstrip("0123456789"),)
