"""What everybody knows about bodies: parts of the body, things that hands hold, and actions, limb by limb.

The table itself is `body_knowledge.json`. It was written for this project, from common knowledge. Its actions cover
the class names of NTU RGB+D 120 and of UTD-MHAD, beside other sports, exercises and everyday actions.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PARTNER = "partner "
TWO_PEOPLE = "two-person action"

_STEP = re.compile(r"(?P<part>[a-z ]+) (?P<sign>[>:]) (?P<verb>[a-z]+)(?: (?P<rest>.+))?")


class BodyKnowledgeError(ValueError):
    """A row of the table cannot be read."""


@dataclass(frozen=True)
class Step:
    """One limb's share in an action.

    Attributes:
        part: what moves: "right hand", "both arms", "head"; also "ball" or "body".
        by_person: the person does it *with* the part ("lift the cup"); otherwise the part itself moves ("tilt back").
        verb: base form.
        rest: what follows the verb, or "".
        partner: the part belongs to the second person.
    """

    part: str
    by_person: bool
    verb: str
    rest: str
    partner: bool


@dataclass(frozen=True)
class Action:
    """One action.

    Attributes:
        name: what it is called, as a label.
        does: verb phrase, base form of the verb first.
        kind: "gesture", "sport", ...; `TWO_PEOPLE` for actions of two.
        purpose: why people do it, such as "to greet somebody".
        steps: in the order of time.
        thing: the object that is used, with its article, or "".
        posture: how the body is held: standing, sitting, walking, running, kneeling or lying.
        repeated: whether one performance repeats the steps.
    """

    name: str
    does: str
    kind: str
    purpose: str
    steps: tuple[Step, ...]
    thing: str = ""
    posture: str = "standing"
    repeated: bool = False

    @property
    def people(self) -> int:
        """1 or 2."""
        return 2 if self.kind == TWO_PEOPLE else 1


@dataclass(frozen=True)
class BodyPart:
    """A part of the body: how many of it a person has, where it is, its region (head, trunk, arm, leg), its use."""

    name: str
    count: int
    place: str
    region: str
    use: str


@dataclass(frozen=True)
class Thing:
    """An object: what it is and where it is found."""

    name: str
    definition: str
    place: str


@dataclass(frozen=True)
class Word:
    """A word about actions and recordings, and what it means."""

    name: str
    definition: str


@dataclass(frozen=True)
class BodyKnowledge:
    """The whole table."""

    parts: tuple[BodyPart, ...]
    things: tuple[Thing, ...]
    words: tuple[Word, ...]
    actions: tuple[Action, ...]


def read_step(text: str) -> Step:
    """Read "right hand > lift the cup" (done with the part) or "head : tilt back" (the part moves).

    A part that begins with "partner" belongs to the second person. Raises `BodyKnowledgeError` for anything else.
    """
    match = _STEP.fullmatch(text)
    if match is None:
        raise BodyKnowledgeError(f"step {text!r} is not of the form 'part > verb rest' or 'part : verb rest'")
    part = match["part"]
    return Step(part.removeprefix(PARTNER), match["sign"] == ">", match["verb"], match["rest"] or "", PARTNER in part)


@cache
def body_knowledge() -> BodyKnowledge:
    """Read the table that lies beside this file."""
    table = json.loads(Path(__file__).with_name("body_knowledge.json").read_text(encoding="utf-8"))
    return BodyKnowledge(
        parts=tuple(BodyPart(**row) for row in table["parts"]),
        things=tuple(Thing(**row) for row in table["things"]),
        words=tuple(Word(**row) for row in table["words"]),
        actions=tuple(Action(**{**row, "steps": tuple(map(read_step, row["steps"]))}) for row in table["actions"]),
    )
