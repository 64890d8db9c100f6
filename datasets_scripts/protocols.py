"""The training and test splits of NTU RGB+D 60 and 120, as functions of file names.

The facts (subject lists, unseen classes, published counts, class names) are data files beside this module, each with its
sources: `ntu_protocols.json`, `ntu_classes.json` and `ntu_missing_skeletons.txt`. No recording is opened, so the splits of a
list of file names can be counted without the data.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.IGNORECASE)


def facts_file(name: str) -> Path:
    """`name`.json beside this module."""
    return Path(__file__).with_name(f"{name}.json")


@cache
def read_facts(name: str) -> dict:
    """What is published about a data set, with its sources: the content of `facts_file(name)`."""
    return json.loads(facts_file(name).read_text(encoding="utf-8"))


class NotInProtocolError(ValueError):
    """A recording that a protocol does not use: `kind` is a category to count by, `detail` the full reason."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind
        self.detail = detail

    def __reduce__(self):  # errors travel between processes
        return type(self), (self.kind, self.detail)


def match_name(pattern: re.Pattern, stem: str, expected: str) -> tuple[str, ...]:
    """The groups of a file name that matches a pattern.

    Raises:
        NotInProtocolError: if it does not match; `expected` describes the pattern.
    """
    match = pattern.fullmatch(stem)
    if match is None:
        raise NotInProtocolError("name", f"expected {expected}, found {stem!r}")
    return match.groups()


class NTUName(NamedTuple):
    """The numbers of an NTU file name. All count from 1."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    def __str__(self) -> str:
        return "S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*self)


def parse_ntu_name(stem: str) -> NTUName:
    """Parses a name such as `S001C002P003R002A013`, in upper or lower case.

    Raises:
        NotInProtocolError: if the name has another form.
    """
    return NTUName(*map(int, match_name(_NAME, stem, "SsssCcccPpppRrrrAaaa with three digits each")))


class Placement(NamedTuple):
    """Where a recording belongs: its split, its label in that split, and whether it is held out for model selection."""

    split: str
    label: int
    held_out: bool


@dataclass(frozen=True)
class NTUProtocol:
    """A training and test split of NTU RGB+D, or of simulated recordings with NTU names.

    Attributes:
        name: such as "ntu60-xsub".
        dataset: "ntu60", "ntu120" or "simulated".
        split_by: field of the file name that decides between train and test; None if only the class decides.
        train, test: values of that field.
        train_actions, test_actions: action ids in label order; the same in both, or disjoint (unseen classes).
        exemplars: names of the one-shot exemplars.
        held_out: performers whose training recordings select checkpoints and settings.
        counts: published or computed counts, {"full" | "clean": {split: recordings}}; empty if unknown.
    """

    name: str
    dataset: str
    split_by: str | None
    train: frozenset[int]
    test: frozenset[int]
    train_actions: tuple[int, ...]
    test_actions: tuple[int, ...]
    exemplars: frozenset[str]
    held_out: frozenset[int]
    counts: dict[str, dict[str, int]]

    @cached_property
    def _train_labels(self) -> dict[int, int]:
        return {action: label for label, action in enumerate(self.train_actions)}

    @cached_property
    def _test_labels(self) -> dict[int, int]:
        return {action: label for label, action in enumerate(self.test_actions)}

    @property
    def has_unseen_classes(self) -> bool:
        return self.train_actions != self.test_actions

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "exemplars", "test") if self.exemplars else ("train", "test")

    @property
    def missing(self) -> frozenset[str]:
        """Names of recordings without complete skeletons; empty for simulated recordings, which are all complete."""
        return frozenset() if self.dataset == "simulated" else ntu_missing_skeletons()

    def actions(self, split: str) -> tuple[int, ...]:
        """Action ids of a split in label order."""
        return self.train_actions if split == "train" else self.test_actions

    def class_names(self, split: str) -> list[str]:
        """Class names of a split in label order; `train` has no unseen class."""
        names = ntu_class_names()
        return [names[action - 1] for action in self.actions(split)]

    def place(self, name: NTUName) -> Placement:
        """The split and label of a recording, and whether it is held out.

        Raises:
            NotInProtocolError: if the recording is in no split; gives the reason.
        """
        self._check_in_dataset(name)
        value = None if self.split_by is None else getattr(name, self.split_by)
        train_label, test_label = self._train_labels.get(name.action), self._test_labels.get(name.action)
        if train_label is not None and (value is None or value in self.train):
            return Placement("train", train_label, name.performer in self.held_out)
        if test_label is not None and (value is None or value in self.test):
            split = "exemplars" if self.exemplars and str(name) in self.exemplars else "test"
            return Placement(split, test_label, False)
        if train_label is None and test_label is None:
            raise NotInProtocolError("action", f"action A{name.action:03d} is not in {self.name}")
        seen = "seen" if test_label is None else "unseen"
        raise NotInProtocolError("unused", f"{self.name} does not use {seen} classes of {self.split_by} {value}")

    def numbers(self, field: str) -> range:
        """All values of a field of the file name: 1 to the number of setups, cameras, performers or actions."""
        return range(1, read_facts("ntu_protocols")["datasets"][self.dataset][f"{field}s"] + 1)

    def _check_in_dataset(self, name: NTUName) -> None:
        title, limits = self._limits
        for field, letter, limit in limits:
            number = getattr(name, field)
            if not 1 <= number <= limit:
                raise NotInProtocolError(
                    field,
                    f"{field} {letter}{number:03d} is not in {title}, expected {letter}001 to {letter}{limit:03d}",
                )

    @cached_property
    def _limits(self) -> tuple[str, list[tuple[str, str, int]]]:
        facts = read_facts("ntu_protocols")["datasets"][self.dataset]
        fields = (("action", "A"), ("performer", "P"), ("camera", "C"), ("setup", "S"))
        return facts["title"], [(field, letter, facts[field + "s"]) for field, letter in fields]


@cache
def ntu_class_names() -> tuple[str, ...]:
    """The 120 class names in label order. The first 60 are those of NTU RGB+D 60."""
    return tuple(entry["name"] for entry in read_facts("ntu_classes")["classes"])


@cache
def ntu_missing_skeletons() -> frozenset[str]:
    """The 535 recordings of NTU RGB+D 120 without complete skeletons, of which 302 are in NTU RGB+D 60."""
    lines = Path(__file__).with_name("ntu_missing_skeletons.txt").read_text(encoding="utf-8").split("\n")
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _build(name: str, facts: dict) -> NTUProtocol:
    published = read_facts("ntu_protocols")
    every = tuple(range(1, published["datasets"][facts["dataset"]]["actions"] + 1))
    unseen = tuple(facts.get("unseen_actions", ()))
    # Zero-shot protocols also split by performer, like X-Sub of the same data set.
    rule = published["protocols"][facts["performers_of"]] if "performers_of" in facts else facts
    return NTUProtocol(
        name=name,
        dataset=facts["dataset"],
        split_by=rule.get("split_by"),
        train=frozenset(rule.get("train", ())),
        test=frozenset(rule.get("test", ())),
        train_actions=tuple(action for action in every if action not in unseen),
        test_actions=unseen or every,
        exemplars=frozenset(facts.get("exemplars", ())),
        held_out=frozenset(facts["held_out_performers"]),
        counts=facts.get("counts", {}),
    )


NTU_PROTOCOLS: dict[str, NTUProtocol] = {
    name: _build(name, facts) for name, facts in read_facts("ntu_protocols")["protocols"].items()
}


def ranges(numbers: Iterable[int]) -> str:
    """`[1, 2, 3, 5]` → `1–3, 5`."""
    parts, numbers = [], sorted(numbers)
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}–{last}" for first, last in parts)
