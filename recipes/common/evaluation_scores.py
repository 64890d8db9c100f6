"""The class probabilities of an evaluation, as `evaluate_classifier.py` writes them beside its metrics."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from action_llm.model_files import ModelFileError

SCORES = "scores.safetensors"


@dataclass(frozen=True)
class EvaluationScores:
    """
    Log-probabilities without temperature of the recordings of an evaluation.

    Attributes:
        class_names: names of the C classes.
        labels: (N,) int64 true class of each recording.
        log_probabilities: number of versions → float32 (N, C), logarithms of the mean probabilities of so many versions of a
            recording: of the recording itself (1), and of all versions of the evaluation.
        people: (N,) int64 a number for the person of each recording; None if people are unknown.
    """

    class_names: list[str]
    labels: np.ndarray
    log_probabilities: dict[int, np.ndarray]
    people: np.ndarray | None = None

    def save(self, folder: Path):
        """Writes the file whole or not at all."""
        from safetensors.numpy import save

        from action_llm_datasets.atomic_files import write_atomically

        tensors = {"labels": self.labels.astype(np.int64)}
        for versions, values in self.log_probabilities.items():
            tensors[f"versions_{versions}"] = np.ascontiguousarray(values, np.float32)
        if self.people is not None:
            tensors["people"] = self.people.astype(np.int64)
        write_atomically(folder / SCORES, save(tensors, {"class_names": json.dumps(self.class_names)}))

    @classmethod
    def load(cls, folder: Path) -> "EvaluationScores":
        """
        Reads the scores of an evaluation.

        Raises:
            ModelFileError: if the file is damaged, or missing because an older version evaluated.
        """
        from safetensors import SafetensorError, safe_open

        path = folder / SCORES
        try:
            with safe_open(path, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
                class_names = json.loads(file.metadata()["class_names"])
            labels, people = tensors.pop("labels"), tensors.pop("people", None)
            versions = {int(name.removeprefix("versions_")): values for name, values in tensors.items()}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            expected = "the class probabilities of an evaluation: run evaluate_classifier.py again, in another folder"
            raise ModelFileError(path, None, f"{type(error).__name__}: {error}", expected) from error
        return cls(class_names, labels, dict(sorted(versions.items())), people)
