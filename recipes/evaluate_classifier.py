"""
Evaluate a recogniser: top-1, top-5 and mean-per-class accuracy with confidence intervals, the accuracy of each person, a
confusion matrix, calibration, and a table of classes.

```bash
accelerate launch recipes/evaluate_classifier.py \\
    --model runs/utd_mhad/sft/model \\
    --sentences runs/utd_mhad/sentences \\
    --output_dir runs/utd_mhad/evaluation
```

Intervals are 95 % Wilson score intervals over recordings, which hold for few recordings and near 0 and 100 %; the interval of
the mean per class takes the sizes of the classes into account. Where the data set names at least ten people, no interval is
narrower than a bootstrap over people.

A recogniser that was trained without the held-out subjects is evaluated on them, so that settings can be chosen without the
test split. Any other recogniser is evaluated on the test split, as is every recogniser with `--split test`. Evaluations of the
test split are counted beside the model, and its page shows the count. Recordings that any stage was trained on are refused.

The class probabilities of a calibrated recogniser (`calibrate.py`) have its temperature on the test split, and metrics.json
also has the scores without. Temperatures are fitted on held-out subjects, so there and on the training split they are left out.
Calibration error, likelihood and Brier score stand beside those of a perfectly calibrated model with the same probabilities.

`--unseen true` is for classes that no stage was trained on (LLM-AR, Table 8): the prompt lists the classes of the test split,
and the records of all stages are checked for them. The accuracy of the same question without the recording (`text_only`) stands
beside, and the accuracy when each name's probability is divided by that of the text alone (`divided_by_prior`).

Several processes share the recordings and give the same result as one.
"""

import dataclasses
import hashlib
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.csv_tables import to_csv
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.recognisers import load_for_sentences
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.stage_records import check_unseen, training_record
from action_llm_recipes.common.written_folders import check_recogniser, check_written_folder

logger = logging.getLogger(__name__)

# Scores with a heading of their own in a table.
LABELS = {"top_1": "top-1", "mean_per_class": "mean per class"}


@dataclass
class EvaluationArguments:
    """Which recogniser is evaluated, and on which recordings."""

    model: str = field(metadata={"help": "folder or Hub repository of a recogniser"})
    sentences: str = field(metadata={"help": "folder that encode_actions.py wrote with the same action model"})
    output_dir: str = field(
        metadata={"help": "folder for metrics.json, scores.safetensors, tables (CSV) and pictures"}
    )
    split: Literal["test", "held_out", "train"] | None = field(
        default=None,
        metadata={
            "help": "test; held_out (held-out training subjects); train (the other training subjects). By default held_out if "
            "the recogniser was trained without these subjects, else test"
        },
    )
    unseen: bool = field(default=False, metadata={"help": "evaluate classes that no stage was trained on"})
    encodings: int = field(
        default=1,
        metadata={
            "help": "number of encodings per recording whose class probabilities are averaged: the recording itself, then "
            "augmented versions (encode_actions.py --test_encodings)"
        },
    )
    list_classes: bool | None = field(
        default=None, metadata={"help": "list the classes in the prompt; by default as in training"}
    )
    batch_size: int = field(default=16, metadata={"help": "number of sentences per batch"})
    resamples: int = field(
        default=2000, metadata={"help": "number of bootstrap resamples over people, where at least ten are known"}
    )
    dtype: str | None = field(
        default=None, metadata={"help": "dtype of the language model; by default as in training"}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "attention of the language model: sdpa, eager, flash_attention_2"}
    )

    def __post_init__(self):
        check_at_least_one(self, "encodings", "batch_size", "resamples")
        check_recogniser(self.model)
        check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (EvaluationArguments,)


@writes_output_dir
def main(arguments: EvaluationArguments) -> dict | None:
    """Evaluates a recogniser; returns the content of metrics.json, and None in all processes but the first."""
    import numpy as np
    import torch
    from accelerate import PartialState

    from action_llm import ActionLLMProcessor
    from action_llm_recipes.common.action_sentences import check_tokens, load_action_sentences, select_split
    from action_llm_recipes.common.evaluation_scores import EvaluationScores
    from action_llm_recipes.common.people import numbers_of_people, read_people
    from action_llm_recipes.common.run_folder import RunFolder, describe_hardware
    from action_llm_recipes.common.split_evidence import check_evaluated, choose_split, count_test_evaluation
    from action_llm_recipes.metrics.calibration import scores_of, with_temperature

    # Without a GPU, accelerate sees the processes of a launch only if it is told to use the CPU.
    state = PartialState(cpu=not torch.cuda.is_available())
    run = RunFolder(arguments.output_dir)
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    record = training_record(arguments.model)
    split = choose_split(arguments.split, record, arguments.unseen)
    rows = select_split(load_action_sentences(arguments.sentences), split, arguments.encodings)
    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights", "dataset")
    check_classes(arguments, record, processor.class_names, rows.features["label"].names)
    calibration = read_calibration_for(arguments.model, split, arguments.unseen)
    inputs = inputs_of(arguments, record, identity, split, calibration)
    if (metrics := finished_metrics(run, inputs)) is not None:
        logger.info("%s is finished", run.path)
        return metrics if state.is_main_process else None
    model = load_for_sentences(arguments.model, identity, state.device, arguments.dtype, arguments.attn_implementation)
    evidence = check_evaluated(arguments.model, record, arguments.sentences, rows, split)
    check_tokens(rows, arguments.sentences, processor.num_action_tokens)

    started = time.perf_counter()
    log_probabilities = score_in_all_processes(arguments, model, processor, rows, state)
    scoring_seconds = round(time.perf_counter() - started, 2)
    if log_probabilities is None:
        return None
    of_originals = log_probabilities
    log_probabilities, first_rows = average_encodings(log_probabilities, rows["sample_id"])
    of_originals, rows = of_originals[first_rows], rows.select(first_rows)
    people, raw = read_people(arguments.sentences), log_probabilities
    if calibration is not None:
        log_probabilities = with_temperature(raw, calibration.temperature(arguments.encodings))
    metrics = summarise(log_probabilities, rows, arguments.resamples, people)
    if arguments.unseen:
        prior = text_only_scores(arguments, model, processor, rows)
        metrics |= beside_the_prior(log_probabilities, prior, np.array(rows["label"]))
    if calibration is not None:
        metrics["uncalibrated"] = scores_of(raw, np.array(rows["label"]))._asdict()
    metrics |= {
        "split": split,
        "encodings": arguments.encodings,
        "unseen": arguments.unseen,
        "dataset": identity["dataset"],
        "compared_by": compared_by(identity["dataset"]),
        **by_data_set(log_probabilities, rows, identity["dataset"]),
    }
    test_evaluations = None
    if split == "test":
        test_evaluations = count_test_evaluation(arguments.model, identity["dataset"], evidence)
    EvaluationScores(
        rows.features["label"].names,
        np.array(rows["label"]),
        {1: of_originals, arguments.encodings: raw},
        numbers_of_people(people, rows["sample_id"]),
    ).save(run.path)
    write_results(run.path, metrics, log_probabilities, rows, raw if calibration is not None else None)
    run.write_record(
        evidence,
        stage="evaluate_classifier",
        metrics=metrics,
        model=record,
        hardware=describe_hardware(),
        split=split,
        scoring_seconds=scoring_seconds,
        test_evaluations=test_evaluations,
        inputs=inputs,
    )
    log_metrics(run, metrics, test_evaluations)
    return metrics


def read_calibration_for(model: str, split: str, unseen: bool):
    """The calibration of a recogniser for an evaluation; None if it has none, or it does not apply: it is fitted on held-out
    recordings of the trained classes, which it would fit too well."""
    from transformers.utils.hub import cached_file

    from action_llm.calibration import CALIBRATION, read_calibration

    if split != "test" or unseen:
        return None
    path = cached_file(model, CALIBRATION, _raise_exceptions_for_missing_entries=False)
    return None if path is None else read_calibration(path)


def inputs_of(arguments: EvaluationArguments, record: dict, identity: dict, split: str, calibration) -> str | None:
    """
    A fingerprint of what an evaluation reads: recogniser, sentences, split and settings.

    Args:
        arguments: of the recipe.
        record: training record of the recogniser.
        identity: fingerprints of the sentences.
        split: that is evaluated.
        calibration: of the recogniser, or None.

    Returns:
        Hexadecimal digits, or None for a recogniser without a record, which cannot be told from others.
    """
    if not record:
        return None
    ignored = {"model", "sentences", "output_dir", "batch_size", "split"}
    settings = {name: value for name, value in dataclasses.asdict(arguments).items() if name not in ignored}
    parts = [record, identity, split, settings] + ([calibration.to_json()] if calibration is not None else [])
    content = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def finished_metrics(run, inputs: str | None) -> dict | None:
    """The metrics of an earlier evaluation with the same inputs in this folder, or None.

    Evaluating again would count the test split again.
    """
    if inputs is None or not run.finished:
        return None
    record = run.read_record()
    return record["metrics"] if record.get("inputs") == inputs else None


def check_classes(arguments: EvaluationArguments, record: dict, trained: list[str], evaluated: list[str]) -> None:
    """
    Checks the classes of an evaluation against those of training.

    Args:
        arguments: of the recipe.
        record: training record of the recogniser.
        trained, evaluated: class names of the recogniser, and of the sentences.

    Raises:
        ValueError: if they differ; with `unseen`, if a stage was trained on a class that is evaluated.
    """
    if arguments.unseen:
        check_unseen(record, evaluated)
    elif evaluated != trained:
        raise ValueError(
            f"the model was trained on {len(trained)} classes ({', '.join(trained[:3])}, …), but {arguments.sentences} has "
            f"{len(evaluated)} ({', '.join(evaluated[:3])}, …): for classes that it was not trained on, set --unseen true."
        )


def score_in_all_processes(arguments: EvaluationArguments, model, processor, rows, state):
    """
    Scores of all sentences, each process scoring its share.

    Args:
        arguments: of the recipe.
        model, processor: the recogniser.
        rows: sentences to score.
        state (`accelerate.PartialState`): of the processes.

    Returns:
        What `score` returns for all rows in the first process, and None in the others.
    """
    import numpy as np
    from accelerate.utils import gather_object

    list_classes = lists_classes(arguments)
    own = list(range(state.process_index, len(rows), state.num_processes))
    gathered = gather_object([(own, score(model, processor, rows.select(own), list_classes, arguments.batch_size))])
    if not state.is_main_process:
        return None
    log_probabilities = np.full((len(rows), len(rows.features["label"].names)), np.nan)
    for indices, scores in gathered:
        log_probabilities[indices] = scores
    return log_probabilities


def lists_classes(arguments: EvaluationArguments) -> bool | None:
    """Whether the prompt lists the classes; None as in training."""
    return True if arguments.unseen and arguments.list_classes is None else arguments.list_classes


def average_encodings(log_probabilities, sample_ids):
    """
    Averages the class probabilities of all sentences of a recording.

    Args:
        log_probabilities: float64 (number of sentences, number of classes), normalised over the classes.
        sample_ids: the recording of each sentence.

    Returns:
        Logarithms of the mean probabilities, float64 (number of recordings, number of classes), and the index of the first
        sentence of each recording. Recordings are in the order of their first sentences.
    """
    import numpy as np

    names, first, recording = np.unique(np.asarray(sample_ids), return_index=True, return_inverse=True)
    total = np.full((len(names), log_probabilities.shape[1]), -np.inf)
    np.logaddexp.at(total, recording, log_probabilities)
    order = first.argsort()
    return (total - np.log(np.bincount(recording))[:, None])[order], first[order]


def score(model, processor, rows, list_classes: bool | None, batch_size: int, class_names: list[str] | None = None):
    """
    Class probabilities of sentences.

    Args:
        model, processor: the recogniser.
        rows: sentences.
        list_classes: whether the prompt lists the classes; None as in training.
        batch_size: number of sentences per batch.
        class_names: classes to score; by default those of the rows.

    Returns:
        log P(class | prompt), normalised over the classes: float64 (number of rows, number of classes).
    """
    import numpy as np
    import torch

    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_sentences import latents_of, words_of

    class_names = class_names or rows.features["label"].names
    continuous = model.config.injection_layer is not None
    scores = np.full((len(rows), len(class_names)), np.nan)
    # Sentences of similar length share a batch, which saves padding. The longest come first, so a lack of memory shows at once.
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["action_ids"]))
    for start in progress(range(0, len(order), batch_size), "scoring", "batches"):
        chosen = order[start : start + batch_size]
        batch = rows.select(chosen)
        # Each latent replaces one token, whatever the token is.
        words = [[0] * len(row["action_ids"]) if continuous else words_of(row, processor) for row in batch]
        inputs = processor(action_ids=words, class_names=class_names, list_classes=list_classes)
        if continuous:
            inputs |= latents_of(batch, inputs["input_ids"], model.config)
        with torch.no_grad():
            logits = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits
        scores[chosen] = logits.double().log_softmax(-1).cpu().numpy()
    return scores


def text_only_scores(arguments: EvaluationArguments, model, processor, rows):
    """log P(class | prompt without a recording), float64 (number of classes,), normalised over the classes of the rows."""
    import torch

    names, lists = rows.features["label"].names, lists_classes(arguments)
    prompt, _ = processor.encode_prompt_and_label(processor.prompt(class_names=names, list_classes=lists))
    labels = processor.label_ids(names, lists)
    length = max(map(len, labels))
    label_ids = torch.tensor([row + [-100] * (length - len(row)) for row in labels], device=model.device)
    return model.log_prior(torch.tensor([prompt], device=model.device), label_ids=label_ids).double().cpu().numpy()


def beside_the_prior(log_probabilities, prior, labels) -> dict:
    """
    What the text alone answers, and what the recording adds to it.

    Args:
        log_probabilities: float64 (number of recordings, number of classes), as of `summarise`.
        prior: float64 (number of classes,), log-probabilities from the text alone.
        labels: int (number of recordings,).

    Returns:
        `text_only` and `divided_by_prior`, each with `top_1` and, for more than five classes, `top_5`: accuracies with 95 %
        Wilson intervals.
    """
    import numpy as np

    from action_llm_recipes.metrics.action_classification.classification_scores import top_k_accuracy, wilson_interval

    answers = {
        "text_only": np.broadcast_to(prior, log_probabilities.shape),
        "divided_by_prior": log_probabilities - prior,
    }
    return {
        name: {
            f"top_{k}": dataclasses.asdict(wilson_interval(top_k_accuracy(scores, labels, k), len(labels)))
            for k in (1, 5)
            if k < len(prior)
        }
        for name, scores in answers.items()
    }


def summarise(log_probabilities, rows, resamples: int, person_of: dict[str, str]) -> dict:
    """
    All metrics of an evaluation.

    Args:
        log_probabilities: float64 (number of recordings, number of classes), normalised over the classes.
        rows: the recordings, with `sample_id` and `label`.
        resamples: number of bootstrap resamples over people.
        person_of: `sample_id` → person; people are left out of the metrics unless everybody is known.

    Returns:
        Metrics by name. The accuracies have 95 % intervals; `interval` says whether these are over `recordings` (Wilson) or,
        with at least ten people, also over `people`. `people` holds the top-1 accuracy of each person, or None.
        `perfectly_calibrated` are median scores of a perfectly calibrated model with the same probabilities, and
        `risk_coverage_area` is the area under the curve of `risk_coverage`.
    """
    import numpy as np

    from action_llm_recipes.metrics.action_classification import classification_scores as metrics
    from action_llm_recipes.metrics.calibration import risk_coverage, scores_if_perfect, scores_of

    labels, class_names = np.array(rows["label"]), rows.features["label"].names
    people = [person_of.get(sample_id) for sample_id in rows["sample_id"]]
    people = None if None in people else people
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
        f"top_{top5}": interval(
            lambda scores, labels: metrics.top_k_accuracy(scores, labels, top5), log_probabilities
        ),
        "mean_per_class": interval(metrics.mean_per_class_accuracy, predictions, per_class),
        "interval": "people" if metrics.samples_people(people) else "recordings",
        "people": None if people is None else metrics.accuracy_by_person(predictions == labels, people),
        **scores_of(log_probabilities, labels)._asdict(),
        "perfectly_calibrated": scores_if_perfect(log_probabilities)._asdict(),
        "risk_coverage_area": float(risk_coverage(np.exp(log_probabilities.max(1)), predictions == labels).mean()),
    }


def by_data_set(log_probabilities, rows, dataset: str) -> dict:
    """
    The accuracy on each of several data sets; the model chooses among the classes of all.

    Args:
        log_probabilities, rows: as of `summarise`.
        dataset: name of the data set, or a `joined_title`.

    Returns:
        `data_sets`: name → number of `recordings` and `top_1` with a Wilson interval. Nothing for a single data set.
    """
    import numpy as np

    from action_llm_recipes.common.joined_data_sets import origin_of, titles_in
    from action_llm_recipes.metrics.action_classification.classification_scores import wilson_interval

    titles = titles_in(dataset)
    if len(titles) == 1:
        return {}
    hits = log_probabilities.argmax(1) == np.array(rows["label"])
    origins = np.array([origin_of(dataset, sample_id)[0] for sample_id in rows["sample_id"]])
    of_sets = {title: hits[origins == title] for title in titles}
    return {
        "data_sets": {
            title: {"recordings": len(own), "top_1": dataclasses.asdict(wilson_interval(own.mean(), len(own)))}
            for title, own in of_sets.items()
            if len(own)
        }
    }


def write_results(folder: Path, metrics: dict, log_probabilities, rows, uncalibrated=None):
    """
    Writes metrics.json, the tables per_class.csv, per_person.csv (if people are known), predictions.csv and confusion.csv, and
    the pictures confusion.png, calibration.png, risk_coverage.png and per_class.png.

    Args:
        folder: of the evaluation.
        metrics: content of metrics.json.
        log_probabilities, rows: as of `summarise`.
        uncalibrated: log-probabilities without temperature, to be drawn beside the others, or None.
    """
    import numpy as np

    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.metrics import plots
    from action_llm_recipes.metrics.action_classification import classification_scores as scores
    from action_llm_recipes.metrics.calibration import risk_coverage

    labels, class_names = np.array(rows["label"]), rows.features["label"].names
    predictions = log_probabilities.argmax(1)
    per_class = scores.per_class_table(predictions, labels, class_names)
    matrix = scores.confusion_matrix(predictions, labels, len(class_names))
    tables = {
        "per_class": [dataclasses.asdict(score) for score in per_class],
        "predictions": predictions_table(log_probabilities, rows),
        "confusion": [
            {"label": name, **dict(zip(class_names, counts, strict=True))}
            for name, counts in zip(class_names, matrix.tolist(), strict=True)
        ],
    }
    if metrics["people"]:
        tables["per_person"] = [{"person": name, **score} for name, score in metrics["people"].items()]
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    for name, table_rows in tables.items():
        write_atomically(folder / f"{name}.csv", to_csv(table_rows))
    plots.plot_confusion_matrix(matrix, class_names, folder / "confusion.png")
    drawn = {"Calibration": log_probabilities}
    if uncalibrated is not None:
        drawn = {"Before": uncalibrated, "After": log_probabilities}
    bins = {title: scores.reliability_bins(values, labels) for title, values in drawn.items()}
    plots.plot_reliability(bins, folder / "calibration.png")
    confidence = np.exp(log_probabilities.max(1))
    plots.plot_risk_coverage(risk_coverage(confidence, predictions == labels), folder / "risk_coverage.png")
    plots.plot_class_accuracy(per_class, folder / "per_class.png")


def predictions_table(log_probabilities, rows) -> list[dict]:
    """The prediction for each recording, its probability, and the probability of the true class."""
    import numpy as np

    labels, class_names = np.array(rows["label"]), rows.features["label"].names
    probabilities = np.exp(log_probabilities)
    return [
        {
            "sample_id": sample_id,
            "label": class_names[label],
            "prediction": class_names[prediction],
            "probability": f"{of_classes[prediction]:.6f}",
            "probability_of_label": f"{of_classes[label]:.6f}",
        }
        for sample_id, label, prediction, of_classes in zip(
            rows["sample_id"], labels, log_probabilities.argmax(1), probabilities, strict=True
        )
    ]


def log_metrics(run, metrics: dict, test_evaluations: int | None):
    """Logs the table of metrics, and how often the test split was evaluated with the model, if it was."""
    from action_llm_recipes.common.split_evidence import test_evaluations_text

    first = metrics["compared_by"]
    accuracy = f"{LABELS.get(first, first)} {100 * metrics[first]['estimate']:.1f} %"
    run.log_finished("Evaluation", f"{accuracy} of {metrics['recordings']} recordings")
    logger.info("\n%s\n\n  in %s", table({metrics["split"]: metrics}), run.path)
    if metrics["unseen"]:
        logger.info(
            "The text alone, without the recording: top-1 %.1f %%. Divided by its probabilities: top-1 %.1f %%.",
            *(100 * metrics[name]["top_1"]["estimate"] for name in ("text_only", "divided_by_prior")),
        )
    for title, of_set in metrics.get("data_sets", {}).items():
        estimate, low, high = (100 * of_set["top_1"][name] for name in ("estimate", "low", "high"))
        logger.info("%s: top-1 %.1f %% (%.1f–%.1f) of %d recordings", title, estimate, low, high, of_set["recordings"])
    logger.info(
        "A perfectly calibrated model would have a calibration error of about %.1f %% on so many recordings.",
        100 * metrics["perfectly_calibrated"]["calibration_error"],
    )
    if test_evaluations is not None:
        logger.info("%s", test_evaluations_text(test_evaluations))


def compared_by(dataset: str) -> str:
    """The metric that recognisers are compared by on a data set: "mean_per_class" for Toyota Smarthome, else "top_1"."""
    from action_llm_datasets.load import PROTOCOLS

    return PROTOCOLS[dataset][0].METRIC if dataset in PROTOCOLS else "top_1"


def table(results: dict[str, dict]) -> str:
    """
    Metrics of evaluations as a table of text, a row each. The metric that the data set is compared by comes first.

    Args:
        results: name of each row → metrics that [`main`] returned. All must be compared by the same metric.
    """
    (first,) = {metrics["compared_by"] for metrics in results.values()}
    with_encodings = any(metrics["encodings"] > 1 for metrics in results.values())
    with_people = any(metrics.get("people") for metrics in results.values())
    scores = [
        name for name, value in next(iter(results.values())).items() if isinstance(value, dict) and "low" in value
    ]
    scores = list(dict.fromkeys([first, *scores]))
    header = ["", "recordings", "classes"]
    header += ["sentences each"] * with_encodings
    header += [
        LABELS.get(first, first),
        "95 % interval",
        *(LABELS.get(name, name.replace("_", "-")) for name in scores[1:]),
    ]
    header += ["calibration error", *["top-1 by person"] * with_people]
    lines = [header]
    for name, metrics in results.items():
        estimates = [f"{100 * metrics[score]['estimate']:.1f} %" for score in scores]
        line = [name, str(metrics["recordings"]), str(metrics["classes"])]
        line += [str(metrics["encodings"])] * with_encodings
        line += [estimates[0], f"{100 * metrics[first]['low']:.1f}–{100 * metrics[first]['high']:.1f}", *estimates[1:]]
        line += [f"{100 * metrics['calibration_error']:.1f} %", *[_range_over_people(metrics)] * with_people]
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  " + "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def _range_over_people(metrics: dict) -> str:
    accuracies = [100 * person["top_1"] for person in (metrics.get("people") or {}).values()]
    return f"{min(accuracies):.1f}–{max(accuracies):.1f} ({len(accuracies)})" if accuracies else "unknown"


def cli():
    """The command `action-llm-evaluate`."""
    launch(main, *ARGUMENTS)


if __name__ == "__main__":
    cli()
