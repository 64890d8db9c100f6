"""Converts language models in GGUF files to the format of transformers.

transformers reads GGUF files slowly and does not save what it has read. A file is therefore converted once on each machine, to
an ordinary model folder in the cache of Hugging Face, whose name is the SHA-256 of the file.
"""

import importlib.metadata
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from .llm_references import gguf_file, sha256_of
from .model_files import ModelFileError, read_json_object, shortened
from .tokenizer_files import TOKENIZER_FILE

logger = logging.get_logger(__name__)


def gguf_folder(name: str, revision: str | None = None, sha256: str | None = None, **hub) -> str:
    """
    The model folder to which a GGUF file was converted. The first call on a machine converts the file; other processes wait for
    it. Weights are stored in the smallest type of number that holds all of them exactly.

    Args:
        name (`str`), revision (`str`, *optional*): see [`gguf_file`].
        sha256 (`str`, *optional*): expected SHA-256 of the file.
        **hub: arguments of the download.

    Raises:
        ValueError: if the file has another SHA-256, or there is no file.
        ModelFileError: if the file is not a complete GGUF file of a causal language model with its tokenizer.
        ImportError: if a package is missing.
        OSError: if the file cannot be downloaded or read.
    """
    path = gguf_file(name, revision, **hub)
    actual = sha256_of(path)
    if sha256 not in (None, actual):
        raise ValueError(
            f"{name} is not the file that the model was trained with: expected the SHA-256 {sha256}, found {actual}. Install "
            "or download the version with that SHA-256."
        )
    folder = Path(constants.HF_HOME, "action_llm", "gguf", actual)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _convert(path, folder)
    return str(folder)


def _convert(path: str, folder: Path) -> None:
    """Converts a GGUF file to a model folder, whole or not at all."""
    logger.warning("Converting %s for transformers, once on this machine", path)
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        _write(path, unfinished)
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write(path: str, folder: Path) -> None:
    """Writes weights, configuration and tokenizer of a GGUF file to a folder."""
    _check_contents(path)
    place, file = os.path.split(os.path.abspath(path))
    source = {"gguf_file": file, "trust_remote_code": False}
    expected = f"a causal language model that transformers {importlib.metadata.version('transformers')} can read"
    with _errors_of(path, f"{expected} (choose another file)"):
        config = AutoConfig.from_pretrained(place, **source)
        loaded, info = AutoModelForCausalLM.from_pretrained(
            place, config=config, dtype=torch.float32, output_loading_info=True, **source
        )
        tokenizer = AutoTokenizer.from_pretrained(place, **source)
    if info["missing_keys"]:
        raise ModelFileError(path, min(info["missing_keys"]), "none", f"all weights of a {config.model_type}")
    # A model that was loaded from GGUF does not save itself.
    with torch.device("meta"):
        model = type(loaded)(loaded.config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    for name in ("quantization_config", "_model_name_or_path"):
        model.config.__dict__.pop(name, None)
    model.to(_smallest_dtype(model)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers builds byte-level tokenizers as those of GPT-2, and adds its end token where the file has none.
    path = folder / TOKENIZER_FILE
    content = read_json_object(path)
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < config.vocab_size]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _smallest_dtype(model: torch.nn.Module) -> torch.dtype:
    """The smallest of bfloat16, float16 and float32 that holds all weights exactly."""
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(weight.to(dtype).to(weight.dtype), weight) for weight in model.parameters()):
            return dtype
    return torch.float32


def _check_contents(path: str) -> None:
    """Raises `ModelFileError` if a file is not GGUF, is incomplete or has no tokenizer; `ImportError` without the package."""
    with open(path, "rb") as file:
        if (begin := file.read(4)) != b"GGUF":
            raise ModelFileError(
                path, None, f"one that begins with {begin!r}", "a GGUF file, which begins with b'GGUF'"
            )
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ImportError(f"{path} is a GGUF file, which needs the package gguf: pip install gguf") from error
    with _errors_of(path, "a complete GGUF file (download it again)"):
        reader = GGUFReader(path)
    for field in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.tokens"):
        if reader.get_field(field) is None:
            expected = "a language model with its tokenizer (choose another file)"
            raise ModelFileError(path, field, "none", expected)


@contextmanager
def _errors_of(path: str, expected: str):
    """Raises `ModelFileError` for errors of the libraries that read a file; they have many kinds for damaged files."""
    try:
        yield
    except (ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ModelFileError(path, None, shortened(f"{type(error).__name__}: {error}", 200), expected) from error


__all__ = ["gguf_folder"]
