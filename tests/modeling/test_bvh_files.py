"""BVH files: the same positions as from homogeneous matrices, and the joints by the names that programs give their bones."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skeleton_people import person

from action_llm import SkeletonFeatureExtractor
from action_llm.bvh_files import read_bvh
from action_llm.recording_files import read_recording
from action_llm.skeleton_files import SkeletonFileError
from action_llm.skeleton_layouts import LAYOUTS

NAMES = LAYOUTS["smpl22"].joint_names
# A standing person in centimetres who faces +z, so that their left is at +x: bone, parent, and the place where it begins.
MIXAMO = {
    "Hips": ("", (0, 95, 0)), "Spine": ("Hips", (0, 105, 0)), "Spine1": ("Spine", (0, 118, 0)),
    "Spine2": ("Spine1", (0, 125, 0)), "Neck": ("Spine2", (0, 145, 0)), "Head": ("Neck", (0, 155, 3)),
    **{f"{side}{bone}": (f"{side}{parent}" if parent not in ("Hips", "Spine2") else parent, (sign * x, y, z))
       for side, sign in (("Left", 1), ("Right", -1)) for bone, parent, (x, y, z) in (
           ("UpLeg", "Hips", (10, 92, 0)), ("Leg", "UpLeg", (11, 50, 1)), ("Foot", "Leg", (11, 9, 0)),
           ("ToeBase", "Foot", (11, 2, 12)), ("Shoulder", "Spine2", (5, 140, 0)), ("Arm", "Shoulder", (18, 141, 0)),
           ("ForeArm", "Arm", (45, 141, 0)),
           ("Hand", "ForeArm", (70, 141, 0)), ("HandThumb1", "Hand", (73, 141, 3)))},
}  # fmt: skip
SMPL = {
    "pelvis": "Hips", "spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2", "neck": "Neck", "head": "Head",
    **{f"{side.lower()}_{joint}": f"{side}{bone}" for side in ("Left", "Right") for joint, bone in (
        ("hip", "UpLeg"), ("knee", "Leg"), ("ankle", "Foot"), ("foot", "ToeBase"), ("collar", "Shoulder"), ("shoulder", "Arm"),
        ("elbow", "ForeArm"), ("wrist", "Hand"))},
}  # fmt: skip


def bvh_text(motion, rename=lambda name: name, order="ZXY", everywhere=(), end="\n"):
    """A file of the bones of `MIXAMO`: `motion` (T, 3 + 3 * bones), `everywhere` the bones with positions too."""
    lines, children = ["HIERARCHY"], {}
    for bone, (parent, _) in MIXAMO.items():
        children.setdefault(parent, []).append(bone)

    def write(bone, parent):
        x, y, z = np.subtract(MIXAMO[bone][1], MIXAMO[parent][1] if parent else (0, 0, 0))
        rotations = " ".join(f"{axis}rotation" for axis in order)
        has_positions = not parent or bone in everywhere
        lines.extend([f"{'JOINT' if parent else 'ROOT'} {rename(bone)}", "{", f"OFFSET {x:.6f} {y:.6f} {z:.6f}"])
        lines.append(
            f"CHANNELS {6 if has_positions else 3} {'Xposition Yposition Zposition ' * has_positions}{rotations}"
        )
        for child in children.get(bone, []):
            write(child, bone)
        if bone not in children:
            lines.extend(["End Site", "{", "OFFSET 0 -5 0", "}"])
        lines.append("}")

    (root,) = children[""]
    write(root, "")
    lines += ["MOTION", f"Frames: {len(motion)}", "Frame Time: 0.0333333"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in motion]
    return end.join(lines) + end


def depth_first():
    """The bones in the order of the file."""
    stack, order = ["Hips"], []
    while stack:
        bone = stack.pop()
        order.append(bone)
        stack += [child for child, (parent, _) in reversed(MIXAMO.items()) if parent == bone]
    return order


def written(tmp_path, text):
    path = tmp_path / "clip.bvh"
    path.write_text(text, newline="")
    return path


def motion_of(frames=5, seed=0, scale=40):
    angles = np.random.default_rng(seed).normal(size=(frames, 3 + 3 * len(MIXAMO))) * scale
    angles[:, :3] = [3, 96, -2] + np.arange(frames)[:, None]
    return angles.round(6)


@pytest.mark.parametrize("order", ["ZXY", "XYZ", "YZX"])
def test_positions_are_those_of_homogeneous_matrices(tmp_path, order):
    motion = motion_of()
    made = read_bvh(written(tmp_path, bvh_text(motion, order=order, end="\r\n")))
    assert (made.layout, made.keypoints.shape) == ("smpl22", (5, 1, 22, 3)) and made.fps == pytest.approx(30, abs=1e-3)
    places = np.empty((5, len(MIXAMO), 3))
    matrices = {}
    for number, bone in enumerate(depth_first()):
        parent, place = MIXAMO[bone]
        for frame in range(5):
            own = np.eye(4)
            own[:3, :3] = Rotation.from_euler(
                order, motion[frame, 3 + 3 * number : 6 + 3 * number], degrees=True
            ).as_matrix()
            own[:3, 3] = np.subtract(place, MIXAMO[parent][1]) if parent else motion[frame, :3]
            matrices[bone, frame] = matrices[parent, frame] @ own if parent else own
            places[frame, number] = matrices[bone, frame][:3, 3]
    rows = [depth_first().index(SMPL[joint]) for joint in NAMES]
    np.testing.assert_allclose(made.keypoints[:, 0], places[:, rows], atol=1e-3)


def test_a_body_at_rest_stands_upright_with_its_left_on_its_left(tmp_path):
    motion = np.zeros((12, 3 + 3 * len(MIXAMO)))
    motion[:, 1] = 95
    path = written(tmp_path, bvh_text(motion))
    joints = dict(zip(NAMES, read_bvh(path).keypoints[0, 0], strict=True))
    for joint, bone in SMPL.items():
        np.testing.assert_allclose(joints[joint], MIXAMO[bone][1], atol=1e-4)
    motion[:, :3] += np.arange(12)[:, None]
    motion[:, 3:] = np.random.default_rng(0).normal(size=(12, 3 * len(MIXAMO))) * 5
    path = written(tmp_path, bvh_text(motion))
    (doubt,) = SkeletonFeatureExtractor("smpl22").doubts(path)
    assert "units large, 0.3 to 3.0 m are expected" in doubt
    # A model of Kinect skeletons reads the same body.
    kinect = SkeletonFeatureExtractor("kinect25", num_persons=1, fps=None)(read_recording(path), return_tensors="np")
    body = dict(zip(LAYOUTS["kinect25"].joint_names, kinect["input_features"].reshape(-1, 25, 3)[0], strict=True))
    assert body["head"][1] > body["spine_shoulder"][1] > 0.8 and body["left_ankle"][1] < -1


STYLES = {
    "mixamo": lambda name: f"mixamorig:{name}",
    "daz": lambda name: {
        "Hips": "hip", "Spine": "abdomen", "Spine1": "chest", "Spine2": "chest2", "Neck": "neck", "Head": "head",
    }.get(name, name[0].lower() + {
        "UpLeg": "Thigh", "Leg": "Shin", "Foot": "Foot", "ToeBase": "Toe", "Shoulder": "Collar", "Arm": "Shldr",
        "ForeArm": "ForeArm", "Hand": "Hand", "HandThumb1": "Thumb1"}.get(name.removeprefix("Left").removeprefix("Right"), "")),
    "unreal": lambda name: {
        "Hips": "pelvis", "Spine": "spine_01", "Spine1": "spine_02", "Spine2": "spine_03", "Neck": "neck_01", "Head": "head",
    }.get(name, {
        "UpLeg": "thigh", "Leg": "calf", "Foot": "foot", "ToeBase": "ball", "Shoulder": "clavicle", "Arm": "upperarm",
        "ForeArm": "lowerarm", "Hand": "hand", "HandThumb1": "thumb_01",
    }.get(name.removeprefix("Left").removeprefix("Right"), "") + f"_{name[0].lower()}"),
    "joints": lambda name: {
        "Spine": "Spine1", "Spine1": "Spine2", "Spine2": "Spine3", "Hips": "Pelvis",
    }.get(name, name.replace("ToeBase", "Foot_").replace("Left", "L_").replace("Right", "R_") if "Toe" in name else
          name.replace("UpLeg", "Hip").replace("Leg", "Knee").replace("Foot", "Ankle").replace("Shoulder", "Collar")
          .replace("ForeArm", "Elbow").replace("Arm", "Shoulder").replace("Hand", "Wrist").replace("Left", "L_")
          .replace("Right", "R_")),
    "biped": lambda name: "Bip01_" + {"Hips": "Pelvis"}.get(
        name, name.replace("UpLeg", "Thigh").replace("Leg", "Calf").replace("ToeBase", "Toe0").replace("Shoulder", "Clavicle")
        .replace("ForeArm", "Forearm").replace("Arm", "UpperArm").replace("Left", "L_").replace("Right", "R_")),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_joints_are_found_by_the_names_that_programs_give(tmp_path, style):
    motion = motion_of(seed=1)
    plain = read_bvh(written(tmp_path, bvh_text(motion)))
    made = read_bvh(written(tmp_path, bvh_text(motion, STYLES[style])))
    np.testing.assert_array_equal(made.keypoints, plain.keypoints)


def test_positions_of_a_bone_replace_its_offset(tmp_path):
    motion = motion_of()
    number = depth_first().index("LeftForeArm")
    place = np.tile(np.subtract(MIXAMO["LeftForeArm"][1], MIXAMO["LeftArm"][1]), (5, 1))
    longer = np.insert(motion, [3 + 3 * number] * 3, place, axis=1)
    made = read_bvh(written(tmp_path, bvh_text(longer, everywhere=("LeftForeArm",))))
    np.testing.assert_allclose(made.keypoints, read_bvh(written(tmp_path, bvh_text(motion))).keypoints, atol=1e-4)


def test_few_spine_joints_and_the_vertical_axis(tmp_path):
    text = bvh_text(motion_of(3))
    made = read_recording(written(tmp_path, text), layout="smpl22", up="z")
    turned, plain = made.keypoints, read_bvh(tmp_path / "clip.bvh").keypoints
    np.testing.assert_array_equal(turned[..., 1], plain[..., 2])
    short = text.replace("JOINT Spine2", "JOINT LeftSpine2").replace("JOINT Spine1", "JOINT RightSpine1")
    joints = dict(zip(NAMES, read_bvh(written(tmp_path, short)).keypoints[0, 0], strict=True))
    assert (
        np.isnan(joints["spine1"]).all() and np.isnan(joints["spine3"]).all() and np.isfinite(joints["spine2"]).all()
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "HIERARCH", "expected a BVH file, found no HIERARCHY"),
        ("JOINT LeftArm", "ROOT LeftArm", "found ROOT in the hierarchy"),
        ("LeftUpLeg", "Bone7", r"names of bones as of Mixamo, .*, found no bone for left_hip among Hips, Spine"),
        ("Xrotation", "Xquaternion", "one of xposition, .*, found the channel Xquaternion"),
        ("OFFSET 0 -5 0", "OFFSET 0 -5", "expected a finite number, found '}'"),
        ("Frames: 5", "Frames: 6", "expected Frames: 6, and a line for each of them, found 5 lines of motion"),
        ("Frame Time: 0.0333333", "Frame Time: 0", "a positive Frame Time in seconds, found Frame Time 0"),
        ("Frame Time: 0.0333333", "", "a positive Frame Time in seconds, found none"),
        ("Frame Time: 0.0333333", "Rate: 30", r"line \d+: expected Frames or Frame Time, found the setting rate"),
        ("Frame Time: 0.0333333", "Frame Time: 5", "frames per second"),
        ("96.000000", "nan", r"clip\.bvh, line \d+: expected a finite number, found 'nan'"),
        ("96.000000", "", r"line \d+: expected the \d+ numbers of the channels, found \d+ numbers"),
        ("MOTION", "}\nMOTION", "found } in the hierarchy"),
        ("}\nMOTION", "MOTION", "expected a complete hierarchy, found 1 open braces"),
    ],
)  # fmt: skip
def test_errors_name_the_place(tmp_path, old, new, message):
    text = bvh_text(motion_of())
    assert old in text
    with pytest.raises(SkeletonFileError, match=message):
        read_bvh(written(tmp_path, text.replace(old, new, 1)))


def test_bytes_are_no_bvh_file(tmp_path):
    (tmp_path / "clip.bvh").write_bytes(person(3).tobytes())
    with pytest.raises(SkeletonFileError, match="expected a BVH file"):
        read_recording(tmp_path / "clip.bvh", layout="smpl22")
