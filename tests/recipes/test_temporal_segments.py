"""Scores of timelines beside brute force."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from action_llm.modeling_vtem import VisualEvent
from action_llm_datasets.timelines import Segment
from action_llm_recipes.metrics.temporal_segments import (
    BorderCounts,
    border_hits,
    f1_score,
    seconds_correct,
    segment_hits,
)

TIMES = st.lists(st.integers(0, 30).map(lambda tenth: tenth / 10), max_size=5)


@settings(max_examples=200, deadline=None)
@given(TIMES, TIMES, st.sampled_from([0.0, 0.2, 0.5]))
def test_borders_are_paired_as_often_as_can_be(predicted, true, tolerance):
    best = 0
    for count in range(min(len(predicted), len(true)), 0, -1):
        for some in itertools.combinations(range(len(true)), count):
            if any(
                all(
                    abs(predicted[first] - true[second]) <= tolerance + 1e-12
                    for first, second in zip(chosen, some, strict=True)
                )
                for chosen in itertools.permutations(range(len(predicted)), count)
            ):
                best = count
                break
        if best:
            break
    assert border_hits(predicted, true, tolerance + 1e-12) == best


def test_a_boundary_at_several_places_counts_once():
    borders, times = BorderCounts(), [(0.0, 2.0), (2.0, 5.0), (0.0, 1.0), (1.0, 2.0), (2.0, 5.0)]
    borders.add(
        [VisualEvent(0, *span, None, int(index > 1)) for index, span in enumerate(times)], [Segment(1, 3, "bow")]
    )
    scores = borders.scores()
    assert (scores["found"], scores["true"]) == (2, 2)  # at 1 and 2 s; the action begins and ends at 1 and 3 s
    assert scores["within_0.2_s"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5}


def test_segments_hit_once_and_by_their_overlap():
    true = [Segment(0, 4, "jump"), Segment(6, 8, "bow"), Segment(10, 14, "jump")]
    # Half of both together; the same again; another label; a shift of a quarter.
    predicted = [Segment(0, 2, "jump"), Segment(2, 4, "jump"), Segment(6, 8, "jump"), Segment(11, 15, "jump")]
    assert [segment_hits(predicted, true, overlap) for overlap in (0.1, 0.5, 0.6, 0.7)] == [2, 2, 1, 0]
    assert segment_hits([Segment(6, 8, "bow")], true, 1.0) == 1
    assert segment_hits([], true, 0.1) == segment_hits(predicted, [], 0.1) == 0
    assert segment_hits([Segment(4, 6, "jump")], true, 0.0) == 0


def test_f1_is_that_of_precision_and_recall():
    score = f1_score(3, 4, 6)
    assert score == pytest.approx((0.75, 0.5, 2 * 0.75 * 0.5 / 1.25))
    assert f1_score(0, 0, 5) == (0.0, 0.0, 0.0) and f1_score(0, 0, 0) == (0.0, 0.0, 0.0)


def test_seconds_that_are_named_rightly():
    true = [Segment(0, 4, "jump"), Segment(4, 8, "bow")]
    assert seconds_correct([Segment(1, 6, "jump"), Segment(6, 9, "bow")], true) == pytest.approx(3 + 2)
