"""The pages of the measured tables, written from their JSON files."""

import logging
import shlex
from dataclasses import replace
from pathlib import Path

from action_llm.model_files import ModelFileError
from action_llm_recipes.paper_tables.definitions import MEASURES, Row, Table, find_table
from action_llm_recipes.paper_tables.results import FEATURES_BASELINE, Difference, Measured, TableResults
from action_llm_recipes.paper_tables.runs import option_words

logger = logging.getLogger(__name__)

NOT_RUN = "*not run here*"
# Statistics of the action model and its sentences that are shown if the runs have them.
STATISTICS = {
    "tokens_per_recording": "words per recording",
    "codes_used": "codes used",
    "entropy": "entropy, bits",
    "zipf_js": "distance from Zipf's law",
    "context_loss": "context loss",
    "context_loss_random_pairs": "context loss, random pairs",
    "mmd": "MMD",
    "reconstruction_loss": "reconstruction loss",
}
BASELINES = {
    "kernel_ridge": "raw baseline: kernel ridge",
    "graph": "raw baseline: small ST-GCN",
    "transformer": "raw baseline: small transformer",
    FEATURES_BASELINE: "no tokens: transformer on the features of the visual encoder",
}
PRESETS = {
    "full_size": "The settings are the paper's",
    "scaled": "The method is the paper's, with settings for a few hundred recordings",
    "small": "The settings are those of the `small` preset, which averages several versions of a recording (baselines: one)",
}


def table_page(results: TableResults) -> str:
    """The page of a measured table, as Markdown."""
    about = results.content["about"]
    table = find_table(about["paper"], about["table"])
    parts = [
        f"# {table.paper_name}, {table.label}, on {about['dataset']}{_small(about)}: {_lower_first(table.title)}",
        _introduction(table, results),
        _markdown_table(*_rows(table, results)),
        _reading(table, results),
        _statistics_table(table, results),
        _notes(table),
        _commands(table, results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(table: Table, results: TableResults) -> str:
    about = results.content["about"]
    number = next((recordings["number"] for recordings in results.content["recordings"].values()), None)
    draws = len(about["draws"])
    if not results.seeds():
        return "Nothing in this table was measured here: these are the paper's numbers, and the commands that measure ours."
    text = f"This page compares the paper's numbers with ours on `{about['dataset']}`"
    if number is not None:
        evaluated = "held-out training" if about["hold_out"] else "test"
        text += f" ({number} {evaluated} recordings{f' in the first of {draws} draws' if draws > 1 else ''})"
    return f"{text}. {_settings_sentences(table, about)}" if table.is_run else f"{text}."


def _small(about: dict) -> str:
    return ", `small` preset" * (about["preset"] == "small")


def _settings_sentences(table: Table, about: dict) -> str:
    text = PRESETS[about["preset_key"]]
    if about["settings"]:
        changed = (f"`{' '.join(option_words(name, value))}`" for name, value in about["settings"].items())
        text += f", with {', '.join(changed)} in all rows"
    text += "."
    llm, backbone = about["llm_name_or_path"], about["backbone"]
    own = about["preset_key"] != "full_size"
    models = []
    if llm or own:
        models.append(
            f"the language model `{llm}`"
            if llm
            else "a language model of two million weights that was trained on generated text"
        )
    if table.modality == "videos" and (backbone or own):
        models.append(
            f"the visual encoder `{backbone}`"
            if backbone
            else "a visual encoder that was trained on the training videos"
        )
    if models:
        text += f" All rows that do not name other models use {' and '.join(models)}."
    return text


def _rows(table: Table, results: TableResults) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table."""
    header = ["row", *(f"paper: {MEASURES.get(column, column)}" for column in table.columns)]
    if table.measures_accuracy:
        return _accuracy_rows(table, results, header)
    header += [f"here: {MEASURES[column]}" for column in table.columns]
    lines = []
    for row in table.rows.values():
        measured = [_value(results.statistic(row.name, column)) for column in table.columns]
        if row.is_quoted:
            measured = ["–"] * len(measured)
        lines.append([row.title, *_claims(row), *measured])
    return header, lines


def _accuracy_rows(table: Table, results: TableResults, header: list[str]) -> tuple[list[str], list[list[str]]]:
    about = results.content["about"]
    header = [*header, f"here: {about['dataset']}"]
    if table.reference is not None:
        reference = table.rows[table.reference]
        header.append(f"difference from *{reference.title}* (95 % interval)")
    header += ["settings that differ from the preset", "minutes"]
    lines = []
    for row in table.rows.values():
        line = [row.title, *_claims(row)]
        accuracy = results.accuracy(row.name)
        line.append("–" if row.is_quoted else _value(accuracy, places=1) if accuracy else _missing(results, row))
        if table.reference is not None:
            line.append(_difference(table, results, row))
        settings = row.settings_for(about["preset_key"])
        names = [f"`{' '.join(option_words(name, value)).removeprefix('--')}`" for name, value in settings.items()]
        line.append("–" if row.is_quoted else ", ".join(names) or "none")
        minutes = results.minutes(row.name)
        line.append(f"{minutes.low:.0f}" if minutes else "–")
        lines.append(line)
    metrics = {recordings["metric"] for recordings in results.content["recordings"].values()}
    note = "" if metrics <= {"top_1"} else " (top-1)"
    for method, seeds in _baselines(results).items():
        mean = 100 * sum(seeds) / len(seeds)
        value = _value(Measured(mean, 100 * min(seeds), 100 * max(seeds), len(seeds)), places=1)
        empty = [""] * (len(header) - 2 - len(table.columns))
        lines.append([f"*{BASELINES.get(method, method)}{note}*", *["–"] * len(table.columns), value, *empty])
    if table.has_unseen_classes and (classes := results.split(results.draws[0]).get("classes")):
        empty = [""] * (len(header) - 2 - len(table.columns))
        lines.append(
            [f"*one of {classes} classes by chance*", *["–"] * len(table.columns), f"{100 / classes:.1f}", *empty]
        )
    return header, lines


def _missing(results: TableResults, row: Row) -> str:
    """Why a row has no accuracy."""
    draws, missing = len(results.draws), results.missing_draws(row.name)
    return (
        NOT_RUN
        if missing == draws
        else f"*only {draws - missing} of {draws} draws*"
        if missing
        else "*no common seed*"
    )


def _baselines(results: TableResults) -> dict[str, list[float]]:
    """Method → accuracy of each seed."""
    methods = results.content["baselines"].get(results.draws[0], {})
    return {method: accuracy["seeds"] for method, accuracy in methods.items()}


def _difference(table: Table, results: TableResults, row: Row) -> str:
    if row.name == table.reference or row.is_quoted:
        return "–"
    difference = results.difference(row.name, table.reference)
    if difference is None:
        return "–"
    text = _with_interval(difference)
    if any(results.accuracy(name).seeds != difference.seeds for name in (row.name, table.reference)):
        text += f", {difference.seeds} seed{'s' * (difference.seeds > 1)}"
    return f"**{text}**" if difference.is_clear else text


def _with_interval(difference: Difference) -> str:
    if not difference.is_any:
        return "the same recordings are correct"
    return f"{_signed(difference.mean)} ({_signed(difference.low)} to {_signed(difference.high)})"


def _reading(table: Table, results: TableResults) -> str:
    seeds = results.seeds()
    if not seeds:
        return ""
    text = "Accuracies are in per cent, " if table.measures_accuracy else "Values are "
    if len(seeds) > 1:
        text += (
            f"means over the seeds {', '.join(map(str, seeds))} with their range; rows without a range have one seed."
        )
    else:
        text += "from one seed."
    if not table.measures_accuracy:
        return text
    if table.reference is not None:
        text += " " + _of_intervals(results)
    return (
        text
        + " Minutes are those of the fastest seed, on a machine that may have done other work beside it, for all stages "
        "except the small language model, which is trained once per seed."
    )


def _of_intervals(results: TableResults) -> str:
    """What the intervals of differences cover."""
    split = results.split(results.draws[0])
    text = "Differences are in points, over the seeds that both rows have, with their 95 % interval"
    text += " over recordings and seeds, both random" if len(results.seeds()) > 1 else " over recordings"
    if split.get("groups"):
        text += f" ({split['people']} people were tested; one person's recordings of the same action count as a group)"
    elif len(results.draws) > 1:
        text += ", which leaves out the variation between draws of the unseen classes"
    return f"{text}. The interval of a single seed says nothing of other seeds. Bold: it does not contain 0."


def _statistics_table(table: Table, results: TableResults) -> str:
    if not table.measures_accuracy:
        return ""
    rows = [row for row in table.rows.values() if results.accuracy(row.name) is not None]
    names = [name for name in STATISTICS if any(results.statistic(row.name, name) is not None for row in rows)]
    if not rows or not names:
        return ""
    lines = [
        [row.title, *(_value(results.statistic(row.name, name), with_range=False) for name in names)] for row in rows
    ]
    return "## Action models and sentences\n\n" + _markdown_table(
        ["row", *(STATISTICS[name] for name in names)], lines
    )


def _notes(table: Table) -> str:
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in table.notes) if table.notes else ""


def _commands(table: Table, results: TableResults) -> str:
    about = results.content["about"]
    command = f"python recipes/paper_table.py --paper {table.paper} --table {table.number}"
    where = f"--dataset {table.paper_dataset} --data_dir DATA"
    datasets = table.columns if table.measures_accuracy else [table.paper_dataset]
    not_run = []
    others = [name for name in datasets if name != about["dataset"] or not results.seeds()]
    if table.is_run and others:
        not_run += ["# on the paper's data, with the paper's models"]
        not_run += [f"{command} --dataset {name} --data_dir DATA" for name in others]
    for row in table.rows.values():
        if needs := row.needs_for("full_size"):
            not_run += [
                f"# {row.title}: needs {needs}",
                row.full_size_command or f"{command} --rows {row.name} {where}",
            ]
    if table.commands:
        not_run += ["# further commands of this table", *table.commands]
    written = "This page was written by:"
    if commits := results.commits():
        written = f"This page was written by (commit{'s' * (len(commits) > 1)} {', '.join(commits)}):"
    parts = [(written, _written_by(about, results)), ("Not run here:", not_run)]
    blocks = ["\n".join([title, "", "```bash", *lines, "```"]) for title, lines in parts if lines]
    return "\n\n".join(["## Commands", *blocks])


def _written_by(about: dict, results: TableResults) -> list[str]:
    """A command for each set of seeds that rows have."""
    rows_of = {}
    for row in results.content["rows"]:
        rows_of.setdefault(tuple(results.seeds_of(row)), []).append(row)
    commands = []
    for seeds, rows in rows_of.items():
        words = list(about["words"])
        if len(rows_of) > 1:
            words += ["--rows", *rows]
        commands.append(command_text(words + (["--seeds", *map(str, seeds)] if seeds != (0,) else [])))
    return commands


def summary_page(folder: Path) -> str:
    """A page with the papers' ideas, what they bring by the papers' claims, and what they brought here, as Markdown."""
    table = ideas_table(folder)
    text = [
        "# Which of the papers' ideas helped here",
        "Gain in points of accuracy by each idea: the paper's model minus the row of its table that leaves the idea out or "
        "replaces it. The papers measured on NTU RGB+D with LLMs of 7 to 13 billion weights; unless a page says otherwise, a "
        "language model of two million weights was used here, so a difference between the two columns does not refute the "
        "paper. Intervals are over recordings and, where there are several, over seeds; they leave out that few people were "
        "tested. Bold: the interval does not contain 0.",
        table or "No table with a reference row has been measured yet.",
        *(
            f"{what}: {'; '.join(f'[{title}]({name})' for title, name in pages)}."
            for what, pages in zip(
                ("Measured", "Only the papers' numbers, and commands"), _pages_of(folder), strict=True
            )
            if pages
        ),
        "`recipes/paper_table.py` writes this page and those of the tables.",
    ]
    return "\n\n".join(text) + "\n"


def ideas_table(folder: Path, links: str = "") -> str:
    """
    What became of the papers' ideas in a few lines, and a table of them with the gain that the paper claims and the one that
    was measured, as Markdown.

    Args:
        folder: of the JSON files of tables.
        links: beginning of the links to their pages.
    """
    header = ["idea", "table", "paper's claim", "measured here (95 % interval)", "on", "seeds"]
    lines, verdicts = [], {"Clear gains": [], "Clear losses": [], "No clear difference": [], "Nothing was learned": []}
    for results in _results_of(folder):
        about = results.content["about"]
        table = find_table(about["paper"], about["table"])
        for row in table.rows.values():
            if not row.idea or table.reference is None:
                continue
            difference = results.difference(row.name, table.reference)
            if difference is None:
                continue
            # The gain by the idea is the loss of the row that leaves it out.
            gain = _with_interval(
                replace(difference, mean=-difference.mean, low=-difference.high, high=-difference.low)
            )
            verdict = "Nothing was learned" if not difference.is_any else "No clear difference"
            if difference.is_any and difference.is_clear:
                verdict = "Clear losses" if difference.mean > 0 else "Clear gains"
            verdicts[verdict].append(f"{row.idea} ({table.paper_name}{', `small`' * (about['preset'] == 'small')})")
            lines.append(
                [
                    row.idea,
                    f"[{table.paper_name}, {table.label}]({links}{results.path.stem}.md)",
                    _claimed_gain(table, row),
                    f"**{gain}**" if difference.is_clear else gain,
                    f"{about['dataset']}, {about['preset']}",
                    str(difference.seeds),
                ]
            )
    if not lines:
        return ""
    sums = "\n".join(
        f"- {verdict}: {'; '.join(dict.fromkeys(ideas))}." for verdict, ideas in verdicts.items() if ideas
    )
    return f"{sums}\n\n{_markdown_table(header, lines, texts=2)}"


def _results_of(folder: Path) -> list[TableResults]:
    """The results of all tables in a folder; other JSON files are left out with a warning."""
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            results.append(TableResults(path))
        except ModelFileError as error:
            logger.warning("Left out of the summary: %s", error)
    return results


def _pages_of(folder: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Title and file name of the pages of tables that were measured, and of the others."""
    measured, others = [], []
    for results in _results_of(folder):
        about = results.content["about"]
        table = find_table(about["paper"], about["table"])
        title = f"{table.paper_name}, {table.label}, {about['dataset']}"
        title += _small(about)
        (measured if results.seeds() else others).append((title, f"{results.path.stem}.md"))
    return measured, others


def _claimed_gain(table: Table, row: Row) -> str:
    reference = table.rows[table.reference]
    gains = [
        _signed(of_reference - of_row)
        for of_reference, of_row in zip(reference.claims, row.claims, strict=True)
        if of_reference is not None and of_row is not None
    ]
    return ", ".join(gains) or "–"


def _claims(row: Row) -> list[str]:
    return ["–" if value is None else f"{value:g}" for value in row.claims]


def _value(estimate: Measured | None, places: int | None = None, with_range: bool = True) -> str:
    if estimate is None:
        return "–"

    def text(value: float) -> str:
        if places is None:
            return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
        return f"{value:.{places}f}"

    if with_range and estimate.seeds > 1:
        return f"{text(estimate.mean)} ({text(estimate.low)}–{text(estimate.high)})"
    return text(estimate.mean)


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")


def _lower_first(text: str) -> str:
    first = text.partition(" ")[0]
    return text if first[1:] != first[1:].lower() else text[0].lower() + text[1:]


def _markdown_table(header: list[str], lines: list[list[str]], texts: int = 1) -> str:
    """A table whose first columns are texts and the others numbers, which are aligned to the right."""
    alignment = ["---"] * texts + ["---:"] * (len(header) - texts)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, alignment, *lines))


def command_text(words: list[str]) -> str:
    """A command on several lines, for a page."""
    lines, line = [], "python recipes/paper_table.py"
    for word in words:
        text = shlex.quote(word)
        if text.startswith("--") and len(line) > 80:
            lines.append(line)
            line = "    " + text
        else:
            line += f" {text}"
    return " \\\n".join([*lines, line])


def plan_text(table: Table, preset_key: str) -> str:
    """The rows of a table with the paper's values and their settings, for `--dry_run`."""
    lines = [["row", *(MEASURES.get(column, column) for column in table.columns), "settings"]]
    for row in table.rows.values():
        options = [option_words(name, value) for name, value in row.settings_for(preset_key).items()]
        settings = shlex.join(word for words in options for word in words) or "none"
        if row.is_quoted:
            settings = "only quoted"
        elif needs := row.needs_for(preset_key):
            settings += f" (runs only with --rows {row.name}: needs {needs})"
        lines.append([f"{row.name}: {row.title}", *_claims(row), settings])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"  {'  '.join(line)}".rstrip() for line in padded)
