"""Pictures of skeletons: positions, colours and occlusion."""

import numpy as np
import pytest
from PIL import Image
from skeleton_people import person as standing

from action_llm.skeleton_layouts import LAYOUTS
from action_llm.video_files import read_video_info
from action_llm_datasets.rendering import (
    BACKGROUND,
    PART_COLORS,
    SheetRow,
    contact_sheet,
    render_frames,
    write_png,
    write_video,
)
from action_llm_datasets.simulation.simulate import perform


def has_color(frame, color, tolerance=12):
    return (np.abs(frame.astype(int) - color).max(axis=-1) <= tolerance).any()


def drawn(frame):
    return np.abs(frame.astype(int) - BACKGROUND).max(axis=-1) > 30


@pytest.fixture(scope="module")
def person():
    """(T, 25, 3) in the room; the person looks along +z, so that x grows to their left."""
    return perform(0, 1, 23, 1)[0]


def test_frames_show_a_person_moving(person):
    frames = render_frames(person, size=(120, 100))
    assert frames.shape == (len(person), 120, 100, 3) and frames.dtype == np.uint8
    assert (frames[:, 0, 0] == BACKGROUND).all()
    for part, (color, _) in PART_COLORS.items():
        assert has_color(frames[0], color), part
    assert (frames[0] != frames[len(frames) // 2]).any()
    rows = np.flatnonzero(drawn(frames[0]).any(axis=1))
    assert 0.7 * 120 < np.ptp(rows) < 120  # fills the picture and stays inside


def test_up_is_up_and_right_is_right():
    layout = LAYOUTS["kinect25"]
    joints = np.zeros((1, 25, 3))
    joints[0, :, :2] = np.random.default_rng(0).uniform([-0.2, 0.1], [0.2, 0.5], (25, 2))
    joints[0, layout.joint_names.index("left_foot")] = [2.0, -1.0, 3.0]
    (frame,) = render_frames(joints, size=(100, 100))
    left_leg = np.abs(frame.astype(int) - PART_COLORS["left_leg"][0]).max(axis=-1) < 12
    rows, columns = np.nonzero(left_leg)
    assert columns.max() > 85 and rows.max() > 70 and rows.min() < 60


def test_two_dimensional_layouts_have_y_down():
    layout = LAYOUTS["coco17"]
    joints = np.random.default_rng(0).uniform(50, 60, (1, 17, 2))
    joints[0, layout.joint_names.index("left_ankle")] = [55, 200]  # pixels: below
    (frame,) = render_frames(joints, layout, size=(100, 100))
    rows = np.nonzero(np.abs(frame.astype(int) - PART_COLORS["left_leg"][0]).max(axis=-1) < 12)[0]
    assert rows.max() > 80


def test_nearer_people_cover_farther_ones(person):
    near, far = person.copy(), person.copy()
    near[..., 2] -= 1.0
    both = np.stack([far, near], axis=1)
    frames = render_frames(both)
    first, second = (render_frames(part) for part in (far, near))
    assert (first == second).all()  # equal pictures: only colours show who is in front
    assert has_color(frames[0], PART_COLORS["left_leg"][1]) and not has_color(frames[0], PART_COLORS["left_leg"][0])


def test_absent_people_and_lost_joints_are_left_out(person):
    pair = np.stack([person, np.zeros_like(person)], axis=1)
    np.testing.assert_array_equal(render_frames(pair), render_frames(person))
    lost = person.copy()
    lost[:, 8:12] = np.nan
    lost[:, 23:] = np.nan
    assert not has_color(render_frames(lost)[0], PART_COLORS["right_arm"][0])
    nobody = render_frames(np.zeros((3, 25, 3)), size=(40, 40))
    assert (nobody == BACKGROUND).all()


def test_yaw_turns_the_view(person):
    front, side = render_frames(person[:1]), render_frames(person[:1], yaw=90.0)

    def width(frame):
        return np.ptp(np.flatnonzero(drawn(frame).any(axis=0)))

    assert width(side[0]) != width(front[0])


def test_batches_do_not_change_pictures(person, monkeypatch):
    whole = render_frames(person, size=(60, 60))
    monkeypatch.setattr("action_llm_datasets.rendering._BATCH_PIXELS", 1)
    np.testing.assert_array_equal(render_frames(person, size=(60, 60)), whole)


def test_a_video_of_several_batches_keeps_its_quality(person, tmp_path):
    frames = render_frames(np.concatenate([person] * 2)[:80], size=(64, 64))
    write_video(tmp_path / "whole.mp4", [frames], 30)
    write_video(tmp_path / "parts.mp4", [frames[:70], frames[70:]], 30)
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert read_video_info(tmp_path / "parts.mp4").num_frames == len(frames)
    write_video(tmp_path / "small.mp4", [frames], 30, quality=34)
    assert (tmp_path / "small.mp4").stat().st_size < (tmp_path / "whole.mp4").stat().st_size


def test_wrong_shapes_are_refused(person):
    with pytest.raises(ValueError, match=r"\(T, 17, C\).*layout 'coco17'; got \(\d+, 1, 25, 3\)"):
        render_frames(person, "coco17")
    with pytest.raises(ValueError, match="got"):
        render_frames(person[0])


def test_a_long_title_is_wrapped(person):
    margin = np.array(BACKGROUND)

    def sheet(title):
        return contact_sheet(
            [SheetRow(person, title, captions=["a caption that is too long", "b", "c"])], columns=3, size=(60, 80)
        )

    short = sheet("wave")
    for title, lines in (("frames 103, people 1, longest jump 0.14 m, shortest bone 0.02 m", 2), ("x" * 300, 3)):
        longer = sheet(title)
        assert longer.shape[0] - short.shape[0] == 13 * (lines - 1)
        band = longer[1 : longer.shape[0] - 60 - 14]
        assert (band[:, -4:] == margin).all(), "the text reaches the edge"
        assert (np.abs(band.astype(int) - margin).max(axis=2) > 60).any(axis=1).sum() > 5 * lines
    # A caption stays below its picture.
    assert (short[-14:, 76:80] == margin).all() and (short[-14:, :76] != margin).any()


def test_the_title_explains_a_second_body(person, monkeypatch):
    titles = []
    monkeypatch.setattr("action_llm_datasets.rendering.titled", lambda image, title: titles.append(title) or image)
    aside = person + np.array([1.0, 0.0, 0.0])
    for bodies in ([person], [person, np.zeros_like(person)], [person, aside], [person, aside, aside + 1.0]):
        contact_sheet([SheetRow(np.stack(bodies, axis=1), "hugging")], columns=3, size=(60, 80))
    assert titles == ["hugging", "hugging", "hugging (lighter: body 2)", "hugging (lighter: bodies 2, 3)"]


def test_contact_sheet_and_png(person, tmp_path):
    rows = [SheetRow(person, "one"), SheetRow(np.stack([person, person], axis=1), "two", captions=["a", "b", "c"])]
    sheet = contact_sheet(rows, columns=3, size=(80, 64))
    assert sheet.shape[1] == 3 * 64 and sheet.shape[0] > 2 * 80 and sheet.dtype == np.uint8
    write_png(tmp_path / "sheet.png", sheet)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_head_at_the_edge_stays_in_its_frame():
    """Frames are drawn on one tall canvas: the ring of a head must not reach into the next frame."""
    body = standing(40)
    body[20, 3] += [0, 3, 0]  # an outlier
    ink = (render_frames(body) != np.array(BACKGROUND)).any(-1)
    assert ink[20, :20].any() and not ink[19, -8:].any()
