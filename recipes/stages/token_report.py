"""What the sentences of a data set are like: tokens per recording, their durations, use of the codebook (LVLM-VAR, Fig. 1)."""

import json
from pathlib import Path

import numpy as np


def write_token_report(folder: Path, sentences, num_action_tokens: int, codes_per_word: int = 1) -> dict:
    """Writes tokens.json, tokens.md and, of the training split, token_usage.png and sentence_lengths.png.

    Args:
        folder: where they go.
        sentences: splits as `load_action_sentences` gives them; of each recording the unaugmented sentence counts.
        num_action_tokens: number of codes, of all codebooks.
        codes_per_word: number of codebooks.

    Returns:
        What tokens.json holds: for each split, what [`describe_sentences`] says.
    """
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.metrics.plots import plot_sentence_lengths, plot_token_usage

    report = {}
    for split, rows in sentences.items():
        rows = rows.select([index for index, encoding in enumerate(rows["encoding"]) if encoding == 0])
        columns = rows.select_columns(["action_ids", "start_times", "end_times"]).with_format("numpy")[:]
        ids, starts, ends = (list(columns[name]) for name in ("action_ids", "start_times", "end_times"))
        report[split] = describe_sentences(ids, starts, ends, num_action_tokens, codes_per_word)
        if split == "train":
            # As the numbers of the table: of words of several tokens, the first ones.
            firsts = np.concatenate([words.reshape(len(words), -1)[:, 0] for words in ids])
            counts = np.bincount(firsts, minlength=num_action_tokens // codes_per_word)
            title = "Use of the action words" if codes_per_word == 1 else "Use of the first tokens of words"
            plot_token_usage(counts, folder / "token_usage.png", title=title)
            plot_sentence_lengths([len(one) for one in ids], folder / "sentence_lengths.png")
    write_atomically(folder / "tokens.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "tokens.md", _table(report))
    return report


def describe_sentences(ids: list, starts: list, ends: list, num_action_tokens: int, codes_per_word: int = 1) -> dict:
    """Properties of some sentences.

    Args:
        ids: of the tokens, one array (W,) a recording; of words of several tokens, (W, codes_per_word).
        starts, ends: their times in seconds, alike.
        num_action_tokens: number of codes, of all codebooks.
        codes_per_word: number of codebooks.

    Returns:
        `recordings`; `words_per_recording` (`mean`, `median`, `least`, `most`) and `seconds_per_word`, the mean;
        `codes_per_word`; `num_action_tokens`; `bits_per_recording`, what its words can tell at most; and what
        `word_statistics` says, entropy in bits. None for what too few tokens leave open.

    Raises:
        ValueError: no tokens at all.
    """
    import torch

    from action_llm.language_priors import word_statistics
    from action_llm_recipes.common.run_folder import without_nan

    lengths = np.array([len(one) for one in ids])
    if not lengths.sum():
        raise ValueError(f"{len(ids)} recordings without a single token.")
    counts = np.bincount(np.concatenate(ids).ravel(), minlength=num_action_tokens)
    statistics = word_statistics(torch.from_numpy(counts), codes_per_word)
    durations = np.concatenate(ends) - np.concatenate(starts)
    return {
        "recordings": len(ids),
        "words_per_recording": {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "least": int(lengths.min()),
            "most": int(lengths.max()),
        },
        "seconds_per_word": float(durations.mean(dtype=np.float64)),
        "codes_per_word": codes_per_word,
        "num_action_tokens": num_action_tokens,
        "bits_per_recording": float(lengths.mean()) * statistics["bits_per_word"],
        **without_nan(statistics),
    }


def _table(report: dict) -> str:
    """Markdown: a property a row, a split a column."""
    rows = {
        "recordings": lambda one: f"{one['recordings']:,}",
        "words per recording, mean": lambda one: f"{one['words_per_recording']['mean']:.1f}",
        "words per recording, least to most": lambda one: (
            f"{one['words_per_recording']['least']} to {one['words_per_recording']['most']}"
        ),
        "seconds per word, mean": lambda one: f"{one['seconds_per_word']:.2f}",
        "tokens per word": lambda one: f"{one['codes_per_word']}",
        "codes used": lambda one: f"{one['codes_used']:.0f} of {one['num_action_tokens']}",
        "bits per word, at most": lambda one: f"{one['bits_per_word']:.2f}",
        "bits per recording, at most": lambda one: f"{one['bits_per_recording']:.0f}",
        "entropy, bits": lambda one: f"{one['entropy']:.2f}",
        "entropy, share of the most there can be": lambda one: f"{one['normalized_entropy']:.1%}",
        "perplexity": lambda one: f"{one['perplexity']:.0f}",
        "divergence from Zipf's law, bits": lambda one: f"{one['zipf_js']:.3f}",
    }
    lines = [f"| | {' | '.join(report)} |", "|---|" + "---:|" * len(report)]
    lines += [f"| {name} | {' | '.join(say(one) for one in report.values())} |" for name, say in rows.items()]
    if any(one["codes_per_word"] > 1 for one in report.values()):
        lines += ["", "Entropy, perplexity and divergence are those of the first tokens of words."]
    return "\n".join(lines) + "\n"
