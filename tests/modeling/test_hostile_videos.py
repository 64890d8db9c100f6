"""Videos and pictures that would reach the network, open other files, or ask for more memory and time than they are worth."""

import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tiny_videos import tiny_video

from action_llm import VideoFeatureExtractor
from action_llm.high_dynamic_range import HLG, PQ, to_standard_range
from action_llm.video_files import VideoFile, open_video, read_video_info
from action_llm.video_frames import VideoFileError

SDP_PORTS = (45678, 45679)


@contextmanager
def watched_server():
    """A port, and the paths that were asked for there."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield http.server_port, asked
        http.shutdown()


def references(port: int) -> dict[str, tuple[str, str]]:
    """Texts that name addresses or other files, and what an error calls them."""
    there = f"http://127.0.0.1:{port}"
    return {
        "hls": (
            f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{there}/key"\n#EXTINF:9,\n'
            f"{there}/part.ts\n#EXT-X-ENDLIST\n",
            r"a playlist \(HLS\)",
        ),
        "concat": ("ffconcat version 1.0\nfile neighbour.mp4\n", r"a list of files \(ffconcat\)"),
        "concat_web": (f"ffconcat version 1.0\nfile {there}/a.mp4\n", r"a list of files \(ffconcat\)"),
        "sdp": (
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            f"m=video {SDP_PORTS[0]} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
            r"a session description \(SDP\)",
        ),
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:'
            f'isoff-on-demand:2011"><Period><BaseURL>{there}/</BaseURL></Period></MPD>',
            r"a manifest \(DASH\)",
        ),
        "smil": (f'<smil><video src="{there}/a.mp4"/></smil>', "a playlist"),
        "pls": (f"[playlist]\nFile1={there}/a.mp4\n", "a playlist"),
    }


@pytest.mark.parametrize("name", references(0))
@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".m3u8", ".sdp"])
def test_what_names_other_files_or_addresses_is_refused(tmp_path, name, suffix):
    """Nothing is asked of the network, no port is bound, and the file beside it stays closed, whatever the suffix says."""
    with watched_server() as (port, asked):
        text, expected = references(port)[name]
        path = tmp_path / f"clip{suffix}"
        path.write_text(text)
        (tmp_path / "neighbour.mp4").write_bytes(tiny_video())
        in_memory = io.BytesIO(text.encode())
        in_memory.name = f"http://127.0.0.1:{port}/clip.m3u8"
        with ExitStack() as stack:
            # A decoder that listened would not get these ports, and says so; without them nothing changes.
            for bound in SDP_PORTS:
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("", bound))
            for file in (path, stack.enter_context(path.open("rb")), io.BytesIO(text.encode()), in_memory):
                with pytest.raises(VideoFileError, match=f"expected a video in a single file, found {expected}"):
                    VideoFile(file)
        assert not asked


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs the list of open files that Linux has")
def test_a_file_is_all_that_is_open(tmp_path):
    """While a video is read, it is the only file that is open besides those from before; there is no socket."""
    (tmp_path / "clip.mp4").write_bytes(tiny_video())

    def opened() -> set[str]:
        return {os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if os.path.exists(
            f"/proc/self/fd/{number}")}  # fmt: skip

    before = opened()
    with VideoFile(tmp_path / "clip.mp4") as video:
        video.frames_at([0.1])
        assert {path for path in opened() - before if not path.startswith("/proc")} == {str(tmp_path / "clip.mp4")}


@pytest.mark.parametrize(
    "name", ["concat:a|b", "subfile,,start,0,end,9,,:a", "pipe:0", "-", "http:clip.mp4", "data:video", "%03d.mp4"]
)
def test_a_name_is_that_of_a_file_whatever_it_begins_with(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for file in ("a", "b"):
        (tmp_path / file).write_bytes(tiny_video(3, container="mpegts"))
    with pytest.raises(OSError):
        VideoFile(name)
    (tmp_path / name).write_bytes(tiny_video(9))
    assert read_video_info(name).num_frames == 9


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.mp4", "rtsp://127.0.0.1/a", "lavfi:testsrc", "tcp://a:1"])
def test_an_address_is_no_file(address):
    with pytest.raises(OSError):
        VideoFile(address)


def test_the_pattern_of_a_sequence_of_pictures_is_none(tmp_path):
    for number in range(3):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number:03d}.png")
    Image.new("RGB", (80, 60)).save(tmp_path / "%03d.png")
    with pytest.raises(VideoFileError, match="of an unsupported format"):
        VideoFile(tmp_path / "%03d.png")
    with (tmp_path / "%03d.png").open("rb") as file, VideoFile(file) as video:
        assert video.info[3:] == (80, 60)


def box(name: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + name + content


def with_number(data: bytes, name: bytes, offset: int, value: int) -> bytes:
    """The same file with another number of 32 bits in the content of the first box of a name."""
    place = data.index(name) + 4 + offset
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def moved_index(data: bytes) -> tuple[bytes, bytes]:
    """An MP4 file without its index, and the index."""
    place = data.index(b"moov") - 4
    length = struct.unpack(">I", data[place : place + 4])[0]
    return data[:place] + data[place + length :], data[place : place + length]


BIG_RUN = box(b"trun", struct.pack(">II", 1, 8 * 10**7))
# A bomb, and what is said of it.
BOMBS = {
    "samples of one size": (
        with_number(
            with_number(with_number(tiny_video(), b"stsz", 4, 1), b"stsz", 8, 8 * 10**7), b"stsc", 12, 8 * 10**7
        ),
        r"expected an index of the frames in the file, found an index of 80,000,000 samples in [\d,]+ bytes",
    ),
    "behind a box that nobody knows": (
        box(b"junk") + with_number(with_number(tiny_video(), b"stsz", 4, 1), b"stsz", 8, 8 * 10**7),
        "found an index of 80,000,000 samples",
    ),
    "in a box of another name": (
        with_number(with_number(tiny_video(), b"stsz", 4, 1), b"stsz", 8, 8 * 10**7).replace(b"moov", b"hoov"),
        "found an index of 80,000,000 samples",
    ),
    "in a free box": (
        moved_index(tiny_video())[0]
        + box(b"free", with_number(with_number(moved_index(tiny_video())[1], b"stsz", 4, 1), b"stsz", 8, 8 * 10**7)),
        "found an index of 80,000,000 samples",
    ),
    "in metadata": (
        tiny_video() + box(b"moof", box(b"traf", box(b"meta", bytes(4), box(b"hdlr", bytes(24)), BIG_RUN))),
        "found an index of 80,000,006 samples",
    ),
    "in a description": (
        tiny_video() + box(b"moof", box(b"traf", box(b"stsd", bytes(77), BIG_RUN))),
        "found an index of 80,000,006 samples",
    ),
    "pictures": (
        box(b"ftyp", b"heic", bytes(4))
        + box(b"meta", bytes(4), box(b"hdlr", bytes(24)), box(b"iloc", struct.pack(">BxxxHI", 2, 0, 8 * 10**7))),
        "found an index of 80,000,000 samples",
    ),
    "pieces of one size": (
        tiny_video() + box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 1, 8 * 10**7)))),
        "found an index of 80,000,006 samples",
    ),
    "edits times samples": (
        box(b"ftyp", b"isom", bytes(4))
        + box(
            b"moov",
            box(
                b"trak",
                box(b"edts", box(b"elst", struct.pack(">II", 0, 10**5), bytes(12 * 10**5))),
                box(b"stbl", box(b"stsz", struct.pack(">III", 0, 1, 10**6))),
            ),
        ),
        "found an index of 100,000,000,000 samples",
    ),
    "a compressed index": (
        moved_index(tiny_video())[0]
        + box(b"moov", box(b"cmov", box(b"cmvd", struct.pack(">I", 1 << 30), zlib.compress(bytes(1 << 27), 9)))),
        "a compressed index of more than 67,108,864 bytes",
    ),
    "boxes in boxes": (box(b"ftyp") + b"\0\0\0\0moov" * 20_000, "Invalid data|without its index"),
    "boxes without end": (box(b"ftyp") + box(b"moov", box(b"free") * 1_000_001), "more than 1,000,000 boxes"),
}


@contextmanager
def memory_within(kibibytes: int):
    """The block takes no more memory than this at any time; Linux alone tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return

    def read(name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1])

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = read("VmRSS")
    yield
    assert read("VmHWM") - before < kibibytes


@pytest.mark.parametrize("name", BOMBS)
def test_an_index_that_asks_for_gigabytes(tmp_path, name):
    data, message = BOMBS[name]
    (tmp_path / "bomb.mp4").write_bytes(data)
    with memory_within(300_000):
        for file in (tmp_path / "bomb.mp4", io.BytesIO(data)):
            with pytest.raises(VideoFileError, match=message):
                VideoFile(file)


def test_a_compressed_index_is_read():
    rest, index = moved_index(tiny_video())
    compressed = box(b"cmvd", struct.pack(">I", len(index)), zlib.compress(index))
    # The samples lie where the index says, which is where it is moved to the end itself.
    data = rest + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), compressed))
    assert read_video_info(io.BytesIO(data))[:2] == (6, 30.0)


class _Bits:
    """Bits of a parameter set of H.264."""

    def __init__(self):
        self.text = ""

    def fixed(self, count: int, value: int):
        self.text += format(value, f"0{count}b")

    def golomb(self, value: int):
        self.text += "0" * ((value + 1).bit_length() - 1) + format(value + 1, "b")

    def unit(self) -> bytes:
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        content, zeros = bytearray(), 0
        for place in range(0, len(text), 8):
            value = int(text[place : place + 8], 2)
            if zeros >= 2 and value <= 3:
                content.append(3)
                zeros = 0
            content.append(value)
            zeros = zeros + 1 if value == 0 else 0
        return bytes(content)


def sequence_parameters(height: int, width: int) -> bytes:
    """The H.264 unit that says how large pictures are; baseline profile, 16 reference frames."""
    bits = _Bits()
    for count, value in ((8, 0x67), (8, 66), (8, 0xC0), (8, 255)):
        bits.fixed(count, value)
    for value in (0, 0, 2, 16):
        bits.golomb(value)
    bits.fixed(1, 0)
    bits.golomb(width // 16 - 1)
    bits.golomb(height // 16 - 1)
    bits.fixed(4, 0b1000)
    return bits.unit()


def h264(frames: int, height: int, width: int, since: int) -> bytes:
    """A raw stream of 32 x 48 pixels, whose parameter sets from one on say another size."""
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as out:
        options = {"profile": "baseline", "preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=5"}
        stream = out.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 48, 3), 4 * number, np.uint8), "rgb24")))
        out.mux(stream.encode())
    result, sets = b"", 0
    for unit in re.split(rb"\x00{2,3}\x01", file.getvalue()):
        if unit and unit[0] & 31 == 7:
            unit = sequence_parameters(height, width) if sets >= since else unit
            sets += 1
        result += b"\0\0\0\1" + unit if unit else b""
    return result


def test_a_coded_size_of_gigabytes():
    data = h264(10, 16000, 16000, 0)
    with pytest.raises(
        VideoFileError, match=r"expected at most 35,389,440 pixels .*: scale it down, found .* 16000 x 16000"
    ):
        VideoFile(io.BytesIO(data))


def test_a_size_that_becomes_gigantic_ends_the_video():
    with memory_within(500_000):
        with VideoFile(io.BytesIO(h264(40, 16000, 16000, 3))) as video, pytest.warns(UserWarning):
            pictures = video.frames_at(np.arange(40) / 25, (8, 8))
        assert pictures[5].mean() > pictures[0].mean() and (pictures[-1] == pictures[30]).all()


def test_damaged_frames_are_not_waited_for_without_end():
    message = r"no frame that can be decoded \(the first 34 frames are damaged\)"
    with VideoFile(io.BytesIO(h264(60, 4320, 8192, 0))) as video, pytest.raises(VideoFileError, match=message):
        video.frames_at([0.0], (8, 8))


def test_a_gap_of_weeks_is_left_out():
    """A stream would give the frame before it for weeks."""
    data = tiny_video(6, 25, "matroska", times=(0, 1, 2, 3, 25 * 10**6, 25 * 10**6 + 1))
    whole = tiny_video(6, 25, "matroska")
    with VideoFile(io.BytesIO(data)) as video, VideoFile(io.BytesIO(whole)) as expected:
        assert video.info.seconds == pytest.approx(10**6, rel=1e-3)
        with pytest.warns(UserWarning, match=r"decoding stopped at 0\.20 s of 1000000"):
            pictures = list(video.pictures_in_order([*(np.arange(30) / 25).tolist(), *range(2, 10**6)]))
        assert len(pictures) == 30
        # Coded anew, they differ a little.
        np.testing.assert_allclose(pictures[:6], expected.frames_at(np.arange(6) / 25), atol=8)


@pytest.mark.parametrize("frames_per_second", [1e-6, 0.001, 1e9, float("nan")])
def test_rates_that_no_recording_has(tmp_path, frames_per_second):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    with pytest.raises(VideoFileError, match=r"expected from 0\.01 to 10,000 frames per second, found"):
        open_video(tmp_path, fps=frames_per_second)
    with pytest.raises(VideoFileError, match=r"array: expected from 0\.01 to 10,000 frames per second"):
        open_video(np.zeros((9, 8, 8, 3), np.uint8), fps=frames_per_second)


def test_a_head_that_promises_years_is_not_believed():
    """The duration of a Matroska file, a float of 64 bits, says 3 years: packets are counted."""
    data = tiny_video(30, 25, "matroska")
    place = data.index(b"\x44\x89\x88") + 3
    data = data[:place] + struct.pack(">d", 1e11) + data[place + 8 :]
    assert read_video_info(io.BytesIO(data))[:3] == (30, 25.0, pytest.approx(1.2, abs=0.01))


def test_more_pictures_at_a_time_than_there_is_memory_for(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "1.png")
    for recording in (tmp_path, np.zeros((2, 48, 64, 3), np.uint8), io.BytesIO(tiny_video(2))):
        with open_video(recording) as video:
            with pytest.raises(VideoFileError, match="expected at most 1,024 MiB of frames at a time: request fewer"):
                video.frames_at(np.zeros(200), (3000, 4000))
            assert video.frames_at(np.zeros(200), (3000, 4000), (slice(0, 2), slice(5, 9))).shape == (200, 2, 4, 3)
            with pytest.raises(VideoFileError, match="of frames at a time"):
                video.frames_at([0.0], (10**6, 10**6))


# ------------------------------------------------------------------------------------------------------------ pictures


def png(height: int, width: int, *chunks: bytes) -> bytes:
    """A PNG file of a few KB with black pixels of any number."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(min(height * (width // 8 + 1), 1 << 24)), 9)
    made = [chunk(part[:4], part[4:]) for part in chunks]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(made) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(60_000, 60_000), "DecompressionBombError"),
        (png(12_000, 12_000), r"expected at most 35,389,440 pixels .* found frames of 12000 x 12000 pixels"),
        (png(30, 40, b"zTXta\0\0" + zlib.compress(bytes(1 << 24))), "Decompressed data too large"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n(w) (w) file\n",
            "UnidentifiedImageError",
        ),
        (b"P6 40 30 255\n" + bytes(3600), "UnidentifiedImageError"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_are_bombs_or_programs(tmp_path, content, message):
    (tmp_path / "7.png").write_bytes(content)
    with (
        memory_within(300_000),
        pytest.raises(VideoFileError, match=rf"7\.png: expected .*{message}|7\.png: {message}"),
    ):
        open_video(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_damaged_pictures_are_said_by_their_name(tmp_path, suffix):
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    path = tmp_path / f"1.{suffix}"
    Image.fromarray(picture).save(path)
    content, generator = path.read_bytes(), np.random.default_rng(1)
    for _ in range(200):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = generator.integers(0, len(damaged), generator.integers(1, 8))
        damaged[places] = generator.integers(0, 255, len(places))
        path.write_bytes(
            damaged[: generator.integers(1, len(damaged)) if generator.random() < 0.3 else None].tobytes()
        )
        try:
            with warnings.catch_warnings(), open_video(tmp_path) as video:
                warnings.simplefilter("ignore")
                assert video.frames_at([0.0], (8, 8)).shape == (1, 8, 8, 3)
        except VideoFileError as error:
            assert path.name in str(error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have names")
def test_a_pipe_is_not_waited_for(tmp_path):
    for name in ("1.png", "clip.mp4"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(VideoFileError, match=r"1\.png: expected an image, found no regular file"):
        open_video(tmp_path)
    with pytest.raises(VideoFileError, match="an empty file"):
        open_video(tmp_path / "clip.mp4")


def test_numbers_of_pictures_may_be_longer_than_an_integer(tmp_path):
    for last in (1, 2, 4):
        Image.new("RGB", (40, 30), (50 * last, 0, 0)).save(tmp_path / f"cam_2026112901364512345678{last}.png")
    with pytest.warns(UserWarning, match="1 of 4 numbers are missing, the first is 20261129013645123456783"):
        video = open_video(tmp_path, fps=1)
    assert video.info.num_frames == 4
    assert video.frames_at([0, 1, 2, 3, 9], (1, 1))[:, 0, 0, 0].tolist() == [50, 100, 100, 200, 200]


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_strips_of_a_bright_picture_are_the_picture(transfer, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 65536, (37, 20, 3)).astype(np.uint16)
    whole = to_standard_range(picture, transfer, 9)
    monkeypatch.setattr("action_llm.high_dynamic_range.STRIP_PIXELS", 60)
    np.testing.assert_array_equal(to_standard_range(picture, transfer, 9), whole)


# ----------------------------------------------------------------------------------------------------------- extractor


def test_a_video_whose_features_ask_for_gigabytes():
    """Where segments have a duration, it is the video that says how many there are."""
    extractor = VideoFeatureExtractor(1000, 8, segment_seconds=0.01, height=1024, width=1024)
    with pytest.raises(
        VideoFileError, match=r"recording 0: expected features of at most 268,435,456 numbers at a time \(lower"
    ):
        extractor(np.zeros((9, 8, 8, 3), np.uint8))


def test_files_whose_reader_fails_say_so():
    class Broken(io.BytesIO):
        def read(self, count=-1):
            if self.tell() > 500:
                raise OSError(5, "Input/output error")
            return super().read(min(count, 501))

    with pytest.raises(OSError, match="Input/output error"):
        VideoFile(Broken(tiny_video()))
    with pytest.raises(VideoFileError, match="a file opened in binary mode"):
        VideoFile(io.StringIO("text"))


@pytest.mark.parametrize("container", ["mp4", "avi", "matroska", "webm", "mpegts"])
def test_damaged_videos_are_data_or_an_error(container):
    """In a process with 3 GB of addresses, and 60 s for all of them."""
    script = f"""
import io, resource, sys, warnings
import numpy as np
sys.path[:0] = {[os.path.dirname(os.path.dirname(__file__))]!r}
from tiny_videos import tiny_video
from action_llm.video_files import VideoFile
from action_llm.video_frames import VideoFileError
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
content, generator, read = tiny_video(12, 12, {container!r}), np.random.default_rng(0), 0
for number in range(150):
    damaged = np.frombuffer(content, np.uint8).copy()
    places = generator.integers(0, len(damaged), generator.integers(1, 12))
    damaged[places] = generator.integers(0, 255, len(places))
    if generator.random() < 0.2:
        damaged = damaged[: generator.integers(1, len(damaged))]
    try:
        with VideoFile(io.BytesIO(damaged.tobytes())) as video:
            video.frames_at([0.0, 0.7 * video.info.seconds], (8, 8))
            seconds = min(video.info.seconds, 1e6)
            read += sum(1 for _ in video.pictures_in_order(np.arange(0, seconds, 0.5).tolist(), (8, 8))) > 0
    except VideoFileError:
        continue
print("read", read)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(re.search(r"read (\d+)", ended.stdout)[1]) > 10


@pytest.mark.parametrize("fps", [0, -1, float("nan"), "30", 1e9])
def test_rates_that_are_none(fps, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    for frames in (np.zeros((3, 8, 8, 3), np.uint8), tmp_path):
        with pytest.raises(VideoFileError, match=r"expected from 0\.01 to 10,000 frames per second, found fps"):
            open_video(frames, fps=fps)
