"""Long videos to visual events: losses beside plain ones, streams that are cut anywhere, rows of the tables, bad input."""

import itertools
import json
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_backbone, tiny_vtem

from action_llm import VTEMConfig, VTEMModel
from action_llm.modeling_vst import consistency_loss
from action_llm.modeling_vtem import SENSITIVITY, STREAM_BLOCK, mean_weight

# Grid and scope of the pooling: long videos, short clips, and models of earlier versions.
GRIDS = [(1, "place"), (2, "place"), (2, "frame"), (2, "raster")]
# Tables 2, 5 and 6 of VT-LVLM-AR: what of them is a setting of this model.
ABLATIONS = {
    "no quantisation": {"quantize": False},
    "uniform pooling": {"pooling": "uniform"},
    **{
        f"{pooling} pooling of {scope}s": {"pooling": pooling, "pooling_scope": scope, "grid": 2}
        for pooling in ("adaptive", "uniform")
        for scope in ("place", "frame")
    },
    "no coherence": {"coherence_weight": 0.0},
    **{f"M = {events}": {"max_events": events, "window_cells": 5 * events} for events in (64, 128, 256, 512)},
    **{f"K = {codes}": {"codebook_size": codes} for codes in (512, 1024, 2048, 4096)},
}


def cells(count=24, batch_size=2, seed=0, width=16):
    """Features that stand still and jump, every few cells; (batch_size, count, 1, width)."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(batch_size, 8, width))
    order = np.sort(rng.integers(0, 8, (batch_size, count)), axis=1)
    made = np.take_along_axis(kinds, order[..., None], axis=1) + 0.05 * rng.normal(size=(batch_size, count, width))
    return torch.from_numpy(made[:, :, None]).float()


def pictures(segments=10, seed=0):
    return torch.randn(segments, 2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def plain_coherence(codes, events, distance):
    """InfoNCE between each event and the next at its place, by a loop; `distance` is in steps."""
    videos = []
    for video, mask in enumerate(events.mask.bool()):
        rows = zip(events.places[video], events.starts[video], events.ends[video], codes[video], strict=True)
        videos.append([row for row, is_event in zip(rows, mask, strict=True) if is_event])
    losses = []
    for video, own in enumerate(videos):
        for index, (place, start, end, code) in enumerate(own):
            later = [other for other in range(index + 1, len(own)) if own[other][0] == place]
            if not later:
                continue
            scores = []
            for other, others in enumerate(videos):
                for number, (_, other_start, other_end, other_code) in enumerate(others):
                    apart = abs((start + end) / 2 - (other_start + other_end) / 2)
                    if other != video or number == later[0] or apart > distance + 1e-6:
                        scores.append(torch.cosine_similarity(code, other_code, dim=0) / 0.1)
            positive = torch.cosine_similarity(code, own[later[0]][3], dim=0) / 0.1
            losses.append(torch.stack(scores).logsumexp(0) - positive)
    return torch.stack(losses).mean()


# --------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("row", ABLATIONS)
def test_each_row_of_the_tables_trains_and_encodes(row):
    model = tiny_vtem(**ABLATIONS[row]).train()
    made, mask = cells(), torch.tensor([[1] * 24, [1] * 16 + [0] * 8])
    outputs = model(input_features=made, feature_attention_mask=mask)
    outputs.loss.backward()
    assert torch.isfinite(outputs.loss)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    expected = {"quantizer"} if model.config.quantize else set()
    assert trained == expected | ({"cell_weights"} if model.config.pooling == "adaptive" else set())
    assert (outputs.coherence_loss is None) == (row == "no coherence")
    found = model.eval().encode(input_features=made, feature_attention_mask=mask)
    assert (found.action_ids is None) == (row == "no quantisation")
    places = model.config.grid**2
    assert found.end_times.max(dim=1).values.tolist() == [24 / places, 16 / places]
    assert [set(row.tolist()) for row in found.places] == [set(range(places))] * 2
    assert torch.isfinite(found.latents).all()


def test_every_term_is_in_the_loss_with_its_weight_and_is_what_it_says():
    model, made = tiny_vtem(coherence_weight=0.3).train(), cells()
    model.standardisation.set(made.mean((0, 1, 2)), made.std((0, 1, 2)))
    outputs = model(input_features=made)
    weights = {"reconstruction": 1.0, "coherence": 0.3, "embedding": 1.0, "commitment": 0.25, "quantity": 1.0}
    torch.testing.assert_close(outputs.loss, sum(w * outputs[f"{name}_loss"] for name, w in weights.items()))
    states = model.standardisation(made[:, :, 0])
    codes = model.quantizer.weight[outputs.action_ids]
    events, raw = model._events(states, torch.ones(2, 24))
    latents, valid = events.features, events.mask.bool()
    first, shares = events.first[..., 0], events.share[..., 0]
    torch.testing.assert_close(outputs.embedding_loss, ((latents - codes)[valid] ** 2).mean())
    torch.testing.assert_close(outputs.quantity_loss, (raw.sum() / (mean_weight(model.config) * 48) - 1) ** 2)
    errors = []
    for video in range(2):
        for cell in range(24):
            event, share = int(first[video, cell]), shares[video, cell]
            token = share * codes[video, event]
            if share < 1 - 1e-6:
                token = token + (1 - share) * codes[video, event + 1]
            errors.append((token - states[video, cell]).square().mean())
    torch.testing.assert_close(outputs.reconstruction_loss, torch.stack(errors).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.coherence_loss, plain_coherence(codes, events, 4 / mean_weight(model.config)))


def test_padding_enters_no_loss():
    """Videos of two lengths together: sums over both of what each has alone."""
    model = tiny_vtem(coherence_weight=0.0).train()
    made, lengths = cells(20), [12, 20]
    made[0, 12:] = 50.0
    mask = torch.tensor([[int(place < length) for place in range(20)] for length in lengths])
    together = model(input_features=made, feature_attention_mask=mask)
    alone = [model(input_features=made[i : i + 1, :length]) for i, length in enumerate(lengths)]
    expected = sum(one.reconstruction_loss * length for one, length in zip(alone, lengths, strict=True)) / 32
    torch.testing.assert_close(together.reconstruction_loss, expected, rtol=1e-4, atol=1e-5)
    counts = [one.attention_mask.sum() for one in alone]
    expected = sum(one.embedding_loss * count for one, count in zip(alone, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(together.embedding_loss, expected, rtol=1e-4, atol=1e-5)
    rate = mean_weight(model.config)
    weights = [model._events(made[i : i + 1, :n, 0], torch.ones(1, n))[1].sum() for i, n in enumerate(lengths)]
    torch.testing.assert_close(together.quantity_loss, (sum(weights) / (32 * rate) - 1) ** 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", ["place", "frame"])
@pytest.mark.parametrize("distance", [1.0, 2.5])
def test_positives_follow_at_the_same_place_and_negatives_are_far_in_time(distance, scope):
    model = tiny_vtem(grid=2, pooling_scope=scope, negative_distance=distance).train()
    made, mask = cells(80), torch.tensor([[1] * 80, [1] * 60 + [0] * 20])
    outputs = model(input_features=made, feature_attention_mask=mask)
    codes = model.quantizer.weight[outputs.action_ids]
    events, _ = model._events(made[:, :, 0], mask)
    expected = plain_coherence(codes, events, distance / mean_weight(model.config))
    torch.testing.assert_close(outputs.coherence_loss, expected)


def test_events_of_equal_length_are_negatives_beyond_as_many_lengths():
    """Without a grid, uniform events are as far apart in time as in the sentence."""
    model = tiny_vtem(pooling="uniform", max_events=5, window_cells=17, negative_distance=4).train()
    outputs = model(input_features=cells(95))
    codes, positions = (
        model.quantizer.weight[outputs.action_ids],
        torch.arange(outputs.action_ids.shape[1]).expand(2, -1),
    )
    assert 95 * mean_weight(model.config) % 1 > 0.9  # the last event, which ends with the video, is about as long
    following = torch.where(positions + 1 < positions.shape[1], positions + 1, -1)
    expected = consistency_loss(codes, codes, outputs.attention_mask, following, positions, 4, 0.1)
    torch.testing.assert_close(outputs.coherence_loss, expected)


@pytest.mark.parametrize(("grid", "reach"), [(1, 3), (2, 3), (2, 2)])
def test_novelty_is_the_distance_from_the_same_place_before(grid, reach):
    weights, states = tiny_vtem(grid=grid, weight_reach=reach).cell_weights, cells(6 * grid**2, 1)[:, :, 0]
    found, places = weights.log_novelty(states, weights.begin(states))[0], grid**2
    for cell in range(6 * places):
        before = [states[0, max(cell - back * places, cell % places)] for back in range(1, reach)]
        difference = states[0, cell] - torch.stack(before).mean(0)
        expected = max(difference.square().mean().sqrt().item(), 1e-3)
        assert found[cell].exp().item() == pytest.approx(expected, rel=1e-4)


def test_reading_changes_nothing_also_where_the_model_is_to_learn():
    model = tiny_vtem(kmeans_init=True, dead_code_threshold=0.5, codebook_training="ema").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream = model.stream(1.0)
    stream.push(input_features=cells(16, 1).view(16, 1, 1, 16))
    stream.finish()
    model.encode(input_features=cells())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(input_features=cells())
    assert not torch.equal(model.quantizer.weight, before["quantizer.weight"])


@pytest.mark.parametrize(
    ("term", "trained"),
    [
        ("reconstruction_loss", {"cell_weights"}),
        ("coherence_loss", {"cell_weights", "quantizer"}),
        ("embedding_loss", {"quantizer"}),
        ("commitment_loss", {"cell_weights"}),
        ("quantity_loss", {"cell_weights"}),
    ],
)
def test_what_each_term_trains(term, trained):
    model = tiny_vtem().train()
    model(input_features=cells())[term].backward()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()} == trained


def test_another_visual_encoder_learns_the_features_of_the_tower():
    """Tokens are of the tower's width and space, whatever sees the video."""
    torch.manual_seed(0)
    # As many events as cells, so that what is left of the loss is what the features miss.
    model = VTEMModel.from_backbone(
        tiny_backbone("resnet"), feature_layer=None, maps_features=True, codebook_dim=12, codebook_size=32, max_events=32,
        window_cells=32, kmeans_init=True,
    ).train()  # fmt: skip
    made = cells(count=32, batch_size=2)
    targets = 5 + 2 * made @ torch.randn(16, 12)
    model.standardisation.set(made.mean((0, 1, 2)), made.std((0, 1, 2)))
    model.target_standardisation.set(targets.mean((0, 1, 2)), targets.std((0, 1, 2)))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(200):
        outputs = model(input_features=made, target_features=targets)
        outputs.loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(outputs.reconstruction_loss.item())
    # Targets have a variance of one: whoever knows but their mean has a loss of one.
    assert losses[0] > 1 and sum(losses[-20:]) / 20 < 0.5
    found = model.eval().encode(input_features=made)
    # In the units of the tower.
    assert (found.action_embeds[found.attention_mask.bool()].mean() - targets.mean()).abs() < 1.0
    assert model.codebook.shape == (32, 12)
    with pytest.raises(ValueError, match=r"must have the cells \(2, 32\) of the visual encoder, got \(2, 31, 1, 12\)"):
        model(input_features=made, target_features=targets[:, :31])
    with pytest.raises(ValueError, match=r"must have the cells \(2, 32\) of the visual encoder, got None"):
        model(input_features=made)


def test_events_begin_where_the_video_changes():
    """Untrained, by novelty alone: still stretches are few events, and the events begin where it changes."""
    model = tiny_vtem(max_events=16, window_cells=32)
    made = cells(count=48, batch_size=1, seed=3)
    model.standardisation.set(made.mean((0, 1, 2)), made.std((0, 1, 2)))
    weights = model.cell_weights
    weights.sensitivity.data.fill_(SENSITIVITY)
    states = model.standardisation(made[:, :, 0])
    weights.calibrate(weights.log_novelty(states, weights.begin(states))[0])
    assert weights(states, weights.begin(states)).mean().item() == pytest.approx(0.75 * 16 / 32, abs=1e-3)
    jumps = 1 + (made[0, 1:, 0] - made[0, :-1, 0]).norm(dim=-1).topk(5).indices
    found = model.encode(input_features=made)
    starts = found.start_times[0]
    assert all((starts - jump).abs().min() <= 1.0 for jump in jumps)
    # As many as those of equal length, or about.
    uniform = tiny_vtem(max_events=16, window_cells=32, pooling="uniform").encode(input_features=made)
    np.testing.assert_allclose(uniform.end_times[0, :3], [8 / 3, 16 / 3, 8], atol=1e-5)
    assert abs(uniform.action_ids.shape[1] - found.action_ids.shape[1]) <= 2
    found = weights(states, weights.begin(states))[0].detach()
    others = torch.ones(48, dtype=torch.bool).index_fill(0, jumps, False)
    assert found[jumps].min() > 2 * found[others].mean()


# ------------------------------------------------------------------------------------------------------ events of a grid


def moving_square(path, size=16):
    """A square that rests for four of 64 frames in each cell of a path through 4 × 4 cells: features (1, 1024, 1, size)."""
    rng = np.random.default_rng(0)
    square, background = rng.normal(size=(2, size))
    at = np.resize(np.repeat(path, 4), 64)
    made = np.where((at[:, None] == np.arange(16))[..., None], square, background)
    return torch.from_numpy(made + 0.1 * rng.normal(size=made.shape)).float().view(1, -1, 1, size)


def calibrated(made, **settings):
    model = tiny_vtem(grid=4, max_events=205, window_cells=1024, **settings)
    model.standardisation.set(made.mean((0, 1, 2)), made.std((0, 1, 2)))
    states, weights = model.standardisation(made[:, :, 0]), model.cell_weights
    weights.sensitivity.data.fill_(SENSITIVITY)
    weights.calibrate(weights.log_novelty(states, weights.begin(states))[0])
    return model


def test_events_last_several_frames_and_show_one_place():
    """Events of about as many cells, 7 of the 1,024: in a raster scan, they are strips of less than half a frame."""
    path = [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 15, 14, 13, 12]
    made, lengths, counts = moving_square(path), {}, {}
    for scope in ("raster", "place", "frame"):
        model = calibrated(made, pooling_scope=scope)
        events, _ = model._events(model.standardisation(made[:, :, 0]), torch.ones(1, 1024, dtype=torch.long))
        lengths[scope] = (events.ends - events.starts)[0] * model.config.num_places / 16  # in frames
        counts[scope] = len(lengths[scope])
    assert lengths["raster"].sum() == pytest.approx(64) and lengths["raster"].mean() < 0.5
    assert (lengths["raster"] < 2).all()
    for scope in ("place", "frame"):
        assert lengths[scope].sum() == pytest.approx(1024) and lengths[scope].mean() > 6
        assert (lengths[scope] >= 2).float().mean() > 0.8
        assert counts[scope] == pytest.approx(counts["raster"], abs=0.1 * counts["raster"])


def test_places_with_movement_have_shorter_events():
    made = moving_square([0, 1, 2, 3, 2, 1])
    found = calibrated(made, pooling_scope="place").encode(input_features=made)
    counts = torch.bincount(found.places[0], minlength=16)
    assert counts[:4].min() > counts[4:].max()
    # For the frame as a whole, an event has a token for each place, of the same time and in their order.
    found = calibrated(made, pooling_scope="frame").encode(input_features=made)
    assert (found.places.view(-1, 16) == torch.arange(16)).all()
    for times in (found.start_times, found.end_times):
        assert (times.view(-1, 16) == times.view(-1, 16)[:, :1]).all()


@pytest.mark.parametrize("max_events", [64, 128, 256, 512])
def test_the_number_of_events_follows_the_setting(max_events):
    """Table V: uniform pooling makes about three quarters of M events at 4 × 4 places, as it does at one."""
    made = torch.zeros(1, 1280, 1, 16)
    found = tiny_vtem(grid=4, max_events=max_events, window_cells=1280, pooling="uniform").encode(input_features=made)
    assert found.action_ids.shape[1] == pytest.approx(0.75 * max_events, abs=8)  # every place has a last event
    assert found.action_ids.shape[1] <= max_events


def test_models_of_earlier_versions_pool_row_by_row(tmp_path):
    made = cells(32, 1)
    for grid, expected in ((1, "place"), (2, "raster")):
        folder = tmp_path / str(grid)
        tiny_vtem(grid=grid, pooling="uniform").save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        del config["pooling_scope"], config["negative_distance"]
        (folder / "config.json").write_text(json.dumps(config | {"coherence_distance": 0}))
        model = VTEMModel.from_pretrained(folder)
        assert model.config.pooling_scope == expected
        found = model.encode(input_features=made)
        # 3/8 of an event for each cell: event k has the cells from 8k/3 to 8(k + 1)/3, of the frames that these are in.
        for event, (start, end) in enumerate(itertools.pairwise([8 * k / 3 for k in range(13)])):
            overlaps = [max(0.0, min(cell + 1, end) - max(cell, start)) for cell in range(32)]
            mean = (torch.tensor(overlaps)[:, None] * made[0, :, 0]).sum(0) / sum(overlaps)
            torch.testing.assert_close(found.latents[0, event], mean, rtol=1e-4, atol=1e-4)
            times = (float(found.start_times[0, event]), float(found.end_times[0, event]))
            whole = (math.floor(start / 4), math.ceil(end / 4)) if grid == 2 else (start, end)
            assert times == pytest.approx(whole, abs=1e-5)
        model.save_pretrained(folder)
        assert VTEMModel.from_pretrained(folder).config.pooling_scope == expected
    with pytest.raises(ValueError, match="has no field `coherence_distance`"):
        VTEMConfig(coherence_distance=4)


# -------------------------------------------------------------------------------------------------------------- streams


@settings(max_examples=25, deadline=None)
@given(data=st.data(), pooling=st.sampled_from(["adaptive", "uniform"]), kind=st.sampled_from(GRIDS))
def test_a_stream_cut_anywhere_gives_the_same_events_to_the_bit(data, pooling, kind):
    grid, scope = kind
    model = tiny_vtem(pooling=pooling, grid=grid, pooling_scope=scope)
    segments = data.draw(st.integers(1, 30))
    made = cells(segments * grid**2, 1, seed=segments).view(segments, grid**2, 1, 16)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, segments), max_size=4))), segments]
    stream = model.stream(2.0)
    whole = stream.push(input_features=made) + stream.finish()
    cut = [event for a, b in itertools.pairwise(cuts) for event in stream.push(input_features=made[a:b])]
    cut += stream.finish()  # the same stream, once more
    assert [one._replace(latent=None) for one in whole] == [other._replace(latent=None) for other in cut]
    assert all(torch.equal(one.latent, other.latent) for one, other in zip(whole, cut, strict=True))
    # And those of the video at once.
    found = model.encode(input_features=made.flatten(0, 1)[None], frame_rate=torch.tensor([2.0]))
    assert found.places[0].tolist() == [event.place for event in whole]
    for place, event in enumerate(whole):
        torch.testing.assert_close(event.latent, found.latents[0, place], rtol=1e-4, atol=1e-4)
        assert event.start == pytest.approx(float(found.start_times[0, place]), abs=1e-4)
        assert event.end == pytest.approx(float(found.end_times[0, place]), abs=1e-4)
        # Where two codes are as near, rounding may choose.
        distances = (model.codebook - event.latent).norm(dim=-1)
        assert (
            event.action_id == int(found.action_ids[0, place]) or distances.topk(2, largest=False).values.diff() < 1e-4
        )
    if scope == "raster":
        assert all((2 * event.start) % 1 == 0 == (2 * event.end) % 1 for event in whole)
    # An event is known when it ends, and the order does not wait for later ones.
    last = [math.floor(2 * event.end + 1e-6) for event in whole]
    assert last == sorted(last)


def test_a_stream_of_pictures_is_that_of_their_features():
    model, made = tiny_vtem(grid=2), pictures(20)
    stream = model.stream(1.0)
    seen = [event for part in made.split(3) for event in stream.push(part)] + stream.finish()
    blocks = [model.features(block[None])[0].unflatten(0, (-1, 4)) for block in made.split(STREAM_BLOCK)]
    read = stream.push(input_features=torch.cat(blocks)) + stream.finish()
    assert [one._replace(latent=None) for one in seen] == [other._replace(latent=None) for other in read]
    assert len(seen) <= math.ceil(model.config.max_events * (80 / 16 + 1))


def test_a_picture_that_does_not_change_is_few_events_whatever_was_learned():
    model = tiny_vtem(max_events=16, window_cells=32)
    weights, made = model.cell_weights, cells(400)
    model.standardisation.set(made.mean((0, 1, 2)), made.std((0, 1, 2)))
    states = model.standardisation(made[:, :, 0])
    weights.sensitivity.data.fill_(SENSITIVITY)
    weights.calibrate(weights.log_novelty(states, weights.begin(states)).flatten())
    weights.output.bias.data.fill_(100.0)
    still = model.encode(input_features=torch.full((1, 64, 1, 16), 7.0))
    moving = model.encode(input_features=made[:1, :64])
    assert still.action_ids.shape[1] < 0.2 * moving.action_ids.shape[1]


def test_what_a_stream_holds_does_not_grow():
    model, part = tiny_vtem(), cells(STREAM_BLOCK * 4, 1).view(-1, 1, 1, 16)
    stream, sizes = model.stream(1.0), []
    for _ in range(6):
        stream.push(input_features=part)
        sizes.append((len(stream._waiting), stream._before.shape, stream._before.untyped_storage().nbytes()))
    assert len(set(sizes)) == 1


def test_bad_streams():
    model = tiny_vtem()
    with pytest.raises(ValueError, match="`frame_rate` must be a positive number of segments per second, got 0"):
        model.stream(0)
    stream = model.stream(1.0)
    with pytest.raises(ValueError, match="either `pixel_values` or `input_features`"):
        stream.push()
    with pytest.raises(ValueError, match=r"a segment must be `input_features` \(1, views, 16\).*got \(1, 1, 15\)"):
        stream.push(input_features=torch.zeros(1, 1, 1, 15))
    stream.push(pictures(3))
    with pytest.raises(
        ValueError, match=r"segment 3 has the shape \(2, 3, 16, 32\), but the segments before it have \(2, 3, 32, 32\)"
    ):
        stream.push(pictures(2)[:, :, :, :16])
    lost = pictures(4)
    lost[2, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="segment 5 contains NaN or Inf"):
        stream.push(lost)
    # Nothing of what was refused was taken.
    assert len(stream._waiting) == 3 and stream.push(pictures(3).numpy()) == []


# ------------------------------------------------------------------------------------------------------------- encoding


def test_a_video_is_the_same_alone_and_in_a_padded_batch():
    model, made = tiny_vtem(), cells(20)
    mask = torch.tensor([[1] * 12 + [0] * 8, [1] * 20])
    together, alone = (
        model.encode(input_features=made, feature_attention_mask=mask),
        model.encode(input_features=made[:1, :12]),
    )
    count = alone.action_ids.shape[1]
    assert together.attention_mask.sum(1).tolist()[0] == count
    torch.testing.assert_close(together.latents[:1, :count], alone.latents, atol=1e-5, rtol=1e-5)
    assert not together.latents[0, count:].any() and not together.end_times[0, count:].any()


@pytest.mark.parametrize("kind", ["swinv2", "resnet", "resnet3d", "videomae"])
def test_pictures_and_features_give_the_same_and_are_saved(kind, tmp_path):
    model = tiny_vtem(kind, grid=1 if kind == "videomae" else 2)
    made = torch.cat([pictures(6), pictures(6, seed=1)], dim=1)[None].repeat(2, 1, 1, 1, 1, 1)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    seen = model.encode(made, mask, torch.tensor([2.0, 4.0]))
    places = model.config.grid**2
    read = model.encode(None, mask.repeat_interleave(places, 1), torch.tensor([2.0, 4.0]), model.features(made))
    for name in seen:
        assert torch.equal(seen[name], read[name]), name
    assert seen.end_times.max(dim=1).values.tolist() == [3.0, 1.0]
    assert torch.equal(seen.action_embeds[0, 0], model.codebook[seen.action_ids[0, 0]])
    model.save_pretrained(tmp_path)
    loaded = VTEMModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(made, mask).latents, model.encode(made, mask).latents)
    assert not any(parameter.requires_grad for parameter in loaded.visual_encoder.parameters())
    assert not any(module.training for module in loaded.train().visual_encoder.modules())


def test_statistics_are_saved_and_codes_are_in_the_features_units(tmp_path):
    model, made = tiny_vtem(), 5 + 3 * cells()
    model.standardisation.set(made.mean((0, 1, 2)), made.std((0, 1, 2)))
    found = model.encode(input_features=made)
    expected = model.quantizer.weight[found.action_ids] * model.standardisation.deviation + model.standardisation.mean
    torch.testing.assert_close(
        found.action_embeds * found.attention_mask[..., None], expected * found.attention_mask[..., None]
    )
    distances = torch.cdist(model.standardisation(found.latents[0]), model.quantizer.weight).argmin(1)
    assert distances.tolist() == found.action_ids[0].tolist()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(VTEMModel.from_pretrained(tmp_path).codebook, model.codebook)


def test_in_half_precision_codes_and_statistics_stay_as_they_are(tmp_path):
    model, made = tiny_vtem(), 5 + 3 * cells()
    model.standardisation.set(made.mean((0, 1, 2)), made.std((0, 1, 2)))
    model.save_pretrained(tmp_path)
    half = VTEMModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.cell_weights.input.weight.dtype == torch.bfloat16 and torch.equal(half.codebook, model.codebook)
    assert half.cell_weights.novelty.mean.dtype == torch.float32
    outputs = half.train()(input_features=made)
    outputs.loss.backward()
    assert torch.isfinite(outputs.loss)
    assert half.eval().encode(input_features=made).latents.dtype == torch.float32


# ------------------------------------------------------------------------------------------------------------ bad input


def test_fewer_frames_than_an_event_has():
    with pytest.warns(UserWarning, match="a video has 3 cells, fewer than the 8 events that it may have"):
        found = tiny_vtem().encode(input_features=cells(3, 1))
    assert 1 <= found.attention_mask.sum() <= 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_vtem().encode(input_features=cells(8, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_events": 17}, "`max_events` must be at most the 16 cells of `window_cells`, got 17"),
        ({"codebook_dim": 15}, "`codebook_dim` 15 must equal `feature_size` 16"),
        (
            {"max_events": 1, "window_cells": 5000},
            "`max_events` must be at least one for every 1000 of the 5000 cells",
        ),
        ({"weight_reach": 1}, "`weight_reach` must be at least 2"),
        ({"grid": 0}, "`grid` must be at least 1, got 0"),
        ({"grid": 3}, "the 16 cells of `window_cells` and one for each of the 9 places but the first, got 8"),
        (
            {"grid": 4, "max_events": 18, "window_cells": 4000},
            "every 1000 of the 4000 cells of `window_cells` and one for each of the 16 places but the first, got 18",
        ),
        ({"pooling_scope": "picture"}, "pooling_scope"),
        ({"negative_distance": -1}, "`negative_distance` must not be negative, got -1"),
        ({"coherence_weight": -1.0}, "`coherence_weight` must not be negative, got -1"),
        ({"contrast_temperature": 0.0}, "`contrast_temperature` must be a positive number"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_vtem(**settings)


def test_inputs_of_wrong_shapes():
    model = tiny_vtem()
    with pytest.raises(
        ValueError, match=r"`input_features` must have the shape \(batch_size, num_cells, views, 16\), got"
    ):
        model.encode(input_features=torch.zeros(2, 5, 16))
    with pytest.raises(ValueError, match=r"must have the shape \(2, 24\) of the cells, got \(2, 23\)"):
        model.encode(input_features=cells(), feature_attention_mask=torch.ones(2, 23))
    message = r"must have 4 cells for each segment, which `grid` 2 gives, got"
    with pytest.raises(ValueError, match=message + r" \[23, 23\] cells of 23"):
        tiny_vtem(grid=2).encode(input_features=cells(23))
    with pytest.raises(ValueError, match=message + r" \[24, 22\] cells of 24"):
        tiny_vtem(grid=2).encode(
            input_features=cells(), feature_attention_mask=torch.tensor([[1] * 24, [1] * 22 + [0] * 2])
        )
    with pytest.raises(ValueError, match=r"`frame_rate` must have the shape \(2,\), got \(1,\)"):
        model.encode(input_features=cells(), frame_rate=torch.ones(1))
    with pytest.raises(ValueError, match="either `pixel_values` or `input_features`"):
        model.encode()
    with pytest.raises(ValueError, match="no codebook"):
        _ = tiny_vtem(quantize=False).codebook
    with pytest.raises(ValueError, match="has no field `codebok_size`"):
        VTEMConfig(codebok_size=4)


def test_the_defaults_are_those_of_the_paper_and_of_llava():
    config = VTEMConfig()
    assert (config.codebook_size, config.codebook_dim, config.max_events, config.coherence_weight) == (
        2048,
        1024,
        256,
        0.1,
    )
    tower = config.backbone_config
    assert (tower.model_type, tower.hidden_size, tower.image_size, tower.patch_size) == (
        "clip_vision_model",
        1024,
        336,
        14,
    )
    with torch.device("meta"):
        model = VTEMModel(config)
    assert model.codebook.shape == (2048, 1024)
