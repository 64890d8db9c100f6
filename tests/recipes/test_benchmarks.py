"""The efficiency report measures what it says, with tiny models."""

import json
import multiprocessing

import pytest
import torch
from tiny_models import BACKBONES, llm_configs, tiny_vtem
from transformers import AutoModelForCausalLM

from action_llm import VideoFeatureExtractor

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick_processes(monkeypatch):
    """A benchmark measures each part in a process of its own: here they fork from one that has imported the models' code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers", "action_llm"])
    wanted = []
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: wanted.append(method) or context)
    yield
    assert set(wanted) == {"spawn"}


@pytest.fixture
def benchmark_efficiency(monkeypatch):
    # Processes that it starts import it by its name.
    from action_llm_recipes.benchmarks import benchmark_efficiency

    yield benchmark_efficiency


def test_efficiency_of_prompts_and_events(benchmark_efficiency, tmp_path):
    llm_configs(400)["llama"].save_pretrained(tmp_path / "llm")
    BACKBONES["resnet"]().save_pretrained(tmp_path / "backbone")
    settings = {"llm": str(tmp_path / "llm"), "backbone": str(tmp_path / "backbone"), "height": 32, "width": 32}
    arguments = benchmark_efficiency.BenchmarkArguments(
        output=str(tmp_path / "report"), action_model="vtem", num_segments=3, frames_per_segment=1, grid=2, methods=["prefix"],
        sentence_length=6, repetitions=1, micro_batch=2, **settings,
    )  # fmt: skip
    found = benchmark_efficiency.main(arguments)["training"]["prefix"]
    assert found["trainable_parameters"] == 16 * 2 * 32  # one of three layers
    assert "| prompts in layers |" in (tmp_path / "report.md").read_text()


def test_efficiency_is_measured_and_reported(benchmark_efficiency, tmp_path):
    torch.manual_seed(0)
    config = llm_configs(400)["llama"]
    config.save_pretrained(tmp_path / "llm")
    BACKBONES["resnet"]().save_pretrained(tmp_path / "backbone")
    arguments = benchmark_efficiency.BenchmarkArguments(
        output=str(tmp_path / "report"),
        llm=str(tmp_path / "llm"),
        backbone=str(tmp_path / "backbone"),
        height=32,
        width=32,
        num_segments=2,
        methods=["lora"],
        repetitions=1,
        recordings=3600,
        micro_batch=2,
    )
    result = benchmark_efficiency.main(arguments)
    assert result == json.loads((tmp_path / "report.json").read_text())
    found = result["training"]["lora"]
    adapted = [
        weight.shape
        for name, weight in AutoModelForCausalLM.from_config(config).named_parameters()
        if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    assert found["trainable_parameters"] == sum(8 * sum(shape) for shape in adapted)
    hours = found["seconds_per_micro_batch"] / 2 + found["seconds_per_optimizer_step"] / 256
    assert found["hours_per_epoch"] == pytest.approx(hours) and found["peak_memory_gb"] > found["state_gb"] > 0
    parts = result["inference"]
    assert len(parts) == 4 and all(0 < value < 60 for value in parts.values())
    table = (tmp_path / "report.md").read_text()
    assert f"({found['trainable_share']:.2%})" in table and "| decoding |" in table
    # What does not fit is told.
    result["training"]["full"] = {**found, "fits": False}
    assert benchmark_efficiency.report(result).count("does not fit") == 3
    arguments.methods = ["half"]
    with pytest.raises(ValueError, match="methods: expected some of lora, prefix, full, found 'half'"):
        benchmark_efficiency.main(arguments)


def test_a_stream_is_measured(monkeypatch, tmp_path):
    """Memory after every minute, and the same events at once."""
    pytest.importorskip("psutil", reason="measures the memory of processes")
    from action_llm_datasets.simulation.simulate_long import simulate_long
    from action_llm_recipes.benchmarks import benchmark_stream

    simulate_long(tmp_path / "long", performers=1, videos=1, minutes=1.2, size=32, num_proc=1)
    tiny_vtem("resnet").save_pretrained(tmp_path / "vtem")
    extractor = VideoFeatureExtractor(16, 1, segment_seconds=0.5, height=32, width=32)
    extractor.save_pretrained(tmp_path / "vtem")
    arguments = benchmark_stream.BenchmarkArguments(
        video=str(tmp_path / "long" / "P001_V001.mp4"),
        tokenizer=str(tmp_path / "vtem"),
        output=str(tmp_path / "stream"),
    )
    found = benchmark_stream.main(arguments)
    assert found["stream"]["segments"] == found["at_once"]["segments"] == 144
    assert found["stream"]["events"] == found["at_once"]["events"] > 10
    assert len(found["stream"]["minutes"]) == 1 and found["stream"]["peak_mb"] >= found["stream"]["before_mb"] > 0
    assert "after 1 minute |" in (tmp_path / "stream.md").read_text()
