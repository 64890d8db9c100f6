"""The calibration beside a model: interpolation between numbers of versions, what the pipeline does with it, damaged files."""

import json

import numpy as np
import pytest
import torch
from tiny_models import CLASS_NAMES, tiny_recogniser
from transformers import pipeline

from action_llm.calibration import Calibration, Reading, read_calibration
from action_llm.model_files import ModelFileError
from action_llm.recording_versions import version_arguments


def calibration(*readings, **fields):
    fields = {"dataset": "mine", "recordings": 40, "people": 4, "models": 4, "transferred": True} | fields
    return Calibration(readings=readings, **fields)


def reading(versions, temperature, unsure_below=None):
    return Reading(versions, temperature, -0.5, -0.4, unsure_below, None if unsure_below is None else 0.8)


def recording(frames: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(frames, 25, 3)).cumsum(0) * 0.1 + generator.normal(size=(25, 3))).astype(np.float32)


@pytest.fixture
def parts():
    return tiny_recogniser("skeletons")


@pytest.fixture
def recognise(parts):
    model, processor = parts
    return pipeline("action-recognition", model=model, processor=processor, device="cpu")


def test_temperatures_between_fitted_numbers_of_versions():
    found = calibration(reading(1, 2.0), reading(4, 0.8), reading(24, 0.5))
    assert [found.temperature(versions) for versions in (1, 4, 24, 100)] == [2.0, 0.8, 0.5, 0.5]
    assert found.temperature(2) == pytest.approx((2.0 * 0.8) ** 0.5)  # log 2 is in the middle of 0 and log 4
    assert 0.5 < found.temperature(12) < found.temperature(5) < 0.8
    assert [calibration(reading(1, 2.0)).temperature(versions) for versions in (1, 24)] == [2.0, 1.0]


@pytest.mark.parametrize("versions", [1, 3])
def test_the_pipeline_is_calibrated_by_default(parts, recognise, versions):
    model, processor = parts
    with torch.no_grad():
        logits = torch.cat(
            [model(**processor(recording(40), **version_arguments("", version))).logits for version in range(versions)]
        )
    raw = logits.softmax(-1).mean(0)
    model.calibration = calibration(reading(1, 2.0), reading(3, 0.5))
    expected = (raw.log() / {1: 2.0, 3: 0.5}[versions]).softmax(-1).tolist()
    for settings, scores in (({}, expected), ({"calibrated": False}, raw.tolist())):
        found = recognise(recording(40), top_k=None, versions=versions, **settings)
        assert {one["label"]: one["score"] for one in found} == pytest.approx(
            dict(zip(CLASS_NAMES, scores, strict=True)), abs=1e-6
        )
    reason = recognise(recording(40), versions=versions, explain=True)[0]["reason"]
    assert f"with a probability of {max(expected):.0%}" in reason


def test_the_probability_of_a_name_is_divided_by_its_prior(parts, recognise):
    """Against the text of the prompt without tokens, tokenised here."""
    model, processor = parts
    model.calibration = calibration(reading(1, 2.0))
    names = ["falling", CLASS_NAMES[0], "walking backwards with both arms up"]
    inputs = processor(recording(40), class_names=names, list_classes=True)
    text = processor.prompt([3], names, list_classes=True).replace("<act_3>", "")
    ids = processor.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(**inputs).logits[0]
        prior = model(input_ids=ids, label_ids=inputs["label_ids"]).logits[0]
    for settings, expected in (({"divide_by_prior": True}, logits - prior), ({}, logits)):
        found = recognise(recording(40), candidate_labels=names, **settings)
        scores = dict(zip(names, expected.softmax(-1).tolist(), strict=True))
        assert {one["label"]: one["score"] for one in found} == pytest.approx(scores, abs=1e-5)
    with pytest.raises(ValueError, match="divide_by_prior is for names that the model was not trained on"):
        recognise(recording(40), divide_by_prior=True)


def test_the_entropy_of_the_scores_is_between_sure_and_equal(parts, recognise):
    model, _ = parts
    for temperature in (1.0, 30.0, 1e6):
        model.calibration = calibration(reading(1, temperature))
        found = recognise(recording(40), top_k=None, return_entropy=True)
        scores = np.array([one["score"] for one in found])
        expected = -(scores * np.log(np.maximum(scores, 1e-300))).sum() / np.log(len(scores))
        assert found[0]["entropy"] == pytest.approx(expected, abs=1e-6) and "entropy" not in found[1]
    assert found[0]["entropy"] == pytest.approx(1, abs=1e-3)


def test_the_pipeline_says_when_it_is_unsure(parts, recognise, caplog):
    model, _ = parts
    model.calibration = calibration(reading(1, 30.0))  # the tiny model is very sure of itself
    score = recognise(recording(40))[0]["score"]
    assert score < 0.9
    assert "unsure" not in recognise(recording(40), unsure_below=score - 1e-4)[0]
    assert recognise(recording(40), unsure_below=score + 1e-4)[0]["unsure"] is True
    model.calibration = calibration(
        reading(1, 30.0, score + 1e-4), reading(3, 1.0), sure_accuracy=0.9, confidence=0.95
    )
    found = recognise(recording(40), explain=True)
    assert found[0]["unsure"] is True and found[0]["reason"].startswith("Not sure") and "unsure" not in found[1]
    # The threshold is for calibrated probabilities of the trained classes, and for one version.
    for settings in ({"calibrated": False}, {"candidate_labels": CLASS_NAMES}, {"versions": 3}, {"unsure_below": 0.0}):
        assert "unsure" not in recognise(recording(40), **settings)[0]
    assert "answers from 3 versions are never marked as unsure: thresholds were chosen for 1 versions" in caplog.text


def test_a_calibration_is_read_as_it_was_written_and_damage_names_the_field(tmp_path):
    expected = calibration(reading(1, 2.0, 0.7), reading(3, 0.5), sure_accuracy=0.9, confidence=0.95, people=None)
    path = tmp_path / "calibration.json"
    path.write_text(expected.to_json())
    assert read_calibration(path) == expected
    whole = json.loads(expected.to_json())
    one, three = whole["readings"]
    for damage, message in (
        ({"recordings": "many"}, "field recordings: expected a number, found 'many'"),
        ({"dataset": None}, "field dataset: expected a value, found nothing"),
        ({"extra": 1}, "field extra: expected only the fields"),
        ({"readings": [3]}, r"field readings\[0\]: expected an object"),
        ({"readings": []}, "field readings: expected increasing numbers of versions, from 1"),
        ({"readings": [three, one]}, "field readings: expected increasing numbers of versions, from 1"),
        ({"readings": [one | {"temperature": 0}]}, r"field readings\[0\].temperature: expected a positive number"),
        ({"readings": [one | {"unsure_below": 7}]}, r"field readings\[0\].unsure_below: expected a probability"),
    ):
        path.write_text(json.dumps(whole | damage))
        with pytest.raises(ModelFileError, match=message):
            read_calibration(path)
