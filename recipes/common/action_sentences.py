"""Action sentences on disk: Parquet, in shards that are written whole or not at all."""

import json
import logging
import os
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset

from action_llm.model_files import shortened
from action_llm_datasets.atomic_files import written_whole
from action_llm_datasets.endings import disks_error
from action_llm_recipes.common.data_arguments import check_written_folder, read_written

logger = logging.getLogger(__name__)

RECORDINGS_PER_SHARD = 1024
CODEBOOK = "codebook.safetensors"


def sentence_features(
    labels: ClassLabel,
    num_action_tokens: int,
    with_latents: bool,
    with_explanations: bool = False,
    with_run_lengths: bool = False,
    codes_per_word: int = 1,
) -> Features:
    """Columns of a split.

    `action_ids` is the sentence (zeros in its length, where the action model has no codebook), with several `codes_per_word`
    a list of tokens for each word; `encoding` is 0 for the
    recording as it is and 1, 2, … for augmented ones; token w lasts from `start_times[w]` to `end_times[w]`, seconds;
    `latents`, flat (W, D), only without discretisation; `explanation`, what happens in English, only where it was asked for;
    `run_lengths`, equal tokens that became one, only where the action model merges them.
    """
    token = Value("int16" if num_action_tokens <= 2**15 else "int32")
    return Features(
        {
            "sample_id": Value("string"),
            "encoding": Value("int32"),
            "label": labels,
            "held_out": Value("bool"),
            "action_ids": List(token if codes_per_word == 1 else List(token, length=codes_per_word)),
            "start_times": List(Value("float32")),
            "end_times": List(Value("float32")),
        }
        | ({"latents": List(Value("float32"))} if with_latents else {})
        | ({"explanation": Value("string")} if with_explanations else {})
        | ({"run_lengths": List(Value("int32"))} if with_run_lengths else {})
    )


def words_of(row: dict, processor) -> list:
    """The sentence of a row as [`ActionLLMProcessor`] reads it: tokens, words of several, or pairs of a token and the length
    of its run.

    Raises:
        `ValueError`: lengths are read, and there are none.
    """
    if not processor.run_lengths:
        return row["action_ids"]
    if "run_lengths" not in row:
        raise ValueError("run_lengths: the sentences have none, their action model does not merge equal tokens.")
    return list(zip(row["action_ids"], row["run_lengths"], strict=True))


def shard_path(folder: Path, split: str, index: int, count: int) -> Path:
    """Where shard `index` of `count` of a split lies."""
    return folder / split / f"{index:05d}-of-{count:05d}.parquet"


def write_shard(path: Path, columns: dict, features: Features):
    """Writes one shard whole or not at all."""
    with written_whole(path) as unfinished:
        Dataset.from_dict(columns, features=features).to_parquet(str(unfinished))


def is_whole(path: Path, *notes: str) -> bool:
    """Whether a shard's footer, and the lists beside it with these suffixes, can be read."""
    if not path.is_file():
        return False
    problem = shard_damage(path)
    if problem is None and any(read_entries(path.with_suffix(suffix)) is None for suffix in notes):
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


def write_codebook(folder: Path, codes):
    """Writes the vectors of all tokens (num_action_tokens, dim), whole or not at all."""
    from safetensors.torch import save

    from action_llm_datasets.atomic_files import write_atomically

    write_atomically(folder / CODEBOOK, save({"codes": codes.detach().cpu().contiguous()}))


def read_codebook(folder: str | os.PathLike):
    """The vectors of all tokens, float32 (num_action_tokens, dim), as an array.

    Raises:
        `FileNotFoundError`: the action model has no codebook, or an older version wrote the sentences.
    """
    from safetensors.numpy import load_file

    path = Path(folder, CODEBOOK)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no codebook ({CODEBOOK}): an older version wrote it, or a model without codes."
        )
    return load_file(path)["codes"]


def load_action_sentences(folder: str | os.PathLike) -> DatasetDict:
    """The splits that `encode_actions.py` wrote.

    Raises:
        `FileNotFoundError`: if the folder holds none, or if it was not finished.
        `ValueError`: if an older version wrote it.
    """
    sentences = load_shards(Path(folder), "encode_actions.py")
    if "start_times" not in next(iter(sentences.values())).features:
        raise ValueError(
            f"{folder} was written by an older version of encode_actions.py: encode the recordings again."
        )
    check_columns(Path(folder), sentences, sentence_features(ClassLabel(names=["any"]), 1, False), "encode_actions.py")
    return sentences


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


def check_tokens(rows: Dataset, folder: str | os.PathLike, num_action_tokens: int) -> None:
    """Raises `ValueError` where a sentence is empty, or holds a token that the model does not have."""
    for row in rows.select_columns(["sample_id", "action_ids"]):
        tokens = np.asarray(row["action_ids"], np.int64)
        wrong = tokens[(tokens < 0) | (tokens >= num_action_tokens)]
        if wrong.size or not tokens.size:
            problem = f"the token {wrong[0]}, expected 0 to {num_action_tokens - 1}" if wrong.size else "no tokens"
            raise ValueError(
                f"{folder}: {row['sample_id']} has {problem}: delete the folder and run encode_actions.py again."
            )
