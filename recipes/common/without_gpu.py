"""Adapts settings for a GPU to a machine without a GPU. The run continues, and a warning lists the changes."""

import dataclasses
import logging

logger = logging.getLogger(__name__)

# Settings that `TrainingArguments` refuses without a GPU unless `use_cpu` is set.
GPU_PRECISION = ("bf16", "bf16_full_eval", "fp16", "fp16_full_eval", "tf32")
# Parts of the names of optimisers that need bitsandbytes and a GPU.
GPU_OPTIMISERS = ("paged", "8bit", "4bit", "bnb")


def has_gpu() -> bool:
    """Whether torch sees a GPU or another accelerator."""
    import torch

    return torch.accelerator.is_available()


def fit_training(training) -> None:
    """
    Without a GPU, sets the precision of `TrainingArguments` to float32 and the optimiser to AdamW, before transformers checks
    them.

    With `use_cpu`, bf16 is kept: CPUs support it by autocast.
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
        logger.warning("no GPU: settings were changed to what a CPU supports (%s%s)", ", ".join(changed), way_back)


def fit_language_model(arguments, training):
    """
    Without a GPU, replaces the settings of stage 2 that need a GPU: QLoRA becomes LoRA, and FlashAttention becomes SDPA.

    Args:
        arguments (`ActionSFTArguments`), training (`ActionSFTConfig`): of `sft.py`.

    Returns:
        The `ActionSFTArguments` to use.
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
        memory = "; without 4-bit weights, the language model needs more memory" * ("method" in changed)
        logger.warning("no GPU: settings were changed to what a CPU supports (%s%s)", values, memory)
    return dataclasses.replace(arguments, **changed)
