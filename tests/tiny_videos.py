"""Videos of a few small frames, as bytes, for tests."""

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import av
import numpy as np

CODECS = {"mp4": "libx264", "avi": "mpeg4", "matroska": "libx264", "webm": "libvpx-vp9", "mpegts": "libx264"}


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
    pixel_aspect: Fraction | None = None,
    transfer: int | None = None,
) -> bytes:
    """`picture(0)` to `picture(num_frames - 1)`, at regular times or at `times` (a tuple, in units of 1 / fps).

    Pixels are `pixel_aspect` times as wide as high. With a `transfer` as FFmpeg numbers them, the video says that it is coded
    so, with the primaries of BT.2020.
    """
    file = io.BytesIO()
    # Where a transport stream begins is in its times.
    with av.open(file, "w", format=container, options={"mpegts_copyts": "1"} if container == "mpegts" else {}) as out:
        stream = out.add_stream(CODECS[container], rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.gop_size = key_every
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if transfer is not None:
            stream.codec_context.color_trc, stream.codec_context.color_primaries = transfer, 9
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, height, width), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def with_display_matrix(mp4: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """The same mp4, whose pixel (x, y) is shown at (a x + c y, b x + d y), but for where the picture begins."""
    place = mp4.index(b"tkhd") + 4 + 4 + 36
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    return mp4[:place] + b"".join((value % 2**32).to_bytes(4, "big") for value in matrix) + mp4[place + 36 :]


def rotated(mp4: bytes) -> bytes:
    """The same mp4 with a display matrix that turns it by a quarter."""
    return with_display_matrix(mp4, 0, 1, -1, 0)


def with_media_duration(mp4: bytes, share: float) -> bytes:
    """The same mp4, whose head says that it lasts a share of its time."""
    place = mp4.index(b"mdhd") + 4 + 4 + 12
    duration = round(share * int.from_bytes(mp4[place : place + 4], "big"))
    return mp4[:place] + duration.to_bytes(4, "big") + mp4[place + 4 :]


def damaged(video: bytes, *packets: int) -> bytes:
    """The same video; the second half of some of its packets is overwritten."""
    content = bytearray(video)
    with av.open(io.BytesIO(video)) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if number in packets:
                content[packet.pos + packet.size // 2 : packet.pos + packet.size] = bytes(
                    packet.size - packet.size // 2
                )
    return bytes(content)
