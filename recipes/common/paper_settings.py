"""
The settings that the three papers give, and where a preset or a run departs from them.

`paper_settings.json` has for each paper the YAML files of its presets, and its settings, of which each has:

- `stage`: a stage of `run_line.py`, or `efficiency` for `benchmark_efficiency.py`. `stages`: all stages with this option, if
  there are several.
- `settings`: options of its recipe, `batch_size` for that of an optimiser step, or `steps` for the number of optimiser steps.
- `about`: what the setting is.
- `paper`: the paper's value; null if the paper gives none. `source`: where the paper gives it. `says`: the paper's words.
- `absent`: true if the paper does not have what the setting turns on; `paper` is then the value that turns it off.
- `missing`: what is used where a YAML file does not set the option. `shown`: what a table shows instead of long values.
- `why`: why the presets for few recordings depart from the paper, or which value they choose where it gives none.

`model_cards/tables.py` writes the tables of the model cards and the comments in the YAML files from it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# The paper of an action model, by its `model_type`.
PAPER_OF = {"action_vqvae": "llm_ar", "vst": "lvlm_var", "vtem": "vt_lvlm_ar"}
# Stages without a counterpart in the papers, whose visual encoders and vision-language models are pretrained.
OWN_STAGES = ("backbone", "lvlm")
# Options that only say what is read, where it runs, and what is saved.
UNMARKED = {
    *("dataset", "action_model", "llm_revision", "backbone_revision", "seed"),
    *("num_proc", "dataloader_num_workers", "bf16", "dtype", "activation_checkpointing"),
    *("gradient_accumulation_steps", "batch_size", "save_steps", "logging_steps"),
}
# Settings that follow from options with other names.
DERIVED = {"max_steps": "steps", "per_device_train_batch_size": "batch_size", "total_batch_size": "batch_size"}


@dataclass(frozen=True)
class PaperSetting:
    """A setting of a paper: an entry of `paper_settings.json`."""

    stage: str
    settings: list[str]
    about: str
    paper: Any = None
    source: str | None = None
    says: str | None = None
    absent: bool = False
    missing: str | None = None
    shown: str | None = None
    stages: tuple[str, ...] = ()
    why: str = ""

    @property
    def claim(self) -> str:
        """What the paper says, with the source."""
        if self.absent:
            return f"none ({self.source})"
        claim = self.says or ("not given" if self.paper is None else text_of(self.paper))
        return f"{claim} ({self.source})" if self.source else claim

    def used(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings among `values`, without those that have no effect beside the others."""
        return {name: values.get(name) for name in self.settings if name not in unused(values)}

    def departs(self, values: Mapping[str, Any]) -> bool:
        """Whether a stage with these values departs from the value that the paper gives."""
        return self.paper is not None and any(value != self.paper for value in self.used(values).values())

    def value(self, values: Mapping[str, Any], reference: Mapping[str, Any] | None = None) -> str:
        """The value of a stage in words.

        Args:
            values: all settings of the stage.
            reference: those of another preset, if only what differs from it is wanted.
        """
        used = self.used(values)
        if not used:
            return "not used"
        if self.paper is not None and not self.departs(values):
            return "same"
        if self.paper is None and reference is not None:
            used = {name: value for name, value in used.items() if value != reference.get(name)}
            if not used:
                return "same"
        texts = {name: text_of(value) for name, value in used.items() if value is not None}
        if not texts:
            return self.missing or "not set"
        if self.shown:
            return self.shown
        if len(self.settings) == 1:
            return next(iter(texts.values()))
        return ", ".join(f"`{name}` {text}" for name, text in texts.items())

    def mark(self, name: str, values: Mapping[str, Any]) -> str:
        """The comment on the option `name` in a YAML file with these values: whether its value is the paper's or ours."""
        if self.paper is None:
            return "ours"
        if values.get(name) == self.paper:
            return "paper"
        if name == "learning_rate" and values.get("method") == "full":
            return "ours: the paper gives none for training all weights"
        if self.absent:
            return "ours: not in the paper"
        if name == "batch_size":
            return f"paper: batches of {self.paper}"
        words = self.says if isinstance(self.paper, str) and self.says else text_of(self.paper)
        return f"paper: {words}"


@cache
def _papers() -> dict:
    return json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def presets_of(paper: str) -> dict[str, dict[str, str]]:
    """The presets of a paper ("llm_ar", "lvlm_var", "vt_lvlm_ar"): name → stage → YAML file in `configs/{paper}`."""
    return _papers()[paper]["presets"]


def settings_of(paper: str) -> list[PaperSetting]:
    """The settings of a paper, in the order of its stages."""
    return [PaperSetting(**setting) for setting in _papers()[paper]["settings"]]


def mark_of_option(paper: str, stage: str, name: str, settings: Mapping[str, Any]) -> str | None:
    """
    The comment on an option in a YAML file: whether its value is the paper's or ours.

    Args:
        paper: "llm_ar", "lvlm_var" or "vt_lvlm_ar".
        stage: stage of the file.
        name: of the option.
        settings: all settings of the file.

    Returns:
        None for options that are not marked (`UNMARKED`).

    Raises:
        ValueError: if `paper_settings.json` does not have the option.
    """
    if name in UNMARKED:
        return None
    if stage in OWN_STAGES:
        return "ours"
    name = DERIVED.get(name, name)
    for setting in settings_of(paper):
        if name in setting.settings and stage in (setting.stages or (setting.stage,)):
            return setting.mark(name, with_totals(settings))
    raise ValueError(
        f"{name} of the stage {stage} of {paper} is not in recipes/common/paper_settings.json: add it, with the paper's value "
        "or null."
    )


def stage_values(stage: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stage in a YAML file, completed with the defaults of its recipe, with `batch_size` and `steps`."""
    from action_llm_recipes.common.launching import with_defaults
    from action_llm_recipes.pipeline.stages import classes_of

    return with_totals(with_defaults(classes_of(stage, dict(settings)), dict(settings)))


def with_totals(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a stage with its optimiser `steps` and the `batch_size` of a step, on one process unless the settings say."""
    totals = {}
    if "max_steps" in settings:
        totals["steps"] = settings["max_steps"]
    if (per_device := settings.get("per_device_train_batch_size")) is not None:
        on_one_process = per_device * settings.get("gradient_accumulation_steps", 1)
        totals["batch_size"] = settings.get("total_batch_size") or on_one_process
    return {**settings, **totals}


def unused(values: Mapping[str, Any]) -> set[str]:
    """The settings that have no effect beside the others."""
    names = set()
    if "method" in values and values["method"] not in ("lora", "qlora"):
        names |= {"lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"}
    if "method" in values and values["method"] not in ("prefix", "prompt"):
        names |= {"prefix_length", "prefix_layers"}
    if values.get("lr_scheduler_type", "constant") != "constant":
        names |= {"lr_drop_step", "lr_drop_factor"}
    return names


def text_of(value: Any) -> str:
    """A value of a setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(text_of, value))
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}"
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def departures(paper: str, stages: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """
    Where a run departs from the values that its paper gives.

    Args:
        paper: "llm_ar", "lvlm_var" or "vt_lvlm_ar".
        stages: stage → its settings, in the record of the run. Settings that the record lacks are not compared.

    Returns:
        The stage, what the setting is, what the paper says, and the value of the run.
    """
    rows = []
    for setting in settings_of(paper):
        values = stages.get(setting.stage, {})
        if values.keys() >= set(setting.settings) and setting.departs(values):
            rows.append((setting.stage, setting.about, setting.claim, setting.value(values)))
    return rows
