"""Pushing runs to a Hub and loading them again: model cards, results, refusals."""

import json
import os
import re
import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from fresh_python import python
from hub_server import TOKEN, USER, HubServer
from huggingface_hub import ModelCard, parse_eval_result_entries
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers.dynamic_module_utils import get_imports

import action_llm
from action_llm import ActionLLMForClassification
from action_llm_recipes.hub import model_page, push

RECIPES = Path(push.__file__).resolve().parents[1]
STORED = Path(__file__).parent / "stored"


@pytest.fixture(scope="module")
def run(recipes, tokenizer, sentences, tmp_path_factory):
    """Folder of a finished run: sft, evaluation, lexicon."""
    from action_llm_recipes import token_lexicon

    folder = tmp_path_factory.mktemp("line")
    model = recipes.sft(tokenizer, sentences, folder / "sft")
    recipes.evaluate(model, sentences, folder / "evaluation")
    token_lexicon.main(token_lexicon.LexiconArguments(tokenizer, sentences, str(folder / "lexicon")))
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


def launch(hub, home, *arguments, expected: int = 0, script: str | None = None, cwd=None) -> str:
    """Output of a recipe, or of a script in a process without the project."""
    command = [RECIPES / arguments[0], *arguments[1:]] if script is None else ["-c", script, *arguments]
    done = python(*command, env=hub.environment(home), cwd=cwd)
    assert done.returncode == expected, done.stderr[-4000:]
    assert TOKEN not in done.stdout + done.stderr, "the access token is printed"
    return done.stdout + done.stderr


def test_the_page_lists_every_package_that_the_uploaded_code_needs():
    """transformers refuses to load code if a package is missing that a file of it imports outside `try`."""
    listed = {name for needed in model_page.NEEDED for name in (needed, *dict(model_page._required_by(needed)))}
    packages = packages_distributions()
    for path in Path(action_llm.__file__).parent.glob("*.py"):
        imported = [name for name in get_imports(path) if name not in sys.stdlib_module_names]
        missing = [name for name in imported if listed.isdisjoint(map(canonicalize_name, packages[name]))]
        assert not missing, f"{path.name} imports {missing}"
    assert {canonicalize_name(Requirement(text).name) for text in model_page.requirements()} == set(model_page.NEEDED)


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.S)


# As the toolkit of Inference Endpoints: from the repository's folder, with requests and answers in JSON.
ENDPOINT = """
import base64, importlib.util, json

spec = importlib.util.spec_from_file_location("handler", "endpoint/handler.py")
handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
endpoint = handler.EndpointHandler("endpoint")
content = base64.b64encode(open("recording.skeleton", "rb").read()).decode()
inputs = {"name": "recording.skeleton", "content": content}
answer = endpoint(json.loads(json.dumps({"inputs": inputs, "parameters": {"top_k": 2, "explain": True}})))
assert json.loads(json.dumps(answer)) == recognise("recording.skeleton", top_k=2, explain=True) and answer[0]["reason"]
row = {"keypoints": [[[[0.1 * joint, 0.2, 2.0] for joint in range(25)]]] * 40, "shape": [40, 1, 25, 3]}
row |= {"layout": "kinect25", "fps": 30}
assert json.loads(json.dumps(endpoint({"inputs": row}))) == recognise(row)
"""


@pytest.mark.slow
def test_what_is_listed_is_what_is_pushed_in_one_commit_and_the_page_is_true(run, hub, tmp_path, recordings):
    listed = launch(hub, tmp_path, "hub/push.py", run, "tester/dry", "--dry_run")
    assert ("model", "tester/dry") not in hub.repositories and "nothing was pushed" in listed
    launch(hub, tmp_path, "hub/push.py", run, "tester/model")
    repository = hub.repositories["model", "tester/model"]
    assert repository.private and repository.titles[1:] == ["Model, page and results"]
    files = hub.files("tester/model")
    sizes = {path: int(size.replace(",", "")) for size, path in re.findall(r"^ *([\d,]+)  (\S+)$", listed, re.M)}
    del files[".gitattributes"]
    assert sizes.keys() == files.keys() and sizes["model.safetensors"] == len(files["model.safetensors"])
    assert {
        "adapter/adapter_model.safetensors",
        "lexicon.json",
        "record.json",
        "processor_config.json",
    } <= files.keys()
    assert {"pipeline_action_recognition.py", "feature_extraction_skeleton.py"} <= files.keys()

    card = ModelCard(files["README.md"].decode())
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    top_1 = round(100 * metrics["top_1"]["estimate"], 2)
    assert card.data.eval_results[0].metric_value == top_1 and "simulated" in card.data.tags
    assert card.data.license == "other", "the terms of the language model apply"
    for part in (
        "> **Simulated data.**",
        f"| {top_1:.1f} |",
        "performers",
        "One seed:",
        "## Limits",
        "CVPR 2024",
        "LoRA",
    ):
        assert part in card.content, part
    assert all(f"pictures/{name}" in files for name in re.findall(r"\(pictures/([^)]+)\)", card.content))
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/simulated-xsub.yaml"]))
    benchmark = "tester/skeleton-action-recognition"
    assert (entry.dataset_id, entry.task_id, entry.value) == (benchmark, "simulated-xsub", top_1)
    assert "S001" not in files["lexicon.json"].decode(), "names of recordings are not published"
    assert json.loads(files["lexicon.json"])[0]["description"], "the lexicon of the run is not the one that was pushed"

    # The code of the model card, unchanged, without the project.
    shutil.copy(next(recordings.glob("*.skeleton")), tmp_path / "recording.skeleton")
    for path, content in hub.files("tester/model").items():
        (tmp_path / "endpoint" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "endpoint" / path).write_bytes(content)
    pipeline_code, *others = blocks(card.content)
    for code in (pipeline_code + ENDPOINT, *others):
        output = launch(
            hub, tmp_path / "reader", script="import sys; sys.modules['action_llm'] = None\n" + code, cwd=tmp_path
        )
        assert "hand waving" in output or any(name in output for name in ("cheer up", "hugging", "kicking"))

    # Another push of the same run deletes files of an earlier push that it lacks, and no others.
    own = {"model-00001-of-00002.safetensors": b"x", "merges.txt": b"x"}
    others = {"onnx/model.safetensors": b"x", "scripts/train.py": b"x", "pictures/mine/a.png": b"x", "notes.md": b"x"}
    hub.repositories["model", "tester/model"].commit(hub.files("tester/model") | own | others)
    launch(hub, tmp_path, "hub/push.py", run, "tester/model")
    assert not own.keys() & hub.files("tester/model").keys() and others.keys() <= hub.files("tester/model").keys()


@pytest.mark.slow
def test_the_code_can_have_a_repository_of_its_own(run, hub, tmp_path, tokenizer):
    for model, name in ((run, "tester/weights"), (Path(tokenizer).parent, "tester/tokens")):
        launch(hub, tmp_path, "hub/push.py", model, name, "--code_repo", "tester/code")
        code = [path for path in hub.files(name) if path.endswith(".py")]
        assert code == (["handler.py"] if name == "tester/weights" else []), "Inference Endpoints look for it here"
    assert (
        "tester/code--modeling_action_llm.ActionLLMForClassification"
        in hub.files("tester/weights")["config.json"].decode()
    )
    assert {"modeling_action_llm.py", "modeling_action_vqvae.py"} <= hub.files("tester/code").keys()
    hub.repositories["model", "tester/code"].commit(
        hub.files("tester/code") | {"README.md": b"mine", "config.json": b"{}"}
    )
    launch(hub, tmp_path, "hub/push.py", run, "tester/weights", "--code_repo", "tester/code")
    assert hub.files("tester/code")["README.md"] == b"mine" and "config.json" in hub.files("tester/code")
    assert "another name" in launch(
        hub, tmp_path, "hub/push.py", run, "tester/x", "--code_repo", "tester/x", expected=2
    )
    assert "runs the code in `tester/code`" in hub.files("tester/weights")["README.md"].decode()
    page = ModelCard(hub.files("tester/tokens")["README.md"].decode())
    assert "LLM-AR: action model on simulated-xsub" in page.content and "codes used" in page.content
    script = """
import sys
sys.modules["action_llm"] = None
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor, pipeline
AutoModel.from_pretrained("tester/tokens", trust_remote_code=True)
AutoFeatureExtractor.from_pretrained("tester/tokens", trust_remote_code=True)
AutoProcessor.from_pretrained("tester/weights", trust_remote_code=True)
print(type(pipeline("action-recognition", model="tester/weights", trust_remote_code=True, device="cpu")).__name__)
"""
    assert "ActionRecognitionPipeline" in launch(hub, tmp_path, script=script)


def test_several_seeds_have_a_spread_and_other_settings_are_refused(run, copy, tmp_path):
    record = json.loads((copy / "evaluation" / "record.json").read_text())
    other = json.loads(json.dumps(record))
    other["model"]["seed"], other["metrics"]["top_1"]["estimate"] = 7, 1.0
    folder = tmp_path / "seed7"
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(other))
    both = [str(folder), str(copy / "evaluation")]
    files, _ = push.repository_files(copy, "me/x", evaluations=both)
    page = files["README.md"].decode()
    own = 100 * record["metrics"]["top_1"]["estimate"]
    assert f"Over 2 seeds: top-1 accuracy {(own + 100) / 2:.1f} ({own:.1f}–100.0)" in page
    assert page.index(f"| {own:.1f} |") < page.index("| 100.0 |"), "the evaluation of these weights is not the first"
    assert (
        f"over 2 seeds: top-1 accuracy {(own + 100) / 2:.1f} ({own:.1f}–100.0)"
        in files[".eval_results/simulated-xsub.yaml"].decode()
    )

    for evaluation, path in ((record, copy / "evaluation"), (other, folder)):
        averaged = evaluation | {"metrics": evaluation["metrics"] | {"encodings": 24}}
        (path / "record.json").write_text(json.dumps(averaged))
    files, _ = push.repository_files(copy, "me/x", evaluations=both)
    assert (
        files["README.md"].decode().count(", 24 versions averaged |") == 2
        and "versions=24" in files["README.md"].decode()
    )
    assert "24 versions averaged" in files[".eval_results/simulated-xsub.yaml"].decode()
    (copy / "evaluation" / "record.json").write_text(json.dumps(record))
    with pytest.raises(push.PushError, match="not of the same recordings, or average different numbers of versions"):
        push.repository_files(copy, "me/x", evaluations=both)
    (folder / "record.json").write_text(json.dumps(other))
    with pytest.raises(push.PushError, match="none of the evaluations is of the model"):
        push.repository_files(copy, "me/x", evaluations=[str(folder)])
    for change, message in (
        ({"split": "held_out"}, "not of the same recordings"),
        ({"unseen": True}, "not of the same recordings"),
    ):
        (folder / "record.json").write_text(json.dumps(other | {"metrics": other["metrics"] | change}))
        with pytest.raises(push.PushError, match=message):
            push.repository_files(copy, "me/x", evaluations=both)
    with pytest.raises(push.PushError, match="expected evaluations of different seeds"):
        push.repository_files(copy, "me/x", evaluations=[str(copy / "evaluation"), str(run / "evaluation")])
    other["model"]["settings"]["lora_r"] = 64
    (folder / "record.json").write_text(json.dumps(other))
    with pytest.raises(push.PushError, match="evaluates a model of other data or settings"):
        push.repository_files(copy, "me/x", evaluations=both)


def departures_on(page: str) -> dict[tuple[str, str], tuple[str, str]]:
    """The table of departures from the paper: stage and setting → the paper's value and the model's."""
    section = page.partition("## Departures from the paper\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {(stage, setting): (paper, here) for stage, setting, paper, here in rows[1:]}


def test_a_page_lists_the_settings_that_depart_from_the_paper(run, copy):
    """Those of the record of the run, of all its stages and of the evaluation, and no others."""
    files, _ = push.repository_files(run, "me/x")
    rows = departures_on(files["README.md"].decode())
    assert rows["action model", "codes start at k-means centres"] == ("none (not described)", "yes")
    assert rows["language model", "rank of LoRA"] == ("64 (Section 4.2)", "4")
    assert not {"codebook", "trained weights", "dropout of LoRA"} & {setting for _, setting in rows}
    assert not [stage for stage, _ in rows if stage == "evaluation"], "one version is read"

    for folder in (copy / "sft" / "model", copy / "sft"):
        record = json.loads((folder / "record.json").read_text())
        record |= {"method": "full", "settings": record["settings"] | {"hidden_dropout": 0.2, "objective": "classes"}}
        (folder / "record.json").write_text(json.dumps(record))
    path = copy / "evaluation" / "record.json"
    evaluation = json.loads(path.read_text())
    evaluation["metrics"]["encodings"] = 24
    path.write_text(json.dumps(evaluation | {"model": record}))
    files, _ = push.repository_files(copy, "me/x")
    other = departures_on(files["README.md"].decode())
    assert ("language model", "rank of LoRA") not in other, "a model without LoRA has no rank"
    added = {
        ("language model", "trained weights"): ("lora (Section 3.2)", "full"),
        ("language model", "training loss"): ("words (Eq. 13)", "classes"),
        ("language model", "dropout in the language model"): ("none (not described)", "0.2"),
        ("evaluation", "versions of a recording whose class probabilities are averaged"): (
            "1 (no others described)",
            "24",
        ),
    }
    assert other == {name: row for name, row in rows.items() if name in other} | added


def test_a_page_is_found_by_task_paper_data_set_and_base_model(copy):
    """What the Hub filters by, read back with the classes of its own client."""
    model = copy / "sft" / "model"
    record, config = json.loads((model / "record.json").read_text()), json.loads((model / "config.json").read_text())
    evaluation = json.loads((copy / "evaluation" / "record.json").read_text())

    def card_of(method: str, dataset: str, benchmark: str | None = None) -> ModelCard:
        changed = record | {"method": method, "sentences": record["sentences"] | {"dataset": dataset}}
        (model / "record.json").write_text(json.dumps(changed))
        return ModelCard(model_page.model_page(model, "me/x", [evaluation], benchmark=benchmark))

    (model / "config.json").write_text(json.dumps(config | {"llm_name_or_path": "HuggingFaceTB/SmolLM2-135M"}))
    card = card_of("lora", "ntu60-xsub+utd-mhad")
    assert card.data.pipeline_tag == "video-classification"
    assert {"action-recognition", "skeleton-based-action-recognition", "llm-ar"} <= set(card.data.tags)
    assert card.data.datasets == ["me/skeleton-action-recognition"] and card.data.metrics == ["accuracy"]
    assert card_of("lora", "utd-mhad", "you/splits").data.datasets == ["you/splits"]
    # The Hub makes the tag arxiv:2404.00532 of this link.
    assert "https://arxiv.org/abs/2404.00532" in card.content
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M" and card.data.base_model_relation == "adapter"
    relations = {
        method: card_of(method, "utd-mhad").data.get("base_model_relation") for method in model_page.RELATIONS
    }
    assert relations == model_page.RELATIONS
    assert card_of("none", "utd-mhad").data.get("base_model_relation") is None, "nothing was trained"
    for private in ("folder", "simulated-xsub", "utd-mhad+folder:mine"):
        assert card_of("lora", private).data.datasets is None, f"{private} has no published splits"
    (result,) = [result for result in card.data.eval_results if result.metric_type == "accuracy"]
    assert result.task_type == "video-classification"
    assert result.metric_value == round(100 * evaluation["metrics"]["top_1"]["estimate"], 2)
    # The range of versions that were tested.
    (transformers,) = [text for text in model_page.requirements() if text.startswith("transformers")]
    assert f"'{transformers}'" in card.content and "<" in transformers

    (model / "config.json").write_text(json.dumps(config))
    assert card_of("lora", "utd-mhad").data.base_model is None, "a language model without a repository"


@pytest.mark.parametrize(
    ("stored", "dataset", "benchmark", "is_task"),
    [
        ("llm_ar", "utd-mhad", None, True),
        ("llm_ar", "ntu60-xsub+utd-mhad", None, False),
        ("llm_ar", "ntu60-xsub+utd-mhad", "me/splits", False),
        ("lvlm_var", "utd-mhad-video", None, False),
        ("lvlm_var", "utd-mhad-video", "me/videos", True),
    ],
)
def test_results_are_only_given_as_tasks_that_a_benchmark_can_have(tmp_path, stored, dataset, benchmark, is_task):
    """`splits.py` writes no videos, and a task is one protocol."""
    model = shutil.copytree(STORED / stored, tmp_path / "model", ignore=shutil.ignore_patterns("expected.json"))
    record = json.loads((model / "record.json").read_text())
    record["sentences"]["dataset"] = dataset
    (model / "record.json").write_text(json.dumps(record))
    metrics = {"dataset": dataset, "split": "test", "recordings": 4, "calibration_error": 0.1}
    metrics |= {name: {"estimate": 0.5, "low": 0.4, "high": 0.6} for name in model_page.METRICS}
    (tmp_path / "evaluation").mkdir()
    evaluation = {"stage": "evaluate_classifier", "model": record, "metrics": metrics}
    (tmp_path / "evaluation" / "record.json").write_text(json.dumps(evaluation))
    files, _ = push.repository_files(tmp_path, "me/x", benchmark=benchmark)
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results, "the page has the result in any case"
    expected = benchmark or ("me/skeleton-action-recognition" if stored == "llm_ar" else None)
    assert card.data.datasets == (expected and [expected])
    entries = [yaml.safe_load(content) for path, content in files.items() if path.startswith(".eval_results/")]
    found = [(entry.dataset_id, entry.task_id) for (entry,) in map(parse_eval_result_entries, entries)]
    assert found == [(expected, dataset)] * is_task


def test_files_that_are_not_part_of_a_model_stop_a_push(copy, tmp_path, capsys):
    model = copy / "sft" / "model"
    for name in (
        "S001C001P001R001A023.skeleton",
        "notes.txt",
        "clips/one.mp4",
        "weights.bin",
        "rows.json",
        "data.py",
        "people.safetensors",
    ):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("{}")
        with pytest.raises(push.PushError, match=re.escape(name) + " is not part of a model"):
            push.repository_files(copy, "me/x")
        (model / name).unlink()
    config = json.loads((model / "generation_config.json").read_text())
    for note, message in (
        (os.path.expanduser("~/secret"), "contains the path of a folder on this machine"),
        ("/usr/bin", "contains a path on the machine"),
        ("hf_" + "a" * 30, "access token"),
    ):
        (model / "generation_config.json").write_text(json.dumps(config | {"note": note}))
        with pytest.raises(push.PushError, match=message):
            push.repository_files(copy, "me/x")
    (model / "generation_config.json").write_text(json.dumps(config))
    (model / "record.json").unlink()
    with pytest.raises(SystemExit):
        push.main([str(copy), "me/x", "--dry_run"])
    assert "has no record.json, from which the model card is written" in capsys.readouterr().err
    with pytest.raises(
        model_page.PageError, match=r"expected the stage sft or train_tokenizer, found 'encode_actions'"
    ):
        (model / "record.json").write_text('{"stage": "encode_actions"}')
        push.repository_files(copy, "me/x")
    for arguments, message in (
        ([tmp_path / "no", "me/x"], "there is no folder"),
        ([tmp_path, "me/x"], "contains no model"),
        ([copy, "x"], "OWNER/NAME"),
    ):
        with pytest.raises(SystemExit):
            push.main(list(map(str, arguments)))
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_weights_of_the_language_model_go_along_on_request_and_a_pipeline_can_be_pushed(
    run, hub, tmp_path, recipes
):
    here = tmp_path / "run"
    shutil.copytree(run / "sft" / "model", here / "model")
    # As if it had been trained on a language model from the Hub.
    model = ActionLLMForClassification.from_pretrained(here / "model")
    model.config.llm_name_or_path = "tester/llm"
    model.save_pretrained(here / "model")
    hub.add("tester/llm", recipes.llm)
    sizes = {}
    for name, more in (("tester/without", []), ("tester/with", ["--with_llm"])):
        launch(hub, tmp_path / "home", "hub/push.py", here, name, *more)
        sizes[name] = len(hub.files(name)["model.safetensors"])
    llm = len(hub.files("tester/llm")["model.safetensors"])
    assert sizes["tester/with"] - sizes["tester/without"] > 0.9 * llm
    assert json.loads(hub.files("tester/with")["config.json"])["llm_name_or_path"] is None
    assert "base_model: tester/llm" in hub.files("tester/without")["README.md"].decode()
    script = """
import sys
sys.modules["action_llm"] = None
import numpy as np
from transformers import pipeline
walk = np.random.default_rng(0).normal(size=(30, 25, 3))
pipelines = [pipeline("action-recognition", model=name, trust_remote_code=True, device="cpu") for name in sys.argv[1:]]
pipelines[0].push_to_hub("tester/again")
pipelines.append(pipeline("action-recognition", model="tester/again", trust_remote_code=True, device="cpu"))
print([recognise(walk)[0] == pipelines[0](walk)[0] for recognise in pipelines])
"""
    assert "[True, True, True]" in launch(hub, tmp_path / "home", "tester/without", "tester/with", script=script)


@pytest.mark.slow
def test_a_public_repository_is_not_pushed_to_by_mistake(run, hub, tmp_path):
    launch(hub, tmp_path, "hub/push.py", run, "tester/public", "--public")
    assert not hub.repositories["model", "tester/public"].private
    output = launch(hub, tmp_path, "hub/push.py", run, "tester/public", expected=2)
    assert "tester/public is public: change that on the Hub, choose another name, or push with --public." in output
    nobody = launch(hub, tmp_path / "nobody", "hub/push.py", run, "tester/x", "--dry_run")
    assert "nothing was pushed" in nobody, "--dry_run needs a login"


@pytest.mark.slow
def test_a_whole_life(hub, tmp_path, quickstart_run):
    """A quickstart run is pushed over HTTP; a new process loads it by name, classifies, explains, and gets the same scores."""
    summary, folder = quickstart_run.summary, quickstart_run.folder
    launch(hub, tmp_path / "home", "hub/push.py", folder, f"{USER}/life")
    assert {"lexicon.json", ".eval_results/simulated-xsub.yaml"} <= hub.files(f"{USER}/life").keys()
    recording = real_recording() or next((folder / "simulated_recordings").glob("*.skeleton"))
    script = """
import sys
sys.modules["action_llm"] = None
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
outputs = model(**processor(sys.argv[2]))
recording = processor.feature_extractor.read(sys.argv[2])
reason = model.explain(processor, model(**processor(recording)), recording=recording)
print(model.config.id2label[int(outputs.logits.argmax())] == reason.label, reason.text)
"""
    output = launch(hub, tmp_path / "fresh", f"{USER}/life", str(recording), script=script)
    assert "True " in output and "with a probability of" in output
    launch(
        hub, tmp_path / "fresh", "evaluate_classifier.py", "--model", f"{USER}/life",
        "--sentences", folder / "cross-subject" / "sentences", "--output_dir", tmp_path / "again",
    )  # fmt: skip
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["top_1"] == summary["cross-subject"]["top_1"]
    assert again["negative_log_likelihood"] == summary["cross-subject"]["negative_log_likelihood"]


def real_recording() -> Path | None:
    """A recorded `.skeleton` file, if there is any."""
    data = Path(os.environ.get("ACTION_LLM_TEST_DATA", RECIPES.parents[1] / "shared" / "data"))
    return next(iter(sorted(data.rglob("S0*.skeleton"))), None) if data.is_dir() else None


def test_a_page_says_what_a_run_was_and_not_what_the_paper_was(copy):
    model = copy / "sft" / "model"
    record, config = json.loads((model / "record.json").read_text()), json.loads((model / "config.json").read_text())
    record |= {"hold_out": True, "llm_training": {"stage": "small_lm", "seconds": 1.0}}
    record["sentences"] |= {"dataset": "utd-mhad", "stage": "encode_windows"}
    record["sentences"]["data"] = {
        "description": "UTD-MHAD.",
        "license": "Free for research.",
        "citation": "C. Chen",
        "simulated": False,
    }
    config["action_config"] |= {"geometry": "euclidean"}
    (model / "record.json").write_text(json.dumps(record))
    (model / "config.json").write_text(json.dumps(config))
    page = model_page.model_page(model, "me/x", [{"model": record, "metrics": metrics_of(copy)}], [])
    card = ModelCard(page)
    assert "a Euclidean codebook" in page and "hyperbolic" not in page and "UTD-MHAD." in page and "C. Chen" in page
    assert (
        "(simulated)" not in page and card.data.license == "other" and "without those of the held-out subjects" in page
    )
    assert (
        "An earlier stage was trained on `simulated-xsub`" in page
        and "Windows overlap, and windows of the same video are similar" in page
    )
    # No description of the recordings; continuous latents instead of tokens.
    del record["sentences"]["data"], record["sentences"]["tokenizer"]["data"]
    record["sentences"]["dataset"] = record["sentences"]["tokenizer"]["dataset"] = "simulated-xsub"
    config["action_config"] |= {"quantize": False}
    (model / "record.json").write_text(json.dumps(record))
    (model / "config.json").write_text(json.dumps(config))
    page = model_page.model_page(model, "me/x", [], [])
    assert (
        "does not describe its recordings" in page and "> **Simulated data.**" in page and "explain=True" not in page
    )
    assert "No evaluation was pushed with this model." in page and "no codebook" in page


def metrics_of(run: Path) -> dict:
    return json.loads((run / "evaluation" / "record.json").read_text())["metrics"]
