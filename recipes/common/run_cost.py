"""Measures the time and memory that a training run needs, before it starts."""

import copy
import logging
import math
import sys
import time

import torch

from action_llm_datasets.progress import duration

logger = logging.getLogger(__name__)

# Attributes in which trainers (TRL's and `TokenizerTrainer`) and `ActionVQVAEModel` collect values.
OF_TRAINERS = ("_metrics", "_total_train_tokens", "_terms", "_usage")
OF_MODELS = ("_checks_step_size",)


def report_cost(trainer, what: str) -> dict:
    """
    Runs a micro-batch forward and backward, and logs the time and memory that the whole run will need.

    The run is the same with and without this report: random states are restored, and gradients dropped. With several processes,
    parameters are counted but nothing is measured, because the model is not yet wrapped.

    Args:
        trainer (`transformers.Trainer`): ready to train.
        what: name of the model in the log.

    Returns:
        `dict` with

        - `parameters`: number of parameters of the saved model, and `trainable_parameters` of them.
        - `state_gb`: GiB of weights, gradients and the two moments of AdamW.
        - `distributed_type`: how accelerate runs the processes, such as "NO", "MULTI_CPU" or "FSDP". It replaces FSDP by
          MULTI_CPU without a word if there is no GPU.
        - `seconds_per_step`, `hours` (of the whole run) and `peak_memory_gb` (GiB), measured with a single process. With
          several micro-batches, stage 1 for skeletons also counts the usage of codes before each step, which takes about a
          seventh longer and is not measured.
    """
    model, args = trainer.model, trainer.args
    cost = count_state(model) | {"distributed_type": trainer.accelerator.distributed_type.value}
    if trainer.accelerator.num_processes == 1:
        cost |= _measure(trainer)
        steps = args.max_steps
        if steps <= 0:
            per_epoch = -(-len(trainer.get_train_dataloader()) // args.gradient_accumulation_steps)
            steps = math.ceil(args.num_train_epochs * per_epoch)
        cost["hours"] = round(steps * cost["seconds_per_step"] / 3600, 4)
        logger.info(
            "  %s: %d steps of %.2f s, about %s; %.2f GB of memory at most; %s of %s parameters are trainable",
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
            "  %s: %.2f GB of weights, gradients and optimiser in all; %s of %s parameters are trainable",
            what,
            cost["state_gb"],
            f"{cost['trainable_parameters']:,}",
            f"{cost['parameters']:,}",
        )
    return cost


def count_state(model) -> dict:
    """`parameters`, `trainable_parameters` and `state_gb` of a model, as in [`report_cost`]. It may be on the meta device."""
    parameters = list(model.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    # PEFT keeps the original of each module that it trains a copy of; only the copy is saved.
    replaced = [p for name, p in model.named_parameters() if ".original_module." in name]
    state = sum(p.numel() * p.element_size() for p in parameters)
    state += sum(p.numel() * (p.element_size() + 8) for p in trainable)
    return {
        "parameters": count_parameters(parameters) - count_parameters(replaced),
        "trainable_parameters": count_parameters(trainable),
        "state_gb": round(state / 2**30, 3),
    }


def count_parameters(parameters) -> int:
    """The number of weights in some tensors. bitsandbytes packs two 4-bit weights into a byte; both are counted."""
    return sum(
        p.numel() * (2 * p.quant_storage.itemsize if getattr(p, "bnb_quantized", False) else 1) for p in parameters
    )


def _measure(trainer) -> dict:
    """Time of an optimiser step and peak memory, measured on a micro-batch after a warm-up."""
    cuda = torch.cuda.is_available()
    devices = [torch.cuda.current_device()] if cuda else []
    model = trainer.model
    # What trainers collect for their logs must not include the measurement.
    collected = [
        (owner, name, copy.deepcopy(getattr(owner, name)))
        for owner, names in ((trainer, OF_TRAINERS), (model, OF_MODELS))
        for name in names
        if hasattr(owner, name)
    ]
    for owner, name, _ in collected:
        if owner is model:  # nothing is counted, and no warning given, until it is restored
            setattr(model, name, None)
    with torch.random.fork_rng(devices=devices):
        batches = iter(trainer.get_train_dataloader())
        batch = next(batches)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        training = model.training
        for _ in range(2):
            started = time.perf_counter()
            # The same holds for buffers that a training step updates.
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
    for owner, name, value in collected:
        setattr(owner, name, value)
    peak = torch.cuda.max_memory_allocated() if cuda else peak_memory()
    # AdamW allocates its moments at its first step, which is not measured.
    peak += 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "seconds_per_step": round(seconds * trainer.args.gradient_accumulation_steps, 4),
        "peak_memory_gb": round(peak / 2**30, 3),
    }


def peak_memory() -> int:
    """Peak memory of this process so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _moved_by_forward(model):
    """Names and tensors that a training forward pass updates in place: buffers, and codes that follow their latents."""
    from action_llm.codebook import Codebook

    yield from model.named_buffers()
    for name, module in model.named_modules():
        if isinstance(module, Codebook):
            yield f"{name}.weight", module.weight
