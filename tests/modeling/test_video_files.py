"""Frames at given times beside a plain loop over all frames; what the head of a file says; and what is no video."""

import io
import pickle
import warnings
from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_videos import CODECS, damaged, picture, rotated, tiny_video, with_display_matrix, with_media_duration

from action_llm.video_files import VideoFile, open_video, read_video_info
from action_llm.video_frames import VideoFileError


def plain_loop(file, size=None):
    """Times since the start, and pictures, of all frames, one after the other."""
    times, pictures, last = [], [], -np.inf
    with av.open(file) as container:
        for frame in container.decode(video=0):
            last = max(last, frame.time)
            height, width = size or (frame.height, frame.width)
            times.append(last)
            pictures.append(frame.reformat(width, height, "rgb24", interpolation="BICUBIC").to_ndarray())
        stream = container.streams.video[0]
        return np.array(times) - float((stream.start_time or 0) * stream.time_base), np.array(pictures)


def on_screen(times, wanted):
    """Index of the last frame that began at or before each time, or the first."""
    return np.maximum(np.searchsorted(times, np.asarray(wanted) + 1e-4, "right") - 1, 0)


# ------------------------------------------------------------------------------------------------------------ frames


@settings(max_examples=60, deadline=None)
@given(
    container=st.sampled_from(sorted(CODECS)),
    wanted=st.lists(st.integers(-5, 330), min_size=1, max_size=8),
    key_every=st.sampled_from([1, 5, 300]),
)
def test_frames_at_any_times_are_those_of_a_plain_loop(container, wanted, key_every):
    data = tiny_video(90, 30, container, key_every=key_every)
    times, pictures = plain_loop(io.BytesIO(data))
    wanted = np.array(wanted) / 100
    with VideoFile(io.BytesIO(data)) as video:
        for _ in range(2):  # the second call begins anew
            np.testing.assert_array_equal(video.frames_at(wanted), pictures[on_screen(times, wanted)])


def test_a_frame_is_on_screen_from_its_own_time_on():
    with VideoFile(io.BytesIO(tiny_video(6))) as video:
        _, pictures = plain_loop(io.BytesIO(tiny_video(6)))
        np.testing.assert_array_equal(video.frames_at(np.arange(6) / 30), pictures)
        np.testing.assert_array_equal(video.frames_at(np.arange(6) / 30 + 0.03), pictures)
        np.testing.assert_array_equal(video.frames_at([9.0, -1.0]), pictures[[-1, 0]])


def test_seeking_decodes_what_it_needs(monkeypatch):
    """Of 300 frames with a key frame every ten, few are decoded for three times."""
    decoded = []
    data = tiny_video(300, key_every=10)
    with VideoFile(io.BytesIO(data)) as video:
        decode = video._decode
        monkeypatch.setattr(video, "_decode", lambda: (decoded.append(f) or f for f in decode()))
        video.frames_at([0.1, 5.0, 9.5])
    assert len(decoded) < 60


def test_times_that_are_not_regular():
    data = tiny_video(5, times=(0, 1, 2, 20, 21), container="matroska")
    with VideoFile(io.BytesIO(data)) as video:
        frames = video.frames_at([0.05, 0.3, 0.6, 0.69])
    _, pictures = plain_loop(io.BytesIO(data))
    np.testing.assert_array_equal(frames, pictures[[1, 2, 2, 3]])


def test_a_turned_video_is_upright():
    data = rotated(tiny_video())
    _, pictures = plain_loop(io.BytesIO(data))
    with VideoFile(io.BytesIO(data)) as video:
        upright = video.frames_at([0.0])[0]
        small = video.frames_at([0.0], (24, 16))[0]
    assert pictures.shape[1:3] == (32, 48) and upright.shape == (48, 32, 3) and small.shape == (24, 16, 3)
    turn = next(k for k in (1, 3) if np.array_equal(np.rot90(pictures[0], k), upright))
    # As every player shows it: by the matrix, x grows where y did.
    assert turn == 3
    with av.open(io.BytesIO(data)) as container:
        assert abs(next(container.decode(video=0)).rotation) == 90


@pytest.mark.parametrize(("swapped", "x", "y"), product((False, True), (1, -1), (1, -1)))
def test_all_eight_display_matrices(swapped, x, y):
    """Column x of the upright picture is column, or row, x of the recorded one, from its other end where it is mirrored."""
    data = tiny_video()
    _, (recorded, *_) = plain_loop(io.BytesIO(data))
    upright = np.transpose(recorded, (1, 0, 2)) if swapped else recorded
    upright = np.flip(upright, [axis for axis, sign in enumerate((y, x)) if sign < 0])
    turned = with_display_matrix(data, *((0, y, x, 0) if swapped else (x, 0, 0, y)))
    with VideoFile(io.BytesIO(turned)) as video:
        assert (video.info.height, video.info.width) == (32, 48)
        assert video.picture_size() == upright.shape[:2]
        np.testing.assert_array_equal(video.frames_at([0.0])[0], upright)
        assert video.frames_at([0.0], (24, 40)).shape[1:3] == (24, 40)


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (32, 96)), (Fraction(2, 3), (48, 48)), (None, (32, 48))])
def test_pictures_have_square_pixels(aspect, size):
    data = tiny_video(pixel_aspect=aspect)
    with VideoFile(io.BytesIO(data)) as video:
        assert (video.info.height, video.info.width) == (32, 48) and video.picture_size() == size
        np.testing.assert_array_equal(video.frames_at([0.0]), plain_loop(io.BytesIO(data), size)[1][:1])
        # A size that is given is a size.
        np.testing.assert_array_equal(video.frames_at([0.0], (20, 30)), plain_loop(io.BytesIO(data), (20, 30))[1][:1])
    with VideoFile(io.BytesIO(rotated(data))) as video:
        assert video.picture_size() == size[::-1]


def test_pixels_of_an_absurd_shape_are_square():
    with pytest.warns(UserWarning, match="pixels that are 8 times as wide as high, which is implausible"):
        video = VideoFile(io.BytesIO(tiny_video(pixel_aspect=Fraction(8))))
    with video:
        assert video.picture_size() == (32, 48)


def test_the_size_of_pictures_is_that_of_upright_ones():
    for data, size in ((tiny_video(), (32, 48)), (rotated(tiny_video()), (48, 32))):
        with VideoFile(io.BytesIO(data)) as video:
            assert video.picture_size() == size
            # Nothing is lost by having looked.
            assert len(video.frames_at([0.0, 0.1])) == 2


def test_an_open_file_is_read_from_its_start():
    file = io.BytesIO(tiny_video())
    file.seek(0, io.SEEK_END)
    with VideoFile(file) as video:
        assert video.info.num_frames == 6


@pytest.mark.parametrize("container", ["matroska", "webm"])
def test_a_file_that_was_cut_off_is_told_also_where_ffmpeg_says_nothing(container, tmp_path):
    data = tiny_video(150, container=container, key_every=10)
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 3])
    with (
        VideoFile(tmp_path / "cut.mkv") as video,
        pytest.warns(UserWarning, match=r"cut\.mkv: decoding stopped at .* s of 5"),
    ):
        assert len(video.frames_at([0.1, 4.9])) == 2
    (tmp_path / "whole.mkv").write_bytes(data)
    with VideoFile(tmp_path / "whole.mkv") as video, warnings.catch_warnings():
        warnings.simplefilter("error")
        video.frames_at([0.1, 4.9, 60.0])


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9])
def test_an_avi_that_was_cut_off(share, tmp_path):
    data = tiny_video(120, container="avi")
    (tmp_path / "cut.avi").write_bytes(data[: int(share * len(data))])
    with pytest.raises(VideoFileError, match=r"cut\.avi: expected a complete video, found 120 frames at 30"):
        read_video_info(tmp_path / "cut.avi")


def test_a_recording_whose_head_has_no_duration():
    """As browsers and cameras leave it that write into a stream: frames are counted, and nothing is decoded for it."""

    class OneWay(io.BytesIO):
        def seekable(self):
            return False

    file = OneWay()
    with av.open(file, "w", format="webm", options={"live": "1"}) as out:
        stream = out.add_stream("libvpx-vp9", rate=20)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number in range(20):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        out.mux(stream.encode())
    with VideoFile(io.BytesIO(file.getvalue())) as video:
        assert video.info.num_frames == 20 and video.info.seconds == pytest.approx(1.0, abs=0.06)
        frames = video.frames_at([0.0, 0.5, 0.96])
    assert np.abs(frames[2].astype(int) - picture(19)).mean() < 12 < np.abs(frames[0].astype(int) - picture(19)).mean()


# ---------------------------------------------------------------------------------------- damage, and times that begin anew


def nearest_whole(corrupt, key) -> list[int]:
    """Of each frame, which one is shown: itself, or the nearest that is neither damaged nor made of what is."""
    whole, is_damaged = [], False
    for number, (is_corrupt, is_key) in enumerate(zip(corrupt, key, strict=True)):
        is_damaged = is_corrupt or (is_damaged and not is_key)
        whole += [] if is_damaged else [number]
    return [min(whole, key=lambda other: (abs(other - number), other)) for number in range(len(corrupt))]


@pytest.mark.parametrize(("container", "packets"), [("mp4", (5,)), ("mp4", (5, 13)), ("avi", (5,)), ("avi", (0,))])
def test_the_nearest_whole_frame_stands_for_a_damaged_one(container, packets, tmp_path):
    good = tiny_video(24, 25, container, key_every=8, height=96, width=128)
    (tmp_path / "clip").write_bytes(damaged(good, *packets))
    with av.open(str(tmp_path / "clip")) as opened:
        frames = [(frame.is_corrupt, frame.key_frame) for frame in opened.decode(video=0)]
    shown = nearest_whole(*zip(*frames, strict=True))
    count = sum(number != other for number, other in enumerate(shown))
    assert count and len(frames) == 24
    _, pictures = plain_loop(io.BytesIO(good))
    match = rf"clip: {count / 24:.0%} of the frames are damaged \({count} of 24 that were decoded\); each is replaced"
    with VideoFile(tmp_path / "clip") as video, pytest.warns(UserWarning, match=match) as caught:
        np.testing.assert_array_equal(video.frames_at(np.arange(24) / 25), pictures[shown])
        assert (video.damaged_frames, video.decoded_frames) == (count, 24)
        # It is the same picture whatever is asked for besides, and nothing is said twice.
        for number in (7, 23, 5):
            np.testing.assert_array_equal(video.frames_at([number / 25])[0], pictures[shown[number]])
    assert len(caught) == 1


def test_a_healthy_video_has_no_damage():
    for container in CODECS:
        with VideoFile(io.BytesIO(tiny_video(24, container=container))) as video, warnings.catch_warnings():
            warnings.simplefilter("error")
            video.frames_at([0.0, 0.7])
            assert video.damaged_frames == 0 < video.decoded_frames


class Flagged:
    """A decoded frame and what the decoder says of it."""

    def __init__(self, frame, is_corrupt, key_frame=True):
        self.frame, self.is_corrupt, self.key_frame = frame, is_corrupt, key_frame


def shown_frames(video, monkeypatch, frames, fps=10) -> list[int]:
    """What is shown of `frames`, of which `frame` is their number."""
    monkeypatch.setattr(video, "_decode", lambda: iter([(frame.frame / fps, frame) for frame in frames]))
    return [frame.frame for _, frame in video._intact_frames()]


def test_damage_without_a_later_key_frame_does_not_last_to_the_end(monkeypatch):
    """Streams that refresh their pictures bit by bit have no key frame but the first."""
    with VideoFile(io.BytesIO(tiny_video(10))) as video:
        frames = [Flagged(number, number in (5, 9), key_frame=number == 0) for number in range(100)]
        shown = shown_frames(video, monkeypatch, frames)
        # Whole again more than 2 s after frame 9: the nearest whole frames of 5 to 29 are 4 and 30.
        assert shown == [*range(5), *[4] * 13, *[30] * 12, *range(30, 100)]
        assert video.damaged_frames == 25
        # A key frame ends it at once.
        frames[20].key_frame = True
        assert shown_frames(video, monkeypatch, frames) == [*range(5), *[4] * 8, *[20] * 7, *range(20, 100)]


def test_a_lone_whole_frame_amid_damage_is_not_believed(monkeypatch):
    """Errors in it were not noticed: flipped bits may decode to something."""

    corrupt = [number in (2, 3, 5) for number in range(10)]
    with VideoFile(io.BytesIO(tiny_video(10))) as video:
        decoded = [(number / 10, Flagged(number, is_corrupt)) for number, is_corrupt in enumerate(corrupt)]
        monkeypatch.setattr(video, "_decode", lambda: iter(decoded))
        shown = [(round(10 * seconds), frame.frame) for seconds, frame in video._intact_frames()]
        assert shown == [(0, 0), (1, 1), (2, 1), (3, 1), (4, 6), (5, 6), (6, 6), (7, 7), (8, 8), (9, 9)]
        assert video.damaged_frames == 4


def test_a_video_that_is_damaged_throughout_is_an_error(tmp_path):
    data = damaged(tiny_video(8, 25, "avi", height=96, width=128, key_every=300), *range(8))
    (tmp_path / "clip.avi").write_bytes(data)
    with (
        VideoFile(tmp_path / "clip.avi") as video,
        pytest.raises(
            VideoFileError, match=r"clip\.avi: .* no frame that can be decoded \(all 8 frames are damaged\)"
        ),
    ):
        video.frames_at([0.1])


WRAP = 2**33 / 90_000


def stream_from(start: float, seconds: float = 1.0) -> bytes:
    """A transport stream whose time stamps begin there."""
    times = tuple(round(25 * start) + number for number in range(round(25 * seconds)))
    return tiny_video(len(times), 25, "mpegts", times=times, key_every=5)


@pytest.mark.parametrize(
    "starts",
    [(0, 0), (100, 0), (0, 5000), (0, 43_200), (7000, 0, 300), (WRAP - 0.5,)],
    ids=["again", "back", "ahead", "half a day ahead", "three", "the counter wraps around"],
)
def test_time_stamps_that_begin_anew_run_on(starts):
    parts = [stream_from(start) for start in starts]
    expected = np.concatenate([plain_loop(io.BytesIO(stream_from(0)))[1]] * len(parts))
    with VideoFile(io.BytesIO(b"".join(parts))) as video:
        assert video.info == (25 * len(parts), 25.0, pytest.approx(len(parts)), 48, 32)
        for _ in range(2):
            np.testing.assert_array_equal(video.frames_at(np.arange(25 * len(parts)) / 25 + 0.01), expected)
        np.testing.assert_array_equal(video.frames_at([len(parts) - 0.03])[0], expected[-1])


def test_a_long_still_is_no_jump():
    times = (0, 1, 2, 500, 501)
    with VideoFile(io.BytesIO(tiny_video(5, 25, "matroska", times=times))) as video:
        frames = video.frames_at([0.1, 19.9, 20.01])
    _, pictures = plain_loop(io.BytesIO(tiny_video(5, 25, "matroska", times=times)))
    np.testing.assert_array_equal(frames, pictures[[2, 2, 3]])


def test_another_resolution_from_some_time_on():
    small, large = (tiny_video(25, 25, "mpegts", side, side * 2) for side in (32, 64))
    for first, second, side in ((small, large, 32), (large, small, 64)):
        with VideoFile(io.BytesIO(first + second)) as video:
            frames = video.frames_at([0.0, 1.5])
            assert video.picture_size() == frames.shape[1:3] == (side, 2 * side)
            np.testing.assert_array_equal(video.frames_at([1.5]), frames[1:])
    _, pictures = plain_loop(io.BytesIO(small), (64, 128))
    np.testing.assert_array_equal(frames[1], pictures[12])


def test_a_head_that_says_a_thirtieth_of_the_time():
    data = tiny_video(60)
    with VideoFile(io.BytesIO(with_media_duration(data, 1 / 30))) as video:
        assert video.info == (60, 30.0, 2.0, 48, 32)
        frames = video.frames_at([0.0, 1.0, 1.99])
    np.testing.assert_array_equal(frames, plain_loop(io.BytesIO(data))[1][[0, 30, 59]])


def test_a_raw_stream():
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        out.mux(stream.encode())
    with VideoFile(io.BytesIO(file.getvalue())) as video:
        assert video.info.num_frames == 5
        first, last = video.frames_at([0.0])[0], video.frames_at([9.0])[0]
        np.testing.assert_array_equal(video.frames_at([0.0])[0], first)
    assert np.abs(last.astype(int) - picture(4)).mean() < 12 < np.abs(first.astype(int) - picture(4)).mean()


def test_an_opened_video_is_opened():
    with VideoFile(io.BytesIO(tiny_video())) as video:
        assert open_video(video) is video


def test_one_picture_is_no_video():
    for wrong in (picture(0), picture(0).transpose(2, 0, 1), picture(0)[..., 0]):
        with pytest.raises(
            VideoFileError, match=r"expected all frames of a video in one array .*found a single image uint8"
        ):
            open_video(wrong)
    with pytest.raises(VideoFileError, match="expected a path, an open file, or an array of frames, found dict"):
        open_video({})


def test_tensors_are_arrays():
    torch = pytest.importorskip("torch")
    frames = np.stack([picture(number) for number in range(4)])
    with open_video(torch.from_numpy(frames)) as one, open_video(frames) as other:
        assert np.array_equal(one.frames_at([0.0, 0.1]), other.frames_at([0.0, 0.1]))
        with pytest.raises(ValueError, match="times: expected at least one, got none"):
            one.frames_at([])


def test_numbers_that_are_times_are_no_numbers_of_frames(tmp_path):
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / f"{1_700_000_000_000_000_000 + 33_000_000 * number}.png")
    with pytest.raises(
        VideoFileError, match=r"expected numbers that count frames, .*, found 3 images with numbers from 17"
    ):
        open_video(tmp_path)


def test_pictures_of_sixteen_bits_and_pictures_that_lie_on_their_side(tmp_path):
    grey = picture(2)[..., 0]
    (tmp_path / "deep").mkdir()
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep" / "0.png")
    with open_video(tmp_path / "deep") as folder:
        np.testing.assert_array_equal(folder.frames_at([0.0])[0, ..., 1], grey)
    (tmp_path / "turned").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    Image.fromarray(picture(1)).save(tmp_path / "turned" / "0.png", exif=exif)
    with open_video(tmp_path / "turned") as folder:
        assert folder.picture_size() == (48, 32)
        np.testing.assert_array_equal(folder.frames_at([0.0])[0], np.rot90(picture(1), 3))


def test_sizes():
    data = tiny_video()
    with VideoFile(io.BytesIO(data)) as video:
        for size in ((32, 48), (7, 5), (64, 64)):
            np.testing.assert_array_equal(video.frames_at([0.1], size)[0], plain_loop(io.BytesIO(data), size)[1][3])


def test_a_video_that_breaks_off_is_read_as_far_as_it_goes():
    data = tiny_video(60, container="matroska", height=64, width=96)
    with VideoFile(io.BytesIO(data[: len(data) * 2 // 3])) as video:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first = video.frames_at([0.2])
        last = video.frames_at([0.2, 1.9])
        # One time alone is none of those that can be decoded.
        np.testing.assert_array_equal(video.frames_at([1.9])[0], last[1])
    np.testing.assert_array_equal(first[0], last[0])
    assert np.abs(last[1].astype(int) - last[0]).max() > 5
    data = tiny_video(60, height=64, width=96)
    middle = len(data) // 2
    damaged = data[:middle] + bytes(400) + data[middle + 400 :]
    with VideoFile(io.BytesIO(damaged)) as video:
        assert len(video.frames_at([0.0, 1.9])) == 2  # whatever the decoder makes of it


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("order", ["THWC", "TCHW", "THW"])
def test_arrays(dtype, order):
    frames = np.stack([picture(number) for number in range(5)])
    if order == "THW":
        frames = frames[..., :1]
    expected = np.broadcast_to(frames, (5, 32, 48, 3))
    given = frames.transpose(0, 3, 1, 2) if order == "TCHW" else frames[..., 0] if order == "THW" else frames
    given = given if dtype == "uint8" else (given / 255).astype(dtype)
    with open_video(given, fps=10) as video:
        assert video.info == (5, 10.0, 0.5, 48, 32)
        np.testing.assert_array_equal(video.frames_at([0.45, 0.0, 0.29, 7]), expected[[4, 0, 2, 4]])
        assert video.frames_at([0.1], (16, 24)).shape == (1, 16, 24, 3)


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (np.zeros((4, 8, 8, 3), np.float32) + 200, "floats from 200 to 200"),
        (np.zeros((4, 8, 8, 3)) - 1, "floats from -1 to -1"),
        (np.full((4, 8, 8, 3), np.nan), "floats from nan to nan"),
        (np.zeros((4, 8, 8, 4), np.uint8), r"uint8 \(4, 8, 8, 4\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"uint8 \(0, 8, 8, 3\)"),
        (np.zeros((4, 8, 8, 3), np.int64), r"int64 \(4, 8, 8, 3\)"),
        (np.zeros(5, np.uint8), r"uint8 \(5,\)"),
    ],
)
def test_arrays_that_are_no_frames(frames, found):
    with pytest.raises(VideoFileError, match=f"clip 7: .*found {found}"):
        open_video(frames, name="clip 7")


def test_folders_of_pictures(tmp_path):
    for number in (9, 10, 11, 14):
        Image.fromarray(picture(number)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.warns(UserWarning, match="2 of 6 numbers are missing, the first is 12"):
        video = open_video(tmp_path, fps=10)
    assert video.info == (6, 10.0, 0.6, 48, 32)
    expected = np.stack([picture(number) for number in (9, 11, 11, 11, 14)])
    np.testing.assert_array_equal(video.frames_at([0.0, 0.2, 0.3, 0.45, 0.5]), expected)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b"x"}, "expected a folder of images, found a folder of 1 other files"),
        ({"first.png": b"x"}, "expected names of images that end in a number, found the name 'first.png'"),
        ({"a1.png": b"x", "b01.png": b"x"}, "expected one image per number, found 'a1.png' and 'b01.png'"),
        ({"a1.png": b"x"}, r"a1\.png: expected an image, found UnidentifiedImageError"),
    ],
)
def test_folders_that_are_none_of_pictures(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoFileError, match=message):
        open_video(tmp_path)


# ------------------------------------------------------------------------------------------------ heads, and no videos


@pytest.mark.parametrize("container", CODECS)
def test_the_head_says_what_decoding_says(tmp_path, container):
    data = tiny_video(7, 25, container)
    path = tmp_path / "a.video"
    path.write_bytes(data)
    info = read_video_info(path)
    assert info == read_video_info(io.BytesIO(data))
    assert (info.num_frames, info.fps) == (7, 25.0) and info.seconds == pytest.approx(7 / 25, abs=0.002)
    assert (info.width, info.height) == (48, 32)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<html>not found</html>", "Invalid data"),
        (tiny_video()[:-1000], r"an MP4 file without its index \(moov atom\): the recording was not finished"),
        (tiny_video()[: tiny_video().index(b"moov") - 4], "without its index .* copy it again, or rebuild the index"),
        (b"RIFF" + bytes(2000), "Invalid data"),
    ],
)
def test_what_is_no_video(tmp_path, content, found):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    for file in (path, io.BytesIO(content)):
        with pytest.raises(VideoFileError, match=found) as caught:
            read_video_info(file)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(VideoFileError, match=r"a\.mp4: expected a (video that FFmpeg can read|complete video), found"):
        read_video_info(path)


def test_sound_alone_is_no_video():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=80)
        frame.rate = 8000
        out.mux(stream.encode(frame))
    file.seek(0)
    with pytest.raises(VideoFileError, match="1 streams without a video"):
        read_video_info(file)


def test_the_suffix_does_not_matter(tmp_path):
    path = tmp_path / "really_avi.mp4"
    path.write_bytes(tiny_video(container="avi"))
    assert read_video_info(path).num_frames == 6


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(OSError):
        read_video_info(tmp_path / "none.mp4")
    with pytest.raises(OSError):
        read_video_info(tmp_path)


@pytest.mark.real_data
def test_real_videos(real_data):
    paths = [*sorted((real_data / "clips").iterdir()), *sorted((real_data / "ntu_rgbd" / "rgb").iterdir())]
    generator = np.random.default_rng(0)
    for path in paths:
        times, pictures = plain_loop(str(path), (60, 80))
        with VideoFile(path) as video:
            assert abs(video.info.num_frames - len(times)) <= 1
            assert video.info.seconds == pytest.approx(len(times) / video.info.fps, abs=0.1), path
            for count in (1, 4, 30):
                wanted = generator.uniform(-0.1, video.info.seconds + 0.2, count)
                np.testing.assert_array_equal(
                    video.frames_at(wanted, (60, 80)), pictures[on_screen(times, wanted)], err_msg=str(path)
                )
