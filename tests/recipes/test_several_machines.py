"""Training over machines by accelerate's launcher, and with weights that FSDP shards."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import recipe_on_two_machines, recipe_on_two_ranks

from action_llm import ActionLLMForClassification

TESTS = Path(__file__).resolve().parents[1]
RECIPES = TESTS.parent / "recipes"
# Four steps of eight examples, with checkpoints at the second and the fourth.
TRAINING = {
    "max_steps": 4,
    "save_steps": 2,
    "logging_steps": 2,
    "warmup_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}


def options(settings: dict) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def weights(run) -> dict[str, torch.Tensor]:
    return {k: v for path in sorted(Path(run, "model").rglob("*.safetensors")) for k, v in load_file(path).items()}


def as_if_killed_after_the_second_step(run):
    """The folder of a finished run, as a kill leaves it; without a whole checkpoint it would not be resumed."""
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    (run / "record.json").unlink()


def distributed_type(run) -> str:
    return json.loads((run / "record.json").read_text())["cost"]["distributed_type"]


@pytest.mark.slow
def test_two_machines_train_stage_1_as_one_process(recipes, tmp_path):
    """Without the priors, for which each process draws its own noise."""
    model = {"hidden_width": 16, "codebook_size": 16, "human_weight": 0.0}
    alone = {"per_device_train_batch_size": 8, "learning_rate": 1e-3}
    recipes.train_tokenizer(tmp_path / "one", training=TRAINING | alone, kmeans_init=False, **model)
    data = {"dataset": "simulated-xsub", "data_dir": recipes.recordings, "cache_dir": recipes.cache}
    settings = TRAINING | model | data | {"llm_name_or_path": recipes.llm, "window": 32, "learning_rate": 1e-3}
    settings |= {"per_device_train_batch_size": 4, "output_dir": tmp_path / "two"}
    recipe_on_two_machines(RECIPES / "train_tokenizer.py", *options(settings))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert distributed_type(tmp_path / "one") == "NO" and distributed_type(tmp_path / "two") == "MULTI_CPU"
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_sharded_weights_are_trained_saved_and_resumed(recipes, tokenizer, sentences, tmp_path):
    """Accelerate's FSDP on two CPU processes: the weights of one process, in a model that loads, and the same when resumed."""
    settings = {"learning_rate": 1e-3, "lora_r": 4, "lora_dropout": 0.0}
    common = TRAINING | {"gradient_accumulation_steps": 1}
    recipes.sft(
        tokenizer, sentences, tmp_path / "one", lora_dropout=0.0,
        training=common | {"learning_rate": 1e-3, "per_device_train_batch_size": 8},
    )  # fmt: skip
    settings |= common | {"tokenizer": tokenizer, "sentences": sentences, "llm_name_or_path": recipes.llm}
    settings |= {"per_device_train_batch_size": 4, "output_dir": tmp_path / "two"}
    recipe_on_two_ranks(TESTS / "fsdp_on_cpu.py", RECIPES / "sft.py", *options(settings))
    assert distributed_type(tmp_path / "two") == "FSDP"
    assert (tmp_path / "two" / "checkpoints" / "checkpoint-2" / "optimizer.bin").is_file()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
    ActionLLMForClassification.from_pretrained(tmp_path / "two" / "model")
    as_if_killed_after_the_second_step(tmp_path / "two")
    said, _ = recipe_on_two_ranks(TESTS / "fsdp_on_cpu.py", RECIPES / "sft.py", *options(settings))
    assert "Resuming from step 2 of 4" in said
    resumed = weights(tmp_path / "two")
    assert all(torch.allclose(resumed[name], two[name], rtol=1e-5, atol=1e-6) for name in two)
