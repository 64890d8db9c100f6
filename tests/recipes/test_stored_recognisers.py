"""Folders that were pushed before the recipes became a package still load, with the same answers, record and page.

`stored/` holds what `push.py` of 0.2.0 made of tiny runs of the three papers, without the code.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from action_llm.pipeline_action_recognition import ActionRecognitionPipeline
from action_llm_recipes.common.records import read_record
from action_llm_recipes.common.stage_records import differ_by_seed_alone, training_record, training_stages
from action_llm_recipes.hub.model_page import known_stages, model_page, read_run

STORED = Path(__file__).parent / "stored"
STAGES = {
    "llm_ar": ["train_tokenizer", "encode_actions", "sft"],
    "lvlm_var": ["extract_features", "train_tokenizer", "encode_actions", "sft"],
    "vt_lvlm_ar": ["extract_features", "pretrain_small_lvlm", "train_tokenizer", "encode_actions", "sft"],
}


def skeleton() -> np.ndarray:
    """(20, 25, 3) in metres: a person who sways and lifts a hand. No random numbers, which may change between versions."""
    time, joints = np.arange(20)[:, None] / 30, np.arange(25)[None, :]
    x = 0.1 * (joints % 5) - 0.2 + 0.05 * np.sin(3 * time)
    y = 0.07 * joints - 0.8 + 0.3 * time * (joints == 11)
    z = 3.0 + 0.02 * (joints % 3) + 0.1 * time
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)


def video() -> np.ndarray:
    """(20, 32, 32, 3): a light square that moves right."""
    frames = np.full((20, 32, 32, 3), 30, np.uint8)
    for time in range(20):
        frames[time, 4:12, time : time + 8] = 220
    return frames


@pytest.mark.parametrize("name", STAGES)
def test_a_stored_recogniser_gives_the_same_answers(name):
    folder = STORED / name
    expected = json.loads((folder / "expected.json").read_text())
    model = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    inputs = processor(recordings=[skeleton()]) if name == "llm_ar" else processor(recordings=[video()], fps=20)
    assert model.config.constrained_scoring == (name == "llm_ar")  # the stored configurations have its former name
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs.action_ids[0].tolist() == expected["action_ids"]
    np.testing.assert_allclose(outputs.logits[0], expected["log_probabilities"], rtol=1e-4, atol=1e-4)
    recognise = ActionRecognitionPipeline(model=model, processor=processor)
    (answer, *_) = recognise(skeleton()) if name == "llm_ar" else recognise(video(), fps=20)
    assert answer["label"] == expected["class_names"][int(np.argmax(expected["log_probabilities"]))]


@pytest.mark.parametrize("name", STAGES)
def test_a_stored_record_is_read_and_its_page_written(name):
    record = read_run(STORED / name)
    assert [stage["stage"] for stage in known_stages(record)] == STAGES[name]
    assert list(training_stages(training_record(str(STORED / name))))[-2:] == ["action model", "language model"]
    page = model_page(STORED / name, "me/tiny", [])
    assert "model_name: tiny" in page and "me/tiny" in page


def test_settings_of_older_records_have_their_current_names(tmp_path):
    old = json.loads((STORED / "llm_ar" / "record.json").read_text())
    new = json.loads(json.dumps(old).replace('"restrict_names"', '"constrained_scoring"')) | {"seed": 1}
    for name, record in (("old", old), ("new", new), ("nested", {"stage": "timeline", "model": old})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(record))
    record = read_record(tmp_path / "old" / "record.json")
    assert list(record["settings"]) == list(new["settings"])  # in the same order
    assert differ_by_seed_alone(record, read_record(tmp_path / "new" / "record.json"))
    assert read_record(tmp_path / "nested" / "record.json")["model"] == record
    page = model_page(STORED / "llm_ar", "me/tiny", [])
    assert "constrained_scoring True" in page and "restrict_names" not in page


def test_the_page_of_a_model_that_several_processes_trained_has_no_peak_memory(tmp_path):
    folder = shutil.copytree(STORED / "llm_ar", tmp_path / "model")
    record = json.loads((folder / "record.json").read_text())
    assert "Peak memory" in model_page(folder, "me/tiny", [])
    for name in ("seconds_per_step", "hours", "peak_memory_gb"):  # measured with a single process
        record["cost"].pop(name, None)
    (folder / "record.json").write_text(json.dumps(record))
    page = model_page(folder, "me/tiny", [])
    assert "and what was added to it." in page and "Peak memory" not in page
