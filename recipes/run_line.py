"""
The whole pipeline of LLM-AR, LVLM-VAR or VT-LVLM-AR in one command: action model, sentences, language model, evaluation.

```bash
python -m action_llm_datasets.folder my_recordings --pattern '(?P<label>\\w+)_person(?P<person>\\d+).*' --test person=3,7 \\
    --layout kinect20 --fps 30
python recipes/run_line.py --dataset folder --data_dir my_recordings --output_dir runs/mine
python recipes/run_line.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --output_dir runs/video
python recipes/run_line.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --paper vt_lvlm_ar --output_dir runs/events
```

It runs `train_tokenizer.py`, `encode_actions.py`, `sft.py` and `evaluate_classifier.py` in turn; for videos,
`extract_features.py` comes first. Each stage takes its settings from a YAML file, by default one for a few hundred recordings
and two CPU cores. `--STAGE.SETTING VALUE` changes a single setting.

Models that are not given are trained first: without `--llm_name_or_path` a small language model, once per machine, and for
videos without `--backbone` a small visual encoder. For `vt_lvlm_ar`, a text-only language model becomes a small LVLM with that
encoder. A published encoder (`--backbone facebook/dinov2-small`) reads frames by its own image processor, which crops their
centre; `--features.fit pad` keeps the whole frame. It is slower than the small one, so there are fewer versions of each video.

The plan of stages, steps and times is shown before training starts. Run the same command again to resume an interrupted run.

The default settings are for 200 to 1,000 training recordings. With n < 200 of them, each stage takes n / 200 of its steps, and
at least a tenth; with n > 1,000, n / 1,000 times its steps, so that the number of epochs stays that of 1,000 (not measured).
Settings from your own YAML files are not changed.

With n < 200, recordings that are held out (marked by `--validation` in a folder) are not trained on, and stage 2 stops early
when the loss on them no longer falls.

Recordings that are held out also calibrate the recogniser (`calibrate.py`): its probabilities get a temperature.

To choose settings without looking at the test split, evaluate on held-out training recordings with `--hold_out true`.
`--held_out_subjects` chooses the subjects, for example each training subject in turn:

```bash
for subject in 1 3 5 7; do
    python recipes/run_line.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --hold_out true --held_out_subjects $subject \\
        --output_dir runs/without_$subject
done
```

With `--tokenizer.quantize false` or `--sft.injection_layer N`, the language model reads continuous latents (LLM-AR, Table 5).
In a protocol with unseen test classes (`ntu120-unseen-0`, `utd-mhad-unseen-0`; Table 8), the class list is written into the
prompt, and the small language model is trained on text that says nothing about these actions.
"""

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from action_llm.model_files import as_written
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_datasets.names import did_you_mean
from action_llm_recipes.common.data_arguments import DataArguments, without_held_out
from action_llm_recipes.common.joined_data_sets import usual_layout
from action_llm_recipes.common.launching import launch, typed, with_defaults, without_paired
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.stage_records import check_unseen_text, llm_training, pretraining_record
from action_llm_recipes.common.written_folders import check_language_model, check_model_folder
from action_llm_recipes.pipeline.plan import RecordingCounts, show_plan
from action_llm_recipes.pipeline.settings import (
    FEW_RECORDINGS,
    check_pipeline,
    read_overrides,
    read_yaml,
    reads_latents,
    scale_steps,
    with_early_stopping,
)
from action_llm_recipes.pipeline.stages import STAGES, WITH_SETTINGS, classes_of, folder_of, run_stage
from action_llm_recipes.sft import check_settings

logger = logging.getLogger(__name__)

# The default files are for the small visual encoder. Published ones are slower: DINOv2-small reads four to five pictures per
# second on a core.
PRETRAINED_FEATURES = {"versions": 2, "test_versions": 1}


@dataclass
class PipelineArguments:
    """The pipeline, its settings, and its models."""

    output_dir: str = field(metadata={"help": "folder of the run; each stage writes to a subfolder"})
    paper: Literal["llm_ar", "lvlm_var", "vt_lvlm_ar"] | None = field(
        default=None,
        metadata={
            "help": "paper whose pipeline runs: llm_ar for skeletons, lvlm_var (default) or vt_lvlm_ar for videos"
        },
    )
    tokenizer_config: str | None = field(
        default=None, metadata={"help": "YAML file of settings for train_tokenizer.py"}
    )
    sft_config: str | None = field(default=None, metadata={"help": "YAML file of settings for sft.py"})
    features_config: str | None = field(
        default=None, metadata={"help": "YAML file of settings for extract_features.py"}
    )
    backbone_config: str | None = field(
        default=None, metadata={"help": "YAML file of settings for pretraining/backbone.py"}
    )
    lvlm_config: str | None = field(
        default=None, metadata={"help": "YAML file of settings for pretraining/small_lvlm.py"}
    )
    settings: dict = field(
        default_factory=dict,
        metadata={
            "help": "Any setting of a stage can be set with --STAGE.SETTING VALUE, for example --sft.learning_rate 1e-3. "
            f"Stages: {', '.join(STAGES)}. The --help of a recipe lists its settings.",
            "dotted": True,
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={"help": "visual encoder of videos: Hub repository or folder; by default a small one is trained"},
    )
    llm_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "language model: Hub repository, folder, GGUF file (FILE.gguf, or OWNER/NAME:FILE.gguf on the Hub), or "
            "smollm2; trained with LoRA unless sft_config says otherwise; by default that of sft_config or tokenizer_config, "
            "or a small one that is trained once per machine"
        },
    )
    llm_revision: str | None = field(
        default=None,
        metadata={"help": "commit of the language model's repository", "belongs_to": "llm_name_or_path"},
    )
    encodings: int | None = field(
        default=None,
        metadata={
            "help": "number of encodings per training recording (encode_actions.py); by default 24 for skeletons, and for "
            "videos the number of versions of their features"
        },
    )
    test_encodings: int | None = field(
        default=None,
        metadata={
            "help": "number of encodings per evaluated recording, whose class probabilities are averaged; by default "
            "--encodings for skeletons and held-out videos, and --features.test_versions for test videos"
        },
    )
    hold_out: bool = field(
        default=False,
        metadata={"help": "leave the held-out training recordings out of training, and evaluate on them"},
    )
    early_stopping: bool | None = field(
        default=None,
        metadata={
            "help": "leave the held-out training recordings out of training, and stop stage 2 when the loss on them no longer "
            f"falls; by default with fewer than {FEW_RECORDINGS} training recordings and default settings, if some are held out"
        },
    )
    seed: int = field(default=0, metadata={"help": "random seed of all stages"})

    def __post_init__(self):
        if self.llm_name_or_path is not None:
            check_language_model(self.llm_name_or_path)
        if self.backbone is not None:
            check_model_folder(self.backbone)
        for stage in WITH_SETTINGS:
            path = getattr(self, f"{stage}_config")
            if path is not None and not Path(path).is_file():
                raise ValueError(f"--{stage}_config: there is no file {path}.")
        for stage, settings in self.settings.items():
            if stage not in STAGES:
                raise ValueError(f"there is no stage {as_written(stage)}{did_you_mean(str(stage), STAGES)}")
            if not isinstance(settings, dict) or not settings:
                raise ValueError(f"settings: {stage}: expected settings and their values, got {as_written(settings)}.")
        check_at_least_one(self, "encodings", "test_encodings")
        if self.early_stopping and self.hold_out:
            raise ValueError(
                "--early_stopping chooses weights by the recordings that --hold_out evaluates, which would bias the result: "
                "set only one."
            )


ARGUMENTS = (PipelineArguments, DataArguments)


class ResolvedRun(NamedTuple):
    """A run whose settings are known and checked.

    Attributes:
        arguments: of the recipe, with the models that YAML files name.
        pipeline: "llm_ar", "lvlm_var" or "vt_lvlm_ar".
        settings: stage → its settings.
        counts: numbers of recordings and of their encodings.
        unseen: names of the classes that are tested and not trained on.
    """

    arguments: PipelineArguments
    pipeline: str
    settings: dict[str, dict]
    counts: RecordingCounts
    unseen: list[str]


@writes_output_dir
def main(arguments: PipelineArguments, data: DataArguments) -> dict:
    """Runs the pipeline; returns the metrics of its evaluation."""
    run = resolve(arguments, data)
    begin(run.arguments, data, run.pipeline, run.settings, run.counts)
    return run_pipeline(run.arguments, data, run.settings, run.unseen)


def resolve(arguments: PipelineArguments, data: DataArguments) -> ResolvedRun:
    """
    Reads and checks the settings of all stages, and fits them to the recordings. Trains nothing and writes nothing to
    `output_dir`.

    Raises:
        ValueError: if a setting is wrong, or does not fit the pipeline or the recordings.
    """
    pipeline = choose_pipeline(arguments, data)
    # All settings are checked before anything is trained, and the YAML files before slow libraries are imported.
    arguments, settings = read_all_settings(arguments, pipeline)
    overrides = read_overrides(arguments.settings, settings | {"encode": {}, "calibration": {}, "evaluation": {}})
    settings = {stage: values | overrides.get(stage, {}) for stage, values in settings.items()}
    is_default_sft = arguments.sft_config is None and "standardize_words" not in overrides.get("sft", {})
    if reads_latents(settings) and is_default_sft:
        settings["sft"]["standardize_words"] = False  # it applies to tokens only
    check_pipeline(pipeline, settings)
    check_models(arguments, data)

    splits = data.load("videos" if data.is_video else "skeletons")
    settings, counts = fit_to_recordings(arguments, data, settings, overrides, splits)
    check_settings(with_defaults(classes_of("sft", settings["sft"]), settings["sft"]), reads_latents(settings))
    llm, unseen = arguments.llm_name_or_path, [] if arguments.hold_out else unseen_classes(splits)
    if unseen and llm is not None:
        check_unseen_text(llm_training(llm), unseen)
    settings["encode"] = {
        "encodings": counts.encodings,
        # Held-out recordings are in the training split, and have `encodings` of them.
        "test_encodings": 1 if arguments.hold_out else counts.test_encodings,
        **overrides.get("encode", {}),
    }
    settings["evaluation"] = {
        "encodings": counts.test_encodings,
        "split": "held_out" if arguments.hold_out else "test",
        "unseen": bool(unseen),
        **overrides.get("evaluation", {}),
    }
    if counts.held_out:
        settings["calibration"] = overrides.get("calibration", {})
    elif overrides.get("calibration"):
        raise ValueError(
            "--calibration settings need held-out recordings, but all training recordings are trained on: set --hold_out true, "
            "or calibrate with recognisers that held out subjects (calibrate.py)."
        )
    if counts.held_out and not arguments.hold_out:  # stage 2 stops early, and the test split is evaluated
        settings["held_out_evaluation"] = {
            **settings["evaluation"],
            "encodings": min(counts.test_encodings, counts.encodings),
            "split": "held_out",
            "unseen": False,
        }
    return ResolvedRun(arguments, pipeline, settings, counts, unseen)


def begin(
    arguments: PipelineArguments,
    data: DataArguments,
    pipeline: str,
    settings: dict[str, dict],
    counts: RecordingCounts,
) -> None:
    """Checks that the output folder does not belong to another run, and shows the plan."""
    from action_llm_recipes.common.run_folder import RunFolder

    folder = Path(arguments.output_dir)
    resolved = {stage: with_defaults(classes_of(stage, values), values) for stage, values in settings.items()}
    done = {name for name, stage in STAGES.items() if RunFolder.has_record(folder / stage.folder)} - {"evaluation"}
    subjects = {"held_out_subjects": data.held_out_subjects} if data.held_out_subjects else {}
    # Without the seed, a run with another one would train a language model before a stage refused the folder.
    identity = {"line": pipeline, "dataset": data.protocol(), "seed": arguments.seed, **subjects}
    RunFolder(folder).check_identity(identity)
    show_plan(resolved, counts, trains_llm=arguments.llm_name_or_path is None, done=done)


def run_pipeline(
    arguments: PipelineArguments, data: DataArguments, settings: dict[str, dict], unseen: list[str]
) -> dict:
    """
    Trains the models that are not given, and runs all stages.

    Args:
        arguments, data: of the recipe.
        settings: settings of each stage.
        unseen: names of the classes that are tested and not trained on.

    Returns:
        The metrics of the evaluation.
    """
    folder, llm = Path(arguments.output_dir), arguments.llm_name_or_path
    if llm is None:
        from action_llm_recipes.pretraining.small_lm import SmallLMArguments, kept_small_lm

        unseen_of = data.dataset.partition("-video")[0] if unseen else None
        llm = kept_small_lm(SmallLMArguments(unseen_of=unseen_of), arguments.seed)
    if "features" in settings:
        backbone = arguments.backbone
        if backbone is None:
            run_stage("backbone", folder, {**settings["backbone"], **dataclasses.asdict(data)})
            backbone = str(folder_of("backbone", folder) / "model")
        run_stage("features", folder, {**settings["features"], **dataclasses.asdict(data), "backbone": backbone})
        data = DataArguments(dataset="features", data_dir=str(folder_of("features", folder)))
    language_model = {"llm_name_or_path": llm}
    if arguments.llm_revision is not None:
        language_model["llm_revision"] = arguments.llm_revision
    if "lvlm" in settings:
        run_stage("lvlm", folder, {**settings["lvlm"], **dataclasses.asdict(data), **language_model})
        language_model = {"llm_name_or_path": str(folder_of("lvlm", folder) / "model")}
    return run_main_stages(data, language_model, folder, settings)


def run_main_stages(data: DataArguments, llm: dict[str, str], folder: Path, settings: dict[str, dict]) -> dict:
    """
    Runs the stages that all pipelines have: action model, sentences, language model and evaluation.

    Args:
        data: the recordings: skeletons, or features of videos.
        llm: `llm_name_or_path` of the language model, and optionally `llm_revision`.
        folder: folder of the run; each stage has a subfolder.
        settings: settings of the stages "tokenizer", "encode", "sft" and "evaluation", and of those of the calibration where
            recordings are held out. The sentences are encoded with the seed of "tokenizer".

    Returns:
        The metrics of the evaluation.

    Raises:
        ValueError: if a recipe has no setting of a name.
    """
    recordings = dataclasses.asdict(data)
    run_stage("tokenizer", folder, {**settings["tokenizer"], **recordings, **llm})
    tokenizer = str(folder_of("tokenizer", folder) / "model")
    sentences = str(folder_of("encode", folder))
    encoding = {
        "tokenizer": tokenizer,
        "latents": reads_latents(settings),
        "seed": settings["tokenizer"].get("seed", 0),
    }
    run_stage("encode", folder, {**settings["encode"], **recordings, **encoding})
    run_stage("sft", folder, {**settings["sft"], **llm, "tokenizer": tokenizer, "sentences": sentences})
    recogniser = {"model": str(folder_of("sft", folder) / "model"), "sentences": sentences}
    if "held_out_evaluation" in settings:
        run_stage("held_out_evaluation", folder, {**settings["held_out_evaluation"], **recogniser})
        run_calibration(folder, settings["calibration"], "held_out_evaluation")
    metrics = run_stage("evaluation", folder, {**settings["evaluation"], **recogniser})
    if "calibration" in settings and "held_out_evaluation" not in settings:
        run_calibration(folder, settings["calibration"], "evaluation")
    return metrics


def run_calibration(folder: Path, settings: dict, evaluation: str) -> None:
    """
    Calibrates the recogniser of a run. Warns if its held-out recordings do not tell the temperature, such as when all of them
    are recognised.

    Args:
        folder: of the run.
        settings: of the stage "calibration".
        evaluation: stage that evaluated the held-out recordings.
    """
    from action_llm_recipes.metrics.calibration import CalibrationError

    model, evaluations = str(folder_of("sft", folder) / "model"), [str(folder_of(evaluation, folder))]
    try:
        run_stage("calibration", folder, {**settings, "model": model, "evaluations": evaluations})
    except CalibrationError as error:
        logger.warning("The recogniser is not calibrated: %s", error)


def choose_pipeline(arguments: PipelineArguments, data: DataArguments) -> str:
    """
    The pipeline of the arguments, or the default one for the recordings.

    Raises:
        ValueError: if the pipeline does not read such recordings.
    """
    pipeline = arguments.paper or ("lvlm_var" if data.is_video else "llm_ar")
    if data.is_video == (pipeline == "llm_ar"):
        expected = "lvlm_var or vt_lvlm_ar for videos" if data.is_video else "llm_ar for skeletons"
        raise ValueError(f"--paper: expected {expected}, found {pipeline!r}.")
    return pipeline


def read_all_settings(arguments: PipelineArguments, pipeline: str) -> tuple[PipelineArguments, dict[str, dict]]:
    """The settings of all stages of a pipeline, from their YAML files, and the arguments with the models that the files
    name."""
    is_video = pipeline != "llm_ar"
    stages = [*["features"] * is_video, "tokenizer", "sft"]
    files = {stage: read_yaml(getattr(arguments, f"{stage}_config"), stage, pipeline)[0] for stage in stages}
    arguments = with_models_of_files(arguments, files)
    settings = {stage: read_settings(arguments, stage, pipeline) for stage in stages}
    # Only VT-LVLM-AR asks, because the answer may be on the Hub.
    has_vision = pipeline == "vt_lvlm_ar" and arguments.llm_name_or_path is not None and is_lvlm(arguments)
    if has_vision and arguments.backbone is None:
        # The projector of an LVLM reads only features of its own vision tower.
        arguments = dataclasses.replace(arguments, backbone=arguments.llm_name_or_path)
        settings["features"].setdefault("backbone_revision", arguments.llm_revision)
    trained = []
    if is_video and arguments.backbone is None:
        trained.append("backbone")
    if pipeline == "vt_lvlm_ar" and not has_vision:
        trained.append("lvlm")
    return arguments, settings | {stage: read_settings(arguments, stage, pipeline) for stage in trained}


def check_models(arguments: PipelineArguments, data: DataArguments) -> None:
    """Raises `ValueError` if an option of a model has no effect."""
    if arguments.llm_revision is not None and arguments.llm_name_or_path is None:
        raise ValueError("--llm_revision needs --llm_name_or_path: it is a commit of that repository.")
    if arguments.backbone is not None and not data.is_video:
        raise ValueError(f"--backbone is for videos, but {data.protocol()} has skeletons.")


def fit_to_recordings(
    arguments: PipelineArguments,
    data: DataArguments,
    settings: dict[str, dict],
    overrides: dict[str, dict],
    splits,
) -> tuple[dict[str, dict], RecordingCounts]:
    """
    Adapts default settings to the number of recordings: their steps, and early stopping where it is chosen.

    Args:
        arguments, data: of the recipe.
        settings: settings of each stage.
        overrides: settings of stages from the command line, which are not changed.
        splits: the data set.

    Returns:
        The settings, and the numbers of recordings and encodings.

    Raises:
        ValueError: if there are no recordings to train on or to evaluate, or encodings that do not exist are asked for.
    """
    from action_llm.recording_versions import check_versions_differ

    if "train" not in splits:
        raise ValueError(
            f"{' and '.join(data.folders)} has no training recordings: mark some, or choose a protocol that trains on those "
            "that are there."
        )
    if "test" not in splits and not arguments.hold_out:
        raise ValueError(
            f"{' and '.join(data.folders)} has no test recordings: mark some, or evaluate on held-out ones with --hold_out "
            "true."
        )
    train, stops_early = splits["train"], chooses_early_stopping(arguments, splits["train"])
    if data.held_out_subjects and not (arguments.hold_out or stops_early):
        logger.warning(
            "--held_out_subjects has no effect without --hold_out true: all training subjects are trained on."
        )
    rows = without_held_out(train, arguments.hold_out or stops_early)
    fitted = {
        stage: scale_steps(values, len(rows)) if getattr(arguments, f"{stage}_config") is None else values
        for stage, values in settings.items()
    }
    # Early stopping is planned for the steps of the command line.
    fitted = {stage: values | overrides.get(stage, {}) for stage, values in fitted.items()}
    encodings, test_encodings = count_encodings(arguments, fitted.get("features"))
    extractor = extractor_settings(fitted, train)
    for name, count in (("encodings", encodings), ("test_encodings", test_encodings)):
        check_versions_differ(extractor, count, f"--{name}")
    if stops_early:
        fitted = {stage: with_early_stopping(stage, values, len(rows) * encodings) for stage, values in fitted.items()}
    fitted = {stage: values | overrides.get(stage, {}) for stage, values in fitted.items()}
    held_out, test = len(train) - len(rows), len(splits["test"]) if "test" in splits else 0
    return fitted, RecordingCounts(len(rows), held_out, test, arguments.hold_out, encodings, test_encodings)


def read_settings(arguments: PipelineArguments, stage: str, pipeline: str) -> dict:
    """The settings of a stage: those of its YAML file, with the types of the recipe's fields, and the seed and `hold_out` of
    the run."""
    config = getattr(arguments, f"{stage}_config")
    settings, path = read_yaml(config, stage, pipeline)
    models = {name: getattr(arguments, name) for name in ("llm_name_or_path", "backbone")}
    models = {name: value for name, value in models.items() if value is not None}
    classes = classes_of(stage, settings, path)
    settings = typed(classes, without_paired(classes, settings, models, path), prefix=f"{path}: ")
    if stage == "sft" and models.get("llm_name_or_path") and config is None and settings["method"] == "full":
        settings["method"] = "lora"  # `full` in the default file is for the small language model
    if stage == "features" and arguments.backbone and config is None and not pretraining_record(arguments.backbone):
        settings |= PRETRAINED_FEATURES
    return {**settings, "seed": arguments.seed} | ({} if stage == "features" else {"hold_out": arguments.hold_out})


def with_models_of_files(arguments: PipelineArguments, files: dict[str, dict]) -> PipelineArguments:
    """The arguments, with the language model and the visual encoder from YAML files where the command line names none.

    Raises:
        ValueError: if the files of stage 1 and stage 2 name different language models.
    """
    changed = {}
    models = {
        (settings["llm_name_or_path"], settings.get("llm_revision"))
        for settings in files.values()
        if "llm_name_or_path" in settings
    }
    if arguments.llm_name_or_path is None and models:
        if len(models) > 1:
            raise ValueError(
                "tokenizer_config and sft_config name different language models or commits "
                f"({', '.join(sorted(map(str, models)))}): set --llm_name_or_path to choose one."
            )
        changed["llm_name_or_path"], revision = models.pop()
        if arguments.llm_revision is None:
            changed["llm_revision"] = revision
    if arguments.backbone is None and "backbone" in files.get("features", {}):
        changed["backbone"] = files["features"]["backbone"]
    return dataclasses.replace(arguments, **changed)


def is_lvlm(arguments: PipelineArguments) -> bool:
    """Whether the language model is of the LLaVA family: it has a vision tower and a projector."""
    from action_llm.language_models import language_model_config, projected_layer

    return projected_layer(language_model_config(arguments.llm_name_or_path, arguments.llm_revision)) is not None


def chooses_early_stopping(arguments: PipelineArguments, train) -> bool:
    """Whether stage 2 stops early, by the loss on the held-out recordings of the training split `train`."""
    if arguments.early_stopping is not None:
        return arguments.early_stopping
    is_few = len(train) < FEW_RECORDINGS and arguments.sft_config is None and not arguments.hold_out
    return is_few and 0 < sum(train["held_out"]) < len(train)


def extractor_settings(settings: dict[str, dict], train) -> dict:
    """The settings of the feature extractor, by the settings of the stages; the joint layout may come from the recordings in
    `train`."""
    from action_llm_recipes import extract_features
    from action_llm_recipes.stages import skeleton_stage

    if "features" in settings:
        values, arguments = settings["features"], extract_features.VideoArguments
    else:
        values, arguments = settings["tokenizer"], skeleton_stage.SkeletonArguments
    resolved = {option.name: values.get(option.name, option.default) for option in dataclasses.fields(arguments)}
    if "layout" in resolved and resolved["layout"] is None:
        resolved["layout"] = usual_layout(train)
    return resolved


def unseen_classes(splits) -> list[str]:
    """The test classes, if none of them is a training class; none in ordinary protocols."""
    if "test" not in splits:
        return []
    training, test = (splits[split].features["label"].names for split in ("train", "test"))
    return [] if set(training) & set(test) else test


def count_encodings(arguments: PipelineArguments, features: dict | None) -> tuple[int, int]:
    """The number of encodings per training recording, and per evaluated recording.

    Args:
        arguments: of the recipe.
        features: settings of `extract_features.py`, with the number of versions of a video; None for skeletons.

    Raises:
        ValueError: if more encodings are asked for than there are versions.
    """
    # Skeletons can be augmented any number of times.
    versions, test_versions = 24, None
    if features is not None:
        versions, test_versions = features.get("versions", 1), features.get("test_versions", 1)
    encodings = versions if arguments.encodings is None else arguments.encodings
    if features is not None and encodings > versions:
        raise ValueError(
            f"--encodings {encodings}: features have {versions} versions per training video; set --features.versions."
        )
    # Held-out recordings are training recordings.
    limit = encodings if arguments.hold_out else test_versions
    test_encodings = (limit or encodings) if arguments.test_encodings is None else arguments.test_encodings
    if limit is not None and test_encodings > limit:
        split = "held-out" if arguments.hold_out else "test"
        raise ValueError(f"--test_encodings {test_encodings}: {split} recordings have {limit} encodings each.")
    return encodings, test_encodings


def cli():
    """The command `action-llm-run`."""
    launch(main, *ARGUMENTS, resumes=True)


if __name__ == "__main__":
    cli()
