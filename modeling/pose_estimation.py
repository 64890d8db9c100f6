"""What pose estimators have in common: from a video to a recording of tracked people."""

import math
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from .array_files import recording_of_people
from .person_tracking import Detections, track_people
from .size_limits import MAX_COMPARISONS
from .skeleton_files import SkeletonRecording
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
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    """Name of the joint layout."""

    def __init__(self, model: str | None = None, max_people: int = 2):
        if not isinstance(max_people, int) or max_people < 1:
            raise ValueError(f"max_people must be an integer of at least 1, got {max_people!r}")
        self.model, self.max_people = model, max_people

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
        """
        with open_video(video, **({} if fps is None else {"fps": fps})) as opened:
            rate = opened.info.fps if fps is None else min(fps, opened.info.fps)
            times = [number / rate for number in range(max(1, round(opened.info.seconds * rate)))]
            height, width = opened.picture_size()
            frames = list(self.detect(opened.pictures_in_order(times), rate))
            path = str(getattr(opened, "path", "video"))
        people = _of_people(frames, track_people(frames, rate))
        if not people.scores.any():
            raise NobodySeenError(path, len(frames))
        pixels, scores, joints = people
        view = (pixels - np.array([width, height]) / 2) / max(width, height)
        layout = get_layout(self.layout)
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

    def detect(self, pictures: Iterable[np.ndarray], fps: float) -> Iterator[Detections]:
        """The people in each frame.

        Args:
            pictures: Frames, uint8 (height, width, 3), in order.
            fps: Frames per second.
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


def _of_people(frames: list[Detections], identities: list[np.ndarray]) -> Detections:
    """Arrays (T, P, …) of tracked people, in order of appearance; zeros where a person is not seen.

    A recording of many frames may have few people (`size_limits`): those who are seen longest are kept.
    """
    seen = np.bincount(np.concatenate([numbers[numbers >= 0] for numbers in identities]), minlength=0)
    most = min(max(1, math.isqrt(MAX_COMPARISONS // len(frames))), len(frames))
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
