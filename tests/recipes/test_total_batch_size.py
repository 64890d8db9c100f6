"""The warning where an optimiser step has another number of examples than the settings of a YAML file are for."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from action_llm_recipes.common import training_arguments
from action_llm_recipes.common.training_arguments import warn_of_other_batch_size

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"


def advice(*numbers) -> str | None:
    """What the warning says, or None."""
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_arguments.logger, "warning", lambda text, *values: said.append(text % values))
        warn_of_other_batch_size(*numbers)
    return said[0] if said else None


def test_the_right_batch_size_is_not_warned_about():
    assert advice(256, 4, 16, 4) is None
    assert advice(256, 256, 1, 1) is None


def test_the_warning_names_the_numbers_and_what_to_set():
    assert advice(256, 4, 16, 1) == (
        "An optimiser step has 4 x 16 x 1 = 64 examples (per_device_train_batch_size x gradient_accumulation_steps x number of "
        "devices), but the other settings are for 256 (total_batch_size): set --gradient_accumulation_steps 64."
    )
    assert advice(256, 256, 1, 4).endswith("set --gradient_accumulation_steps 1 and --per_device_train_batch_size 64.")
    assert advice(128, 8, 16, 3).endswith("use a number of devices that divides 128.")


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), st.integers(1, 12))
def test_the_advice_gives_the_batch_size(expected, per_device, accumulation, devices):
    said = advice(expected, per_device, accumulation, devices)
    if said is None:
        assert per_device * accumulation * devices == expected
    elif "--gradient_accumulation_steps" not in said:
        assert expected % devices
    else:
        accumulation = int(re.search(r"--gradient_accumulation_steps (\d+)", said)[1])
        size = re.search(r"--per_device_train_batch_size (\d+)", said)
        assert (size is None or int(size[1]) < per_device) and accumulation >= 1
        assert (per_device if size is None else int(size[1])) * accumulation * devices == expected


def test_trainers_warn(caplog, tmp_path):
    from action_llm_recipes.sft import ActionSFTConfig
    from action_llm_recipes.train_tokenizer import TokenizerTrainingArguments

    common = {"output_dir": str(tmp_path), "use_cpu": True, "per_device_train_batch_size": 4}
    for arguments in (ActionSFTConfig, TokenizerTrainingArguments):
        caplog.clear()
        arguments(**common, gradient_accumulation_steps=2)
        arguments(**common, gradient_accumulation_steps=2, total_batch_size=8)
        assert not caplog.records
        arguments(**common, gradient_accumulation_steps=2, total_batch_size=16)
        assert "set --gradient_accumulation_steps 4." in caplog.text
        with pytest.raises(ValueError, match="--total_batch_size must be at least 1, got 0"):
            arguments(**common, total_batch_size=0)


def test_yaml_files_with_the_papers_settings_have_the_papers_batch_size():
    """LLM-AR, section 4.2; LVLM-VAR, section 4.1; VT-LVLM-AR, section IV.A."""
    papers = {"llm_ar": ("ntu60_", 256), "lvlm_var": ("", 256), "vt_lvlm_ar": ("", 128)}
    for paper, (prefix, batch_size) in papers.items():
        names = [f"{prefix}{stage}" for stage in ("tokenizer", "sft", "sft_full")]
        names += ["ntu60_sft_qlora_24gb"] if paper == "llm_ar" else []
        for name in names:
            config = yaml.safe_load((CONFIGS / paper / f"{name}.yaml").read_text())
            assert config["total_batch_size"] == batch_size, (paper, name)
            on_one_device = config["per_device_train_batch_size"] * config.get("gradient_accumulation_steps", 1)
            assert batch_size % on_one_device == 0, (paper, name)
