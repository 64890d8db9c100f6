"""Throughput and memory of `action_llm_datasets.prepare` on many files, and whether it resumes after being killed.

    python recipes/benchmarks/benchmark_prepare.py --folder many_simulated --output prepare

Simulates 20,160 `.skeleton` files in the folder (4.5 GB; existing files are kept) and prepares them with the command that users
run: in a single process, in a process for each core, and once more with `kill -9` on all processes halfway and a restart. The
Parquet files of all runs must be identical. Memory is that of all processes, with shared pages counted once, sampled twice a
second. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class BenchmarkArguments:
    """How many files are prepared, and where."""

    folder: str = field(metadata={"help": "folder of the simulated recordings; prepared data is written beside it"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    performers: int = field(default=40, metadata={"help": "simulated people"})
    replications: int = field(default=7, metadata={"help": "recordings of each of 24 actions by each person"})


def command(folder: Path, prepared: Path, processes: int) -> list[str]:
    """The command that prepares a folder."""
    arguments = ["simulated-xsub", "--source", str(folder), "--output", str(prepared), "--num_proc", str(processes)]
    return [sys.executable, "-m", "action_llm_datasets.prepare", *arguments]


def run(folder: Path, prepared: Path, processes: int, kill_at: int | None = None) -> dict:
    """Runs `prepare`, or kills it once `kill_at` Parquet files are written; returns seconds and memory over time."""
    import psutil

    start, memory = time.perf_counter(), []
    with subprocess.Popen(
        command(folder, prepared, processes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:  # fmt: skip
        while process.poll() is None:
            done = len(list(prepared.glob("*/*.parquet")))
            if kill_at is not None and done >= kill_at:
                for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                    child.kill()
                break
            try:
                tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                infos = [child.memory_full_info() for child in tree]
                # The proportional set size counts shared pages once, if the system has it.
                held = sum(getattr(info, "pss", info.uss) for info in infos) / 2**20
                memory.append({"second": round(time.perf_counter() - start, 1), "shards": done, "megabytes": held})
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.5)
    if (process.returncode == 0) == (kill_at is not None):
        raise SystemExit(f"prepare returned {process.returncode}: run its command to see why.")
    return {"processes": processes, "seconds": time.perf_counter() - start, "memory": memory}


def digest(prepared: Path) -> str:
    """A hash of all Parquet files and their names."""
    content = hashlib.sha256()
    for path in sorted(prepared.glob("*/*.parquet")):
        content.update(f"{path.name}\0".encode() + path.read_bytes())
    return content.hexdigest()


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    from action_llm_datasets.simulation.simulate import simulate
    from action_llm_recipes.benchmarks.results import write_results

    folder, cores = Path(arguments.folder), os.cpu_count()
    summary = simulate(folder, performers=arguments.performers, replications=arguments.replications)
    files = summary["recordings"]
    gigabytes = sum(path.stat().st_size for path in folder.glob("*.skeleton")) / 1e9

    prepared = folder.with_name(f"{folder.name}_prepared")
    runs, digests, shards = [], [], 0
    for processes in sorted({1, cores}):
        shutil.rmtree(prepared, ignore_errors=True)
        runs.append(run(folder, prepared, processes))
        digests.append(digest(prepared))
        shards = len(list(prepared.glob("*/*.parquet")))
    shutil.rmtree(prepared, ignore_errors=True)
    killed = run(folder, prepared, cores, kill_at=max(1, shards // 2))
    left = len(list(prepared.glob("*/*.parquet")))
    resumed = run(folder, prepared, cores)
    digests.append(digest(prepared))
    if len(set(digests)) != 1:
        raise SystemExit(f"the Parquet files of the runs differ: {digests}")
    parquet = sum(path.stat().st_size for path in prepared.glob("*/*.parquet")) / 1e9
    shutil.rmtree(prepared)

    machine = f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"
    lines = [
        f"{files:,} simulated `.skeleton` files ({gigabytes:.2f} GB) as {shards} Parquet files ({parquet:.2f} GB in all). "
        f"{machine}.",
        "",
        "| processes | seconds | files per second | memory after a quarter, half and three quarters, and at its peak, MB |",
        "|---:|---:|---:|---|",
    ]
    for result in runs:
        working = [sample for sample in result["memory"] if 0 < sample["shards"] < shards]
        quarters = [working[len(working) * part // 4]["megabytes"] for part in (1, 2, 3)] if working else []
        peak = max(sample["megabytes"] for sample in result["memory"])
        memory = ", ".join(f"{value:,.0f}" for value in [*quarters, peak])
        lines.append(
            f"| {result['processes']} | {result['seconds']:.1f} | {files / result['seconds']:.0f} | {memory} |"
        )
    lines += [
        "",
        f"All processes were killed (`kill -9`) after {killed['seconds']:.1f} s, with {left} of {shards} Parquet files "
        f"written; the restart took {resumed['seconds']:.1f} s. The Parquet files of all three runs are identical.",
    ]
    record = {"machine": machine, "files": files, "runs": runs, "killed": killed, "left": left, "resumed": resumed}
    write_results(arguments.output, record, "\n".join(lines) + "\n")
    return record


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
