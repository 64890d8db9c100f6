"""What moves in a part of a video, where and which way: measured by optical flow, and said in plain English.

It knows neither people nor actions. Left and right are the viewer's. In videos with a black background, such as depth maps and
drawn videos, places refer to the figure in front of it, else to the picture.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from .video_frames import VideoFrames

# Frames are scaled so that the longer side has SIDE pixels, and compared in pairs, about RATE per second. At least
# LEAST_SECONDS are looked at, around the middle of a shorter part; of a longer part, at most MAX_PAIRS pairs.
SIDE, RATE, LEAST_SECONDS, MAX_PAIRS = 160, 15.0, 0.2, 24
# Flow: levels of the pyramid, steps per level, width of the window in pixels, and weights that keep flow and gain at 0 where
# the window has no structure; for brightness from 0 to 1.
LEVELS, STEPS, WINDOW, FLOW_WEIGHT, GAIN_WEIGHT = 3, 3, 7, 1e-4, 1e-2
# A pixel moves if it goes MOVING pixels between the frames of a pair, and the square of its change is above CHANGED and above
# NOISE times the lower quartile of the picture.
MOVING, CHANGED, NOISE = 1.2, 4e-4, 3.0
# The camera's motion is that of the structured pixels in the outer BAND of the picture, if they fill LEAST_OF_BAND of it.
BAND, LEAST_OF_BAND = 1 / 4, 0.25
# Brightness up to BLACK, of 255, counts as black. The border around a figure is black, apart from OFF_BLACK of its pixels, and
# the size of a figure is within FIGURE, as a share of the picture.
BLACK, OFF_BLACK, FIGURE = 32, 0.05, (0.005, 0.5)

# The unit of length is the height of the figure, or half that of the picture. Less moving area times squared speed than STILL
# counts as nothing; COHERENT is the least share of the flow that goes one way, GROWING the least share that goes outwards or
# inwards, and BRIGHTER the least relative change of brightness per second.
STILL, COHERENT, GROWING, BRIGHTER = 0.012, 0.5, 0.5, 1.0
SLOW, QUICK = 0.5, 1.5  # units per second
SIDEWAYS, ONE_SIDE, WHOLE = 0.06, 0.25, 0.24  # units; share of the moving pixels; units
HEIGHTS = (
    (0.0, "above the head"), (0.18, "at head height"), (0.37, "at chest height"), (0.56, "at waist height"),
    (np.inf, "at leg height"),
)  # fmt: skip
ROWS = ((1 / 3, "high in the picture"), (2 / 3, "halfway up the picture"), (np.inf, "low in the picture"))
DIRECTIONS = (
    "to the viewer's right", "down and to the viewer's right", "down", "down and to the viewer's left",
    "to the viewer's left", "up and to the viewer's left", "up", "up and to the viewer's right",
)  # fmt: skip

# Occurrences agree if they move within ANGLE degrees of their mean direction, and within NEAR of the median height. A
# description says what at least AGREEMENT of them agree on.
ANGLE, NEAR, AGREEMENT = 45.0, 0.15, 0.5


class _Figure(NamedTuple):
    """The figure in front of a black background, in pixels: its top, its height, and the column of its middle."""

    top: float
    height: float
    middle: float


@dataclass(frozen=True)
class Motion:
    """What moves in a part of a video.

    Lengths are in heights of the figure, or in halves of the height of the picture.

    Attributes:
        kind: "still"; "move" in a direction; "turn", in one direction and then back; "nearer" or "away", of what grows or
            shrinks; "together" or "apart", of two sides; "brighter" or "darker" in its place; "mixed", in several directions.
        velocity: Mean velocity per second of what moves, to the right and down; of "turn", in the first half.
        then: Of "turn", the mean velocity in the second half.
        speed: Mean speed per second of what moves.
        side: "left", "middle", "right" or "both", for the viewer.
        height: Where it moves: with a figure, from 0 (its top) to 1 (its bottom), else from 0 (top of the picture) to 1.
        has_figure: Whether places are those of a figure.
        is_whole: Whether the whole figure moves.
    """

    kind: str
    velocity: tuple[float, float] = (0.0, 0.0)
    then: tuple[float, float] = (0.0, 0.0)
    speed: float = 0.0
    side: str = "middle"
    height: float = 0.5
    has_figure: bool = False
    is_whole: bool = False


def measure_motion(video: VideoFrames, start: float, end: float) -> Motion:
    """Measures what moves between two times of a video. The motion of the camera is subtracted.

    Args:
        video: An opened video.
        start, end: Seconds from the start of the video.

    Raises:
        VideoFileError: If no frame can be decoded.
        ValueError: If `end` is before `start`.
    """
    if end < start:
        raise ValueError(f"end: expected a time from {start:g} s, the start, got {end:g} s.")
    fps = video.info.fps
    lag = max(1, round(fps / RATE))
    middle, length = (start + end) / 2 * fps, max(end - start, LEAST_SECONDS) * fps
    count = min(max(1, round(length / lag)), MAX_PAIRS)
    first = np.linspace(middle - length / 2, middle + length / 2 - lag, count).round().astype(int)
    # Each frame is the median of three successive ones, which removes the flicker at the edges of depth maps.
    first = first.clip(1, max(1, video.info.num_frames - lag - 2))
    frames = first[:, None, None] + np.array([[0], [lag]]) + np.array([-1, 0, 1])
    height, width = video.picture_size()
    scale = min(1.0, SIDE / max(height, width))
    size = max(16, round(height * scale)), max(16, round(width * scale))
    pictures = video.frames_at(((frames.ravel() + 0.5) / fps).tolist(), size)
    grey = pictures @ np.array([0.299, 0.587, 0.114], np.float32)
    return _motion_of(np.median(grey.reshape(*frames.shape, *size), axis=2), fps / lag)


def _motion_of(pairs: np.ndarray, rate: float) -> Motion:
    """The motion in pairs of grey frames (N, 2, H, W) from 0 to 255; between the frames of a pair are 1 / `rate` seconds."""
    figure = _figure(pairs)
    unit = pairs.shape[2] / 2 if figure is None else figure.height
    moving, brightness = _moving(pairs, figure is None, rate, unit)
    if moving.amount < STILL:
        return Motion("still", has_figure=figure is not None)
    kind, velocity, then = _kind(moving, brightness)
    rows, columns = moving.places
    height, width = pairs.shape[2:]
    middle, sideways = (width / 2, width / 6) if figure is None else (figure.middle, SIDEWAYS * unit)
    place = moving.mean(columns) - middle
    side = "middle" if abs(place) <= sideways else "left" if place < 0 else "right"
    if min(moving.mean(columns < middle - sideways), moving.mean(columns > middle + sideways)) >= ONE_SIDE:
        side = "both"
    row = moving.mean(rows)
    return Motion(
        kind,
        tuple(velocity.tolist()),
        tuple(then.tolist()),
        moving.mean(moving.speeds),
        side,
        row / height if figure is None else (row - figure.top) / figure.height,
        figure is not None,
        figure is not None and moving.mean((rows - row) ** 2) >= (WHOLE * unit) ** 2,
    )


@dataclass(frozen=True)
class _Moving:
    """The moving pixels of N pairs of frames.

    Attributes:
        weight: Of each pixel, (N, H, W): the square of its speed, so that slow noise counts little; 0 if it does not move.
        flow: In units per second, (2, N, H, W).
        places: Row and column of each pixel in the whole picture, two arrays that broadcast to (N, H, W).
        amount: Mean over the pairs of the sum of the weights; area and speed are in units.
    """

    weight: np.ndarray
    flow: np.ndarray
    places: tuple[np.ndarray, np.ndarray]
    amount: float

    @property
    def speeds(self) -> np.ndarray:
        return np.hypot(*self.flow)

    def mean(self, values: np.ndarray, pairs: slice = slice(None)) -> float:
        """The mean of values that broadcast to (N, H, W), over the moving pixels of some pairs."""
        weight, values = self.weight[pairs], np.broadcast_to(values, self.weight.shape)[pairs]
        return float((weight * values).sum() / max(float(weight.sum()), 1e-12))

    def velocity(self, pairs: slice = slice(None)) -> tuple[np.ndarray, float]:
        """The mean velocity of some pairs, and the share of the flow that goes that way."""
        velocity = np.array([self.mean(values, pairs) for values in self.flow])
        return velocity, float(np.hypot(*velocity)) / max(self.mean(self.speeds, pairs), 1e-12)


def _moving(pairs: np.ndarray, has_camera: bool, rate: float, unit: float) -> tuple[_Moving, float]:
    """The moving pixels of pairs of grey frames (N, 2, H, W), and the relative change of brightness per second.

    Args:
        pairs: From 0 to 255.
        has_camera: Whether the background shows how the camera moves; a black one does not, and is cut off.
        rate: Inverse of the seconds between the frames of a pair.
        unit: Of length, in pixels.
    """
    (top, left), size = (0, 0), pairs.shape[2:]
    if not has_camera:
        pairs, (top, left) = _cropped(pairs)
    weights, flows, changes, gains = [], [], [], []
    for first, second in pairs / np.float32(255):
        is_seen = True
        if has_camera:
            camera = camera_motion(first, second)
            # The flow is unknown where the window or its surroundings lie outside the second frame.
            second, is_seen = _warped(second, camera), _is_inside(camera, WINDOW)
        flow, gain, _ = optical_flow(first, second)
        change = _local_mean((second - first)[None] ** 2, 5)[0] * is_seen
        change *= change > max(CHANGED, NOISE * np.quantile(change, 0.25))
        squares = (flow**2).sum(axis=0)
        weights.append(squares * ((squares > MOVING**2) & (change > 0)))
        flows.append(flow)
        changes.append(change)
        gains.append(gain)
    weight, change = np.stack(weights), np.stack(changes)
    amount = float(weight.sum()) * rate**2 / (len(pairs) * unit**4)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)[:, : weight.shape[1], : weight.shape[2]]
    moving = _Moving(weight, np.stack(flows, axis=1) * (rate / unit), (rows + top, columns + left), amount)
    return moving, rate * float((np.stack(gains) * change).sum()) / max(float(change.sum()), 1e-12)


def _kind(moving: _Moving, brightness: float) -> tuple[str, np.ndarray, np.ndarray]:
    """The kind of a motion that is not "still", its velocity, and that of the second half of a "turn"."""
    velocity, share = moving.velocity()
    if share >= COHERENT:
        return "move", velocity, np.zeros(2)
    half = len(moving.weight) // 2
    (before, share), (after, later_share) = moving.velocity(slice(half)), moving.velocity(slice(half, None))
    if half and before @ after < 0 and min(share, later_share) >= COHERENT:
        return "turn", before, after
    speed = moving.mean(moving.speeds)
    # Share of the flow that goes outwards from the middle of what moves, along each axis.
    outwards = []
    for flow, place, mean in zip(moving.flow, moving.places[::-1], velocity, strict=True):
        offset = place - moving.mean(place)
        spread = np.sqrt(moving.mean(offset**2))
        outwards.append(moving.mean((flow - mean) * offset) / max(speed * spread, 1e-12))
    if abs(sum(outwards)) >= GROWING and min(map(abs, outwards)) >= GROWING / 2:
        kind = "nearer" if sum(outwards) > 0 else "away"
    elif abs(outwards[0]) >= GROWING:
        kind = "apart" if outwards[0] > 0 else "together"
    elif abs(brightness) >= BRIGHTER:
        kind = "brighter" if brightness > 0 else "darker"
    else:
        kind = "mixed"
    return kind, velocity, np.zeros(2)


def optical_flow(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense optical flow between two grey frames, by the method of Lucas and Kanade in a pyramid (Bouguet, 2001).

    Brightness may change by a factor from place to place, as in depth maps of what comes nearer (Negahdaripour, 1998).

    Args:
        first, second: float32 (H, W), from 0 to 1.

    Returns:
        The flow (2, H, W) in pixels, to the right and down, so that `second` at a pixel plus its flow shows what `first` shows;
        the relative change of brightness (H, W); and how far the window has structure in all directions, (H, W): the smaller
        eigenvalue of the mean square gradient.
    """
    pyramid = [(first, second)]
    while len(pyramid) < LEVELS and min(pyramid[-1][0].shape) >= 2 * WINDOW:
        pyramid.append(tuple(map(_halved, pyramid[-1])))
    flow = np.zeros((2, *pyramid[-1][0].shape), np.float32)
    for level, (before, after) in enumerate(reversed(pyramid)):
        if level:
            flow = 2 * flow.repeat(2, axis=1).repeat(2, axis=2)[:, : before.shape[0], : before.shape[1]]
        for _ in range(STEPS):
            flow, gain, structure = _refined(before, after, flow)
    return flow, gain, structure


def _refined(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A step of least squares in each window: first · gain + gradient · step = −difference, solved for the gain first."""
    moved = _warped(second, flow)
    difference, image = moved - first, (first + moved) / 2
    down, right = np.gradient(image)

    # Mean products of difference, gradient and brightness in the window.
    products = np.stack(
        [image * image, right * image, down * image, difference * image, right * right, down * down, right * down,
         right * difference, down * difference]
    )  # fmt: skip
    means = _local_mean(products, WINDOW)
    power, right_image, down_image, difference_image, xx, yy, xy, right_difference, down_difference = means
    power += GAIN_WEIGHT
    xx += FLOW_WEIGHT - right_image**2 / power
    yy += FLOW_WEIGHT - down_image**2 / power
    xy -= right_image * down_image / power
    x = right_image * difference_image / power - right_difference
    y = down_image * difference_image / power - down_difference
    determinant = xx * yy - xy * xy
    # A step of more than a pixel is beyond the linear approximation.
    step = np.stack([yy * x - xy * y, xx * y - xy * x]) / determinant
    step = step.clip(-1, 1)
    gain = (difference_image + right_image * step[0] + down_image * step[1]) / power
    structure = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2) - FLOW_WEIGHT
    return flow + step, gain, structure


def _warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`image` at each pixel plus its flow (2, H, W), between pixels by bilinear interpolation."""
    height, width = image.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    places = np.stack([2 * (columns + flow[0]) / (width - 1) - 1, 2 * (rows + flow[1]) / (height - 1) - 1], axis=-1)
    images, places = torch.from_numpy(image)[None, None], torch.from_numpy(places.astype(np.float32))[None]
    return functional.grid_sample(images, places, padding_mode="border", align_corners=True)[0, 0].numpy()


def camera_motion(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The flow by which a camera that pans, zooms and rolls moves the picture: a robust fit to what is near the borders.

    Args:
        first, second: float32 (H, W), from 0 to 1.

    Returns:
        float32 (2, H, W), in pixels to the right and down; 0 if there is too little structure near the borders to tell.
    """
    first, second, whole = _halved(first), _halved(second), _camera_system(*first.shape, 1)
    height, width = first.shape
    band = np.ones((height, width), bool)
    band[tuple(slice(round(length * BAND), length - round(length * BAND)) for length in (height, width))] = False
    system, motion = _camera_system(height, width, 2), np.zeros(4)
    for _ in range(2):  # the second time, what is left of the motion
        fitted = np.einsum("acij,c->aij", system, motion).astype(np.float32) / 2
        flow, _, structure = optical_flow(first, _warped(second, fitted))
        used = band & (structure > FLOW_WEIGHT) & _is_inside(fitted)
        if used.sum() < LEAST_OF_BAND * band.sum():
            break
        rest = np.broadcast_to(np.median(flow[:, used], axis=1)[:, None, None], flow.shape)
        for _ in range(3):  # what moves by itself is left out, since it is far from the median
            distance = np.hypot(*(flow - rest))
            kept = used & (distance <= 2 * np.median(distance[used]) + 0.1)
            values = system[:, :, kept].transpose(0, 2, 1).reshape(-1, 4)
            step = np.linalg.lstsq(values, 2 * flow[:, kept].ravel(), rcond=None)[0]
            rest = np.einsum("acij,c->aij", system, step) / 2
        motion += step
    return np.einsum("acij,c->aij", whole, motion).astype(np.float32)


def _camera_system(height: int, width: int, spacing: int) -> np.ndarray:
    """(2, 4, H, W): the flow of pans to the right and down, of a zoom and of a roll, for pixels `spacing` apart."""
    rows, columns = np.mgrid[:height, :width] * float(spacing)
    x, y = (columns - columns.mean()) / SIDE, (rows - rows.mean()) / SIDE
    one, zero = np.ones_like(x), np.zeros_like(x)
    return np.stack([np.stack([one, zero, x, -y]), np.stack([zero, one, y, x])])


def _is_inside(flow: np.ndarray, margin: int = 0) -> np.ndarray:
    """Whether each pixel plus its flow (2, H, W) is inside the picture, and so are all pixels that are up to `margin` away."""
    height, width = flow.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    x, y = columns + flow[0], rows + flow[1]
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    near = functional.max_pool2d(torch.from_numpy(outside)[None].float(), 2 * margin + 1, 1, margin)
    return near[0].numpy() == 0


def _halved(image: np.ndarray) -> np.ndarray:
    """Every second pixel of an image, smoothed by a Gaussian of one pixel."""
    weights = torch.exp(-(torch.arange(-4, 5, dtype=torch.float32) ** 2) / 2)
    weights /= weights.sum()
    padded = functional.pad(torch.from_numpy(image)[None, None], (4, 4, 4, 4), mode="replicate")
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1), stride=(2, 1))
    return functional.conv2d(rows, weights.view(1, 1, 1, -1), stride=(1, 2))[0, 0].numpy()


def _local_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The means of images (C, H, W) over squares of `width` pixels; pixels at the border are repeated outside."""
    _, rows, columns = values.shape
    padded = np.pad(values, ((0, 0), (width // 2,) * 2, (width // 2,) * 2), mode="edge")
    # Faster than a pooling layer of torch on a CPU.
    summed = sum(padded[:, shift : shift + rows] for shift in range(width))
    return sum(summed[:, :, shift : shift + columns] for shift in range(width)) / np.float32(width**2)


def _figure(pairs: np.ndarray) -> _Figure | None:
    """The figure in front of a black background in grey frames (N, 2, H, W); None if the background is not black."""
    bright = pairs > BLACK
    border = np.concatenate([bright[..., [0, -1], :].ravel(), bright[..., [0, -1]].ravel()])
    if border.mean() > OFF_BLACK or not FIGURE[0] <= bright.mean() <= FIGURE[1]:
        return None
    shown = bright.mean(axis=(0, 1))
    middle = float((shown.sum(axis=0) * np.arange(shown.shape[1])).sum() / shown.sum())
    # Head and feet are near the middle; a raised hand is not.
    near = (shown >= 0.5).any(axis=1).sum() / 10
    body = shown[:, max(0, round(middle - near)) : round(middle + near) + 1]
    rows = np.flatnonzero((body >= 0.5).any(axis=1))
    if not len(rows):
        return None
    return _Figure(float(rows[0]), float(rows[-1] - rows[0] + 1), middle)


def _cropped(pairs: np.ndarray, margin: int = 12) -> tuple[np.ndarray, tuple[int, int]]:
    """Grey frames (N, 2, H, W) without their black borders, except for a margin; row and column of the first pixel."""
    bright = (pairs > BLACK).any(axis=(0, 1))
    spans = []
    for axis in (0, 1):
        places = np.flatnonzero(bright.any(axis=1 - axis))
        spans.append(slice(max(0, places[0] - margin), places[-1] + margin + 1))
    return pairs[:, :, spans[0], spans[1]], (spans[0].start, spans[1].start)


def describe_motions(motions: Sequence[Motion]) -> tuple[str, float]:
    """What one or several parts of videos show, such as "something on the viewer's right moves up quickly at head height".

    Says no more than what at least half of them agree on.

    Args:
        motions: Of a part of a video, or of all occurrences of a token.

    Returns:
        The description, empty if they differ in what happens; and the share of motions that agree with it, or, if they differ,
        with what is most frequent.

    Raises:
        ValueError: If there are no motions.
    """
    if not motions:
        raise ValueError("motions: expected at least one, got none.")
    kind, _ = Counter(motion.kind for motion in motions).most_common(1)[0]
    agreeing = [motion for motion in motions if motion.kind == kind]
    ways = np.zeros((0, 2))
    if kind in ("move", "turn"):
        velocities = np.array([[m.velocity, m.then] if kind == "turn" else [m.velocity] for m in agreeing])
        directions = velocities / np.maximum(np.hypot(*np.moveaxis(velocities, -1, 0)), 1e-12)[..., None]
        ways = directions.mean(axis=0)
        ways /= np.maximum(np.hypot(*ways.T), 1e-12)[:, None]
        is_near = ((directions * ways).sum(axis=-1) >= np.cos(np.radians(ANGLE))).all(axis=-1)
        agreeing = [motion for motion, near in zip(agreeing, is_near, strict=True) if near]
    if len(agreeing) < AGREEMENT * len(motions):
        return "", len(agreeing) / len(motions)
    if kind == "still":
        return "hardly anything moves", len(agreeing) / len(motions)
    side = height = None
    whole = [motion for motion in agreeing if motion.is_whole]
    is_whole = len(whole) >= AGREEMENT * len(motions)
    if is_whole:
        agreeing = whole
    else:
        most, _ = Counter(motion.side for motion in agreeing).most_common(1)[0]
        narrower = [motion for motion in agreeing if motion.side == most]
        if len(narrower) >= AGREEMENT * len(motions):
            side, agreeing = most, narrower
        has_figure, _ = Counter(motion.has_figure for motion in agreeing).most_common(1)[0]
        middle = float(np.median([motion.height for motion in agreeing]))
        narrower = [m for m in agreeing if m.has_figure == has_figure and abs(m.height - middle) <= NEAR]
        if len(narrower) >= AGREEMENT * len(motions):
            height = next(word for bound, word in (HEIGHTS if has_figure else ROWS) if middle < bound)
            agreeing = narrower
    speed = float(np.median([motion.speed for motion in agreeing]))
    return _statement(kind, ways, speed, side, height, is_whole), len(agreeing) / len(motions)


def _statement(kind: str, ways: np.ndarray, speed: float, side: str | None, height: str | None, is_whole: bool) -> str:
    sides = {
        "both": " on both sides",
        "middle": " in the middle",
        "left": " on the viewer's left",
        "right": " on the viewer's right",
    }
    subject = "the whole figure" if is_whole else f"something{sides.get(side, '')}"
    directions = [DIRECTIONS[round(np.degrees(np.arctan2(down, right)) / 45) % 8] for right, down in ways]
    action = {
        "move": f"moves {', then '.join(directions)}",
        "turn": f"moves {', then '.join(directions)}",
        "nearer": "grows, as if it came nearer",
        "away": "shrinks, as if it went away",
        "apart": "moves apart",
        "together": "moves together",
        "brighter": "becomes brighter",
        "darker": "becomes darker",
        "mixed": "moves in several directions",
    }[kind]
    pace = " slowly" if speed < SLOW else " quickly" if speed > QUICK else ""
    pace = "" if kind in ("brighter", "darker") else pace
    return f"{subject} {action}{pace}{'' if height is None else f' {height}'}"


__all__ = ["Motion", "describe_motions", "measure_motion"]
