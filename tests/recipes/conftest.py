"""A tiny simulated data set and a tiny language model that all recipe tests share."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import BACKBONES, save_backbone, tiny_tokenizer
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig

from action_llm_datasets.rendering import write_video
from action_llm_recipes.metrics import plots

ACTIONS = [22, 23, 27, 58]
PERFORMERS = 5  # of NTU-60's subjects, 1, 2, 4 and 5 (held out) train and 3 tests


write = plots._write


def write_blank(figure, path: Path):
    """Stands in for the writing of a figure, which takes two thirds of the time of a tiny evaluation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (1, 1)).save(path, "png")


@pytest.fixture(scope="session", autouse=True)
def figures_are_not_rendered():
    """Figures are composed, and blank pictures are written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_write", write_blank)
        yield


@pytest.fixture
def rendered(monkeypatch):
    """For tests that look at the pictures of figures."""
    monkeypatch.setattr(plots, "_write", write)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Folder of simulated `.skeleton` files: 5 people, 4 actions (one of two people), 3 cameras."""
    from action_llm_datasets.simulation.simulate import simulate

    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, performers=PERFORMERS, replications=1, actions=ACTIONS, num_proc=1)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def llm(tmp_path_factory):
    """Folder of a Llama with random weights."""
    folder = str(tmp_path_factory.mktemp("llm"))
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


class Recipes:
    """The recipes of LLM-AR with tiny settings, in this process."""

    def __init__(self, recordings, cache, llm):
        self.recordings, self.cache, self.llm = str(recordings), cache, llm

    def data(self, dataset="simulated-xsub", **kwargs):
        from action_llm_recipes.common.data_arguments import DataArguments

        return DataArguments(dataset=dataset, data_dir=self.recordings, cache_dir=self.cache, **kwargs)

    def train_tokenizer(self, folder, dataset="simulated-xsub", training=None, arguments=None, skeleton=None, **model):
        from action_llm_recipes import train_tokenizer as recipe
        from action_llm_recipes.stages import skeleton_stage

        settings = {"max_steps": 4, "per_device_train_batch_size": 8, "warmup_steps": 1, "learning_rate": 1e-3}
        settings |= {"logging_steps": 2, "save_steps": 2, "disable_tqdm": True, "use_cpu": True}
        recipe.main(
            recipe.TokenizerArguments(**{"llm_name_or_path": self.llm, "window": 32} | (arguments or {})),
            self.data(dataset),
            skeleton_stage.ActionVQVAEArguments(
                **{"hidden_width": 16, "codebook_size": 16, "kmeans_init": True} | model
            ),
            skeleton_stage.SkeletonArguments(**(skeleton or {})),
            recipe.TokenizerTrainingArguments(**{"output_dir": str(folder)} | settings | (training or {})),
        )
        return f"{folder}/model"

    def encode(self, tokenizer, folder, dataset="simulated-xsub", **arguments):
        from action_llm_recipes import encode_actions as recipe

        recipe.main(
            recipe.EncodingArguments(tokenizer=tokenizer, output_dir=str(folder), **arguments), self.data(dataset)
        )
        return str(folder)

    def sft(self, tokenizer, sentences, folder, training=None, **arguments):
        from action_llm_recipes import sft as recipe

        settings = {"max_steps": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
        settings |= {"warmup_steps": 1, "logging_steps": 1, "save_steps": 2, "disable_tqdm": True, "use_cpu": True}
        recipe.main(
            recipe.ActionSFTArguments(
                **{"tokenizer": tokenizer, "sentences": sentences, "llm_name_or_path": self.llm, "lora_r": 4}
                | arguments
            ),
            recipe.ActionSFTConfig(**{"output_dir": str(folder)} | settings | (training or {})),
        )
        return f"{folder}/model"

    def evaluate(self, model, sentences, folder, **arguments):
        from action_llm_recipes import evaluate_classifier as recipe

        return recipe.main(
            recipe.EvaluationArguments(
                **{"model": model, "sentences": sentences, "output_dir": str(folder), "resamples": 50} | arguments
            )
        )

    def explain(self, model, sentences, folder, data=None, **arguments):
        from action_llm_recipes import explain_actions as recipe

        settings = {"model": model, "sentences": sentences, "output_dir": str(folder), "count": 3} | arguments
        return recipe.main(recipe.ExplanationArguments(**settings), data or self.data())


@pytest.fixture(scope="session")
def recipes(recordings, cache, llm):
    return Recipes(recordings, cache, llm)


@pytest.fixture(scope="session")
def tokenizer(recipes, tmp_path_factory):
    """A trained (four steps) action model."""
    return recipes.train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def sentences(recipes, tokenizer, tmp_path_factory):
    """What it writes: each training recording twice."""
    folder = recipes.encode(tokenizer, tmp_path_factory.mktemp("sentences"), encodings=2)
    record = json.loads((Path(folder) / "record.json").read_text())
    assert record["splits"]["test"]["codes_used"] > 4, "sentences of one word would hide mistakes"
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Twelve videos of a light square that goes right or down; two of the ten for training are held out, one is broken."""
    folder = tmp_path_factory.mktemp("videos")
    lines = ["file_name,label,split"]
    for number in range(12):
        name, label = f"clip{number:02d}.mp4", ("right", "down")[number % 2]
        frames = np.full((20, 32, 32, 3), 30, np.uint8)
        for time in range(20):
            place = (8 + number // 2, time) if label == "right" else (time, 8 + number // 2)
            frames[time, place[0] : place[0] + 8, place[1] : place[1] + 8] = 220
        write_video(folder / name, [frames], 20)
        lines.append(f"{name},{label},{'test' if number >= 10 else 'validation' if number >= 8 else 'train'}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    save_backbone(AutoModel.from_config(BACKBONES["resnet"]()), folder)
    return str(folder)
