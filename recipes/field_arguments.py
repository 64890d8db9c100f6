"""The fields of a configuration, or the settings of a feature extractor, as arguments of a command line."""

import dataclasses
import inspect
from collections.abc import Collection


def config_arguments(config_class, name: str, without: Collection[str]) -> type:
    """A dataclass `name` of those fields that a configuration class has beyond those of transformers."""
    inherited = {field.name for field in dataclasses.fields(config_class.__mro__[1])}
    fields = [
        argument(field.name, field.type, _default(field))
        for field in dataclasses.fields(config_class)
        if field.name not in inherited and field.name not in without
    ]
    made = dataclasses.make_dataclass(name, fields)
    made.__doc__ = f"Fields of `{config_class.__name__}`, which describes them."
    return made


def extractor_arguments(extractor_class, name: str, special) -> type:
    """A dataclass `name` of the settings of a feature extractor; `special(parameter)` may make another argument of one."""
    parameters = [
        parameter
        for parameter in inspect.signature(extractor_class).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    made = dataclasses.make_dataclass(
        name, [special(one) or argument(one.name, one.annotation, one.default) for one in parameters]
    )
    made.__doc__ = f"Settings of `{extractor_class.__name__}`, which describes them."
    return made


def _default(field: dataclasses.Field):
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def argument(name: str, annotation, default):
    """A field of a dataclass that the command line can read."""
    # The command line has no numbers that are either whole or not.
    if annotation in (float | int, "float | int"):
        annotation, default = float, float(default)
    if isinstance(default, tuple | list):
        return (
            name,
            list[float] if isinstance(default, tuple) else annotation,
            dataclasses.field(default_factory=lambda: list(default), metadata={"help": f"default {list(default)}"}),
        )
    return name, annotation, dataclasses.field(default=default, metadata={"help": f"default {default!r}"})


def chosen(name: str, command_line: list[str], choices: Collection[str], default: str) -> str:
    """The value of an argument that decides which other arguments there are: on the command line, or in the YAML.

    Raises:
        ValueError: it is none of `choices`.
    """
    import argparse

    import yaml

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}")
    parser.add_argument("--config")
    found, _ = parser.parse_known_args(command_line)
    value = getattr(found, name)
    if value is None and found.config is not None:
        with open(found.config, encoding="utf-8") as file:
            value = (yaml.safe_load(file) or {}).get(name)
    value = default if value is None else value
    if value not in choices:
        raise ValueError(f"--{name}: expected one of {', '.join(choices)}, found {value!r}")
    return value
