"""
Evaluate a recogniser of skeletons on another data set, on the classes that both have, without training on it.

```bash
python recipes/evaluate_transfer.py --model runs/utd_mhad/sft/model --dataset folder --data_dir MSR \\
    --classes recipes/robustness/utd_mhad_msr_action3d.yaml \\
    --trained_dataset utd-mhad --trained_data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/to_msr
```

`--classes` is a YAML file with a list for each shared class: its names in the data sets. All recordings of these classes are
read, whatever their split, and the recogniser chooses among the shared classes; the probabilities of several names of a class
are added. With `--trained_dataset`, kernel ridge on joints stands beside the recogniser. It learns from the training recordings
of that data set, without the held-out subjects if the recogniser was trained without them. The results are in `metrics.json`,
`per_class.csv` and `confusion.png`. Recordings of another layout are read in that of the model.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass, field

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.shared_classes import read_shared_classes
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)


@dataclass
class TransferArguments:
    """Which recogniser is evaluated, and on which classes."""

    model: str = field(metadata={"help": "folder or Hub repository of a recogniser"})
    classes: str = field(metadata={"help": "YAML file: a list of names for each class that both data sets have"})
    output_dir: str = field(metadata={"help": "folder for metrics.json, per_class.csv and confusion.png"})
    trained_dataset: str | None = field(
        default=None, metadata={"help": "data set that the recogniser was trained on, for kernel ridge on joints"}
    )
    trained_data_dir: str | None = field(
        default=None, metadata={"help": "folder of its recordings", "belongs_to": "trained_dataset"}
    )
    encodings: int = field(
        default=1, metadata={"help": "number of versions per recording whose class probabilities are averaged"}
    )
    batch_size: int = field(default=64, metadata={"help": "number of recordings per batch"})

    def __post_init__(self):
        check_at_least_one(self, "encodings", "batch_size")
        if (self.trained_dataset is None) != (self.trained_data_dir is None):
            raise ValueError("--trained_dataset and --trained_data_dir belong together: set both, or neither.")
        check_recogniser(self.model)
        read_shared_classes(self.classes, "--classes")


ARGUMENTS = (TransferArguments, DataArguments)


@writes_output_dir
def main(arguments: TransferArguments, data: DataArguments) -> dict:
    """Evaluates the recogniser; returns the content of metrics.json."""
    import numpy as np
    from datasets import concatenate_datasets

    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.csv_tables import to_csv
    from action_llm_recipes.common.data_arguments import without_held_out
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.split_evidence import SplitEvidence
    from action_llm_recipes.common.stage_records import training_record
    from action_llm_recipes.metrics import plots
    from action_llm_recipes.metrics.action_classification import classification_scores
    from action_llm_recipes.robustness.readers import JointReader, RecogniserReader

    run = RunFolder(arguments.output_dir)
    run.save_config(arguments, data)
    rows = concatenate_datasets(list(data.load("skeletons").values()))
    record = training_record(arguments.model)
    readers = {"recogniser": RecogniserReader(arguments.model, arguments.encodings, arguments.batch_size)}
    extractor = readers["recogniser"].processor.feature_extractor
    if arguments.trained_dataset is not None:
        trained = DataArguments(arguments.trained_dataset, arguments.trained_data_dir, cache_dir=data.cache_dir)
        train = without_held_out(trained.load("skeletons")["train"], bool(record.get("hold_out")))
        readers["kernel ridge on joints"] = JointReader(train, extractor)

    names = rows.features["label"].names
    groups = shared(read_shared_classes(arguments.classes, "--classes"), readers["recogniser"].class_names, names)
    group_of = {names.index(name): place for place, group in enumerate(groups) for name in group.read}
    rows = rows.select([index for index, label in enumerate(rows["label"]) if label in group_of])
    evidence = SplitEvidence(data.protocol(), {"test": rows["sample_id"]}, (arguments.model,))
    evidence.refuse("test", record)
    labels = np.array([group_of[label] for label in rows["label"]])
    titles = [group.read[0] for group in groups]
    if empty := [title for place, title in enumerate(titles) if place not in labels]:
        raise ValueError(
            f"--classes: {data.protocol()} has no recording of {', '.join(map(repr, empty))}: leave it out of "
            f"{arguments.classes}."
        )
    for name, reader in readers.items():
        if unknown := [title for group in groups for title in group.trained if title not in reader.class_names]:
            raise ValueError(
                f"{name}: {arguments.trained_dataset} has no class {unknown[0]!r}, which the recogniser was trained on: set "
                "--trained_dataset to the data set that it was trained on."
            )
    metrics = {
        "dataset": data.protocol(),
        "trained_on": record.get("sentences", {}).get("dataset"),
        "recordings": len(labels),
        "classes": titles,
        "accuracy": {},
    }
    recordings = [dict(row) for row in rows.with_format("numpy")]
    for name, reader in readers.items():
        scores = of_groups(reader.scores(recordings), groups, reader.class_names, adds=name == "recogniser")
        is_read = np.isfinite(scores).all(1)
        predictions = np.where(is_read, scores.argmax(1), -1)
        interval = classification_scores.wilson_interval((predictions == labels).mean(), len(labels))
        per_class = {
            title: float((predictions[labels == place] == place).mean()) for place, title in enumerate(titles)
        }
        metrics["accuracy"][name] = {
            **dataclasses.asdict(interval),
            "unread": int((~is_read).sum()),
            "per_class": per_class,
        }
        if name == "recogniser":
            matrix = classification_scores.confusion_matrix(predictions[is_read], labels[is_read], len(titles))
            plots.plot_confusion_matrix(
                matrix, titles, run.path / "confusion.png", f"{data.protocol()}, not trained on"
            )
    tables = [
        {"class": title, "recordings": int((labels == place).sum())}
        | {name: f"{100 * result['per_class'][title]:.1f}" for name, result in metrics["accuracy"].items()}
        for place, title in enumerate(titles)
    ]
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    write_atomically(run.path / "per_class.csv", to_csv(tables))
    run.write_record(evidence, stage="evaluate_transfer", metrics=metrics, model=record)
    for name, result in metrics["accuracy"].items():
        interval = f"{100 * result['low']:.1f}–{100 * result['high']:.1f}"
        logger.info("%s: %.1f %% (%s)", name, 100 * result["estimate"], interval)
    run.log_finished("Transfer", f"{len(labels)} recordings of {len(titles)} shared classes")
    return metrics


@dataclass
class SharedClass:
    """A class of two data sets.

    Attributes:
        read: its names in the data set that is evaluated.
        trained: its names in the data set that the model was trained on.
    """

    read: list[str]
    trained: list[str]


def shared(groups: list[list[str]], trained: list[str], read: list[str]) -> list[SharedClass]:
    """
    The classes that two data sets share.

    Args:
        groups: names of each class, of `read_shared_classes`.
        trained, read: classes of the recogniser, and of the data set that is evaluated.

    Raises:
        ValueError: if a class is not in both data sets, or there are fewer than two.
    """
    found = [
        SharedClass(*([name for name in group if name in classes] for classes in (read, trained))) for group in groups
    ]
    for names, group in zip(groups, found, strict=True):
        for owner, own, classes in (("the data set", group.read, read), ("the recogniser", group.trained, trained)):
            if not own:
                raise ValueError(
                    f"{owner} has no class {' or '.join(map(repr, names))}; its classes: {', '.join(sorted(classes))}."
                )
    if len(found) < 2:
        raise ValueError("--classes: expected at least two classes.")
    return found


def of_groups(scores, groups: list[SharedClass], class_names: list[str], adds: bool):
    """
    Scores of shared classes.

    Args:
        scores: float64 (N, classes of the model): log-probabilities, or other scores.
        groups: the shared classes.
        class_names: classes of the model.
        adds: whether the scores are log-probabilities, and those of the names of a class are added as probabilities; else the
            highest counts.

    Returns:
        float64 (N, shared classes).
    """
    import numpy as np

    combine = np.logaddexp.reduce if adds else np.max
    columns = [[class_names.index(name) for name in group.trained] for group in groups]
    return np.stack([combine(scores[:, chosen], axis=1) for chosen in columns], axis=1)


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
