"""
Baselines: small classifiers of the same recordings or features, to compare the recogniser with.

```bash
python recipes/baselines/run_baselines.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/baselines
python recipes/baselines/run_baselines.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/loss \\
    --methods transformer latents codes tokens --sentences runs/utd_mhad/sentences
python recipes/baselines/run_baselines.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/rules \\
    --methods recogniser narration tokens_and_narration --sentences runs/utd_mhad/narrated --recogniser runs/utd_mhad/sft
python recipes/baselines/run_baselines.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --output_dir runs/video/pixels
python recipes/baselines/run_baselines.py --dataset features --data_dir runs/video/features --output_dir runs/video/loss \\
    --methods transformer latents codes tokens --sentences runs/video/sentences
```

| method | input for skeletons | input for videos | input for features of videos |
|---|---|---|---|
| kernel_ridge: kernel ridge regression | joints resampled in time, and their differences | pooled pixels | features |
| graph: a small ST-GCN | joints, bones and motion | | |
| transformer: a small transformer | joints, four frames per position | | features, a segment per position |
| latents: the same transformer | continuous latents (`encode_actions.py --latents true`) | | as for skeletons |
| codes: the same transformer | tokens, read by their code vectors, summed over the tokens of a word | | as for skeletons |
| tokens: the same transformer | tokens, read by vectors that it learns from scratch | | as for skeletons |
| narration: the language model of a recogniser | a description of the movement, written by rules | | |
| tokens_and_narration: the same | tokens, and the description | | |
| recogniser: the same | tokens | | as for skeletons |

The rows from transformer to tokens show at which step a recogniser loses accuracy: from joints or features to latents, from
latents to codes (the loss of the codebook), and, compared with its own accuracy, from codes to the language model. A recogniser
reads tokens by their code vectors, as `codes` does. What `tokens` loses beyond that is the price of learning the vectors from
few recordings, not a loss of the codebook.

The last three rows train the language model of `--recogniser` again with each seed, as `sft.py` trained it: with the same
steps, objective and scoring of class names. Only the prompts differ. They show what learned tokens add to a description by
rules. Sentences for narrations are encoded with `--explanations narrator`, which describes each version of a recording.

`--split held_out` evaluates on the held-out training subjects, to choose settings. Runs resume
automatically.

In `metrics.json`, accuracies have 95 % Wilson score intervals over recordings, and differences between methods have paired
bootstrap intervals over recordings.
"""

import dataclasses
import itertools
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm.model_files import ModelFileError, read_json_object
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.csv_tables import to_csv
from action_llm_recipes.common.data_arguments import MODALITIES, DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.written_folders import check_written_folder

logger = logging.getLogger(__name__)

# Methods for each modality of a data set.
METHODS = {
    "skeletons": (
        *("kernel_ridge", "graph", "transformer", "latents", "codes", "tokens"),
        *("narration", "tokens_and_narration", "recogniser"),
    ),
    "videos": ("kernel_ridge",),
    "features": ("kernel_ridge", "transformer", "latents", "codes", "tokens", "recogniser"),
}
# Methods that read action sentences, and the column that they read.
COLUMNS = {"latents": "latents", "codes": "codes", "tokens": "action_ids"}
# Methods that train the language model of a recogniser again, on prompts of their own, made from sentences.
PROMPTED = ("narration", "tokens_and_narration", "recogniser")
# What these methods read, for metrics.json and the log.
READS = {
    "latents": "continuous latents",
    "codes": "tokens, read by their code vectors",
    "tokens": "tokens, read by vectors learned from scratch",
    "narration": "prompts with a description by rules",
    "tokens_and_narration": "prompts with tokens and a description by rules",
    "recogniser": "prompts with tokens",
}
# Training recordings; the dense kernel matrix then takes about a gigabyte.
MAX_FOR_KERNEL_RIDGE = 12_000


@dataclass
class BaselineArguments:
    """Which classifiers are trained, and how."""

    output_dir: str = field(metadata={"help": "folder for metrics.json and predictions.csv"})
    methods: list[str] | None = field(
        default=None,
        metadata={"help": f"methods: {', '.join(METHODS['skeletons'])}; by default all that need no sentences"},
    )
    sentences: str | None = field(
        default=None,
        metadata={
            "help": "folder that encode_actions.py wrote, for latents, codes and tokens, and with --explanations narrator for "
            "narration and tokens_and_narration"
        },
    )
    recogniser: str | None = field(
        default=None,
        metadata={
            "help": "folder of a run of sft.py, whose language model narration, tokens_and_narration and recogniser train again"
        },
    )
    split: Literal["test", "held_out"] = field(
        default="test",
        metadata={"help": "test, or held_out: the held-out training subjects, which are then left out of training"},
    )
    seeds: int = field(default=3, metadata={"help": "number of seeds (0, 1, …) that each network is trained with"})
    encodings: int = field(
        default=8, metadata={"help": "versions of each training recording: the recording itself and augmented copies"}
    )
    transformer_steps: int = field(default=1200, metadata={"help": "optimiser steps of the transformers"})
    graph_steps: int = field(default=500, metadata={"help": "optimiser steps of the graph network"})

    def __post_init__(self):
        if self.sentences is not None:
            check_written_folder(self.sentences, "encode_actions.py")
        if self.recogniser is not None:
            check_written_folder(self.recogniser, "sft.py")


ARGUMENTS = (BaselineArguments, DataArguments)


@writes_output_dir
def main(arguments: BaselineArguments, data: DataArguments) -> dict:
    """Trains and evaluates all classifiers; returns the contents of metrics.json."""
    import numpy as np

    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.baselines import prompts
    from action_llm_recipes.baselines.sequences import read_recordings, read_sentences
    from action_llm_recipes.common.people import groups_of
    from action_llm_recipes.common.run_folder import RunFolder

    dataset = data.load("skeletons", "videos", "features")
    modality = next(name for name, column in MODALITIES.items() if column in dataset["train"].features)
    if arguments.methods is None:
        arguments.methods = [method for method in METHODS[modality] if method not in (*COLUMNS, *PROMPTED)]
    check_methods(arguments, modality)
    run = RunFolder(arguments.output_dir)
    run.save_config(arguments, data)
    run.check_identity(identity(arguments, data, dataset))

    class_names = dataset["train"].features["label"].names
    if "test" not in dataset and arguments.split == "test":
        raise ValueError(
            f"{' and '.join(data.folders)} has no test recordings: mark some as such, or set --split held_out."
        )
    if "test" in dataset and dataset["test"].features["label"].names != class_names:
        raise ValueError(
            f"{data.dataset} has unseen test classes, which a classifier cannot predict: choose another protocol."
        )
    evidence = check_unseen_recordings(arguments, data, dataset)
    recordings = read_recordings(
        modality, dataset, data.data_dir, arguments.split, arguments.encodings, arguments.sentences
    )
    labels = dict(zip(recordings.sample_ids, recordings.evaluation_labels, strict=True))
    predictions, correct = {}, {}
    for method in arguments.methods:
        examples = recordings
        if method in COLUMNS:
            examples = read_sentences(arguments.sentences, COLUMNS[method], class_names, set(labels))
        seeds = range(1 if method == "kernel_ridge" else arguments.seeds)
        names = [f"{method}-{seed}" for seed in seeds]
        for seed, name in zip(seeds, names, strict=True):
            path = run.path / "predictions" / f"{name}.json"
            predictions[name] = read_predictions(path, examples.sample_ids)
            if predictions[name] is None:
                if method in PROMPTED:
                    predictions[name] = prompts.train_and_predict(
                        method,
                        seed,
                        recogniser=arguments.recogniser,
                        folder=arguments.sentences,
                        hold_out=arguments.split == "held_out",
                        wanted=set(labels),
                        run_folder=run.path / "models" / name,
                    )
                else:
                    predicted = train_and_predict(method, seed, examples, len(class_names), arguments)
                    predictions[name] = dict(zip(examples.sample_ids, predicted.tolist(), strict=True))
                write_atomically(path, json.dumps(predictions[name]))
        # All methods in the order of the recordings, since their differences are paired.
        correct[method] = np.array(
            [[predictions[name][key] == label for key, label in labels.items()] for name in names]
        )
        shares = ", ".join(f"{100 * value:.1f} %" for value in correct[method].mean(axis=1))
        logger.info("%s: %s", f"{method} ({READS[method]})" if method in READS else method, shares)
    metrics = {
        "dataset": data.protocol(),
        "split": arguments.split,
        "recordings": len(recordings.sample_ids),
        "skipped": recordings.skipped,
        "reads": {method: READS[method] for method in correct if method in READS},
        **accuracies(correct, groups_of(labels, data.people(dataset))),
    }
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomically(run.path / "predictions.csv", predictions_table(labels, class_names, predictions))
    run.write_record(evidence, stage="baselines", metrics=metrics)
    return metrics


def accuracies(correct: dict, groups: list[str] | None) -> dict:
    """Accuracies of the methods and their paired differences, with intervals.

    Args:
        correct: method → bool (seeds, recordings), the same recordings for all methods; kernel ridge has a single seed.
        groups: the group of each recording (`paired_interval`).
    """
    from action_llm_recipes.metrics.action_classification.classification_scores import paired_interval, wilson_interval

    return {
        "accuracy": {
            method: {
                "seeds": hits.mean(axis=1).tolist(),
                **dataclasses.asdict(wilson_interval(hits.mean(), hits.shape[1])),
            }
            for method, hits in correct.items()
        },
        "paired_difference": {
            f"{first} - {second}": dataclasses.asdict(
                paired_interval(correct[first].astype(float) - correct[second], groups=groups)
            )
            for first, second in itertools.combinations(correct, 2)
        },
    }


def check_unseen_recordings(arguments: BaselineArguments, data: DataArguments, dataset):
    """The evidence of the splits; raises `ValueError` if an encoder or action model was trained on evaluated recordings."""
    from action_llm_recipes.common.split_evidence import ACTION_MODEL, LANGUAGE_MODEL, SplitEvidence

    reads_sentences = any(method in (*COLUMNS, *PROMPTED) for method in arguments.methods)
    folders = [arguments.sentences] if reads_sentences else []
    evidence = SplitEvidence.of_data(data, dataset, folders, hold_out=arguments.split == "held_out")
    encoder = {"tokenizer": {"features": data.features_record()}}
    evidence.refuse(arguments.split, {"sentences": encoder}, untrained=(ACTION_MODEL, LANGUAGE_MODEL))
    if reads_sentences:
        record = read_written(arguments.sentences, "record.json", "encode_actions.py")
        evidence.refuse(arguments.split, {"sentences": record}, untrained=(LANGUAGE_MODEL,))
    return evidence


def read_predictions(path: Path, sample_ids) -> dict[str, int] | None:
    """The predictions that an interrupted run left in a file; None if the file is missing, damaged or incomplete."""
    try:
        predictions = read_json_object(path)
    except FileNotFoundError:
        return None
    except ModelFileError as error:
        logger.warning("%s; the predictions are computed again", error)
        return None
    return predictions if set(sample_ids) <= set(predictions) else None


def check_methods(arguments: BaselineArguments, modality: str):
    """Raises `ValueError` if a method does not exist for a modality, or needs sentences and there are none."""
    for method in arguments.methods:
        if method not in METHODS[modality]:
            raise ValueError(
                f"there is no method {method!r} for {modality}: choose from {', '.join(METHODS[modality])}."
            )
        if method in (*COLUMNS, *PROMPTED) and arguments.sentences is None:
            raise ValueError(
                f"the method {method} reads sentences: set --sentences to a folder that encode_actions.py wrote."
            )
        if method in PROMPTED and arguments.recogniser is None:
            raise ValueError(
                f"the method {method} trains a language model as a recogniser was trained: set --recogniser to the folder of a "
                "run of sft.py."
            )
        if "narration" in method:
            written = read_written(arguments.sentences, "identity.json", "encode_actions.py").get("explanations")
            if written != "narrator":
                raise ValueError(
                    f"the method {method} reads the descriptions of the narrator, but {arguments.sentences} has none: run "
                    "encode_actions.py with --explanations narrator."
                )
    if not arguments.methods or arguments.seeds < 1:
        raise ValueError(f"expected at least one method and one seed; got {arguments.methods} and {arguments.seeds}.")


def identity(arguments: BaselineArguments, data: DataArguments, dataset) -> dict:
    """The settings and recordings that predictions depend on; a run is resumed only with the same ones."""
    settings = dataclasses.asdict(arguments)
    for name in ("output_dir", "methods", "seeds", "sentences", "recogniser"):
        del settings[name]
    if arguments.sentences is not None:
        settings["sentences"] = read_written(arguments.sentences, "identity.json", "encode_actions.py")
    if arguments.recogniser is not None:
        record = read_written(arguments.recogniser, "record.json", "sft.py", "settings")
        settings["recogniser"] = {name: record.get(name) for name in ("method", "llm", "llm_revision", "settings")}
    return {**settings, "dataset": data.dataset, **data.identity(dataset)}


def train_and_predict(method: str, seed: int, examples, num_classes: int, arguments: BaselineArguments):
    """Trains a classifier; returns the class that it predicts for each recording, int64 (N,).

    Raises:
        ValueError: if there are too many training recordings for kernel ridge.
    """
    import numpy as np
    import torch

    from action_llm_recipes.baselines import models

    labels = np.array(examples.train_labels)
    train, evaluation, vocabulary_size = examples.train, examples.evaluation, None
    if method == "kernel_ridge":
        originals = [index for index, version in enumerate(examples.train_versions) if version == 0]
        train, labels = [train[index] for index in originals], labels[originals]
        if len(train) > MAX_FOR_KERNEL_RIDGE:
            raise ValueError(
                f"kernel_ridge solves a dense system: it takes at most {MAX_FOR_KERNEL_RIDGE:,} training recordings, got "
                f"{len(train):,}."
            )
        return models.KernelRidge(num_classes).fit(train, labels).scores(evaluation).argmax(axis=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if method == "graph":
            extractor = examples.extractor
            model = models.SkeletonGraphNetwork(
                num_classes, extractor.skeleton_layout, extractor.num_persons, extractor.coordinates
            )
            steps, learning_rate = arguments.graph_steps, 2e-3
        else:
            if method == "transformer":
                train, evaluation = (
                    [models.join_frames(sequence, examples.frames_per_step) for sequence in part]
                    for part in (train, evaluation)
                )
            elif method == "tokens":
                vocabulary_size = 1 + max(int(ids.max()) for ids in (*train, *evaluation))
            size = None if vocabulary_size else train[0].shape[1]
            model = models.SequenceTransformer(num_classes, size, vocabulary_size)
            steps, learning_rate = arguments.transformer_steps, 1e-3
    models.fit(model, train, labels, steps=steps, learning_rate=learning_rate, seed=seed)
    return models.log_probabilities(model, evaluation).argmax(axis=1)


def predictions_table(labels: dict[str, int], class_names: list[str], predictions: dict[str, dict[str, int]]) -> str:
    """CSV text with a row for each recording: its class, and the prediction of each classifier."""
    return to_csv(
        {"sample_id": sample_id, "label": class_names[label]}
        | {name: class_names[predicted[sample_id]] for name, predicted in predictions.items()}
        for sample_id, label in labels.items()
    )


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
