"""Krippendorff's alpha against the examples of its paper, its definition and the package krippendorff; its interval."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from action_llm_recipes.metrics.rater_agreement import alpha_interval, krippendorff_alpha

# Krippendorff 2011, sections A to D: the published ratings, a string a rater, "." for none.
TWO_BINARY = ["0100000010", "1110010000"]
TWO_NOMINAL = ["aabbdcccedda", "babbbccceddd"]
FOUR = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def table(raters):
    """(items, raters) of strings."""
    return np.array([[math.nan if rating == "." else int(rating, 16) for rating in row] for row in raters]).T


def by_pairs(ratings, level):
    """Alpha as it is defined: mean disagreement of the pairs in items over that of all pairs."""
    items = [[value for value in row if not math.isnan(value)] for row in ratings.tolist()]
    items = [row for row in items if len(row) > 1]
    pool = [value for row in items for value in row]

    def distance(first, second):
        if level == "nominal":
            return float(first != second)
        low, high = min(first, second), max(first, second)
        between = sum(low <= value <= high for value in pool)
        return (between - (pool.count(low) + pool.count(high)) / 2) ** 2 if low != high else 0.0

    observed = sum(distance(*pair) / (len(row) - 1) for row in items for pair in itertools.permutations(row, 2)) / max(
        len(pool), 1
    )
    expected = sum(distance(*pair) for pair in itertools.permutations(pool, 2)) / max(len(pool) * (len(pool) - 1), 1)
    return 1 - observed / expected if expected else math.nan


@pytest.mark.parametrize(
    "raters, level, alpha",
    [(TWO_BINARY, "nominal", 0.095), (TWO_NOMINAL, "nominal", 0.692),
     (FOUR, "nominal", 0.743), (FOUR, "ordinal", 0.815)],
)  # fmt: skip
def test_published_examples(raters, level, alpha):
    assert krippendorff_alpha(table(raters), level) == pytest.approx(alpha, abs=5e-4)


ratings = arrays(
    np.float64,
    st.tuples(st.integers(1, 8), st.integers(1, 5)),
    elements=st.sampled_from([math.nan, 1.0, 2.0, 3.0, 4.0, 5.0]),
)


@given(ratings, st.sampled_from(["nominal", "ordinal"]))
def test_alpha_is_that_of_the_definition(made, level):
    assert krippendorff_alpha(made, level) == pytest.approx(by_pairs(made, level), nan_ok=True, abs=1e-9)


@given(ratings, st.sampled_from(["nominal", "ordinal"]))
def test_alpha_is_that_of_the_package_krippendorff(made, level):
    oracle = pytest.importorskip("krippendorff", reason="krippendorff is not installed")
    pairable = made[(~np.isnan(made)).sum(axis=1) > 1]
    assume(len(np.unique(pairable[~np.isnan(pairable)])) > 1)  # otherwise the package raises an error
    expected = oracle.alpha(reliability_data=made.T, level_of_measurement=level)
    assert krippendorff_alpha(made, level) == pytest.approx(expected, abs=1e-9)


@given(ratings, st.permutations(range(5)))
def test_who_rated_does_not_matter_and_neither_does_an_item_with_one_rating(made, order):
    alone = np.full((1, made.shape[1]), math.nan)
    alone[0, 0] = 9
    changed = np.concatenate([made[:, [place for place in order if place < made.shape[1]]][::-1], alone])
    for level in ("nominal", "ordinal"):
        assert krippendorff_alpha(changed, level) == pytest.approx(
            krippendorff_alpha(made, level), nan_ok=True, abs=1e-9
        )


def test_full_agreement_chance_and_nothing_to_say():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.integers(1, 6, (30, 1)), 3, axis=1)
    assert krippendorff_alpha(same, "ordinal") == 1
    assert abs(krippendorff_alpha(rng.integers(1, 6, (3000, 3)), "ordinal")) < 0.05
    assert math.isnan(krippendorff_alpha(np.full((4, 3), 2), "nominal"))
    assert math.isnan(krippendorff_alpha(np.array([[1, math.nan], [math.nan, 2]]), "nominal"))
    # A near miss is a smaller disagreement where values have an order.
    near = np.array([[1, 2], [2, 1], [4, 5], [5, 4]])
    assert krippendorff_alpha(near, "ordinal") > 0 > krippendorff_alpha(near, "nominal")


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_the_interval_is_that_of_items_drawn_anew(seed):
    rng = np.random.default_rng(seed)
    made = np.clip(rng.integers(1, 6, (20, 1)) + rng.integers(-1, 2, (20, 4)), 1, 5).astype(float)
    made[rng.random(made.shape) < 0.1] = math.nan
    interval = alpha_interval(made, "ordinal", resamples=1000, seed=seed)
    drawn = [krippendorff_alpha(made[rng.integers(20, size=20)], "ordinal") for _ in range(1000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert interval.estimate == krippendorff_alpha(made, "ordinal")
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.06)
    assert interval == alpha_interval(made, "ordinal", resamples=1000, seed=seed)


def test_no_alpha_no_interval():
    interval = alpha_interval(np.full((3, 2), 4.0), "ordinal", resamples=10)
    assert all(math.isnan(value) for value in (interval.estimate, interval.low, interval.high))


def test_what_is_no_table_or_no_level_is_an_error():
    with pytest.raises(ValueError, match=r"\(items, raters\).*\(3,\)"):
        krippendorff_alpha(np.ones(3), "nominal")
    with pytest.raises(ValueError, match="'interval'"):
        krippendorff_alpha(np.ones((3, 2)), "interval")
