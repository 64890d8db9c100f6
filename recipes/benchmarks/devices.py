"""The accelerator of this machine, or else its CPU: where it is, its clock and its memory."""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch

from action_llm_recipes.common.run_cost import peak_memory as peak_of_process


def device() -> torch.device:
    """The accelerator, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def synchronize() -> None:
    """Waits until the accelerator has done its work; a CPU does not have to be waited for."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def timed(work: Callable) -> tuple[object, float]:
    """What `work()` returns, and the seconds that it takes, with all work of the accelerator."""
    synchronize()
    started = time.perf_counter()
    result = work()
    synchronize()
    return result, time.perf_counter() - started


def peak_memory() -> int:
    """Peak memory so far, in bytes: allocated on the accelerator, or of this process on a CPU."""
    return torch.accelerator.max_memory_allocated() if torch.accelerator.is_available() else peak_of_process()


@contextlib.contextmanager
def creating() -> Iterator[None]:
    """New models are created on the accelerator in bfloat16, or on the CPU in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if torch.accelerator.is_available() else torch.float32)
    try:
        with device():
            yield
    finally:
        torch.set_default_dtype(before)
