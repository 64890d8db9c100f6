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
from action_llm_recipes.common.data_arguments import DataArguments, unreadable_files
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.people import write_people
from action_llm_recipes.common.records import read_record
from action_llm_recipes.common.video_arguments import VideoArguments
from action_llm_recipes.common.written_folders import check_model_folder, public_name

logger = logging.getLogger(__name__)

VIDEOS_PER_SHARD = 128


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


ARGUMENTS = (FeatureArguments, DataArguments, VideoArguments)


@writes_output_dir
def main(arguments: FeatureArguments, data: DataArguments, reading):
    import torch
    from accelerate import PartialState

    from action_llm import VideoFeatureExtractor
    from action_llm.recording_versions import check_versions_differ
    from action_llm.visual_encoder import VisualEncoder
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.shards import SplitShards
    from action_llm_recipes.common.split_evidence import SplitEvidence

    for name in ("versions", "test_versions", "batch_size"):
        if (value := getattr(arguments, name)) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    # Without a GPU, accelerate sees the processes of a launch only when it is told that there is none.
    state = PartialState(cpu=not torch.cuda.is_available())
    dataset = data.load("videos")
    evidence = SplitEvidence.of_data(data, dataset, [arguments.backbone])
    backbone, layer = load_backbone(arguments)
    extractor = VideoFeatureExtractor(
        **video_settings(arguments.backbone, arguments.backbone_revision, backbone.config, reading)
    )
    for name in ("versions", "test_versions"):
        check_versions_differ(extractor.to_dict(), getattr(arguments, name), f"--{name}")
    encoder = VisualEncoder(backbone, layer, arguments.grid).eval().to(state.device)
    run = RunFolder(arguments.output_dir)
    if state.is_main_process:
        begin(run, arguments, data, dataset, encoder, extractor, evidence)
    state.wait_for_everyone()
    shards = {split: SplitShards(run.path, split, len(rows), VIDEOS_PER_SHARD) for split, rows in dataset.items()}
    for split, rows in dataset.items():
        missing = shards[split].missing(state.process_index, state.num_processes)
        write_shards(missing, split, rows, encoder, extractor, data, arguments)
    state.wait_for_everyone()
    if state.is_main_process:
        finish(run, arguments, data, dataset, encoder, shards, evidence)


def begin(run, arguments: FeatureArguments, data: DataArguments, dataset, encoder, extractor, evidence):
    """Checks that the folder is not of another run, and saves what made the features: extractor and visual encoder."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.split_evidence import ACTION_MODEL, LANGUAGE_MODEL

    run.check_identity(
        {
            "dataset": data.dataset,
            **data.identity(dataset),
            "versions": arguments.versions,
            # Older versions made one feature of a test video, and did not say so.
            **({"test_versions": arguments.test_versions} if arguments.test_versions != 1 else {}),
            "seed": arguments.seed,
            "extractor": json.loads(extractor.to_json_string()),
            "grid": arguments.grid,
            "feature_layer": encoder.feature_layer,
            "backbone": weights_fingerprint(encoder.backbone),
        }
    )
    extractor.save_pretrained(run.path)
    encoder.backbone.save_pretrained(run.path / "backbone")
    record = Path(arguments.backbone, "record.json")
    if record.is_file():  # whoever takes the encoder from here finds what it was trained on
        write_atomically(run.path / "backbone" / "record.json", record.read_bytes())
        features = {"backbone_training": read_record(record)}
        evidence.doubt_test(
            {"sentences": {"tokenizer": {"features": features}}}, untrained=(ACTION_MODEL, LANGUAGE_MODEL)
        )


def write_shards(
    missing: dict, split: str, rows, encoder, extractor, data: DataArguments, arguments: FeatureArguments
):
    """Writes the missing shards of a split: the path of each, and the rows that it is made of."""
    from action_llm_datasets.progress import Progress
    from action_llm_recipes.common.action_features import feature_columns
    from action_llm_recipes.common.shards import write_shard

    columns = feature_columns(rows.features["label"])
    versions = arguments.versions if split == "train" else arguments.test_versions
    with Progress(f"features of {split}", sum(map(len, missing.values())), "videos") as progress:
        for path, indices in missing.items():
            content, skipped, damaged = extract(
                encoder, extractor, rows.select(indices), data.data_dir, versions, arguments, progress
            )
            write_shard(path, content, columns, skipped=skipped, damaged=damaged)


def finish(run, arguments: FeatureArguments, data: DataArguments, dataset, encoder, shards: dict, evidence):
    """Writes which videos were skipped or damaged, who was recorded, and the record."""
    from action_llm_datasets.atomic_files import write_atomically

    notes = {name: {split: shards[split].notes(name) for split in dataset} for name in ("skipped", "damaged")}
    for split, rows in dataset.items():
        if len(skipped := notes["skipped"][split]) == len(rows):
            raise ValueError(f"every video of {split} was skipped; the first is {skipped[0]}")
    listed = {
        name: [{"split": split, **entry} for split, entries in of_splits.items() for entry in entries]
        for name, of_splits in notes.items()
    }
    # They have no row, so no split and no name.
    unreadable = [{"split": None, "sample_id": None, **entry} for entry in unreadable_files(dataset)]
    for name, entries in (("skipped", listed["skipped"] + unreadable), ("damaged", listed["damaged"])):
        write_atomically(run.path / f"{name}.json", json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    write_people(run.path, data.people(dataset))
    backbone, record = encoder.backbone, Path(arguments.backbone, "record.json")
    run.write_record(
        evidence,
        stage="extract_features",
        dataset=data.dataset,
        data=data.about(dataset),
        training_classes=dataset["train"].features["label"].names,
        backbone=public_name(arguments.backbone),
        backbone_revision=getattr(backbone.config, "_commit_hash", None) or arguments.backbone_revision,
        backbone_training=read_json_object(record) if record.is_file() else None,
        versions=arguments.versions,
        test_versions=arguments.test_versions,
        grid=arguments.grid,
        feature_layer=encoder.feature_layer,
        splits={
            split: {
                "videos": len(rows),
                "skipped": len(notes["skipped"][split]),
                "damaged": len(notes["damaged"][split]),
            }
            for split, rows in dataset.items()
        },
        unreadable_files=len(unreadable),
    )
    counts = (f"{len(rows) - len(notes['skipped'][split])} videos of {split}" for split, rows in dataset.items())
    exceptions = {
        "skipped": len(listed["skipped"]),
        "with damaged frames": len(listed["damaged"]),
        "that could not be read when the data set was prepared": len(unreadable),
    }
    exceptions = (f"{count} {reason}" for reason, count in exceptions.items() if count)
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
        backbone = AutoModel.from_pretrained(arguments.backbone, dtype=torch.float32, **source)
        if not backbone.main_input_name.startswith("pixel_values"):
            raise ValueError(f"--backbone {arguments.backbone} is a {config.model_type}, which sees no pictures.")
        return backbone, arguments.feature_layer
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
    launch(main, *ARGUMENTS, resumes=True)
