"""
Calibrate a recogniser: fit temperatures of its class probabilities, and choose the probability from which its answers are sure.

```bash
python recipes/calibrate.py --model runs/final/sft/model --evaluations runs/without_*/evaluation \\
    --sure_accuracy 0.95 --output_dir runs/final/calibration
```

The evaluations are of held-out subjects: of this recogniser, if it was trained with `--hold_out true`, or of recognisers with
the same settings. A recogniser that was trained on everybody has no held-out subjects, and on its own training recordings it is
far too sure of itself. So train further ones with `--hold_out true --held_out_subjects S` (`run_line.py`) for each training
subject in turn, and give their temperature to it, as above. Evaluations of training or test recordings are refused.

Averaging versions of a recording makes probabilities less confident. So there is a temperature for single versions and one for
the number of versions of the evaluations (`--encodings` of `evaluate_classifier.py`); for other numbers see
`action_llm.calibration.Calibration.temperature`.

`--sure_accuracy 0.95` also chooses the lowest probability at or above which 95 % of the answers are right, with a guarantee
that holds for few recordings. The pipeline marks less probable answers as unsure.

`calibration.json` beside the model holds the result, and is applied from then on. metrics.json has the scores before and after,
where the temperature of each person is fitted on the other people, beside those of a perfectly calibrated model.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm.model_files import as_written
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.stage_records import stages_behind, training_record
from action_llm_recipes.common.written_folders import check_recogniser, check_written_folder

logger = logging.getLogger(__name__)

# Settings that follow from the number of recordings.
OF_LENGTH = ("steps", "warmup_steps", "early_stopping")


@dataclass
class CalibrationArguments:
    """Which recogniser is calibrated, and on which evaluations."""

    model: str = field(metadata={"help": "folder of the recogniser to calibrate"})
    evaluations: list[str] = field(
        metadata={"help": "folders that evaluate_classifier.py wrote with --split held_out, of different subjects"}
    )
    output_dir: str = field(metadata={"help": "folder for metrics.json and pictures"})
    sure_accuracy: float | None = field(
        default=None,
        metadata={"help": "share of the sure answers that must be right; by default no threshold is chosen"},
    )
    certainty: float = field(default=0.95, metadata={"help": "confidence with which sure_accuracy is reached"})

    def __post_init__(self):
        for name in ("sure_accuracy", "certainty"):
            if (value := getattr(self, name)) is not None and not 0 < value < 1:
                raise ValueError(f"--{name} must be between 0 and 1, got {value}.")
        if not Path(self.model).is_dir():
            raise ValueError(f"--model: there is no folder {self.model}.")
        check_recogniser(self.model)
        for folder in self.evaluations:
            check_written_folder(folder, "evaluate_classifier.py")


ARGUMENTS = (CalibrationArguments,)


@writes_output_dir
def main(arguments: CalibrationArguments) -> dict:
    """Calibrates a recogniser; returns the content of metrics.json."""
    import numpy as np

    from action_llm.calibration import CALIBRATION, Calibration
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.metrics import plots
    from action_llm_recipes.metrics.action_classification.classification_scores import reliability_bins
    from action_llm_recipes.metrics.calibration import risk_coverage

    records = [read_written(folder, "record.json", "evaluate_classifier.py") for folder in arguments.evaluations]
    own = training_record(arguments.model)
    check_evaluations(arguments, own, records)
    scores = pooled(arguments)
    metrics, readings = {}, []
    for versions in scores.log_probabilities:
        reading, metrics[f"versions_{versions}"], after = calibrate_reading(arguments, scores, versions)
        readings.append(reading)
    folder = Path(arguments.output_dir)
    bins = {"Before": scores.log_probabilities[versions], "After": after}
    plots.plot_reliability(
        {title: reliability_bins(values, scores.labels) for title, values in bins.items()}, folder / "calibration.png"
    )
    right = after.argmax(1) == scores.labels
    plots.plot_risk_coverage(risk_coverage(np.exp(after.max(1)), right), folder / "risk_coverage.png")
    is_sure = arguments.sure_accuracy is not None and any(reading.unsure_below is not None for reading in readings)
    calibration = Calibration(
        dataset=records[0]["metrics"]["dataset"],
        recordings=len(scores.labels),
        people=None if scores.people is None else len(set(scores.people.tolist())),
        models=len(records),
        transferred=any(record["model"] != own for record in records),
        readings=tuple(readings),
        sure_accuracy=arguments.sure_accuracy if is_sure else None,
        confidence=arguments.certainty if is_sure else None,
    )
    metrics |= {"recordings": calibration.recordings, "people": calibration.people}
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_atomically(Path(arguments.model, CALIBRATION), calibration.to_json())
    for reading in readings:
        before, after = (metrics[f"versions_{reading.versions}"][when] for when in ("before", "after"))
        logger.info(
            "%d version(s): temperature %.3f; negative log-likelihood %.4f → %.4f; calibration error %.1f %% → %.1f %% "
            "(perfectly calibrated: %.1f %%)",
            reading.versions,
            reading.temperature,
            before["negative_log_likelihood"],
            after["negative_log_likelihood"],
            100 * before["calibration_error"],
            100 * after["calibration_error"],
            100 * after["perfectly_calibrated"]["calibration_error"],
        )
    return metrics


def check_evaluations(arguments: CalibrationArguments, own: dict, records: list[dict]) -> None:
    """
    Checks that a recogniser can be calibrated on evaluations.

    Args:
        arguments: of the recipe.
        own: training record of the recogniser.
        records: of the evaluations.

    Raises:
        ValueError: if one is not of held-out recordings, or of a recogniser with other settings; if two are of the same
            recordings, or they average different numbers of versions.
    """
    seen = set()
    for folder, record in zip(arguments.evaluations, records, strict=True):
        metrics = record.get("metrics") or {}
        if metrics.get("split") != "held_out":
            raise ValueError(
                f"{folder} evaluates the split {as_written(metrics.get('split'))}, expected held_out: on training recordings a "
                "recogniser is far too sure of itself, and test recordings are for results. Train with --hold_out true, and "
                "evaluate the held-out subjects."
            )
        if differing := differing_settings(own, record.get("model") or {}):
            raise ValueError(
                f"{folder} evaluates a recogniser with other settings than {arguments.model} ({', '.join(differing)}): its "
                "probabilities need another temperature."
            )
        fingerprint = ((record.get("split_evidence") or {}).get("held_out") or {}).get("fingerprint")
        if fingerprint in seen:
            raise ValueError(f"{folder} evaluates the same held-out recordings as another evaluation: name each once.")
        seen.add(fingerprint)
    if len(encodings := {record["metrics"].get("encodings", 1) for record in records}) > 1:
        raise ValueError(
            f"the evaluations average {' and '.join(map(str, sorted(encodings)))} versions of each recording: evaluate with "
            "the same --encodings."
        )


def differing_settings(own: dict, other: dict) -> list[str]:
    """The names of the settings in which the stages of two recognisers differ, apart from seeds, held-out subjects, and what
    follows from the number of recordings."""

    def settings_of(record: dict) -> dict:
        settings = {}
        for stage in stages_behind(record):
            values = {"dataset": stage.record.get("dataset"), "method": stage.record.get("method")}
            values |= {k: v for k, v in (stage.record.get("settings") or {}).items() if k not in OF_LENGTH}
            settings |= {f"{stage.name}: {name}": value for name, value in values.items()}
        return settings

    before, after = settings_of(own), settings_of(other)
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def pooled(arguments: CalibrationArguments):
    """
    The class probabilities of all evaluations together, as `EvaluationScores`.

    Raises:
        ModelFileError: if an evaluation of an older version has none.
        ValueError: if the classes are not those of the recogniser.
    """
    import numpy as np

    from action_llm import ActionLLMConfig
    from action_llm_recipes.common.evaluation_scores import EvaluationScores

    parts = [EvaluationScores.load(Path(folder)) for folder in arguments.evaluations]
    names = list(ActionLLMConfig.from_pretrained(arguments.model).id2label.values())
    for folder, part in zip(arguments.evaluations, parts, strict=True):
        if part.class_names != names:
            raise ValueError(
                f"{folder} evaluates the {len(part.class_names)} classes {', '.join(part.class_names[:3])}, …, but "
                f"{arguments.model} knows {len(names)}: {', '.join(names[:3])}, …"
            )
    people, first = [], 0
    for part in parts:  # people have numbers within an evaluation, and evaluations are of different people
        if part.people is not None:
            people.append(part.people + first)
            first += int(part.people.max()) + 1
    return EvaluationScores(
        names,
        np.concatenate([part.labels for part in parts]),
        {
            versions: np.concatenate([part.log_probabilities[versions] for part in parts]).astype(np.float64)
            for versions in parts[0].log_probabilities
        },
        np.concatenate(people) if len(people) == len(parts) else None,
    )


def calibrate_reading(arguments: CalibrationArguments, scores, versions: int):
    """
    Fits the temperature for a number of versions, and chooses the threshold if an accuracy is asked for.

    Args:
        arguments: of the recipe.
        scores: from `pooled`.
        versions: number of versions.

    Returns:
        The `Reading`; scores before and after for metrics.json; and the log-probabilities after, (N, C).

    Raises:
        CalibrationError: if no temperature fits.
    """
    import numpy as np

    from action_llm.calibration import Reading
    from action_llm_recipes.metrics import calibration

    before, labels, people = scores.log_probabilities[versions], scores.labels, scores.people
    temperature = calibration.fit_temperature(before, labels)
    with_all = calibration.with_temperature(before, temperature)
    after = with_all
    if people is not None and len(set(people.tolist())) > 1:
        try:
            after = calibration.fit_without_each_person(before, labels, people)
        except calibration.CalibrationError as error:  # without a person, all recordings may be recognised
            logger.warning("the scores after calibration are those on the recordings that it was fitted on: %s", error)
    metrics = {"temperature": temperature}
    for when, values in (("before", before), ("after", after)):
        right, confidence = values.argmax(1) == labels, np.exp(values.max(1))
        metrics[when] = calibration.scores_of(values, labels)._asdict() | {
            "perfectly_calibrated": calibration.scores_if_perfect(values)._asdict(),
            "risk_coverage_area": float(calibration.risk_coverage(confidence, right).mean()),
        }
    threshold = coverage = None
    if arguments.sure_accuracy is not None:
        right, confidence = with_all.argmax(1) == labels, np.exp(with_all.max(1))
        try:
            chosen = calibration.abstention_threshold(confidence, right, arguments.sure_accuracy, arguments.certainty)
            threshold, coverage = chosen.threshold, chosen.coverage
            metrics["abstention"] = chosen._asdict()
        except calibration.CalibrationError as error:
            logger.warning("no threshold for %d version(s): %s", versions, error)
    log_likelihoods = (-metrics[when]["negative_log_likelihood"] for when in ("before", "after"))
    return Reading(versions, temperature, *log_likelihoods, threshold, coverage), metrics, after


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
