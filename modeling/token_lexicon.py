"""A lexicon of action tokens: for every code, how often and how long it is, which classes it speaks for, where to see it."""

import colorsys
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .model_files import ModelFileError, as_written, read_json

# Sentences that are added to each class before its share is taken, so that one occurrence is no certainty.
PRIOR = 1.0


@dataclass
class TokenEntry:
    """What there is to know about one code.

    Attributes:
        action_id: The code.
        count: Occurrences.
        seconds: Mean duration of an occurrence.
        classes: Names and lifts of the classes that it speaks for most: how many times as frequent its sentences are in the
            class as in all recordings, each counted once and smoothed; only those above 1.
        when: Mean place in the sentence, from 0 (its start) to 1.
        examples: Where it occurs: sample id, start and end in seconds.
        description: What it looks like, where somebody has said it.
    """

    action_id: int
    count: int = 0
    seconds: float = 0.0
    classes: list[tuple[str, float]] = field(default_factory=list)
    when: float = 0.0
    examples: list[tuple[str, float, float]] = field(default_factory=list)
    description: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_lexicon(path: str | os.PathLike, num_action_tokens: int | None = None) -> list[TokenEntry]:
    """A lexicon as `lexicon.json` holds it, an entry for each code.

    Args:
        path: The file.
        num_action_tokens: Number of codes that it is to have entries for.

    Raises:
        ModelFileError: The file holds something else.
    """
    entries = read_json(path, list)
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ModelFileError(path, f"[{place}]", as_written(entry), "an entry of a lexicon, an object")
        for name, value in entry.items():
            if name not in _ENTRY_FIELDS or not _ENTRY_FIELDS[name](value):
                expected = "the fields of an entry of a lexicon, and their types"
                raise ModelFileError(path, f"[{place}].{name}", as_written(value), expected)
        if entry.get("action_id") != place:
            raise ModelFileError(path, f"[{place}].action_id", repr(entry.get("action_id")), f"{place}, its place")
    if num_action_tokens not in (None, len(entries)):
        raise ModelFileError(
            path, None, f"{len(entries)} entries", f"one for each of {num_action_tokens} action tokens"
        )
    return [TokenEntry(**entry) for entry in entries]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "seconds": _is_number,
    "classes": lambda value: _are_rows(value, _is_number),
    "when": _is_number,
    "examples": lambda value: _are_rows(value, _is_number, _is_number),
    "description": lambda value: isinstance(value, str),
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
    Args:
        rows: Sentences: `sample_id`, `label`, `action_ids` (tokens, or words of several), `start_times`, `end_times`.
        class_names: Names in label order.
        num_action_tokens: Number of codes K, of all codebooks.
        num_classes, num_examples: How many of each an entry names, at most. Examples are of different recordings, the first
            ones in order.

    Returns:
        An entry for each code, 0 to K − 1, also for those that never occur.

    Raises:
        ValueError: A token that is none, or times that are not as many as tokens.
    """
    entries = [TokenEntry(code) for code in range(num_action_tokens)]
    seconds, places = np.zeros(num_action_tokens), np.zeros(num_action_tokens)
    holders: dict[int, Counter] = defaultdict(Counter)  # code → class → sentences that hold it
    sentences = Counter()
    for row in rows:
        words = np.asarray(row["action_ids"], dtype=int)
        words = words[:, None] if words.ndim == 1 else words
        starts, ends = list(row["start_times"]), list(row["end_times"])
        if not len(words) == len(starts) == len(ends):
            raise ValueError(f"{row['sample_id']}: {len(words)} tokens, {len(starts)} starts, {len(ends)} ends.")
        if words.size and not 0 <= words.min() <= words.max() < num_action_tokens:
            raise ValueError(
                f"{row['sample_id']}: tokens {words.min()} to {words.max()}, expected 0 to {num_action_tokens - 1}."
            )
        sentences[int(row["label"])] += 1
        for code in np.unique(words).tolist():
            holders[code][int(row["label"])] += 1
        seen = set()
        for place, (word, start, end) in enumerate(zip(words.tolist(), starts, ends, strict=True)):
            for code in word:
                entry = entries[code]
                entry.count += 1
                seconds[code] += end - start
                places[code] += place / max(len(words) - 1, 1)
                if code not in seen and len(entry.examples) < num_examples:
                    entry.examples.append((str(row["sample_id"]), float(start), float(end)))
                seen.add(code)
    total = sentences.total()
    for entry in entries:
        if not entry.count:
            continue
        held = holders[entry.action_id]
        share = held.total() / total
        lifts = {
            label: (held[label] + PRIOR * share) / (sentences[label] + PRIOR) / share
            for label in sentences
            if held[label]
        }
        best = sorted(lifts.items(), key=lambda item: (-item[1], item[0]))[:num_classes]
        # Rounded first: 1 and the last digit of a float is no more than 1.
        rounded = [(class_names[label], round(lift, 3)) for label, lift in best]
        entry.classes = [(name, lift) for name, lift in rounded if lift > 1]
        entry.seconds = float(seconds[entry.action_id] / entry.count)
        entry.when = float(places[entry.action_id] / entry.count)
    return entries


def token_color(action_id: int) -> str:
    """The colour of a token in every picture and page, `#rrggbb`: light, so that dark text can be read on it.

    Hues of tokens that follow each other are the golden ratio of a turn apart; of those that come near again, lightness and
    saturation differ.
    """
    hue = action_id * 0.6180339887 % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.86, 0.72, 0.79)[action_id % 3], (0.75, 0.4)[action_id // 3 % 2])
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


__all__ = ["TokenEntry", "build_lexicon", "read_lexicon", "token_color"]
