"""The metrics of action recognition as an `evaluate` metric; `classification_scores` computes them."""

import datasets
import evaluate
import numpy as np

from .classification_scores import (
    accuracy,
    confusion_matrix,
    expected_calibration_error,
    log_normalize,
    mean_per_class_accuracy,
    top_k_accuracy,
)

_DESCRIPTION = """
Top-1, top-5 and mean per-class accuracy, confusion matrix and calibration error of action recognisers.
Results on NTU RGB+D, UAV-Human and UTD-MHAD are compared by top-1 accuracy, those on Toyota Smarthome by mean per-class
accuracy. Classes without a recording among the references do not count in the mean.
"""

_INPUTS = """
Args:
    predictions: a list of C scores for each recording, such as log-probabilities, where a higher score means a more likely
        class; with the config "probabilities", a list of C probabilities; with the config "labels", the predicted class.
    references: the true class of each recording, an integer from 0.
    num_classes: C, for the confusion matrix of the config "labels". By default the largest class plus 1.

Returns:
    top_1 and mean_per_class; confusion_matrix, whose entry (i, j) is the number of recordings of class i that class j was
    predicted for; except for labels also top_5 (top_C if C < 5) and calibration_error (15 bins; scores are normalised first).
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class ActionClassification(evaluate.Metric):
    """Top-1, top-5 and mean per-class accuracy, confusion matrix and calibration error."""

    def _info(self):
        if self.config_name == "labels":
            predictions = datasets.Value("int64")
        elif self.config_name in ("default", "probabilities"):
            predictions = datasets.Sequence(datasets.Value("float64"))
        else:
            raise ValueError(
                f'the config must be "default" (scores), "probabilities" or "labels"; got {self.config_name!r}.'
            )
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": predictions, "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions, references, num_classes=None):
        references = np.asarray(references)
        if not len(references):
            raise ValueError("references are empty: there is no recording to score.")
        if self.config_name == "labels":
            classes = np.asarray(predictions)
            num_classes = num_classes or 1 + int(max(classes.max(), references.max()))
            result = {"top_1": accuracy(classes, references)}
        else:
            widths = {len(row) for row in predictions}
            if len(widths) != 1 or num_classes not in (None, *widths):
                raise ValueError(
                    f"each recording needs {num_classes or 'the same number of'} scores; found {sorted(widths)}."
                )
            scores = np.asarray(predictions)
            if self.config_name == "probabilities":
                if not (scores >= 0).all() or np.abs(scores.sum(axis=1) - 1).max() > 1e-3:
                    raise ValueError("probabilities must lie between 0 and 1, and sum to 1 for each recording.")
                scores = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
            num_classes = scores.shape[1]
            classes, k = scores.argmax(axis=1), min(5, num_classes)
            result = {
                "top_1": top_k_accuracy(scores, references),
                f"top_{k}": top_k_accuracy(scores, references, k),
                "calibration_error": expected_calibration_error(log_normalize(scores), references),
            }
        return {
            **result,
            "mean_per_class": mean_per_class_accuracy(classes, references),
            "confusion_matrix": confusion_matrix(classes, references, num_classes).tolist(),
        }
