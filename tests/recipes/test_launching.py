"""Command lines: their options, what `--help` and errors import, and the wording of errors."""

import contextlib
import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from fresh_python import python, start

from action_llm_datasets.endings import user_error
from action_llm_recipes.common.launching import LazyArguments, from_settings, parse

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
LAUNCHED = [
    path.relative_to(RECIPES).as_posix()
    for path in sorted(RECIPES.rglob("*.py"))
    # app.py is the page of a Space, without options.
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8") and path.name != "app.py"
]
COMMANDS = [f"action_llm_datasets.{name}" for name in ("folder", "pages", "prepare", "render")]
COMMANDS += [f"action_llm_datasets.simulation.{name}" for name in ("simulate", "simulate_long")]
HEAVY = ("torch", "trl", "transformers.training_args")

# Runs command lines after each other in a single process; returns the output, options and slow imports of each.
RUN = """
import contextlib, dataclasses, io, json, runpy, sys

recipes, heavy, lines = json.loads(sys.argv[1])
from action_llm_recipes.common import launching

parse, results = launching.parse, []
def remember(classes, *rest):
    results[-1]["options"] += [
        field.name for cls in classes for field in dataclasses.fields(cls) if "dotted" not in field.metadata
    ]
    return parse(classes, *rest)
launching.parse = remember
for program, *words in lines:
    results.append({"options": []})
    sys.argv = [program, *words]
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        try:
            if program.endswith(".py"):
                runpy.run_path(f"{recipes}/{program}", run_name="__main__")
            else:
                runpy.run_module(program, run_name="__main__")
        except SystemExit:
            pass
    results[-1] |= {"output": output.getvalue(), "heavy": [name for name in heavy if name in sys.modules]}
print(json.dumps(results))
"""


def run(*lines: list[str]) -> list[dict]:
    command = [sys.executable, "-c", RUN, json.dumps([str(RECIPES), HEAVY, lines])]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_help_of_every_command_lists_its_options_and_imports_nothing_heavy():
    programs = [*LAUNCHED, *COMMANDS]
    for program, result in zip(programs, run(*([program, "--help"] for program in programs)), strict=True):
        assert result["heavy"] == [], program
        assert "usage:" in result["output"], program
        assert all(f"--{name} " in result["output"] for name in result["options"]), program
        assert bool(result["options"]) == (
            program
            not in {
                "cluster.py",
                "hub/engine_client.py",
                "hub/push.py",
                "hub/serve.py",
                "pretraining/convert_resnet3d.py",
                "search_recordings.py",
                *COMMANDS,
            }
        ), program


def test_errors_suggest_the_nearest_option_and_import_nothing_heavy(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("lora_r: 4\ngradient_checkponting: true\n")
    data = ["--dataset", "utd-mhda", "--data_dir", "x"]
    there, missing = ["--dataset", "utd-mhad", "--data_dir", str(tmp_path)], "runs/x/model"
    no_model = f"error: there is no folder {missing}, and it is not the name of a Hub repository (OWNER/NAME).\n"
    no_sentences = "error: there is no folder runs/y: encode_actions.py writes it (--output_dir runs/y).\n"
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
    lines |= {
        (
            "sft.py",
            "--tokenizer",
            missing,
            "--sentences",
            "runs/y",
            "--llm_name_or_path",
            "a/b",
        ): f"sft.py: {no_model}",
        (
            "sft.py",
            "--tokenizer",
            "a/b",
            "--sentences",
            "runs/y",
            "--llm_name_or_path",
            missing,
        ): f"sft.py: {no_sentences}",
        ("train_tokenizer.py", *there, "--llm_name_or_path", missing): f"train_tokenizer.py: {no_model}",
        ("run_line.py", *there, "--output_dir", "y", "--llm_name_or_path", missing): f"run_line.py: {no_model}",
        ("run_line.py", *there, "--output_dir", "y", "--backbone", missing): f"run_line.py: {no_model}",
        ("run_line.py", *there, "--output_dir", "y", "--sft_config", "no.yaml"): (
            "run_line.py: error: --sft_config: there is no file no.yaml.\n"
        ),
        ("encode_actions.py", *there, "--tokenizer", missing, "--output_dir", "y"): f"encode_actions.py: {no_model}",
        (
            "encode_actions.py",
            "--dataset",
            "utd-mhad",
            "--data_dir",
            "no",
            "--tokenizer",
            "a/b",
            "--output_dir",
            "y",
        ): ("encode_actions.py: error: there is no folder no: --data_dir must be the folder of the recordings.\n"),
        (
            "extract_features.py",
            *there,
            "--backbone",
            missing,
            "--output_dir",
            "y",
        ): f"extract_features.py: {no_model}",
        ("evaluate_classifier.py", "--model", "a/b", "--sentences", "runs/y", "--output_dir", "y"): (
            f"evaluate_classifier.py: {no_sentences}"
        ),
        ("explain_actions.py", *there, "--model", missing, "--sentences", "runs/y", "--output_dir", "y"): (
            f"explain_actions.py: {no_model}"
        ),
        ("hub/export.py", "--model", missing, "--output_dir", "y"): f"export.py: {no_model}",
        ("hub/demo.py", "--model", missing): f"demo.py: {no_model}",
        ("quickstart.py", "--llm", missing): f"quickstart.py: {no_model}",
        ("timeline.py", "--model", missing, "--recordings", "v", "--output_dir", "y"): f"timeline.py: {no_model}",
        (
            "pretraining/describe_videos.py",
            *there,
            "--model",
            missing,
            "--output",
            "y",
        ): f"describe_videos.py: {no_model}",
        ("pretraining/small_lvlm.py", *there, "--llm_name_or_path", missing): f"small_lvlm.py: {no_model}",
        ("token_lexicon.py", "--tokenizer", missing, "--sentences", "runs/y", "--output_dir", "y"): (
            f"token_lexicon.py: {no_model}"
        ),
        (
            "hub/push.py",
            "runs/x",
            "me/x",
            "--dry_rum",
        ): "push.py: error: --dry_rum: no such option; did you mean --dry_run?\n",
        ("hub/push.py", "runs/x", "me/x"): "push.py: error: there is no folder runs/x.\n",
        ("pretraining/convert_resnet3d.py", "x.pth", "y"): "convert_resnet3d.py: error: there is no file x.pth.\n",
        (
            "baselines/run_baselines.py",
            *there,
            "--output_dir",
            "y",
            "--sentences",
            "runs/y",
        ): f"run_baselines.py: {no_sentences}",
    }
    for (line, expected), result in zip(lines.items(), run(*map(list, lines)), strict=True):
        assert result["output"] == expected, line
        assert result["heavy"] == [], line


def test_a_missing_folder_that_could_be_a_repository_gets_a_warning(tmp_path, monkeypatch, caplog):
    from action_llm_recipes.common.written_folders import check_model_folder

    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("gpt2", "openai/gpt2"):
        check_model_folder(name)
    assert not caplog.messages
    check_model_folder("runs/small_lm")
    assert caplog.messages == ["there is no folder runs/small_lm: loading the Hub repository of that name."]
    for name in ("runs/x/model", "./x", "/x", "~/x", "../x", "a//b", "a/"):
        with pytest.raises(ValueError, match=f"there is no folder {name}, and it is not the name of a Hub repository"):
            check_model_folder(name)


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


def test_the_command_line_takes_precedence_over_the_file(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("needed: 3\nrate: 1e-3\nkind: y\nlayers: [1, 2]\nflag: true\n")
    (arguments,) = parse([Own], ["--config", str(settings), "--rate", "2", "--flag", "false", "--names", "b", "c"])
    assert arguments == Own(3, ["b", "c"], [1, 2], "y", 2.0, False, None)
    assert parse([Own], ["--config", str(settings)])[0].rate == 1e-3  # a text, to YAML
    assert parse([Own], ["--needed", "1", "--flag"]) == (Own(1, flag=True),)


def test_a_file_of_an_older_version_may_have_former_names(tmp_path, capsys):
    @dataclass
    class Renamed:
        """Some options."""

        rate: float = field(default=1.0, metadata={"formerly": "speed"})

    settings = tmp_path / "settings.yaml"
    settings.write_text("speed: 2\n")
    assert parse([Renamed], ["--config", str(settings)]) == (Renamed(2.0),)
    settings.write_text("speed: 2\nrate: 3\n")
    for command_line, message in (
        (["--config", str(settings)], "speed is the former name of rate: set only one of them."),
        (["--speed", "2"], "--speed: no such option; it is now --rate"),
        (["--config", str(tmp_path / "none.yaml")], "--config: there is no file"),
    ):
        with pytest.raises(SystemExit):
            parse([Renamed], command_line)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "the following arguments are required: --needed"),
        (["--needed", "1", "--kind", "z"], "argument --kind: invalid choice: 'z'"),
        (["--need", "1"], "--need: no such option; did you mean --needed?"),
        (["--needed", "1", "--flag", "maybe"], "expected true or false, got 'maybe'"),
    ],
)
def test_a_wrong_command_line_is_an_error_of_one_line(line, message, capsys):
    with pytest.raises(SystemExit):
        parse([Own], line)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: z", "kind: expected one of x, y, got 'z'"),
        ("- a", "settings.yaml: expected names and values of options, got a list"),
        ("kind: 2001-99-99", "settings.yaml: month must be in 1..12"),
        ("[" * 5000, "settings.yaml: maximum recursion depth exceeded"),
        ("\tkind: x", "settings.yaml: while scanning for the next token"),
    ],
    ids=["value", "list", "date", "nesting", "tab"],
)
def test_a_wrong_file_is_an_error(text, message, tmp_path, capsys):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit):
        parse([Own], ["--config", str(path), "--needed", "1"])
    assert message in capsys.readouterr().err


@dataclass
class Lazy(LazyArguments, base="transformers.TrainingArguments"):
    """Fields over those of a base."""

    learning_rate: float = 0.5
    own: int = 1


def test_a_base_is_imported_with_the_first_instance():
    from transformers import TrainingArguments

    assert [field.name for field in dataclasses.fields(Lazy)] == ["learning_rate", "own"]
    assert Lazy.inherited() == {field.name for field in dataclasses.fields(TrainingArguments)}
    instance = Lazy(output_dir="here", own=2, use_cpu=True)
    assert isinstance(instance, TrainingArguments) and isinstance(instance, Lazy)
    assert (instance.learning_rate, instance.own, instance.max_steps) == (0.5, 2, -1)
    again = pickle.loads(pickle.dumps(instance))
    assert (type(again), again.own) == (type(instance), 2)
    assert dataclasses.replace(instance, own=3).own == 3


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


def test_fields_read_from_sources_are_those_of_the_classes():
    import inspect

    from action_llm import (
        ActionVQVAEConfig,
        SkeletonFeatureExtractor,
        VideoFeatureExtractor,
        VSTConfig,
        VTEMConfig,
    )
    from action_llm_recipes.common.video_arguments import VideoArguments
    from action_llm_recipes.stages.event_stage import VTEMArguments
    from action_llm_recipes.stages.skeleton_stage import ActionVQVAEArguments, SkeletonArguments
    from action_llm_recipes.stages.video_stage import VSTArguments

    def default(field):
        return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()

    for arguments, config in (
        (ActionVQVAEArguments, ActionVQVAEConfig),
        (VSTArguments, VSTConfig),
        (VTEMArguments, VTEMConfig),
    ):
        expected = {field.name: default(field) for field in dataclasses.fields(config)}
        assert all(default(field) == expected[field.name] for field in dataclasses.fields(arguments)), config
        assert len(dataclasses.fields(arguments)) > 15
    for arguments, extractor in (
        (SkeletonArguments, SkeletonFeatureExtractor),
        (VideoArguments, VideoFeatureExtractor),
    ):
        parameters = inspect.signature(extractor).parameters
        assert [field.name for field in dataclasses.fields(arguments)] == list(parameters)[:-1]
        for setting in dataclasses.fields(arguments):
            assert default(setting) in (None, parameters[setting.name].default), setting.name


def test_protocols_are_known_without_their_builders():
    from action_llm_datasets.load import PROTOCOLS
    from action_llm_datasets.names import protocol_names

    assert protocol_names() == tuple(PROTOCOLS)


@dataclass
class Paired:
    """A repository and its commit."""

    name: str
    revision: str | None = field(default=None, metadata={"belongs_to": "name"})
    size: int = 1


@pytest.mark.parametrize(
    ("line", "revision"),
    [
        ([], "c1"),
        (["--name", "a/b"], "c1"),
        (["--name", "a/c"], None),
        (["--name=a/c"], None),
        (["--name", "a/c", "--revision", "c2"], "c2"),
        (["--revision", "c2"], "c2"),
    ],
)
def test_a_commit_goes_with_the_repository_that_the_file_names(line, revision, tmp_path, caplog):
    settings = tmp_path / "settings.yaml"
    settings.write_text("name: a/b\nrevision: c1\nsize: 3\n")
    with caplog.at_level("INFO"):
        (arguments,) = parse([Paired], ["--config", str(settings), *line])
    assert (arguments.revision, arguments.size) == (revision, 3)
    is_dropped = "a/c" in "".join(line)
    assert (f"revision in {settings} belongs to a/b and is not used with a/c" in caplog.messages) == is_dropped


def test_every_revision_of_a_file_belongs_to_its_model():
    """And what a picture is, to the visual encoder that sees it."""
    import yaml

    from action_llm_recipes.common.launching import without_paired
    from action_llm_recipes.common.video_arguments import VideoArguments
    from action_llm_recipes.extract_features import FeatureArguments
    from action_llm_recipes.sft import ActionSFTArguments
    from action_llm_recipes.train_tokenizer import TokenizerArguments

    classes = (ActionSFTArguments, TokenizerArguments, FeatureArguments, VideoArguments)
    with_revision = 0
    for path in RECIPES.glob("configs/*/*.yaml"):
        settings = yaml.safe_load(path.read_text())
        other = {"llm_name_or_path": "a/other", "backbone": "a/other"}
        kept = without_paired(classes, settings, other, path)
        with_revision += "llm_revision" in settings
        assert "llm_revision" not in kept and "backbone_revision" not in kept, path
        if "backbone" in settings:
            assert not {"image_mean", "image_std", "height", "width", "fit"} & set(kept), path
        assert without_paired(classes, settings, {}, path) == settings
        same = {name: settings[name] for name in other if name in settings}
        assert without_paired(classes, settings, same, path) == settings
    assert with_revision == 5


RUN_MAIN = """
import json, os, sys, time
from dataclasses import dataclass
sys.argv = ["some_recipe.py"]
from action_llm_recipes.common import launching

@dataclass
class Nothing:
    "Nothing."

def main(arguments):
    {body}

launching.launch(main, Nothing, resumes={resumes})
"""


def code_of(body: str, resumes: bool = True) -> str:
    """A program whose recipe does nothing but `body`."""
    return RUN_MAIN.format(body=body, resumes=resumes)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        # What this project raises on purpose, and what files raise.
        ("launching.from_settings([Nothing], dict(x=1))", "x: no such option"),
        ("open('/no/file')", "[Errno 2] No such file or directory: '/no/file'"),
    ],
)
def test_an_error_of_the_user_is_one_line(body, message):
    done = python("-c", code_of(body))
    assert (done.returncode, done.stderr) == (2, f"some_recipe.py: error: {message}\n")


@pytest.mark.parametrize(
    ("module", "work", "words"),
    [
        ("hub.push", "repository_files", ["run", "me/model"]),
        ("pretraining.convert_resnet3d", "convert", ["{file}", "encoder"]),
    ],
)
def test_commands_with_positional_arguments_end_well_too(module, work, words, tmp_path):
    code = f"""
import os, signal, sys
from action_llm_recipes.common.launching import launch_command
from action_llm_recipes.{module} import main
sys.modules[main.__module__].{work} = lambda *args, **settings: os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["command.py", *{words}]
launch_command(main)
"""
    (tmp_path / "weights.pth").touch()
    done = python("-c", code.replace("{file}", str(tmp_path / "weights.pth")))
    assert (done.returncode, done.stderr.strip()) == (130, "command.py: stopped.")


def test_messages_leave_the_standard_output_to_results():
    code = code_of("print('label'); launching.logger.info('message')").replace("resumes=True", "messages=sys.stderr")
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "label\n", "message\n")


def test_a_fault_of_the_program_keeps_its_traceback():
    done = python("-c", code_of("json.loads('x')"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "JSONDecodeError: Expecting value" in done.stderr


def test_which_errors_are_the_users():
    def error_of(call):
        with pytest.raises(Exception) as raised:
            call()
        return raised.value

    own = error_of(lambda: from_settings([Own], {"x": 1}))
    assert user_error(own) == "x: no such option"
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = own
    assert user_error(wrapped) == "x: no such option"
    assert user_error(OSError("of\n  two lines")) == "of two lines"
    assert user_error(error_of(lambda: json.loads("{"))) is None
    assert user_error(error_of(lambda: from_settings(None, {}))) is None


@pytest.mark.parametrize("resumes", [True, False])
def test_ctrl_c_is_one_line(resumes):
    """All processes of a terminal get the signal: forks are silent."""
    process = start("-c", code_of("os.fork(); print('ready', flush=True); time.sleep(60)", resumes))
    deadline = time.monotonic() + 60
    ready = ""
    while ready.count("ready") < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        with contextlib.suppress(FileNotFoundError):  # it has not begun
            ready, _ = process.said()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    way_on = " Run the same command again to continue." if resumes else ""
    assert process.said()[1] == f"\nsome_recipe.py: stopped.{way_on}\n"
