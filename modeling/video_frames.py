"""What all kinds of video share: properties, limits, and frames at given times, scaled as they are shown.

Frames are returned as a player shows them: rotated and mirrored by the display matrix, with square pixels, in standard dynamic
range.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter
from PIL import Image

from .high_dynamic_range import HDR_TRANSFERS, to_standard_range
from .model_files import as_written

# Maximum number of pixels of a frame, coded or shown: 8K (8192 x 4320). A decoder keeps up to 17 frames.
MAX_PIXELS = 8192 * 4320
# Maximum number of bytes of all frames of a request.
MAX_PICTURE_BYTES = 1 << 30
# Range of the frames per second of a video.
MIN_FPS, MAX_FPS = 0.01, 10_000.0
# Maximum duration of a video in seconds (31 days), and maximum number of frames.
MAX_SECONDS, MAX_FRAMES = 31 * 24 * 3600.0, 10**9

# Rows and columns of a frame.
Part = tuple[slice, slice]


class FrameRequest(NamedTuple):
    """Frames at given times, and how they are scaled.

    Attributes:
        times: Seconds from the start, in any order.
        size: Height and width to which frames are scaled; by default the recorded size, with square pixels.
        part: Rows and columns to return of frames of that size; by default all.
        resample: Filter of Pillow that scales the RGB frames, in lower case, as in image processors; by default the bicubic
            filter of FFmpeg, which is faster for large frames.
    """

    times: Sequence[float]
    size: tuple[int, int] | None = None
    part: Part | None = None
    resample: str | None = None


class VideoFileError(ValueError):
    """A recording is not a readable video.

    Attributes:
        path (str): The file.
        actual, expected (str): The actual content, and what was expected.
    """

    def __init__(self, path: str | os.PathLike, actual: str, expected: str = "a video that FFmpeg can read"):
        self.path, self.actual, self.expected = os.fspath(path), actual, expected
        super().__init__(f"{self.path}: expected {expected}, found {actual}")

    def __reduce__(self):  # errors are sent between processes
        return type(self), (self.path, self.actual, self.expected)


class VideoInfo(NamedTuple):
    """Properties of a video from its container: number of frames, mean frames per second, duration in seconds, width and height
    in pixels.

    Width and height are those of the coded frame, before rotation and correction of the pixel aspect ratio; `picture_size` of
    an opened video includes both. If a container does not count its frames (Matroska, WebM), the number follows from the
    duration.
    """

    num_frames: int
    fps: float
    seconds: float
    width: int
    height: int


class Orientation(NamedTuple):
    """The rotation of a coded frame to upright: rows and columns are swapped first, then the order of either is reversed."""

    swapped: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """Rotates a frame (H, W, 3) upright."""
        if self.swapped:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


UPRIGHT = Orientation()


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The display matrix of a frame, rounded to one of the eight orientations that keep the pixel grid."""
    try:
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # the frame has side data of a type unknown to PyAV; `rotation` does not include mirroring
        turns = round(frame.rotation / 90) % 4
        return Orientation(turns % 2 == 1, turns in (1, 2), turns in (2, 3))
    if matrix is None:
        return UPRIGHT
    # Column and row (x, y) of a frame are mapped to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, d < 0, a < 0)
    return Orientation(True, b < 0, c < 0)


class VideoFrames:
    """Base of the three types of video (`VideoFile`, `FrameFolder`, `FrameArray`): frames at given times, and their scaling."""

    info: VideoInfo
    decoded_frames = damaged_frames = 0

    def __init__(self):
        # Shared by all frames, because its preparation takes ten times as long as scaling a small frame.
        self._reformatter = VideoReformatter()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Closes the video; folders and arrays have nothing to close."""

    def picture_size(self) -> tuple[int, int]:
        """Height and width of the upright frames."""
        return self.info.height, self.info.width

    def frames_at(
        self, times: Sequence[float], size: tuple[int, int] | None = None, part: Part | None = None
    ) -> np.ndarray:
        """The frames shown at given times.

        Times before the first frame give the first frame, and times after the last frame give the last. If decoding stops
        early, the last decoded frame replaces the rest, with a warning. A damaged frame is replaced by the nearest intact
        frame, with a warning.

        Args:
            times, size, part: See `FrameRequest`.

        Returns:
            uint8 (len(times), height, width, 3), RGB, upright.

        Raises:
            VideoFileError: If no frame can be decoded, or all frames are damaged.
        """
        return self.frames_of([FrameRequest(times, size, part)])[0]

    def frames_of(self, requests: Sequence[FrameRequest]) -> list[np.ndarray]:
        """The frames of several requests, each as from `frames_at`; every frame is decoded once."""
        for request in requests:
            if not len(request.times):
                raise ValueError("times: expected at least one, got none")
            self._check_request(len(request.times), request.size, request.part)
        moments = [
            (float(time), number, place)
            for number, request in enumerate(requests)
            for place, time in enumerate(request.times)
        ]
        moments.sort(key=lambda moment: moment[0])
        # The last frame may be shown for a while.
        frames = self._frames_in_order((moment[0] for moment in moments), max(1.0, 0.1 * self.info.seconds))
        results, shown = [None] * len(requests), [(None, None)] * len(requests)
        for _, number, place in moments:
            frame, request = next(frames, None), requests[number]
            if frame is None:  # decoding has stopped early
                frame = self._last_frame
            if shown[number][0] is not frame:
                shown[number] = frame, self._shown(frame, request.size, request.part, request.resample)
            picture = shown[number][1]
            if results[number] is None:
                results[number] = np.empty((len(request.times), *picture.shape), np.uint8)
            results[number][place] = picture
        frames.close()
        return results

    def pictures_in_order(
        self, times: Iterable[float], size: tuple[int, int] | None = None, resample: str | None = None
    ) -> Iterator[np.ndarray]:
        """Yields the frames shown at given times, in order; frames are not kept.

        Args:
            times: Seconds from the start, ascending.
            size, resample: See `FrameRequest`.

        Yields:
            uint8 (height, width, 3). If decoding stops early, there are fewer frames than times, with a warning.

        Raises:
            VideoFileError: If no frame can be decoded, or all frames are damaged.
        """
        self._check_request(1, size, None)
        frames, shown, picture = self._frames_in_order(times), None, None
        try:
            for frame in frames:
                if frame is not shown:
                    shown, picture = frame, self._shown(frame, size, None, resample)
                yield picture
        finally:
            frames.close()

    def _frames_in_order(self, times: Iterable[float], patience: float = 1.0) -> Iterator[av.VideoFrame]:
        """Yields the frame shown at each of the times, which are ascending; a frame that stays is the same object.

        Args:
            times: Seconds from the start, ascending.
            patience: Longest time in seconds for which the last frame may be shown; a later request means that the file is
                truncated.
        """
        raise NotImplementedError

    def _shown(
        self, frame: av.VideoFrame, size: tuple[int, int] | None, part: Part | None, resample: str | None
    ) -> np.ndarray:
        """The frame, scaled and cropped, as uint8 (H, W, 3)."""
        return self._scaled(frame, size or self._default_size(), part, resample)

    def _default_size(self) -> tuple[int, int]:
        """Height and width of frames that are not scaled."""
        return self.info.height, self.info.width

    def _check_request(self, count: int, size: tuple[int, int] | None, part: Part | None) -> None:
        """Raises `VideoFileError` if the requested frames would take too much memory."""
        height, width = size or self._default_size()
        pixels = height * width if part is None else np.prod([span.stop - span.start for span in part]).item()
        if 3 * max(height * width, count * pixels) > MAX_PICTURE_BYTES:
            raise VideoFileError(
                self.path,
                f"{count} frames of {width} x {height} pixels",
                f"at most {MAX_PICTURE_BYTES >> 20:,} MiB of frames at a time: request fewer or smaller frames",
            )

    def _scaled(
        self,
        frame: av.VideoFrame,
        size: tuple[int, int],
        part: Part | None,
        resample: str | None,
        orientation: Orientation = UPRIGHT,
    ) -> np.ndarray:
        """The frame as uint8 (H, W, 3), rotated upright, scaled to `size` (height, width), and cropped to `part`."""
        height, width = size[::-1] if orientation.swapped else size
        if resample is not None:
            height, width = frame.height, frame.width
        is_hdr = frame.color_trc in HDR_TRANSFERS
        pixels = "rgb48le" if is_hdr else "rgb24"
        with errors_of_ffmpeg(self.path):
            scaled = self._reformatter.reformat(frame, width, height, pixels, interpolation="BICUBIC").to_ndarray()
        if is_hdr:
            scaled = to_standard_range(scaled, frame.color_trc, frame.color_primaries)
        upright = orientation.upright(scaled)
        if resample is not None:
            image = Image.fromarray(np.ascontiguousarray(upright))
            upright = np.asarray(image.resize(size[::-1], Image.Resampling[resample.upper()]))
        # A copy of the part, so that the rest of the frame is not kept in memory.
        return np.ascontiguousarray(upright if part is None else upright[part])


@contextmanager
def errors_of_ffmpeg(path: str) -> Iterator[None]:
    """Turns errors of FFmpeg into `VideoFileError`. Some are subclasses of OSError, though the disk is not at fault."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise VideoFileError(path, error.strerror or str(error)) from error
    except OverflowError as error:
        raise VideoFileError(path, f"an invalid time stamp ({error})") from error


def checked_fps(path: str, fps: float) -> float:
    """The frame rate of a folder or an array. Raises `VideoFileError` if it is not a number, or out of range."""
    if not isinstance(fps, Real) or not MIN_FPS <= fps <= MAX_FPS:
        expected = f"from {MIN_FPS:g} to {MAX_FPS:,.0f} frames per second"
        raise VideoFileError(path, f"fps {as_written(fps)}", expected)
    return float(fps)


def check_length(path: str, info: VideoInfo) -> None:
    """Raises `VideoFileError` for an impossible number of frames, frame rate or duration."""
    if not MIN_FPS <= info.fps <= MAX_FPS:
        actual, expected = f"{info.fps:g} frames per second", f"from {MIN_FPS:g} to {MAX_FPS:,.0f} frames per second"
    elif info.seconds > MAX_SECONDS or info.num_frames > MAX_FRAMES:
        actual = f"{info.num_frames:,} frames in {info.seconds:,.0f} s"
        expected = f"at most {MAX_FRAMES:,} frames in {MAX_SECONDS:,.0f} s (31 days); cut it into parts"
    else:
        return
    raise VideoFileError(path, actual, expected)


def check_pixels(path: str, height: int, width: int) -> None:
    """Raises `VideoFileError` for frames that exceed the memory limit of a decoder."""
    if height * width > MAX_PIXELS:
        raise VideoFileError(
            path,
            f"frames of {width} x {height} pixels",
            f"at most {MAX_PIXELS:,} pixels (8192 x 4320): scale it down",
        )


__all__ = ["FrameRequest", "VideoFileError", "VideoInfo"]
