"""Text of others on pages in Markdown: class names, licences, file names, explanations."""

import re

# What begins code, an emphasis, a link, a cell or a formula; within words and paths, underscores and tildes do not.
_MARKUP = re.compile(r"[\\`*\[\]|$]|(?<!/)~|(?<![^\W_])_|_(?![^\W_])")
# What begins a heading, a list, a quotation or a rule, where a text begins a line.
_BLOCK = re.compile(r"^(\d*)(?=(?:#{1,6}|[-+=]+|(?<=\d)[.)])(?:\s|$))")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line: no HTML, no links with a text of their own, no pictures, no
    cells, no formulas. What looks like an address may be shown as a link to itself."""
    plain = re.sub("[&<>]", lambda found: _HTML[found[0]], " ".join(str(text).split()))
    plain = _MARKUP.sub(lambda found: "\\" + found[0], plain)
    return _BLOCK.sub(r"\1\\", plain)


def markdown_code(text: object) -> str:
    """Text as code within a line of Markdown."""
    plain = " ".join(str(text).split())
    longest = max(map(len, re.findall("`+", plain)), default=0)
    fence = "`" * (longest + 1)
    space = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{fence}{space}{plain}{space}{fence}"


__all__ = ["markdown", "markdown_code"]
