"""Videos as people bring them: each is read by its right value, said to be doubtful, or refused with the way on."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from action_llm import VideoFeatureExtractor
from action_llm.video_files import VideoFile
from action_llm.video_frames import VideoFileError

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def cases(real_data):
    return real_data / "cases" / "v"


def brightness(video, times):
    return video.frames_at(times, (60, 80)).mean((1, 2, 3))


# A ramp of grey from black to white in 4 s, and the same in other containers, cut, or at other times.
RAMP = [27, 86, 144, 202]
RAMPS = {
    "ramp.mp4": ((100, 25, 4), RAMP),
    "ramp.ts": ((100, 25, 4), RAMP),
    "frag.mp4": ((100, 25, 4), RAMP),
    "frag_mdhd.mp4": ((100, 25, 4), RAMP),
    "live.mkv": ((100, 25, 4), RAMP),
    "live.webm": ((100, 25, 4), RAMP),
    "mdhd30.mp4": ((100, 25, 4), RAMP),
    "sar.mp4": ((100, 25, 4), RAMP),
    "inter.mp4": ((50, 12.5, 4), [28, 84, 145, 201]),
    "concat.ts": ((200, 25, 8), [58, 174, 58, 174]),
    "trimmed_editlist.mp4": ((50, 25, 1.98), [132, 160, 188, 218]),
    "vfr.mp4": ((100, 50 / 3, 6), [41, 55, 100, 188]),
}


@pytest.mark.parametrize("name", RAMPS)
def test_ramps(cases, name):
    (count, rate, seconds), greys = RAMPS[name]
    with VideoFile(cases / name) as video, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert video.info[:3] == (count, pytest.approx(rate), pytest.approx(seconds))
        times = (np.arange(4) + 0.5) * video.info.seconds / 4
        np.testing.assert_allclose(brightness(video, times), greys, atol=2)
        # In any order, and one alone.
        np.testing.assert_allclose(brightness(video, times[::-1]), greys[::-1], atol=2)
        np.testing.assert_allclose(brightness(video, times[2:3]), greys[2:3], atol=2)


PICTURES = [
    "test8.mp4",
    "av1.mp4",
    "hevc10.mp4",
    "test.3gp",
    "test.MTS",
    "test.flv",
    "test.gif",
    "test.mpg",
    "test.wmv",
]


@pytest.mark.parametrize("name", PICTURES)
def test_codecs_and_containers(cases, name):
    expected = np.asarray(Image.open(cases / "ref_test8.png").convert("RGB")).astype(int)
    with VideoFile(cases / name) as video, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert video.info == (25, 25.0, pytest.approx(1.0), 160, 120)
        for frame in video.frames_at([0.0, 0.5]):
            assert np.abs(frame - expected).mean() < 12


@pytest.mark.parametrize(("name", "reference"), [("hflip.mp4", "ref_hflip.png"), ("rot90.mp4", "ref_rot90.png")])
def test_the_display_matrix(cases, name, reference):
    expected = np.asarray(Image.open(cases / reference).convert("RGB")).astype(int)
    with VideoFile(cases / name) as video:
        frame = video.frames_at([0.0])[0]
        assert video.picture_size() == frame.shape[:2] == expected.shape[:2]
    others = [np.rot90(expected, turns) for turns in (1, 2, 3)] + [expected[::-1], expected[:, ::-1]]
    assert np.abs(frame - expected).mean() < 8
    assert all(np.abs(frame - other).mean() > 30 for other in others if other.shape == frame.shape)


@pytest.mark.parametrize(
    ("name", "color"),
    [
        ("red_bt709.mp4", (254, 0, 0)),
        ("red_smpte170m.mp4", (253, 0, 0)),
        ("gray_full.mp4", (126, 128, 126)),
        ("gray_tv.mp4", (128, 128, 128)),
    ],
)
def test_colors(cases, name, color):
    with VideoFile(cases / name) as video:
        np.testing.assert_allclose(video.frames_at([0.5])[0].mean((0, 1)), color, atol=1.5)


def test_damage_is_said_and_whole_neighbours_are_taken(cases):
    """`fs.mp4` is the same video without flipped bits: frames 37 to 174 are damaged."""
    times = (np.arange(12) + 0.5) * 7.72 / 12
    with VideoFile(cases / "fs.mp4") as video, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert video.info == (193, 25.0, pytest.approx(7.72), 320, 240)
        whole = video.frames_at(np.arange(193) / 25)
        assert video.damaged_frames == 0
    with VideoFile(cases / "bitflips.mp4") as video:
        with pytest.warns(
            UserWarning, match=r"bitflips\.mp4: 74% of the frames are damaged \(138 of 186 that"
        ) as caught:
            frames = video.frames_at(times)
            video.frames_at(times)
        assert len(caught) == 1
    expected = [8, 24, 36, 36, 36, 36, 36, 175, 175, 175, 175, 184]
    np.testing.assert_array_equal(frames, whole[expected])


@pytest.mark.parametrize(
    ("name", "stop", "last", "times"),
    [("trunc_faststart.mp4", "4.48", 4.48, (1, 4.3, 7)), ("zeroed_middle.mp4", "2.68", 2.64, (1, 2.6, 3.2))],
)
def test_videos_that_break_off(cases, name, stop, last, times):
    with VideoFile(cases / "fs.mp4") as video:
        whole = video.frames_at([*times[:2], last, 7.0])
    with VideoFile(cases / name) as video:
        with pytest.warns(
            UserWarning, match=rf"{re.escape(name)}: decoding stopped at {stop} s of 7\.72 s \(Invalid data"
        ):
            np.testing.assert_array_equal(video.frames_at(times), whole[[0, 1, 2]])
        if name == "zeroed_middle.mp4":  # behind the damage it goes on
            np.testing.assert_array_equal(video.frames_at([1.0, 7.0]), whole[[0, 3]])
        else:
            np.testing.assert_array_equal(video.frames_at([7.0]), whole[2:3])


def test_a_recording_that_was_not_finished(cases):
    match = (
        r"trunc_moovend\.mp4: expected a complete video, found an MP4 file without its index \(moov atom\): the rec"
    )
    with pytest.raises(VideoFileError, match=match):
        VideoFile(cases / "trunc_moovend.mp4")


@pytest.mark.parametrize("name", ["reschange.ts", "reschange.mkv"])
def test_another_resolution_from_the_middle_on(cases, name):
    with VideoFile(cases / name) as video:
        frames = video.frames_at([0.1, 3.5])
        assert video.picture_size() == frames.shape[1:3] == (240, 320)
    expected = np.asarray(Image.open(cases / "ref_test8.png").convert("RGB").resize((320, 240)))
    assert np.abs(frames[1].astype(int) - expected).mean() < 15


def test_wide_pixels(cases):
    """Squashed to a size it is as ever; to fit it is twice as wide as it was recorded."""
    frames = {}
    for fit in ("squash", "pad", "crop"):
        extractor = VideoFeatureExtractor(
            1, 1, height=64, width=64, fit=fit, image_mean=(0, 0, 0), image_std=(1, 1, 1)
        )
        frames[fit] = extractor(cases / "sar.mp4")["pixel_values"][0, 0, 0, 0].numpy()
    with VideoFile(cases / "sar.mp4") as video:
        assert video.picture_size() == (120, 320) and (video.info.height, video.info.width) == (120, 160)
        np.testing.assert_allclose(frames["squash"], video.frames_at([2.0], (64, 64))[0, ..., 0] / 255, atol=1e-6)
    rows = np.nonzero(frames["pad"].max(1))[0]
    assert (rows[0], rows[-1]) == (20, 43)  # 64 x 24
    assert (frames["crop"] > 0).all()
