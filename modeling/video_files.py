"""Video files, folders of frames and arrays of frames: what is in them, and their frames at given times.

Files are read by PyAV, which brings its codecs in its wheel. A reader seeks to the key frame before the first time that it is
asked for and decodes from there; it holds two frames, and the frames that were asked for, however long the video is.

Pictures are as a player shows them: turned and mirrored by the display matrix, with square pixels, in standard dynamic range.

A video is one file. What names other files or addresses (playlists, lists of files, session descriptions) is refused whatever
its suffix, and so is what asks for more memory or time than a video of its size can need.
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
# The formats of pictures with these suffixes. Pillow has others that start programs (EPS) or hold many pictures.
FRAME_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
# FFmpeg's names of the formats that are read: containers of the suffixes above, raw streams of their codecs, and pictures. All
# others are refused, those that open further files or addresses (hls, dash, concat, sdp, rtsp, image2) among them.
CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "gif", "asf", "ogg"),
    *("h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu", "av1", "ivf", "dv", "yuv4mpegpipe"),
    *("apng", "png_pipe", "jpeg_pipe", "bmp_pipe", "webp_pipe"),
)
# The only protocol, and the options of a demuxer that would follow what an MP4 file says of other files.
OPEN_OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file", "enable_drefs": "0"}
# How texts begin that name other files, and what they are. FFmpeg looks for some of them behind the start, too.
REFERENCES = (
    (re.compile(rb"#EXTM3U"), "a playlist (HLS)"),
    (re.compile(rb"ffconcat version"), "a list of files (ffconcat)"),
    (re.compile(rb"<MPD[\s>]"), "a manifest (DASH)"),
    (re.compile(rb"<SmoothStreamingMedia|<smil|<asx", re.IGNORECASE), "a playlist"),
    (re.compile(rb"\[(playlist|Reference)\]", re.IGNORECASE), "a playlist"),
    (re.compile(rb"^(v=0|c=IN IP[46] )", re.MULTILINE), "a session description (SDP)"),
)
# Bytes in which these are looked for.
HEAD_BYTES = 4096
# Pixels of a picture, coded or shown: 8K (8192 x 4320). A decoder holds up to 17 of them.
MAX_PIXELS = 8192 * 4320
# Bytes of all pictures that are asked for at a time.
MAX_PICTURE_BYTES = 1 << 30
# Frames per second that a video may have.
MIN_FPS, MAX_FPS = 0.01, 10_000.0
# Seconds that a video may last, a month, and its frames.
MAX_SECONDS, MAX_FRAMES = 31 * 24 * 3600.0, 10**9
# Seconds from a frame to the next, at most; a time stamp that says more is damaged, and the gap is left out.
MAX_STILL = 3600.0
# Frames that a seek must spare: to stop and to start the decoder anew takes longer than a few.
MIN_SKIP = 12
# Numbers of pictures in a folder, for each that is there: more, and they are no numbers of frames.
MAX_GAP = 1000
# Where a container has no index of its key frames, seconds of decoding that are worth a seek.
SEEK_SECONDS = 2.0
# Seconds after the last frame that the decoder flagged, for which frames that were made of it are taken for damaged.
DAMAGE_SECONDS = 2.0
# Seconds by which decoding times go back, or go ahead, only where a recording begins anew. FFmpeg's own program has the same.
STEP_BACK, STEP_AHEAD = 0.1, 10.0
# Pixels of damaged frames that are decoded, at most, in wait of the first whole one: 20 s of 1080p, or 34 frames of 8K.
MAX_DAMAGED_PIXELS = 1_200_000_000
# Pixels are so many times as wide as high, or as high as wide, at most; a container that says more is not believed.
MAX_PIXEL_ASPECT = 4

# Rows and columns of a picture.
Part = tuple[slice, slice]


class VideoFileError(ValueError):
    """A recording is no video that can be read.

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
    """What the container says: frames, frames per second (mean), seconds, width and height in pixels.

    Width and height are those of the coded frame, before it is turned upright and before its pixels are made square;
    `picture_size` of an opened video has both. A container that does not count its frames (Matroska, WebM) has as many as
    fit its time.
    """

    num_frames: int
    fps: float
    seconds: float
    width: int
    height: int


class _Orientation(NamedTuple):
    """How a coded frame is turned upright: rows and columns are swapped first, then the order of either is reversed."""

    swapped: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) → the same picture, upright."""
        if self.swapped:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


UPRIGHT = _Orientation()


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """The display matrix of a frame, to the nearest of the eight that keep pixels in a grid."""
    try:
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # side data of a type that PyAV has no name for; `rotation` knows of no mirrors
        turns = round(frame.rotation / 90) % 4
        return _Orientation(turns % 2 == 1, turns in (1, 2), turns in (2, 3))
    if matrix is None:
        return UPRIGHT
    # Column and row (x, y) of a frame get to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _Orientation(False, d < 0, a < 0)
    return _Orientation(True, b < 0, c < 0)


class _Clock:
    """Lets the time stamps of packets run on where they begin anew.

    Transport streams that were put one behind the other, and counters that wrap around, jump by hours or go back.

    Args:
        stream: whose packets are demuxed, from the first or from a seek on.
        may_jump: whether its times may go ahead, too.
    """

    def __init__(self, stream: av.VideoStream, may_jump: bool):
        base = stream.time_base
        self._back = STEP_BACK / base
        # Where the container does not allow jumps, a long time between two frames is a still.
        self._ahead = STEP_AHEAD / base if may_jump else float("inf")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or 1
        self._step = round(1 / (rate * base))
        self._offset, self._last = 0, None
        self.jumps = 0

    def adjust(self, packet: av.Packet) -> None:
        """Changes the times of the stream's next packet, where they do not follow those of the last one."""
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
    """Reads the head of a video file; nothing is decoded.

    Of transport and program streams (`.ts`, `.mts`, `.mpg`), whose time stamps may begin anew anywhere, and of files whose
    head cannot be right, all packets are read.

    Args:
        file: Its path, or the open file, which must be seekable.

    Raises:
        VideoFileError: Empty, damaged, of a format that is none of videos, without a picture stream, or without a frame; a
            playlist or another text that names further files; or it asks for more than a video of its size can need.
        OSError: The file cannot be opened.
    """
    with VideoFile(file) as video:
        return video.info


def open_video(
    recording: "str | os.PathLike | BinaryIO | np.ndarray | VideoFile | FrameFolder | FrameArray",
    *,
    fps: float = 30.0,
    name: str = "array",
) -> "VideoFile | FrameFolder | FrameArray":
    """Any kind of video as one that has `info` and `frames_at`, to be used in a `with` statement.

    Args:
        recording: A file, or what is open for reading bytes; a folder of pictures whose names end in their numbers; or an
            array of frames (T, H, W, 3), (T, H, W, 1), (T, H, W) or (T, 3, H, W), uint8, or floats from 0 to 1. What this
            function returned is given back as it is.
        fps: Frames per second of folders and arrays.
        name: What an error calls an array.

    Raises:
        VideoFileError: It is none of these, or cannot be read.
        OSError: It cannot be opened.
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
    """An open file as FFmpeg reads it, which may ask a damaged one for a place before its start."""

    def __init__(self, file: BinaryIO, path: str):
        self._file = file
        # The suffix is a hint where contents are alike; patterns and protocols in the rest of a name are none.
        self.name = f"video{Path(path).suffix}"
        self.read, self.tell = file.read, file.tell

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(place, whence)
        except ValueError:  # of files in memory
            return -1
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -1


class _Frames:
    """What the three kinds of video have in common: `info`, how a frame is scaled, and an end."""

    info: VideoInfo
    decoded_frames = damaged_frames = 0

    def __init__(self):
        # One for all frames: preparing to scale to a size takes ten times as long as scaling a small picture to it.
        self._reformatter = VideoReformatter()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Nothing is open."""

    def picture_size(self) -> tuple[int, int]:
        """Height and width of the pictures, turned upright."""
        return self.info.height, self.info.width

    def pictures_in_order(
        self,
        times: Iterable[float],
        size: tuple[int, int] | None = None,
        part: Part | None = None,
        patience: float = 1.0,
    ) -> Iterator[np.ndarray]:
        """See `VideoFile.pictures_in_order`."""
        for time in times:
            yield self.frames_at([time], size, part)[0]

    def _check_request(self, count: int, size: tuple[int, int], part: Part | None) -> None:
        """Raises `VideoFileError` for more pictures at a time than there should be memory for."""
        height, width = size
        pixels = height * width if part is None else np.prod([span.stop - span.start for span in part]).item()
        if 3 * max(height * width, count * pixels) > MAX_PICTURE_BYTES:
            raise VideoFileError(
                self.path,
                f"{count} pictures of {width} x {height} pixels",
                f"{MAX_PICTURE_BYTES >> 20:,} MiB of pictures at a time at most: ask for fewer or smaller ones",
            )

    def _scaled(
        self,
        frame: av.VideoFrame,
        size: tuple[int, int] | None,
        part: Part | None,
        orientation: _Orientation = UPRIGHT,
    ) -> np.ndarray:
        """uint8 (H, W, 3), turned upright and scaled to `size` (height, width); of that a part."""
        if size is not None and orientation.swapped:
            size = size[::-1]
        height, width = size or (frame.height, frame.width)
        is_hdr = frame.color_trc in HDR_TRANSFERS
        pixels = "rgb48le" if is_hdr else "rgb24"
        with _errors_of_ffmpeg(self.path):
            scaled = self._reformatter.reformat(frame, width, height, pixels, interpolation="BICUBIC").to_ndarray()
        if is_hdr:
            scaled = to_standard_range(scaled, frame.color_trc, frame.color_primaries)
        upright = orientation.upright(scaled)
        # A copy of what is asked for, so that the rest is not kept.
        return np.ascontiguousarray(upright if part is None else upright[part])


@contextmanager
def _errors_of_ffmpeg(path: str) -> Iterator[None]:
    """Raises what FFmpeg cannot do as `VideoFileError`. Some are OSErrors, though the disk is not at fault."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise VideoFileError(path, error.strerror or str(error)) from error
    except OverflowError as error:
        raise VideoFileError(path, f"a time stamp that is no time ({error})") from error


def checked_fps(path: str, fps: float) -> float:
    """The rate of a folder or an array; `VideoFileError` where it is no number, or none that a video may have."""
    if not isinstance(fps, Real) or not MIN_FPS <= fps <= MAX_FPS:
        found, expected = f"fps {as_written(fps)}", f"from {MIN_FPS:g} to {MAX_FPS:,.0f} frames a second"
        raise VideoFileError(path, found, expected)
    return float(fps)


def check_length(path: str, info: VideoInfo) -> None:
    """Raises `VideoFileError` for frames, a frame rate or a length that no recording has."""
    if not MIN_FPS <= info.fps <= MAX_FPS:
        found, expected = f"{info.fps:g} frames a second", f"from {MIN_FPS:g} to {MAX_FPS:,.0f} frames a second"
    elif info.seconds > MAX_SECONDS or info.num_frames > MAX_FRAMES:
        found = f"{info.num_frames:,} frames in {info.seconds:,.0f} s"
        expected = f"at most {MAX_FRAMES:,} frames in {MAX_SECONDS:,.0f} s (31 days); cut it into parts"
    else:
        return
    raise VideoFileError(path, found, expected)


def check_pixels(path: str, height: int, width: int) -> None:
    """Raises `VideoFileError` for pictures that are larger than a decoder has memory for."""
    if height * width > MAX_PIXELS:
        raise VideoFileError(
            path,
            f"pictures of {width} x {height} pixels",
            f"{MAX_PIXELS:,} pixels (8192 x 4320) at most: scale it down",
        )


def _check_times(times: Sequence[float]) -> None:
    """Raises `ValueError` where no picture is asked for."""
    if not len(times):
        raise ValueError("times: expected at least one, got none")


class VideoFile(_Frames):
    """A file, decoded as far as it is asked for.

    Args:
        file: Its path, or the open file, which must be seekable.
        threads: Threads that decode the slices of a frame; 0 leaves their number to FFmpeg. Whole frames are not decoded side
            by side: after a seek that costs more than it saves.

    Attributes:
        info (VideoInfo): What the container says.
        decoded_frames, damaged_frames (int): Frames that were decoded for the last call, and how many of them are damaged:
            FFmpeg concealed an error in them, or in a frame since the last key frame, of which they were made.

    Raises:
        VideoFileError, OSError: As `read_video_info`.
    """

    def __init__(self, file: str | os.PathLike | BinaryIO, threads: int = 0):
        super().__init__()
        is_open = hasattr(file, "read")
        self.path = str(getattr(file, "name", "stream")) if is_open else os.fsdecode(file)
        # Nothing is read of what has no size and may block, such as a pipe.
        if not is_open and os.path.getsize(file) == 0:
            raise VideoFileError(self.path, "an empty file")
        with nullcontext(file) if is_open else open(file, "rb") as opened:
            head = self._check_head(opened)
        try:
            # With the name of the protocol, no other one is taken from the name of the file. Options are of the container
            # alone, and of what is decoded of it to know its streams.
            self._container = av.open(
                _OpenFile(file, self.path) if is_open else f"file:{self.path}",
                options={"max_pixels": str(MAX_PIXELS)},
                container_options=OPEN_OPTIONS,
                metadata_errors="ignore",
            )
        except av.error.FFmpegError as error:
            raise self._refusal(file, head, error) from error
        self._can_seek, self._has_decoded, self._is_at_start = True, False, True
        self._rotation, self._orientation = None, UPRIGHT
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
                f"{self.path}: its head says that pixels are {float(self._pixel_aspect):g} times as wide as high, which "
                "cannot be right; they are taken for square",
                stacklevel=2,
            )
            self._pixel_aspect = Fraction(1)
        self._start = float((self._stream.start_time or 0) * self._stream.time_base)

    def _check_head(self, file: BinaryIO) -> bytes:
        """The first bytes of a file; it is at its start then."""
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if not isinstance(head, bytes):
            raise VideoFileError(
                self.path, f"{type(head).__name__} read from it", "a file that is open for reading bytes"
            )
        if not head:
            raise VideoFileError(self.path, "an empty file")
        try:
            check_index(file)
        except TooManyBoxesError as error:
            raise VideoFileError(self.path, str(error), "an index of the frames that the file holds") from error
        file.seek(0)
        return head

    def _refusal(self, file: str | os.PathLike | BinaryIO, head: bytes, error: Exception) -> VideoFileError:
        """Why FFmpeg has not opened a file."""
        for pattern, format_name in REFERENCES:
            if pattern.search(head):
                return VideoFileError(
                    self.path,
                    f"{format_name}, which names other files or addresses: they are not followed; give the video itself",
                    "a video in one file",
                )
        with nullcontext(file) if hasattr(file, "read") else open(file, "rb") as opened:
            if lacks_index(opened):
                return VideoFileError(
                    self.path,
                    "an MP4 file without its index (moov atom): the recording was not finished, or not all of it was copied; "
                    "copy it again, or rebuild the index (`untrunc`)",
                    "a video that is whole",
                )
        if isinstance(error, av.error.ArgumentError):
            return VideoFileError(
                self.path,
                "a file that is damaged, or of a format that is not read: convert it to MP4",
                f"a video ({', '.join(VIDEO_SUFFIXES)})",
            )
        return VideoFileError(self.path, error.strerror or str(error))

    def _read_info(self) -> VideoInfo:
        # A cover of an album is no video.
        streams = [
            stream for stream in self._container.streams.video if not stream.disposition & Disposition.attached_pic
        ]
        if not streams:
            raise VideoFileError(self.path, f"{len(self._container.streams)} streams without a video")
        self._stream = stream = streams[0]
        if stream.codec_context is None:
            raise VideoFileError(self.path, "a codec that FFmpeg does not know")
        # A container may allow that the time stamps of a stream begin anew, as those of concatenated ones do.
        self._may_jump = Flags.ts_discont in Flags(self._container.format.flags)
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        duration = stream.duration and stream.duration * stream.time_base
        duration = duration or (self._container.duration or 0) / av.time_base
        num_frames = stream.frames or round(duration * (rate or 0))
        if (not num_frames or duration > MAX_SECONDS) and rate and stream.width:
            num_frames, duration = self._count_packets()
        elif rate and stream.width and self._may_jump:
            # Two fields of a frame may be a packet each: there are as many frames as fit the time.
            _, counted = self._count_packets()
            duration = counted or duration
            num_frames = round(duration * rate)
        if not num_frames or not rate or not stream.width:
            raise VideoFileError(self.path, f"{num_frames} frames of {stream.width} x {stream.height} pixels")
        check_pixels(self.path, stream.height, stream.width)
        seconds = float(duration or num_frames / rate)
        # Frames may be repeated where the rate changes; in an AVI it cannot.
        is_avi = self._container.format.name == "avi"
        if num_frames / rate > seconds + (0.1 if is_avi else 0.5 + 0.25 * seconds):
            # The file was cut off, or, where the time has a field of its own in the head, that is wrong.
            packets, counted = (0, None) if is_avi else self._count_packets()
            if counted and packets >= num_frames:
                return VideoInfo(packets, float(packets / counted), float(counted), stream.width, stream.height)
            found = f"{num_frames} frames of {float(rate):g} a second in {seconds:.1f} s"
            raise VideoFileError(self.path, found, "a video that is whole")
        return VideoInfo(num_frames, float(rate), seconds, stream.width, stream.height)

    def _count_packets(self) -> tuple[int, Fraction | None]:
        """Packets and seconds of a file whose head does not say them, as a recorder leaves it that could not go back there.

        Nothing is decoded. The seconds are `None` where packets have no times.
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
        # A time names several places of such a file.
        self._can_seek = not clock.jumps
        return count, (last - first) * self._stream.time_base * timed / (timed - 1)

    def _packets(self) -> Iterator[av.Packet]:
        """Packets of the stream from where the container stands, and an empty one."""
        try:
            yield from self._container.demux(self._stream)
        except IndexError:
            # At the end PyAV looks for streams that have begun since the file was opened; ours had ended before.
            return

    def _rewind(self) -> None:
        """Back to the first packet."""
        self._is_at_start = True
        if self._may_jump or self._stream.start_time is None:
            # By its place: of such a stream the first time may not be the smallest, and a raw one has no times.
            self._container.seek(0, unsupported_byte_offset=True)
        else:
            self._container.seek(0, stream=self._stream)

    def close(self):
        self._container.close()

    def picture_size(self) -> tuple[int, int]:
        """Height and width of the pictures, turned upright (which the first frame says), with square pixels."""
        return self.frames_at([0.0]).shape[1:3]

    def _square_size(self, orientation: _Orientation) -> tuple[int, int]:
        """Height and width of upright pictures with square pixels; no pixel is lost.

        They are the same for all frames, also where another resolution is recorded from some time on.
        """
        height, width = self.info.height, self.info.width
        if self._pixel_aspect > 1:
            width = round(width * self._pixel_aspect)
        else:
            height = round(height / self._pixel_aspect)
        return (width, height) if orientation.swapped else (height, width)

    def frames_at(
        self, times: Sequence[float], size: tuple[int, int] | None = None, part: Part | None = None
    ) -> np.ndarray:
        """The pictures that are on screen at some times.

        Before the first frame that is the first, behind the last the last. Where the file cannot be decoded any further,
        the last frame that could be stands for the rest, with a warning. The nearest whole frame stands for a damaged one,
        with a warning.

        Args:
            times: Seconds from the start, in any order.
            size: Height and width of the pictures; by default as they were recorded, with square pixels.
            part: Which rows and columns of pictures of that size are given; all by default.

        Returns:
            uint8 (len(times), height, width, 3), RGB, turned upright.

        Raises:
            VideoFileError: Not a single frame can be decoded, or all are damaged.
        """
        _check_times(times)
        self._check_request(len(times), size or self._square_size(UPRIGHT), part)
        order = np.argsort(times, kind="stable")
        # A last frame may be on screen for a while.
        patience = max(1.0, 0.1 * self.info.seconds)
        pictures = self.pictures_in_order(np.asarray(times, np.float64)[order].tolist(), size, part, patience)
        result = None
        for place in order.tolist():
            picture = next(pictures, None)
            if picture is None:  # the last frame stands for what cannot be decoded
                picture = self._shown(self._last_frame, size, part)
            if result is None:
                result = np.empty((len(order), *picture.shape), np.uint8)
            result[place] = picture
        pictures.close()
        return result

    def pictures_in_order(
        self,
        times: Iterable[float],
        size: tuple[int, int] | None = None,
        part: Part | None = None,
        patience: float = 1.0,
    ) -> Iterator[np.ndarray]:
        """The pictures that are on screen at some times, one after the other; nothing is kept.

        Args:
            times: Seconds from the start, ascending.
            size, part: As of `frames_at`.
            patience: Seconds that the last frame stays on screen, at most. A file that was cut off may say nothing of it.

        Yields:
            uint8 (height, width, 3). Where the file cannot be decoded any further, there are fewer than times, with a warning.

        Raises:
            VideoFileError: Not a single frame can be decoded, or all are damaged.
        """
        try:
            yield from self._pictures(times, size, part, patience)
        finally:
            # Where all are damaged, there is an error.
            if 0 < self.damaged_frames < self.decoded_frames and not self._said_damage:
                self._said_damage = True
                share = self.damaged_frames / self.decoded_frames
                warnings.warn(
                    f"{self.path}: {share:.0%} of the frames are damaged ({self.damaged_frames} of {self.decoded_frames} that "
                    "were decoded); the nearest whole frame stands for each of them",
                    stacklevel=2,
                )

    def _pictures(
        self, times: Iterable[float], size: tuple[int, int] | None, part: Part | None, patience: float
    ) -> Iterator[np.ndarray]:
        self._check_request(1, size or self._square_size(UPRIGHT), part)
        keys = self._key_times()
        if self._has_decoded:
            with _errors_of_ffmpeg(self.path):
                self._rewind()
        self._has_decoded, self._problem = True, None
        self.decoded_frames, self.damaged_frames = 0, 0
        frames = self._whole_frames()
        held, ahead, picture = None, next(frames, None), None
        for time in times:
            # A time that is a frame's own, but for rounding, is that frame's.
            time += self._start + 1e-3 / max(self.info.fps, 1.0)
            if ahead is not None and self._is_worth_a_seek(time, ahead[0], keys):
                frames = self._seek(time, keys)
                held, ahead, picture = None, next(frames, None), None
            while ahead is not None and (held is None or ahead[0] <= time):
                held, ahead, picture = ahead, next(frames, None), None
            if held is None:
                raise VideoFileError(self.path, f"no frame that can be decoded ({self._problem or 'no packet of it'})")
            stays = patience if self._problem is None else 1.5 / self.info.fps
            if ahead is None and min(time, self._start + self.info.seconds) > held[0] + stays:
                warnings.warn(
                    f"{self.path}: decoding stopped at {held[0] - self._start:.2f} s of {self.info.seconds:.2f} s "
                    f"({self._problem or 'the file ends'})",
                    stacklevel=2,
                )
                self._last_frame = held[1]
                return
            if picture is None:
                picture = self._shown(held[1], size, part)
            yield picture

    def _shown(self, frame: av.VideoFrame, size: tuple[int, int] | None, part: Part | None) -> np.ndarray:
        # Asked for its side data, a frame of PyAV is in a reference cycle, so that its memory is not used again soon.
        if frame.rotation != self._rotation:
            self._rotation, self._orientation = frame.rotation, _orientation(frame)
        return self._scaled(frame, size or self._square_size(self._orientation), part, self._orientation)

    def _key_times(self) -> np.ndarray:
        """Seconds of the key frames, as far as the container has an index of them."""
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
        # Asked for the time of the picture, FFmpeg finds the last key frame whose picture is not later. The index counts
        # decoding times: asked for one of those, it would go a whole group of pictures too far.
        for target in (time, *keys[keys <= time][::-1][1:3].tolist()):
            try:
                self._container.seek(int(np.floor(target / base)), stream=self._stream, backward=True)
            except (av.error.FFmpegError, OverflowError):
                break
            self._is_at_start = False
            frames = self._whole_frames(after_seek=True)
            first = next(frames, None)
            if first is not None and first[0] <= time:
                return chain([first], frames)
            self.decoded_frames, self.damaged_frames = counts
        # Nothing is lost: from the start, and without seeking again.
        self._can_seek = False
        self.decoded_frames, self.damaged_frames = 0, 0
        with _errors_of_ffmpeg(self.path):
            self._rewind()
        return self._whole_frames()

    def _whole_frames(self, after_seek: bool = False) -> Iterator[tuple[float, av.VideoFrame]]:
        """As `_decode`, with the nearest whole frame in place of a damaged one.

        There is nothing before the first whole frame: after a seek, frames before the key frame lack what they refer to, in
        the healthiest of files.
        """
        before, damaged, after, is_damaged, flagged, waited = None, [], None, False, -np.inf, 0

        def replaced() -> Iterator[tuple[float, av.VideoFrame]]:
            """What is shown at the times of damaged frames."""
            if before is not None or not after_seek:
                self.damaged_frames += len(damaged)
            whole = [shown for shown in (before, after) if shown is not None]
            for moment in damaged if before is not None else ():
                yield moment, min(whole, key=lambda shown: round(abs(shown[0] - moment), 6))[1]

        for seconds, frame in self._decode():
            if frame.is_corrupt:
                flagged = seconds
            # A frame is made of those before it: damage lasts until the next key frame. Some streams have no other key frame
            # than the first, and refresh their pictures bit by bit.
            is_inherited = is_damaged and not frame.key_frame and seconds - flagged <= DAMAGE_SECONDS
            is_damaged = frame.is_corrupt or is_inherited
            if is_damaged:
                if before is None and after is None:
                    waited += frame.width * frame.height
                    if waited > MAX_DAMAGED_PIXELS:
                        damaged.append(seconds)
                        break
                # Of a lone whole frame amid damage, errors were not noticed.
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
        """Seconds and frames from where the container stands, in order of display; a file that breaks off ends."""
        last, number, clock = -np.inf, 0, _Clock(self._stream, self._may_jump)
        # The first frame is at the start, wherever that is; after a seek, anywhere.
        before = self._start if self._is_at_start else np.inf
        try:
            for packet in self._packets():
                clock.adjust(packet)
                for frame in packet.decode():
                    # A raw stream has no times; some AVI files give those of decoding, which go back and forth.
                    seconds = number / self.info.fps if frame.time is None else frame.time
                    if seconds > before + MAX_STILL:
                        seconds = before + 1 / self.info.fps
                    before = last = max(last, seconds)
                    number += 1
                    self.decoded_frames += 1
                    yield last, frame
        except av.error.FFmpegError as error:
            self._problem = error.strerror or str(error)
        except OverflowError:  # 64 bits are not enough for the time of a packet
            self._problem = "a time stamp that is no time"


class FrameFolder(_Frames):
    """A folder of pictures whose names end in their numbers. A number that is missing is time in which nothing changes.

    Raises:
        VideoFileError: No picture, a name without a number, two pictures of one number.
    """

    def __init__(self, folder: str | os.PathLike, fps: float):
        super().__init__()
        self.path = os.fspath(folder)
        names = [name for name in os.listdir(folder) if name.lower().endswith(FRAME_SUFFIXES) and name[0] != "."]
        if not names:
            raise VideoFileError(
                self.path, f"a folder of {len(os.listdir(folder))} other files", "a folder of pictures"
            )
        numbers = {}
        for name in sorted(names):
            digits = re.search(r"(\d+)$", Path(name).stem)
            if digits is None:
                raise VideoFileError(self.path, f"the name {name!r}", "names of pictures that end in a number")
            if int(digits[1]) in numbers:
                raise VideoFileError(self.path, f"{numbers[int(digits[1])]!r} and {name!r}", "one picture a number")
            numbers[int(digits[1])] = name
        self._names = [numbers[number] for number in sorted(numbers)]
        start, length = min(numbers), max(numbers) - min(numbers) + 1
        if length > MAX_GAP * len(names):
            found = f"{len(names)} pictures with numbers from {start} to {max(numbers)}"
            raise VideoFileError(self.path, found, "numbers that count frames (and no times)")
        # From the first on: the numbers themselves may be too long for an integer of 64 bits.
        self._places = np.array([number - start for number in sorted(numbers)])
        if length > len(names):
            lacking = start + int(self._places[np.argmax(np.diff(self._places) > 1)]) + 1
            warnings.warn(
                f"{self.path}: {length - len(names)} of {length} numbers are missing, the first is {lacking}; "
                "the picture before it stands for it",
                stacklevel=3,
            )
        self._fps = checked_fps(self.path, fps)
        first = self._open(0)
        self.info = VideoInfo(length, float(fps), length / fps, first.width, first.height)
        check_length(self.path, self.info)

    def _open(self, place: int) -> av.VideoFrame:
        path = Path(self.path, self._names[place])
        if not path.is_file():  # a pipe would be waited for
            raise VideoFileError(path, "no regular file", "a picture")
        try:
            with Image.open(path, formats=FRAME_FORMATS) as image:
                check_pixels(path, image.height, image.width)
                upright = ImageOps.exif_transpose(image)
                if upright.mode.startswith("I"):  # 16 bits a pixel, such as depth
                    upright = Image.fromarray((np.asarray(upright).clip(0, 65535) // 257).astype(np.uint8))
                return av.VideoFrame.from_image(upright.convert("RGB"))
        except VideoFileError:
            raise
        # Pillow raises whatever its readers of damaged files run into.
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            raise VideoFileError(path, found, "a picture") from error

    def frames_at(
        self, times: Sequence[float], size: tuple[int, int] | None = None, part: Part | None = None
    ) -> np.ndarray:
        """See `VideoFile.frames_at`."""
        _check_times(times)
        index = np.floor(np.asarray(times, np.float64) * self._fps + 1e-3)
        places = np.maximum(np.searchsorted(self._places, index, "right") - 1, 0)
        size = size or (self.info.height, self.info.width)
        self._check_request(len(times), size, part)
        result = None
        for place in np.unique(places).tolist():
            picture = self._scaled(self._open(place), size, part)
            if result is None:
                result = np.empty((len(places), *picture.shape), np.uint8)
            result[places == place] = picture
        return result


class FrameArray(_Frames):
    """Frames in memory.

    Raises:
        VideoFileError: A shape or numbers that are none of frames.
    """

    def __init__(self, frames: np.ndarray, fps: float, name: str = "array"):
        super().__init__()
        self.path = name
        found = f"{frames.dtype} {frames.shape}"
        if frames.ndim == 2 or (frames.ndim == 3 and 3 in (frames.shape[0], frames.shape[-1])):
            raise VideoFileError(
                name,
                f"one picture {found}",
                "all frames of a video in one array (grey ones as (T, H, W, 1)); a list is of videos",
            )
        if frames.ndim == 3:
            frames = frames[..., None]
        if frames.ndim == 4 and frames.shape[-1] not in (1, 3) and frames.shape[1] in (1, 3):
            frames = frames.transpose(0, 2, 3, 1)
        if frames.ndim != 4 or frames.shape[-1] not in (1, 3) or not frames.size:
            raise VideoFileError(name, found, "frames (T, H, W, 3), (T, H, W, 1), (T, H, W) or (T, 3, H, W)")
        if frames.dtype.kind == "f":
            low, high = float(frames.min()), float(frames.max())
            if not 0 <= low <= high <= 1:
                raise VideoFileError(name, f"floats from {low:g} to {high:g}", "uint8, or floats from 0 to 1")
            self._scale = 255.0
        elif frames.dtype == np.uint8:
            self._scale = None
        else:
            raise VideoFileError(name, found, "uint8, or floats from 0 to 1")
        check_pixels(name, *frames.shape[1:3])
        self._frames, self._fps = frames, checked_fps(name, fps)
        self.info = VideoInfo(len(frames), float(fps), len(frames) / fps, frames.shape[2], frames.shape[1])
        check_length(name, self.info)

    def frames_at(
        self, times: Sequence[float], size: tuple[int, int] | None = None, part: Part | None = None
    ) -> np.ndarray:
        """See `VideoFile.frames_at`."""
        _check_times(times)
        index = np.floor(np.asarray(times, np.float64) * self._fps + 1e-3).astype(int).clip(0, len(self._frames) - 1)
        self._check_request(len(times), size or (self.info.height, self.info.width), part)
        result = None
        for place in np.unique(index).tolist():
            frame = self._frames[place]
            if self._scale is not None:
                frame = np.rint(frame * self._scale).astype(np.uint8)
            frame = np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))
            picture = self._scaled(av.VideoFrame.from_ndarray(frame, format="rgb24"), size, part)
            if result is None:
                result = np.empty((len(index), *picture.shape), np.uint8)
            result[index == place] = picture
        return result


__all__ = [
    "FRAME_SUFFIXES",
    "VIDEO_SUFFIXES",
    "FrameArray",
    "FrameFolder",
    "VideoFile",
    "VideoFileError",
    "VideoInfo",
    "open_video",
    "read_video_info",
]
