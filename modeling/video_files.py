"""Video files: what their containers say, without decoding anything. PyAV brings its codecs in its wheel."""

import os
from typing import BinaryIO, NamedTuple

import av


class VideoFileError(ValueError):
    """A file is no video that can be read.

    Attributes:
        path (str): The file.
        found, expected (str): What it is, and what it should be.
    """

    def __init__(self, path: str | os.PathLike, found: str, expected: str = "a video that FFmpeg can read"):
        self.path, self.found, self.expected = os.fspath(path), found, expected
        super().__init__(f"{self.path}: expected {expected}, found {found}")

    def __reduce__(self):  # errors travel between the processes of a batch job
        return type(self), (self.path, self.found, self.expected)


class VideoInfo(NamedTuple):
    """What the container says: frames, frames per second (mean), seconds, width and height in pixels before rotation.

    A container that does not count its frames (Matroska, WebM) has as many as fit its time.
    """

    num_frames: int
    fps: float
    seconds: float
    width: int
    height: int


def read_video_info(file: str | os.PathLike | BinaryIO) -> VideoInfo:
    """Reads the head of a video file.

    Args:
        file: Its path, or the open file, which must be seekable.

    Raises:
        VideoFileError: Empty, damaged, of a format that is none of videos, without a picture stream, or without a frame.
        OSError: The file cannot be opened.
    """
    if hasattr(file, "read"):
        path, is_empty = getattr(file, "name", "stream"), not file.read(1)
        file.seek(0)
    else:
        path, is_empty = os.fspath(file), os.path.getsize(file) == 0
    if is_empty:
        raise VideoFileError(path, "an empty file")
    try:
        with av.open(file if hasattr(file, "read") else path) as container:
            if not container.streams.video:
                raise VideoFileError(path, f"{len(container.streams)} streams without a picture")
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate
            duration = stream.duration and stream.duration * stream.time_base
            duration = duration or (container.duration or 0) / av.time_base
            num_frames = stream.frames or round(duration * (rate or 0))
            if not num_frames or not rate or not stream.width:
                raise VideoFileError(path, f"{num_frames} frames of {stream.width} x {stream.height} pixels")
            seconds = float(duration or num_frames / rate)
            return VideoInfo(num_frames, float(rate), seconds, stream.width, stream.height)
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and not isinstance(error, av.error.EOFError):
            raise
        raise VideoFileError(path, error.strerror or str(error)) from error


__all__ = ["VideoFileError", "VideoInfo", "read_video_info"]
