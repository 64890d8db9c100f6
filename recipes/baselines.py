"""
Small classifiers on the recordings and the features that the recogniser reads, to hold it against.

```bash
python recipes/baselines.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/baselines
python recipes/baselines.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/loss \
    --methods transformer latents tokens --sentences runs/utd_mhad/sentences
```

| method | reads |
|---|---|
| kernel_ridge | joints resampled in time, and their differences |
| graph | joints, bones and motion: a small ST-GCN |
| transformer | joints, four frames at a time |
| latents | the same transformer on the continuous latents of the action model (`encode_actions.py --latents true`) |
| tokens | the same transformer on the tokens |

The last three say where a recogniser loses: from joints to latents, from latents to tokens, and, with its own accuracy
beside them, from tokens to the language model. `--split held_out` evaluates on the held-out training subjects, for
choosing settings; `test` is opened once per run. A run that was stopped goes on with what is missing.
"""

import dataclasses
import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_arguments import DataArguments, recordings_fingerprint

logger = logging.getLogger(__name__)

METHODS = ("kernel_ridge", "graph", "transformer", "latents", "tokens")
FRAMES_PER_TOKEN = 4
# The kernel matrix is dense: this many recordings make one of about a gigabyte.
MOST_FOR_KERNEL_RIDGE = 12_000


@dataclass
class BaselineArguments:
    """Which classifiers are trained and how."""

    output_dir: str = field(metadata={"help": "folder for metrics.json and predictions.csv"})
    methods: list[str] = field(
        default_factory=lambda: ["kernel_ridge", "graph", "transformer"], metadata={"help": ", ".join(METHODS)}
    )
    sentences: str | None = field(
        default=None, metadata={"help": "folder that encode_actions.py wrote, for latents and tokens"}
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
    resamples: int = field(default=2000, metadata={"help": "bootstrap resamples over recordings"})


@dataclass
class Examples:
    """Sequences of one kind: all versions for training, one a recording for evaluation."""

    train: list
    train_labels: list[int]
    evaluation: list
    evaluation_labels: list[int]
    sample_ids: list[str]


def main(arguments: BaselineArguments, data: DataArguments) -> dict:
    """Trains and evaluates; returns what metrics.json holds."""
    import numpy as np
    from metrics.action_classification.classification_scores import bootstrap_interval
    from run_folder import RunFolder

    from action_llm_datasets.atomic_files import write_atomically

    check_methods(arguments)
    run = RunFolder(arguments.output_dir)
    run.save_config(arguments, data)
    dataset = data.load()
    run.check_identity(identity(arguments, data, dataset))

    class_names, extractor, joints, skipped = load_joints(arguments, data, dataset)
    correct, columns = {}, {}
    for method in arguments.methods:
        examples = joints
        if method in ("latents", "tokens"):
            examples = load_encoded(arguments, method, class_names, set(joints.sample_ids))
        seeds = 1 if method == "kernel_ridge" else arguments.seeds
        results = []
        for seed in range(seeds):
            path = run.path / "predictions" / f"{method}-{seed}.json"
            if not path.is_file():
                predicted = evaluate(method, seed, examples, len(class_names), extractor, arguments)
                write_atomically(path, json.dumps(dict(zip(examples.sample_ids, predicted.tolist(), strict=True))))
            results.append(json.loads(path.read_text(encoding="utf-8")))
            columns[f"{method}-{seed}"] = results[-1]
        # In the order of the recordings, so that methods can be compared in pairs.
        truth = dict(zip(joints.sample_ids, joints.evaluation_labels, strict=True))
        correct[method] = np.array([[result[name] == truth[name] for name in truth] for result in results])
        logger.info("%s: %s", method, ", ".join(f"{100 * value:.1f} %" for value in correct[method].mean(axis=1)))

    def interval(values):
        return dataclasses.asdict(bootstrap_interval(np.mean, values, resamples=arguments.resamples))

    metrics = {
        "dataset": data.dataset,
        "split": arguments.split,
        "recordings": len(joints.sample_ids),
        "skipped": skipped,
        "accuracy": {
            method: {"seeds": hits.mean(axis=1).tolist(), **interval(hits.mean(axis=0))}
            for method, hits in correct.items()
        },
        "paired_difference": {
            f"{first} - {second}": interval(correct[first].mean(axis=0) - correct[second].mean(axis=0))
            for index, first in enumerate(arguments.methods)
            for second in arguments.methods[index + 1 :]
        },
    }
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_predictions(run.path / "predictions.csv", joints, class_names, columns, write_atomically)
    run.write_record(stage="baselines", metrics=metrics)
    return metrics


def check_methods(arguments: BaselineArguments):
    """Raises `ValueError` for methods that do not exist or lack what they read."""
    for method in arguments.methods:
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}: there are {', '.join(METHODS)}.")
        if method in ("latents", "tokens") and arguments.sentences is None:
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
        settings["sentences"] = json.loads(Path(arguments.sentences, "identity.json").read_text(encoding="utf-8"))
    return {**settings, "dataset": data.dataset, "recordings": recordings_fingerprint(dataset)}


def load_joints(arguments: BaselineArguments, data: DataArguments, dataset):
    """Class names, feature extractor, `Examples` of features (frames, channels), and what was skipped."""
    from encode_actions import stable_seed

    from action_llm import SkeletonFeatureExtractor
    from action_llm.feature_extraction_skeleton import SkeletonInputError

    class_names = dataset["train"].features["label"].names
    if dataset["test"].features["label"].names != class_names:
        raise ValueError(f"{data.dataset} is tested on unseen classes, which these classifiers cannot name.")
    columns = ["keypoints", "shape", "layout", "fps", "sample_id", "label", "held_out"]
    train = dataset["train"].select_columns(columns).with_format("numpy")
    test = dataset["test"].select_columns(columns).with_format("numpy")
    if arguments.sentences is None:
        persons = min(2, max(int(shape[1]) for shape in train["shape"]))
        extractor = SkeletonFeatureExtractor(
            layout=str(train[0]["layout"]), num_persons=persons, frame_multiple=FRAMES_PER_TOKEN
        )
    else:  # the joints as the action model saw them
        extractor = SkeletonFeatureExtractor.from_pretrained(arguments.sentences)
    examples, skipped = Examples([], [], [], [], []), []
    held_out = arguments.split == "held_out"
    for part, rows in (("train", train), ("test", test)):
        for row in rows:
            evaluated = bool(row["held_out"]) if part == "train" and held_out else part == "test"
            if part == "test" and held_out:
                continue
            name = str(row["sample_id"])
            try:
                versions = [
                    extractor(
                        row, augment=version > 0, seed=stable_seed(0, name, version), return_tensors=None
                    )["input_features"][0]
                    for version in range(1 if evaluated else arguments.encodings)
                ]  # fmt: skip
            except SkeletonInputError as error:
                skipped.append({"sample_id": name, "reason": str(error)})
                continue
            if evaluated:
                examples.evaluation += versions
                examples.evaluation_labels.append(int(row["label"]))
                examples.sample_ids.append(name)
            else:
                examples.train += versions
                examples.train_labels += [int(row["label"])] * len(versions)
    if not examples.train or not examples.evaluation:
        raise ValueError(
            f"{data.dataset}, {arguments.split}: {len(examples.train)} training sequences and "
            f"{len(examples.evaluation)} recordings to evaluate."
        )
    return class_names, extractor, examples, skipped


def load_encoded(arguments: BaselineArguments, method: str, class_names: list[str], wanted: set[str]) -> Examples:
    """`Examples` of latents (W, D) or token ids (W,); exactly the recordings `wanted` are evaluated."""
    import numpy as np
    from action_sentences import load_action_sentences

    sentences = load_action_sentences(arguments.sentences)
    if sentences["train"].features["label"].names != class_names:
        raise ValueError(f"{arguments.sentences} was written for other classes than those of the data set.")
    if arguments.split == "held_out":
        record = json.loads(Path(arguments.sentences, "record.json").read_text(encoding="utf-8"))
        if not (record["tokenizer"] or {}).get("hold_out"):
            raise ValueError(f"the action model of {arguments.sentences} was not trained with --hold_out true.")
    column = "latents" if method == "latents" else "action_ids"
    if column not in sentences["train"].column_names:
        raise ValueError(f"{arguments.sentences} holds no latents: run encode_actions.py with --latents true.")
    examples = Examples([], [], [], [], [])
    for part, rows in sentences.items():
        for row in rows.with_format("numpy"):
            sequence = np.asarray(row[column])
            if method == "latents":
                sequence = sequence.reshape(len(row["action_ids"]), -1)
            if str(row["sample_id"]) in wanted:
                if int(row["encoding"]) == 0:
                    examples.evaluation.append(sequence)
                    examples.evaluation_labels.append(int(row["label"]))
                    examples.sample_ids.append(str(row["sample_id"]))
            elif part == "train":
                examples.train.append(sequence)
                examples.train_labels.append(int(row["label"]))
    if missing := wanted - set(examples.sample_ids):
        raise ValueError(f"{arguments.sentences} lacks {len(missing)} of the recordings, such as {min(missing)}.")
    return examples


def evaluate(method: str, seed: int, examples: Examples, num_classes: int, extractor, arguments: BaselineArguments):
    """Trains one classifier and returns the class of each recording, int64 (N,)."""
    import baseline_models as models
    import numpy as np
    import torch

    labels = np.array(examples.train_labels)
    train, evaluation, vocabulary_size = examples.train, examples.evaluation, None
    if method == "kernel_ridge":
        train, labels = train[:: arguments.encodings], labels[:: arguments.encodings]
        if len(train) > MOST_FOR_KERNEL_RIDGE:
            raise ValueError(
                f"kernel_ridge solves a dense system; {len(train)} training recordings are too many for it."
            )
        return models.KernelRidge(num_classes).fit(train, labels).scores(evaluation).argmax(axis=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if method == "graph":
            model = models.SkeletonGraphNetwork(
                num_classes, extractor.skeleton_layout, extractor.num_persons, extractor.coordinates
            )
            steps, learning_rate = arguments.graph_steps, 2e-3
        else:
            if method == "transformer":
                train, evaluation = (
                    [models.join_frames(frames, FRAMES_PER_TOKEN) for frames in part] for part in (train, evaluation)
                )
            elif method == "tokens":
                vocabulary_size = 1 + max(int(ids.max()) for ids in (*train, *evaluation))
            size = None if vocabulary_size else train[0].shape[1]
            model = models.SequenceTransformer(num_classes, size, vocabulary_size)
            steps, learning_rate = arguments.transformer_steps, 1e-3
    models.fit(model, train, labels, steps=steps, learning_rate=learning_rate, seed=seed)
    return models.log_probabilities(model, evaluation).argmax(axis=1)


def write_predictions(path: Path, examples: Examples, class_names: list[str], columns: dict, write):
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
    from trl import TrlParser

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    main(*TrlParser((BaselineArguments, DataArguments)).parse_args_and_config())
