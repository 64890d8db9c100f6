"""Time of reading `.skeleton` files on one core, beside the usual readers, in one run.

    python recipes/benchmarks/benchmark_skeleton_reader.py --folder nturgb+d_skeletons
    python recipes/benchmarks/benchmark_skeleton_reader.py          # nine made-up files of the usual size

Three readers take turns over the same files: `read_skeleton`; one that goes line by line and converts every field of a
joint, as loaders of the ST-GCN family do; and the leanest line reader there can be, which converts x, y, z only. Each
result is compared to the bit before anything is timed. The time is that of the processor, so that what else runs on
the machine counts little; the files are in memory by then.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

JOINT_FIELDS = [
    "x",
    "y",
    "z",
    "depth_x",
    "depth_y",
    "color_x",
    "color_y",
    "orientation_w",
    "orientation_x",
    "orientation_y",
    "orientation_z",
    "tracking_state",
]


@dataclass
class BenchmarkArguments:
    """
    Args:
        folder: Folder of `.skeleton` files with 25 joints; None makes files up.
        max_files: How many of them, in order of name.
        repetitions: Rounds over all files; the median round counts.
    """

    folder: str | None = None
    max_files: int = 100
    repetitions: int = 15


def read_every_field(path):
    """Line by line into dictionaries: every number of every joint becomes a float under its name."""
    with open(path) as file:
        frames = []
        for _ in range(int(file.readline())):
            bodies = []
            for _ in range(int(file.readline())):
                body = {"id": int(file.readline().split()[0]), "joints": []}
                for _ in range(int(file.readline())):
                    values = [float(token) for token in file.readline().split()]
                    body["joints"].append(dict(zip(JOINT_FIELDS, values, strict=True)))
                bodies.append(body)
            frames.append(bodies)
    tracks = {}
    for index, bodies in enumerate(frames):
        for body in bodies:
            joints = [(joint["x"], joint["y"], joint["z"]) for joint in body["joints"]]
            tracks.setdefault(body["id"], {})[index] = joints
    return _stack(tracks, len(frames))


def read_coordinates(path):
    """Line by line, x, y and z only."""
    with open(path) as file:
        tracks, num_frames = {}, int(file.readline())
        for frame in range(num_frames):
            for _ in range(int(file.readline())):
                body_id = int(file.readline().split()[0])
                joints = [[float(x) for x in file.readline().split(" ", 3)[:3]] for _ in range(int(file.readline()))]
                tracks.setdefault(body_id, {})[frame] = joints
    return _stack(tracks, num_frames)


def _stack(tracks, num_frames):
    import numpy as np

    keypoints = np.zeros((num_frames, len(tracks), 25, 3), np.float32)
    for slot, frames in enumerate(tracks.values()):
        keypoints[list(frames), slot] = list(frames.values())
    return keypoints


def write_files(folder, count=9):
    """People standing and shaking, with as many frames, columns and digits as recorded files have."""
    import numpy as np

    generator = np.random.default_rng(0)
    for index in range(count):
        num_frames, num_bodies = int(generator.integers(45, 125)), 1 + index % 2
        lines = [str(num_frames)]
        for _ in range(num_frames):
            lines.append(str(num_bodies))
            for body in range(num_bodies):
                lines += [f"{72057594037931101 + body} 0 1 1 1 1 0 0.02764709 -0.05745083 2", "25"]
                joints = np.concatenate(
                    [generator.normal(size=(25, 3)), generator.uniform(100, 1000, (25, 4))], axis=1
                )
                lines += [" ".join(f"{value:.7g}" for value in joint) + " 0 0 0 0 2" for joint in joints]
        (folder / f"S001C001P001R001A{index + 1:03d}.skeleton").write_text("\n".join(lines) + "\n")


def main(arguments: BenchmarkArguments):
    import numpy as np

    from action_llm.skeleton_files import read_skeleton

    with tempfile.TemporaryDirectory() as made_up:
        if arguments.folder is None:
            write_files(Path(made_up))
        paths = sorted(Path(arguments.folder or made_up).glob("*.skeleton"))[: arguments.max_files]
        if not paths:
            raise SystemExit(f"no .skeleton files in {arguments.folder}")
        readers = {
            "read_skeleton": lambda path: read_skeleton(path).keypoints,
            "line by line, every field": read_every_field,
            "line by line, x y z only": read_coordinates,
        }
        for path in paths:
            results = [reader(path) for reader in readers.values()]
            if not all(np.array_equal(results[0], result, equal_nan=True) for result in results[1:]):
                raise SystemExit(f"{path.name}: the readers disagree")
        seconds = {name: [] for name in readers}
        for _ in range(arguments.repetitions):
            for name, reader in readers.items():
                start = time.process_time()
                for path in paths:
                    reader(path)
                seconds[name].append((time.process_time() - start) / len(paths))

    origin = "recorded" if arguments.folder else "made up"
    print(
        f"{len(paths)} files ({origin}), {arguments.repetitions} rounds, processor time, all results equal to the bit"
    )
    print(f"{'reader':28} {'ms per file':>12} {'fastest':>9} {'times read_skeleton':>20}")
    ours = np.median(seconds["read_skeleton"])
    for name, values in seconds.items():
        print(f"{name:28} {1e3 * np.median(values):12.2f} {1e3 * min(values):9.2f} {np.median(values) / ours:20.1f}")


if __name__ == "__main__":
    from trl import TrlParser

    (arguments,) = TrlParser(BenchmarkArguments).parse_args_and_config()
    main(arguments)
