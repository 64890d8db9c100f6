"""Write simulated long videos: a person stands still, does an action, stands still, does the next; true times beside.

    python -m action_llm_datasets.simulation.simulate_long --output long --performers 16 --videos 4
    python -m action_llm_datasets.simulation.simulate_long --output many --performers 16 --videos 2 --actions_per_video 6
    python -m action_llm_datasets.simulation.simulate_long --output hour --performers 1 --videos 1 --minutes 60

    long/
        P003_V002.mp4, …    the second video of performer 3: drawn skeletons, as one camera sees the true joints
        timeline.csv        file_name,start,end,label: when which action is (`timelines`); the rest is standing still
        metadata.csv        the protocol "folder-video" (`folder`) reads the videos; their class is that of their one action
        skeleton.json       with it: the names of all classes in their order

The people are those of `simulate` with the same seed, and have NTU-60's subject numbers: metadata.csv splits them as
simulated-xsub does. They do actions that begin and end upright. Everything is drawn by chance from the seed and the number of
the video: the same arguments give the same bytes, whatever the number of processes. Files are written whole or not at all,
and a second run draws only what is missing. The tables are written last.

**When an action is.** A true span begins with the frame in which the body leaves its standing pose, and ends with that in
which it is back. A performance is cut to where its fastest joint moves (`MOVING`), and goes over from the standing pose and
back to it within `BLEND` before and after; span and video hold both. Outside of spans the body is its standing pose with a
sway of a few millimetres (`SWAY`), so `still` is the true length of what is between two actions.
"""

import argparse
import csv
import io
import json
import math
import os
from collections.abc import Iterator
from functools import partial
from itertools import islice, product
from pathlib import Path

import numpy as np

from ..atomic_files import write_atomically
from ..endings import ending_well
from ..folder_lock import writing
from ..names import METADATA, SKELETON, parse_arguments
from ..progress import Progress, set_up_output
from ..protocols import NTU_PROTOCOLS, NTUName, ntu_class_names
from ..rendering import render_batches, write_video
from ..timelines import TIMELINE, Segment, write_timeline
from ..worker_processes import in_processes
from .actions import SINGLE_ACTIONS
from .people import FRAME_RATE, Motion, Person, Take, draw_person, drift
from .sensor import place_cameras
from .simulate import MAX_PERFORMERS, habit_of, on_stage, open_simulation, setup_of

LONG_VERSION = 1
"""Grows when the same seed gives other files."""
LONG_ACTIONS = tuple(sorted(set(SINGLE_ACTIONS) - {8, 9, 43}))
"""NTU ids of what one person does from standing to standing: not sitting down, standing up, falling."""
MOVING = 0.25
"""Metres a second of the fastest joint. A person at ease stays below, the slightest nod does not."""
BLEND = 12
"""Frames, 0.4 seconds."""
SEVERAL = "several actions"
"""The one class of videos that have no class of their own: what happens when is in their timeline."""
SWAY = 0.003
"""Metres, the standard deviation at one metre above the floor, ahead as aside."""

_PROTOCOL = NTU_PROTOCOLS["simulated-xsub"]
_LONGEST = 300  # frames: no performance is cut off
_TURN = 5  # shares no factor with the number of actions, so that few performers spread over all of them

_NOTICE = """SIMULATED VIDEOS

These videos were computed by a kinematic simulator (action_llm_datasets.simulation.simulate_long). No person was recorded.
Action names and subject numbers follow NTU RGB+D so that the same programs read them; they are no part of that data set and
must not be reported as if they were.

simulation.json says with which seed, settings and version they were made.
"""


def split_of(performer: int) -> str:
    """`train`, `validation` or `test`: where simulated-xsub has this performer."""
    placement = _PROTOCOL.place(NTUName(setup_of(performer), 1, performer, 1, LONG_ACTIONS[0]))
    return "validation" if placement.held_out else placement.split


def turn_of(performer: int, video: int) -> int:
    """The action of a video that has one: performers of a split take turns, so that each split has all of them equally often.

    A performer's `len(LONG_ACTIONS)` videos from any one on have every action once; what a video has does not depend on how
    many there are.
    """
    split = split_of(performer)
    before = sum(split_of(other) == split for other in range(1, performer))
    return LONG_ACTIONS[(_TURN * before + video - 1) % len(LONG_ACTIONS)]


def _by_chance(rng: np.random.Generator) -> Iterator[int]:
    """All actions in some order, again and again."""
    while True:
        yield from rng.permutation(LONG_ACTIONS).tolist()


def _act(seed: int, person: Person, action: int, standing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One performance from the standing pose (25, 3) and back to it, (T, 25, 3)."""
    joints = SINGLE_ACTIONS[action](Take(person, habit_of(seed, person.number, action), rng, longest=_LONGEST)).solve()
    speed = FRAME_RATE * np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=1)
    moving = np.flatnonzero(speed > MOVING)
    frames = np.arange(moving[0] + 1 - BLEND, moving[-1] + 1 + BLEND)
    # Where the moment at ease is shorter than the blend, its last frame waits.
    joints = joints[np.clip(frames, 0, len(joints) - 1)]
    step = np.minimum(np.arange(1, len(frames) + 1), np.arange(len(frames), 0, -1))  # from the nearer end
    weight = 0.5 - 0.5 * np.cos(np.pi * np.minimum(step / (BLEND + 1), 1.0))
    return standing + weight[:, None, None] * (joints - standing)


def perform_long(
    seed: int,
    performer: int,
    video: int,
    *,
    actions_per_video: int | None = 1,
    minutes: float | None = None,
    still: tuple[float, float] = (2.0, 6.0),
) -> tuple[np.ndarray, list[Segment]]:
    """True joints of one long video as its camera sees them, and when the person does what.

    Args:
        seed: the world.
        performer, video: who, and which video of theirs; from 1.
        actions_per_video: 1 is the action whose turn it is (`turn_of`), more are drawn by chance.
        minutes: in place of `actions_per_video`: actions by chance for as long; the last still stretch fills what is left, and
            a video too short for an action has none.
        still: bounds of a still stretch, seconds.

    Returns:
        Joints (T, 25, 3) float64 in metres, in camera space at `FRAME_RATE`, and the actions in the order of time.
    """
    rng = np.random.default_rng([seed, 7, performer, video])
    person = draw_person(seed, performer)
    camera = place_cameras(seed, setup_of(performer))[rng.integers(3)]
    heading = rng.choice([-1.0, 1.0]) * np.deg2rad(45) + np.deg2rad(rng.normal(0, 8))
    place = np.array([rng.normal(0, 0.12), 0.0, rng.normal(0, 0.12)])
    at_ease = Take(person, habit_of(seed, performer, 0), rng)
    at_ease.run_until(0.0)
    standing = Motion(at_ease).solve()[0]

    def stand() -> np.ndarray:
        return np.broadcast_to(standing, (max(1, round(rng.uniform(*still) * FRAME_RATE)), 25, 3))

    limit = math.inf if minutes is None else round(60 * minutes * FRAME_RATE)
    pieces, segments = [stand()], []
    frames = len(pieces[0])
    actions = [turn_of(performer, video)] if actions_per_video == 1 else islice(_by_chance(rng), actions_per_video)
    for action in actions:
        act, after = _act(seed, person, action, standing, rng), stand()
        if frames + len(act) + len(after) > limit:
            break
        start, end = (round(frame / FRAME_RATE, 4) for frame in (frames, frames + len(act)))
        segments.append(Segment(start, end, ntu_class_names()[action - 1]))
        pieces += [act, after]
        frames += len(act) + len(after)
    joints = np.concatenate(pieces)
    if minutes is not None:
        joints = np.pad(joints[:limit], ((0, max(0, limit - frames)), (0, 0), (0, 0)), mode="edge")
    # Over the feet as a pendulum: they stay where they are.
    joints[..., [0, 2]] += SWAY * drift(rng, len(joints), 2, 0.25)[:, None] * joints[..., 1:2]
    return camera.view(on_stage(joints, heading, place)), segments


def video_name(performer: int, video: int) -> str:
    return f"P{performer:03d}_V{video:03d}.mp4"


def _draw_into(folder: Path, size: int, seed: int, settings: dict, job: tuple[int, int]) -> list[Segment]:
    joints, segments = perform_long(seed, *job, **settings)
    name = video_name(*job)
    if not (folder / name).exists():
        with Progress(name, len(joints), "frames") as bar:

            def batches() -> Iterator[np.ndarray]:
                for frames in render_batches(joints, size=(size, size)):
                    yield frames
                    bar.update(len(frames))

            write_video(folder / name, batches(), FRAME_RATE)
    return segments


def _check_arguments(performers: int, videos: int, actions_per_video, minutes, still, size: int) -> None:
    if not 1 <= performers <= MAX_PERFORMERS:
        raise ValueError(f"performers must be 1 to {MAX_PERFORMERS}, the subjects of NTU-60; got {performers}")
    if videos < 1:
        raise ValueError(f"videos must be 1 or more; got {videos}")
    if minutes is not None and actions_per_video is not None:
        raise ValueError(f"give actions_per_video or minutes, not both; got {actions_per_video} and {minutes}")
    if actions_per_video is not None and actions_per_video < 1:
        raise ValueError(f"actions_per_video must be 1 or more; got {actions_per_video}")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"minutes must be a positive number; got {minutes}")
    if len(still) != 2 or not 0 < still[0] <= still[1] < math.inf:
        raise ValueError(f"still must be two positive numbers of seconds, the lower first; got {list(still)}")
    if size < 16 or size % 2:
        raise ValueError(f"size must be an even number, 16 or more; got {size}")


def simulate_long(
    output: str | os.PathLike,
    *,
    performers: int = 16,
    videos: int = 4,
    actions_per_video: int | None = None,
    minutes: float | None = None,
    still: tuple[float, float] = (2.0, 6.0),
    size: int = 96,
    seed: int = 0,
    num_proc: int | None = None,
) -> dict:
    """Draw performers x videos long videos into `output`, with their tables; returns the content of simulation.json.

    Args:
        output: folder, made where it is missing; what it already holds of this simulation is kept.
        performers: 1 to 40; they get the subject numbers 1 to `performers`.
        videos: of each performer.
        actions_per_video: how many actions, 1 if `minutes` does not say otherwise. One is by turns, so that classes are
            balanced, and metadata.csv has it as the label; more are by chance, and the label is `SEVERAL`.
        minutes: length of a video instead.
        still: bounds of every still stretch, seconds; before the first action, between two, after the last.
        size: height and width in pixels, an even number.
        seed: the world: bodies, habits, cameras and all chance.
        num_proc: processes; None uses every core.

    Raises:
        ValueError: an argument is out of its range.
        SimulationFolderError: the folder holds videos of another seed, other settings or another version.
        FolderInUseError: another process writes the folder.
    """
    _check_arguments(performers, videos, actions_per_video, minutes, still, size)
    if minutes is None and actions_per_video is None:
        actions_per_video = 1
    folder = Path(output)
    settings = {"actions_per_video": actions_per_video, "minutes": minutes, "still": list(still)}
    world = {
        "simulated": True,
        # The name of before there was a folder for it: simulations of older versions are resumed.
        "generator": "action_llm_datasets.simulate_long",
        "version": LONG_VERSION,
        "seed": seed,
        **settings,
        "size": size,
    }
    with writing(folder, "--output"):
        summary = open_simulation(folder, world, {"performers": performers, "videos": videos}, _NOTICE, ".mp4")
        jobs = list(product(range(1, performers + 1), range(1, videos + 1)))
        timeline = {}
        work = partial(_draw_into, folder, size, seed, settings)
        with Progress("simulating", len(jobs), "videos") as bar, in_processes(work, jobs, num_proc) as drawn:
            for job, segments in zip(jobs, drawn, strict=True):
                timeline[video_name(*job)] = segments
                bar.update()
        write_timeline(folder / TIMELINE, timeline)
        has_class = actions_per_video == 1
        names = [ntu_class_names()[action - 1] for action in LONG_ACTIONS] if has_class else [SEVERAL]
        write_atomically(folder / SKELETON, json.dumps({"class_names": names}, indent=1) + "\n")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file_name", "label", "split", "person"])
        for performer, video in jobs:
            name = video_name(performer, video)
            label = timeline[name][0].label if has_class else SEVERAL
            writer.writerow([name, label, split_of(performer), performer])
        write_atomically(folder / METADATA, text.getvalue())
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m action_llm_datasets.simulation.simulate_long", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--output", required=True, help="folder for the videos")
    parser.add_argument("--performers", type=int, default=16, help=f"1 to {MAX_PERFORMERS}")
    parser.add_argument("--videos", type=int, default=4, help="of each performer")
    parser.add_argument("--actions_per_video", type=int, help="default: 1, or as many as --minutes holds")
    parser.add_argument("--minutes", type=float, help="length of a video, instead of --actions_per_video")
    parser.add_argument(
        "--still", type=float, nargs=2, default=(2.0, 6.0), metavar=("LOW", "HIGH"), help="seconds between actions"
    )
    parser.add_argument("--size", type=int, default=96, help="height and width in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_proc", type=int, help="processes; default: every core")
    arguments = parse_arguments(parser)
    set_up_output()
    with ending_well(parser.prog, resumes=True):
        summary = simulate_long(**vars(arguments))
    print(f"{summary['performers'] * summary['videos']} simulated long videos in {arguments.output}")


if __name__ == "__main__":
    main()
