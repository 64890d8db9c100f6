"""Simulated recordings: what sensors report, what is written, and what a second run does."""

import json
import re

import numpy as np
import pytest

from action_llm.skeleton_files import read_skeleton
from action_llm_datasets.protocols import NTU_PROTOCOLS, ntu_class_names, parse_ntu_name
from action_llm_datasets.simulation.actions import SINGLE_ACTIONS
from action_llm_datasets.simulation.interactions import MUTUAL_ACTIONS
from action_llm_datasets.simulation.people import Joint
from action_llm_datasets.simulation.sensor import FIRST_BODY_ID, Track, observe, place_cameras, skeleton_text
from action_llm_datasets.simulation.simulate import (
    SIMULATED_ACTION_IDS,
    SimulationFolderError,
    file_name,
    main,
    perform,
    record,
    setup_of,
    simulate,
)


@pytest.fixture(scope="module")
def many_tracks():
    """The tracks of 300 recordings of a performance, enough for rare faults."""
    people = perform(0, 1, 23, 1)
    camera = place_cameras(0, 1)[0]
    return people, camera, [observe(people, camera, np.random.default_rng([9, index])) for index in range(300)]


def test_actions_of_one_and_two_people():
    assert len(SINGLE_ACTIONS) >= 16 and len(MUTUAL_ACTIONS) >= 4
    assert sorted([*SINGLE_ACTIONS, *MUTUAL_ACTIONS]) == list(SIMULATED_ACTION_IDS)
    names = ntu_class_names()
    assert names[22] == "hand waving" and names[57] == "handshaking"
    # The mutual actions of NTU RGB+D 60 are A050 to A060.
    assert all(action < 50 for action in SINGLE_ACTIONS) and all(50 <= action <= 60 for action in MUTUAL_ACTIONS)


def test_cameras_are_placed_as_in_ntu():
    for setup in range(1, 9):
        middle, right, left = place_cameras(0, setup)
        for camera in (middle, right, left):
            np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-12)
            assert np.linalg.det(camera.axes) == pytest.approx(1.0)
            x, y, z = camera.view(np.array([0.0, 1.0, 0.0]))
            assert 2.4 < z < 4.6 and abs(x) < 0.6  # the stage is in front
            assert camera.view(np.array([0.0, 2.0, 0.0]))[1] > y  # y points up
        azimuth = [np.degrees(np.arctan2(*camera.position[[0, 2]])) for camera in (middle, right, left)]
        np.testing.assert_allclose(azimuth, [0, -45, 45], atol=12)
    # The left hand of a person who faces the sensor has the smaller x, as in real files.
    ahead = place_cameras(0, 1)[0]
    left_hand, right_hand = ahead.view(np.array([[0.3, 1.0, 0.0], [-0.3, 1.0, 0.0]]))
    assert left_hand[0] < right_hand[0]


def test_three_cameras_see_one_performance():
    people = perform(0, 2, 7, 1)
    cameras = place_cameras(0, setup_of(2))
    seen = [observe(people, camera, np.random.default_rng(number))[0] for number, camera in enumerate(cameras)]
    for camera, track in zip(cameras, seen, strict=True):
        in_the_room = track.joints @ camera.axes + camera.position
        error = np.linalg.norm(in_the_room - people[0], axis=-1)
        assert np.median(error[:, :4]) < 0.04  # trunk
        tracked = track.state == 2
        assert np.median(error[tracked]) < 0.06 and np.quantile(error[tracked], 0.99) < 0.3
        assert not tracked.all()  # some joint is always occluded
        assert np.median(error[~tracked]) > np.median(error[tracked])


def test_noise_grows_with_distance():
    people = perform(0, 1, 35, 1)
    camera = place_cameras(0, 1)[0]

    def jitter(away):
        far = type(camera)(camera.position - away * camera.axes[2], camera.axes)
        tracks = [observe(people, far, np.random.default_rng(seed))[0] for seed in range(12)]
        return np.mean([np.diff(track.joints[:, Joint.SPINE_MID], n=2, axis=0).std() for track in tracks])

    assert jitter(2.0) > 1.5 * jitter(0.0)


def test_faults_occur_and_are_rare(many_tracks):
    people, _, recordings = many_tracks
    frames = len(people[0])
    counts = {"late": 0, "gap": 0, "new id": 0, "false body": 0, "clean": 0}
    for tracks in recordings:
        somebody = np.any([track.present for track in tracks], axis=0)
        bodies = [track for track in tracks if track.joints[:, :, 1].std() > 0.2]
        flat = [
            np.ptp(track.joints[..., 0], axis=1).mean() > 0.8 * np.ptp(track.joints[..., 1], axis=1).mean()
            for track in tracks
        ]
        assert len({track.body_id for track in tracks}) == len(tracks)
        assert all(track.body_id > FIRST_BODY_ID for track in tracks)
        late = not somebody[0]
        person = np.any([track.present for track in bodies], axis=0)
        gap = not person[np.argmax(person) :].all()
        counts["late"] += late
        counts["gap"] += gap
        counts["new id"] += len(bodies) > 1
        counts["false body"] += any(flat)
        counts["clean"] += len(tracks) == 1 and person.all()
        assert person.sum() > 0.6 * frames
    for fault, low, high in (("late", 5, 40), ("gap", 15, 70), ("new id", 1, 25), ("false body", 5, 40)):
        assert low <= counts[fault] <= high, counts
    assert counts["clean"] > 180


def test_written_files_are_read_back_exactly(tmp_path):
    rng = np.random.default_rng(1)
    joints = (rng.normal(size=(6, 25, 3)) * [1, 1, 0.1] + [0, 0, 3]).astype(np.float32)
    joints[2, 3] = [1e-7, -3e-5, 2.0]  # written with an exponent
    state = rng.integers(1, 3, (6, 25)).astype(np.int8)
    first = Track(FIRST_BODY_ID + 1, joints, state, np.array([0, 1, 1, 1, 0, 1], bool))
    second = Track(FIRST_BODY_ID + 2, joints[::-1] + np.float32(0.5), state, np.array([0, 0, 0, 1, 1, 0], bool))
    path = tmp_path / "S001C001P001R001A001.skeleton"
    path.write_bytes(skeleton_text([first, second]))
    recording = read_skeleton(path, keep=["tracking_state"])
    assert recording.body_ids.tolist() == [FIRST_BODY_ID + 1, FIRST_BODY_ID + 2]  # these ids are equal in float64
    for person, track in enumerate((first, second)):
        np.testing.assert_array_equal(recording.present[:, person], track.present)
        there = track.present
        np.testing.assert_array_equal(recording.keypoints[there, person], track.joints[there])
        np.testing.assert_array_equal(recording.tracking_state[there, person], track.state[there])


def test_written_files_have_the_columns_of_a_real_file(real_data):
    def first_joint(text):
        lines = text.splitlines()
        start = next(index for index, line in enumerate(lines) if line.strip() == "25")
        return np.array(lines[start + 1].split(), dtype=float), len(lines[start - 1].split())

    real = (real_data / "ntu_rgbd/skeletons/S001C001P001R001A001.skeleton").read_text()
    simulated = next(iter(record(0, 1, 23, 1).values())).decode()
    for text in (real, simulated):
        columns, info = first_joint(text)
        assert len(columns) == 12 and info == 10
        x, y, z, depth_x, depth_y, color_x, color_y = columns[:7]
        # The same pinhole model of the depth camera fits both to a few pixels.
        np.testing.assert_allclose([256.4 + 366.4 * x / z, 208.5 - 366.4 * y / z], [depth_x, depth_y], atol=3)
        np.testing.assert_allclose([956 + (1057 * x + 70) / z, 567 - 1057 * y / z], [color_x, color_y], atol=12)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    arguments = {"performers": 2, "replications": 1, "actions": (23, 58), "seed": 3}
    simulate(tmp_path / "one", num_proc=1, **arguments)
    summary = simulate(tmp_path / "two", num_proc=2, **arguments)
    names = sorted(path.name for path in (tmp_path / "one").glob("*.skeleton"))
    assert len(names) == 12 == summary["recordings"]
    for name in [*names, "simulation.json", "SIMULATED.txt"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "SIMULATED" in (tmp_path / "one" / "SIMULATED.txt").read_text()
    assert json.loads((tmp_path / "one" / "simulation.json").read_text())["seed"] == 3
    other_seed = record(4, 1, 23, 1)
    assert all((tmp_path / "one" / name).read_bytes() != text for name, text in other_seed.items())


def test_a_second_run_writes_only_missing_files(tmp_path):
    arguments = {"performers": 1, "replications": 1, "actions": (38,), "num_proc": 1}
    simulate(tmp_path, **arguments)
    files = {path: path.read_bytes() for path in tmp_path.glob("*.skeleton")}
    gone, kept, _ = files
    stamp = kept.stat().st_mtime_ns
    gone.unlink()
    (tmp_path / f".{gone.name}.77").write_bytes(b"half")  # left behind by a killed run
    simulate(tmp_path, **arguments)
    assert gone.read_bytes() == files[gone]
    assert kept.stat().st_mtime_ns == stamp
    with pytest.raises(SimulationFolderError, match="other settings: expected seed 1, found seed 0"):
        simulate(tmp_path, seed=1, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"performers": 0}, "performers must be 1 to 40"),
        ({"performers": 41}, "performers must be 1 to 40"),
        ({"replications": 0}, "replications must be at least 1"),
        ({"actions": (1, 23)}, r"actions must be ids out of .*got \[1\]"),
        ({"actions": ()}, "got none"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "x", num_proc=1, **arguments)
    assert not (tmp_path / "x").exists()


def test_command_line(tmp_path, monkeypatch, capsys):
    folder = str(tmp_path / "out")
    monkeypatch.setattr(
        "sys.argv", ["simulate", "--output", folder, "--performers", "1", "--actions", "31", "--num_proc", "1"]
    )
    main()
    assert "6 simulated recordings" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["simulate", "--output", folder, "--performers", "99"])
    with pytest.raises(SystemExit):
        main()
    assert "performers must be 1 to 40" in capsys.readouterr().err


def test_protocols_of_ntu_60_split_simulated_performers():
    names = [
        parse_ntu_name(file_name(performer, action, replication, camera).removesuffix(".skeleton"))
        for performer in range(1, 17)
        for action in SIMULATED_ACTION_IDS
        for replication in (1, 2)
        for camera in (1, 2, 3)
    ]
    assert len({str(name) for name in names}) == 16 * len(SIMULATED_ACTION_IDS) * 6
    for protocol in ("simulated-xsub", "simulated-xview"):
        placements = [(name, NTU_PROTOCOLS[protocol].place(name)) for name in names]
        for split in ("train", "test"):
            there = [name for name, placement in placements if placement.split == split]
            assert {name.action for name in there} == set(SIMULATED_ACTION_IDS)
            assert len(there) > 0.3 * len(names)
        held_out = {name.performer for name, placement in placements if placement.held_out}
        assert len(held_out) == 2
        assert all(placement.split == "train" for _, placement in placements if placement.held_out)


def test_each_performer_has_their_own_partner():
    """Both bodies of a mutual action belong to one performer number, so no body is in both splits of X-Sub."""
    partners = []
    for number in (1, 2, 3):
        first, second = perform(0, number, 58, 1)
        partners.append(np.linalg.norm(second[0, Joint.HIP_LEFT] - second[0, Joint.KNEE_LEFT]))
        assert not np.allclose(first[0], second[0])
    assert len(set(np.round(partners, 9))) == 3


def test_files_do_not_name_local_paths(tmp_path):
    simulate(tmp_path, performers=1, replications=1, actions=(37,), num_proc=1)
    for path in (tmp_path / "simulation.json", tmp_path / "SIMULATED.txt"):
        assert not re.search(str(tmp_path), path.read_text())


def test_a_folder_of_recordings_is_refused(tmp_path):
    (tmp_path / "S001C001P001R001A006.skeleton").write_text("recorded")
    with pytest.raises(SimulationFolderError, match=r"holds \.skeleton files that are not simulated"):
        simulate(tmp_path, performers=1, replications=1, actions=[10], num_proc=1)
    assert [path.name for path in tmp_path.iterdir()] == ["S001C001P001R001A006.skeleton"]
