"""
Small classifiers on the recordings and the features that the recogniser reads, to hold it against.

```bash
python recipes/baselines/run_baselines.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/baselines
python recipes/baselines/run_baselines.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/loss \\
    --methods transformer latents tokens --sentences runs/utd_mhad/sentences
python recipes/baselines/run_baselines.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --output_dir runs/video/pixels
python recipes/baselines/run_baselines.py --dataset features --data_dir runs/video/features --output_dir runs/video/loss \\
    --methods transformer latents tokens --sentences runs/video/sentences
```

| method | of skeletons | of videos | of features of videos |
|---|---|---|---|
| kernel_ridge | joints resampled in time, and their differences | pooled pixels, the same | features, the same |
| graph | joints, bones and motion: a small ST-GCN | | |
| transformer | joints, four frames at a time | | features, a segment at a time |
| latents | the same transformer on the continuous latents (`encode_actions.py --latents true`) | | as for skeletons |
| codes | the same transformer on the vectors of the tokens, of a word of several their sum | | as for skeletons |
| tokens | the same transformer on the tokens, whose vectors it learns itself | | as for skeletons |

The last four say where a recogniser loses: from joints or features to latents, from latents to codes, and, with its own
accuracy beside them, from codes to the language model, which reads them too. `--split held_out` evaluates on the held-out
training subjects, for choosing settings; `test` is opened once per run. A run that was stopped goes on with what is missing.

In `metrics.json`, accuracies have 95 % Wilson score intervals over recordings, and differences of two methods those of a paired
bootstrap over recordings.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm.model_files import ModelFileError, read_json_object
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import KINDS, DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.written_folders import check_written_folder

logger = logging.getLogger(__name__)

# What each kind of data set can be read by, and, by default, is.
METHODS = {
    "skeletons": ("kernel_ridge", "graph", "transformer", "latents", "codes", "tokens"),
    "videos": ("kernel_ridge",),
    "features": ("kernel_ridge", "transformer", "latents", "codes", "tokens"),
}
# Those that read sentences, and the column of them.
COLUMNS = {"latents": "latents", "codes": "codes", "tokens": "action_ids"}
# The kernel matrix is dense: this many recordings make one of about a gigabyte.
MOST_FOR_KERNEL_RIDGE = 12_000


@dataclass
class BaselineArguments:
    """Which classifiers are trained and how."""

    output_dir: str = field(metadata={"help": "folder for metrics.json and predictions.csv"})
    methods: list[str] | None = field(
        default=None,
        metadata={"help": f"some of {', '.join(METHODS['skeletons'])}; by default all that need no sentences"},
    )
    sentences: str | None = field(
        default=None, metadata={"help": "folder that encode_actions.py wrote, for latents, codes and tokens"}
    )
    split: Literal["test", "held_out"] = field(
        default="test", metadata={"help": "test; held_out (held-out training subjects, which then are not trained on)"}
    )
    seeds: int = field(default=3, metadata={"help": "runs of each network, with the seeds 0, 1, …"})
    encodings: int = field(
        default=8, metadata={"help": "versions of a training recording: the first as it is, the others augmented"}
    )
    transformer_steps: int = field(default=1200, metadata={"help": "optimiser steps of the transformers"})
    graph_steps: int = field(default=500, metadata={"help": "optimiser steps of the graph network"})
    resamples: int = field(default=2000, metadata={"help": "bootstrap resamples of paired differences"})

    def __post_init__(self):
        if self.sentences is not None:
            check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (BaselineArguments, DataArguments)


@writes_output_dir
def main(arguments: BaselineArguments, data: DataArguments) -> dict:
    """Trains and evaluates; returns what metrics.json holds."""
    import numpy as np

    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.baselines.sequences import read_recordings, read_sentences
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.metrics.action_classification.classification_scores import paired_interval, wilson_interval

    dataset = data.load("skeletons", "videos", "features")
    kind = next(kind for kind, column in KINDS.items() if column in dataset["train"].features)
    if arguments.methods is None:
        arguments.methods = [method for method in METHODS[kind] if method not in COLUMNS]
    check_methods(arguments, kind)
    run = RunFolder(arguments.output_dir)
    run.save_config(arguments, data)
    run.check_identity(identity(arguments, data, dataset))

    class_names = dataset["train"].features["label"].names
    if "test" not in dataset and arguments.split == "test":
        raise ValueError(f"{data.data_dir} has no test recordings: mark some, or set --split held_out.")
    if "test" in dataset and dataset["test"].features["label"].names != class_names:
        raise ValueError(f"{data.dataset} is tested on unseen classes, which these classifiers cannot name.")
    split = arguments.split
    evidence = check_unseen_recordings(arguments, data, dataset)
    recordings = read_recordings(kind, dataset, data.data_dir, split, arguments.encodings, arguments.sentences)
    correct, columns = {}, {}
    for method in arguments.methods:
        examples = recordings
        if method in COLUMNS:
            wanted = set(recordings.sample_ids)
            examples = read_sentences(arguments.sentences, COLUMNS[method], class_names, wanted)
        seeds = 1 if method == "kernel_ridge" else arguments.seeds
        results = []
        for seed in range(seeds):
            path = run.path / "predictions" / f"{method}-{seed}.json"
            predictions = read_predictions(path, examples.sample_ids)
            if predictions is None:
                predicted = evaluate(method, seed, examples, len(class_names), arguments)
                predictions = dict(zip(examples.sample_ids, predicted.tolist(), strict=True))
                write_atomically(path, json.dumps(predictions))
            results.append(predictions)
            columns[f"{method}-{seed}"] = results[-1]
        # In the order of the recordings, so that methods can be compared in pairs.
        truth = dict(zip(recordings.sample_ids, recordings.evaluation_labels, strict=True))
        correct[method] = np.array([[result[name] == truth[name] for name in truth] for result in results])
        logger.info("%s: %s", method, ", ".join(f"{100 * value:.1f} %" for value in correct[method].mean(axis=1)))

    metrics = {
        "dataset": data.protocol(),
        "split": split,
        "recordings": len(recordings.sample_ids),
        "skipped": recordings.skipped,
        "accuracy": {
            method: {
                "seeds": hits.mean(axis=1).tolist(),
                **dataclasses.asdict(wilson_interval(hits.mean(), hits.shape[1])),
            }
            for method, hits in correct.items()
        },
        "paired_difference": {
            f"{first} - {second}": dataclasses.asdict(
                paired_interval(
                    correct[first].mean(axis=0) - correct[second].mean(axis=0), resamples=arguments.resamples
                )
            )
            for index, first in enumerate(arguments.methods)
            for second in arguments.methods[index + 1 :]
        },
    }
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_predictions(run.path / "predictions.csv", recordings, class_names, columns, write_atomically)
    run.write_record(evidence, stage="baselines", metrics=metrics)
    return metrics


def check_unseen_recordings(arguments: BaselineArguments, data: DataArguments, dataset):
    """The evidence of the recordings; raises `ValueError` where an encoder or an action model has seen what is evaluated."""
    from action_llm_recipes.common.split_evidence import ACTION_MODEL, LANGUAGE_MODEL, SplitEvidence

    reads_sentences = any(method in COLUMNS for method in arguments.methods)
    folders = [arguments.sentences] if reads_sentences else []
    evidence = SplitEvidence.of_data(data, dataset, folders, hold_out=arguments.split == "held_out")
    encoder = {"tokenizer": {"features": data.features_record()}}
    evidence.refuse(arguments.split, {"sentences": encoder}, untrained=(ACTION_MODEL, LANGUAGE_MODEL))
    if reads_sentences:
        record = read_written(arguments.sentences, "record.json", "encode_actions.py")
        evidence.refuse(arguments.split, {"sentences": record}, untrained=(LANGUAGE_MODEL,))
    return evidence


def read_predictions(path: Path, sample_ids) -> dict[str, int] | None:
    """What a method said of each recording in an earlier start; None where it is not there, or damaged."""
    try:
        predictions = read_json_object(path)
    except FileNotFoundError:
        return None
    except ModelFileError as error:
        logger.warning("%s; it is made again", error)
        return None
    return predictions if set(sample_ids) <= set(predictions) else None


def check_methods(arguments: BaselineArguments, kind: str):
    """Raises `ValueError` for methods that do not exist for a kind of data set, or lack what they read."""
    for method in arguments.methods:
        if method not in METHODS[kind]:
            raise ValueError(f"there is no method {method!r} for {kind}: there are {', '.join(METHODS[kind])}.")
        if method in COLUMNS and arguments.sentences is None:
            raise ValueError(f"method {method} reads --sentences, a folder that encode_actions.py wrote.")
    if not arguments.methods or arguments.seeds < 1:
        raise ValueError(
            f"at least one method and one seed are needed; got {arguments.methods} and {arguments.seeds}."
        )


def identity(arguments: BaselineArguments, data: DataArguments, dataset) -> dict:
    """What decides the predictions: those of other settings or other recordings are not gone on with."""
    settings = dataclasses.asdict(arguments)
    for name in ("output_dir", "methods", "seeds", "resamples", "sentences"):
        del settings[name]
    if arguments.sentences is not None:
        settings["sentences"] = read_written(arguments.sentences, "identity.json", "encode_actions.py")
    return {**settings, "dataset": data.dataset, **data.identity(dataset)}


def evaluate(method: str, seed: int, examples, num_classes: int, arguments: BaselineArguments):
    """Trains one classifier and returns the class of each recording, int64 (N,)."""
    import numpy as np
    import torch

    from action_llm_recipes.baselines import models

    labels = np.array(examples.train_labels)
    train, evaluation, vocabulary_size = examples.train, examples.evaluation, None
    if method == "kernel_ridge":
        whole = [index for index, version in enumerate(examples.train_versions) if version == 0]
        train, labels = [train[index] for index in whole], labels[whole]
        if len(train) > MOST_FOR_KERNEL_RIDGE:
            raise ValueError(
                f"kernel_ridge solves a dense system; {len(train)} training recordings are too many for it."
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


def write_predictions(path: Path, examples, class_names: list[str], columns: dict, write):
    """CSV: a recording a row, its class, and what each classifier took it for."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sample_id", "label", *columns])
    for name, label in zip(examples.sample_ids, examples.evaluation_labels, strict=True):
        writer.writerow([name, class_names[label], *(class_names[column[name]] for column in columns.values())])
    write(path, text.getvalue())


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
