"""Word embeddings of a language model, without loading the model."""

import json
import os

import torch
from safetensors import safe_open
from transformers.utils.hub import cached_file

from action_llm.language_models import language_model_config, language_model_tokenizer, locate

# Names of the embedding table in the model families.
TABLE_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)

# With orthogonal names, the last token of a name counts this share more than the first.
LATER_WORDS = 0.01


def load_word_embeddings(name_or_path: str, revision: str | None = None) -> torch.Tensor:
    """Embeddings of the words of a language model: {c_LLM} of LLM-AR, Eq. 7.

    Only the file with the embedding table is read or downloaded: for LLaMA-13B, one of three.

    Args:
        name_or_path (`str`): Hub repository or folder, with safetensors weights, or a GGUF file.
        revision (`str`, *optional*): commit of the repository.

    Returns:
        `torch.Tensor` of shape `(num_words, width)`, float32, without rows that only pad the table.

    Raises:
        FileNotFoundError: if there are no safetensors weights.
        ValueError: if no single tensor is the embedding table by its name.
    """
    place, place_revision = locate(name_or_path, revision)
    hub = {"revision": place_revision, "_raise_exceptions_for_missing_entries": False}
    index = cached_file(place, "model.safetensors.index.json", **hub)
    if index is not None:
        with open(index, encoding="utf-8") as file:
            files = json.load(file)["weight_map"]
        key = _table_key(files, name_or_path)
        path = cached_file(place, files[key], revision=place_revision)
    else:
        path = cached_file(place, "model.safetensors", **hub)
        if path is None:
            raise FileNotFoundError(
                f"{name_or_path} has no safetensors weights (expected model.safetensors or model.safetensors.index.json)."
            )
        with safe_open(path, framework="pt") as file:
            key = _table_key(file.keys(), name_or_path)
    with safe_open(path, framework="pt") as file:
        table = file.get_tensor(key)
    num_words = min(len(language_model_tokenizer(name_or_path, revision)), len(table))
    return table[:num_words].float()


def class_name_embeddings(
    name_or_path: str, class_names: list[str], revision: str | None = None, orthogonal: bool = False
) -> torch.Tensor:
    """Embeddings of class names: the mean of the word embeddings of a name's tokens.

    Args:
        name_or_path (`str`), revision (`str`, *optional*): the language model, as for [`load_word_embeddings`].
        class_names (`list[str]`): the names.
        orthogonal (`bool`): whether names that share words are moved apart, see [`orthogonalize`]. Later tokens then count
            slightly more, so that names of the same words in another order differ.

    Returns:
        `torch.Tensor` of shape `(num_classes, width)`, float32.

    Raises:
        ValueError: if more names are to be orthogonal than the embeddings are wide.
    """
    words = load_word_embeddings(name_or_path, revision)
    tokenizer = language_model_tokenizer(name_or_path, revision)
    ids = [tokenizer(f" {name}", add_special_tokens=False)["input_ids"] for name in class_names]
    if not orthogonal:
        return torch.stack([words[torch.tensor(name_ids)].mean(0) for name_ids in ids])
    if len(class_names) > words.shape[1]:
        raise ValueError(
            f"orthogonal_names: {len(class_names)} class names cannot be orthogonal in the {words.shape[1]} dimensions of "
            f"{name_or_path}: leave it out."
        )
    ordered = []
    for name_ids in ids:
        weights = torch.linspace(1, 1 + LATER_WORDS, len(name_ids), dtype=torch.float64)
        ordered.append(weights @ words[torch.tensor(name_ids)].double() / weights.sum())
    return orthogonalize(torch.stack(ordered))


def orthogonalize(vectors: torch.Tensor) -> torch.Tensor:
    """The orthonormal vectors that are nearest to the directions of vectors (Löwdin's symmetric orthogonalisation).

    The mean of the words of "sit to stand" is that of "stand to sit", and those of "draw circle clockwise" and "draw circle
    counter clockwise" are nearly equal: nothing can be near one name and far from the other. Orthonormal names are equally far
    from each other; of all orthonormal vectors, they have the smallest sum of squared distances to the names' directions.

    Args:
        vectors (`torch.Tensor` of shape `(num_vectors, width)`): linearly independent, at most `width`.

    Returns:
        `torch.Tensor` of the same shape, float32.
    """
    left, _, right = torch.linalg.svd(torch.nn.functional.normalize(vectors.double(), dim=-1), full_matrices=False)
    return (left @ right).float()


def word_width(name_or_path: str, revision: str | None = None) -> int:
    """Width of the word embeddings of a language model: d_u of LLM-AR, section 3.1."""
    return language_model_config(name_or_path, revision).get_text_config().hidden_size


def _table_key(keys, name_or_path: str) -> str:
    tables = [key for key in keys if key.endswith(TABLE_NAMES) and "vision" not in key]
    if len(tables) != 1:
        raise ValueError(
            f"{os.path.basename(name_or_path)}: expected one table of word embeddings "
            f"({', '.join(TABLE_NAMES)}), found {tables}."
        )
    return tables[0]
