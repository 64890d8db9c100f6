"""Scores of timelines: event boundaries, overlap of actions, and time with the correct label."""

from collections.abc import Sequence
from typing import NamedTuple

# Tolerances in seconds within which the boundary of an event matches that of an action.
TOLERANCES = (0.2, 0.5, 1.0)


class Score(NamedTuple):
    """Precision, recall and their harmonic mean; 0 where a denominator is 0."""

    precision: float
    recall: float
    f1: float


def border_hits(predicted: Sequence[float], true: Sequence[float], tolerance: float) -> int:
    """
    The largest number of pairs of a predicted and a true boundary that are at most `tolerance` seconds apart. A boundary
    belongs to one pair at most.
    """
    predicted, true = sorted(predicted), sorted(true)
    hits = index = 0
    for border in true:
        # The earliest match leaves later predictions to later boundaries.
        while index < len(predicted) and predicted[index] < border - tolerance:
            index += 1
        if index < len(predicted) and predicted[index] <= border + tolerance:
            hits, index = hits + 1, index + 1
    return hits


def segment_hits(predicted: Sequence, true: Sequence, overlap: float) -> int:
    """
    The number of predicted segments (`start`, `end`, `label`) whose intersection over union with a true segment of the same
    label is at least `overlap` (Lea et al. 2017). A true segment counts once.
    """
    hits, matched = 0, set()
    for segment in predicted:
        best, best_index = 0.0, None
        for index, other in enumerate(true):
            if other.label == segment.label:
                union = max(segment.end, other.end) - min(segment.start, other.start)
                ratio = _intersection(segment, other) / union
                if ratio > best:
                    best, best_index = ratio, index
        if best_index is not None and best_index not in matched and best >= overlap:
            hits += 1
            matched.add(best_index)
    return hits


def _intersection(first, second) -> float:
    """Seconds that two segments have in common."""
    return max(0.0, min(first.end, second.end) - max(first.start, second.start))


def f1_score(hits: int, predicted: int, true: int) -> Score:
    """The score of numbers of hits, predictions and true items, each summed over videos."""
    precision, recall = (hits / count if count else 0.0 for count in (predicted, true))
    return Score(precision, recall, 2 * hits / (predicted + true) if predicted + true else 0.0)


def seconds_correct(predicted: Sequence, true: Sequence) -> float:
    """Seconds in which a predicted and a true segment have the same label."""
    return sum(
        _intersection(segment, other) for segment in predicted for other in true if segment.label == other.label
    )


class BorderCounts:
    """Counts of event boundaries that match boundaries of actions, summed over videos."""

    def __init__(self):
        self.videos = self.predicted = self.true = 0
        self._hits = dict.fromkeys(TOLERANCES, 0)

    def add(self, events: Sequence, actions: Sequence) -> None:
        """Adds a video: its events and its actions, with `start` and `end`. The start of the video is not a boundary, and
        events that begin at the same time, at several places of the frame, have one boundary."""
        predicted = {event.start for event in events if event.start > 0}
        true = [time for action in actions for time in (action.start, action.end)]
        self.videos += 1
        self.predicted += len(predicted)
        self.true += len(true)
        for tolerance in TOLERANCES:
            self._hits[tolerance] += border_hits(predicted, true, tolerance)

    def scores(self) -> dict:
        """The numbers of predicted and true boundaries, and a [`Score`] for each tolerance."""
        scores = {
            f"within_{tolerance:g}_s": f1_score(hits, self.predicted, self.true)._asdict()
            for tolerance, hits in self._hits.items()
        }
        return {"found": self.predicted, "true": self.true, **scores}
