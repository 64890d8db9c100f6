"""A pelvis and a neck that were never measured: each rule on upright and turned bodies, and nothing else moves."""

import numpy as np
import pytest
from skeleton_people import frames_of, person, recording

from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor, SkeletonInputError
from action_llm.skeleton_layouts import LAYOUTS
from action_llm.trunk_estimation import estimate_trunk

TRUNK = 0.47  # of `person`: from the pelvis at 0.95 m to the neck at 1.42 m


def estimated(layout, names, yaw=0.0):
    """Errors of pelvis and neck in metres, None where not estimated, if only the joints with these names were measured."""
    skeleton, body = LAYOUTS[layout], person(12, layout, yaw=yaw, activity=0.0).astype(np.float64)
    measured = np.array([[name in names for name in skeleton.joint_names]])
    tracks = np.where(measured[0][:, None], body, 7.0)[:, None]
    before = tracks.copy()
    known = estimate_trunk(tracks, measured, skeleton)
    assert (known | ~measured).all(), "what was measured stays known"
    np.testing.assert_array_equal(tracks[:, :, measured[0]], before[:, :, measured[0]])
    errors = []
    for anchor in (list(skeleton.pelvis), list(skeleton.neck)):
        if known[0, anchor].all():
            errors.append(np.linalg.norm(tracks[:, 0, anchor].mean(1) - body[:, anchor].mean(1), axis=-1).max())
        else:
            errors.append(None)
    return errors


@pytest.mark.parametrize("yaw", [0, 70])
@pytest.mark.parametrize(
    ("names", "pelvis", "neck"),
    [
        ({"left_hip", "right_hip", "left_shoulder", "right_shoulder"}, 0.01, 0.03),
        ({"hip_center", "head"}, 0.0, 0.05),
        ({"spine", "head"}, 0.1, 0.05),  # Kinect's spine is lower than that of `person`
        ({"head", "left_hip", "right_shoulder"}, 0.01, 0.03),
        ({"shoulder_center", "left_hip"}, 0.01, 0.0),
        ({"hip_center", "right_shoulder"}, 0.0, 0.03),
        ({"left_hip", "right_shoulder"}, 0.06, 0.06),  # across the body
        ({"left_hip", "left_shoulder"}, 0.16, 0.16),  # on one side
    ],
)
def test_estimates_are_close(names, pelvis, neck, yaw):
    found = estimated("kinect20", names, yaw)
    assert found[0] <= pelvis + 1e-6 and found[1] <= neck + 1e-6


def test_spine_beside_the_pelvis_does_not_tell_where_the_neck_is():
    assert estimated("kinect20", {"hip_center", "spine"})[1] is None
    assert estimated("kinect25", {"spine_base", "spine_mid"})[1] < 0.05


@pytest.mark.parametrize("names", [{"head"}, {"left_hand", "right_foot"}, {"spine"}])
def test_too_little_is_not_estimated(names):
    assert None in estimated("kinect20", names)
    made = person(6, "kinect20", activity=0.0)
    made[:, [name not in names for name in LAYOUTS["kinect20"].joint_names]] = 0
    with pytest.raises(SkeletonInputError, match="no more than"):
        SkeletonFeatureExtractor(layout="kinect20", num_persons=1)(recording([(0, made)], layout="kinect20"))


@pytest.mark.parametrize("lost", [("hip_center", "right_hip"), ("shoulder_center", "left_shoulder", "head"),
                                  ("hip_center", "left_hip", "shoulder_center", "right_shoulder")])  # fmt: skip
def test_features_without_trunk_joints_are_close_to_complete_ones(lost):
    body = person(30, "kinect20", activity=0.03)
    made = body.copy()
    indices = [LAYOUTS["kinect20"].joint_names.index(name) for name in lost]
    made[:, indices] = 0
    extractor = SkeletonFeatureExtractor(layout="kinect20", num_persons=1)
    expected, found = (frames_of(extractor, recording([(0, one)], layout="kinect20")) for one in (body, made))
    kept = [joint for joint in range(20) if joint not in indices]
    joints = (found - expected).reshape(-1, 20, 3)[:, kept]
    assert np.linalg.norm(joints, axis=-1).mean() < 0.3, "in lengths of the trunk"
