"""
Evidence that no stage was trained on recordings that are held out or tested.

Each stage saves hashes of its training, held-out and test recordings beside its record; later stages and evaluations compare
them with their own. The record has a fingerprint of each of these sets (`split_evidence`). The hashes, 8 bytes per recording,
are in `split_evidence.json`, by fingerprint, together with those of all earlier stages; a set that several stages share is
stored once. The file is not published (`hub/push.py`), because names of recordings can be guessed from their hashes.
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
from action_llm_recipes.common.joined_data_sets import family_of, origin_of
from action_llm_recipes.common.records import RECORD, read_written
from action_llm_recipes.common.stage_records import check_held_out, training_stages

logger = logging.getLogger(__name__)

SPLIT_EVIDENCE = "split_evidence.json"
# Beside the weights of a recogniser: a line per evaluation on the test split of a data set.
TEST_EVALUATIONS = "test_evaluations.jsonl"
# Files that `hub/push.py` does not publish.
LOCAL_FILES = (SPLIT_EVIDENCE, TEST_EVALUATIONS)
# End of the name of a sentence that `encode_windows.py` wrote, after the name of the video.
WINDOW = re.compile(r"@[\d.e+-]+s$")
# Names of stages (`training_stages`), for the `untrained` of the recipes that train them.
ACTION_MODEL, LANGUAGE_MODEL = "action model", "language model"


@dataclass(frozen=True)
class RecordingSet:
    """
    A set of recordings, independent of their order and of augmented versions.

    Attributes:
        hashes: sorted hashes of the names, uint64 (N,).
        names: N names, in the order of their hashes.
    """

    hashes: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, dataset: str, sample_ids: Iterable[str]) -> "RecordingSet":
        """
        The set of recordings with some names.

        Args:
            dataset: data set and protocol. A recording has the same hash under all protocols of its data set, as a skeleton and
                as a video.
            sample_ids: names of recordings, unique within the data set. A recording of joined data sets has the same hash as in
                its own.
        """
        names = sorted(set(map(str, sample_ids)))
        origins = (origin_of(dataset, name) for name in names)
        content = [f"{family_of(title)}\0{name}".encode() for title, name in origins]
        hashes = np.array(list(map(_digest, content)), ">u8").astype(np.uint64)
        order = hashes.argsort()
        return cls(hashes[order], [names[index] for index in order])

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.hashes)


def _digest(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest())


def fingerprint_of(hashes: np.ndarray) -> str:
    """Fingerprint of a set of recordings, from its sorted hashes: 16 hexadecimal digits."""
    return f"{_digest(hashes.astype('>u8').tobytes()):016x}"


class SplitEvidence:
    """
    The recordings of a stage, and the known recordings of earlier stages.

    Args:
        dataset: data set and protocol of the recordings.
        parts: "training", "held_out" or "test" → `sample_id`s.
        folders: models, features and sentences that the stage reads, with the evidence of earlier stages.
        held_out_subjects: subjects that are held out instead of those that the data set marks, as `without_names` returns them.

    Raises:
        ModelFileError: if the evidence in a folder is damaged.
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
        self.unchecked_stages: list[str] = []
        self.known: dict[str, np.ndarray] = {}
        for folder in folders:
            self.known |= _read_sets(Path(folder, SPLIT_EVIDENCE))
        self.known |= {recordings.fingerprint: recordings.hashes for recordings in self.parts.values()}

    @classmethod
    def of_data(cls, data, splits, folders=(), *, hold_out: bool = True) -> "SplitEvidence":
        """
        The evidence of a stage that reads recordings or their features.

        Args:
            data (`DataArguments`): of the stage.
            splits: that the stage loads.
            folders: as of the class, in addition to the folder of the data.
            hold_out: whether the held-out recordings are left out of training; True for a stage that trains nothing.
        """
        parts = _parts_of(splits, hold_out, is_windows=False)
        return cls(data.protocol(), parts, (*data.folders, *folders), data.chosen_subjects())

    @classmethod
    def of_sentences(cls, folder: str, splits, folders=(), *, hold_out: bool) -> "SplitEvidence":
        """The evidence of a stage that reads the sentences in a folder. The other arguments are those of `of_data`."""
        record = _sentences_record(folder)
        parts = _parts_of(splits, hold_out, _is_windows(record))
        subjects = (record.get("split_evidence") or {}).get("held_out_subjects")
        return cls(record["dataset"], parts, (folder, *folders), subjects)

    def describe(self) -> dict:
        """The evidence in a record: number of recordings and fingerprint of each part, chosen held-out subjects, and the stages
        that `refuse` could not check."""
        parts = {
            part: {"recordings": len(recordings.names), "fingerprint": recordings.fingerprint}
            for part, recordings in self.parts.items()
        }
        if self.held_out_subjects:
            parts["held_out_subjects"] = self.held_out_subjects
        if self.unchecked_stages:
            parts["unchecked_stages"] = self.unchecked_stages
        return parts

    def save(self, folder: Path):
        """Writes all known sets to split_evidence.json in a folder."""
        sets = {
            fingerprint: base64.b64encode(hashes.astype(">u8").tobytes()).decode()
            for fingerprint, hashes in sorted(self.known.items())
        }
        write_atomically(folder / SPLIT_EVIDENCE, json.dumps(sets, indent=0) + "\n")

    def refuse(self, part: str, before: dict, *, untrained: tuple[str, ...] = ()):
        """
        Checks that no stage was trained on the held-out or test recordings.

        Args:
            part: "held_out" or "test".
            before: a record that contains the records of earlier stages, such as that of a recogniser.
            untrained: names of stages (`training_stages`) that have not been trained yet.

        Raises:
            ValueError: if a stage was trained on some of the recordings. A stage without evidence is refused if its record does
                not say that it left the held-out subjects out.
        """
        stages = {stage: record for stage, record in training_stages(before).items() if stage not in untrained}
        unknown = [stage for stage, record in stages.items() if self._trained_on(record) is None]
        for stage, shared in self._shared(part, stages):
            raise ValueError(_refusal(stage, part, shared, len(self.parts[part].names)))
        if part == "held_out":
            check_held_out(before, unchecked=unknown)
        self.unchecked_stages = unknown
        if unknown:
            logger.warning(
                "The training recordings of the %s are unknown (an older version trained it, or %s was not copied with it), so "
                "it cannot be checked whether %s recordings were among them.",
                " and the ".join(unknown),
                SPLIT_EVIDENCE,
                _SPELLED[part],
            )

    def check_training(self, before: dict, *, untrained: tuple[str, ...]):
        """Checks the held-out recordings before training, and warns of test recordings that an earlier stage was trained on.
        The arguments and errors are those of `refuse`."""
        if self.parts["held_out"].names:
            self.refuse("held_out", before, untrained=untrained)
        self.doubt_test(before, untrained=untrained)

    def doubt_test(self, before: dict, *, untrained: tuple[str, ...]):
        """Warns of test recordings that a stage was trained on; an evaluation will refuse them."""
        stages = {stage: record for stage, record in training_stages(before).items() if stage not in untrained}
        for stage, shared in self._shared("test", stages):
            logger.warning("%s", _refusal(stage, "test", shared, len(self.parts["test"].names)))

    def _trained_on(self, record: dict) -> np.ndarray | None:
        """Hashes of the training recordings of a stage; None if they are unknown."""
        training = (record.get("split_evidence") or {}).get("training") or {}
        return self.known.get(training.get("fingerprint"))

    def _shared(self, part: str, stages: dict[str, dict]) -> Iterable[tuple[str, list[str]]]:
        """Yields each stage that was trained on recordings of a part, with their names."""
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
        "training recordings then. Restore these marks, or train all stages again."
    )


def _parts_of(splits, hold_out: bool, is_windows: bool) -> dict[str, list[str]]:
    """The `sample_id`s of the parts of a dataset with the columns `sample_id` and `held_out`."""
    train = splits["train"]
    marked = list(zip(_recordings_of(train, is_windows), train["held_out"], strict=True))
    return {
        "training": [name for name, held in marked if not (held and hold_out)],
        "held_out": [name for name, held in marked if held and hold_out],
        "test": _recordings_of(splits["test"], is_windows) if "test" in splits else [],
    }


def _recordings_of(rows, is_windows: bool) -> list[str]:
    """The recording of each row; for a window, its video."""
    return [WINDOW.sub("", name) if is_windows else name for name in map(str, rows["sample_id"])]


def _sentences_record(folder: str) -> dict:
    return read_written(folder, RECORD, "encode_actions.py", "dataset")


def _is_windows(record: dict) -> bool:
    return record.get("stage") == "encode_windows"


def _read_sets(path: Path) -> dict[str, np.ndarray]:
    """Fingerprint → hashes; empty if the file is missing, as in folders of older versions and on the Hub."""
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
                "the hashes with that fingerprint: run the recipe that wrote the folder again",
            )
        sets[fingerprint] = hashes
    return sets


def default_split(record: dict, unseen: bool) -> str:
    """
    The split that a recogniser is evaluated on by default: "held_out" if training left these recordings out, else "test".

    Args:
        record: training record of the recogniser.
        unseen: whether unseen classes are evaluated, which only the test split has.
    """
    return "held_out" if record.get("hold_out") and not unseen else "test"


def choose_split(split: str | None, record: dict, unseen: bool = False) -> str:
    """The split that a command names; by default that of `default_split`, which has the other arguments."""
    if split is not None:
        return split
    split = default_split(record, unseen)
    if split == "held_out":
        logger.info(
            "Evaluating the held-out recordings, which training left out; --split test evaluates the test split."
        )
    return split


def check_evaluated(model: str, record: dict, sentences: str, rows, split: str) -> SplitEvidence:
    """
    Checks that no stage was trained on the recordings of an evaluation, unless it evaluates training recordings.

    Args:
        model, record: folder or Hub repository of a recogniser, and its training record.
        sentences: folder of the sentences.
        rows: the sentences to evaluate.
        split: that the rows are of: "test", "held_out" or "train".

    Returns:
        The evidence of the evaluation.

    Raises:
        ValueError: if a stage was trained on held-out or test recordings.
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
    Counts an evaluation on the test split of a data set, in a file beside the recogniser.

    Args:
        model: folder or Hub repository of the recogniser.
        dataset: data set and protocol.
        evidence: of the evaluation.

    Returns:
        The number of such evaluations so far. None for a Hub repository, and for a folder that cannot be written.
    """
    if not Path(model).is_dir():
        return None
    line = {"dataset": dataset, "recordings": evidence.parts["test"].fingerprint}
    try:
        # Appending a short line is atomic, so simultaneous evaluations are all counted.
        with open(Path(model, TEST_EVALUATIONS), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        logger.warning("This evaluation on the test split is not counted: %s", error)
        return None
    return count_of_test_evaluations(model, dataset)


def unchecked_stages_text(stages: list[str]) -> str:
    """That an evaluation could not check the training recordings of some stages, as a sentence."""
    return f"It could not be checked whether the {' and the '.join(stages)} had been trained on these recordings."


def test_evaluations_text(count: int) -> str:
    """A sentence that says how often the test split was evaluated."""
    times = "once" if count == 1 else f"{count} times"
    return f"The test split was evaluated {times} with this model."


def count_of_test_evaluations(model: str | os.PathLike, dataset: str) -> int:
    """The number of evaluations on the test split of a data set with the recogniser in a folder."""
    path = Path(model, TEST_EVALUATIONS)
    if not path.is_file():
        return 0
    count = 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            count += json.loads(text)["dataset"] == dataset
        except (ValueError, KeyError, TypeError, RecursionError):  # a full disk or a kill left the line unfinished
            count += 1
    return count
