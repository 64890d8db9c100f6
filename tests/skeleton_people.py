"""People made up for tests, recordings of them, and extractors that change nothing but what is asked for."""

import json

import numpy as np
from scipy.spatial.transform import Rotation

from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor
from action_llm.skeleton_files import SkeletonRecording
from action_llm.skeleton_layouts import LAYOUTS

# Where the parts of a person 1.7 m tall are (height, distance from the middle), by a word in the joint's name.
PLACES = {
    "hip": (0.95, 0.1), "knee": (0.5, 0.12), "ankle": (0.1, 0.12), "foot": (0.03, 0.14), "shoulder": (1.4, 0.2),
    "elbow": (1.15, 0.28), "wrist": (0.95, 0.3), "hand": (0.88, 0.31), "tip": (0.83, 0.32), "thumb": (0.86, 0.27),
    "head": (1.65, 0), "nose": (1.6, 0), "eye": (1.63, 0.03), "ear": (1.6, 0.07), "neck": (1.5, 0), "chest": (1.2, 0),
    "torso": (1.2, 0),
    "spine_base": (0.95, 0), "spine_mid": (1.2, 0), "spine_shoulder": (1.42, 0), "spine": (1.1, 0),
    "shoulder_center": (1.42, 0), "hip_center": (0.95, 0), "toe": (0.02, 0.16), "heel": (0.05, 0.12),
    "pelvis": (0.95, 0), "thorax": (1.42, 0), "spine1": (1.05, 0), "spine2": (1.18, 0), "spine3": (1.22, 0),
    "collar": (1.42, 0.05), "mouth": (1.57, 0.03), "index": (0.83, 0.31), "pinky": (0.83, 0.33), "foot_index": (0.02, 0.16),
}  # fmt: skip
NO_AUGMENTATION = {
    f"augment_{name}": 0.0 for name in ("rotation", "tilt", "scale", "bones", "speed", "warp", "noise", "mirror")
}


def bones_of_fingers_and_face(layout):
    """Joint → parent, parents first, of the joints of wholebody133 that do not belong to the body or the feet."""
    bones = (
        {joint: layout.parents[joint] for joint in range(23, layout.num_joints)} if layout.num_joints == 133 else {}
    )
    depth = {}
    for joint in bones:
        ancestor, depth[joint] = joint, 0
        while ancestor in bones:
            ancestor, depth[joint] = bones[ancestor], depth[joint] + 1
    return dict(sorted(bones.items(), key=lambda bone: depth[bone[0]]))


def person(num_frames=40, layout="kinect25", seed=0, yaw=0.0, place=(0.3, -0.2, 3.0), activity=0.1):
    """float32 (T, J, 3), z = 0 of 2-D layouts: somebody facing the sensor, turned by `yaw` degrees, with swinging joints."""
    layout, generator = LAYOUTS[layout], np.random.default_rng(seed)
    pose = np.zeros((layout.num_joints, 3))
    for joint, name in enumerate(layout.joint_names):
        if joint in bones_of_fingers_and_face(layout):
            continue
        word = next(word for word in sorted(PLACES, key=len, reverse=True) if word in name)
        side = {"left": -1, "righ": 1}.get(name[:4], 0)
        pose[joint] = side * PLACES[word][1], layout.up * (PLACES[word][0] - 1), 0
    time = np.arange(num_frames)[:, None, None] / 30
    swing = np.sin(2 * np.pi * generator.uniform(0.3, 1, pose.shape) * time + generator.uniform(0, 6, pose.shape))
    motion = pose + activity * generator.uniform(0.2, 1, pose.shape) * swing
    for joint, parent in bones_of_fingers_and_face(layout).items():  # they move with the hand and the nose
        motion[:, joint] = motion[:, parent] + generator.normal(size=3) * 0.02
    motion = motion @ Rotation.from_euler("y", yaw, degrees=True).as_matrix().T + place
    motion[..., layout.dimensions :] = 0
    return motion.astype(np.float32)


def recording(bodies, ids=None, layout="kinect25", fps=30.0):
    """A recording of bodies [(first frame, (T, J, 3))]; several with one id are one body that comes back."""
    ids = list(range(len(bodies))) if ids is None else ids
    num_frames = max(start + len(body) for start, body in bodies)
    distinct = list(dict.fromkeys(ids))
    keypoints = np.zeros((num_frames, len(distinct), *bodies[0][1].shape[1:]), np.float32)
    present = np.zeros(keypoints.shape[:2], bool)
    for (start, body), body_id in zip(bodies, ids, strict=True):
        keypoints[start : start + len(body), distinct.index(body_id)] = body
        present[start : start + len(body), distinct.index(body_id)] = True
    return SkeletonRecording(keypoints, present, np.array(distinct, np.int64), layout, fps, "made.skeleton")


def row(made):
    return {
        "sample_id": "S001",
        "keypoints": made.keypoints.ravel(),
        "shape": list(made.keypoints.shape),
        "layout": made.layout,
        "fps": made.fps,
    }


def frames_of(extractor, recordings, **kwargs):
    """Features of one recording as (T, persons, J, coordinates)."""
    features = extractor(recordings, return_tensors="np", **kwargs)["input_features"][0]
    return features.reshape(len(features), extractor.num_persons, -1, extractor.coordinates)


def plain(**kwargs):
    """An extractor that changes nothing but what is asked for."""
    return SkeletonFeatureExtractor(
        **({"center": "none", "align_view": "none", "scale": "none", "frame_multiple": 1} | NO_AUGMENTATION | kwargs)
    )


def skeleton_text(frames, end="\n"):
    """`.skeleton` text of frames [(body id, rows of 12 tokens)]."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body_id, rows in bodies:
            lines += [f"{body_id} 0 1 1 1 1 0 0.02764709 -0.05745083 2", str(len(rows))]
            lines += [" ".join(map(str, row)) for row in rows]
    return end.join(lines) + end


def smarthome_text(counts):
    """JSON of Toyota Smarthome with so many detections in each frame, all numbers different."""
    generator = np.random.default_rng(0)

    def detection():
        return {"pose2d": generator.uniform(0, 480, 26).tolist(), "pose3d": generator.normal(size=39).tolist()}

    content = {"K": 100, "njts": 13, "frames": [[detection() for _ in range(count)] for count in counts]}
    return json.dumps(content).encode()


def uav_human_text(counts, joints=17):
    """`.txt` text of UAV-Human with so many people, 000, 001, …, in each frame."""
    lines = [str(len(counts))]
    for frame, count in enumerate(counts):
        lines.append(str(count))
        for person in range(count):
            lines += [f"{person:03d} 0 0 0 0 0 0 0 0 0", str(joints)]
            lines += [f"{900.5 + frame + joint} {400.25 + 7 * joint}" + " 0" * 10 for joint in range(joints)]
    return "\n".join(lines) + "\n"


def nw_ucla_text(body):
    """JSON of Northwestern-UCLA for a body (T, 20, 3)."""
    return json.dumps({"file_name": "a01_s01_e00_v01", "skeletons": body.tolist(), "label": 1}).encode()


def sbu_text(people, first=566):
    """`skeleton_pos.txt` of SBU Kinect Interaction for two people (T, 2, 15, 3) in metres, as OSCeleton normalises them."""
    x, y, z = np.moveaxis(1000 * np.asarray(people, np.float64), -1, 0)
    normalised = np.stack([(1280 - x) / 2560, (960 - y) / 1920, z * 7.8125 / 10000], axis=-1)
    rows = normalised.reshape(len(normalised), -1).tolist()
    lines = [",".join([str(first + number), *(f"{value:.7g}" for value in row)]) for number, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


def still(seconds=3.0, layout="kinect25"):
    """Somebody who stands and faces the sensor: +x is their right, +y up, +z behind them; 30 frames a second."""
    return person(round(30 * seconds), layout, activity=0.0, place=(0, 0, 3)).astype(np.float64)


def ease(start, stop, length):
    """0 before frame `start`, 1 from `stop` on, smooth between."""
    share = np.clip((np.arange(length) - start) / (stop - start), 0, 1)
    return (1 - np.cos(np.pi * share)) / 2


def moved(body, joints, path, layout="kinect25"):
    """The same with some joints shifted by `path` (T, 3)."""
    body = body.copy()
    names = LAYOUTS[layout].joint_names
    for joint in joints:
        body[:, names.index(joint)] += path
    return body


RIGHT_HAND = ("right_wrist", "right_hand", "right_hand_tip", "right_thumb")
LEFT_HAND = tuple(name.replace("right", "left") for name in RIGHT_HAND)


def hand_wave():
    """float32 (150, 25, 3): the right hand goes up in the second second, and down in the fourth."""
    up_and_down = ease(30, 60, 150) - ease(90, 120, 150)
    return moved(still(5), RIGHT_HAND, np.outer(up_and_down, [0, 0.9, -0.1])).astype(np.float32)
