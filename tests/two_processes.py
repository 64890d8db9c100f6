"""Runs a function, or a recipe, on two ranks of a process group, in fresh processes."""

import importlib.util
import os
import socket
import sys
import tempfile
from pathlib import Path

from fresh_python import TRAINING, python, start

ON_TWO_RANKS = "import sys, two_processes; two_processes._fork_ranks(*sys.argv[1:])"


def on_two_ranks(function):
    """Calls `function()`, a function of a module, on two CPU ranks; raises what it raises.

    The module is imported once, by a process that has computed nothing and forks: a forked copy of a test's process may
    wait for threads that it does not have.
    """
    file = sys.modules[function.__module__].__file__
    tests = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": tests}
    done = python("-c", ON_TWO_RANKS, file, function.__name__, env=environment, imported=TRAINING)
    if done.returncode:
        raise AssertionError(done.stderr)


def recipe_on_two_ranks(recipe: str | os.PathLike, *arguments, timeout: float = 300) -> tuple[str, str]:
    """Launches a recipe as `torch.distributed.run --nproc_per_node=2` does; returns what the ranks said and complained."""
    common = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "LOCAL_WORLD_SIZE": "2"}
    ranks = [start(recipe, *arguments, env=common | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    return _ended_well(ranks, timeout)


def recipe_on_two_machines(recipe: str | os.PathLike, *arguments, timeout: float = 300) -> tuple[str, str]:
    """Runs `accelerate launch` twice, as on two machines with a process each that meet on the loopback interface; returns
    what they said and complained."""
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2", "--num_processes", "2"]
    launch += ["--main_process_ip", "127.0.0.1", "--main_process_port", free_port(), "--same_network"]
    launch += ["--rdzv_backend", "static", "--mixed_precision", "no", "--dynamo_backend", "no"]
    common = {**os.environ, "OMP_NUM_THREADS": "1"}
    machines = [start(*launch, "--machine_rank", rank, recipe, *arguments, env=common) for rank in ("0", "1")]
    return _ended_well(machines, timeout)


def free_port() -> str:
    """The number of a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _ended_well(processes, timeout: float) -> tuple[str, str]:
    statuses = [process.wait(timeout) for process in processes]
    said, complained = ("".join(texts) for texts in zip(*(process.said() for process in processes), strict=True))
    assert statuses == [0, 0], complained[-4000:]
    return said, complained


def _fork_ranks(file: str, name: str):
    import torch

    spec = importlib.util.spec_from_file_location("tested", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (getattr(module, name), str(Path(folder) / "rendezvous"))
        torch.multiprocessing.start_processes(_rank, arguments, nprocs=2, start_method="fork")


def _rank(rank, function, rendezvous):
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    try:
        function()
    finally:
        distributed.destroy_process_group()
