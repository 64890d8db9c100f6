"""A data set of CTR-GCN in one file becomes a folder of recordings."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from skeleton_people import person

from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.unpack import unpack


def ctr_gcn(path, one_hot=True, frames=40):
    """Recordings of one and two people, padded with zeros: (N, frames, 2 * 25 * 3)."""
    bodies = [
        np.stack([person(20 + n, seed=n), person(20 + n, seed=n + 9, place=(2, 0, 3)) * (n % 2)], 1) for n in range(5)
    ]
    padded = np.zeros((5, frames, 150), np.float32)
    for number, body in enumerate(bodies):
        padded[number, : len(body)] = body.reshape(len(body), -1)
    labels = np.array([0, 1, 2, 1, 0])
    labels = np.eye(3)[labels] if one_hot else labels
    np.savez(path, x_train=padded[:3], y_train=labels[:3], x_test=padded[3:], y_test=labels[3:])
    return bodies


@pytest.mark.parametrize("one_hot", [True, False])
def test_recordings_are_those_of_the_arrays(tmp_path, one_hot):
    bodies = ctr_gcn(tmp_path / "set.npz", one_hot)
    names = ["wave", "sit down", "fall"]
    assert unpack(tmp_path / "set.npz", tmp_path / "out", class_names=names) == {"train": 3, "test": 2}
    splits = load_action_dataset("folder", tmp_path / "out", cache_dir=tmp_path / "cache")
    rows = [row for split in ("train", "test") for row in splits[split]]
    assert [names[row["label"]] for row in rows] == ["wave", "sit down", "fall", "sit down", "wave"]
    for number, (row, body) in enumerate(zip(rows, bodies, strict=True)):
        joints = np.reshape(row["keypoints"], row["shape"])
        np.testing.assert_array_equal(joints, body[:, : 1 + number % 2])
    unpack(tmp_path / "set.npz", tmp_path / "numbers")
    assert (tmp_path / "numbers" / "metadata.csv").read_text().splitlines()[1] == "train/000000.npy,1,train"


def test_errors(tmp_path):
    path = tmp_path / "set.npz"
    ctr_gcn(path)
    with pytest.raises(ValueError, match="y_train has the label 2, but there are 2 names"):
        unpack(path, tmp_path / "out", class_names=["a", "b"])
    with pytest.raises(ValueError, match="expected a multiple of 17 joints of 2 numbers, found 150 numbers per frame"):
        unpack(path, tmp_path / "out", layout="coco17")
    np.savez(path, keypoints=np.zeros((3, 25, 3)))
    with pytest.raises(ValueError, match="expected x_train and y_train, found keypoints"):
        unpack(path, tmp_path / "out")
    np.savez(path, x_train=np.zeros((3, 5, 150)), y_train=np.zeros(4))
    with pytest.raises(
        ValueError, match=r"expected x_train \(4, frames, numbers\), as there are labels, found \(3, 5, 150\)"
    ):
        unpack(path, tmp_path / "out")
    np.savez(path, x_train=np.zeros((3, 5, 150)), y_train=np.array([{}], object))
    with pytest.raises(ValueError, match=r"set\.npz: y_train is not an array of NumPy \(a pickled object"):
        unpack(path, tmp_path / "out")


def archive_of(path, compression=zipfile.ZIP_STORED, **arrays):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
    return path


def header(shape, data=b""):
    """The bytes of a float64 array of that shape, whatever `data` has."""
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"shape": shape, "fortran_order": False, "descr": "<f8"})
    return file.getvalue() + data


def test_damaged_and_hostile_files(tmp_path):
    path = tmp_path / "set.npz"
    ctr_gcn(path)
    whole = path.read_bytes()
    two = header((2,), bytes(16))
    hostile = {
        "expected a complete .npz file, found another format": b"no archive at all",
        "found another format or damage": whole[: len(whole) // 2],
        "Bad CRC-32": whole.replace(bytes(64), bytes(63) + b"1", 1),
    }
    for message, data in hostile.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            unpack(path, tmp_path / "out")
    arrays = {
        r"x_train: expected at most 512 MiB at a time, found float64 \(1000000, 150\), 1,144 MiB: cut": {
            "x_train": header((2, 1_000_000, 150)), "y_train": two
        },
        "y_train: expected at most 512 MiB": {"x_train": two, "y_train": header((1 << 20, 100))},
        "y_train: expected a shape of positive sizes, found": {"x_train": two, "y_train": header((-3,))},
        "x_train ends early": {"x_train": header((2, 4, 150), bytes(99)), "y_train": two},
        "y_train ends early": {"x_train": two, "y_train": header((2,), bytes(9))},
        "y_train is not an array of NumPy": {"x_train": two, "y_train": b"\x93NUMPY\2\0" + b"\xff\xff\xff\x7f"},
        "x_train is not an array of NumPy": {"x_train": b"text", "y_train": two},
    }  # fmt: skip
    for message, members in arrays.items():
        with pytest.raises(ValueError, match=message):
            unpack(archive_of(path, **members), tmp_path / "out")
    with pytest.raises(ValueError, match="y_train is encrypted, or compressed in a way"):
        unpack(archive_of(path, zipfile.ZIP_LZMA, x_train=two, y_train=two), tmp_path / "out")
    # A long header is not unpacked.
    long = b"\x93NUMPY\2\0" + (1 << 26).to_bytes(4, "little") + bytes(1 << 26)
    archive_of(path, zipfile.ZIP_DEFLATED, x_train=two, y_train=long)
    del long
    tracemalloc.start()
    with pytest.raises(ValueError, match="y_train is not an array of NumPy"):
        unpack(path, tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
