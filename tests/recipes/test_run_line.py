"""`run_line.py`: one command from a folder of recordings to a recogniser."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from skeleton_people import person

from action_llm_recipes.baselines import run_baselines

TOKENIZER = {"hidden_width": 8, "codebook_size": 16, "window": 16, "max_steps": 2, "per_device_train_batch_size": 4}
SFT = {"lora_r": 2, "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


@pytest.fixture
def own(tmp_path):
    """A folder with six recordings of two classes, in a joint layout of its own."""
    from action_llm.skeleton_layouts import LAYOUTS

    root = tmp_path / "own"
    root.mkdir()
    lines = ["file_name,label,split"]
    for number, (label, split) in enumerate([("wave", "train"), ("fall", "train"), ("wave", "validation")] * 2):
        np.save(root / f"{number}.npy", person(20, "kinect20", seed=number))
        lines.append(f"{number}.npy,{label},{'test' if number > 3 else split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    layout = LAYOUTS["kinect20"].to_dict() | {"name": "mine"}
    (root / "skeleton.json").write_text(json.dumps({"layout": layout, "fps": 20}))
    return root


def test_one_command_from_files_to_a_recogniser(own, llm, tmp_path):
    from action_llm import ActionLLMForClassification, ActionLLMProcessor
    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    common = {"warmup_steps": 1, "disable_tqdm": True, "use_cpu": True}
    (tmp_path / "tokenizer.yaml").write_text(yaml.safe_dump(TOKENIZER | common))
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(SFT | common))
    arguments = run_line.PipelineArguments(
        output_dir=str(tmp_path / "run"),
        tokenizer_config=str(tmp_path / "tokenizer.yaml"),
        sft_config=str(tmp_path / "sft.yaml"),
        llm_name_or_path=llm,
        encodings=2,
        seed=3,
    )
    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    metrics = run_line.main(arguments, data)
    assert (metrics["dataset"], metrics["split"], metrics["recordings"]) == ("folder", "test", 2)
    assert metrics["encodings"] == 2  # sentences of one recording
    # An impossible setting is refused before anything is trained.
    with pytest.raises(ValueError, match="held-out recordings have 2 encodings each"):
        run_line.main(
            dataclasses.replace(arguments, output_dir=str(tmp_path / "no"), hold_out=True, test_encodings=3), data
        )
    assert not (tmp_path / "no").exists()
    folder = tmp_path / "run" / "sft" / "model"
    assert json.loads((folder / "record.json").read_text())["seed"] == 3
    # The recogniser reads a file in that layout by its path, wherever it is loaded.
    model, processor = ActionLLMForClassification.from_pretrained(folder), ActionLLMProcessor.from_pretrained(folder)
    assert processor.feature_extractor.skeleton_layout.name == "mine" and processor.feature_extractor.num_persons == 1
    assert set(model.config.id2label.values()) == {"wave", "fall"}
    assert float(model(**processor(own / "0.npy")).probabilities.sum()) == pytest.approx(1, abs=1e-5)
    # Starting a finished run again returns the same metrics.
    assert run_line.main(arguments, data) == metrics


@pytest.mark.slow
def test_one_command_for_videos(llm, tmp_path):
    """A small visual encoder is trained first; held-out videos are evaluated only if it was not trained on them."""
    from tiny_videos import tiny_video

    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    root = tmp_path / "videos"
    root.mkdir()
    lines = ["file_name,label,split"]
    for number in range(8):
        (root / f"{number}.mp4").write_bytes(tiny_video(6 + number))
        split = "test" if number > 5 else "validation" if number > 3 else "train"
        lines.append(f"{number}.mp4,{('short', 'long')[number % 2]},{split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    common = {"disable_tqdm": True, "use_cpu": True}
    size = {"num_segments": 3, "frames_per_segment": 2, "height": 32, "width": 32}
    configs = {
        "backbone": {"widths": [4, 8], "num_train_epochs": 1, "per_device_train_batch_size": 4} | size | common,
        "features": {"versions": 2, "test_versions": 2} | size,
        "tokenizer": {
            "action_model": "vst",
            "hidden_size": 8,
            "num_layers": 1,
            "num_heads": 2,
            "intermediate_size": 8,
            "codebook_size": 8,
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "warmup_steps": 1,
        }
        | common,
        "sft": SFT | {"warmup_steps": 1} | common,
    }
    for name, config in configs.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    settings = {f"{name}_config": str(tmp_path / f"{name}.yaml") for name in configs}
    data = DataArguments(dataset="folder-video", data_dir=str(root), cache_dir=str(tmp_path / "cache"))

    def run(folder, **options):
        return run_line.main(
            run_line.PipelineArguments(output_dir=str(tmp_path / folder), llm_name_or_path=llm, **settings, **options),
            data,
        )

    metrics = run("run", hold_out=True)
    assert (metrics["dataset"], metrics["split"], metrics["recordings"]) == ("folder-video", "held_out", 2)
    assert metrics["encodings"] == 2  # the versions of their features
    with pytest.raises(ValueError, match="--encodings 3: features have 2 versions per training video"):
        run("no", encodings=3)
    with pytest.raises(ValueError, match="--test_encodings 3: test recordings have 2 encodings each"):
        run("no", test_encodings=3)
    assert not (tmp_path / "no").exists()
    # A run resumes. A visual encoder that was trained on all training videos is refused with hold_out.
    assert run("run", hold_out=True) == metrics
    seen = run("seen")
    assert (seen["dataset"], seen["split"], seen["encodings"]) == ("folder-video", "test", 2)
    with pytest.raises(ValueError, match="the visual encoder was trained on the held-out subjects"):
        run("other", hold_out=True, backbone=str(tmp_path / "seen" / "backbone" / "model"))
    with pytest.raises(ValueError, match="the visual encoder was trained on the held-out subjects"):
        run_baselines.main(
            run_baselines.BaselineArguments(output_dir=str(tmp_path / "loss"), split="held_out"),
            DataArguments(dataset="features", data_dir=str(tmp_path / "seen" / "features")),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora_rank: 3", r"sft\.yaml: the stage sft has no setting 'lora_rank'"),
        ("", r"sft\.yaml: expected settings of the stage sft, found None"),
        ("- 1", r"sft\.yaml: expected settings of the stage sft, found \[1\]"),
        ("a: [", r"sft\.yaml: expected YAML, found .* line"),
        ("lora_r: twelve", r"sft\.yaml: lora_r: expected an integer, got 'twelve'"),
        ("hidden_dropout: 1.5", "hidden_dropout must be at least 0 and below 1, got 1.5"),
        ("objective: classes\nlabel_smoothing: 3", "label_smoothing must be at least 0 and below 1, got 3"),
    ],
)
def test_wrong_settings_show_before_anything_is_trained(own, llm, tmp_path, text, message):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    (tmp_path / "sft.yaml").write_text(text)
    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    arguments = run_line.PipelineArguments(output_dir=str(tmp_path / "run"), sft_config=str(tmp_path / "sft.yaml"))
    with pytest.raises(ValueError, match=message):
        run_line.main(arguments, data)
    (tmp_path / "tokenizer.yaml").write_text("action_model: vqvae")
    arguments = run_line.PipelineArguments(
        output_dir=str(tmp_path / "run"), tokenizer_config=str(tmp_path / "tokenizer.yaml")
    )
    with pytest.raises(
        ValueError, match=r"tokenizer\.yaml: action_model: expected one of action_vqvae, vst, vtem, found 'vqvae'"
    ):
        run_line.main(arguments, data)
    (tmp_path / "tokenizer.yaml").write_text("held_out_subjects: ['1']")
    with pytest.raises(ValueError, match=r"tokenizer\.yaml: held_out_subjects must be the same in all stages"):
        run_line.main(arguments, data)
    rows = (own / "metadata.csv").read_text().replace(",test", ",train")
    (own / "metadata.csv").write_text(rows)
    with pytest.raises(ValueError, match="has no test recordings: mark some, or evaluate on held-out ones"):
        run_line.main(run_line.PipelineArguments(output_dir=str(tmp_path / "run"), llm_name_or_path=llm), data)
    rows = [line.replace(",validation", ",train") for line in rows.splitlines()]
    (own / "metadata.csv").write_text("\n".join(rows) + "\n")
    arguments = run_line.PipelineArguments(output_dir=str(tmp_path / "run"), llm_name_or_path=llm, hold_out=True)
    with pytest.raises(ValueError, match=r"--hold_out true: of \d+ training recordings 0 are held out"):
        run_line.main(arguments, data)
    assert not (tmp_path / "run").exists()
    (own / "metadata.csv").write_text("\n".join(rows).replace(",train", ",test"))
    with pytest.raises(ValueError, match="has no training recordings: mark some, or choose a protocol"):
        run_line.main(arguments, data)


@pytest.mark.parametrize(
    ("given", "features", "expected"),
    [
        ({}, None, (24, 24)),
        ({"encodings": 4}, None, (4, 4)),
        ({"encodings": 4, "test_encodings": 9}, None, (4, 9)),
        ({"encodings": 4, "hold_out": True}, None, (4, 4)),
        ({}, {}, (1, 1)),
        ({}, {"versions": 3}, (3, 1)),
        ({}, {"versions": 3, "test_versions": 5}, (3, 5)),
        ({"hold_out": True}, {"versions": 3, "test_versions": 5}, (3, 3)),
        ({"hold_out": True, "encodings": 2}, {"versions": 8, "test_versions": 8}, (2, 2)),
        ({"test_encodings": 1, "encodings": 2}, {"versions": 8, "test_versions": 8}, (2, 1)),
    ],
)
def test_how_many_sentences_there_are(given, features, expected):
    from action_llm_recipes.run_line import PipelineArguments, count_encodings

    assert count_encodings(PipelineArguments(output_dir="", **given), features) == expected
    for name in ("encodings", "test_encodings"):
        with pytest.raises(ValueError, match=f"--{name} must be at least 1, got 0"):
            PipelineArguments(output_dir="", **given | {name: 0})


def test_all_weights_are_trained_of_a_language_model_that_is_made_here_alone(tmp_path):
    from action_llm_recipes.run_line import PipelineArguments, read_settings

    (tmp_path / "sft.yaml").write_text("method: full")
    own = {"llm_name_or_path": "somebody/large"}
    methods = [
        read_settings(PipelineArguments(output_dir="", **given), "sft", "llm_ar")["method"]
        for given in ({}, own, own | {"sft_config": str(tmp_path / "sft.yaml")})
    ]
    assert methods == ["full", "lora", "full"]


def test_the_settings_of_files_have_the_types_of_their_fields(tmp_path):
    """YAML reads 1e-3, without a dot, as a text."""
    from action_llm_recipes.run_line import PipelineArguments, read_settings

    (tmp_path / "sft.yaml").write_text("learning_rate: 1e-3\nlora_target_modules: [q_proj]\nmax_length: null\n")
    settings = read_settings(PipelineArguments(output_dir="", sft_config=str(tmp_path / "sft.yaml")), "sft", "llm_ar")
    assert settings["learning_rate"] == 1e-3 and settings["lora_target_modules"] == ["q_proj"]
    assert settings["max_length"] is None


def test_the_shipped_settings_have_the_types_of_their_fields():
    from action_llm_recipes.pipeline.settings import read_yaml
    from action_llm_recipes.run_line import PipelineArguments, read_settings

    stages = {"llm_ar": ("tokenizer", "sft")}
    stages["lvlm_var"] = ("backbone", "features", *stages["llm_ar"])
    stages["vt_lvlm_ar"] = (*stages["lvlm_var"], "lvlm")
    for pipeline, names in stages.items():
        for stage in names:
            file = read_yaml(None, stage, pipeline)[0]
            settings = read_settings(PipelineArguments(output_dir=""), stage, pipeline)
            assert {name: settings[name] for name in file} == file


def test_a_setting_that_no_recipe_knows_is_an_error(own, llm, tmp_path):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="hiden_width"):
        run_line.run_main_stages(
            data,
            {"llm_name_or_path": llm},
            tmp_path / "run",
            {"tokenizer": TOKENIZER | {"hiden_width": 8}, "sft": SFT},
        )


def shipped(stage: str) -> dict:
    from action_llm_recipes.pipeline.settings import CONFIGS

    return yaml.safe_load((CONFIGS / "llm_ar" / f"small_{stage}.yaml").read_text())


@pytest.mark.parametrize("recordings", [200, 227, 284, 323, 431, 516, 1000])
def test_the_settings_of_published_runs_stay(recordings):
    """UTD-MHAD and MSR Action3D, with and without their held-out recordings."""
    from action_llm_recipes.pipeline.settings import scale_steps

    for stage in ("tokenizer", "sft"):
        assert scale_steps(shipped(stage), recordings) == shipped(stage)


def test_fewer_recordings_take_fewer_steps_and_more_take_more():
    from action_llm_recipes.pipeline.settings import scale_steps

    changed = {"max_steps", "warmup_steps", "save_steps", "logging_steps"}
    settings = shipped("sft")
    scaled = scale_steps(settings, 36)
    assert {name: scaled[name] for name in changed} == {
        "max_steps": 486,
        "warmup_steps": 7,
        "save_steps": 162,
        "logging_steps": 9,
    }
    assert all(scaled[name] == settings[name] for name in settings if name not in changed)
    assert [scale_steps(settings, count)["max_steps"] for count in (1, 20, 100, 199, 200)] == [
        270,
        270,
        1350,
        2686,
        2700,
    ]
    assert [scale_steps(settings, count)["max_steps"] for count in (1_001, 1_500, 40_320)] == [2703, 4050, 108_864]
    assert scale_steps(settings, 40_320)["save_steps"] == settings["save_steps"], "a long training is saved as often"
    # A warm-up that is a share of the steps stays the same.
    assert scale_steps({"max_steps": 100, "warmup_steps": 0.1}, 100) == {"max_steps": 50, "warmup_steps": 0.1}


@pytest.mark.parametrize(
    ("options", "recordings", "held_out", "expected"),
    [
        ({}, 36, 6, True),
        ({}, 36, 0, False),
        ({}, 36, 36, False),
        ({}, 200, 40, False),
        ({}, 431, 108, False),
        ({"hold_out": True}, 36, 6, False),
        ({"sft_config": "tests"}, 36, 6, False),
        ({"early_stopping": False}, 36, 6, False),
        ({"early_stopping": True}, 431, 108, True),
    ],
)
def test_who_stops_early(options, recordings, held_out, expected, tmp_path):
    from action_llm_recipes.run_line import PipelineArguments, chooses_early_stopping

    if "sft_config" in options:
        options = {"sft_config": str(tmp_path / "sft.yaml")}
        (tmp_path / "sft.yaml").write_text("method: full")
    train = {"held_out": [index < held_out for index in range(recordings)]}

    class Rows(dict):
        def __len__(self):
            return recordings

    assert chooses_early_stopping(PipelineArguments(output_dir="", **options), Rows(train)) == expected


def test_early_stopping_and_hold_out_exclude_each_other():
    from action_llm_recipes.run_line import PipelineArguments

    with pytest.raises(ValueError, match="would bias the result: set only one"):
        PipelineArguments(output_dir="", early_stopping=True, hold_out=True)


def test_a_language_model_of_the_files_is_used_with_its_commit(tmp_path):
    from action_llm_recipes.run_line import PipelineArguments, read_settings, with_models_of_files

    (tmp_path / "sft.yaml").write_text("llm_name_or_path: a/b\nllm_revision: c1\nmethod: lora\n")
    arguments = PipelineArguments(output_dir="", sft_config=str(tmp_path / "sft.yaml"))
    files = {"sft": {"llm_name_or_path": "a/b", "llm_revision": "c1"}, "tokenizer": {}}
    named = with_models_of_files(arguments, files)
    assert (named.llm_name_or_path, named.llm_revision) == ("a/b", "c1")
    assert read_settings(named, "sft", "llm_ar")["llm_revision"] == "c1"
    # The commit is left out with another language model.
    other = with_models_of_files(dataclasses.replace(arguments, llm_name_or_path="a/c"), files)
    assert (other.llm_name_or_path, other.llm_revision) == ("a/c", None)
    assert "llm_revision" not in read_settings(other, "sft", "llm_ar")
    with pytest.raises(ValueError, match="name different language models or commits"):
        with_models_of_files(arguments, files | {"tokenizer": {"llm_name_or_path": "a/c"}})


@pytest.mark.parametrize("trains_lvlm", [False, True])
def test_the_stage_that_loads_the_language_model_gets_its_commit(trains_lvlm, tmp_path, monkeypatch):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    stages = {}
    monkeypatch.setattr(run_line, "run_stage", lambda stage, folder, settings: stages.update({stage: settings}))
    arguments = run_line.PipelineArguments(output_dir=str(tmp_path), llm_name_or_path="a/b", llm_revision="c1")
    settings = {stage: {} for stage in ("tokenizer", "encode", "sft", "evaluation", *["lvlm"] * trains_lvlm)}
    run_line.run_pipeline(arguments, DataArguments(dataset="folder", data_dir=str(tmp_path)), settings, [])
    with_commit = {stage for stage, values in stages.items() if values.get("llm_revision") == "c1"}
    assert with_commit == ({"lvlm"} if trains_lvlm else {"tokenizer", "sft"})


def test_the_command_line_knows_the_papers(capsys):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.launching import parse

    with pytest.raises(SystemExit):
        parse(run_line.ARGUMENTS, ["--output_dir", "o", "--paper", "llm_arr"])
    assert "argument --paper: invalid choice: 'llm_arr'" in capsys.readouterr().err


def resolved(stage, settings):
    from action_llm_recipes.common.launching import with_defaults
    from action_llm_recipes.pipeline.stages import classes_of

    return with_defaults(classes_of(stage, settings), settings)


def test_the_plan_says_what_is_done_and_for_how_long(caplog, monkeypatch):
    from action_llm_recipes.pipeline import plan as run_plan
    from action_llm_recipes.pipeline.settings import scale_steps, with_early_stopping

    monkeypatch.setattr(run_plan, "probe", lambda: 2 * run_plan.PROBE_SECONDS)
    settings = {
        stage: resolved(stage, with_early_stopping(stage, scale_steps(shipped(stage), 30), 30 * 24))
        for stage in ("tokenizer", "sft")
    }
    counts = run_plan.RecordingCounts(
        trained=30, held_out=6, test=12, evaluates_held_out=False, encodings=24, test_encodings=20
    )
    with caplog.at_level("INFO"):
        seconds = run_plan.show_plan(settings, counts, trains_llm=True)
    tokenizer, sft, sentences, asked = 120 * 32 * 4.0, 405 * 16 * 8.0, (36 * 24 + 12 * 20) * 1.5, 12 * 20 * 5.0
    assert seconds == pytest.approx(2 * (run_plan.SMALL_LM_SECONDS + (tokenizer + sft + sentences + asked) / 1000))
    assert caplog.messages[0] == "Plan for 30 training recordings:"
    assert "120 steps of 32 examples, about 31 s" in caplog.text
    assert "405 steps of 16 examples, fewer if the loss on held-out recordings stops falling" in caplog.text
    assert "1104 of 36 training and 12 test recordings" in caplog.text
    assert f"About {seconds:.0f} s in total on this machine" in caplog.text
    assert run_plan.show_plan(settings, counts, trains_llm=False) is None
    caplog.clear()
    with caplog.at_level("INFO"):
        run_plan.show_plan(settings, counts._replace(evaluates_held_out=True, test_encodings=24), trains_llm=True)
    assert "876 of 36 training and 12 test recordings" in caplog.text
    assert "144 sentences of 6 recordings" in caplog.text


@pytest.mark.parametrize(
    ("stage", "own", "work"),
    [
        ("sft", {}, "1172 steps of 256 examples"),
        ("sft", {"max_steps": -1}, "6 steps of 256 examples"),  # 3 epochs of 20 x 24 sentences, 120 batches of 4
        ("sft", {"max_steps": -1, "num_train_epochs": 7, "gradient_accumulation_steps": 7}, "126 steps of 28 examples"),
        ("sft", {"method": "none"}, "not trained"),
        ("tokenizer", {"max_steps": -1, "num_train_epochs": 4, "per_device_train_batch_size": 8}, "12 steps of 8 examples"),
        ("features", {"versions": 8}, "203 versions of 25 training and 3 test videos"),
        ("features", {"versions": 2, "test_versions": 4}, "62 versions of 25 training and 3 test videos"),
    ],
)  # fmt: skip
def test_the_plan_of_own_settings_is_what_the_recipes_do(stage, own, work):
    from action_llm_recipes.pipeline import plan as run_plan

    counts = run_plan.RecordingCounts(
        trained=20, held_out=5, test=3, evaluates_held_out=False, encodings=24, test_encodings=1
    )
    assert run_plan.work_of(stage, resolved(stage, own), counts)[0] == work


def test_the_plan_counts_epochs_as_the_trainer_does(tmp_path):
    import torch
    from transformers import Trainer, TrainingArguments

    from action_llm_recipes.pipeline.plan import training_steps

    for examples, batch, accumulation, epochs in ((48, 4, 5, 3), (7, 2, 1, 2.5), (3, 8, 4, 4)):
        settings = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "num_train_epochs": epochs,
            "max_steps": -1,
        }
        arguments = TrainingArguments(str(tmp_path), use_cpu=True, **settings)
        trainer = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=[{}] * examples)
        steps = trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())[-1]
        assert training_steps(settings, examples) == steps


@pytest.mark.parametrize(
    ("own", "steps"),
    [({}, 117), ({"max_steps": -1, "num_train_epochs": 100}, 20), ({"max_steps": 5}, 1), (SFT, 1)],
)
def test_early_stopping_looks_ten_times_whatever_the_file_leaves_out(own, steps):
    from action_llm_recipes.pipeline.settings import with_early_stopping

    settings = with_early_stopping("sft", own, 20 * 24)
    assert settings["eval_steps"] == settings["save_steps"] == steps


def test_early_stopping_is_planned_for_the_steps_of_the_command_line(tmp_path):
    from datasets import Dataset

    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.run_line import PipelineArguments, fit_to_recordings

    rows = Dataset.from_dict({"held_out": [index < 10 for index in range(60)], "layout": ["kinect20"] * 60})
    overrides = {"sft": {"max_steps": 300}}
    settings = {stage: shipped(stage) | overrides.get(stage, {}) for stage in ("tokenizer", "sft")}
    data = DataArguments(dataset="folder", data_dir=str(tmp_path))
    arguments = PipelineArguments(output_dir="", encodings=2)
    fitted, counts = fit_to_recordings(arguments, data, settings, overrides, {"train": rows, "test": rows})
    assert (counts.trained, fitted["sft"]["max_steps"]) == (50, 300)
    assert fitted["sft"]["eval_steps"] == fitted["sft"]["save_steps"] == 30


@pytest.mark.slow
def test_training_stops_early_and_keeps_the_best(own, llm, tmp_path, monkeypatch, caplog):
    """Default settings with held-out recordings stop early; two runs share the small language model."""
    from huggingface_hub import constants

    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.pipeline.settings import PATIENCE
    from action_llm_recipes.pretraining import small_lm

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hub"))
    made = []

    def make(arguments, training):
        made.append(training.output_dir)
        (folder := Path(training.output_dir)).mkdir()
        shutil.copytree(llm, folder / "model")
        (folder / "record.json").write_text("{}")

    monkeypatch.setattr(small_lm, "main", make)
    settings = {
        "tokenizer": TOKENIZER | {"warmup_steps": 1, "use_cpu": True},
        "sft": shipped("sft") | SFT | {"method": "lora", "max_steps": 400, "learning_rate": 0.05, "use_cpu": True},
    }
    monkeypatch.setattr(run_line, "read_yaml", lambda path, stage, pipeline: (dict(settings[stage]), stage))
    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    arguments = run_line.PipelineArguments(output_dir=str(tmp_path / "run"), encodings=2)
    with caplog.at_level("INFO"):
        metrics = run_line.main(arguments, data)
    assert (metrics["split"], metrics["recordings"]) == ("test", 2)
    record = json.loads((tmp_path / "run" / "sft" / "record.json").read_text())
    assert record["hold_out"] and record["settings"]["early_stopping"] == PATIENCE
    lines = [json.loads(line) for line in (tmp_path / "run" / "sft" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["eval_loss"] for line in lines if "eval_loss" in line]
    best = int(np.argmin(losses))
    # 40 steps of ten looks; it stopped after three looks that found nothing better, or at its end.
    assert record["settings"]["steps"] == 4 * len(losses) == min(4 * (best + 1 + PATIENCE), 40)
    checkpoint = tmp_path / "run" / "sft" / "checkpoints" / f"checkpoint-{4 * (best + 1)}"
    stored = load_file(checkpoint / "adapter_model.safetensors")
    adapter = load_file(tmp_path / "run" / "sft" / "model" / "adapter" / "adapter_model.safetensors")
    assert sorted(tensor.sum().item() for tensor in stored.values()) == pytest.approx(
        sorted(tensor.sum().item() for tensor in adapter.values())
    )
    # Another run uses the same language model, which is not in the folder of a run.
    with caplog.at_level("INFO"):
        run_line.main(dataclasses.replace(arguments, output_dir=str(tmp_path / "other")), data)
    assert len(made) == 1 and made[0].startswith(str(tmp_path / "hub" / "action_llm" / "small_lm"))
    assert not (tmp_path / "run" / "small_lm").exists()
    assert "Using the small language model in" in caplog.text


def test_a_line_refuses_another_seed_before_anything_is_made(own, monkeypatch, tmp_path):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    def made(*_):
        raise AssertionError("a language model was made")

    monkeypatch.setattr("action_llm_recipes.pretraining.small_lm.kept_small_lm", made)
    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    arguments = {"output_dir": str(tmp_path / "run"), "encodings": 2}
    with pytest.raises(AssertionError, match="was made"):
        run_line.main(run_line.PipelineArguments(**arguments), data)
    with pytest.raises(ValueError, match="was made with other seed: choose another --output_dir"):
        run_line.main(run_line.PipelineArguments(**arguments, seed=1), data)


def test_a_plan_says_which_stages_are_done(caplog):
    from action_llm_recipes.pipeline.plan import RecordingCounts, show_plan

    training = {"max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    with caplog.at_level("INFO"):
        counts = RecordingCounts(8, 0, 2, False, 2, 2)
        show_plan({"tokenizer": training, "sft": training}, counts, trains_llm=True, done={"tokenizer", "encode"})
    rows = [text.split("  ") for text in caplog.messages]
    done = [text.split()[:2] for text in caplog.messages if text.endswith("already done")]
    assert done == [["action", "model"], ["sentences", "already"]] and len(rows) == 7


def test_files_are_checked_before_anything_heavy_is_imported(own, tmp_path):
    from fresh_python import python

    (tmp_path / "sft.yaml").write_text("lora_dropuot: 0.1")
    recipe, settings = Path(__file__).resolve().parents[2] / "recipes" / "run_line.py", str(tmp_path / "sft.yaml")
    line = [
        "run_line.py",
        "--dataset",
        "folder",
        "--data_dir",
        str(own),
        "--output_dir",
        "y",
        "--sft_config",
        settings,
    ]
    code = f"""
import runpy, sys

sys.argv[:] = {line!r}
try:
    runpy.run_path({str(recipe)!r}, run_name="__main__")
finally:
    print("transformers" in sys.modules or "datasets" in sys.modules)
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert done.stderr == (
        f"run_line.py: error: {settings}: the stage sft has no setting 'lora_dropuot'; did you mean lora_dropout?\n"
    )


def test_options_without_effect_are_errors(tmp_path):
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.run_line import PipelineArguments, main

    data = DataArguments(dataset="folder", data_dir=str(tmp_path))
    for settings, message in (
        ({"llm_revision": "abc"}, "--llm_revision needs --llm_name_or_path"),
        ({"backbone": "facebook/dinov2-small"}, "--backbone is for videos, but folder has skeletons"),
    ):
        with pytest.raises(ValueError, match=message):
            main(PipelineArguments(output_dir=str(tmp_path / "run"), **settings), data)


def test_any_setting_of_a_stage_can_be_given_on_the_command_line(own, llm, tmp_path):
    """An ablation needs no YAML file: settings on the command line override those of the file."""
    from action_llm_recipes import run_line
    from action_llm_recipes.common.launching import parse

    for stage, settings in (("tokenizer", TOKENIZER), ("sft", SFT)):
        (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump(settings | {"use_cpu": True}))
    words = f"--output_dir {tmp_path}/run --llm_name_or_path {llm} --encodings 2 --dataset folder --data_dir {own}"
    words += (
        f" --cache_dir {tmp_path}/cache --tokenizer_config {tmp_path}/tokenizer.yaml --sft_config {tmp_path}/sft.yaml"
    )
    words += " --tokenizer.codebook_size 8 --sft.lora_r=3 --sft.lora_target_modules q_proj k_proj --sft.list_classes"
    words += " --sft.learning_rate 1e-3 --evaluation.batch_size 2 --encode.batch_size 4"
    metrics = run_line.main(*parse(run_line.ARGUMENTS, words.split()))
    assert metrics["recordings"] == 2
    config = yaml.safe_load((tmp_path / "run" / "sft" / "config.yaml").read_text())
    assert (config["lora_r"], config["lora_target_modules"]) == (3, ["q_proj", "k_proj"])
    assert config["list_classes"] is True and config["learning_rate"] == 1e-3
    assert yaml.safe_load((tmp_path / "run" / "tokenizer" / "config.yaml").read_text())["codebook_size"] == 8
    # The folder of a run is not resumed with another setting.
    with pytest.raises(ValueError, match=r"lora_r: 3, now 4.*choose another --output_dir"):
        run_line.main(*parse(run_line.ARGUMENTS, [*words.split(), "--sft.lora_r", "4"]))


def test_settings_that_are_not_of_stages_are_refused(tmp_path, capsys):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.launching import parse

    words = [
        "--config",
        str(tmp_path / "run.yaml"),
        "--output_dir",
        "o",
        "--dataset",
        "folder",
        "--data_dir",
        str(tmp_path),
    ]
    (tmp_path / "run.yaml").write_text("settings: 5\n")
    with pytest.raises(SystemExit):
        parse(run_line.ARGUMENTS, words)
    assert "run.yaml: settings: expected settings of recipes, got 5" in capsys.readouterr().err
    (tmp_path / "run.yaml").write_text("settings: {sft: {lora_r: 4}}\n")
    assert parse(run_line.ARGUMENTS, words)[0].settings == {"sft": {"lora_r": 4}}


def test_settings_given_by_hand_are_not_scaled(own, tmp_path, monkeypatch):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    seen = {}
    monkeypatch.setattr(run_line, "run_pipeline", lambda arguments, data, settings, unseen: seen.update(settings))
    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    arguments = run_line.PipelineArguments(output_dir=str(tmp_path / "run"), settings={"sft": {"max_steps": 500}})
    run_line.main(arguments, data)
    assert seen["sft"]["max_steps"] == 500 and seen["sft"]["warmup_steps"] < shipped("sft")["warmup_steps"]
    assert seen["tokenizer"]["max_steps"] < shipped("tokenizer")["max_steps"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stf": {"lora_r": 1}}, "there is no stage 'stf'; did you mean sft"),
        ({"sft": {"lora_rr": 1}}, r"--sft.lora_rr: no such option; did you mean lora_r\?"),
        ({"sft": {"lora_r": "many"}}, "--sft.lora_r: expected an integer, got 'many'"),
        ({"sft": {"method": "lore"}}, "--sft.method: expected one of lora, .*got 'lore'"),
        ({"sft": {"learning_rate": ["1e-3", "2"]}}, "--sft.learning_rate: expected a single value"),
        ({"sft": {"seed": 3}}, "--sft.seed: .* Give --seed once, without a stage, for the whole run"),
        (
            {"tokenizer": {"held_out_subjects": ["1"]}},
            "--tokenizer.held_out_subjects: .* Give --held_out_subjects once",
        ),
        ({"encode": {"dataset": "folder"}}, "--encode.dataset: .* Give --dataset once"),
        ({"evaluation": {"split": "test"}}, "--evaluation.split follows from --hold_out"),
        (
            {"sft": {"restrict_names": "true"}},
            "--sft.restrict_names: no such option; it is now constrained_scoring",
        ),
        ({"sft": {"tokenizer": "x"}}, "--sft.tokenizer cannot be set: it follows from the earlier stages"),
        (
            {"features": {"grid": 1}},
            "--features.grid: this run has no stage features. Its stages are tokenizer, encode, sft, calibration, evaluation",
        ),
        ({"sft": 3}, "settings: sft: expected settings and their values, got 3"),
    ],
)
def test_a_wrong_setting_of_a_stage_is_told_before_anything_is_trained(settings, message, own, llm, tmp_path):
    from action_llm_recipes import run_line
    from action_llm_recipes.common.data_arguments import DataArguments

    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=message):
        run_line.main(
            run_line.PipelineArguments(output_dir=str(tmp_path / "run"), llm_name_or_path=llm, settings=settings), data
        )
    assert not (tmp_path / "run" / "tokenizer").exists()


@pytest.mark.parametrize(
    ("pipeline", "settings", "message"),
    [
        ("llm_ar", {"codebook_size": 7}, "`codebook_size` must be an even number"),
        ("llm_ar", {"streams": ["joints", "bone"]}, "`streams` must be some of"),
        ("lvlm_var", {"num_heads": 3}, "must be a multiple of `num_heads` 3"),
        ("lvlm_var", {"direct": True}, "`direct` needs `quantize=False`"),
        ("vt_lvlm_ar", {"max_events": 0}, "`max_events` must be"),
    ],
)
def test_the_settings_of_each_action_model_are_checked(pipeline, settings, message):
    from action_llm_recipes.pipeline.settings import check_pipeline, read_yaml

    shipped = {stage: read_yaml(None, stage, pipeline)[0] for stage in ("tokenizer", "sft")}
    shipped["features"] = {"grid": 1}
    check_pipeline(pipeline, shipped)
    with pytest.raises(ValueError, match=message):
        check_pipeline(pipeline, shipped | {"tokenizer": shipped["tokenizer"] | settings})


def test_direct_projection_frame_rates_of_recordings_and_every_stream_pass_the_checks():
    from action_llm.configuration_action_vqvae import STREAMS
    from action_llm_recipes.pipeline.settings import check_pipeline

    check_pipeline("lvlm_var", {"tokenizer": {"action_model": "vst", "direct": True, "quantize": False}, "sft": {}})
    check_pipeline("llm_ar", {"tokenizer": {"fps": None, "layout": None, "num_persons": None}, "sft": {}})
    check_pipeline("llm_ar", {"tokenizer": {"streams": list(STREAMS)}, "sft": {}})


def test_every_option_of_the_data_set_is_an_option_of_the_run():
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.pipeline.settings import read_overrides

    for option in dataclasses.fields(DataArguments):
        with pytest.raises(ValueError, match=f"--tokenizer.{option.name}: .* Give --{option.name} once"):
            read_overrides({"tokenizer": {option.name: "x"}}, {"tokenizer": {}})


def test_settings_of_an_older_version_have_their_former_names(tmp_path):
    from action_llm_recipes.pipeline.settings import read_yaml

    path = tmp_path / "sft.yaml"
    path.write_text("restrict_names: true\nlora_r: 4\n", encoding="utf-8")
    assert read_yaml(path, "sft", "llm_ar") == ({"constrained_scoring": True, "lora_r": 4}, path)
