"""Who was recorded: a JSON object beside features and sentences, for the accuracy of each person."""

import json
from pathlib import Path

from action_llm.model_files import ModelFileError, as_written, read_json_object

# Beside features and sentences: sample_id → person.
PEOPLE = "people.json"


def write_people(folder: Path, people: dict[str, str]):
    """Writes who was recorded beside features or sentences, for the accuracy of each person."""
    from action_llm_datasets.atomic_files import write_atomically

    write_atomically(folder / PEOPLE, json.dumps(people, indent=0, ensure_ascii=False) + "\n")


def read_people(folder: str | Path) -> dict[str, str]:
    """`sample_id` → who was recorded; empty where that is not known, or an older version wrote the folder."""
    path = Path(folder, PEOPLE)
    people = read_json_object(path) if path.is_file() else {}
    for sample_id, person in people.items():
        if not isinstance(person, str):
            raise ModelFileError(path, sample_id, as_written(person), "who was recorded, as a text")
    return people
