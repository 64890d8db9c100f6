"""Command lines: what they list, what they import to do so, and how they say that something is wrong."""

import dataclasses
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from launching import LazyArguments, from_settings, parse

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
LAUNCHED = [
    path.relative_to(RECIPES).as_posix()
    for path in sorted([*RECIPES.glob("*.py"), *RECIPES.glob("benchmarks/*.py")])
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
]
COMMANDS = [
    f"action_llm_datasets.{name}" for name in ("folder", "pages", "prepare", "render", "simulate", "simulate_long")
]
HEAVY = ("torch", "trl", "transformers.training_args")

# Runs command lines after each other in one process; of each, what it wrote, its options, and what heavy it has imported.
RUN = """
import contextlib, dataclasses, io, json, runpy, sys

recipes, heavy, lines = json.loads(sys.argv[1])
sys.path[:0] = [recipes, f"{recipes}/benchmarks"]
import launching

parse, found = launching.parse, []
def remember(classes, *rest):
    found[-1]["options"] += [field.name for one in classes for field in dataclasses.fields(one)]
    return parse(classes, *rest)
launching.parse = remember
for program, *words in lines:
    found.append({"options": []})
    sys.argv = [program, *words]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        try:
            if program.endswith(".py"):
                runpy.run_path(f"{recipes}/{program}", run_name="__main__")
            else:
                runpy.run_module(program, run_name="__main__")
        except SystemExit:
            pass
    found[-1] |= {"said": said.getvalue(), "heavy": [name for name in heavy if name in sys.modules]}
print(json.dumps(found))
"""


def run(*lines: list[str]) -> list[dict]:
    command = [sys.executable, "-c", RUN, json.dumps([str(RECIPES), HEAVY, lines])]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_help_of_every_command_lists_its_options_and_imports_nothing_heavy():
    programs = [*LAUNCHED, *COMMANDS]
    for program, found in zip(programs, run(*([program, "--help"] for program in programs)), strict=True):
        assert found["heavy"] == [], program
        assert "usage:" in found["said"], program
        assert all(f"--{name} " in found["said"] for name in found["options"]), program
        assert bool(found["options"]) == (program not in {"push.py", "convert_resnet3d.py", *COMMANDS}), program


def test_what_is_wrong_is_told_with_the_nearest_that_is_right_and_at_once(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("lora_r: 4\ngradient_checkponting: true\n")
    data = ["--dataset", "utd-mhda", "--data_dir", "x"]
    lines = {
        (
            "sft.py",
            "--learnig_rate",
            "1",
        ): "sft.py: error: --learnig_rate: no such option; did you mean --learning_rate?\n",
        (
            "sft.py",
            "--adam_epsilo",
            "1",
        ): "sft.py: error: --adam_epsilo: no such option; did you mean --adam_epsilon?\n",
        ("sft.py", "--config", str(settings)): (
            f"sft.py: error: {settings}: gradient_checkponting: no such option; did you mean gradient_checkpointing?\n"
        ),
        ("run_line.py", *data, "--output_dir", "y"): (
            "run_line.py: error: there is no protocol 'utd-mhda'; did you mean utd-mhad?\n"
        ),
        ("train_tokenizer.py", *data, "--llm_name_or_path", "y"): (
            "train_tokenizer.py: error: there is no protocol 'utd-mhda'; did you mean utd-mhad?\n"
        ),
    }
    for (line, expected), found in zip(lines.items(), run(*map(list, lines)), strict=True):
        assert found["said"] == expected, line
        assert found["heavy"] == [], line


@dataclass
class Own:
    """Some options."""

    needed: int
    names: list[str] = field(default_factory=lambda: ["a"])
    layers: list[int] | None = None
    kind: Literal["x", "y"] = "x"
    rate: float | None = None
    flag: bool = False
    text: str | None = field(default=None, metadata={"help": "100 %"})


def test_values_of_the_command_line_go_before_those_of_the_file(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("needed: 3\nrate: 1e-3\nkind: y\nlayers: [1, 2]\nflag: true\n")
    (made,) = parse([Own], ["--config", str(settings), "--rate", "2", "--flag", "false", "--names", "b", "c"])
    assert made == Own(3, ["b", "c"], [1, 2], "y", 2.0, False, None)
    assert parse([Own], ["--config", str(settings)])[0].rate == 1e-3  # a text, to YAML
    assert parse([Own], ["--needed", "1", "--flag"]) == (Own(1, flag=True),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "the following arguments are required: --needed"),
        (["--needed", "1", "--kind", "z"], "argument --kind: invalid choice: 'z'"),
        (["--need", "1"], "--need: no such option; did you mean --needed?"),
        (["--needed", "1", "--flag", "maybe"], "expected true or false, got 'maybe'"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(line, said, capsys):
    with pytest.raises(SystemExit):
        parse([Own], line)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [("kind: z", "kind: expected one of x, y, got 'z'"), ("- a", "expected options and their values")],
)
def test_a_wrong_file_is_told(text, said, tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit):
        parse([Own], ["--config", str(path), "--needed", "1"])
    assert said in capsys.readouterr().err


@dataclass
class Lazy(LazyArguments, base="transformers.TrainingArguments"):
    """Fields over those of a base."""

    learning_rate: float = 0.5
    own: int = 1


def test_a_base_comes_with_the_first_instance():
    from transformers import TrainingArguments

    assert [one.name for one in dataclasses.fields(Lazy)] == ["learning_rate", "own"]
    assert Lazy.inherited() == {one.name for one in dataclasses.fields(TrainingArguments)}
    made = Lazy(output_dir="here", own=2, use_cpu=True)
    assert isinstance(made, TrainingArguments) and isinstance(made, Lazy)
    assert (made.learning_rate, made.own, made.max_steps) == (0.5, 2, -1)
    again = pickle.loads(pickle.dumps(made))
    assert (type(again), again.own) == (type(made), 2)
    assert dataclasses.replace(made, own=3).own == 3


def test_inherited_options_are_read_and_listed_when_asked_for(capsys):
    own, training = parse([Own, Lazy], ["--needed", "1", "--max_steps", "7", "--use_cpu", "true"])
    assert (own.needed, training.max_steps, training.use_cpu, training.learning_rate) == (1, 7, True, 0.5)
    for option, inherited in (("--help", False), ("--help_all", True)):
        with pytest.raises(SystemExit):
            parse([Own, Lazy], [option])
        assert ("--adam_epsilon" in capsys.readouterr().out) == inherited


def test_settings_become_instances_of_argument_classes():
    own, training = from_settings([Own, Lazy], {"needed": 1, "max_steps": 7, "use_cpu": True})
    assert (own, training.max_steps) == (Own(1), 7)
    with pytest.raises(ValueError, match="max_step: no such option; did you mean max_steps"):
        from_settings([Own, Lazy], {"needed": 1, "max_step": 7})


def test_what_is_read_of_sources_is_what_the_classes_have():
    import inspect

    from event_stage import VTEMArguments
    from extract_features import VideoArguments
    from skeleton_stage import ActionVQVAEArguments, SkeletonArguments
    from video_stage import VSTArguments

    from action_llm import (
        ActionVQVAEConfig,
        SkeletonFeatureExtractor,
        VideoFeatureExtractor,
        VSTConfig,
        VTEMConfig,
    )

    def default(one):
        return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()

    for arguments, config in (
        (ActionVQVAEArguments, ActionVQVAEConfig),
        (VSTArguments, VSTConfig),
        (VTEMArguments, VTEMConfig),
    ):
        expected = {one.name: default(one) for one in dataclasses.fields(config)}
        assert all(default(one) == expected[one.name] for one in dataclasses.fields(arguments)), config
        assert len(dataclasses.fields(arguments)) > 15
    for arguments, extractor in (
        (SkeletonArguments, SkeletonFeatureExtractor),
        (VideoArguments, VideoFeatureExtractor),
    ):
        parameters = inspect.signature(extractor).parameters
        assert [one.name for one in dataclasses.fields(arguments)] == list(parameters)[:-1]
        for one in dataclasses.fields(arguments):
            assert default(one) in (None, parameters[one.name].default), one.name


def test_protocols_are_known_without_their_builders():
    from action_llm_datasets.load import PROTOCOLS
    from action_llm_datasets.names import protocol_names

    assert protocol_names() == tuple(PROTOCOLS)
