"""Settings of feature extractors: a value of the right kind and range, or an error that names the setting."""

import math
from typing import Any


def checked(
    name: str, value: Any, kind: type, least: float = -math.inf, most: float = math.inf, *, above=None, below=None
) -> Any:
    """The value as an int or float, or a ValueError that names the setting."""
    kinds = (int,) if kind is int else (int, float)
    in_range = (
        isinstance(value, kinds)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and least <= value <= most
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not in_range:
        bounds = [f"at least {least}"] * math.isfinite(least) + [f"at most {most}"] * math.isfinite(most)
        bounds += [f"above {above}"] * (above is not None) + [f"below {below}"] * (below is not None)
        raise ValueError(f"{name}: expected {kind.__name__} {' and '.join(bounds)}, got {value!r}")
    return kind(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {list(choices)}, got {value!r}")
    return value


__all__ = ["checked", "one_of"]
