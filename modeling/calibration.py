"""Calibration of a recogniser: probabilities that can be acted on.

`recipes/calibrate.py` fits a temperature on people that a recogniser was not trained on (Guo et al. 2017, "On Calibration of
Modern Neural Networks"), and chooses the probability from which its answers are sure. `calibration.json` beside the model holds
both. A temperature never changes the order of the classes.
"""

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from typing import Any

from .model_files import ModelFileError, as_written, read_field, read_json_object

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Reading:
    """What was fitted for the mean class probabilities of some number of versions of a recording.

    Attributes:
        versions: Number of versions that are averaged.
        temperature: Divides the logarithms of the mean probabilities; above 1 for overconfident ones.
        log_likelihood_before, log_likelihood_after: Mean log-probability of the true class in nats, without and with a
            temperature. If several people were recorded, the temperature of each person was fitted on the others.
        unsure_below: Probability below which an answer is not sure; None if none was chosen.
        coverage: Share of the recordings that were answered surely; None without `unsure_below`.
    """

    versions: int
    temperature: float
    log_likelihood_before: float
    log_likelihood_after: float
    unsure_below: float | None = None
    coverage: float | None = None


@dataclass(frozen=True)
class Calibration:
    """The calibration of a recogniser.

    Attributes:
        dataset: Data set and protocol of the recordings that it was fitted on.
        recordings: Number of these recordings.
        people: Number of people in them; None if unknown.
        models: Number of recognisers that read them, each without having been trained on the people it read.
        transferred: Whether they were other recognisers than this one, trained with the same settings.
        readings: By increasing number of versions; the first is for a single version.
        sure_accuracy: Share of right answers that `unsure_below` promises; None if no threshold was chosen.
        confidence: Confidence of that promise.
    """

    dataset: str
    recordings: int
    people: int | None
    models: int
    transferred: bool
    readings: tuple[Reading, ...]
    sure_accuracy: float | None = None
    confidence: float | None = None

    def temperature(self, versions: int = 1) -> float:
        """The temperature for the mean probabilities of some number of versions.

        Between two fitted numbers, the logarithm of the temperature is interpolated linearly in that of the number; on
        UTD-MHAD, this was closer to fitted temperatures of 2 to 7 versions than a line in 1 / versions. Above the largest
        fitted number, the temperature of the largest applies. If only a single version was fitted, means have the temperature
        1, because averaging makes probabilities less confident.
        """
        if versions > 1 and len(self.readings) == 1:
            return 1.0
        upper = next((reading for reading in self.readings if reading.versions >= versions), self.readings[-1])
        lower = next((reading for reading in reversed(self.readings) if reading.versions <= versions), upper)
        if lower.versions == upper.versions:
            return upper.temperature
        share = math.log(versions / lower.versions) / math.log(upper.versions / lower.versions)
        return math.exp((1 - share) * math.log(lower.temperature) + share * math.log(upper.temperature))

    def unsure_below(self, versions: int = 1) -> float | None:
        """The probability below which an answer is not sure; None if none was chosen for this number of versions."""
        return next((reading.unsure_below for reading in self.readings if reading.versions == versions), None)

    def to_json(self) -> str:
        """The content of `calibration.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


# Fields of the file and of each reading, and their types.
_FIELDS = {
    "dataset": (str,),
    "recordings": (int,),
    "people": (int,),
    "models": (int,),
    "transferred": (bool,),
    "readings": (list,),
    "sure_accuracy": (int, float),
    "confidence": (int, float),
}
_READING_FIELDS = {
    "versions": (int,),
    **dict.fromkeys(("temperature", "log_likelihood_before", "log_likelihood_after"), (int, float)),
    **dict.fromkeys(("unsure_below", "coverage"), (int, float)),
}
_OPTIONAL = ("people", "sure_accuracy", "confidence", "unsure_below", "coverage")


def read_calibration(path: str | os.PathLike) -> Calibration:
    """Reads a calibration.

    Raises:
        ModelFileError: If the file is damaged, or a field is missing or has a value that it cannot have.
    """
    content = read_json_object(path)
    _check_fields(path, content, _FIELDS)
    readings = content["readings"]
    for place, reading in enumerate(readings):
        where = f"readings[{place}]"
        if not isinstance(reading, dict):
            raise ModelFileError(path, where, as_written(reading), "an object")
        _check_fields(path, reading, _READING_FIELDS, f"{where}.")
        if not 0 < reading["temperature"] < math.inf:
            raise ModelFileError(path, f"{where}.temperature", as_written(reading["temperature"]), "a positive number")
        if not 0 <= (reading.get("unsure_below") or 0) <= 1:
            raise ModelFileError(path, f"{where}.unsure_below", as_written(reading["unsure_below"]), "a probability")
    versions = [reading["versions"] for reading in readings]
    if not versions or versions[0] != 1 or versions != sorted(set(versions)):
        raise ModelFileError(path, "readings", as_written(versions), "increasing numbers of versions, from 1")
    return Calibration(**content | {"readings": tuple(Reading(**reading) for reading in readings)})


def _check_fields(path, content: dict[str, Any], fields: dict[str, tuple[type, ...]], within: str = "") -> None:
    """Raises `ModelFileError` for a field that is unknown, missing or of another type."""
    if unknown := sorted(set(content) - set(fields)):
        raise ModelFileError(path, within + unknown[0], "a field", f"only the fields {', '.join(fields)}")
    for name, types in fields.items():
        if read_field(path, content, name, *types) is None and name not in _OPTIONAL:
            raise ModelFileError(path, within + name, "nothing", "a value")


__all__ = ["CALIBRATION", "Calibration", "Reading", "read_calibration"]
