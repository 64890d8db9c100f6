"""Processes as fresh as those of `python …`, whose third-party packages are imported once for all of them.

    done = python("-c", "print(1)", env={...}, cwd=folder)   # as subprocess.run([sys.executable, ...], text=True)
    process = start("script.py", "argument")                  # as subprocess.Popen, in a session of its own
    process = start("script.py", imported=TRAINING)           # which need not import what trainings import

Four of the five seconds in which a process imports `transformers` are torch, SciPy and the like. One process imports
these, and forks for each call. It has imported nothing of this project and nothing that reads the environment of the Hub
(`huggingface_hub`, `transformers`, `datasets`), and has computed nothing. Where neither the order of imports nor the
environment that the libraries read matters, these can be imported for all processes as well.
"""

import atexit
import importlib
import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PACKAGES = (
    "torch", "torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.tensor", "torch.export",
    "torch.utils.data", "scipy.optimize", "scipy.spatial", "scipy.stats", "sklearn.metrics", "sympy", "pandas",
    "pyarrow.parquet", "matplotlib.pyplot", "PIL.Image", "av", "httpx", "httpx2", "jinja2", "rich.console", "tokenizers",
    "safetensors.torch", "yaml",
)  # fmt: skip
TRAINING = (
    "datasets", "peft", "transformers.models.llama.modeling_llama", "transformers.pipelines", "transformers.trainer",
    "trl.trainer.sft_trainer",
)  # fmt: skip
IMPORTED_BY_EACH = ("huggingface_hub", "transformers", "datasets", "peft", "action_llm", "action_llm_datasets")


class Process:
    """A running process, which leads a session of its own."""

    def __init__(self, arguments, env: dict | None, cwd: str | os.PathLike | None, imported: tuple[str, ...]):
        self.arguments, self.imported, self._status = list(map(str, arguments)), imported, None
        self._folder = tempfile.TemporaryDirectory()
        environment = dict(os.environ if env is None else env)
        request = {"arguments": self.arguments, "env": environment, "cwd": str(cwd or Path.cwd())}
        self.pid = _ask(request | {"folder": self._folder.name}, imported)

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self._status is None:
            self._status = _ask({"poll": self.pid}, self.imported)
        return self._status

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(self.arguments, timeout, *self.said())
            time.sleep(0.02)
        return self._status

    def said(self) -> list[str]:
        """What it has written to stdout and to stderr."""
        return [Path(self._folder.name, name).read_text(errors="replace") for name in ("stdout", "stderr")]


def start(
    *arguments, env: dict | None = None, cwd: str | os.PathLike | None = None, imported: tuple[str, ...] = ()
) -> Process:
    """Starts `python *arguments`: `-c code`, `-m module` or a script, and what follows it.

    Libraries in `imported` were imported in the environment of the tests, whatever `env` is. Recipes that import them by
    themselves silence their progress bars.
    """
    return Process(arguments, env, cwd, imported)


def python(
    *arguments,
    env: dict | None = None,
    cwd: str | os.PathLike | None = None,
    imported: tuple[str, ...] = (),
    timeout: float = 300,
):
    """Runs `python *arguments` to its end, see `start`; returns a `subprocess.CompletedProcess` with its output as text."""
    process = start(*arguments, env=env, cwd=cwd, imported=imported)
    return subprocess.CompletedProcess(process.arguments, process.wait(timeout), *process.said())


_forking: dict[tuple[str, ...], subprocess.Popen] = {}


def _ask(request: dict, imported: tuple[str, ...]):
    if imported not in _forking:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        command = [sys.executable, __file__, *imported]
        _forking[imported] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        atexit.register(_forking[imported].communicate)
    server = _forking[imported]
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def _serve(imported: list[str]) -> dict | None:
    """Answers until nobody asks any more, and returns None; returns the request in the process that is forked for it."""
    for package in (*PACKAGES, *imported):
        if importlib.util.find_spec(package.partition(".")[0]):
            importlib.import_module(package)
    early = {name.partition(".")[0] for name in sys.modules} & set(IMPORTED_BY_EACH)
    assert imported or not early, f"a process that is forked would not import {early} itself"
    # A fork has one thread, whatever was forked had. That of pyarrow's allocator begins anew in it.
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert len([name for name in threads if name != "jemalloc_bg_thd"]) <= 1, threads
    with os.fdopen(os.dup(0)) as requests, os.fdopen(os.dup(1), "w") as answers:
        for line in iter(requests.readline, ""):
            request = json.loads(line)
            if "poll" in request:
                ended, status = os.waitpid(request["poll"], os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if ended else None
            elif not (answer := os.fork()):
                return request
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _become(request: dict):
    """Runs `python *arguments` in this process."""
    os.setsid()
    for number, name in enumerate((os.devnull, "stdout", "stderr")):
        os.dup2(os.open(Path(request["folder"], name), os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    first, *rest = request["arguments"]
    if first in ("-c", "-m"):
        script, *rest = rest
    main = sys.modules["__main__"] = type(sys)("__main__")
    added = [path for path in request["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:1] = [str(Path(first).parent.resolve()) if first not in ("-c", "-m") else "", *added]
    sys.argv[:] = [first, *rest]
    if first == "-m":
        runpy.run_module(script, run_name="__main__", alter_sys=True)
    elif first == "-c":
        exec(compile(script, "<string>", "exec"), main.__dict__)
    else:
        main.__file__ = first
        exec(compile(Path(first).read_bytes(), first, "exec"), main.__dict__)


if __name__ == "__main__":
    _request = _serve(sys.argv[1:])
    if _request:
        _become(_request)
