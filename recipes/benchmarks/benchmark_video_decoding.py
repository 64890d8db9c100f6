"""Time of taking frames out of videos, beside a plain loop, in one run.

    python recipes/benchmarks/benchmark_video_decoding.py --folder clips --output video_decoding
    python recipes/benchmarks/benchmark_video_decoding.py --output video_decoding        # made-up videos

Of each video, 64 frames evenly spaced, at 256 x 256: by `VideoFile.frames_at`, which seeks where that is shorter and
scales only what is kept; and by the plain loop, which decodes every frame, keeps those that are wanted and scales them
by the same filter. Both give the same pictures. Then whole batches by `VideoFeatureExtractor`, with one and with two
decoding threads. The time is by the clock. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

FRAMES, SIZE = 64, (256, 256)


@dataclass
class BenchmarkArguments:
    """What is read, and how often."""

    output: str = field(metadata={"help": "path of the result without its suffix: .json and .md are written"})
    folder: str | None = field(default=None, metadata={"help": "folder of videos; by default some are made up"})
    repetitions: int = field(default=5, metadata={"help": "rounds; the median round counts"})


def write_videos(folder: Path):
    """A clip of five seconds and a video of two minutes, noise that moves over a gradient, a key frame a second."""
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
    """Every frame is decoded."""
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
    return np.stack([one.reformat(*SIZE[::-1], "rgb24", interpolation="BICUBIC").to_ndarray() for one in pictures])


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments):
    import av
    import numpy as np

    from action_llm import VideoFeatureExtractor
    from action_llm.video_files import VIDEO_SUFFIXES, VideoFile, read_video_info

    def ours(path, times):
        with VideoFile(path) as video:
            return video.frames_at(times, SIZE)

    results = []
    with tempfile.TemporaryDirectory() as made_up:
        if arguments.folder is None:
            write_videos(Path(made_up))
        folder = Path(arguments.folder or made_up)
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
        if not paths:
            raise SystemExit(f"no {', '.join(VIDEO_SUFFIXES)} files in {folder}")
        for path in paths:
            info = read_video_info(path)
            times = (np.arange(FRAMES) + 0.5) * info.seconds / FRAMES
            if not np.array_equal(ours(path, times), plain_loop(path, times)):
                raise SystemExit(f"{path.name}: the two ways disagree")
            seconds = {}
            for name, way in (("ours", ours), ("plain loop", plain_loop)):
                spent = []
                for _ in range(arguments.repetitions):
                    start = time.perf_counter()
                    way(path, times)
                    spent.append(time.perf_counter() - start)
                seconds[name] = float(np.median(spent))
            results.append({"file": path.name, **info._asdict(), "seconds_needed": seconds})
        batches = {}
        for threads in (1, 2):
            extractor = VideoFeatureExtractor(decode_threads=threads)
            spent = []
            for _ in range(arguments.repetitions):
                start = time.perf_counter()
                extractor(paths)
                spent.append(time.perf_counter() - start)
            batches[threads] = FRAMES * len(paths) / float(np.median(spent))
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, PyAV {av.__version__}"
    )
    lines = [
        f"{machine}; {FRAMES} frames a video at {SIZE[0]} x {SIZE[1]}, median of {arguments.repetitions} rounds.",
        "",
        "| video | frames | plain loop, ms | ours, ms | × | frames a second |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in results:
        plain, own = one["seconds_needed"]["plain loop"], one["seconds_needed"]["ours"]
        lines.append(
            f"| {one['file']}, {one['width']} x {one['height']} | {one['num_frames']:,} | {1e3 * plain:.0f} | "
            f"{1e3 * own:.0f} | {plain / own:.1f} | {FRAMES / own:,.0f} |"
        )
    speeds = ", ".join(f"{count} thread{'s' * (count > 1)} {speed:,.0f}" for count, speed in batches.items())
    lines += ["", f"Batches of all of them through `VideoFeatureExtractor`, frames a second: {speeds}."]
    text = "\n".join(lines)
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "videos": results, "frames_a_second_by_threads": batches}
    output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
