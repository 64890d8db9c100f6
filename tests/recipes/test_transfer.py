"""A recogniser on another data set: shared classes, their names, sums of probabilities, and the recipe."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from action_llm.skeleton_layouts import LAYOUTS
from action_llm_recipes import evaluate_transfer
from action_llm_recipes.common import stage_records
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.shared_classes import read_shared_classes
from action_llm_recipes.evaluate_transfer import SharedClass, of_groups, shared
from action_llm_recipes.robustness import readers
from action_llm_recipes.robustness.readers import JointReader

ROOT = Path(__file__).parents[2]


def test_the_shared_classes_of_utd_mhad_and_msr_action3d():
    classes = json.loads((ROOT / "datasets_scripts" / "utd_mhad.json").read_text("utf-8"))["classes"]
    names = {entry["name"] for entry in classes}
    groups = read_shared_classes(str(ROOT / "recipes" / "robustness" / "utd_mhad_msr_action3d.yaml"), "--classes")
    assert len(groups) == 11
    in_utd = [name for group in groups for name in group if name in names]
    assert len(in_utd) == 12, "the circle has two directions"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jog: jogging", "expected a list of names for each class.*found dict"),
        ("[]", "expected a list"),
        ("- jog", "entry 1: expected a list of names.*found 'jog'"),
        ("- [jog, 3]", "entry 1: expected a list"),
        ("- [a, b]\n- [c, a]", "'a' stands in it twice"),
        ("- [", "--classes"),
    ],
)
def test_bad_files_are_refused(text, message, tmp_path):
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_shared_classes(str(tmp_path / "classes.yaml"), "--classes")
    with pytest.raises(ValueError, match="No such file"):
        read_shared_classes(str(tmp_path / "none.yaml"), "--classes")


def test_names_are_looked_up_in_both_data_sets():
    groups = [["circle left", "circle right", "circle"], ["jog", "jogging"]]
    found = shared(groups, trained=["jog", "circle right", "circle left", "x"], read=["circle", "jogging"])
    assert found == [
        SharedClass(read=["circle"], trained=["circle left", "circle right"]),
        SharedClass(read=["jogging"], trained=["jog"]),
    ]
    with pytest.raises(ValueError, match="the recogniser has no class 'jog' or 'jogging'; its classes: circle"):
        shared(groups, trained=["circle"], read=["circle", "jog"])
    with pytest.raises(ValueError, match="the data set has no class 'jog' or 'jogging'"):
        shared(groups, trained=["circle", "jog"], read=["circle"])
    with pytest.raises(ValueError, match="at least two"):
        shared(groups[:1], trained=["circle"], read=["circle"])


def test_probabilities_of_the_names_of_a_class_add_up():
    scores = np.log([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    groups = [SharedClass(["b"], ["one", "three"]), SharedClass(["a"], ["two"])]
    names = ["one", "two", "three", "four"]
    np.testing.assert_allclose(np.exp(of_groups(scores, groups, names, adds=True)), [[0.4, 0.2], [0.5, 0.25]])
    np.testing.assert_allclose(np.exp(of_groups(scores, groups, names, adds=False)), [[0.3, 0.2], [0.25, 0.25]])
    scores[0] = np.nan
    assert np.isnan(of_groups(scores, groups, names, adds=True)[0]).all()


def test_the_recipe(recipes, tokenizer, sentences, tmp_path, monkeypatch):
    """A folder of COCO skeletons of the same classes under other names, read by a model of NTU's skeletons."""
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    names = recipes.data().load("skeletons")["test"].features["label"].names
    folder, rng = tmp_path / "other", np.random.default_rng(0)
    folder.mkdir()
    lines = ["file_name,label,split"]
    for number in range(9):
        np.save(folder / f"{number}.npy", rng.normal(size=(20, LAYOUTS["coco17"].num_joints, 2)) * 50 + 300)
        label = ["first", "second", "of no use"][number % 3]
        lines.append(f"{number}.npy,{label},{'test' if number > 5 else 'train'}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    (folder / "skeleton.json").write_text(
        json.dumps({"layout": "coco17", "fps": 30, "class_names": ["first", "second", "of no use", "never"]})
    )
    (tmp_path / "classes.yaml").write_text(json.dumps([["first", names[0], names[1]], ["second", names[2]]]))
    data = DataArguments(dataset="folder", data_dir=str(folder), cache_dir=recipes.cache, accept_doubts=True)
    settings = {"model": model, "classes": str(tmp_path / "classes.yaml"), "output_dir": str(tmp_path / "transfer")}
    trained = {"trained_dataset": "simulated-xsub", "trained_data_dir": recipes.recordings}
    metrics = evaluate_transfer.main(evaluate_transfer.TransferArguments(**settings, **trained), data)
    assert metrics == json.loads((tmp_path / "transfer" / "metrics.json").read_text())
    assert metrics["recordings"] == 6 and metrics["classes"] == ["first", "second"], (
        "of all splits, shared classes only"
    )
    assert metrics["trained_on"] == "simulated-xsub"
    assert set(metrics["accuracy"]) == {"recogniser", "kernel ridge on joints"}
    for result in metrics["accuracy"].values():
        assert result["estimate"] == pytest.approx(np.mean(list(result["per_class"].values())))
        assert result["low"] <= result["estimate"] <= result["high"] and result["unread"] == 0
    with (tmp_path / "transfer" / "per_class.csv").open() as file:
        assert [line["recordings"] for line in csv.DictReader(file)] == ["3", "3"]
    assert (tmp_path / "transfer" / "confusion.png").is_file()
    # The baseline learns from the people that the recogniser learned from.
    record, held_out = stage_records.training_record(model), []

    def reader(train, extractor):
        held_out.append(set(train["held_out"]))
        return JointReader(train, extractor)

    with monkeypatch.context() as patched:
        patched.setattr(readers, "JointReader", reader)
        for hold_out in (False, True):
            patched.setattr(
                stage_records, "training_record", lambda _, hold_out=hold_out: record | {"hold_out": hold_out}
            )
            settings["output_dir"] = str(tmp_path / f"hold_out_{hold_out}")
            evaluate_transfer.main(evaluate_transfer.TransferArguments(**settings, **trained), data)
    assert held_out == [{False, True}, {False}]
    settings["output_dir"] = str(tmp_path / "wrong")
    wrong = evaluate_transfer.TransferArguments(**settings, trained_dataset="folder", trained_data_dir=str(folder))
    with pytest.raises(ValueError, match=f"folder has no class '{names[0]}', which the recogniser was trained on"):
        evaluate_transfer.main(wrong, data)
    (tmp_path / "classes.yaml").write_text(
        json.dumps([["first", names[0]], ["second", names[1]], ["never", names[2]]])
    )
    settings["output_dir"] = str(tmp_path / "empty")
    with pytest.raises(ValueError, match="folder has no recording of 'never': leave it out"):
        evaluate_transfer.main(evaluate_transfer.TransferArguments(**settings), data)
    with pytest.raises(ValueError, match="belong together"):
        evaluate_transfer.TransferArguments(**settings, trained_dataset="simulated-xsub")


def test_its_own_training_recordings_are_refused(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    names = recipes.data().load("skeletons")["test"].features["label"].names
    (tmp_path / "classes.yaml").write_text(json.dumps([[name] for name in names]))
    settings = {"model": model, "classes": str(tmp_path / "classes.yaml"), "output_dir": str(tmp_path / "transfer")}
    with pytest.raises(ValueError, match="trained on"):
        evaluate_transfer.main(evaluate_transfer.TransferArguments(**settings), recipes.data())
