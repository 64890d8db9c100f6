"""The text about bodies is reproducible, consistent with its table, and never a recognition prompt."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from action_llm_datasets.protocols import ntu_class_names
from action_llm_datasets.simulation import body_text
from action_llm_datasets.simulation.body_knowledge import TWO_PEOPLE, BodyKnowledgeError, body_knowledge, read_step
from action_llm_datasets.simulation.body_text import passage, passages
from action_llm_datasets.simulation.english_verbs import article, gerund, is_plural, past, plural, third_person
from action_llm_datasets.unseen_classes import protocols_with_unseen_classes, unseen_classes
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


# Read here once more, without the code that leaves actions out.
TABLE = json.loads(Path(body_text.__file__).with_name("body_knowledge.json").read_text(encoding="utf-8"))


def key_phrases(row):
    """What the text says of an action and of hardly any other: its name, what people do, what for, and how, in all forms."""
    forms = (lambda verb: verb, third_person, past, gerund)
    phrases = {row["name"], row["purpose"]}
    for text in (f" : {row['does']}", *row["steps"]):
        part, clause = re.split(" [>:] ", text)
        verb, _, rest = clause.partition(" ")
        phrases |= {f"{part} {form(verb)} {rest}".strip() for form in forms}
        phrases |= {f"{form(verb)} {rest}".strip() for form in forms}
    mirror = {"left": "right", "right": "left"}
    mirrored = {" ".join(mirror.get(word, word) for word in phrase.split()) for phrase in phrases}
    return {phrase.lower() for phrase in phrases | mirrored}


def mentions(text, phrases):
    """The phrases that a text contains as whole words."""
    padded = f" {re.sub('[^a-z/() -]', ' ', text.lower())} "
    return {phrase for phrase in phrases if f" {phrase} " in padded}


@pytest.mark.parametrize("protocol", [n for n in protocols_with_unseen_classes() if "unseen" in n or "60-60" in n])
def test_nothing_is_said_of_actions_that_are_left_out(protocol):
    actions = set(unseen_classes(protocol).values())
    groups = {row.get("same_as", row["name"]) for row in TABLE["actions"] if row["name"] in actions}
    rows = {True: [], False: []}
    for row in TABLE["actions"]:
        rows[row.get("same_as", row["name"]) in groups].append(row)
    others = [phrase for row in rows[False] for phrase in key_phrases(row)]
    others = " . ".join([*others, *(part["use"] for part in TABLE["parts"])])
    phrases = {row["name"]: key_phrases(row) - mentions(others, key_phrases(row)) for row in rows[True]}
    everything = set().union(*phrases.values())
    assert all(phrases.values()), "every action has a phrase of its own"

    text = list(passages(2000, without=frozenset(actions)))
    assert not [(passage, found) for passage in text if (found := mentions(passage, everything))]
    in_full_text = mentions(" . ".join(passages(2000)), everything)
    assert all(own & in_full_text for own in phrases.values()), "the full text is about all of them"


def test_actions_are_left_out_in_other_words_too():
    text = " ".join(passages(8000, without=frozenset({"clapping", "take off headphone"}))).lower()
    assert not re.search(r"\bclap|two hand front clap|take off (the )?headphone|to hear the others", text)
    assert "put on headphone" in text and "headphone is two small speakers" in text
    knowledge = body_knowledge(frozenset({"cutting nails"}))
    assert "nail clipper" not in {thing.name for thing in knowledge.things}, "it has no other use"
    assert body_knowledge(frozenset()) == body_knowledge()
    with pytest.raises(ValueError, match="no action 'clap': add it there, or correct the name"):
        next(passages(1, without=frozenset({"clap"})))


def test_actions_in_other_words_name_an_action_of_the_table():
    actions = {action.name: action for action in body_knowledge().actions}
    for action in actions.values():
        assert not action.same_as or not actions[action.same_as].same_as


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
