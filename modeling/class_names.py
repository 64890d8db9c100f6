"""Checks of class lists and class names, which are written into prompts and scored token by token."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from transformers.utils import logging

from .model_files import as_written, shortened

logger = logging.get_logger(__name__)

# Texts that tokenizers may read as special tokens: <act_3>, </s>, <|im_end|>, [INST].
_SPECIAL_TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
# Joiners that scripts such as Persian need within words.
_JOINERS = "\u200c\u200d"
# Joiners, variation selectors, fillers and blanks: characters that are allowed in a name, but invisible.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
    # Joiners are visible only in scripts that join their letters, which Latin does not.
    "|(?<=[ -\u024f])[\u200c\u200d]+|[\u200c\u200d]+(?=[ -\u024f])|^[\u200c\u200d]+|[\u200c\u200d]+$"
)
_SHOWN = 80  # characters of a name in a message


def fault_of_class_name(name: str) -> str:
    """The fault of a class name, as the end of a sentence that begins with the name; empty if there is none."""
    if not name.isprintable():
        for character in name:
            if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
                return f"contains the control character {character!a}; expected plain text"
    if token := _SPECIAL_TOKEN.search(name):
        return f"contains {shortened(token[0])}, which tokenizers may read as a special token; expected plain text"
    return ""


def check_class_names(class_names: Sequence[str], trained: Sequence[str] | None = None) -> list[str]:
    """Checks a class list, and returns it as a list.

    Args:
        class_names: Names in a fixed order: a list, a tuple, an array or a column of strings.
        trained: Names that a model was trained on, by default all of `class_names`. Trained names may look alike, because the
            model tells them apart by their tokens. Other names that differ only in spaces, Unicode form or invisible characters
            are the same class.

    Raises:
        ValueError: If `class_names` is not a list, has no order, or is empty; if an entry is not a string, is empty, or
            contains control characters or special tokens; if a class occurs twice.
    """
    expected = "the class list must be a list of names"
    if isinstance(class_names, str | bytes | bytearray):
        text = _shown(class_names)
        raise ValueError(f"{expected}, got the string {text}: write [{text}] for a single class.")
    try:
        # Sets and dicts have no order, and an iterator would be empty when it is read again.
        names = None if isinstance(class_names, Mapping | set | frozenset | Iterator) else list(class_names)
    except TypeError:
        names = None
    if names is None:
        raise ValueError(
            f"{expected}, got a {type(class_names).__name__}: convert it to a list, in the order of the labels."
        )
    if not names:
        raise ValueError("the class list is empty.")
    known = None if trained is None else set(trained)
    first_index: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"class {index} must be a name, got {as_written(name)} ({type(name).__name__}).")
        names[index] = name = str.__str__(name)  # a plain str instead of NumPy's type
        if not (form := _visible_form(name)):
            raise ValueError(f"class {index} has no name: got {_shown(name)}.")
        if fault := fault_of_class_name(name):
            raise ValueError(f"class name {_shown(name)} {fault}.")
        first = first_index.setdefault(name if known is None or name in known else form, index)
        if first != index:
            alike = "" if names[first] == name else f", and looks like {names[first][:_SHOWN]!a} at {first}"
            raise ValueError(f"class name {_shown(name)} is in the list twice (second time at {index}{alike}).")
    return names


def must_list_classes(class_names: Sequence[str] | None, trained: Sequence[str] | None) -> bool | None:
    """Whether prompts must list the classes: True, with a warning, if a model was not trained on all of them.

    Args:
        class_names: Names to choose from; None for the trained ones.
        trained: Names that the model was trained on.

    Returns:
        True, or None, which leaves it to the processor's `list_classes`.
    """
    known = set(trained or ())
    new = [name for name in class_names or () if name not in known]
    if not new:
        return None
    shown = f"{', '.join(repr(name[:_SHOWN]) for name in new[:3])}{', …' * (len(new) > 3)}"
    logger.warning_once(f"the model was not trained on {shown}: its probabilities for new names are unreliable.")
    return True


def _visible_form(name: str) -> str:
    """The visible part of a name: in a single Unicode form, with single spaces, without invisible characters."""
    if not name.isascii():
        name = _INVISIBLE.sub("", unicodedata.normalize("NFC", name))
    return " ".join(name.split())


def _shown(name: str | bytes) -> str:
    return f"{name[:_SHOWN]!r}{' …' * (len(name) > _SHOWN)}"


__all__ = ["check_class_names", "fault_of_class_name", "must_list_classes"]
