"""The base of all data set builders: finding source files, making rows, and recording what was left out.

A row holds a recording as it was recorded. Nothing is resampled, padded or normalised.

    sample_id     str
    keypoints     List(float32), flattened from (T, persons, joints, 3); zeros where a person is absent
    shape         List(int32), the shape of `keypoints`
    body_ids      List(int64), the tracking ids of the file
    layout, fps   name of the joint layout; frames per second
    cleaned       bool: True if `persons` are people, those who move most first; False if they are bodies as they were tracked
    label         ClassLabel
    held_out      bool: True for a training recording that selects checkpoints and settings
    …             the numbers of the file name

A file that cannot be used is skipped. `preparation.json` beside the prepared data counts the skipped files and gives the reason
for each. It also lists the recordings that cleaning changes (`Cleaning`: bodies that are too short or too flat, people who were
given a new id, gaps), and what to check about the data set as a whole (`doubts`). Rows hold all tracked bodies, or people with
`clean=True`.
"""

import hashlib
import inspect
import json
import logging
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO, ClassVar

import datasets
import numpy as np
import pyarrow as pa
from datasets.builder import Key

from action_llm import mat_files, size_limits, skeleton_bodies, skeleton_files, skeleton_layouts, skeleton_plausibility
from action_llm.model_files import shortened
from action_llm.skeleton_bodies import Cleaning, count_cleaning, describe_cleaning, select_actors, valid_joints
from action_llm.skeleton_files import SkeletonFileError, SkeletonRecording
from action_llm.skeleton_layouts import get_layout
from action_llm.skeleton_plausibility import KINDS, Doubt, find_symptoms, judge

from .atomic_files import write_atomically
from .doubts import UsedFile, doubt_lines, doubts_of_contents, doubts_of_labels, missing_doubt
from .names import REPORT_NAME, SIMULATION_RECORD
from .protocols import NotInProtocolError, Placement

logger = logging.getLogger(__name__)

ROWS_PER_TABLE = 64
# Number of recordings that are checked before all are read.
SAMPLE = 40
# Doubts about the joints of less than this share of the recordings are only counted in the log; the report lists them.
MINOR = 0.1
SIMULATED = "Simulated recordings: a program computed them, nobody was recorded."
# Errors of opening and reading a file, or a member of an archive.
UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError, OverflowError)
_SHOWN = 5  # reasons in a log line; the report has all


class DataFolderError(ValueError):
    """A source folder without usable recordings of the data set; the message says what the folder holds."""


@dataclass(frozen=True)
class SourceFile:
    """A file of the source folder: its `path` relative to the folder, with "/", and its size and time of change.

    The path of an archive member starts with the path of the archive: `skeletons.zip/S001C001P001R001A001.skeleton`.
    """

    path: str
    size: int
    mtime_ns: int
    problem: str = ""
    """What is wrong with an archive, if no member of it can be read."""

    @property
    def stem(self) -> str:
        """Name without folders and suffix. Names of Toyota Smarthome have further dots."""
        return self.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def find_files(
    folder: str | os.PathLike, suffix: str | tuple[str, ...], unpacked_by_name: bool = True
) -> list[SourceFile]:
    """All files below a folder whose name ends with `suffix`, in upper or lower case, sorted by path.

    Hidden files are left out, because an interrupted program may have left them half written. Members of `.zip` archives count
    as files.

    Args:
        folder: to search, with all folders below it.
        suffix: end of the file names, in lower case, or several such ends.
        unpacked_by_name: leave out a member of an archive if a file of its name is anywhere in the folder.

    Raises:
        DataFolderError: if there is no such folder, or no readable file with the suffix in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataFolderError(f"data_dir {os.fspath(folder)!r} is not a folder")
    files, archives, other_suffixes, folders = [], [], Counter(), set()
    for base, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(base)
        if real in folders:  # a link to a folder that was searched already
            subfolders.clear()
            continue
        folders.add(real)
        for name in names:
            if name.startswith("."):
                continue
            if name.lower().endswith(suffix):
                path = Path(base, name)
                stat = path.stat() if path.exists() else path.lstat()  # reading a broken link fails later
                files.append(SourceFile(path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns))
            else:
                other_suffixes[Path(name).suffix.lower() or "no suffix"] += 1
                if name.lower().endswith(".zip"):
                    archives.append(Path(base, name))
    unpacked = {file.path.rsplit("/", 1)[-1] for file in files} if unpacked_by_name else set()
    for archive in archives:
        files += _members(archive, root, suffix, unpacked)
    if all(file.problem for file in files):
        if files:
            raise DataFolderError(files[0].problem)
        counts = ", ".join(f"{count} {other}" for other, count in other_suffixes.most_common(6)) or "nothing"
        top = ", ".join(sorted(entry.name for entry in os.scandir(root))[:6]) or "nothing"
        raise DataFolderError(
            f"{os.fspath(folder)!r} holds no {_either(suffix)} file in any of its {len(folders)} folders; found {counts} "
            f"(at the top: {top})"
        )
    return sorted(files, key=lambda file: file.path)


def _either(suffix: str | tuple[str, ...]) -> str:
    return suffix if isinstance(suffix, str) else " or ".join(suffix)


def _members(archive: Path, root: Path, suffix: str, unpacked: set[str]) -> list[SourceFile]:
    """The members of an archive that `find_files` lists, without those whose name is in `unpacked`."""

    def is_wanted(member: zipfile.ZipInfo) -> bool:
        name = member.filename.rsplit("/", 1)[-1]
        return name.lower().endswith(suffix) and not name.startswith(".") and name not in unpacked

    place, mtime = archive.relative_to(root).as_posix(), archive.stat().st_mtime_ns
    problem, members = "", []
    try:
        with zipfile.ZipFile(archive) as content:
            members = list(filter(is_wanted, content.infolist()))
    except (ValueError, struct.error, *UNREADABLE) as error:
        problem = f"cannot be read: {shortened(str(error))}"
    if any(member.flag_bits & 1 for member in members):
        problem = "is encrypted: unpack it with its password"
    names = [member.filename for member in members]
    outside = [name for name in names if ".." in name.split("/") or name.startswith("/")]
    if outside:
        problem = f"has members with paths outside of the archive, such as {outside[0]!r}"
    if problem:
        return [SourceFile(place, archive.stat().st_size, mtime, f"{place!r} {problem}")]
    return [SourceFile(f"{place}/{member.filename}", member.file_size, mtime) for member in members]


def open_source(folder: str | os.PathLike, path: str) -> BinaryIO:
    """Opens a file that `find_files` lists, in a folder or in an archive.

    Raises:
        OSError, zipfile.BadZipFile, NotImplementedError: if the file cannot be opened.
    """
    for archive in Path(folder, path).parents:
        if archive.is_file():
            return _open_member(archive, path[len(archive.relative_to(folder).as_posix()) + 1 :])
    return Path(folder, path).open("rb")


def _open_member(archive: Path, name: str) -> BinaryIO:
    try:
        content = _archive(archive, archive.stat().st_mtime_ns, os.getpid())
        member = content.getinfo(name)
        if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return content.open(member)
    except (KeyError, RuntimeError, ValueError, struct.error) as error:  # the archive is damaged, or has changed
        raise zipfile.BadZipFile(f"{archive.name}: {shortened(str(error))}") from error
    # Other methods unpack gigabytes at a time, even if little is read.
    method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
    raise NotImplementedError(
        f"{archive.name}: expected compression with deflate, found {method}: unpack the archive, or compress it again"
    )


@lru_cache(maxsize=8)
def _archive(path: Path, mtime_ns: int, process: int) -> zipfile.ZipFile:
    """An open archive. It stays open because listing its members takes longer than reading a member.

    `process` is part of the cache key, so that processes do not share a file position.
    """
    return zipfile.ZipFile(path)


def fingerprint(files: Iterable[SourceFile], read_with: Iterable[Path]) -> str:
    """A hash that changes when a source file is added, removed, resized or touched, or when a file of `read_with` changes: the
    code and the facts that decide what rows hold.

    The cache of `datasets` compares only arguments. Without this hash it would return old data after such a change.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path}\0{file.size}\0{file.mtime_ns}\0".encode())
    for path in read_with:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


@dataclass
class SkeletonConfig(datasets.BuilderConfig):
    """The settings of all builders.

    Attributes:
        clean: Rows hold people instead of tracked bodies, by `Cleaning` with the thresholds below. Gaps stay zeros.
        num_persons, min_body_frames, max_width_ratio, max_flat_share, max_join_distance: As in `Cleaning`.
        keep: Additional columns of the joints, out of the builder's `JOINT_EXTRAS`.
        accept_doubts: Also read recordings that cannot be right: joints in the order of another layout, another axis that
            points up, pixels instead of metres.
        skeletons, modality: For builders of videos: the folder of the matching skeletons, and the camera (`videos`).
    """

    version: str = "1.0.0"
    clean: bool = False
    num_persons: int = Cleaning.num_persons
    min_body_frames: int = Cleaning.min_body_frames
    max_width_ratio: float = Cleaning.max_width_ratio
    max_flat_share: float = Cleaning.max_flat_share
    max_join_distance: float = Cleaning.max_join_distance
    keep: tuple[str, ...] = ()
    accept_doubts: bool = False
    skeletons: str = ""
    modality: str = ""

    @property
    def cleaning(self) -> Cleaning:
        thresholds = (self.min_body_frames, self.max_width_ratio, self.max_flat_share, self.max_join_distance)
        return Cleaning(True, self.num_persons, *thresholds)


class Tally:
    """Counts and records of the files of a split, collected while they are read.

    Attributes:
        split: Name of the split.
        labels: Label → number of recordings.
        skipped: Files that could not be used, each with `file`, `kind` and `reason`.
        cleaned: Recordings that cleaning changes: `sample_id`, and the keys of `describe_cleaning`.
        used: Files that became rows.
        symptoms: File → what is implausible about its skeleton, for files with symptoms.
        layout: Joint layout of the recordings; empty for videos.
    """

    def __init__(
        self,
        split: str,
        labels: dict | None = None,
        skipped: Iterable = (),
        cleaned: Iterable = (),
        used: Iterable = (),
        symptoms: dict | None = None,
        layout: str = "",
    ):
        self.split, self.skipped, self.cleaned = split, list(skipped), list(cleaned)
        self.used = [UsedFile(*file) for file in used]
        self.symptoms, self.layout = dict(symptoms or {}), layout
        self.labels = Counter({int(label): count for label, count in (labels or {}).items()})

    def rows(self, builder: "SkeletonBuilder", paths: Iterable[str]) -> Iterator[dict]:
        """The rows of all usable files."""
        for path in paths:
            try:
                row = builder.row(path)
            except NotInProtocolError as reason:
                self.skipped.append({"file": path, "kind": reason.kind, "reason": reason.detail})
                continue
            except (MemoryError, OverflowError) as error:
                reason = f"{path}: too large to read ({type(error).__name__}: {error})"
                self.skipped.append({"file": path, "kind": "unreadable", "reason": reason})
                continue
            self.labels[row["label"]] += 1
            part = "held_out" if row["held_out"] else self.split
            self.used.append(UsedFile(path, part, row["label"], row["content"]))
            self.layout = row.get("layout", "")
            if row.get("symptoms"):
                self.symptoms[path] = row["symptoms"]
            if row.get("cleaning"):
                self.cleaned.append({"sample_id": row["sample_id"], **row["cleaning"]})
            yield row

    def doubts(self) -> list[Doubt]:
        """What is implausible about the joints of these recordings."""
        return judge(self.symptoms, len(self.used), get_layout(self.layout)) if self.symptoms else []

    def to_json(self) -> str:
        """One line of JSON, which `Tally(**json.loads(line))` reads."""
        return json.dumps(vars(self), ensure_ascii=False)


class SkeletonBuilder(datasets.ArrowBasedBuilder):
    """Base class of the builders. A subclass defines which files belong to the data set, their splits, and how to read them.

    `data_dir` is the folder of the raw files, in any folder structure, or of their `.zip` archives. The cache is renewed when
    the files or the code that reads them change (`fingerprint`), so `hash=` need not be given.
    """

    SUFFIX: ClassVar[str | tuple[str, ...]]
    """End of the file names, in lower case, or several such ends."""
    UNPACKED_BY_NAME: ClassVar[bool] = True
    """Whether a file in the folder and an archive member of the same name are the same recording, whatever their folders."""
    FIELDS: ClassVar[tuple[str, ...]]
    """The numbers of the file name, which become columns."""
    TITLE: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    CITATION: ClassVar[str]
    LICENSE: ClassVar[str]
    """The terms of use, in a sentence."""
    JOINT_EXTRAS: ClassVar[tuple[str, ...]] = ()
    """Columns that `keep` can add."""
    METRIC: ClassVar[str] = "top_1"
    """The metric by which models are compared on this data set: `top_1` or `mean_per_class`."""

    def __init__(self, *, data_dir: str | os.PathLike, **kwargs):
        project = __package__.partition(".")[0]
        classes = [base for base in type(self).__mro__ if base.__module__.partition(".")[0] == project]
        readers = (mat_files, size_limits, skeleton_bodies, skeleton_files, skeleton_layouts, skeleton_plausibility)
        code = dict.fromkeys([*(module.__file__ for module in readers), *map(inspect.getfile, classes)])
        read_with = [*map(Path, code), *self.facts(Path(data_dir))]
        if "hash" not in kwargs:
            kwargs["hash"] = fingerprint(self.source_files(data_dir, kwargs.get("skeletons", "")), read_with)
        super().__init__(data_dir=os.fspath(data_dir), **kwargs)

    # -------------------------------------------------------------------------- defined by each data set

    def facts(self, data_dir: Path) -> list[Path]:
        """Files on which rows depend, other than the recordings and the code that all data sets share."""
        raise NotImplementedError

    def class_names(self) -> list[str]:
        """Class names in label order."""
        raise NotImplementedError

    def split_names(self) -> tuple[str, ...]:
        """Names of the splits."""
        return ("train", "test")

    def source_files(self, data_dir: str | os.PathLike, skeletons: str) -> list[SourceFile]:
        """All files that rows are made from."""
        return find_files(data_dir, self.SUFFIX, self.UNPACKED_BY_NAME)

    def listed(self) -> list[SourceFile]:
        """The files that `assign` places."""
        return self.source_files(self.config.data_dir, "")

    def absent(self, there: Collection[str]) -> list[dict]:
        """Listed recordings that are not among the paths `there`, each with `file`, `kind` and `reason`."""
        return []

    def key(self, file: SourceFile) -> str:
        """The name of a file that `place` takes."""
        return file.stem

    def check(self, file: SourceFile) -> None:
        """Raises `NotInProtocolError` if the file does not belong to this config, whatever its name."""

    def place(self, name: str) -> tuple[str, Placement | None, dict]:
        """Sample id, placement and fields of the file with this `key`; the placement is None if no split of the config has it.

        Raises:
            NotInProtocolError: if the file is to be skipped; gives the reason.
        """
        raise NotImplementedError

    def read(self, file: BinaryIO) -> SkeletonRecording:
        raise NotImplementedError

    @property
    def terms(self) -> str:
        """The terms of use of this config's recordings, in a sentence."""
        return self.LICENSE

    def protocol_rule(self) -> str:
        """Which recordings are in which split, in a sentence; empty if a table decides it."""
        raise NotImplementedError

    @property
    def is_simulated(self) -> bool:
        """Whether a simulator wrote the folder."""
        return Path(self.config.data_dir, SIMULATION_RECORD).exists()

    @property
    def may_be_published(self) -> bool:
        """Whether the terms allow redistribution."""
        return False

    def published_counts(self) -> dict[str, int]:
        """Published number of recordings of each split, for the report; empty if unknown."""
        raise NotImplementedError

    def published_fields(self) -> dict[str, Iterable[int]]:
        """Field of `place` → its values in the published data set, so that missing values can be reported."""
        return {}

    def published_class_counts(self) -> dict[str, dict[str, int]]:
        """Split (or "all" for all splits together) → class → published number of recordings; empty if unknown."""
        return {}

    # ------------------------------------------------------------------------------------------- datasets

    def _info(self) -> datasets.DatasetInfo:
        self._check_settings()
        description, rule = SIMULATED if self.is_simulated else f"{self.TITLE}.", self.protocol_rule()
        description += f" Splits: {rule}" if rule else ""
        homepage, citation = ("", "") if self.is_simulated else (self.HOMEPAGE, self.CITATION)
        return datasets.DatasetInfo(
            description=description,
            features=self._features(),
            homepage=homepage,
            citation=citation,
            license=self.terms,
        )

    def _check_settings(self) -> None:
        _ = self.config.cleaning  # raises an error if a threshold is out of range
        unknown = sorted(set(map(str, self.config.keep)) - set(self.JOINT_EXTRAS))
        if unknown:
            raise ValueError(
                f"keep: {self.config.name} has {', '.join(self.JOINT_EXTRAS) or 'nothing to keep'}; got {unknown[0]!r}"
            )
        if self.config.skeletons or self.config.modality:
            raise ValueError(f"skeletons and modality are settings for videos; {self.config.name} has skeletons")

    def _features(self) -> datasets.Features:
        return datasets.Features(
            {
                "sample_id": datasets.Value("string"),
                **self.recording_features(),
                "label": datasets.ClassLabel(names=self.class_names()),
                "held_out": datasets.Value("bool"),
                **{field: datasets.Value("int32") for field in self.FIELDS},
            }
        )

    def assign(self) -> tuple[dict[str, list[str]], list[dict]]:
        """Assigns each file of the folder to a split by its name; no file is opened.

        Returns:
            Sorted paths of each split; and the files that are left out, each with `file`, `kind` and `reason`.

        Raises:
            DataFolderError: if no file belongs to this config; says what the folder holds.
        """
        paths: dict[str, list[str]] = {name: [] for name in self.split_names()}
        first: dict[str, str] = {}
        files = self.listed()
        skipped = self.absent({file.path for file in files})
        elsewhere = 0
        for file in files:
            try:
                if file.problem:
                    raise NotInProtocolError("unreadable", file.problem)
                self.check(file)
                sample_id, placement, _ = self.place(self.key(file))
                if sample_id in first:
                    raise NotInProtocolError("duplicate", f"{file.path} has the same name as {first[sample_id]}")
            except NotInProtocolError as reason:
                skipped.append({"file": file.path, "kind": reason.kind, "reason": reason.detail})
                continue
            first[sample_id] = file.path
            if placement is None:
                elsewhere += 1
            else:
                paths[placement.split].append(file.path)
        if not any(paths.values()):
            counts = dict(Counter(entry["kind"] for entry in skipped))
            example = f"; for example {skipped[0]['reason']}" if skipped else ""
            raise DataFolderError(
                f"no {_either(self.SUFFIX)} file under {self.config.data_dir!r} belongs to {self.config.name}: "
                f"{len(skipped)} skipped {counts}, {elsewhere} of other splits{example}"
            )
        return paths, skipped

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        paths, self._skipped = self.assign()
        self.check_sample(paths)
        if dl_manager.is_streaming:
            _log_skipped(self.config.name, self._skipped)
        report_into = None if dl_manager.is_streaming else self._output_dir
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"report_into": report_into, "split": split, "paths": listed}
            )
            for split, listed in paths.items()
        ]

    def _generate_tables(
        self, report_into: str | None, split: str, paths: list[str]
    ) -> Iterator[tuple[Key, pa.Table]]:
        """Tables of up to `ROWS_PER_TABLE` rows. This runs in several processes, which pass on their tallies in files."""
        tally = Tally(split)
        rows = tally.rows(self, paths)
        for number, batch in enumerate(iter(lambda: list(islice(rows, ROWS_PER_TABLE)), [])):
            yield Key(0, number), self.table(batch)
        if report_into is not None:
            with open(Path(report_into, f"tally-{split}-{os.getpid()}.jsonl"), "a", encoding="utf-8") as file:
                file.write(tally.to_json() + "\n")
        elif tally.skipped:
            _log_skipped(self.config.name, tally.skipped)

    def row(self, path: str) -> dict:
        """Reads a file of `assign`.

        Returns:
            The columns; the result of `describe_cleaning` as "cleaning"; a digest of the content as "content"; and for
            skeletons, what is implausible as "symptoms" (`skeleton_plausibility`).

        Raises:
            NotInProtocolError: if the file cannot be used; gives the reason.
        """
        sample_id, placement, fields = self.place(self.key(SourceFile(path, 0, 0)))
        columns = self.recording_columns(path)
        return {"sample_id": sample_id, **columns, "label": placement.label, "held_out": placement.held_out, **fields}

    def recording_features(self) -> dict:
        """Features of the columns that are read from the file."""
        return self.skeleton_features()

    def recording_columns(self, path: str) -> dict:
        """The values of these columns, and the further entries of `row`; raises `NotInProtocolError` if it cannot be used."""
        return self.skeleton_columns(self.config.data_dir, path)

    def skeleton_features(self) -> dict:
        """Features of the columns of a skeleton."""
        return {
            "keypoints": datasets.List(datasets.Value("float32")),
            "shape": datasets.List(datasets.Value("int32")),
            "body_ids": datasets.List(datasets.Value("int64")),
            "layout": datasets.Value("string"),
            "fps": datasets.Value("float32"),
            "cleaned": datasets.Value("bool"),
            **{
                name: datasets.List(datasets.Value("int8" if name == "tracking_state" else "float32"))
                for name in self.config.keep
            },
        }

    def skeleton_columns(self, folder: str | os.PathLike, path: str) -> dict:
        """The values of these columns for a file in `folder`, with "cleaning", "content" and "symptoms"."""
        recording = self._read_skeleton(folder, path)
        valid = valid_joints(recording.keypoints, recording.present)
        if not valid.any():
            frames = len(recording.present)
            raise NotInProtocolError("no body", f"{path}: no body in any of {frames} frames")
        content = hashlib.blake2b(repr(recording.keypoints.shape).encode(), digest_size=12)
        content.update(np.ascontiguousarray(recording.keypoints))
        actors, fates = select_actors(recording.keypoints, valid, self.config.cleaning)
        arrays = {name: getattr(recording, name) for name in ("keypoints", *self.config.keep)}
        body_ids = recording.body_ids
        if self.config.clean:
            frame, absent = np.arange(len(actors))[:, None], actors < 0
            for name, bodies in arrays.items():
                arrays[name] = bodies[frame, actors]
                arrays[name][absent] = 0
            # A person keeps the first of their ids.
            body_ids = body_ids[[person[person >= 0][0] for person in actors.T]]
        return {
            **{name: array.reshape(-1) for name, array in arrays.items()},
            "shape": arrays["keypoints"].shape,
            "body_ids": body_ids,
            "layout": recording.layout,
            "fps": recording.fps,
            "cleaned": self.config.clean,
            "cleaning": describe_cleaning(actors, fates, recording.body_ids, valid.any(-1)),
            "content": content.hexdigest(),
            "symptoms": recording.symptoms
            | find_symptoms(recording.keypoints, valid, get_layout(recording.layout), recording.fps),
        }

    def _read_skeleton(self, folder: str | os.PathLike, path: str) -> SkeletonRecording:
        """Reads a file of a skeleton; raises `NotInProtocolError` if that fails."""
        try:
            with open_source(folder, path) as opened:
                return self.read(opened)
        except SkeletonFileError as error:
            place = path if error.line is None else f"{path}, line {error.line}"
            raise NotInProtocolError(
                "unreadable", f"{place}: found {error.actual}, expected {error.expected}"
            ) from error
        except UNREADABLE as error:
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotInProtocolError("unreadable", f"{path}: {problem}") from error

    def table(self, rows: list[dict]) -> pa.Table:
        """Rows as a table with this config's features."""
        schema = self.info.features.arrow_schema
        columns = []
        for field in schema:
            values = [row[field.name] for row in rows]
            if pa.types.is_list(field.type):
                flat = np.concatenate([np.asarray(value) for value in values])
                offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])])
                flat = pa.array(flat, type=field.type.value_type, from_pandas=False)
                columns.append(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, type=field.type))
            else:
                columns.append(pa.array(values, type=field.type))
        return pa.Table.from_arrays(columns, schema=schema)

    def _download_and_prepare(self, dl_manager, verification_mode, **prepare_split_kwargs) -> None:
        folder = Path(self._output_dir)
        for left_over in folder.iterdir():  # from a run that was killed
            left_over.unlink()
        super()._download_and_prepare(dl_manager, verification_mode, **prepare_split_kwargs)
        tallies = []
        for part in sorted(folder.glob("tally-*.jsonl")):
            tallies += [Tally(**json.loads(line)) for line in part.read_text(encoding="utf-8").splitlines()]
            part.unlink()
        report = self.account(tallies, self._skipped)
        self._drop_empty_splits(report)
        write_atomically(folder / REPORT_NAME, json.dumps(report, indent=1, ensure_ascii=False) + "\n")

    def account(self, tallies: list[Tally], skipped: list[dict]) -> dict:
        """The record of a prepared config: counts, skipped files, doubts and cleaning.

        Args:
            tallies: of the files that were read.
            skipped: files that `assign` left out.

        Returns:
            `recordings` of each split and `classes` of each split; `published` and `published_classes`, the published counts;
            `skipped`, the number of files by category; `files`, the skipped files with their reasons; `doubts`; and
            `cleaning`: its thresholds (`convention`), whether it was applied, and the recordings that it changes.
        """
        names, labels = self.class_names(), {split: Counter() for split in self.split_names()}
        unread = [entry for tally in tallies for entry in tally.skipped]
        used = sorted(file for tally in tallies for file in tally.used)
        symptoms = {file: odd for tally in tallies for file, odd in tally.symptoms.items()}
        joined = Tally(
            "all", used=used, symptoms=symptoms, layout=max((tally.layout for tally in tallies), default="")
        )
        skipped, cleaned = list(skipped), []
        for tally in tallies:
            labels[tally.split].update(tally.labels)
            skipped += tally.skipped
            cleaned += tally.cleaned
        return {
            "config": self.config.name,
            "recordings": {split: counts.total() for split, counts in labels.items()},
            "classes": {
                split: {name: counts[label] for label, name in enumerate(names)} for split, counts in labels.items()
            },
            "published": self.published_counts(),
            "published_classes": self.published_class_counts(),
            "skipped": dict(Counter(entry["kind"] for entry in skipped)),
            "files": sorted(skipped, key=lambda entry: entry["file"]),
            "doubts": [
                *doubts_of_labels(used, names),
                *doubts_of_contents(used, names),
                *(
                    {"kind": doubt.kind, "reason": doubt.reason, "files": sorted(doubt.files)}
                    for doubt in joined.doubts()
                ),
                *self._doubts_of_numbers([file.file for file in used] + [entry["file"] for entry in unread]),
            ],
            "cleaning": {
                "applied": self.config.clean,
                "convention": asdict(self.config.cleaning),
                "counts": count_cleaning(cleaned),
                "recordings": sorted(cleaned, key=lambda entry: entry["sample_id"]),
            },
        }

    def check_sample(self, paths: dict[str, list[str]]) -> None:
        """Checks a sample of the recordings before all are read.

        Args:
            paths: the paths that `assign` returns.

        Raises:
            DataFolderError: if their joints cannot be right, and `accept_doubts` is not set.
        """
        if self.config.accept_doubts or "keypoints" not in self.info.features:
            return
        listed = [path for split in paths.values() for path in split]
        step = max(1, -(-len(listed) // SAMPLE))
        tally = Tally("sample")
        for _ in tally.rows(self, listed[::step]):
            pass
        for doubt in tally.doubts():
            if doubt.stops:
                raise DataFolderError(
                    f"{self.config.data_dir!r}: {doubt.reason}, for example {doubt.files[0]}. "
                    "Set accept_doubts to read the recordings anyway"
                )

    def _doubts_of_numbers(self, paths: list[str]) -> list[dict]:
        """The doubt that recordings of the published data set are missing; empty if none are."""
        published = sum(self.published_counts().values())
        if len(paths) >= published:
            return []
        fields = [self.place(self.key(SourceFile(path, 0, 0)))[2] for path in paths]
        lacking = {
            name: set(values) - {present[name] for present in fields}
            for name, values in self.published_fields().items()
        }
        return [missing_doubt(len(paths), published, lacking)]

    def _drop_empty_splits(self, report: dict) -> None:
        """Removes splits without rows, which `datasets` cannot load: a folder with test subjects only has no `train`."""
        filled = {name: info for name, info in self.info.splits.items() if info.num_examples}
        if not filled:
            _log_skipped(self.config.name, report["files"])
            raise DataFolderError(
                f"no recording under {self.config.data_dir!r} could be read for {self.config.name}; "
                f"for example {shortened(report['files'][0]['reason'], 300)}"
            )
        for name in set(self.info.splits) - set(filled):
            logger.warning("%s: the split %s has no recording", self.config.name, name)
            dict.__delitem__(self.info.splits, name)

    @property
    def report(self) -> dict:
        """The content of `preparation.json` (see `account`)."""
        return json.loads(Path(self.cache_dir, REPORT_NAME).read_text(encoding="utf-8"))

    def log_report(self) -> None:
        """Logs the counts of recordings, published recordings and skipped files, and the doubts.

        A process logs them once, also if several stages of a run load the same data.
        """
        if self.cache_dir in _LOGGED:
            return
        _LOGGED.add(self.cache_dir)
        report = self.report
        counted = ", ".join(f"{count:,} {name}" for name, count in report["recordings"].items())
        published = ", ".join(f"{count:,} {name}" for name, count in report["published"].items())
        logger.info("%s: %s%s", self.config.name, counted, f" (published: {published})" if published else "")
        _log_skipped(self.config.name, report["files"])
        few = MINOR * sum(report["recordings"].values())
        minor = [doubt for doubt in report["doubts"] if doubt["kind"] in KINDS and len(doubt["files"]) < few]
        for line in doubt_lines([doubt for doubt in report["doubts"] if doubt not in minor]):
            logger.warning("%s: %s", self.config.name, line)
        if minor:
            categories = ", ".join(doubt["kind"] for doubt in minor)
            logger.info("%s: a few recordings with %s, listed in %s", self.config.name, categories, REPORT_NAME)


# Folders of prepared data whose report this process has logged.
_LOGGED: set[str] = set()


def _log_skipped(config: str, skipped: list[dict]) -> None:
    for category, count in Counter(entry["kind"] for entry in skipped).most_common():
        reasons = [entry["reason"] for entry in skipped if entry["kind"] == category]
        more = f" … and {count - _SHOWN:,} more, listed in {REPORT_NAME}" if count > _SHOWN else ""
        logger.warning("%s: skipped %s (%s): %s%s", config, f"{count:,}", category, "; ".join(reasons[:_SHOWN]), more)
