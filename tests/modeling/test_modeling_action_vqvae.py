"""The action VQ-VAE: contracts, padding, every loss term and its switch, checkpoints, processes, real recordings.

`python tests/modeling/test_modeling_action_vqvae.py` writes the stored checkpoint and outputs anew; it is run when their
change is meant.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments
from two_processes import on_two_ranks

from action_llm.configuration_action_vqvae import ActionVQVAEConfig
from action_llm.language_priors import usage_statistics
from action_llm.modeling_action_vqvae import ActionVQVAEModel

STORED = Path(__file__).parent / "stored" / "action_vqvae"
CHANNELS = 12


def tiny_config(**changes):
    sizes = {"num_persons": 1, "num_joints": 4, "hidden_width": 16, "codebook_dim": 8, "codebook_size": 16}
    return ActionVQVAEConfig(**{**sizes, **changes})


def tiny_model(seed=0, **changes):
    torch.manual_seed(seed)
    return ActionVQVAEModel(tiny_config(**changes))


def waves(batch_size, num_frames, seed=0):
    """Smooth motions: sums of two sines per channel."""
    generator = torch.Generator().manual_seed(seed)
    phase, rate = torch.rand(2, batch_size, 1, CHANNELS, 2, generator=generator)
    time = torch.arange(num_frames)[None, :, None, None] / 8
    return torch.sin(time * (0.5 + 2 * rate) + 6.3 * phase).sum(dim=-1)


def batch_of(lengths, seed=0):
    """Padded features, with noise where padded, and their mask."""
    features = waves(len(lengths), max(lengths), seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    noise = 100 * torch.randn(features.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(mask.bool()[..., None], features, noise), mask


def train(model, steps, lr=2e-3, batch=None, **inputs):
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0)
    for step in range(steps):
        output = model(waves(32, 32, seed=step) if batch is None else batch, **inputs)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return output


# --- configuration


def test_config_rejects_unknown_fields():
    with pytest.raises(
        ValueError, match=r"ActionVQVAEConfig has no field `hiden_width` \(did you mean `hidden_width`\?\)"
    ):
        ActionVQVAEConfig(hiden_width=3)
    # What transformers passes is no mistake.
    ActionVQVAEConfig(
        torch_dtype="float32", name_or_path="x", attn_implementation="sdpa", auto_map={}, _commit_hash=None
    )


@pytest.mark.parametrize(
    "field, value",
    [
        ("codebook_size", 15),
        ("codebook_size", 0),
        ("num_joints", 0),
        ("curvature", 0.0),
        ("latent_scale", -1.0),
        ("gumbel_temperature", 0),
        ("ema_decay", 1.0),
        ("dead_code_threshold", 1.5),
        ("zipf_weight", -0.1),
        ("reconstruction_weight", float("inf")),
    ],
)
def test_config_rejects_values_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"`{field}`.*{re.escape(str(value))}"):
        tiny_config(**{field: value})


@pytest.mark.parametrize("field, value", [("num_joints", "25"), ("geometry", "spherical"), ("quantize", 1)])
def test_config_rejects_wrong_types(field, value):
    with pytest.raises(ValueError, match=field):
        tiny_config(**{field: value})


def test_config_defaults_are_the_papers():
    config = ActionVQVAEConfig()
    assert (config.num_channels, config.frames_per_token, config.codebook_size, config.codebook_dim) == (
        150,
        4,
        512,
        5120,
    )
    assert (config.commitment_weight, config.human_weight, config.zipf_beta, config.curvature) == (0.02, 0.2, 2.7, 1.0)


# --- encode and decode


def test_encode_contract():
    model = tiny_model().eval()
    features, mask = batch_of([16, 8, 24])
    output = model.encode(features, mask, frame_rate=torch.tensor([30.0, 15.0, 60.0]))
    assert output.action_ids.shape == (3, 6) and output.action_ids.dtype == torch.int64
    assert output.attention_mask.tolist() == [[1] * 4 + [0] * 2, [1] * 2 + [0] * 4, [1] * 6]
    padded = output.attention_mask == 0
    assert output.action_ids[padded].eq(0).all() and ((output.action_ids >= 0) & (output.action_ids < 16)).all()
    assert output.action_embeds.dtype == output.latents.dtype == torch.float32
    assert output.action_embeds[padded].eq(0).all() and output.latents[padded].eq(0).all()
    assert output.action_embeds[~padded].equal(model.codebook[output.action_ids[~padded]])
    # Token w spans the seconds from 4w / rate to 4(w + 1) / rate.
    assert output.start_times[1, :2].tolist() == pytest.approx([0, 4 / 15])
    assert output.end_times[2].tolist() == pytest.approx([4 * (w + 1) / 60 for w in range(6)])
    assert output.end_times[padded].eq(0).all()
    assert model.encode(features).end_times[0, 0].item() == pytest.approx(4 / 30)


def test_decode_contract():
    model = tiny_model().eval()
    features, mask = batch_of([16, 8])
    encoded = model.encode(features, mask)
    decoded = model.decode(encoded.action_ids, attention_mask=encoded.attention_mask)
    assert decoded.shape == (2, 16, CHANNELS) and decoded[1, 8:].eq(0).all()
    by_vector = model.decode(action_embeds=encoded.action_embeds, attention_mask=encoded.attention_mask)
    assert by_vector.equal(decoded)
    torch.testing.assert_close(model(features, mask).reconstruction, decoded)
    alone = model.decode(encoded.action_ids[1:, :2])
    torch.testing.assert_close(decoded[1:, :8], alone)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 12).map(lambda n: 4 * n), min_size=2, max_size=4), seed=st.integers(0, 100))
def test_a_recording_is_encoded_the_same_alone_and_in_a_padded_batch(lengths, seed):
    model = tiny_model().eval()
    features, mask = batch_of(lengths, seed)
    with torch.no_grad():
        together = model.encode(features, mask)
        reconstruction = model(features, mask).reconstruction
        for row, length in enumerate(lengths):
            alone = model.encode(features[row : row + 1, :length])
            assert together.action_ids[row, : length // 4].equal(alone.action_ids[0])
            torch.testing.assert_close(together.latents[row, : length // 4], alone.latents[0], rtol=1e-4, atol=1e-6)
            decoded = model.decode(alone.action_ids)
            torch.testing.assert_close(reconstruction[row, :length], decoded[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_padding_is_in_no_loss_count_or_statistic(training):
    lengths = [16, 8, 12]
    features, mask = batch_of(lengths)
    other = torch.where(mask.bool()[..., None], features, torch.full_like(features, 7.0))
    settings_ = {"codebook_training": "ema", "dead_code_threshold": 0.1, "kmeans_init": True, "velocity_weight": 0.5}
    outputs, states = [], []
    for inputs in (features, other):
        model = tiny_model(**settings_).train(training)
        torch.manual_seed(1)
        outputs.append(model(inputs, mask))
        states.append(model.state_dict())
    for name, value in outputs[0].items():
        assert value.equal(outputs[1][name]), name
    for name, value in states[0].items():
        assert value.equal(states[1][name]), name
    assert outputs[0].usage.sum() == sum(lengths) / 4 == outputs[0].collected_usage.sum()


def test_losses_are_means_over_valid_elements():
    model = tiny_model(velocity_weight=0.5).eval()
    lengths = [16, 8, 12]
    features, mask = batch_of(lengths)
    output = model(features, mask)
    recordings = [features[row : row + 1, :length] for row, length in enumerate(lengths)]
    decoded = [model.decode(model.encode(recording).action_ids) for recording in recordings]

    def mean_over_all(pairs):
        return F.smooth_l1_loss(*(torch.cat([side.flatten() for side in sides]) for sides in zip(*pairs, strict=True)))

    torch.testing.assert_close(output.reconstruction_loss, mean_over_all(zip(decoded, recordings, strict=True)))
    velocities = [(d.diff(dim=1), r.diff(dim=1)) for d, r in zip(decoded, recordings, strict=True)]
    torch.testing.assert_close(output.velocity_loss, mean_over_all(velocities))
    encoded = [model.encode(recording) for recording in recordings]
    # Eq. 11 in the encoder's units: latents are its output divided by the root of their width.
    squares = torch.cat([8 * (e.latents - e.action_embeds).square().flatten() for e in encoded])
    torch.testing.assert_close(output.commitment_loss, squares.mean())
    torch.testing.assert_close(output.embedding_loss, squares.mean())


def test_alignment_pulls_recordings_towards_their_class_names():
    torch.manual_seed(0)
    features, mask = batch_of([16, 8, 12, 16])
    labels, names = torch.tensor([4, 1, 1, 0]), torch.randn(5, 8)
    model = tiny_model(alignment_weight=0.7, contrast_temperature=0.2, human_weight=0).eval()
    output, usual = model(features, mask, labels=labels, class_embeddings=names), model(features, mask)
    assert usual.alignment_loss is None
    torch.testing.assert_close(output.loss, usual.loss + 0.7 * output.alignment_loss)
    losses = []
    for row, length in enumerate([16, 8, 12, 16]):
        mean = model.encode(features[row : row + 1, :length]).action_embeds.mean(1)
        cosines = F.cosine_similarity(mean, names[[0, 1, 4]]) / 0.2  # the classes in the batch
        losses.append(-cosines.log_softmax(0)[[2, 1, 1, 0][row]])
    torch.testing.assert_close(output.alignment_loss, torch.stack(losses).mean())
    # Blended recordings: the losses of their classes, by their shares.
    shares = torch.zeros(4, 5)
    shares[range(4), labels] += 0.75
    shares[range(4), labels.roll(1)] += 0.25
    blended = model(features, mask, labels=shares, class_embeddings=names).alignment_loss
    rolled = model(features, mask, labels=labels.roll(1), class_embeddings=names).alignment_loss
    torch.testing.assert_close(blended, 0.75 * output.alignment_loss + 0.25 * rolled)
    model.train()
    model(features, mask, labels=labels, class_embeddings=names.requires_grad_()).alignment_loss.backward()
    assert names.grad is None and model.encoder.output_conv.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in model.decoder.parameters())
    with pytest.raises(ValueError, match="`class_embeddings` must be as wide as the codes, 8, got 3"):
        model(features, mask, labels=labels, class_embeddings=names[:, :3])
    with pytest.raises(ValueError, match=r"`labels` must have the share of each of the 5 classes .* got 4 shares"):
        model(features, mask, labels=shares[:, :4], class_embeddings=names)


def test_the_decoder_reconstructs_other_features_if_there_are_any():
    model = tiny_model(velocity_weight=0.5).eval()
    features, mask = batch_of([16, 8, 12])
    target = torch.randn_like(features)
    output, usual = model(features, mask, target_features=target), model(features, mask)
    frames = mask.bool()
    expected = F.smooth_l1_loss(output.reconstruction[frames], target[frames])
    torch.testing.assert_close(output.reconstruction_loss, expected)
    assert abs(output.velocity_loss - usual.velocity_loss) > 0.1
    for same in ("action_ids", "commitment_loss", "embedding_loss", "reconstruction"):
        torch.testing.assert_close(getattr(output, same), getattr(usual, same))
    itself = model(features, mask, target_features=features)
    torch.testing.assert_close(itself.loss, usual.loss)
    with pytest.raises(ValueError, match=r"target_features.*\(3, 16, 12\) of `input_features`.*\(3, 12, 12\)"):
        model(features, mask, target_features=target[:, :12])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"input_features": torch.zeros(2, 18, CHANNELS)}, r"multiple of 4.*\(2, 18, 12\)"),
        ({"input_features": torch.zeros(2, 0, CHANNELS)}, r"multiple of 4.*\(2, 0, 12\)"),
        ({"input_features": torch.zeros(2, 16, 75)}, r"num_frames, 12\).*\(2, 16, 75\)"),
        ({"input_features": torch.zeros(16, CHANNELS)}, r"\(16, 12\)"),
        (
            {"input_features": torch.zeros(2, 16, CHANNELS), "feature_attention_mask": torch.ones(2, 4)},
            r"feature_attention_mask.*\(2, 16\).*\(2, 4\)",
        ),
    ],
)
def test_wrong_shapes_are_named(arguments, message):
    model = tiny_model()
    for method in (model.encode, model):
        with pytest.raises(ValueError, match=message):
            method(**arguments)


def test_other_wrong_inputs_are_named():
    model, features = tiny_model(), torch.zeros(2, 16, CHANNELS)
    with pytest.raises(ValueError, match=r"frame_rate.*\(2,\).*\(3,\)"):
        model.encode(features, frame_rate=torch.ones(3))
    with pytest.raises(ValueError, match=r"word_embeddings.*\(num_words, 8\).*\(5, 9\)"):
        model(features, word_embeddings=torch.zeros(5, 9))
    with pytest.raises(ValueError, match="no valid token"):
        model(features, torch.zeros(2, 16))
    with pytest.raises(ValueError, match=r"between 0 and 15.*0 to 16"):
        model.decode(torch.tensor([[0, 16]]))
    with pytest.raises(ValueError, match="either"):
        model.decode()
    with pytest.raises(ValueError, match="quantize=False"):
        _ = tiny_model(quantize=False).codebook


def test_works_at_the_width_of_llama():
    model = tiny_model(codebook_dim=5120, hidden_width=8)
    output = model(waves(2, 16), word_embeddings=0.02 * torch.randn(600, 5120))
    output.loss.backward()
    assert output.loss.isfinite()
    assert model.encode(waves(2, 16)).latents.norm(dim=-1).max() < 1  # where the ball has room


# --- loss terms and their switches (LLM-AR, Tables 4 to 6)

TERMS = {
    "reconstruction_loss": ("reconstruction_weight", 1.0),
    "embedding_loss": ("embedding_weight", 1.0),
    "commitment_loss": ("commitment_weight", 0.02),
    "velocity_loss": ("velocity_weight", 0.5),
    "zipf_loss": ("zipf_weight", 0.2),
    "context_loss": ("context_weight", 0.2),
    "mmd_loss": ("mmd_weight", 0.2),
}


@pytest.mark.parametrize("off", [None, *TERMS])
def test_loss_is_the_weighted_sum_of_its_terms(off):
    changes = {"velocity_weight": 0.5}
    if off is not None:
        changes[TERMS[off][0]] = 0.0
    model = tiny_model(**changes).train()
    output = model(waves(3, 16), word_embeddings=torch.randn(20, 8))
    expected = sum(weight * output[name] for name, (_, weight) in TERMS.items() if name != off)
    torch.testing.assert_close(output.loss, expected)
    if off in ("zipf_loss", "context_loss", "mmd_loss"):
        assert output[off].isfinite() and not output[off].requires_grad  # still reported
    if off == "velocity_loss":
        assert output.velocity_loss is None


@pytest.mark.parametrize("name", ["zipf_loss", "context_loss", "mmd_loss"])
def test_each_prior_has_a_gradient_of_its_own(name):
    """Switching a prior off takes exactly its gradient away."""
    gradients = {}
    for weight in (0.0, 1.0):
        model = tiny_model(**{TERMS[name][0]: weight}).train()
        torch.manual_seed(1)
        output = model(waves(3, 16), word_embeddings=torch.randn(20, 8, generator=torch.Generator().manual_seed(0)))
        if weight:
            (own,) = torch.autograd.grad(output[name], model.codebook, retain_graph=True)
        output.loss.backward()
        gradients[weight] = model.codebook.grad
    assert own.abs().max() > 0
    torch.testing.assert_close(gradients[1.0] - gradients[0.0], 0.2 * own, rtol=1e-4, atol=1e-6)


def sharp(**changes):
    """Settings in which distances, not Gumbel noise, decide the sampled usage of a tiny model."""
    return {
        "gumbel_temperature": 0.003,
        "codebook_init_norm": 0.3,
        "human_weight": 1.0,
        "kmeans_init": True,
        **changes,
    }


def test_each_prior_moves_what_it_is_about():
    """Trained with and without, LLM-AR, Table 4: with the prior, what it measures is lower."""
    words = 0.5 + 0.1 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    without = dict.fromkeys(("zipf_weight", "context_weight", "mmd_weight"), 0.0)

    def trained(**weights):
        model = tiny_model(**sharp(**without | weights))
        train(model, 60, word_embeddings=words)
        with torch.no_grad():
            return model.eval()(waves(64, 32, seed=1000), word_embeddings=words)

    plain = trained()
    for name in ("zipf_loss", "context_loss", "mmd_loss"):
        assert trained(**{TERMS[name][0]: 1.0})[name] < 0.8 * plain[name], name


def test_no_human_bias_at_all_is_a_plain_vqvae():
    model = tiny_model(human_weight=0.0).train()
    first, second = model(waves(3, 16)), model(waves(3, 16))
    assert first.loss.equal(second.loss)  # nothing is sampled
    assert first.usage.equal(first.collected_usage)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"geometry": "euclidean"},
        {"quantize": False},
        {"codebook_training": "ema", "kmeans_init": True, "dead_code_threshold": 0.1},
        {"geometry": "euclidean", "codebook_training": "ema"},
        {"kmeans_init": True},
        {"curvature": 0.1, "latent_scale": 2.0},
        {"velocity_weight": 0.5},
    ],
    ids=lambda changes: ",".join(changes) or "default",
)
def test_every_variant_learns(changes):
    model = tiny_model(**changes)
    features = waves(16, 32)
    before = model.eval()(features).reconstruction_loss.item()
    output = train(model, 60, batch=features)
    assert output.loss.isfinite()
    assert model.eval()(features).reconstruction_loss.item() < 0.9 * before


def test_continuous_latents_have_no_codebook():
    model = tiny_model(quantize=False)
    assert not [name for name in model.state_dict() if "quantizer" in name]
    features, mask = batch_of([16, 8])
    encoded = model.encode(features, mask)
    assert encoded.action_ids is None and encoded.action_embeds.equal(encoded.latents)
    output = model(features, mask)
    torch.testing.assert_close(output.loss, output.reconstruction_loss)
    assert output.zipf_loss is None and output.usage is None
    decoded = model.decode(action_embeds=encoded.latents, attention_mask=encoded.attention_mask)
    torch.testing.assert_close(decoded, output.reconstruction)


def test_geometries_choose_different_tokens():
    poincare, euclidean = tiny_model(latent_scale=30.0), tiny_model(latent_scale=30.0, geometry="euclidean")
    euclidean.load_state_dict(poincare.state_dict())
    features = waves(16, 32)
    assert not poincare.encode(features).action_ids.equal(euclidean.encode(features).action_ids)


def test_the_scale_reaches_codebook_and_llm_but_not_the_autoencoder():
    features = waves(4, 16)
    one, three = tiny_model(quantize=False), tiny_model(quantize=False, latent_scale=3.0)
    three.load_state_dict(one.state_dict())
    torch.testing.assert_close(three.encode(features).latents, 3 * one.encode(features).latents)
    torch.testing.assert_close(three(features).reconstruction, one(features).reconstruction)


def test_moving_averages_take_the_embedding_loss_out_of_the_total():
    model = tiny_model(codebook_training="ema", human_weight=0.0).train()
    output = model(waves(3, 16))
    torch.testing.assert_close(output.loss, output.reconstruction_loss + 0.02 * output.commitment_loss)


# --- usage in training, evaluation and several processes; several micro-batches are in test_step_usage.py


def test_training_samples_usage_and_evaluation_does_not():
    features = waves(8, 32)
    model = tiny_model().train()
    assert not model(features).collected_usage.equal(model(features).collected_usage)
    model.eval()
    first, second = model(features), model(features)
    assert first.loss.equal(second.loss)
    assert first.collected_usage.equal(first.usage)
    assert usage_statistics(first.usage)["zipf_js"] == pytest.approx(first.zipf_loss.item(), abs=1e-6)


def _usage_of_two_ranks():
    """Two processes with half of the batch each see the usage, and the Zipf loss, of the whole batch."""
    from torch import distributed

    rank = distributed.get_rank()
    features = waves(8, 32)
    model = tiny_model(gumbel_temperature=1e-6).train()
    output = model(features[4 * rank : 4 * rank + 4])
    ids = model.eval().encode(features).action_ids
    expected = torch.bincount(ids.flatten(), minlength=16).float()
    assert output.collected_usage.equal(expected)
    own = torch.bincount(ids[4 * rank : 4 * rank + 4].flatten(), minlength=16).float()
    assert output.usage.equal(own)
    # One process may evaluate on its own: nothing waits for the other.
    if rank == 0:
        torch.testing.assert_close(model(features).zipf_loss, output.zipf_loss)


def test_usage_is_summed_over_processes():
    on_two_ranks(_usage_of_two_ranks)


def test_trainer_accumulates_to_the_same_gradient(tmp_path):
    """Two micro-batches of 4 train as one batch of 8: `forward` returns means, and Trainer divides by their number."""
    recordings = [{"input_features": row} for row in waves(8, 16)]
    states = []
    for size, accumulation in ((8, 1), (4, 2)):
        model = tiny_model(human_weight=0.0)
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=3,
            learning_rate=1e-2,
            optim="sgd",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        Trainer(model, arguments, train_dataset=recordings).train()
        states.append(model.state_dict())
    start = tiny_model(human_weight=0.0).state_dict()
    assert not states[0]["decoder.output_conv.weight"].equal(start["decoder.output_conv.weight"])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


# --- checkpoints and precision


@pytest.mark.parametrize(
    "changes",
    [{}, {"codebook_training": "ema", "kmeans_init": True}, {"quantize": False}],
)
def test_saving_and_loading_is_exact(tmp_path, changes):
    model = tiny_model(**changes)
    train(model, 3)
    model.save_pretrained(tmp_path)
    loaded = ActionVQVAEModel.from_pretrained(tmp_path)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()
    assert set(loaded.state_dict()) == set(model.state_dict())
    for name, value in model.state_dict().items():
        assert not loaded.state_dict()[name].is_meta and loaded.state_dict()[name].equal(value), name
    features, mask = batch_of([16, 8])
    expected = model.eval()(features, mask)
    for name, value in loaded(features, mask).items():
        assert value.equal(expected[name]), name


def test_resuming_is_exact(tmp_path):
    """Everything that training moves is in the checkpoint: going on from it equals never having stopped."""
    settings_ = {
        "codebook_training": "ema",
        "kmeans_init": True,
        "dead_code_threshold": 0.2,
    }
    model = tiny_model(**settings_)
    train(model, 3)
    model.save_pretrained(tmp_path)
    resumed = ActionVQVAEModel.from_pretrained(tmp_path)
    train(model, 3)
    train(resumed, 3)
    for name, value in model.state_dict().items():
        assert resumed.state_dict()[name].equal(value), name


def test_what_a_checkpoint_lacks_is_initialised(tmp_path):
    """A codebook trained by gradient goes on with moving averages: their buffers are not in the checkpoint."""
    tiny_model().save_pretrained(tmp_path)
    loaded = ActionVQVAEModel.from_pretrained(tmp_path, codebook_training="ema", kmeans_init=True)
    assert loaded.quantizer.average_usage.tolist() == [1 / 16] * 16
    assert not loaded.quantizer.initialized
    assert loaded.codebook.equal(ActionVQVAEModel.from_pretrained(tmp_path).codebook)


def test_fresh_weights_have_the_scale_of_torch_convolutions():
    torch.manual_seed(0)
    model = tiny_model(codebook_size=512)
    convolution = torch.nn.Conv1d(16, 16, 3)
    assert model.encoder.stacks[0].blocks[0].dilated_conv.weight.std().item() == pytest.approx(
        convolution.weight.std().item(), rel=0.1
    )
    norm = model.codebook.square().sum(dim=1).mean().sqrt().item()
    assert norm == pytest.approx(model.config.codebook_init_norm, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_leaves_the_hyperbolic_part_in_float32(tmp_path, dtype):
    model = tiny_model(codebook_training="ema")
    model.save_pretrained(tmp_path)
    half = ActionVQVAEModel.from_pretrained(tmp_path, dtype=dtype).eval()
    kept = {name for name, value in half.state_dict().items() if value.dtype == torch.float32}
    assert kept == {"quantizer.weight", "quantizer.average_usage"}
    assert half.codebook.equal(model.codebook)
    features, mask = batch_of([16, 8])
    encoded = half.encode(features, mask)
    assert encoded.latents.dtype == encoded.action_embeds.dtype == torch.float32
    torch.testing.assert_close(encoded.latents, model.encode(features, mask).latents, rtol=0.1, atol=0.02)
    output = half(features, mask)
    assert output.loss.dtype == output.reconstruction.dtype == torch.float32 and output.loss.isfinite()


def test_autocast_does_not_reach_the_codebook():
    model = tiny_model().eval()
    features = waves(4, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, encoded = model(features), model.encode(features)
    distances = model.quantizer.pairwise_distance(encoded.latents.flatten(0, 1), model.codebook)
    assert encoded.action_ids.flatten().equal(distances.argmin(dim=1)) and distances.dtype == torch.float32
    assert output.action_ids.equal(encoded.action_ids) and output.loss.dtype == torch.float32


def stored_inputs():
    return batch_of([24, 16, 4], seed=11), torch.randn(40, 8, generator=torch.Generator().manual_seed(12))


def outputs_to_store(model):
    (features, mask), words = stored_inputs()
    with torch.no_grad():
        encoded = model.encode(features, mask, torch.tensor([30.0, 25.0, 10.0]))
        output = model(features, mask, word_embeddings=words)
    named = {f"encode.{k}": v for k, v in encoded.items()} | {f"forward.{k}": v for k, v in output.items()}
    return {name: value.contiguous() for name, value in named.items()}


def write_stored():
    model = tiny_model(hidden_width=8, seed=5, gumbel_temperature=0.1, kmeans_init=True, codebook_training="ema")
    train(model, 40)
    STORED.mkdir(parents=True, exist_ok=True)
    model.eval().config.to_json_file(STORED / "config.json")
    save_file(model.state_dict(), STORED / "model.safetensors", metadata={"format": "pt"})
    save_file(outputs_to_store(model), STORED / "outputs.safetensors")


def test_stored_checkpoint_gives_the_stored_outputs():
    """An old checkpoint means the same in this version: its config loads and every output is what it was."""
    model = ActionVQVAEModel.from_pretrained(STORED)
    assert json.loads((STORED / "config.json").read_text())["model_type"] == "action_vqvae"
    expected, found = load_file(STORED / "outputs.safetensors"), outputs_to_store(model)
    assert set(found) >= set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_without_its_decoder_it_writes_the_same_and_reads_nothing_back(tmp_path):
    whole = tiny_model()
    whole.save_pretrained(tmp_path)
    config = tiny_config(decodes=False)
    half = ActionVQVAEModel.from_pretrained(tmp_path, config=config)
    assert not [name for name, _ in half.named_parameters() if name.startswith("decoder")]
    with torch.no_grad():
        sentence = half.encode(waves(2, 16))
        assert torch.equal(sentence.action_ids, whole.encode(waves(2, 16)).action_ids)
    for use in (lambda: half.decode(sentence.action_ids), lambda: half(waves(2, 16))):
        with pytest.raises(ValueError, match="no decoder"):
            use()


# --- real recordings


def utd_mhad(folder, number):
    """Recordings (num_frames, 60) in metres from the first frame's hip centre, cut to whole tokens."""
    loadmat = pytest.importorskip("scipy.io").loadmat
    for path in sorted((folder / "utd_mhad" / "skeleton").glob("*.mat"))[::37][:number]:
        joints = loadmat(path)["d_skel"].transpose(2, 0, 1).astype(np.float32)
        joints -= joints[:1, 3:4]
        yield torch.from_numpy(joints[: len(joints) // 4 * 4].reshape(-1, 60))


@pytest.mark.real_data
def test_learns_to_write_and_read_back_real_recordings(real_data):
    recordings = list(utd_mhad(real_data, 8))
    length = max(map(len, recordings))
    features = torch.stack([F.pad(recording, (0, 0, 0, length - len(recording))) for recording in recordings])
    mask = torch.stack([(torch.arange(length) < len(recording)).long() for recording in recordings])
    sizes = {"num_joints": 20, "hidden_width": 48, "codebook_dim": 16, "codebook_size": 64}
    codebook = {"codebook_training": "ema", "kmeans_init": True, "ema_decay": 0.9, "dead_code_threshold": 0.1}
    model = tiny_model(**sizes, **codebook, human_weight=0.0)
    train(model, 120, lr=3e-3, batch=features, feature_attention_mask=mask)

    def error(found):
        """Mean distance of a joint from where it was, in metres."""
        return (found - features).unflatten(-1, (20, 3)).norm(dim=-1)[mask.bool()].mean()

    with torch.no_grad():
        output = model.eval()(features, mask)
    assert error(output.reconstruction) < 0.7 * error(torch.cat(recordings).mean(dim=0))
    assert usage_statistics(output.usage)["perplexity"] > 16
    for row, recording in enumerate(recordings):
        ids = model.encode(recording[None]).action_ids[0]
        assert ids.equal(output.action_ids[row, : len(ids)])


if __name__ == "__main__":
    write_stored()


def test_settings_of_older_versions_are_read_where_they_had_no_effect():
    config = ActionVQVAEConfig.from_dict({"model_type": "action_vqvae", "learn_latent_scale": False})
    assert "learn_latent_scale" not in config.to_dict()
    with pytest.raises(
        ValueError, match="`learn_latent_scale`: expected False, as other values are no longer supported"
    ):
        ActionVQVAEConfig.from_dict({"model_type": "action_vqvae", "learn_latent_scale": True})
