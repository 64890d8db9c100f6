"""
Evaluate recognisers of skeletons on recordings that differ from those they were trained on.

```bash
python recipes/evaluate_robustness.py --models runs/utd_mhad/sft/model \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/robustness
```

The test recordings are read as they are, and under each condition of `robustness/conditions.py`: in other layouts, without
depth, with missing joints, with noise, and turned, so that the body hides joints from the sensor. `robustness.md` has the
accuracies, `robustness.png` the curves, and `metrics.json` both with intervals. Beside the recognisers stands kernel ridge on
raw joints, trained on complete recordings.

With several models, their curves share the picture; `--names` says what they are called. A recording that cannot be read counts
as a mistake. A recogniser that was trained without the held-out subjects is evaluated on them, any other on the test split.
"""

import json
import logging
from dataclasses import dataclass, field
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)

BASELINE = "kernel ridge on joints"


@dataclass
class RobustnessArguments:
    """Which recognisers are evaluated, and on which recordings."""

    models: list[str] = field(metadata={"help": "folders or Hub repositories of recognisers of the same classes"})
    output_dir: str = field(metadata={"help": "folder for robustness.md, robustness.png and metrics.json"})
    names: list[str] | None = field(
        default=None, metadata={"help": "names of the recognisers in the picture; by default their paths"}
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
        for name in ("encodings", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}.")
        self.names = self.names or list(self.models)
        if len(self.names) != len(self.models) or len(set(self.names)) < len(self.names):
            raise ValueError(f"--names must be a different name for each of --models, got {' '.join(self.names)}.")
        for model in self.models:
            check_recogniser(model)


ARGUMENTS = (RobustnessArguments, DataArguments)


@writes_output_dir
def main(arguments: RobustnessArguments, data: DataArguments) -> dict:
    """Evaluates the recognisers under all conditions; returns the content of metrics.json."""
    import numpy as np

    from action_llm.skeleton_layouts import get_layout
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.data_arguments import held_out_rows
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.split_evidence import choose_split, count_test_evaluation
    from action_llm_recipes.common.stage_records import training_record
    from action_llm_recipes.metrics.action_classification.classification_scores import wilson_interval
    from action_llm_recipes.metrics.plots import plot_robustness
    from action_llm_recipes.robustness.conditions import conditions

    dataset = data.load("skeletons")
    run = RunFolder(arguments.output_dir)
    run.save_config(arguments, data)
    records = [training_record(model) for model in arguments.models]
    split = choose_split(arguments.split, records[0])
    rows = dataset["test"] if split == "test" else held_out_rows(dataset["train"])
    evidence = [
        check_recordings(*recogniser, data, rows, split) for recogniser in zip(arguments.models, records, strict=True)
    ]
    readers = {BASELINE: joint_reader(dataset["train"], split, arguments.models[0])}
    for name, model in zip(arguments.names, arguments.models, strict=True):
        readers[name] = recogniser_reader(model, rows.features["label"], arguments)

    labels, results = np.array(rows["label"]), {}
    for condition in progress(conditions(get_layout(rows[0]["layout"])), "conditions", "conditions"):
        changed = [condition(row) for row in rows.with_format("numpy")]
        entry = {}
        for name, read in readers.items():
            predictions, unread = read(changed)
            correct = predictions == labels
            interval = wilson_interval(correct.mean(), len(correct))
            entry[name] = {"accuracy": interval.estimate, "low": interval.low, "high": interval.high, "unread": unread}
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
            f"{model} was trained on {len(trained)} classes ({', '.join(trained[:3])}, …), but {data.data_dir} has "
            f"{len(evaluated)} ({', '.join(evaluated[:3])}, …)."
        )
    evidence = SplitEvidence(data.protocol(), {split: rows["sample_id"]}, (model,))
    evidence.refuse(split, record)
    return evidence


def recogniser_reader(path: str, labels, arguments: RobustnessArguments):
    """
    Loads a recogniser.

    Returns:
        A function from rows of recordings to the predicted classes, int64 (N,), −1 for recordings that cannot be read, and the
        number of these.
    """
    import numpy as np
    import torch
    from datasets import Dataset

    from action_llm import ActionLLMProcessor
    from action_llm_recipes.common.action_models import merges_runs
    from action_llm_recipes.common.action_sentences import sentence_features
    from action_llm_recipes.common.recognisers import load_recogniser
    from action_llm_recipes.encode_actions import codes_per_word, encode
    from action_llm_recipes.evaluate_classifier import average_encodings, score

    model = load_recogniser(path, "cuda" if torch.cuda.is_available() else "cpu")
    processor = ActionLLMProcessor.from_pretrained(path)
    action_model = model.base_model.action_model
    config, continuous = action_model.config, model.config.injection_layer is not None
    columns = sentence_features(
        labels, config.num_action_tokens, continuous, False, merges_runs(config), codes_per_word(config)
    )

    def read(rows: list[dict]):
        sentences, skipped = encode(
            action_model,
            processor.feature_extractor,
            rows,
            arguments.encodings,
            arguments.batch_size,
            latents=continuous,
        )
        sentences = Dataset.from_dict(sentences, features=columns)
        probabilities, first_rows = average_encodings(
            score(model, processor, sentences, None, arguments.batch_size), sentences["sample_id"]
        )
        predicted = dict(zip(sentences.select(first_rows)["sample_id"], probabilities.argmax(1).tolist(), strict=True))
        return np.array([predicted.get(str(row["sample_id"]), -1) for row in rows]), len(skipped)

    return read


def joint_reader(train, split: str, model: str):
    """
    Trains kernel ridge on the joints of the training recordings, as the feature extractor of a recogniser reads them.

    Returns:
        A function as of `recogniser_reader`.
    """
    import numpy as np

    from action_llm.feature_extraction_skeleton import SkeletonInputError
    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm_recipes.baselines.models import KernelRidge
    from action_llm_recipes.common.data_arguments import without_held_out

    extractor = load_feature_extractor(model)

    def joints(row):
        try:
            return extractor(row, return_tensors=None)["input_features"][0]
        except SkeletonInputError:
            return None

    train = without_held_out(train, split == "held_out")
    sequences = [(joints(row), row["label"]) for row in train.with_format("numpy")]
    sequences = [(sequence, int(label)) for sequence, label in sequences if sequence is not None]
    classifier = KernelRidge(len(train.features["label"].names))
    classifier.fit([sequence for sequence, _ in sequences], np.array([label for _, label in sequences]))

    def read(rows: list[dict]):
        sequences = [joints(row) for row in rows]
        known = np.array([sequence is not None for sequence in sequences])
        predictions = np.full(len(rows), -1)
        scores = classifier.scores([sequence for sequence in sequences if sequence is not None])
        predictions[known] = scores.argmax(1)
        return predictions, int((~known).sum())

    return read


def page(metrics: dict) -> str:
    """robustness.md: a row per condition, a column per recogniser, with the loss to complete recordings."""
    results = metrics["conditions"]
    complete = results["complete"][""]
    names = list(complete)
    lines = [
        f"# Robustness on {metrics['dataset']}",
        "",
        f"Top-1 accuracies in per cent of {metrics['recordings']} recordings ({metrics['split']}), and the difference to "
        "complete recordings in points.",
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
                if group != "complete":
                    cell += f" ({100 * (accuracy - whole):+.1f})".replace("-", "−")
                if entry[name]["unread"]:
                    cell += f", {entry[name]['unread']} not read"
                cells.append(cell)
            lines.append(f"| {group}{level and ': '}{level} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
