"""Videos while they are filmed: cameras, and streams from an address."""

import math
import sys
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Iterator

import av

from action_llm.video_files import CONTAINERS
from action_llm.video_frames import (
    MAX_PIXELS,
    Part,
    VideoFileError,
    VideoFrames,
    VideoInfo,
    check_length,
    check_pixels,
)

# FFmpeg's format of cameras and the name of a camera, by operating system.
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
# The protocols that an address may lead to, by its scheme.
PROTOCOLS = {"rtsp": "tcp,udp,rtp", "http": "http,tcp", "https": "https,http,tls,tcp"}
# FFmpeg's formats of streams, beside those of files. Playlists (hls, dash) refer to further addresses and are refused.
STREAM_FORMATS = ("rtsp", "mpjpeg")
# Seconds without data after which a stream has ended.
SILENT_SECONDS = 10.0


def open_camera(number: int) -> "LiveVideo":
    """Opens a camera of this machine; 0 is the first.

    Raises:
        VideoFileError: if there is no such camera, or FFmpeg has no cameras on this operating system.
    """
    if sys.platform not in CAMERAS:
        expected = f"cameras on {' or '.join(CAMERAS)}: stream this one with another program, and pass its --address"
        raise VideoFileError(f"camera {number}", f"the platform {sys.platform}", expected)
    format_name, name = CAMERAS[sys.platform]
    return _opened(f"camera {number}", name.format(number), format=format_name)


def open_address(address: str) -> "LiveVideo":
    """Opens a stream of RTSP, or of HTTP (motion JPEG, MPEG-TS or a video file).

    Raises:
        VideoFileError: if the address has another scheme, does not answer, or leads to a playlist or no video.
    """
    scheme = urllib.parse.urlsplit(address).scheme.lower()
    if scheme not in PROTOCOLS:
        raise VideoFileError(address, f"the scheme {scheme!r}", f"an address of {', '.join(PROTOCOLS)}")
    formats = ",".join((*CONTAINERS, *STREAM_FORMATS))
    container_options = {
        "protocol_whitelist": PROTOCOLS[scheme],
        "format_whitelist": formats,
        "enable_drefs": "0",
    }
    return _opened(address, address, container_options=container_options)


def _opened(name: str, file: str, **settings) -> "LiveVideo":
    try:
        container = av.open(file, timeout=SILENT_SECONDS, options={"max_pixels": str(MAX_PIXELS)}, **settings)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoFileError(name, error.strerror or str(error), "a video") from error
    return LiveVideo(name, container)


class LiveVideo(VideoFrames):
    """
    A video without an end, which can be read once. Times are those of the clock since the first frame.

    A thread decodes the frames and keeps the newest. A reader that is slower than the video misses the frames in between, and
    gets the newest for all times that have passed.

    Args:
        name: in errors.
        container: of PyAV; closed by `close`.

    Raises:
        VideoFileError: if there is no video in it.
    """

    def __init__(self, name: str, container):
        super().__init__()
        self.path, self._container = name, container
        if not container.streams.video:
            container.close()
            raise VideoFileError(name, "no video")
        self._stream = container.streams.video[0]
        context = self._stream.codec_context
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 30)
        self.info = VideoInfo(0, rate, math.inf, context.width, context.height)
        check_length(name, self.info._replace(seconds=0.0))
        check_pixels(name, context.height, context.width)
        self._changed, self._newest, self._problem = threading.Condition(), None, None
        self._is_over = False
        self._thread = threading.Thread(target=self._decode, daemon=True)

    def close(self):
        self._end()
        if self._thread.is_alive():  # FFmpeg crashes if a container is closed while it is read
            self._thread.join()
        self._container.close()

    def _frames_in_order(self, times: Iterable[float], patience: float = 1.0) -> Iterator[av.VideoFrame]:
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._is_over)
        start = time.monotonic()
        for moment in times:
            with self._changed:
                left = start + moment - time.monotonic()
                self._changed.wait_for(lambda: self._is_over, timeout=max(left, 0))
                newest, is_over = self._newest, self._is_over
            if newest is None:
                raise VideoFileError(self.path, f"no frame that can be decoded ({self._problem or 'it ended'})")
            if is_over and start + moment > time.monotonic():
                return
            yield newest

    def _decode(self) -> None:
        """Keeps the newest frame until the video ends. A file that comes faster than it plays is held back."""
        first, start = None, 0.0
        try:
            for frame in self._container.decode(self._stream):
                if first is None:
                    first, start = frame.time, time.monotonic()
                ahead = (frame.time or 0) - (first or 0) - (time.monotonic() - start)
                with self._changed:
                    if 0 < ahead < SILENT_SECONDS:
                        self._changed.wait_for(lambda: self._is_over, timeout=ahead)
                    if self._is_over:
                        break
                    self._newest = frame
                    self._changed.notify_all()
        except (av.error.FFmpegError, OSError) as error:
            self._problem = error.strerror or str(error)
            warnings.warn(f"{self.path}: the video ended: {self._problem}", stacklevel=1)
        self._end()

    def _end(self) -> None:
        """Tells the reader and the thread that no further frames come."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


class WatchedVideo(VideoFrames):
    """
    A video whose frames pass through a function when they are read.

    Args:
        video (`VideoFrames`): the video.
        watch: an iterator of frames → the same frames.
    """

    def __init__(self, video: VideoFrames, watch: Callable[[Iterator[av.VideoFrame]], Iterator[av.VideoFrame]]):
        super().__init__()
        self._video, self._watch = video, watch
        self.info, self.path = video.info, video.path

    def picture_of(self, frame: av.VideoFrame):
        """A frame as it is shown, uint8 (height, width, 3), in its own size."""
        return self._video._shown(frame, None, None, None)

    def picture_size(self) -> tuple[int, int]:
        return self._video.picture_size()

    def _frames_in_order(self, times: Iterable[float], patience: float = 1.0) -> Iterator[av.VideoFrame]:
        yield from self._watch(self._video._frames_in_order(times, patience))

    def _shown(self, frame, size: tuple[int, int] | None, part: Part | None, resample: str | None):
        return self._video._shown(frame, size, part, resample)

    def _default_size(self) -> tuple[int, int]:
        return self._video._default_size()
