"""Who is who in a video: detections of people in single frames → identities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Largest distance of a detection from where a person was expected, in body sizes, and its growth per second out of sight.
REACH, REACH_PER_SECOND = 0.5, 1.0
# A person out of sight for longer has a new identity when they come back.
MAX_GAP_SECONDS = 2.0
# Cost of assigning a detection to a person who was out of sight, in body sizes. A hidden person is expected close to the
# visible one. Without this cost, a small error of the prediction would give the visible person's detection to the hidden one.
RETURN_COST = 0.1
# Seconds over which the velocity of a person is averaged.
VELOCITY_SECONDS = 0.2
# Two detections of a frame are the same person if their joints are closer than this, in body sizes.
SAME_PERSON = 0.1


class Detections(NamedTuple):
    """People in a frame.

    Attributes:
        pixels: Column and row of each joint in the frame, (N, J, 2).
        scores: Confidence of each joint, (N, J), from 0 to 1.
        joints: Coordinates of each joint by the layout of the estimator, (N, J, C).
    """

    pixels: np.ndarray
    scores: np.ndarray
    joints: np.ndarray


@dataclass
class _Person:
    """A person as last seen: joints in pixels (J, 2), their scores (J,), pixels per frame (2,), and the frame."""

    pixels: np.ndarray
    scores: np.ndarray
    velocity: np.ndarray
    frame: int

    def expected(self, frame: int) -> np.ndarray:
        return self.pixels + self.velocity * (frame - self.frame)

    def see(self, pixels: np.ndarray, scores: np.ndarray, frame: int, memory: float) -> None:
        """Follows a detection; `memory` is the number of frames over which the velocity is averaged."""
        elapsed = frame - self.frame
        moved = _middle(pixels, scores) - _middle(self.pixels, self.scores)
        share = 1 - np.exp(-elapsed / memory)
        self.velocity = (1 - share) * self.velocity + share * moved / elapsed
        self.pixels, self.scores, self.frame = pixels, scores, frame


def track_people(frames: Sequence[Detections], fps: float) -> list[np.ndarray]:
    """Gives people the same number in all frames in which they are seen.

    A person is expected to move on at their mean velocity of the last moments, also while they are out of sight. In each frame,
    detections are assigned to people with the least sum of distances from where their joints are expected
    (`scipy.optimize.linear_sum_assignment`). Detections out of reach of everybody are new people. Identities survive gaps of up
    to two seconds, and people who walk past each other, one hiding the other. People who meet and turn back while one hides the
    other may be exchanged.

    Args:
        frames: The detections of consecutive frames.
        fps: Frames per second.

    Returns:
        The identity of each detection of each frame, int64 (N,): 0, 1, … in order of appearance; -1 for the one with
        lower scores of two detections of the same person.

    Raises:
        ImportError: If SciPy is not installed.
    """
    tracker = PersonTracker(fps)
    return [tracker.follow(detections) for detections in frames]


class PersonTracker:
    """Follows people from frame to frame, see `track_people`. Memory does not grow with the number of frames.

    Args:
        fps: Frames per second.

    Raises:
        ImportError: If SciPy is not installed.
    """

    def __init__(self, fps: float):
        self._assign, self._fps = assignment_solver(), fps
        self._people: dict[int, _Person] = {}
        self._num_people = self._frame = 0

    def follow(self, detections: Detections) -> np.ndarray:
        """The identity of each detection of the next frame, int64 (N,), see `track_people`."""
        pixels, scores, _ = detections
        frame, fps = self._frame, self._fps
        numbers = np.full(len(pixels), -1)
        distinct = _distinct(pixels, scores)
        self._people = {
            number: person
            for number, person in self._people.items()
            if frame - person.frame <= max(1, MAX_GAP_SECONDS * fps)
        }
        near = list(self._people)
        # Nobody has to be assigned, but as many people as possible are.
        unassigned = REACH + REACH_PER_SECOND * MAX_GAP_SECONDS + RETURN_COST
        costs = np.full((len(near), len(distinct) + len(near)), np.inf)
        for row, number in enumerate(near):
            person = self._people[number]
            expected = person.expected(frame)
            missed = frame - person.frame - 1
            reach = REACH + REACH_PER_SECOND * missed / fps
            for column, detection in enumerate(distinct):
                distance = _distance(expected, person.scores, pixels[detection], scores[detection])
                if distance <= reach:
                    costs[row, column] = distance + RETURN_COST * (missed > 0)
            costs[row, len(distinct) + row] = unassigned
        for row, column in zip(*self._assign(costs), strict=True):
            if column < len(distinct):
                detection = distinct[column]
                numbers[detection] = near[row]
                memory = max(1.0, VELOCITY_SECONDS * fps)
                self._people[near[row]].see(pixels[detection], scores[detection], frame, memory)
        for detection in distinct:
            if numbers[detection] < 0:
                numbers[detection] = self._num_people
                self._people[self._num_people] = _Person(pixels[detection], scores[detection], np.zeros(2), frame)
                self._num_people += 1
        self._frame += 1
        return numbers


def assignment_solver() -> Callable:
    """`scipy.optimize.linear_sum_assignment`, which is slow to import. Raises `ImportError` if SciPy is not installed."""
    # transformers requires every package that remote code imports outside `try`, even of those who never track people.
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError(
            f"people in videos are tracked with SciPy, which is missing: pip install scipy ({error})"
        ) from error
    return linear_sum_assignment


def _distinct(pixels: np.ndarray, scores: np.ndarray) -> list[int]:
    """Detections of a frame without those of the same person that have lower scores."""
    kept: list[int] = []
    for detection in np.argsort(-scores.mean(1), kind="stable").tolist() if len(pixels) else []:
        others = (_distance(pixels[k], scores[k], pixels[detection], scores[detection]) for k in kept)
        if all(distance > SAME_PERSON for distance in others):
            kept.append(detection)
    return sorted(kept)


def _middle(pixels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The mean joint, weighted by scores."""
    weights = scores + 1e-6
    return weights @ pixels / weights.sum()


def _distance(pixels: np.ndarray, scores: np.ndarray, others: np.ndarray, others_scores: np.ndarray) -> float:
    """Mean distance of the joints of two bodies, weighted by both scores, in sizes of the smaller body."""
    weights = scores * others_scores + 1e-6
    size = min(np.ptp(pixels, axis=0).max(), np.ptp(others, axis=0).max())
    return float(weights @ np.linalg.norm(pixels - others, axis=1) / weights.sum() / max(size, 1.0))


__all__ = ["Detections", "PersonTracker", "assignment_solver", "track_people"]
