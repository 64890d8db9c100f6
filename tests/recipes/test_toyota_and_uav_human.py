"""LLM-AR on the other data sets of its paper: Toyota Smarthome (Table 2) and UAV-Human (Table 3), from made-up files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from skeleton_people import person, skeleton_text

from action_llm import ActionLLMForClassification, ActionLLMProcessor
from action_llm_recipes.common.action_sentences import load_action_sentences
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.hub.model_page import model_page, read_evaluation

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs" / "llm_ar"
# The settings of the YAML files that are too large for a test.
TINY = {
    "tokenizer": {
        "hidden_width": 8,
        "codebook_size": 16,
        "window": 16,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
    },
    "sft": {"lora_r": 2, "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1},
}


@pytest.fixture
def run(llm, tmp_path):
    """Runs all stages with the YAML files of the paper; returns the metrics."""

    def run(dataset, tokenizer_config):
        from action_llm_recipes import run_line

        small = {"warmup_steps": 1, "dataloader_num_workers": 0, "disable_tqdm": True, "use_cpu": True}
        arguments = run_line.PipelineArguments(
            output_dir=str(tmp_path / "run"),
            tokenizer_config=str(CONFIGS / tokenizer_config),
            sft_config=str(CONFIGS / "ntu60_sft.yaml"),
            llm_name_or_path=llm,
            encodings=1,
            settings={stage: values | small for stage, values in TINY.items()},
        )
        data = DataArguments(dataset=dataset, data_dir=str(tmp_path / "files"), cache_dir=str(tmp_path / "cache"))
        return run_line.main(arguments, data)

    (tmp_path / "files").mkdir()
    return run


@pytest.mark.parametrize("protocol", ["smarthome-cs", "smarthome-cv1"])
def test_toyota_smarthome(protocol, run, tmp_path, caplog):
    """13 joints at 20 frames per second; what counts is the mean over classes."""
    for number, (subject, camera) in enumerate([(3, 1), (4, 1), (19, 1), (2, 2), (10, 2), (11, 2)]):
        motion = person(24 + 4 * number, "lcrnet13", seed=number)
        # Three of four test clips are of one class, so that the two accuracies differ.
        activity = "Sitdown" if number in (0, 3) else "Walk"
        frames = [
            [{"pose2d": frame[:, :2].T.ravel().tolist(), "pose3d": frame.T.ravel().tolist()}]
            for frame in motion.astype(float)
        ]
        name = f"{activity}_p{subject:02d}_r00_v01_c{camera:02d}_pose3d.json"
        (tmp_path / "files" / name).write_text(json.dumps({"K": 100, "njts": 13, "frames": frames}))
    with caplog.at_level("INFO"):
        metrics = run(protocol, "smarthome_tokenizer.yaml")

    assert (metrics["recordings"], metrics["classes"]) == (3, 31 if protocol == "smarthome-cs" else 19)
    assert metrics["compared_by"] == "mean_per_class"
    assert re.search(r"recordings +classes +mean per class +95 % interval +top-1", caplog.text), (
        "the table leads with it"
    )
    model, processor = (
        kind.from_pretrained(tmp_path / "run" / "sft" / "model")
        for kind in (ActionLLMForClassification, ActionLLMProcessor)
    )
    config, extractor = model.config.action_config, processor.feature_extractor
    assert (config.layout, config.num_joints, config.num_coordinates, config.num_persons) == ("lcrnet13", 13, 3, 1)
    assert (extractor.fps, extractor.max_frames) == (20, 1200)
    evaluation = read_evaluation(tmp_path / "run" / "evaluation")
    page = model_page(tmp_path / "run" / "sft" / "model", "me/smarthome", [evaluation])
    first, second = (f"{100 * metrics[name]['estimate']:.1f}" for name in ("mean_per_class", "top_1"))
    assert "| mean per class | interval | top-1 | interval |" in page and "compared by mean per-class accuracy" in page
    assert re.search(rf"\| 3 \| {first} \| [^|]+ \| {second} \|", page)
    assert page.index("balanced_accuracy") < page.index("type: accuracy"), "also in the head of the page"
    # A token for four recorded frames: nothing is resampled.
    rows = load_action_sentences(tmp_path / "run" / "sentences")["test"]
    assert sorted(len(row["start_times"]) for row in rows) == [9, 10, 11]
    assert np.allclose(np.diff(rows[0]["start_times"]), 0.2)


def test_uav_human(run, tmp_path):
    """17 joints in pixels, with the YAML file of NTU RGB+D."""
    for number, subject in enumerate((0, 2, 8, 1, 3)):
        motion = 540 + 200 * person(24 + 4 * number, "coco17", seed=number, place=(0, 0, 0))
        frames = [[(0, [[f"{x:.2f}", f"{y:.2f}", *"0" * 10] for x, y in frame[:, :2]])] for frame in motion]
        name = f"P{subject:03d}S01G10B00H10UC102000LC092000A{30 + number % 2:03d}R0_09131758.txt"
        (tmp_path / "files" / name).write_text(skeleton_text(frames))
    metrics = run("uav-human-csv1", "ntu60_tokenizer.yaml")

    assert (metrics["recordings"], metrics["classes"], metrics["compared_by"]) == (2, 155, "top_1")
    processor = ActionLLMProcessor.from_pretrained(tmp_path / "run" / "sft" / "model")
    config = ActionLLMForClassification.from_pretrained(tmp_path / "run" / "sft" / "model").config.action_config
    assert (config.layout, config.num_joints, config.num_coordinates) == ("coco17", 17, 2)
    assert (processor.feature_extractor.fps, processor.feature_extractor.max_frames) == (30, None)


def test_the_two_tokenizers_differ_in_what_the_recordings_need():
    import yaml

    ntu, smarthome = (
        yaml.safe_load((CONFIGS / f"{name}_tokenizer.yaml").read_text()) for name in ("ntu60", "smarthome")
    )
    assert smarthome == ntu | {"dataset": "smarthome-cs", "fps": 20, "max_frames": 1200}
