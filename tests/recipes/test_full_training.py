"""Training all weights: settings of its own, and warnings about those of LoRA and prompts."""

from pathlib import Path

import pytest
import torch
import yaml

from action_llm_recipes.stages import trained_weights
from action_llm_recipes.stages.trained_weights import warn_of_full_training

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"
PAIRS = {
    "llm_ar/ntu60_sft": 4,
    "lvlm_var/sft": 1,
    "vt_lvlm_ar/sft": 1,
}  # number of GPUs of the file for LoRA or prompts


@pytest.mark.parametrize("name", PAIRS)
def test_the_row_differs_only_in_what_is_trained_and_how_fast(name, caplog):
    tuned, full = (yaml.safe_load((CONFIGS / f"{name}{end}.yaml").read_text()) for end in ("", "_full"))
    differing = {key for key in tuned | full if tuned.get(key) != full.get(key)}
    adapters = {key for key in differing if key.startswith(("lora_", "prefix_"))}
    assert differing - adapters <= {"method", "learning_rate", "dtype", "gradient_accumulation_steps"}
    assert not adapters & set(full)
    assert tuned["gradient_accumulation_steps"] * PAIRS[name] == full["gradient_accumulation_steps"] * 4
    warn_of_full_training(13_000_000_000, full["learning_rate"], getattr(torch, full["dtype"]))
    assert not caplog.records
    warn_of_full_training(13_000_000_000, tuned["learning_rate"], getattr(torch, tuned["dtype"]))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_large_models_at_high_rates_are_warned_about(caplog):
    for parameters, rate in ((7_000_000_000, 1e-4), (900_000_000, 3e-3)):
        warn_of_full_training(parameters, rate, torch.float32)
    assert not caplog.records
    warn_of_full_training(6_740_000_000, 2e-3, torch.float32)
    assert "learning_rate 0.002" in caplog.text and "6.7 billion" in caplog.text and "2e-5" in caplog.text


def test_bfloat16_rounds_most_updates_of_full_training_away():
    weights = torch.empty(10_000).normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        parameter = torch.nn.Parameter(weights.to(dtype))
        before = parameter.detach().clone()
        parameter.grad = torch.ones_like(parameter)
        torch.optim.AdamW([parameter], lr=2e-5, weight_decay=0).step()
        moved[dtype] = (parameter != before).float().mean()
    assert moved[torch.float32] == 1 and moved[torch.bfloat16] < 0.5


def test_sft_warns(recipes, tokenizer, sentences, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trained_weights, "LARGE_MODEL", 1000)
    for method, warned in (("lora", False), ("full", True)):
        caplog.clear()
        training = {"learning_rate": 3e-3, "max_steps": 1}
        recipes.sft(tokenizer, sentences, tmp_path / method, training=training, method=method)
        assert ("learning_rate 0.003 is for LoRA or prompts" in caplog.text) == warned
