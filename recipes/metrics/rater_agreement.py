"""Krippendorff's alpha: how far raters agree beyond chance, where not everybody has rated everything.

Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". 1 is full agreement, 0 what chance gives; below 0, raters
disagree more than by chance. Throughout, `ratings` are (items, raters), NaN where a rater has not rated an item.
"""

import numpy as np

from action_llm_recipes.metrics.action_classification.classification_scores import Interval

LEVELS = ("nominal", "ordinal")
_DRAWS = 256  # resamples that are scored at a time


def krippendorff_alpha(ratings: np.ndarray, level: str) -> float:
    """Alpha of some ratings. Items with fewer than two ratings say nothing of agreement and do not count.

    Args:
        ratings: (items, raters), NaN where there is none.
        level: "nominal", values are equal or not; "ordinal", values have an order, such as 1 to 5.

    Returns:
        NaN where nothing can be said: no item has two ratings, or all ratings are one value.

    Raises:
        ValueError: ratings of another shape, or another level.
    """
    coincidences = _coincidences(ratings, level)
    return float(_alpha(coincidences.sum(axis=0), level))


def alpha_interval(
    ratings: np.ndarray, level: str, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Alpha with its percentile bootstrap interval over items.

    Raters stay as they are: a rater who is drawn twice would agree with himself.

    Args:
        ratings, level: as of `krippendorff_alpha`.
        resamples: how often the items that have two ratings are drawn anew, with replacement.
        confidence: probability that the interval covers.
        seed: of the draws; the result is a function of the arguments.

    Returns:
        All NaN where alpha is. Resamples in which all ratings are one value have no alpha and are left out. Both ends are NaN
        where all resamples have the same alpha, as where raters agree on every item: they show no spread, which is not to say
        that there is none.
    """
    coincidences = _coincidences(ratings, level)
    estimate = float(_alpha(coincidences.sum(axis=0), level))
    if np.isnan(estimate):
        return Interval(estimate, estimate, estimate)
    items, values = coincidences.shape[:2]
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, _DRAWS):
        times = rng.multinomial(items, np.full(items, 1 / items), size=min(_DRAWS, resamples - start))
        found.append(_alpha((times @ coincidences.reshape(items, -1)).reshape(-1, values, values), level))
    drawn = np.concatenate(found)
    if np.nanmax(drawn) - np.nanmin(drawn) < 1e-9:
        return Interval(estimate, float("nan"), float("nan"))
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def _coincidences(ratings, level) -> np.ndarray:
    """float64 (items with two ratings or more, values, values): pairs of ratings of an item, each over its raters − 1."""
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2:
        raise ValueError(f"ratings must be (items, raters); got shape {ratings.shape}.")
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}.")
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(axis=1)
    counts = counts[counts.sum(axis=1) > 1]
    pairs = counts[:, :, None] * (counts[:, None] - np.eye(len(values)))
    return pairs / (counts.sum(axis=1) - 1)[:, None, None]


def _alpha(coincidences: np.ndarray, level: str) -> np.ndarray:
    """(…, values, values) → (…): 1 − observed over expected disagreement."""
    totals = coincidences.sum(axis=-1)
    expected = totals[..., :, None] * totals[..., None, :]
    if level == "nominal":
        distance = 1.0 - np.eye(totals.shape[-1])
    else:
        # Ratings that lie between two values, with half of those that have one of the two.
        middle = totals.cumsum(axis=-1) - totals / 2
        distance = (middle[..., :, None] - middle[..., None, :]) ** 2
    observed, by_chance = (coincidences * distance).sum(axis=(-2, -1)), (expected * distance).sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = 1 - (totals.sum(axis=-1) - 1) * observed / by_chance
    return np.where(by_chance > 0, alpha, np.nan)
