"""A lexicon counts what is there: beside plain counting, and by the classes that a token was planted in."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from action_llm.token_lexicon import build_lexicon


def row(number, label, ids, seconds=0.5):
    places = np.arange(len(ids))
    return {
        "sample_id": f"s{number}", "label": label, "action_ids": ids,
        "start_times": places * seconds, "end_times": (places + 1) * seconds,
    }  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    sentences=st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 5), min_size=1, max_size=6)), min_size=1)
)
@example(sentences=[(0, [0])] * 5 + [(0, [1])])  # a lift of 1 and a rounding error
def test_counts_are_those_of_a_loop(sentences):
    rows = [row(number, label, ids) for number, (label, ids) in enumerate(sentences)]
    entries = build_lexicon(rows, ["a", "b", "c"], 6)
    counts = Counter(code for _, ids in sentences for code in ids)
    assert [entry.count for entry in entries] == [counts[code] for code in range(6)]
    for entry in entries:
        if not entry.count:
            assert entry.classes == [] and entry.examples == [] and entry.seconds == 0
            continue
        assert entry.seconds == pytest.approx(0.5) and 0 <= entry.when <= 1
        assert len({name for name, _, _ in entry.examples}) == len(entry.examples) <= 4
        for name, start, end in entry.examples:
            ids = rows[int(name[1:])]["action_ids"]
            assert ids[round(start / 0.5)] == entry.action_id and end == pytest.approx(start + 0.5)
        assert all(lift > 1 for _, lift in entry.classes)
        assert [lift for _, lift in entry.classes] == sorted((lift for _, lift in entry.classes), reverse=True)


def test_a_token_speaks_for_the_class_that_it_is_in():
    rows = [row(n, n % 3, [4 if n % 3 == 1 else 0, 2]) for n in range(30)]
    entries = build_lexicon(rows, ["walk", "wave", "fall"], 5)
    # Ten of ten of its class, ten of thirty of all, smoothed by one sentence: (10 + 1/3) / 11 / (1/3).
    assert entries[4].classes == [("wave", pytest.approx((10 + 1 / 3) / 11 * 3, abs=1e-3))]
    assert entries[2].classes == [] and entries[2].when == 1.0 and entries[4].when == 0.0
    assert {name for name, _ in entries[0].classes} == {"walk", "fall"}
    assert entries[4].to_dict()["count"] == 10


def test_what_is_no_sentence():
    with pytest.raises(ValueError, match="s1: expected tokens from 0 to 4, got 0 to 9"):
        build_lexicon([row(1, 0, [0, 9])], ["a"], 5)
    with pytest.raises(ValueError, match="for each of 2 words, got 1 starts and 2 ends"):
        build_lexicon([{**row(1, 0, [0, 1]), "start_times": [0.0]}], ["a"], 5)
