"""Checks of the settings of feature extractors and processors: type and range; errors name the setting."""

import math
from typing import Any

from .model_files import as_written


class SettingError(ValueError):
    """A setting of the wrong type or out of range.

    Attributes:
        setting (str): Name of the setting.
        expected, actual (str): What was expected, and the actual value.
    """

    def __init__(self, setting: str, expected: str, actual: str, message: str | None = None):
        self.setting, self.expected, self.actual = setting, expected, actual
        super().__init__(message or f"{setting}: expected {expected}, got {actual}")

    def __reduce__(self):  # errors are sent between processes
        return type(self), (self.setting, self.expected, self.actual, str(self))


def checked(
    name: str,
    value: Any,
    number_type: type,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above=None,
    below=None,
) -> Any:
    """The value as `number_type`, int or float. Raises `SettingError` for another type, NaN, Inf, or a value out of range."""
    accepted = (int,) if number_type is int else (int, float)
    rules = {
        f"at least {least}": (least > -math.inf, lambda: value >= least),
        f"at most {most}": (most < math.inf, lambda: value <= most),
        f"above {above}": (above is not None, lambda: value > above),
        f"below {below}": (below is not None, lambda: value < below),
    }
    rules = {rule: holds for rule, (is_given, holds) in rules.items() if is_given}
    # math.isfinite fails for large ints, which comparisons do not.
    if isinstance(value, accepted) and not isinstance(value, bool) and -math.inf < value < math.inf:
        rules = {rule: holds for rule, holds in rules.items() if not holds()}
        try:
            if not rules:
                return number_type(value)
        except OverflowError:  # an int beyond the largest float
            rules = {"at most 1.8e308": None}
    raise SettingError(name, " ".join([number_type.__name__, " and ".join(rules)]).rstrip(), as_written(value))


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """The value. Raises `SettingError` if it is not one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise SettingError(name, f"one of {list(choices)}", as_written(value))
    return value


def true_or_false(name: str, value: Any) -> bool:
    """The value. Raises `SettingError` if it is not a bool."""
    if not isinstance(value, bool):
        raise SettingError(name, "True or False", as_written(value))
    return value


__all__ = ["SettingError", "checked", "one_of", "true_or_false"]
