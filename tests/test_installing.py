"""What is installed: ranges, the lock, versions, and what importing the package costs."""

import configparser
import importlib
import inspect
import json
import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from fresh_python import python
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import action_llm
from action_llm import versions

ROOT = Path(__file__).resolve().parents[1]
LOCK = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
PINS = {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in LOCK)}
# Their minor releases have broken what this project uses of them.
ENDS_AT_A_MINOR = ("transformers", "peft", "trl", "datasets", "huggingface_hub", "accelerate")


def requirements(*extras: str) -> list[Requirement]:
    """Those of setup.cfg, which an editable install may know in an earlier state."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [config["options"]["install_requires"]]
    texts += [config["options.extras_require"][extra] for extra in extras]
    return [
        Requirement(line) for text in texts for line in text.splitlines() if line.strip() and not line.startswith("#")
    ]


@pytest.mark.parametrize(
    "requirement",
    requirements("tensorboard", "trackio", "qlora", "smollm2", "demo", "serve", "cluster", "test"),
    ids=lambda one: one.name,
)
def test_every_range_has_two_ends(requirement):
    assert sorted(one.operator for one in requirement.specifier) == ["<", ">="]
    if requirement.name in ENDS_AT_A_MINOR:
        (end,) = (one.version for one in requirement.specifier if one.operator == "<")
        locked = [int(part) for part in PINS[canonicalize_name(requirement.name)].split(".")[:2]]
        assert [int(part) for part in end.split(".")] == [locked[0], locked[1] + 1]


@pytest.mark.parametrize("requirement", requirements("test"), ids=lambda one: one.name)
def test_the_lock_is_within_the_ranges(requirement):
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_the_lock_has_everything_and_names_no_machine():
    """The closure of the requirements is in it; no index, no label of a build, not the project."""
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in LOCK), LOCK
    assert "action-llm" not in PINS
    wanted, seen = {(canonicalize_name(one.name), frozenset(one.extras)) for one in requirements("test")}, set()
    while wanted - seen:
        name, extras = (wanted - seen).pop()
        seen.add((name, extras))
        for text in requires(name) or ():
            one = Requirement(text)
            environments = [{"extra": extra} for extra in extras or {""}]
            if one.marker is None or any(one.marker.evaluate(environment) for environment in environments):
                wanted.add((canonicalize_name(one.name), frozenset(one.extras)))
    cuda = ("nvidia", "cuda", "triton")
    assert not [name for name in PINS if name.startswith(cuda)]
    missing = {name for name, _ in seen if name not in PINS and not name.startswith(cuda)} - {"setuptools"}
    assert not missing


def test_the_tested_ranges_are_those_of_setup_cfg():
    ranges = {one.name: one.specifier for one in requirements()}
    for name, tested in versions.TESTED.items():
        assert Requirement(name + tested).specifier == ranges[name], name
    assert version("action-llm") == versions.__version__


def test_versions_that_were_not_tested_are_told(monkeypatch):
    installed = {"transformers": "4.57.6", "torch": "2.13.0+cpu", "peft": "0.21.2"}
    monkeypatch.setattr(versions.importlib.metadata, "version", installed.__getitem__)
    (sentence,) = versions.untested_versions()
    assert sentence == (
        f"transformers 4.57.6 is installed, and ActionLLM {versions.__version__} was tested with "
        f"transformers{versions.TESTED['transformers']}."
    )


def test_transformers_4_is_told_at_import(tmp_path):
    """The sentence alone, from the package and from a copy of one of its files."""
    (tmp_path / "transformers-4.57.6.dist-info").mkdir()
    (tmp_path / "transformers-4.57.6.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 4.57.6\n")
    done = python("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import action_llm")
    assert done.returncode == 1
    assert re.search(
        r"\nImportError: transformers 4\.57\.6 is installed, and ActionLLM .* was tested with .*\.$",
        done.stderr.strip(),
    )


def test_the_table_of_releases_has_every_row_and_names_no_failure():
    """As `.ci/matrix` wrote it: rows of the script, numbers and no errors."""
    rows = re.findall(r'^    "([\w.]+)": \(', (ROOT / ".ci" / "matrix").read_text("utf-8"), re.M)
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = page.partition("<!-- matrix -->")[2].partition("<!-- end of matrix -->")[0]
    written = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.strip().splitlines()[2:]]
    assert [cells[0] for cells in written] == rows and len(rows) >= 6
    for cells in written:
        assert max(map(float, cells[3:7])) <= 1e-5 and cells[7] == "yes" and cells[-1].endswith(" passed"), cells


def test_citation_and_changelog_have_this_version():
    assert f"version: {versions.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"## {versions.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


IMPORT = """
import json, sys
import action_llm
alone = sorted(name for name in sys.modules if name.startswith(("action_llm", "transformers", "torch")))
from transformers import AutoConfig
before = set(sys.modules)
print(json.dumps([alone, sorted(n for n in before if n.startswith("action_llm.")), "transformers.modeling_utils" in before]))
"""


def test_importing_imports_nothing():
    """In a Python of its own: one that was forked would have torch already."""
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    alone, ours, heavy = json.loads(done.stdout.splitlines()[-1])
    assert alone == ["action_llm", "action_llm.versions"]
    assert ours == ["action_llm.versions"] and not heavy


KNOWN = """
import json, sys
first, folder = sys.argv[1:]
if first == "transformers":
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, pipeline
import action_llm
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline,
)
parts = [auto.from_pretrained(folder) for auto in (AutoConfig, AutoModel, AutoFeatureExtractor, AutoProcessor)]
assert isinstance(parts[1], AutoModel._model_mapping[type(parts[0])])
parts.append(AutoModelForVideoClassification.from_config(parts[0]))
parts.append(pipeline("action-recognition", model=folder))
fresh = [AutoModel.from_config(AutoConfig.for_model(kind, **settings)) for kind, settings in (
    ("action_vqvae", {"hidden_width": 8, "codebook_size": 4, "codebook_dim": 8}),
    ("resnet3d", {"hidden_sizes": [8], "depths": [1]}),
)]
print(json.dumps([f"{type(part).__module__}.{type(part).__name__}" for part in parts + fresh]))
assert type(parts[1]) is action_llm.ActionLLMForClassification
"""


@pytest.mark.parametrize("first", ["transformers", "action_llm"])
def test_the_auto_classes_know_ours(first):
    """Whichever is imported first."""
    stored = ROOT / "tests" / "modeling" / "stored" / "action_llm"
    done = python("-c", KNOWN, first, str(stored))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [
        "action_llm.configuration_action_llm.ActionLLMConfig",
        "action_llm.modeling_action_llm.ActionLLMForClassification",
        "action_llm.feature_extraction_skeleton.SkeletonFeatureExtractor",
        "action_llm.processing_action_llm.ActionLLMProcessor",
        "action_llm.modeling_action_llm.ActionLLMForClassification",
        "action_llm.pipeline_action_recognition.ActionRecognitionPipeline",
        "action_llm.modeling_action_vqvae.ActionVQVAEModel",
        "action_llm.modeling_resnet3d.ResNet3DModel",
    ]


# The modules that import transformers in other orders than the rest; each case is a process.
IMPORTED_FIRST = ("compatibility", "configuration_vtem", "label_scoring", "language_models", "visual_encoder")


@pytest.mark.parametrize(
    "first",
    [
        *(f"import action_llm.{module}" for module in IMPORTED_FIRST),
        *(f"from action_llm import {name}" for name in ("ActionLLMConfig", "ResNet3DConfig", "ActionLLMProcessor")),
        "from action_llm import *",
        "import action_llm, importlib; importlib.reload(action_llm)",
        "import action_llm, inspect; inspect.getmembers(action_llm)",
    ],
)
def test_anything_can_be_imported_first(first):
    done = python("-c", f"{first}\n{FIRST}")
    assert done.returncode == 0, done.stderr[-2000:]


FIRST = """
from transformers import AutoConfig, AutoModel
config = AutoConfig.for_model("action_vqvae", hidden_width=8, codebook_size=4, codebook_dim=8)
model = AutoModel.from_config(config)
import action_llm
assert type(config) is action_llm.ActionVQVAEConfig and type(model) is action_llm.ActionVQVAEModel
"""


def test_public_names_are_there_and_others_are_not():
    for name in action_llm.__all__:
        assert getattr(action_llm, name) is not None and name in dir(action_llm)
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = action_llm.Nonsense
    assert sys.modules["action_llm"].ActionLLMConfig.model_type == "action_llm"


PACKAGES = {"action_llm": "modeling", "action_llm_datasets": "datasets_scripts", "action_llm_recipes": "recipes"}


def test_what_is_read_at_run_time_is_installed():
    """Packages and files: a wheel runs without a checkout."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    packages = set(config["options"]["packages"].split())
    folders = {
        package: ROOT.joinpath(PACKAGES[package.split(".")[0]], *package.split(".")[1:]) for package in packages
    }
    data = {package: re.split(r",\s*", text) for package, text in config["options.package_data"].items()}
    installed = {path for package, patterns in data.items() for one in patterns for path in folders[package].glob(one)}
    for folder in PACKAGES.values():
        for path in (ROOT / folder).rglob("*"):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            if path.suffix == ".py":
                assert path.parent in folders.values(), path
            else:
                assert path in installed, path


def test_commands_that_are_typed_are_functions_without_arguments():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    for line in config["options.entry_points"]["console_scripts"].split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        command, module, name = re.fullmatch(r"(action-llm-[a-z]+) = ([\w.]+):(\w+)", line.strip()).groups()
        function = getattr(importlib.import_module(module), name)
        assert not [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.default is parameter.empty
        ], command
