"""Joints of one layout read as those of another: properties of the map, its sentence, and the features that follow."""

import json
from itertools import permutations

import numpy as np
import pytest
from fresh_python import python
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skeleton_people import NO_AUGMENTATION, frames_of, person, recording, row, skeleton_text, uav_human_text

from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor, SkeletonInputError
from action_llm.joint_mapping import map_layout, placement
from action_llm.skeleton_files import SkeletonFileError
from action_llm.skeleton_layouts import LAYOUTS, SkeletonLayout

PAIRS = list(permutations(LAYOUTS, 2))
KINECT20 = ("kinect20", "kinect20-sdk", "msr20")


def mapping(source, target):
    return map_layout(*(LAYOUTS.get(layout, layout) for layout in (source, target)))


def joints_of(layout, seed=0, frames=6):
    body = np.random.default_rng(seed).normal(size=(frames, 2, LAYOUTS[layout].num_joints, 3))
    return body * (np.arange(3) < LAYOUTS[layout].dimensions)


def mapped(source, target, keypoints):
    return mapping(source, target).map_joints(keypoints, np.ones(keypoints.shape[:-1], bool))


# --------------------------------------------------------------------------------------------- the map


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_mapped_to_itself_unchanged(layout):
    keypoints, valid = joints_of(layout), np.random.default_rng(0).random((6, 2, LAYOUTS[layout].num_joints)) < 0.7
    for name in ("the same", "mine"):
        own = SkeletonLayout.from_dict(LAYOUTS[layout].to_dict() | {"name": name})
        identity = mapping(layout, own)
        found, found_valid = identity.map_joints(keypoints, valid)
        np.testing.assert_array_equal(found, np.where(valid[..., None], keypoints, 0))
        np.testing.assert_array_equal(found_valid, valid)
        assert identity.describe() is None and identity.is_known.all()


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_joint_is_a_convex_combination_or_missing(source, target):
    found = mapping(source, target)
    assert (found.weights >= 0).all()
    np.testing.assert_allclose(found.weights.sum(1), found.is_known, atol=1e-12)
    assert not (found.is_estimated & ~found.is_known).any()
    anchors = LAYOUTS[target]
    for joint in (*anchors.pelvis, *anchors.neck, anchors.left_hip, anchors.right_hip, anchors.left_shoulder):
        assert found.is_known[joint]


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_to_mirror_and_map_is_to_map_and_mirror(source, target):
    weights = mapping(source, target).weights
    mirrored = weights[np.ix_(LAYOUTS[target].mirror, LAYOUTS[source].mirror)]
    np.testing.assert_allclose(mirrored, weights, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(pair=st.sampled_from(PAIRS), seed=st.integers(0, 1000))
def test_a_rigid_motion_commutes_with_the_map(pair, seed):
    source, target = (LAYOUTS[name] for name in pair)
    generator = np.random.default_rng(seed)
    shift = generator.normal(size=3)
    if source.dimensions == target.dimensions == 3:
        turn = Rotation.random(rng=generator).as_matrix()
    else:  # depth is lost, so only rotations in the plane commute
        turn, shift[2] = Rotation.from_euler("z", generator.uniform(0, 360), degrees=True).as_matrix(), 0
    axes = np.diag([-1, -1, 1]) if source.up != target.up else np.eye(3)
    assert np.linalg.det(axes) == 1  # nobody is mirrored
    keypoints = joints_of(source.name, seed)
    moved, _ = mapped(*pair, keypoints @ turn.T + shift)
    still, valid = mapped(*pair, keypoints)
    expected = still @ (axes @ turn @ axes).T + axes @ shift
    np.testing.assert_allclose(moved, np.where(valid[..., None], expected, 0), atol=1e-9)


@pytest.mark.parametrize(("source", "target"), permutations(KINECT20, 2))
def test_the_orders_of_the_first_kinect_are_permutations(source, target):
    there, back = mapping(source, target), mapping(target, source)
    assert sorted(there.weights.argmax(1)) == list(range(20)) and there.describe() is None
    names = [LAYOUTS[source].joint_names[joint] for joint in there.weights.argmax(1)]
    assert tuple(names) == LAYOUTS[target].joint_names
    keypoints, valid = joints_of(source), np.random.default_rng(1).random((6, 2, 20)) < 0.5
    found, found_valid = back.map_joints(*there.map_joints(keypoints, valid))
    np.testing.assert_array_equal(found, np.where(valid[..., None], keypoints, 0))
    np.testing.assert_array_equal(found_valid, valid)


def test_two_kinects_share_all_joints_but_the_spine():
    """Kinect v1 has its spine joint just above the hips, Kinect v2 halfway up."""
    new, old = LAYOUTS["kinect25"], LAYOUTS["kinect20"]
    weights = mapping("kinect25", "kinect20").weights
    same = {"hip_center": "spine_base", "shoulder_center": "spine_shoulder"}
    for name, weights_of_joint in zip(old.joint_names, weights, strict=True):
        if name != "spine":
            expected = np.eye(25)[new.joint_names.index(same.get(name, name))]
            np.testing.assert_array_equal(weights_of_joint, expected)
    assert mapping("kinect25", "kinect20").estimated == ["spine"] and not mapping("kinect25", "kinect20").missing
    spine = dict(zip(new.joint_names, weights[old.joint_names.index("spine")], strict=True))
    assert {name for name, weight in spine.items() if weight} == {"spine_base", "spine_mid"}
    assert spine["spine_base"] > spine["spine_mid"]
    body = joints_of("kinect20")
    again = mapped("kinect25", "kinect20", mapped("kinect20", "kinect25", body)[0])[0]
    others = np.delete(np.arange(20), old.joint_names.index("spine"))
    np.testing.assert_array_equal(again[:, :, others], body[:, :, others])


@pytest.mark.parametrize(("source", "target"), [("lcrnet13", "lcrnet15"), ("lcrnet13-2d", "lcrnet17")])
def test_derived_joints_are_those_of_the_derivation(source, target):
    keypoints = joints_of(source)
    np.testing.assert_allclose(mapped(source, target, keypoints)[0], LAYOUTS[target].derive(keypoints), atol=1e-12)
    assert mapping("kinect25", target).describe() is None  # through its source


def test_what_is_missing_and_what_is_estimated():
    found = mapping("coco17", "kinect20")
    assert found.missing == ["hands", "feet"]
    assert found.estimated == ["head", "shoulder center", "spine", "hip center"]
    assert found.describe() == (
        "recorded with coco17, read as kinect20: hands and feet are missing; head, shoulder center, spine and hip center are "
        "estimated; depth is missing, so the view cannot be aligned"
    )
    joints = dict(zip(LAYOUTS["kinect20"].joint_names, found.weights, strict=True))
    named = {
        name: {LAYOUTS["coco17"].joint_names[joint] for joint in row.nonzero()[0]} for name, row in joints.items()
    }
    assert named["head"] == {"left_ear", "right_ear"} and named["hip_center"] == {"left_hip", "right_hip"}
    assert named["shoulder_center"] == {"left_shoulder", "right_shoulder"} and named["left_hand"] == set()
    assert "feet are estimated" in mapping("openpose25", "kinect20").describe()
    assert mapping("h36m17", "kinect20").describe() == (
        "recorded with h36m17, read as kinect20: hands and feet are missing; spine is estimated"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("smpl24", {"spine_mid": "spine1 spine2 neck pelvis", "spine_shoulder": "neck", "left_hand": "left_hand"}),
        ("smpl22", {"head": "head", "left_foot": "left_foot", "left_hand": "", "spine_base": "pelvis"}),
        ("blazepose33", {
            "left_hand": "left_wrist left_index left_pinky", "right_thumb": "right_thumb", "left_hand_tip": "",
            "right_foot": "right_foot_index", "head": "left_ear right_ear", "spine_base": "left_hip right_hip"}),
        ("halpe26", {"head": "head", "spine_base": "mid_hip", "left_foot": "left_big_toe", "spine_shoulder": "neck"}),
        ("openpose18", {"head": "left_ear right_ear", "spine_shoulder": "neck", "spine_base": "left_hip right_hip"}),
        ("wholebody133", {
            "left_hand": "left_wrist left_forefinger1 left_pinky_finger1", "right_hand_tip": "right_middle_finger4",
            "left_thumb": "left_thumb4", "left_foot": "left_big_toe"}),
    ],
)  # fmt: skip
def test_kinect_joints_come_from_those_that_other_layouts_name(source, expected):
    names, found = LAYOUTS[source].joint_names, mapping(source, "kinect25")
    by_name = dict(zip(LAYOUTS["kinect25"].joint_names, found.weights, strict=True))
    for joint, sources in expected.items():
        used = {names[other] for other in by_name[joint].nonzero()[0]}
        assert used <= set(sources.split()) if joint == "spine_mid" else used == set(sources.split()), joint


def test_the_second_spine_joint_is_the_spine_unless_another_has_that_name():
    values = LAYOUTS["smpl22"].to_dict()
    values["joint_names"] = [{"spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2"}.get(name, name) for name in
                             values["joint_names"]]  # fmt: skip
    own = SkeletonLayout.from_dict(values | {"name": "mine"})
    spine = LAYOUTS["kinect20"].joint_names.index("spine")
    assert own.joint_names.index("Spine2") not in map_layout(own, LAYOUTS["kinect20"]).weights[spine].nonzero()[0]


def test_a_joint_is_measured_if_all_that_it_is_made_of_were():
    valid = np.ones((4, 1, 17), bool)
    valid[1, 0, LAYOUTS["coco17"].joint_names.index("left_hip")] = False
    keypoints = np.where(valid[..., None], joints_of("coco17", frames=4)[:, :1], np.nan)
    found, found_valid = mapping("coco17", "kinect20").map_joints(keypoints, valid)
    names = LAYOUTS["kinect20"].joint_names
    assert np.isfinite(found).all()
    lost = {names[joint] for joint in (~found_valid[1, 0]).nonzero()[0]}
    assert lost == {
        "hip_center",
        "spine",
        "left_hip",
        *(f"{side}_{end}" for side in ("left", "right") for end in ENDS),
    }
    assert {names[joint] for joint in (~found_valid[0, 0]).nonzero()[0]} == {
        name for name in names if name[-4:] in ENDS
    }


ENDS = ("hand", "foot")


def mine(names, **values):
    """A layout of one's own, with a chain of joints."""
    return SkeletonLayout.from_dict(
        {"name": "mine", "joint_names": names, "parents": range_of(names), "parts": {"body": names}, "left_right": []}
        | {"pelvis": 0, "neck": 0, "left_hip": 0, "right_hip": 0, "left_shoulder": 0, "right_shoulder": 0}
        | values
    )


def range_of(names):
    return list(range(-1, len(names) - 1))


def test_layouts_of_ones_own_are_mapped_by_their_names():
    names = [
        "Root",
        "LHip",
        "RHip",
        "LKnee",
        "knee.R",
        "left ankle",
        "AnkleRight",
        "L_Shoulder",
        "RShoulder",
        "Head",
        "Tail",
    ]
    anchors = {"left_hip": 1, "right_hip": 2, "left_shoulder": 7, "right_shoulder": 8, "neck": [7, 8]}
    found = mapping(mine(names, **anchors), "kinect20")
    joints = {
        name: {names[joint] for joint in row.nonzero()[0]}
        for name, row in zip(LAYOUTS["kinect20"].joint_names, found.weights, strict=True)
    }
    assert joints["hip_center"] == {"Root"} and joints["shoulder_center"] == {"L_Shoulder", "RShoulder"}
    assert [joints[f"{side}_{joint}"] for joint in ("knee", "ankle") for side in ("left", "right")] == [
        {"LKnee"}, {"knee.R"}, {"left ankle"}, {"AnkleRight"}
    ]  # fmt: skip
    assert found.missing == ["elbows", "wrists", "hands", "feet"]


# --------------------------------------------------------------------------------------------- joints that were never measured


@settings(max_examples=60, deadline=None)
@given(layout=st.sampled_from(list(LAYOUTS)), data=st.data())
def test_placed_joints_move_with_the_body(layout, data):
    skeleton = LAYOUTS[layout]
    known = data.draw(st.lists(st.booleans(), min_size=skeleton.num_joints, max_size=skeleton.num_joints))
    matrix = placement(skeleton, tuple(known))
    np.testing.assert_allclose(matrix.sum(1), 1)  # shifts commute; rotations do with every matrix over joints
    np.testing.assert_array_equal(matrix[known], np.eye(len(known))[known])
    mirrored = placement(skeleton, tuple(known[joint] for joint in skeleton.mirror))
    np.testing.assert_allclose(mirrored, matrix[np.ix_(skeleton.mirror, skeleton.mirror)], atol=1e-9)
    reached = np.array(known) | (np.arange(len(known)) == skeleton.parents.index(-1))
    assert not matrix[:, ~reached].any()  # only known joints, and the root, place others


def test_where_a_joint_is_placed():
    skeleton = LAYOUTS["kinect20"]
    names = list(skeleton.joint_names)
    body = person(1, "kinect20")[0].astype(np.float64)

    def placed(*missing):
        return placement(skeleton, tuple(name not in missing for name in names)) @ body

    place = dict(zip(names, body, strict=True))
    elbow = placed("left_elbow")[names.index("left_elbow")]
    np.testing.assert_allclose(elbow, (place["left_shoulder"] + place["left_wrist"]) / 2)
    both = placed("left_elbow", "left_wrist")
    third = (place["left_hand"] - place["left_shoulder"]) / 3
    np.testing.assert_allclose(both[names.index("left_elbow")], place["left_shoulder"] + third)
    np.testing.assert_allclose(both[names.index("left_wrist")], place["left_shoulder"] + 2 * third)
    hand = placed("left_hand")[names.index("left_hand")]
    forearm = place["left_wrist"] - place["left_elbow"]
    np.testing.assert_allclose(hand, place["left_wrist"] + 0.054 / 0.146 * forearm)
    np.testing.assert_allclose(
        np.delete(placed("left_hand"), names.index("left_hand"), 0), np.delete(body, names.index("left_hand"), 0)
    )


# --------------------------------------------------------------------------------------------- the feature extractor


def as_pixels(body, source, target):
    """A body as a camera at a distance sees it, in another layout; joints that it does not determine are not found."""
    joints, valid = mapped(source, target, body.astype(np.float64))
    assert LAYOUTS[target].dimensions == 2
    return np.where(valid[..., None], 200 * joints + [320, 240, 0], 0).astype(np.float32)


def test_a_recording_of_another_layout_is_read_like_its_mapped_joints():
    body = person(30, "h36m17", yaw=30)
    extractor = SkeletonFeatureExtractor(layout="kinect20", num_persons=1)
    other = recording([(0, body)], layout="h36m17")
    features = frames_of(extractor, other)
    np.testing.assert_array_equal(frames_of(extractor, row(other)), features)
    described = row(other) | {"layout": json.dumps(LAYOUTS["h36m17"].to_dict() | {"name": "mine"})}
    np.testing.assert_array_equal(frames_of(extractor, described), features)
    joints, valid = mapped("h36m17", "kinect20", body[:, None].astype(np.float64))
    joints = placement(LAYOUTS["kinect20"], tuple(valid[0, 0].tolist())) @ joints
    np.testing.assert_allclose(frames_of(extractor, joints), features, atol=1e-6)


def test_a_flat_recording_is_read_without_depth():
    body = person(30, "kinect20", seed=4, activity=0.03)
    extractor = SkeletonFeatureExtractor(layout="kinect20", num_persons=1)
    solid = frames_of(extractor, body)[:, 0]
    limbs = [
        joint for joint, name in enumerate(LAYOUTS["kinect20"].joint_names) if name[-5:] in ("elbow", "wrist", "_knee")
    ]
    for turn in (0, 180):  # seen from the front, and from behind
        turned = body @ Rotation.from_euler("y", turn, degrees=True).as_matrix().T
        pixels = as_pixels(turned, "kinect20", "openpose25")
        flat = frames_of(extractor, recording([(0, pixels)], layout="openpose25"))[:, 0]
        assert (flat[..., 2] == 0).all()
        np.testing.assert_allclose(flat[:, limbs, :2], solid[:, limbs, :2], atol=0.1)
    varied = frames_of(extractor, recording([(0, pixels)], layout="openpose25"), augment=True, seed=1)
    assert (varied[..., 2] == 0).all() and (varied[..., 0] != 0).any()


def test_doubts_say_in_one_sentence_what_is_not_there():
    extractor = SkeletonFeatureExtractor(layout="kinect20")
    pixels = recording([(0, as_pixels(person(30, "kinect25"), "kinect25", "coco17"))], layout="coco17")
    pixels.keypoints[:, :, :5] = pixels.keypoints[:, :, :1] + np.arange(5)[:, None] * [3, -2, 0]
    assert extractor.doubts(pixels) == extractor.doubts(row(pixels)) == [mapping("coco17", "kinect20").describe()]
    assert extractor.doubts(recording([(0, person(30, "msr20"))], layout="msr20")) == []
    own = extractor.doubts(recording([(0, person(30, "kinect20", activity=0.03))], layout="kinect20"))
    assert own == []


def test_what_cannot_be_read_as_another_layout():
    extractor = SkeletonFeatureExtractor(layout="kinect20")
    of_pixels = recording([(0, 100 * person(12, "coco17"))], layout="coco17")
    with pytest.raises(SkeletonInputError, match=r"expected the layout kinect20, another of kinect25, .*layout odd"):
        extractor(row(of_pixels) | {"layout": "odd"})
    with pytest.raises(SkeletonInputError, match=r"expected 17 joints of 2 \(layout coco17\), found 20 joints"):
        extractor(row(recording([(0, person(12, "kinect20"))], layout="coco17")))
    with pytest.raises(SkeletonInputError, match=r"expected metres, because .* scale .* 'none'.*found pixels"):
        SkeletonFeatureExtractor(layout="kinect20", scale="none")(of_pixels)
    with pytest.raises(SkeletonInputError, match=r"expected pixels, because .* 0\.5.*found metres"):
        SkeletonFeatureExtractor(layout="coco17", scale=0.5)(recording([(0, person(12))]))
    names = ["middle", "left_wrist", "right_wrist", "left_hand", "right_hand"]
    few = row(recording([(0, np.ones((12, 5, 3)) * np.arange(1, 6)[:, None])]))
    described = json.dumps(mine(names).to_dict())
    message = r"at least 50% of the joints of kinect20, found . of 20 in the layout mine \(missing: .*elbows.*knees"
    with pytest.raises(SkeletonInputError, match=message):
        extractor(few | {"layout": described})
    lost = recording([(0, 100 * person(12, "coco17") * (np.arange(17) < 5)[:, None])], layout="coco17")
    with pytest.raises(SkeletonInputError, match="hips, or shoulders and a neck"):
        extractor(lost)


def test_files_whose_format_tells_the_layout(tmp_path):
    body = person(12)
    rows = [[(1, [[*map(repr, map(float, joint)), *[0] * 9] for joint in frame])] for frame in body]
    (tmp_path / "ntu.skeleton").write_text(skeleton_text([[], *rows]))
    (tmp_path / "uav.txt").write_text(uav_human_text([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]))
    # The axis that points up in the training recordings is not that of another sensor.
    extractor = SkeletonFeatureExtractor(layout="kinect20", num_persons=1, recorded_up="z")
    expected = frames_of(extractor, recording([(0, body)]))
    np.testing.assert_allclose(frames_of(extractor, tmp_path / "ntu.skeleton"), expected, atol=1e-6)
    assert extractor.read(tmp_path / "uav.txt").layout == "coco17"
    assert extractor.doubts(tmp_path / "ntu.skeleton", fps=30)[0].startswith(
        "recorded with kinect25, read as kinect20: spine"
    )
    (tmp_path / "nobody.skeleton").write_text("2\n0\n0\n")
    assert extractor.read(tmp_path / "nobody.skeleton").layout == "kinect20"
    (tmp_path / "odd.txt").write_text(uav_human_text([1] * 9, joints=18))
    with pytest.raises(SkeletonFileError, match="18"):
        extractor(tmp_path / "odd.txt")


# --------------------------------------------------------------------------------------------- augmentation


def still(**augmentation):
    return SkeletonFeatureExtractor(**NO_AUGMENTATION | {"layout": "kinect20", "num_persons": 1} | augmentation)


def test_missing_joints_of_a_version_are_placed_like_those_never_measured():
    skeleton, body = LAYOUTS["kinect20"], person(12, "kinect20")
    extractor = still(augment_missing=0.8)
    before = frames_of(extractor, body)[:, 0].astype(np.float64)
    counts, limbs = [], 0
    for seed in range(60):
        after = frames_of(extractor, body, augment=True, seed=seed)[:, 0]
        missing = np.abs(after - before).max((0, 2)) > 1e-5
        expected = placement(skeleton, tuple((~missing).tolist())) @ before
        np.testing.assert_allclose(after, expected, atol=1e-4)
        recorded = np.where(missing[:, None], np.nan, body)
        np.testing.assert_allclose(frames_of(extractor, recorded)[:, 0], after, atol=1e-4)
        assert not missing[[*skeleton.pelvis, *skeleton.neck, 4, 8, 12, 16]].any()
        counts.append(missing.sum())
        limbs += any(missing[list(skeleton.parts[part])[1:]].all() for part in ("left_arm", "right_leg"))
    assert min(counts) == 0 and max(counts) > 7 and limbs > 10


def test_flat_versions_have_no_depth():
    body = person(12, "kinect20")
    before = frames_of(still(), body)
    after = frames_of(still(augment_flat=1), body, augment=True, seed=0)
    np.testing.assert_allclose(after, before * [1, 1, 0], atol=1e-6)
    turned = frames_of(still(augment_flat=1, augment_rotation=60), body, augment=True, seed=0)
    assert (turned[..., 2] == 0).all() and np.abs(turned[..., 0] - before[..., 0]).max() > 0.05
    flat = [
        (frames_of(still(augment_flat=0.3), body, augment=True, seed=seed)[..., 2] == 0).all() for seed in range(60)
    ]
    assert 6 < sum(flat) < 32


def test_augmentations_draw_no_numbers_while_they_are_off(monkeypatch):
    """Versions of models that were saved before an augmentation existed stay as they were."""
    drawn, default_rng = [], np.random.default_rng

    def counting(seed):
        generator = default_rng(seed)

        class Counting:
            def __getattr__(self, name):
                drawn.append(name)
                return getattr(generator, name)

        return Counting()

    monkeypatch.setattr(np.random, "default_rng", counting)
    people = [(number, person(30, "kinect20") + number) for number in range(2)]
    settings = {"layout": "kinect20", "num_persons": 2, "align_view": "none"}

    def draws(**augmentation):
        drawn.clear()
        SkeletonFeatureExtractor(**settings, **augmentation)(
            row(recording(people, layout="kinect20")), augment=True, seed=3
        )
        return len(drawn)

    usual = draws()
    newer = ("augment_flat", "augment_missing", "augment_occlusion", "augment_swap")
    assert usual > 0 and all(draws(**{name: 0.0}) == usual for name in newer)
    assert all(draws(**{name: 0.5}) > usual for name in newer)


def test_saved_code_reads_other_layouts_too(tmp_path):
    extractor = SkeletonFeatureExtractor(layout="kinect20", num_persons=1, augment_missing=0.2, augment_flat=0.1)
    extractor.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "joint_mapping.py").is_file()
    loaded = SkeletonFeatureExtractor.from_pretrained(tmp_path / "saved")
    assert loaded.to_dict() == extractor.to_dict() and (loaded.augment_missing, loaded.augment_flat) == (0.2, 0.1)
    made = row(recording([(0, person(12, "h36m17"))], layout="h36m17"))
    np.savez(tmp_path / "row.npz", keypoints=made["keypoints"])
    read = python(
        "-c",
        """
import json, sys
sys.modules["action_llm"] = None  # as if the package were not installed
import numpy as np
from transformers import AutoFeatureExtractor
extractor = AutoFeatureExtractor.from_pretrained(sys.argv[1] + "/saved", trust_remote_code=True)
row = {"keypoints": np.load(sys.argv[1] + "/row.npz")["keypoints"], "shape": [12, 1, 17, 3], "layout": "h36m17", "fps": 30.0}
np.save(sys.argv[1] + "/features.npy", extractor(row, return_tensors="np")["input_features"])
print(json.dumps(extractor.doubts(row)))
""",
        str(tmp_path),
    )
    assert json.loads(read.stdout.splitlines()[-1]) == extractor.doubts(made)
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy"), extractor(made)["input_features"].numpy())
