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
`--hold_out true` evaluates on the recordings that select, and leaves the test alone.

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

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_datasets.names import did_you_mean
from action_llm_recipes.common.data_arguments import DataArguments, without_held_out
from action_llm_recipes.common.launching import from_settings, launch, option_names, with_defaults, without_paired
from action_llm_recipes.common.run_plan import RecordingCounts, show_plan, training_steps
from action_llm_recipes.common.written_folders import check_model_folder

logger = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent / "configs"
LINES = ("llm_ar", "lvlm_var", "vt_lvlm_ar")
# Of the stages that are not made again.
FOLDERS = {
    "backbone": "backbone",
    "features": "features",
    "lvlm": "small_lvlm",
    "tokenizer": "tokenizer",
    "encode": "sentences",
    "sft": "sft",
}

# Training recordings that the default settings are for, at least; with fewer, steps are fewer, but not below this share.
FEW_RECORDINGS, LEAST_SHARE = 200, 0.1
SCALED = ("max_steps", "warmup_steps", "lr_drop_step", "save_steps", "logging_steps")
# Early stopping looks at the held-out recordings so often, and stops after so many looks that found nothing better.
EVALUATIONS, PATIENCE = 10, 3


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
            "help": "sentences a training recording (encode_actions.py); by default 24 of skeletons, and of videos as many as "
            "there are versions of their features"
        },
    )
    test_encodings: int | None = field(
        default=None,
        metadata={
            "help": "sentences a recording that is evaluated, whose class probabilities are averaged; by default as many of "
            "skeletons and of held-out videos, and of test videos as many as there are versions of their features"
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
        for stage in ("tokenizer", "sft", "features", "backbone", "lvlm"):
            path = getattr(self, f"{stage}_config")
            if path is not None and not Path(path).is_file():
                raise ValueError(f"--{stage}_config: there is no file {path}.")
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
    """Runs the line; returns the metrics of its evaluation."""
    from action_llm.recording_versions import check_versions_differ

    folder, videos = Path(arguments.output_dir), "-video" in data.dataset
    line = arguments.line or ("lvlm_var" if videos else "llm_ar")
    if line not in LINES or videos == (line == "llm_ar"):
        raise ValueError(
            f"--line: expected {'lvlm_var or vt_lvlm_ar, which read videos' if videos else 'llm_ar, which reads skeletons'}, "
            f"found {line!r}"
        )
    # All settings are checked before anything is trained, and the YAML files before the heavy libraries are imported.
    stages = [*["features"] * videos, "tokenizer", "sft"]
    arguments = with_models_of_files(arguments, {stage: read_yaml(arguments, stage, line)[0] for stage in stages})
    settings = {stage: read_settings(arguments, stage, line) for stage in stages}
    sees = arguments.llm_name_or_path is not None and reads_pictures(arguments)
    if line == "vt_lvlm_ar" and sees and arguments.backbone is None:
        # Its projector reads nothing but its own vision tower.
        arguments = dataclasses.replace(arguments, backbone=arguments.llm_name_or_path)
        settings["features"].setdefault("backbone_revision", arguments.llm_revision)
    added = [*["backbone"] * (videos and arguments.backbone is None), *["lvlm"] * (line == "vt_lvlm_ar" and not sees)]
    settings |= {stage: read_settings(arguments, stage, line) for stage in added}
    check_line(line, settings)
    if arguments.llm_revision is not None and arguments.llm_name_or_path is None:
        raise ValueError("--llm_revision is of a language model: set --llm_name_or_path, too.")
    if arguments.backbone is not None and not videos:
        raise ValueError(f"--backbone is for videos: {data.dataset} has skeletons.")
    if reads_latents(settings["tokenizer"], settings["sft"]) and arguments.sft_config is None:
        settings["sft"]["standardize_words"] = False  # which is about tokens
    check_latents(settings["tokenizer"], settings["sft"])
    splits = data.load("videos" if videos else "skeletons")
    if "test" not in splits and not arguments.hold_out:
        raise ValueError(
            f"{data.data_dir} has no test recordings: mark some, or evaluate on held-out ones with --hold_out true."
        )
    stops_early = chooses_early_stopping(arguments, splits["train"])
    rows = without_held_out(splits["train"], arguments.hold_out or stops_early)  # raises where there are none
    shipped = [stage for stage in settings if getattr(arguments, f"{stage}_config") is None]
    settings |= {stage: scale_steps(settings[stage], len(rows)) for stage in shipped}
    encodings, test_encodings = count_sentences(arguments, settings.get("features"))
    reading = read_recordings(settings, splits["train"])
    for name, count in (("encodings", encodings), ("test_encodings", test_encodings)):
        check_versions_differ(reading, count, f"--{name}")
    if stops_early:
        settings = {stage: with_early_stopping(stage, own, len(rows) * encodings) for stage, own in settings.items()}
    llm, unseen = arguments.llm_name_or_path, [] if arguments.hold_out else unseen_classes(splits)
    if unseen and llm is not None:
        from action_llm_recipes.common.stage_records import check_unseen_text, llm_training

        check_unseen_text(llm_training(llm), unseen)
    held_out, test = len(splits["train"]) - len(rows), len(splits["test"]) if "test" in splits else 0
    counts = RecordingCounts(len(rows), held_out, test, arguments.hold_out, encodings, test_encodings)
    resolved = {stage: with_defaults(parts_of(stage, own, "settings"), own) for stage, own in settings.items()}
    from action_llm_recipes.common.run_folder import RunFolder

    done = {stage for stage, part in FOLDERS.items() if RunFolder.has_record(folder / part)}
    # Another seed would make another language model before a stage refused it.
    RunFolder(folder).check_identity({"line": line, "dataset": data.dataset, "seed": arguments.seed})
    show_plan(resolved, counts, makes_llm=llm is None, done=done)

    if llm is None:
        from action_llm_recipes.pretraining.small_lm import SmallLMArguments, kept_small_lm

        unseen_of = data.dataset.partition("-video")[0] if unseen else None
        llm = kept_small_lm(SmallLMArguments(unseen_of=unseen_of), arguments.seed)
    if videos:
        if arguments.backbone is None:
            train_backbone(data, folder, settings["backbone"])
        backbone = arguments.backbone or str(folder / "backbone" / "model")
        data = extract_features(data, backbone, folder, settings["features"])
    if "lvlm" in settings:
        llm = make_lvlm(data, llm, folder, settings["lvlm"])
    elif arguments.llm_revision is not None:
        for stage in ("tokenizer", "sft"):
            settings[stage]["llm_revision"] = arguments.llm_revision
    split = "held_out" if arguments.hold_out else "test"
    return run_line(
        data, llm, folder, settings["tokenizer"], settings["sft"], encodings, test_encodings, split, bool(unseen)
    )


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
    if stage == "features":
        return settings
    settings = settings | {"hold_out": True}
    if stage != "sft":
        return settings
    steps = training_steps(with_defaults(parts_of(stage, settings, "settings"), settings), sentences)
    between = max(1, steps // EVALUATIONS)
    looks = dict.fromkeys(("eval_steps", "save_steps"), between)
    looks |= {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}
    looks |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    return settings | looks | {"early_stopping": PATIENCE}


def reads_latents(tokenizer_settings: dict, sft_settings: dict) -> bool:
    """Whether the language model reads continuous latents: the action model has no codebook, or a layer is named for them."""
    return not tokenizer_settings.get("quantize", True) or sft_settings.get("injection_layer") is not None


def check_latents(tokenizer_settings: dict, sft_settings: dict) -> None:
    """Raises `ValueError` for settings of stage 2 that are about tokens where latents are read."""
    if not reads_latents(tokenizer_settings, sft_settings):
        return
    for name in ("standardize_words", "run_lengths", "explanations", "packing", "padding_free"):
        if sft_settings.get(name):
            raise ValueError(
                f"{name} needs tokens, but the language model is to read continuous latents (quantize: false, or "
                f"injection_layer): set {name}: false in the settings of sft."
            )
    if sft_settings.get("method") == "none":
        raise ValueError(
            "method none trains nothing, but continuous latents need a trained projection: set another method."
        )


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


def check_line(line: str, settings: dict) -> None:
    """Raises `ValueError` for settings that are those of another line, or that a model does not take."""
    from action_llm import VTEMConfig

    expected = {"llm_ar": "action_vqvae", "lvlm_var": "vst", "vt_lvlm_ar": "vtem"}[line]
    found = settings["tokenizer"].get("action_model", "action_vqvae")
    if found != expected:
        raise ValueError(f"the line {line} has the action model {expected}, the settings of the tokenizer {found!r}.")
    if line == "vt_lvlm_ar":
        if settings["features"].get("grid") is None:
            raise ValueError(
                "the line vt_lvlm_ar reads cells: set grid in the settings of the features, to 1 or more."
            )
        VTEMConfig(
            **{name: value for name, value in settings["tokenizer"].items() if name in VTEMConfig.__annotations__}
        )


def read_settings(arguments: LineArguments, stage: str, line: str) -> dict:
    """Settings of one stage, of its YAML.

    Raises:
        ValueError: the file is no YAML of settings, or has one that the recipe does not know; names the file.
    """
    settings, path = read_yaml(arguments, stage, line)
    models = {name: getattr(arguments, name) for name in ("llm_name_or_path", "backbone")}
    models = {name: value for name, value in models.items() if value is not None}
    settings = without_paired(parts_of(stage, settings, path), settings, models, path)
    own_file = getattr(arguments, f"{stage}_config") is not None
    if stage == "sft" and models.get("llm_name_or_path") and not own_file and settings["method"] == "full":
        settings["method"] = "lora"  # all weights are for the small language model that is made here
    return {**settings, "seed": arguments.seed} | ({} if stage == "features" else {"hold_out": arguments.hold_out})


def read_yaml(arguments: LineArguments, stage: str, line: str) -> tuple[dict, Path]:
    """What the YAML of a stage says, and its path; raises as `read_settings`."""
    import yaml

    name = f"utd_mhad_{stage}.yaml" if line == "vt_lvlm_ar" else f"small_{stage}.yaml"
    path = Path(getattr(arguments, f"{stage}_config") or CONFIGS / line / name)
    try:
        settings = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected YAML, found {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected settings of the stage {stage}, found {settings!r}")
    known = option_names(parts_of(stage, settings, path))
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"{path}: the stage {stage} has no setting {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    return settings, path


def parts_of(stage: str, settings: dict, path) -> tuple:
    """The argument classes of the recipe of a stage, in their order."""
    from action_llm_recipes import extract_features, sft, train_tokenizer
    from action_llm_recipes.pretraining import backbone, small_lvlm

    if stage == "tokenizer":
        kind = settings.get("action_model", "action_vqvae")
        if kind not in train_tokenizer.STAGES:
            raise ValueError(
                f"{path}: action_model: expected one of {', '.join(train_tokenizer.STAGES)}, found {kind!r}"
            )
        own = train_tokenizer.STAGES[kind].ARGUMENTS
        return (train_tokenizer.TokenizerArguments, DataArguments, *own, train_tokenizer.TokenizerTrainingArguments)
    return {
        "backbone": (
            backbone.BackboneArguments,
            DataArguments,
            backbone.VideoArguments,
            backbone.BackboneTrainingArguments,
        ),
        "features": (extract_features.FeatureArguments, DataArguments, extract_features.VideoArguments),
        "lvlm": (
            small_lvlm.SmallLVLMArguments,
            DataArguments,
            small_lvlm.SmallLVLMTrainingArguments,
        ),
        "sft": (sft.ActionSFTArguments, sft.ActionSFTConfig),
    }[stage]


def train_backbone(data: DataArguments, folder: Path, settings: dict):
    """A visual encoder of one's own, in `folder`/backbone; `settings` is what a YAML of `pretraining/backbone.py` holds."""
    from action_llm_recipes.pretraining import backbone as recipe

    derived = {"output_dir": str(folder / "backbone")}
    recipe.main(*from_settings(parts_of("backbone", settings, "settings"), {**settings, **_fields(data), **derived}))


def extract_features(data: DataArguments, backbone: str, folder: Path, settings: dict) -> DataArguments:
    """Features of videos, in `folder`/features, as the data of the line; `settings` as in a YAML of `extract_features.py`."""
    from action_llm_recipes import extract_features as recipe

    derived = {"output_dir": str(folder / "features"), "backbone": backbone}
    recipe.main(*from_settings(parts_of("features", settings, "settings"), {**settings, **_fields(data), **derived}))
    return DataArguments(dataset="features", data_dir=derived["output_dir"])


def make_lvlm(data: DataArguments, llm: str, folder: Path, settings: dict) -> str:
    """A language model that sees, in `folder`/small_lvlm; `settings` is what a YAML of `pretraining/small_lvlm.py` holds."""
    from action_llm_recipes.pretraining import small_lvlm as recipe

    derived = {"output_dir": str(folder / "small_lvlm"), "llm_name_or_path": llm}
    recipe.main(*from_settings(parts_of("lvlm", settings, "settings"), {**settings, **_fields(data), **derived}))
    return str(folder / "small_lvlm" / "model")


def run_line(
    data: DataArguments,
    llm: str,
    folder: Path,
    tokenizer_settings: dict,
    sft_settings: dict,
    encodings: int,
    test_encodings: int = 1,
    split: str = "test",
    unseen: bool = False,
) -> dict:
    """The four stages, each in its folder under `folder`.

    Args:
        data: the recordings: skeletons, or features of videos.
        llm: the language model, a repository or a folder.
        folder: of the run.
        tokenizer_settings, sft_settings: what a YAML of `train_tokenizer.py` and of `sft.py` holds. Their seed is that of the
            other stages too.
        encodings: sentences a training recording.
        test_encodings: sentences a recording that is evaluated, whose class probabilities are averaged.
        split: which recordings are evaluated, "test" or "held_out".
        unseen: whether the test classes were left out of every stage of training.

    Returns:
        The metrics of the evaluation.

    Raises:
        ValueError: a setting that the recipe does not know.
    """
    from action_llm_recipes import encode_actions as encode
    from action_llm_recipes import evaluate_classifier as evaluation
    from action_llm_recipes import sft
    from action_llm_recipes import train_tokenizer as stage1

    seed = tokenizer_settings.get("seed", 0)
    own = _fields(data)
    tokenizer, sentences, model = (str(folder / part) for part in ("tokenizer/model", "sentences", "sft/model"))
    derived = {"llm_name_or_path": llm, "output_dir": str(folder / "tokenizer")}
    parts = parts_of("tokenizer", tokenizer_settings, "settings")
    stage1.main(*from_settings(parts, {**tokenizer_settings, **own, **derived}))
    encode.main(
        encode.EncodingArguments(
            tokenizer=tokenizer,
            output_dir=sentences,
            encodings=encodings,
            test_encodings=1 if split == "held_out" else test_encodings,  # held-out recordings have `encodings`
            latents=reads_latents(tokenizer_settings, sft_settings),
            seed=seed,
        ),
        data,
    )
    derived = {"tokenizer": tokenizer, "sentences": sentences, "llm_name_or_path": llm}
    parts = (sft.ActionSFTArguments, sft.ActionSFTConfig)
    sft.main(*from_settings(parts, {**sft_settings, **derived, "output_dir": str(folder / "sft")}))
    return evaluation.main(
        evaluation.EvaluationArguments(
            model=model,
            sentences=sentences,
            output_dir=str(folder / "evaluation"),
            split=split,
            encodings=test_encodings,
            unseen=unseen,
        )
    )


def _fields(data: DataArguments) -> dict:
    return dataclasses.asdict(data)


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
