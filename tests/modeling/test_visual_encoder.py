"""Cells of pictures: where they are, of which layer, and of encoders of every kind."""

import pytest
import torch
from tiny_models import BACKBONES, tiny_backbone
from transformers import AutoModel, CLIPVisionConfig, Dinov2WithRegistersConfig

from action_llm.visual_encoder import FeatureStandardisation, VisualEncoder, patch_rows_and_columns


def videos(height=32, width=32):
    return torch.randn(2, 3, 2, 3, height, width, generator=torch.Generator().manual_seed(0))


def tower(kind=CLIPVisionConfig, **settings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8, "image_size": 32}
    return AutoModel.from_config(kind(**sizes | settings)).eval()


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize(("kind", "special"), [(CLIPVisionConfig, 1), (Dinov2WithRegistersConfig, 5)])
def test_cells_are_means_of_patches(kind, special, grid):
    backbone, made = tower(kind), videos()
    with torch.no_grad():
        cells = VisualEncoder(backbone, -2, grid)(made)
        hidden = backbone(pixel_values=made[1, 2], output_hidden_states=True).hidden_states[-2]
    assert cells.shape == (2, 3 * grid**2, 2, 16)
    side = 4 // grid
    for row in range(grid):
        for column in range(grid):
            patches = [
                hidden[:, special + 4 * (row * side + i) + column * side + j] for i in range(side) for j in range(side)
            ]
            found = cells[1, 2 * grid**2 + row * grid + column]
            torch.testing.assert_close(found, torch.stack(patches).mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BACKBONES)
def test_encoders_of_every_kind_have_cells(kind):
    encoder, made = VisualEncoder(tiny_backbone(kind), grid=1), videos()
    made = torch.cat([made, made], dim=2)  # the tiny clips have four frames
    clips = kind in ("resnet3d", "videomae", "vjepa2")
    with torch.no_grad():
        cells = encoder(made)
    assert cells.shape == (2, 3, 1 if clips else 4, encoder.feature_size)
    if kind in ("videomae", "vjepa2"):
        with pytest.raises(ValueError, match=f"{kind} reads clips: only its last layer can be used"):
            VisualEncoder(tiny_backbone(kind), grid=2)
        return
    with torch.no_grad():
        fine = VisualEncoder(tiny_backbone(kind), grid=2)(made)
    # The maps are square with even sides: the mean of the cells is that of the picture.
    torch.testing.assert_close(fine.unflatten(1, (3, 4)).mean(2), cells, rtol=1e-4, atol=1e-5)


def test_pictures_that_are_no_squares():
    assert patch_rows_and_columns(6, 16, 24) == (2, 3)
    assert patch_rows_and_columns(7, 16, 24) == (2, 3)
    assert patch_rows_and_columns(577, 336, 336) == (24, 24)
    with pytest.raises(ValueError, match="33 patches cannot be arranged in rows and columns of an image of 32 x 32"):
        patch_rows_and_columns(33, 32, 32)


def test_what_cannot_be_seen():
    with pytest.raises(ValueError, match=r"`feature_layer` is 7, but CLIPVisionModel has the hidden states 0 to 3"):
        VisualEncoder(tower(), 7, 1)(videos())
    with pytest.raises(ValueError, match=r"got \(2, 3, 2, 3, 32\)"):
        VisualEncoder(tower())(videos()[..., 0])


def test_a_channel_that_hardly_changes_is_not_blown_up():
    found = FeatureStandardisation(2)
    found.set(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 0.0]))
    torch.testing.assert_close(found(torch.tensor([[5.0, 2.002]])), torch.tensor([[1.0, 1.0]]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.inverse(found(torch.tensor([[3.0, 7.0]]))), torch.tensor([[3.0, 7.0]]))
