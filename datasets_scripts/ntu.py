"""Builder for the skeletons of NTU RGB+D 60 and 120, and for simulated recordings with NTU names.

    builder = NTUSkeletons(config_name="ntu60-xsub", data_dir="nturgb+d_skeletons")
    builder.download_and_prepare(num_proc=2)
    splits = builder.as_dataset()

There is a config for each protocol of `ntu_protocols.json`. A protocol with unseen classes (one-shot, zero-shot, and the draws
of LLM-AR) has two: `…-seen` with the split `train`, and `…-unseen` with `test` (and `exemplars`). Each has its own ClassLabel,
so no file, row or feature of the training config names an unseen class.

A signed agreement gives access to the data set (https://rose1.ntu.edu.sg/dataset/actionRecognition/). `data_dir` is the folder
of one or both archives, or of the unpacked `.skeleton` files.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from action_llm.skeleton_files import JOINT_EXTRAS, SkeletonRecording, read_skeleton

from .building import SIMULATION_RECORD, DataFolderError, SkeletonBuilder, SkeletonConfig
from .protocols import NTU_PROTOCOLS, NotInProtocolError, NTUProtocol, Placement, parse_ntu_name, ranges

_HERE = Path(__file__).parent


@dataclass
class NTUConfig(SkeletonConfig):
    """Config of `NTUSkeletons`.

    Attributes:
        protocol: name in `NTU_PROTOCOLS`.
        part: "all"; or "seen" or "unseen", if the protocol has unseen classes.
        skip_missing: leave out the recordings on the published list of incomplete skeletons.
    """

    protocol: str = ""
    part: str = "all"
    skip_missing: bool = True


def _configs() -> list[NTUConfig]:
    return [
        NTUConfig(name=name if part == "all" else f"{name}-{part}", protocol=name, part=part)
        for name, protocol in NTU_PROTOCOLS.items()
        for part in (("seen", "unseen") if protocol.has_unseen_classes else ("all",))
    ]


class NTUSkeletons(SkeletonBuilder):
    """Skeletons of NTU RGB+D, recorded or simulated. Columns: as in `building`, and the numbers of the file name."""

    BUILDER_CONFIG_CLASS = NTUConfig
    BUILDER_CONFIGS = _configs()
    SUFFIX = ".skeleton"
    JOINT_EXTRAS = tuple(JOINT_EXTRAS)
    FIELDS = ("setup", "camera", "performer", "replication", "action")
    TITLE = "NTU RGB+D (skeletons)"
    HOMEPAGE = "https://rose1.ntu.edu.sg/dataset/actionRecognition/"
    CITATION = (
        "A. Shahroudy, J. Liu, T.-T. Ng, G. Wang: NTU RGB+D: A large scale dataset for 3D human activity analysis. "
        "CVPR 2016. J. Liu, A. Shahroudy, M. Perez, G. Wang, L.-Y. Duan, A. C. Kot: NTU RGB+D 120: A large-scale "
        "benchmark for 3D human activity understanding. TPAMI 42(10), 2020."
    )
    LICENSE = "NTU RGB+D: research use under a signed agreement, no redistribution."

    @cached_property
    def protocol(self) -> NTUProtocol:
        protocol = NTU_PROTOCOLS[self.config.protocol]
        record = Path(self.config.data_dir, SIMULATION_RECORD)
        if protocol.dataset != "simulated":
            if record.exists():
                raise DataFolderError(
                    f"{self.config.name} expects recordings of people, but {self.config.data_dir!r} holds simulated "
                    "recordings: use simulated-xsub, simulated-xview or simulated-unseen"
                )
            return protocol
        if not record.exists():
            raise DataFolderError(
                f"{self.config.name} expects simulated recordings, but {self.config.data_dir!r} has no {SIMULATION_RECORD}: "
                "action-llm-simulate writes such a folder"
            )
        try:
            actions = set(map(int, json.loads(record.read_text(encoding="utf-8"))["actions"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataFolderError(
                f"{record}: expected the record of a simulation ({type(error).__name__}: {error})"
            ) from error
        train, test = ([a for a in ids if a in actions] for ids in (protocol.train_actions, protocol.test_actions))
        return replace(protocol, train_actions=tuple(train), test_actions=tuple(test))

    @property
    def may_be_published(self) -> bool:
        return self.protocol.dataset == "simulated"

    @property
    def terms(self) -> str:
        return "Simulated recordings: Apache-2.0." if self.may_be_published else self.LICENSE

    def protocol_rule(self) -> str:
        protocol = self.protocol
        parts = {"train": [], "test": []}
        if protocol.has_unseen_classes:
            parts["train"].append(f"actions {ranges(protocol.train_actions)}")
            parts["test"].append(f"the unseen actions {ranges(protocol.test_actions)}")
        if protocol.split_by is not None:
            for split, numbers in (("train", protocol.train), ("test", protocol.test)):
                parts[split].append(f"{protocol.split_by}{'s' * (len(numbers) > 1)} {ranges(numbers)}")
        rules = [f"{split}: {' of '.join(part)}" for split, part in parts.items()]
        if protocol.exemplars:
            rules.append(f"exemplars: {len(protocol.exemplars)} recordings, one of each unseen action")
        rules.append(f"held out: the training recordings of performers {ranges(protocol.held_out)}.")
        return "; ".join(rules)

    def facts(self, data_dir: Path) -> list[Path]:
        names = ("protocols.py", "ntu_protocols.json", "ntu_classes.json", "ntu_missing_skeletons.txt")
        record = data_dir / SIMULATION_RECORD
        return [*(_HERE / name for name in names), *([record] if record.exists() else [])]

    def split_names(self) -> tuple[str, ...]:
        splits = self.protocol.splits
        return {"all": splits, "seen": splits[:1], "unseen": splits[1:]}[self.config.part]

    def class_names(self) -> list[str]:
        return self.protocol.class_names(self.split_names()[0])

    def place(self, stem: str) -> tuple[str, Placement | None, dict[str, int]]:
        name = parse_ntu_name(stem)
        placement = self.protocol.place(name)
        if self.config.skip_missing and str(name) in self.protocol.missing:
            raise NotInProtocolError("missing skeleton", f"{name} is on the list of incomplete skeletons")
        if placement.split not in self.split_names():
            placement = None
        return str(name), placement, name._asdict()

    def read(self, file: BinaryIO) -> SkeletonRecording:
        return read_skeleton(file, keep=self.config.keep)

    def published_class_counts(self) -> dict[str, dict[str, int]]:
        protocol = self.protocol
        if protocol.dataset == "simulated" or protocol.has_unseen_classes:
            return {}
        missing = Counter(parse_ntu_name(name).action for name in protocol.missing) if self.config.skip_missing else {}
        totals = {action: 948 if action <= 60 else 960 for action in protocol.train_actions}
        names = zip(self.class_names(), protocol.train_actions, strict=True)
        return {"all": {name: totals[action] - missing.get(action, 0) for name, action in names}}

    def published_fields(self) -> dict[str, Iterable[int]]:
        protocol = self.protocol
        fields = {field: protocol.numbers(field) for field in ("setup", "camera", "performer")}
        if self.config.part != "all" and protocol.split_by is not None:
            fields[protocol.split_by] = protocol.train if self.config.part == "seen" else protocol.test
        return fields

    def published_counts(self) -> dict[str, int]:
        counts = self.protocol.counts.get("clean" if self.config.skip_missing else "full", {})
        return {split: count for split, count in counts.items() if split in self.split_names()}
