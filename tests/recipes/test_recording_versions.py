"""Versions of recordings: the pipeline and the recipes make the same ones, and versions that would all be equal are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from skeleton_people import person, recording
from tiny_features import extract
from tiny_models import CLASS_NAMES, tiny_llava, tiny_tokenizer, tiny_vtem
from transformers import AutoModel, pipeline

from action_llm import ActionLLMForClassification, ActionLLMProcessor, SkeletonFeatureExtractor, VideoFeatureExtractor
from action_llm.recording_versions import check_versions_differ, version_arguments
from action_llm.visual_encoder import VisualEncoder
from action_llm_recipes.common.action_features import load_features
from action_llm_recipes.common.action_sentences import load_action_sentences, words_of

STILL = {f"augment_{name}": 0.0 for name in ("rotation", "tilt", "scale", "bones", "speed", "warp", "noise")}


def test_skeletons_vary_in_the_pipeline_as_in_encode_actions(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    recogniser, processor = (
        ActionLLMForClassification.from_pretrained(model),
        ActionLLMProcessor.from_pretrained(model),
    )
    recognise = pipeline("action-recognition", model=recogniser, processor=processor, device="cpu")
    rows = load_action_sentences(sentences)["train"]
    recordings = recipes.data().load()["train"]
    for number in (0, 7, 20):
        recording = recordings[number]
        of_it = [row for row in rows if row["sample_id"] == recording["sample_id"]]
        assert [row["encoding"] for row in of_it] == [0, 1] and of_it[0]["action_ids"] != of_it[1]["action_ids"]
        with torch.no_grad():
            inputs = [processor(action_ids=[words_of(row, processor)]) for row in of_it]
            expected = torch.cat([recogniser(**one).probabilities for one in inputs]).mean(0)
        path = next(Path(recipes.recordings).rglob(f"{recording['sample_id']}.skeleton"))
        for one in (recording, str(path), path):
            read = recognise.preprocess(one, versions=2)["inputs"]
            written = [recogniser.model.action_model.encode(
                **{name: inputs[name] for name in processor.feature_extractor.model_input_names}
            ).action_ids[0].tolist() for inputs in read]  # fmt: skip
            assert written == [row["action_ids"] for row in of_it]
            found = {each["label"]: each["score"] for each in recognise(one, versions=2, top_k=None)}
            assert [found[name] for name in processor.class_names] == pytest.approx(expected.tolist(), abs=1e-5)


def test_videos_vary_in_the_pipeline_as_in_extract_features(videos, backbone, tmp_path):
    features = extract(videos, backbone, tmp_path / "features", tmp_path / "cache")
    extractor = VideoFeatureExtractor.from_pretrained(features)
    processor = ActionLLMProcessor(extractor, tiny_tokenizer(), class_names=CLASS_NAMES, num_action_tokens=16)
    model = ActionLLMForClassification.from_llm(
        tiny_llava(),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_vtem(),
        class_names=CLASS_NAMES,
    )
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    encoder = VisualEncoder(AutoModel.from_pretrained(backbone)).eval()
    rows = {(row["sample_id"], row["version"]): row for row in load_features(features)["train"]}
    name = "clip03"
    path = videos / f"{name}.mp4"
    with open(path, "rb") as file:
        for recording in (str(path), file):
            for version, inputs in enumerate(recognise.preprocess(recording, versions=3)["inputs"]):
                row = rows[name, version]
                with torch.no_grad():
                    made = encoder(inputs["pixel_values"])[0]
                torch.testing.assert_close(
                    made, torch.tensor(row["features"]).view(row["shape"]), rtol=1e-4, atol=1e-5
                )


def test_a_version_depends_on_the_recording_its_number_and_the_seed_alone():
    assert version_arguments("a", 0)["augment"] is False and version_arguments("a", 2)["augment"] is True
    seeds = [version_arguments(*which)["seed"] for which in (("a", 1), ("a", 2), ("b", 1), ("a", 1, 3), ("a", 1, 0))]
    assert seeds[0] == seeds[4] and len(set(seeds)) == 4


def test_versions_that_would_be_the_same_are_refused(recipes, videos, backbone, llm, tmp_path):
    from action_llm_recipes import run_line

    tokenizer = recipes.train_tokenizer(
        tmp_path / "tokenizer", skeleton=STILL, training={"max_steps": 1, "save_steps": 1}
    )
    for name in ("encodings", "test_encodings"):
        with pytest.raises(
            ValueError, match=rf"--{name} 2: expected versions that differ, but augment_rotation, .* all 0"
        ):
            recipes.encode(tokenizer, tmp_path / "sentences", **{name: 2})
    assert recipes.encode(tokenizer, tmp_path / "sentences")
    still = {"augment_scale": 0.0, "augment_time": 0.0, "augment_brightness": 0.0}
    with pytest.raises(
        ValueError, match=r"--versions 3: .* Set --versions to 1, or create the feature extractor with"
    ):
        extract(videos, backbone, tmp_path / "features", tmp_path / "cache", still)
    assert not (tmp_path / "features" / "train").exists()
    # Before anything is trained.
    (tmp_path / "tokenizer.yaml").write_text("\n".join(f"{name}: 0" for name in STILL))
    arguments = run_line.PipelineArguments(
        output_dir=str(tmp_path / "run"), tokenizer_config=str(tmp_path / "tokenizer.yaml"), llm_name_or_path=llm
    )
    with pytest.raises(ValueError, match="--encodings 24: expected versions that differ"):
        run_line.main(arguments, recipes.data())
    assert not (tmp_path / "run").exists()


def test_tempo_is_no_variation_of_recordings_of_one_length():
    settings = {"augment_speed": 0.2, "augment_noise": 0.0}
    check_versions_differ(settings | {"length": None}, 8, "versions")
    check_versions_differ(settings | {"length": 64}, 1, "versions")
    with pytest.raises(
        ValueError, match="versions 8: expected versions that differ, but augment_noise of the feature"
    ):
        check_versions_differ(settings | {"length": 64}, 8, "versions")


@pytest.mark.parametrize(
    ("setting", "without", "within"),
    [
        ({"augment_occlusion": 0.4}, {"layout": "coco17", "num_persons": 1}, {"layout": "kinect20", "num_persons": 1}),
        ({"augment_flat": 1.0}, {"coordinates": 2, "num_persons": 1}, {"coordinates": 3, "num_persons": 1}),
        ({"augment_swap": 1.0}, {"num_persons": 1}, {"num_persons": 2}),
    ],
)
def test_augmentation_without_effect_is_no_variation(setting, without, within):
    """The check agrees with the versions that the feature extractor makes."""
    for differs, settings in ((False, without), (True, within)):
        layout = settings.get("layout", "kinect25")
        bodies = [(0, person(40, layout, activity=0.05)), (0, person(40, layout, seed=1, place=(1, 0, 3.5), yaw=60))]
        extractor = SkeletonFeatureExtractor(**STILL | setting | settings)
        features = [
            extractor(recording(bodies, layout=layout), return_tensors="np", **version_arguments("a", version))
            for version in range(6)
        ]
        first, *others = (version["input_features"] for version in features)
        assert any(not np.allclose(first, other, atol=1e-5) for other in others) == differs
        if differs:
            check_versions_differ(extractor.to_dict(), 6, "versions")
        else:
            with pytest.raises(ValueError, match="versions 6: expected versions that differ"):
                check_versions_differ(extractor.to_dict(), 6, "versions")


def test_a_tilt_is_no_variation_of_recordings_in_a_plane():
    """`augment_tilt` leaves 2-D recordings as they are; turning them does not."""
    from action_llm_recipes import run_line

    body = person(20, "coco17")[..., :2]
    for name, differs in (("augment_tilt", False), ("augment_rotation", True)):
        extractor = SkeletonFeatureExtractor(layout="coco17", **STILL | {name: 10.0})
        as_it_is, varied = (
            extractor(body, fps=30, return_tensors="np", **version_arguments("a", version))["input_features"]
            for version in (0, 1)
        )
        assert np.allclose(as_it_is, varied) != differs
        settings = extractor.to_dict()
        if differs:
            check_versions_differ(settings, 8, "versions")
        else:
            with pytest.raises(
                ValueError, match=r"versions 8: expected versions that differ, but .*augment_rotation, "
            ):
                check_versions_differ(settings, 8, "versions")
    check_versions_differ(SkeletonFeatureExtractor(**STILL | {"augment_tilt": 10.0}).to_dict(), 8, "versions")
    # run_line.py knows the layout by the recordings, before anything is trained.
    settings = run_line.extractor_settings(
        {"tokenizer": STILL | {"augment_tilt": 10.0}}, Dataset.from_list([{"layout": "coco17"}])
    )
    with pytest.raises(ValueError, match="--encodings 8: expected versions that differ"):
        check_versions_differ(settings, 8, "--encodings")
