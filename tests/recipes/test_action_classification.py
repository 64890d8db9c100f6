"""The `evaluate` metric: it loads offline from its folder alone, and says what the functions behind it say."""

import shutil
from pathlib import Path

import evaluate
import numpy as np
import pytest

from action_llm_recipes.metrics.action_classification import classification_scores as scores

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "metrics" / "action_classification"


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads a config of a copy of the folder: what is pushed is this folder and nothing around it."""
    copy = tmp_path_factory.mktemp("space") / "action_classification"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    cache = str(tmp_path_factory.mktemp("cache"))
    return lambda *config: evaluate.load(str(copy), *config, cache_dir=cache)


def test_from_scores(load):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 7)), rng.integers(7, size=50)
    metric = load()
    for row, label in zip(logits, labels, strict=True):
        metric.add(predictions=row, references=label)
    result = metric.compute()
    best = logits.argmax(1)
    assert result["top_1"] == scores.accuracy(best, labels)
    assert result["top_5"] == scores.top_k_accuracy(logits, labels, 5)
    assert result["mean_per_class"] == scores.mean_per_class_accuracy(best, labels)
    expected = scores.expected_calibration_error(scores.log_normalize(logits), labels)
    assert result["calibration_error"] == pytest.approx(expected)
    assert result["confusion_matrix"] == scores.confusion_matrix(best, labels, 7).tolist()


def test_from_labels_with_an_absent_class(load):
    result = load("labels").compute(predictions=[0, 1, 1, 0], references=[0, 1, 0, 0], num_classes=4)
    assert result["top_1"] == 0.75
    assert result["mean_per_class"] == pytest.approx((2 / 3 + 1) / 2)
    assert np.shape(result["confusion_matrix"]) == (4, 4)


def test_probabilities_are_taken_as_they_are(load):
    rng = np.random.default_rng(1)
    probabilities, labels = rng.dirichlet(np.ones(6), size=40), rng.integers(6, size=40)
    result = load("probabilities").compute(predictions=probabilities, references=labels)
    assert result["calibration_error"] == pytest.approx(
        scores.expected_calibration_error(np.log(probabilities), labels)
    )
    for name, value in load().compute(predictions=np.log(probabilities), references=labels).items():
        np.testing.assert_allclose(result[name], value, rtol=1e-6)
    with pytest.raises(ValueError, match="between 0 and 1, and sum to 1"):
        load("probabilities").compute(predictions=[[0.5, 0.6]], references=[0])


def test_what_cannot_be_scored_is_an_error(load):
    with pytest.raises(ValueError, match="each recording needs the same number of scores; found"):
        load().compute(predictions=[[0.1, 0.2], [0.3]], references=[0, 0])
    with pytest.raises(ValueError, match=r'"default" \(scores\), "probabilities" or "labels"; got'):
        load("top5")
