"""What is read from the head of a video file, beside what decoding it says; and what is no video."""

import io
import pickle

import av
import pytest
from tiny_videos import CODECS, tiny_video

from action_llm.video_files import VideoFileError, read_video_info


@pytest.mark.parametrize("container", CODECS)
def test_the_head_says_what_decoding_says(tmp_path, container):
    data = tiny_video(7, 25, container)
    path = tmp_path / "a.video"
    path.write_bytes(data)
    info = read_video_info(path)
    with av.open(str(path)) as opened:
        frames = list(opened.decode(video=0))
    assert info == read_video_info(io.BytesIO(data))
    assert (info.num_frames, info.fps) == (len(frames), 25.0) and info.seconds == pytest.approx(7 / 25, abs=0.002)
    assert (info.width, info.height) == (frames[0].width, frames[0].height) == (48, 32)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<html>not found</html>", "Invalid data"),
        (tiny_video()[:-1000], "Invalid data"),  # its index stands at the end
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
    with pytest.raises(VideoFileError, match=r"a\.mp4: expected a video that FFmpeg can read, found"):
        read_video_info(path)


def test_sound_alone_is_no_video():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=80)
        frame.rate = 8000
        out.mux(stream.encode(frame))
    file.seek(0)
    with pytest.raises(VideoFileError, match="1 streams without a picture"):
        read_video_info(file)


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(OSError):
            read_video_info(path)


@pytest.mark.real_data
def test_real_videos(real_data):
    paths = [*sorted((real_data / "clips").iterdir()), *sorted((real_data / "ntu_rgbd" / "rgb").iterdir())]
    for path in paths:
        info = read_video_info(path)
        with av.open(str(path)) as opened:
            count = sum(1 for _ in opened.decode(video=0))
        assert abs(info.num_frames - count) <= 1 and info.seconds == pytest.approx(count / info.fps, abs=0.1), path
