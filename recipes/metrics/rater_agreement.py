"""Krippendorff's alpha: agreement between raters beyond chance, where ratings may be missing.

Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability". 1 is full agreement, 0 the agreement expected by chance; below
0, raters disagree more than by chance. Throughout, `ratings` are (items, raters), NaN where a rating is missing.
"""

import numpy as np

from action_llm_recipes.metrics.action_classification.classification_scores import Interval

LEVELS = ("nominal", "ordinal")
_BATCH = 256  # resamples that are scored at a time


def krippendorff_alpha(ratings: np.ndarray, level: str) -> float:
    """Krippendorff's alpha of some ratings. Items with fewer than two ratings do not count.

    Args:
        ratings: (items, raters), NaN where a rating is missing.
        level: "nominal" for values without an order; "ordinal" for values with an order, such as 1 to 5.

    Returns:
        Alpha, at most 1; NaN if no item has two ratings, or all ratings are equal.

    Raises:
        ValueError: if `ratings` have another shape, or `level` is not known.
    """
    coincidences = _coincidences(ratings, level)
    return float(_alpha(coincidences.sum(axis=0), level))


def alpha_interval(
    ratings: np.ndarray, level: str, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Alpha with its percentile bootstrap interval over items.

    Raters are not resampled: a rater drawn twice would agree with themself.

    Args:
        ratings, level: see `krippendorff_alpha`.
        resamples: number of bootstrap resamples of the items with two ratings or more.
        confidence: confidence level of the interval.
        seed: seed of the resamples; equal arguments give equal results.

    Returns:
        All values are NaN if alpha is. Both ends are NaN if all resamples have the same alpha, for example if raters agree on
        every item: the resamples then tell nothing about its spread. Resamples whose ratings are all equal have no alpha and
        are left out.
    """
    coincidences = _coincidences(ratings, level)
    estimate = float(_alpha(coincidences.sum(axis=0), level))
    if np.isnan(estimate):
        return Interval(estimate, estimate, estimate)
    items, values = coincidences.shape[:2]
    rng = np.random.default_rng(seed)
    alphas = []
    for start in range(0, resamples, _BATCH):
        counts = rng.multinomial(items, np.full(items, 1 / items), size=min(_BATCH, resamples - start))
        alphas.append(_alpha((counts @ coincidences.reshape(items, -1)).reshape(-1, values, values), level))
    drawn = np.concatenate(alphas)
    if np.nanmax(drawn) - np.nanmin(drawn) < 1e-9:
        return Interval(estimate, float("nan"), float("nan"))
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high))


def _coincidences(ratings, level) -> np.ndarray:
    """float64 (items with two ratings or more, values, values): pairs of ratings of each item, divided by its raters − 1."""
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2:
        raise ValueError(f"ratings must have the shape (items, raters); got shape {ratings.shape}.")
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}.")
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(axis=1)
    counts = counts[counts.sum(axis=1) > 1]
    pairs = counts[:, :, None] * (counts[:, None] - np.eye(len(values)))
    return pairs / (counts.sum(axis=1) - 1)[:, None, None]


def _alpha(coincidences: np.ndarray, level: str) -> np.ndarray:
    """Alpha (…) of coincidences (…, values, values): 1 − observed / expected disagreement."""
    totals = coincidences.sum(axis=-1)
    expected = totals[..., :, None] * totals[..., None, :]
    if level == "nominal":
        distance = 1.0 - np.eye(totals.shape[-1])
    else:
        # The number of ratings between two values, counting half of those equal to either.
        middle = totals.cumsum(axis=-1) - totals / 2
        distance = (middle[..., :, None] - middle[..., None, :]) ** 2
    observed, chance = (coincidences * distance).sum(axis=(-2, -1)), (expected * distance).sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = 1 - (totals.sum(axis=-1) - 1) * observed / chance
    return np.where(chance > 0, alpha, np.nan)
