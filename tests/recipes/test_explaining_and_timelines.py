"""Settings of `explain_actions.py` and `timeline.py` that are wrong or without effect are refused before anything is read."""

import csv
import json

import numpy as np
import pytest

from action_llm.skeleton_files import read_skeleton
from action_llm.timelines import Timeline
from action_llm.written_reasons import ReasonWriter
from action_llm_datasets.timelines import Segment
from action_llm_recipes.timeline import TimelineScore, true_actions


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unsure_below": 40}, "unsure_below must be from 0 to 1, got 40"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"faithfulness_count": 0}, "faithfulness_count must be at least 1, got 0"),
        ({"num_reasons": -1}, "num_reasons must be at least 0, got -1"),
    ],
)
def test_settings_of_explanations(recipes, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        recipes.explain("there is no model", "nor sentences", tmp_path / "why", **settings)
    assert not (tmp_path / "why").exists()


def test_reworded_reasons_and_rejected_texts_are_written(recipes, tokenizer, sentences, tmp_path, monkeypatch):
    class Alternating(ReasonWriter):
        """Repeats what was measured, and then says what was not."""

        def __init__(self):
            self.asked = []

        def generate(self, facts):
            self.asked.append(facts)
            motion = facts.split("\nMotion: ")[1].split("\nEvidence: ")[0]
            return motion if len(self.asked) % 2 else "The person flies <b>away</b>. They are happy."

    writer = Alternating()
    monkeypatch.setattr("action_llm.written_reasons.load_writer", lambda name, *recogniser: {"me/<i>": writer}[name])
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    metrics = recipes.explain(model, sentences, tmp_path / "why", count=8, faithfulness_count=2, writer="me/<i>")
    entries = [json.loads(text) for text in (tmp_path / "why" / "explanations.jsonl").read_text().splitlines()]
    written = [entry for entry in entries if entry["written"]]
    accepted = [entry for entry in written if entry["reason_by"] == "language model"]
    rejected = [entry for entry in written if entry["reason_by"] == "rules"]
    assert accepted and rejected and len(writer.asked) == len(written), "texts for the true class are by rules"
    counts = dict(metrics["written"])
    verdicts = counts.pop("statements")
    assert counts == {
        "writer": "me/<i>",
        "accepted": len(accepted),
        "rejected": len(rejected),
        "not_written": len(entries) - len(written),
    }
    assert json.loads((tmp_path / "why" / "metrics.json").read_text())["written"] == metrics["written"]
    page = (tmp_path / "why" / "index.html").read_text()
    for entry in accepted:
        assert entry["written"]["text"] in entry["text"]
        assert {statement["verdict"] for statement in entry["written"]["statements"]} == {"supported"}
    untrue = [entry for entry in written if "flies" in entry["written"]["text"]]
    for entry in untrue:
        assert entry["reason_by"] == "rules" and "flies" not in entry["text"]
        assert [statement["verdict"] for statement in entry["written"]["statements"]] == ["not checkable"] * 2
    assert verdicts["not checkable"] == 2 * len(untrue) == 2 * (len(written) // 2)
    assert verdicts["supported"] >= len(accepted)
    assert page.count("Reason, worded by the language model") == len(accepted)
    assert page.count("The person flies &lt;b&gt;away&lt;/b&gt;. They are happy.") == len(untrue)
    assert page.count("They are happy” (not measured).") == len(untrue) and "me/&lt;i&gt;" in page

    metrics = recipes.explain(model, sentences, tmp_path / "rules", count=1, faithfulness_count=1)
    assert "written" not in metrics and "by the language model" not in (tmp_path / "rules" / "index.html").read_text()


def test_an_unknown_split_is_refused_on_the_command_line(capsys):
    """Older versions took it for the training split."""
    from action_llm_recipes.common.launching import parse
    from action_llm_recipes.explain_actions import ExplanationArguments

    with pytest.raises(SystemExit):
        parse((ExplanationArguments,), ["--model", "m", "--sentences", "s", "--output_dir", "o", "--split", "tset"])
    assert "'tset'" in capsys.readouterr().err


def test_timelines_of_skeletons_are_written_and_scored(
    recipes, tokenizer, sentences, recordings, tmp_path, rendered, caplog
):
    from action_llm_recipes import timeline as recipe

    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    files = sorted(recordings.glob("*P003*A02*.skeleton"))[:3]
    clips = [read_skeleton(path).keypoints[:, 0] for path in files]
    np.save(tmp_path / "long.npy", np.concatenate(clips))
    np.save(tmp_path / "nobody.npy", np.zeros((30, 25, 3), np.float32))
    ends = np.cumsum([len(clip) for clip in clips]) / 30
    rows = [f"long.npy,{end - len(clip) / 30},{end},pick up" for clip, end in zip(clips, ends, strict=True)]
    (tmp_path / "truth.csv").write_text("\n".join(["file_name,start,end,label", *rows]))
    settings = {"model": model, "recordings": [str(tmp_path / f"{name}.npy") for name in ("long", "nobody")]}
    settings |= {"output_dir": str(tmp_path / "timelines"), "seconds": 2.0, "stride": 0.5, "nothing": ""}
    metrics = recipe.main(recipe.TimelineArguments(truth=str(tmp_path / "truth.csv"), **settings))
    assert metrics["recordings"] == 2 and metrics["actions_true"] == 3 and "event_borders" not in metrics
    assert "names no action of nobody.npy" in caplog.text
    assert 1.5 < metrics["label_delay_seconds"] <= 2.0  # that of a window, and less at the end
    (skipped,) = json.loads((tmp_path / "timelines" / "skipped.json").read_text())
    assert skipped["reason"] == "nobody.npy: expected people, found nobody"
    content = json.loads((tmp_path / "timelines" / "long.json").read_text())
    # Scored again, from the file: every step has a label, and every moment an action.
    step_ends = [*content["starts"][1:], ends[-1]]
    best = [content["class_names"][int(np.argmax(row))] for row in content["probabilities"]]
    right = [e - s for s, e, label in zip(content["starts"], step_ends, best, strict=True) if label == "pick up"]
    assert metrics["share_of_time_correct"] == pytest.approx(sum(right) / ends[-1])
    assert content["caption"].startswith(f"{metrics['actions_found']} action")
    assert content["events"] == [] and content["known"][0] == 2.0 and content["known"][-1] == pytest.approx(ends[-1])
    assert (tmp_path / "timelines" / "long.png").stat().st_size > 5000
    # The same person, and another one who comes later.
    alone = np.concatenate(clips)[:90]
    later = np.where(np.arange(90)[:, None, None] < 45, 0, clips[-1][np.arange(90) % len(clips[-1])] + [2, 0, 0])
    people = np.stack([alone, later], axis=1).astype(np.float32)
    np.savez(tmp_path / "two.npz", keypoints=people, body_ids=np.array([4, 9]))
    settings |= {"output_dir": str(tmp_path / "people"), "recordings": [str(tmp_path / "two.npz")]}
    recipe.main(recipe.TimelineArguments(per_person=True, **settings))
    content = json.loads((tmp_path / "people" / "two.json").read_text())
    assert [of["person"] for of in content["people"]] == [4, 9]
    assert [of["starts"][0] for of in content["people"]] == [0.0, 1.5]
    rows = list(csv.DictReader((tmp_path / "people" / "two.csv").read_text().splitlines()))
    assert [(row["person"], float(row["start"]), row["label"]) for row in rows] == [
        (str(of["person"]), span["start"], span["label"]) for of in content["people"] for span in of["spans"]
    ]
    assert (tmp_path / "people" / "two.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="leave out --per_person"):
        recipe.TimelineArguments(per_person=True, truth=str(tmp_path / "truth.csv"), **settings)
    with pytest.raises(ValueError, match=r"metrics\.mp4: its timeline would overwrite metrics\.json of the run"):
        recipe.main(recipe.TimelineArguments(**settings | {"recordings": [str(tmp_path / "metrics.mp4")]}))
    with pytest.raises(ValueError, match="is not a recogniser but a model of the type action_vqvae"):
        recipe.TimelineArguments(model=tokenizer, recordings=["a.mp4"], output_dir=str(tmp_path / "none"))


def timeline_of(labels):
    """A timeline with a step per second: 0 standing, 1 waving, None nobody."""
    chances = np.array([{0: (0.8, 0.2), 1: (0.1, 0.9), None: (np.nan, np.nan)}[label] for label in labels])
    starts = np.arange(len(labels), dtype=float)
    return Timeline(["stand", "wave"], starts, starts + 1, chances, starts + 4, [], np.zeros(len(labels), bool))


@pytest.mark.parametrize(
    ("labels", "nothing", "share"),
    [
        ([None] * 5 + [1] * 5, "stand", 1.0),  # an empty room, in which there is no action
        ([0] * 5 + [1] * 5, "stand", 1.0),
        ([1] * 10, "stand", 0.5),
        ([1] * 10, "", 1.0),  # no class for time without an action, which is not scored
        ([None] * 8 + [1] * 2, "", 0.4),
    ],
)
def test_the_share_of_time_that_is_labelled_correctly(labels, nothing, share):
    score = TimelineScore(nothing)
    score.add(timeline_of(labels), [Segment(5, 10, "wave")])
    metrics = score.metrics()
    assert metrics["share_of_time_correct"] == pytest.approx(share) and metrics["label_delay_seconds"] == 4


def test_a_recording_that_cannot_be_read_has_missed_its_actions():
    score = TimelineScore("stand")
    score.add(timeline_of([0, 1, 1, 0]), [Segment(1, 3, "wave")])
    assert score.metrics()["actions_map_0.5"] == score.metrics()["share_of_time_correct"] == 1
    score.add_missed([Segment(0, 4, "wave")])
    metrics = score.metrics()
    assert (metrics["recordings"], metrics["actions_true"]) == (2, 2)
    for name in ("share_of_time_correct", "order_of_actions", "actions_map_0.5", "starts_map_10_s"):
        assert metrics[name] == 0.5
    assert metrics["actions_f1_0.5"] == pytest.approx(2 / 3)


def test_the_order_of_actions_is_the_mean_of_the_recordings():
    """As Lea et al. (2016) average it: a long recording counts no more than a short one."""
    score = TimelineScore("stand")
    score.add(timeline_of([1]), [Segment(0, 1, "wave")])
    score.add(timeline_of([0] * 8), [Segment(second, second + 1, "wave") for second in range(8)])
    assert score.metrics()["order_of_actions"] == 0.5


def test_recordings_that_the_table_does_not_name(tmp_path, caplog):
    (tmp_path / "truth.csv").write_text("file_name,start,end,label\na.mp4,1,2,wave\n")
    first, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    assert true_actions(str(tmp_path / "truth.csv"), [first, other]) == {first: [Segment(1, 2, "wave")], other: []}
    assert "names no action of b.mp4: scored as recordings without actions" in caplog.text
