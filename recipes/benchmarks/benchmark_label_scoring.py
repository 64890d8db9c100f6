"""Time to choose one of 120 class names for a recording: exact scores beside greedy decoding.

    python recipes/benchmarks/benchmark_label_scoring.py --output label_scoring

A small LLaMA with random weights (width 512, 8 layers, 32,000 tokens) reads a prompt of 60 tokens. The labels are the class
names of NTU RGB+D 120, split by a byte-level BPE, each with an end token. Four methods are exact: one forward pass per label,
one padded batch, and `score_labels` with a cache and with a trie. Two are not: greedy decoding, free or constrained to the
class names, commits to the most likely first token.

The model first memorises the labels of eight prompts, so that greedy decoding writes one of them. All scores are compared
before anything is timed. Writes `OUTPUT.json` and a page, `OUTPUT.md`. `benchmark_answers.py` times the whole answer.
"""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass
class BenchmarkArguments:
    """What is measured, and how often."""

    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    prompt_length: int = field(default=60, metadata={"help": "tokens of the prompt"})
    hidden_size: int = field(default=512, metadata={"help": "width of the language model"})
    num_layers: int = field(default=8, metadata={"help": "layers of the language model"})
    vocab_size: int = field(default=32000, metadata={"help": "vocabulary size of the language model"})
    repetitions: int = field(default=9, metadata={"help": "times that each method runs; the median is reported"})
    training_steps: int = field(default=40, metadata={"help": "optimiser steps for memorising the eight labels"})


END = 1
EXACT = ("one padded batch", "score_labels, cache", "score_labels, trie")
GREEDY = ("generate, greedy", "generate, prefix_allowed_tokens_fn")


def class_name_tokens() -> list[list[int]]:
    """Token ids of the 120 class names of NTU RGB+D 120, each with the end token."""
    from action_llm_datasets.protocols import ntu_class_names

    tokenizer = text_tokenizer()
    return [[*tokenizer.encode(name).ids, END] for name in ntu_class_names()]


def text_tokenizer():
    """A byte-level BPE of 2,000 tokens, trained on text about actions and on the class names of NTU RGB+D 120."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from action_llm_datasets.protocols import ntu_class_names
    from action_llm_datasets.simulation.body_text import passages

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*passages(3000), *ntu_class_names()], trainer)
    return tokenizer


def memorise(model, prompts, targets, steps: int) -> float:
    """Trains `model` to continue each of the prompts (B, P) with its label; returns the last loss."""
    import torch

    inputs = torch.nn.utils.rnn.pad_sequence(
        [torch.cat([prompt, torch.tensor(target)]) for prompt, target in zip(prompts, targets, strict=True)],
        batch_first=True,
    )
    is_label = torch.zeros_like(inputs, dtype=torch.bool)
    for row, target in enumerate(targets):
        is_label[row, prompts.shape[1] : prompts.shape[1] + len(target)] = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.0)
    for _ in range(steps):
        hidden = model.model(input_ids=inputs[:, :-1]).last_hidden_state
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[is_label[:, 1:]]), inputs[is_label])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def score_each_label(model, prompt, labels):
    """One forward pass per label; log-probabilities (L,)."""
    import torch

    scores = []
    for label in labels:
        hidden = model.model(input_ids=torch.cat([prompt, prompt.new_tensor([label[:-1]])], 1)).last_hidden_state
        log_probs = model.lm_head(hidden[0, -len(label) :]).float().log_softmax(-1)
        scores.append(log_probs.gather(1, prompt.new_tensor(label)[:, None]).sum())
    return torch.stack(scores)


def score_in_one_batch(model, prompt, labels):
    """One forward pass over all labels, each behind a copy of the prompt and padded on the right; log-probabilities (L,)."""
    import torch

    pad = torch.nn.utils.rnn.pad_sequence
    tokens = pad([prompt.new_tensor(label) for label in labels], batch_first=True)
    is_token = pad([torch.ones_like(prompt.new_tensor(label), dtype=torch.bool) for label in labels], batch_first=True)
    inputs = torch.cat([prompt.expand(len(labels), -1), tokens[:, :-1]], 1)
    hidden = model.model(input_ids=inputs).last_hidden_state[:, prompt.shape[1] - 1 :]
    log_probs = model.lm_head(hidden[is_token]).float().log_softmax(-1).gather(1, tokens[is_token][:, None])[:, 0]
    return log_probs.new_zeros(is_token.shape).masked_scatter(is_token, log_probs).sum(1)


def random_llama(arguments: BenchmarkArguments):
    """A LLaMA with random weights, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        intermediate_size=arguments.hidden_size * 8 // 3,
        num_hidden_layers=arguments.num_layers,
        num_attention_heads=arguments.hidden_size // 64,
        bos_token_id=0,
        eos_token_id=END,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def methods_on(model, prompt, label_ids: list[list[int]], trie) -> dict:
    """Name of each method → a function without arguments that runs it on the prompt (1, P)."""
    import torch

    from action_llm.label_scoring import score_labels

    mask, longest = torch.ones_like(prompt), max(map(len, label_ids))
    continuations: dict[tuple[int, ...], set[int]] = {}
    for label in label_ids:
        for length, token in enumerate(label):
            continuations.setdefault(tuple(label[:length]), set()).add(token)

    def head(hidden):
        return model.lm_head(hidden).float()

    def scored(method):
        return score_labels(model.model, head, model.config, prompt, mask, trie, method)[0]

    def decoded(allowed=None):
        tokens = model.generate(
            prompt,
            attention_mask=mask,
            max_new_tokens=longest,
            do_sample=False,
            prefix_allowed_tokens_fn=allowed,
        )
        return tokens[0, prompt.shape[1] :].tolist()

    def allowed(_, tokens):
        return list(continuations[tuple(tokens[prompt.shape[1] :].tolist())])

    return {
        "one forward per label": lambda: score_each_label(model, prompt, label_ids),
        "one padded batch": lambda: score_in_one_batch(model, prompt, label_ids),
        "score_labels, cache": lambda: scored("cache"),
        "score_labels, trie": lambda: scored("trie"),
        "generate, greedy": decoded,
        "generate, prefix_allowed_tokens_fn": lambda: decoded(allowed),
    }


def largest_differences(results: dict, label_ids: list[list[int]], target: list[int]) -> dict[str, float]:
    """The largest difference of each exact method from one forward pass per label.

    Raises:
        AssertionError: if a score differs by 1e-3 or more, or a method does not choose `target`.
    """
    expected = results["one forward per label"]
    differences = {name: (results[name] - expected).abs().max().item() for name in EXACT}
    assert max(differences.values()) < 1e-3, differences
    assert expected.argmax().item() == label_ids.index(target)
    for name in GREEDY:
        assert results[name] == target, f"{name} wrote {results[name]}, expected {target}"
    return differences


def time_in_turns(methods: dict, repetitions: int) -> dict[str, float]:
    """Median seconds of each method. They take turns, so that a busy moment of the machine slows all of them."""
    from action_llm_recipes.benchmarks import devices

    seconds = {name: [] for name in methods}
    for _ in range(repetitions):
        for name, method in methods.items():
            seconds[name].append(devices.timed(method)[1])
    return {name: median(values) for name, values in seconds.items()}


def table_rows(medians: dict[str, float]) -> list[dict]:
    """A row for each method: what it gives, and its median time in seconds."""
    gives = {"generate, greedy": "text, not exact", "generate, prefix_allowed_tokens_fn": "a label, not exact"}
    return [
        {
            "method": name,
            "gives": gives.get(name, "120 exact scores"),
            "seconds": seconds,
            "times_greedy": seconds / medians["generate, greedy"],
            "times_trie": seconds / medians["score_labels, trie"],
        }
        for name, seconds in medians.items()
    ]


def page(record: dict) -> str:
    """The results as a page in Markdown."""
    settings, machine = record["settings"], record["machine"]
    lines = [
        f"# Choosing among {settings['num_labels']} class names",
        "",
        f"LLaMA with random weights, {settings['num_layers']} layers of width {settings['hidden_size']}, vocabulary "
        f"{settings['vocab_size']}, float32; prompt of {settings['prompt_length']} tokens; {settings['num_labels']} labels of "
        f"{settings['mean_label_tokens']:.1f} tokens on average, end token included; {settings['trie_nodes']} trie nodes. "
        f"Medians of {settings['repetitions']} on {machine['threads']} cores ({machine['processor']}), "
        f"torch {machine['torch']}, transformers {machine['transformers']}.",
        "",
        "| method | result | seconds | × greedy | × trie |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {row['method']} | {row['gives']} | {row['seconds']:.3f} | {row['times_greedy']:.1f} | {row['times_trie']:.2f} |"
            for row in record["results"]
        ),
    ]
    return "\n".join(lines) + "\n"


def processor_name() -> str:
    """Model of the processor, as the operating system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    import torch
    import transformers

    from action_llm.label_scoring import LabelTrie
    from action_llm_recipes.benchmarks.results import write_results

    torch.manual_seed(0)
    label_ids = class_name_tokens()
    trie = LabelTrie(label_ids)
    model = random_llama(arguments)
    prompts = torch.randint(2, arguments.vocab_size, (8, arguments.prompt_length))
    targets = label_ids[:: len(label_ids) // 8][:8]
    methods = methods_on(model, prompts[:1], label_ids, trie)

    loss = memorise(model, prompts, targets, arguments.training_steps)
    with torch.no_grad():
        results = {name: method() for name, method in methods.items()}
        differences = largest_differences(results, label_ids, targets[0])
        medians = time_in_turns(methods, arguments.repetitions)

    record = {
        "settings": {
            **{name: value for name, value in vars(arguments).items() if name != "output"},
            "num_labels": len(label_ids),
            "mean_label_tokens": sum(map(len, label_ids)) / len(label_ids),
            "trie_nodes": trie.num_nodes,
            "dtype": "float32",
            "loss_after_training": loss,
            "largest_difference": differences,
        },
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "results": table_rows(medians),
    }
    write_results(arguments.output, record, page(record))
    return record


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
