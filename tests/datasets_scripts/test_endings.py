"""Commands that are stopped, or meet a folder in use or a full disk, print one sentence and leave no half-written file."""

import errno
import multiprocessing
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from fresh_python import python, start

from action_llm_datasets.atomic_files import write_atomically, written_whole
from action_llm_datasets.endings import disk_errno, machine_error
from action_llm_datasets.folder_lock import LOCK, FolderInUseError, writing
from action_llm_datasets.simulation.simulate import simulate

WAY_ON = "Run the same command again to continue."


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, performers=4, replications=1, actions=[6, 22, 23, 26], num_proc=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_prints_one_sentence(signum, status, tmp_path):
    arguments = ("-m", "action_llm_datasets.simulation.simulate", "--output", tmp_path / "s", "--performers", "40")
    process = start(*arguments, "--num_proc", "2")
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "s").glob("*.skeleton"))) < 9:
        assert process.poll() is None and time.monotonic() < deadline, process.said()
        time.sleep(0.01)
    os.killpg(process.pid, signum)
    assert process.wait(60) == status, process.said()
    assert process.said()[1].strip() == f"python -m action_llm_datasets.simulation.simulate: stopped. {WAY_ON}"
    assert not list((tmp_path / "s").glob(".*")), "there is neither a half-written file nor a lock"


def test_forks_handle_signals_in_the_kernel():
    """A handler in Python would wait for the current call of a pool worker, while the pool waits for the worker."""
    done = python(
        "-c",
        "import os, signal\n"
        "from action_llm_datasets.endings import handle_signals\n"
        "handle_signals()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    dispositions = [signal.getsignal(number).name for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]\n"
        "    print(*dispositions, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(signal.getsignal(signal.SIGTERM).__name__)\n",
    )
    assert done.stdout.split() == ["SIG_DFL", "SIG_IGN", "SIG_IGN", "_receive"], done.stderr


@pytest.mark.slow
def test_workers_end_with_a_process_that_is_killed(tmp_path):
    process = start(
        "-m",
        "action_llm_datasets.simulation.simulate",
        "--output",
        tmp_path / "s",
        "--performers",
        "40",
        "--num_proc",
        "2",
    )
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "s").glob("*.skeleton"))) < 9:
        assert process.poll() is None and time.monotonic() < deadline, process.said()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(2)
    count = len(list((tmp_path / "s").iterdir()))
    time.sleep(2)
    assert len(list((tmp_path / "s").iterdir())) == count, "no process is writing"
    with writing(tmp_path / "s"):  # the lock is gone with its owner
        pass


@pytest.mark.parametrize("command", ["simulation.simulate", "prepare", "render"])
def test_the_error_of_a_folder_in_use_names_its_owner(command, recordings, tmp_path):
    words = {"simulation.simulate": [], "prepare": ["simulated-xsub", "--source", recordings]}
    words["render"] = words["prepare"]
    with writing(tmp_path):
        done = python("-m", f"action_llm_datasets.{command}", *words[command], "--output", tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        rf"python -m action_llm_datasets\.{re.escape(command)}: error: {tmp_path} is being written by process {os.getpid()} "
        r"on \S+ since "
        r"\d\d:\d\d \(.*\): wait for it, or choose another --output\.\n",
        done.stderr,
    ), done.stderr
    assert not list(tmp_path.iterdir()), "the lock is gone, and nothing was written"


def _try(folder, answers):
    try:
        with writing(folder):
            answers.put("taken")
    except FolderInUseError as error:
        answers.put(str(error))


def test_a_process_may_take_its_lock_twice(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()

    def ask(folder):
        other = context.Process(target=_try, args=(folder, answers))
        other.start()
        other.join()
        return answers.get(timeout=60)

    with writing(tmp_path / "a" / "b"):
        with writing(tmp_path / "a" / "b"):
            pass
        assert "is being written by process" in ask(tmp_path / "a" / "b")
        assert ask(tmp_path / "a") == "taken", "a run and its stages have different folders"
    assert ask(tmp_path / "a" / "b") == "taken"
    assert not list(tmp_path.iterdir()), "empty folders are removed"


def _hold(folder, taken, release):
    with writing(folder):
        taken.set()
        release.wait()


def test_a_process_with_patience_waits_for_the_lock(tmp_path):
    context = multiprocessing.get_context("spawn")
    taken, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, taken, release))
    other.start()
    assert taken.wait(60)
    with pytest.raises(FolderInUseError), writing(tmp_path, patience=0.5):
        pass
    threading.Timer(0.5, release.set).start()
    with writing(tmp_path, patience=60):
        assert release.is_set()
    other.join()


def test_another_thread_is_refused(tmp_path):
    messages = []

    def second():
        try:
            with writing(tmp_path):
                pass
        except FolderInUseError as error:
            messages.append(str(error))

    with writing(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert messages == [f"{tmp_path} is being written by another thread of this process: choose another --output_dir."]
    with writing(tmp_path):
        pass


def test_the_lock_overwrites_no_other_file(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / LOCK).symlink_to(victim)
    with pytest.raises(OSError), writing(tmp_path / "output"):
        pass
    assert victim.read_text() == "precious"


def test_a_child_that_outlives_the_owner_does_not_hold_the_lock(tmp_path):
    code = f"""
import os, time
from action_llm_datasets.folder_lock import writing
with writing({str(tmp_path)!r}):
    if not os.fork():
        time.sleep(30)
    os.kill(os.getpid(), 9)
"""
    assert python("-c", code).returncode == -signal.SIGKILL
    with writing(tmp_path):
        pass


def test_a_file_system_without_locks_logs_a_warning(tmp_path, monkeypatch, caplog):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with writing(tmp_path):
        pass
    assert "cannot be locked (No locks available): do not start a second process that writes there" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_failed_write_keeps_the_old_file(number, tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.json", "whole")

    def fail(self, content):
        with open(self, "wb") as file:
            file.write(content[:2])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch, pytest.raises(OSError) as raised:
        patch.setattr(Path, "write_bytes", fail)
        write_atomically(tmp_path / "a.json", "other")
    assert files_of(tmp_path) == {"a.json": b"whole"}
    assert disk_errno(raised.value) == number
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "b.json") as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert files_of(tmp_path) == {"a.json": b"whole"}


def test_the_error_of_a_full_disk_names_the_file():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "source.py", None, "copy.py")
    assert machine_error(error) == "the disk is full (copy.py); free some space"


def test_errors_of_the_machine_are_one_line():
    def wrapped(cause):
        error = RuntimeError("wrapped")
        error.__cause__ = cause
        return error

    full = OSError(errno.ENOSPC, "No space left on device", "runs/x")
    assert machine_error(wrapped(full)) == "the disk is full (runs/x); free some space"
    native = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert machine_error(native) == "the disk is full; free some space"
    assert machine_error(OSError(errno.EROFS, "x")).startswith("the disk is read-only; make it writable")
    assert machine_error(MemoryError()).startswith("there is too little memory (MemoryError)")
    assert machine_error(RuntimeError("DefaultCPUAllocator: can't allocate memory: x")).startswith(
        "there is too little"
    )
    assert machine_error(OSError(errno.ENOENT, "x")) is None and machine_error(KeyError("x")) is None
