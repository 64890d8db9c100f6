"""Makes command-line arguments of the fields of a configuration, or of the settings of a feature extractor."""

import dataclasses
import types
import typing
from collections.abc import Callable, Collection

from action_llm_recipes.common.class_sources import class_fields, evaluate, field_descriptions, init_parameters


def config_arguments(module: str, config: str, name: str, without: Collection[str]) -> type:
    """
    Makes a dataclass of the fields that a configuration class declares. The source of the class is read, not imported.

    Args:
        module, config: of the configuration class.
        name: of the dataclass.
        without: fields to leave out.
    """
    fields, descriptions = [], field_descriptions(module, config)
    for field, declared in class_fields(module, config).items():
        if field not in without:
            annotation = evaluate(module, config, declared.annotation)
            default = evaluate(module, config, declared.value)
            if isinstance(default, dataclasses.Field):
                default = default.default_factory()
            fields.append(_described(argument(field, annotation, default), descriptions))
    arguments = dataclasses.make_dataclass(name, fields)
    arguments.__doc__ = f"Fields of `{config}`."
    return arguments


def extractor_arguments(module: str, extractor: str, name: str, special: Callable[[str], tuple | None]) -> type:
    """
    Makes a dataclass of the settings of a feature extractor. The source of the class is read, not imported.

    Args:
        module, extractor: of the feature extractor class.
        name: of the dataclass.
        special: name of a setting → its field, or None for a field with the annotation and default of the setting.
    """
    descriptions = field_descriptions(module, extractor)
    fields = [
        _described(
            special(setting)
            or argument(setting, evaluate(module, extractor, annotation), evaluate(module, extractor, default)),
            descriptions,
        )
        for setting, (annotation, default) in init_parameters(module, extractor).items()
    ]
    arguments = dataclasses.make_dataclass(name, fields)
    arguments.__doc__ = f"Settings of `{extractor}`."
    return arguments


def _described(argument: tuple, descriptions: dict[str, str]) -> tuple:
    """An argument with its description before its help text."""
    name, annotation, field = argument
    text = "; ".join(filter(None, (descriptions.get(name), field.metadata.get("help"))))
    field.metadata = types.MappingProxyType({**field.metadata, "help": text})
    return name, annotation, field


def argument(name: str, annotation, default):
    """A field for `dataclasses.make_dataclass`, of a type that the command line can read."""
    # The command line cannot tell integers from floats by their value.
    if typing.get_args(annotation) == (float, int):
        annotation, default = float, float(default)
    if isinstance(default, tuple | list):
        return (
            name,
            list[float] if isinstance(default, tuple) else annotation,
            dataclasses.field(default_factory=lambda: list(default)),
        )
    return name, annotation, dataclasses.field(default=default)
