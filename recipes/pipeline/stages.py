"""The stages of a pipeline: the recipe of each, its folder in that of the run, and its argument classes."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from action_llm_recipes.common.launching import from_settings


class Stage(NamedTuple):
    """A recipe as a part of a pipeline.

    Attributes:
        recipe: its module in this package.
        folder: where it writes, in the folder of the run.
        title: what the plan calls it.
    """

    recipe: str
    folder: str
    title: str


STAGES = {
    "backbone": Stage("pretraining.backbone", "backbone", "visual encoder"),
    "features": Stage("extract_features", "features", "features of videos"),
    "lvlm": Stage("pretraining.small_lvlm", "small_lvlm", "small LVLM"),
    "tokenizer": Stage("train_tokenizer", "tokenizer", "action model"),
    "encode": Stage("encode_actions", "sentences", "sentences"),
    "sft": Stage("sft", "sft", "language model"),
    "evaluation": Stage("evaluate_classifier", "evaluation", "evaluation"),
}
# Stages whose settings are those of a YAML file; of the others, run_line.py knows the few that there are.
WITH_SETTINGS = ("backbone", "features", "lvlm", "tokenizer", "sft")


def recipe_of(stage: str) -> ModuleType:
    return importlib.import_module(f"action_llm_recipes.{STAGES[stage].recipe}")


def classes_of(stage: str, settings: dict, where: str | Path = "settings") -> tuple[type, ...]:
    """
    The argument classes of the recipe of a stage, in the order in which its `main` takes them.

    Args:
        stage: a key of `STAGES`.
        settings: of the stage; those of the tokenizer say of which action model.
        where: the settings come from, for errors.

    Raises:
        ValueError: there is no such action model.
    """
    recipe = recipe_of(stage)
    if stage != "tokenizer":
        return recipe.ARGUMENTS
    action_model = settings.get("action_model", "action_vqvae")
    if action_model not in recipe.STAGES:
        raise ValueError(f"{where}: action_model: expected one of {', '.join(recipe.STAGES)}, found {action_model!r}")
    return recipe.arguments_of(action_model)


def run_stage(stage: str, folder: Path, settings: dict):
    """Runs the recipe of a stage in its folder under `folder`; returns what its `main` does.

    Raises:
        ValueError: a setting that the recipe does not know.
    """
    settings = {**settings, "output_dir": str(folder / STAGES[stage].folder)}
    return recipe_of(stage).main(*from_settings(classes_of(stage, settings), settings))
