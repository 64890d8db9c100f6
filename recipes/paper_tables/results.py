"""
The measured rows of a table: what each run gave, and what they amount to together.

The JSON file of a table keeps one bit for each recording (whether it was classified correctly), so that rows can be added by
another machine and still be compared recording by recording.
"""

import csv
import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from action_llm.model_files import ModelFileError, as_written, read_json_object
from action_llm_datasets.atomic_files import write_atomically
from action_llm_recipes.paper_tables.runs import RowRun


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
            _check(path, self.content)
        except FileNotFoundError:
            self.content = {"about": {"draws": []}, "recordings": {}, "splits": {}, "rows": {}, "baselines": {}}

    def has(self, run: RowRun) -> bool:
        """Whether the file has the result of a run with the same settings."""
        result = self._results(run.row.name).get(run.dataset, {}).get(str(run.seed))
        return result is not None and result["settings_key"] == run.settings_key

    def check_split(self, dataset: str, names: list[str]) -> None:
        """
        Remembers the recordings of the evaluated split, or compares them with those of earlier results.

        Args:
            dataset: the data set.
            names: `sample_id` and label of each recording.

        Raises:
            ValueError: if earlier results are of other recordings.
        """
        digest = _digest(sorted(names))
        if self.content["splits"].setdefault(dataset, digest) != digest:
            raise ValueError(
                f"{self.path} has results on other recordings of {dataset} than those of --data_dir: choose other --pages."
            )

    def outdated(self, runs: list[RowRun]) -> list[tuple[RowRun, str]]:
        """
        The results that were measured with other settings than those of the rows and presets now.

        Args:
            runs: runs of all rows on all data sets of the file, with any seed.

        Returns:
            For each such result, the run of its row and data set, and its seed.
        """
        return [
            (run, seed)
            for run in runs
            for seed, result in self._results(run.row.name).get(run.dataset, {}).items()
            if result["settings_key"] != run.settings_key
        ]

    def drop(self, run: RowRun, seed: str) -> None:
        """Removes the result of a row on a data set."""
        del self._results(run.row.name)[run.dataset][seed]

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
        kept = self.content["recordings"].get(run.dataset, recordings)
        if kept != recordings:
            raise ValueError(
                f"{len(hits)} recordings were evaluated, in {self.path} {kept['number']}, or others: choose other --pages."
            )
        self.content["recordings"][run.dataset] = recordings
        row = self.content["rows"].setdefault(run.row.name, {"runs": {}})
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

    @property
    def draws(self) -> list[str]:
        """The data sets over which accuracies are averaged: all draws of unseen classes, or one data set."""
        return self.content["about"]["draws"]

    def missing_draws(self, row: str) -> int:
        """Number of draws on which the row has no result."""
        return sum(not self._results(row).get(draw) for draw in self.draws)

    def accuracy(self, row: str) -> Estimate | None:
        """The accuracy of a row in per cent, its mean over draws and seeds with the range of the seeds; None if it was not
        measured on all draws with the same seed."""
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

        Each recording contributes the difference in the share of seeds that classified it correctly. Only seeds count that both
        rows have on all draws. Recordings are drawn within their draw of unseen classes and, for mean per-class accuracy,
        within their class (`paired_interval`).

        Args:
            row, reference: names of rows.
            resamples: number of bootstrap resamples.

        Returns:
            The estimate, or None if the rows have no seed in common.
        """
        from action_llm_recipes.metrics.action_classification.classification_scores import paired_interval

        seeds = set(self._common_seeds(row)) & set(self._common_seeds(reference))
        if not seeds:
            return None
        differences, strata = [], []
        for draw in self.draws:
            recordings = self.content["recordings"][draw]
            hits = [
                np.mean([_from_hex(results[seed]["correct"], recordings["number"]) for seed in sorted(seeds)], axis=0)
                for results in (self._results(name)[draw] for name in (row, reference))
            ]
            differences.append(hits[0] - hits[1])
            is_per_class = recordings["metric"] == "mean_per_class"
            classes = recordings["labels"] if is_per_class else [""] * recordings["number"]
            strata += [f"{draw} {name}" for name in classes]
        interval = paired_interval(np.concatenate(differences), strata, resamples=resamples)
        return Estimate(100 * interval.estimate, 100 * interval.low, 100 * interval.high, len(seeds))

    def seeds(self) -> list[int]:
        """All seeds of the table."""
        return sorted(
            {int(seed) for row in self.content["rows"].values() for runs in row["runs"].values() for seed in runs}
        )

    def _results(self, row: str) -> dict[str, dict[str, dict]]:
        """data set → seed → result of a row."""
        return self.content["rows"].get(row, {}).get("runs", {})

    def _common_seeds(self, row: str) -> list[str]:
        """The seeds with which a row was measured on all draws."""
        of_draws = [set(self._results(row).get(draw, {})) for draw in self.draws]
        return sorted(set.intersection(*of_draws), key=int)

    def _over_seeds(self, row: str, value_of) -> Estimate | None:
        """The mean over draws for each seed that all draws have, and then over seeds."""
        results = self._results(row)
        values = [[value_of(results[draw][seed]) for draw in self.draws] for seed in self._common_seeds(row)]
        if not values or any(value is None for of_seed in values for value in of_seed):
            return None
        means = [sum(of_seed) / len(of_seed) for of_seed in values]
        return Estimate(sum(means) / len(means), min(means), max(means), len(means))


def _check(path: Path, content: dict) -> None:
    """Raises `ModelFileError` unless a JSON file has the structure of results."""
    expected = "results of paper_table.py: delete it (finished runs are read again), or choose other --pages"
    for name in ("about", "recordings", "splits", "rows", "baselines"):
        if not isinstance(content.get(name), dict):
            raise ModelFileError(path, name, as_written(content.get(name)), expected)
    about = content["about"]
    if not {"paper", "table", "dataset", "preset"} <= about.keys() or not about.get("draws"):
        raise ModelFileError(path, "about", as_written(about), expected)
    fields = {"settings_key", "accuracy", "correct", "statistics", "seconds"}
    for name, row in content["rows"].items():
        try:
            results = [result for of_seeds in row["runs"].values() for result in of_seeds.values()]
            is_complete = all(fields <= result.keys() for result in results)
        except (AttributeError, KeyError, TypeError):
            is_complete = False
        if not is_complete:
            raise ModelFileError(path, f"rows.{name}", as_written(row), expected)


def _hits(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """For each recording of predictions.csv, in the order of names: whether it was classified correctly; and the labels."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["sample_id"])
    return np.array([row["label"] == row["prediction"] for row in rows]), {
        row["sample_id"]: row["label"] for row in rows
    }


def _statistics(run: RowRun) -> dict[str, float]:
    """Statistics of a run, by the names of `MEASURES`, and those of its action model."""
    tokens = run.folder / "sentences" / "tokens.json"
    train = read_json_object(tokens).get("train") if tokens.is_file() else None
    statistics = {}
    if train:
        statistics["tokens_per_recording"] = train["words_per_recording"]["mean"]
        statistics |= {name: train.get(name) for name in ("codes_used", "entropy", "zipf_js")}
    for name, value in _record(run.stages["tokenizer"]).get("metrics", {}).items():
        if isinstance(value, int | float):
            statistics.setdefault(name, value)
    sft, evaluation = _record(run.stages["sft"]), _record(run.stages["evaluation"])
    cost = sft.get("cost") or {}
    if "trainable_parameters" in cost:
        statistics["trained_parameters"] = cost["trainable_parameters"] / 1e6
        statistics["trained_share"] = 100 * cost["trainable_parameters"] / cost["parameters"]
    if "seconds_per_step" in cost:
        # An epoch of the papers has each recording once, whatever the number of its augmented sentences.
        if train:
            steps = train["recordings"] / sft["settings"]["batch_size"]
            statistics["hours_per_epoch"] = cost["seconds_per_step"] * steps / 3600
        statistics["memory_gb"] = cost["peak_memory_gb"]
    if "scoring_seconds" in evaluation:
        sentences = evaluation["metrics"]["recordings"] * evaluation["metrics"]["encodings"]
        statistics["seconds_per_recording"] = evaluation["scoring_seconds"] / sentences
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
