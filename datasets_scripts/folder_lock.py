"""One writer for an output folder: a second process is told who writes it, and ends."""

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
except ImportError:  # Windows: two processes on one folder are not told apart
    fcntl = None

logger = logging.getLogger(__name__)

LOCK = ".action_llm.lock"
# What file systems answer that have no locks, as some network file systems.
WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}

# Lock file → how often this process has taken it, and in which thread. A run of several stages takes their folders, too.
_held: dict[Path, tuple[int, int]] = {}
_descriptors: set[int] = set()


class FolderInUseError(ValueError):
    """Another process writes the output."""


@contextlib.contextmanager
def writing(output: str | os.PathLike, option: str = "--output_dir", *, is_file: bool = False) -> Iterator[None]:
    """Keeps other processes from writing an output folder, or an output file, while the block runs.

    The lock is `flock` on a hidden file, which says who holds it. The kernel gives it up with the process, however that
    ends, and children do not have it. It holds between hosts where the file system passes locks on, as NFS does; where the
    file system has no locks, a warning says so and the work goes on. A process may take a lock that it holds. Of the
    processes of a launch (`RANK`), the first holds it for all.

    Args:
        output: the folder, made where it is missing; or the file.
        option: of the command, which names another output.
        is_file: whether the output is a file.

    Raises:
        FolderInUseError: another process writes it; says which, where, since when.
    """
    output = Path(output)
    folder = output.parent if is_file else output
    path = folder.resolve() / (f".{output.name}{LOCK}" if is_file else LOCK)
    if fcntl is None or os.environ.get("RANK", "0") != "0":
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
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _take(path, output, option)
    _held[path] = 1, thread
    try:
        yield
    except OSError as error:
        if error.errno in DISK and error.filename is None:  # of a write to an open file
            error.filename = str(output)
        raise
    finally:
        del _held[path]
        _descriptors.discard(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        # An error before anything is made leaves no empty folders.
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()


def writes_output_dir(main: Callable) -> Callable:
    """Decorates the `main` of a recipe, of whose arguments one has an `output_dir`: `writing` it."""

    @functools.wraps(main)
    def locked(*arguments):
        output_dir = next(part.output_dir for part in arguments if hasattr(part, "output_dir"))
        with writing(output_dir):
            return main(*arguments)

    return locked


def _take(path: Path, output: Path, option: str) -> int:
    """The descriptor of the lock file, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
                owner = file.read()
            raise FolderInUseError(
                f"{output} is being written by {_describe(owner)}: wait for it, or choose another {option}."
            ) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(descriptor)
                raise
            logger.warning(
                "%s cannot be locked (%s): start no second process that writes there", output, os.strerror(error.errno)
            )
        # The one that held it may have removed the file between the two calls.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)
    owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.time(), "command": _command()}
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
    except OSError:  # of a full disk, which the work itself will speak of
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
    except (ValueError, KeyError, TypeError, OverflowError):  # it is just beginning
        return "another process"


def _command() -> str:
    program, *arguments = sys.orig_argv
    return textwrap.shorten(" ".join([Path(program).name, *arguments]), 80, placeholder=" …")


def _close_in_child():
    # A worker that outlives a killed process would hold the lock.
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
