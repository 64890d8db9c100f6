"""Runs a function on two ranks of a process group, in fresh processes."""

import tempfile
from pathlib import Path

import torch


def on_two_ranks(function):
    """Calls `function()`, which must be importable, on two CPU ranks; raises what it raises.

    The processes are spawned: a forked copy of a test process that has computed anything may wait for threads that it
    does not have.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, args=(function, str(Path(folder) / "rendezvous")), nprocs=2)


def _rank(rank, function, rendezvous):
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    try:
        function()
    finally:
        distributed.destroy_process_group()
