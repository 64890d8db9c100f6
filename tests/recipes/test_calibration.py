"""Temperatures, scores of a perfectly calibrated model, thresholds with a guarantee, and the recipe that saves them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import beta, binom

from action_llm import ActionLLMForClassification
from action_llm.calibration import CALIBRATION, Calibration, Reading, read_calibration
from action_llm.model_files import ModelFileError
from action_llm_recipes.common.evaluation_scores import EvaluationScores
from action_llm_recipes.metrics.action_classification.classification_scores import ScoreError, log_normalize
from action_llm_recipes.metrics.calibration import (
    CalibrationError,
    abstention_threshold,
    binomial_tail,
    fit_temperature,
    fit_without_each_person,
    risk_coverage,
    scores_if_perfect,
    scores_of,
    with_temperature,
)
from action_llm_recipes.metrics.novelty import area_under_roc, false_accept_rate


def drawn(recordings=300, classes=9, true_temperature=1.0, seed=0):
    """Scores, and labels that are drawn from them with a temperature."""
    rng = np.random.default_rng(seed)
    scores = log_normalize(rng.normal(size=(recordings, classes), scale=3))
    probabilities = np.exp(with_temperature(scores, true_temperature))
    return scores, np.array([rng.choice(classes, p=row) for row in probabilities])


@pytest.mark.parametrize("true_temperature", [0.3, 1.0, 2.5])
def test_the_temperature_is_that_of_a_general_optimiser(true_temperature):
    scores, labels = drawn(2000, true_temperature=true_temperature)

    def loss(log_temperature):
        tempered = scores / math.exp(log_temperature)
        own = tempered[np.arange(len(labels)), labels]
        return float(np.mean(np.log(np.exp(tempered).sum(1)) - own))

    best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(math.exp(best.x), rel=1e-5)
    assert found == pytest.approx(true_temperature, rel=0.1)


def test_no_temperature_is_fitted_where_the_likelihood_has_no_maximum():
    scores, _ = drawn(20)
    with pytest.raises(CalibrationError, match="all 20 recordings are recognised"):
        fit_temperature(scores, scores.argmax(1))
    with pytest.raises(CalibrationError, match="not more probable than other classes"):
        fit_temperature(scores, scores.argmin(1))


def test_the_temperature_of_a_person_is_fitted_on_the_others():
    scores, labels = drawn(120)
    people = np.repeat([4, 0, 7], 40)
    tempered = fit_without_each_person(scores, labels, people)
    for person in (0, 4, 7):
        temperature = fit_temperature(scores[people != person], labels[people != person])
        np.testing.assert_allclose(tempered[people == person], with_temperature(scores[people == person], temperature))


@pytest.mark.parametrize(("recordings", "expected"), [(430, 0.027), (108, 0.051)])
def test_few_recordings_have_a_calibration_error_even_of_a_perfect_model(recordings, expected):
    """At an accuracy of 92 %: the medians that the confidences of recognisers of UTD-MHAD gave."""
    confidence = beta(6.5, 0.565).ppf((np.arange(recordings) + 0.5) / recordings)
    assert confidence.mean() == pytest.approx(0.92, abs=0.005)
    probabilities = np.column_stack([confidence, *[(1 - confidence) / 26] * 26])
    perfect = scores_if_perfect(np.log(np.maximum(probabilities, 1e-300)))
    assert perfect.calibration_error == pytest.approx(expected, abs=0.003)


def test_a_perfect_model_has_the_scores_that_its_probabilities_predict():
    scores, labels = drawn(4000)
    probabilities = np.exp(scores)
    perfect = scores_if_perfect(scores, draws=60)
    assert perfect.negative_log_likelihood == pytest.approx(-(probabilities * scores).sum(1).mean(), rel=0.01)
    assert perfect.brier_score == pytest.approx(1 - (probabilities**2).sum(1).mean(), rel=0.01)
    assert scores_of(scores, labels).negative_log_likelihood == pytest.approx(
        perfect.negative_log_likelihood, rel=0.05
    )


@given(st.integers(1, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_binomial_tails_are_those_of_scipy_and_invert_the_clopper_pearson_bound(count, data):
    errors = data.draw(st.integers(0, count))
    rate = data.draw(st.floats(0.001, 0.999))
    assert binomial_tail(errors, count, rate) == pytest.approx(binom.cdf(errors, count, rate), rel=1e-6, abs=1e-12)
    if errors < count:
        bound = beta.ppf(0.99, errors + 1, count - errors)  # upper, at the level 0.01
        assert binomial_tail(errors, count, bound) == pytest.approx(0.01, rel=1e-6)


def test_a_threshold_keeps_its_promise():
    """Over many draws, the true accuracy of what is answered is below the promise in at most 5 % of them."""
    rng, broken, chosen = np.random.default_rng(0), 0, 0

    def true_accuracy(threshold):  # of answers whose confidence, uniform in 0.5..1, is the probability to be right
        return (1 + max(threshold, 0.5)) / 2

    for _ in range(200):
        confidence = rng.uniform(0.5, 1, size=2000)
        correct = rng.random(2000) < confidence
        try:
            found = abstention_threshold(confidence, correct, 0.9)
        except CalibrationError:
            continue
        chosen += 1
        broken += true_accuracy(found.threshold) < 0.9
        answered = confidence >= found.threshold
        assert found.coverage == answered.mean() and found.accuracy == correct[answered].mean() >= 0.9
    assert chosen > 100 and broken <= 0.05 * 200


def test_a_threshold_needs_enough_recordings():
    everything = np.linspace(0.5, 1, 104)
    assert abstention_threshold(everything, np.ones(104, bool), 0.95) == (0.0, 1.0, 1.0)
    with pytest.raises(CalibrationError, match="at least 104 answers without an error"):
        abstention_threshold(everything[:103], np.ones(103, bool), 0.95)
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        abstention_threshold(everything, np.ones(104, bool), 1.0)
    with pytest.raises(ScoreError, match="as many confidences as answers"):
        abstention_threshold(everything, np.ones(3, bool), 0.9)


def test_risk_and_coverage():
    found = risk_coverage([0.9, 0.4, 0.8, 0.8, 0.2], [True, False, True, False, True])
    np.testing.assert_allclose(found, [0, 0.25, 1 / 3, 0.5, 0.4])  # half of an error for each of the two at 0.8


def test_scores_of_unknown_recordings_against_the_definitions():
    known, novel = [0.1, 0.4, 0.4, 0.9], [0.4, 0.95, 0.2]
    wins = [(new > old) + (new == old) / 2 for new in novel for old in known]
    assert area_under_roc(known, novel) == pytest.approx(np.mean(wins))
    assert false_accept_rate(known, novel, accepted=0.75) == pytest.approx(2 / 3)  # the threshold is 0.4
    assert false_accept_rate(known, novel) == pytest.approx(2 / 3)  # 0.9
    with pytest.raises(ScoreError, match="scores of known and of novel"):
        area_under_roc(known, [])


@pytest.fixture(scope="module")
def held_out(recipes, tmp_path_factory):
    """Folder of a recogniser that left a subject out, and of its evaluation on that subject."""
    folder = tmp_path_factory.mktemp("held_out")
    tokenizer = recipes.train_tokenizer(folder / "tokenizer", arguments={"hold_out": True})
    sentences = recipes.encode(tokenizer, folder / "sentences", encodings=2, test_encodings=2)
    model = recipes.sft(tokenizer, sentences, folder / "sft", hold_out=True)
    recipes.evaluate(model, sentences, folder / "evaluation", encodings=2)
    return folder


@pytest.fixture
def run(held_out, tmp_path):
    """A copy, with scores of 400 recordings of five people that are overconfident, and averages that are underconfident."""
    folder = Path(shutil.copytree(held_out, tmp_path / "run"))
    stored = EvaluationScores.load(folder / "evaluation")
    scores, labels = drawn(400, len(stored.class_names), true_temperature=2.0)
    people = np.arange(400) % 5
    scores = {1: scores, 2: with_temperature(scores, 3.0)}
    EvaluationScores(stored.class_names, labels, scores, people).save(folder / "evaluation")
    return folder


def calibrate(run, folder, **settings):
    from action_llm_recipes import calibrate as recipe

    settings = {"model": str(run / "sft" / "model"), "evaluations": [str(run / "evaluation")]} | settings
    return recipe.main(recipe.CalibrationArguments(output_dir=str(folder), **settings))


def test_an_evaluation_stores_the_probabilities_of_single_and_averaged_versions(held_out):
    stored = EvaluationScores.load(held_out / "evaluation")
    metrics = json.loads((held_out / "evaluation" / "metrics.json").read_text())
    assert list(stored.log_probabilities) == [1, 2] and len(stored.labels) == metrics["recordings"]
    for values in stored.log_probabilities.values():
        np.testing.assert_allclose(np.exp(values).sum(1), 1, atol=1e-5)
    found = scores_of(stored.log_probabilities[2], stored.labels)
    assert found._asdict() == pytest.approx({name: metrics[name] for name in found._fields}, abs=1e-5)
    assert metrics["perfectly_calibrated"]["calibration_error"] > 0 and 0 <= metrics["risk_coverage_area"] <= 1
    (held_out / "empty").mkdir(exist_ok=True)
    with pytest.raises(ModelFileError, match=r"run evaluate_classifier\.py again"):
        EvaluationScores.load(held_out / "empty")


def test_a_recogniser_is_calibrated_on_held_out_subjects(run, recipes, tmp_path):
    model, stored = run / "sft" / "model", EvaluationScores.load(run / "evaluation")
    with torch.no_grad():
        raw = ActionLLMForClassification.from_pretrained(model)
    metrics = calibrate(run, tmp_path / "calibration", sure_accuracy=0.8)
    calibration = read_calibration(model / CALIBRATION)
    for reading in calibration.readings:
        temperature = fit_temperature(stored.log_probabilities[reading.versions], stored.labels)
        assert calibration.temperature(reading.versions) == pytest.approx(temperature, rel=1e-6)
        assert reading.log_likelihood_after > reading.log_likelihood_before
    one, two = calibration.readings
    assert (one.versions, two.versions) == (1, 2) and one.temperature > 1 > two.temperature
    assert (calibration.recordings, calibration.people, calibration.models) == (400, 5, 1)
    assert not calibration.transferred and calibration.sure_accuracy == 0.8
    tempered = np.exp(with_temperature(stored.log_probabilities[1], one.temperature))
    sure = tempered.max(1) >= one.unsure_below
    assert (tempered.argmax(1) == stored.labels)[sure].mean() > 0.8 and sure.mean() == one.coverage
    after = fit_without_each_person(stored.log_probabilities[2].astype(float), stored.labels, stored.people)
    assert metrics["versions_2"]["after"]["brier_score"] == pytest.approx(scores_of(after, stored.labels).brier_score)
    assert {path.name for path in (tmp_path / "calibration").glob("*.png")} == {"calibration.png", "risk_coverage.png"}
    # The temperature belongs to the model from then on.
    loaded = ActionLLMForClassification.from_pretrained(model)
    logits = torch.randn(3, 4)
    torch.testing.assert_close(loaded.calibrated(logits), (logits / one.temperature).softmax(-1))
    torch.testing.assert_close(raw.calibrated(logits), logits.softmax(-1))
    loaded.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / CALIBRATION).read_text() == (model / CALIBRATION).read_text()
    # The test split is evaluated with it, the split that it was fitted on is not.
    tested = recipes.evaluate(str(model), str(run / "sentences"), tmp_path / "test", split="test", encodings=2)
    scores = EvaluationScores.load(tmp_path / "test")
    expected = scores_of(with_temperature(scores.log_probabilities[2], two.temperature), scores.labels)
    assert tested["negative_log_likelihood"] == pytest.approx(expected.negative_log_likelihood, abs=1e-4)
    assert tested["uncalibrated"]["negative_log_likelihood"] == pytest.approx(
        scores_of(scores.log_probabilities[2], scores.labels).negative_log_likelihood, abs=1e-4
    )
    again = recipes.evaluate(str(model), str(run / "sentences"), tmp_path / "held_out", encodings=2)
    assert again["split"] == "held_out" and "uncalibrated" not in again


def test_a_temperature_is_transferred_to_a_recogniser_of_the_same_settings(run, recipes, tmp_path):
    tokenizer = recipes.train_tokenizer(tmp_path / "tokenizer")
    sentences = recipes.encode(tokenizer, tmp_path / "sentences", encodings=2, test_encodings=2)
    final = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    calibrate(run, tmp_path / "calibration", model=final)
    calibration = read_calibration(Path(final) / CALIBRATION)
    assert calibration.transferred and calibration.sure_accuracy is None
    other = recipes.sft(tokenizer, sentences, tmp_path / "other", lora_r=2)
    with pytest.raises(ValueError, match=r"other settings than .* \(language model: lora_r\)"):
        calibrate(run, tmp_path / "no", model=other)
    for split in ("test", "train"):
        recipes.evaluate(final, sentences, tmp_path / split, split=split)
        with pytest.raises(ValueError, match=f"evaluates the split '{split}', expected held_out"):
            calibrate(run, tmp_path / "no", model=final, evaluations=[str(tmp_path / split)])
    with pytest.raises(ValueError, match="the same held-out recordings as another evaluation"):
        calibrate(run, tmp_path / "no", evaluations=[str(run / "evaluation")] * 2)
    assert not (Path(other) / CALIBRATION).exists()


def test_a_threshold_that_cannot_be_promised_is_not_saved(run, tmp_path, caplog):
    calibrate(run, tmp_path / "calibration", sure_accuracy=0.999)
    calibration = read_calibration(run / "sft" / "model" / CALIBRATION)
    assert calibration.sure_accuracy is None and calibration.unsure_below() is None
    assert "no threshold for 1 version(s): no threshold promises an accuracy of 99.9%" in caplog.text


def test_the_page_of_a_model_says_what_its_temperatures_were_fitted_on(tmp_path):
    from action_llm_recipes.hub.model_page import _calibration

    assert _calibration(tmp_path, "recordings", []) == ""
    readings = (Reading(1, 1.5, -0.9, -0.4, 0.7123, 0.85), Reading(24, 0.6, -0.5, -0.3))
    calibration = Calibration("utd-mhad", 431, 4, 4, True, readings, 0.95, 0.9)
    (tmp_path / CALIBRATION).write_text(calibration.to_json())
    text = _calibration(tmp_path, "recordings", [{"metrics": {}}])
    assert "fitted on 431 recordings of `utd-mhad` with 4 held-out people, read by 4 recognisers with" in text
    assert (
        "For a single version, the temperature is 1.5: the negative log-likelihood is 0.900 before and 0.400" in text
    )
    assert "at least 0.712, 95.0% or more are right, with a certainty of 90%" in text and "85% were answered" in text
    assert "For 24 averaged versions, the temperature is 0.6" in text
    assert text.endswith("The calibration errors above are those without temperature.")


@pytest.mark.slow
def test_unknown_recordings_are_scored_among_the_trained_classes(recipes, tmp_path):
    from action_llm_recipes import evaluate_unknown as recipe

    protocol = "simulated-unseen"
    tokenizer = recipes.train_tokenizer(tmp_path / "tokenizer", protocol, arguments={"hold_out": True})
    sentences = recipes.encode(tokenizer, tmp_path / "sentences", protocol)
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", hold_out=True)
    metrics = recipe.main(recipe.UnknownArguments(model, sentences, str(tmp_path / "unknown")))
    assert metrics["known"] > 0 and metrics["unknown"] > 0
    for name in ("entropy", "largest_probability"):
        assert 0 <= metrics[name]["area_under_roc"] <= 1 and 0 <= metrics[name]["false_accept_rate"] <= 1
    assert json.loads((tmp_path / "unknown" / "metrics.json").read_text()) == metrics
