"""
Write the repository of a benchmark on the Hub: the splits of protocols for skeletons, as names of recordings.

```bash
python recipes/hub/splits.py --dataset utd-mhad nw-ucla-xview --data_dir UTD-MHAD/Skeleton NW-UCLA \\
    --output_dir runs/skeleton-action-recognition
hf upload me/skeleton-action-recognition runs/skeleton-action-recognition --repo-type dataset
```

Each protocol is a config, with a row for each recording: its name, its label, and whether it is held out for model selection.
Recordings are not opened, and nothing of them is written but their names. A folder that has not all recordings of the published
data set is refused.

`eval.yaml` makes the repository a benchmark, with a task for each protocol. `push.py` writes the results of recognisers to
`.eval_results`, for the repository `OWNER/skeleton-action-recognition` unless `--benchmark` names another. The Hub shows them
as a leaderboard once its team has allowed the repository to be a benchmark
(https://huggingface.co/docs/hub/eval-results#registering-a-benchmark).
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from action_llm_datasets.names import METRICS, check_protocol
from action_llm_recipes.common.launching import launch

if TYPE_CHECKING:
    from action_llm_datasets.building import SkeletonBuilder

logger = logging.getLogger(__name__)

TITLE = "Skeleton action recognition"


class SplitsError(ValueError):
    """The splits of a protocol cannot be written; the message says why."""


@dataclass
class SplitsArguments:
    """The protocols of a benchmark, and where its repository is written."""

    dataset: list[str] = field(metadata={"help": "protocols for skeletons, such as ntu60-xsub utd-mhad"})
    data_dir: list[str] = field(metadata={"help": "folder of the raw files of each protocol, in the same order"})
    output_dir: str = field(metadata={"help": "folder for the repository"})

    def __post_init__(self):
        if len(self.dataset) != len(self.data_dir):
            raise ValueError(
                f"--data_dir: expected a folder for each protocol, found {len(self.data_dir)} folders for "
                f"{len(self.dataset)} protocols."
            )
        for name in self.dataset:
            check_protocol(name)
            if name == "folder" or name.startswith("simulated") or "-video" in name:
                raise ValueError(
                    f"--dataset: expected protocols of published skeletons, found {name}: names of your own recordings, of "
                    "simulated ones and of videos are not published."
                )


ARGUMENTS = (SplitsArguments,)


def main(arguments: SplitsArguments) -> Path:
    """Writes the repository; returns its folder."""
    from action_llm_datasets.atomic_files import write_atomically, written_whole
    from action_llm_datasets.load import PROTOCOLS

    folder, benchmark, files = Path(arguments.output_dir), {}, {}
    for name, data_dir in zip(arguments.dataset, arguments.data_dir, strict=True):
        builder_class, configs = PROTOCOLS[name]
        benchmark[name] = []
        for config in configs:
            builder = builder_class(config_name=config, data_dir=data_dir)
            splits = splits_of(builder)
            files |= {folder / config / f"{split}.parquet": rows for split, rows in splits.items()}
            benchmark[name].append((builder, {split: len(rows) for split, rows in splits.items()}))
    for path, rows in files.items():
        with written_whole(path) as unfinished:
            rows.to_parquet(unfinished)
    write_atomically(folder / "eval.yaml", eval_yaml(benchmark))
    write_atomically(folder / "README.md", page(benchmark))
    logger.info("The splits of %s are in %s", ", ".join(benchmark), folder)
    return folder


def splits_of(builder: "SkeletonBuilder") -> dict:
    """The recordings of each split of a config, as `datasets.Dataset`s of names, labels and `held_out`.

    Raises:
        DataFolderError: if the folder has no recording of the config.
        SplitsError: if a split has another number of recordings than the published one.
    """
    import datasets

    from action_llm_datasets.building import SourceFile

    paths, _ = builder.assign()
    counts, published = {split: len(listed) for split, listed in paths.items()}, builder.published_counts()
    compared = {"in all": sum(counts.values())} if "in all" in published else counts
    for split, count in published.items():
        if compared[split] != count:
            raise SplitsError(
                f"{builder.config.name}: expected the {count:,} recordings of the published data set ({split}), found "
                f"{compared[split]:,} in {builder.config.data_dir}: a benchmark needs all of them."
            )
    features = datasets.Features(
        {
            "sample_id": datasets.Value("string"),
            "label": datasets.ClassLabel(names=builder.class_names()),
            "held_out": datasets.Value("bool"),
        }
    )
    splits = {}
    for split, listed in paths.items():
        placed = sorted(builder.place(builder.key(SourceFile(path, 0, 0)))[:2] for path in listed)
        rows = [
            {"sample_id": name, "label": placement.label, "held_out": placement.held_out} for name, placement in placed
        ]
        splits[split] = datasets.Dataset.from_list(rows, features=features)
    return splits


def eval_yaml(benchmark: dict) -> str:
    """The contents of `eval.yaml`, which makes a data set on the Hub a benchmark.

    Args:
        benchmark: protocol → pairs of the builder of a config and the number of recordings of its splits.
    """
    import yaml

    # The fields of https://huggingface.co/docs/hub/eval-results (docs/hub/eval-results.md of huggingface/hub-docs, commit
    # 064c754): name, description, and for each task an id, a config and a split. `evaluation_framework` is left out: its values
    # are those of EVALUATION_FRAMEWORKS in huggingface.js (packages/tasks/src/eval.ts, commit 0589d13), none of which
    # evaluates classifiers of recordings, and the Hub has benchmarks without it. The Hub validates the file when it is pushed,
    # which could not be tried offline.
    metrics = [f"{METRICS[builders[0][0].METRIC]} ({name})" for name, builders in benchmark.items()]
    return yaml.safe_dump(
        {
            "name": TITLE,
            "description": "Recognition of human actions in recordings of skeletons. A task is the test split of a protocol; "
            f"its value is in per cent: {', '.join(metrics)}.",
            "tasks": [
                {"id": name, "config": builder.config.name, "split": "test"}
                for name, builders in benchmark.items()
                for builder, counts in builders
                if "test" in counts
            ],
        },
        sort_keys=False,
        width=1000,
    )


def page(benchmark: dict) -> str:
    """The README.md of the repository.

    Args:
        benchmark: see `eval_yaml`.
    """
    from huggingface_hub import DatasetCardData

    from action_llm.escaping import markdown

    configs = [pair for builders in benchmark.values() for pair in builders]
    card = DatasetCardData(
        pretty_name=TITLE,
        license="other",
        task_categories=["video-classification"],
        tags=["skeleton-based-action-recognition", "action-recognition", "skeleton", "benchmark"],
        configs=[
            {
                "config_name": builder.config.name,
                "data_files": [{"split": split, "path": f"{builder.config.name}/{split}.parquet"} for split in counts],
            }
            for builder, counts in configs
        ],
    )
    rows = [
        f"| {builder.config.name} | {split} | {count:,} | {len(builder.class_names())} |"
        for builder, counts in configs
        for split, count in counts.items()
    ]
    first, splits = configs[0][0].config.name, configs[0][1]
    rules = [
        f"- {builder.config.name}: {builder.protocol_rule()}" for builder, _ in configs if builder.protocol_rule()
    ]
    sources = {builder.TITLE: builder for builder, _ in configs}
    terms = [
        f"- {title}: {markdown(builder.LICENSE)} {builder.HOMEPAGE}\n  {markdown(builder.CITATION)}"
        for title, builder in sources.items()
    ]
    tasks = [f"| {name} | {METRICS[builders[0][0].METRIC]} |" for name, builders in benchmark.items()]
    return "\n".join(
        [
            "---",
            card.to_yaml(),
            "---",
            "",
            f"# {TITLE}",
            "",
            "Which recording is in which split, for protocols of published data sets of skeletons. The repository contains the",
            "names of recordings, their labels and their splits, and no recordings: their publishers give access to them.",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            f'rows = load_dataset("path or repository", "{first}")["{next(iter(splits))}"]',
            'print(rows[0]["sample_id"], rows.features["label"].int2str(rows[0]["label"]))',
            "```",
            "",
            "| config | split | recordings | classes |",
            "|---|---|---:|---:|",
            *rows,
            "",
            *([*rules, ""] if rules else []),
            "`held_out` marks training recordings that select checkpoints and settings.",
            "",
            "## Results",
            "",
            "Recognisers are compared on the test split of each protocol, by a value in per cent:",
            "",
            "| task | metric |",
            "|---|---|",
            *tasks,
            "",
            "A model's repository gives its result in `.eval_results/NAME.yaml`",
            "([format](https://huggingface.co/docs/hub/eval-results)), with this repository as `id` and the protocol as",
            "`task_id`. `push.py` of ActionLLM writes such a file with each evaluated recogniser.",
            "",
            "## Terms",
            "",
            *terms,
            "",
        ]
    )


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
