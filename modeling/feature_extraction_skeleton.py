"""Feature extractor for skeletons: from a recording on disk to the input of an action model.

Dataset building, training, evaluation and the pipeline all use this class, so that they cannot differ.
"""

import math
import operator
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from numbers import Real
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import logging

from .array_files import recording_from_array
from .checked_settings import SettingError, checked, one_of, true_or_false
from .extractor_files import RecordingFeatureExtractor
from .joint_mapping import JointMapping, map_layout, placement
from .model_files import as_written, shortened
from .recording_files import read_recording
from .size_limits import MAX_BODIES, MAX_JOINTS, size_fault
from .skeleton_bodies import NOWHERE, Cleaning, fill_gaps, select_actors, valid_joints
from .skeleton_files import SkeletonFileError, SkeletonRecording
from .skeleton_layouts import LAYOUTS, SkeletonLayout, get_layout
from .skeleton_plausibility import RATES, find_symptoms, is_possible_rate, judge
from .trunk_estimation import estimate_trunk
from .upright import turned_upright

logger = logging.get_logger(__name__)

Recording = str | os.PathLike | BinaryIO | SkeletonRecording | Mapping[str, Any] | np.ndarray

# The view is measured over these first seconds of a recording, before the action turns the body.
VIEW_SECONDS = 0.5
# The widths of hips and shoulders add up to about a torso length. Below this share of it, the view cannot be measured.
MIN_ACROSS = 0.1
# Upper bounds of settings, so that a damaged file cannot exhaust the memory: people, numbers of a recording's features (1 GiB),
# repeated frames, recorded units, and factors of augmentation.
MAX_PERSONS, MAX_VALUES, MAX_MULTIPLE = 100, 2**28, 4096
SCALES, MAX_VARIED = (1e-6, 1e6), 100
# A recording of another layout is refused if fewer than this share of the model's joints can be computed from its joints.
LEAST_KNOWN = 0.5
# For `augment_occlusion`: a joint is hidden if it lies this far behind the pelvis as seen from the sensor, and at most this far
# beside it, in lengths of the torso; and independent errors are drawn at most so many frames apart.
HIDDEN_BEHIND, HIDDEN_BESIDE, FRAMES_PER_ERROR = 0.15, 0.6, 8
# If the torso is below this share of the body's extent, the recording is not scaled by it.
MIN_TORSO = 1e-3


class SkeletonInputError(ValueError):
    """A recording from which no features can be computed.

    Attributes:
        source (str): Name of the recording (its file or sample), or its index in the batch.
        actual, expected (str): The actual content, and what was expected.
    """

    def __init__(self, source: str, actual: str, expected: str):
        self.source, self.actual, self.expected = source, actual, expected
        super().__init__(f"{shortened(source, 300)}: expected {expected}, found {actual}")

    def __reduce__(self):  # errors are sent between processes
        return type(self), (self.source, self.actual, self.expected)


class TooFewJointsError(SkeletonInputError):
    """A recording in which nobody is seen, or nobody well enough."""


@dataclass(frozen=True)
class SkeletonTransform:
    """The transform from recorded coordinates x to features, for the people who are present: (x - center) @ rotation.T / scale.

    Attributes:
        center: Center at each of the T frames of the features, float64 (T, 3), in recorded units.
        rotation: Rotation matrix, float64 (3, 3).
        scale: Recorded units per unit of the features.
        present: Whether each person is present in each frame, bool (T, persons).
    """

    center: np.ndarray
    rotation: np.ndarray
    scale: float
    present: np.ndarray


class _Resolved(NamedTuple):
    """A recording with a known layout and rate.

    Attributes:
        keypoints: Joints, float64 (T, P, J, 3), z = 0 if 2-D.
        present: Whether each body is in each frame, bool (T, P).
        fps: Frames per second.
        name: Name of the recording.
        cleaned: Whether the bodies are already people.
        mapping: How joints are computed, if the recording has neither the layout of the feature extractor nor its source.
    """

    keypoints: np.ndarray
    present: np.ndarray
    fps: float
    name: str
    cleaned: bool
    mapping: JointMapping | None


class SkeletonFeatureExtractor(RecordingFeatureExtractor):
    """Turns recordings of skeletons into normalised sequences.

    The steps are: frames before the first body and after the last are cut off; bodies are assigned to people
    (`skeleton_bodies.py`); missing joints and frames are interpolated, and joints that were never measured are placed by the
    others (`joint_mapping.placement`); the recording is centred, rotated and scaled by amounts that are measured on the first
    person and apply to all people; and it is resampled in time by linear interpolation.

    A recording that names another layout is read in the layout of this feature extractor (`joint_mapping.map_layout`), and
    `doubts` says which joints are missing or estimated. If a 2-D recording is read in three dimensions, z is 0, and the view
    can only be aligned by half a turn, so that the right side of the body is at +x.

    Args:
        layout: Name of the joint layout, or a dict from `SkeletonLayout.to_dict` (or its JSON) for your own layout. With a
            derived layout, recordings of its source layout are accepted, too.
        num_persons: Number of people in the features; absent people are zeros.
        coordinates: 3, or 2 for x and y only. None is the number of dimensions of the layout.
        fps: Frames per second of the features. None keeps the recorded rate.
        recorded_fps: Frames per second of recordings that do not define it (arrays, `.npy`, rows of text), unless a call does:
            the rate of the training recordings. None is `fps`, or 30.
        recorded_up: The axis that points up in files and arrays, see `read_recording`; None is that of the layout.
        length: If set, every recording is resampled to this number of frames, whatever its duration.
        max_frames: If set, longer recordings are resampled to this number of frames.
        frame_multiple: The last frame is repeated until the number of frames is a multiple of this, so that an encoder that
            reduces time by 4 has no remainder. Repeated frames count as frames of the recording.
        center: "first": the origin is the pelvis of the first person in their first frame; "frame": their pelvis in every
            frame; "none".
        align_view: "yaw" rotates the recording about the vertical (y) so that the first person faces the sensor, with their
            left-to-right direction (mean over hips and shoulders, first half second) along +x; "full" also turns their trunk
            upright; "none". A degenerate direction is not rotated. None is "yaw" for 3-D layouts, and "none" for 2-D layouts,
            which cannot be rotated.
        scale: "torso" divides by the distance from pelvis to neck of the first person (median over frames); a number divides by
            that number of recorded units; "none".
        clean, min_body_frames, max_width_ratio, max_flat_share, max_join_distance: Settings of the assignment of bodies to
            people, see `Cleaning`. Rows that already contain people (`cleaned`) are not changed.
        max_gap: Absences of a second person up to this number of seconds are interpolated, longer absences are zeros. The first
            person is interpolated over all absences, and held constant before and after.
        augment_rotation: With `augment=True`, the recording is rotated about the vertical (2-D layouts: in the plane) by up to
            this angle in degrees, in both directions.
        augment_tilt: The recording is rotated about a random horizontal axis by up to this angle in degrees (not 2-D layouts).
        augment_scale: The size is multiplied by a factor between 1 / (1 + `augment_scale`) and 1 + `augment_scale`.
        augment_bones: Each bone is multiplied by a factor between 1 / (1 + `augment_bones`) and 1 + `augment_bones`, equal on
            both sides of the body, which changes proportions.
        augment_speed: The speed is multiplied by a factor between 1 / (1 + `augment_speed`) and 1 + `augment_speed`. No effect
            with `length`.
        augment_trim: Below 0.5: up to this share of the recording is cut off at each end.
        augment_warp: Between 0 and 1: the speed drifts within the recording by up to this share.
        augment_noise: Standard deviation of noise on each joint in each frame, in units of the features.
        augment_mirror: Probability of swapping left and right. 0 by default, because it changes handedness.
        augment_missing: From 0 to 1: joints are missing from the whole recording, single joints and whole limbs, each with a
            probability that is drawn between 0 and this. They are placed like joints that were never measured. Pelvis, neck,
            hips and shoulders are always there.
        augment_flat: Probability of a projection to two dimensions: z is set to 0 after the rotations (not 2-D layouts).
        augment_occlusion: The largest standard deviation, in lengths of the torso, of errors of the joints that the body hides
            from a sensor in a random direction. The errors drift, as those of depth sensors do: independent ones are drawn at
            most eight frames apart, and those between are interpolated (not 2-D layouts).
        augment_swap: Probability that the first two people change places. The origin, the direction and the unit of length are
            then those of the other person.

    Raises:
        ValueError: If an argument is unknown or out of range; the message names it.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
    _auto_class = "AutoFeatureExtractor"

    model_input_names: ClassVar[list[str]] = ["input_features", "feature_attention_mask", "frame_rate", "start_time"]

    def __init__(
        self,
        layout: str | Mapping[str, Any] | SkeletonLayout = "kinect25",
        num_persons: int = 2,
        coordinates: int | None = None,
        fps: float | None = 30.0,
        recorded_fps: float | None = None,
        recorded_up: str | None = None,
        length: int | None = None,
        max_frames: int | None = None,
        frame_multiple: int = 4,
        center: str = "first",
        align_view: str | None = None,
        scale: str | float = "torso",
        clean: bool = Cleaning.clean,
        min_body_frames: int = Cleaning.min_body_frames,
        max_width_ratio: float = Cleaning.max_width_ratio,
        max_flat_share: float = Cleaning.max_flat_share,
        max_join_distance: float = Cleaning.max_join_distance,
        max_gap: float = 1.0,
        augment_rotation: float = 15.0,
        augment_tilt: float = 5.0,
        augment_scale: float = 0.1,
        augment_bones: float = 0.1,
        augment_speed: float = 0.2,
        augment_trim: float = 0.0,
        augment_warp: float = 0.2,
        augment_noise: float = 0.01,
        augment_mirror: float = 0.0,
        augment_missing: float = 0.0,
        augment_flat: float = 0.0,
        augment_occlusion: float = 0.0,
        augment_swap: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        try:
            self.skeleton_layout = skeleton = get_layout(layout)
        except ValueError as error:
            expected = "the name or the description of a joint layout"
            raise SettingError("layout", expected, f"{as_written(layout)} ({error})", str(error)) from error
        if skeleton.source in LAYOUTS:
            named = {joint for joints in skeleton.derivation for joint in joints}
            if not named <= set(range(LAYOUTS[skeleton.source].num_joints)):
                expected = f"a derivation that names joints of {skeleton.source}"
                raise SettingError("layout", expected, as_written(skeleton.derivation))
        self.layout = skeleton.name if LAYOUTS.get(skeleton.name) == skeleton else skeleton.to_dict()
        self.num_persons = checked("num_persons", num_persons, int, 1, MAX_PERSONS)
        coordinates = skeleton.dimensions if coordinates is None else coordinates
        if isinstance(coordinates, bool | float) or coordinates not in (2, 3) or coordinates > skeleton.dimensions:
            expected, actual = f"2 or 3, of the {skeleton.dimensions} of {skeleton.name}", as_written(coordinates)
            raise SettingError("coordinates", expected, actual)
        self.coordinates = coordinates
        self.fps = None if fps is None else checked("fps", fps, float, *RATES)
        self.recorded_fps = None if recorded_fps is None else checked("recorded_fps", recorded_fps, float, *RATES)
        try:
            turned_upright(np.zeros(3), recorded_up, skeleton)
        except ValueError as error:  # its message lists the axes
            expected = str(error).partition("expected ")[2].rpartition(", got ")[0]
            raise SettingError("recorded_up", expected, as_written(recorded_up)) from error
        self.recorded_up = recorded_up
        most_frames = MAX_VALUES // self.feature_size
        self.length = None if length is None else checked("length", length, int, 1, most_frames)
        self.max_frames = None if max_frames is None else checked("max_frames", max_frames, int, 1, most_frames)
        self.frame_multiple = checked("frame_multiple", frame_multiple, int, 1, MAX_MULTIPLE)
        self.center = one_of("center", center, ("first", "frame", "none"))
        if align_view is None:
            align_view = "yaw" if skeleton.dimensions == 3 else "none"
        self.align_view = one_of("align_view", align_view, ("none", "yaw", "full"))
        if skeleton.dimensions == 2 and align_view != "none":
            expected = f"'none', since {skeleton.name} is 2-D and cannot be rotated"
            raise SettingError("align_view", expected, as_written(align_view))
        if isinstance(scale, str):
            self.scale = one_of("scale", scale, ("torso", "none"))
        else:
            self.scale = checked("scale", scale, float, *SCALES)
        self.clean = true_or_false("clean", clean)
        self.min_body_frames = checked("min_body_frames", min_body_frames, int, 0)
        self.max_width_ratio = checked("max_width_ratio", max_width_ratio, float, above=0)
        self.max_flat_share = checked("max_flat_share", max_flat_share, float, 0)
        self.max_join_distance = checked("max_join_distance", max_join_distance, float, 0)
        self.max_gap = checked("max_gap", max_gap, float, 0)
        self.augment_rotation = checked("augment_rotation", augment_rotation, float, 0, 360)
        self.augment_tilt = checked("augment_tilt", augment_tilt, float, 0, 360)
        self.augment_scale = checked("augment_scale", augment_scale, float, 0, MAX_VARIED)
        self.augment_bones = checked("augment_bones", augment_bones, float, 0, MAX_VARIED)
        self.augment_speed = checked("augment_speed", augment_speed, float, 0, MAX_VARIED)
        self.augment_trim = checked("augment_trim", augment_trim, float, 0, below=0.5)
        self.augment_warp = checked("augment_warp", augment_warp, float, 0, below=1)
        self.augment_noise = checked("augment_noise", augment_noise, float, 0, SCALES[1])
        self.augment_mirror = checked("augment_mirror", augment_mirror, float, 0, 1)
        self.augment_missing = checked("augment_missing", augment_missing, float, 0, 1)
        self.augment_flat = checked("augment_flat", augment_flat, float, 0, 1)
        self.augment_occlusion = checked("augment_occlusion", augment_occlusion, float, 0, MAX_VARIED)
        self.augment_swap = checked("augment_swap", augment_swap, float, 0, 1)

    @property
    def cleaning(self) -> Cleaning:
        """The settings of the assignment of bodies to people."""
        thresholds = (self.min_body_frames, self.max_width_ratio, self.max_flat_share, self.max_join_distance)
        return Cleaning(self.clean, self.num_persons, *thresholds)

    @property
    def feature_size(self) -> int:
        """Number of values per frame: persons x joints x coordinates."""
        return self.num_persons * self.skeleton_layout.num_joints * self.coordinates

    def to_dict(self) -> dict[str, Any]:
        """The settings, as in `preprocessor_config.json`."""
        settings = super().to_dict()
        del settings["skeleton_layout"]  # follows from `layout`
        return settings

    def __call__(
        self,
        recordings: Recording | Sequence[Recording],
        *,
        fps: float | None = None,
        augment: bool = False,
        seed: int | None = None,
        return_original: bool = False,
        return_transform: bool = False,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Computes features of a recording, or of several.

        Args:
            recordings: A recording or a list of recordings. Each is a path or an open file (see `read_recording`), a
                `SkeletonRecording`, a dataset row (a dict with `keypoints`, `shape`, `layout` and `fps`), or an array (T, J, C)
                or (T, P, J, C) (see `recording_from_array`). A `SkeletonRecording` and a row name their layout, which may be
                another one than that of this feature extractor; so does the format of some files. All other files and arrays
                have the layout of this feature extractor. Zeros in a row or array are absent bodies.
            fps: Frames per second of the recordings; overrides their own rate. Without it, recordings that do not define their
                rate have `recorded_fps`.
            augment: Whether to vary the recordings at random for training, by the `augment_` settings.
            seed: Seed of the augmentation. The result depends only on the recording and the seed, not on the rest of the batch.
            return_original: Whether to add `original_features`, of the shape of `input_features`: the recording at the same
                moments and with its people in the same order, but otherwise without augmentation.
            return_transform: Whether to add `transforms`, a `SkeletonTransform` for each recording.
            return_tensors: "pt" or "np" return padded batches; None returns lists of arrays without padding.

        Returns:
            `BatchFeature`: `input_features` float32 (B, T, persons * joints * coordinates), in this order, zeros where padded;
            `feature_attention_mask` int64 (B, T); `frame_rate` float32 (B,), frames per second; `start_time` float32 (B,), the
            seconds before the first body, which were cut off. Token w of an encoder that reduces time by 4 spans the seconds
            start_time + 4 w / frame_rate to start_time + 4 (w + 1) / frame_rate of the recording, at the changed speed if
            `augment_speed` applies.

        Raises:
            SkeletonInputError: If a recording has no frames, no body or no valid joint, a layout that is unknown or determines
                fewer than half of the joints, another shape, an impossible frame rate, or is too large (`size_limits`).
            SkeletonFileError: If a file does not follow its format.
        """
        if augment and seed is None:
            raise ValueError("augment=True needs a seed, without which training could not be resumed exactly")
        is_one = isinstance(recordings, str | os.PathLike | Mapping) or _is_recording(recordings)
        if is_one or hasattr(recordings, "ndim") or hasattr(recordings, "read"):
            recordings = [recordings]
        features, originals, rates, starts, transforms = [], [], [], [], []
        if not len(recordings):
            raise ValueError("recordings: expected at least one, got none")
        for index, recording in enumerate(recordings):
            recorded = self._resolve(self.read(recording, fps=fps, name=f"recording {index}"), f"recording {index}")
            extracted = self._extract(recorded, seed if augment else None)
            for values, value in zip((features, originals, rates, starts, transforms), extracted, strict=True):
                values.append(value)
        masks = [np.ones(len(frames), np.int64) for frames in features]
        if return_tensors is not None:
            features, originals, masks = self._pad(features), self._pad(originals), self._pad(masks)
            rates, starts = np.array(rates, np.float32), np.array(starts, np.float32)
        data = {
            "input_features": features,
            "feature_attention_mask": masks,
            "frame_rate": rates,
            "start_time": starts,
        }
        if return_original:
            data["original_features"] = originals
        if return_transform:
            data["transforms"] = transforms
        return BatchFeature(data, tensor_type=return_tensors, skip_tensor_conversion=["transforms"])

    def crop(self, features: BatchFeature, length: int, seed: int) -> BatchFeature:
        """Crops a window of `length` frames at a random position from every recording; shorter recordings are padded.

        Args:
            features: The output of `__call__`, as arrays or tensors.
            length: Number of frames.
            seed: Seed of the positions, which depend only on the seed and the recording, not on the rest of the batch.

        Returns:
            `BatchFeature`: `input_features` (B, length, C), `original_features` if there are any, `feature_attention_mask`
            (B, length) and `frame_rate` (B,), of the type of the inputs.
        """
        inputs, mask = features["input_features"], features["feature_attention_mask"]
        starts = []
        for frames, num_frames in zip(np.asarray(inputs), np.asarray(mask).sum(1).tolist(), strict=True):
            spare = max(num_frames - length, 0)
            starts.append(int(_generator(seed, frames[:num_frames]).integers(spare + 1)))
        index = np.array(starts)[:, None] + np.arange(length)
        inside = index < np.asarray(mask).sum(1, keepdims=True)
        row = np.arange(len(index))[:, None]
        index = np.where(inside, index, 0)
        data = {
            name: np.where(inside[..., None], np.asarray(features[name])[row, index], np.float32(0))
            for name in ("input_features", "original_features")
            if name in features
        }
        data |= {
            "feature_attention_mask": inside.astype(np.int64),
            "frame_rate": np.asarray(features["frame_rate"]),
        }
        return BatchFeature(data, tensor_type="np" if isinstance(inputs, np.ndarray) else "pt")

    def inverse(self, features: Any, transform: SkeletonTransform) -> np.ndarray:
        """Maps features back to recorded coordinates, at the frames of the features.

        Resampling, interpolation and augmentation are not undone: an augmented recording gives the augmented person in
        recorded coordinates. A recording of another layout gives joints and axes of the layout of this feature extractor.

        Args:
            features: Features of a recording, or their reconstruction by a decoder: an array or tensor (T, persons * joints *
                coordinates). Frames beyond those of the transform (padding) are ignored.
            transform: The transform of the recording, from `__call__(..., return_transform=True)`.

        Returns:
            float32 (T, persons, joints, 3); zeros for absent people, and for z in 2-D layouts.

        Raises:
            ValueError: If the features have fewer coordinates than the layout, or another shape.
        """
        skeleton = self.skeleton_layout
        if self.coordinates != skeleton.dimensions:
            raise ValueError(
                f"features with {self.coordinates} of {skeleton.dimensions} coordinates have no inverse: create the feature "
                f"extractor with coordinates={skeleton.dimensions}"
            )
        features = np.asarray(features.detach().cpu() if hasattr(features, "detach") else features, np.float64)
        if features.ndim != 2 or features.shape[1] != self.feature_size or len(features) < len(transform.center):
            expected = f"({len(transform.center)} or more, {self.feature_size})"
            raise ValueError(f"features: expected the shape {expected}, got {features.shape}")
        frames = features[: len(transform.center)].reshape(-1, self.num_persons, skeleton.num_joints, self.coordinates)
        keypoints = np.zeros((*frames.shape[:3], 3))
        keypoints[..., : self.coordinates] = frames
        keypoints = (keypoints * transform.scale) @ transform.rotation + transform.center[:, None, None]
        return np.where(transform.present[..., None, None], keypoints, 0).astype(np.float32)

    def read(
        self, recording: Recording, *, fps: float | None = None, name: str = "array"
    ) -> "SkeletonRecording | Mapping[str, Any]":
        """Reads a recording once, to check it (`doubts`) and to pass it to a call.

        Args:
            recording: A recording, see `__call__`.
            fps: Frames per second, see `__call__`.
            name: Name of an array in errors.

        Returns:
            A `SkeletonRecording`; a dataset row is returned as a row.

        Raises:
            SkeletonInputError, SkeletonFileError: If the recording cannot be read, see `__call__`.
        """
        skeleton = self.skeleton_layout
        if isinstance(recording, Mapping):
            return recording if fps is None else {**recording, "fps": fps}
        if _is_recording(recording):
            rate = {} if fps is None else {"fps": float(fps), "fps_is_assumed": False}
            recording = replace(recording, **rate)  # a copy, because the caller's recording must not change
        elif isinstance(recording, str | os.PathLike) or hasattr(recording, "read"):
            recording = read_recording(recording, layout=skeleton, fps=fps, up=self.recorded_up)
            if fps is not None:
                recording.fps = float(fps)
        else:
            if not (hasattr(recording, "__array__") or isinstance(recording, Sequence)):
                expected = "a path, an open file, an array, a recording or a row of a data set"
                raise SkeletonInputError(name, type(recording).__name__, expected)
            keypoints, layout = np.asarray(recording), skeleton
            source = skeleton.source and get_layout(skeleton.source)
            # An array does not name its layout, but its number of joints tells the two apart.
            if source and keypoints.ndim >= 3 and keypoints.shape[-2] == source.num_joints:
                layout = source
            try:
                recording = recording_from_array(keypoints, layout=layout, fps=fps, source=name)
            except SkeletonFileError as error:
                expected = error.expected
                if keypoints.ndim in (3, 4) and keypoints.shape[-2:] != (layout.num_joints, layout.dimensions):
                    expected += ", or, of another layout, a dict of keypoints, shape (T, P, J, 3), layout and fps"
                raise SkeletonInputError(name, error.actual, expected) from error
            recording.keypoints = turned_upright(recording.keypoints, self.recorded_up, layout)
        if recording.fps_is_assumed:
            usual, recording.fps = recording.fps, self.recorded_fps or self.fps or 30.0
            # Files of a sensor have its rate, but other files and arrays can have any rate.
            if "frame rate" in recording.symptoms or recording.fps != usual:
                recording.symptoms = {**recording.symptoms, "frame rate": recording.fps}
        return recording

    def doubts(self, recording: Recording, *, fps: float | None = None, name: str = "recording") -> list[str]:
        """Sentences about implausible parts of a recording, and assumptions that had to be made; empty for most recordings.

        Args:
            recording, fps, name: See `read`.

        Raises:
            SkeletonInputError, SkeletonFileError: If the recording cannot be read, see `__call__`.
        """
        recorded = self.read(recording, fps=fps, name=name)
        keypoints, present, rate, name, cleaned, mapping = self._resolve(recorded, name)
        layout = get_layout(recorded["layout"] if isinstance(recorded, Mapping) else recorded.layout)
        # A recording of a user's own layout has only its name, which may be that of another layout here.
        if layout.num_joints != keypoints.shape[2]:
            layout = self.skeleton_layout
        reader_symptoms = {} if isinstance(recorded, Mapping) else recorded.symptoms
        valid = valid_joints(keypoints, present)
        symptoms = {**reader_symptoms, **find_symptoms(keypoints, valid, layout, rate)}
        doubts = [doubt.reason for doubt in judge({name: symptoms}, 1, layout)]
        sentences = (mapping and mapping.describe(), self._surplus_people(keypoints, valid, cleaned))
        return [*filter(None, sentences), *doubts]

    def _surplus_people(self, keypoints: np.ndarray, valid: np.ndarray, cleaned: bool) -> str | None:
        """A sentence if more people are seen than are read; (T, P, J, 3), bool (T, P, J), whether bodies are people."""
        cleaning = replace(self.cleaning, num_persons=MAX_BODIES, clean=self.clean and not cleaned)
        people = select_actors(keypoints, valid, cleaning)[0].shape[1] if valid.any() else 0
        if people <= self.num_persons:
            return None
        verb, who = ("is" if self.num_persons == 1 else "are"), ("moves most" if self.clean else "comes first")
        return (
            f"of {people} people, only {self.num_persons} {verb} read: whoever {who}; per_person=True recognises each"
        )

    def _resolve(self, recording: "SkeletonRecording | Mapping[str, Any]", place: str) -> "_Resolved":
        skeleton = self.skeleton_layout
        if _is_recording(recording):
            keypoints, present, name = recording.keypoints, recording.present, recording.source
            layout, fps, cleaned = recording.layout, recording.fps, recording.cleaned
        else:
            missing = [key for key in ("keypoints", "shape", "layout", "fps") if key not in recording]
            name = str(recording.get("sample_id", place))
            if missing:
                raise SkeletonInputError(name, f"the fields {sorted(recording)}", f"the field {missing[0]!r}")
            keypoints, shape = np.asarray(recording["keypoints"]), _sizes(name, recording["shape"])
            if len(shape) != 4 or min(shape) < 0 or math.prod(shape) != keypoints.size:
                raise SkeletonInputError(name, f"shape {shape}, {keypoints.size} numbers", "T * P * J * 3 keypoints")
            keypoints, present = keypoints.reshape(shape), None
            layout, fps, cleaned = recording["layout"], recording["fps"], bool(recording.get("cleaned"))
            if not isinstance(layout, str):
                raise SkeletonInputError(name, f"the layout {as_written(layout)}", f"the layout {skeleton.name}")
            if not isinstance(fps, Real):
                raise SkeletonInputError(name, f"fps {as_written(fps)}", "fps as a number")
            try:
                fps = float(fps)
            except OverflowError as error:
                raise SkeletonInputError(name, f"fps {as_written(fps)}", "a frame rate") from error

        if keypoints.ndim != 4 or keypoints.dtype.kind not in "fiu":
            actual = f"{keypoints.dtype} {keypoints.shape}"
            raise SkeletonInputError(name, actual, "numbers (T, J, C) or (T, P, J, C)")
        description, layout = layout, get_layout(layout).name if layout.lstrip().startswith("{") else layout
        mapping = None
        if layout not in (skeleton.name, skeleton.source):
            mapping = self._mapping(description, name)
        num_joints, dimensions = skeleton.num_joints, skeleton.dimensions
        if layout != skeleton.name:
            recorded_layout = mapping.source if mapping else get_layout(layout)
            num_joints = recorded_layout.num_joints
            dimensions = recorded_layout.dimensions if mapping else dimensions
        if keypoints.shape[2] != num_joints or not dimensions <= keypoints.shape[3] <= 3:
            actual = f"{keypoints.shape[2]} joints of {keypoints.shape[3]} coordinates"
            raise SkeletonInputError(name, actual, f"{num_joints} joints of {dimensions} (layout {layout})")
        if not len(keypoints):
            raise SkeletonInputError(name, "0 frames", "at least one frame")
        if not is_possible_rate(fps):
            expected = f"a positive number of frames per second, from {RATES[0]} to {RATES[1]}"
            raise SkeletonInputError(name, f"{fps} frames per second", expected)
        fault = size_fault(*keypoints.shape[:3])
        if fault is not None:
            raise SkeletonInputError(name, *fault)

        recorded = np.zeros((*keypoints.shape[:3], 3))
        recorded[..., :dimensions] = keypoints[..., :dimensions]
        if present is None:
            present = np.ones(recorded.shape[:2], bool)
        return _Resolved(recorded, present, fps, name, cleaned, mapping)

    def _mapping(self, layout: str, name: str) -> JointMapping:
        """How the joints of this layout are computed from those of another, given by name or description.

        Raises:
            SkeletonInputError: If there is no such layout, or it does not determine enough of the joints.
        """
        skeleton = self.skeleton_layout
        try:
            mapping = map_layout(get_layout(layout), skeleton)
        except ValueError as error:
            expected = f"the layout {skeleton.name}, another of {', '.join(LAYOUTS)}, or the description of a layout"
            raise SkeletonInputError(name, f"the layout {shortened(layout)}", expected) from error
        known, source = int(mapping.is_known.sum()), mapping.source
        if known < LEAST_KNOWN * skeleton.num_joints:
            missing = ", ".join(mapping.missing)
            actual = f"{known} of {skeleton.num_joints} in the layout {source.name} (missing: {missing})"
            raise SkeletonInputError(name, actual, f"at least {LEAST_KNOWN:.0%} of the joints of {skeleton.name}")
        if source.dimensions != skeleton.dimensions and self.scale != "torso":
            units = ["pixels" if layout.dimensions == 2 else "metres" for layout in (source, skeleton)]
            expected = f"{units[1]}, because the scale of the feature extractor is {self.scale!r}, not 'torso'"
            raise SkeletonInputError(name, f"{units[0]} (layout {source.name})", expected)
        if (sentence := mapping.describe()) is not None:
            logger.warning_once(sentence)
        return mapping

    def _extract(
        self, recording: "_Resolved", seed: int | None
    ) -> tuple[np.ndarray, np.ndarray, float, float, SkeletonTransform]:
        """Features float32 (T, C), the same without augmentation, frames per second, seconds cut off at the start, and
        transform."""
        keypoints, present, recorded_fps, name, cleaned, mapping = recording
        skeleton = self.skeleton_layout
        valid = valid_joints(keypoints, present)
        if not valid.any():
            actual = f"no body in any of {len(keypoints)} frames: every joint is 0, -1, NaN or beyond {NOWHERE:g}"
            raise TooFewJointsError(name, actual, "at least one body")
        # Padding, and frames before people enter, are not part of an action.
        seen = valid.any((1, 2)).nonzero()[0]
        keypoints, valid = keypoints[seen[0] : seen[-1] + 1], valid[seen[0] : seen[-1] + 1]
        start = float(seen[0]) / recorded_fps
        if mapping is not None:
            keypoints, valid = mapping.map_joints(keypoints, valid)
            if not valid.any():
                raise TooFewJointsError(
                    name, f"no joint of {skeleton.name}", "joints from which its joints are computed"
                )
        elif keypoints.shape[2] != skeleton.num_joints:
            # A derived joint is valid if all joints from which it is derived are.
            keypoints = skeleton.derive(np.where(valid[..., None], keypoints, np.nan))
            valid = np.isfinite(keypoints).all(-1)
            if not valid.any():
                raise TooFewJointsError(
                    name, f"no joint of {skeleton.name}", "the joints from which its joints are derived"
                )

        if cleaned:
            seen = valid.any(-1)[:, : self.num_persons]
            actors = np.where(seen, np.arange(seen.shape[1]), -1)[:, seen.any(0)]
        else:
            actors, _ = select_actors(keypoints, valid, self.cleaning)
        frame = np.arange(len(actors))[:, None]
        measured = valid[frame, actors] & (actors >= 0)[..., None]
        tracks = fill_gaps(keypoints[frame, actors], measured)
        known = estimate_trunk(tracks, measured.any(0), skeleton)
        if not known[0, [*skeleton.pelvis, *skeleton.neck]].all() and (self.center != "none" or self.scale == "torso"):
            seen_joints = [skeleton.joint_names[joint] for joint in measured[:, 0].any(0).nonzero()[0]]
            raise TooFewJointsError(
                name,
                f"no more than {', '.join(seen_joints)}",
                "hips, or shoulders and a neck, to centre and scale the body",
            )
        if not known.all():
            matrices = np.stack([placement(skeleton, tuple(of_person)) for of_person in known.tolist()])
            tracks = matrices @ tracks
        generator = None if seed is None else _generator(seed, tracks)
        if generator is not None and self.augment_swap and tracks.shape[1] > 1:
            # The first person centres and scales everybody, and must have a trunk for that.
            swaps = generator.random() < self.augment_swap and known[1, [*skeleton.pelvis, *skeleton.neck]].all()
            order = np.arange(tracks.shape[1])
            order[:2] = order[:2][:: -1 if swaps else 1]
            tracks, actors = tracks[:, order], actors[:, order]
        present = self._presence(actors >= 0, recorded_fps)
        center, rotation, scale = self._measure(tracks[:, 0], actors[:, 0] >= 0, recorded_fps)

        positions, rate = self._sample_positions(len(tracks), recorded_fps, generator, name)
        tracks = _interpolate(tracks, positions)
        present = present[np.rint(positions).astype(int)]
        if center is None:
            center = tracks[:, 0, list(skeleton.pelvis)].mean(1)
        center = np.broadcast_to(center, (len(tracks), 3))
        original = tracks = (tracks - center[:, None, None]) @ (rotation.T / scale)
        if generator is not None:
            if self.augment_missing:
                tracks = placement(skeleton, self._draw_known(generator)) @ tracks
            tracks = self._augment(tracks, generator)
            # A recording without depth stays flat when it is rotated.
            is_flat = mapping is not None and mapping.is_flat
            if is_flat or (self.augment_flat and generator.random() < self.augment_flat):
                tracks[..., 2] = 0

        everybody = np.zeros((len(tracks), self.num_persons), bool)
        everybody[:, : present.shape[1]] = present
        transform = SkeletonTransform(center, rotation, scale, everybody)
        features = self._packed(tracks, present)
        original = features if generator is None else self._packed(original, present)
        return features, original, rate, start, transform

    def _packed(self, tracks: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Features float32 (T, C) of tracks (T, S, J, 3) of the people present, bool (T, S); absent people are zeros."""
        features = np.zeros((len(tracks), self.num_persons, *tracks.shape[2:3], self.coordinates), np.float32)
        features[:, : tracks.shape[1]] = np.where(present[..., None, None], tracks[..., : self.coordinates], 0)
        return features.reshape(len(tracks), -1)

    def _presence(self, seen: np.ndarray, fps: float) -> np.ndarray:
        """Presence of each person, bool (T, S): the first always, others while they are seen and during short gaps."""
        present = seen.copy()
        for person in range(1, seen.shape[1]):
            frames = seen[:, person].nonzero()[0]
            for before, after in pairwise(frames):
                if 1 < after - before <= 1 + self.max_gap * fps:
                    present[before:after, person] = True
        present[:, 0] = True
        return present

    def _measure(
        self, person: np.ndarray, seen: np.ndarray, fps: float
    ) -> tuple[np.ndarray | None, np.ndarray, float]:
        """Center (3,), or None if it moves; rotation (3, 3); scale; all measured on a person (T, J, 3)."""
        skeleton = self.skeleton_layout
        person = person[seen]
        pelvis, neck = (person[:, list(joints)].mean(1) for joints in (skeleton.pelvis, skeleton.neck))
        center = {"first": pelvis[0], "frame": None, "none": np.zeros(3)}[self.center]
        torso = float(np.median(np.linalg.norm(neck - pelvis, axis=1)))
        scale = {"torso": torso, "none": 1.0}.get(self.scale, self.scale)
        if self.scale == "torso" and torso <= MIN_TORSO * np.abs(person - pelvis[:, None]).max():
            scale = 1.0
        rotation = np.eye(3)
        if self.align_view != "none":
            start = slice(max(1, round(VIEW_SECONDS * fps)))
            hips = person[start, skeleton.right_hip] - person[start, skeleton.left_hip]
            shoulders = person[start, skeleton.right_shoulder] - person[start, skeleton.left_shoulder]
            across = (hips + shoulders).mean(0)
            vertical = np.array([0.0, 1.0, 0.0])
            if self.align_view == "full":
                trunk = (neck - pelvis)[start].mean(0) * skeleton.up
                if np.linalg.norm(trunk) > MIN_ACROSS * torso:
                    vertical = trunk / np.linalg.norm(trunk)
            across = across - (across @ vertical) * vertical
            if np.linalg.norm(across) > MIN_ACROSS * torso:
                across = across / np.linalg.norm(across)
                (ax, ay, az), (vx, vy, vz) = across, vertical
                rotation = np.array([across, vertical, [ay * vz - az * vy, az * vx - ax * vz, ax * vy - ay * vx]])
        return center, rotation, scale

    def _sample_positions(
        self, num_frames: int, fps: float, generator: np.random.Generator | None, name: str
    ) -> tuple[np.ndarray, float]:
        """Position of each frame of the features in the recording, in recorded frames (T,), and the rate of the features.

        A frame stands for the interval around it, so that n frames at 30 per second last n / 30 s at any sampling rate.
        """
        speed = 1.0 if generator is None else _factors(generator, self.augment_speed)
        begin, end = 0.0, 1.0
        if generator is not None and self.augment_trim:
            begin, end = generator.uniform(0, self.augment_trim), 1 - generator.uniform(0, self.augment_trim)
        seconds = (end - begin) * num_frames / fps / speed
        rate = self.fps or fps
        count = self.length or max(1, round(min(seconds * rate, MAX_JOINTS)))
        if self.length or (self.max_frames and count > self.max_frames):
            count = self.length or self.max_frames
            rate = count / seconds
        most = MAX_JOINTS // (self.num_persons * self.skeleton_layout.num_joints)
        total = count + (-count % self.frame_multiple)
        if total > most:
            actual = f"{total:,} frames of features at {rate:g} per second, from {num_frames:,} at {fps:g} per second"
            raise SkeletonInputError(
                name, actual, f"at most {most:,}: cut the recording into shorter ones, or set max_frames"
            )
        time = (np.arange(count) + 0.5) / rate / seconds
        if generator is not None:
            # Both ends are fixed, and the local speed is 1 + drift * cos(pi * time) > 0.
            drift = generator.uniform(-self.augment_warp, self.augment_warp)
            time = time + drift / np.pi * np.sin(np.pi * time)
        time = begin + (end - begin) * time
        positions = np.clip(time * num_frames - 0.5, 0, num_frames - 1)
        return np.append(positions, np.repeat(positions[-1], -count % self.frame_multiple)), rate

    def _augment(self, tracks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Augments tracks (T, S, J, 3) in units of the features: proportions, view, size, side and noise."""
        skeleton = self.skeleton_layout
        mirror = list(skeleton.mirror)
        factors = _factors(generator, self.augment_bones, skeleton.num_joints)[np.minimum(mirror, range(len(mirror)))]
        tracks = _bone_matrix(skeleton.parents, factors) @ tracks
        turn = np.radians(generator.uniform(-self.augment_rotation, self.augment_rotation))
        tilt = np.radians(generator.uniform(-self.augment_tilt, self.augment_tilt))
        direction = generator.uniform(0, 2 * np.pi)
        if skeleton.dimensions == 2:
            rotation = _rotation(turn, (0, 0, 1))
        else:
            rotation = _rotation(tilt, (np.cos(direction), 0, np.sin(direction))) @ _rotation(turn, (0, 1, 0))
        tracks = tracks @ (rotation.T * _factors(generator, self.augment_scale))
        if self.augment_occlusion and skeleton.dimensions == 3:
            tracks = tracks + self._hidden_errors(tracks, generator)
        if generator.random() < self.augment_mirror:
            tracks = tracks[:, :, mirror] * np.array([-1, 1, 1])
        return tracks + self.augment_noise * generator.standard_normal(tracks.shape, np.float32)

    def _draw_known(self, generator: np.random.Generator) -> tuple[bool, ...]:
        """Which joints are not missing from an augmented recording, see `augment_missing`."""
        skeleton = self.skeleton_layout
        probability = generator.uniform(0, self.augment_missing)
        known = generator.random(skeleton.num_joints) >= probability
        for part, joints in skeleton.parts.items():
            if part != "trunk" and generator.random() < probability:
                known[list(joints)] = False
        sides = [skeleton.left_hip, skeleton.right_hip, skeleton.left_shoulder, skeleton.right_shoulder]
        known[[*skeleton.pelvis, *skeleton.neck, *sides]] = True
        return tuple(known.tolist())

    def _hidden_errors(self, tracks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Errors (T, S, J, 3) of joints that the body hides from a sensor, see `augment_occlusion`."""
        pelvis, neck = (
            tracks[:, :, list(joints)].mean(2, keepdims=True)
            for joints in (self.skeleton_layout.pelvis, self.skeleton_layout.neck)
        )
        torso = float(np.median(np.linalg.norm(neck[:, 0] - pelvis[:, 0], axis=-1)))
        angle = generator.uniform(0, 2 * np.pi)
        towards_sensor, sideways = np.array([[np.sin(angle), 0, np.cos(angle)], [np.cos(angle), 0, -np.sin(angle)]])
        behind, beside = -(tracks - pelvis) @ towards_sensor, np.abs((tracks - pelvis) @ sideways)
        hidden = ((behind > HIDDEN_BEHIND * torso) & (beside < HIDDEN_BESIDE * torso)).astype(np.float32)
        # A joint that is hidden for a moment is not lost at once.
        padded = np.pad(hidden, ((2, 2), (0, 0), (0, 0)), mode="edge")
        hidden = sum(padded[shift : shift + len(hidden)] for shift in range(5)) / 5
        knots = generator.standard_normal((len(tracks) // FRAMES_PER_ERROR + 2, *tracks.shape[1:]), np.float32)
        errors = _interpolate(knots, np.linspace(0, len(knots) - 1, len(tracks)))
        return errors * hidden[..., None] * (generator.uniform(0, self.augment_occlusion) * torso)

    @staticmethod
    def _pad(arrays: list[np.ndarray]) -> np.ndarray:
        """Stacks arrays of different lengths, padded with zeros at the end."""
        batch = np.zeros((len(arrays), max(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
        for row, array in zip(batch, arrays, strict=True):
            row[: len(array)] = array
        return batch


def _sizes(name: str, shape: Any) -> tuple[int, ...]:
    """The shape of a row's keypoints. Raises `SkeletonInputError` if it is not a sequence of integers."""
    try:
        return tuple(map(operator.index, shape))
    except TypeError as error:
        raise SkeletonInputError(name, f"shape {as_written(shape)}", "four integers (T, P, J, 3)") from error


def _is_recording(recording: Any) -> bool:
    """Whether it is a `SkeletonRecording`, possibly of another copy of this code, loaded from a repository."""
    return isinstance(recording, SkeletonRecording) or type(recording).__name__ == SkeletonRecording.__name__


def _generator(seed: int, array: np.ndarray) -> np.random.Generator:
    """A generator of random numbers that depend only on the seed and on the content of an array."""
    return np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(array).data)])


def _factors(generator: np.random.Generator, share: float, size: int | None = None) -> Any:
    """Factors between 1 / (1 + share) and 1 + share, uniform in the logarithm."""
    return np.exp(generator.uniform(-1, 1, size) * np.log1p(share))


def _interpolate(tracks: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation of tracks (T, ...) at fractional frames (N,) -> (N, ...)."""
    early = np.floor(positions).astype(int)
    weight = (positions - early).reshape(-1, *[1] * (tracks.ndim - 1))
    late = np.minimum(early + 1, len(tracks) - 1)
    return tracks[early] + weight * (tracks[late] - tracks[early]) if weight.any() else tracks[early]


def _rotation(angle: float, axis: tuple[float, float, float]) -> np.ndarray:
    """Rotation matrix (3, 3) about a unit axis, in radians (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@lru_cache(maxsize=16)
def _paths(parents: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (J, J) from joints to bone vectors (the vector of the root is its position), and back (sums along paths)."""
    to_bones = np.eye(len(parents))
    for child, parent in enumerate(parents):
        if parent >= 0:
            to_bones[child, parent] = -1
    return to_bones, np.linalg.inv(to_bones)


def _bone_matrix(parents: tuple[int, ...], factors: np.ndarray) -> np.ndarray:
    """Matrix (J, J) that multiplies the length of each bone by its factor, and keeps the position of the root."""
    to_bones, to_joints = _paths(parents)
    lengths = np.where(np.array(parents) < 0, 1.0, factors)
    return to_joints @ (lengths[:, None] * to_bones)


__all__ = ["SkeletonFeatureExtractor", "SkeletonInputError", "SkeletonTransform", "TooFewJointsError"]
