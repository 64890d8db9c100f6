"""The metrics of action recognition as one `evaluate` metric; the functions behind it are in `classification_scores`."""

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
NTU RGB+D, UAV-Human and UTD-MHAD are compared by top-1 accuracy, Toyota Smarthome by mean per-class accuracy. A class
without a recording among the references has no accuracy and does not count in the mean.
"""

_INPUTS = """
Args:
    predictions: log-probabilities or other scores, one list of C numbers a recording, the higher the likelier; or (the
        config "probabilities") their probabilities; or (the config "labels") the class of each recording.
    references: the true class of each recording, an integer from 0.
    num_classes: C, for the confusion matrix of the config "labels". By default one more than the largest class seen.

Returns:
    top_1 and mean_per_class; confusion_matrix, whose entry (i, j) counts recordings of class i that were taken for j;
    with scores also top_5 (top_C of fewer classes) and calibration_error (15 bins; scores are normalised first).
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class ActionClassification(evaluate.Metric):
    """See the module."""

    def _info(self):
        if self.config_name == "labels":
            predictions = datasets.Value("int64")
        elif self.config_name in ("default", "probabilities"):
            predictions = datasets.Sequence(datasets.Value("float64"))
        else:
            raise ValueError(
                f'the configs are "default" (scores), "probabilities" and "labels"; got {self.config_name!r}.'
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
            raise ValueError("there is no recording to score.")
        if self.config_name == "labels":
            classes = np.asarray(predictions)
            num_classes = num_classes or 1 + int(max(classes.max(), references.max()))
            result = {"top_1": accuracy(classes, references)}
        else:
            widths = {len(row) for row in predictions}
            if len(widths) != 1 or num_classes not in (None, *widths):
                raise ValueError(f"each recording needs {num_classes or 'as many'} scores; found {sorted(widths)}.")
            scores = np.asarray(predictions)
            if self.config_name == "probabilities":
                if not (scores >= 0).all() or np.abs(scores.sum(axis=1) - 1).max() > 1e-3:
                    raise ValueError("probabilities lie between 0 and 1 and sum to 1 for each recording.")
                scores = np.log(np.maximum(scores, np.finfo(np.float64).tiny))
            num_classes = scores.shape[1]
            classes, best = scores.argmax(axis=1), min(5, num_classes)
            result = {
                "top_1": top_k_accuracy(scores, references),
                f"top_{best}": top_k_accuracy(scores, references, best),
                "calibration_error": expected_calibration_error(log_normalize(scores), references),
            }
        return {
            **result,
            "mean_per_class": mean_per_class_accuracy(classes, references),
            "confusion_matrix": confusion_matrix(classes, references, num_classes).tolist(),
        }
