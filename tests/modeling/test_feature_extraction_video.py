"""From videos to segments of frames: which frames, how they are fitted and normalised, and what varies."""

import io
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_videos import picture, rotated, tiny_video

from action_llm.feature_extraction_video import VideoFeatureExtractor
from action_llm.video_files import open_video
from action_llm.video_frames import VideoFileError

PLAIN = {"image_mean": (0, 0, 0), "image_std": (1, 1, 1), "height": 32, "width": 48}


def numbered(count, height=32, width=48):
    """uint8 (T, H, W, 3); frame n has the value n."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)).copy()


def frame_numbers(batch):
    return np.rint(batch["pixel_values"][..., 0, 0, 0].numpy() * 255).astype(int)


def test_output_contract():
    extractor = VideoFeatureExtractor(num_segments=4, frames_per_segment=3, height=16, width=24)
    batch = extractor([numbered(30), numbered(60)])
    assert batch["pixel_values"].shape == (2, 4, 3, 3, 16, 24) and batch["pixel_values"].dtype.is_floating_point
    assert batch["feature_attention_mask"].tolist() == [[1] * 4] * 2
    assert batch["frame_rate"].tolist() == [4.0, 2.0]
    assert set(batch) == set(extractor.model_input_names)


@pytest.mark.parametrize(("count", "fps"), [(30, 30.0), (48, 24.0), (10, 12.5), (6, 30.0)])
def test_frames_are_in_the_middle_of_their_part(count, fps):
    extractor = VideoFeatureExtractor(num_segments=3, frames_per_segment=2, fps=fps, **PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = frame_numbers(extractor(numbered(count)))[0]
    expected = np.floor((np.arange(6) + 0.5) * count / 6 + 1e-6).astype(int).reshape(3, 2)
    np.testing.assert_array_equal(found, expected)


def test_dense_segments_have_a_duration():
    extractor = VideoFeatureExtractor(num_segments=10, frames_per_segment=1, segment_seconds=0.5, fps=10, **PLAIN)
    batch = extractor([numbered(40), numbered(200), numbered(2)], return_tensors=None)
    assert [len(mask) for mask in batch["feature_attention_mask"]] == [8, 10, 1]
    assert batch["frame_rate"] == pytest.approx([2.0, 0.5, 5.0])
    padded = extractor([numbered(40), numbered(200)])
    assert padded["feature_attention_mask"].sum(1).tolist() == [8, 10] and not padded["pixel_values"][0, 8:].any()


def test_more_segments_than_frames_is_said():
    extractor = VideoFeatureExtractor(num_segments=4, frames_per_segment=2, **PLAIN)
    with pytest.warns(
        UserWarning, match="recording 0: 3 frames are fewer than the 8 that 4 segments need: frames are repeated"
    ):
        found = frame_numbers(extractor(numbered(3)))[0]
    assert found.tolist() == [[0, 0], [0, 1], [1, 2], [2, 2]]
    with pytest.warns(UserWarning, match="1 frames are fewer than the 8"):
        assert not frame_numbers(extractor(numbered(1))).any()


def test_a_batch_is_its_videos(tmp_path):
    paths = []
    for number, container in enumerate(("mp4", "avi", "matroska")):
        paths.append(tmp_path / f"{number}.{container}")
        paths[-1].write_bytes(tiny_video(20 + 10 * number, container=container))
    extractor = VideoFeatureExtractor(num_segments=3, height=20, width=20, decode_threads=3)
    for settings in ({}, {"augment": True, "seed": 5}):
        batch = extractor(paths, **settings)
        for place, path in enumerate(paths):
            np.testing.assert_array_equal(extractor(path, **settings)["pixel_values"][0], batch["pixel_values"][place])


def test_files_open_files_folders_and_arrays(tmp_path):
    path, folder = tmp_path / "a.mp4", tmp_path / "frames"
    path.write_bytes(tiny_video(12))
    folder.mkdir()
    for number in range(12):
        Image.fromarray(picture(number)).save(folder / f"{number:03d}.png")
    extractor = VideoFeatureExtractor(num_segments=4, frames_per_segment=1, **PLAIN)
    made = [
        extractor(one)["pixel_values"].numpy()
        for one in (path, io.BytesIO(tiny_video(12)), folder, np.stack([picture(number) for number in range(12)]))
    ]
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[2], made[3])
    assert np.abs(made[0] - made[2]).mean() < 0.03  # the codec


def test_fit():
    tall = np.zeros((2, 60, 30, 3), np.uint8)
    tall[:, 15:45] = 200  # its middle half
    settings = {**PLAIN, "height": 20, "width": 20, "num_segments": 1, "frames_per_segment": 1}

    def fitted(fit):
        return VideoFeatureExtractor(fit=fit, **settings)(tall)["pixel_values"][0, 0, 0, 0].numpy()

    squashed, cropped, padded = fitted("squash"), fitted("crop"), fitted("pad")
    assert (squashed[7:13] > 0.7).all() and (squashed[:4] < 0.1).all()
    assert (cropped > 0.7).mean() > 0.9
    assert (padded[:, :5] == 0).all() and (padded[7:13, 6:14] > 0.7).all() and (padded[:, 15:] == 0).all()


@pytest.mark.parametrize(("top", "left", "tall", "wide"), [(40, 60, 60, 80), (0, 0, 64, 64), (90, 110, 70, 90)])
def test_black_around_is_trimmed(top, left, tall, wide):
    """What is read is what is left when it is cut off."""
    y, x = np.mgrid[:tall, :wide] / 100
    inner = np.stack([120 + 60 * np.sin(5 * y + 3 * x + number) for number in range(6)]).astype(np.uint8)
    inner = np.repeat(inner[..., None], 3, -1)
    framed = np.zeros((6, 160, 200, 3), np.uint8)
    framed[:, top : top + tall, left : left + wide] = inner
    settings = {**PLAIN, "height": 40, "width": 40, "num_segments": 3, "frames_per_segment": 1, "trim_black": True}
    found = VideoFeatureExtractor(**settings)(framed)["pixel_values"]
    # The twentieth that is left around, which goes to the other side where there is none.
    bounds = []
    for start, length, whole in ((top, tall, 160), (left, wide, 200)):
        low = max(0, start - length / 20)
        bounds.append(slice(round(min(low, whole - 1.1 * length)), round(min(low + 1.1 * length, whole))))
    expected = VideoFeatureExtractor(**settings | {"trim_black": False})(framed[:, *bounds])["pixel_values"]
    assert (found - expected).abs().mean() < 0.03 < (expected[0, 0] - expected[0, 2]).abs().mean()


def test_what_is_trimmed(tmp_path):
    """All of a black video is left; a quarter at least; proportions are those of the part."""
    settings = {**PLAIN, "height": 64, "width": 64, "num_segments": 2, "frames_per_segment": 1, "trim_black": True}
    black = np.zeros((4, 60, 80, 3), np.uint8)
    with pytest.warns(UserWarning, match="recording 0: all frames that were read are black"):
        assert not VideoFeatureExtractor(**settings)(black)["pixel_values"].any()
    dot = black.copy()
    dot[:, 30:32, 40:42] = 255
    lit = (VideoFeatureExtractor(**settings)(dot)["pixel_values"][0, 0, 0, 0] > 0.5).nonzero()
    # 2 of 60 / 4 rows of 64, 2 of 80 / 4 columns
    assert (lit.max(0).values - lit.min(0).values + 1).tolist() == pytest.approx([64 * 2 / 15, 64 * 2 / 20], abs=2)
    tall = black.copy()
    tall[:, 5:55, 30:50] = 200
    padded = VideoFeatureExtractor(**settings, fit="pad")(tall)["pixel_values"][0, 0, 0, 0] > 0.5
    rows, columns = padded.any(1).sum().item(), padded.any(0).sum().item()
    assert rows / columns == pytest.approx(50 / 20, rel=0.1) and rows == pytest.approx(64 / 1.1, abs=2)
    with pytest.raises(ValueError, match=r"trim_black needs the whole video .*: set trim_black to False"):
        VideoFeatureExtractor(**settings, segment_seconds=0.1)
    VideoFeatureExtractor(**settings).save_pretrained(tmp_path)
    assert VideoFeatureExtractor.from_pretrained(tmp_path).trim_black is True


@pytest.mark.parametrize(("value", "is_black"), [(0, True), (32, True), (33, False), (255, False)])
def test_what_is_black(value, is_black):
    frames = np.zeros((4, 120, 160, 3), np.uint8)
    frames[:, 50:70, 60:100] = 200
    frames[2, 5, 5, 1] = value  # a color of a pixel of a frame
    settings = {**PLAIN, "num_segments": 4, "frames_per_segment": 1, "trim_black": True}
    with open_video(frames) as video:
        (top, bottom), (left, _) = VideoFeatureExtractor(**settings)._not_black(video)
    assert (bottom - top, left > 0.1) == (pytest.approx(0.25), True) if is_black else top < 5 / 120 and left < 5 / 160


@pytest.mark.parametrize(("height", "width", "thick"), [(120, 160, 1), (480, 640, 1), (720, 1280, 1), (1080, 1920, 2)])
def test_thin_lines_are_not_black(height, width, thick):
    """As skeletons are drawn."""
    frames = np.zeros((2, height, width, 3), np.uint8)
    frames[:, height // 3 : height // 2, width // 2 - 20 : width // 2 + 20] = 255
    frames[:, height // 2 : height // 2 + thick, width // 8 : -width // 8] = 255
    with open_video(frames) as video:
        _, columns = VideoFeatureExtractor(2, 1, trim_black=True)._not_black(video)
    assert columns == pytest.approx((0.125 - 0.0375, 0.875 + 0.0375), abs=0.01)


def test_all_versions_of_a_video_have_one_part(monkeypatch):
    """That of the moments of the one that is not varied, though the others see others."""
    frames = np.zeros((60, 40, 60, 3), np.uint8)
    for number in range(60):
        frames[number, 10:30, number // 2 : number // 2 + 20] = 200
    parts, sizes, find = [], set(), VideoFeatureExtractor._not_black

    def spied(extractor, video):
        parts.append(find(extractor, video))
        return parts[-1]

    monkeypatch.setattr(VideoFeatureExtractor, "_not_black", spied)
    extractor = VideoFeatureExtractor(**PLAIN, num_segments=2, frames_per_segment=1, trim_black=True)
    for seed in range(8):
        sizes.add(float(extractor(frames, augment=True, seed=seed)["pixel_values"].sum()))
    extractor(frames)
    assert len(parts) == 9 and len(set(parts)) == 1 and len(sizes) > 1


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_turned_video_fits_as_its_upright_pictures_do(fit, tmp_path):
    (tmp_path / "turned.mp4").write_bytes(rotated(tiny_video(4)))
    with open_video(tmp_path / "turned.mp4") as video:
        upright = video.frames_at(np.arange(4) / 30)
    extractor = VideoFeatureExtractor(2, 2, height=40, width=40, fit=fit, fps=30)
    found, expected = (extractor(one)["pixel_values"] for one in (tmp_path / "turned.mp4", upright))
    assert (found - expected).abs().mean() < 0.05


def test_two_arrays_are_varied_each_in_its_own_way():
    first, second = np.full((4, 16, 16, 3), 90, np.uint8), np.full((4, 16, 16, 3), 91, np.uint8)
    extractor = VideoFeatureExtractor(2, 1, height=16, width=16, augment_scale=0, augment_brightness=0.5)
    alone = [float(extractor(one, augment=True, seed=3)["pixel_values"].std()) for one in (first, second)]
    light = [float(extractor(one, augment=True, seed=3)["pixel_values"][0, 0, 0, 0, 0, 0]) for one in (first, second)]
    assert abs(light[0] - light[1]) > 0.1 and alone[0] == pytest.approx(alone[1], abs=0.3)


def test_normalisation():
    extractor = VideoFeatureExtractor(1, 1, height=4, width=4, image_mean=(0.1, 0.2, 0.3), image_std=(0.5, 1, 2))
    value = extractor(np.full((2, 4, 4, 3), 102, np.uint8))["pixel_values"][0, 0, 0, :, 0, 0]
    np.testing.assert_allclose(value, [(0.4 - 0.1) / 0.5, 0.2, 0.05], rtol=1e-6)


def test_time_as_channels():
    """A picture's channels are the frames in the middles of its thirds, and keep their distance when they move."""
    extractor = VideoFeatureExtractor(num_segments=2, frames_per_segment=2, channels="time", augment_scale=0, **PLAIN)
    frames = numbered(120)

    def shown(**settings):
        return np.rint(extractor(frames, **settings)["pixel_values"][0, ..., 0, 0].numpy() * 255).astype(int)

    assert shown().tolist() == [[[5, 15, 25], [35, 45, 55]], [[65, 75, 85], [95, 105, 115]]]
    extractor.augment_brightness = 0
    moved = np.stack([shown(augment=True, seed=seed).reshape(4, 3) for seed in range(20)])
    assert np.isin(np.diff(moved, axis=2), [10]).all() and len(np.unique(moved[:, 0, 0])) > 4
    assert (moved // 10 == np.arange(12).reshape(4, 3)).all()


def test_brightness_is_that_of_rec_601():
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[0, ..., 0], frames[1, ..., 1], frames[2, ..., 2] = 255, 255, 255
    settings = {**PLAIN, "height": 4, "width": 4}
    extractor = VideoFeatureExtractor(num_segments=1, frames_per_segment=1, channels="time", **settings)
    with Image.new("RGB", (3, 1)) as picture_of_all:
        picture_of_all.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255)])
        expected = np.asarray(picture_of_all.convert("L"))[0] / 255
    np.testing.assert_allclose(extractor(frames)["pixel_values"][0, 0, 0, :, 0, 0], expected, atol=1 / 255)


def test_augmentation_depends_on_video_and_seed_only(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(tiny_video(30))
    extractor = VideoFeatureExtractor(num_segments=4, **PLAIN)
    one, again, other = (extractor(path, augment=True, seed=seed)["pixel_values"] for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    with pytest.raises(ValueError, match="needs a seed"):
        extractor(path, augment=True)


def test_all_augmentations_off_change_nothing():
    off = {f"augment_{name}": 0.0 for name in ("scale", "time", "brightness", "mirror")}
    extractor = VideoFeatureExtractor(num_segments=3, **PLAIN, **off)
    np.testing.assert_array_equal(
        extractor(numbered(30))["pixel_values"], extractor(numbered(30), augment=True, seed=3)["pixel_values"]
    )


def test_each_augmentation():
    off = {f"augment_{name}": 0.0 for name in ("scale", "time", "brightness", "mirror")}
    frames = np.stack([picture(number) for number in range(40)])

    def made(video, **settings):
        extractor = VideoFeatureExtractor(num_segments=5, **PLAIN, **{**off, **settings})
        return np.stack([extractor(video, augment=True, seed=seed)["pixel_values"][0].numpy() for seed in range(20)])

    plain = made(frames)
    np.testing.assert_array_equal(made(frames, augment_mirror=1.0), plain[..., ::-1])
    factor = (made(frames, augment_brightness=0.5) / np.maximum(plain, 1e-6))[:, 0, 0, 0, -1, -1]
    assert 1 / 1.5 <= factor.min() < 0.8 and 1.2 < factor.max() <= 1.5
    numbers = np.rint(made(numbered(100), augment_time=1.0)[:, :, :, 0, 0, 0] * 255).astype(int).reshape(20, 10)
    assert (numbers // 10 == np.arange(10)).all() and len(set(numbers[:, 3])) > 4
    zoomed = made(frames, augment_scale=1.0)
    assert zoomed.shape == plain.shape and 0.02 < np.abs(zoomed - plain).mean() < 0.4


def test_saved_and_loaded(tmp_path):
    extractor = VideoFeatureExtractor(num_segments=7, segment_seconds=0.25, fit="pad", image_mean=(0.5, 0.5, 0.5))
    extractor.save_pretrained(tmp_path)
    again = VideoFeatureExtractor.from_pretrained(tmp_path)
    assert again.to_dict() == extractor.to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_segment": 3}, r"has no setting .num_segment.; its settings are"),
        ({"num_segments": 0}, "num_segments: expected int at least 1, got 0"),
        ({"segment_seconds": -1}, "segment_seconds: expected float"),
        ({"segment_seconds": 0}, "segment_seconds: expected float"),
        ({"channels": "gray"}, "channels: expected one of"),
        ({"fit": "stretch"}, "fit: expected one of"),
        ({"trim_black": 1}, "trim_black: expected True or False, got 1"),
        ({"image_mean": 0.5}, "image_mean: expected three numbers, got 0.5"),
        ({"image_std": (1, 0, 1)}, "image_std: expected float"),
        ({"augment_mirror": 2}, "augment_mirror: expected float"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        VideoFeatureExtractor(**settings)


def test_bad_videos_are_named(tmp_path):
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"")
    with pytest.raises(VideoFileError, match=r"bad\.mp4: .*found an empty file"):
        VideoFeatureExtractor()(path)
    with pytest.raises(VideoFileError, match=r"recording 1: .*found floats from 0 to 255"):
        VideoFeatureExtractor()([numbered(40), numbered(256).astype(np.float32)[:, :4, :4]])
    with pytest.raises(ValueError, match="at least one"):
        VideoFeatureExtractor()([])


def test_what_is_varied_does_not_depend_on_the_number_of_frames():
    """Features of two encoders, one of pictures and one of clips, are of the same part in the same light."""
    frames = np.random.default_rng(0).integers(0, 255, (1, 40, 60, 3), dtype=np.uint8).repeat(30, axis=0)
    settings = {"num_segments": 5, "height": 16, "width": 16, "augment_mirror": 0.5}
    for seed in range(6):
        few, many = (
            VideoFeatureExtractor(frames_per_segment=count, **settings)(frames, augment=True, seed=seed)[
                "pixel_values"
            ]
            for count in (1, 4)
        )
        torch.testing.assert_close(few[0, :, :1].expand(-1, 4, -1, -1, -1), many[0])


def test_a_stream_is_what_a_call_makes_of_a_video(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(40))
    settings = {"segment_seconds": 0.15, "height": 16, "width": 24, "fit": "crop"}
    for augment, channels in product((False, True), ("color", "time")):
        extractor = VideoFeatureExtractor(50, 2, channels=channels, **settings)
        whole = extractor(tmp_path / "clip.mp4", augment=augment, seed=3)
        parts = list(extractor.stream(tmp_path / "clip.mp4", segments=4, augment=augment, seed=3))
        assert [len(part) for part in parts] == [4, 4, 1] and parts[0].shape[1:] == (2, 3, 16, 24)
        assert torch.equal(torch.cat(parts), whole["pixel_values"][0])
        assert whole["frame_rate"][0] == pytest.approx(1 / 0.15)
    with pytest.raises(ValueError, match="needs a seed"):
        next(extractor.stream(tmp_path / "clip.mp4", augment=True))


def test_a_video_that_is_too_long_for_its_segments_is_told(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(tiny_video(60))
    extractor = VideoFeatureExtractor(4, 1, segment_seconds=0.2, height=16, width=16)
    with pytest.warns(UserWarning, match=r"clip\.mp4: 2 s exceed 4 segments of 0\.2 s, so segments last 0\.5 s"):
        assert extractor(tmp_path / "clip.mp4")["pixel_values"].shape[1] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoFeatureExtractor(10, 1, segment_seconds=0.2, height=16, width=16)(tmp_path / "clip.mp4")
