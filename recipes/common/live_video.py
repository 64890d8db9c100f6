"""Videos while they are filmed: cameras, and streams from an address."""

import logging
import math
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator

import av
import numpy as np

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

logger = logging.getLogger(__name__)

# FFmpeg's format of cameras and the name of a camera, by operating system.
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
# The protocols that an address may lead to, by its scheme.
PROTOCOLS = {"rtsp": "tcp,udp,rtp", "http": "http,tcp", "https": "https,http,tls,tcp"}
# FFmpeg's formats of streams, beside those of files. Playlists (hls, dash) refer to further addresses and are refused.
STREAM_FORMATS = ("rtsp", "mpjpeg")
# Seconds without a picture after which the user is told, and the picture is black.
QUIET_SECONDS = 3.0
# Seconds without data after which a connection is lost, and seconds between the attempts to get it back.
SILENT_SECONDS, RETRY_SECONDS = 10.0, 2.0


def open_camera(number: int) -> "LiveVideo":
    """Opens a camera of this machine; 0 is the first.

    Raises:
        VideoFileError: if there is no such camera, or FFmpeg has no cameras on this operating system.
    """
    if sys.platform not in CAMERAS:
        expected = f"cameras on {' or '.join(CAMERAS)}: stream this one with another program, and pass its --address"
        raise VideoFileError(f"camera {number}", f"the platform {sys.platform}", expected)
    format_name, name = CAMERAS[sys.platform]
    return LiveVideo(f"camera {number}", name.format(number), format=format_name)


def open_address(address: str) -> "LiveVideo":
    """Opens a stream of RTSP, or of HTTP (motion JPEG, MPEG-TS or a video file).

    Raises:
        VideoFileError: if the address has another scheme, does not answer, or leads to a playlist or no video.
    """
    parts = urllib.parse.urlsplit(address)
    name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without a password
    scheme = parts.scheme.lower()
    if scheme not in PROTOCOLS:
        raise VideoFileError(name, f"the scheme {scheme!r}", f"an address of {', '.join(PROTOCOLS)}")
    formats = ",".join((*CONTAINERS, *STREAM_FORMATS))
    container_options = {
        "protocol_whitelist": PROTOCOLS[scheme],
        "format_whitelist": formats,
        "enable_drefs": "0",
        "rtsp_flags": "prefer_tcp",  # over UDP, lost packets damage pictures
        "analyzeduration": "1000000",  # microseconds; MPEG-TS is read for so long before its first picture
    }
    return LiveVideo(name, address, container_options=container_options)


class LiveVideo(VideoFrames):
    """
    A video while it is filmed, which can be read once. Times are those of the clock since the first picture was read.

    A thread decodes the frames and keeps the newest. A reader that is slower than the video misses the frames in between, and
    gets the newest for all times that have passed. While nothing arrives, the picture is black. A camera or a stream that is
    lost is opened again until the video is closed. A file of known length ends, and is held back to its own speed.

    Args:
        name: in errors and messages.
        file, **settings: for `av.open`.

    Raises:
        VideoFileError: if no picture arrives in `SILENT_SECONDS`, or there is no video in it.
    """

    def __init__(self, name: str, file: str, **settings):
        super().__init__()
        self.path, self._file, self._settings = name, file, settings
        self._changed, self._is_over, self._problem = threading.Condition(), False, None
        self.info, self._newest, self._arrived = None, None, time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        try:
            if not self._wait_for(lambda: self.info or self._is_over, QUIET_SECONDS):
                logger.warning("%s: no picture in %g s", name, QUIET_SECONDS)
                self._wait_for(lambda: self.info or self._is_over, SILENT_SECONDS - QUIET_SECONDS)
            if self.info is None:
                raise self._problem or self._error(f"no picture in {SILENT_SECONDS:g} s")
        except BaseException:  # Ctrl-C, too
            self._end()
            raise

    def close(self):
        self._end()
        # The thread closes the container: FFmpeg crashes if it is closed while it is read. If the source is silent, that is
        # when FFmpeg gives up, for which nobody waits.
        self._thread.join(timeout=0.5)

    def _frames_in_order(self, times: Iterable[float], patience: float = 1.0) -> Iterator[av.VideoFrame]:
        start, until, shown = time.monotonic(), -1.0, None
        black = av.VideoFrame.from_ndarray(np.zeros((self.info.height, self.info.width, 3), np.uint8), format="rgb24")
        for moment in times:
            if moment > until:  # all times that have passed have one picture: a slow reader needs time for no other
                self._wait_for(lambda: self._is_over, max(start + moment - time.monotonic(), 0))
                if self._is_over and shown is self._newest:
                    if self._problem is not None:
                        logger.warning("%s has ended early: %s", self.path, self._problem.actual)
                    return
                now = time.monotonic()
                is_quiet = not self._is_over and now - self._arrived > QUIET_SECONDS
                if is_quiet and shown is not black:
                    logger.warning("%s: no picture in %g s", self.path, QUIET_SECONDS)
                elif shown is black and not is_quiet:
                    logger.warning("%s: pictures arrive again", self.path)
                until, shown = now - start, black if is_quiet else self._newest
            yield shown

    def _read(self) -> None:
        """Keeps the newest frame, until the video is closed or a file has ended."""
        told = None  # when the last frame had arrived before the last message
        try:
            while not self._is_over:
                is_file, self._problem = self._read_once()
                if is_file or self.info is None or self._is_over:
                    break
                if told != self._arrived:
                    reason = self._problem.actual if self._problem else "it ended"
                    logger.warning("%s is lost (%s): opening it again every %g s", self.path, reason, RETRY_SECONDS)
                    told = self._arrived
                self._wait_for(lambda: self._is_over, RETRY_SECONDS)
        finally:
            self._end()

    def _read_once(self) -> tuple[bool, VideoFileError | None]:
        """Reads until the end; returns whether this is a file, and what has ended it early."""
        is_file, options = False, {"max_pixels": str(MAX_PIXELS)}
        try:
            with av.open(self._file, timeout=SILENT_SECONDS, options=options, **self._settings) as container:
                is_file = container.duration is not None or container.size > 0
                self._decode(container, is_file)
        except VideoFileError as error:
            return is_file, error
        except av.error.ExitError:  # of the timeout
            return is_file, self._error(f"nothing for {SILENT_SECONDS:g} s")
        except (av.error.FFmpegError, OSError) as error:
            return is_file, self._error(error.strerror or str(error))
        return is_file, None

    def _decode(self, container, is_file: bool) -> None:
        if not container.streams.video:
            raise self._error("no video")
        stream = container.streams.video[0]
        first, start = None, 0.0
        for packet in self._packets(container, stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # before the first key frame, and after lost packets
                continue
            for frame in frames:
                if first is None:
                    first, start = frame.time or 0.0, time.monotonic()
                ahead = (frame.time or 0.0) - first - (time.monotonic() - start)
                with self._changed:
                    if is_file and 0 < ahead < SILENT_SECONDS:
                        self._changed.wait_for(lambda: self._is_over, timeout=ahead)
                    if self._is_over:
                        return
                    self.info = self.info or self._info(stream, frame)
                    self._newest, self._arrived = frame, time.monotonic()
                    self._changed.notify_all()

    def _packets(self, container, stream) -> Iterator[av.Packet]:
        while not self._is_over:
            try:
                yield from container.demux(stream)
                return
            except av.error.BlockingIOError:  # cameras of macOS do not wait for their next frame
                time.sleep(0.005)

    def _info(self, stream, frame: av.VideoFrame) -> VideoInfo:
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        info = VideoInfo(0, rate, math.inf, frame.width, frame.height)
        check_length(self.path, info._replace(seconds=0.0))
        check_pixels(self.path, frame.height, frame.width)
        return info

    def _wait_for(self, condition: Callable[[], object], seconds: float) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(condition, seconds))

    def _error(self, actual: str) -> VideoFileError:
        return VideoFileError(self.path, actual, "a video")

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
