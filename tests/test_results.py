"""
Headline numbers stand once, in summary.json, and settings in the YAML files and in paper_settings.json: tables are written from
them, and pages and prose agree with them.
"""

import json
import re
import runpy
from pathlib import Path

import pytest

from action_llm_recipes.paper_tables.definitions import read_tables

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "model_cards"
SUMMARY = json.loads((CARDS / "results" / "summary.json").read_text("utf-8"))
MEASURED = [key for key, entry in SUMMARY.items() if entry["value"] is not None]
CLAIMING = ("llm_ar", "lvlm_var", "vt_lvlm_ar")
FIELDS = ["about", "unit", "value", "low", "high", "seeds", "command", "page"]


def numbers(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.,])\d+(?:\.\d+)?(?![\w]|[.,]\d)", text))


def test_tables_and_comments_are_up_to_date(capsys):
    tables = runpy.run_path(str(CARDS / "tables.py"))
    assert tables["main"](["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("key", SUMMARY)
def test_an_entry_has_a_value_or_a_reason(key):
    entry = SUMMARY[key]
    assert [field for field in entry if field not in ("minutes", "reason")] == FIELDS
    if entry["value"] is None:
        assert entry["reason"] and not any(entry[field] for field in ("low", "high", "seeds", "command", "page"))
    else:
        assert "reason" not in entry and (entry["low"] is None) == (entry["high"] is None)
        assert entry["low"] is None or entry["low"] <= entry["value"] <= entry["high"]


@pytest.mark.parametrize("key", MEASURED)
def test_the_page_of_an_entry_has_its_numbers_and_its_command(key):
    entry = SUMMARY[key]
    page = (CARDS / "results" / entry["page"]).read_text("utf-8")
    shown = {f"{entry[field]}" for field in ("value", "low", "high") if entry[field] is not None}
    assert shown <= numbers(re.sub(r"[–*]", " ", page)), shown
    assert entry["command"] in re.sub(r"\s*\\?\s+", " ", page)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(CARDS.glob("*.md"))], ids=lambda page: page.name)
def test_prose_has_no_other_results(page):
    """Outside code and the tables of settings and ideas, percentages and numbers like 92.1 are results."""
    text = re.sub(r"<!-- (settings|ideas) -->.*?<!-- end of \1 -->", "", page.read_text("utf-8"), flags=re.S)
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    shown = set(re.findall(r"(?<![\d.,])\d\d\.\d(?![\d.])|\d+(?= ?%(?! interval))", text))
    values = {f"{entry[field]}" for entry in SUMMARY.values() for field in ("value", "low", "high")}
    for table in (table for card in CLAIMING for table in read_tables(card).values()):
        values |= {number for note in table.notes for number in numbers(note)}
        values |= {f"{claim}" for row in table.rows.values() for claim in row.claims}
    assert shown <= values, shown - values


def test_output_in_the_readme_is_that_of_a_results_page():
    """Whole paragraphs; the README breaks long lines, and leaves out the Markdown."""
    pages = [re.sub(r"[\s*`]+", " ", page.read_text("utf-8")) for page in (CARDS / "results").glob("*.md")]
    outputs = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert len(outputs) >= 2
    for paragraph in re.split(r"\n\n", "\n\n".join(outputs)):
        assert any(" ".join(paragraph.split()) in page for page in pages), paragraph
