"""
Extract features of videos with a pretrained visual encoder, once, before anything is trained on them.

```bash
accelerate launch recipes/extract_features.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth \\
    --backbone microsoft/swinv2-tiny-patch4-window8-256 --output_dir runs/utd_mhad_video/features
```

`--backbone` is a Hub repository or folder of an image model (Swin V2, ResNet) or a video model (VideoMAE, V-JEPA 2) of
transformers, or of a model of the LLaVA family, whose vision tower is used. `--grid 4` extracts 4 × 4 features of each frame.

The options of `VideoFeatureExtractor` set how frames are sampled and normalised (`--num_segments 16`). By default, frames are
resized, cropped and normalised by the backbone's own image processor, to the same pixels; options that differ from it are
logged. The features are computed in float32, whatever the dtype of the weights.

Runs resume automatically with the missing shards, and `cluster.py` shares the shards among machines. Videos that cannot be read
are skipped and listed in `skipped.json`, with those that could not be read when the data set was prepared. `damaged.json` lists
videos with damaged frames, which are not skipped.
"""

import dataclasses
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments, unreadable_files
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.people import write_people
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.stage_records import pretraining_record
from action_llm_recipes.common.tasks import TaskArguments
from action_llm_recipes.common.video_arguments import VideoArguments
from action_llm_recipes.common.written_folders import check_model_folder, public_name

logger = logging.getLogger(__name__)

VIDEOS_PER_SHARD = 128
# Settings that have no sensible default without an image processor.
NEEDED = ("height", "width", "image_mean", "image_std")


@dataclass
class FeatureArguments:
    """The visual encoder, the number of versions, and the output."""

    backbone: str = field(metadata={"help": "visual encoder: Hub repository or folder"})
    output_dir: str = field(metadata={"help": "output folder for the features"})
    backbone_revision: str | None = field(
        default=None, metadata={"help": "commit of the backbone's repository", "belongs_to": "backbone"}
    )
    grid: int | None = field(
        default=None,
        metadata={
            "help": "number of cells along the height and width of a frame (VTEM); by default features are pooled"
        },
    )
    feature_layer: int | None = field(
        default=None,
        metadata={"help": "hidden state to read, with --grid; by default that of the LVLM's projector, or the last"},
    )
    versions: int = field(
        default=1,
        metadata={"help": "number of versions of a training video: the first unaugmented, the others augmented"},
    )
    test_versions: int = field(
        default=1, metadata={"help": "number of versions of a test video, for evaluate_classifier.py --encodings"}
    )
    batch_size: int = field(default=8, metadata={"help": "number of videos in a batch"})
    seed: int = field(default=0, metadata={"help": "random seed of the augmentation"})

    def __post_init__(self):
        check_model_folder(self.backbone)


ARGUMENTS = (FeatureArguments, DataArguments, VideoArguments)


@writes_output_dir
def main(arguments: FeatureArguments, data: DataArguments, reading, task: TaskArguments | None = None):
    """Writes the features of all splits and their record; one of several tasks writes its share of the features only. `reading`
    has the settings of the feature extractor."""
    import torch
    from accelerate import PartialState

    from action_llm import VideoFeatureExtractor
    from action_llm.recording_versions import check_versions_differ
    from action_llm.visual_encoder import VisualEncoder
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.shards import shards_of_splits
    from action_llm_recipes.common.split_evidence import SplitEvidence

    task = task or TaskArguments()
    check_at_least_one(arguments, "versions", "test_versions", "batch_size")
    # Without a GPU, accelerate finds the other processes of a launch only with cpu=True.
    state = PartialState(cpu=not torch.cuda.is_available())
    dataset = data.load("videos")
    evidence = SplitEvidence.of_data(data, dataset, [arguments.backbone]) if task.is_whole else None
    backbone, layer = load_backbone(arguments)
    extractor = VideoFeatureExtractor(
        **video_settings(arguments.backbone, arguments.backbone_revision, backbone.config, reading)
    )
    for name in ("versions", "test_versions"):
        check_versions_differ(extractor.to_dict(), getattr(arguments, name), f"--{name}")
    encoder = VisualEncoder(backbone, layer, arguments.grid).eval().to(state.device)
    run = RunFolder(arguments.output_dir)
    if state.is_main_process:
        check_identity(run, arguments, data, dataset, encoder, extractor)
    if state.is_main_process and task.is_whole:
        training = pretraining_record(arguments.backbone, arguments.backbone_revision)
        save_encoder(run, encoder, extractor, evidence, training)
    state.wait_for_everyone()
    shards = shards_of_splits(run.path, dataset, VIDEOS_PER_SHARD)
    for split, rows in dataset.items():
        missing = shards[split].missing(*task.share(state))
        write_shards(missing, split, rows, encoder, extractor, data, arguments)
    state.wait_for_everyone()
    if not task.is_whole:
        task.log(shards.values())
    elif state.is_main_process:
        finish(run, arguments, data, dataset, encoder, shards, evidence, training)


def check_identity(run, arguments: FeatureArguments, data: DataArguments, dataset, encoder, extractor):
    """Checks that the output folder does not belong to another run."""
    from action_llm_recipes.common.fingerprints import weights_fingerprint

    run.check_identity(
        {
            "dataset": data.dataset,
            **data.identity(dataset),
            "versions": arguments.versions,
            # Older versions made one version of a test video, and did not record it.
            **({"test_versions": arguments.test_versions} if arguments.test_versions != 1 else {}),
            "seed": arguments.seed,
            "extractor": {
                name: value
                for name, value in json.loads(extractor.to_json_string()).items()
                # Older versions did not have these settings.
                if name not in ("resize", "resample") or value is not None
            },
            "grid": arguments.grid,
            "feature_layer": encoder.feature_layer,
            "backbone": weights_fingerprint(encoder.backbone),
        }
    )


def save_encoder(run, encoder, extractor, evidence, training: dict):
    """Saves the feature extractor, and the visual encoder with its record `training`, which is empty if there is none."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.split_evidence import ACTION_MODEL, LANGUAGE_MODEL

    extractor.save_pretrained(run.path)
    encoder.backbone.save_pretrained(run.path / "backbone")
    if training:  # says what the encoder was trained on
        text = json.dumps(training, indent=2, ensure_ascii=False) + "\n"
        write_atomically(run.path / "backbone" / "record.json", text)
        features = {"backbone_training": training}
        evidence.doubt_test(
            {"sentences": {"tokenizer": {"features": features}}}, untrained=(ACTION_MODEL, LANGUAGE_MODEL)
        )


def write_shards(
    missing: dict, split: str, rows, encoder, extractor, data: DataArguments, arguments: FeatureArguments
):
    """Writes the missing shards of a split; `missing` has the path of each, and the indices of its rows."""
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


def finish(
    run, arguments: FeatureArguments, data: DataArguments, dataset, encoder, shards: dict, evidence, training: dict
):
    """Writes the lists of skipped and damaged videos, the people recorded, and the record."""
    from action_llm_datasets.atomic_files import write_atomically

    notes = {name: {split: shards[split].notes(name) for split in dataset} for name in ("skipped", "damaged")}
    for split, rows in dataset.items():
        if len(skipped := notes["skipped"][split]) == len(rows):
            raise ValueError(f"all videos of {split} were skipped; the first: {skipped[0]}")
    listed = {
        name: [{"split": split, **entry} for split, entries in of_splits.items() for entry in entries]
        for name, of_splits in notes.items()
    }
    # Files that could not be read have no row, and so no split and no name.
    unreadable = [{"split": None, "sample_id": None, **entry} for entry in unreadable_files(dataset)]
    for name, entries in (("skipped", listed["skipped"] + unreadable), ("damaged", listed["damaged"])):
        write_atomically(run.path / f"{name}.json", json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    write_people(run.path, data.people(dataset))
    backbone = encoder.backbone
    run.write_record(
        evidence,
        stage="extract_features",
        dataset=data.dataset,
        data=data.about(dataset),
        training_classes=dataset["train"].features["label"].names,
        backbone=public_name(arguments.backbone),
        backbone_revision=getattr(backbone.config, "_commit_hash", None) or arguments.backbone_revision,
        backbone_training=training or None,
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
        "unreadable when the data set was prepared": len(unreadable),
    }
    exceptions = (f"{count} {reason}" for reason, count in exceptions.items() if count)
    run.log_finished("Features of videos", *counts, *exceptions)
    logger.info("  in %s", run.path)


def load_backbone(arguments: FeatureArguments):
    """
    Loads the visual encoder, in float32 whatever the dtype of its weights.

    Returns:
        The encoder, and the hidden state to read.

    Raises:
        ValueError: if the model has no visual encoder, or `grid` and `feature_layer` do not fit it.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    from action_llm.language_models import load_vision_tower

    source = {"revision": arguments.backbone_revision or "main", "trust_remote_code": False}
    if arguments.feature_layer is not None and arguments.grid is None:
        raise ValueError("--feature_layer needs --grid: set --grid 1 for one feature of each frame.")
    config = AutoConfig.from_pretrained(arguments.backbone, **source)
    if config.get_text_config() is config or not hasattr(config, "vision_config"):
        backbone = AutoModel.from_pretrained(arguments.backbone, dtype=torch.float32, **source)
        if not backbone.main_input_name.startswith("pixel_values"):
            raise ValueError(f"--backbone {arguments.backbone} is a {config.model_type}, which does not read images.")
        return backbone, arguments.feature_layer
    if arguments.grid is None:
        raise ValueError(
            f"--backbone {arguments.backbone} is a vision-language model, whose projector reads patches: set --grid."
        )
    tower, layer = load_vision_tower(arguments.backbone, arguments.backbone_revision, dtype=torch.float32)
    return tower, layer if arguments.feature_layer is None else arguments.feature_layer


def video_settings(backbone: str, revision: str | None, config, reading) -> dict:
    """
    The settings of the feature extractor.

    Args:
        backbone, revision: the visual encoder, and the commit of its repository.
        config: configuration of the visual encoder.
        reading: settings that were given, with None for the others.

    Returns:
        The settings that were given, completed by those of the backbone's image processor and configuration. A warning names
        settings that differ from those of the backbone.

    Raises:
        ValueError: if the backbone has no image processor that can be followed, and the settings given do not replace it; or if
            frames are not whole patches.
    """
    from action_llm import VideoFeatureExtractor
    from action_llm.visual_encoder import CLIP_BACKBONES
    from action_llm_recipes.common.image_processors import processor_settings

    settings = {name: value for name, value in dataclasses.asdict(reading).items() if value is not None}
    try:
        defaults = processor_settings(backbone, revision, config)
    except (OSError, ValueError) as error:
        if missing := [name for name in NEEDED if name not in settings]:
            options = " ".join(f"--{name}" for name in missing)
            raise ValueError(f"{error} To read frames without it, set {options}.") from error
        logger.warning("%s Frames are read by the settings given.", error)
        defaults = {}
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    if config.model_type in CLIP_BACKBONES and frames is not None:
        defaults["frames_per_segment"] = frames
    used = defaults | settings
    if defaults.get("resize") and "resize" not in settings:
        used["resize"] = None
        if used["fit"] == defaults["fit"]:  # the same part of the frames in another size
            used["resize"] = [
                round(length * used[side] / defaults[side])
                for length, side in zip(defaults["resize"], ("height", "width"), strict=True)
            ]
    resolved = VideoFeatureExtractor(**used).to_dict()
    check_patches(backbone, config, resolved["height"], resolved["width"])
    differences = {name: value for name, value in defaults.items() if name in settings and resolved[name] != value}
    if differences:
        logger.warning(
            "%s was trained on other images (%s), so its features may be worse. For images as in its training, do not set %s",
            backbone,
            ", ".join(f"{name} {value} there, {resolved[name]} here" for name, value in differences.items()),
            ", ".join(f"--{name}" for name in differences),
        )
    return used


def check_patches(backbone: str, config, height: int, width: int) -> None:
    """Raises `ValueError` for frames that are not whole patches of the visual encoder, which would not see their edges."""
    patch = getattr(config, "patch_size", None)
    patches = patch if isinstance(patch, list | tuple) else (patch, patch)
    for name, length, side in zip(("height", "width"), (height, width), patches[-2:], strict=True):
        if isinstance(side, int) and length % side:
            raise ValueError(
                f"{backbone} reads patches of {side} pixels (patch_size), but frames have the {name} {length}: expected a "
                f"multiple of {side}. Set --{name} {max(side, length // side * side)}, or check its image processor."
            )


def extract(encoder, extractor, rows, data_dir: str, versions: int, arguments: FeatureArguments, progress) -> tuple:
    """
    Extracts the features of a shard.

    Args:
        encoder, extractor: the visual encoder and the feature extractor.
        rows: the videos.
        data_dir: folder of the videos.
        versions: number of versions of each video.
        arguments: of the recipe.
        progress: counts the videos.

    Returns:
        The columns of the shard; for each skipped video, its `sample_id` and the `reason`; and for each video with damaged
        frames, its `sample_id` and their number.
    """
    import torch

    names = ("sample_id", "version", "label", "held_out", "features", "shape", "frame_rate")
    columns = {name: [] for name in names}
    skipped, damaged, pending = [], [], []

    def add(row, version: int, features, frame_rate: float):
        for name in ("sample_id", "label", "held_out"):
            columns[name].append(row[name])
        columns["version"].append(version)
        columns["features"].append(features.flatten().numpy())
        columns["shape"].append(list(features.shape))
        columns["frame_rate"].append(frame_rate)

    def flush():
        if not pending:
            return
        pixels = torch.stack([pixels for _, _, pixels, _ in pending])
        with torch.no_grad():
            batch = encoder(pixels.to(encoder.backbone.device)).cpu()
        for (row, version, _, frame_rate), features in zip(pending, batch, strict=True):
            add(row, version, features, frame_rate)
        pending.clear()

    is_stream = extractor.segment_seconds is not None
    process = partial(stream_features, encoder, extractor) if is_stream else partial(read_pixels, extractor)
    read = partial(
        read_versions, process, data_dir=data_dir, versions=versions, seed=arguments.seed, together=not is_stream
    )
    # A stream reads ahead by itself.
    videos = ((row, read(row)) for row in rows) if is_stream else map_ahead(read, rows, extractor.decode_threads)
    for row, (results, damage) in videos:
        progress.update()
        if isinstance(results, str):
            skipped.append({"sample_id": row["sample_id"], "reason": results})
            continue
        if damage:
            damaged.append({"sample_id": row["sample_id"], **damage})
        for version, (result, frame_rate) in enumerate(results):
            if is_stream:
                add(row, version, result, frame_rate)
                continue
            # Videos with different numbers of segments do not fit into one batch.
            if pending and result.shape != pending[0][2].shape:
                flush()
            pending.append((row, version, result, frame_rate))
            if len(pending) >= arguments.batch_size:
                flush()
    flush()
    return columns, skipped, damaged


def read_versions(
    process: Callable, row: dict, *, data_dir: str, versions: int, seed: int, together: bool
) -> tuple[list | str, dict[str, int]]:
    """
    Reads all versions of a video.

    Args:
        process: takes an opened video and the seeds of versions, None for the video itself, and returns a list with a result
            for each.
        row: the video.
        data_dir: folder of the videos.
        versions: number of versions.
        seed: seed of the augmentation.
        together: whether `process` makes all versions at once, or each of them from the start of the video.

    Returns:
        The results of `process`, or the reason why the video cannot be read; and `damaged_frames` and `decoded_frames`, or
        nothing if no frame is damaged.
    """
    from action_llm.recording_versions import version_arguments
    from action_llm.video_files import open_video
    from action_llm.video_frames import VideoFileError
    from action_llm_datasets.building import UNREADABLE
    from action_llm_datasets.videos import open_row

    arguments = [version_arguments(row["sample_id"], version, seed) for version in range(versions)]
    seeds = [version["seed"] if version["augment"] else None for version in arguments]
    results, damage = [], {}
    try:
        for group in [seeds] if together else [[seed] for seed in seeds]:
            with open_row(data_dir, row) as file, open_video(file) as video:
                results += process(video, group)
                if video.damaged_frames and not damage:
                    damage = {"damaged_frames": video.damaged_frames, "decoded_frames": video.decoded_frames}
    except (VideoFileError, *UNREADABLE) as error:
        return str(error), {}
    return results, damage


def read_pixels(extractor, video, seeds: list[int | None]) -> list[tuple]:
    """The pixels (segments, frames, 3, height, width) and the frame rate of each version of a video."""
    inputs = extractor.versions(video, seeds)
    return list(zip(inputs["pixel_values"], inputs["frame_rate"].tolist(), strict=True))


def stream_features(encoder, extractor, video, seeds: list[int | None]) -> list[tuple]:
    """The features (segments or cells, views, feature_size) and the frame rate of one version of a video of any length; only
    some segments are in memory at a time."""
    import torch

    (seed,) = seeds
    with torch.no_grad():
        segments = prefetch(extractor.stream(video, augment=seed is not None, seed=seed))
        features = torch.cat([encoder(part[None].to(encoder.backbone.device))[0].cpu() for part in segments])
    return [(features, 1 / extractor.segment_seconds)]


def prefetch(parts: Iterator) -> Iterator:
    """The items of an iterator; the next item is made in a thread while an item is used."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, parts, None)
        while (part := future.result()) is not None:
            future = pool.submit(next, parts, None)
            yield part


def map_ahead(read: Callable, rows: Iterable, threads: int) -> Iterator[tuple]:
    """Pairs of a row and `read(row)`, in order; the next rows are read in `threads` threads."""
    with ThreadPoolExecutor(threads) as pool:
        pending = deque()
        for row in rows:
            pending.append((row, pool.submit(read, row)))
            if len(pending) > threads:
                row, future = pending.popleft()
                yield row, future.result()
        for row, future in pending:
            yield row, future.result()


def cli():
    """The command line, also of one of several tasks."""
    launch(main, *ARGUMENTS, TaskArguments, resumes=True)


if __name__ == "__main__":
    cli()
