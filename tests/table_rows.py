"""Rows of the papers' tables, run in the process of the test."""

from action_llm_recipes import run_line
from action_llm_recipes.common.launching import parse


def run_here(run, cache: str) -> dict:
    """Runs a row as `execution.run_rows` does in a process of its own; returns its metrics."""
    run.share_stages()
    return run_line.main(*parse(run_line.ARGUMENTS, [*run.command_line(), "--cache_dir", cache]))
