"""Builder for the skeletons of Toyota Smarthome (trimmed clips): 31 activities of daily living, 18 people, 7 cameras.

    builder = Smarthome(config_name="smarthome-cs", data_dir="skeletons")
    builder.download_and_prepare()

Configs, with the facts, sources and published counts in `smarthome.json`:

    smarthome-cs      split by subject, 31 classes: `train` (11 subjects, as in papers on skeletons) and `test`
    smarthome-cv1     split by camera, 19 classes: `train` (camera 1), `validation` (camera 5) and `test` (camera 2)
    smarthome-cv2     as smarthome-cv1, with five training cameras

`held_out` marks the training clips of subjects 19 and 25, the official validation set of CS. The official validation set of CV1
and CV2 is camera 5. Its clips are never used for training, so they form a split of their own, and can select settings in place
of `held_out`.

A signed agreement gives access to the clips (https://project.inria.fr/toyotasmarthome/). `data_dir` holds the `.json` files of
one version of the skeletons, or their archive. If a clip is there in two versions, one is skipped as a duplicate.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from action_llm import json_files, smarthome_files
from action_llm.skeleton_files import SkeletonRecording

from .building import SkeletonBuilder, SkeletonConfig
from .protocols import NotInProtocolError, Placement, facts_file, match_name, ranges, read_facts

FACTS = read_facts("smarthome")
# The names of refined skeletons end in _pose3d.
_NAME = re.compile(r"([A-Za-z.]+)_p(\d{2})_r(\d{2})_v(\d{2})_c(\d{2})(?:_[A-Za-z0-9+.]+)?", re.ASCII)


class SmarthomeName(NamedTuple):
    """The parts of a clip's name."""

    activity: str
    subject: int
    take: int
    session: int
    camera: int

    def __str__(self) -> str:
        return "{}_p{:02d}_r{:02d}_v{:02d}_c{:02d}".format(*self)


def parse_smarthome_name(stem: str) -> SmarthomeName:
    """Parses a name such as `Drink.Fromcup_p02_r00_v03_c01`, with or without a tag such as `_pose3d` at its end.

    Raises:
        NotInProtocolError: if the name has another form.
    """
    activity, *numbers = match_name(_NAME, stem, "<Activity>_p<..>_r<..>_v<..>_c<..> with two digits each")
    return SmarthomeName(activity, *map(int, numbers))


@cache
def smarthome_activities(cross_view: bool = False) -> tuple[str, ...]:
    """The official names of the activities in label order: all 31, or the 19 of CV1 and CV2."""
    return tuple(entry["activity"] for entry in FACTS["classes"] if entry["cross_view"] or not cross_view)


def place_smarthome(protocol: str, name: SmarthomeName) -> Placement:
    """The split and label of a clip under "smarthome-cs", "smarthome-cv1" or "smarthome-cv2", and whether it is held out.

    Raises:
        NotInProtocolError: if the clip is in no split; gives the reason.
    """
    rule = FACTS["protocols"][protocol]
    for field in ("subject", "camera"):
        if getattr(name, field) not in FACTS[field + "s"]:
            raise NotInProtocolError(field, f"{field} {getattr(name, field)} of {name} is not in Toyota Smarthome")
    if name.activity in FACTS["no_class"]:
        raise NotInProtocolError("no class", f"{name}: {FACTS['no_class'][name.activity]}")
    if name.activity not in smarthome_activities():
        raise NotInProtocolError("activity", f"activity {name.activity!r} of {name} is not in Toyota Smarthome")
    activities = smarthome_activities(rule["cross_view"])
    if name.activity not in activities:
        raise NotInProtocolError("unused", f"{protocol} does not use {name.activity}")
    value = getattr(name, rule["split_by"])
    for split in smarthome_splits(protocol):
        if value in rule[split]:
            held_out = split == "train" and name.subject in FACTS["held_out_subjects"]
            return Placement(split, activities.index(name.activity), held_out)
    raise NotInProtocolError("unused", f"{protocol} does not use {rule['split_by']} {value}")


def smarthome_splits(protocol: str) -> tuple[str, ...]:
    """The splits that a protocol has, out of train, validation and test."""
    rule = FACTS["protocols"][protocol]
    return tuple(split for split in ("train", "validation", "test") if split in rule)


@dataclass
class SmarthomeConfig(SkeletonConfig):
    """Config of `Smarthome`; `pose` is "pose3d" (metres) or "pose2d" (pixels; for the layout lcrnet17)."""

    pose: str = "pose3d"


class Smarthome(SkeletonBuilder):
    """Skeletons of Toyota Smarthome (13 joints). Columns: as in `building`, and the numbers of the file name.

    `action` is the index of the activity among all 31, also in configs with 19 classes.
    """

    BUILDER_CONFIG_CLASS = SmarthomeConfig
    BUILDER_CONFIGS = [SmarthomeConfig(name=name) for name in FACTS["protocols"]]
    SUFFIX = ".json"
    FIELDS = ("subject", "take", "session", "camera", "action")
    TITLE = "Toyota Smarthome (skeletons)"
    HOMEPAGE = FACTS["homepage"]
    METRIC = "mean_per_class"
    CITATION = FACTS["citation"]
    LICENSE = "Toyota Smarthome: research use under a signed agreement, no redistribution."

    @property
    def protocol(self) -> str:
        return self.config.name.removesuffix("-video")

    def facts(self, data_dir: Path) -> list[Path]:
        return [facts_file("smarthome"), Path(smarthome_files.__file__), Path(json_files.__file__)]

    def split_names(self) -> tuple[str, ...]:
        return smarthome_splits(self.protocol)

    def class_names(self) -> list[str]:
        activities = smarthome_activities(FACTS["protocols"][self.protocol]["cross_view"])
        return [entry["name"] for entry in FACTS["classes"] if entry["activity"] in activities]

    def place(self, stem: str) -> tuple[str, Placement, dict[str, int]]:
        name = parse_smarthome_name(stem)
        placement = place_smarthome(self.protocol, name)
        fields = name._asdict()
        fields["action"] = smarthome_activities().index(fields.pop("activity"))
        return str(name), placement, fields

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return smarthome_files.read_smarthome(file, pose=self.config.pose, fps=FACTS["fps"])

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.config.pose not in smarthome_files.POSES:
            raise ValueError(f"pose: expected one of {list(smarthome_files.POSES)}, got {self.config.pose!r}")

    def protocol_rule(self) -> str:
        rule = FACTS["protocols"][self.protocol]
        splits = "; ".join(
            f"{split}: {rule['split_by']}{'s' * (len(rule[split]) > 1)} {ranges(rule[split])}"
            for split in self.split_names()
        )
        return f"{splits}; held out: the training clips of subjects {ranges(FACTS['held_out_subjects'])}."

    def published_class_counts(self) -> dict[str, dict[str, int]]:
        clips = {entry["name"]: entry["clips"].get(self.protocol, {}) for entry in FACTS["classes"]}
        names = self.class_names()
        return {split: {name: clips[name][split] for name in names} for split in self.split_names()}

    def published_fields(self) -> dict[str, Iterable[int]]:
        rule = FACTS["protocols"][self.protocol]
        used = [value for split in self.split_names() for value in rule[split]]
        return {field: FACTS[f"{field}s"] for field in ("subject", "camera")} | {rule["split_by"]: used}

    def published_counts(self) -> dict[str, int]:
        counts = FACTS["protocols"][self.protocol]["counts"]
        return {split: counts[split] for split in self.split_names()}
