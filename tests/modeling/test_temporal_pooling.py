"""Events of varying length: a plain loop at each place, shares that lose nothing, gradients, streams that are cut anywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from action_llm.temporal_pooling import Budget, EventStream, largest_sum, pool_events, unpool, within_budget

# For each step, the weights of the cells at one to three places.
WEIGHTS = st.integers(1, 3).flatmap(
    lambda places: st.lists(st.lists(st.floats(0.001, 1.0), min_size=places, max_size=places), min_size=1, max_size=30)
)


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


def plain_events(weights):
    """Events (place, start, end, parts) of a video, where parts are pairs of a step and a mass: those of each place by the
    plain loop, in the order of the step in which they end, then of their place."""
    events = []
    for place, own in enumerate(np.transpose(weights).tolist()):
        parts, starts = plain_loop(own)
        ends = [*starts[1:], float(len(own))]
        events += [(place, *event) for event in zip(starts, ends, parts, strict=True)]
    return sorted(events, key=lambda event: (np.floor(event[2] + 1e-9), event[0]))


def pooled(weights, width=3):
    weights = torch.tensor([weights], dtype=torch.float64)
    features = torch.randn(*weights.shape, width, generator=torch.Generator().manual_seed(1))
    return features, pool_events(features, weights, torch.ones(weights.shape[:2]))


@settings(max_examples=200, deadline=None)
@given(WEIGHTS)
def test_events_are_those_of_a_plain_loop_over_time_at_each_place(weights):
    features, found = pooled(weights)
    expected = plain_events(weights)
    places, starts, ends, parts = zip(*expected, strict=True)
    assert found.places[0].tolist() == list(places) and found.mask[0].tolist() == [1] * len(expected)
    np.testing.assert_allclose(found.starts[0], starts, atol=1e-5)
    np.testing.assert_allclose(found.ends[0], ends, atol=1e-5)
    for event, (place, cells) in enumerate(zip(places, parts, strict=True)):
        mean = sum(features[0, step, place].double() * mass for step, mass in cells) / sum(mass for _, mass in cells)
        np.testing.assert_allclose(found.features[0, event], mean, atol=1e-5)
        later = [other for other in range(event + 1, len(places)) if places[other] == place]
        assert int(found.following[0, event]) == (later[0] if later else -1)


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.integers(0, 5))
def test_cells_get_the_tokens_of_their_events_and_padding_changes_nothing(weights, padding):
    features, alone = pooled(weights)
    events, num_places = plain_events(weights), len(weights[0])
    tokens = torch.randn(1, len(events), 2, generator=torch.Generator().manual_seed(3))
    expected = torch.zeros(len(weights), num_places, 2, dtype=torch.float64)
    for event, (place, _, _, parts) in enumerate(events):
        for step, mass in parts:
            expected[step, place] += mass / weights[step][place] * tokens[0, event]
    np.testing.assert_allclose(unpool(tokens, alone)[0], expected, atol=1e-5)
    assert (alone.share >= 0).all() and (alone.share <= 1).all() and (alone.ends > alone.starts).all()
    wide = torch.cat([features, torch.full((1, padding, num_places, 3), 9.0)], dim=1)
    mask = torch.tensor([[1] * (len(weights) + padding), [1] * len(weights) + [0] * padding])
    both = pool_events(
        torch.cat([wide, wide]),
        torch.tensor([[*weights, *[[1.0] * num_places] * padding]] * 2, dtype=torch.float64),
        mask,
    )
    count, length = alone.mask.shape[1], len(weights)
    for name in ("features", "places", "starts", "ends", "following"):
        torch.testing.assert_close(getattr(both, name)[1:, :count], getattr(alone, name))
    for name in ("first", "second", "share"):
        torch.testing.assert_close(getattr(both, name)[1:, :length], getattr(alone, name))
        assert not getattr(both, name)[1:, length:].any()
    assert both.mask.sum(dim=1)[1] == count
    for name in ("features", "places", "starts", "ends"):
        assert not getattr(both, name)[1, count:].any()


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.data())
def test_a_stream_cut_anywhere_gives_the_same_events(weights, data):
    features, expected = pooled(weights)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(weights)), max_size=4)))

    def run(borders):
        stream, events = EventStream(3, len(weights[0])), []
        for start, end in zip([0, *borders], [*borders, len(weights)], strict=True):
            events += stream.push(features[0, start:end].numpy(), np.array(weights[start:end]))
        events += stream.finish()
        assert not list(stream.finish())  # and what it was is forgotten
        return events

    whole, cut = run([]), run(cuts)
    assert len(whole) == len(cut)
    for one, other in zip(whole, cut, strict=True):
        assert np.array_equal(one.feature, other.feature) and one[1:] == other[1:]
    # And those of the whole video at once, as training pools them, in the same order.
    assert [event.place for event in whole] == expected.places[0].tolist()
    for place, event in enumerate(whole):
        np.testing.assert_allclose(event.feature, expected.features[0, place], atol=1e-5)
        assert event.start == pytest.approx(float(expected.starts[0, place]), abs=1e-5)
        assert event.end == pytest.approx(float(expected.ends[0, place]), abs=1e-5)


@settings(max_examples=80, deadline=None)
@given(
    num_places=st.integers(1, 3),
    weights=st.lists(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), min_size=1, max_size=60),
    spare=st.integers(0, 5),
    steps=st.integers(3, 10),
    cut=st.integers(0, 60),
)
def test_no_stretch_of_a_window_has_more_events_than_the_budget(num_places, weights, spare, steps, cut):
    max_events, window = num_places + spare, num_places * steps
    cells = torch.tensor([weights, weights[::-1]], dtype=torch.float64)[..., :num_places]
    kept = within_budget(cells, max_events, window)
    assert (kept <= cells).all() and (kept >= 0).all()
    events = pool_events(torch.zeros(*cells.shape, 1), kept, torch.ones(cells.shape[:2]))
    for video in range(2):
        starts = events.starts[video][events.mask[video].bool()]
        for start in range(len(weights)):
            inside = ((starts >= start) & (starts < start + steps)).sum()
            assert inside <= max_events
    largest = largest_sum(max_events, num_places)
    for start in range(len(weights)):
        assert (kept[:, start : start + steps].sum(dim=(1, 2)) <= largest + 1e-9).all()
    # Cut anywhere, it is the same; and what fits the budget is not cut.
    budget = Budget(max_events, window, num_places, 2)
    parts = [budget.allow(part.numpy()) for part in (cells[:, :cut], cells[:, cut:])]
    assert np.array_equal(np.minimum(cells, np.concatenate(parts, axis=1)), kept)
    calm = cells * (0.5 * largest / window)
    assert torch.equal(within_budget(calm, max_events, window), calm)


@settings(max_examples=100, deadline=None)
@given(shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=16), spare=st.integers(0, 50))
def test_weights_of_the_largest_sum_begin_no_more_events_however_they_are_spread(shares, spare):
    num_places, max_events = len(shares), len(shares) + spare
    largest = largest_sum(max_events, num_places)
    sums = largest * np.array(shares) / sum(shares)
    assert np.ceil(sums - 1e-9).sum() <= max_events
    # One event more would be too many: a little at every place but one, and the rest there.
    assert num_places - 1 + np.ceil(largest + 1 - 0.01) > max_events


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_places_share_what_is_left_evenly(weights, random):
    """The step's weights, cut to one bound, sum to what the budget has, or to their own sum if that is less."""
    budget = Budget(max_events=len(weights) + 1, window=4 * len(weights), num_places=len(weights))
    level = float(budget.level[0])
    bound = budget.allow(np.array([[weights]]))[0, 0, 0]
    kept = np.minimum(weights, bound)
    assert kept.sum() == pytest.approx(min(level, sum(weights)))
    assert float(budget.level[0]) == pytest.approx(min(budget.capacity, level - kept.sum() + budget.refill))
    shuffled = random.sample(weights, len(weights))
    other = Budget(max_events=len(weights) + 1, window=4 * len(weights), num_places=len(weights))
    assert other.allow(np.array([[shuffled]]))[0, 0, 0] == pytest.approx(bound)


def test_what_is_spared_can_be_spent_at_once():
    weights = torch.tensor([[0.0] * 20 + [1.0] * 8], dtype=torch.float64)
    kept = within_budget(weights[..., None], 8, 20)[..., 0]
    assert kept[0, 20:24].tolist() == [1.0] * 4  # half of the events of a window
    assert 0 < kept[0, 27] < 0.5


def test_gradients_are_those_of_differences():
    torch.manual_seed(0)
    features = torch.randn(2, 7, 2, 3, dtype=torch.float64, requires_grad=True)
    weights = (0.1 + 0.6 * torch.rand(2, 7, 2, dtype=torch.float64)).requires_grad_(True)
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
    _, found = pooled([[weight] for weight in weights])
    lengths = (found.ends - found.starts)[0].tolist()
    assert min(lengths) == pytest.approx(10 / 9, abs=0.2) and max(lengths) > 5


def test_what_cannot_be_pooled():
    features, weights, mask = torch.randn(2, 4, 1, 3), torch.rand(2, 4, 1), torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"got \(2, 4, 1, 3\), \(2, 3, 1\) and \(2, 4\)"):
        pool_events(features, weights[:, :3], mask)
    with pytest.raises(ValueError, match=r"weights must be between 0 and 1, got .* to 3"):
        pool_events(features, weights.clone().fill_(3), mask)
    with pytest.raises(ValueError, match="video 1 of the batch has no cells"):
        pool_events(features, weights, torch.tensor([[1] * 4, [0] * 4]))
