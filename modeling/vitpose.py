"""RT-DETR and ViTPose of transformers as a pose estimator: the 17 joints of COCO, in pixels."""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from .person_tracking import Detections
from .pose_estimation import PoseError, PoseEstimator

# Both are Apache-2.0.
POSE_MODEL, DETECTOR = "usyd-community/vitpose-base-simple", "PekingU/rtdetr_r50vd_coco_o365"
# Boxes of people have at least this score.
LEAST_SCORE = 0.3
FRAMES_PER_BATCH = 8
NUM_JOINTS = 17
# The head of ViTPose+ for the joints of COCO; it has one per data set.
COCO_EXPERT = 0


class VitPose(PoseEstimator):
    """ViTPose on the people that RT-DETR finds (both Apache-2.0), on a GPU if there is one.

    Args:
        model: ViTPose: a Hub name, or a folder; None is `usyd-community/vitpose-base-simple`.
        max_people: Maximum number of people in a frame: those with the highest scores.
        detector: A detector of transformers with the class "person": a Hub name, or a folder.
    """

    name, layout = "vitpose", "coco17"

    def __init__(self, model: str | None = None, max_people: int = 2, detector: str = DETECTOR):
        super().__init__(model or POSE_MODEL, max_people)
        # Here, because it is slow to import, and the pipeline imports this module.
        from transformers import VitPoseForPoseEstimation

        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._find_boxes = AutoImageProcessor.from_pretrained(detector, trust_remote_code=False)
            detector_model = AutoModelForObjectDetection.from_pretrained(detector, trust_remote_code=False)
            self._detector = detector_model.to(device).eval()
            self._cut_out = AutoImageProcessor.from_pretrained(self.model, trust_remote_code=False)
            self._pose = VitPoseForPoseEstimation.from_pretrained(self.model).to(device).eval()
        except OSError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise PoseError(f"vitpose cannot be loaded: {reason}. {how_to_get()}") from error
        names = self._detector.config.id2label
        self._person = next((label for label, name in names.items() if name == "person"), None)
        if self._person is None:
            raise PoseError(
                f"{detector}: expected a detector with the class 'person', found {list(names.values())[:5]}"
            )

    @classmethod
    def is_present(cls) -> bool:
        weights = (try_to_load_from_cache(name, "model.safetensors") for name in (POSE_MODEL, DETECTOR))
        return all(isinstance(path, str) for path in weights)

    def detect(self, pictures: Iterable[tuple[float, np.ndarray]]) -> Iterator[Detections]:
        pictures = (picture for _, picture in pictures)
        while batch := list(islice(pictures, FRAMES_PER_BATCH)):
            boxes = self._boxes(batch)
            with_people = [number for number, found in enumerate(boxes) if len(found)]
            poses = self._poses([batch[number] for number in with_people], [boxes[number] for number in with_people])
            results = dict(zip(with_people, poses, strict=True))
            for number in range(len(batch)):
                people = results.get(number, [])
                pixels = np.array([person["keypoints"].numpy() for person in people]).reshape(-1, NUM_JOINTS, 2)
                scores = np.array([person["scores"].numpy() for person in people]).reshape(-1, NUM_JOINTS)
                yield Detections(pixels, scores.clip(0, 1), pixels)

    @torch.no_grad()
    def _boxes(self, pictures: list[np.ndarray]) -> list[np.ndarray]:
        """Boxes of the people in each picture, highest scores first: column, row, width and height, (N, 4)."""
        inputs = self._find_boxes(images=pictures, return_tensors="pt").to(self._detector.device)
        sizes = [picture.shape[:2] for picture in pictures]
        found = self._find_boxes.post_process_object_detection(
            self._detector(**inputs), target_sizes=sizes, threshold=LEAST_SCORE
        )
        boxes = []
        for picture in found:
            of_people = picture["labels"] == self._person
            order = picture["scores"][of_people].argsort(descending=True)[: self.max_people]
            corners = picture["boxes"][of_people][order].cpu().numpy()
            boxes.append(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1))
        return boxes

    @torch.no_grad()
    def _poses(self, pictures: list[np.ndarray], boxes: list[np.ndarray]) -> list[list[dict]]:
        """`keypoints` and `scores` of the person in each box of each picture."""
        if not pictures:
            return []
        inputs = self._cut_out(pictures, boxes=boxes, return_tensors="pt").to(self._pose.device)
        if getattr(self._pose.config.backbone_config, "num_experts", 1) > 1:
            inputs["dataset_index"] = torch.full((len(inputs["pixel_values"]),), COCO_EXPERT, device=self._pose.device)
        outputs = self._pose(**inputs)
        outputs.heatmaps = outputs.heatmaps.cpu()
        return self._cut_out.post_process_pose_estimation(outputs, boxes=boxes)


def how_to_get() -> str:
    """A sentence that says how to get the weights."""
    return f"Get its weights (Apache-2.0) with `hf download {POSE_MODEL}` and `hf download {DETECTOR}`."


__all__ = ["VitPose"]
