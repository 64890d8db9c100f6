"""Losses that make action sentences resemble human language: Zipf's law, context sensitivity, and similarity to an LLM's words.

The first two losses read the *usage*: how often each of the U tokens of the codebook occurs, as counts of shape (U,) for a
batch, or (B, U) for each of its samples. In training, the usage is sampled and differentiable ([`gumbel_usage`]);
[`usage_statistics`] describes actual counts.

Both losses are about the whole optimiser step. With several micro-batches, [`StepUsage`] tells each of them what the others
used.
"""

import math
from typing import NamedTuple

import torch


class StepUsage(NamedTuple):
    """
    What a micro-batch needs to know about its optimiser step for the Zipf and context losses.

    Args:
        counts (`torch.Tensor` of shape `(codebook_size,)`):
            Sampled usage of the *other* micro-batches of the step, over all ranks, float.
        correlated (`torch.Tensor` scalar):
            Number of tokens of the other micro-batches whose partner is in the same sample ([`correlated_tokens`]), over all
            ranks, float.
        noise (`torch.Tensor` of shape `(num_latents, codebook_size)`):
            The Gumbel noise with which the valid latents of this micro-batch, on this rank, were counted for the others.
        num_micro_batches (`int`):
            Number of micro-batches of the step on a rank, by which `Trainer` divides the sum of their gradients.
    """

    counts: torch.Tensor
    correlated: torch.Tensor
    noise: torch.Tensor
    num_micro_batches: int


def gumbel_noise(distances: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise of the shape, dtype and device of `distances`."""
    # −log of an exponential variate is a standard Gumbel variate; an exponential variate can round to 0.
    exponential = torch.empty_like(distances).exponential_().clamp_min(torch.finfo(distances.dtype).tiny)
    return -exponential.log()


def gumbel_usage(
    distances: torch.Tensor,
    sample_index: torch.Tensor,
    num_samples: int,
    temperature: float = 1.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Usage t^b of each sample by the Gumbel softmax trick (LLM-AR, Eq. 3), hard with a straight-through gradient.

    Args:
        distances (`torch.Tensor` of shape `(num_latents, codebook_size)`):
            Distance of each valid latent to each code, float32.
        sample_index (`torch.LongTensor` of shape `(num_latents,)`):
            The sample of the batch that each latent belongs to, 0 to `num_samples` − 1.
        num_samples (`int`):
            Batch size B.
        temperature (`float`, defaults to 1.0):
            τ > 0, divides the distances. The Gumbel noise has a standard deviation of 1.28: if −dist/τ of two codes differs by
            less, mostly the noise decides which token is counted.
        noise (`torch.Tensor` of shape `(num_latents, codebook_size)`, *optional*):
            Gumbel noise, drawn anew by default ([`gumbel_noise`]).

    Returns:
        `torch.Tensor` of shape `(num_samples, codebook_size)`: integers in the forward pass; row b sums to the number of
        latents of sample b. The gradient is that of Σ softmax(−dist/τ + noise).
    """
    noise = gumbel_noise(distances) if noise is None else noise
    soft = torch.softmax(-distances / temperature + noise, dim=-1)
    hard = torch.zeros_like(soft).scatter(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    # In this order, the forward value is an exact integer, without rounding.
    assignment = hard + (soft - soft.detach())
    return assignment.new_zeros(num_samples, assignment.shape[-1]).index_add(0, sample_index, assignment)


def zipf_law(size: int, alpha: float = 1.0, beta: float = 2.7) -> torch.Tensor:
    """
    Zipf's law with Mandelbrot's shift (LLM-AR, Eq. 2): 1/(i + β)^α for the ranks i = 1..size, normalised to sum 1.

    Returns:
        `torch.Tensor` of shape `(size,)`, float64 on the CPU, decreasing.
    """
    law = (torch.arange(1, size + 1, dtype=torch.float64, device="cpu") + beta).pow(-alpha)
    return law / law.sum()


def js_divergence(p: torch.Tensor, q: torch.Tensor, resolution: float = 1e-8) -> torch.Tensor:
    """
    Jensen–Shannon divergence of two distributions over the last dimension, in bits (between 0 and 1).

    Args:
        p, q (`torch.Tensor` of shape `(..., size)`):
            Distributions, float32 or float64; zeros are allowed.
        resolution (`float`, defaults to 1e-8):
            The slope at p = 0 is −∞. Below this probability the divergence is interpolated linearly, so that an unused token
            gets a finite gradient: what it would gain by this probability. The value is exact for p ≥ `resolution` and p = 0.

    Returns:
        `torch.Tensor` of shape `(...)`.
    """

    def terms(p: torch.Tensor) -> torch.Tensor:
        log_mean = torch.log2((p + q) / 2)
        tiny = torch.finfo(q.dtype).tiny
        return sum(x * (torch.log2(x.clamp_min(tiny)) - log_mean) for x in (p, q)) / 2

    chord = torch.lerp(q / 2, terms(torch.full_like(p, resolution)), p / resolution)
    return torch.where(p < resolution, chord, terms(p.clamp_min(resolution))).sum(dim=-1)


def zipf_divergence(usage: torch.Tensor, alpha: float = 1.0, beta: float = 2.7) -> torch.Tensor:
    """
    L_Zipf (LLM-AR, Eq. 4): JS divergence, base 2, between the sorted relative usage and Zipf's law.

    Args:
        usage (`torch.Tensor` of shape `(codebook_size,)`):
            Counts over the whole batch (all ranks, all accumulation steps), float, not all zero.

    Returns:
        `torch.Tensor` scalar between 0 and 1.
    """
    total = usage.detach().sum()
    frequency = usage.sort(descending=True).values / total
    return js_divergence(frequency, zipf_law(len(usage), alpha, beta).to(usage), resolution=1 / total.item())


def correlated_tokens(usage: torch.Tensor) -> torch.Tensor:
    """
    Corr(t) (LLM-AR, Eq. 5): number of tokens of a sample whose partner is in the same sample, 2 Σ_u min(t_u, t_{u+U/2}).

    Args:
        usage (`torch.Tensor` of shape `(..., codebook_size)`):
            Counts per sample; the codebook size is even.

    Returns:
        `torch.Tensor` of shape `(...)`: between 0 and the number of tokens of the sample.
    """
    first, second = usage.chunk(2, dim=-1)
    # `minimum` splits its gradient between equals. Most pairs of a sample are not used at all, and using one of their tokens
    # would gain nothing: they get no gradient.
    is_used = (first > 0) | (second > 0)
    return 2 * torch.minimum(first, second).where(is_used, 0.0).sum(dim=-1)


def context_loss(correlated: torch.Tensor, num_latents: torch.Tensor | float) -> torch.Tensor:
    """
    L_context (LLM-AR, Eq. 5): the share of latents whose token has no partner in its sample, between 0 and 1.

    Args:
        correlated (`torch.Tensor` of shape `(...)`):
            [`correlated_tokens`], summed over the samples of the whole batch (all ranks, all accumulation steps).
        num_latents (`torch.Tensor` scalar or `float`):
            Number of valid latents of these samples.

    Returns:
        `torch.Tensor` of shape `(...)`.
    """
    return 1 - correlated / num_latents


def context_statistics(usage: torch.Tensor, num_pairings: int = 20, seed: int = 0) -> dict[str, float]:
    """
    The context loss of whole recordings beside its value under random pairings, that is, at chance.

    Args:
        usage (`torch.Tensor` of shape `(num_recordings, codebook_size)`):
            Counts per recording (integers or floats, not all zero); the codebook size is even.
        num_pairings (`int`, defaults to 20):
            Number of random pairings of the tokens, at least 2.
        seed (`int`, defaults to 0):
            Seed of the pairings.

    Returns:
        `dict[str, float]`:
        - `context_loss`: [`context_loss`] with the trained pairs, u and u + U/2;
        - `context_loss_random_pairs`, `context_loss_random_pairs_std`: mean and standard deviation of the context loss of the
          same counts over random pairings.
    """
    generator = torch.Generator().manual_seed(seed)
    usage = usage.detach().to(device="cpu", dtype=torch.float32)
    size, num_latents = usage.shape[1], usage.sum(dtype=torch.float64)
    orders = [torch.arange(size), *(torch.randperm(size, generator=generator) for _ in range(num_pairings))]
    correlated = torch.stack([correlated_tokens(usage[:, order]).sum(dtype=torch.float64) for order in orders])
    losses = context_loss(correlated, num_latents)
    return {
        "context_loss": losses[0].item(),
        "context_loss_random_pairs": losses[1:].mean().item(),
        "context_loss_random_pairs_std": losses[1:].std().item(),
    }


def maximum_mean_discrepancy(
    codes: torch.Tensor, words: torch.Tensor, num_kernels: int = 5, kernel_factor: float = 2.0
) -> torch.Tensor:
    """
    Squared maximum mean discrepancy (MMD) between codes and an LLM's word embeddings (LLM-AR, Eq. 7): biased estimate, sum of
    RBF kernels.

    The kernels are exp(−‖x − y‖²/h_i), with h_i = m · factor^(i − num_kernels // 2), i = 0..num_kernels − 1, and m the
    mean squared distance over all pairs of distinct rows of both sets. Neither m nor the words have a gradient: the words
    belong to another model, and training would widen the bandwidth until all vectors look alike. The word–word term
    therefore has no gradient: it keeps the value at or above 0, and does not affect training.

    Args:
        codes (`torch.Tensor` of shape `(num_codes, dim)`): codes in tangent coordinates, float32.
        words (`torch.Tensor` of shape `(num_words, dim)`): a sample of rows of the LLM's embedding table, any dtype.
        num_kernels (`int`, defaults to 5), kernel_factor (`float`, defaults to 2.0): number and ratio of the bandwidths.

    Returns:
        `torch.Tensor` scalar between 0 and 2 · num_kernels.
    """
    words = words.detach().to(codes.dtype)
    rows = torch.cat([codes, words])
    # Distances are invariant to a shift of all rows, and near the mean the matrix product rounds less.
    rows = rows - rows.detach().mean(dim=0)
    norms = rows.square().sum(dim=-1)
    distances = (norms[:, None] + norms[None, :] - 2 * rows @ rows.T).clamp_min(0)
    num_pairs = len(rows) * (len(rows) - 1)
    bandwidth = (distances.detach().sum() / num_pairs).clamp_min(torch.finfo(rows.dtype).tiny)
    kernels = sum(
        torch.exp(-distances / (bandwidth * kernel_factor ** (i - num_kernels // 2))) for i in range(num_kernels)
    )
    split = len(codes)
    word_word = kernels[split:, split:].detach().mean()
    return kernels[:split, :split].mean() - 2 * kernels[:split, split:].mean() + word_word


def usage_statistics(counts: torch.Tensor, alpha: float = 1.0, beta: float = 2.7) -> dict[str, float]:
    """
    Statistics of the usage of a codebook.

    Args:
        counts (`torch.Tensor` of shape `(codebook_size,)`):
            How often each token was chosen, over any number of recordings (integers or floats, not all zero).
        alpha, beta (`float`, defaults to 1.0 and 2.7): parameters of Zipf's law for `zipf_js`; the fit uses β, too.

    Returns:
        `dict[str, float]`:
        - `codes_used`: number of tokens chosen at least once;
        - `entropy`: entropy in bits per token; `normalized_entropy`: the same divided by log2(codebook_size), 1 for uniform
          use;
        - `perplexity`: 2^entropy, the number of equally frequent tokens with that entropy;
        - `zipf_js`: JS divergence (base 2) between the sorted frequencies and Zipf's law;
        - `zipf_exponent`, `zipf_r2`: α and R² of the least-squares fit of log frequency on log(rank + β) over the tokens in
          use; NaN for fewer than three tokens in use.

    Raises:
        ValueError: if counts are negative, not finite or all zero.
    """
    counts = counts.detach().to(device="cpu", dtype=torch.float64)
    if not torch.isfinite(counts).all() or (counts < 0).any() or counts.sum() == 0:
        raise ValueError(
            f"`counts` must be finite, not negative and not all zero, got a sum of {counts.sum().item()}."
        )
    frequency = counts.sort(descending=True).values / counts.sum()
    used = frequency[frequency > 0]
    entropy = -(used * torch.log2(used)).sum().item() + 0.0  # + 0.0 turns the −0 of a single token into 0
    exponent = r2 = math.nan
    if len(used) > 2:
        x = torch.log(torch.arange(1, len(used) + 1, dtype=torch.float64) + beta)
        y = torch.log(used)
        x, y = x - x.mean(), y - y.mean()
        slope = (x @ y) / (x @ x)
        exponent = -slope.item() + 0.0
        variance = (y @ y).item()
        # Equal frequencies fit perfectly, with exponent 0.
        r2 = (slope * (x @ y)).item() / variance if variance > 1e-24 else 1.0
    return {
        "codes_used": float(len(used)),
        "entropy": entropy,
        "normalized_entropy": entropy / math.log2(len(counts)) if len(counts) > 1 else 0.0,
        "perplexity": 2.0**entropy,
        "zipf_js": js_divergence(frequency, zipf_law(len(counts), alpha, beta)).item(),
        "zipf_exponent": exponent,
        "zipf_r2": r2,
    }


def word_statistics(counts: torch.Tensor, num_codebooks: int) -> dict[str, float]:
    """
    Statistics of the usage of the codebooks of residual quantisation.

    Args:
        counts (`torch.Tensor` of shape `(num_codebooks * codebook_size,)`): how often each token was chosen.
        num_codebooks (`int`): number of tokens of a word.

    Returns:
        `dict[str, float]`: the [`usage_statistics`] of the first codebook, except `codes_used`, which counts the codes of all
        codebooks; and `bits_per_word`, the sum of their entropies, an upper bound of the information in a word.
    """
    statistics = [usage_statistics(codebook_counts) for codebook_counts in counts.view(num_codebooks, -1)]
    return statistics[0] | {
        "codes_used": sum(codebook["codes_used"] for codebook in statistics),
        "bits_per_word": sum(codebook["entropy"] for codebook in statistics),
    }


__all__ = [
    "StepUsage",
    "gumbel_noise",
    "gumbel_usage",
    "zipf_law",
    "js_divergence",
    "zipf_divergence",
    "correlated_tokens",
    "context_loss",
    "context_statistics",
    "maximum_mean_discrepancy",
    "usage_statistics",
    "word_statistics",
]
