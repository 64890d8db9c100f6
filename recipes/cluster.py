"""
Run a step that writes shards as many tasks, on one machine or a cluster, with datatrove.

```bash
python recipes/cluster.py --executor local --tasks 8 --workers 2 encode_actions \\
    --tokenizer runs/ntu60/tokenizer/model --dataset ntu60-xsub --data_dir NTU/skeletons --output_dir runs/ntu60/sentences
python recipes/cluster.py --executor slurm --tasks 512 --workers 64 --partition cpu --time 4:00:00 encode_actions ...
python recipes/cluster.py --executor ray --tasks 64 encode_actions ...
```

The options of `cluster.py` come first, then the step and its own command line. A task writes its share of the shards; the last
one, which is the step as it runs on a single machine, finds them and finishes the run. The output has the same bytes whatever
the number of tasks and workers. Tasks that have ended are not run again: run the same command again after an interruption.

With Slurm, the command submits an array of jobs, and a job after them that finishes the run, and ends. Output and recordings
are on a disk that all machines share, and so is the cache of the prepared data set (`--cache_dir` of the step). The logs, and
datatrove's list of the tasks that have ended, are in OUTPUT/.tasks.

Needs the extra `cluster`: `pip install -e '.[cluster]'`, and for Ray `pip install ray`.
"""

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path

from action_llm_recipes.common.launching import CommandParser, launch_command
from action_llm_recipes.common.tasks import Task, run_command

logger = logging.getLogger(__name__)

# Step → its command, and the option that names its output.
STEPS = {
    "pose": ("action_llm_datasets.pose:main", "--output"),
    "prepare": ("action_llm_datasets.prepare:main", "--output"),
    "extract_features": ("action_llm_recipes.extract_features:cli", "--output_dir"),
    "encode_actions": ("action_llm_recipes.encode_actions:cli", "--output_dir"),
}


def main():
    arguments = parse_arguments()
    command, option = STEPS[arguments.step]
    output = output_of(arguments.options, option)
    if output is None:
        raise ValueError(f"{arguments.step}: set {option} on the command line; logs of the tasks are written there.")
    task = Task(command, arguments.options)
    if arguments.executor == "slurm":
        submit(arguments, task, Path(output))
        return
    run_tasks(arguments, task, Path(output))
    run_command(command, arguments.options)


def parse_arguments() -> argparse.Namespace:
    parser = CommandParser(
        description="Run a step that writes shards as many tasks, on one machine or a cluster, with datatrove.",
        usage="%(prog)s --executor local|slurm|ray --tasks N [options] STEP [options of the step]",
        allow_abbrev=False,
    )
    parser.add_argument("--executor", choices=("local", "slurm", "ray"), required=True, help="where the tasks run")
    parser.add_argument("--tasks", type=int, required=True, help="number of tasks; a task writes every TASKS-th shard")
    parser.add_argument(
        "--workers",
        type=int,
        default=-1,
        help="number of tasks that run at the same time (default: as many as there are)",
    )
    parser.add_argument("--cpus_per_task", type=int, default=1, help="CPUs of a task, with slurm and ray (default 1)")
    parser.add_argument("--gpus_per_task", type=int, default=0, help="GPUs of a task, with slurm and ray (default 0)")
    parser.add_argument(
        "--mem_per_cpu_gb", type=int, default=4, help="memory of each CPU in GB, with slurm and ray (default 4)"
    )
    parser.add_argument("--partition", help="partition of Slurm")
    parser.add_argument("--time", help="time limit of a task with Slurm, such as 4:00:00")
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a further option of sbatch, such as account=me; can be repeated",
    )
    parser.add_argument("step", choices=STEPS, help="the step")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="its command line")
    arguments = parser.parse_args()
    if arguments.tasks < 1 or (arguments.workers < 1 and arguments.workers != -1):
        parser.error(f"--tasks {arguments.tasks} --workers {arguments.workers}: expected numbers from 1.")
    if arguments.executor == "slurm" and not (arguments.partition and arguments.time):
        parser.error("--executor slurm: expected --partition and --time.")
    if wrong := [entry for entry in arguments.sbatch if "=" not in entry]:
        parser.error(f"--sbatch: expected KEY=VALUE, got {wrong[0]}.")
    return arguments


def output_of(words: list[str], option: str) -> str | None:
    """The value of an option on a command line."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument(option, dest="output")
    return reader.parse_known_args(words)[0].output


def executor_of(name: str):
    """The class of datatrove's executor: "local", "slurm" or "ray"."""
    try:
        from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    except ImportError as error:
        raise SystemExit("cluster.py needs datatrove: pip install -e '.[cluster]'") from error
    return {"local": LocalPipelineExecutor, "slurm": SlurmPipelineExecutor, "ray": RayPipelineExecutor}[name]


def logs_of(output: Path, part: int | str) -> str:
    """The folder of datatrove's logs of PART: a number of tasks, as other numbers have other shares, or the end of the run."""
    return str((output / ".tasks" / str(part)).resolve())


def run_tasks(arguments: argparse.Namespace, task: Task, output: Path):
    """
    Runs the tasks here, or in the Ray cluster, and waits for them.

    Raises:
        ValueError: if a task has not ended.
    """
    resources = {}
    workers = min(arguments.tasks, arguments.tasks if arguments.workers == -1 else arguments.workers)
    executor_class = executor_of(arguments.executor)
    if arguments.executor == "ray":
        import ray

        ray.init()  # the cluster of RAY_ADDRESS, or this machine
        resources = {name: getattr(arguments, name) for name in ("cpus_per_task", "gpus_per_task", "mem_per_cpu_gb")}
    else:  # as accelerate does: otherwise every task would start a thread for each core
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    logs = logs_of(output, arguments.tasks)
    executor = executor_class([task], tasks=arguments.tasks, workers=workers, logging_dir=logs, **resources)
    executor.run()
    if unfinished := executor.get_incomplete_ranks(skip_completed=True):
        raise ValueError(
            f"{len(unfinished)} of {arguments.tasks} tasks did not end, such as task {unfinished[0]}: see {logs}, and run the "
            "same command again."
        )


def submit(arguments: argparse.Namespace, task: Task, output: Path):
    """Submits the tasks to Slurm, and a job after them that finishes the run."""
    environment = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"

    def job(name: str, tasks: int, logs: str, **options):
        return executor_of("slurm")(
            [task],
            tasks=tasks,
            job_name=name,
            logging_dir=logs,
            time=arguments.time,
            partition=arguments.partition,
            cpus_per_task=arguments.cpus_per_task,
            gpus_per_task=arguments.gpus_per_task,
            mem_per_cpu_gb=arguments.mem_per_cpu_gb,
            qos=None,
            env_command=environment,
            sbatch_args=dict(entry.split("=", 1) for entry in arguments.sbatch),
            **options,
        )

    array = job(arguments.step, arguments.tasks, logs_of(output, arguments.tasks), workers=arguments.workers)
    job(f"{arguments.step}_finish", 1, logs_of(output, "finish"), depends=array).run()
    logger.info("Submitted to Slurm. Logs: %s", output / ".tasks")


def cli():
    """The command `action-llm-cluster`."""
    launch_command(main)


if __name__ == "__main__":
    cli()
