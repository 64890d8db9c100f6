"""Codebooks: nearest token against 60-digit arithmetic, training by moving averages, k-means, restarts, two processes."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2
from two_processes import on_two_ranks

from action_llm.codebook import EuclideanCodebook, PoincareCodebook

GEOMETRIES = {"poincare": PoincareCodebook, "euclidean": EuclideanCodebook}


def make_codebook(codes, geometry="poincare", **settings):
    codes = torch.as_tensor(codes, dtype=torch.float32)
    codebook = GEOMETRIES[geometry](len(codes), codes.shape[1], **{"ema_decay": 0.9, **settings})
    with torch.no_grad():
        codebook.weight.copy_(codes)
        if hasattr(codebook, "average_usage"):
            codebook.average_usage.fill_(1 / len(codes))
        if hasattr(codebook, "initialized"):
            codebook.initialized.fill_(False)
    return codebook


def chosen(codebook, latents):
    return codebook.eval()(latents).ids


def unit_vectors(number, dim, generator):
    return torch.nn.functional.normalize(torch.randn(number, dim, generator=generator), dim=-1)


def exact_distances(latents, codes, curvature=1.0):
    """Geodesic distances from ball coordinates (LLM-AR, Eq. 8 and 9) in 60 digits, which resolve norms up to 30 or so."""
    with mpmath.workdps(60):
        root = mpmath.sqrt(mpmath.mpf(curvature))

        def to_ball(vector):
            vector = [mpmath.mpf(float(value)) for value in vector]
            norm = mpmath.sqrt(mpmath.fsum(x * x for x in vector))
            return [mpmath.tanh(root * norm) / norm * x if norm else x for x in vector]

        def distance(x, y):
            difference = mpmath.fsum((p - q) ** 2 for p, q in zip(x, y, strict=True))
            room = (1 - mpmath.fsum(p * p for p in x)) * (1 - mpmath.fsum(q * q for q in y))
            return float(mpmath.acosh(1 + 2 * difference / room) / root)

        points, centres = [to_ball(v) for v in latents], [to_ball(v) for v in codes]
        return np.array([[distance(x, y) for y in centres] for x in points])


@pytest.mark.parametrize("norm", [1e-3, 0.3, 1.0, 3.0, 7.0, 12.0, 20.0])
def test_nearest_equals_exact_arithmetic_on_random_draws(norm):
    generator = torch.Generator().manual_seed(0)
    latents = norm * unit_vectors(24, 8, generator) * (0.2 + 0.8 * torch.rand(24, 1, generator=generator))
    codes = norm * unit_vectors(16, 8, generator) * (0.2 + 0.8 * torch.rand(16, 1, generator=generator))
    expected = exact_distances(latents, codes).argmin(axis=1)
    assert chosen(make_codebook(codes), latents).tolist() == expected.tolist()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    dim=st.integers(1, 4),
    latent_norms=st.lists(st.floats(0.0, 15.0), min_size=1, max_size=4),
    code_norms=st.lists(st.floats(0.0, 15.0), min_size=1, max_size=4),
)
def test_nearest_is_exact_up_to_ties_even_on_one_ray(seed, dim, latent_norms, code_norms):
    """Codes on a common ray differ by radius alone, which the matrix product cannot see from norm 4 on."""
    generator = torch.Generator().manual_seed(seed)
    rays = unit_vectors(2, dim, generator)
    assume((rays[0] - rays[1]).norm() > 0.1)
    codes = torch.cat([rays[:1] * torch.tensor(code_norms)[:, None], rays[1:] * 2.0])
    latents = rays[:1] * torch.tensor(latent_norms)[:, None]
    distances = exact_distances(latents, codes)
    ids = chosen(make_codebook(codes), latents).numpy()
    excess = distances[np.arange(len(ids)), ids] - distances.min(axis=1)
    assert (excess <= 2e-3).all()


@given(seed=st.integers(0, 1000), exponent=st.floats(-30, 30))
def test_any_norm_gives_a_token_and_finite_losses(seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    latents = (10.0**exponent * torch.randn(5, 3, generator=generator)).requires_grad_()
    codebook = make_codebook(torch.randn(4, 3, generator=generator))
    quantized = codebook(latents)
    assert ((quantized.ids >= 0) & (quantized.ids < 4)).all()
    assert quantized.distances.isfinite().all()
    gradient = torch.autograd.grad(quantized.distances.sum(), latents)[0]
    assert gradient.isfinite().all()


def test_every_code_is_nearest_to_itself():
    generator = torch.Generator().manual_seed(1)
    directions = unit_vectors(8, 64, generator)
    codes = torch.cat([directions * radius for radius in (0.5, 3.0, 9.0)])
    assert chosen(make_codebook(codes), codes).tolist() == list(range(24))


@pytest.mark.parametrize("norm", [4.0, 9.0, 14.0])
def test_codes_nearer_than_a_matrix_product_can_tell_are_told_apart(norm):
    """At 3e-4 rad the cosine is 1 to float32, but at norm 9 the codes are 18 apart."""
    angles = torch.tensor([0.0, 1.5e-4, 3e-4, 2.0])
    codes = norm * torch.stack([angles.cos(), angles.sin()], dim=1)
    for order in ([0, 1, 2, 3], [2, 1, 0, 3]):
        assert chosen(make_codebook(codes[order]), codes).tolist() == [order.index(row) for row in range(4)]


def test_latents_at_the_origin_take_the_shortest_code():
    codes = torch.tensor([[3.0, 0.0], [0.0, 0.2], [-1.0, 1.0]])
    for geometry in GEOMETRIES:
        assert chosen(make_codebook(codes, geometry), torch.zeros(2, 2)).tolist() == [1, 1]


def test_euclidean_nearest_equals_numpy():
    rng = np.random.default_rng(0)
    latents, codes = rng.normal(size=(200, 6)) + 5, rng.normal(size=(32, 6)) + 5
    expected = ((latents[:, None] - codes) ** 2).sum(-1).argmin(1)
    ids = chosen(make_codebook(codes, "euclidean"), torch.tensor(latents, dtype=torch.float32))
    assert ids.tolist() == expected.tolist()


def test_geometries_disagree_where_they_should():
    # Seen from far out, a code on another ray is far in the ball, whatever its radius; straight, it is near.
    latent = torch.tensor([[4.0, 0.0]])
    codes = torch.tensor([[1.0, 0.0], [4.0, 1.5]])
    assert chosen(make_codebook(codes, "euclidean"), latent).item() == 1
    assert chosen(make_codebook(codes, "poincare"), latent).item() == int(exact_distances(latent, codes).argmin()) == 0


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_codes_are_returned_with_their_gradient(geometry):
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(10, 4, generator=generator).requires_grad_()
    codebook = make_codebook(torch.randn(6, 4, generator=generator), geometry)
    quantized = codebook(latents)
    assert quantized.embeds.equal(codebook.weight[quantized.ids])
    to_latents, to_codes = torch.autograd.grad(
        quantized.embeds.sum(), (latents, codebook.weight), allow_unused=True, retain_graph=True
    )
    assert to_latents is None
    assert to_codes[:, 0].equal(torch.bincount(quantized.ids, minlength=6).float())
    # The distances belong to the same codes, and are differentiable in both.
    assert quantized.distances.gather(1, quantized.ids[:, None]).squeeze(1).allclose(quantized.distances.min(1).values)
    for gradient in torch.autograd.grad(quantized.distances.sum(), (latents, codebook.weight)):
        assert gradient.abs().sum() > 0


def test_an_embedding_loss_moves_codes_to_the_mean_of_their_latents():
    latents = torch.tensor([[1.0, 0.0], [1.2, 0.2], [-1.0, 0.1]])
    codebook = make_codebook([[0.6, 0.0], [-0.6, 0.0]])
    optimizer = torch.optim.SGD(codebook.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(codebook(latents).embeds, latents).backward()
        optimizer.step()
    torch.testing.assert_close(codebook.weight.data, torch.tensor([[1.1, 0.1], [-1.0, 0.1]]))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_moving_averages_are_the_ratio_of_decayed_sums(geometry):
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(5, 3, generator=generator)
    codebook = make_codebook(start, geometry, train_by_ema=True)
    counts, sums = torch.full((5,), 0.2), 0.2 * start
    for _ in range(6):
        latents = torch.randn(40, 3, generator=generator)
        ids = codebook(latents).ids
        one_hot = torch.nn.functional.one_hot(ids, 5).float()
        counts = 0.9 * counts + 0.1 * one_hot.mean(0)
        sums = 0.9 * sums + 0.1 * one_hot.T @ latents / 40
        torch.testing.assert_close(codebook.weight.data, sums / counts[:, None])
    torch.testing.assert_close(codebook.average_usage, counts)
    assert codebook.average_usage.sum().item() == pytest.approx(1.0)


def test_moving_averages_stand_still_in_evaluation_and_leave_the_graph_intact():
    generator = torch.Generator().manual_seed(4)
    start, latents = torch.randn(5, 3, generator=generator), torch.randn(20, 3, generator=generator)
    codebook = make_codebook(start, train_by_ema=True, dead_code_threshold=0.5)
    codebook.eval()(latents)
    assert codebook.weight.equal(start)
    quantized = codebook.train()(latents)
    assert not codebook.weight.equal(start)
    # The gradient is that of the codes which were used, not of where they have moved to.
    (moved,) = torch.autograd.grad(quantized.distances.sum(), codebook.weight)
    fixed = make_codebook(start)
    (expected,) = torch.autograd.grad(fixed(latents).distances.sum(), fixed.weight)
    torch.testing.assert_close(moved, expected)


def test_dead_codes_restart_on_latents_and_live_ones_stay():
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(30, 3, generator=generator)
    codes = torch.cat([torch.zeros(1, 3), torch.full((3, 3), 50.0)])
    codebook = make_codebook(codes, dead_code_threshold=0.5)
    # Uniform use is 1/4: a code that is never used again is below half of that after 7 steps of decay 0.9.
    for step in range(1, 8):
        assert codebook.weight.equal(codes)
        codebook(latents)
        assert (codebook.average_usage[1:] < 0.125).any() == (step > 7)
    assert codebook.weight[0].equal(codes[0])
    assert all((row == latents).all(dim=1).any() for row in codebook.weight[1:])
    torch.testing.assert_close(codebook.average_usage[1:], torch.full((3,), 0.25))
    assert len(chosen(codebook, latents).unique()) == 4


def test_kmeans_init_is_as_good_as_scipy():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(8, 5)) * 3
    latents = torch.tensor(np.repeat(centres, 50, axis=0) + 0.1 * rng.normal(size=(400, 5)), dtype=torch.float32)
    torch.manual_seed(0)
    codebook = make_codebook(np.zeros((16, 5)), "euclidean", kmeans_init=True)
    codebook(latents)
    assert codebook.initialized
    ours = torch.cdist(latents, codebook.weight.data).min(1).values.square().mean().item()
    theirs = min(
        (np.linalg.norm(latents.numpy() - found[ids], axis=1) ** 2).mean()
        for found, ids in (kmeans2(latents.numpy(), 16, minit="points", seed=seed) for seed in range(5))
    )
    # Lloyd's algorithm ends in local optima, but not in worse ones than another implementation's by a factor.
    assert ours < 3 * theirs
    assert ours < 0.2 * latents.var(dim=0).sum().item()


def test_kmeans_init_happens_once_and_only_in_training():
    torch.manual_seed(0)
    codebook = make_codebook(torch.zeros(4, 2), kmeans_init=True)
    codebook.eval()(torch.randn(50, 2))
    assert not codebook.initialized and codebook.weight.eq(0).all()
    codebook.train()(torch.randn(50, 2))
    first = codebook.weight.detach().clone()
    codebook(torch.randn(50, 2) + 3)
    assert codebook.weight.equal(first)


def test_pairs_are_random_after_kmeans():
    # Latents in two far clumps: with random pairs, tokens u and u + U/2 share a clump as often as chance says.
    latents = torch.cat([torch.randn(40, 2) * 0.1 + 2, torch.randn(40, 2) * 0.1 - 2])
    shared = []
    for seed in range(60):
        torch.manual_seed(seed)
        codebook = make_codebook(torch.zeros(8, 2))
        codebook.initialize_from(latents)
        clump = codebook.weight[:, 0] > 0
        number = int(clump.sum())
        chance = (math.comb(number, 2) + math.comb(8 - number, 2)) / math.comb(8, 2)
        shared.append((clump[:4] == clump[4:]).float().mean().item() - chance)
    assert abs(np.mean(shared)) < 4 * np.std(shared) / math.sqrt(60)
    assert np.std(shared) > 0.1  # and they do vary: a fixed pairing would not


def test_kmeans_of_fewer_latents_than_codes():
    torch.manual_seed(0)
    latents = torch.randn(3, 4)
    codebook = make_codebook(torch.zeros(8, 4), kmeans_init=True)
    codebook(latents)
    assert codebook.weight.isfinite().all()
    assert len(codebook.weight.detach().unique(dim=0)) == 8
    assert torch.cdist(codebook.weight.data, latents).min(dim=1).values.max() < 0.2


def test_state_has_only_what_the_training_needs():
    assert set(make_codebook(torch.zeros(4, 2)).state_dict()) == {"weight"}
    state = make_codebook(torch.zeros(4, 2), train_by_ema=True, kmeans_init=True).state_dict()
    assert set(state) == {"weight", "average_usage", "initialized"}


def _train_on_two_ranks():
    """Two processes with half of the latents each must move the codes as one process with all of them does."""
    from torch import distributed

    rank = distributed.get_rank()
    generator = torch.Generator().manual_seed(6)
    start, latents = torch.randn(4, 3, generator=generator), torch.randn(3, 40, 3, generator=generator)
    start[3] = 30.0
    halves = latents.chunk(2, dim=1)
    codebook = make_codebook(start, train_by_ema=True)
    alone = make_codebook(start, train_by_ema=True)
    for step in range(3):
        codebook(halves[rank][step])
    expected_counts, expected_weight = alone.average_usage, start
    for step in range(3):
        # The one process, written out: `alone` would all-reduce too.
        ids = torch.cdist(latents[step], expected_weight).argmin(1)
        ids = alone.nearest(alone.pairwise_distance(latents[step], expected_weight), latents[step], expected_weight)
        one_hot = torch.nn.functional.one_hot(ids, 4).float()
        new_counts = 0.9 * expected_counts + 0.1 * one_hot.mean(0)
        decayed = 0.9 * expected_counts[:, None] * expected_weight + 0.1 * one_hot.T @ latents[step] / 40
        expected_weight, expected_counts = decayed / new_counts[:, None], new_counts
    torch.testing.assert_close(codebook.weight.data, expected_weight)
    torch.testing.assert_close(codebook.average_usage, expected_counts)

    # What is drawn at random is the same on both, although their generators are not.
    torch.manual_seed(rank)
    random = make_codebook(start, kmeans_init=True, dead_code_threshold=0.9)
    for step in range(3):
        random(halves[rank][step])
    gathered = [torch.empty_like(random.weight.data) for _ in range(2)]
    distributed.all_gather(gathered, random.weight.data)
    assert gathered[0].equal(gathered[1])


def test_codes_stay_equal_over_processes():
    on_two_ranks(_train_on_two_ranks)
