"""Conditions of recordings: what each changes and what it keeps; and the recipe that evaluates recognisers under them."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skeleton_people import person, recording, row

from action_llm import SkeletonFeatureExtractor
from action_llm.feature_extraction_skeleton import SkeletonInputError
from action_llm.skeleton_layouts import LAYOUTS, get_layout
from action_llm_recipes import evaluate_robustness
from action_llm_recipes.robustness.conditions import HIDDEN_ERROR, are_in_metres, conditions
from action_llm_recipes.robustness.readers import JointReader, RecogniserReader


def changed(level, layout="kinect20", body=None, name="one"):
    body = person(60, layout, activity=0.05) if body is None else body
    condition = next(condition for condition in conditions(LAYOUTS[layout]) if condition.level == level)
    original = row(recording([(0, body)], layout=layout)) | {"sample_id": name}
    result = condition(original)
    return (
        np.reshape(original["keypoints"], original["shape"]),
        np.reshape(result["keypoints"], result["shape"]),
        result,
    )


def test_complete_recordings_come_first_and_are_unchanged():
    first = conditions(LAYOUTS["kinect25"])[0]
    assert (first.group, first.level) == ("complete", "")
    before, after, result = changed("")
    np.testing.assert_array_equal(before, after)
    assert result["layout"] == "kinect20"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_condition_gives_rows_that_can_be_read(layout):
    extractor = SkeletonFeatureExtractor(layout=layout, num_persons=1)
    made = row(recording([(0, person(40, layout))], layout=layout))
    names, unread = set(), 0
    for condition in conditions(LAYOUTS[layout]):
        one, again = condition(made), condition(made)
        np.testing.assert_array_equal(one["keypoints"], again["keypoints"])
        try:
            features = extractor(one)["input_features"]
        except SkeletonInputError as error:  # counted as not read: too few of its joints, or no trunk
            assert condition.group in ("layout", "missing joints") and "expected " in str(error)
            unread += 1
        else:
            assert np.isfinite(features).all() and features.any()
        names.add((condition.group, condition.level))
    assert len(names) == len(conditions(LAYOUTS[layout])) > 4
    # Most joints of wholebody133 are those of face and hands, which no other layout has.
    assert unread <= (4 if layout == "wholebody133" else 2)
    assert not any(level == layout for _, level in names), "its own layout is no change"


@pytest.mark.parametrize(("level", "count"), [("a fifth", 4), ("half", 10)])
def test_missing_joints_are_missing_throughout(level, count):
    lost = []
    for name in ("one", "other"):
        before, after, _ = changed(level, name=name)
        is_lost = ~after.any((0, 1, 3))
        assert is_lost.sum() == count
        np.testing.assert_array_equal(after[:, :, ~is_lost], before[:, :, ~is_lost])
        lost.append(is_lost)
    assert (lost[0] != lost[1]).any()


@pytest.mark.parametrize("centimetres", [2, 5, 10])
def test_noise_has_its_size(centimetres):
    before, after, _ = changed(f"{centimetres} cm", body=person(500, "kinect20"))
    assert np.std(after - before) == pytest.approx(centimetres / 100, rel=0.02)


def test_centimetres_need_metres():
    rows = [row(recording([(0, person(20, "kinect20", seed=seed))], layout="kinect20")) for seed in range(3)]
    millimetres = [one | {"keypoints": 1000 * np.asarray(one["keypoints"])} for one in rows]
    assert are_in_metres(rows) and are_in_metres([*rows, millimetres[0]])
    assert not are_in_metres(millimetres)


def test_without_depth_there_are_two_dimensions():
    before, after, result = changed("no depth")
    np.testing.assert_array_equal(after[..., :2], before[..., :2])
    assert not after[..., 2].any() and get_layout(result["layout"]).dimensions == 2


@pytest.mark.parametrize("degrees", [15, 60])
def test_turned_people_are_turned_about_the_vertical_and_lose_what_they_hide(degrees):
    directions, errors, hidden = set(), [], []
    for seed in range(40):
        before, after, _ = changed(f"{degrees}°", body=person(60, "kinect20", seed=seed), name=str(seed))
        centre = before[:, :, [LAYOUTS["kinect20"].joint_names.index("hip_center")]].mean((0, 1, 2))
        distances = {}
        for sign in (-1, 1):
            turn = Rotation.from_euler("y", sign * degrees, degrees=True).as_matrix()
            distances[sign] = np.linalg.norm((before - centre) @ turn.T + centre - after, axis=-1)
        sign = min(distances, key=lambda sign: np.median(distances[sign]))
        directions.add(sign)
        exact = distances[sign] < 1e-5
        hidden.append(~exact)
        errors.append(distances[sign][~exact])
    hidden = np.concatenate(hidden)[:, 0].mean(0)
    assert directions == {-1, 1}
    names = LAYOUTS["kinect20"].joint_names
    assert 3 * hidden[names.index("head")] < hidden[names.index("left_hand")] < 0.5
    errors = np.concatenate(errors)
    assert np.sqrt((errors**2).mean() / 3) == pytest.approx(HIDDEN_ERROR * 0.47, rel=0.15), "the trunk has 0.47 m"


def test_the_recipe(recipes, tokenizer, sentences, rendered, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    arguments = evaluate_robustness.RobustnessArguments(
        models=[model], output_dir=str(tmp_path / "robustness"), names=["ours"]
    )
    metrics = evaluate_robustness.main(arguments, recipes.data())
    assert metrics == json.loads((tmp_path / "robustness" / "metrics.json").read_text())
    plain = recipes.evaluate(model, sentences, tmp_path / "evaluation")
    complete = metrics["conditions"]["complete"][""]
    assert complete["ours"]["accuracy"] == pytest.approx(plain["top_1"]["estimate"])
    assert set(complete) == {evaluate_robustness.BASELINE, "ours"}
    assert {"layout", "missing joints", "noise", "turned"} < set(metrics["conditions"])
    page = (tmp_path / "robustness" / "robustness.md").read_text()
    assert "| turned: 45° |" in page and "−" in page
    assert (tmp_path / "robustness" / "robustness.png").stat().st_size > 10_000
    for wrong, names in (
        ("a name for each", ["ours", "theirs"]),
        ("name of the baseline", [evaluate_robustness.BASELINE]),
    ):
        with pytest.raises(ValueError, match=wrong):
            evaluate_robustness.RobustnessArguments(models=[model], output_dir="x", names=names)
    with pytest.raises(ValueError, match="must differ"):
        evaluate_robustness.RobustnessArguments(models=[model, model], output_dir="x", names=["a", "b"])


def test_models_of_one_name_must_differ_by_seed_alone():
    first, other = {"seed": 0, "settings": {"max_steps": 10}}, {"seed": 1, "settings": {"max_steps": 10}}
    evaluate_robustness.check_seeds(["ours", "ours"], [first, other])
    evaluate_robustness.check_seeds(["ours", "longer"], [first, {"seed": 1, "settings": {"max_steps": 20}}])
    with pytest.raises(ValueError, match="two of the models called ours are the same one"):
        evaluate_robustness.check_seeds(["ours", "ours", "ours"], [first, other, dict(first)])
    with pytest.raises(ValueError, match="the models called ours differ by more than their seed"):
        evaluate_robustness.check_seeds(["ours", "ours"], [first, {"seed": 1, "settings": {"max_steps": 20}}])


def test_models_of_one_name_are_seeds():
    """Mean and range, and recordings that cannot be read are mistakes of each seed."""
    labels, right = np.array([0, 1, 1, 0]), np.array([[2.0, 1], [1, 2], [1, 2], [2, 1]])
    half = right.copy()
    half[0], half[1] = np.nan, [2, 1]
    found = evaluate_robustness.summary([right, half], labels)
    assert found == {"accuracy": 0.75, "low": 0.5, "high": 1.0, "unread": 1, "seeds": [1.0, 0.5]}
    single = evaluate_robustness.summary([half], labels)
    assert single["low"] < single["accuracy"] == 0.5 < single["high"] and "seeds" not in single
    results = {
        "complete": {"": {"ours": found}},
        "noise": {"2 cm": {"ours": evaluate_robustness.summary([half, half], labels)}},
    }
    page = evaluate_robustness.page({"dataset": "d", "recordings": 4, "split": "test", "conditions": results})
    assert "| complete | 75.0 (50.0–100.0), 1 not read |" in page
    assert "| noise: 2 cm | 50.0 (50.0–50.0), −25.0, 1 not read |" in page


def test_recordings_that_were_trained_on_are_refused(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    arguments = evaluate_robustness.RobustnessArguments(
        models=[model], output_dir=str(tmp_path / "robustness"), split="held_out"
    )
    with pytest.raises(ValueError, match="trained on"):
        evaluate_robustness.main(arguments, recipes.data())


def test_what_cannot_be_read_has_no_scores(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    rows = recipes.data().load("skeletons")["test"]
    good = [dict(one) for one in rows.with_format("numpy").select(range(3))]
    bad = good[1] | {"keypoints": np.zeros_like(good[1]["keypoints"])}
    extractor = SkeletonFeatureExtractor.from_pretrained(tokenizer)
    for reader in (
        RecogniserReader(model, encodings=2, batch_size=2),
        JointReader(recipes.data().load("skeletons")["train"], extractor),
    ):
        scores, damaged = reader.scores(good), reader.scores([good[0], bad, good[2]])
        assert scores.shape == (3, 4) and np.isfinite(scores).all()
        assert np.isnan(damaged[1]).all()
        np.testing.assert_allclose(damaged[[0, 2]], scores[[0, 2]], atol=1e-5)
        assert np.isnan(reader.scores([bad])).all()
