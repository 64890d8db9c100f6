"""Action sentences on disk: Parquet, in shards that are written whole or not at all."""

import os
from pathlib import Path

from data_arguments import RECORD, check_written_folder, read_record, required
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset

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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    Dataset.from_dict(columns, features=features).to_parquet(str(partial))
    os.replace(partial, path)


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
    return sentences


def load_shards(folder: Path, recipe: str) -> DatasetDict:
    """The splits that a recipe wrote; `FileNotFoundError` if it did not, or was not finished."""
    check_written_folder(folder, recipe)
    splits = required(folder / RECORD, read_record(folder / RECORD), "splits", dict)
    return DatasetDict(
        {
            split: load_dataset(
                "parquet",
                data_files=[str(path) for path in sorted((folder / split).glob("[0-9]*.parquet"))],
                split="train",
                cache_dir=str(folder / ".cache"),
            )
            for split in splits
        }
    )
