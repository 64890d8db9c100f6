"""The videos whose poses are estimated: files, members of archives and folders of pictures, and their table."""

import contextlib
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from action_llm.model_files import read_json_object

from .names import METADATA, SKELETON

if TYPE_CHECKING:
    from action_llm.video_frames import VideoFrames


class PoseFolderError(ValueError):
    """The output folder has files of something else or poses of other settings, or two videos have the same name."""


def find_videos(videos: Path) -> tuple[Path, dict[str, dict]]:
    """The folder of the videos; and path in it → what changes if the video changes, with the `fps` of a folder of pictures.

    Raises:
        PoseFolderError: if two videos differ only in their suffixes.
        DataFolderError: if there is no video.
    """
    from action_llm.frame_sequences import FRAME_SUFFIXES
    from action_llm.video_files import VIDEO_SUFFIXES

    from .building import DataFolderError, find_files

    if videos.is_file():
        stat = videos.stat()
        return videos.parent, {videos.name: {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}}
    states = {}
    rates = _rates_of_folders(videos)
    for file in find_files(videos, (*VIDEO_SUFFIXES, *FRAME_SUFFIXES)):
        folder = file.path.rpartition("/")[0]
        if file.path.lower().endswith(VIDEO_SUFFIXES) or file.problem:
            states[file.path] = {"size": file.size, "mtime_ns": file.mtime_ns}
        elif folder in rates:
            state = states.setdefault(folder, {"size": 0, "mtime_ns": 0, "fps": rates[folder]})
            state |= {"size": state["size"] + file.size, "mtime_ns": max(state["mtime_ns"], file.mtime_ns)}
    if not states:
        raise DataFolderError(
            f"{videos}: expected videos, or rows in {METADATA} for folders of pictures; found neither"
        )
    named: dict[str, str] = {}
    for path in states:
        first = named.setdefault(skeleton_name(path), path)
        if first != path:
            raise PoseFolderError(f"{first} and {path} would have the same skeleton file: rename one of them")
    return videos, states


def _rates_of_folders(root: Path) -> dict[str, float | str]:
    """Folders that have a row in metadata.csv → their frame rate, as it is written there or in skeleton.json."""
    header, *rows = read_table(root) or [[]]
    common, rates = read_common(root).get("fps", 30.0), {}
    for row in rows:
        values = dict(zip(header, map(str.strip, row), strict=False))
        if (name := values.get("file_name")) and (root / name).is_dir():
            rates[Path(name).as_posix()] = values.get("fps") or common
    return rates


def read_table(root: Path) -> list[list[str]]:
    """The lines of metadata.csv; empty if there is none. Raises `DataFolderError` if it is no table."""
    from .building import DataFolderError

    try:
        with open(root / METADATA, encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file) if row]
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFolderError(f"{root / METADATA}: expected a CSV table in UTF-8: {error}") from error


def read_common(root: Path) -> dict:
    """skeleton.json of the videos; empty if there is none."""
    return read_json_object(root / SKELETON) if (root / SKELETON).is_file() else {}


def skeleton_name(path: str) -> str:
    """`a/b.mp4`, also inside an archive `a.zip`, or a folder of pictures `a/b` → `a/b.npz`."""
    from action_llm.video_files import VIDEO_SUFFIXES

    path = Path(path.replace(".zip/", "/"))
    name = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    return path.with_name(f"{name}.npz").as_posix()


def table_of_skeletons(table: list[list[str]], only: str | None) -> str:
    """The table of the videos for their skeletons.

    Files contain their rates, so the column fps is left out. All else is copied as it is: loading the skeletons reports faulty
    rows.

    Args:
        table: its lines.
        only: the video whose rows are copied; None copies all.
    """
    header = table[0]
    place = header.index("file_name") if "file_name" in header else None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(table):
        name = row[place].strip() if place is not None and place < len(row) else ""
        if number and only is not None and Path(name) != Path(only):
            continue
        if number and name:
            row = [*row[:place], skeleton_name(name), *row[place + 1 :]]
        writer.writerow(value for column, value in enumerate(row) if header[column : column + 1] != ["fps"])
    return text.getvalue()


@contextlib.contextmanager
def opened_video(root: Path, path: str, state: dict) -> "Iterator[VideoFrames]":
    """A video, or a folder of pictures."""
    from action_llm.frame_sequences import FrameFolder
    from action_llm.skeleton_files import checked_rate
    from action_llm.video_files import open_video

    from .building import open_source

    if "fps" in state:
        rate = state["fps"]
        with contextlib.suppress(ValueError):  # `checked_rate` refuses other texts
            rate = float(rate)
        yield FrameFolder(root / path, checked_rate(root / path, rate))
        return
    with open_source(root, path) as file, open_video(file) as video:
        yield video
