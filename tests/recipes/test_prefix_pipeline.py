"""P-Tuning v2 by the recipe: trained, stopped and resumed, on one process and on two; the language model stays as it is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from two_processes import recipe_on_two_ranks

from action_llm import ActionLLMForClassification

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def weights(folder):
    return ActionLLMForClassification.from_pretrained(folder).state_dict()


def assert_only_prompts_differ(model, llm):
    """Every weight of the language model is the one that it came with, to the bit."""
    loaded = ActionLLMForClassification.from_pretrained(model)
    own = AutoModelForCausalLM.from_pretrained(llm).state_dict()
    for name, value in loaded.as_generator().state_dict().items():
        twin = name.replace("model.language_model.", "model.", 1)
        if twin in own and "action" not in name:
            assert torch.equal(value, own[twin]), name
    return loaded


@pytest.mark.parametrize("checkpointing", [False, True])
def test_trained_evaluated_and_nothing_else_has_moved(recipes, tokenizer, sentences, llm, tmp_path, checkpointing):
    settings = {"method": "prefix", "prefix_length": 4, "prefix_layers": [0, 1]}
    training = {"activation_checkpointing": checkpointing, "learning_rate": 0.05}
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", training=training, **settings)
    loaded = assert_only_prompts_differ(model, llm)
    record = json.loads(Path(model, "record.json").read_text())
    prefix = loaded.model.prefix.weight
    assert record["settings"]["prefix_layers"] == [0, 1] and record["method"] == "prefix"
    assert record["cost"]["trainable_parameters"] == prefix.numel()
    assert prefix.std() > 0.03  # it was 0.02 before
    assert recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 12


def test_packed_training_is_that_of_rows(recipes, tokenizer, sentences, tmp_path):
    """Prompts are in no sequence, so packing moves nothing: all rows in one have the loss of all rows in a batch."""
    losses = []
    for packing in (False, True):
        training = {"max_steps": 1, "logging_steps": 1, "packing": packing, "per_device_train_batch_size": 1}
        training |= {"max_length": 8192} if packing else {"per_device_train_batch_size": 200}
        folder = tmp_path / str(packing)
        recipes.sft(tokenizer, sentences, folder, training=training, method="prefix", prefix_length=4)
        log = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
        losses.append(next(entry["loss"] for entry in log if "loss" in entry))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_stopped_run_is_resumed_exactly(recipes, tokenizer, sentences, tmp_path):
    settings = {"method": "prefix", "prefix_length": 4, "training": {"max_steps": 4, "save_steps": 2}}
    whole = recipes.sft(tokenizer, sentences, tmp_path / "whole", **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "model")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-4")
    (tmp_path / "stopped" / "record.json").unlink()
    resumed = recipes.sft(tokenizer, sentences, tmp_path / "stopped", **settings)
    one, other = weights(whole), weights(resumed)
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_two_processes_train_as_one(recipes, tokenizer, sentences, llm, tmp_path):
    """The same examples in the same steps, shared: the same prompts but for the order of sums."""
    common = {"gradient_accumulation_steps": 1, "max_steps": 2, "save_steps": 2, "learning_rate": 0.01}
    settings = {"method": "prefix", "prefix_length": 4}
    alone = recipes.sft(
        tokenizer, sentences, tmp_path / "one", training=common | {"per_device_train_batch_size": 4}, **settings
    )
    options = common | settings | {"per_device_train_batch_size": 2, "warmup_steps": 1, "logging_steps": 1}
    options |= {"tokenizer": tokenizer, "sentences": sentences, "llm_name_or_path": llm, "use_cpu": True}
    options |= {"output_dir": tmp_path / "two", "disable_tqdm": True, "lora_r": 4}
    given = [part for name, value in options.items() for part in (f"--{name}", value)]
    recipe_on_two_ranks(RECIPES / "sft.py", *given)
    one, other = weights(alone), weights(tmp_path / "two" / "model")
    torch.testing.assert_close(one["model.prefix.weight"], other["model.prefix.weight"], rtol=0.02, atol=2e-3)
