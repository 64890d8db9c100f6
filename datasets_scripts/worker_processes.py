"""Parallel work in new processes that end silently with their parent process."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from .endings import SIGNALS

# The signal by which the parent ends its workers. Workers leave other signals, which all processes receive, to the parent.
END = getattr(signal, "SIGUSR1", signal.SIGTERM)


@contextlib.contextmanager
def in_processes(
    work: Callable,
    jobs: Sequence,
    num_proc: int | None,
    *,
    chunksize: int = 1,
    apart: bool = False,
    initializer: Callable | None = None,
    initargs: tuple = (),
) -> Iterator[Iterator]:
    """Yields an iterator of the results of `work` for each job, in order.

    If the block is left early, by Ctrl-C or an error, the workers end silently first, and remove the files that they were
    writing. They also end if this process is killed.

    Args:
        work: function of a module, or a `partial` of a function.
        jobs: arguments of `work`, one per call.
        num_proc: number of processes, at most one per job; None uses every core. 1 works in this process, unless `apart` is
            set.
        chunksize: number of jobs that a worker takes at a time.
        apart: whether to run no job in this process, because a job may end its process.
        initializer, initargs: called at the start of each process.

    Raises:
        BrokenProcessPool: if a worker crashes, or is killed for lack of memory.
    """
    num_proc = min(num_proc or os.cpu_count() or 1, len(jobs) or 1)
    if num_proc == 1 and not apart:
        if initializer is not None:
            initializer(*initargs)
        yield map(work, jobs)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(num_proc, multiprocessing.get_context("spawn"), partial(_begin, initializer), initargs)
    try:
        with _signals_blocked():  # the processes start here and inherit the mask
            results = pool.map(partial(_run, work), jobs, chunksize=chunksize)
        yield results
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        workers = set(multiprocessing.active_children()) - before
        for process in workers:
            with contextlib.suppress(OSError, ValueError, TypeError):  # the process has ended, or has not started
                os.kill(process.pid, END)
        for process in workers:  # the pool no longer waits for them
            process.join()
        raise
    finally:
        pool.shutdown()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _End(SystemExit):
    """Raised in a worker by `END`, so that it removes the files that it was writing."""


def _run(work: Callable, job):
    try:
        return work(job)
    except _End:
        os._exit(1)  # the pool would go on with the next job


def _begin(initializer: Callable | None, *initargs):
    """The start of a worker: it ends by `END` and with its parent."""

    def end(*_):
        raise _End(1)

    signal.signal(END, end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
