"""Tables of the actions in long videos, with a row for every action.

    file_name,start,end,label
    P001_V001.mp4,3.9333,7.1667,clapping
    P001_V001.mp4,10.2,12.7333,kicking something

`start` and `end` are seconds from the beginning of the video. Rows may be in any order, and the actions of a video must not
overlap. The time between rows has no action. Other columns are ignored.
"""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from .atomic_files import write_atomically

TIMELINE = "timeline.csv"
COLUMNS = ("file_name", "start", "end", "label")


class TimelineError(ValueError):
    """The table is not a valid timeline; the message names the file and the line."""


class Segment(NamedTuple):
    """One action of a long video: from `start` to before `end`, in seconds."""

    start: float
    end: float
    label: str


def read_timeline(path: str | os.PathLike) -> dict[str, list[Segment]]:
    """File name of every video with an action → its actions, ordered by time.

    Raises:
        TimelineError: if a column is missing, a row is not an action (an empty cell, a time that is not a number or is
            negative, an end that is not after the start), or two actions of a video overlap.
        OSError: if the file cannot be read.
    """
    videos: dict[str, list[tuple[Segment, int]]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            missing = [name for name in COLUMNS if name not in columns]
            if missing:
                names = ", ".join(columns) or "nothing"
                raise TimelineError(f"{path}, line 1: no column {missing[0]!r}; found {names}")
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                name, segment = _read_row(row, place)
                videos.setdefault(name, []).append((segment, reader.line_num))
    except (UnicodeDecodeError, csv.Error) as error:
        raise TimelineError(f"{path}: expected a CSV table in UTF-8: {error}") from error
    for name, entries in videos.items():
        entries.sort()
        for (before, first), (after, second) in pairwise(entries):
            if after.start < before.end:
                raise TimelineError(
                    f"{path}, line {second}: expected actions that do not overlap, but {after.label!r} of {name} starts at "
                    f"{after.start} s, before {before.label!r} of line {first} ends at {before.end} s"
                )
    return {name: [segment for segment, _ in entries] for name, entries in videos.items()}


def _read_row(row: dict, place: str) -> tuple[str, Segment]:
    if None in row:
        raise TimelineError(f"{place}: {len(row[None])} more values than columns")
    cells = {column: (row[column] or "").strip() for column in COLUMNS}
    for column in ("file_name", "label"):
        if not cells[column]:
            raise TimelineError(f"{place}: {column} is empty")
    times = {}
    for column in ("start", "end"):
        try:
            times[column] = float(cells[column])
        except ValueError:
            times[column] = math.nan
        if not math.isfinite(times[column]):
            raise TimelineError(f"{place}: {column}: expected a number of seconds, found {cells[column]!r}")
    start, end = times["start"], times["end"]
    if start < 0:
        raise TimelineError(f"{place}: start: expected at least 0 seconds, found {start}")
    if end <= start:
        raise TimelineError(f"{place}: end: expected a time after the start at {start} s, found {end}")
    return cells["file_name"], Segment(start, end, cells["label"])


def write_timeline(path: str | os.PathLike, timeline: Mapping[str, Iterable[Segment]]) -> None:
    """Writes a table for `read_timeline`, whole or not at all. A video without actions has no row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((name, *segment) for name, segments in timeline.items() for segment in segments)
    write_atomically(path, text.getvalue())
