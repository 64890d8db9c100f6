"""Checks of folders that arguments name: models, recognisers, and results of other recipes."""

import logging
import re
from pathlib import Path

from action_llm.model_files import read_json_object

logger = logging.getLogger(__name__)


# A name on the Hub; anything else that is no folder here is the path of one that is missing.
REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_model_folder(path: str):
    """Raises `ValueError` for the folder of a run where the model in it is meant, and for a folder that is not there."""
    if Path(path, "model", "config.json").is_file() and not Path(path, "config.json").is_file():
        raise ValueError(f"{path} is the folder of a run: its model is {Path(path, 'model')}.")
    if not Path(path).is_dir() and not REPOSITORY.fullmatch(path):
        raise ValueError(f"there is no folder {path}, and it is no name of a repository on the Hub (OWNER/NAME).")
    if not Path(path).is_dir() and "/" in path and Path(path).parent.is_dir():
        logger.warning("there is no folder %s: it is looked for as a repository on the Hub.", path)


def check_recogniser(path: str):
    """Raises `ValueError` for what `check_model_folder` refuses, and for the folder of another model than a recogniser."""
    check_model_folder(path)
    config = Path(path, "config.json")
    if config.is_file():
        model_type = read_json_object(config).get("model_type")
        if model_type != "action_llm":
            raise ValueError(
                f"{path} is no recogniser, but a model of the type {model_type}: sft.py writes recognisers."
            )
    elif Path(path).is_dir():
        raise ValueError(f"{path} is no recogniser: it has no config.json. sft.py writes recognisers.")


def check_written_folder(path: str, recipe: str):
    """Raises `FileNotFoundError` for a folder that a recipe has not written, or not to its end."""
    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder {path}: {recipe} writes it (--output_dir {path}).")
    if not Path(path, "record.json").is_file():
        raise FileNotFoundError(
            f"{path} holds nothing that {recipe} has finished (no record.json): run {recipe} with --output_dir {path}."
        )


def public_name(name_or_path: str) -> str:
    """The name of a model for a published record: its repository, or the last part of a local path."""
    return Path(name_or_path).name if Path(name_or_path).exists() else name_or_path
