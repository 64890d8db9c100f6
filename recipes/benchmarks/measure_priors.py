"""
What the language priors of LLM-AR do to tokens and to their recognition: each prior alone, on held-out training subjects.

```bash
python recipes/benchmarks/measure_priors.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --held_out_subjects 7 \\
    --llm_name_or_path runs/small_lm/model --hidden_width 64 --kmeans_init true --dead_code_threshold 0.1 --output priors
```

An action model is trained without priors. From its weights, training continues once for each row of `ARMS`: without priors,
with one of them, or with all. All rows see the same recordings in the same order. The test split is not read. Writes
`OUTPUT.json` and `OUTPUT.md`.
"""

import copy
import dataclasses
from dataclasses import dataclass, field

from action_llm_recipes.common.data_arguments import DataArguments, held_out_rows, without_held_out
from action_llm_recipes.common.launching import launch
from action_llm_recipes.stages.skeleton_stage import ActionVQVAEArguments, SkeletonArguments
from action_llm_recipes.train_tokenizer import TokenizerArguments

# Tokens do not change if codes are four times as long and the curvature is a sixteenth.
LONG = {"latent_scale": 4.0, "curvature": 0.0625}
ALL = {"zipf_weight": 0.005, "context_weight": 0.005, "mmd_weight": 0.005}
ARMS = {
    "no prior": {},
    "Zipf, weight 0.05, τ 0.1": {"zipf_weight": 0.05, "gumbel_temperature": 0.1},
    "Zipf, weight 0.05, τ 0.01": {"zipf_weight": 0.05, "gumbel_temperature": 0.01},
    "context, weight 0.05, τ 0.1": {"context_weight": 0.05, "gumbel_temperature": 0.1},
    "context, weight 0.05, τ 0.01": {"context_weight": 0.05, "gumbel_temperature": 0.01},
    "MMD, weight 0.05": {"mmd_weight": 0.05},
    "no prior, codes four times as long": LONG,
    "MMD, weight 0.05, codes four times as long": LONG | {"mmd_weight": 0.05},
    "all, weight 0.005, τ 0.1": ALL | {"gumbel_temperature": 0.1},
    "all, weight 0.005, τ 0.04, codes four times as long": LONG | ALL | {"gumbel_temperature": 0.04},
}
WITHOUT = {"human_weight": 1.0, "zipf_weight": 0.0, "context_weight": 0.0, "mmd_weight": 0.0}
COLUMNS = {
    "zipf_js": "Zipf JS",
    "context_loss": "context",
    "context_loss_random_pairs": "context, random pairs",
    "context_loss_random_pairs_std": "±",
    "mmd": "MMD",
    "codes_used": "codes used",
    "reconstruction_loss": "reconstruction",
    "accuracy": "kernel ridge on codes, %",
}


@dataclass
class PriorArguments:
    """What is trained, and how long."""

    llm_name_or_path: str = field(metadata={"help": "language model whose word embeddings the MMD reads"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    llm_revision: str | None = field(default=None, metadata={"help": "commit of the language model's repository"})
    window: int = field(default=64, metadata={"help": "length of a training window, in frames"})
    first_steps: int = field(default=250, metadata={"help": "optimiser steps without priors"})
    steps: int = field(default=100, metadata={"help": "optimiser steps of each row"})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "number of windows in a step"})
    learning_rate: float = field(default=1e-3, metadata={"help": "learning rate of AdamW"})
    epochs: int = field(default=12, metadata={"help": "number of augmented windows of each recording"})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "seeds of weights, batches and noise"})
    rows: list[str] | None = field(default=None, metadata={"help": "names of the rows; by default all"})

    def __post_init__(self):
        self.rows = list(ARMS) if self.rows is None else self.rows
        if unknown := [name for name in self.rows if name not in ARMS]:
            raise ValueError(f"--rows: there is no row {unknown[0]!r}; expected some of: {'; '.join(ARMS)}.")


ARGUMENTS = (PriorArguments, DataArguments, ActionVQVAEArguments, SkeletonArguments)


def main(arguments: PriorArguments, data: DataArguments, model_arguments, reading) -> dict:
    """Measures all rows, and writes and prints the page; returns the contents of the JSON file."""
    import torch

    from action_llm_datasets.progress import Progress
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.stages.skeleton_stage import SkeletonStage
    from action_llm_recipes.stages.word_embeddings import load_word_embeddings

    dataset = data.load("skeletons")
    rows = without_held_out(dataset["train"], hold_out=True)
    settings = TokenizerArguments(arguments.llm_name_or_path, arguments.llm_revision, window=arguments.window)
    stage = SkeletonStage(settings, data, rows, dataclasses.replace(model_arguments, **WITHOUT), reading)
    words = load_word_embeddings(arguments.llm_name_or_path, arguments.llm_revision)
    windows = windows_of(stage, rows, arguments.epochs)
    results = []
    with Progress("training", len(arguments.seeds) * len(arguments.rows), "rows") as bar:
        for seed in arguments.seeds:
            torch.manual_seed(seed)
            first = type(stage.model)(config_of(stage, {}))
            train(first, windows, words, arguments, arguments.first_steps, seed)
            for name in arguments.rows:
                model = type(stage.model)(config_of(stage, ARMS[name]))
                model.load_state_dict(first.state_dict())
                model.quantizer.weight.data.mul_(model.config.latent_scale / first.config.latent_scale)
                train(model, windows, words, arguments, arguments.steps, seed)
                results.append({"row": name, "seed": seed, **measure(model, stage, dataset["train"])})
                bar.update()
    record = {"settings": {**vars(arguments), "held_out_subjects": data.held_out_subjects}, "rows": results}
    write_results(arguments.output, record, page(record))
    return record


def config_of(stage, overrides: dict):
    """The configuration of the stage without priors, with some settings changed."""
    config = copy.deepcopy(stage.model.config)
    for name, value in {**WITHOUT, **overrides}.items():
        setattr(config, name, value)
    return config


def windows_of(stage, rows, epochs: int) -> dict:
    """Augmented windows of all recordings: `input_features` (N, T, D) and `feature_attention_mask` (N, T)."""
    from torch.utils.data import default_collate

    examples, windows = stage.examples(rows, seed=0), []
    for epoch in range(epochs):
        examples.start_epoch(epoch)
        windows += [examples[index] for index in range(len(rows))]
    return default_collate(windows)


def train(model, windows: dict, words, arguments: PriorArguments, steps: int, seed: int):
    """Trains a model on batches that depend on the seed only; the learning rate is warmed up and falls to 0."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), arguments.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (steps / 10), (steps - step) / (steps / 5))
    )
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.train()
    for _ in range(steps):
        batch = torch.randint(
            len(windows["input_features"]), (arguments.per_device_train_batch_size,), generator=order
        )
        loss = model(**{name: values[batch] for name, values in windows.items()}, word_embeddings=words).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def measure(model, stage, rows) -> dict[str, float]:
    """The statistics of the held-out recordings, and the accuracy of kernel ridge on their codes (`COLUMNS`)."""
    import numpy as np
    import torch

    from action_llm_recipes.baselines.models import KernelRidge

    held_out = held_out_rows(rows)
    metrics = stage.evaluate(model, held_out, batch_size=64)
    sequences = {True: [], False: []}
    with torch.no_grad():
        for row in rows.with_format("numpy"):
            embeds = model.encode(**stage.extractor(row, return_tensors="pt")).action_embeds[0]
            sequences[bool(row["held_out"])].append((embeds.numpy(), int(row["label"])))
    codes, labels = zip(*sequences[False], strict=True)
    ridge = KernelRidge(rows.features["label"].num_classes).fit(codes, np.array(labels))
    codes, labels = zip(*sequences[True], strict=True)
    metrics = {name.removeprefix("codebook/"): value for name, value in metrics.items()}
    metrics |= {"accuracy": 100 * float((ridge.scores(codes).argmax(axis=1) == labels).mean())}
    return {name: metrics[name] for name in COLUMNS}


def page(record: dict) -> str:
    """The results as a table in Markdown."""
    lines = [
        f"| row | seed | {' | '.join(COLUMNS.values())} |",
        f"|---|---:|{'---:|' * len(COLUMNS)}",
        *(
            f"| {row['row']} | {row['seed']} | {' | '.join(f'{row[name]:.3g}' for name in COLUMNS)} |"
            for row in record["rows"]
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
