"""A share of the mutations of `read_mutations.py`, and that it would notice: a reader with a fault of each kind is caught."""

import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mutations import mutate
from mutations.formats import FORMATS, mutator_of
from mutations.read_mutations import Case, cases, damaged, make_seeds, shares
from mutations.seeds import Seed
from mutations.watching import DATA, TYPED, Task, watched

SCRIPT = Path(__file__).with_name("read_mutations.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and seccomp are Linux's")


def launch(*arguments: str, timeout: float = 1200) -> subprocess.CompletedProcess:
    """In a process of its own: forks of this one would share the threads of other tests."""
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.mark.slow
def test_damaged_files_are_data_or_errors():
    done = launch("--number", os.environ.get("ACTION_LLM_MUTATIONS", "300"), "--seed", "0")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    read = {line.split()[0] for line in done.stdout.splitlines() if line}
    assert read >= set(FORMATS), f"no case of {set(FORMATS) - read} was read"


def fork(read, tmp_path, names=()) -> tuple[str, str]:
    """What is said of a reader of `file.bin`."""

    def fill(root: Path) -> None:
        (root / "file.bin").write_bytes(b"content")

    ((_, outcome),) = watched([Task("only", fill, read, names)], 1, tmp_path)
    assert outcome.is_failure == (outcome.result not in (DATA, TYPED))
    return outcome.result, outcome.detail


def refuse(error: BaseException):
    def read(root):
        raise error

    return read


def test_data_and_errors_that_name_the_file_pass(tmp_path):
    assert fork(lambda root: None, tmp_path) == (DATA, "")
    assert fork(refuse(ValueError("file.bin: expected numbers, found text")), tmp_path)[0] == TYPED
    assert fork(refuse(FileNotFoundError(2, "No such file", "file.bin")), tmp_path)[0] == TYPED
    assert fork(refuse(ValueError("fps: expected a number")), tmp_path, ["fps"])[0] == TYPED


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (TypeError("file.bin"), "TypeError in"),
        (MemoryError("file.bin"), "MemoryError in"),
        (RecursionError("file.bin"), "RecursionError in"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "file.bin"), "UnicodeDecodeError in"),
        (KeyboardInterrupt(), "KeyboardInterrupt in"),
        (SystemExit(0), "SystemExit in"),
        (ValueError("expected numbers"), "ValueError that names no file"),
        (OSError("file.bin " * 100), "OSError of more than 600 characters"),
        (ValueError("file.bin:\nexpected\nnumbers"), "ValueError of several lines"),
        (
            ValueError("file.bin: expected numbers, found MemoryError: Unable to allocate"),
            "ValueError behind which memory",
        ),
    ],
)
def test_other_errors_are_failures(error, result, tmp_path):
    assert fork(refuse(error), tmp_path)[0].startswith(result)


def crash(root):
    ctypes.string_at(0)


def spin(root):
    while True:
        pass


def wait_for_ever(root):
    time.sleep(1000)


def allocate(root):
    np.ones(120_000_000)


def allocate_more_than_there_may_be(root):
    np.zeros(2_000_000_000)


def connect(root):
    try:
        socket.create_connection(("127.0.0.1", 9), timeout=0.1)
    except OSError as error:
        raise ValueError("file.bin: no network") from error


def bind_in_c(root):
    ctypes.CDLL(None).socket(2, 2, 0)


def ask(root):
    try:
        input("run the code? [y/N] ")
    except EOFError as error:
        raise ValueError("file.bin: no code is run") from error


def write_elsewhere(root):
    Path(root.parent.parent, "elsewhere").write_text("x")


def run_a_program(root):
    os.system("true")


def exit_at_once(root):
    os._exit(3)


@pytest.mark.parametrize(
    ("read", "result"),
    [
        (crash, "crash: SIGSEGV in __init__.py:string_at"),
        (spin, "hang: over 1 s of CPU in test_mutations.py:spin"),
        (wait_for_ever, "hang: over 3 s"),
        (allocate, "memory: over 1 GiB (data)"),
        (allocate_more_than_there_may_be, "MemoryError in"),
        (connect, "network: a socket was opened"),
        (bind_in_c, "network: a socket was opened"),
        (ask, "question:"),
        (write_elsewhere, "write:"),
        (run_a_program, "program: os.system"),
        (exit_at_once, "crash: status 3"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_of_each_kind_is_caught(read, result, tmp_path, monkeypatch):
    monkeypatch.setattr("mutations.watching.CPU_SECONDS", 1 if read is spin else 10)
    monkeypatch.setattr("mutations.watching.MEMORY", 1 << 30 if read is allocate else 2 << 30)
    monkeypatch.setattr("mutations.watching.WALL_SECONDS", 3 if read is wait_for_ever else 60)
    assert fork(read, tmp_path)[0].startswith(result)


def test_a_fault_costs_one_case(tmp_path):
    readers = [lambda root: None, crash, lambda root: None, refuse(KeyError("x"))] * 3
    tasks = [Task(number, lambda root: None, read) for number, read in enumerate(readers)]
    outcomes = {task.key: outcome.result for task, outcome in watched(tasks, 3, tmp_path)}
    assert [outcomes[number].split()[0] for number in range(12)] == ["data", "crash:", "data", "KeyError"] * 3


def test_a_case_is_the_same_whatever_else_is_read():
    """By its number alone: neither the number of cases nor of workers has a part in it."""
    few, many = cases(shares(list(FORMATS), 100)), cases(shares(list(FORMATS), 1000))
    assert set(few) < set(many) and len(set(many)) == len(many)
    assert {case.format for case in few[: 2 * len(FORMATS)]} == set(FORMATS)


@pytest.mark.parametrize("name", ["skeleton", "mat", "npy", "npz", "rows", "zip", "folder", "video", "class_list"])
def test_mutations_are_seeded_and_all_different(name, tmp_path):
    made = FORMATS[name].make(tmp_path / name, None)
    numbers = range(len(made), len(made) + 60)
    twice = [[damaged(Case(name, number), seed, made) for number in numbers] for seed in (0, 0, 1)]
    assert twice[0] == twice[1] != twice[2]
    changed = [content for source, content in twice[0] if content != source.content]
    assert len(changed) > 45 and len(set(changed)) > 0.8 * len(changed)


@pytest.mark.slow
def test_sound_files_are_the_same_each_time(tmp_path):
    once, again = (make_seeds(list(FORMATS), tmp_path / name, None) for name in ("once", "again"))
    for name in FORMATS:
        for one, other in zip(once[name], again[name], strict=True):
            assert (one.file, one.content) == (other.file, other.content), f"{name}: {one.file}"


def test_sound_files_come_first(tmp_path):
    made = FORMATS["npy"].make(tmp_path, None)
    for number, seed in enumerate(made):
        assert damaged(Case("npy", number), 0, made) == (seed, seed.content)


def test_formats_are_damaged_by_what_knows_them():
    assert mutator_of("row", "row0.json") is mutate.change_json
    assert mutator_of("smarthome", "clip.json") is mutate.mutate_json
    assert mutator_of("video", "clip.ts") is mutate.mutate_bytes


def test_a_bomb_unpacks_to_what_its_directory_says(tmp_path):
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(mutate.bomb("a.npy", blocks=2))) as archive:
        assert archive.testzip() is None and archive.getinfo("a.npy").file_size == 2 * mutate.BLOCK
    assert len(mutate.bomb("a.npy", blocks=2)) < mutate.BLOCK / 500


def test_json_keeps_keys_that_stand_there_twice():
    text = b'{"a": 1, "b": [{"a": null}], "a": NaN}'
    assert mutate.write_json(mutate.read_json(text)) == text.decode()


def test_seeds_know_their_content(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert Seed(tmp_path, "a").content == b"x"
