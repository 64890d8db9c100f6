"""
Summarise human ratings: means with intervals, differences between systems, agreement between raters.

```bash
python recipes/rating/report.py --key runs/mine/rating/key.json --ratings returned/*.csv --output_dir runs/mine/rating/report
```

Reads the sheets of `rating/sheets.py` that were returned, complete or not, and writes `report.json`, `report.md` and
`ratings.png`. Sheets can be filled in on their pages or in a spreadsheet.

- A mean is over all ratings. Recordings and raters are both samples, so its 95 % interval resamples both independently (the
  bootstrap of crossed samples: Owen 2007, "The pigeonhole bootstrap"; it is slightly too wide rather than too narrow). The
  interval of a single rater does not generalise to other raters.
- Twelve answers "yes" do not prove a share of 100 %. For shares of yes, and if all resamples give the same mean, the interval
  is at least as wide as the normal interval over recordings with a few pseudo-ratings at both ends of the scale: two each for a
  mean (Agresti and Coull 1998), one each for a difference (Agresti and Caffo 2000; for pairs Bonett and Price 2012).
- A difference compares ratings of the same recording by the same rater if systems have recordings in common. A resample has the
  same recordings and raters for all systems.
- Agreement between raters is Krippendorff's alpha over the items of all systems, ordinal for 1 to 5 and nominal for yes and no,
  with an interval over items (`metrics/rater_agreement.py`).
"""

import csv
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np

from action_llm_recipes.common.launching import launch
from action_llm_recipes.metrics.action_classification.classification_scores import Interval
from action_llm_recipes.rating.studies import STUDIES, YES_NO, RatingFileError

logger = logging.getLogger(__name__)


@dataclass
class RatingReportArguments:
    """Which ratings are summarised, and where."""

    key: str = field(metadata={"help": "key.json that rating/sheets.py wrote"})
    ratings: list[str] = field(metadata={"help": "returned CSV files, one for each rater"})
    output_dir: str = field(metadata={"help": "folder for report.json, report.md and ratings.png"})
    resamples: int = field(default=2000, metadata={"help": "bootstrap resamples"})
    seed: int = field(default=0, metadata={"help": "seed of the resamples"})
    note: str = field(
        default="", metadata={"help": "note at the top of the report, for example that the ratings are made up"}
    )


ARGUMENTS = (RatingReportArguments,)


def main(arguments: RatingReportArguments) -> dict:
    """Writes the report; returns the contents of report.json."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.run_folder import without_nan
    from action_llm_recipes.metrics.plots import plot_ratings

    key = json.loads(Path(arguments.key).read_text(encoding="utf-8"))
    sheets: dict[str, Sheet] = {}
    for path in arguments.ratings:
        sheet = read_sheet(path, key)
        if sheet.rater in sheets:
            raise ValueError(
                f"{path} and {sheets[sheet.rater].path} are both of {sheet.rater}: expected one file for each rater."
            )
        sheets[sheet.rater] = sheet
    report = summarise(key, list(sheets.values()), arguments.resamples, arguments.seed)
    if not any(scale["ratings"] for scale in report["scales"].values()):
        raise ValueError(f"there is no rating in {', '.join(arguments.ratings)}: pass sheets that raters filled in.")
    report = {"note": arguments.note, **report} if arguments.note else report
    output, study = Path(arguments.output_dir), STUDIES[key["study"]]
    write_atomically(output / "report.json", json.dumps(without_nan(report), indent=1, ensure_ascii=False) + "\n")
    write_atomically(output / "report.md", to_markdown(report, study))
    rows = {
        scale.title: {name: system["counts"] for name, system in report["scales"][scale.name]["systems"].items()}
        for scale in study.scales
    }
    plot_ratings(rows, output / "ratings.png", title=arguments.note or study.title)
    logger.info("%s", to_markdown(report, study))
    return report


@dataclass
class Sheet:
    """The answers of a rater: item → scale → answer, and item → comment."""

    path: str
    rater: str
    answers: dict[str, dict[str, str]]
    comments: dict[str, str]


def read_sheet(path: str, key: dict) -> Sheet:
    """Reads a sheet, as its page or a spreadsheet writes it: with commas, semicolons or tabs. Missing answers are empty cells.

    Raises:
        RatingFileError: if a line or cell is not as expected; names file, line and field.
        ValueError: if the file is not text in UTF-8.
    """
    from action_llm_recipes.rating.sheets import NOT_ASKED, columns

    study = STUDIES[key["study"]]
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, found byte {error.object[error.start]:#x}") from error
    head = text.partition("\n")[0]
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=max(",;\t", key=head.count), restval="")
    for name in columns(study):
        if name not in (reader.fieldnames or []) and name not in ("number", "comment"):
            raise RatingFileError(path, 1, name, f"the columns {', '.join(reader.fieldnames or [])}", "a column")
    sheet = Sheet(path, "", {}, {})
    for row in reader:
        line = reader.line_num
        if None in row:
            raise RatingFileError(path, line, "line", f"{len(row[None])} more", f"{len(reader.fieldnames)} cells")
        row = {name: cell.strip() for name, cell in row.items()}
        if not any(row.values()):
            continue
        if row["rater"] not in key["raters"]:
            expected = f"one of {', '.join(key['raters'])}"
            raise RatingFileError(path, line, "rater", repr(row["rater"]), expected)
        if row["rater"] != (sheet.rater or row["rater"]):
            raise RatingFileError(path, line, "rater", row["rater"], f"{sheet.rater}, as in the lines above")
        sheet.rater = row["rater"]
        item = row["item"]
        if item not in key["items"]:
            raise RatingFileError(path, line, "item", repr(item), "an item of this study")
        if item in sheet.answers:
            raise RatingFileError(path, line, "item", f"{item} again", "each item once")
        sheet.answers[item] = {}
        for scale in study.scales:
            cell, is_asked = row[scale.name].lower(), scale.name in key["items"][item]["asked"]
            if not cell or (cell == NOT_ASKED and not is_asked):
                continue
            if not is_asked or cell not in scale.answers:
                expected = (
                    f"{' or '.join(scale.answers)}, or nothing" if is_asked else f"{NOT_ASKED}, since it was not asked"
                )
                raise RatingFileError(path, line, scale.name, repr(row[scale.name]), expected)
            sheet.answers[item][scale.name] = cell
        if row.get("comment"):
            sheet.comments[item] = row["comment"]
    if not sheet.rater:
        raise RatingFileError(path, 2, "item", "none", "a line for each item")
    return sheet


def summarise(key: dict, sheets: list[Sheet], resamples: int, seed: int) -> dict:
    """Counts, means, differences and agreement for each scale, and the number of answers of each rater."""
    from action_llm_recipes.metrics.rater_agreement import alpha_interval

    scales = {}
    for scale in STUDIES[key["study"]].scales:
        tables = rating_tables(key, sheets, scale)
        if not tables:
            continue
        draws = crossed_draws(tables, resamples, seed)
        ends = (value(scale.answers[0]), value(scale.answers[-1]))
        pooled = np.concatenate(list(tables.values()))
        level = "ordinal" if scale.low else "nominal"
        ours, *others = tables
        scales[scale.name] = {
            "ratings": int(np.isfinite(pooled).sum()),
            "systems": {
                name: {
                    "ratings": int(np.isfinite(table).sum()),
                    "subjects": int(np.isfinite(table).any(axis=1).sum()),
                    "raters": int(np.isfinite(table).any(axis=0).sum()),
                    "counts": {answer: int((table == value(answer)).sum()) for answer in scale.answers},
                    **asdict(with_ends(mean_interval(table, draws), [table], ends)),
                }
                for name, table in tables.items()
            },
            "differences": {
                f"{ours} − {other}": asdict(
                    with_ends(
                        difference_interval(tables[ours], tables[other], draws), [tables[ours], tables[other]], ends
                    )
                )
                for other in others
            },
            "alpha": {
                "level": level,
                **asdict(alpha_interval(pooled, level, resamples=resamples, seed=seed)),
            },
        }
    items = key["items"]
    return {
        "study": key["study"],
        "systems": key["systems"],
        "items": len(key["items"]),
        "sheets": len(key["raters"]),
        "answered": {sheet.rater: sum(map(len, sheet.answers.values())) for sheet in sheets},
        "asked": sum(len(item["asked"]) for item in items.values()),
        "scales": scales,
        "comments": [
            {"rater": sheet.rater, "system": items[item]["system"], "subject": items[item]["subject"], "said": comment}
            for sheet in sheets
            for item, comment in sheet.comments.items()
        ],
    }


def value(answer: str) -> float:
    """The number of an answer: 1 to 5, or 0 for no and 1 for yes."""
    return float(YES_NO.index(answer)) if answer in YES_NO else float(answer)


def rating_tables(key: dict, sheets: list[Sheet], scale) -> dict:
    """System → float64 (subjects, raters), NaN where a rating is missing; only systems that the scale is asked for."""
    items = {name: item for name, item in key["items"].items() if scale.name in item["asked"]}
    subjects = {subject: row for row, subject in enumerate(dict.fromkeys(item["subject"] for item in items.values()))}
    tables = {
        system: np.full((len(subjects), len(sheets)), np.nan)
        for system in key["systems"]
        if any(item["system"] == system for item in items.values())
    }
    for column, sheet in enumerate(sheets):
        for name, answers in sheet.answers.items():
            if scale.name in answers:
                item = items[name]
                tables[item["system"]][subjects[item["subject"]], column] = value(answers[scale.name])
    return tables


def crossed_draws(tables: dict, resamples: int, seed: int):
    """How often each subject and each rater is drawn: (resamples, subjects) and (resamples, raters).

    Subjects are drawn within strata of those that were rated for the same systems, so that each system keeps its number.
    """
    rng = np.random.default_rng(seed)
    rated = np.stack([np.isfinite(table) for table in tables.values()])
    subjects = np.zeros((resamples, rated.shape[1]))
    strata, stratum_of = np.unique(rated.any(axis=2).T, axis=0, return_inverse=True)
    for stratum in range(len(strata)):
        rows = np.flatnonzero(stratum_of.ravel() == stratum)
        subjects[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    present = np.flatnonzero(rated.any(axis=(0, 1)))
    raters = np.zeros((resamples, rated.shape[2]))
    if len(present):
        raters[:, present] = rng.multinomial(len(present), np.full(len(present), 1 / len(present)), size=resamples)
    return subjects, raters


def means(table, draws):
    """Mean of all ratings of a table in each resample; NaN if a resample has none."""
    subjects, raters = draws
    is_rated = np.isfinite(table)
    total = ((subjects @ np.where(is_rated, table, 0)) * raters).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return total / ((subjects @ is_rated) * raters).sum(axis=1)


def mean_interval(table, draws):
    """Mean of all ratings, with its interval."""
    return interval(np.nanmean(table) if np.isfinite(table).any() else np.nan, means(table, draws))


def difference_interval(ours, other, draws):
    """Difference of means: over pairs of ratings of a subject by the same rater if there are any, else over all ratings."""
    both = np.isfinite(ours) & np.isfinite(other)
    if both.any():
        return mean_interval(np.where(both, ours - other, np.nan), draws)
    if not (np.isfinite(ours).any() and np.isfinite(other).any()):
        return interval(np.nan, np.array([np.nan]))
    return interval(np.nanmean(ours) - np.nanmean(other), means(ours, draws) - means(other, draws))


def with_ends(drawn: Interval, tables: list, ends: tuple[float, float]) -> Interval:
    """Widens the interval of a mean or a difference if a few ratings that agree would make it too narrow.

    The interval is at least as wide as the normal interval over subjects with pseudo-ratings at both ends of the scale.

    Args:
        drawn: the bootstrap interval, from `mean_interval` of a table or `difference_interval` of two.
        tables: the one or two tables (subjects, raters), NaN where a rating is missing.
        ends: the lowest and the highest rating of the scale.
    """
    if not np.isfinite(drawn.estimate) or (drawn.low < drawn.high and ends != (0, 1)):
        return drawn
    low, high = ends
    if len(tables) == 1:
        samples, added = tables, (low, high, low, high)
    elif (np.isfinite(tables[0]) & np.isfinite(tables[1])).any():
        low, high = low - high, high - low
        samples, added = [tables[0] - tables[1]], (low, high)
    else:
        samples, added = tables, (low, high)
        low, high = low - high, high - low
    middle = variance = 0.0
    for sign, table in zip((1, -1), samples, strict=False):
        rated = np.isfinite(table)
        ratings = np.where(rated, table, 0).sum(axis=1)[rated.any(axis=1)] / rated.sum(axis=1)[rated.any(axis=1)]
        ratings = np.append(ratings, added)
        middle += sign * ratings.mean()
        variance += ratings.var() / len(ratings)
    half = NormalDist().inv_cdf(0.975) * variance**0.5
    ends = max(low, min(drawn.low, middle - half)), min(high, max(drawn.high, middle + half))
    return Interval(drawn.estimate, *map(float, ends))


def interval(estimate, values):
    """The estimate, with the interval from the 2.5 % to the 97.5 % quantile of its resamples."""
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return Interval(float(estimate), float(low), float(high))


def to_markdown(report: dict, study) -> str:
    """The report in Markdown: tables as in the papers, intervals, and agreement between raters."""
    from action_llm.escaping import markdown

    systems, results = report["systems"], report["scales"]
    scales = {scale.name: scale for scale in study.scales if scale.name in results}
    differences = list(dict.fromkeys(name for result in results.values() for name in result["differences"]))
    lines = [f"**{markdown(report['note'])}**", ""] if report.get("note") else []
    lines += [
        f"# {study.title}",
        "",
        _row("scale", *map(markdown, systems + differences)),
        _row("---", *["---"] * len(systems + differences)),
    ]
    for name, scale in scales.items():
        cells = [results[name]["systems"].get(system) for system in systems]
        cells += [results[name]["differences"].get(difference) for difference in differences]
        lines.append(_row(scale.title, *(_cell(cell, scale) for cell in cells)))
    lines += [
        "",
        "95 % intervals, bootstrapped over recordings and raters; for shares of yes, and if all ratings agree, at least as "
        "wide as the number of recordings requires. N/A: not asked for this system.",
        "",
    ]
    lines += [_row("scale", "Krippendorff's alpha", "ratings", "raters"), _row("---", "---", "---", "---")]
    for name, scale in scales.items():
        alpha = results[name]["alpha"]
        raters = max(system["raters"] for system in results[name]["systems"].values())
        cell = "not defined"
        if np.isfinite(alpha["estimate"]):
            has_interval = np.isfinite(alpha["low"])
            cell = _numbers(alpha, 1, "{:.2f}") if has_interval else f"{alpha['estimate']:.2f}, no interval"
        lines.append(_row(scale.title, f"{cell}, {alpha['level']}", results[name]["ratings"], raters))
    lines += [
        "",
        "1 is full agreement, 0 agreement by chance. Alpha is not defined if no item was rated twice, or all ratings are "
        "equal. Its interval is bootstrapped over items; there is none if all resamples have the same alpha.",
    ]
    answered = ", ".join(f"{markdown(rater)} {count}" for rater, count in report["answered"].items())
    lines += [
        "",
        f"{len(report['answered'])} of {report['sheets']} sheets were returned. Answers of each rater, of {report['asked']}: "
        f"{answered}.",
        "",
    ]
    lines += ["![How often each answer was given](ratings.png)", ""]
    return "\n".join(lines)


def _row(*cells) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _cell(result: dict | None, scale) -> str:
    if result is None:
        return "N/A"
    if not np.isfinite(result["estimate"]):
        return "–"
    return _numbers(result, 1, "{:.2f}") if scale.low else f"{_numbers(result, 100, '{:.1f}')} %"


def _numbers(result: dict, factor: float, template: str) -> str:
    estimate, low, high = (template.format(factor * result[name]) for name in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
