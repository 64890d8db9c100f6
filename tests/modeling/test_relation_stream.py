"""The encoder's stream `relation`: two people beside plain loops, their order, the place of the scene, and absent people."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from skeleton_people import NO_AUGMENTATION, person, recording
from tiny_models import tiny_action_model

from action_llm import ActionVQVAEConfig, ActionVQVAEModel, SkeletonFeatureExtractor
from action_llm.joint_mapping import relation_joints
from action_llm.skeleton_layouts import LAYOUTS, SkeletonLayout

LAYOUT = LAYOUTS["kinect25"]
JOINTS = {"pelvis": list(LAYOUT.pelvis), "relation_joints": relation_joints(LAYOUT)}
CHANNELS = 6 * 6 + 2


@pytest.fixture(scope="module")
def model():
    return tiny_action_model(streams=["relation"], num_persons=2, **JOINTS)


def features(people: torch.Tensor) -> torch.Tensor:
    """The encoder's input (batch_size, channels, frames) of people (batch_size, frames, persons, joints, coordinates)."""
    return people.flatten(2).mT


@pytest.fixture
def people():
    """(2, 5, 2, 25, 3): two people in any pose, one of whom is taller."""
    bodies = torch.randn(2, 5, 2, 25, 3, generator=torch.Generator().manual_seed(0))
    return bodies * torch.tensor([1.0, 1.3])[:, None, None] + torch.tensor([0.5, 0.1, 0.2])


def plain_relation(frame: np.ndarray) -> list[float]:
    """The relation of two people in a frame (2, joints, 3), with each body in its turn."""

    def point(body, *names):
        return np.mean([body[LAYOUT.joint_names.index(name)] for name in names], axis=0)

    def closeness(i, j):
        d = np.sqrt(((point(frame[0], ends[i]) - point(frame[1], ends[j])) ** 2).sum())
        return 1 / (1 + d / torso)

    ends = ("spine_base", "head", "left_hand", "right_hand", "left_foot", "right_foot")
    torso = np.mean([np.linalg.norm(point(body, "spine_shoulder") - point(body, "spine_base")) for body in frame])
    values = []
    for i, j in itertools.product(range(6), repeat=2):
        order = max if i <= j else min
        values.append(order(closeness(i, j), closeness(j, i)))
    facing = []
    for body, other in (frame, frame[::-1]):
        up = point(body, "spine_shoulder") - point(body, "spine_base")
        right = point(body, "right_hip", "right_shoulder") - point(body, "left_hip", "left_shoulder")
        ahead, way = np.cross(up, right), point(other, "spine_base") - point(body, "spine_base")
        facing.append(ahead @ way / np.linalg.norm(ahead) / np.linalg.norm(way))
    return [*values, *sorted(facing)]


def test_relation_is_that_of_plain_loops(model, people):
    relation = model.encoder.streams(features(people))
    assert relation.shape == (2, CHANNELS, 5) and model.config.num_stream_channels == CHANNELS
    expected = [[plain_relation(frame) for frame in clip] for clip in people.double().numpy()]
    np.testing.assert_allclose(relation.mT.numpy(), expected, atol=2e-6)


def test_who_comes_first_and_where_the_scene_is_do_not_matter(model, people):
    expected = model.encoder.streams(features(people))
    turned = torch.from_numpy(Rotation.from_euler("yxz", [70, 20, -10], degrees=True).as_matrix()).float()
    for other in (people.flip(2), people @ turned, people + torch.tensor([3.0, -1.0, 2.0]), people * 250):
        torch.testing.assert_close(model.encoder.streams(features(other)), expected, atol=1e-5, rtol=1e-4)
    # In a mirror image, left and right are in each other's place.
    mirrored = people[..., list(LAYOUT.mirror), :] * torch.tensor([-1.0, 1.0, 1.0])
    facing = model.encoder.streams(features(mirrored))[:, 36:]
    torch.testing.assert_close(facing, expected[:, 36:], atol=1e-5, rtol=1e-4)


def test_people_face_each_other_or_turn_away(model):
    """From the extractor: two metres apart, they stand face to face; then one turns to the side, then away."""
    facings = []
    for yaw in (90, 0, -90):  # of the person at the left in the picture, who looks to the sensor at 0
        bodies = [(0, person(8, yaw=yaw, place=(0, 0, 3), activity=0.01))]
        bodies.append((0, person(8, seed=1, yaw=-90, place=(-2, 0, 3), activity=0.01)))
        extractor = SkeletonFeatureExtractor(**NO_AUGMENTATION | {"min_body_frames": 0, "frame_multiple": 1})
        inputs = extractor(recording(bodies))["input_features"]
        facings.append(model.encoder.streams(inputs.mT)[0, 36:].mean(dim=-1))
    torch.testing.assert_close(torch.stack(facings), torch.tensor([[1.0, 1], [0, 1], [-1, 1]]), atol=0.05, rtol=0)


def test_recordings_whose_people_change_places_have_one_relation(model):
    """The extractor centres, turns and scales all by the first person."""
    bodies = [(0, person(12, activity=0.05)), (0, 1.2 * person(12, seed=1, place=(1, 0, 3.5), yaw=60))]
    settings = NO_AUGMENTATION | {"augment_swap": 1.0, "frame_multiple": 1}
    extractor = SkeletonFeatureExtractor(**settings)
    one, other = (extractor(recording(bodies), augment=augment, seed=0)["input_features"] for augment in (False, True))
    assert (one - other).abs().max() > 0.1
    relations = [model.encoder.streams(inputs.mT) for inputs in (one, other)]
    torch.testing.assert_close(*relations, atol=1e-5, rtol=1e-4)


def test_absent_people_and_padding_are_zeros(model, people):
    alone = people.clone()
    alone[0, :2, 1] = 0  # the second person comes later
    alone[1, 4, 0] = 0
    relation = model.encoder.streams(features(alone))
    present = torch.ones(2, 5, dtype=torch.bool)
    present[0, :2] = present[1, 4] = False
    assert (relation.mT[~present] == 0).all() and (relation.mT[present] != 0).any(dim=-1).all()
    frames = people.flatten(2)[:, :4]
    padded = torch.cat([frames, torch.zeros(2, 4, 150)], dim=1)
    mask = torch.tensor([[1] * 4 + [0] * 4] * 2)
    torch.testing.assert_close(
        model.encode(padded, feature_attention_mask=mask).latents[:, :1], model.encode(frames).latents
    )


def test_gradients_are_finite_where_joints_coincide(model, people):
    same_place = people[:, :, :1].expand(-1, -1, 2, -1, -1)
    no_extent = torch.ones_like(people)
    for bodies in (same_place, no_extent, torch.zeros_like(people)):
        inputs = features(bodies.clone()).requires_grad_()
        relation = model.encoder.streams(inputs)
        assert relation.isfinite().all()
        (gradient,) = torch.autograd.grad(relation.square().sum(), inputs)
        assert gradient.isfinite().all()


def test_the_loss_is_about_valid_frames_that_show_both(people):
    model = tiny_action_model(streams=["joints", "relation"], num_persons=2, relation_weight=0.7, **JOINTS)
    clips = torch.cat([people, people.flip(1)[:, :3]], dim=1)  # (2, 8, 2, 25, 3)
    clips[0, 2:4, 1] = 0
    mask = torch.tensor([[1] * 8, [1] * 4 + [0] * 4])
    inputs = clips.flatten(2) * mask[..., None]
    output = model(inputs, mask)
    made = output.reconstruction.detach().view(2, 8, 2, 25, 3).double().numpy()
    losses = []
    for clip, frame in [(0, frame) for frame in (0, 1, 4, 5, 6, 7)] + [(1, frame) for frame in range(4)]:
        errors = np.abs(
            np.subtract(plain_relation(made[clip, frame]), plain_relation(clips[clip, frame].double().numpy()))
        )
        losses.append(np.where(errors < 0.1, errors**2 / 0.2, errors - 0.05).mean())
    assert output.relation_loss.item() == pytest.approx(np.mean(losses), rel=1e-4)
    model.config.relation_weight = 0.0
    without = model(inputs, mask)
    assert without.relation_loss is None
    assert output.loss.item() == pytest.approx(without.loss.item() + 0.7 * np.mean(losses), rel=1e-4)
    model.config.relation_weight = 0.7
    clips[:, :, 1] = 0
    assert model(clips.flatten(2) * mask[..., None], mask).relation_loss == 0
    with pytest.raises(ValueError, match="`relation_weight` must be 0 without relation in `streams`"):
        ActionVQVAEConfig(relation_weight=0.7)


def test_two_dimensions_have_no_facing(people, tmp_path):
    config = {"streams": ["joints", "relation"], "num_persons": 3, "num_coordinates": 2}
    flat = tiny_action_model(**config, **JOINTS)
    bodies = torch.cat([people, people[:, :, :1] + 1], dim=2)[..., :2]
    streams = flat.encoder.streams(features(bodies))
    assert streams.shape == (2, 150 + 36, 5) and flat.config.num_stream_channels == 186
    in_depth = tiny_action_model(streams=["relation"], num_persons=2, **JOINTS)
    expected = in_depth.encoder.streams(features(torch.nn.functional.pad(bodies[:, :, :2], (0, 1))))
    torch.testing.assert_close(streams[:, 150:], expected[:, :36])
    assert (expected[:, 36:] == 0).all()
    flat.save_pretrained(tmp_path)
    again = ActionVQVAEModel.from_pretrained(tmp_path)
    assert again.config.relation_joints == JOINTS["relation_joints"]
    torch.testing.assert_close(again.encode(bodies[:, :4].flatten(2)), flat.encode(bodies[:, :4].flatten(2)))


def test_relation_needs_two_people_and_the_points_of_a_body():
    for changes, message in (
        ({"num_persons": 1}, "`num_persons` must be at least 2, because `streams` has relation"),
        ({"pelvis": None}, "`pelvis` must name some of the 25 joints"),
        ({"relation_joints": None}, "`relation_joints` must name some of the 25 joints for each of head, left_hand"),
        (
            {"relation_joints": JOINTS["relation_joints"] | {"neck": [25]}},
            "`relation_joints` must name some of the 25",
        ),
        ({"relation_joints": JOINTS["relation_joints"] | {"neck": []}}, "`relation_joints` must name some of the 25"),
    ):
        with pytest.raises(ValueError, match=message):
            ActionVQVAEConfig(streams=["relation"], **JOINTS | changes)


def test_every_layout_has_the_points_of_a_relation():
    for layout in LAYOUTS.values():
        points = {point: [layout.joint_names[row] for row in rows] for point, rows in relation_joints(layout).items()}
        assert all(name.startswith("left") for name in points["left_hand"] + points["left_foot"])
        assert all(name.startswith("right") for name in points["right_hand"] + points["right_foot"])
        ActionVQVAEConfig(
            streams=["relation"],
            num_joints=layout.num_joints,
            pelvis=list(layout.pelvis),
            relation_joints=relation_joints(layout),
        )
    assert relation_joints(LAYOUTS["coco17"]) == {
        "head": [3, 4], "left_hand": [9], "right_hand": [10], "left_foot": [15], "right_foot": [16],
        "neck": [5, 6], "left_side": [11, 5], "right_side": [12, 6],
    }  # fmt: skip
    fields = LAYOUTS["coco17"].to_dict() | {"name": "mine"}
    fields["joint_names"] = [name.replace("right_wrist", "right_end") for name in fields["joint_names"]]
    with pytest.raises(ValueError, match="'mine': expected a joint right_hand or right_wrist, got"):
        relation_joints(SkeletonLayout.from_dict(fields))
