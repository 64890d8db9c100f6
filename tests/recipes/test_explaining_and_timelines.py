"""Settings of `explain_actions.py` and `timeline.py` that are wrong or without effect are refused before anything is read."""

import json

import numpy as np
import pytest

from action_llm.skeleton_files import read_skeleton


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


def test_an_unknown_split_is_refused_on_the_command_line(capsys):
    """Older versions took it for the training split."""
    from action_llm_recipes.common.launching import parse
    from action_llm_recipes.explain_actions import ExplanationArguments

    with pytest.raises(SystemExit):
        parse((ExplanationArguments,), ["--model", "m", "--sentences", "s", "--output_dir", "o", "--split", "tset"])
    assert "'tset'" in capsys.readouterr().err


def test_timelines_of_skeletons_are_written_and_scored(recipes, tokenizer, sentences, recordings, tmp_path, rendered):
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
    assert metrics["recordings"] == 1 and metrics["actions_true"] == 3 and "event_borders" not in metrics
    assert 0 <= metrics["order_of_actions"] <= 1
    assert 0 <= metrics["actions_map_0.5"] <= 1 and 0 <= metrics["starts_map_10_s"] <= 1
    assert 1.5 < metrics["label_delay_seconds"] <= 2.0  # that of a window, and less at the end
    (skipped,) = json.loads((tmp_path / "timelines" / "skipped.json").read_text())
    assert skipped["reason"] == "nobody.npy: expected people, found nobody in 1.0 s"
    content = json.loads((tmp_path / "timelines" / "long.json").read_text())
    assert content["caption"].startswith(f"{metrics['actions_found']} action")
    assert content["events"] == [] and content["known"][0] == 2.0 and content["known"][-1] == pytest.approx(ends[-1])
    assert (tmp_path / "timelines" / "long.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="is not a recogniser but a model of the type action_vqvae"):
        recipe.TimelineArguments(model=tokenizer, recordings=["a.mp4"], output_dir=str(tmp_path / "none"))
