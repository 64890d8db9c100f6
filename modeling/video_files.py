"""Reads video files, folders of frames and arrays of frames: their properties, and their frames at given times.

Files are read by PyAV, whose wheel includes the codecs. A reader seeks to the key frame before the first requested time and
decodes from there. It keeps only two frames and the requested frames, however long the video is.

Frames are returned as a player shows them: rotated and mirrored by the display matrix, with square pixels, in standard dynamic
range.

A video must be a single file. Playlists, lists of files and session descriptions, which refer to other files or addresses, are
refused whatever their suffix. Files that would need more memory or time than a video of their size are refused, too.
"""

import errno
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.format import Flags
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps

from .high_dynamic_range import HDR_TRANSFERS, to_standard_range
from .model_files import as_written
from .mp4_boxes import TooManyBoxesError, check_index, lacks_index

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".mts", ".m2ts", ".ts", ".gif", ".flv", ".3gp", ".ogv"),
)
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# The formats of images with these suffixes. Other formats of Pillow start programs (EPS) or contain many images.
FRAME_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
# FFmpeg's names of the allowed formats: containers with the suffixes above, raw streams of their codecs, and images. All others
# are refused, among them formats that open further files or addresses (hls, dash, concat, sdp, rtsp, image2).
CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "gif", "asf", "ogg"),
    *("h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu", "av1", "ivf", "dv", "yuv4mpegpipe"),
    *("apng", "png_pipe", "jpeg_pipe", "bmp_pipe", "webp_pipe"),
)
# Allow only these formats, local files, and no references of an MP4 file to other files.
OPEN_OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file", "enable_drefs": "0"}
# Patterns of texts that refer to other files, and their names. FFmpeg looks for some of them after the start, too.
REFERENCES = (
    (re.compile(rb"#EXTM3U"), "a playlist (HLS)"),
    (re.compile(rb"ffconcat version"), "a list of files (ffconcat)"),
    (re.compile(rb"<MPD[\s>]"), "a manifest (DASH)"),
    (re.compile(rb"<SmoothStreamingMedia|<smil|<asx", re.IGNORECASE), "a playlist"),
    (re.compile(rb"\[(playlist|Reference)\]", re.IGNORECASE), "a playlist"),
    (re.compile(rb"^(v=0|c=IN IP[46] )", re.MULTILINE), "a session description (SDP)"),
)
# Number of bytes that are searched for these patterns.
HEAD_BYTES = 4096
# Maximum number of pixels of a frame, coded or shown: 8K (8192 x 4320). A decoder keeps up to 17 frames.
MAX_PIXELS = 8192 * 4320
# Maximum number of bytes of all frames of a request.
MAX_PICTURE_BYTES = 1 << 30
# Range of the frames per second of a video.
MIN_FPS, MAX_FPS = 0.01, 10_000.0
# Maximum duration of a video in seconds (31 days), and maximum number of frames.
MAX_SECONDS, MAX_FRAMES = 31 * 24 * 3600.0, 10**9
# Longest time between two frames in seconds; a longer gap is due to a damaged time stamp, and is closed.
MAX_STILL = 3600.0
# Least number of frames that a seek must skip, because restarting the decoder takes longer than decoding a few frames.
MIN_SKIP = 12
# Largest ratio of the range of frame numbers in a folder to the number of frames; beyond it, they are not frame numbers.
MAX_GAP = 1000
# Least seconds of decoding that a seek must skip if a container has no index of key frames.
SEEK_SECONDS = 2.0
# Frames that depend on a frame flagged by the decoder count as damaged for this many seconds.
DAMAGE_SECONDS = 2.0
# Larger steps of decoding times, in seconds, occur only where a recording starts again. FFmpeg's own program uses these values.
STEP_BACK, STEP_AHEAD = 0.1, 10.0
# Maximum number of pixels of damaged frames that are decoded before the first intact frame: 20 s of 1080p, or 34 frames of 8K.
MAX_DAMAGED_PIXELS = 1_200_000_000
# Largest plausible ratio of the sides of a pixel; pixels of containers that state more are taken as square.
MAX_PIXEL_ASPECT = 4

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


class _Orientation(NamedTuple):
    """The rotation of a coded frame to upright: rows and columns are swapped first, then the order of either is reversed."""

    swapped: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """Rotates a frame (H, W, 3) upright."""
        if self.swapped:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


UPRIGHT = _Orientation()


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """The display matrix of a frame, rounded to one of the eight orientations that keep the pixel grid."""
    try:
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # the frame has side data of a type unknown to PyAV; `rotation` does not include mirroring
        turns = round(frame.rotation / 90) % 4
        return _Orientation(turns % 2 == 1, turns in (1, 2), turns in (2, 3))
    if matrix is None:
        return UPRIGHT
    # Column and row (x, y) of a frame are mapped to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _Orientation(False, d < 0, a < 0)
    return _Orientation(True, b < 0, c < 0)


class _Clock:
    """Makes the time stamps of packets continuous where they restart.

    The time stamps of concatenated transport streams, and counters that wrap around, jump by hours or go back.

    Args:
        stream: The stream whose packets are demuxed, from the first packet or from a seek.
        may_jump: Whether its times may also jump ahead.
    """

    def __init__(self, stream: av.VideoStream, may_jump: bool):
        base = stream.time_base
        self._back = STEP_BACK / base
        # If the container does not allow jumps, a long time between two frames is a still image.
        self._ahead = STEP_AHEAD / base if may_jump else float("inf")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or 1
        self._step = round(1 / (rate * base))
        self._offset, self._last = 0, None
        self.jumps = 0

    def adjust(self, packet: av.Packet) -> None:
        """Corrects the times of the next packet if they do not continue those of the last packet."""
        if packet.dts is None:
            return
        time = packet.dts + self._offset
        if self._last is not None and not self._last - self._back <= time <= self._last + self._ahead:
            self.jumps += 1
            self._offset += self._last + self._step - time
            time = self._last + self._step
        self._last = time
        if self._offset:
            packet.dts = time
            packet.pts = None if packet.pts is None else packet.pts + self._offset


def read_video_info(file: str | os.PathLike | BinaryIO) -> VideoInfo:
    """Reads the header of a video file without decoding frames.

    All packets are read if the file is a transport or program stream (`.ts`, `.mts`, `.mpg`), whose time stamps may restart
    anywhere, or if its header is implausible.

    Args:
        file: Path, or open seekable file.

    Raises:
        VideoFileError: If the file is empty, damaged or not a video, has no video stream or no frames, refers to other files
            (playlists), or would need more memory or time than a video of its size.
        OSError: If the file cannot be opened.
    """
    with VideoFile(file) as video:
        return video.info


def open_video(
    recording: "str | os.PathLike | BinaryIO | np.ndarray | VideoFile | FrameFolder | FrameArray",
    *,
    fps: float = 30.0,
    name: str = "array",
) -> "VideoFile | FrameFolder | FrameArray":
    """Opens any kind of video, for use in a `with` statement. The result has `info` and `frames_at`.

    Args:
        recording: A file, or an open binary file; a folder of frames whose names end in their numbers; or an array of frames
            (T, H, W, 3), (T, H, W, 1), (T, H, W) or (T, 3, H, W), uint8, or floats from 0 to 1. An opened video is returned
            unchanged.
        fps: Frames per second of folders and arrays.
        name: Name of an array in errors.

    Raises:
        VideoFileError: If it is none of these, or cannot be read.
        OSError: If it cannot be opened.
    """
    if isinstance(recording, _Frames):
        return recording
    if hasattr(recording, "__array__"):  # tensors as well
        return FrameArray(np.asarray(recording), fps, name)
    if not (isinstance(recording, str | os.PathLike) or hasattr(recording, "read")):
        raise VideoFileError(name, type(recording).__name__, "a path, an open file, or an array of frames")
    if isinstance(recording, str | os.PathLike) and os.path.isdir(recording):
        return FrameFolder(recording, fps)
    return VideoFile(recording)


class _OpenFile:
    """An open file for FFmpeg, which in damaged files may seek to a position before the start."""

    def __init__(self, file: BinaryIO, path: str):
        self._file = file
        # The suffix helps to tell similar formats apart. The rest of the name might contain patterns or protocols.
        self.name = f"video{Path(path).suffix}"
        self.read, self.tell = file.read, file.tell

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(place, whence)
        except ValueError:  # raised by files in memory
            return -1
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -1


class _Frames:
    """Base of the three types of video: `info`, and the scaling of frames."""

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
        orientation: _Orientation = UPRIGHT,
    ) -> np.ndarray:
        """The frame as uint8 (H, W, 3), rotated upright, scaled to `size` (height, width), and cropped to `part`."""
        height, width = size[::-1] if orientation.swapped else size
        if resample is not None:
            height, width = frame.height, frame.width
        is_hdr = frame.color_trc in HDR_TRANSFERS
        pixels = "rgb48le" if is_hdr else "rgb24"
        with _errors_of_ffmpeg(self.path):
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
def _errors_of_ffmpeg(path: str) -> Iterator[None]:
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


class VideoFile(_Frames):
    """A video file, decoded on request.

    Args:
        file: Path, or open seekable file.
        threads: Number of threads that decode the slices of a frame; 0 lets FFmpeg choose. Frames are not decoded in parallel,
            because after a seek this costs more than it saves.

    Attributes:
        info (VideoInfo): Properties of the video, from the container.
        decoded_frames, damaged_frames (int): Number of frames that were decoded for the last request, and number of those that
            are damaged: FFmpeg concealed an error in the frame, or in a frame since the last key frame, on which it depends.

    Raises:
        VideoFileError, OSError: See `read_video_info`.
    """

    def __init__(self, file: str | os.PathLike | BinaryIO, threads: int = 0):
        super().__init__()
        is_open = hasattr(file, "read")
        self.path = str(getattr(file, "name", "stream")) if is_open else os.fsdecode(file)
        # A path without a size, such as a pipe, is not read, because reading might block.
        if not is_open and os.path.getsize(file) == 0:
            raise VideoFileError(self.path, "an empty file")
        with nullcontext(file) if is_open else open(file, "rb") as opened:
            head = self._check_head(opened)
        try:
            # The prefix keeps FFmpeg from reading another protocol from the name of the file. Container options apply to the
            # demuxer only, the other options also to the decoders that identify the streams.
            self._container = av.open(
                _OpenFile(file, self.path) if is_open else f"file:{self.path}",
                options={"max_pixels": str(MAX_PIXELS)},
                container_options=OPEN_OPTIONS,
                metadata_errors="ignore",
            )
        except av.error.FFmpegError as error:
            raise self._refusal(file, head, error) from error
        self._can_seek, self._has_decoded, self._is_at_start = True, False, True
        self._rotation, self._orientation, self._picture_size = None, UPRIGHT, None
        self.decoded_frames, self.damaged_frames, self._said_damage = 0, 0, False
        try:
            with _errors_of_ffmpeg(self.path):
                self.info = self._read_info()
            check_length(self.path, self.info)
        except BaseException:
            self.close()
            raise
        self._stream.thread_count = threads
        self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        self._pixel_aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if not 1 / MAX_PIXEL_ASPECT <= self._pixel_aspect <= MAX_PIXEL_ASPECT:
            warnings.warn(
                f"{self.path}: the header states pixels that are {float(self._pixel_aspect):g} times as wide as high, which "
                "is implausible; they are taken as square",
                stacklevel=2,
            )
            self._pixel_aspect = Fraction(1)
        self._start = float((self._stream.start_time or 0) * self._stream.time_base)

    def _check_head(self, file: BinaryIO) -> bytes:
        """Reads the first bytes of a file, and leaves it at its start."""
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if not isinstance(head, bytes):
            raise VideoFileError(self.path, f"{type(head).__name__} read from it", "a file opened in binary mode")
        if not head:
            raise VideoFileError(self.path, "an empty file")
        try:
            check_index(file)
        except TooManyBoxesError as error:
            raise VideoFileError(self.path, str(error), "an index of the frames in the file") from error
        file.seek(0)
        return head

    def _refusal(self, file: str | os.PathLike | BinaryIO, head: bytes, error: Exception) -> VideoFileError:
        """The error for a file that FFmpeg could not open."""
        for pattern, format_name in REFERENCES:
            if pattern.search(head):
                return VideoFileError(
                    self.path,
                    f"{format_name}, which refers to other files or addresses; pass the video itself",
                    "a video in a single file",
                )
        with nullcontext(file) if hasattr(file, "read") else open(file, "rb") as opened:
            if lacks_index(opened):
                return VideoFileError(
                    self.path,
                    "an MP4 file without its index (moov atom): the recording was not finished, or the copy is incomplete; "
                    "copy it again, or rebuild the index (`untrunc`)",
                    "a complete video",
                )
        if isinstance(error, av.error.ArgumentError):
            return VideoFileError(
                self.path,
                "a file that is damaged, or of an unsupported format: convert it to MP4",
                f"a video ({', '.join(VIDEO_SUFFIXES)})",
            )
        return VideoFileError(self.path, error.strerror or str(error))

    def _read_info(self) -> VideoInfo:
        # Streams with the cover image of an album are not videos.
        streams = [
            stream for stream in self._container.streams.video if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise VideoFileError(self.path, f"{len(self._container.streams)} streams without a video")
        self._stream = stream = streams[0]
        if stream.codec_context is None:
            raise VideoFileError(self.path, "a codec that FFmpeg does not support")
        # Some containers allow time stamps to restart, as in concatenated streams.
        self._may_jump = Flags.ts_discont in Flags(self._container.format.flags)
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        duration = stream.duration and stream.duration * stream.time_base
        duration = duration or (self._container.duration or 0) / av.time_base
        num_frames = stream.frames or round(duration * (rate or 0))
        if (not num_frames or duration > MAX_SECONDS) and rate and stream.width:
            num_frames, duration = self._count_packets()
        elif rate and stream.width and self._may_jump:
            # The two fields of a frame may be separate packets, so the number of frames follows from the duration.
            _, counted = self._count_packets()
            duration = counted or duration
            num_frames = round(duration * rate)
        if not num_frames or not rate or not stream.width:
            raise VideoFileError(self.path, f"{num_frames} frames of {stream.width} x {stream.height} pixels")
        check_pixels(self.path, stream.height, stream.width)
        seconds = float(duration or num_frames / rate)
        # With a variable rate, frames may be repeated; an AVI has a constant rate.
        is_avi = self._container.format.name == "avi"
        if num_frames / rate > seconds + (0.1 if is_avi else 0.5 + 0.25 * seconds):
            # The file is truncated, or the duration in the header is wrong, if there is a separate field for it.
            packets, counted = (0, None) if is_avi else self._count_packets()
            if counted and packets >= num_frames:
                return VideoInfo(packets, float(packets / counted), float(counted), stream.width, stream.height)
            actual = f"{num_frames} frames at {float(rate):g} per second in {seconds:.1f} s"
            raise VideoFileError(self.path, actual, "a complete video")
        return VideoInfo(num_frames, float(rate), seconds, stream.width, stream.height)

    def _count_packets(self) -> tuple[int, Fraction | None]:
        """Number of packets and duration of a file whose header does not contain them, because the recorder could not go back
        to write them. Nothing is decoded. The duration is `None` if packets have no times.
        """
        first, last, timed, count = None, None, 0, 0
        clock = _Clock(self._stream, self._may_jump)
        for packet in self._packets():
            clock.adjust(packet)
            count += packet.size > 0
            if packet.size and packet.pts is not None:
                first = packet.pts if first is None else min(first, packet.pts)
                last = packet.pts if last is None else max(last, packet.pts)
                timed += 1
        self._rewind()
        if timed < 2:
            return count, None
        # After a jump, a time is ambiguous, so seeking is impossible.
        self._can_seek = not clock.jumps
        return count, (last - first) * self._stream.time_base * timed / (timed - 1)

    def _packets(self) -> Iterator[av.Packet]:
        """Packets of the stream from the current position on, and an empty packet at the end."""
        try:
            yield from self._container.demux(self._stream)
        except IndexError:
            # At the end of the file, PyAV looks up streams that began after it was opened, which it does not know.
            return

    def _rewind(self) -> None:
        """Seeks to the first packet."""
        self._is_at_start = True
        if self._may_jump or self._stream.start_time is None:
            # By position, because the first time of such a stream need not be the smallest, and raw streams have no times.
            self._container.seek(0, unsupported_byte_offset=True)
        else:
            self._container.seek(0, stream=self._stream)

    def close(self):
        self._container.close()

    def picture_size(self) -> tuple[int, int]:
        """Height and width of upright frames with square pixels. The orientation is that of the first frame."""
        if self._picture_size is None:
            self._picture_size = self.frames_at([0.0]).shape[1:3]
        return self._picture_size

    def _default_size(self) -> tuple[int, int]:
        return self._square_size(self._orientation)

    def _square_size(self, orientation: _Orientation) -> tuple[int, int]:
        """Height and width of upright frames with square pixels, without loss of resolution.

        The size is the same for all frames, even if the resolution changes within the video.
        """
        height, width = self.info.height, self.info.width
        if self._pixel_aspect > 1:
            width = round(width * self._pixel_aspect)
        else:
            height = round(height / self._pixel_aspect)
        return (width, height) if orientation.swapped else (height, width)

    def _frames_in_order(self, times: Iterable[float], patience: float = 1.0) -> Iterator[av.VideoFrame]:
        try:
            yield from self._decoded(times, patience)
        finally:
            # If all frames are damaged, there is an error instead of this warning.
            if 0 < self.damaged_frames < self.decoded_frames and not self._said_damage:
                self._said_damage = True
                share = self.damaged_frames / self.decoded_frames
                warnings.warn(
                    f"{self.path}: {share:.0%} of the frames are damaged ({self.damaged_frames} of {self.decoded_frames} that "
                    "were decoded); each is replaced by the nearest intact frame",
                    stacklevel=2,
                )

    def _decoded(self, times: Iterable[float], patience: float) -> Iterator[av.VideoFrame]:
        """See `_frames_in_order`."""
        keys = self._key_times()
        if self._has_decoded:
            with _errors_of_ffmpeg(self.path):
                self._rewind()
        self._has_decoded, self._problem = True, None
        self.decoded_frames, self.damaged_frames = 0, 0
        frames = self._intact_frames()
        current, following = None, next(frames, None)
        for time in times:
            # The tolerance makes rounded times of a frame belong to that frame.
            time += self._start + 1e-3 / max(self.info.fps, 1.0)
            if following is not None and self._is_worth_a_seek(time, following[0], keys):
                frames = self._seek(time, keys)
                current, following = None, next(frames, None)
            while following is not None and (current is None or following[0] <= time):
                current, following = following, next(frames, None)
            if current is None:
                raise VideoFileError(self.path, f"no frame that can be decoded ({self._problem or 'no packets'})")
            longest = patience if self._problem is None else 1.5 / self.info.fps
            if following is None and min(time, self._start + self.info.seconds) > current[0] + longest:
                warnings.warn(
                    f"{self.path}: decoding stopped at {current[0] - self._start:.2f} s of {self.info.seconds:.2f} s "
                    f"({self._problem or 'the file ends'})",
                    stacklevel=2,
                )
                self._last_frame = current[1]
                return
            yield current[1]

    def _shown(
        self, frame: av.VideoFrame, size: tuple[int, int] | None, part: Part | None, resample: str | None
    ) -> np.ndarray:
        # Reading its side data puts a frame of PyAV into a reference cycle, which delays the release of its memory.
        if frame.rotation != self._rotation:
            self._rotation, self._orientation = frame.rotation, _orientation(frame)
        return self._scaled(frame, size or self._default_size(), part, resample, self._orientation)

    def _key_times(self) -> np.ndarray:
        """Times of the key frames in seconds, as far as the container has an index of them."""
        base = float(self._stream.time_base)
        return np.array([entry.timestamp * base for entry in self._stream.index_entries if entry.is_keyframe])

    def _is_worth_a_seek(self, time: float, position: float, keys: np.ndarray) -> bool:
        if not self._can_seek or time <= position:
            return False
        if len(keys) > 1:
            reached = keys[max(np.searchsorted(keys, time, "right") - 1, 0)]
            return reached - position > MIN_SKIP / self.info.fps
        return time - position > SEEK_SECONDS

    def _seek(self, time: float, keys: np.ndarray) -> Iterator[tuple[float, av.VideoFrame]]:
        """Frames from the last key frame at or before `time` on."""
        base, counts = float(self._stream.time_base), (self.decoded_frames, self.damaged_frames)
        # For a presentation time, FFmpeg seeks to the last key frame that is not presented later. The index has decoding times,
        # which might lead to the key frame after it; earlier key frames of the index are tried next.
        for target in (time, *keys[keys <= time][::-1][1:3].tolist()):
            try:
                self._container.seek(int(np.floor(target / base)), stream=self._stream, backward=True)
            except (av.error.FFmpegError, OverflowError):
                break
            self._is_at_start = False
            frames = self._intact_frames(after_seek=True)
            first = next(frames, None)
            if first is not None and first[0] <= time:
                return chain([first], frames)
            self.decoded_frames, self.damaged_frames = counts
        # If seeking fails, decode from the start, and do not seek again.
        self._can_seek = False
        self.decoded_frames, self.damaged_frames = 0, 0
        with _errors_of_ffmpeg(self.path):
            self._rewind()
        return self._intact_frames()

    def _intact_frames(self, after_seek: bool = False) -> Iterator[tuple[float, av.VideoFrame]]:
        """Like `_decode`, but damaged frames are replaced by the nearest intact frame.

        Damaged frames before the first intact frame are dropped: after a seek, frames before the key frame lack their
        references, even in intact files.
        """
        before, damaged, after, is_damaged, flagged, waited = None, [], None, False, -np.inf, 0

        def replaced() -> Iterator[tuple[float, av.VideoFrame]]:
            """The replacements of damaged frames, with the times of those frames."""
            if before is not None or not after_seek:
                self.damaged_frames += len(damaged)
            intact = [neighbour for neighbour in (before, after) if neighbour is not None]
            for moment in damaged if before is not None else ():
                yield moment, min(intact, key=lambda neighbour: round(abs(neighbour[0] - moment), 6))[1]

        for seconds, frame in self._decode():
            if frame.is_corrupt:
                flagged = seconds
            # A frame depends on those before it, so damage lasts until the next key frame. Some streams have only one key
            # frame, and refresh the image gradually; there, damage ends after DAMAGE_SECONDS.
            is_inherited = is_damaged and not frame.key_frame and seconds - flagged <= DAMAGE_SECONDS
            is_damaged = frame.is_corrupt or is_inherited
            if is_damaged:
                if before is None and after is None:
                    waited += frame.width * frame.height
                    if waited > MAX_DAMAGED_PIXELS:
                        damaged.append(seconds)
                        break
                # A single intact frame between damaged frames is damaged, too: its errors were not detected.
                damaged += [seconds] if after is None else [after[0], seconds]
                after = None
            elif damaged and after is None:
                after = seconds, frame
            else:
                if after is not None:
                    yield from replaced()
                    yield after
                    damaged, after = [], None
                before = seconds, frame
                yield before
        yield from replaced()
        if after is not None:
            yield after
        elif damaged and before is None:
            which = "the first" if waited > MAX_DAMAGED_PIXELS else "all"
            self._problem = f"{which} {len(damaged)} frames are damaged"

    def _decode(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Times in seconds and frames from the current position on, in order of presentation; stops where decoding fails."""
        last, number, clock = -np.inf, 0, _Clock(self._stream, self._may_jump)
        # The first frame is at the start time; after a seek, it may be anywhere.
        before = self._start if self._is_at_start else np.inf
        try:
            for packet in self._packets():
                clock.adjust(packet)
                for frame in packet.decode():
                    # Raw streams have no times; some AVI files have decoding times, which are not in order.
                    seconds = number / self.info.fps if frame.time is None else frame.time
                    if seconds > before + MAX_STILL:
                        seconds = before + 1 / self.info.fps
                    before = last = max(last, seconds)
                    number += 1
                    self.decoded_frames += 1
                    yield last, frame
        except av.error.FFmpegError as error:
            self._problem = error.strerror or str(error)
        except OverflowError:  # the time of a packet exceeds 64 bits
            self._problem = "an invalid time stamp"


class FrameFolder(_Frames):
    """A folder of images whose names end in frame numbers. A missing number repeats the frame before it.

    Raises:
        VideoFileError: If there is no image, a name has no number, or two images have the same number.
    """

    def __init__(self, folder: str | os.PathLike, fps: float):
        super().__init__()
        self.path = os.fspath(folder)
        names = [name for name in os.listdir(folder) if name.lower().endswith(FRAME_SUFFIXES) and name[0] != "."]
        if not names:
            raise VideoFileError(self.path, f"a folder of {len(os.listdir(folder))} other files", "a folder of images")
        numbers = {}
        for name in sorted(names):
            digits = re.search(r"(\d+)$", Path(name).stem)
            if digits is None:
                raise VideoFileError(self.path, f"the name {name!r}", "names of images that end in a number")
            if int(digits[1]) in numbers:
                raise VideoFileError(self.path, f"{numbers[int(digits[1])]!r} and {name!r}", "one image per number")
            numbers[int(digits[1])] = name
        self._names = [numbers[number] for number in sorted(numbers)]
        start, length = min(numbers), max(numbers) - min(numbers) + 1
        if length > MAX_GAP * len(names):
            actual = f"{len(names)} images with numbers from {start} to {max(numbers)}"
            raise VideoFileError(self.path, actual, "numbers that count frames, not times")
        # Relative to the first number, because the numbers themselves may exceed 64 bits.
        self._places = np.array([number - start for number in sorted(numbers)])
        if length > len(names):
            first_missing = start + int(self._places[np.argmax(np.diff(self._places) > 1)]) + 1
            warnings.warn(
                f"{self.path}: {length - len(names)} of {length} numbers are missing, the first is {first_missing}; each is "
                "replaced by the image before it",
                stacklevel=3,
            )
        self._fps = checked_fps(self.path, fps)
        first = self._open(0)
        self.info = VideoInfo(length, float(fps), length / fps, first.width, first.height)
        check_length(self.path, self.info)

    def _open(self, place: int) -> av.VideoFrame:
        path = Path(self.path, self._names[place])
        if not path.is_file():  # reading a pipe would block
            raise VideoFileError(path, "no regular file", "an image")
        try:
            with Image.open(path, formats=FRAME_FORMATS) as image:
                check_pixels(path, image.height, image.width)
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):  # 16 bits per pixel, such as depth
                    upright = Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
                return av.VideoFrame.from_image(upright.convert("RGB"))
        except VideoFileError:
            raise
        except Exception as error:  # Pillow raises many kinds of errors for damaged files
            raise VideoFileError(path, f"{type(error).__name__}: {error}", "an image") from error

    def _frames_in_order(self, times: Iterable[float], patience: float = 1.0) -> Iterator[av.VideoFrame]:
        opened, frame = None, None
        for time in times:
            place = max(int(np.searchsorted(self._places, np.floor(time * self._fps + 1e-3), "right")) - 1, 0)
            if place != opened:
                opened, frame = place, self._open(place)
            yield frame


class FrameArray(_Frames):
    """Frames in memory.

    Raises:
        VideoFileError: If the shape or the values are not those of frames.
    """

    def __init__(self, frames: np.ndarray, fps: float, name: str = "array"):
        super().__init__()
        self.path = name
        actual = f"{frames.dtype} {frames.shape}"
        if frames.ndim == 2 or (frames.ndim == 3 and 3 in (frames.shape[0], frames.shape[-1])):
            raise VideoFileError(
                name,
                f"a single image {actual}",
                "all frames of a video in one array (grey frames as (T, H, W, 1)); lists are for several videos",
            )
        if frames.ndim == 3:
            frames = frames[..., None]
        if frames.ndim == 4 and frames.shape[-1] not in (1, 3) and frames.shape[1] in (1, 3):
            frames = frames.transpose(0, 2, 3, 1)
        if frames.ndim != 4 or frames.shape[-1] not in (1, 3) or not frames.size:
            raise VideoFileError(name, actual, "frames (T, H, W, 3), (T, H, W, 1), (T, H, W) or (T, 3, H, W)")
        if frames.dtype.kind == "f":
            low, high = float(frames.min()), float(frames.max())
            if not 0 <= low <= high <= 1:
                raise VideoFileError(name, f"floats from {low:g} to {high:g}", "uint8, or floats from 0 to 1")
            self._scale = 255.0
        elif frames.dtype == np.uint8:
            self._scale = None
        else:
            raise VideoFileError(name, actual, "uint8, or floats from 0 to 1")
        check_pixels(name, *frames.shape[1:3])
        self._frames, self._fps = frames, checked_fps(name, fps)
        self.info = VideoInfo(len(frames), float(fps), len(frames) / fps, frames.shape[2], frames.shape[1])
        check_length(name, self.info)

    def _frames_in_order(self, times: Iterable[float], patience: float = 1.0) -> Iterator[av.VideoFrame]:
        made, frame = None, None
        for time in times:
            index = min(max(int(np.floor(time * self._fps + 1e-3)), 0), len(self._frames) - 1)
            if index != made:
                made, frame = index, self._frame(index)
            yield frame

    def _frame(self, index: int) -> av.VideoFrame:
        values = self._frames[index]
        if self._scale is not None:
            values = np.rint(values * self._scale).astype(np.uint8)
        values = np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
        return av.VideoFrame.from_ndarray(values, format="rgb24")


__all__ = [
    "FRAME_SUFFIXES",
    "VIDEO_SUFFIXES",
    "FrameArray",
    "FrameFolder",
    "FrameRequest",
    "VideoFile",
    "VideoFileError",
    "VideoInfo",
    "open_video",
    "read_video_info",
]
