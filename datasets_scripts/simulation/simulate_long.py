"""Simulates long videos in which a person stands still between actions, with the true time of each action.

    python -m action_llm_datasets.simulation.simulate_long --output long --performers 16 --videos 4
    python -m action_llm_datasets.simulation.simulate_long --output many --performers 16 --videos 2 --actions_per_video 6
    python -m action_llm_datasets.simulation.simulate_long --output hour --performers 1 --videos 1 --minutes 60

    long/
        P003_V002.mp4, …    the second video of performer 3: skeletons drawn as one camera sees the true joints
        timeline.csv        file_name,start,end,label: the span of each action (`timelines`); at other times the person stands
        metadata.csv        for the protocol "folder-video"; a video with one action has its class
        skeleton.json       the names of all classes in label order

The people are those of `simulate` with the same seed. They have subject numbers of NTU RGB+D 60, and metadata.csv splits them
like simulated-xsub. All actions begin and end upright. The seed and the number of a video decide everything random: the same
arguments give the same bytes, whatever the number of processes. Files are written whole or not at all, and a second run draws
only what is missing. The tables are written last.

**Spans.** A span begins with the frame in which the body leaves its standing pose, and ends with the frame in which it is back.
A performance is cut to the frames in which its fastest joint moves (`MOVING`), and blends from and to the standing pose over
`BLEND` frames on either side, which belong to the span. Outside of spans the body keeps its standing pose with a sway of a few
millimetres (`SWAY`), so `still` is the true time between two actions.
"""

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
from ..commands import run_command
from ..folder_lock import writing
from ..names import METADATA, SKELETON
from ..progress import Progress
from ..protocols import NTU_PROTOCOLS, NTUName, ntu_class_names
from ..rendering import render_batches, write_video
from ..timelines import TIMELINE, Segment, write_timeline
from ..worker_processes import in_processes
from .actions import SINGLE_ACTIONS
from .people import FRAME_RATE, Motion, Person, Take, draw_person, drift
from .sensor import place_cameras
from .simulate import MAX_PERFORMERS, habit_of, on_stage, open_simulation, setup_of, simulation_parser

LONG_VERSION = 1
"""Raised when the same seed gives different files."""
LONG_ACTIONS = tuple(sorted(set(SINGLE_ACTIONS) - {8, 9, 43}))
"""NTU ids of the actions of one person that begin and end standing: without sitting down, standing up and falling."""
MOVING = 0.25
"""Speed of the fastest joint in metres per second. A person at ease is slower; the slightest nod is faster."""
BLEND = 12
"""Frames (0.4 seconds)."""
SEVERAL = "several actions"
"""The class of all videos with more than one action; the timeline has their actions."""
SWAY = 0.003
"""Standard deviation in metres at one metre above the floor, forward and sideways."""

_PROTOCOL = NTU_PROTOCOLS["simulated-xsub"]
_LONGEST = 300  # frames: long enough that no performance is cut off
_TURN = 5  # has no common factor with the number of actions, so that few performers spread over all actions

_NOTICE = """SIMULATED VIDEOS

These videos were computed by a kinematic simulator (action_llm_datasets.simulation.simulate_long). No person was recorded.
Action names and subject numbers follow NTU RGB+D, so that the same programs read them. They are not part of that data set: do
not report results on them as results on NTU RGB+D.

simulation.json has the seed, the settings and the version of the simulator.
"""


def split_of(performer: int) -> str:
    """The split of a performer under simulated-xsub: `train`, `validation` or `test`."""
    placement = _PROTOCOL.place(NTUName(setup_of(performer), 1, performer, 1, LONG_ACTIONS[0]))
    return "validation" if placement.held_out else placement.split


def turn_of(performer: int, video: int) -> int:
    """The action of a video with one action. The performers of a split take turns, so that classes are balanced in each split.

    Any `len(LONG_ACTIONS)` consecutive videos of a performer have every action once. The action of a video does not depend on
    the number of videos.
    """
    split = split_of(performer)
    before = sum(split_of(other) == split for other in range(1, performer))
    return LONG_ACTIONS[(_TURN * before + video - 1) % len(LONG_ACTIONS)]


def _by_chance(rng: np.random.Generator) -> Iterator[int]:
    """All actions in random order, repeated without end, in a new order each time."""
    while True:
        yield from rng.permutation(LONG_ACTIONS).tolist()


def _act(seed: int, person: Person, action: int, standing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A performance (T, 25, 3) that starts from the standing pose (25, 3) and returns to it."""
    joints = SINGLE_ACTIONS[action](Take(person, habit_of(seed, person.number, action), rng, longest=_LONGEST)).solve()
    speed = FRAME_RATE * np.linalg.norm(np.diff(joints, axis=0), axis=-1).max(axis=1)
    moving = np.flatnonzero(speed > MOVING)
    frames = np.arange(moving[0] + 1 - BLEND, moving[-1] + 1 + BLEND)
    # If the moment at ease is shorter than the blend, its outermost frame is held.
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
    """The true joints of a long video as its camera sees them, and the span of each action.

    Args:
        seed: of the simulation.
        performer, video: number of the person, and of the video of this person; both count from 1.
        actions_per_video: 1 takes the action whose turn it is (`turn_of`); more are drawn at random.
        minutes: length of the video, instead of `actions_per_video`. Actions are drawn at random while they fit, and the person
            stands for the rest; a video too short for an action has none.
        still: shortest and longest time that the person stands between actions, in seconds.

    Returns:
        Joints, float64 (T, 25, 3) in metres, in camera space at `FRAME_RATE`; and the actions, ordered by time.
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
    # The body sways over its feet like an inverted pendulum.
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
        raise ValueError(f"performers must be 1 to {MAX_PERFORMERS}, the subjects of NTU RGB+D 60; got {performers}")
    if videos < 1:
        raise ValueError(f"videos must be at least 1; got {videos}")
    if minutes is not None and actions_per_video is not None:
        raise ValueError(f"set actions_per_video or minutes, not both; got {actions_per_video} and {minutes}")
    if actions_per_video is not None and actions_per_video < 1:
        raise ValueError(f"actions_per_video must be at least 1; got {actions_per_video}")
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"minutes must be a positive number; got {minutes}")
    if len(still) != 2 or not 0 < still[0] <= still[1] < math.inf:
        raise ValueError(f"still must be two positive numbers of seconds, the smaller first; got {list(still)}")
    if size < 16 or size % 2:
        raise ValueError(f"size must be an even number of at least 16; got {size}")


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
    """Writes performers × videos long videos and their tables; returns the content of simulation.json.

    Args:
        output: folder; created if missing. Videos of this simulation that it already holds are kept.
        performers: number of performers, 1 to 40; their subject numbers count from 1.
        videos: number of videos of each performer.
        actions_per_video: number of actions in a video; 1 if neither this nor `minutes` is set. A single action is the label of
            the video in metadata.csv, and classes are balanced; several are drawn at random, and the label is `SEVERAL`.
        minutes: length of a video, instead of `actions_per_video`.
        still: shortest and longest time in seconds that the person stands before the first action, between actions, and after
            the last.
        size: height and width in pixels, an even number.
        seed: decides bodies, habits, cameras and all random variation.
        num_proc: number of processes; None uses every core.

    Raises:
        ValueError: if an argument is out of range.
        SimulationFolderError: if the folder holds videos of another seed, other settings or another version.
        FolderInUseError: if another process is writing to the folder.
    """
    _check_arguments(performers, videos, actions_per_video, minutes, still, size)
    if minutes is None and actions_per_video is None:
        actions_per_video = 1
    folder = Path(output)
    settings = {"actions_per_video": actions_per_video, "minutes": minutes, "still": list(still)}
    world = {
        "simulated": True,
        # The module's name in older versions, whose simulations can be resumed.
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
        _write_tables(folder, jobs, timeline, has_class=actions_per_video == 1)
    return summary


def _write_tables(
    folder: Path, jobs: list[tuple[int, int]], timeline: dict[str, list[Segment]], has_class: bool
) -> None:
    """Writes timeline.csv, skeleton.json and metadata.csv; with `has_class`, the action of a video is its label."""
    write_timeline(folder / TIMELINE, timeline)
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


def main() -> None:
    parser = simulation_parser("Simulates long videos in which a person stands still between actions.")
    parser.add_argument("--videos", type=int, default=4, help="number of videos of each performer (default: 4)")
    parser.add_argument(
        "--actions_per_video", type=int, help="number of actions (default: 1, or as many as fit into --minutes)"
    )
    parser.add_argument("--minutes", type=float, help="length of a video, instead of --actions_per_video")
    parser.add_argument(
        "--still", type=float, nargs=2, default=(2.0, 6.0), metavar=("LOW", "HIGH"),
        help="shortest and longest time between actions, in seconds (default: 2 6)",
    )  # fmt: skip
    parser.add_argument("--size", type=int, default=96, help="height and width in pixels (default: 96)")

    def work(**arguments) -> str:
        summary = simulate_long(**arguments)
        return f"{summary['performers'] * summary['videos']} simulated long videos in {arguments['output']}"

    run_command(parser, work)


if __name__ == "__main__":
    main()
