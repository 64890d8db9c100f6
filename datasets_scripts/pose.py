"""Estimates the poses of the people in videos: a folder of videos → a folder of skeletons (`folder_builder`).

    action-llm-pose my_videos --output my_skeletons
    action-llm-run --dataset folder --data_dir my_skeletons --output_dir runs/mine

Each video `a/b.mp4` becomes `a/b.npz`: `keypoints` (frames, people, joints, coordinates and a score), a slot for each tracked
person, and `fps`. Labels, subjects and splits of metadata.csv are carried over. Without metadata.csv, folders `class/file` or
`split/class/file` give the labels, as for other recordings.

A folder of pictures with a row in metadata.csv is a video, too, as for `folder-video` (`videos`).

`poses.html` shows frames with the skeletons drawn over them, and counts the frames in which nobody is seen. Look at it before
you train. Videos that cannot be read, or show nobody, are skipped and listed there.

The same command brings the folder up to date: poses are estimated of videos that are new, have changed, or could not be read,
and the skeletons of videos that are gone are removed. A folder keeps its settings: those that are not given are taken from it.
"""

import hashlib
import io
import json
import logging
import math
import os
import shlex
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from action_llm.model_files import read_json_object

from .atomic_files import write_atomically
from .commands import command_parser, run_command
from .endings import disk_errno
from .folder_lock import writing, writing_share
from .folder_record import check_record, read_record
from .names import METADATA, SKELETON
from .pose_page import count, draw_overlays, page_of, picture_file
from .pose_videos import (
    PoseFolderError,
    find_videos,
    opened_video,
    read_common,
    read_table,
    skeleton_name,
    table_of_skeletons,
)
from .progress import Progress
from .task_shares import add_task_options, check_task
from .worker_processes import in_processes

if TYPE_CHECKING:
    from action_llm.pose_estimators import PoseEstimator

logger = logging.getLogger(__name__)

# Hidden, so that neither is taken for a recording: the settings of the folder, and what became of each video.
RECORD, OUTCOME = ".poses.json", ".{}.poses.json"
# Settings of a new folder.
USUAL = {"pose": None, "pose_model": None, "fps": None, "max_people": 2, "mirrored": False}
# Start of a model in the record that is not a name on the Hub.
DIGEST = "sha256:"
# Estimators of which a process needs the whole GPU.
ON_GPU = ("vitpose",)
PAGE = "poses.html"


def estimate_poses(
    videos: str | os.PathLike,
    output: str | os.PathLike,
    *,
    pose: str | None = None,
    pose_model: str | None = None,
    fps: float | None = None,
    max_people: int | None = None,
    mirrored: bool | None = None,
    num_proc: int | None = None,
    task: int = 0,
    tasks: int = 1,
) -> dict:
    """Brings a folder of skeletons up to date with a folder of videos.

    If another process is writing to the folder, it is waited for. The ranks of a launch take turns in this way, so the first
    of them estimates all poses.

    Args:
        videos: folder of the videos, or a video.
        output: folder to write to; created if missing.
        pose, pose_model, fps, max_people, mirrored: settings of the folder. None is that of its earlier runs, and in a new
            folder:

            - pose: the first of "mediapipe" and "vitpose" whose weights are on this machine.
            - pose_model: the usual weights of the estimator, see `load_pose_estimator`.
            - fps: frames per second at which poses are estimated; those of each video.
            - max_people: maximum number of people in a frame; 2.
            - mirrored: whether the videos are mirror images, as those of NTU RGB+D; False.
        num_proc: number of processes; None uses every core, and a single process for an estimator on a GPU and for one of
            several tasks.
        task, tasks: which of how many tasks this is. One of several estimates the poses of its share of the videos only; when
            all have ended, a run with a single task completes the folder.

    Returns:
        the numbers `estimated` (videos whose poses this run estimated), `recordings`, `frames` and `empty_frames` (in which
        nobody is seen); and `skipped`, a list of dicts with `file`, `kind` ("unreadable" or "nobody") and `reason`. Those of
        one of several tasks are of its share.

    Raises:
        PoseError: if the estimator or its weights are missing.
        PoseFolderError: if the output is the folder of the videos, has files or poses of something else, or was made with
            other settings; or if two videos would have the same skeleton file.
        SkeletonFileError: if `fps` is impossible.
        DataFolderError: if there is no video, or no video shows a person.
    """
    from action_llm.skeleton_files import checked_rate

    if fps is not None:
        checked_rate("fps", fps)
    given = {
        "pose": pose,
        "pose_model": _model_identity(pose_model),
        "fps": fps,
        "max_people": max_people,
        "mirrored": mirrored,
    }
    check_task(task, tasks)
    folder, estimated = _PoseFolder(Path(videos), Path(output), given), 0
    if tasks > 1:
        with writing_share(output, task, tasks, "--output"):
            return folder.estimate_share(pose_model, num_proc or 1, task, tasks)
    if not folder.is_up_to_date():
        with writing(output, "--output", patience=math.inf, each_rank=True):
            # The process that was waited for may have done all.
            folder = _PoseFolder(Path(videos), Path(output), given)
            estimated = folder.update(pose_model, num_proc)
    return {"estimated": estimated, **folder.summary()}


class _PoseFolder:
    """A folder of skeletons and the videos that they are of.

    Args:
        videos, output: as in `estimate_poses`.
        given: setting → its value; None if it is not given.

    Raises:
        PoseError, PoseFolderError, DataFolderError: see `estimate_poses`.
    """

    def __init__(self, videos: Path, output: Path, given: dict):
        from action_llm.pose_estimators import POSE_ESTIMATORS, usual_pose_estimator

        self.videos, self.output = videos, output
        # `states`: path of each video → what changes if the video changes.
        self.root, self.states = find_videos(videos)
        names = {skeleton_name(path) for path in self.states}
        known = _known_skeletons(output)
        self._gone = sorted(known - names)
        self._check_output(names, known)
        recorded = {}
        if known:  # a run that estimated nothing has settled nothing
            check_record(
                output / RECORD,
                {name: value for name, value in given.items() if value is not None},
                PoseFolderError,
            )
            recorded = read_record(output / RECORD, PoseFolderError) or {}
        self._settings = {
            name: recorded.get(name, usual) if given[name] is None else given[name] for name, usual in USUAL.items()
        }
        self._settings["pose"] = self._settings["pose"] or usual_pose_estimator()
        if self._settings["pose"] not in POSE_ESTIMATORS:
            expected = " or ".join(POSE_ESTIMATORS)
            raise PoseFolderError(f"pose: expected {expected}, found {self._settings['pose']!r}")
        outcomes = {
            path: read_json_object(_outcome_file(output, skeleton))
            for path in self.states
            if (skeleton := skeleton_name(path)) in known
        }
        # What made a video unreadable may have passed: too little memory, or another version of FFmpeg.
        self._outcomes = {
            path: outcome
            for path, outcome in outcomes.items()
            if outcome.get("video") == self.states[path] and outcome.get("kind") != "unreadable"
        }

    def _check_output(self, names: set[str], known: set[str]) -> None:
        """Raises `PoseFolderError` if a run would replace or remove files that are not of these videos."""
        if self.output.resolve() == self.root.resolve():
            raise PoseFolderError(
                f"{self.output} is the folder of the videos: choose another folder for the skeletons"
            )
        if not (self.output / RECORD).is_file():
            targets = [METADATA, SKELETON, PAGE, *sorted(names), *map(picture_file, sorted(names))]
            if taken := next((path for name in targets if (path := self.output / name).exists()), None):
                raise PoseFolderError(f"{taken} exists, and is not of estimated poses: choose another folder")
        if self._gone and (self.videos.is_file() or len(self._gone) == len(known)):
            raise PoseFolderError(
                f"{self.output} has poses of other videos than {self.videos}, for example {self._gone[0]}: choose another "
                "folder; the videos of a folder are estimated together, by passing the folder"
            )

    def is_up_to_date(self) -> bool:
        if self._gone or len(self._outcomes) < len(self.states):
            return False
        return all(_has_content(self.output / name, content) for name, content in self._descriptions().items())

    def update(self, model: str | None, num_proc: int | None) -> int:
        """Removes and writes what has changed; returns the number of videos whose poses were estimated."""
        for name in self._gone:
            _remove(self.output, name)
        if self._gone:
            logger.info("Removed from %s: the skeletons of %d videos that are gone", self.output, len(self._gone))
        missing = [path for path in self.states if path not in self._outcomes]
        if missing:
            self._outcomes |= self._estimate(missing, model, num_proc)
        for name, content in self._descriptions().items():
            if not _has_content(self.output / name, content):
                write_atomically(self.output / name, content)
        return sum(self._outcomes[path].get("kind") != "unreadable" for path in missing)

    def estimate_share(self, model: str | None, num_proc: int, task: int, tasks: int) -> dict:
        """Estimates the poses of the videos of a task; returns its summary."""
        share = list(self.states)[task::tasks]
        missing = [path for path in share if path not in self._outcomes]
        if missing:
            self._outcomes |= self._estimate(missing, model, num_proc)
        outcomes = {path: self._outcomes[path] for path in share}
        estimated = sum(outcomes[path].get("kind") != "unreadable" for path in missing)
        return {"estimated": estimated, **_counts(outcomes)}

    def _estimate(self, paths: list[str], model: str | None, num_proc: int | None) -> dict[str, dict]:
        """Estimates the poses of some videos; returns their outcomes."""
        model = model or self._settings["pose_model"]
        if model is not None and model.startswith(DIGEST):
            raise PoseFolderError(
                f"{self.output} was made with a pose_model of your own ({model}), which the remaining {len(paths)} videos "
                "need, too: name it again"
            )
        write_atomically(self.output / RECORD, json.dumps(self._settings, indent=1) + "\n")
        if num_proc is None and self._settings["pose"] in ON_GPU:
            num_proc = 1
        work = partial(_estimate, self.root, self.output, self._settings | {"pose_model": model})
        jobs = [(path, self.states[path]) for path in paths]
        outcomes = {}
        try:
            with (
                Progress("poses", len(self.states), "videos", len(self.states) - len(paths)) as bar,
                in_processes(work, jobs, num_proc) as results,
            ):
                for path, outcome in zip(paths, results, strict=True):
                    outcomes[path] = outcome
                    bar.update()
        finally:
            _load.cache_clear()  # frees the memory of the GPU
        return outcomes

    def _descriptions(self) -> dict[str, str]:
        """Name → content of the files that describe the folder."""
        outcomes = {path: self._outcomes[path] for path in self.states}
        files = {PAGE: page_of(outcomes, self._command_for_the_other_side())}
        if all("kind" in outcome for outcome in outcomes.values()):
            return files
        from action_llm.pose_estimators import POSE_ESTIMATORS

        common = {"layout": POSE_ESTIMATORS[self._settings["pose"]].layout}
        given = read_common(self.root)
        common |= {name: given[name] for name in ("class_names", "license") if name in given}
        files[SKELETON] = json.dumps(common, indent=1, ensure_ascii=False) + "\n"
        if table := read_table(self.root):
            files[METADATA] = table_of_skeletons(table, self.videos.name if self.videos.is_file() else None)
        return files

    def _command_for_the_other_side(self) -> str:
        """The command that estimates the poses with left and right exchanged, without the paths of this machine."""
        places = [self.videos.resolve().name, "--output", self.output.resolve().name]
        settings = self._settings | {"mirrored": not self._settings["mirrored"]}
        options = [
            f"--{name}" if value is True else f"--{name} {shlex.quote(str(value))}"
            for name, value in settings.items()
            if value != USUAL[name] and not str(value).startswith(DIGEST)
        ]
        return " ".join(["action-llm-pose", *map(shlex.quote, places), *options])

    def summary(self) -> dict:
        """The numbers of `estimate_poses`; raises `DataFolderError` if there is no skeleton."""
        from .building import DataFolderError

        counts = _counts({path: self._outcomes[path] for path in self.states})
        if not counts["recordings"]:
            skipped = counts["skipped"]
            raise DataFolderError(
                f"{self.videos}: expected videos that show people; found {count(len(skipped), 'video')} without a skeleton, "
                f"for example {skipped[0]['reason']}"
            )
        return counts


def _counts(outcomes: dict[str, dict]) -> dict:
    """The numbers of `estimate_poses` for some videos, and those that are skipped."""
    skipped = [
        {"file": path, "kind": outcome["kind"], "reason": outcome["reason"]}
        for path, outcome in outcomes.items()
        if "kind" in outcome
    ]
    return {
        "recordings": len(outcomes) - len(skipped),
        **{name: sum(outcome.get(name, 0) for outcome in outcomes.values()) for name in ("frames", "empty_frames")},
        "skipped": sorted(skipped, key=lambda entry: entry["file"]),
    }


def _model_identity(model: str | None) -> str | None:
    """What a record says of a model: its name on the Hub, or a digest of a file or a folder. None stays None."""
    from action_llm.llm_references import sha256_of

    if model is None or not Path(model).exists():
        return model
    if Path(model).is_file():
        return DIGEST + sha256_of(model)
    files = sorted(filter(Path.is_file, Path(model).iterdir()))
    return DIGEST + hashlib.sha256("".join(f"{file.name} {sha256_of(file)}\n" for file in files).encode()).hexdigest()


def _known_skeletons(output: Path) -> set[str]:
    """The skeleton names of the videos whose outcomes are in a folder. Folders of poses in it are others."""
    before, after = OUTCOME.split("{}")
    names = set()
    for base, folders, files in os.walk(output):
        folders[:] = [name for name in folders if not Path(base, name, RECORD).is_file()]
        stems = (name[len(before) : -len(after)] for name in files if name.endswith(after) and name != RECORD)
        names.update(Path(base, f"{stem}.npz").relative_to(output).as_posix() for stem in stems)
    return names


def _outcome_file(output: Path, skeleton: str) -> Path:
    target = output / skeleton
    return target.with_name(OUTCOME.format(target.stem))


def _remove(output: Path, skeleton: str) -> None:
    """Removes the outcome of a video, and then its skeleton and pictures."""
    for file in (_outcome_file(output, skeleton), output / skeleton, output / picture_file(skeleton)):
        file.unlink(missing_ok=True)


def _has_content(path: Path, content: str) -> bool:
    return path.is_file() and path.read_bytes() == content.encode()


@lru_cache(maxsize=1)
def _load(pose: str, model: str | None, max_people: int) -> "PoseEstimator":
    """The estimator of this process. It is loaded with the first video, so that errors reach the parent process."""
    from action_llm.pose_estimators import PoseError, load_pose_estimator

    try:
        return load_pose_estimator(pose, model, max_people)
    except (OSError, MemoryError) as error:  # which `_estimate` would take for faults of a video
        raise PoseError(f"{pose} cannot be loaded: {error or type(error).__name__}") from error


def _estimate(root: Path, output: Path, settings: dict, video: tuple[str, dict]) -> dict:
    """Writes the skeleton, the pictures and the outcome of a video, in this order; returns the outcome."""
    from action_llm.pose_estimators import NobodySeenError
    from action_llm.skeleton_files import SkeletonFileError
    from action_llm.skeleton_layouts import get_layout
    from action_llm.video_files import VideoFileError

    from .building import UNREADABLE

    path, state = video
    skeleton = skeleton_name(path)
    _remove(output, skeleton)
    try:
        with opened_video(root, path, state) as opened:
            estimator = _load(settings["pose"], settings["pose_model"], settings["max_people"])
            recording = estimator(opened, fps=settings["fps"], mirrored=settings["mirrored"])
            dimensions = get_layout(recording.layout).dimensions
            keypoints = np.concatenate([recording.keypoints[..., :dimensions], recording.scores[..., None]], axis=-1)
            content = io.BytesIO()
            np.savez_compressed(content, keypoints=keypoints, fps=recording.fps, body_ids=recording.body_ids)
            write_atomically(output / skeleton, content.getvalue())
        with opened_video(root, path, state) as opened:  # the estimator has closed it
            draw_overlays(output / picture_file(skeleton), opened, recording)
        outcome = {
            "frames": len(recording.present),
            "empty_frames": int((~recording.present.any(1)).sum()),
            "people": recording.present.shape[1],
        }
    except NobodySeenError as error:
        outcome = {
            "kind": "nobody",
            "reason": str(error),
            "frames": error.num_frames,
            "empty_frames": error.num_frames,
        }
    except (VideoFileError, SkeletonFileError, *UNREADABLE) as error:
        if disk_errno(error) is not None:  # it is not the video that is at fault
            raise
        outcome = {"kind": "unreadable", "reason": str(error) or f"{path}: {type(error).__name__}"}
    outcome["video"] = state
    write_atomically(_outcome_file(output, skeleton), json.dumps(outcome, ensure_ascii=False) + "\n")
    return outcome


def main() -> None:
    """The command `action-llm-pose`."""
    parser = command_parser("Estimates the poses of the people in videos, and writes a folder of skeletons.")
    parser.add_argument("videos", metavar="VIDEOS", help="folder of the videos, or a video")
    parser.add_argument("--output", required=True, help="folder for the skeletons")
    parser.add_argument(
        "--pose",
        choices=("mediapipe", "vitpose"),
        help="pose estimator: mediapipe (33 joints in 3-D, on the CPU) or vitpose (17 joints in 2-D, best on a GPU); default: "
        "the first whose weights are on this machine",
    )
    parser.add_argument(
        "--pose_model",
        help="weights of the estimator: a path, or OWNER/NAME (mediapipe: OWNER/NAME:FILE.task) on the Hub",
    )
    parser.add_argument("--fps", type=float, help="frames per second of the skeletons (default: that of each video)")
    parser.add_argument("--max_people", type=int, help="maximum number of people in a frame (default: 2)")
    parser.add_argument(
        "--mirrored",
        action="store_true",
        default=None,
        help="the videos are mirror images, as those of Kinect (NTU RGB+D): swap left and right",
    )
    parser.add_argument("--num_proc", type=int, help="number of processes (default: one per core; vitpose: 1)")
    add_task_options(parser)

    def work(**arguments) -> str:
        summary = estimate_poses(**arguments)
        output, task, tasks = Path(arguments["output"]), arguments["task"], arguments["tasks"]
        share = f" (task {task} of {tasks})" if tasks > 1 else ""
        page = "" if share else f" Look at {output / PAGE}."
        lines = [f"{entry['kind']}: {entry['reason']}" for entry in summary["skipped"]]
        lines.append(
            f"{count(summary['recordings'], 'recording')} in {output}{share}; skipped: {len(summary['skipped'])}; nobody is "
            f"seen in {summary['empty_frames']:,} of {count(summary['frames'], 'frame')}.{page}"
        )
        return "\n".join(lines)

    run_command(parser, work)


if __name__ == "__main__":
    main()
