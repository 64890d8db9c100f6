"""Reads video files: their properties, and their frames at given times.

Files are read by PyAV, whose wheel includes the codecs. A reader seeks to the key frame before the first requested time and
decodes from there. It keeps only two frames and the requested frames, however long the video is.

A video must be a single file. Playlists, lists of files and session descriptions, which refer to other files or addresses, are
refused whatever their suffix. Files that would need more memory or time than a video of their size are refused, too.
"""

import errno
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.format import Flags
from av.stream import Disposition

from .frame_sequences import FrameArray, FrameFolder
from .mp4_boxes import TooManyBoxesError, check_index, lacks_index
from .video_frames import (
    MAX_PIXELS,
    MAX_SECONDS,
    UPRIGHT,
    Orientation,
    Part,
    VideoFileError,
    VideoFrames,
    VideoInfo,
    check_length,
    check_pixels,
    errors_of_ffmpeg,
    orientation_of,
)

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".wmv", ".mts", ".m2ts", ".ts", ".gif", ".flv", ".3gp", ".ogv"),
)
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
# Longest time between two frames in seconds; a longer gap is due to a damaged time stamp, and is closed.
MAX_STILL = 3600.0
# Least number of frames that a seek must skip, because restarting the decoder takes longer than decoding a few frames.
MIN_SKIP = 12
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
    if isinstance(recording, VideoFrames):
        return recording
    if hasattr(recording, "__array__"):  # tensors as well
        return FrameArray(np.asarray(recording), fps, name)
    if not (isinstance(recording, str | os.PathLike) or hasattr(recording, "read")):
        raise VideoFileError(name, type(recording).__name__, "a path, an open file, or an array of frames")
    if isinstance(recording, str | os.PathLike) and os.path.isdir(recording):
        return FrameFolder(recording, fps)
    return VideoFile(recording)


def is_video(recording: Any) -> bool:
    """Whether a recording is an opened video, or a file whose name is that of a video."""
    name = recording if isinstance(recording, str | os.PathLike) else getattr(recording, "name", None)
    # Opened videos not by their class: code that came from a repository has another one than the installed package.
    is_opened = hasattr(recording, "pictures_in_order")
    return is_opened or (isinstance(name, str | os.PathLike) and os.fspath(name).lower().endswith(VIDEO_SUFFIXES))


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


class VideoFile(VideoFrames):
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
            with errors_of_ffmpeg(self.path):
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

    def _square_size(self, orientation: Orientation) -> tuple[int, int]:
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
            with errors_of_ffmpeg(self.path):
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
            self._rotation, self._orientation = frame.rotation, orientation_of(frame)
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
        with errors_of_ffmpeg(self.path):
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


__all__ = ["VIDEO_SUFFIXES", "VideoFile", "is_video", "open_video", "read_video_info"]
