"""
Evidence of who trained on what: each stage leaves hashes of its training, held-out and test recordings beside its record, and
later stages and evaluations compare them.

A record has a fingerprint of each of these sets (`split_evidence`). The hashes themselves, 8 bytes a recording, are in
`split_evidence.json`, by fingerprint, with those of all stages before: a set that several stages share is kept once. That file
stays where it is, as names of recordings can be guessed from their hashes; `hub/push.py` does not publish it.
"""

import base64
import binascii
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from action_llm.model_files import ModelFileError, as_written, read_json_object
from action_llm_datasets.atomic_files import write_atomically
from action_llm_recipes.common.records import RECORD, read_written
from action_llm_recipes.common.stage_records import check_held_out, training_stages

logger = logging.getLogger(__name__)

SPLIT_EVIDENCE = "split_evidence.json"
# Beside the weights of a recogniser: a line for each time that the test split of a data set was evaluated with it.
TEST_EVALUATIONS = "test_evaluations.jsonl"
# What `hub/push.py` leaves where it is.
LOCAL_FILES = (SPLIT_EVIDENCE, TEST_EVALUATIONS)
# Of a sentence that `encode_windows.py` wrote, behind the name of its video.
WINDOW = re.compile(r"@[\d.e+-]+s$")
# What a stage trains itself is not a stage before it.
ACTION_MODEL, LANGUAGE_MODEL = "action model", "language model"


@dataclass(frozen=True)
class RecordingSet:
    """Recordings, whatever their order and however many versions there are of each.

    Attributes:
        hashes: uint64 (N,), sorted, of the names.
        names: (N,) in the same order.
    """

    hashes: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, dataset: str, sample_ids: Iterable[str]) -> "RecordingSet":
        """
        Args:
            dataset: the protocol. A recording has the same hash under all protocols of a data set, as a skeleton or as a video.
            sample_ids: names that are unique within the data set.
        """
        family = re.match("[a-z]*", dataset)[0]
        names = sorted(set(map(str, sample_ids)))
        hashes = np.array([_digest(f"{family}\0{name}".encode()) for name in names], ">u8").astype(np.uint64)
        order = hashes.argsort()
        return cls(hashes[order], [names[index] for index in order])

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.hashes)


def _digest(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest())


def fingerprint_of(hashes: np.ndarray) -> str:
    """Tells one set of recordings from another: 16 hexadecimal digits."""
    return f"{_digest(hashes.astype('>u8').tobytes()):016x}"


class SplitEvidence:
    """
    The recordings of a stage, and what it knows of those of the stages before.

    Args:
        dataset: the protocol of the recordings.
        parts: "training", "held_out" or "test" → `sample_id`s.
        folders: models, features or sentences that the stage reads, in which earlier stages left their evidence.
        held_out_subjects: those that were chosen in place of the data set's own, as `without_names` gives them.

    Raises:
        ModelFileError: the evidence in a folder is damaged.
    """

    def __init__(
        self,
        dataset: str,
        parts: Mapping[str, Iterable[str]],
        folders: Iterable[str | os.PathLike] = (),
        held_out_subjects: list[str] | None = None,
    ):
        self.parts = {part: RecordingSet.of(dataset, sample_ids) for part, sample_ids in parts.items()}
        self.held_out_subjects = held_out_subjects
        self.known: dict[str, np.ndarray] = {}
        for folder in folders:
            self.known |= _read_sets(Path(folder, SPLIT_EVIDENCE))
        self.known |= {recordings.fingerprint: recordings.hashes for recordings in self.parts.values()}

    @classmethod
    def of_data(cls, data, splits, folders=(), *, hold_out: bool = True) -> "SplitEvidence":
        """
        The evidence of a stage that reads recordings, or features of them.

        Args:
            data (`DataArguments`): of the stage.
            splits: what it loads.
            folders: as of the class, beside that of the data.
            hold_out: whether the held-out recordings are left out of training; a stage that trains nothing goes by the marks.
        """
        parts = _parts_of(splits, hold_out, is_windows=False)
        return cls(data.protocol(), parts, (data.data_dir, *folders), data.chosen_subjects())

    @classmethod
    def of_sentences(cls, folder: str, splits, folders=(), *, hold_out: bool) -> "SplitEvidence":
        """The evidence of a stage that reads the sentences in a folder; arguments as of `of_data`."""
        record = _sentences_record(folder)
        parts = _parts_of(splits, hold_out, _is_windows(record))
        subjects = (record.get("split_evidence") or {}).get("held_out_subjects")
        return cls(record["dataset"], parts, (folder, *folders), subjects)

    def describe(self) -> dict:
        """What a record says: how many recordings each part has, and its fingerprint."""
        parts = {
            part: {"recordings": len(recordings.names), "fingerprint": recordings.fingerprint}
            for part, recordings in self.parts.items()
        }
        return parts | ({"held_out_subjects": self.held_out_subjects} if self.held_out_subjects else {})

    def save(self, folder: Path):
        """Writes all known sets into a folder, beside its record."""
        sets = {
            fingerprint: base64.b64encode(hashes.astype(">u8").tobytes()).decode()
            for fingerprint, hashes in sorted(self.known.items())
        }
        write_atomically(folder / SPLIT_EVIDENCE, json.dumps(sets, indent=0) + "\n")

    def refuse(self, part: str, before: dict, *, untrained: tuple[str, ...] = ()):
        """
        Makes sure that no stage has seen recordings that are evaluated, or held out to be evaluated.

        Args:
            part: "held_out" or "test".
            before: a record, as that of a recogniser, with those of the stages before in it.
            untrained: stages of `training_stages` that have not been run yet.

        Raises:
            ValueError: a stage was trained on some; says which stage, how many and what to do. Of a stage that left no evidence
                of its recordings, that its record says it was trained on the held-out subjects.
        """
        stages = {stage: record for stage, record in training_stages(before).items() if stage not in untrained}
        unknown = [stage for stage, record in stages.items() if self._trained_on(record) is None]
        for stage, shared in self._shared(part, stages):
            raise ValueError(_refusal(stage, part, shared, len(self.parts[part].names)))
        if part == "held_out":
            check_held_out(before, unchecked=unknown)
        if unknown:
            logger.warning(
                "Which recordings the %s had in training is not known here (an older version made it, or %s was not copied "
                "with it): whether %s recordings were among them cannot be checked.",
                " and the ".join(unknown),
                SPLIT_EVIDENCE,
                _SPELLED[part],
            )

    def check_training(self, before: dict, *, untrained: tuple[str, ...]):
        """What a stage that trains may hold out, and what it should know of its test; arguments and errors as of `refuse`."""
        if self.parts["held_out"].names:
            self.refuse("held_out", before, untrained=untrained)
        self.doubt_test(before, untrained=untrained)

    def doubt_test(self, before: dict, *, untrained: tuple[str, ...]):
        """Warns of test recordings that a stage was trained on, which an evaluation will refuse."""
        stages = {stage: record for stage, record in training_stages(before).items() if stage not in untrained}
        for stage, shared in self._shared("test", stages):
            logger.warning("%s", _refusal(stage, "test", shared, len(self.parts["test"].names)))

    def _trained_on(self, record: dict) -> np.ndarray | None:
        """Hashes of what a stage was trained on; None where they are not known."""
        training = (record.get("split_evidence") or {}).get("training") or {}
        return self.known.get(training.get("fingerprint"))

    def _shared(self, part: str, stages: dict[str, dict]) -> Iterable[tuple[str, list[str]]]:
        """The stages that were trained on recordings of a part, each with the names of these recordings."""
        recordings = self.parts[part]
        for stage, record in stages.items():
            trained = self._trained_on(record)
            if trained is None:
                continue
            seen = np.isin(recordings.hashes, trained, assume_unique=True)
            if seen.any():
                yield stage, sorted(recordings.names[index] for index in seen.nonzero()[0])


_SPELLED = {"held_out": "held-out", "test": "test"}


def _refusal(stage: str, part: str, shared: list[str], total: int) -> str:
    example = as_written(shared[0])
    if part == "held_out":
        return (
            f"the {stage} was trained on the held-out subjects ({len(shared)} of {total} held-out recordings, such as "
            f"{example}): train all stages with the same subjects held out, and --hold_out true."
        )
    return (
        f"the {stage} was trained on {len(shared)} of the {total} test recordings, such as {example}: they were marked as "
        "training recordings then, so that nothing can be measured on them. Mark them so again, or train all stages anew."
    )


def _parts_of(splits, hold_out: bool, is_windows: bool) -> dict[str, list[str]]:
    """The `sample_id`s of each part, of splits with the columns `sample_id` and `held_out`."""
    train = splits["train"]
    marked = list(zip(_recordings_of(train, is_windows), train["held_out"], strict=True))
    return {
        "training": [name for name, held in marked if not (held and hold_out)],
        "held_out": [name for name, held in marked if held and hold_out],
        "test": _recordings_of(splits["test"], is_windows) if "test" in splits else [],
    }


def _recordings_of(rows, is_windows: bool) -> list[str]:
    """The recording that each row is of: that of a window is its video."""
    return [WINDOW.sub("", name) if is_windows else name for name in map(str, rows["sample_id"])]


def _sentences_record(folder: str) -> dict:
    return read_written(folder, RECORD, "encode_actions.py", "dataset")


def _is_windows(record: dict) -> bool:
    return record.get("stage") == "encode_windows"


def _read_sets(path: Path) -> dict[str, np.ndarray]:
    """Fingerprint → hashes; nothing where there is no such file, as of older versions or on the Hub."""
    try:
        content = read_json_object(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    sets = {}
    for fingerprint, text in content.items():
        try:
            hashes = np.frombuffer(base64.b64decode(text, validate=True), ">u8").astype(np.uint64)
        except (binascii.Error, ValueError, TypeError):
            hashes = None
        if hashes is None or fingerprint_of(hashes) != fingerprint:
            raise ModelFileError(
                path,
                fingerprint,
                as_written(text),
                "the hashes of that fingerprint: run the recipe that wrote it again",
            )
        sets[fingerprint] = hashes
    return sets


def default_split(record: dict, unseen: bool) -> str:
    """The split that a recogniser is evaluated on unless another is asked for: the recordings that its training held out.

    Args:
        record: of its training.
        unseen: whether it is to name classes that it was not trained on, which the test alone has.
    """
    return "held_out" if record.get("hold_out") and not unseen else "test"


def check_evaluated(model: str, record: dict, sentences: str, rows, split: str) -> SplitEvidence:
    """
    The evidence of an evaluation, which no stage has seen.

    Args:
        model, record: folder or repository of a recogniser, and the record of its training.
        sentences: folder of its sentences.
        rows: those that are evaluated, of a split.
        split: "test", "held_out" or "train".

    Raises:
        ValueError: a stage was trained on them, and they are not said to be training recordings.
    """
    part = "training" if split == "train" else split
    written = _sentences_record(sentences)
    parts = {part: _recordings_of(rows, _is_windows(written))}
    evidence = SplitEvidence(written["dataset"], parts, (sentences, model))
    if split != "train":
        evidence.refuse(part, record)
    return evidence


def count_test_evaluation(model: str, dataset: str, evidence: SplitEvidence) -> int | None:
    """
    Notes that the test split of a data set is evaluated with a recogniser; returns how often it was by now.

    None for a repository on the Hub, and for a folder that cannot be written: there is no place to count.
    """
    if not Path(model).is_dir():
        return None
    line = {"dataset": dataset, "recordings": evidence.parts["test"].fingerprint}
    try:
        # A line of a few bytes is appended at once, so that evaluations at the same time are all counted.
        with open(Path(model, TEST_EVALUATIONS), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        logger.warning("This evaluation of the test split is not counted: %s", error)
        return None
    return count_of_test_evaluations(model, dataset)


def test_evaluations_text(count: int) -> str:
    """How often the test split was opened, in a sentence."""
    times = "once" if count == 1 else f"{count} times"
    return f"The test split was evaluated {times} with this model."


def count_of_test_evaluations(model: str | os.PathLike, dataset: str) -> int:
    """How often the test split of a data set was evaluated with the recogniser in a folder."""
    path = Path(model, TEST_EVALUATIONS)
    if not path.is_file():
        return 0
    count = 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            count += json.loads(text)["dataset"] == dataset
        except (ValueError, KeyError, TypeError, RecursionError):  # a line that a full disk or a kill has left half
            count += 1
    return count
