"""Simulates recordings of people with different bodies and habits, seen by three cameras, as `.skeleton` files of Kinect v2.

    python -m action_llm_datasets.simulation.simulate --output simulated --performers 16

File names, action ids and file format are those of NTU RGB+D (SsssCcccPpppRrrrAaaa.skeleton), so the readers, builders and
subject splits of NTU RGB+D 60 apply. The three cameras see each performance at the same time. SIMULATED.txt and
simulation.json mark the folder as simulated.

The same arguments give the same bytes, whatever the number of processes. Files are written whole or not at all, and a second
run writes only what is missing.
"""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from ..atomic_files import write_atomically
from ..commands import command_parser, run_command
from ..folder_lock import writing
from ..folder_record import check_record
from ..names import SIMULATION_RECORD
from ..progress import Progress
from ..worker_processes import in_processes
from .actions import SINGLE_ACTIONS
from .interactions import MUTUAL_ACTIONS, facing
from .people import Take, draw_person, rotation
from .sensor import observe, place_cameras, skeleton_text

SIMULATION_VERSION = 1
"""Raised when the same seed gives different files."""
SIMULATED_ACTION_IDS = tuple(sorted([*SINGLE_ACTIONS, *MUTUAL_ACTIONS]))
SETUPS = 8
MAX_PERFORMERS = 40
"""NTU RGB+D 60 has subjects 1 to 40, and its protocols split no others."""

_NOTICE = """SIMULATED RECORDINGS

These .skeleton files were computed by a kinematic simulator (action_llm_datasets.simulation.simulate). No person was recorded.
File names, action ids and file format follow NTU RGB+D, so that the same programs read them. They are not part of that data
set: do not report results on them as results on NTU RGB+D.

simulation.json has the seed and the version of the simulator.
"""


class SimulationFolderError(ValueError):
    """The output folder holds recordings of another simulation."""


def habit_of(seed: int, number: int, action: int) -> np.random.Generator:
    """The random numbers of a person's habits in an action: the same in every `Take`."""
    return np.random.default_rng([seed, 2, number, action])


def on_stage(joints: np.ndarray, heading: float, place: np.ndarray) -> np.ndarray:
    """Places a person in the room.

    Args:
        joints: (..., 3) in the person's coordinates.
        heading: direction that the person faces, in radians; positive turns to their left.
        place: (3,), in metres.

    Returns:
        Joints (..., 3) in room coordinates.
    """
    return joints @ rotation(np.array([heading, 0.0, 0.0])).T + place


def perform(seed: int, performer: int, action: int, replication: int) -> list[np.ndarray]:
    """True joints of a performance in room coordinates: for each person a float64 (T, 25, 3) array in metres.

    The origin is the middle of the stage, and camera 1 looks along -z. Each performer has a partner of their own for mutual
    actions, so that no body is in both parts of a cross-subject split.
    """

    def take(number: int) -> Take:
        chance = np.random.default_rng([seed, 3, number, action, replication])
        return Take(draw_person(seed, number), habit_of(seed, number, action), chance)

    rng = np.random.default_rng([seed, 5, performer, action, replication])
    # As in NTU RGB+D, the first repetition faces one side camera and the second faces the other.
    side = 1.0 if replication % 2 else -1.0
    if action in SINGLE_ACTIONS:
        people = [SINGLE_ACTIONS[action](take(performer)).solve()]
        heading = side * np.deg2rad(45) + np.deg2rad(rng.normal(0, 8))
    else:
        motion, other, distance = MUTUAL_ACTIONS[action](take(performer), take(1000 + performer))
        people = [
            facing(motion.solve(), distance, partner=False),
            facing(other.solve(), distance, partner=True),
        ]
        heading = side * np.deg2rad(90) + np.deg2rad(rng.normal(0, 10))
    place = np.array([rng.normal(0, 0.12), 0.0, rng.normal(0, 0.12)])
    return [on_stage(joints, heading, place) for joints in people]


def setup_of(performer: int) -> int:
    return 1 + (performer - 1) % SETUPS


def file_name(performer: int, action: int, replication: int, camera: int) -> str:
    return f"S{setup_of(performer):03d}C{camera:03d}P{performer:03d}R{replication:03d}A{action:03d}.skeleton"


def record(seed: int, performer: int, action: int, replication: int) -> dict[str, bytes]:
    """File name → content: a performance as seen by the three cameras of its setup."""
    people = perform(seed, performer, action, replication)
    files = {}
    for number, camera in enumerate(place_cameras(seed, setup_of(performer)), start=1):
        rng = np.random.default_rng([seed, 6, performer, action, replication, number])
        files[file_name(performer, action, replication, number)] = skeleton_text(observe(people, camera, rng))
    return files


def _record_into(folder: Path, seed: int, performance: tuple[int, int, int]) -> int:
    files = record(seed, *performance)
    for name, text in files.items():
        if not (folder / name).exists():
            write_atomically(folder / name, text)
    return len(files)


def _check_arguments(performers: int, replications: int, actions: Sequence[int]) -> None:
    if not 1 <= performers <= MAX_PERFORMERS:
        raise ValueError(f"performers must be 1 to {MAX_PERFORMERS}, the subjects of NTU RGB+D 60; got {performers}")
    if replications < 1:
        raise ValueError(f"replications must be at least 1; got {replications}")
    unknown = sorted(set(actions) - set(SIMULATED_ACTION_IDS))
    if unknown or not actions:
        raise ValueError(f"actions must be ids out of {list(SIMULATED_ACTION_IDS)}; got {unknown or 'none'}")


def open_simulation(folder: Path, world: dict, extent: dict, notice: str, suffix: str) -> dict:
    """Creates the folder of a simulation, or resumes it; returns the content of simulation.json, `world` and `extent`.

    Args:
        folder: for the files.
        world: settings that decide the content of a file. They are fixed once the folder exists.
        extent: settings that decide the number of files. They may grow.
        notice: content of SIMULATED.txt.
        suffix: of the files that are written.

    Raises:
        SimulationFolderError: if the folder holds files of another world, or files that are not simulated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record_path = folder / SIMULATION_RECORD
    check_record(record_path, world, SimulationFolderError)
    if not record_path.exists() and any(name.lower().endswith(suffix) for name in os.listdir(folder)):
        raise SimulationFolderError(f"{folder} holds {suffix} files that are not simulated: choose another folder")
    summary = world | extent
    write_atomically(folder / "SIMULATED.txt", notice)
    content = json.dumps(summary, indent=2) + "\n"
    if not record_path.exists() or record_path.read_text(encoding="utf-8") != content:
        write_atomically(record_path, content)
    return summary


def simulate(
    output: str | os.PathLike,
    *,
    performers: int = 16,
    replications: int = 2,
    actions: Sequence[int] = SIMULATED_ACTION_IDS,
    seed: int = 0,
    num_proc: int | None = None,
) -> dict:
    """Writes performers × actions × replications × 3 recordings; returns the content of simulation.json.

    Args:
        output: folder; created if missing. Recordings of this simulation that it already holds are kept.
        performers: number of performers, 1 to 40; their subject numbers count from 1.
        replications: how often each performer does each action.
        actions: NTU action ids out of `SIMULATED_ACTION_IDS`.
        seed: decides bodies, habits, cameras and all random variation.
        num_proc: number of processes; None uses every core.

    Raises:
        ValueError: if an argument is out of range.
        SimulationFolderError: if the folder holds recordings of another seed or version.
        FolderInUseError: if another process is writing to the folder.
    """
    actions = sorted(set(actions))
    _check_arguments(performers, replications, actions)
    folder = Path(output)
    world = {
        "simulated": True,
        # The module's name in older versions, whose simulations can be resumed.
        "generator": "action_llm_datasets.simulate",
        "version": SIMULATION_VERSION,
        "seed": seed,
    }
    extent = {
        "performers": performers,
        "replications": replications,
        "actions": actions,
        "recordings": 3 * performers * replications * len(actions),
    }
    with writing(folder, "--output"):
        summary = open_simulation(folder, world, extent, _NOTICE, ".skeleton")
        there = {entry.name for entry in os.scandir(folder)}
        missing = [
            (performer, action, replication)
            for performer, action, replication in product(
                range(1, performers + 1), actions, range(1, replications + 1)
            )
            if not there.issuperset(file_name(performer, action, replication, camera) for camera in (1, 2, 3))
        ]
        work = partial(_record_into, folder, seed)
        with (
            Progress("simulating", 3 * len(missing), "files") as bar,
            in_processes(work, missing, num_proc, chunksize=8) as counts,
        ):
            for written in counts:
                bar.update(written)
    return summary


def simulation_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of every simulation."""
    parser = command_parser(description)
    parser.add_argument(
        "--output", required=True, help="folder for the files; a folder of the same simulation is completed"
    )
    parser.add_argument(
        "--performers", type=int, default=16, help=f"number of people, 1 to {MAX_PERFORMERS} (default: 16)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of bodies, habits, cameras and variation (default: 0)"
    )
    parser.add_argument("--num_proc", type=int, help="number of processes (default: one per core)")
    return parser


def main() -> None:
    parser = simulation_parser("Simulates recordings of people, seen by three cameras, as .skeleton files.")
    parser.add_argument(
        "--replications", type=int, default=2, help="times that each performer does each action (default: 2)"
    )
    parser.add_argument(
        "--actions",
        type=int,
        nargs="+",
        default=SIMULATED_ACTION_IDS,
        metavar="ID",
        help="NTU action ids (default: all 24)",
    )

    def work(**arguments) -> str:
        return f"{simulate(**arguments)['recordings']} simulated recordings in {arguments['output']}"

    run_command(parser, work)


if __name__ == "__main__":
    main()
