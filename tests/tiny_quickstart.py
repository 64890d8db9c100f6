"""The quickstart with as little of everything as it can have."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest


class QuickstartRun(NamedTuple):
    """A finished run: its arguments, which name the folder, and what it returned."""

    arguments: object
    summary: dict

    @property
    def folder(self) -> Path:
        return Path(self.arguments.output_dir)


def shrink(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """For a run in `folder`; the small language model is kept beside it."""
    from action_llm_recipes import quickstart

    patch.setattr("huggingface_hub.constants.HF_HOME", str(folder.parent / "hub"))
    patch.setattr(quickstart, "ACTIONS", (6, 50))
    patch.setattr(quickstart, "PASSAGES", 60)
    patch.setattr(quickstart, "ENCODINGS", 2)
    for name, settings in (
        ("TOKENIZER", {"hidden_width": 8, "codebook_size": 16}),
        ("TOKENIZER_TRAINING", {"max_steps": 2, "per_device_train_batch_size": 4, "lr_drop_step": 2}),
        ("LORA", {"lora_r": 2}),
        ("LORA_TRAINING", {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1}),
    ):
        patch.setattr(quickstart, name, {**getattr(quickstart, name), **settings})
    # More processes would start for longer than they work.
    patch.setattr(os, "cpu_count", lambda: 1)


def run(folder: Path) -> QuickstartRun:
    from action_llm_recipes import quickstart

    arguments = quickstart.QuickstartArguments(output_dir=str(folder), performers=3, processes=1)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, folder)
        return QuickstartRun(arguments, quickstart.main(arguments))
