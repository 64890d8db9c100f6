"""The stages of a pipeline: their recipes, folders and argument classes."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from action_llm_datasets.folder_lock import writing
from action_llm_recipes.common.launching import from_settings


class Stage(NamedTuple):
    """A recipe as a stage of a pipeline.

    Attributes:
        recipe: module of the recipe in this package.
        folder: output folder of the stage, within the folder of the run.
        title: name of the stage in the plan.
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
    "held_out_evaluation": Stage("evaluate_classifier", "held_out_evaluation", "held-out evaluation"),
    "calibration": Stage("calibrate", "calibration", "calibration"),
    "evaluation": Stage("evaluate_classifier", "evaluation", "evaluation"),
}
SECONDS_OF_CHECK = 600  # at most, of a finished stage
# Stages with a YAML file of settings; those of the others come from run_line.py.
WITH_SETTINGS = ("backbone", "features", "lvlm", "tokenizer", "sft")


def recipe_of(stage: str) -> ModuleType:
    return importlib.import_module(f"action_llm_recipes.{STAGES[stage].recipe}")


def classes_of(stage: str, settings: dict, where: str | Path = "settings") -> tuple[type, ...]:
    """
    The argument classes of a stage, in the order in which `main` of its recipe takes them.

    Args:
        stage: a key of `STAGES`.
        settings: settings of the stage; those of "tokenizer" decide by `action_model`.
        where: origin of the settings, for errors.

    Raises:
        ValueError: if there is no such action model.
    """
    recipe = recipe_of(stage)
    if stage != "tokenizer":
        return recipe.ARGUMENTS
    action_model = settings.get("action_model", "action_vqvae")
    if action_model not in recipe.STAGES:
        raise ValueError(f"{where}: action_model: expected one of {', '.join(recipe.STAGES)}, found {action_model!r}")
    return recipe.arguments_of(action_model)


def folder_of(stage: str, folder: Path) -> Path:
    """The folder of a stage in the folder of a run. If it is a link (`paper_table.py`), the folder that it leads to, since the
    stages after it keep the path among their settings, and runs that share a stage must keep the same one."""
    path = folder / STAGES[stage].folder
    return path.resolve() if path.is_symlink() else path


def run_stage(stage: str, folder: Path, settings: dict):
    """
    Runs the recipe of a stage and returns the result of its `main`.

    Args:
        stage: a key of `STAGES`.
        folder: folder of the run; the stage writes to its subfolder.
        settings: settings of the stage, by the names of its options.

    Raises:
        ValueError: if the recipe has no option of a name.
    """
    from action_llm_recipes.common.run_folder import RunFolder

    output_dir = folder_of(stage, folder)
    settings = {**settings, "output_dir": str(output_dir)}
    # Rows of a table that share a finished stage may check it at the same time, which takes seconds.
    with writing(output_dir, patience=SECONDS_OF_CHECK if RunFolder.has_record(output_dir) else 0):
        return recipe_of(stage).main(*from_settings(classes_of(stage, settings), settings))
