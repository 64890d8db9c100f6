"""
How a command ends if it cannot finish: with one sentence that gives the reason and the next step, and an exit status.

| reason | status |
|---|---|
| Ctrl-C, SIGTERM (SLURM, `docker stop`), SIGHUP | 130, 143, 129 |
| an error that the user can fix: an option, a file, a folder in use | 2 |
| the machine: a full or read-only disk, too little memory | 1 |
| a bug | 1, with a traceback |
"""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# After Ctrl-C, both the terminal and a launcher send a signal: signals within this time count as one.
SAME_REQUEST_SECONDS = 1.0
# Errors for the user: a `ValueError` or `ImportError` raised by a file of these folders.
OWN_FOLDERS = {Path(__file__).resolve().parent}
# Errors for the user: any error of these libraries, which read files or call servers.
OF_DATA = ("safetensors", "httpx", "requests")

_requested: int | None = None
_requested_at = 0.0
_deferred = ""
_speaks = True


class Interrupted(KeyboardInterrupt):
    """A signal ends the command.

    Args:
        signum: number of the signal.
        state: how far the command came, such as "after step 12 of 40, with a checkpoint".
    """

    def __init__(self, signum: int, state: str = ""):
        super().__init__(signum, state)
        self.signum, self.state = signum, state


def handle_signals(signals: Collection[int] = SIGNALS, speaks: bool = True):
    """Makes Ctrl-C, SIGTERM and SIGHUP raise `Interrupted` in this process, which is responsible for ending its forks.

    Args:
        signals: the signals to handle.
        speaks: whether to print a sentence. In a launch of several processes, only the first prints.
    """
    global _requested, _deferred, _speaks
    _requested, _deferred = None, ""
    _speaks = speaks and os.environ.get("RANK", "0") == "0"
    for signum in signals:
        # A command under nohup keeps ignoring signals.
        if signum == signal.SIGINT or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _receive)


def _receive(signum: int, _frame):
    global _requested, _requested_at
    now, is_first = time.monotonic(), _requested is None
    if not is_first and now - _requested_at < SAME_REQUEST_SECONDS:
        return
    _requested, _requested_at = signum, now
    if is_first and _deferred:
        _say(f"\n{_deferred}")
        return
    raise Interrupted(signum)


def requested() -> int | None:
    """The signal that asked this process to end, or None."""
    return _requested


@contextlib.contextmanager
def deferring(notice: str) -> Iterator[None]:
    """Defers signals: in the block, a first signal is only recorded (`requested`) and answered with `notice`.

    The code in the block ends, by raising `Interrupted`, when its state is complete. A second signal ends it at once.
    """
    global _deferred
    _deferred = notice
    try:
        yield
    finally:
        _deferred = ""
    if _requested is not None:
        raise Interrupted(_requested)


@contextlib.contextmanager
def ending_well(program: str, resumes: bool = False) -> Iterator[None]:
    """Runs a command in the block, and ends it as in the table above.

    Args:
        program: name of the command, for messages.
        resumes: whether the same command continues a run that was stopped.
    """
    handle_signals()
    way_on = " Run the same command again to continue." if resumes else ""
    try:
        yield
    except KeyboardInterrupt as stop:
        signum = getattr(stop, "signum", signal.SIGINT)
        state = getattr(stop, "state", "")
        # A new line after the ^C of the terminal.
        start = "\n" if signum == signal.SIGINT else ""
        _say(f"{start}{program}: stopped{' ' * bool(state)}{state}.{way_on}")
        sys.exit(128 + signum)
    except BrokenPipeError:  # the reader of the output, such as `| head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))
    except Exception as error:
        message = machine_error(error)
        if message is not None:
            print(f"{program}: error: {message}.{way_on}", file=sys.stderr)
            sys.exit(1)
        message = user_error(error)
        if message is None:
            raise
        print(f"{program}: error: {message}", file=sys.stderr)
        sys.exit(2)


def _begin_fork():
    """Resets signals in a fork to handlers of the kernel.

    A handler in Python runs only when the current call returns, and waiting for the lock of a pool may never return.
    """
    for signum in SIGNALS:
        if signal.getsignal(signum) is _receive:
            # The terminal sends SIGINT and SIGHUP to all processes; the parent process ends its forks.
            signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.SIG_IGN)
    # Data loader workers keep working while the last step finishes; the parent process ends them.
    if _deferred and hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_fork)


def _say(sentence: str):
    if _speaks:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(sentence, file=sys.stderr, flush=True)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


DISK = {
    errno.ENOSPC: "the disk is full{}; free some space",
    errno.EDQUOT: "the disk quota is used up{}; free some space",
    errno.EROFS: "the disk is read-only{}; make it writable, or choose another folder",
}


def disk_errno(error: BaseException) -> int | None:
    """`ENOSPC`, `EDQUOT` or `EROFS` if it is the cause of an error. Native writers have the number only in their message."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in DISK:
            return cause.errno
        for number in DISK:
            if os.strerror(number) in str(cause) or f"os error {number})" in str(cause):
                return number
    return None


def machine_error(error: BaseException) -> str | None:
    """The message, one line without a full stop, of an error caused by a disk or by too little memory; None otherwise."""
    number = disk_errno(error)
    if number is not None:
        # The second file name of a copy is the file that could not be written.
        names = (getattr(cause, field, None) for cause in _chain(error) for field in ("filename2", "filename"))
        name = next(filter(None, names), None)
        return DISK[number].format("" if name is None else f" ({name})")
    for cause in _chain(error):
        text = " ".join(str(cause).split())
        if isinstance(cause, MemoryError) or "can't allocate memory" in text:
            return (
                f"there is too little memory ({text or 'MemoryError'}); set a smaller batch size, or fewer processes"
            )
        if type(cause).__name__ == "OutOfMemoryError":
            return f"there is too little GPU memory ({text.partition('. ')[0]}); set a smaller batch size"
        if type(cause).__name__ == "BrokenProcessPool" or "abruptly died" in text:
            return "a worker process was killed, perhaps for lack of memory; set a smaller --num_proc"
        if text.startswith("DataLoader worker"):
            return f"{text.rstrip('.')}, perhaps for lack of memory; set a smaller --dataloader_num_workers"
    return None


def user_error(error: BaseException | None) -> str | None:
    """
    The message, as one line, of an error that the user can fix; None for any other error, which is a bug.

    Errors for the user are those of files and of the Hub, and each `ValueError` and `ImportError` that the code of this project
    raises, also as the cause of another error.
    """
    own = set(OWN_FOLDERS)
    if "action_llm" in sys.modules:
        own.add(Path(sys.modules["action_llm"].__file__).resolve().parent)
    for cause in _chain(error):
        trace = cause.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        raised_in = None if trace is None else Path(trace.tb_frame.f_code.co_filename).resolve()
        is_own = raised_in is not None and not own.isdisjoint(raised_in.parents)
        if isinstance(cause, ValueError) and "trust_remote_code=True" in str(cause):  # raised by transformers
            return f"{' '.join(str(cause).split()).partition('. ')[0]}; recipes run no code of a repository"
        of_data = type(cause).__module__.partition(".")[0] in OF_DATA
        if isinstance(cause, OSError) or of_data or (is_own and isinstance(cause, (ValueError, ImportError))):
            return " ".join(str(cause).split())
    return None
