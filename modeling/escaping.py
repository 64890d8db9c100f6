"""Escapes text from users (class names, licences, file names, explanations) for pages in Markdown."""

import re

# Characters of code, emphasis, links, table cells and formulas. Within words and paths, underscores and tildes are harmless.
_MARKUP = re.compile(r"[\\`*\[\]|$]|(?<!/)~|(?<![^\W_])_|_(?![^\W_])")
# Characters of headings, lists, quotations and rules at the start of a line.
_BLOCK = re.compile(r"^(\d*)(?=(?:#{1,6}|[-+=]+|(?<=\d)[.)])(?:\s|$))")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(text: object) -> str:
    """Escapes a text so that Markdown shows it literally, on one line, without HTML, links, images, table cells and formulas.
    Only text that looks like an address may still be shown as a link to itself."""
    plain = re.sub("[&<>]", lambda match: _HTML[match[0]], " ".join(str(text).split()))
    plain = _MARKUP.sub(lambda match: "\\" + match[0], plain)
    return _BLOCK.sub(r"\1\\", plain)


def markdown_code(text: object) -> str:
    """The text as inline code of Markdown."""
    plain = " ".join(str(text).split())
    longest = max(map(len, re.findall("`+", plain)), default=0)
    fence = "`" * (longest + 1)
    space = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{fence}{space}{plain}{space}{fence}"


__all__ = ["markdown", "markdown_code"]
