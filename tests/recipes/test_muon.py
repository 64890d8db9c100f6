"""Muon against PyTorch's, AdamW against PyTorch's, and orthogonality against singular values."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from action_llm_recipes.pretraining.muon import Muon, orthogonalize


def tiny(tied=True):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.floats(-6, 6), st.integers(0, 1000))
def test_singular_values_move_towards_one(count, rows, columns, scale, seed):
    matrices = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed)) * 10**scale
    result = orthogonalize(matrices)
    left, before, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    after = torch.linalg.svdvals(result.double())
    assert torch.isfinite(result).all()
    assert after.max() < 1.25
    # A value far below the norm needs more steps than five; all others have arrived.
    arrived = before.sort(descending=True).values / before.norm(dim=1, keepdim=True) > 0.05
    assert after[arrived].min() > 0.6
    # The singular vectors stay: U' result V is diagonal.
    core = left.mT @ result.double() @ right.mT
    off = core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-3


@pytest.mark.parametrize("tied", [True, False])
def test_steps_equal_pytorchs_muon_and_adamw(tied):
    own, theirs = tiny(tied), tiny(tied)
    tables = {id(theirs.get_input_embeddings().weight), id(theirs.get_output_embeddings().weight)}
    matrices = [p for p in theirs.parameters() if p.ndim == 2 and id(p) not in tables]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    words = [p for p in theirs.parameters() if id(p) in tables]
    optimizer = Muon(own, lr=0.01, weight_decay=0.1)
    reference = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": words}, {"params": vectors, "weight_decay": 0.0}], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1
        ),
    ]
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        # Well-conditioned gradients: PyTorch's Newton–Schulz steps are in bfloat16, which hides small singular values.
        for first, second in zip(own.parameters(), theirs.parameters(), strict=True):
            first.grad = torch.randn(first.shape, generator=generator)
            second.grad = first.grad.clone()
        before = [parameter.detach().clone() for parameter in own.parameters()]
        optimizer.step()
        for other in reference:
            other.step()
        for (name, first), second, start in zip(own.named_parameters(), theirs.parameters(), before, strict=True):
            exact = first.ndim == 1 or any(second is word for word in words)
            difference, step = (first - second).norm(), (second - start).norm()
            assert difference < (1e-5 if exact else 0.1) * step, name
            second.data.copy_(first.data)


def test_state_is_saved_and_loaded():
    model = tiny()
    optimizer = Muon(model, lr=0.01)
    ids = torch.arange(12)[None]

    def step(model, optimizer):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    step(model, optimizer)
    other = copy.deepcopy(model)
    resumed = Muon(other, lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(other, resumed)
    for first, second in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_closure_is_called():
    model = tiny()
    optimizer = Muon(model, lr=0.01)
    ids = torch.arange(12)[None]
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        return loss

    for _ in range(20):
        losses.append(optimizer.step(closure).item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_the_benchmark_trains_the_same_model_with_both(tmp_path):
    from action_llm_recipes.benchmarks import benchmark_muon

    arguments = benchmark_muon.BenchmarkArguments(
        output=str(tmp_path / "muon.small"), passages=60, seeds=[0], batch_size=4
    )
    ours, theirs = benchmark_muon.main(arguments)["runs"]
    # Four steps from the same weights, of which PyTorch's are in bfloat16.
    assert ours["last_training_loss"] == pytest.approx(theirs["last_training_loss"], rel=0.02)
    assert ours["held_out_perplexity"] == pytest.approx(theirs["held_out_perplexity"], rel=0.1)
    assert "| Muon (`pretraining/muon.py`) |" in (tmp_path / "muon.small.md").read_text()
