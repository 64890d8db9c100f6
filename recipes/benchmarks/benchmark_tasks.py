"""Cost, memory and resumption of steps as tasks (`--task`, `--tasks`), on many simulated recordings.

    python recipes/benchmarks/benchmark_tasks.py --folder many_simulated --tokenizer runs/quickstart/tokenizer/model \\
        --output model_cards/results/cluster

Runs `prepare` and `encode_actions` on a folder of simulated recordings as `cluster.py` does, but forks the processes of the
tasks after the libraries are imported: on a growing number of people with one worker, which shows the cost of a recording; and
on one number with 1, 2 and 4 workers, each run killed (`kill -9` on all processes) `--kills` times at random moments and
started again. The Parquet files must have the same bytes. Times are those of the processor, as other programs may share it;
memory is that of the largest process. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import hashlib
import os
import platform
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class BenchmarkArguments:
    """How many recordings are processed, and where."""

    folder: str = field(metadata={"help": "folder that action-llm-simulate wrote; results are written beside it"})
    tokenizer: str = field(metadata={"help": "folder of an action model for skeletons"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    people: list[int] = field(
        default_factory=lambda: [4, 14, 40], metadata={"help": "numbers of people whose recordings are processed"}
    )
    killed_people: int = field(default=14, metadata={"help": "number of people in the runs that are killed"})
    steps: list[str] = field(
        default_factory=lambda: ["prepare", "encode_actions"], metadata={"help": "prepare, encode_actions"}
    )
    workers: list[int] = field(default_factory=lambda: [1, 2, 4], metadata={"help": "numbers of workers to compare"})
    tasks: int = field(default=8, metadata={"help": "number of tasks"})
    rows_per_shard: int = field(default=128, metadata={"help": "number of recordings per Parquet file"})
    kills: int = field(default=3, metadata={"help": "number of times that each run is killed"})
    seed: int = field(default=0, metadata={"help": "random seed of the moments at which runs are killed"})


ARGUMENTS = (BenchmarkArguments,)


def steps(arguments: BenchmarkArguments, source: Path, output: Path) -> dict[str, Callable[[int, int], None]]:
    """Step → a function that runs one of a number of tasks; a single task is the whole step."""
    from action_llm_datasets.prepare import prepare
    from action_llm_recipes import encode_actions
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.common.tasks import TaskArguments

    data = DataArguments(dataset="simulated-xsub", data_dir=str(source), cache_dir=f"{source}_cache", num_proc=1)
    encoding = encode_actions.EncodingArguments(
        tokenizer=arguments.tokenizer, output_dir=str(output / "encode_actions"), encodings=2
    )

    def run_prepare(task: int, tasks: int):
        size = {"num_proc": 1, "files_per_shard": arguments.rows_per_shard}
        prepare("simulated-xsub", source, output / "prepare", task=task, tasks=tasks, **size)

    works = {
        "prepare": run_prepare,
        "encode_actions": lambda *task: encode_actions.main(encoding, data, TaskArguments(*task)),
    }
    return {step: works[step] for step in arguments.steps}


class Run:
    """A run of tasks in forked processes, of which the tasks that have ended are not run again.

    Attributes:
        seconds: of the processor, of all processes that ended by themselves.
        megabytes: largest memory of such a process.
    """

    def __init__(self, work: Callable[[int, int], None], tasks: int):
        self.work, self.tasks, self.left = work, tasks, set(range(tasks))
        self.seconds = self.megabytes = 0.0

    def start(self, workers: int, is_moment: Callable[[], bool] | None = None) -> bool:
        """Runs the tasks that are left; returns False if they were killed at a moment."""
        waiting, running = sorted(self.left), {}
        while waiting or running:
            while waiting and len(running) < workers:
                task = waiting.pop(0)
                running[self._fork(task, self.tasks)] = task
            if is_moment is not None and is_moment():
                for process in running:
                    os.killpg(process, signal.SIGKILL)
                    os.waitpid(process, 0)
                return False
            process, status, used = os.wait4(-1, os.WNOHANG)
            if process:
                self._ended(status, used)
                self.left.discard(running.pop(process))
            time.sleep(0.02)
        return True

    def finish(self):
        """Runs the step as it is, which finds the shards of the tasks."""
        _, status, used = os.wait4(self._fork(0, 1), 0)
        self._ended(status, used)

    def _fork(self, task: int, tasks: int) -> int:
        if process := os.fork():
            return process
        status = 1
        try:
            os.setsid()  # so that it is killed with its own processes
            self.work(task, tasks)
            status = 0
        finally:
            os._exit(status)

    def _ended(self, status: int, used):
        if status:
            raise SystemExit(f"a task ended with status {os.waitstatus_to_exitcode(status)}.")
        self.seconds += used.ru_utime + used.ru_stime
        self.megabytes = max(self.megabytes, used.ru_maxrss / 1024)


def digest(folder: Path) -> tuple[int, str]:
    """Number of Parquet files of a step, and a hash of their names and content."""
    content, paths = hashlib.sha256(), sorted(folder.rglob("[!.]*.parquet"))
    for path in paths:
        content.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return len(paths), content.hexdigest()


def moment(folder: Path, files: int, delay: float) -> Callable[[], bool]:
    """Whether a folder has a number of Parquet files since `delay` seconds."""
    since = None

    def is_moment() -> bool:
        nonlocal since
        if since is None and len(list(folder.rglob("[!.]*.parquet"))) >= files:
            since = time.perf_counter()
        return since is not None and time.perf_counter() - since >= delay

    return is_moment


def of_people(folder: Path, people: int) -> Path:
    """A folder with links to the recordings of the first people."""
    part = folder.with_name(f"{folder.name}_of_{people}")
    part.mkdir(exist_ok=True)
    for path in folder.iterdir():
        wanted = path.suffix != ".skeleton" or int(path.name[9:12]) <= people
        if wanted and not (part / path.name).exists():
            os.link(path, part / path.name)
    return part


def import_libraries():
    """Imports what the tasks import; none of it computes anything or starts a thread."""
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import action_llm_datasets.load  # noqa: F401
    import action_llm_recipes.stages.token_report  # noqa: F401


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    import_libraries()
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.common import shards

    shards.RECORDINGS_PER_SHARD = arguments.rows_per_shard
    folder, chance = Path(arguments.folder), random.Random(arguments.seed)
    output = folder.with_name(f"{folder.name}_output")
    levels, killed, whole = [], [], {}
    for people in sorted({*arguments.people, arguments.killed_people}):
        source = of_people(folder, people)
        recordings = len(list(source.glob("*.skeleton")))
        shutil.rmtree(output, ignore_errors=True)
        for step, work in steps(arguments, source, output).items():
            run = Run(work, arguments.tasks)
            run.start(1)
            run.finish()
            files, content = digest(output / step)
            if people == arguments.killed_people:
                whole[step] = files, content
            used = {"processor_seconds": round(run.seconds, 1), "megabytes": round(run.megabytes)}
            levels.append({"step": step, "recordings": recordings, "files": files, **used})
            print(levels[-1], flush=True)
    source = of_people(folder, arguments.killed_people)
    for workers in arguments.workers:
        shutil.rmtree(output, ignore_errors=True)
        for step, work in steps(arguments, source, output).items():
            run, kills, files = Run(work, arguments.tasks), 0, []
            for count in sorted(chance.sample(range(whole[step][0] - 1), arguments.kills)):
                kills += not run.start(workers, moment(output / step, count, chance.uniform(0, 2)))
                files.append(digest(output / step)[0])
            run.start(workers)
            run.finish()
            if digest(output / step) != whole[step]:
                raise SystemExit(
                    f"the Parquet files of {step} with {workers} workers differ from those of one worker."
                )
            killed.append({"step": step, "workers": workers, "kills": kills, "files_at_kills": files})
            print(killed[-1], flush=True)
    shutil.rmtree(output)
    recordings = len(list(source.glob("*.skeleton")))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    record = {"machine": machine, "tasks": arguments.tasks, "levels": levels, "killed": killed}
    write_results(arguments.output, record, page(record, recordings, arguments.rows_per_shard))
    return record


def page(record: dict, recordings: int, rows_per_shard: int) -> str:
    """The page of a measurement; `recordings` is the number in the runs that were killed."""
    lines = [
        "# Steps as tasks",
        "",
        f"Simulated recordings, {record['tasks']} tasks with one worker, {rows_per_shard} recordings per Parquet file. "
        f"{record['machine']}, shared with other programs, so times are those of the processor, without importing libraries.",
        "",
        "| step | recordings | Parquet files | processor, s | per recording, ms | largest process, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for level in sorted(record["levels"], key=lambda level: (level["step"], level["recordings"])):
        each = 1000 * level["processor_seconds"] / level["recordings"]
        lines.append(
            f"| `{level['step']}` | {level['recordings']:,} | {level['files']} | {level['processor_seconds']:.0f} | "
            f"{each:.0f} | {level['megabytes']} |"
        )
    lines += [
        "",
        f"All processes of a run on {recordings:,} recordings were killed (`kill -9`) at random moments. After the last start, "
        "all Parquet files had the bytes of the run with one worker that was never killed.",
        "",
        "| step | workers | times killed | Parquet files at these moments |",
        "|---|---:|---:|---|",
    ]
    for result in record["killed"]:
        files = ", ".join(map(str, result["files_at_kills"]))
        lines.append(f"| `{result['step']}` | {result['workers']} | {result['kills']} | {files} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
