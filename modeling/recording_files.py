"""Reads recordings of skeletons in any supported format, which the suffix of the file determines."""

import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from .array_files import ARRAY_SUFFIXES, read_joint_array
from .bvh_files import read_bvh
from .c3d_files import read_c3d
from .nw_ucla_files import has_nw_ucla_keys, read_nw_ucla
from .pose_json_files import has_pose_json_keys, is_openpose_folder, read_pose_json
from .sbu_files import FILE_NAME as SBU_FILE_NAME
from .sbu_files import read_sbu
from .size_limits import MAX_LINE_BYTES
from .skeleton_files import (
    BODY_COLUMNS,
    SkeletonFileError,
    SkeletonRecording,
    read_content,
    read_skeleton,
    read_utd_mhad,
)
from .skeleton_layouts import SkeletonLayout, get_layout
from .smarthome_files import read_smarthome
from .upright import turned_upright

RECORDING_SUFFIXES = (".skeleton", ".json", ".mat", ".bvh", ".c3d", *ARRAY_SUFFIXES)
PICKLE_SUFFIXES = (".pkl", ".pickle")
# Writes an .npz for each annotation of a data set of PYSKL.
UNPICKLE = (
    "python -c \"import numpy, pickle, sys; [numpy.savez(a['frame_dir'], **a) "
    "for a in pickle.load(open(sys.argv[1], 'rb'))['annotations']]\""
)

# Layouts of NTU RGB+D (`.skeleton`) and UAV-Human (`.txt`), whose files have the same format.
_USUAL_LAYOUTS = {".skeleton": "kinect25", ".txt": "coco17"}


class _Content(io.BytesIO):
    """The content of a file, and its name."""

    def __init__(self, name: str, data: bytes):
        super().__init__(data)
        self.name = name


def read_recording(
    file: str | os.PathLike | BinaryIO,
    *,
    layout: str | Mapping[str, Any] | SkeletonLayout = "kinect25",
    fps: float | None = None,
    up: str | None = None,
) -> SkeletonRecording:
    """Reads a recording: `.skeleton` (with the suffix `.txt` in UAV-Human), `.mat` of UTD-MHAD, `.json` of Toyota Smarthome,
    Northwestern-UCLA, AlphaPose or COCO, a folder of OpenPose's `.json` files, `skeleton_pos.txt` of SBU Kinect Interaction,
    `.bvh`, `.c3d`, `.npy`, `.npz`, or `.txt` with a frame or a joint per row.

    A recording may have at most 22.4 million joints in 512 MiB, half of that as rows of text, and a quarter as JSON
    (`size_limits`). As an array, this is an hour of 30 frames per second with 8 people of 25 joints. Larger files are refused
    before memory is allocated.

    Args:
        file: Path, open file, or path of a folder of OpenPose.
        layout: The joint layout, by name or description. For a derived layout, recordings of its source layout are read.
            Files of UTD-MHAD, Toyota Smarthome, Northwestern-UCLA and SBU Kinect Interaction always have the layout of their
            data set, and BVH and C3D files have smpl22. So have, if this layout has another number of joints, `.skeleton`
            files of 25 joints (NTU RGB+D), `.txt` files of 17 joints (UAV-Human), and `.json` of pose estimators.
        fps: Frames per second, if neither the file nor its data set defines the rate. None assumes 30, and sets
            `fps_is_assumed`.
        up: The axis that points up in the file: "y", "-y", "z", "-z", "x" or "-x"; None is that of the layout, and of C3D
            files the one that they state, or z. The recording is rotated (`turned_upright`).

    Raises:
        SkeletonFileError: If the file does not follow its format, is too large, has an impossible frame rate, or has an
            unknown suffix.
        OSError: If the file cannot be read.
    """
    skeleton = get_layout(layout)
    own = get_layout(skeleton.source or skeleton)
    if isinstance(file, str | os.PathLike) and os.path.isdir(file):
        if not is_openpose_folder(file):
            raise SkeletonFileError(
                file, None, "a folder", "a file, or a folder with a JSON file of OpenPose per frame"
            )
        return _upright(read_pose_json(file, layout=own, fps=fps), up, skeleton)
    path, data = read_content(file)
    content, suffix = _Content(str(path), data), path.suffix.lower()
    if suffix == ".mat":
        recording = read_utd_mhad(content)
    elif suffix == ".bvh":
        recording = read_bvh(content)
    elif suffix == ".c3d":
        return read_c3d(content, up=up)
    elif path.name.lower() == SBU_FILE_NAME:
        recording = read_sbu(content)
    elif suffix == ".json" and has_nw_ucla_keys(data):
        recording = read_nw_ucla(content)
    elif suffix == ".json" and has_pose_json_keys(data):
        recording = read_pose_json(content, layout=own, fps=fps)
    elif suffix == ".json":
        try:
            recording = read_smarthome(content, pose=f"pose{skeleton.dimensions}d")
        except SkeletonFileError as error:
            if error.line is not None or b'"frames"' in data:
                raise
            expected = "JSON of OpenPose, AlphaPose, COCO, Northwestern-UCLA or Toyota Smarthome"
            raise SkeletonFileError(path, None, "JSON without their keys", expected) from error
    elif suffix == ".skeleton" or (suffix == ".txt" and _starts_with_a_count(data)):
        num_joints, usual = _count_joints(data), get_layout(_USUAL_LAYOUTS[suffix])
        is_usual = num_joints == usual.num_joints != own.num_joints
        recording = read_skeleton(content, layout=usual if is_usual else own, fps=fps)
    elif suffix in ARRAY_SUFFIXES:
        recording = read_joint_array(content, layout=skeleton, fps=fps)
    elif suffix in PICKLE_SUFFIXES:
        expected = f"{', '.join(RECORDING_SUFFIXES)}. If you trust it and it is of PYSKL, run {UNPICKLE} {path.name}"
        raise SkeletonFileError(path, None, "a pickle, which is not read because unpickling can run code", expected)
    else:
        raise SkeletonFileError(
            path, None, f"a name that ends in {suffix!r}", f"one of {', '.join(RECORDING_SUFFIXES)}"
        )
    return _upright(recording, up, skeleton)


def _upright(recording: SkeletonRecording, up: str | None, skeleton: SkeletonLayout) -> SkeletonRecording:
    """The recording, rotated if it has the stated layout; data sets of another layout have its axes."""
    if recording.layout in (skeleton.name, skeleton.source):
        recording.keypoints = turned_upright(recording.keypoints, up, skeleton)
    return recording


def _count_joints(data: bytes) -> int | None:
    """The number of joints that a `.skeleton` file gives after its first body; None if there is none."""
    lines = io.BytesIO(data)
    while line := lines.readline(MAX_LINE_BYTES):
        if len(line.split(None, BODY_COLUMNS)) == BODY_COLUMNS:
            count = lines.readline(MAX_LINE_BYTES).strip()
            return int(count) if count.isdigit() and len(count) < 10 else None
    return None


def _starts_with_a_count(data: bytes) -> bool:
    """Whether the first line is a single number, as in `.skeleton` files; rows of joints have at least two."""
    line = data[: data.find(b"\n")] if b"\n" in data else data
    return len(line[:MAX_LINE_BYTES].replace(b",", b" ").split(None, 1)) == 1


__all__ = ["RECORDING_SUFFIXES", "read_recording"]
