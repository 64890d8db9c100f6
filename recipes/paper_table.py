"""
A table or figure of the three papers, with what was measured here beside what the paper reports.

```bash
python recipes/paper_table.py --paper llm_ar --table 4 --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --dry_run
python recipes/paper_table.py --paper llm_ar --table 4 --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --seeds 0 1 2
python recipes/paper_table.py --paper vt_lvlm_ar --table II --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --preset small
python recipes/paper_table.py --paper llm_ar --table 8 --dataset ntu120-unseen --data_dir NTU/skeletons
```

Each row is a run of `run_line.py` with a few settings changed; `paper_tables/*.yaml` lists the rows, their settings and the
paper's values. Rows run side by side, one for each GPU or core, and share the stages that they have in common. Run the same
command again to resume; further seeds and rows are added to the page.

By default, a table is run on the paper's data set. `--preset paper` takes the paper's own settings for NTU RGB+D,
Toyota Smarthome and UAV-Human, and the paper's method with small models elsewhere. Tables of unseen classes run on all draws of
the classes and report the mean.

The page and the JSON file behind it are written to `--pages`; `README.md` in that folder summarises all tables. Figures are
`--table figure-1`. Rows that need more than the data, such as another language model, run only if `--rows` names them. Tables
of human ratings have nothing to run; their pages list the commands that write the rating sheets. `--claims_only true` writes
the page of any table without running it.
"""

import logging
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.atomic_files import write_atomically
from action_llm_datasets.folder_lock import writing
from action_llm_datasets.names import check_protocol
from action_llm_datasets.progress import duration
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.paper_tables.definitions import PAPERS, Row, Table, find_table, preset_of
from action_llm_recipes.paper_tables.runs import RowRun, draws_of, runs_of

logger = logging.getLogger(__name__)


@dataclass
class PaperTableArguments:
    """The table, the recordings, and what is run."""

    paper: Literal[PAPERS] = field(metadata={"help": "the paper"})
    table: str = field(metadata={"help": "number of the table (4, II), or figure-1, figure-2"})
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "data set and protocol, such as utd-mhad, or ntu120-unseen for all draws of unseen classes; by default the "
            "first that the paper reports on"
        },
    )
    data_dir: str | None = field(default=None, metadata={"help": "folder of the recordings; a dry run needs none"})
    output_dir: str = field(default="runs/tables", metadata={"help": "folder of the runs, which tables can share"})
    pages: str = field(
        default="model_cards/results/tables",
        metadata={"help": "folder of the pages and of the JSON files with results"},
    )
    preset: Literal["paper", "small"] = field(
        default="paper", metadata={"help": "paper: the method of the paper; small: the `small` preset of run_line.py"}
    )
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "random seeds"})
    settings: dict = field(
        default_factory=dict,
        metadata={"help": "a setting of all rows: --STAGE.SETTING VALUE, as for run_line.py", "dotted": True},
    )
    rows: list[str] | None = field(
        default=None, metadata={"help": "names of rows; by default all that need nothing but the data"}
    )
    baselines: bool = field(
        default=True,
        metadata={"help": "also train classifiers of raw recordings (run_baselines.py), once per data set"},
    )
    hold_out: bool = field(
        default=False,
        metadata={"help": "evaluate held-out training recordings, which are left out of training, not the test split"},
    )
    held_out_subjects: list[str] | None = field(
        default=None, metadata={"help": "training subjects to hold out; by default those that the data set marks"}
    )
    backbone: str | None = field(
        default=None, metadata={"help": "visual encoder of all rows; by default that of the preset"}
    )
    llm_name_or_path: str | None = field(
        default=None, metadata={"help": "language model of all rows; by default that of the preset"}
    )
    replace: bool = field(
        default=False, metadata={"help": "drop results on the page that were measured with other settings"}
    )
    jobs: int | None = field(
        default=None, metadata={"help": "number of rows at a time; by default one for each GPU, or for each core"}
    )
    claims_only: bool = field(
        default=False, metadata={"help": "run nothing: write the page with the paper's values and the commands"}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "only show what would run, and with --data_dir for how long"}
    )

    def __post_init__(self):
        table = find_table(self.paper, self.table)
        if self.dataset is None:
            self.dataset = table.paper_dataset
        if preset_of(self.preset, self.dataset) not in table.presets:
            raise ValueError(f"--preset: {table.paper_name} has no `{self.preset}` preset, use --preset paper.")
        self.selected(table)
        for name in draws_of(self.dataset) or [self.dataset]:
            check_protocol(name)
            if table.has_unseen_classes and "-unseen" not in name:
                raise ValueError(
                    f"--dataset: {table.label} is about unseen classes, as in ntu120-unseen or utd-mhad-unseen, got {name}."
                )
            if ("-video" in name) != (table.modality == "videos"):
                raise ValueError(f"--dataset: {table.paper_name} reads {table.modality}, got {name}.")
        if self.data_dir is None and not (self.dry_run or self.claims_only) and table.is_run:
            raise ValueError("--data_dir is missing: it is the folder of the recordings.")
        if Path(self.pages).is_file():
            raise ValueError(f"--pages: expected a folder, got the file {self.pages}.")
        check_at_least_one(self, "jobs")
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"--seeds: expected one or more seeds, 0 or above, got {self.seeds}.")
        self.seeds = list(dict.fromkeys(self.seeds))
        self.check_rows_keep_settings(table)

    def check_rows_keep_settings(self, table: Table) -> None:
        """Raises `ValueError` if a setting for all rows is one in which a row differs."""
        for name in (f"{stage}.{setting}" for stage, values in self.settings.items() for setting in values):
            rows = [
                row.name
                for row in table.rows.values()
                if name in row.settings_for(preset_of(self.preset, self.dataset))
            ]
            if rows:
                raise ValueError(
                    f"--{name}: the rows {', '.join(rows)} have values of their own; choose another setting."
                )

    def selected(self, table: Table) -> dict[str, Row]:
        """The rows of the table that are to be run."""
        return table.select(self.rows, preset_of(self.preset, self.dataset))


ARGUMENTS = (PaperTableArguments,)


def main(arguments: PaperTableArguments) -> None:
    """Runs the rows of a table and writes its page, or shows what it would run."""
    table = find_table(arguments.paper, arguments.table)
    rows = {} if arguments.claims_only else arguments.selected(table)
    runs = planned_runs(arguments, table, rows, arguments.seeds)
    if arguments.dry_run:
        show_plan(arguments, table, runs)
        return
    with writing(arguments.output_dir), writing(results_path(arguments, table), "--pages", is_file=True):
        run_table(arguments, table, runs)


def run_table(arguments: PaperTableArguments, table: Table, runs: list[RowRun]) -> None:
    """Runs the rows whose results are missing, and writes the page."""
    from action_llm_recipes.paper_tables.results import TableResults

    results = TableResults(results_path(arguments, table))
    results.content["about"] = about(arguments, table)
    drop_outdated(arguments, table, results)
    failures = {}
    if runs:
        check_recordings(arguments, table, results)
        missing = [run for run in runs if not results.has(run)]
        check_runs(missing)
        if arguments.baselines and table.measures_accuracy:
            run_baselines(arguments, table, results)
        failures = run_missing(arguments, missing, results)
        if arguments.baselines and table.measures_accuracy and table.modality == "videos":
            run_features_baseline(arguments, runs, results)
    if not runs or results.seeds():
        write_pages(Path(arguments.pages), results)
    if failures:
        listed = "; ".join(f"{run.row.title}, seed {run.seed}: {reason}" for run, reason in failures.items())
        raise ValueError(f"{len(failures)} of {len(runs)} rows failed, the others are on the page. {listed}")


def drop_outdated(arguments: PaperTableArguments, table: Table, results) -> None:
    """
    Drops the results that were measured with other settings than those of the command, and of the rows and presets now.

    Raises:
        ValueError: if there are such results, and `--replace` is not set.
    """
    every_row = {name: row for name, row in table.rows.items() if not row.is_quoted}
    outdated = results.outdated(planned_runs(arguments, table, every_row, [0]))
    if outdated and not arguments.replace:
        rows = ", ".join(sorted({f"{run.row.name} (seed {seed})" for run, seed in outdated}))
        raise ValueError(
            f"{results.path} has results of other settings: {rows}. Choose other --pages, or drop them with --replace true."
        )
    for run, seed in outdated:
        logger.warning("%s: the row %s, seed %s, is dropped", results.path, run.row.name, seed)
        results.drop(run, seed)


def planned_runs(arguments: PaperTableArguments, table: Table, rows: dict, seeds: list[int]) -> list[RowRun]:
    """The runs of some rows of the table with some seeds."""
    further = {
        name: getattr(arguments, name)
        for name in ("hold_out", "held_out_subjects", "backbone", "llm_name_or_path")
        if getattr(arguments, name)
    }
    further |= {
        f"{stage}.{name}": value for stage, values in arguments.settings.items() for name, value in values.items()
    }
    data_dir, output_dir = arguments.data_dir or "DATA", Path(arguments.output_dir)
    return runs_of(table, rows, arguments.dataset, data_dir, arguments.preset, seeds, further, output_dir)


def results_path(arguments: PaperTableArguments, table: Table) -> Path:
    """The JSON file of the table on this data set."""
    name = f"{table.paper}_{table.number}_{arguments.dataset}"
    name += "_small" * (arguments.preset == "small") + "_held_out" * arguments.hold_out
    return Path(arguments.pages) / f"{name}.json"


def about(arguments: PaperTableArguments, table: Table) -> dict:
    """What the page says of the table, besides results."""
    from action_llm_recipes.paper_tables.runs import option_words

    def public(value):
        return (
            Path(value).name if isinstance(value, str) and Path(value).exists() else value
        )  # no paths of the machine

    models = {name: public(getattr(arguments, name)) for name in ("backbone", "llm_name_or_path")}
    settings = {
        f"{stage}.{name}": public(value) for stage, of in arguments.settings.items() for name, value in of.items()
    }
    defaults = PaperTableArguments(arguments.paper, arguments.table, dry_run=True)
    further = {name: getattr(arguments, name) for name in ("preset", "hold_out", "held_out_subjects")} | models
    words = ["--paper", table.paper, "--table", table.number, "--dataset", arguments.dataset, "--data_dir", "DATA"]
    further["baselines"] = arguments.baselines
    for name, value in further.items():
        if value != getattr(defaults, name):
            words += option_words(name, value)
    for name, value in settings.items():
        words += option_words(name, value)
    return {
        "paper": table.paper,
        "table": table.number,
        "dataset": arguments.dataset,
        "draws": draws_of(arguments.dataset),
        "preset": arguments.preset,
        "preset_key": preset_of(arguments.preset, arguments.dataset),
        "hold_out": arguments.hold_out,
        **models,
        "settings": settings,
        "words": words,
    }


def check_recordings(arguments: PaperTableArguments, table: Table, results) -> None:
    """Raises `ValueError` if the results on the page are of other recordings than those of `--data_dir`."""
    from action_llm_recipes.common.data_arguments import DataArguments, held_out_rows

    for name in draws_of(arguments.dataset):
        data = DataArguments(name, arguments.data_dir, held_out_subjects=arguments.held_out_subjects)
        splits = data.load(table.modality)
        rows = held_out_rows(splits["train"]) if arguments.hold_out else splits["test"]
        names = rows.features["label"].names
        labels = {sample_id: names[label] for sample_id, label in zip(rows["sample_id"], rows["label"], strict=True)}
        results.check_split(name, labels, data.people(splits))


def check_runs(runs: list[RowRun]) -> None:
    """Checks the settings of all rows before any is trained.

    Raises:
        ValueError: if a setting is wrong; names the row.
    """
    checked = set()
    for run in runs:
        if (run.row.name, run.dataset) not in checked:
            checked.add((run.row.name, run.dataset))
            try:
                resolve_run(run)
            except ValueError as error:
                raise ValueError(f"row {run.row.name}: {error}") from error


def check_settings(arguments: PaperTableArguments, table: Table, runs: list[RowRun]) -> None:
    """Raises `ValueError` if a `--STAGE.SETTING` does not exist or has the wrong type, without the recordings."""
    from action_llm_recipes.pipeline.settings import read_overrides
    from action_llm_recipes.run_line import PipelineArguments, read_all_settings

    for run in runs[:1]:  # the settings are those of all rows
        models = {
            name: value for name, value in run.options.items() if "." not in name and name not in ("seed", "hold_out")
        }
        pipeline = PipelineArguments(output_dir=str(run.folder), paper=table.paper, **models)
        settings = read_all_settings(pipeline, table.paper)[1]
        read_overrides(arguments.settings, settings | {"encode": {}, "evaluation": {}})


def resolve_run(run: RowRun):
    """The settings of a run, as `run_line.py` resolves them."""
    from action_llm_recipes import run_line
    from action_llm_recipes.common.launching import parse

    return run_line.resolve(*parse(run_line.ARGUMENTS, run.command_line()))


def show_plan(arguments: PaperTableArguments, table: Table, runs: list[RowRun]) -> None:
    """Logs the rows of a table, the commands that make them and, if the recordings are at hand, how long they take."""
    from action_llm_recipes.paper_tables.page import plan_text

    if arguments.settings and arguments.data_dir is None:
        check_settings(arguments, table, runs)
    logger.info("%s, %s: %s", table.paper_name, table.label, table.title)
    logger.info("%s", plan_text(table, preset_of(arguments.preset, arguments.dataset)))
    for run in runs:
        logger.info("python recipes/run_line.py %s", shlex.join(run.command_line()))
    key = preset_of(arguments.preset, arguments.dataset)
    needing = {name: row for name, row in table.rows.items() if not row.is_quoted and row.needs_for(key)}
    for run in planned_runs(arguments, table, needing, arguments.seeds[:1]):
        logger.info("# %s: needs %s", run.row.title, run.row.needs_for(key))
        command = run.row.full_size_command if key == "full_size" else ""
        logger.info("%s", command or f"python recipes/run_line.py {shlex.join(run.command_line())}")
    for command in table.commands:
        logger.info("%s", command)
    others = [name for name in table.columns if name != arguments.dataset] if table.measures_accuracy else []
    if table.is_run and others:
        logger.info("The paper reports on %s, too: set --dataset.", ", ".join(others))
    if not table.is_run:
        logger.info("Nothing to run: the paper's values are ratings by people.")
    elif arguments.data_dir is None:
        logger.info("Runs: %d; with --data_dir, their time is estimated.", len(runs))
    else:
        show_time(arguments, runs)


def show_time(arguments: PaperTableArguments, runs: list[RowRun]) -> None:
    """Logs the estimated time of all runs on one core; stages that runs share are counted once."""
    from action_llm_recipes.common.launching import with_defaults
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.paper_tables.execution import default_jobs
    from action_llm_recipes.pipeline.plan import PROBE_SECONDS, planned_stages, probe
    from action_llm_recipes.pipeline.stages import classes_of

    seconds, unknown = {}, False
    for run in runs:
        resolved = resolve_run(run)
        trains_llm = resolved.arguments.llm_name_or_path is None
        settings = {
            stage: with_defaults(classes_of(stage, values), values) for stage, values in resolved.settings.items()
        }
        for stage, _, duration_of_stage in planned_stages(settings, resolved.counts, trains_llm):
            # A small language model is trained for each seed and, without unseen classes, for each draw of them.
            folder = run.stages.get(stage, (stage, tuple(resolved.unseen), run.seed))
            if not trains_llm and stage in ("lvlm", "sft", "evaluation"):
                unknown = True
            elif stage == "small_lm" or not RunFolder.has_record(folder):
                seconds[folder] = duration_of_stage
    total, jobs = sum(seconds.values()) * probe() / PROBE_SECONDS, arguments.jobs or default_jobs()
    logger.info(
        "%d runs: about %s on one core of this machine%s; %d rows run at a time.",
        len(runs),
        duration(total),
        ", without the stages of the language model, which measure their time when they start" if unknown else "",
        jobs,
    )


def run_baselines(arguments: PaperTableArguments, table: Table, results) -> None:
    """Trains classifiers of the raw recordings, with as many seeds (0, 1, …) as the table has, if the results lack them. Unseen
    classes have none."""
    from action_llm_recipes.baselines import run_baselines as recipe
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.paper_tables.results import FEATURES_BASELINE

    seeds = len({*results.seeds(), *arguments.seeds})
    for dataset in draws_of(arguments.dataset):
        data = DataArguments(dataset, arguments.data_dir, held_out_subjects=arguments.held_out_subjects)
        known = results.content["baselines"].get(dataset, {})
        networks = known.keys() - {"kernel_ridge", FEATURES_BASELINE}  # kernel ridge has no seed
        is_complete = "kernel_ridge" in known and all(len(known[method]["seeds"]) >= seeds for method in networks)
        if is_complete or has_unseen_classes(data):
            continue
        split = "held_out" if arguments.hold_out else "test"
        folder = Path(arguments.output_dir) / "baselines" / f"{dataset}_{split}"
        metrics = recipe.main(recipe.BaselineArguments(output_dir=str(folder), split=split, seeds=seeds), data)
        results.add_baselines(dataset, metrics)


def run_features_baseline(arguments: PaperTableArguments, runs: list, results) -> None:
    """Trains a transformer on the features of the visual encoder of each seed, if the results lack it: what an encoder alone is
    worth. The runs of a seed share their encoder, unless a row names another one."""
    from action_llm_recipes.baselines import run_baselines as recipe
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.common.run_folder import RunFolder

    folders = {}
    for run in runs:
        folder = run.stages["features"]
        if RunFolder.has_record(folder) and "backbone" not in run.row.settings:
            folders.setdefault(run.dataset, {}).setdefault(run.seed, folder)
    split = "held_out" if arguments.hold_out else "test"
    for dataset, of_seeds in folders.items():
        known = results.features_baseline(dataset)
        for seed in of_seeds.keys() - known.keys():
            features = DataArguments("features", str(of_seeds[seed]))
            output_dir = Path(arguments.output_dir) / "baselines" / f"{of_seeds[seed].name}_{split}"
            options = {"methods": ["transformer"], "split": split, "seeds": 1}
            metrics = recipe.main(recipe.BaselineArguments(output_dir=str(output_dir), **options), features)
            known[seed] = metrics["accuracy"]["transformer"]["seeds"][0]
        results.add_features_baseline(dataset, known)


def has_unseen_classes(data) -> bool:
    """Whether the test classes are not those of training, so that no classifier can be compared."""
    from action_llm_recipes.run_line import unseen_classes

    return bool(unseen_classes(data.load("videos" if data.is_video else "skeletons")))


def run_missing(arguments: PaperTableArguments, runs: list[RowRun], results) -> dict[RowRun, str]:
    """Runs rows and adds each result to the page when it is there; returns the rows that failed, with the reason."""
    from action_llm_recipes.paper_tables.execution import default_jobs, run_rows

    def on_finished(run: RowRun) -> None:
        results.add(run)
        write_pages(Path(arguments.pages), results)

    jobs = min(arguments.jobs or default_jobs(), max(len(runs), 1))
    return run_rows(runs, jobs, on_finished)


def write_pages(folder: Path, results) -> None:
    """Writes the page of a table, and the summary of all tables in the folder."""
    from action_llm_recipes.paper_tables.page import summary_page, table_page

    page = results.path.with_suffix(".md")
    results.save()
    write_atomically(page, table_page(results))
    summary = folder / "README.md"
    with writing(summary, "--pages", is_file=True, patience=60):  # of all tables, which may be running
        write_atomically(summary, summary_page(folder))
    logger.info("Written: %s", page)


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
