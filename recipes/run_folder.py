"""One run, one folder: resolved config, metrics as JSON lines, checkpoints, and the record that pages are made from."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import yaml
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

LIBRARIES = ("torch", "transformers", "datasets", "peft", "trl", "accelerate", "numpy")


def write_atomically(path: Path, text: str):
    """Writes a text file so that a reader, or a run that is killed, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class RunFolder:
    """The folder of a run.

    ```
    config.yaml      every argument as it was resolved: `--config config.yaml` runs it again
    metrics.jsonl    what was logged, a line a time
    checkpoints/     what the run resumes from
    model/           what comes out, ready to load
    record.json      what a model page says of the run: nothing of the machine but its kind
    ```
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.metrics = self.path / "metrics.jsonl"
        self._started = time.monotonic()

    def save_config(self, *arguments):
        """Writes the fields of argument dataclasses that differ from their defaults, as YAML that `--config` reads."""
        config = {}
        for part in arguments:
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
                # What the argument classes fill in by themselves is not what the user asked for.
                if field.init and value != default and isinstance(value, (str, int, float, bool, list, dict)):
                    config[field.name] = value
        write_atomically(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=True))

    def last_checkpoint(self) -> str | None:
        """The checkpoint to go on from, if the run was stopped."""
        return get_last_checkpoint(str(self.checkpoints)) if self.checkpoints.is_dir() else None

    def write_record(self, **fields):
        """Adds fields to record.json, with the libraries, the kind of machine and the time it took."""
        fields.setdefault("seconds", round(time.monotonic() - self._started, 1))
        fields.setdefault("libraries", {name: importlib.metadata.version(name) for name in LIBRARIES})
        fields.setdefault("hardware", describe_hardware())
        write_atomically(
            self.path / "record.json", json.dumps(self.read_record() | fields, indent=2, ensure_ascii=False) + "\n"
        )

    def read_record(self) -> dict:
        """The record so far; empty before the first write."""
        path = self.path / "record.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class JsonLinesCallback(TrainerCallback):
    """Appends what a `Trainer` logs to metrics.jsonl; after a resume, drops what lies behind the checkpoint first."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero or not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= state.global_step] if state.global_step else []
        write_atomically(self.path, "".join(line + "\n" for line in kept))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def describe_hardware() -> str:
    """The kind of machine, without its name: GPUs, or processor architecture and the cores that may be used."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU ({platform.machine()}), {cores} cores"
