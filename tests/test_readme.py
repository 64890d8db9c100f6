"""The front page, and the pages behind it: what they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "model_cards").glob("*.md"), *(ROOT / "model_cards" / "results").glob("*.md")]
PAGES = [page for page in PAGES if page.name != "model_page.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_pictures_recipes_and_settings_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for recipe in re.findall(r"recipes/[a-z_/]+\.(?:py|yaml)", text):
        assert (ROOT / recipe).is_file(), recipe
    for module in re.findall(r"python -m action_llm_datasets\.([a-z_]+)", text):
        assert (ROOT / "datasets_scripts" / f"{module}.py").is_file(), module
    for config in re.findall(r"`((?:llm_ar|lvlm_var|vt_lvlm_ar)/[a-z0-9_*]+\.yaml)`", text):
        assert list((ROOT / "recipes" / "configs").glob(config)), config


def test_every_recipe_is_named_in_the_map():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = text[text.index("## Rooms") :]
    for recipe in ROOT.glob("recipes/*.py"):
        if "__main__" in recipe.read_text(encoding="utf-8"):
            assert recipe.stem in rooms, recipe.stem


def test_the_five_lines_are_python():
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S):
        compile(code, "README.md", "exec")
