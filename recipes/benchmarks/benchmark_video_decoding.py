"""Time to read evenly spaced frames of videos, beside a plain loop.

    python recipes/benchmarks/benchmark_video_decoding.py --folder clips --output video_decoding
    python recipes/benchmarks/benchmark_video_decoding.py --output video_decoding        # generated videos

64 evenly spaced frames of each video are read at 256 x 256: by `VideoFile.frames_at`, which seeks if that is faster and scales
only the frames that it returns, and by a plain loop, which decodes every frame, keeps the requested ones and scales them with
the same filter. Both must give identical frames. Then `VideoFeatureExtractor` reads batches with one and with two decoding
threads. Wall-clock time is measured. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import os
import platform
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

FRAMES, SIZE = 64, (256, 256)


@dataclass
class BenchmarkArguments:
    """Which videos are read, and how often."""

    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    folder: str | None = field(default=None, metadata={"help": "folder of videos; by default two are generated"})
    repetitions: int = field(default=5, metadata={"help": "times that each video is read; the median is reported"})


def write_videos(folder: Path):
    """Writes a clip of five seconds and a video of two minutes: moving noise, with a key frame every second."""
    import av
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 80, (480, 960, 3), dtype=np.uint8)
    for name, seconds in (("clip_5s.mp4", 5), ("video_120s.mp4", 120)):
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream("libx264", rate=30, options={"preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt = 480, 640, "yuv420p"
            stream.codec_context.gop_size = 30
            for number in range(30 * seconds):
                shift = number * 2 % 320
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[:, shift : shift + 640]))))
            out.mux(stream.encode())


def plain_loop(path, times):
    """Reads the frames at `times` (seconds) by decoding every frame."""
    import av
    import numpy as np

    pictures, held, place = [], None, 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        start = float((stream.start_time or 0) * stream.time_base)
        last = -np.inf
        for frame in container.decode(stream):
            last = max(last, frame.time)
            while (
                held is not None
                and place < len(times)
                and last > times[place] + start + 1e-3 / float(stream.average_rate)
            ):
                pictures.append(held)
                place += 1
            held = frame
        pictures += [held] * (len(times) - place)
    return np.stack(
        [picture.reformat(*SIZE[::-1], "rgb24", interpolation="BICUBIC").to_ndarray() for picture in pictures]
    )


def frames_at(path, times):
    """Reads the frames at `times` (seconds) with our reader."""
    from action_llm.video_files import VideoFile

    with VideoFile(path) as video:
        return video.frames_at(times, SIZE)


def median_seconds(work, repetitions: int) -> float:
    """Median wall-clock seconds of a function."""
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(median(seconds))


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    import av
    import numpy as np

    from action_llm import VideoFeatureExtractor
    from action_llm.video_files import VIDEO_SUFFIXES, read_video_info
    from action_llm_recipes.benchmarks.results import write_results

    videos = []
    with tempfile.TemporaryDirectory() as generated:
        if arguments.folder is None:
            write_videos(Path(generated))
        folder = Path(arguments.folder or generated)
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        if not paths:
            raise SystemExit(f"there are no {', '.join(VIDEO_SUFFIXES)} files in {folder}.")
        for path in paths:
            info = read_video_info(path)
            times = (np.arange(FRAMES) + 0.5) * info.seconds / FRAMES
            if not np.array_equal(frames_at(path, times), plain_loop(path, times)):
                raise SystemExit(f"{path.name}: the two readers give different frames.")
            seconds = {
                name: median_seconds(partial(reader, path, times), arguments.repetitions)
                for name, reader in (("ours", frames_at), ("plain loop", plain_loop))
            }
            videos.append({"file": path.name, **info._asdict(), "seconds_needed": seconds})
        speeds = {}
        for threads in (1, 2):
            extractor = VideoFeatureExtractor(decode_threads=threads)
            speeds[threads] = FRAMES * len(paths) / median_seconds(partial(extractor, paths), arguments.repetitions)
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, PyAV {av.__version__}"
    )
    record = {"machine": machine, "videos": videos, "frames_a_second_by_threads": speeds}
    write_results(arguments.output, record, report(record, arguments.repetitions))
    return record


def report(record: dict, repetitions: int) -> str:
    """The results as a page in Markdown."""
    lines = [
        f"{record['machine']}; {FRAMES} frames per video at {SIZE[0]} x {SIZE[1]}, median of {repetitions} rounds.",
        "",
        "| video | frames | plain loop, ms | ours, ms | × | frames per second |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for video in record["videos"]:
        plain, ours = video["seconds_needed"]["plain loop"], video["seconds_needed"]["ours"]
        lines.append(
            f"| {video['file']}, {video['width']} x {video['height']} | {video['num_frames']:,} | {1e3 * plain:.0f} | "
            f"{1e3 * ours:.0f} | {plain / ours:.1f} | {FRAMES / ours:,.0f} |"
        )
    speeds = ", ".join(
        f"{speed:,.0f} with {threads} thread{'s' * (threads > 1)}"
        for threads, speed in record["frames_a_second_by_threads"].items()
    )
    lines += ["", f"Batches of all videos through `VideoFeatureExtractor`, frames per second: {speeds}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
