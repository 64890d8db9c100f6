"""Padding of sequences: values, sides and masks."""

import pytest
import torch
from torch.testing import assert_close

from action_llm_recipes.common.padding import collate, collate_features, pad_latents, padded


@pytest.mark.parametrize(
    ("side", "expected", "expected_mask"),
    [
        ("right", [[1, 2, 3], [4, -1, -1]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[1, 2, 3], [-1, -1, 4]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_sequences_are_padded_on_one_side(side, expected, expected_mask):
    batch, mask = padded([torch.tensor([1, 2, 3]), torch.tensor([4])], value=-1, side=side)
    assert batch.tolist() == expected and mask.tolist() == expected_mask
    assert batch.dtype == mask.dtype == torch.int64


def test_further_dimensions_and_the_dtype_are_kept():
    sequences = [torch.rand(length, 2, 3, dtype=torch.float64) for length in (2, 4)]
    batch, mask = padded(sequences)
    assert batch.shape == (2, 4, 2, 3) and batch.dtype == torch.float64
    for row, row_mask, sequence in zip(batch, mask, sequences, strict=True):
        assert_close(row[row_mask.bool()], sequence)
        assert not row[~row_mask.bool()].any()


@pytest.mark.parametrize("scalars", [{"frame_rate": 30.0}, {"frame_rate": 30.0, "start_time": 0.5}])
def test_recordings_of_a_feature_extractor_become_a_batch(scalars):
    def extracted(length):
        return {
            "input_features": torch.ones(1, length, 3),
            "feature_attention_mask": torch.ones(1, length, dtype=torch.long),
            **{name: torch.tensor([value]) for name, value in scalars.items()},
        }

    batch = collate([extracted(2), extracted(4)])
    assert batch["input_features"].sum(dim=-1).tolist() == [[3, 3, 0, 0], [3, 3, 3, 3]]
    assert batch["feature_attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert {name: batch[name].tolist() for name in batch if name in scalars} == {
        name: [value, value] for name, value in scalars.items()
    }
    assert set(batch) == {"input_features", "feature_attention_mask", *scalars}


def test_stored_features_have_their_shape_again():
    rows = [
        {"features": [1.0, 2.0, 3.0, 4.0], "shape": [1, 2, 2], "frame_rate": 2.0},
        {"features": [5.0] * 8, "shape": [2, 2, 2], "frame_rate": 4.0},
    ]
    batch = collate_features(rows)
    assert batch["input_features"].tolist()[0] == [[[1, 2], [3, 4]], [[0, 0], [0, 0]]]
    assert batch["feature_attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["frame_rate"].tolist() == [2, 4]


def test_flat_latents_have_their_width_again():
    batch = pad_latents([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0]], width=2)
    assert batch["action_embeds"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]]]
    assert batch["action_embeds_mask"].tolist() == [[1, 1], [1, 0]]
