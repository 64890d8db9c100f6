"""Work in fresh processes that end with the one that asked for them, silently."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from .endings import SIGNALS

# By this the first process ends its workers: other signals are sent to all, and are the first one's matter.
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
    """`work` of every job, in their order, by as many processes as there are jobs for.

    Where the block is left early, by Ctrl-C or an error, the workers end first, without a word; what they were writing is
    removed. They end, too, when this process is killed.

    Raises:
        BrokenProcessPool: A worker ended by itself: it crashed, or was killed for its memory.

    Args:
        work: a function of a module, or a `partial` of one.
        jobs: what it is called with.
        num_proc: processes; None for every core. One is this process itself, unless `apart`.
        chunksize: jobs that a worker takes at a time.
        apart: whether a job may end its process, so that no job may run in this one.
        initializer, initargs: called at the beginning of each process.
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
        with _signals_blocked():  # processes begin here, and inherit it
            results = pool.map(work, jobs, chunksize=chunksize)
        yield results
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            with contextlib.suppress(OSError, ValueError, TypeError):  # it has ended, or has not begun
                os.kill(process.pid, END)
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


def _begin(initializer: Callable | None, *initargs):
    """The first act of a worker."""

    def end(*_):
        raise SystemExit(1)

    signal.signal(END, end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
