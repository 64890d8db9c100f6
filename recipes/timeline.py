"""
Timelines of long recordings: which action happened when, with pictures, and scores if the true actions are known.

```bash
python recipes/timeline.py --model runs/long/sft/model --recordings LONG/P003_V001.mp4 --output_dir runs/long/timelines
python recipes/timeline.py --model runs/long/sft/model --recordings LONG/P003_V*.mp4 --truth LONG/timeline.csv \\
    --output_dir runs/long/timelines
python recipes/timeline.py --model runs/mine/sft/model --recordings afternoon.npz morning.mp4 --pose mediapipe \\
    --per_person true --output_dir runs/mine/timelines
```

A recogniser of long videos (VT-LVLM-AR) reads each video once, as a stream of events, and classifies a window that slides over
the events. A recogniser of skeletons classifies a window that slides over the frames of skeletons, or of videos whose poses are
estimated first. The recipe writes, for each recording, the actions with their times (`NAME.csv`), the probability of every
class in every step, and the events of a video with token, start, end and place in the frame (`NAME.json`), and a picture
(`NAME.png`). `live.py` gives the same labels while a recording is filmed.

With `--per_person true`, a recogniser of skeletons recognises each person alone. The table has the number of their track as
`person`, the JSON file a timeline for each of the `people`, from the first to the last step in which they are seen, and the
picture a row for each. People of whom too few joints are seen are left out.

With `--truth`, `metrics.json` has the share of time that is labelled correctly; the F1 score of actions at overlaps of 10, 25
and 50 %; their mean average precision at overlaps of 30 to 70 % (ranked by mean probability); that of the starts of actions at
offsets of 1 to 10 seconds, which counts an action when its label is known (point-level AP of online detection); the order of
actions (edit score, the mean of recordings); the mean delay of a label; and, of videos, the scores of the event boundaries.
Time without a true action is labelled correctly if the class is `--nothing` or nobody is seen; with `--nothing ''`, it does not
count. Recordings that a stage was trained on are not scored. Recordings that cannot be read, or in which nobody is seen, are
listed in `skipped.json`; their true actions are missed.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_recogniser

logger = logging.getLogger(__name__)

OWN_FILES = ("identity", "metrics", "record", "skipped")  # JSON files of the run beside those of the recordings
OVERLAPS = (0.1, 0.25, 0.5)  # least intersection over union of an action that counts as found
RANKED_OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)  # the same, for the mean average precision
OFFSETS = (1.0, 2.0, 5.0, 10.0)  # largest seconds between the start of an action and its report


@dataclass
class TimelineArguments:
    """The recogniser, the recordings, and the sliding window."""

    model: str = field(metadata={"help": "folder or Hub repository of a recogniser of long videos or of skeletons"})
    recordings: list[str] = field(metadata={"help": "video files; for a recogniser of skeletons, also skeletons"})
    output_dir: str = field(metadata={"help": "folder for the timelines"})
    truth: str | None = field(
        default=None,
        metadata={
            "help": "CSV file with the true actions: file_name, start and end (seconds), label; to score the timelines"
        },
    )
    nothing: str = field(
        default="standing still",
        metadata={
            "help": "class of windows without an action; '' if there is no such class, so that time without is not scored"
        },
    )
    seconds: float = field(default=4.0, metadata={"help": "length of a window in seconds"})
    stride: float = field(default=1.0, metadata={"help": "seconds between the starts of two windows"})
    batch_size: int = field(default=8, metadata={"help": "number of windows per batch"})
    pose: Literal["mediapipe", "vitpose"] | None = field(
        default=None,
        metadata={
            "help": "pose estimator with which a recogniser of skeletons reads videos; by default the first whose weights are "
            "on this machine"
        },
    )
    mirrored: bool = field(
        default=False, metadata={"help": "whether the videos that a recogniser of skeletons reads are mirror images"}
    )
    per_person: bool = field(
        default=False, metadata={"help": "whether a recogniser of skeletons recognises each person alone"}
    )

    def __post_init__(self):
        check_recogniser(self.model)
        if self.per_person and self.truth is not None:
            raise ValueError("--truth does not say who does an action: leave out --per_person to score the timelines.")


ARGUMENTS = (TimelineArguments,)


@writes_output_dir
def main(arguments: TimelineArguments) -> dict | None:
    """Writes the timelines; returns the content of metrics.json, or None without `truth`."""
    from transformers import AutoConfig

    from action_llm.feature_extraction_skeleton import SkeletonInputError
    from action_llm.pose_estimators import load_pose_estimator
    from action_llm.skeleton_files import SkeletonFileError
    from action_llm.sliding_windows import check_window
    from action_llm.timelines import check_reads_timelines
    from action_llm.video_files import is_video
    from action_llm.video_frames import VideoFileError
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.stage_records import training_record

    check_reads_timelines(AutoConfig.from_pretrained(arguments.model, trust_remote_code=False))
    check_window(arguments.seconds, arguments.stride)
    run = RunFolder(arguments.output_dir)
    paths = list(map(Path, arguments.recordings))
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError(
            "two recordings have the same name, so their timelines would overwrite each other: use an output_dir per folder."
        )
    for path in paths:
        if path.stem in OWN_FILES:
            raise ValueError(
                f"{path}: its timeline would overwrite {path.stem}.json of the run: rename the recording."
            )
    truth = None if arguments.truth is None else true_actions(arguments.truth, paths)
    record = training_record(arguments.model)
    if truth is not None:
        check_not_trained_on(arguments, record, paths)
    model, processor = load(arguments, truth or {})
    settings = {
        name: getattr(arguments, name) for name in ("seconds", "stride", "nothing", "pose", "mirrored", "per_person")
    }
    pose = arguments.pose
    if model.config.action_config.model_type != "vtem" and any(map(is_video, paths)):
        pose = load_pose_estimator(pose)  # once for all videos
    run.check_identity(settings | _identity(arguments, paths, truth, model))
    score, skipped = TimelineScore(arguments.nothing), []
    for path in progress(paths, "timelines", "recordings"):
        windows = {name: getattr(arguments, name) for name in ("seconds", "stride", "batch_size")}
        try:
            read = model.timeline_per_person if arguments.per_person else model.timeline
            timelines = read(processor, path, pose=pose, mirrored=arguments.mirrored, **windows)
        except (VideoFileError, SkeletonFileError, SkeletonInputError, OSError) as error:
            skipped.append({"file": str(path), "reason": str(error)})
            if truth is not None:
                score.add_missed(truth[path])
            continue
        timelines = timelines if arguments.per_person else {None: timelines}  # None is everybody
        expected = None if truth is None else truth[path]
        if expected is not None:
            score.add(timelines[None], expected)
        timelines = {person: timeline for person, timeline in timelines.items() if timeline.spans()}
        if not timelines:
            skipped.append({"file": str(path), "reason": f"{path.name}: expected people, found nobody"})
            continue
        write(timelines, run.path, path, expected, arguments.nothing)
        for person, timeline in timelines.items():
            who = path.name if person is None else f"{path.name}, person {person}"
            logger.info("%s: %s", who, timeline.caption(arguments.nothing))
            if timeline.is_doubtful.mean() >= 0.5:
                logger.warning(
                    "%s: %.0f %% of it is unlike the recordings that the model knows, so its labels are unreliable",
                    who,
                    100 * timeline.is_doubtful.mean(),
                )
    write_atomically(run.path / "skipped.json", json.dumps(skipped, indent=2, ensure_ascii=False) + "\n")
    if skipped:
        logger.warning(
            "%d of %d recordings were skipped, the first because: %s", len(skipped), len(paths), skipped[0]["reason"]
        )
    if len(skipped) == len(paths):
        raise ValueError(
            f"none of {len(paths)} recordings could be read; {skipped[0]['file']}: {skipped[0]['reason']}"
        )
    run.write_record(
        stage="timeline",
        settings=settings,
        model=record,
        recordings=len(paths),
        skipped=len(skipped),
    )
    metrics = score.metrics()
    if metrics is None:
        return None
    write_atomically(run.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    run.log_finished(
        "Timelines",
        f"{metrics['share_of_time_correct']:.1%} of the time is labelled correctly",
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
    Checks that no stage of the recogniser was trained on the recordings, by their names.

    Args:
        arguments: of the recipe.
        record: training record of the recogniser.
        paths: of the recordings.

    Raises:
        ValueError: if a stage was trained on one of the recordings.
    """
    from action_llm_recipes.common.split_evidence import SplitEvidence

    dataset = record.get("sentences", {}).get("dataset", "folder-video")
    names = [name_in_table(arguments.truth, path) for path in paths]
    try:
        SplitEvidence(dataset, {"test": names}, [arguments.model]).refuse("test", record)
    except ValueError as error:
        raise ValueError(f"{error} Timelines of training recordings are not scored: leave out --truth.") from error


def _identity(arguments: TimelineArguments, paths: list[Path], truth: dict | None, model) -> dict:
    """Fingerprints of the inputs, for `RunFolder.check_identity`."""
    from action_llm.recording_versions import stable_seed
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.stage_records import training_record

    return {
        "recordings": sorted(path.name for path in paths),
        "truth": None if truth is None else stable_seed(Path(arguments.truth).read_bytes()),
        "action_model": weights_fingerprint(model.base_model.action_model),
        "model": stable_seed(json.dumps(training_record(arguments.model), sort_keys=True)),
    }


def write(timelines: dict, folder: Path, recording: Path, expected: list | None, nothing: str):
    """
    Writes the timelines of a recording as a table, as JSON and as a picture.

    Args:
        timelines: of each person, by the numbers of their tracks; or that of the recording, by None.
        folder: for the files.
        recording: path of the recording.
        expected: true actions in the recording, or None if unknown.
        nothing: class of windows without an action.
    """
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.csv_tables import to_csv
    from action_llm_recipes.metrics.plots import plot_people, plot_timeline

    of_people = None not in timelines
    people = [
        ({"person": person} if of_people else {}) | described(timeline, nothing)
        for person, timeline in timelines.items()
    ]
    columns = ("file_name", *(["person"] if of_people else []), "start", "end", "label")
    actions = ((of_person, span) for of_person in people for span in of_person["spans"] if span["label"] != nothing)
    rows = ({"file_name": recording.name} | of_person | span for of_person, span in actions)
    table = ({column: row[column] for column in columns} for row in rows)
    write_atomically(folder / f"{recording.stem}.csv", to_csv(table, columns))
    about = {"recording": recording.name, "class_names": next(iter(timelines.values())).class_names}
    content = about | ({"people": people} if of_people else people[0])
    write_atomically(folder / f"{recording.stem}.json", json.dumps(content, ensure_ascii=False) + "\n")
    picture = folder / f"{recording.stem}.png"
    if of_people:
        plot_people(timelines, picture, nothing, recording.name)
    else:
        plot_timeline(timelines[None], picture, expected, nothing, recording.name)


def described(timeline, nothing: str) -> dict:
    """A timeline as JSON."""
    spans = [span._replace(start=round(span.start, 3), end=round(span.end, 3)) for span in timeline.spans()]
    return {
        "caption": timeline.caption(nothing),
        "spans": [span._asdict() for span in spans],
        "starts": timeline.starts.tolist(),
        "known": timeline.known.tolist(),
        "probabilities": [
            row.tolist() if is_seen else None
            for row, is_seen in zip(timeline.probabilities.round(6), (timeline.best() >= 0).tolist(), strict=True)
        ],
        "events": [
            [event.action_id, round(event.start, 3), round(event.end, 3), event.place] for event in timeline.events
        ],
    }


class TimelineScore:
    """
    Scores of timelines against the true actions, over all recordings.

    Args:
        nothing: class of windows without an action, which is correct in time without a true action; "" if there is no such
            class, so that this time is not scored.
    """

    def __init__(self, nothing: str):
        from action_llm_recipes.metrics.temporal_segments import BorderCounts

        self.nothing = nothing
        self.seconds = self.scored = self.correct = self.delay = 0.0
        self.events = self.steps = 0
        self.orders = []  # the edit score of each recording
        self.hits, self.borders = dict.fromkeys(OVERLAPS, 0), BorderCounts()
        # Of each recording: actions with their mean probability; their reports, with the probability at that moment; the truth.
        self.actions, self.reports, self.expected = [], [], []

    def add(self, timeline, expected: list):
        """
        Adds a recording.

        Args:
            timeline: of the recording.
            expected: its true actions.
        """
        from action_llm_datasets.timelines import Segment
        from action_llm_recipes.metrics.temporal_segments import (
            ScoredSegment,
            seconds_correct,
            segment_hits,
        )

        spans = timeline.spans()
        actions = [ScoredSegment(*span[:4]) for span in spans if span.label != self.nothing]
        at_first = timeline.probabilities[timeline.starts.searchsorted([span.start for span in spans])].max(axis=1)
        reports = [
            ScoredSegment(span.known, span.known, span.label, float(probability))
            for span, probability in zip(spans, at_first, strict=True)
            if span.label != self.nothing
        ]
        self._add_actions(actions, reports, expected)
        if timeline.events:
            self.borders.add(timeline.events, expected)
        self.events += len(timeline.events)
        end = float(timeline.ends[-1])
        self.seconds += end
        is_seen = timeline.best() >= 0
        labelled, true = list(spans), list(expected)
        if self.nothing:
            unseen = zip(timeline.starts[~is_seen], timeline.ends[~is_seen], strict=True)
            labelled += (Segment(*step, self.nothing) for step in unseen)
            true += (Segment(*gap, self.nothing) for gap in gaps(expected, end))
        self.scored += sum(min(segment.end, end) - min(segment.start, end) for segment in true)
        self.correct += seconds_correct(labelled, true)
        self.delay += float((timeline.known - timeline.starts)[is_seen].sum())
        self.steps += int(is_seen.sum())
        for overlap in OVERLAPS:
            self.hits[overlap] += segment_hits(actions, expected, overlap)

    def add_missed(self, expected: list):
        """Adds a recording that could not be read: all of its true actions are missed."""
        if expected:
            self._add_actions([], [], expected)
            self.scored += sum(action.end - action.start for action in expected)

    def _add_actions(self, actions: list, reports: list, expected: list):
        from action_llm_recipes.metrics.temporal_segments import edit_distance

        self.actions.append(actions)
        self.reports.append(reports)
        self.expected.append(list(expected))
        told, true = ([action.label for action in segments] for segments in (actions, expected))
        self.orders.append(1 - edit_distance(told, true) / max(len(told), len(true), 1))

    def metrics(self) -> dict | None:
        """The content of metrics.json; None if no recording was added."""
        from action_llm_recipes.metrics.temporal_segments import (
            f1_score,
            mean_average_precision,
            overlap_ratio,
            start_closeness,
        )

        if not self.expected:
            return None
        predicted, expected = (sum(map(len, actions)) for actions in (self.actions, self.expected))
        ranked = {
            f"actions_map_{at:g}": mean_average_precision(self.actions, self.expected, overlap_ratio, at)
            for at in RANKED_OVERLAPS
        }
        reported = {
            f"starts_map_{at:g}_s": mean_average_precision(self.reports, self.expected, start_closeness, -at)
            for at in OFFSETS
        }
        of_events = {"events_a_minute": 60 * self.events / self.seconds, "event_borders": self.borders.scores()}
        return {
            "recordings": len(self.expected),
            "minutes": self.seconds / 60,
            "share_of_time_correct": self.correct / self.scored if self.scored else 0.0,
            "actions_found": predicted,
            "actions_true": expected,
            "order_of_actions": sum(self.orders) / len(self.orders),
            **{f"actions_f1_{at:g}": f1_score(self.hits[at], predicted, expected).f1 for at in OVERLAPS},
            **ranked,
            **reported,
            "label_delay_seconds": self.delay / self.steps,
            **(of_events if self.borders.videos else {}),
        }


def true_actions(table: str, paths: list[Path]) -> dict[Path, list]:
    """
    The true actions of each recording; none, with a warning, for recordings that the table does not name.

    Args:
        table: CSV file. Its file names are relative to its folder, or plain names of the recordings.
        paths: of the recordings.

    Raises:
        ValueError: if the table names none of the recordings.
    """
    from action_llm_recipes.common.video_windows import by_video

    rows = by_video(table)
    actions_of = {path: rows.get(name_in_table(table, path), rows.get(path.stem, [])) for path in paths}
    if not any(actions_of.values()):
        raise ValueError(
            f"{table} names none of the {len(paths)} recordings, such as {paths[0].name}: its file_name must be the name of a "
            "recording, or its path relative to the table."
        )
    if without := [path.name for path in paths if not actions_of[path]]:
        shown = f"{', '.join(without[:3])}{', …' * (len(without) > 3)}"
        logger.warning("%s names no action of %s: scored as recordings without actions", table, shown)
    return actions_of


def name_in_table(table: str, path: Path) -> str:
    """The path of a recording relative to the folder of a table, or its plain name if it is elsewhere; without suffix."""
    root, path = Path(table).resolve().parent, path.resolve()
    name = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return name.with_suffix("").as_posix()


def gaps(segments, end: float) -> list[tuple[float, float]]:
    """The times without a segment, from 0 to `end` seconds."""
    borders = [0.0, *(time for segment in segments for time in segment[:2]), end]
    return [(start, stop) for start, stop in zip(borders[::2], borders[1::2], strict=True) if stop > start]


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
