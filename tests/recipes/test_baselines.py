"""Baselines against independent implementations; padding and absent people; the recipe from data to table."""

import csv
import json

import numpy as np
import pytest
import sklearn.kernel_ridge
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from action_llm import SkeletonFeatureExtractor
from action_llm.skeleton_layouts import LAYOUTS, get_layout
from action_llm_recipes.baselines import run_baselines
from action_llm_recipes.baselines.models import (
    KernelRidge,
    SequenceTransformer,
    SkeletonGraphNetwork,
    _resample_batch,
    bone_partitions,
    collate,
    fit,
    join_frames,
    log_probabilities,
    resample,
)
from action_llm_recipes.baselines.prompts import with_text
from action_llm_recipes.baselines.sequences import read_sentences
from action_llm_recipes.common.action_sentences import load_action_sentences, sentence_features, write_codebook
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.shards import SplitShards, write_shard


def sequences(count, channels, seed=0, low=3, high=20):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rng.integers(low, high), channels)).astype(np.float32) for _ in range(count)]


def test_kernel_ridge_equals_scikit_learn():
    train, test = sequences(40, 6), sequences(15, 6, seed=1)
    labels = np.random.default_rng(2).integers(3, size=40)
    model = KernelRidge(3, frames=8, difference_weight=0.5, gamma=2.0, ridge=0.3).fit(train, labels)
    first, second = model._vectors(train), model._vectors(test)
    distances = [((a - b) ** 2).sum() for i, a in enumerate(first) for b in first[:i]]
    other = sklearn.kernel_ridge.KernelRidge(alpha=0.3, kernel="rbf", gamma=2.0 / np.median(distances))
    targets = np.eye(3)[labels]
    other.fit(first, targets - targets.mean(0))
    np.testing.assert_allclose(model.scores(test), other.predict(second) + targets.mean(0), atol=1e-9)
    assert first.shape == (40, 8 * 6 + 7 * 6)


@given(st.integers(1, 30), st.integers(1, 30))
def test_resampling_equals_numpy_interp(length, frames):
    sequence = np.random.default_rng(length).normal(size=(length, 3))
    position = np.linspace(0, length - 1, frames)
    expected = np.stack([np.interp(position, np.arange(length), channel) for channel in sequence.T], axis=1)
    np.testing.assert_allclose(resample(sequence, frames), expected, atol=1e-12)
    padded = torch.full((1, length + 4, 3), torch.nan)
    padded[0, :length] = torch.from_numpy(sequence)
    mask = torch.arange(length + 4)[None] < length
    np.testing.assert_allclose(_resample_batch(padded, mask, frames)[0], expected, atol=1e-4)


def test_what_a_token_covers_is_one_vector():
    frames = np.arange(24).reshape(8, 3)
    assert join_frames(frames, 4).tolist() == [list(range(12)), list(range(12, 24))]
    with pytest.raises(ValueError, match="8 frames cannot be joined in groups of 3"):
        join_frames(frames, 3)


@pytest.mark.parametrize("name", LAYOUTS)
def test_partitions_hold_every_bone_once(name):
    layout = get_layout(name)
    own, inward, outward = bone_partitions(layout)
    assert np.array_equal(own, np.eye(layout.num_joints))
    assert {tuple(pair) for pair in np.argwhere(inward)} == set(layout.bones)
    assert {tuple(pair[::-1]) for pair in np.argwhere(outward)} == set(layout.bones)
    # Neighbours are averaged: rows sum to 1, or to 0 for the root and the leaves.
    assert set(np.round(inward.sum(1), 6)) == {0.0, 1.0} and set(np.round(outward.sum(1), 6)) == {0.0, 1.0}


def graph_network(persons=1):
    torch.manual_seed(0)
    network = SkeletonGraphNetwork(4, get_layout("coco17"), persons, 2, frames=12, channels=(8, 12))
    for module in network.modules():  # other statistics than those of a new network
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def networks():
    torch.manual_seed(0)
    return [
        (SequenceTransformer(4, input_size=34, hidden_size=16, num_layers=2).eval(), sequences(5, 34)),
        (
            SequenceTransformer(4, vocabulary_size=9, hidden_size=16, num_layers=2).eval(),
            [np.arange(n) % 9 for n in (1, 4, 11)],
        ),
        (graph_network(), sequences(5, 34)),
    ]


@pytest.mark.parametrize("case", range(3))
def test_padding_changes_nothing(case):
    model, examples = networks()[case]
    together = log_probabilities(model, examples)
    alone = np.concatenate([log_probabilities(model, [example]) for example in examples])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(np.exp(together).sum(axis=1), 1)
    padded, mask = collate(examples)
    padded[~mask] = 5 if padded.dtype == torch.long else 1e3
    with torch.no_grad():
        np.testing.assert_allclose(model(padded, mask).log_softmax(-1), together, atol=2e-5)


def test_an_absent_person_changes_nothing_and_people_have_no_order():
    single, pair = graph_network(1), graph_network(2)
    pair.load_state_dict(single.state_dict())
    first = sequences(3, 34)
    second = [frames[::-1].copy() for frames in first]
    nobody = [np.zeros_like(frames) for frames in first]

    def join(left, right):
        return [np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True)]

    np.testing.assert_allclose(
        log_probabilities(pair, join(first, nobody)), log_probabilities(single, first), atol=1e-5
    )
    swapped = log_probabilities(pair, join(second, first))
    np.testing.assert_allclose(log_probabilities(pair, join(first, second)), swapped, atol=1e-5)
    assert np.abs(swapped - log_probabilities(single, first)).max() > 1e-3
    assert np.isfinite(log_probabilities(pair, join(nobody, nobody))).all()


def waves(count, seed):
    """Class 0: the first joint moves slowly; class 1: fast. Lengths differ."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    result = []
    for label in labels:
        frames = np.zeros((4 * rng.integers(4, 8), 34), np.float32)
        frames[:, 0] = rng.normal(size=len(frames)) * 0.1 + np.sin(np.arange(len(frames)) * (0.3, 1.2)[label])
        result.append(frames)
    return result, labels


@pytest.mark.parametrize("network", ["transformer", "graph"])
def test_networks_learn_and_are_the_same_each_time(network):
    train, labels = waves(60, 0)
    test, truth = waves(40, 1)

    def run():
        torch.manual_seed(0)
        if network == "graph":
            model = SkeletonGraphNetwork(2, get_layout("coco17"), 1, 2, frames=24, channels=(8, 8), dropout=0.1)
        else:
            model = SequenceTransformer(2, input_size=136, hidden_size=32, num_layers=2, dropout=0.1)
        parts = (train, test) if network == "graph" else ([join_frames(x, 4) for x in part] for part in (train, test))
        learned, asked = parts
        fit(model, learned, labels, steps=60, batch_size=16, learning_rate=3e-3)
        return log_probabilities(model, asked)

    result = run()
    assert np.mean(result.argmax(1) == truth) > 0.8
    assert np.array_equal(result, run())


def test_bad_sequences_are_errors():
    model = SequenceTransformer(2, input_size=3)
    with pytest.raises(ValueError, match="got 2 sequences and 1 labels"):
        fit(model, sequences(2, 3), np.array([0]), steps=1)
    with pytest.raises(ValueError, match="sequence 1 of the batch is empty"):
        collate([np.zeros((2, 3)), np.zeros((0, 3))])
    with pytest.raises(ValueError, match="either input_size or vocabulary_size"):
        SequenceTransformer(2)


# The recipe, on generated recordings


def rows(count, subject, held_out, seed):
    rng = np.random.default_rng(seed)
    layout = get_layout("kinect20")
    table = {name: [] for name in ("sample_id", "keypoints", "shape", "layout", "fps", "label", "held_out")}
    body = np.random.default_rng(9).normal(size=(layout.num_joints, 3))
    for index in range(count):
        label, length = index % 2, int(rng.integers(14, 30))
        keypoints = np.tile(body, (length, 1, 1, 1)) + 0.02 * rng.normal(size=(length, 1, layout.num_joints, 3))
        keypoints[:, 0, 7, 1] += np.linspace(0, (-2, 2)[label], length)
        values = (f"s{subject}-{index}", keypoints.ravel(), keypoints.shape, "kinect20", 30.0, label, held_out)
        for name, value in zip(table, values, strict=True):
            table[name].append(value)
    return table


@pytest.fixture
def data(monkeypatch, tmp_path_factory):
    features = Features(
        {
            "sample_id": Value("string"),
            "keypoints": List(Value("float32")),
            "shape": List(Value("int32")),
            "layout": Value("string"),
            "fps": Value("float32"),
            "label": ClassLabel(names=["lower", "lift"]),
            "held_out": Value("bool"),
        }
    )
    train, held_out = rows(12, 1, False, 0), rows(6, 3, True, 1)
    train = {name: train[name] + held_out[name] for name in train}
    test = rows(8, 2, False, 2)
    test["keypoints"][0] = np.zeros_like(test["keypoints"][0])  # nobody there
    made = DatasetDict(
        train=Dataset.from_dict(train, features=features), test=Dataset.from_dict(test, features=features)
    )
    monkeypatch.setattr(DataArguments, "load", lambda self, *kinds: made)
    return DataArguments("utd-mhad", str(tmp_path_factory.mktemp("nothing")))


def write_sentences(folder, dataset, with_latents):
    features = sentence_features(dataset["train"].features["label"], 16, with_latents)
    for split, part in dataset.items():
        columns = {name: [] for name in features}
        for row in part:
            for encoding in range(2 if split == "train" else 1):
                ids = (np.arange(5) * (1 + row["label"])) % 16
                values = {**row, "encoding": encoding, "action_ids": ids, "start_times": [0.0], "end_times": [1.0]}
                values["latents"] = np.repeat(ids, 3).astype(np.float32)
                for name in columns:
                    columns[name].append(values[name])
        write_shard(SplitShards(folder, split, 1).paths[0], columns, features)
    record = {"splits": {"train": {}, "test": {}}, "tokenizer": {"hold_out": False}}
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "identity.json").write_text(json.dumps({"weights": "made up"}))
    write_codebook(folder, torch.arange(32.0).view(16, 2))
    SkeletonFeatureExtractor("kinect20", num_persons=1).save_pretrained(folder)


def arguments(folder, **options):
    settings = {"encodings": 2, "seeds": 2, "transformer_steps": 4, "graph_steps": 2} | options
    return run_baselines.BaselineArguments(output_dir=str(folder), **settings)


def test_all_methods_from_recordings_to_table(data, tmp_path):
    write_sentences(tmp_path / "sentences", data.load(), with_latents=True)
    chosen = arguments(
        tmp_path / "run",
        methods=["kernel_ridge", "graph", "transformer", "latents", "codes", "tokens"],
        sentences=str(tmp_path / "sentences"),
    )
    metrics = run_baselines.main(chosen, data)
    assert (metrics["recordings"], [entry["sample_id"] for entry in metrics["skipped"]]) == (7, ["s2-0"])
    assert "no body" in metrics["skipped"][0]["reason"]
    assert metrics["accuracy"]["kernel_ridge"]["estimate"] == 1
    assert {name: len(entry["seeds"]) for name, entry in metrics["accuracy"].items()} == {
        "kernel_ridge": 1,
        "graph": 2,
        "transformer": 2,
        "latents": 2,
        "codes": 2,
        "tokens": 2,
    }
    assert len(metrics["paired_difference"]) == 15
    assert list(metrics["reads"]) == ["latents", "codes", "tokens"]
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["sample_id"] for row in table] == [f"s2-{index}" for index in range(1, 8)]
    assert all(row["kernel_ridge-0"] == row["label"] for row in table)
    hits = np.mean([row["tokens-1"] == row["label"] for row in table])
    assert hits == pytest.approx(metrics["accuracy"]["tokens"]["seeds"][1])


def test_language_models_read_narrations_as_they_read_tokens(recipes, tokenizer, tmp_path):
    """The prompts differ, and nothing else: trained again on tokens, the recogniser is the same to the bit."""
    folder = recipes.encode(tokenizer, tmp_path / "sentences", explanations="narrator")
    trained = recipes.sft(
        tokenizer, folder, tmp_path / "sft", objective="classes", method="full", training={"max_steps": 2, "seed": 0}
    )
    chosen = arguments(
        tmp_path / "run",
        methods=["narration", "recogniser"],
        sentences=folder,
        recogniser=str(tmp_path / "sft"),
        seeds=1,
    )
    metrics = run_baselines.main(chosen, recipes.data())
    assert metrics["recordings"] == 12 and list(metrics["reads"]) == chosen.methods
    weights = {name: f"{tmp_path}/run/models/{name}-0/model/model.safetensors" for name in chosen.methods}
    weights = {name: load_file(path) for name, path in weights.items()} | {
        "sft": load_file(f"{trained}/model.safetensors")
    }
    assert all(torch.equal(value, weights["sft"][name]) for name, value in weights["recogniser"].items())
    changed = [name for name, value in weights["narration"].items() if not torch.equal(value, weights["sft"][name])]
    assert changed and all("language_model" in name or "lm_head" in name for name in changed)
    row = load_action_sentences(folder)["test"][0]
    for method, begin in (("narration", "The person"), ("tokens_and_narration", f"<act_{row['action_ids'][0]}><act_")):
        (text,) = with_text(load_action_sentences(folder)["test"], method)[0]["action_ids"]
        assert text.startswith(begin) and text.endswith(row["explanation"])
    with pytest.raises(ValueError, match="set --recogniser"):
        run_baselines.main(arguments(tmp_path / "a", methods=["narration"], sentences=folder), recipes.data())


def test_codes_are_the_sums_of_the_vectors_of_tokens(data, tmp_path):
    write_sentences(tmp_path, data.load(), with_latents=False)
    wanted = set(data.load()["test"]["sample_id"])
    examples = read_sentences(str(tmp_path), "codes", ["lower", "lift"], wanted)
    for label, codes in zip(examples.evaluation_labels, examples.evaluation, strict=True):
        ids = np.arange(5) * (1 + label) % 16
        np.testing.assert_array_equal(codes, np.stack([2.0 * ids, 2.0 * ids + 1], axis=1))
    # Words of two tokens.
    words = [[0, 9], [3, 15]]
    columns = {"sample_id": ["a"], "encoding": [0], "label": [0], "held_out": [False], "action_ids": [words]}
    times = {"start_times": [[0.0, 1.0]], "end_times": [[1.0, 2.0]]}
    features = sentence_features(data.load()["train"].features["label"], 16, False, codes_per_word=2)
    for split in ("train", "test"):
        SplitShards(tmp_path, split, 1).paths[0].unlink()
        write_shard(SplitShards(tmp_path, split, 1).paths[0], columns | times, features)
    examples = read_sentences(str(tmp_path), "codes", ["lower", "lift"], {"a"})
    assert examples.evaluation[0].tolist() == [[18, 20], [36, 38]]
    (tmp_path / "codebook.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no codebook"):
        read_sentences(str(tmp_path), "codes", ["lower", "lift"], {"a"})


def test_only_codes_measure_what_the_codebook_keeps(tmp_path):
    """
    The codebook tells the classes apart, and new people have other tokens close by: codes lose nothing, while vectors that are
    learned from scratch know nothing about tokens that are not in the training recordings.
    """
    features = sentence_features(ClassLabel(names=["lower", "lift"]), 80, False)
    for split in ("train", "test"):
        columns = {name: [] for name in features}
        for number in range(40):
            token = 2 * number + (split == "test")  # a token of its own for each recording
            values = {"sample_id": f"{split}-{number}", "encoding": 0, "label": number % 2, "held_out": False}
            values |= {"action_ids": [token] * 4, "start_times": np.arange(4.0), "end_times": np.arange(1.0, 5)}
            for name in columns:
                columns[name].append(values[name])
        write_shard(SplitShards(tmp_path, split, 1).paths[0], columns, features)
    (tmp_path / "record.json").write_text(json.dumps({"splits": {"train": {}, "test": {}}}))
    centers = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])[torch.arange(80) // 2 % 2]
    write_codebook(tmp_path, centers + 0.2 * torch.randn(80, 2, generator=torch.Generator().manual_seed(0)))
    right = {}
    for method, column in (("codes", "codes"), ("tokens", "action_ids")):
        examples = read_sentences(str(tmp_path), column, ["lower", "lift"], {f"test-{number}" for number in range(40)})
        chosen = arguments(tmp_path / "run", transformer_steps=40)
        predicted = run_baselines.train_and_predict(method, 0, examples, 2, chosen)
        right[method] = np.mean(predicted == examples.evaluation_labels)
    assert right["codes"] == 1 and right["tokens"] < 0.75  # chance is 0.5


def test_a_stopped_run_goes_on_with_what_is_missing(data, tmp_path, monkeypatch):
    first = run_baselines.main(arguments(tmp_path, methods=["kernel_ridge", "transformer"]), data)
    (tmp_path / "predictions" / "transformer-1.json").unlink()
    called = []
    original = run_baselines.train_and_predict
    monkeypatch.setattr(run_baselines, "train_and_predict", lambda *args: called.append(args[:2]) or original(*args))
    assert run_baselines.main(arguments(tmp_path, methods=["kernel_ridge", "transformer"]), data) == first
    assert called == [("transformer", 1)]
    more = run_baselines.main(arguments(tmp_path, methods=["kernel_ridge", "transformer"], seeds=3), data)
    assert called[1:] == [("transformer", 2)] and len(more["accuracy"]["transformer"]["seeds"]) == 3
    with pytest.raises(ValueError, match=r"other settings \(transformer_steps: 4, now 5"):
        run_baselines.main(arguments(tmp_path, transformer_steps=5), data)


def test_held_out_subjects_are_evaluated_and_not_trained_on(data, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        run_baselines, "train_and_predict", lambda *args: seen.update(examples=args[2]) or np.zeros(6, int)
    )
    metrics = run_baselines.main(arguments(tmp_path, methods=["kernel_ridge"], split="held_out"), data)
    assert metrics["recordings"] == 6
    assert seen["examples"].sample_ids == [f"s3-{index}" for index in range(6)]
    assert len(seen["examples"].train) == 24 and len(seen["examples"].evaluation) == 6
    assert metrics["accuracy"]["kernel_ridge"]["estimate"] == 0.5


def test_wrong_arguments_are_errors(data, tmp_path):
    with pytest.raises(ValueError, match="no method 'svm' for skeletons"):
        run_baselines.main(arguments(tmp_path, methods=["svm"]), data)
    with pytest.raises(ValueError, match="the method tokens reads sentences"):
        run_baselines.main(arguments(tmp_path, methods=["tokens"]), data)
    write_sentences(tmp_path / "sentences", data.load(), with_latents=False)
    with pytest.raises(ValueError, match="action model was trained on the held-out subjects"):
        held_out = arguments(
            tmp_path / "a", methods=["tokens"], split="held_out", sentences=str(tmp_path / "sentences")
        )
        run_baselines.main(held_out, data)
    with pytest.raises(ValueError, match="contains no latents"):
        run_baselines.main(
            arguments(tmp_path / "run", methods=["latents"], sentences=str(tmp_path / "sentences")), data
        )


@pytest.mark.real_data
def test_kernel_ridge_reaches_the_known_floor_on_utd_mhad(real_data, tmp_path):
    """UTD-MHAD, standard split: 86.3 % is known for kernel ridge on resampled joints and differences."""
    data = DataArguments("utd-mhad", str(real_data / "utd_mhad" / "skeleton"), cache_dir=str(tmp_path / "cache"))
    metrics = run_baselines.main(arguments(tmp_path / "run", methods=["kernel_ridge"], encodings=1), data)
    assert metrics["recordings"] == 430
    assert metrics["accuracy"]["kernel_ridge"]["estimate"] > 0.86
