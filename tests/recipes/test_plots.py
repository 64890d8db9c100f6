"""Pictures are written, whole, for the cases that break drawings: nothing used, nobody present, a class without data."""

import numpy as np
import pytest
from matplotlib.image import imread
from metrics.action_classification.classification_scores import (
    confusion_matrix,
    log_normalize,
    per_class_table,
    reliability_bins,
)
from metrics.plots import (
    plot_action_sentence,
    plot_class_accuracy,
    plot_confusion_matrix,
    plot_reliability,
    plot_sentence_lengths,
    plot_token_usage,
    plot_video_sentence,
)

from action_llm.skeleton_layouts import get_layout


def ink(path):
    """Fraction of pixels that are not white."""
    return float((imread(path)[..., :3].min(axis=2) < 0.98).mean())


@pytest.fixture(scope="module")
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=60)
    labels[labels == 3] = 2
    return log_normalize(rng.normal(size=(60, 4)) + 2 * np.eye(4)[labels]), labels


def test_tables_are_drawn(predictions, tmp_path):
    logs, labels = predictions
    names = ["clap", "wave", "a name that is long (with brackets)", "absent"]
    plot_confusion_matrix(confusion_matrix(logs.argmax(1), labels, 4), names, tmp_path / "new" / "confusion.png")
    plot_reliability(reliability_bins(logs, labels), tmp_path / "reliability.png")
    plot_class_accuracy(per_class_table(logs.argmax(1), labels, names), tmp_path / "classes.png")
    for path in ("new/confusion.png", "reliability.png", "classes.png"):
        assert 0.01 < ink(tmp_path / path) < 0.9


@pytest.mark.parametrize("counts", [np.arange(512), np.eye(1, 16)[0] * 9, np.zeros(8)])
def test_token_usage_is_drawn(counts, tmp_path):
    plot_token_usage(counts, tmp_path / "usage.png")
    assert ink(tmp_path / "usage.png") > 0.01


@pytest.mark.parametrize("lengths", [[7], [1, 1, 2, 9], range(3, 900, 5)])
def test_lengths_of_sentences_are_drawn(lengths, tmp_path):
    plot_sentence_lengths(lengths, tmp_path / "lengths.png")
    assert ink(tmp_path / "lengths.png") > 0.01


@pytest.mark.parametrize("frames", [1, 40])
@pytest.mark.parametrize("layout", ["kinect25", "coco17"])
def test_a_recording_with_its_tokens_is_drawn(frames, layout, tmp_path):
    layout = get_layout(layout)
    keypoints = np.random.default_rng(1).normal(size=(frames, 2, layout.num_joints, 3))
    keypoints[frames // 2 :, 1] = 0
    tokens = -(-frames // 4)
    start = np.arange(tokens) * 4 / 30
    ids = np.arange(tokens) % 3
    plot_action_sentence(keypoints, layout, 30.0, ids, start, start + 4 / 30, tmp_path / "people.png")
    plot_action_sentence(np.zeros_like(keypoints), layout, 30.0, ids, start, start + 4 / 30, tmp_path / "nobody.png")
    assert ink(tmp_path / "people.png") > ink(tmp_path / "nobody.png") > 0.01


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (7, 7)])
@pytest.mark.parametrize("duration", [0.05, 3.0, 900.0])
def test_a_video_with_its_tokens_and_what_they_did_is_drawn(shape, duration, tmp_path):
    asked = []

    def frames_at(times):
        asked.extend(times)
        return np.full((len(times), *shape, 3), 90, np.uint8)

    ends = np.linspace(0, duration, 5)[1:]
    sentence = (np.array([3, 1, 3, 7]), ends - duration / 4, ends)
    plot_video_sentence(frames_at, duration, *sentence, tmp_path / "plain.png")
    plot_video_sentence(
        frames_at, duration, *sentence, tmp_path / "reasons.png", "title", contributions=np.array([0.5, -1, 0, 2])
    )
    assert min(asked) >= 0 and max(asked) <= duration
    assert ink(tmp_path / "plain.png") > 0.1 and ink(tmp_path / "reasons.png") > 0.1
    assert imread(tmp_path / "reasons.png").shape[0] > imread(tmp_path / "plain.png").shape[0]


def test_equal_results_give_equal_files_and_a_failure_leaves_none(predictions, tmp_path):
    for name in ("one.png", "two.png"):
        plot_token_usage(np.arange(9), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with pytest.raises(ValueError):
        plot_confusion_matrix(np.eye(3), ["one", "two"], tmp_path / "three.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]
