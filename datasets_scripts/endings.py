"""
How a command ends when it cannot finish: with one sentence that says why and how to go on, and an exit status.

| why | status |
|---|---|
| Ctrl-C, SIGTERM (SLURM, `docker stop`), SIGHUP | 130, 143, 129 |
| what a person can mend: an option, a file, a folder that is in use | 2 |
| the machine: a full or read-only disk, too little memory | 1 |
| a fault of the program | 1, with its traceback |
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
# A terminal and a launcher both send the signal of a Ctrl-C.
SAME_REQUEST_SECONDS = 1.0
# A `ValueError` or `ImportError` raised by a file of these folders is meant for the person.
OWN_FOLDERS = {Path(__file__).resolve().parent}
# The same of libraries that read files and ask servers: theirs have no common base.
OF_DATA = ("safetensors", "httpx", "requests")

_requested: int | None = None
_requested_at = 0.0
_deferred = ""
_speaks = True


class Interrupted(KeyboardInterrupt):
    """A signal ends the command.

    Args:
        signum: the signal.
        state: how far it came, as "after step 12 of 40, with a checkpoint of it".
    """

    def __init__(self, signum: int, state: str = ""):
        super().__init__(signum, state)
        self.signum, self.state = signum, state


def handle_signals(signals: Collection[int] = SIGNALS, speaks: bool = True):
    """From here on Ctrl-C, SIGTERM and SIGHUP raise `Interrupted` in this process; it is this process that ends its forks.

    Args:
        signals: that are handled.
        speaks: whether a signal is answered by a sentence: of several processes the first does.
    """
    global _requested, _deferred, _speaks
    _requested, _deferred = None, ""
    _speaks = speaks and os.environ.get("RANK", "0") == "0"
    for signum in signals:
        # nohup
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
    """The signal that asked this process to end; None where there was none."""
    return _requested


@contextlib.contextmanager
def deferring(notice: str) -> Iterator[None]:
    """In the block a first signal is only noted (`requested`) and answered with `notice`; whoever runs it ends where its state
    is whole, by `Interrupted`. A second signal ends it at once."""
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
    """Runs a command; however it ends, it ends as the table above says.

    Args:
        program: its name, which begins the sentence.
        resumes: whether the same command, run again, continues what was stopped.
    """
    handle_signals()
    way_on = " Run the same command again to continue." if resumes else ""
    try:
        yield
    except KeyboardInterrupt as stop:
        signum = getattr(stop, "signum", signal.SIGINT)
        state = getattr(stop, "state", "")
        # After the ^C that a terminal shows.
        start = "\n" if signum == signal.SIGINT else ""
        _say(f"{start}{program}: stopped{' ' * bool(state)}{state}.{way_on}")
        sys.exit(128 + signum)
    except BrokenPipeError:  # whoever read the output, as `| head` does, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + getattr(signal, "SIGPIPE", 13))
    except Exception as error:
        message = machines_error(error)
        if message is not None:
            print(f"{program}: error: {message}.{way_on}", file=sys.stderr)
            sys.exit(1)
        message = users_error(error)
        if message is None:
            raise
        print(f"{program}: error: {message}", file=sys.stderr)
        sys.exit(2)


def _begin_fork():
    """In a fork the kernel answers. A handler in Python runs when a call returns, and that for the lock of a pool may not."""
    for signum in SIGNALS:
        if signal.getsignal(signum) is _receive:
            # A terminal sends the others to all: the process that made a fork ends it.
            signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.SIG_IGN)
    # Workers of the data go on while the last step is finished; the process that made them ends them.
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


def disks_error(error: BaseException) -> int | None:
    """`ENOSPC`, `EDQUOT` or `EROFS`, where that is what is behind an error; native writers have the number in their text."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in DISK:
            return cause.errno
        for number in DISK:
            if os.strerror(number) in str(cause) or f"os error {number})" in str(cause):
                return number
    return None


def machines_error(error: BaseException) -> str | None:
    """What the machine lacks, as one line without its full stop: a disk that can be written, or memory; None of another
    error."""
    number = disks_error(error)
    if number is not None:
        # Of a copy, the second name is that of what could not be written.
        names = (getattr(cause, field, None) for cause in _chain(error) for field in ("filename2", "filename"))
        name = next(filter(None, names), None)
        return DISK[number].format("" if name is None else f" ({name})")
    for cause in _chain(error):
        text = " ".join(str(cause).split())
        if isinstance(cause, MemoryError) or "can't allocate memory" in text:
            return f"there is too little memory ({text or 'MemoryError'}); set a smaller batch, or fewer processes"
        if type(cause).__name__ == "OutOfMemoryError":
            return f"there is too little GPU memory ({text.partition('. ')[0]}); set a smaller batch"
        if type(cause).__name__ == "BrokenProcessPool" or "abruptly died" in text:
            return "a worker process was ended from outside, perhaps for want of memory; set a smaller --num_proc"
        if text.startswith("DataLoader worker"):
            return f"{text.rstrip('.')}; perhaps for want of memory: set a smaller --dataloader_num_workers"
    return None


def users_error(error: BaseException | None) -> str | None:
    """
    The message, as one line, of an error that the person who runs a command can mend.

    These are errors of files and of the Hub, and those that this project raises on purpose: `ValueError` and `ImportError`
    from its own code, or a cause of another error. Anything else is a fault of the program: None.
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
        if isinstance(cause, ValueError) and "trust_remote_code=True" in str(cause):  # of transformers
            return f"{' '.join(str(cause).split()).partition('. ')[0]}; recipes run no code of a repository"
        of_data = type(cause).__module__.partition(".")[0] in OF_DATA
        if isinstance(cause, OSError) or of_data or (is_own and isinstance(cause, (ValueError, ImportError))):
            return " ".join(str(cause).split())
    return None
