"""The folder of a run: its settings, metrics, checkpoints, model, and the record that model pages are written from."""

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
from action_llm_recipes.common.launching import HARMLESS, renamed
from action_llm_recipes.common.records import read_record

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "transformers", "datasets", "peft", "trl", "accelerate", "numpy")


@atexit.register
def leave_process_group():
    """Destroys the process group of a launch: Python may abort at exit while its threads are running."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class RunFolder:
    """
    The folder of a run, which is created if it does not exist.

    ```
    config.yaml          arguments that differ from their defaults; `--config config.yaml` repeats the run
    identity.json        fingerprints of its inputs
    metrics.jsonl        a line per log entry
    checkpoints/         from which the run is resumed
    elapsed.json         seconds that the run took until its last checkpoint
    model/               the trained model, ready to load
    record.json          what a model page says of the run; of the machine, only the hardware
    split_evidence.json  hashes of the training, held-out and test recordings of this stage and earlier ones
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
                logger.warning("%s is damaged: the time before the last start is not counted", self._elapsed)

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, including earlier starts until their last checkpoint."""
        return self._before + time.monotonic() - self._started

    def save_elapsed(self):
        """Saves the seconds that the run has taken, for the next start."""
        write_atomically(self._elapsed, json.dumps({"seconds": round(self.seconds, 1)}) + "\n")

    def save_config(self, *arguments):
        """
        Writes config.yaml: the fields of argument dataclasses that differ from their defaults.

        Raises:
            ValueError: if the folder holds a run with other settings, or its config.yaml is damaged.
        """
        config, defaults = {}, {}
        for part in arguments:
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
                # transformers converts some texts to enumerations, or to lists, which are empty for the default.
                value, default = getattr(value, "value", value), getattr(default, "value", default)
                if isinstance(value, list) and isinstance(default, str):
                    value = " ".join(getattr(item, "value", item) for item in value) or default
                defaults[field.name] = None if default is dataclasses.MISSING else default
                # Values of other types were filled in by the argument class, not set by the user.
                if (
                    field.init
                    and value != default
                    and isinstance(value, (str, int, float, bool, list, dict, type(None)))
                ):
                    config[field.name] = value
        path = self.path / "config.yaml"
        if path.is_file() and (self.finished or self.last_checkpoint() is not None):
            before = renamed(list(map(type, arguments)), self._read_config())
            now = yaml.safe_load(yaml.safe_dump(config))  # as it is read back: YAML has no tuples
            if differing := [name for name in sorted({*before, *now} - HARMLESS) if before.get(name) != now.get(name)]:
                differences = ", ".join(
                    f"{as_written(name) if name not in defaults else name}: "
                    f"{as_written(before.get(name, defaults.get(name)))}, now "
                    f"{as_written(now.get(name, defaults.get(name)))}"
                    for name in differing
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
            reason = f"expected names and values of settings, found {type(config).__name__}"
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}, which holds the settings of the run, is damaged ({reason}): delete {self.path}, or choose another "
            "--output_dir."
        )

    def check_identity(self, identity: dict):
        """
        Saves fingerprints of the inputs of the run, and compares them with those of an earlier start.

        Args:
            identity: name of an input → its fingerprint, or other JSON.

        Raises:
            ValueError: if an input has changed since; names the inputs.
        """
        path = self.path / "identity.json"
        if path.is_file():
            try:
                before = read_json_object(path)
            except ModelFileError as error:
                raise ValueError(
                    f"{error}; the file holds the inputs of the run: delete {self.path}, or choose another --output_dir."
                ) from error
            changed = sorted(name for name in {*before, *identity} if before.get(name) != identity.get(name))
            if changed:
                raise ValueError(
                    f"{path}: the run was made with other {', '.join(changed)}: choose another --output_dir."
                )
        else:
            write_atomically(path, json.dumps(identity, indent=2) + "\n")

    @property
    def finished(self) -> bool:
        """Whether the run has finished; it writes its record last."""
        return self.has_record(self.path)

    @staticmethod
    def has_record(path: Path) -> bool:
        """Whether the run in a folder has finished. Does not create the folder."""
        return _read_record(path) is not None

    def last_checkpoint(self) -> Path | None:
        """The newest undamaged checkpoint, or None."""
        return next((path for path in checkpoints_of(self.checkpoints) if damage_of(path) is None), None)

    def _choose_checkpoint(self, trainer) -> Path | None:
        """The checkpoint to resume from, the same in all processes, or None. Logs why newer checkpoints are not used."""
        chosen, problems = None, {}
        for path in checkpoints_of(self.checkpoints):
            damage = damage_of(path)
            if damage is None and trainer.args.load_best_model_at_end and (best := self._best_of(path)) is not None:
                damage = damage_of_weights(best)
                damage = damage and f"its best checkpoint is {best.name}, and {damage}"
            if damage is None:
                chosen = path
                break
            problems[path] = damage
        step = 0 if chosen is None else int(chosen.name.rpartition("-")[2])
        step = int(from_first_rank(torch.tensor(step, device=trainer.args.device)))
        chosen = self.checkpoints / f"checkpoint-{step}" if step else None
        where = "training starts again" if chosen is None else f"training resumes from {chosen.name}"
        for path, damage in problems.items():
            logger.warning("%s cannot be resumed (%s): %s", path, damage, where)
        return chosen

    def _best_of(self, checkpoint: Path) -> Path | None:
        best = read_json_object(checkpoint / STATE).get("best_model_checkpoint")
        return None if best is None else self.checkpoints / Path(best).name

    def configure(self, training):
        """Sets the folder of the checkpoints in training arguments, and pins memory only if there is a GPU."""
        training.output_dir = str(self.checkpoints)
        training.dataloader_pin_memory &= torch.cuda.is_available()

    def begin_training(self, training, identity: dict) -> bool:
        """
        Begins or resumes a training, after `save_config`: checks the inputs of the run and configures the training arguments.

        Args:
            training: training arguments.
            identity: fingerprints of the inputs (`check_identity`).

        Returns:
            Whether there is anything to do: `False`, with a line in the log, if the run has finished.
        """
        if training.process_index == 0:
            self.check_identity(identity)
        if self.finished:
            logger.info("%s is finished", self.path)
            return False
        self.configure(training)
        return True

    def train(self, trainer, what: str):
        """
        Trains from the start or from the last checkpoint. If training had finished, at the last step or by early stopping, the
        trained weights are loaded.

        Args:
            trainer (`transformers.Trainer`): ready to train.
            what: name of the model in the progress.
        """
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
        trainer.add_callback(TrainingProgress(what))
        checkpoint = self._choose_checkpoint(trainer)
        checkpoints = Checkpoints(self, trainer, checkpoint)
        trainer.add_callback(checkpoints)
        # Otherwise the patience of early stopping would start from zero after each resume.
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
            logger.info("Resuming from step %d of %d", state.global_step, state.max_steps)
        else:
            self._before = 0.0
        notice = "Stopping after this step, with a checkpoint. A second signal stops at once."
        try:
            with deferring(notice) if trainer.args.save_strategy != "no" else contextlib.nullcontext():
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except RuntimeError as error:
            if requested():  # the signal also ended a worker of the data loader
                raise Interrupted(requested()) from error
            raise

    def _has_last_metrics(self, step: int) -> bool:
        """Whether metrics.jsonl has the last line of a training. Lines that a kill left unfinished are dropped."""
        lines = read_metrics(self.metrics, step)
        write_atomically(self.metrics, "".join(f"{json.dumps(line)}\n" for line in lines))
        return any("train_loss" in line for line in lines)

    def write_record(self, evidence=None, **fields):
        """
        Adds fields to record.json, in this folder and beside the model. The version, libraries, hardware and seconds are filled
        in.

        Args:
            evidence (`SplitEvidence`): of the recordings of the stage, which is saved beside the record.
            **fields: JSON values; NaN becomes null.
        """
        # A stage that finds its work done takes less time than the work took.
        record = self.read_record()
        fields.setdefault("seconds", max(round(self.seconds, 1), record.get("seconds", 0.0)))
        fields.setdefault("version", __version__)
        fields.setdefault("libraries", {name: importlib.metadata.version(name) for name in LIBRARIES})
        fields.setdefault("hardware", describe_hardware())
        for weights in self.path.rglob("*.safetensors"):
            share_weights(weights.parent)
        if evidence is not None:
            fields["split_evidence"] = evidence.describe()
            for folder in (self.path, *([self.model] if self.model.is_dir() else [])):
                evidence.save(folder)
        record = without_nan(record | fields)
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # The page of a model is written from the record, so the model has a copy.
        if self.model.is_dir():
            write_atomically(self.model / "record.json", text)
        write_atomically(self.path / "record.json", text)

    def log_finished(self, stage: str, *facts: str):
        """Logs that the stage is finished, its time, and the facts that a user wants to know."""
        finished(stage, self.seconds, *facts)

    def read_record(self) -> dict:
        """The record so far; empty before the first write, and if the file is damaged."""
        return _read_record(self.path) or {}


def _read_record(folder: Path) -> dict | None:
    try:
        return read_record(folder / "record.json")
    except FileNotFoundError:
        return None
    except ModelFileError as error:
        logger.warning("%s; the file is written again", error)
        return None


class JsonLinesCallback(TrainerCallback):
    """Appends what a `Trainer` logs to metrics.jsonl. A resumed run first drops the lines after its checkpoint."""

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
    """The lines of metrics.jsonl up to and including a step. Lines that a kill left unfinished are skipped."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
            line = json.loads(text)
            if line["step"] <= last_step:
                lines.append(line)
    return lines


class TrainingProgress(TrainerCallback):
    """Shows `Progress` in place of the numbers that `Trainer` prints, which are in metrics.jsonl."""

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
    """Whether early stopping ended the training at this state of a checkpoint."""
    callback = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if callback is None:
        return False
    waited = callback["attributes"]["early_stopping_patience_counter"]
    return waited >= callback["args"]["early_stopping_patience"]


def without_nan(value):
    """A JSON value with None in place of NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_hardware() -> str:
    """The hardware: GPUs, or else the processor architecture and the number of usable cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"CPU ({platform.machine()}), {cores} cores"
