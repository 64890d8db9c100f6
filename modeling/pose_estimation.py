"""What pose estimators have in common: from a video to a recording of tracked people."""

import math
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from .array_files import recording_of_people
from .person_tracking import Detections, assignment_solver, track_people
from .size_limits import MAX_COMPARISONS, MAX_JOINTS
from .skeleton_files import SkeletonRecording, check_size, checked_rate
from .skeleton_layouts import get_layout
from .video_files import open_video


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
        layout = get_layout(self.layout)
        with open_video(video, **({} if fps is None else {"fps": fps})) as opened:
            path, rate = opened.path, opened.info.fps
            rate = checked_rate(path, rate if fps is None else min(checked_rate(path, fps), rate))
            count = max(1, round(opened.info.seconds * rate))
            check_size(path, count, self.max_people, layout.num_joints)
            height, width = opened.picture_size()
            pictures, lengths = opened.pictures_in_order(number / rate for number in range(count)), []
            detections = list(self.detect(_changes(pictures, rate, lengths)))
        frames = [people for people, length in zip(detections, lengths, strict=True) for _ in range(length)]
        people = _of_people(frames, track_people(frames, rate))
        if not people.scores.any():
            raise NobodySeenError(path, len(frames))
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
            body_ids=np.arange(scores.shape[1], dtype=np.int64),
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


def _changes(pictures: Iterable[np.ndarray], fps: float, lengths: list[int]) -> Iterator[tuple[float, np.ndarray]]:
    """Yields time and picture whenever the picture changes, and appends the number of frames that show it to `lengths`."""
    shown = None
    for number, picture in enumerate(pictures):
        if picture is shown:
            lengths[-1] += 1
        else:
            shown = picture
            lengths.append(1)
            yield number / fps, picture


def _of_people(frames: list[Detections], identities: list[np.ndarray]) -> Detections:
    """Arrays (T, P, …) of tracked people, in order of appearance; zeros where a person is not seen.

    A recording of many frames may have few people (`size_limits`): those who are seen longest are kept.
    """
    seen = np.bincount(np.concatenate([numbers[numbers >= 0] for numbers in identities]), minlength=0)
    num_joints = frames[0].scores.shape[1]
    most = min(math.isqrt(MAX_COMPARISONS // len(frames)), MAX_JOINTS // (len(frames) * num_joints), len(frames))
    kept = np.sort(np.argsort(-seen, kind="stable")[:most])
    slots = {int(number): slot for slot, number in enumerate(kept)}
    arrays = [np.zeros((len(frames), len(kept), *part.shape[1:])) for part in frames[0]]
    for frame, (detections, numbers) in enumerate(zip(frames, identities, strict=True)):
        for detection, number in enumerate(numbers.tolist()):
            if number in slots:
                for array, part in zip(arrays, detections, strict=True):
                    array[frame, slots[number]] = part[detection]
    return Detections(*arrays)


__all__ = ["NobodySeenError", "PoseError", "PoseEstimator"]
