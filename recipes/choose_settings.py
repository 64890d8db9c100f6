"""
Choose settings by how well they do on several data sets at once.

```bash
python recipes/choose_settings.py --choice recipes/choices/skeletons.yaml --output_dir runs/choice \\
    --data utd_mhad=UTD-MHAD/Skeleton msr=MSR nw_ucla=NW-UCLA
```

The YAML file of `--choice` lists candidates, each with the settings of `run_line.py` that differ from the `small` preset, and
sets, each a data set with people or views that are evaluated and that nothing was trained on. Every candidate is run on every
set. The page has the accuracies beside those of the best classifier of raw recordings, and orders the candidates by their mean
rank over the sets: a candidate that shines on a single set does not win. Runs go side by side, one for each GPU or core, share
stages, and resume with the same command; further candidates, sets and seeds are added. The classifiers of raw recordings are
trained last, with as many seeds.

`--walk true` also trains classifiers on the latents and codes of each run, and evaluates the language model with one version of
each recording: a table for each candidate then says at which step it loses accuracy.
"""

import json
import logging
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from action_llm_datasets.atomic_files import write_atomically
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_datasets.names import check_protocol, did_you_mean
from action_llm_datasets.worker_processes import in_processes
from action_llm_recipes.common.launching import launch, option_names
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.paper_tables.definitions import PAPERS, Row, Table, read_tables
from action_llm_recipes.paper_tables.runs import RowRun, runs_of, with_paths

logger = logging.getLogger(__name__)

# Versions of each training recording that the classifiers of latents and codes learn from.
WALK_ENCODINGS = 8
# Options of run_line.py that are the same for all candidates: the sets and the command line determine them.
SHARED = ("paper", "dataset", "data_dir", "output_dir", "seed", "hold_out", "held_out_subjects")


@dataclass
class ChoiceArguments:
    """The candidates, the recordings, and what is run."""

    choice: str = field(metadata={"help": "YAML file of candidates and sets"})
    data: list[str] = field(metadata={"help": "NAME=FOLDER for each name of a folder in the YAML file"})
    output_dir: str = field(default="runs/choice", metadata={"help": "folder of the runs"})
    page: str | None = field(
        default=None,
        metadata={"help": "page to write, with results in JSON beside it; by default OUTPUT_DIR/choice.md"},
    )
    candidates: list[str] | None = field(default=None, metadata={"help": "names of candidates; by default all"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "random seeds"})
    walk: bool = field(
        default=False, metadata={"help": "also evaluate latents, codes, and one version of each recording"}
    )
    jobs: int | None = field(
        default=None, metadata={"help": "number of runs at a time; by default one for each GPU, or for each core"}
    )

    def __post_init__(self):
        check_at_least_one(self, "jobs")
        if self.page and Path(self.page).suffix == ".json":
            raise ValueError(
                f"--page: {self.page} is where the results in JSON go: give the page another ending, such as .md."
            )
        wrong = [entry for entry in self.data if not all(entry.partition("=")[::2])]
        if wrong:
            raise ValueError(f"--data: expected NAME=FOLDER, got {wrong[0]}.")
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"--seeds: expected one or more seeds, 0 or above, got {self.seeds}.")
        self.seeds = list(dict.fromkeys(self.seeds))
        choice = read_choice(self.choice)
        named = {of_set.data for of_set in choice.sets.values()}
        if missing := sorted(named - set(self.folders)):
            raise ValueError(f"--data: the folder of {missing[0]} is missing: add {missing[0]}=FOLDER.")
        if unknown := [name for name in self.candidates or () if name not in choice.candidates]:
            raise ValueError(f"--candidates: {unknown[0]} is none of {', '.join(choice.candidates)}.")

    @property
    def folders(self) -> dict[str, str]:
        """Name in the YAML file → folder."""
        return dict(entry.split("=", 1) for entry in self.data)


@dataclass(frozen=True)
class EvaluatedSet:
    """
    Recordings on which candidates are compared.

    Attributes:
        data: name of the folder.
        dataset: data set and protocol.
        held_out_subjects: training subjects that are evaluated and left out of training; None evaluates the test split.
    """

    data: str
    dataset: str
    held_out_subjects: tuple[str, ...] | None = None

    @property
    def options(self) -> dict:
        """Options of `run_line.py`."""
        if self.held_out_subjects is None:
            return {}
        return {"hold_out": True, "held_out_subjects": list(self.held_out_subjects)}

    @property
    def split(self) -> str:
        """The split that is evaluated."""
        return "test" if self.held_out_subjects is None else "held_out"

    def recordings(self, folder: str):
        """The recordings in a folder, as `DataArguments`."""
        from action_llm_recipes.common.data_arguments import DataArguments

        return DataArguments(self.dataset, folder, held_out_subjects=self.options.get("held_out_subjects"))


@dataclass(frozen=True)
class Choice:
    """The content of the YAML file."""

    paper: str
    candidates: dict[str, dict]
    sets: dict[str, EvaluatedSet]


ARGUMENTS = (ChoiceArguments,)


def read_choice(path: str) -> Choice:
    """
    Reads the YAML file of candidates and sets.

    Raises:
        ValueError: if it is not as described at the top of this file; names the entry.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or set(content) != {"paper", "candidates", "sets"}:
            raise ValueError("expected paper, candidates and sets")
        if content["paper"] not in PAPERS:
            raise ValueError(f"paper: expected one of {', '.join(PAPERS)}, found {content['paper']!r}")
        for part in ("candidates", "sets"):
            entries = content[part]
            if (
                not isinstance(entries, dict)
                or not entries
                or not all(isinstance(of, dict) for of in entries.values())
            ):
                raise ValueError(f"{part}: expected names and their settings, found {entries!r}")
            if wrong := [
                name for name in entries if not isinstance(name, str) or (part == "candidates" and "/" in name)
            ]:
                raise ValueError(f"{part}: expected names, found {wrong[0]!r}")
        sets = {}
        for name, values in content["sets"].items():
            try:
                subjects = values.get("held_out_subjects")
                if subjects is not None and not (isinstance(subjects, list) and subjects):
                    raise TypeError(f"held_out_subjects must be a list of subjects, found {subjects!r}")
                sets[name] = EvaluatedSet(**values | {"held_out_subjects": subjects and tuple(map(str, subjects))})
                check_protocol(sets[name].dataset)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"sets, {name}: expected data, dataset, perhaps held_out_subjects; {error}"
                ) from error
        folders = [file_name(name) for name in sets]
        if shared := [name for name in sets if folders.count(file_name(name)) > 1]:
            raise ValueError(
                f"sets: {' and '.join(map(repr, shared))} differ in punctuation alone, and their runs would share folders: "
                "rename one of them"
            )
        for name, settings in content["candidates"].items():
            check_candidate(content["paper"], name, settings)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise ValueError(f"--choice {path}: {' '.join(str(error).split())}") from error
    return Choice(content["paper"], content["candidates"], sets)


def check_candidate(paper: str, name: str, settings: dict) -> None:
    """Raises `ValueError` if `run_line.py` has no such option, or a stage of it no such setting."""
    from action_llm_recipes.pipeline.settings import read_overrides, read_yaml
    from action_llm_recipes.run_line import ARGUMENTS as OPTIONS

    if fixed := [option for option in settings if option in SHARED]:
        raise ValueError(
            f"candidates, {name}: {fixed[0]} cannot be chosen: the sets and the command line determine it"
        )
    table = next(iter(read_tables(paper).values()))
    overrides: dict[str, dict] = {}
    for option, value in settings.items():
        stage, dot, setting = option.partition(".")
        if dot:
            overrides.setdefault(stage, {})[setting] = value
        elif option not in (known := option_names(OPTIONS)):
            raise ValueError(f"candidates, {name}: run_line.py has no option {option!r}{did_you_mean(option, known)}")
    options = with_paths(table, table.presets["small"] | settings)
    stages = ("tokenizer", "sft") if table.modality == "skeletons" else ("features", "tokenizer", "sft")
    files = {stage: read_yaml(options.get(f"{stage}_config"), stage, paper)[0] for stage in stages}
    try:
        read_overrides(overrides, files | {"encode": {}, "evaluation": {}})
    except ValueError as error:
        raise ValueError(f"candidates, {name}: {error}") from error


@writes_output_dir
def main(arguments: ChoiceArguments) -> dict:
    """Runs what is missing and writes the page; returns the results."""
    from action_llm_recipes.paper_tables.execution import default_jobs, run_rows

    choice = read_choice(arguments.choice)
    page = Path(arguments.page or Path(arguments.output_dir) / "choice.md")
    results = Results(page.with_suffix(".json"))
    jobs = arguments.jobs or default_jobs()
    every = replace(arguments, candidates=None)
    runs = {run: name for name, of_set in choice.sets.items() for run in runs_on(every, choice, name, of_set)}
    results.check_sets(choice.sets)
    results.drop_former(runs)
    runs = {run: name for run, name in runs.items() if run.row.name in (arguments.candidates or choice.candidates)}
    missing = [
        run
        for run, name in runs.items()
        if not results.has(name, run)
        or (arguments.walk and not results.has(name, run, with_walk=True) and not has_ended(run))
    ]

    def on_finished(run: RowRun) -> None:
        results.add(runs[run], run)
        write_page(page, arguments, choice, results)

    failures = {
        f"{run.row.title} on {runs[run]}, seed {run.seed}": reason
        for run, reason in run_rows(missing, jobs, on_finished).items()
    }
    failures |= measure(arguments, choice, runs, results, jobs)
    write_page(page, arguments, choice, results)
    if failures:
        listed = "; ".join(f"{of}: {reason}" for of, reason in failures.items())
        raise ValueError(f"{len(failures)} failed, the others are on the page. {listed}")
    return results.content


def measure(
    arguments: ChoiceArguments, choice: Choice, runs: dict[RowRun, str], results: "Results", jobs: int
) -> dict[str, str]:
    """Adds to the results what is measured beside the runs: the baselines of each set and, with `--walk`, the steps of each
    finished run. Returns what failed, each with the reason."""
    work, add = {}, {}
    for name, of_set in choice.sets.items():
        if results.num_baseline_seeds(name) < len(arguments.seeds):
            folder = Path(arguments.output_dir) / "baselines" / file_name(name)
            title = f"baselines of {name}"
            work[title] = partial(
                baselines_of, of_set, arguments.folders[of_set.data], str(folder), len(arguments.seeds)
            )
            add[title] = partial(results.add_baselines, name)
    for run, name in runs.items():
        if arguments.walk and results.has(name, run) and not results.has(name, run, with_walk=True):
            title = f"{run.row.title} on {name}, seed {run.seed}, latents and codes"
            work[title] = partial(walk_of, choice.sets[name], run.data_dir, run.folder)
            add[title] = partial(results.add_walk, name, run)
    failures = {}
    processes = {"initializer": _use_share_of_cores, "initargs": (jobs,)} if jobs > 1 else {}
    with in_processes(_attempt, list(work.values()), jobs, **processes) as measured:
        for (done, title), (result, error) in zip(enumerate(work, start=1), measured, strict=True):
            if error is not None:
                failures[title] = error
                logger.error("%s failed: %s", title, error)
                continue
            add[title](result)
            logger.info("%s measured; %d of %d", title, done, len(work))
    return failures


def _attempt(measurement: Callable[[], dict]) -> tuple[dict, None] | tuple[None, str]:
    """The result of a measurement, or the reason why it failed: the others go on."""
    try:
        return measurement(), None
    except (ValueError, OSError, KeyError, RuntimeError) as error:  # the last without enough memory
        return None, str(error)


def _use_share_of_cores(jobs: int) -> None:
    import torch

    from action_llm_recipes.paper_tables.execution import usable_cores

    torch.set_num_threads(max(1, usable_cores() // jobs))


def has_ended(run: RowRun) -> bool:
    """Whether the folders of a run are there, with its evaluation."""
    return (run.folder / "evaluation" / "metrics.json").is_file()


def runs_on(arguments: ChoiceArguments, choice: Choice, name: str, of_set: EvaluatedSet) -> list[RowRun]:
    """The runs of the candidates on a set."""
    paper = next(iter(read_tables(choice.paper).values()))
    chosen = arguments.candidates or choice.candidates
    rows = {candidate: Row(candidate, candidate, (), settings=choice.candidates[candidate]) for candidate in chosen}
    table = Table(
        paper.paper,
        paper.paper_name,
        paper.authors,
        paper.modality,
        file_name(name),
        "",
        (),
        rows,
        presets=paper.presets,
    )
    folder = arguments.folders[of_set.data]
    return runs_of(
        table, rows, of_set.dataset, folder, "small", arguments.seeds, of_set.options, Path(arguments.output_dir)
    )


def file_name(name: str) -> str:
    """The name of a set as part of a path."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def walk_of(of_set: EvaluatedSet, data_dir: str, folder: Path) -> dict[str, float]:
    """The accuracies of the steps to the language model of the run in `folder`: `latents`, `codes`, and `one_version` of each
    recording."""
    from action_llm_recipes import encode_actions, evaluate_classifier
    from action_llm_recipes.baselines import run_baselines

    data = of_set.recordings(data_dir)
    with_latents = str(folder / "sentences_with_latents")
    encode_actions.main(
        encode_actions.EncodingArguments(
            tokenizer=str(folder / "tokenizer" / "model"),
            output_dir=with_latents,
            encodings=WALK_ENCODINGS,
            latents=True,
        ),
        data,
    )
    probes = run_baselines.main(
        run_baselines.BaselineArguments(
            output_dir=str(folder / "walk"),
            methods=["latents", "codes"],
            sentences=with_latents,
            split=of_set.split,
            seeds=1,
        ),
        data,
    )
    metrics = evaluate_classifier.main(
        evaluate_classifier.EvaluationArguments(
            model=str(folder / "sft" / "model"),
            sentences=str(folder / "sentences"),
            output_dir=str(folder / "one_version"),
        )
    )
    return {method: accuracy["estimate"] for method, accuracy in probes["accuracy"].items()} | {
        "one_version": metrics[metrics["compared_by"]]["estimate"]
    }


def baselines_of(of_set: EvaluatedSet, data_dir: str, output_dir: str, num_seeds: int) -> dict[str, list[float]]:
    """Classifiers of the raw recordings of a set: method → accuracies, one for each seed that it depends on."""
    from action_llm_recipes.baselines import run_baselines as recipe

    metrics = recipe.main(
        recipe.BaselineArguments(output_dir=output_dir, split=of_set.split, seeds=num_seeds),
        of_set.recordings(data_dir),
    )
    return {method: accuracy["seeds"] for method, accuracy in metrics["accuracy"].items()}


class Results:
    """
    The accuracies of candidates on sets, kept in a JSON file.

    Args:
        path: of the file, which need not exist.
    """

    def __init__(self, path: Path):
        from action_llm.model_files import read_json_object

        self.path = path
        try:
            self.content = read_json_object(path)
        except FileNotFoundError:
            self.content = {"baselines": {}, "sets": {}}
        if not {"baselines", "sets"} <= self.content.keys():
            raise ValueError(
                f"{path} has no results of choose_settings.py, which are kept there: choose another --page."
            )

    def has(self, name: str, run: RowRun, with_walk: bool = False) -> bool:
        """Whether there is the result of a run on a set, with the same settings, and with its steps if `with_walk` is set."""
        found = self.content["sets"].get(name, {}).get(run.row.name, {}).get(str(run.seed))
        return bool(found and found["settings_key"] == run.settings_key and (found["walk"] or not with_walk))

    def check_sets(self, sets: dict[str, EvaluatedSet]) -> None:
        """
        Remembers the recordings of the sets, or compares them with those of earlier results.

        Raises:
            ValueError: if a name stood for other recordings.
        """
        known = self.content.setdefault("recordings", {})
        for name, of_set in sets.items():
            recordings = {"dataset": of_set.dataset, "held_out_subjects": list(of_set.held_out_subjects or ())}
            if known.setdefault(name, recordings) != recordings:
                before = " ".join([known[name]["dataset"], *known[name]["held_out_subjects"]])
                raise ValueError(
                    f"sets, {name}: {self.path} has results on other recordings of this name ({before}): rename the set, or "
                    "choose another --page and --output_dir."
                )

    def drop_former(self, runs: dict[RowRun, str]) -> None:
        """Drops results of other settings than those of the candidates and presets now; `runs` are those of all candidates, and
        their sets."""
        for run, name in runs.items():
            seeds = self.content["sets"].get(name, {}).get(run.row.name, {})
            for seed in [seed for seed, result in seeds.items() if result["settings_key"] != run.settings_key]:
                logger.warning("%s on %s, seed %s: dropped, for it had other settings.", run.row.name, name, seed)
                del seeds[seed]
                self.save()  # the page no longer has it

    def add(self, name: str, run: RowRun) -> None:
        """Adds the result of a finished run on a set."""
        from action_llm.model_files import read_json_object

        metrics = read_json_object(run.folder / "evaluation" / "metrics.json")
        seconds = [read_json_object(folder / "record.json").get("seconds", 0.0) for folder in run.stages.values()]
        seeds = self.content["sets"].setdefault(name, {}).setdefault(run.row.name, {})
        seeds[str(run.seed)] = {
            "settings_key": run.settings_key,
            "recordings": metrics["recordings"],
            "accuracy": metrics[metrics["compared_by"]]["estimate"],
            "walk": seeds.get(str(run.seed), {}).get("walk", {}),
            "seconds": round(sum(seconds), 1),
        }
        self.save()

    def add_walk(self, name: str, run: RowRun, walk: dict[str, float]) -> None:
        """Adds what `walk_of` measured to the result of a run."""
        self.content["sets"][name][run.row.name][str(run.seed)]["walk"] = walk
        self.save()

    def add_baselines(self, name: str, baselines: dict[str, list[float]]) -> None:
        """Adds what `baselines_of` measured on a set."""
        self.content["baselines"][name] = baselines
        self.save()

    def num_baseline_seeds(self, name: str) -> int:
        """Number of seeds of the baselines of a set; 0 if there are none."""
        return max(map(len, self.content["baselines"].get(name, {}).values()), default=0)

    def best_baseline(self, name: str) -> list[float]:
        """Accuracies of the baseline of a set with the best mean, one for each seed; empty without baselines."""
        return max(self.content["baselines"].get(name, {}).values(), key=statistics.mean, default=[])

    def save(self) -> None:
        """Writes the file."""
        write_atomically(self.path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")

    def accuracies(self, name: str, candidate: str, step: str = "") -> list[float]:
        """Accuracies of a candidate on a set, one for each seed; of a step of the walk, if one is named."""
        runs = self.content["sets"].get(name, {}).get(candidate, {}).values()
        found = [run["walk"].get(step) if step else run["accuracy"] for run in runs]
        return [accuracy for accuracy in found if accuracy is not None]

    def of(self, sets: list[str], candidates: list[str]) -> dict[int, list[dict]]:
        """Seed → its results of some candidates on some sets, in the order of seeds."""
        found: dict[int, list[dict]] = {}
        for name in sets:
            for candidate in candidates:
                for seed, result in self.content["sets"].get(name, {}).get(candidate, {}).items():
                    found.setdefault(int(seed), []).append(result)
        return dict(sorted(found.items()))

    def accuracy(self, name: str, candidate: str) -> float | None:
        """Mean accuracy of a candidate on a set, over its seeds; None if it was not run."""
        accuracies = self.accuracies(name, candidate)
        return statistics.mean(accuracies) if accuracies else None


def mean_ranks(results: Results, sets: list[str], candidates: list[str]) -> dict[str, float]:
    """
    The mean rank of each candidate over the sets on which all candidates were run: 1 is the best, and candidates of equal
    accuracy share the mean of their ranks. Empty without such a set.
    """
    from scipy.stats import rankdata

    columns = [[results.accuracy(name, candidate) for candidate in candidates] for name in sets]
    columns = [column for column in columns if None not in column]
    if not columns:
        return {}
    ranks = [rankdata([-accuracy for accuracy in column]) for column in columns]
    return {
        candidate: statistics.mean(float(of_set[place]) for of_set in ranks)
        for place, candidate in enumerate(candidates)
    }


def write_page(page: Path, arguments: ChoiceArguments, choice: Choice, results: Results) -> None:
    """Writes the page of a choice: candidates in the order of their mean rank, their accuracies and settings. A single
    candidate has no ranks."""
    sets = list(choice.sets)
    candidates = [
        name for name in choice.candidates if any(results.accuracy(of_set, name) is not None for of_set in sets)
    ]
    ranks = mean_ranks(results, sets, candidates)
    candidates.sort(key=lambda name: ranks.get(name, 0))
    if len(choice.candidates) > 1:
        lines = ["# A choice of settings on several data sets", *choice_tables(choice, results, candidates, ranks)]
    else:
        lines = ["# Settings on several data sets"]
    for candidate in candidates:
        if len(choice.candidates) == 1 or any(results.accuracies(of_set, candidate, "codes") for of_set in sets):
            lines += walk_table(results, sets, candidate)
    words = " ".join(f"{name}=FOLDER" for name in arguments.folders)
    file = Path(arguments.choice)
    file = file.name if file.is_absolute() else file  # no paths of the machine
    # The command of all results on the page, which may be of several calls.
    shown = results.of(sets, candidates)
    options = f" --seeds {' '.join(map(str, shown))}" if shown and list(shown) != [0] else ""
    options += " --walk true" if any(result["walk"] for of_seed in shown.values() for result in of_seed) else ""
    lines += [
        "",
        "```bash",
        f"python recipes/choose_settings.py --choice {file}{options} --data {words}",
        "```",
        "",
    ]
    write_atomically(page, "\n".join(lines))
    logger.info("Written: %s", page)


def choice_tables(choice: Choice, results: Results, candidates: list[str], ranks: dict[str, float]) -> list[str]:
    """The lines of the table of accuracies, and of that of the candidates' settings."""
    sets = list(choice.sets)
    shared = sum(all(results.accuracy(of_set, name) is not None for name in candidates) for of_set in sets)
    counts = {name: [len(results.accuracies(of_set, name)) for of_set in sets] for name in candidates}
    most = max((max(of_candidate) for of_candidate in counts.values()), default=1)
    averaged = f", means over {most} seeds" if most > 1 else ""
    lines = [
        "",
        f"Top-1 accuracies in per cent{averaged}. The mean rank is over the {shared} of {len(sets)} sets on which all "
        "candidates were run; 1 is the best.",
        "",
        "| | " + " | ".join(sets) + " | mean rank |",
        "| --- |" + " ---: |" * (len(sets) + 1),
    ]

    def percent(value: float | None, count: int) -> str:
        fewer = f", {count} of {most} seeds" if count < most else ""
        return "" if value is None else f"{100 * value:.1f}{fewer}"

    for candidate in candidates:
        accuracies = (results.accuracy(of_set, candidate) for of_set in sets)
        cells = list(map(percent, accuracies, counts[candidate]))
        rank = f"{ranks[candidate]:.2f}" if candidate in ranks else ""
        lines.append(f"| {candidate} | " + " | ".join(cells) + f" | {rank} |")
    best = [results.best_baseline(of_set) for of_set in sets]
    means = (statistics.mean(accuracies) if accuracies else None for accuracies in best)
    cells = list(map(percent, means, map(results.num_baseline_seeds, sets)))
    lines.append("| *best classifier of raw recordings* | " + " | ".join(cells) + " | |")
    lines += ["", "| candidate | settings that differ from the preset |", "| --- | --- |"]
    for candidate in candidates:
        settings = ", ".join(f"`{name} {value}`" for name, value in choice.candidates[candidate].items())
        lines.append(f"| {candidate} | {settings or 'none'} |")
    return lines


def mean_and_range(accuracies: list[float]) -> str:
    """Accuracies of several seeds in per cent; empty without any."""
    percents = [100 * accuracy for accuracy in accuracies]
    spread = f" ({min(percents):.1f}–{max(percents):.1f})" if len(percents) > 1 else ""
    return f"{statistics.mean(percents):.1f}{spread}" if percents else ""


def walk_table(results: Results, sets: list[str], candidate: str) -> list[str]:
    """The lines of the table of a candidate's steps. Those that were not measured are empty."""
    steps = {"latents": "latents", "codes": "codes", "one_version": "language model, one version", "": "averaged"}
    lines = []
    for name in sets:
        if not results.accuracies(name, candidate):
            continue
        num_seeds = len(results.accuracies(name, candidate))
        # Kernel ridge depends on no seed, so the baselines are counted together.
        measured = [(results.best_baseline(name), results.num_baseline_seeds(name))]
        for step in steps:
            accuracies = results.accuracies(name, candidate, step)
            measured.append((accuracies, len(accuracies)))
        cells = [
            mean_and_range(accuracies) + (f", {count} of {num_seeds} seeds" if 0 < count < num_seeds else "")
            for accuracies, count in measured
        ]
        cells.append(str(num_seeds))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    header = ["best raw", *steps.values(), "seeds"]
    title = [
        "",
        f"## {candidate}: from joints to the language model",
        "",
        "Top-1 accuracies in per cent, mean and range over seeds.",
        "",
    ]
    return [*title, "| | " + " | ".join(header) + " |", "| --- |" + " ---: |" * len(header), *lines]


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
