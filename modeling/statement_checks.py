"""Checks of a text about a recording: which of its statements about the body the joints support, and which they contradict.

The text may come from anybody, such as a language model. Statements are found by their words, a clause each. A statement is
supported if the joints agree about as much as the narrator demands, contradicted if they are far from it, and otherwise not
checkable, as are negations, and statements about anything but the movements of hands, feet, hips and trunk.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .motion_narration import FPS, ZONES, BodyPoints, MeasuredBody, MotionNarration

Verdict = Literal["supported", "contradicted", "not checkable"]

# Seconds by which times in a text may be off.
TOLERANCE = 0.4
# Torsos that a part must move, and may move at most if it is said to be still. Less than half of it contradicts a movement.
MOVED, STILL = 0.3, 0.35
# Torsos between hands that meet, and hands that do not.
TOGETHER, APART = 0.45, 0.8
# Degrees that the trunk turns if somebody bends.
BENT = 25.0

# Subjects that share a verb, as in "the left arm and the legs are still", are not separated, nor are the two ways of a swing
# or two times.
_SENTENCE = re.compile(r"(?<=[.;!?])\s+")
_CLAUSE = re.compile(
    r"(:\s+|,\s+(?:and\s+)?(?:then\s+)?|\s+(?:while|then|because)\s+"
    r"|(?!(?<=\bup)\s+and\s+down\b|(?<=\bforward)s?\s+and\s+back|(?<=\bforwards)\s+and\s+back"
    r"|(?<=\d)\s+and\s+\d)"
    r"\s+and(?:\s+then|\s+at the same time)?\s+(?!(?:the|his|her|their) (?:\w+ )?\w+ (?:is|are|stays?) ))"
)
# Words of a clause that is not later than the one before it in its sentence; words of a sentence that is later than the one
# before.
_MEANWHILE = re.compile(r"\b(?:while|at the same time|meanwhile)\b")
_AFTERWARDS = re.compile(r"(?:then|next|finally|afterwards)\b")
# A negation also holds for the next clauses of its sentence, up to one with a subject of its own.
_NEGATION = re.compile(r"\b(?:not|never|no|none|nobody|nothing|neither|nor|without|cannot)\b|n['’]t\b")
_SUBJECT = re.compile(r"(?:but|however|the|a|an|his|her|their|its|both|it|they|he|she)\b")
# Words → the person whom this and the next clauses are about, None if they are several or unknown.
_PERSON = re.compile(r"\b(?P<which>first|second|other|another|third|fourth|each|every|both|two) (?:people|persons?)\b")
_PEOPLE = {"first": 0, "second": 1, "other": 1, "another": 1}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(?:\s*(?:to|and|-|–)\s*(\d+(?:\.\d+)?))?\s*s(?:ec(?:ond)?s?)?\b")
_PART = re.compile(
    r"\b(?:(?:both|the|his|her|their|its|of)\s+)*(?P<side>left|right|both)?\s*"
    r"(?P<part>hands?|arms?|wrists?|foot|feet|legs?|knees?|hips?|body|trunk)\b"
)
_LIMB = {
    "hand": "hands",
    "arm": "hands",
    "wrist": "hands",
    "foot": "feet",
    "feet": "feet",
    "leg": "feet",
    "knee": "feet",
}
_PRONOUN = re.compile(r"\b(?:it|them)\b")
# Words → axis of a movement (0 to the person's right, 1 up, 2 ahead) and its sign.
_WAYS = (
    (re.compile(r"\b(?:rais\w+|ris\w+|lift\w*|upwards?|up)\b"), 1, 1),
    (re.compile(r"\b(?:lower\w*|drop\w*|downwards?|sink\w*|down)\b"), 1, -1),
    (re.compile(r"\b(?:forwards?|ahead)\b"), 2, 1),
    (re.compile(r"\bbackwards?\b"), 2, -1),
    (re.compile(r"\bto (?:the|his|her|their) right\b"), 0, 1),
    (re.compile(r"\bto (?:the|his|her|their) left\b"), 0, -1),
)
_SWINGS = (
    (re.compile(r"\bside to side\b|\bwav\w+"), 0),
    (re.compile(r"\bup and down\b"), 1),
    (re.compile(r"\bforwards? and back(?:wards?)?\b"), 2),
)
_HEIGHT = re.compile(
    r"\b(?:at|to)(?: the (?:height|level) of)? the (knees|hips|waist|chest|shoulders|head)\b|\babove (?:the )?head\b"
)

# A place that a hand comes from or goes to is no part that moves.
_PLACE = re.compile(
    r"\b(?:from|to|at|of|above|across|with|near)(?: the (?:height|level) of)? (?:the )?(?:hips|body|trunk|knees|waist|chest)\b"
)


@dataclass(frozen=True)
class Statement:
    """A statement of a text.

    Attributes:
        text: The clause.
        verdict: "supported", "contradicted" or "not checkable".
    """

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class Clause:
    """A clause of a text.

    Attributes:
        text: Its words.
        part: Side and part of the body, such as ("left", "hand"), that it names or that a pronoun stands for; None if there is
            none. The side may be None.
        person: Index of the person whom it is about; None if they are several or unknown.
        is_negated: Whether it says what does not happen.
        follows: Whether the text tells it as later than the clause before.
    """

    text: str
    part: tuple[str | None, str] | None
    person: int | None
    is_negated: bool
    follows: bool


def check_statements(text: str, narration: MotionNarration) -> list[Statement]:
    """
    Checks a text against the measured motion of the people of a recording.

    Args:
        text: English sentences. Left and right are the person's own; times are in seconds ("at 0.7 s"). They are about the
            first person, unless they name "the second person", and from there on about that one.
        narration: What was measured (`motion_narration.narrate`).

    Returns:
        The statements in the order of the text, a clause each. Those about people who were not measured are not checkable.
    """
    statements = []
    for clause in clauses_of(text):
        is_measured = clause.person is not None and clause.person < len(narration.bodies)
        verdict: Verdict = "not checkable"
        if is_measured and not clause.is_negated:
            verdict = _verdict(clause.text.lower(), clause.part, narration.bodies[clause.person])
        statements.append(Statement(clause.text, verdict))
    return statements


def clauses_of(text: str) -> list[Clause]:
    """The clauses of a text, in their order."""
    clauses, last, person = [], None, 0
    for sentence in _SENTENCE.split(text):
        is_negated, follows = False, bool(_AFTERWARDS.match(sentence.lower()))
        pieces = ["", *_CLAUSE.split(sentence)]  # each clause after what separates it from the one before
        for separator, piece in zip(pieces[::2], pieces[1::2], strict=True):
            if not (piece := piece.strip(" .,;:!?")):
                continue
            lowered = piece.lower()
            named = _PART.search(_PLACE.sub(" ", lowered))
            last = (named["side"], named["part"]) if named else last if _PRONOUN.search(lowered) else None
            if people := _PERSON.search(lowered):
                person = _PEOPLE.get(people["which"])
            is_negated = bool(_NEGATION.search(lowered)) or (is_negated and not _SUBJECT.match(lowered))
            follows = follows and not _MEANWHILE.search(f"{separator} {lowered}")
            clauses.append(Clause(piece, last, person, is_negated, follows))
            follows = True
    return clauses


def count_verdicts(statements: list[Statement]) -> dict[str, int]:
    """Number of statements by verdict, as `supported`, `contradicted` and `not checkable`."""
    counts = Counter(statement.verdict for statement in statements)
    return {verdict: counts[verdict] for verdict in ("supported", "contradicted", "not checkable")}


def _verdict(clause: str, named: tuple[str | None, str] | None, measured: MeasuredBody) -> Verdict:
    points = BodyPoints(measured.track, measured.layout)
    span = _span(clause, measured.start, len(measured.track))
    if span is None:
        return "contradicted"  # after the end of the recording
    grades = [grade for grade in _grades(clause, named, points, span) if grade is not None]
    if not grades:
        return "not checkable"
    if min(grades) < 0.5:
        return "contradicted"
    return "supported" if min(grades) >= 1 else "not checkable"


def _span(clause: str, start: float, length: int) -> slice | None:
    """The frames that a clause is about: those around its time, or all; None if its time is not in the recording."""
    time = _TIME.search(clause)
    if time is None:
        return slice(0, length)
    first, last = float(time[1]) - start - TOLERANCE, float(time[2] or time[1]) - start + TOLERANCE
    if first * FPS >= length - 1 or last < 0:
        return None
    return slice(max(0, round(first * FPS)), round(last * FPS) + 1)


def _grades(clause: str, named: tuple[str | None, str] | None, points: BodyPoints, span: slice) -> list[float | None]:
    """How far the joints agree with each thing that a clause says: 1 or more if they do, below 0.5 if they contradict it."""
    hands = [hand[span] for hand in points.hands.values()]
    grades: list[float | None] = []
    if len(hands) == 2 and re.search(r"\btogether\b|\bmeets?\b|\bclap", clause):
        nearest = float(np.linalg.norm(hands[0] - hands[1], axis=1).min())
        return [_decreasing(nearest, TOGETHER, APART)]
    if len(hands) == 2 and re.search(r"\bcross(?:es|ed)?\b", clause) and "across" not in clause:
        return [_decreasing(float((points.hands["right"] - points.hands["left"])[span, 0].min()), 0.0, 0.4)]
    if re.search(r"\bbend\w*|\bbow\w*|\blean\w*", clause):
        return [float(np.ptp(points.lean()[span])) / BENT]
    if re.search(r"\bjump\w*", clause):
        return [_travel(points.pelvis[span], 1, 1) / 0.15]
    if re.search(r"\bsquat\w*|\bcrouch\w*|\bsits? down\b|\blunge\w*", clause):
        return [_travel(points.pelvis[span], 1, -1) / MOVED]
    if re.search(r"\bstands? up\b|\bgets? up\b", clause):
        return [_travel(points.pelvis[span], 1, 1) / MOVED]
    paths = _paths(named, points, span)
    if not paths:
        return []
    if re.search(r"\b(?:still|motionless|rests?)\b", clause):
        parts = [(part["side"], part["part"]) for part in _PART.finditer(clause)] or [named]
        paths = [path for part in parts for path in _paths(part, points, span)]
        extents = [float(np.linalg.norm(np.ptp(path, axis=0))) for path in paths]
        return [_decreasing(max(extents), STILL, 2 * STILL)]
    pick = min if named and (named[0] == "both" or (named[0] is None and named[1].endswith(("s", "feet")))) else max
    swings = [axis for pattern, axis in _SWINGS if pattern.search(clause)]
    grades += [pick(float(np.ptp(path[:, axis])) for path in paths) / MOVED for axis in swings]
    if re.search(r"\bcircle\w*|\bround\b", clause):
        grades += [pick(float(np.sort(np.ptp(path, axis=0))[1]) for path in paths) / MOVED]
    elif not swings:
        grades += [
            pick(_travel(path, axis, sign) for path in paths) / MOVED
            for pattern, axis, sign in _WAYS
            if pattern.search(clause)
        ]
    if named and _LIMB.get(named[1].rstrip("s"), "") == "hands" and (height := _HEIGHT.search(clause)):
        grades.append(
            pick(_at_height(path[:, 1] + (points.neck - points.pelvis)[span, 1], height[1]) for path in paths)
        )
    return grades


def _paths(named: tuple[str | None, str] | None, points: BodyPoints, span: slice) -> list[np.ndarray]:
    """Paths (T, 3) of the parts that a clause names, hands relative to the neck; empty if there are none."""
    if named is None:
        return []
    side, part = named
    limb = _LIMB.get(part if part == "feet" else part.rstrip("s"))
    if limb is None:
        return [points.pelvis[span]]
    ends = points.hands if limb == "hands" else points.feet
    origin = points.neck if limb == "hands" else np.zeros_like(points.neck)
    sides = [side] if side in ("left", "right") else list(ends)
    return [(ends[name] - origin)[span] for name in sides if name in ends]


def _travel(path: np.ndarray, axis: int, sign: int) -> float:
    """The largest movement along an axis in one direction, in torsos: from any frame to a later one."""
    values = sign * path[:, axis]
    return float((values - np.minimum.accumulate(values)).max()) if len(values) else 0.0


def _decreasing(value: float, good: float, bad: float) -> float:
    """A grade that is 1 up to `good`, 0.5 at the middle, and 0 from `bad` on."""
    return float(np.clip((bad - value) / (bad - good), 0, 1))


def _at_height(heights: np.ndarray, zone: str | None) -> float:
    """A grade of how near a hand, with heights in torsos above the pelvis, comes to a zone; None is above the head."""
    names = [name.removeprefix("the ") for _, name in ZONES]
    index = len(names) - 1 if zone is None else names.index(zone)
    low, high = (ZONES[index - 1][0] if index else -np.inf), ZONES[index][0]
    distance = float(np.maximum(np.maximum(low - heights, heights - high), 0).min())
    return _decreasing(distance, 0.2, 0.6)


__all__ = ["Clause", "Statement", "check_statements", "clauses_of", "count_verdicts"]
