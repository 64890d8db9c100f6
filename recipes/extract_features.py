"""
Videos → features: the visual encoder sees every video once, or a few times augmented, before anything is trained on it.

```bash
accelerate launch recipes/extract_features.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth \\
    --backbone microsoft/swinv2-tiny-patch4-window8-256 --output_dir runs/utd_mhad_video/features
```

`--backbone` is a repository or a folder of any transformers model of pictures (Swin V2, ResNet) or clips (VideoMAE, V-JEPA 2),
or of a model of the LLaVA family, whose own vision tower and layer are taken. `--grid 4` gives every picture 4 × 4 features.
How frames are taken and normalised are settings of `VideoFeatureExtractor` (`--num_segments 16`); what a picture is, its size,
mean and deviation, are those of the backbone's own `preprocessor_config.json` unless they are given. A run that was stopped
goes on with the shards that are missing. Videos that cannot be read are skipped, counted and listed in `skipped.json`, those
that the data set's builder could not read among them; `damaged.json` lists videos with damaged frames, which were read.
"""

import dataclasses
import json
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from action_llm.model_files import read_json_object
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import (
    DataArguments,
    check_model_folder,
    recordings_fingerprint,
    unreadable_files,
    write_people,
)
from action_llm_recipes.common.field_arguments import extractor_arguments
from action_llm_recipes.common.launching import launch

logger = logging.getLogger(__name__)


def _of_the_backbone(name: str):
    """What the backbone decides unless it is given."""
    if name in ("height", "width"):
        kind = int | None
    elif name in ("image_mean", "image_std"):
        kind = list[float] | None
    elif name in ("fit", "channels"):
        kind = str | None
    elif name == "trim_black":
        kind = bool | None
    elif name == "frames_per_segment":
        help_text = "by default as many as the backbone was made for, where it says so, or 2"
        return name, int | None, field(default=None, metadata={"help": help_text, "belongs_to": "backbone"})
    else:
        return None
    metadata = {"help": "by default that of the backbone", "belongs_to": "backbone"}
    return name, kind, field(default=None, metadata=metadata)


VideoArguments = extractor_arguments(
    "action_llm.feature_extraction_video", "VideoFeatureExtractor", "VideoArguments", _of_the_backbone
)


@dataclass
class FeatureArguments:
    """What sees the videos, how often, and where the features go."""

    backbone: str = field(metadata={"help": "visual encoder: repository or folder"})
    output_dir: str = field(metadata={"help": "folder for the features"})
    backbone_revision: str | None = field(
        default=None, metadata={"help": "commit of the backbone's repository", "belongs_to": "backbone"}
    )
    grid: int | None = field(
        default=None,
        metadata={"help": "cells along height and width of a picture (VTEM); by default one pooled feature"},
    )
    feature_layer: int | None = field(
        default=None,
        metadata={"help": "with a grid, the hidden state that is read; by default the LVLM's, or the last"},
    )
    versions: int = field(
        default=1, metadata={"help": "features a training video: the first as it is, the others augmented"}
    )
    test_versions: int = field(
        default=1, metadata={"help": "the same of a test video, for evaluate_classifier.py --encodings"}
    )
    batch_size: int = field(default=8, metadata={"help": "videos at a time"})
    seed: int = field(default=0, metadata={"help": "seed of the augmentation"})

    def __post_init__(self):
        check_model_folder(self.backbone)


@writes_output_dir
def main(arguments: FeatureArguments, data: DataArguments, reading):
    import torch
    from accelerate import PartialState

    from action_llm import VideoFeatureExtractor
    from action_llm.recording_versions import check_versions_differ
    from action_llm.visual_encoder import VisualEncoder
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import Progress
    from action_llm_recipes.common.action_features import feature_columns
    from action_llm_recipes.common.action_sentences import shard_path, write_shard
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.encode_actions import weights_fingerprint

    for name in ("versions", "test_versions", "batch_size"):
        if (value := getattr(arguments, name)) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    # Without a GPU, accelerate sees the processes of a launch only when it is told that there is none.
    state = PartialState(cpu=not torch.cuda.is_available())
    dataset = data.load("videos")
    backbone, layer = load_backbone(arguments)
    if not backbone.main_input_name.startswith("pixel_values"):
        raise ValueError(f"--backbone {arguments.backbone} is a {backbone.config.model_type}, which sees no pictures.")
    commit = getattr(backbone.config, "_commit_hash", None) or arguments.backbone_revision
    extractor = VideoFeatureExtractor(
        **video_settings(arguments.backbone, arguments.backbone_revision, backbone.config, reading)
    )
    for name in ("versions", "test_versions"):
        check_versions_differ(extractor.to_dict(), getattr(arguments, name), f"--{name}")
    encoder = VisualEncoder(backbone, layer, arguments.grid).eval().to(state.device)
    run, trained = RunFolder(arguments.output_dir), Path(arguments.backbone, "record.json")
    if state.is_main_process:
        identity = {
            "dataset": data.dataset,
            "recordings": recordings_fingerprint(dataset),
            "versions": arguments.versions,
            # Features of before were of one.
            **({"test_versions": arguments.test_versions} if arguments.test_versions != 1 else {}),
            "seed": arguments.seed,
            "extractor": json.loads(extractor.to_json_string()),
            "grid": arguments.grid,
            "feature_layer": layer,
            "backbone": weights_fingerprint(backbone),
        }
        run.check_identity(identity)
        extractor.save_pretrained(run.path)
        backbone.save_pretrained(run.path / "backbone")
        if trained.is_file():  # whoever takes the encoder from here finds what it was trained on
            write_atomically(run.path / "backbone" / "record.json", trained.read_bytes())
    state.wait_for_everyone()

    videos_per_shard, summary, all_skipped, all_damaged = 128, {}, [], []
    for split, rows in dataset.items():
        count = -(-len(rows) // videos_per_shard)
        columns = feature_columns(rows.features["label"])
        versions = arguments.versions if split == "train" else arguments.test_versions
        mine = range(state.process_index, count, state.num_processes)
        missing = [index for index in mine if not is_done(shard_path(run.path, split, index, count))]
        shards = [
            rows.select(range(i * videos_per_shard, min((i + 1) * videos_per_shard, len(rows)))) for i in missing
        ]
        with Progress(f"features of {split}", sum(map(len, shards)), "videos") as progress:
            for index, shard in zip(missing, shards, strict=True):
                path = shard_path(run.path, split, index, count)
                content, skipped, damaged = extract(
                    encoder, extractor, shard, data.data_dir, versions, arguments, progress
                )
                write_atomically(path.with_suffix(".skipped.json"), json.dumps(skipped))
                write_atomically(path.with_suffix(".damaged.json"), json.dumps(damaged))
                write_shard(path, content, columns)
    state.wait_for_everyone()
    if not state.is_main_process:
        return
    for split, rows in dataset.items():
        count = -(-len(rows) // videos_per_shard)
        paths = [shard_path(run.path, split, index, count) for index in range(count)]
        skipped, damaged = (
            [entry for path in paths for entry in _entries(path, name)] for name in ("skipped", "damaged")
        )
        all_skipped += [{"split": split, **entry} for entry in skipped]
        all_damaged += [{"split": split, **entry} for entry in damaged]
        summary[split] = {"videos": len(rows), "skipped": len(skipped), "damaged": len(damaged)}
        if len(skipped) == len(rows):
            raise ValueError(f"every video of {split} was skipped; the first is {skipped[0]}")
    # They have no row, so no split and no name.
    unreadable = [{"split": None, "sample_id": None, **entry} for entry in unreadable_files(dataset)]
    for name, entries in (("skipped", all_skipped + unreadable), ("damaged", all_damaged)):
        write_atomically(run.path / f"{name}.json", json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    write_people(run.path, data.people(dataset))
    run.write_record(
        stage="extract_features",
        dataset=data.dataset,
        data=data.about(dataset),
        training_classes=dataset["train"].features["label"].names,
        backbone=arguments.backbone if not Path(arguments.backbone).exists() else Path(arguments.backbone).name,
        backbone_revision=commit,
        backbone_training=read_json_object(trained) if trained.is_file() else None,
        versions=arguments.versions,
        test_versions=arguments.test_versions,
        grid=arguments.grid,
        feature_layer=layer,
        splits=summary,
        unreadable_files=len(unreadable),
    )
    counts = (f"{count['videos'] - count['skipped']} videos of {split}" for split, count in summary.items())
    exceptions = {
        "skipped": len(all_skipped),
        "with damaged frames": len(all_damaged),
        "that could not be read when the data set was prepared": len(unreadable),
    }
    exceptions = (f"{count} {what}" for what, count in exceptions.items() if count)
    run.log_finished("Features of videos", *counts, *exceptions)
    logger.info("  in %s", run.path)


def load_backbone(arguments: FeatureArguments):
    """The visual encoder in float32, as are all features, whatever its weights were saved in; and the layer that is read."""
    import torch
    from transformers import AutoConfig, AutoModel

    from action_llm.language_models import load_vision_tower

    source = {"revision": arguments.backbone_revision or "main", "trust_remote_code": False}
    if arguments.feature_layer is not None and arguments.grid is None:
        raise ValueError("--feature_layer is read with a --grid; set --grid 1 for one feature a picture.")
    config = AutoConfig.from_pretrained(arguments.backbone, **source)
    if config.get_text_config() is config or not hasattr(config, "vision_config"):
        return AutoModel.from_pretrained(arguments.backbone, dtype=torch.float32, **source), arguments.feature_layer
    if arguments.grid is None:
        raise ValueError(f"{arguments.backbone} sees and reads: set --grid, as its projector reads patches.")
    tower, layer = load_vision_tower(arguments.backbone, arguments.backbone_revision, dtype=torch.float32)
    return tower, layer if arguments.feature_layer is None else arguments.feature_layer


def video_settings(backbone: str, revision: str | None, config, reading) -> dict:
    """Settings of the feature extractor: those given, those of the backbone's preprocessor, those of its configuration."""
    from transformers import BaseImageProcessor

    from action_llm import VideoFeatureExtractor
    from action_llm.visual_encoder import CLIP_BACKBONES

    settings = {name: value for name, value in dataclasses.asdict(reading).items() if value is not None}
    own, of_pictures = {}, {}
    try:
        # What it says, not what it does: no code of the repository's is run.
        processor, _ = BaseImageProcessor.get_image_processor_dict(backbone, revision=revision or "main")
        of_pictures = expected_pictures(processor)
        # The last six are those of pretraining/backbone.py.
        names = ("image_mean", "image_std", "height", "width", "fit", "trim_black", "channels", "frames_per_segment")
        own = {name: processor[name] for name in names if name in processor}
    except OSError:
        logger.info("%s has no preprocessor of its own: the usual mean and deviation", backbone)
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    if size is not None:
        height, width = size if isinstance(size, list | tuple) else (size, size)
        own |= {"height": height, "width": width}
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    if config.model_type in CLIP_BACKBONES and frames is not None:
        own["frames_per_segment"] = frames
    made = VideoFeatureExtractor(**(own | settings)).to_dict()
    differ = {name: value for name, value in (own | of_pictures).items() if made[name] != value}
    if differ:
        logger.warning(
            "%s reads other pictures by its own settings (%s), and its features of these may say less; for its own set %s",
            backbone,
            ", ".join(f"{name} {value} there, {made[name]} here" for name, value in differ.items()),
            " ".join(
                f"--{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"
                for name, value in differ.items()
            ),
        )
    return own | settings


def expected_pictures(processor: dict) -> dict:
    """What the `preprocessor_config.json` of a transformers model of pictures says, as settings of `VideoFeatureExtractor`."""
    size = processor.get("crop_size") if processor.get("do_center_crop", True) else None
    size = size or processor.get("size")
    if isinstance(size, int):
        height = width = size
    elif isinstance(size, dict):
        height, width = (size.get(side, size.get("shortest_edge")) for side in ("height", "width"))
    else:
        height = width = None
    expected = {"height": height, "width": width} if None not in (height, width) else {}
    if processor.get("do_normalize") is False:
        expected |= {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}
    return expected


def extract(encoder, extractor, rows, data_dir: str, versions: int, arguments: FeatureArguments, progress) -> tuple:
    """Columns of a shard; what was skipped, with the reason; and videos with damaged frames, with their numbers."""
    import torch

    names = ("sample_id", "version", "label", "held_out", "features", "shape", "frame_rate")
    columns = {name: [] for name in names}
    skipped, damaged, pending = [], [], []

    def add(row, version: int, one, frame_rate: float):
        for name in ("sample_id", "label", "held_out"):
            columns[name].append(row[name])
        columns["version"].append(version)
        columns["features"].append(one.flatten().numpy())
        columns["shape"].append(list(one.shape))
        columns["frame_rate"].append(frame_rate)

    def flush():
        if not pending:
            return
        pixels = torch.cat([inputs["pixel_values"] for _, _, inputs in pending])
        with torch.no_grad():
            made = encoder(pixels.to(encoder.backbone.device)).cpu()
        for (row, version, inputs), one in zip(pending, made, strict=True):
            add(row, version, one, float(inputs["frame_rate"][0]))
        pending.clear()

    if extractor.segment_seconds is not None:
        for row in rows:
            progress.update()
            made, damage = stream_versions(encoder, row, data_dir, extractor, versions, arguments.seed)
            if isinstance(made, str):
                skipped.append({"sample_id": row["sample_id"], "reason": made})
                continue
            if damage:
                damaged.append({"sample_id": row["sample_id"], **damage})
            for version, features in enumerate(made):
                add(row, version, features, 1 / extractor.segment_seconds)
        return columns, skipped, damaged

    def read(row):
        return read_versions(row, data_dir, extractor, versions, arguments.seed)

    for row, (made, damage) in ahead(read, rows, extractor.decode_threads):
        progress.update()
        if isinstance(made, str):
            skipped.append({"sample_id": row["sample_id"], "reason": made})
            continue
        if damage:
            damaged.append({"sample_id": row["sample_id"], **damage})
        for version, inputs in enumerate(made):
            # Of different numbers of segments no batch is made.
            if pending and inputs["pixel_values"].shape != pending[0][2]["pixel_values"].shape:
                flush()
            pending.append((row, version, inputs))
        if len(pending) >= arguments.batch_size:
            flush()
    flush()
    return columns, skipped, damaged


def _entries(shard: Path, name: str) -> list[dict]:
    """What was noted about the videos of a shard; nothing about damage by a run of before it was noted."""
    from action_llm_recipes.common.action_sentences import read_entries

    return read_entries(shard.with_suffix(f".{name}.json")) or []


def is_done(shard: Path) -> bool:
    """Whether a shard is there and whole, and so are the lists beside it; older versions wrote none of damaged frames."""
    from action_llm_recipes.common.action_sentences import is_whole

    notes = [".skipped.json", *[".damaged.json"] * shard.with_suffix(".damaged.json").exists()]
    return is_whole(shard, *notes)


def _damage(video) -> dict[str, int]:
    """Numbers of damaged frames of an opened video, of those that were decoded; empty where there are none."""
    counts = {"damaged_frames": video.damaged_frames, "decoded_frames": video.decoded_frames}
    return counts if video.damaged_frames else {}


def stream_versions(
    encoder, row: dict, data_dir: str, extractor, versions: int, seed: int
) -> tuple[list | str, dict[str, int]]:
    """Features of all versions of a video of any length, of which only some segments are held, or why there are none; and
    its damage."""
    import torch

    from action_llm.recording_versions import version_arguments
    from action_llm.video_files import VideoFileError, open_video
    from action_llm_datasets.building import UNREADABLE
    from action_llm_datasets.videos import open_row

    made, damage = [], {}
    try:
        for version in range(versions):
            with open_row(data_dir, row) as file, open_video(file) as video, torch.no_grad():
                stream = extractor.stream(video, **version_arguments(row["sample_id"], version, seed))
                parts = [encoder(part[None].to(encoder.backbone.device))[0].cpu() for part in one_ahead(stream)]
                damage = damage or _damage(video)
            made.append(torch.cat(parts))
    except (VideoFileError, *UNREADABLE) as error:
        return str(error), {}
    return made, damage


def read_versions(row: dict, data_dir: str, extractor, versions: int, seed: int) -> tuple[list | str, dict[str, int]]:
    """All versions of a video as the visual encoder sees them, or why there are none; and its damage."""
    from action_llm.recording_versions import version_arguments
    from action_llm.video_files import VideoFileError, open_video
    from action_llm_datasets.building import UNREADABLE
    from action_llm_datasets.videos import open_row

    made, damage = [], {}
    try:
        for version in range(versions):
            with open_row(data_dir, row) as file, open_video(file) as video:
                made.append(extractor(video, **version_arguments(row["sample_id"], version, seed)))
                damage = damage or _damage(video)
    except (VideoFileError, *UNREADABLE) as error:
        return str(error), {}
    return made, damage


def one_ahead(parts):
    """What an iterator gives; while it is used, the next one is made."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, parts, None)
        while (part := waiting.result()) is not None:
            waiting = pool.submit(next, parts, None)
            yield part


def ahead(read, rows, threads: int):
    """Rows with what `read` makes of them, in order; `threads` of them are read while others are waited for."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for row in rows:
            waiting.append((row, pool.submit(read, row)))
            if len(waiting) > threads:
                row, made = waiting.popleft()
                yield row, made.result()
        for row, made in waiting:
            yield row, made.result()


if __name__ == "__main__":
    launch(main, FeatureArguments, DataArguments, VideoArguments, resumes=True)
