"""Product quantisation: few normalised channels, and a codebook for each group of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import NUM_ACTION_TOKENS, tiny_action_model
from torch import nn
from two_processes import on_two_ranks

from action_llm import ActionVQVAEConfig, ActionVQVAEModel
from action_llm.codebook import EuclideanCodebook, product_quantize
from action_llm.modeling_action_vqvae import ActionVQVAEBottleneck

R, U, CHANNELS = 3, NUM_ACTION_TOKENS, 6


def features(frames=12, seed=0):
    return torch.randn(2, frames, 75, generator=torch.Generator().manual_seed(seed))


def padded_mask():
    mask = torch.ones(2, 12)
    mask[1, 8:] = 0
    return mask


def model(**settings):
    """A tiny model whose codes and averages are not those of a new one."""
    made = tiny_action_model(num_codebooks=R, latent_channels=CHANNELS, codebook_init_norm=1.0, **settings)
    with torch.no_grad():
        made.bottleneck.mean.copy_(torch.linspace(-0.1, 0.1, CHANNELS))
        made.bottleneck.variance.copy_(torch.linspace(0.01, 0.1, CHANNELS))
    return made


def bottleneck():
    torch.manual_seed(0)
    return ActionVQVAEBottleneck(ActionVQVAEConfig(num_codebooks=R, latent_channels=CHANNELS, codebook_dim=10))


@given(st.integers(1, 4), st.integers(0, 100))
def test_each_codebook_quantises_its_own_channels(number, seed):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(7, number * 2, generator=generator)
    codebooks = [EuclideanCodebook(8, 2, 0.9).eval() for _ in range(number)]
    for codebook in codebooks:
        nn.init.normal_(codebook.weight, generator=generator)
    quantized, parts = product_quantize(codebooks, latents)
    for place, (codebook, one, part) in enumerate(zip(codebooks, quantized, parts, strict=True)):
        own = latents[:, 2 * place : 2 * place + 2].double().numpy()
        np.testing.assert_array_equal(part.numpy(), own.astype(np.float32))
        codes = codebook.weight.detach().double().numpy()
        assert one.ids.tolist() == ((own[:, None] - codes[None]) ** 2).sum(-1).argmin(1).tolist()
        torch.testing.assert_close(one.embeds, codebook.weight[one.ids])


def test_all_codebooks_start_at_once():
    """Their channels are no residuals, so none has to wait for another."""
    made = model(kmeans_init=True, codebook_training="ema").train()
    made(features(frames=80))
    assert all(codebook.initialized for codebook in (made.quantizer, *made.refinements))


def test_a_word_is_the_linear_map_of_its_codes_and_the_sum_of_their_wide_ones():
    made, mask = model(), padded_mask()
    sentence = made.encode(features(), feature_attention_mask=mask)
    valid = sentence.attention_mask.bool()
    assert made.codebook.shape == (R * U, made.config.codebook_dim)
    assert (sentence.action_ids[valid] // U == torch.arange(R)).all() and not sentence.action_ids[~valid].any()
    codebooks = [made.quantizer, *made.refinements]
    narrow = [book.weight[sentence.action_ids[valid][:, place] - place * U] for place, book in enumerate(codebooks)]
    words = made.bottleneck.expand(torch.cat(narrow, dim=1) / made.quantizer_scale) * made.latent_scale
    torch.testing.assert_close(sentence.action_embeds[valid], words)
    assert not sentence.action_embeds[~valid].any() and not sentence.latents[~valid].any()
    torch.testing.assert_close(made.codebook[sentence.action_ids[valid]].sum(1), words)
    torch.testing.assert_close(
        made.decode(action_ids=sentence.action_ids, attention_mask=sentence.attention_mask),
        made.decode(action_embeds=sentence.action_embeds, attention_mask=sentence.attention_mask),
    )


def test_losses_are_those_of_the_channels():
    made, mask = model(), padded_mask()
    outputs = made(features(), feature_attention_mask=mask)
    hidden, token_mask = made._encode(features(), mask)
    latents = hidden[token_mask.bool()]
    assert latents.abs().max() < 1 and latents.shape[1] == CHANNELS
    codebooks = [made.quantizer, *made.refinements]
    ids = outputs.action_ids[token_mask.bool()]
    codes = [book.weight[ids[:, place] - place * U] / made.quantizer_scale for place, book in enumerate(codebooks)]
    errors = [(code - part).square().mean() for code, part in zip(codes, latents.chunk(R, dim=1), strict=True)]
    assert outputs.embedding_loss.item() == pytest.approx(sum(errors).item(), rel=1e-5)
    assert outputs.commitment_loss.item() == pytest.approx(
        (torch.cat(codes, 1) - latents).square().mean().item(), rel=1e-5
    )


def test_the_decoder_trains_the_linear_map_and_passes_its_gradient_to_the_encoder():
    made = model(commitment_weight=0.0, embedding_weight=0.0, human_weight=0.0).train()
    made(features(frames=24)).loss.backward()
    assert made.bottleneck.expand.weight.grad.abs().sum() > 0
    assert made.encoder.input_conv.weight.grad.abs().sum() > 0


# --- normalisation


def test_normalisation_is_batch_normalisation_of_valid_tokens():
    made, reference = bottleneck(), nn.BatchNorm1d(CHANNELS, affine=False)
    latents, valid = torch.randn(3, 5, CHANNELS) * 3 + 1, torch.rand(3, 5) > 0.3
    for _ in range(3):
        expected = torch.tanh(reference(latents[valid]))
        torch.testing.assert_close(made(latents, valid, by_batch=True, update_averages=True)[valid], expected)
    torch.testing.assert_close(made.mean, reference.running_mean)
    torch.testing.assert_close(made.variance, reference.running_var)
    expected = torch.tanh(reference.eval()(latents[valid]))
    torch.testing.assert_close(made(latents, valid)[valid], expected)


def test_encoding_and_counting_move_nothing():
    made = model(codebook_training="ema", dead_code_threshold=0.5).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    encoded = made.encode(features(), feature_attention_mask=padded_mask())
    made.count_usage([{"input_features": features(seed=seed)} for seed in (1, 2)])
    for name, value in made.state_dict().items():
        assert value.equal(before[name]), name
    alone = made.eval().encode(features()[1:, :8])
    torch.testing.assert_close(alone.latents, encoded.latents[1:, :2])


def _bottleneck_on_two_ranks():
    """Two processes with different numbers of tokens normalise them, and change the encoder, as one with all of them does."""
    from torch import distributed

    rank = distributed.get_rank()
    latents = torch.randn(2, 5, CHANNELS, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    weight = torch.linspace(0.5, 1.5, CHANNELS)
    ours = latents.clone().requires_grad_()
    made = bottleneck()
    found = made(ours[rank : rank + 1], valid[rank : rank + 1], by_batch=True, update_averages=True)
    (found[valid[rank : rank + 1]] * weight).square().sum().backward()

    together, reference = latents.clone().requires_grad_(), nn.BatchNorm1d(CHANNELS, affine=False)
    expected = torch.zeros_like(together).masked_scatter(valid[..., None], torch.tanh(reference(together[valid])))
    (expected * weight).square().sum().backward()
    torch.testing.assert_close(found[valid[rank : rank + 1]], expected[rank][valid[rank]])
    torch.testing.assert_close(ours.grad[rank], together.grad[rank])
    torch.testing.assert_close(made.mean, reference.running_mean)
    torch.testing.assert_close(made.variance, reference.running_var)


def test_normalisation_is_over_all_processes():
    on_two_ranks(_bottleneck_on_two_ranks)


# --- settings and files


def test_saved_models_encode_the_same_and_half_precision_leaves_the_bottleneck_in_float32(tmp_path):
    made = model().eval()
    made.save_pretrained(tmp_path)
    loaded = ActionVQVAEModel.from_pretrained(tmp_path).eval()
    first, second = made.encode(features()), loaded.encode(features())
    assert first.action_ids.equal(second.action_ids) and first.action_embeds.equal(second.action_embeds)
    half = ActionVQVAEModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kept = {name.partition(".")[0] for name, value in half.state_dict().items() if value.dtype == torch.float32}
    assert kept == {"quantizer", "refinements", "bottleneck"}
    assert half.encode(features()).action_embeds.dtype == torch.float32


def test_continuous_latents_pass_the_bottleneck_too():
    made = model(quantize=False).eval()
    encoded = made.encode(features())
    assert encoded.action_ids is None and encoded.latents.shape[2] == made.config.codebook_dim
    rank = torch.linalg.matrix_rank((encoded.latents - made.bottleneck.expand.bias * made.latent_scale).flatten(0, 1))
    assert rank <= CHANNELS


@pytest.mark.parametrize("channels", [0, -3, 4, 7])
def test_channels_must_be_shared_by_the_codebooks(channels):
    with pytest.raises(ValueError, match="`latent_channels` must be a multiple of `num_codebooks`, 3"):
        ActionVQVAEConfig(num_codebooks=R, latent_channels=channels)
