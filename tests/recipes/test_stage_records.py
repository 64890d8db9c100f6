"""The stages behind a model by its record, and what they permit: held-out evaluation and unseen classes."""

import json

import pytest

from action_llm.model_files import ModelFileError
from action_llm_recipes.common.records import read_written, required
from action_llm_recipes.common.stage_records import (
    check_dataset,
    check_held_out,
    check_unseen,
    check_unseen_text,
    letters_of,
    llm_training,
    pretraining_record,
    stages_behind,
    training_record,
    training_stages,
)


def sft_record(**fields):
    """The record of a recogniser of videos, whose language model is a small LVLM with a vision tower of its own."""
    encoder = {"stage": "pretrain_backbone", "hold_out": True, "training_classes": ["wave"]}
    features = {"stage": "extract_features", "backbone_training": dict(encoder)}
    tokenizer = {
        "stage": "train_tokenizer",
        "hold_out": True,
        "training_classes": ["wave"],
        "features": features,
        "target_features": {"stage": "extract_features", "backbone_training": dict(encoder)},
    }
    return {
        "stage": "sft",
        "hold_out": True,
        "training_classes": ["wave"],
        "sentences": {"stage": "encode_actions", "dataset": "ntu60-xsub-video", "tokenizer": tokenizer},
        "llm_training": {
            "stage": "pretrain_small_lvlm",
            "hold_out": True,
            "training_classes": ["wave"],
            "backbone_training": dict(encoder),
            "llm_training": {"stage": "small_lm", "classes_without_text": ["jump"]},
        },
        **fields,
    }


def test_stages_are_named_in_the_order_in_which_they_were_run():
    assert [stage.name for stage in stages_behind(sft_record())] == [
        "vision tower of the small LVLM",
        "small language model",
        "small LVLM",
        "visual encoder",
        "features",
        "vision tower",
        "features",
        "action model",
        "action sentences",
        "language model",
    ]
    assert [stage.name for stage in stages_behind({})] == ["language model"]
    evaluation = {"stage": "evaluate_classifier", "model": sft_record()}
    assert stages_behind(evaluation)[-2].record["stage"] == "sft"


def test_stages_trained_on_recordings():
    stages = training_stages(sft_record())
    assert set(stages) == {
        *("vision tower of the small LVLM", "small LVLM", "visual encoder", "vision tower"),
        *("action model", "language model"),
    }
    assert training_stages({"stage": "sft"})["action model"] == {}, "a model without a record"


@pytest.mark.parametrize("stage", ["language model", "action model", "visual encoder", "small LVLM"])
def test_every_stage_must_leave_the_held_out_subjects_out(stage):
    record = sft_record()
    check_held_out(record)
    training_stages(record)[stage]["hold_out"] = False
    with pytest.raises(ValueError, match=f"the {stage} was trained on the held-out subjects, or has no record"):
        check_held_out(record)
    check_held_out(record, unchecked=[name for name in training_stages(record) if name != stage])
    with pytest.raises(ValueError, match=stage):
        check_held_out(record, unchecked=[stage])


@pytest.mark.parametrize("stage", ["language model", "action model", "visual encoder", "small LVLM"])
def test_unseen_classes_are_seen_by_no_stage(stage):
    record = sft_record()
    record["sentences"]["training_classes"] = ["wave"]
    check_unseen(record, ["jump"])
    training_stages(record)[stage]["training_classes"] = ["jump", "wave"]
    with pytest.raises(ValueError, match=f"not unseen: the {stage} was trained on jump"):
        check_unseen(record, ["jump", "sit"])
    del training_stages(record)[stage]["training_classes"]
    with pytest.raises(ValueError, match=f"no record of the classes that its {stage} was trained on"):
        check_unseen(record, ["jump"])


def test_the_text_of_a_small_language_model_names_no_unseen_class():
    small_lm = {"stage": "small_lm", "classes_without_text": ["jump"]}
    for record in (None, {}, small_lm, {"stage": "pretrain_small_lvlm", "llm_training": small_lm}):
        check_unseen_text(record, ["jump"])
    with pytest.raises(ValueError, match=r"is about sit\. Train it on text without these classes"):
        check_unseen_text(small_lm, ["jump", "sit"])
    with pytest.raises(ValueError, match="is about jump"):
        check_unseen_text({"llm_training": {"stage": "small_lm"}}, ["jump"])


@pytest.mark.parametrize("spelling", ["jump up", "Jump  up", "jump-up", "jumpup ", "JUMP\u00a0UP"])
def test_names_of_unseen_classes_are_compared_without_case_spaces_and_punctuation(spelling):
    record = sft_record()
    record["sentences"]["training_classes"] = ["wave"]
    training_stages(record)["visual encoder"]["training_classes"] = [spelling, "wave"]
    with pytest.raises(ValueError, match="not unseen: the visual encoder was trained on jump up"):
        check_unseen(record, ["jump up"])
    check_unseen_text({"stage": "small_lm", "classes_without_text": [spelling]}, ["jump up"])
    assert letters_of("(?)") == "(?)", "a name without letters is compared as it is"


def test_text_without_the_names_alone_is_about_the_classes():
    """Earlier versions recorded the names that they left out, and kept the passages that say it in other words."""
    with pytest.raises(ValueError, match=r"is about jump\. Train it on text without these classes"):
        check_unseen_text({"stage": "small_lm", "left_out_classes": ["jump"]}, ["jump"])


def test_skeletons_of_a_video_protocol_are_of_the_same_protocol():
    record = sft_record()
    training_stages(record)["visual encoder"]["dataset"] = "ntu60-xsub-video-with-skeletons"
    check_dataset(record, "ntu60-xsub-video")
    check_dataset({}, "ntu60-xsub")
    with pytest.raises(ValueError, match="'ntu60-xsub-video', but the sentences are of 'ntu60-xview-video'"):
        check_dataset(record, "ntu60-xview-video")


def test_records_beside_models(tmp_path):
    assert llm_training(str(tmp_path)) is None and training_record(str(tmp_path)) == {}
    (tmp_path / "record.json").write_text('{"stage": "sft"}', encoding="utf-8")
    assert llm_training(str(tmp_path)) == training_record(str(tmp_path)) == {"stage": "sft"}
    (tmp_path / "record.json").write_text('{"stage": 3}', encoding="utf-8")
    for read in (llm_training, training_record):
        with pytest.raises(ModelFileError, match=r"record\.json.*field stage: expected a string, found 3"):
            read(str(tmp_path))


def test_records_of_models_on_the_hub(tmp_path, monkeypatch):
    """The small language model of a Hub repository counted as another language model, whose text nobody knows."""
    (tmp_path / "record.json").write_text('{"stage": "small_lm", "classes_without_text": ["jump"]}', encoding="utf-8")
    on_hub = {("me/small_lm", "abc"): str(tmp_path / "record.json")}
    monkeypatch.setattr(
        "transformers.utils.hub.cached_file",
        lambda model, file, revision=None, **settings: file == "record.json" and on_hub.get((model, revision)),
    )
    with pytest.raises(ValueError, match="is about sit"):
        check_unseen_text(llm_training("me/small_lm", "abc"), ["jump", "sit"])
    assert llm_training("others/model") is None and pretraining_record("others/model") == {}


def test_the_record_of_a_model_of_others_is_not_needed_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert llm_training("nobody/nothing-is-cached") is None


def test_a_missing_field_names_the_recipe_to_run(tmp_path):
    (tmp_path / "identity.json").write_text(json.dumps({"weights": "a"}), encoding="utf-8")
    assert read_written(tmp_path, "identity.json", "recipe.py", "weights") == {"weights": "a"}
    with pytest.raises(ValueError, match=r"field dataset: expected a value.*delete .*, and run recipe\.py again"):
        read_written(tmp_path, "identity.json", "recipe.py", "weights", "dataset")
    with pytest.raises(FileNotFoundError):
        read_written(tmp_path, "other.json", "recipe.py")
    path = tmp_path / "record.json"
    assert required(path, {"seconds": 1.5}, "seconds", int, float) == 1.5
    with pytest.raises(ModelFileError, match="field seconds: expected a value, which every finished run writes"):
        required(path, {}, "seconds", int, float)
    with pytest.raises(ModelFileError, match=r"field seconds: expected .*, found 'long'"):
        required(path, {"seconds": "long"}, "seconds", int, float)
