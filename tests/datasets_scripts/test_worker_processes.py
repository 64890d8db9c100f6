"""Parallel work: workers end with the block that started them."""

import time

import pytest

from action_llm_datasets.worker_processes import in_processes


def long_work(folder):
    """Leaves a file when it starts, and one when it ends, for whatever reason."""
    name = str(time.time_ns())
    (folder / f"started_{name}").touch()
    try:
        time.sleep(120)
    finally:
        (folder / f"ended_{name}").touch()


def test_workers_end_in_the_middle_of_their_work_and_begin_no_other(tmp_path):
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="left"), in_processes(long_work, [tmp_path] * 6, 2):
        while len(list(tmp_path.glob("started_*"))) < 2:
            time.sleep(0.05)
        raise RuntimeError("left early")
    assert time.monotonic() - began < 100, "a worker went on to the end of its work"
    assert len(list(tmp_path.glob("started_*"))) == 2, "a worker began the next work"
    assert len(list(tmp_path.glob("ended_*"))) == 2, "a worker left its work without cleaning up"
