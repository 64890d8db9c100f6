"""The skeleton feature extractor: what it leaves out, what it keeps, and that it never invents time."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from skeleton_people import NO_AUGMENTATION, frames_of, person, plain, recording, row, skeleton_text

from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor, SkeletonInputError
from action_llm.skeleton_bodies import NOWHERE
from action_llm.skeleton_files import SkeletonFileError, read_skeleton, read_utd_mhad
from action_llm.skeleton_layouts import LAYOUTS, SkeletonLayout

# --------------------------------------------------------------------------------------------- output


def test_output_contract():
    long, short = (
        recording([(0, person(41))]),
        recording([(0, person(30)), (5, person(20, place=(1, 0, 3), activity=0.02))]),
    )
    extractor = SkeletonFeatureExtractor()
    batch = extractor([long, short])
    assert list(batch) == extractor.model_input_names
    assert batch["input_features"].shape == (2, 44, 2 * 25 * 3) and batch["input_features"].dtype == torch.float32
    assert batch["feature_attention_mask"].tolist() == [[1] * 44, [1] * 32 + [0] * 12]
    assert batch["feature_attention_mask"].dtype == torch.int64
    assert batch["frame_rate"].tolist() == [30.0, 30.0] and batch["frame_rate"].dtype == torch.float32
    features = batch["input_features"].numpy()
    np.testing.assert_array_equal(features[0, 41:], features[0, [40] * 3])  # the last frame fills the last token
    assert (features[1, 32:] == 0).all()
    assert (features[0, :, 75:] == 0).all() and (features[0, :, :75] != 0).any()
    frames = features[1, :30].reshape(30, 2, 25, 3)
    assert (frames[:5, 1] == 0).all() and (frames[5:25, 1] != 0).any() and (frames[25:, 1] == 0).all()
    assert extractor.feature_size == 150


def test_order_is_person_joint_coordinate():
    bodies = [person(8, activity=0.5), person(8, seed=1, place=(2, 0, 3), activity=0.1)]
    features = plain()(recording([(0, body) for body in bodies]), return_tensors="np")["input_features"][0]
    np.testing.assert_array_equal(features[:, :75], bodies[0].reshape(8, 75))
    np.testing.assert_array_equal(features[:, 75:], bodies[1].reshape(8, 75))


def test_a_batch_is_its_recordings():
    recordings = [recording([(0, person(length, seed=length))]) for length in (1, 7, 40, 23)]
    extractor = SkeletonFeatureExtractor()
    for augment in (False, True):
        batch = extractor(recordings, augment=augment, seed=5, return_tensors="np")
        for index, one in enumerate(recordings):
            alone = extractor(one, augment=augment, seed=5, return_tensors="np")["input_features"][0]
            assert batch["feature_attention_mask"][index].sum() == len(alone)
            np.testing.assert_array_equal(batch["input_features"][index, : len(alone)], alone)
            assert (batch["input_features"][index, len(alone) :] == 0).all()


def test_without_tensors_nothing_is_padded():
    batch = SkeletonFeatureExtractor()([recording([(0, person(8))]), recording([(0, person(3))])], return_tensors=None)
    assert [frames.shape for frames in batch["input_features"]] == [(8, 150), (4, 150)]
    assert [mask.tolist() for mask in batch["feature_attention_mask"]] == [[1] * 8, [1] * 4]


def test_every_kind_of_recording_gives_the_same(tmp_path):
    body = person(12)
    made = recording([(0, body)])
    path = tmp_path / "made.skeleton"
    path.write_text(
        skeleton_text([[(1, [[*map(repr, map(float, joint)), *[0] * 9] for joint in one])] for one in body])
    )
    extractor = SkeletonFeatureExtractor()
    expected = extractor(made)["input_features"]
    kinds = [path, str(path), row(made), row(made) | {"keypoints": made.keypoints.ravel().tolist()}]
    for kind in [*kinds, body, made.keypoints, torch.tensor(body), body.astype(np.float64), [body]]:
        torch.testing.assert_close(extractor(kind)["input_features"], expected, rtol=0, atol=0)
    assert extractor([path, made, row(made), body])["input_features"].shape == (4, 12, 150)


# --------------------------------------------------------------------------------------------- the coordinate frame


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    yaw=st.floats(-180, 180),
    shift=st.tuples(*[st.floats(-3, 3)] * 3),
    size=st.floats(0.5, 2),
    two=st.booleans(),
)
def test_place_view_and_size_leave_the_features_alone(seed, yaw, shift, size, two):
    bodies = [person(20, seed=seed)] + [person(20, seed=seed + 1, yaw=170, place=(1, 0, 3), activity=0.05)] * two
    moved = [size * body @ Rotation.from_euler("y", yaw, degrees=True).as_matrix().T + shift for body in bodies]
    extractor = SkeletonFeatureExtractor()
    expected = frames_of(extractor, recording([(0, body) for body in bodies]))
    found = frames_of(extractor, recording([(0, body) for body in moved]))
    np.testing.assert_allclose(found, expected, atol=2e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), layout=st.sampled_from(["kinect25", "kinect20", "lcrnet13"]))
def test_full_alignment_forgets_any_rotation(seed, layout):
    body = person(20, layout, seed)
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    extractor = SkeletonFeatureExtractor(layout=layout, align_view="full", num_persons=1)
    expected, found = frames_of(extractor, body), frames_of(extractor, body @ turn.T)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    skeleton = LAYOUTS[layout]
    start = found[:15, 0]  # half a second
    trunk = (start[:, list(skeleton.neck)].mean(1) - start[:, list(skeleton.pelvis)].mean(1)).mean(0) * skeleton.up
    np.testing.assert_allclose(trunk / np.linalg.norm(trunk), [0, 1, 0], atol=1e-4)


@pytest.mark.parametrize("layout", ["kinect25", "kinect20", "lcrnet13"])
def test_normalisation_is_what_its_name_says(layout):
    """Against the definition, by another library: pelvis to 0, torso to 1, left-to-right to +x by turning about y."""
    skeleton, body = LAYOUTS[layout], person(30, layout, seed=3, yaw=55).astype(np.float64)
    pelvis, neck = body[:, list(skeleton.pelvis)].mean(1), body[:, list(skeleton.neck)].mean(1)
    across = (body[:, skeleton.right_hip] - body[:, skeleton.left_hip])[:15].mean(0)
    across += (body[:, skeleton.right_shoulder] - body[:, skeleton.left_shoulder])[:15].mean(0)
    turn = Rotation.from_euler("y", np.arctan2(across[2], across[0]))
    torso = np.median(np.linalg.norm(neck - pelvis, axis=1))
    expected = turn.apply((body - pelvis[0]).reshape(-1, 3)).reshape(body.shape) / torso
    assert turn.apply(across)[0] > 0 and abs(turn.apply(across)[2]) < 1e-12
    found = frames_of(SkeletonFeatureExtractor(layout=layout, num_persons=1, frame_multiple=1), body)[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_lost_frame_does_not_turn_or_scale_the_recording():
    body = person(30, activity=0.02)
    damaged = body.copy()
    damaged[3] += np.random.default_rng(0).normal(0, 0.15, damaged[3].shape)
    extractor = SkeletonFeatureExtractor(num_persons=1)
    expected, found = (extractor(one, return_transform=True)["transforms"][0] for one in (body, damaged))
    assert abs(found.scale / expected.scale - 1) < 0.01
    turned = Rotation.from_matrix(found.rotation @ expected.rotation.T).magnitude()
    assert np.degrees(turned) < 6


def test_center():
    body = person(20) + np.linspace(0, 1, 20)[:, None, None].astype(np.float32)
    first = frames_of(SkeletonFeatureExtractor(center="first"), body)[:, 0]
    every = frames_of(SkeletonFeatureExtractor(center="frame"), body)[:, 0]
    np.testing.assert_allclose(first[0, 0], 0, atol=1e-6)
    assert np.linalg.norm(first[-1, 0]) > 1
    np.testing.assert_allclose(every[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(every - every[:, :1], first - first[:, :1], atol=1e-5)
    np.testing.assert_allclose(frames_of(plain(), body)[:, 0], body, atol=0)


def test_scale_by_a_number():
    body = person(8)
    np.testing.assert_allclose(frames_of(plain(scale=0.5), body)[:, 0], body / 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "settings_",
    [
        {},
        {"center": "frame"},
        {"align_view": "full"},
        {"align_view": "none", "scale": 0.4, "center": "none"},
        {"layout": "kinect20"},
        {"layout": "lcrnet15"},
        {"layout": "coco17"},
        {"layout": "lcrnet17", "center": "frame"},
    ],
    ids=str,
)
def test_inverse(settings_):
    extractor = SkeletonFeatureExtractor(**settings_)
    layout = extractor.layout
    bodies = [person(21, layout, yaw=40, activity=0.3), person(13, layout, 1, place=(1, 0, 3), activity=0.05)]
    made = recording([(0, bodies[0]), (6, bodies[1])], layout=layout)
    if extractor.skeleton_layout.dimensions == 2:
        made.keypoints[..., 2] = 0
    batch = extractor(made, return_transform=True)
    back = extractor.inverse(batch["input_features"][0], batch["transforms"][0])
    assert back.shape == (24, 2, extractor.skeleton_layout.num_joints, 3) and back.dtype == np.float32
    np.testing.assert_allclose(back[:21], made.keypoints, atol=2e-6)
    padded = np.pad(batch["input_features"][0].numpy(), ((0, 8), (0, 0)))
    np.testing.assert_array_equal(extractor.inverse(padded, batch["transforms"][0]), back)


def test_inverse_of_pixels():
    made = recording([(0, [500, 500, 0] + 200 * person(20, "coco17") * [1, 1, 0])], layout="coco17")
    extractor = SkeletonFeatureExtractor(layout="coco17", num_persons=1)
    batch = extractor(made, return_transform=True)
    np.testing.assert_allclose(
        extractor.inverse(batch["input_features"][0], batch["transforms"][0]), made.keypoints, atol=1e-3
    )


def test_where_there_is_no_inverse():
    extractor = SkeletonFeatureExtractor(coordinates=2)
    batch = extractor(person(8), return_transform=True)
    with pytest.raises(ValueError, match="features with 2 of 3 coordinates have no inverse"):
        extractor.inverse(batch["input_features"][0], batch["transforms"][0])
    extractor = SkeletonFeatureExtractor()
    with pytest.raises(ValueError, match=r"150.*\(8, 75\)"):
        extractor.inverse(np.zeros((8, 75)), batch["transforms"][0])
    with pytest.raises(ValueError, match=r"8 or more.*\(4, 150\)"):
        extractor.inverse(np.zeros((4, 150)), batch["transforms"][0])


def test_two_people_share_one_frame():
    """Distances between people are kept, in torsos of the first."""
    bodies = [person(20, activity=0.3), person(20, seed=1, yaw=180, place=(1.2, -0.1, 3.2), activity=0.05)]
    extractor = SkeletonFeatureExtractor(frame_multiple=1)
    batch = extractor(recording([(0, body) for body in bodies]), return_transform=True)
    frames = batch["input_features"][0].numpy().reshape(20, 2, 25, 3)
    apart = np.linalg.norm(frames[:, 0] - frames[:, 1], axis=-1)
    expected = np.linalg.norm(bodies[0] - bodies[1], axis=-1) / batch["transforms"][0].scale
    np.testing.assert_allclose(apart, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "body",
    [
        np.full((10, 25, 3), 1.5),  # one point
        np.zeros((10, 25, 3)) + np.arange(25)[:, None] * [0, 0.1, 0],  # a vertical line
        np.zeros((10, 25, 3)) + np.arange(25)[:, None] * [1e-20, 1, 1e-20],  # as good as vertical
    ],
    ids=["point", "line", "nearly a line"],
)
def test_degenerate_bodies_are_not_turned(body):
    for align_view in ("yaw", "full"):
        batch = SkeletonFeatureExtractor(align_view=align_view)(body + 1e-3, return_transform=True)
        assert torch.isfinite(batch["input_features"]).all()
        np.testing.assert_array_equal(batch["transforms"][0].rotation, np.eye(3))


# --------------------------------------------------------------------------------------------- time


@settings(max_examples=40, deadline=None)
@given(
    num_frames=st.integers(1, 60),
    recorded=st.sampled_from([10.0, 15.0, 25.0, 30.0, 60.0]),
    fps=st.sampled_from([None, 10.0, 20.0, 30.0, 50.0]),
    length=st.sampled_from([None, 1, 7, 32]),
    max_frames=st.sampled_from([None, 5, 16]),
)
def test_resampled_frames_are_at_their_time(num_frames, recorded, fps, length, max_frames):
    """A joint that moves evenly is, in frame i, where it was at time (i + 1/2) / frame_rate."""
    steady = np.zeros((num_frames, 25, 3), np.float32)
    steady[..., 0] = (np.arange(num_frames)[:, None] + 0.5) / recorded  # x = time in seconds
    steady[..., 1] = 1
    extractor = plain(fps=fps, length=length, max_frames=max_frames, num_persons=1)
    batch = extractor(row(recording([(0, steady)], fps=recorded)), return_tensors="np")
    x, rate = batch["input_features"][0].reshape(-1, 25, 3)[:, 4, 0], float(batch["frame_rate"][0])
    expected = np.clip((np.arange(len(x)) + 0.5) / rate, steady[0, 0, 0], steady[-1, 0, 0])
    np.testing.assert_allclose(x, expected, atol=1e-5)
    free = max(1, round(num_frames / recorded * (fps or recorded)))
    assert len(x) == (length or min(free, max_frames or free))
    if not length and not (max_frames and free > max_frames):
        assert rate == (fps or recorded)
    assert abs(len(x) / rate - num_frames / recorded) <= 0.5 / rate + 1e-6 or free == 1


def test_resampling_is_linear_interpolation():
    body = person(50)
    found = frames_of(plain(fps=20, num_persons=1), body.reshape(50, 25, 3))  # arrays are at the extractor's rate
    np.testing.assert_array_equal(found[:, 0], body)
    found = frames_of(plain(fps=20, num_persons=1), recording([(0, body)]))[:, 0]
    times = (np.arange(len(found)) + 0.5) / 20 * 30 - 0.5
    columns = body.reshape(50, -1).T.astype(np.float64)
    expected = np.stack([np.interp(times, np.arange(50), column) for column in columns], axis=1)
    np.testing.assert_allclose(found.reshape(len(found), -1), expected, atol=1e-6)


@pytest.mark.parametrize("multiple", [1, 4, 7])
def test_frame_multiple(multiple):
    for num_frames in (1, 4, 13):
        batch = plain(frame_multiple=multiple, num_persons=1)(person(num_frames))
        assert batch["input_features"].shape[1] == -(-num_frames // multiple) * multiple
        assert batch["feature_attention_mask"].all()


def test_one_frame():
    batch = SkeletonFeatureExtractor()(person(1), return_transform=True)
    assert batch["input_features"].shape == (1, 4, 150)
    assert (batch["input_features"][0] == batch["input_features"][0, 0]).all()
    assert torch.isfinite(batch["input_features"]).all()
    augmented = SkeletonFeatureExtractor()(person(1), augment=True, seed=0)
    assert torch.isfinite(augmented["input_features"]).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_never_nan(data):
    """Whatever is lost and wherever, the features are finite, or there is nobody and the error says so."""
    shape = (data.draw(st.integers(1, 20)), data.draw(st.integers(0, 3)), 25, 3)
    generator = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    keypoints = generator.normal(size=shape) * 10.0 ** data.draw(st.integers(-6, 6))
    for value in (np.nan, np.inf, -np.inf, 0):
        share = data.draw(st.sampled_from([0, 0.1, 0.5, 1]))
        keypoints[generator.random(shape[: data.draw(st.integers(1, 4))]) < share] = value
    extractor = SkeletonFeatureExtractor(
        center=data.draw(st.sampled_from(["first", "frame"])),
        align_view=data.draw(st.sampled_from(["none", "yaw", "full"])),
        length=data.draw(st.sampled_from([None, 9])),
    )
    try:
        batch = extractor(keypoints, augment=data.draw(st.booleans()), seed=1, return_transform=True)
    except SkeletonInputError as error:
        if "to centre and scale the body" in error.expected:  # what was seen has no trunk
            return
        measured = (np.abs(keypoints).sum(-1) < NOWHERE) & (keypoints != 0).any(-1)
        assert shape[1] > shape[0] or not measured.any()
    else:
        assert torch.isfinite(batch["input_features"]).all()
        assert np.isfinite(extractor.inverse(batch["input_features"][0], batch["transforms"][0])).all()


# --------------------------------------------------------------------------------------------- layouts


def test_coco_and_two_coordinates():
    body = person(12, "coco17") * [100, 100, 0]
    extractor = SkeletonFeatureExtractor(layout="coco17", num_persons=1)
    assert (extractor.coordinates, extractor.align_view, extractor.feature_size) == (2, "none", 34)
    expected = frames_of(extractor, body)
    np.testing.assert_array_equal(frames_of(extractor, body[..., :2]), expected)
    np.testing.assert_allclose(frames_of(extractor, 3 * body + [50, -20, 0]), expected, atol=1e-4)
    flat = frames_of(SkeletonFeatureExtractor(coordinates=2), person(12, yaw=30))
    solid = frames_of(SkeletonFeatureExtractor(), person(12, yaw=30))
    np.testing.assert_array_equal(flat, solid[..., :2])


@pytest.mark.parametrize("layout", ["lcrnet15", "lcrnet17"])
def test_derived_layouts_accept_their_source(layout):
    source = person(12, LAYOUTS[layout].source, seed=5)
    derived = LAYOUTS[layout].derive(source)
    extractor = SkeletonFeatureExtractor(layout=layout, num_persons=1)
    expected = frames_of(extractor, recording([(0, derived)], layout=layout))
    of_source = recording([(0, source)], layout=LAYOUTS[layout].source)
    np.testing.assert_allclose(frames_of(extractor, of_source), expected, atol=1e-6)
    np.testing.assert_allclose(frames_of(extractor, source), expected, atol=1e-6)
    np.testing.assert_allclose(frames_of(extractor, derived), expected, atol=1e-6)
    source[4, 10] = np.nan  # a lost shoulder takes the neck with it, for that frame
    assert np.isfinite(frames_of(extractor, source)).all()
    source[:, 10:12] = source[:, 4:6] = np.nan
    lost = np.full_like(source, np.nan)
    lost[:, 12] = source[:, 12]
    with pytest.raises(SkeletonInputError, match="found no more than head"):
        extractor(lost)
    free = SkeletonFeatureExtractor(layout=layout, num_persons=1, center="none", scale="none")
    assert np.isfinite(frames_of(free, lost)).all()


# --------------------------------------------------------------------------------------------- augmentation


def test_augmentation_depends_on_recording_and_seed_only():
    one, other = recording([(0, person(30))]), recording([(0, person(30, seed=1))])
    extractor = SkeletonFeatureExtractor()

    def features(made, seed):
        return extractor(made, augment=True, seed=seed, return_tensors=None)["input_features"][0]

    np.testing.assert_array_equal(features(one, 3), features(one, 3))
    np.testing.assert_array_equal(features(one, 3), features(row(one), 3))
    assert features(one, 3).shape != features(one, 4).shape or (features(one, 3) != features(one, 4)).any()
    batch = extractor([other, one], augment=True, seed=3, return_tensors=None)["input_features"]
    np.testing.assert_array_equal(batch[1], features(one, 3))
    # Recordings of a batch vary independently: the same one noise would give differences without noise.
    with pytest.raises(ValueError, match="seed"):
        extractor(one, augment=True)


def test_all_augmentations_off_change_nothing():
    body = person(30)
    extractor = SkeletonFeatureExtractor(**NO_AUGMENTATION)
    np.testing.assert_allclose(
        frames_of(extractor, body, augment=True, seed=1), frames_of(extractor, body), rtol=1e-6, atol=1e-6
    )


def only(seeds=range(40), body=None, **setting):
    """Features before, and after one augmentation for several seeds."""
    body = person(30, seed=2) if body is None else body
    extractor = SkeletonFeatureExtractor(**(NO_AUGMENTATION | {"num_persons": 1, "frame_multiple": 1} | setting))
    before = frames_of(extractor, body)[:, 0].astype(np.float64)
    return before, [frames_of(extractor, body, augment=True, seed=seed)[:, 0].astype(np.float64) for seed in seeds]


def best_rotation(before, after):
    rotation, residual = Rotation.align_vectors(after.reshape(-1, 3), before.reshape(-1, 3))
    return rotation, residual / np.sqrt(before.size)


def test_augment_rotation():
    before, augmented = only(augment_rotation=20)
    angles = []
    for after in augmented:
        np.testing.assert_allclose(after[..., 1], before[..., 1], atol=1e-5)
        rotation, residual = best_rotation(before, after)
        assert residual < 1e-5
        angles.append(np.degrees(rotation.as_rotvec())[1])
    assert -20 <= min(angles) < -10 and 10 < max(angles) <= 20


def test_augment_tilt():
    before, augmented = only(augment_tilt=10)
    directions = []
    for after in augmented:
        rotation, residual = best_rotation(before, after)
        vector = np.degrees(rotation.as_rotvec())
        assert residual < 1e-5 and abs(vector[1]) < 1e-3 and np.linalg.norm(vector) <= 10 + 1e-3
        directions.append(vector)
    assert np.ptp(directions, axis=0)[[0, 2]].min() > 5


def test_augment_rotation_of_2d_layouts_is_in_the_plane():
    before, augmented = only(body=person(30, "coco17"), layout="coco17", augment_rotation=20, augment_tilt=30)
    for after in augmented:
        np.testing.assert_allclose(np.linalg.norm(after, axis=-1), np.linalg.norm(before, axis=-1), atol=1e-5)
    assert any(np.abs(after - before).max() > 0.1 for after in augmented)


def test_augment_scale():
    before, augmented = only(augment_scale=0.25)
    factors = [np.linalg.norm(after) / np.linalg.norm(before) for after in augmented]
    for after, factor in zip(augmented, factors, strict=True):
        np.testing.assert_allclose(after, factor * before, atol=1e-5)
    assert 0.8 <= min(factors) < 0.9 and 1.1 < max(factors) <= 1.25


@pytest.mark.parametrize("layout", ["kinect25", "kinect20", "lcrnet15"])
def test_augment_bones(layout):
    skeleton = LAYOUTS[layout]
    before, augmented = only(body=person(10, layout, seed=2), layout=layout, augment_bones=0.25)
    children, parents = np.transpose(skeleton.bones)
    root = skeleton.parents.index(-1)
    all_factors = []
    for after in augmented:
        np.testing.assert_allclose(after[:, root], before[:, root], atol=1e-6)
        bones, old = after[:, children] - after[:, parents], before[:, children] - before[:, parents]
        factors = (bones * old).sum((0, 2)) / (old * old).sum((0, 2))
        np.testing.assert_allclose(bones, factors[:, None] * old, atol=1e-5)
        by_joint = dict(zip(children.tolist(), factors, strict=True))
        for left, right in skeleton.left_right:
            assert by_joint[left] == pytest.approx(by_joint[right], abs=1e-4)
        all_factors.append(factors)
    assert 0.8 - 1e-4 <= np.min(all_factors) < 0.85 and 1.2 < np.max(all_factors) <= 1.25 + 1e-4
    assert (np.ptp(all_factors, axis=0) > 0.2).all() and (np.ptp(all_factors, axis=1) > 0.05).all()


def test_augment_speed():
    before, augmented = only(augment_speed=0.5)
    lengths = [len(after) for after in augmented]
    assert 20 <= min(lengths) < 24 and 38 < max(lengths) <= 45
    for after in augmented:
        # The same movement from beginning to end: every frame lies on a line between two recorded frames.
        times = (np.arange(len(after)) + 0.5) * len(before) / len(after) - 0.5
        nearest = before[np.clip(np.rint(times), 0, len(before) - 1).astype(int)]
        assert np.abs(after - nearest).max() < 2 * np.abs(np.diff(before, axis=0)).max()


def test_augment_warp():
    steady = np.zeros((101, 25, 3)) + np.arange(1, 26)[:, None] * [0, 0.05, 0]
    steady[:, :, 0] += np.arange(101)[:, None]
    _, augmented = only(body=steady, center="none", align_view="none", scale="none", augment_warp=0.4)
    speeds = []
    for after in augmented:
        assert len(after) == 101
        np.testing.assert_allclose(after[[0, -1], 0, 0], [0, 100], atol=0.5)
        speed = np.diff(after[1:-1, 0, 0])
        assert speed.min() > 0.6 - 0.01 and speed.max() < 1.4 + 0.01
        speeds.append(speed[0])
    assert min(speeds) < 0.75 and max(speeds) > 1.25


def test_augment_trim():
    steady = np.zeros((100, 25, 3)) + np.arange(1, 26)[:, None] * [0, 0.05, 0]
    steady[:, :, 0] += np.arange(100)[:, None]
    _, augmented = only(body=steady, center="none", align_view="none", scale="none", augment_trim=0.2)
    begins, ends = np.array([after[[0, -1], 0, 0] for after in augmented]).T
    assert 0 <= begins.min() < 3 and 17 < begins.max() <= 20.5
    assert 79 <= ends.min() < 82 and 96 < ends.max() <= 99
    assert abs(np.corrcoef(begins, ends)[0, 1]) < 0.5
    for after, begin, end in zip(augmented, begins, ends, strict=True):
        assert abs(len(after) - (end - begin + 1)) <= 1  # at the same tempo
        np.testing.assert_allclose(np.diff(after[:, 0, 0]), 1, atol=0.02)


def test_augment_noise():
    before, augmented = only(augment_noise=0.05)
    noise = np.stack(augmented) - before
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    assert abs(noise.mean()) < 0.001
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def test_augment_mirror():
    mirror = list(LAYOUTS["kinect25"].mirror)
    before, augmented = only(augment_mirror=1.0)
    for after in augmented:
        np.testing.assert_allclose(after, before[:, mirror] * [-1, 1, 1], atol=1e-6)
    before, augmented = only(augment_mirror=0.5, seeds=range(60))
    mirrored = [np.abs(after - before).max() > 0.1 for after in augmented]
    assert 15 < sum(mirrored) < 45


def test_augment_occlusion():
    """Errors of joints behind the body, seen from all sides, that drift and grow with the setting; nothing else moves."""
    body = person(90, activity=0.05)
    before, small = only(body=body, augment_occlusion=0.1, seeds=range(40))
    _, large = only(body=body, augment_occlusion=0.4, seeds=range(40))
    moved = {}
    for name, versions in (("small", small), ("large", large)):
        errors = np.linalg.norm(np.stack(versions) - before, axis=-1)  # (seeds, frames, joints)
        is_hidden = errors.max(1) > 1e-6
        moved[name] = errors[errors > 1e-6].mean()
        # The hands are hidden from about half of the directions, and the middle of the body from none.
        names = list(LAYOUTS["kinect25"].joint_names)
        assert 0.2 < is_hidden[:, names.index("left_hand")].mean() < 0.8
        assert is_hidden[:, names.index("spine_base")].mean() == 0
    assert moved["large"] == pytest.approx(4 * moved["small"], rel=0.01)
    errors = (np.stack(large) - before)[:, :, names.index("left_hand")]
    steps = np.linalg.norm(np.diff(errors, axis=1), axis=-1)[np.abs(errors[:, 1:]).max(-1) > 0]
    assert steps.mean() < 0.5 * np.linalg.norm(errors, axis=-1)[np.abs(errors).max(-1) > 0].mean()
    flat, augmented = only(body=person(30, "coco17"), layout="coco17", augment_occlusion=0.4)
    assert all(np.array_equal(after, flat) for after in augmented), "2-D layouts have no depth"


def test_augment_swap():
    """Half of the versions begin with the other person, who is then centred, aligned and present throughout."""
    bodies = [(0, person(40, activity=0.05)), (10, person(20, seed=1, place=(1, 0, 3.5), yaw=60))]
    extractor = SkeletonFeatureExtractor(**NO_AUGMENTATION | {"augment_swap": 0.5})
    one = frames_of(extractor, recording(bodies))
    plain = SkeletonFeatureExtractor(**NO_AUGMENTATION)
    np.testing.assert_array_equal(one, frames_of(plain, recording(bodies)))
    swapped = []
    for seed in range(40):
        version = frames_of(extractor, recording(bodies), augment=True, seed=seed)
        swapped.append(np.abs(version - one).max() > 1e-6)
        if swapped[-1]:
            assert version[:, 0].any((1, 2)).all() and version[:, 1].any()
            np.testing.assert_allclose(version[0, 0, 0], 0, atol=1e-6)
    assert 10 < sum(swapped) < 30
    alone = frames_of(extractor, recording(bodies[:1]), augment=True, seed=0)
    np.testing.assert_allclose(alone, frames_of(plain, recording(bodies[:1])), atol=1e-6)
    # A person of head and hand does not centre anybody.
    lost = [joint for joint in range(25) if joint not in (3, 7)]
    bodies[1][1][:, lost] = 0
    one = frames_of(plain, recording(bodies))
    for seed in range(10):
        version = frames_of(extractor, recording(bodies), augment=True, seed=seed)
        np.testing.assert_allclose(version, one, atol=1e-6)


def test_original_features_have_the_moments_of_the_augmented_ones():
    body = person(50, "kinect20")
    in_time = {"augment_speed": 0.3, "augment_warp": 0.4, "augment_trim": 0.2}
    settings = {"layout": "kinect20", "num_persons": 2, **in_time, "augment_missing": 0.5, "augment_flat": 0.5}
    settings |= {"augment_occlusion": 0.3}
    every = SkeletonFeatureExtractor(**settings)
    time_only = SkeletonFeatureExtractor(**NO_AUGMENTATION | {"layout": "kinect20", "num_persons": 2} | in_time)
    made = [
        recording([(0, body), (10, body[:20] + 0.5)], layout="kinect20"),
        recording([(0, body)], layout="kinect20"),
    ]
    for seed in range(5):
        batch = every(made, augment=True, seed=seed, return_original=True)
        expected = time_only(made, augment=True, seed=seed)["input_features"]
        np.testing.assert_allclose(batch["original_features"], expected, atol=1e-6)
        assert np.abs(batch["input_features"] - expected).max() > 0.05
        window = every.crop(batch, 16, seed)
        for augmented, original, *windows in zip(
            *(one[name] for one in (batch, window) for name in ("input_features", "original_features")), strict=True
        ):
            frames = range(len(augmented) - 15)
            (start,) = (frame for frame in frames if np.array_equal(augmented[frame : frame + 16], windows[0]))
            np.testing.assert_array_equal(original[start : start + 16], windows[1])
    batch = every(made, return_original=True)
    np.testing.assert_array_equal(batch["original_features"], batch["input_features"])
    assert "original_features" not in every(made)


def test_rows_of_people_are_not_cleaned_again():
    """Of a row that says that it holds people, the slots stay; features are those of the row with all bodies."""
    bodies = [
        (0, person(40, activity=0.1)),
        (0, person(40, seed=1, activity=0.5, place=(1, 0, 3))),
        (5, person(6, seed=2)),
    ]
    made = recording(bodies)
    extractor = plain()
    expected = frames_of(extractor, row(made))
    people = {**row(made), "keypoints": made.keypoints[:, [1, 0]].ravel(), "shape": [40, 2, 25, 3], "cleaned": True}
    np.testing.assert_array_equal(frames_of(extractor, people), expected)
    turned = {**people, "keypoints": made.keypoints[:, [0, 1]].ravel()}
    np.testing.assert_array_equal(frames_of(extractor, turned), expected[:, ::-1])


def test_metres_are_not_read_as_pixels():
    made = recording([(0, person(12, "lcrnet13"))], layout="lcrnet13")
    with pytest.raises(SkeletonInputError, match=r"expected pixels, because the scale .*found metres"):
        SkeletonFeatureExtractor(layout="lcrnet17", scale="none")(made)
    assert SkeletonFeatureExtractor(layout="lcrnet17")(made)  # scaled to the torso


def test_absent_people_stay_absent_when_augmented():
    made = recording([(0, person(40, activity=0.5)), (5, person(15, seed=1, place=(1, 0, 3)))])
    frames = frames_of(SkeletonFeatureExtractor(augment_speed=0), made, augment=True, seed=0)
    assert (frames[:4, 1] == 0).all() and (frames[8:18, 1] != 0).any() and (frames[22:, 1] == 0).all()


def test_inverse_of_an_augmented_recording_is_the_augmented_person():
    body = person(20)
    extractor = SkeletonFeatureExtractor(
        **(NO_AUGMENTATION | {"augment_scale": 0.2, "num_persons": 1, "frame_multiple": 1})
    )
    batch = extractor(body, augment=True, seed=3, return_transform=True)
    back = extractor.inverse(batch["input_features"][0], batch["transforms"][0])[:, 0]
    sizes = np.ptp(back, axis=(0, 1)) / np.ptp(body, axis=(0, 1))
    assert abs(sizes[0] - 1) > 0.01 and np.ptp(sizes) < 0.01
    np.testing.assert_allclose(back[0, 0], body[0, 0], atol=1e-5)


def test_stored_outputs():
    """Features of a trained model must not change with the version of this project."""
    time, joint, axis = np.ogrid[0:10, 0:25, 0:3]
    body = np.sin(0.3 * time + 1.7 * joint + 2.3 * axis) + 0.2 * axis
    extractor = SkeletonFeatureExtractor(num_persons=1, fps=25)
    made = recording([(0, body)], fps=30)
    plain_features = extractor(made, return_tensors="np")["input_features"][0]
    augmented = extractor(made, augment=True, seed=7, return_tensors="np")["input_features"][0]
    found = [
        [len(features), features.mean(), features.std(), features[5, 40]] for features in (plain_features, augmented)
    ]
    stored = [[8, -0.1531837, 0.4076973, 0.06022997], [12, -0.1144633, 0.4205338, 0.01121605]]
    np.testing.assert_allclose(found, stored, rtol=1e-5)


# --------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("tensors", ["np", "pt"])
def test_crop(tensors):
    extractor = SkeletonFeatureExtractor(num_persons=1)
    batch = extractor([person(40), person(8), person(29)], return_tensors=tensors)
    inputs = np.asarray(batch["input_features"])
    starts = set()
    for seed in range(200):
        windows = extractor.crop(batch, 16, seed)
        assert type(windows["input_features"]) is type(batch["input_features"])
        found, mask = np.asarray(windows["input_features"]), np.asarray(windows["feature_attention_mask"])
        assert found.shape == (3, 16, 75) and found.dtype == np.float32 and mask.dtype == np.int64
        assert mask.tolist() == [[1] * 16, [1] * 8 + [0] * 8, [1] * 16]
        np.testing.assert_array_equal(found[1, :8], inputs[1, :8])
        assert (found[1, 8:] == 0).all()
        (start,) = (s for s in range(25) if (inputs[0, s : s + 16] == found[0]).all())
        starts.add(start)
        assert any((inputs[2, s : s + 16] == found[2]).all() for s in range(17))
        again = extractor.crop(batch, 16, seed)
        np.testing.assert_array_equal(np.asarray(again["input_features"]), found)
        alone = extractor.crop(extractor(person(40), return_tensors=tensors), 16, seed)
        np.testing.assert_array_equal(np.asarray(alone["input_features"])[0], found[0])
    assert {0, 24} <= starts and len(starts) > 18


# --------------------------------------------------------------------------------------------- settings


def own_layout():
    return SkeletonLayout(
        name="stick",
        joint_names=("middle", "top", "left_hand", "right_hand"),
        parents=(-1, 0, 1, 1),
        parts={"trunk": (0, 1), "left_arm": (2,), "right_arm": (3,), "left_leg": (), "right_leg": ()},
        left_right=((2, 3),),
        pelvis=(0,),
        neck=(1,),
        left_hip=2,
        right_hip=3,
        left_shoulder=2,
        right_shoulder=3,
    )


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"layout": "lcrnet15", "num_persons": 1, "fps": None, "length": 40, "max_frames": 64, "frame_multiple": 8},
        {"layout": "coco17", "center": "frame", "scale": 2, "augment_mirror": 0.5, "max_gap": 0},
        {"layout": own_layout(), "align_view": "full"},
        {"layout": own_layout().to_dict(), "coordinates": 2},
    ],
    ids=str,
)
def test_saved_and_loaded(tmp_path, kwargs):
    extractor = SkeletonFeatureExtractor(**kwargs)
    extractor.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["feature_extractor_type"] == "SkeletonFeatureExtractor"
    loaded = SkeletonFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    assert loaded.skeleton_layout == extractor.skeleton_layout
    skeleton = extractor.skeleton_layout
    body = np.random.default_rng(0).normal(size=(9, skeleton.num_joints, skeleton.dimensions))
    torch.testing.assert_close(loaded(body)["input_features"], extractor(body)["input_features"], rtol=0, atol=0)
    assert SkeletonFeatureExtractor.from_pretrained(tmp_path, num_persons=3).num_persons == 3


def test_unknown_settings_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"'num_person'.*num_persons"):
        SkeletonFeatureExtractor(num_person=2)
    SkeletonFeatureExtractor().save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"window": 64}))
    with pytest.raises(ValueError, match="'window'"):
        SkeletonFeatureExtractor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layout", "kinect99"),
        ("num_persons", 0),
        ("num_persons", 2.0),
        ("num_persons", True),
        ("coordinates", 4),
        ("coordinates", 1),
        ("fps", 0),
        ("fps", float("nan")),
        ("fps", "30"),
        ("length", 0),
        ("max_frames", -1),
        ("frame_multiple", 0),
        ("center", "pelvis"),
        ("align_view", "pitch"),
        ("scale", "hips"),
        ("scale", 0.0),
        ("scale", -1),
        ("min_body_frames", -1),
        ("max_width_ratio", 0),
        ("max_flat_share", -0.1),
        ("max_gap", float("inf")),
        ("augment_rotation", -1),
        ("augment_warp", 1.0),
        ("augment_trim", 0.5),
        ("augment_mirror", 1.5),
    ],
)
def test_impossible_values_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        SkeletonFeatureExtractor(**{name: value})


def test_2d_layouts_cannot_be_turned():
    with pytest.raises(ValueError, match=r"align_view.*coco17.*yaw"):
        SkeletonFeatureExtractor(layout="coco17", align_view="yaw")
    with pytest.raises(ValueError, match=r"coordinates.*coco17.*3"):
        SkeletonFeatureExtractor(layout="coco17", coordinates=3)


# --------------------------------------------------------------------------------------------- bad input


def bad_row(**changes):
    return {key: value for key, value in (row(recording([(0, person(5))])) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("bad", "source", "found", "expected"),
    [
        (np.zeros((0, 25, 3)), "recording 1", "(0, 25, 3)", "numbers (frames, 25, 3)"),
        (np.zeros((7, 0, 25, 3)), "recording 1", "no body in any of 7 frames", "at least one body"),
        (np.zeros((7, 25, 3)), "recording 1", "no body in any of 7 frames", "at least one body"),
        (np.full((7, 25, 3), np.nan), "recording 1", "every joint is 0, -1, NaN", "at least one body"),
        (np.full((7, 25, 3), np.inf), "recording 1", "every joint is 0, -1, NaN", "at least one body"),
        (np.full((7, 25, 3), -1), "recording 1", "every joint is 0, -1, NaN", "at least one body"),
        (
            person(5, "kinect20"),
            "recording 1",
            "(5, 20, 3) (the layouts with that many joints are kinect20,",
            "layout kinect25",
        ),
        (person(5)[..., :2], "recording 1", "float32 (5, 25, 2)", "numbers (frames, 25, 3)"),
        (
            np.zeros((5, 75)),
            "recording 1",
            "float64 (5, 75) (a frame per row: reshape to (5, 25, 3))",
            "numbers (frames, 25, 3)",
        ),
        (
            np.ones((2, 3, 25, 3)),
            "recording 1",
            "3 people in 2 frames; if people come first",
            "(frames, people, joints",
        ),
        (np.ones((3, 60, 25, 1)), "recording 1", "coordinates first, as in ST-GCN", "(frames, 25, 3)"),
        (np.full((5, 25, 3), "x"), "recording 1", "<U1", "numbers"),
        (person(5) * 1j, "recording 1", "complex", "numbers"),
        (bad_row(layout="kinect26"), "S001", "the layout kinect26", "the layout kinect25"),
        (bad_row(layout="kinect20"), "S001", "25 joints", "20 joints of 3 (layout kinect20)"),
        (bad_row(shape=[5, 25, 3]), "S001", "(5, 25, 3)", "T * P * J * 3"),
        (bad_row(shape=[4, 1, 25, 3]), "S001", "375 numbers", "T * P * J * 3"),
        (bad_row(fps=0.0), "S001", "0.0 frames per second", "positive"),
        (bad_row(fps=float("nan")), "S001", "nan frames per second", "positive"),
        (bad_row(layout=None), "S001", "keypoints", "the field 'layout'"),
        (recording([(0, person(5) * 0)]), "made.skeleton", "no body in any of 5 frames", "at least one body"),
    ],
)
def test_bad_recordings_are_named(bad, source, found, expected):
    with pytest.raises(SkeletonInputError) as caught:
        SkeletonFeatureExtractor()([person(5), bad])
    error = caught.value
    assert (error.source == source) and found in error.actual and expected in error.expected
    assert str(error) == f"{error.source}: expected {error.expected}, found {error.actual}"


def test_bad_files_and_batches(tmp_path):
    path = tmp_path / "bad.skeleton"
    path.write_text("3\n1\n")
    with pytest.raises(SkeletonFileError, match="line 3"):
        SkeletonFeatureExtractor()(path)
    path.write_text("3\n0\n0\n0\n")
    with pytest.raises(SkeletonInputError, match=r"bad\.skeleton.*no body in any of 3 frames"):
        SkeletonFeatureExtractor()(path)
    with pytest.raises(ValueError, match="at least one"):
        SkeletonFeatureExtractor()([])


# --------------------------------------------------------------------------------------------- real recordings


@pytest.mark.real_data
def test_real_recordings_of_ntu(real_data):
    paths = sorted((real_data / "ntu_rgbd/skeletons").glob("*.skeleton"))
    extractor = SkeletonFeatureExtractor()
    batch = extractor(paths, return_transform=True)
    features = batch["input_features"].numpy()
    assert np.isfinite(features).all() and np.abs(features).max() < 8  # torso lengths from the first pelvis
    for path, frames, mask, transform in zip(
        paths, features, batch["feature_attention_mask"], batch["transforms"], strict=True
    ):
        made = read_skeleton(path)
        num_frames, num_bodies = made.present.shape
        assert mask.sum() == -(-num_frames // 4) * 4
        back = extractor.inverse(frames[: mask.sum()], transform)[:num_frames]
        for body in range(num_bodies):
            errors = [np.abs(back[:, person] - made.keypoints[:, body]).max() for person in range(2)]
            assert min(errors) < 1e-6
        assert transform.present[:, 1].all() == (num_bodies == 2)
        first = frames[:15].reshape(15, 2, 25, 3)[:, 0]
        across = (first[:, 8] - first[:, 4]).mean(0)
        assert across[0] > 0 and abs(across[2]) < 0.3 * across[0]  # faces the sensor


@pytest.mark.real_data
def test_real_recordings_of_utd_mhad(real_data):
    paths = sorted((real_data / "utd_mhad/skeleton").glob("a*_s1_t1_*.mat"))
    assert len(paths) == 27
    extractor = SkeletonFeatureExtractor(layout="kinect20", num_persons=1)
    batch = extractor(paths, return_transform=True, return_tensors=None)
    for path, frames, transform in zip(paths, batch["input_features"], batch["transforms"], strict=True):
        assert np.isfinite(frames).all() and np.abs(frames).max() < 5
        keypoints = read_utd_mhad(path).keypoints
        np.testing.assert_allclose(extractor.inverse(frames, transform)[: len(keypoints)], keypoints, atol=1e-6)
        assert 0.25 < transform.scale < 0.5
