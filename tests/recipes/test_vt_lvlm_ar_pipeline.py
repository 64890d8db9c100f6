"""The recipes of VT-LVLM-AR with tiny models: cells, events, a small LVLM, prompts, windows, timelines, tables."""

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_features import extract
from tiny_models import BACKBONES, VISION_LANGUAGE, save_backbone, tiny_tokenizer
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText
from two_processes import recipe_on_two_ranks

from action_llm import ActionLLMForClassification, ActionLLMProcessor, VTEMModel, tokenizer_files
from action_llm.language_models import load_language_model
from action_llm.visual_encoder import VisualEncoder
from action_llm_recipes.common.action_features import load_features
from action_llm_recipes.common.action_sentences import load_action_sentences
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.video_windows import video_of_window

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "vt_lvlm_ar"
INSTRUCTIONS = {
    "instruction": "{tokens} Given the sequence of visual events, what action is being performed?",
    "instruction_with_classes": "{tokens} Given the visual events, which action is it? Choose from {classes}.",
}
SMALL = {"max_steps": 4, "warmup_steps": 1, "logging_steps": 2, "save_steps": 2, "disable_tqdm": True, "use_cpu": True}


@pytest.fixture(scope="module")
def features(videos, backbone, tmp_path_factory):
    folder, cache = tmp_path_factory.mktemp("cells"), tmp_path_factory.mktemp("cache")
    return extract(videos, backbone, folder, cache, {"num_segments": 10, "frames_per_segment": 1}, grid=1, versions=2)


def see(features, llm, folder, **training):
    """A small LVLM."""
    from action_llm_recipes.pretraining import small_lvlm as recipe

    recipe.main(
        recipe.SmallLVLMArguments(llm_name_or_path=llm),
        DataArguments(dataset="features", data_dir=features),
        recipe.SmallLVLMTrainingArguments(
            **{"output_dir": str(folder), "per_device_train_batch_size": 4} | SMALL | training
        ),
    )
    return f"{folder}/model"


@pytest.fixture(scope="module")
def lvlm(features, llm, tmp_path_factory):
    return see(features, llm, tmp_path_factory.mktemp("lvlm"))


def train(features, lvlm, folder, training=None, target_data_dir=None, **model):
    from action_llm_recipes import train_tokenizer as recipe
    from action_llm_recipes.stages.event_stage import TargetArguments, VTEMArguments

    sizes = {"codebook_size": 16, "max_events": 5, "window_cells": 10, "weight_size": 8}
    settings = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "lr_scheduler_type": "cosine"}
    recipe.main(
        recipe.TokenizerArguments(llm_name_or_path=lvlm, action_model="vtem"),
        DataArguments(dataset="features", data_dir=str(features)),
        VTEMArguments(**sizes | model),
        TargetArguments(target_data_dir=target_data_dir),
        recipe.TokenizerTrainingArguments(**{"output_dir": str(folder)} | SMALL | settings | (training or {})),
    )
    return f"{folder}/model"


@pytest.fixture(scope="module")
def vtem(features, lvlm, tmp_path_factory):
    return train(features, lvlm, tmp_path_factory.mktemp("vtem"))


def encode(tokenizer, features, folder, **arguments):
    from action_llm_recipes import encode_actions as recipe

    recipe.main(
        recipe.EncodingArguments(tokenizer=tokenizer, output_dir=str(folder), **arguments),
        DataArguments(dataset="features", data_dir=str(features)),
    )
    return str(folder)


@pytest.fixture(scope="module")
def events(vtem, features, tmp_path_factory):
    return encode(vtem, features, tmp_path_factory.mktemp("events"), encodings=2)


def tune(recipes, tokenizer, sentences, lvlm, folder, **arguments):
    options = {"method": "prefix", "prefix_length": 4, "llm_name_or_path": lvlm, "list_classes": True} | INSTRUCTIONS
    return recipes.sft(tokenizer, sentences, folder, **options | arguments)


# ------------------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("grid", [1, 2])
def test_features_of_cells(videos, backbone, tmp_path, grid):
    reading = {"num_segments": 3, "frames_per_segment": 2}
    folder = extract(videos, backbone, tmp_path / "cells", tmp_path / "cache", reading, grid=grid, versions=1)
    row = load_features(folder)["test"][0]
    assert row["shape"] == [3 * grid**2, 2, 16] and row["frame_rate"] == pytest.approx(3.0)  # segments a second
    from transformers import AutoFeatureExtractor

    extractor, model = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(backbone).eval()
    with torch.no_grad():
        expected = VisualEncoder(model, grid=grid)(extractor(videos / f"{row['sample_id']}.mp4")["pixel_values"])[0]
    np.testing.assert_allclose(np.reshape(row["features"], row["shape"]), expected, rtol=1e-5, atol=1e-6)


def test_features_of_an_lvlms_own_eyes(videos, recipes, tmp_path):
    """The vision tower, the layer and the width that its projector reads, without being told."""
    torch.manual_seed(0)
    whole = AutoModelForImageTextToText.from_config(VISION_LANGUAGE["llava"](len(tiny_tokenizer()) + 7))
    save_backbone(whole, tmp_path / "llava", size=16)
    tiny_tokenizer().save_pretrained(tmp_path / "llava")
    llava, reading = str(tmp_path / "llava"), {"height": 16, "width": 16, "frames_per_segment": 1}
    with pytest.raises(ValueError, match="is a vision-language model, whose projector reads patches: set --grid"):
        extract(videos, llava, tmp_path / "none", tmp_path / "cache", reading)
    folder = extract(videos, llava, tmp_path / "cells", tmp_path / "cache", reading, grid=2, versions=1)
    record = json.loads(Path(folder, "record.json").read_text())
    assert (record["grid"], record["feature_layer"]) == (2, -2)
    vtem = train(folder, llava, tmp_path / "vtem")
    model = VTEMModel.from_pretrained(vtem)
    assert (model.config.grid, model.config.feature_layer, model.config.codebook_dim) == (2, -2, 16)
    events = encode(vtem, folder, tmp_path / "events")
    recogniser = tune(recipes, vtem, events, llava, tmp_path / "sft")
    assert recipes.evaluate(recogniser, events, tmp_path / "evaluation")["recordings"] == 2


def test_features_of_cells_are_asked_for(videos, backbone, lvlm, tmp_path):
    folder = extract(videos, backbone, tmp_path / "whole", tmp_path / "cache", versions=1)
    with pytest.raises(ValueError, match=r"holds no features of cells: run extract_features.py with --grid 1"):
        train(folder, lvlm, tmp_path / "vtem")
    with pytest.raises(ValueError, match="--feature_layer needs --grid"):
        extract(videos, backbone, tmp_path / "other", tmp_path / "cache", feature_layer=-2)


def test_events_of_other_cells_are_not_encoded(videos, backbone, vtem, tmp_path):
    reading = {"num_segments": 10, "frames_per_segment": 1}
    folder = extract(videos, backbone, tmp_path / "fine", tmp_path / "cache", reading, grid=2, versions=1)
    with pytest.raises(ValueError, match=r"not those of the action model, which was trained with another grid"):
        encode(vtem, folder, tmp_path / "events")


# ------------------------------------------------------------------------------------------------------------- the line


def test_the_small_lvlm_reads_the_commit_of_its_language_model(features, llm, tmp_path, monkeypatch):
    from action_llm import tokenizer_files
    from action_llm_recipes.pretraining import small_lvlm as recipe

    revisions, load_tokenizer = [], tokenizer_files.load_tokenizer

    def tokenizer(path, revision):
        revisions.append(revision)
        return load_tokenizer(path)

    def model(path, revision, **settings):
        revisions.append(revision)
        raise InterruptedError

    monkeypatch.setattr(tokenizer_files, "load_tokenizer", tokenizer)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", model)
    with pytest.raises(InterruptedError):
        recipe.main(
            recipe.SmallLVLMArguments(llm_name_or_path=llm, llm_revision="c1"),
            DataArguments(dataset="features", data_dir=features),
            recipe.SmallLVLMTrainingArguments(output_dir=str(tmp_path / "lvlm"), **SMALL),
        )
    assert revisions == ["c1", "c1"]


def test_the_small_lvlm_is_a_llava(features, lvlm, llm, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(lvlm)
    tower = AutoModel.from_pretrained(Path(features, "backbone")).state_dict()
    assert all(torch.equal(value, tower[name]) for name, value in model.model.vision_tower.state_dict().items())
    decoder = load_language_model(lvlm)
    assert decoder.projector.linear_1.in_features == 16
    record = json.loads(Path(lvlm).parent.joinpath("record.json").read_text())
    assert record["stage"] == "pretrain_small_lvlm" and not record["hold_out"]
    # Stopped and gone on with: the same to the bit.
    see(features, llm, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "model")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-4", ignore_errors=True)
    (tmp_path / "stopped" / "record.json").unlink()
    one, other = (
        AutoModelForImageTextToText.from_pretrained(folder).state_dict()
        for folder in (f"{tmp_path}/whole/model", see(features, llm, tmp_path / "stopped"))
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_record_of_a_small_lvlm_names_the_repository_of_its_language_model(features, llm, tmp_path, monkeypatch):
    load_model, load_tokenizer = AutoModelForCausalLM.from_pretrained, tokenizer_files.load_tokenizer
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda name, **options: load_model(llm, **options))
    monkeypatch.setattr(tokenizer_files, "load_tokenizer", lambda name, **options: load_tokenizer(llm))
    see(features, "owner/tiny", tmp_path)
    record = json.loads(Path(tmp_path, "record.json").read_text())
    assert record["llm"] == record["settings"]["llm_name_or_path"] == "owner/tiny"


def test_people_can_judge_the_events(vtem, events, features, lvlm, videos, tmp_path):
    """Table III, from trained event mappers to the sheets: adaptive pooling beside uniform pooling without coherence."""
    from action_llm_recipes.rating import event_texts, sheets

    uniform = train(features, lvlm, tmp_path / "uniform", {"max_steps": 1}, pooling="uniform", coherence_weight=0.0)
    baseline = encode(uniform, features, tmp_path / "baseline")
    files = event_texts.main(
        event_texts.EventTextArguments([f"ours={events}", f"uniform={baseline}"], str(tmp_path / "texts"))
    )
    for name, folder in (("ours", events), ("uniform", baseline)):
        entries = [json.loads(line) for line in files[name].read_text().splitlines()]
        rows = load_action_sentences(folder)["test"]
        assert [entry["sample_id"] for entry in entries] == rows["sample_id"]
        for entry, row in zip(entries, rows, strict=True):
            lines = entry["text"].splitlines()
            assert 1 <= len(lines) <= len(row["action_ids"])
            assert lines[0].startswith("0.0 to ") and f"to {row['end_times'][-1]:.1f} s: " in lines[-1]
    key = sheets.main(
        sheets.RatingSheetArguments(
            "events", list(map(str, files.values())), str(tmp_path / "rating"), raters=2, size=32
        ),
        sheets.MomentArguments(),
        DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache")),
    )
    assert key["systems"] == ["ours", "uniform"] and len(key["items"]) == 4
    assert {len(item["asked"]) for item in key["items"].values()} == {2}


def test_from_videos_to_a_probability_for_every_class(recipes, vtem, events, lvlm, videos, tmp_path):
    rows = load_action_sentences(events)
    assert rows["train"]["encoding"] == [0, 1] * 10 and len(rows["test"]) == 2
    row = rows["test"][0]
    assert row["start_times"][0] == 0 and row["end_times"][-1] == pytest.approx(1.0)
    assert row["end_times"][:-1] == pytest.approx(row["start_times"][1:])
    model = tune(recipes, vtem, events, lvlm, tmp_path / "sft", training={"learning_rate": 0.05})
    loaded, processor = ActionLLMForClassification.from_pretrained(model), ActionLLMProcessor.from_pretrained(model)
    with torch.no_grad():
        outputs = loaded(**processor(videos / f"{row['sample_id']}.mp4"))
    assert outputs.action_ids[0].tolist() == row["action_ids"]
    assert "Choose from" in processor.prompt(row["action_ids"])
    # The LVLM is what it was, to the bit.
    own = load_language_model(lvlm).state_dict()
    for name, value in loaded.as_generator().state_dict().items():
        twin = name.replace("model.language_model.", "model.", 1)
        if twin in own and "action" not in name:
            assert torch.equal(value, own[twin]), name
    record = json.loads(Path(model, "record.json").read_text())
    assert record["cost"]["trainable_parameters"] == loaded.model.prefix.weight.numel()
    assert record["llm_training"]["stage"] == "pretrain_small_lvlm"
    metrics = recipes.evaluate(model, events, tmp_path / "evaluation")
    assert metrics["recordings"] == 2
    with pytest.raises(ValueError, match="the small LVLM was trained on the held-out subjects"):
        recipes.evaluate(model, events, tmp_path / "held", split="held_out")


def test_stopped_and_resumed_exactly(features, lvlm, vtem, tmp_path):
    shutil.copytree(Path(vtem).parent, tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "model")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-4", ignore_errors=True)
    (tmp_path / "stopped" / "record.json").unlink()
    again = train(features, lvlm, tmp_path / "stopped")
    one, other = (VTEMModel.from_pretrained(folder).state_dict() for folder in (vtem, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_small_lvlm_is_resumed_exactly(features, llm, tmp_path):
    settings = {"max_steps": 4, "save_steps": 2, "save_total_limit": None}
    whole = see(features, llm, tmp_path / "whole", **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "model")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-4")
    (tmp_path / "stopped" / "record.json").unlink()
    again = see(features, llm, tmp_path / "stopped", **settings)
    one, other = (load_language_model(folder).state_dict() for folder in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_prompts_at_the_input(recipes, features, lvlm, vtem, events, tmp_path):
    """VT-LVLM-AR, Eq. 5. The rows of Tables II, V and VI are in test_paper_tables.py."""
    recogniser = tune(recipes, vtem, events, lvlm, tmp_path / "sft", training={"max_steps": 1}, method="prompt")
    assert recipes.evaluate(recogniser, events, tmp_path / "evaluation")["recordings"] == 2


@pytest.mark.slow
def test_two_processes(features, lvlm, tmp_path):
    """K-means, restarts and the coherence of events on two processes; that codebooks stay equal is tested with them."""
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "train_tokenizer.py"
    config = {
        "action_model": "vtem", "dataset": "features", "data_dir": str(features), "llm_name_or_path": lvlm,
        "codebook_size": 16, "max_events": 5, "window_cells": 10, "weight_size": 8, "output_dir": str(tmp_path / "two"),
        "max_steps": 2, "warmup_steps": 1, "per_device_train_batch_size": 2, "save_steps": 2, "use_cpu": True,
    }  # fmt: skip
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    recipe_on_two_ranks(recipe, "--config", tmp_path / "two.yaml")
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    assert (record["settings"]["batch_size"], record["settings"]["steps"]) == (4, 2)
    assert all(torch.isfinite(value).all() for value in VTEMModel.from_pretrained(tmp_path / "two/model").parameters())


def test_another_extractor_is_mapped_to_the_tower(videos, recipes, backbone, features, lvlm, tmp_path):
    """Features of a 3-D ResNet, tokens of the tower's features; versions and cells must be the same."""
    torch.manual_seed(0)
    save_backbone(AutoModel.from_config(BACKBONES["resnet3d"]()), tmp_path / "r3d")
    reading = {"num_segments": 10, "frames_per_segment": 2}
    clips = extract(videos, str(tmp_path / "r3d"), tmp_path / "clips", tmp_path / "cache", reading, grid=1, versions=2)
    vtem = train(clips, lvlm, tmp_path / "vtem", target_data_dir=features)
    model = VTEMModel.from_pretrained(vtem)
    assert model.config.maps_features and model.config.backbone_config.model_type == "resnet3d"
    events = encode(vtem, clips, tmp_path / "events", encodings=2)
    recogniser = tune(recipes, vtem, events, lvlm, tmp_path / "sft")
    assert recipes.evaluate(recogniser, events, tmp_path / "evaluation")["recordings"] == 2
    reading["num_segments"] = 8
    other = extract(videos, backbone, tmp_path / "other", tmp_path / "cache", reading, grid=1, versions=2)
    with pytest.raises(ValueError, match=r"not of the same cells and versions of videos .* differ in num_segments"):
        train(clips, lvlm, tmp_path / "wrong", target_data_dir=other)
    record = json.loads((tmp_path / "vtem" / "record.json").read_text())
    assert record["target_features"]["grid"] == 1


def test_codes_that_the_projector_does_not_take(videos, lvlm, llm, features, tmp_path):
    torch.manual_seed(0)
    config = BACKBONES["resnet"]()
    config.hidden_sizes = [8, 24]
    save_backbone(AutoModel.from_config(config), tmp_path / "wide")
    folder = extract(videos, str(tmp_path / "wide"), tmp_path / "cells", tmp_path / "cache", grid=1, versions=1)
    with pytest.raises(
        ValueError, match=r"vision tower in hidden_sizes\. Set --target_data_dir to features of that tower"
    ):
        train(folder, lvlm, tmp_path / "vtem")
    with pytest.raises(ValueError, match=r"a llama, has no projector of visual features"):
        train(features, llm, tmp_path / "blind")


def test_what_else_is_not_what_the_projector_reads(videos, features, lvlm, tmp_path):
    """An encoder of the same width, or another layer of the same one."""
    torch.manual_seed(0)
    save_backbone(AutoModel.from_config(BACKBONES["swinv2"]()), tmp_path / "swin")
    folder = extract(videos, str(tmp_path / "swin"), tmp_path / "cells", tmp_path / "cache", grid=1, versions=1)
    with pytest.raises(ValueError, match=r"differs from its vision tower in model_type, "):
        train(folder, lvlm, tmp_path / "vtem")
    shutil.copytree(features, tmp_path / "layer")
    identity = json.loads((tmp_path / "layer" / "identity.json").read_text())
    (tmp_path / "layer" / "identity.json").write_text(json.dumps(identity | {"feature_layer": 0}))
    with pytest.raises(ValueError, match=r"vision tower in feature_layer \(0 here, -1 there\)"):
        train(tmp_path / "layer", lvlm, tmp_path / "other")


def test_a_tower_that_has_seen_the_held_out_people_is_told():
    from action_llm_recipes.common.stage_records import check_held_out

    seen, unseen = {"stage": "pretrain_backbone", "hold_out": False}, {"stage": "pretrain_backbone", "hold_out": True}
    lvlm = {"stage": "pretrain_small_lvlm", "hold_out": True}
    for name, tokenizer, llm in (
        ("vision tower", {"target_features": {"backbone_training": seen}}, lvlm),
        ("vision tower of the small LVLM", {}, lvlm | {"features": {"backbone_training": seen}}),
    ):
        tokenizer = {"hold_out": True, "features": {"backbone_training": unseen}} | tokenizer
        record = {"hold_out": True, "sentences": {"tokenizer": tokenizer}, "llm_training": llm}
        with pytest.raises(ValueError, match=f"the {name} was trained on the held-out subjects"):
            check_held_out(record)
    check_held_out({"hold_out": True, "sentences": {"tokenizer": {"hold_out": True}}, "llm_training": lvlm})


def test_no_prompts(recipes, vtem, events, lvlm, tmp_path):
    for method in ("prefix", "prompt"):
        with pytest.raises(ValueError, match="prefix_length must be at least 1, got 0"):
            tune(recipes, vtem, events, lvlm, tmp_path / method, method=method, prefix_length=0)


def test_nothing_says_where_it_was_made(vtem, lvlm, features, llm):
    for folder in (vtem, lvlm):
        said = Path(folder, "config.json").read_text()
        assert str(features) not in said and llm not in said


def test_prompts_in_layers_that_there_are_not(recipes, vtem, events, lvlm, tmp_path):
    with pytest.raises(ValueError, match=r"`prefix_layers` must be different layers of 0 to 1, got \[1, 2\]"):
        tune(recipes, vtem, events, lvlm, tmp_path / "sft", prefix_layers=[1, 2])


# ------------------------------------------------------------------------------------------- windows and timelines


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """Four people, three of whom train, with three actions each between still stretches."""
    from action_llm_datasets.simulation.simulate_long import simulate_long

    folder = tmp_path_factory.mktemp("long")
    simulate_long(folder, performers=4, videos=1, actions_per_video=3, still=(1.0, 2.0), size=32, num_proc=1)
    return folder


@pytest.fixture(scope="module")
def long_features(long, backbone, tmp_path_factory):
    folder, cache = tmp_path_factory.mktemp("long_cells"), tmp_path_factory.mktemp("cache")
    reading = {"segment_seconds": 0.2, "num_segments": 1000, "frames_per_segment": 1}
    return extract(long, backbone, folder, cache, reading, grid=1, versions=1)


@pytest.fixture(scope="module")
def long_vtem(long_features, lvlm, tmp_path_factory):
    return train(long_features, lvlm, tmp_path_factory.mktemp("long_vtem"))


def cut(vtem, features, timeline, folder, **arguments):
    from action_llm_recipes import encode_windows as recipe

    settings = {"tokenizer": vtem, "timeline": str(timeline), "output_dir": str(folder)} | arguments
    return recipe.main(recipe.WindowArguments(**settings), DataArguments(dataset="features", data_dir=features))


def test_windows_have_the_class_of_their_time_and_timelines_are_scored(
    rendered, recipes, long, long_features, long_vtem, lvlm, tmp_path
):
    from action_llm_datasets.timelines import read_timeline
    from action_llm_recipes import timeline as recipe
    from action_llm_recipes.common.shards import SplitShards

    vtem = long_vtem
    record = cut(vtem, long_features, long / "timeline.csv", tmp_path / "windows", seconds=2.0, stride=0.5)
    rows, truth = load_action_sentences(tmp_path / "windows"), read_timeline(long / "timeline.csv")
    names = rows["train"].features["label"].names
    assert set(names) == {segment.label for found in truth.values() for segment in found} | {"standing still"}
    for row in [*rows["train"], *rows["test"]]:
        name, start = video_of_window(row["sample_id"])
        label = names[row["label"]]
        shown = {
            segment.label: (min(start + 2, segment.end) - max(start, segment.start))
            / min(2, segment.end - segment.start)
            for segment in truth[f"{name}.mp4"]
            if min(start + 2, segment.end) > max(start, segment.start)
        }
        assert (shown[label] > 0.45) if label != "standing still" else sum(shown.values()) < 0.3
        assert all(a <= b for a, b in pairwise(row["start_times"]))
    for split in ("train", "test"):
        found = record["splits"][split]
        assert found["sentences"] == len(rows[split]) and found["event_borders"]["true"] == 6 * found["recordings"]
        assert not SplitShards(tmp_path / "windows", split, len(rows[split])).missing()
    from action_llm_recipes import token_lexicon

    arguments = {"tokenizer": vtem, "sentences": str(tmp_path / "windows"), "data_dir": str(long)}
    token_lexicon.main(token_lexicon.LexiconArguments(output_dir=str(tmp_path / "lexicon"), **arguments))
    assert list((tmp_path / "lexicon").glob("act_*.png"))
    model = tune(recipes, vtem, str(tmp_path / "windows"), lvlm, tmp_path / "sft", list_classes=False)
    assert recipes.evaluate(model, str(tmp_path / "windows"), tmp_path / "evaluation")["recordings"] == len(
        rows["test"]
    )

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    tested = {video_of_window(name)[0] for name in rows["test"]["sample_id"]}
    trained = [str(path) for path in sorted(long.glob("*.mp4")) if path.stem not in tested]
    videos = [*(str(long / f"{name}.mp4") for name in tested), str(tmp_path / "broken.mp4")]
    settings = {
        "model": model,
        "recordings": videos,
        "truth": str(long / "timeline.csv"),
        "seconds": 2.0,
        "stride": 0.5,
    }
    metrics = recipe.main(recipe.TimelineArguments(output_dir=str(tmp_path / "timelines"), **settings))
    assert metrics["recordings"] == 1 and metrics["actions_true"] == 3 and 0 < metrics["share_of_time_correct"] < 1
    skipped = json.loads((tmp_path / "timelines" / "skipped.json").read_text())
    assert [Path(one["file"]).name for one in skipped] == ["broken.mp4"]
    name = Path(videos[0]).stem
    content = json.loads((tmp_path / "timelines" / f"{name}.json").read_text())
    assert content["spans"][0]["start"] == 0 and content["class_names"] == names
    with open(tmp_path / "timelines" / f"{name}.csv", newline="") as file:
        assert next(csv.reader(file)) == ["file_name", "start", "end", "label"]
    assert (tmp_path / "timelines" / f"{name}.png").stat().st_size > 5000
    other = {**settings, "output_dir": str(tmp_path / "none")}
    with pytest.raises(ValueError, match=r"none of 1 recordings could be read; .*broken"):
        recipe.main(recipe.TimelineArguments(**other | {"recordings": videos[1:], "truth": None}))
    with pytest.raises(ValueError, match=r"timeline\.csv names none of the 1 recordings, such as broken\.mp4"):
        recipe.main(recipe.TimelineArguments(**other | {"recordings": videos[1:]}))
    with pytest.raises(
        ValueError, match=r"trained on 1 of the 2 test recordings, .* are not scored: leave out --truth"
    ):
        recipe.main(recipe.TimelineArguments(**other | {"recordings": [trained[0], videos[0]]}))
    with pytest.raises(ValueError, match=r"--nothing must be a class of the model, got 'standig still': choose from"):
        recipe.main(recipe.TimelineArguments(**other | {"nothing": "standig still"}))
    with pytest.raises(ValueError, match=r"was made with other .*recordings"):
        recipe.main(
            recipe.TimelineArguments(
                **settings | {"recordings": videos[:1], "output_dir": str(tmp_path / "timelines")}
            )
        )
    from action_llm_recipes import explain_actions

    with pytest.raises(ValueError, match=r"for windows of long videos, use timeline\.py"):
        explain_actions.main(
            explain_actions.ExplanationArguments(
                model=model, sentences=str(tmp_path / "windows"), output_dir=str(tmp_path / "explained"), count=1
            ),
            DataArguments(dataset="folder-video", data_dir=str(long)),
        )
    with pytest.raises(ValueError, match="two recordings have the same name"):
        recipe.main(recipe.TimelineArguments(**other | {"recordings": videos[:1] * 2}))


@pytest.mark.parametrize("scope", ["place", "frame"])
def test_windows_of_a_grid_have_the_events_of_every_place(scope, long, backbone, lvlm, tmp_path):
    reading = {"segment_seconds": 0.2, "num_segments": 1000, "frames_per_segment": 1}
    features = extract(long, backbone, tmp_path / "cells", tmp_path / "cache", reading, grid=2, versions=1)
    settings = {"max_events": 20, "window_cells": 40, "pooling_scope": scope}
    vtem = train(features, lvlm, tmp_path / "vtem", **settings)
    assert VTEMModel.from_pretrained(vtem).config.pooling_scope == scope
    record = cut(vtem, features, long / "timeline.csv", tmp_path / "windows", seconds=2.0, stride=0.5)
    assert record["splits"]["test"]["event_borders"]["true"] == 6
    for row in load_action_sentences(tmp_path / "windows")["test"]:
        assert len(row["action_ids"]) >= 4
        begins = [start for start in row["start_times"] if start <= 0]
        assert len(begins) <= 4  # at most one event at each place goes on from before
        if scope == "frame":
            assert (np.ptp(np.reshape(row["start_times"], (-1, 4)), axis=1) == 0).all()


def test_a_timeline_of_other_videos(long_vtem, long_features, tmp_path):
    (tmp_path / "other.csv").write_text("file_name,start,end,label\nelsewhere.mp4,1,2,jumping\n")
    with pytest.raises(ValueError, match=r"other\.csv: elsewhere is none of the 4 videos in"):
        cut(long_vtem, long_features, tmp_path / "other.csv", tmp_path / "windows")


def test_windows_that_are_none(long_vtem, long_features, long, tmp_path):
    def cut_with(folder="windows", timeline=long / "timeline.csv", **arguments):
        return cut(long_vtem, long_features, timeline, tmp_path / folder, **arguments)

    for wrong, message in (
        ({"seconds": 1.0, "stride": 2.0}, "or it leaves gaps"),
        ({"clear_share": 5.0}, "clear_share must be above 0 and at most 1, got 5"),
        ({"nothing": " "}, "nothing must be a name"),
    ):
        with pytest.raises(ValueError, match=message):
            cut_with(**wrong)
    assert not (tmp_path / "windows").exists()  # and it can be used
    with pytest.raises(ValueError, match=r"none of 3 windows of train has a clear class: set shorter --seconds"):
        cut_with("long", seconds=100.0)
    assert not (tmp_path / "long" / "record.json").exists()
    header = "file_name,start,end,label\n"
    (tmp_path / "empty.csv").write_text(header)
    with pytest.raises(ValueError, match=r"empty\.csv holds no action"):
        cut_with("empty", tmp_path / "empty.csv")
    (tmp_path / "twice.csv").write_text(header + "P001_V001.mp4,1,2,a\nP001_V001.mkv,3,4,b\n")
    with pytest.raises(ValueError, match=r"twice\.csv: two files are called P001_V001"):
        cut_with("twice", tmp_path / "twice.csv")


@pytest.mark.parametrize(
    ("window", "label"),
    [
        ((0.0, 2.0), "nothing"),
        ((1.9, 3.9), None),  # a little of an action
        ((2.0, 6.0), "jumping"),
        ((4.0, 8.0), "jumping"),
        ((5.5, 9.5), None),  # most of the one, all of the other
        ((8.4, 9.4), "bowing"),
        ((0.0, 12.0), None),
    ],
)
def test_the_class_of_a_window(window, label):
    from action_llm.sliding_windows import Window
    from action_llm_datasets.timelines import Segment
    from action_llm_recipes import encode_windows as recipe

    arguments = recipe.WindowArguments(tokenizer="", timeline="", output_dir="", nothing="nothing")
    actions = [Segment(3.0, 7.0, "jumping"), Segment(8.0, 9.0, "bowing")]
    assert recipe.class_of(Window(*window, known=window[1], content=[]), actions, arguments) == label


# ------------------------------------------------------------------------------------------------------- one command


def test_one_command(videos, llm, tmp_path):
    from action_llm_recipes import run_line

    size = {"num_segments": 6, "frames_per_segment": 1, "height": 32, "width": 32}
    short = {"max_steps": 2, "per_device_train_batch_size": 4, "disable_tqdm": True, "use_cpu": True}
    configs = {
        "backbone": {"widths": [4, 8], "num_train_epochs": 1, "use_cpu": True, "disable_tqdm": True} | size,
        "features": {"versions": 2, "grid": 1} | size,
        "lvlm": short,
        "tokenizer": {"action_model": "vtem", "codebook_size": 8, "max_events": 3, "window_cells": 6} | short,
        "sft": {"method": "prefix", "prefix_length": 2, "gradient_accumulation_steps": 1} | INSTRUCTIONS | short,
    }
    for name, config in configs.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    settings = {f"{name}_config": str(tmp_path / f"{name}.yaml") for name in configs}
    data = DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache"))
    metrics = run_line.main(
        run_line.PipelineArguments(
            output_dir=str(tmp_path / "run"),
            paper="vt_lvlm_ar",
            llm_name_or_path=llm,
            encodings=2,
            hold_out=True,
            **settings,
        ),
        data,
    )
    assert (metrics["split"], metrics["recordings"]) == ("held_out", 2)
    with pytest.raises(ValueError, match=r"--paper: expected lvlm_var or vt_lvlm_ar for videos, found 'llm_ar'"):
        run_line.main(
            run_line.PipelineArguments(output_dir=str(tmp_path / "no"), paper="llm_ar", llm_name_or_path=llm), data
        )


def test_every_stage_of_every_pipeline_has_settings():
    """Those that `run_line.py` takes where none are given."""
    from action_llm_recipes import run_line

    stages = {"llm_ar": [], "lvlm_var": ["backbone", "features"], "vt_lvlm_ar": ["backbone", "features", "lvlm"]}
    for pipeline, first in stages.items():
        for stage in [*first, "tokenizer", "sft"]:
            assert run_line.read_settings(run_line.PipelineArguments(output_dir="run"), stage, pipeline)


def test_the_papers_settings():
    sft, tokenizer = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("sft", "tokenizer"))
    batch = sft["per_device_train_batch_size"] * sft["gradient_accumulation_steps"]
    assert (batch, sft["max_steps"] * sft["gradient_accumulation_steps"], sft["learning_rate"]) == (128, 50_000, 2e-3)
    assert sft["prefix_length"] == 16 and sft["method"] == "prefix"
    assert (tokenizer["max_steps"], tokenizer["per_device_train_batch_size"]) == (200_000, 128)
    assert (tokenizer["learning_rate"], tokenizer["codebook_size"], tokenizer["max_events"]) == (1e-4, 2048, 256)
