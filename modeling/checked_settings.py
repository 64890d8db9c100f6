"""Settings of feature extractors and processors: a value of the right type and range, or an error that names the setting."""

import math
from typing import Any

from .model_files import as_written


class SettingError(ValueError):
    """A setting has a value that it cannot have.

    Attributes:
        setting (str): Its name.
        expected, actual (str): What it should be, and what it is.
    """

    def __init__(self, setting: str, expected: str, actual: str, message: str | None = None):
        self.setting, self.expected, self.actual = setting, expected, actual
        super().__init__(message or f"{setting}: expected {expected}, got {actual}")

    def __reduce__(self):  # errors travel between processes
        return type(self), (self.setting, self.expected, self.actual, str(self))


def checked(
    name: str, value: Any, kind: type, least: float = -math.inf, most: float = math.inf, *, above=None, below=None
) -> Any:
    """The value as an int or float, or a SettingError."""
    kinds = (int,) if kind is int else (int, float)
    rules = {
        f"at least {least}": (least > -math.inf, lambda: value >= least),
        f"at most {most}": (most < math.inf, lambda: value <= most),
        f"above {above}": (above is not None, lambda: value > above),
        f"below {below}": (below is not None, lambda: value < below),
    }
    rules = {rule: holds for rule, (is_given, holds) in rules.items() if is_given}
    # Comparisons are right for every int; math.isfinite cannot take every one.
    if isinstance(value, kinds) and not isinstance(value, bool) and -math.inf < value < math.inf:
        rules = {rule: holds for rule, holds in rules.items() if not holds()}
        try:
            if not rules:
                return kind(value)
        except OverflowError:  # an int that no float holds
            rules = {"at most 1.8e308": None}
    raise SettingError(name, " ".join([kind.__name__, " and ".join(rules)]).rstrip(), as_written(value))


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise SettingError(name, f"one of {list(choices)}", as_written(value))
    return value


def true_or_false(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingError(name, "True or False", as_written(value))
    return value


__all__ = ["SettingError", "checked", "one_of", "true_or_false"]
