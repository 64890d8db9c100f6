"""Versions of a recording: the original, and variants by the `augment_` settings of a feature extractor.

A version depends only on the sample id, its number and the seed, so that all recipes and the pipeline use the same versions.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from .skeleton_layouts import get_layout


def stable_seed(*parts) -> int:
    """A seed that depends only on its parts: the same in every process, in any order, and after resuming."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=6).digest(), "little")


def version_arguments(sample_id: str, version: int, seed: int = 0) -> dict[str, Any]:
    """Arguments with which a feature extractor computes a version of a recording.

    Args:
        sample_id: Name of the recording.
        version: Number of the version: 0 is the original, 1, 2, … are variants.
        seed: Seed of the data set.
    """
    return {"augment": version > 0, "seed": stable_seed(seed, sample_id, version)}


def check_versions_differ(reading: Mapping[str, Any], versions: int, setting: str) -> None:
    """Raises `ValueError` for several versions that would all be the same.

    Args:
        reading: Settings of the feature extractor.
        versions: Number of versions.
        setting: Name of the setting that gives this number, for the error.
    """
    without_effect = set()
    if reading.get("length"):  # all recordings are resampled to one length, which undoes a change of speed
        without_effect.add("augment_speed")
    if reading.get("coordinates") == 2:  # depth is left out anyway
        without_effect.add("augment_flat")
    if reading.get("layout") is not None and get_layout(reading["layout"]).dimensions == 2:  # there is no depth
        without_effect |= {"augment_tilt", "augment_flat", "augment_occlusion"}
    if reading.get("num_persons") == 1:  # nobody to change places with
        without_effect.add("augment_swap")
    names = [name for name in reading if name.startswith("augment_") and name not in without_effect]
    if versions > 1 and not any(reading[name] for name in names):
        raise ValueError(
            f"{setting} {versions}: expected versions that differ, but {', '.join(names)} of the feature extractor are all 0. "
            f"Set {setting} to 1, or create the feature extractor with one of these settings above 0."
        )


__all__ = ["check_versions_differ", "stable_seed", "version_arguments"]
