"""Videos to sentences: visual encoders of every kind, losses beside plain loops, runs of tokens, and what is saved."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BACKBONES, tiny_backbone, tiny_vst
from torch import nn

from action_llm.action_sentence import ActionEncoderOutput, merge_runs
from action_llm.configuration_vst import VSTConfig
from action_llm.modeling_vst import MAX_ANCHORS, VSTModel, consistency_loss
from action_llm.semantic_alignment import alignment_loss


def videos(batch_size=2, segments=5, frames=2, seed=0):
    return torch.randn(batch_size, segments, frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------ runs of tokens


def sentence(ids, masks):
    ids, mask = torch.tensor(ids), torch.tensor(masks)
    place = torch.arange(ids.shape[1]).float().expand_as(ids) * mask
    latents = torch.randn(*ids.shape, 3, generator=torch.Generator().manual_seed(1)) * mask[..., None]
    embeds = ids[..., None].float().expand(*ids.shape, 3) * mask[..., None]
    return ActionEncoderOutput(ids * mask, mask, embeds, latents, place, (place + 1) * mask)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_runs_are_those_of_a_loop(data):
    length = data.draw(st.integers(1, 8))
    lengths = data.draw(st.lists(st.integers(1, length), min_size=1, max_size=3))
    ids = [data.draw(st.lists(st.integers(0, 2), min_size=length, max_size=length)) for _ in lengths]
    given = sentence(ids, [[int(place < valid) for place in range(length)] for valid in lengths])
    merged = merge_runs(given)
    for row, valid in enumerate(lengths):
        runs = [list(group) for _, group in itertools.groupby(range(valid), key=lambda place: ids[row][place])]
        count = len(runs)
        assert merged.attention_mask[row].tolist() == [1] * count + [0] * (merged.attention_mask.shape[1] - count)
        assert merged.action_ids[row, :count].tolist() == [ids[row][run[0]] for run in runs]
        assert merged.start_times[row, :count].tolist() == [run[0] for run in runs]
        assert merged.end_times[row, :count].tolist() == [run[-1] + 1 for run in runs]
        assert merged.run_lengths[row, :count].tolist() == [len(run) for run in runs]
        for place, run in enumerate(runs):
            torch.testing.assert_close(merged.latents[row, place], given.latents[row, run].mean(0))
            torch.testing.assert_close(merged.action_embeds[row, place], given.action_embeds[row, run[0]])
        for name in merged:
            assert not merged[name][row, count:].any()


# --------------------------------------------------------------------------------------------------------------- losses


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), distance=st.floats(0, 3), data=st.data())
def test_consistency_is_that_of_a_loop(lengths, distance, data):
    generator = torch.Generator().manual_seed(sum(lengths))
    first, second = (torch.randn(len(lengths), 6, 4, generator=generator).double() for _ in range(2))
    times = 6 * torch.rand(len(lengths), 6, generator=generator).double()
    mask = torch.tensor([[int(place < valid) for place in range(6)] for valid in lengths])
    positives = [data.draw(st.lists(st.integers(-1, valid - 1), min_size=6, max_size=6)) for valid in lengths]
    losses = []
    for row, valid in enumerate(lengths):
        for place in range(valid):
            if positives[row][place] < 0:
                continue
            anchor = first[row, place]
            scores = []
            for other, other_valid in enumerate(lengths):
                for there in range(other_valid):
                    is_positive = (other, there) == (row, positives[row][place])
                    if other == row and abs(times[row, there] - times[row, place]) <= distance and not is_positive:
                        continue
                    score = float(F.cosine_similarity(anchor, second[other, there], dim=0)) / 0.1
                    scores.append(score)
                    if is_positive:
                        positive = score
            losses.append(np.logaddexp.reduce(scores) - positive)
    expected = np.mean(losses) if losses else 0.0
    found = consistency_loss(first, second, mask, torch.tensor(positives), times, distance, 0.1)
    assert float(found) == pytest.approx(expected, abs=1e-4)


def test_consistency_of_many_is_about_that_of_all(monkeypatch):
    torch.manual_seed(0)
    first = torch.randn(80, 32, 8)
    positions = torch.arange(32).expand(80, -1)
    inputs = (first, first + 0.5 * torch.randn(80, 32, 8), torch.ones(80, 32), positions, positions, 4, 0.1)
    assert MAX_ANCHORS < 80 * 32
    found = [consistency_loss(*inputs) for _ in range(3)]
    monkeypatch.setattr("action_llm.modeling_vst.MAX_ANCHORS", 80 * 32)
    whole = consistency_loss(*inputs)
    assert len({float(one) for one in found}) == 3  # of other anchors each time
    assert all(0 < abs(one - whole) / whole < 0.1 for one in found)


def test_alignment_is_cross_entropy_over_the_names_of_the_batch():
    made, names = torch.randn(5, 4), torch.randn(9, 4)
    labels = torch.tensor([7, 2, 7, 7, 0])
    expected = []
    for row, label in enumerate(labels.tolist()):
        scores = {c: float(F.cosine_similarity(made[row], names[c], dim=0)) / 0.2 for c in (0, 2, 7)}
        expected.append(np.logaddexp.reduce(list(scores.values())) - scores[label])
    assert float(alignment_loss(made, labels, names, 0.2)) == pytest.approx(np.mean(expected), abs=1e-5)
    with pytest.raises(ValueError, match="as wide as the codes, 4, got 3"):
        alignment_loss(made, labels, names[:, :3], 0.2)


def test_every_term_is_in_the_loss_with_its_weight():
    model = tiny_vst(dropout=0.0).train()
    inputs = {"pixel_values": videos(), "labels": torch.tensor([0, 1]), "class_embeddings": torch.randn(3, 24)}
    outputs = model(**inputs)
    weights = {"reconstruction": 1.0, "embedding": 1.0, "commitment": 0.02, "consistency": 0.1, "alignment": 0.1}
    total = sum(weight * outputs[f"{name}_loss"] for name, weight in weights.items())
    torch.testing.assert_close(outputs.loss, total)
    for name in weights:
        other = tiny_vst(dropout=0.0, **{f"{name}_weight": 0.0}).train()(**inputs)
        torch.testing.assert_close(other.loss, outputs.loss - weights[name] * outputs[f"{name}_loss"])
    assert float(outputs.usage.sum()) == 10


def test_gradients():
    model = tiny_vst().train()
    model(videos(), labels=torch.tensor([0, 1]), class_embeddings=torch.randn(3, 24)).loss.backward()
    for name, parameter in model.named_parameters():
        has_gradient = parameter.grad is not None and bool(parameter.grad.any())
        assert has_gradient != name.startswith("visual_encoder."), name


def gradients(term, model=None, **inputs):
    """Which parts of a model a term of its loss moves, by the first name of their parameters."""
    model = (model or tiny_vst(dropout=0.0)).train()
    model.zero_grad()
    names = torch.randn(3, 24, requires_grad=True)
    outputs = model(**(inputs or {"pixel_values": videos()}), labels=torch.tensor([0, 1]), class_embeddings=names)
    outputs[term].backward()
    moved = {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    return moved, names.grad is not None and bool(names.grad.any())


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("reconstruction_loss", {"decoder", "temporal_attention"}),
        ("embedding_loss", {"quantizers"}),
        ("commitment_loss", {"temporal_attention"}),
        ("consistency_loss", {"temporal_attention"}),
        ("alignment_loss", {"temporal_attention"}),
    ],
)
def test_what_each_term_moves(term, expected):
    moved, moves_names = gradients(term)
    assert moved == expected and not moves_names


def test_alignment_is_of_tokens_and_passes_straight_through():
    """What is compared with the names are codes; the gradient goes to the latents as if they had been."""
    torch.manual_seed(0)
    model = tiny_vst(dropout=0.0).train()
    names, labels, made = torch.randn(3, 24), torch.tensor([0, 2]), videos()
    outputs = model(made, labels=labels, class_embeddings=names)
    codes = model.codebook[outputs.action_ids]
    expected = alignment_loss(codes.mean(dim=1), labels, names, model.config.contrast_temperature)
    torch.testing.assert_close(outputs.alignment_loss, expected)
    assert (alignment_loss(model.codebook[:2], labels, names, 0.1) - expected).abs() > 1e-3


def test_consistency_is_between_the_two_halves_of_a_segments_frames():
    model = tiny_vst(dropout=0.0).train()
    features = model.features(videos(frames=4))
    mask = torch.ones(2, 5, dtype=torch.long)
    outputs = model(input_features=features)
    # By the model's own encoder, on features whose segments have one half alone.
    halves = [
        model._latents(model.standardisation(features[:, :, part].mean(dim=2)), mask).flatten(2)
        for part in (slice(0, 2), slice(2, 4))
    ]
    config = model.config
    positions = torch.arange(5).expand(2, -1)
    settings = (config.consistency_distance, config.contrast_temperature)
    expected = consistency_loss(*halves, mask, positions, positions, *settings)
    torch.testing.assert_close(outputs.consistency_loss, expected)
    other = consistency_loss(halves[0], halves[0], mask, positions, positions, *settings)
    assert (outputs.consistency_loss - other).abs() > 1e-3
    # Of segments with one frame, it is between neighbours; the last valid one has none.
    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    outputs = model(input_features=features[:, :, :1], feature_attention_mask=mask)
    latents = model._latents(model.standardisation(features[:, :, 0]), mask).flatten(2)
    following = torch.tensor([[1, 2, 3, 4, -1], [1, 2, -1, -1, -1]])
    expected = consistency_loss(latents, latents, mask, following, positions, *settings)
    torch.testing.assert_close(outputs.consistency_loss, expected)


def test_in_bfloat16(tmp_path):
    """Losses, reconstruction and codes stay float32; the layers run in what they were loaded in."""
    tiny_vst(dropout=0.0).save_pretrained(tmp_path)
    model = VSTModel.from_pretrained(tmp_path, dtype=torch.bfloat16).train()
    outputs = model(videos(), labels=torch.tensor([0, 1]), class_embeddings=torch.randn(3, 24))
    outputs.loss.backward()
    assert torch.isfinite(outputs.loss) and outputs.loss.dtype == torch.float32
    assert model.eval().decode(torch.tensor([[1, 2, 3]])).dtype == torch.float32


def test_v_jepa_2_does_not_guess_what_is_hidden():
    model, called = tiny_vst("vjepa2").eval(), []
    model.visual_encoder.backbone.predictor.register_forward_hook(lambda *_: called.append(1))
    model.features(videos(frames=4))
    assert not called


def test_reconstruction_learns_features_apart():
    """A few steps tell segments of two kinds apart, by reconstruction alone."""
    torch.manual_seed(0)
    model = tiny_vst(dropout=0.0, consistency_weight=0.0, kmeans_init=True).train()
    kinds = torch.randn(2, model.config.feature_size)
    features = kinds[torch.randint(2, (8, 6))][:, :, None]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60):
        outputs = model(input_features=features)
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
        losses.append(float(outputs.reconstruction_loss))
    assert losses[-1] < 0.2 * losses[0]
    sentences = model.eval().encode(input_features=kinds[torch.tensor([[0, 0, 1, 1, 0]])][:, :, None])
    assert sentences.end_times.tolist() == [[2.0, 4.0, 5.0]]
    assert sentences.action_ids[0, 1] not in sentences.action_ids[0, [0, 2]]


# ------------------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("kind", BACKBONES)
def test_visual_encoders_of_every_kind(kind, tmp_path):
    model = tiny_vst(kind).eval()
    made = videos(frames=4)
    features = model.features(made)
    views = 1 if kind in ("resnet3d", "videomae", "vjepa2") else 4
    assert features.shape == (2, 5, views, model.config.feature_size)
    sentences = model.encode(made, frame_rate=torch.tensor([2.0, 4.0]))
    cached = model.encode(input_features=features, frame_rate=torch.tensor([2.0, 4.0]))
    for name in sentences:
        assert torch.equal(sentences[name], cached[name]), name
    assert sentences.end_times.max(dim=1).values.tolist() == [2.5, 1.25]
    assert torch.equal(sentences.action_embeds[0, 0], model.codebook[sentences.action_ids[0, 0]])
    model.save_pretrained(tmp_path)
    loaded = VSTModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(made).latents, model.encode(made).latents)
    assert not any(parameter.requires_grad for parameter in loaded.visual_encoder.parameters())


def test_features_are_those_of_the_backbone():
    backbone = tiny_backbone("swinv2").eval()
    made = videos(1, 2, 2)
    expected = backbone(pixel_values=made[0, 1, :1]).pooler_output
    torch.testing.assert_close(VSTModel.from_backbone(backbone, **TINY).features(made)[0, 1, 0], expected[0])


TINY = {
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 16,
    "codebook_dim": 8,
    "codebook_size": 8,
}


def test_a_frozen_backbone_never_trains():
    model = tiny_vst().train()
    assert not any(module.training for module in model.visual_encoder.modules())
    assert model.temporal_attention.training


def test_a_video_is_the_same_alone_and_in_a_padded_batch():
    model = tiny_vst(merge_runs=False).eval()
    made, mask = videos(2, 6), torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    together, alone = model.encode(made, mask), model.encode(made[:1, :4])
    torch.testing.assert_close(together.latents[:1, :4], alone.latents, atol=1e-5, rtol=1e-5)
    assert together.action_ids[0, :4].tolist() == alone.action_ids[0].tolist()
    assert not together.latents[0, 4:].any() and not together.end_times[0, 4:].any()


def test_standardisation():
    model = tiny_vst().eval()
    features = 5 + 3 * torch.randn(2, 5, 2, model.config.feature_size)
    mean, deviation = features.mean((0, 1, 2)), features.std((0, 1, 2))
    before = model.encode(input_features=(features - mean) / deviation).latents
    model.standardisation.set(mean, deviation)
    torch.testing.assert_close(model.encode(input_features=features).latents, before, atol=1e-5, rtol=1e-5)
    outputs = model(input_features=features)
    expected = F.mse_loss(
        (outputs.reconstruction - features.mean(2)) / deviation, torch.zeros_like(outputs.reconstruction)
    )
    torch.testing.assert_close(outputs.reconstruction_loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [1.0, 3.0])
def test_latents_have_a_norm(norm):
    model = tiny_vst(latent_norm=norm, quantize=False).eval()
    latents = model.encode(videos()).latents
    torch.testing.assert_close(latents.norm(dim=-1), torch.full((2, 5), norm), rtol=1e-4, atol=1e-5)
    quantized = tiny_vst(latent_norm=norm).eval()
    outputs = quantized(videos())
    codes = quantized.codebook[outputs.action_ids]
    with torch.no_grad():
        made = quantized._latents(quantized.standardisation(quantized.features(videos()).mean(2)), torch.ones(2, 5))[
            :, :, 0
        ]
    expected = ((codes - made) ** 2).mean() * 24 / norm**2
    torch.testing.assert_close(outputs.embedding_loss, expected)


def test_roles():
    model = tiny_vst(num_roles=2, merge_runs=False).eval()
    sentences = model.encode(videos())
    roles = sentences.action_ids // 8
    assert roles.tolist() == [[0, 1] * 5] * 2 and sentences.start_times[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    decoded = model.decode(sentences.action_ids)
    torch.testing.assert_close(decoded, model(videos()).reconstruction, atol=1e-5, rtol=1e-5)
    merged = tiny_vst(num_roles=2).eval().encode(videos())
    for row in range(2):
        starts = merged.start_times[row][merged.attention_mask[row].bool()]
        assert (starts.diff() >= 0).all()
        for role in (0, 1):
            ids = [i for i, m in zip(merged.action_ids[row].tolist(), merged.attention_mask[row], strict=True) if m]
            one = [i for i in ids if i // 8 == role]
            assert all(a != b for a, b in itertools.pairwise(one)) and one


def test_decode_is_what_forward_reconstructs():
    model = tiny_vst(merge_runs=False).eval()
    outputs = model(videos())
    torch.testing.assert_close(model.decode(outputs.action_ids), outputs.reconstruction, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="between 0 and 15, got 0 to 16"):
        model.decode(torch.tensor([[0, 16]]))


def test_without_codes_and_without_anything():
    model = tiny_vst(quantize=False).eval()
    sentences = model.encode(videos())
    assert sentences.action_ids is None and sentences.latents.shape == (2, 5, 24)
    with pytest.raises(ValueError, match="no codebook"):
        _ = model.codebook
    direct = VSTModel.from_backbone(tiny_backbone("resnet"), quantize=False, direct=True).eval()
    latents = direct.encode(videos()).latents
    torch.testing.assert_close(latents, direct.features(videos()).mean(2))
    assert not any(parameter.requires_grad for parameter in direct.parameters())
    with pytest.raises(ValueError, match="nothing to train"):
        direct(videos())


def test_saved_and_loaded_as_a_whole(tmp_path):
    model = tiny_vst(codebook_training="ema", kmeans_init=True, dead_code_threshold=0.1).train()
    model(videos())
    model.standardisation.set(torch.full((16,), 2.0), torch.full((16,), 3.0))
    model.save_pretrained(tmp_path)
    loaded = VSTModel.from_pretrained(tmp_path)
    for field in VSTConfig.__annotations__:
        if field != "backbone_config":
            assert getattr(loaded.config, field) == getattr(model.config, field), field
    assert loaded.config.backbone_config.hidden_size == model.config.backbone_config.hidden_size
    for (name, one), (_, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    half = VSTModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.codebook.dtype == torch.float32 and half.decoder.input.weight.dtype == torch.bfloat16


def test_fresh_weights_depend_on_the_seed_alone():
    def made():
        torch.manual_seed(3)
        return VSTModel(VSTConfig(backbone_config=tiny_backbone("resnet").config, feature_size=16, **TINY))

    for one, other in zip(made().parameters(), made().parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(torch.isfinite(parameter).all() for parameter in made().parameters())
    assert isinstance(made().temporal_attention.layers.layers[0].self_attn, nn.MultiheadAttention)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebok_size": 4}, r"`codebok_size` \(did you mean `codebook_size`\?\)"),
        ({"num_heads": 3}, "must be a multiple of `num_heads` 3"),
        ({"num_roles": 3}, "`codebook_size` 512 must be a multiple of `num_roles` 3"),
        ({"direct": True}, "`direct` needs `quantize=False`"),
        ({"num_roles": 2, "quantize": False}, "`num_roles` above 1 needs `quantize=True`"),
        ({"dropout": 1}, "`dropout` must be at least 0 and below 1"),
        ({"alignment_weight": -1}, "`alignment_weight` must not be negative"),
        ({"contrast_temperature": 0}, "`contrast_temperature` must be a positive number"),
    ],
)
def test_impossible_configurations(change, message):
    with pytest.raises(Exception, match=message):
        VSTConfig(**change)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "give either `pixel_values` or `input_features`"),
        (
            {"pixel_values": torch.zeros(2, 5, 3, 32, 32)},
            r"`pixel_values` must have the shape .* got \(2, 5, 3, 32, 32\)",
        ),
        (
            {"input_features": torch.zeros(2, 5, 16)},
            r"`input_features` must have the shape .*, 16\), got \(2, 5, 16\)",
        ),
        (
            {"input_features": torch.zeros(2, 5, 1, 16), "feature_attention_mask": torch.ones(2, 4)},
            r"`feature_attention_mask` must have the shape \(2, 5\)",
        ),
        (
            {"input_features": torch.zeros(2, 5, 1, 16), "frame_rate": torch.ones(3)},
            r"`frame_rate` must have the shape \(2,\)",
        ),
    ],
)
def test_wrong_shapes_are_named(inputs, message):
    with pytest.raises(ValueError, match=message):
        tiny_vst().eval().encode(**inputs)
