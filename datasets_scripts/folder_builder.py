"""Builder for your own recordings: a folder of files, and a table with their labels and splits.

    my_recordings/
        metadata.csv        file_name,label,split[,anything else]
        skeleton.json       {"layout": "kinect20", "fps": 30}
        a.npy, more/b.npz   …

`metadata.csv` has the format of `imagefolder` in `datasets`: one row per recording, with a `file_name` relative to the folder.
`split` is `train`, `test`, or `validation` for training recordings that select checkpoints and settings. A column `sample_id`
names the recordings (default: their file names). For skeletons, a column `fps` overrides the frames per second of a file, and a
column `up` its vertical axis. All other columns are kept. A folder with a JSON file of OpenPose per frame is a recording, too.

Without `metadata.csv`, folders of classes (`class/file`, or `train/class/file` and `test/class/file`) are read as by
`imagefolder`: the folder is the label. Without folders for splits, all recordings are for training.

`skeleton.json` has what all files have in common:

    layout        the joint layout: its name, or a description (below)
    fps           frames per second, for files that do not contain it
    up            the axis that points up, if it is not that of the layout ("z", "-y")
    class_names   the class names in label order (default: sorted)
    license       for the data set card

Without it, files are read as `.skeleton` files of Kinect 2. `read_recording` lists the file formats.

    builder = ActionFolder(config_name="folder", data_dir="my_recordings")

With `keep=("scores",)`, rows have the scores of the joints from a pose estimator, flattened from (T, persons, joints): 0 if a
joint was not seen, and 1 for every other joint of a file without scores.

A layout is described as `{"name": "mine", "joint_names": ["pelvis", "left_hip", …], "parents": [-1, 0, …], "parts": {"trunk":
[0, …], "left_arm": […], …}, "left_right": [[1, 4], …]}`, with the numbers or names of joints. Pelvis, neck, hips and shoulders
are identified by their names, or given.

Videos are listed in the same way, with the config `folder-video` (`videos`). They only need `class_names` of skeleton.json.

`python -m action_llm_datasets.folder my_recordings …` (`folder.py`) writes both files from file names that follow a pattern.
"""

import csv
import json
import os
import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import datasets
import numpy as np

from action_llm import (
    array_files,
    bvh_files,
    c3d_files,
    json_files,
    nw_ucla_files,
    pose_json_files,
    recording_files,
    sbu_files,
    skeleton_layouts,
    smarthome_files,
    upright,
)
from action_llm.class_names import fault_of_class_name
from action_llm.model_files import as_written, shortened
from action_llm.pose_json_files import FRAME_SUFFIX, is_openpose_folder
from action_llm.recording_files import RECORDING_SUFFIXES, read_recording
from action_llm.size_limits import read_file_bounded
from action_llm.skeleton_bodies import valid_joints
from action_llm.skeleton_files import SkeletonFileError, SkeletonRecording
from action_llm.skeleton_layouts import LAYOUTS, get_layout
from action_llm.skeleton_plausibility import RATES, is_possible_rate
from action_llm.upright import turned_upright

from .building import DataFolderError, SkeletonBuilder, SkeletonConfig, SourceFile, Tally, open_source
from .doubts import doubts_of_people
from .names import METADATA, PERSON_COLUMNS, SKELETON, did_you_mean
from .protocols import NotInProtocolError, Placement

_SPLITS = {
    "train": ("train", False),
    "training": ("train", False),
    "test": ("test", False),
    "testing": ("test", False),
    **dict.fromkeys(("validation", "valid", "val", "dev", "held_out"), ("train", True)),
}


_POSSIBLE_RATES = f"from {RATES[0]} to {RATES[1]} frames per second"
# Limits of metadata.csv, which is kept in memory: a few columns for a million recordings.
_MAX_VALUES, _MAX_COLUMNS, MAX_DESCRIPTION_BYTES = 5_000_000, 1000, 1 << 20
# Numbers that are written back in the same way: 007 stays text.
_WHOLE_NUMBER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class _Row(NamedTuple):
    """A recording of metadata.csv or of a class folder; `problem` is the category and the reason if it cannot be used."""

    place: str
    sample_id: str
    label: str
    split: str
    fps: str
    up: str
    is_folder: bool
    extras: dict[str, str]
    problem: tuple[str, str] | None


def _class_folders(paths: Iterable[str]) -> list[dict[str, str]]:
    """Rows for files in folders class/file or split/class/file; none for other folders."""
    parts = [PurePosixPath(path).parts for path in paths]
    depth = len(parts[0]) if parts else 0
    if depth not in (2, 3) or any(len(names) != depth for names in parts) or len({names[-2] for names in parts}) < 2:
        return []
    if any(name.lower().endswith(".zip") for names in parts for name in names[:-1]):
        return []
    if depth == 3 and not {names[0].lower() for names in parts} <= set(_SPLITS):
        return []
    splits = [names[0] if depth == 3 else "train" for names in parts]
    return [
        {"file_name": "/".join(names), "label": names[-2], "split": split}
        for names, split in zip(parts, splits, strict=True)
    ]


def recording_paths(files: Iterable[SourceFile]) -> list[str]:
    """Paths of the recordings among files; frames of OpenPose are a recording together, that of their folder."""
    paths = []
    for file in files:
        folder, _, name = file.path.rpartition("/")
        paths.append(folder if folder and name.lower().endswith(FRAME_SUFFIX) else file.path)
    return list(dict.fromkeys(path for path in paths if path != SKELETON))


def open_recording(folder: str | os.PathLike, path: str) -> AbstractContextManager[Path | BinaryIO]:
    """Opens a file of a folder or an archive (`open_source`); a folder of OpenPose stays a path."""
    return nullcontext(Path(folder, path)) if os.path.isdir(Path(folder, path)) else open_source(folder, path)


def _read_settings(path: Path, defaults: dict) -> dict:
    """The settings of skeleton.json, with no other names than those of `defaults`; raises `DataFolderError` otherwise."""
    content = read_file_bounded(path, MAX_DESCRIPTION_BYTES)
    if content is None:
        raise DataFolderError(f"{path}: expected a layout and a few settings, found more than 1 MiB")
    try:
        settings = json.loads(content.decode("utf-8-sig"))
        json.dumps(settings, ensure_ascii=False).encode()  # fails for a lone surrogate, which is not valid text
    except (ValueError, RecursionError) as error:
        raise DataFolderError(f"{path}: expected JSON: {error}") from error
    unknown = sorted(set(settings) - set(defaults)) if isinstance(settings, dict) else [type(settings).__name__]
    if unknown:
        raise DataFolderError(f"{path}: expected an object with {', '.join(defaults)}, found {as_written(unknown[0])}")
    return settings


class ActionFolder(SkeletonBuilder):
    """Recordings with a metadata.csv. Columns: as in `building`, and the columns of the table."""

    BUILDER_CONFIG_CLASS = SkeletonConfig
    BUILDER_CONFIGS = [SkeletonConfig(name="folder")]
    NAME_PARTS = 0
    SUFFIX = RECORDING_SUFFIXES
    FIELDS = ()
    JOINT_EXTRAS = ("scores",)
    TITLE = "Recordings in a folder"
    HOMEPAGE = CITATION = LICENSE = ""

    def facts(self, data_dir: Path) -> list[Path]:
        readers = (
            array_files, bvh_files, c3d_files, json_files, nw_ucla_files, pose_json_files, recording_files, sbu_files,
            smarthome_files, upright,
        )  # fmt: skip
        code = [Path(module.__file__) for module in (*readers, skeleton_layouts)]
        return [*code, *(path for name in (METADATA, SKELETON) if (path := data_dir / name).is_file())]

    @cached_property
    def _common(self) -> dict:
        """The settings of skeleton.json, checked.

        `layout` is for `get_layout`, `says_fps` is whether the file has `fps`, and `up` and `class_names` may be None.
        """
        path = Path(self.config.data_dir, SKELETON)
        defaults = {"layout": "kinect25", "fps": 30.0, "up": None, "class_names": None, "license": ""}
        given = _read_settings(path, defaults) if path.is_file() else {}
        common = defaults | given
        if not isinstance(common["layout"], str | dict):
            raise DataFolderError(
                f"{path}: layout: expected a name or a description, found {as_written(common['layout'])}"
            )
        try:
            skeleton = get_layout(common["layout"])
        except ValueError as error:
            raise DataFolderError(f"{path}: layout: {error}") from error
        try:
            turned_upright(np.zeros(3), common["up"], skeleton)
        except ValueError as error:
            raise DataFolderError(f"{path}: {error}") from error
        fps, names = common["fps"], common["class_names"]
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < float("inf"):
            raise DataFolderError(f"{path}: fps: expected a positive number, found {as_written(fps)}")
        if not is_possible_rate(fps):
            raise DataFolderError(f"{path}: fps: expected {_POSSIBLE_RATES}, found {as_written(fps)}")
        if names is not None and not (
            isinstance(names, list) and names and all(isinstance(n, str) and n.strip() for n in names)
            and len(set(names)) == len(names)
        ):  # fmt: skip
            raise DataFolderError(f"{path}: class_names: expected distinct names, found {as_written(names)}")
        for place, name in enumerate(names or (), start=1):
            if fault := fault_of_class_name(name):
                raise DataFolderError(f"{path}: class_names, entry {place}: the label {name!r} {fault}")
        # The description of an unknown layout goes with each recording.
        known = LAYOUTS.get(skeleton.name) == skeleton
        layout = skeleton.name if known else json.dumps(skeleton.to_dict(), separators=(",", ":"))
        common |= {"layout": layout, "fps": float(fps), "license": str(common["license"])}
        return common | {"says_fps": "fps" in given}

    @cached_property
    def _rows(self) -> dict[str, _Row]:
        """Path of a recording → its row, in metadata.csv or by the folder of its class."""
        path = Path(self.config.data_dir, METADATA)
        if path.is_file():
            return self._read_table(path)
        files = self.source_files(self.config.data_dir, "")
        entries = _class_folders(recording_paths(file for file in files if file.path.lower().endswith(self.SUFFIX)))
        if not entries:
            command = f"`python -m action_llm_datasets.folder {shlex.quote(self.config.data_dir)} --pattern …`"
            raise DataFolderError(
                f"{self.config.data_dir!r} has neither {METADATA} (columns file_name, label, split) nor a folder for each "
                f"class; {command} writes the table from file names that follow a pattern"
            )
        rows: dict[str, _Row] = {}
        for entry in entries:
            self._add_row(rows, entry["file_name"], entry)
        return rows

    def _read_table(self, path: Path) -> dict[str, _Row]:
        rows: dict[str, _Row] = {}
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                self._check_columns(columns, f"{path}, line 1")
                for entry in reader:
                    if (len(rows) + 1) * len(columns) > _MAX_VALUES:
                        raise DataFolderError(
                            f"{path}, line {reader.line_num}: expected a table of at most {_MAX_VALUES:,} values: split the "
                            "folder, or leave columns out"
                        )
                    self._add_row(rows, f"{METADATA}, line {reader.line_num}", entry)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataFolderError(f"{path}: expected a CSV table in UTF-8: {error}") from error
        if not rows:
            raise DataFolderError(f"{path}: expected a row per recording, found none")
        return rows

    def _check_columns(self, columns: Sequence[str], place: str) -> None:
        """Raises `DataFolderError` if metadata.csv lacks a column, or has an invalid column name."""
        if len(columns) > _MAX_COLUMNS:
            raise DataFolderError(f"{place}: {len(columns):,} columns, expected at most {_MAX_COLUMNS}")
        if unprintable := next((name for name in columns if not name.isprintable()), None):
            raise DataFolderError(f"{place}: a column name has control characters: {as_written(unprintable)}")
        reserved = {*self.recording_features(), "cleaning", "held_out"} - {"fps"}
        problems = [f"no column {name!r}" for name in ("file_name", "label", "split") if name not in columns]
        problems += [
            f"the column name {name!r} is repeated or reserved"
            for name in columns
            if name in reserved or columns.count(name) > 1
        ]
        if problems:
            raise DataFolderError(f"{place}: {problems[0]}; found {shortened(', '.join(columns)) or 'nothing'}")

    def _add_row(self, rows: dict[str, _Row], place: str, entry: dict) -> None:
        surplus = entry.pop(None, None)
        values = {name: (value or "").strip() for name, value in entry.items()}
        name, label, split = (values.pop(column) for column in ("file_name", "label", "split"))
        fps, up = values.get("fps", ""), values.get("up", "")
        if "fps" in self.recording_features():  # videos have a rate, and keep these as ordinary columns
            values = {column: value for column, value in values.items() if column not in ("fps", "up")}
        if "\\" in name and not os.path.exists(Path(self.config.data_dir, name)):  # as Windows writes paths
            name = name.replace("\\", "/")
        line = place.removeprefix(f"{METADATA}, ")
        name = Path(name).as_posix() if name else f"({line})"
        is_folder = os.path.isdir(Path(self.config.data_dir, name))
        sample_id = values.pop("sample_id", "") or (name if is_folder else str(Path(name).with_suffix("")))
        problem = None
        if surplus:
            problem = ("metadata", f"{place}: {len(surplus)} more values than columns")
        elif not label:
            problem = ("label", f"{place}: {name} has no label")
        elif split.lower() not in _SPLITS:
            problem = ("split", f"{place}: expected the split train, test or validation, found {split!r}")
        elif fault := fault_of_class_name(label):
            problem = ("label", f"{place}: the label {label!r} {fault}")
        if name in rows:
            first = rows[name].place.removeprefix(f"{METADATA}, ")
            problem = ("duplicate", f"{place}: {name} is already in {first}")
            name = f"{name} ({line})"
        rows[name] = _Row(place, sample_id, label, split.lower(), fps, up, is_folder, values, problem)

    def class_names(self) -> list[str]:
        if self._common["class_names"] is not None:
            return self._common["class_names"]
        labels = {row.label for row in self._rows.values() if row.problem is None}
        if not labels:
            raise DataFolderError(f"{self.config.data_dir!r} has no recording with a label and a split")
        # Numbers are sorted as numbers.
        return sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels)

    def key(self, file: SourceFile) -> str:
        return file.path

    def place(self, name: str) -> tuple[str, Placement, dict]:
        row = self._rows.get(name)
        if row is None:
            raise NotInProtocolError("not in the table", f"{name} has no row in {METADATA}")
        if row.problem is not None:
            raise NotInProtocolError(*row.problem)
        if row.label not in self._labels:
            near = did_you_mean(row.label, self._labels)
            reason = f"{row.place}: the label {row.label!r} is not among class_names of {SKELETON}{near}"
            raise NotInProtocolError("label", reason)
        split, held_out = _SPLITS[row.split]
        extras = {name: convert(row.extras[name]) for name, (convert, _) in self._extras.items()}
        return row.sample_id, Placement(split, self._labels[row.label], held_out), extras

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.class_names())}

    @cached_property
    def _extras(self) -> dict[str, tuple[type, str]]:
        """Additional column of the table → its type in Python and in `datasets`."""
        rows = [row for row in self._rows.values() if row.problem is None]
        names = rows[0].extras if rows else {}
        types = {}
        for name in names:
            values = [row.extras[name] for row in rows]
            if all(_WHOLE_NUMBER.fullmatch(value) and abs(int(value)) < 2**63 for value in values):
                types[name] = (int, "int64")
            # A float holds the digits of up to 16 characters.
            elif all(_NUMBER.fullmatch(value) and len(value) <= 16 for value in values):
                types[name] = (float, "float64")
            else:
                types[name] = (str, "string")
        return types

    def _features(self) -> datasets.Features:
        columns = super()._features() | {name: datasets.Value(dtype) for name, (_, dtype) in self._extras.items()}
        # A model trained on these recordings reads new files with the same axis up.
        if "fps" in columns and (self._common["up"] or any(row.up for row in self._rows.values())):
            columns["up"] = datasets.Value("string")
        return datasets.Features(columns)

    def listed(self) -> list[SourceFile]:
        # If a folder has a row, its files belong to that row.
        folders = {name for name, row in self._rows.items() if row.is_folder}
        files = [
            file
            for file in super().listed()
            if file.path in self._rows
            or not (file.path == SKELETON or folders.intersection(map(str, PurePosixPath(file.path).parents)))
        ]
        recordings = [name for name in folders if is_openpose_folder(Path(self.config.data_dir, name))]
        return sorted([*files, *(SourceFile(name, 0, 0) for name in recordings)], key=lambda file: file.path)

    def absent(self, there: Collection[str]) -> list[dict]:
        skipped = []
        for name, row in self._rows.items():
            if name not in there:
                problem = row.problem or ("missing file", f"{row.place}: {self._why_absent(name)}")
                skipped.append({"file": name, "kind": problem[0], "reason": problem[1]})
        return skipped

    def _why_absent(self, name: str) -> str:
        path = Path(self.config.data_dir, name)
        if path.is_file():
            return f"{self.config.name} reads {', '.join(self.SUFFIX)}, not {name}"
        if not path.is_dir():
            return f"there is no {name}"
        return f"{name} is a folder: expected a file, or a folder with a JSON file of OpenPose per frame"

    def recording_columns(self, path: str) -> dict:
        columns = super().recording_columns(path)
        fps = self.frame_rate(path, 0.0)
        if fps:
            symptoms = {name: value for name, value in columns["symptoms"].items() if name != "frame rate"}
            columns |= {"fps": fps, "symptoms": symptoms}
        return columns | {"up": self._rows[path].up or self._common["up"]}

    def frame_rate(self, path: str, otherwise: float) -> float:
        """Frames per second of a recording, from the column `fps`.

        Args:
            path: of the recording.
            otherwise: returned if the column is empty or missing.

        Raises:
            NotInProtocolError: if the column has anything but a possible frame rate.
        """
        row = self._rows[path]
        fps = float(row.fps) if _NUMBER.fullmatch(row.fps) else 0.0
        if row.fps and not 0 < fps < float("inf"):
            reason = f"{row.place}: fps: expected a positive number, found {as_written(row.fps)}"
            raise NotInProtocolError("fps", reason)
        if row.fps and not is_possible_rate(fps):
            reason = f"{row.place}: fps: expected {_POSSIBLE_RATES}, found {as_written(row.fps)}"
            raise NotInProtocolError("fps", reason)
        return fps or otherwise

    def read_file(self, folder: str | os.PathLike, path: str) -> SkeletonRecording:
        row, skeleton = self._rows[path], get_layout(self._common["layout"])
        try:
            turned_upright(np.zeros(3), row.up or None, skeleton)
        except ValueError as error:
            raise NotInProtocolError("up", f"{row.place}: {error}") from error
        with open_recording(folder, path) as opened:
            recording = read_recording(
                opened,
                layout=self._common["layout"],
                fps=self._common["fps"] if self._common["says_fps"] else None,
                up=row.up or self._common["up"],
            )
        # These files have no frame rate; readers assume that of their data set.
        if self._common["says_fps"] and recording.source.lower().endswith((".json", ".mat", sbu_files.FILE_NAME)):
            recording.fps = self._common["fps"]
        if recording.layout != skeleton.name:  # many files say their layout
            expected = f'{skeleton.name}, or "layout": "{recording.layout}" in {SKELETON}'
            raise SkeletonFileError(recording.source, None, f"the layout {recording.layout}", expected)
        recording.layout = self._common["layout"]
        if "scores" in self.config.keep and recording.scores is None:
            recording.scores = valid_joints(recording.keypoints, recording.present).astype(np.float32)
        return recording

    def account(self, tallies: list[Tally], skipped: list[dict]) -> dict:
        report = super().account(tallies, skipped)
        used = [self._rows[file.file] for tally in tallies for file in tally.used]
        if used and {row.split for row in used} == {"train"} and not Path(self.config.data_dir, METADATA).is_file():
            reason = f"all recordings are for training: put some in a folder test, or write {METADATA}"
            report["doubts"].append({"kind": "no test recordings", "reason": reason, "files": []})
        column = next((name for name in PERSON_COLUMNS if used and name in used[0].extras), None)
        if column is not None:
            people = [(row.sample_id, _SPLITS[row.split][0], row.extras[column]) for row in used]
            report["doubts"] += doubts_of_people(people, column)
        return report

    def published_counts(self) -> dict[str, int]:
        return {}

    def protocol_rule(self) -> str:
        return ""

    @property
    def terms(self) -> str:
        return self._common["license"]

    @property
    def may_be_published(self) -> bool:
        """True: the people who made the recordings decide."""
        return True
