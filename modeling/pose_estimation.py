"""What pose estimators have in common: from a video to a recording of tracked people."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import ClassVar

import numpy as np

from .array_files import recording_of_people
from .person_tracking import Detections, PersonTracker, assignment_solver, track_people
from .recording_parts import join_frames
from .size_limits import MAX_BODIES, MAX_COMPARISONS, MAX_JOINTS
from .skeleton_files import SkeletonRecording, check_size, checked_rate
from .skeleton_layouts import get_layout
from .video_files import open_video

# In a stream, a picture that stays is estimated again after this time, so that its poses do not wait for the next.
STILL_SECONDS = 0.5


class PoseError(ValueError):
    """No poses can be estimated: an estimator or its weights are missing, or nobody is seen in a video."""


class NobodySeenError(PoseError):
    """Nobody is seen in any frame of a video.

    Attributes:
        path (str): The video.
        num_frames (int): Number of frames that were searched.
    """

    def __init__(self, path: str, num_frames: int):
        self.path, self.num_frames = path, num_frames
        super().__init__(f"{path}: expected people, found nobody in any of the {num_frames} frames")

    def __reduce__(self):  # errors are sent between processes
        return type(self), (self.path, self.num_frames)


class PoseEstimator:
    """Estimates the joints of the people in a video.

    Args:
        model: Where the weights are; None is the estimator's usual place.
        max_people: Maximum number of people in a frame.

    Raises:
        PoseError: If the estimator or its weights are missing; the message says where to get them.
        ImportError: If SciPy is not installed, with which people are tracked.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    """Name of the joint layout."""

    def __init__(self, model: str | None = None, max_people: int = 2):
        if not isinstance(max_people, int) or max_people < 1:
            raise ValueError(f"max_people must be an integer of at least 1, got {max_people!r}")
        self.model, self.max_people = model, max_people
        assignment_solver()  # an error now, not after a video was estimated

    @classmethod
    def is_present(cls) -> bool:
        """Whether the estimator and the weights of its usual place are on this machine."""
        raise NotImplementedError

    def __call__(self, video, *, fps: float | None = None, mirrored: bool = False) -> SkeletonRecording:
        """Estimates the poses of a video.

        Args:
            video: A file, a folder of frames or an array, see `open_video`.
            fps: Frames per second at which poses are estimated, at most those of the video; None takes every frame. Frames are
                taken at equal intervals, so a video of variable rate becomes a recording of constant rate. It is also the
                frame rate of folders and arrays.
            mirrored: Whether the video is a mirror image, as those of Kinect (NTU RGB+D) and of some front cameras: the people
                are mirrored back, so that left is their own left.

        Returns:
            The recording: a body per tracked person, the `scores` of its joints, and `color_pixels`, its joints in the upright
            frames, as filmed.

        Raises:
            NobodySeenError: If no frame shows a person.
            VideoFileError, OSError: If the video cannot be read.
            SkeletonFileError: If the frame rate is impossible for a recording, or the recording would be too large.
        """
        with self._opened(video, fps) as (opened, rate, times):
            path, size = opened.path, opened.picture_size()
            check_size(path, len(times), self.max_people, get_layout(self.layout).num_joints)
            pictures, lengths = opened.pictures_in_order(number / rate for number in times), []
            detections = list(self.detect(_changes(pictures, rate, lengths)))
        frames = [people for people, length in zip(detections, lengths, strict=True) for _ in range(length)]
        recording = self._recording(frames, track_people(frames, rate), rate, size, mirrored, path)
        if not recording.scores.any():
            raise NobodySeenError(path, len(frames))
        # Numbers without gaps, also if there were too many people to keep.
        recording.body_ids = np.arange(len(recording.body_ids), dtype=np.int64)
        return recording

    def stream(self, video, *, fps: float | None = None, mirrored: bool = False) -> Iterator[SkeletonRecording]:
        """Estimates the poses of a video of any length while it is read. Memory does not grow with the video.

        Poses come `reach` frames after their picture, and when it has changed or been shown for `STILL_SECONDS`.

        Args:
            video, fps, mirrored: See `__call__`; also a video without an end.

        Yields:
            Consecutive pieces of the recording, of a frame each; empty ones if nobody is seen. A person has the same body id in
            all of them, numbered in order of appearance.

        Raises:
            VideoFileError, OSError: If the video cannot be read.
            SkeletonFileError: If the frame rate is impossible for a recording.
        """
        with self._opened(video, fps) as (opened, rate, times):
            path, size, lengths = opened.path, opened.picture_size(), []
            pictures = opened.pictures_in_order(number / rate for number in times)
            pictures = _changes(pictures, rate, lengths, max(1, round(STILL_SECONDS * rate)))

            def followed() -> Iterator[tuple[Detections, np.ndarray]]:
                tracker, shown = PersonTracker(rate), None
                for detections in self.detect(pictures):
                    if shown is not None:  # until this picture
                        yield from ((shown, tracker.follow(shown)) for _ in range(lengths.pop(0)))
                    shown = detections
                if shown is not None:
                    yield from ((shown, tracker.follow(shown)) for _ in range(lengths.pop(0)))

            for around, place in _with_neighbours(followed(), self.reach(rate)):
                frames, identities = zip(*around, strict=True)
                recording = self._recording(frames, identities, rate, size, mirrored, path)
                yield join_frames([recording], place, place + 1)

    @contextmanager
    def _opened(self, video, fps: float | None):
        """The opened video, the frame rate of its recording, and the numbers of its frames."""
        with open_video(video, **({} if fps is None else {"fps": fps})) as opened:
            path, rate, seconds = opened.path, opened.info.fps, opened.info.seconds
            rate = checked_rate(path, rate if fps is None else min(checked_rate(path, fps), rate))
            yield opened, rate, count() if math.isinf(seconds) else range(max(1, round(seconds * rate)))

    def _recording(
        self,
        frames: Sequence[Detections],
        identities: Sequence[np.ndarray],
        rate: float,
        size: tuple[int, int],
        mirrored: bool,
        path: str,
    ) -> SkeletonRecording:
        """The recording of tracked people in pictures of a size (height, width)."""
        layout, (height, width) = get_layout(self.layout), size
        people, numbers = _of_people(frames, identities)
        pixels, scores, joints = people
        view = (pixels - np.array([width, height]) / 2) / max(width, height)
        if mirrored:
            pixels, scores, joints, view = (part[:, :, list(layout.mirror)] for part in (*people, view))
            joints = joints * np.array([-1, 1, 1])[: layout.dimensions]
            joints = joints + np.array([width - 1, 0]) if layout.dimensions == 2 else joints
            view = view * np.array([-1, 1])
        recording = recording_of_people(
            self.place(joints, view, scores, rate).astype(np.float32),
            scores,
            layout=layout,
            fps=float(rate),
            source=path,
            body_ids=numbers,
        )
        recording.color_pixels = pixels.astype(np.float32)
        return recording

    def detect(self, pictures: Iterable[tuple[float, np.ndarray]]) -> Iterator[Detections]:
        """The people in each picture of a video.

        Args:
            pictures: Time in seconds and picture, uint8 (height, width, 3), in order. A picture that is shown for several
                frames comes once.
        """
        raise NotImplementedError

    def reach(self, fps: float) -> int:
        """Number of frames before and after a frame that `place` depends on; 0 by default."""
        return 0

    def place(self, joints: np.ndarray, view: np.ndarray, scores: np.ndarray, fps: float) -> np.ndarray:
        """Coordinates of the layout; those of `detect` by default.

        Args:
            joints: Coordinates from `detect`, by person, (T, P, J, C).
            view: Joints in the frame, from its middle, in units of its longer side, (T, P, J, 2).
            scores: (T, P, J), 0 in frames in which a person is not seen.
            fps: Frames per second.

        Returns:
            (T, P, J, C).
        """
        return joints


def _changes(
    pictures: Iterable[np.ndarray], fps: float, lengths: list[int], most: float = math.inf
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields time and picture whenever the picture changes, or has been shown for `most` frames; appends the number of frames
    that show it to `lengths`."""
    shown = None
    for number, picture in enumerate(pictures):
        if picture is shown and lengths[-1] < most:
            lengths[-1] += 1
        else:
            shown = picture
            lengths.append(1)
            yield number / fps, picture


def _with_neighbours(frames: Iterable, reach: int) -> Iterator[tuple[list, int]]:
    """Yields each frame as a list of the frames around it, at least `reach` on either side where there are as many, and its
    place in that list."""
    around, place = [], 0
    for frame in frames:
        around.append(frame)
        if len(around) > place + reach:
            yield around, place
            place += 1
        if place > reach:
            around, place = around[1:], reach
    for last in range(place, len(around)):
        yield around, last


def _of_people(frames: Sequence[Detections], identities: Sequence[np.ndarray]) -> tuple[Detections, np.ndarray]:
    """Arrays (T, P, …) of tracked people, in order of appearance, zeros where a person is not seen; and their identities (P,).

    A recording of many frames may have few people (`size_limits`): those who are seen longest are kept.
    """
    present = np.concatenate(identities)
    numbers, seen = np.unique(present[present >= 0], return_counts=True)
    num_joints = frames[0].scores.shape[1]
    most = min(math.isqrt(MAX_COMPARISONS // len(frames)), MAX_JOINTS // (len(frames) * num_joints), MAX_BODIES)
    kept = numbers[np.sort(np.argsort(-seen, kind="stable")[:most])]
    slots = {number: slot for slot, number in enumerate(kept.tolist())}
    arrays = [np.zeros((len(frames), len(kept), *part.shape[1:])) for part in frames[0]]
    for frame, (detections, of_frame) in enumerate(zip(frames, identities, strict=True)):
        for detection, number in enumerate(of_frame.tolist()):
            if number in slots:
                for array, part in zip(arrays, detections, strict=True):
                    array[frame, slots[number]] = part[detection]
    return Detections(*arrays), kept.astype(np.int64)


__all__ = ["NobodySeenError", "PoseError", "PoseEstimator"]
