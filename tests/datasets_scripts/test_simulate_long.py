"""Simulated long videos: when the body moves, what is written and loaded, and what a second run does."""

import csv
import json
from collections import Counter
from itertools import pairwise

import av
import numpy as np
import pytest

from action_llm.video_files import read_video_info
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.protocols import NTU_PROTOCOLS, ntu_class_names
from action_llm_datasets.simulation.actions import SINGLE_ACTIONS
from action_llm_datasets.simulation.people import FRAME_RATE, Joint, Take, draw_person
from action_llm_datasets.simulation.simulate import SimulationFolderError, simulate
from action_llm_datasets.simulation.simulate_long import (
    LONG_ACTIONS,
    main,
    perform_long,
    simulate_long,
    split_of,
    turn_of,
    video_name,
)
from action_llm_datasets.timelines import read_timeline

# Performers 1 and 4 are in train, 5 is held out, and 3 is in test.
ARGUMENTS = {"performers": 5, "videos": 2, "still": (0.5, 1.0), "size": 48, "seed": 3, "num_proc": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long") / "videos"
    simulate_long(folder, **ARGUMENTS)
    return folder


def speeds(joints):
    """Speed of every joint from each frame to the next, (T - 1, 25), in metres per second."""
    return FRAME_RATE * np.linalg.norm(np.diff(joints, axis=0), axis=-1)


def frames_of(segment):
    return round(segment.start * FRAME_RATE), round(segment.end * FRAME_RATE)


def test_actions_begin_and_end_upright():
    upright = []
    for action, act in SINGLE_ACTIONS.items():
        heights = []
        for number in range(1, 9):
            person = draw_person(0, number)
            take = Take(person, np.random.default_rng([1, number]), np.random.default_rng([2, number]))
            heights += list(act(take).solve()[[0, -1], Joint.SPINE_BASE, 1] / person.pelvis_height)
        if min(heights) > 0.9:
            upright.append(action)
    assert tuple(upright) == LONG_ACTIONS


@pytest.mark.parametrize("arguments", [{}, {"actions_per_video": 4}, {"actions_per_video": None, "minutes": 0.5}])
def test_the_body_moves_in_the_spans(arguments):
    for performer in (1, 2, 7):
        joints, segments = perform_long(0, performer, 1, still=(1.0, 2.0), **arguments)
        speed, doing = speeds(joints), np.zeros(len(joints) - 1, bool)
        for segment in segments:
            start, end = frames_of(segment)
            doing[start - 1 : end] = True
            assert speed[start - 1 : end].max() > 0.5
            # The movement starts and ends within half a second of the borders of the span.
            peak = speed[start - 1 : end].max(axis=1)
            assert peak[:15].max() > 0.2 and peak[-15:].max() > 0.2
        assert speed[~doing].max() < 0.05 and speed[doing].mean() > 20 * speed[~doing].mean()
        # The body also sways between actions: no two frames are equal.
        assert speed[:, Joint.HEAD].min() > 0


def test_the_body_stands_between_actions_for_the_given_time():
    joints, segments = perform_long(0, 6, 1, actions_per_video=20, still=(0.4, 1.5))
    ends = [(0, 0), *map(frames_of, segments), (len(joints), 0)]
    still = [(before[1], after[0]) for before, after in pairwise(ends)]
    seconds = np.array([stop - start for start, stop in still]) / FRAME_RATE
    assert len(seconds) == 21 and seconds.min() >= 0.38 and seconds.max() <= 1.52 and np.ptp(seconds) > 0.5
    poses = np.concatenate([joints[start:stop] for start, stop in still])
    away = poses - np.median(poses, axis=0)
    assert 0.001 < away[:, Joint.SPINE_BASE].std(axis=0).max() < 0.008 and np.abs(away).max() < 0.04
    assert np.abs(away[:, [Joint.FOOT_LEFT, Joint.FOOT_RIGHT]]).max() < 0.002
    # Poses change without jumps.
    change = np.abs(np.diff(speeds(joints), axis=0)).max(axis=1)
    borders = [frame + shift for segment in segments for frame in frames_of(segment) for shift in (-2, -1, 0)]
    assert change[borders].max() < 0.5


def test_the_whole_person_is_visible():
    """The body is in front of the camera and upright, with the head above the feet."""
    for performer in range(1, 9):
        joints, _ = perform_long(0, performer, 1)
        assert joints[..., 2].min() > 2.0 and joints[..., 2].max() < 5.0
        height = joints[0, Joint.HEAD, 1] - joints[0, [Joint.FOOT_LEFT, Joint.FOOT_RIGHT], 1].mean()
        assert height == pytest.approx(0.88 * draw_person(0, performer).stature, rel=0.1)


def test_random_videos_differ():
    (first, segments), (second, other), (again, same) = (
        perform_long(0, 1, video, actions_per_video=5) for video in (1, 2, 1)
    )
    assert segments == same and np.array_equal(first, again)
    assert [segment.label for segment in segments] != [segment.label for segment in other]
    assert len({segment.label for segment in segments}) == 5  # no action repeats before all were drawn
    assert first.shape != second.shape or not np.allclose(first, second)


def test_minutes_set_the_length():
    joints, segments = perform_long(0, 1, 1, actions_per_video=None, minutes=0.7)
    assert len(joints) == 0.7 * 60 * FRAME_RATE
    assert len(segments) >= 3 and segments[-1].end <= 42 - 2
    assert 42 - segments[-1].end < 6 + 6 + 10.8  # another action would not fit
    short, none = perform_long(0, 1, 1, actions_per_video=None, minutes=0.02)
    assert len(short) == 36 and none == []


def test_classes_are_balanced():
    for performer in (1, 3, 40):
        assert sorted(turn_of(performer, video) for video in range(4, 18)) == sorted(LONG_ACTIONS)
    for performers, videos in ((16, 4), (40, 2), (40, 7)):
        for split in ("train", "test"):
            members = [number for number in range(1, performers + 1) if split_of(number) == split]
            counts = Counter(turn_of(number, video) for number in members for video in range(1, videos + 1))
            assert set(counts) == set(LONG_ACTIONS) and max(counts.values()) - min(counts.values()) <= 2
    protocol = NTU_PROTOCOLS["simulated-xsub"]
    assert {number for number in range(1, 41) if split_of(number) == "test"} == protocol.test
    assert {number for number in range(1, 41) if split_of(number) == "validation"} == protocol.held_out


def test_videos_load_as_a_folder(folder, tmp_path):
    splits = load_action_dataset("folder-video", folder, cache_dir=tmp_path)
    names = [ntu_class_names()[action - 1] for action in LONG_ACTIONS]
    rows = {row["video"]: (split, row) for split in splits for row in splits[split]}
    assert sorted(rows) == [video_name(performer, video) for performer in range(1, 6) for video in (1, 2)]
    timeline = read_timeline(folder / "timeline.csv")
    for performer in range(1, 6):
        for video in (1, 2):
            split, row = rows[video_name(performer, video)]
            assert (split, row["held_out"]) == ("test" if performer == 3 else "train", performer == 5)
            assert names[row["label"]] == ntu_class_names()[turn_of(performer, video) - 1]
            assert row["person"] == performer
            (segment,) = timeline[row["video"]]
            assert segment.label == names[row["label"]] and row["video_fps"] == 30
            assert 0.46 <= segment.start <= 1.04 and 0.46 <= row["seconds"] - segment.end <= 1.04
    assert splits["train"].features["label"].names == names


def test_frames_show_the_person_at_one_scale(folder):
    name = video_name(2, 1)
    ((start, _),) = (frames_of(segment) for segment in read_timeline(folder / "timeline.csv")[name])
    with av.open(str(folder / name)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)
    assert len(frames) == len(perform_long(3, 2, 1, still=(0.5, 1.0))[0])
    ink = np.abs(frames - frames[0, 0, 0]).max(-1) > 60
    assert ink.mean((1, 2)).min() > 0.02 and ink.mean((1, 2)).max() < 0.3
    rows = np.flatnonzero(ink[0].any(axis=1))
    assert np.ptp(rows) > 0.6 * 48  # fills most of the height
    # Before and after the action, pictures differ only by the sway; during the action, they differ more.
    change = np.abs(frames - frames[0]).mean((1, 2, 3))
    assert max(change[:start].max(), change[-10:].max()) < 0.5 * change.max()


@pytest.mark.slow
def test_the_same_arguments_give_the_same_bytes(folder, tmp_path):
    simulate_long(tmp_path, **ARGUMENTS | {"num_proc": 2})
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == names and len(names) == 10 + 5
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    assert b"SIMULATED VIDEOS" in (folder / "SIMULATED.txt").read_bytes()


def test_a_second_run_draws_missing_and_further_videos(folder, tmp_path):
    few = ARGUMENTS | {"performers": 2, "videos": 1}
    simulate_long(tmp_path, **few)
    lost, kept = (tmp_path / video_name(performer, 1) for performer in (1, 2))
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    simulate_long(tmp_path, **few | {"videos": 2})
    assert kept.stat().st_mtime_ns == stamp
    for path in tmp_path.glob("*.mp4"):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert len(read_timeline(tmp_path / "timeline.csv")) == 4
    assert json.loads((tmp_path / "simulation.json").read_text())["videos"] == 2
    for other in ({"seed": 4}, {"size": 32}, {"still": (0.5, 2.0)}, {"actions_per_video": 2}):
        with pytest.raises(
            SimulationFolderError, match=f"other settings: expected {next(iter(other))} .*, found {next(iter(other))} "
        ):
            simulate_long(tmp_path, **few | other)


def test_a_folder_of_other_files_is_refused(simulated, tmp_path):
    (tmp_path / "holiday.mp4").write_bytes(b"recorded")
    with pytest.raises(SimulationFolderError, match=r"holds \.mp4 files that are not simulated"):
        simulate_long(tmp_path, **ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]
    (tmp_path / "skeletons").mkdir()
    simulate(tmp_path / "skeletons", performers=1, replications=1, actions=(38,), num_proc=1)
    with pytest.raises(SimulationFolderError, match=r"found generator 'action_llm_datasets\.simulate'"):
        simulate_long(tmp_path / "skeletons", **ARGUMENTS)


def test_videos_of_several_actions_have_a_timeline_and_one_class(tmp_path):
    arguments = ARGUMENTS | {"performers": 1, "videos": 1, "size": 32}
    simulate_long(tmp_path / "many", actions_per_video=3, **arguments)
    simulate_long(tmp_path / "minutes", minutes=0.3, **arguments)
    for name in ("many", "minutes"):
        there = {path.name for path in (tmp_path / name).iterdir()}
        tables = {"timeline.csv", "metadata.csv", "skeleton.json"}
        assert there == {"P001_V001.mp4", "SIMULATED.txt", "simulation.json"} | tables
        with open(tmp_path / name / "metadata.csv", newline="") as file:
            assert [row["label"] for row in csv.DictReader(file)] == ["several actions"]
    assert len(read_timeline(tmp_path / "many" / "timeline.csv")["P001_V001.mp4"]) == 3
    assert read_video_info(tmp_path / "minutes" / "P001_V001.mp4").seconds == pytest.approx(18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"performers": 41}, r"performers must be 1 to 40, .*; got 41"),
        ({"videos": 0}, r"videos must be at least 1; got 0"),
        ({"actions_per_video": 0}, r"actions_per_video must be at least 1; got 0"),
        ({"actions_per_video": 1, "minutes": 2}, r"set actions_per_video or minutes, not both; got 1 and 2"),
        ({"minutes": 0}, r"minutes must be a positive number; got 0"),
        ({"minutes": float("nan")}, r"minutes must be a positive number; got nan"),
        ({"still": (3, 2)}, r"still must be two positive numbers of seconds, the smaller first; got \[3, 2\]"),
        ({"still": (0, 2)}, r"still must be two positive numbers"),
        ({"still": (2,)}, r"still must be two positive numbers"),
        ({"size": 33}, r"size must be an even number of at least 16; got 33"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_long(tmp_path / "x", **arguments)
    assert not (tmp_path / "x").exists()


def test_command_line(tmp_path, monkeypatch, capsys):
    command = [
        "simulate_long",
        "--output",
        str(tmp_path / "out"),
        "--performers",
        "1",
        "--videos",
        "1",
        "--size",
        "32",
    ]
    monkeypatch.setattr("sys.argv", [*command, "--still", "0.5", "1", "--num_proc", "1"])
    main()
    assert "1 simulated long videos in" in capsys.readouterr().out
    with open(tmp_path / "out" / "metadata.csv", newline="") as file:
        assert next(csv.DictReader(file)) == {
            "file_name": "P001_V001.mp4",
            "label": "pickup",
            "split": "train",
            "person": "1",
        }
    monkeypatch.setattr("sys.argv", [*command, "--minutes", "1", "--actions_per_video", "2"])
    with pytest.raises(SystemExit):
        main()
    assert "set actions_per_video or minutes, not both" in capsys.readouterr().err
