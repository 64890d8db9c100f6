"""Scores of timelines: event boundaries, overlap of actions, their starts, and time with the correct label."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# Tolerances in seconds within which the boundary of an event matches that of an action.
TOLERANCES = (0.2, 0.5, 1.0)


class Score(NamedTuple):
    """Precision, recall and their harmonic mean; 0 where a denominator is 0."""

    precision: float
    recall: float
    f1: float


class ScoredSegment(NamedTuple):
    """A predicted action: `start` and `end` in seconds, its label, and a score that ranks predictions."""

    start: float
    end: float
    label: str
    score: float


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
                ratio = overlap_ratio(segment, other)
                if ratio > best:
                    best, best_index = ratio, index
        if best_index is not None and best_index not in matched and best >= overlap:
            hits += 1
            matched.add(best_index)
    return hits


def overlap_ratio(first, second) -> float:
    """Intersection over union of two segments in time (tIoU)."""
    return _intersection(first, second) / (max(first.end, second.end) - min(first.start, second.start))


def start_closeness(first, second) -> float:
    """Seconds between the starts of two segments, negated."""
    return -abs(first.start - second.start)


def mean_average_precision(
    predicted: Sequence[Sequence[ScoredSegment]],
    true: Sequence[Sequence],
    closeness: Callable[..., float],
    least: float,
) -> float:
    """
    Mean over the true labels of the area under the interpolated curve of precision over recall.

    Predictions of all videos are ranked by their score. Each is correct if a true segment of its video and label that no
    prediction before it has taken is close enough; it takes the closest. With [`overlap_ratio`], this is the mAP of ActivityNet
    at a tIoU (Caba Heilbron et al. 2015); with [`start_closeness`] of the moments at which actions are reported, the
    point-level AP of online detection at an offset (Shou et al. 2018).

    Args:
        predicted, true: segments of each video.
        closeness: of a predicted and a true segment; higher is closer.
        least: the least closeness of a correct prediction.

    Returns:
        A number from 0 to 1; NaN if there is no true segment.
    """
    labels = sorted({segment.label for segments in true for segment in segments})
    scores = []
    for label in labels:
        open_segments = [[segment for segment in segments if segment.label == label] for segments in true]
        num_true = sum(map(len, open_segments))
        ranked = [
            (segment, video)
            for video, segments in enumerate(predicted)
            for segment in segments
            if segment.label == label
        ]
        ranked.sort(key=lambda ranking: -ranking[0].score)
        hits = np.zeros(len(ranked))
        for rank, (segment, video) in enumerate(ranked):
            closest = max(open_segments[video], key=lambda other: closeness(segment, other), default=None)
            if closest is not None and closeness(segment, closest) >= least:
                open_segments[video].remove(closest)
                hits[rank] = 1
        precision = hits.cumsum() / np.arange(1, len(hits) + 1)
        # The best precision at this recall or a higher one.
        interpolated = np.maximum.accumulate(precision[::-1])[::-1]
        scores.append(float(hits @ interpolated) / num_true)
    return float(np.mean(scores)) if scores else float("nan")


def edit_distance(first: Sequence, second: Sequence) -> int:
    """
    The least number of insertions, deletions and substitutions that turn one sequence into another (Levenshtein).

    One minus it, divided by the length of the longer sequence, is the segmental edit score of the labels of a video in their
    order (Lea et al. 2016).
    """
    row = list(range(len(second) + 1))
    for number, item in enumerate(first, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(second, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (item != other))
    return row[-1]


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
        """Adds a video: its events, which last until its end, and its actions, with `start` and `end`. The start and the end of
        the video are not boundaries. Events that begin at the same time, at several places of the frame, have one boundary, and
        so have actions that follow each other at once."""
        end = max((event.end for event in events), default=0.0)
        predicted = {event.start for event in events if event.start > 0}
        true = {time for action in actions for time in action[:2] if 0 < time < end}
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
