"""
Long videos → sentences of windows: what stage 2 learns to read where a video holds several actions.

```bash
python recipes/encode_windows.py --tokenizer runs/long/tokenizer/model --dataset features --data_dir runs/long/features \\
    --timeline LONG/timeline.csv --output_dir runs/long/windows
```

The events of every long video are cut into windows that slide over it, and each is a sentence with the action of its time as
its class; where there is none, `--nothing` is. A window in which it is not clear which action is meant is left out, and
counted. The folder is what `encode_actions.py` would write of recordings: `sft.py` trains on it, `evaluate_classifier.py`
evaluates, on the windows that are clear. A video that is in no row of the table is one in which nothing happens. The record
says, too, how near the borders of events are to those of the actions.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments, check_model_folder, read_record, write_people
from action_llm_recipes.common.launching import launch

logger = logging.getLogger(__name__)


@dataclass
class WindowArguments:
    """What reads the videos, and how they are cut."""

    tokenizer: str = field(metadata={"help": "folder of a trained vtem"})
    timeline: str = field(metadata={"help": "table of what happens when: file_name, start, end, label"})
    output_dir: str = field(metadata={"help": "folder for the sentences"})
    seconds: float = field(default=4.0, metadata={"help": "length of a window"})
    stride: float = field(default=1.0, metadata={"help": "seconds between the starts of windows"})
    nothing: str = field(default="standing still", metadata={"help": "class of windows in which no action is"})
    clear_share: float = field(
        default=0.5,
        metadata={"help": "share of the window, or of itself, that an action must have in it to be its class"},
    )
    least_share: float = field(
        default=0.1,
        metadata={"help": "share of the window that all actions together stay below where nothing happens"},
    )

    def __post_init__(self):
        check_model_folder(self.tokenizer)


@writes_output_dir
def main(arguments: WindowArguments, data: DataArguments) -> dict:
    """Writes the sentences; returns the record."""
    import torch
    from datasets import ClassLabel
    from transformers import AutoModel

    import action_llm  # noqa: F401  (makes its classes known)
    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm.timelines import sliding_windows
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_sentences import (
        RECORDINGS_PER_SHARD,
        load_action_sentences,
        read_entries,
        sentence_features,
        shard_path,
        write_codebook,
        write_shard,
    )
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.encode_actions import check_features, stable_seed, weights_fingerprint
    from action_llm_recipes.metrics.temporal_segments import BorderCounts
    from action_llm_recipes.stages.token_report import write_token_report

    check_settings(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(arguments.tokenizer, trust_remote_code=False).eval().to(device)
    if not hasattr(model, "stream") or not model.config.quantize:
        found = "vtem without a codebook (quantize: false)" if hasattr(model, "stream") else model.config.model_type
        raise ValueError(f"{arguments.tokenizer} is a {found}: windows are cut of the tokens of a vtem.")
    dataset = data.load("features")
    extractor = load_feature_extractor(arguments.tokenizer)
    check_features(data, model, extractor)
    truth = by_video(arguments.timeline)
    names = {name for rows in dataset.values() for name in rows["sample_id"]}
    skipped = read_entries(Path(data.data_dir, "skipped.json"))
    if skipped is None:
        raise ValueError(f"{data.data_dir}: skipped.json is damaged or missing: run extract_features.py again.")
    unreadable = {entry["sample_id"] for entry in skipped}
    if missing := sorted(set(truth) - names - unreadable):
        raise ValueError(f"{arguments.timeline}: {missing[0]} is none of the {len(names)} videos in {data.data_dir}.")
    if left_out := sorted(set(truth) & unreadable):
        logger.warning("%d videos of %s could not be read, such as %s", len(left_out), arguments.timeline, left_out[0])
    labels = sorted({segment.label for found in truth.values() for segment in found} | {arguments.nothing})
    run = RunFolder(arguments.output_dir)
    run.check_identity(
        {
            "dataset": data.protocol(),
            **data.identity(dataset),
            "timeline": stable_seed(Path(arguments.timeline).read_bytes()),
            "windows": [
                arguments.seconds,
                arguments.stride,
                arguments.clear_share,
                arguments.least_share,
                arguments.nothing,
            ],
            "weights": weights_fingerprint(model),
        }
    )
    extractor.save_pretrained(run.path)
    write_codebook(run.path, model.codebook)
    columns = sentence_features(ClassLabel(names=labels), model.config.num_action_tokens, with_latents=False)

    splits, people, people_of_windows = {}, data.people(dataset), {}
    for split, rows in dataset.items():
        made = {name: [] for name in columns}
        unclear, borders = 0, BorderCounts()
        for row in progress(rows.with_format("torch"), f"windows of {split}", "videos"):
            stream = model.stream(float(row["frame_rate"]))
            segments = row["features"].reshape(tuple(row["shape"])).unflatten(0, (-1, model.config.grid**2))
            events = stream.push(input_features=segments) + stream.finish()
            actions, name = truth.get(row["sample_id"], []), row["sample_id"]
            for number, window in enumerate(sliding_windows(events, arguments.seconds, arguments.stride)):
                label = class_of(window, actions, arguments)
                if label is None:
                    unclear += 1
                    continue
                inside = events[window.first : window.last]
                made["sample_id"].append(f"{name}@{number * arguments.stride:g}s")
                if people:
                    people_of_windows[made["sample_id"][-1]] = people[row["sample_id"]]
                made["encoding"].append(int(row["version"]))
                made["label"].append(labels.index(label))
                made["held_out"].append(bool(row["held_out"]))
                made["action_ids"].append([event.action_id for event in inside])
                made["start_times"].append([event.start - window.start for event in inside])
                made["end_times"].append([event.end - window.start for event in inside])
            if row["version"] == 0:
                borders.add(events, actions)
        if not made["label"]:
            raise ValueError(
                f"none of {unclear} windows of {split} is clear: set shorter --seconds, or another --clear_share."
            )
        count = -(-len(made["label"]) // RECORDINGS_PER_SHARD)
        for index in range(count):
            part = slice(index * RECORDINGS_PER_SHARD, (index + 1) * RECORDINGS_PER_SHARD)
            shard = {name: values[part] for name, values in made.items()}
            write_shard(shard_path(run.path, split, index, count), shard, columns)
        splits[split] = {
            "recordings": borders.videos,
            "skipped": sum(entry["split"] == split for entry in skipped),
            "sentences": len(made["label"]),
            "unclear": unclear,
            "words_per_sentence": round(sum(map(len, made["action_ids"])) / max(len(made["label"]), 1), 2),
            "event_borders": borders.scores(),
        }
    write_people(run.path, people_of_windows)
    record = Path(arguments.tokenizer) / "record.json"
    run.write_record(
        stage="encode_windows",
        dataset=data.protocol(),
        data=data.about(dataset),
        training_classes=labels,
        windows={
            name: getattr(arguments, name) for name in ("seconds", "stride", "clear_share", "least_share", "nothing")
        },
        splits=splits,
        tokenizer=read_record(record) if record.is_file() else None,
    )
    write_token_report(run.path, load_action_sentences(run.path), model.config.num_action_tokens)
    run.log_finished(
        "Windows", *(f"{one['sentences']} of {split} ({one['unclear']} unclear)" for split, one in splits.items())
    )
    logger.info("  in %s", run.path)
    return run.read_record()


def check_settings(arguments: WindowArguments) -> None:
    """Raises `ValueError` for what makes no windows."""
    from action_llm.timelines import check_window

    check_window(arguments.seconds, arguments.stride)
    for name in ("clear_share", "least_share"):
        if not 0 < getattr(arguments, name) <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(arguments, name)}.")
    if not arguments.nothing.strip():
        raise ValueError("nothing must be a name: the class of windows in which no action is.")


def by_video(table: str) -> dict[str, list]:
    """What happens in each video of a table, by its name without the suffix.

    Raises:
        ValueError: the table has no action, or two files of the same name.
    """
    from action_llm_datasets.timelines import read_timeline

    rows = read_timeline(table)
    if not rows:
        raise ValueError(f"{table} holds no action.")
    found = {}
    for name, actions in rows.items():
        video = Path(name).with_suffix("").as_posix()
        if video in found:
            raise ValueError(f"{table}: two files are called {video}.")
        found[video] = actions
    return found


def video_of_window(sample_id: str) -> tuple[str, float]:
    """The `sample_id` of the video that a window is of, and the second in it at which the window begins."""
    name, _, start = sample_id.removesuffix("s").rpartition("@")
    return name, float(start)


def class_of(window, actions, arguments: WindowArguments) -> str | None:
    """The class of a window: the action that it shows, `nothing`, or None where that is not clear."""
    length = window.end - window.start
    shown = [(max(0.0, min(window.end, one.end) - max(window.start, one.start)), one) for one in actions]
    if sum(share for share, _ in shown) < arguments.least_share * length:
        return arguments.nothing
    clear = [pair for pair in shown if pair[0] >= arguments.clear_share * min(length, pair[1].end - pair[1].start)]
    return clear[0][1].label if len(clear) == 1 and clear[0][0] == max(share for share, _ in shown) else None


if __name__ == "__main__":
    launch(main, WindowArguments, DataArguments)
