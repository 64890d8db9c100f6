"""Training windows of stage 1 for skeletons: targets without augmentation, and windows blended with others (mixup)."""

import json
from pathlib import Path

import numpy as np
import pytest

from action_llm import SkeletonFeatureExtractor
from action_llm_recipes.stages.recording_windows import RecordingWindows
from action_llm_recipes.stages.skeleton_stage import SkeletonStage
from action_llm_recipes.train_tokenizer import TokenizerArguments


@pytest.fixture
def made(monkeypatch):
    """The windows that a training run makes."""
    windows, examples = [], SkeletonStage.examples

    def examples_of(*arguments):
        windows.append(examples(*arguments))
        return windows[-1]

    monkeypatch.setattr(SkeletonStage, "examples", examples_of)
    return windows


def losses(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_denoising_reconstructs_what_was_recorded(recipes, made, tmp_path):
    """With `denoise`, examples have the recording without augmentation as the target, and the streams without view train."""
    skeleton = {"length": 32, "augment_rotation": 180, "augment_occlusion": 0.4, "augment_missing": 0.2}
    skeleton |= {"augment_speed": 0, "augment_warp": 0, "augment_trim": 0}  # targets have these, too
    own = recipes.train_tokenizer(
        tmp_path / "tokenizer",
        arguments={"denoise": True, "orthogonal_names": True},
        skeleton=skeleton,
        streams=["body", "motion", "path"],
        alignment_weight=0.5,
    )
    example = made[0][0]
    assert set(example) == {"input_features", "feature_attention_mask", "target_features", "labels"}
    assert np.abs(example["target_features"] - example["input_features"]).max() > 0.1
    assert any(line.get("alignment_loss", 0) > 0.1 for line in losses(tmp_path / "tokenizer"))
    extractor = SkeletonFeatureExtractor.from_pretrained(own)
    rows = recipes.data().load("skeletons")["train"]
    example = RecordingWindows(rows, extractor, 32, 0, augment=True, denoise=True)[0]
    plain = RecordingWindows(rows, extractor, 32, 0, augment=True, denoise=False)[0]
    still = RecordingWindows(rows, extractor, 32, 0, augment=False)[0]
    np.testing.assert_array_equal(example["input_features"], plain["input_features"])
    np.testing.assert_allclose(example["target_features"], still["input_features"], atol=1e-5)
    assert set(example) - set(plain) == {"target_features"}
    assert RecordingWindows(rows, extractor, 32, 0, augment=True, with_labels=True)[0]["labels"] == rows[0]["label"]
    sentences = recipes.encode(own, tmp_path / "sentences")
    assert json.loads((Path(sentences) / "record.json").read_text())["splits"]["test"]["codes_used"] > 4


def test_a_run_with_mixup_learns_from_blended_recordings(recipes, made, tmp_path):
    own = {"skeleton": {"length": None, "fps": 30.0}, "alignment_weight": 0.5}
    recipes.train_tokenizer(tmp_path / "blended", arguments={"mixup": 0.5}, **own)
    recipes.train_tokenizer(tmp_path / "plain", **own)
    blended, plain = made
    assert blended.mixup == 0.5 and blended[0]["labels"].ndim == 1 and isinstance(plain[0]["labels"], int)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("blended", "plain")]
    assert weights[0] != weights[1]
    assert any(line.get("alignment_loss", 0) > 0.1 for line in losses(tmp_path / "blended"))


def test_mixup_blends_recordings_and_their_classes(recipes, monkeypatch):
    rows = recipes.data().load("skeletons")["train"]
    extractor = SkeletonFeatureExtractor(layout="kinect25", num_persons=2, fps=30.0, augment_rotation=0)
    settings = {"augment": False, "denoise": True, "with_labels": True}
    blended, plain = (RecordingWindows(rows, extractor, 512, 0, mixup=mixup, **settings) for mixup in (0.5, 0.0))
    windows, drawn, window = [plain[index] for index in range(len(rows))], [], blended._window
    monkeypatch.setattr(blended, "_window", lambda index, seed: drawn.append(index) or window(index, seed))
    shares = []
    for index, own in enumerate(windows):
        example, labels = blended[index], blended[index]["labels"]
        other = windows[drawn[-1]]
        np.testing.assert_array_equal(example["feature_attention_mask"], own["feature_attention_mask"])
        np.testing.assert_array_equal(example["target_features"], example["input_features"])
        assert labels.shape == (rows.features["label"].num_classes,) and labels.sum() == pytest.approx(1)
        # One share, wherever both have a person; everything else stays as it is.
        result, mine, others = (of["input_features"].reshape(512, 2, -1) for of in (example, own, other))
        both = np.any(mine, axis=2) & np.any(others, axis=2)
        np.testing.assert_array_equal(result[~both], mine[~both])
        difference = (mine - others)[both]
        share = np.sum((result - others)[both] * difference) / max(np.sum(difference**2), 1e-9)
        np.testing.assert_allclose(result[both], share * mine[both] + (1 - share) * others[both], atol=1e-4)
        if own["labels"] != other["labels"]:
            blended_part = both.sum() / np.any(mine, axis=2).sum()
            assert labels[own["labels"]] == pytest.approx(1 - (1 - share) * blended_part, abs=1e-4)
            assert labels[other["labels"]] == pytest.approx((1 - share) * blended_part, abs=1e-4)
            shares.append(share)
    assert 0.5 <= min(shares) < 0.95 and len(set(shares)) > 3
    for name, again in blended[0].items():
        np.testing.assert_array_equal(again, blended[0][name])
    first = blended[0]["labels"]
    blended.start_epoch(1)
    assert not np.array_equal(blended[0]["labels"], first)


def test_people_whom_the_other_recording_does_not_have_are_not_blended():
    """Neither are they shrunk, nor does a ghost of the other's second person appear."""
    extractor = SkeletonFeatureExtractor(layout="kinect25", num_persons=2)
    windows = RecordingWindows.__new__(RecordingWindows)
    windows.extractor, windows.with_labels, windows.num_classes = extractor, True, 3
    size = extractor.feature_size // 2
    one = np.concatenate([np.full((4, size), 2.0), np.zeros((4, size))], axis=1, dtype=np.float32)
    two = np.full((4, 2 * size), 4.0, np.float32)
    two[3:] = 0  # padding
    mask = np.ones(4, np.int64)
    alone = {"input_features": one, "feature_attention_mask": mask, "labels": 0}
    pair = {"input_features": two, "feature_attention_mask": np.array([1, 1, 1, 0]), "labels": 1}
    result = windows._blended(alone, pair, np.float32(0.75))
    assert (result["input_features"][:3, :size] == 2.5).all() and (result["input_features"][3, :size] == 2).all()
    assert (result["input_features"][:, size:] == 0).all()
    np.testing.assert_allclose(result["labels"], [1 - 0.25 * 3 / 4, 0.25 * 3 / 4, 0])
    result = windows._blended(pair, alone, np.float32(0.75))
    assert (result["input_features"][:3, size:] == 4).all() and (result["input_features"][:3, :size] == 3.5).all()
    np.testing.assert_allclose(result["labels"], [0.25 / 2, 1 - 0.25 / 2, 0])


def test_settings_without_effect_are_refused(recipes, tmp_path):
    with pytest.raises(ValueError, match="--mixup must be at least 0, got -1"):
        recipes.train_tokenizer(tmp_path / "negative", arguments={"mixup": -1.0})
    for window in (0, 30):
        with pytest.raises(ValueError, match=f"--window must be a multiple of the 4 frames of a word, got {window}"):
            recipes.train_tokenizer(tmp_path / f"window{window}", arguments={"window": window})
    for name, value in (("mixup", 0.5), ("denoise", True)):
        with pytest.raises(ValueError, match=f"--{name} is for skeletons, and vst reads videos"):
            TokenizerArguments(recipes.llm, action_model="vst", **{name: value})
    with pytest.raises(ValueError, match="--denoise undoes the augmentation, which --augment false disables"):
        TokenizerArguments(recipes.llm, denoise=True, augment=False)
    skeleton = {"center": "frame", "num_persons": 1}
    with pytest.raises(ValueError, match="streams: with center: frame, the path of a single person is zero"):
        recipes.train_tokenizer(tmp_path / "path", skeleton=skeleton, streams=["path"])
