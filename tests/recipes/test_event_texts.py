"""Texts of visual events tell when an event is, and which actions its token is typical of."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from action_llm_recipes.common.action_sentences import sentence_features
from action_llm_recipes.rating.event_texts import EventTextArguments, event_text, token_descriptions, training_rows

NAMES = ["throw", "catch", "wave"]


def rows(sentences, codes_per_word=1):
    """Sentences (class, tokens, held out) of events half a second long."""
    columns = {
        "sample_id": [f"r{number}" for number in range(len(sentences))],
        "encoding": [0] * len(sentences),
        "label": [NAMES.index(name) for name, *_ in sentences],
        "held_out": [bool(rest) for *_, rest in sentences],
        "action_ids": [ids for _, ids, _ in sentences],
        "start_times": [[place / 2 for place in range(len(ids))] for _, ids, _ in sentences],
        "end_times": [[(place + 1) / 2 for place in range(len(ids))] for _, ids, _ in sentences],
    }
    features = sentence_features(ClassLabel(names=NAMES), 16, False, codes_per_word=codes_per_word)
    return Dataset.from_dict(columns, features=features)


# Token 9 is in every sentence, 0 begins throws and catches, 1 and 2 end one of them, 3 is in the middle of waves.
TRAINING = [
    *[("throw", [0, 9, 1], 0)] * 3,
    *[("catch", [0, 9, 2], 0)] * 3,
    *[("wave", [9, 3, 9], 0)] * 3,
]


@pytest.fixture(scope="module")
def descriptions():
    return token_descriptions(rows(TRAINING), 2)


def test_tokens_are_described_by_their_actions_and_phase(descriptions):
    assert descriptions == {
        0: "as at the beginning of throw or catch",
        1: "as at the end of throw",
        2: "as at the end of catch",
        3: "as in the middle of wave",
        9: "as in every action",
    }
    assert token_descriptions(rows(TRAINING), 1)[0] == "as at the beginning of throw"


def test_each_event_is_a_line_with_its_time(descriptions):
    row = rows([("throw", [0, 0, 9, 1, 14], 0)])[0]
    assert event_text(row, descriptions, 12).splitlines() == [
        "0.0 to 1.0 s: as at the beginning of throw or catch",
        "1.0 to 1.5 s: as in every action",
        "1.5 to 2.0 s: as at the end of throw",
        "2.0 to 2.5 s: unlike anything in the training recordings",
    ]


def test_long_sentences_keep_what_lasts_longest(descriptions):
    row = rows([("throw", [0, 0, 0, 9, 1, 2, 2, 9], 0)])[0]
    assert event_text(row, descriptions, 2).splitlines() == [
        "0.0 to 2.0 s: as at the beginning of throw or catch",
        "2.0 to 4.0 s: as at the end of catch",
    ]
    for count in range(1, 9):
        lines = event_text(row, descriptions, count).splitlines()
        assert len(lines) == min(count, 5)
        assert lines[0].startswith("0.0 to ") and " to 4.0 s: " in lines[-1]


def test_held_out_recordings_are_not_described_by_their_own_classes():
    train = rows([*TRAINING, ("wave", [0, 5], 1)])
    sentences = DatasetDict(train=train)
    assert 5 not in token_descriptions(training_rows(sentences, "held_out"), 2)
    assert 5 in token_descriptions(training_rows(sentences, "test"), 2)


def test_settings_and_words_that_do_not_fit(descriptions):
    with pytest.raises(ValueError, match="lines must be at least 1, got 0"):
        EventTextArguments(["a"], "b", lines=0)
    with pytest.raises(ValueError, match="expected sentences of one token per word, got words of several tokens"):
        token_descriptions(rows([("throw", [[0, 9], [1, 8]], 0)], codes_per_word=2), 2)
