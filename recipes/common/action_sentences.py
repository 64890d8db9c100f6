"""Action sentences as `encode_actions.py` writes them: Parquet shards, with the codebook beside them."""

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
    """
    Columns of a split.

    - `encoding` is 0 for the recording itself and 1, 2, … for its augmented versions.
    - `action_ids` is the sentence of W tokens, or of W lists of `codes_per_word` tokens. Without a codebook all tokens are 0.
    - Token w lasts from `start_times[w]` to `end_times[w]`, in seconds.
    - `latents` are the flat (W, D) continuous latents, if `with_latents`.
    - `explanation` describes in English what happens, if `with_explanations`.
    - `run_lengths` are the numbers of equal tokens that were merged into each token, if `with_run_lengths`.

    Args:
        labels: the classes.
        num_action_tokens: size of the vocabulary of action tokens.
        with_latents, with_explanations, with_run_lengths: which optional columns there are.
        codes_per_word: number of tokens per word.
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
    """
    The sentence of a row as [`ActionLLMProcessor`] reads it: a list of tokens, of words of several tokens, or of pairs of a
    token and its run length.

    Raises:
        ValueError: if the processor reads run lengths, and the row has none.
    """
    if not processor.run_lengths:
        return row["action_ids"]
    if "run_lengths" not in row:
        raise ValueError(
            "run_lengths needs sentences with run lengths, but their action model does not merge equal tokens: set run_lengths "
            "to false."
        )
    return list(zip(row["action_ids"], row["run_lengths"], strict=True))


def write_codebook(folder: Path, codes):
    """Writes the vectors of all tokens, (num_action_tokens, dim), whole or not at all."""
    from safetensors.torch import save

    from action_llm_datasets.atomic_files import write_atomically

    write_atomically(folder / CODEBOOK, save({"codes": codes.detach().cpu().contiguous()}))


def read_codebook(folder: str | os.PathLike):
    """
    Reads the vectors of all tokens: a float32 array (num_action_tokens, dim).

    Raises:
        FileNotFoundError: if the action model has no codebook, or an older version wrote the sentences.
    """
    from safetensors.numpy import load_file

    path = Path(folder, CODEBOOK)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no codebook ({CODEBOOK}): its action model has none, or an older version wrote the folder."
        )
    return load_file(path)["codes"]


def load_action_sentences(folder: str | os.PathLike) -> DatasetDict:
    """
    Loads the splits that `encode_actions.py` wrote.

    Raises:
        FileNotFoundError: if the folder does not exist or is not finished.
        ValueError: if a shard is damaged, or an older version wrote the folder.
    """
    sentences = load_shards(Path(folder), "encode_actions.py")
    if "start_times" not in next(iter(sentences.values())).features:
        raise ValueError(
            f"{folder} was written by an older version of encode_actions.py: encode the recordings again."
        )
    check_columns(Path(folder), sentences, sentence_features(ClassLabel(names=["any"]), 1, False), "encode_actions.py")
    return sentences


def check_tokens(rows: Dataset, folder: str | os.PathLike, num_action_tokens: int) -> None:
    """
    Checks the tokens of sentences.

    Args:
        rows: the sentences.
        folder: that they come from, for errors.
        num_action_tokens: number of action tokens of the model.

    Raises:
        ValueError: if a sentence is empty or holds a token outside the vocabulary.
    """
    for row in rows.select_columns(["sample_id", "action_ids"]):
        tokens = np.asarray(row["action_ids"], np.int64)
        wrong = tokens[(tokens < 0) | (tokens >= num_action_tokens)]
        if wrong.size or not tokens.size:
            problem = f"the token {wrong[0]}, expected 0 to {num_action_tokens - 1}" if wrong.size else "no tokens"
            raise ValueError(
                f"{folder}: {row['sample_id']} has {problem}: delete the folder and run encode_actions.py again."
            )


def first_encodings(rows: Dataset) -> Dataset:
    """The sentences of the recordings themselves, without those of augmented versions."""
    return rows.select([index for index, encoding in enumerate(rows["encoding"]) if encoding == 0])


def select_split(sentences, split: str, encodings: int = 1):
    """
    Selects the sentences of a split.

    Args:
        sentences: the splits "train" and "test" (`load_action_sentences`).
        split: "test", "held_out" (held-out training subjects) or "train" (the other training subjects).
        encodings: number of sentences per recording; the first is that of the recording itself.

    Raises:
        ValueError: if the split has no recordings, or a recording has fewer sentences.
    """
    if encodings < 1:
        raise ValueError(f"encodings must be at least 1, got {encodings}.")
    if split == "test" and "test" not in sentences:
        raise ValueError("the data set has no test recordings: use --split held_out, or mark some recordings as test.")
    rows = sentences["test" if split == "test" else "train"]
    marks = enumerate(zip(rows["held_out"], rows["encoding"], strict=True))
    rows = rows.select(
        [
            index
            for index, (held_out, encoding) in marks
            if encoding < encodings and (split == "test" or held_out == (split == "held_out"))
        ]
    )
    if len(rows) == 0:
        raise ValueError(f"the data set has no recordings in the split {split}.")
    for name, count in Counter(rows["sample_id"]).items():
        if count != encodings:
            raise ValueError(
                f"--encodings {encodings}: {name} has {count} sentences; run encode_actions.py with "
                f"{'--test_encodings' if split == 'test' else '--encodings'} {encodings}."
            )
    return rows


def latents_of(batch, input_ids, config) -> dict:
    """
    Inputs of a model that reads continuous latents (LLM-AR, Table 5).

    Args:
        batch: rows of sentences, with `latents`.
        input_ids: prompts with the sentences, (B, P).
        config ([`ActionLLMConfig`]): of the model.

    Returns:
        `input_ids` with the placeholder in place of each action token, and the latents that replace the placeholders
        (`pad_latents`).
    """
    import torch

    is_action = input_ids >= config.action_token_offset
    return {
        "input_ids": torch.where(is_action, config.placeholder_token_id, input_ids),
        **pad_latents(batch["latents"], config.action_config.codebook_dim),
    }
