"""The axis that points up: rotations of joints to the axes of their layout."""

import numpy as np

from .model_files import as_written
from .skeleton_layouts import SkeletonLayout

# Rotations to y up, as rows of a rotation matrix: axis and sign of each new coordinate.
AXES = {
    "y": ((0, 1), (1, 1), (2, 1)),
    "-y": ((0, 1), (1, -1), (2, -1)),
    "z": ((0, 1), (2, 1), (1, -1)),
    "-z": ((0, 1), (2, -1), (1, 1)),
    "x": ((1, -1), (0, 1), (2, 1)),
    "-x": ((1, 1), (0, -1), (2, 1)),
}


def turned_upright(keypoints: np.ndarray, up: str | None, layout: SkeletonLayout) -> np.ndarray:
    """Joints in the axes of their layout: 3-D joints are rotated; in 2-D, y is negated if it grows in the other direction.

    Args:
        keypoints: Joints, (..., 3). Joints of -1, which were not detected, become NaN if they are rotated.
        up: The axis that points up, see `read_recording`; None changes nothing.
        layout: The layout, which defines whether y grows upwards.

    Raises:
        ValueError: If there is no such axis.
    """
    vertical = "y" if layout.up > 0 else "-y"
    if up is None or up == vertical:
        return keypoints
    if not isinstance(up, str) or up not in AXES or (layout.dimensions == 2 and up[-1] != "y"):
        axes = list(AXES) if layout.dimensions == 3 else ["y", "-y"]
        raise ValueError(f"up: expected one of {', '.join(axes)} (layout {layout.name}), got {as_written(up)}")
    # Joints of -1 mark missing detections, which would be lost by a rotation.
    lost = (keypoints[..., :2] == -1).all(-1) & np.isin(keypoints[..., 2], (-1, 0))
    keypoints = np.where(lost[..., None], np.nan, keypoints).astype(keypoints.dtype, copy=False)
    if layout.dimensions == 2:
        return keypoints * np.array([1, -1, 1], keypoints.dtype)
    for turn in (AXES[up],) if layout.up > 0 else (AXES[up], AXES["-y"]):
        keypoints = np.stack([sign * keypoints[..., axis] for axis, sign in turn], axis=-1)
    return keypoints


__all__ = ["AXES", "turned_upright"]
