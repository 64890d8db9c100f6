"""Writes metadata.csv and skeleton.json for recordings of one's own whose file names say what is in them (`folder_builder`).

    python -m action_llm_datasets.folder my_recordings --pattern '(?P<label>\\w+)_person(?P<person>\\d+).*' --test person=3,7 \\
        --layout kinect20 --fps 30

A pattern with a "/" is one of paths, for folders that say something: '(?P<label>[^/]+)/.*' for a folder a class,
'(?P<split>[^/]+)/(?P<label>[^/]+)/.*' for such folders below `train` and `test`.
"""

import csv
import io
import json
import os
import re
import sys
from collections import Counter
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
    """Writes metadata.csv for files, skeletons or videos, whose names say what is in them.

    Args:
        folder: of the recordings, nested in any way.
        pattern: regular expression of a whole file name, or where it holds a "/" of the path below the folder, with the named
            group `label`, and groups for whatever else becomes a column; a group `sample_id` names the recording, a group
            `split` is its split.
        test, validation: of a group, the values whose recordings are for the test, or for selecting.
        class_names: where labels are numbers from 1, the names in their order.

    Returns:
        Number of files of each split, with "left out" for those whose names do not match.

    Raises:
        ValueError: the pattern, or a group of `test` or `validation`, is none; or a label has no name.
        DataFolderError: no file matches.
    """
    from action_llm.video_files import VIDEO_SUFFIXES

    from .building import DataFolderError, find_files
    from .folder_builder import ActionFolder

    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from error
    for group in ("label", *test, *validation):
        if group not in compiled.groupindex:
            raise ValueError(f"pattern {pattern!r} has no group (?P<{group}>…); it has {list(compiled.groupindex)}")
    counts, lines, examples = Counter(), [], []
    for file in find_files(folder, (*ActionFolder.SUFFIX, *VIDEO_SUFFIXES)):
        if file.path == SKELETON:
            continue
        match = compiled.fullmatch(file.path if "/" in pattern else file.path.rsplit("/", 1)[-1])
        if match is None or not match["label"]:
            counts["left out"] += 1
            examples.append(file.path)
            continue
        values = match.groupdict(default="")
        split = "test" if _any_of(values, test) else "validation" if _any_of(values, validation) else "train"
        split = values.pop("split", split)
        counts[split] += 1
        label = values.pop("label")
        if class_names is not None:
            if not (label.isdecimal() and 1 <= int(label) <= len(class_names)):
                raise ValueError(f"{file.path}: the label {label!r} is not a number from 1 to {len(class_names)}")
            label = class_names[int(label) - 1]
        lines.append({"file_name": file.path, "label": label, "split": split, **values})
    for group, accepted in (*test.items(), *validation.items()):
        unmet = sorted(accepted - {line.get(group, line["label"]) for line in lines})
        if lines and unmet and group != "label":
            there = sorted({line[group] for line in lines})
            raise ValueError(f"{group} {unmet[0]!r} is in no file name; there are {', '.join(map(repr, there[:20]))}")
    if not lines:
        there = f"there is {examples[0]}" if examples else "there are none"
        raise DataFolderError(f"no file name under {os.fspath(folder)!r} matches {pattern!r}; {there}")
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(Path(folder, METADATA), text.getvalue())
    return dict(counts)


def doubts_of_recordings(
    folder: str | os.PathLike, layout: str | dict, fps: float | None = None, up: str | None = None
) -> "list[Doubt]":
    """What looks wrong in the joints of some of a folder's skeletons (`skeleton_plausibility`).

    Args:
        folder: of the recordings.
        layout, fps, up: as in skeleton.json.

    Raises:
        ValueError: none of them can be read.
    """
    from action_llm.recording_files import RECORDING_SUFFIXES, read_recording
    from action_llm.skeleton_bodies import valid_joints
    from action_llm.skeleton_layouts import get_layout
    from action_llm.skeleton_plausibility import find_symptoms, judge

    from .building import SAMPLE, UNREADABLE, DataFolderError, find_files, open_source

    try:
        files = [file for file in find_files(folder, RECORDING_SUFFIXES) if file.path != SKELETON]
    except DataFolderError:  # of videos alone
        return []
    skeleton, symptoms, count, problems = get_layout(layout), {}, 0, []
    for file in files[:: max(1, -(-len(files) // SAMPLE))]:
        try:
            with open_source(folder, file.path) as opened:
                recording = read_recording(opened, layout=layout, fps=fps, up=up)
        except (ValueError, *UNREADABLE) as error:  # skipped and listed where the data set is built
            problems.append(str(error))
            continue
        if recording.keypoints.shape[2] != skeleton.num_joints:  # of a derived layout, the source
            skeleton = get_layout(recording.layout)
        count += 1
        valid = valid_joints(recording.keypoints, recording.present)
        odd = recording.symptoms | find_symptoms(recording.keypoints, valid, skeleton, recording.fps)
        if odd:
            symptoms[file.path] = odd
    if problems and not count:
        raise ValueError(
            f"none of {len(problems)} recordings that were looked at can be read; for example {problems[0]}"
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
            raise ValueError(f"expected GROUP=VALUE,VALUE, found {argument!r}")
        chosen[group] = set(values.split(","))
    return chosen


def main() -> None:
    parser = command_parser(
        "Writes metadata.csv and skeleton.json for recordings whose file names or paths contain the labels.",
        epilog="example: my_recordings --pattern 'a(?P<label>\\d+)_s(?P<subject>\\d+)_.*' --test subject=2,4 --layout kinect20",
    )
    parser.add_argument("folder", help="folder of the recordings")
    parser.add_argument(
        "--pattern", required=True, help="regular expression of file names, with groups (?P<label>…) and more"
    )
    parser.add_argument("--test", nargs="+", default=[], metavar="GROUP=VALUES", help="recordings for the test")
    parser.add_argument(
        "--validation", nargs="+", default=[], metavar="GROUP=VALUES", help="training recordings that select"
    )
    parser.add_argument("--class_names", help="file with a class name a line, where labels are numbers from 1")
    parser.add_argument(
        "--layout", default="kinect25", help="joint layout: its name, or a JSON file that describes it"
    )
    parser.add_argument(
        "--fps", type=float, help="frames per second; default: what the data set of the files says, or 30"
    )
    parser.add_argument(
        "--up", choices=("y", "-y", "z", "-z", "x", "-x"), help="axis that points up; default: that of the layout"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the tables that are there")
    parser.add_argument(
        "--accept_doubts", action="store_true", help="write the tables also where the joints cannot be right"
    )
    arguments = parse_arguments(parser)
    from action_llm.skeleton_layouts import get_layout
    from action_llm.skeleton_plausibility import RATES, is_possible_rate

    with ending_well(parser.prog):
        there = [name for name in (METADATA, SKELETON) if Path(arguments.folder, name).exists()]
        if there and not arguments.overwrite:
            raise ValueError(
                f"{arguments.folder} has a {' and a '.join(there)} already: say --overwrite to replace them"
            )
        if arguments.fps is not None and not is_possible_rate(arguments.fps):
            raise ValueError(f"--fps: expected a positive number from {RATES[0]} to {RATES[1]}, got {arguments.fps}")
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
            raise ValueError("this cannot be right, so nothing is written; --accept_doubts writes it all the same")
        counts = write_metadata(
            arguments.folder, arguments.pattern, _choices(arguments.test), _choices(arguments.validation), names
        )
        write_atomically(Path(arguments.folder, SKELETON), json.dumps(common, indent=1) + "\n")
    print(", ".join(f"{count} {split}" for split, count in counts.items()))


if __name__ == "__main__":
    main()
