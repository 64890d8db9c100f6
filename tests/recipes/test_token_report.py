"""The statistics of sentences, against counts made in another way; only unaugmented sentences count."""

import json
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from datasets import ClassLabel, Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from action_llm_recipes.stages.token_report import describe_sentences, write_token_report

SENTENCES = st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=12), min_size=1, max_size=10)


def times(sentences):
    """Token w of sentence n lasts n + 1 tenths of a second."""
    starts = [np.arange(len(one)) * 0.1 * (n + 1) for n, one in enumerate(sentences)]
    return starts, [start + 0.1 * (n + 1) for n, start in enumerate(starts)]


@given(SENTENCES)
def test_counted_another_way(sentences):
    found = describe_sentences([np.array(one) for one in sentences], *times(sentences), num_action_tokens=9)
    counts = Counter(code for one in sentences for code in one)
    lengths = [len(one) for one in sentences]
    assert found["recordings"] == len(sentences) and found["codes_used"] == len(counts)
    assert found["words_per_recording"] == {
        "mean": pytest.approx(sum(lengths) / len(lengths)),
        "median": pytest.approx(float(np.median(lengths))),
        "least": min(lengths),
        "most": max(lengths),
    }
    assert found["entropy"] == pytest.approx(scipy.stats.entropy(list(counts.values()), base=2), abs=1e-9)
    assert found["perplexity"] == pytest.approx(2 ** found["entropy"])
    total = sum(length * 0.1 * (n + 1) for n, length in enumerate(lengths))
    assert found["seconds_per_word"] == pytest.approx(total / sum(lengths))


@given(SENTENCES)
def test_words_of_two_tokens_are_counted_by_codebook(sentences):
    words = [np.stack([one, 9 + np.array(one) // 3], axis=1) for one in map(np.array, sentences)]
    found = describe_sentences(words, *times(sentences), num_action_tokens=18, codes_per_word=2)
    bits = [
        scipy.stats.entropy(list(Counter(code // part for one in sentences for code in one).values()), base=2)
        for part in (1, 3)
    ]
    assert found["entropy"] == pytest.approx(bits[0], abs=1e-9)
    assert found["bits_per_word"] == pytest.approx(sum(bits), abs=1e-9)
    assert found["bits_per_recording"] == pytest.approx(sum(bits) * np.mean([len(one) for one in sentences]), abs=1e-9)
    assert found["codes_used"] == len({code for one in words for code in one.ravel().tolist()})


def test_no_tokens_are_an_error():
    with pytest.raises(ValueError, match="none of the 2 recordings has a token"):
        describe_sentences([np.array([], int)] * 2, [np.array([])] * 2, [np.array([])] * 2, 4)


def test_augmented_sentences_do_not_count(tmp_path):
    from action_llm_recipes.common.action_sentences import sentence_features

    columns = {
        "sample_id": ["a", "a", "b"],
        "encoding": [0, 1, 0],
        "label": [0, 0, 0],
        "held_out": [False] * 3,
        "action_ids": [[0, 1], [3, 3, 3, 3], [1]],
        "start_times": [[0.0, 1.0], [0.0] * 4, [0.0]],
        "end_times": [[1.0, 2.0], [1.0] * 4, [1.0]],
    }
    rows = Dataset.from_dict(columns, features=sentence_features(ClassLabel(names=["wave"]), 4, False))
    report = write_token_report(tmp_path, DatasetDict(train=rows, test=rows.select([2])), 4)
    assert report == json.loads((tmp_path / "tokens.json").read_text())
    assert report["train"]["recordings"] == 2 and report["train"]["codes_used"] == 2
    assert report["test"]["entropy"] == 0
    table = (tmp_path / "tokens.md").read_text()
    assert "| words per recording, mean | 1.5 | 1.0 |" in table and "| codes used | 2 of 4 | 1 of 4 |" in table
    assert {path.name for path in tmp_path.glob("*.png")} == {"token_usage.png", "sentence_lengths.png"}


def test_the_picture_is_of_the_tokens_that_the_table_counts(tmp_path, monkeypatch):
    """For words of two tokens, the picture is of the first tokens, whose entropy is in the table."""
    from action_llm_recipes.common.action_sentences import sentence_features

    drawn = {}
    monkeypatch.setattr(
        "action_llm_recipes.metrics.plots.plot_token_usage",
        lambda counts, path, title: drawn.update(counts=counts, title=title),
    )
    columns = {
        "sample_id": ["a"], "encoding": [0], "label": [0], "held_out": [False],
        "action_ids": [[[0, 5], [1, 5], [1, 6]]], "start_times": [[0.0, 1.0, 2.0]], "end_times": [[1.0, 2.0, 3.0]],
    }  # fmt: skip
    features = sentence_features(ClassLabel(names=["wave"]), 8, False, codes_per_word=2)
    report = write_token_report(tmp_path, {"train": Dataset.from_dict(columns, features=features)}, 8, 2)
    assert drawn["counts"].tolist() == [1, 2, 0, 0] and "first tokens of words" in drawn["title"]
    assert report["train"]["entropy"] == pytest.approx(scipy.stats.entropy(drawn["counts"], base=2))
