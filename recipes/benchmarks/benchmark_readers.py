"""Time to read skeleton files, beside typical readers.

    python recipes/benchmarks/benchmark_readers.py --folder nturgb+d_skeletons --output readers
    python recipes/benchmarks/benchmark_readers.py --output readers     # generated files of typical sizes

Three formats: `.skeleton` of NTU RGB+D, `.txt` of UAV-Human, `.json` of Toyota Smarthome. For each, our reader is compared with
typical readers, which go line by line (or through `json`) and place numbers in Python. One of them works like the data
preparation of SGN and CTR-GCN: it reads all lines, then makes a small array for each joint and one for its colour pixel. The
leanest one parses x, y and z only. All results must be bit-identical before anything is timed. Processor time is measured,
which other programs hardly affect; the files are in memory by then. Finally our reader runs in one process and in one per core,
timed by the clock. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import json
import os
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

JOINT_FIELDS = (
    *("x", "y", "z", "depth_x", "depth_y", "color_x", "color_y"),
    *("orientation_w", "orientation_x", "orientation_y", "orientation_z", "tracking_state"),
)
JOINTS = {".skeleton": 25, ".txt": 17, ".json": 13}


@dataclass
class BenchmarkArguments:
    """Which files are read, and how often."""

    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    folder: str | None = field(default=None, metadata={"help": "folder of recordings; by default files are generated"})
    max_files: int = field(
        default=100, metadata={"help": "maximum number of files of a format, in order of their names"}
    )
    repetitions: int = field(default=15, metadata={"help": "rounds over all files; the median is reported"})


# ------------------------------------------------------------------------------------------------------- typical readers


def read_every_field(path):
    """Reads line by line into dictionaries of all numbers of a joint by their names."""
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
    return _stack(tracks, len(frames), JOINTS[Path(path).suffix])


def read_joint_by_joint(path):
    """Reads all lines, then makes arrays of the position and the pixel of each joint, like the readers of SGN and CTR-GCN."""
    import numpy as np

    with open(path) as file:
        lines = file.readlines()
    at, tracks, pixels = 1, {}, {}
    num_frames = int(lines[0].strip("\r\n"))
    for frame in range(num_frames):
        num_bodies, at = int(lines[at].strip("\r\n")), at + 1
        for _ in range(num_bodies):
            body_id = lines[at].strip("\r\n").split()[0]
            num_joints, at = int(lines[at + 1].strip("\r\n")), at + 2
            joints, colors = np.zeros((num_joints, 3), np.float32), np.zeros((num_joints, 2), np.float32)
            for joint in range(num_joints):
                tokens = lines[at].strip("\r\n").split()
                joints[joint] = np.array(tokens[:3], dtype=np.float32)
                colors[joint] = np.array(tokens[5:7], dtype=np.float32)
                at += 1
            tracks.setdefault(body_id, {})[frame] = joints
            pixels.setdefault(body_id, {})[frame] = colors
    return _stack(tracks, num_frames, JOINTS[Path(path).suffix])


def read_coordinates(path):
    """Reads line by line, x, y and z only."""
    with open(path) as file:
        tracks, num_frames = {}, int(file.readline())
        for frame in range(num_frames):
            for _ in range(int(file.readline())):
                body_id = int(file.readline().split()[0])
                joints = [[float(x) for x in file.readline().split(" ", 3)[:3]] for _ in range(int(file.readline()))]
                tracks.setdefault(body_id, {})[frame] = joints
    return _stack(tracks, num_frames, JOINTS[Path(path).suffix])


def _stack(tracks, num_frames, num_joints):
    import numpy as np

    keypoints = np.zeros((num_frames, len(tracks), num_joints, 3), np.float32)
    for slot, frames in enumerate(tracks.values()):
        keypoints[list(frames), slot] = list(frames.values())
    return keypoints


def read_poses_by_joint(path):
    """Reads with `json`, then copies number by number."""

    def place(pose, numbers):
        for joint in range(13):
            for axis in range(3):
                pose[joint, axis] = numbers[axis * 13 + joint]

    return _read_poses(path, place)


def read_poses_at_once(path):
    """Reads with `json`, then copies pose by pose."""
    import numpy as np

    def place(pose, numbers):
        pose[:] = np.array(numbers).reshape(3, 13).T

    return _read_poses(path, place)


def _read_poses(path, place):
    import numpy as np

    with open(path) as file:
        frames = json.load(file)["frames"]
    keypoints = np.zeros((len(frames), max(map(len, frames)), 13, 3), np.float32)
    for frame, detections in enumerate(frames):
        for slot, detection in enumerate(detections):
            place(keypoints[frame, slot], detection["pose3d"])
    return keypoints


def readers(suffix):
    """Name → reader of a format, ours first."""
    if suffix == ".json":
        return {
            "ours": partial(_ours, suffix=suffix),
            "json, joint by joint": read_poses_by_joint,
            "json, pose by pose": read_poses_at_once,
        }
    return {
        "ours": partial(_ours, suffix=suffix),
        "line by line, one array per joint (as CTR-GCN)": read_joint_by_joint,
        "line by line, every field": read_every_field,
        "line by line, x y z only": read_coordinates,
    }


def _ours(path, suffix):
    from action_llm.skeleton_files import read_skeleton
    from action_llm.smarthome_files import read_smarthome

    if suffix == ".json":
        return read_smarthome(path).keypoints
    return read_skeleton(path, layout={".skeleton": "kinect25", ".txt": "coco17"}[suffix]).keypoints


# ------------------------------------------------------------------------------------------------------------ generated files


def write_files(folder, count=9):
    """Writes files of random joints, with as many frames, columns and digits as the files of each data set."""
    import numpy as np

    generator = np.random.default_rng(0)
    for index in range(count):
        num_frames, num_bodies = int(generator.integers(45, 125)), 1 + index % 2
        for suffix, first_id in ((".skeleton", 72057594037931101), (".txt", 0)):
            lines = [str(num_frames)]
            for _ in range(num_frames):
                lines.append(str(num_bodies))
                for body in range(num_bodies):
                    lines += [f"{first_id + body} 0 1 1 1 1 0 0.02764709 -0.05745083 2", str(JOINTS[suffix])]
                    numbers = generator.normal(size=(JOINTS[suffix], 7)) * ([1] * 3 + [500] * 4)
                    lines += [" ".join(f"{value:.7g}" for value in joint) + " 0 0 0 0 2" for joint in numbers]
            (folder / f"made_up_{index}{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        frames = [
            [{"cumscore": 9.5, "pose2d": pose[:26].tolist(), "pose3d": (pose[26:] / 300).tolist()}] if pose[0] else []
            for pose in generator.uniform(0, 600, (4 * num_frames, 65)) * (generator.random((4 * num_frames, 1)) > 0.1)
        ]
        (folder / f"made_up_{index}.json").write_text(
            json.dumps({"K": 1.0, "njts": 13, "frames": frames}), encoding="utf-8"
        )


# -------------------------------------------------------------------------------------------------------------- measurement


def measure(paths, suffix, repetitions):
    """Median milliseconds per file of each reader."""
    import numpy as np

    by_name = readers(suffix)
    for path in paths:
        results = [reader(path) for reader in by_name.values()]
        if not all(np.array_equal(results[0], result, equal_nan=True) for result in results[1:]):
            raise SystemExit(f"{path.name}: the readers give different results.")
    seconds = {name: [] for name in by_name}
    for _ in range(repetitions):
        for name, reader in by_name.items():
            start = time.process_time()
            for path in paths:
                reader(path)
            seconds[name].append((time.process_time() - start) / len(paths))
    return {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}


def _read_all(paths, suffix, times):
    for _ in range(times):
        for path in paths:
            _ours(path, suffix)


def measure_processes(paths, suffix, processes, times):
    """Files per second of our reader in a number of processes, by the clock."""
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_read_all, [paths] * processes, [suffix] * processes, [1] * processes))  # warms up
        start = time.perf_counter()
        list(pool.map(_read_all, [paths] * processes, [suffix] * processes, [times] * processes))
        return processes * times * len(paths) / (time.perf_counter() - start)


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    import pyarrow

    from action_llm_recipes.benchmarks.results import write_results

    cores, formats = os.cpu_count(), {}
    with tempfile.TemporaryDirectory() as generated:
        if arguments.folder is None:
            write_files(Path(generated))
        for suffix in JOINTS:
            paths = sorted(Path(arguments.folder or generated).glob(f"*{suffix}"))[: arguments.max_files]
            if not paths:
                continue
            milliseconds = measure(paths, suffix, arguments.repetitions)
            speeds = {n: measure_processes(paths, suffix, n, arguments.repetitions) for n in sorted({1, cores})}
            size = sum(path.stat().st_size for path in paths) / len(paths)
            formats[suffix] = {
                "files": len(paths),
                "mean_kilobytes": size / 1e3,
                "milliseconds_a_file": milliseconds,
                "files_a_second_by_processes": speeds,
            }
    if not formats:
        raise SystemExit(f"there are no {', '.join(JOINTS)} files in {arguments.folder}.")
    record = {
        "machine": f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, pyarrow {pyarrow.__version__}",
        "kind": "recorded" if arguments.folder else "made up",
        "repetitions": arguments.repetitions,
        "formats": formats,
    }
    write_results(arguments.output, record, report(record))
    return record


def report(record: dict) -> str:
    """The results as a page in Markdown."""
    formats = record["formats"]
    lines = [
        f"{record['machine']}; processor time of one core, median of {record['repetitions']} rounds.",
        "",
        "| files | reader | ms per file | × |",
        "|---|---|---:|---:|",
    ]
    for suffix, result in formats.items():
        ours = result["milliseconds_a_file"]["ours"]
        for name, value in result["milliseconds_a_file"].items():
            title = f"{result['files']} `{suffix}`, {record['kind']}, {result['mean_kilobytes']:.0f} kB"
            lines.append(f"| {title if name == 'ours' else ''} | {name} | {value:.2f} | {value / ours:.1f} |")
    counts = list(next(iter(formats.values()))["files_a_second_by_processes"])
    heads = " | ".join(f"{count} process{'es' * (count > 1)}, files per second" for count in counts)
    lines += ["", f"| files | {heads} |", "|---|" + "---:|" * len(counts)]
    for suffix, result in formats.items():
        speeds = " | ".join(f"{speed:,.0f}" for speed in result["files_a_second_by_processes"].values())
        lines.append(f"| `{suffix}` | {speeds} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
