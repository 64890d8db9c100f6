"""What moves in a video, on made-up videos whose motion is known, and on mirrored and reversed ones."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates, shift

from action_llm.video_files import open_video
from action_llm.video_motion import Motion, camera_motion, describe_motions, measure_motion, optical_flow

FPS, HEIGHT, WIDTH = 30, 90, 120
SECONDS = 0.4
WAYS = {
    (1, 0): "to the viewer's right",
    (1, 1): "down and to the viewer's right",
    (0, 1): "down",
    (-1, 1): "down and to the viewer's left",
    (-1, 0): "to the viewer's left",
    (-1, -1): "up and to the viewer's left",
    (0, -1): "up",
    (1, -1): "up and to the viewer's right",
}


def texture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0, smooth: float = 2.0) -> np.ndarray:
    """A random smooth pattern, from 40 to 200."""
    pattern = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), smooth)
    return 120 + 80 * pattern / np.abs(pattern).max()


def square_at(x: float, y: float, side: float = 16.0) -> np.ndarray:
    """How much of each pixel a square covers whose middle is (x, y): sub-pixel motion is exact."""

    def covered(middle: float, length: int) -> np.ndarray:
        edges = np.arange(length)
        return (np.minimum(edges + 1, middle + side / 2) - np.maximum(edges, middle - side / 2)).clip(0, 1)

    return covered(y, HEIGHT)[:, None] * covered(x, WIDTH)


def moving_square(velocity, place=(60.0, 45.0), background=None, frames: int = 10) -> np.ndarray:
    """Frames (T, H, W) of a light square that moves by `velocity` pixels per frame and is at `place` at half time."""
    background = np.full((HEIGHT, WIDTH), 60.0) if background is None else background
    result = []
    for frame in range(frames):
        x, y = np.add(place, (frame - (frames - 1) / 2) * np.array(velocity))
        cover = square_at(x, y)
        result.append(background * (1 - cover) + 200 * cover)
    return np.array(result)


def measured(frames: np.ndarray) -> Motion:
    return measure_motion(open_video(frames.round().clip(0, 255).astype(np.uint8), fps=FPS), 0.0, len(frames) / FPS)


def told(frames: np.ndarray) -> str:
    return describe_motions([measured(frames)])[0]


def angle_between(one, other) -> float:
    return float(np.degrees(np.arccos(np.dot(one, other) / np.hypot(*one) / np.hypot(*other))))


def shifted(image: np.ndarray, x: float, y: float) -> np.ndarray:
    return shift(image, (y, x), order=3, mode="reflect")


@pytest.mark.parametrize(("way", "speed"), zip(WAYS, [1.3, 2.5, 2.5, 1.3] * 2, strict=True))
def test_a_square_moves_as_it_is_said(way, speed):
    velocity = speed * np.array(way) / np.hypot(*way)
    motion = measured(moving_square(velocity))
    assert motion.kind == "move"
    assert angle_between(motion.velocity, velocity) < 12
    # The flow of pixels at the edges of the square is averaged with that of pixels beside it.
    assert 0.6 < np.hypot(*motion.velocity) / (speed * FPS / (HEIGHT / 2)) < 1.4
    assert WAYS[way] in describe_motions([motion])[0]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((20, 15), "on the viewer's left moves down quickly high in the picture"),
        ((60, 45), "in the middle moves down quickly halfway up the picture"),
        ((100, 70), "on the viewer's right moves down quickly low in the picture"),
    ],
)
def test_places_are_those_of_the_picture(place, words):
    assert told(moving_square((0, 2.5), place)) == f"something {words}"


def test_flow_is_exact_for_patterns_that_move_by_parts_of_a_pixel():
    image = (texture() / 255).astype(np.float32)
    for x, y in ((0.25, 0), (0, -0.6), (1.5, 0.75), (-4.2, 2.4)):
        flow, gain, _ = optical_flow(image, shifted(image, x, y))
        inner = flow[:, 12:-12, 12:-12]
        assert np.abs(np.median(inner, axis=(1, 2)) - (x, y)).max() < 0.05
        assert np.abs(inner - np.array([x, y])[:, None, None]).mean() < 0.05 + 0.12 * np.hypot(x, y)
        assert np.abs(gain[12:-12, 12:-12]).mean() < 0.02


def test_a_change_of_brightness_is_no_motion():
    """Independent of the flow: the second frame is the first times a factor."""
    image = (texture() / 255).astype(np.float32)
    flow, gain, _ = optical_flow(image, 1.2 * shifted(image, 0.8, 0))
    inner = np.s_[12:-12, 12:-12]
    # gain is relative to the mean of both frames
    assert np.median(gain[inner]) == pytest.approx(0.2 / 1.1, rel=0.15)
    assert np.median(flow[0][inner]) == pytest.approx(0.8, abs=0.1) and abs(np.median(flow[1][inner])) < 0.05


@pytest.mark.parametrize("pan", [(2.0, 0.0), (-1.7, 1.1)])
def test_the_motion_of_the_camera_is_subtracted(pan):
    wide = texture(HEIGHT + 40, WIDTH + 40)
    for velocity in ((0, 0), (2, 0), (-2, -2)):
        frames = []
        for frame in range(8):
            x, y = np.multiply(pan, frame - 3.5)
            # The scene moves with the pan; the square moves by itself.
            background = shifted(wide, x, y)[20:-20, 20:-20]
            cover = square_at(*np.add((60, 45), np.add(velocity, pan) * (frame - 3.5)))
            frames.append(background * (1 - cover) + 250 * cover)
        motion = measured(np.array(frames))
        if velocity == (0, 0):
            assert motion.kind == "still", pan
        else:
            assert motion.kind == "move" and angle_between(motion.velocity, velocity) < 20, (pan, velocity)


def test_a_camera_that_zooms_and_rolls_is_fitted():
    """Independent of the flow: the second picture is the first, resampled by a known similarity."""
    image = (texture(seed=2) / 255).astype(np.float32)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x, y = columns - WIDTH / 2, rows - HEIGHT / 2
    zoom, roll, pan = 0.03, 0.02, (1.5, -0.5)
    flow = np.stack([pan[0] + zoom * x - roll * y, pan[1] + zoom * y + roll * x])
    # second(p + flow(p)) = first(p): the first is seen at the inverse of the linear map.
    forward = np.array([[1 + zoom, -roll], [roll, 1 + zoom]])
    source = np.einsum("ab,bij->aij", np.linalg.inv(forward), np.stack([x - pan[0], y - pan[1]]))
    second = map_coordinates(image, [source[1] + HEIGHT / 2, source[0] + WIDTH / 2], order=3, mode="reflect")
    second[:40, :14] = 0.9  # what changes by itself near the border
    assert np.abs(camera_motion(image, second) - flow).max() < 0.3
    flat = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    assert not camera_motion(flat, flat + 0.1).any()


@pytest.mark.parametrize(("growth", "kind"), [(1.05, "nearer"), (1 / 1.05, "away")])
def test_what_grows_comes_nearer(growth, kind):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(rows - 45, columns - 60)
    frames = [60 + 140 / (1 + np.exp(2 * (distance - 18 * growth ** (frame - 5.5)))) for frame in range(12)]
    assert measured(np.array(frames)).kind == kind


@pytest.mark.parametrize(("velocity", "kind"), [(2, "together"), (-2, "apart")])
def test_two_sides_move_together_or_apart(velocity, kind):
    left, right = moving_square((velocity, 0), (35, 45)), moving_square((-velocity, 0), (85, 45))
    motion = measured(np.maximum(left, right))
    assert (motion.kind, motion.side) == (kind, "both")
    both = np.maximum(moving_square((0, -velocity), (20, 45)), moving_square((0, -velocity), (100, 45)))
    assert measured(both).kind == "move" and "on both sides moves" in told(both)


@pytest.mark.parametrize("noise", [0.0, 2.0, 6.0])
def test_noise_is_nothing_that_moves(noise):
    generator = np.random.default_rng(0)
    for background in (np.full((HEIGHT, WIDTH), 100.0), texture()):
        frames = background + noise * generator.normal(size=(12, HEIGHT, WIDTH))
        assert told(frames) == "hardly anything moves"


def figure(hand=(0.0, 0.0), light: float = 0.0, step: float = 0.0) -> np.ndarray:
    """A body of 60 pixels in front of black, whose hand is at a place from its middle and top, in pixels."""
    image = np.zeros((HEIGHT, WIDTH))
    pattern = texture(60, 16, 3, 1.0)
    image[15:75, 52:68] = pattern
    image = shift(image, (0, step), order=1)
    cover = square_at(60 + hand[0], 15 + hand[1], 8.0)
    return image * (1 - cover) + (180 + light) * cover


def test_places_are_those_of_a_figure_in_front_of_black():
    frames = np.array([figure((18, 40 - 1.5 * frame)) for frame in range(12)])
    motion = measured(frames)
    assert motion.has_figure and (motion.kind, motion.side) == ("move", "right")
    assert told(frames) == "something on the viewer's right moves up at waist height"
    assert measured(frames[:, :, ::-1]).side == "left"
    whole = np.array([figure((0, 20), step=1.5 * frame - 8) for frame in range(12)])
    assert told(whole).startswith("the whole figure moves to the viewer's right")


def test_a_figure_that_becomes_brighter_in_its_place():
    """As in a depth map, of what comes nearer."""
    body = figure((0, 20)) * 0.6
    for sign, kind in ((1, "brighter"), (-1, "darker")):
        frames = np.array([np.where(body, body * (1 + 0.04 * sign * (frame - 6)), 0) for frame in range(12)])
        assert measured(frames).kind in (kind, "still")


def test_there_and_back_is_said_in_its_order():
    forth = moving_square((0, -2.5), frames=8)
    assert "moves up, then down" in told(np.concatenate([forth, forth[::-1]]))
    assert "moves down, then up" in told(np.concatenate([forth[::-1], forth]))


def test_a_description_says_what_at_least_half_agree_on():
    up = [Motion("move", (0.1 * tilt, -1.0), (0, 0), 1.0, "left", 0.3, True) for tilt in (-2, 0, 2)]
    assert describe_motions(up) == ("something on the viewer's left moves up at chest height", 1.0)
    # Another side and another height: less is said.
    right = [Motion("move", (0, -1.0), (0, 0), 1.0, "right", 0.3, True)] * 4
    assert describe_motions([*up, *right]) == ("something on the viewer's right moves up at chest height", 4 / 7)
    low = [Motion("move", (0, -1.0), (0, 0), 1.0, "left", height, True) for height in (0.0, 0.6, 0.9)]
    assert describe_motions([*right[:2], *low[:1], up[1], *low[1:]]) == (
        "something on the viewer's left moves up",
        4 / 6,
    )
    still = Motion("still")
    assert describe_motions([*up, still, still]) == ("something on the viewer's left moves up at chest height", 3 / 5)
    assert describe_motions([*up, *[still] * 4]) == ("hardly anything moves", 4 / 7)
    around = [Motion("move", way, (0, 0), 1.0) for way in WAYS]
    text, share = describe_motions(around)
    assert not text and share <= 3 / 8
    back = Motion("turn", (1, 0), (-1, 0), 2.0, "right", 0.9, False)
    assert describe_motions([back])[0] == (
        "something on the viewer's right moves to the viewer's right, then to the viewer's left quickly low in the picture"
    )
    with pytest.raises(ValueError, match="motions: expected at least one"):
        describe_motions([])


def test_short_and_long_parts_and_wrong_times():
    video = open_video(moving_square((2.0, 0), (50, 45), frames=30).astype(np.uint8), fps=FPS)
    for start, end in ((0.5, 0.5), (0.49, 0.51), (0.0, 1.0), (0.9, 1.5)):
        assert "to the viewer's right" in describe_motions([measure_motion(video, start, end)])[0]
    with pytest.raises(ValueError, match="end: expected a time from 2 s, the start, got 1 s"):
        measure_motion(video, 2.0, 1.0)
    single = open_video(np.full((1, HEIGHT, WIDTH), 90, np.uint8), fps=FPS)
    assert measure_motion(single, 0.0, 0.03).kind == "still"


@pytest.mark.parametrize("fps", [10, 24, 60])
def test_speeds_do_not_depend_on_the_frame_rate(fps):
    frames = moving_square((45 / fps, 0), frames=round(0.5 * fps))
    motion = measure_motion(open_video(frames.astype(np.uint8), fps=fps), 0.0, 0.5)
    assert motion.kind == "move" and 0.8 < motion.velocity[0] < 1.4


@pytest.mark.real_data
def test_the_words_are_those_of_the_joints(real_data):
    """UTD-MHAD has skeletons beside its depth videos: where one hand moves, it is what the text is about."""
    from scipy.io import loadmat

    angles, sides = [], []
    for path in sorted((real_data / "utd_mhad" / "depth_video").glob("a[1-9]_s2_t1_depth.mp4")):
        joints = loadmat(real_data / "utd_mhad" / "skeleton" / path.name.replace("_depth.mp4", "_skeleton.mat"))[
            "d_skel"
        ]
        x, y, z = joints.transpose(1, 2, 0)  # (frames, joints)
        # The depth camera of Kinect, in pixels of these videos.
        seen = np.stack([80 + 142.8 * x / z, 60 - 142.8 * y / z], axis=-1)
        hands, height = seen[:, [7, 11]], np.ptp(seen[..., 1])
        with open_video(path) as video:
            for start in range(6, len(seen) - 12, 9):
                way = (hands[start + 8] - hands[start]) / height / (8 / FPS)
                speeds = np.hypot(*way.T)
                if speeds.max() < 0.5 or speeds.max() < 2 * speeds.min():
                    continue
                motion = measure_motion(video, start / FPS, (start + 8) / FPS)
                hand = int(speeds.argmax())
                if motion.kind == "move":
                    angles.append(angle_between(motion.velocity, way[hand]))
                aside = (hands[start : start + 9, hand] - seen[start : start + 9, 3])[:, 0].mean() / height
                if abs(aside) > 0.1:
                    sides.append(motion.side in ("both", "left" if aside < 0 else "right"))
    assert len(angles) >= 15 and np.mean(np.array(angles) < 45) > 0.75 and np.mean(sides) > 0.8


def test_a_mirrored_video_has_left_and_right_swapped_and_a_reversed_one_goes_back():
    frames = moving_square((2.0, -1.0), (35, 45), texture(seed=5))
    motion, mirrored, reversed_ = measured(frames), measured(frames[:, :, ::-1]), measured(frames[::-1])
    assert (motion.side, mirrored.side, reversed_.side) == ("left", "right", "left")
    np.testing.assert_allclose(np.multiply(mirrored.velocity, (-1, 1)), motion.velocity, rtol=0.12)
    np.testing.assert_allclose(np.negative(reversed_.velocity), motion.velocity, atol=0.25)
    assert mirrored.height == pytest.approx(motion.height, abs=0.02)
