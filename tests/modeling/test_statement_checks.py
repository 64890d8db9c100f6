"""Statements about motions that are known: true ones are supported, false ones contradicted, and others left open."""

import numpy as np
import pytest
from skeleton_people import LEFT_HAND, RIGHT_HAND, ease, moved, recording, still

from action_llm.motion_narration import narrate
from action_llm.statement_checks import Statement, check_statements, count_verdicts


@pytest.fixture(scope="module")
def measured():
    """The right hand goes up to the head in the second second, and stays."""
    return narrate(moved(still(4), RIGHT_HAND, np.outer(ease(30, 60, 120), [0, 0.9, -0.1])).astype(np.float32))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The person raises the right hand to the head.", "supported"),
        ("They lift their right arm.", "supported"),
        ("The right hand goes up from 1.0 to 2.0 s.", "supported"),
        ("The left arm and the legs are still.", "supported"),
        ("The person raises the left hand.", "contradicted"),
        ("Both hands rise.", "contradicted"),
        ("The right hand goes up from 3.0 to 3.5 s.", "contradicted"),
        ("The right hand goes up at 9.0 s.", "contradicted"),
        ("The person swings the right hand from side to side.", "contradicted"),
        ("The person raises the right hand to the knees.", "contradicted"),
        ("The right arm is still.", "contradicted"),
        ("The hands meet.", "contradicted"),
        ("The person bends forward.", "contradicted"),
        ("The person jumps.", "contradicted"),
        ("The person squats.", "contradicted"),
        ("The person does not raise the right hand.", "not checkable"),
        ("The right hand never moves up.", "not checkable"),
        ("The person raises no hand.", "not checkable"),
        ("Neither hand rises.", "not checkable"),
        ("The left hand isn't raised.", "not checkable"),
        ("The person does not jump and squat.", "not checkable"),
        ("The second person raises the right hand.", "not checkable"),
        ("The person is happy.", "not checkable"),
        ("wave, with a probability of 75%.", "not checkable"),
    ],
)
def test_verdicts(measured, text, verdict):
    assert {statement.verdict for statement in check_statements(text, measured)} == {verdict}


def test_clauses_are_checked_one_by_one_and_pronouns_are_understood(measured):
    found = check_statements("The person raises the right hand, then lowers it. They smile.", measured)
    assert found == [
        Statement("The person raises the right hand", "supported"),
        Statement("lowers it", "contradicted"),
        Statement("They smile", "not checkable"),
    ]
    assert count_verdicts(found) == {"supported": 1, "contradicted": 1, "not checkable": 1}


def test_the_narrator_does_not_contradict_the_joints(measured):
    verdicts = count_verdicts(check_statements(measured.text, measured))
    assert verdicts["supported"] >= 2 and not verdicts["contradicted"]


def test_a_negation_ends_with_the_next_subject_or_sentence(measured):
    found = check_statements("The left hand does not rise or move, and the right hand rises. It goes up.", measured)
    assert [statement.verdict for statement in found] == ["not checkable", "supported", "supported"]


@pytest.mark.parametrize(("axis", "way"), [(1, "up and down"), (2, "forward and back"), (2, "forwards and backwards")])
def test_ways_of_a_swing_belong_together(axis, way):
    path = np.zeros((150, 3))
    path[:, 1] = 0.5
    path[:, axis] += 0.25 * np.sin(np.arange(150) * 2 * np.pi / 30)
    swinging = narrate(moved(still(5), RIGHT_HAND, path).astype(np.float32))
    for hand, verdict in (("right", "supported"), ("left", "contradicted")):
        for sentence in (f"The person swings the {hand} hand {way} five times", f"The {hand} hand swings {way}"):
            assert check_statements(f"{sentence}.", swinging) == [Statement(sentence, verdict)]


def test_statements_are_checked_against_the_person_whom_they_name():
    """The first raises the right hand, the second the left one."""
    path = np.outer(ease(30, 60, 120), [0, 0.9, -0.1])
    people = [moved(still(4), RIGHT_HAND, 1.1 * path), moved(np.array([1.2, 0, 0]) + still(4), LEFT_HAND, path)]
    narration = narrate(recording([(0, body.astype(np.float32)) for body in people]))
    text = (
        "The first person raises the right hand, and raises the left hand. The second person raises the right hand, and "
        "the left hand rises. Their left hand rises. Both people raise the right hand."
    )
    verdicts = [statement.verdict for statement in check_statements(text, narration)]
    assert verdicts == ["supported", "contradicted", "contradicted", "supported", "supported", "not checkable"]
    assert not count_verdicts(check_statements(narration.text, narration))["contradicted"]
