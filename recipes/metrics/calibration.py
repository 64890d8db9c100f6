"""Calibration of probabilities: temperatures, what a perfectly calibrated model would score, and when to abstain.

Throughout, N is the number of recordings and C that of classes; `log_probabilities` are (N, C) and `labels` integers (N,), as
in `classification_scores`.
"""

import math
from typing import NamedTuple

import numpy as np

from action_llm_recipes.metrics.action_classification.classification_scores import (
    ScoreError,
    brier_score,
    expected_calibration_error,
    log_normalize,
    negative_log_likelihood,
)

# Answered shares of the recordings among which `abstention_threshold` chooses. They are fixed beforehand, since each of them
# takes a part of the permitted error probability.
COVERAGES = tuple(tenths / 10 for tenths in range(10, 0, -1))
# Draws of labels of a perfectly calibrated model.
DRAWS = 200


class CalibrationError(ValueError):
    """There is no temperature that fits, or no threshold that keeps a promise; the message says why."""


class Scores(NamedTuple):
    """Scores of probabilities, all of which are better the lower they are."""

    calibration_error: float
    negative_log_likelihood: float
    brier_score: float


class Abstention(NamedTuple):
    """A threshold, the share of the recordings at or above it, and their accuracy."""

    threshold: float
    coverage: float
    accuracy: float


def with_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities (N, C) with a temperature."""
    return log_normalize(np.asarray(log_probabilities, np.float64) / temperature)


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the highest likelihood (Guo et al. 2017, section 4.2).

    The likelihood is concave in 1 / temperature; its maximum is the zero of its derivative, found by bisection.

    Raises:
        CalibrationError: if the likelihood has no maximum: it grows without bound if each true class is the most probable one,
            and the probabilities are of no use if the true classes are less probable than others.
    """
    labels = np.asarray(labels)
    scores = log_normalize(log_probabilities)
    own = scores[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """Derivative of the mean log-likelihood with respect to 1 / temperature."""
        probabilities = np.exp(log_normalize(inverse * scores))
        return float(np.mean(own - (probabilities * np.where(probabilities > 0, scores, 0)).sum(axis=1)))

    if (own >= scores.max(axis=1)).all():
        raise CalibrationError(
            f"all {len(labels)} recordings are recognised, so the likelihood has no maximum: hold out more people."
        )
    low, high = -10.0, 10.0  # logarithms of 1 / temperature
    if slope(math.exp(low)) <= 0:
        raise CalibrationError(
            "the true classes are not more probable than other classes on average, so no temperature fits: train longer."
        )
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def fit_without_each_person(log_probabilities: np.ndarray, labels: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Log-probabilities (N, C) with temperatures: that for the recordings of each person is fitted on those of all others.

    Args:
        log_probabilities, labels: see above.
        people: (N,) person of each recording; at least two people.
    """
    tempered = np.empty(np.shape(log_probabilities))
    for person in np.unique(people):
        own = people == person
        temperature = fit_temperature(log_probabilities[~own], labels[~own])
        tempered[own] = with_temperature(log_probabilities[own], temperature)
    return tempered


def scores_of(log_probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """Calibration error, negative log-likelihood and Brier score."""
    measures = (expected_calibration_error, negative_log_likelihood, brier_score)
    return Scores(*(measure(log_probabilities, labels) for measure in measures))


def scores_if_perfect(log_probabilities: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Scores:
    """Median scores of a perfectly calibrated model with these probabilities, on as many recordings.

    The labels of each draw are drawn from the probabilities. Few recordings have a calibration error above 0 even then.
    """
    cumulated = np.exp(log_normalize(log_probabilities)).cumsum(axis=1)[:, :-1]
    rng = np.random.default_rng(seed)
    drawn = [
        scores_of(log_probabilities, (rng.random((len(cumulated), 1)) >= cumulated).sum(axis=1)) for _ in range(draws)
    ]
    return Scores(*np.median(drawn, axis=0).tolist())


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(N,) the share of wrong answers among the 1, 2, …, N most confident ones. Their mean is the area under the curve (AURC).

    Among answers of equal confidence, wrong ones are spread evenly.

    Args:
        confidence: (N,) probability of each answer.
        correct: (N,) whether it is right.
    """
    confidence, correct = _check_answers(confidence, correct)
    _, level_of = np.unique(-confidence, return_inverse=True)
    share_wrong = np.bincount(level_of, weights=~correct) / np.bincount(level_of)
    wrong = share_wrong[np.sort(level_of)]
    return np.cumsum(wrong) / np.arange(1, len(wrong) + 1)


def abstention_threshold(
    confidence: np.ndarray, correct: np.ndarray, accuracy: float, certainty: float = 0.95
) -> Abstention:
    """The threshold that answers as many recordings as it can with a guaranteed accuracy (Geifman and El-Yaniv 2017, "Selective
    Classification for Deep Neural Networks").

    With probability `certainty` over the draw of the recordings, the accuracy of answers at or above the threshold is at least
    `accuracy` on further recordings. Candidates are the thresholds that answer 100 %, 90 %, …, 10 % of the recordings; one is
    accepted if the upper Clopper-Pearson bound of its error, at the level (1 - certainty) / 10, is at most 1 - accuracy. So all
    bounds hold together. The paper searches by bisection instead, and its bounds share the error probability in the same way.

    Recordings count as independent. Those of a person are not, so with few people the accuracy for other people may be lower.

    Args:
        confidence: (N,) probability of each answer, on recordings that the model was not trained on.
        correct: (N,) whether it is right.
        accuracy: required share of right answers.
        certainty: confidence of the guarantee.

    Raises:
        CalibrationError: if no candidate keeps the promise; the message gives the number of recordings that would be needed.
    """
    confidence, correct = _check_answers(confidence, correct)
    if not 0 < accuracy < 1 or not 0 < certainty < 1:
        raise CalibrationError(
            f"expected an accuracy and a certainty between 0 and 1, got {accuracy} and {certainty}."
        )
    level = (1 - certainty) / len(COVERAGES)
    ranked = np.sort(confidence)[::-1]
    for coverage in COVERAGES:
        count = math.floor(coverage * len(ranked) + 1e-9)
        # Given the most confident recording that is not answered, the answered ones are an independent sample.
        threshold = math.nextafter(ranked[count], math.inf) if count < len(ranked) else 0.0
        answered = confidence >= threshold
        errors = int((~correct[answered]).sum())
        if answered.any() and binomial_tail(errors, int(answered.sum()), 1 - accuracy) <= level:
            return Abstention(threshold, float(answered.mean()), 1 - errors / int(answered.sum()))
    needed = math.ceil(math.log(level) / math.log(accuracy))
    raise CalibrationError(
        f"no threshold promises an accuracy of {accuracy:.1%} with a certainty of {certainty:.0%} after {len(ranked)} "
        f"recordings, {int(correct.sum())} of them recognised: it takes at least {needed} answers without an error. Hold out "
        "more people, or ask for less."
    )


def binomial_tail(errors: int, count: int, rate: float) -> float:
    """Probability of at most `errors` errors among `count` answers with the error rate `rate`.

    The upper Clopper-Pearson bound of an error rate is at most `rate` at a level if and only if this is at most the level.
    """
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(wrong + 1)
        - math.lgamma(count - wrong + 1)
        + wrong * math.log(rate)
        + (count - wrong) * math.log1p(-rate)
        for wrong in range(errors + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def _check_answers(confidence, correct) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ScoreError(f"expected as many confidences as answers, got {confidence.shape} and {correct.shape}.")
    return confidence, correct
