"""A lock on output folders: a second process that would write to a folder ends with an error that names the first."""

import contextlib
import errno
import functools
import json
import logging
import os
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .endings import DISK

try:
    import fcntl
except ImportError:  # Windows: there is no lock
    fcntl = None

logger = logging.getLogger(__name__)

LOCK = ".action_llm.lock"
# Errors of file systems without locks, such as some network file systems.
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

SECONDS_BETWEEN_TRIES = 0.2

# Lock file → how often this process has taken it, and in which thread. A run takes the lock again for its stages.
_held: dict[Path, tuple[int, int]] = {}
_descriptors: set[int] = set()


class FolderInUseError(ValueError):
    """Another process is writing to the output."""


@contextlib.contextmanager
def writing(
    output: str | os.PathLike,
    option: str = "--output_dir",
    *,
    is_file: bool = False,
    patience: float = 0,
    each_rank: bool = False,
) -> Iterator[None]:
    """Keeps other processes from writing to an output folder, or an output file, while the block runs.

    The lock is `flock` on a hidden file that names its owner. The kernel releases it when the process ends in any way, and
    child processes do not inherit it. It works between hosts if the file system supports that, as NFS does. On a file system
    without locks, a warning is logged and the block runs. A process may take a lock that it holds. The first process of a
    launch (`RANK`) holds the lock for all, unless `each_rank` is set.

    Args:
        output: the folder, created if missing; or the file.
        option: the command's option for the output, for messages.
        is_file: whether the output is a file.
        patience: seconds to wait for another process that is writing to the output.
        each_rank: whether the processes of a launch run the block after each other.

    Raises:
        FolderInUseError: if another process is writing to the output; says which, where, and since when.
    """
    output = Path(output)
    folder = output.parent if is_file else output
    path = folder.resolve() / (f".{output.name}{LOCK}" if is_file else LOCK)
    if fcntl is None or (os.environ.get("RANK", "0") != "0" and not each_rank):
        yield
        return
    thread = threading.get_ident()
    if path in _held:
        count, holder = _held[path]
        if holder != thread:
            raise FolderInUseError(
                f"{output} is being written by another thread of this process: choose another {option}."
            )
        _held[path] = count + 1, thread
        try:
            yield
        finally:
            _held[path] = count, thread
        return
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    descriptor = _take(path, output, option, time.monotonic() + patience)
    _held[path] = 1, thread
    try:
        yield
    except OSError as error:
        if error.errno in DISK and error.filename is None:  # writing to an open file failed
            error.filename = str(output)
        raise
    finally:
        del _held[path]
        _descriptors.discard(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        # If nothing was written, new folders are empty and are removed.
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()


def writing_share(
    output: str | os.PathLike, task: int, tasks: int, option: str = "--output_dir", **options
) -> contextlib.AbstractContextManager[None]:
    """Holds the lock of an output folder (`writing`), or that of one of several tasks: tasks share the folder, but no two
    processes are the same task."""
    if tasks == 1:
        return writing(output, option, **options)
    return writing(Path(output, f"task {task} of {tasks}"), option, is_file=True)


def writes_output_dir(main: Callable) -> Callable:
    """Decorator for the `main` of a recipe, one of whose arguments has an `output_dir`: holds its lock (`writing`), or that of
    a task if one of the arguments has `task` and `tasks`."""

    @functools.wraps(main)
    def locked(*arguments):
        output_dir = next(part.output_dir for part in arguments if hasattr(part, "output_dir"))
        share = next(((part.task, part.tasks) for part in arguments if hasattr(part, "tasks")), (0, 1))
        with writing_share(output_dir, *share):
            return main(*arguments)

    return locked


def _take(path: Path, output: Path, option: str, deadline: float) -> int:
    """The descriptor of the lock file, locked."""
    waiting = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # a previous owner that wrote nothing has removed it
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
                owner = _describe(file.read())
            if time.monotonic() >= deadline:
                raise FolderInUseError(
                    f"{output} is being written by {owner}: wait for it, or choose another {option}."
                ) from None
            if not waiting:
                logger.info("%s is being written by %s: waiting for it", output, owner)
            waiting = True
            time.sleep(SECONDS_BETWEEN_TRIES)
            continue
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(descriptor)
                raise
            logger.warning(
                "%s cannot be locked (%s): do not start a second process that writes there",
                output,
                os.strerror(error.errno),
            )
        # The previous owner may have removed the file between the two calls.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)
    owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.time(), "command": _command()}
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
    except OSError:  # the disk is full, which the work itself will report
        pass
    _descriptors.add(descriptor)
    return descriptor


def _describe(owner: str) -> str:
    try:
        owner = json.loads(owner)
        began = time.localtime(owner["since"])
        day = "" if began[:3] == time.localtime()[:3] else "%Y-%m-%d "
        since = time.strftime(f"{day}%H:%M", began)
        return f"process {owner['process']} on {owner['host']} since {since} ({owner['command']})"
    except (ValueError, KeyError, TypeError, OverflowError):  # the owner has not written its description yet
        return "another process"


def _command() -> str:
    program, *arguments = sys.orig_argv
    return textwrap.shorten(" ".join([Path(program).name, *arguments]), 80, placeholder=" …")


def _close_in_child():
    # Otherwise a worker that outlives a killed process would hold the lock.
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
