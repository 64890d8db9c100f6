"""Loads text tokenizers from the files of a model folder; errors name the file and the field."""

import os
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .checked_settings import SettingError, checked, one_of
from .extractor_files import check_class_references, model_file
from .model_files import HUB_ARGUMENTS, JSON_TYPES, ModelFileError, as_written, read_json_object, shortened

CONFIG_FILE, TOKENIZER_FILE = "tokenizer_config.json", "tokenizer.json"
# Files of older tokenizers, which contain an object each.
_OLDER_FILES = ("special_tokens_map.json", "added_tokens.json", "chat_template.json")
# Fields of `CONFIG_FILE` and the types of their values. All may be null or missing. The tokenizer checks its other fields.
_FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"), (str, dict)
    ),
    "tokenizer_class": (str,),
    "added_tokens_decoder": (dict,),
    "additional_special_tokens": (list, dict),
    "extra_special_tokens": (list, dict),
    "chat_template": (str, list, dict),
    "name_or_path": (str,),
}


def load_tokenizer(
    name_or_path: str | os.PathLike, *, trust_remote_code: bool = False, **kwargs
) -> PreTrainedTokenizerBase:
    """Like `AutoTokenizer.from_pretrained`, but never asks in the terminal whether to run code of the repository.

    Args:
        name_or_path: Folder, or repository on the Hub.
        trust_remote_code: Whether a tokenizer that is not part of transformers may be loaded with the repository's code.
        **kwargs: Arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        ModelFileError: If a file lacks something that the tokenizer needs, or the tokenizer needs code that is not trusted.
        OSError: If there is no tokenizer.
        ImportError: If the tokenizer needs a package that is not installed.
    """
    hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
    path = model_file(name_or_path, CONFIG_FILE, hub)
    if path is not None:
        _check_config(path, read_json_object(path))
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code, **kwargs)
        tokenizer("a", padding=False)  # some faults show only when a text is tokenized
    except (OSError, ImportError, ModelFileError):
        raise
    except BaseException as error:
        # The library tokenizers may raise a PanicException, which is not an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _fault(name_or_path, hub, error) from error
    return tokenizer


def _check_config(path: str, config: dict[str, Any]) -> None:
    """Raises `ModelFileError` for a field of the wrong type."""
    try:
        for field, types in _FIELDS.items():
            if not isinstance(config.get(field), (*types, type(None))):
                expected = " or ".join(JSON_TYPES[json_type] for json_type in types)
                raise SettingError(field, expected, as_written(config[field]))
        for field in ("padding_side", "truncation_side"):
            if config.get(field) is not None:
                one_of(field, config[field], ("left", "right"))
        if config.get("model_max_length") is not None:
            checked("model_max_length", config["model_max_length"], float, 1)
        if isinstance(config.get("auto_map"), list):  # older tokenizers list only the classes of AutoTokenizer
            config = config | {"auto_map": {"AutoTokenizer": config["auto_map"]}}
        check_class_references(config)
    except SettingError as error:
        raise ModelFileError(path, error.setting, error.actual, error.expected) from error


def _fault(name_or_path: str | os.PathLike, hub: dict[str, Any], error: BaseException) -> ModelFileError:
    """The error of the file that made a tokenizer fail, as far as it can be determined."""
    reason = shortened(f"{type(error).__name__}: {error}", 400)
    try:
        for name in _OLDER_FILES:
            if (path := model_file(name_or_path, name, hub)) is not None:
                read_json_object(path)
        path = model_file(name_or_path, TOKENIZER_FILE, hub)
        if path is not None:
            read_json_object(path)
    except ModelFileError as fault:
        return fault
    if path is not None:
        try:
            Tokenizer.from_file(path)
        except BaseException as fault:
            if isinstance(fault, KeyboardInterrupt | SystemExit):
                raise
            return ModelFileError(path, None, str(fault), "a tokenizer of the library tokenizers")
    path = model_file(name_or_path, CONFIG_FILE, hub) or os.fspath(name_or_path)
    if "trust_remote_code" in str(error):
        actual = (
            "one that needs code of its repository: read the code, and if you trust it, pass trust_remote_code=True"
        )
        return ModelFileError(path, None, actual, "a tokenizer of transformers")
    return ModelFileError(path, None, reason, "valid settings of a tokenizer")


__all__ = ["load_tokenizer"]
