"""The pose estimators by name, and the choice between them."""

from .mediapipe_pose import MediaPipePose
from .mediapipe_pose import how_to_get as how_to_get_mediapipe
from .pose_estimation import NobodySeenError, PoseError, PoseEstimator
from .vitpose import VitPose
from .vitpose import how_to_get as how_to_get_vitpose

# In order of preference: 3-D first.
POSE_ESTIMATORS: dict[str, type[PoseEstimator]] = {"mediapipe": MediaPipePose, "vitpose": VitPose}


def usual_pose_estimator() -> str:
    """The name of the first estimator whose weights are on this machine; raises `PoseError` if there is none."""
    for name, estimator in POSE_ESTIMATORS.items():
        if estimator.is_present():
            return name
    raise PoseError(
        "expected the weights of a pose estimator on this machine, found none.\n"
        f"mediapipe estimates 3-D joints on the CPU. {how_to_get_mediapipe()}\n"
        f"vitpose estimates 2-D joints, best on a GPU. {how_to_get_vitpose()}"
    )


def load_pose_estimator(name: str | None = None, model: str | None = None, max_people: int = 2) -> PoseEstimator:
    """A pose estimator by its name.

    Args:
        name: "mediapipe" (33 joints in 3-D, on the CPU) or "vitpose" (17 joints in 2-D, best on a GPU). None is the first of
            them whose weights are on this machine.
        model: Its weights: a path, or a name on the Hub, from which they are downloaded; None is the usual place.
        max_people: Maximum number of people in a frame.

    Raises:
        ValueError: If there is no estimator of that name.
        PoseError: If the estimator or its weights are missing; the message says where to get them.
        ImportError: If SciPy is not installed, with which people are tracked.
    """
    if name is None:
        if model is not None:
            raise ValueError(f"model {model!r} needs the name of its estimator: {' or '.join(POSE_ESTIMATORS)}")
        name = usual_pose_estimator()
    if name not in POSE_ESTIMATORS:
        raise ValueError(f"there is no pose estimator {name!r}, expected {' or '.join(POSE_ESTIMATORS)}")
    return POSE_ESTIMATORS[name](model, max_people)


__all__ = [
    "POSE_ESTIMATORS",
    "NobodySeenError",
    "PoseError",
    "PoseEstimator",
    "load_pose_estimator",
    "usual_pose_estimator",
]
