"""A lexicon of action tokens: how often and how long each token occurs, for which classes it is typical, and examples."""

import colorsys
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .model_files import ModelFileError, as_written, read_json

# Pseudo-count of sentences of each class, which smooths the shares of rare tokens.
PRIOR = 1.0


@dataclass
class TokenEntry:
    """Statistics of a token.

    Attributes:
        action_id: The token.
        count: Number of occurrences.
        seconds: Mean duration of an occurrence.
        classes: Names and lifts of the classes for which the token is most typical. The lift is the smoothed share of the
            class's sentences that contain the token, divided by the share of all sentences; only lifts above 1.
        when: Mean position in the sentence, from 0 (start) to 1 (end).
        examples: Occurrences: sample id, start and end in seconds.
        description: What the token looks like, if it has been described. For videos, what happens in its occurrences
            (`describe_motions`), empty if they differ.
        measured: Number of occurrences that the description was measured on; 0 if it is not of occurrences.
        agreement: Share of these occurrences that agree with the description or, if they differ, on what is most frequent.
    """

    action_id: int
    count: int = 0
    seconds: float = 0.0
    classes: list[tuple[str, float]] = field(default_factory=list)
    when: float = 0.0
    examples: list[tuple[str, float, float]] = field(default_factory=list)
    description: str = ""
    measured: int = 0
    agreement: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The entry as a dict for JSON."""
        return asdict(self)


def read_lexicon(path: str | os.PathLike, num_action_tokens: int | None = None) -> list[TokenEntry]:
    """Reads a lexicon from `lexicon.json`, which has an entry for each token.

    Args:
        path: The file.
        num_action_tokens: Expected number of entries.

    Raises:
        ModelFileError: If the file is not a lexicon, or has another number of entries.
    """
    entries = read_json(path, list)
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ModelFileError(path, f"[{place}]", as_written(entry), "an entry of a lexicon, an object")
        for name, value in entry.items():
            if name not in _ENTRY_FIELDS or not _ENTRY_FIELDS[name](value):
                expected = "a field of an entry of a lexicon, of the right type"
                raise ModelFileError(path, f"[{place}].{name}", as_written(value), expected)
        if entry.get("action_id") != place:
            raise ModelFileError(
                path, f"[{place}].action_id", repr(entry.get("action_id")), f"{place}, its index in the list"
            )
    if num_action_tokens not in (None, len(entries)):
        expected = f"an entry for each of {num_action_tokens} action tokens"
        raise ModelFileError(path, None, f"{len(entries)} entries", expected)
    return [TokenEntry(**entry) for entry in entries]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_rows(value: Any, *columns: Callable) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list)
        and len(row) == 1 + len(columns)
        and isinstance(row[0], str)
        and all(is_right(cell) for is_right, cell in zip(columns, row[1:], strict=True))
        for row in value
    )


_ENTRY_FIELDS = {
    "action_id": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "count": lambda value: _is_count(value),
    "seconds": _is_number,
    "classes": lambda value: _are_rows(value, _is_number),
    "when": _is_number,
    "examples": lambda value: _are_rows(value, _is_number, _is_number),
    "description": lambda value: isinstance(value, str),
    "measured": lambda value: _is_count(value),
    "agreement": _is_number,
}


def build_lexicon(
    rows: Iterable[dict],
    class_names: Sequence[str],
    num_action_tokens: int,
    *,
    num_classes: int = 3,
    num_examples: int = 4,
) -> list[TokenEntry]:
    """
    Builds the lexicon of a set of sentences.

    Args:
        rows: Sentences: `sample_id`, `label`, `action_ids` (tokens, or words of several tokens), `start_times`, `end_times`.
        class_names: Names of the classes, in the order of their labels.
        num_action_tokens: Number K of tokens of all codebooks.
        num_classes, num_examples: Maximum numbers of classes and examples of an entry. Examples are taken from different
            recordings, in the order of the rows.

    Returns:
        `list[TokenEntry]`: an entry for each token from 0 to K − 1, including tokens that never occur.

    Raises:
        ValueError: If a token is out of range, or the number of times differs from the number of words.
    """
    entries = [TokenEntry(code) for code in range(num_action_tokens)]
    seconds, places = np.zeros(num_action_tokens), np.zeros(num_action_tokens)
    containing: dict[int, Counter] = defaultdict(Counter)  # token → class → number of sentences that contain it
    sentences = Counter()
    for row in rows:
        words = np.asarray(row["action_ids"], dtype=int)
        words = words[:, None] if words.ndim == 1 else words
        starts, ends = list(row["start_times"]), list(row["end_times"])
        if not len(words) == len(starts) == len(ends):
            raise ValueError(
                f"{row['sample_id']}: expected a start and an end for each of {len(words)} words, got {len(starts)} starts and "
                f"{len(ends)} ends."
            )
        if words.size and not 0 <= words.min() <= words.max() < num_action_tokens:
            raise ValueError(
                f"{row['sample_id']}: expected tokens from 0 to {num_action_tokens - 1}, got {words.min()} to {words.max()}."
            )
        sentences[int(row["label"])] += 1
        for token in np.unique(words).tolist():
            containing[token][int(row["label"])] += 1
        with_example = set()
        for place, (word, start, end) in enumerate(zip(words.tolist(), starts, ends, strict=True)):
            for token in word:
                entry = entries[token]
                entry.count += 1
                seconds[token] += end - start
                places[token] += place / max(len(words) - 1, 1)
                if token not in with_example and len(entry.examples) < num_examples:
                    entry.examples.append((str(row["sample_id"]), float(start), float(end)))
                with_example.add(token)
    total = sentences.total()
    for entry in entries:
        if not entry.count:
            continue
        counts = containing[entry.action_id]
        share = counts.total() / total
        lifts = {
            label: (counts[label] + PRIOR * share) / (sentences[label] + PRIOR) / share
            for label in sentences
            if counts[label]
        }
        best = sorted(lifts.items(), key=lambda item: (-item[1], item[0]))[:num_classes]
        # Rounded before the comparison, so that a lift of 1 plus a rounding error is not above 1.
        rounded = [(class_names[label], round(lift, 3)) for label, lift in best]
        entry.classes = [(name, lift) for name, lift in rounded if lift > 1]
        entry.seconds = float(seconds[entry.action_id] / entry.count)
        entry.when = float(places[entry.action_id] / entry.count)
    return entries


def token_color(action_id: int) -> str:
    """The colour of a token in all figures and pages, `#rrggbb`: light, so that dark text is readable on it.

    The hues of consecutive tokens differ by the golden ratio of the colour circle. Tokens whose hues are close again differ in
    lightness and saturation.
    """
    hue = action_id * 0.6180339887 % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.86, 0.72, 0.79)[action_id % 3], (0.75, 0.4)[action_id // 3 % 2])
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


__all__ = ["TokenEntry", "build_lexicon", "read_lexicon", "token_color"]
