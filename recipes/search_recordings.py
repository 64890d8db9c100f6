"""
Search recordings for actions: by text, or by an example.

```bash
action-llm-search index my_recordings --model runs/mine/sft/model --seconds 4 --output my_index.safetensors
action-llm-search find my_index.safetensors "someone sits down and then waves"
action-llm-search find my_index.safetensors --example clip.skeleton --json
```

The index has the class probabilities and the action sentence of every span of the timelines of the recordings, by a window of
`--seconds`. Without `--seconds`, each recording is read as a whole, for clips of single actions. The same command brings the
index up to date, and continues a stopped run: it reads the recordings that are new, have changed, or could not be read, and
leaves out those that are gone. Recordings that cannot be read are listed.

A text names actions by words of the class names, with their order ("… and then …", "… followed by …", "… before …", "… after
…"), which needs an index with `--seconds`. `search/queries.py` says how it is read; a text that shares no word with any class
name is read by the language model, which is slower and less certain. Words that were left out are listed. An example is a
recording: the results are those with the most similar class probabilities.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from action_llm_recipes.common.launching import CommandParser, launch_command
from action_llm_recipes.common.written_folders import check_recogniser


def build(arguments: argparse.Namespace) -> None:
    """`action-llm-search index`."""
    from action_llm_datasets.folder_lock import writing
    from action_llm_recipes.search.recording_index import Reader, update_index

    check_recogniser(arguments.model)
    with writing(arguments.output, "--output", is_file=True):
        settings = {name: getattr(arguments, name) for name in ("seconds", "stride", "batch_size", "pose", "mirrored")}
        reader = Reader(arguments.model, **{name: value for name, value in settings.items() if value is not None})
        files = recordings_in(arguments.recordings, reader.reads_skeletons)
        recordings = update_index(arguments.output, reader.settings, files, reader)
    skipped = [recording for recording in recordings if recording.reason is not None]
    for recording in skipped:
        print(f"skipped: {recording.reason}")
    if len(skipped) == len(recordings):
        raise ValueError(f"none of {len(recordings)} recordings could be read.")
    windows = sum(len(recording.windows) for recording in recordings)
    print(
        f"{arguments.output}: {len(recordings) - len(skipped):,} recordings, {windows:,} windows; skipped: {len(skipped):,}"
    )


def recordings_in(paths: list[str], reads_skeletons: bool) -> list[Path]:
    """
    The recordings that paths name, in this order; those of a folder are sorted.

    Args:
        paths: recordings, or folders with recordings and folders. A folder of OpenPose, with a file per frame, is a recording.
        reads_skeletons: whether the recogniser reads skeletons; it then also reads videos.

    Raises:
        ValueError: if a path does not exist, or a folder has no recordings.
    """
    from action_llm.recording_files import RECORDING_SUFFIXES
    from action_llm.video_files import VIDEO_SUFFIXES

    suffixes = (*RECORDING_SUFFIXES, *VIDEO_SUFFIXES) if reads_skeletons else VIDEO_SUFFIXES
    recordings = []
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"there is no file or folder {path}.")
        found = [path] if path.is_file() else sorted(_in_folder(path, suffixes))
        if not found:
            raise ValueError(f"{path} has no recordings: expected files with the suffixes {', '.join(suffixes)}.")
        recordings += found
    return list(dict.fromkeys(recordings))


def _in_folder(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    from action_llm_datasets.names import METADATA, SKELETON

    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if is_openpose := ".json" in suffixes and _is_openpose(root):
            yield Path(root)
        for name in names:
            is_recording = name.lower().endswith(suffixes) and name not in (METADATA, SKELETON) and name[0] != "."
            is_frame = is_openpose and name.lower().endswith(".json")
            if is_recording and not is_frame and os.path.isfile(os.path.join(root, name)):
                yield Path(root, name)


def _is_openpose(folder: str) -> bool:
    from action_llm.pose_json_files import is_openpose_folder
    from action_llm.skeleton_files import SkeletonFileError

    try:
        return is_openpose_folder(folder)
    except (SkeletonFileError, OSError):  # its files are recordings that cannot be read
        return False


def find(arguments: argparse.Namespace) -> None:
    """`action-llm-search find`."""
    from action_llm_recipes.search.queries import find, read_text
    from action_llm_recipes.search.recording_index import read_index

    index = read_index(arguments.index)
    if arguments.example is not None:
        parts = [read_example(arguments.example, index, arguments.model)]
    else:
        parts = read_text(arguments.text, index.class_names, lambda text: by_model(text, index, arguments.model))
    results = [describe(index, hit) for hit in find(index, parts, arguments.count, arguments.within)]
    if arguments.json:
        query = [
            {"text": part.text, "by": part.by, "classes": classes_of(part, index), "left_out": part.left_out}
            for part in parts
        ]
        print(json.dumps({"query": query, "results": results}, indent=1, ensure_ascii=False))
        return
    for part in parts:
        left_out = f"; left out: {', '.join(part.left_out)}" if part.left_out else ""
        print(f"{part.text}: {as_text(classes_of(part, index))} (by {part.by}{left_out})")
    for place, result in enumerate(results, start=1):
        print(
            f"{place:3d}. {result['score']:6.1%}  {result['start']:.1f}–{result['end']:.1f} s  {result['file']}  "
            f"{', then '.join(part['label'] for part in result['parts'])}"
        )
    if not results:
        print("nothing was found")


def read_example(file: str, index, model: str | None):
    """The query of an example recording, which is read as a whole.

    Raises:
        ValueError: if it cannot be read.
    """
    from action_llm_recipes.search.queries import Part

    (recording,) = recogniser_of(index, model)([file])
    if recording.reason is not None:
        raise ValueError(f"--example: {recording.reason}")
    return Part(file, recording.windows[0].probabilities, "example")


def by_model(text: str, index, model: str | None):
    """Weights of the classes of a text by the language model; see `by_likelihood`."""
    from action_llm_recipes.search.queries import by_likelihood

    reader = recogniser_of(index, model)
    return by_likelihood(text, index, reader.model, reader.processor)


def recogniser_of(index, model: str | None):
    """The recogniser of an index, which reads recordings as a whole.

    Args:
        index: of the search.
        model: its folder or Hub repository, if it has moved since.

    Raises:
        ValueError: if it is another recogniser than that of the index.
    """
    from action_llm.model_files import as_written
    from action_llm_recipes.search.recording_index import Reader

    model = model or index.settings["model"]
    check_recogniser(model)
    reader = Reader(model, pose=index.settings["pose"], mirrored=index.settings["mirrored"])
    for name in ("action_model", "training", "class_names"):
        expected, actual = index.settings[name], reader.settings[name]
        if actual != expected:
            raise ValueError(
                f"{model} is not the recogniser of the index: {name}: expected {as_written(expected)}, found "
                f"{as_written(actual)}; set --model"
            )
    return reader


def describe(index, hit) -> dict:
    """A result as JSON: file, times in seconds, score; and of each part of the query, times, label and sentence."""
    parts = [
        {
            "start": round(float(index.starts[window]), 3),
            "end": round(float(index.ends[window]), 3),
            "label": index.label(window),
            "sentence": index.sentence(window),
        }
        for window in hit.windows
    ]
    file = index.files[index.recording[hit.windows[0]]]
    return {
        "file": file,
        "start": parts[0]["start"],
        "end": parts[-1]["end"],
        "score": round(hit.score, 6),
        "parts": parts,
    }


def classes_of(part, index) -> dict[str, float]:
    """The classes that a part of a query was read as, the most probable first; at most five."""
    best = (-part.weights).argsort(kind="stable")[:5]
    return {
        index.class_names[place]: round(float(part.weights[place]), 3) for place in best if part.weights[place] > 0
    }


def as_text(classes: dict[str, float]) -> str:
    return ", ".join(name if weight == 1 else f"{name} {weight:.0%}" for name, weight in classes.items())


def main() -> None:
    """The command `action-llm-search`."""
    parser = CommandParser(description="Searches recordings for actions, by text or by an example.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="index|find")
    index = commands.add_parser("index", help="write an index of recordings, or bring it up to date")
    index.add_argument("recordings", nargs="+", metavar="RECORDINGS", help="folders of recordings, or files")
    index.add_argument("--model", required=True, help="folder or Hub repository of a recogniser")
    index.add_argument("--output", required=True, help="file of the index (.safetensors)")
    index.add_argument(
        "--seconds",
        type=float,
        help="length of the sliding window of timelines, such as 4; by default, each recording is read as a whole",
    )
    index.add_argument(
        "--stride", type=float, help="seconds between the starts of windows (default: 1); needs --seconds"
    )
    index.add_argument(
        "--batch_size", type=int, default=8, help="recordings, or windows, that are read at a time (default: 8)"
    )
    index.add_argument(
        "--pose",
        choices=("mediapipe", "vitpose"),
        help="pose estimator with which a recogniser of skeletons reads videos (default: the first whose weights are on this "
        "machine)",
    )
    index.add_argument("--mirrored", action="store_true", help="whether these videos are mirror images")
    index.set_defaults(work=build)
    query = commands.add_parser("find", help="search an index")
    query.add_argument("index", metavar="INDEX", help="file of the index")
    query.add_argument(
        "text", nargs="?", metavar="TEXT", help='actions in their order, such as "sit down and then wave"'
    )
    query.add_argument("--example", metavar="FILE", help="recording of an action, in place of TEXT")
    query.add_argument("--count", type=int, default=10, help="number of results (default: 10)")
    query.add_argument(
        "--within", type=float, default=10.0, help="seconds in which the next action must begin (default: 10)"
    )
    query.add_argument("--model", help="the recogniser, if it has moved since the index was written")
    query.add_argument("--json", action="store_true", help="print JSON, with the action sentences")
    query.set_defaults(work=find)
    arguments = parser.parse_args()
    if arguments.command == "find" and (arguments.text is None) == (arguments.example is None):
        parser.error("find: give either TEXT or --example.")
    if arguments.command == "index" and arguments.stride is not None and arguments.seconds is None:
        parser.error("--stride: expected --seconds with it, the length of the window.")
    for name in ("count", "batch_size"):
        if getattr(arguments, name, 1) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(arguments, name)}.")
    if not getattr(arguments, "within", 0) >= 0:
        parser.error(f"--within: expected at least 0 seconds, got {arguments.within}.")
    arguments.work(arguments)


def cli():
    """The command `action-llm-search`."""
    launch_command(main)


if __name__ == "__main__":
    cli()
