"""MediaPipe's pose landmarker as a pose estimator: 33 joints in metres.

The landmarker gives every person twice: in the frame, and in metres with the origin between their hips, in the axes of the
camera (x to the right of the frame, y down, z away from the camera). The metric joints lack the position of the person, which
follows from both: there, seen through the lens, the metric joints cover the joints in the frame.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from huggingface_hub import constants, hf_hub_download

from .person_tracking import Detections
from .pose_estimation import PoseError, PoseEstimator

# The model file, and the page that documents it (Apache-2.0).
FILE = "pose_landmarker_full.task"
ADDRESS = f"https://storage.googleapis.com/mediapipe-models/pose_landmarker/pose_landmarker_full/float16/latest/{FILE}"
PAGE = "https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker"
# Focal length of the camera in units of the longer side of the frame: that of the main camera of a phone (27 mm on 35 mm film).
FOCAL_LENGTH = 0.75
# Standard deviation of the filter that smooths the distance from the camera, in seconds, and its radius in standard deviations.
SMOOTHING_SECONDS, RADIUS = 0.1, 4.0
# Least distance in metres. Joints that do not fit those in the frame give shorter ones, or a person behind the camera.
LEAST_DISTANCE = 0.1
NUM_JOINTS = 33


class MediaPipePose(PoseEstimator):
    """Pose landmarker of MediaPipe (Apache-2.0), on the CPU.

    The focal length of the camera is not known, and taken as that of a phone. If it is another, only distances from the camera
    are wrong, by the ratio of the two. They are smoothed, because they follow from the size of the person in the frame.

    Args:
        model: The model file: a path, or `OWNER/NAME:FILE.task` on the Hub. None is `pose_landmarker_full.task` in the folder
            `action_llm` of the Hugging Face cache.
        max_people: Maximum number of people in a frame. With one, the detector only runs when the person is lost.
    """

    name, layout = "mediapipe", "blazepose33"

    def __init__(self, model: str | None = None, max_people: int = 2):
        super().__init__(model, max_people)
        _vision()
        self._path = _model_file(model)

    @classmethod
    def is_present(cls) -> bool:
        try:
            _vision()
        except PoseError:
            return False
        return usual_file().is_file()

    def detect(self, pictures: Iterable[tuple[float, np.ndarray]]) -> Iterator[Detections]:
        mediapipe, vision, base_options = _vision()
        options = vision.PoseLandmarkerOptions(
            base_options=base_options(model_asset_path=str(self._path)),
            running_mode=vision.RunningMode.VIDEO,
            num_poses=self.max_people,
        )
        # A landmarker follows people from frame to frame, so every video has its own.
        with vision.PoseLandmarker.create_from_options(options) as landmarker:
            for seconds, picture in pictures:
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
                result = landmarker.detect_for_video(image, round(1000 * seconds))
                frame = np.array(
                    [[[joint.x, joint.y, joint.visibility] for joint in person] for person in result.pose_landmarks]
                ).reshape(-1, NUM_JOINTS, 3)
                metres = np.array(
                    [[[joint.x, joint.y, joint.z] for joint in person] for person in result.pose_world_landmarks]
                ).reshape(-1, NUM_JOINTS, 3)
                size = np.array(picture.shape[1::-1])
                yield Detections(frame[..., :2] * size, frame[..., 2].clip(0, 1), metres)

    def reach(self, fps: float) -> int:
        return math.ceil(RADIUS * (SMOOTHING_SECONDS * fps))

    def place(self, joints: np.ndarray, view: np.ndarray, scores: np.ndarray, fps: float) -> np.ndarray:
        tangents = view / FOCAL_LENGTH
        distances = positions(joints, tangents, scores)[..., 2]
        is_plausible = scores.any(-1) & (distances >= LEAST_DISTANCE)
        distances = smoothed_distances(distances, is_plausible, SMOOTHING_SECONDS * fps)
        return joints + positions_at(distances, joints, tangents, scores)[..., None, :]


def positions(joints: np.ndarray, view: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Positions t at which joints x appear where they are seen: (x + t) / (z + t_z) = view, by weighted least squares.

    Args:
        joints: Joints around an origin, (..., J, 3).
        view: Tangents of the angles of sight to the right and down, (..., J, 2).
        scores: Weights, (..., J).

    Returns:
        (..., 3).
    """
    # Linear in t: t_x - view_x t_z = view_x z - x, and the same for y.
    equations = np.zeros((*joints.shape[:-1], 2, 3))
    equations[..., 0, 0] = equations[..., 1, 1] = 1
    equations[..., 2] = -view
    sides = view * joints[..., 2:] - joints[..., :2]
    weights = scores[..., None, None] + 1e-6
    matrix = (np.swapaxes(equations, -1, -2) @ (weights * equations)).sum(-3)
    vector = (np.swapaxes(equations, -1, -2) @ (weights * sides[..., None])).sum(-3)
    # Joints that are seen in a single point do not tell the distance.
    ridge = 1e-9 * np.trace(matrix, axis1=-2, axis2=-1)[..., None, None] * np.eye(3)
    return np.linalg.solve(matrix + ridge, vector)[..., 0]


def positions_at(distances: np.ndarray, joints: np.ndarray, view: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Like `positions`, at given distances from the camera t_z, (...). A body stays where it is seen whatever its distance."""
    weights = scores[..., None] + 1e-6
    sides = view * (joints[..., 2:] + distances[..., None, None]) - joints[..., :2]
    across = (weights * sides).sum(-2) / weights.sum(-2)
    return np.concatenate([across, distances[..., None]], axis=-1)


def smoothed_distances(distances: np.ndarray, is_plausible: np.ndarray, sigma: float) -> np.ndarray:
    """Means of the plausible distances around each frame, with Gaussian weights.

    Args:
        distances: Metres, (T, P).
        is_plausible: Whether a distance counts, bool (T, P).
        sigma: Standard deviation of the weights in frames.

    Returns:
        (T, P). Frames far from plausible ones are interpolated; a person without any is at `LEAST_DISTANCE`.
    """
    frames, radius = np.arange(len(distances)), math.ceil(RADIUS * sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    smoothed = np.full(distances.shape, LEAST_DISTANCE)
    for person in is_plausible.any(0).nonzero()[0]:
        weights = is_plausible[:, person].astype(float)
        series = (np.where(is_plausible[:, person], distances[:, person], 0), weights)
        total, weight = (np.convolve(values, kernel)[radius : radius + len(frames)] for values in series)
        near = weight > 0
        smoothed[:, person] = np.interp(frames, frames[near], total[near] / weight[near])
    return smoothed


def usual_file() -> Path:
    """Where the model file is looked for."""
    return Path(constants.HF_HOME, "action_llm", FILE)


def _model_file(model: str | None) -> Path:
    """The model file on this machine, downloaded from the Hub if its name says so."""
    if model is None:
        if not usual_file().is_file():
            raise PoseError(f"mediapipe needs {FILE}, and {usual_file()} does not exist. {how_to_get()}")
        return usual_file()
    if Path(model).is_file():
        return Path(model)
    repository, colon, file = os.fspath(model).partition(":")
    if not colon or repository.count("/") != 1 or not file.endswith(".task"):
        raise PoseError(
            f"model of mediapipe: expected a .task file, or OWNER/NAME:FILE.task on the Hub, got {model!r}. {how_to_get()}"
        )
    return Path(hf_hub_download(repository, file))


def how_to_get() -> str:
    """A sentence that says how to get MediaPipe and its model file."""
    return (
        f"Install MediaPipe with `pip install mediapipe`, and get its model (Apache-2.0, {PAGE}) with "
        f"`curl --create-dirs -o {usual_file()} {ADDRESS}`."
    )


def _vision():
    """The package, its vision tasks, and their base options; raises `PoseError` if MediaPipe is not installed."""
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise PoseError(f"mediapipe is not installed ({error}). {how_to_get()}") from error
    return mediapipe, vision, BaseOptions


__all__ = ["MediaPipePose", "positions", "usual_file"]
