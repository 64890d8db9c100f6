"""Class names, licences and other foreign texts are shown on pages, and never run."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from skeleton_people import person

from action_llm import SkeletonFeatureExtractor
from action_llm_datasets.folder_builder import METADATA, SKELETON
from action_llm_datasets.prepare import prepare
from action_llm_recipes.hub import model_page
from action_llm_recipes.hub.demo import describe_training, space_files
from action_llm_recipes.hub.export import page as exported_page
from action_llm_recipes.metrics.action_classification.classification_scores import ClassScore
from action_llm_recipes.metrics.plots import plot_class_accuracy
from action_llm_recipes.rating.report import to_markdown
from action_llm_recipes.rating.studies import STUDIES

markdown_it = pytest.importorskip("markdown_it", reason="reads the pages as the Hub does")

SCRIPT = "</td><script>alert(1)</script>"
HOSTILE = [SCRIPT, "a | b", "[x](javascript:alert(1))", "`a`", "<img src=x onerror=alert(1)>", "a\n---\nlicense: mit"]


def assert_harmless(page: str):
    """On the Hub, the page has no HTML and no foreign links, and its front matter is that of the project."""
    front, body = (
        page.removeprefix("---\n").split("\n---\n", 1) if page.startswith("---\n") else ("license: other", page)
    )
    assert yaml.safe_load(front)["license"] == "other"
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(body)
    leaves = [leaf for token in tokens for leaf in [token, *(token.children or ())]]
    assert not [leaf for leaf in leaves if leaf.type.startswith("html") or "javascript" in str(leaf.attrs)]
    assert {leaf.attrs["src"] for leaf in leaves if leaf.type == "image"} <= {"ratings.png"}
    assert not [leaf for leaf in leaves if leaf.type == "hr"]


def folder_of_model(tmp_path, hostile: str):
    data = {"description": hostile, "license": hostile, "homepage": hostile, "citation": hostile}
    record = {
        "stage": "sft",
        "llm": hostile,
        "method": "lora",
        "examples": 3,
        "seed": 0,
        "version": hostile,
        "libraries": {hostile: hostile},
        "settings": {"note": hostile},
        "hardware": hostile,
        "sentences": {
            "stage": "encode_actions",
            "dataset": hostile,
            "data": data,
            "hardware": hostile,
            "tokenizer": {"stage": "train_tokenizer", "dataset": f"other {hostile}", "data": data},
        },
    }
    config = {
        "model_type": "action_llm",
        "action_config": {"model_type": "action_vqvae", "codebook_size": 8},
        "id2label": dict(enumerate(HOSTILE)),
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "config.json").write_text(json.dumps(config))
    SkeletonFeatureExtractor().save_pretrained(tmp_path)
    return record


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_page_of_a_model(tmp_path, hostile):
    folder_of_model(tmp_path, hostile)
    metric = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    metrics = {"split": hostile, "recordings": 4, "calibration_error": 0.1}
    metrics |= dict.fromkeys(model_page.METRICS, metric)
    page = model_page.model_page(tmp_path, "me/x", [{"model": {"seed": 0}, "metrics": metrics}])
    assert_harmless(page)
    assert "It knows 6 classes" in page
    table = [line for line in page.splitlines() if line.startswith("| ") and "50.0" in line]
    assert len(table) == 1 and table[0].replace("\\|", "").count("|") == 9


@pytest.mark.parametrize("name", ["me/x\n---", "me/<b>", 'me/x", trust', "../x"])
def test_no_repository_has_such_a_name(tmp_path, name):
    folder_of_model(tmp_path, "x")
    with pytest.raises(model_page.PageError, match="expected the name of a repository on the Hub, found"):
        model_page.model_page(tmp_path, name, [])
    with pytest.raises(ValueError, match="a Space needs a model that is on the Hub"):
        space_files(name, [])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_demo_and_the_exported_model(tmp_path, hostile):
    record = folder_of_model(tmp_path, hostile)
    sentence = describe_training(str(tmp_path))
    assert sentence.startswith("It was trained on `") and "\n" not in sentence

    class Plain:
        class generation_config:
            suppress_tokens = (3,)

        class config:
            vocab_size = 9

    class Processor:
        class_names, run_lengths, num_action_tokens, codes_per_word = HOSTILE, False, 16, 4

    for codes_per_word in (1, 4):
        config = SimpleNamespace(llm_name_or_path=None, codes_per_word=codes_per_word, constrained_scoring=False)
        assert_harmless(exported_page(record, Processor, Plain, config))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_report_of_ratings(hostile):
    study = next(iter(STUDIES.values()))
    report = {"systems": [hostile], "scales": {}, "answered": {hostile: 3}, "sheets": 1, "asked": 3, "note": hostile}
    page = to_markdown(report, study)
    assert_harmless(page)
    (head,) = [line for line in page.splitlines() if line.startswith("| scale") and "alpha" not in line]
    assert head.replace("\\|", "").count("|") == 3


def test_the_page_and_the_report_of_a_data_set(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for seed, name in enumerate(("a.npy", "b.npy", "<img src=x onerror=alert(1)>.npy")):
        np.save(source / name, person(20, seed=seed))
    (source / SKELETON).write_text(json.dumps({"license": "\n".join(HOSTILE)}))
    lines = [
        "file_name,label,split",
        "a.npy,| x | [x](javascript:alert(1)),train",
        "b.npy,wave,test",
        "b.npy,wave,test",
    ]
    lines += ["<img src=x onerror=alert(1)>.npy,wave <b onclick=alert(1)>,test", "c.npy,<script>,train"]
    (source / METADATA).write_text("\n".join(lines))
    prepare("folder", source, tmp_path / "out", num_proc=1)
    assert_harmless((tmp_path / "out" / "README.md").read_text())
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in report and "<img src=x" not in report and "<b onclick" not in report
    assert "&lt;b onclick=alert(1)&gt;" in report


def test_a_dollar_in_a_plot_is_no_formula(rendered, tmp_path):
    names = ["$\\frac{", "pay $5 or $6", SCRIPT]
    plot_class_accuracy([ClassScore(name, 4, 2, 0.5, 0.5, names[0], 2) for name in names], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
