"""One run, one folder: resolved config, metrics as JSON lines, checkpoints, and the record that pages are made from."""

import atexit
import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import math
import os
import platform
import time
from pathlib import Path

import torch
import yaml
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, TrainerCallback, TrainerState

from action_llm import __version__
from action_llm.collectives import from_first_rank
from action_llm.model_files import ModelFileError, as_written, read_json_object, shortened
from action_llm.saved_weights import share_weights
from action_llm_datasets.atomic_files import write_atomically
from action_llm_datasets.endings import Interrupted, deferring, requested
from action_llm_datasets.progress import Progress, finished
from action_llm_recipes.common.checkpoints import STATE, Checkpoints, checkpoints_of, damage_of, damage_of_weights
from action_llm_recipes.common.launching import renamed
from action_llm_recipes.common.records import read_record

logger = logging.getLogger(__name__)

# Settings that do not change what comes out: a run may be gone on with under others.
HARMLESS = {
    "cache_dir",
    "data_dir",
    "dataloader_num_workers",
    "disable_tqdm",
    "logging_steps",
    # Of baselines/run_baselines.py: what is there is kept, what is missing is added.
    "methods",
    "num_proc",
    "output_dir",
    "report_to",
    "resamples",
    "save_minutes",
    "save_steps",
    "save_total_limit",
    "seeds",
}

LIBRARIES = ("torch", "transformers", "datasets", "peft", "trl", "accelerate", "numpy")


@atexit.register
def leave_process_group():
    """Ends the group of processes of a launch: a process that ends Python with its threads running may abort there."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class RunFolder:
    """The folder of a run.

    ```
    config.yaml      every argument that is not at its default: `--config config.yaml` runs it again
    identity.json    what it was made of, where that is more than its arguments
    metrics.jsonl    what was logged, a line a time
    checkpoints/     what the run resumes from
    elapsed.json     how long it took until the last of them
    model/           what comes out, ready to load
    record.json      what a model page says of the run: nothing of the machine but its kind
    split_evidence.json  hashes of its training, held-out and test recordings, and of those of the stages before
    ```
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.metrics = self.path / "metrics.jsonl"
        self._started = time.monotonic()
        self._elapsed = self.path / "elapsed.json"
        self._before = 0.0
        if self._elapsed.is_file():
            try:
                self._before = float(read_json_object(self._elapsed)["seconds"])
            except (ValueError, KeyError, TypeError):
                logger.warning("%s is damaged: the time of earlier starts is not counted", self._elapsed)

    @property
    def seconds(self) -> float:
        """How long the run has taken, with what earlier starts of it took until their last checkpoint."""
        return self._before + time.monotonic() - self._started

    def save_elapsed(self):
        """Remembers how long the run has taken, for the next start of it."""
        write_atomically(self._elapsed, json.dumps({"seconds": round(self.seconds, 1)}) + "\n")

    def save_config(self, *arguments):
        """Writes the fields of argument dataclasses that differ from their defaults, as YAML that `--config` reads.

        Raises:
            `ValueError`: if the folder holds a run with other settings.
        """
        config, defaults = {}, {}
        for part in arguments:
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
                # transformers makes enumerations of some texts.
                value, default = getattr(value, "value", value), getattr(default, "value", default)
                defaults[field.name] = None if default is dataclasses.MISSING else default
                # What the argument classes fill in by themselves is not what the user asked for.
                if (
                    field.init
                    and value != default
                    and isinstance(value, (str, int, float, bool, list, dict, type(None)))
                ):
                    config[field.name] = value
        path = self.path / "config.yaml"
        if path.is_file() and (self.finished or self.last_checkpoint() is not None):
            # As it would be read back: a tuple is a list in YAML.
            found, wanted = (
                renamed(list(map(type, arguments)), self._read_config()),
                yaml.safe_load(yaml.safe_dump(config)),
            )
            other = [n for n in sorted({*found, *wanted} - HARMLESS) if found.get(n) != wanted.get(n)]
            if other:
                differences = ", ".join(
                    f"{as_written(name) if name not in defaults else name}: "
                    f"{as_written(found.get(name, defaults.get(name)))}, now "
                    f"{as_written(wanted.get(name, defaults.get(name)))}"
                    for name in other
                )
                raise ValueError(
                    f"{path} is of a run with other settings ({shortened(differences, 300)}): choose another --output_dir."
                )
        write_atomically(path, yaml.safe_dump(config, sort_keys=True))

    def _read_config(self) -> dict:
        path = self.path / "config.yaml"
        try:
            config = yaml.safe_load(path.read_bytes())
            if isinstance(config, dict) and all(isinstance(name, str) for name in config):
                return config
            reason = f"expected names of settings and their values, found {type(config).__name__}"
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is damaged ({reason}), and says what settings the run has: delete {self.path}, or choose another "
            "--output_dir."
        )

    def check_identity(self, identity: dict):
        """Remembers what the run is made of; a run of the same arguments on other data is not gone on with.

        Raises:
            `ValueError`: if the folder was made of something else; names what differs.
        """
        path = self.path / "identity.json"
        if path.is_file():
            try:
                found = read_json_object(path)
            except ModelFileError as error:
                raise ValueError(
                    f"{error}; the file says what the run is made of: delete {self.path}, or choose another --output_dir."
                ) from error
            different = sorted(name for name in {*found, *identity} if found.get(name) != identity.get(name))
            if different:
                raise ValueError(
                    f"{path}: the run was made with other {', '.join(different)}: choose another --output_dir."
                )
        write_atomically(path, json.dumps(identity, indent=2) + "\n")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: its record is the last thing it writes."""
        return self.has_record(self.path)

    @staticmethod
    def has_record(path: Path) -> bool:
        """Whether the run in a folder came to its end, so that its record can be read; makes no folder."""
        return _read_record(path) is not None

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that is whole, if there is one."""
        return next((path for path in checkpoints_of(self.checkpoints) if damage_of(path) is None), None)

    def _choose_checkpoint(self, trainer) -> Path | None:
        """The checkpoint to go on from, the same on all processes; says which newer ones cannot be used, and why."""
        chosen, problems = None, {}
        for path in checkpoints_of(self.checkpoints):
            damage = damage_of(path)
            if damage is None and trainer.args.load_best_model_at_end and (best := self._best_of(path)) is not None:
                damage = damage_of_weights(best)
                damage = damage and f"its best step is that of {best.name}, of which {damage}"
            if damage is None:
                chosen = path
                break
            problems[path] = damage
        step = 0 if chosen is None else int(chosen.name.rpartition("-")[2])
        step = int(from_first_rank(torch.tensor(step, device=trainer.args.device)))
        chosen = self.checkpoints / f"checkpoint-{step}" if step else None
        where = "the training begins anew" if chosen is None else f"the training goes on from {chosen.name}"
        for path, damage in problems.items():
            logger.warning("%s cannot be resumed (%s): %s", path, damage, where)
        return chosen

    def _best_of(self, checkpoint: Path) -> Path | None:
        best = read_json_object(checkpoint / STATE).get("best_model_checkpoint")
        return None if best is None else self.checkpoints / Path(best).name

    def configure(self, training):
        """Sets what follows from the folder and the machine: where checkpoints go; memory is pinned only for a GPU."""
        training.output_dir = str(self.checkpoints)
        training.dataloader_pin_memory &= torch.cuda.is_available()

    def train(self, trainer, what: str):
        """Trains from the start or from the last checkpoint; a training that had ended, at its last step or by early
        stopping, is only loaded.

        Args:
            trainer (`transformers.Trainer`): ready to train.
            what: is trained, as progress names it.
        """
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        trainer.add_callback(TrainingProgress(what))
        checkpoint = self._choose_checkpoint(trainer)
        checkpoints = Checkpoints(self, trainer, checkpoint)
        trainer.add_callback(checkpoints)
        # Otherwise the patience of early stopping starts anew with each resume.
        trainer.args.restore_callback_states_from_checkpoint = True
        if checkpoint is not None:
            state = TrainerState.load_from_json(checkpoint / STATE)
            if state.global_step >= state.max_steps or has_stopped_early(state):
                best = self._best_of(checkpoint) if trainer.args.load_best_model_at_end else None
                trainer._load_from_checkpoint(str(best or checkpoint))
                trainer.state = state
                if trainer.is_world_process_zero() and not self._has_last_metrics(state.global_step):
                    checkpoints.log_end()
                return
            logger.info("Going on from step %d of %d", state.global_step, state.max_steps)
        else:
            self._before = 0.0
        notice = "Stopping at the end of this step, with a checkpoint; a second signal stops at once."
        try:
            with deferring(notice) if trainer.args.save_strategy != "no" else contextlib.nullcontext():
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except RuntimeError as error:
            if requested():  # it took a worker of the data, too
                raise Interrupted(requested()) from error
            raise

    def _has_last_metrics(self, step: int) -> bool:
        """Whether the log has the line of the end of the training; a line that a kill has left half is dropped."""
        lines = read_metrics(self.metrics, step)
        write_atomically(self.metrics, "".join(f"{json.dumps(line)}\n" for line in lines))
        return any("train_loss" in line for line in lines)

    def write_record(self, evidence=None, **fields):
        """Adds fields to record.json, here and beside the model: version, libraries, kind of machine and time are filled in.

        Args:
            evidence (`SplitEvidence`): of the recordings of the stage, which goes beside the record.
        """
        fields.setdefault("seconds", round(self.seconds, 1))
        fields.setdefault("version", __version__)
        fields.setdefault("libraries", {name: importlib.metadata.version(name) for name in LIBRARIES})
        fields.setdefault("hardware", describe_hardware())
        for weights in self.path.rglob("*.safetensors"):
            share_weights(weights.parent)
        if evidence is not None:
            fields["split_evidence"] = evidence.describe()
            for folder in (self.path, *([self.model] if self.model.is_dir() else [])):
                evidence.save(folder)
        record = without_nan(self.read_record() | fields)
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # The page of a model is made from its record, so the record goes with the model.
        if self.model.is_dir():
            write_atomically(self.model / "record.json", text)
        write_atomically(self.path / "record.json", text)

    def log_finished(self, stage: str, *facts: str):
        """Says that the stage is done, in how much time, and the facts of it that a person asks for."""
        finished(stage, self.seconds, *facts)

    def read_record(self) -> dict:
        """The record so far; empty before the first write, and where the file is damaged: the run's end is made again."""
        return _read_record(self.path) or {}


def _read_record(folder: Path) -> dict | None:
    try:
        return read_record(folder / "record.json")
    except FileNotFoundError:
        return None
    except ModelFileError as error:
        logger.warning("%s; it is made again", error)
        return None


class JsonLinesCallback(TrainerCallback):
    """Appends what a `Trainer` logs to metrics.jsonl; after a resume, drops what lies behind the checkpoint first."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero or not self.path.is_file():
            return
        kept = read_metrics(self.path, state.global_step) if state.global_step else []
        write_atomically(self.path, "".join(f"{json.dumps(line)}\n" for line in kept))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def read_metrics(path: Path, last_step: int) -> list[dict]:
    """The lines of metrics.jsonl until a step, that one too; a line that cannot be read, as a kill leaves one, is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
            line = json.loads(text)
            if line["step"] <= last_step:
                lines.append(line)
    return lines


class TrainingProgress(TrainerCallback):
    """Bar or lines of `Progress`, in place of the numbers that `Trainer` prints: metrics.jsonl has them."""

    def __init__(self, what: str):
        self.what, self.note = what, ""

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress = Progress(self.what, state.max_steps, done=state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            self.note = f"loss {logs['loss']:.3g}"

    def on_step_end(self, args, state, control, **kwargs):
        self.progress.update(state.global_step - self.progress.done, self.note)

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.close()


def has_stopped_early(state: TrainerState) -> bool:
    """Whether a checkpoint is the one at which early stopping ended the training."""
    callback = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if callback is None:
        return False
    waited = callback["attributes"]["early_stopping_patience_counter"]
    return waited >= callback["args"]["early_stopping_patience"]


def without_nan(value):
    """JSON has no NaN: what is not a number is null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_hardware() -> str:
    """The kind of machine, without its name: GPUs, or processor architecture and the cores that may be used."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU ({platform.machine()}), {cores} cores"
