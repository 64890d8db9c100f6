"""
How often the reasons that a language model writes are true: it gets what the narrator measured in recordings, with the true
class, and each statement of its text is checked.

```bash
python recipes/benchmarks/measure_written_reasons.py --writer smollm2 --dataset utd-mhad --data_dir UTD-MHAD/Skeleton \\
    --split test --count 30 --output written_reasons
```

No recogniser takes part: the moments are the narrator's two largest movements, where `explain=True` has what happens during the
tokens that support a class most. Recordings are spread evenly over the split; people who only stand or sit are left out. The
prompt was chosen on training subjects. The narrator's own text is checked too: what is not supported there is an error of the
check. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

import dataclasses
import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.explain_actions import spread

# Number of movements that stand for the moments of a decision, and of reasons that the page shows.
NUM_MOMENTS, NUM_SHOWN = 2, 10
TIMES = re.compile(r"\d\.\d")


@dataclass
class WrittenReasonArguments:
    """Who writes about which recordings."""

    writer: str = field(metadata={"help": "language model: repository, folder, GGUF file, or smollm2"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    split: Literal["train", "test"] = field(default="test", metadata={"help": "split whose recordings are described"})
    count: int = field(default=30, metadata={"help": "number of recordings, spread over the split"})

    def __post_init__(self):
        check_at_least_one(self, "count")


ARGUMENTS = (WrittenReasonArguments, DataArguments)


def main(arguments: WrittenReasonArguments, data: DataArguments) -> dict:
    """Writes, checks and prints the reasons; returns the contents of the JSON file."""
    from action_llm.motion_narration import narrate
    from action_llm.statement_checks import count_verdicts
    from action_llm.written_reasons import ReasonWriter, check_reason
    from action_llm_datasets.progress import progress
    from action_llm_recipes.benchmarks.results import write_results

    rows = data.load("skeletons")[arguments.split].with_format("numpy")
    names = rows.features["label"].names
    writer = ReasonWriter.from_pretrained(arguments.writer)
    reasons = []
    for index in progress(spread(len(rows), arguments.count), "writing", "recordings"):
        row = rows[index]
        facts = facts_of(names[int(row["label"])], narrate(row))
        if facts is None:
            continue
        start = time.process_time()
        reason = writer.write(facts)
        reasons.append(
            {
                "sample_id": row["sample_id"],
                "facts": facts.text,
                **dataclasses.asdict(reason),
                "accepted": reason.is_supported,
                "seconds": round(time.process_time() - start, 2),
                "narrator": count_verdicts(check_reason(facts.narration.text, facts)),
            }
        )
    if not reasons:
        raise ValueError(
            f"none of the recordings of {data.dataset}, split {arguments.split}, has a movement to write about."
        )
    record = {"writer": arguments.writer, "dataset": data.protocol(), "split": arguments.split, "reasons": reasons}
    write_results(arguments.output, record, page_of(record))
    return record


def facts_of(label: str, narration):
    """What the language model is told about a recording (`MeasuredFacts`); None if the first person does not move."""
    from action_llm.written_reasons import MeasuredFacts, Moment

    events = narration.events[0] if narration.events else []
    largest = sorted(sorted(events, key=lambda event: -event.amount)[:NUM_MOMENTS], key=lambda event: event.start)
    if not largest:
        return None
    moments = [Moment(event.movement, ((event.start, event.end),)) for event in largest]
    return MeasuredFacts(label, moments, narration)


def page_of(record: dict) -> str:
    """The results in Markdown: counts, and some reasons as they came."""
    reasons = record["reasons"]
    accepted = [reason for reason in reasons if reason["accepted"]]
    written = Counter(statement["verdict"] for reason in reasons for statement in reason["statements"])
    narrated = sum((Counter(reason["narrator"]) for reason in reasons), Counter())
    with_contradiction = [
        reason for reason in reasons if any(one["verdict"] == "contradicted" for one in reason["statements"])
    ]
    seconds = statistics.median(reason["seconds"] for reason in reasons)
    with_time = sum(bool(TIMES.search(reason["text"])) for reason in accepted)
    lines = [
        f"{len(reasons)} reasons by {record['writer']} ({record['dataset']}, split {record['split']}): {len(accepted)} "
        f"accepted, {len(reasons) - len(accepted)} rejected, of which {len(with_contradiction)} have a contradicted statement "
        f"and {sum(not reason['text'] for reason in reasons)} no complete sentence. {with_time} of the accepted ones give a "
        f"time. Median: {seconds:.1f} CPU seconds per reason.",
        "",
        "| statements | supported | contradicted | not measured |",
        "|---|---|---|---|",
        *(
            f"| {name} | {counts['supported']} | {counts['contradicted']} | {counts['not checkable']} |"
            for name, counts in (("of the language model", written), ("of the narrator", narrated))
        ),
    ]
    for index in spread(len(reasons), NUM_SHOWN):
        reason = reasons[index]
        wrong = {"contradicted": "contradicted", "not checkable": "not measured"}
        others = [
            f"“{one['text']}” ({wrong[one['verdict']]})" for one in reason["statements"] if one["verdict"] in wrong
        ]
        lines += ["", f"**{reason['sample_id']}**, {'accepted' if reason['accepted'] else 'rejected'}", "", "```text"]
        lines += [reason["facts"], "", f"→ {reason['text']}", "```"]
        lines += ["", f"Rejected for {'; '.join(others)}."] if others else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
