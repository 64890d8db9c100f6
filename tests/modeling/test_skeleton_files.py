"""The readers of recorded skeletons, against a reader that goes line by line and calls float()."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from skeleton_people import skeleton_text, uav_human_text

from action_llm import skeleton_files
from action_llm.skeleton_files import SkeletonFileError, read_skeleton, read_utd_mhad

KINECT_ID = 72057594037932358  # near 2^56, where float64 steps by 16


def body(body_id=KINECT_ID, joints=17, start=0.0):
    """A body whose tokens are all different."""
    return body_id, [[f"{start + 12 * j + c:.7g}" for c in range(11)] + [j % 3] for j in range(joints)]


def naive_reader(path):
    """{body id: {frame: float32 (J, 3)}} and the number of frames, the plain way."""
    with open(path) as file:
        bodies, num_frames = {}, int(file.readline())
        for frame in range(num_frames):
            for _ in range(int(file.readline())):
                body_id = int(file.readline().split()[0])
                rows = [[float(token) for token in file.readline().split()[:3]] for _ in range(int(file.readline()))]
                with np.errstate(over="ignore"):
                    bodies.setdefault(body_id, {})[frame] = np.array(rows, np.float64).astype(np.float32)
    return bodies, num_frames


def assert_equals_naive(path, layout):
    recording = read_skeleton(path, layout=layout)
    bodies, num_frames = naive_reader(path)
    assert recording.keypoints.shape[:2] == (num_frames, len(bodies)) == recording.present.shape
    assert recording.body_ids.tolist() == list(bodies)  # both in order of first appearance
    expected = np.zeros_like(recording.keypoints)
    for slot, frames in enumerate(bodies.values()):
        assert recording.present[:, slot].nonzero()[0].tolist() == list(frames)
        for frame, keypoints in frames.items():
            expected[frame, slot] = keypoints
    np.testing.assert_array_equal(recording.keypoints.view(np.int32), expected.view(np.int32))
    return recording


EVERYTHING = sorted(skeleton_files.JOINT_EXTRAS)


def assert_same_bodies(scanned, read):
    """What the fast way and the careful one return."""
    for fast, slow in zip(scanned[:-1], read[:-1], strict=True):
        np.testing.assert_array_equal(fast, slow)
    assert set(scanned[-1]) == set(read[-1])
    for name, fast in scanned[-1].items():
        np.testing.assert_array_equal(fast, read[-1][name])


numbers = st.one_of(
    st.floats(width=32).map(repr),
    st.floats().map(repr),
    st.floats(-10, 10).map(lambda value: f"{value:.7g}"),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["NaN", "nan", "-inf", "1.5E-05", "0", "-0", "5.", ".5", "+1"]),
)
body_ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(KINECT_ID, KINECT_ID + 15), st.integers(0, 3))
rows = st.tuples(*[numbers] * 3).map(lambda row: [*row, *[0] * 9])
bodies = st.tuples(body_ids, st.lists(rows, min_size=13, max_size=13))
recordings = st.lists(st.lists(bodies, max_size=3, unique_by=lambda one: one[0]), max_size=4)


@settings(max_examples=60, deadline=None)
@given(frames=recordings, end=st.sampled_from(["\n", "\r\n"]))
def test_reads_what_a_naive_reader_reads(tmp_path_factory, frames, end):
    path = tmp_path_factory.getbasetemp() / "property.skeleton"
    path.write_bytes(skeleton_text(frames, end).encode())
    assert_equals_naive(path, "lcrnet13")


@settings(max_examples=60, deadline=None)
@given(frames=recordings, keep=st.sets(st.sampled_from(EVERYTHING)))
def test_both_ways_of_reading_agree(frames, keep):
    text = skeleton_text(frames).encode()
    scanned = skeleton_files._scan_columns(text, 13, keep)
    assert set(scanned[-1]) == {"keypoints", *keep}
    assert_same_bodies(scanned, skeleton_files._read_lines(Path("x"), text, 13, "lcrnet13", keep))


FRAMES = [[body()], [], [body(), body(7, start=300.5)], [body(7, start=0.25)]]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace("\n", " \n"),
        lambda text: text.replace("\n", "\r\n", 30),
        lambda text: text.replace("\n", "\r\n").replace("\r\n", "\n", 30),
        lambda text: text.rstrip(),
        lambda text: text.replace("\n", "\r\n").rstrip(),
        lambda text: text + "\n\n \n",
        lambda text: text.replace("\n", "\r\n") + "\r\n\r\n",
        lambda text: (
            "\ufeff" + text
        ),  # a byte order mark before a plain file, and before one that is read line by line
        lambda text: "\ufeff" + text.replace(" ", "  "),
    ],
)
def test_blanks_and_line_ends_do_not_matter(tmp_path, change):
    path = tmp_path / "a.skeleton"
    path.write_text(skeleton_text(FRAMES))
    expected = read_skeleton(path, layout="coco17")
    changed = change(skeleton_text(FRAMES))
    assert changed != skeleton_text(FRAMES)
    path.write_bytes(changed.encode())
    recording = read_skeleton(path, layout="coco17")
    np.testing.assert_array_equal(recording.keypoints, expected.keypoints)
    np.testing.assert_array_equal(recording.present, [[1, 0], [0, 0], [1, 1], [0, 1]])
    assert recording.body_ids.tolist() == [KINECT_ID, 7]
    assert recording.body_ids.dtype == np.int64
    assert (recording.layout, recording.fps, recording.source) == ("coco17", 30.0, "a.skeleton")
    assert recording.tracking_state is None


def test_plain_files_take_the_fast_way():
    for end in ("\n", "\r\n"):
        assert skeleton_files._scan_columns(skeleton_text(FRAMES, end).encode(), 17, ["tracking_state"]) is not None


def test_ids_that_no_float_tells_apart_stay_apart(tmp_path):
    ids = [2**53, 2**53 + 1, KINECT_ID, KINECT_ID + 1, -5, -(2**63), 2**63 - 1]
    assert len({float(body_id) for body_id in ids}) < len(ids)
    path = tmp_path / "ids.skeleton"
    for end in ("\n", " \n"):  # the fast way and the other
        path.write_text(skeleton_text([[body(body_id, start=index) for index, body_id in enumerate(ids)]] * 2, end))
        recording = read_skeleton(path, layout="coco17")
        assert recording.body_ids.tolist() == ids
        assert recording.present.all()
        np.testing.assert_array_equal(recording.keypoints[1, :, 0, 0], np.arange(len(ids)))


def test_tracking_states(tmp_path):
    path = tmp_path / "a.skeleton"
    for end in ("\n", "\r\n", " \n"):
        path.write_bytes(skeleton_text(FRAMES, end).encode())
        recording = read_skeleton(path, layout="coco17", keep=["tracking_state"])
        assert recording.tracking_state.dtype == np.int8
        expected = recording.present[..., None] * (np.arange(17) % 3)
        np.testing.assert_array_equal(recording.tracking_state, expected)


def test_pixels_of_both_pictures(tmp_path):
    path = tmp_path / "a.skeleton"
    rows = [[*range(start, start + 11), 2] for start in range(17)]  # a column counts on from the one before
    for end in ("\n", "\r\n", " \n"):
        path.write_bytes(skeleton_text([[(5, rows)], []], end).encode())
        recording = read_skeleton(path, layout="coco17", keep=["color_pixels", "depth_pixels"])
        start = np.arange(17)
        assert recording.depth_pixels.shape == recording.color_pixels.shape == (2, 1, 17, 2)
        np.testing.assert_array_equal(recording.depth_pixels[0, 0], np.stack([start + 3, start + 4], 1))
        np.testing.assert_array_equal(recording.color_pixels[0, 0], np.stack([start + 5, start + 6], 1))
        assert not recording.color_pixels[1].any() and recording.tracking_state is None
    with pytest.raises(ValueError, match=r"keep: expected some of .*color_pixels.*; got 'colour'"):
        read_skeleton(path, layout="coco17", keep=["colour"])


def test_readable_extremes(tmp_path):
    path = tmp_path / "extreme.skeleton"
    path.write_text(skeleton_text([[]] * 5))
    empty = read_skeleton(path)
    assert empty.keypoints.shape == (5, 0, 25, 3)
    assert empty.present.shape == (5, 0)
    assert empty.body_ids.shape == (0,)
    path.write_text("0\n")
    assert read_skeleton(path).keypoints.shape == (0, 0, 25, 3)
    path.write_text(skeleton_text([[body()]]))
    assert read_skeleton(path, layout="coco17").keypoints.shape == (1, 1, 17, 3)
    path.write_text(skeleton_text([[body("003")]]))  # UAV-Human counts people so
    assert read_skeleton(path, layout="coco17").body_ids.tolist() == [3]


@pytest.mark.parametrize("token", ["NaN", "-nan(ind)", "nan"])
@pytest.mark.parametrize("end", ["\n", " \n"])
def test_nan_is_a_number(tmp_path, token, end):
    path = tmp_path / "nan.skeleton"
    one = body()
    one[1][4][1] = token
    path.write_text(skeleton_text([[one]], end))
    keypoints = read_skeleton(path, layout="coco17").keypoints
    assert np.isnan(keypoints[0, 0, 4, 1])
    assert np.isnan(keypoints).sum() == 1


TEXT = skeleton_text([[body()], [body(), body(7)]])  # lines: 1, frame 0 at 2 to 21, frame 1 at 22 to 60


def with_line(number, line, text=TEXT):
    lines = text.split("\n")
    lines[number - 1 : number] = [line] if isinstance(line, str) else line
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "line", "found", "expected"),
    [
        ("", 1, "the end of the file", "the number of frames"),
        (" \n\n", 1, "the end of the file", "the number of frames"),
        (b"\x89PNG\r\n\x1a\n", 1, "PNG", "the number of frames"),
        (with_line(1, "two"), 1, "'two'", "the number of frames"),
        (with_line(1, "-2"), 1, "-2", "the number of frames"),
        (with_line(1, "2 2"), 1, "2 columns", "1 columns"),
        (with_line(1, "3"), 61, "the end of the file", "the number of bodies in frame 2"),
        (with_line(1, "1"), 22, "'2'", "the end of the file after 1 frames"),
        (with_line(2, "x"), 2, "'x'", "the number of bodies in frame 0"),
        (with_line(2, "1.0"), 2, "'1.0'", "the number of bodies in frame 0"),
        (with_line(22, "1"), 42, "'7 0 1 1", "the end of the file after 2 frames"),
        (with_line(22, "3"), 61, "the end of the file", "a body of frame 1"),
        (with_line(22, str(KINECT_ID)), 61, "the end of the file", "a body of frame 1"),
        (f"2\n0\n{KINECT_ID}\n", 4, "the end of the file", "a body of frame 1"),
        (f"{KINECT_ID}\n1\n", 3, "the end of the file", "a body of frame 0"),
        (with_line(3, "1 2 3"), 3, "3 columns", "a body of frame 0 in 10 columns"),
        (with_line(3, "7e16 0 0 0 0 0 0 0 0 2"), 3, "'7e16'", "a body id"),
        (with_line(3, f"{2**63} 0 0 0 0 0 0 0 0 2"), 3, str(2**63), f"{2**63 - 1}"),
        (with_line(3, f"{-(2**63) - 1} 0 0 0 0 0 0 0 0 2"), 3, str(-(2**63) - 1), f"{-(2**63)}"),
        (with_line(42, f"{KINECT_ID} 0 0 0 0 0 0 0 0 2"), 42, str(KINECT_ID), "another body in frame 1"),
        (with_line(4, "25"), 4, "25 joints", "17 joints (layout coco17)"),
        (with_line(5, "1 2 3"), 5, "3 columns", "12 columns"),
        (with_line(5, " ".join("1" * 13)), 5, "13 columns", "12 columns"),
        (with_line(6, "0.1 0,2 0.3 1 1 1 1 0 0 0 0 2"), 6, "'0,2'", "a coordinate"),
        (with_line(6, "0.1 1_0 0.3 1 1 1 1 0 0 0 0 2"), 6, "'1_0'", "a coordinate"),
        (with_line(6, "0.1 -1.#IND 0.3 1 1 1 1 0 0 0 0 2"), 6, "'-1.#IND'", "a coordinate"),
        (with_line(30, []), 41, "10 columns", "12 columns"),
        (with_line(30, ["", ""]), 30, "0 columns", "12 columns"),
        (TEXT + "17\n", 61, "'17'", "the end of the file after 2 frames"),
        (TEXT + "\n\nend", 63, "'end'", "the end of the file"),
        (with_line(60, []), 60, "the end of the file", "a joint of body 7, frame 1"),
        (TEXT[:400], None, "", ""),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bad_files_name_their_line(tmp_path, text, line, found, expected, end):
    path = tmp_path / "bad.skeleton"
    path.write_bytes(text if isinstance(text, bytes) else text.replace("\n", end).encode())
    with pytest.raises(SkeletonFileError) as caught:
        read_skeleton(path, layout="coco17")
    error = caught.value
    assert error.path == str(path)
    assert line is None or error.line == line
    assert found in error.actual and expected in error.expected
    for part in (error.path, f"line {error.line}", error.actual, error.expected):
        assert part in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.line) == (str(error), error.line)


def test_bad_tracking_states_are_seen_when_asked_for(tmp_path):
    path = tmp_path / "bad.skeleton"
    for state in ("3", "-1", "x", "2.0"):
        path.write_text(with_line(6, f"0.1 0.2 0.3 1 1 1 1 0 0 0 0 {state}"))
        read_skeleton(path, layout="coco17")
        with pytest.raises(SkeletonFileError, match="line 6: expected a tracking state"):
            read_skeleton(path, layout="coco17", keep=["tracking_state"])


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, data):
    text = skeleton_text(FRAMES, data.draw(st.sampled_from(["\n", "\r\n"])))
    cut = data.draw(st.integers(0, len(text.rstrip()) - 1))
    path = tmp_path_factory.getbasetemp() / "cut.skeleton"
    path.write_bytes(text[:cut].encode())
    with pytest.raises(SkeletonFileError):
        read_skeleton(path, layout="coco17")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_line_lost_or_doubled_is_refused(tmp_path_factory, data):
    lines = skeleton_text(FRAMES).splitlines()
    line = data.draw(st.integers(0, len(lines) - 1))
    lines[line : line + 1] = data.draw(st.sampled_from([[], [lines[line]] * 2]))
    path = tmp_path_factory.getbasetemp() / "lines.skeleton"
    path.write_text("\n".join(lines))
    with pytest.raises(SkeletonFileError):
        read_skeleton(path, layout="coco17")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_never_read_two_ways(data):
    """What the fast way accepts, the careful one reads the same; what that refuses, the fast way left alone."""
    text = bytearray(skeleton_text(FRAMES, data.draw(st.sampled_from(["\n", "\r\n"]))).encode())
    # The counts and ids matter most, so damage falls on them half of the time.
    near = data.draw(
        st.sampled_from([0, 3, 5, text.find(b"17"), text.rfind(b"17"), data.draw(st.integers(0, len(text)))])
    )
    place = min(near + data.draw(st.integers(0, 3)), len(text))
    text[place : place + data.draw(st.integers(0, 2))] = data.draw(
        st.one_of(
            st.binary(max_size=2), st.sampled_from([b"1", b"0", b"-", b" ", b"\n", b"\r\n", b"\r", b"9" * 18, b"e9"])
        )
    )
    scanned = skeleton_files._scan_columns(bytes(text), 17, EVERYTHING)
    try:
        read = skeleton_files._read_lines(Path("x"), bytes(text), 17, "coco17", EVERYTHING)
    except SkeletonFileError as error:
        assert scanned is None, error
    else:
        if scanned is not None:
            assert_same_bodies(scanned, read)


def test_missing_files_and_layouts(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_skeleton(tmp_path / "none.skeleton")
    with pytest.raises(ValueError, match="kinect99"):
        read_skeleton(tmp_path / "none.skeleton", layout="kinect99")


@pytest.mark.real_data
def test_real_files(real_data):
    paths = sorted((real_data / "ntu_rgbd/skeletons").glob("*.skeleton"))
    assert len(paths) >= 9
    for path in paths:
        recording = assert_equals_naive(path, "kinect25")
        assert skeleton_files._scan_columns(path.read_bytes(), 25, EVERYTHING) is not None
        assert np.isfinite(recording.keypoints).all()


@pytest.mark.real_data
def test_two_people_whose_ids_are_one_float_stay_two(real_data):
    recording = read_skeleton(real_data / "ntu_rgbd/skeletons/S001C003P008R002A058.skeleton")
    assert recording.body_ids.tolist() == [72057594037944738, 72057594037944734]
    assert len(set(map(float, recording.body_ids))) == 1
    assert recording.keypoints.shape == (70, 2, 25, 3)
    assert recording.present.all()
    apart = np.linalg.norm(recording.keypoints[:, 0, 0] - recording.keypoints[:, 1, 0], axis=-1)
    assert apart.min() > 0.5  # metres


def test_utd_mhad(tmp_path):
    skeleton = np.random.default_rng(0).normal(size=(20, 3, 7))
    path = tmp_path / "a1_s1_t1_skeleton.mat"
    savemat(path, {"d_skel": skeleton})
    recording = read_utd_mhad(path)
    assert recording.keypoints.shape == (7, 1, 20, 3)
    np.testing.assert_array_equal(recording.keypoints[3, 0, 5], skeleton[5, :, 3].astype(np.float32))
    assert recording.present.all() and recording.present.shape == (7, 1)
    assert (recording.layout, recording.fps, recording.source) == ("kinect20", 30.0, path.name)


@pytest.mark.parametrize(
    ("variables", "found"),
    [({"skeleton": np.zeros((20, 3, 4))}, "skeleton"), ({"d_skel": np.zeros((25, 3, 4))}, "(25, 3, 4)")],
)
def test_bad_utd_mhad_variables(tmp_path, variables, found):
    path = tmp_path / "bad.mat"
    savemat(path, variables)
    with pytest.raises(SkeletonFileError) as caught:
        read_utd_mhad(path)
    assert caught.value.line is None and found in caught.value.actual and "d_skel" in caught.value.expected


def test_bad_utd_mhad_files(tmp_path):
    path = tmp_path / "bad.mat"
    savemat(path, {"d_skel": np.zeros((20, 3, 50))})
    whole = path.read_bytes()
    for broken in (b"", b"not a mat file", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(SkeletonFileError, match=r"expected a (complete )?\.mat file"):
            read_utd_mhad(path)
    with pytest.raises(FileNotFoundError):
        read_utd_mhad(tmp_path / "none.mat")


@pytest.mark.real_data
def test_real_utd_mhad(real_data):
    recording = read_utd_mhad(real_data / "utd_mhad/skeleton/a1_s1_t1_skeleton.mat")
    assert recording.keypoints.shape[1:] == (1, 20, 3)
    assert 1 < recording.keypoints[..., 2].mean() < 5  # metres from the sensor


def test_uav_human(tmp_path):
    """The longest recording has 305 frames, five more than the official reader takes."""
    path = tmp_path / "P000S00G10B00H10UC102000LC092000A000R0_09131758.txt"
    for end in ("\n", "\r\n", " \n"):  # the fast way and the other
        text = uav_human_text([1] * 300 + [2, 0, 2, 0, 1]).replace("\n", end).encode()
        path.write_bytes(text)
        assert (skeleton_files._scan_columns(text, 17, ()) is None) == (end == " \n")
        recording = assert_equals_naive(path, "coco17")
        assert recording.keypoints.shape == (305, 2, 17, 3)
        assert recording.body_ids.tolist() == [0, 1] and recording.present.sum(0).tolist() == [303, 2]
        assert recording.keypoints[304, 0, 16].tolist() == [900.5 + 304 + 16, 512.25, 0]


def test_kinect_joints_in_a_uav_human_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(uav_human_text([0, 1], joints=25))
    with pytest.raises(SkeletonFileError, match=r"line 5: expected 17 joints \(layout coco17\), found 25 joints"):
        read_skeleton(path, layout="coco17")


def test_open_files_are_read_like_paths(tmp_path):
    path = tmp_path / "a.skeleton"
    path.write_text(skeleton_text(FRAMES))
    with path.open("rb") as file:
        recording = read_skeleton(file, layout="coco17")
    np.testing.assert_array_equal(recording.keypoints, read_skeleton(path, layout="coco17").keypoints)
    assert recording.source == "a.skeleton"
    assert read_skeleton(io.BytesIO(path.read_bytes()), layout="coco17").source == "stream"
    with pytest.raises(SkeletonFileError, match="stream, line 1"):
        read_skeleton(io.BytesIO(b"x"))
    with path.open("rb") as file, pytest.raises(SkeletonFileError, match=r"a\.skeleton: expected a \.mat file"):
        read_utd_mhad(file)


def test_more_bodies_than_there_can_be(tmp_path):
    """A new id in every frame would ask for memory of frames times bodies."""
    path = tmp_path / "a.skeleton"
    path.write_text(skeleton_text([[body(number)] for number in range(300)]))
    with pytest.raises(SkeletonFileError, match="expected at most 256, found 300 different body ids"):
        read_skeleton(path, layout="coco17")
