"""LLM-AR, Table 5 (without discretisation) and Table 8 (unseen classes), with `run_line.py`."""

import json

import numpy as np
import pytest
import yaml

from action_llm_recipes.common.action_sentences import load_action_sentences
from action_llm_recipes.evaluate_classifier import beside_the_prior

COMMON = {"warmup_steps": 1, "disable_tqdm": True, "use_cpu": True}
TOKENIZER = {"hidden_width": 8, "codebook_size": 16, "window": 16, "max_steps": 2, "per_device_train_batch_size": 4}
SFT = {"lora_r": 2, "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


@pytest.fixture
def arguments(llm, tmp_path):
    """Makes the arguments of `run_line.py`; without `sft`, stage 2 has its default settings."""
    from action_llm_recipes.run_line import PipelineArguments

    def make(folder, tokenizer=None, sft=None, **options):
        configs = {}
        for name, config in (("tokenizer", TOKENIZER | COMMON | (tokenizer or {})), ("sft", sft)):
            if config is not None:
                (tmp_path / f"{folder}_{name}.yaml").write_text(yaml.safe_dump(config))
                configs[f"{name}_config"] = str(tmp_path / f"{folder}_{name}.yaml")
        return PipelineArguments(
            output_dir=str(tmp_path / folder), **{"llm_name_or_path": llm, "encodings": 2} | configs | options
        )

    return make


@pytest.mark.parametrize(
    ("tokenizer", "sft"),
    [
        ({"quantize": False}, {}),
        ({"quantize": False, "num_codebooks": 2}, {"objective": "classes"}),
        ({}, {"injection_layer": 1}),
    ],
)
def test_latents_are_read_without_discretisation(recipes, arguments, tokenizer, sft, tmp_path):
    from action_llm import ActionLLMForClassification, ActionLLMProcessor
    from action_llm_recipes import run_line

    metrics = run_line.main(arguments("run", tokenizer, SFT | COMMON | sft), recipes.data())
    assert (metrics["recordings"], metrics["classes"], metrics["unseen"]) == (12, 4, False)
    rows = load_action_sentences(tmp_path / "run" / "sentences")["test"]
    assert len(rows[0]["latents"]) == 32 * len(rows[0]["start_times"])
    folder = tmp_path / "run" / "sft" / "model"
    model, processor = ActionLLMForClassification.from_pretrained(folder), ActionLLMProcessor.from_pretrained(folder)
    assert model.config.injection_layer == 1 and model.config.action_config.quantize == ("quantize" not in tokenizer)
    row = recipes.data().load()["test"][0]
    assert float(model(**processor(row)).probabilities.sum()) == pytest.approx(1, abs=1e-5)
    # There is nothing to be left out one by one, also where the action model has codes.
    with pytest.raises(ValueError, match="reads continuous latents"):
        model.explain(processor, model(**processor(row)), recording=row)


@pytest.mark.parametrize(
    ("sft", "message"),
    [
        (
            {"standardize_words": True},
            "standardize_words needs sentences of tokens, .* set standardize_words to false",
        ),
        ({"run_lengths": True}, "run_lengths needs sentences of tokens"),
        ({"explanations": True}, "explanations needs sentences of tokens"),
        ({"packing": True, "max_length": 64}, "packing needs sentences of tokens"),
        ({"method": "none"}, "method none trains nothing, but continuous latents need a trained projection"),
    ],
)
def test_what_latents_cannot_have_shows_before_anything_is_trained(recipes, arguments, sft, message, tmp_path):
    from action_llm_recipes import run_line

    with pytest.raises(ValueError, match=message):
        run_line.main(arguments("run", {"quantize": False}, SFT | COMMON | sft), recipes.data())
    assert not (tmp_path / "run").exists()


def test_the_own_settings_of_stage_2_fit_latents(arguments, recipes, monkeypatch):
    """The default settings of stage 2 standardise words, which is switched off for latents."""
    from action_llm_recipes import run_line

    settings = {}
    monkeypatch.setattr(run_line, "run_main_stages", lambda data, llm, folder, stages: settings.update(stages["sft"]))
    run_line.main(arguments("run", {"quantize": False}), recipes.data())
    assert settings["standardize_words"] is False and settings["objective"] == "classes"
    run_line.main(arguments("run"), recipes.data())
    assert settings["standardize_words"] is True


def test_unseen_classes_are_unseen_by_every_stage(recipes, arguments, llm, tmp_path, monkeypatch):
    from action_llm.processing_action_llm import ActionLLMProcessor
    from action_llm_datasets.protocols import NTU_PROTOCOLS
    from action_llm_recipes import run_line
    from action_llm_recipes.pretraining import small_lm

    prompts, prompt_of = [], ActionLLMProcessor.prompt
    monkeypatch.setattr(
        ActionLLMProcessor,
        "prompt",
        lambda *values, **options: prompts.append(prompt_of(*values, **options)) or prompts[-1],
    )
    data = recipes.data("simulated-unseen")
    metrics = run_line.main(arguments("run", sft=SFT | COMMON), data)
    unseen = NTU_PROTOCOLS["simulated-unseen"].class_names("test")
    assert f"from {', '.join(unseen)}." in prompts[-1]
    assert metrics["unseen"] and metrics["classes"] == len(unseen)
    record = json.loads((tmp_path / "run" / "sft" / "record.json").read_text())
    assert not set(record["training_classes"]) & set(unseen)

    # The small language model is trained without text that names the classes; another one that read such text is refused.
    made = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hub"))  # one may be kept on this machine
    monkeypatch.setattr(small_lm, "main", lambda own, training: made.append(own.unseen_of))
    monkeypatch.setattr(run_line, "run_main_stages", lambda data, llm, folder, stages: stages["evaluation"]["unseen"])
    assert run_line.main(arguments("other", sft=SFT | COMMON, llm_name_or_path=None), data) is True
    assert run_line.main(arguments("seen", sft=SFT | COMMON, llm_name_or_path=None), recipes.data()) is False
    assert made == ["simulated-unseen", None]
    reader = tmp_path / "reader"
    reader.mkdir()
    for path in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (reader / path).write_bytes((tmp_path.parent / llm / path).read_bytes())
    (reader / "record.json").write_text(json.dumps({"stage": "small_lm", "classes_without_text": []}))
    with pytest.raises(ValueError, match=r"not unseen: the text of the small language model is about .* --unseen_of"):
        run_line.main(arguments("refused", sft=SFT | COMMON, llm_name_or_path=str(reader)), data)
    assert not (tmp_path / "refused").exists()


def test_what_the_text_alone_answers_is_divided_out():
    """With three recordings of classes 0, 1, 1 whose probabilities are products of a prior and of what the recording says."""
    prior = np.log([0.8, 0.1, 0.1])
    recordings = np.log([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3]])
    found = beside_the_prior(recordings + prior, prior, np.array([0, 1, 1]))
    assert {name: scores["top_1"]["estimate"] for name, scores in found.items()} == {
        "text_only": pytest.approx(1 / 3),
        "divided_by_prior": 1.0,
    }
