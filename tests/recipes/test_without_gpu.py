"""Settings for a GPU on a machine without one: the run goes on, and a warning says what was changed."""

import json
from pathlib import Path

import pytest
import without_gpu
from sft import ActionSFTConfig
from train_tokenizer import TokenizerTrainingArguments


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(without_gpu, "has_gpu", lambda: False)


@pytest.mark.parametrize("arguments", [ActionSFTConfig, TokenizerTrainingArguments])
def test_precision_and_optimiser_become_those_of_a_cpu(arguments, tmp_path, caplog):
    made = arguments(output_dir=str(tmp_path), bf16=True, tf32=True, optim="paged_adamw_8bit")
    assert (made.bf16, made.tf32, made.optim.value) == (False, None, "adamw_torch")
    assert caplog.messages == [
        "no GPU: the settings are changed to what a CPU can (bf16 is off, tf32 is off, optim is adamw_torch, not "
        "paged_adamw_8bit; --use_cpu true keeps bf16)"
    ]


def test_bf16_stays_where_a_cpu_was_asked_for(tmp_path, caplog):
    made = ActionSFTConfig(output_dir=str(tmp_path), bf16=True, use_cpu=True)
    assert made.bf16 and not caplog.messages


def test_settings_of_a_cpu_stay(tmp_path, caplog):
    made = ActionSFTConfig(output_dir=str(tmp_path))
    assert not made.bf16 and not caplog.messages


def test_qlora_becomes_lora(line, tokenizer, sentences, tmp_path, caplog):
    model = line.sft(tokenizer, sentences, tmp_path, method="qlora", attn_implementation="flash_attention_2")
    record = json.loads(Path(model, "record.json").read_text())
    assert record["method"] == "lora"
    (warning,) = [message for message in caplog.messages if message.startswith("no GPU")]
    assert "method is lora, not qlora, attn_implementation is sdpa, not flash_attention_2" in warning
    assert "needs the memory of all its weights" in warning
