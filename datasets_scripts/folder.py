"""Writes metadata.csv and skeleton.json for your own recordings, from labels in their file names (`folder_builder`).

    python -m action_llm_datasets.folder my_recordings --pattern '(?P<label>\\w+)_person(?P<person>\\d+).*' --test person=3,7 \\
        --layout kinect20 --fps 30

A pattern with a "/" is matched against the path: '(?P<label>[^/]+)/(?P<person>[^_]+)_.*' if each class has its folder.
Folders of classes in `train` and `test` need no table.
"""

import csv
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic_files import write_atomically
from .commands import command_parser, parse_arguments
from .endings import ending_well
from .names import METADATA, SKELETON

if TYPE_CHECKING:
    from action_llm.skeleton_plausibility import Doubt


def write_metadata(
    folder: str | os.PathLike, pattern: str, test: dict[str, set[str]], validation: dict[str, set[str]],
    class_names: list[str] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Writes metadata.csv for skeletons or videos whose file names or paths contain the labels.

    Args:
        folder: of the recordings, with any folders below it.
        pattern: regular expression that matches a whole file name or, if it has a "/", the path relative to the folder. A
            folder of OpenPose's frames is a recording, so the pattern matches its name. The named group `label` is the class,
            `split` the split and `sample_id` the name of the recording; other groups become columns.
        test, validation: group → its values that mark recordings for testing, or for model selection.
        class_names: the class names, if labels are numbers that count from 1.

    Returns:
        Number of files of each split, and "left out", the number of files that do not match.

    Raises:
        ValueError: if the pattern is not valid, has no group of `label`, `test` or `validation`, or a label has no name.
        DataFolderError: if no file matches.
    """
    from action_llm.video_files import VIDEO_SUFFIXES

    from .building import DataFolderError, find_files
    from .folder_builder import ActionFolder, recording_paths

    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from error
    for group in ("label", *test, *validation):
        if group not in compiled.groupindex:
            raise ValueError(
                f"pattern {pattern!r} has no group (?P<{group}>…); its groups are {list(compiled.groupindex)}"
            )
    rows, left_out = [], []
    for path in recording_paths(find_files(folder, (*ActionFolder.SUFFIX, *VIDEO_SUFFIXES))):
        match = compiled.fullmatch(path if "/" in pattern else path.rsplit("/", 1)[-1])
        if match is None or not match["label"]:
            left_out.append(path)
            continue
        values = match.groupdict(default="")
        split = "test" if _any_of(values, test) else "validation" if _any_of(values, validation) else "train"
        split = values.pop("split", split)
        label = _class_name(values.pop("label"), class_names, path)
        rows.append({"file_name": path, "label": label, "split": split, **values})
    if not rows:
        example = f"for example {left_out[0]}" if left_out else "it holds no recording"
        raise DataFolderError(f"no file name under {os.fspath(folder)!r} matches {pattern!r}; {example}")
    _check_values(rows, (*test.items(), *validation.items()))
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(Path(folder, METADATA), text.getvalue())
    return dict(Counter([row["split"] for row in rows] + ["left out"] * len(left_out)))


def _class_name(label: str, class_names: list[str] | None, path: str) -> str:
    """The name of a label, which is a number if there are `class_names`."""
    if class_names is None:
        return label
    if not (label.isdecimal() and 1 <= int(label) <= len(class_names)):
        raise ValueError(f"{path}: expected a label from 1 to {len(class_names)}, found {label!r}")
    return class_names[int(label) - 1]


def _check_values(rows: list[dict[str, str]], chosen: Iterable[tuple[str, set[str]]]) -> None:
    """Raises `ValueError` if a chosen value of a group is in no file name."""
    for group, accepted in chosen:
        if group == "label":
            continue
        present = {row[group] for row in rows}
        missing = sorted(accepted - present)
        if missing:
            values = ", ".join(map(repr, sorted(present)[:20]))
            raise ValueError(f"no file name has {group} {missing[0]!r}; the values are {values}")


def doubts_of_recordings(
    folder: str | os.PathLike, layout: str | dict, fps: float | None = None, up: str | None = None
) -> "list[Doubt]":
    """What is implausible about the joints of a sample of a folder's skeletons (`skeleton_plausibility`).

    Args:
        folder: of the recordings.
        layout, fps, up: as in skeleton.json.

    Raises:
        ValueError: if no recording of the sample can be read.
    """
    from action_llm.recording_files import RECORDING_SUFFIXES, read_recording
    from action_llm.skeleton_bodies import valid_joints
    from action_llm.skeleton_layouts import get_layout
    from action_llm.skeleton_plausibility import find_symptoms, judge

    from .building import SAMPLE, UNREADABLE, DataFolderError, find_files
    from .folder_builder import open_recording, recording_paths

    try:
        paths = recording_paths(find_files(folder, RECORDING_SUFFIXES))
    except DataFolderError:  # a folder of videos
        return []
    skeleton, symptoms, count, problems = get_layout(layout), {}, 0, []
    for path in paths[:: max(1, -(-len(paths) // SAMPLE))]:
        try:
            with open_recording(folder, path) as opened:
                recording = read_recording(opened, layout=layout, fps=fps, up=up)
        except (ValueError, *UNREADABLE) as error:  # building the data set skips and lists the file
            problems.append(str(error))
            continue
        if (
            recording.keypoints.shape[2] != skeleton.num_joints
        ):  # the file has the layout from which `layout` is derived
            skeleton = get_layout(recording.layout)
        count += 1
        valid = valid_joints(recording.keypoints, recording.present)
        odd = recording.symptoms | find_symptoms(recording.keypoints, valid, skeleton, recording.fps)
        if odd:
            symptoms[path] = odd
    if problems and not count:
        raise ValueError(
            f"none of the {len(problems)} recordings that were checked can be read; for example {problems[0]}"
        )
    return judge(symptoms, count, skeleton)


def _any_of(values: dict[str, str], chosen: dict[str, set[str]]) -> bool:
    return any(values[group] in accepted for group, accepted in chosen.items())


def _choices(arguments: list[str]) -> dict[str, set[str]]:
    """`["subject=2,4"]` → `{"subject": {"2", "4"}}`."""
    chosen = {}
    for argument in arguments:
        group, equals, values = argument.partition("=")
        if not equals or not values:
            raise ValueError(f"--test and --validation: expected GROUP=VALUE,VALUE, found {argument!r}")
        chosen[group] = set(values.split(","))
    return chosen


def main() -> None:
    parser = command_parser(
        "Writes metadata.csv and skeleton.json for recordings whose file names or paths contain the labels.",
        epilog="example: my_recordings --pattern 'a(?P<label>\\d+)_s(?P<subject>\\d+)_.*' --test subject=2,4 --layout kinect20",
    )
    parser.add_argument("folder", help="folder of the recordings")
    parser.add_argument(
        "--pattern",
        required=True,
        help="regular expression that matches a file name (or with a /, a path) and has a group (?P<label>…); other groups "
        "become columns",
    )
    parser.add_argument(
        "--test", nargs="+", default=[], metavar="GROUP=VALUES", help="recordings for testing: person=3,7"
    )
    parser.add_argument(
        "--validation",
        nargs="+",
        default=[],
        metavar="GROUP=VALUES",
        help="training recordings that select checkpoints and settings",
    )
    parser.add_argument("--class_names", help="file with one class name per line, if labels are numbers from 1")
    parser.add_argument(
        "--layout",
        default="kinect25",
        help="joint layout: its name, or a JSON file that describes it (default: kinect25)",
    )
    parser.add_argument(
        "--fps",
        type=float,
        help="frames per second (default: that of the data set that a file format belongs to, or 30)",
    )
    parser.add_argument(
        "--up", choices=("y", "-y", "z", "-z", "x", "-x"), help="axis that points up (default: that of the layout)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing metadata.csv and skeleton.json")
    parser.add_argument(
        "--accept_doubts", action="store_true", help="write the files even if the joints cannot be right"
    )
    arguments = parse_arguments(parser)
    from action_llm.skeleton_layouts import get_layout
    from action_llm.skeleton_plausibility import RATES, is_possible_rate

    with ending_well(parser.prog):
        existing = [name for name in (METADATA, SKELETON) if Path(arguments.folder, name).exists()]
        if existing and not arguments.overwrite:
            raise ValueError(
                f"{arguments.folder} already has {' and '.join(existing)}: set --overwrite to replace"
                f" {'them' if len(existing) > 1 else 'it'}"
            )
        if arguments.fps is not None and not is_possible_rate(arguments.fps):
            raise ValueError(f"--fps: expected a number from {RATES[0]} to {RATES[1]}, got {arguments.fps}")
        names = None
        if arguments.class_names is not None:
            lines = Path(arguments.class_names).read_text(encoding="utf-8").splitlines()
            names = [line.strip() for line in lines if line.strip()]
        layout = arguments.layout
        if layout.endswith(".json"):
            layout = json.loads(Path(layout).read_text(encoding="utf-8"))
        get_layout(layout)
        given = {"layout": layout, "fps": arguments.fps, "up": arguments.up, "class_names": names}
        common = {name: value for name, value in given.items() if value is not None}
        doubts = doubts_of_recordings(arguments.folder, layout, arguments.fps, arguments.up)
        for doubt in doubts:
            print(f"{doubt.kind}: {doubt.reason}, for example {doubt.files[0]}", file=sys.stderr)
        if any(doubt.stops for doubt in doubts) and not arguments.accept_doubts:
            raise ValueError(
                "the joints cannot be right, so nothing was written; --accept_doubts writes the files anyway"
            )
        counts = write_metadata(
            arguments.folder, arguments.pattern, _choices(arguments.test), _choices(arguments.validation), names
        )
        write_atomically(Path(arguments.folder, SKELETON), json.dumps(common, indent=1) + "\n")
    print(", ".join(f"{count} {split}" for split, count in counts.items()))


if __name__ == "__main__":
    main()
