"""Numbers on pages and in records equal what is counted in the files: parameters, tokens, codes, recordings, seconds."""

import csv
import json
import re
import shutil
import typing
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import DistributedType
from datasets import Dataset
from safetensors import safe_open
from transformers import AutoModel

from action_llm_recipes.common import run_cost
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.people import write_people
from action_llm_recipes.common.run_cost import count_parameters
from action_llm_recipes.common.run_folder import RunFolder
from action_llm_recipes.hub import model_page
from action_llm_recipes.sft import ActionSFTArguments

METHODS = {
    "lora": {"method": "lora"},
    "lora and action embeddings": {"method": "lora", "train_action_embeddings": True},
    "prefix": {"method": "prefix", "prefix_length": 4},
    "full": {"method": "full"},
}


def stored(folder) -> dict[str, int]:
    """Name → number of elements of each tensor in the files of a model."""
    counts = {}
    for path in Path(folder).rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            counts |= {name: int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    return counts


@pytest.mark.parametrize("settings", METHODS.values(), ids=METHODS)
def test_parameters_are_those_of_the_files(recipes, tokenizer, sentences, llm, tmp_path, settings):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", **settings)
    cost = json.loads(Path(model, "record.json").read_text())["cost"]
    page = model_page.model_page(Path(model), "me/model", [])
    of_llm = sum(stored(llm).values())
    assert f"Language model: llama of {of_llm:,} parameters" in page
    added = sum(count for name, count in stored(model).items() if "lora_" in name or "prefix" in name)
    of_action_words = 16 * 32  # 16 codes in the 32 channels of the language model
    of_action_model = sum(weight.numel() for name, weight in AutoModel.from_pretrained(tokenizer).named_parameters()
                          if not name.startswith("decoder."))  # fmt: skip
    trained = of_llm if settings["method"] == "full" else added
    trained += of_action_words * ("train_action_embeddings" in settings)
    assert cost["trainable_parameters"] == trained
    assert cost["parameters"] == of_llm + added + of_action_words + of_action_model
    assert f"{trained:,} of {cost['parameters']:,} parameters of the action model" in page


@pytest.mark.parametrize("method", typing.get_args(ActionSFTArguments.__annotations__["method"]))
def test_every_method_has_a_sentence_on_the_page(method):
    record = {"method": method, "examples": 40, "seed": 0}
    assert model_page._made(record, is_classifier=True).startswith("Stage 2 trained ")


def test_the_hours_of_a_run_count_a_fraction_of_an_epoch_as_transformers_does(monkeypatch):
    monkeypatch.setattr(run_cost, "_measure", lambda trainer: {"seconds_per_step": 3600.0, "peak_memory_gb": 1.0})
    trainer = SimpleNamespace(
        model=torch.nn.Linear(2, 2),
        args=SimpleNamespace(max_steps=-1, num_train_epochs=1.5, gradient_accumulation_steps=2),
        accelerator=SimpleNamespace(num_processes=1, distributed_type=DistributedType.NO),
        get_train_dataloader=lambda: range(5),  # three steps
    )
    assert run_cost.report_cost(trainer, "model")["hours"] == 5


def test_weights_in_4_bit_are_counted_unpacked():
    packed = torch.nn.Parameter(torch.zeros(50, 1, dtype=torch.uint8), requires_grad=False)
    packed.bnb_quantized, packed.quant_storage = True, torch.uint8
    assert count_parameters([packed, torch.zeros(3, 5)]) == 100 + 15
    packed.quant_storage = torch.bfloat16
    assert count_parameters([packed]) == 200


def test_the_record_of_sentences_and_tokens_counts_what_is_in_the_files(sentences, recipes):
    record = json.loads(Path(sentences, "record.json").read_text())
    report = json.loads(Path(sentences, "tokens.json").read_text())
    for split, summary in record["splits"].items():
        rows = [
            row for path in sorted(Path(sentences, split).glob("*.parquet")) for row in pq.read_table(path).to_pylist()
        ]
        tokens = Counter(token for row in rows for token in row["action_ids"])
        whole = [row for row in rows if row["encoding"] == 0]
        assert summary["recordings"] == len(whole) + summary["skipped"] and summary["sentences"] == len(rows)
        assert summary["words_per_sentence"] == pytest.approx(tokens.total() / len(rows), abs=0.005)
        assert summary["codes_used"] == len(tokens)
        share = np.array([*tokens.values()]) / tokens.total()
        assert summary["perplexity"] == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-4)
        # tokens.json counts only the unaugmented version of each recording.
        tokens = Counter(token for row in whole for token in row["action_ids"])
        share = np.array([*tokens.values()]) / tokens.total()
        entropy = -np.sum(share * np.log2(share))
        own = report[split]
        assert own["recordings"] == len(whole) and own["codes_used"] == len(tokens)
        assert own["perplexity"] == pytest.approx(2**entropy, rel=1e-4)
        assert own["bits_per_word"] == pytest.approx(entropy, rel=1e-4)
        lengths = [len(row["action_ids"]) for row in whole]
        assert own["words_per_recording"]["mean"] == pytest.approx(np.mean(lengths))
        assert own["words_per_recording"]["most"] == max(lengths)
        seconds = np.concatenate([np.subtract(row["end_times"], row["start_times"]) for row in whole])
        assert own["seconds_per_word"] == pytest.approx(seconds.mean(), rel=1e-5)
    names = {path.stem for path in Path(recipes.recordings).glob("*.skeleton")}
    people = json.loads(Path(sentences, "people.json").read_text())
    assert people.keys() == names and all(int(name[9:12]) == int(person) for name, person in people.items())


@pytest.fixture(scope="module")
def evaluated(recipes, tokenizer, sentences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    model = recipes.sft(tokenizer, sentences, folder / "sft")
    recipes.evaluate(model, sentences, folder / "evaluation")
    return folder


def test_the_page_names_the_intervals_and_the_number_of_people(evaluated, tmp_path):
    record = json.loads((evaluated / "evaluation" / "record.json").read_text())
    metrics = record["metrics"]
    with open(evaluated / "evaluation" / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert metrics["recordings"] == len(rows) == 12 and metrics["classes"] == 4
    assert metrics["top_1"]["estimate"] == pytest.approx(right / 12)
    from scipy.stats import binomtest

    expected = binomtest(right, 12).proportion_ci(method="wilson")
    assert (metrics["top_1"]["low"], metrics["top_1"]["high"]) == pytest.approx((expected.low, expected.high))
    assert metrics["interval"] == "recordings" and metrics["people"] == {"3": {"recordings": 12, "top_1": right / 12}}
    with open(evaluated / "evaluation" / "per_person.csv", newline="", encoding="utf-8") as file:
        (person,) = csv.DictReader(file)
    assert (person["person"], person["recordings"]) == ("3", "12")

    page = model_page.model_page(evaluated / "sft" / "model", "me/model", [record])
    sentence = "the intervals are 95 % Wilson score intervals over 12 recordings of one person, too few to estimate"
    assert sentence in page and f"{100 * expected.low:.1f}–{100 * expected.high:.1f}" in page
    assert re.search(r"\| 42 \| test \| 12 \|", page) and "It knows 4 classes" in page

    names = [f"name {number}" for number in range(12)]
    metrics["people"] = {name: {"recordings": 5, "top_1": number / 11} for number, name in enumerate(names)}
    metrics["interval"] = "people"
    page = model_page.model_page(evaluated / "sft" / "model", "me/model", [record])
    assert "or 95 % bootstrap intervals over the 12 people in them where these are wider." in page
    assert "Top-1 accuracy by person, in ascending order (number of recordings): 0.0 (5), 9.1 (5)," in page
    assert "name 1" not in page, "names of people are not published"

    metrics["people"], metrics["interval"] = None, "recordings"
    assert "it is not known which people were recorded." in model_page.model_page(
        evaluated / "sft" / "model", "me/model", [record]
    )
    # Evaluations of older versions.
    del metrics["people"], metrics["interval"]
    page = model_page.model_page(evaluated / "sft" / "model", "me/model", [record])
    assert (
        "the intervals are 95 % bootstrap intervals over recordings." in page
        and "Top-1 accuracy by person" not in page
    )


def test_sentences_of_older_versions_have_no_people(evaluated, recipes, sentences, tmp_path):
    older = shutil.copytree(sentences, tmp_path / "older")
    (older / "people.json").unlink()
    metrics = recipes.evaluate(str(evaluated / "sft" / "model"), str(older), tmp_path / "evaluation")
    assert metrics["people"] is None and metrics["interval"] == "recordings"
    assert not (tmp_path / "evaluation" / "per_person.csv").exists()


def test_a_resumed_run_records_its_total_time(recipes, tokenizer, sentences, tmp_path):
    settings = {"method": "prefix", "prefix_length": 4, "training": {"max_steps": 4, "save_steps": 2}}
    recipes.sft(tokenizer, sentences, tmp_path / "run", **settings)
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-4")
    (tmp_path / "run" / "record.json").unlink()
    kept = tmp_path / "run" / "elapsed.json"
    assert 0 < json.loads(kept.read_text())["seconds"] < 600
    kept.write_text('{"seconds": 5000}\n')
    recipes.sft(tokenizer, sentences, tmp_path / "run", **settings)
    assert 5000 < RunFolder(tmp_path / "run").read_record()["seconds"] < 5600


def test_people_are_read_from_any_of_their_columns_if_all_are_named(tmp_path):
    def people(**columns):
        rows = Dataset.from_dict({"sample_id": ["a", "b"], **columns})
        return DataArguments(dataset="folder", data_dir=str(tmp_path)).people({"train": rows})

    for column in ("person", "subject", "performer"):
        assert people(**{column: [7, 12]}) == {"a": "7", "b": "12"}
    assert people(person=["Anna", ""]) == {} == people(camera=[1, 2])
    (tmp_path / "record.json").write_text("{}")
    write_people(tmp_path, {"a": "7"})
    assert DataArguments(dataset="features", data_dir=str(tmp_path)).people({}) == {"a": "7"}
