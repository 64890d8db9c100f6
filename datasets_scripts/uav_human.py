"""Builder of UAV-Human skeletons: 155 actions filmed from drones, 119 people, 17 joints in pixels.

    builder = UAVHuman(config_name="uav-human-csv1", data_dir="Skeleton")
    builder.download_and_prepare()

Configs: `uav-human-csv1` and `uav-human-csv2`, the two official splits by person (89 train, 30 test); facts, sources and
published counts are in `uav_human.json`. `held_out` marks the training recordings of nine persons.

The data set has to be asked for (https://sutdcv.github.io/uav-human-web/); `data_dir` is the folder of the
skeletons' `.txt` files or of their archive.
"""

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from action_llm.skeleton_files import SkeletonRecording, read_skeleton

from .building import SkeletonBuilder, SkeletonConfig
from .protocols import NotInProtocolError, Placement, ranges

_FACTS = Path(__file__).parent / "uav_human.json"
_NAME = re.compile(
    r"P(\d{3})S(\d{2})G(\d{2})B(\d{2})H(\d{2})UC(\d{6})LC(\d{6})A(\d{3})R(\d)_(\d{8})", re.IGNORECASE | re.ASCII
)


@cache
def uav_human_facts() -> dict:
    """Classes, protocols and counts with their sources, as in `uav_human.json`."""
    return json.loads(_FACTS.read_text(encoding="utf-8"))


class UAVHumanName(NamedTuple):
    """The numbers of a file name, as they stand there; ids are counted from 0.

    Of `gender`, `backpack` and `hat` the tens are the main person's and the ones a second person's; of `upper` and
    `lower` (clothes) the thousands are the main person's. `timestamp` is month, day, hour, minute.
    """

    person: int
    setup: int
    gender: int
    backpack: int
    hat: int
    upper: int
    lower: int
    action: int
    replicate: int
    timestamp: int

    def __str__(self) -> str:
        return "P{:03d}S{:02d}G{:02d}B{:02d}H{:02d}UC{:06d}LC{:06d}A{:03d}R{}_{:08d}".format(*self)


def parse_uav_human_name(stem: str) -> UAVHumanName:
    """`P070S01G10B00H10UC102000LC092000A031R0_09131758` in any case -> its numbers.

    Raises:
        NotInProtocolError: any other name, as that of the competitions' unlabelled test files.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise NotInProtocolError(
            "name", f"found {stem!r}, expected PpppSssGggBbbHhhUCuuuuuuLCllllllAaaaRr_mmddhhmm, R with one digit"
        )
    return UAVHumanName(*map(int, match.groups()))


def place_uav_human(protocol: str, name: UAVHumanName) -> Placement:
    """Split, label and role of a recording under "uav-human-csv1" or "uav-human-csv2".

    Raises:
        NotInProtocolError: a number of the name is not in the data set.
    """
    facts = uav_human_facts()
    for field, limit in (("person", facts["persons"]), ("setup", facts["setups"]), ("action", len(facts["classes"]))):
        if getattr(name, field) >= limit:
            raise NotInProtocolError(
                field, f"{field} {getattr(name, field)} of {name} is not in UAV-Human, expected 0 to {limit - 1}"
            )
    rule = facts["protocols"][protocol]
    split = "train" if name.person in rule["train"] else "test"
    return Placement(split, name.action, name.person in rule["held_out_persons"])


class UAVHuman(SkeletonBuilder):
    """Skeletons of UAV-Human; columns in `building`, plus the numbers of the name as in `UAVHumanName`."""

    BUILDER_CONFIG_CLASS = SkeletonConfig
    BUILDER_CONFIGS = [SkeletonConfig(name=name) for name in uav_human_facts()["protocols"]]
    SUFFIX = ".txt"
    FIELDS = UAVHumanName._fields
    TITLE = "UAV-Human (skeletons)"
    HOMEPAGE = uav_human_facts()["homepage"]
    CITATION = uav_human_facts()["citation"]
    LICENSE = "UAV-Human: non-commercial scientific research, no redistribution."

    @property
    def protocol(self) -> str:
        return self.config.name.removesuffix("-video")

    def facts(self, data_dir: Path) -> list[Path]:
        return [_FACTS]

    def split_names(self) -> tuple[str, ...]:
        return ("train", "test")

    def class_names(self) -> list[str]:
        return [entry["name"] for entry in uav_human_facts()["classes"]]

    def place(self, stem: str) -> tuple[str, Placement, dict[str, int]]:
        name = parse_uav_human_name(stem)
        return str(name), place_uav_human(self.protocol, name), name._asdict()

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return read_skeleton(file, layout="coco17", fps=uav_human_facts()["fps"])

    def protocol_rule(self) -> str:
        rule = uav_human_facts()["protocols"][self.protocol]
        return (
            f"persons {ranges(rule['train'])} train, the other {uav_human_facts()['persons'] - len(rule['train'])} test; "
            f"`held_out` are the recordings of persons {ranges(rule['held_out_persons'])}."
        )

    def published_fields(self) -> dict[str, Iterable[int]]:
        return {"person": range(uav_human_facts()["persons"])}

    def published_counts(self) -> dict[str, int]:
        return uav_human_facts()["protocols"][self.protocol]["counts"]
