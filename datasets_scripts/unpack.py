"""Writes the folder format from a data set of CTR-GCN: one .npz with the joints and labels of all recordings.

    python -m action_llm_datasets.unpack NTU60_CS.npz ntu60 --layout kinect25 --class_names names.txt

Such a file has `x_train` and `x_test`, (recordings, frames, people * joints * coordinates), and `y_train` and `y_test`, the
labels as numbers or one-hot. Its recordings are padded with zeros to the same length; the zeros at the end are left out.
"""

import contextlib
import csv
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .atomic_files import write_atomically, written_whole
from .commands import command_parser, parse_arguments
from .endings import ending_well
from .folder_lock import writing
from .names import METADATA, SKELETON

# The header of an array lies in these bytes. NumPy refuses longer headers, too, but only after it has read them.
HEADER_BYTES = 1 << 14


def unpack(
    source: str | os.PathLike,
    output: str | os.PathLike,
    layout: str = "kinect25",
    fps: float = 30.0,
    class_names: list[str] | None = None,
) -> dict[str, int]:
    """Writes a `.npy` file (frames, people, joints, coordinates) for each recording, metadata.csv and skeleton.json.

    Recordings are read one at a time, so that the file may be larger than the memory. A recording, and the labels of a split,
    may take 512 MiB (`action_llm.size_limits`).

    Args:
        source: the `.npz` file.
        output: folder to write; created if missing.
        layout: name of the joint layout.
        fps: frames per second.
        class_names: class names in the order of the labels; None names classes by their numbers, from 1.

    Returns:
        Number of recordings of each split.

    Raises:
        ValueError: if the file is not such a data set, is damaged or too large, or a label has no name.
        OSError: if the file cannot be read.
        FolderInUseError: if another process is writing to the output.
    """
    from action_llm.skeleton_layouts import get_layout

    skeleton = get_layout(layout)
    rows: list[dict] = []
    with writing(output, "output"), _opened(source) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        splits = [split for split in ("train", "test") if {f"x_{split}", f"y_{split}"} <= names]
        if not splits:
            raise ValueError(f"{os.fspath(source)}: expected x_train and y_train, found {', '.join(sorted(names))}")
        for split in splits:
            labels = _labels(source, archive, f"y_{split}")
            for number, frames in enumerate(_recordings(source, archive, f"x_{split}", len(labels))):
                label = int(labels[number])
                if class_names is not None and label >= len(class_names):
                    raise ValueError(
                        f"{os.fspath(source)}: y_{split} has the label {label}, but there are {len(class_names)} names"
                    )
                body = _people(source, frames, skeleton.num_joints, skeleton.dimensions)
                name = f"{split}/{number:06d}.npy"
                path = Path(output, name)
                with written_whole(path) as unfinished, open(unfinished, "wb") as file:
                    np.save(file, body)
                rows.append(
                    {
                        "file_name": name,
                        "label": str(label + 1) if class_names is None else class_names[label],
                        "split": split,
                    }
                )
        text = io.StringIO()
        writer = csv.DictWriter(text, ("file_name", "label", "split"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        settings = {"layout": layout, "fps": fps} | ({} if class_names is None else {"class_names": class_names})
        write_atomically(Path(output, METADATA), text.getvalue())
        write_atomically(Path(output, SKELETON), json.dumps(settings, indent=1) + "\n")
    return {split: sum(row["split"] == split for row in rows) for split in splits}


def _people(source: str | os.PathLike, frames: np.ndarray, joints: int, dimensions: int) -> np.ndarray:
    """Joints (T, P, J, C) of a recording (T, P * J * C), without the zeros at the end."""
    if not frames.shape[1] or frames.shape[1] % (joints * dimensions):
        actual = f"{frames.shape[1]} numbers per frame"
        raise ValueError(
            f"{os.fspath(source)}: expected a multiple of {joints} joints of {dimensions} numbers, found {actual}"
        )
    present = frames.any(1).nonzero()[0]
    frames = frames[: present[-1] + 1 if len(present) else 1]
    people = frames.reshape(len(frames), -1, joints, dimensions)
    return people[:, people.any((0, 2, 3))] if people.any() else people[:, :1]


@contextlib.contextmanager
def _opened(source: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """The archive in a `.npz` file. Damage that is found in the block raises `ValueError`, too."""
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"{os.fspath(source)}: expected a complete .npz file, found another format or damage ({error}): copy the file again"
        ) from error


@contextlib.contextmanager
def _array(
    source: str | os.PathLike, archive: zipfile.ZipFile, name: str
) -> Iterator[tuple[BinaryIO, tuple[int, ...], np.dtype]]:
    """An array of the archive: the file at its first number, the shape, and the type of its numbers."""
    from action_llm.array_files import read_npy_header

    member = archive.getinfo(f"{name}.npy")
    # Other methods of compression are unpacked without a limit.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"{os.fspath(source)}: {name} is encrypted, or compressed in a way that NumPy does not write")
    with archive.open(member) as file:
        header = io.BytesIO(file.read(HEADER_BYTES))
        try:
            shape, by_column, dtype = read_npy_header(header)
        except ValueError as error:
            raise ValueError(f"{os.fspath(source)}: {name} is not an array of NumPy ({error})") from error
        if dtype.kind not in "fiu" or (by_column and len(shape) > 1):
            raise ValueError(f"{os.fspath(source)}: {name}: expected numbers in rows, found {dtype}")
        if min(shape, default=0) < 1:
            raise ValueError(f"{os.fspath(source)}: {name}: expected a shape of positive sizes, found {shape}")
        file.seek(header.tell())
        yield file, shape, dtype


def _read(source: str | os.PathLike, name: str, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The next numbers of the array `name`."""
    from action_llm.size_limits import MAX_BYTES

    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise ValueError(
            f"{os.fspath(source)}: {name}: expected at most {MAX_BYTES >> 20} MiB at a time, found {dtype} {shape}, "
            f"{size / 2**20:,.0f} MiB: cut the recordings into shorter ones"
        )
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f"{os.fspath(source)}: {name} ends early: copy the file again")
    return np.frombuffer(data, dtype).reshape(shape)


def _labels(source: str | os.PathLike, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with _array(source, archive, name) as (file, shape, dtype):
        if len(shape) not in (1, 2):
            raise ValueError(
                f"{os.fspath(source)}: expected {name} (recordings,) or (recordings, classes), found {shape}"
            )
        labels = _read(source, name, file, shape, dtype)
    labels = labels.argmax(1) if labels.ndim == 2 else labels
    if (labels < 0).any() or (labels != np.rint(labels)).any():
        raise ValueError(f"{os.fspath(source)}: {name} has labels that are not whole numbers from 0 on")
    return labels.astype(np.int64)


def _recordings(source: str | os.PathLike, archive: zipfile.ZipFile, name: str, count: int) -> Iterator[np.ndarray]:
    """The recordings (T, numbers) of an array, one at a time."""
    with _array(source, archive, name) as (file, shape, dtype):
        if len(shape) != 3 or shape[0] != count:
            raise ValueError(
                f"{os.fspath(source)}: expected {name} ({count}, frames, numbers), as there are labels, found {shape}"
            )
        for _ in range(count):
            yield _read(source, name, file, shape[1:], dtype)


def main() -> None:
    parser = command_parser("Writes the folder format from a data set of CTR-GCN (.npz).")
    parser.add_argument("source", help=".npz file with x_train, y_train, x_test and y_test")
    parser.add_argument("output", help="folder to write")
    parser.add_argument("--layout", default="kinect25", help="joint layout (default: kinect25)")
    parser.add_argument("--fps", type=float, default=30.0, help="frames per second (default: 30)")
    parser.add_argument("--class_names", help="file with one class name per line, in the order of the labels")
    arguments = parse_arguments(parser)
    with ending_well(parser.prog):
        names = None
        if arguments.class_names is not None:
            lines = Path(arguments.class_names).read_text(encoding="utf-8").splitlines()
            names = [line.strip() for line in lines if line.strip()]
        counts = unpack(arguments.source, arguments.output, arguments.layout, arguments.fps, names)
    print(", ".join(f"{count} {split}" for split, count in counts.items()))


if __name__ == "__main__":
    main()
