"""What stage 1 remembers of its recordings, so that an answer about something else can carry a warning."""

import numpy as np
import pytest
import torch
from tiny_features import extract
from tiny_models import BACKBONES
from transformers import AutoFeatureExtractor, AutoModel

from action_llm import ActionLLMForClassification
from action_llm_recipes.common.action_features import load_features


def distance(model, **inputs) -> float:
    """Of one recording, written out."""
    with torch.no_grad():
        sentence = model.encode(**inputs)
    latents, codes = (
        values[0][sentence.attention_mask[0].bool()] for values in (sentence.latents, sentence.action_embeds)
    )
    return float(((latents - codes).norm(dim=1) / latents.norm(dim=1)).mean())


def of_skeletons(tokenizer, rows) -> list[float]:
    model, extractor = AutoModel.from_pretrained(tokenizer).eval(), AutoFeatureExtractor.from_pretrained(tokenizer)
    return [distance(model, **extractor(row)) for row in rows.with_format("numpy")]


@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_an_action_model_knows_how_far_99_percent_of_its_recordings_are_from_their_tokens(
    recipes, num_codebooks, tmp_path
):
    rows = recipes.data().load()["train"]
    for hold_out in (False, True):
        tokenizer = recipes.train_tokenizer(
            tmp_path / f"tokenizer{hold_out}", arguments={"hold_out": hold_out}, num_codebooks=num_codebooks,
        )  # fmt: skip
        evaluated = rows.filter(lambda held: held, input_columns="held_out") if hold_out else rows
        distances = of_skeletons(tokenizer, evaluated)
        limit = AutoModel.from_pretrained(tokenizer).config.familiar_distance
        assert limit == pytest.approx(np.quantile(distances, 0.99), rel=1e-4)
        assert 0 < sum(one > limit + 1e-6 for one in distances) <= max(1, 0.01 * len(distances))


def test_it_goes_with_the_recogniser_and_latents_have_none(recipes, tokenizer, sentences, tmp_path):
    limit = AutoModel.from_pretrained(tokenizer).config.familiar_distance
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    assert ActionLLMForClassification.from_pretrained(model).config.action_config.familiar_distance == limit > 0
    one_step = {"max_steps": 1, "save_steps": 1}
    without = recipes.train_tokenizer(tmp_path / "latents", training=one_step, quantize=False, kmeans_init=False)
    assert AutoModel.from_pretrained(without).config.familiar_distance is None


def test_models_of_videos_know_it_too(videos, backbone, llm, tmp_path):
    from action_llm_recipes import train_tokenizer as recipe
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.stages.video_stage import VSTArguments

    features = extract(videos, backbone, tmp_path / "features", tmp_path / "cache")
    training = recipe.TokenizerTrainingArguments(
        output_dir=str(tmp_path / "vst"), max_steps=2, per_device_train_batch_size=4, warmup_steps=1, use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "codebook_size": 16}
    recipe.main(
        recipe.TokenizerArguments(llm_name_or_path=llm, action_model="vst"),
        DataArguments(dataset="features", data_dir=features), VSTArguments(**small), training,
    )  # fmt: skip
    model = AutoModel.from_pretrained(tmp_path / "vst" / "model").eval()
    rows = [row for row in load_features(features)["train"] if row["version"] == 0]
    distances = [distance(model, input_features=torch.tensor(row["features"]).view(1, *row["shape"])) for row in rows]
    assert model.config.familiar_distance == pytest.approx(np.quantile(distances, 0.99), rel=1e-3)
    assert model.config.backbone_config.model_type == BACKBONES["resnet"]().model_type
    # Nobody but their owner could read the files of a run, features' backbone and checkpoints included.
    for folder in (tmp_path / "features", tmp_path / "vst"):
        weights = list(folder.rglob("*.safetensors"))
        assert weights and {one.stat().st_mode & 0o777 for one in weights} == {
            (folder / "record.json").stat().st_mode & 0o777
        }
