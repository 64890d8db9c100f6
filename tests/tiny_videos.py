"""Videos of a few small frames, as bytes, for tests."""

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import av
import numpy as np

CODECS = {"mp4": "libx264", "avi": "mpeg4", "matroska": "libx264", "webm": "libvpx-vp9"}


def picture(number: int, height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 (H, W, 3): a picture that is unlike its neighbours; a dark left half, a light corner at the top right."""
    image = np.full((height, width, 3), 60 + 37 * number % 160, np.uint8)
    image[:, : width // 2] //= 3
    image[: height // 4, -width // 4 :] = 250
    return image


@cache
def tiny_video(
    num_frames: int = 6,
    fps: int = 30,
    container: str = "mp4",
    height: int = 32,
    width: int = 48,
    *,
    times: Sequence[int] | None = None,
    key_every: int = 4,
) -> bytes:
    """`picture(0)` to `picture(num_frames - 1)`, at regular times or at `times` (a tuple, in units of 1 / fps)."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(CODECS[container], rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.gop_size = key_every
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def rotated(mp4: bytes) -> bytes:
    """The same mp4 with a display matrix that turns it by a quarter."""
    place = mp4.index(b"tkhd") + 4 + 4 + 36
    matrix = [0, 1 << 16, 0, (-1 << 16) % 2**32, 0, 0, 0, 0, 1 << 30]
    return mp4[:place] + b"".join(value.to_bytes(4, "big") for value in matrix) + mp4[place + 36 :]
