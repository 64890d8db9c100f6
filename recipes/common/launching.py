"""
The command line of a recipe: argument dataclasses become options.

A recipe ends with `launch(main, SomeArguments, DataArguments)`. An option has the value of the command line, else that of the
YAML file that `--config` names, else the default of its dataclass. Nothing heavy is imported before all of them are known to
be right, so `--help` and errors come at once.

What is wrong with a command ends it with one line, `recipe.py: error: …`, and the status 2; Ctrl-C with one line and 130
(`action_llm_datasets.endings`).
"""

import argparse
import dataclasses
import enum
import importlib
import inspect
import json
import logging
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from action_llm.model_files import as_written, shortened
from action_llm_datasets.endings import OWN_FOLDERS, ending_well
from action_llm_datasets.names import did_you_mean
from action_llm_datasets.progress import set_up_output
from action_llm_recipes.common.class_sources import inherited_fields

logger = logging.getLogger(__name__)

OWN_FOLDERS.add(Path(__file__).resolve().parents[1])


class LazyArguments:
    """Base of argument classes that extend a dataclass which is slow to import; it is imported when the first instance is made.

    ```python
    @dataclass
    class SmallLMConfig(LazyArguments, base="transformers.TrainingArguments"):
        learning_rate: float = 1.2e-2

    SmallLMConfig(max_steps=10)  # is a `TrainingArguments`, too
    ```
    """

    def __init_subclass__(cls, base: str | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if base is not None:
            cls._base = base

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls.whole())

    @classmethod
    @cache
    def whole(cls) -> type:
        """The dataclass with the fields of its base, too; its instances are what the constructor returns."""
        module, _, name = cls._base.rpartition(".")
        base = getattr(importlib.import_module(module), name)
        if issubclass(cls, base):
            return cls
        # `Trainer` pickles its arguments, by the name of their class.
        names = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Whole", "__doc__": cls.__doc__}
        cls.Whole = dataclasses.dataclass(type(cls.__name__, (cls, base), names))
        return cls.Whole

    @classmethod
    def inherited(cls) -> set[str]:
        """The names of the fields of the base."""
        module, _, name = cls._base.rpartition(".")
        try:
            return inherited_fields(module, name)
        except LookupError:  # another version of the library, in which no source says where the class is
            return {field.name for field in dataclasses.fields(cls.whole())}


def launch(main: Callable, *classes: type, resumes: bool = False):
    """Parses the command line, calls `main` with an instance of each argument class, and returns its result.

    Args:
        main: of the recipe.
        classes: of its arguments.
        resumes: whether the same command, run again, continues what was stopped.
    """
    # First: the libraries that arguments may import read these settings as they are imported.
    set_up_output()
    with ending_well(Path(sys.argv[0]).name, resumes):
        return main(*parse(classes, sys.argv[1:], inspect.unwrap(main).__globals__["__doc__"]))


def parse(classes: Collection[type], command_line: list[str], description: str | None = None) -> tuple:
    """An instance of each argument class. Where the command line is wrong, the program ends with an error that says why."""
    parser = Parser(description)
    command_line, dotted = take_dotted(classes, command_line)
    config, path = read_config(parser, command_line)
    lazy = [cls for cls in classes if issubclass(cls, LazyArguments)]
    if lazy:
        parser.add_argument("--help_all", action="help", help="show inherited options as well, and exit")
        parser.epilog = f"The options of {' and '.join(cls._base for cls in lazy)} can be set, too: see --help_all."
    config = renamed(classes, config)
    named = {word.partition("=")[0].removeprefix("--") for word in command_line if word.startswith("--")}
    named -= {"config", "help", "help_all"}
    known, own = option_names(classes), {field.name for cls in classes for field in dataclasses.fields(cls)}
    config = without_paired(classes, config, values_of(owners(classes), command_line), path)
    dotted |= {name: merged(config[name], dotted[name]) for name in dotted if isinstance(config.get(name), dict)}
    for where, names in (("", named), (f"{path}: ", config)):
        for name in sorted(set(names) - known, key=str):
            near = (
                did_you_mean(str(name), known)
                if where
                else did_you_mean(f"--{name}", [f"--{option}" for option in known])
            )
            parser.error(f"{where or '--'}{name}: no such option{near}")
    for cls in classes:
        add_options(parser, cls, config)
    if "--help_all" not in command_line:
        # What is light is made first: what is wrong with it shows before a base is imported.
        values = vars(parser.parse_known_args(command_line)[0]) | dotted
        made = {cls: make(parser, cls, values) for cls in classes if cls not in lazy}
    if "--help_all" in command_line or not own.issuperset({*named, *config}):
        for cls in lazy:
            add_options(parser, cls.whole(), config, without=own)
    values = vars(parser.parse_args(command_line)) | dotted
    return tuple(made[cls] if cls in made else make(parser, cls, values) for cls in classes)


def merged(options: dict, others: dict) -> dict:
    """Options of recipes, {"sft": {"learning_rate": 1e-3}}, with others that go before them."""
    both = {**options, **others}
    return {
        recipe: {**options[recipe], **given} if isinstance(options.get(recipe), dict) else given
        for recipe, given in both.items()
    }


def make(parser: "Parser", arguments: type, values: dict):
    """An instance of an argument class; ends the program where it refuses its values."""
    of_it = option_names([arguments])
    try:
        return arguments(**{name: value for name, value in values.items() if name in of_it})
    except OSError as error:
        # A value that is no path of this machine, as one that is too long: its option is not in the error.
        named = next(
            (name for name in of_it if error.filename is not None and values.get(name) == error.filename), None
        )
        message = str(error) if named is None else f"--{named}: {error.strerror}: {as_written(error.filename)}"
        parser.error(" ".join(message.split()))
    except (ValueError, OverflowError) as error:
        parser.error(" ".join(str(error).split()))


def owners(classes: Collection[type]) -> dict[str, str]:
    """Options that say something about the value of another: their name → its name (`belongs_to` in a field's metadata)."""
    return {
        field.name: field.metadata["belongs_to"]
        for cls in classes
        for field in dataclasses.fields(cls)
        if "belongs_to" in field.metadata
    }


def values_of(names: dict[str, str], command_line: list[str]) -> dict[str, str]:
    """What the command line says of the options that `owners` names."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in set(names.values()):
        reader.add_argument(f"--{name}", default=argparse.SUPPRESS)
    return vars(reader.parse_known_args(command_line)[0])


def without_paired(classes: Collection[type], config: dict, chosen: dict, where) -> dict:
    """
    The settings of a file without those that belong to a value which another replaces: a revision is a commit of the
    repository that the file names, and of no other.

    Args:
        classes: argument classes.
        config: what the file says.
        chosen: option → the value that goes before that of the file.
        where: the file, for the log.
    """
    dropped = [
        name
        for name, owner in owners(classes).items()
        if name in config and owner in config and chosen.get(owner, config[owner]) != config[owner]
    ]
    for name in dropped:
        owner = owners(classes)[name]
        logger.info("%s of %s is that of %s: not used with %s", name, where, config[owner], chosen[owner])
    return {name: value for name, value in config.items() if name not in dropped}


def from_settings(classes: Collection[type], settings: dict) -> tuple:
    """An instance of each argument class, by the names of fields.

    Raises:
        ValueError: a name that is no field's.
    """
    known = option_names(classes)
    for name in settings:
        if name not in known:
            raise ValueError(f"{name}: no such option{did_you_mean(name, known)}")
    names = [option_names([cls]) for cls in classes]
    return tuple(
        cls(**{name: value for name, value in settings.items() if name in names_of_it})
        for cls, names_of_it in zip(classes, names, strict=True)
    )


def renamed(classes: Collection[type], settings: dict) -> dict:
    """Settings that an older version wrote, under the names that the fields have now (`formerly` in a field's metadata)."""
    names = {
        field.metadata["formerly"]: field.name
        for cls in classes
        for field in dataclasses.fields(cls)
        if "formerly" in field.metadata
    }
    return {names.get(name, name): value for name, value in settings.items()}


def with_defaults(classes: Collection[type], settings: dict) -> dict:
    """Settings, and the defaults of the fields of argument classes that they leave out; imports the bases of the classes."""
    defaults = {}
    for cls in classes:
        for field in dataclasses.fields(cls.whole() if issubclass(cls, LazyArguments) else cls):
            if field.default is not dataclasses.MISSING:
                defaults[field.name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                defaults[field.name] = field.default_factory()
    return defaults | settings


def option_names(classes: Collection[type]) -> set[str]:
    """The names of the fields of argument classes, with those that they inherit."""
    names = {field.name for cls in classes for field in dataclasses.fields(cls)}
    return names.union(*(cls.inherited() for cls in classes if issubclass(cls, LazyArguments)))


def given(name: str, default: str) -> str:
    """The value of an option that decides which other options there are."""
    parser = Parser()
    config, _ = read_config(parser, sys.argv[1:])
    parser.add_argument(f"--{name}", default=config.get(name, default))
    return getattr(parser.parse_known_args([word for word in sys.argv[1:] if word not in ("-h", "--help")])[0], name)


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, and name the nearest option where there is none of a name."""

    def parse_args(self, args=None, namespace=None):
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"{name}: no such option{did_you_mean(name, options)}")
        return values

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}\n")


class Parser(CommandParser):
    """The `CommandParser` of a recipe."""

    def __init__(self, description: str | None = None):
        super().__init__(
            description=description,
            usage="%(prog)s [--config FILE] [options]",
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=40),
            allow_abbrev=False,
        )
        self.add_argument("--config", metavar="FILE", help="YAML of values for options; the command line goes first")


def read_config(parser: Parser, command_line: list[str]) -> tuple[dict, str | None]:
    """What the YAML file that `--config` names says, and its path; nothing and None without `--config`."""
    import yaml

    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--config")
    path = reader.parse_known_args(command_line)[0].config
    if path is None:
        return {}, None
    try:
        with open(path, encoding="utf-8") as file:
            config = yaml.safe_load(file)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        parser.error(f"--config {path}: {' '.join(str(error).split())}")
    config = {} if config is None else config
    if not isinstance(config, dict):
        parser.error(f"--config {path}: expected options and their values, got a {type(config).__name__}")
    return config, path


def add_options(parser: Parser, arguments: type, config: dict, without: Collection[str] = ()):
    """Adds an option for each field of a dataclass, `without` those of some names; `config` has defaults that go before
    those of the fields."""
    title = arguments.__doc__.strip().partition("\n")[0].rstrip(".")
    group = parser.add_argument_group(f"Inherited: {arguments._base}" if without else title)
    hints = typing.get_type_hints(arguments)
    for field in dataclasses.fields(arguments):
        if not field.init or field.name in without:
            continue
        if "dotted" in field.metadata:
            parser.epilog = " ".join(filter(None, [field.metadata["help"], parser.epilog]))
            continue
        reading, text = _reading(hints[field.name]), field.metadata.get("help", "")
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        required = default is dataclasses.MISSING and field.name not in config
        if default not in (dataclasses.MISSING, None, []) and "default" not in text:
            text += f" (default {_written(default)})" if text else f"default {_written(default)}"
        default = None if default is dataclasses.MISSING else default
        if field.name in config:
            may_be_none = field.default is None or types.NoneType in typing.get_args(hints[field.name])
            default = _from_yaml(parser, field.name, config[field.name], reading, may_be_none)
        group.add_argument(
            f"--{field.name}", default=default, required=required, help=text.replace("%", "%%"), **reading
        )


def _from_yaml(parser: Parser, name: str, value, reading: dict, may_be_none: bool):
    """The value of a YAML file, checked as that of the command line would be."""
    try:
        return read_value(value, reading, may_be_none)
    except ValueError as error:
        parser.error(f"{name}: {error}")


def read_value(value, reading: dict, may_be_none: bool):
    """
    The value of an option, checked as the command line would check its text.

    Args:
        value: as YAML or Python has it, or a text.
        reading: how argparse reads the option.
        may_be_none: whether None is a value.

    Raises:
        ValueError: it is not of the type of the option.
    """
    expected = reading.get("metavar", "another value").lower()
    if (value is None and not may_be_none) or (
        isinstance(value, dict) and reading.get("metavar") not in ("JSON", "TEXT")
    ):
        raise ValueError(f"expected {expected}, got {'null' if value is None else as_written(value)}")
    if value is None or isinstance(value, dict):
        return value
    is_list = reading.get("nargs") == "+"
    if isinstance(value, list) != is_list:
        raise ValueError(f"expected {'a list' if is_list else 'a single value'}, got {as_written(value)}")
    items, values = value if is_list else [value], []
    read = reading.get("type", str)
    for item in items:
        try:
            values.append(read(_written(item)))
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"expected {expected}, got {as_written(item)} ({shortened(str(error))})") from error
        if "choices" in reading and values[-1] not in reading["choices"]:
            raise ValueError(f"expected one of {', '.join(map(str, reading['choices']))}, got {as_written(item)}")
    return values if is_list else values[0]


def typed(classes: Collection[type], options: dict, prefix: str = "--") -> dict:
    """
    Options by name, each with the type of its field.

    Args:
        classes: argument classes.
        options: name → value: a text, or a list of texts, as they stand on a command line; or of the type of the field.
        prefix: of the names, in errors.

    Raises:
        ValueError: a name that is no field's, or a value of another type.
    """
    known, read = option_names(classes), {}
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"{prefix}{name}: no such option{did_you_mean(name, known)}")
        owner = next(cls for cls in classes if name in option_names([cls]))
        if name not in {field.name for field in dataclasses.fields(owner)}:
            owner = owner.whole()
        (field,) = (field for field in dataclasses.fields(owner) if field.name == name)
        hint = typing.get_type_hints(owner)[name]
        reading, may_be_none = _reading(hint), field.default is None or types.NoneType in typing.get_args(hint)
        if may_be_none and value in ("none", "null"):
            value = None
        if reading.get("nargs") == "+" and isinstance(value, str):
            value = [value]
        try:
            read[name] = read_value(value, reading, may_be_none)
        except ValueError as error:
            raise ValueError(f"{prefix}{name}: {error}.") from error
    return read


def take_dotted(classes: Collection[type], command_line: list[str]) -> tuple[list[str], dict]:
    """
    The options of other recipes that a command line holds: `--sft.learning_rate 1e-3`.

    Args:
        classes: argument classes; a field with "dotted" in its metadata takes such options.
        command_line: words.

    Returns:
        The other words; and field → {"sft": {"learning_rate": "1e-3"}}, with a list where an option has several words, and
        "true" where it has none. Without such a field, all words and nothing.
    """
    fields = [field.name for cls in classes for field in dataclasses.fields(cls) if "dotted" in field.metadata]
    if not fields:
        return command_line, {}
    others, options, words = [], {}, None
    for word in command_line:
        if match := re.fullmatch(r"--([a-z]\w*)\.([a-z]\w*)(?:=(.*))?", word, re.DOTALL):
            recipe, name, value = match.groups()
            words = options.setdefault(recipe, {})[name] = [] if value is None else [value]
        elif words is None or word.startswith("--"):
            words = None
            others.append(word)
        else:
            words.append(word)
    for given in options.values():
        for name, words in given.items():
            given[name] = "true" if not words else words[0] if len(words) == 1 else words
    return others, {fields[0]: options}


def _reading(hint) -> dict:
    """How argparse reads a value of a type."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [kind for kind in kinds if kind is not types.NoneType]
    if str in kinds:  # whatever else it may be, the dataclass reads it from a text
        return {"metavar": "TEXT"}
    kind, inner = kinds[0], typing.get_args(kinds[0])
    if kind is bool:
        return {"type": _truth, "nargs": "?", "const": True, "metavar": "true|false"}
    if typing.get_origin(kind) is list:
        return {**_reading(inner[0]), "nargs": "+"}
    if typing.get_origin(kind) is typing.Literal:
        return {"choices": inner, "type": lambda text: {str(choice): choice for choice in inner}.get(text, text)}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"choices": [member.value for member in kind]}
    if dict in (kind, typing.get_origin(kind)):
        return {"type": json.loads, "metavar": "JSON"}
    if kind is float:
        return {"type": _finite, "metavar": "NUMBER"}
    return {"type": kind, "metavar": "INTEGER" if kind is int else "TEXT"}


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {as_written(text)}")
    return number


def _written(value) -> str:
    """A value as the command line reads it."""
    if isinstance(value, list | tuple):
        return " ".join(map(_written, value))
    return str(value).lower() if isinstance(value, bool) else str(getattr(value, "value", value))


def _truth(text: str) -> bool:
    values = dict.fromkeys(("true", "yes", "t", "y", "1"), True) | dict.fromkeys(("false", "no", "f", "n", "0"), False)
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected true or false, got {as_written(text)}")
    return values[text.lower()]
