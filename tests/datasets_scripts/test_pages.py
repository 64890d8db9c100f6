"""The pages of the data sets agree with the builders."""

from pathlib import Path

import pytest

from action_llm_datasets.load import PROTOCOLS
from action_llm_datasets.pages import PAGES, data_set_page

FOLDER = Path(__file__).resolve().parents[2] / "model_cards" / "datasets"


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_in_the_repository_are_up_to_date(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == data_set_page(name), (
        "run python -m action_llm_datasets.pages model_cards/datasets"
    )


def test_each_protocol_is_on_exactly_one_page():
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)
    for protocol in PROTOCOLS:
        pages = [name for name, (_, prefixes, *_) in PAGES.items() if protocol.startswith(prefixes)]
        assert len(pages) == 1, protocol
        if "-video" not in protocol and protocol != "folder":
            assert f"| `{protocol}` |" in (FOLDER / pages[0]).read_text(encoding="utf-8")


def test_a_page_has_the_published_counts_the_terms_and_the_metric():
    ntu = data_set_page("ntu_rgbd.md")
    assert "| `ntu60-xsub` | 60 | 40,091 train, 16,487 test |" in ntu and "no redistribution" in ntu
    assert "compared by mean per-class accuracy" in data_set_page("toyota_smarthome.md")
    simulated = data_set_page("simulated.md")
    assert "no people were recorded" in simulated and "Citation" not in simulated
