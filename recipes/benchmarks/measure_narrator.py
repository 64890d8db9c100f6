"""
How often the narrator describes the motion that an action of UTD-MHAD is named after: hands that meet in *clap*, a clockwise
circle in *draw circle (clockwise)*, hips that go down and up in *squat*.

```bash
python recipes/benchmarks/measure_narrator.py --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --split test --output narrator
```

Actions whose motion has no name of its own, such as *knock* and *catch*, are left out. The narrator's rules were chosen on the
training subjects. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch

# Class → part, kind and way of movements that must all be described. The part may also be "both …"; kinds are separated by "|";
# the way must contain the text.
MOTIONS = {
    "swipe left": [("right hand", "move", "to the left")],
    "swipe right": [("right hand", "move", "to the right")],
    "wave": [("right hand", "swing", "from side to side")],
    "clap": [("both hands", "meet", "")],
    "cross arms": [("both hands", "cross", "")],
    "draw circle (clockwise)": [("right hand", "circle", " clockwise")],
    "draw circle (counter clockwise)": [("right hand", "circle", "counterclockwise")],
    "boxing": [("right hand", "move|swing", "forward"), ("left hand", "move|swing", "forward")],
    "arm curl": [("right hand", "raise", ""), ("left hand", "raise", "")],
    "push": [("right hand", "move", "forward"), ("left hand", "move", "forward")],
    "jog": [("body", "pace|walk", "")],
    "walk": [("body", "pace|walk", "")],
    "sit to stand": [("body", "rise", "")],
    "stand to sit": [("body", "sink", "")],
    "lunge": [("body", "lunge", "")],
    "squat": [("body", "sink", ""), ("body", "rise", "")],
}


@dataclass
class NarratorArguments:
    """Which recordings are described."""

    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    split: Literal["train", "test"] = field(default="test", metadata={"help": "split whose recordings are described"})


ARGUMENTS = (NarratorArguments, DataArguments)


def main(arguments: NarratorArguments, data: DataArguments) -> dict:
    """Counts, writes and prints the page; returns the contents of the JSON file."""
    from action_llm.motion_narration import narrate
    from action_llm_datasets.progress import progress
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.metrics.action_classification.classification_scores import wilson_interval

    rows = data.load("skeletons")[arguments.split].with_format("numpy")
    names = rows.features["label"].names
    if missing := set(MOTIONS) - set(names):
        raise ValueError(
            f"{data.dataset} has no class {min(missing)!r}: choose a protocol of UTD-MHAD with all classes."
        )
    counts = {name: {"recordings": 0, "described": 0} for name in MOTIONS}
    for row in progress(rows, "describing", "recordings"):
        name = names[int(row["label"])]
        if name in MOTIONS:
            events = narrate(row).events
            counts[name]["recordings"] += 1
            counts[name]["described"] += describes(events[0] if events else [], MOTIONS[name])
    total, right = (sum(count[key] for count in counts.values()) for key in ("recordings", "described"))
    share = dataclasses.asdict(wilson_interval(right / total, total))
    record = {"dataset": data.protocol(), "split": arguments.split, "classes": counts, "share": share}
    write_results(arguments.output, record, page_of(record, right, total))
    return record


def describes(events: Sequence, motions: Sequence[tuple[str, str, str]]) -> bool:
    """Whether movements (`MotionEvent`) include all those that a class is named after."""
    return all(
        any(
            event.part in (part, f"both {part.split()[-1]}s")
            and event.kind in kind.split("|")
            and way in f" {event.way}"
            for event in events
        )
        for part, kind, way in motions
    )


def page_of(record: dict, right: int, total: int) -> str:
    """The results in Markdown."""
    share = record["share"]
    lines = [
        f"The narrator describes the motion of {right} of {total} recordings ({100 * share['estimate']:.1f} %, 95 % interval "
        f"{100 * share['low']:.1f}–{100 * share['high']:.1f}), split {record['split']}.",
        "",
        "| action | recordings | described |",
        "|---|---|---|",
        *(f"| {name} | {count['recordings']} | {count['described']} |" for name, count in record["classes"].items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
