"""The settings of the stages of a pipeline: YAML files, the command line, and what few recordings and early stopping change."""

import dataclasses
import logging
from pathlib import Path

from action_llm_datasets.names import did_you_mean
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import option_names, renamed, typed, with_defaults
from action_llm_recipes.pipeline.plan import training_steps
from action_llm_recipes.pipeline.stages import classes_of

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# Training recordings that the default settings are for, at least; with fewer, steps are fewer, but not below this share.
FEW_RECORDINGS, LEAST_SHARE = 200, 0.1
SCALED = ("max_steps", "warmup_steps", "lr_drop_step", "save_steps", "logging_steps")
# Early stopping looks at the held-out recordings so often, and stops after so many looks that found nothing better.
EVALUATIONS, PATIENCE = 10, 3
# Settings of stages that run_line.py gives to all of them → its own option for each.
OWN_OPTIONS = {
    name: name
    for name in (
        *(option.name for option in dataclasses.fields(DataArguments)),
        *("seed", "hold_out", "backbone", "llm_name_or_path", "llm_revision", "output_dir"),
        *("encodings", "test_encodings"),
    )
} | {"split": "hold_out"}
# Settings that follow from the stages before.
DERIVED = ("tokenizer", "sentences", "model", "latents", "unseen")


def read_yaml(path: str | Path | None, stage: str, line: str) -> tuple[dict, Path]:
    """The settings in the YAML file of a stage, and its path; by default the file for a few hundred recordings.

    Raises:
        ValueError: the file is no YAML of settings, or has one that the recipe does not know; names the file.
    """
    import yaml

    name = f"utd_mhad_{stage}.yaml" if line == "vt_lvlm_ar" else f"small_{stage}.yaml"
    path = Path(path or CONFIGS / line / name)
    try:
        settings = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML, found {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected settings of the stage {stage}, found {settings!r}")
    classes = classes_of(stage, settings, path)
    settings, known = renamed(classes, settings), option_names(classes)
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"{path}: the stage {stage} has no setting {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    if settings.get("held_out_subjects") is not None:
        # Another data set than that of the file is harmless; another split would go unnoticed.
        raise ValueError(
            f"{path}: held_out_subjects must be the same in all stages. Give --held_out_subjects on the command line, for the "
            "whole run."
        )
    return settings, path


def read_overrides(overrides: dict[str, dict], settings: dict[str, dict]) -> dict[str, dict]:
    """
    The settings of stages that were given by hand, with the types of the recipes' fields.

    Args:
        overrides: stage → setting → value, as text or of its type (`--sft.learning_rate 1e-3`).
        settings: of the stages of this run, as in their YAML files; those of the tokenizer say of which action model.

    Raises:
        ValueError: no such stage in this run, no such setting, a value of another type, or a setting that is an option of
            run_line.py itself.
    """
    read = {}
    for stage, given in overrides.items():
        if stage not in settings:
            raise ValueError(f"--{stage}.{next(iter(given))}: this run has the stages {', '.join(settings)}.")
        action_model = {name: given[name] for name in ("action_model",) if name in given}
        classes = classes_of(stage, settings[stage] | action_model, f"--{stage}.action_model")
        for name in given:
            if name in DERIVED and name in option_names(classes):
                raise ValueError(f"--{stage}.{name}: it follows from the stages before.")
            if name in OWN_OPTIONS and name in option_names(classes):
                raise ValueError(
                    f"--{stage}.{name}: a single stage cannot have its own value. Give --{OWN_OPTIONS[name]} once, without a "
                    "stage, for the whole run."
                )
        read[stage] = typed(classes, given, prefix=f"--{stage}.")
    return read


def scale_steps(settings: dict, recordings: int) -> dict:
    """Settings of a stage with as many steps as so few training recordings can use; the same from `FEW_RECORDINGS` on."""
    share = max(min(recordings / FEW_RECORDINGS, 1), LEAST_SHARE)
    if share == 1:
        return settings
    # A warm-up below 1 is a share of the steps already.
    counts = {name: settings[name] for name in SCALED if (settings.get(name) or 0) > 1}
    return settings | {name: max(1, round(share * count)) for name, count in counts.items()}


def with_early_stopping(stage: str, settings: dict, sentences: int) -> dict:
    """Settings of a stage that never sees the held-out recordings; stage 2, of so many training `sentences`, stops by the
    loss on them."""
    if "hold_out" not in option_names(classes_of(stage, settings)):
        return settings
    settings = settings | {"hold_out": True}
    if stage != "sft":
        return settings
    steps = training_steps(with_defaults(classes_of(stage, settings), settings), sentences)
    between = max(1, steps // EVALUATIONS)
    looks = dict.fromkeys(("eval_steps", "save_steps"), between)
    looks |= {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}
    looks |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    return settings | looks | {"early_stopping": PATIENCE}


def reads_latents(settings: dict[str, dict]) -> bool:
    """Whether the language model reads continuous latents: the action model has no codebook, or a layer is named for them."""
    return not settings["tokenizer"].get("quantize", True) or settings["sft"].get("injection_layer") is not None


def check_latents(settings: dict[str, dict]) -> None:
    """Raises `ValueError` for settings of stage 2 that are about tokens where latents are read."""
    if not reads_latents(settings):
        return
    for name in ("standardize_words", "run_lengths", "explanations", "packing", "padding_free"):
        if settings["sft"].get(name):
            raise ValueError(
                f"{name} needs tokens, but the language model is to read continuous latents (quantize: false, or "
                f"injection_layer): set {name}: false in the settings of sft."
            )
    if settings["sft"].get("method") == "none":
        raise ValueError(
            "method none trains nothing, but continuous latents need a trained projection: set another method."
        )


def check_line(line: str, settings: dict[str, dict]) -> None:
    """Raises `ValueError` for settings that are those of another line, or that a model does not take."""
    from action_llm import VTEMConfig

    expected = {"llm_ar": "action_vqvae", "lvlm_var": "vst", "vt_lvlm_ar": "vtem"}[line]
    actual = settings["tokenizer"].get("action_model", "action_vqvae")
    if actual != expected:
        raise ValueError(f"the line {line} has the action model {expected}, the settings of the tokenizer {actual!r}.")
    if line == "vt_lvlm_ar":
        if settings["features"].get("grid") is None:
            raise ValueError(
                "the line vt_lvlm_ar reads cells: set grid in the settings of the features, to 1 or more."
            )
        VTEMConfig(
            **{name: value for name, value in settings["tokenizer"].items() if name in VTEMConfig.__annotations__}
        )
