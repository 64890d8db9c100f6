"""HDR pictures come back as the standard ones that they were made of; FFmpeg's own conversion agrees."""

import io

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from tiny_videos import picture, tiny_video

from action_llm.high_dynamic_range import to_standard_range
from action_llm.video_files import VideoFile

PQ, HLG, BT2020, BT709, SRGB = 16, 18, 9, 1, 13


def coded(light: np.ndarray, transfer: int) -> np.ndarray:
    """uint16: light, 1 for white paper of 203 cd/m², as ITU-R BT.2100 codes it."""
    if transfer == PQ:
        power = (light * 203 / 10_000) ** (2610 / 16384)
        value = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    else:
        luminance = (light @ [0.2627, 0.6780, 0.0593])[..., None] * 0.203
        scene = light * 0.203 * np.where(luminance > 0, luminance, 1) ** (1 / 1.2 - 1)
        value = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    return np.rint(65535 * value).astype(np.uint16)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_standard_pictures_come_back(transfer):
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    share = picture / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    wide = light @ np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]).T
    for primaries, value in ((BT2020, wide), (BT709, light)):
        back = to_standard_range(coded(value, transfer), transfer, primaries)
        assert back.dtype == np.uint8 and np.abs(back.astype(int) - picture).max() <= 1
    # What is brighter than paper is white.
    assert (to_standard_range(coded(np.full((1, 1, 3), 4.0), transfer), transfer, BT2020) == 255).all()


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_ffmpeg_converts_alike(transfer):
    greys = np.linspace(0, 1, 32)[None, :, None].repeat(3, -1).repeat(16, 0)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(coded(greys, transfer)), format="rgb48le")
    frame.color_trc, frame.color_primaries = transfer, BT2020
    theirs = VideoReformatter().reformat(frame, format="rgb24", dst_color_trc=SRGB, dst_color_primaries=BT709)
    ours = to_standard_range(coded(greys, transfer), transfer, BT2020)
    assert np.abs(ours.astype(int) - theirs.to_ndarray()).max() <= 2


def test_a_video_that_says_it_is_hdr():
    for transfer in (PQ, HLG, None):
        with VideoFile(io.BytesIO(tiny_video(transfer=transfer))) as video:
            bright = video.frames_at([0.0])[0, :4, -6:]
            # A usual video is left as it is; a corner of 250 of 255 is brighter than paper, coded for HDR.
            assert (bright == 255).all() if transfer else np.abs(bright.astype(int) - picture(0)[:4, -6:]).max() < 9


@pytest.mark.real_data
def test_paper_white(real_data):
    with VideoFile(real_data / "cases" / "v" / "pq_white.mp4") as video:
        assert video.frames_at([0.5], (60, 80)).min() >= 250
