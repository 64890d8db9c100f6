"""Checks of configurations: no model is built from impossible values, and the error names the field.

transformers checks the types of the fields that a configuration class declares. This file adds the rest: the fields that all
configurations share, unknown names, ranges, and numbers so large that reading the configuration would take hours or gigabytes.
"""

import difflib
import math
import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from huggingface_hub.dataclasses import strict as _strict
from huggingface_hub.errors import StrictDataclassFieldValidationError

from .compatibility import CompositeConfig, PreTrainedConfig, build_sub_config
from .model_files import ModelFileError, as_written, shortened

# Names that transformers itself passes to a configuration or writes into config.json when it saves, trains and registers. Every
# other name that is not a field is a mistake of the caller.
TRANSFORMERS_KEYS = frozenset(
    {
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "custom_pipelines",
        "eos_token_id",
        "experts_implementation",
        "model_type",
        "name_or_path",
        "num_labels",
        "output_attentions",
        "pad_token_id",
        "per_layer_config",
        "quantization_config",
        "torch_dtype",
        "use_cache",
    }
)

# Configurations are nested at most this deep; each level costs several frames of Python's stack.
MAX_LEVELS = 16
# Upper bounds of counts, by the last word of the field's name: each part becomes a module or an entry of a list.
MAX_PARTS = {
    "layer": 512,
    "layers": 512,
    "depth": 512,
    "depths": 512,
    "blocks": 512,
    "stages": 512,
    "downsamplings": 16,
    "codebooks": 62,
    "experts": 4096,
    "heads": 4096,
    "roles": 4096,
}
MAX_LABELS = 1_000_000
MAX_WORDS = 2**22  # rows of an embedding table; the largest in use have 2**18


class ConfigError(ValueError):
    """A configuration from which no model can be built.

    Attributes:
        field (str | None): Path of the field (`action_config.num_frames`); None if several fields contradict each other.
        actual, expected (str): The actual value, and what was expected.
    """

    def __init__(self, field: str | None, actual: str, expected: str, message: str | None = None):
        self.field, self.actual, self.expected = field, actual, expected
        place = "" if field is None else f"`{field}`: "
        super().__init__(message or f"{place}expected {expected}, got {actual}.")

    def __reduce__(self):  # errors are sent between processes
        return type(self), (self.field, self.actual, self.expected, str(self))

    def within(self, field: str) -> "ConfigError":
        """The same error for the enclosing configuration, which holds this one in `field`."""
        path = field if self.field is None else f"{field}.{self.field}"
        return ConfigError(path, self.actual, self.expected, f"{field}: {self}")

    def in_file(self, folder: str | os.PathLike, subfolder: str = "") -> ModelFileError:
        """The same error as one of the `config.json` in a model folder."""
        path = os.path.join(os.fspath(folder), subfolder or "", "config.json")
        return ModelFileError(path, self.field, self.actual, self.expected)


@contextmanager
def config_errors(field: str | None, expected: str = "a configuration of a model"):
    """Turns exceptions into a `ConfigError` of `field`: for values that it does not check, transformers raises `TypeError` and
    others, deep in its code."""
    try:
        yield
    except ConfigError as error:
        if field is None:
            raise
        raise error.within(field) from error
    except (ModelFileError, ImportError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        inner = _as_config_error(error, expected)
        raise inner if field is None else inner.within(field) from error


def _as_config_error(error: Exception, expected: str) -> ConfigError:
    """Parses the message of a check, of transformers or of this project, into field, actual and expected value."""
    if isinstance(error, StrictDataclassFieldValidationError):
        field, message = re.search(r"field '(\w+)'", str(error)), str(error.__cause__)
        for parts in (
            re.search(
                r"with value (?P<actual>.*?) doesn't match any type in \((?P<expected>.*?)\)\.", message, re.DOTALL
            ),
            re.search(r"expected (?P<expected>.*?), got \w+ \(value: (?P<actual>.*)\)", message, re.DOTALL),
        ):
            if parts:
                expected = re.sub(r"<class '(.*?)'>", r"\1", parts["expected"]).replace(", ", " | ")
                return ConfigError(field and field[1], shortened(parts["actual"]), expected, message)
        return ConfigError(field and field[1], shortened(message), "another type", message)
    cause = error
    if type(error).__name__.startswith("StrictDataclass") and error.__cause__ is not None:
        cause = error.__cause__
    message = str(cause) if isinstance(cause, ValueError) else f"{type(cause).__name__}: {cause}"
    parts = re.fullmatch(r"`?(\w+)`? must (?:be )?(.*?),? got (.*?)\.?", message, re.DOTALL)
    if parts:
        return ConfigError(parts[1], shortened(parts[3]), parts[2].replace("not be ", "not "), message)
    return ConfigError(None, shortened(message), expected, message)


def strict(cls: type) -> type:
    """`huggingface_hub`'s decorator of the same name, which also runs `check_values` and raises `ConfigError`."""
    cls = _strict(cls)
    init, set_field, validate = cls.__init__, cls.__setattr__, cls.validate

    def __init__(self, *args, **kwargs):
        with config_errors(None):
            check_values(kwargs)
            init(self, *args, **kwargs)

    def __setattr__(self, name, value):
        try:
            set_field(self, name, value)
        except StrictDataclassFieldValidationError as error:
            expected = _type_name(cls.__dataclass_fields__[name].type)
            raise ConfigError(
                name, as_written(value), expected, f"`{name}` must be {expected}, got {as_written(value)}."
            ) from error

    def checked(self):
        with config_errors(None):
            validate(self)

    for name, method in (("__init__", __init__), ("__setattr__", __setattr__)):
        method.__doc__ = getattr(cls, name).__doc__
        setattr(cls, name, method)
    checked.__is_defined_by_strict_decorator__ = True  # so that a subclass can be strict, too
    cls.validate = checked
    return cls


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    name = annotation.__name__ if type(annotation) is type else str(annotation)
    name = name.replace("typing.", "").replace("transformers.configuration_utils.", "")
    return re.sub(r"Literal\[(.*?)\]", r"one of \1", name)


class CheckedConfig(CompositeConfig):
    """Base of this project's configurations. It refuses unknown names, and its errors name the field and the file.

    Subclasses check ranges in `validate_…` methods, with the `check_…` methods of this class. Those raise `ValueError` for the
    first of the named fields that is out of range.
    """

    # Fields of older versions and the only value that is still supported: it is accepted, and not written again.
    removed_fields = {}
    # Names of fields in older versions → their names now; they are read, and not written again.
    renamed_fields = {}

    def __post_init__(self, **kwargs):
        for former, name in self.renamed_fields.items():
            if former in kwargs:
                setattr(self, name, kwargs.pop(former))
        for name, value in self.removed_fields.items():
            if (stored := kwargs.pop(name, value)) != value:
                raise ConfigError(name, as_written(stored), f"{value}, as other values are no longer supported")
        reject_unknown_fields(type(self), kwargs)
        for name, spec in self.sub_configs_defaults.items():
            value = getattr(self, name)
            if not isinstance(value, PreTrainedConfig):
                with config_errors(name):
                    setattr(self, name, build_sub_config(spec, name, value))
        super().__post_init__(**kwargs)

    def check_sizes(self, *names: str) -> None:
        """Sizes must be at least 1."""
        self._check(names, "must be at least 1", lambda value: value >= 1)

    def check_positive(self, *names: str) -> None:
        """Divisors, temperatures and the like must be positive and finite."""
        self._check(names, "must be a positive number", lambda value: 0 < value < math.inf)

    def check_not_negative(self, *names: str) -> None:
        """Weights and distances must be finite and not negative."""
        self._check(names, "must not be negative", lambda value: 0 <= value < math.inf)

    def check_fractions(self, *names: str) -> None:
        """Fractions must be at least 0 and below 1."""
        self._check(names, "must be at least 0 and below 1", lambda value: 0 <= value < 1)

    def _check(self, names: tuple[str, ...], rule: str, is_right: Callable[[float], bool]) -> None:
        for name in names:
            if not is_right(value := getattr(self, name)):
                raise ValueError(f"`{name}` {rule}, got {value}.")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        try:
            return super().from_dict(config_dict, **kwargs)
        except ConfigError as error:
            if (folder := kwargs.get("name_or_path")) is None:  # AutoConfig passes where it read the dictionary
                raise
            raise error.in_file(folder) from error

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        try:
            with config_errors(None, "a JSON object with the fields of a configuration"):
                return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except ConfigError as error:
            raise error.in_file(pretrained_model_name_or_path, kwargs.get("subfolder")) from error


def reject_unknown_fields(config_class: type[PreTrainedConfig], kwargs: dict[str, Any]) -> None:
    """
    Refuses names that are not fields of a configuration; transformers would silently store them.

    Args:
        config_class (`type`): The configuration class.
        kwargs (`dict[str, Any]`): The arguments of its `__post_init__`, which are all those that are not fields.

    Raises:
        ConfigError: if a name is unknown; the message suggests the most similar field.
    """
    known = [field.name for field in fields(config_class)]
    unknown = []
    for name in kwargs:
        if name in TRANSFORMERS_KEYS or name.startswith("_"):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        unknown.append(f"`{name}`" + (f" (did you mean `{close[0]}`?)" if close else ""))
    if unknown:
        unknown = [shortened(name) for name in unknown[:5]]
        message = f"{config_class.__name__} has no field {', '.join(unknown)}."
        raise ConfigError(None, message, f"the fields of {config_class.__name__}", message)


def check_attention(implementation: Any, field: str = "attn_implementation") -> None:
    """
    Raises `ConfigError` if `implementation` is not the name of an attention implementation. A name with a slash is a
    repository on the Hub, whose code would be downloaded and run; `set_attn_implementation` of a loaded model accepts it.
    """
    names = implementation.values() if isinstance(implementation, dict) else [implementation]
    for name in names:
        if not (name is None or isinstance(name, str)):
            raise ConfigError(field, as_written(name), "the name of an attention implementation")
        if name is not None and "/" in name:
            raise ConfigError(
                field,
                as_written(name),
                "an attention implementation of transformers, not code from the Hub; if you trust it, call "
                "model.set_attn_implementation(...) on the loaded model",
            )


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_dtype(value: Any) -> bool:
    value = getattr(torch, value, None) if isinstance(value, str) and value != "auto" else value
    return value in (None, "auto", torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _is_ids(value: Any) -> bool:
    ids = value if isinstance(value, list) else [value]
    return all(token is None or (isinstance(token, int) and not isinstance(token, bool)) for token in ids)


def _is_id2label(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        return False
    return sorted(map(str, value)) == sorted(map(str, range(len(value))))


def _is_class_references(value: Any) -> bool:
    references = value.values() if isinstance(value, dict) else [value]
    return isinstance(value, dict) and all(
        isinstance(part, str | None)
        for entry in references
        for part in (entry if isinstance(entry, list) else [entry])
    )


def _is_a(*types: type):
    return lambda value: value is None or isinstance(value, types)


# Fields that every configuration has and transformers does not check: the check, and the expected value in words.
SHARED_FIELDS = {
    "architectures": (
        lambda value: value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value)),
        "a list of class names",
    ),
    "auto_map": (_is_class_references, "an object of references to classes"),
    "bos_token_id": (_is_ids, "the id of a token"),
    "chunk_size_feed_forward": (lambda value: _is_count(value, 2**31), "a number of positions"),
    "custom_pipelines": (_is_a(dict), "an object"),
    "dtype": (_is_dtype, "the name of a floating-point dtype of torch"),
    "eos_token_id": (_is_ids, "the id of a token, or a list of them"),
    "id2label": (lambda value: value is None or _is_id2label(value), "an object with the names of classes 0, 1, 2, …"),
    "is_encoder_decoder": (_is_a(bool), "true or false"),
    "label2id": (
        lambda value: (
            value is None
            or (isinstance(value, dict) and all(_is_ids(label) or str(label).isdecimal() for label in value.values()))
        ),
        "an object of class indices, by name",
    ),
    "model_type": (_is_a(str), "the name of a model type"),
    "name_or_path": (_is_a(str, os.PathLike), "a string"),
    "num_labels": (lambda value: value is None or _is_count(value, MAX_LABELS), f"a number up to {MAX_LABELS}"),
    "output_attentions": (_is_a(bool), "true or false"),
    "output_hidden_states": (_is_a(bool), "true or false"),
    "pad_token_id": (_is_ids, "the id of a token"),
    "return_dict": (_is_a(bool), "true or false"),
    "torch_dtype": (_is_dtype, "the name of a floating-point dtype of torch"),
    "transformers_version": (_is_a(str), "a string"),
    "use_cache": (_is_a(bool), "true or false"),
    "vocab_size": (lambda value: value is None or _is_count(value, MAX_WORDS), f"a number up to {MAX_WORDS}"),
}
SHARED_FIELDS["_name_or_path"] = SHARED_FIELDS["name_or_path"]


def check_values(values: dict[str, Any], place: str = "") -> None:
    """
    Checks the values from which a configuration and its nested configurations are built.

    Args:
        values (`dict[str, Any]`): Values by field, as in config.json.
        place (`str`): Prefix of the field names in errors.

    Raises:
        ConfigError: for the first field with an impossible value.
    """
    for name, value in values.items():
        field = f"{place}{name}"
        if name in SHARED_FIELDS:
            is_right, expected = SHARED_FIELDS[name]
            if not is_right(value):
                raise ConfigError(field, as_written(value), expected)
            if name == "custom_pipelines":
                _check_value(name, value, field)
        elif name in ("attn_implementation", "_attn_implementation", "experts_implementation"):
            check_attention(value, field)
        else:
            _check_value(str(name), value, field)


def _check_value(name: str, value: Any, field: str, level: int = 0) -> None:
    if field.count(".") + level > MAX_LEVELS:
        raise ConfigError(field.split(".")[0], "more", f"at most {MAX_LEVELS} nested levels")
    if isinstance(value, dict):
        check_values(value, f"{field}.")
    elif isinstance(value, list | tuple):
        for entry in value:
            _check_value(name, entry, field, level + 1)
        if name.endswith("depths") and all(isinstance(entry, int) for entry in value):
            _check_parts(name, sum(value), field)
    elif isinstance(value, float) and math.isnan(value):
        raise ConfigError(field, "NaN", "a number")
    elif isinstance(value, int) and not isinstance(value, bool):
        _check_parts(name, value, field)
    if isinstance(value, int | float) and name == "rope_theta" and not value > 0:
        raise ConfigError(field, repr(value), "a positive number")
    if isinstance(value, int | float) and name.endswith("_eps") and value < 0:
        raise ConfigError(field, repr(value), "a number that is not negative")


def _check_parts(name: str, number: int, field: str) -> None:
    most = MAX_PARTS.get(name.rpartition("_")[2])
    if most is not None and number > most:
        raise ConfigError(field, as_written(number), f"at most {most}")


__all__ = [
    "CheckedConfig",
    "ConfigError",
    "check_attention",
    "check_values",
    "config_errors",
    "reject_unknown_fields",
    "strict",
]
