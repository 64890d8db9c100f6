"""Reads folders of frames and arrays of frames."""

import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from .video_frames import VideoFileError, VideoFrames, VideoInfo, check_length, check_pixels, checked_fps

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# The formats of images with these suffixes. Other formats of Pillow start programs (EPS) or contain many images.
FRAME_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
# Largest ratio of the range of frame numbers in a folder to the number of frames; beyond it, they are not frame numbers.
MAX_GAP = 1000


class FrameFolder(VideoFrames):
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


class FrameArray(VideoFrames):
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


__all__ = ["FRAME_SUFFIXES", "FrameArray", "FrameFolder"]
