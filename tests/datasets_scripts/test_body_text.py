"""The text about bodies is reproducible, consistent with its table, and never a recognition prompt."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from action_llm_datasets.protocols import ntu_class_names
from action_llm_datasets.simulation.body_knowledge import TWO_PEOPLE, BodyKnowledgeError, body_knowledge, read_step
from action_llm_datasets.simulation.body_text import passage, passages
from action_llm_datasets.simulation.english_verbs import article, gerund, is_plural, past, plural, third_person
from action_llm_datasets.utd_mhad import FACTS


@given(st.integers(0, 10**6), st.integers(0, 2**32))
def test_a_passage_is_a_function_of_seed_and_index(index, seed):
    text = passage(index, seed)
    assert text == passage(index, seed)
    assert list(passages(2, seed=seed, start=index)) == [text, passage(index + 1, seed)]


@given(st.integers(0, 10**6), st.integers(0, 2**32))
def test_a_passage_is_one_line_of_whole_sentences(index, seed):
    text = passage(index, seed)
    assert text == " ".join(text.split())
    assert text[0].isupper() or text[0].isdigit()
    assert text[-1] in ".?"
    assert not re.search(r"[{}<>|]|\b(None|True|False)\b| [.,?]|\ba [aeio]\w+ (is|needs)\b", text)


def test_seeds_give_different_text():
    assert len(set(passages(200)) & set(passages(200, seed=1))) < 20


def test_no_passage_looks_like_the_recognition_prompt():
    for text in passages(4000):
        lowered = text.lower()
        assert "action token" not in lowered and "<act" not in lowered
        assert "predict the" not in lowered and "given a sequence" not in lowered


def test_the_corpus_uses_every_word_of_the_table():
    corpus = " ".join(passages(8000)).lower()
    words = set(re.findall(r"[a-z]+", corpus))
    for action in body_knowledge().actions:
        assert action.name in corpus, action.name
        assert set(re.findall(r"[a-z]+", f"{action.purpose} {action.thing} {action.posture}")) <= words
    for row in (*body_knowledge().parts, *body_knowledge().things, *body_knowledge().words):
        assert set(re.findall(r"[a-z]+", row.name)) <= words


def test_the_corpus_has_the_words_of_all_class_names():
    words = set(re.findall(r"[a-z]+", " ".join(passages(8000)).lower()))
    for name in (*ntu_class_names(), *(entry["name"] for entry in FACTS["classes"])):
        assert set(re.findall(r"[a-z]+", name.lower())) <= words, name


def test_names_in_the_table_are_unique_and_objects_are_defined():
    knowledge = body_knowledge()
    for rows in (knowledge.actions, knowledge.parts, knowledge.things, knowledge.words):
        names = [row.name for row in rows]
        assert len(set(names)) == len(names)
    things = {thing.name for thing in knowledge.things}
    for action in knowledge.actions:
        assert not action.thing or re.sub("^an? ", "", action.thing) in things
        assert action.people == (2 if action.kind == TWO_PEOPLE else 1)
        assert all(not step.partner for step in action.steps) or action.people == 2


def test_a_riddle_keeps_the_order_and_directions_of_the_table():
    """A riddle has the steps in the order of the table; a mirrored riddle exchanges left and right."""
    for text in passages(3000):
        if " This is kicking something." in text and text.startswith("The right leg"):
            assert text.startswith(
                "The right leg swings back. The right leg swings forward. The right foot hits the ball."
            )
            return
    pytest.fail("no riddle about kicking among 3000 passages")


def test_parsing_steps():
    step = read_step("partner right hand > take the gift")
    assert (step.part, step.by_person, step.verb, step.rest, step.partner) == (
        "right hand",
        True,
        "take",
        "the gift",
        True,
    )
    assert read_step("head : nod").rest == ""
    with pytest.raises(BodyKnowledgeError, match="found 'right hand lifts"):
        read_step("right hand lifts the cup")


@pytest.mark.parametrize(
    ("verb", "third", "ing", "ed"),
    [
        ("lift", "lifts", "lifting", "lifted"),
        ("carry", "carries", "carrying", "carried"),
        ("stay", "stays", "staying", "stayed"),
        ("clap", "claps", "clapping", "clapped"),
        ("take", "takes", "taking", "took"),
        ("lie", "lies", "lying", "lay"),
        ("touch", "touches", "touching", "touched"),
        ("go", "goes", "going", "went"),
        ("begin", "begins", "beginning", "began"),
        ("limp", "limps", "limping", "limped"),
        ("be", "is", "being", "was"),
        ("have", "has", "having", "had"),
    ],
)
def test_verbs(verb, third, ing, ed):
    assert (third_person(verb), gerund(verb), past(verb)) == (third, ing, ed)


def test_nouns():
    assert [plural(noun) for noun in ("foot", "calf", "two-person action", "body", "brush", "pair of weights")] == [
        "feet",
        "calves",
        "two-person actions",
        "bodies",
        "brushes",
        "pairs of weights",
    ]
    assert (article("elbow"), article("knee")) == ("an elbow", "a knee")
    assert all(map(is_plural, ("both arms", "feet", "knees"))) and not any(map(is_plural, ("pelvis", "left arm")))
