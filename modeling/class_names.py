"""What class lists and class names must be, since they are written into prompts and scored token by token."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from .model_files import as_written, shortened

# What tokenizers read as a token of its own: <act_3>, </s>, <|im_end|>, [INST].
_SPECIAL_TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
# Joiners that scripts such as Persian need within words.
_JOINERS = "\u200c\u200d"
# Joiners, variation selectors, fillers and blanks: characters that may stand in a name, and show nothing.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
    # Joiners are seen in scripts that join their letters; Latin does not.
    "|(?<=[ -\u024f])[\u200c\u200d]+|[\u200c\u200d]+(?=[ -\u024f])|^[\u200c\u200d]+|[\u200c\u200d]+$"
)
_SHOWN = 80  # characters of a name in a message


def fault_of_class_name(name: str) -> str:
    """What is wrong with a class name, as the end of a sentence about it; empty where nothing is."""
    if not name.isprintable():
        for character in name:
            if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
                return f"holds the control character {character!a}; expected plain text"
    if token := _SPECIAL_TOKEN.search(name):
        return f"holds {shortened(token[0])}, which tokenizers may read as a special token; expected plain text"
    return ""


def check_class_names(class_names: Sequence[str], trained: Sequence[str] | None = None) -> list[str]:
    """A class list as a list.

    Args:
        class_names: Names in a fixed order: a list, a tuple, an array or a column of texts.
        trained: Names that a model was trained on, by default all of these. Two of them may look alike, as the model tells
            them apart by their tokens. Of other names, two that differ only in spaces, Unicode form or invisible characters
            are the same class.

    Raises:
        ValueError: No list, or one without an order; an empty list; an entry that is no text, is empty, or has control
            characters or special tokens; a class that stands in it twice.
    """
    expected = "the class list must be a list of names"
    if isinstance(class_names, str | bytes | bytearray):
        text = _shown(class_names)
        raise ValueError(f"{expected}, got the text {text}: write [{text}] for a single class.")
    try:
        # Sets and dicts are no lists, and what can be read only once would be empty the second time.
        names = None if isinstance(class_names, Mapping | set | frozenset | Iterator) else list(class_names)
    except TypeError:
        names = None
    if names is None:
        raise ValueError(
            f"{expected}, got a {type(class_names).__name__}: make a list first, in the order of the labels."
        )
    if not names:
        raise ValueError("the class list is empty.")
    known = None if trained is None else set(trained)
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"class {index} must be a name, got {as_written(name)} ({type(name).__name__}).")
        names[index] = name = str.__str__(name)  # without NumPy's own type
        if not (form := _visible_form(name)):
            raise ValueError(f"class {index} has no name: got {_shown(name)}.")
        if fault := fault_of_class_name(name):
            raise ValueError(f"class name {_shown(name)} {fault}.")
        first = seen.setdefault(name if known is None or name in known else form, index)
        if first != index:
            alike = "" if names[first] == name else f", and looks like {names[first][:_SHOWN]!a} at {first}"
            raise ValueError(f"class name {_shown(name)} stands in the list twice (second time at {index}{alike}).")
    return names


def _visible_form(name: str) -> str:
    """What a reader sees of a name: in one Unicode form, with single spaces, without invisible characters."""
    if not name.isascii():
        name = _INVISIBLE.sub("", unicodedata.normalize("NFC", name))
    return " ".join(name.split())


def _shown(name: str | bytes) -> str:
    return f"{name[:_SHOWN]!r}{' …' * (len(name) > _SHOWN)}"


__all__ = ["check_class_names", "fault_of_class_name"]
