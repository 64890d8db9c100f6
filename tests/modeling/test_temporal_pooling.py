"""Events of varying length: a plain loop, shares that lose nothing, gradients, streams that are cut anywhere."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from action_llm.temporal_pooling import Events, EventStream, pool_events, uniform_weights, unpool

WEIGHTS = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30)


def plain_loop(weights, max_events):
    """Events of one video as lists of (cell, mass), and their borders: water that is poured into buckets of one litre."""
    events, starts, level, total = [[]], [0.0], 0.0, 0.0
    for cell, weight in enumerate(weights):
        left = weight
        while left > 0:
            room = 1.0 - level if len(events) < max_events else math.inf
            poured = min(left, room)
            events[-1].append((cell, poured))
            level, left, total = level + poured, left - poured, total + poured
            if level >= 1 - 1e-9 and len(events) < max_events and (left > 1e-9 or cell < len(weights) - 1):
                starts.append(cell + (weight - left) / weight)
                events.append([])
                level = 0.0
            if left < 1e-9:
                break
    return events, starts


def pooled(weights, max_events, width=3, features=None):
    features = (
        torch.randn(1, len(weights), width, generator=torch.Generator().manual_seed(1))
        if features is None
        else features
    )
    weights = torch.tensor([weights], dtype=torch.float64)
    return features, pool_events(features, weights, torch.ones(weights.shape), max_events)


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(1, 12))
def test_events_are_those_of_a_plain_loop(weights, max_events):
    features, found = pooled(weights, max_events)
    events, starts = plain_loop(weights, max_events)
    assert int(found.mask.sum()) == len(events) == found.features.shape[1]
    np.testing.assert_allclose(found.starts[0], starts, atol=1e-5)
    np.testing.assert_allclose(found.ends[0], [*starts[1:], len(weights)], atol=1e-5)
    for event, parts in enumerate(events):
        mass = sum(part for _, part in parts)
        expected = sum(features[0, cell].double() * part for cell, part in parts) / mass
        np.testing.assert_allclose(found.features[0, event], expected, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.integers(1, 12), st.integers(0, 5))
def test_nothing_is_lost_and_padding_changes_nothing(weights, max_events, padding):
    features, alone = pooled(weights, max_events)
    torch.testing.assert_close(alone.shares.sum(dim=2), torch.ones(1, len(weights)), atol=1e-5, rtol=0)
    assert (alone.shares >= 0).all() and (alone.ends > alone.starts).all()
    tokens = torch.ones(1, alone.features.shape[1], 2)
    torch.testing.assert_close(unpool(tokens, alone), torch.ones(1, len(weights), 2), atol=1e-5, rtol=0)
    wide = torch.cat([features, torch.full((1, padding, 3), 9.0)], dim=1)
    mask = torch.tensor([[1] * len(weights) + [0] * padding])
    both = pool_events(
        torch.cat([wide, wide]),
        torch.tensor([[*weights, *[1.0] * padding]] * 2, dtype=torch.float64),
        torch.cat([mask, mask]),
        max_events,
    )
    for name in ("features", "mask", "starts", "ends"):
        torch.testing.assert_close(getattr(both, name)[1:], getattr(alone, name))
    assert not both.shares[:, len(weights) :].any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 15), st.data())
def test_a_stream_cut_anywhere_gives_the_same_events(weights, max_events, window, data):
    features = torch.randn(len(weights), 3, generator=torch.Generator().manual_seed(2))
    values = torch.tensor(weights, dtype=torch.float64)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(weights)), max_size=4)))

    def run(borders):
        stream, events = EventStream(3, max_events, window), []
        for start, end in zip([0, *borders], [*borders, len(weights)], strict=True):
            events += stream.push(features[start:end], values[start:end])
        return events + list(stream.finish())

    whole, cut = run([]), run(cuts)
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut, strict=True):
        assert torch.equal(one[0], other[0]) and one[1:] == other[1:]
    # And those of the windows by themselves, as training pools them.
    expected = []
    for start in range(0, len(weights), window):
        part = slice(start, min(start + window, len(weights)))
        found = pool_events(
            features[None, part], values[None, part], torch.ones(1, part.stop - part.start), max_events
        )
        expected += [
            (f, s + start, e + start)
            for f, s, e in zip(found.features[0], found.starts[0], found.ends[0], strict=True)
        ]
    assert len(expected) == len(whole)
    for (feature, start, end), (streamed, start_there, end_there) in zip(expected, whole, strict=True):
        np.testing.assert_allclose(streamed, feature, atol=1e-5)
        assert (float(start), float(end)) == (pytest.approx(start_there, abs=1e-5), pytest.approx(end_there, abs=1e-5))


def test_gradients_are_those_of_differences():
    torch.manual_seed(0)
    features = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    weights = (0.1 + 0.6 * torch.rand(2, 7, dtype=torch.float64)).requires_grad_(True)
    mask = torch.tensor([[1] * 7, [1, 1, 1, 1, 1, 0, 0]])
    assert torch.autograd.gradcheck(
        lambda features, weights: (
            pool_events(features, weights, mask, 4).features,
            pool_events(features, weights, mask, 4).shares,
        ),
        (features, weights),
    )


def test_heavy_cells_make_short_events():
    weights = [0.1] * 10 + [0.9] * 5 + [0.1] * 10
    _, found = pooled(weights, 20)
    lengths = (found.ends - found.starts)[0].tolist()
    assert min(lengths) == pytest.approx(10 / 9, abs=0.2) and max(lengths) > 5


@pytest.mark.parametrize(("cells", "events"), [(12, 4), (12, 12), (5, 12), (13, 4)])
def test_uniform_pooling_has_events_of_equal_length(cells, events):
    mask = torch.ones(1, cells)
    found: Events = pool_events(torch.randn(1, cells, 2), uniform_weights(mask, events), mask, events)
    assert int(found.mask.sum()) == min(cells, events)
    np.testing.assert_allclose(found.ends - found.starts, cells / min(cells, events), atol=1e-6)


def test_what_cannot_be_pooled():
    features, weights, mask = torch.randn(2, 4, 3), torch.rand(2, 4), torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"got \(2, 4, 3\), \(2, 3\) and \(2, 4\)"):
        pool_events(features, weights[:, :3], mask, 2)
    with pytest.raises(ValueError, match=r"weights must be between 0 and 1, found .* to 3"):
        pool_events(features, weights.clone().fill_(3), mask, 2)
    with pytest.raises(ValueError, match="video 1 of the batch has no cells"):
        pool_events(features, weights, torch.tensor([[1] * 4, [0] * 4]), 2)
    with pytest.raises(ValueError, match="`max_events` must be at least 1, got 0"):
        pool_events(features, weights, mask, 0)
