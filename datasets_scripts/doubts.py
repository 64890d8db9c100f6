"""Doubts about a data set: what to check although all files can be read.

The doubts are: class names that differ only in case, spaces or Unicode form; test classes without a training recording; people
in both train and test; the same recording in two files; published labels that cannot be right; published recordings that are
missing. A doubt is a dict of `kind` (a category to count by), `reason` and `files`. `SkeletonBuilder.account` lists the doubts
of a data set; the log, the report, the card and `prepare` show them as `doubt_lines`.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple

from .names import REPORT_NAME
from .protocols import ranges

_SHOWN = 5  # doubts per category, and files per doubt; the report has all


class UsedFile(NamedTuple):
    """A file that became a row: its path, its part ("held_out", or the split), its label, and a digest of its content."""

    file: str
    part: str
    label: int
    content: str


def doubt_lines(doubts: Iterable[dict]) -> list[str]:
    """One line per category, with the first doubts and the first files of each."""
    lines = []
    for heading, alike in groupby(sorted(doubts, key=lambda doubt: doubt["kind"]), key=lambda doubt: doubt["kind"]):
        texts = []
        for doubt in alike:
            files = ", ".join(doubt["files"][:_SHOWN]) + _more(doubt["files"])
            texts.append(doubt["reason"] + (f" ({files})" if files else ""))
        lines.append(f"{heading}: {'; '.join(texts[:_SHOWN])}{_more(texts)}")
    return lines


def _more(entries: Sequence) -> str:
    return f" … and {len(entries) - _SHOWN:,} more, listed in {REPORT_NAME}" if len(entries) > _SHOWN else ""


def doubts_of_labels(used: Iterable[UsedFile], class_names: Sequence[str]) -> list[dict]:
    """Class names that differ only in case, spaces or Unicode form; classes without a training recording."""
    files, parts, spellings = defaultdict(list), defaultdict(Counter), defaultdict(list)
    for file in used:
        files[file.label].append(file.file)
        parts[file.label][file.part] += 1
    for label, name in enumerate(class_names):
        if label in files:
            spellings[without_form(name)].append(label)
    doubts = []
    for labels in spellings.values():
        if len(labels) > 1:
            names = [class_names[label] for label in labels]
            form, shown = _difference(names)
            counted = ", ".join(f"{shown(class_names[label])} ({len(files[label]):,})" for label in labels)
            most = max(labels, key=lambda label: len(files[label]))
            reason = f"{len(labels)} classes differ only in {form}: {counted}"
            rarer = [file for label in labels if label != most for file in files[label]]
            doubts.append({"kind": "class names", "reason": reason, "files": sorted(rarer)})
    if any(counts["train"] for counts in parts.values()):  # otherwise the config is of unseen classes
        for label, counts in sorted(parts.items()):
            if not counts["train"]:
                tested = ", ".join(f"{part}: {count:,}" for part, count in sorted(counts.items(), reverse=True))
                reason = f"{class_names[label]!r} has no training recording ({tested})"
                doubts.append({"kind": "untrained class", "reason": reason, "files": sorted(files[label])})
    return doubts


def without_form(name: str) -> str:
    """A class name without its case, separators, spaces and Unicode form: "Side-Boxing " → "side boxing". Names that
    agree in it are those of one class."""
    plain = " ".join(re.sub("[_-]", " ", unicodedata.normalize("NFKC", name).casefold()).split())
    return f"{float(plain):g}" if re.fullmatch(r"\d+(\.\d+)?", plain, re.ASCII) else plain


def _difference(names: Sequence[str]) -> tuple[str, Callable[[str], str]]:
    """How names that are equal by `without_form` differ, and a function that writes them so that the difference shows."""
    if len({unicodedata.normalize("NFC", name) for name in names}) == 1:
        return "Unicode form", ascii
    if len({" ".join(name.split()) for name in names}) == 1:
        return "spaces", repr
    if len({name.casefold() for name in names}) == 1:
        return "case", repr
    if len({" ".join(unicodedata.normalize("NFKC", name).casefold().split()) for name in names}) == 1:
        return "case, spaces or Unicode form", ascii
    return "case, separators or the way numbers are written", ascii


def doubts_of_people(people: Iterable[tuple[str, str, str]], column: str) -> list[dict]:
    """People with recordings in both train and test.

    Args:
        people: file, split and person of each recording.
        column: name of the column with the person.
    """
    files = defaultdict(lambda: defaultdict(list))
    for file, split, person in people:
        files[person][split].append(file)
    both = sorted(person for person, splits in files.items() if person and len(splits) > 1)
    if not both:
        return []
    names = ", ".join(both[:_SHOWN]) + _more(both)
    reason = f"{len(both)} of {len(files)} people by the column {column} are in train and in test ({names})"
    tested = sorted(file for person in both for file in files[person]["test"])
    return [{"kind": "same person in two splits", "reason": reason, "files": tested}]


def doubts_of_contents(used: Iterable[UsedFile], class_names: Sequence[str]) -> list[dict]:
    """Recordings that are in more than one file."""
    same = defaultdict(list)
    for file in used:
        same[file.content].append(file)
    doubts = []
    for files in same.values():
        if len(files) > 1:
            parts = sorted({file.part for file in files}, reverse=True)  # train, test, held_out
            labels = sorted({file.label for file in files})
            where = f"in {' and '.join(parts)}" if len(parts) > 1 else f"{len(files)} times in {parts[0]}"
            reason = f"the same recording is {where}"
            if len(labels) > 1:
                reason += f", as {' and '.join(repr(class_names[label]) for label in labels)}"
            heading = "same recording in two splits" if len(parts) > 1 else "same recording twice"
            doubts.append({"kind": heading, "reason": reason, "files": sorted(file.file for file in files)})
    return sorted(doubts, key=lambda doubt: doubt["files"])


def doubts_of_published_labels(used: Iterable[UsedFile], entries: Iterable[dict]) -> list[dict]:
    """Recordings whose published label is known to be doubtful. They keep it, so that results stay comparable.

    Args:
        used: the files that became rows.
        entries: dicts of `recordings`, a regular expression of file names without ending, and the `reason`.
    """
    stems = {file.file: PurePosixPath(file.file).stem for file in used}
    doubts = []
    for entry in entries:
        files = sorted(file for file, stem in stems.items() if re.fullmatch(entry["recordings"], stem, re.IGNORECASE))
        if files:
            doubts.append({"kind": "published label", "reason": entry["reason"], "files": files})
    return doubts


def missing_doubt(present: int, published: int, lacking: dict[str, Collection[int]]) -> dict:
    """The doubt that published recordings are not in the folder.

    Args:
        present: number of files of the data set, readable or not.
        published: number of published recordings.
        lacking: field of the file names → its values without a file.
    """
    reason = f"{published - present:,} of {published:,} published recordings are not in the folder"
    of_fields = [f"{field}{'s' * (len(values) > 1)} {ranges(values)}" for field, values in lacking.items() if values]
    if of_fields:
        reason += f"; no file of {', '.join(of_fields)}"
    return {"kind": "missing", "reason": reason, "files": []}
