"""A tiny checkpoint of an earlier version still loads, and still says what it said.

`python tests/modeling/test_stored_action_llm.py` writes it anew, after a change that is meant to change it.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

STORED = Path(__file__).parent / "stored" / "action_llm"


def recording() -> np.ndarray:
    """(20, 25, 3) metres: somebody who sways and lifts a hand; no random numbers, which may change between versions."""
    time = np.arange(20)[:, None] / 30
    joints = np.arange(25)[None, :]
    x = 0.1 * (joints % 5) - 0.2 + 0.05 * np.sin(3 * time)
    y = 0.07 * joints - 0.8 + 0.3 * time * (joints == 11)
    z = 3.0 + 0.02 * (joints % 3) + 0.1 * time
    return np.stack(np.broadcast_arrays(x, y, z), axis=-1).astype(np.float32)


def outputs():
    from action_llm import ActionLLMForClassification, ActionLLMProcessor

    model = ActionLLMForClassification.from_pretrained(STORED)
    processor = ActionLLMProcessor.from_pretrained(STORED)
    inputs = processor(recordings=[recording()])
    with torch.no_grad():
        output = model(**inputs)
    return {
        "features": inputs["input_features"][0, ::5, ::10].flatten().tolist(),
        "prompt_ids": inputs["input_ids"][0].tolist(),
        "label_ids": inputs["label_ids"].tolist(),
        "action_ids": output.action_ids[0].tolist(),
        "end_times": output.end_times[0].tolist(),
        "logits": output.logits[0].tolist(),
    }


def test_stored_checkpoint_says_what_it_said():
    expected = json.loads((STORED / "expected.json").read_text())
    found = outputs()
    assert found.keys() == expected.keys()
    for name in ("prompt_ids", "label_ids", "action_ids"):
        assert found[name] == expected[name], name
    for name in ("features", "end_times", "logits"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


def write():
    from peft import LoraConfig, get_peft_model
    from tiny_models import CLASS_NAMES, tiny_action_model, tiny_llm, tiny_processor

    from action_llm import ActionLLMForClassification

    processor = tiny_processor()
    model = ActionLLMForClassification.from_llm(
        tiny_llm("llama-gqa-tied"),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(),
        class_names=CLASS_NAMES,
    )
    adapter = LoraConfig(r=2, target_modules=r".*language_model\..*\.(q_proj|v_proj)", init_lora_weights=False)
    get_peft_model(model, adapter)
    shutil.rmtree(STORED, ignore_errors=True)
    model.save_pretrained(STORED)
    processor.save_pretrained(STORED)
    for code in STORED.glob("*.py"):
        code.unlink()
    (STORED / "expected.json").write_text(json.dumps(outputs(), indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    write()
