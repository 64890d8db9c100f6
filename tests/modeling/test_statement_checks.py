"""Statements about motions that are known: true ones are supported, false ones contradicted, and others left open."""

import numpy as np
import pytest
from skeleton_people import RIGHT_HAND, ease, moved, still

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
