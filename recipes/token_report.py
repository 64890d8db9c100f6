"""What the sentences of a data set are like: tokens per recording, their durations, use of the codebook (LVLM-VAR, Fig. 1)."""

import json
from pathlib import Path

import numpy as np


def write_token_report(folder: Path, sentences, codebook_size: int) -> dict:
    """Writes tokens.json, tokens.md and, of the training split, token_usage.png and sentence_lengths.png.

    Args:
        folder: where they go.
        sentences: splits as `load_action_sentences` gives them; of each recording the unaugmented sentence counts.
        codebook_size: number of codes K.

    Returns:
        What tokens.json holds: for each split, what [`describe_sentences`] says.
    """
    from metrics.plots import plot_sentence_lengths, plot_token_usage

    from action_llm_datasets.atomic_files import write_atomically

    report = {}
    for split, rows in sentences.items():
        rows = rows.select([index for index, encoding in enumerate(rows["encoding"]) if encoding == 0])
        columns = rows.select_columns(["action_ids", "start_times", "end_times"]).with_format("numpy")[:]
        ids, starts, ends = (list(columns[name]) for name in ("action_ids", "start_times", "end_times"))
        report[split] = describe_sentences(ids, starts, ends, codebook_size)
        if split == "train":
            counts = np.bincount(np.concatenate(ids), minlength=codebook_size)
            plot_token_usage(counts, folder / "token_usage.png")
            plot_sentence_lengths([len(one) for one in ids], folder / "sentence_lengths.png")
    write_atomically(folder / "tokens.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "tokens.md", _table(report))
    return report


def describe_sentences(ids: list, starts: list, ends: list, codebook_size: int) -> dict:
    """Properties of some sentences.

    Args:
        ids: of the tokens, one array (W,) a recording.
        starts, ends: their times in seconds, alike.
        codebook_size: number of codes K.

    Returns:
        `recordings`; `tokens_per_recording` (`mean`, `median`, `least`, `most`); `seconds_per_token`, the mean;
        `codebook_size`; and what `usage_statistics` says, entropy in bits; None for what too few tokens leave open.

    Raises:
        ValueError: no tokens at all.
    """
    import torch
    from run_folder import without_nan

    from action_llm.language_priors import usage_statistics

    lengths = np.array([len(one) for one in ids])
    if not lengths.sum():
        raise ValueError(f"{len(ids)} recordings without a single token.")
    counts = np.bincount(np.concatenate(ids), minlength=codebook_size)
    durations = np.concatenate(ends) - np.concatenate(starts)
    return {
        "recordings": len(ids),
        "tokens_per_recording": {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "least": int(lengths.min()),
            "most": int(lengths.max()),
        },
        "seconds_per_token": float(durations.mean(dtype=np.float64)),
        "codebook_size": codebook_size,
        **without_nan(usage_statistics(torch.from_numpy(counts))),
    }


def _table(report: dict) -> str:
    """Markdown: a property a row, a split a column."""
    rows = {
        "recordings": lambda one: f"{one['recordings']:,}",
        "tokens per recording, mean": lambda one: f"{one['tokens_per_recording']['mean']:.1f}",
        "tokens per recording, least to most": lambda one: (
            f"{one['tokens_per_recording']['least']} to {one['tokens_per_recording']['most']}"
        ),
        "seconds per token, mean": lambda one: f"{one['seconds_per_token']:.2f}",
        "codes used": lambda one: f"{one['codes_used']:.0f} of {one['codebook_size']}",
        "entropy, bits": lambda one: f"{one['entropy']:.2f}",
        "entropy, share of the most there can be": lambda one: f"{one['normalized_entropy']:.1%}",
        "perplexity": lambda one: f"{one['perplexity']:.0f}",
        "divergence from Zipf's law, bits": lambda one: f"{one['zipf_js']:.3f}",
    }
    lines = [f"| | {' | '.join(report)} |", "|---|" + "---:|" * len(report)]
    lines += [f"| {name} | {' | '.join(say(one) for one in report.values())} |" for name, say in rows.items()]
    return "\n".join(lines) + "\n"
