"""Candidates on several data sets at once: ranks, the file of a choice, runs that are not repeated, the page."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from table_rows import run_here

from action_llm_datasets.names import check_protocol
from action_llm_recipes import choose_settings
from action_llm_recipes.baselines import run_baselines
from action_llm_recipes.choose_settings import (
    Choice,
    ChoiceArguments,
    EvaluatedSet,
    Results,
    mean_and_range,
    mean_ranks,
    read_choice,
    walk_table,
    write_page,
)

ROOT = Path(__file__).parents[2]
CHOICES, PAGES = sorted((ROOT / "recipes" / "choices").glob("*.yaml")), ROOT / "model_cards" / "results"
TINY = {
    "tokenizer.max_steps": 1, "tokenizer.per_device_train_batch_size": 4, "tokenizer.warmup_steps": 1,
    "tokenizer.hidden_width": 8, "tokenizer.codebook_size": 16, "tokenizer.window": 16, "tokenizer.length": 16,
    "sft.max_steps": 1, "sft.per_device_train_batch_size": 2, "sft.warmup_steps": 1, "encodings": 2, "test_encodings": 1,
}  # fmt: skip


def results_with(tmp_path, accuracies):
    results = Results(tmp_path / "results.json")
    results.content["sets"] = {
        name: {
            candidate: {str(seed): {"accuracy": value, "walk": {}} for seed, value in enumerate(values)}
            for candidate, values in of_set.items()
        }
        for name, of_set in accuracies.items()
    }
    return results


def test_mean_ranks(tmp_path):
    results = results_with(
        tmp_path,
        {
            "one": {"a": [0.9, 0.7], "b": [0.7], "c": [0.6]},  # a 1, b 2, c 3
            "two": {"a": [0.5], "b": [0.6], "c": [0.6]},  # a 3, b and c 1.5
            "not all": {"a": [1.0], "b": [0.0]},
        },
    )
    assert mean_ranks(results, ["one", "two", "not all"], ["a", "b", "c"]) == {"a": 2.0, "b": 1.75, "c": 2.25}
    assert mean_ranks(results, ["not all"], ["a", "b", "c"]) == {}


def test_results_of_former_settings_are_not_averaged(tmp_path):
    (tmp_path / "evaluation").mkdir()
    metrics = {"recordings": 10, "compared_by": "top_1", "top_1": {"estimate": 0.5}}
    (tmp_path / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    results = Results(tmp_path / "results.json")

    class Run(SimpleNamespace):
        __hash__ = object.__hash__

    def finished(key, seed):
        return Run(settings_key=key, seed=seed, row=SimpleNamespace(name="a"), folder=tmp_path, stages={})

    for run in (finished("before", 0), finished("before", 1)):
        results.add("one", run)
    now = finished("now", 0)
    results.drop_former({now: "one"})
    assert results.accuracy("one", "a") is None, "a page shows them beside the settings of now"
    assert not Results(tmp_path / "results.json").content["sets"]["one"]["a"], "the file has what the page has"
    results.add("one", now)
    assert list(Results(tmp_path / "results.json").content["sets"]["one"]["a"]) == ["0"]
    assert results.has("one", now) and not results.has("one", finished("before", 1))
    assert not results.has("one", now, with_walk=True)
    results.add_walk("one", now, {"codes": 0.4})
    results.add("one", now)  # checked again
    assert Results(tmp_path / "results.json").has("one", now, with_walk=True)


def test_a_set_does_not_change_its_recordings(tmp_path):
    """Else candidates on the one stand beside baselines on the other."""
    results = Results(tmp_path / "results.json")
    results.check_sets({"one": EvaluatedSet("msr", "folder", ("01", "03"))})
    results.add_baselines("one", {"graph": [0.9]})
    results = Results(tmp_path / "results.json")
    results.check_sets({"one": EvaluatedSet("elsewhere", "folder", ("01", "03"))})
    with pytest.raises(ValueError, match=r"sets, one: .* other recordings of this name \(folder 01 03\): rename"):
        results.check_sets({"one": EvaluatedSet("msr", "folder")})
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="no results of choose_settings"):
        Results(tmp_path / "metrics.json")


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.stem)
def test_choices_of_the_repository(path):
    """Each can be run, and the results beside its page are of the settings of today."""
    choice = read_choice(str(path))
    for of_set in choice.sets.values():
        check_protocol(of_set.dataset)
    results = Results(PAGES / f"{'choice_skeletons' if path.stem == 'skeletons' else path.stem}.json")
    arguments = ChoiceArguments(str(path), [f"{of_set.data}=x" for of_set in choice.sets.values()])
    for name, of_set in choice.sets.items():
        for run in choose_settings.runs_on(arguments, choice, name, of_set):
            for seed, result in results.content["sets"].get(name, {}).get(run.row.name, {}).items():
                assert result["settings_key"] == run.settings_key, (
                    f"{name}, {run.row.name}, seed {seed}: other settings"
                )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paper": "mine"}, "paper: expected one of llm_ar"),
        ({"candidates": {}}, "candidates: expected names and their settings"),
        ({"candidates": {"a": 3}}, "candidates: expected names"),
        ({"sets": {"one": {"data": "sim"}}}, "sets, one: expected data, dataset.*missing"),
        ({"sets": {"one": {"data": "sim", "dataset": "utd-mhad", "seed": 1}}}, "sets, one:.*unexpected"),
        (
            {"sets": {"one": {"data": "x", "dataset": "utd-mhad", "held_out_subjects": "12"}}},
            "must be a list of subjects, found '12'",
        ),
        ({"candidates": {"a": {"tokeniser.mixup": 0}}}, "candidates, a: --tokeniser.mixup: this run has no stage"),
        ({"candidates": {"a": {"tokenizer.mixupp": 0}}}, "candidates, a: .*mixupp.*mixup"),
        ({"candidates": {"a": {"encoding": 3}}}, "candidates, a: run_line.py has no option 'encoding'.*encodings"),
        ({"further": 1}, "expected paper, candidates and sets"),
        ({"sets": {"one": {"data": "sim", "dataset": "utd-mhdd"}}}, "sets, one: .*no protocol.*did you mean utd-mhad"),
        ({"sets": {"one": {"data": "x", "dataset": "utd-mhad-unseen"}}}, "sets, one: .*no protocol"),
        ({"sets": {"one": {"data": "x", "dataset": "utd-mhad", "held_out_subjects": []}}}, "list of subjects"),
        ({"sets": {1: {"data": "x", "dataset": "utd-mhad"}}}, "sets: expected names, found 1"),
        (
            {"sets": {name: {"data": "x", "dataset": "utd-mhad"} for name in ("people, 1", "people; 1")}},
            "'people, 1' and 'people; 1' .* share folders",
        ),
        ({"candidates": {"../a": {}}}, "candidates: expected names, found '../a'"),
        ({"candidates": {"a": {"seed": 1}}}, "candidates, a: seed cannot be chosen"),
        ({"candidates": {"a": {"hold_out": False}}}, "candidates, a: hold_out cannot be chosen"),
    ],
)
def test_bad_files_are_refused(change, message, tmp_path):
    good = {"paper": "llm_ar", "candidates": {"a": {}}, "sets": {"one": {"data": "sim", "dataset": "utd-mhad"}}}
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(good))
    assert read_choice(str(tmp_path / "choice.yaml")).candidates == {"a": {}}
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(good | change))
    with pytest.raises(ValueError, match=message):
        read_choice(str(tmp_path / "choice.yaml"))


def test_bad_arguments_are_refused(tmp_path):
    good = {"paper": "llm_ar", "candidates": {"a": {}}, "sets": {"one": {"data": "sim", "dataset": "utd-mhad"}}}
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(good))
    path = str(tmp_path / "choice.yaml")
    for settings, message in (
        ({"data": ["sim"]}, "expected NAME=FOLDER, got sim"),
        ({"data": ["other=x"]}, "the folder of sim is missing: add sim=FOLDER"),
        ({"data": ["sim=x"], "candidates": ["b"]}, "b is none of a"),
        ({"data": ["sim=x"], "seeds": [-1]}, "--seeds: expected one or more seeds"),
        ({"data": ["sim=x"], "jobs": 0}, "--jobs must be at least 1"),
        ({"data": ["sim=x"], "page": "choice.json"}, "choice.json is where the results in JSON go"),
    ):
        with pytest.raises(ValueError, match=message):
            ChoiceArguments(choice=path, **settings)


def test_the_best_baseline_has_the_best_mean(tmp_path):
    results = Results(tmp_path / "results.json")
    assert results.best_baseline("one") == [] and results.num_baseline_seeds("one") == 0
    results.add_baselines("one", {"kernel_ridge": [0.6], "graph": [0.9, 0.4], "transformer": [0.7, 0.65]})
    assert results.best_baseline("one") == [0.7, 0.65] and results.num_baseline_seeds("one") == 2
    assert mean_and_range(results.best_baseline("one")) == "67.5 (65.0–70.0)"
    assert mean_and_range([0.6]) == "60.0" and mean_and_range([]) == ""


def test_the_table_tells_which_cells_have_fewer_seeds(tmp_path):
    results = results_with(tmp_path, {"one": {"a": [0.5, 0.6]}})
    results.content["sets"]["one"]["a"]["0"]["walk"] = {"codes": 0.4}
    for baselines, cell in (([0.7], "70.0, 1 of 2 seeds"), ([0.7, 0.6], "65.0 (60.0–70.0)")):
        results.add_baselines("one", {"kernel_ridge": [0.3], "graph": baselines})
        assert (
            walk_table(results, ["one"], "a")[-1]
            == f"| one | {cell} |  | 40.0, 1 of 2 seeds |  | 55.0 (50.0–60.0) | 2 |"
        )


def test_the_page_tells_its_seeds_and_has_the_command_of_all_its_results(tmp_path):
    """Also if the last call was about one candidate, or one seed."""
    sets = {name: EvaluatedSet("sim", "simulated-xsub") for name in ("one", "two")}
    choice = Choice("llm_ar", {"a": {}, "b": {"tokenizer.mixup": 0}}, sets)
    arguments = SimpleNamespace(choice="choice.yaml", folders={"sim": "x"}, seeds=[7], walk=False)
    results = results_with(tmp_path, {"one": {"a": [0.9], "b": [0.7]}, "two": {"a": [0.5]}})
    results.add_baselines("one", {"kernel_ridge": [0.6]})
    write_page(tmp_path / "page.md", arguments, choice, results)
    page = (tmp_path / "page.md").read_text()
    assert "Top-1 accuracies in per cent. The mean rank is over the 1 of 2 sets" in page
    assert "| a | 90.0 | 50.0 | 1.00 |" in page and "| b | 70.0 |  | 2.00 |" in page
    assert "recordings* | 60.0 |  | |" in page and "choose_settings.py --choice choice.yaml --data sim=FOLDER" in page
    results = results_with(tmp_path, {"one": {"a": [0.9, 0.8], "b": [0.7]}, "two": {"a": [0.5, 0.6]}})
    results.content["sets"]["two"]["a"]["1"]["walk"] = {"codes": 0.5}
    write_page(tmp_path / "page.md", arguments, choice, results)
    page = (tmp_path / "page.md").read_text()
    assert "Top-1 accuracies in per cent, means over 2 seeds. " in page
    assert "| a | 85.0 | 55.0 | 1.00 |" in page and "| b | 70.0, 1 of 2 seeds |  | 2.00 |" in page
    assert "recordings* | 60.0, 1 of 2 seeds |  | |" in page
    assert "choose_settings.py --choice choice.yaml --seeds 0 1 --walk true --data sim=FOLDER" in page


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_measurement_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch, jobs):
    """Two empty folders: in this process, and in processes of their own."""
    of_set = {"data": "sim", "dataset": "simulated-xsub"}
    choice = {"paper": "llm_ar", "candidates": {"a": {}}, "sets": {"one": of_set, "two": of_set}}
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(choice))
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("action_llm_recipes.paper_tables.execution.run_rows", lambda runs, jobs, on_finished: {})
    settings = {"choice": str(tmp_path / "choice.yaml"), "data": [f"sim={tmp_path / 'empty'}"], "jobs": jobs}
    with pytest.raises(ValueError, match=r"^2 failed, .*baselines of one: .*baselines of two: .*empty"):
        choose_settings.main(ChoiceArguments(**settings, output_dir=str(tmp_path / "runs")))


@pytest.fixture
def ran(cache, monkeypatch):
    """The candidates that were run, in this process and beside quick baselines; `paper_table.py` tests `run_rows` itself."""
    names, arguments = [], run_baselines.BaselineArguments

    def run_rows(runs, jobs, on_finished):
        for run in runs:
            names.append(run.row.name)
            run_here(run, cache)
            on_finished(run)
        return {}

    def quick(**settings):
        return arguments(**{"methods": ["kernel_ridge"], "transformer_steps": 2} | settings)

    monkeypatch.setattr("action_llm_recipes.paper_tables.execution.run_rows", run_rows)
    monkeypatch.setattr(run_baselines, "BaselineArguments", quick)
    monkeypatch.setattr(choose_settings, "WALK_ENCODINGS", 2)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    return names


@pytest.mark.slow
def test_a_choice_runs_once_and_goes_on(recipes, llm, ran, tmp_path):
    own = TINY | {"llm_name_or_path": llm}
    choice = {
        "paper": "llm_ar",
        "candidates": {"usual": own, "body": own | {"tokenizer.streams": ["body", "motion", "path"]}},
        "sets": {
            "a person": {"data": "sim", "dataset": "simulated-xsub", "held_out_subjects": ["2"]},
            "cameras": {"data": "sim", "dataset": "simulated-xview"},
        },
    }
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(choice))
    settings = {"choice": str(tmp_path / "choice.yaml"), "data": [f"sim={recipes.recordings}"]}
    settings |= {"output_dir": str(tmp_path / "runs"), "jobs": 1}  # measures in this process
    results = choose_settings.main(ChoiceArguments(**settings, candidates=["usual"]))
    assert set(results["sets"]) == {"a person", "cameras"} and set(results["baselines"]) == {"a person", "cameras"}
    results = choose_settings.main(ChoiceArguments(**settings))
    assert "from joints to the language model" not in (tmp_path / "runs" / "choice.md").read_text()
    assert ran == ["usual", "usual", "body", "body"], "a candidate was run again"
    person, cameras = (results["sets"][name]["body"]["0"] for name in ("a person", "cameras"))
    assert person["recordings"] == 12 and cameras["recordings"] == 20
    page = (tmp_path / "runs" / "choice.md").read_text()
    assert re.search(r"\| usual \| [\d.]+ \| [\d.]+ \| [12]\.\d\d \|", page)
    assert "`tokenizer.streams ['body', 'motion', 'path']`" in page and str(tmp_path) not in page
    results = choose_settings.main(ChoiceArguments(**settings, candidates=["body"], walk=True))
    walk = results["sets"]["cameras"]["body"]["0"]["walk"]
    assert set(walk) == {"latents", "codes", "one_version"} and not results["sets"]["cameras"]["usual"]["0"]["walk"]
    page = (tmp_path / "runs" / "choice.md").read_text()
    assert "## body: from joints to the language model" in page and "## usual" not in page
    assert "--choice choice.yaml --walk true --data" in page
    before = list(ran)
    del choice["candidates"]["usual"]
    (tmp_path / "choice.yaml").write_text(yaml.safe_dump(choice))
    choose_settings.main(ChoiceArguments(**settings, walk=True))
    page = (tmp_path / "runs" / "choice.md").read_text()
    assert page.startswith("# Settings on several data sets\n\n## body: from joints") and "mean rank" not in page
    assert re.search(r"\| cameras \|( [\d.]+ \|){5} 1 \|", page)
    assert ran == before, "a candidate was run again"
