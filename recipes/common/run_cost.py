"""What a training run will need, measured before it starts: memory and time."""

import copy
import logging
import sys
import time

import torch

from action_llm_datasets.progress import duration

logger = logging.getLogger(__name__)

# Attributes of TRL's trainers and of `TokenizerTrainer`, and of `ActionVQVAEModel`.
GATHERED = ("_metrics", "_total_train_tokens", "_terms", "_usage", "_collected_usage")
COUNTED = ("_first_step_latents",)


def report_cost(trainer, what: str) -> dict:
    """Runs one micro-batch forward and backward, forgets it, and logs what the whole run will take.

    Random states are put back and gradients dropped, so that the run is the same with and without the report. With
    several processes only the parameters are counted: the model is not yet wrapped for them.

    Args:
        trainer (`transformers.Trainer`): ready to train.
        what: is trained, as the log names it.

    Returns:
        `dict` with `parameters` of the model as it will be saved, `trainable_parameters`, `state_gb` (weights, gradients and
        AdamW's two moments of what is trained), and, measured with one process, `seconds_per_step`, `hours`, `peak_memory_gb`.
    """
    model, args = trainer.model, trainer.args
    parameters = list(model.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    # PEFT keeps the original of a module that it trains a copy of: the trained model has one of them.
    replaced = [p for name, p in model.named_parameters() if ".original_module." in name]
    state = sum(p.numel() * p.element_size() for p in parameters)
    state += sum(p.numel() * (p.element_size() + 8) for p in trainable)
    cost = {
        "parameters": count_parameters(parameters) - count_parameters(replaced),
        "trainable_parameters": count_parameters(trainable),
        "state_gb": round(state / 2**30, 3),
    }
    if trainer.accelerator.num_processes == 1:
        cost |= _measure(trainer)
        steps = args.max_steps
        if steps <= 0:
            per_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
            steps = int(args.num_train_epochs * per_epoch)
        cost["hours"] = round(steps * cost["seconds_per_step"] / 3600, 4)
        logger.info(
            "  %s: %d steps of %.2f s, about %s; %.2f GB of memory at most; %s of %s parameters are trained",
            what,
            steps,
            cost["seconds_per_step"],
            duration(steps * cost["seconds_per_step"]),
            cost["peak_memory_gb"],
            f"{cost['trainable_parameters']:,}",
            f"{cost['parameters']:,}",
        )
    else:
        logger.info(
            "  %s: %.2f GB of weights, gradients and optimiser in all; %s of %s parameters are trained",
            what,
            cost["state_gb"],
            f"{cost['trainable_parameters']:,}",
            f"{cost['parameters']:,}",
        )
    return cost


def count_parameters(parameters) -> int:
    """The number of weights in some tensors; those that bitsandbytes packs into bytes, two of 4 bit each, are counted apart."""
    return sum(
        p.numel() * (2 * p.quant_storage.itemsize if getattr(p, "bnb_quantized", False) else 1) for p in parameters
    )


def _measure(trainer) -> dict:
    """Time of an optimiser step and peak memory, from one micro-batch (after another that warms up)."""
    cuda = torch.cuda.is_available()
    devices = [torch.cuda.current_device()] if cuda else []
    model = trainer.model
    # What trainers gather for their log belongs to the run, not to the measurement.
    gathered = [
        (owner, name, copy.deepcopy(getattr(owner, name)))
        for owner, names in ((trainer, GATHERED), (model, COUNTED))
        for name in names
        if hasattr(owner, name)
    ]
    for owner, name, _ in gathered:
        if owner is model:  # counts nothing, and warns of nothing, until it is put back
            setattr(model, name, None)
    with torch.random.fork_rng(devices=devices):
        batches = iter(trainer.get_train_dataloader())
        batch = next(batches)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        training = model.training
        for _ in range(2):
            started = time.perf_counter()
            # So does what the model keeps between steps.
            kept = {name: tensor.clone() for name, tensor in _moved_by_forward(model)}
            trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
            trainer.training_step(model, dict(batch))
            if cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            model.zero_grad(set_to_none=True)
            with torch.no_grad():
                for name, tensor in _moved_by_forward(model):
                    tensor.copy_(kept[name])
        model.train(training)
    for owner, name, value in gathered:
        setattr(owner, name, value)
    peak = torch.cuda.max_memory_allocated() if cuda else peak_memory()
    # AdamW's moments are made at the first step, after this measurement.
    peak += 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "seconds_per_step": round(seconds * trainer.args.gradient_accumulation_steps, 4),
        "peak_memory_gb": round(peak / 2**30, 3),
    }


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _moved_by_forward(model):
    """Buffers, and the codes of codebooks that follow their latents: what a training forward changes in place."""
    from action_llm.codebook import Codebook

    yield from model.named_buffers()
    for name, module in model.named_modules():
        if isinstance(module, Codebook):
            yield f"{name}.weight", module.weight
