"""Draws skeletons without a display: frames, mp4 for video models, and contact sheets as PNG."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from PIL import Image, ImageDraw

from action_llm.skeleton_bodies import NOWHERE
from action_llm.skeleton_layouts import SkeletonLayout, get_layout

from .atomic_files import written_whole
from .fonts import draw_text, drawable, shortened, wrapped

BACKGROUND = (250, 250, 248)
INK = (40, 42, 48)
# Left limbs have warm colours and right limbs cool colours; further people have lighter tones.
PART_COLORS = {
    "trunk": ((52, 56, 64), (132, 140, 150)),
    "left_arm": ((214, 69, 48), (240, 150, 96)),
    "left_leg": ((168, 48, 60), (222, 128, 132)),
    "right_arm": ((36, 112, 200), (104, 178, 232)),
    "right_leg": ((32, 72, 148), (118, 140, 206)),
}
OVERSAMPLING = 2
_BATCH_PIXELS = 1 << 24  # pixels of an oversampled canvas
_MARGIN, _LINE = 4, 13  # margin and height of a line of text, in pixels


@dataclass
class SheetRow:
    """A recording of a contact sheet: `keypoints` (T, J, C) or (T, P, J, C), a title, and a caption for each picture."""

    keypoints: np.ndarray
    title: str
    captions: Sequence[str] | None = None


def _as_people(keypoints: np.ndarray, layout: SkeletonLayout) -> np.ndarray:
    """Keypoints as float64 (T, P, J, C), NaN for absent people and for joints without a position."""
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if keypoints.ndim == 3:
        keypoints = keypoints[:, None]
    if keypoints.ndim != 4 or keypoints.shape[2] != layout.num_joints or keypoints.shape[3] not in (2, 3):
        raise ValueError(
            f"keypoints must be (T, {layout.num_joints}, C) or (T, P, {layout.num_joints}, C) with C = 2 or 3 for layout "
            f"{layout.name!r}; got {keypoints.shape}"
        )
    absent = (keypoints == 0).all(axis=(2, 3), keepdims=True)
    return np.where(absent | ~(np.abs(keypoints) < NOWHERE), np.nan, keypoints)


def _to_pixels(people: np.ndarray, layout: SkeletonLayout, size: tuple[int, int], yaw: float) -> np.ndarray:
    """(T, P, J, C) → (T, P, J, 3): column, row, depth. The view is fixed for the recording, so that people move in it."""
    across, up = people[..., 0], people[..., 1]
    depth = people[..., 2] if people.shape[-1] == 3 else np.zeros_like(across)
    if yaw:
        angle, middle = np.deg2rad(yaw), np.nanmedian(depth)
        across, depth = (
            np.cos(angle) * across - np.sin(angle) * (depth - middle),
            np.sin(angle) * across + np.cos(angle) * (depth - middle),
        )
    down = -layout.up * up
    if not np.isfinite(across).any():
        return np.stack([across, down, depth], axis=-1)
    height, width = size
    # Percentiles, so that a single outlier does not shrink the picture.
    low, high = np.nanpercentile(np.stack([across, down]).reshape(2, -1), [0.2, 99.8], axis=1)
    scale = 0.88 * min(width / max(high[0] - low[0], 1e-6), height / max(high[1] - low[1], 1e-6))
    middle = 0.5 * (low + high)
    columns = (across - middle[0]) * scale + 0.5 * width
    rows = (down - middle[1]) * scale + 0.5 * height
    return np.stack([np.clip(columns, 0, width - 1), np.clip(rows, 0, height - 1), depth], axis=-1)


def render_frames(
    keypoints: np.ndarray,
    layout: str | SkeletonLayout = "kinect25",
    *,
    size: tuple[int, int] = (240, 240),
    yaw: float = 0.0,
) -> np.ndarray:
    """Draws a recording from the viewpoint of its sensor, or rotated by `yaw`.

    Args:
        keypoints: (T, J, C) or (T, P, J, C) with C = 2 or 3. People whose joints are all zero are absent; NaN joints are left
            out.
        layout: name of the joint layout, or the layout.
        size: height and width in pixels.
        yaw: rotation about the vertical in degrees; needs C = 3.

    Returns:
        uint8 (T, height, width, 3), RGB. Left limbs have warm colours and right limbs cool colours; near bones cover far bones.

    Raises:
        ValueError: if keypoints do not fit the layout.
    """
    return np.concatenate(list(render_batches(keypoints, layout, size=size, yaw=yaw)))


def render_batches(
    keypoints: np.ndarray,
    layout: str | SkeletonLayout = "kinect25",
    *,
    size: tuple[int, int] = (240, 240),
    yaw: float = 0.0,
) -> Iterator[np.ndarray]:
    """`render_frames` in batches (n, height, width, 3), in order, so that memory does not grow with the recording."""
    layout = get_layout(layout)
    people = _as_people(keypoints, layout)
    height, width = size
    pixels = _to_pixels(people, layout, (height * OVERSAMPLING, width * OVERSAMPLING), yaw)
    batch = max(1, _BATCH_PIXELS // (height * width * OVERSAMPLING**2))
    for start in range(0, len(people), batch):
        yield _draw(pixels[start : start + batch], layout, height, width)


def draw_over(pictures: np.ndarray, pixels: np.ndarray, layout: str | SkeletonLayout) -> np.ndarray:
    """Draws people over pictures.

    Args:
        pictures: uint8 (T, height, width, 3).
        pixels: column and row of each joint, (T, P, J, 2); NaN joints are left out.
        layout: name of the joint layout, or the layout.

    Returns:
        uint8 (T, height, width, 3).
    """
    flat = np.concatenate([pixels * OVERSAMPLING, np.zeros_like(pixels[..., :1])], axis=-1)
    return _draw(flat, get_layout(layout), *pictures.shape[1:3], pictures)


def _draw(
    pixels: np.ndarray, layout: SkeletonLayout, height: int, width: int, pictures: np.ndarray | None = None
) -> np.ndarray:
    """Draws all frames of a batch, over `pictures` if given, on one tall canvas: much faster than a canvas per frame."""
    count, persons = pixels.shape[:2]
    tall = height * OVERSAMPLING
    size = (width * OVERSAMPLING, tall * count)
    if pictures is None:
        canvas = Image.new("RGB", size, BACKGROUND)
    else:
        canvas = Image.fromarray(pictures.reshape(-1, width, 3)).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    child, parent = np.array(layout.bones).T
    part_of = {joint: name for name, joints in layout.parts.items() for joint in joints}
    colors = [
        [PART_COLORS.get(part_of[joint], PART_COLORS["trunk"])[min(person, 1)] for joint in range(layout.num_joints)]
        for person in range(persons)
    ]
    pen = max(2, round(0.018 * tall))
    head = list(layout.joint_names).index("head") if "head" in layout.joint_names else None

    points = pixels.copy()
    # The ends of bones must stay within their frame of the tall canvas.
    points[..., 1] = np.clip(points[..., 1], 0.5 * pen, tall - 1 - 0.5 * pen)
    points[..., 1] += tall * np.arange(count)[:, None, None]
    ends = np.concatenate([points[:, :, child, :2], points[:, :, parent, :2]], axis=-1)  # (T, P, B, 4)
    depth = 0.5 * (points[:, :, child, 2] + points[:, :, parent, 2])
    drawable = np.isfinite(ends).all(-1)
    for frame in range(count):
        bones = np.argwhere(drawable[frame])
        order = np.argsort(-depth[frame][tuple(bones.T)], kind="stable")
        for person, bone in bones[order].tolist():
            color = colors[person][child[bone]]
            x0, y0, x1, y1 = ends[frame, person, bone].tolist()
            draw.line((x0, y0, x1, y1), fill=color, width=pen)
            radius = 0.5 * pen
            draw.ellipse((x0 - radius, y0 - radius, x0 + radius, y0 + radius), fill=color)
        if head is not None:
            for person in range(persons):
                x, y = points[frame, person, head, :2].tolist()
                if np.isfinite(x + y):
                    radius = 2.2 * pen
                    # The ring must stay within its frame: the next frame is directly below.
                    y = min(max(y, frame * tall + radius), (frame + 1) * tall - 1 - radius)
                    draw.ellipse(
                        (x - radius, y - radius, x + radius, y + radius), outline=colors[person][head], width=pen
                    )
    image = np.asarray(canvas.reduce(OVERSAMPLING))
    return image.reshape(count, height, width, 3)


def contact_sheet(
    rows: Sequence[SheetRow],
    layout: str | SkeletonLayout = "kinect25",
    *,
    columns: int = 10,
    size: tuple[int, int] = (150, 150),
    yaw: float = 0.0,
) -> np.ndarray:
    """Draws recordings below each other, each as pictures that are evenly spaced in time.

    Titles are wrapped and captions are cut with an ellipsis. If several bodies are drawn, the title gives their colours.

    Args:
        rows: the recordings.
        layout: name of their joint layout, or the layout.
        columns: number of pictures per recording.
        size: height and width of a picture in pixels.
        yaw: rotation about the vertical in degrees.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    height, width = size
    layout = get_layout(layout)
    caption_band = 14 if any(row.captions is not None for row in rows) else 0
    parts = []
    for row in rows:
        keypoints = np.asarray(row.keypoints)
        picked = np.linspace(0, len(keypoints) - 1, columns).round().astype(int)
        # The scale is that of the whole recording, but only the shown frames are drawn.
        pixels = _to_pixels(_as_people(keypoints, layout), layout, (height * OVERSAMPLING, width * OVERSAMPLING), yaw)
        strip = _draw(pixels[picked], layout, height, width).transpose(1, 0, 2, 3).reshape(height, columns * width, 3)
        bodies = np.flatnonzero(np.isfinite(pixels[picked]).all(axis=-1).any(axis=(0, 2))) + 1
        part = titled(strip, row.title + _which_is_which(bodies.tolist()))
        part = np.concatenate([part, np.full((caption_band, *part.shape[1:]), BACKGROUND, np.uint8)])
        part[0] = 205
        sheet = Image.fromarray(part)
        for column, caption in enumerate(row.captions or ()):
            text = shortened(drawable(caption), width - 2 * _MARGIN)
            draw_text(ImageDraw.Draw(sheet), (column * width + _MARGIN, len(part) - caption_band), text, INK)
        parts.append(np.asarray(sheet))
    return np.concatenate(parts)


def _which_is_which(bodies: list[int]) -> str:
    """The colours of several bodies, numbered from 1, for a title; empty for a single body."""
    if len(bodies) < 2:
        return ""
    lighter = [str(body) for body in bodies if body > 1]
    return f" (lighter: body {lighter[0]})" if len(lighter) == 1 else f" (lighter: bodies {', '.join(lighter)})"


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """The image, uint8 (H, W, 3), with a title of up to three lines above it."""
    lines = wrapped(drawable(title), image.shape[1] - 2 * _MARGIN)
    band = 3 + _LINE * max(len(lines), 1)
    sheet = Image.new("RGB", (image.shape[1], image.shape[0] + band), BACKGROUND)
    for number, line in enumerate(lines):
        draw_text(ImageDraw.Draw(sheet), (_MARGIN, 1 + _LINE * number), line, INK)
    sheet.paste(Image.fromarray(np.ascontiguousarray(image)), (0, band))
    return np.asarray(sheet)


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes an image, uint8 (H, W, 3), as PNG, whole or not at all."""
    with written_whole(path) as unfinished:
        Image.fromarray(np.ascontiguousarray(image)).save(unfinished, format="PNG")


def write_video(path: str | os.PathLike, batches: Iterable[np.ndarray], fps: float, *, quality: int = 18) -> None:
    """Writes frames as mp4 (H.264), whole or not at all.

    Args:
        path: of the video.
        batches: the frames in order, uint8 (n, H, W, 3) each, with even H and W.
        fps: frames per second.
        quality: constant rate factor of x264; a higher value gives a smaller file and a worse picture.
    """
    # One thread gives the same bytes on every machine, and commands run one process per core. The macroblock tree of x264 is
    # off, because on processors with AVX-512 equal frames gave different bytes with it (measured with av 18.1).
    options = {"preset": "veryfast", "crf": str(quality), "threads": "1", "x264-params": "mbtree=0"}
    with written_whole(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.pix_fmt = "yuv420p"
        for frames in batches:
            if not stream.codec_context.is_open:
                stream.height, stream.width = frames.shape[1:3]
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
