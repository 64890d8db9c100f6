"""The small language model: its files, its perplexity, and that an interrupted run gives the same model."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from action_llm_datasets.protocols import NTU_PROTOCOLS
from action_llm_datasets.simulation.body_text import passages
from action_llm_recipes.common.stage_records import check_unseen_text
from action_llm_recipes.pretraining import small_lm
from action_llm_recipes.pretraining.small_lm import (
    SmallLMArguments,
    SmallLMConfig,
    _bigram,
    _unigram,
    bigram_perplexity,
    encode,
    fingerprint,
    join_in_blocks,
    left_out_classes,
    main,
    model_perplexity,
    train_tokenizer,
    unigram_perplexity,
)


def tiny(folder, **training):
    arguments = SmallLMArguments(
        passages=300,
        held_out_passages=30,
        vocabulary_size=400,
        block_length=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    settings = {
        "max_steps": 24,
        "warmup_steps": 2,
        "learning_rate": 0.04,
        "logging_steps": 4,
        "save_steps": 8,
        "disable_tqdm": True,
        "use_cpu": True,
    } | training
    return arguments, SmallLMConfig(output_dir=str(folder), **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small_lm")
    return folder, main(*tiny(folder))


def test_the_folder_is_a_plain_causal_language_model(trained):
    folder, result = trained
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert type(model) is transformers.LlamaForCausalLM
    assert model.config.vocab_size == len(tokenizer) == 400
    assert (folder / "model" / "model.safetensors").is_file()
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (1, 2, 0)
    held_out = list(passages(30, start=10**9))
    again = model_perplexity(model, encode(tokenizer, held_out))
    assert again == pytest.approx(result["held_out_perplexity"]["model"], rel=1e-6)
    assert json.loads((folder / "record.json").read_text())["held_out_perplexity"] == result["held_out_perplexity"]


def test_a_finished_run_returns_its_record_again(trained):
    folder, result = trained
    assert main(*tiny(folder)) == result == json.loads((folder / "record.json").read_text())


def test_it_learns(trained):
    perplexity = trained[1]["held_out_perplexity"]
    assert perplexity["model"] < 0.7 * perplexity["unigram"]
    assert perplexity["bigram"] < 0.5 * perplexity["unigram"]
    lines = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 12, 16, 20, 24]
    assert losses[-1] < losses[0] - 1


def test_a_stopped_run_ends_as_one_that_was_not(trained, tmp_path, monkeypatch):
    from action_llm_recipes.common import run_folder

    class Stop(run_folder.JsonLinesCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 13:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "JsonLinesCallback", Stop)
        with pytest.raises(KeyboardInterrupt):
            main(*tiny(tmp_path))
    assert not (tmp_path / "model").exists()
    result = main(*tiny(tmp_path))
    assert result["held_out_perplexity"] == trained[1]["held_out_perplexity"]
    first, second = (AutoModelForCausalLM.from_pretrained(f / "model").state_dict() for f in (trained[0], tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("minutes", "expected"), [(1e-9, [1, 2, 3]), (0, [3]), (10, [3])])
def test_checkpoints_come_by_time_too(minutes, expected, tmp_path):
    main(*tiny(tmp_path, max_steps=3, save_steps=1000, save_total_limit=9, save_minutes=minutes))
    assert sorted(int(path.name[11:]) for path in (tmp_path / "checkpoints").iterdir()) == expected


def test_the_seconds_of_a_run_are_those_of_all_its_starts(tmp_path, monkeypatch):
    """Until the last checkpoint before each stop: what came after it is done again."""
    from action_llm_recipes.common import run_folder

    class Stop(run_folder.JsonLinesCallback):
        def on_step_end(self, args, state, control, **kwargs):
            clock[0] += 60.0
            if state.global_step == 13 and len(starts) == 1:
                raise KeyboardInterrupt

    starts, clock = [1], [1000.0]
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(run_folder, "JsonLinesCallback", Stop)
    with pytest.raises(KeyboardInterrupt):
        main(*tiny(tmp_path, save_minutes=0))
    starts.append(2)
    main(*tiny(tmp_path, save_minutes=0))
    # Eight of 24 steps were kept.
    assert json.loads((tmp_path / "record.json").read_text())["seconds"] == 24 * 60


def test_a_small_language_model_is_known_by_all_that_it_is_made_of(monkeypatch):
    import action_llm_datasets.simulation.body_text

    few = SmallLMArguments(passages=30)
    known = [fingerprint(few, 0), fingerprint(few, 1), fingerprint(SmallLMArguments(passages=31), 0)]
    known.append(fingerprint(dataclasses.replace(few, hidden_size=96), 0))
    assert fingerprint(SmallLMArguments(passages=30), 0) == known[0]
    monkeypatch.setattr(
        action_llm_datasets.simulation.body_text, "passages", lambda count, **_: ["other text"] * count
    )
    known.append(fingerprint(few, 0))
    assert len(set(known)) == 5


KEEP = """
import json, sys
from action_llm_recipes.pretraining import small_lm as recipe
from action_llm_datasets.progress import set_up_output
set_up_output()
arguments = recipe.SmallLMArguments(
    passages=60, held_out_passages=8, vocabulary_size=300, block_length=32, hidden_size=16, intermediate_size=16,
    num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
)
print("kept in", recipe.kept_small_lm(arguments, 3))
"""


@pytest.mark.slow
def test_two_processes_make_it_once(tmp_path):
    from fresh_python import python, start

    code = KEEP
    env = os.environ | {"HF_HOME": str(tmp_path)}
    processes = [start("-c", code, env=env) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0], [process.said() for process in processes]
    outputs = [process.said()[0] for process in processes]
    outputs.append(python("-c", code, env=env).stdout)
    assert sum("once on this machine" in output for output in outputs) == 1
    assert sum("Using the small language model in" in output for output in outputs) == 2
    (folder,) = {output.rpartition("kept in ")[2].strip() for output in outputs}
    assert folder.startswith(str(tmp_path / "action_llm" / "small_lm"))
    # Whoever trains with it says how it was made.
    from action_llm_recipes.common.stage_records import llm_training

    assert llm_training(folder)["stage"] == "small_lm" and llm_training(folder)["seed"] == 3
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 16


def test_the_text_leaves_out_the_actions_of_unseen_classes(tmp_path, monkeypatch):
    """Not only passages with their names: "Rosa wants to take off the headphone" is about "take off headphone"."""
    texts = []
    monkeypatch.setattr(
        small_lm, "train_tokenizer", lambda text, *settings: texts.append(text) or train_tokenizer(text, *settings)
    )
    arguments, training = tiny(tmp_path, max_steps=1)
    record = main(dataclasses.replace(arguments, passages=2000, unseen_of="ntu120-unseen-0"), training)
    assert not [
        passage
        for passage in texts[0]
        if "take off the headphone" in passage or "take off headphone" in passage.lower()
    ]
    assert any("take off the headphone" in passage for passage in passages(2000))
    assert "take off headphone" in record["classes_without_text"]
    check_unseen_text(record, NTU_PROTOCOLS["ntu120-unseen-0"].class_names("test"))
    with pytest.raises(ValueError, match="unseen_of: there is no protocol 'ntu60-xsub' with unseen classes"):
        left_out_classes("ntu60-xsub")
    assert left_out_classes(None) == {}


def test_a_kept_model_is_known_by_its_text(monkeypatch):
    """Also where the same protocol leaves out other actions."""
    few = SmallLMArguments(passages=300, unseen_of="utd-mhad-unseen-0")
    known = fingerprint(few, 0)
    assert fingerprint(dataclasses.replace(few, unseen_of=None), 0) != known
    monkeypatch.setattr(small_lm, "left_out_classes", lambda protocol: {"clap": "clapping"})
    assert fingerprint(few, 0) != known


def test_arguments_come_from_a_file_under_the_command_line(tmp_path):
    from action_llm_recipes.common.launching import parse

    (tmp_path / "small.yaml").write_text("passages: 77\nlearning_rate: 0.5\nhidden_size: 64\n")
    command = ["--config", str(tmp_path / "small.yaml"), "--hidden_size", "32", "--output_dir", str(tmp_path)]
    arguments, training = parse((SmallLMArguments, SmallLMConfig), command)
    assert (arguments.passages, arguments.hidden_size, training.learning_rate) == (77, 32, 0.5)
    assert dataclasses.replace(arguments, passages=8000, hidden_size=192) == SmallLMArguments()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(list(passages(300)), 400, 128)


@settings(max_examples=50)
@given(text=st.text(max_size=40))
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_the_tokenizer_survives_saving_and_is_the_same_each_time(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    again = train_tokenizer(list(passages(300)), 400, 128)
    for text in [*passages(20, seed=3), "4 times  two\n spaces, 12.5"]:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"] == again(text)["input_ids"]
    assert loaded.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<s>", "</s>"]
    assert loaded("The right hand")["input_ids"][-1] != loaded("hand", add_special_tokens=False)["input_ids"][-1]


def test_rows_hold_the_passages_in_their_order():
    rows = [[1, 5, 6, 2], [1, 7, 2], [1, 8, 9, 10, 2]]
    blocks = join_in_blocks(rows, 5)
    assert blocks["input_ids"][:] == [[1, 5, 6, 2, 1], [7, 2, 1, 8, 9]] == blocks["labels"][:]
    with pytest.raises(ValueError, match="12 tokens, too few for an example of block_length=13"):
        join_in_blocks(rows, 13)


def test_model_perplexity_equals_one_passage_at_a_time():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    generator = np.random.default_rng(0)
    rows = [generator.integers(1, 20, size=length).tolist() for length in (2, 9, 5, 13)]
    losses = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row])).logits[0].double().log_softmax(-1)
        losses += [-logits[place, token].item() for place, token in enumerate(row[1:])]
    assert model_perplexity(model, rows, batch_size=3) == pytest.approx(np.exp(np.mean(losses)), rel=1e-6)


@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=9), min_size=1, max_size=6))
def test_baselines_are_distributions(rows):
    assert _unigram(rows, 6).sum() == pytest.approx(1)
    np.testing.assert_allclose(_bigram(rows, 6).sum(axis=1), 1)
    assert (_bigram(rows, 6) > 0).all()


def test_baseline_perplexities_by_hand():
    rows, held_out = [[0, 1, 2], [0, 1, 1]], [[0, 1]]
    # Predicted tokens are 1, 2, 1, 1, with one added to each of three counts: P(1) = 4/7.
    assert unigram_perplexity(rows, held_out, 3) == pytest.approx(7 / 4)
    # After 0 came 1 twice: (2 - 0.75)/2 + 0.75 * 1/2 * 4/7.
    assert bigram_perplexity(rows, held_out, 3) == pytest.approx(1 / (0.625 + 0.375 * 4 / 7))
