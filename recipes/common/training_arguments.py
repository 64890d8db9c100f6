"""Arguments of every trainer beside those of transformers."""

import logging
from dataclasses import dataclass, field

from action_llm_recipes.common.launching import LazyArguments
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.without_gpu import fit_training

logger = logging.getLogger(__name__)


@dataclass
class RunTrainingArguments(LazyArguments):
    """Base of the arguments of trainers. Subclasses name the class to extend: `base="transformers.TrainingArguments"`."""

    save_minutes: float = field(
        default=10,
        metadata={"help": "minutes between checkpoints that are written beside those of save_steps; 0 for none"},
    )

    total_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "number of examples in an optimiser step that the other settings are for, such as the paper's batch size. "
            "If per_device_train_batch_size x gradient_accumulation_steps x number of devices differs from it, a warning says "
            "what to set. By default nothing is checked"
        },
    )

    def __post_init__(self):
        if self.save_minutes < 0:
            raise ValueError(f"--save_minutes must be at least 0, got {self.save_minutes}.")
        check_at_least_one(self, "total_batch_size")
        fit_training(self)
        super().__post_init__()
        if self.total_batch_size is not None and self.process_index == 0:
            warn_of_other_batch_size(
                self.total_batch_size,
                self.per_device_train_batch_size,
                self.gradient_accumulation_steps,
                self.world_size * max(1, self.n_gpu),
            )


def warn_of_other_batch_size(expected: int, per_device: int, accumulation: int, devices: int):
    """
    Warns if an optimiser step has another number of examples than expected, and says which settings give that number.

    Args:
        expected: `total_batch_size`.
        per_device, accumulation: `per_device_train_batch_size` and `gradient_accumulation_steps`.
        devices: number of devices of all processes together.
    """
    actual = per_device * accumulation * devices
    if actual == expected:
        return
    # As many examples on a device as now, if they fit, since its memory decides how many it can hold.
    fitting = next((size for size in range(per_device, 0, -1) if expected % (size * devices) == 0), None)
    if fitting is None:
        advice = f"use a number of devices that divides {expected}"
    else:
        advice = f"set --gradient_accumulation_steps {expected // (fitting * devices)}"
        advice += "" if fitting == per_device else f" and --per_device_train_batch_size {fitting}"
    logger.warning(
        "An optimiser step has %d x %d x %d = %d examples (per_device_train_batch_size x gradient_accumulation_steps x number "
        "of devices), but the other settings are for %d (total_batch_size): %s.",
        *(per_device, accumulation, devices, actual, expected, advice),
    )
