"""Write simulated recordings: people of different bodies and habits, seen by three cameras, as true `.skeleton` files.

    python -m action_llm_datasets.simulation.simulate --output simulated --performers 16

Files are named as those of NTU RGB+D (SsssCcccPpppRrrrAaaa.skeleton) and hold actions with NTU's ids, so the readers,
builders and protocols of NTU serve them; the subject lists of NTU-60 split them too. One performance is seen by three
cameras at once. Nothing in these files was recorded: SIMULATED.txt and simulation.json in the folder say so.

The same arguments give the same bytes, whatever the number of processes. Files are written whole or not at all, and a
second run writes only what is missing.
"""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from action_llm.model_files import ModelFileError, read_json_object

from ..atomic_files import write_atomically
from ..endings import ending_well
from ..folder_lock import writing
from ..names import parse_arguments
from ..progress import Progress, set_up_output
from ..worker_processes import in_processes
from .actions import SINGLE_ACTIONS
from .interactions import MUTUAL_ACTIONS, facing
from .people import Take, draw_person, rotation
from .sensor import observe, place_cameras, skeleton_text

SIMULATION_VERSION = 1
"""Grows when the same seed gives other files."""
SIMULATED_ACTION_IDS = tuple(sorted([*SINGLE_ACTIONS, *MUTUAL_ACTIONS]))
SETUPS = 8
MAX_PERFORMERS = 40
"""NTU-60 has subjects 1 to 40; its protocols know no others."""

_NOTICE = """SIMULATED RECORDINGS

These .skeleton files were computed by a kinematic simulator (action_llm_datasets.simulation.simulate). No person was recorded.
File names, action ids and the file format follow NTU RGB+D so that the same programs read them; they are no part of
that data set and must not be reported as if they were.

simulation.json says with which seed and version they were made.
"""


class SimulationFolderError(ValueError):
    """The output folder holds recordings of another simulation."""


def habit_of(seed: int, number: int, action: int) -> np.random.Generator:
    """How the person with this number does this action: for a `Take`, the same in all of them."""
    return np.random.default_rng([seed, 2, number, action])


def on_stage(joints: np.ndarray, heading: float, place: np.ndarray) -> np.ndarray:
    """Joints (..., 3) of somebody who faces `heading` (radians; positive is to their left) at `place`, in the room."""
    return joints @ rotation(np.array([heading, 0.0, 0.0])).T + place


def perform(seed: int, performer: int, action: int, replication: int) -> list[np.ndarray]:
    """True joints of one performance in the room, one (T, 25, 3) float64 array in metres per person.

    The room's origin is the middle of the stage; camera 1 looks along -z. The partner in a mutual action is a guest
    whom no other performer meets, so that no body is on both sides of a cross-subject split.
    """

    def take(number: int) -> Take:
        chance = np.random.default_rng([seed, 3, number, action, replication])
        return Take(draw_person(seed, number), habit_of(seed, number, action), chance)

    rng = np.random.default_rng([seed, 5, performer, action, replication])
    # As in NTU, the first time towards one side camera, the second time towards the other.
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
    """File name -> text of one performance as the three cameras of its setup see it."""
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
        raise ValueError(f"performers must be 1 to {MAX_PERFORMERS}, the subjects of NTU-60; got {performers}")
    if replications < 1:
        raise ValueError(f"replications must be 1 or more; got {replications}")
    unknown = sorted(set(actions) - set(SIMULATED_ACTION_IDS))
    if unknown or not actions:
        raise ValueError(f"actions must be some of {list(SIMULATED_ACTION_IDS)}; got {unknown or 'none'}")


def open_simulation(folder: Path, world: dict, extent: dict, notice: str, suffix: str) -> dict:
    """Makes the folder of a simulation, or goes on in it; returns the content of simulation.json, `world` and `extent`.

    Args:
        folder: for the files.
        world: what decides the content of a file: the same as long as the folder exists.
        extent: how much there is: may grow.
        notice: content of SIMULATED.txt.
        suffix: of the files that are written.

    Raises:
        SimulationFolderError: the folder holds files of another world, or some that are not simulated.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record_path = folder / "simulation.json"
    if record_path.exists():
        try:
            found = read_json_object(record_path)
        except ModelFileError as error:
            raise SimulationFolderError(
                f"{error}: it says what was simulated; delete {folder}, or name another folder"
            ) from error
        other = {key: found.get(key) for key in world if found.get(key) != world[key]}
        if other:
            asked = {key: world[key] for key in other}
            raise SimulationFolderError(f"{folder} holds another simulation: found {other}, asked for {asked}")
    elif any(name.lower().endswith(suffix) for name in os.listdir(folder)):
        raise SimulationFolderError(f"{folder} holds {suffix} files that are not simulated: name another folder")
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
    """Write performers x actions x replications x 3 recordings into `output`; returns the content of simulation.json.

    Args:
        output: folder, made where it is missing; what it already holds of this simulation is kept.
        performers: 1 to 40; they get the subject numbers 1 to `performers`.
        replications: how often everybody does everything.
        actions: NTU action ids out of `SIMULATED_ACTION_IDS`.
        seed: the world: bodies, habits, cameras and all chance.
        num_proc: processes; None uses every core.

    Raises:
        ValueError: an argument is out of its range.
        SimulationFolderError: the folder holds recordings of another seed or version.
        FolderInUseError: another process writes the folder.
    """
    actions = sorted(set(actions))
    _check_arguments(performers, replications, actions)
    folder = Path(output)
    world = {
        "simulated": True,
        # The name of before there was a folder for it: simulations of older versions are resumed.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m action_llm_datasets.simulation.simulate", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--output", required=True, help="folder for the .skeleton files")
    parser.add_argument("--performers", type=int, default=16, help=f"1 to {MAX_PERFORMERS}")
    parser.add_argument("--replications", type=int, default=2)
    parser.add_argument("--actions", type=int, nargs="+", default=SIMULATED_ACTION_IDS, metavar="ID", help="NTU ids")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_proc", type=int, default=None, help="processes; default: every core")
    arguments = parse_arguments(parser)
    set_up_output()
    with ending_well(parser.prog, resumes=True):
        summary = simulate(**vars(arguments))
    print(f"{summary['recordings']} simulated recordings in {arguments.output}")


if __name__ == "__main__":
    main()
