"""Text of others on pages: what is shown is what was written, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from action_llm.escaping import markdown, markdown_code

markdown_it = pytest.importorskip("markdown_it", reason="reads the pages as a browser of Markdown does")

HOSTILE = [
    "</td><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "| a | b",
    "a\n---\nlicense: mit",
    "[x](javascript:alert(1))",
    "![x](http://a.b/c.png)",
    "`code` ``` and *stars* _lines_ ~~gone~~ $x^2$",
    "# heading",
    "__init__ and __c__",
    "1. item",
    "- item",
    "\\<b> &lt;b&gt; &amp;",
    "<!-- comment",
    "<https://a.b>",
]
PAGES = ["{}", "# {}", "- a: {}, b", "It knows: {}, {}.", "| x | {} |\n|---|---|\n| {} | y |"]


def shown(page: str) -> tuple[str, set[str]]:
    """The text that a page in Markdown shows, and the elements that it has."""
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(page)
    leaves = [leaf for token in tokens for leaf in [token, *(token.children or ())]]
    return "".join(leaf.content for leaf in leaves if not leaf.children), {leaf.type for leaf in leaves}


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_it_is(page, text):
    text_of_page, elements = shown(page.replace("{}", markdown(text)))
    plain_text, plain_elements = shown(page.replace("{}", "word"))
    assert elements <= plain_elements | {"text_special"}
    assert text_of_page == plain_text.replace("word", one_line(text))


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_any_text_is_shown_as_it_is(text):
    expected = one_line(text)
    assert shown(f"x {markdown(text)} y")[0] == one_line(f"x {expected} y") if expected else True


@pytest.mark.parametrize("text", [*HOSTILE, "`", "``", " a ` b "])
def test_code_is_shown_as_it_is(text):
    text_of_page, elements = shown(f"a {markdown_code(text)} b")
    assert elements <= {"paragraph_open", "inline", "text", "code_inline", "paragraph_close"}
    assert text_of_page == f"a {one_line(text)} b"


@pytest.mark.parametrize(
    "text",
    [
        "drink water",
        "hush (quite)",
        "take off a hat/cap",
        "Pour.Fromcup",
        "walk_left",
        "https://personal.utdallas.edu/~kehtar/U.html",
    ],
)
def test_plain_names_stay_as_they_are(text):
    assert markdown(text) == text and not re.search(r"\\", markdown(text))
