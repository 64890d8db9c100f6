"""Time of naming one clip among 120 classes, exactly and not, in one run.

    python recipes/benchmarks/benchmark_label_scoring.py --output label_scoring

A toy LLaMA (hidden 512, 8 layers, vocabulary 32,000; random weights) reads a prompt of 60 tokens. The labels are the class
names of NTU RGB+D 120 in the word pieces of a byte-level BPE, each with an end token. Five ways are exact: one forward pass
per label, one padded batch, `score_labels` by cache and by trie, and `most_likely_label`, which gives the arg-max alone. Two
are not: greedy decoding, free and constrained to the class names, commits to the best first word.

How early `most_likely_label` can stop depends on how sure the model is. So it is timed twice: with the random weights, for
which all names are about equally likely, and after the model has learnt the names of a few clips by heart. All scores are
compared before anything is timed. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class BenchmarkArguments:
    """What is measured, and how often."""

    output: str = field(metadata={"help": "path of the result without its suffix: .json and .md are written"})
    prompt_length: int = field(default=60, metadata={"help": "tokens of the prompt"})
    hidden_size: int = field(default=512, metadata={"help": "width of the language model"})
    num_layers: int = field(default=8, metadata={"help": "layers of the language model"})
    vocab_size: int = field(default=32000, metadata={"help": "vocabulary of the language model"})
    repetitions: int = field(default=9, metadata={"help": "rounds over all ways; the median counts"})
    training_steps: int = field(default=40, metadata={"help": "optimiser steps for learning eight clips by heart"})


END = 1


def class_name_tokens() -> list[list[int]]:
    """Token ids of the 120 class names, each with the end token. Word pieces are learnt from text about actions."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from action_llm_datasets.protocols import ntu_class_names
    from action_llm_datasets.simulation.body_text import passages

    names = ntu_class_names()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*passages(3000), *names], trainer)
    return [[*tokenizer.encode(name).ids, END] for name in names]


def learn_by_heart(model, prompts, targets, steps: int):
    """Fine-tunes `model` until each of the prompts (B, P) is followed by its label."""
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


def score_one_by_one(model, prompt, labels):
    """One forward pass for each label."""
    import torch

    scores = []
    for label in labels:
        hidden = model.model(input_ids=torch.cat([prompt, torch.tensor([label[:-1]])], 1)).last_hidden_state
        log_probs = model.lm_head(hidden[0, -len(label) :]).float().log_softmax(-1)
        scores.append(log_probs.gather(1, torch.tensor(label)[:, None]).sum())
    return torch.stack(scores)


def score_as_one_batch(model, prompt, labels):
    """One forward pass over all labels, padded on the right, each behind a copy of the prompt."""
    import torch

    pad = torch.nn.utils.rnn.pad_sequence
    tokens = pad([torch.tensor(label) for label in labels], batch_first=True)
    is_token = pad([torch.ones(len(label), dtype=torch.bool) for label in labels], batch_first=True)
    inputs = torch.cat([prompt.expand(len(labels), -1), tokens[:, :-1]], 1)
    hidden = model.model(input_ids=inputs).last_hidden_state[:, prompt.shape[1] - 1 :]
    log_probs = model.lm_head(hidden[is_token]).float().log_softmax(-1).gather(1, tokens[is_token][:, None])[:, 0]
    return torch.zeros(is_token.shape).masked_scatter(is_token, log_probs).sum(1)


def time_in_turns(ways, repetitions: int):
    """Median seconds of each way; the ways take turns, so that a busy moment of the machine hits them all."""
    from statistics import median

    seconds = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments):
    import torch
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM

    from action_llm.label_scoring import LabelTrie, most_likely_label, score_labels
    from action_llm_datasets.atomic_files import write_atomically

    torch.manual_seed(0)
    label_ids = class_name_tokens()
    trie = LabelTrie(label_ids)
    longest = max(map(len, label_ids))
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
    model = LlamaForCausalLM(config).eval()
    prompts = torch.randint(2, arguments.vocab_size, (8, arguments.prompt_length))
    targets = label_ids[:: len(label_ids) // 8][:8]
    prompt, mask = prompts[:1], torch.ones_like(prompts[:1])

    def head(hidden):
        return model.lm_head(hidden).float()

    def scored(method):
        return score_labels(model.model, head, config, prompt, mask, trie, method)[0]

    def most_likely():
        return most_likely_label(model.model, head, config, prompt, mask, trie)

    def decoded(allowed=None):
        tokens = model.generate(
            prompt,
            attention_mask=mask,
            max_new_tokens=longest,
            do_sample=False,
            prefix_allowed_tokens_fn=allowed,
        )
        return tokens[0, prompt.shape[1] :].tolist()

    continuations = {}
    for label in label_ids:
        for length in range(len(label)):
            continuations.setdefault(tuple(label[:length]), set()).add(label[length])

    def allowed(_, tokens):
        return list(continuations[tuple(tokens[prompt.shape[1] :].tolist())])

    with torch.no_grad():
        untrained = time_in_turns({"most_likely_label": most_likely}, arguments.repetitions)["most_likely_label"]
        untrained_nodes = most_likely().num_nodes.item()
        assert most_likely().indices.item() == scored("cache").argmax().item()
    loss = learn_by_heart(model, prompts, targets, arguments.training_steps)
    ways = {
        "one forward per label": lambda: score_one_by_one(model, prompt, label_ids),
        "one padded batch": lambda: score_as_one_batch(model, prompt, label_ids),
        "score_labels, cache": lambda: scored("cache"),
        "score_labels, trie": lambda: scored("trie"),
        "most_likely_label": most_likely,
        "generate, greedy": decoded,
        "generate, prefix_allowed_tokens_fn": lambda: decoded(allowed),
    }
    with torch.no_grad():
        results = {name: way() for name, way in ways.items()}
        reference = results["one forward per label"]
        differences = {
            name: (results[name] - reference).abs().max().item()
            for name in ("one padded batch", "score_labels, cache", "score_labels, trie")
        }
        assert max(differences.values()) < 1e-3, differences
        best = results["most_likely_label"]
        assert best.indices.item() == reference.argmax().item() == label_ids.index(targets[0])
        for name in ("generate, greedy", "generate, prefix_allowed_tokens_fn"):
            assert results[name] == targets[0], f"{name} wrote {results[name]}, expected {targets[0]}"
        medians = time_in_turns(ways, arguments.repetitions)

    greedy, ours = medians["generate, greedy"], medians["score_labels, trie"]
    gives = {
        "most_likely_label": f"exact arg-max ({best.num_nodes.item()} nodes read)",
        "generate, greedy": "text, not exact",
        "generate, prefix_allowed_tokens_fn": "a label, not exact",
    }
    rows = [
        {"way": name, "gives": gives.get(name, "120 exact scores"), "seconds": seconds}
        for name, seconds in medians.items()
    ]
    rows.append(
        {
            "way": "most_likely_label, random weights",
            "gives": f"exact arg-max ({untrained_nodes} nodes read)",
            "seconds": untrained,
        }
    )
    for row in rows:
        row |= {"times_greedy": row["seconds"] / greedy, "times_trie": row["seconds"] / ours}
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
        "results": rows,
    }
    settings, machine = record["settings"], record["machine"]
    lines = [
        f"Toy LLaMA, {arguments.num_layers} layers of width {arguments.hidden_size}, vocabulary {arguments.vocab_size}, "
        f"float32; prompt of {arguments.prompt_length} tokens; {len(label_ids)} labels of "
        f"{settings['mean_label_tokens']:.1f} tokens with the end token, {trie.num_nodes} trie nodes. "
        f"Median of {arguments.repetitions}; {machine['threads']} of {machine['cores']} cores ({machine['processor']}), "
        f"torch {machine['torch']}, transformers {machine['transformers']}.",
        "",
        "| way | gives | seconds | × greedy | × trie |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {row['way']} | {row['gives']} | {row['seconds']:.3f} | {row['times_greedy']:.1f} | {row['times_trie']:.2f} |"
            for row in rows
        ),
    ]
    write_atomically(Path(f"{arguments.output}.json"), json.dumps(record, indent=2) + "\n")
    write_atomically(Path(f"{arguments.output}.md"), "\n".join(lines) + "\n")
    print("\n".join(lines))


def processor_name() -> str:
    """Model of the processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
