"""Environments for the checks: the requirements of setup.cfg at one end of their ranges, without them, or as locked."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "constraints.txt"
PROJECT = "action-llm"

# What `lowest` and `newest` run: the models, LLM-AR from recordings to an evaluation, and what else uses a library by itself.
TESTS = (
    "tests/modeling",
    "tests/recipes/test_llm_ar_pipeline.py",
    "tests/recipes/test_launching.py",
    "tests/recipes/test_classification_scores.py",
    "tests/recipes/test_demo.py",
    "tests/recipes/test_benchmarks.py",
)
# Damaged files of every format; the test of `tests/mutations` reads a share of them.
MUTATIONS = ("tests/mutations/read_mutations.py", "--number", "10000", "--seed", "0")


def requirements(*extras: str) -> dict[str, str]:
    """Name → range of each requirement in setup.cfg, of the project and of `extras`."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [config["options"]["install_requires"]]
    texts += [config["options.extras_require"][extra] for extra in extras]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    found = [re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", line) for line in lines if line and not line.startswith("#")]
    return {match.group(1): match.group(2) for match in found}


def lower_ends(*extras: str) -> list[str]:
    """`name==version` for the lower end of each range."""
    return [f"{name}=={re.search(r'>=([^,]+)', bounds).group(1)}" for name, bounds in requirements(*extras).items()]


@contextmanager
def environment(*install: str, python: str = sys.executable):
    """A fresh virtual environment with `pip install *install` and, without its requirements, the project; its Python."""
    folder = Path(tempfile.mkdtemp(prefix="action-llm-"))
    try:
        run(python, "-m", "venv", folder)
        interpreter = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        run(interpreter, "-m", "pip", "install", "--quiet", *install)
        run(interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--editable", ROOT)
        yield interpreter
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# What torch brings on machines with a GPU.
CUDA = ("nvidia-", "cuda-", "triton")


def versions(interpreter: Path) -> dict[str, str]:
    """Name → version of everything in an environment but the project; local versions (`2.13.0+cpu`) without their label."""
    freeze = [interpreter, "-m", "pip", "list", "--format=freeze", "--exclude", PROJECT]
    lines = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout.split()
    pairs = (line.split("==") for line in lines)
    left_out = ("pip", "setuptools", "wheel")
    return {
        name: version.split("+")[0] for name, version in pairs if name not in left_out and not name.startswith(CUDA)
    }


def run(*command, **kwargs) -> subprocess.CompletedProcess:
    """Runs a command in the repository and fails if it does."""
    return subprocess.run([os.fspath(part) for part in command], check=True, cwd=ROOT, **kwargs)


def show(interpreter: Path, names) -> None:
    """Prints the versions of `names` in one line."""
    found = {name.lower().replace("_", "-"): version for name, version in versions(interpreter).items()}
    print(*(f"{name} {found.get(name.lower().replace('_', '-'), 'missing')}" for name in names), sep=", ", flush=True)
