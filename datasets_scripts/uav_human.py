"""Builder for the skeletons of UAV-Human: 155 actions of 119 people filmed from drones, 17 joints in pixels.

    builder = UAVHuman(config_name="uav-human-csv1", data_dir="Skeleton")
    builder.download_and_prepare()

The configs `uav-human-csv1` and `uav-human-csv2` are the two official splits by person (89 train, 30 test). `uav_human.json`
has the facts, their sources and the published counts. `held_out` marks the training recordings of nine people.

The authors give access on request (https://sutdcv.github.io/uav-human-web/). `data_dir` is the folder of the `.txt` files of
the skeletons, or of their archive.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from action_llm.skeleton_files import SkeletonRecording, read_skeleton

from .building import SkeletonBuilder, SkeletonConfig
from .protocols import NotInProtocolError, Placement, facts_file, match_name, ranges, read_facts

FACTS = read_facts("uav_human")
_NAME = re.compile(
    r"P(\d{3})S(\d{2})G(\d{2})B(\d{2})H(\d{2})UC(\d{6})LC(\d{6})A(\d{3})R(\d)_(\d{8})", re.IGNORECASE | re.ASCII
)


class UAVHumanName(NamedTuple):
    """The numbers of a file name. Ids count from 0.

    `gender`, `backpack` and `hat` have two digits: the first describes the main person, the second a second person. `upper`
    and `lower` (clothes) have six: the first three describe the main person. `timestamp` is month, day, hour and minute.
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
    """Parses a name such as `P070S01G10B00H10UC102000LC092000A031R0_09131758`, in upper or lower case.

    Raises:
        NotInProtocolError: if the name has another form, as the unlabelled test files of the competitions have.
    """
    expected = "PpppSssGggBbbHhhUCuuuuuuLCllllllAaaaRr_mmddhhmm, R with one digit"
    return UAVHumanName(*map(int, match_name(_NAME, stem, expected)))


def place_uav_human(protocol: str, name: UAVHumanName) -> Placement:
    """The split and label of a recording under "uav-human-csv1" or "uav-human-csv2", and whether it is held out.

    Raises:
        NotInProtocolError: if a number of the name is not in the data set.
    """
    for field, limit in (("person", FACTS["persons"]), ("setup", FACTS["setups"]), ("action", len(FACTS["classes"]))):
        if getattr(name, field) >= limit:
            raise NotInProtocolError(
                field, f"{field} {getattr(name, field)} of {name} is not in UAV-Human, expected 0 to {limit - 1}"
            )
    rule = FACTS["protocols"][protocol]
    split = "train" if name.person in rule["train"] else "test"
    return Placement(split, name.action, name.person in rule["held_out_persons"])


class UAVHuman(SkeletonBuilder):
    """Skeletons of UAV-Human. Columns: as in `building`, and the numbers of the file name (`UAVHumanName`)."""

    BUILDER_CONFIG_CLASS = SkeletonConfig
    BUILDER_CONFIGS = [SkeletonConfig(name=name) for name in FACTS["protocols"]]
    SUFFIX = ".txt"
    FIELDS = UAVHumanName._fields
    TITLE = "UAV-Human (skeletons)"
    HOMEPAGE = FACTS["homepage"]
    CITATION = FACTS["citation"]
    LICENSE = "UAV-Human: non-commercial scientific research, no redistribution."

    @property
    def protocol(self) -> str:
        return self.config.name.removesuffix("-video")

    def facts(self, data_dir: Path) -> list[Path]:
        return [facts_file("uav_human")]

    def class_names(self) -> list[str]:
        return [entry["name"] for entry in FACTS["classes"]]

    def place(self, stem: str) -> tuple[str, Placement, dict[str, int]]:
        name = parse_uav_human_name(stem)
        return str(name), place_uav_human(self.protocol, name), name._asdict()

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return read_skeleton(file, layout="coco17", fps=FACTS["fps"])

    def protocol_rule(self) -> str:
        rule = FACTS["protocols"][self.protocol]
        return (
            f"train: persons {ranges(rule['train'])}; test: the other {FACTS['persons'] - len(rule['train'])}; "
            f"held out: the recordings of persons {ranges(rule['held_out_persons'])}."
        )

    def published_fields(self) -> dict[str, Iterable[int]]:
        return {"person": range(FACTS["persons"])}

    def published_counts(self) -> dict[str, int]:
        return FACTS["protocols"][self.protocol]["counts"]
