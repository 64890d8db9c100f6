"""Builder for the skeletons of UTD-MHAD: 27 actions, 8 subjects, 861 recordings with 20 joints, free to download.

    builder = UTDMHAD(config_name="utd-mhad", data_dir="Skeleton")
    builder.download_and_prepare()

The standard split trains on subjects 1, 3, 5, 7 (431 recordings) and tests on 2, 4, 6, 8 (430). One training subject is held
out to select checkpoints and settings; `held_out_subject` chooses another.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import datasets

from action_llm.skeleton_files import SkeletonRecording, read_utd_mhad

from .building import SkeletonBuilder, SkeletonConfig
from .protocols import NotInProtocolError, Placement, facts_file, match_name, ranges, read_facts

FACTS = read_facts("utd_mhad")
_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)(?:_skeleton)?", re.IGNORECASE | re.ASCII)


@dataclass
class UTDMHADConfig(SkeletonConfig):
    """Config of `UTDMHAD`; `held_out_subject` is one of the training subjects 1, 3, 5, 7."""

    held_out_subject: int = FACTS["held_out_subject"]


class UTDMHAD(SkeletonBuilder):
    """Skeletons of UTD-MHAD. Columns: as in `building`, and the numbers of the file name."""

    BUILDER_CONFIG_CLASS = UTDMHADConfig
    BUILDER_CONFIGS = [UTDMHADConfig(name="utd-mhad")]
    SUFFIX = "_skeleton.mat"
    FIELDS = ("subject", "trial", "action")
    TITLE = "UTD-MHAD (skeletons)"
    HOMEPAGE = "https://personal.utdallas.edu/~kehtar/UTD-MHAD.html"
    CITATION = FACTS["citation"]
    LICENSE = "Free for research; cite the paper."

    def _info(self) -> datasets.DatasetInfo:
        subjects = FACTS["train_subjects"]
        if self.config.held_out_subject not in subjects:
            raise ValueError(f"held_out_subject must be one of {subjects}; got {self.config.held_out_subject!r}")
        return super()._info()

    def facts(self, data_dir: Path) -> list[Path]:
        return [facts_file("utd_mhad")]

    def class_names(self) -> list[str]:
        return [entry["name"] for entry in FACTS["classes"]]

    def place(self, stem: str) -> tuple[str, Placement, dict[str, int]]:
        action, subject, trial = map(int, match_name(_NAME, stem, "a<action>_s<subject>_t<trial>_skeleton"))
        if not 1 <= action <= len(FACTS["classes"]):
            raise NotInProtocolError("action", f"action {action} of {stem} is not in UTD-MHAD, expected 1 to 27")
        if not 1 <= subject <= FACTS["subjects"]:
            raise NotInProtocolError("subject", f"subject {subject} of {stem} is not in UTD-MHAD, expected 1 to 8")
        split = "train" if subject in FACTS["train_subjects"] else "test"
        held_out = split == "train" and subject == self.config.held_out_subject
        fields = {"subject": subject, "trial": trial, "action": action}
        return f"a{action}_s{subject}_t{trial}", Placement(split, action - 1, held_out), fields

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return read_utd_mhad(file)

    def protocol_rule(self) -> str:
        train = FACTS["train_subjects"]
        test = sorted(set(range(1, FACTS["subjects"] + 1)) - set(train))
        return (
            f"train: subjects {ranges(train)}; test: subjects {ranges(test)}; "
            f"held out: the recordings of subject {self.config.held_out_subject}."
        )

    def published_fields(self) -> dict[str, Iterable[int]]:
        return {"subject": range(1, FACTS["subjects"] + 1)}

    def published_counts(self) -> dict[str, int]:
        return FACTS["counts"]
