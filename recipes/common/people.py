"""The person of each recording, as a JSON object beside features and sentences; evaluations report the accuracy per person."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from action_llm.model_files import ModelFileError, as_written, read_json_object

# sample_id → person.
PEOPLE = "people.json"


def write_people(folder: Path, people: dict[str, str]):
    """Writes `sample_id` → person beside features or sentences."""
    from action_llm_datasets.atomic_files import write_atomically

    write_atomically(folder / PEOPLE, json.dumps(people, indent=0, ensure_ascii=False) + "\n")


def read_people(folder: str | Path) -> dict[str, str]:
    """
    Reads `sample_id` → person from a folder of features or sentences. Empty if people are unknown, or an older version wrote
    the folder.

    Raises:
        ModelFileError: if the file is damaged.
    """
    path = Path(folder, PEOPLE)
    people = read_json_object(path) if path.is_file() else {}
    for sample_id, person in people.items():
        if not isinstance(person, str):
            raise ModelFileError(path, sample_id, as_written(person), "a person, as a text")
    return people


def groups_of(labels: dict[str, Any], people: dict[str, str]) -> list[str] | None:
    """
    The group of each recording for intervals (`paired_interval`): one for each person and class.

    Args:
        labels: `sample_id` → label, in the order of the recordings.
        people: `sample_id` → person; empty if they are unknown.

    Returns:
        A name for each recording; None if people are unknown.
    """
    return [f"{people[sample_id]} {label}" for sample_id, label in labels.items()] if people else None


def numbers_of_people(people: dict[str, str], sample_ids: Iterable[str]) -> np.ndarray | None:
    """
    A number for the person of each recording, without their names, which may be real.

    Args:
        people: `sample_id` → person (`read_people`).
        sample_ids: N recordings.

    Returns:
        int64 (N,); None unless everybody is known.
    """
    persons = [people.get(name) for name in sample_ids]
    return None if None in persons else np.unique(persons, return_inverse=True)[1]
