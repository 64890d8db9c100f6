"""The pages of the data sets in model_cards/datasets: how to get and load them, their splits, and what to watch for.

    python -m action_llm_datasets.pages model_cards/datasets

The tables, terms and citations come from the builders; the introductions are written here. The card of a prepared copy is
written by `prepare`.
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

# File → title, prefixes of the protocols on the page, introduction, and the protocol of the example.
PAGES = {
    "ntu_rgbd.md": (
        "NTU RGB+D 60 and 120",
        ("ntu60-", "ntu120-"),
        """60 or 120 actions, of which 11 or 26 are performed by two people, recorded by three Kinect v2 sensors at the
same time. The skeletons have 25 joints in metres at 30 frames per second; the colour videos have 1920 × 1080 pixels.
Request access on the home page. `--data_dir` is the folder of the `.skeleton` files (or of the `_rgb.avi` videos),
unpacked or still in their archives.

What to watch for:

- 302 recordings of NTU RGB+D 60 (535 of NTU RGB+D 120) have no complete skeletons. The published list of these recordings is
  left out and counted.
- A third body is often a chair. With `clean=true`, people are separated from such bodies by the thresholds of CTR-GCN and
  PYSKL.
- The first of two people is the one who moves more, not the one whom the action is named after. `--augment_swap 0.5` of
  `train_tokenizer.py` lets people change places in training ([measured](../results/relation.md) on simulated recordings).
- Read tracking ids as integers: near 2^56, float64 cannot tell neighbouring ids apart.
- There is no official validation split. `held_out` marks the recordings of a fixed list of training performers.
- Class 67 is spelled "hush (quite)" in all public lists, and also here.""",
        "ntu60-xsub",
    ),
    "utd_mhad.md": (
        "UTD-MHAD",
        ("utd-mhad",),
        """27 actions by eight people in front of one Kinect v1, four times each: 861 recordings of skeletons with 20 joints in
metres, depth videos and colour videos. The data set is free to download and small enough for two CPU cores. `--data_dir` is
the folder of the `.mat` files, or of the videos.

What to watch for:

- There are 431 training and 430 test recordings, so one percentage point is four recordings.
- There is no official validation split. Subject 7 is held out to choose settings (`--held_out_subjects 5` in the recipes, or
  `--set held_out_subject=5` in `prepare`, chooses another).
- `utd-mhad-unseen-0` to `-4` (LLM-AR, Table 8) leave three random classes each out of training, and test them on the test
  subjects: with 48 recordings, one percentage point is half a recording, so report the mean of the five draws.
- `utd-mhad-zero-shot-22-5`, `-17-10` and `-13-14` (seen and unseen classes) are splits of this project: none are published.
- Some actions differ only in left and right (swipe left, swipe right), so mirroring a recording changes its class.""",
        "utd-mhad",
    ),
    "toyota_smarthome.md": (
        "Toyota Smarthome (trimmed)",
        ("smarthome-",),
        """31 activities of daily living by 18 people aged 60 to 80, unscripted, in one apartment with seven cameras: 16,115
clips of 640 × 480 pixels, and skeletons of 13 joints that were estimated from them in 2D and 3D. Request access on the home
page. `--data_dir` is the folder of the `.json` files of one version of the skeletons, or of the `.mp4` videos.

What to watch for:

- Class sizes differ a lot, so models are compared by mean per-class accuracy.
- The files list all x, then all y, then all z, and not the coordinates joint by joint.
- The public lists have 14 clips of a class (`Pour.Fromcup`) that is not one of the 31. They are left out.
- Sources disagree about the frame rate. For videos, the container has it.
- CV1 and CV2 choose settings on clips of another camera, which are never used for training.""",
        "smarthome-cs",
    ),
    "uav_human.md": (
        "UAV-Human",
        ("uav-human-",),
        """155 actions by 119 people, filmed from a drone: colour videos, and skeletons with the 17 joints of COCO in pixels,
which were estimated from them. Request access on the home page. `--data_dir` is the folder of the `.txt` files, or of the
videos.

What to watch for:

- The third coordinate is always 0: these skeletons are 2D, and augmentation does not rotate them about the vertical.
- Action ids in file names count from 0.
- The published list of bones has a cycle; a tree made for this project is used instead.
- Recordings have up to 305 frames; other loaders cut them at 300.
- The smallest classes have about 40 recordings, the largest has 173.""",
        "uav-human-csv1",
    ),
    "nw_ucla.md": (
        "Northwestern-UCLA Multiview Action 3D",
        ("nw-ucla-",),
        """10 actions by ten people, recorded by three Kinect v1 sensors from different sides: 1,484 recordings of
skeletons with 20 joints in metres. `--data_dir` is the folder of the JSON files that CTR-GCN and Shift-GCN use (`all_sqe`, from
the link in the README of CTR-GCN), unpacked or still in its archive. Colour and depth pictures are not read.

What to watch for:

- Published results on skeletons use `nw-ucla-xview`: 464 test recordings, so one percentage point is five recordings. The
  people are the same in training and test; only the view is new.
- There is no official validation split. `held_out` marks the training recordings of one subject (`--held_out_subjects 5` in the
  recipes, or `--set held_out_subject=5` in `prepare`, chooses another). They measure a new person, not a new view. To choose
  settings across views without reading view 3, develop on `nw-ucla-view1-view2` and `nw-ucla-view2-view1`.
- Across subjects, `nw-ucla-xsub-1` to `-10` leave out one subject each, as public loaders do: report the mean of the ten.
  `nw-ucla-xsub` (odd subjects train) is a split of this project, for a single run; do not compare it with published results.
- The first four joints are in the opposite order of UTD-MHAD's (layout `kinect20-sdk`).
- Recordings have 1 to 201 frames, half of them at most 31.
- Some published labels are wrong. In view 2, the labels of subject 4's eleven recordings of sitting down and standing up are
  interchanged: the pelvis rises where they say "sit down". Those of subject 5's donning and doffing (13 recordings) seem to be
  interchanged, too. The labels are kept, so that results stay comparable; the preparation lists the recordings. A model that
  recognises what subject 4 does is right about at most 98 % of view 2, and about 95 % if those of subject 5 are interchanged.
- The action ids 7 and 10 are not used. `label` in the files counts without these gaps; the file name decides the class.
- The builder was tested with recordings of views 1 and 2, and with made-up files for view 3.""",
        "nw-ucla-xview",
    ),
    "sbu.md": (
        "SBU Kinect Interaction",
        ("sbu-",),
        """Eight interactions of two people in front of one Kinect: approaching, departing, kicking, pushing, shaking hands,
hugging, exchanging an object and punching. 21 pairs out of seven people, 282 recordings of 10 to 46 frames at 15 frames per
second, with 15 joints for each person. `--data_dir` holds the folders of the pairs
(`s01s02/01/001/skeleton_pos.txt`), unpacked or still in their archives. Use the clean version. Pictures are not read.

What to watch for:

- Papers report the mean of the five folds, `sbu-fold-0` to `-4`. The README of the data set numbers them from 1.
- The folds separate pairs, not people: the people of a test pair are also in training pairs.
- There is no official validation split. `held_out` marks the pairs of the next fold (`--set held_out_fold=3` in `prepare`
  chooses another). A recording shows two people, so `--held_out_subjects` and accuracy per person are not available.
- The first person is the one who moves more, whoever comes first in the file. `--augment_swap 0.5` of `train_tokenizer.py` lets
  people change places in training ([measured](../results/relation.md) on simulated recordings).
- Coordinates in the files are normalised. The formulas of the README are applied and give metres, y up (layout `sbu15`): they
  undo the normalisation of OSCeleton, which starts from millimetres. Other loaders call these numbers pixels, or keep the
  normalised ones, in which y grows downwards and bodies are stretched.
- Public loaders disagree about the names of actions 04 to 08. The order here was checked against pictures by the author of
  a public loader. Accuracy does not depend on the names.
- The builder was tested with made-up files only.""",
        "sbu-fold-0",
    ),
    "simulated.md": (
        "Simulated recordings",
        ("simulated-",),
        """**Simulated: no people were recorded.** A kinematic simulator performs actions of NTU RGB+D with bodies of different
proportions and habits in front of three cameras, adds sensor noise, and writes the file format of NTU RGB+D. Use it to try
the software offline, and for tests. Scores on it do not carry over to recordings of people.

```bash
python -m action_llm_datasets.simulation.simulate --output simulated
python -m action_llm_datasets.render simulated-xsub --source simulated --output simulated_videos
python -m action_llm_datasets.simulation.simulate_long --output long --actions_per_video 6
```

What to watch for:

- The actions vary only as far as the simulator models them, so they are easier to tell apart than recorded actions.
- `--actions` and `--performers` choose the classes and the performers.
- Long videos have a table with the time of each action (`timeline.csv`), and are loaded as `folder-video`.""",
        "simulated-xsub",
    ),
    "folder.md": (
        "Recordings of your own",
        ("folder",),
        """Put your recordings in a folder with a `metadata.csv` (`file_name,label,split`) and, for skeletons, a
`skeleton.json` with the joint layout. If file names follow a pattern, this command writes both files:

```bash
python -m action_llm_datasets.folder my_recordings --layout kinect20 --fps 30 \\
    --pattern '(?P<label>[a-z]+)_person(?P<person>\\d+)_.*' --test person=3,7 --validation person=5
```

A pattern with a `/` is matched against the path. Folders of classes (`train/wave/a.npy`, `test/wave/b.npy`) need no table, as
with `imagefolder`; without `train` and `test`, all recordings are for training. `action-llm-pose my_videos --output
my_skeletons` writes such a folder from [videos of people](../poses.md).

| recordings | notes |
|---|---|
| `.npy` | (frames, [people,] joints, coordinates), with or without a score behind the coordinates: HumanML3D's `new_joints` |
| `.npz` | such an array `keypoints`, `fps`, `body_ids` of tracked people; or `keypoint` and `keypoint_score` of PYSKL |
| `.txt` | a frame or a joint per row |
| `.json` | AlphaPose, COCO (results or annotations), Toyota Smarthome, Northwestern-UCLA |
| folders of `.json` files | OpenPose: a file per frame; the row names the folder |
| `.bvh` | motion capture with bones named as by Mixamo, MotionBuilder, CMU, Xsens or Unreal: layout `smpl22` |
| `.c3d` | motion capture with the markers of Plug-in Gait or CMU, of one person or several: layout `smpl22` |
| `.skeleton`, `.mat`, `skeleton_pos.txt` | NTU RGB+D and UAV-Human, UTD-MHAD, SBU Kinect Interaction |
| videos | files, or folders of numbered pictures (`folder-video`) |

Pickles are not read, because unpickling can run code; the error for a pickle of PYSKL has the command that converts it. A data
set of CTR-GCN in one `.npz` becomes a folder of recordings with `python -m action_llm_datasets.unpack NTU60_CS.npz ntu60`.

| layout | joints | joint order of |
|---|---|---|
| `kinect25` | 25 in metres, y up | Kinect 2: NTU RGB+D |
| `kinect20-sdk` | 20 in metres, y up | the SDK of Kinect v1: Northwestern-UCLA |
| `kinect20` | 20 in metres, y up | UTD-MHAD |
| `msr20` | 20 in metres, y up | MSR Action3D |
| `sbu15` | 15 in metres, y up | OpenNI: SBU Kinect Interaction |
| `smpl22`, `smpl24` | 22 or 24 in metres, y up | SMPL: HumanML3D; AMASS, with `"up": "z"`; BVH and C3D files |
| `blazepose33` | 33 in metres, y down | the world landmarks of MediaPipe |
| `h36m17` | 17 in metres, y down | Human3.6M in the order of VideoPose3D and MMPose, in the axes of the camera |
| `openpose25`, `openpose18` | 25 or 18 in pixels, y down, with a score | OpenPose: BODY_25, COCO (Kinetics-Skeleton) |
| `coco17` | 17 in pixels, y down, with a score | COCO, UAV-Human |
| `halpe26` | 26 in pixels, y down, with a score | Halpe-FullBody: AlphaPose |
| `wholebody133` | 133 in pixels, y down, with a score | COCO-WholeBody: body, feet, face and hands |
| `lcrnet13`, `lcrnet13-2d` | 13 in metres, or in pixels | Toyota Smarthome |

A sample of the recordings is checked before all are read. If the joints fit another layout better, another axis points up, or
coordinates are in pixels instead of metres, the build stops and suggests the right setting; `--accept_doubts true` builds it
anyway. If the vertical axis differs from the layout's, set `"up": "z"` (or `"-y"`, …) in `skeleton.json`. In mirrored
recordings, left and right are exchanged, so that knees and feet point backwards: negate one axis, or swap the left and right
joints of the layout.

What to watch for:

- Split by person, not by recording: nobody should be in both train and test.
- `validation` rows become `held_out` training recordings, which select checkpoints and settings. With fewer than 200 training
  recordings, `run_line.py` does not train on them and uses them for early stopping.
- If frame rates or vertical axes differ between recordings, give them in columns `fps` and `up`.
- `keep=("scores",)` adds the scores of the joints to the rows: 0 for a joint that was not seen.
- The report lists what to check, such as class names that differ only in case, classes without a training recording, and the
  same recording in two files.""",
        "folder",
    ),
}

# Trains and evaluates LLM-AR on one GPU with 24 GB.
LLM_AR_COMMANDS = """```bash
for protocol in {protocols}; do
    run=runs/$protocol; configs=recipes/configs/llm_ar
    accelerate launch recipes/train_tokenizer.py --config $configs/{tokenizer} --dataset $protocol \\
        --data_dir {data_dir} --output_dir $run/tokenizer
    accelerate launch recipes/encode_actions.py --tokenizer $run/tokenizer/model --dataset $protocol \\
        --data_dir {data_dir} --output_dir $run/sentences
    accelerate launch recipes/sft.py --config $configs/ntu60_sft_qlora_24gb.yaml --tokenizer $run/tokenizer/model \\
        --sentences $run/sentences --output_dir $run/sft
    accelerate launch recipes/evaluate_classifier.py --model $run/sft/model --sentences $run/sentences \\
        --output_dir $run/evaluation
done
```"""
# File → text before the commands, and what they are about.
LLM_AR = {
    "toyota_smarthome.md": (
        """The paper's settings (LLM-AR, Table 2), on one GPU with 24 GB. They have not been run.
Features keep the 20 frames per second of the recordings. Clips of more than a minute are resampled to 1,200 frames, or 300
tokens; other loaders of this data set allow 4,000 frames. The evaluation leads with the mean per-class accuracy.""",
        {
            "protocols": "smarthome-cs smarthome-cv1 smarthome-cv2",
            "tokenizer": "smarthome_tokenizer.yaml",
            "data_dir": "Smarthome/skeletons",
        },
    ),
    "uav_human.md": (
        """The paper's settings (LLM-AR, Table 3), on one GPU with 24 GB. They have not been run. The YAML
files are those of NTU RGB+D; layout, dimensions and number of people come from the recordings. The paper does not say which of
the two splits its "X-Sub" is. Its baselines have the numbers that the authors of the data set report on CSv1.""",
        {
            "protocols": "uav-human-csv1 uav-human-csv2",
            "tokenizer": "ntu60_tokenizer.yaml",
            "data_dir": "UAV-Human/Skeleton",
        },
    ),
}


def data_set_page(name: str) -> str:
    """The Markdown of a page of `PAGES`."""
    title, prefixes, introduction, example = PAGES[name]
    names = [protocol for protocol in protocol_names() if protocol.startswith(prefixes)]
    videos = [protocol for protocol in names if "-video" in protocol]
    rows, rules, first = [], [], None
    with tempfile.TemporaryDirectory() as folder:
        if name == "simulated.md":
            actions = sorted({*SINGLE_ACTIONS, *MUTUAL_ACTIONS})
            Path(folder, SIMULATION_RECORD).write_text(json.dumps({"actions": actions}), encoding="utf-8")
        for protocol in (protocol for protocol in names if protocol not in videos):
            builders = _builders(protocol, folder) if name != "folder.md" else []
            first = first or next(iter(builders), None)
            if builders:
                rows.append(_row(protocol, builders, name == "simulated.md"))
                rules.append(f"- `{protocol}`: {builders[0].protocol_rule()}")
    terms = "The terms are those of the people who made the recordings." if first is None else first.terms
    lines = [f"# {title}", "", introduction, "", "## Loading", "", "```python"]
    lines += ["from action_llm_datasets.load import load_action_dataset", ""]
    lines += [f'splits = load_action_dataset("{example}", "FOLDER")', 'row = splits["train"][0]', "```", ""]
    if videos:
        note = " The other protocols have the same suffix for videos." if len(names) > 2 else ""
        lines += [f"For videos, use `{example}-video`.{note}", ""]
    prepare = f"`python -m action_llm_datasets.prepare {example} …`"
    lines += [f"{prepare} writes Parquet; with `--push_to_hub`, it uploads the result to a private repository.", ""]
    if rows:
        metric = METRICS[first.METRIC]
        lines += ["## Protocols", "", f"Models are compared by {metric}.", ""]
        lines += ["| protocol | classes | recordings |", "|---|---:|---|", *rows, ""]
        lines += ["<details><summary>Splits</summary>", "", *rules, "", "</details>", ""]
    if name in LLM_AR:
        text, options = LLM_AR[name]
        lines += ["## LLM-AR", "", text, "", LLM_AR_COMMANDS.format(**options), ""]
    lines += ["## Terms", "", terms]
    if first is not None and name != "simulated.md":
        lines += ["", f"Home page: {first.HOMEPAGE}", "", "## Citation", "", first.CITATION]
    return "\n".join(lines) + "\n"


def _builders(protocol: str, folder: str) -> "list[SkeletonBuilder]":
    from .load import PROTOCOLS

    builder, configs = PROTOCOLS[protocol]
    # A builder with a given hash does not search for recordings.
    return [builder(config_name=config, data_dir=folder, cache_dir=folder, hash="page") for config in configs]


def _row(protocol: str, builders: "list[SkeletonBuilder]", simulated: bool) -> str:
    """The row of a protocol in the table, with its seen and unseen classes."""
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
