"""Events of varying length: a plain loop, shares that lose nothing, gradients, streams that are cut anywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from action_llm.temporal_pooling import Budget, EventStream, pool_events, unpool, within_budget

WEIGHTS = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30)


def plain_loop(weights):
    """Events of one video as lists of (cell, mass), and their borders: water that is poured into buckets of one litre."""
    events, starts, level = [[]], [0.0], 0.0
    for cell, weight in enumerate(weights):
        left = weight
        while left > 0:
            poured = min(left, 1.0 - level)
            events[-1].append((cell, poured))
            level, left = level + poured, left - poured
            if level >= 1 - 1e-9 and (left > 1e-9 or cell < len(weights) - 1):
                starts.append(cell + (weight - left) / weight)
                events.append([])
                level = 0.0
            if left < 1e-9:
                break
    return events, starts


def pooled(weights, width=3, features=None):
    features = (
        torch.randn(1, len(weights), width, generator=torch.Generator().manual_seed(1))
        if features is None
        else features
    )
    weights = torch.tensor([weights], dtype=torch.float64)
    return features, pool_events(features, weights, torch.ones(weights.shape))


@settings(max_examples=200, deadline=None)
@given(WEIGHTS)
def test_events_are_those_of_a_plain_loop(weights):
    features, found = pooled(weights)
    events, starts = plain_loop(weights)
    assert int(found.mask.sum()) == len(events) == found.features.shape[1]
    np.testing.assert_allclose(found.starts[0], starts, atol=1e-5)
    np.testing.assert_allclose(found.ends[0], [*starts[1:], len(weights)], atol=1e-5)
    for event, parts in enumerate(events):
        mass = sum(part for _, part in parts)
        expected = sum(features[0, cell].double() * part for cell, part in parts) / mass
        np.testing.assert_allclose(found.features[0, event], expected, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.integers(0, 5))
def test_cells_get_the_tokens_of_their_events_and_padding_changes_nothing(weights, padding):
    features, alone = pooled(weights)
    events, _ = plain_loop(weights)
    tokens = torch.randn(1, len(events), 2, generator=torch.Generator().manual_seed(3))
    expected = torch.zeros(len(weights), 2, dtype=torch.float64)
    for event, parts in enumerate(events):
        for cell, mass in parts:
            expected[cell] += mass / weights[cell] * tokens[0, event]
    np.testing.assert_allclose(unpool(tokens, alone)[0], expected, atol=1e-5)
    assert (alone.share >= 0).all() and (alone.share <= 1).all() and (alone.ends > alone.starts).all()
    wide = torch.cat([features, torch.full((1, padding, 3), 9.0)], dim=1)
    mask = torch.tensor([[1] * len(weights) + [0] * padding])
    both = pool_events(
        torch.cat([wide, wide]),
        torch.tensor([[*weights, *[1.0] * padding]] * 2, dtype=torch.float64),
        torch.cat([mask, mask]),
    )
    for name in ("features", "mask", "starts", "ends"):
        torch.testing.assert_close(getattr(both, name)[1:], getattr(alone, name))
    assert not both.share[:, len(weights) :].any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=40), st.data())
def test_a_stream_cut_anywhere_gives_the_same_events(weights, data):
    features = torch.randn(len(weights), 3, generator=torch.Generator().manual_seed(2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(weights)), max_size=4)))

    def run(borders):
        stream, events = EventStream(3), []
        for start, end in zip([0, *borders], [*borders, len(weights)], strict=True):
            events += stream.push(features[start:end].numpy(), np.array(weights[start:end]))
        events += stream.finish()
        assert not list(stream.finish())  # and what it was is forgotten
        return events

    whole, cut = run([]), run(cuts)
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut, strict=True):
        assert np.array_equal(one.feature, other.feature) and one[1:] == other[1:]
    # And those of the whole video at once, as training pools them.
    _, expected = pooled(weights, features=features[None])
    assert expected.features.shape[1] == len(whole)
    for place, event in enumerate(whole):
        np.testing.assert_allclose(event.feature, expected.features[0, place], atol=1e-5)
        assert event.start == pytest.approx(float(expected.starts[0, place]), abs=1e-5)
        assert event.end == pytest.approx(float(expected.ends[0, place]), abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(
    weights=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60),
    max_events=st.integers(1, 6),
    window=st.integers(6, 20),
    cut=st.integers(0, 60),
)
def test_no_stretch_of_a_window_has_more_events_than_the_budget(weights, max_events, window, cut):
    cells = torch.tensor([weights, weights[::-1]], dtype=torch.float64)
    kept = within_budget(cells, max_events, window)
    assert (kept <= cells).all()
    events = pool_events(torch.zeros(2, len(weights), 1), kept, torch.ones(cells.shape))
    for video in range(2):
        starts = events.starts[video][events.mask[video].bool()]
        for start in range(len(weights)):
            inside = ((starts >= start) & (starts < start + window)).sum()
            assert inside <= max_events + (start == 0)  # the first one begins by itself
    for start in range(len(weights)):
        assert (kept[:, start : start + window].sum(dim=1) <= max_events + 1e-9).all()
    # Cut anywhere, it is the same; and what fits the budget is not cut.
    budget = Budget(max_events, window, 2)
    parts = [budget.allow(part.numpy()) for part in (cells[:, :cut], cells[:, cut:])]
    assert np.array_equal(np.minimum(cells, np.concatenate(parts, axis=1)), kept)
    calm = cells * (0.5 * max_events / window)
    assert torch.equal(within_budget(calm, max_events, window), calm)


def test_what_is_spared_can_be_spent_at_once():
    weights = torch.tensor([[0.0] * 20 + [1.0] * 8], dtype=torch.float64)
    kept = within_budget(weights, 8, 20)
    assert kept[0, 20:24].tolist() == [1.0] * 4  # half of the events of a window
    assert 0 < kept[0, 27] < 0.5


def test_gradients_are_those_of_differences():
    torch.manual_seed(0)
    features = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    weights = (0.1 + 0.6 * torch.rand(2, 7, dtype=torch.float64)).requires_grad_(True)
    mask = torch.tensor([[1] * 7, [1, 1, 1, 1, 1, 0, 0]])
    assert torch.autograd.gradcheck(
        lambda features, weights: (
            pool_events(features, weights, mask).features,
            pool_events(features, weights, mask).share,
        ),
        (features, weights),
    )


def test_heavy_cells_make_short_events():
    weights = [0.1] * 10 + [0.9] * 5 + [0.1] * 10
    _, found = pooled(weights)
    lengths = (found.ends - found.starts)[0].tolist()
    assert min(lengths) == pytest.approx(10 / 9, abs=0.2) and max(lengths) > 5


def test_what_cannot_be_pooled():
    features, weights, mask = torch.randn(2, 4, 3), torch.rand(2, 4), torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"got \(2, 4, 3\), \(2, 3\) and \(2, 4\)"):
        pool_events(features, weights[:, :3], mask)
    with pytest.raises(ValueError, match=r"weights must be between 0 and 1, got .* to 3"):
        pool_events(features, weights.clone().fill_(3), mask)
    with pytest.raises(ValueError, match="video 1 of the batch has no cells"):
        pool_events(features, weights, torch.tensor([[1] * 4, [0] * 4]))
