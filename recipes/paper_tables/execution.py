"""Runs the rows of a table side by side, each in a process of its own."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from action_llm_datasets.folder_lock import LOCK, FolderInUseError, writing
from action_llm_datasets.progress import duration
from action_llm_recipes.common.run_folder import RunFolder
from action_llm_recipes.paper_tables.runs import RowRun

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.5
# Folders whose use by another command has been logged.
_reported: set[Path] = set()


@dataclass
class _Process:
    """A row that is running."""

    run: RowRun
    process: subprocess.Popen
    log: IO
    device: int
    started: float


def run_rows(
    runs: list[RowRun],
    jobs: int,
    on_finished: Callable[[RowRun], None],
) -> dict[RowRun, str]:
    """
    Runs rows side by side. A row whose next stage is being made by another row waits for it.

    Args:
        runs: the rows, in the order in which they start.
        jobs: number of rows at a time. Each has one of the GPUs, or its share of the cores.
        on_finished: called with each row that has finished; a row for which it raises an error has failed.

    Returns:
        The rows that failed, each with the reason: the last line of its log, or an error of `on_finished`.
    """
    waiting, running, failures, done = list(runs), [], {}, 0
    started = time.monotonic()
    try:
        while waiting or running:
            for process in [process for process in running if process.process.poll() is not None]:
                running.remove(process)
                process.log.close()
                done += 1
                seconds = time.monotonic() - process.started
                try:
                    if process.process.returncode:
                        raise ValueError(_last_line(process.run))
                    on_finished(process.run)
                except (ValueError, OSError, KeyError) as error:  # the other rows go on
                    failures[process.run] = str(error)
                    logger.error("%s failed: %s", name_of(process.run), error)
                    continue
                left = (time.monotonic() - started) / done * (len(runs) - done)
                logger.info(
                    "%s finished after %s; %d of %d, about %s left",
                    name_of(process.run),
                    duration(seconds),
                    done,
                    len(runs),
                    duration(left),
                )
            free = [device for device in range(jobs) if device not in {process.device for process in running}]
            for run in list(waiting):
                if not free:
                    break
                if not _waits(run, running) and not _is_taken(run):
                    waiting.remove(run)
                    running.append(_start(run, free.pop(0), jobs))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        # Also after Ctrl-C: the rows save a checkpoint and are resumed by the same command.
        for process in running:
            process.process.terminate()
        for process in running:
            process.process.wait()
    return failures


def name_of(run: RowRun) -> str:
    """A row, data set and seed in the log."""
    return f"{run.row.title}, {run.dataset}, seed {run.seed}"


def _waits(run: RowRun, running: list[_Process]) -> bool:
    """Whether a running row has still to make a stage that this row needs."""
    to_make = {folder for process in running for folder in _to_make(process.run)}
    return not to_make.isdisjoint(run.stages.values())


def _is_taken(run: RowRun) -> bool:
    """Whether another command is making a stage of this row: a second table, or a row that outlived a killed command."""
    for folder in (run.folder, *run.stages.values()):
        if (folder / LOCK).exists():
            try:
                with writing(folder):
                    pass
            except FolderInUseError as error:
                if folder not in _reported:
                    _reported.add(folder)
                    logger.info("%s waits: %s", name_of(run), error)
                return True
    return False


def _to_make(run: RowRun) -> list[Path]:
    """The folders of the stages that a running row makes or has still to make. Those before the one that it has locked are
    behind it: an LVLM from elsewhere leaves the folder of the small LVLM empty."""
    folders = list(run.stages.values())
    current = max((number for number, folder in enumerate(folders) if (folder / LOCK).exists()), default=0)
    return [folder for folder in folders[current:] if not RunFolder.has_record(folder)]


def _start(run: RowRun, device: int, jobs: int) -> _Process:
    import torch

    run.share_stages()
    environment = dict(os.environ)
    if torch.cuda.is_available():
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
        environment["CUDA_VISIBLE_DEVICES"] = names[device % len(names)]
    else:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // jobs)))
    command = [sys.executable, "-m", "action_llm_recipes.run_line", *run.command_line()]
    log = open(run.folder / "log.txt", "a", encoding="utf-8")  # noqa: SIM115 (closed when the process ends)
    logger.info("%s started, its log is %s", name_of(run), run.folder / "log.txt")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    return _Process(run, process, log, device, time.monotonic())


def usable_cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs() -> int:
    """A row for each GPU, or for each core."""
    import torch

    return torch.cuda.device_count() or usable_cores()


def _last_line(run: RowRun) -> str:
    lines = Path(run.folder, "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
