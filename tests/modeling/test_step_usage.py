"""Zipf and context losses of an optimiser step of several micro-batches, against the same step written out as one batch."""

import pytest
import torch
from two_processes import on_two_ranks

from action_llm import ActionVQVAEConfig, ActionVQVAEModel

CHANNELS, U, TEMPERATURE = 12, 16, 0.05


def tiny_model(**changes):
    torch.manual_seed(0)
    sizes = {"num_persons": 1, "num_joints": 4, "hidden_width": 16, "codebook_dim": 8, "codebook_size": U}
    settings = {"gumbel_temperature": TEMPERATURE, "human_weight": 1.0, "mmd_weight": 0.0}
    return ActionVQVAEModel(ActionVQVAEConfig(**sizes | settings | changes)).train()


def micro_batches_of(number, lengths=(32, 8, 24, 16, 12, 32, 4, 28) * 2, seed=0):
    """The same recordings, of different lengths, in a number of micro-batches."""
    features = torch.randn(len(lengths), 32, CHANNELS, generator=torch.Generator().manual_seed(seed)).cumsum(dim=1)
    mask = (torch.arange(32) < torch.tensor(lengths)[:, None]).long()
    chunks = zip(features.chunk(number), mask.chunk(number), strict=True)
    return [{"input_features": rows, "feature_attention_mask": valid} for rows, valid in chunks]


def losses_written_out(model, batch, noise):
    """LLM-AR, Eq. 2 to 5, for a whole batch and given Gumbel noise, in float64."""
    encoded = model.encode(**batch)
    valid = encoded.attention_mask.bool()
    distances = model.quantizer.pairwise_distance(encoded.latents[valid], model.quantizer.weight).double()
    soft = torch.softmax(noise.double() - distances / TEMPERATURE, dim=1)
    chosen = torch.eye(U, dtype=torch.float64)[soft.argmax(dim=1)]
    # In this order, counts stay whole numbers, and the minimum of equal counts has a slope to both.
    chosen = chosen + (soft - soft.detach())
    samples = torch.arange(len(valid))[:, None].expand_as(valid)[valid]
    usage = torch.stack([chosen[samples == sample].sum(dim=0) for sample in range(len(valid))])
    law = 1 / (torch.arange(1, U + 1, dtype=torch.float64) + 2.7)
    law, counts = law / law.sum(), usage.sum(dim=0).sort(descending=True).values

    def divergence(counts):
        frequency = counts / len(chosen)
        mean = (law + frequency) / 2
        return (frequency * (frequency / mean).log2() + law * (law / mean).log2()) / 2

    # The slope of an unused token is what it would gain by a single use.
    unused = law / 2 + (divergence(torch.ones_like(counts)) - law / 2) * counts
    zipf = torch.where(counts > 0.5, divergence(counts.clamp_min(1)), unused).sum()
    # A pair that a sample does not use has no slope.
    first, second = usage[:, : U // 2], usage[:, U // 2 :]
    pairs = torch.minimum(first, second)[(first + second) > 0.5]
    return {"zipf_loss": zipf, "context_loss": 1 - 2 * pairs.sum() / len(chosen)}


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def of_steps(model, micro_batches, name):
    """What `Trainer` computes: the mean of the losses of the micro-batches and its gradient; and the noise of the step."""
    step_usages = model.count_usage(micro_batches)
    outputs = [model(**batch, step_usage=usage) for batch, usage in zip(micro_batches, step_usages, strict=True)]
    loss = sum(output[name] for output in outputs) / len(outputs)
    return loss, gradient(model, loss), [usage.noise for usage in step_usages]


def assert_same_direction_and_length(actual, expected):
    assert expected.norm() > 0
    assert torch.cosine_similarity(actual, expected, dim=0) > 0.99999
    assert (actual - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("changes", [{}, {"geometry": "euclidean"}, {"num_codebooks": 2}], ids=str)
@pytest.mark.parametrize("number", [2, 4, 8])
@pytest.mark.parametrize("name", ["zipf_loss", "context_loss"])
def test_micro_batches_have_the_loss_and_gradient_of_the_whole_batch(name, number, changes):
    model = tiny_model(**changes)
    loss, actual, noises = of_steps(model, micro_batches_of(number), name)
    (batch,) = micro_batches_of(1)
    expected = losses_written_out(model, batch, torch.cat(noises))[name]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert_same_direction_and_length(actual, gradient(model, expected))


def test_micro_batches_that_see_only_those_before_them_go_another_way():
    """As before: the more micro-batches a step has, the farther its Zipf gradient points from that of the whole batch, with a
    cosine of 1 now."""

    def cosine(number):
        model, micro_batches = tiny_model(), micro_batches_of(number)
        steps = model.count_usage(micro_batches)
        own = [_own_counts(model, *pair) for pair in zip(micro_batches, (usage.noise for usage in steps), strict=True)]
        so_far = [usage._replace(counts=sum(own[:place], torch.zeros(U))) for place, usage in enumerate(steps)]
        whole, former = (
            gradient(
                model,
                sum(
                    model(**batch, step_usage=usage).zipf_loss for batch, usage in zip(micro_batches, of, strict=True)
                ),
            )
            for of in (steps, so_far)
        )
        return float(torch.cosine_similarity(former, whole, dim=0))

    assert [cosine(number) for number in (2, 4, 8)] == pytest.approx([0.81, 0.73, 0.71], abs=0.01)


def test_a_single_batch_has_the_loss_and_gradient_that_are_written_out():
    model = tiny_model()
    (batch,) = micro_batches_of(1)
    for name in ("zipf_loss", "context_loss"):
        torch.manual_seed(1)
        output = model(**batch)
        actual = gradient(model, output[name])
        torch.manual_seed(1)
        noise = -torch.empty(int(output.attention_mask.sum()), U).exponential_().log()
        expected = losses_written_out(model, batch, noise)[name]
        assert output[name].item() == pytest.approx(expected.item(), abs=1e-6)
        assert_same_direction_and_length(actual, gradient(model, expected))


def test_each_micro_batch_reports_the_losses_of_the_step():
    model, micro_batches = tiny_model(), micro_batches_of(4)
    pairs = list(zip(micro_batches, model.count_usage(micro_batches), strict=True))
    outputs = [model(**batch, step_usage=usage) for batch, usage in pairs]
    num_latents = sum(int(output.attention_mask.sum()) for output in outputs)
    for output in outputs:
        assert output.collected_usage.sum() == num_latents and not output.collected_usage.requires_grad
        for name in ("collected_usage", "zipf_loss", "context_loss"):
            assert output[name].equal(outputs[0][name]), name


@pytest.mark.parametrize("kmeans_init", [False, True])
def test_counting_moves_no_code_and_draws_only_the_noise(kmeans_init):
    settings = {"codebook_training": "ema", "dead_code_threshold": 0.5, "kmeans_init": kmeans_init, "num_codebooks": 2}
    model, micro_batches = tiny_model(**settings), micro_batches_of(4)
    if kmeans_init:
        model(**micro_batches[3])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    step_usages = model.count_usage(micro_batches)
    state = torch.get_rng_state()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    torch.manual_seed(1)
    for usage in step_usages:
        assert usage.noise.equal(-torch.empty_like(usage.noise).exponential_().log())
    assert torch.get_rng_state().equal(state)

    # Restarts draw random latents, and still the noise is that of the count.
    total = step_usages[0].counts + _own_counts(model, micro_batches[0], step_usages[0].noise)
    output = model(**micro_batches[0], step_usage=step_usages[0])
    assert output.collected_usage.equal(total)
    assert not model.quantizer.weight.equal(before["quantizer.weight"])
    # The next micro-batch is counted with the codes as they are now.
    total = step_usages[1].counts + _own_counts(model, micro_batches[1], step_usages[1].noise)
    assert model(**micro_batches[1], step_usage=step_usages[1]).collected_usage.equal(total)


@torch.no_grad()
def _own_counts(model, batch, noise):
    encoded = model.encode(**batch)
    latents = encoded.latents[encoded.attention_mask.bool()]
    scores = noise - model.quantizer.pairwise_distance(latents, model.quantizer.weight) / TEMPERATURE
    return torch.bincount(scores.argmax(dim=1), minlength=U)


@pytest.mark.parametrize(
    "changes",
    [{"human_weight": 0.0}, {"zipf_weight": 0.0, "context_weight": 0.0}, {"quantize": False}, {"kmeans_init": True}],
    ids=str,
)
def test_nothing_is_counted_where_it_has_no_use(changes):
    model, state = tiny_model(**changes), torch.get_rng_state()
    assert model.count_usage(micro_batches_of(2)) == [None, None]
    assert torch.get_rng_state().equal(state)


def test_nothing_is_counted_for_a_single_batch_and_in_evaluation():
    model, state = tiny_model(), torch.get_rng_state()
    assert model.count_usage(micro_batches_of(1)) == [None]
    assert model.eval().count_usage(micro_batches_of(2)) == [None, None]
    assert torch.get_rng_state().equal(state)


def test_either_loss_alone_is_counted_for():
    for off in ("zipf_weight", "context_weight"):
        assert None not in tiny_model(**{off: 0.0}).count_usage(micro_batches_of(2))


def test_the_count_of_another_micro_batch_is_refused():
    model, micro_batches = tiny_model(), micro_batches_of(2, lengths=(32, 8))
    step_usages = model.count_usage(micro_batches)
    with pytest.raises(ValueError, match=r"`step_usage`.*\(8, 16\), got \(2, 16\).*`count_usage`"):
        model(**micro_batches[0], step_usage=step_usages[1])


def test_too_few_latents_for_zipfs_law_are_said_once(monkeypatch):
    said = []
    monkeypatch.setattr("action_llm.modeling_action_vqvae.logger.warning", said.append)

    def train(model, number, lengths):
        for _ in range(3):
            micro_batches = micro_batches_of(number, lengths)
            for batch, usage in zip(micro_batches, model.count_usage(micro_batches), strict=True):
                model(**batch, step_usage=usage)
            model.eval()(**micro_batches[0])
            model.train()

    for number in (1, 4):
        for kmeans_init in (False, True):
            train(tiny_model(kmeans_init=kmeans_init), number, lengths=[32, 16] * 4)
            assert len(said) == 1, (number, kmeans_init)
            assert "48 latents for 16 tokens" in said.pop()
            # The step counts, not its micro-batches.
            train(tiny_model(kmeans_init=kmeans_init), number, lengths=[32] * 8)
            assert said == [], (number, kmeans_init)


def _steps_on_two_ranks():
    """Two ranks with two micro-batches each, whose gradients are averaged, are one batch of all samples."""
    from torch import distributed

    rank = distributed.get_rank()
    (batch,) = micro_batches_of(1)
    for number in (1, 2):
        for name in ("zipf_loss", "context_loss"):
            model = tiny_model()
            # In another order than that of the ranks, with different numbers of latents on them.
            own = micro_batches_of(2 * number)[rank::2]
            torch.manual_seed(rank)
            if number == 1:
                loss = model(**own[0])[name]
                actual = gradient(model, loss)
                torch.manual_seed(rank)
                num_latents = int(own[0]["feature_attention_mask"].sum()) // 4
                noises = [-torch.empty(num_latents, U).exponential_().log()]
            else:
                loss, actual, noises = of_steps(model, own, name)
            distributed.all_reduce(actual)
            gathered = [None, None]
            distributed.all_gather_object(gathered, noises)
            noise = torch.cat([noise for pair in zip(*gathered, strict=True) for noise in pair])
            expected = losses_written_out(model, batch, noise)[name]
            assert loss.item() == pytest.approx(expected.item(), abs=1e-6), (number, name)
            assert_same_direction_and_length(actual / 2, gradient(model, expected))


def test_steps_are_summed_over_processes():
    on_two_ranks(_steps_on_two_ranks)
