"""Draws recordings of skeletons as videos, one mp4 per recording, for models that read videos.

    python -m action_llm_datasets.render smarthome-cs --source skeletons --output rendered
    python -m action_llm_datasets.render simulated-xsub --source simulated --output simulated_videos

The protocols `…-video` of the same data set load the output folder: file names stay the same, and the files that describe
the recordings (metadata.csv, simulation.json) are copied. People (`Cleaning`) are drawn from the viewpoint of the sensor.
Videos are written whole or not at all, a second run draws only missing videos, and `rendering.json` lists the recordings that
could not be drawn.
"""

import csv
import io
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atomic_files import write_atomically
from .commands import command_parser, run_command
from .folder_lock import writing
from .folder_record import check_record
from .names import METADATA, SIMULATION_RECORD, SKELETON, did_you_mean, protocol_names
from .progress import Progress
from .protocols import NotInProtocolError
from .rendering import render_batches, write_video
from .worker_processes import in_processes

if TYPE_CHECKING:
    from .building import SkeletonBuilder

RECORD = "rendering.json"
_COPIED = (SIMULATION_RECORD, "SIMULATED.txt", SKELETON)


class RenderFolderError(ValueError):
    """The output folder holds videos of another source, size or angle."""


def render(
    name: str,
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    size: int = 256,
    yaw: float = 0.0,
    num_proc: int | None = None,
) -> dict:
    """Draws every recording of a protocol; returns the content of rendering.json.

    Args:
        name: a protocol of skeletons, as in `load_action_dataset`.
        source: folder of the recordings.
        output: folder for the videos; created if missing.
        size: height and width in pixels, an even number.
        yaw: rotation about the vertical in degrees, for three-dimensional recordings.
        num_proc: number of processes; None uses every core.

    Raises:
        ValueError: if there is no such protocol, or an argument is out of range.
        DataFolderError: if the source has no recording of the data set.
        RenderFolderError: if the output has videos of another source, size or angle.
        FolderInUseError: if another process is writing to the output.
    """
    with writing(output, "--output"):
        return _render(name, source, Path(output), size, yaw, num_proc)


def _render(name: str, source, folder: Path, size: int, yaw: float, num_proc: int | None) -> dict:
    skeletons = [known for known in protocol_names() if "video" not in known]
    if name not in skeletons:
        near = did_you_mean(name, skeletons) or f"; there are {', '.join(skeletons)}"
        raise ValueError(f"there is no protocol {name!r} of skeletons{near}")
    from .load import PROTOCOLS

    if size < 16 or size % 2:
        raise ValueError(f"size must be an even number of at least 16; got {size}")
    builder_class, configs = PROTOCOLS[name]
    builders = [builder_class(config_name=config, data_dir=source, clean=True) for config in configs]
    settings = {"protocol": name, "files": builders[0].hash, "size": size, "yaw": yaw}
    check_record(folder / RECORD, settings, RenderFolderError)
    write_atomically(folder / RECORD, json.dumps(settings, indent=1) + "\n")
    for file_name in _COPIED:
        if Path(source, file_name).is_file():
            write_atomically(folder / file_name, Path(source, file_name).read_text(encoding="utf-8"))
    if Path(source, METADATA).is_file():
        write_atomically(folder / METADATA, _with_video_names(Path(source, METADATA)))

    skipped, videos = [], 0
    for builder in builders:
        listed, left_out = _distinct_videos(builder)
        missing = [path for path in listed if not (folder / video_name(path)).is_file()]
        problems = _draw_all(builder, missing, partial(_draw_into, folder, size, yaw), num_proc)
        videos += len(listed) - len(problems)
        skipped += left_out + problems
    summary = settings | {"videos": videos, "skipped": sorted(skipped, key=lambda entry: entry["file"])}
    write_atomically(folder / RECORD, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return summary


def _distinct_videos(builder: "SkeletonBuilder") -> tuple[list[str], list[dict]]:
    """Paths of recordings whose videos have different names, and the files that are left out, with reasons."""
    paths, skipped = builder.assign()
    listed, named = [], {}
    for path in (path for split in paths.values() for path in split):
        first = named.setdefault(video_name(path), path)
        if first == path:
            listed.append(path)
        else:
            reason = f"{path} would be drawn into the same {video_name(path)} as {first}"
            skipped.append({"file": path, "kind": "duplicate", "reason": reason})
    return listed, skipped


def _draw_all(builder: "SkeletonBuilder", paths: list[str], draw: partial, num_proc: int | None) -> list[dict]:
    """Draws recordings; returns those that could not be drawn, with reasons."""
    problems = []
    with (
        Progress(builder.config.name, len(paths), "videos") as bar,
        in_processes(
            partial(_work, draw), paths, num_proc, chunksize=8, initializer=_start, initargs=(builder,)
        ) as results,
    ):
        for problem in results:
            bar.update()
            problems += [] if problem is None else [problem]
    return problems


def video_name(path: str) -> str:
    """`a/b_pose3d.json`, also inside an archive `a.zip` → `a/b_pose3d.mp4`."""
    return Path(path.replace(".zip/", "/")).with_suffix(".mp4").as_posix()


def _with_video_names(table: Path) -> str:
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    text = io.StringIO()
    # Faulty rows are copied as they are: loading the videos reports them.
    writer = csv.DictWriter(text, reader.fieldnames, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**row, "file_name": video_name(row["file_name"])} for row in rows if row["file_name"])
    return text.getvalue()


def _draw_into(folder: Path, size: int, yaw: float, builder: "SkeletonBuilder", path: str) -> dict | None:
    """Writes the video of a recording; returns what is wrong with it, if it cannot be drawn."""
    try:
        row = builder.row(path)
    except NotInProtocolError as reason:
        return {"file": path, "kind": reason.kind, "reason": reason.detail}
    keypoints = np.reshape(row["keypoints"], row["shape"])
    target = folder / video_name(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_video(target, render_batches(keypoints, row["layout"], size=(size, size), yaw=yaw), row["fps"])
    return None


_builder: "SkeletonBuilder | None" = None


def _start(builder: "SkeletonBuilder") -> None:
    global _builder
    _builder = builder


def _work(draw: partial, path: str) -> dict | None:
    return draw(_builder, path)


def main() -> None:
    parser = command_parser("Draws recordings of skeletons as videos.")
    skeletons = [known for known in protocol_names() if "video" not in known]
    parser.add_argument("name", help=f"protocol: {', '.join(skeletons)}")
    parser.add_argument("--source", required=True, help="folder of the recordings")
    parser.add_argument("--output", required=True, help="folder for the videos")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--yaw", type=float, default=0.0, help="rotation about the vertical in degrees (default: 0)")
    parser.add_argument("--num_proc", type=int, help="number of processes (default: one per core)")

    def work(**arguments) -> str:
        summary = render(**arguments)
        return f"{summary['videos']} videos in {arguments['output']}; skipped: {len(summary['skipped'])}"

    run_command(parser, work)


if __name__ == "__main__":
    main()
