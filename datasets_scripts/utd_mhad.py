"""Builder of UTD-MHAD skeletons: 27 actions, 8 subjects, 861 sequences of 20 joints, free to download.

    builder = UTDMHAD(config_name="utd-mhad", data_dir="Skeleton")
    builder.download_and_prepare()

The standard split: subjects 1, 3, 5, 7 train (431), 2, 4, 6, 8 test (430). One training subject is held out to select
checkpoints and settings; `held_out_subject=` takes another, to rotate.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import datasets

from action_llm.skeleton_files import SkeletonRecording, read_utd_mhad

from .building import SkeletonBuilder, SkeletonConfig
from .protocols import NotInProtocolError, Placement, ranges

_FACTS = Path(__file__).parent / "utd_mhad.json"
_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)(?:_skeleton)?", re.IGNORECASE | re.ASCII)


@cache
def utd_mhad_facts() -> dict:
    """Classes, subjects and counts with their sources, as in `utd_mhad.json`."""
    return json.loads(_FACTS.read_text(encoding="utf-8"))


@dataclass
class UTDMHADConfig(SkeletonConfig):
    """Config of `UTDMHAD`; `held_out_subject` is one of the training subjects 1, 3, 5, 7."""

    held_out_subject: int = utd_mhad_facts()["held_out_subject"]


class UTDMHAD(SkeletonBuilder):
    """Skeletons of UTD-MHAD; columns in `building`, plus the numbers of the name."""

    BUILDER_CONFIG_CLASS = UTDMHADConfig
    BUILDER_CONFIGS = [UTDMHADConfig(name="utd-mhad")]
    SUFFIX = "_skeleton.mat"
    FIELDS = ("subject", "trial", "action")
    TITLE = "UTD-MHAD (skeletons)"
    HOMEPAGE = "https://personal.utdallas.edu/~kehtar/UTD-MHAD.html"
    CITATION = utd_mhad_facts()["citation"]
    LICENSE = "Free for research; cite the paper."

    def _info(self) -> datasets.DatasetInfo:
        subjects = utd_mhad_facts()["train_subjects"]
        if self.config.held_out_subject not in subjects:
            raise ValueError(f"held_out_subject must be one of {subjects}; got {self.config.held_out_subject!r}")
        return super()._info()

    def facts(self, data_dir: Path) -> list[Path]:
        return [_FACTS]

    def split_names(self) -> tuple[str, ...]:
        return ("train", "test")

    def class_names(self) -> list[str]:
        return [entry["name"] for entry in utd_mhad_facts()["classes"]]

    def place(self, stem: str) -> tuple[str, Placement, dict[str, int]]:
        facts = utd_mhad_facts()
        match = _NAME.fullmatch(stem)
        if match is None:
            raise NotInProtocolError("name", f"found {stem!r}, expected a<action>_s<subject>_t<trial>_skeleton")
        action, subject, trial = map(int, match.groups())
        if not 1 <= action <= len(facts["classes"]):
            raise NotInProtocolError("action", f"action {action} of {stem} is not in UTD-MHAD, expected 1 to 27")
        if not 1 <= subject <= facts["subjects"]:
            raise NotInProtocolError("subject", f"subject {subject} of {stem} is not in UTD-MHAD, expected 1 to 8")
        split = "train" if subject in facts["train_subjects"] else "test"
        held_out = split == "train" and subject == self.config.held_out_subject
        fields = {"subject": subject, "trial": trial, "action": action}
        return f"a{action}_s{subject}_t{trial}", Placement(split, action - 1, held_out), fields

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return read_utd_mhad(file)

    def protocol_rule(self) -> str:
        train = utd_mhad_facts()["train_subjects"]
        test = sorted(set(range(1, utd_mhad_facts()["subjects"] + 1)) - set(train))
        held_out = self.config.held_out_subject
        return f"subjects {ranges(train)} train, {ranges(test)} test; `held_out` are the recordings of subject {held_out}."

    def published_fields(self) -> dict[str, Iterable[int]]:
        return {"subject": range(1, utd_mhad_facts()["subjects"] + 1)}

    def published_counts(self) -> dict[str, int]:
        return utd_mhad_facts()["counts"]
