"""The data set card of prepared recordings: README.md, which the Hub shows and `load_dataset` reads."""

from typing import TYPE_CHECKING

import yaml

from action_llm.escaping import markdown

from .doubts import doubt_lines
from .names import METRICS, REPORT_NAME
from .preparation_report import cleaning_counts, nothing_left_out

if TYPE_CHECKING:
    from .building import SkeletonBuilder

_PRIVATE = "This copy is for people with access to the data set: keep the repository private."
_READ_VIDEO = """path = rows[0]["video"]"""
_READ_KEYPOINTS = """keypoints = rows.with_format("numpy")[0]["keypoints"]
keypoints = keypoints.reshape(rows[0]["shape"])  # (frames, people, joints, 3)"""


def data_set_card(name: str, builders: "list[SkeletonBuilder]", accounts: dict[str, dict]) -> str:
    """The card in Markdown: how to load the data set, its counts, protocol and terms, and what was left out.

    Args:
        name: of the protocol.
        builders: of its configs.
        accounts: config → its account, as in `preparation.json`.
    """
    first = builders[0]
    is_simulated = name.startswith("simulated")
    title = "Simulated recordings with NTU names" if is_simulated else first.TITLE
    sections = [
        _front_matter(f"{title} ({name})", builders, accounts, is_simulated),
        f"# {title}: {name}",
        *(
            ["**Simulated.** A kinematic simulator generated these skeletons; no people were recorded."]
            if is_simulated
            else []
        ),
        _rows_text(first),
        _loading(first, accounts),
        _counts_table(accounts),
        *([f"Splits: {first.protocol_rule()}"] if first.protocol_rule() else []),
        f"Classes: {_class_counts(builders)}. Models are compared by {METRICS[first.METRIC]}.\n"
        "`held_out` marks the training recordings that select checkpoints and settings.",
        *_section("To check", _doubts(accounts)),
        *_section("Left out", _left_out(accounts)),
        f"`{REPORT_NAME}` gives the reason for each file. `report.html` shows unusual recordings beside typical recordings.",
        *_section("Cleaning", _cleaning(first.config.clean, accounts)),
        *_section("Terms", [_terms(first, is_simulated)]),
        *([] if first.may_be_published else [_PRIVATE]),
        *(_section("Citation", [first.CITATION]) if first.CITATION and not is_simulated else []),
    ]
    return "\n\n".join(sections) + "\n"


def _section(title: str, paragraphs: list[str]) -> list[str]:
    return [f"## {title}", *paragraphs] if paragraphs else []


def _front_matter(
    pretty_name: str, builders: "list[SkeletonBuilder]", accounts: dict[str, dict], is_simulated: bool
) -> str:
    """The YAML block that the Hub and `load_dataset` read."""
    configs = []
    for builder in builders:
        splits = [split for split, count in accounts[builder.config.name]["recordings"].items() if count]
        files = [{"split": split, "path": f"{builder.config.name}/{split}-*.parquet"} for split in splits]
        configs.append({"config_name": builder.config.name, "data_files": files})
    has_skeletons = "keypoints" in builders[0].info.features
    card = {
        "pretty_name": pretty_name,
        "license": "other",
        "task_categories": ["video-classification"],
        "tags": ["action-recognition"] + ["skeleton"] * has_skeletons + ["simulated"] * is_simulated,
        "configs": configs,
    }
    return "---\n" + yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=1000) + "---"


def _rows_text(builder: "SkeletonBuilder") -> str:
    """What a row holds."""
    features = builder.info.features
    if "video" in features:
        skeletons = " and its skeletons" if "keypoints" in features else ""
        return f"Each row has the path of a video, relative to the folder of the raw files{skeletons}."
    if builder.config.clean:
        return "Each row has the people of a recording (see Cleaning). Nothing is resampled, padded or normalised."
    return (
        "Each row has the skeletons of a recording as they were recorded. Nothing is resampled, padded or normalised."
    )


def _loading(builder: "SkeletonBuilder", accounts: dict[str, dict]) -> str:
    """The lines of Python that load the first split with recordings."""
    config, split = next(
        (config, split)
        for config, account in accounts.items()
        for split, count in account["recordings"].items()
        if count
    )
    read = _READ_VIDEO if "video" in builder.info.features else _READ_KEYPOINTS
    return f"""```python
from datasets import load_dataset

rows = load_dataset("path or repository", "{config}")["{split}"]
{read}
```"""


def _counts_table(accounts: dict[str, dict]) -> str:
    lines = ["| config | split | recordings | published |", "|---|---|---:|---:|"]
    for config, account in accounts.items():
        for split, count in account["recordings"].items():
            published = account["published"].get(split)
            lines.append(f"| {config} | {split} | {count:,} | {'' if published is None else f'{published:,}'} |")
    return "\n".join(lines)


def _class_counts(builders: "list[SkeletonBuilder]") -> str:
    counts = [(len(builder.info.features["label"].names), builder.config.name) for builder in builders]
    return ", ".join(f"{count} ({config})" if len(counts) > 1 else f"{count}" for count, config in counts)


def _doubts(accounts: dict[str, dict]) -> list[str]:
    lines = [
        f"- {config}: {markdown(line)}"
        for config, account in accounts.items()
        for line in doubt_lines(account["doubts"])
    ]
    return ["\n".join(lines)] if lines else []


def _left_out(accounts: dict[str, dict]) -> list[str]:
    lines = []
    for config, account in accounts.items():
        counts = [f"{count:,} ({markdown(category)})" for category, count in account["skipped"].items()]
        lines.append(f"- {config}: {', '.join(counts) or nothing_left_out(account)}")
    return ["\n".join(lines)]


def _cleaning(is_applied: bool, accounts: dict[str, dict]) -> list[str]:
    """What cleaning does to the recordings; empty if it changes none."""
    lines = [
        f"- {config}, {count:,} recording{'s' * (count != 1)}: {text}"
        for config, account in accounts.items()
        for text, count in cleaning_counts(account)
    ]
    if not lines:
        return []
    state = (
        "Rows hold people instead of tracked bodies:"
        if is_applied
        else "Rows hold all tracked bodies. Cleaning would find:"
    )
    return [state, "\n".join(lines), f"`{REPORT_NAME}` names the recordings."]


def _terms(builder: "SkeletonBuilder", is_simulated: bool) -> str:
    terms = markdown(builder.terms or "The terms are those of the people who made the recordings.")
    return terms if is_simulated or not builder.HOMEPAGE else f"{terms}\n\nHome page: {builder.HOMEPAGE}"
