"""
The measured rows of a table: what each run gave, and what they amount to together.

The JSON file of a table keeps one bit for each recording (whether it was classified correctly), so that rows can be added by
another machine and still be compared recording by recording.
"""

import csv
import hashlib
import json
import logging
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from action_llm.model_files import read_json_object
from action_llm_datasets.atomic_files import write_atomically
from action_llm_recipes.paper_tables.runs import RowRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """
    A measured value.

    Attributes:
        mean: over seeds and draws.
        low, high: range over seeds; for differences, the 95 % interval over recordings.
        seeds: number of seeds.
    """

    mean: float
    low: float
    high: float
    seeds: int


class TableResults:
    """
    The results of a table on a data set, kept in a JSON file.

    Args:
        path: of the JSON file, which need not exist.

    Raises:
        ModelFileError: if the file is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.content = read_json_object(path)
        except FileNotFoundError:
            self.content = {"about": {}, "recordings": {}, "rows": {}, "baselines": {}}

    def has(self, run: RowRun) -> bool:
        """Whether the file has the result of a run with the same settings."""
        result = self._results(run.row.name).get(run.dataset, {}).get(str(run.seed))
        return result is not None and result["settings_key"] == run.settings_key

    def drop_outdated(self, runs: list[RowRun]) -> None:
        """
        Drops results that were measured with other settings than those of today's rows and presets.

        Args:
            runs: runs of all rows on all data sets of the file, with any seed.
        """
        for run in runs:
            results = self._results(run.row.name).get(run.dataset, {})
            outdated = [seed for seed, result in results.items() if result["settings_key"] != run.settings_key]
            for seed in outdated:
                logger.warning(
                    "%s: the row %s, seed %s, was measured with other settings and is dropped",
                    self.path,
                    run.row.name,
                    seed,
                )
                del results[seed]

    def add(self, run: RowRun) -> None:
        """Adds the result of a finished run, and saves the file."""
        from action_llm_recipes.common.run_folder import describe_hardware

        metrics = read_json_object(run.folder / "evaluation" / "metrics.json")
        hits, labels = _hits(run.folder / "evaluation" / "predictions.csv")
        result = {
            "settings_key": run.settings_key,
            "accuracy": metrics[metrics["compared_by"]]["estimate"],
            "correct": _to_hex(hits),
            "statistics": _statistics(run),
            "seconds": round(sum(_record(folder).get("seconds", 0.0) for folder in run.stages.values()), 1),
            "commit": _commit(),
            "hardware": describe_hardware(),
        }
        recordings = {"number": len(hits), "names": _digest(sorted(labels)), "metric": metrics["compared_by"]}
        if metrics["compared_by"] == "mean_per_class":
            recordings["labels"] = [labels[name] for name in sorted(labels)]
        kept = self.content["recordings"].get(run.dataset)
        if kept is not None and kept != recordings:
            raise ValueError(
                f"{self.path} holds results on other recordings of {run.dataset}: delete it, or choose other --pages."
            )
        self.content["recordings"][run.dataset] = recordings
        row = self.content["rows"].setdefault(run.row.name, {"runs": {}})
        row["settings"] = {name: value for name, value in run.options.items() if name != "seed"}
        row["runs"].setdefault(run.dataset, {})[str(run.seed)] = result
        self.save()

    def add_baselines(self, dataset: str, metrics: dict) -> None:
        """Adds the accuracies of `run_baselines.py`, by method, and saves the file."""
        self.content["baselines"][dataset] = {
            method: {"seeds": accuracy["seeds"]} for method, accuracy in metrics["accuracy"].items()
        }
        self.save()

    def save(self) -> None:
        write_atomically(self.path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")

    def accuracy(self, row: str) -> Estimate | None:
        """The accuracy of a row in per cent, its mean over draws and seeds with the range of the seeds; None if it was not
        measured."""
        return self._over_seeds(row, lambda result: 100 * result["accuracy"])

    def statistic(self, row: str, name: str) -> Estimate | None:
        """A statistic of the runs of a row, with the range of the seeds; None if it was not measured."""
        return self._over_seeds(row, lambda result: result["statistics"].get(name))

    def minutes(self, row: str) -> Estimate | None:
        """Minutes of all stages of a row."""
        return self._over_seeds(row, lambda result: result["seconds"] / 60)

    def difference(self, row: str, reference: str, resamples: int = 10_000) -> Estimate | None:
        """
        The difference of two rows in points of accuracy, with the 95 % interval of a paired bootstrap over recordings.

        For a recording, the difference is that of the share of seeds that classified it correctly, over the seeds that both
        rows have. For mean per-class accuracy, recordings have the weight of their class.

        Args:
            row, reference: names of rows.
            resamples: number of bootstrap resamples.

        Returns:
            The estimate, or None if the rows have no seed in common.
        """
        from action_llm_recipes.metrics.action_classification.classification_scores import paired_interval

        differences, common = [], None
        for dataset, recordings in self.content["recordings"].items():
            first, second = (self._results(name).get(dataset, {}) for name in (row, reference))
            seeds = set(first) & set(second)
            common = seeds if common is None else common & seeds
            if not seeds:
                return None
            number = recordings["number"]
            hits = [
                np.mean([_from_hex(results[seed]["correct"], number) for seed in sorted(seeds)], axis=0)
                for results in (first, second)
            ]
            differences.append((hits[0] - hits[1]) * _weights(recordings))
        if not common:
            return None
        # Each draw has the same weight in the mean, however many recordings it has.
        total = sum(map(len, differences))
        scaled = [values * total / len(values) / len(differences) for values in differences]
        interval = paired_interval(np.concatenate(scaled), resamples=resamples)
        return Estimate(100 * interval.estimate, 100 * interval.low, 100 * interval.high, len(common))

    def seeds(self) -> list[int]:
        """All seeds of the table."""
        return sorted(
            {int(seed) for row in self.content["rows"].values() for runs in row["runs"].values() for seed in runs}
        )

    def _results(self, row: str) -> dict[str, dict[str, dict]]:
        """data set → seed → result of a row."""
        return self.content["rows"].get(row, {}).get("runs", {})

    def _over_seeds(self, row: str, value_of) -> Estimate | None:
        """The mean over draws for each seed that all draws have, and then over seeds."""
        draws = list(self._results(row).values())
        seeds = set.intersection(*map(set, draws)) if draws else set()
        values = [[value_of(draw[seed]) for draw in draws] for seed in sorted(seeds, key=int)]
        if not values or any(value is None for of_seed in values for value in of_seed):
            return None
        means = [sum(of_seed) / len(of_seed) for of_seed in values]
        return Estimate(sum(means) / len(means), min(means), max(means), len(means))


def _hits(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """For each recording of predictions.csv, in the order of names: whether it was classified correctly; and the labels."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["sample_id"])
    return np.array([row["label"] == row["prediction"] for row in rows]), {
        row["sample_id"]: row["label"] for row in rows
    }


def _weights(recordings: dict) -> np.ndarray:
    """Weights of recordings with mean 1, by which the mean of hits is the metric of the data set."""
    if recordings["metric"] != "mean_per_class":
        return np.ones(recordings["number"])
    _, classes, counts = np.unique(recordings["labels"], return_inverse=True, return_counts=True)
    return recordings["number"] / (len(counts) * counts[classes])


def _statistics(run: RowRun) -> dict[str, float]:
    """Statistics of a run, by the names of `MEASURES`, and those of its action model."""
    tokens = run.folder / "sentences" / "tokens.json"
    statistics = {}
    if tokens.is_file() and (train := read_json_object(tokens).get("train")):
        statistics["tokens_per_recording"] = train["words_per_recording"]["mean"]
        statistics |= {name: train.get(name) for name in ("codes_used", "entropy", "zipf_js", "bits_per_recording")}
    for name, value in _record(run.stages["tokenizer"]).get("metrics", {}).items():
        if isinstance(value, int | float):
            statistics.setdefault(name, value)
    sft, evaluation = _record(run.stages["sft"]), _record(run.stages["evaluation"])
    cost = sft.get("cost") or {}
    if "trainable_parameters" in cost:
        statistics["trained_parameters"] = cost["trainable_parameters"] / 1e6
        statistics["trained_share"] = 100 * cost["trainable_parameters"] / cost["parameters"]
    if "seconds_per_step" in cost:
        steps = sft["examples"] / sft["settings"]["batch_size"]
        statistics["hours_per_epoch"] = cost["seconds_per_step"] * steps / 3600
        statistics["memory_gb"] = cost["peak_memory_gb"]
    if "scoring_seconds" in evaluation:
        statistics["seconds_per_recording"] = evaluation["scoring_seconds"] / evaluation["metrics"]["recordings"]
    return {name: round(value, 6) for name, value in statistics.items() if value is not None}


def _record(folder: Path) -> dict:
    try:
        return read_json_object(folder / "record.json")
    except FileNotFoundError:
        return {}


def _to_hex(hits: np.ndarray) -> str:
    return np.packbits(hits).tobytes().hex()


def _from_hex(text: str, number: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), count=number).astype(float)


def _digest(names: list[str]) -> str:
    return hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()


def _commit() -> str | None:
    """The commit of this checkout; None for an installed package."""
    folder = Path(__file__).resolve().parent
    result = subprocess.run(
        ["git", "rev-parse", "--short=7", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None
