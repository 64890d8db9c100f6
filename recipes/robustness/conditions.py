"""
Conditions under which skeletons are recorded: another layout, no depth, missing joints, noise, another view.

A condition turns a row of a data set into the row that would have been recorded. What is drawn depends only on the recording
and the condition, so all recognisers read the same rows.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from action_llm.joint_mapping import map_layout
from action_llm.recording_versions import stable_seed
from action_llm.skeleton_bodies import valid_joints
from action_llm.skeleton_layouts import SkeletonLayout, get_layout
from action_llm.skeleton_plausibility import find_symptoms

# A pose estimator finds people of about this size, in pixels per metre.
PIXELS_PER_METRE = 250
# A joint is hidden from the sensor if it lies this far behind the pelvis and at most this far beside it, as in the feature
# extractor's `augment_occlusion`. Its error drifts, and has this standard deviation. All are in lengths of the torso.
HIDDEN_BEHIND, HIDDEN_BESIDE, HIDDEN_ERROR = 0.15, 0.6, 0.3
# Independent errors of a hidden joint are drawn at most so many seconds apart.
SECONDS_PER_ERROR = 0.3


@dataclass(frozen=True)
class Condition:
    """A change of recordings.

    Attributes:
        group: What changes, as the title of a curve: "missing joints".
        level: How much, on the axis of the curve: "a fifth".
        change: Turns joints (T, P, J, 3), in which joints that were not measured are 0, their layout, frames per second and a
            generator into joints and the layout that they are recorded in.
    """

    group: str
    level: str
    change: Callable[[np.ndarray, SkeletonLayout, float, np.random.Generator], tuple[np.ndarray, SkeletonLayout]]

    def __call__(self, row: Mapping) -> dict:
        """The row that would have been recorded; `row` has `keypoints`, `shape`, `layout`, `fps` and `sample_id`."""
        keypoints = np.asarray(row["keypoints"], np.float64).reshape(row["shape"])
        generator = np.random.default_rng(stable_seed(self.group, self.level, str(row["sample_id"])))
        keypoints, layout = self.change(keypoints, get_layout(row["layout"]), float(row["fps"]), generator)
        name = layout.name if layout == _named(layout.name) else json.dumps(layout.to_dict())
        return {**row, "keypoints": keypoints.astype(np.float32).ravel(), "shape": keypoints.shape, "layout": name}


def conditions(layout: SkeletonLayout) -> list[Condition]:
    """The conditions for recordings of a layout, complete recordings first."""
    made = [Condition("complete", "", lambda keypoints, layout, *_: (keypoints, layout))]
    for name in ("h36m17", "openpose25", "coco17"):
        if name != layout.name:
            made.append(Condition("layout", name, _as_layout(name)))
    if layout.dimensions == 3:
        made.append(Condition("layout", "no depth", _without_depth))
    made += [
        Condition("missing joints", "a fifth", _without_joints(0.2)),
        Condition("missing joints", "half", _without_joints(0.5)),
    ]
    if layout.dimensions == 3:
        made += [Condition("noise", f"{centimetres} cm", _noisy(centimetres / 100)) for centimetres in (2, 5, 10)]
        made += [Condition("turned", f"{degrees}°", _turned(degrees)) for degrees in (15, 30, 45, 60)]
    return made


def are_in_metres(rows: Sequence[Mapping]) -> bool:
    """Whether people have a possible size in metres in most recordings, so that noise in centimetres means something."""
    odd = 0
    for row in rows:
        keypoints = np.reshape(row["keypoints"], row["shape"])
        odd += "units" in find_symptoms(keypoints, _valid(keypoints), get_layout(row["layout"]))
    return odd <= len(rows) / 2


def _named(name: str) -> SkeletonLayout | None:
    try:
        return get_layout(name)
    except ValueError:
        return None


def _valid(keypoints: np.ndarray) -> np.ndarray:
    """Whether each joint was measured, bool (T, P, J)."""
    return valid_joints(keypoints, np.ones(keypoints.shape[:2], bool))


def _as_layout(name: str):
    """The joints of another layout that can be computed from the recorded ones; the others are missing."""

    def change(keypoints, layout, fps, generator):
        target = get_layout(name)
        joints, valid = map_layout(layout, target).map_joints(keypoints, _valid(keypoints))
        if layout.dimensions == 3 and target.dimensions == 2:
            joints *= PIXELS_PER_METRE
        return np.where(valid[..., None], joints, 0), target

    return change


def _without_depth(keypoints, layout, fps, generator):
    """The projection along the line of sight: the same joints in two dimensions."""
    flat = SkeletonLayout.from_dict({**layout.to_dict(), "name": f"{layout.name}-2d", "dimensions": 2})
    return keypoints * np.array([1, 1, 0]), flat


def _without_joints(share: float):
    """A share of the joints, drawn anew for each recording, is missing from the whole recording."""

    def change(keypoints, layout, fps, generator):
        missing = generator.permutation(layout.num_joints)[: round(share * layout.num_joints)]
        keypoints = keypoints.copy()
        keypoints[:, :, missing] = 0
        return keypoints, layout

    return change


def _noisy(metres: float):
    """Normal noise of this standard deviation on each coordinate of each joint in each frame."""

    def change(keypoints, layout, fps, generator):
        noise = metres * generator.standard_normal(keypoints.shape)
        return np.where(_valid(keypoints)[..., None], keypoints + noise, 0), layout

    return change


def _turned(degrees: float):
    """
    People turn by this angle about the vertical, to the left or the right, and hide joints from the sensor.

    A sensor guesses the joints that it does not see. Here their errors drift, with a standard deviation of `HIDDEN_ERROR`
    lengths of the torso. They are drawn for the joints that are hidden after the turn, but not before it, since the errors of
    the sensor are in the recording.
    """

    def change(keypoints, layout, fps, generator):
        valid = _valid(keypoints)
        angle = np.radians(degrees) * generator.choice([-1, 1])
        rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        pelvis, neck = (
            keypoints[:, :, list(joints)].mean(2, keepdims=True) for joints in (layout.pelvis, layout.neck)
        )
        origin = pelvis[valid[:, :, list(layout.pelvis)].all(2)]
        origin = origin.mean((0, 1)) if len(origin) else np.zeros(3)
        turned = (keypoints - origin) @ rotation.T + origin
        torso = float(np.median(np.linalg.norm(neck - pelvis, axis=-1)[valid.any(-1)])) if valid.any() else 1.0
        newly_hidden = _hidden(turned, layout, torso) & ~_hidden(keypoints, layout, torso)
        knots = generator.standard_normal((int(len(keypoints) / (SECONDS_PER_ERROR * fps)) + 2, *keypoints.shape[1:]))
        errors = _between_knots(knots, len(keypoints)) * HIDDEN_ERROR * torso
        turned = turned + errors * newly_hidden[..., None]
        return np.where(valid[..., None], turned, 0), layout

    return change


def _hidden(keypoints: np.ndarray, layout: SkeletonLayout, torso: float) -> np.ndarray:
    """Whether the body hides each joint, bool (T, P, J), from a sensor that looks along +z."""
    relative = keypoints - keypoints[:, :, list(layout.pelvis)].mean(2, keepdims=True)
    return (relative[..., 2] > HIDDEN_BEHIND * torso) & (np.abs(relative[..., 0]) < HIDDEN_BESIDE * torso)


def _between_knots(knots: np.ndarray, length: int) -> np.ndarray:
    """Smooth curves (length, ...) through independent values (K, ...), of the same variance everywhere."""
    position = np.linspace(0, len(knots) - 1, length)
    early = np.minimum(position.astype(int), len(knots) - 2)
    angle = (position - early).reshape(-1, *[1] * (knots.ndim - 1)) * np.pi / 2
    return np.cos(angle) * knots[early] + np.sin(angle) * knots[early + 1]
