"""Builder for the skeletons of Northwestern-UCLA Multiview Action 3D: 10 actions, 10 subjects, 3 views, 20 joints.

    builder = NWUCLA(config_name="nw-ucla-xview", data_dir="all_sqe")
    builder.download_and_prepare()

Configs, with the facts, sources and counts in `nw_ucla.json`:

    nw-ucla-xview                 trains on views 1 and 2 (1,020 recordings), tests on view 3 (464)
    nw-ucla-views13-view2, …      trains on two other views, tests on the third
    nw-ucla-view1-view2, …        trains on one view, tests on another; all six ordered pairs
    nw-ucla-xsub                  trains on odd subjects, tests on even ones; a split of this project
    nw-ucla-xsub-1 to -10         tests on that subject, trains on the other nine

`held_out` marks the training recordings of one subject; `held_out_subject` chooses another. `data_dir` is the folder of the
`.json` files that CTR-GCN and Shift-GCN use (`all_sqe`), or of their archive.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import datasets

from action_llm import json_files, nw_ucla_files
from action_llm.skeleton_files import SkeletonRecording

from .building import SkeletonBuilder, SkeletonConfig
from .protocols import NotInProtocolError, Placement, facts_file, match_name, ranges, read_facts

FACTS = read_facts("nw_ucla")
_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})_v(\d{2})", re.IGNORECASE | re.ASCII)


@dataclass
class NWUCLAConfig(SkeletonConfig):
    """Config of `NWUCLA`.

    Attributes:
        held_out_subject: one of the training subjects; None is the one of `nw_ucla.json`.
    """

    held_out_subject: int | None = None


class NWUCLA(SkeletonBuilder):
    """Skeletons of Northwestern-UCLA. Columns: as in `building`, and the numbers of the file name."""

    BUILDER_CONFIG_CLASS = NWUCLAConfig
    BUILDER_CONFIGS = [NWUCLAConfig(name=name) for name in FACTS["protocols"]]
    SUFFIX = ".json"
    FIELDS = ("subject", "episode", "view", "action")
    TITLE = "Northwestern-UCLA Multiview Action 3D (skeletons)"
    HOMEPAGE = FACTS["homepage"]
    CITATION = FACTS["citation"]
    LICENSE = "See the home page for the terms of the authors; cite the paper."

    @property
    def rule(self) -> dict:
        """The protocol of this config, from `nw_ucla.json`."""
        return FACTS["protocols"][self.config.name]

    @property
    def held_out_subject(self) -> int:
        chosen = self.config.held_out_subject
        return self.rule["held_out_subject"] if chosen is None else chosen

    def _info(self) -> datasets.DatasetInfo:
        by_subject = self.rule["split_by"] == "subject"
        subjects = self.rule["train"] if by_subject else list(range(1, FACTS["subjects"] + 1))
        if self.held_out_subject not in subjects:
            raise ValueError(f"held_out_subject must be one of {subjects}; got {self.held_out_subject!r}")
        return super()._info()

    def facts(self, data_dir: Path) -> list[Path]:
        return [facts_file("nw_ucla"), Path(nw_ucla_files.__file__), Path(json_files.__file__)]

    def class_names(self) -> list[str]:
        return [entry["name"] for entry in FACTS["classes"]]

    def place(self, stem: str) -> tuple[str, Placement | None, dict[str, int]]:
        expected = "a<action>_s<subject>_e<episode>_v<view> with two digits each"
        action, subject, episode, view = map(int, match_name(_NAME, stem, expected))
        actions = [entry["action"] for entry in FACTS["classes"]]
        for field, number, numbers in (
            ("action", action, actions),
            ("subject", subject, range(1, FACTS["subjects"] + 1)),
            ("view", view, range(1, FACTS["views"] + 1)),
        ):
            if number not in numbers:
                raise NotInProtocolError(
                    field, f"{field} {number} of {stem} is not in Northwestern-UCLA, expected {ranges(numbers)}"
                )
        fields = {"subject": subject, "episode": episode, "view": view, "action": action}
        value, placement = fields[self.rule["split_by"]], None
        for split in self.split_names():
            if value in self.rule[split]:
                held_out = split == "train" and subject == self.held_out_subject
                placement = Placement(split, actions.index(action), held_out)
        return f"a{action:02d}_s{subject:02d}_e{episode:02d}_v{view:02d}", placement, fields

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return nw_ucla_files.read_nw_ucla(file)

    def protocol_rule(self) -> str:
        field = self.rule["split_by"]
        train, test = (
            f"{split}: {field}{'s' * (len(self.rule[split]) > 1)} {ranges(self.rule[split])}"
            for split in self.split_names()
        )
        return f"{train}; {test}; held out: the training recordings of subject {self.held_out_subject}."

    def published_fields(self) -> dict[str, Iterable[int]]:
        used = sorted({*self.rule["train"], *self.rule["test"]})
        fields = {"subject": range(1, FACTS["subjects"] + 1), "view": range(1, FACTS["views"] + 1)}
        return fields | {self.rule["split_by"]: used}

    def published_counts(self) -> dict[str, int]:
        return self.rule.get("counts", {"in all": FACTS["recordings"]})

    def doubtful_labels(self) -> list[dict]:
        return FACTS["doubtful_labels"]
