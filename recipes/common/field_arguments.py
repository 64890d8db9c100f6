"""The fields of a configuration, or the settings of a feature extractor, as arguments of a command line."""

import dataclasses
import typing
from collections.abc import Callable, Collection

from action_llm_recipes.common.class_sources import class_fields, evaluate, init_parameters


def config_arguments(module: str, config: str, name: str, without: Collection[str]) -> type:
    """A dataclass `name` of the fields that a configuration class declares, which is read and not imported."""
    fields = []
    for field, declared in class_fields(module, config).items():
        if field not in without:
            annotation, default = (evaluate(module, config, one) for one in (declared.annotation, declared.value))
            if isinstance(default, dataclasses.Field):
                default = default.default_factory()
            fields.append(argument(field, annotation, default))
    made = dataclasses.make_dataclass(name, fields)
    made.__doc__ = f"Fields of `{config}`, which describes them."
    return made


def extractor_arguments(module: str, extractor: str, name: str, special: Callable[[str], tuple | None]) -> type:
    """A dataclass `name` of the settings of a feature extractor, which is read and not imported.

    Args:
        module, extractor: of the class.
        name: of the dataclass.
        special: makes another argument of the setting with a name, or None where there is nothing special about it.
    """
    fields = [
        special(setting) or argument(setting, *(evaluate(module, extractor, one) for one in declared))
        for setting, declared in init_parameters(module, extractor).items()
    ]
    made = dataclasses.make_dataclass(name, fields)
    made.__doc__ = f"Settings of `{extractor}`, which describes them."
    return made


def argument(name: str, annotation, default):
    """A field of a dataclass that the command line can read."""
    # The command line has no numbers that are either whole or not.
    if typing.get_args(annotation) == (float, int):
        annotation, default = float, float(default)
    if isinstance(default, tuple | list):
        return (
            name,
            list[float] if isinstance(default, tuple) else annotation,
            dataclasses.field(default_factory=lambda: list(default)),
        )
    return name, annotation, dataclasses.field(default=default)
