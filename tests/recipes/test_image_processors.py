"""Frames reach a pretrained visual encoder as its own image processor would give them."""

import importlib
import json
import logging

import numpy as np
import pytest
import torch
from tiny_models import BACKBONES, save_backbone, tiny_backbone
from tiny_videos import tiny_video
from transformers import AutoConfig, AutoImageProcessor
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vjepa2.video_processing_vjepa2 import VJEPA2VideoProcessor

from action_llm import VideoFeatureExtractor
from action_llm.video_files import open_video
from action_llm_recipes import extract_features as recipe
from action_llm_recipes.common.image_processors import processor_settings

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
# As published, in the old and the new format of transformers.
PUBLISHED = {
    "microsoft/swinv2-tiny-patch4-window8-256": {
        "feature_extractor_type": "ViTFeatureExtractor", "do_resize": True, "do_normalize": True, "resample": 3,
        "size": {"height": 256, "width": 256}, **IMAGENET,
    },
    "microsoft/resnet-50": {
        "feature_extractor_type": "ConvNextFeatureExtractor", "do_resize": True, "do_normalize": True, "resample": 3,
        "size": 224, "crop_pct": 0.875, **IMAGENET,
    },
    "facebook/convnext-base-384": {
        "feature_extractor_type": "ConvNextFeatureExtractor", "do_resize": True, "do_normalize": True, "resample": 3,
        "size": 384, "crop_pct": 0.875, **IMAGENET,
    },
    "MCG-NJU/videomae-base": {
        "image_processor_type": "VideoMAEImageProcessor", "do_resize": True, "do_center_crop": True, "do_rescale": True,
        "do_normalize": True, "resample": 2, "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, **IMAGENET,
    },
    "google/siglip-base-patch16-224": {
        "image_processor_type": "SiglipImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
        "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor",
    },
    "openai/clip-vit-base-patch32": {
        "feature_extractor_type": "CLIPFeatureExtractor", "do_resize": True, "do_center_crop": True, "do_normalize": True,
        "resample": 3, "size": 224, "crop_size": 224, **CLIP,
    },
    "facebook/dinov2-small": {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "do_center_crop": True, "do_convert_rgb": True,
        "do_rescale": True, "do_normalize": True, "resample": 3, "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, **IMAGENET,
    },
    "llava-hf/llava-1.5-7b-hf": {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "do_center_crop": True, "do_convert_rgb": True,
        "do_rescale": True, "do_normalize": True, "resample": 3, "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, **CLIP,
    },
    "facebook/deit-small-patch16-224": {
        "feature_extractor_type": "DeiTFeatureExtractor", "do_resize": True, "do_center_crop": True, "do_normalize": True,
        "resample": 3, "size": 256, "crop_size": 224, **IMAGENET,
    },
    "google/vivit-b-16x2-kinetics400": {
        "image_processor_type": "VivitImageProcessor", "do_resize": True, "do_center_crop": True, "do_rescale": True,
        "do_normalize": True, "offset": True, "resample": 2, "rescale_factor": 0.00784313725490196,
        "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    },
}  # fmt: skip
# Wide and tall, larger and smaller than the encoders' pictures, with sides for which rounding matters.
SIZES = [(240, 320), (301, 226), (360, 478)]


def written(folder, values: dict, name: str = "preprocessor_config.json") -> str:
    (folder / name).write_text(json.dumps(values))
    return str(folder)


def settings_of(folder: str, kind: str = "resnet", **given) -> dict:
    return recipe.video_settings(folder, None, BACKBONES[kind](), recipe.VideoArguments(**given))


def pictures(path, height: int, width: int) -> np.ndarray:
    """A video of four frames of noise and edges; its decoded frames."""
    path.write_bytes(tiny_video(4, height=height // 2 * 2, width=width // 2 * 2))
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (4, height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return frames.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def pixels(settings: dict, frames) -> np.ndarray:
    extractor = VideoFeatureExtractor(**settings | {"num_segments": 4, "frames_per_segment": 1})
    return extractor(frames)["pixel_values"][0, :, 0].numpy()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_are_those_of_the_image_processor(name, size, tmp_path):
    """Equal to rounding of float32: both scale the same frames by the same filter of Pillow to whole numbers."""
    processor = AutoImageProcessor.from_pretrained(written(tmp_path, PUBLISHED[name]))
    frames = pictures(tmp_path / "clip.mp4", *size)
    expected = np.squeeze(np.asarray(processor(list(frames), return_tensors="np")["pixel_values"]))
    found = pixels(settings_of(str(tmp_path)), frames)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    with open_video(tmp_path / "clip.mp4") as video:  # a file as well
        decoded = video.frames_at(np.arange(4) / 30)
    expected = np.squeeze(np.asarray(processor(list(decoded), return_tensors="np")["pixel_values"]))
    np.testing.assert_allclose(pixels(settings_of(str(tmp_path)), tmp_path / "clip.mp4"), expected, rtol=0, atol=1e-5)


def test_pixels_of_v_jepa_2(tmp_path):
    """Its video processor needs torchvision to process, so another class resizes and crops by its settings."""
    config, frames = AutoConfig.for_model("vjepa2"), pictures(tmp_path / "clip.mp4", 240, 320)
    published = {**VJEPA2VideoProcessor().to_dict(), "video_processor_type": "VJEPA2VideoProcessor"}
    written(tmp_path, json.loads(json.dumps(published, default=dict)), "video_preprocessor_config.json")
    found = recipe.video_settings(str(tmp_path), None, config, recipe.VideoArguments(num_segments=4))
    assert (found["height"], found["resize"], found["resample"]) == (256, [292, 292], "bilinear")
    assert found["frames_per_segment"] == config.frames_per_clip
    names = ("size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor")
    processor = VideoMAEImageProcessorPil(**{name: getattr(VJEPA2VideoProcessor(), name) for name in names})
    expected = processor(list(frames), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(pixels(found, frames), expected, rtol=0, atol=1e-5)


def test_without_its_filter_pixels_differ(tmp_path):
    """The test above would notice: FFmpeg's bicubic filter is not that of Pillow."""
    frames, settings = (
        pictures(tmp_path / "clip.mp4", 240, 320),
        processor_settings(written(tmp_path, PUBLISHED["facebook/dinov2-small"]), None, BACKBONES["resnet"]()),
    )
    own = pixels(settings, frames)
    assert np.abs(own - pixels(settings | {"resample": None}, frames)).max() > 0.05
    assert np.abs(own - pixels(settings | {"resample": "bilinear"}, frames)).max() > 0.05
    assert np.abs(own - pixels(settings | {"resize": None}, frames)).max() > 0.05


def test_other_scales_of_values(tmp_path):
    """Values up to 255 with means up to 255, and values that are not normalised."""
    frames = pictures(tmp_path / "clip.mp4", 64, 64)
    for changed in (
        {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
    ):
        written(tmp_path, PUBLISHED["facebook/dinov2-small"] | changed)
        processor = AutoImageProcessor.from_pretrained(str(tmp_path))
        expected = processor(list(frames), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(pixels(settings_of(str(tmp_path)), frames), expected, rtol=0, atol=2e-5)


def test_settings_that_are_given_win_and_are_logged(tmp_path, caplog):
    folder = written(tmp_path, PUBLISHED["facebook/dinov2-small"])
    with caplog.at_level(logging.WARNING):
        assert settings_of(folder) == settings_of(folder, height=224, width=224, fit="crop")
        assert not caplog.messages
        smaller = settings_of(folder, height=112, width=112)
    assert (smaller["height"], smaller["width"], smaller["resize"]) == (112, 112, [128, 128])  # the same part
    assert "was trained on other images (height 224 there, 112 here, width 224 there, 112 here)" in caplog.text
    assert "do not set --height, --width" in caplog.text
    assert settings_of(folder, fit="pad")["resize"] is None  # the whole frame
    assert settings_of(folder, resize=[300, 300])["resize"] == [300, 300]
    caplog.clear()
    settings_of(folder, channels="time")
    assert "channels color there, time here" in caplog.text


def test_an_own_encoder_keeps_all_of_its_settings(tmp_path):
    VideoFeatureExtractor(9, 3, height=48, width=40, fit="pad", channels="time", resample="box").save_pretrained(
        tmp_path
    )
    found = settings_of(str(tmp_path))
    assert (found["height"], found["width"], found["fit"], found["channels"]) == (48, 40, "pad", "time")
    assert (found["resample"], found["frames_per_segment"], found["resize"]) == ("box", 3, None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_processor_type": "Qwen2VLImageProcessor"}, r"\(Qwen2VLImageProcessor\): expected one of BitImage"),
        ({"image_processor_type": "NobodysImageProcessor"}, "cannot be loaded: Unrecognized image processor"),
        ({"do_resize": False}, r"\(BitImageProcessor\): do_resize: expected true"),
        ({"do_pad": True}, r"do_pad: expected false, found True"),
        ({"do_center_crop": False}, r"size: expected height and width, or do_center_crop, found .*256"),
        ({"size": {"longest_edge": 256}}, r"size: expected height and width, or shortest_edge, found .*longest_edge"),
        ({"crop_size": {"height": 300, "width": 224}}, r"crop_size: expected at most the size .*, found .*300"),
    ],
)
def test_settings_without_equivalent_are_named(changed, message, tmp_path, caplog):
    folder = written(tmp_path, PUBLISHED["facebook/dinov2-small"] | changed)
    with pytest.raises(ValueError, match=message) as caught:
        settings_of(folder, height=32)
    assert str(caught.value).endswith("To read frames without it, set --width --image_mean --image_std.")
    with caplog.at_level(logging.WARNING):
        given = settings_of(folder, height=32, width=32, **IMAGENET)
    assert (given["height"], given.get("resample")) == (
        32,
        None,
    ) and "Frames are read by the settings given" in caplog.text


def test_an_encoder_without_an_image_processor(tmp_path):
    tiny_backbone("resnet").save_pretrained(tmp_path)
    message = (
        r"has no image processor: expected preprocessor_config.json .* set --height --width --image_mean --image_std"
    )
    with pytest.raises(ValueError, match=message):
        settings_of(str(tmp_path))
    written(tmp_path, {"video_processor_type": "Nothing"}, "video_preprocessor_config.json")
    with pytest.raises(ValueError, match="video_processor_type: expected a class for vjepa2, found 'Nothing'"):
        settings_of(str(tmp_path), "vjepa2")


def test_frames_that_are_not_whole_patches(tmp_path):
    save_backbone(tiny_backbone("videomae"), tmp_path, size=36)
    with pytest.raises(
        ValueError,
        match=r"patches of 8 pixels \(patch_size\), but frames have the height 36: .* Set --height 32, or check",
    ):
        settings_of(str(tmp_path), "videomae")
    assert settings_of(str(tmp_path), "videomae", height=40, width=32)["height"] == 40


def test_the_constant_of_convnext_is_that_of_its_class():
    """Below 384 pixels it crops; the number is in its code, not in its settings."""
    frame = np.random.default_rng(0).integers(0, 256, (3, 400, 600), dtype=np.uint8)
    module = importlib.import_module("action_llm_recipes.common.image_processors")
    for edge in (module.CONVNEXT_SIZE - 1, module.CONVNEXT_SIZE):
        processor = ConvNextImageProcessorPil(size={"shortest_edge": edge}, do_normalize=False)
        translated = module._translated("ConvNextImageProcessor", processor.to_dict())
        assert translated["fit"] == ("crop" if edge < module.CONVNEXT_SIZE else "squash")
        assert processor(frame, return_tensors="np")["pixel_values"].shape[-2:] == (edge, edge)


def test_older_settings_read_as_before(tmp_path):
    """Files without the settings `resize` and `resample` scale by FFmpeg, straight to the size."""
    VideoFeatureExtractor(2, 1, height=30, width=40, fit="crop").save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    values = json.loads(path.read_text())
    assert (values.pop("resize"), values.pop("resample")) == (None, None)
    path.write_text(json.dumps(values))
    (tmp_path / "clip.mp4").write_bytes(tiny_video(8, height=60, width=90))
    old = VideoFeatureExtractor.from_pretrained(tmp_path)
    with open_video(tmp_path / "clip.mp4") as video:
        times = [video.info.seconds / 4, 3 * video.info.seconds / 4]
        scaled = video.frames_at(times, (30, 45))[:, :, 2:42]
    expected = (np.moveaxis(scaled, -1, 1) / 255 - np.reshape(old.image_mean, (3, 1, 1))) / np.reshape(
        old.image_std, (3, 1, 1)
    )
    np.testing.assert_allclose(old(tmp_path / "clip.mp4")["pixel_values"][0, :, 0], expected, rtol=0, atol=1e-6)


def test_versions_are_those_of_single_calls_and_decoded_once(tmp_path, monkeypatch):
    from action_llm.video_files import VideoFile

    (tmp_path / "clip.mp4").write_bytes(tiny_video(40, height=64, width=96))
    decoded, searched = [], []
    decode, search = VideoFile._decode, VideoFeatureExtractor._not_black
    settings = {"height": 32, "width": 32, "fit": "crop", "resize": (40, 40), "resample": "bicubic"}
    for trim_black in (False, True):
        extractor = VideoFeatureExtractor(6, 2, trim_black=trim_black, **settings)
        alone = [extractor(tmp_path / "clip.mp4", augment=seed is not None, seed=seed) for seed in (None, 1, 2)]
        monkeypatch.setattr(VideoFile, "_decode", lambda video: decoded.append(video) or decode(video))
        monkeypatch.setattr(
            VideoFeatureExtractor, "_not_black", lambda self, video: searched.append(video) or search(self, video)
        )
        together = extractor.versions(tmp_path / "clip.mp4", [None, 1, 2])
        monkeypatch.undo()
        assert torch.equal(together["pixel_values"], torch.cat([one["pixel_values"] for one in alone]))
        assert together["frame_rate"].tolist() == [alone[0]["frame_rate"].item()] * 3
        # The first frame tells the size; the borders are found before any frame is cropped.
        assert (len(decoded), len(searched)) == ((2, 0), (3, 1))[trim_black]
        decoded.clear(), searched.clear()
