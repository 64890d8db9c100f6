"""Adapters through PEFT's own functions: the files are PEFT's, and what does not fit is told."""

import json

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tiny_models import CLASS_NAMES, tiny_action_model, tiny_llm, tiny_processor

from action_llm import ActionLLMForClassification, adapters
from action_llm.adapters import active_adapter, has_adapter, load_adapter

TARGETS = r".*language_model\..*\.(q_proj|v_proj)"
LORA = {"r": 4, "target_modules": TARGETS, "init_lora_weights": False}


def compose():
    processor = tiny_processor()
    model = ActionLLMForClassification.from_llm(
        tiny_llm("llama-gqa-tied"),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(),
        class_names=CLASS_NAMES,
    )
    return model, processor(action_ids=[[1, 2, 3, 4]])


@pytest.fixture
def adapted(tmp_path):
    """A saved recogniser with LoRA, its inputs and its logits."""
    model, inputs = compose()
    torch.manual_seed(0)
    get_peft_model(model, LoraConfig(**LORA))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        return tmp_path, inputs, model(**inputs).logits


def test_peft_reads_what_was_saved(adapted):
    """`PeftModel` on the model without its adapter: equal logits, and the names of weights are PEFT's own."""
    folder, inputs, logits = adapted
    model, _ = compose()
    with torch.no_grad():
        assert not torch.equal(model(**inputs).logits, logits)
    peft_model = PeftModel.from_pretrained(model, folder / "adapter")
    with torch.no_grad():
        assert torch.equal(peft_model.get_base_model()(**inputs).logits, logits)
    assert (
        load_file(folder / "adapter" / "adapter_model.safetensors").keys()
        == get_peft_model_state_dict(peft_model).keys()
    )
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None and config["inference_mode"]


def test_a_loaded_adapter_is_frozen_and_saved_again(adapted, tmp_path):
    folder, inputs, logits = adapted
    loaded = ActionLLMForClassification.from_pretrained(folder)
    assert has_adapter(loaded) and active_adapter(loaded) == "default"
    assert not any(p.requires_grad for name, p in loaded.named_parameters() if ".lora_" in name)
    loaded.save_pretrained(tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(ActionLLMForClassification.from_pretrained(tmp_path / "again")(**inputs).logits, logits)


def test_other_adapters_than_lora_travel_too(tmp_path):
    model, inputs = compose()
    get_peft_model(model, IA3Config(target_modules=TARGETS, feedforward_modules=[], init_ia3_weights=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ia3" in name:
                parameter.mul_(1.5)
        logits = model(**inputs).logits
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(ActionLLMForClassification.from_pretrained(tmp_path)(**inputs).logits, logits)


@pytest.mark.parametrize("change", ["missing", "unexpected", "size mismatch"])
def test_weights_that_do_not_fit_are_told(adapted, change):
    folder, _, _ = adapted
    path = folder / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[0]
    value = weights.pop(name)
    if change == "size mismatch":
        weights[name] = value[:, :-1].contiguous()
    if change == "unexpected":
        weights |= {name: value, name.replace("layers.0", "layers.7"): value.clone()}
    save_file(weights, path)
    with pytest.raises(
        ValueError, match=rf"adapter_model.safetensors: expected weights that fit the model, found .*{change}"
    ):
        ActionLLMForClassification.from_pretrained(folder)


def test_without_peft_the_error_says_what_to_install(adapted, monkeypatch):
    folder, _, _ = adapted
    model, _ = compose()
    monkeypatch.setattr(adapters, "PEFT_TYPE_TO_CONFIG_MAPPING", None)
    monkeypatch.setattr(adapters, "PEFT_ERROR", "no module named peft", raising=False)
    with pytest.raises(ImportError, match="needs PEFT: pip install peft"):
        load_adapter(model, folder / "adapter")
