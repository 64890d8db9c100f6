"""What a class name must not hold, since it is written into prompts and scored token by token."""

import re
import unicodedata

# What tokenizers read as a token of its own: <act_3>, </s>, <|im_end|>, [INST].
_SPECIAL_TOKEN = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
# Joiners that scripts such as Persian need within words.
_JOINERS = "\u200c\u200d"


def fault_of_class_name(name: str) -> str:
    """What is wrong with a class name, as the end of a sentence about it; empty where nothing is."""
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS:
            return f"holds the control character {character!a}; expected plain text"
    if token := _SPECIAL_TOKEN.search(name):
        return f"holds {token[0]}, which tokenizers may read as a special token; expected plain text"
    return ""


__all__ = ["fault_of_class_name"]
