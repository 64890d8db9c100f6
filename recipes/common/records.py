"""Reads `record.json`, which says what a run did and on which data, and other JSON files that recipes write."""

from pathlib import Path

from action_llm.model_files import ModelFileError, as_written, read_field, read_json_object

# A recipe writes it last, so it is only in folders of finished runs.
RECORD = "record.json"

# Fields that hold the records of earlier stages.
RECORDS_WITHIN = (
    "backbone_training",
    "features",
    "target_features",
    "llm_training",
    "tokenizer",
    "sentences",
    "model",
)

# Records nested more deeply are not checked.
MAX_STAGES = 16

# Fields that are read from a record, and their types.
RECORD_FIELDS = {
    **dict.fromkeys(("cost", "data", "libraries", "metrics", "settings", "splits"), (dict,)),
    **dict.fromkeys(("dataset", "evaluated_on", "hardware", "llm", "method", "stage", "version"), (str,)),
    **dict.fromkeys(("examples", "recordings", "seed", "test_evaluations"), (int,)),
    **dict.fromkeys(("split_evidence", "split_evidence.training"), (dict,)),
    "split_evidence.training.fingerprint": (str,),
    "split_evidence.held_out_subjects": (list,),
    "split_evidence.unchecked_stages": (list,),
    "hold_out": (bool,),
    "seconds": (int, float),
    "training_classes": (list,),
}

# Settings that older versions recorded under another name: former → current name.
RENAMED_SETTINGS = {"restrict_names": "constrained_scoring"}


def read_record(path: Path) -> dict:
    """
    Reads a record, checks the types of its fields, and gives settings their current names.

    Raises:
        FileNotFoundError: if there is no such file.
        ModelFileError: if the file is no JSON object, or a field has the wrong type.
    """
    record = read_json_object(path)
    _check_record(path, record)
    return record


def _check_record(path: Path, record: dict, within: str = ""):
    """Checks a record and the records within, and renames their settings in place."""
    for name, types in RECORD_FIELDS.items():
        read_field(path, record, within + name, *types)
    for class_name in read_field(path, record, f"{within}training_classes", list) or ():
        if not isinstance(class_name, str):
            raise ModelFileError(path, f"{within}training_classes", as_written(class_name), "names of classes")
    if settings := read_field(path, record, f"{within}settings", dict):
        renamed = {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}
        settings.clear()
        settings.update(renamed)
    for name in RECORDS_WITHIN if within.count(".") < MAX_STAGES else ():
        if read_field(path, record, within + name, dict) is not None:
            _check_record(path, record, f"{within}{name}.")


def required(path: Path, record: dict, field: str, *types: type):
    """
    A field that a record must have.

    Raises:
        ModelFileError: if the field is missing or has none of the types.
    """
    value = read_field(path, record, field, *types)
    if value is None:
        raise ModelFileError(path, field, "nothing", "a value, which every finished run writes: run its recipe again")
    return value


def read_written(folder: str | Path, name: str, recipe: str, *fields: str) -> dict:
    """
    Reads a JSON object that a recipe wrote beside its result.

    Args:
        folder, name: of the file.
        recipe: that wrote it, for errors.
        fields: that the object must have.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or lacks a field.
    """
    path = Path(folder, name)
    try:
        content = (read_record if name == RECORD else read_json_object)(path)
        for field_name in fields:
            if field_name not in content:
                raise ModelFileError(path, field_name, "nothing", "a value")
    except ModelFileError as error:
        raise ValueError(f"{error}: delete {folder}, and run {recipe} again.") from error
    return content
