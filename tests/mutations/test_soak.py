"""Six seconds of `soak.py`, and that it would notice."""

import contextlib
import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mutations import soak

SCRIPT = Path(__file__).with_name("soak.py")


@pytest.mark.slow
def test_threads_answer_as_one_and_nothing_grows():
    command = [sys.executable, str(SCRIPT), "--minutes", "0.1", "--threads", "8", "--files", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "first" in done.stdout and "of them cannot be read" in done.stdout


@pytest.fixture
def tiny(monkeypatch):
    """A soak of two numbers in place of files; returns a function that takes what answers."""

    def run(answer, tmp_path):
        monkeypatch.setattr(soak, "write_files", lambda *_: [("skeletons", "a"), ("skeletons", "b")])
        monkeypatch.setattr(soak, "answer", answer)
        return soak.soak(1.0, 4, tmp_path, files=1)

    return run


def test_it_passes_where_all_is_well(tiny, tmp_path):
    assert tiny(repr, tmp_path) == []


def test_an_answer_that_differs_is_seen(tiny, tmp_path):
    calls = []

    def answer(recording):
        calls.append(recording)
        return str(len(calls) == 20)

    (complaint,) = tiny(answer, tmp_path)
    assert complaint.startswith("1 answers differ")


def test_open_files_that_grow_are_seen(tiny, tmp_path):
    with contextlib.ExitStack() as opened:
        count = itertools.count()

        def answer(recording):
            if next(count) < 500:
                opened.enter_context(open(__file__))
            time.sleep(0.005)
            return ""

        complaints = tiny(answer, tmp_path)
    assert any(complaint.startswith("files:") for complaint in complaints)


def test_memory_that_grows_is_seen(tiny, tmp_path):
    kept = []

    def answer(recording):
        if len(kept) < 500:
            kept.append(b"x" * (1 << 20))
        time.sleep(0.005)
        return ""

    assert any(complaint.startswith("memory:") for complaint in tiny(answer, tmp_path))
