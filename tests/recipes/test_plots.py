"""Pictures are written, whole, for the cases that break drawings: nothing used, nobody present, a class without data."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.image import imread

from action_llm.modeling_vtem import VisualEvent
from action_llm.skeleton_layouts import get_layout
from action_llm.timelines import Timeline
from action_llm.token_lexicon import token_color
from action_llm_recipes.metrics.action_classification.classification_scores import (
    confusion_matrix,
    log_normalize,
    per_class_table,
    reliability_bins,
)
from action_llm_recipes.metrics.plots import (
    plot_action_sentence,
    plot_class_accuracy,
    plot_confusion_matrix,
    plot_people,
    plot_reliability,
    plot_risk_coverage,
    plot_sentence_lengths,
    plot_timeline,
    plot_token_usage,
    plot_video_sentence,
    token_rows,
)

pytestmark = pytest.mark.usefixtures("rendered")


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
    bins = reliability_bins(logs, labels)
    plot_reliability({"Before": bins, "After": bins}, tmp_path / "reliability.png")
    plot_risk_coverage(np.linspace(0, 0.2, 60), tmp_path / "risk.png")
    plot_class_accuracy(per_class_table(logs.argmax(1), labels, names), tmp_path / "classes.png")
    for path in ("new/confusion.png", "reliability.png", "risk.png", "classes.png"):
        assert 0.01 < ink(tmp_path / path) < 0.9


@pytest.mark.parametrize("counts", [np.arange(512), np.eye(1, 16)[0] * 9, np.zeros(8)])
def test_token_usage_is_drawn(counts, tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_token_usage(counts, tmp_path / "usage.png")
    assert ink(tmp_path / "usage.png") > 0.01
    assert not any("$" in text.get_text() for text in texts_of(figures[0])), "formulas are not drawn"


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


def test_tokens_that_overlap_in_time_are_drawn_in_rows(tmp_path, monkeypatch):
    """Events at three places of the frame, in the order in which they end."""
    figures, starts, ends = drawn(monkeypatch), np.array([0, 0, 1, 0, 1.5, 3]), np.array([1, 1.5, 3, 4, 4, 4.0])
    black = lambda times: np.zeros((len(times), 20, 30, 3), np.uint8)  # noqa: E731
    plot_video_sentence(black, 4.0, np.arange(6), starts, ends, tmp_path / "rows.png", contributions=np.ones(6))
    label = figures[0].axes[1].yaxis.label
    assert label.get_text().startswith("contribution") and label.get_window_extent().x0 >= 0
    boxes = [patch.get_bbox() for patch in figures[0].axes[-1].patches]
    assert [(box.x0, box.x1) for box in boxes] == list(zip(starts, ends, strict=True))
    assert sum(box.width for box in boxes) == 12 and {box.y0 for box in boxes} == {0, 1, 2}
    for one, other in itertools.combinations(boxes, 2):
        assert one.y0 != other.y0 or one.x1 <= other.x0 or other.x1 <= one.x0
    assert token_rows([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == [0, 0, 0]


def drawn(monkeypatch):
    """The figures that are written, as they are written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figures, save = [], FigureCanvasAgg.print_png

    def saved(canvas, file, **options):
        if isinstance(file, Path):  # Matplotlib also calls it to find its renderer
            figures.append(figure := canvas.figure)
            # Without the numbers of axes, some of which are not drawn.
            words = [text for text in texts_of(figure) if re.search("[a-zA-Z]", text.get_text())]
            figure.boxes = [(text, text.get_window_extent()) for text in words]
        save(canvas, file, **options)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", saved)
    return figures


def texts_of(figure):
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


LONG = "a class whose name goes on and on until it is too long for any picture eleven inches wide (recognised: a shorter one)"


def test_no_title_and_no_name_runs_out_of_its_picture(predictions, tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    logs, labels = predictions
    names = ["clap", LONG, "a name that is long (with brackets)", "Größe"]
    table = per_class_table(logs.argmax(1), labels, names)
    ends = np.arange(1.0, 5)
    events = [VisualEvent(0, 0.0, 4.0, None)]
    timeline = Timeline(names, ends - 1, ends, np.exp(logs[:4]), ends, events, np.zeros(4, bool))
    plot_confusion_matrix(confusion_matrix(logs.argmax(1), labels, 4), names, tmp_path / "confusion.png", LONG)
    plot_class_accuracy(table, tmp_path / "classes.png", LONG)
    plot_timeline(timeline, tmp_path / "timeline.png", title="VIDEO_" * 30)
    plot_video_sentence(lambda times: np.zeros((len(times), 20, 30, 3), np.uint8), 4.0, np.arange(4), ends - 1, ends,
                        tmp_path / "video.png", LONG)  # fmt: skip
    assert len(figures) == 4
    for figure in figures:
        width, height = figure.bbox.size
        for text, box in figure.boxes:
            assert box.x0 > -1 and box.x1 < width + 1 and box.y0 > -1 and box.y1 < height + 1, text
    note, title = (
        next(box for text, box in figures[2].boxes if word in text.get_text()) for word in ("blue:", "VIDEO")
    )
    assert not note.overlaps(title)


def test_each_person_has_a_row_in_which_names_do_not_meet(tmp_path, monkeypatch):
    """Names without room in any span are in the legend."""
    figures = drawn(monkeypatch)
    names, chances = (
        ["wave", "clapping", LONG],
        np.array([[0.8, 0.1, 0.1]] * 6 + [[0.1, 0.1, 0.8]] * 2 + [[np.nan] * 3]),
    )
    starts, doubts = np.arange(9.0), np.arange(9) == 0
    chances[0] = [0.2, 0.7, 0.1]
    people = {
        number: Timeline(names, starts + number, starts + number + 1, chances, starts, [], doubts)
        for number in range(14)
    }
    plot_people(people, tmp_path / "people.png", "clapping", title="VIDEO_" * 30)
    (figure,) = figures
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"person {number}" for number in range(12)]
    spans = [(patch.get_x(), round(patch.get_y()), patch.get_width()) for patch in axes.patches]
    assert spans == [(row + start, row, width) for row in range(12) for start, width in ((0, 1), (1, 5), (6, 2))]
    of_spans = [(text.get_text(), box) for text, box in figure.boxes if text in axes.texts[:-1]]
    assert of_spans and {text for text, _ in of_spans} <= {"wave", "wave 80%"}
    for (_, one), (_, other) in itertools.combinations(of_spans, 2):
        assert not one.overlaps(other)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clapping", LONG[:39].rstrip() + "…"]
    (note,) = (text.get_text() for text in axes.texts if "probability" in text.get_text())
    assert "hatched: unlike the training recordings; 2 others" in note


def test_names_of_other_scripts_are_no_boxes(predictions, tmp_path, recwarn):
    logs, labels = predictions
    names = ["挥手", "Привет", "שלום", "हाथ \u200d e\u0301"]
    plot_confusion_matrix(confusion_matrix(logs.argmax(1), labels, 4), names, tmp_path / "confusion.png", "双手")
    plot_class_accuracy(per_class_table(logs.argmax(1), labels, names), tmp_path / "classes.png", "双手")
    assert not [str(warning.message) for warning in recwarn if "missing from font" in str(warning.message)]


def test_a_token_has_one_colour_everywhere_and_tokens_differ(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    for name, ids in (("one", [5, 9, 3]), ("other", [3, 5, 200])):
        ends = np.arange(1.0, 4)
        plot_video_sentence(lambda times: np.zeros((len(times), 20, 30, 3), np.uint8), 3.0, np.array(ids), ends - 1, ends,
                            tmp_path / f"{name}.png")  # fmt: skip
    colours = [[to_hex(patch.get_facecolor()) for patch in figure.axes[-1].patches] for figure in figures]
    assert colours == [list(map(token_color, ids)) for ids in ([5, 9, 3], [3, 5, 200])]
    assert len({token_color(action_id) for action_id in range(512)}) > 450
    rgb = np.array([to_rgb(token_color(action_id)) for action_id in range(4096)])
    # Contrast as WCAG 2 has it, of the dark numbers that stand on it.
    luminance = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    assert ((luminance + 0.05) / (0.029 + 0.05)).min() > 4
    assert np.linalg.norm(np.diff(rgb, axis=0), axis=1).min() > 0.2


def test_bars_have_a_scale_with_numbers(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    ends = np.arange(1.0, 4)
    for values in ([0.5, 1.0, 2.0], [-0.02, -0.01, 0.0], [1.5, -2.0, 0.1], [0.0, 0.0, 0.0]):
        plot_video_sentence(lambda times: np.zeros((len(times), 20, 30, 3), np.uint8), 3.0, np.arange(3), ends - 1, ends,
                            tmp_path / "bars.png", contributions=np.array(values))  # fmt: skip
        bars = figures[-1].axes[1]
        low, high = bars.get_ylim()
        ticks = [tick for tick in bars.get_yticks() if low <= tick <= high]
        assert low < min(*values, 0) and high > max(*values, 0) and 0 in np.round(ticks, 12) and len(ticks) >= 2
        assert any(label.get_text() for label in bars.get_yticklabels()) and "nats" in bars.get_ylabel()


def test_a_second_body_is_explained(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    keypoints = np.random.default_rng(1).normal(size=(40, 2, 25, 3))
    alone = keypoints * [[[1.0]], [[0.0]]]
    ends = np.arange(1.0, 4)
    for bodies in (alone, keypoints):
        plot_action_sentence(
            bodies, get_layout("kinect25"), 30.0, np.arange(3), ends - 1, ends, tmp_path / "bodies.png"
        )
    notes = [[text.get_text() for text in texts_of(figure) if "body" in text.get_text()] for figure in figures]
    assert notes == [[], ["several bodies were detected; in lighter colours: body 2"]]


def test_equal_results_give_equal_files_and_a_failure_leaves_none(predictions, tmp_path):
    for name in ("one.png", "two.png"):
        plot_token_usage(np.arange(9), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with pytest.raises(ValueError):
        plot_confusion_matrix(np.eye(3), ["one", "two"], tmp_path / "three.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]
