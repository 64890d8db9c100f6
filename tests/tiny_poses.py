"""A pose estimator without weights, for tests: people in the bright corner of `tiny_videos.picture`."""

from collections.abc import Iterable, Iterator

import numpy as np
from skeleton_people import person

from action_llm.person_tracking import Detections
from action_llm.pose_estimation import PoseError, PoseEstimator

# How the person stands: joints (33, 3) in metres from the middle of the hips, x to the right, y down.
BODY = person(1, "blazepose33")[0]
BODY = BODY - BODY[[23, 24]].mean(0)


class BrightCorner(PoseEstimator):
    """People of fixed shape, 3 m apart, in every frame with a corner brighter than `threshold`."""

    name, layout = "mediapipe", "blazepose33"
    calls = 0

    def __init__(self, model: str | None = None, max_people: int = 2, threshold: int = 200, people: int = 1):
        super().__init__(model, max_people)
        if model == "missing":
            raise PoseError(f"no weights of the name {model}")
        self.threshold, self.people = threshold, people

    @classmethod
    def is_present(cls) -> bool:
        return True

    def detect(self, pictures: Iterable[tuple[float, np.ndarray]]) -> Iterator[Detections]:
        type(self).calls += 1
        for number, (_, picture) in enumerate(pictures):
            count = self.people * int(picture[0, -2].min() > self.threshold)
            joints = np.stack([BODY + np.array([0.01 * number + 3 * index, 0, 0]) for index in range(self.people)])[
                :count
            ]
            pixels = joints[..., :2] * 10 + np.array(picture.shape[1::-1]) / 2
            scores = np.full(joints.shape[:2], 0.9)
            scores[:, 0] = 0.01  # the nose is hidden
            yield Detections(pixels, scores, joints)
