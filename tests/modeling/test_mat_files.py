"""The reader of MATLAB files against SciPy's: the same bits of whole files, and the error of damaged ones."""

import io
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.io import loadmat, savemat

from action_llm.mat_files import MatFileError, read_mat_array
from action_llm.recording_files import read_recording
from action_llm.skeleton_files import SkeletonFileError

TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15}
NUMBERS = st.sampled_from(sorted(TYPES)).flatmap(
    lambda name: arrays(name, array_shapes(min_dims=2, max_dims=4, max_side=5))
)


def saved(variables, **options):
    file = io.BytesIO()
    savemat(file, variables, **options)
    return file.getvalue()


def element(order, number_type, content):
    """An element, in the tag itself where it has at most 4 bytes."""
    if len(content) <= 4:
        return struct.pack(order + "I", len(content) << 16 | number_type) + content.ljust(4, b"\0")
    return struct.pack(order + "II", number_type, len(content)) + content + b"\0" * (-len(content) % 8)


def variable(order, name, array):
    """A variable in either byte order, which SciPy writes in that of the machine only."""
    content = array.astype(array.dtype.newbyteorder(order)).tobytes("F")
    parts = (
        (6, struct.pack(order + "II", CLASSES[array.dtype.str[1:]], 0)),
        (5, struct.pack(f"{order}{array.ndim}i", *array.shape)),
        (1, name.encode()),
        (TYPES[array.dtype.str[1:]], content),
    )
    body = b"".join(element(order, *part) for part in parts)
    return struct.pack(order + "II", 14, len(body)) + body


def header(order):
    return b"MATLAB 5.0 MAT-file".ljust(124) + (b"\0\1IM" if order == "<" else b"\1\0MI")


def assert_as_scipy(content, name):
    expected, actual = loadmat(io.BytesIO(content))[name], read_mat_array(content, name)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


@given(NUMBERS, st.booleans())
def test_what_scipy_writes_is_read_as_scipy_reads_it(array, compressed):
    others = {"text": "abc", "first": np.arange(3.0), "zz": {"a": 1}}
    assert_as_scipy(saved({**others, "d_skel": array, "last": np.eye(2)}, do_compression=compressed), "d_skel")


@given(NUMBERS, st.sampled_from("<>"), st.booleans())
def test_both_byte_orders(array, order, compressed):
    content = variable(order, "d_skel", array)
    if compressed:
        packed = zlib.compress(content)
        content = struct.pack(order + "II", 15, len(packed)) + packed
    assert_as_scipy(header(order) + content + variable(order, "other", np.eye(3)), "d_skel")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array([1, "a"], object), "d_skel, a cell array"),
        ({"a": 1}, "d_skel, a struct"),
        ("text", "d_skel, text"),
        (np.ones((2, 2)) * 1j, "d_skel, complex numbers"),
    ],
)
def test_what_is_no_array_of_numbers(value, found, compressed):
    with pytest.raises(MatFileError) as caught:
        read_mat_array(saved({"d_skel": value}, do_compression=compressed), "d_skel")
    assert caught.value.actual == found and caught.value.expected == "d_skel as an array of real numbers"


def test_sparse_arrays_other_versions_and_variables():
    from scipy.sparse import eye

    array = np.ones((20, 3, 4))
    for content, found in (
        (saved({"d_skel": eye(4)}), "d_skel, a sparse array"),
        (saved({"d_skel": np.eye(4)}, format="4"), r"a MATLAB 4 file"),
        (header("<").replace(b"\0\1IM", b"\0\2IM") + b"\0" * 600, r"a MATLAB 7\.3 file \(HDF5\)"),
        (
            b"\x89HDF\r\n\x1a\n" + b"\0" * 600,
            r"expected a MATLAB file of version 5 to 7 \(save it with the option -v7\)",
        ),
        (saved({"other": array}), r"expected the variable d_skel, found the variables \['other'\]"),
        (header("<") + 2 * variable("<", "d_skel", array), "the variable d_skel twice"),
        (header("<"), r"the variables \[\]"),
        (b"", "expected a .mat file, found 0 bytes"),
    ):
        with pytest.raises(MatFileError, match=found):
            read_mat_array(content, "d_skel")


def test_a_file_of_very_many_variables_is_refused_at_once():
    content = saved({f"v{number}": np.zeros(1) for number in range(1001)})
    with pytest.raises(MatFileError, match="more than 1000 variables"):
        read_mat_array(content, "d_skel")
    with pytest.raises(MatFileError) as caught:
        read_mat_array(saved({f"v{number}": np.zeros(1) for number in range(900)}), "d_skel")
    assert len(str(caught.value)) < 300


def test_sizes_that_are_not_there_are_never_allocated():
    """A variable that says to unpack to gigabytes, does so without saying it, or has a shape beyond its bytes."""
    whole = variable("<", "d_skel", np.ones((20, 3, 4)))
    zeros = zlib.compress(whole + b"\0" * (64 << 20), 9)
    lying = zlib.compress(struct.pack("<II", 14, 0xFFFFFFF0) + whole[8:], 9)
    shape = whole.replace(struct.pack("<3i", 20, 3, 4), struct.pack("<3i", 2**31 - 1, 2**31 - 1, 2**31 - 1))
    tracemalloc.start()
    try:
        for content in (
            *(struct.pack("<II", 15, len(packed)) + packed for packed in (zeros, lying)),
            shape,
            struct.pack("<II", 14, 0xFFFFFFFF) + whole[8:],
        ):
            with pytest.raises(MatFileError):
                read_mat_array(header("<") + content, "d_skel")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def mutated(content, generator):
    content = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 6))):
        place = generator.randrange(len(content)) if generator.random() < 0.5 else generator.randrange(100, 240)
        match generator.randrange(4):
            case 0:
                content[place] = generator.randrange(256)
            case 1:
                content[place : place + 4] = generator.choice((b"\xff" * 4, b"\0" * 4, b"\1\0\0\0", b"\0\0\0\x80"))
            case 2:
                del content[place : place + generator.randrange(1, 200)]
            case 3:
                content[place:place] = content[place : place + generator.randrange(1, 40)]
    return bytes(content)


@pytest.mark.parametrize("compressed", [False, True])
def test_600_mutated_files_are_data_or_errors(tmp_path, compressed):
    """`loadmat` ended the process at 13 of as many uncompressed ones."""
    content = saved({"d_skel": np.random.default_rng(0).normal(size=(20, 3, 40))}, do_compression=compressed)
    generator, path, whole = random.Random(compressed), tmp_path / "a.mat", 0
    for _ in range(600):
        path.write_bytes(mutated(content, generator))
        try:
            whole += read_recording(path, layout="kinect20").keypoints.shape[1:] == (1, 20, 3)
        except SkeletonFileError as error:
            assert str(path) in str(error)
    assert 0 < whole < 600


@pytest.mark.real_data
def test_files_that_ended_the_process(real_data):
    paths = sorted((real_data / "cases/faults").glob("*.mat"))
    assert paths
    for path in paths:
        with pytest.raises(
            SkeletonFileError, match=r"expected a complete \.mat file \(copy it again\), found an element of"
        ):
            read_recording(path, layout="kinect20")


@pytest.mark.real_data
def test_recorded_files_are_read_as_scipy_reads_them(real_data):
    for path in sorted((real_data / "utd_mhad/skeleton").glob("*.mat"))[::40]:
        assert_as_scipy(path.read_bytes(), "d_skel")
