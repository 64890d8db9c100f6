"""The settings of the papers, departures from them, and the marks in the YAML files."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

from action_llm_recipes.common import paper_settings
from action_llm_recipes.common.launching import option_names
from action_llm_recipes.common.paper_settings import departures, mark_of_option, presets_of, settings_of, stage_values
from action_llm_recipes.pipeline.stages import classes_of

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "recipes" / "configs"
PAPERS = list(paper_settings.PAPER_OF.values())
TOTALS = {"batch_size", "steps"}


def preset(paper: str, name: str) -> dict[str, dict]:
    """The settings of a preset, by stage."""
    files = presets_of(paper)[name]
    return {
        stage: stage_values(stage, yaml.safe_load((CONFIGS / paper / f"{file}.yaml").read_text("utf-8")))
        for stage, file in files.items()
    }


@pytest.mark.parametrize("paper", PAPERS)
def test_settings_are_options_of_the_recipes_and_values_have_a_source(paper):
    action_model = {name: action_model for action_model, name in paper_settings.PAPER_OF.items()}[paper]
    seen = set()
    for setting in settings_of(paper):
        assert (setting.paper is None) == (setting.source is None), setting
        assert not setting.absent or setting.paper in (0, False), setting
        assert not seen & {(setting.stage, name) for name in setting.settings}, "a setting is listed twice"
        seen |= {(setting.stage, name) for name in setting.settings}
        if setting.stage != "efficiency":
            options = option_names(classes_of(setting.stage, {"action_model": action_model})) | TOTALS
            assert set(setting.settings) <= options, setting


@pytest.mark.parametrize("paper", PAPERS)
def test_the_paper_preset_departs_only_where_the_paper_cannot_be_followed(paper):
    found = {(stage, setting) for stage, setting, _, _ in departures(paper, preset(paper, "paper"))}
    # No published Swin V2 of Kinetics-400; LLaVA's projector reads only LLaVA's tower; Eq. 4 of VT-LVLM-AR cannot train codes.
    assert len(found) <= {"llm_ar": 0, "lvlm_var": 3, "vt_lvlm_ar": 6}[paper], found


def test_what_differs_from_the_paper_is_listed_and_nothing_else():
    stages = preset("llm_ar", "paper")
    assert departures("llm_ar", stages) == []
    stages["tokenizer"] |= {"human_weight": 0.005, "gumbel_temperature": 0.1, "kmeans_init": True}
    stages["sft"] |= {"method": "full", "lora_r": 8, "standardize_words": True}
    # τ has no value in the paper, and the rank of LoRA has no effect on full tuning.
    assert departures("llm_ar", stages) == [
        ("tokenizer", "codes start at k-means centres", "none (not described)", "yes"),
        ("tokenizer", "ω2, language priors", "0.2 (Section 4.2)", "0.005"),
        ("sft", "trained weights", "lora (Section 3.2)", "full"),
        ("sft", "codes shifted and scaled to the word embeddings", "none (not described)", "yes"),
    ]
    # A record may lack settings.
    assert departures("llm_ar", {"tokenizer": {"human_weight": 0.005}}) == [
        ("tokenizer", "ω2, language priors", "0.2 (Section 4.2)", "0.005")
    ]


def test_a_value_is_the_papers_or_ours():
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 64,
        "max_steps": 1172,
        "method": "qlora",
    }
    marks = {name: mark_of_option("llm_ar", "sft", name, settings) for name in settings}
    assert marks == {
        "per_device_train_batch_size": "paper",
        "gradient_accumulation_steps": None,
        "max_steps": "paper",
        "method": "paper: lora",
    }
    for settings, mark in (
        ({"per_device_train_batch_size": 4}, "paper: batches of 256"),
        ({"per_device_train_batch_size": 4, "total_batch_size": 256}, "paper"),
        ({"label_smoothing": 0.1}, "ours: not in the paper"),
        ({"warmup_steps": 0}, "ours"),
        ({"llm_name_or_path": "gpt2"}, "paper: LLaMA-13B"),
    ):
        assert mark_of_option("llm_ar", "sft", next(iter(settings)), settings) == mark
    assert mark_of_option("lvlm_var", "backbone", "mixup", {"mixup": 0.4}) == "ours"
    with pytest.raises(ValueError, match=r"tpyo of the stage sft of llm_ar is not in .*paper_settings\.json: add it"):
        mark_of_option("llm_ar", "sft", "tpyo", {"tpyo": 1})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_marking_a_yaml_file_changes_only_comments_and_only_once(path, tmp_path):
    marked = runpy.run_path(str(ROOT / "model_cards" / "tables.py"))["marked"]
    once = marked(path)
    assert yaml.safe_load(once) == yaml.safe_load(path.read_text("utf-8"))
    copy = tmp_path / path.parent.name / path.name
    copy.parent.mkdir()
    copy.write_text(once, "utf-8")
    assert marked(copy) == once
    copy.write_text(re.sub(r"(?m)^(seed: \d+)$", r"\1 # note", once), "utf-8")
    assert marked(copy) == copy.read_text("utf-8"), "a comment is lost"
    for line in once.splitlines():
        name = re.match(r"(\w+):", line)
        if name and name[1] not in paper_settings.UNMARKED:
            assert re.search(r" # (paper|ours)\b", line), line
