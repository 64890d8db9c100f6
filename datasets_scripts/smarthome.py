"""Builder of Toyota Smarthome skeletons (trimmed clips): 31 activities of daily living, 18 people, 7 cameras.

    builder = Smarthome(config_name="smarthome-cs", data_dir="skeletons")
    builder.download_and_prepare()

Configs, with the facts, sources and published counts in `smarthome.json`:

    smarthome-cs      by subject, 31 classes; `train` (11 subjects, as skeleton papers have it) and `test`
    smarthome-cv1     by camera, 19 classes; `train` (camera 1), `validation` (camera 5) and `test` (camera 2)
    smarthome-cv2     the same with five training cameras

`held_out` marks the training clips of subjects 19 and 25 everywhere: under CS they are the official validation set.
Under CV that is camera 5, a split of its own, since its clips never train; whoever selects on it needs no `held_out`.

The clips cannot be downloaded without an agreement (https://project.inria.fr/toyotasmarthome/); `data_dir` holds the
`.json` files, or the archive, of one version of the skeletons. Of two versions of a clip, one is skipped as a duplicate.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from action_llm import smarthome_files
from action_llm.skeleton_files import SkeletonRecording

from .building import SkeletonBuilder, SkeletonConfig
from .protocols import NotInProtocolError, Placement, ranges

_FACTS = Path(__file__).parent / "smarthome.json"
# The refined skeletons are named …_pose3d.
_NAME = re.compile(r"([A-Za-z.]+)_p(\d{2})_r(\d{2})_v(\d{2})_c(\d{2})(?:_[A-Za-z0-9+.]+)?", re.ASCII)


@cache
def smarthome_facts() -> dict:
    """Classes, protocols and counts with their sources, as in `smarthome.json`."""
    return json.loads(_FACTS.read_text(encoding="utf-8"))


class SmarthomeName(NamedTuple):
    """The parts of the name of a clip."""

    activity: str
    subject: int
    take: int
    session: int
    camera: int

    def __str__(self) -> str:
        return "{}_p{:02d}_r{:02d}_v{:02d}_c{:02d}".format(*self)


def parse_smarthome_name(stem: str) -> SmarthomeName:
    """`Drink.Fromcup_p02_r00_v03_c01`, also with a tag such as `_pose3d` behind it -> its parts.

    Raises:
        NotInProtocolError: any other name.
    """
    match = _NAME.fullmatch(stem)
    if match is None:
        raise NotInProtocolError(
            "name", f"found {stem!r}, expected <Activity>_p<..>_r<..>_v<..>_c<..>, two digits each"
        )
    return SmarthomeName(match[1], *map(int, match.groups()[1:]))


@cache
def smarthome_activities(cross_view: bool = False) -> tuple[str, ...]:
    """The official activity ids in label order: 31, or the 19 of CV1 and CV2."""
    return tuple(entry["activity"] for entry in smarthome_facts()["classes"] if entry["cross_view"] or not cross_view)


def place_smarthome(protocol: str, name: SmarthomeName) -> Placement:
    """Split, label and role of a clip under "smarthome-cs", "smarthome-cv1" or "smarthome-cv2".

    Raises:
        NotInProtocolError: the clip is in no split; says why.
    """
    facts = smarthome_facts()
    rule = facts["protocols"][protocol]
    for field in ("subject", "camera"):
        if getattr(name, field) not in facts[field + "s"]:
            raise NotInProtocolError(field, f"{field} {getattr(name, field)} of {name} is not in Toyota Smarthome")
    if name.activity in facts["no_class"]:
        raise NotInProtocolError("no class", f"{name}: {facts['no_class'][name.activity]}")
    if name.activity not in smarthome_activities():
        raise NotInProtocolError("activity", f"activity {name.activity!r} of {name} is not in Toyota Smarthome")
    activities = smarthome_activities(rule["cross_view"])
    if name.activity not in activities:
        raise NotInProtocolError("unused", f"{protocol} has no use for {name.activity}")
    value = getattr(name, rule["split_by"])
    for split in smarthome_splits(protocol):
        if value in rule[split]:
            held_out = split == "train" and name.subject in facts["held_out_subjects"]
            return Placement(split, activities.index(name.activity), held_out)
    raise NotInProtocolError("unused", f"{protocol} has no use for {rule['split_by']} {value}")


def smarthome_splits(protocol: str) -> tuple[str, ...]:
    rule = smarthome_facts()["protocols"][protocol]
    return tuple(split for split in ("train", "validation", "test") if split in rule)


@dataclass
class SmarthomeConfig(SkeletonConfig):
    """Config of `Smarthome`; `pose` is "pose3d" (metres) or "pose2d" (pixels; what the layout lcrnet17 is made of)."""

    pose: str = "pose3d"


class Smarthome(SkeletonBuilder):
    """Skeletons of Toyota Smarthome (13 joints); columns in `building`, plus the numbers of the name.

    `action` is the position of the activity among all 31, whatever the labels of the config are.
    """

    BUILDER_CONFIG_CLASS = SmarthomeConfig
    BUILDER_CONFIGS = [SmarthomeConfig(name=name) for name in smarthome_facts()["protocols"]]
    SUFFIX = ".json"
    FIELDS = ("subject", "take", "session", "camera", "action")
    TITLE = "Toyota Smarthome (skeletons)"
    HOMEPAGE = smarthome_facts()["homepage"]
    METRIC = "mean_per_class"
    CITATION = smarthome_facts()["citation"]
    LICENSE = "Toyota Smarthome: research use under a signed agreement, no redistribution."

    @property
    def protocol(self) -> str:
        return self.config.name.removesuffix("-video")

    def facts(self, data_dir: Path) -> list[Path]:
        return [_FACTS, Path(smarthome_files.__file__)]

    def split_names(self) -> tuple[str, ...]:
        return smarthome_splits(self.protocol)

    def class_names(self) -> list[str]:
        activities = smarthome_activities(smarthome_facts()["protocols"][self.protocol]["cross_view"])
        return [entry["name"] for entry in smarthome_facts()["classes"] if entry["activity"] in activities]

    def place(self, stem: str) -> tuple[str, Placement, dict[str, int]]:
        name = parse_smarthome_name(stem)
        placement = place_smarthome(self.protocol, name)
        fields = name._asdict()
        fields["action"] = smarthome_activities().index(fields.pop("activity"))
        return str(name), placement, fields

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return smarthome_files.read_smarthome(file, pose=self.config.pose, fps=smarthome_facts()["fps"])

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.config.pose not in smarthome_files.POSES:
            raise ValueError(f"pose: expected one of {list(smarthome_files.POSES)}, got {self.config.pose!r}")

    def protocol_rule(self) -> str:
        rule = smarthome_facts()["protocols"][self.protocol]
        who = ", ".join(f"{ranges(rule[split])} {split}" for split in self.split_names())
        held_out = ranges(smarthome_facts()["held_out_subjects"])
        return f"{rule['split_by']}s {who}; `held_out` are the training clips of subjects {held_out}."

    def published_class_counts(self) -> dict[str, dict[str, int]]:
        clips = {entry["name"]: entry["clips"].get(self.protocol, {}) for entry in smarthome_facts()["classes"]}
        names = self.class_names()
        return {split: {name: clips[name][split] for name in names} for split in self.split_names()}

    def published_fields(self) -> dict[str, Iterable[int]]:
        facts = smarthome_facts()
        rule = facts["protocols"][self.protocol]
        used = [value for split in self.split_names() for value in rule[split]]
        return {field: facts[f"{field}s"] for field in ("subject", "camera")} | {rule["split_by"]: used}

    def published_counts(self) -> dict[str, int]:
        counts = smarthome_facts()["protocols"][self.protocol]["counts"]
        return {split: counts[split] for split in self.split_names()}
