"""
Tasks: a command that writes shards, cut into shares that any scheduler can run. `cluster.py` runs them with datatrove.

```bash
python recipes/encode_actions.py ... --task 0 --tasks 2      # on one machine
python recipes/encode_actions.py ... --task 1 --tasks 2      # on another
python recipes/encode_actions.py ...                         # finds all shards, and writes the record
```
"""

import importlib
import logging
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from action_llm_datasets.task_shares import TASK_HELP, TASKS_HELP, check_task
from action_llm_datasets.worker_processes import in_processes

if TYPE_CHECKING:
    from action_llm_recipes.common.shards import SplitShards

logger = logging.getLogger(__name__)


@dataclass
class TaskArguments:
    """One of several tasks that share the shards."""

    task: int = field(default=0, metadata={"help": TASK_HELP})
    tasks: int = field(default=1, metadata={"help": TASKS_HELP})

    def __post_init__(self):
        check_task(self.task, self.tasks)

    @property
    def is_whole(self) -> bool:
        """Whether the run has a single task, which also finishes it."""
        return self.tasks == 1

    def share(self, state) -> tuple[int, int]:
        """The share of a process, and the number of shares.

        Args:
            state (`accelerate.PartialState`): of the processes of this task.
        """
        return self.task + self.tasks * state.process_index, self.tasks * state.num_processes

    def log(self, shards: "Collection[SplitShards]"):
        """Logs which shards of the splits this task has written, and the recordings that it skipped."""
        rows = [len(split.rows[path]) for split in shards for path in split.of_share(self.task, self.tasks)]
        skipped = [entry for split in shards for entry in split.notes("skipped", self.task, self.tasks)]
        for entry in skipped:
            logger.warning("skipped %s: %s", entry["sample_id"], entry["reason"])
        counts = f"{len(rows)} shards with {sum(rows):,} rows, {len(skipped)} recordings skipped"
        logger.info("Task %d of %d: %s", self.task, self.tasks, counts)


@dataclass
class Task:
    """
    A step for datatrove: called with a rank and the number of tasks, it runs that task of a command. A single task is the whole
    command, which also finishes the run.

    Args:
        command: `module:function`, which reads the command line.
        words: the command line, without the name of the command.
    """

    command: str
    words: list[str]

    def __call__(self, data, rank: int, world_size: int):
        share = ["--task", str(rank), "--tasks", str(world_size)] if world_size > 1 else []
        # A process of its own: its memory is freed, and if it is killed, datatrove hears of it.
        with in_processes(_run, [(self.command, [*self.words, *share])], 1, apart=True) as results:
            list(results)


def run_command(command: str, words: list[str]):
    """Runs a command (`module:function`) with a command line in this process."""
    module, _, function = command.partition(":")
    sys.argv = [module.rpartition(".")[2], *words]
    getattr(importlib.import_module(module), function)()


def _run(job: tuple[str, list[str]]):
    try:
        run_command(*job)
    except SystemExit as end:
        if end.code:  # it has said why; datatrove would take SystemExit for the end of its own process
            raise RuntimeError(
                f"{' '.join(sys.argv)}: ended with status {end.code}; the reason is in its output"
            ) from None
