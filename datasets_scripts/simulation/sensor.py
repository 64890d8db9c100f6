"""Simulated Kinect v2 sensors: three cameras that turn true joints into `.skeleton` files.

Camera space is that of Kinect, in metres: the origin is at the sensor, x points to the sensor's left, y up (tilted with the
sensor) and z away from the sensor. Noise, inferred joints, lost frames and false bodies are modelled on real files of NTU
RGB+D.
"""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from .people import Joint

FIRST_BODY_ID = 2**56  # Kinect's tracking ids start here, too large for a float64 to tell them apart
DEPTH_CAMERA = (366.4, 256.4, 208.5)  # focal length and centre in pixels, fitted to real files
COLOR_CAMERA = (1057.0, 956.0, 567.0)
COLOR_SHIFT = 70.0  # pixels times metres: the colour camera is beside the depth camera
TRACKED, INFERRED = 2, 1

# Relative noise of each joint: low for the trunk, higher for hands, feet and thumbs, which are small.
_RESTLESSNESS = {
    "SPINE_BASE": 0.35,
    "SPINE_MID": 0.35,
    "SPINE_SHOULDER": 0.35,
    "NECK": 0.4,
    "HEAD": 0.5,
    "SHOULDER": 0.9,
    "ELBOW": 1.1,
    "WRIST": 2.0,
    "HAND": 3.0,
    "HAND_TIP": 4.0,
    "THUMB": 3.4,
    "HIP": 0.5,
    "KNEE": 1.1,
    "ANKLE": 1.4,
    "FOOT": 4.2,
}
RESTLESSNESS = np.array([_RESTLESSNESS[re.sub("_(LEFT|RIGHT)$", "", joint.name)] for joint in Joint])

# Balls that occlude joints behind them: (joint, joint, position as a share of the way between them, radius in metres).
_OCCLUDERS = (
    (Joint.SPINE_BASE, Joint.SPINE_MID, 0.1, 0.13),
    (Joint.SPINE_BASE, Joint.SPINE_MID, 0.8, 0.12),
    (Joint.SPINE_MID, Joint.SPINE_SHOULDER, 0.6, 0.13),
    (Joint.HEAD, Joint.NECK, 0.0, 0.10),
    (Joint.HIP_LEFT, Joint.KNEE_LEFT, 0.25, 0.08),
    (Joint.HIP_LEFT, Joint.KNEE_LEFT, 0.75, 0.06),
    (Joint.HIP_RIGHT, Joint.KNEE_RIGHT, 0.25, 0.08),
    (Joint.HIP_RIGHT, Joint.KNEE_RIGHT, 0.75, 0.06),
    (Joint.KNEE_LEFT, Joint.ANKLE_LEFT, 0.5, 0.05),
    (Joint.KNEE_RIGHT, Joint.ANKLE_RIGHT, 0.5, 0.05),
)


@dataclass(frozen=True)
class Camera:
    """Pose of a sensor in the room: `position` (3,) in metres, and `axes` (3, 3), whose rows are x, y and z of camera space."""

    position: np.ndarray
    axes: np.ndarray

    def view(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of the room, in camera space."""
        return (points - self.position) @ self.axes.T


def place_cameras(seed: int, setup: int) -> list[Camera]:
    """The three cameras of a setup, as in NTU RGB+D: camera 1 in the middle, cameras 2 and 3 at 45 degrees to its sides.

    Height, distance and tilt differ between setups and are fixed within a setup. Camera 2 sees a person who faces camera 3 from
    the side.
    """
    rng = np.random.default_rng([seed, 4, setup])
    height, distance = rng.uniform(1.1, 2.1), rng.uniform(2.9, 3.9)
    cameras = []
    for azimuth in np.deg2rad([0.0, -45.0, 45.0]):
        azimuth = azimuth + np.deg2rad(rng.normal(0, 3.0))
        away = distance + rng.normal(0, 0.12)
        position = np.array([np.sin(azimuth) * away, height + rng.normal(0, 0.04), np.cos(azimuth) * away])
        aim = np.array([rng.normal(0, 0.12), rng.uniform(0.75, 1.05), rng.normal(0, 0.12)])
        ahead = (aim - position) / np.linalg.norm(aim - position)
        left = np.cross([0.0, 1.0, 0.0], ahead)
        left /= np.linalg.norm(left)
        cameras.append(Camera(position, np.stack([left, np.cross(ahead, left), ahead])))
    return cameras


@dataclass
class Track:
    """A tracked body as the sensor reports it: `joints` (T, 25, 3) in camera space, `state` (T, 25), `present` (T,)."""

    body_id: int
    joints: np.ndarray
    state: np.ndarray
    present: np.ndarray


def _hidden(joints: np.ndarray, occluders: np.ndarray, radii: np.ndarray, margin: float) -> np.ndarray:
    """Whether a ball occludes a joint from the sensor: (T, J, 3), (T, K, 3), (K,) → bool (T, J)."""
    distance = np.linalg.norm(joints, axis=-1)
    direction = joints / distance[..., None]
    along = np.einsum("tjc,tkc->tjk", direction, occluders)
    aside = (occluders**2).sum(-1)[:, None] - along**2
    return ((aside < radii**2) & (along < distance[..., None] - radii - margin) & (along > 0)).any(-1)


def _occluders(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second, share, radius = (np.array(column) for column in zip(*_OCCLUDERS, strict=True))
    first, second = joints[:, first.astype(int)], joints[:, second.astype(int)]
    return first + share[:, None] * (second - first), radius


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> np.ndarray:
    """First-order low-pass noise along axis 0, with unit variance."""
    from scipy.signal import lfilter

    white = rng.standard_normal(shape)
    white[0] /= np.sqrt(1 - memory**2)
    return lfilter([np.sqrt(1 - memory**2)], [1.0, -memory], white, axis=0)


def observe(people: list[np.ndarray], camera: Camera, rng: np.random.Generator) -> list[Track]:
    """What a sensor reports for the true joints (T, 25, 3) of each person in the room: with noise, inferred joints and gaps."""
    from scipy.signal import lfilter

    frames = len(people[0])
    seen = [camera.view(joints) for joints in people]
    balls = [_occluders(joints) for joints in seen]
    tracks = []
    body_id = FIRST_BODY_ID + int(rng.integers(500, 9000))
    for index, joints in enumerate(seen):
        hidden = _hidden(joints, *balls[index], margin=0.05)
        for other, ball in enumerate(balls):
            if other != index:
                hidden |= _hidden(joints, *ball, margin=0.02)
        guessed = np.clip(lfilter([0.35], [1.0, -0.65], hidden.astype(np.float64), axis=0), 0, 1)

        distance = joints[..., 2:]
        quality = np.exp(0.3 * rng.standard_normal())  # clothes and light make some recordings worse
        scale = 0.0024 * quality * (distance / 2.5) ** 2 * RESTLESSNESS[:, None]
        error = scale * (0.75 * _smooth_noise(rng, joints.shape, 0.75) + 0.35 * rng.standard_normal(joints.shape))
        # Clothes and viewpoint shift each joint by a constant offset for the recording.
        error += 0.010 * np.sqrt(RESTLESSNESS)[:, None] * rng.standard_normal((1, 25, 3))
        # An occluded joint is guessed: it drifts, and is too near the trunk.
        wander = 0.028 * np.sqrt(RESTLESSNESS)[:, None] * _smooth_noise(rng, joints.shape, 0.93)
        trunk = joints[:, [Joint.SPINE_MID]]
        pulled = 0.12 * (trunk - joints)
        reported = joints + error + guessed[..., None] * (wander + pulled)

        state = np.where(hidden | (rng.random(hidden.shape) < 0.03 * RESTLESSNESS), INFERRED, TRACKED).astype(np.int8)
        present = hidden.mean(axis=1) < 0.8  # the sensor loses a body whose joints are mostly occluded
        body_id += int(rng.integers(1, 60))
        tracks.append(Track(body_id, reported, state, present))
    tracks = _faults(tracks, frames, rng)
    for track in tracks:
        track.joints = track.joints.astype(np.float32)
    if rng.random() < 0.4:  # the sensor may detect the bodies in another order
        tracks.reverse()
    return tracks


def _faults(tracks: list[Track], frames: int, rng: np.random.Generator) -> list[Track]:
    """Adds the rare faults of real recordings: late tracking, gaps, a new id, a piece of furniture tracked as a body."""
    draws = rng.random(4)
    if draws[0] < 0.06:
        late = int(rng.integers(2, 11))
        for track in tracks:
            track.present[:late] = False
    victim = tracks[int(rng.integers(len(tracks)))]
    if draws[1] < 0.12:
        start = int(rng.integers(5, frames - 10))
        gap = slice(start, start + int(rng.integers(1, 6)))
        victim.present[gap] = False
        if draws[1] < 0.03:  # tracked again under a new id
            again = Track(
                victim.body_id + int(rng.integers(100, 400)), victim.joints, victim.state, victim.present.copy()
            )
            victim.present[gap.stop :] = False
            again.present[: gap.stop] = False
            tracks.append(again)
    if draws[2] < 0.06:
        tracks.append(_false_body(frames, max(track.body_id for track in tracks) + int(rng.integers(20, 90)), rng))
    return tracks


def _false_body(frames: int, body_id: int, rng: np.random.Generator) -> Track:
    """A chair or table that is tracked as a person: wider than high, still, and present for part of the time."""
    center = np.array([rng.uniform(-1.2, 1.2), rng.uniform(-0.9, -0.2), rng.uniform(2.5, 4.2)])
    extent = np.array([rng.uniform(0.25, 0.5), rng.uniform(0.04, 0.12), rng.uniform(0.05, 0.2)])
    joints = center + extent * rng.standard_normal((25, 3)) + 0.01 * _smooth_noise(rng, (frames, 25, 3), 0.9)
    present = np.zeros(frames, dtype=bool)
    length = int(rng.integers(4, max(6, frames // 2)))
    start = int(rng.integers(0, frames - length + 1))
    present[start : start + length] = True
    state = np.where(rng.random((frames, 25)) < 0.6, INFERRED, TRACKED).astype(np.int8)
    return Track(body_id, joints, state, present)


# ------------------------------------------------------------------------------------------------------------ text

_CSV = pa_csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")


def skeleton_text(tracks: list[Track]) -> bytes:
    """The content of the `.skeleton` file of a recording.

    Orientations are not simulated: they are 0 0 0 0, which Kinect writes for leaf joints. Coordinates have the shortest form
    that reads back as the same float32.
    """
    frames = len(tracks[0].present)
    present = np.stack([track.present for track in tracks], axis=1)  # (T, P)
    frame_of, body_of = np.nonzero(present)
    joints = np.stack([track.joints for track in tracks], axis=1)[frame_of, body_of].astype(np.float32)  # (N, 25, 3)
    state = np.stack([track.state for track in tracks], axis=1)[frame_of, body_of]
    x, y, z = np.moveaxis(joints.astype(np.float64), -1, 0)
    depth_x, depth_y = DEPTH_CAMERA[1] + DEPTH_CAMERA[0] * x / z, DEPTH_CAMERA[2] - DEPTH_CAMERA[0] * y / z
    color_x = COLOR_CAMERA[1] + (COLOR_CAMERA[0] * x + COLOR_SHIFT) / z
    color_y = COLOR_CAMERA[2] - COLOR_CAMERA[0] * y / z
    zero = np.zeros(x.size, dtype=np.int8)
    columns = [*np.moveaxis(joints, -1, 0), depth_x, depth_y, color_x, color_y]
    columns = [np.ascontiguousarray(column, dtype=np.float32).ravel() for column in columns]
    table = pa.table([*columns, zero, zero, zero, zero, state.ravel()], names=[str(index) for index in range(12)])
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink, _CSV)
    lines = sink.getvalue().to_pybytes()
    ends = np.flatnonzero(np.frombuffer(lines, dtype=np.uint8) == ord("\n"))[24::25] + 1
    starts = np.concatenate([[0], ends[:-1]])

    clipped = _clipped_edges(depth_x, depth_y)
    lean = np.clip(2.0 * (joints[:, Joint.SPINE_SHOULDER] - joints[:, Joint.SPINE_BASE]), -1, 1)[:, [0, 2]]
    pieces: list[bytes] = [b"%d\n" % frames]
    blocks = iter(range(len(frame_of)))
    for count, row in zip(present.sum(axis=1), present, strict=True):
        pieces.append(b"%d\n" % count)
        for body in np.flatnonzero(row):
            n = next(blocks)
            lean_x, lean_y = lean[n]
            info = f"{tracks[body].body_id} {clipped[n]} 1 1 1 1 0 {lean_x:.7g} {lean_y:.7g} 2\n25\n"
            pieces.append(info.encode())
            pieces.append(lines[starts[n] : ends[n]])
    return b"".join(pieces)


def _clipped_edges(depth_x: np.ndarray, depth_y: np.ndarray) -> np.ndarray:
    """Kinect's bit flags (N,) for bodies that leave the 512 × 424 depth image: 1 right, 2 left, 4 top, 8 bottom."""
    edges = (depth_x > 511, depth_x < 0, depth_y < 0, depth_y > 423)
    return sum(bit * edge.any(axis=1) for bit, edge in zip((1, 2, 4, 8), edges, strict=True))
