"""
Compare the Muon of this project with PyTorch's, `torch.optim.Muon` beside `torch.optim.AdamW`, on the small language model.

```bash
python recipes/benchmarks/benchmark_muon.py --output model_cards/results/muon
```

Both train the same model on the same batches (`pretraining/small_lm.py`). Times are CPU seconds, so that other processes do not
count. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

import copy
import math
import platform
import statistics
import time
from dataclasses import dataclass, field

from action_llm_recipes.common.launching import launch


@dataclass
class BenchmarkArguments:
    """Size of the comparison."""

    output: str = field(metadata={"help": "path of the report without its suffix; .json and .md are written"})
    passages: int = field(default=2000, metadata={"help": "number of passages of training text, each read once"})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "seeds of model and batches"})
    batch_size: int = field(default=16, metadata={"help": "number of rows per step"})


ARGUMENTS = (BenchmarkArguments,)
OPTIMISERS = {"ours": "Muon (`pretraining/muon.py`)", "torch": "`torch.optim.Muon` and `torch.optim.AdamW`"}


def main(arguments: BenchmarkArguments) -> dict:
    """Runs the comparison, writes and prints the report; returns the content of the JSON file."""
    import torch

    from action_llm_recipes.benchmarks.results import write_results

    runs = [run for seed in arguments.seeds for run in compare(arguments, seed)]
    record = {
        "machine": f"{platform.machine()}, torch threads: {torch.get_num_threads()}, torch {torch.__version__}",
        "passages": arguments.passages,
        "batch_size": arguments.batch_size,
        "runs": runs,
    }
    write_results(arguments.output, record, report(record))
    return record


def compare(arguments: BenchmarkArguments, seed: int) -> list[dict]:
    """Trains the same model with both optimisers, step by step in turn; one dictionary of measurements for each."""
    import torch
    import transformers

    from action_llm_datasets.simulation.body_text import passages
    from action_llm_recipes.pretraining import small_lm
    from action_llm_recipes.pretraining.muon import Muon

    transformers.set_seed(seed)
    settings, training = small_lm.SmallLMArguments(passages=arguments.passages), small_lm.SmallLMConfig
    text = list(passages(settings.passages, seed=settings.text_seed))
    held_out = list(passages(settings.held_out_passages, seed=settings.text_seed, start=small_lm.HELD_OUT_START))
    tokenizer = small_lm.train_tokenizer(text, settings.vocabulary_size, settings.max_position_embeddings)
    rows = torch.tensor(small_lm.join_in_blocks(small_lm.encode(tokenizer, text), settings.block_length)["input_ids"])
    batches = rows[torch.randperm(len(rows))].split(arguments.batch_size)
    ours = small_lm.make_model(settings, tokenizer)
    theirs = copy.deepcopy(ours)
    rates = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    models = {"ours": ours, "torch": theirs}
    optimisers = {"ours": [Muon(ours, **rates)], "torch": torch_optimisers(theirs, **rates)}
    seconds = {name: {"forward_backward": [], "step": []} for name in models}
    losses = {}
    for step, batch in enumerate(batches):
        for name, model in models.items():
            for group in (group for optimiser in optimisers[name] for group in optimiser.param_groups):
                group["lr"] = training.learning_rate * rate_at(step, len(batches), training.warmup_steps)
            started = time.process_time()
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            seconds[name]["forward_backward"].append(time.process_time() - started)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            started = time.process_time()
            for optimiser in optimisers[name]:
                optimiser.step()
                optimiser.zero_grad()
            seconds[name]["step"].append(time.process_time() - started)
            losses[name] = loss.item()
    held_out_rows = small_lm.encode(tokenizer, held_out)
    return [
        {
            "optimiser": name,
            "seed": seed,
            "steps": len(batches),
            "last_training_loss": losses[name],
            "held_out_perplexity": small_lm.model_perplexity(model, held_out_rows),
            "seconds": {part: statistics.median(values) for part, values in seconds[name].items()},
        }
        for name, model in models.items()
    ]


def torch_optimisers(model, lr: float, weight_decay: float) -> list:
    """PyTorch's optimisers with the settings of `Muon`: matrices, then embedding tables and vectors."""
    import torch

    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    parameters = list(model.parameters())
    words = [parameter for parameter in parameters if id(parameter) in tables]
    matrices = [parameter for parameter in parameters if parameter.ndim == 2 and id(parameter) not in tables]
    vectors = [parameter for parameter in parameters if parameter.ndim != 2]
    groups = [{"params": words}, {"params": vectors, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay),
    ]


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up, then a half cosine to 0."""
    warmup = min(warmup, steps / 2)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def report(record: dict) -> str:
    """The record as Markdown: a row per optimiser, means over the seeds with their range."""
    lines = [
        "# Muon: this project's and PyTorch's",
        "",
        f"The small language model (`recipes/pretraining/small_lm.py`), {record['runs'][0]['steps']} steps of "
        f"{record['batch_size']} rows. Both optimisers train the same model on the same batches. {record['machine']}.",
        "",
        "| optimiser | held-out perplexity | CPU seconds: forward and backward | CPU seconds: optimiser step |",
        "|---|---:|---:|---:|",
    ]
    steps, totals = {}, {}
    for name, title in OPTIMISERS.items():
        runs = [run for run in record["runs"] if run["optimiser"] == name]
        perplexities = [run["held_out_perplexity"] for run in runs]
        forward, step = (
            statistics.mean(run["seconds"][part] for run in runs) for part in ("forward_backward", "step")
        )
        steps[name], totals[name] = step, forward + step
        lines.append(
            f"| {title} | {statistics.mean(perplexities):.2f} ({min(perplexities):.2f}–{max(perplexities):.2f}) | "
            f"{forward:.2f} | {step:.2f} |"
        )
    lines += [
        "",
        f"An optimiser step of PyTorch's takes {steps['torch'] / steps['ours']:.1f} times as long, a whole training step "
        f"{totals['torch'] / totals['ours']:.1f} times. PyTorch orthogonalises one matrix at a time, in bfloat16, which a CPU "
        "without bfloat16 instructions emulates; ours stacks matrices of one shape, in float32.",
        "",
        "```bash",
        "python recipes/benchmarks/benchmark_muon.py --output model_cards/results/muon",
        "```",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
