"""How good predictions of classes are: plain functions of arrays, without a framework.

Throughout, N recordings, C classes, `labels` are integers (N,) in 0..C-1, `scores` are (N, C), higher is better, and
`log_probabilities` are scores whose rows sum to 1 after exp (see `log_normalize`). Bad input raises `ScoreError`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


class ScoreError(ValueError):
    """The arrays cannot be scored: wrong shape, NaN, or a label that is no class."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Recordings sorted by confidence, the probability of the predicted class, into bins of equal width.

    Attributes:
        edges: (bins + 1,) float64 from 0 to 1. A bin holds its upper edge; the first one holds 0 too.
        count: (bins,) int64 recordings in the bin.
        confidence: (bins,) float64 mean confidence, NaN where the bin is empty.
        accuracy: (bins,) float64 fraction of right predictions, NaN where the bin is empty.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A statistic on all recordings, and the two ends of its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScore:
    """One row of the per-class table.

    Attributes:
        name: name of the class.
        count: recordings of this class.
        predicted: recordings that were given this class.
        accuracy: fraction of its recordings that were recognised (recall); NaN without recordings.
        precision: fraction of the predictions of this class that were right; NaN without predictions.
        confused_with: the class that most of its missed recordings were taken for, or None.
        confused_count: how many.
    """

    name: str
    count: int
    predicted: int
    accuracy: float
    precision: float
    confused_with: str | None
    confused_count: int


def log_normalize(scores: np.ndarray) -> np.ndarray:
    """Subtracts log-sum-exp from each row, so that the probabilities of the C classes sum to 1. (N, C) → float64 (N, C).

    A score of -inf (probability 0) is allowed as long as a row has a finite one.
    """
    scores = _check_scores(scores)
    top = scores.max(axis=1, keepdims=True)
    if np.isneginf(top).any():
        raise ScoreError(f"row {int(np.argmax(np.isneginf(top)))} of the scores has no finite score.")
    return scores - (top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True)))


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Fraction of recordings whose class is among the `k` highest scores.

    Among equal scores the class with the smaller index comes first, as in `numpy.argmax`.
    """
    scores, labels = _check_scores(scores, labels)
    if not 1 <= k <= scores.shape[1]:
        raise ScoreError(f"k must lie in 1..{scores.shape[1]}, the number of classes; got {k}.")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return float(np.mean(rank < k))


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of right predictions."""
    predictions, labels, _ = _check_predictions(predictions, labels)
    return float(np.mean(predictions == labels))


def mean_per_class_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur in `labels` of the fraction of their recordings that were recognised.

    A class without recordings has no accuracy and does not count, neither as 0 nor as 1.
    """
    predictions, labels, classes = _check_predictions(predictions, labels)
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predictions == labels], minlength=classes)
    return float(np.mean(hits[counts > 0] / counts[counts > 0]))


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (C, C): entry (i, j) counts recordings of class i that were taken for class j."""
    predictions, labels, _ = _check_predictions(predictions, labels, num_classes)
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_table(predictions: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[ClassScore]:
    """One `ClassScore` for each class, in the order of `class_names`."""
    matrix = confusion_matrix(predictions, labels, len(class_names))
    missed = matrix - np.diag(np.diag(matrix))
    table = []
    for index, name in enumerate(class_names):
        count, predicted, hits = int(matrix[index].sum()), int(matrix[:, index].sum()), int(matrix[index, index])
        other = int(missed[index].argmax())
        confused = int(missed[index, other])
        table.append(
            ClassScore(
                name=name,
                count=count,
                predicted=predicted,
                accuracy=hits / count if count else float("nan"),
                precision=hits / predicted if predicted else float("nan"),
                confused_with=class_names[other] if confused else None,
                confused_count=confused,
            )
        )
    return table


def negative_log_likelihood(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log P(class of the recording), in nats; inf where a true class had probability 0."""
    log_probabilities, labels = _check_log_probabilities(log_probabilities, labels)
    return float(-np.mean(log_probabilities[np.arange(len(labels)), labels]))


def brier_score(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over recordings of Σ_c (P(c) - [c is the class])², from 0 to 2 (Brier 1950)."""
    log_probabilities, labels = _check_log_probabilities(log_probabilities, labels)
    errors = np.exp(log_probabilities)
    errors[np.arange(len(labels)), labels] -= 1
    return float(np.mean((errors**2).sum(axis=1)))


def reliability_bins(log_probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> ReliabilityBins:
    """Confidence against accuracy in `bins` bins of equal width (Guo et al. 2017, "On calibration…", section 2)."""
    log_probabilities, labels = _check_log_probabilities(log_probabilities, labels)
    if bins < 1:
        raise ScoreError(f"bins must be at least 1; got {bins}.")
    # A row that sums to 1 only to rounding must not fall out at the top.
    confidence = np.minimum(np.exp(log_probabilities.max(axis=1)), 1.0)
    right = log_probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / count
        mean_accuracy = np.bincount(index, weights=right, minlength=bins) / count
    return ReliabilityBins(edges, count, mean_confidence, mean_accuracy)


def expected_calibration_error(log_probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over the bins, weighted by their recordings (Guo et al. 2017, Eq. 3)."""
    table = reliability_bins(log_probabilities, labels, bins)
    return float(np.nansum(table.count * np.abs(table.accuracy - table.confidence)) / table.count.sum())


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic, over recordings.

    Args:
        statistic: function of the arrays that returns a number, such as `accuracy`.
        arrays: arrays of one length N. In each resample all of them are drawn with the same N indices, so that
            `statistic=lambda a, b, y: accuracy(a, y) - accuracy(b, y)` gives the interval of a *paired* difference.
        resamples: how often N recordings are drawn with replacement.
        level: probability that the interval covers.
        seed: of the draws; the result is a function of the arguments.
    """
    if not arrays or len({len(array) for array in arrays}) != 1 or len(arrays[0]) == 0:
        raise ScoreError(f"the arrays must have one length above 0; got {[len(array) for array in arrays]}.")
    if not 0 < level < 1:
        raise ScoreError(f"level must lie between 0 and 1; got {level}.")
    if resamples < 1:
        raise ScoreError(f"resamples must be at least 1; got {resamples}.")
    arrays = tuple(map(np.asarray, arrays))
    rng = np.random.default_rng(seed)
    size = len(arrays[0])
    values = np.empty(resamples)
    for draw in range(resamples):
        index = rng.integers(size, size=size)
        values[draw] = statistic(*(array[index] for array in arrays))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*arrays)), float(low), float(high))


def _check_scores(scores, labels=None):
    """float64 (N, C) and, with labels, int64 (N,)."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ScoreError(f"scores must be (recordings, classes) with at least one of each; got shape {scores.shape}.")
    wrong = np.isnan(scores) | np.isposinf(scores)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ScoreError(f"score of recording {row} for class {column} is {scores[row, column]}.")
    return scores if labels is None else (scores, _check_labels(labels, "labels", len(scores), scores.shape[1]))


def _check_log_probabilities(log_probabilities, labels):
    log_probabilities, labels = _check_scores(log_probabilities, labels)
    sums = np.exp(log_probabilities).sum(axis=1)
    wrong = np.abs(sums - 1) > 1e-3
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ScoreError(f"probabilities of recording {row} sum to {sums[row]:.6g}, not to 1: use log_normalize.")
    return log_probabilities, labels


def _check_predictions(predictions, labels, num_classes=None):
    """int64 (N,), int64 (N,) and the number of classes."""
    classes = num_classes
    if classes is None:
        classes = 1 + max(
            (int(np.max(part)) for part in map(np.asarray, (predictions, labels)) if part.size), default=0
        )
    predictions = _check_labels(predictions, "predictions", None, classes)
    labels = _check_labels(labels, "labels", len(predictions), classes)
    return predictions, labels, classes


def _check_labels(labels, what, count, num_classes):
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ScoreError(f"{what} must be a row of integers; got {labels.dtype} of shape {labels.shape}.")
    if count is not None and len(labels) != count:
        raise ScoreError(f"{len(labels)} {what} for {count} recordings.")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        index = int(np.argmax(outside))
        raise ScoreError(f"{what}[{index}] is {labels[index]}, outside the classes 0..{num_classes - 1}.")
    return labels.astype(np.int64)
