"""Codebooks: nearest token, its losses, and three ways to keep the tokens alive (k-means, moving averages, restart).

Both codebooks keep their codes as vectors of the latents' own Euclidean space, in which losses and means are taken and
in which codes reach the decoder and the LLM. They differ in one thing, the distance that says which code is nearest:
straight (`EuclideanCodebook`) or geodesic in the Poincaré ball into which exp₀ maps that space (`PoincareCodebook`).
Since log₀(exp₀(v)) = v, the chosen token returns from the ball as its own row (LLM-AR, Eq. 8 to 10).
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import nn

from .collectives import from_first_rank, sum_over_ranks
from .poincare import pairwise_tangent_distance, tangent_distance

# Candidates of the matrix product among which the exact distance chooses.
NUM_CANDIDATES = 4
KMEANS_ITERATIONS = 10
# Buffers of the codebooks of a model that a checkpoint need not have: they begin anew where its training did not use them.
TRAINING_BUFFERS = [r"\.average_usage$", r"\.initialized$"]


class Quantized(NamedTuple):
    """
    What a codebook makes of N latents.

    Args:
        ids (`torch.LongTensor` of shape `(num_latents,)`): the nearest token of each latent.
        embeds (`torch.Tensor` of shape `(num_latents, dim)`): its code, differentiable in the codes.
        distances (`torch.Tensor` of shape `(num_latents, codebook_size)`): differentiable in latents and codes.
    """

    ids: torch.Tensor
    embeds: torch.Tensor
    distances: torch.Tensor


class Codebook(nn.Module):
    """
    U codes of width `dim`, float32, trained by gradient (an embedding loss, LLM-AR, Eq. 11) or by moving averages.

    Args:
        size (`int`): number of codes U.
        dim (`int`): width of a code.
        ema_decay (`float`): decay γ of the average usage, and of the codes when they are trained by moving averages.
        train_by_ema (`bool`, defaults to `False`):
            Every training forward moves each code towards the mean of its latents.
        dead_code_threshold (`float`, defaults to 0.0):
            A code whose average usage falls below this fraction of uniform use is put on a random latent. 0: never.
        kmeans_init (`bool`, defaults to `False`): the first training forward puts the codes on k-means centres.

    In a distributed run all sums over latents are sums over ranks, and what is drawn at random is drawn on rank 0: the
    codes stay equal everywhere. Moving averages and restarts need the latents of every rank's training forward.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        ema_decay: float,
        train_by_ema: bool = False,
        dead_code_threshold: float = 0.0,
        kmeans_init: bool = False,
    ):
        super().__init__()
        self.ema_decay = ema_decay
        self.train_by_ema = train_by_ema
        self.dead_code_threshold = dead_code_threshold
        self.kmeans_init = kmeans_init
        self.weight = nn.Parameter(torch.empty(size, dim, dtype=torch.float32))
        # Persistent, so that a resumed run goes on exactly, and so that loading from the meta device fills them.
        if train_by_ema or dead_code_threshold > 0:
            self.register_buffer("average_usage", torch.empty(size, dtype=torch.float32))
        if kmeans_init:
            self.register_buffer("initialized", torch.empty((), dtype=torch.bool))

    def pairwise_distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Distances (num_latents, num_codes) by a matrix product, differentiable."""
        raise NotImplementedError

    def distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Distances (...) of latents and codes (..., dim), element by element, without a matrix product's rounding."""
        raise NotImplementedError

    @torch.no_grad()
    def nearest(self, distances: torch.Tensor, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """
        Index of the nearest code (LLM-AR, Eq. 1). Equal to the nearest in exact arithmetic, ties excepted, for
        tangent norms up to 15 / √c unless more than `NUM_CANDIDATES` codes lie within the rounding of `distances`.

        The matrix product, a lower bound, names the candidates; because its rounding can be larger than the difference
        between codes of nearly the same direction, the exact distance, in float64 where the device has it, chooses.

        Args:
            distances (`torch.Tensor` of shape `(num_latents, num_codes)`): `pairwise_distance(latents, codes)`.
            latents (`torch.Tensor` of shape `(num_latents, dim)`), codes (`torch.Tensor` of shape `(num_codes, dim)`).

        Returns:
            `torch.LongTensor` of shape `(num_latents,)`.
        """
        exact = torch.float32 if latents.device.type == "mps" else torch.float64
        candidates = distances.topk(min(NUM_CANDIDATES, len(codes)), largest=False).indices
        latents, codes = latents.to(exact), codes.to(exact)
        exact_distances = [self.distance(latents, codes[column]) for column in candidates.unbind(dim=1)]
        choice = torch.stack(exact_distances, dim=1).argmin(dim=1, keepdim=True)
        return candidates.gather(1, choice).squeeze(1)

    def forward(self, latents: torch.Tensor) -> Quantized:
        """
        Args:
            latents (`torch.Tensor` of shape `(num_latents, dim)`): valid latents only, float32.
        """
        if self.training and self.kmeans_init and not self.initialized:
            self.initialize_from(latents)
        found = self.lookup(latents)
        if self.training and (self.train_by_ema or self.dead_code_threshold > 0):
            self._follow(latents.detach(), found.ids)
        return found

    def lookup(self, latents: torch.Tensor) -> Quantized:
        """As a call, which in training moves codes; this never does."""
        # A snapshot: the codes may be moved in place while autograd still needs the ones that were used.
        codes = self.weight.clone()
        distances = self.pairwise_distance(latents, codes)
        ids = self.nearest(distances, latents, codes)
        return Quantized(ids, codes[ids], distances)

    @torch.no_grad()
    def initialize_from(self, latents: torch.Tensor) -> None:
        """
        Puts the codes on k-means centres of `latents` (num_latents, dim), of all ranks, in random order: the pairs of
        tokens u and u + U/2 (LLM-AR, Eq. 5) are random ones. With fewer latents than codes, codes share latents, a
        little apart.
        """
        size = len(self.weight)
        codes = from_first_rank(self._spread_latents(latents, size))
        for _ in range(KMEANS_ITERATIONS):
            ids = self.pairwise_distance(latents, codes).argmin(dim=1)
            counts, sums = self._statistics(latents, ids)
            reseeds = from_first_rank(self._random_latents(latents, size))
            codes = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1), reseeds)
        self.weight.copy_(codes[from_first_rank(torch.randperm(size, device=codes.device))])
        if self.kmeans_init:
            self.initialized.fill_(True)

    def _statistics(self, latents: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Number of latents per code (size,) and their sums (size, dim), over all ranks."""
        counts = torch.bincount(ids, minlength=len(self.weight)).to(latents.dtype)
        sums = torch.zeros_like(self.weight).index_add_(0, ids, latents)
        return sum_over_ranks(counts), sum_over_ranks(sums)

    def _random_latents(self, latents: torch.Tensor, number: int) -> torch.Tensor:
        """`number` random rows, distinct while there are enough of them; repeats are moved by 1 % of the spread."""
        rounds = -(-number // len(latents))
        order = torch.cat([torch.randperm(len(latents), device=latents.device) for _ in range(rounds)])[:number]
        chosen = latents[order]
        if rounds > 1:
            spread = (latents - latents.mean(dim=0)).square().mean().sqrt()
            chosen = chosen + 0.01 * spread * torch.randn_like(chosen)
        return chosen

    def _spread_latents(self, latents: torch.Tensor, number: int) -> torch.Tensor:
        """
        `number` rows by k-means++: each is drawn with a probability proportional to its squared distance from those
        before it. Without it, clumps that no first centre falls into are never served.
        """
        rows = self._random_latents(latents, number)
        nearest = torch.full_like(latents[:, 0], float("inf"))
        for place in range(1, min(number, len(latents))):
            nearest = torch.minimum(nearest, (latents - rows[place - 1]).square().sum(dim=1))
            if nearest.max() == 0:  # fewer distinct latents than codes: the random rows are as good as any
                break
            rows[place] = latents[torch.multinomial(nearest, 1).item()]
        return rows

    @torch.no_grad()
    def _follow(self, latents: torch.Tensor, ids: torch.Tensor) -> None:
        """
        One step of the moving averages, and the restart of dead codes.

        With average usage p ← γp + (1 − γ)n/N and codes c ← c + (1 − γ)(n/N)/p · (mean − c), c is the ratio of the two
        decayed sums that are usually kept; as a step from where the code is, it goes together with gradients of other
        losses.
        """
        counts, sums = self._statistics(latents, ids)
        usage = counts / counts.sum()
        self.average_usage.lerp_(usage, 1 - self.ema_decay)
        if self.train_by_ema:
            rate = (1 - self.ema_decay) * usage / self.average_usage.clamp_min(torch.finfo(usage.dtype).tiny)
            means = sums / counts[:, None].clamp_min(1)
            self.weight.add_(rate[:, None] * (means - self.weight))
        if self.dead_code_threshold > 0:
            uniform = 1 / len(self.weight)
            dead = self.average_usage < self.dead_code_threshold * uniform
            newcomers = from_first_rank(self._random_latents(latents, len(self.weight)))
            self.weight.copy_(torch.where(dead[:, None], newcomers, self.weight))
            # A newcomer is given the time that a code of uniform use would take to die.
            self.average_usage.masked_fill_(dead, uniform)


def codebook_settings(config) -> dict:
    """The settings of a codebook by the fields that the configurations of all action models have, but for its size."""
    return {
        "dim": config.codebook_dim,
        "ema_decay": config.ema_decay,
        "train_by_ema": config.codebook_training == "ema",
        "dead_code_threshold": config.dead_code_threshold,
        "kmeans_init": config.kmeans_init,
    }


class PoincareCodebook(Codebook):
    """Nearest by geodesic distance in the Poincaré ball of curvature −c (LLM-AR, Eq. 9); codes are tangent vectors."""

    def __init__(self, *args, curvature: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.curvature = curvature

    def pairwise_distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return pairwise_tangent_distance(latents, codes, self.curvature)

    def distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return tangent_distance(latents, codes, self.curvature)


class EuclideanCodebook(Codebook):
    """Nearest by straight distance: the ablation of LLM-AR, Table 6."""

    def pairwise_distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return torch.cdist(latents, codes)

    def distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(latents - codes, dim=-1)


def residual_quantize(
    codebooks: Iterable[Codebook], latents: torch.Tensor, moves: bool = True
) -> tuple[list[Quantized], list[torch.Tensor]]:
    """
    Residual quantisation: each codebook quantises the residual that the codebooks before it leave. In training, codebooks
    move. One that starts at k-means centres starts a step after the one before it, whose residual of the latents that it has
    just been fitted to is too small to start from.

    Args:
        codebooks (`Iterable[Codebook]`): in their order.
        latents (`torch.Tensor` of shape `(num_latents, dim)`): float32, and, where codebooks move, valid ones only.
        moves (`bool`, defaults to `True`): whether codebooks in training move.

    Returns:
        What each codebook makes of its residual, and the residuals (num_latents, dim). The first is `latents`; those after it
        have no gradient.
    """
    quantized, residuals, residual, has_started = [], [], latents, False
    for codebook in codebooks:
        starts = codebook.training and codebook.kmeans_init and not codebook.initialized
        quantized.append(codebook(residual) if moves and not has_started else codebook.lookup(residual))
        has_started = has_started or starts
        residuals.append(residual)
        residual = residual.detach() - quantized[-1].embeds.detach()
    return quantized, residuals


__all__ = ["Codebook", "EuclideanCodebook", "PoincareCodebook", "Quantized", "codebook_settings", "residual_quantize"]
