"""Tasks that share the work of a command: their options."""

import argparse

TASK_HELP = "number of this task, from 0; it does every TASKS-th part of the work"
TASKS_HELP = (
    "number of tasks that share the work. When all have ended, the same command without --task and --tasks finishes it "
    "(action-llm-cluster does all this)"
)


def check_task(task: int, tasks: int) -> None:
    """Raises `ValueError` unless there can be such a task."""
    if not 0 <= task < tasks:
        raise ValueError(
            f"--task {task} --tasks {tasks}: expected a number of tasks from 1, and a task from 0 to that number less 1."
        )


def add_task_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", type=int, default=0, help=f"{TASK_HELP} (default: 0)")
    parser.add_argument("--tasks", type=int, default=1, help=f"{TASKS_HELP} (default: 1)")
