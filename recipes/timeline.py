"""
When did which action happen: timelines of long videos, with pictures, and their scores where the truth is known.

```bash
python recipes/timeline.py --model runs/long/sft/model --videos LONG/P004_V001.mp4 --output_dir runs/long/timelines
python recipes/timeline.py --model runs/long/sft/model --videos LONG/P004_V*.mp4 --truth LONG/timeline.csv \\
    --output_dir runs/long/timelines
```

Every video is read once, as a stream, and its events by a window that slides over them. For each: `NAME.csv` with what happened
when, `NAME.json` with the probability of every class at every step and the events, `NAME.png`. With `--truth`, `metrics.json`:
the share of time that is named rightly, F1 of actions by their overlap (10, 25, 50 %), and of the borders of events. Videos
that cannot be read are skipped, counted and listed.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)

OVERLAPS = (0.1, 0.25, 0.5)


@dataclass
class TimelineArguments:
    """Which videos, and how they are read."""

    model: str = field(metadata={"help": "folder or Hub repository of an ActionLLM with a vtem"})
    videos: list[str] = field(metadata={"help": "files"})
    output_dir: str = field(metadata={"help": "folder for the timelines"})
    truth: str | None = field(
        default=None, metadata={"help": "table of what happens when: file_name, start, end, label"}
    )
    nothing: str = field(default="standing still", metadata={"help": "class of windows in which no action is"})
    seconds: float = field(default=4.0, metadata={"help": "length of a window"})
    stride: float = field(default=1.0, metadata={"help": "seconds between the starts of windows"})
    batch_size: int = field(default=8, metadata={"help": "windows that are read at a time"})

    def __post_init__(self):
        check_recogniser(self.model)


ARGUMENTS = (TimelineArguments,)


@writes_output_dir
def main(arguments: TimelineArguments) -> dict | None:
    """Writes the timelines; returns the metrics, where the truth is known."""
    from transformers import AutoConfig

    from action_llm.timelines import check_reads_timelines, check_window
    from action_llm.video_files import VideoFileError
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
            "two videos have the same name, and their timelines would be the same files: run it for each folder."
        )
    truth = None if arguments.truth is None else known(arguments.truth, paths)
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
        true = None if truth is None else truth[path]
        spans, actions = write(timeline, run.path, path, true, arguments.nothing)
        if true is not None:
            score.add(timeline, spans, actions, true, arguments.nothing)
    write_atomically(run.path / "skipped.json", json.dumps(skipped, indent=2, ensure_ascii=False) + "\n")
    if skipped:
        logger.warning("%d of %d videos were skipped; the first: %s", len(skipped), len(arguments.videos), skipped[0])
    if len(skipped) == len(arguments.videos):
        raise ValueError(f"no video could be read; the first is {skipped[0]['file']}: {skipped[0]['reason']}")
    run.write_record(
        stage="timeline",
        settings=settings,
        model=training_record(arguments.model),
        videos=len(paths),
        skipped=len(skipped),
    )
    metrics = score.metrics()
    if metrics is None:
        return None
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    run.log_finished(
        "Timelines",
        f"{metrics['time_named_rightly']:.1%} of the time is named rightly",
        f"{metrics['actions_found']} actions found, {metrics['actions_true']} there",
    )
    logger.info("  in %s", run.path)
    return metrics


def load(arguments: TimelineArguments, truth: dict) -> tuple:
    """The recogniser and its processor.

    Raises:
        ValueError: the class of windows in which no action is, is no class of the model.
    """
    import torch

    from action_llm import ActionLLMForClassification, ActionLLMProcessor

    model = ActionLLMForClassification.from_pretrained(arguments.model).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    if arguments.nothing and arguments.nothing not in processor.class_names:
        raise ValueError(
            f"--nothing {arguments.nothing!r} is no class of the model, which are {', '.join(processor.class_names)}; "
            "--nothing '' where none of them means that no action is."
        )
    labels = {action.label for actions in truth.values() for action in actions}
    if unknown := sorted(labels - set(processor.class_names)):
        logger.warning("%s: the model has no class %s, and cannot find it", arguments.truth, ", ".join(unknown))
    return model, processor


def _identity(arguments: TimelineArguments, paths: list[Path], truth: dict | None, model) -> dict:
    from action_llm.recording_versions import stable_seed
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.stage_records import training_record

    return {
        "videos": sorted(path.name for path in paths),
        "truth": None if truth is None else stable_seed(Path(arguments.truth).read_bytes()),
        "action_model": weights_fingerprint(model.base_model.action_model),
        "model": stable_seed(json.dumps(training_record(arguments.model), sort_keys=True)),
    }


def write(timeline, folder: Path, video: Path, true: list | None, nothing: str) -> tuple[list, list]:
    """
    Writes the timeline of a video as table, JSON and picture.

    Args:
        timeline: of the video.
        folder: where it goes.
        video: its file.
        true: the actions in it, where they are known.
        nothing: class of windows in which no action is.

    Returns:
        All spans, and those of actions.
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
        "events": [[event.action_id, round(event.start, 3), round(event.end, 3)] for event in timeline.events],
    }
    write_atomically(folder / f"{video.stem}.json", json.dumps(content, ensure_ascii=False) + "\n")
    plot_timeline(timeline, folder / f"{video.stem}.png", true, nothing, video.name)
    return spans, actions


class TimelineScore:
    """How well timelines agree with what is known to happen, over all videos."""

    def __init__(self):
        from action_llm_recipes.metrics.temporal_segments import BorderCounts

        self.seconds = self.right = 0.0
        self.found = self.true = 0
        self.hits, self.borders = dict.fromkeys(OVERLAPS, 0), BorderCounts()

    def add(self, timeline, spans: list, actions: list, true: list, nothing: str):
        """Counts a video: its timeline with its spans, the actions among these, and the true ones."""
        from action_llm_datasets.timelines import Segment
        from action_llm_recipes.metrics.temporal_segments import seconds_correct, segment_hits

        self.borders.add(timeline.events, true)
        end = float(timeline.ends[-1])
        self.seconds += end
        everything = [*true, *(Segment(*gap, nothing) for gap in gaps(true, end))]
        self.right += seconds_correct(spans, everything)
        self.found, self.true = self.found + len(actions), self.true + len(true)
        for overlap in OVERLAPS:
            self.hits[overlap] += segment_hits(actions, true, overlap)

    def metrics(self) -> dict | None:
        """None where nothing was counted."""
        from action_llm_recipes.metrics.temporal_segments import f1_score

        if not self.borders.videos:
            return None
        return {
            "videos": self.borders.videos,
            "minutes": self.seconds / 60,
            "time_named_rightly": self.right / self.seconds,
            "actions_found": self.found,
            "actions_true": self.true,
            **{f"actions_f1_{at:g}": f1_score(self.hits[at], self.found, self.true).f1 for at in OVERLAPS},
            "events_a_minute": 60 * (self.borders.found + self.borders.videos) / self.seconds,
            "event_borders": self.borders.scores(),
        }


def known(table: str, paths: list[Path]) -> dict[Path, list]:
    """What truly happens in each video: what the table says of the file, relative to its own folder or by its name; nothing
    where it says nothing.

    Raises:
        ValueError: it says nothing of any of them.
    """
    from action_llm_recipes.common.video_windows import by_video

    rows, root = by_video(table), Path(table).resolve().parent
    found = {}
    for path in paths:
        inside = path.resolve().is_relative_to(root)
        name = path.resolve().relative_to(root) if inside else Path(path.name)
        found[path] = rows.get(name.with_suffix("").as_posix(), rows.get(path.stem, []))
    if not any(found.values()):
        raise ValueError(f"{table} says nothing of {paths[0].name}, nor of any other of {len(paths)} videos.")
    return found


def gaps(segments, end: float) -> list[tuple[float, float]]:
    """Where no segment is, from 0 to `end` seconds."""
    borders = [0.0, *(at for one in segments for at in one[:2]), end]
    return [(a, b) for a, b in zip(borders[::2], borders[1::2], strict=True) if b > a]


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
