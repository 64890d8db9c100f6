"""Scores of timelines: borders, actions by their overlap, and the time that is named rightly."""

from collections.abc import Sequence
from typing import NamedTuple

# Seconds within which a border of an event counts as that of an action.
TOLERANCES = (0.2, 0.5, 1.0)


class Score(NamedTuple):
    """Precision, recall and their harmonic mean; 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float


def border_hits(found: Sequence[float], true: Sequence[float], tolerance: float) -> int:
    """
    The largest number of pairs of a found and a true border, each in one pair at most, that are not further apart than
    `tolerance`, in seconds.
    """
    found, true = sorted(found), sorted(true)
    hits = place = 0
    for border in true:
        # The earliest that is near enough leaves the later ones to the borders that follow.
        while place < len(found) and found[place] < border - tolerance:
            place += 1
        if place < len(found) and found[place] <= border + tolerance:
            hits, place = hits + 1, place + 1
    return hits


def segment_hits(found: Sequence, true: Sequence, overlap: float) -> int:
    """
    Found segments (`start`, `end`, `label`) that overlap a true one of the same label by at least `overlap`, as a share of both
    together (intersection over union; Lea et al. 2017). A true segment is hit once.
    """
    hits, taken = 0, set()
    for one in found:
        best, place = 0.0, None
        for index, other in enumerate(true):
            if other.label == one.label:
                shared = min(one.end, other.end) - max(one.start, other.start)
                share = shared / (max(one.end, other.end) - min(one.start, other.start))
                if share > best:
                    best, place = share, index
        if place is not None and place not in taken and best >= overlap:
            hits += 1
            taken.add(place)
    return hits


def f1_score(hits: int, found: int, true: int) -> Score:
    """Of counts, summed over videos."""
    precision, recall = (hits / count if count else 0.0 for count in (found, true))
    return Score(precision, recall, 2 * hits / (found + true) if found + true else 0.0)


def seconds_named_rightly(found: Sequence, true: Sequence) -> float:
    """Seconds in which a found segment and a true one have the same label."""
    return sum(
        max(0.0, min(one.end, other.end) - max(one.start, other.start))
        for one in found
        for other in true
        if one.label == other.label
    )


class BorderCounts:
    """How near the borders of events are to those of actions, over videos."""

    def __init__(self):
        self.videos = self.found = self.true = 0
        self._hits = dict.fromkeys(TOLERANCES, 0)

    def add(self, events: Sequence, actions: Sequence) -> None:
        """One video: its events, of which the first begins with it, and its actions, each with `start` and `end`."""
        found, true = [one.start for one in events[1:]], [at for one in actions for at in (one.start, one.end)]
        self.videos, self.found, self.true = self.videos + 1, self.found + len(found), self.true + len(true)
        for tolerance in TOLERANCES:
            self._hits[tolerance] += border_hits(found, true, tolerance)

    def scores(self) -> dict:
        """Numbers of borders, and a [`Score`] for each tolerance."""
        scores = {
            f"within_{at:g}_s": f1_score(hits, self.found, self.true)._asdict() for at, hits in self._hits.items()
        }
        return {"found": self.found, "true": self.true, **scores}
