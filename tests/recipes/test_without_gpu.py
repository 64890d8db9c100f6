"""Settings for a GPU on a machine without a GPU: the run continues, and a warning lists the changes."""

import json
from pathlib import Path

import pytest

from action_llm_recipes.common import without_gpu
from action_llm_recipes.sft import ActionSFTConfig
from action_llm_recipes.train_tokenizer import TokenizerTrainingArguments


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(without_gpu, "has_gpu", lambda: False)


@pytest.mark.parametrize("arguments", [ActionSFTConfig, TokenizerTrainingArguments])
def test_precision_and_optimiser_become_those_of_a_cpu(arguments, tmp_path, caplog):
    made = arguments(output_dir=str(tmp_path), bf16=True, tf32=True, optim="paged_adamw_8bit")
    assert (made.bf16, made.tf32, made.optim.value) == (False, None, "adamw_torch")
    assert caplog.messages == [
        "no GPU: settings were changed to what a CPU supports (bf16 is off, tf32 is off, optim is adamw_torch, not "
        "paged_adamw_8bit; --use_cpu true keeps bf16)"
    ]


def test_use_cpu_keeps_bf16(tmp_path, caplog):
    made = ActionSFTConfig(output_dir=str(tmp_path), bf16=True, use_cpu=True)
    assert made.bf16 and not caplog.messages


def test_settings_of_a_cpu_stay(tmp_path, caplog):
    made = ActionSFTConfig(output_dir=str(tmp_path))
    assert not made.bf16 and not caplog.messages


def test_the_file_for_one_gpu_trains_on_a_cpu(recipes, tokenizer, sentences, tmp_path, caplog):
    """QLoRA in bfloat16 with FlashAttention. The commit of LLaMA in the file is not used for another language model."""
    from action_llm_recipes import sft
    from action_llm_recipes.common.launching import parse

    config = Path(sft.__file__).parent / "configs" / "llm_ar" / "ntu60_sft_qlora_24gb.yaml"
    command = (
        f"--config {config} --tokenizer {tokenizer} --sentences {sentences} --llm_name_or_path {recipes.llm}".split()
    )
    command += f"--output_dir {tmp_path} --max_steps 2 --gradient_accumulation_steps 1 --lora_r 2".split()
    arguments, training = parse(
        (sft.ActionSFTArguments, ActionSFTConfig), [*command, "--attn_implementation", "flash_attention_2"]
    )
    assert (arguments.llm_revision, training.bf16) == (None, False)
    sft.main(arguments, training)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["method"] == "lora" and record["settings"]["steps"] == 2
    warnings = [message for message in caplog.messages if message.startswith("no GPU")]
    assert len(warnings) == 2
    assert "(bf16 is off; --use_cpu true keeps bf16)" in warnings[0]
    assert "method is lora, not qlora, attn_implementation is sdpa, not flash_attention_2" in warnings[1]
    assert "the language model needs more memory" in warnings[1]
