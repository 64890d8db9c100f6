"""Whatever happened to a file of recorded skeletons, reading it ends in numbers or in SkeletonFileError."""

import random
from pathlib import Path

import numpy as np
import pytest
from skeleton_people import nw_ucla_text, person, sbu_text, skeleton_text, smarthome_text, uav_human_text

from action_llm.nw_ucla_files import read_nw_ucla
from action_llm.sbu_files import read_sbu
from action_llm.skeleton_files import SkeletonFileError, read_skeleton
from action_llm.smarthome_files import _read_json, _scan_lists, read_smarthome


def _kinect_text():
    bodies = [[[*row, *[0] * 8, 2] for row in pose.tolist()] for pose in person(4)]
    return skeleton_text([[(72057594037932358, body)] for body in bodies[:3]] + [[], [(7, bodies[3])]])


FORMATS = {
    ".skeleton": (_kinect_text().encode(), 25, read_skeleton),
    ".txt": (uav_human_text((1, 0, 2, 1)).encode(), 17, lambda path: read_skeleton(path, layout="coco17")),
    ".json": (smarthome_text((1, 0, 2, 1)), 13, read_smarthome),
    "_nw_ucla.json": (nw_ucla_text(person(4, "kinect20-sdk").round(3)), 20, read_nw_ucla),
    "_sbu.txt": (sbu_text(np.stack([person(4, "sbu15"), person(4, "sbu15", seed=1)], axis=1)).encode(), 15, read_sbu),
}
# What stands where it should not: parts of numbers and of JSON, other line ends, other encodings.
SCRAPS = (
    b"", b" ", b"\n", b"\r\n", b"\r", b"\t", b"\0", b"\xff", b"-", b"-1", b".", b"e", b"e9", b"E+5", b"0", b"00", b"9" * 20,
    b"nan", b"NaN", b"inf", b"Infinity", b"1_0", b"0x1f", b",", b", ", b"[", b"]", b"[]", b"[0]", b"[[", b"{", b"}", b"{}",
    b":", b'"', b"\\", b'"pose3d": [1]', b'"njts": 25, ', b"null", b"true", b"\xef\xbb\xbf", b"\xc3",
)  # fmt: skip


def damage(text: bytes, generator: random.Random) -> bytes:
    """A few places of a file lost, doubled, swapped, cut off or overwritten."""
    for _ in range(generator.choice((1, 1, 2, 5))):
        start = generator.randrange(len(text) + 1)
        stop = min(len(text), start + int(generator.paretovariate(0.5)) - 1)
        part = text[start:stop]
        match generator.randrange(6):
            case 0 | 1:
                part = generator.choice(SCRAPS)
            case 2:
                part = bytes(byte ^ (1 << generator.randrange(8)) for byte in part[:3]) + part[3:]
            case 3:
                part = part * 2
            case 4:
                part = part[::-1]
            case 5:
                return text[:start] if generator.random() < 0.5 else text[stop:]
        text = text[:start] + part + text[stop:]
    return text


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_files_are_data_or_errors(tmp_path, suffix):
    """A thousand; `mutations` damages these formats in other ways."""
    text, num_joints, read = FORMATS[suffix]
    generator = random.Random(suffix)
    path = tmp_path / f"damaged{suffix}"
    whole = 0
    for _ in range(1000):
        damaged = damage(text, generator)
        path.write_bytes(damaged)
        try:
            recording = read(path)
        except SkeletonFileError as error:
            assert error.path == str(path) and str(error)
            continue
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} from {damaged!r}") from error
        whole += 1
        frames, bodies = recording.present.shape
        assert recording.keypoints.shape == (frames, bodies, num_joints, 3)
        assert len(recording.body_ids) == bodies and not recording.keypoints[~recording.present].any()
        assert recording.keypoints.dtype == np.float32
    assert 0 < whole < 1000


def test_damaged_json_is_never_read_two_ways():
    """What the fast way accepts, `json` reads the same; what `json` refuses, the fast way left alone."""
    generator, text = random.Random(1), smarthome_text((1, 0, 2))
    fast = 0
    for _ in range(500):
        damaged = damage(text, generator)
        scanned = _scan_lists(Path("x"), damaged, "pose3d", 39)
        try:
            read = _read_json(Path("x"), damaged, "pose3d", 39)
        except SkeletonFileError as error:
            assert scanned is None, error
            continue
        if scanned is not None:
            fast += 1
            for one, other in zip(scanned, read, strict=True):
                np.testing.assert_array_equal(one, other)
    assert fast
