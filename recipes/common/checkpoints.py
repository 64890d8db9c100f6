"""Checkpoints of a run: which are undamaged, what resuming needs beside them, and when old ones are removed."""

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import time
import zipfile
from collections import defaultdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import EarlyStoppingCallback, PreTrainedConfig, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_pt_utils import safe_globals

from action_llm.model_files import ModelFileError, as_written, read_json_object, shortened
from action_llm_datasets.endings import DISK, Interrupted, disk_errno, requested

logger = logging.getLogger(__name__)

STATE = "trainer_state.json"
# Bytes from which on a file is memory-mapped to check it.
LARGE = 1 << 30
# Attributes in which `Trainer`, TRL's trainers and `TokenizerTrainer` sum values between log entries, or over the whole run.
SUMS = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged")
SUMS += ("_metrics", "_total_train_tokens", "_terms", "_usage")
# Folders of weights that DeepSpeed and FSDP write; their content is not checked.
SHARDED = ("global_step*", "pytorch_model_fsdp_*", "optimizer_*")


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints in a folder, damaged or not, newest first."""
    steps = [
        (int(match.group(1)), path)
        for path in (folder.iterdir() if folder.is_dir() else [])
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(steps, reverse=True)]


def damage_of(checkpoint: Path) -> str | None:
    """
    What is wrong with a checkpoint, in a few words; None if a run can be resumed from it.

    All files must exist. JSON must parse, safetensors must have the size in their header, and files of torch must match their
    checksums.
    """
    try:
        state = read_json_object(checkpoint / STATE)
        step = TrainerState(**state).global_step
    except FileNotFoundError:
        return f"it has no {STATE}"
    except ModelFileError as error:
        return f"{STATE} holds {error.actual}"
    except TypeError:
        return f"{STATE} has fields that TrainerState lacks"
    # `Trainer` loads it as a configuration of transformers, which raises almost any error.
    if (path := checkpoint / "config.json").is_file():
        try:
            PreTrainedConfig.from_json_file(path)
        except Exception as error:
            return f"{path.name} is not a configuration ({type(error).__name__})"
    counts = (step, state.get("max_steps"), state.get("train_batch_size"))
    if not all(isinstance(count, int) for count in counts) or checkpoint.name != f"checkpoint-{step}":
        return f"{STATE} is of step {step!r}"
    if state["max_steps"] < step:
        return f"{STATE} is of step {step} of {as_written(state['max_steps'])}"
    for name, default in vars(TrainerState()).items():
        if isinstance(default, (bool, int, float, str)):
            expected = (int, float) if type(default) in (int, float) else type(default)
            if not isinstance(state.get(name, default), expected):
                return f"{STATE} has {name}: {as_written(state[name])}"
    if not isinstance(state.get("log_history"), list) or not _are_callbacks(state.get("stateful_callbacks")):
        return f"{STATE} has no log_history or stateful_callbacks"
    sums = list(checkpoint.glob("running_sums_*.pth"))
    # Older versions wrote no sums, so their number of processes is unknown.
    processes = max((int(path.stem.rpartition("_")[2]) for path in sums), default=1)
    if processes > 1:
        names = _process_files("running_sums", processes) + [f"rng_state_{index}.pth" for index in range(processes)]
    elif sums or not (names := [path.name for path in checkpoint.glob("rng_state_*.pth")]):
        names = ["rng_state.pth"]
    torch_files = [*sums, *checkpoint.glob("scaler.pt"), *(checkpoint / name for name in names)]
    if not any(path.is_dir() for pattern in SHARDED for path in checkpoint.glob(pattern)):
        # FSDP with whole states (FULL_STATE_DICT) writes the weights a second time, and the optimiser under another name.
        is_fsdp = (checkpoint / "pytorch_model_fsdp.bin").is_file()
        torch_files += [checkpoint / ("optimizer.bin" if is_fsdp else "optimizer.pt"), checkpoint / "scheduler.pt"]
        if (damage := damage_of_weights(checkpoint)) is not None:
            return damage
    for path in torch_files:
        if (damage := _damage_of_torch_file(path)) is not None:
            return damage
    return None


def _are_callbacks(states) -> bool:
    """Whether a value has the form in which `Trainer` saves the states of callbacks."""
    if not isinstance(states, dict):
        return False
    each = [state for value in states.values() for state in (value if isinstance(value, list) else [value])]
    control = states.get("TrainerControl")
    if isinstance(control, dict) and not {field.name for field in dataclasses.fields(TrainerControl)}.issuperset(
        control.get("args") or {}
    ):
        return False
    return all(
        isinstance(state, dict) and all(isinstance(state.get(name, {}), dict) for name in ("args", "attributes"))
        for state in each
    )


def _process_files(name: str, processes: int) -> list[str]:
    return [f"{name}_{index}_of_{processes}.pth" for index in range(processes)]


def damage_of_weights(folder: Path) -> str | None:
    """What is wrong with the weight files in a folder, in a few words; None if nothing is."""
    names = {path.name for path in folder.glob("*.safetensors")}
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names |= set(read_json_object(index)["weight_map"].values())
        except (ModelFileError, KeyError, AttributeError, TypeError):
            return f"{index.name} cannot be read"
    pickles = [path for path in folder.glob("*.bin") if path.name != "training_args.bin"]
    if not names and not pickles:
        return "it has no weights"
    for name in sorted(names):
        if (damage := _damage_of_safetensors(folder / name)) is not None:
            return damage
    return next(filter(None, map(_damage_of_torch_file, pickles)), None)


def _damage_of_safetensors(path: Path) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length:
            return f"{path.name} is truncated"
    try:
        with safe_open(path, framework="pt"):  # reads the header, and compares it with the size of the file
            return None
    except SafetensorError as error:
        return f"{path.name} is not a safetensors file: {shortened(str(error))}"


def _damage_of_torch_file(path: Path) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # torch does not compress; a compressed member could unpack to gigabytes.
            is_compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            if is_compressed or sum(member.file_size for member in members) > path.stat().st_size:
                return f"{path.name} is not a file of torch"
            broken = archive.testzip()
        if broken is None:
            with safe_globals():  # random states need them
                torch.load(path, map_location="cpu", weights_only=True, mmap=path.stat().st_size > LARGE)
    except Exception as error:  # zipfile and torch raise almost any error for damaged files
        if disk_errno(error):
            raise
        return f"{path.name} is truncated, or not a file of torch"
    return None if broken is None else f"{path.name} is damaged in {broken}"


class Checkpoints(TrainerCallback):
    """
    Writes checkpoints every `save_minutes` beside those of `save_steps`, and after the current step when a signal asks the
    process to stop.

    A checkpoint includes the sums that a `Trainer` keeps between log entries, so a resumed run logs the same values as an
    uninterrupted run. An old checkpoint is removed once a newer one is completely on disk.

    Args:
        run (`RunFolder`): folder of the run.
        trainer (`transformers.Trainer`): that trains.
        resumed_from: the checkpoint that training resumes from, or None.
    """

    def __init__(self, run, trainer, resumed_from: Path | None = None):
        self.run, self.trainer, self.resumed_from = run, trainer, resumed_from
        self.seconds, self.limit = 60 * trainer.args.save_minutes, trainer.args.save_total_limit
        self._saved_step, self._ending, self._sums_are_whole = None, 0, resumed_from is None

    def on_train_begin(self, args, state, control, **kwargs):
        self._saved = time.monotonic()
        self._restore_sums()
        args.save_total_limit = None  # old checkpoints are removed here, not by `Trainer`
        self._save, self.trainer._save_checkpoint = self.trainer._save_checkpoint, self.save
        self._log, self.trainer.log = self.trainer.log, self.log

    def on_train_end(self, args, state, control, **kwargs):
        args.save_total_limit = self.limit
        self.trainer._save_checkpoint, self.trainer.log = self._save, self._log
        for callback in self.trainer.callback_handler.callbacks:
            if not isinstance(callback, EarlyStoppingCallback):
                continue
            if callback.early_stopping_patience_counter >= callback.early_stopping_patience:
                logger.info(
                    "  stopped early at step %d of %d: in %d evaluations, %s was not better than %.4g at step %d",
                    state.global_step,
                    state.max_steps,
                    callback.early_stopping_patience,
                    args.metric_for_best_model,
                    state.best_metric,
                    state.best_global_step,
                )

    def on_step_end(self, args, state, control, **kwargs):
        # The last step of an epoch may be followed by an evaluation, so the check waits for the end of the epoch.
        if state.epoch != int(state.epoch):
            self._check_whether_due(args, state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        self._check_whether_due(args, state, control)

    def _check_whether_due(self, args, state, control):
        if args.save_strategy == "no":
            return
        due = bool(self.seconds) and time.monotonic() - self._saved >= self.seconds
        ending = requested() or 0
        if args.world_size > 1:  # all processes must decide the same
            answer = torch.tensor([int(due), int(ending)], device=args.device)
            torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MAX)
            due, ending = answer.tolist()
        self._ending = ending
        if ending and self._saved_step == state.global_step and not control.should_evaluate:
            self._end(state)
        control.should_save |= bool(due or ending)

    def on_save(self, args, state, control, **kwargs):
        self._saved, self._saved_step = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            self.run.save_elapsed()
        if self._ending:
            self._end(state)

    def _end(self, state):
        raise Interrupted(self._ending, f"after step {state.global_step} of {state.max_steps}, with a checkpoint")

    def save(self, model, trial):
        """Replaces `Trainer._save_checkpoint`: also saves the sums, removes a checkpoint that could not be written completely,
        and removes old checkpoints afterwards."""
        trainer, args, state = self.trainer, self.trainer.args, self.trainer.state
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if args.should_save:
                # Written last, it marks a complete checkpoint.
                (folder / STATE).unlink(missing_ok=True)
            sums = {name: getattr(trainer, name) for name in SUMS if hasattr(trainer, name)}
            torch.save(_plain(sums), folder / self._sums_name())
            self._save(model, trial)
            if args.world_size > 1:
                torch.distributed.barrier()
            if args.should_save:
                for path in filter(Path.is_file, folder.rglob("*")):
                    _flush_to_disk(path)
                if (damage := damage_of(folder)) is not None:
                    raise OSError(f"{folder} was not written completely: {damage}")
        except BaseException as error:
            number = disk_errno(error) or _try_to_write(Path(args.output_dir))
            shutil.rmtree(folder, ignore_errors=True)
            if number and isinstance(error, Exception):
                raise OSError(number, os.strerror(number), str(folder)) from error
            raise
        if args.should_save and self.limit:
            self._remove_old(folder)

    def _remove_old(self, newest: Path):
        # Checkpoints of later steps are damaged: the run resumed from an earlier one.
        checkpoints = checkpoints_of(newest.parent)
        older = checkpoints[checkpoints.index(newest) :]
        kept = older[: self.limit]
        if (best := self.trainer.state.best_model_checkpoint) is not None:
            best = newest.parent / Path(best).name
            if best not in kept:  # the limit includes the best checkpoint
                kept = [*older[: max(1, self.limit - 1)], best]
        for path in checkpoints:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def log(self, logs: dict, *arguments):
        """Replaces `Trainer.log`, whose train_loss would cover only the steps since the run was resumed."""
        if "train_loss" in logs and self._sums_are_whole:
            logs["train_loss"] = self.trainer._total_loss_scalar / max(self.trainer.state.global_step, 0.001)
        self._log(logs, *arguments)

    def log_end(self):
        """Logs the last entry of a training that had finished with the checkpoint, without times."""
        trainer = self.trainer
        self._restore_sums()
        if self._sums_are_whole:
            self._log = trainer.log
            trainer.model.train()
            trainer._total_loss_scalar += trainer._tr_loss.item()
            self.log({"total_flos": trainer.state.total_flos, "train_loss": 0.0})

    def _sums_name(self) -> str:
        args = self.trainer.args
        return _process_files("running_sums", args.world_size)[args.process_index]

    def _restore_sums(self):
        if self.resumed_from is None:
            return
        path = self.resumed_from / self._sums_name()
        if not path.is_file():  # an older version or another number of processes wrote the checkpoint
            return
        # torch.load does not accept "cpu:0", the device of a launch on CPUs.
        sums = _on_device(torch.load(path, map_location="cpu", weights_only=True), self.trainer.args.device)
        for name, value in sums.items():
            if name not in SUMS:
                continue
            if name == "_metrics":
                value = {mode: defaultdict(list, lists) for mode, lists in value.items()}
            setattr(self.trainer, name, value)
        self._sums_are_whole = True


def _plain(value):
    """A value with only the types that `torch.load(weights_only=True)` accepts."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value.detach() if isinstance(value, torch.Tensor) else value


def _on_device(value, device: torch.device):
    if isinstance(value, dict):
        return {name: _on_device(item, device) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_device(item, device) for item in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _flush_to_disk(path: Path):
    # A network file system reports an exceeded quota only now.
    with open(path, "r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def _try_to_write(folder: Path) -> int | None:
    """The error number of writing a megabyte if the disk is full, over quota or read-only, else None. torch's own writer does
    not say why it failed."""
    path = folder / f".probe.{os.getpid()}"
    try:
        with open(path, "wb") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in DISK else None
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    return None
