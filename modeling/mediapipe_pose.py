"""MediaPipe's pose landmarker as a pose estimator: 33 joints in metres.

The landmarker gives every person twice: in the frame, and in metres with the origin between their hips, in the axes of the
camera (x to the right of the frame, y down, z away from the camera). The second loses where the person is. Both together say
it: the person is where their joints in metres, seen through the lens, cover their joints in the frame.
"""

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
# Standard deviation of the filter that smooths the distance from the camera, in seconds, and the least distance in metres.
SMOOTHING_SECONDS, LEAST_DISTANCE = 0.1, 0.1
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

    def detect(self, pictures: Iterable[np.ndarray], fps: float) -> Iterator[Detections]:
        mediapipe, vision, base_options = _vision()
        options = vision.PoseLandmarkerOptions(
            base_options=base_options(model_asset_path=str(self._path)),
            running_mode=vision.RunningMode.VIDEO,
            num_poses=self.max_people,
        )
        # A landmarker follows people from frame to frame, so every video has its own.
        with vision.PoseLandmarker.create_from_options(options) as landmarker:
            for number, picture in enumerate(pictures):
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
                # In a video of more than 1000 frames per second, milliseconds alone would repeat.
                result = landmarker.detect_for_video(image, max(number, round(1000 * number / fps)))
                frame = np.array(
                    [[[joint.x, joint.y, joint.visibility] for joint in person] for person in result.pose_landmarks]
                ).reshape(-1, NUM_JOINTS, 3)
                metres = np.array(
                    [[[joint.x, joint.y, joint.z] for joint in person] for person in result.pose_world_landmarks]
                ).reshape(-1, NUM_JOINTS, 3)
                size = np.array(picture.shape[1::-1])
                yield Detections(frame[..., :2] * size, frame[..., 2].clip(0, 1), metres)

    def place(self, joints: np.ndarray, view: np.ndarray, scores: np.ndarray, fps: float) -> np.ndarray:
        # Here, because it is slow to import, and the pipeline imports this module.
        from scipy.ndimage import gaussian_filter1d

        hips = positions(joints, view / FOCAL_LENGTH, scores)
        distance = np.maximum(hips[..., 2], LEAST_DISTANCE)
        # Frames in which a person is not seen have no weight.
        present = scores.any(-1)
        sigma = SMOOTHING_SECONDS * fps
        weights = gaussian_filter1d(present.astype(float), sigma, axis=0, mode="constant")
        smooth = gaussian_filter1d(np.where(present, distance, 0), sigma, axis=0, mode="constant")
        smooth = np.divide(smooth, weights, out=distance.copy(), where=present)
        # Along the line of sight, so that the person stays where they are in the frame.
        return joints + (hips * (smooth / distance)[..., None])[..., None, :]


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
    """How to install MediaPipe and its model file."""
    return (
        'Get it with `pip install "action-llm[pose]"` and '
        f"`curl --create-dirs -o {usual_file()} {ADDRESS}` (Apache-2.0; {PAGE})"
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
