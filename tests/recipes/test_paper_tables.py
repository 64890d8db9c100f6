"""`paper_table.py`: every table of the three papers, its rows as runs of `run_line.py`, and the pages of results."""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from table_rows import run_here

from action_llm.model_files import ModelFileError
from action_llm_datasets.folder_lock import writing
from action_llm_recipes import paper_table
from action_llm_recipes.common.launching import parse
from action_llm_recipes.paper_tables import execution, page
from action_llm_recipes.paper_tables.definitions import MEASURES, PAPERS, find_table, read_tables
from action_llm_recipes.paper_tables.results import Measured, TableResults, _hits, _statistics, _to_hex
from action_llm_recipes.paper_tables.runs import draws_of, runs_of
from action_llm_recipes.pipeline.settings import read_yaml

TABLES = [(paper, number) for paper in PAPERS for number in read_tables(paper)]
FSDP = "accelerate launch --config_file recipes/accelerate_configs/fsdp.yaml"
TINY = {
    "tokenizer": {"max_steps": 1, "per_device_train_batch_size": 4, "warmup_steps": 1, "use_cpu": True},
    "sft": {"max_steps": 1, "per_device_train_batch_size": 2, "warmup_steps": 1, "use_cpu": True},
}
TINY_SKELETONS = TINY | {"tokenizer": TINY["tokenizer"] | {"hidden_width": 8, "codebook_size": 16, "window": 16}}
TINY_VIDEOS = TINY | {
    "features": {"num_segments": 4, "height": 32, "width": 32, "versions": 2},
    "tokenizer": TINY["tokenizer"] | {"hidden_size": 16, "num_heads": 2, "num_layers": 1, "intermediate_size": 16},
}
TINY_EVENTS = TINY | {
    "features": {"num_segments": 10, "height": 32, "width": 32, "versions": 2},
    "lvlm": {"max_steps": 1, "per_device_train_batch_size": 2, "warmup_steps": 1, "use_cpu": True},
    "sft": TINY["sft"] | {"prefix_length": 2, "prefix_layers": [0, 1]},
}


def test_every_table_and_figure_of_the_papers_is_there():
    numbers = {paper: list(read_tables(paper)) for paper in PAPERS}
    assert numbers["llm_ar"] == list("12345678")
    assert sorted(numbers["lvlm_var"]) == [*"123456", "figure-1", "figure-2"]
    assert numbers["vt_lvlm_ar"] == ["I", "II", "III", "IV", "V", "VI"]


@pytest.mark.parametrize(("paper", "number"), TABLES)
def test_tables_are_complete(paper, number):
    table = find_table(paper, number)
    assert table.reference is None or table.reference in table.rows
    for row in table.rows.values():
        assert len(row.claims) == len(table.columns), row.name
        assert not (row.is_quoted and (row.settings or row.preset_settings)), row.name
        assert not row.idea or table.reference is not None
    protocols = [name for column in table.columns if column not in MEASURES for name in draws_of(column)]
    assert table.measures_accuracy == bool(protocols)


def test_claims_agree_with_the_list_of_published_results():
    """The list was typed from the papers by others."""
    path = Path(os.environ.get("ACTION_LLM_TEST_DATA", "../shared/data")).parent / "facts" / "published_results.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    facts = json.loads(path.read_text(encoding="utf-8"))

    def claims(paper, number):
        return {row.title: row.claims for row in find_table(paper, number).rows.values()}

    for paper, name in (("llm_ar", "LLM-AR"), ("lvlm_var", "LVLM-VAR"), ("vt_lvlm_ar", "VT-LVLM-AR")):
        ours = claims(paper, "1")
        listed = {entry["method"].partition(" (")[0]: entry for entry in facts["seed_table1_ntu"]}
        columns = ("ntu60_xsub", "ntu60_xview", "ntu120_xsub", "ntu120_xset")
        assert name in ours
        for title, values in ours.items():
            assert values == tuple(listed[title][column] for column in columns), title
    for number, key in (("2", "seed002_table2_toyota"), ("3", "seed002_table3_uav")):
        columns = ("cs", "cv1", "cv2") if number == "2" else ("xsub",)
        listed = {entry["method"]: tuple(entry[column] for column in columns) for entry in facts[key]}
        assert claims("llm_ar", number) == listed
    listed = {
        entry["method"]: tuple(entry[column] for column in ("toyota_cs", "toyota_cv1", "toyota_cv2", "uav_top1"))
        for entry in facts["seed000_table5"]
    }
    assert claims("lvlm_var", "5") == listed
    ablations = facts["ablations"]
    values = {number: sorted(value[0] for value in claims("llm_ar", number).values()) for number in "45678"}
    assert values["4"] == [87.6, *sorted(ablations["seed002_ntu120_xset"][name] for name in (
        "full", "w/o L_Zipf", "w/o L_context", "w/o MMD alignment"))]  # fmt: skip
    assert values["5"] == [ablations["seed002_ntu120_xset"]["w/o discretization"], 91.5]
    assert values["6"] == [ablations["seed002_ntu120_xset"]["Euclidean codebook (w/o C_H)"], 91.5]
    assert values["7"] == [ablations["seed002_ntu120_xset"]["all-parameter tuning instead of LoRA"], 91.5]
    assert values["8"] == sorted(ablations["seed002_ntu120_unseen"].values())
    listed = [tuple(value) for name, value in ablations["seed000_ntu60"].items() if name != "columns"]
    assert sorted(claims("lvlm_var", "2").values()) == sorted(listed)
    listed = sorted(ablations["seed000_ntu60_xsub_sensitivity"].values())
    assert sorted(value[0] for value in claims("lvlm_var", "6").values()) == listed
    for number, key in (("II", "seed001_ntu60_xsub"), ("V", "seed001_ntu60_xsub_M"), ("VI", "seed001_ntu60_xsub_K")):
        listed = sorted(ablations[key].values())
        assert sorted(value[0] for value in claims("vt_lvlm_ar", number).values()) == listed


@pytest.mark.parametrize(("paper", "number"), TABLES)
def test_a_dry_run_shows_every_row_and_runs_nothing(paper, number, tmp_path, caplog):
    caplog.set_level("INFO")
    arguments = paper_table.PaperTableArguments(
        paper, number, dry_run=True, output_dir=str(tmp_path / "runs"), pages=str(tmp_path / "pages")
    )
    paper_table.main(arguments)
    for row in find_table(paper, number).rows.values():
        assert row.title in caplog.text
    assert not (tmp_path / "pages").exists()


def test_the_time_of_a_dry_run_counts_shared_stages_once(recipes, llm, tmp_path, caplog):
    caplog.set_level("INFO")
    arguments = paper_table.PaperTableArguments(
        "llm_ar", "7", dataset="simulated-xsub", data_dir=str(recipes.recordings), dry_run=True, settings=TINY_SKELETONS,
        output_dir=str(tmp_path / "runs"),
    )  # fmt: skip
    paper_table.main(arguments)
    assert re.search(r"2 runs: about .* on one core", caplog.text)
    runs = paper_table.planned_runs(arguments, find_table("llm_ar", "7"), find_table("llm_ar", "7").rows, [0])
    full, lora = runs
    assert full.stages["encode"] == lora.stages["encode"] and full.stages["sft"] != lora.stages["sft"]
    without = paper_table.planned_runs(arguments, find_table("llm_ar", "4"), find_table("llm_ar", "4").rows, [0])
    assert without[-1].stages == lora.stages and without[0].stages["tokenizer"] != lora.stages["tokenizer"]


def distinct_runs(paper, dataset, data_dir, settings, folder, **options):
    """A run for each different row of all tables of a paper that does not need more than the data."""
    further = {f"{stage}.{name}": value for stage, values in settings.items() for name, value in values.items()}
    runs = {}
    for table in read_tables(paper).values():
        rows = {
            name: row for name, row in table.rows.items() if not row.is_quoted and "unseen" not in table.columns[0]
        }
        for run in runs_of(table, rows, dataset, str(data_dir), "paper", [0], further | options, folder):
            runs.setdefault(run.settings_key, run)
    return list(runs.values())


def test_each_row_of_llm_ar_runs(recipes, cache, llm, tmp_path):
    options = {"llm_name_or_path": llm, "encodings": 2}
    runs = distinct_runs("llm_ar", "simulated-xsub", recipes.recordings, TINY_SKELETONS, tmp_path, **options)
    assert {run.row.name for run in runs} >= {
        "without_biases", "without_zipf", "without_context", "without_mmd", "without_discretisation", "euclidean", "all_tuning",
    }  # fmt: skip
    assert all(run_here(run, cache)["recordings"] == 12 for run in runs)
    # Eight tokenizers at most: rows of one tokenizer share it.
    assert len(list((tmp_path / "stages").glob("tokenizer-*"))) == len(runs) - 1


def test_each_row_of_lvlm_var_runs(videos, backbone, cache, llm, tmp_path):
    options = {"llm_name_or_path": llm, "backbone": backbone, "encodings": 2}
    runs = distinct_runs("lvlm_var", "folder-video", videos, TINY_VIDEOS, tmp_path, **options)
    needing = {"resnet50", "llava", "minigpt4"}
    runs = [run for run in runs if run.row.name not in needing]
    assert {run.row.name for run in runs} >= {"without_vst", "zero_shot", "full", "r_4", "r_32", "k_256", "k_1024"}
    assert all(run_here(run, cache)["recordings"] == 2 for run in runs)


def test_each_row_of_vt_lvlm_ar_runs(videos, backbone, cache, llm, tmp_path):
    options = {"llm_name_or_path": llm, "backbone": backbone, "encodings": 2}
    runs = distinct_runs("vt_lvlm_ar", "folder-video", videos, TINY_EVENTS, tmp_path, **options)
    names = {"without_quantisation", "uniform_pooling", "without_coherence", "full", "zero_shot", "quarter", "k_4096"}
    assert {run.row.name for run in runs} >= names
    assert all(run_here(run, cache)["recordings"] == 2 for run in runs)


@pytest.fixture
def arguments(recipes, llm, cache, tmp_path, monkeypatch):
    """Makes the arguments of a tiny Table 7 of LLM-AR."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))

    def make(**options):
        settings = {"paper": "llm_ar", "table": "7", "dataset": "simulated-xsub", "data_dir": str(recipes.recordings)}
        settings |= {"settings": TINY_SKELETONS, "llm_name_or_path": llm, "baselines": False, "jobs": 2}
        folders = {"output_dir": str(tmp_path / "runs"), "pages": str(tmp_path / "pages")}
        return paper_table.PaperTableArguments(**settings | folders | options)

    return make


@pytest.mark.slow
def test_from_the_command_to_the_page_and_on_with_a_failing_row(arguments, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    paper_table.main(arguments())
    path = tmp_path / "pages" / "llm_ar_7_simulated-xsub.json"
    text = path.with_suffix(".md").read_text()
    for part in ("| all tuning | 79.6 |", "| LLM-AR (LoRA) | 91.5 |", "`sft.method full`", "--dataset ntu120-xset"):
        assert part in text
    assert (
        "| LoRA instead of tuning all weights | [LLM-AR, Table 7](llm_ar_7_simulated-xsub.md) | +11.9 |"
        in (path.parent / "README.md").read_text()
    )
    content = json.loads(path.read_text())
    for name in ("all_tuning", "lora"):
        result = content["rows"][name]["runs"]["simulated-xsub"]["0"]
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(result["correct"]), np.uint8), count=12)
        assert bits.mean() == pytest.approx(result["accuracy"])
        assert result["statistics"]["trained_parameters"] > 0
    # The same command has nothing to do.
    monkeypatch.setattr("subprocess.Popen", None)
    paper_table.main(arguments())
    assert text == path.with_suffix(".md").read_text()
    monkeypatch.undo()
    # Another seed, of which one row fails: the other is on the page.
    broken = arguments(seeds=[1], rows=["all_tuning", "lora"])
    run = paper_table.planned_runs(broken, find_table("llm_ar", "7"), find_table("llm_ar", "7").rows, [1])[0]
    run.share_stages()
    (run.stages["sft"] / "config.yaml").write_text("other: settings")
    (run.stages["sft"] / "record.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"1 of 2 rows failed, the others are on the page\. all tuning, seed 1: .*config\.yaml"
    ):
        paper_table.main(broken)
    assert set(json.loads(path.read_text())["rows"]["lora"]["runs"]["simulated-xsub"]) == {"0", "1"}


def made_up_results(path, draws, metric="top_1"):
    """Results of two rows: draw → (labels, hits of the first row for each seed, hits of the second)."""
    results = TableResults(path)
    results.content["about"] = {
        "paper": "llm_ar", "table": "6", "dataset": "utd-mhad", "draws": list(draws), "preset": "paper",
        "preset_key": "scaled", "hold_out": False, "backbone": None, "llm_name_or_path": None, "settings": {},
        "words": ["--paper", "llm_ar", "--table", "6"],
    }  # fmt: skip
    for draw, (labels, *rows) in draws.items():
        results.content["recordings"][draw] = {"number": len(labels), "metric": metric, "labels": labels, "names": ""}
        for name, seeds in zip(("euclidean", "hyperbolic"), rows, strict=True):
            runs = results.content["rows"].setdefault(name, {"runs": {}})["runs"].setdefault(draw, {})
            for seed, hits in enumerate(seeds):
                hits = np.array(hits, bool)
                classes = sorted(set(labels))
                per_class = np.mean([hits[np.array(labels) == label].mean() for label in classes])
                accuracy = hits.mean() if metric == "top_1" else per_class
                runs[str(seed)] = {
                    "accuracy": accuracy, "correct": _to_hex(hits), "statistics": {}, "seconds": 60.0, "settings_key": "k",
                }  # fmt: skip
    results.save()
    return TableResults(path)


@pytest.mark.parametrize("metric", ["top_1", "mean_per_class"])
def test_the_difference_is_that_of_the_accuracies(metric, tmp_path):
    generator = np.random.default_rng(0)
    draws = {}
    for name, number in (("a", 40), ("b", 75)):
        labels = generator.integers(0, 4, number).tolist()
        draws[name] = (labels, *(generator.random((8, number)) < share for share in (0.3, 0.8)))
    results = made_up_results(tmp_path / "results.json", draws, metric)
    estimate = results.difference("euclidean", "hyperbolic")
    accuracies = [results.accuracy(name).mean for name in ("euclidean", "hyperbolic")]
    assert estimate.mean == pytest.approx(accuracies[0] - accuracies[1])
    assert estimate.low < estimate.mean < estimate.high < 0 and estimate.seeds == 8
    # An independent bootstrap over recordings and seeds, within draws, and within classes for their mean.
    means = []
    for _ in range(2000):
        parts, seeds = [], generator.integers(0, 8, 8)
        for labels, first, second in draws.values():
            groups = np.array(labels) if metric == "mean_per_class" else np.zeros(len(labels))
            for group in np.unique(groups):
                values = (first.astype(float) - second)[seeds].mean(axis=0)[groups == group]
                parts.append((generator.choice(values, len(values)).mean(), 1 / len(draws) / len(np.unique(groups))))
        means.append(100 * sum(value * weight for value, weight in parts))
    half = (np.percentile(means, 97.5) - np.percentile(means, 2.5)) / 2
    assert estimate.high - estimate.mean == pytest.approx(half, rel=0.2)


def test_recordings_of_a_person_and_class_are_a_group(tmp_path):
    labels = ["a", "b"] * 20
    hits = np.repeat(np.random.default_rng(0).random((1, 10)) < 0.5, 4, axis=1)
    results = made_up_results(tmp_path / "r.json", {"utd-mhad": (labels, hits, np.ones((1, 40), bool))})
    alone = results.difference("euclidean", "hyperbolic")
    names = {f"r{place:02d}": ("c", str(place // 4)) for place in range(40)}
    results.check_split(
        "utd-mhad",
        {name: label for name, (label, _) in names.items()},
        {name: person for name, (_, person) in names.items()},
    )
    grouped = results.difference("euclidean", "hyperbolic")
    assert grouped.mean == alone.mean and grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert "10 people were tested" in page.table_page(results)


def test_rows_that_fail_alike_are_not_compared(tmp_path):
    hits = np.random.default_rng(0).random((1, 40)) < 0.3
    results = made_up_results(tmp_path / "llm_ar_6.json", {"utd-mhad": ([0, 1] * 20, hits, hits)})
    assert "| the same recordings are correct |" in page.table_page(results)
    assert "| the same recordings are correct |" in page.summary_page(tmp_path)


def test_accuracies_need_all_draws_and_differences_equal_seeds(tmp_path):
    labels = [0, 1] * 10
    hits = np.zeros((3, 20), bool)
    hits[1:, :10] = True
    draws = dict.fromkeys(("a", "b", "c"), (labels, hits, hits[:1] | True))
    results = made_up_results(tmp_path / "r.json", draws)
    estimate = results.difference("euclidean", "hyperbolic")
    assert estimate.mean == pytest.approx(-100)
    assert estimate.seeds == 1, "the one that both rows have"
    assert results.accuracy("euclidean").mean == pytest.approx(100 / 3)
    assert re.search(r"\*\*−100\.0 \(.*\), 1 seed\*\*", page.table_page(results))
    del results.content["rows"]["euclidean"]["runs"]["b"]
    assert results.accuracy("euclidean") is None and results.difference("euclidean", "hyperbolic") is None
    assert "| *only 2 of 3 draws* | – |" in page.table_page(results)


def test_pages_name_the_models_and_settings_of_their_runs(tmp_path):
    arguments = paper_table.PaperTableArguments(
        "lvlm_var", "2", dataset="utd-mhad-video", data_dir="x", backbone="microsoft/resnet-50",
        llm_name_or_path=str(tmp_path), settings={"sft": {"max_steps": 10}},
    )  # fmt: skip
    about = paper_table.about(arguments, find_table("lvlm_var", "2"))
    assert str(tmp_path.parent) not in json.dumps(about), "no path of the machine"
    text = page._settings_sentences(find_table("lvlm_var", "2"), about)
    assert "with `--sft.max_steps 10` in all rows" in text
    assert f"the language model `{tmp_path.name}` and the visual encoder `microsoft/resnet-50`" in text
    assert "two million" not in text


@pytest.mark.parametrize(("paper", "number"), TABLES)
def test_full_size_rows_have_the_batch_of_their_paper(paper, number):
    """A row is one process on one device; the YAML files are written for several."""
    table = find_table(paper, number)
    rows = {name: row for name, row in table.rows.items() if not row.is_quoted and table.measures_accuracy}
    for run in runs_of(table, rows, draws_of(table.paper_dataset)[0], "DATA", "paper", [0], {}, Path("runs")):
        for stage in ("tokenizer", "sft"):
            values = read_yaml(run.options.get(f"{stage}_config"), stage, paper)[0]
            values |= {
                name.split(".")[1]: value for name, value in run.options.items() if name.startswith(f"{stage}.")
            }
            batch = values["per_device_train_batch_size"] * values.get("gradient_accumulation_steps", 1)
            assert batch == values.get("total_batch_size", batch) == (128 if paper == "vt_lvlm_ar" else 256)


@pytest.mark.parametrize(("paper", "number"), TABLES)
def test_further_commands_of_tables_are_understood(paper, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(Path(paper_table.__file__).parent)
    for folder in ("DATA", "RUN/sentences", "RUN/tokenizer/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "RUN" / "tokenizer" / "model" / "config.json").write_text('{"model_type": "action_vqvae"}')
    (tmp_path / "RUN" / "sentences" / "record.json").write_text("{}")
    (tmp_path / "RUN" / "sft" / "model").mkdir(parents=True)
    (tmp_path / "RUN" / "sft" / "model" / "config.json").write_text('{"model_type": "action_llm"}')
    table = find_table(paper, number)
    launched = [row.full_size_command.replace(FSDP, "python") for row in table.rows.values() if row.full_size_command]
    for command in (*table.commands, *launched):
        _, script, *options = command.replace("DATASET", "utd-mhad-video").split()
        module = "action_llm_recipes." + script.removeprefix("recipes/").removesuffix(".py").replace("/", ".")
        parse(importlib.import_module(module).ARGUMENTS, options)


def test_a_page_marks_what_was_not_run_and_what_differs(tmp_path):
    labels = list(range(4)) * 10
    hits = {"euclidean": np.zeros((1, 40)), "hyperbolic": np.ones((1, 40))}
    results = made_up_results(tmp_path / "results.json", {"utd-mhad": (labels, hits["euclidean"], hits["hyperbolic"])})
    text = page.table_page(results)
    assert re.search(r"\| w/o hyperbolic codebook \| 89.7 \| 0.0 \| \*\*−100.0 \(.*\)\*\* \|", text)
    del results.content["rows"]["euclidean"]
    text = page.table_page(results)
    assert "| w/o hyperbolic codebook | 89.7 | *not run here* | – |" in text


def test_a_row_waits_only_for_stages_that_a_running_row_has_to_make(tmp_path):
    """A stage that the running row skipped, such as the small LVLM beside LLaVA, holds up nobody."""
    arguments = paper_table.PaperTableArguments("vt_lvlm_ar", "II", dry_run=True, output_dir=str(tmp_path))
    table = find_table("vt_lvlm_ar", "II")
    first, second = paper_table.planned_runs(
        arguments, table, table.select(["vt_lvlm_ar", "uniform_pooling"], "scaled"), [0]
    )
    for run in (first, second):
        run.share_stages()
    running = [execution._Process(first, None, None, 0, 0.0)]
    assert first.stages["features"] == second.stages["features"] and execution._waits(second, running)
    (first.stages["features"] / "record.json").write_text("{}")
    assert execution._waits(second, running), "the small LVLM may come next"
    (first.stages["tokenizer"] / "config.yaml").write_text("")
    assert execution._waits(second, running), "an earlier start may have left it"
    with writing(first.stages["tokenizer"]):
        assert not execution._waits(second, running)
    assert not execution._waits(second, [])


def test_results_of_other_settings_are_only_replaced_on_demand(tmp_path):
    labels = [0, 1] * 4
    results = made_up_results(tmp_path / "r.json", {"utd-mhad": (labels, np.zeros((1, 8)), np.ones((1, 8)))})

    def arguments(**settings):
        return paper_table.PaperTableArguments(
            "llm_ar", "6", dataset="utd-mhad", data_dir="x", output_dir=str(tmp_path), **settings
        )

    table = find_table("llm_ar", "6")
    runs = paper_table.planned_runs(arguments(), table, table.rows, [0])
    harmless = paper_table.planned_runs(
        arguments(settings={"tokenizer": {"logging_steps": 7}}), table, table.rows, [0]
    )
    assert [run.settings_key for run in runs] == [run.settings_key for run in harmless]
    yaml = read_yaml(runs[0].options.get("tokenizer_config"), "tokenizer", "llm_ar")[0]
    for batch, is_same in ((yaml["per_device_train_batch_size"], True), (3, False)):
        spelt_out = {"tokenizer": {"per_device_train_batch_size": batch}}
        again = paper_table.planned_runs(arguments(settings=spelt_out), table, table.rows, [0])
        assert (again[0].settings_key == runs[0].settings_key) == is_same
        assert (again[0].stages["tokenizer"] == runs[0].stages["tokenizer"]) == is_same
    results.content["rows"]["hyperbolic"]["runs"]["utd-mhad"]["0"]["settings_key"] = runs[1].settings_key
    with pytest.raises(
        ValueError, match=r"r\.json has results of other settings: euclidean \(seed 0\)\. .*--replace true"
    ):
        paper_table.drop_outdated(arguments(), table, results)
    assert results.accuracy("euclidean") is not None
    paper_table.drop_outdated(arguments(replace=True), table, results)
    assert results.accuracy("euclidean") is None and results.accuracy("hyperbolic").mean == 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokeniser": {"max_steps": 3}}, "no stage tokeniser"),
        ({"tokenizer": {"max_step": 3}}, "max_step"),
        ({"tokenizer": {"max_steps": "three"}}, "max_steps"),
    ],
)
@pytest.mark.parametrize("dataset", ["utd-mhad", "ntu120-xset"])  # the latter's language model is on the Hub
def test_a_dry_run_checks_settings_without_recordings(dataset, settings, message, monkeypatch):
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", None)
    arguments = paper_table.PaperTableArguments("llm_ar", "4", dataset=dataset, dry_run=True, settings=settings)
    with pytest.raises(ValueError, match=message):
        paper_table.main(arguments)


def test_results_are_those_of_the_recordings(tmp_path):
    results = made_up_results(tmp_path / "r.json", {"utd-mhad": ([0, 1], np.zeros((1, 2)), np.ones((1, 2)))})
    results.check_split("utd-mhad", {"a": "wave", "b": "clap"}, {})
    results.check_split("utd-mhad", {"b": "clap", "a": "wave"}, {})
    with pytest.raises(
        ValueError, match=r"r\.json has results on other recordings of utd-mhad than those of --data_dir"
    ):
        results.check_split("utd-mhad", {"a": "wave", "b": "wave"}, {})


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("{}", "about"),
        ('{"a": 1}', "about"),
        ("[]", ""),
        ('"about": {}, "rows": {}', "about"),
        ('"rows": {"lora": {}}', "rows.lora"),
        ('"rows": {"lora": {"runs": {"a": []}}}', "rows.lora"),
        ('"rows": {"lora": {"runs": {"a": {"0": {}}}}}', "rows.lora"),
    ],
)
def test_other_json_files_are_no_results(content, field, tmp_path, caplog):
    if content.startswith('"'):
        about = '{"paper": "llm_ar", "table": "7", "dataset": "a", "preset": "paper", "draws": ["a"]}'
        content = f'{{"about": {about}, "recordings": {{}}, "splits": {{}}, "baselines": {{}}, {content}}}'
    path = tmp_path / "notes.json"
    path.write_text(content)
    with pytest.raises(ModelFileError, match=rf"notes\.json.*{field}"):
        TableResults(path)
    assert page.summary_page(tmp_path).startswith("# Which of the papers' ideas")
    assert "Left out of the summary" in caplog.text and str(path) in caplog.text


def test_titles_and_numbers_on_a_page():
    assert page._lower_first("LoRA or tuning of all weights") == "LoRA or tuning of all weights"
    assert page._lower_first("Number M of events") == "number M of events"
    assert page._signed(-0.04) == "+0.0"
    assert [page._value(Measured(value, value, value, 1)) for value in (0.01234, 999, 1234.5)] == [
        "0.0123",
        "999",
        "1,234",
    ]


def test_hits_are_in_the_order_of_names(tmp_path):
    with open(tmp_path / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["sample_id", "label", "prediction"], ["b", "x", "x"], ["a", "y", "x"]])
    hits, labels = _hits(tmp_path / "predictions.csv")
    assert hits.tolist() == [False, True] and labels == {"a": "y", "b": "x"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": "9"}, "LLM-AR has no table '9'. It has 1, 2, 3, 4, 5, 6, 7, 8"),
        ({"rows": ["without_zip"]}, "has no row 'without_zip' that can be run.*without_zipf"),
        ({"table": "1", "rows": ["st_gcn"]}, "no row 'st_gcn' that can be run"),
        ({"dataset": "utd-mhad-video"}, "LLM-AR reads skeletons, got utd-mhad-video"),
        ({"paper": "vt_lvlm_ar", "table": "II", "dataset": "utd-mhad-video", "preset": "small"}, "no `small` preset"),
        ({"dataset": "utd-mahd"}, "utd-mahd.*utd-mhad"),
        ({"data_dir": None}, "--data_dir is missing"),
        ({"seeds": []}, "expected one or more seeds"),
        ({"seeds": [0, -1]}, r"0 or above, got \[0, -1\]"),
        ({"table": "8"}, "Table 8 is about unseen classes, as in .*, got utd-mhad"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"pages": __file__}, "--pages: expected a folder, got the file"),
        (
            {"settings": {"tokenizer": {"zipf_weight": 1}}},
            "zipf_weight: the rows without_zipf have values of",
        ),
    ],
)
def test_wrong_arguments(options, message):
    valid = {"paper": "llm_ar", "table": "4", "dataset": "utd-mhad", "data_dir": "x"}
    with pytest.raises(ValueError, match=message):
        paper_table.PaperTableArguments(**valid | options)


def test_a_wrong_setting_names_the_row_before_anything_is_trained(arguments, tmp_path):
    with pytest.raises(ValueError, match=r"row all_tuning: --tokenizer\.max_step.*max_steps"):
        paper_table.main(arguments(settings={"tokenizer": {"max_step": 1}}))
    assert not list((tmp_path / "runs").glob("rows/*"))


def one_run(paper, number, row, dataset, folder):
    """The run of a row of a table with seed 0."""
    table = find_table(paper, number)
    (run,) = runs_of(table, {row: table.rows[row]}, dataset, "DATA", "paper", [0], {}, folder)
    return run


def test_statistics_have_the_units_of_the_columns(tmp_path):
    """Of a run of 100 recordings, four sentences each, which 50 steps of 16 sentences train in two hours."""
    from safetensors.numpy import save_file

    run = one_run("lvlm_var", "4", "lora", "utd-mhad-video", tmp_path)
    run.share_stages()
    weights = {"model.language_model.a": np.zeros((10, 30)), "model.action_model.b": np.zeros(77)}
    (run.stages["sft"] / "model").mkdir()
    save_file(weights, run.stages["sft"] / "model" / "model.safetensors")
    cost = {"parameters": 400, "trainable_parameters": 60, "seconds_per_step": 1.0, "peak_memory_gb": 3.0}
    records = {
        "sft": {
            "cost": cost,
            "seconds": 7200.0,
            "settings": {"steps": 50, "batch_size": 16},
            "hardware": "CPU, 2 cores",
        },
        "evaluation": {"scoring_seconds": 30.0, "metrics": {"recordings": 20, "encodings": 3}},
        "tokenizer": {"metrics": {"mmd": 0.5}},
    }
    for stage, record in records.items():
        (run.stages[stage] / "record.json").write_text(json.dumps(record))
    train = {"recordings": 100, "words_per_recording": {"mean": 7.5}, "codes_used": 9, "entropy": 2.5, "zipf_js": 0.1}
    (run.stages["encode"] / "tokens.json").write_text(json.dumps({"train": train}))
    statistics = _statistics(run)
    expected = {
        "trained_parameters": 6e-5,
        "trained_share": 20.0,
        "hours_per_epoch": 2 / 8,
        "seconds_per_recording": 0.5,
    }
    assert {name: statistics[name] for name in expected} == pytest.approx(expected)
    assert statistics["tokens_per_recording"] == 7.5 and statistics["mmd"] == 0.5
    assert "memory_gb" not in statistics, "of a process on a CPU"
    records["sft"]["hardware"] = "1 x H100"
    (run.stages["sft"] / "record.json").write_text(json.dumps(records["sft"]))
    assert _statistics(run)["memory_gb"] == 3.0


def test_results_have_the_measure_and_time_of_their_run(tmp_path):
    run = one_run("llm_ar", "2", "llm_ar", "smarthome-cs", tmp_path / "runs")
    run.share_stages()
    evaluation = run.folder / "evaluation"
    measures = {"compared_by": "mean_per_class", "mean_per_class": {"estimate": 0.75}, "top_1": {"estimate": 2 / 3}}
    (evaluation / "metrics.json").write_text(json.dumps(measures))
    lines = ["sample_id,label,prediction", "a,x,x", "b,x,y", "c,y,y"]
    (evaluation / "predictions.csv").write_text("\n".join(lines) + "\n")
    for stage in ("tokenizer", "sft"):
        (run.stages[stage] / "record.json").write_text(json.dumps({"seconds": 90.0}))
    results = TableResults(tmp_path / "results.json")
    results.content["about"] = {
        "paper": "llm_ar",
        "table": "2",
        "dataset": "smarthome-cs",
        "preset": "paper",
        "draws": [run.dataset],
    }
    results.add(run)
    results = TableResults(tmp_path / "results.json")
    assert results.accuracy("llm_ar").mean == 75 and results.minutes("llm_ar").mean == 3


def test_the_pages_here_are_those_of_their_results():
    folder = Path(__file__).parents[2] / "model_cards" / "results" / "tables"
    for path in folder.glob("*.json"):
        assert path.with_suffix(".md").read_text(encoding="utf-8") == page.table_page(TableResults(path)), path
    assert (folder / "README.md").read_text(encoding="utf-8") == page.summary_page(folder)


def test_a_page_of_claims_needs_no_recordings(tmp_path):
    folders = {"pages": str(tmp_path), "output_dir": str(tmp_path / "runs")}
    arguments = paper_table.PaperTableArguments("llm_ar", "1", claims_only=True, **folders)
    paper_table.main(arguments)
    text = (tmp_path / "llm_ar_1_ntu60-xsub.md").read_text()
    assert "| LLM-AR | 95 | 98.4 | 88.7 | 91.5 | *not run here* |" in text
    assert "python recipes/paper_table.py --paper llm_ar --table 1 --dataset ntu60-xsub --data_dir DATA" in text


def test_a_row_waits_for_another_command(tmp_path, caplog):
    caplog.set_level("INFO")
    run = one_run("llm_ar", "4", "llm_ar", "utd-mhad", tmp_path)
    run.share_stages()
    assert not execution._is_taken(run)
    script = "import sys, time; from action_llm_datasets.folder_lock import writing\n"
    script += "with writing(sys.argv[1]): print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, run.stages["tokenizer"]], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        assert execution._is_taken(run) and execution._is_taken(run)
        assert caplog.text.count("is being written") == 1
    finally:
        other.kill()
        other.wait()
    assert not execution._is_taken(run)


def test_a_transformer_reads_the_features_of_each_seed_once(tmp_path, monkeypatch):
    """A row with an encoder of its own says nothing of the others'."""
    from action_llm_recipes.baselines import run_baselines

    arguments = paper_table.PaperTableArguments(
        "lvlm_var", "2", dataset="utd-mhad-video", data_dir="x", output_dir=str(tmp_path), rows=["resnet50", "lvlm_var"],
        seeds=[3, 1],
    )  # fmt: skip
    table = find_table("lvlm_var", "2")
    runs = paper_table.planned_runs(arguments, table, arguments.selected(table), arguments.seeds)
    own = {run.seed: run.stages["features"] for run in runs if run.row.name == "lvlm_var"}
    for run in runs:
        run.share_stages()
        (run.stages["features"] / "record.json").write_text("{}")
    read = []

    def trained(options, data):
        read.append(Path(data.data_dir))
        assert (options.methods, options.seeds, options.split) == (["transformer"], 1, "test")
        return {"accuracy": {"transformer": {"seeds": [len(read) / 10]}}}

    monkeypatch.setattr(run_baselines, "main", trained)
    results = TableResults(tmp_path / "results.json")
    paper_table.run_features_baseline(arguments, runs, results)
    paper_table.run_features_baseline(arguments, runs, results)
    assert sorted(read) == sorted(own.values())
    expected = {seed: (read.index(folder) + 1) / 10 for seed, folder in own.items()}
    assert results.features_baseline("utd-mhad-video") == expected
    assert json.loads((tmp_path / "results.json").read_text())["baselines"]["utd-mhad-video"]
