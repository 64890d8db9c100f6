"""The recipes of LLM-AR end to end at tiny sizes: every ablation in its tables trains, and has its effect."""

import contextlib
import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from two_processes import recipe_on_two_ranks

from action_llm import ActionLLMForClassification, ActionLLMProcessor, ActionVQVAEModel, SkeletonFeatureExtractor
from action_llm_recipes.baselines import run_baselines
from action_llm_recipes.common.action_sentences import first_encodings, load_action_sentences, select_split
from action_llm_recipes.stages.prompts import list_of_classes

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def metrics_of(folder):
    return [json.loads(text) for text in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def test_sentences_are_what_the_model_says_of_each_recording(recipes, tokenizer, sentences):
    splits = load_action_sentences(sentences)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2 * 48, "test": 12}
    recording = recipes.data().load()["test"][5]
    model = ActionVQVAEModel.from_pretrained(tokenizer)

    features = SkeletonFeatureExtractor.from_pretrained(tokenizer)(recording)
    output, begin = model.encode(**features), float(features["start_time"])
    row = splits["test"][5]
    assert row["sample_id"] == recording["sample_id"]
    assert row["action_ids"] == output.action_ids[0].tolist()
    places = np.arange(len(row["action_ids"]))
    np.testing.assert_allclose(row["start_times"], begin + places * 4 / 30, rtol=1e-5)
    np.testing.assert_allclose(row["end_times"], begin + (places + 1) * 4 / 30, rtol=1e-5)
    first, second = splits["train"][0], splits["train"][1]
    assert first["sample_id"] == second["sample_id"] and (first["encoding"], second["encoding"]) == (0, 1)


def test_context_of_the_training_recordings_is_in_the_record_beside_chance(tokenizer, sentences):
    metrics = json.loads((Path(tokenizer).parent / "record.json").read_text())["metrics"]
    partners, num_tokens = 0, 0
    for row in first_encodings(load_action_sentences(sentences)["train"]):
        counts = Counter(row["action_ids"])
        partners += sum(min(number, counts[(token + 8) % 16]) for token, number in counts.items())
        num_tokens += len(row["action_ids"])
    assert metrics["context_loss"] == pytest.approx(1 - partners / num_tokens, abs=1e-6)
    assert 0 < metrics["context_loss_random_pairs"] < 1 and 0 < metrics["context_loss_random_pairs_std"] < 1


@pytest.mark.parametrize("method", ["lora", "full", "none"])
def test_line(recipes, tokenizer, sentences, method, tmp_path):
    """LLM-AR, Table 7, and zero-shot: only the weights of the method are trained, and the model is evaluated."""
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method=method)
    metrics = recipes.evaluate(model, sentences, tmp_path / "evaluation")
    assert metrics["recordings"] == 12 and metrics["classes"] == 4
    original = load_file(f"{recipes.llm}/model.safetensors")
    stored = load_file(f"{model}/model.safetensors")
    changed = {
        name
        for name, tensor in original.items()
        if not torch.equal(tensor, stored[name.replace("model.", "model.language_model.", 1)])
        if name != "lm_head.weight"
    }
    assert bool(changed) == (method == "full")
    assert os.path.isdir(f"{model}/adapter") == (method == "lora")
    # The recogniser has the codebook of the action model that wrote the sentences.
    codebook = ActionVQVAEModel.from_pretrained(tokenizer).codebook
    assert torch.equal(stored["model.action_embedding.weight"], codebook)

    # All files of the evaluation exist and agree.
    with open(tmp_path / "evaluation" / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert right == pytest.approx(metrics["top_1"]["estimate"])
    for name in (
        "metrics.json",
        "per_class.csv",
        "confusion.csv",
        "confusion.png",
        "calibration.png",
        "per_class.png",
    ):
        assert (tmp_path / "evaluation" / name).stat().st_size > 0
    published = (Path(model) / "record.json").read_text() + (Path(model) / "config.json").read_text()
    assert str(tmp_path) not in published and recipes.llm not in published, "a path of this machine would be published"


@pytest.mark.slow
def test_words_of_several_tokens(recipes, tmp_path):
    """Residual codebooks, all streams and one length: the whole pipeline, with report, lexicon and reasons."""
    from action_llm_recipes import token_lexicon

    own = recipes.train_tokenizer(
        tmp_path / "tokenizer",
        skeleton={"length": 32},
        num_codebooks=3,
        codebook_training="ema",
        streams=["joints", "bones", "motion", "relation"],
        relation_weight=1.0,
    )
    sentences = recipes.encode(own, tmp_path / "sentences", encodings=2)
    rows = load_action_sentences(sentences)["test"]
    assert all(np.shape(ids) == (8, 3) for ids in rows["action_ids"])
    # A word is an eighth of a recording; times are those of the recording before resampling.
    assert len({round(times[-1], 3) for times in rows["end_times"]}) > 1
    record = json.loads((Path(sentences) / "record.json").read_text())["splits"]["test"]
    assert record["words_per_sentence"] == pytest.approx(np.mean([len(ids) for ids in rows["action_ids"]]), abs=0.01)
    table = (Path(sentences) / "tokens.md").read_text()
    assert "| tokens per word | 3 | 3 |" in table and "of 48" in table
    model = recipes.sft(own, sentences, tmp_path / "sft", training={"packing": True, "max_length": 256})
    recipes.evaluate(model, sentences, tmp_path / "evaluation")
    recogniser, processor = (
        ActionLLMForClassification.from_pretrained(model),
        ActionLLMProcessor.from_pretrained(model),
    )
    path = next(Path(recipes.recordings).rglob(f"{rows[0]['sample_id']}.skeleton"))
    with torch.no_grad():
        from_file, from_sentence = (
            recogniser(**inputs).logits
            for inputs in (processor(str(path)), processor(action_ids=[rows[0]["action_ids"]]))
        )
    torch.testing.assert_close(from_file, from_sentence)
    recipes.explain(model, sentences, tmp_path / "explanations")
    lexicon = token_lexicon.main(token_lexicon.LexiconArguments(own, sentences, str(tmp_path / "lexicon")))
    assert len(lexicon) == 48 and lexicon[0].description and not lexicon[16].description
    settings = {"methods": ["tokens"], "sentences": sentences, "seeds": 1, "transformer_steps": 2}
    metrics = run_baselines.main(
        run_baselines.BaselineArguments(output_dir=str(tmp_path / "loss"), **settings), recipes.data()
    )
    assert "tokens" in metrics["accuracy"]


def test_orthogonal_names_need_semantic_alignment(recipes, tmp_path):
    with pytest.raises(ValueError, match="orthogonal_names has no effect without alignment_weight"):
        recipes.train_tokenizer(tmp_path / "tokenizer", arguments={"orthogonal_names": True})


@pytest.mark.parametrize("skeleton", [{"max_frames": 32}, {"fps": None}])
def test_motion_needs_frames_that_are_comparable(recipes, skeleton, tmp_path):
    with pytest.raises(ValueError, match="set length, or fps and no max_frames"):
        recipes.train_tokenizer(tmp_path / "tokenizer", skeleton=skeleton, streams=["joints", "motion"])


def test_relation_needs_recordings_of_two_people(recipes, tmp_path):
    with pytest.raises(ValueError, match="`num_persons` must be at least 2, because `streams` has relation"):
        recipes.train_tokenizer(tmp_path / "tokenizer", skeleton={"num_persons": 1}, streams=["relation"])


@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_standardized_words_have_the_moments_of_the_language_models_words(recipes, num_codebooks, tmp_path):
    own = recipes.train_tokenizer(tmp_path / "tokenizer", arguments={"hold_out": True}, num_codebooks=num_codebooks)
    sentences = recipes.encode(own, tmp_path / "sentences")
    model = recipes.sft(own, sentences, tmp_path / "sft", standardize_words=True, hold_out=True)
    table = load_file(f"{model}/model.safetensors")["model.action_embedding.weight"].double().numpy()
    words = load_file(f"{recipes.llm}/model.safetensors")["model.embed_tokens.weight"].double().numpy()
    rows = [row for row in load_action_sentences(sentences)["train"] if not row["held_out"]]
    spoken = np.array(
        [table[word] if num_codebooks == 1 else table[word].sum(0) for row in rows for word in row["action_ids"]]
    )
    np.testing.assert_allclose(spoken.mean(0), words.mean(0), atol=1e-4)
    np.testing.assert_allclose(spoken.std(0, ddof=1), words.std(0, ddof=1), rtol=1e-2)
    recipes.evaluate(model, sentences, tmp_path / "evaluation")
    continuous = {"injection_layer": 1, "standardize_words": True}
    with pytest.raises(ValueError, match="standardize_words needs sentences of tokens"):
        recipes.sft(own, sentences, tmp_path / "none", **continuous)


def test_classifier_reads_a_file(recipes, tokenizer, sentences, tmp_path):
    """The same recording, as a file and as its stored sentence, gets the same probabilities."""
    folder = recipes.sft(tokenizer, sentences, tmp_path)
    model = ActionLLMForClassification.from_pretrained(folder)
    processor = ActionLLMProcessor.from_pretrained(folder)
    row = load_action_sentences(sentences)["test"][0]
    path = next(Path(recipes.recordings).rglob(f"{row['sample_id']}.skeleton"))
    with torch.no_grad():
        from_file = model(**processor(str(path)))
        from_sentence = model(**processor(action_ids=[row["action_ids"]]))
    assert from_file.action_ids[0].tolist() == row["action_ids"]
    torch.testing.assert_close(from_file.logits, from_sentence.logits)
    torch.testing.assert_close(from_file.probabilities.sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    "off, terms",
    [
        ({"human_weight": 0.0}, {"zipf_loss", "context_loss", "mmd_loss"}),
        ({"zipf_weight": 0.0}, {"zipf_loss"}),
        ({"context_weight": 0.0}, {"context_loss"}),
        ({"mmd_weight": 0.0}, {"mmd_loss"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, dict) else "",
)
def test_without_biases(recipes, tokenizer, off, terms, tmp_path):
    """LLM-AR, Table 4: the total loss is the sum of the terms that are left, and the codes come out differently."""
    ablated = recipes.train_tokenizer(tmp_path, **off)
    entry = next(e for e in metrics_of(tmp_path) if "loss" in e)
    weights = {"reconstruction_loss": 1, "embedding_loss": 1, "commitment_loss": 0.02}
    weights |= {name: 0.2 for name in ("zipf_loss", "context_loss", "mmd_loss") if name not in terms}
    total = sum(weight * entry[name] for name, weight in weights.items())
    assert entry["loss"] == pytest.approx(total, abs=2e-3)
    codes = [ActionVQVAEModel.from_pretrained(folder).codebook for folder in (tokenizer, ablated)]
    assert not torch.equal(*codes)


def test_without_hyperbolic_codebook(recipes, tokenizer, tmp_path):
    """LLM-AR, Table 6."""
    model = ActionVQVAEModel.from_pretrained(recipes.train_tokenizer(tmp_path, geometry="euclidean"))
    latents = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)) * 2
    nearest = torch.cdist(latents, model.codebook).argmin(1)
    assert torch.equal(model.quantizer(latents).ids, nearest)
    hyperbolic = ActionVQVAEModel.from_pretrained(tokenizer)
    assert type(model.quantizer) is not type(hyperbolic.quantizer)


def test_without_discretisation(recipes, tmp_path):
    """LLM-AR, Table 5: continuous latents, no codebook anywhere, replace hidden states in the middle layer."""
    tokenizer = recipes.train_tokenizer(tmp_path / "tokenizer", quantize=False)
    assert not any("quantizer" in name for name in load_file(f"{tokenizer}/model.safetensors"))
    sentences = recipes.encode(tokenizer, tmp_path / "sentences", latents=True)
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", injection_layer=1)
    recipes.evaluate(model, sentences, tmp_path / "evaluation")
    loaded = ActionLLMForClassification.from_pretrained(model)
    processor = ActionLLMProcessor.from_pretrained(model)
    row = load_action_sentences(sentences)["test"][0]
    with open(tmp_path / "evaluation" / "predictions.csv") as file:
        expected = next(csv.DictReader(file))
    path = next(Path(recipes.recordings).rglob(f"{row['sample_id']}.skeleton"))
    output = loaded(**processor(str(path)))
    assert output.action_ids is None
    assert float(output.probabilities.max()) == pytest.approx(float(expected["probability"]), abs=1e-4)
    with pytest.raises(ValueError, match="has no codebook"):
        recipes.encode(tokenizer, tmp_path / "without")
    # Without a codebook, the layer is chosen automatically, and needs training.
    with pytest.raises(ValueError, match="method none trains nothing"):
        recipes.sft(tokenizer, sentences, tmp_path / "untrained", method="none")


def test_continuous_latents_must_be_there(recipes, tokenizer, sentences, tmp_path):
    with pytest.raises(ValueError, match="needs sentences with latents"):
        recipes.sft(tokenizer, sentences, tmp_path, injection_layer=1)
    with pytest.raises(ValueError, match="packing needs sentences of tokens"):
        recipes.sft(tokenizer, sentences, tmp_path, injection_layer=1, training={"packing": True, "max_length": 256})


def test_trained_action_words_and_class_list(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", train_action_embeddings=True, list_classes=True)
    loaded = ActionLLMForClassification.from_pretrained(model)
    codebook = ActionVQVAEModel.from_pretrained(tokenizer).codebook
    assert not torch.equal(loaded.get_input_embeddings().weight, codebook)
    processor = ActionLLMProcessor.from_pretrained(model)
    assert "cheer up, hand waving" in processor.prompt([1])


def test_training_prompts_list_some_classes(recipes, tokenizer, sentences, tmp_path, monkeypatch):
    """Each sentence has its own list, the same in every run, with its class at any place."""
    prompts, prompt = [], ActionLLMProcessor.prompt
    monkeypatch.setattr(
        ActionLLMProcessor, "prompt", lambda *args, **settings: prompts.append(args) or prompt(*args, **settings)
    )
    options = {"method": "none", "list_classes": True, "listed_classes": 3}
    recipes.sft(tokenizer, sentences, tmp_path / "sft", **options)
    rows = load_action_sentences(sentences)["train"]
    names, listed = rows.features["label"].names, [args[2] for args in prompts if len(args) == 3]
    assert listed[: len(rows)] == [list_of_classes(row, names, 3) for row in rows]
    places = [classes.index(names[label]) for classes, label in zip(listed, rows["label"], strict=False)]
    assert {len(set(classes)) for classes in listed} == {3} and set(places) == {0, 1, 2}
    assert set().union(*listed) == set(names)
    for wrong in ({"list_classes": False}, {"objective": "classes"}, {"listed_classes": 1}):
        with pytest.raises(ValueError, match="listed_classes"):
            recipes.sft(tokenizer, sentences, tmp_path / "wrong", **options | wrong)


def test_unseen_classes(recipes, tokenizer, sentences, tmp_path):
    """LLM-AR, Table 8: no stage reads the names or recordings of unseen classes; a model that has seen them is refused."""
    protocol = "simulated-unseen"
    data = recipes.data(protocol).load()
    seen, unseen = (data[split].features["label"].names for split in ("train", "test"))
    assert not set(seen) & set(unseen)
    own = recipes.train_tokenizer(tmp_path / "tokenizer", protocol)
    written = recipes.encode(own, tmp_path / "sentences", protocol)
    model = recipes.sft(own, written, tmp_path / "sft")
    metrics = recipes.evaluate(model, written, tmp_path / "evaluation", unseen=True)
    assert metrics["classes"] == len(unseen)
    labels = [row["label"] for row in data["test"]]
    shares = [labels.count(label) / len(labels) for label in range(len(unseen))]
    assert metrics["text_only"]["top_1"]["estimate"] in shares  # without recordings, there is one answer for all
    everything = "".join(p.read_text(errors="ignore") for p in Path(model).glob("*.json"))
    everything += (tmp_path / "tokenizer" / "record.json").read_text()
    for name in unseen:
        assert f'"{name}"' not in everything
    ids = {row["sample_id"] for row in load_action_sentences(written)["train"]}
    assert not ids & {row["sample_id"] for row in data["test"]}
    # A small language model whose training text names the classes has seen them, too.
    record = json.loads((Path(model) / "record.json").read_text())
    for left_out, refused in (([], True), (unseen[1:], True), (unseen, False)):
        llm_training = {"stage": "small_lm", "classes_without_text": left_out}
        (Path(model) / "record.json").write_text(json.dumps(record | {"llm_training": llm_training}))
        with pytest.raises(ValueError, match="the text of the small") if refused else contextlib.nullcontext():
            recipes.evaluate(model, written, tmp_path / "small_lm", unseen=True)
    # The tokenizer of the ordinary protocol has seen all classes.
    cheat = recipes.encode(tokenizer, tmp_path / "cheat_sentences", protocol)
    cheating = recipes.sft(tokenizer, cheat, tmp_path / "cheat")
    with pytest.raises(ValueError, match="not unseen: the action model was trained on"):
        recipes.evaluate(cheating, cheat, tmp_path / "cheat_evaluation", unseen=True)
    with pytest.raises(ValueError, match="set --unseen true"):
        recipes.evaluate(model, written, tmp_path / "other")


def test_held_out_subjects_are_left_out(recipes, tokenizer, sentences, tmp_path):
    rows = load_action_sentences(sentences)["train"]
    held = [row["sample_id"] for row in rows if row["held_out"] and row["encoding"] == 0]
    assert held, "the tiny data set has a held-out training subject"
    with pytest.raises(ValueError, match="the action model was trained on the held-out subjects"):
        recipes.evaluate(
            recipes.sft(tokenizer, sentences, tmp_path / "no"), sentences, tmp_path / "none", split="held_out"
        )
    own = recipes.train_tokenizer(tmp_path / "tokenizer", arguments={"hold_out": True})
    sentences = recipes.encode(own, tmp_path / "sentences", encodings=2)
    model = recipes.sft(own, sentences, tmp_path / "sft", hold_out=True)
    record = json.loads((Path(model) / "record.json").read_text())
    assert record["examples"] == len(rows) - 2 * len(held)
    metrics = recipes.evaluate(model, sentences, tmp_path / "evaluation", split="held_out")
    assert metrics["recordings"] == len(held)


def checkpoint_tensors(folder):
    return {path.name: load_file(path) for path in sorted(Path(folder).rglob("*.safetensors"))}


def test_all_micro_batches_of_a_step_see_the_usage_of_the_step(recipes, monkeypatch, tmp_path):
    """Six micro-batches an epoch: steps of four and of two."""
    from action_llm_recipes.stages.tokenizer_trainer import TokenizerTrainer

    steps = {}

    def remember(trainer, outputs):
        steps.setdefault(trainer.state.global_step, []).append(outputs)

    monkeypatch.setattr(TokenizerTrainer, "_remember", remember)
    monkeypatch.setattr("action_llm_recipes.common.run_cost.report_cost", lambda trainer, what: {})
    recipes.train_tokenizer(tmp_path, training={"gradient_accumulation_steps": 4}, kmeans_init=False)
    assert [len(outputs) for outputs in steps.values()] == [4, 2, 4, 2]
    for outputs in steps.values():
        assert outputs[0].collected_usage.sum() == sum(output.attention_mask.sum() for output in outputs)
        assert all(output.collected_usage.equal(outputs[0].collected_usage) for output in outputs)


@pytest.mark.slow
def test_stage_1_on_two_processes(recipes, tmp_path):
    """Steps of two micro-batches on each of two processes, of which one warns that they are not the batch that was meant."""
    settings = {
        "data_dir": recipes.recordings,
        "cache_dir": recipes.cache,
        "llm_name_or_path": recipes.llm,
        "window": 32,
    }
    settings |= {"dataset": "simulated-xsub", "hidden_width": 16, "codebook_size": 16, "max_steps": 2, "use_cpu": True}
    settings |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "total_batch_size": 32}
    settings |= {"warmup_steps": 1, "logging_steps": 1, "output_dir": str(tmp_path / "two")}
    (tmp_path / "two.yaml").write_text(json.dumps(settings))
    said, _ = recipe_on_two_ranks(RECIPES / "train_tokenizer.py", "--config", tmp_path / "two.yaml")
    assert said.count("4 x 2 x 2 = 16 examples") == said.count("set --gradient_accumulation_steps 4.") == 1
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    assert (record["settings"]["batch_size"], record["settings"]["steps"]) == (16, 2)
    model = ActionVQVAEModel.from_pretrained(tmp_path / "two" / "model")
    assert all(weights.isfinite().all() for weights in model.parameters())


def test_stage_1_resumes_exactly(recipes, tmp_path):
    """Stopped after two of four steps and started again: bit-equal weights and the same log."""
    settings = {"quantize": True, "kmeans_init": True, "dead_code_threshold": 0.1}
    training = {"gradient_accumulation_steps": 2}
    whole = recipes.train_tokenizer(tmp_path / "whole", training=training, **settings)
    folder = tmp_path / "stopped"
    recipes.train_tokenizer(folder, training=training, **settings)
    kill(folder, "checkpoint-4")
    resumed = recipes.train_tokenizer(folder, training=training, **settings)
    assert_equal_weights(whole, resumed)
    kept = ("step", "loss", "zipf_loss", "codebook/perplexity")
    logs = [[{k: e[k] for k in kept if k in e} for e in metrics_of(f)] for f in (tmp_path / "whole", folder)]
    assert logs[0] == logs[1]


def test_stage_1_resumes_exactly_after_the_first_epoch(recipes, tmp_path):
    """Three steps an epoch; stopped in the middle of the second and started again."""
    training = {"gradient_accumulation_steps": 2, "max_steps": 6, "save_steps": 1, "save_total_limit": 9}
    whole = recipes.train_tokenizer(tmp_path / "whole", training=training)
    for last in (4, 3):  # inside an epoch, and at its end
        folder = tmp_path / f"stopped-{last}"
        recipes.train_tokenizer(folder, training=training)
        kill(folder)
        for step in range(last + 1, 7):
            shutil.rmtree(folder / "checkpoints" / f"checkpoint-{step}")
        assert_equal_weights(whole, recipes.train_tokenizer(folder, training=training))


def test_the_folder_of_a_run_is_not_its_model(recipes, tokenizer, tmp_path):
    run = str(Path(tokenizer).parent)
    with pytest.raises(ValueError, match=r"is the folder of a run: its model is .*model"):
        recipes.encode(run, tmp_path)
    with pytest.raises(ValueError, match="there is no folder /nowhere"):
        recipes.encode("/nowhere", tmp_path)


def test_nothing_of_the_machine_is_published(recipes, tokenizer, sentences, tmp_path):
    model = Path(recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none"))
    paths = [path for path in model.rglob("*.json") if path.name not in ("tokenizer.json", "tokenizer_config.json")]
    assert {"config.json", "record.json", "processor_config.json"} <= {path.name for path in paths}
    for path in paths:
        for place in (str(Path(tokenizer).parent), recipes.llm, sentences, str(tmp_path), "/tmp"):
            assert place not in path.read_text(), path


def test_stage_2_resumes_exactly(recipes, tokenizer, sentences, tmp_path):
    training = {"max_steps": 4}
    whole = recipes.sft(tokenizer, sentences, tmp_path / "whole", training=training)
    folder = tmp_path / "stopped"
    recipes.sft(tokenizer, sentences, folder, training=training)
    kill(folder, "checkpoint-4")
    assert_equal_weights(whole, recipes.sft(tokenizer, sentences, folder, training=training))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("bf16", [False, True])
def test_both_stages_resume_exactly_on_a_gpu(recipes, bf16, tmp_path):
    """Stopped after two of four steps and started again: bit-equal weights."""
    training = {"use_cpu": False, "max_steps": 4}
    tokenizer = recipes.train_tokenizer(tmp_path / "tokenizer", training=training)
    folder = tmp_path / "stopped-tokenizer"
    recipes.train_tokenizer(folder, training=training)
    kill(folder, "checkpoint-4")
    assert_equal_weights(tokenizer, recipes.train_tokenizer(folder, training=training))
    sentences = recipes.encode(tokenizer, tmp_path / "sentences")
    training |= {"bf16": bf16}
    whole = recipes.sft(tokenizer, sentences, tmp_path / "whole", training=training)
    folder = tmp_path / "stopped"
    recipes.sft(tokenizer, sentences, folder, training=training)
    kill(folder, "checkpoint-4")
    assert_equal_weights(whole, recipes.sft(tokenizer, sentences, folder, training=training))


def kill(folder, checkpoint=None):
    """Leaves a folder as a kill leaves it: before its model, and before one of its checkpoints."""
    shutil.rmtree(folder / "model")
    (folder / "record.json").unlink()
    if checkpoint is not None:
        shutil.rmtree(folder / "checkpoints" / checkpoint)


def test_a_run_killed_after_its_last_checkpoint_is_not_trained_further(recipes, tokenizer, sentences, tmp_path):
    first = recipes.train_tokenizer(tmp_path / "one")
    weights = checkpoint_tensors(first)
    kill(tmp_path / "one")
    recipes.train_tokenizer(tmp_path / "one")
    for name, tensor in checkpoint_tensors(first)["model.safetensors"].items():
        assert torch.equal(tensor, weights["model.safetensors"][name]), name
    assert json.loads((tmp_path / "one" / "record.json").read_text())["settings"]["steps"] == 4
    second = recipes.sft(tokenizer, sentences, tmp_path / "two", training={"max_steps": 2})
    adapter = checkpoint_tensors(second)["adapter_model.safetensors"]
    kill(tmp_path / "two")
    recipes.sft(tokenizer, sentences, tmp_path / "two", training={"max_steps": 2})
    for name, tensor in checkpoint_tensors(second)["adapter_model.safetensors"].items():
        assert torch.equal(tensor, adapter[name]), name


def test_the_config_of_a_run_runs_it_again(tmp_path):
    """Also what transformers keeps as an enumeration or a list."""
    import yaml

    from action_llm_recipes.common.launching import parse
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.sft import ActionSFTConfig

    training = ActionSFTConfig(
        lr_scheduler_type="cosine",
        learning_rate=0.5,
        use_cpu=True,
        debug="underflow_overflow",
        output_dir=str(tmp_path),
    )
    RunFolder(tmp_path).save_config(training)
    path = tmp_path / "config.yaml"
    config = yaml.safe_load(path.read_text())
    assert (config["lr_scheduler_type"], config["learning_rate"]) == ("cosine", 0.5)
    assert not {"warmup_steps", "report_to"} & set(config), "a default is not what the user asked for"
    (again,) = parse([ActionSFTConfig], ["--config", str(path)])
    assert again.to_dict() == training.to_dict()


def test_nothing_is_a_setting_too(tmp_path):
    import yaml

    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.train_tokenizer import TokenizerTrainingArguments

    RunFolder(tmp_path).save_config(TokenizerTrainingArguments(lr_drop_step=None, use_cpu=True))
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["lr_drop_step"] is None


def test_half_written_checkpoints_and_logs_do_not_stop_a_restart(recipes, tmp_path):
    recipes.train_tokenizer(tmp_path)
    kill(tmp_path, "checkpoint-4")
    (tmp_path / "checkpoints" / "checkpoint-4").mkdir()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    recipes.train_tokenizer(tmp_path)
    assert [entry["step"] for entry in metrics_of(tmp_path) if "loss" in entry] == [2, 4]


def test_a_folder_is_not_gone_on_with_under_other_settings(recipes, tmp_path):
    recipes.train_tokenizer(tmp_path)
    config = (tmp_path / "config.yaml").read_text()
    recipes.train_tokenizer(tmp_path, training={"logging_steps": 1})
    with pytest.raises(ValueError, match=r"geometry: 'poincare', now 'euclidean'.*choose another --output_dir"):
        recipes.train_tokenizer(tmp_path, geometry="euclidean")
    assert "euclidean" not in config + (tmp_path / "config.yaml").read_text()


def test_the_cost_report_does_not_change_the_run(recipes, monkeypatch, tmp_path):
    settings = {"codebook_training": "ema", "kmeans_init": False, "dead_code_threshold": 0.5}
    with_report = recipes.train_tokenizer(tmp_path / "with", **settings)
    monkeypatch.setattr("action_llm_recipes.common.run_cost.report_cost", lambda trainer, what: {})
    assert_equal_weights(with_report, recipes.train_tokenizer(tmp_path / "without", **settings))


def test_the_cost_report_leaves_the_warning_of_small_steps_to_the_first_step(recipes, caplog, tmp_path):
    """With gradient accumulation, the warning is about the optimiser step, not the micro-batch that was measured."""
    training = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1}
    with caplog.at_level("WARNING", logger="action_llm"):
        recipes.train_tokenizer(tmp_path, training=training)
    warnings = [record.getMessage() for record in caplog.records if "latents for 16 tokens" in record.getMessage()]
    assert len(warnings) <= 1 and "An optimiser step has 32 latents" not in "".join(warnings)


def assert_equal_weights(first, second):
    first, second = checkpoint_tensors(first), checkpoint_tensors(second)
    assert first.keys() == second.keys() and first
    for name, tensors in first.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, second[name][key]), f"{name}: {key}"


def test_encoding_goes_on_where_it_stopped(recipes, tokenizer, monkeypatch, tmp_path):
    from action_llm_recipes import encode_actions
    from action_llm_recipes.common import shards

    monkeypatch.setattr(shards, "RECORDINGS_PER_SHARD", 10)
    calls = []
    encode = encode_actions.encode

    def counted(model, extractor, rows, *args):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(model, extractor, rows, *args)

    monkeypatch.setattr(encode_actions, "encode", counted)
    with pytest.raises(KeyboardInterrupt):
        recipes.encode(tokenizer, tmp_path / "stopped")
    with pytest.raises(FileNotFoundError, match=r"encode_actions\.py has not finished there"):
        load_action_sentences(tmp_path / "stopped")
    recipes.encode(tokenizer, tmp_path / "stopped")
    assert len(calls) == 3 + 5, "two shards of train were done, three of train and two of test were left"
    recipes.encode(tokenizer, tmp_path / "whole")
    stopped, whole = (load_action_sentences(tmp_path / name) for name in ("stopped", "whole"))
    for split in whole:
        assert stopped[split].to_list() == whole[split].to_list()
    with pytest.raises(ValueError, match="made with other encodings: choose another --output_dir"):
        recipes.encode(tokenizer, tmp_path / "whole", encodings=2)


def test_other_recordings_are_another_run(recipes, tokenizer, monkeypatch, tmp_path):
    """A folder of recordings that grew, or was split in another way, does not go with what was made of the old one."""
    from datasets import DatasetDict

    recipes.train_tokenizer(tmp_path / "tokenizer")
    recipes.encode(tokenizer, tmp_path / "sentences")
    data = recipes.data().load()
    fewer = DatasetDict(train=data["train"].select(range(len(data["train"]) - 1)), test=data["test"])
    monkeypatch.setattr(
        "action_llm_recipes.common.data_arguments.DataArguments.load", lambda self, kind="skeletons": fewer
    )
    with pytest.raises(ValueError, match="made with other recordings: choose another --output_dir"):
        recipes.train_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="made with other recordings: choose another --output_dir"):
        recipes.encode(tokenizer, tmp_path / "sentences")


def test_sentences_of_another_action_model_or_protocol_are_not_evaluated(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    other = recipes.train_tokenizer(tmp_path / "other", training={"seed": 1})
    written = recipes.encode(other, tmp_path / "other_sentences")
    with pytest.raises(ValueError, match="were not written by the action model of"):
        recipes.evaluate(model, written, tmp_path / "evaluation")
    written = recipes.encode(tokenizer, tmp_path / "views", "simulated-xview")
    with pytest.raises(ValueError, match="trained on 'simulated-xsub', but the sentences are of 'simulated-xview'"):
        recipes.evaluate(model, written, tmp_path / "evaluation")


def test_explanations(recipes, rendered, tmp_path):
    own = recipes.train_tokenizer(tmp_path / "tokenizer", arguments={"hold_out": True}, human_weight=0.0)
    sentences = recipes.encode(own, tmp_path / "sentences")
    training = {"max_steps": 20, "learning_rate": 1e-2}
    model = recipes.sft(own, sentences, tmp_path / "sft", training=training, hold_out=True)
    metrics = recipes.explain(
        model, sentences, tmp_path / "why", split="test", faithfulness_count=4, num_reasons=2, unsure_below=0.999
    )
    assert 0 < metrics["sentences"] <= 4 and metrics["unsure_below"] == 0.999
    entries = [json.loads(text) for text in (tmp_path / "why" / "explanations.jsonl").read_text().splitlines()]
    assert len(entries) == 3 and all(entry["text"] and entry["narration"].startswith("The ") for entry in entries)
    page = (tmp_path / "why" / "index.html").read_text()
    for entry in entries:
        assert entry["sample_id"] in page and (tmp_path / "why" / f"{entry['sample_id']}.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="unsure_below must be from 0 to 1, got 2"):
        recipes.explain(model, sentences, tmp_path / "not", unsure_below=2.0)


def test_class_and_explanation_are_learnt_apart(recipes, tokenizer, tmp_path):
    """Two examples per sentence, the descriptions of a model that has memorised a few, and errors."""
    from action_llm.explanations import describe, explain

    sentences = recipes.encode(tokenizer, tmp_path / "sentences", explanations="narrator")
    rows = load_action_sentences(sentences)["train"]
    assert all(text.startswith("The ") for text in rows["explanation"])
    training = {"max_steps": 3, "learning_rate": 1e-3}
    model = recipes.sft(
        tokenizer, sentences, tmp_path / "sft", training=training, explanations=True, explanation_share=1.0
    )
    record = json.loads((Path(model) / "record.json").read_text())
    assert record["examples"] == 2 * len(rows) and record["settings"]["explanations"]
    loaded, processor = ActionLLMForClassification.from_pretrained(model), ActionLLMProcessor.from_pretrained(model)
    assert processor.explains
    explanation = explain(loaded, processor, action_ids=rows[0]["action_ids"])
    assert explanation.description == describe(loaded, processor, rows[0]["action_ids"])
    assert recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 12
    silent = recipes.encode(tokenizer, tmp_path / "silent")
    with pytest.raises(ValueError, match="no explanations: run encode_actions"):
        recipes.sft(tokenizer, silent, tmp_path / "other", explanations=True)
    # A share of the sentences, the same ones in every run.
    some = recipes.sft(tokenizer, sentences, tmp_path / "some", explanations=True, explanation_share=0.5)
    record = json.loads((Path(some) / "record.json").read_text())
    assert len(rows) < record["examples"] < 2 * len(rows) and record["settings"]["explanation_share"] == 0.5
    with pytest.raises(ValueError, match="explanation_share must be above 0 and at most 1, got 2"):
        recipes.sft(tokenizer, sentences, tmp_path / "more", explanations=True, explanation_share=2.0)
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"sample_id": rows[0]["sample_id"], "explanation": "A hand goes up."}) + "\n")
    rows = load_action_sentences(recipes.encode(tokenizer, tmp_path / "told", explanations=str(texts)))["train"]
    assert [text for text in rows["explanation"] if text] == ["A hand goes up."]
    texts.write_text("{}\n")
    with pytest.raises(ValueError, match=r"texts\.jsonl, line 1: expected an object with sample_id and explanation"):
        recipes.encode(tokenizer, tmp_path / "wrong", explanations=str(texts))


def test_a_lexicon(recipes, tokenizer, tmp_path):
    from action_llm_recipes import token_lexicon as recipe

    sentences = recipes.encode(tokenizer, tmp_path / "sentences", encodings=2)
    arguments = {"tokenizer": tokenizer, "sentences": sentences, "output_dir": str(tmp_path / "lexicon")}
    entries = recipe.main(recipe.LexiconArguments(**arguments))
    rows = load_action_sentences(sentences)["train"]
    first = [ids for ids, encoding in zip(rows["action_ids"], rows["encoding"], strict=True) if encoding == 0]
    assert sum(entry.count for entry in entries) == sum(map(len, first)) and len(entries) == 16
    assert all("hand" in entry.description for entry in entries)
    page = (tmp_path / "lexicon" / "index.html").read_text()
    best = max(entries, key=lambda entry: entry.count)
    assert f"&lt;act_{best.action_id}&gt;" in page and (tmp_path / "lexicon" / "tokens.png").is_file()
    assert json.loads((tmp_path / "lexicon" / "lexicon.json").read_text())[3]["action_id"] == 3
    # The lexicon of the recogniser has the classes of each token, but no examples of recordings.
    model = ActionLLMForClassification.from_pretrained(
        recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    )
    assert [(own.count, [*map(tuple, own.classes)]) for own in model.lexicon] == [
        (entry.count, entry.classes) for entry in entries
    ]
    assert not any(own.examples for own in model.lexicon)


def test_tf32_is_refused(recipes, tmp_path):
    from action_llm_recipes import train_tokenizer as recipe

    training = recipe.TokenizerTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    training.tf32 = True  # transformers itself refuses it where there is no GPU
    with pytest.raises(ValueError, match="tf32 must be false"):
        recipe.main(recipe.TokenizerArguments(recipes.llm), recipes.data(), None, None, training)


def test_unreadable_recordings_are_skipped_and_listed(recipes, tokenizer, monkeypatch, tmp_path):
    data = recipes.data().load()
    broken = data["test"].to_list()
    for row, keypoints in ((broken[1], [0.0]), (broken[3], [float("nan")])):
        row["keypoints"] = keypoints * len(row["keypoints"])
    from datasets import Dataset, DatasetDict

    splits = DatasetDict(train=data["train"], test=Dataset.from_list(broken, features=data["test"].features))
    monkeypatch.setattr(
        "action_llm_recipes.common.data_arguments.DataArguments.load", lambda self, kind="skeletons": splits
    )
    folder = recipes.encode(tokenizer, tmp_path)
    skipped = json.loads((tmp_path / "skipped.json").read_text())
    assert [entry["sample_id"] for entry in skipped] == [broken[1]["sample_id"], broken[3]["sample_id"]]
    assert all(entry["reason"] for entry in skipped)
    assert len(load_action_sentences(folder)["test"]) == 10
    assert json.loads((tmp_path / "record.json").read_text())["splits"]["test"]["skipped"] == 2


def test_a_prompt_that_does_not_fit_is_an_error_before_training(recipes, tokenizer, sentences, tmp_path):
    with pytest.raises(ValueError, match="has a context of 512"):
        recipes.sft(tokenizer, sentences, tmp_path, instruction="word " * 600 + "{tokens}.")


@pytest.mark.slow
def test_two_processes_evaluate_as_one(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    alone = recipes.evaluate(model, sentences, tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(RECIPES / "evaluate_classifier.py"), "--model", model, "--sentences", sentences]
    command += ["--output_dir", str(tmp_path / "two"), "--resamples", "50"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.count("12 recordings") == 1, "each process evaluated everything"
    together, one = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("two", "one"))
    # The processes have other batches, with other padding, which changes the rounding of probabilities.
    for scores in (lambda metrics: metrics, lambda metrics: metrics["perfectly_calibrated"]):
        for name in ("calibration_error", "negative_log_likelihood", "brier_score"):
            assert scores(together).pop(name) == pytest.approx(scores(one).pop(name), rel=1e-5)
    assert together == one
    assert alone["top_1"]["estimate"] == together["top_1"]["estimate"]
    assert (tmp_path / "one" / "predictions.csv").read_text() == (tmp_path / "two" / "predictions.csv").read_text()


def test_configs_name_fields_that_exist(monkeypatch):
    """Every YAML file has only settings of the recipe in its header."""
    import yaml

    from action_llm_recipes.common.launching import option_names

    known = {
        "train_tokenizer": [
            "TokenizerArguments",
            "TokenizerTrainingArguments",
        ],
        "extract_features": ["FeatureArguments", "VideoArguments"],
        "backbone": ["BackboneArguments", "VideoArguments", "BackboneTrainingArguments"],
        "sft": ["ActionSFTArguments", "ActionSFTConfig"],
        "small_lm": ["SmallLMArguments", "SmallLMConfig"],
        "small_lvlm": ["SmallLVLMArguments", "SmallLVLMTrainingArguments"],
        "benchmark_efficiency": ["BenchmarkArguments"],
        "encode_actions": ["EncodingArguments"],
    }
    paths = sorted((RECIPES / "configs").rglob("*.yaml"))
    assert paths
    for path in paths:
        text = path.read_text()
        place = re.search(r"recipes/([\w/]+)\.py", text).group(1).replace("/", ".")
        recipe = place.rpartition(".")[2]
        module = importlib.import_module(f"action_llm_recipes.{place}")
        parts = [getattr(module, part) for part in known[recipe]]
        if recipe == "train_tokenizer":
            parts += module.STAGES[yaml.safe_load(text).get("action_model", "action_vqvae")].ARGUMENTS
        fields = option_names(parts)
        if recipe != "sft":
            from action_llm_recipes.common.data_arguments import DataArguments

            fields |= set(DataArguments.__dataclass_fields__)
        assert set(yaml.safe_load(text)) <= fields, path


def test_class_probabilities_are_the_mean_of_those_of_several_sentences(recipes, tokenizer, tmp_path):
    """Several encodings are averaged; a single encoding gives the same result as before."""
    from action_llm_recipes import evaluate_classifier as recipe

    once = recipes.encode(tokenizer, tmp_path / "once", encodings=2)
    several = recipes.encode(tokenizer, tmp_path / "several", encodings=2, test_encodings=3)
    test = load_action_sentences(several)["test"]
    alone = test.filter(lambda encoding: encoding == 0, input_columns="encoding")
    assert len(test) == 3 * len(alone) and alone[:] == load_action_sentences(once)["test"][:]
    assert len({str(ids) for ids in test["action_ids"]}) > len(alone)
    model = recipes.sft(tokenizer, several, tmp_path / "sft", hold_out=False)
    single = recipes.evaluate(model, several, tmp_path / "one")
    mean = recipes.evaluate(model, several, tmp_path / "mean", encodings=3)
    assert single["recordings"] == mean["recordings"] == len(alone)
    assert (single["encodings"], mean["encodings"]) == (1, 3)
    assert "sentences each" in recipe.table({"": mean}) and "sentences each" not in recipe.table({"": single})
    processor, recogniser = (
        ActionLLMProcessor.from_pretrained(model),
        ActionLLMForClassification.from_pretrained(model),
    )
    with open(tmp_path / "mean" / "predictions.csv") as file:
        predicted = {row["sample_id"]: float(row["probability"]) for row in csv.DictReader(file)}
    assert list(predicted) == alone["sample_id"]
    name = alone[1]["sample_id"]
    with torch.no_grad():
        probabilities = [
            recogniser(**processor(action_ids=[row["action_ids"]])).probabilities[0].double()
            for row in test
            if row["sample_id"] == name
        ]
    assert predicted[name] == pytest.approx(torch.stack(probabilities).mean(0).max().item(), abs=1e-5)
    with pytest.raises(ValueError, match=r"has 3 sentences; run encode_actions\.py with --test_encodings 4"):
        recipes.evaluate(model, several, tmp_path / "more", encodings=4)
    # Each split has its own recordings.
    every = load_action_sentences(several)
    for split, is_held_out in (("held_out", True), ("train", False)):
        chosen = select_split(every, split, 2)
        assert set(chosen["held_out"]) == {is_held_out} and set(chosen["encoding"]) == {0, 1}
        assert set(chosen["sample_id"]) == {
            name
            for name, held in zip(every["train"]["sample_id"], every["train"]["held_out"], strict=True)
            if held == is_held_out
        }
        with pytest.raises(ValueError, match=r"has 2 sentences; run encode_actions\.py with --encodings 3"):
            select_split(every, split, 3)
    with pytest.raises(ValueError, match="encodings must be at least 1, got 0"):
        select_split(every, "test", 0)


@pytest.mark.parametrize("name", ["encodings", "batch_size", "resamples"])
def test_an_evaluation_refuses_counts_below_one(name):
    from action_llm_recipes.evaluate_classifier import EvaluationArguments

    with pytest.raises(ValueError, match=f"--{name} must be at least 1, got -1"):
        EvaluationArguments(model="a/b", sentences="s", output_dir="o", **{name: -1})


@pytest.mark.parametrize("encodings", [1, 2, 5])
def test_average_encodings_is_the_naive_mean(encodings):
    from action_llm_recipes.evaluate_classifier import average_encodings

    generator = np.random.default_rng(0)
    names = generator.permutation(np.repeat([f"r{index}" for index in range(7)], encodings))
    scores = generator.normal(size=(len(names), 4), scale=200)
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    means, kept = average_encodings(scores, list(names))
    assert list(names[kept]) == list(dict.fromkeys(names))
    naive = np.stack([np.exp(scores[names == name]).mean(axis=0) for name in names[kept]])
    np.testing.assert_allclose(np.exp(means), naive, rtol=1e-12, atol=1e-300)
    if encodings == 1:
        np.testing.assert_array_equal(means, scores)


def test_configs_have_the_papers_settings():
    """LLM-AR, section 4.2."""
    import yaml

    tokenizers, tunings = (
        list((RECIPES / "configs" / "llm_ar").glob(f"ntu*_{name}*.yaml")) for name in ("tokenizer", "sft")
    )
    assert tokenizers and tunings
    for path in tokenizers:
        config = yaml.safe_load(path.read_text())
        assert (config["max_steps"], config["per_device_train_batch_size"]) == (300_000, 256)
        assert (config["codebook_size"], config["curvature"], config["learning_rate"]) == (512, 1.0, 2e-4)
        assert (config["commitment_weight"], config["human_weight"]) == (0.02, 0.2)
    for path in tunings:
        config = yaml.safe_load(path.read_text())
        # 75,000 micro-batches of 4 are as many samples as these steps.
        processes = 1 if "qlora" in path.name else 4
        batch = config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] * processes
        assert batch == 256 and config["max_steps"] == -(-75_000 * 4 // 256)
        if "full" not in path.name:
            assert (config["lora_r"], config["lora_alpha"], config["learning_rate"]) == (64, 16, 3e-3)


def test_the_metric_of_the_data_set_comes_first():
    from action_llm_recipes import evaluate_classifier as recipe

    assert (recipe.compared_by("smarthome-cv1"), recipe.compared_by("ntu60-xsub")) == ("mean_per_class", "top_1")
    results = {"recordings": 3, "encodings": 1, "classes": 2, "calibration_error": 0.1}
    for name in ("top_1", "mean_per_class"):
        results[name] = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    heads, row = recipe.table({"test": results | {"compared_by": "mean_per_class"}}).splitlines()
    assert re.split(r"\s{2,}", heads.strip())[2:5] == ["mean per class", "95 % interval", "top-1"]
    assert re.split(r"\s{2,}", row.strip())[3:5] == ["50.0 %", "40.0–60.0"]
