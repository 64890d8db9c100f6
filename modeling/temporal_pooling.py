"""Adaptive temporal pooling: cells of a video become events of varying length, in order (VT-LVLM-AR, Eq. 2).

Every cell has a weight between 0 and 1. The weights are summed along the video, and an event ends each time the sum passes a
whole number (continuous integrate-and-fire, Dong and Xu 2020): heavy cells make short events, light ones are drawn together. A
cell on a border belongs to both events, by shares. By a budget, at most `max_events` events begin in every stretch of `window`
cells, wherever that begins. Nothing looks ahead, so a stream gives the events that the whole video gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

# No cell is without weight: something has to be the event where nothing happens.
LEAST_WEIGHT = 1e-4
# What is left of a sum that is a whole number but for rounding is no event.
SLACK = 1e-9
# Share of the events of a window that may follow each other at once; the rest is earned, cell by cell.
BURST = 0.5


@dataclass
class Events:
    """Events of a batch of videos.

    A cell has its weight in one event, or in two that follow each other.

    Attributes:
        features: (batch_size, num_events, width), the mean of the cells, by their weights; 0 where padded.
        mask: int64 (batch_size, num_events), 1 for events.
        starts, ends: float64 (batch_size, num_events), in cells from the start of the video; 0 where padded.
        first: int64 (batch_size, num_cells), the event in which a cell begins; 0 where padded.
        share: (batch_size, num_cells), how much of the cell's weight is that event's, 0 to 1; the rest is the next one's.
    """

    features: torch.Tensor
    mask: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    first: torch.Tensor
    share: torch.Tensor


def pool_events(features: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> Events:
    """
    Events of videos.

    Args:
        features (`torch.Tensor` of shape `(batch_size, num_cells, width)`): of the cells.
        weights (`torch.Tensor` of shape `(batch_size, num_cells)`): between 0 and 1.
        mask (`torch.Tensor` of shape `(batch_size, num_cells)`): 1 for cells, which come before all padding.

    Raises:
        ValueError: shapes that do not fit, weights that are none, a video without cells.
    """
    _check_cells(features, weights, mask)
    valid = mask.bool()
    weights = weights.double().clamp_min(LEAST_WEIGHT) * valid
    sums = weights.cumsum(dim=1)
    before = sums - weights
    counts = torch.ceil(sums[:, -1].detach() - SLACK).clamp_min(1).long()
    # In padding, that of the last cell: it gets nothing.
    first = torch.minimum((before.detach() + SLACK).floor().long(), counts[:, None] - 1)
    # The last event takes what is left of the sum.
    into_next = (sums - (first + 1)).clamp_min(0) * (first < counts[:, None] - 1)
    share = ((weights - into_next) / weights.clamp_min(LEAST_WEIGHT)).masked_fill(~valid, 0)

    length = int(counts.max())
    second = (first + 1).clamp_max(length - 1)
    own, rest = (weights - into_next).to(features.dtype), into_next.to(features.dtype)
    total = features.new_zeros(len(features), length, features.shape[-1])
    total = _add_at(total, first, own[..., None] * features)
    total = _add_at(total, second, rest[..., None] * features)
    mass = _add_at(_add_at(features.new_zeros(len(features), length), first, own), second, rest)

    places = torch.arange(length, device=features.device, dtype=torch.float64)
    is_event = places < counts[:, None]
    starts = _crossings(sums.detach(), weights.detach(), places.expand(len(features), -1))
    is_last = places == counts[:, None] - 1
    ends = torch.where(is_last, valid.sum(dim=1).double()[:, None], torch.roll(starts, -1, dims=1))
    return Events(
        total / mass.masked_fill(~is_event, 1)[..., None],
        is_event.long(),
        starts * is_event,
        ends * is_event,
        first * valid,
        share.to(features.dtype),
    )


def unpool(tokens: torch.Tensor, events: Events) -> torch.Tensor:
    """Tokens of events (batch_size, num_events, width) → cells (batch_size, num_cells, width), by their shares."""
    second = (events.first + 1).clamp_max(tokens.shape[1] - 1)
    begun, ended = (tokens.gather(1, at[..., None].expand(-1, -1, tokens.shape[-1])) for at in (events.first, second))
    return ended + events.share[..., None].to(tokens.dtype) * (begun - ended)


def _add_at(total: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`total` (batch_size, num_events, …) plus `values` (batch_size, num_cells, …), each at its event."""
    return total.scatter_add(1, index.view(*index.shape, *[1] * (values.dim() - 2)).expand_as(values), values)


def _crossings(sums: torch.Tensor, weights: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Cells, with their fraction, at which the running sum (batch_size, num_cells) reaches each level (batch_size, E)."""
    index = torch.searchsorted(sums.contiguous(), levels.contiguous() + SLACK).clamp_max(sums.shape[1] - 1)
    before = sums.gather(1, index) - weights.gather(1, index)
    return index + ((levels - before) / weights.gather(1, index).clamp_min(LEAST_WEIGHT)).clamp(0, 1)


def _check_cells(features: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> None:
    if features.dim() != 3 or weights.shape != features.shape[:2] or mask.shape != features.shape[:2]:
        raise ValueError(
            "expected features (batch_size, num_cells, width) and weights and mask (batch_size, num_cells), got "
            f"{tuple(features.shape)}, {tuple(weights.shape)} and {tuple(mask.shape)}."
        )
    if not bool(mask.bool()[:, 0].all()):
        raise ValueError(f"video {int((~mask.bool()[:, 0]).nonzero()[0])} of the batch has no cells.")
    least, most = float(weights.detach().min()), float(weights.detach().max())
    if not (least >= 0 and most <= 1):
        raise ValueError(f"weights must be between 0 and 1, found {least:g} to {most:g}.")


class Budget:
    """
    What weights may be spent: a purse that holds half of a window's events and earns the other half, cell by cell.

    Whatever the weights, they sum to at most `max_events` in every stretch of `window` cells.

    Args:
        max_events (`int`), window (`int`): at most so many events in so many cells.
        batch_size (`int`, *optional*): videos that are read side by side.
    """

    def __init__(self, max_events: int, window: int, batch_size: int = 1):
        self.burst = BURST * max_events
        self.earned = (max_events - self.burst) / window
        self.purse = np.full(batch_size, self.burst)

    def allow(self, weights: np.ndarray) -> np.ndarray:
        """Weights (batch_size, num_cells), float64 → the most that each may be, after what came before it."""
        allowed = np.empty_like(weights)
        for cell in range(weights.shape[1]):
            allowed[:, cell] = self.purse
            self.purse = np.minimum(self.burst, self.purse - np.minimum(weights[:, cell], self.purse) + self.earned)
        return allowed


def within_budget(weights: torch.Tensor, max_events: int, window: int) -> torch.Tensor:
    """Weights (batch_size, num_cells) cut to the budget (`Budget`); differentiable where they are not cut."""
    allowed = Budget(max_events, window, len(weights)).allow(weights.detach().double().cpu().numpy())
    return torch.minimum(weights, torch.from_numpy(allowed).to(weights))


class PooledEvent(NamedTuple):
    """An event of a stream: its feature, float64 (width,), and its span in cells from the start of the video."""

    feature: np.ndarray
    start: float
    end: float


class EventStream:
    """
    Events of one video of any length, from cells as they come. What it holds does not grow.

    Args:
        width (`int`): of the cells.
    """

    def __init__(self, width: int):
        self.cell = 0  # of all that came
        self._level = 0.0  # of the open event: it ends at 1
        self._start, self._sum = 0.0, np.zeros(width)

    def push(self, features: np.ndarray, weights: np.ndarray) -> Iterator[PooledEvent]:
        """
        Args:
            features (`np.ndarray` of shape `(num_cells, width)`), weights (`np.ndarray` of shape `(num_cells,)`): between 0
                and 1.

        Yields:
            Events that have ended.
        """
        for feature, weight in zip(features.astype(np.float64), weights.tolist(), strict=True):
            weight = max(weight, LEAST_WEIGHT)
            left = weight
            # A border is passed, not only reached: the last event of a video ends with the video.
            if self._level >= 1 - SLACK:
                yield self._close(float(self.cell))
            if self._level + weight > 1 + SLACK:
                own = 1 - self._level
                self._sum += own * feature
                self._level = 1.0
                left -= own
                yield self._close(self.cell + own / weight)
            self._sum += left * feature
            self._level += left
            self.cell += 1

    def finish(self) -> Iterator[PooledEvent]:
        """The event that is still open, if any. The next video may follow."""
        if self._level > 0:
            yield self._close(float(self.cell))
        self.__init__(len(self._sum))

    def _close(self, end: float) -> PooledEvent:
        event = PooledEvent(self._sum / self._level, self._start, end)
        self._level, self._start, self._sum = 0.0, end, np.zeros_like(self._sum)
        return event


__all__ = ["Budget", "EventStream", "Events", "PooledEvent", "pool_events", "unpool", "within_budget"]
