"""Versions of a recording: as it is, and varied by the `augment_` settings of a feature extractor, the same ones everywhere."""

import hashlib
from collections.abc import Mapping
from typing import Any

from .skeleton_layouts import get_layout


def stable_seed(*parts) -> int:
    """A seed that depends on its parts alone: the same in every process, order and resumed run."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=6).digest(), "little")


def version_arguments(sample_id: str, version: int, seed: int = 0) -> dict[str, Any]:
    """Arguments with which a feature extractor makes one version of a recording.

    Args:
        sample_id: Name of the recording.
        version: 0 is the recording as it is; 1, 2, … are varied.
        seed: Of the whole data set.
    """
    return {"augment": version > 0, "seed": stable_seed(seed, sample_id, version)}


def check_versions_differ(reading: Mapping[str, Any], versions: int, setting: str) -> None:
    """Raises `ValueError` for several versions that would all be the same.

    Args:
        reading: Settings of the feature extractor that makes them.
        versions: How many.
        setting: What asks for them, as the error names it.
    """
    names = [name for name in reading if name.startswith("augment_")]
    if reading.get("length"):  # recordings of one length have no tempo of their own
        names.remove("augment_speed")
    if (
        reading.get("layout") is not None and get_layout(reading["layout"]).dimensions == 2
    ):  # nor can a plane be tilted
        names.remove("augment_tilt")
    if versions > 1 and not any(reading[name] for name in names):
        raise ValueError(
            f"{setting} {versions}: expected versions that differ, but {', '.join(names)} of the feature extractor are all 0. "
            f"Set {setting} to 1, or one of these above 0 where the feature extractor is made."
        )


__all__ = ["check_versions_differ", "stable_seed", "version_arguments"]
