"""What settings for a GPU become on a machine without one: the run goes on, and a warning says what was changed."""

import dataclasses
import logging

logger = logging.getLogger(__name__)

# Precision that `TrainingArguments` refuses without a GPU, unless `use_cpu` says that it is meant.
GPU_PRECISION = ("bf16", "bf16_full_eval", "fp16", "fp16_full_eval", "tf32")
# In names of optimisers that need bitsandbytes and a GPU.
GPU_OPTIMISERS = ("paged", "8bit", "4bit", "bnb")


def has_gpu() -> bool:
    """Whether there is a GPU, or another accelerator that torch knows."""
    import torch

    return torch.accelerator.is_available()


def fit_training(training) -> None:
    """
    Precision and optimiser of `TrainingArguments` that are not made yet: without a GPU, float32 and AdamW.

    With `use_cpu` bf16 stays: a CPU can, by autocast, and whoever sets both means it.
    """
    if has_gpu() and not training.use_cpu:
        return
    changed = []
    for name in GPU_PRECISION:
        if getattr(training, name) and not (training.use_cpu and name.startswith("bf16")):
            setattr(training, name, None if name == "tf32" else False)
            changed.append(f"{name} is off")
    optimiser = str(getattr(training.optim, "value", training.optim))
    if any(word in optimiser for word in GPU_OPTIMISERS):
        training.optim = "adamw_torch"
        changed.append(f"optim is adamw_torch, not {optimiser}")
    if changed:
        way_back = "" if training.use_cpu else "; --use_cpu true keeps bf16"
        logger.warning("no GPU: the settings are changed to what a CPU can (%s%s)", ", ".join(changed), way_back)


def fit_language_model(arguments, training):
    """
    Replaces the settings of stage 2 that need a GPU: QLoRA becomes LoRA, and FlashAttention becomes SDPA.

    Args:
        arguments (`ActionSFTArguments`), training (`ActionSFTConfig`): of `sft.py`.

    Returns:
        `ActionSFTArguments`: with these settings replaced; on a GPU, the arguments as they came.
    """
    if has_gpu() and not training.use_cpu:
        return arguments
    changed = {}
    if arguments.method == "qlora":
        changed["method"] = "lora"
    if (arguments.attn_implementation or "").startswith("flash_attention"):
        changed["attn_implementation"] = "sdpa"
    if changed:
        values = ", ".join(f"{name} is {value}, not {getattr(arguments, name)}" for name, value in changed.items())
        in_full = "; the language model is not in 4 bit and needs the memory of all its weights" * (
            "method" in changed
        )
        logger.warning("no GPU: the settings are changed to what a CPU can (%s%s)", values, in_full)
    return dataclasses.replace(arguments, **changed)
