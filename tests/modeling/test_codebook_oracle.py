"""The codebook against vector-quantize-pytorch: k-means, moving averages, restarts of dead codes, residual quantisation."""

import pytest
import torch

from action_llm.codebook import KMEANS_ITERATIONS, EuclideanCodebook, residual_quantize

oracle = pytest.importorskip("vector_quantize_pytorch", reason="vector-quantize-pytorch is not installed")


def clusters(count, centres, dim, seed=0):
    """Latents (count, dim) around random centres."""
    generator = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(centres, dim, generator=generator)
    chosen = torch.randint(centres, (count,), generator=generator)
    return means[chosen] + 0.3 * torch.randn(count, dim, generator=generator)


def euclidean_codebook(codes, **settings):
    codebook = EuclideanCodebook(*codes.shape, ema_decay=0.9, **settings)
    with torch.no_grad():
        codebook.weight.copy_(codes)
        if settings:
            codebook.average_usage.fill_(1 / len(codes))
    return codebook


def copy_state(codebook, quantizer, count):
    """Gives a `VectorQuantize` the codes and the usage of our codebook; it counts latents, of `count` a step."""
    state, usage = quantizer._codebook, count * codebook.average_usage
    state.embed[0] = codebook.weight.detach()
    state.cluster_size[0] = usage
    state.embed_avg[0] = usage[:, None] * codebook.weight.detach()


def test_lloyds_iterations_are_the_same(monkeypatch):
    latents = clusters(600, 16, 5)
    start = latents[torch.randperm(600, generator=torch.Generator().manual_seed(1))[:16]]
    monkeypatch.setattr(EuclideanCodebook, "_spread_latents", lambda self, latents, number: start.clone())
    codebook = euclidean_codebook(torch.zeros(16, 5))
    codebook.initialize_from(latents)
    kmeans = oracle.vector_quantize_pytorch.kmeans
    means, counts = kmeans(latents[None], 16, num_iters=KMEANS_ITERATIONS, sample_fn=lambda *_: start[None].clone())
    assert counts.all(), "the two treat empty clusters differently"
    distances = torch.cdist(codebook.weight.detach(), means[0])
    # Ours are in random order.
    assert sorted(distances.argmin(dim=1).tolist()) == list(range(16))
    assert distances.min(dim=1).values.max() < 1e-3


def test_kmeans_init_is_at_least_as_good():
    """Ours starts from k-means++, theirs from random latents."""
    latents, ours, theirs = clusters(400, 24, 4), [], []
    for seed in range(8):
        torch.manual_seed(seed)
        codebook = EuclideanCodebook(24, 4, ema_decay=0.9, kmeans_init=True)
        codebook.initialized.fill_(False)
        codebook.train()(latents)
        quantizer = oracle.VectorQuantize(4, codebook_size=24, kmeans_init=True)
        quantizer._codebook.init_embed_(latents[None])
        for codes, errors in ((codebook.weight.detach(), ours), (quantizer.codebook, theirs)):
            errors.append(torch.cdist(latents, codes).min(dim=1).values.square().mean().item())
    assert sum(ours) < 1.05 * sum(theirs)


def test_moving_averages_and_restarts_are_the_same():
    count, size, threshold = 60, 12, 0.5
    codes = torch.randn(size, 3, generator=torch.Generator().manual_seed(2))
    codes[9:] += 30  # never used
    codebook = euclidean_codebook(codes, train_by_ema=True, dead_code_threshold=threshold)
    # A threshold in latents a step. A negligible eps: ours does not smooth.
    quantizer = oracle.VectorQuantize(
        3, codebook_size=size, decay=0.9, eps=1e-12, threshold_ema_dead_code=threshold * count / size
    )
    quantizer._codebook.reset_cluster_size = count / size
    copy_state(codebook, quantizer, count)
    restarts = []
    for step in range(12):
        latents = torch.randn(count, 3, generator=torch.Generator().manual_seed(10 + step))
        ids = codebook(latents).ids
        assert ids.tolist() == quantizer(latents[None])[1][0].tolist()
        ours, theirs = codebook.weight.detach(), quantizer.codebook
        restarted, expected = ((rows[:, None] == latents).all(dim=-1).any(dim=1) for rows in (ours, theirs))
        assert restarted.tolist() == expected.tolist()
        torch.testing.assert_close(ours[~restarted], theirs[~restarted], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(count * codebook.average_usage, quantizer._codebook.cluster_size[0])
        restarts += restarted.nonzero().flatten().tolist()
        # Restarted codes are random latents, not the same ones: both continue with ours.
        copy_state(codebook, quantizer, count)
    assert {9, 10, 11} <= set(restarts) and len(set(restarts)) < size


def test_residual_quantisation_is_the_same():
    torch.manual_seed(3)
    latents = torch.randn(200, 4)
    codebooks = [euclidean_codebook(torch.randn(8, 4) / 2**level).eval() for level in range(3)]
    quantizer = oracle.ResidualVQ(dim=4, num_quantizers=3, codebook_size=8).eval()
    for layer, codebook in zip(quantizer.layers, codebooks, strict=True):
        layer._codebook.embed[0] = codebook.weight.detach()
    quantized, residuals = residual_quantize(codebooks, latents)
    embeds, ids, _ = quantizer(latents[None])
    assert torch.stack([level.ids for level in quantized], dim=1).tolist() == ids[0].tolist()
    torch.testing.assert_close(sum(level.embeds for level in quantized).detach(), embeds[0])
    torch.testing.assert_close(latents - residuals[2], sum(level.embeds for level in quantized[:2]).detach())
