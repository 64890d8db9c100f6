"""
Write visual event sentences as texts that people can judge: the input of `sheets.py --study events` (VT-LVLM-AR, Table III).

```bash
python recipes/rating/event_texts.py --items ours=runs/events/sentences uniform=runs/uniform/sentences \\
    --output_dir runs/events/event_texts
```

Each folder of `--items` was written by `encode_actions.py`. The baseline of the paper has events of equal length and no
coherence loss: train it with `--pooling uniform --coherence_weight 0` (`train_tokenizer.py`), or with the same options behind
`--tokenizer.` (`run_line.py`).

A token has no meaning for a person, so it is described by the training recordings in which it occurs. Each line of a text is an
event: its time, and the actions that its token is most typical of, with their phase:

    0.0 to 0.6 s: as at the beginning of throw or catch

Successive events of the same description are one line. The recipe writes NAME.jsonl for each name, with the fields `sample_id`
and `text`. It reads the classes of training recordings only.
"""

import json
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.written_folders import check_written_folder
from action_llm_recipes.rating.sheets import named_sources

logger = logging.getLogger(__name__)

PHASES = ("beginning", "middle", "end")


@dataclass
class EventTextArguments:
    """The sentences that are described, and how."""

    items: list[str] = field(
        metadata={"help": "systems to compare, ours first: folders that encode_actions.py wrote, as NAME=PATH or PATH"}
    )
    output_dir: str = field(metadata={"help": "folder for NAME.jsonl"})
    split: Literal["test", "held_out"] = field(
        default="test",
        metadata={"help": "recordings to describe: test, or held_out (held-out training subjects)"},
    )
    classes: int = field(default=2, metadata={"help": "maximum number of actions that a line names"})
    lines: int = field(
        default=12,
        metadata={
            "help": "maximum number of lines of a text; if there are more, neighbours are joined, and the description that "
            "lasts longest is kept"
        },
    )

    def __post_init__(self):
        check_at_least_one(self, "classes", "lines")


ARGUMENTS = (EventTextArguments,)


def main(arguments: EventTextArguments) -> dict[str, Path]:
    """Writes the texts; returns the file of each system."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.action_sentences import load_action_sentences, select_split

    files = {}
    for name, folder in named_sources(arguments.items).items():
        check_written_folder(str(folder), "encode_actions.py")
        sentences = load_action_sentences(folder)
        descriptions = token_descriptions(training_rows(sentences, arguments.split), arguments.classes)
        entries = [
            {"sample_id": row["sample_id"], "text": event_text(row, descriptions, arguments.lines)}
            for row in select_split(sentences, arguments.split)
        ]
        files[name] = Path(arguments.output_dir, f"{name}.jsonl")
        write_atomically(files[name], "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
        logger.info("%d recordings of %s in %s", len(entries), arguments.split, files[name])
    return files


def training_rows(sentences, split: str):
    """The sentences of the training recordings that are not described, without augmented versions."""
    from action_llm_recipes.common.action_sentences import first_encodings, select_split

    return select_split(sentences, "train") if split == "held_out" else first_encodings(sentences["train"])


def token_descriptions(rows, num_classes: int) -> dict[int, str]:
    """
    A description of each token that occurs in training sentences.

    Args:
        rows: training sentences, of one token per word.
        num_classes: maximum number of classes in a description.

    Raises:
        ValueError: if a word has several tokens.
    """
    import numpy as np

    from action_llm.token_lexicon import build_lexicon

    if np.ndim(rows[0]["action_ids"]) != 1:
        raise ValueError(
            "expected sentences of one token per word, got words of several tokens: visual events have one each "
            "(num_codebooks 1)."
        )
    size = 1 + max(max(ids) for ids in rows["action_ids"])
    lexicon = build_lexicon(rows, rows.features["label"].names, size, num_classes=num_classes, num_examples=0)
    return {entry.action_id: describe(entry) for entry in lexicon if entry.count}


def describe(entry) -> str:
    """The classes that a token is typical of, with their phase (`TokenEntry`)."""
    if not entry.classes:
        return "as in every action"
    phase = PHASES[min(int(entry.when * len(PHASES)), len(PHASES) - 1)]
    preposition = "in" if phase == "middle" else "at"
    return f"as {preposition} the {phase} of {' or '.join(name for name, _ in entry.classes)}"


def event_text(row: dict, descriptions: dict[int, str], num_lines: int) -> str:
    """
    The text of a sentence, a line for each event.

    Args:
        row: the sentence.
        descriptions: token → description (`token_descriptions`).
        num_lines: maximum number of lines.
    """
    events: list[tuple[float, float, str]] = []
    for token, start, end in zip(row["action_ids"], row["start_times"], row["end_times"], strict=True):
        description = descriptions.get(token, "unlike anything in the training recordings")
        if events and events[-1][2] == description:
            start, end = min(events[-1][0], start), max(events[-1][1], end)
            events.pop()
        events.append((start, end, description))
    count = min(num_lines, len(events))
    groups = [events[len(events) * i // count : len(events) * (i + 1) // count] for i in range(count)]
    return "\n".join(map(_line, groups))


def _line(events: list[tuple[float, float, str]]) -> str:
    """The line of neighbouring events: their time, and the description that lasts longest."""
    seconds: dict[str, float] = defaultdict(float)
    for start, end, description in events:
        seconds[description] += end - start
    longest = max(seconds, key=seconds.__getitem__)
    return f"{min(e[0] for e in events):.1f} to {max(e[1] for e in events):.1f} s: {longest}"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
