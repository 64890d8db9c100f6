"""Statistics of the sentences of a data set: words per recording, their durations, usage of the codebook (LVLM-VAR, Fig. 1)."""

import json
from pathlib import Path

import numpy as np


def write_token_report(folder: Path, sentences, num_action_tokens: int, codes_per_word: int = 1) -> dict:
    """Writes tokens.json, tokens.md and, for the training split, token_usage.png and sentence_lengths.png.

    Args:
        folder: where the files go.
        sentences: splits, as `load_action_sentences` returns them. Only the unaugmented sentence of a recording counts.
        num_action_tokens: number of codes in all codebooks.
        codes_per_word: number of codebooks.

    Returns:
        The content of tokens.json: for each split, what [`describe_sentences`] returns.
    """
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.action_sentences import first_encodings
    from action_llm_recipes.metrics.plots import plot_sentence_lengths, plot_token_usage

    report = {}
    for split, rows in sentences.items():
        columns = (
            first_encodings(rows).select_columns(["action_ids", "start_times", "end_times"]).with_format("numpy")[:]
        )
        ids, starts, ends = (list(columns[name]) for name in ("action_ids", "start_times", "end_times"))
        report[split] = describe_sentences(ids, starts, ends, num_action_tokens, codes_per_word)
        if split == "train":
            # Like the statistics in the table, the picture is of the first tokens of words.
            first_codes = np.concatenate([words.reshape(len(words), -1)[:, 0] for words in ids])
            counts = np.bincount(first_codes, minlength=num_action_tokens // codes_per_word)
            title = "Usage of the action words" if codes_per_word == 1 else "Usage of the first tokens of words"
            plot_token_usage(counts, folder / "token_usage.png", title=title)
            plot_sentence_lengths([len(words) for words in ids], folder / "sentence_lengths.png")
    write_atomically(folder / "tokens.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "tokens.md", _table(report))
    return report


def describe_sentences(ids: list, starts: list, ends: list, num_action_tokens: int, codes_per_word: int = 1) -> dict:
    """Statistics of sentences.

    Args:
        ids: for each recording, the tokens (W,), or (W, codes_per_word) with words of several tokens.
        starts, ends: for each recording, the times (W,) at which words start and end, in seconds.
        num_action_tokens: number of codes in all codebooks.
        codes_per_word: number of codebooks.

    Returns:
        `dict`:
        - `recordings`: number of recordings;
        - `words_per_recording`: its `mean`, `median`, `least` and `most`;
        - `seconds_per_word`: mean duration of a word;
        - `codes_per_word`, `num_action_tokens`: as given;
        - `bits_per_recording`: upper bound on the information in a sentence;
        - what `word_statistics` returns, with None for what cannot be computed from so few tokens.

    Raises:
        ValueError: if no recording has a token.
    """
    import torch

    from action_llm.language_priors import word_statistics
    from action_llm_recipes.common.run_folder import without_nan

    lengths = np.array([len(words) for words in ids])
    if not lengths.sum():
        raise ValueError(f"none of the {len(ids)} recordings has a token: the action model wrote empty sentences.")
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
    """Markdown table with a row for each statistic and a column for each split."""
    rows = {
        "recordings": lambda split: f"{split['recordings']:,}",
        "words per recording, mean": lambda split: f"{split['words_per_recording']['mean']:.1f}",
        "words per recording, least to most": lambda split: (
            f"{split['words_per_recording']['least']} to {split['words_per_recording']['most']}"
        ),
        "seconds per word, mean": lambda split: f"{split['seconds_per_word']:.2f}",
        "tokens per word": lambda split: f"{split['codes_per_word']}",
        "codes used": lambda split: f"{split['codes_used']:.0f} of {split['num_action_tokens']}",
        "bits per word, at most": lambda split: f"{split['bits_per_word']:.2f}",
        "bits per recording, at most": lambda split: f"{split['bits_per_recording']:.0f}",
        "entropy, bits": lambda split: f"{split['entropy']:.2f}",
        "entropy, share of the maximum": lambda split: f"{split['normalized_entropy']:.1%}",
        "perplexity": lambda split: f"{split['perplexity']:.0f}",
        "divergence from Zipf's law, bits": lambda split: f"{split['zipf_js']:.3f}",
    }
    lines = [f"| | {' | '.join(report)} |", "|---|" + "---:|" * len(report)]
    lines += [f"| {name} | {' | '.join(map(write, report.values()))} |" for name, write in rows.items()]
    if any(split["codes_per_word"] > 1 for split in report.values()):
        lines += ["", "Entropy, perplexity and divergence are those of the first tokens of words."]
    return "\n".join(lines) + "\n"
