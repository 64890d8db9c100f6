"""The word embeddings of a language model, without loading the model."""

import json
import os

import torch
from safetensors import safe_open
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from action_llm.tokenizer_files import load_tokenizer

# What the model families call the table of their first layer.
TABLE_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)


def load_word_embeddings(name_or_path: str, revision: str | None = None) -> torch.Tensor:
    """Rows of the words of a language model, {c_LLM} of LLM-AR, Eq. 7.

    Only the file that holds the table is read (or downloaded): for LLaMA-13B that is one of three.

    Args:
        name_or_path (`str`): repository or folder, with weights as safetensors.
        revision (`str`, *optional*): commit.

    Returns:
        `torch.Tensor` of shape `(num_words, width)`, float32, without the rows that only pad the table.
    """
    hub = {"revision": revision or "main", "_raise_exceptions_for_missing_entries": False}
    index = cached_file(name_or_path, "model.safetensors.index.json", **hub)
    if index is not None:
        with open(index, encoding="utf-8") as file:
            places = json.load(file)["weight_map"]
        key = _table_key(places, name_or_path)
        path = cached_file(name_or_path, places[key], revision=revision or "main", trust_remote_code=False)
    else:
        path = cached_file(name_or_path, "model.safetensors", **hub)
        if path is None:
            raise FileNotFoundError(f"{name_or_path} has no weights as safetensors (model.safetensors or its index).")
        with safe_open(path, framework="pt") as file:
            key = _table_key(file.keys(), name_or_path)
    with safe_open(path, framework="pt") as file:
        table = file.get_tensor(key)
    num_words = min(len(load_tokenizer(name_or_path, revision=revision or "main")), len(table))
    return table[:num_words].float()


def class_name_embeddings(name_or_path: str, class_names: list[str], revision: str | None = None) -> torch.Tensor:
    """What a language model has for each class name before it reads anything: the mean of its words' embeddings.

    Args:
        name_or_path (`str`), revision (`str`, *optional*): as of [`load_word_embeddings`].
        class_names (`list[str]`): the names.

    Returns:
        `torch.Tensor` of shape `(num_classes, width)`, float32.
    """
    words = load_word_embeddings(name_or_path, revision)
    tokenizer = load_tokenizer(name_or_path, revision=revision or "main")
    ids = [tokenizer(f" {name}", add_special_tokens=False)["input_ids"] for name in class_names]
    return torch.stack([words[torch.tensor(one)].mean(0) for one in ids])


def word_width(name_or_path: str, revision: str | None = None) -> int:
    """Width of a language model's word embeddings: d_u of LLM-AR, section 3.1."""
    return (
        AutoConfig.from_pretrained(name_or_path, revision=revision or "main", trust_remote_code=False)
        .get_text_config()
        .hidden_size
    )


def _table_key(keys, name_or_path: str) -> str:
    found = [key for key in keys if key.endswith(TABLE_NAMES) and "vision" not in key]
    if len(found) != 1:
        raise ValueError(
            f"{os.path.basename(name_or_path)}: expected one table of word embeddings "
            f"({', '.join(TABLE_NAMES)}), found {found}."
        )
    return found[0]
