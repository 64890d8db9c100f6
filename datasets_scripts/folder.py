"""Builder of people's own recordings: a folder of files, and a table that says what is in them.

    my_recordings/
        metadata.csv        file_name,label,split[,anything else]
        skeleton.json       {"layout": "kinect20", "fps": 30}
        a.npy, more/b.npz   …

`metadata.csv` is as `imagefolder` of `datasets` has it: a row a recording, `file_name` relative to the folder. `split` is
`train`, `test`, or `validation` for training recordings that select settings. A column `sample_id` names the recordings
(otherwise their file names do); all other columns are kept. `skeleton.json` says what all files have in common: the joint
layout, by its name or described (below); frames per second; if labels are to be in an order of their own, `class_names`;
and, for the page, the `license`. Without it, files are `.skeleton` files of Kinect 2. Which files are read: `read_recording`.

    builder = ActionFolder(config_name="folder", data_dir="my_recordings")

A layout of one's own: `{"name": "mine", "joint_names": ["pelvis", "left_hip", …], "parents": [-1, 0, …], "parts": {"trunk":
[0, …], "left_arm": […], …}, "left_right": [[1, 4], …]}`, joints by their numbers; pelvis, neck, hips and shoulders are found by
name, or given.

Videos are listed in the same way; their config is `folder-video` (`videos`), and of skeleton.json they need `class_names` only.

`python -m action_llm_datasets.folder my_recordings …` writes both files from names that follow a pattern.
"""

import argparse
import csv
import io
import json
import os
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import datasets

from action_llm import array_files, recording_files, skeleton_layouts
from action_llm.recording_files import RECORDING_SUFFIXES, read_recording
from action_llm.skeleton_files import SkeletonFileError, SkeletonRecording
from action_llm.skeleton_layouts import LAYOUTS, get_layout
from action_llm.video_files import VIDEO_SUFFIXES

from .atomic_files import write_atomically
from .building import DataFolderError, SkeletonBuilder, SkeletonConfig, SourceFile, find_files
from .protocols import NotInProtocolError, Placement

METADATA, SKELETON = "metadata.csv", "skeleton.json"
_SPLITS = {
    "train": ("train", False),
    "training": ("train", False),
    "test": ("test", False),
    "testing": ("test", False),
    **dict.fromkeys(("validation", "valid", "val", "dev", "held_out"), ("train", True)),
}


_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class _Row(NamedTuple):
    """A line of metadata.csv; `problem` says why it cannot be used."""

    line: int
    sample_id: str
    label: str
    split: str
    extras: dict[str, str]
    problem: tuple[str, str] | None


class ActionFolder(SkeletonBuilder):
    """Recordings with a metadata.csv; columns in `building`, plus those of the table."""

    BUILDER_CONFIG_CLASS = SkeletonConfig
    BUILDER_CONFIGS = [SkeletonConfig(name="folder")]
    UNPACKED_BY_NAME = False
    SUFFIX = tuple(suffix for suffix in RECORDING_SUFFIXES if suffix != ".json")
    FIELDS = ()
    TITLE = "Recordings in a folder"
    HOMEPAGE = CITATION = LICENSE = ""

    def facts(self, data_dir: Path) -> list[Path]:
        code = [Path(module.__file__) for module in (array_files, recording_files, skeleton_layouts)]
        return [*code, *(path for name in (METADATA, SKELETON) if (path := data_dir / name).is_file())]

    @cached_property
    def _common(self) -> dict:
        """skeleton.json, checked: `layout` as `get_layout` reads it, `fps`, `class_names` or None."""
        path = Path(self.config.data_dir, SKELETON)
        common = {"layout": "kinect25", "fps": 30.0, "class_names": None, "license": ""}
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise DataFolderError(f"{path}: expected JSON: {error}") from error
            unknown = sorted(set(found) - set(common)) if isinstance(found, dict) else [type(found).__name__]
            if unknown:
                raise DataFolderError(f"{path}: found {unknown[0]!r}, expected an object with {', '.join(common)}")
            common |= found
        try:
            skeleton = get_layout(common["layout"])
        except (ValueError, AttributeError, TypeError) as error:
            raise DataFolderError(f"{path}: layout: {error}") from error
        fps, names = common["fps"], common["class_names"]
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < float("inf"):
            raise DataFolderError(f"{path}: fps: expected a positive number, found {fps!r}")
        if names is not None and not (
            isinstance(names, list) and names and all(isinstance(n, str) and n.strip() for n in names)
            and len(set(names)) == len(names)
        ):  # fmt: skip
            raise DataFolderError(f"{path}: class_names: expected distinct names, found {names!r}")
        # A layout that has no name here goes with each recording.
        known = LAYOUTS.get(skeleton.name) == skeleton
        layout = skeleton.name if known else json.dumps(skeleton.to_dict(), separators=(",", ":"))
        return {"layout": layout, "fps": float(fps), "class_names": names, "license": str(common["license"])}

    @cached_property
    def _rows(self) -> dict[str, _Row]:
        """File name in metadata.csv → its row."""
        path = Path(self.config.data_dir, METADATA)
        if not path.is_file():
            raise DataFolderError(
                f"{self.config.data_dir!r} has no {METADATA} (columns file_name, label, split); "
                "python -m action_llm_datasets.folder writes one from names that follow a pattern"
            )
        rows: dict[str, _Row] = {}
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                missing = [name for name in ("file_name", "label", "split") if name not in columns]
                own = {*self.recording_features(), "cleaning", "held_out"}
                taken = [name for name in columns if name in own or columns.count(name) > 1]
                if missing or taken:
                    problem = f"no column {missing[0]!r}" if missing else f"a column {taken[0]!r} that has another use"
                    raise DataFolderError(f"{path}, line 1: {problem}; found {', '.join(columns) or 'nothing'}")
                for entry in reader:
                    self._add_row(rows, reader.line_num, entry)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataFolderError(f"{path}: expected a CSV table in UTF-8: {error}") from error
        if not rows:
            raise DataFolderError(f"{path} has no row")
        return rows

    def _add_row(self, rows: dict[str, _Row], line: int, entry: dict) -> None:
        surplus = entry.pop(None, None)
        values = {name: (value or "").strip() for name, value in entry.items()}
        name, label, split = (values.pop(column) for column in ("file_name", "label", "split"))
        name = Path(name).as_posix() if name else f"(line {line})"
        sample_id = values.pop("sample_id", "") or str(Path(name).with_suffix(""))
        problem, place = None, f"{METADATA}, line {line}"
        if surplus:
            problem = ("metadata", f"{place}: {len(surplus)} values more than columns")
        elif not label:
            problem = ("label", f"{place}: {name} has no label")
        elif split.lower() not in _SPLITS:
            problem = ("split", f"{place}: found the split {split!r}, expected train, test or validation")
        if name in rows:
            problem = ("duplicate", f"{place}: {name} stands in line {rows[name].line} already")
            name = f"{name} (line {line})"
        rows[name] = _Row(line, sample_id, label, split.lower(), values, problem)

    def class_names(self) -> list[str]:
        found = {row.label for row in self._rows.values() if row.problem is None}
        if self._common["class_names"] is not None:
            return self._common["class_names"]
        if not found:
            raise DataFolderError(f"{Path(self.config.data_dir, METADATA)} has no row with a label and a split")
        # Labels that are numbers in the order of numbers.
        return sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)

    def split_names(self) -> tuple[str, ...]:
        return ("train", "test")

    def key(self, file: SourceFile) -> str:
        return file.path

    def place(self, name: str) -> tuple[str, Placement, dict]:
        row = self._rows.get(name)
        if row is None:
            raise NotInProtocolError("not in the table", f"{name} has no row in {METADATA}")
        if row.problem is not None:
            raise NotInProtocolError(*row.problem)
        if row.label not in self._labels:
            raise NotInProtocolError(
                "label", f"{METADATA}, line {row.line}: the label {row.label!r} is not among class_names of {SKELETON}"
            )
        split, held_out = _SPLITS[row.split]
        extras = {name: convert(row.extras[name]) for name, (convert, _) in self._extras.items()}
        return row.sample_id, Placement(split, self._labels[row.label], held_out), extras

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.class_names())}

    @cached_property
    def _extras(self) -> dict[str, tuple[type, str]]:
        """Other columns of the table → what they are: whole numbers, numbers, or text."""
        rows = [row for row in self._rows.values() if row.problem is None]
        names = rows[0].extras if rows else {}
        kinds = {}
        for name in names:
            values = [row.extras[name] for row in rows]
            # Only what comes out as it went in: 007 is a name.
            whole = all(
                value.lstrip("-").isdecimal() and value.isascii() and str(int(value)) == value for value in values
            )
            if whole and all(abs(int(value)) < 2**63 for value in values):
                kinds[name] = (int, "int64")
            elif all(
                _NUMBER.fullmatch(value) and len(value) <= 16 for value in values
            ):  # digits that a float can hold
                kinds[name] = (float, "float64")
            else:
                kinds[name] = (str, "string")
        return kinds

    def _features(self) -> datasets.Features:
        extras = {name: datasets.Value(dtype) for name, (_, dtype) in self._extras.items()}
        return datasets.Features({**super()._features(), **extras})

    def assign(self) -> tuple[dict[str, list[str]], list[dict]]:
        paths, skipped = super().assign()
        there = {path for listed in paths.values() for path in listed} | {entry["file"] for entry in skipped}
        for name, row in self._rows.items():
            if name not in there:
                found = f"there is no {name}"
                if Path(self.config.data_dir, name).is_dir():
                    found = f"{name} is a folder, expected a file"
                if Path(self.config.data_dir, name).is_file():
                    found = f"{name} is none of {', '.join(self.SUFFIX)}, which {self.config.name} is for"
                kind, reason = row.problem or ("missing file", f"{METADATA}, line {row.line}: {found}")
                skipped.append({"file": name, "kind": kind, "reason": reason})
        return paths, skipped

    def read(self, file: BinaryIO) -> SkeletonRecording:
        recording = read_recording(file, layout=self._common["layout"], fps=self._common["fps"])
        skeleton = get_layout(self._common["layout"])
        if recording.layout != skeleton.name:  # UTD-MHAD's files have a layout of their own
            raise SkeletonFileError(
                recording.source, None, f"the layout {recording.layout}", f"{skeleton.name}, as in {SKELETON}"
            )
        recording.layout = self._common["layout"]
        return recording

    def published_counts(self) -> dict[str, int]:
        return {}

    def protocol_rule(self) -> str:
        return ""

    @property
    def terms(self) -> str:
        return self._common["license"]

    @property
    def may_be_published(self) -> bool:
        """Whoever made the recordings decides."""
        return True


def write_metadata(
    folder: str | os.PathLike, pattern: str, test: dict[str, set[str]], validation: dict[str, set[str]],
    class_names: list[str] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Writes metadata.csv for files, skeletons or videos, whose names say what is in them.

    Args:
        folder: of the recordings, nested in any way.
        pattern: regular expression of a whole file name, with the named group `label`, and groups for whatever else becomes
            a column; a group `sample_id` names the recording.
        test, validation: of a group, the values whose recordings are for the test, or for selecting.
        class_names: where labels are numbers from 1, the names in their order.

    Returns:
        Number of files of each split, with "left out" for those whose names do not match.

    Raises:
        ValueError: the pattern, or a group of `test` or `validation`, is none; or a label has no name.
        DataFolderError: no file matches.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from error
    for group in ("label", *test, *validation):
        if group not in compiled.groupindex:
            raise ValueError(f"pattern {pattern!r} has no group (?P<{group}>…); it has {list(compiled.groupindex)}")
    counts, lines, examples = Counter(), [], []
    for file in find_files(folder, (*ActionFolder.SUFFIX, *VIDEO_SUFFIXES)):
        match = compiled.fullmatch(file.path.rsplit("/", 1)[-1])
        if match is None or not match["label"]:
            counts["left out"] += 1
            examples.append(file.path)
            continue
        values = match.groupdict(default="")
        split = "test" if _any_of(values, test) else "validation" if _any_of(values, validation) else "train"
        counts[split] += 1
        label = values.pop("label")
        if class_names is not None:
            if not (label.isdecimal() and 1 <= int(label) <= len(class_names)):
                raise ValueError(f"{file.path}: the label {label!r} is not a number from 1 to {len(class_names)}")
            label = class_names[int(label) - 1]
        lines.append({"file_name": file.path, "label": label, "split": split, **values})
    for group, accepted in (*test.items(), *validation.items()):
        unmet = sorted(accepted - {line.get(group, line["label"]) for line in lines})
        if lines and unmet and group != "label":
            there = sorted({line[group] for line in lines})
            raise ValueError(f"{group} {unmet[0]!r} is in no file name; there are {', '.join(map(repr, there[:20]))}")
    if not lines:
        raise DataFolderError(f"no file name under {os.fspath(folder)!r} matches {pattern!r}; there is {examples[0]}")
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(Path(folder, METADATA), text.getvalue())
    return dict(counts)


def _any_of(values: dict[str, str], chosen: dict[str, set[str]]) -> bool:
    return any(values[group] in accepted for group, accepted in chosen.items())


def _choices(arguments: list[str]) -> dict[str, set[str]]:
    """`["subject=2,4"]` → `{"subject": {"2", "4"}}`."""
    chosen = {}
    for argument in arguments:
        group, equals, values = argument.partition("=")
        if not equals or not values:
            raise ValueError(f"expected GROUP=VALUE,VALUE, found {argument!r}")
        chosen[group] = set(values.split(","))
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m action_llm_datasets.folder",
        description="Write metadata.csv and skeleton.json for recordings whose file names say what is in them.",
        epilog="example: my_recordings --pattern 'a(?P<label>\\d+)_s(?P<subject>\\d+)_.*' --test subject=2,4 --layout kinect20",
    )
    parser.add_argument("folder", help="folder of the recordings")
    parser.add_argument(
        "--pattern", required=True, help="regular expression of file names, with groups (?P<label>…) and more"
    )
    parser.add_argument("--test", nargs="+", default=[], metavar="GROUP=VALUES", help="recordings for the test")
    parser.add_argument(
        "--validation", nargs="+", default=[], metavar="GROUP=VALUES", help="training recordings that select"
    )
    parser.add_argument("--class_names", help="file with a class name a line, where labels are numbers from 1")
    parser.add_argument(
        "--layout", default="kinect25", help="joint layout: its name, or a JSON file that describes it"
    )
    parser.add_argument("--fps", type=float, default=30.0, help="frames per second")
    parser.add_argument("--overwrite", action="store_true", help="replace the tables that are there")
    arguments = parser.parse_args()
    try:
        there = [name for name in (METADATA, SKELETON) if Path(arguments.folder, name).exists()]
        if there and not arguments.overwrite:
            raise ValueError(
                f"{arguments.folder} has a {' and a '.join(there)} already: say --overwrite to replace them"
            )
        if not 0 < arguments.fps < float("inf"):
            raise ValueError(f"--fps: expected a positive number, got {arguments.fps}")
        names = None
        if arguments.class_names is not None:
            lines = Path(arguments.class_names).read_text(encoding="utf-8").splitlines()
            names = [line.strip() for line in lines if line.strip()]
        layout = arguments.layout
        if layout.endswith(".json"):
            layout = json.loads(Path(layout).read_text(encoding="utf-8"))
        get_layout(layout)
        counts = write_metadata(
            arguments.folder, arguments.pattern, _choices(arguments.test), _choices(arguments.validation), names
        )
        common = {"layout": layout, "fps": arguments.fps} | ({} if names is None else {"class_names": names})
        write_atomically(Path(arguments.folder, SKELETON), json.dumps(common, indent=1) + "\n")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(", ".join(f"{count} {split}" for split, count in counts.items()))


if __name__ == "__main__":
    main()
