"""Builder for the skeletons of SBU Kinect Interaction: 8 interactions of two people, 21 pairs out of 7 subjects, 15 joints.

    builder = SBU(config_name="sbu-fold-0", data_dir="SBU")
    builder.download_and_prepare()

The configs `sbu-fold-0` to `-4` are the five folds of the authors, who number them from 1: a config tests on the pairs of its
fold and trains on those of the other four. Papers report the mean of the five. `sbu.json` has the facts and their sources.
`held_out` marks the pairs of the next fold; `held_out_fold` chooses another.

`data_dir` holds the folders of the pairs, `s01s02/01/001/skeleton_pos.txt` and so on, or their archives.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import datasets

from action_llm import sbu_files
from action_llm.skeleton_files import SkeletonRecording

from .building import SkeletonBuilder, SkeletonConfig, SourceFile
from .protocols import NotInProtocolError, Placement, facts_file, match_name, read_facts

FACTS = read_facts("sbu")
_PATH = re.compile(r"(?:.*/)?(s\d{2}s\d{2})/(\d{2})/(\d{3})/skeleton_pos\.txt", re.IGNORECASE | re.ASCII | re.DOTALL)


@dataclass
class SBUConfig(SkeletonConfig):
    """Config of `SBU`.

    Attributes:
        held_out_fold: 0 to 4, one of the four training folds; None is the one after the test fold, or 0.
    """

    held_out_fold: int | None = None


class SBU(SkeletonBuilder):
    """Skeletons of SBU Kinect Interaction. Columns: as in `building`, and the numbers of the path.

    `set` is the number of the pair, 1 to 21, as in the README of the data set.
    """

    BUILDER_CONFIG_CLASS = SBUConfig
    BUILDER_CONFIGS = [SBUConfig(name=name) for name in FACTS["folds"]]
    SUFFIX = sbu_files.FILE_NAME
    NAME_PARTS = 4
    FIELDS = ("set", "first_subject", "second_subject", "sequence", "action")
    TITLE = "SBU Kinect Interaction (skeletons)"
    HOMEPAGE = FACTS["homepage"]
    CITATION = FACTS["citation"]
    LICENSE = "SBU Kinect Interaction: research only; cite the paper."

    @property
    def fold(self) -> int:
        """The fold that is tested."""
        return list(FACTS["folds"]).index(self.config.name)

    @property
    def held_out_fold(self) -> int:
        chosen = self.config.held_out_fold
        return (self.fold + 1) % len(FACTS["folds"]) if chosen is None else chosen

    def _info(self) -> datasets.DatasetInfo:
        folds = [fold for fold in range(len(FACTS["folds"])) if fold != self.fold]
        if self.held_out_fold not in folds:
            raise ValueError(f"held_out_fold must be one of {folds}; got {self.held_out_fold!r}")
        return super()._info()

    def facts(self, data_dir: Path) -> list[Path]:
        return [facts_file("sbu"), Path(sbu_files.__file__)]

    def class_names(self) -> list[str]:
        return [entry["name"] for entry in FACTS["classes"]]

    def key(self, file: SourceFile) -> str:
        return file.path  # all files have the same name

    def place(self, path: str) -> tuple[str, Placement, dict[str, int]]:
        expected = f"s<subject>s<subject>/<action>/<sequence>/{sbu_files.FILE_NAME}"
        pair, *numbers = match_name(_PATH, path, expected)
        pair, (action, sequence) = pair.lower(), map(int, numbers)
        if pair not in FACTS["sets"]:
            raise NotInProtocolError("pair", f"pair {pair} of {path} is not in SBU Kinect Interaction")
        if not 1 <= action <= len(FACTS["classes"]):
            raise NotInProtocolError(
                "action", f"action {action} of {path} is not in SBU Kinect Interaction, expected 1 to 8"
            )
        fold = next(number for number, pairs in enumerate(FACTS["folds"].values()) if pair in pairs)
        split = "test" if fold == self.fold else "train"
        fields = {
            "set": FACTS["sets"].index(pair) + 1,
            "first_subject": int(pair[1:3]),
            "second_subject": int(pair[4:6]),
            "sequence": sequence,
            "action": action,
        }
        return f"{pair}_{action:02d}_{sequence:03d}", Placement(split, action - 1, fold == self.held_out_fold), fields

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return sbu_files.read_sbu(file)

    def protocol_rule(self) -> str:
        pairs = list(FACTS["folds"].values())
        return (
            f"train: the pairs of the other four folds; test: the pairs {', '.join(pairs[self.fold])}; "
            f"held out: the training pairs {', '.join(pairs[self.held_out_fold])}."
        )

    def published_fields(self) -> dict[str, Iterable[int]]:
        return {"set": range(1, len(FACTS["sets"]) + 1)}

    def published_counts(self) -> dict[str, int]:
        return {"in all": FACTS["recordings"]}
