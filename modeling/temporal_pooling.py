"""Adaptive temporal pooling: cells of a video become events of varying length, in order (VT-LVLM-AR, Eq. 2).

Every cell has a weight between 0 and 1. The weights are summed along the video, and an event ends each time the sum passes a
whole number (continuous integrate-and-fire, Dong and Xu 2020): heavy cells make short events, light ones are drawn together. A
cell on a border belongs to both events, by shares. There are at most so many events in a window; the last of them takes all
that is left of it. Nothing looks ahead, so a stream gives the events that the whole video gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# No cell is without weight: something has to be the event where nothing happens.
LEAST_WEIGHT = 1e-4
# What is left of a sum that is a whole number but for rounding is no event.
SLACK = 1e-9


@dataclass
class Events:
    """Events of a batch of videos.

    Attributes:
        features: (batch_size, num_events, width), the mean of the cells, by their weights; 0 where padded.
        mask: int64 (batch_size, num_events), 1 for events.
        starts, ends: float64 (batch_size, num_events), in cells from the start of the video; 0 where padded.
        shares: (batch_size, num_cells, num_events), how much of a cell's weight is an event's; rows of valid cells sum to 1.
    """

    features: torch.Tensor
    mask: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    shares: torch.Tensor


def pool_events(features: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor, max_events: int) -> Events:
    """
    Events of videos of one window each.

    Args:
        features (`torch.Tensor` of shape `(batch_size, num_cells, width)`): of the cells.
        weights (`torch.Tensor` of shape `(batch_size, num_cells)`): between 0 and 1.
        mask (`torch.Tensor` of shape `(batch_size, num_cells)`): 1 for cells, which come before all padding.
        max_events (`int`): events of a window, at most.

    Raises:
        ValueError: shapes that do not fit, weights that are none, a video without cells.
    """
    check_cells(features, weights, mask, max_events)
    valid = mask.bool()
    weights = weights.double().clamp_min(LEAST_WEIGHT) * valid
    sums = weights.cumsum(dim=1)
    total = sums[:, -1].detach()
    counts = torch.ceil(total - SLACK).clamp(1, max_events).long()
    length = int(counts.max())
    places = torch.arange(length, device=features.device, dtype=torch.float64)
    # Where an event of the sum lies, and the last one open to the end.
    opens = places.expand(len(features), -1)
    closes = torch.where(places == counts[:, None] - 1, total[:, None] + 1, places + 1)
    before, after = (sums - weights)[..., None], sums[..., None]
    overlaps = (torch.minimum(after, closes[:, None]) - torch.maximum(before, opens[:, None])).clamp_min(0)
    is_event = places < counts[:, None]
    overlaps = overlaps * is_event[:, None] * valid[..., None]
    shares = overlaps / weights[..., None].clamp_min(LEAST_WEIGHT)
    mass = overlaps.sum(dim=1)
    pooled = torch.einsum("bne,bnd->bed", overlaps, features.double()) / mass.clamp_min(SLACK)[..., None]
    starts = _crossings(sums.detach(), weights.detach(), opens)
    cells = valid.sum(dim=1).double()
    ends = torch.where(places == counts[:, None] - 1, cells[:, None], torch.roll(starts, -1, dims=1))
    return Events(
        (pooled * is_event[..., None]).to(features.dtype),
        is_event.long(),
        starts * is_event,
        ends * is_event,
        shares.to(features.dtype),
    )


def uniform_weights(mask: torch.Tensor, max_events: int) -> torch.Tensor:
    """Weights (batch_size, num_cells) that make events of equal length: the ablation (VT-LVLM-AR, Table II)."""
    cells = mask.sum(dim=1, keepdim=True).clamp_min(1).double()
    return (max_events / cells).clamp_max(1).expand(mask.shape) * mask


def unpool(tokens: torch.Tensor, events: Events) -> torch.Tensor:
    """Tokens of events (batch_size, num_events, width) → cells (batch_size, num_cells, width), by their shares."""
    return events.shares.to(tokens.dtype) @ tokens


class EventStream:
    """
    Events of one video of any length, from cells as they come. What it holds does not grow.

    Args:
        width (`int`): of the cells.
        max_events (`int`): events of a window, at most.
        window (`int`): cells of a window. With its last cell the open event ends.
    """

    def __init__(self, width: int, max_events: int, window: int):
        self.max_events, self.window = max_events, window
        self.cell = 0  # of all that came
        self._features = torch.zeros(width, dtype=torch.float64)
        self._open_window()

    def _open_window(self):
        self._sum, self._count = torch.zeros((), dtype=torch.float64), 0
        self._open(float(self.cell))

    def _open(self, start: float):
        self._start, self._mass = start, torch.zeros((), dtype=torch.float64)
        self._features = torch.zeros_like(self._features)

    def push(self, features: torch.Tensor, weights: torch.Tensor) -> Iterator[tuple[torch.Tensor, float, float]]:
        """
        Args:
            features (`torch.Tensor` of shape `(num_cells, width)`), weights (`torch.Tensor` of shape `(num_cells,)`).

        Yields:
            Events that have ended: feature (width,) in float64, start and end in cells from the start of the video.
        """
        for feature, weight in zip(features.double(), weights.double().clamp_min(LEAST_WEIGHT), strict=True):
            before, self._sum = self._sum, self._sum + weight
            # The last event of a window stays open to its end.
            while self._count < self.max_events - 1 and self._sum > self._count + 1 + SLACK:
                self._add(feature, self._count + 1 - torch.maximum(before, torch.tensor(float(self._count))))
                border = self.cell + float((self._count + 1 - before) / weight)
                yield self._close(border)
            self._add(
                feature, self._sum - torch.maximum(before, torch.tensor(float(self._count), dtype=torch.float64))
            )
            self.cell += 1
            if self.cell % self.window == 0:
                yield self._close(float(self.cell))
                self._open_window()

    def finish(self) -> Iterator[tuple[torch.Tensor, float, float]]:
        """The event that is still open, if any."""
        if self._mass > 0:
            yield self._close(float(self.cell))
            self._open_window()

    def _add(self, feature: torch.Tensor, mass: torch.Tensor):
        self._features = self._features + mass * feature
        self._mass = self._mass + mass

    def _close(self, end: float) -> tuple[torch.Tensor, float, float]:
        event = (self._features / self._mass, self._start, end)
        self._count += 1
        self._open(end)
        return event


def check_cells(features: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor, max_events: int) -> None:
    """Raises `ValueError` for what `pool_events` cannot pool."""
    if features.dim() != 3 or weights.shape != features.shape[:2] or mask.shape != features.shape[:2]:
        raise ValueError(
            "expected features (batch_size, num_cells, width) and weights and mask (batch_size, num_cells), got "
            f"{tuple(features.shape)}, {tuple(weights.shape)} and {tuple(mask.shape)}."
        )
    if max_events < 1:
        raise ValueError(f"`max_events` must be at least 1, got {max_events}.")
    if not bool(mask.bool()[:, 0].all()):
        raise ValueError(f"video {int((~mask.bool()[:, 0]).nonzero()[0])} of the batch has no cells.")
    least, most = float(weights.detach().min()), float(weights.detach().max())
    if not (least >= 0 and most <= 1):
        raise ValueError(f"weights must be between 0 and 1, found {least:g} to {most:g}.")


def _crossings(sums: torch.Tensor, weights: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Cells, with their fraction, at which the running sum (batch_size, num_cells) reaches each level (batch_size, E)."""
    index = torch.searchsorted(sums.contiguous(), levels.contiguous() + SLACK).clamp_max(sums.shape[1] - 1)
    before = sums.gather(1, index) - weights.gather(1, index)
    return index + ((levels - before) / weights.gather(1, index).clamp_min(LEAST_WEIGHT)).clamp(0, 1)


__all__ = ["EventStream", "Events", "pool_events", "uniform_weights", "unpool"]
