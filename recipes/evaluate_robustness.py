"""
Evaluate recognisers of skeletons on recordings that differ from those they were trained on.

```bash
python recipes/evaluate_robustness.py --models runs/utd_mhad/sft/model \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/robustness
```

The test recordings are read as they are, and under each condition of `robustness/conditions.py`: in other layouts, without
depth, with missing joints, with noise, and turned, so that the body hides joints from the sensor. `robustness.md` has the
accuracies, `robustness.png` the curves, and `metrics.json` both with intervals. Beside the recognisers stands kernel ridge on
raw joints, trained on complete recordings, which are read by the feature extractor of the first recogniser.

With several models, their curves share the picture; `--names` says what they are called. Models of the same name are seeds of
one, and the page has their mean and range. A recording that cannot be read counts as a mistake. A recogniser that was trained
without the held-out subjects is evaluated on them, any other on the test split.
"""

import json
import logging
import statistics
from dataclasses import dataclass, field
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)

BASELINE = "kernel ridge on joints"


@dataclass
class RobustnessArguments:
    """Which recognisers are evaluated, and on which recordings."""

    models: list[str] = field(metadata={"help": "folders or Hub repositories of recognisers of the same classes"})
    output_dir: str = field(metadata={"help": "folder for robustness.md, robustness.png and metrics.json"})
    names: list[str] | None = field(
        default=None,
        metadata={"help": "a name for each model; models of the same name are seeds of one. By default their paths"},
    )
    split: Literal["test", "held_out"] | None = field(
        default=None,
        metadata={"help": "test, or held_out, the default if the recognisers were trained without these subjects"},
    )
    encodings: int = field(
        default=1, metadata={"help": "number of versions per recording whose class probabilities are averaged"}
    )
    batch_size: int = field(default=64, metadata={"help": "number of recordings per batch"})

    def __post_init__(self):
        check_at_least_one(self, "encodings", "batch_size")
        self.names = self.names or list(self.models)
        if len(self.names) != len(self.models):
            raise ValueError(f"--names must be a name for each of --models, got {' '.join(self.names)}.")
        if BASELINE in self.names:
            raise ValueError(f"--names: {BASELINE!r} is the name of the baseline.")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"--models must differ from each other, got {' '.join(self.models)}.")
        for model in self.models:
            check_recogniser(model)


ARGUMENTS = (RobustnessArguments, DataArguments)


@writes_output_dir
def main(arguments: RobustnessArguments, data: DataArguments) -> dict:
    """Evaluates the recognisers under all conditions; returns the content of metrics.json."""
    import numpy as np

    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm.skeleton_layouts import get_layout
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.data_arguments import held_out_rows, without_held_out
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.split_evidence import choose_split, count_test_evaluation
    from action_llm_recipes.common.stage_records import training_record
    from action_llm_recipes.metrics.plots import plot_robustness
    from action_llm_recipes.robustness.conditions import are_in_metres, conditions
    from action_llm_recipes.robustness.readers import JointReader, RecogniserReader

    dataset = data.load("skeletons")
    run = RunFolder(arguments.output_dir)
    run.save_config(arguments, data)
    records = [training_record(model) for model in arguments.models]
    check_seeds(arguments.names, records)
    split = choose_split(arguments.split, records[0])
    rows = dataset["test"] if split == "test" else held_out_rows(dataset["train"])
    evidence = [
        check_recordings(*recogniser, data, rows, split) for recogniser in zip(arguments.models, records, strict=True)
    ]
    train = without_held_out(dataset["train"], split == "held_out")
    readers = {BASELINE: [JointReader(train, load_feature_extractor(arguments.models[0]))]}
    for name, model in zip(arguments.names, arguments.models, strict=True):
        readers.setdefault(name, []).append(RecogniserReader(model, arguments.encodings, arguments.batch_size))

    labels, results = np.array(rows["label"]), {}
    tested = conditions(get_layout(rows[0]["layout"]))
    if not are_in_metres(rows.with_format("numpy")):
        logger.warning(
            "Noise is left out: it is in centimetres, but by the size of the bodies the recordings are not in metres."
        )
        tested = [condition for condition in tested if condition.group != "noise"]
    for condition in progress(tested, "conditions", "conditions"):
        changed = [condition(row) for row in rows.with_format("numpy")]
        entry = {
            name: summary([reader.scores(changed) for reader in seeds], labels) for name, seeds in readers.items()
        }
        results.setdefault(condition.group, {})[condition.level] = entry
    metrics = {"dataset": data.protocol(), "split": split, "recordings": len(rows), "conditions": results}
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    write_atomically(run.path / "robustness.md", page(metrics))
    plot_robustness(results, run.path / "robustness.png", f"Robustness: {data.protocol()}")
    if split == "test":
        for model, own in zip(arguments.models, evidence, strict=True):
            count_test_evaluation(model, data.protocol(), own)
    run.write_record(evidence[0], stage="evaluate_robustness", metrics=metrics, models=records)
    run.log_finished("Robustness", f"{len(rows)} recordings of {split}")
    logger.info("\n%s\n  in %s", page(metrics), run.path)
    return metrics


def check_seeds(names: list[str], records: list[dict]) -> None:
    """Raises `ValueError` if models of the same name are copies of one, or differ by more than the seed; `records` are their
    training records."""
    from action_llm_recipes.common.stage_records import differ_by_seed_alone

    seeds: dict[str, list[dict]] = {}
    for name, record in zip(names, records, strict=True):
        if record and record in seeds.setdefault(name, []):
            raise ValueError(f"--models: two of the models called {name} are the same one: give each seed once.")
        seeds[name].append(record)
        if not differ_by_seed_alone(seeds[name][0], record):
            raise ValueError(
                f"--names: the models called {name} differ by more than their seed: give those with other settings or data "
                "another name."
            )


def summary(scores_of_seeds: list, labels) -> dict:
    """
    The accuracy of a recogniser under a condition.

    Args:
        scores_of_seeds: scores float64 (N, classes) of each seed; NaN for recordings that cannot be read.
        labels: int (N,).

    Returns:
        `accuracy`, the mean over seeds; `low` and `high`, their range, or the 95 % interval over recordings of a single seed;
        `unread`, the most recordings that a seed could not read; with several seeds also `seeds`, their accuracies.
    """
    import numpy as np

    from action_llm_recipes.metrics.action_classification.classification_scores import wilson_interval

    is_read = [np.isfinite(scores).all(1) for scores in scores_of_seeds]
    accuracies = [
        float(((scores.argmax(1) == labels) & read).mean())
        for scores, read in zip(scores_of_seeds, is_read, strict=True)
    ]
    unread = max(int((~read).sum()) for read in is_read)
    if len(accuracies) == 1:
        interval = wilson_interval(accuracies[0], len(labels))
        return {"accuracy": accuracies[0], "low": interval.low, "high": interval.high, "unread": unread}
    mean, low, high = statistics.mean(accuracies), min(accuracies), max(accuracies)
    return {"accuracy": mean, "low": low, "high": high, "unread": unread, "seeds": accuracies}


def check_recordings(model: str, record: dict, data: DataArguments, rows, split: str):
    """
    Checks that a recogniser was not trained on the recordings, and was trained on their classes.

    Args:
        model, record: folder or Hub repository of a recogniser, and its training record.
        data: of the recipe.
        rows: the recordings to evaluate.
        split: that they are of.

    Returns:
        The evidence of the evaluation (`SplitEvidence`).

    Raises:
        ValueError: if it was trained on them, on another protocol, or on other classes.
    """
    from action_llm import ActionLLMProcessor
    from action_llm_recipes.common.split_evidence import SplitEvidence
    from action_llm_recipes.common.stage_records import check_dataset

    check_dataset(record, data.protocol())
    trained, evaluated = ActionLLMProcessor.from_pretrained(model).class_names, rows.features["label"].names
    if trained != evaluated:
        raise ValueError(
            f"{model} was trained on {len(trained)} classes ({', '.join(trained[:3])}, …), but {data.protocol()} has "
            f"{len(evaluated)} ({', '.join(evaluated[:3])}, …)."
        )
    evidence = SplitEvidence(data.protocol(), {split: rows["sample_id"]}, (model,))
    evidence.refuse(split, record)
    return evidence


def page(metrics: dict) -> str:
    """robustness.md: a row per condition, a column per recogniser, with the loss to complete recordings."""
    results = metrics["conditions"]
    complete = results["complete"][""]
    names = list(complete)
    lines = [
        f"# Robustness on {metrics['dataset']}",
        "",
        f"Top-1 accuracies in per cent of {metrics['recordings']} recordings ({metrics['split']}), the range over seeds where "
        "there are several, and the difference to complete recordings in points.",
        "",
        "| recordings | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for group, levels in results.items():
        for level, entry in levels.items():
            cells = []
            for name in names:
                accuracy, whole = entry[name]["accuracy"], complete[name]["accuracy"]
                cell = f"{100 * accuracy:.1f}"
                if "seeds" in entry[name]:
                    cell += f" ({100 * entry[name]['low']:.1f}–{100 * entry[name]['high']:.1f})"
                if group != "complete":
                    cell += f", {100 * (accuracy - whole):+.1f}".replace("-", "−")
                if entry[name]["unread"]:
                    cell += f", {entry[name]['unread']} not read"
                cells.append(cell)
            lines.append(f"| {group}{level and ': '}{level} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
