"""Videos of a few small frames, as bytes, for tests."""

import io
from functools import cache

import av
import numpy as np

CODECS = {"mp4": "libx264", "avi": "mpeg4", "matroska": "libx264", "webm": "libvpx-vp9"}


@cache
def tiny_video(num_frames: int = 6, fps: int = 30, container: str = "mp4", height: int = 32, width: int = 48) -> bytes:
    """Grey frames, frame n of brightness 20 n modulo 240."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(CODECS[container], rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(num_frames):
            frame = np.full((height, width, 3), 20 * number % 240, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return file.getvalue()
