"""Checks of settings that several recipes have."""


def check_at_least_one(arguments, *names: str) -> None:
    """
    Checks that numbers are at least 1; settings that are None are not checked.

    Args:
        arguments: dataclass of a recipe.
        names: of its settings.

    Raises:
        ValueError: if one of them is below 1.
    """
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}.")
