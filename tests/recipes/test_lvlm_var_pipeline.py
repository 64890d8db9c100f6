"""The recipes of LVLM-VAR with tiny models: features, action model, sentences, language model, evaluation."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_features import extract
from tiny_models import BACKBONES, save_backbone
from tiny_videos import damaged, tiny_video
from transformers import AutoFeatureExtractor, AutoModel

from action_llm import ActionLLMForClassification, ActionLLMProcessor, VSTModel, feature_extraction_video
from action_llm.video_frames import VideoFileError
from action_llm_datasets.load import PROTOCOLS
from action_llm_recipes.baselines import run_baselines
from action_llm_recipes.common.action_features import load_features
from action_llm_recipes.common.action_sentences import load_action_sentences
from action_llm_recipes.common.data_arguments import DataArguments


@pytest.fixture(scope="module")
def features(videos, backbone, tmp_path_factory):
    return extract(videos, backbone, tmp_path_factory.mktemp("features"), tmp_path_factory.mktemp("cache"))


def train(features, llm, folder, arguments=None, training=None, **model):
    from action_llm_recipes import train_tokenizer as recipe
    from action_llm_recipes.stages.video_stage import VSTArguments

    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "codebook_size": 16}
    settings = {"max_steps": 4, "per_device_train_batch_size": 4, "warmup_steps": 1, "learning_rate": 1e-3}
    settings |= {
        "logging_steps": 2,
        "save_steps": 2,
        "disable_tqdm": True,
        "use_cpu": True,
        "lr_scheduler_type": "cosine",
    }
    recipe.main(
        recipe.TokenizerArguments(llm_name_or_path=llm, action_model="vst", **(arguments or {})),
        DataArguments(dataset="features", data_dir=features),
        VSTArguments(**small | model),
        recipe.TokenizerTrainingArguments(**{"output_dir": str(folder)} | settings | (training or {})),
    )
    return f"{folder}/model"


@pytest.fixture(scope="module")
def tokenizer(features, llm, tmp_path_factory):
    return train(features, llm, tmp_path_factory.mktemp("vst"), kmeans_init=True)


def encode(tokenizer, features, folder, **arguments):
    from action_llm_recipes import encode_actions as recipe

    recipe.main(
        recipe.EncodingArguments(tokenizer=tokenizer, output_dir=str(folder), **arguments),
        DataArguments(dataset="features", data_dir=features),
    )
    return str(folder)


def test_features_are_those_of_the_videos(videos, backbone, features):
    rows = load_features(features)
    assert len(rows["train"]) == 30 and len(rows["test"]) == 2
    assert rows["train"]["version"] == [0, 1, 2] * 10
    extractor = AutoFeatureExtractor.from_pretrained(features)
    model = VSTModel.from_backbone(AutoModel.from_pretrained(backbone), quantize=False, direct=True).eval()
    row = rows["test"][1]
    made = extractor(videos / f"{row['sample_id']}.mp4")
    with torch.no_grad():
        expected = model.features(made["pixel_values"])[0]
    assert row["shape"] == [6, 2, 16] and row["frame_rate"] == pytest.approx(6.0)
    np.testing.assert_allclose(np.reshape(row["features"], row["shape"]), expected, rtol=1e-5, atol=1e-6)


def test_a_stopped_run_goes_on_and_broken_videos_are_listed(videos, backbone, tmp_path, monkeypatch):
    """A video whose head is whole is found out only when its frames are asked for."""
    opened = feature_extraction_video.open_video

    def open_video(recording, **settings):
        if recording.path.endswith("clip03.mp4"):
            raise VideoFileError(recording.path, "no frame that can be decoded")
        return opened(recording, **settings)

    monkeypatch.setattr(feature_extraction_video, "open_video", open_video)
    folder = extract(videos, backbone, tmp_path / "features", tmp_path / "cache", versions=1)
    skipped = json.loads((tmp_path / "features" / "skipped.json").read_text())
    assert [(one["split"], one["sample_id"]) for one in skipped] == [("train", "clip03")]
    assert "no frame that can be decoded" in skipped[0]["reason"]
    shard = next((tmp_path / "features" / "train").glob("*.parquet"))
    before = shard.read_bytes()
    shard.unlink()
    extract(videos, backbone, tmp_path / "features", tmp_path / "cache", versions=1)
    assert shard.read_bytes() == before and len(load_features(folder)["train"]) == 9
    with pytest.raises(ValueError, match="versions"):
        extract(videos, backbone, tmp_path / "features", tmp_path / "cache", versions=2)


@pytest.mark.parametrize("reading", [{}, {"segment_seconds": 0.1}], ids=["sparse", "stream"])
def test_damaged_and_unreadable_videos_are_in_the_record(videos, backbone, tmp_path, reading):
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos" / "clip02.mp4").write_bytes(damaged(tiny_video(24, key_every=8, height=96, width=128), 5))
    (tmp_path / "videos" / "clip03.mp4").write_bytes(tiny_video()[:-1000])
    with pytest.warns(UserWarning, match=r"clip02\.mp4: .* of the frames are damaged"):
        folder = extract(tmp_path / "videos", backbone, tmp_path / "features", tmp_path / "cache", reading, versions=2)
    skipped, damage = (json.loads(Path(folder, f"{name}.json").read_text()) for name in ("skipped", "damaged"))
    assert [(entry["split"], entry["sample_id"], entry["file"]) for entry in skipped] == [(None, None, "clip03.mp4")]
    assert "an MP4 file without its index" in skipped[0]["reason"]
    assert [(entry["split"], entry["sample_id"]) for entry in damage] == [("train", "clip02")]
    assert 0 < damage[0]["damaged_frames"] < damage[0]["decoded_frames"] <= 24
    record = json.loads(Path(folder, "record.json").read_text())
    assert record["splits"]["train"] == {"videos": 9, "skipped": 0, "damaged": 1} and record["unreadable_files"] == 1
    assert len(load_features(folder)["train"]) == 18


def test_sentences_of_several_versions_of_a_test_video(videos, backbone, features, tokenizer, llm, recipes, tmp_path):
    """The first is what one alone is; a recording is scored once."""
    several = extract(videos, backbone, tmp_path / "features", tmp_path / "cache", versions=2, test_versions=3)
    test, alone = load_features(several)["test"], load_features(features)["test"]
    assert test["version"] == [0, 1, 2] * 2 and test["features"][0] == alone["features"][0]
    assert len({str(values) for values in test["features"]}) == 6
    with pytest.raises(
        ValueError, match=r"--test_encodings 4: .* has 3 versions of each video of test\. Run .* --test_versions 4 and"
    ):
        encode(tokenizer, several, tmp_path / "sentences", test_encodings=4)
    with pytest.raises(
        ValueError, match=r"--encodings 3: .* has 2 versions of each video of train\. Run .* --versions 3"
    ):
        encode(tokenizer, several, tmp_path / "sentences", encodings=3)
    own = train(several, llm, tmp_path / "vst", kmeans_init=True)
    sentences = encode(own, several, tmp_path / "sentences", encodings=2, test_encodings=3)
    model = recipes.sft(own, sentences, tmp_path / "sft")
    mean = recipes.evaluate(model, sentences, tmp_path / "mean", encodings=3)
    assert (mean["recordings"], mean["encodings"]) == (2, 3)


def test_the_whole_line(videos, features, tokenizer, llm, recipes, tmp_path):
    sentences = encode(tokenizer, features, tmp_path / "sentences", encodings=2)
    rows = load_action_sentences(sentences)
    assert rows["train"]["encoding"] == [0, 1] * 10 and len(rows["test"]) == 2
    told = json.loads(Path(sentences, "tokens.json").read_text())
    assert told["train"]["recordings"] == 10 and told["train"]["num_action_tokens"] == 16
    row = rows["test"][0]
    assert row["start_times"][0] == 0 and row["end_times"][-1] == pytest.approx(1.0)
    assert row["end_times"][:-1] == pytest.approx(row["start_times"][1:])
    assert all(a != b for a, b in zip(row["action_ids"], row["action_ids"][1:], strict=False))
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    result = recipes.evaluate(model, sentences, tmp_path / "evaluation")
    assert result["recordings"] == 2
    loaded, processor = ActionLLMForClassification.from_pretrained(model), ActionLLMProcessor.from_pretrained(model)
    with torch.no_grad():
        outputs = loaded(**processor(videos / f"{row['sample_id']}.mp4"))
    ids = outputs.action_ids[0][outputs.action_attention_mask[0].bool()]
    assert ids.tolist() == row["action_ids"]
    data = DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache"))
    recipes.explain(model, sentences, tmp_path / "why", data, count=2, faithfulness_count=2)
    told = [json.loads(text) for text in (tmp_path / "why" / "explanations.jsonl").read_text().splitlines()]
    assert [one["sample_id"] for one in told] == rows["test"]["sample_id"] and not told[0]["narration"]
    assert sorted(one["action_id"] for one in told[0]["evidence"]) == (sorted(ids.tolist()) if len(ids) > 1 else [])
    page = (tmp_path / "why" / "index.html").read_text()
    assert (
        all((tmp_path / "why" / f"{one['sample_id']}.png").is_file() for one in told) and told[0]["text"][:20] in page
    )


def test_the_lexicon_shows_frames_and_says_what_tokens_mean(videos, features, tokenizer, recipes, tmp_path):
    from matplotlib.image import imread

    from action_llm.video_files import open_video
    from action_llm_recipes import token_lexicon as recipe

    sentences = encode(tokenizer, features, tmp_path / "sentences")
    arguments = recipe.LexiconArguments(
        tokenizer=tokenizer, sentences=sentences, output_dir=str(tmp_path / "lexicon"), data_dir=str(videos)
    )
    entries = [entry for entry in recipe.main(arguments) if entry.count]
    # The squares of the videos go right or down.
    assert all(0 < entry.measured <= 12 and 0 < entry.agreement <= 1 for entry in entries)
    texts = " ".join(entry.description for entry in entries)
    assert "to the viewer's right" in texts or "down" in texts
    assert "to the viewer's left" not in texts and " up" not in texts
    descriptions = {entry.action_id: entry.description for entry in entries}
    page = (tmp_path / "lexicon" / "index.html").read_text()
    assert entries
    for entry in entries:
        name = f"act_{entry.action_id}.png"
        assert name in page
        strip = imread(tmp_path / "lexicon" / name)
        width = (2 * recipe.FRAME_HEIGHT + recipe.GAP) * len(entry.examples) - recipe.GAP
        assert strip.shape[:2] == (recipe.FRAME_HEIGHT, width)
        sample_id, _, end = entry.examples[-1]
        with open_video(videos / f"{sample_id}.mp4") as video:
            expected = video.frames_at([end - 0.5 / video.info.fps], (recipe.FRAME_HEIGHT, recipe.FRAME_HEIGHT))[0]
        np.testing.assert_allclose(strip[:, -recipe.FRAME_HEIGHT :, :3] * 255, expected, atol=1)
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    data = DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache"))
    settings = {
        "count": 2,
        "faithfulness_count": 2,
        "num_reasons": 1,
        "lexicon": str(tmp_path / "lexicon"),
        "name_tokens": True,
    }
    recipes.explain(model, sentences, tmp_path / "why", data, **settings)
    told = [json.loads(text) for text in (tmp_path / "why" / "explanations.jsonl").read_text().splitlines()]
    for one in told:
        named = [token for token in one["evidence"][:1] if token["contribution"] > 0]
        for token in named:
            description = descriptions[token["action_id"]]
            assert (
                f" s (<act_{token['action_id']}>{f': as a rule, {description}' if description else ''})."
                in one["text"]
            )
            assert re.search(r"Strongest evidence: (something|hardly anything|the whole figure) ", one["text"])


def test_where_the_line_loses(videos, features, tokenizer, tmp_path):
    """Classifiers of pixels, of features, of latents and of tokens, on the same recordings."""

    settings = {"encodings": 3, "seeds": 1, "transformer_steps": 30}
    pixels = run_baselines.main(
        run_baselines.BaselineArguments(output_dir=str(tmp_path / "pixels"), **settings),
        DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache")),
    )
    # A square that goes right and one that goes down are easily told by their pixels.
    assert list(pixels["accuracy"]) == ["kernel_ridge"] and pixels["accuracy"]["kernel_ridge"]["estimate"] == 1
    sentences = encode(tokenizer, features, tmp_path / "sentences", encodings=2, latents=True)
    loss = run_baselines.BaselineArguments(
        output_dir=str(tmp_path / "loss"),
        methods=["transformer", "latents", "tokens"],
        sentences=sentences,
        **settings,
    )
    data = DataArguments(dataset="features", data_dir=features)
    result = run_baselines.main(loss, data)
    assert result["recordings"] == 2 and list(result["accuracy"]) == loss.methods
    identity = json.loads((tmp_path / "loss" / "identity.json").read_text())
    assert identity["features"]["versions"] == 3 and identity["encodings"] == 3
    with pytest.raises(ValueError, match="no method 'graph' for features: choose from kernel_ridge, transformer,"):
        run_baselines.main(run_baselines.BaselineArguments(output_dir=str(tmp_path), methods=["graph"]), data)


def test_features_as_examples_are_means_of_views_in_versions(features):
    from action_llm_recipes.baselines.sequences import read_recordings

    rows = load_features(features)
    examples = read_recordings("features", rows, features, "test", 2, None)
    assert examples.train_versions == [0, 1] * 10 and len(examples.evaluation) == 2
    expected = np.reshape(rows["train"][4]["features"], (6, 2, 16)).mean(axis=1)
    np.testing.assert_allclose(examples.train[3], expected, rtol=1e-6)
    held_out = read_recordings("features", rows, features, "held_out", 3, None)
    assert held_out.sample_ids == ["clip08", "clip09"] and held_out.train_versions == [0, 1, 2] * 8


def test_features_of_another_visual_encoder_are_refused(videos, features, tokenizer, llm, tmp_path):
    """Same recordings, same shapes: only the weights, or the frames that it saw, tell."""
    torch.manual_seed(1)
    save_backbone(AutoModel.from_config(BACKBONES["resnet"]()), tmp_path / "other")
    other = extract(videos, str(tmp_path / "other"), tmp_path / "features", tmp_path / "cache")
    with pytest.raises(
        ValueError, match="not those of the action model, which was trained with another visual encoder"
    ):
        encode(tokenizer, other, tmp_path / "sentences")
    with pytest.raises(ValueError, match=r"was made with other features: choose another --output_dir"):
        train(features, llm, tmp_path / "vst")
        train(other, llm, tmp_path / "vst")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_visual_encoder_that_was_saved_in_half_precision(videos, llm, recipes, tmp_path, dtype):
    """Everything after it is float32, from the features to the file that is recognised."""
    torch.manual_seed(0)
    save_backbone(AutoModel.from_config(BACKBONES["resnet"]()).to(dtype), tmp_path / "backbone")
    features = extract(videos, str(tmp_path / "backbone"), tmp_path / "features", tmp_path / "cache", versions=1)
    tokenizer = train(features, llm, tmp_path / "vst")
    assert {one.dtype for one in AutoModel.from_pretrained(tokenizer).parameters()} == {torch.float32}
    sentences = encode(tokenizer, features, tmp_path / "sentences")
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    assert recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 2


def test_videos_are_read_ahead_in_order_and_whole():
    import threading
    import time

    from action_llm_recipes.extract_features import map_ahead

    seen = set()

    def read(row):
        seen.add(threading.get_ident())
        time.sleep(0.02 * (5 - row))
        return -row

    assert list(map_ahead(read, range(5), 3)) == [(row, -row) for row in range(5)]
    assert len(seen) > 1 and threading.get_ident() not in seen


def test_parts_of_a_video_come_in_order_and_problems_come_through():
    from action_llm_recipes.extract_features import prefetch

    def parts():
        yield from (torch.tensor([number]) for number in range(3))
        raise VideoFileError("clip.mp4", "no more")

    found = []
    with pytest.raises(VideoFileError, match="no more"):
        for part in prefetch(parts()):
            found.append(int(part))
    assert found == [0, 1, 2] and list(prefetch(iter([]))) == []


def test_a_video_of_which_a_version_fails_is_left_out_as_a_whole(videos, backbone, tmp_path, monkeypatch):
    from action_llm import VideoFeatureExtractor

    vary = VideoFeatureExtractor._variation

    def fails(self, recording, path, seed):
        if seed is not None and path.endswith("clip03.mp4"):
            raise VideoFileError(path, "a frame that breaks off")
        return vary(self, recording, path, seed)

    monkeypatch.setattr(VideoFeatureExtractor, "_variation", fails)
    rows = load_features(extract(videos, backbone, tmp_path / "features", tmp_path / "cache", versions=2))["train"]
    assert "clip03" not in rows["sample_id"] and rows["version"] == [0, 1] * 9


def test_standardisation_is_that_of_segments(features):
    from action_llm_recipes.stages.video_stage import feature_statistics

    rows = load_features(features)["train"]
    segments = np.concatenate([np.reshape(row["features"], row["shape"]).mean(axis=1) for row in rows])
    mean, deviation = feature_statistics(rows)
    np.testing.assert_allclose(mean, segments.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation, segments.std(axis=0), rtol=1e-4, atol=1e-6)


def test_backbones_of_clips_get_as_many_frames_as_they_were_made_for(tmp_path):
    from action_llm_recipes import extract_features as recipe

    save_backbone(AutoModel.from_config(BACKBONES["resnet"]()), tmp_path)

    def frames(kind, **given):
        config = BACKBONES[kind]()
        return recipe.video_settings(str(tmp_path), None, config, recipe.VideoArguments(**given)).get(
            "frames_per_segment"
        )

    assert [frames(kind) for kind in ("videomae", "vjepa2", "resnet3d", "resnet")] == [4, 4, 4, None]
    assert frames("videomae", frames_per_segment=8) == 8


def test_a_stage_of_another_protocol_may_have_seen_the_test():
    from action_llm_recipes.common.stage_records import check_dataset

    def record(encoder, tokenizer="ntu60-xsub-video"):
        features = {"backbone_training": {"dataset": encoder}}
        sentences = {"dataset": "ntu60-xsub-video", "tokenizer": {"dataset": tokenizer, "features": features}}
        return {"sentences": sentences}

    check_dataset(record("ntu60-xsub-video-with-skeletons"), "ntu60-xsub-video")
    check_dataset(record("uav-human-csv1-video"), "ntu60-xsub-video")
    with pytest.raises(
        ValueError, match="the visual encoder was trained on ntu60-xview-video: its training recordings"
    ):
        check_dataset(record("ntu60-xview-video"), "ntu60-xsub-video")
    with pytest.raises(ValueError, match="the action model was trained on ntu120-xset-video"):
        check_dataset(record("ntu60-xsub-video", "ntu120-xset-video"), "ntu60-xsub-video")
    with pytest.raises(
        ValueError, match="the model was trained on 'ntu60-xsub-video', but the sentences are of 'ntu60-xview"
    ):
        check_dataset(record("ntu60-xsub-video"), "ntu60-xview-video")


def test_places_are_spread_and_none_comes_twice(videos, features, tokenizer, recipes, tmp_path):
    from action_llm_recipes.explain_actions import spread

    assert spread(7, 20) == list(range(7)) and spread(10, 3) == [0, 4, 9] and spread(1, 5) == [0]
    sentences = encode(tokenizer, features, tmp_path / "sentences")
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft")
    data = DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache"))
    # No sentence has so many tokens: it explains all the same.
    metrics = recipes.explain(model, sentences, tmp_path / "why", data, count=9, num_reasons=50)
    assert metrics["sentences"] == 0 and json.loads((tmp_path / "why" / "metrics.json").read_text())["whole"] is None
    assert len((tmp_path / "why" / "explanations.jsonl").read_text().splitlines()) == 2
    assert "was not measured" in (tmp_path / "why" / "index.html").read_text()


def test_what_cannot_be_is_said_before_it_is_done(videos, backbone, features, tokenizer, llm, tmp_path):
    with pytest.raises(ValueError, match="versions must be at least 1, got 0"):
        extract(videos, backbone, tmp_path / "features", tmp_path / "cache", versions=0)
    with pytest.raises(ValueError, match=r"trim_black needs the whole video .*: set trim_black to False"):
        extract(videos, backbone, tmp_path / "dense", tmp_path / "cache", {"segment_seconds": 0.5, "trim_black": True})
    assert not (tmp_path / "dense" / "identity.json").exists()
    with pytest.raises(ValueError, match="is a llama, which does not read images"):
        extract(videos, llm, tmp_path / "features", tmp_path / "cache")
    with pytest.raises(ValueError, match=r"there is no folder \./nobody"):
        extract(videos, "./nobody", tmp_path / "features", tmp_path / "cache")
    with pytest.raises(ValueError, match="narrator needs joints, but the recordings are features of videos"):
        encode(tokenizer, features, tmp_path / "sentences", explanations="narrator")
    (tmp_path / "one.jsonl").write_text('{"sample_id": "clip01", "explanation": "A square goes down."}\n')
    folder = encode(tokenizer, features, tmp_path / "sentences", explanations=str(tmp_path / "one.jsonl"), encodings=2)
    splits = json.loads(Path(folder, "record.json").read_text())["splits"]
    assert (splits["train"]["explained"], splits["test"]["explained"]) == (1, 0)


def test_features_of_before_a_setting_was_there_are_those_of_its_default(tokenizer, features, tmp_path):
    old = shutil.copytree(features, tmp_path / "old")
    identity = json.loads((old / "identity.json").read_text())
    assert identity["extractor"].pop("trim_black") is False
    (old / "identity.json").write_text(json.dumps(identity))
    assert load_action_sentences(encode(tokenizer, str(old), tmp_path / "sentences"))["test"]
    identity["extractor"]["fit"] = "pad"
    (old / "identity.json").write_text(json.dumps(identity))
    with pytest.raises(ValueError, match="which was trained with another fit"):
        encode(tokenizer, str(old), tmp_path / "other")


def test_sentences_of_an_older_version_are_told(tokenizer, features, tmp_path):
    import pyarrow.parquet as pq

    folder = encode(tokenizer, features, tmp_path / "sentences")
    for path in Path(folder).rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["start_times", "end_times"]), path)
    shutil.rmtree(Path(folder, ".cache"))
    with pytest.raises(ValueError, match=r"was written by an older version of encode_actions\.py"):
        load_action_sentences(folder)


def test_a_run_learns_logs_and_is_resumed_exactly(features, llm, tmp_path):
    training = {"max_steps": 40, "save_steps": 20, "logging_steps": 10}
    whole = train(features, llm, tmp_path / "whole", training=training, kmeans_init=True)
    log = [json.loads(text) for text in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [entry for entry in log if "reconstruction_loss" in entry]
    assert losses[-1]["reconstruction_loss"] < losses[0]["reconstruction_loss"]
    assert {"alignment_loss", "consistency_loss", "codebook/perplexity"} <= set(losses[-1])
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "model")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "checkpoint-40")
    (tmp_path / "stopped" / "record.json").unlink()
    resumed = train(features, llm, tmp_path / "stopped", training=training, kmeans_init=True)
    one, other = (VSTModel.from_pretrained(folder).state_dict() for folder in (whole, resumed))
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {"quantize": False},
        {"direct": True, "quantize": False},
        {"codebook_size": 8},
        {"codebook_size": 32},
        {"num_roles": 2},
        {"merge_runs": False},
    ],
)
def test_ablations_are_one_setting_each(features, llm, recipes, tmp_path, settings):
    """LVLM-VAR, Tables 2 and 6."""
    tokenizer = train(features, llm, tmp_path / "vst", **settings)
    latents = not settings.get("quantize", True)
    sentences = encode(tokenizer, features, tmp_path / "sentences", latents=latents)
    injected = {"injection_layer": 0} if latents else {}
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", **injected)
    assert recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 2


@pytest.mark.parametrize(
    ("kind", "frames"),
    [("swinv2", 1), ("videomae", 4), ("resnet3d", 4)],
    ids=["of pictures, one per segment", "of clips", "of clips, of this project"],
)
def test_other_visual_encoders(videos, llm, tmp_path, kind, frames):
    """LVLM-VAR, Table 2, "ResNet-50 as the encoder": it is one setting of extract_features.py."""
    torch.manual_seed(0)
    save_backbone(AutoModel.from_config(BACKBONES[kind]()), tmp_path / "backbone")
    from action_llm_recipes import extract_features as recipe

    recipe.main(
        recipe.FeatureArguments(backbone=str(tmp_path / "backbone"), output_dir=str(tmp_path / "features")),
        DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache")),
        recipe.VideoArguments(num_segments=3, frames_per_segment=frames),
    )
    row = load_features(tmp_path / "features")["test"][0]
    assert row["shape"] == [3, 1, 16]
    tokenizer = train(str(tmp_path / "features"), llm, tmp_path / "vst")
    assert AutoModel.from_pretrained(tokenizer).config.backbone_config.model_type == kind
    rows = load_action_sentences(encode(tokenizer, str(tmp_path / "features"), tmp_path / "sentences"))
    assert len(rows["train"]) == 10


@pytest.mark.slow
def test_toyota_smarthome_as_video(backbone, llm, recipes, tmp_path):
    """LVLM-VAR, section 4.1: skeletons are drawn, and the drawings go the way of every video. These are made up."""
    from skeleton_people import smarthome_text

    from action_llm_datasets.render import render
    from action_llm_recipes import extract_features as recipe

    (tmp_path / "made_up").mkdir()
    for number in range(8):
        activity, subject = ("Walk", "Sitdown")[number % 2], (3, 4, 19, 2)[number // 2]
        file = tmp_path / "made_up" / f"{activity}_p{subject:02d}_r00_v01_c03_pose3d.json"
        file.write_bytes(smarthome_text([1] * (10 + number)))
    render("smarthome-cs", tmp_path / "made_up", tmp_path / "drawn", size=64)
    features = str(tmp_path / "features")
    recipe.main(
        recipe.FeatureArguments(backbone=backbone, output_dir=features),
        DataArguments(
            dataset="smarthome-cs-video", data_dir=str(tmp_path / "drawn"), cache_dir=str(tmp_path / "cache")
        ),
        recipe.VideoArguments(num_segments=3, frames_per_segment=2, height=32, width=32),
    )
    tokenizer = train(features, llm, tmp_path / "vst")
    sentences = encode(tokenizer, features, tmp_path / "sentences")
    rows = load_action_sentences(sentences)
    assert rows["train"]["held_out"] == [name.split("_")[1] == "p19" for name in rows["train"]["sample_id"]]
    result = recipes.evaluate(recipes.sft(tokenizer, sentences, tmp_path / "sft"), sentences, tmp_path / "evaluation")
    assert result["recordings"] == 2 and result["classes"] == 31
    # What is compared on this data set is the mean over classes, and the features know of which one they are.
    assert (result["dataset"], result["compared_by"]) == ("smarthome-cs-video", "mean_per_class")


def test_lengths_of_runs_in_sentences(videos, features, tokenizer, recipes, tmp_path):
    """LVLM-VAR, section 3.1, "temporal attributes": off by default."""
    sentences = encode(tokenizer, features, tmp_path / "sentences")
    rows = load_action_sentences(sentences)["test"]
    assert [sum(one) for one in rows["run_lengths"]] == [6, 6]
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", run_lengths=True)
    assert recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 2
    data = DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache"))
    recipes.explain(model, sentences, tmp_path / "why", data, count=2, faithfulness_count=2, num_reasons=1)
    told = json.loads((tmp_path / "why" / "explanations.jsonl").read_text().splitlines()[0])
    loaded, processor = ActionLLMForClassification.from_pretrained(model), ActionLLMProcessor.from_pretrained(model)
    with torch.no_grad():
        outputs = loaded(**processor(videos / "clip10.mp4"))
    assert float(outputs.probabilities.max()) == pytest.approx(told["probability"], abs=1e-5)
    assert outputs.run_lengths.sum() == 6
    unmerged = train(features, recipes.llm, tmp_path / "vst", merge_runs=False)
    other = encode(unmerged, features, tmp_path / "unmerged")
    with pytest.raises(ValueError, match="does not merge equal tokens"):
        recipes.sft(unmerged, other, tmp_path / "not", run_lengths=True)


@pytest.mark.parametrize("settings", [{"method": "none"}, {"lora_r": 16}, {"lora_r": 32}])
def test_ablations_of_stage_two(features, tokenizer, recipes, tmp_path, settings):
    """LVLM-VAR, Table 2, "w/o LoRA", and the ranks of Table 6."""
    sentences = encode(tokenizer, features, tmp_path / "sentences")
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", **settings)
    assert recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 2
    record = json.loads(Path(model, "record.json").read_text())
    assert record["method"] == settings.get("method", "lora")
    assert record["settings"]["lora_r"] == settings.get("lora_r", 4)


def test_each_recipe_says_what_it_reads(features, videos, tmp_path):
    with pytest.raises(ValueError, match="features holds features, but this recipe reads skeletons"):
        DataArguments(dataset="features", data_dir=features).load()
    with pytest.raises(ValueError, match="folder-video holds videos, but this recipe reads features"):
        DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path)).load("features")
    with pytest.raises(
        FileNotFoundError, match=r"has no record\.json, so extract_features\.py has not finished there"
    ):
        load_features(tmp_path)


def test_held_out_videos(features, llm, tmp_path):
    train(features, llm, tmp_path, arguments={"hold_out": True})
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["recordings"] == 8 and record["evaluated_on"] == "held-out training subjects"


def test_configs_have_the_papers_settings():
    """LVLM-VAR, section 4.1."""
    folder = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "lvlm_var"
    tokenizer = yaml.safe_load((folder / "tokenizer.yaml").read_text())
    assert (tokenizer["max_steps"], tokenizer["per_device_train_batch_size"]) == (250_000, 256)
    assert (tokenizer["learning_rate"], tokenizer["lr_scheduler_type"], tokenizer["codebook_size"]) == (
        2e-4,
        "cosine",
        512,
    )
    sft = yaml.safe_load((folder / "sft.yaml").read_text())
    assert (sft["lora_r"], sft["lora_alpha"], sft["lora_dropout"], sft["learning_rate"]) == (8, 16, 0.1, 3e-3)
    batch = sft["per_device_train_batch_size"] * sft["gradient_accumulation_steps"]
    assert batch == 256 and sft["max_steps"] == round(75_000 * sft["per_device_train_batch_size"] / batch)
    text = (folder / "ntu60_features.yaml").read_text()
    features = yaml.safe_load(text)
    assert (features["num_segments"], features["frames_per_segment"]) == (32, 2)
    # The other data sets that the header names.
    protocols = set(re.findall(r"(?:ntu|uav|smarthome)[\w-]+-video", text))
    assert len(protocols) == 9 and protocols <= set(PROTOCOLS)


def test_a_backbone_of_ones_own(videos, tmp_path):
    from action_llm_recipes.pretraining import backbone as recipe

    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos" / "clip11.mp4").write_bytes(b"")

    def train(folder, **settings):
        training = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "disable_tqdm": True, "use_cpu": True}
        recipe.main(
            recipe.BackboneArguments(widths=[8, 8], hold_out=True, mixup=0.4),
            DataArguments(
                dataset="folder-video", data_dir=str(tmp_path / "videos"), cache_dir=str(tmp_path / "cache")
            ),
            recipe.VideoArguments(6, 1, height=32, width=32, channels="time", fit="pad", trim_black=True),
            recipe.BackboneTrainingArguments(output_dir=str(folder), **training | settings),
        )
        return folder / "model"

    whole = AutoModel.from_pretrained(train(tmp_path / "whole")).state_dict()
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "model")
    (tmp_path / "stopped" / "record.json").unlink()
    shutil.rmtree(max((tmp_path / "stopped" / "checkpoints").glob("checkpoint-*"), key=lambda one: int(one.name[11:])))
    resumed = AutoModel.from_pretrained(train(tmp_path / "stopped")).state_dict()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    with pytest.raises(ValueError, match="mixup must be at least 0, got nan"):
        training = recipe.BackboneTrainingArguments(output_dir=str(tmp_path / "none"), use_cpu=True)
        recipe.main(recipe.BackboneArguments(mixup=float("nan")), None, None, training)
    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    skipped = json.loads((tmp_path / "whole" / "skipped.json").read_text())
    assert [entry["file"] for entry in skipped] == ["clip11.mp4"] and "an empty file" in skipped[0]["reason"]
    assert record["unreadable_files"] == 1
    assert record["recordings"] == 8 and 0 <= record["metrics"]["held_out_top_1"] <= 1
    encoder = str(tmp_path / "whole" / "model")
    extracted = extract(videos, encoder, tmp_path / "features", tmp_path / "cache", versions=1)
    assert load_features(extracted)["test"][0]["shape"] == [6, 2, 8]
    # Size, channels, frames, mean and deviation are its own unless they are given; it is not asked whether its code may run.
    from action_llm_recipes import extract_features

    config = AutoModel.from_pretrained(encoder).config
    own = extract_features.video_settings(encoder, None, config, extract_features.VideoArguments(width=48))
    assert (own["height"], own["width"], own["image_mean"]) == (32, 48, [0.485, 0.456, 0.406])
    assert (own["channels"], own["frames_per_segment"]) == ("time", 1)
    assert (own["fit"], own["trim_black"]) == ("pad", True)


def test_mixup_blends_videos_and_their_losses():
    from transformers import ResNetConfig

    from action_llm_recipes.pretraining.video_recogniser import VideoRecogniser

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    torch.manual_seed(0)
    model, seen = VideoRecogniser(config, 3, label_smoothing=0.0, mixup=1.0), []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    labels, videos = torch.tensor([0, 2]), torch.zeros(2, 3, 1, 3, 16, 16)
    videos[1] = 1
    blended = 0
    for _ in range(8):
        found = model.train()(videos, labels)
        first, second = seen[-1][:, 0, 0, 0, 0, 0].tolist()
        assert (seen[-1][0] == first).all() and first + second == pytest.approx(1)
        # A video that met itself is as it was.
        share = second
        blended += 0.01 < share < 0.99
        each = torch.nn.functional.cross_entropy(found["logits"], labels, reduction="none")
        other = torch.nn.functional.cross_entropy(found["logits"], labels.flip(0), reduction="none")
        torch.testing.assert_close(found["loss"], (share * each + (1 - share) * other).mean())
    assert blended
    model.eval()(videos, labels)
    assert torch.equal(seen[-1], videos)


def test_a_model_that_sees_describes_training_videos(videos, tokenizer, features, tmp_path):
    """A tiny LLaVA, whose words mean nothing; each clip once, whatever was cut off."""
    from tiny_models import VISION_LANGUAGE, tiny_tokenizer
    from transformers import AutoModelForImageTextToText, CLIPImageProcessor, LlavaProcessor

    from action_llm_recipes.pretraining import describe_videos as recipe

    words = tiny_tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = VISION_LANGUAGE["llava"](len(words))
    config.image_token_index = config.image_token_id = words.convert_tokens_to_ids("<image>")
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "lvlm")
    size = {"height": 16, "width": 16}
    pictures = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    LlavaProcessor(
        pictures, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(tmp_path / "lvlm")
    output = tmp_path / "said.jsonl"
    arguments = recipe.DescriptionArguments(
        model=str(tmp_path / "lvlm"), output=str(output), frames=2, max_new_tokens=3, limit=4
    )
    data = DataArguments(dataset="folder-video", data_dir=str(videos), cache_dir=str(tmp_path / "cache"))
    assert recipe.main(arguments, data) == 4
    lines = output.read_text()
    assert len(lines.splitlines()) == 4 and json.loads(lines.splitlines()[0])["model"] == "lvlm"
    output.write_text(lines + '{"sample_id": "clip0')
    arguments.limit = None
    assert recipe.main(arguments, data) == 6 and output.read_text().startswith(lines)
    said = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(one["sample_id"] for one in said) == [f"clip{number:02d}" for number in range(10)]
    assert recipe.main(arguments, data) == 0
    arguments.frames = 3
    with pytest.raises(ValueError, match=r"said\.jsonl, line 1, frames: expected 3, found 2: choose another file"):
        recipe.main(arguments, data)
    told = load_action_sentences(encode(tokenizer, features, tmp_path / "told", explanations=str(output)))["train"]
    assert dict(zip(told["sample_id"], told["explanation"], strict=True)) == {
        one["sample_id"]: one["explanation"] for one in said
    }
