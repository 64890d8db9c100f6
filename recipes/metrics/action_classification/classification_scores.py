"""Metrics of classification, as functions of NumPy arrays.

Throughout, N is the number of recordings and C that of classes; `labels` are integers (N,) from 0 to C-1; `scores` are (N, C),
where a higher score means a more likely class; `log_probabilities` are scores whose exponentials sum to 1 in each row (see
`log_normalize`). All functions raise `ScoreError` for other arrays.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

# With fewer people, an interval over people would be unreliable: it is computed over recordings alone.
MIN_PEOPLE = 10


class ScoreError(ValueError):
    """The arrays cannot be scored: they have a wrong shape, contain NaN, or a label is not a class."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Recordings in bins of equal width by confidence, the probability of the predicted class.

    Attributes:
        edges: (bins + 1,) float64 from 0 to 1. A bin includes its upper edge, and the first bin includes 0.
        count: (bins,) int64 number of recordings.
        confidence: (bins,) float64 mean confidence, NaN if the bin is empty.
        accuracy: (bins,) float64 fraction of correct predictions, NaN if the bin is empty.
    """

    edges: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def calibration_error(self) -> float:
        """Mean of |accuracy - confidence| over bins, weighted by their numbers of recordings (Guo et al. 2017, Eq. 3)."""
        return float(np.nansum(self.count * np.abs(self.accuracy - self.confidence)) / self.count.sum())


@dataclass(frozen=True)
class Interval:
    """An estimate and the two ends of its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScore:
    """One row of the per-class table.

    Attributes:
        name: name of the class.
        count: number of recordings of this class.
        predicted: number of recordings that this class was predicted for.
        accuracy: fraction of its recordings that were recognised (recall); NaN without recordings.
        precision: fraction of correct predictions among those of this class; NaN without predictions.
        confused_with: the class that was predicted for most of its misclassified recordings, or None.
        confused_count: number of these recordings.
    """

    name: str
    count: int
    predicted: int
    accuracy: float
    precision: float
    confused_with: str | None
    confused_count: int


def log_normalize(scores: np.ndarray) -> np.ndarray:
    """Normalises scores (N, C) to log-probabilities, float64 (N, C), by subtracting log-sum-exp from each row.

    A score may be -inf (probability 0), as long as its row has a finite score.

    Raises:
        ScoreError: if a row has no finite score, or a score is NaN or inf.
    """
    scores = _check_scores(scores)
    top = scores.max(axis=1, keepdims=True)
    if np.isneginf(top).any():
        raise ScoreError(f"row {int(np.argmax(np.isneginf(top)))} of the scores has no finite score.")
    return scores - (top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True)))


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Fraction of recordings whose class is among the `k` highest scores.

    Of classes with equal scores, that with the smaller index ranks higher, as in `numpy.argmax`.
    """
    scores, labels = _check_scores(scores, labels)
    if not 1 <= k <= scores.shape[1]:
        raise ScoreError(f"k must lie in 1..{scores.shape[1]}, the number of classes; got {k}.")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return float(np.mean(rank < k))


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of correct predictions."""
    predictions, labels, _ = _check_predictions(predictions, labels)
    return float(np.mean(predictions == labels))


def mean_per_class_accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean recall over the classes that occur in `labels` (balanced accuracy). Classes without recordings do not count."""
    predictions, labels, classes = _check_predictions(predictions, labels)
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predictions == labels], minlength=classes)
    return float(np.mean(hits[counts > 0] / counts[counts > 0]))


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (C, C): entry (i, j) is the number of recordings of class i that class j was predicted for."""
    predictions, labels, _ = _check_predictions(predictions, labels, num_classes)
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_table(predictions: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[ClassScore]:
    """A `ClassScore` for each class, in the order of `class_names`."""
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
    """Mean of -log P(true class) in nats; inf if a true class has probability 0."""
    log_probabilities, labels = _check_log_probabilities(log_probabilities, labels)
    return float(-np.mean(log_probabilities[np.arange(len(labels)), labels]))


def brier_score(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over recordings of Σ_c (P(c) - [c is the true class])², from 0 to 2 (Brier 1950)."""
    log_probabilities, labels = _check_log_probabilities(log_probabilities, labels)
    errors = np.exp(log_probabilities)
    errors[np.arange(len(labels)), labels] -= 1
    return float(np.mean((errors**2).sum(axis=1)))


def reliability_bins(log_probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> ReliabilityBins:
    """Confidence and accuracy in bins of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""
    log_probabilities, labels = _check_log_probabilities(log_probabilities, labels)
    if bins < 1:
        raise ScoreError(f"bins must be at least 1; got {bins}.")
    # A row sums to 1 up to rounding, and must not exceed the last edge.
    confidence = np.minimum(np.exp(log_probabilities.max(axis=1)), 1.0)
    correct = log_probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / count
        mean_accuracy = np.bincount(index, weights=correct, minlength=bins) / count
    return ReliabilityBins(edges, count, mean_confidence, mean_accuracy)


def expected_calibration_error(log_probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """The `calibration_error` of [`ReliabilityBins`]."""
    return reliability_bins(log_probabilities, labels, bins).calibration_error


def wilson_interval(estimate: float, count: float, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001), which stays valid at 0 and 1.

    It also covers the mean of `count` numbers between 0 and 1, whose variance is at most that of a proportion with the same
    mean.

    Args:
        estimate: the proportion, from 0 to 1.
        count: number of recordings; for a mean over classes their effective number, which need not be an integer.
        level: confidence level.
    """
    _check_level(level)
    if not 0 <= estimate <= 1 or not 0 < count < math.inf:
        raise ScoreError(f"expected a proportion from 0 to 1, of more than 0 recordings; got {estimate}, of {count}.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = (estimate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(estimate * (1 - estimate) / count + z**2 / (4 * count**2))
    # Rounding must not put the estimate outside of the interval.
    return Interval(float(estimate), max(0.0, min(middle - half, estimate)), min(1.0, max(middle + half, estimate)))


def mean_per_class_interval(predictions: np.ndarray, labels: np.ndarray, level: float = 0.95) -> Interval:
    """Confidence interval of the mean accuracy over the classes that occur in `labels`.

    Classes of similar size form a stratum: those with 1 to 3 recordings, with 4 to 15, with 16 to 63, and so on. In a stratum
    of K classes with n_k recordings, all recognised with probability p, the variance of the mean accuracy is p (1 - p) / n with
    n = K² / Σ 1 / n_k. So the interval of the stratum is the Wilson interval of n recordings (on effective sample sizes: Dean
    and Pagano 2015, "Evaluating confidence interval methods for binomial proportions in clustered surveys"). If all classes
    have the same size, n is the number of recordings, and equal p is the worst case (Hoeffding 1956). Strata are weighted by
    their numbers of classes and combined by MOVER (Zou and Donner 2008, "Construction of confidence limits about effect
    measures"), which adds the squared distances of the limits from the estimates. So rare classes need not be as accurate as
    common ones.

    In simulations with 2 to 60 classes of 1 to 630 recordings and accuracies from 0.1 to 1, the coverage of the 95 % interval
    is at least 93 %. For a single class it is the Wilson interval, whose coverage drops to 88 % at an accuracy of 99 %.
    """
    predictions, labels, classes = _check_predictions(predictions, labels)
    counts = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[predictions == labels], minlength=classes)[counts > 0]
    counts = counts[counts > 0]
    accuracies, strata = hits / counts, np.floor(np.log2(counts) / 2)
    estimate, below, above = float(accuracies.mean()), 0.0, 0.0
    for stratum in np.unique(strata):
        inside = strata == stratum
        interval = wilson_interval(accuracies[inside].mean(), inside.sum() ** 2 / np.sum(1 / counts[inside]), level)
        below += (inside.mean() * (interval.estimate - interval.low)) ** 2
        above += (inside.mean() * (interval.high - interval.estimate)) ** 2
    return Interval(estimate, max(0.0, estimate - math.sqrt(below)), min(1.0, estimate + math.sqrt(above)))


def accuracy_interval(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    over_recordings: Interval,
    people: Sequence[str] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Confidence interval of an accuracy over recordings, widened to that over people if there are `MIN_PEOPLE` or more.

    Args:
        statistic: function of the arrays that returns an accuracy, such as `accuracy`.
        arrays: arrays of the same length N.
        over_recordings: its `wilson_interval` or `mean_per_class_interval`.
        people: (N,) the person in each recording, if known. Of `MIN_PEOPLE` people or more, the bootstrap interval over people
            is computed, and the wider one counts at each end: if all recordings are recognised, the bootstrap has no width.
        resamples, level, seed: see `bootstrap_interval`.
    """
    if not samples_people(people):
        return over_recordings
    drawn = bootstrap_interval(statistic, *arrays, groups=people, resamples=resamples, level=level, seed=seed)
    return Interval(
        over_recordings.estimate, min(over_recordings.low, drawn.low), max(over_recordings.high, drawn.high)
    )


def samples_people(people: Sequence[str] | None) -> bool:
    """Whether there are enough people for an interval over people."""
    return people is not None and len(set(people)) >= MIN_PEOPLE


def paired_interval(
    differences: np.ndarray,
    weights: Sequence[float] | None = None,
    groups: Sequence | None = None,
    level: float = 0.95,
) -> Interval:
    """Confidence interval of the mean difference between two methods on the same recordings, over recordings and seeds.

    Recordings, in groups, and seeds are crossed random effects, as cases and readers are in radiology (Obuchowski and Rockette
    1995; degrees of freedom by Satterthwaite, as in Hillis 2007). With mean squares of groups, seeds and their interaction, the
    variance of the mean is V_group + max(0, V_seed - V_interaction). With one seed, it is that over groups alone, and the
    interval says nothing of other seeds.

    To the variance over groups, two pseudo-recordings are added: one that only the first method recognises, and one that only
    the second does (as in Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data"). Without them, methods that agree on a few recordings would have an interval without width.

    Args:
        differences: (N,), or (S, N) for S seeds: the difference on each recording, from -1 to 1.
        weights: (N,) weight of each recording; by default all are equal. For mean per-class accuracies, it is one over the
            number of recordings of the class (`class_weights`).
        groups: (N,) the group of each recording, within which results depend on each other, such as one person's repetitions of
            an action; by default each recording is a group of its own.
        level: confidence level.
    """
    from scipy.stats import t as student

    differences = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    seeds, number = differences.shape
    weights = np.ones(number) if weights is None else np.asarray(weights, dtype=np.float64)
    group_of = np.arange(number) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if not number or len(weights) != number or len(group_of) != number:
        raise ScoreError(
            f"expected a weight and a group for each recording; got {len(weights)} weights and {len(group_of)} groups for "
            f"{number} recordings."
        )
    _check_level(level)
    weights = weights / weights.sum()
    of_seeds = differences @ weights
    estimate = float(of_seeds.mean())
    # What each group adds to the deviation of each seed's mean from 0, linearised: (S, G).
    deviations = np.zeros((seeds, group_of.max() + 1))
    np.add.at(deviations.T, group_of, (weights * (differences - of_seeds[:, None])).T)
    count = deviations.shape[1] + 2
    over_groups = count / (count - 1) * (np.sum(deviations.mean(axis=0) ** 2) + 2 / number**2)
    variance, freedom = over_groups, float(count - 1)
    if seeds > 1:
        over_seeds = of_seeds.var(ddof=1) / seeds
        rest = deviations - deviations.mean(axis=0)
        interaction = count / (count - 1) * np.sum(rest**2) / (seeds * (seeds - 1))
        variance += max(0.0, over_seeds - interaction)
        freedom = variance**2 / (over_groups**2 / (count - 1) + over_seeds**2 / (seeds - 1))
    half = float(student.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Interval(estimate, max(-1.0, estimate - half), min(1.0, estimate + half))


def class_weights(labels: Sequence) -> np.ndarray:
    """One over the number of recordings of each recording's class: a mean with these weights is that of the classes' means."""
    _, class_of, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    return 1 / counts[class_of]


def accuracy_by_person(hits: np.ndarray, people: Sequence[str]) -> dict[str, dict]:
    """Person → number of `recordings` and their accuracy `top_1`, sorted by name.

    Args:
        hits: bool (N,), whether each recording was recognised.
        people: (N,) the person in each recording.
    """
    hits, people = np.asarray(hits, dtype=bool), np.asarray(people, dtype=str)
    if hits.ndim != 1 or hits.shape != people.shape:
        raise ScoreError(
            f"expected a person for each recording; got {people.shape} people for {hits.shape} recordings."
        )
    # Numbers are sorted by value: 2 before 10.
    names = sorted(set(people.tolist()), key=lambda name: (not name.isdecimal(), len(name) * name.isdecimal(), name))
    return {
        name: {"recordings": int((people == name).sum()), "top_1": float(hits[people == name].mean())}
        for name in names
    }


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    groups: Sequence | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic, over recordings or groups of them.

    The interval of a statistic that is equal in all resamples, such as an accuracy of 1, has no width; `accuracy_interval` and
    `paired_interval` avoid that.

    Args:
        statistic: function of the arrays that returns a number, such as `accuracy`.
        arrays: arrays of the same length N. A resample takes the same N indices from all of them, so that
            `statistic=lambda a, b, y: accuracy(a, y) - accuracy(b, y)` gives the interval of a *paired* difference.
        groups: (N,) the group of each recording, such as its person: groups are drawn with all of their recordings (the
            cluster bootstrap, Davison and Hinkley 1997, section 3.8). By default each recording is a group of its own.
        resamples: number of resamples, each of as many groups as there are, with replacement.
        level: confidence level.
        seed: seed of the resamples; equal arguments give equal results.
    """
    if not arrays or len({len(array) for array in arrays}) != 1 or len(arrays[0]) == 0:
        raise ScoreError(
            f"the arrays must have the same length, above 0; got the lengths {[len(array) for array in arrays]}."
        )
    _check_level(level)
    if resamples < 1:
        raise ScoreError(f"resamples must be at least 1; got {resamples}.")
    arrays = tuple(map(np.asarray, arrays))
    rng = np.random.default_rng(seed)
    size = len(arrays[0])
    members = None
    if groups is not None:
        if len(groups) != size:
            raise ScoreError(f"expected a group for each recording; got {len(groups)} groups for {size} recordings.")
        _, group_of = np.unique(np.asarray(groups), return_inverse=True)
        members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
    values = np.empty(resamples)
    for draw in range(resamples):
        if members is None:
            index = rng.integers(size, size=size)
        else:
            index = np.concatenate([members[group] for group in rng.integers(len(members), size=len(members))])
        values[draw] = statistic(*(array[index] for array in arrays))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*arrays)), float(low), float(high))


def _check_level(level):
    if not 0 < level < 1:
        raise ScoreError(f"level must lie between 0 and 1; got {level}.")


def _check_scores(scores, labels=None):
    """float64 (N, C) and, with labels, int64 (N,)."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ScoreError(f"scores must be (recordings, classes) with at least one of each; got shape {scores.shape}.")
    wrong = np.isnan(scores) | np.isposinf(scores)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ScoreError(f"the score of recording {row} for class {column} is {scores[row, column]}.")
    return scores if labels is None else (scores, _check_labels(labels, "labels", len(scores), scores.shape[1]))


def _check_log_probabilities(log_probabilities, labels):
    log_probabilities, labels = _check_scores(log_probabilities, labels)
    sums = np.exp(log_probabilities).sum(axis=1)
    wrong = np.abs(sums - 1) > 1e-3
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ScoreError(f"the probabilities of recording {row} sum to {sums[row]:.6g}, not to 1: use log_normalize.")
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
        raise ScoreError(
            f"{what} must be a one-dimensional array of integers; got {labels.dtype} of shape {labels.shape}."
        )
    if count is not None and len(labels) != count:
        raise ScoreError(f"{len(labels)} {what} for {count} recordings.")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        index = int(np.argmax(outside))
        raise ScoreError(f"{what}[{index}] is {labels[index]}, outside the classes 0..{num_classes - 1}.")
    return labels.astype(np.int64)
