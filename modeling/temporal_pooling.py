"""Adaptive temporal pooling: groups the cells of a video into events of varying length (VT-LVLM-AR, Eq. 2).

A video is a sequence of steps, and each step has a cell at every place of a grid. Pooling runs over time: the cells at a place
are a sequence of their own. Every cell has a weight between 0 and 1. The weights of a sequence are summed, and an event ends
each time the sum passes an integer (continuous integrate-and-fire, Dong and Xu 2020): cells of large weight make short events,
cells of small weight long ones. A cell on a boundary is divided between both events. A budget, which all places share, lets at
most `max_events` events begin in any `window` consecutive cells.

Events are ordered by the step in which they end, then by their place. Pooling is causal, so a stream gives the same events in
the same order as the whole video.
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
    """Events of a batch of videos. The weight of a cell belongs to one event, or to two consecutive events at its place.

    Attributes:
        features: (batch_size, num_events, width), the weighted mean of the cells' features; 0 where padded.
        mask: int64 (batch_size, num_events), 1 for events, 0 for padding.
        places: int64 (batch_size, num_events), the place of each event; 0 where padded.
        starts, ends: float64 (batch_size, num_events), in steps from the start of the video; 0 where padded.
        following: int64 (batch_size, num_events), the index of the next event at the same place; −1 if there is none.
        first: int64 (batch_size, num_steps, num_places), the index of the event in which a cell begins; 0 where padded.
        second: int64 (batch_size, num_steps, num_places), the index of the next event at the same place, or `first` if there
            is none; 0 where padded.
        share: (batch_size, num_steps, num_places), the share of the cell's weight in the first event, 0 to 1; the rest is in
            the second.
    """

    features: torch.Tensor
    mask: torch.Tensor
    places: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    following: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    share: torch.Tensor


def pool_events(features: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor) -> Events:
    """
    Pools the cells of videos into events, over time for each place.

    Args:
        features (`torch.Tensor` of shape `(batch_size, num_steps, num_places, width)`): features of the cells, padded on the
            right.
        weights (`torch.Tensor` of shape `(batch_size, num_steps, num_places)`): weights of the cells, between 0 and 1.
        mask (`torch.Tensor` of shape `(batch_size, num_steps)`): 1 for steps, 0 for padding.

    Raises:
        ValueError: if shapes do not match, weights are not between 0 and 1, or a video has no cells.
    """
    _check_cells(features, weights, mask)
    batch_size, _, num_places = weights.shape
    valid = mask.bool()[:, None].expand(-1, num_places, -1)
    sequences = _pool_sequences(
        features.transpose(1, 2).flatten(0, 1), weights.transpose(1, 2).flatten(0, 1), valid.flatten(0, 1)
    )
    pooled, counts, starts, ends, first, share = (
        values.unflatten(0, (batch_size, num_places)) for values in sequences
    )

    # Events of each place → the order of a stream; padding comes last.
    numbers = torch.arange(pooled.shape[2], device=features.device)
    places = torch.arange(num_places, device=features.device)[:, None]
    is_event = numbers < counts[..., None]
    keys = (ends.floor() * num_places + places).masked_fill(~is_event, torch.inf)
    order = keys.flatten(1).argsort(dim=1, stable=True)
    positions = order.argsort(dim=1).view_as(is_event)  # of the events of each place in that order
    order = order[:, : int(counts.sum(dim=1).max())]

    def ordered(values: torch.Tensor) -> torch.Tensor:
        """Values (batch_size, num_places, events of a place, …) → (batch_size, num_events, …)."""
        values = values.flatten(1, 2)
        return values.take_along_dim(order.view(*order.shape, *[1] * (values.dim() - 2)), dim=1)

    def at_cells(events: torch.Tensor) -> torch.Tensor:
        """Numbers of events within their place (batch_size, num_places, num_steps) → positions, as `Events.first`."""
        return (positions.gather(2, events) * valid).transpose(1, 2)

    has_next = numbers < counts[..., None] - 1
    return Events(
        ordered(pooled),
        ordered(is_event).long(),
        ordered(places.expand_as(is_event) * is_event),
        ordered(starts),
        ordered(ends),
        ordered(torch.where(has_next, positions.roll(-1, dims=2), -1)),
        at_cells(first),
        at_cells(torch.minimum(first + 1, counts[..., None] - 1)),
        share.transpose(1, 2),
    )


def _pool_sequences(features: torch.Tensor, weights: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """
    Pools sequences of cells: features (N, num_cells, width), weights (N, num_cells) and their mask (N, num_cells), bool.

    Returns:
        The features (N, E, width) of at most E events per sequence, their number (N,), `starts` and `ends` (N, E), and for each
        cell the number of its first event and its share in that event, both (N, num_cells).
    """
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

    numbers = torch.arange(length, device=features.device, dtype=torch.float64)
    is_event = numbers < counts[:, None]
    starts = _crossings(sums.detach(), weights.detach(), numbers.expand(len(features), -1))
    is_last = numbers == counts[:, None] - 1
    ends = torch.where(is_last, valid.sum(dim=1).double()[:, None], torch.roll(starts, -1, dims=1))
    return (
        total / mass.masked_fill(~is_event, 1)[..., None],
        counts,
        starts * is_event,
        ends * is_event,
        first,
        share.to(features.dtype),
    )


def unpool(tokens: torch.Tensor, events: Events) -> torch.Tensor:
    """Tokens of events (batch_size, num_events, width) → cells (batch_size, num_steps, num_places, width): a cell on a boundary
    gets the mean of both tokens, weighted by its shares."""
    of_first, of_second = (
        tokens.take_along_dim(index.flatten(1)[..., None], dim=1).unflatten(1, index.shape[1:])
        for index in (events.first, events.second)
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
    if features.dim() != 4 or weights.shape != features.shape[:3] or mask.shape != features.shape[:2]:
        raise ValueError(
            "expected features (batch_size, num_steps, num_places, width), weights (batch_size, num_steps, num_places) and "
            f"mask (batch_size, num_steps), got {tuple(features.shape)}, {tuple(weights.shape)} and {tuple(mask.shape)}."
        )
    if not bool(mask.bool()[:, 0].all()):
        raise ValueError(f"video {int((~mask.bool()[:, 0]).nonzero()[0])} of the batch has no cells.")
    least, most = float(weights.detach().min()), float(weights.detach().max())
    if not (least >= 0 and most <= 1):
        raise ValueError(f"weights must be between 0 and 1, got {least:g} to {most:g}.")


def largest_sum(max_events: int, num_places: int) -> int:
    """
    The largest sum of the weights in a window in which at most `max_events` events begin. At a place whose weights sum to s, at
    most ⌈s⌉ events begin; over all places, rounding up adds at most `num_places` − 1 events.
    """
    return max_events - num_places + 1


class Budget:
    """
    Token bucket for the weights of cells: it holds at most half of the largest sum of the weights in a window, starts full, and
    is refilled over `window` cells with the other half. All places share it.

    Weights that are cut to the budget sum to at most [`largest_sum`] over any `window` consecutive cells of whole steps.

    Args:
        max_events (`int`), window (`int`): at most `max_events` events in `window` cells.
        num_places (`int`, defaults to 1): number of cells of a step.
        batch_size (`int`, defaults to 1): number of videos.
    """

    def __init__(self, max_events: int, window: int, num_places: int = 1, batch_size: int = 1):
        largest = largest_sum(max_events, num_places)
        self.capacity = BURST * largest
        self.refill = num_places * ((largest - self.capacity) / window)
        self.level = np.full(batch_size, self.capacity)

    def allow(self, weights: np.ndarray) -> np.ndarray:
        """Weights (batch_size, num_steps, num_places), float64 → the upper bound (batch_size, num_steps, 1) of the weights of
        each step, given those before it."""
        ordered = np.sort(weights, axis=2)
        smaller = ordered.cumsum(axis=2) - ordered
        sharing = np.arange(weights.shape[2], 0, -1)
        allowed = np.empty((*weights.shape[:2], 1))
        for step in range(weights.shape[1]):
            # The bound at which the weights of the step, cut to it, sum to what is left. No place has precedence.
            allowed[:, step, 0] = ((self.level[:, None] - smaller[:, step]) / sharing).max(axis=1)
            spent = np.minimum(weights[:, step], allowed[:, step]).sum(axis=1)
            self.level = np.minimum(self.capacity, self.level - spent + self.refill)
        return allowed


def within_budget(weights: torch.Tensor, max_events: int, window: int) -> torch.Tensor:
    """Weights (batch_size, num_steps, num_places), cut to their [`Budget`]; differentiable where they are not cut."""
    budget = Budget(max_events, window, weights.shape[2], len(weights))
    return torch.minimum(weights, torch.from_numpy(budget.allow(weights.detach().double().cpu().numpy())).to(weights))


class PooledEvent(NamedTuple):
    """An event of a stream: its feature, float64 (width,), its span in steps from the start of the video, and its place."""

    feature: np.ndarray
    start: float
    end: float
    place: int


class EventStream:
    """
    Pools one video of any length, step by step. Memory does not grow with the video.

    Args:
        width (`int`): width of the features.
        num_places (`int`, defaults to 1): number of cells of a step.
    """

    def __init__(self, width: int, num_places: int = 1):
        self.step = 0  # number of steps so far
        self._levels = [0.0] * num_places  # sum of the weights of the open event at each place, which ends at 1
        self._starts = [0.0] * num_places
        self._sums = np.zeros((num_places, width))

    def push(self, features: np.ndarray, weights: np.ndarray) -> Iterator[PooledEvent]:
        """
        Args:
            features (`np.ndarray` of shape `(num_steps, num_places, width)`): features of the next cells.
            weights (`np.ndarray` of shape `(num_steps, num_places)`): their weights, between 0 and 1.

        Yields:
            The events that have ended.
        """
        for step_features, step_weights in zip(features.astype(np.float64), weights.tolist(), strict=True):
            for place, (feature, weight) in enumerate(zip(step_features, step_weights, strict=True)):
                yield from self._add(place, feature, max(weight, LEAST_WEIGHT))
            self.step += 1

    def unfinished(self) -> Iterator[PooledEvent]:
        """Yields the open events, if any, as if the video ended here. Changes nothing."""
        for place, level in enumerate(self._levels):
            if level > 0:
                yield PooledEvent(self._sums[place] / level, self._starts[place], float(self.step), place)

    def finish(self) -> Iterator[PooledEvent]:
        """Yields the open events, if any, and resets the stream for the next video."""
        yield from self.unfinished()
        self.__init__(self._sums.shape[1], len(self._levels))

    def _add(self, place: int, feature: np.ndarray, weight: float) -> Iterator[PooledEvent]:
        """Adds a cell to the open event at its place; yields that event if it ends."""
        left = weight
        # An event ends when its boundary is passed, not when it is reached: the last event ends with the video.
        if self._levels[place] >= 1 - SLACK:
            yield self._close(place, float(self.step))
        if self._levels[place] + weight > 1 + SLACK:
            own = 1 - self._levels[place]
            self._sums[place] += own * feature
            self._levels[place] = 1.0
            left -= own
            yield self._close(place, self.step + own / weight)
        self._sums[place] += left * feature
        self._levels[place] += left

    def _close(self, place: int, end: float) -> PooledEvent:
        event = PooledEvent(self._sums[place] / self._levels[place], self._starts[place], end, place)
        self._levels[place], self._starts[place], self._sums[place] = 0.0, end, 0.0
        return event


__all__ = [
    "Budget",
    "EventStream",
    "Events",
    "PooledEvent",
    "largest_sum",
    "pool_events",
    "unpool",
    "within_budget",
]
