"""Text of any script in pictures, with and without a system font that has its characters."""

import logging

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, ImageFont

from action_llm_datasets import fonts


def write_font(path, characters: str):
    """A font whose characters are squares of increasing size, with a box for missing characters."""
    names = [".notdef", *(f"u{ord(character):x}" for character in characters)]
    glyphs = {}
    for number, name in enumerate(names):
        pen, side = TTGlyphPen(None), 700 if number == 0 else 200 + 100 * number
        for corners in ([(0, 0), (0, side), (side, side), (side, 0)],):
            pen.moveTo(corners[0])
            for corner in corners[1:]:
                pen.lineTo(corner)
            pen.closePath()
        glyphs[name] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): f"u{ord(character):x}" for character in characters})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """The only folder of system fonts."""
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(fonts, "_warned", False)
    for function in (fonts.system_fonts, fonts.has_character, fonts.fallback_font):
        function.cache_clear()
    yield tmp_path
    for function in (fonts.system_fonts, fonts.has_character, fonts.fallback_font):
        function.cache_clear()


def picture(text):
    image = Image.new("L", (240, 20), 255)
    fonts.draw_text(ImageDraw.Draw(image), (4, 1), text, 0)
    return np.asarray(image)


def test_a_system_font_draws_missing_characters(machine, caplog):
    (machine / "deep").mkdir()
    write_font(machine / "deep" / "Han-Regular.ttf", "挥手")
    (machine / "broken.ttf").write_bytes(b"no font")
    with caplog.at_level(logging.WARNING):
        assert fonts.drawable("挥手 wave") == "挥手 wave"
    assert not caplog.records
    assert not fonts.has_character(None, "挥") and fonts.fallback_font("挥").name == "Han-Regular.ttf"
    both, first = picture("挥手"), picture("挥挥")
    assert (both != 255).any() and (both != first).any(), "different characters have different pictures"
    assert fonts.text_width("挥手 wave") == pytest.approx(22 + fonts.text_width(" wave"), abs=1)


def test_without_a_font_names_stay_distinct_with_one_warning(machine, caplog):
    with caplog.at_level(logging.WARNING):
        assert fonts.drawable("挥手") == r"\u6325\u624b" and fonts.drawable("鼓掌 2") == r"\u9f13\u638c 2"
    (record,) = caplog.records
    assert "no font on this machine has 挥 手" in record.message and "Install a font" in record.message
    assert fonts.drawable("Größe, čaj") == "Große, caj".replace("ß", fonts.drawable("ß"))
    for character in fonts.drawable("挥手 čaj"):
        assert fonts.has_character(None, character)


def test_plain_text_is_drawn_as_by_pillow(machine):
    own = Image.new("L", (240, 20), 255)
    ImageDraw.Draw(own).text((4, 1), "S001: frames 103, gjpq", fill=0, font=ImageFont.load_default(11))
    np.testing.assert_array_equal(picture("S001: frames 103, gjpq"), own)


@pytest.mark.parametrize(
    "text", ["wave", "a title of many words " * 9, "x" * 200, "", "ends with a space ", "a " + "y" * 90]
)
@pytest.mark.parametrize("width", [40, 120, 500])
def test_wrapped_lines_fit_and_keep_the_text(text, width):
    lines = fonts.wrapped(text, width, lines=3)
    assert len(lines) <= 3 and all(fonts.text_width(line) <= width for line in lines)
    whole = "".join(lines).replace(" ", "")
    if lines and lines[-1].endswith("…"):
        assert text.replace(" ", "").startswith(whole.removesuffix("…"))
    else:
        assert whole == text.replace(" ", "")
    assert fonts.text_width(fonts.shortened(text, width)) <= width
    assert (fonts.shortened(text, width) == text) == (fonts.text_width(text) <= width)
