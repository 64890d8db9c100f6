"""Dropout around the layers of a language model: in training alone, as often as asked, and its mean is what was there."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tiny_models import llm_configs, tiny_llm
from transformers import AutoModel, BloomConfig, GPTNeoXConfig, MixtralConfig, OPTConfig, PhiConfig

from action_llm.language_models import decoder_layers
from action_llm_recipes.stages.hidden_dropout import add_hidden_dropout


@pytest.mark.parametrize("family", list(llm_configs(320)))
def test_in_training_alone(family):
    base = tiny_llm(family).base_model
    words = torch.randn(2, 5, base.config.hidden_size, generator=torch.Generator().manual_seed(0))
    expected = base(inputs_embeds=words).last_hidden_state
    add_hidden_dropout(base, 0.3)
    torch.testing.assert_close(base(inputs_embeds=words).last_hidden_state, expected, rtol=0, atol=0)
    base.train()
    assert not torch.allclose(base(inputs_embeds=words).last_hidden_state, expected, atol=1e-2)


def test_what_it_leaves_out():
    base = tiny_llm().base_model
    read = {}
    layer = decoder_layers(base)[0]
    layer.register_forward_hook(lambda module, args, output: read.update(words=args[0], made=output))
    words = torch.ones(40, 6, base.config.hidden_size)
    add_hidden_dropout(base, 0.25)
    layer.register_forward_hook(lambda module, args, output: read.update(left=output))
    base.train()(inputs_embeds=words)
    # A word's number is left out, or larger by what is left out of the others.
    assert read["words"].unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (read["words"] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    added, left = read["made"] - read["words"], read["left"] - read["words"]
    is_out = left.abs() < 1e-6
    assert is_out.float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(left[~is_out], added[~is_out] / 0.75, rtol=1e-4, atol=1e-4)


def test_within_a_layer(monkeypatch):
    base = tiny_llm().base_model
    layer, read = decoder_layers(base)[0], {}
    words = torch.randn(40, 6, base.config.hidden_size, generator=torch.Generator().manual_seed(0))
    add_hidden_dropout(base, 0.25)
    layer.mlp.down_proj.register_forward_hook(lambda module, args, output: read.update(left=args[0]))
    attend, of_attention = F.scaled_dot_product_attention, []

    def attending(*args, dropout_p=0.0, **kwargs):
        of_attention.append(dropout_p)
        return attend(*args, dropout_p=dropout_p, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attending)
    base.train()(inputs_embeds=words)
    assert of_attention and set(of_attention) == {0.25}
    base.eval()(inputs_embeds=words)
    assert of_attention[-1] == 0 and base.config.attention_dropout == 0
    base.train()(inputs_embeds=words)
    assert (read["left"] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


FAMILIES = {
    **llm_configs(320),
    "bloom": BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=2),
    "gpt-neox": GPTNeoXConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    ),
    "opt": OPTConfig(
        vocab_size=32, hidden_size=16, word_embed_proj_dim=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2
    ),
    "phi": PhiConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2),
}
LAST_PROJECTIONS = {
    "gpt2": "mlp.c_proj",
    "bloom": "mlp.dense_4h_to_h",
    "gpt-neox": "mlp.dense_4h_to_h",
    "opt": "fc2",
    "phi": "mlp.fc2",
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_reaches_every_layer_of_any_family(family, caplog):
    """What the last projection of each MLP reads has zeros in training."""
    config = FAMILIES[family]
    base = AutoModel.from_config(config)
    depth, width, shares = config.num_hidden_layers, config.hidden_size, []
    assert add_hidden_dropout(base, 0.3) == {"layers": depth, "attention": depth, "mlp": depth}
    assert not caplog.messages
    for layer in decoder_layers(base):
        projection = layer.get_submodule(LAST_PROJECTIONS.get(family, "mlp.down_proj"))
        projection.register_forward_hook(lambda _, args, output: shares.append((args[0] == 0).float().mean().item()))
    words = torch.randn(8, 12, width, generator=torch.Generator().manual_seed(0))
    first, second = (base.train()(inputs_embeds=words).last_hidden_state for _ in range(2))
    assert not torch.equal(first, second)
    assert len(shares) == 2 * depth and min(shares) > 0.2
    first, second = (base.eval()(inputs_embeds=words).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)
    if family != "opt":  # its ReLU makes zeros of its own
        assert max(shares[2 * depth :]) < 0.01


def test_experts_of_one_tensor_are_told(caplog):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    base = AutoModel.from_config(MixtralConfig(vocab_size=32, num_key_value_heads=2, num_local_experts=2, **sizes))
    assert add_hidden_dropout(base, 0.2) == {"layers": 2, "attention": 2, "mlp": 0}
    assert caplog.messages == ["hidden_dropout has no effect on the mlp of 2 of 2 layers of this mixtral"]


def test_a_model_without_layers_is_an_error():
    base = tiny_llm().base_model
    base.layers = torch.nn.ModuleList()
    with pytest.raises(ValueError, match="LlamaModel has no list of 3 decoder layers"):
        add_hidden_dropout(base, 0.2)


@pytest.mark.parametrize("target", ["down_proj", "q_proj"])
def test_lora_does_not_escape_it(target):
    """What base and adapter of the last projection read is the same, with zeros in it."""
    base = tiny_llm().base_model
    get_peft_model(base, LoraConfig(target_modules=[target], r=2, lora_dropout=0.0))
    assert add_hidden_dropout(base, 0.3)["mlp"] == len(decoder_layers(base))
    read = []
    projection = decoder_layers(base)[0].mlp.down_proj
    parts = [projection.base_layer, projection.lora_A["default"]] if target == "down_proj" else [projection]
    for part in parts:
        part.register_forward_hook(lambda _, args, output: read.append(args[0]))
    base.train()(inputs_embeds=torch.randn(8, 12, base.config.hidden_size))
    assert len(read) == len(parts) and all(torch.equal(numbers, read[0]) for numbers in read)
    assert (read[0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_a_run_with_it(recipes, tokenizer, sentences, tmp_path):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", hidden_dropout=0.2)
    recipes.evaluate(model, sentences, tmp_path / "evaluation")
    settings = json.loads(Path(model, "record.json").read_text())["settings"]
    assert settings["hidden_dropout_layers"] == {"layers": 2, "attention": 2, "mlp": 2}
    with pytest.raises(ValueError, match="hidden_dropout must be"):
        recipes.sft(tokenizer, sentences, tmp_path / "other", hidden_dropout=1.0)
