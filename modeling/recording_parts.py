"""Parts of recordings of skeletons: consecutive frames, and single people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .size_limits import MAX_BODIES
from .skeleton_bodies import Cleaning, select_actors, valid_joints
from .skeleton_files import SkeletonRecording


class Person(NamedTuple):
    """A person of a recording.

    Attributes:
        number: Their track: the id of the body, or of the first of several bodies that a sensor took for different people.
        start, end: The time in which they are seen, in seconds from the start of the recording.
        recording: The recording without everybody else; all of its frames.
    """

    number: int
    start: float
    end: float
    recording: SkeletonRecording


def as_recording(recording: SkeletonRecording | Mapping[str, Any]) -> SkeletonRecording:
    """A row of a data set as a recording, whose bodies are the people of the row; recordings are returned unchanged.

    Args:
        recording: From `SkeletonFeatureExtractor.read`. Rows must be valid.
    """
    if not isinstance(recording, Mapping):
        return recording
    keypoints = np.asarray(recording["keypoints"]).reshape(tuple(recording["shape"]))
    present = valid_joints(keypoints, np.ones(keypoints.shape[:2], bool)).any(-1)
    ids = np.arange(keypoints.shape[1], dtype=np.int64)
    name = str(recording.get("sample_id", "row"))
    cleaned = bool(recording.get("cleaned"))
    return SkeletonRecording(
        keypoints, present, ids, recording["layout"], float(recording["fps"]), name, cleaned=cleaned
    )


def join_frames(pieces: Sequence[SkeletonRecording], first: int, last: int) -> SkeletonRecording:
    """The frames from `first` to before `last` of consecutive pieces of a recording, with the bodies that are seen in them.

    Args:
        pieces: Of the same layout and frame rate. A body has the same id in all of them.
        first, last: Frames, counted from the start of the first piece.
    """
    spans, passed = [], 0
    for piece in pieces:
        frames = slice(max(first - passed, 0), max(last - passed, 0))
        spans.append((piece, frames, piece.present[frames]))
        passed += len(piece.present)
    ids = dict.fromkeys(
        body_id
        for piece, _, present in spans
        for body_id, seen in zip(piece.body_ids.tolist(), present.any(0).tolist(), strict=True)
        if seen
    )
    place = {body_id: number for number, body_id in enumerate(ids)}
    arrays: dict[str, list[np.ndarray]] = {"keypoints": [], "present": [], "scores": [], "color_pixels": []}
    for piece, frames, present in spans:
        bodies = [number for number, body_id in enumerate(piece.body_ids.tolist()) if body_id in place]
        places = [place[body_id] for body_id in piece.body_ids[bodies].tolist()]
        for name, joined in arrays.items():
            values = getattr(piece, name)
            if values is not None:
                part = np.zeros((len(present), len(ids), *values.shape[2:]), values.dtype)
                part[:, places] = values[frames, bodies]
                joined.append(part)
    joined = {name: np.concatenate(parts) for name, parts in arrays.items() if parts}
    about = {name: getattr(pieces[0], name) for name in ("layout", "fps", "source", "cleaned")}
    return SkeletonRecording(body_ids=np.array(list(ids), np.int64), **about, **joined)


def each_body(recording: SkeletonRecording) -> dict[int, SkeletonRecording]:
    """The bodies of a recording, each alone in all of its frames, by their ids."""
    alone = {}
    for place, body_id in enumerate(recording.body_ids.tolist()):
        arrays = {name: values[:, place : place + 1] for name, values in _arrays_of_bodies(recording).items()}
        alone[body_id] = replace(recording, body_ids=recording.body_ids[place : place + 1], **arrays)
    return alone


def join_bodies(recording: SkeletonRecording, cleaning: Cleaning) -> SkeletonRecording:
    """A recording with a body for each person, in order of first appearance.

    Bodies are assigned to people as for the features (`skeleton_bodies.select_actors`), but nobody is left out for somebody who
    moves more. The id of a person is that of their first body.

    Args:
        recording: From `SkeletonFeatureExtractor.read`, see `as_recording`.
        cleaning: The settings of that feature extractor.
    """
    cleaning = replace(cleaning, num_persons=MAX_BODIES, clean=cleaning.clean and not recording.cleaned)
    valid = valid_joints(recording.keypoints, recording.present)
    actors, _ = select_actors(recording.keypoints.astype(np.float64), valid, cleaning)
    is_seen = actors >= 0
    order = np.argsort(is_seen.argmax(axis=0), kind="stable")
    actors, is_seen = actors[:, order], is_seen[:, order]
    first_bodies = actors[is_seen.argmax(axis=0), np.arange(len(order))]
    frames = np.arange(len(actors))[:, None]
    arrays = {
        name: np.where(is_seen.reshape(*is_seen.shape, *[1] * (values.ndim - 2)), values[frames, actors], 0)
        for name, values in _arrays_of_bodies(recording).items()
    }
    return replace(recording, body_ids=recording.body_ids[first_bodies], **arrays | {"present": is_seen})


def people_of(recording: SkeletonRecording | Mapping[str, Any], cleaning: Cleaning) -> Iterator[Person]:
    """Yields the people of a recording, see `join_bodies`.

    Args:
        recording: From `SkeletonFeatureExtractor.read`.
        cleaning: The settings of that feature extractor.
    """
    for number, alone in each_body(join_bodies(as_recording(recording), cleaning)).items():
        (seen,) = alone.present[:, 0].nonzero()
        yield Person(number, float(seen[0] / alone.fps), float((seen[-1] + 1) / alone.fps), alone)


def _arrays_of_bodies(recording: SkeletonRecording) -> dict[str, np.ndarray]:
    """The arrays of a recording, (T, P, …), by their names; those that it lacks are left out."""
    names = ("keypoints", "present", "scores", "tracking_state", "depth_pixels", "color_pixels")
    return {name: values for name in names if (values := getattr(recording, name)) is not None}


__all__ = ["Person", "as_recording", "each_body", "join_bodies", "join_frames", "people_of"]
