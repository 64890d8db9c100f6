"""Codebooks for vector quantisation, with k-means initialisation, moving averages and the restart of dead codes.

Both codebooks keep their codes in the Euclidean space of the latents. Losses and means are computed there, and the decoder and
the language model read the codes there. The codebooks differ only in the distance to the nearest code: Euclidean
(`EuclideanCodebook`), or geodesic in the Poincaré ball into which exp₀ maps the space (`PoincareCodebook`). Since
log₀(exp₀(v)) = v, the nearest token in the ball is read as its own row of the codebook (LLM-AR, Eq. 8 to 10).
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import torch
from torch import nn
from transformers import initialization as init

from .collectives import from_first_rank, sum_over_ranks
from .poincare import pairwise_tangent_distance, tangent_distance

# Candidates of the matrix product from which the exact distance chooses.
NUM_CANDIDATES = 4
KMEANS_ITERATIONS = 10
# Buffers that a checkpoint may lack, because its training did not use them; they start afresh.
TRAINING_BUFFERS = [r"\.average_usage$", r"\.initialized$"]


class Quantized(NamedTuple):
    """
    Quantised latents.

    Args:
        ids (`torch.LongTensor` of shape `(num_latents,)`): the nearest token of each latent.
        embeds (`torch.Tensor` of shape `(num_latents, dim)`): its code, differentiable with respect to the codes.
        distances (`torch.Tensor` of shape `(num_latents, codebook_size)`):
            Distance to every code, differentiable with respect to latents and codes.
    """

    ids: torch.Tensor
    embeds: torch.Tensor
    distances: torch.Tensor


class Codebook(nn.Module):
    """
    U codes of width `dim`, float32, trained by gradient (embedding loss, LLM-AR, Eq. 11) or by moving averages.

    In a distributed run, sums over latents are sums over all ranks, and random numbers are drawn on rank 0, so that the codes
    stay equal on all ranks. With moving averages and restarts, all ranks must take part in every training forward pass.

    Args:
        size (`int`): number of codes U.
        dim (`int`): width of a code.
        ema_decay (`float`): decay γ of the average usage, and of the codes if they are trained by moving averages.
        train_by_ema (`bool`, defaults to `False`):
            Whether every training forward pass moves each code towards the mean of its latents.
        dead_code_threshold (`float`, defaults to 0.0):
            A code whose average usage falls below this fraction of uniform use is restarted at a random latent. 0: never.
        kmeans_init (`bool`, defaults to `False`): whether the first training forward pass moves the codes to k-means
            centres.
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
        # Persistent, so that resuming is exact and loading from the meta device fills them.
        if train_by_ema or dead_code_threshold > 0:
            self.register_buffer("average_usage", torch.empty(size, dtype=torch.float32))
        if kmeans_init:
            self.register_buffer("initialized", torch.empty((), dtype=torch.bool))

    @classmethod
    def from_config(cls, config, size: int | None = None, **settings) -> Self:
        """
        The codebook of an action model.

        Args:
            config ([`~action_model_config.ActionModelConfig`]): configuration of the action model.
            size (`int`, *optional*, defaults to `config.codebook_size`): number of codes.
            **settings: further arguments of the constructor.
        """
        return cls(
            config.codebook_size if size is None else size,
            config.codebook_dim,
            ema_decay=config.ema_decay,
            train_by_ema=config.codebook_training == "ema",
            dead_code_threshold=config.dead_code_threshold,
            kmeans_init=config.kmeans_init,
            **settings,
        )

    def reset_parameters(self, deviation: float) -> None:
        """Draws the codes at random, with this standard deviation of a channel, and resets the average usage."""
        init.normal_(self.weight, std=deviation)
        if hasattr(self, "average_usage"):
            init.constant_(self.average_usage, 1 / len(self.weight))
        if hasattr(self, "initialized"):
            init.zeros_(self.initialized)

    @property
    def waits_for_kmeans(self) -> bool:
        """Whether the next training forward pass moves the codes to k-means centres."""
        return self.training and self.kmeans_init and not self.initialized

    def pairwise_distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Distances (num_latents, num_codes) between all latents and codes, by a matrix product; differentiable."""
        raise NotImplementedError

    def distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Distances (...) between latents and codes (..., dim), elementwise, without the rounding of a matrix product."""
        raise NotImplementedError

    @torch.no_grad()
    def nearest(self, distances: torch.Tensor, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """
        Index of the nearest code (LLM-AR, Eq. 1).

        `distances` are lower bounds, and their rounding can be larger than the difference between codes of nearly the same
        direction. They choose `NUM_CANDIDATES` candidates; the exact distance, in float64 if the device supports it, chooses
        from these. The result equals exact arithmetic, ties excepted, for tangent norms up to 15 / √c, unless more than
        `NUM_CANDIDATES` codes lie within the rounding of `distances`.

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
        if self.waits_for_kmeans:
            self.initialize_from(latents)
        quantized = self.lookup(latents)
        if self.training and (self.train_by_ema or self.dead_code_threshold > 0):
            self._update_codes(latents.detach(), quantized.ids)
        return quantized

    def lookup(self, latents: torch.Tensor) -> Quantized:
        """Quantises like `forward`, but never moves codes."""
        # A copy: the codes may be moved in place while autograd still needs the values used here.
        codes = self.weight.clone()
        distances = self.pairwise_distance(latents, codes)
        ids = self.nearest(distances, latents, codes)
        return Quantized(ids, codes[ids], distances)

    @torch.no_grad()
    def initialize_from(self, latents: torch.Tensor) -> None:
        """
        Moves the codes to k-means centres of `latents` (num_latents, dim) of all ranks. The order is random, so tokens u and
        u + U/2 (LLM-AR, Eq. 5) are random pairs. With fewer latents than codes, several codes start near the same latent.
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
        """`number` random rows, without repeats if there are enough; otherwise noise of 1 % of the spread is added."""
        rounds = -(-number // len(latents))
        order = torch.cat([torch.randperm(len(latents), device=latents.device) for _ in range(rounds)])[:number]
        chosen = latents[order]
        if rounds > 1:
            spread = (latents - latents.mean(dim=0)).square().mean().sqrt()
            chosen = chosen + 0.01 * spread * torch.randn_like(chosen)
        return chosen

    def _spread_latents(self, latents: torch.Tensor, number: int) -> torch.Tensor:
        """
        `number` rows by k-means++: each row is drawn with a probability proportional to its squared distance from the rows
        drawn before. With uniform draws, k-means never finds a cluster without an initial centre.
        """
        rows = self._random_latents(latents, number)
        nearest = torch.full_like(latents[:, 0], float("inf"))
        for place in range(1, min(number, len(latents))):
            nearest = torch.minimum(nearest, (latents - rows[place - 1]).square().sum(dim=1))
            if nearest.max() == 0:  # fewer distinct latents than codes: keep the random rows
                break
            rows[place] = latents[torch.multinomial(nearest, 1).item()]
        return rows

    @torch.no_grad()
    def _update_codes(self, latents: torch.Tensor, ids: torch.Tensor) -> None:
        """
        One step of the moving averages, and the restart of dead codes.

        With average usage p ← γp + (1 − γ)n/N and codes c ← c + (1 − γ)(n/N)/p · (mean − c), c equals the ratio of the two
        decayed sums that are usually stored. Written as a step from the current code, it can be combined with the gradients of
        other losses.
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
            replacements = from_first_rank(self._random_latents(latents, len(self.weight)))
            self.weight.copy_(torch.where(dead[:, None], replacements, self.weight))
            # A restarted code has as much time as a code of uniform use before it counts as dead.
            self.average_usage.masked_fill_(dead, uniform)


class PoincareCodebook(Codebook):
    """Codebook with the geodesic distance in the Poincaré ball of curvature −c (LLM-AR, Eq. 9); codes are tangent vectors."""

    def __init__(self, *args, curvature: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.curvature = curvature

    @classmethod
    def from_config(cls, config, size: int | None = None, **settings) -> Self:
        """See [`Codebook.from_config`]; `config.curvature` is the curvature."""
        return super().from_config(config, size, curvature=config.curvature, **settings)

    def pairwise_distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return pairwise_tangent_distance(latents, codes, self.curvature)

    def distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return tangent_distance(latents, codes, self.curvature)


class EuclideanCodebook(Codebook):
    """Codebook with the Euclidean distance: the ablation of LLM-AR, Table 6."""

    def pairwise_distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return torch.cdist(latents, codes)

    def distance(self, latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(latents - codes, dim=-1)


def residual_quantize(
    codebooks: Iterable[Codebook], latents: torch.Tensor, update_codes: bool = True
) -> tuple[list[Quantized], list[torch.Tensor]]:
    """
    Residual quantisation: each codebook quantises the residual of the codebooks before it.

    Codebooks in training mode are updated. If they start at k-means centres, each starts a step after the codebook before it:
    right after k-means, the residual of the latents that were clustered is too small to start from.

    Args:
        codebooks (`Iterable[Codebook]`): the codebooks, in order.
        latents (`torch.Tensor` of shape `(num_latents, dim)`): float32; only valid latents if codebooks are updated.
        update_codes (`bool`, defaults to `True`): whether codebooks in training mode are updated.

    Returns:
        `tuple` of the `Quantized` residual of each codebook, and the residuals (num_latents, dim). The first residual is
        `latents`; the others have no gradient.
    """
    quantized, residuals, residual, has_started = [], [], latents, False
    for codebook in codebooks:
        starts = codebook.waits_for_kmeans
        quantized.append(codebook(residual) if update_codes and not has_started else codebook.lookup(residual))
        has_started = has_started or starts
        residuals.append(residual)
        residual = residual.detach() - quantized[-1].embeds.detach()
    return quantized, residuals


__all__ = ["Codebook", "EuclideanCodebook", "PoincareCodebook", "Quantized", "residual_quantize"]
