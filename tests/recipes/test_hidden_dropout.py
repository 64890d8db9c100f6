"""Dropout around the layers of a language model: in training alone, as often as asked, and its mean is what was there."""

import pytest
import torch
import torch.nn.functional as F
from hidden_dropout import add_hidden_dropout
from tiny_models import llm_configs, tiny_llm
from transformers import BloomConfig, BloomModel

from action_llm.modeling_action_llm import decoder_layers


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


def test_a_family_with_a_module_of_that_name_goes_without():
    base = BloomModel(BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=2))
    add_hidden_dropout(base, 0.2)
    words = torch.randn(1, 3, 16)
    one, other = (base.train()(inputs_embeds=words).last_hidden_state for _ in range(2))
    assert not torch.equal(one, other)
    one, other = (base.eval()(inputs_embeds=words).last_hidden_state for _ in range(2))
    assert torch.equal(one, other)


def test_a_run_with_it(line, tokenizer, sentences, tmp_path):
    model = line.sft(tokenizer, sentences, tmp_path / "sft", hidden_dropout=0.2)
    line.evaluate(model, sentences, tmp_path / "evaluation")
    with pytest.raises(ValueError, match="hidden_dropout must be"):
        line.sft(tokenizer, sentences, tmp_path / "other", hidden_dropout=1.0)
