"""Language priors against scipy, naive loops and expectations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, linregress, zipfian
from two_processes import on_two_ranks

from action_llm.collectives import sum_over_ranks
from action_llm.language_priors import (
    context_loss,
    context_statistics,
    correlated_tokens,
    gumbel_usage,
    js_divergence,
    maximum_mean_discrepancy,
    usage_statistics,
    zipf_divergence,
    zipf_law,
)

COUNTS = st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(any)


def test_gumbel_usage_counts_every_latent_once():
    torch.manual_seed(0)
    sample_index = torch.tensor([0, 0, 2, 2, 2, 3])
    usage = gumbel_usage(torch.rand(6, 10), sample_index, num_samples=5)
    assert usage.equal(usage.round())
    assert usage.sum(dim=1).tolist() == [2, 0, 3, 1, 0]


def test_gumbel_usage_has_the_expectation_of_the_softmax():
    torch.manual_seed(0)
    distances, temperature, draws = torch.tensor([[0.0, 1.0, 2.5, 4.0]]), 0.7, 20_000
    usage = gumbel_usage(distances.expand(draws, 4), torch.zeros(draws, dtype=torch.long), 1, temperature)[0] / draws
    expected = torch.softmax(-distances[0] / temperature, dim=0)
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((usage - expected).abs() < 4.5 * deviation).all()


def test_gumbel_usage_follows_the_distances_when_the_temperature_is_low():
    torch.manual_seed(0)
    distances = torch.rand(50, 8)
    usage = gumbel_usage(distances, torch.arange(50), 50, temperature=1e-4)
    assert usage.argmax(dim=1).equal(distances.argmin(dim=1))


def test_gumbel_usage_gradient_is_that_of_the_soft_sample():
    sample_index, weights = torch.tensor([0, 1, 1]), torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    distances = torch.rand(3, 5, generator=torch.Generator().manual_seed(2)).requires_grad_()
    torch.manual_seed(3)
    (gumbel_usage(distances, sample_index, 2) * weights).sum().backward()
    torch.manual_seed(3)
    noise = -torch.empty(3, 5).exponential_().log()
    twin = distances.detach().clone().requires_grad_()
    (torch.softmax(-twin + noise, dim=1) * weights[sample_index]).sum().backward()
    torch.testing.assert_close(distances.grad, twin.grad)


@given(distance=st.floats(0, 1e30))
def test_gumbel_usage_is_finite_at_any_distance(distance):
    distances = torch.tensor([[0.0, distance], [distance, distance]], requires_grad=True)
    usage = gumbel_usage(distances, torch.tensor([0, 1]), 2)
    usage.square().sum().backward()
    assert usage.sum().item() == 2 and distances.grad.isfinite().all()


def test_zipf_law_equals_scipy_and_the_formula():
    expected = zipfian.pmf(np.arange(1, 513), 1.3, 512)
    torch.testing.assert_close(zipf_law(512, 1.3, 0.0), torch.tensor(expected), rtol=1e-9, atol=0)
    shifted = np.array([1 / (i + 2.7) for i in range(1, 513)])
    torch.testing.assert_close(zipf_law(512), torch.tensor(shifted / shifted.sum()), rtol=1e-12, atol=0)


@given(data=st.data())
def test_js_divergence_equals_scipy(data):
    size = data.draw(st.integers(2, 8))
    counts = st.lists(st.integers(0, 9), min_size=size, max_size=size).filter(any)
    p, q = (np.array(data.draw(counts), dtype=float) for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    # scipy rounds the square root of a divergence, so that 1e-16 becomes 1e-8: the square is compared.
    expected = np.nan_to_num(jensenshannon(p, q, base=2)) ** 2
    assert js_divergence(torch.tensor(p), torch.tensor(q)).item() == pytest.approx(expected, abs=1e-12)
    assert js_divergence(torch.tensor(p).float(), torch.tensor(q).float()).item() == pytest.approx(expected, abs=1e-5)


def test_js_divergence_bounds():
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert js_divergence(first, second).item() == pytest.approx(1.0)
    assert js_divergence(first, first).item() == 0.0


def test_js_divergence_pulls_unused_tokens_with_a_finite_slope():
    p = torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    js_divergence(p, zipf_law(3).float()).backward()
    assert p.grad.isfinite().all()
    assert (p.grad[1:] < -5).all() and p.grad[0] > 0


@given(counts=COUNTS, seed=st.integers(0, 100))
def test_zipf_divergence_is_that_of_sorted_frequencies(counts, seed):
    usage = torch.tensor(counts, dtype=torch.float64)
    frequency = np.sort(np.array(counts) / sum(counts))[::-1]
    expected = jensenshannon(frequency, zipf_law(len(counts)).numpy(), base=2) ** 2
    assert zipf_divergence(usage).item() == pytest.approx(expected, abs=1e-12)
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    assert zipf_divergence(usage[order]).item() == pytest.approx(expected, abs=1e-12)


def test_usage_that_follows_the_law_has_no_divergence():
    assert zipf_divergence(1e6 * zipf_law(512)).item() == pytest.approx(0, abs=1e-12)
    assert usage_statistics(1e6 * zipf_law(512))["zipf_js"] == pytest.approx(0, abs=1e-12)
    # A sample of the law is still near it at 4 U latents, and far from it below: what the model warns of.
    generator = torch.Generator().manual_seed(0)
    sampled = [
        torch.bincount(torch.multinomial(zipf_law(512), n, True, generator=generator), minlength=512)
        for n in (2048, 256)
    ]
    assert zipf_divergence(sampled[0].double()).item() < 0.03 < 0.1 < zipf_divergence(sampled[1].double()).item()


@given(counts=COUNTS)
def test_zipf_gradient_descent_brings_usage_to_the_law(counts):
    usage = torch.tensor(counts, dtype=torch.float64, requires_grad=True)
    zipf_divergence(usage).backward()
    assert usage.grad.isfinite().all()
    # Moving a little mass from the token of the highest slope to that of the lowest must help, or there is none to gain.
    high, low = usage.grad.masked_fill(usage.detach() == 0, -math.inf).argmax(), usage.grad.argmin()
    moved = usage.detach().clone()
    moved[high] -= 1e-4
    moved[low] += 1e-4
    # By SciPy, since below one count ours is interpolated.
    before, after = (
        jensenshannon(counts.sort(descending=True).values, zipf_law(len(counts)), base=2) ** 2
        for counts in (usage.detach(), moved)
    )
    assert after <= before + 1e-8


def naive_correlation(sentence, codebook_size):
    """Tokens of a sentence that can be matched, one to one, with a partner in it."""
    left = list(sentence)
    matched = 0
    while left:
        token = left.pop()
        partner = (token + codebook_size // 2) % codebook_size
        if partner in left:
            left.remove(partner)
            matched += 2
    return matched


@given(st.lists(st.lists(st.integers(0, 7), max_size=12), min_size=1, max_size=5).filter(lambda batch: any(batch)))
def test_context_loss_equals_matching_by_hand(batch):
    usage = torch.stack([torch.bincount(torch.tensor(s, dtype=torch.long), minlength=8) for s in batch]).float()
    matched = [naive_correlation(sentence, 8) for sentence in batch]
    assert correlated_tokens(usage).tolist() == matched
    loss = context_loss(correlated_tokens(usage).sum(), usage.sum()).item()
    assert loss == pytest.approx(1 - sum(matched) / sum(map(len, batch)), abs=1e-6)
    assert 0 <= loss <= 1


@settings(max_examples=15)
@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=4).filter(any))
def test_context_at_chance_is_that_of_all_pairings(batch):
    usage = torch.stack([torch.bincount(torch.tensor(s, dtype=torch.long), minlength=6) for s in batch])
    losses = []
    for order in itertools.permutations(range(6)):  # each pairing as often as any other
        matched = sum(naive_correlation([order[token] for token in sentence], 6) for sentence in batch)
        losses.append(1 - matched / sum(map(len, batch)))
    statistics = context_statistics(usage, num_pairings=400)
    matched = sum(naive_correlation(sentence, 6) for sentence in batch)
    assert statistics["context_loss"] == pytest.approx(1 - matched / sum(map(len, batch)), abs=1e-9)
    error = 5 * np.std(losses) / math.sqrt(400) + 1e-9
    assert statistics["context_loss_random_pairs"] == pytest.approx(np.mean(losses), abs=error)
    assert statistics["context_loss_random_pairs_std"] == pytest.approx(np.std(losses), rel=0.4, abs=1e-9)


def test_context_of_paired_recordings_is_far_from_chance():
    first = torch.randint(0, 4, (50, 32), generator=torch.Generator().manual_seed(0))
    statistics = context_statistics(torch.cat([first, first], dim=1))
    assert statistics["context_loss"] == 0
    assert statistics["context_loss_random_pairs"] > 10 * statistics["context_loss_random_pairs_std"] > 0
    assert context_statistics(torch.cat([first, first], dim=1)) == statistics, "the pairings are seeded"


def gradient_of_expected_loss(logits, losses):
    """Gradient of the mean loss of tokens that are drawn from softmax(logits), by the sum over all sentences.

    `losses` maps the counts of all sentences (number of sentences, codebook size) to their losses."""
    num_latents, size = logits.shape
    sentences = torch.tensor(list(itertools.product(range(size), repeat=num_latents)))
    probability = logits.softmax(dim=-1)[torch.arange(num_latents), sentences].prod(dim=1)
    counts = torch.nn.functional.one_hot(sentences, size).sum(dim=1).to(logits)
    return torch.autograd.grad((probability * losses(counts)).sum(), logits)[0]


def gradient_in_training(logits, losses, draws):
    """Mean gradient of the losses of sampled counts (draws, codebook size), over draws of the Gumbel noise."""
    repeated = logits.detach().expand(draws, *logits.shape).flatten(0, 1).requires_grad_()
    usage = gumbel_usage(-repeated, torch.arange(draws).repeat_interleave(len(logits)), draws)
    return torch.autograd.grad(losses(usage).sum(), repeated)[0].view(draws, *logits.shape).mean(dim=0)


@pytest.mark.parametrize("seed", range(2))
def test_gradient_of_context_is_that_of_its_expectation(seed):
    """Without a gradient for pairs that are not used. With one, the cosines are 0.69 and 0.77."""
    torch.manual_seed(seed)
    logits = (1.5 * torch.randn(3, 16, dtype=torch.float64)).requires_grad_()
    expected = gradient_of_expected_loss(
        logits, lambda counts: 1 - 2 * counts.unflatten(1, (2, 8)).amin(dim=1).sum(dim=1) / 3
    )
    actual = gradient_in_training(logits, lambda counts: 1 - correlated_tokens(counts) / 3, draws=5000)
    assert torch.cosine_similarity(actual.flatten(), expected.flatten(), dim=0) > 0.83
    assert 0.7 < actual.norm() / expected.norm() < 1.3


@pytest.mark.parametrize("seed", range(2))
def test_gradient_of_zipf_is_as_large_as_that_of_its_expectation(seed):
    """An unused token is pulled by what a first use gains. By the slope at a probability of 1e-8, the gradient is 12 times as
    large."""
    torch.manual_seed(seed)
    logits = (1.5 * torch.randn(5, 6, dtype=torch.float64)).requires_grad_()
    law = zipf_law(6).numpy()
    expected = gradient_of_expected_loss(
        logits,
        lambda counts: torch.from_numpy(
            jensenshannon(np.sort(counts.numpy() / 5)[:, ::-1], law[None].repeat(len(counts), 0), base=2, axis=1) ** 2
        ),
    )
    actual = gradient_in_training(logits, lambda counts: torch.stack(list(map(zipf_divergence, counts))), draws=300)
    assert torch.cosine_similarity(actual.flatten(), expected.flatten(), dim=0) > 0.65
    assert 0.55 < actual.norm() / expected.norm() < 0.95


def test_an_unused_token_is_pulled_by_what_its_first_use_gains():
    law = zipf_law(4)
    usage = torch.tensor([6.0, 3.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    zipf_divergence(usage).backward()
    terms = [
        (p * math.log2(2 * p / (p + q)) if p else 0.0) + q * math.log2(2 * q / (p + q))
        for p, q in ((0.0, law[3].item()), (0.1, law[3].item()))
    ]
    assert usage.grad[3].item() == pytest.approx((terms[1] - terms[0]) / 2, abs=1e-12)


def naive_mmd(x, y, num_kernels=5, factor=2.0):
    rows = np.concatenate([x, y])
    squares = [((a - b) ** 2).sum() for a, b in itertools.permutations(rows, 2)]
    mean = np.mean(squares)

    def kernel(a, b):
        square = ((a - b) ** 2).sum()
        return sum(math.exp(-square / (mean * factor ** (i - num_kernels // 2))) for i in range(num_kernels))

    def average(first, second):
        return np.mean([kernel(a, b) for a in first for b in second])

    return average(x, x) + average(y, y) - 2 * average(x, y)


@pytest.mark.parametrize("num_kernels, factor", [(5, 2.0), (3, 4.0), (1, 2.0)])
def test_mmd_equals_naive_loops(num_kernels, factor):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.normal(size=(9, 4)) * 2 + 1
    expected = naive_mmd(x, y, num_kernels, factor)
    value = maximum_mean_discrepancy(torch.tensor(x), torch.tensor(y), num_kernels, factor)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    value = maximum_mean_discrepancy(torch.tensor(x).float(), torch.tensor(y).bfloat16(), num_kernels, factor)
    assert value.item() == pytest.approx(expected, rel=2e-2)


def test_mmd_is_zero_for_the_same_rows_and_grows_with_the_gap():
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    values = [maximum_mean_discrepancy(rows + gap, rows).item() for gap in (0.0, 0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert values == sorted(values)
    assert maximum_mean_discrepancy(torch.ones(3, 2), torch.ones(4, 2)).isfinite()


def test_mmd_trains_codes_only_and_not_by_the_bandwidth():
    generator = torch.Generator().manual_seed(0)
    codes, words = torch.randn(6, 3, generator=generator).double(), torch.randn(8, 3, generator=generator).double() + 1
    codes.requires_grad_(), words.requires_grad_()
    maximum_mean_discrepancy(codes, words).backward()
    assert words.grad is None
    rows = torch.cat([codes, words]).detach()
    bandwidth = torch.cdist(rows, rows).square().sum() / (14 * 13)

    def with_fixed_bandwidth(x):
        def average(a, b):
            return sum(torch.exp(-torch.cdist(a, b).square() / (bandwidth * 2.0**i)) for i in range(-2, 3)).mean()

        return average(x, x) - 2 * average(x, words.detach())

    step = 1e-6
    for n, d in itertools.product(range(6), range(3)):
        shift = torch.zeros_like(codes)
        shift[n, d] = step
        slope = with_fixed_bandwidth(codes.detach() + shift) - with_fixed_bandwidth(codes.detach() - shift)
        assert codes.grad[n, d].item() == pytest.approx(slope.item() / (2 * step), rel=1e-4, abs=1e-7)


@given(counts=COUNTS)
def test_usage_statistics_equal_scipy(counts):
    statistics = usage_statistics(torch.tensor(counts))
    assert statistics["codes_used"] == np.count_nonzero(counts)
    assert statistics["entropy"] == pytest.approx(entropy(counts, base=2), abs=1e-12)
    assert statistics["perplexity"] == pytest.approx(2 ** entropy(counts, base=2))
    assert statistics["normalized_entropy"] == pytest.approx(entropy(counts, base=len(counts)), abs=1e-12)
    used = np.sort([count for count in counts if count])[::-1]
    if len(used) > 2:
        fit = linregress(np.log(np.arange(1, len(used) + 1) + 2.7), np.log(used))
        assert statistics["zipf_exponent"] == pytest.approx(-fit.slope, abs=1e-9)
        if used[0] > used[-1]:
            assert statistics["zipf_r2"] == pytest.approx(fit.rvalue**2, abs=1e-9)
    else:
        assert math.isnan(statistics["zipf_exponent"]) and math.isnan(statistics["zipf_r2"])


def test_usage_statistics_recover_the_exponent():
    statistics = usage_statistics(zipf_law(300, alpha=0.8, beta=2.7))
    assert statistics["zipf_exponent"] == pytest.approx(0.8)
    assert statistics["zipf_r2"] == pytest.approx(1.0)
    assert usage_statistics(torch.ones(64))["normalized_entropy"] == pytest.approx(1.0)


@pytest.mark.parametrize("counts", [[0, 0], [1, -1], [float("nan"), 1.0]])
def test_usage_statistics_refuse_what_is_no_usage(counts):
    with pytest.raises(ValueError, match="counts"):
        usage_statistics(torch.tensor(counts))


def _usage_of_two_ranks():
    """The Zipf loss of a batch in two processes, its gradient averaged over them, is that of the whole batch in one."""
    from torch import distributed

    generator = torch.Generator().manual_seed(0)
    logits, halves = torch.randn(30, 6, generator=generator), torch.arange(30).chunk(2)
    rank = distributed.get_rank()

    def loss_and_gradient(rows, total_over):
        scores = logits.clone().requires_grad_()
        loss = zipf_divergence(total_over(torch.softmax(scores[rows], dim=1).sum(dim=0)))
        loss.backward()
        return loss.detach(), scores.grad

    loss, gradient = loss_and_gradient(halves[rank], sum_over_ranks)
    distributed.all_reduce(gradient)
    expected_loss, expected_gradient = loss_and_gradient(torch.arange(30), lambda usage: usage)
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(gradient / 2, expected_gradient)


def test_usage_is_summed_over_processes():
    on_two_ranks(_usage_of_two_ranks)


def test_one_process_sums_to_itself():
    tensor = torch.arange(3.0)
    assert sum_over_ranks(tensor) is tensor
