"""What the builders of skeleton data sets share: finding files, rows, and the account of what was left out.

A row holds a recording as it was recorded (nothing is resampled, padded or normalised here):

    sample_id     str
    keypoints     List(float32), flat; `shape` gives (T, persons, joints, 3); zeros where a person is absent
    shape         List(int32)
    body_ids      List(int64), as in the file
    layout, fps   name of the joint layout, frames per second
    cleaned       bool, whether `persons` are people, in the order of their motion, or bodies as they were tracked
    label         ClassLabel
    held_out      bool, a training recording that selects checkpoints and settings instead of training
    …             the numbers of the file name

A file that cannot be used is skipped; `preparation.json` beside the prepared data counts what was skipped, and lists
every name with its reason. It lists as well in which recordings there is more than one plain person (`Cleaning`): bodies too
short or too flat, people who were given another id, gaps. Rows hold all bodies; with `clean=True` they hold the people. And it
lists what is doubtful about the whole (`doubts`).
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
# Recordings that are looked at before all are read.
SAMPLE = 40
# Doubts about the joints of fewer recordings than this share are counted in the log, and listed in the report.
MINOR = 0.1
SIMULATED = "Simulated recordings: a program computed them, nobody was recorded."
# What opening and reading a file, or a member of an archive, raises.
UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError, OverflowError)
_SHOWN = 5  # names in a log line; the report has all


class DataFolderError(ValueError):
    """A source folder that holds nothing of the data set; the message says what it holds."""


@dataclass(frozen=True)
class SourceFile:
    """One file of the source folder: `path` relative to it, with "/", and what tells that it changed.

    The path of a member of an archive goes on behind the archive's: `skeletons.zip/S001C001P001R001A001.skeleton`.
    """

    path: str
    size: int
    mtime_ns: int
    problem: str = ""
    """What is wrong with an archive of which no member can be read."""

    @property
    def stem(self) -> str:
        """Name without folders and without its suffix; names of Toyota Smarthome have dots before that."""
        return self.path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def find_files(
    folder: str | os.PathLike, suffix: str | tuple[str, ...], unpacked_by_name: bool = True
) -> list[SourceFile]:
    """Files under a folder, however deep, whose name ends with `suffix` in any case, sorted by path.

    Hidden files are left out: an interrupted program may have left them half written. Members of `.zip` archives
    are taken like files, with `unpacked_by_name` unless a file of that name lies in the folder too.

    Raises:
        DataFolderError: there is no such folder, or no such file in it, at most archives that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataFolderError(f"data_dir {os.fspath(folder)!r} is not a folder")
    found, archives, census, folders = [], [], Counter(), set()
    for base, subfolders, names in os.walk(root, followlinks=True):
        here = os.path.realpath(base)
        if here in folders:  # a link that leads back
            subfolders.clear()
            continue
        folders.add(here)
        for name in names:
            if name.startswith("."):
                continue
            if name.lower().endswith(suffix):
                path = Path(base, name)
                stat = path.stat() if path.exists() else path.lstat()  # a link to nothing cannot be read, later
                found.append(SourceFile(path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns))
            else:
                census[Path(name).suffix.lower() or "no suffix"] += 1
                if name.lower().endswith(".zip"):
                    archives.append(Path(base, name))
    unpacked = {file.path.rsplit("/", 1)[-1] for file in found} if unpacked_by_name else set()
    for archive in archives:
        found += _members(archive, root, suffix, unpacked)
    if not any(not file.problem for file in found):
        if found:
            raise DataFolderError(found[0].problem)
        kinds = ", ".join(f"{count} {kind}" for kind, count in census.most_common(6)) or "nothing"
        inside = ", ".join(sorted(entry.name for entry in os.scandir(root))[:6]) or "nothing"
        raise DataFolderError(
            f"{os.fspath(folder)!r} holds no {_either(suffix)} file in any of its {len(folders)} folders; found {kinds} "
            f"(at the top: {inside})"
        )
    return sorted(found, key=lambda file: file.path)


def _either(suffix: str | tuple[str, ...]) -> str:
    return suffix if isinstance(suffix, str) else " or ".join(suffix)


def _members(archive: Path, root: Path, suffix: str, unpacked: set[str]) -> list[SourceFile]:
    """Those members of an archive that `find_files` would take from a folder, without those that are unpacked."""

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
    astray = [one.filename for one in members if ".." in one.filename.split("/") or one.filename.startswith("/")]
    if astray:
        problem = f"has members that lie outside of it, as {astray[0]!r}"
    if problem:
        return [SourceFile(place, archive.stat().st_size, mtime, f"{place!r} {problem}")]
    return [SourceFile(f"{place}/{member.filename}", member.file_size, mtime) for member in members]


def open_source(folder: str | os.PathLike, path: str) -> BinaryIO:
    """Opens a file that `find_files` has found, in a folder or in an archive.

    Raises:
        OSError, zipfile.BadZipFile, NotImplementedError: it cannot be opened.
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
    except (KeyError, RuntimeError, ValueError, struct.error) as error:  # damaged since it was listed, or in its parts
        raise zipfile.BadZipFile(f"{archive.name}: {shortened(str(error))}") from error
    # Those unpack gigabytes at a time, however little is read of them.
    method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
    raise NotImplementedError(
        f"{archive.name} is compressed with {method}, expected deflate: unpack it, or zip it anew"
    )


@lru_cache(maxsize=8)
def _archive(path: Path, mtime_ns: int, process: int) -> zipfile.ZipFile:
    """An archive stays open: to list its members takes longer than to read one. Processes do not share the place in it."""
    return zipfile.ZipFile(path)


def fingerprint(files: Iterable[SourceFile], read_with: Iterable[Path]) -> str:
    """Changes when a source file is added, removed, resized or touched, or when a file in `read_with` (the code and
    the facts that decide what becomes of them) says something else.

    The cache of `datasets` compares only arguments: without this it would serve old data after either.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path}\0{file.size}\0{file.mtime_ns}\0".encode())
    for path in read_with:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


@dataclass
class SkeletonConfig(datasets.BuilderConfig):
    """What every builder of skeletons can be told.

    Attributes:
        clean: Rows hold people in place of bodies: `Cleaning` with the thresholds below. Gaps stay as they are, zeros.
        num_persons, min_body_frames, max_width_ratio, max_flat_share, max_join_distance: As of `Cleaning`.
        keep: Further columns of the joints, of the builder's `JOINT_EXTRAS`.
        accept_doubts: Read recordings as they are also where that cannot be right: joints in the order of another layout,
            another axis that points up, pixels in place of metres.
        skeletons, modality: Of builders of videos, the folder of the skeletons that go with them, and which camera (`videos`).
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
    """What became of some files of a split, gathered while they are read.

    Attributes:
        split: Name of the split.
        labels: Label → number of recordings.
        skipped: Files that could not be used: `file`, `kind`, `reason`.
        cleaned: Recordings with something to clean: `sample_id`, and as `describe_cleaning`.
        used: Files that became rows, as `UsedFile`.
        symptoms: File → what is odd about its skeleton, where anything is.
        layout: Joint layout of the recordings; empty of videos.
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
        """The rows of those files that can be used."""
        for path in paths:
            try:
                row = builder.row(path)
            except NotInProtocolError as reason:
                self.skipped.append({"file": path, "kind": reason.kind, "reason": reason.detail})
                continue
            except (MemoryError, OverflowError) as error:
                reason = f"{path}: too large to be read ({type(error).__name__}: {error})"
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
        """What looks wrong in the joints of these recordings."""
        return judge(self.symptoms, len(self.used), get_layout(self.layout)) if self.symptoms else []

    def to_json(self) -> str:
        """In one line; `Tally(**json.loads(line))` reads it."""
        return json.dumps(vars(self), ensure_ascii=False)


class SkeletonBuilder(datasets.ArrowBasedBuilder):
    """Base of the builders: a subclass says which files there are, where each belongs, and how one is read.

    `data_dir` is the folder of the raw files, nested in any way, or of their `.zip` archives. The cache follows the files
    and the code that reads them (`fingerprint`), so that no `hash=` need be given.
    """

    SUFFIX: ClassVar[str | tuple[str, ...]]
    """End of the file names, in lower case, or several such ends."""
    UNPACKED_BY_NAME: ClassVar[bool] = True
    """Whether a file that lies in the folder is the member of that name of an archive beside it, wherever that is."""
    FIELDS: ClassVar[tuple[str, ...]]
    """Numbers of the file name that become columns."""
    TITLE: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    CITATION: ClassVar[str]
    LICENSE: ClassVar[str]
    """The terms, in a sentence."""
    JOINT_EXTRAS: ClassVar[tuple[str, ...]] = ()
    """What `keep` can name."""
    METRIC: ClassVar[str] = "top_1"
    """What recognisers are compared by on this data set: `top_1` or `mean_per_class`."""

    def __init__(self, *, data_dir: str | os.PathLike, **kwargs):
        project = __package__.partition(".")[0]
        classes = [one for one in type(self).__mro__ if one.__module__.partition(".")[0] == project]
        readers = (mat_files, size_limits, skeleton_bodies, skeleton_files, skeleton_layouts, skeleton_plausibility)
        code = dict.fromkeys([*(module.__file__ for module in readers), *map(inspect.getfile, classes)])
        read_with = [*map(Path, code), *self.facts(Path(data_dir))]
        if "hash" not in kwargs:
            kwargs["hash"] = fingerprint(self.source_files(data_dir, kwargs.get("skeletons", "")), read_with)
        super().__init__(data_dir=os.fspath(data_dir), **kwargs)

    # -------------------------------------------------------------------------- what a data set has to say

    def facts(self, data_dir: Path) -> list[Path]:
        """Files besides the recordings on which rows depend, and besides the code that all data sets share."""
        raise NotImplementedError

    def class_names(self) -> list[str]:
        """Names in label order."""
        raise NotImplementedError

    def split_names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def source_files(self, data_dir: str | os.PathLike, skeletons: str) -> list[SourceFile]:
        """Every file that rows are made of."""
        return find_files(data_dir, self.SUFFIX, self.UNPACKED_BY_NAME)

    def listed(self) -> list[SourceFile]:
        """The files that `assign` places."""
        return self.source_files(self.config.data_dir, "")

    def absent(self, there: Collection[str]) -> list[dict]:
        """What a table lists beyond the paths that are there, each with `file`, `kind` and `reason`."""
        return []

    def key(self, file: SourceFile) -> str:
        """What `place` is asked about."""
        return file.stem

    def check(self, file: SourceFile) -> None:
        """Raises `NotInProtocolError` for a file that is not one of this config's, whatever its name says."""

    def place(self, name: str) -> tuple[str, Placement | None, dict]:
        """`key` of a file -> sample id, placement (None: none of this config's splits), fields.

        Raises:
            NotInProtocolError: the file is to be skipped; says why.
        """
        raise NotImplementedError

    def read(self, file: BinaryIO) -> SkeletonRecording:
        raise NotImplementedError

    @property
    def terms(self) -> str:
        """The terms of this config's recordings, in a sentence."""
        return self.LICENSE

    def protocol_rule(self) -> str:
        """Who is in which split, in a sentence; empty where a table says it."""
        raise NotImplementedError

    @property
    def is_simulated(self) -> bool:
        """Whether nobody was recorded: a simulator wrote the folder, and says so in it."""
        return Path(self.config.data_dir, SIMULATION_RECORD).exists()

    @property
    def may_be_published(self) -> bool:
        """Whether the terms let anybody pass the recordings on."""
        return False

    def published_counts(self) -> dict[str, int]:
        """Recordings per split as published, for the report; empty where there are none."""
        raise NotImplementedError

    def published_fields(self) -> dict[str, Iterable[int]]:
        """Field of `place` → its values in the published data set, to say of which the folder has no file."""
        return {}

    def published_class_counts(self) -> dict[str, dict[str, int]]:
        """Split, or "all" for all splits together → class → recordings as published; empty where there are none."""
        return {}

    # ------------------------------------------------------------------------------------------- datasets

    def _info(self) -> datasets.DatasetInfo:
        self._check_settings()
        said, rule = SIMULATED if self.is_simulated else f"{self.TITLE}.", self.protocol_rule()
        said += f" Who is in which split: {rule}" if rule else ""
        homepage, citation = ("", "") if self.is_simulated else (self.HOMEPAGE, self.CITATION)
        return datasets.DatasetInfo(
            description=said, features=self._features(), homepage=homepage, citation=citation, license=self.terms
        )

    def _check_settings(self) -> None:
        _ = self.config.cleaning  # names a threshold that cannot be
        unknown = sorted(set(map(str, self.config.keep)) - set(self.JOINT_EXTRAS))
        if unknown:
            raise ValueError(
                f"keep: {self.config.name} has {', '.join(self.JOINT_EXTRAS) or 'nothing to keep'}; got {unknown[0]!r}"
            )
        if self.config.skeletons or self.config.modality:
            raise ValueError(f"skeletons and modality are for videos; {self.config.name} has skeletons")

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
        """Where each file of the folder belongs, by its name alone.

        Returns:
            Paths of each split, sorted; and the files that are left out, each with `file`, `kind` and `reason`.

        Raises:
            DataFolderError: no file belongs to this config; says what there is.
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
            kinds = dict(Counter(entry["kind"] for entry in skipped))
            example = f"; for example {skipped[0]['reason']}" if skipped else ""
            raise DataFolderError(
                f"no {_either(self.SUFFIX)} file under {self.config.data_dir!r} belongs to {self.config.name}: "
                f"{len(skipped)} skipped {kinds}, {elsewhere} of other splits{example}"
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
        """Tables of up to `ROWS_PER_TABLE` rows. Runs in several processes: what is skipped goes through a file."""
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
        """Reads one file of `assign`: the columns, under "cleaning" what `describe_cleaning` says, under "content" a digest
        of what the file holds, of skeletons under "symptoms" what is odd about it (`skeleton_plausibility`).

        Raises:
            NotInProtocolError: the file cannot be used; says why.
        """
        sample_id, placement, fields = self.place(self.key(SourceFile(path, 0, 0)))
        columns = self.recording_columns(path)
        return {"sample_id": sample_id, **columns, "label": placement.label, "held_out": placement.held_out, **fields}

    def recording_features(self) -> dict:
        """Columns that come from the recording itself."""
        return self.skeleton_features()

    def recording_columns(self, path: str) -> dict:
        """Their values, "cleaning" and "content". Raises `NotInProtocolError` for a recording that cannot be used."""
        return self.skeleton_columns(self.config.data_dir, path)

    def skeleton_features(self) -> dict:
        """Columns of a skeleton."""
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
        """Their values, of a file in `folder`, "cleaning", "content" and "symptoms"."""
        try:
            with open_source(folder, path) as opened:
                recording = self.read(opened)
        except SkeletonFileError as error:
            place = path if error.line is None else f"{path}, line {error.line}"
            raise NotInProtocolError(
                "unreadable", f"{place}: found {error.found}, expected {error.expected}"
            ) from error
        except UNREADABLE as error:
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotInProtocolError("unreadable", f"{path}: {problem}") from error
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
            # A person goes by the id that they had first.
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

    def table(self, rows: list[dict]) -> pa.Table:
        """Rows as a table of this config's features."""
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
        for left_over in folder.iterdir():  # of a run that was killed
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
        """What became of the files, in total and by name.

        Args:
            tallies: of those that were read.
            skipped: those that `assign` left out.

        Returns:
            `recordings` of each split, and of each of its `classes`; `published` numbers of both; `skipped`, how many for which
            reason, and `files`, which; `doubts` (see there); `cleaning`, the convention, whether it was applied, and what it
            does to which recordings.
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
            "recordings": {split: found.total() for split, found in labels.items()},
            "classes": {
                split: {name: found[label] for label, name in enumerate(names)} for split, found in labels.items()
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
        """Looks at some recordings before all are read.

        Args:
            paths: As from `assign`.

        Raises:
            DataFolderError: What they hold cannot be right, and `accept_doubts` is not set.
        """
        if self.config.accept_doubts or "keypoints" not in self.info.features:
            return
        every = [path for listed in paths.values() for path in listed]
        step = max(1, -(-len(every) // SAMPLE))
        tally = Tally("sample")
        for _ in tally.rows(self, every[::step]):
            pass
        for doubt in tally.doubts():
            if doubt.stops:
                raise DataFolderError(
                    f"{self.config.data_dir!r}: {doubt.reason}, for example {doubt.files[0]}. "
                    "Set accept_doubts to read them all the same"
                )

    def _doubts_of_numbers(self, paths: list[str]) -> list[dict]:
        """What the published data set has beyond the files that are there."""
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
        """`datasets` cannot load a split without rows: a folder of test subjects only has no `train`."""
        filled = {name: info for name, info in self.info.splits.items() if info.num_examples}
        if not filled:
            _log_skipped(self.config.name, report["files"])
            raise DataFolderError(
                f"no recording under {self.config.data_dir!r} could be read for {self.config.name}; "
                f"for example {shortened(report['files'][0]['reason'], 300)}"
            )
        for name in set(self.info.splits) - set(filled):
            logger.warning("%s: no recording for the split %s", self.config.name, name)
            dict.__delitem__(self.info.splits, name)

    @property
    def report(self) -> dict:
        """The content of `preparation.json`: counts, published counts, and every file that was skipped, with its reason."""
        return json.loads(Path(self.cache_dir, REPORT_NAME).read_text(encoding="utf-8"))

    def log_report(self) -> None:
        """Says how many recordings there are, how many are published, and what was skipped and why, and what is doubtful;
        once in a process, in which every stage of a run may load them."""
        if self.cache_dir in _LOGGED:
            return
        _LOGGED.add(self.cache_dir)
        report = self.report
        counted = ", ".join(f"{count:,} {name}" for name, count in report["recordings"].items())
        published = ", ".join(f"{count:,} {name}" for name, count in report["published"].items())
        logger.info("%s: %s%s", self.config.name, counted, f" (published: {published})" if published else "")
        _log_skipped(self.config.name, report["files"])
        # What concerns a few recordings is in the report.
        some = MINOR * sum(report["recordings"].values())
        minor = [doubt for doubt in report["doubts"] if doubt["kind"] in KINDS and len(doubt["files"]) < some]
        for line in doubt_lines([doubt for doubt in report["doubts"] if doubt not in minor]):
            logger.warning("%s: %s", self.config.name, line)
        if minor:
            kinds = ", ".join(doubt["kind"] for doubt in minor)
            logger.info("%s: a few recordings with %s, listed in %s", self.config.name, kinds, REPORT_NAME)


# Folders of prepared data whose report was logged.
_LOGGED: set[str] = set()


def _log_skipped(config: str, skipped: list[dict]) -> None:
    for kind, count in Counter(entry["kind"] for entry in skipped).most_common():
        reasons = [entry["reason"] for entry in skipped if entry["kind"] == kind]
        more = f" … and {count - _SHOWN:,} more, listed in {REPORT_NAME}" if count > _SHOWN else ""
        logger.warning("%s: skipped %s (%s): %s%s", config, f"{count:,}", kind, "; ".join(reasons[:_SHOWN]), more)
