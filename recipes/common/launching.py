"""
The command line of a recipe: the fields of argument dataclasses become options.

A recipe ends with `launch(main, SomeArguments, DataArguments)`. The value of an option comes from the command line, else from
the YAML file of `--config`, else from the default of its field. Options are checked before anything slow is imported, so
`--help` and errors show at once.

A wrong command ends with a line `recipe.py: error: …` and exit status 2. Ctrl-C ends a recipe with a single line and exit
status 130 (`action_llm_datasets.endings`).
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

from action_llm.model_files import as_written
from action_llm_datasets.endings import OWN_FOLDERS, ending_well
from action_llm_datasets.names import did_you_mean
from action_llm_datasets.progress import set_up_output
from action_llm_recipes.common.class_sources import inherited_fields

logger = logging.getLogger(__name__)

OWN_FOLDERS.add(Path(__file__).resolve().parents[1])

# Metavar of an option → its values, in errors.
EXPECTED = {
    "true|false": "true or false",
    "JSON": "JSON",
    "NUMBER": "a number",
    "INTEGER": "an integer",
    "TEXT": "text",
}

# Settings that do not change the result: a run can be resumed with different values.
HARMLESS = {
    "cache_dir",
    "data_dir",
    "dataloader_num_workers",
    "disable_tqdm",
    "logging_steps",
    # baselines/run_baselines.py keeps the results of methods that it has run, and adds those of others.
    "methods",
    "num_proc",
    "output_dir",
    "pose_dir",
    "report_to",
    "resamples",
    # Only the path: the fingerprint of the recordings is of the joined classes.
    "same_classes",
    "save_minutes",
    "save_steps",
    "save_total_limit",
    "seeds",
    "total_batch_size",
}


class LazyArguments:
    """
    Base of argument classes that extend a dataclass which is slow to import. That dataclass is imported when the first instance
    is created.

    ```python
    @dataclass
    class SmallLMConfig(LazyArguments, base="transformers.TrainingArguments"):
        learning_rate: float = 1.2e-2

    SmallLMConfig(max_steps=10)  # is an instance of `TrainingArguments`
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
        """The dataclass that also has the fields of its base; the constructor returns instances of it."""
        module, _, name = cls._base.rpartition(".")
        base = getattr(importlib.import_module(module), name)
        if issubclass(cls, base):
            return cls
        # `Trainer` pickles its arguments, with the name of their class.
        names = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Whole", "__doc__": cls.__doc__}
        cls.Whole = dataclasses.dataclass(type(cls.__name__, (cls, base), names))
        return cls.Whole

    @classmethod
    def inherited(cls) -> set[str]:
        """The names of the fields of the base."""
        module, _, name = cls._base.rpartition(".")
        try:
            return inherited_fields(module, name)
        except LookupError:  # in another version of the library, the source may be elsewhere
            return {field.name for field in dataclasses.fields(cls.whole())}


def launch_command(main: Callable):
    """Calls the `main` of a command that parses its own command line, with the output and endings of `launch`."""
    set_up_output()
    with ending_well(Path(sys.argv[0]).name):
        return main()


def launch(main: Callable, *classes: type, resumes: bool = False, messages: typing.TextIO | None = None):
    """
    Parses the command line, calls `main` with an instance of each argument class, and returns its result.

    Args:
        main: function of the recipe.
        *classes: argument classes of the recipe, in the order of the parameters of `main`.
        resumes: whether the same command resumes a run that was stopped.
        messages: where log lines go; by default the standard output.
    """
    # First, because libraries read these settings when they are imported.
    set_up_output(messages)
    with ending_well(Path(sys.argv[0]).name, resumes):
        return main(*parse(classes, sys.argv[1:], inspect.unwrap(main).__globals__["__doc__"]))


def parse(classes: Collection[type], command_line: list[str], description: str | None = None) -> tuple:
    """
    Parses a command line.

    Args:
        classes: argument classes.
        command_line: words after the name of the program.
        description: for `--help`.

    Returns:
        An instance of each argument class.

    Raises:
        SystemExit: if the command line or the file of `--config` is wrong, after printing why; and after `--help`.
    """
    parser = Parser(description)
    command_line, dotted = take_dotted(classes, command_line)
    config, path = read_config(parser, command_line)
    lazy = [cls for cls in classes if issubclass(cls, LazyArguments)]
    if lazy:
        parser.add_argument("--help_all", action="help", help="show inherited options as well, and exit")
        parser.epilog = f"Options of {' and '.join(cls._base for cls in lazy)} can be set as well: see --help_all."
    try:
        config = renamed(classes, config)
    except ValueError as error:
        parser.error(f"{path}: {error}")
    named = {word.partition("=")[0].removeprefix("--") for word in command_line if word.startswith("--")}
    named -= {"config", "help", "help_all"}
    known, own = option_names(classes), {field.name for cls in classes for field in dataclasses.fields(cls)}
    config = without_paired(classes, config, values_of(owners(classes), command_line), path)
    for name in dotted:
        if not isinstance(config.get(name), dict | None):
            parser.error(f"{path}: {name}: expected settings of recipes, got {as_written(config[name])}")
    dotted |= {name: merged(config[name], dotted[name]) for name in dotted if isinstance(config.get(name), dict)}
    for where, names in (("", named), (f"{path}: ", config)):
        for name in sorted(set(names) - known, key=str):
            near = hint_for(str(name), classes, "" if where else "--")
            parser.error(f"{where or '--'}{name}: no such option{near}")
    for cls in classes:
        add_options(parser, cls, config)
    if "--help_all" not in command_line:
        # Errors in these show before the slow bases of the others are imported.
        values = vars(parser.parse_known_args(command_line)[0]) | dotted
        instances = {cls: make(parser, cls, values) for cls in classes if cls not in lazy}
    if "--help_all" in command_line or not own.issuperset({*named, *config}):
        for cls in lazy:
            add_options(parser, cls.whole(), config, without=own)
    values = vars(parser.parse_args(command_line)) | dotted
    return tuple(instances[cls] if cls in instances else make(parser, cls, values) for cls in classes)


def merged(options: dict, others: dict) -> dict:
    """Merges options of recipes, such as {"sft": {"learning_rate": 1e-3}}, with others that take precedence."""
    both = {**options, **others}
    return {
        recipe: {**options[recipe], **given} if isinstance(options.get(recipe), dict) else given
        for recipe, given in both.items()
    }


def make(parser: "Parser", arguments: type, values: dict):
    """An instance of an argument class; ends the program with an error if the class refuses the values."""
    names = option_names([arguments])
    try:
        return arguments(**{name: value for name, value in values.items() if name in names})
    except OSError as error:
        # The system refused a path, perhaps because it is too long. Its message does not name the option.
        option = next(
            (name for name in names if error.filename is not None and values.get(name) == error.filename), None
        )
        message = str(error) if option is None else f"--{option}: {error.strerror}: {as_written(error.filename)}"
        parser.error(" ".join(message.split()))
    except (ValueError, OverflowError) as error:
        parser.error(" ".join(str(error).split()))


def owners(classes: Collection[type]) -> dict[str, str]:
    """Options that describe the value of another option, such as a revision: name → name of the other (`belongs_to` in the
    metadata of a field)."""
    return {
        field.name: field.metadata["belongs_to"]
        for cls in classes
        for field in dataclasses.fields(cls)
        if "belongs_to" in field.metadata
    }


def values_of(names: dict[str, str], command_line: list[str]) -> dict[str, str]:
    """The values on a command line of the options that `owners` names."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in set(names.values()):
        reader.add_argument(f"--{name}", default=argparse.SUPPRESS)
    return vars(reader.parse_known_args(command_line)[0])


def without_paired(classes: Collection[type], config: dict, chosen: dict, where) -> dict:
    """
    Drops settings of a file that belong to a value which is replaced. A revision, for example, is a commit of the repository in
    the file, so it is dropped if the command line names another repository.

    Args:
        classes: argument classes.
        config: settings of the file.
        chosen: option → value that takes precedence over the file.
        where: path of the file, for the log.

    Returns:
        The settings to use.
    """
    dropped = [
        name
        for name, owner in owners(classes).items()
        if name in config and owner in config and chosen.get(owner, config[owner]) != config[owner]
    ]
    for name in dropped:
        owner = owners(classes)[name]
        logger.info("%s in %s belongs to %s and is not used with %s", name, where, config[owner], chosen[owner])
    return {name: value for name, value in config.items() if name not in dropped}


def from_settings(classes: Collection[type], settings: dict) -> tuple:
    """
    An instance of each argument class.

    Args:
        classes: argument classes.
        settings: name of a field → value.

    Raises:
        ValueError: if no class has a field of that name, or a class refuses a value.
    """
    known = option_names(classes)
    for name in settings:
        if name not in known:
            raise ValueError(f"{name}: no such option{hint_for(name, classes)}")
    return tuple(
        cls(**{name: value for name, value in settings.items() if name in names})
        for cls, names in ((cls, option_names([cls])) for cls in classes)
    )


def former_names(classes: Collection[type]) -> dict[str, str]:
    """Names of fields in older versions → their names now (`formerly` in the metadata of a field)."""
    return {
        field.metadata["formerly"]: field.name
        for cls in classes
        for field in dataclasses.fields(cls)
        if "formerly" in field.metadata
    }


def renamed(classes: Collection[type], settings: dict) -> dict:
    """
    Settings that an older version wrote, under the current names of their fields.

    Raises:
        ValueError: if a field has a value under both names.
    """
    names = former_names(classes)
    for former in names.keys() & settings.keys():
        if names[former] in settings:
            raise ValueError(f"{former} is the former name of {names[former]}: set only one of them.")
    return {names.get(name, name): value for name, value in settings.items()}


def hint_for(name: str, classes: Collection[type], prefix: str = "") -> str:
    """What an unknown option may have been meant to be, as the end of an error; empty if nothing is near."""
    if name in (names := former_names(classes)):
        return f"; it is now {prefix}{names[name]}"
    return did_you_mean(f"{prefix}{name}", [f"{prefix}{option}" for option in option_names(classes)])


def with_defaults(classes: Collection[type], settings: dict) -> dict:
    """Settings completed with the defaults of all other fields of argument classes. Imports the bases of the classes."""
    defaults = {}
    for cls in classes:
        for field in dataclasses.fields(cls.whole() if issubclass(cls, LazyArguments) else cls):
            if field.default is not dataclasses.MISSING:
                defaults[field.name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                defaults[field.name] = field.default_factory()
    return defaults | settings


def option_names(classes: Collection[type]) -> set[str]:
    """The names of the fields of argument classes, inherited fields included."""
    names = {field.name for cls in classes for field in dataclasses.fields(cls)}
    return names.union(*(cls.inherited() for cls in classes if issubclass(cls, LazyArguments)))


def chosen_value(name: str, default: str) -> str:
    """The value on the command line, or in the file of `--config`, of an option that decides which other options there are."""
    parser = Parser()
    config, _ = read_config(parser, sys.argv[1:])
    parser.add_argument(f"--{name}", default=config.get(name, default))
    return getattr(parser.parse_known_args([word for word in sys.argv[1:] if word not in ("-h", "--help")])[0], name)


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` with errors of one line, which suggest the nearest option for an unknown name."""

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
        self.add_argument(
            "--config", metavar="FILE", help="YAML file with values of options; the command line takes precedence"
        )


def read_config(parser: Parser, command_line: list[str]) -> tuple[dict, str | None]:
    """The settings in the YAML file of `--config`, and its path; an empty dict and None without `--config`."""
    import yaml

    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--config")
    path = reader.parse_known_args(command_line)[0].config
    if path is None:
        return {}, None
    try:
        with open(path, encoding="utf-8") as file:
            config = yaml.safe_load(file)
    except FileNotFoundError:
        parser.error(f"--config: there is no file {path}.")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        parser.error(f"--config {path}: {' '.join(str(error).split())}")
    config = {} if config is None else config
    if not isinstance(config, dict):
        parser.error(f"--config {path}: expected names and values of options, got a {type(config).__name__}")
    return config, path


def add_options(parser: Parser, arguments: type, config: dict, without: Collection[str] = ()):
    """
    Adds an option for each field of an argument class.

    Args:
        parser: that gets the options.
        arguments: argument class.
        config: name → default that takes precedence over that of the field.
        without: names of fields to leave out.
    """
    title = arguments.__doc__.strip().partition("\n")[0].rstrip(".")
    group = parser.add_argument_group(f"Inherited: {arguments._base}" if without else title)
    hints = typing.get_type_hints(arguments)
    for field in dataclasses.fields(arguments):
        if not field.init or field.name in without:
            continue
        if "dotted" in field.metadata:
            parser.epilog = " ".join(filter(None, [field.metadata["help"], parser.epilog]))
            continue
        reading, text = _reading_of(field, hints[field.name]), field.metadata.get("help", "")
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        required = default is dataclasses.MISSING and field.name not in config
        if default not in (dataclasses.MISSING, None, [], "") and "default" not in text:
            text += f" (default {_written(default)})" if text else f"default {_written(default)}"
        default = None if default is dataclasses.MISSING else default
        if field.name in config:
            may_be_none = field.default is None or types.NoneType in typing.get_args(hints[field.name])
            given = config[field.name]
            of_file = _reading_of(field, hints[field.name], is_list=isinstance(given, list))
            default = _from_yaml(parser, field.name, given, of_file, may_be_none)
        group.add_argument(
            f"--{field.name}", default=default, required=required, help=text.replace("%", "%%"), **reading
        )


def _from_yaml(parser: Parser, name: str, value, reading: dict, may_be_none: bool):
    """A value of a YAML file, checked as on the command line."""
    try:
        return read_value(value, reading, may_be_none)
    except ValueError as error:
        parser.error(f"{name}: {error}")


def read_value(value, reading: dict, may_be_none: bool):
    """
    Converts a value to the type of an option, with the checks of the command line.

    Args:
        value: from YAML or Python, or a text.
        reading: how argparse reads the option (`_reading`).
        may_be_none: whether the option accepts None.

    Raises:
        ValueError: if the value does not have the type of the option.
    """
    metavar = reading.get("metavar")
    expected = EXPECTED.get(metavar, "another value")
    if (value is None and not may_be_none) or (isinstance(value, dict) and metavar not in ("JSON", "TEXT")):
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
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"expected {expected}, got {as_written(item)}") from error
        if "choices" in reading and values[-1] not in reading["choices"]:
            raise ValueError(f"expected one of {', '.join(map(str, reading['choices']))}, got {as_written(item)}")
    return values if is_list else values[0]


def typed(classes: Collection[type], options: dict, prefix: str = "--") -> dict:
    """
    Converts the values of options to the types of their fields.

    Args:
        classes: argument classes.
        options: name → value, as text, list of texts, or in the type of the field.
        prefix: before names in errors.

    Raises:
        ValueError: if no class has a field of that name, or a value does not have its type.
    """
    known, converted = option_names(classes), {}
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"{prefix}{name}: no such option{hint_for(name, classes)}")
        owner = next(cls for cls in classes if name in option_names([cls]))
        if name not in {field.name for field in dataclasses.fields(owner)}:
            owner = owner.whole()
        (field,) = (field for field in dataclasses.fields(owner) if field.name == name)
        hint = typing.get_type_hints(owner)[name]
        reading = _reading_of(field, hint, is_list=isinstance(value, list))
        may_be_none = field.default is None or types.NoneType in typing.get_args(hint)
        if may_be_none and value in ("none", "null"):
            value = None
        if reading.get("nargs") == "+" and isinstance(value, str):
            value = [value]
        try:
            converted[name] = read_value(value, reading, may_be_none)
        except ValueError as error:
            raise ValueError(f"{prefix}{name}: {error}.") from error
    return converted


def take_dotted(classes: Collection[type], command_line: list[str]) -> tuple[list[str], dict]:
    """
    Takes options of other recipes, such as `--sft.learning_rate 1e-3`, out of a command line.

    Args:
        classes: argument classes. A field with "dotted" in its metadata receives these options.
        command_line: words after the name of the program.

    Returns:
        The other words, and a dict of the field: {"overrides": {"sft": {"learning_rate": "1e-3"}}}. The value of an option with
        several words is a list, and of an option without any, "true". Without such a field, all words and an empty dict.
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


def _reading_of(field: dataclasses.Field, hint, is_list: bool = True) -> dict:
    """The keyword arguments of `add_argument` for a field; one with "several" in its metadata takes a list or a value."""
    return _reading(hint) | ({"nargs": "+"} if field.metadata.get("several") and is_list else {})


def _reading(hint) -> dict:
    """The keyword arguments of `add_argument` for a type annotation."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    options = [option for option in options if option is not types.NoneType]
    if str in options:  # the dataclass itself converts the text to other types
        return {"metavar": "TEXT"}
    value_type, inner = options[0], typing.get_args(options[0])
    if value_type is bool:
        return {"type": _truth, "nargs": "?", "const": True, "metavar": "true|false"}
    if typing.get_origin(value_type) is list:
        return {**_reading(inner[0]), "nargs": "+"}
    if typing.get_origin(value_type) is typing.Literal:
        return {"choices": inner, "type": lambda text: {str(choice): choice for choice in inner}.get(text, text)}
    if isinstance(value_type, type) and issubclass(value_type, enum.Enum):
        return {"choices": [member.value for member in value_type]}
    if dict in (value_type, typing.get_origin(value_type)):
        return {"type": json.loads, "metavar": "JSON"}
    if value_type is float:
        return {"type": _finite, "metavar": "NUMBER"}
    return {"type": value_type, "metavar": "INTEGER" if value_type is int else "TEXT"}


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {as_written(text)}")
    return number


def _written(value) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(_written, value))
    return str(value).lower() if isinstance(value, bool) else str(getattr(value, "value", value))


def _truth(text: str) -> bool:
    values = dict.fromkeys(("true", "yes", "t", "y", "1"), True) | dict.fromkeys(("false", "no", "f", "n", "0"), False)
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected true or false, got {as_written(text)}")
    return values[text.lower()]
