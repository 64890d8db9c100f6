"""Damaged and hostile model folders: a model, or an error that names the file and the field, before anything is built."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from fresh_python import python
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import CLASS_NAMES, tiny_action_model, tiny_llava, tiny_llm, tiny_recogniser, tiny_vst, tiny_vtem
from transformers import AutoConfig, AutoModel, pipeline

from action_llm import ActionLLMConfig, ActionLLMForClassification, ActionVQVAEConfig, ActionVQVAEModel, VSTConfig
from action_llm.language_models import load_language_model
from action_llm.model_files import ModelFileError

READS = ("skeletons", "videos")
LORA = {"r": 2, "target_modules": r".*language_model\..*\.(q_proj|v_proj)", "init_lora_weights": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A recogniser of each kind, and one with an adapter; not to be changed."""
    made = {}
    for reads in READS:
        model, processor = tiny_recogniser(reads)
        made[reads] = tmp_path_factory.mktemp(reads)
        model.save_pretrained(made[reads])
        processor.save_pretrained(made[reads])
    made["adapted"] = tmp_path_factory.mktemp("adapted")
    model, _ = tiny_recogniser("skeletons")
    get_peft_model(model, LoraConfig(**LORA))
    model.save_pretrained(made["adapted"])
    return made


@pytest.fixture
def copied(folders, tmp_path):
    def copy(name: str) -> Path:
        return shutil.copytree(folders[name], tmp_path / name)

    return copy


def change(path: Path, **values):
    """Sets fields of a JSON file; `a__b` is field b of object a."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in values.items():
        *parts, last = name.split("__")
        place = content
        for part in parts:
            place = place[part]
        place[last] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def fault_files(name: str, real_data: Path) -> list[Path]:
    files = sorted((real_data / "cases" / "faults").glob(f"model_*_{name}-*.{name}"))
    if not files:
        pytest.skip("no damaged files of model folders")
    return files


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_the_damaged_files_that_were_found_are_told(name, copied, real_data):
    """All of them ended in TypeError, AttributeError, AssertionError, RuntimeError or an error of huggingface_hub."""
    fault_free = {"skeletons": copied("skeletons"), "videos": copied("videos")}
    for fault in fault_files(name, real_data):
        folder = fault_free[fault.name.split("_")[1]]
        was = (folder / name).read_text(encoding="utf-8")
        shutil.copyfile(fault, folder / name)
        with pytest.raises(ModelFileError) as caught:
            AutoModel.from_pretrained(folder)
        assert Path(caught.value.path).parent == folder, fault.name
        with pytest.raises(ValueError, match=re.escape(str(folder))):
            pipeline("action-recognition", model=str(folder), trust_remote_code=True)
        try:
            AutoConfig.from_pretrained(folder)
        except ModelFileError as error:
            assert error.path == str(folder / "config.json")
        (folder / name).write_text(was, encoding="utf-8")


WRONG_FIELDS = [
    ({"action_config__reconstruction_weight": "1"}, "action_config.reconstruction_weight"),
    ({"action_config__human_weight": -0.5}, "action_config.human_weight"),
    ({"action_config__id2label": -0.5}, "action_config.id2label"),
    ({"action_config__model_type": "bert"}, "action_config.model_type"),
    ({"action_config__num_codebooks": 10**9}, "action_config.num_codebooks"),
    ({"action_config__num_residual_blocks": 10**7}, "action_config.num_residual_blocks"),
    ({"action_config__fps": float("nan")}, "action_config.fps"),
    ({"text_config__pretraining_tp": [None]}, "text_config.pretraining_tp"),
    ({"text_config__hidden_size": "32"}, "text_config.hidden_size"),
    ({"text_config__num_hidden_layers": 10**7}, "text_config.num_hidden_layers"),
    ({"text_config__vocab_size": 10**10}, "text_config.vocab_size"),
    ({"text_config__num_labels": 10**12}, "text_config.num_labels"),
    ({"text_config__rope_parameters": {"rope_theta": -0.5, "rope_type": "default"}}, "rope_theta"),
    ({"text_config__model_type": [[]]}, "text_config.model_type"),
    ({"text_config__num_attention_heads": 0}, "text_config"),
    ({"id2label": ["a", "b"]}, "id2label"),
    ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
    ({"id2label": {"0": 1}}, "id2label"),
    ({"dtype": "nn"}, "dtype"),
    ({"dtype": "int8"}, "dtype"),
    ({"architectures": 3}, "architectures"),
    ({"num_action_tokens": 8}, "num_action_tokens"),
    ({"run_length_ids": [[10**6]]}, "run_length_ids"),
    ({"custom_pipelines": {"a": json.loads("[" * 100 + "]" * 100)}}, "custom_pipelines"),
    ({"_attn_implementation": "someone/kernel"}, "_attn_implementation"),
    ({"text_config___attn_implementation": "someone/kernel"}, "text_config._attn_implementation"),
    ({"attn_implementation": {"text_config": "someone/kernel@main:f"}}, "attn_implementation"),
]


@pytest.mark.parametrize(("values", "field"), WRONG_FIELDS, ids=[", ".join(values) for values, _ in WRONG_FIELDS])
def test_a_wrong_field_is_named(values, field, copied):
    folder = copied("skeletons")
    change(folder / "config.json", **values)
    start = time.monotonic()
    with pytest.raises(ModelFileError) as caught:
        AutoModel.from_pretrained(folder)
    assert caught.value.path == str(folder / "config.json")
    assert field in caught.value.field and str(caught.value.field) in str(caught.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "values",
    [
        {"text_config__hidden_size": 10**9, "text_config__head_dim": 8},
        {"text_config__num_hidden_layers": 500},
        {"action_config__codebook_dim": 10**12},
        {"action_config__codebook_size": 10**12, "num_action_tokens": 10**12},
        {"action_config__hidden_width": 2**40},
        {"text_config": None},  # a language model of 7 B
    ],
    ids=lambda values: next(iter(values)),
)
@pytest.mark.parametrize("referenced", [False, True])
def test_sizes_are_compared_with_the_weights_before_anything_is_built(values, referenced, copied, tmp_path):
    folder = copied("skeletons")
    if referenced:
        tiny_llm().save_pretrained(tmp_path / "llm")
        model, _ = tiny_recogniser("skeletons")
        model.config.llm_name_or_path = str(tmp_path / "llm")
        model.save_pretrained(folder)
    change(folder / "config.json", **values)
    start = time.monotonic()
    with pytest.raises(ValueError) as caught:
        AutoModel.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("model", [tiny_action_model, tiny_vst, tiny_vtem])
def test_a_missing_weight_is_no_random_number(model, tmp_path):
    """transformers initialised it, with a line in a report."""
    model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(key for key in weights if "quantizer" in key)
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError, match=rf"model.safetensors, field {name}: expected the weights of all parts"):
        AutoModel.from_pretrained(tmp_path)


def rewrite(path: Path, make) -> None:
    weights = load_file(path)
    name = "model.action_model.quantizer.weight"
    weights[name] = make(weights[name])
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize("make", [lambda weight: weight[:8].contiguous(), lambda weight: weight.long()])
def test_weights_of_another_shape_or_kind_are_told(make, copied):
    folder = copied("skeletons")
    rewrite(folder / "model.safetensors", make)
    with pytest.raises(
        ModelFileError, match=r"model.safetensors, field model.action_model.quantizer.weight: expected"
    ):
        AutoModel.from_pretrained(folder)


def test_weights_that_are_nan_are_doubted_aloud(copied, caplog):
    folder = copied("skeletons")
    rewrite(folder / "model.safetensors", lambda weight: weight * float("nan"))
    AutoModel.from_pretrained(folder)
    assert "quantizer.weight and 1 more contain NaN" not in caplog.text
    assert "model.action_model.quantizer.weight contain NaN" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8 + b"{}",
        (10**15).to_bytes(8, "little") + b"{}",
        b"\x02" + b"\0" * 7 + b"[]",
        b"PK\x03\x04" * 30,
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "adapter/adapter_model.safetensors"])
def test_a_damaged_safetensors_file_is_named(content, name, copied):
    folder = copied("adapted")
    whole = (folder / name).read_bytes()
    for damaged in (content, whole[: len(whole) // 2]):
        (folder / name).write_bytes(damaged)
        with pytest.raises(ModelFileError, match=re.escape(str(folder / name))):
            AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd", 3, "model.bin"])
def test_an_index_names_files_beside_it(place, copied):
    folder = copied("skeletons")
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, place)}), encoding="utf-8")
    with pytest.raises(
        ModelFileError, match=r"index.json, field weight_map\..*: expected a safetensors file beside it"
    ):
        AutoModel.from_pretrained(folder)
    gone = dict.fromkeys(names, "gone.safetensors")
    index.write_text(json.dumps({"metadata": {}, "weight_map": gone}), encoding="utf-8")
    with pytest.raises(OSError, match=r"gone\.safetensors"):
        AutoModel.from_pretrained(folder)
    index.write_text(json.dumps({"weight_map": gone}), encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"index.json, field metadata: expected an object, found None"):
        AutoModel.from_pretrained(folder)


def test_shards_load(folders, tmp_path):
    model = ActionLLMForClassification.from_pretrained(folders["skeletons"])
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert all(loaded.state_dict()[name].equal(value) for name, value in model.state_dict().items())


LOAD_ALONE = """
import json, sys
sys.modules["action_llm"] = None  # as if it were not installed
from transformers import AutoModel
folder = sys.argv[1]
AutoModel.from_pretrained(folder, trust_remote_code=True).half()
path = folder + "/config.json"
content = json.load(open(path))
for part, name, value in (("action_config", "hidden_width", "16"), ("text_config", "hidden_size", 10**9)):
    changed = content | {part: content[part] | {name: value}}
    json.dump(changed, open(path, "w"))
    try:
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    except ValueError as error:
        print(type(error).__name__, error)
"""


def test_errors_name_the_file_where_the_code_comes_with_the_model(copied, tmp_path):
    folder = copied("skeletons")
    script = tmp_path / "load.py"
    script.write_text(LOAD_ALONE, encoding="utf-8")
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    done = python(script, folder, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == f"ModelFileError {folder}/config.json, field action_config.hidden_width: expected int, found '16'"
    assert second.startswith(f"ModelFileError {folder}/")


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("part", ["", "adapter"])
def test_pickles_are_never_read(part, copied, tmp_path):
    folder = copied("adapted")
    pickled = "adapter_model" if part else "pytorch_model"
    next((folder / part).glob("*model.safetensors")).unlink()
    torch.save({"weight": Touch(str(tmp_path / "ran"))}, folder / part / f"{pickled}.bin")
    with pytest.raises(OSError, match="safetensors"):
        AutoModel.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="can only be loaded from safetensors files"):
        ActionLLMForClassification.from_pretrained(folder, use_safetensors=False)


WRONG_ADAPTERS = [
    {"peft_type": "XLORA"},
    {"peft_type": "PREFIX_TUNING"},
    {"peft_type": ["LORA"]},
    {"r": 10**9},
    {"r": "2"},
    {"rank_pattern": {"q_proj": 10**9}},
    {"rank_pattern": [1]},
    {"lora_alpha": {}},
    {"alpha_pattern": {"(a+)+$": 2}},
    {"rank_pattern": {".*.*.*.*.*.*q_proj": 2}},
    {"target_modules": 5},
    {"megatron_config": {"a": 1}},
    {"layer_replication": [[0, 10**9]]},
    {"modules_to_save": ["language_model"]},
    {"base_model_name_or_path": 3},
]


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", ".*.*.*.*.*.*q_proj", r".*language_model\.(\w+\.)*(q_proj|v_proj)", ["q_proj", "v_proj"]]
)
def test_modules_of_an_adapter_are_those_of_its_weights(pattern, folders, copied):
    """Whatever pattern selected them in training; it is kept, and never matched."""
    folder = copied("adapted")
    change(folder / "adapter" / "adapter_config.json", target_modules=pattern)
    model, before = AutoModel.from_pretrained(folder), AutoModel.from_pretrained(folders["adapted"])
    kept = model.peft_config["default"].target_modules
    assert (sorted(kept) if isinstance(pattern, list) else kept) == pattern
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name])


@pytest.mark.parametrize("values", WRONG_ADAPTERS, ids=str)
def test_an_adapter_that_is_none_of_this_model_is_told(values, copied):
    folder = copied("adapted")
    path = folder / "adapter" / "adapter_config.json"
    change(path, **values)
    with pytest.raises(ModelFileError, match=re.escape(str(path))):
        AutoModel.from_pretrained(folder)


def test_an_adapter_in_the_root_is_refused(copied):
    """transformers would load it, and a pickled one too."""
    folder = copied("adapted")
    shutil.copytree(folder / "adapter", folder, dirs_exist_ok=True)
    with pytest.raises(ModelFileError, match=r"adapter_config.json: expected an adapter in the folder `adapter`"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"action_id": 0}], "expected an entry for each of 16 action tokens, found 1 entries"),
        ([{"action_id": n} for n in range(17)], "found 17 entries"),
        ([{"action_id": 1}], r"field \[0\].action_id: expected 0"),
        ([{"action_id": 0, "count": "3"}], r"field \[0\].count"),
        ([{"action_id": 0, "classes": [["a"]]}], r"field \[0\].classes"),
        ([{"action_id": 0, "examples": [["a", 0.0, None]]}], r"field \[0\].examples"),
        ([{"action_id": 0, "colour": 1}], r"field \[0\].colour"),
        ([3], r"field \[0\]"),
        ({}, "expected a JSON list"),
        ("text", "expected a JSON list"),
    ],
)
def test_a_lexicon_has_an_entry_for_each_token(content, message, copied):
    folder = copied("skeletons")
    (folder / "lexicon.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelFileError, match=f"lexicon.json.*{message}"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("place", ["/nowhere", "../llm", "https://example.com/llm", "a/b/c", ""])
def test_a_language_model_is_a_repository_or_a_folder(place, copied):
    folder = copied("skeletons")
    change(folder / "config.json", llm_name_or_path=place)
    with pytest.raises(ModelFileError, match=r"config.json, field llm_name_or_path: expected a repository on the Hub"):
        AutoModel.from_pretrained(folder)


def test_a_language_model_in_a_folder_is_said_and_runs_no_code(tmp_path, caplog):
    tiny_llm().save_pretrained(tmp_path / "llm")
    model, _ = tiny_recogniser("skeletons")
    model.config.llm_name_or_path = str(tmp_path / "llm")
    model.save_pretrained(tmp_path / "model")
    AutoModel.from_pretrained(tmp_path / "model")
    assert f"loaded from {tmp_path / 'llm'}, as given in {tmp_path / 'model' / 'config.json'}" in caplog.text
    # Of a kind that only its own code knows.
    change(tmp_path / "llm" / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    (tmp_path / "llm" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be loaded as a language model"):
        AutoModel.from_pretrained(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_kernels_of_the_hub_are_refused(folders, tmp_path):
    for load in (AutoModel.from_pretrained, ActionLLMForClassification.from_pretrained):
        with pytest.raises(
            ValueError, match=r"not code from the Hub; if you trust it, call model\.set_attn_implementation"
        ):
            load(folders["skeletons"], attn_implementation="someone/kernel")
    tiny_llm().save_pretrained(tmp_path)
    change(tmp_path / "config.json", _attn_implementation="someone/kernel")
    with pytest.raises(ValueError, match="not code from the Hub"):
        load_language_model(str(tmp_path))


def test_errors_of_configurations_are_value_errors():
    for make, message in (
        (lambda: ActionVQVAEConfig(num_joints="25"), "`num_joints` must be int, got '25'"),
        (lambda: ActionVQVAEConfig(geometry="flat"), "`geometry` must be one of 'poincare', 'euclidean', got 'flat'"),
        (
            lambda: VSTConfig(backbone_config={"model_type": "swinv2", "embed_dim": "8"}),
            "backbone_config: .*embed_dim",
        ),
        (lambda: VSTConfig(backbone_config={"model_type": "nothing"}), "backbone_config: .*nothing"),
        (lambda: VSTConfig(backbone_config={"model_type": "videomae", "image_size": 60000}), "more than .* patches"),
        (lambda: ActionLLMConfig(text_config=[]), "text_config"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    config = ActionVQVAEConfig()
    with pytest.raises(ValueError, match="`codebook_size` must be int"):
        config.codebook_size = "a"


CASTS = {
    "half": (torch.float16, lambda model: model.half()),
    "bfloat16": (torch.bfloat16, lambda model: model.bfloat16()),
    "to": (torch.bfloat16, lambda model: model.to(torch.bfloat16)),
    "to dtype": (torch.float16, lambda model: model.to(dtype=torch.float16)),
    "float": (torch.float32, lambda model: model.half().float()),
    "double": (torch.float64, lambda model: model.double()),
}


def recogniser_inputs(reads: str, processor):
    generator = torch.Generator().manual_seed(0)
    if reads == "skeletons":
        return processor(recordings=[torch.randn(40, 1, 25, 3, generator=generator).numpy()])
    return processor(recordings=[torch.randint(0, 255, (40, 32, 32, 3), generator=generator).byte().numpy()])


@pytest.mark.parametrize("added", ["nothing", "lora", "prefix"])
@pytest.mark.parametrize("reads", READS)
def test_a_loaded_recogniser_is_cast_as_it_is_loaded(reads, added, tmp_path):
    """`half()` on a loaded one raised, or rounded codes and positions; videos could not be loaded in bfloat16 at all."""
    model, processor = tiny_recogniser(reads)
    if added == "prefix":
        llm = tiny_llm() if reads == "skeletons" else tiny_llava()
        model = ActionLLMForClassification.from_llm(
            llm,
            action_token_offset=processor.action_token_offset,
            action_model=model.base_model.action_model,
            class_names=CLASS_NAMES,
            prefix_length=4,
        )
    if added == "lora":
        get_peft_model(model, LoraConfig(**LORA))
    model.save_pretrained(tmp_path)
    inputs = recogniser_inputs(reads, processor)
    for name, (dtype, cast) in CASTS.items():
        if name == "float":  # what was rounded once stays so
            assert {weight.dtype for weight in cast(model).parameters()} == {torch.float32}
            continue
        loaded = ActionLLMForClassification.from_pretrained(tmp_path, dtype=dtype)
        made = cast(ActionLLMForClassification.from_pretrained(tmp_path))
        own = {weight.dtype for part in made._own_modules() for weight in part.parameters() if part is not None}
        assert torch.float32 in own and made.base_model.action_embedding.weight.dtype == torch.float32
        with torch.no_grad():
            assert made(**inputs).logits.equal(loaded(**inputs).logits), name


def test_an_action_model_is_cast_as_it_is_loaded(tmp_path):
    tiny_action_model().save_pretrained(tmp_path)
    features = torch.randn(1, 16, 75, generator=torch.Generator().manual_seed(0))
    for dtype, cast in list(CASTS.values())[:4]:
        loaded, made = (
            ActionVQVAEModel.from_pretrained(tmp_path, dtype=dtype),
            cast(AutoModel.from_pretrained(tmp_path)),
        )
        assert {n: w.dtype for n, w in made.state_dict().items()} == {
            n: w.dtype for n, w in loaded.state_dict().items()
        }
        assert made.quantizer.weight.equal(tiny_action_model().quantizer.weight)
        assert made.encode(features).latents.equal(loaded.encode(features).latents)
