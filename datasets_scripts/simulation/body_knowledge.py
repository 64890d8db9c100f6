"""Common knowledge about bodies: body parts, objects that hands hold, and the steps of actions.

The table is `body_knowledge.json`, written for this project. Its actions cover the class names of NTU RGB+D 120 and UTD-MHAD,
and other sports, exercises and everyday actions.
"""

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

PARTNER = "partner "
TWO_PEOPLE = "two-person action"

_VERB = re.compile(r"\bto ([a-z]+)")
_STEP = re.compile(r"(?P<part>[a-z ]+) (?P<sign>[>:]) (?P<verb>[a-z]+)(?: (?P<rest>.+))?")


class BodyKnowledgeError(ValueError):
    """A row of the table cannot be read."""


@dataclass(frozen=True)
class Step:
    """A movement of a body part in an action.

    Attributes:
        part: the part that moves, such as "right hand", "both arms" or "head"; also "ball" or "body".
        by_person: whether the person does something with the part ("lift the cup"); otherwise the part itself moves ("tilt
            back").
        verb: base form of the verb.
        rest: the words after the verb, or "".
        partner: whether the part belongs to the second person.
    """

    part: str
    by_person: bool
    verb: str
    rest: str
    partner: bool


@dataclass(frozen=True)
class Action:
    """An action.

    Attributes:
        name: the class name.
        does: verb phrase that starts with the base form of the verb.
        kind: category, such as "gesture" or "sport"; `TWO_PEOPLE` for actions of two people.
        purpose: why people do it, such as "to greet somebody".
        steps: the steps, ordered by time.
        thing: the object that is used, with its article, or "".
        posture: standing, sitting, walking, running, kneeling or lying.
        repeated: whether a performance repeats the steps.
        same_as: name of the action that this one is in other words ("hand waving" for "right hand wave"), or "".
    """

    name: str
    does: str
    kind: str
    purpose: str
    steps: tuple[Step, ...]
    thing: str = ""
    posture: str = "standing"
    repeated: bool = False
    same_as: str = ""

    @property
    def people(self) -> int:
        """Number of people, 1 or 2."""
        return 2 if self.kind == TWO_PEOPLE else 1

    @property
    def verb(self) -> str:
        """The base form of the verb."""
        return self.does.partition(" ")[0]

    @property
    def thing_name(self) -> str:
        """The object without its article, as in `Thing.name`."""
        return self.thing.removeprefix("a ").removeprefix("an ")


@dataclass(frozen=True)
class BodyPart:
    """A body part: how many a person has, where it is, its region (head, trunk, arm, leg) and its use, or ""."""

    name: str
    count: int
    place: str
    region: str
    use: str


@dataclass(frozen=True)
class Thing:
    """An object: what it is and where it is kept."""

    name: str
    definition: str
    place: str


@dataclass(frozen=True)
class Word:
    """A word about actions and recordings, and its meaning."""

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
    """Parses "right hand > lift the cup" (done with the part) or "head : tilt back" (the part moves).

    A part that starts with "partner" belongs to the second person.

    Raises:
        BodyKnowledgeError: if the text has another form.
    """
    match = _STEP.fullmatch(text)
    if match is None:
        raise BodyKnowledgeError(f"expected a step 'part > verb rest' or 'part : verb rest', found {text!r}")
    part = match["part"]
    return Step(part.removeprefix(PARTNER), match["sign"] == ">", match["verb"], match["rest"] or "", PARTNER in part)


@cache
def body_knowledge(without: frozenset[str] = frozenset()) -> BodyKnowledge:
    """
    The table in `body_knowledge.json`, without some actions.

    With an action go those that are the same in other words (`same_as`), the objects that no other action uses, and the uses of
    body parts that name it ("to clap" is a use of the palm).

    Args:
        without: names of actions.

    Raises:
        ValueError: if the table has no action of such a name.
    """
    if without:
        return _without(body_knowledge(), without)
    table = json.loads(Path(__file__).with_name("body_knowledge.json").read_text(encoding="utf-8"))
    return BodyKnowledge(
        parts=tuple(BodyPart(**row) for row in table["parts"]),
        things=tuple(Thing(**row) for row in table["things"]),
        words=tuple(Word(**row) for row in table["words"]),
        actions=tuple(Action(**{**row, "steps": tuple(map(read_step, row["steps"]))}) for row in table["actions"]),
    )


def _without(knowledge: BodyKnowledge, names: frozenset[str]) -> BodyKnowledge:
    same = {action.name: action.same_as or action.name for action in knowledge.actions}
    if unknown := sorted(names - set(same)):
        raise ValueError(f"body_knowledge.json has no action {unknown[0]!r}: add it there, or correct the name.")
    left_out = {same[name] for name in names}
    kept = tuple(action for action in knowledge.actions if same[action.name] not in left_out)
    dropped = [action for action in knowledge.actions if same[action.name] in left_out]
    unused = {action.thing_name for action in dropped} - {action.thing_name for action in kept}
    words = set(" ".join(f"{action.name} {action.verb}" for action in dropped).split())
    return BodyKnowledge(
        parts=tuple(replace(p, use="") if words.intersection(_VERB.findall(p.use)) else p for p in knowledge.parts),
        things=tuple(thing for thing in knowledge.things if thing.name not in unused),
        words=knowledge.words,
        actions=kept,
    )
