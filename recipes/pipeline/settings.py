"""Settings of the stages: from YAML files and the command line, adapted to the number of recordings and to early stopping."""

import dataclasses
import logging
from pathlib import Path

from action_llm_datasets.names import did_you_mean
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import option_names, renamed, typed, with_defaults
from action_llm_recipes.pipeline.plan import training_steps
from action_llm_recipes.pipeline.stages import STAGES, classes_of, recipe_of

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# The default steps are for numbers of training recordings between these two. With fewer, they shrink in proportion, at most to
# this share; with more they grow, so that the number of epochs stays that of the larger number.
FEW_RECORDINGS, MANY_RECORDINGS, LEAST_SHARE = 200, 1000, 0.1
SCALED = ("max_steps", "warmup_steps", "lr_drop_step")
# Steps between checkpoints and lines of the log: fewer in short trainings, unchanged in long ones.
INTERVALS = ("save_steps", "logging_steps")
# Early stopping: number of evaluations on held-out recordings in a full training, and how many without improvement end it.
EVALUATIONS, PATIENCE = 10, 3
# Options of run_line.py for all stages.
OWN_OPTIONS = {option.name for option in dataclasses.fields(DataArguments)} | {
    *("seed", "hold_out", "backbone", "llm_name_or_path", "llm_revision", "output_dir", "encodings", "test_encodings")
}
# Settings that follow from earlier stages.
DERIVED = ("tokenizer", "sentences", "model", "latents", "unseen", "evaluations")


def read_yaml(path: str | Path | None, stage: str, pipeline: str) -> tuple[dict, Path]:
    """
    Reads the settings of a stage.

    Args:
        path: YAML file; by default the one for a few hundred recordings.
        stage: a key of `STAGES`.
        pipeline: "llm_ar", "lvlm_var" or "vt_lvlm_ar".

    Returns:
        The settings, and the path of the file.

    Raises:
        ValueError: if the file is not YAML, or has a setting that the recipe does not have; names the file.
    """
    import yaml

    name = f"utd_mhad_{stage}.yaml" if pipeline == "vt_lvlm_ar" else f"small_{stage}.yaml"
    path = Path(path or CONFIGS / pipeline / name)
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
        # run_line.py sets the data set of all stages; another split in one file would go unnoticed.
        raise ValueError(
            f"{path}: held_out_subjects must be the same in all stages. Give --held_out_subjects on the command line instead, "
            "for the whole run."
        )
    return settings, path


def read_overrides(overrides: dict[str, dict], settings: dict[str, dict]) -> dict[str, dict]:
    """
    The settings of stages from the command line, with the types of the recipes' fields.

    Args:
        overrides: stage → setting → value, as text or with its type (`--sft.learning_rate 1e-3`).
        settings: settings of the stages of this run, from their YAML files.

    Raises:
        ValueError: if the run has no such stage, a stage has no such setting, a value has the wrong type, or the setting is for
            the whole run.
    """
    typed_overrides = {}
    for stage, values in overrides.items():
        if stage not in settings:
            raise ValueError(
                f"--{stage}.{next(iter(values))}: this run has no stage {stage}. Its stages are "
                f"{', '.join(name for name in STAGES if name in settings)}."
            )
        action_model = {name: values[name] for name in ("action_model",) if name in values}
        classes = classes_of(stage, settings[stage] | action_model, f"--{stage}.action_model")
        for name in values:
            if name in DERIVED and name in option_names(classes):
                raise ValueError(f"--{stage}.{name} cannot be set: it follows from the earlier stages.")
            if (stage, name) == ("evaluation", "split"):
                raise ValueError(
                    "--evaluation.split follows from --hold_out: true evaluates the held-out recordings, false the test split. "
                    "evaluate_classifier.py --split evaluates a finished run on another split."
                )
            if name in OWN_OPTIONS and name in option_names(classes):
                raise ValueError(
                    f"--{stage}.{name}: a single stage cannot have its own value. Give --{name} once, without a "
                    "stage, for the whole run."
                )
        typed_overrides[stage] = typed(classes, values, prefix=f"--{stage}.")
    return typed_overrides


def scale_steps(settings: dict, recordings: int) -> dict:
    """The settings of a stage with the steps for a number of training recordings: fewer below `FEW_RECORDINGS`, and more above
    `MANY_RECORDINGS`."""
    share = max(min(recordings / FEW_RECORDINGS, 1), LEAST_SHARE, recordings / MANY_RECORDINGS)
    if share == 1:
        return settings
    # A warm-up below 1 is a share of all steps.
    shares = dict.fromkeys(SCALED, share) | dict.fromkeys(INTERVALS, min(share, 1))
    counts = {name: settings[name] for name in shares if (settings.get(name) or 0) > 1}
    return settings | {name: max(1, round(shares[name] * count)) for name, count in counts.items()}


def with_early_stopping(stage: str, settings: dict, sentences: int) -> dict:
    """
    The settings of a stage for a run with early stopping.

    Args:
        stage: a key of `STAGES`.
        settings: settings of the stage.
        sentences: number of training sentences.

    Returns:
        The settings with the held-out recordings left out of training and, for stage 2, with evaluations of the loss on them
        that may end the training.
    """
    if "hold_out" not in option_names(classes_of(stage, settings)):
        return settings
    settings = settings | {"hold_out": True}
    if stage != "sft":
        return settings
    steps = training_steps(with_defaults(classes_of(stage, settings), settings), sentences)
    interval = max(1, steps // EVALUATIONS)
    return settings | {
        "eval_steps": interval,
        "save_steps": interval,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "early_stopping": PATIENCE,
    }


def reads_latents(settings: dict[str, dict]) -> bool:
    """Whether the language model reads continuous latents: without a codebook, or with an injection layer."""
    return not settings["tokenizer"].get("quantize", True) or settings["sft"].get("injection_layer") is not None


def check_pipeline(pipeline: str, settings: dict[str, dict]) -> None:
    """Raises `ValueError` if the settings are for another pipeline, or not valid for the model."""
    from action_llm import ActionVQVAEConfig, VSTConfig, VTEMConfig
    from action_llm.skeleton_layouts import LAYOUTS
    from action_llm_recipes.stages.skeleton_stage import stream_joints

    expected = {"llm_ar": "action_vqvae", "lvlm_var": "vst", "vt_lvlm_ar": "vtem"}[pipeline]
    actual = settings["tokenizer"].get("action_model", "action_vqvae")
    if actual != expected:
        raise ValueError(
            f"the settings of the tokenizer: expected action_model {expected} for the pipeline {pipeline}, found {actual!r}."
        )
    if pipeline == "vt_lvlm_ar" and settings["features"].get("grid") is None:
        raise ValueError(
            "the pipeline vt_lvlm_ar needs features of cells: set grid, to 1 or more, in the settings of the features."
        )
    config = {"action_vqvae": ActionVQVAEConfig, "vst": VSTConfig, "vtem": VTEMConfig}[actual]
    fields = option_names([recipe_of("tokenizer").STAGES[actual].ARGUMENTS[0]])
    values = {name: value for name, value in settings["tokenizer"].items() if name in fields}
    # These follow from the recordings.
    if values.get("streams"):
        values |= stream_joints(values["streams"], LAYOUTS[ActionVQVAEConfig().layout])
    if values.get("direct"):
        values["codebook_dim"] = VSTConfig().feature_size
    config(**values)
