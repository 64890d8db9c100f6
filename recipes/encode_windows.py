"""
Encode long videos as sentences of time windows, for language models that read videos with several actions.

```bash
python recipes/encode_windows.py --tokenizer runs/long/tokenizer/model --dataset features --data_dir runs/long/features \\
    --timeline LONG/timeline.csv --output_dir runs/long/windows
```

The events of each video are cut into sliding windows. Each window becomes a sentence, and its class is the action at that time
in the table `--timeline`, or `--nothing` if there is none. Windows without a clear class are left out and counted. A video
without a row in the table has no actions. The output has the format of `encode_actions.py`, for `sft.py` and
`evaluate_classifier.py`; the record also says how close the boundaries of events are to those of actions.
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
    """The action model, the actions, and the windows."""

    tokenizer: str = field(metadata={"help": "folder of a trained VTEM (OUTPUT_DIR/model of train_tokenizer.py)"})
    timeline: str = field(
        metadata={"help": "CSV table of the actions, with the columns file_name, start, end (seconds) and label"}
    )
    output_dir: str = field(metadata={"help": "output folder for the sentences"})
    seconds: float = field(default=4.0, metadata={"help": "length of a window, in seconds"})
    stride: float = field(default=1.0, metadata={"help": "time between the starts of windows, in seconds"})
    nothing: str = field(default="standing still", metadata={"help": "class of windows without an action"})
    clear_share: float = field(
        default=0.5,
        metadata={
            "help": "a window gets the class of an action that covers at least this share of the window, or of which at least "
            "this share lies in the window"
        },
    )
    least_share: float = field(
        default=0.1,
        metadata={"help": "windows that actions cover by less than this share get the class --nothing"},
    )

    def __post_init__(self):
        check_model_folder(self.tokenizer)


ARGUMENTS = (WindowArguments, DataArguments)
# The settings that the record names.
WINDOW_SETTINGS = ("seconds", "stride", "clear_share", "least_share", "nothing")


@writes_output_dir
def main(arguments: WindowArguments, data: DataArguments) -> dict:
    """Writes the sentences of all windows; returns the record."""
    from datasets import ClassLabel

    from action_llm_recipes.common.action_sentences import load_action_sentences, sentence_features, write_codebook
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.split_evidence import LANGUAGE_MODEL, SplitEvidence
    from action_llm_recipes.stages.token_report import write_token_report

    check_settings(arguments)
    model, extractor, dataset = load(arguments, data)
    skipped = skipped_videos(data)
    actions = read_actions(arguments.timeline, data, dataset, {entry["sample_id"] for entry in skipped})
    labels = sorted({action.label for video in actions.values() for action in video} | {arguments.nothing})
    run = RunFolder(arguments.output_dir)
    run.check_identity(identity_of(arguments, data, dataset, model))
    evidence = SplitEvidence.of_data(data, dataset, [arguments.tokenizer])
    tokenizer = training_record(arguments.tokenizer)
    evidence.doubt_test({"sentences": {"tokenizer": tokenizer}}, untrained=(LANGUAGE_MODEL,))
    extractor.save_pretrained(run.path)
    write_codebook(run.path, model.codebook)
    columns = sentence_features(ClassLabel(names=labels), model.config.num_action_tokens, with_latents=False)

    splits, video_of_window = {}, {}
    for split, rows in dataset.items():
        windows, videos, counts = cut(model, rows, split, actions, labels, list(columns), arguments)
        write_windows(run.path, split, windows, columns)
        video_of_window |= videos
        splits[split] = {"skipped": sum(entry["split"] == split for entry in skipped), **counts}
    people = data.people(dataset)
    write_people(run.path, {name: people[video] for name, video in video_of_window.items()} if people else {})
    run.write_record(
        evidence,
        stage="encode_windows",
        dataset=data.protocol(),
        data=data.about(dataset),
        training_classes=labels,
        windows={name: getattr(arguments, name) for name in WINDOW_SETTINGS},
        splits=splits,
        tokenizer=tokenizer or None,
    )
    write_token_report(run.path, load_action_sentences(run.path), model.config.num_action_tokens)
    facts = (f"{counts['sentences']} of {split} ({counts['unclear']} unclear)" for split, counts in splits.items())
    run.log_finished("Windows", *facts)
    logger.info("  in %s", run.path)
    return run.read_record()


def identity_of(arguments: WindowArguments, data: DataArguments, dataset, model) -> dict:
    """What the windows depend on (`RunFolder.check_identity`)."""
    from action_llm_recipes.common.fingerprints import weights_fingerprint

    return {
        "dataset": data.protocol(),
        **data.identity(dataset),
        "timeline": stable_seed(Path(arguments.timeline).read_bytes()),
        "windows": [getattr(arguments, name) for name in WINDOW_SETTINGS],
        "weights": weights_fingerprint(model),
    }


def write_windows(folder: Path, split: str, windows: dict[str, list], columns):
    """Writes the windows of a split as shards."""
    from action_llm_recipes.common.shards import SplitShards, write_shard

    for path, rows in SplitShards(folder, split, len(windows["label"])).rows.items():
        shard = {name: values[rows.start : rows.stop] for name, values in windows.items()}
        write_shard(path, shard, columns, skipped=[])


def load(arguments: WindowArguments, data: DataArguments) -> tuple:
    """Loads the action model, its feature extractor, and the features of the videos.

    Raises:
        ValueError: if the model is not a VTEM with a codebook, or was trained on other features.
    """
    import torch
    from transformers import AutoModel

    import action_llm  # noqa: F401  (registers its classes)
    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm_recipes.common.action_models import check_features

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(arguments.tokenizer, trust_remote_code=False).eval().to(device)
    if not hasattr(model, "stream") or not model.config.quantize:
        actual = "VTEM without one (quantize: false)" if hasattr(model, "stream") else model.config.model_type
        raise ValueError(f"--tokenizer: expected a VTEM with a codebook, {arguments.tokenizer} is a {actual}.")
    dataset = data.load("features")
    extractor = load_feature_extractor(arguments.tokenizer)
    check_features(data, model, extractor)
    return model, extractor, dataset


def skipped_videos(data: DataArguments) -> list[dict]:
    """The videos that `extract_features.py` skipped."""
    from action_llm_recipes.common.shards import read_entries

    skipped = read_entries(Path(data.data_dir, "skipped.json"))
    if skipped is None:
        raise ValueError(f"{data.data_dir}/skipped.json is damaged or missing: run extract_features.py again.")
    return skipped


def read_actions(timeline: str, data: DataArguments, dataset, unreadable: set[str]) -> dict[str, list]:
    """The actions of each video in a table. Warns of videos that could not be read.

    Raises:
        ValueError: if a row of the table names another video.
    """
    actions = by_video(timeline)
    names = {name for rows in dataset.values() for name in rows["sample_id"]}
    if missing := sorted(set(actions) - names - unreadable):
        raise ValueError(f"{timeline}: {missing[0]} is none of the {len(names)} videos in {data.data_dir}.")
    if left_out := sorted(set(actions) & unreadable):
        logger.warning("%d videos of %s could not be read, such as %s", len(left_out), timeline, left_out[0])
    return actions


def cut(
    model, rows, split: str, actions: dict, labels: list[str], columns: list[str], arguments: WindowArguments
) -> tuple[dict[str, list], dict[str, str], dict]:
    """
    Cuts the videos of a split into windows.

    Args:
        model: a VTEM.
        rows: features of the videos.
        split: name of the split.
        actions: the actions of each video.
        labels: names of the classes.
        columns: names of the columns of sentences.
        arguments: of the recipe.

    Returns:
        The columns of sentences; for the name of each window, that of its video; and the entry of the split in the record.

    Raises:
        ValueError: if no window has a clear class.
    """
    from action_llm.sliding_windows import windows_of_events
    from action_llm.timelines import stream_events
    from action_llm_datasets.progress import progress
    from action_llm_recipes.metrics.temporal_segments import BorderCounts

    windows, video_of_window = {name: [] for name in columns}, {}
    unclear, borders = 0, BorderCounts()
    for row in progress(rows.with_format("torch"), f"windows of {split}", "videos"):
        segments = row["features"].reshape(tuple(row["shape"])).unflatten(0, (-1, model.config.grid**2))
        blocks = list(stream_events(model, [{"input_features": segments}], float(row["frame_rate"])))
        video = row["sample_id"]
        video_actions = actions.get(video, [])
        for number, window in enumerate(windows_of_events(blocks, arguments.seconds, arguments.stride)):
            label = class_of(window, video_actions, arguments)
            if label is None:
                unclear += 1
                continue
            name = f"{video}@{number * arguments.stride:g}s"
            video_of_window[name] = video
            windows["sample_id"].append(name)
            windows["encoding"].append(int(row["version"]))
            windows["label"].append(labels.index(label))
            windows["held_out"].append(bool(row["held_out"]))
            windows["action_ids"].append([event.action_id for event in window.content])
            windows["start_times"].append([event.start - window.start for event in window.content])
            windows["end_times"].append([event.end - window.start for event in window.content])
        if row["version"] == 0:
            borders.add([event for block in blocks for event in block.ended], video_actions)
    count = len(windows["label"])
    if count == 0:
        raise ValueError(
            f"none of {unclear} windows of {split} has a clear class: set shorter --seconds, or another --clear_share."
        )
    return (
        windows,
        video_of_window,
        {
            "recordings": borders.videos,
            "sentences": count,
            "unclear": unclear,
            "words_per_sentence": round(sum(map(len, windows["action_ids"])) / count, 2),
            "event_borders": borders.scores(),
        },
    )


def check_settings(arguments: WindowArguments) -> None:
    """Raises `ValueError` for settings that are out of range."""
    from action_llm.sliding_windows import check_window

    check_window(arguments.seconds, arguments.stride)
    for name in ("clear_share", "least_share"):
        if not 0 < getattr(arguments, name) <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(arguments, name)}.")
    if not arguments.nothing.strip():
        raise ValueError("nothing must be a name: it is the class of windows without an action.")


def class_of(window, actions, arguments: WindowArguments) -> str | None:
    """
    The class of a window.

    Args:
        window (`Window`): the window.
        actions: the actions of its video, with `start`, `end` and `label`.
        arguments: of the recipe.

    Returns:
        The only action that covers `clear_share` of the window or has that share of itself in the window, if no other action
        covers more of it; `nothing` if actions cover less than `least_share` of it; None in other windows, which are unclear.
    """
    length = window.end - window.start
    overlaps = [
        (max(0.0, min(window.end, action.end) - max(window.start, action.start)), action) for action in actions
    ]
    if sum(overlap for overlap, _ in overlaps) < arguments.least_share * length:
        return arguments.nothing
    clear = [
        (overlap, action)
        for overlap, action in overlaps
        if overlap >= arguments.clear_share * min(length, action.end - action.start)
    ]
    is_clear = len(clear) == 1 and clear[0][0] == max(overlap for overlap, _ in overlaps)
    return clear[0][1].label if is_clear else None


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
