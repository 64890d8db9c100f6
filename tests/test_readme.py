"""The README and the pages in model_cards: links, files, commands and options exist, and the examples run."""

import argparse
import dataclasses
import importlib
import re
import runpy
import subprocess
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from fresh_python import python

from action_llm_recipes.common import launching
from action_llm_recipes.pipeline.stages import classes_of

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "model_cards").rglob("*.md"))]
LAUNCHERS = ("python", "python3", ".venv/bin/python", "accelerate")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_pictures_recipes_and_settings_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
    for recipe in re.findall(r"(?<!/)recipes/[a-z_/]+\.(?:py|yaml)", text):
        assert (ROOT / recipe).is_file(), recipe
    for module in re.findall(r"python -m action_llm_datasets\.([a-z_]+(?:\.[a-z_]+)?)", text):
        assert (ROOT / "datasets_scripts" / f"{module.replace('.', '/')}.py").is_file(), module
    for config in re.findall(r"`((?:llm_ar|lvlm_var|vt_lvlm_ar)/[a-z0-9_*]+\.yaml)`", text):
        assert list((ROOT / "recipes" / "configs").glob(config)), config


LAUNCHED = r"(?:python|accelerate launch(?: --config_file \S+)?) (?:recipes/\w|-m action_llm_datasets)"


def commands(page: Path, folder: Path) -> list[list[str]]:
    """The Python commands of a page, with variables and loops expanded by a shell. `…` stands for omitted words."""
    # The output of a program may contain commands too; it is marked as text.
    text = re.sub(r"```text\n.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    scripts = re.findall(r"```bash\n(.*?)```", text, re.S)
    scripts += re.findall(r"(?<!`)`((?:python|accelerate launch) [^`]+)`", text)
    assert len(re.findall(LAUNCHED, text)) == sum(len(re.findall(LAUNCHED, script)) for script in scripts)
    # Each launcher prints its words, one per line, and an empty line. PATH is empty, so nothing is run.
    printing = "".join(f"{name}() {{ printf '%s\\n' {name} \"$@\" ''; }}\n" for name in LAUNCHERS)
    expanded = []
    for script in scripts:
        shell = ["/bin/bash", "-c", printing + script]
        done = subprocess.run(shell, capture_output=True, text=True, cwd=folder, env={"PATH": "/nowhere"})
        assert "syntax error" not in done.stderr, done.stderr
        printed = [command.split("\n") for command in done.stdout.split("\n\n") if command]
        assert len(printed) >= len(re.findall(LAUNCHED, script)), script
        expanded += printed
    return expanded


class CommandLineRead(BaseException):
    """Stops a program where it would read its command line; holds its argument classes or its parser."""


@cache
def parser_of(program: str, deciding: tuple[str, ...]) -> tuple[argparse.ArgumentParser, dict[str, str]]:
    """The parser of a recipe or module, with its inherited options, and its required options: field → option.

    Args:
        deciding: words of the command line on which the arguments depend.
    """

    def stop(_, *arguments, **options):
        raise CommandLineRead(arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [program, *deciding])
        patch.setattr(launching, "launch", stop)
        if not program.endswith(".py") or "launch(" not in (ROOT / program).read_text(encoding="utf-8"):
            patch.setattr(
                argparse.ArgumentParser, "parse_known_args", lambda parser, *_, **options: stop(None, parser)
            )
        with pytest.raises(CommandLineRead) as stopped:
            if program.endswith(".py"):
                patch.syspath_prepend(str((ROOT / program).parent))
                runpy.run_path(str(ROOT / program), run_name="__main__")
            else:
                importlib.import_module(program).main()
    (arguments,) = stopped.value.args
    if isinstance(arguments[0], argparse.ArgumentParser):
        (parser,) = arguments
    else:
        parser = launching.Parser()
        own = {field.name for argument_class in arguments for field in dataclasses.fields(argument_class)}
        for argument_class in arguments:
            launching.add_options(parser, argument_class, {})
            if issubclass(argument_class, launching.LazyArguments):
                launching.add_options(parser, argument_class.whole(), {}, without=own)
    required = [action for action in parser._actions if action.required and action.option_strings]
    for action in required:
        # The YAML file may set it.
        action.required = False
    return parser, {action.dest: action.option_strings[0] for action in required}


def check(command: list[str]) -> None:
    """Parses a command like its program. Unknown options, wrong values and missing required options are errors."""
    words = [word for word in command[1:] if word != "launch"]
    if command[0] == "accelerate":
        launched = launch_command_parser().parse_args(words)
        assert launched.config_file is None or (ROOT / launched.config_file).is_file(), launched.config_file
        words = [launched.training_script, *launched.training_script_args]
    program, *words = words[1:] if words[0] == "-m" else words
    if program in ("venv", "pytest"):
        return
    deciding, config = [], {}
    for name in ("--config", "--action_model"):
        if name in words:
            deciding += words[words.index(name) :][:2]
    if "--config" in words:
        config = yaml.safe_load((ROOT / words[words.index("--config") + 1]).read_text())
    if Path(program).stem == "run_line":
        words = without_stage_settings(words)
    parser, required = parser_of(program, tuple(deciding))
    options = [word for word in words if re.match(r"--[a-z]", word)]
    unknown = [option for option in options if option.partition("=")[0] not in parser._option_string_actions]
    unknown += [name for name in config if f"--{name}" not in parser._option_string_actions]
    assert not unknown, f"{program} has no {unknown}"
    missing = [option for name, option in required.items() if option not in options and name not in config]
    assert "…" in command or not missing, f"{program} needs {missing}"
    assert set(parser.parse_known_args(words)[1]) <= {"…"}


def without_stage_settings(words: list[str]) -> list[str]:
    """The words of a command of run_line.py without `--STAGE.SETTING VALUE …`, whose settings must be those of the stage."""
    kept, is_setting = [], False
    for word in words:
        if re.match(r"--[a-z]", word):
            stage, dot, setting = word.removeprefix("--").partition(".")
            is_setting = bool(dot)
            assert not is_setting or setting in launching.option_names(classes_of(stage, {})), word
        if not is_setting:
            kept.append(word)
    return kept


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_those_of_the_recipes(page, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for command in commands(page, tmp_path):
        check(command)


def layout() -> dict[str, str]:
    """The map in CONTRIBUTING.md: folder → its entries."""
    text = re.search(r"## Repository layout\n.*?```\n(.*?)```", CONTRIBUTING, re.S)[1]
    entries = re.split(r"^(\w+)/", text, flags=re.M)[1:]
    return dict(zip(entries[::2], entries[1::2], strict=True))


def test_the_map_names_each_recipe_and_nothing_else():
    top, *lines = re.split(r"\n    (?=\w)", layout()["recipes"].strip())
    _, _, names = top.partition("what a person launches:")
    # "a, b for videos; c": a name, and perhaps what it is for.
    named = {item.split()[0] for item in re.split("[,;]", names)}
    for line in lines:
        folder, _, about = line.partition("/")
        assert (ROOT / "recipes" / folder).is_dir(), folder
        named |= {f"{folder}/{name}" for name in re.split(r"[,\s]+", about.strip()) if name.isidentifier()}
    launched = {
        recipe.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        for recipe in ROOT.glob("recipes/**/*.py")
        if '__name__ == "__main__"' in recipe.read_text("utf-8")
        and recipe.parent.name not in ("benchmarks", "action_classification")
    }
    assert launched <= named, launched - named
    for name in named:
        assert "/" in name or (ROOT / "recipes" / f"{name}.py").is_file(), name


@pytest.mark.parametrize("folder", ["modeling", "datasets_scripts"])
def test_the_map_names_modules_that_exist(folder):
    """In the left column: names, patterns, and `…` for the start of the name before it."""
    modules = {path.stem for path in (ROOT / folder).glob("*.py")} | {
        f"{path.parent.name}/" for path in (ROOT / folder).glob("*/__init__.py")
    }
    lines = layout()[folder].splitlines()[1:]
    named = [name for line in lines for name in re.split(r"\s{2,}", line.strip())[0].split(", ")]
    assert len(named) > len(lines)
    for name in named:
        assert any(fnmatch(module, name.replace("…", "*")) for module in modules), name
    launched = {
        path.stem for path in (ROOT / folder).glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")
    }
    assert launched <= set(named), launched - set(named)


def test_the_readme_names_folders_that_exist():
    text = re.search(r"## Repository layout\n.*?```\n(.*?)```", README, re.S)[1]
    folder = None
    for line in text.splitlines():
        names = re.findall(r"(\w+)/", line[: line.rindex("/") + 1] if line.startswith(" ") else line.split()[0])
        folder = folder if line.startswith(" ") else names[0]
        assert all((ROOT / folder / name if line.startswith(" ") else ROOT / name).is_dir() for name in names), line


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.slow
def test_the_five_lines_answer(number, quickstart_run, tmp_path):
    """Pasted in the folder in which the quickstart was run."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    offline = {"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = python("-c", blocks[number], cwd=quickstart_run.folder.parents[1], env=offline)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = re.match(r"(pickup|punching/slapping other person) (0\.\d+|1\.0)( |\n)", done.stdout)
    assert answer and 0.5 <= float(answer[2]) <= 1, done.stdout
    assert number == 1 or f"{answer[1]}, with a probability of" in done.stdout or "Not sure" in done.stdout
