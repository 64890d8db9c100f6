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

from action_llm.recording_versions import stable_seed
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.people import write_people
from action_llm_recipes.common.stage_records import training_record
from action_llm_recipes.common.video_windows import by_video
from action_llm_recipes.common.written_folders import check_model_folder

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


ARGUMENTS = (WindowArguments, DataArguments)


@writes_output_dir
def main(arguments: WindowArguments, data: DataArguments) -> dict:
    """Writes the sentences; returns the record."""
    from datasets import ClassLabel

    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_sentences import load_action_sentences, sentence_features, write_codebook
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.shards import SplitShards, write_shard
    from action_llm_recipes.common.split_evidence import LANGUAGE_MODEL, SplitEvidence
    from action_llm_recipes.stages.token_report import write_token_report

    check_settings(arguments)
    model, extractor, dataset = load(arguments, data)
    skipped = skipped_videos(data)
    truth = read_truth(arguments.timeline, data, dataset, {entry["sample_id"] for entry in skipped})
    labels = sorted({action.label for actions in truth.values() for action in actions} | {arguments.nothing})
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
    evidence = SplitEvidence.of_data(data, dataset, [arguments.tokenizer])
    tokenizer = training_record(arguments.tokenizer)
    evidence.doubt_test({"sentences": {"tokenizer": tokenizer}}, untrained=(LANGUAGE_MODEL,))
    extractor.save_pretrained(run.path)
    write_codebook(run.path, model.codebook)
    columns = sentence_features(ClassLabel(names=labels), model.config.num_action_tokens, with_latents=False)

    splits, people, people_of_windows = {}, data.people(dataset), {}
    for split, rows in dataset.items():
        videos = progress(rows.with_format("torch"), f"windows of {split}", "videos")
        windows, videos_of_windows, counts = cut(model, videos, truth, labels, list(columns), arguments)
        if people:
            people_of_windows |= {name: people[video] for name, video in videos_of_windows.items()}
        if not windows["label"]:
            raise ValueError(
                f"none of {counts['unclear']} windows of {split} is clear: set shorter --seconds, or another --clear_share."
            )
        for path, part in SplitShards(run.path, split, len(windows["label"])).rows.items():
            shard = {name: values[part.start : part.stop] for name, values in windows.items()}
            write_shard(path, shard, columns)
        splits[split] = {"skipped": sum(entry["split"] == split for entry in skipped), **counts}
    write_people(run.path, people_of_windows)
    run.write_record(
        evidence,
        stage="encode_windows",
        dataset=data.protocol(),
        data=data.about(dataset),
        training_classes=labels,
        windows={
            name: getattr(arguments, name) for name in ("seconds", "stride", "clear_share", "least_share", "nothing")
        },
        splits=splits,
        tokenizer=tokenizer or None,
    )
    write_token_report(run.path, load_action_sentences(run.path), model.config.num_action_tokens)
    facts = (f"{counts['sentences']} of {split} ({counts['unclear']} unclear)" for split, counts in splits.items())
    run.log_finished("Windows", *facts)
    logger.info("  in %s", run.path)
    return run.read_record()


def load(arguments: WindowArguments, data: DataArguments) -> tuple:
    """The action model, its feature extractor, and the features of the videos.

    Raises:
        ValueError: the model is no VTEM with a codebook, or the features are not its.
    """
    import torch
    from transformers import AutoModel

    import action_llm  # noqa: F401  (makes its classes known)
    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm_recipes.common.action_models import check_features

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(arguments.tokenizer, trust_remote_code=False).eval().to(device)
    if not hasattr(model, "stream") or not model.config.quantize:
        actual = "vtem without a codebook (quantize: false)" if hasattr(model, "stream") else model.config.model_type
        raise ValueError(f"{arguments.tokenizer} is a {actual}: windows are cut of the tokens of a vtem.")
    dataset = data.load("features")
    extractor = load_feature_extractor(arguments.tokenizer)
    check_features(data, model, extractor)
    return model, extractor, dataset


def skipped_videos(data: DataArguments) -> list[dict]:
    """What `extract_features.py` skipped."""
    from action_llm_recipes.common.shards import read_entries

    skipped = read_entries(Path(data.data_dir, "skipped.json"))
    if skipped is None:
        raise ValueError(f"{data.data_dir}: skipped.json is damaged or missing: run extract_features.py again.")
    return skipped


def read_truth(timeline: str, data: DataArguments, dataset, unreadable: set[str]) -> dict[str, list]:
    """The actions of each video; those of videos that could not be read are left out with a warning.

    Raises:
        ValueError: a row of the table is of a video that is not there.
    """
    truth = by_video(timeline)
    names = {name for rows in dataset.values() for name in rows["sample_id"]}
    if missing := sorted(set(truth) - names - unreadable):
        raise ValueError(f"{timeline}: {missing[0]} is none of the {len(names)} videos in {data.data_dir}.")
    if left_out := sorted(set(truth) & unreadable):
        logger.warning("%d videos of %s could not be read, such as %s", len(left_out), timeline, left_out[0])
    return truth


def cut(model, videos, truth: dict, labels: list[str], columns: list[str], arguments: WindowArguments) -> tuple:
    """
    The windows of some videos.

    Args:
        model: a VTEM.
        videos: rows of features.
        truth: the actions of each video.
        labels: names of the classes.
        columns: names of the columns.
        arguments: how the videos are cut.

    Returns:
        Columns of sentences; the name of each window and of its video; and the numbers for the record.
    """
    from action_llm.timelines import sliding_windows
    from action_llm_recipes.metrics.temporal_segments import BorderCounts

    windows, videos_of_windows = {name: [] for name in columns}, {}
    unclear, borders = 0, BorderCounts()
    for row in videos:
        stream = model.stream(float(row["frame_rate"]))
        segments = row["features"].reshape(tuple(row["shape"])).unflatten(0, (-1, model.config.grid**2))
        events = stream.push(input_features=segments) + stream.finish()
        video, actions = row["sample_id"], truth.get(row["sample_id"], [])
        for number, window in enumerate(sliding_windows(events, arguments.seconds, arguments.stride)):
            label = class_of(window, actions, arguments)
            if label is None:
                unclear += 1
                continue
            inside = events[window.first : window.last]
            name = f"{video}@{number * arguments.stride:g}s"
            videos_of_windows[name] = video
            windows["sample_id"].append(name)
            windows["encoding"].append(int(row["version"]))
            windows["label"].append(labels.index(label))
            windows["held_out"].append(bool(row["held_out"]))
            windows["action_ids"].append([event.action_id for event in inside])
            windows["start_times"].append([event.start - window.start for event in inside])
            windows["end_times"].append([event.end - window.start for event in inside])
        if row["version"] == 0:
            borders.add(events, actions)
    count = len(windows["label"])
    return (
        windows,
        videos_of_windows,
        {
            "recordings": borders.videos,
            "sentences": count,
            "unclear": unclear,
            "words_per_sentence": round(sum(map(len, windows["action_ids"])) / max(count, 1), 2),
            "event_borders": borders.scores(),
        },
    )


def check_settings(arguments: WindowArguments) -> None:
    """Raises `ValueError` for what makes no windows."""
    from action_llm.timelines import check_window

    check_window(arguments.seconds, arguments.stride)
    for name in ("clear_share", "least_share"):
        if not 0 < getattr(arguments, name) <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(arguments, name)}.")
    if not arguments.nothing.strip():
        raise ValueError("nothing must be a name: the class of windows in which no action is.")


def class_of(window, actions, arguments: WindowArguments) -> str | None:
    """The class of a window: the action that it shows, `nothing`, or None where that is not clear."""
    length = window.end - window.start
    shown = [(max(0.0, min(window.end, one.end) - max(window.start, one.start)), one) for one in actions]
    if sum(share for share, _ in shown) < arguments.least_share * length:
        return arguments.nothing
    clear = [pair for pair in shown if pair[0] >= arguments.clear_share * min(length, pair[1].end - pair[1].start)]
    return clear[0][1].label if len(clear) == 1 and clear[0][0] == max(share for share, _ in shown) else None


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
