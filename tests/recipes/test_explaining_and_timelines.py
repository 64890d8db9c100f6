"""Settings of `explain_actions.py` and `timeline.py` that are wrong or without effect are refused before anything is read."""

import pytest


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


def test_a_recogniser_of_skeletons_has_no_timelines(recipes, tokenizer, sentences, tmp_path):
    from action_llm_recipes import timeline as recipe

    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", method="none")
    arguments = recipe.TimelineArguments(model=model, videos=["a.mp4"], output_dir=str(tmp_path / "timelines"))
    message = r"action model is a vtem, got action_vqvae\. .* run_line\.py --paper vt_lvlm_ar"
    with pytest.raises(ValueError, match=message):
        recipe.main(arguments)
    with pytest.raises(ValueError, match="is not a recogniser but a model of the type action_vqvae"):
        recipe.TimelineArguments(model=tokenizer, videos=["a.mp4"], output_dir=str(tmp_path / "timelines"))
    assert not (tmp_path / "timelines").exists()
