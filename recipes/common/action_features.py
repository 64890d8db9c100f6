"""Features of videos as `extract_features.py` writes them: Parquet shards."""

import os
from pathlib import Path

from datasets import ClassLabel, DatasetDict, Features, List, Value


def feature_columns(labels: ClassLabel) -> Features:
    """Columns of a split.

    `version` is 0 for the video itself and 1, 2, … for its augmented versions, which follow it. `features` is flat, of the
    `shape` (segments, views, feature_size), or (cells, views, feature_size) with a grid. `frame_rate` is in segments per
    second.
    """
    return Features(
        {
            "sample_id": Value("string"),
            "version": Value("int32"),
            "label": labels,
            "held_out": Value("bool"),
            "features": List(Value("float32")),
            "shape": List(Value("int32")),
            "frame_rate": Value("float32"),
        }
    )


def load_features(folder: str | os.PathLike) -> DatasetDict:
    """
    Loads the splits that `extract_features.py` wrote.

    Raises:
        FileNotFoundError: if the folder does not exist or is not finished.
        ValueError: if a shard is damaged.
    """
    from action_llm_recipes.common.shards import check_columns, load_shards

    splits = load_shards(Path(folder), "extract_features.py")
    check_columns(Path(folder), splits, feature_columns(ClassLabel(names=["any"])), "extract_features.py")
    return splits


def first_versions(rows):
    """The rows of the videos themselves, without their augmented versions."""
    return rows.select([index for index, version in enumerate(rows["version"]) if version == 0])
