"""Feature extractor for videos: from a recording as it lies on disk to what a video action model reads.

Frames are chosen by time, not by number, so that a video of another or of a changing frame rate gives the same pictures.
"""

import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import BinaryIO, ClassVar, NamedTuple

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature

from .checked_settings import SettingError, checked, one_of, true_or_false
from .extractor_files import RecordingFeatureExtractor
from .model_files import as_written
from .video_files import MAX_FPS, MIN_FPS, FrameArray, FrameFolder, VideoFile, VideoFileError, open_video

Video = str | os.PathLike | BinaryIO | np.ndarray | VideoFile | FrameFolder | FrameArray

# Numbers in the features of a video, and in what a stream gives at a time, at most: 1 GiB of float32.
MAX_VALUES = 1 << 28
# Seconds of a segment, at least: of a shorter one, the same frame is in many.
MIN_SECONDS = 0.01
# Black is looked for in pictures of at most so many rows and columns. Compressed, it is as bright as this, of 255, at most.
PROBE, BLACK = 256, 32
# Added on each side, as a share of the part's own length; and the smallest part, as a share of the picture's.
MARGIN, LEAST_PART = 0.05, 0.25

# What settings may be at most, so that a damaged file cannot ask for more memory than there is; and deviations that keep
# what is divided by them finite.
MAX_SEGMENTS, MAX_FRAMES, MAX_SIDE, MAX_THREADS = 2**16, 1024, 4096, 256
MAX_SECONDS, DEVIATIONS, MAX_VARIED = 86_400, (1e-4, 1e4), 100


class _Part(NamedTuple):
    """A part of pictures: from where to where it goes, in shares of their height and of their width."""

    rows: tuple[float, float]
    columns: tuple[float, float]

    def whole(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the pictures of which this part has a size."""
        return tuple(max(1, round(length / (high - low))) for length, (low, high) in zip(size, self, strict=True))

    def slices(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Its rows and columns in pictures of which it has a size."""
        lengths = zip(self, self.whole(size), size, strict=True)
        starts = [min(round(low * whole), whole - length) for (low, _), whole, length in lengths]
        return tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))


WHOLE = _Part((0.0, 1.0), (0.0, 1.0))


class _Variation(NamedTuple):
    """How one recording is varied: magnified, which part is taken then, how bright it is, mirrored; of when its frames are."""

    zoom: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    light: float = 1.0
    mirror: bool = False
    jitter: np.random.Generator | None = None


class VideoFeatureExtractor(RecordingFeatureExtractor):
    """Turns videos into segments of frames.

    A video is cut into segments of equal duration, and of each some frames are taken, evenly spaced in time: the middle
    frame of each of `frames_per_segment` equal parts.

    Args:
        num_segments: Segments of a video, M (LVLM-VAR, Eq. 1). With `segment_seconds`, the most that there are.
        frames_per_segment: Frames taken from each.
        segment_seconds: None cuts every video into `num_segments`, however long it is ("sparse"). A number is the duration of
            a segment ("dense"): a video has as many as it is long; if those are more than `num_segments`, they get longer.
        height, width: Of the pictures, pixels.
        fit: How a picture with another aspect ratio is resized: "squash" stretches it, "crop" cuts off its edges, "pad" adds
            black bars. "crop" and "pad" keep the proportions that a player shows: pixels that are not square are made square.
        trim_black: Cut off first what is black in all frames that are taken, but for a margin: depth maps of bodies alone,
            drawn videos and letterboxed ones, in which a body is small. Black is what is not brighter than 32 of 255, so a body
            in millimetres of 16 bits is black too. A part is never less than a quarter of the height and of the width. The
            frames are those of a video that is not varied, so all versions of it have one part. Not with `segment_seconds`.
        channels: What a picture's three channels are. "color" is red, green and blue of its frame. "time" is the brightness
            (Rec. 601) of three frames, the middles of the thirds of its part of a segment, so that an encoder of pictures sees
            what moves (Kim and Won, "Action Recognition in Videos Using Pre-Trained 2D Convolutional Neural Networks", 2020).
            Depth and infrared videos lose nothing by it: their colors are alike.
        image_mean, image_std: Of the three channels between 0 and 1; what is subtracted, and divided by then.
        fps: Frames per second of folders of pictures and of arrays.
        decode_threads: Videos that are decoded at the same time.
        augment_scale: With `augment=True`, a part of the picture is taken, down to 1 / (1 + this) of its height and width.
        augment_time: Frames are taken anywhere in their part of a segment in place of its middle; 1 is anywhere, 0 the middle.
            The three of "time" keep their distance, each in its third.
        augment_brightness: Light is multiplied by a factor between 1 / (1 + this) and 1 + this.
        augment_mirror: Probability of swapping left and right. 0 by default: it changes handedness.

    Raises:
        ValueError: An argument is unknown or has a value that it cannot have; the message names it.
    """

    # Saving puts the code beside the weights, so that they load where this package is not installed.
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
        # Where segments have a duration, num_segments is only the most that there can be.
        numbers = segment * (self.num_segments if segment_seconds is None else 1)
        if numbers > MAX_VALUES:
            size = f"{self.num_segments} segments of {self.frames_per_segment} frames of {self.height} x {self.width}"
            most = MAX_VALUES // segment
            setting = "num_segments" if most else "frames_per_segment"
            expected = f"a whole video of at most {MAX_VALUES} numbers"
            raise SettingError(setting, expected, f"{numbers} ({size} pixels)")
        self.fit = one_of("fit", fit, ("squash", "crop", "pad"))
        self.trim_black = true_or_false("trim_black", trim_black)
        if trim_black and segment_seconds is not None:
            message = (
                "trim_black needs the whole video before its first segment, segment_seconds may read it as a stream: "
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
        """Makes features of one video or of several.

        Args:
            recordings: Each a file or what is open for reading bytes, a folder of pictures whose names end in numbers, or an
                array of frames; or what `open_video` makes of one, which is closed then.
            fps: Frames per second of arrays and of folders of pictures, in place of the setting.
            augment: Vary the videos at random for training, by the `augment_` settings: the same for all frames of one.
            seed: With `augment`. What comes out depends on this and on the video (the name of its file, the first picture of
                an array), not on the rest of the batch.
            return_tensors: "pt" or "np" give padded batches; None gives lists of arrays, not padded.

        Returns:
            `pixel_values` float32 (B, M, frames, 3, height, width), 0 where padded; `feature_attention_mask` int64 (B, M);
            `frame_rate` float32 (B,), segments per second: segment m spans m / frame_rate to (m + 1) / frame_rate.

        Raises:
            VideoFileError: A recording is no video, or not a frame of it can be decoded, or all are damaged.
            OSError: A file cannot be opened.
        """
        if augment and seed is None:
            raise ValueError("augment=True needs a seed: training could not be resumed exactly without one")
        if not isinstance(recordings, list | tuple):
            recordings = [recordings]
        if not len(recordings):
            raise ValueError("recordings: expected at least one, got none")
        places = [(recording, f"recording {index}") for index, recording in enumerate(recordings)]
        if len(places) == 1 or self.decode_threads == 1:
            made = [self._extract(*place, seed if augment else None, fps) for place in places]
        else:
            with ThreadPoolExecutor(self.decode_threads) as pool:
                made = list(pool.map(lambda place: self._extract(*place, seed if augment else None, fps), places))
        segments, rates = zip(*made, strict=True)
        masks = [np.ones(len(one), np.int64) for one in segments]
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
        """Segments of one video of any length, in order; no more of it is held than what is given at a time.

        Every segment lasts `segment_seconds`, which must be set; `num_segments` is no limit here.

        Args:
            recording: As in a call.
            segments: How many are given at a time.
            augment, seed: As in a call.

        Yields:
            float32 (up to `segments`, frames, 3, height, width). Where the video ends before its container says, so do these,
            with a warning.

        Raises:
            ValueError: `segment_seconds` is None.
            VideoFileError, OSError: As in a call.
        """
        if self.segment_seconds is None:
            raise ValueError(
                "a stream is cut into segments of equal duration: set segment_seconds; it is None, which cuts a video into "
                f"{self.num_segments} segments, however long it is"
            )
        if augment and seed is None:
            raise ValueError("augment=True needs a seed: training could not be resumed exactly without one")
        with open_video(recording, fps=self.fps) as video:
            self._check_segments(segments, video.path)
            variation = self._variation(recording, video.path, seed if augment else None)
            size, count = self._size(video, variation, WHOLE), max(1, round(video.info.seconds / self.segment_seconds))

            def times() -> Iterator[float]:
                for part in range(count * self.frames_per_segment):
                    moments = part + self._moments(1, variation.jitter)[0]
                    yield from (moments * self.segment_seconds / self.frames_per_segment).tolist()

            pictures, frames_of_one = video.pictures_in_order(times(), size), self.frames_per_segment * self._shots
            while held := list(islice(pictures, segments * frames_of_one)):
                # A segment that breaks off is filled up with its last frame.
                held += [held[-1]] * (-len(held) % frames_of_one)
                values = self._normalised(np.stack(held), variation)
                yield torch.from_numpy(values.reshape(-1, self.frames_per_segment, *values.shape[1:]))

    def _extract(self, recording: Video, place: str, seed: int | None, fps: float | None) -> tuple[np.ndarray, float]:
        """Normalised segments float32 (M, frames, 3, H, W), segments per second."""
        with open_video(recording, fps=self.fps if fps is None else fps, name=place) as video:
            info, variation = video.info, self._variation(recording, video.path, seed)
            times, rate = self._times(video, variation.jitter)
            if len(times) > info.num_frames:
                warnings.warn(
                    f"{video.path}: {info.num_frames} frames for {len(times)} places in "
                    f"{len(times) // (self.frames_per_segment * self._shots)} segments: frames are repeated",
                    stacklevel=3,
                )
            if self.segment_seconds is not None and rate * self.segment_seconds < 0.99:
                warnings.warn(
                    f"{video.path}: {info.seconds:.0f} s are more than {self.num_segments} segments of "
                    f"{self.segment_seconds:g} s, so they last {1 / rate:.2g} s: read it as a stream, or set num_segments",
                    stacklevel=3,
                )
            part = self._not_black(video) if self.trim_black else WHOLE
            size = self._size(video, variation, part)
            frames = video.frames_at(times, part.whole(size), part.slices(size))
        values = self._normalised(frames, variation)
        return values.reshape(-1, self.frames_per_segment, *values.shape[1:]), rate

    def _variation(self, recording: Video, path: str, seed: int | None) -> "_Variation":
        """How a recording is varied; without a seed not at all. What is seen of it does not depend on the number of frames."""
        if seed is None:
            return _Variation()
        # An array has no name: its first picture stands for it.
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
        """uint8 (N · shots, h, w, 3), scaled as `_size` says → float32 (N, 3, height, width)."""
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
        """Seconds of all frames, picture after picture; segments per second."""
        count, seconds = self.num_segments, video.info.seconds
        if self.segment_seconds is not None:
            wanted = max(1, round(seconds / self.segment_seconds))
            # As a stream cuts it, where it is one segment at least and not too many.
            if wanted <= count and seconds >= self.segment_seconds:
                seconds = wanted * self.segment_seconds
            count = min(count, wanted)
        self._check_segments(count, video.path)
        parts = count * self.frames_per_segment
        moments = np.arange(parts)[:, None] + self._moments(parts, jitter)
        return moments.ravel() * (seconds / parts), count / seconds

    def _check_segments(self, count: int, path: str) -> None:
        """Raises `VideoFileError` for more numbers at a time than there should be memory for."""
        values = count * self.frames_per_segment * self._shots * 3 * self.height * self.width
        if values > MAX_VALUES:
            found = f"{count} segments of {self.frames_per_segment} frames, {self.height} x {self.width} pixels ({values:,})"
            raise VideoFileError(
                path,
                found,
                f"features of at most {MAX_VALUES:,} numbers at a time (lower num_segments, frames_per_segment, height or "
                "width, or read it as a stream)",
            )

    @property
    def _shots(self) -> int:
        """Frames that a picture is made of."""
        return 3 if self.channels == "time" else 1

    def _moments(self, parts: int, jitter: np.random.Generator | None) -> np.ndarray:
        """When the frames of a picture are (parts, shots), from 0 to 1 in its part of a segment."""
        within = np.full(parts, 0.5)
        if jitter is not None:
            within += self.augment_time * jitter.uniform(-0.5, 0.5, parts)
        return (np.arange(self._shots) + within[:, None]) / self._shots

    def _not_black(self, video) -> "_Part":
        """The part of the pictures outside of which they are black, with a margin; all of them where they are black."""
        times, _ = self._times(video, None)
        size = tuple(min(length, PROBE) for length in video.picture_size())
        bright = video.frames_at(times, size).max(axis=0).max(axis=-1) > BLACK
        if not bright.any():
            warnings.warn(
                f"{video.path}: black in all frames that are read, so there is nothing to see in it", stacklevel=4
            )
        spans = []
        for axis, count in zip((1, 0), size, strict=True):
            (places,) = np.nonzero(bright.any(axis=axis))
            low, high = (places[0] / count, (places[-1] + 1) / count) if len(places) else (0.0, 1.0)
            length = min(max((1 + 2 * MARGIN) * (high - low), LEAST_PART), 1.0)
            start = min(max((low + high - length) / 2, 0.0), 1.0 - length)
            spans.append((start, start + length))
        return _Part(*spans)

    def _size(self, video, variation: "_Variation", part: "_Part") -> tuple[int, int]:
        """Height and width that this part of the pictures is scaled to, before what is too much is cut off."""
        height, width = self.height * variation.zoom, self.width * variation.zoom
        if self.fit != "squash":
            own_height, own_width = (
                length * (high - low) for length, (low, high) in zip(video.picture_size(), part, strict=True)
            )
            ratios = (height / own_height, width / own_width)
            scale = max(ratios) if self.fit == "crop" else min(ratios)
            height, width = own_height * scale, own_width * scale
        return max(1, round(height)), max(1, round(width))

    def _cut(self, frames: np.ndarray, place: tuple[float, float]) -> np.ndarray:
        """(N, h, w, 3) → (N, height, width, 3): what is too much is cut off, what is too little is black."""
        result = np.zeros((len(frames), self.height, self.width, 3), np.uint8)
        spans = []
        for axis, (wanted, share) in enumerate(zip((self.height, self.width), place, strict=True), start=1):
            there = frames.shape[axis]
            spare = round(abs(there - wanted) * (share if there > wanted else 0.5))
            length = min(there, wanted)
            cut, put = (spare, 0) if there > wanted else (0, spare)
            spans.append((slice(cut, cut + length), slice(put, put + length)))
        (cut_rows, put_rows), (cut_columns, put_columns) = spans
        result[:, put_rows, put_columns] = frames[:, cut_rows, cut_columns]
        return result


__all__ = ["VideoFeatureExtractor"]
