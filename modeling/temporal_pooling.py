"""Adaptive temporal pooling: groups the cells of a video into consecutive events of varying length (VT-LVLM-AR, Eq. 2).

Every cell has a weight between 0 and 1. The weights are summed along the video, and an event ends each time the sum passes an
integer (continuous integrate-and-fire, Dong and Xu 2020): cells of large weight make short events, cells of small weight long
ones. A cell on a boundary is divided between both events. A budget lets at most `max_events` events begin in any `window`
consecutive cells. Pooling is causal, so a stream gives the same events as the whole video.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

# Lower bound of weights, so that a video in which nothing happens has an event, too.
LEAST_WEIGHT = 1e-4
# Tolerance for rounding when a sum is compared with an integer.
SLACK = 1e-9
# Share of a window's events that may follow each other immediately; the rest of the budget is refilled, cell by cell.
BURST = 0.5


@dataclass
class Events:
    """Events of a batch of videos. The weight of a cell belongs to one event, or to two consecutive events.

    Attributes:
        features: (batch_size, num_events, width), the weighted mean of the cells' features; 0 where padded.
        mask: int64 (batch_size, num_events), 1 for events, 0 for padding.
        starts, ends: float64 (batch_size, num_events), in cells from the start of the video; 0 where padded.
        first: int64 (batch_size, num_cells), the event in which a cell begins; 0 where padded.
        share: (batch_size, num_cells), the share of the cell's weight in that event, 0 to 1; the rest is in the next event.
    """

    features: torch.Tensor
    mask: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    first: torch.Tensor
    share: torch.Tensor


def pool_events(features: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> Events:
    """
    Pools the cells of videos into events.

    Args:
        features (`torch.Tensor` of shape `(batch_size, num_cells, width)`): features of the cells, padded on the right.
        weights (`torch.Tensor` of shape `(batch_size, num_cells)`): weights of the cells, between 0 and 1.
        mask (`torch.Tensor` of shape `(batch_size, num_cells)`): 1 for cells, 0 for padding.

    Raises:
        ValueError: if shapes do not match, weights are not between 0 and 1, or a video has no cells.
    """
    _check_cells(features, weights, mask)
    valid = mask.bool()
    weights = weights.double().clamp_min(LEAST_WEIGHT) * valid
    sums = weights.cumsum(dim=1)
    before = sums - weights
    counts = torch.ceil(sums[:, -1].detach() - SLACK).clamp_min(1).long()
    # Padding counts to the last event, with weight 0.
    first = torch.minimum((before.detach() + SLACK).floor().long(), counts[:, None] - 1)
    # The last event takes the rest of the sum.
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
    """Tokens of events (batch_size, num_events, width) → cells (batch_size, num_cells, width): a cell on a boundary gets the
    mean of both tokens, weighted by its shares."""
    second = (events.first + 1).clamp_max(tokens.shape[1] - 1)
    of_first, of_second = (
        tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1])) for index in (events.first, second)
    )
    return of_second + events.share[..., None].to(tokens.dtype) * (of_first - of_second)


def _add_at(total: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Adds `values` (batch_size, num_cells, …) to `total` (batch_size, num_events, …) at the events `index`."""
    return total.scatter_add(1, index.view(*index.shape, *[1] * (values.dim() - 2)).expand_as(values), values)


def _crossings(sums: torch.Tensor, weights: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Fractional cells (batch_size, E) at which the running sum (batch_size, num_cells) reaches each level (batch_size, E)."""
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
        raise ValueError(f"weights must be between 0 and 1, got {least:g} to {most:g}.")


class Budget:
    """
    Token bucket for the weights of cells: it holds at most half of `max_events`, starts full, and is refilled over `window`
    cells with the other half.

    Weights that are cut to the budget sum to at most `max_events` over any `window` consecutive cells.

    Args:
        max_events (`int`), window (`int`): at most `max_events` events in `window` cells.
        batch_size (`int`, defaults to 1): number of videos.
    """

    def __init__(self, max_events: int, window: int, batch_size: int = 1):
        self.capacity = BURST * max_events
        self.refill = (max_events - self.capacity) / window
        self.level = np.full(batch_size, self.capacity)

    def allow(self, weights: np.ndarray) -> np.ndarray:
        """Weights (batch_size, num_cells), float64 → the upper bound of each, given the weights before it."""
        allowed = np.empty_like(weights)
        for cell in range(weights.shape[1]):
            allowed[:, cell] = self.level
            self.level = np.minimum(self.capacity, self.level - np.minimum(weights[:, cell], self.level) + self.refill)
        return allowed


def within_budget(weights: torch.Tensor, max_events: int, window: int) -> torch.Tensor:
    """Weights (batch_size, num_cells), cut to their [`Budget`]; differentiable where they are not cut."""
    allowed = Budget(max_events, window, len(weights)).allow(weights.detach().double().cpu().numpy())
    return torch.minimum(weights, torch.from_numpy(allowed).to(weights))


class PooledEvent(NamedTuple):
    """An event of a stream: its feature, float64 (width,), and its span in cells from the start of the video."""

    feature: np.ndarray
    start: float
    end: float


class EventStream:
    """
    Pools one video of any length, cell by cell. Memory does not grow with the video.

    Args:
        width (`int`): width of the features.
    """

    def __init__(self, width: int):
        self.cell = 0  # number of cells so far
        self._level = 0.0  # sum of the weights of the open event, which ends at 1
        self._start, self._sum = 0.0, np.zeros(width)

    def push(self, features: np.ndarray, weights: np.ndarray) -> Iterator[PooledEvent]:
        """
        Args:
            features (`np.ndarray` of shape `(num_cells, width)`): features of the next cells.
            weights (`np.ndarray` of shape `(num_cells,)`): their weights, between 0 and 1.

        Yields:
            The events that have ended.
        """
        for feature, weight in zip(features.astype(np.float64), weights.tolist(), strict=True):
            weight = max(weight, LEAST_WEIGHT)
            left = weight
            # An event ends when its boundary is passed, not when it is reached: the last event ends with the video.
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
        """Yields the open event, if any, and resets the stream for the next video."""
        if self._level > 0:
            yield self._close(float(self.cell))
        self.__init__(len(self._sum))

    def _close(self, end: float) -> PooledEvent:
        event = PooledEvent(self._sum / self._level, self._start, end)
        self._level, self._start, self._sum = 0.0, end, np.zeros_like(self._sum)
        return event


__all__ = ["Budget", "EventStream", "Events", "PooledEvent", "pool_events", "unpool", "within_budget"]
