"""Embeddings of class names, and their orthogonalisation beside the polar decomposition of SciPy."""

import numpy as np
import pytest
import torch
from scipy.linalg import polar

from action_llm_recipes.stages.word_embeddings import class_name_embeddings, load_word_embeddings, orthogonalize


@pytest.mark.parametrize("shape", [(3, 8), (8, 8)])
def test_the_nearest_orthonormal_vectors_are_the_polar_factor(shape):
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(vectors).numpy()
    directions = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(found, polar(directions)[0], atol=1e-5)
    np.testing.assert_allclose(found @ found.T, np.eye(len(found)), atol=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = polar(rng.normal(size=shape))[0]
        assert np.linalg.norm(found - directions) <= np.linalg.norm(other - directions)


def test_names_of_the_same_words_are_moved_apart(recipes):
    names = ["sit to stand", "stand to sit", "wave"]
    ids_of = load_word_embeddings(recipes.llm)
    plain = class_name_embeddings(recipes.llm, names)
    assert plain.shape == (3, ids_of.shape[1])
    torch.testing.assert_close(plain[0], plain[1])
    apart = class_name_embeddings(recipes.llm, names, orthogonal=True)
    torch.testing.assert_close(apart @ apart.T, torch.eye(3), atol=1e-5, rtol=0)
    # The last word tells them apart.
    stand, sit = (class_name_embeddings(recipes.llm, [word])[0] for word in ("stand", "sit"))
    assert (apart[0] - apart[1]) @ (stand - sit) > 0.5 * (stand - sit).norm()
    # Both stay near the words that they share, and far from those of the third.
    similarity = torch.nn.functional.normalize(plain, dim=1) @ apart.T
    assert similarity[0, 0] > 0.5 and similarity[1, 1] > 0.5 and similarity[0, :2].min() > similarity[2, :2].max()


def test_more_names_than_dimensions_cannot_be_orthogonal(recipes):
    width = load_word_embeddings(recipes.llm).shape[1]
    with pytest.raises(
        ValueError, match=f"orthogonal_names: {width + 1} class names cannot be orthogonal in the {width}"
    ):
        class_name_embeddings(recipes.llm, [f"wave {number}" for number in range(width + 1)], orthogonal=True)
