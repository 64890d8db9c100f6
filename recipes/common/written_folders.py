"""Checks folders that arguments name: models, recognisers, and what other recipes wrote."""

import logging
import re
from pathlib import Path

from action_llm.model_files import read_json_object

logger = logging.getLogger(__name__)

# Name of a Hub repository. Any other text that is not a folder is the path of a folder that is missing.
REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_model_folder(path: str):
    """
    Checks that a path is the folder of a model, or can be a repository on the Hub.

    Raises:
        ValueError: if it is the folder of a run, which has the model in a subfolder, or a folder that does not exist.
    """
    if Path(path, "model", "config.json").is_file() and not Path(path, "config.json").is_file():
        raise ValueError(f"{path} is the folder of a run: its model is {Path(path, 'model')}, use that.")
    if not Path(path).is_dir() and not REPOSITORY.fullmatch(path):
        raise ValueError(f"there is no folder {path}, and it is not the name of a Hub repository (OWNER/NAME).")
    if not Path(path).is_dir() and "/" in path and Path(path).parent.is_dir():
        logger.warning("there is no folder %s: loading the Hub repository of that name.", path)


def check_language_model(name_or_path: str):
    """
    Checks that a language model can be found: the folder of a model, a possible repository on the Hub, or a GGUF file.

    Raises:
        ValueError: as of `check_model_folder`; if there is no such GGUF file; if a folder has only GGUF files.
        ImportError: if the GGUF file is in a package that is not installed.
    """
    from action_llm.llm_references import check_gguf, is_gguf

    if is_gguf(name_or_path):
        check_gguf(name_or_path)
        return
    check_model_folder(name_or_path)
    files = sorted(Path(name_or_path).glob("*.gguf"))
    if files and not Path(name_or_path, "config.json").is_file():
        raise ValueError(f"{name_or_path} is a folder of GGUF files: choose one, such as {files[0]}.")


def check_recogniser(path: str):
    """
    Checks that a path is the folder of a recogniser, or can be a repository on the Hub.

    Raises:
        ValueError: as of `check_model_folder`, and if the folder holds another model.
    """
    check_model_folder(path)
    config = Path(path, "config.json")
    if config.is_file():
        model_type = read_json_object(config).get("model_type")
        if model_type != "action_llm":
            raise ValueError(
                f"{path} is not a recogniser but a model of the type {model_type}: use a folder that sft.py wrote."
            )
    elif Path(path).is_dir():
        raise ValueError(f"{path} is not a recogniser, as it has no config.json: use a folder that sft.py wrote.")


def check_written_folder(path: str, recipe: str):
    """
    Checks that a recipe has written a folder and has finished.

    Args:
        path: of the folder.
        recipe: file name of the recipe, for errors.

    Raises:
        FileNotFoundError: if the folder does not exist, or has no record.
    """
    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder {path}: {recipe} writes it (--output_dir {path}).")
    if not Path(path, "record.json").is_file():
        raise FileNotFoundError(
            f"{path} has no record.json, so {recipe} has not finished there: run {recipe} with --output_dir {path}."
        )


def public_name(name_or_path: str) -> str:
    """The name of a model for a published record: its repository, or the last part of a local path."""
    return Path(name_or_path).name if Path(name_or_path).exists() else name_or_path
