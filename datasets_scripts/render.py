"""Recordings of skeletons as videos, one mp4 each, for models that read videos.

    python -m action_llm_datasets.render smarthome-cs --source skeletons --output rendered
    python -m action_llm_datasets.render simulated-xsub --source simulated --output simulated_videos

The folder is read by the configs `…-video` of the same data set: names stay as they are, and what lies beside the recordings
(metadata.csv, simulation.json) goes with them. Drawn are the people (`Cleaning`), as their sensor saw them. A file is written
whole or not at all, and a second run draws only what is missing; `rendering.json` lists what could not be drawn.
"""

import argparse
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from action_llm.model_files import ModelFileError, read_json_object

from .atomic_files import write_atomically
from .endings import ending_well
from .folder_lock import writing
from .names import METADATA, SKELETON, did_you_mean, parse_arguments, protocol_names
from .progress import Progress, set_up_output
from .protocols import NotInProtocolError
from .rendering import render_batches, write_video
from .worker_processes import in_processes

if TYPE_CHECKING:
    from .building import SkeletonBuilder

RECORD = "rendering.json"
_GOES_WITH = ("simulation.json", "SIMULATED.txt", SKELETON)


class RenderFolderError(ValueError):
    """The output folder holds what was drawn otherwise."""


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
        name: the protocol, as of `load_action_dataset`, of skeletons.
        source: folder of the recordings.
        output: folder of the videos, made where it is missing.
        size: height and width in pixels, an even number.
        yaw: degrees about the vertical, of three-dimensional recordings.
        num_proc: processes; None uses every core.

    Raises:
        ValueError: there is no such protocol, or an argument is out of its range.
        DataFolderError: the source holds nothing of the data set.
        RenderFolderError: the output holds videos of another size, angle or source.
        FolderInUseError: another process writes the output.
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
        raise ValueError(f"size must be an even number, 16 or more; got {size}")
    builder_class, configs = PROTOCOLS[name]
    builders = [builder_class(config_name=config, data_dir=source, clean=True) for config in configs]
    settings = {"protocol": name, "files": builders[0].hash, "size": size, "yaw": yaw}
    record = folder / RECORD
    if record.is_file():
        try:
            found = read_json_object(record)
        except ModelFileError as error:
            raise RenderFolderError(
                f"{error}: it says what the videos are of; delete {folder}, or choose another --output"
            ) from error
        other = {key: found.get(key) for key, value in settings.items() if found.get(key) != value}
        if other:
            raise RenderFolderError(
                f"{folder} holds other videos: found {other}, asked for { {key: settings[key] for key in other} }"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(record, json.dumps(settings, indent=1) + "\n")
    for beside in _GOES_WITH:
        if Path(source, beside).is_file():
            write_atomically(folder / beside, Path(source, beside).read_text(encoding="utf-8"))
    if Path(source, METADATA).is_file():
        write_atomically(folder / METADATA, _with_video_names(Path(source, METADATA)))

    skipped, drawn, there = [], 0, 0
    for builder in builders:
        paths, left_out = builder.assign()
        skipped += left_out
        listed, named = [], {}
        for path in (path for split in paths.values() for path in split):
            first = named.setdefault(video_name(path), path)
            if first == path:
                listed.append(path)
            else:
                reason = f"{path} would be drawn into the same {video_name(path)} as {first}"
                skipped.append({"file": path, "kind": "duplicate", "reason": reason})
        missing = [path for path in listed if not (folder / video_name(path)).is_file()]
        there += len(listed) - len(missing)
        work = partial(_draw_into, folder, size, yaw)
        with (
            Progress(builder.config.name, len(missing), "videos") as bar,
            in_processes(
                partial(_work, work), missing, num_proc, chunksize=8, initializer=_start, initargs=(builder,)
            ) as results,
        ):
            problems = list(_counted(results, bar))
        drawn += problems.count(None)
        skipped += filter(None, problems)
    summary = settings | {"videos": there + drawn, "skipped": sorted(skipped, key=lambda entry: entry["file"])}
    write_atomically(record, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return summary


def video_name(path: str) -> str:
    """`a/b_pose3d.json`, or that inside of `a.zip` → `a/b_pose3d.mp4`."""
    return Path(path.replace(".zip/", "/")).with_suffix(".mp4").as_posix()


def _with_video_names(table: Path) -> str:
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    text = io.StringIO()
    # What is wrong with a row stays so, and is said by who reads the videos.
    writer = csv.DictWriter(text, reader.fieldnames, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**row, "file_name": video_name(row["file_name"])} for row in rows if row["file_name"])
    return text.getvalue()


def _counted(results: Iterable, bar: Progress) -> Iterator:
    for result in results:
        bar.update()
        yield result


def _draw_into(folder: Path, size: int, yaw: float, builder: "SkeletonBuilder", path: str) -> dict | None:
    """Writes the video of one recording; what is wrong with it, if it has none."""
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


def _work(work: partial, path: str) -> dict | None:
    return work(_builder, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m action_llm_datasets.render", description="Recordings of skeletons → videos."
    )
    skeletons = [known for known in protocol_names() if "video" not in known]
    parser.add_argument("name", help=f"protocol: {', '.join(skeletons)}")
    parser.add_argument("--source", required=True, help="folder of the recordings")
    parser.add_argument("--output", required=True, help="folder for the videos")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--yaw", type=float, default=0.0, help="degrees about the vertical")
    parser.add_argument("--num_proc", type=int, help="processes; default: every core")
    arguments = parse_arguments(parser)
    set_up_output()
    with ending_well(parser.prog, resumes=True):
        summary = render(**vars(arguments))
    print(f"{summary['videos']} videos in {arguments.output}; skipped: {len(summary['skipped'])}")


if __name__ == "__main__":
    main()
