"""Memory and time to process a long video as a stream, beside reading it at once.

    python -m action_llm_datasets.simulation.simulate_long --output hour --performers 1 --videos 1 --minutes 60
    python recipes/benchmarks/benchmark_stream.py --video hour/P001_V001.mp4 --tokenizer runs/long/tokenizer/model \\
        --output stream

Frames become events (VT-LVLM-AR, section III.A) by the model of `--tokenizer` and its feature extractor. The memory of the
process is measured after every minute of video, which shows whether it grows. The alternative, reading at once, holds all
frames in memory; it is measured on the first `--at_once` minutes, in a process of its own. Everything runs on the CPU. Writes
`OUTPUT.json` and a page, `OUTPUT.md`. Needs psutil.
"""

import multiprocessing
import time
import warnings
from dataclasses import dataclass, field
from itertools import islice

MEGABYTE = 2**20


@dataclass
class BenchmarkArguments:
    """Which video is read, and by which model."""

    video: str = field(metadata={"help": "file of a long video"})
    tokenizer: str = field(metadata={"help": "folder of a VTEM with its preprocessor_config.json"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    at_once: float = field(default=10.0, metadata={"help": "minutes that are read at once, for comparison"})


def load(tokenizer: str):
    """The model and its feature extractor, on the CPU."""
    from transformers import AutoModel

    import action_llm  # noqa: F401  (registers its classes)
    from action_llm.processing_action_llm import load_feature_extractor

    return AutoModel.from_pretrained(tokenizer, trust_remote_code=False).eval(), load_feature_extractor(tokenizer)


def streamed(video: str, tokenizer: str) -> dict:
    """Memory after every minute of video, time, and number of events, of a stream."""
    import psutil

    from action_llm_recipes.common.run_cost import peak_memory

    model, extractor = load(tokenizer)
    process = psutil.Process()
    before = process.memory_info().rss
    minutes, events, segments = [], 0, 0
    started = time.perf_counter()
    stream = model.stream(1 / extractor.segment_seconds)
    for part in extractor.stream(video):
        events += len(stream.push(part))
        segments += len(part)
        if segments * extractor.segment_seconds >= 60 * (len(minutes) + 1):
            seconds = time.perf_counter() - started
            minutes.append({"memory_mb": process.memory_info().rss / MEGABYTE, "seconds": seconds})
    events += len(stream.finish())
    return {
        "before_mb": before / MEGABYTE,
        "minutes": minutes,
        "segments": segments,
        "events": events,
        "seconds": time.perf_counter() - started,
        "peak_mb": peak_memory() / MEGABYTE,
    }


def at_once(video: str, tokenizer: str, minutes: float) -> dict:
    """Peak memory, time and number of events of a single call over the first minutes."""
    import torch

    from action_llm_recipes.common.run_cost import peak_memory

    model, extractor = load(tokenizer)
    count = round(60 * minutes / extractor.segment_seconds)
    started = time.perf_counter()
    values = torch.cat(list(islice(extractor.stream(video, segments=count), 1)))
    with torch.no_grad(), warnings.catch_warnings():
        sentence = model.encode(values[None])
    peak = peak_memory()
    return {
        "segments": count,
        "events": int(sentence.attention_mask.sum()),
        "seconds": time.perf_counter() - started,
        "peak_mb": peak / MEGABYTE,
    }


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    from action_llm.video_files import read_video_info
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.common.run_folder import describe_hardware

    info, context = read_video_info(arguments.video), multiprocessing.get_context("spawn")
    result = {"video": info._asdict(), "hardware": describe_hardware()}
    with context.Pool(1) as pool:
        result["stream"] = pool.apply(streamed, (arguments.video, arguments.tokenizer))
    with context.Pool(1) as pool:
        minutes = min(arguments.at_once, info.seconds / 60)
        result["at_once"] = {"minutes": minutes} | pool.apply(at_once, (arguments.video, arguments.tokenizer, minutes))
    write_results(arguments.output, result, report(result))
    return result


def report(result: dict) -> str:
    """The results as a page in Markdown."""
    info, stream, whole = result["video"], result["stream"], result["at_once"]
    minutes = stream["minutes"]
    rows = [("before the video", stream["before_mb"])]
    rows += [
        (f"after {n} minute{'s' * (n > 1)}", minutes[n - 1]["memory_mb"]) for n in (1, 10, 30, 60) if n <= len(minutes)
    ]
    rows += [("peak", stream["peak_mb"])]
    frames, seconds = info["num_frames"], stream["seconds"]
    each, each_at_once = seconds / stream["segments"], whole["seconds"] / whole["segments"]
    lines = [
        f"# A stream of {info['seconds'] / 60:.0f} minutes",
        "",
        f"{frames:,} frames of {info['width']} × {info['height']} on {result['hardware']}.",
        "",
        "| memory of the process | MB |",
        "|---|---:|",
        *(f"| {name} | {value:,.0f} |" for name, value in rows),
        "",
        f"{seconds:.0f} seconds ({info['seconds'] / seconds:.0f} × real time): {frames / seconds:,.0f} frames of the file per "
        f"second, {1 / each:,.0f} segments per second through the visual encoder; {stream['events']:,} events.",
        "",
        f"Reading the first {whole['minutes']:g} minutes at once ({whole['segments']:,} segments): peak memory "
        f"{whole['peak_mb']:,.0f} MB, and {each_at_once / each:.2f} × the time of the stream per segment.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
