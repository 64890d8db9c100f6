"""Estimates the poses of the people in videos: a folder of videos → a folder of skeletons (`folder_builder`).

    action-llm-pose my_videos --output my_skeletons
    action-llm-run --dataset folder --data_dir my_skeletons --output_dir runs/mine

Each video `a/b.mp4` becomes `a/b.npz`: `keypoints` (frames, people, joints, coordinates and a score), a slot for each tracked
person, and `fps`. Labels, subjects and splits of metadata.csv are carried over. Without metadata.csv, folders `class/file` or
`split/class/file` give the labels, as for other recordings.

`poses.html` shows frames with the skeletons drawn over them, and counts the frames in which nobody is seen. Look at it before
you train. Videos that cannot be read, or show nobody, are skipped and listed there.

A run that was stopped resumes with the missing videos.
"""

import csv
import html
import io
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from action_llm.model_files import read_json_object

from .atomic_files import write_atomically, written_whole
from .commands import command_parser, run_command
from .folder_lock import writing
from .folder_record import check_record
from .names import METADATA, SKELETON
from .progress import Progress
from .worker_processes import in_processes

if TYPE_CHECKING:
    from action_llm.pose_estimators import PoseEstimator
    from action_llm.skeleton_files import SkeletonRecording

# Hidden, so that neither is taken for a recording: the settings of the folder, and what became of each video.
RECORD, OUTCOME = ".poses.json", ".{}.poses.json"
PAGE, PICTURES = "poses.html", "overlays"
# Pictures of each video on the page, and their height in pixels.
NUM_PICTURES, HEIGHT = 3, 240
_STYLE = """
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }
 figure { margin: 0 0 1.5rem; } img { max-width: 100%; } figcaption { overflow-wrap: anywhere; } .off { color: #b3261e; }
"""


class PoseFolderError(ValueError):
    """The output folder holds poses that were estimated with other settings, or two videos have the same name."""


def estimate_poses(
    videos: str | os.PathLike,
    output: str | os.PathLike,
    *,
    pose: str | None = None,
    pose_model: str | None = None,
    fps: float | None = None,
    max_people: int = 2,
    mirrored: bool = False,
    num_proc: int | None = None,
) -> dict:
    """Writes a folder of skeletons for a folder of videos.

    Args:
        videos: folder of the videos, or a video.
        output: folder to write to; created if missing.
        pose: "mediapipe" or "vitpose"; None is the first whose weights are on this machine.
        pose_model: its weights, see `load_pose_estimator`.
        fps: frames per second at which poses are estimated; None is that of each video.
        max_people: maximum number of people in a frame.
        mirrored: whether the videos are mirror images, as those of NTU RGB+D.
        num_proc: number of processes; None uses every core.

    Returns:
        the numbers `estimated` (videos of this run), `recordings`, `frames` and `empty_frames` (in which nobody is seen); and
        `skipped`, a list of dicts with `file`, `kind` ("unreadable" or "nobody") and `reason`.

    Raises:
        PoseError: if the estimator or its weights are missing.
        PoseFolderError: if the output was made with other settings, or two videos would have the same skeleton file.
        DataFolderError: if there is no video, or no video shows a person.
        FolderInUseError: if another process is writing to the output.
    """
    with writing(output, "--output"):
        settings = {"fps": fps, "max_people": max_people, "mirrored": mirrored}
        return _estimate_poses(Path(videos), Path(output), pose, pose_model, settings, num_proc)


def _estimate_poses(
    videos: Path, output: Path, pose: str | None, model: str | None, settings: dict, num_proc: int | None
) -> dict:
    from action_llm.pose_estimators import POSE_ESTIMATORS, load_pose_estimator, usual_pose_estimator

    from .building import DataFolderError

    pose = pose or usual_pose_estimator()
    layout = POSE_ESTIMATORS[pose].layout
    settings = {"pose": pose, "model": model and Path(model).name, "layout": layout, **settings}
    root, paths = _find_videos(videos)
    check_record(output / RECORD, settings, PoseFolderError)
    missing = [path for path in paths if not _outcome_file(output, path).is_file()]
    if missing:  # an error in the start of a process would not be shown
        load_pose_estimator(pose, model, settings["max_people"])
    write_atomically(output / RECORD, json.dumps(settings, indent=1) + "\n")
    work = partial(_estimate, root, output, settings["fps"], settings["mirrored"])
    start = (pose, model, settings["max_people"])
    with (
        Progress("poses", len(paths), "videos", len(paths) - len(missing)) as bar,
        in_processes(work, missing, num_proc, initializer=_start, initargs=start) as results,
    ):
        for _ in results:
            bar.update()
    outcomes = {path: read_json_object(_outcome_file(output, path)) for path in paths}
    recordings = [path for path, outcome in outcomes.items() if "kind" not in outcome]
    write_atomically(output / PAGE, _page(outcomes))
    if not recordings:
        reason = next(iter(outcomes.values()))["reason"]
        raise DataFolderError(f"none of the {len(paths)} videos under {videos} gives a skeleton; for example {reason}")
    _write_description(root, output, layout)
    return {
        "estimated": len(missing),
        "recordings": len(recordings),
        "frames": sum(outcome.get("frames", 0) for outcome in outcomes.values()),
        "empty_frames": sum(outcome.get("empty_frames", 0) for outcome in outcomes.values()),
        "skipped": [{"file": path, **outcome} for path, outcome in outcomes.items() if "kind" in outcome],
    }


def _find_videos(videos: Path) -> tuple[Path, list[str]]:
    """The folder of the videos, and their paths in it; raises `PoseFolderError` if two differ only in their suffixes."""
    from action_llm.video_files import VIDEO_SUFFIXES

    from .building import find_files

    if videos.is_file():
        return videos.parent, [videos.name]
    named: dict[str, str] = {}
    for file in find_files(videos, VIDEO_SUFFIXES):
        first = named.setdefault(skeleton_name(file.path), file.path)
        if first != file.path:
            raise PoseFolderError(f"{first} and {file.path} would have the same skeleton file: rename one of them")
    return videos, list(named.values())


def skeleton_name(path: str) -> str:
    """`a/b.mp4`, also inside an archive `a.zip` → `a/b.npz`."""
    return Path(path.replace(".zip/", "/")).with_suffix(".npz").as_posix()


def _outcome_file(output: Path, path: str) -> Path:
    target = output / skeleton_name(path)
    return target.with_name(OUTCOME.format(target.stem))


def _picture_file(path: str) -> str:
    return Path(PICTURES, skeleton_name(path)).with_suffix(".jpg").as_posix()


_estimator: "PoseEstimator | None" = None


def _start(name: str, model: str | None, max_people: int) -> None:
    global _estimator
    from action_llm.pose_estimators import load_pose_estimator

    _estimator = load_pose_estimator(name, model, max_people)


def _estimate(root: Path, output: Path, fps: float | None, mirrored: bool, path: str) -> None:
    """Writes the skeleton, the pictures and the outcome of a video, in this order."""
    from action_llm.pose_estimators import NobodySeenError
    from action_llm.skeleton_layouts import get_layout
    from action_llm.video_files import VideoFileError

    from .building import UNREADABLE, open_source

    try:
        with open_source(root, path) as file:
            recording = _estimator(file, fps=fps, mirrored=mirrored)
            dimensions = get_layout(recording.layout).dimensions
            keypoints = np.concatenate([recording.keypoints[..., :dimensions], recording.scores[..., None]], axis=-1)
            content = io.BytesIO()
            np.savez_compressed(content, keypoints=keypoints, fps=recording.fps, body_ids=recording.body_ids)
            write_atomically(output / skeleton_name(path), content.getvalue())
            _draw_overlays(output / _picture_file(path), file, recording)
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
    except (VideoFileError, *UNREADABLE) as error:
        outcome = {"kind": "unreadable", "reason": str(error) or type(error).__name__}
    write_atomically(_outcome_file(output, path), json.dumps(outcome, ensure_ascii=False) + "\n")


def _draw_overlays(target: Path, file, recording: "SkeletonRecording") -> None:
    """A strip of frames with the people drawn over them, evenly spaced over the frames in which people are seen."""
    from PIL import Image

    from action_llm.video_files import open_video

    from .rendering import draw_over

    seen = recording.present.any(1).nonzero()[0]
    chosen = seen[np.linspace(0, len(seen) - 1, NUM_PICTURES).round().astype(int)]
    file.seek(0)
    with open_video(file) as video:
        height, width = video.picture_size()
        size = (HEIGHT, max(1, round(width * HEIGHT / height)))
        pictures = video.frames_at(chosen / recording.fps, size)
    visible = recording.present[..., None] & np.isfinite(recording.keypoints).all(-1)
    pixels = np.where(visible[..., None], recording.color_pixels * (HEIGHT / height), np.nan)[chosen]
    strip = np.concatenate(list(draw_over(pictures, pixels, recording.layout)), axis=1)
    with written_whole(target) as unfinished:
        Image.fromarray(strip).save(unfinished, format="JPEG", quality=85)


def _write_description(root: Path, output: Path, layout: str) -> None:
    """Writes skeleton.json, and metadata.csv if the videos have one."""
    common = {"layout": layout}
    if (root / SKELETON).is_file():
        given = read_json_object(root / SKELETON)
        common |= {name: given[name] for name in ("class_names", "license") if name in given}
    write_atomically(output / SKELETON, json.dumps(common, indent=1, ensure_ascii=False) + "\n")
    if (root / METADATA).is_file():
        write_atomically(output / METADATA, _with_skeleton_names(root / METADATA))


def _with_skeleton_names(table: Path) -> str:
    """The table of the videos for their skeletons. Files contain their rates, so the column fps is left out."""
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    text = io.StringIO()
    columns = [name for name in reader.fieldnames or () if name != "fps"]
    # Faulty rows are copied as they are: loading the skeletons reports them.
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**row, "file_name": skeleton_name(row["file_name"])} for row in rows if row.get("file_name"))
    return text.getvalue()


def _page(outcomes: dict[str, dict]) -> str:
    """poses.html: the counts, the videos that were skipped, and pictures of the others, those with most empty frames first."""
    used = {path: outcome for path, outcome in outcomes.items() if "kind" not in outcome}
    skipped = {path: outcome for path, outcome in outcomes.items() if "kind" in outcome}
    frames, empty = (sum(outcome.get(name, 0) for outcome in outcomes.values()) for name in ("frames", "empty_frames"))
    parts = [
        f"<p>{len(used):,} of {len(outcomes):,} videos have a skeleton. Nobody is seen in {empty:,} of {frames:,} frames.</p>",
        "<p>Warm colours are the left side of the person, cool colours the right side. If they are exchanged, the videos are "
        "mirror images: estimate the poses again with <code>--mirrored</code>.</p>",
    ]
    if skipped:
        items = "".join(f'<li class="off">{html.escape(outcome["reason"])}</li>' for outcome in skipped.values())
        parts.append(f"<h2>Skipped</h2><ul>{items}</ul>")
    parts.append("<h2>Videos</h2>")
    for path, outcome in sorted(used.items(), key=lambda item: -item[1]["empty_frames"] / item[1]["frames"]):
        people = "1 person" if outcome["people"] == 1 else f"{outcome['people']} tracked people"
        caption = (
            f"{html.escape(path)}: {people}, nobody in {outcome['empty_frames']:,} of {outcome['frames']:,} frames"
        )
        picture = html.escape(_picture_file(path), quote=True)
        parts.append(
            f'<figure><img loading="lazy" src="{picture}" alt="three frames with skeletons"><figcaption>{caption}</figcaption>'
            "</figure>"
        )
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Estimated poses</title>
<style>{_STYLE}</style>
<h1>Estimated poses</h1>
{body}
</html>
"""


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
    parser.add_argument("--max_people", type=int, default=2, help="most people in a frame (default: 2)")
    parser.add_argument(
        "--mirrored",
        action="store_true",
        help="the videos are mirror images, as those of Kinect (NTU RGB+D): swap left and right",
    )
    parser.add_argument("--num_proc", type=int, help="number of processes (default: one per core)")

    def work(**arguments) -> str:
        summary = estimate_poses(**arguments)
        output = Path(arguments["output"])
        lines = [f"{entry['kind']}: {entry['reason']}" for entry in summary["skipped"]]
        lines.append(
            f"{summary['recordings']} recordings in {output}; skipped: {len(summary['skipped'])}; nobody is seen in "
            f"{summary['empty_frames']:,} of {summary['frames']:,} frames. Look at {output / PAGE}."
        )
        return "\n".join(lines)

    run_command(parser, work)


if __name__ == "__main__":
    main()
