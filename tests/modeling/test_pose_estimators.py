"""Pose estimators: recordings from videos, positions in space, and the two libraries behind them."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from tiny_poses import BODY, BrightCorner
from tiny_videos import picture, rotated, tiny_video
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    VitPoseBackboneConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)

from action_llm import mediapipe_pose, pose_estimation, pose_estimators
from action_llm.frame_sequences import FrameArray
from action_llm.mediapipe_pose import FOCAL_LENGTH, LEAST_DISTANCE, MediaPipePose, positions, smoothed_distances
from action_llm.person_tracking import Detections
from action_llm.pose_estimation import NobodySeenError, PoseError, PoseEstimator
from action_llm.pose_estimators import load_pose_estimator
from action_llm.recording_parts import join_frames
from action_llm.skeleton_files import SkeletonFileError, read_skeleton
from action_llm.skeleton_layouts import LAYOUTS
from action_llm.video_files import open_video
from action_llm.vitpose import VitPose

BLAZEPOSE = LAYOUTS["blazepose33"]


def test_a_recording_has_the_rate_of_the_video_and_joints_of_low_scores_are_missing():
    recording = BrightCorner()(io.BytesIO(tiny_video(12)))
    assert recording.keypoints.shape == (12, 1, 33, 3) and recording.keypoints.dtype == np.float32
    assert (recording.layout, recording.fps, recording.body_ids.tolist()) == ("blazepose33", 30.0, [0])
    assert recording.present.all() and np.isnan(recording.keypoints[:, :, 0]).all()
    np.testing.assert_allclose(recording.keypoints[3, 0, 1:], BODY[1:] + np.array([0.03, 0, 0]), rtol=1e-5)
    np.testing.assert_allclose(recording.scores[0, 0, :2], [0.01, 0.9], rtol=1e-6)
    np.testing.assert_allclose(recording.color_pixels[0, 0, 1:], BODY[1:, :2] * 10 + [24, 16], rtol=1e-5)


def joined(pieces):
    pieces = list(pieces)
    assert all(len(piece.present) == 1 for piece in pieces)
    return join_frames(pieces, 0, len(pieces))


def same(recording, other):
    assert (recording.layout, recording.fps, recording.source) == (other.layout, other.fps, other.source)
    assert (recording.present == other.present).all() and recording.body_ids.tolist() == other.body_ids.tolist()
    for name in ("keypoints", "scores", "color_pixels"):
        np.testing.assert_allclose(getattr(recording, name), getattr(other, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("people", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"fps": 10}, {"mirrored": True}])
def test_a_stream_has_the_poses_of_the_whole_video(settings, people):
    estimator = BrightCorner(people=people)
    whole = estimator(io.BytesIO(tiny_video(24)), **settings)
    assert whole.body_ids.tolist() == list(range(people))
    same(joined(estimator.stream(io.BytesIO(tiny_video(24)), **settings)), whole)
    assert not joined(BrightCorner(threshold=256).stream(io.BytesIO(tiny_video(6)))).present.size  # nobody


def test_a_stream_has_no_end_and_reads_no_further_than_it_must():
    read = []

    class Endless(FrameArray):
        def _frames_in_order(self, times):
            return super()._frames_in_order(read.append(time) or time for time in times)

    video = Endless(np.stack([picture(number) for number in range(6)]), 30.0)
    video.info = video.info._replace(seconds=float("inf"))
    pieces = BrightCorner().stream(video)
    for _ in range(5):
        next(pieces)
    assert len(read) == 6  # the next picture tells how long the last one is shown
    for _ in range(40):  # the last picture stays, and is looked at again every 15 frames
        next(pieces)
    assert 45 <= len(read) <= 45 + 15


def test_frames_are_at_equal_intervals_whatever_the_rate_of_the_video():
    # 4 frames of 1/30 s and 4 of 3/30 s.
    video = tiny_video(8, times=(0, 1, 2, 3, 4, 7, 10, 13))
    with open_video(io.BytesIO(video)) as opened:
        seconds = opened.info.seconds
    recording = BrightCorner()(io.BytesIO(video))
    assert len(recording.present) == round(seconds * recording.fps)
    assert len(BrightCorner()(io.BytesIO(tiny_video(30)), fps=10).present) == 10
    assert BrightCorner()(io.BytesIO(tiny_video(30)), fps=100).fps == 30.0
    frames = np.stack([picture(number) for number in range(6)])
    assert BrightCorner()(frames, fps=12).fps == 12.0


def test_a_video_is_seen_upright():
    class Sizes(BrightCorner):
        def detect(self, pictures):
            pictures = list(pictures)
            assert {image.shape for _, image in pictures} == {(48, 32, 3)}
            return super().detect([(time, image[:, ::-1]) for time, image in pictures])

    assert Sizes(threshold=-1)(io.BytesIO(rotated(tiny_video(6)))).present.all()


@pytest.mark.parametrize("layout", ["blazepose33", "coco17"])
def test_people_in_a_mirror_image_are_mirrored_back(layout):
    """A mirror image of a scene, mirrored back, has the joints of the scene."""
    skeleton = LAYOUTS[layout]
    generator = np.random.default_rng(0)
    joints = generator.uniform(0, 40, (skeleton.num_joints, skeleton.dimensions))
    scores = generator.uniform(0.5, 1, skeleton.num_joints)
    size = np.array([47, 0, 0][: skeleton.dimensions]) if skeleton.dimensions == 2 else 0

    class Scene(PoseEstimator):
        name = "scene"

        def __init__(self, is_mirror):
            super().__init__()
            self.layout, self.is_mirror = layout, is_mirror

        def detect(self, pictures):
            for _ in pictures:
                seen, sure = joints, scores
                if self.is_mirror:  # an estimator takes the left arm in a mirror for a right one
                    seen = (joints * np.array([-1, 1, 1])[: skeleton.dimensions] + size)[list(skeleton.mirror)]
                    sure = scores[list(skeleton.mirror)]
                yield Detections(seen[None, :, :2], sure[None], seen[None])

    video = io.BytesIO(tiny_video(6))
    scene, mirrored = Scene(False)(video), Scene(True)(video, mirrored=True)
    np.testing.assert_allclose(mirrored.keypoints, scene.keypoints, atol=1e-4)
    np.testing.assert_array_equal(mirrored.scores, scene.scores)


def test_a_picture_that_stays_is_estimated_once():
    # The fourth picture stays for three seconds.
    video, seen = tiny_video(5, 25, container="matroska", times=(0, 1, 2, 3, 78)), []

    class Noting(BrightCorner):
        def detect(self, pictures):
            pictures = list(pictures)
            seen.extend(time for time, _ in pictures)
            return super().detect(pictures)

    recording = Noting()(io.BytesIO(video))
    np.testing.assert_allclose(seen, np.array([0, 1, 2, 3, 78]) / 25)
    assert recording.present.shape == (79, 1) and recording.present.all()
    assert (recording.keypoints[4:78, 0, 1:] == recording.keypoints[3, 0, 1:]).all()
    assert (recording.keypoints[78, 0, 1] != recording.keypoints[3, 0, 1]).any()


def test_a_video_that_claims_to_be_too_long_is_not_estimated(monkeypatch):
    monkeypatch.setattr(BrightCorner, "calls", 0)
    video = tiny_video(3, container="matroska", times=(0, 1, 30 * 10**5))
    with pytest.raises(SkeletonFileError, match=r"expected at most 22,369,621 joints in all.*found 3,000,\d+ frames"):
        BrightCorner()(io.BytesIO(video))
    assert BrightCorner.calls == 0


@pytest.mark.parametrize("fps", [0, -1, float("nan"), 0.5, float("inf"), "ten"])
def test_impossible_rates(fps):
    for video in (io.BytesIO(tiny_video(6)), np.stack([picture(number) for number in range(6)])):
        with pytest.raises(ValueError, match=r"expected .*frames per second.*, found fps"):
            BrightCorner()(video, fps=fps)


def test_without_scipy_nothing_is_estimated(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match="tracked with SciPy, which is missing: pip install scipy"):
        BrightCorner()


def test_a_video_of_nobody_and_wrong_settings():
    with pytest.raises(NobodySeenError, match=r"found nobody in any of the 6 frames"):
        BrightCorner(threshold=256)(io.BytesIO(tiny_video(6)))
    with pytest.raises(ValueError, match="max_people must be an integer of at least 1, got 0"):
        BrightCorner(max_people=0)


def test_only_the_people_who_are_seen_longest_are_kept(monkeypatch):
    class Crowd(BrightCorner):
        def detect(self, pictures):
            for number, _ in enumerate(pictures):
                people = 8 if number == 2 else 1
                joints = np.stack([BODY + np.array([100 * person, 0, 0]) for person in range(people)])
                yield Detections(joints[..., :2], np.ones(joints.shape[:2]), joints)

    assert Crowd()(io.BytesIO(tiny_video(6))).present.sum(0).tolist() == [6, *[1] * 7]  # more people than frames
    monkeypatch.setattr(pose_estimation, "MAX_BODIES", 6)
    recording = Crowd()(io.BytesIO(tiny_video(6)))
    assert recording.keypoints.shape[1] == 6 and recording.present.sum(0).tolist() == [6, 1, 1, 1, 1, 1]


def test_a_position_is_where_a_camera_sees_the_joints():
    generator = np.random.default_rng(0)
    joints = generator.normal(size=(5, 2, 33, 3)) * 0.5
    where = generator.uniform([-2, -1, 2], [2, 1, 8], (5, 2, 3))
    x, y, z = np.moveaxis(joints + where[..., None, :], -1, 0)
    view = np.stack([x / z, y / z], axis=-1)
    scores = generator.uniform(0, 1, (5, 2, 33))
    np.testing.assert_allclose(positions(joints, view, scores), where, atol=1e-4)
    view[:, :, 3] += 5  # a joint without a score does not count
    scores[:, :, 3] = 0
    np.testing.assert_allclose(positions(joints, view, scores), where, atol=1e-2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_bad_distances_move_nobody(seed):
    """Frames whose joints do not fit leave the others as they are, and are on the ray through the seen body."""
    generator = np.random.default_rng(seed)
    frames = np.arange(60)
    bad = generator.choice(frames[1:-1], generator.integers(1, 25), replace=False)
    start, end = generator.uniform([-1, -0.5, 2], [1, 0.5, 6], (2, 3))
    path = start + (end - start) * frames[:, None] / 60
    joints = np.repeat(BODY[None, None], 60, 0)
    x, y, z = np.moveaxis(joints + path[:, None, None], -1, 0)
    view = FOCAL_LENGTH * np.stack([x / z, y / z], axis=-1)
    scores = np.full((60, 1, 33), 0.9)
    estimator = MediaPipePose.__new__(MediaPipePose)
    whole = estimator.place(joints, view, scores, 30.0)
    hidden = np.where(np.isin(frames, bad)[:, None, None], 0, scores)
    expected = estimator.place(joints, view, hidden, 30.0)
    np.testing.assert_allclose(whole[8:-8].mean(2) - joints[8:-8].mean(2), path[8:-8, None], atol=0.02)
    joints[bad, ..., :2] *= -1  # as if seen through a camera that looks the other way
    assert (positions(joints, view / FOCAL_LENGTH, scores)[bad, :, 2] < LEAST_DISTANCE).all()
    found = estimator.place(joints, view, scores, 30.0)
    good = np.setdiff1d(frames, bad)
    np.testing.assert_allclose(found[good], expected[good], atol=1e-9)
    # The distance is between those of the neighbours, and the mean of the joints is seen where they are seen.
    distances = (found - joints)[bad, 0, 0, 2]
    assert (distances > min(path[:, 2]) - 0.1).all() and (distances < max(path[:, 2]) + 0.1).all()
    across = found[bad, ..., :2] - view[bad] / FOCAL_LENGTH * found[bad, ..., 2:]
    np.testing.assert_allclose(across.mean(2), 0, atol=1e-9)


def test_smoothed_distances_are_those_of_a_gaussian_filter():
    generator = np.random.default_rng(0)
    distances, plausible = generator.uniform(1, 5, (80, 2)), generator.random((80, 2)) < 0.7
    plausible[20:60, 1] = False
    found = smoothed_distances(np.where(plausible, distances, -9), plausible, 2.5)
    weights, sums = (
        gaussian_filter1d(part, 2.5, axis=0, mode="constant") for part in (plausible * 1.0, plausible * distances)
    )
    near = weights > 1e-6
    np.testing.assert_allclose(found[near], sums[near] / weights[near], rtol=1e-9)
    gap = np.flatnonzero(~near[:, 1])
    before, after = gap[0] - 1, gap[-1] + 1
    between = np.interp(gap, [before, after], found[[before, after], 1])
    np.testing.assert_allclose(found[gap, 1], between, rtol=1e-9)
    assert (smoothed_distances(distances, np.zeros((80, 2), bool), 2.5) == LEAST_DISTANCE).all()


def landmark(x, y, z=0.0, visibility=0.9):
    return SimpleNamespace(x=x, y=y, z=z, visibility=visibility)


@pytest.fixture
def walker(monkeypatch, tmp_path):
    """A MediaPipe whose landmarker sees a person who walks through a room, in frames of 48 x 32; the path (T, 3)."""
    path = np.array([[0.5 + 0.02 * frame, 0.1, 4 - 0.05 * frame] for frame in range(40)])
    body = BODY @ Rotation.from_euler("y", 30, degrees=True).as_matrix()

    class Landmarker:
        times = ()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def detect_for_video(self, image, time):
            self.times = (*self.times, time)
            assert sorted(set(self.times)) == list(self.times)
            place = path[len(self.times) - 1]
            x, y, z = (body + place).T
            # The frame is 48 wide, so a tangent of 1 is 0.75 * 48 pixels from the middle.
            columns, rows = (FOCAL_LENGTH * 48 * x / z + 24, FOCAL_LENGTH * 48 * y / z + 16)
            seen = [landmark(column / 48, row / 32) for column, row in zip(columns, rows, strict=True)]
            return SimpleNamespace(pose_landmarks=[seen], pose_world_landmarks=[[landmark(*joint) for joint in body]])

    vision = SimpleNamespace(
        PoseLandmarkerOptions=lambda **settings: settings,
        RunningMode=SimpleNamespace(VIDEO="video"),
        PoseLandmarker=SimpleNamespace(create_from_options=lambda options: Landmarker()),
    )
    package = SimpleNamespace(Image=lambda image_format, data: data, ImageFormat=SimpleNamespace(SRGB="srgb"))
    monkeypatch.setattr(mediapipe_pose, "_vision", lambda: (package, vision, lambda **settings: settings))
    (tmp_path / "pose.task").write_bytes(b"model")
    return MediaPipePose(str(tmp_path / "pose.task")), body, path


def test_mediapipe_keeps_the_path_of_a_person_in_the_room(walker):
    estimator, body, path = walker
    recording = estimator(io.BytesIO(tiny_video(40)))
    hips = recording.keypoints[:, 0, [23, 24]].mean(1)
    np.testing.assert_allclose(hips[8:-8], path[8:-8] + body[[23, 24]].mean(0), atol=0.01)
    # At the ends, the smoothed distance lags; the person stays where they are in the frame.
    assert np.abs(hips - path).max() < 0.15
    shown = recording.keypoints[:, 0] - hips[:, None]
    np.testing.assert_allclose(shown, np.broadcast_to(body - body[[23, 24]].mean(0), shown.shape), atol=1e-5)
    assert BLAZEPOSE.up == -1 and recording.keypoints[0, 0, 0, 1] < recording.keypoints[0, 0, 31, 1]  # nose above foot


def test_mediapipe_places_a_person_in_a_stream_as_in_the_whole_video(walker):
    estimator, _, _ = walker
    same(joined(estimator.stream(io.BytesIO(tiny_video(40)))), estimator(io.BytesIO(tiny_video(40))))


def test_mediapipe_takes_its_model_from_a_path_or_the_hub(walker, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        mediapipe_pose, "hf_hub_download", lambda *names: calls.append(names) or str(tmp_path / "pose.task")
    )
    MediaPipePose("me/models:pose_landmarker_full.task")
    assert calls == [("me/models", "pose_landmarker_full.task")]
    with pytest.raises(PoseError, match=r"expected a \.task file, or OWNER/NAME:FILE\.task on the Hub, got 'nowhere'"):
        MediaPipePose("nowhere")


def test_the_error_without_any_weights_names_both_estimators(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    for estimator in pose_estimators.POSE_ESTIMATORS.values():
        monkeypatch.setattr(estimator, "is_present", classmethod(lambda cls: False))
    with pytest.raises(PoseError) as error:
        load_pose_estimator()
    first, mediapipe, vitpose = str(error.value).splitlines()
    assert first == "expected the weights of a pose estimator on this machine, found none."
    assert mediapipe.startswith(
        "mediapipe estimates 3-D joints on the CPU. Install MediaPipe with `pip install mediapipe`, "
    )
    assert "curl --create-dirs -o" in mediapipe and "pose_landmarker_full.task" in mediapipe
    assert vitpose == (
        "vitpose estimates 2-D joints, best on a GPU. Get its weights (Apache-2.0) with `hf download "
        "usyd-community/vitpose-base-simple` and `hf download PekingU/rtdetr_r50vd_coco_o365`."
    )
    with pytest.raises(ValueError, match="there is no pose estimator 'openpose', expected mediapipe or vitpose"):
        load_pose_estimator("openpose")
    with pytest.raises(ValueError, match="needs the name of its estimator"):
        load_pose_estimator(model="pose.task")
    monkeypatch.setattr(BrightCorner, "name", "vitpose")
    monkeypatch.setitem(pose_estimators.POSE_ESTIMATORS, "vitpose", BrightCorner)
    assert isinstance(load_pose_estimator(), BrightCorner)


@pytest.fixture(scope="module")
def vitpose(tmp_path_factory):
    """Folders of a detector and of a ViTPose: tiny, with random weights."""
    from transformers import AutoImageProcessor  # noqa: F401
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
    from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil

    folder = tmp_path_factory.mktemp("vitpose")
    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"],
        layer_type="basic",
    )  # fmt: skip
    detector = RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], encoder_layers=1,
        encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, num_queries=10, decoder_in_channels=[16, 16, 16],
        decoder_layers=1, decoder_ffn_dim=16, decoder_attention_heads=2, decoder_n_points=2, hidden_expansion=1.0,
        id2label={0: "person", 1: "dog"}, num_labels=2,
    )  # fmt: skip
    RTDetrForObjectDetection(detector).save_pretrained(folder / "detector")
    RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder / "detector")
    for name, experts in (("pose", 1), ("pose_plus", 3)):
        body = VitPoseBackboneConfig(
            image_size=[64, 48], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_experts=experts, part_features=4, out_indices=[1],
        )  # fmt: skip
        config = VitPoseConfig(backbone_config=body, num_labels=17)
        VitPoseForPoseEstimation(config).save_pretrained(folder / name)
        VitPoseImageProcessorPil(size={"height": 64, "width": 48}).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("name", ["pose", "pose_plus"])
def test_vitpose_gives_joints_in_the_boxes_of_people(vitpose, monkeypatch, name):
    estimator = VitPose(str(vitpose / name), 2, str(vitpose / "detector"))
    pictures = [picture(number, 96, 128) for number in range(10)]
    real = estimator._boxes
    box = np.array([[20.0, 10.0, 40.0, 60.0]])

    def boxes(batch):
        real(batch)  # runs
        return [box if image[50, 100, 0] != pictures[3][50, 100, 0] else box[:0] for image in batch]

    monkeypatch.setattr(estimator, "_boxes", boxes)
    found = list(estimator.detect((number / 30, image) for number, image in enumerate(pictures)))
    assert [len(people.pixels) for people in found][:4] == [1, 1, 1, 0] and len(found) == 10
    assert found[3].pixels.shape == (0, 17, 2) and found[0].scores.shape == (1, 17)
    # The box is padded by a quarter, and has the aspect ratio of the model. With random weights, a few joints are far off.
    centre = box[0, :2] + box[0, 2:] / 2
    assert (np.median(np.abs(found[0].pixels[0] - centre), axis=0) <= 1.25 * 60 / 2 + 2).all()
    alone = next(estimator.detect([(0.0, pictures[0])]))
    assert np.median(np.abs(alone.pixels - found[0].pixels)) < 0.1


def test_vitpose_takes_the_people_with_the_highest_scores(vitpose, monkeypatch):
    monkeypatch.setattr("action_llm.vitpose.LEAST_SCORE", 0.0)
    one, three = (VitPose(str(vitpose / "pose"), count, str(vitpose / "detector")) for count in (1, 3))
    image = picture(0, 96, 128)
    (best,), (most,) = one._boxes([image]), three._boxes([image])
    assert best.shape == (1, 4) and most.shape == (3, 4)
    np.testing.assert_allclose(best[0], most[0])
    inputs = one._find_boxes(images=[image], return_tensors="pt")
    with torch.no_grad():
        outputs = one._detector(**inputs)
    x, y, w, h = (outputs.pred_boxes[0][outputs.logits[0, :, 0].argmax()] * torch.tensor([128, 96, 128, 96])).tolist()
    np.testing.assert_allclose(best[0], [x - w / 2, y - h / 2, w, h], atol=1e-3)


def test_vitpose_without_weights_says_where_they_are(vitpose, tmp_path):
    with pytest.raises(PoseError, match=r"[^.]\. Get its weights .* with `hf download usyd-community/vitpose"):
        VitPose(str(tmp_path), detector=str(vitpose / "detector"))


@pytest.mark.real_data
def test_mediapipe_agrees_with_kinect(real_data):
    """Left is left, heights are those of people, and joints are near those of the sensor, which saw a mirror image."""
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    estimator = MediaPipePose(str(real_data / "pretrained/pose/pose_landmarker_full.task"), max_people=1)
    clip = "S001C001P001R001A001"
    with open_video(real_data / f"ntu_rgbd/rgb/{clip}_rgb.avi") as video:
        frames = video.frames_at([frame / 30 for frame in range(6)], (540, 960))
    recording = estimator(frames, fps=30, mirrored=True)
    kinect = read_skeleton(real_data / f"ntu_rgbd/skeletons/{clip}.skeleton").keypoints[:6, 0]
    names = [
        f"{side}_{joint}" for joint in ("shoulder", "elbow", "hip", "knee", "ankle") for side in ("left", "right")
    ]
    of_sensor = kinect[:, [LAYOUTS["kinect25"].joint_names.index(name) for name in names]]
    estimated = recording.keypoints[:, 0, [BLAZEPOSE.joint_names.index(name) for name in names]]
    height = np.ptp(recording.keypoints[:, 0, :, 1], axis=1)
    assert 1.3 < height.min() <= height.max() < 1.9
    a, b = ((part - part.mean((0, 1))).reshape(-1, 3) for part in (estimated, of_sensor))
    rotation, _ = Rotation.align_vectors(b, a)
    turned = rotation.apply(a)
    scale = (turned * b).sum() / (turned**2).sum()
    assert np.linalg.norm(scale * turned - b, axis=1).mean() < 0.12  # 0.25 with left and right exchanged
