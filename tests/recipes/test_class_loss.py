"""Stage 2 with the objective `classes`: the loss is the cross-entropy over the class list."""

import json

import numpy as np
import pytest
import torch

from action_llm import ActionLLMForClassification, ActionLLMProcessor
from action_llm_recipes.common.action_sentences import load_action_sentences
from action_llm_recipes.stages.collators import ClassCollator


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("constrained_scoring", [False, True])
def test_the_loss_is_the_cross_entropy_over_the_class_list(
    recipes, tokenizer, sentences, constrained_scoring, tmp_path
):
    """With a tiny learning rate, the loss of an epoch of one step is that of the unchanged model."""
    rows = load_action_sentences(sentences)["train"]
    training = {"learning_rate": 1e-12, "max_steps": 1, "per_device_train_batch_size": len(rows)}
    folder = recipes.sft(
        tokenizer,
        sentences,
        tmp_path / "sft",
        training,
        objective="classes",
        label_smoothing=0.2,
        lora_dropout=0.0,
        constrained_scoring=constrained_scoring,
    )
    model = ActionLLMForClassification.from_pretrained(folder)
    processor = ActionLLMProcessor.from_pretrained(folder)
    expected = []
    for row in rows:  # each alone, by the reference, without padding
        with torch.no_grad():
            scores = model(**processor(action_ids=[row["action_ids"]]), method="cache").logits[0].double().numpy()
        assert (abs(np.exp(scores).sum() - 1) < 1e-5) == constrained_scoring
        log_posterior = scores - np.log(np.exp(scores).sum())
        expected.append(-0.8 * log_posterior[row["label"]] - 0.2 * log_posterior.mean())
    assert losses(tmp_path / "sft")[0] == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "full", "prefix", "prompt"])
def test_what_it_learns_is_saved(recipes, tokenizer, sentences, method, tmp_path):
    settings = {"prefix_length": 2, "prefix_layers": [0]} if method in ("prefix", "prompt") else {}
    rows = load_action_sentences(sentences)["train"]
    # All sentences in each step: its loss is that of the same sentences as the one before.
    training = {"max_steps": 8, "learning_rate": 1e-2, "per_device_train_batch_size": len(rows)}
    folder = recipes.sft(tokenizer, sentences, tmp_path, training, method=method, objective="classes", **settings)
    model, processor = ActionLLMForClassification.from_pretrained(folder), ActionLLMProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**processor(action_ids=rows["action_ids"]), labels=torch.tensor(rows["label"]))
    assert outputs.loss.item() < losses(tmp_path)[0] - 0.01


def test_continuous_latents(recipes, tmp_path):
    own = recipes.train_tokenizer(tmp_path / "tokenizer", quantize=False)
    sentences = recipes.encode(own, tmp_path / "sentences", latents=True)
    model = recipes.sft(own, sentences, tmp_path / "sft", objective="classes")
    metrics = recipes.evaluate(model, sentences, tmp_path / "evaluation")
    assert (metrics["recordings"], metrics["classes"]) == (12, 4)
    assert len(losses(tmp_path / "sft")) == 3 and np.isfinite(losses(tmp_path / "sft")).all()


def test_held_out_recordings_have_this_loss_too(recipes, tmp_path):
    own = recipes.train_tokenizer(tmp_path / "tokenizer", arguments={"hold_out": True})
    sentences = recipes.encode(own, tmp_path / "sentences")
    training = {"eval_strategy": "steps", "eval_steps": 1}
    recipes.sft(own, sentences, tmp_path / "sft", training, objective="classes", hold_out=True)
    rows = [json.loads(text) for text in (tmp_path / "sft" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row for row in rows if "eval_loss" in row]


def test_padding_is_before_the_prompt():
    batch = ClassCollator(pad_token_id=9, width=2)(
        [
            {"input_ids": [1, 2, 3], "labels": 1, "latents": [[0.5, 1]]},
            {"input_ids": [4], "labels": 0, "latents": [[1, 2], [3, 4]]},
        ]
    )
    assert batch["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["action_embeds"].shape == (2, 2, 2)
    assert batch["action_embeds_mask"].tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"objective": "classes", "training": {"packing": True, "max_length": 64}}, "packing"),
        ({"objective": "classes", "explanations": True}, "explanations"),
        ({"objective": "classes", "label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": 0.1}, "label_smoothing is defined over the class list"),
    ],
)
def test_settings_that_exclude_each_other(recipes, tokenizer, sentences, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        recipes.sft(tokenizer, sentences, tmp_path, **settings)
