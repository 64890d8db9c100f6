"""
Timelines of long videos: which action happened when, with pictures, and scores if the true actions are known.

```bash
python recipes/timeline.py --model runs/long/sft/model --videos LONG/P003_V001.mp4 --output_dir runs/long/timelines
python recipes/timeline.py --model runs/long/sft/model --videos LONG/P003_V*.mp4 --truth LONG/timeline.csv \\
    --output_dir runs/long/timelines
```

Each video is read once, as a stream of events, and a sliding window over the events is classified. The recipe writes, for each
video, the actions with their times (`NAME.csv`), the events (token, start, end and place in the frame) and the probability of
every class in every window (`NAME.json`), and a picture (`NAME.png`).

With `--truth`, `metrics.json` has the share of time that is labelled correctly, the F1 score of actions at overlaps of 10, 25
and 50 %, and the scores of the event boundaries. Videos that a stage was trained on are not scored. Videos that cannot be read
are skipped and listed in `skipped.json`.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)

OVERLAPS = (0.1, 0.25, 0.5)  # least intersection over union of an action that counts as found


@dataclass
class TimelineArguments:
    """The recogniser, the videos, and the sliding window."""

    model: str = field(metadata={"help": "folder or Hub repository of a recogniser whose action model is a VTEM"})
    videos: list[str] = field(metadata={"help": "video files"})
    output_dir: str = field(metadata={"help": "folder for the timelines"})
    truth: str | None = field(
        default=None,
        metadata={
            "help": "CSV file with the true actions: file_name, start and end (seconds), label; to score the timelines"
        },
    )
    nothing: str = field(
        default="standing still", metadata={"help": "class of windows without an action; '' if there is no such class"}
    )
    seconds: float = field(default=4.0, metadata={"help": "length of a window in seconds"})
    stride: float = field(default=1.0, metadata={"help": "seconds between the starts of two windows"})
    batch_size: int = field(default=8, metadata={"help": "number of windows per batch"})

    def __post_init__(self):
        check_recogniser(self.model)


ARGUMENTS = (TimelineArguments,)


@writes_output_dir
def main(arguments: TimelineArguments) -> dict | None:
    """Writes the timelines; returns the content of metrics.json, or None without `truth`."""
    from transformers import AutoConfig

    from action_llm.timelines import check_reads_timelines, check_window
    from action_llm.video_frames import VideoFileError
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.stage_records import training_record

    check_reads_timelines(AutoConfig.from_pretrained(arguments.model, trust_remote_code=False))
    check_window(arguments.seconds, arguments.stride)
    run = RunFolder(arguments.output_dir)
    paths = list(map(Path, arguments.videos))
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError(
            "two videos have the same name, so their timelines would overwrite each other: use an output_dir per folder."
        )
    truth = None if arguments.truth is None else true_actions(arguments.truth, paths)
    record = training_record(arguments.model)
    if truth is not None:
        check_not_trained_on(arguments, record, paths)
    model, processor = load(arguments, truth or {})
    settings = {"seconds": arguments.seconds, "stride": arguments.stride, "nothing": arguments.nothing}
    run.check_identity(settings | _identity(arguments, paths, truth, model))
    score, skipped = TimelineScore(), []
    for path in progress(paths, "timelines", "videos"):
        try:
            timeline = model.timeline(
                processor, path, seconds=arguments.seconds, stride=arguments.stride, batch_size=arguments.batch_size
            )
        except (VideoFileError, OSError) as error:
            skipped.append({"file": str(path), "reason": str(error)})
            continue
        expected = None if truth is None else truth[path]
        spans, actions = write(timeline, run.path, path, expected, arguments.nothing)
        if expected is not None:
            score.add(timeline, spans, actions, expected, arguments.nothing)
    write_atomically(run.path / "skipped.json", json.dumps(skipped, indent=2, ensure_ascii=False) + "\n")
    if skipped:
        logger.warning(
            "%d of %d videos were skipped, the first because: %s", len(skipped), len(paths), skipped[0]["reason"]
        )
    if len(skipped) == len(paths):
        raise ValueError(f"none of {len(paths)} videos could be read; {skipped[0]['file']}: {skipped[0]['reason']}")
    run.write_record(
        stage="timeline",
        settings=settings,
        model=record,
        videos=len(paths),
        skipped=len(skipped),
    )
    metrics = score.metrics()
    if metrics is None:
        return None
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    run.log_finished(
        "Timelines",
        f"{metrics['time_named_rightly']:.1%} of the time is labelled correctly",
        f"{metrics['actions_found']} actions found, {metrics['actions_true']} expected",
    )
    logger.info("  in %s", run.path)
    return metrics


def load(arguments: TimelineArguments, truth: dict) -> tuple:
    """
    Loads the recogniser and its processor, and warns of true actions that are not among its classes.

    Args:
        arguments: of the recipe.
        truth: the true actions of each video.

    Raises:
        ValueError: if `nothing` is not a class of the model.
    """
    import torch

    from action_llm import ActionLLMForClassification, ActionLLMProcessor

    model = ActionLLMForClassification.from_pretrained(arguments.model).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    if arguments.nothing and arguments.nothing not in processor.class_names:
        raise ValueError(
            f"--nothing must be a class of the model, got {arguments.nothing!r}: choose from "
            f"{', '.join(processor.class_names)}, or set --nothing '' if none of them means that there is no action."
        )
    labels = {action.label for actions in truth.values() for action in actions}
    if unknown := sorted(labels - set(processor.class_names)):
        logger.warning("%s: the model cannot find %s, which are not its classes", arguments.truth, ", ".join(unknown))
    return model, processor


def check_not_trained_on(arguments: TimelineArguments, record: dict, paths: list[Path]):
    """
    Checks that no stage of the recogniser was trained on the videos, by their names.

    Args:
        arguments: of the recipe.
        record: training record of the recogniser.
        paths: of the videos.

    Raises:
        ValueError: if a stage was trained on one of the videos.
    """
    from action_llm_recipes.common.split_evidence import SplitEvidence

    dataset = record.get("sentences", {}).get("dataset", "folder-video")
    names = [name_in_table(arguments.truth, path) for path in paths]
    try:
        SplitEvidence(dataset, {"test": names}, [arguments.model]).refuse("test", record)
    except ValueError as error:
        raise ValueError(f"{error} Timelines of training videos are not scored: leave out --truth.") from error


def _identity(arguments: TimelineArguments, paths: list[Path], truth: dict | None, model) -> dict:
    """Fingerprints of the inputs, for `RunFolder.check_identity`."""
    from action_llm.recording_versions import stable_seed
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.stage_records import training_record

    return {
        "videos": sorted(path.name for path in paths),
        "truth": None if truth is None else stable_seed(Path(arguments.truth).read_bytes()),
        "action_model": weights_fingerprint(model.base_model.action_model),
        "model": stable_seed(json.dumps(training_record(arguments.model), sort_keys=True)),
    }


def write(timeline, folder: Path, video: Path, expected: list | None, nothing: str) -> tuple[list, list]:
    """
    Writes the timeline of a video as a table, as JSON and as a picture.

    Args:
        timeline: of the video.
        folder: for the files.
        video: path of the video.
        expected: true actions in the video, or None if unknown.
        nothing: class of windows without an action.

    Returns:
        All spans of the timeline, and the spans of actions.
    """
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.timelines import Segment, write_timeline
    from action_llm_recipes.metrics.plots import plot_timeline

    spans = [span._replace(start=round(span.start, 3), end=round(span.end, 3)) for span in timeline.spans()]
    actions = [Segment(span.start, span.end, span.label) for span in spans if span.label != nothing]
    write_timeline(folder / f"{video.stem}.csv", {video.name: actions})
    content = {
        "video": video.name,
        "spans": [span._asdict() for span in spans],
        "class_names": timeline.class_names,
        "starts": timeline.starts.tolist(),
        "probabilities": timeline.probabilities.round(6).tolist(),
        "events": [
            [event.action_id, round(event.start, 3), round(event.end, 3), event.place] for event in timeline.events
        ],
    }
    write_atomically(folder / f"{video.stem}.json", json.dumps(content, ensure_ascii=False) + "\n")
    plot_timeline(timeline, folder / f"{video.stem}.png", expected, nothing, video.name)
    return spans, actions


class TimelineScore:
    """Scores of timelines against the true actions, over all videos."""

    def __init__(self):
        from action_llm_recipes.metrics.temporal_segments import BorderCounts

        self.seconds = self.correct = 0.0
        self.events = self.predicted = self.expected = 0
        self.hits, self.borders = dict.fromkeys(OVERLAPS, 0), BorderCounts()

    def add(self, timeline, spans: list, actions: list, expected: list, nothing: str):
        """
        Adds a video.

        Args:
            timeline, spans, actions: of the video, as of `write`.
            expected: true actions in the video.
            nothing: class of windows without an action.
        """
        from action_llm_datasets.timelines import Segment
        from action_llm_recipes.metrics.temporal_segments import seconds_correct, segment_hits

        self.borders.add(timeline.events, expected)
        self.events += len(timeline.events)
        end = float(timeline.ends[-1])
        self.seconds += end
        with_gaps = [*expected, *(Segment(*gap, nothing) for gap in gaps(expected, end))]
        self.correct += seconds_correct(spans, with_gaps)
        self.predicted, self.expected = self.predicted + len(actions), self.expected + len(expected)
        for overlap in OVERLAPS:
            self.hits[overlap] += segment_hits(actions, expected, overlap)

    def metrics(self) -> dict | None:
        """The content of metrics.json; None if no video was added."""
        from action_llm_recipes.metrics.temporal_segments import f1_score

        if not self.borders.videos:
            return None
        return {
            "videos": self.borders.videos,
            "minutes": self.seconds / 60,
            "time_named_rightly": self.correct / self.seconds,
            "actions_found": self.predicted,
            "actions_true": self.expected,
            **{f"actions_f1_{at:g}": f1_score(self.hits[at], self.predicted, self.expected).f1 for at in OVERLAPS},
            "events_a_minute": 60 * self.events / self.seconds,
            "event_borders": self.borders.scores(),
        }


def true_actions(table: str, paths: list[Path]) -> dict[Path, list]:
    """
    The true actions of each video, without any for videos that the table does not name.

    Args:
        table: CSV file. Its file names are relative to its folder, or plain names of the videos.
        paths: of the videos.

    Raises:
        ValueError: if the table names none of the videos.
    """
    from action_llm_recipes.common.video_windows import by_video

    rows = by_video(table)
    actions_of = {path: rows.get(name_in_table(table, path), rows.get(path.stem, [])) for path in paths}
    if not any(actions_of.values()):
        raise ValueError(
            f"{table} names none of the {len(paths)} videos, such as {paths[0].name}: its file_name must be the name of a "
            "video, or its path relative to the table."
        )
    return actions_of


def name_in_table(table: str, path: Path) -> str:
    """The path of a video relative to the folder of a table, or its plain name if it is elsewhere; without suffix."""
    root, path = Path(table).resolve().parent, path.resolve()
    name = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return name.with_suffix("").as_posix()


def gaps(segments, end: float) -> list[tuple[float, float]]:
    """The times without a segment, from 0 to `end` seconds."""
    borders = [0.0, *(time for segment in segments for time in segment[:2]), end]
    return [(start, stop) for start, stop in zip(borders[::2], borders[1::2], strict=True) if stop > start]


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
