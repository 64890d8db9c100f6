"""Benchmarks measure and report, with tiny models and files."""

import importlib.util
import json
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skeleton_people import person, recording
from tiny_models import BACKBONES, llm_configs, save_backbone, tiny_backbone, tiny_recogniser, tiny_vtem
from tiny_videos import tiny_video
from transformers import AutoModelForCausalLM

from action_llm import VideoFeatureExtractor
from action_llm.skeleton_layouts import LAYOUTS
from action_llm_datasets.protocols import ntu_class_names
from action_llm_recipes.benchmarks import benchmark_label_scoring

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick_processes(monkeypatch):
    """Benchmarks measure each part in a process of its own; here they fork from a process that has imported the models."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers", "action_llm"])
    wanted = []
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: wanted.append(method) or context)
    yield
    assert set(wanted) <= {"spawn"}


@pytest.fixture
def benchmark_efficiency(monkeypatch):
    # Its processes import it by this name.
    from action_llm_recipes.benchmarks import benchmark_efficiency

    yield benchmark_efficiency


def roomy_config():
    """Of a tiny Llama with room for the class list."""
    config = llm_configs(400)["llama"]
    config.max_position_embeddings = 512
    return config


def test_efficiency_of_prompts_and_events(benchmark_efficiency, tmp_path):
    roomy_config().save_pretrained(tmp_path / "llm")
    BACKBONES["resnet"]().save_pretrained(tmp_path / "backbone")
    settings = {"llm": str(tmp_path / "llm"), "backbone": str(tmp_path / "backbone"), "height": 32, "width": 32}
    arguments = benchmark_efficiency.BenchmarkArguments(
        output=str(tmp_path / "report"), action_model="vtem", num_segments=3, frames_per_segment=1, grid=2, methods=["prefix"],
        sentence_length=6, repetitions=1, micro_batch=2, **settings,
    )  # fmt: skip
    result = benchmark_efficiency.main(arguments)["training"]["prefix"]
    assert result["trainable_parameters"] == 16 * 2 * 32  # in one of three layers
    page = (tmp_path / "report.md").read_text()
    assert page.count("| prompts in layers |") == 2 and "270 tokens of class names and 6 action tokens" in page


@pytest.mark.parametrize("list_classes", [True, False])
def test_prompts_are_as_long_as_those_of_ntu_and_have_the_method(benchmark_efficiency, tmp_path, list_classes):
    """The class list is counted by itself; prompts in layers change the class probabilities."""
    roomy_config().save_pretrained(tmp_path / "llm")
    BACKBONES["resnet"]().save_pretrained(tmp_path / "backbone")
    arguments = benchmark_efficiency.BenchmarkArguments(
        output="", llm=str(tmp_path / "llm"), backbone=str(tmp_path / "backbone"), list_classes=list_classes
    )
    models = {method: benchmark_efficiency.build(arguments, method).eval() for method in benchmark_efficiency.METHODS}
    prompt = benchmark_efficiency.prompts(arguments, models["prefix"], 2)
    tokenizer = benchmark_label_scoring.text_tokenizer()
    names = [len(tokenizer.encode(name).ids) for name in ntu_class_names()[:60]]
    # A comma follows each name but the last; some are merged with the character before them.
    least, most = (sum(names), sum(names) + 59) if list_classes else (0, 0)
    assert prompt.shape[0] == 2 and least <= prompt.shape[1] - 24 - 16 <= most
    first = models["prefix"].config.action_token_offset
    assert ((prompt >= first).sum(1) == 16).all()
    trained = {name: sum(p.numel() for p in model.parameters() if p.requires_grad) for name, model in models.items()}
    assert trained["prefix"] == 16 * 2 * 32 and 0 < trained["lora"] < trained["full"]
    prefix = models["prefix"].model.prefix
    with torch.no_grad():
        before = models["prefix"](input_ids=prompt).logits
        for parameter in prefix.parameters():
            parameter.add_(1)
        assert not torch.allclose(before, models["prefix"](input_ids=prompt).logits)


def test_label_scoring_is_measured_and_reported(tmp_path, capsys):
    from action_llm_recipes.benchmarks import benchmark_label_scoring

    arguments = benchmark_label_scoring.BenchmarkArguments(
        output=str(tmp_path / "scoring"),
        hidden_size=128,
        num_layers=1,
        vocab_size=2000,
        repetitions=1,
        training_steps=80,
    )
    record = benchmark_label_scoring.main(arguments)
    assert record == json.loads((tmp_path / "scoring.json").read_text())
    assert max(record["settings"]["largest_difference"].values()) < 1e-3
    table = (tmp_path / "scoring.md").read_text()
    assert table == capsys.readouterr().out and table.startswith("# Choosing among 120 class names\n")
    assert [line.split(" | ")[0] for line in table.splitlines()[6:]] == [
        f"| {row['method']}" for row in record["results"]
    ]
    assert len(record["results"]) == 6 and all(row["seconds"] > 0 for row in record["results"])


def test_answers_are_measured_and_reported(tmp_path, capsys):
    from action_llm_recipes.benchmarks import benchmark_answers

    model, processor = tiny_recogniser("skeletons")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    recordings = [str(tmp_path / f"walk_{seed}.npy") for seed in range(3)]
    for seed, path in enumerate(recordings):
        np.save(path, person(30, seed=seed))
    arguments = benchmark_answers.BenchmarkArguments(
        str(tmp_path / "model"), recordings, str(tmp_path / "answers"), batch_size=2, repetitions=1
    )
    record = benchmark_answers.main(arguments)
    assert record == json.loads((tmp_path / "answers.json").read_text())
    assert len(record["seconds"]) == 8 and min(record["seconds"].values()) > 0
    assert len(record["ratios"]) == 5
    table = (tmp_path / "answers.md").read_text()
    assert capsys.readouterr().out.endswith(table) and "| label, batches of 2 | " in table


def test_readers_and_video_decoding_are_measured_and_reported(tmp_path, monkeypatch):
    from action_llm_recipes.benchmarks import benchmark_readers, benchmark_video_decoding

    monkeypatch.setattr(benchmark_readers, "measure_processes", lambda paths, suffix, processes, times: 1.0)
    arguments = benchmark_readers.BenchmarkArguments(output=str(tmp_path / "readers"), max_files=1, repetitions=1)
    record = benchmark_readers.main(arguments)
    assert set(record["formats"]) == set(benchmark_readers.JOINTS)
    assert (tmp_path / "readers.md").read_text().count("| ours |") == 3
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "clip.mp4").write_bytes(tiny_video(30))
    arguments = benchmark_video_decoding.BenchmarkArguments(
        output=str(tmp_path / "decoding"), folder=str(clips), repetitions=1
    )
    record = benchmark_video_decoding.main(arguments)
    assert [video["file"] for video in record["videos"]] == ["clip.mp4"]
    assert "| clip.mp4, " in (tmp_path / "decoding.md").read_text()


def test_efficiency_is_measured_and_reported(benchmark_efficiency, tmp_path):
    torch.manual_seed(0)
    config = roomy_config()
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
    lora = result["training"]["lora"]
    adapted = [
        weight.shape
        for name, weight in AutoModelForCausalLM.from_config(config).named_parameters()
        if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj", "o_proj")
    ]
    assert lora["trainable_parameters"] == sum(8 * sum(shape) for shape in adapted)
    hours = lora["seconds_per_micro_batch"] / 2 + lora["seconds_per_optimizer_step"] / 256
    assert lora["hours_per_epoch"] == pytest.approx(hours) and lora["peak_memory_gb"] > lora["state_gb"] > 0
    parts = result["inference"]["lora"]
    assert len(parts) == 3 and all(0 < value < 60 for value in parts.values())
    table = (tmp_path / "report.md").read_text()
    assert f"({lora['trainable_share']:.2%})" in table and "| decoding |" in table
    # A method that does not fit into memory is reported.
    result["training"]["full"], result["inference"]["full"] = {**lora, "fits": False}, parts
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
    result = benchmark_stream.main(arguments)
    stream, whole = result["stream"], result["at_once"]
    assert stream["segments"] == whole["segments"] == 144
    assert stream["events"] == whole["events"] > 10
    assert len(stream["minutes"]) == 1 and stream["peak_mb"] >= stream["before_mb"] > 0
    assert "after 1 minute |" in (tmp_path / "stream.md").read_text()


def test_priors_are_measured_one_by_one_on_held_out_people(recipes, tmp_path):
    from action_llm_recipes.benchmarks import measure_priors
    from action_llm_recipes.stages.skeleton_stage import ActionVQVAEArguments, SkeletonArguments

    arguments = measure_priors.PriorArguments(
        llm_name_or_path=recipes.llm,
        output=str(tmp_path / "priors"),
        window=32,
        first_steps=2,
        steps=6,
        per_device_train_batch_size=8,
        epochs=1,
    )
    model = ActionVQVAEArguments(hidden_width=16, codebook_size=16, kmeans_init=True)
    record = measure_priors.main(arguments, recipes.data(), model, SkeletonArguments())
    rows = {row["row"]: row for row in record["rows"]}
    assert list(rows) == list(measure_priors.ARMS)
    plain, long = rows["no prior"], rows["no prior, codes four times as long"]
    # Longer codes are at another distance from the words.
    assert long["mmd"] != pytest.approx(plain["mmd"], rel=1e-3)
    assert rows["MMD, weight 0.05"]["mmd"] < plain["mmd"]
    assert 0 <= plain["accuracy"] <= 100
    assert "| no prior | 0 |" in (tmp_path / "priors.md").read_text()


def test_features_of_a_pretrained_encoder(tmp_path):
    from action_llm_recipes.benchmarks import benchmark_features

    (tmp_path / "clips").mkdir()
    for number in range(3):
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(tiny_video(8 + number))
    save_backbone(tiny_backbone("swinv2"), tmp_path / "backbone")
    arguments = benchmark_features.BenchmarkArguments(
        backbone=str(tmp_path / "backbone"), folder=str(tmp_path / "clips"), output=str(tmp_path / "report"), videos=2,
        versions=2,
    )  # fmt: skip
    result = benchmark_features.main(arguments)
    assert (result["videos"], result["pictures"], result["size"]) == (2, 8, [32, 32])
    assert result["largest_relative_difference"] < 1e-4
    page = (tmp_path / "report.md").read_text()
    assert "| `extract_features.py` | " in page and "| trim_black | " in page


def test_distance_from_another_sensor_is_that_of_joints_after_rotation_scale_and_pairing():
    from scipy.spatial.transform import Rotation

    from action_llm_recipes.benchmarks.benchmark_pose import distance_from

    bodies = [(0, person(20, seed=seed, place=(2.0 * seed, 0, 3))) for seed in (0, 1)]
    sensed, estimated = recording(bodies), recording(bodies)
    turn = Rotation.from_euler("xyz", [5, 40, -10], degrees=True)
    moved = turn.apply(1.25 * sensed.keypoints[:, ::-1].reshape(-1, 3)).reshape(sensed.keypoints.shape)
    estimated.keypoints = (moved + np.linspace(0, 1, 20)[:, None, None, None]).astype(np.float32)
    found = distance_from(estimated, sensed)
    assert found["distance_cm"] < 0.01 and found["size_ratio"] == pytest.approx(1.25, rel=1e-4)
    # An error of 10 cm in one of the sixteen joints, at right angles to everything that the rotation could explain.
    alone, other = recording(bodies[:1]), recording(bodies[:1])
    knee = LAYOUTS["kinect25"].joint_names.index("left_knee")
    alone.keypoints[::2, :, knee, 0] += 0.1
    alone.keypoints[1::2, :, knee, 0] -= 0.1
    found = distance_from(alone, other)
    assert found["distance_cm"] == pytest.approx(10 / 16, abs=0.1)
    assert found["distance_cm_of_joints"]["knee"] == pytest.approx(5, abs=0.5)
    exchanged = recording(bodies[:1])
    exchanged.keypoints = exchanged.keypoints[:, :, list(LAYOUTS["kinect25"].mirror)]
    assert distance_from(exchanged, other)["distance_cm"] > 3
    other.present[:], other.keypoints[:] = False, 0
    assert np.isnan(distance_from(alone, other)["distance_cm"])


def test_what_a_recogniser_reads_in_an_estimate_and_in_the_recording_of_a_sensor():
    from action_llm_recipes.benchmarks.benchmark_pose import read_both

    sensed = recording([(0, person(20))])
    estimated = recording([(0, person(20, seed=1))])
    read = []

    def recognise(of, top_k):
        """Says "wave" with a probability that depends on who is seen."""
        assert top_k is None
        read.append(of if isinstance(of, dict) else vars(of))
        is_estimated = len(read) % 2 == 1
        answers = [{"label": "wave", "score": 0.9}, {"label": "sit", "score": 0.1}]
        return [{"label": "sit", "score": 0.7}, {"label": "wave", "score": 0.3}] if is_estimated else answers

    found = read_both(recognise, estimated, sensed)
    assert [one["layout"] for one in read] == ["kinect25", "kinect25", "coco17", "coco17"]
    assert read[0]["keypoints"] is estimated.keypoints and read[1]["keypoints"] is sensed.keypoints
    assert not read[2]["keypoints"].reshape(-1, 3)[:, 2].any(), "no depth"
    for layout in ("as they are", "coco17"):
        assert found[layout]["estimated"] == ["sit", 0.7] and found[layout]["sensed"] == ["wave", 0.9]
        assert found[layout]["total_variation"] == pytest.approx(0.6)


def test_device_check_with_tiny_sizes(tmp_path, capsys):
    """On a CPU everything passes, and the page gives no times. The other checks have tests of their own."""
    from action_llm_recipes.benchmarks import device_check

    words = ["120", "resuming", "qlora", "fsdp", "tokenisation"]
    arguments = device_check.CheckArguments(output=str(tmp_path / "check"), checks=words, tiny=True)
    record = device_check.main(arguments)
    assert record == json.loads((tmp_path / "check.json").read_text()) and len(record["checks"]) == 5
    status = {name: check["status"] for name, check in record["checks"].items()}
    optional = {"FSDP": torch.cuda.is_available(), "QLoRA": importlib.util.find_spec("bitsandbytes") is not None}
    expected = {name: "passed" if optional.get(name, True) else "not run" for name in status}
    assert status == expected, [check["summary"] for check in record["checks"].values()]
    facts = record["checks"]["tokenisation"]["facts"]
    assert facts["extrapolated_hours"]["tokens"] == pytest.approx(facts["seconds"]["tokens"] / 24 * 114_000 / 3600)
    page = (tmp_path / "check.md").read_text()
    assert capsys.readouterr().out.endswith(page) and "**The sizes are tiny" in page
    assert "stage 1: equal weights; stage 2: equal weights" in page
    assert "extrapolated" not in page and "times as long" not in page and "the paper claims" not in page


@pytest.mark.parametrize(
    ("check", "argument", "reason"),
    [
        (os._exit, 3, "its process ended with status 3"),
        (time.sleep, 60, "stopped after 3 s"),
        (bytearray, 1 << 60, "out of memory"),
        (json.loads, "{", "JSONDecodeError: Expecting property name"),
    ],
)
def test_a_check_that_cannot_finish_is_reported_in_a_line(check, argument, reason):
    from action_llm_recipes.benchmarks.device_check import run_check

    result = run_check(check, argument, 3 if check is time.sleep else 60)
    assert result["status"] == "failed" and result["summary"].startswith(reason) and result["seconds"] < 60


def test_a_device_that_computes_otherwise_fails_the_check(monkeypatch):
    from action_llm import ActionVQVAEModel, label_scoring
    from action_llm_recipes.benchmarks import device_measurements

    assert device_measurements.stage_1_agrees(device_measurements.TINY).passed
    assert device_measurements.attention_agrees(device_measurements.TINY).passed
    moves, to = [], ActionVQVAEModel.to

    def to_another_device(model, *arguments):
        moves.append(arguments)
        if len(moves) == 2:  # the first is to the CPU
            for weight in model.parameters():
                weight.data.mul_(1.01)
        return to(model, *arguments)

    monkeypatch.setattr(ActionVQVAEModel, "to", to_another_device)
    assert not device_measurements.stage_1_agrees(device_measurements.TINY).passed
    scores, offsets = label_scoring.score_labels, iter([0.0, 0.01, 0.0, 0.0])  # in their order, the second is SDPA
    monkeypatch.setattr(label_scoring, "score_labels", lambda *arguments: scores(*arguments) + next(offsets))
    finding = device_measurements.attention_agrees(device_measurements.TINY)
    assert not finding.passed and finding.facts["sdpa, float32"]["largest_difference"] == pytest.approx(0.01, abs=1e-3)


def test_weights_of_a_run_that_was_not_resumed_well_differ(tmp_path):
    from action_llm_recipes.benchmarks.device_measurements import difference_of_weights, forget_last_steps

    for name, value in (("one", 1.0), ("other", 1.5)):
        (tmp_path / name / "model").mkdir(parents=True)
        weights = {"weight": torch.tensor([0.0, value], dtype=torch.bfloat16)}
        save_file(weights, tmp_path / name / "model" / "model.safetensors")
        (tmp_path / name / "checkpoints" / "checkpoint-4").mkdir(parents=True)
        (tmp_path / name / "record.json").write_text("{}")
    assert difference_of_weights(tmp_path / "one", tmp_path / "other") == 0.5
    assert difference_of_weights(tmp_path / "one", tmp_path / "one") == 0
    with pytest.raises(ValueError, match="one: expected the undamaged checkpoint-2, found None"):
        forget_last_steps(tmp_path / "one")


def test_device_check_has_the_claims_of_the_papers_and_known_names():
    from action_llm_recipes.benchmarks import device_check
    from action_llm_recipes.benchmarks.device_measurements import CHECKS

    clip = {"decoding": 2.0, "action tokens": 1.0, "probabilities of 60 classes": 0.125}
    lines = device_check.beside_the_papers({"LoRA, 13B: a clip": {"facts": clip}})
    assert lines[-4:] == [
        "| LVLM-VAR, Table 4: memory, GB | — | 48 |",
        "| LVLM-VAR, Table 4: hours per epoch | — | 1.5 |",
        "| LVLM-VAR, Table 4: s per clip | 0.12 | 0.08 |",
        "| VT-LVLM-AR, Table IV: s per clip | — | 0.35 |",
    ]
    assert device_check.chosen_checks(list(CHECKS), ["13b"]) == ["LoRA, 13B: training", "LoRA, 13B: a clip"]
    with pytest.raises(ValueError, match="--checks: no check is called 'tokens'; there are: stage 1 beside the CPU, "):
        device_check.chosen_checks(list(CHECKS), ["tokens"])


def test_memory_of_the_papers_settings_is_counted():
    """With a language model of 2 layers of width 64, and in 4 bit with one whose memory is not rounded away."""
    from action_llm_recipes.benchmarks import count_memory

    lora = count_memory.count("llm_ar/ntu60_sft.yaml", "tiny", 20)
    full = count_memory.count("llm_ar/ntu60_sft_full.yaml", "tiny", 20)
    prefix = count_memory.count("vt_lvlm_ar/sft.yaml", "tiny", 256)
    adapters = 2 * 2 * 64 * (64 + 64)  # in 2 layers on q and v, of rank 64
    assert lora["trainable_parameters"] == adapters
    own = 512 * 64  # the action words
    of_llm = lora["parameters"] - adapters - own
    assert full["trainable_parameters"] == of_llm and full["parameters"] == of_llm + own
    gigabyte = 2**30
    assert full["state_gb"] == pytest.approx((16 * of_llm + 4 * own) / gigabyte, abs=1e-3)
    large, qlora = (
        count_memory.count(f"llm_ar/{name}.yaml", "llava-1.5-7b", 20) for name in ("ntu60_sft", "ntu60_sft_qlora_24gb")
    )
    linear = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert large["state_gb"] - qlora["state_gb"] == pytest.approx(linear * (2 - 0.516) / gigabyte, abs=0.01)
    assert prefix["tokens"] == 24 + 256 + 270 and prefix["examples"] == 3125 * 128
    assert full["exaflop"] == pytest.approx(8 * full["parameters"] * 44 * 1172 * 256 / 1e18)
    rows = {"b": qlora | {"state_gb": 8.0}, "a": lora | {"state_gb": 8.0}}
    page = count_memory.page(rows)
    assert "| 8.0 | 8.0 | 8.0 | 8.0 |" in page and "| 8.0 | 2.0 | 1.0 | 0.2 |" in page


def test_written_reasons_are_counted(recipes, tmp_path, monkeypatch):
    """A writer that repeats what was measured, and one that says what was not."""
    from action_llm.written_reasons import ReasonWriter
    from action_llm_recipes.benchmarks import measure_written_reasons

    class Fake(ReasonWriter):
        def __init__(self):
            self.told = []

        def generate(self, facts):
            self.told.append(facts)
            moment = facts.rpartition("Evidence: ")[2].split(";")[0]
            return f"The person {moment}." if len(self.told) % 2 else "The person jumps over a fence."

    writer = Fake()
    monkeypatch.setattr(ReasonWriter, "from_pretrained", lambda name: writer)
    arguments = measure_written_reasons.WrittenReasonArguments("me/x", output=str(tmp_path / "reasons"), count=6)
    record = measure_written_reasons.main(arguments, recipes.data())
    reasons = record["reasons"]
    assert len(reasons) == len(writer.told) == 6
    assert [reason["accepted"] for reason in reasons] == [True, False] * 3
    assert all(reason["narrator"]["supported"] for reason in reasons)
    page = (tmp_path / "reasons.md").read_text()
    assert page.startswith("6 reasons by me/x (simulated-xsub, split test): 3 accepted, 3 rejected")
    assert "3 of the accepted ones give a time" in page and "| of the language model | 3 |" in page
    assert page.count("→ The person jumps over a fence.") == 3
