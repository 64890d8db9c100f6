"""
The whole line of LLM-AR, LVLM-VAR or VT-LVLM-AR in one command: action model, sentences, language model, evaluation.

```bash
python -m action_llm_datasets.folder my_recordings --pattern '(?P<label>\\w+)_person(?P<person>\\d+).*' --test person=3,7 \\
    --layout kinect20 --fps 30
python recipes/run_line.py --dataset folder --data_dir my_recordings --output_dir runs/mine
python recipes/run_line.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --output_dir runs/video
python recipes/run_line.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --line vt_lvlm_ar --output_dir runs/events
```

It runs `train_tokenizer.py`, `encode_actions.py`, `sft.py` and `evaluate_classifier.py` after each other, and, with videos,
`extract_features.py` before them; each with the settings of a YAML file, by default those for a few hundred recordings on
two cores. Without `--llm_name_or_path` it first makes a small language model, once on a machine, and, with videos, without
`--backbone` a small visual encoder; `vt_lvlm_ar` makes a small LVLM of both, where the language model sees nothing.
`--hold_out true` evaluates on the recordings that select, and leaves the test alone; `--held_out_subjects 3` says whose they
are, so that settings can be chosen by each training subject in turn:

```bash
for subject in 1 3 5 7; do
    python recipes/run_line.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --hold_out true --held_out_subjects $subject \\
        --output_dir runs/without_$subject
done
```

The default settings are for 200 training recordings or more. Of n that are fewer, a stage takes n / 200 of its steps, a tenth
at least, and where some of them are held out (`--validation` of a folder), these are left out of training, and stage 2 stops
when the loss on them no longer falls. Settings in a file of your own are taken as they are.

A plan of stages, steps and time is shown before anything is trained. Run the same command again to continue a run that was
stopped.

With `quantize: false` in the settings of the tokenizer, or `injection_layer` in those of sft, the language model reads
continuous latents (LLM-AR, Table 5). Of a protocol whose test classes are unseen (`ntu120-unseen-0`), the class list is written
into the prompt (Table 8), and the small language model reads no text with their names.
"""

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm.model_files import as_written
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_datasets.names import did_you_mean
from action_llm_recipes.common.data_arguments import DataArguments, without_held_out
from action_llm_recipes.common.launching import launch, with_defaults, without_paired
from action_llm_recipes.common.stage_records import check_unseen_text, llm_training
from action_llm_recipes.common.written_folders import check_model_folder
from action_llm_recipes.pipeline.plan import RecordingCounts, show_plan
from action_llm_recipes.pipeline.settings import (
    FEW_RECORDINGS,
    check_latents,
    check_line,
    read_overrides,
    read_yaml,
    reads_latents,
    scale_steps,
    with_early_stopping,
)
from action_llm_recipes.pipeline.stages import STAGES, WITH_SETTINGS, classes_of, run_stage

logger = logging.getLogger(__name__)

LINES = ("llm_ar", "lvlm_var", "vt_lvlm_ar")


@dataclass
class LineArguments:
    """Which settings, and which language model."""

    output_dir: str = field(metadata={"help": "folder of the run; each stage has one of its own in it"})
    line: str | None = field(
        default=None,
        metadata={"help": "llm_ar, of skeletons; lvlm_var, the default of videos; or vt_lvlm_ar, of videos"},
    )
    tokenizer_config: str | None = field(default=None, metadata={"help": "settings of train_tokenizer.py, a YAML"})
    sft_config: str | None = field(default=None, metadata={"help": "settings of sft.py, a YAML"})
    features_config: str | None = field(default=None, metadata={"help": "settings of extract_features.py, a YAML"})
    backbone_config: str | None = field(default=None, metadata={"help": "settings of pretraining/backbone.py, a YAML"})
    lvlm_config: str | None = field(default=None, metadata={"help": "settings of pretraining/small_lvlm.py, a YAML"})
    settings: dict = field(
        default_factory=dict,
        metadata={
            "help": "Any setting of a stage: --STAGE.SETTING VALUE, such as --sft.learning_rate 1e-3, of "
            f"{', '.join(STAGES)}; the --help of a recipe lists its settings.",
            "dotted": True,
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={"help": "visual encoder of videos: repository or folder; by default a small one is trained"},
    )
    llm_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "language model: repository or folder, of which LoRA is trained unless sft_config says otherwise; by "
            "default that of sft_config and tokenizer_config, or a small one, which is made once on a machine"
        },
    )
    llm_revision: str | None = field(
        default=None,
        metadata={"help": "commit of the language model's repository", "belongs_to": "llm_name_or_path"},
    )
    encodings: int | None = field(
        default=None,
        metadata={
            "help": "number of encodings per training recording (encode_actions.py); by default 24 of skeletons, and of "
            "videos as many as there are versions of their features"
        },
    )
    test_encodings: int | None = field(
        default=None,
        metadata={
            "help": "number of encodings per evaluated recording, whose class probabilities are averaged; by default as many "
            "of skeletons and of held-out videos, and of test videos as many as there are versions of their features"
        },
    )
    hold_out: bool = field(
        default=False, metadata={"help": "leave the held-out training recordings out, and evaluate on them"}
    )
    early_stopping: bool | None = field(
        default=None,
        metadata={
            "help": "leave the held-out training recordings out, and stop stage 2 when the loss on them no longer falls; by "
            f"default with fewer than {FEW_RECORDINGS} training recordings, default settings, and some that are held out"
        },
    )
    seed: int = field(default=0, metadata={"help": "seed of every stage"})

    def __post_init__(self):
        for name in ("llm_name_or_path", "backbone"):
            if getattr(self, name) is not None:
                check_model_folder(getattr(self, name))
        for stage in WITH_SETTINGS:
            path = getattr(self, f"{stage}_config")
            if path is not None and not Path(path).is_file():
                raise ValueError(f"--{stage}_config: there is no file {path}.")
        for stage, given in self.settings.items():
            if stage not in STAGES:
                raise ValueError(f"there is no stage {as_written(stage)}{did_you_mean(str(stage), STAGES)}")
            if not isinstance(given, dict) or not given:
                raise ValueError(f"settings: {stage}: expected settings and their values, got {as_written(given)}.")
        for name in ("encodings", "test_encodings"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}.")
        if self.early_stopping and self.hold_out:
            raise ValueError(
                "--early_stopping reads the recordings that --hold_out evaluates on, which would flatter the result: set one."
            )


ARGUMENTS = (LineArguments, DataArguments)


@writes_output_dir
def main(arguments: LineArguments, data: DataArguments) -> dict:
    """Runs the pipeline; returns the metrics of its evaluation."""
    line = choose_line(arguments, data)
    # All settings are checked before anything is trained, and the YAML files before the heavy libraries are imported.
    arguments, settings = read_all_settings(arguments, line)
    overrides = read_overrides(arguments.settings, settings | {"encode": {}, "evaluation": {}})
    settings = {stage: own | overrides.get(stage, {}) for stage, own in settings.items()}
    if (
        reads_latents(settings)
        and arguments.sft_config is None
        and "standardize_words" not in overrides.get("sft", {})
    ):
        settings["sft"]["standardize_words"] = False  # which is about tokens
    check_line(line, settings)
    check_latents(settings)
    check_models(arguments, data)

    splits = data.load("videos" if reads_videos(data) else "skeletons")
    settings, counts = fit_to_recordings(arguments, data, settings, overrides, splits)
    llm, unseen = arguments.llm_name_or_path, [] if arguments.hold_out else unseen_classes(splits)
    if unseen and llm is not None:
        check_unseen_text(llm_training(llm), unseen)
    settings["encode"] = {
        "encodings": counts.encodings,
        # Held-out recordings are training recordings, and have their encodings.
        "test_encodings": 1 if arguments.hold_out else counts.test_encodings,
        **overrides.get("encode", {}),
    }
    settings["evaluation"] = {
        "encodings": counts.test_encodings,
        "split": "held_out" if arguments.hold_out else "test",
        "unseen": bool(unseen),
        **overrides.get("evaluation", {}),
    }
    begin(arguments, data, line, settings, counts)
    return run(arguments, data, settings, unseen)


def begin(arguments: LineArguments, data: DataArguments, line: str, settings: dict[str, dict], counts) -> None:
    """Checks that the folder is not of another run, and shows the plan."""
    from action_llm_recipes.common.run_folder import RunFolder

    folder = Path(arguments.output_dir)
    resolved = {stage: with_defaults(classes_of(stage, own), own) for stage, own in settings.items()}
    done = {name for name, stage in STAGES.items() if RunFolder.has_record(folder / stage.folder)} - {"evaluation"}
    # Another seed would make another language model before a stage refused it.
    subjects = {"held_out_subjects": data.held_out_subjects} if data.held_out_subjects else {}
    RunFolder(folder).check_identity({"line": line, "dataset": data.dataset, "seed": arguments.seed, **subjects})
    show_plan(resolved, counts, makes_llm=arguments.llm_name_or_path is None, done=done)


def run(arguments: LineArguments, data: DataArguments, settings: dict[str, dict], unseen: list[str]) -> dict:
    """Makes what the pipeline needs that is not given, and runs it; the settings are those of every stage."""
    folder, llm = Path(arguments.output_dir), arguments.llm_name_or_path
    if llm is None:
        from action_llm_recipes.pretraining.small_lm import SmallLMArguments, kept_small_lm

        unseen_of = data.dataset.partition("-video")[0] if unseen else None
        llm = kept_small_lm(SmallLMArguments(unseen_of=unseen_of), arguments.seed)
    if "features" in settings:
        backbone = arguments.backbone
        if backbone is None:
            run_stage("backbone", folder, {**settings["backbone"], **dataclasses.asdict(data)})
            backbone = str(folder / STAGES["backbone"].folder / "model")
        run_stage("features", folder, {**settings["features"], **dataclasses.asdict(data), "backbone": backbone})
        data = DataArguments(dataset="features", data_dir=str(folder / STAGES["features"].folder))
    revision = {}
    if "lvlm" in settings:
        run_stage("lvlm", folder, {**settings["lvlm"], **dataclasses.asdict(data), "llm_name_or_path": llm})
        llm = str(folder / STAGES["lvlm"].folder / "model")
    elif arguments.llm_revision is not None:
        revision = {"llm_revision": arguments.llm_revision}
    return run_line(data, {"llm_name_or_path": llm, **revision}, folder, settings)


def run_line(data: DataArguments, llm: dict[str, str], folder: Path, settings: dict[str, dict]) -> dict:
    """
    Action model, sentences, language model and evaluation, each in its folder under `folder`.

    Args:
        data: the recordings: skeletons, or features of videos.
        llm: `llm_name_or_path` of the language model and, of a repository, perhaps `llm_revision`.
        folder: of the run.
        settings: of the stages "tokenizer", "encode", "sft" and "evaluation". The seed of the tokenizer is that of the
            sentences, too.

    Returns:
        The metrics of the evaluation.

    Raises:
        ValueError: a setting that the recipe does not know.
    """
    own = dataclasses.asdict(data)
    run_stage("tokenizer", folder, {**settings["tokenizer"], **own, **llm})
    tokenizer, sentences = (str(folder / STAGES[stage].folder) for stage in ("tokenizer", "encode"))
    tokenizer = f"{tokenizer}/model"
    encoding = {
        "tokenizer": tokenizer,
        "latents": reads_latents(settings),
        "seed": settings["tokenizer"].get("seed", 0),
    }
    run_stage("encode", folder, {**settings["encode"], **own, **encoding})
    run_stage("sft", folder, {**settings["sft"], **llm, "tokenizer": tokenizer, "sentences": sentences})
    model = str(folder / STAGES["sft"].folder / "model")
    return run_stage("evaluation", folder, {**settings["evaluation"], "model": model, "sentences": sentences})


def reads_videos(data: DataArguments) -> bool:
    return "-video" in data.dataset


def choose_line(arguments: LineArguments, data: DataArguments) -> str:
    """The line of the arguments, or the default of the recordings; `ValueError` for one that does not read them."""
    videos = reads_videos(data)
    line = arguments.line or ("lvlm_var" if videos else "llm_ar")
    if line not in LINES or videos == (line == "llm_ar"):
        raise ValueError(
            f"--line: expected {'lvlm_var or vt_lvlm_ar, which read videos' if videos else 'llm_ar, which reads skeletons'}, "
            f"found {line!r}"
        )
    return line


def read_all_settings(arguments: LineArguments, line: str) -> tuple[LineArguments, dict[str, dict]]:
    """The settings of the stages of a line, of their YAML files, and the arguments with the models that these name."""
    videos = line != "llm_ar"
    stages = [*["features"] * videos, "tokenizer", "sft"]
    files = {stage: read_yaml(getattr(arguments, f"{stage}_config"), stage, line)[0] for stage in stages}
    arguments = with_models_of_files(arguments, files)
    settings = {stage: read_settings(arguments, stage, line) for stage in stages}
    sees = arguments.llm_name_or_path is not None and reads_pictures(arguments)
    if line == "vt_lvlm_ar" and sees and arguments.backbone is None:
        # Its projector reads nothing but its own vision tower.
        arguments = dataclasses.replace(arguments, backbone=arguments.llm_name_or_path)
        settings["features"].setdefault("backbone_revision", arguments.llm_revision)
    added = [*["backbone"] * (videos and arguments.backbone is None), *["lvlm"] * (line == "vt_lvlm_ar" and not sees)]
    return arguments, settings | {stage: read_settings(arguments, stage, line) for stage in added}


def check_models(arguments: LineArguments, data: DataArguments) -> None:
    """Raises `ValueError` for models that are named where none is read."""
    if arguments.llm_revision is not None and arguments.llm_name_or_path is None:
        raise ValueError("--llm_revision is of a language model: set --llm_name_or_path, too.")
    if arguments.backbone is not None and not reads_videos(data):
        raise ValueError(f"--backbone is for videos: {data.dataset} has skeletons.")


def fit_to_recordings(
    arguments: LineArguments, data: DataArguments, settings: dict[str, dict], overrides: dict[str, dict], splits
) -> tuple[dict[str, dict], RecordingCounts]:
    """The settings with as many steps as the recordings can use, with early stopping where it is chosen; and the counts.

    Settings that were given by hand stay as they are.
    """
    from action_llm.recording_versions import check_versions_differ

    if "test" not in splits and not arguments.hold_out:
        raise ValueError(
            f"{data.data_dir} has no test recordings: mark some, or evaluate on held-out ones with --hold_out true."
        )
    train, stops_early = splits["train"], chooses_early_stopping(arguments, splits["train"])
    if data.held_out_subjects and not (arguments.hold_out or stops_early):
        logger.warning(
            "--held_out_subjects changes nothing: without --hold_out true, all training subjects are trained on."
        )
    rows = without_held_out(train, arguments.hold_out or stops_early)  # raises where there are none
    fitted = {
        stage: scale_steps(own, len(rows)) if getattr(arguments, f"{stage}_config") is None else own
        for stage, own in settings.items()
    }
    encodings, test_encodings = count_sentences(arguments, fitted.get("features"))
    reading = read_recordings(fitted, train)
    for name, count in (("encodings", encodings), ("test_encodings", test_encodings)):
        check_versions_differ(reading, count, f"--{name}")
    if stops_early:
        fitted = {stage: with_early_stopping(stage, own, len(rows) * encodings) for stage, own in fitted.items()}
    fitted = {stage: own | overrides.get(stage, {}) for stage, own in fitted.items()}
    held_out, test = len(train) - len(rows), len(splits["test"]) if "test" in splits else 0
    return fitted, RecordingCounts(len(rows), held_out, test, arguments.hold_out, encodings, test_encodings)


def read_settings(arguments: LineArguments, stage: str, line: str) -> dict:
    """Settings of one stage, of its YAML, with the seed and the held-out recordings of the run."""
    own_file = getattr(arguments, f"{stage}_config")
    settings, path = read_yaml(own_file, stage, line)
    models = {name: getattr(arguments, name) for name in ("llm_name_or_path", "backbone")}
    models = {name: value for name, value in models.items() if value is not None}
    settings = without_paired(classes_of(stage, settings, path), settings, models, path)
    if stage == "sft" and models.get("llm_name_or_path") and own_file is None and settings["method"] == "full":
        settings["method"] = "lora"  # all weights are for the small language model that is made here
    return {**settings, "seed": arguments.seed} | ({} if stage == "features" else {"hold_out": arguments.hold_out})


def with_models_of_files(arguments: LineArguments, files: dict[str, dict]) -> LineArguments:
    """The arguments with the language model and the visual encoder that files of settings name, where they name none.

    Raises:
        ValueError: the files of stage 1 and stage 2 name different language models.
    """
    changed = {}
    named = {(own["llm_name_or_path"], own.get("llm_revision")) for own in files.values() if "llm_name_or_path" in own}
    if arguments.llm_name_or_path is None and named:
        if len(named) > 1:
            raise ValueError(
                "tokenizer_config and sft_config name different language models or commits "
                f"({', '.join(sorted(map(str, named)))}): set --llm_name_or_path to one."
            )
        changed["llm_name_or_path"], revision = named.pop()
        if arguments.llm_revision is None:
            changed["llm_revision"] = revision
    if arguments.backbone is None and "backbone" in files.get("features", {}):
        changed["backbone"] = files["features"]["backbone"]
    return dataclasses.replace(arguments, **changed)


def reads_pictures(arguments: LineArguments) -> bool:
    """Whether the language model is one of the LLaVA family."""
    from transformers import AutoConfig

    from action_llm.language_models import projected_layer

    config = AutoConfig.from_pretrained(
        arguments.llm_name_or_path, revision=arguments.llm_revision or "main", trust_remote_code=False
    )
    return projected_layer(config) is not None


def chooses_early_stopping(arguments: LineArguments, train) -> bool:
    """Whether stage 2 stops by the held-out recordings of the training split `train`."""
    if arguments.early_stopping is not None:
        return arguments.early_stopping
    is_few = len(train) < FEW_RECORDINGS and arguments.sft_config is None and not arguments.hold_out
    return is_few and 0 < sum(train["held_out"]) < len(train)


def read_recordings(settings: dict, train) -> dict:
    """Settings of the feature extractor, by the settings of the stages and the training split `train`."""
    from action_llm_recipes import extract_features
    from action_llm_recipes.stages import skeleton_stage

    if "features" in settings:
        given, reading = settings["features"], extract_features.VideoArguments
    else:
        given, reading = settings["tokenizer"], skeleton_stage.SkeletonArguments
    made = {field.name: given.get(field.name, field.default) for field in dataclasses.fields(reading)}
    if "layout" in made and made["layout"] is None:
        made["layout"] = train[0]["layout"]
    return made


def unseen_classes(splits) -> list[str]:
    """The classes of the test, where no training recording is of any of them; none for an ordinary protocol."""
    if "test" not in splits:
        return []
    training, test = (splits[split].features["label"].names for split in ("train", "test"))
    return [] if set(training) & set(test) else test


def count_sentences(arguments: LineArguments, features: dict | None) -> tuple[int, int]:
    """Sentences of a training recording, and of one that is evaluated.

    Args:
        arguments: of the line.
        features: settings of `extract_features.py`, which says how many versions of a video there are; None of skeletons.

    Raises:
        ValueError: more than the number of versions of a recording.
    """
    # Of skeletons as many can be made as one likes.
    versions, test_versions = 24, None
    if features is not None:
        versions, test_versions = features.get("versions", 1), features.get("test_versions", 1)
    encodings = versions if arguments.encodings is None else arguments.encodings
    if features is not None and encodings > versions:
        raise ValueError(f"--encodings {encodings}: features are of {versions} versions of a training video.")
    # Held-out recordings are training recordings.
    most = encodings if arguments.hold_out else test_versions
    test_encodings = (most or encodings) if arguments.test_encodings is None else arguments.test_encodings
    if most is not None and test_encodings > most:
        kind = "held-out" if arguments.hold_out else "test"
        raise ValueError(f"--test_encodings {test_encodings}: {kind} recordings have {most} sentences each.")
    return encodings, test_encodings


def cli():
    """The command `action-llm-run`."""
    launch(main, *ARGUMENTS, resumes=True)


if __name__ == "__main__":
    cli()
