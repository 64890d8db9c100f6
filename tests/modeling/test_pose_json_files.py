"""People detected by pose estimators, in JSON: written here as the estimators document it, and the small inputs of users."""

import io
import json

import numpy as np
import pytest
from skeleton_people import person

from action_llm import SkeletonFeatureExtractor
from action_llm.recording_files import read_recording
from action_llm.skeleton_files import SkeletonFileError
from action_llm.skeleton_layouts import LAYOUTS

LAYOUT_NAMES = ["coco17", "openpose18", "openpose25", "halpe26", "wholebody133"]


def people(layout="coco17", frames=12, count=2):
    """Pixels and scores, (T, P, J, 3)."""
    bodies = [person(frames, layout, seed=seed, place=(3 * seed, 0, 0)) * [150, 150, 0] for seed in range(count)]
    joints = np.stack(bodies, 1) + np.array([320, 240, 0])
    joints[..., 2] = np.random.default_rng(0).uniform(0.3, 1, joints.shape[:3])
    return joints.round(3)


def numbers(joints):
    return [float(f"{value:.9g}") for value in joints.ravel()]


def openpose(folder, joints, start=0, name="clip", **extra):
    folder.mkdir()
    for frame, bodies in enumerate(joints, start=start):
        entries = [
            {"person_id": [-1], "pose_keypoints_2d": numbers(body), "face_keypoints_2d": []} | extra for body in bodies
        ]
        (folder / f"{name}_{frame:012d}_keypoints.json").write_text(json.dumps({"version": 1.3, "people": entries}))
    return folder


def alphapose(path, joints, ids=None, start=0):
    entries = [
        {"image_id": f"{frame}.jpg", "category_id": 1, "keypoints": numbers(body), "score": 2.9, "idx": ids[n] if ids else 0.0}
        for frame, bodies in enumerate(joints, start=start) for n, body in enumerate(bodies)
    ]  # fmt: skip
    path.write_text(json.dumps(entries))
    return path


def coco(path, joints, *, as_results):
    entries = [
        {"image_id": 700 + 2 * frame if not as_results else frame, "category_id": 1, "keypoints": numbers(body), "score": 0.9}
        for frame, bodies in enumerate(joints) for body in bodies
    ]  # fmt: skip
    images = [{"id": 700 + 2 * frame, "file_name": f"video/{frame:06d}.jpg"} for frame in range(len(joints))]
    path.write_text(
        json.dumps(entries if as_results else {"images": images, "annotations": entries, "categories": []})
    )
    return path


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_every_format_gives_the_same_people(tmp_path, layout):
    joints = people(layout)
    files = [
        openpose(tmp_path / "openpose", joints),
        alphapose(tmp_path / "alphapose-results.json", joints),
        coco(tmp_path / "results.json", joints, as_results=True),
        coco(tmp_path / "annotations.json", joints, as_results=False),
    ]
    for file in files:
        recording = read_recording(file, layout="kinect25", fps=25)
        assert (recording.layout, recording.fps, recording.source) == (layout, 25, file.name)
        np.testing.assert_allclose(recording.keypoints[..., :2], joints[..., :2], rtol=1e-6)
        np.testing.assert_allclose(recording.scores, joints[..., 2], rtol=1e-6)
        assert recording.present.all() and not recording.keypoints[..., 2].any()
        assert read_recording(file, layout=layout).layout == layout


def test_joints_that_were_not_seen_have_the_score_0(tmp_path):
    joints = people(count=1)
    joints[3, 0, 9] = 0
    joints[4, 0, 10, 2] = 0.02
    joints[5] = 0
    recording = read_recording(alphapose(tmp_path / "a.json", joints), layout="coco17")
    assert np.isnan(recording.keypoints[3, 0, 9, :2]).all() and np.isnan(recording.keypoints[4, 0, 10, :2]).all()
    assert recording.scores[3, 0, 9] == 0 and recording.scores[4, 0, 10] == pytest.approx(0.02)
    assert not recording.present[5, 0] and not recording.keypoints[5].any() and not recording.scores[5].any()


def test_frames_without_people_keep_their_time(tmp_path):
    joints = people(count=1)
    path = alphapose(tmp_path / "a.json", joints, start=20)
    entries = [entry for entry in json.loads(path.read_text()) if entry["image_id"] != "25.jpg"]
    path.write_text(json.dumps(entries[::-1]))
    recording = read_recording(path, layout="coco17", fps=10)
    assert recording.present[:, 0].tolist() == [False] * 20 + [True] * 5 + [False] + [True] * 6
    assert SkeletonFeatureExtractor("coco17", fps=None)(recording, return_tensors="np")["start_time"].tolist() == [2.0]
    for entry in entries:  # ids of a data set
        entry["image_id"] = 10_000_010_000 + int(entry["image_id"].removesuffix(".jpg"))
    path.write_text(json.dumps(entries))
    assert read_recording(path, layout="coco17").present[:, 0].tolist() == [True] * 5 + [False] + [True] * 6
    folder = openpose(tmp_path / "frames", joints)
    (folder / "clip_000000000004_keypoints.json").write_text('{"people": []}')
    assert read_recording(folder, layout="coco17").present[:, 0].tolist() == [True] * 4 + [False] + [True] * 7


def test_ids_track_people_where_there_are_any(tmp_path):
    joints = people()
    crossing = joints.copy()
    crossing[::2] = crossing[::2, ::-1]
    entries = json.loads(alphapose(tmp_path / "a.json", crossing).read_text())
    for number, entry in enumerate(entries):
        entry["idx"] = [7, 3][(number + (number // 2 + 1) % 2) % 2]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    recording = read_recording(tmp_path / "a.json", layout="coco17")
    assert sorted(recording.body_ids.tolist()) == [3, 7] and "changed places" not in recording.symptoms
    order = np.argsort(-recording.body_ids)
    np.testing.assert_allclose(recording.keypoints[:, order, :, :2], joints[..., :2], rtol=1e-6)
    untracked = read_recording(alphapose(tmp_path / "b.json", crossing), layout="coco17")
    assert untracked.symptoms["changed places"] > 0 and untracked.body_ids.tolist() == [0, 1]
    longest = [np.abs(np.diff(made[..., :2], axis=0)).max() for made in (untracked.keypoints, joints)]
    assert longest[0] == pytest.approx(longest[1], rel=1e-4)
    # More people than frames are no array in another order.
    assert read_recording(
        alphapose(tmp_path / "c.json", people(frames=2, count=4)), layout="coco17"
    ).present.shape == (2, 4)


def test_a_layout_of_fewer_joints_if_the_others_were_never_seen(tmp_path):
    joints = np.pad(people(count=1), ((0, 0), (0, 0), (0, 8), (0, 0)))
    assert read_recording(openpose(tmp_path / "padded", joints), layout="coco17").layout == "coco17"
    joints[3, 0, 20] = 1
    assert read_recording(openpose(tmp_path / "seen", joints), layout="coco17").layout == "openpose25"
    own = LAYOUTS["coco17"].to_dict() | {"name": "mine"}
    assert read_recording(alphapose(tmp_path / "a.json", people()), layout=own).layout == "mine"


def test_one_frame_and_an_open_file(tmp_path):
    folder = openpose(tmp_path / "frames", people(frames=1))
    (path,) = folder.iterdir()
    opened = io.BytesIO(path.read_bytes())
    opened.name = path.name
    for file in (path, opened):
        assert read_recording(file, layout="coco17").keypoints.shape == (1, 2, 17, 3)


PERSON = {"image_id": "0.jpg", "keypoints": [1.0] * 51}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([PERSON | {"keypoints": [1.0] * 50}], "x, y and score of each joint, found a list of 50 as keypoints of person 0"),
        ([PERSON | {"keypoints": [1.0] * 50 + ["x"]}], "found a list of 51 as keypoints of person 0"),
        ([PERSON, PERSON | {"keypoints": [1.0] * 75}], "51 numbers of joints, as the first person has, found 75 for person 1"),
        ([PERSON | {"keypoints": None}], "found nothing as keypoints"),
        ([PERSON | {"keypoints": [1.0] * 9}], r"17 \(coco17\), .* 133 \(wholebody133\), .*, found 3 joints per person"),
        ([PERSON | {"image_id": "first.jpg"}], "the number of a frame, found .first.jpg"),
        ([PERSON | {"image_id": None}], "found nothing"),
        ([PERSON, PERSON | {"image_id": 5_000_000.0}], "the consecutive frames of a video, found 2 images with numbers from 0"),
        ([PERSON | {"keypoints": [0.0] * 51}, "keypoints"], "a list of people with image_id and keypoints, found a list of 2"),
        ({"people": 5}, "people as a list of objects, found people, 5"),
        ({"people": []}, "at least one person, found nobody in any frame"),
        ({"annotations": [], "images": {}}, "images as a list of objects"),
        ({"predictions": [1]}, "JSON of OpenPose, AlphaPose, COCO, Northwestern-UCLA or Toyota Smarthome, found JSON without"),
    ],
)  # fmt: skip
def test_errors_name_the_place(tmp_path, content, message):
    path = tmp_path / "clip.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SkeletonFileError, match=message) as error:
        read_recording(path, layout="coco17")
    assert str(path) in str(error.value)


def test_errors_of_folders(tmp_path):
    folder = openpose(tmp_path / "frames", people(frames=2))
    (folder / "other_000000000000_keypoints.json").write_text('{"people": []}')
    with pytest.raises(
        SkeletonFileError, match="a folder for each recording, found frames of several recordings, clip_, other_"
    ):
        read_recording(folder, layout="coco17")
    (folder / "other_000000000000_keypoints.json").rename(folder / "clip_last_keypoints.json")
    with pytest.raises(
        SkeletonFileError, match=r"clip_last_keypoints\.json: expected the number of the frame in the name"
    ):
        read_recording(folder, layout="coco17")
    (folder / "clip_last_keypoints.json").rename(folder / "clip_000000000002_keypoints.json")
    (folder / "clip_000000000002_keypoints.json").write_text("[]")
    with pytest.raises(
        SkeletonFileError, match="expected an object with people, a frame of OpenPose, found a list of 0"
    ):
        read_recording(folder, layout="coco17")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkeletonFileError, match="expected a file, or a folder with a JSON file of OpenPose per frame"):
        read_recording(tmp_path / "empty", layout="coco17")


@pytest.mark.real_data
def test_json_of_users(real_data):
    """The OpenPose folders of these inputs hold 17 joints of COCO, padded to 25."""
    cases = real_data / "cases"
    folder = read_recording(cases / "s04_openpose_json_folder" / "clip1", layout="coco17", fps=30)
    alpha, annotated = (
        read_recording(cases / "s08_alphapose_coco_json" / name, layout="coco17", fps=30)
        for name in ("alphapose-results.json", "coco.json")
    )
    assert {made.layout for made in (folder, alpha, annotated)} == {"coco17"}
    np.testing.assert_allclose(alpha.keypoints, folder.keypoints, atol=1e-3)
    np.testing.assert_allclose(annotated.keypoints, alpha.keypoints[:3], atol=1e-3)
    for recording in (folder, alpha):
        assert recording.present.shape == (20, 1) and SkeletonFeatureExtractor("coco17").doubts(recording) == []
    as_body25 = read_recording(cases / "s04_openpose_json_folder" / "clip1", layout="openpose25", fps=30)
    assert any(
        "joints do not fit" in doubt or "set the layout" in doubt
        for doubt in SkeletonFeatureExtractor("openpose25").doubts(as_body25)
    )
