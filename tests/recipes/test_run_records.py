"""Damaged records of runs end in an error that names the file and the field."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from action_llm.model_files import ModelFileError
from action_llm_recipes.common import records, written_folders
from action_llm_recipes.common.run_folder import RunFolder
from action_llm_recipes.hub import demo, model_page

RECORD = {
    "stage": "sft",
    "method": "lora",
    "examples": 3,
    "sentences": {"dataset": "ntu60-xsub", "tokenizer": {"seed": 0}},
}

WRONG = [
    ("[]", "expected a JSON object, found a JSON list"),
    ('"text"', "expected a JSON object, found a JSON str"),
    ("not JSON", "expected JSON"),
    ('{"a":' * 5000 + "1" + "}" * 5000, "RecursionError"),
    ("\udcff", "UnicodeDecodeError"),
    (json.dumps(RECORD | {"sentences": []}), r"field sentences: expected an object, found \[\]"),
    (json.dumps(RECORD | {"sentences": {"dataset": 3}}), "field sentences.dataset: expected a string, found 3"),
    (
        json.dumps(RECORD | {"sentences": {"tokenizer": {"seed": "0"}}}),
        "field sentences.tokenizer.seed: expected a number",
    ),
    (json.dumps(RECORD | {"settings": "all"}), "field settings: expected an object"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_damaged_record_is_an_error(content, message, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    for read in (
        lambda: records.read_record(path),
        lambda: model_page.read_run(tmp_path),
    ):
        with pytest.raises(ModelFileError, match=f"record.json.*{message}"):
            read()


def test_a_demo_refuses_a_damaged_record(tmp_path):
    (tmp_path / "record.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelFileError, match="expected a JSON object"):
        demo.describe_training(str(tmp_path))
    (tmp_path / "record.json").write_text(json.dumps(RECORD), encoding="utf-8")
    assert demo.describe_training(str(tmp_path)) == "It was trained on `ntu60-xsub`."


@pytest.mark.parametrize("field", ["method", "examples"])
def test_a_page_needs_its_fields(field, tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(RECORD | {field: None}), encoding="utf-8")
    with pytest.raises(ModelFileError, match=f"field {field}: expected a value, which every finished run writes"):
        model_page.read_run(tmp_path)


def test_a_run_of_an_older_version_is_resumed_with_former_names_of_settings(tmp_path):
    @dataclass
    class Renamed:
        constrained: bool = field(default=False, metadata={"formerly": "restricted"})

    (tmp_path / "config.yaml").write_text("restricted: true\n", encoding="utf-8")
    (tmp_path / "record.json").write_text(json.dumps(RECORD), encoding="utf-8")
    with pytest.raises(ValueError, match=r"other settings \(constrained: True, now False\)"):
        RunFolder(tmp_path).save_config(Renamed())
    RunFolder(tmp_path).save_config(Renamed(constrained=True))
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "constrained: true\n"


def test_a_finished_run_does_not_begin_again(tmp_path):
    training = SimpleNamespace(process_index=0, output_dir=str(tmp_path), dataloader_pin_memory=True)
    run = RunFolder(tmp_path)
    assert run.begin_training(training, {"recordings": "1"})
    assert training.output_dir == str(tmp_path / "checkpoints")
    (tmp_path / "record.json").write_text(json.dumps(RECORD), encoding="utf-8")
    assert not run.begin_training(training, {"recordings": "1"})
    with pytest.raises(ValueError, match="made with other recordings"):
        run.begin_training(training, {"recordings": "2"})


def test_a_page_needs_the_fields_of_an_evaluation(tmp_path):
    metrics = {"dataset": "ntu60-xsub", "split": "test", "recordings": 2, "calibration_error": 0.1, "top_1": []}
    record = {"stage": "evaluate_classifier", "model": RECORD, "metrics": metrics}
    (tmp_path / "record.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"field metrics.top_1: expected an object, found \[\]"):
        model_page.read_evaluation(tmp_path)


def test_the_config_of_a_recogniser_is_an_object(tmp_path):
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"config.json: expected a JSON object"):
        written_folders.check_recogniser(str(tmp_path))
