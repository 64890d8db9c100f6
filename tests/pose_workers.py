"""Pose estimation in new processes, for tests: imports little, because each of them imports it again."""

import sys
from types import SimpleNamespace

import numpy as np

from action_llm.person_tracking import Detections
from action_llm.pose_estimation import PoseEstimator

BODY = np.random.default_rng(0).normal(size=(1, 33, 3))


class Drifting(PoseEstimator):
    """A person of fixed shape who moves by a centimetre per frame, whatever the frames show."""

    name, layout = "mediapipe", "blazepose33"

    @classmethod
    def is_present(cls) -> bool:
        return True

    def detect(self, pictures, *_):
        for number, _ in enumerate(pictures):
            joints = BODY + np.array([0.01 * number, 0, 0])
            yield Detections(joints[..., :2] * 5 + 24, np.full((1, 33), 0.9), joints)


def estimate(*arguments) -> dict:
    """`pose._estimate` with `Drifting`."""
    sys.modules.setdefault(
        "action_llm.vitpose", SimpleNamespace(VitPose=None, how_to_get=None)
    )  # imports transformers
    from action_llm import pose_estimators
    from action_llm_datasets import pose

    pose_estimators.POSE_ESTIMATORS["mediapipe"] = Drifting
    return pose._estimate(*arguments)
