"""
Accuracy of a recogniser: top-1, top-5, mean per class and of each person, with confidence intervals; confusion, calibration,
a table of classes.

```bash
accelerate launch recipes/evaluate_classifier.py \\
    --model runs/utd_mhad/sft/model \\
    --sentences runs/utd_mhad/sentences \\
    --output_dir runs/utd_mhad/evaluation
```

Intervals are Wilson score intervals over recordings, which hold for few recordings and at 0 and 100 %; that of the mean per
class weighs rare and common classes. Where the data set says who was recorded and there are ten people or more, intervals are
never narrower than a bootstrap over people.

A recogniser whose training left the held-out subjects out is evaluated on these, for choosing settings; any other, or with
`--split test`, on the test, and how often that was done is counted beside the model and said on its page. Recordings that a
stage before was trained on are refused.
`--unseen true` is for classes that no stage was trained on (LLM-AR, Table 8): the class list of the test split is written
into the prompt, and the records of all stages are checked for its names. Several processes share the recordings and give
the result of one.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.csv_tables import to_csv
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.recognisers import load_recogniser
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.stage_records import check_unseen, training_record
from action_llm_recipes.common.written_folders import check_recogniser, check_written_folder

logger = logging.getLogger(__name__)

# Of scores in a table.
LABELS = {"top_1": "top-1", "mean_per_class": "mean per class"}


@dataclass
class EvaluationArguments:
    """Which recogniser is evaluated on what."""

    model: str = field(metadata={"help": "folder or Hub repository of an ActionLLM"})
    sentences: str = field(metadata={"help": "folder that encode_actions.py wrote with the same action model"})
    output_dir: str = field(
        metadata={"help": "folder for metrics.json, per_class.csv, per_person.csv, predictions.csv and pictures"}
    )
    split: Literal["test", "held_out", "train"] | None = field(
        default=None,
        metadata={
            "help": "test; held_out (held-out training subjects); train (the other training subjects); by default held_out "
            "where the training left these out, and test where it did not"
        },
    )
    unseen: bool = field(default=False, metadata={"help": "the classes were left out of every stage of training"})
    encodings: int = field(
        default=1,
        metadata={
            "help": "sentences of each recording, the first as it is and the others augmented, whose class probabilities are "
            "averaged (encode_actions.py --test_encodings)"
        },
    )
    list_classes: bool | None = field(
        default=None, metadata={"help": "class list in the prompt; as trained by default"}
    )
    batch_size: int = field(default=16, metadata={"help": "sentences scored at a time"})
    resamples: int = field(
        default=2000, metadata={"help": "bootstrap resamples over people, where ten or more are known"}
    )
    dtype: str | None = field(default=None, metadata={"help": "dtype of the language model; as trained by default"})
    attn_implementation: str | None = field(default=None, metadata={"help": "attention of the language model"})

    def __post_init__(self):
        check_recogniser(self.model)
        check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (EvaluationArguments,)


@writes_output_dir
def main(arguments: EvaluationArguments) -> dict | None:
    import numpy as np
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from action_llm import ActionLLMProcessor
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.action_sentences import (
        check_tokens,
        load_action_sentences,
        select_split,
    )
    from action_llm_recipes.common.people import read_people
    from action_llm_recipes.common.run_folder import RunFolder, describe_hardware
    from action_llm_recipes.common.split_evidence import (
        check_evaluated,
        count_test_evaluation,
        default_split,
        test_evaluations_text,
    )

    # Without a GPU, accelerate sees the processes of a launch only when it is told that there is none.
    state = PartialState(cpu=not torch.cuda.is_available())
    run = RunFolder(arguments.output_dir)
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    record = training_record(arguments.model)
    split = arguments.split or default_split(record, arguments.unseen)
    if arguments.split is None and split == "held_out":
        logger.info(
            "The held-out recordings, which the training left out, are evaluated; --split test opens the test."
        )
    rows = select_split(load_action_sentences(arguments.sentences), split, arguments.encodings)
    class_names = rows.features["label"].names
    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights", "dataset")
    if arguments.unseen:
        check_unseen(record, class_names)
    elif class_names != processor.class_names:
        raise ValueError(
            f"the model was trained on {len(processor.class_names)} classes ({', '.join(processor.class_names[:3])}, …), but "
            f"{arguments.sentences} has {len(class_names)} ({', '.join(class_names[:3])}, …): for classes that it was not "
            "trained on, set --unseen true."
        )
    model = load_recogniser(arguments.model, identity, state.device, arguments.dtype, arguments.attn_implementation)
    evidence = check_evaluated(arguments.model, record, arguments.sentences, rows, split)

    check_tokens(rows, arguments.sentences, processor.num_action_tokens)
    list_classes = arguments.unseen if arguments.list_classes is None else arguments.list_classes
    if arguments.list_classes is None and not arguments.unseen:
        list_classes = None
    mine = list(range(state.process_index, len(rows), state.num_processes))
    scores = score(model, processor, rows.select(mine), class_names, list_classes, arguments.batch_size, state)
    gathered = gather_object([(mine, scores)])
    if not state.is_main_process:
        return None
    log_probabilities = np.empty((len(rows), len(class_names)))
    for indices, part in gathered:
        log_probabilities[indices] = part
    log_probabilities, kept = average_encodings(log_probabilities, rows["sample_id"])
    rows = rows.select(kept)
    labels = np.array(rows["label"])
    people_by_id = read_people(arguments.sentences)
    people = [people_by_id.get(sample_id) for sample_id in rows["sample_id"]]
    metrics = summarise(
        log_probabilities, labels, class_names, arguments.resamples, None if None in people else people
    )
    metrics |= {
        "split": split,
        "encodings": arguments.encodings,
        "unseen": arguments.unseen,
        "dataset": identity["dataset"],
        "compared_by": compared_by(identity["dataset"]),
    }
    opened = count_test_evaluation(arguments.model, identity["dataset"], evidence) if split == "test" else None
    write_results(run.path, metrics, log_probabilities, labels, class_names, rows["sample_id"], write_atomically)
    run.write_record(
        evidence,
        stage="evaluate_classifier",
        metrics=metrics,
        model=record,
        hardware=describe_hardware(),
        split=split,
        test_evaluations=opened,
    )
    first = metrics["compared_by"]
    right = f"{LABELS.get(first, first)} {100 * metrics[first]['estimate']:.1f} %"
    run.log_finished("Evaluation", f"{right} of {len(labels)} recordings")
    logger.info("\n%s\n\n  in %s", table({split: metrics}), run.path)
    if opened is not None:
        logger.info("%s", test_evaluations_text(opened))
    return metrics


def average_encodings(log_probabilities, sample_ids):
    """
    Class probabilities of recordings: the mean of those of its sentences.

    Args:
        log_probabilities: float64 (number of sentences, number of classes), each normalised over the classes.
        sample_ids: of each sentence, the recording that it is of.

    Returns:
        The logarithm of the means (number of recordings, number of classes), in the order of first sentences, and which
        sentences those are.
    """
    import numpy as np

    names, first, place = np.unique(np.asarray(sample_ids), return_index=True, return_inverse=True)
    total = np.full((len(names), log_probabilities.shape[1]), -np.inf)
    np.logaddexp.at(total, place, log_probabilities)
    order = first.argsort()
    return (total - np.log(np.bincount(place))[:, None])[order], first[order]


def score(model, processor, rows, class_names, list_classes, batch_size: int, state):
    """log P(class | prompt), normalised over the classes: float64 (number of rows, number of classes)."""
    import numpy as np
    import torch

    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_sentences import latents_of, words_of

    continuous = model.config.injection_layer is not None
    scores = np.empty((len(rows), len(class_names)))
    # Sentences of one length together: less padding. The longest first: what does not fit shows at once.
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["action_ids"]))
    for start in progress(range(0, len(order), batch_size), "scoring", "batches"):
        chosen = order[start : start + batch_size]
        batch = rows.select(chosen)
        # Latents take a place each, whatever their tokens are.
        words = [[0] * len(row["action_ids"]) if continuous else words_of(row, processor) for row in batch]
        inputs = processor(action_ids=words, class_names=class_names, list_classes=list_classes)
        if continuous:
            inputs |= latents_of(batch, inputs["input_ids"], model.config)
        with torch.no_grad():
            logits = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits
        scores[chosen] = logits.double().log_softmax(-1).cpu().numpy()
    return scores


def summarise(log_probabilities, labels, class_names, resamples: int, people: list[str] | None = None) -> dict:
    """All metrics, with 95 % intervals for the first three, and, where it is known who was recorded, top-1 of each person.

    `interval` says how the intervals were made: over `recordings` (Wilson), or over `people` too, where there are ten or more.
    """
    from action_llm_recipes.metrics.action_classification import classification_scores as metrics

    predictions = log_probabilities.argmax(1)
    top5 = min(5, len(class_names))

    def interval(statistic, scores, over_recordings=None):
        if over_recordings is None:
            over_recordings = metrics.wilson_interval(statistic(scores, labels), len(labels))
        return dataclasses.asdict(
            metrics.accuracy_interval(
                statistic, scores, labels, over_recordings=over_recordings, people=people, resamples=resamples
            )
        )

    per_class = metrics.mean_per_class_interval(predictions, labels)
    return {
        "recordings": len(labels),
        "classes": len(class_names),
        "top_1": interval(metrics.accuracy, predictions),
        f"top_{top5}": interval(lambda s, y: metrics.top_k_accuracy(s, y, top5), log_probabilities),
        "mean_per_class": interval(metrics.mean_per_class_accuracy, predictions, per_class),
        "interval": "people" if metrics.samples_people(people) else "recordings",
        "people": None if people is None else metrics.accuracy_by_person(predictions == labels, people),
        "calibration_error": metrics.expected_calibration_error(log_probabilities, labels),
        "negative_log_likelihood": metrics.negative_log_likelihood(log_probabilities, labels),
        "brier_score": metrics.brier_score(log_probabilities, labels),
    }


def write_results(folder: Path, results: dict, log_probabilities, labels, class_names, sample_ids, write):
    """JSON, CSV and PNG."""
    from action_llm_recipes.metrics import plots
    from action_llm_recipes.metrics.action_classification import classification_scores as metrics

    predictions = log_probabilities.argmax(1)
    table = metrics.per_class_table(predictions, labels, class_names)
    write(folder / "metrics.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write(folder / "per_class.csv", to_csv([dataclasses.asdict(row) for row in table]))
    if results["people"]:
        write(folder / "per_person.csv", to_csv({"person": name, **row} for name, row in results["people"].items()))
    best = log_probabilities.max(1)
    write(
        folder / "predictions.csv",
        to_csv(
            {
                "sample_id": sample_id,
                "label": class_names[label],
                "prediction": class_names[prediction],
                "probability": f"{probability:.6f}",
                "probability_of_label": f"{of_label:.6f}",
            }
            for sample_id, label, prediction, probability, of_label in zip(
                sample_ids,
                labels,
                predictions,
                _exp(best),
                _exp(log_probabilities[range(len(labels)), labels]),
                strict=True,
            )
        ),
    )
    matrix = metrics.confusion_matrix(predictions, labels, len(class_names))
    write(
        folder / "confusion.csv",
        to_csv(
            {"label": name, **dict(zip(class_names, row, strict=True))}
            for name, row in zip(class_names, matrix.tolist(), strict=True)
        ),
    )
    plots.plot_confusion_matrix(matrix, class_names, folder / "confusion.png")
    plots.plot_reliability(metrics.reliability_bins(log_probabilities, labels), folder / "calibration.png")
    plots.plot_class_accuracy(table, folder / "per_class.png")


def compared_by(dataset: str) -> str:
    """The metric by which recognisers are compared on a data set: "top_1", or "mean_per_class" for Toyota Smarthome."""
    from action_llm_datasets.load import PROTOCOLS

    return PROTOCOLS[dataset][0].METRIC if dataset in PROTOCOLS else "top_1"


def table(results: dict[str, dict]) -> str:
    """The metrics of evaluations as a table for a person; what recognisers are compared by on a data set comes first.

    Args:
        results: of each name that a row has, the metrics that [`main`] returned.
    """
    (first,) = {metrics["compared_by"] for metrics in results.values()}
    several = any(metrics["encodings"] > 1 for metrics in results.values())
    several_people = any(metrics.get("people") for metrics in results.values())
    scores = [
        name for name, value in next(iter(results.values())).items() if isinstance(value, dict) and "low" in value
    ]
    scores = list(dict.fromkeys([first, *scores]))
    heads = ["", "recordings", "classes", *["sentences each"] * several, LABELS.get(first, first), "95 % interval"]
    heads += [LABELS.get(name, name.replace("_", "-")) for name in scores[1:]]
    rows = [[*heads, "calibration error", *["top-1 by person"] * several_people]]
    for row, metrics in results.items():
        estimates = [f"{100 * metrics[name]['estimate']:.1f} %" for name in scores]
        interval = f"{100 * metrics[first]['low']:.1f}–{100 * metrics[first]['high']:.1f}"
        counts = [metrics["recordings"], metrics["classes"], *[metrics["encodings"]] * several]
        error = f"{100 * metrics['calibration_error']:.1f} %"
        by_person = [100 * person["top_1"] for person in (metrics.get("people") or {}).values()]
        spread = f"{min(by_person):.1f}–{max(by_person):.1f} ({len(by_person)})" if by_person else "unknown"
        rows.append(
            [row, *map(str, counts), estimates[0], interval, *estimates[1:], error, *[spread] * several_people]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)
    return "\n".join(f"  {line}" for line in lines)


def _exp(values):
    import numpy as np

    return np.exp(values)


def cli():
    """The command `action-llm-evaluate`."""
    launch(main, *ARGUMENTS)


if __name__ == "__main__":
    cli()
