"""Action sentences on disk: Parquet, in shards that are written whole or not at all."""

import logging
import os
from collections import Counter
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from action_llm_recipes.common.padding import pad_latents
from action_llm_recipes.common.shards import check_columns, load_shards

logger = logging.getLogger(__name__)

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


def select_split(sentences, split: str, encodings: int = 1):
    """Sentences of a split, held-out training subjects being one; of each recording the first `encodings`, the first of which
    is the unaugmented one.

    Raises:
        ValueError: there are no such recordings, or one has fewer sentences.
    """
    if encodings < 1:
        raise ValueError(f"encodings must be at least 1, got {encodings}.")
    if split == "test" and "test" not in sentences:
        raise ValueError("the data set has no test recordings: evaluate with --split held_out, or mark some.")
    rows = sentences["test" if split == "test" else "train"]
    wanted = split == "held_out"
    pairs = zip(rows["held_out"], rows["encoding"], strict=True)
    rows = rows.select(
        [i for i, (held, encoding) in enumerate(pairs) if encoding < encodings and (split == "test" or held == wanted)]
    )
    if len(rows) == 0:
        raise ValueError(f"the training split has no recordings for {split!r}.")
    for name, count in Counter(rows["sample_id"]).items():
        if count != encodings:
            raise ValueError(
                f"--encodings {encodings}: {name} has {count} sentences; run encode_actions.py with "
                f"{'--test_encodings' if split == 'test' else '--encodings'} {encodings}."
            )
    return rows


def latents_of(batch, input_ids, config) -> dict:
    """Prompts with a placeholder for each token, and the latents that go there (LLM-AR, Table 5)."""
    import torch

    is_action = input_ids >= config.action_token_offset
    return {
        "input_ids": torch.where(is_action, config.placeholder_token_id, input_ids),
        **pad_latents(batch["latents"], config.action_config.codebook_dim),
    }
