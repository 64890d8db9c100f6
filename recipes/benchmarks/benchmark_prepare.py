"""Throughput and memory of `action_llm_datasets.prepare` on many files, and whether it survives being killed.

    python recipes/benchmarks/benchmark_prepare.py --folder many_simulated --output prepare

Writes 20,160 simulated `.skeleton` files into the folder (4.5 GB; what is there is kept), then prepares them as a user does:
in one process, in one for each core, and once more with `kill -9` on all of its processes in the middle and a second start.
Every run's Parquet files must be the same to the byte. Memory is what the processes hold together, shared pages counted once,
looked at twice a second. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

import hashlib
import json
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
    """How many files, and where."""

    folder: str = field(metadata={"help": "folder of the simulated recordings; prepared data go beside it"})
    output: str = field(metadata={"help": "path of the result without its suffix: .json and .md are written"})
    performers: int = field(default=40, metadata={"help": "simulated people"})
    replications: int = field(default=7, metadata={"help": "how often everybody does each of 24 actions"})


def command(folder: Path, prepared: Path, processes: int) -> list[str]:
    arguments = ["simulated-xsub", "--source", str(folder), "--output", str(prepared), "--num_proc", str(processes)]
    return [sys.executable, "-m", "action_llm_datasets.prepare", *arguments]


def run(folder: Path, prepared: Path, processes: int, kill_at: int | None = None) -> dict:
    """One run of `prepare`, or one that is killed when so many Parquet files are there."""
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
                # Shared memory counts once, where the system tells.
                held = sum(getattr(info, "pss", info.uss) for info in infos) / 2**20
                memory.append({"second": round(time.perf_counter() - start, 1), "shards": done, "megabytes": held})
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.5)
    if (process.returncode == 0) == (kill_at is not None):
        raise SystemExit(f"prepare ended with {process.returncode}")
    return {"processes": processes, "seconds": time.perf_counter() - start, "memory": memory}


def digest(prepared: Path) -> str:
    """Of all Parquet files and their names."""
    content = hashlib.sha256()
    for path in sorted(prepared.glob("*/*.parquet")):
        content.update(f"{path.name}\0".encode() + path.read_bytes())
    return content.hexdigest()


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments):
    from action_llm_datasets.simulation.simulate import simulate

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
        raise SystemExit(f"the Parquet files differ: {digests}")
    parquet = sum(path.stat().st_size for path in prepared.glob("*/*.parquet")) / 1e9
    shutil.rmtree(prepared)

    machine = f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"
    lines = [
        f"{files:,} simulated `.skeleton` files, {gigabytes:.2f} GB, in {shards} Parquet files of {parquet:.2f} GB together. "
        f"{machine}.",
        "",
        "| processes | seconds | files a second | memory at a quarter, half, three quarters and at most, MB |",
        "|---:|---:|---:|---|",
    ]
    for one in runs:
        working = [point for point in one["memory"] if 0 < point["shards"] < shards]
        quarters = [working[len(working) * part // 4]["megabytes"] for part in (1, 2, 3)] if working else []
        most = max(point["megabytes"] for point in one["memory"])
        shown = ", ".join(f"{value:,.0f}" for value in [*quarters, most])
        lines.append(f"| {one['processes']} | {one['seconds']:.1f} | {files / one['seconds']:.0f} | {shown} |")
    lines += [
        "",
        f"Killed (`kill -9`, all processes) after {killed['seconds']:.1f} s with {left} of {shards} Parquet files; the second "
        f"start took {resumed['seconds']:.1f} s. All three runs wrote the same bytes.",
    ]
    text = "\n".join(lines)
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "files": files, "runs": runs, "killed": killed, "left": left, "resumed": resumed}
    output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
