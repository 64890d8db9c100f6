"""One command from a folder of people's own files to a recogniser."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from skeleton_people import person

TOKENIZER = {"hidden_width": 8, "codebook_size": 16, "window": 16, "max_steps": 2, "per_device_train_batch_size": 4}
SFT = {"lora_r": 2, "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


@pytest.fixture
def own(tmp_path):
    """Six recordings of two classes in an order of joints that nobody else has."""
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
    import run_line
    from data_arguments import DataArguments

    from action_llm import ActionLLMForClassification, ActionLLMProcessor

    common = {"warmup_steps": 1, "disable_tqdm": True, "use_cpu": True}
    (tmp_path / "tokenizer.yaml").write_text(yaml.safe_dump(TOKENIZER | common))
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(SFT | common))
    arguments = run_line.LineArguments(
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
    # What cannot be shows before anything is trained.
    with pytest.raises(ValueError, match="held-out recordings have 2 sentences each"):
        run_line.main(
            dataclasses.replace(arguments, output_dir=str(tmp_path / "no"), hold_out=True, test_encodings=3), data
        )
    assert not (tmp_path / "no").exists()
    folder = tmp_path / "run" / "sft" / "model"
    assert json.loads((folder / "record.json").read_text())["seed"] == 3
    # The recogniser reads a file of that kind by its path, wherever it is loaded.
    model, processor = ActionLLMForClassification.from_pretrained(folder), ActionLLMProcessor.from_pretrained(folder)
    assert processor.feature_extractor.skeleton_layout.name == "mine" and processor.feature_extractor.num_persons == 1
    assert set(model.config.id2label.values()) == {"wave", "fall"}
    assert float(model(**processor(own / "0.npy")).probabilities.sum()) == pytest.approx(1, abs=1e-5)
    # A finished run says the same again.
    assert run_line.main(arguments, data) == metrics


@pytest.mark.slow
def test_one_command_for_videos(llm, tmp_path):
    """A visual encoder of one's own first; what held-out videos select by must not have been seen by it."""
    import baselines
    import run_line
    from data_arguments import DataArguments
    from tiny_videos import tiny_video

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
            run_line.LineArguments(output_dir=str(tmp_path / folder), llm_name_or_path=llm, **settings, **options),
            data,
        )

    metrics = run("run", hold_out=True)
    assert (metrics["dataset"], metrics["split"], metrics["recordings"]) == ("folder-video", "held_out", 2)
    assert metrics["encodings"] == 2  # the versions of their features
    with pytest.raises(ValueError, match="--encodings 3: features are of 2 versions of a training video"):
        run("no", encodings=3)
    with pytest.raises(ValueError, match="--test_encodings 3: test recordings have 2 sentences each"):
        run("no", test_encodings=3)
    assert not (tmp_path / "no").exists()
    # It goes on from what is there; a visual encoder of all training videos is not one to choose settings by.
    assert run("run", hold_out=True) == metrics
    seen = run("seen")
    assert (seen["dataset"], seen["split"], seen["encodings"]) == ("folder-video", "test", 2)
    with pytest.raises(ValueError, match="the visual encoder was trained on the held-out subjects"):
        run("other", hold_out=True, backbone=str(tmp_path / "seen" / "backbone" / "model"))
    with pytest.raises(ValueError, match=r"visual encoder of .* was trained on the held-out recordings"):
        baselines.main(
            baselines.BaselineArguments(output_dir=str(tmp_path / "loss"), split="held_out"),
            DataArguments(dataset="features", data_dir=str(tmp_path / "seen" / "features")),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora_rank: 3", r"sft\.yaml: the stage sft has no setting 'lora_rank'"),
        ("", r"sft\.yaml: expected settings of the stage sft, found None"),
        ("- 1", r"sft\.yaml: expected settings of the stage sft, found \[1\]"),
        ("a: [", r"sft\.yaml: expected YAML, found .* line"),
    ],
)
def test_wrong_settings_show_before_anything_is_trained(own, llm, tmp_path, text, message):
    import run_line
    from data_arguments import DataArguments

    (tmp_path / "sft.yaml").write_text(text)
    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    arguments = run_line.LineArguments(output_dir=str(tmp_path / "run"), sft_config=str(tmp_path / "sft.yaml"))
    with pytest.raises(ValueError, match=message):
        run_line.main(arguments, data)
    (tmp_path / "tokenizer.yaml").write_text("action_model: vqvae")
    arguments = run_line.LineArguments(
        output_dir=str(tmp_path / "run"), tokenizer_config=str(tmp_path / "tokenizer.yaml")
    )
    with pytest.raises(
        ValueError, match=r"tokenizer\.yaml: action_model: expected one of action_vqvae, vst, vtem, found 'vqvae'"
    ):
        run_line.main(arguments, data)
    rows = (own / "metadata.csv").read_text().replace(",test", ",train")
    (own / "metadata.csv").write_text(rows)
    with pytest.raises(ValueError, match="has no test recordings: mark some, or evaluate on held-out ones"):
        run_line.main(run_line.LineArguments(output_dir=str(tmp_path / "run"), llm_name_or_path=llm), data)
    rows = [line.replace(",validation", ",train") for line in rows.splitlines()]
    (own / "metadata.csv").write_text("\n".join(rows) + "\n")
    arguments = run_line.LineArguments(output_dir=str(tmp_path / "run"), llm_name_or_path=llm, hold_out=True)
    with pytest.raises(ValueError, match=r"--hold_out true: of \d+ training recordings 0 are held out"):
        run_line.main(arguments, data)
    assert not (tmp_path / "run").exists()


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
    from run_line import LineArguments, count_sentences

    assert count_sentences(LineArguments(output_dir="", **given), features) == expected
    for name in ("encodings", "test_encodings"):
        with pytest.raises(ValueError, match=f"--{name} must be at least 1, got 0"):
            count_sentences(LineArguments(output_dir="", **given | {name: 0}), features)


def test_all_weights_are_trained_of_a_language_model_that_is_made_here_alone(tmp_path):
    from run_line import LineArguments, read_settings

    (tmp_path / "sft.yaml").write_text("method: full")
    own = {"llm_name_or_path": "somebody/large"}
    methods = [
        read_settings(LineArguments(output_dir="", **given), "sft", "llm_ar")["method"]
        for given in ({}, own, own | {"sft_config": str(tmp_path / "sft.yaml")})
    ]
    assert methods == ["full", "lora", "full"]


def test_a_setting_that_no_recipe_knows_is_an_error(own, llm, tmp_path):
    import run_line
    from data_arguments import DataArguments

    data = DataArguments(dataset="folder", data_dir=str(own), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="hiden_width"):
        run_line.run_line(data, llm, tmp_path / "run", TOKENIZER | {"hiden_width": 8}, SFT, 1)
