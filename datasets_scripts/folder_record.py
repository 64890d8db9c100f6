"""The record of the settings that made an output folder, so that a later run does not add files made with others."""

from pathlib import Path

from action_llm.model_files import ModelFileError, read_json_object


def read_record(path: Path, error: type[ValueError]) -> dict | None:
    """The JSON object that an earlier run left in a folder; None if there is none.

    Args:
        path: of the record.
        error: class of the error.

    Raises:
        error: if the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return read_json_object(path)
    except ModelFileError as damage:
        raise error(f"{damage}. The file records how the folder was made: choose another output folder") from damage


def check_record(path: Path, settings: dict, error: type[ValueError]) -> None:
    """Raises `error` if an earlier run made the folder of `path` with other settings, or if its record is damaged."""
    record = read_record(path, error)
    different = [] if record is None else [name for name in settings if record.get(name) != settings[name]]
    if different:
        expected, found = (
            ", ".join(f"{name} {values.get(name)!r}" for name in different) for values in (settings, record)
        )
        raise error(
            f"{path.parent} was made with other settings: expected {expected}, found {found}; choose another folder"
        )
