"""`record.json`, in which every run says what it did and on what; and reading what other runs wrote."""

from pathlib import Path

from action_llm.model_files import ModelFileError, as_written, read_field, read_json_object

# Beside whatever a recipe wrote to its end.
RECORD = "record.json"


# Records of the stages before, and the types of what is read from one.
RECORDS_WITHIN = (
    "backbone_training",
    "features",
    "target_features",
    "llm_training",
    "tokenizer",
    "sentences",
    "model",
)


MAX_STAGES = 16


RECORD_FIELDS = {
    **dict.fromkeys(("cost", "data", "libraries", "metrics", "settings", "splits"), (dict,)),
    **dict.fromkeys(("dataset", "evaluated_on", "hardware", "llm", "method", "stage", "version"), (str,)),
    **dict.fromkeys(("examples", "recordings", "seed", "test_evaluations"), (int,)),
    **dict.fromkeys(("split_evidence", "split_evidence.training"), (dict,)),
    "split_evidence.training.fingerprint": (str,),
    "split_evidence.held_out_subjects": (list,),
    "hold_out": (bool,),
    "seconds": (int, float),
    "training_classes": (list,),
}


def read_record(path: Path) -> dict:
    """What a run says of itself, `record.json`.

    Raises:
        ModelFileError: The file, or a field that is read from it, is of another type.
    """
    record = read_json_object(path)
    _check_record(path, record)
    return record


def _check_record(path: Path, record: dict, within: str = ""):
    for name, types in RECORD_FIELDS.items():
        read_field(path, record, within + name, *types)
    for class_name in read_field(path, record, f"{within}training_classes", list) or ():
        if not isinstance(class_name, str):
            raise ModelFileError(path, f"{within}training_classes", as_written(class_name), "names of classes")
    for name in RECORDS_WITHIN if within.count(".") < MAX_STAGES else ():
        if read_field(path, record, within + name, dict) is not None:
            _check_record(path, record, f"{within}{name}.")


def required(path: Path, record: dict, field: str, *types: type):
    """A field that a record must have; `ModelFileError` where it has none."""
    value = read_field(path, record, field, *types)
    if value is None:
        raise ModelFileError(path, field, "none", "what a finished run writes there: run its recipe again")
    return value


def read_written(folder: str | Path, name: str, recipe: str, *fields: str) -> dict:
    """A JSON object that a recipe wrote beside its result.

    Args:
        folder, name: of the file.
        recipe: that wrote it.
        fields: that the file must have.

    Raises:
        `ValueError`: it is damaged, or lacks a field; says what to do.
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
