"""Cost, memory and resumption of steps that `cluster.py` runs as tasks, on many simulated recordings.

    python recipes/benchmarks/benchmark_tasks.py --folder many_simulated --tokenizer runs/quickstart/tokenizer/model \\
        --output model_cards/results/cluster

Simulates recordings in the folder (existing files are kept) and runs `prepare` and `encode_actions` by datatrove's local
executor: on a growing number of people with one worker, which shows the cost of a recording; and on all of them with 1, 2 and 4
workers, each run killed (`kill -9` on all processes) `--kills` times at random moments and started again. The Parquet files
must have the same bytes. Times are those of the processor, as other programs may share it; memory is that of the largest
process, sampled twice a second. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import contextlib
import hashlib
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

CLUSTER = Path(__file__).resolve().parents[1] / "cluster.py"


@dataclass
class BenchmarkArguments:
    """How many recordings are processed, and where."""

    folder: str = field(metadata={"help": "folder of the simulated recordings; results are written beside it"})
    tokenizer: str = field(metadata={"help": "folder of an action model for skeletons"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    people: list[int] = field(
        default_factory=lambda: [4, 14, 40], metadata={"help": "numbers of simulated people, with 72 recordings each"}
    )
    workers: list[int] = field(default_factory=lambda: [1, 2, 4], metadata={"help": "numbers of workers to compare"})
    tasks: int = field(default=4, metadata={"help": "number of tasks"})
    kills: int = field(default=3, metadata={"help": "number of times that each run is killed"})
    seed: int = field(default=0, metadata={"help": "random seed of the moments at which runs are killed"})


ARGUMENTS = (BenchmarkArguments,)


def commands(source: Path, output: Path, tokenizer: str) -> dict[str, list[str]]:
    """Step → its command line, with the output in a subfolder of its name. Each run prepares the data of the data set anew."""
    data = ["--dataset", "simulated-xsub", "--data_dir", str(source), "--cache_dir", str(output / "cache")]
    written = ["--output_dir", str(output / "encode_actions")]
    return {
        "prepare": ["simulated-xsub", "--source", str(source), "--output", str(output / "prepare")],
        "encode_actions": ["--tokenizer", tokenizer, "--encodings", "2", *data, *written],
    }


def run(step: str, words: list[str], tasks: int, workers: int, seconds: float | None = None) -> dict:
    """
    Runs a step as tasks, or kills it after some seconds.

    Returns:
        Whether it was `killed`; the `seconds` that it took and the `processor_seconds`; the `megabytes` of its largest process.
    """
    import psutil

    line = [sys.executable, str(CLUSTER), "--executor", "local", "--tasks", str(tasks), "--workers", str(workers)]
    start, times, memory = time.perf_counter(), {}, {}
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen([*line, step, *words], stdout=output, stderr=output) as process,
    ):
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if seconds is not None and time.perf_counter() - start > seconds:
                            member.kill()
                            continue
                        used = member.cpu_times()
                        times[member.pid] = used.user + used.system
                        memory[member.pid] = max(memory.get(member.pid, 0), member.memory_full_info().uss / 2**20)
            time.sleep(0.5)
        if process.returncode and seconds is None:
            output.seek(0)
            raise SystemExit(f"{step} ended with status {process.returncode}: {output.read()[-2000:]}")
    return {
        "killed": process.returncode != 0,
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(sum(times.values()), 1),
        "megabytes": round(max(memory.values(), default=0)),
    }


def digest(folder: Path) -> tuple[int, str]:
    """Number of Parquet files of a step, and a hash of their names and content."""
    content, paths = hashlib.sha256(), sorted(folder.rglob("[!.]*.parquet"))
    for path in paths:
        content.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return len(paths), content.hexdigest()


def of_people(folder: Path, people: int) -> Path:
    """A folder with links to the recordings of the first people."""
    part = folder.with_name(f"{folder.name}_of_{people}")
    part.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if (path.suffix != ".skeleton" or int(path.name[9:12]) <= people) and not (part / path.name).exists():
            os.link(path, part / path.name)
    return part


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    from action_llm_datasets.simulation.simulate import simulate
    from action_llm_recipes.benchmarks.results import write_results

    folder, chance = Path(arguments.folder), random.Random(arguments.seed)
    simulate(folder, performers=max(arguments.people), replications=1)
    output = folder.with_name(f"{folder.name}_output")
    levels, killed, digests = [], [], {}
    for people in sorted(arguments.people):
        source = of_people(folder, people)
        shutil.rmtree(output, ignore_errors=True)
        for step, words in commands(source, output, arguments.tokenizer).items():
            result = run(step, words, arguments.tasks, 1)
            files, digests[step] = digest(output / step)
            levels.append({"step": step, "recordings": len(list(source.glob("*.skeleton"))), "files": files, **result})
            print(levels[-1], flush=True)
    expected = {level["step"]: level["seconds"] for level in levels}  # of the largest number of recordings
    for workers in arguments.workers:
        shutil.rmtree(output, ignore_errors=True)
        for step, words in commands(source, output, arguments.tokenizer).items():
            moments = [expected[step] * chance.uniform(0.1, 0.6) / min(workers, 2) for _ in range(arguments.kills)]
            tries = [run(step, words, arguments.tasks, workers, seconds) for seconds in moments]
            left = digest(output / step)[0]
            result = run(step, words, arguments.tasks, workers)
            kills = sum(one["killed"] for one in tries)
            killed.append({"step": step, "workers": workers, "kills": kills, "left": left, **result})
            print(killed[-1], flush=True)
            if digest(output / step)[1] != digests[step]:
                raise SystemExit(
                    f"the Parquet files of {step} with {workers} workers differ from those of one worker."
                )
    shutil.rmtree(output)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    record = {"machine": machine, "tasks": arguments.tasks, "levels": levels, "killed": killed}
    write_results(arguments.output, record, page(record) + "\n")
    return record


def page(record: dict) -> str:
    """The tables of the measurement."""
    lines = [
        f"{record['tasks']} tasks of datatrove's local executor. {record['machine']}, shared with other programs.",
        "",
        "| step | recordings | Parquet files | processor, s | processor per recording, ms | largest process, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for level in sorted(record["levels"], key=lambda level: (level["step"], level["recordings"])):
        each = 1000 * level["processor_seconds"] / level["recordings"]
        lines.append(
            f"| {level['step']} | {level['recordings']:,} | {level['files']} | {level['processor_seconds']:.0f} | {each:.0f} | "
            f"{level['megabytes']} |"
        )
    lines += [
        "",
        "The largest number of recordings again, with all processes killed (`kill -9`) at random moments:",
        "",
        "| step | workers | times killed | Parquet files before the last start | same bytes |",
        "|---|---:|---:|---:|---|",
    ]
    for result in record["killed"]:
        lines.append(f"| {result['step']} | {result['workers']} | {result['kills']} | {result['left']} | yes |")
    return "\n".join(lines)


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
