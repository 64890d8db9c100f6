"""Pages of the data sets: what they are, how to have them, who is in which split, what to look out for.

    python -m action_llm_datasets.pages model_cards/datasets

The tables, terms and citations are those that the builders work with; what is said above them is written here. The page of
a prepared copy, with what was left out of it, is written by `prepare`.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic_files import write_atomically
from .commands import command_parser, parse_arguments
from .names import METRICS, SIMULATION_RECORD, protocol_names
from .simulation.actions import SINGLE_ACTIONS
from .simulation.interactions import MUTUAL_ACTIONS

if TYPE_CHECKING:
    from .building import SkeletonBuilder

# File, title, how the names of its protocols begin, what is to be said, and a protocol to show how it is loaded.
PAGES = {
    "ntu_rgbd.md": (
        "NTU RGB+D 60 and 120",
        ("ntu60-", "ntu120-"),
        """Indoor recordings of 60 and 120 actions, 26 of them of two people, by three Kinect v2 at a time: skeletons of
25 joints in metres at 30 frames a second, and colour videos of 1920 × 1080. To be asked for at the home page;
`--data_dir` is the folder of the `.skeleton` files (or `_rgb.avi`), unpacked in any way or still in their archives.

What to look out for:

- 302 recordings (of 120 classes: 535) have no complete skeletons. They are left out by the published list, and counted.
- A third body is often a chair. Bodies become people by the thresholds that CTR-GCN and PYSKL use (`Cleaning`).
- Tracking ids are near 2^56: as floating point numbers, two bodies become one.
- There is no official validation split. `held_out` marks the recordings of a fixed list of training performers.
- Class 67 is called "hush (quite)" everywhere, and so it is here.""",
        "ntu60-xsub",
    ),
    "utd_mhad.md": (
        "UTD-MHAD",
        ("utd-mhad",),
        """27 actions of eight people before one Kinect v1, four times each: 861 recordings, skeletons of 20 joints in
metres, depth and colour videos. Free to download; small enough for two cores. `--data_dir` is the folder of the `.mat`
files, or of the videos.

What to look out for:

- 431 recordings train and 430 test: differences of one point are four recordings.
- Nobody is held out by the authors: subject 7 is, here, for choosing settings (`--set held_out_subject=5` takes another).
- Left and right are actions of their own (swipe left, swipe right): a mirrored recording is another class.""",
        "utd-mhad",
    ),
    "toyota_smarthome.md": (
        "Toyota Smarthome (trimmed)",
        ("smarthome-",),
        """31 activities of daily living of 18 people between 60 and 80 in one flat, seven cameras, nobody told what to
do: 16,115 clips of 640 × 480, and skeletons of 13 joints that were estimated from them, in two dimensions and in three.
To be asked for at the home page; `--data_dir` is the folder of the `.json` files (or `.mp4`), of one version of the
skeletons.

What to look out for:

- Classes are of very different size: recognisers are compared by mean per-class accuracy.
- Coordinates lie one after the other (all x, then all y, then all z), not joint by joint.
- The public lists hold 14 clips of a class (`Pour.Fromcup`) that is none of the 31. They are left out.
- How many frames a second there are differs between sources: of videos, the container says it.
- Under CV1 and CV2, clips of another camera are for choosing settings; they never train.""",
        "smarthome-cs",
    ),
    "uav_human.md": (
        "UAV-Human",
        ("uav-human-",),
        """155 actions of 119 people, filmed from a drone: colour videos, and skeletons of 17 joints in pixels (COCO's),
which were estimated from them. To be asked for at the home page; `--data_dir` is the folder of the `.txt` files (or of
the videos).

What to look out for:

- The third coordinate is always 0: these skeletons are flat, and are not turned about the vertical.
- Actions are counted from 0 in the names of the files.
- The published list of bones has a circle; a tree of our own is used.
- Recordings last up to 305 frames: loaders that stop at 300 cut them.
- The smallest classes have about 40 recordings, the largest 173.""",
        "uav-human-csv1",
    ),
    "simulated.md": (
        "Simulated recordings",
        ("simulated-",),
        """**Simulated: nobody was recorded.** A kinematic simulator moves bodies of different proportions and habits
through actions that have NTU's names, before three cameras, with the errors of a sensor, and writes NTU's file format.
It is for trying the software offline, and for tests; what a model scores on it says nothing about people.

```bash
python -m action_llm_datasets.simulation.simulate --output simulated
python -m action_llm_datasets.render simulated-xsub --source simulated --output simulated_videos
python -m action_llm_datasets.simulation.simulate_long --output long --actions_per_video 6
```

What to look out for:

- Actions differ as much as somebody thought of when he wrote them: they are easier to tell apart than those of people.
- Which classes and performers there are is said when it is made (`--actions`, `--performers`).
- Long videos come with a table of what happens when (`timeline.csv`), and are read as `folder-video`.""",
        "simulated-xsub",
    ),
    "folder.md": (
        "Recordings of your own",
        ("folder",),
        """A folder with a `metadata.csv` (`file_name,label,split`) and, for skeletons, a `skeleton.json` that says
which joints there are: `.skeleton`, `.npy`, `.npz`, rows of numbers, Toyota Smarthome's `.json`, or videos (files, or
folders of numbered pictures). Both files are written from file names that follow a pattern:

```bash
python -m action_llm_datasets.folder my_recordings --layout kinect20 --fps 30 \\
    --pattern '(?P<label>[a-z]+)_person(?P<person>\\d+)_.*' --test person=3,7 --validation person=5
```

A pattern with a `/` is matched against the path: `'(?P<label>[^/]+)/.*'` takes the folder of a file as its class.

| layout | joints | order of |
|---|---|---|
| `kinect25` | 25 in metres, y up | Kinect 2: NTU RGB+D |
| `kinect20-sdk` | 20 in metres, y up | the first Kinect's SDK: Northwestern-UCLA |
| `kinect20` | the same | UTD-MHAD |
| `msr20` | the same | MSR Action3D |
| `openpose25` | 25 in pixels, y down, a score as the third number | OpenPose BODY_25 |
| `coco17` | 17 in pixels, y down, a score as the third number | COCO, UAV-Human |
| `lcrnet13`, `lcrnet13-2d` | 13 | Toyota Smarthome |

Some recordings are looked at before all are read: where the joints fit another layout better, another axis points up, or
pixels stand where metres are expected, nothing is built, and the message says what it probably is. `accept_doubts` goes on
all the same. Set `"up": "z"` (or `"-y"`, …) in `skeleton.json` for files in which that axis points up. Mirrored recordings, in
which the left hand is where the right one was, are told by knees and feet that point backwards; negate one axis, or swap the
left and right joints of the layout.

What to look out for:

- Who trains must not test: split by person, not by recording.
- `validation` rows become `held_out` training recordings, for choosing settings; with fewer than 200 training recordings,
  `run_line.py` leaves them out of training and stops by them.
- A column `fps` gives the frame rate of each recording, where they differ.
- The report of the build lists what to check: class names that differ only in case, classes without a training recording,
  the same recording in two files.""",
        "folder",
    ),
}


def data_set_page(name: str) -> str:
    """The text of a page in `PAGES`."""
    title, prefixes, said, shown = PAGES[name]
    names = [one for one in protocol_names() if one.startswith(prefixes)]
    videos = [one for one in names if "-video" in one]
    rows, rules, first = [], [], None
    with tempfile.TemporaryDirectory() as folder:
        if name == "simulated.md":
            actions = sorted({*SINGLE_ACTIONS, *MUTUAL_ACTIONS})
            Path(folder, SIMULATION_RECORD).write_text(json.dumps({"actions": actions}), encoding="utf-8")
        for protocol in (one for one in names if one not in videos):
            builders = _builders(protocol, folder) if name != "folder.md" else []
            first = first or next(iter(builders), None)
            if builders:
                rows.append(_row(protocol, builders, name == "simulated.md"))
                rules.append(f"- `{protocol}`: {builders[0].protocol_rule()}")
    terms = "Those of whoever made the recordings." if first is None else first.terms
    lines = [f"# {title}", "", said, "", "## Loading", "", "```python"]
    lines += ["from action_llm_datasets.load import load_action_dataset", ""]
    lines += [f'splits = load_action_dataset("{shown}", "FOLDER")', 'row = splits["train"][0]', "```", ""]
    if videos:
        lines += [f"Videos: `{shown}-video`. Other protocols of videos end alike.", ""]
    lines += [f"As Parquet, private on the Hub: `python -m action_llm_datasets.prepare {shown} …`.", ""]
    if rows:
        metric = METRICS[first.METRIC]
        lines += ["## Protocols", "", f"Recognisers are compared by {metric}.", ""]
        lines += ["| protocol | classes | recordings |", "|---|---:|---|", *rows, ""]
        lines += ["<details><summary>Who is in which split</summary>", "", *rules, "", "</details>", ""]
    lines += ["## Terms", "", terms]
    if first is not None and name != "simulated.md":
        lines += ["", f"Home page: {first.HOMEPAGE}", "", "## Citation", "", first.CITATION]
    return "\n".join(lines) + "\n"


def _builders(protocol: str, folder: str) -> "list[SkeletonBuilder]":
    from .load import PROTOCOLS

    builder, configs = PROTOCOLS[protocol]
    # With a hash of its own, a builder does not look for recordings.
    return [builder(config_name=config, data_dir=folder, cache_dir=folder, hash="page") for config in configs]


def _row(protocol: str, builders: "list[SkeletonBuilder]", simulated: bool) -> str:
    """A protocol in the table; the seen and the unseen classes of one together."""
    counts, classes = {}, []
    for builder in builders:
        counts |= {} if simulated else builder.published_counts()
        part = getattr(builder.config, "part", "all")
        classes.append(f"{len(builder.class_names())}{'' if part == 'all' else f' {part}'}")
    counted = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    counted = counted or ("as simulated" if simulated else "not published")
    return f"| `{protocol}` | {'up to ' * simulated}{', '.join(classes)} | {counted} |"


def main() -> None:
    parser = command_parser("Writes the pages of all data sets.")
    parser.add_argument("output", help="folder for the pages")
    folder = Path(parse_arguments(parser).output)
    for name in PAGES:
        write_atomically(folder / name, data_set_page(name))
        print(folder / name)


if __name__ == "__main__":
    main()
