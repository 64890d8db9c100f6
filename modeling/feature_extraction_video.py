"""Feature extractor for videos: from a recording on disk to the input of an action model of videos.

Frames are chosen by time, not by index, so that the result does not depend on the frame rate, which may even vary.
"""

import itertools
import math
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, ClassVar, NamedTuple

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature

from .checked_settings import SettingError, checked, one_of, true_or_false
from .extractor_files import RecordingFeatureExtractor
from .frame_sequences import FrameArray, FrameFolder
from .model_files import as_written
from .video_files import VideoFile, open_video
from .video_frames import MAX_FPS, MIN_FPS, FrameRequest, VideoFileError

Video = str | os.PathLike | BinaryIO | np.ndarray | VideoFile | FrameFolder | FrameArray

# Maximum number of values in the features of a video, and in a batch of a stream: 1 GiB of float32.
MAX_VALUES = 1 << 28
# Least duration of a segment; shorter segments would repeat the same frame many times.
MIN_SECONDS = 0.01
# Black borders are detected in frames of at most PROBE rows and columns. Values up to BLACK, of 255, count as black, because
# compression changes black pixels.
PROBE, BLACK = 256, 32
# Margin on each side of the part that is not black, as a share of its length; least length of that part, as a share of the
# frame.
MARGIN, LEAST_PART = 0.05, 0.25

# Filters of Pillow, which image processors of transformers use.
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

# Upper bounds of settings, so that a damaged file cannot exhaust the memory; DEVIATIONS keep quotients finite.
MAX_SEGMENTS, MAX_FRAMES, MAX_SIDE, MAX_THREADS = 2**16, 1024, 4096, 256
MAX_SECONDS, DEVIATIONS, MAX_VARIED = 86_400, (1e-4, 1e4), 100


class _Part(NamedTuple):
    """A rectangular part of frames: start and end, as shares of their height and width."""

    rows: tuple[float, float]
    columns: tuple[float, float]

    def whole(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of frames of which this part has the given size."""
        return tuple(max(1, round(length / (high - low))) for length, (low, high) in zip(size, self, strict=True))

    def slices(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of this part in frames of which it has the given size."""
        lengths = zip(self, self.whole(size), size, strict=True)
        starts = [min(round(low * whole), whole - length) for (low, _), whole, length in lengths]
        return tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))


WHOLE = _Part((0.0, 1.0), (0.0, 1.0))


class _Variation(NamedTuple):
    """The augmentation of a recording: zoom, position of the crop, brightness, mirroring, and jitter of frame times."""

    zoom: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    light: float = 1.0
    mirror: bool = False
    jitter: np.random.Generator | None = None


class VideoFeatureExtractor(RecordingFeatureExtractor):
    """Turns videos into segments of frames.

    A video is divided into segments of equal duration, and each segment into `frames_per_segment` equal parts. The middle frame
    of each part is taken.

    Args:
        num_segments: Number M of segments of a video (LVLM-VAR, Eq. 1). With `segment_seconds`, their maximum.
        frames_per_segment: Number of frames of a segment.
        segment_seconds: Duration of a segment in seconds ("dense" sampling). If a video then has more than `num_segments`
            segments, they become longer. None divides every video into `num_segments`, whatever its length ("sparse").
        height, width: Size of the resized frames in pixels.
        fit: How frames with another aspect ratio are resized: "squash" stretches them, "crop" cuts off edges, "pad" adds black
            bars. "crop" and "pad" keep the proportions that a player shows, also if pixels are not square.
        resize: Height and width to which frames are resized by `fit` before their centre of `height` x `width` is cropped, at
            least as large; by default `height` and `width`. With "crop", 256 256 makes the shorter side 256.
        resample: Filter of Pillow by which frames are resized, as in image processors of transformers: "bicubic", "bilinear",
            "lanczos", "hamming", "box" or "nearest". Then sizes and places of crops are rounded down, as there. None is the
            bicubic filter of FFmpeg, which gives slightly other pixels.
        trim_black: Whether to first cut off borders that are black in all sampled frames, except for a margin. It enlarges
            small bodies in depth maps, drawn videos and letterboxed videos. Values up to 32 of 255 count as black, which
            includes bodies in 16-bit depth in millimetres. At least a quarter of the height and of the width is kept. The
            borders are measured without augmentation, so all versions of a video are cut in the same way. Not with
            `segment_seconds`.
        channels: The three channels of an image, "color" or "time". "color": red, green and blue of a frame. "time": the
            brightness (Rec. 601) of three frames, in the middle of each third of the part of the segment, so that an image
            encoder sees motion (Kim and Won, "Action Recognition in Videos Using Pre-Trained 2D Convolutional Neural Networks",
            2020). Depth and infrared videos lose no information, because their colour channels are equal.
        image_mean, image_std: Mean and standard deviation of the channels between 0 and 1, for normalisation.
        fps: Frames per second of folders of frames and of arrays.
        decode_threads: Number of videos that are decoded in parallel.
        augment_scale: With `augment=True`, a random crop is taken, down to 1 / (1 + `augment_scale`) of height and width.
        augment_time: Frames are sampled at random around the middle of their part: 0 is always the middle, 1 is anywhere. The
            three frames of "time" keep their distance.
        augment_brightness: Brightness is multiplied by a factor between 1 / (1 + `augment_brightness`) and
            1 + `augment_brightness`.
        augment_mirror: Probability of swapping left and right. 0 by default, because it changes handedness.

    Raises:
        ValueError: If an argument is unknown or out of range; the message names it.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
    _auto_class = "AutoFeatureExtractor"

    model_input_names: ClassVar[list[str]] = ["pixel_values", "feature_attention_mask", "frame_rate"]

    def __init__(
        self,
        num_segments: int = 32,
        frames_per_segment: int = 2,
        segment_seconds: float | None = None,
        height: int = 256,
        width: int = 256,
        fit: str = "squash",
        resize: Sequence[int] | None = None,
        resample: str | None = None,
        trim_black: bool = False,
        channels: str = "color",
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        fps: float = 30.0,
        decode_threads: int = 2,
        augment_scale: float = 0.15,
        augment_time: float = 1.0,
        augment_brightness: float = 0.2,
        augment_mirror: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_segments = checked("num_segments", num_segments, int, 1, MAX_SEGMENTS)
        self.frames_per_segment = checked("frames_per_segment", frames_per_segment, int, 1, MAX_FRAMES)
        if segment_seconds is not None:
            segment_seconds = checked("segment_seconds", segment_seconds, float, MIN_SECONDS, MAX_SECONDS)
        self.segment_seconds = segment_seconds
        self.height = checked("height", height, int, 1, MAX_SIDE)
        self.width = checked("width", width, int, 1, MAX_SIDE)
        segment = 3 * self.frames_per_segment * self.height * self.width
        # With a duration of segments, num_segments is only their maximum.
        numbers = segment * (self.num_segments if segment_seconds is None else 1)
        if numbers > MAX_VALUES:
            size = f"{self.num_segments} segments of {self.frames_per_segment} frames of {self.height} x {self.width}"
            most = MAX_VALUES // segment
            setting = "num_segments" if most else "frames_per_segment"
            expected = f"a whole video of at most {MAX_VALUES} numbers"
            raise SettingError(setting, expected, f"{numbers} ({size} pixels)")
        self.fit = one_of("fit", fit, ("squash", "crop", "pad"))
        if resize is not None:
            if not isinstance(resize, list | tuple) or len(resize) != 2:
                raise SettingError("resize", "a height and a width", as_written(resize))
            leasts = (self.height, self.width)
            resize = [
                checked("resize", length, int, least, MAX_SIDE) for length, least in zip(resize, leasts, strict=True)
            ]
        self.resize = resize
        self.resample = resample if resample is None else one_of("resample", resample, FILTERS)
        self.trim_black = true_or_false("trim_black", trim_black)
        if trim_black and segment_seconds is not None:
            message = (
                "trim_black needs the whole video before the first segment, but with segment_seconds it may be a stream: "
                "set trim_black to False, or segment_seconds to None"
            )
            raise SettingError("trim_black", "False with segment_seconds", "True", message)
        self.channels = one_of("channels", channels, ("color", "time"))
        for name, values in (("image_mean", image_mean), ("image_std", image_std)):
            if not isinstance(values, list | tuple) or len(values) != 3:
                raise SettingError(name, "three numbers", as_written(values))
        self.image_mean = [checked("image_mean", value, float, 0, 1) for value in image_mean]
        self.image_std = [checked("image_std", value, float, *DEVIATIONS) for value in image_std]
        self.fps = checked("fps", fps, float, MIN_FPS, MAX_FPS)
        self.decode_threads = checked("decode_threads", decode_threads, int, 1, MAX_THREADS)
        self.augment_scale = checked("augment_scale", augment_scale, float, 0, MAX_VARIED)
        self.augment_time = checked("augment_time", augment_time, float, 0, 1)
        self.augment_brightness = checked("augment_brightness", augment_brightness, float, 0, MAX_VARIED)
        self.augment_mirror = checked("augment_mirror", augment_mirror, float, 0, 1)

    def __call__(
        self,
        recordings: Video | Sequence[Video],
        *,
        fps: float | None = None,
        augment: bool = False,
        seed: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Computes features of a video, or of several.

        Args:
            recordings: A video or a list of videos. Each is a file or an open binary file, a folder of frames whose names end
                in numbers, an array of frames, or the result of `open_video`, which is then closed.
            fps: Frames per second of arrays and of folders of frames; overrides the setting.
            augment: Whether to vary the videos at random for training, by the `augment_` settings. All frames of a video are
                varied in the same way.
            seed: Seed of the augmentation. The result depends only on the seed and the video (the name of its file, or the
                first frame of an array), not on the rest of the batch.
            return_tensors: "pt" or "np" return padded batches; None returns lists of arrays without padding.

        Returns:
            `BatchFeature`: `pixel_values` float32 (B, M, frames, 3, height, width), 0 where padded; `feature_attention_mask`
            int64 (B, M); `frame_rate` float32 (B,), segments per second: segment m spans m / frame_rate to
            (m + 1) / frame_rate.

        Raises:
            VideoFileError: If a recording is not a video, none of its frames can be decoded, or all are damaged.
            OSError: If a file cannot be opened.
        """
        if augment and seed is None:
            raise ValueError("augment=True needs a seed, without which training could not be resumed exactly")
        if not isinstance(recordings, list | tuple):
            recordings = [recordings]
        if not len(recordings):
            raise ValueError("recordings: expected at least one, got none")
        seeds = [seed if augment else None]
        named = [(recording, f"recording {index}") for index, recording in enumerate(recordings)]
        if len(named) == 1 or self.decode_threads == 1:
            extracted = [self._extract(*recording, seeds, fps) for recording in named]
        else:
            with ThreadPoolExecutor(self.decode_threads) as pool:
                extracted = list(pool.map(lambda recording: self._extract(*recording, seeds, fps), named))
        return self._batch([(segments, rate) for (segments,), rate in extracted], return_tensors)

    def versions(self, recording: Video, seeds: Sequence[int | None]) -> BatchFeature:
        """Computes several versions of a video, each as a call does, but the video is decoded once, and searched for black
        borders once.

        Args:
            recording: A video, see `__call__`.
            seeds: Seed of the augmentation of each version; None for the video itself.

        Returns:
            `BatchFeature`: see `__call__`; the batch is the versions.

        Raises:
            VideoFileError, OSError: If the video cannot be read, see `__call__`.
        """
        versions, rate = self._extract(recording, "recording", seeds, None)
        return self._batch([(segments, rate) for segments in versions], "pt")

    def _batch(self, extracted: Sequence[tuple[np.ndarray, float]], return_tensors: str | None) -> BatchFeature:
        """Segments and their rate for each video → the output of `__call__`."""
        segments, rates = zip(*extracted, strict=True)
        masks = [np.ones(len(values), np.int64) for values in segments]
        data = {"pixel_values": list(segments), "feature_attention_mask": masks, "frame_rate": list(rates)}
        if return_tensors is not None:
            length = max(map(len, segments))
            for name in ("pixel_values", "feature_attention_mask"):
                padded = np.zeros((len(segments), length, *data[name][0].shape[1:]), data[name][0].dtype)
                for row, values in zip(padded, data[name], strict=True):
                    row[: len(values)] = values
                data[name] = padded
            data["frame_rate"] = np.array(rates, np.float32)
        return BatchFeature(data, tensor_type=return_tensors)

    def stream(
        self, recording: Video, segments: int = 8, *, augment: bool = False, seed: int | None = None
    ) -> Iterator[torch.Tensor]:
        """Yields the segments of a video of any length, in order. Only a batch of segments is kept in memory.

        Every segment lasts `segment_seconds`, which must be set. `num_segments` is ignored.

        Args:
            recording: A video, see `__call__`.
            segments: Number of segments in a batch.
            augment, seed: See `__call__`.

        Yields:
            float32 (up to `segments`, frames, 3, height, width). If the video ends earlier than its container says, so does the
            stream, with a warning.

        Raises:
            ValueError: If `segment_seconds` is None, or `augment` has no seed.
            VideoFileError, OSError: If the video cannot be read, see `__call__`.
        """
        if self.segment_seconds is None:
            raise ValueError(
                "a stream has segments of equal duration: set segment_seconds; it is None, which divides every video into "
                f"{self.num_segments} segments"
            )
        if augment and seed is None:
            raise ValueError("augment=True needs a seed, without which training could not be resumed exactly")
        with open_video(recording, fps=self.fps) as video:
            self._check_segments(segments, video.path)
            variation = self._variation(recording, video.path, seed if augment else None)
            size, seconds = self._size(video, variation, WHOLE), video.info.seconds
            parts = itertools.count()  # of a video without an end
            if not math.isinf(seconds):
                parts = range(max(1, round(seconds / self.segment_seconds)) * self.frames_per_segment)

            def times() -> Iterator[float]:
                for part in parts:
                    moments = part + self._moments(1, variation.jitter)[0]
                    yield from (moments * self.segment_seconds / self.frames_per_segment).tolist()

            pictures = video.pictures_in_order(times(), size, self.resample)
            segment_frames = self.frames_per_segment * self._shots
            while batch := list(itertools.islice(pictures, segments * segment_frames)):
                # An incomplete segment is filled with its last frame.
                batch += [batch[-1]] * (-len(batch) % segment_frames)
                values = self._normalised(np.stack(batch), variation)
                yield torch.from_numpy(values.reshape(-1, self.frames_per_segment, *values.shape[1:]))

    def _extract(
        self, recording: Video, place: str, seeds: Sequence[int | None], fps: float | None
    ) -> tuple[list[np.ndarray], float]:
        """Normalised segments float32 (M, frames, 3, H, W) for each seed, segments per second."""
        with open_video(recording, fps=self.fps if fps is None else fps, name=place) as video:
            info, variations = video.info, [self._variation(recording, video.path, seed) for seed in seeds]
            times, rates = zip(*(self._times(video, variation.jitter) for variation in variations), strict=True)
            count, rate = len(times[0]), rates[0]
            if count > info.num_frames:
                warnings.warn(
                    f"{video.path}: {info.num_frames} frames are fewer than the {count} that "
                    f"{count // (self.frames_per_segment * self._shots)} segments need: frames are repeated",
                    stacklevel=3,
                )
            if self.segment_seconds is not None and rate * self.segment_seconds < 0.99:
                warnings.warn(
                    f"{video.path}: {info.seconds:.0f} s exceed {self.num_segments} segments of {self.segment_seconds:g} s, so "
                    f"segments last {1 / rate:.2g} s: read the video as a stream, or set num_segments",
                    stacklevel=3,
                )
            part = self._not_black(video) if self.trim_black else WHOLE
            sizes = [self._size(video, variation, part) for variation in variations]
            frames = video.frames_of(
                [
                    FrameRequest(moments, part.whole(size), part.slices(size), self.resample)
                    for moments, size in zip(times, sizes, strict=True)
                ]
            )
        versions = [self._normalised(*version) for version in zip(frames, variations, strict=True)]
        return [values.reshape(-1, self.frames_per_segment, *values.shape[1:]) for values in versions], rate

    def _variation(self, recording: Video, path: str, seed: int | None) -> "_Variation":
        """The augmentation of a recording; none without a seed. The crop does not depend on the number of frames."""
        if seed is None:
            return _Variation()
        # An array has no name and is identified by its first frame.
        is_array = hasattr(recording, "__array__")
        mark = np.asarray(recording[:1]).tobytes() if is_array else os.path.basename(path).encode()
        generator = np.random.default_rng([seed, zlib.crc32(mark)])
        return _Variation(
            float(np.exp(generator.uniform(0, 1) * np.log1p(self.augment_scale))),
            tuple(generator.uniform(0, 1, 2).tolist()),
            float(np.exp(generator.uniform(-1, 1) * np.log1p(self.augment_brightness))),
            bool(generator.random() < self.augment_mirror),
            generator,
        )

    def _normalised(self, frames: np.ndarray, variation: "_Variation") -> np.ndarray:
        """Frames uint8 (N · shots, h, w, 3), scaled to `_size` → float32 (N, 3, height, width)."""
        frames = self._cut(frames, variation.place)
        if variation.mirror:
            frames = frames[:, :, ::-1]
        if self.channels == "time":
            gray = frames @ np.array([0.299, 0.587, 0.114], np.float32)
            values = gray.reshape(-1, self._shots, *gray.shape[1:]) / 255
        else:
            values = np.moveaxis(frames, -1, 1).astype(np.float32) / 255
        values *= np.float32(variation.light)
        mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (self.image_mean, self.image_std))
        return (values - mean) / std

    def _times(self, video, jitter: np.random.Generator | None) -> tuple[np.ndarray, float]:
        """Times of all frames in seconds, in order; segments per second."""
        count, seconds = self.num_segments, video.info.seconds
        if self.segment_seconds is not None:
            wanted = max(1, round(seconds / self.segment_seconds))
            # The same segments as in a stream, if the video is long enough for one segment and not too long.
            if wanted <= count and seconds >= self.segment_seconds:
                seconds = wanted * self.segment_seconds
            count = min(count, wanted)
        self._check_segments(count, video.path)
        parts = count * self.frames_per_segment
        moments = np.arange(parts)[:, None] + self._moments(parts, jitter)
        return moments.ravel() * (seconds / parts), count / seconds

    def _check_segments(self, count: int, path: str) -> None:
        """Raises `VideoFileError` if a batch of segments would take too much memory."""
        values = count * self.frames_per_segment * self._shots * 3 * self.height * self.width
        if values > MAX_VALUES:
            actual = f"{count} segments of {self.frames_per_segment} frames, {self.height} x {self.width} pixels ({values:,})"
            raise VideoFileError(
                path,
                actual,
                f"features of at most {MAX_VALUES:,} numbers at a time (lower num_segments, frames_per_segment, height or "
                "width, or read it as a stream)",
            )

    @property
    def _shots(self) -> int:
        """Number of frames that are combined to an image."""
        return 3 if self.channels == "time" else 1

    def _moments(self, parts: int, jitter: np.random.Generator | None) -> np.ndarray:
        """Times of the frames of each image (parts, shots), from 0 to 1 within its part of a segment."""
        within = np.full(parts, 0.5)
        if jitter is not None:
            within += self.augment_time * jitter.uniform(-0.5, 0.5, parts)
        return (np.arange(self._shots) + within[:, None]) / self._shots

    def _not_black(self, video) -> "_Part":
        """The part of the frames that is not black, with a margin; the whole frame if all frames are black."""
        times, _ = self._times(video, None)
        size = tuple(min(length, PROBE) for length in video.picture_size())
        bright = video.frames_at(times, size).max(axis=0).max(axis=-1) > BLACK
        if not bright.any():
            warnings.warn(
                f"{video.path}: all frames that were read are black, so nothing can be recognised", stacklevel=4
            )
        spans = []
        for axis, count in zip((1, 0), size, strict=True):
            (indices,) = np.nonzero(bright.any(axis=axis))
            low, high = (indices[0] / count, (indices[-1] + 1) / count) if len(indices) else (0.0, 1.0)
            length = min(max((1 + 2 * MARGIN) * (high - low), LEAST_PART), 1.0)
            start = min(max((low + high - length) / 2, 0.0), 1.0 - length)
            spans.append((start, start + length))
        return _Part(*spans)

    def _size(self, video, variation: "_Variation", part: "_Part") -> tuple[int, int]:
        """Height and width to which this part of the frames is scaled, before it is cropped."""
        height, width = (length * variation.zoom for length in self.resize or (self.height, self.width))
        if self.fit != "squash":
            own_height, own_width = (
                length * (high - low) for length, (low, high) in zip(video.picture_size(), part, strict=True)
            )
            ratios = (height / own_height, width / own_width)
            scale = max(ratios) if self.fit == "crop" else min(ratios)
            height, width = own_height * scale, own_width * scale
        return max(1, self._rounded(height)), max(1, self._rounded(width))

    def _rounded(self, length: float) -> int:
        """A length in pixels, rounded as image processors do it if their filters are used."""
        return round(length) if self.resample is None else math.floor(length + 1e-6)

    def _cut(self, frames: np.ndarray, place: tuple[float, float]) -> np.ndarray:
        """Frames (N, h, w, 3) → (N, height, width, 3), cropped or padded with black."""
        result = np.zeros((len(frames), self.height, self.width, 3), np.uint8)
        spans = []
        for axis, (wanted, share) in enumerate(zip((self.height, self.width), place, strict=True), start=1):
            actual = frames.shape[axis]
            spare = self._rounded(abs(actual - wanted) * (share if actual > wanted else 0.5))
            length = min(actual, wanted)
            cut, put = (spare, 0) if actual > wanted else (0, spare)
            spans.append((slice(cut, cut + length), slice(put, put + length)))
        (cut_rows, put_rows), (cut_columns, put_columns) = spans
        result[:, put_rows, put_columns] = frames[:, cut_rows, cut_columns]
        return result


__all__ = ["VideoFeatureExtractor"]
