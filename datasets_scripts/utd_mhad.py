"""Builder for the skeletons of UTD-MHAD: 27 actions, 8 subjects, 861 recordings with 20 joints, free to download.

    builder = UTDMHAD(config_name="utd-mhad", data_dir="Skeleton")
    builder.download_and_prepare()

The standard split trains on subjects 1, 3, 5, 7 (431 recordings) and tests on 2, 4, 6, 8 (430). One training subject is held
out to select checkpoints and settings; `held_out_subject` chooses another.

`utd-mhad-unseen-0` to `-4` (LLM-AR, Table 8) leave three classes each out of training. They train on the other 24 classes of
the training subjects and test on the three classes of the test subjects, so that the people are unseen as well. In the same
way, `utd-mhad-zero-shot-22-5`, `-17-10` and `-13-14` leave out 5, 10 and 14 classes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
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
    """Config of `UTDMHAD`.

    Attributes:
        protocol: "utd-mhad", or one with unseen classes: "utd-mhad-unseen-0" to "-4", "utd-mhad-zero-shot-22-5", "-17-10",
            "-13-14".
        part: "all"; or "seen" or "unseen", if the protocol has unseen classes.
        held_out_subject: one of the training subjects 1, 3, 5, 7.
    """

    protocol: str = "utd-mhad"
    part: str = "all"
    held_out_subject: int = FACTS["held_out_subject"]


class UTDMHAD(SkeletonBuilder):
    """Skeletons of UTD-MHAD. Columns: as in `building`, and the numbers of the file name."""

    BUILDER_CONFIG_CLASS = UTDMHADConfig
    BUILDER_CONFIGS = [
        UTDMHADConfig(name="utd-mhad"),
        *(
            UTDMHADConfig(name=f"{_protocol}-{_part}", protocol=_protocol, part=_part)
            for _protocol in FACTS["unseen"]
            for _part in ("seen", "unseen")
        ),
    ]
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

    @cached_property
    def actions(self) -> list[int]:
        """Action ids in the order of the labels."""
        unseen = FACTS["unseen"].get(self.config.protocol, {}).get("actions", [])
        if self.config.part == "unseen":
            return unseen
        return [entry["action"] for entry in FACTS["classes"] if entry["action"] not in unseen]

    def split_names(self) -> tuple[str, ...]:
        return {"all": ("train", "test"), "seen": ("train",), "unseen": ("test",)}[self.config.part]

    def class_names(self) -> list[str]:
        return [FACTS["classes"][action - 1]["name"] for action in self.actions]

    def place(self, stem: str) -> tuple[str, Placement | None, dict[str, int]]:
        action, subject, trial = map(int, match_name(_NAME, stem, "a<action>_s<subject>_t<trial>_skeleton"))
        if not 1 <= action <= len(FACTS["classes"]):
            raise NotInProtocolError("action", f"action {action} of {stem} is not in UTD-MHAD, expected 1 to 27")
        if not 1 <= subject <= FACTS["subjects"]:
            raise NotInProtocolError("subject", f"subject {subject} of {stem} is not in UTD-MHAD, expected 1 to 8")
        split = "train" if subject in FACTS["train_subjects"] else "test"
        self._check_used(stem, action, split)
        placement = None
        if split in self.split_names():
            held_out = split == "train" and subject == self.config.held_out_subject
            placement = Placement(split, self.actions.index(action), held_out)
        return f"a{action}_s{subject}_t{trial}", placement, {"subject": subject, "trial": trial, "action": action}

    def _check_used(self, stem: str, action: int, split: str) -> None:
        """Training recordings of unseen classes and test recordings of seen classes are in no split."""
        protocol = self.config.protocol
        if protocol in FACTS["unseen"]:
            unseen = action in FACTS["unseen"][protocol]["actions"]
            if unseen == (split == "train"):
                kind = "unseen" if unseen else "seen"
                raise NotInProtocolError(
                    "unused", f"{stem}: {protocol} does not use {kind} classes of {split} subjects"
                )

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return read_utd_mhad(file)

    def protocol_rule(self) -> str:
        of_train = of_test = ""
        if self.config.protocol in FACTS["unseen"]:
            unseen = ranges(FACTS["unseen"][self.config.protocol]["actions"])
            of_train, of_test = f"all actions but {unseen} of ", f"the unseen actions {unseen} of "
        return (
            f"train: {of_train}subjects {ranges(FACTS['train_subjects'])}; "
            f"test: {of_test}subjects {ranges(FACTS['test_subjects'])}; "
            f"held out: the recordings of subject {self.config.held_out_subject}."
        )

    def published_fields(self) -> dict[str, Iterable[int]]:
        subjects = {
            "all": range(1, FACTS["subjects"] + 1),
            "seen": FACTS["train_subjects"],
            "unseen": FACTS["test_subjects"],
        }
        return {"subject": subjects[self.config.part]}

    def published_counts(self) -> dict[str, int]:
        counts = FACTS["unseen"].get(self.config.protocol, FACTS)["counts"]
        return {split: counts[split] for split in self.split_names()}
