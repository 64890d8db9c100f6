"""Text in pictures: in any script for which this machine has a font, and within a given width.

The fonts of Pillow and Matplotlib draw a box for each character that they lack, such as those of Chinese, Japanese, Korean and
Hindi. Such characters are drawn with a font from the usual folders of the operating system. If no font has a character, it is
written as its code point (`\\u6325`), so that names stay distinct, and a warning is logged once.
"""

import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)

SIZE = 11
_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (r"%WINDIR%\Fonts", r"%LOCALAPPDATA%\Microsoft\Windows\Fonts"),
}.get(sys.platform, ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"))
_SUFFIXES = (".ttf", ".otf", ".ttc")
# Plain styles are tried first. The font LastResort is left out: it has a box for every character.
_STYLES = (
    "bold",
    "italic",
    "oblique",
    "light",
    "thin",
    "black",
    "condensed",
    "narrow",
    "mono",
    "serif",
    "math",
    "emoji",
)
_UNASSIGNED = "\U0010fffe"
_warned = False


@cache
def system_fonts() -> tuple[Path, ...]:
    """The font files of the operating system and of this user, plain styles first."""
    files = []
    for folder in _FOLDERS:
        for path, _, names in os.walk(os.path.expandvars(os.path.expanduser(folder))):
            files += [Path(path, name) for name in names if name.lower().endswith(_SUFFIXES)]

    def order(path: Path) -> tuple:
        name = path.stem.lower()
        return sum(style in name for style in _STYLES) - ("sansserif" in name), name, str(path)

    return tuple(sorted((path for path in files if "lastresort" not in path.stem.lower()), key=order))


@cache
def has_character(path: Path | None, character: str) -> bool:
    """Whether a font file, or Pillow's own font (None), has a character and does not draw the box of a missing character."""
    if character.isspace():
        return True
    # Text shaping would draw a combining mark on a dotted circle.
    font = _font(path, 24, ImageFont.Layout.BASIC)
    if font is None:
        return False
    masks = [font.getmask(text) for text in (character, _UNASSIGNED)]
    return (masks[0].size, bytes(masks[0])) != (masks[1].size, bytes(masks[1]))


@cache
def fallback_font(characters: str) -> Path | None:
    """The first font of this machine that has all the characters; None if no font has."""
    return next(
        (path for path in system_fonts() if all(has_character(path, character) for character in characters)), None
    )


def drawable(text: str, base: Path | None = None) -> str:
    """The text, in which the unaccented form or the code point replaces each character that no font of this machine has.

    Args:
        text: in any script.
        base: the font file that is tried first; None is Pillow's own font.
    """
    global _warned
    written, lost = [], []
    for character in unicodedata.normalize("NFC", text):
        if has_character(base, character) or fallback_font(character) is not None:
            written.append(character)
            continue
        if unicodedata.category(character) == "Cf":  # invisible, such as joiners
            continue
        plain = unicodedata.normalize("NFKD", character)[0]
        if plain != character and has_character(base, plain):
            written.append(plain)
        else:
            written.append(character.encode("ascii", "backslashreplace").decode())
            lost.append(character)
    if lost and not _warned:
        _warned = True
        logger.warning(
            "no font on this machine has %s: pictures show code points instead (%s). Install a font for these characters, "
            "such as Noto Sans CJK for Chinese, Japanese and Korean.",
            " ".join(dict.fromkeys(lost)),
            lost[0].encode("ascii", "backslashreplace").decode(),
        )
    return "".join(written)


def text_width(text: str, size: int = SIZE) -> float:
    """Width of a text of `drawable` in pixels."""
    return sum(font.getlength(part) for font, part in _parts(text, size))


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill, size: int = SIZE) -> None:
    """Draws a text of `drawable` with its upper left corner at `place`, each part in a font that has its characters."""
    left, top = place
    # Fonts differ in height: all parts share a baseline.
    ascent = _font(None, size).getmetrics()[0]
    for font, part in _parts(text, size):
        draw.text((left, top + ascent), part, fill=fill, font=font, anchor="ls")
        left += font.getlength(part)


def shortened(text: str, width: float, size: int = SIZE) -> str:
    """A text of `drawable`, cut with an ellipsis if it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    end = len(text)
    while end and text_width(text[:end].rstrip() + "…", size) > width:
        end -= 1
    return text[:end].rstrip() + "…"


def wrapped(text: str, width: float, lines: int = 3, size: int = SIZE) -> list[str]:
    """A text of `drawable` in at most `lines` lines of `width` pixels; the last line is cut with an ellipsis if needed."""
    wrapped_lines, words = [], text.split(" ")
    while words and len(wrapped_lines) < lines - 1:
        count = 1
        while count < len(words) and text_width(" ".join(words[: count + 1]), size) <= width:
            count += 1
        if text_width(words[0], size) > width:  # a single long word is broken between characters
            end = len(words[0])
            while end > 1 and text_width(words[0][:end], size) > width:
                end -= 1
            wrapped_lines.append(words[0][:end])
            words[0] = words[0][end:]
        else:
            wrapped_lines.append(" ".join(words[:count]))
            words = words[count:]
    if words:
        wrapped_lines.append(shortened(" ".join(words), width, size))
    return wrapped_lines


def _parts(text: str, size: int) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    """Parts of the text with their fonts: one part if a font has all characters, otherwise neighbours that share a font."""
    lacking = "".join(sorted({character for character in text if not has_character(None, character)}))
    whole = fallback_font("".join(sorted(set(text)))) if lacking else None
    if whole is not None or not lacking:
        yield _font(whole, size), text
        return
    start, path = 0, None
    for place, character in enumerate(text):
        if has_character(path, character) and (path is None or not has_character(None, character)):
            continue
        own = None if has_character(None, character) else fallback_font(character)
        if own == path:
            continue
        if place > start:
            yield _font(path, size), text[start:place]
        start, path = place, own
    if start < len(text):
        yield _font(path, size), text[start:]


@cache
def _font(path: Path | None, size: int, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont | None:
    """A font, or Pillow's own font without a path; None if the file is not an outline font."""
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(path, size, layout_engine=layout)
    except OSError:
        return None
