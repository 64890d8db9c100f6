"""How well a score tells recordings of no known class from recordings of known classes.

Scores are high for recordings of no known class. `known` and `novel` are the scores (N,) and (M,) of recordings of either kind.
"""

import numpy as np

from action_llm_recipes.metrics.action_classification.classification_scores import ScoreError


def area_under_roc(known: np.ndarray, novel: np.ndarray) -> float:
    """Probability that a novel recording has a higher score than a known one; equal scores count half (Mann, Whitney 1947)."""
    known, novel = _checked(known, novel)
    ordered = np.sort(known)
    below, up_to = (np.searchsorted(ordered, novel, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(known)))


def false_accept_rate(known: np.ndarray, novel: np.ndarray, accepted: float = 0.95) -> float:
    """Share of the novel recordings that are taken for known ones, at the lowest threshold that accepts a share `accepted` of
    the known recordings (the false positive rate at 95 % true positives)."""
    known, novel = _checked(known, novel)
    threshold = np.sort(known)[int(np.ceil(accepted * len(known) - 1e-9)) - 1]
    return float((novel <= threshold).mean())


def _checked(known, novel) -> tuple[np.ndarray, np.ndarray]:
    known, novel = np.asarray(known, np.float64), np.asarray(novel, np.float64)
    if known.ndim != 1 or novel.ndim != 1 or not len(known) or not len(novel):
        raise ScoreError(
            f"expected scores of known and of novel recordings, got shapes {known.shape} and {novel.shape}."
        )
    return known, novel
