"""
The measured rows of a table: what each run gave, and what they amount to together.

The JSON file of a table keeps one bit for each recording (whether it was classified correctly), so that rows can be added by
another machine and still be compared recording by recording.
"""

import csv
import hashlib
import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from action_llm.model_files import ModelFileError, as_written, read_json_object
from action_llm_datasets.atomic_files import write_atomically
from action_llm_recipes.common.people import groups_of
from action_llm_recipes.paper_tables.runs import RowRun

EXPECTED = "results of paper_table.py: delete it (finished runs are read again), or choose other --pages"
# Key of the baseline that reads the features of the visual encoder.
FEATURES_BASELINE = "features_transformer"


@dataclass(frozen=True)
class Measured:
    """
    A measured value.

    Attributes:
        mean: over seeds and draws.
        low, high: range over seeds.
        seeds: number of seeds.
    """

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Difference:
    """
    The difference of two rows in points of accuracy.

    Attributes:
        mean: over seeds and draws.
        low, high: 95 % interval; see `TableResults.difference`.
        seeds: number of seeds.
        is_any: whether the rows differ in any recording with any seed; if not, the interval means nothing.
    """

    mean: float
    low: float
    high: float
    seeds: int
    is_any: bool = True

    @property
    def is_clear(self) -> bool:
        """Whether the interval does not contain 0."""
        return self.low > 0 or self.high < 0


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
        except ModelFileError as error:
            raise ModelFileError(path, error.field, error.actual, EXPECTED) from error
        except FileNotFoundError:
            self.content = {"about": {"draws": []}, "rows": {}, "baselines": {}}
            self.content |= {"recordings": {}, "splits": {}}

    def has(self, run: RowRun) -> bool:
        """Whether the file has the result of a run with the same settings."""
        result = self._results(run.row.name).get(run.dataset, {}).get(str(run.seed))
        return result is not None and result["settings_key"] == run.settings_key

    def check_split(self, dataset: str, labels: dict[str, str], people: dict[str, str]) -> None:
        """
        Remembers the recordings of the evaluated split, or compares them with those of earlier results.

        Args:
            dataset: the data set.
            labels: `sample_id` → label of each recording.
            people: `sample_id` → person; empty if they are unknown.

        Raises:
            ValueError: if earlier results are of other recordings.
        """
        split = {
            "recordings": _digest(sorted(f"{sample_id} {label}" for sample_id, label in labels.items())),
            "classes": len(set(labels.values())),
        }
        if people:
            groups = groups_of({sample_id: labels[sample_id] for sample_id in sorted(labels)}, people)
            split |= {
                "people": len({people[sample_id] for sample_id in labels}),
                "groups": " ".join(map(str, np.unique(groups, return_inverse=True)[1])),
            }
        if self.content["splits"].setdefault(dataset, split) != split:
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
                f"{self.path} has results on {kept['number']} recordings of {run.dataset}, but {len(hits)} others were "
                "evaluated: choose other --pages."
            )
        self.content["recordings"][run.dataset] = recordings
        row = self.content["rows"].setdefault(run.row.name, {"runs": {}})
        row["runs"].setdefault(run.dataset, {})[str(run.seed)] = result
        self.save()

    def add_baselines(self, dataset: str, metrics: dict) -> None:
        """Adds the accuracies of `run_baselines.py`, by method, and saves the file."""
        self._baselines(dataset).update(
            {method: {"seeds": accuracy["seeds"]} for method, accuracy in metrics["accuracy"].items()}
        )
        self.save()

    def add_features_baseline(self, dataset: str, of_seeds: dict[int, float]) -> None:
        """Adds the accuracies of a transformer on the features of the visual encoder of each seed, and saves the file."""
        self._baselines(dataset)[FEATURES_BASELINE] = {
            "encoders": sorted(of_seeds),
            "seeds": [of_seeds[seed] for seed in sorted(of_seeds)],
        }
        self.save()

    def features_baseline(self, dataset: str) -> dict[int, float]:
        """Seed of the visual encoder → accuracy of a transformer on its features, as far as they are known."""
        known = self._baselines(dataset).get(FEATURES_BASELINE, {"encoders": [], "seeds": []})
        return dict(zip(known["encoders"], known["seeds"], strict=True))

    def _baselines(self, dataset: str) -> dict:
        return self.content["baselines"].setdefault(dataset, {})

    def save(self) -> None:
        write_atomically(self.path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")

    @property
    def draws(self) -> list[str]:
        """The data sets over which accuracies are averaged: all draws of unseen classes, or one data set."""
        return self.content["about"]["draws"]

    def missing_draws(self, row: str) -> int:
        """Number of draws on which the row has no result."""
        return sum(not self._results(row).get(draw) for draw in self.draws)

    def accuracy(self, row: str) -> Measured | None:
        """The accuracy of a row in per cent, its mean over draws and seeds with the range of the seeds; None if it was not
        measured on all draws with the same seed."""
        return self._over_seeds(row, lambda result: 100 * result["accuracy"])

    def statistic(self, row: str, name: str) -> Measured | None:
        """A statistic of the runs of a row, with the range of the seeds; None if it was not measured."""
        return self._over_seeds(row, lambda result: result["statistics"].get(name))

    def minutes(self, row: str) -> Measured | None:
        """Minutes of all stages of a row; `low` is of the seed that had the machine most to itself."""
        return self._over_seeds(row, lambda result: result["seconds"] / 60)

    def difference(self, row: str, reference: str) -> Difference | None:
        """
        The difference of two rows in points of accuracy, with its 95 % interval over recordings and seeds (`paired_interval`).

        Only seeds count that both rows have on all draws. The recordings of one person and class form a group. For mean
        per-class accuracy, recordings are weighted so that classes count the same, and draws of unseen classes always count the
        same.

        Args:
            row, reference: names of rows.

        Returns:
            The difference, or None if the rows have no seed in common.
        """
        from action_llm_recipes.metrics.action_classification.classification_scores import (
            class_weights,
            paired_interval,
        )

        seeds = set(self._common_seeds(row)) & set(self._common_seeds(reference))
        if not seeds:
            return None
        differences, weights, groups = [], [], []
        for draw in self.draws:
            recordings = self.content["recordings"][draw]
            number = recordings["number"]
            hits, of_reference = (
                np.stack([_from_hex(results[seed]["correct"], number) for seed in sorted(seeds, key=int)])
                for results in (self._results(name)[draw] for name in (row, reference))
            )
            differences.append(hits - of_reference)
            is_per_class = recordings["metric"] == "mean_per_class"
            of_recordings = class_weights(recordings["labels"]) if is_per_class else np.ones(number)
            weights.append(of_recordings / of_recordings.sum())
            of_people = self.split(draw).get("groups")
            groups += [f"{draw} {group}" for group in (of_people.split() if of_people else range(number))]
        differences = np.concatenate(differences, axis=1)
        interval = paired_interval(differences, np.concatenate(weights), groups)
        low, mean, high = (100 * value for value in (interval.low, interval.estimate, interval.high))
        return Difference(mean, low, high, len(seeds), bool(differences.any()))

    def split(self, draw: str) -> dict:
        """What is known of the evaluated split: the numbers of `classes` and `people`, and the `groups`: for each recording, in
        the order of names, a number that recordings of the same person and class share, as text with spaces between. Empty
        before `check_split`."""
        return self.content["splits"].get(draw, {})

    def commits(self) -> list[str]:
        """The commits of the checkouts that added results."""
        results = (
            result for row in self.content["rows"].values() for of in row["runs"].values() for result in of.values()
        )
        return list(dict.fromkeys(result["commit"] for result in results if result.get("commit")))

    def seeds(self) -> list[int]:
        """All seeds of the table."""
        return sorted({seed for row in self.content["rows"] for seed in self.seeds_of(row)})

    def seeds_of(self, row: str) -> list[int]:
        """All seeds of a row."""
        return sorted({int(seed) for runs in self._results(row).values() for seed in runs})

    def _results(self, row: str) -> dict[str, dict[str, dict]]:
        """data set → seed → result of a row."""
        return self.content["rows"].get(row, {}).get("runs", {})

    def _common_seeds(self, row: str) -> list[str]:
        """The seeds with which a row was measured on all draws."""
        of_draws = [set(self._results(row).get(draw, {})) for draw in self.draws]
        return sorted(set.intersection(*of_draws), key=int)

    def _over_seeds(self, row: str, value_of) -> Measured | None:
        """The mean over draws for each seed that all draws have, and then over seeds."""
        results = self._results(row)
        values = [[value_of(results[draw][seed]) for draw in self.draws] for seed in self._common_seeds(row)]
        if not values or any(value is None for of_seed in values for value in of_seed):
            return None
        means = [sum(of_seed) / len(of_seed) for of_seed in values]
        return Measured(sum(means) / len(means), min(means), max(means), len(means))


def _check(path: Path, content: dict) -> None:
    """Raises `ModelFileError` unless a JSON file has the structure of results."""
    for name in ("about", "recordings", "splits", "rows", "baselines"):
        if not isinstance(content.get(name), dict):
            raise ModelFileError(path, name, as_written(content.get(name)), EXPECTED)
    if not all(isinstance(split, dict) for split in content["splits"].values()):
        raise ModelFileError(path, "splits", as_written(content["splits"]), EXPECTED)
    about = content["about"]
    if not {"paper", "table", "dataset", "preset"} <= about.keys() or not about.get("draws"):
        raise ModelFileError(path, "about", as_written(about), EXPECTED)
    fields = {"settings_key", "accuracy", "correct", "statistics", "seconds"}
    for name, row in content["rows"].items():
        try:
            results = [result for of_seeds in row["runs"].values() for result in of_seeds.values()]
            is_complete = all(fields <= result.keys() for result in results)
        except (AttributeError, KeyError, TypeError):
            is_complete = False
        if not is_complete:
            raise ModelFileError(path, f"rows.{name}", as_written(row), EXPECTED)


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
        if language_model := _language_model_parameters(run.stages["sft"] / "model" / "model.safetensors"):
            statistics["trained_share"] = 100 * cost["trainable_parameters"] / language_model
    if "seconds_per_step" in cost:
        # An epoch of the papers has each recording once, whatever the number of its augmented sentences. The time is that of
        # the whole stage, because a single step was timed beside other work.
        if train:
            epochs = sft["settings"]["steps"] * sft["settings"]["batch_size"] / train["recordings"]
            statistics["hours_per_epoch"] = sft["seconds"] / 3600 / epochs
        # Without a GPU, the memory of the process also has the libraries and the stages before this one.
        if not sft["hardware"].startswith("CPU"):
            statistics["memory_gb"] = cost["peak_memory_gb"]
    if "scoring_seconds" in evaluation:
        sentences = evaluation["metrics"]["recordings"] * evaluation["metrics"]["encodings"]
        statistics["seconds_per_recording"] = evaluation["scoring_seconds"] / sentences
    return {name: round(value, 6) for name, value in statistics.items() if value is not None}


def _language_model_parameters(weights: Path) -> int:
    """The number of parameters of the language model in a file of weights; 0 without the file, which large models lack."""
    from safetensors import safe_open

    if not weights.is_file():
        return 0
    with safe_open(weights, framework="numpy") as file:
        names = [name for name in file.keys() if ".language_model." in name]  # noqa: SIM118 (not a dictionary)
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


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
