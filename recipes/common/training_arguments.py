"""Arguments of every trainer beside those of transformers."""

from dataclasses import dataclass, field

from action_llm_recipes.common.launching import LazyArguments
from action_llm_recipes.common.without_gpu import fit_training


@dataclass
class RunTrainingArguments(LazyArguments):
    """Base of the arguments of trainers. Subclasses name the class to extend: `base="transformers.TrainingArguments"`."""

    save_minutes: float = field(
        default=10,
        metadata={"help": "minutes between checkpoints that are written beside those of save_steps; 0 for none"},
    )

    def __post_init__(self):
        if self.save_minutes < 0:
            raise ValueError(f"--save_minutes must be at least 0, got {self.save_minutes}.")
        fit_training(self)
        super().__post_init__()
