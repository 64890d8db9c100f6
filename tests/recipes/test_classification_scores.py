"""Scores of predictions against scikit-learn, naive loops and hand-made cases."""

import math

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from action_llm_recipes.metrics.action_classification.classification_scores import (
    MIN_PEOPLE,
    ScoreError,
    accuracy,
    accuracy_by_person,
    accuracy_interval,
    bootstrap_interval,
    brier_score,
    class_weights,
    confusion_matrix,
    expected_calibration_error,
    log_normalize,
    mean_per_class_accuracy,
    mean_per_class_interval,
    negative_log_likelihood,
    paired_interval,
    per_class_table,
    reliability_bins,
    top_k_accuracy,
    wilson_interval,
)


@st.composite
def scored(draw, ties=False):
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 8))
    values = st.integers(-3, 3) if ties else st.floats(-30, 30)
    scores = draw(arrays(np.float64, (count, classes), elements=values))
    return scores, draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))


@given(scored(ties=True), st.data())
def test_top_k_accuracy_equals_sorting_each_row(case, data):
    scores, labels = case
    k = data.draw(st.integers(1, scores.shape[1]))
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(len(row)), key=lambda index: (-row[index], index))
        hits += label in order[:k]
    assert top_k_accuracy(scores, labels, k) == pytest.approx(hits / len(labels))
    assert top_k_accuracy(scores, labels) == accuracy(scores.argmax(1), labels)
    assert top_k_accuracy(scores, labels, scores.shape[1]) == 1


def test_top_k_accuracy_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 12)), rng.integers(12, size=200)
    for k in (1, 2, 5):
        expected = sklearn.metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(12))
        assert top_k_accuracy(scores, labels, k) == pytest.approx(expected)


@settings(max_examples=30)
@given(scored())
def test_matrix_and_per_class_accuracy_equal_scikit_learn(case):
    scores, labels = case
    predictions, classes = scores.argmax(1), scores.shape[1]
    matrix = confusion_matrix(predictions, labels, classes)
    assert np.array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predictions, labels=range(classes)))
    recalls = [np.mean(predictions[labels == c] == c) for c in range(classes) if (labels == c).any()]
    assert mean_per_class_accuracy(predictions, labels) == pytest.approx(np.mean(recalls))


def test_mean_per_class_accuracy_is_balanced_accuracy():
    rng = np.random.default_rng(1)
    labels = rng.integers(6, size=300)
    predictions = np.where(rng.random(300) < 0.6, labels, rng.integers(6, size=300))
    expected = sklearn.metrics.balanced_accuracy_score(labels, predictions)
    assert mean_per_class_accuracy(predictions, labels) == pytest.approx(expected)


def test_absent_classes_do_not_count():
    labels, predictions = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 3])
    assert mean_per_class_accuracy(predictions, labels) == 0.5
    table = per_class_table(predictions, labels, ["a", "b", "c", "d"])
    assert [row.count for row in table] == [2, 0, 2, 0]
    assert math.isnan(table[1].accuracy) and table[1].precision == 0
    assert (table[0].confused_with, table[0].confused_count) == ("b", 1)
    assert (table[2].accuracy, table[2].precision, table[3].confused_with) == (0.5, 1.0, None)


@settings(max_examples=30)
@given(scored())
def test_per_class_table_equals_scikit_learn(case):
    scores, labels = case
    predictions, classes = scores.argmax(1), scores.shape[1]
    table = per_class_table(predictions, labels, [str(c) for c in range(classes)])
    precision, recall, _, support = sklearn.metrics.precision_recall_fscore_support(
        labels, predictions, labels=range(classes), zero_division=np.nan
    )
    np.testing.assert_allclose([row.precision for row in table], precision)
    np.testing.assert_allclose([row.accuracy for row in table], recall)
    assert [row.count for row in table] == support.tolist()


@given(scored())
def test_log_normalize_gives_probabilities_and_keeps_differences(case):
    scores, _ = case
    logs = log_normalize(scores)
    np.testing.assert_allclose(np.exp(logs).sum(1), 1)
    np.testing.assert_allclose(logs[:, 1:] - logs[:, :1], scores[:, 1:] - scores[:, :1], atol=1e-9)


@given(scored())
def test_likelihood_and_brier_equal_loops(case):
    scores, labels = case
    logs = log_normalize(scores)
    expected = sum(-row[label] for row, label in zip(logs, labels, strict=True)) / len(labels)
    assert negative_log_likelihood(logs, labels) == pytest.approx(expected)
    brier = 0.0
    for row, label in zip(np.exp(logs), labels, strict=True):
        brier += sum((p - (c == label)) ** 2 for c, p in enumerate(row)) / len(labels)
    assert brier_score(logs, labels) == pytest.approx(brier, abs=1e-12)
    assert 0 <= brier_score(logs, labels) <= 2


def test_likelihood_equals_scikit_learn():
    rng = np.random.default_rng(2)
    logs, labels = log_normalize(rng.normal(size=(50, 4))), rng.integers(4, size=50)
    expected = sklearn.metrics.log_loss(labels, np.exp(logs), labels=range(4))
    assert negative_log_likelihood(logs, labels) == pytest.approx(expected)


def test_brier_score_and_reliability_equal_scikit_learn():
    rng = np.random.default_rng(7)
    logs, labels = log_normalize(2 * rng.normal(size=(300, 5))), rng.integers(5, size=300)
    expected = sklearn.metrics.brier_score_loss(labels, np.exp(logs), labels=range(5), scale_by_half=False)
    assert brier_score(logs, labels) == pytest.approx(expected)
    hits, confidence = logs.argmax(axis=1) == labels, np.exp(logs.max(axis=1))
    fractions, means = sklearn.calibration.calibration_curve(hits, confidence, n_bins=15)
    bins = reliability_bins(logs, labels)
    filled = bins.count > 0
    np.testing.assert_allclose(bins.accuracy[filled], fractions)
    np.testing.assert_allclose(bins.confidence[filled], means)


@given(scored(), st.integers(1, 20))
def test_calibration_equals_a_loop_over_bins(case, bins):
    scores, labels = case
    logs = log_normalize(scores)
    confidence, right = np.minimum(np.exp(logs.max(1)), 1), logs.argmax(1) == labels
    table = reliability_bins(logs, labels, bins)
    error = 0.0
    for index, (low, high) in enumerate(zip(table.edges[:-1], table.edges[1:], strict=True)):
        inside = (confidence > low) & (confidence <= high)
        assert table.count[index] == inside.sum()
        if inside.any():
            assert table.accuracy[index] == pytest.approx(right[inside].mean())
            assert table.confidence[index] == pytest.approx(confidence[inside].mean())
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(logs, labels, bins) == pytest.approx(error, abs=1e-12)
    assert 0 <= error <= 1


def test_a_calibrated_classifier_has_a_small_error_and_an_overconfident_one_a_large_one():
    rng = np.random.default_rng(3)
    logs = log_normalize(rng.normal(size=(20000, 5)) * 2)
    labels = (np.exp(logs).cumsum(1) < rng.random((20000, 1))).sum(1).clip(max=4)
    assert expected_calibration_error(logs, labels) < 0.015
    assert expected_calibration_error(log_normalize(logs * 3), labels) > 0.1


def test_bootstrap_interval_equals_scipy():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(4)
    right = (rng.random(300) < 0.8).astype(float)
    own = bootstrap_interval(np.mean, right, resamples=4000)
    theirs = bootstrap((right,), np.mean, n_resamples=4000, method="percentile", random_state=0).confidence_interval
    assert own.estimate == right.mean()
    assert own.low == pytest.approx(theirs.low, abs=0.006) and own.high == pytest.approx(theirs.high, abs=0.006)
    # The normal approximation is the closed form.
    assert own.high - own.low == pytest.approx(2 * 1.96 * right.std() / math.sqrt(300), rel=0.06)


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(5)
    labels = rng.integers(4, size=500)
    first = np.where(rng.random(500) < 0.7, labels, (labels + 1) % 4)
    second = np.where(rng.random(500) < 0.9, first, labels)

    def difference(first, second, truth):
        return accuracy(second, truth) - accuracy(first, truth)

    paired = bootstrap_interval(difference, first, second, labels)
    alone = bootstrap_interval(accuracy, first, labels)
    assert paired.low <= paired.estimate <= paired.high
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)
    assert bootstrap_interval(difference, first, first, labels, resamples=50) == type(paired)(0.0, 0.0, 0.0)
    assert bootstrap_interval(difference, first, second, labels) == paired


@given(st.integers(1, 2000), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_interval_equals_scipy(count, data, level):
    from scipy.stats import binomtest

    hits = data.draw(st.integers(0, count))
    theirs = binomtest(hits, count).proportion_ci(level, method="wilson")
    own = wilson_interval(hits / count, count, level)
    assert (own.low, own.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= own.low <= own.estimate <= own.high <= 1 and own.low < own.high


def test_wilson_interval_has_published_values_at_its_edges():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", Table I, method 3.
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        interval = wilson_interval(hits / count, count)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1.0, 12).low == pytest.approx(0.7575, abs=5e-5) and wilson_interval(1.0, 12).high == 1


def coverage(intervals, truth):
    return np.mean([interval.low <= truth <= interval.high for interval in intervals])


@pytest.mark.parametrize("count, probability", [(12, 0.9), (12, 0.97), (40, 0.95), (400, 0.6)])
def test_the_interval_of_an_accuracy_covers_where_the_bootstrap_does_not(count, probability):
    rng = np.random.default_rng(count)
    labels = np.zeros(count, int)
    intervals, bootstraps = [], []
    for _ in range(400):
        predictions = (rng.random(count) > probability).astype(int)
        intervals.append(wilson_interval(accuracy(predictions, labels), count))
        bootstraps.append(bootstrap_interval(np.mean, predictions == 0, resamples=200))
    assert coverage(intervals, probability) > 0.92
    if count == 12:
        assert coverage(bootstraps, probability) < 0.9


# Class sizes that differ by a factor of ninety (Toyota Smarthome).
UNEQUAL = np.geomspace(7, 630, 31).astype(int)


@pytest.mark.parametrize(
    "sizes, probabilities",
    [
        ([1] * 12, [0.9] * 12),
        ([3] * 4, [0.97] * 4),
        ([16] * 27, np.linspace(0.6, 1, 27)),
        ([2] * 60, [0.5] * 60),
        (UNEQUAL, [0.6] * 31),
        (UNEQUAL, np.linspace(0.95, 0.4, 31)),
        (UNEQUAL, np.linspace(0.4, 0.95, 31)),
        # A rare class that is harder, or easier, than the common ones.
        ([30, 30, 3], [0.98, 0.98, 0.5]),
        ([30, 30, 3], [0.5, 0.5, 0.98]),
        ([100, 100, 2], [0.95, 0.95, 0.6]),
        ([50, 5], [0.99, 0.6]),
        ([200] * 9 + [4], [0.9] * 9 + [0.3]),
        ([500, 20, 20, 3], [0.99, 0.8, 0.7, 0.4]),
        ([100] * 5 + [5] * 5, [0.97] * 5 + [0.5] * 5),
        ([1] * 30 + [50] * 30, [0.5] * 30 + [0.9] * 30),
        ([30, 30, 3], [1, 1, 0.5]),
    ],
)
def test_the_interval_of_the_mean_per_class_covers(sizes, probabilities):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    chance, truth = np.repeat(probabilities, sizes), np.mean(probabilities)
    intervals = []
    for _ in range(1000):
        predictions = np.where(rng.random(len(labels)) < chance, labels, (labels + 1) % len(sizes))
        intervals.append(mean_per_class_interval(predictions, labels))
    assert coverage(intervals, truth) > 0.93


def test_the_mean_over_classes_of_one_size_has_the_interval_of_an_accuracy():
    for labels in (
        np.zeros(12, int),
        np.repeat([0, 2, 3], 4),
        np.arange(12),
    ):  # a class without recordings does not count
        assert mean_per_class_interval(labels, labels).low == pytest.approx(wilson_interval(1.0, 12).low)
        for number in range(13):
            predictions = np.where(np.arange(12) < number, labels, labels + 1)
            interval, expected = mean_per_class_interval(predictions, labels), wilson_interval(number / 12, 12)
            assert interval.estimate == pytest.approx(mean_per_class_accuracy(predictions, labels))
            assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_few_people_are_not_drawn_and_many_are():
    rng = np.random.default_rng(0)
    # Of a person all recordings are recognised or none.
    few, many = (np.repeat(np.arange(number), 20) for number in (MIN_PEOPLE - 1, 2 * MIN_PEOPLE))
    for people in (few, many):
        right = people % 2 == 0
        labels, predictions = np.zeros(len(people), int), np.where(right, 0, 1)
        alone = wilson_interval(accuracy(predictions, labels), len(labels))
        known = accuracy_interval(accuracy, predictions, labels, over_recordings=alone, people=people)
        assert (known == alone) == (people is few)
    assert known.high - known.low > 3 * (alone.high - alone.low)
    certain = wilson_interval(1.0, len(labels))
    assert accuracy_interval(accuracy, labels, labels, over_recordings=certain, people=many) == certain
    # Against clusters drawn by hand.
    own = bootstrap_interval(np.mean, right.astype(float), groups=many, resamples=4000)
    drawn = (rng.integers(2 * MIN_PEOPLE, size=(4000, 2 * MIN_PEOPLE)) % 2 == 0).mean(axis=1)
    assert (own.low, own.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.03)
    with pytest.raises(ScoreError, match="3 groups for 2 recordings"):
        bootstrap_interval(np.mean, np.zeros(2), groups=[0, 0, 1])


def test_the_interval_over_people_covers_what_other_people_would_show():
    rng = np.random.default_rng(1)
    over_people, over_recordings = [], []
    for _ in range(120):
        skill = np.repeat(rng.beta(4, 2, size=15), 12)
        predictions = (rng.random(180) > skill).astype(int)
        labels, people = np.zeros(180, int), np.repeat(np.arange(15), 12)
        alone = wilson_interval(accuracy(predictions, labels), 180)
        options = {"over_recordings": alone, "resamples": 300}
        over_people.append(accuracy_interval(accuracy, predictions, labels, people=people, **options))
        over_recordings.append(alone)
    assert coverage(over_people, 4 / 6) > 0.9 > 0.85 > coverage(over_recordings, 4 / 6)


def test_a_paired_difference_of_methods_that_agree_is_not_certain():
    nothing = paired_interval(np.zeros(12))
    assert nothing.estimate == 0 and nothing.low < -0.05 and nothing.high > 0.05
    rng = np.random.default_rng(2)
    intervals, bootstraps = [], []
    for _ in range(200):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.04, 0.86, 0.1], size=20)
        intervals.append(paired_interval(differences))
        bootstraps.append(bootstrap_interval(np.mean, differences, resamples=300))
    assert coverage(intervals, 0.06) > 0.92 > coverage(bootstraps, 0.06)
    # For many recordings, alone or in groups, both are equal.
    many, groups = rng.choice([-1.0, 0.0, 1.0], p=[0.04, 0.86, 0.1], size=2000), np.arange(2000) // 4
    many[::4] = many[1::4] = many[2::4]
    for of in (None, groups):
        own, other = paired_interval(many, groups=of), bootstrap_interval(np.mean, many, groups=of)
        assert own.high - own.low == pytest.approx(other.high - other.low, rel=0.06)
    assert own.high - own.low > 1.5 * (paired_interval(many).high - paired_interval(many).low)


@pytest.mark.parametrize(("classes", "recordings", "share"), [(27, 16, 0.5), (60, 2, 0.3), (12, 30, 0.05)])
def test_the_interval_of_mean_per_class_differences_covers_the_truth(classes, recordings, share):
    """Resamples with two pseudo-recordings in each class covered 50 to 54 % of these."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 2 * recordings, classes)
    labels, shares = np.repeat(np.arange(classes), sizes), np.clip(rng.normal(share, 0.1, classes), 0, 1)
    weights = class_weights(labels)
    intervals = [paired_interval(rng.random(len(labels)) < shares[labels], weights) for _ in range(300)]
    assert coverage(intervals, shares.mean()) > 0.92
    hits = rng.random(len(labels)) < 0.5
    per_class = np.mean([hits[labels == label].mean() for label in range(classes)])
    assert paired_interval(hits, weights).estimate == pytest.approx(per_class)


@pytest.mark.parametrize("between_seeds", [0.0, 0.03])
def test_the_interval_of_several_seeds_covers_other_seeds(between_seeds):
    rng = np.random.default_rng(4)
    groups, seeds = np.repeat(np.arange(60), 4), 3

    def draw():
        of_seeds, of_groups = rng.normal(0, between_seeds, (seeds, 1)), rng.normal(0, 0.15, (1, 60))
        return (
            0.02
            + of_seeds
            + (of_groups + rng.normal(0, 0.1, (seeds, 60)))[:, groups]
            + rng.normal(0, 0.2, (seeds, 240))
        )

    drawn = [draw() for _ in range(300)]
    assert coverage([paired_interval(values, groups=groups) for values in drawn], 0.02) > 0.92
    if between_seeds:
        assert coverage([paired_interval(values.mean(axis=0), groups=groups) for values in drawn], 0.02) < 0.9


def test_accuracy_by_person_equals_a_loop():
    hits, people = np.array([True, False, True, True]), ["10", "2", "10", "2"]
    assert accuracy_by_person(hits, people) == {
        "2": {"recordings": 2, "top_1": 0.5},
        "10": {"recordings": 2, "top_1": 1.0},
    }
    with pytest.raises(ScoreError, match="people for"):
        accuracy_by_person(hits, people[:2])


@settings(max_examples=20)
@given(st.sampled_from([top_k_accuracy, negative_log_likelihood, brier_score, expected_calibration_error]))
def test_bad_scores_are_errors(score):
    logs, labels = np.log(np.full((3, 2), 0.5)), np.array([0, 1, 1])
    score(logs, labels)
    broken = logs.copy()
    broken[1, 0] = np.nan
    with pytest.raises(ScoreError, match="recording 1 for class 0 is nan"):
        score(broken, labels)
    with pytest.raises(ScoreError, match=r"labels\[2\] is 2, outside the classes 0..1"):
        score(logs, np.array([0, 1, 2]))
    with pytest.raises(ScoreError, match="outside"):
        score(logs, np.array([0, 1, -1]))
    with pytest.raises(ScoreError, match="2 labels for 3 recordings"):
        score(logs, labels[:2])
    with pytest.raises(ScoreError, match="float64"):
        score(logs, labels.astype(float))
    with pytest.raises(ScoreError, match="shape"):
        score(logs[0], labels)
    with pytest.raises(ScoreError, match="shape"):
        score(logs[:0], labels[:0])


def test_other_bad_input_is_an_error():
    labels = np.array([0, 1])
    with pytest.raises(ScoreError, match="sum to 2, not to 1"):
        negative_log_likelihood(np.zeros((2, 2)), labels)
    with pytest.raises(ScoreError, match=r"k must lie in 1\.\.2"):
        top_k_accuracy(np.zeros((2, 2)), labels, 3)
    with pytest.raises(ScoreError, match=r"predictions\[0\] is 3"):
        confusion_matrix(np.array([3, 0]), labels, 2)
    with pytest.raises(ScoreError, match="2 labels for 1 recordings"):
        mean_per_class_accuracy(np.array([0]), labels)
    with pytest.raises(ScoreError, match="no finite score"):
        log_normalize(np.full((1, 3), -np.inf))
    with pytest.raises(ScoreError, match=r"\[2, 1\]"):
        bootstrap_interval(accuracy, labels, labels[:1])
    with pytest.raises(ScoreError, match="level"):
        bootstrap_interval(accuracy, labels, labels, level=95)
    with pytest.raises(ScoreError, match="expected a proportion from 0 to 1, of more than 0 recordings; got 1, of 0"):
        wilson_interval(1, 0)
    with pytest.raises(ScoreError, match="bins"):
        reliability_bins(np.log(np.full((1, 2), 0.5)), np.array([0]), 0)


def test_a_true_class_of_probability_zero_costs_everything():
    assert negative_log_likelihood(np.array([[0.0, -np.inf]]), np.array([1])) == math.inf
