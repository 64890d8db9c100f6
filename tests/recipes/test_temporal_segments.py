"""Scores of timelines beside brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from action_llm.modeling_vtem import VisualEvent
from action_llm_datasets.timelines import Segment
from action_llm_recipes.metrics.temporal_segments import (
    BorderCounts,
    ScoredSegment,
    border_hits,
    edit_distance,
    f1_score,
    mean_average_precision,
    overlap_ratio,
    seconds_correct,
    segment_hits,
    start_closeness,
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


def test_boundaries_are_inside_the_video_and_shared():
    """Actions that fill the video have their common boundary alone."""
    borders = BorderCounts()
    borders.add(
        [VisualEvent(0, 0.0, 2.0, None, 0), VisualEvent(0, 2.0, 5.0, None, 0)],
        [Segment(0, 2, "bow"), Segment(2, 5, "jump")],
    )
    scores = borders.scores()
    assert (scores["found"], scores["true"], scores["within_0.2_s"]["f1"]) == (1, 1, 1.0)


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


def test_seconds_that_are_labelled_correctly():
    true = [Segment(0, 4, "jump"), Segment(4, 8, "bow")]
    assert seconds_correct([Segment(1, 6, "jump"), Segment(6, 9, "bow")], true) == pytest.approx(3 + 2)


def activity_net_map(predicted, true, least, measure):
    """As the evaluation of ActivityNet computes it: locks on true segments, an envelope of the precision, and its area."""
    averages = []
    for label in {segment.label for segments in true for segment in segments}:
        truth = [
            (video, segment) for video, segments in enumerate(true) for segment in segments if segment.label == label
        ]
        guesses = [(video, one) for video, found in enumerate(predicted) for one in found if one.label == label]
        order = np.argsort([-one.score for _, one in guesses], kind="stable")
        locked, right, wrong = set(), np.zeros(len(guesses)), np.zeros(len(guesses))
        for rank, index in enumerate(order):
            video, guess = guesses[index]
            measures = [measure(guess, segment) if v == video else -np.inf for v, segment in truth]
            for place in np.argsort(measures)[::-1]:
                if measures[place] < least:
                    break
                if place not in locked:
                    locked.add(place)
                    right[rank] = 1
                    break
            wrong[rank] = 1 - right[rank]
        recall, precision = right.cumsum() / len(truth), right.cumsum() / (right.cumsum() + wrong.cumsum())
        precision, recall = np.r_[0, precision, 0], np.r_[0, recall, 1]
        for i in range(len(precision) - 2, -1, -1):
            precision[i] = max(precision[i], precision[i + 1])
        steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
        averages.append(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())
    return np.mean(averages)


@pytest.mark.parametrize("seed", range(6))
def test_mean_average_precision_is_that_of_activity_net(seed):
    generator = np.random.default_rng(seed)

    def segments(count):
        starts = generator.uniform(0, 10, count)
        return zip(
            starts, starts + generator.uniform(0.5, 5, count), generator.choice(["jump", "bow"], count), strict=True
        )

    true = [[Segment(*one) for one in segments(generator.integers(1, 5))] for _ in range(3)]
    predicted = [[ScoredSegment(*one, generator.random()) for one in segments(8)] for _ in range(3)]
    for least in (0.1, 0.3, 0.5):
        found = mean_average_precision(predicted, true, overlap_ratio, least)
        assert found == pytest.approx(
            activity_net_map(
                predicted,
                true,
                least,
                lambda a, b: max(0, min(a[1], b[1]) - max(a[0], b[0])) / (max(a[1], b[1]) - min(a[0], b[0])),
            )
        )
    found = mean_average_precision(predicted, true, start_closeness, -1.0)
    assert found == pytest.approx(activity_net_map(predicted, true, -1.0, lambda a, b: -abs(a[0] - b[0])))


def test_a_start_counts_when_it_is_reported():
    true = [[Segment(2, 5, "jump"), Segment(10, 12, "jump")]]
    # Reported 1 s late, twice; the other 4 s late. The second report of the same start is wrong.
    reports = [[ScoredSegment(at, at, "jump", score) for at, score in ((3, 0.9), (3.5, 0.8), (14, 0.7))]]
    found = [mean_average_precision(reports, true, start_closeness, -offset) for offset in (0.5, 1, 5)]
    assert found == pytest.approx([0, 1 / 2, (1 + 2 / 3) / 2])
    assert np.isnan(mean_average_precision(reports, [[]], start_closeness, -1.0))


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_edit_distance_is_that_of_its_definition(first, second):
    def defined(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(defined(a[1:], b) + 1, defined(a, b[1:]) + 1, defined(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(first, second) == defined(first, second)
