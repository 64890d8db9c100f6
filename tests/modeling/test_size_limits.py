"""Recordings that say, or unpack to, more than a recording can be: refused before memory is asked for."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from fresh_python import python
from skeleton_people import person, recording, row, skeleton_text, smarthome_text

from action_llm import skeleton_files
from action_llm.array_files import read_joint_array, recording_from_array
from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor, SkeletonInputError
from action_llm.recording_files import read_recording
from action_llm.size_limits import MAX_BYTES, read_bounded
from action_llm.skeleton_files import SkeletonFileError, read_skeleton
from action_llm.smarthome_files import read_smarthome

MIB = 1 << 20


@pytest.fixture
def little_memory():
    """Fails a test that asks for more than 32 MiB at a time."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * MIB


def npy(shape, dtype="<f4", content=b"\0" * 300):
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + content


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (npy((10**9, 25, 3)), r"300 bytes of numbers, where the shape .* needs 300,000,000,000"),
        (npy((2**32, 2**32, 3)), "300 bytes of numbers"),
        (npy((-1, 25, 3)), "300 bytes of numbers"),
        (npy((10**9, 25, 3), "|V0"), "300 bytes of numbers"),
        (npy((4, 25, 3), "|O"), "a pickled object"),
        (npy("(" * 90), "a NumPy file of numbers, found "),
    ],
)
def test_headers_of_arrays(tmp_path, content, found, little_memory):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(SkeletonFileError, match=found):
        read_joint_array(tmp_path / "a.npy", layout="kinect25")


def skeleton_of_many_bodies():
    """256 bodies in the first frame, and empty frames: a megabyte for 28.6 GiB."""
    line = " ".join(["0"] * 12) + "\n"
    bodies = "".join(f"{number} 0 0 0 0 0 0 0 0 0\n25\n" + 25 * line for number in range(256))
    return f"400001\n256\n{bodies}".encode() + b"0\n" * 400_000


def test_bodies_times_frames(tmp_path, little_memory):
    (tmp_path / "a.skeleton").write_bytes(skeleton_of_many_bodies())
    expected = (
        r"at most 22,369,621 joints in all: cut the recording .*, found 400,001 frames of 256 people with 25 joints"
    )
    with pytest.raises(SkeletonFileError, match=expected):
        read_skeleton(tmp_path / "a.skeleton")


def test_detections_times_frames(tmp_path, little_memory):
    (tmp_path / "a.json").write_bytes(smarthome_text((300,) + (0,) * 5))
    with pytest.raises(
        SkeletonFileError, match="expected at most 256: keep only the people who act, found 300 bodies"
    ):
        read_smarthome(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["keypoints", "fps"])
def test_members_that_unpack_to_more(tmp_path, name):
    """Half a megabyte of zeros; the sizes in the archive's directory are not asked."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(npy((10**6, 25, 3), content=b""))
            for _ in range(MAX_BYTES // MIB):
                member.write(bytes(MIB))
        if name != "keypoints":
            archive.writestr("keypoints.npy", npy((1, 25, 3)))
    with pytest.raises(
        SkeletonFileError, match=rf"at most 512 MiB: cut the .*, found {name}\.npy of more than 512 MiB"
    ):
        read_joint_array(path, layout="kinect25")


def test_members_whose_compression_has_no_limit(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("keypoints.npy", npy((1, 25, 3)))
    with pytest.raises(SkeletonFileError, match="compressed in a way that NumPy does not write"):
        read_joint_array(tmp_path / "a.npz", layout="kinect25")


def test_streams_are_read_as_far_as_the_limit():
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return bytes(size)

    assert read_bounded(Endless(), 3 * MIB) is None
    assert read_bounded(io.BytesIO(b"abc"), 3) == b"abc" and read_bounded(io.BytesIO(b"abcd"), 3) is None


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"frames":' * 100_000,
        b'{"frames": [[{"pose3d": [' + b"9" * 10_000 + b"]}]]}",
        b"[" + b"9" * 10_000,
    ],
)
def test_deep_json_and_long_integers(tmp_path, text, little_memory):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(SkeletonFileError, match=r"a\.json"):
        read_recording(tmp_path / "a.json", layout="lcrnet13")


def test_json_of_too_many_lists(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"njts": 13, "frames": [' + b"[]," * 3_000_001 + b"[]]}")
    with pytest.raises(SkeletonFileError, match=r"at most 5,000,000 and 1,500,000: cut the recording"):
        read_recording(tmp_path / "a.json", layout="lcrnet13")


def test_people_who_would_take_minutes_to_follow():
    keypoints = np.ones((300, 250, 25, 3), np.int8)
    expected = (
        "expected at most 128 frames of so many people: keep only the people who act, found 250 people in 300 frames"
    )
    with pytest.raises(SkeletonFileError, match=expected):
        recording_from_array(keypoints, layout="kinect25", fps=30)


@pytest.mark.parametrize("fps", [0.001, 1e-300, 1e300, float("nan"), -30.0, 0, 501, 10**400])
def test_rates_that_no_camera_has(tmp_path, fps):
    """Of a file, of a row, of the call."""
    body, extractor = person(9), SkeletonFeatureExtractor()
    refused = pytest.raises((SkeletonFileError, SkeletonInputError), match=r"from 1 to 500|fps 1000")
    if fps != 10**400:
        np.savez(tmp_path / "a.npz", keypoints=body, fps=fps)
        with refused:
            extractor(tmp_path / "a.npz")
        with refused:
            extractor({**row(recording([(0, body)])), "fps": fps})
        with refused:
            extractor(recording([(0, body)]), fps=fps)
    with refused:
        extractor(body, fps=fps)
    (tmp_path / "a.skeleton").write_text(skeleton_text([[]]))
    with refused:
        read_skeleton(tmp_path / "a.skeleton", fps=fps)


def test_features_are_bounded():
    """By a rate of the features, a length and a multiple that settings may say, times people and joints."""
    for settings in ({"fps": 1e300}, {"length": 10**9}, {"frame_multiple": 10**9}, {"num_persons": 10**6}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected"):
            SkeletonFeatureExtractor(**settings)
    with pytest.raises(
        SkeletonInputError,
        match="or set max_frames, found 1,000,000 frames of features at 500",
    ):
        SkeletonFeatureExtractor(fps=500)(person(2000), fps=1)
    assert SkeletonFeatureExtractor(fps=500, max_frames=8)(person(2000), fps=1)["input_features"].shape[1] == 8


def test_long_text_is_read_in_blocks_of_frames(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    poses = generator.normal(size=(60, 25, 12)).round(4)
    poses[..., 11] = 2
    keep = ("color_pixels", "tracking_state")
    for end in ("\n", "\r\n"):
        frames = [[(body, poses[frame].tolist()) for body in range(frame % 3)] for frame in range(60)]
        frames = [[(body, [[*row[:11], 2] for row in pose]) for body, pose in frame] for frame in frames]
        data = skeleton_text(frames, end).encode()
        whole = skeleton_files._scan_columns(data, 25, keep)
        lines = skeleton_files._read_lines(tmp_path, data, 25, "kinect25", keep)
        for size in (9_000, 20_000, len(data) - 1):
            monkeypatch.setattr(skeleton_files, "BLOCK_BYTES", size)
            blocks = skeleton_files._scan_columns(data, 25, keep)
            for other in (blocks, lines):
                assert np.array_equal(whole[0], other[0]) and np.array_equal(whole[1], other[1])
                for name, values in whole[2].items():
                    assert np.array_equal(values.astype(np.float32), other[2][name].astype(np.float32))
            assert skeleton_files._scan_columns(data.replace(b"60", b"61", 1), 25, keep) is None
            assert skeleton_files._scan_columns(data[:-500], 25, keep) is None
            monkeypatch.undo()


@pytest.mark.real_data
def test_no_fault_takes_two_gigabytes(real_data, tmp_path):
    """In one process, with torch: every fault of the cases is refused below 2 GB."""
    script = tmp_path / "read.py"
    script.write_text(
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    if path.suffix in ('.mat', '.npy', '.npz', '.skeleton') or path.name == 'blow_smarthome.json':\n"
        "        for layout in ('kinect20', 'kinect25', 'lcrnet13'):\n"
        "            try:\n"
        "                SkeletonFeatureExtractor(layout)(path)\n"
        "            except ValueError as error:\n"
        "                assert path.name in str(error), error\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = python(script, real_data / "cases/faults", timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 2e9
