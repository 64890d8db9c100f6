"""Pictures per second of a pretrained visual encoder, beside transformers alone.

    python recipes/benchmarks/benchmark_features.py --backbone facebook/dinov2-small --folder clips --output features

Evenly spaced frames of each video are read and encoded: by `VideoFeatureExtractor` and `VisualEncoder` with the settings of
`extract_features.py`, in batches of several videos; and by `AutoImageProcessor` and `AutoModel`, one video at a time. The
largest relative difference of the features is reported. Then versions of each video are read without encoding, in one pass over
the video and by one call for each version. CPU time is measured, with one thread, loading excluded. Writes `OUTPUT.json` and a
page, `OUTPUT.md`.
"""

import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class BenchmarkArguments:
    """Which encoder reads which videos."""

    backbone: str = field(metadata={"help": "visual encoder of images: Hub repository or folder"})
    folder: str = field(metadata={"help": "folder of videos"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    videos: int = field(default=40, metadata={"help": "number of videos, the first by name"})
    frames: int = field(default=4, metadata={"help": "frames of a video"})
    versions: int = field(default=8, metadata={"help": "versions of a video that are read without encoding"})
    batch_size: int = field(default=8, metadata={"help": "videos in a batch"})


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    import torch
    import transformers

    from action_llm import VideoFeatureExtractor
    from action_llm.video_files import VIDEO_SUFFIXES
    from action_llm.visual_encoder import VisualEncoder
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.common.video_arguments import VideoArguments
    from action_llm_recipes.extract_features import FeatureArguments, load_backbone, video_settings

    torch.set_num_threads(1)
    paths = sorted(path for path in Path(arguments.folder).iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    paths = paths[: arguments.videos]
    if not paths:
        raise SystemExit(f"there are no {', '.join(VIDEO_SUFFIXES)} files in {arguments.folder}.")
    backbone, _ = load_backbone(FeatureArguments(backbone=arguments.backbone, output_dir=""))
    encoder = VisualEncoder(backbone).eval()
    reading = VideoArguments(num_segments=arguments.frames, frames_per_segment=1, decode_threads=1)
    settings = video_settings(arguments.backbone, None, backbone.config, reading)
    extractor = VideoFeatureExtractor(**settings)
    processor = transformers.AutoImageProcessor.from_pretrained(arguments.backbone)

    def ours():
        batches = [paths[start : start + arguments.batch_size] for start in range(0, len(paths), arguments.batch_size)]
        return torch.cat([encoder(extractor(batch)["pixel_values"]).flatten(0, 2) for batch in batches])

    def alone():
        return torch.cat([features_alone(path, arguments.frames, processor, backbone) for path in paths])

    pictures = len(paths) * arguments.frames
    with torch.no_grad():
        encoder(torch.zeros(1, 1, 1, 3, extractor.height, extractor.width))  # the first call is slow
        (features, seconds), (expected, seconds_alone) = (cpu_time(work) for work in (ours, alone))
    seeds = [None, *range(1, arguments.versions)]
    versions = {}
    for trim_black in (False, True):
        extractor = VideoFeatureExtractor(**settings | {"trim_black": trim_black})
        _, together = cpu_time(lambda: [extractor.versions(path, seeds) for path in paths])  # noqa: B023
        _, one_by_one = cpu_time(
            lambda: [
                extractor(path, augment=seed is not None, seed=seed)  # noqa: B023
                for path in paths
                for seed in seeds
            ]
        )
        name = "trim_black" if trim_black else "whole frames"
        versions[name] = {"together": together, "one by one": one_by_one}
    record = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread",
        "backbone": Path(arguments.backbone).name,
        "size": [extractor.height, extractor.width],
        "videos": len(paths),
        "pictures": pictures,
        "pictures_per_second": {"ours": pictures / seconds, "transformers": pictures / seconds_alone},
        "largest_relative_difference": float(((features - expected).norm(dim=1) / expected.norm(dim=1)).max()),
        "versions": arguments.versions,
        "seconds_of_reading": versions,
    }
    write_results(arguments.output, record, report(record))
    return record


def features_alone(path: Path, frames: int, processor, model):
    """Features of the frames of a video by transformers alone."""
    import numpy as np

    from action_llm.video_files import VideoFile

    with VideoFile(path) as video:
        pictures = video.frames_at((np.arange(frames) + 0.5) * video.info.seconds / frames)
    outputs = model(**processor(list(pictures), return_tensors="pt"))
    return outputs.pooler_output.flatten(1)


def cpu_time(work) -> tuple:
    """The result of a function, and its CPU seconds."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def report(record: dict) -> str:
    """The results as a page in Markdown."""
    height, width = record["size"]
    lines = [
        f"{record['backbone']} on {record['machine']}: {record['pictures']} pictures of {height} x {width} pixels from "
        f"{record['videos']} videos.",
        "",
        "| | pictures per CPU second |",
        "|---|---:|",
    ]
    titles = {"ours": "`extract_features.py`", "transformers": "`AutoImageProcessor` and `AutoModel`, video by video"}
    lines += [f"| {titles[name]} | {speed:.2f} |" for name, speed in record["pictures_per_second"].items()]
    lines += [
        "",
        f"Largest relative difference of a feature vector: {record['largest_relative_difference']:.1e}.",
        "",
        f"CPU milliseconds to read {record['versions']} versions of a video, without encoding:",
        "",
        "| | in one pass | one call per version |",
        "|---|---:|---:|",
    ]
    for name, seconds in record["seconds_of_reading"].items():
        together, one_by_one = (1e3 * value / record["videos"] for value in seconds.values())
        lines.append(f"| {name} | {together:.0f} | {one_by_one:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
