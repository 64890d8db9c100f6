"""Joint layouts against the bone lists that were published for them, and against real bodies."""

import json
from itertools import combinations, pairwise

import numpy as np
import pytest

from action_llm.skeleton_files import read_skeleton, read_utd_mhad
from action_llm.skeleton_layouts import LAYOUTS, SkeletonLayout, get_layout

# Bones as published, (child, parent). NTU RGB+D's drawing code names the parent of joint 1, 2, ...; it draws
# the lowest trunk bone twice.
NTU_PARENTS = [2, 1, 21, 3, 21, 5, 6, 7, 21, 9, 10, 11, 1, 13, 14, 15, 1, 17, 18, 19, 2, 8, 8, 12, 12]
# UAV-Human's graph; it has two edges more than a tree of 17 joints, between the shoulders and between the hips.
COCO = [(10, 8), (8, 6), (9, 7), (7, 5), (15, 13), (13, 11), (16, 14), (14, 12), (11, 5), (12, 6)]
COCO += [(5, 0), (6, 0), (1, 0), (2, 0), (3, 1), (4, 2)]
# 2s-AGCN for daily living and UNIK, 1-based.
LCRNET15 = [(14, 1), (15, 14), (9, 15), (8, 15), (10, 8), (12, 10), (11, 9), (13, 11)]
LCRNET15 += [(3, 14), (5, 3), (7, 5), (2, 14), (4, 2), (6, 4)]
LCRNET17 = [(5, 4), (4, 3), (3, 2), (2, 1), (6, 3), (8, 6), (10, 8), (7, 3), (9, 7), (11, 9)]
LCRNET17 += [(12, 5), (14, 12), (16, 14), (13, 5), (15, 13), (17, 15)]
# VideoPose3D and its successors.
H36M17 = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15]
# HumanML3D's kinematic chains, drawing bones of MediaPipe (the parts that form no cycle), Halpe-FullBody and OpenPose's COCO
# model. No published bone connects the mouth, or shoulders and face of MediaPipe.
SMPL22 = [(0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20)]
BLAZEPOSE33 = [(0, 1, 2, 3, 7), (0, 4, 5, 6, 8), (0, 9), (0, 10), (0, 11), (0, 12), (11, 13, 15, 17), (12, 14, 16, 18)]
BLAZEPOSE33 += [(15, 19), (15, 21), (16, 20), (16, 22), (11, 23, 25, 27, 29), (12, 24, 26, 28, 30), (27, 31), (28, 32)]
HALPE26 = [(0, 1, 3), (0, 2, 4), (0, 18), (18, 5, 7, 9), (18, 6, 8, 10), (17, 18, 19, 11, 13, 15, 24, 20), (24, 22)]
HALPE26 += [(19, 12, 14, 16, 25, 21), (25, 23)]
OPENPOSE18 = [(1, 2, 3, 4), (1, 5, 6, 7), (1, 8, 9, 10), (1, 11, 12, 13), (1, 0, 14, 16), (0, 15, 17)]


def bones_of(chains):
    return {frozenset(bone) for chain in chains for bone in pairwise(chain)}


PUBLISHED = {
    "smpl22": bones_of(SMPL22),
    "smpl24": bones_of([*SMPL22, (20, 22), (21, 23)]),
    "blazepose33": bones_of(BLAZEPOSE33),
    "halpe26": bones_of(HALPE26),
    "openpose18": bones_of(OPENPOSE18),
    "kinect25": {frozenset((child, parent - 1)) for child, parent in enumerate(NTU_PARENTS)},
    "coco17": {frozenset(bone) for bone in COCO},
    "h36m17": {frozenset((child, parent)) for child, parent in enumerate(H36M17) if parent >= 0},
    "lcrnet15": {frozenset((child - 1, parent - 1)) for child, parent in LCRNET15},
    "lcrnet17": {frozenset((child - 1, parent - 1)) for child, parent in LCRNET17},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_bones_are_the_published_ones(name):
    assert {frozenset(bone) for bone in LAYOUTS[name].bones} == PUBLISHED[name]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_mirror_swaps_sides_and_keeps_bones(layout):
    mirror = layout.mirror
    assert [mirror[joint] for joint in mirror] == list(range(layout.num_joints))
    for joint, name in enumerate(layout.joint_names):
        swapped = name.replace("left", "*").replace("right", "left")
        assert layout.joint_names[mirror[joint]] == swapped.replace("*", "right")
    assert {(mirror[child], mirror[parent]) for child, parent in layout.bones} == set(layout.bones)
    for limb in ("arm", "leg"):
        left, right = layout.parts[f"left_{limb}"], layout.parts[f"right_{limb}"]
        assert sorted(mirror[joint] for joint in left) == sorted(right)
        assert all(layout.joint_names[joint].startswith("left_") for joint in left)
    assert layout.mirror[layout.left_hip] == layout.right_hip
    assert layout.mirror[layout.left_shoulder] == layout.right_shoulder
    assert "hip" in layout.joint_names[layout.left_hip] and "shoulder" in layout.joint_names[layout.left_shoulder]


def test_points_of_the_whole_body():
    """COCO-WholeBody lists body, feet, face and hands; the pairs of the face are those of 300-W, as MMPose flips them."""
    layout = LAYOUTS["wholebody133"]
    assert (
        layout.joint_names[:17] == LAYOUTS["coco17"].joint_names and layout.parents[:17] == LAYOUTS["coco17"].parents
    )
    assert layout.joint_names[17:23] == LAYOUTS["openpose25"].joint_names[19:]
    flipped = {0: 16, 8: 8, 17: 26, 21: 22, 27: 27, 31: 35, 33: 33, 36: 45, 39: 42, 40: 47, 41: 46, 48: 54, 50: 52}
    flipped |= {51: 51, 55: 59, 56: 58, 60: 64, 61: 63, 62: 62, 65: 67, 66: 66}
    assert {point: layout.mirror[23 + point] - 23 for point in flipped} == flipped
    assert layout.joint_names[23 + 36] == "right_face36" and layout.joint_names[23 + 45] == "left_face36"
    assert layout.joint_names[91:96] == ("left_hand_root", *(f"left_thumb{knuckle}" for knuckle in (1, 2, 3, 4)))
    assert layout.joint_names[128:] == ("right_ring_finger4", *(f"right_pinky_finger{n}" for n in (1, 2, 3, 4)))
    for side, wrist, root in (("left", 9, 91), ("right", 10, 112)):
        tips = [layout.joint_names.index(f"{side}_{finger}4") for finger in ("thumb", "forefinger", "pinky_finger")]
        for tip in tips:
            chain = [tip]
            while chain[-1] != wrist:
                chain.append(layout.parents[chain[-1]])
            assert chain == [tip, tip - 1, tip - 2, tip - 3, root, wrist]


@pytest.mark.parametrize(
    ("name", "sides", "up"), [("blazepose33", (23, 24, 11, 12), -1), ("smpl22", (1, 2, 16, 17), 1)]
)
def test_anchors_of_layouts_in_metres(name, sides, up):
    layout = LAYOUTS[name]
    assert (layout.left_hip, layout.right_hip, layout.left_shoulder, layout.right_shoulder) == sides
    assert (layout.dimensions, layout.up) == (3, up)
    assert LAYOUTS["smpl22"].joint_names == LAYOUTS["smpl24"].joint_names[:22]


def test_sides_of_human36m_are_the_published_ones():
    """VideoPose3D lists joints 4, 5, 6, 11, 12, 13 as left; early versions of MMPose exchanged the names of the legs."""
    h36m17 = LAYOUTS["h36m17"]
    left = [joint for joint, name in enumerate(h36m17.joint_names) if name.startswith("left_")]
    right = [joint for joint, name in enumerate(h36m17.joint_names) if name.startswith("right_")]
    assert (left, right) == ([4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16])
    assert (h36m17.dimensions, h36m17.up) == (3, -1)


@pytest.mark.parametrize("name", ["lcrnet15", "lcrnet17"])
def test_derived_joints(name):
    layout, source = LAYOUTS[name], LAYOUTS["lcrnet13"]
    raw = np.random.default_rng(0).normal(size=(4, 2, 13, 3)).astype(np.float32)
    joints = dict(zip(layout.joint_names, np.moveaxis(layout.derive(raw), -2, 0), strict=True))
    by_name = dict(zip(source.joint_names, np.moveaxis(raw, -2, 0), strict=True))
    for shared in set(joints) & set(by_name):
        np.testing.assert_array_equal(joints[shared], by_name[shared])
    neck = (by_name["left_shoulder"] + by_name["right_shoulder"]) / 2
    hips = (by_name["left_hip"] + by_name["right_hip"]) / 2
    expected = {"neck": neck, "hip_center": hips, "chest": (neck + hips) / 2, "nose": (by_name["head"] + neck) / 2}
    assert set(joints) - set(by_name) <= set(expected)
    for derived in set(joints) - set(by_name):
        np.testing.assert_allclose(joints[derived], expected[derived], atol=1e-6)
    assert layout.derive(raw).dtype == np.float32
    with pytest.raises(ValueError, match="lcrnet13"):
        source.derive(raw)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_can_live_in_json(layout):
    loaded = SkeletonLayout.from_dict(json.loads(json.dumps(layout.to_dict())))
    assert loaded == layout
    assert hash(loaded) == hash(layout)
    assert get_layout(layout.to_dict()) == layout
    assert get_layout(layout) is layout


def test_unknown_names_and_fields():
    with pytest.raises(ValueError, match=r"'kinect26'.*kinect25"):
        get_layout("kinect26")
    with pytest.raises(ValueError, match=r"'bones'.*parents"):
        SkeletonLayout.from_dict(LAYOUTS["coco17"].to_dict() | {"bones": []})
    values = LAYOUTS["coco17"].to_dict()
    del values["parents"]
    with pytest.raises(ValueError, match=r"'coco17'.*parents"):
        SkeletonLayout.from_dict(values)


def test_anchors_are_found_by_name():
    values = LAYOUTS["sbu15"].to_dict()
    anchors = ("pelvis", "neck", "left_hip", "right_hip", "left_shoulder", "right_shoulder")
    assert (
        SkeletonLayout.from_dict({name: value for name, value in values.items() if name not in anchors})
        == LAYOUTS["sbu15"]
    )
    assert LAYOUTS["sbu15"].pelvis == (9, 12) and LAYOUTS["sbu15"].neck == (1,)
    expected = {
        "kinect25": ((0,), (20,)),
        "coco17": ((11, 12), (5, 6)),
        "h36m17": ((0,), (8,)),
        "halpe26": ((19,), (18,)),
    }
    assert {name: (LAYOUTS[name].pelvis, LAYOUTS[name].neck) for name in expected} == expected
    names = ["head", "left hand"]
    with pytest.raises(ValueError, match=r"skeleton layout 'mine': .*'pelvis', 'neck'"):
        SkeletonLayout.from_dict(
            {"name": "mine", "joint_names": names, "parents": [-1, 0], "parts": {"a": [0, 1]}, "left_right": []}
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("joint_names", ["nose"] * 17),
        ("parents", [-1] * 17),
        ("parents", [-1, 0, 0]),
        ("parents", [-1, 2, 1, *[0] * 14]),
        ("parents", [-1, 17, *[0] * 15]),
        ("parts", {"trunk": list(range(16))}),
        ("parts", {"trunk": list(range(17)), "left_arm": [5]}),
        ("left_right", [[1, 2], [2, 3]]),
        ("left_right", [[1, 1]]),
        ("left_right", [[1, 17]]),
        ("pelvis", []),
        ("neck", [17]),
        ("left_hip", 17),
        ("dimensions", 4),
        ("up", 0),
        ("derivation", [[0]] * 17),
        ("source", "lcrnet13"),
    ],
)
def test_contradictions_are_refused_by_name(name, value):
    # Source and derivation are refused as a pair, under the second's name.
    named = "derivation" if name == "source" else name
    with pytest.raises(ValueError, match=f"'coco17': {named} "):
        SkeletonLayout.from_dict(LAYOUTS["coco17"].to_dict() | {name: value})


def test_joints_by_number_name_or_list():
    coco17 = LAYOUTS["coco17"]
    names, values = coco17.joint_names, coco17.to_dict()
    named = {
        "parents": [-1 if parent == -1 else names[parent] for parent in coco17.parents],
        "parts": {part: [names[joint] for joint in joints] for part, joints in coco17.parts.items()},
        "left_right": [[names[left], right] for left, right in coco17.left_right],
        "pelvis": ["left_hip", "right_hip"],
        "left_hip": "left_hip",
        "right_hip": ["right_hip"],
        "left_shoulder": [5],
    }
    assert SkeletonLayout.from_dict(values | named) == coco17
    for pelvis in (2, [2], "right_eye", ["right_eye"]):
        assert SkeletonLayout.from_dict(values | {"pelvis": pelvis, "neck": pelvis}).pelvis == (2,)
    with pytest.raises(ValueError, match=r"'coco17': pelvis must be a joint: its index, or its name .* 'hip'"):
        SkeletonLayout.from_dict(values | {"pelvis": "hip"})
    with pytest.raises(ValueError, match="'coco17': left_hip must be a joint"):
        SkeletonLayout.from_dict(values | {"left_hip": [11, 12]})


WRONG = (
    None,
    True,
    -7,
    10**30,
    1.0,
    "",
    "x",
    [],
    [None],
    [True],
    [1.5],
    ["x"],
    [[]],
    [[0, 0]],
    {},
    {"a": None},
    {1: [0]},
)
# Another name, no pairs, and a source of which nothing is known here.
POSSIBLE = (("name", "x"), ("left_right", []), ("source", "x"))


@pytest.mark.parametrize("field", LAYOUTS["lcrnet17"].to_dict())
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_field_of_a_wrong_type_is_named(field, value):
    values = LAYOUTS["lcrnet17"].to_dict() | {field: value}
    if (field, value) in POSSIBLE:
        assert SkeletonLayout.from_dict(values)
        return
    # A source without a derivation is refused under the second's name; one joint is too few for the parents.
    named = {"source": "(source|derivation)", "joint_names": "(joint_names|parents)"}.get(field, field)
    with pytest.raises(ValueError, match=rf"^skeleton layout .*: {named} "):
        SkeletonLayout.from_dict(values)


def test_what_is_no_description():
    for value in (5, None, ["kinect25"], "kinect25"):
        with pytest.raises(ValueError, match="expected an object with name, joint_names"):
            SkeletonLayout.from_dict(value)


@pytest.mark.real_data
@pytest.mark.parametrize("layout", ["kinect25", "kinect20"])
def test_bones_of_real_bodies(real_data, layout):
    """Bones are short: on real people, exchanging any two joints makes all bones together longer. And up is up."""
    if layout == "kinect25":
        recordings = [read_skeleton(path) for path in sorted((real_data / "ntu_rgbd/skeletons").glob("*.skeleton"))]
    else:
        recordings = [read_utd_mhad(path) for path in sorted((real_data / "utd_mhad/skeleton").glob("a1_*.mat"))]
    assert recordings
    skeleton = LAYOUTS[layout]
    foot = skeleton.joint_names.index("left_foot")
    head = skeleton.joint_names.index("head")
    distances = 0
    for recording in recordings:
        body = recording.keypoints[:, 0].astype(np.float64)
        distances = distances + np.linalg.norm(body[:, :, None] - body[:, None], axis=-1).mean(0) / len(recordings)
        height = body[..., 1].mean(0) * skeleton.up
        neck, pelvis = height[list(skeleton.neck)].mean(), height[list(skeleton.pelvis)].mean()
        assert height[head] > neck > pelvis > height[foot]
        # Everybody here roughly faces the sensor, which sees them as a mirror would: their left is at smaller x.
        assert body[:, skeleton.left_shoulder, 0].mean() < body[:, skeleton.right_shoulder, 0].mean()

    children, parents = np.transpose(skeleton.bones)
    assert distances[children, parents].max() < 0.6
    for joint, other in combinations(range(skeleton.num_joints), 2):
        if {skeleton.joint_names[joint][-3:], skeleton.joint_names[other][-3:]} == {"tip", "umb"}:
            continue  # hand tip and thumb both hang on the hand
        order = np.arange(skeleton.num_joints)
        order[[joint, other]] = other, joint
        assert distances[order[children], order[parents]].sum() > distances[children, parents].sum()


@pytest.mark.real_data
def test_joint_order_of_utd_mhad(real_data):
    text = (real_data / "utd_mhad/skeleton/Skeleton_joint_order.txt").read_text()
    names = [line.split(".")[1].strip(" ;\t") for line in text.splitlines() if line[:1].isdigit() and "." in line[:3]]
    assert tuple(names) == LAYOUTS["kinect20"].joint_names
