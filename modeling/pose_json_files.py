"""Reader of people that a pose estimator detected in a video, in the JSON of OpenPose, AlphaPose and COCO.

    OpenPose   {"people": [{"pose_keypoints_2d": [x, y, score, …], "person_id": [-1]}, …]}      a file per frame, in a folder
    AlphaPose  [{"image_id": "12.jpg", "keypoints": [x, y, score, …], "idx": 1}, …]             a file per video
    COCO       the same list with numbers as image_id, as detectors write results, or {"images": […], "annotations": [it]}

Sources: OpenPose's `doc/02_output.md`, AlphaPose's `docs/output.md` and COCO's "Data format" and "Results format". Coordinates
are pixels. The number of joints tells the layout, and the numbers of frames tell the time: frames without a file or an entry
are frames without people. People are tracked by their ids if the file has ids that are distinct in each frame, and by distance
otherwise.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .array_files import recording_of_people
from .json_files import describe_json, parse_json
from .model_files import shortened
from .size_limits import MAX_BODIES, MAX_JSON_BYTES, bytes_fault
from .skeleton_files import SkeletonFileError, SkeletonRecording, check_size, read_content
from .skeleton_layouts import LAYOUTS, SkeletonLayout

# The layout of a number of joints, if the caller states no other.
LAYOUT_OF = {
    LAYOUTS[name].num_joints: name for name in ("coco17", "openpose18", "openpose25", "halpe26", "wholebody133")
}
# The end of the name of an OpenPose file, after the number of the frame.
FRAME_SUFFIX = "_keypoints.json"
# Numbers of images are frames of a video if at least one in so many has people.
SPARSEST = 100
_LAST_NUMBER = re.compile(r"(\d+)\D*$")
_ID_FIELDS = ("person_id", "idx", "track_id")


class _Detection(NamedTuple):
    """A person in an image: the number of the image, the numbers of the joints, and the id if it is known."""

    image: int
    joints: list[float]
    person: int | None


def has_pose_json_keys(data: bytes) -> bool:
    """Whether JSON text is of a pose estimator, by its keys."""
    return b'"people"' in data or b'"keypoints"' in data or b'"annotations"' in data


def is_openpose_folder(path: str | os.PathLike) -> bool:
    """Whether the first JSON file of a folder is a frame of OpenPose."""
    first = next(iter(_json_files(Path(path))), None) if os.path.isdir(path) else None
    return first is not None and b'"people"' in read_content(first, MAX_JSON_BYTES)[1]


def read_pose_json(
    file: str | os.PathLike | BinaryIO, *, layout: SkeletonLayout, fps: float | None = None
) -> SkeletonRecording:
    """Reads people from a JSON file, or from a folder of OpenPose with a file per frame.

    Args:
        file: Path, open file, or path of a folder.
        layout: The stated layout. It is used if it is 2-D and has the number of joints of the file, or fewer if those behind
            them were never seen; otherwise, the number of joints tells the layout (`LAYOUT_OF`).
        fps: Frames per second, which the files do not contain. None assumes 30, and sets `fps_is_assumed`.

    Returns:
        The recording, with the scores of the joints. Joints with a score below 0.05 are missing.

    Raises:
        SkeletonFileError: If a file is not JSON or has another structure, there is nobody, the number of joints has no layout
            or differs between people, images have no numbers or are not frames of a video, or the recording is too large.
        OSError: If a file cannot be read.
    """
    if isinstance(file, str | os.PathLike) and os.path.isdir(file):
        path = Path(file)
        images, detections = _read_folder(path)
    else:
        path, data = read_content(file)
        images, detections = _read_file(path, parse_json(path, data))
    if not detections:
        raise SkeletonFileError(path, None, "nobody in any frame", "at least one person")
    length = len(detections[0].joints)
    for number, detection in enumerate(detections):
        if len(detection.joints) != length:
            actual = f"{len(detection.joints)} for person {number}"
            raise SkeletonFileError(path, None, actual, f"{length} numbers of joints, as the first person has")
    joints = np.array([detection.joints for detection in detections], np.float64).reshape(len(detections), -1, 3)
    skeleton = _layout_of(path, joints, layout)
    joints = joints[:, : skeleton.num_joints]
    first, frames = _frames(path, images)
    slots, ids = _slots(path, detections)
    check_size(path, frames, len(ids), skeleton.num_joints)
    people = np.full((frames, len(ids), skeleton.num_joints, 3), np.nan, np.float32)
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        people[[detection.image - first for detection in detections], slots] = joints
    tracked = detections[0].person is not None
    return recording_of_people(
        people[..., :2],
        np.nan_to_num(people[..., 2]),
        layout=skeleton,
        fps=fps,
        source=str(path),
        body_ids=ids if tracked else None,
    )


def _json_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".json" and path.name[0] != ".")


def _read_folder(folder: Path) -> tuple[list[int], list[_Detection]]:
    """The numbers of the frames and the people of all files of a folder."""
    images, detections, stems, size = [], [], set(), 0
    for path in _json_files(folder):
        _, data = read_content(path, MAX_JSON_BYTES)
        size += len(data)
        if size > MAX_JSON_BYTES:
            raise SkeletonFileError(folder, None, *bytes_fault(MAX_JSON_BYTES))
        number = _number(path, path.name.removesuffix(FRAME_SUFFIX), "the number of the frame in the name of the file")
        stems.add(_LAST_NUMBER.sub("", path.name.removesuffix(FRAME_SUFFIX)))
        images.append(number)
        content = parse_json(path, data)
        if not isinstance(content, dict) or "people" not in content:
            raise SkeletonFileError(path, None, describe_json(content), "an object with people, a frame of OpenPose")
        detections += _people(path, content, number)
    if len(stems) > 1:
        actual = f"frames of several recordings, {shortened(', '.join(sorted(stems)))}"
        raise SkeletonFileError(folder, None, actual, "a folder for each recording")
    return images, _with_ids(detections)


def _read_file(path: Path, content: Any) -> tuple[list[int], list[_Detection]]:
    """The numbers of the images and the people of a file."""
    if isinstance(content, dict) and "people" in content:
        return [0], _with_ids(_people(path, content, 0))
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        entries, images = content["annotations"], content.get("images", [])
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise SkeletonFileError(path, None, f"images, {describe_json(images)}", "images as a list of objects")
        # The names of images have the numbers of frames; their ids may be any numbers.
        names = {_key(image.get("id")): image.get("file_name", image.get("id")) for image in images}
    else:
        entries, names = content, {}
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SkeletonFileError(path, None, describe_json(content), "a list of people with image_id and keypoints")
    expected = "image_id with the number of a frame"
    detections = []
    for number, entry in enumerate(entries):
        image = entry.get("image_id")
        image = _number(path, names.get(_key(image), image), expected)
        detections.append(_detection(path, entry, "keypoints", image, f"person {number}"))
    images = [_number(path, name, expected) for name in names.values()]
    return images or [detection.image for detection in detections], _with_ids(detections)


def _key(value: Any) -> Any:
    """A value by which a dict can be searched."""
    return value if isinstance(value, str | float) else None


def _people(path: Path, content: dict, image: int) -> list[_Detection]:
    people = content["people"]
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise SkeletonFileError(path, None, f"people, {describe_json(people)}", "people as a list of objects")
    field = "pose_keypoints" if any("pose_keypoints" in person for person in people) else "pose_keypoints_2d"
    return [_detection(path, person, field, image, f"person {number}") for number, person in enumerate(people)]


def _detection(path: Path, entry: dict, field: str, image: int, place: str) -> _Detection:
    joints = entry.get(field)
    if (
        not isinstance(joints, list)
        or not joints
        or len(joints) % 3
        or any(type(value) is not float for value in joints)
    ):
        actual = "nothing" if joints is None else describe_json(joints)
        raise SkeletonFileError(
            path, None, f"{actual} as {field} of {place}", "a list of x, y and score of each joint"
        )
    person = next((entry[name] for name in _ID_FIELDS if name in entry), None)
    if isinstance(person, list) and len(person) == 1:
        person = person[0]
    is_id = isinstance(person, float) and person.is_integer() and 0 <= person < 2**63
    return _Detection(image, joints, int(person) if is_id else None)


def _number(path: Path, name: Any, expected: str) -> int:
    """The last number in the name of an image, or its id."""
    found = _LAST_NUMBER.search(name) if isinstance(name, str) and len(name) < 1000 else None
    if found and len(found[1]) < 19:
        return int(found[1])
    if isinstance(name, float) and name.is_integer() and 0 <= name < 2**53:
        return int(name)
    raise SkeletonFileError(path, None, "nothing" if name is None else describe_json(name), expected)


def _with_ids(detections: list[_Detection]) -> list[_Detection]:
    """The detections with ids if all have one that is distinct in its image, and without ids otherwise."""
    people = [(detection.image, detection.person) for detection in detections if detection.person is not None]
    if len(set(people)) == len(detections):
        return detections
    return [detection._replace(person=None) for detection in detections]


def _layout_of(path: Path, joints: np.ndarray, stated: SkeletonLayout) -> SkeletonLayout:
    """The layout of people (N, J, 3)."""
    count, fewer = joints.shape[1], stated.num_joints
    if stated.dimensions == 2 and stated.source is None and fewer <= count and not joints[:, fewer:].any():
        return stated
    if count in LAYOUT_OF:
        return LAYOUTS[LAYOUT_OF[count]]
    known = ", ".join(f"{number} ({name})" for number, name in LAYOUT_OF.items())
    raise SkeletonFileError(
        path, None, f"{count} joints per person", f"{known}, or as many as a 2-D layout that you state"
    )


def _frames(path: Path, images: Iterable[int]) -> tuple[int, int]:
    """The first frame, and the number of frames. Frames count from 0, unless ids of images are far larger than their number."""
    distinct = sorted(set(images))
    longest = SPARSEST * len(distinct)
    first = 0 if distinct[-1] < longest else distinct[0]
    if distinct[-1] - first >= longest:
        actual = f"{len(distinct):,} images with numbers from {distinct[0]:,} to {distinct[-1]:,}"
        raise SkeletonFileError(path, None, actual, "the consecutive frames of a video")
    return first, distinct[-1] - first + 1


def _slots(path: Path, detections: list[_Detection]) -> tuple[list[int], np.ndarray]:
    """The slot of each detection, and the id of each slot, int64 (P,)."""
    if detections[0].person is not None:
        ids = list(dict.fromkeys(detection.person for detection in detections))
        slot_of = {person: slot for slot, person in enumerate(ids)}
        slots = [slot_of[detection.person] for detection in detections]
    else:
        counts: dict[int, int] = {}
        slots = []
        for detection in detections:
            slots.append(counts.get(detection.image, 0))
            counts[detection.image] = slots[-1] + 1
        ids = list(range(max(counts.values())))
    if len(ids) > MAX_BODIES:
        raise SkeletonFileError(
            path, None, f"{len(ids)} people", f"at most {MAX_BODIES}: keep only the people who act"
        )
    return slots, np.array(ids, np.int64)


__all__ = ["FRAME_SUFFIX", "has_pose_json_keys", "is_openpose_folder", "read_pose_json"]
