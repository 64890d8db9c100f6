"""Doubts about a data set: when they are raised, and where they are shown."""

import json
import logging
import unicodedata
import zipfile

import numpy as np
import pytest
from fresh_python import python
from PIL import Image
from skeleton_people import person
from tiny_videos import tiny_video

from action_llm_datasets.building import DataFolderError, Tally
from action_llm_datasets.doubts import UsedFile, doubt_lines, doubts_of_contents, doubts_of_labels, missing_doubt
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.ntu import NTUSkeletons
from action_llm_datasets.prepare import prepare
from action_llm_datasets.utd_mhad import UTDMHAD


def used(*files):
    """Used files from (file, part, label, content); files without a content all differ."""
    return [UsedFile(*file, *[file[0]][: 4 - len(file)]) for file in files]


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (("Wave", "wave"), "case: 'Wave' (1), 'wave' (2)"),
        (("STRASSE", "straße"), "case: 'STRASSE' (1), 'straße' (2)"),
        (("sit down", "sit  down"), "spaces: 'sit down' (1), 'sit  down' (2)"),
        (("sit down", "sit\u00a0down"), "spaces: "),
        (("bücken", unicodedata.normalize("NFD", "bücken")), r"Unicode form: 'b\xfccken' (1), 'bu\u0308cken' (2)"),
        (("Bücken", unicodedata.normalize("NFD", "bücken")), "case, spaces or Unicode form: "),
    ],
)
def test_similar_class_names(names, difference):
    files = used(("a", "train", 0), ("b", "train", 1), ("c", "train", 1), ("d", "train", 2))
    (doubt,) = doubts_of_labels(files, [*names, "fall"])
    assert doubt["kind"] == "class names" and doubt["files"] == ["a"]  # the files with the rarer spelling
    assert doubt["reason"].startswith(f"2 classes differ only in {difference}")


def test_different_class_names():
    files = used(*((str(label), "train", label) for label in range(4)))
    assert doubts_of_labels(files, ["wave", "waves", "wave 2", "Wave"][:3]) == []
    # A class without recordings raises no doubt.
    assert doubts_of_labels(files[:3], ["wave", "waves", "wave 2", "Wave"]) == []


def test_classes_without_a_training_recording():
    files = used(("a", "train", 0), ("b", "test", 1), ("c", "held_out", 1), ("d", "test", 0), ("e", "train", 2))
    (doubt,) = doubts_of_labels(files, ["wave", "sit", "only trained"])
    assert doubt["files"] == ["b", "c"]
    assert doubt["reason"] == "'sit' has no training recording (test: 1, held_out: 1)"
    # Configs of unseen classes and folders of test recordings have no training recordings at all.
    assert doubts_of_labels(files[1:2], ["wave", "sit", "only trained"]) == []


def test_duplicate_recordings():
    files = used(
        ("a", "train", 0, "x"), ("b", "test", 0, "x"), ("c", "train", 0, "y"), ("d", "train", 1, "y"), ("e", "test", 1),
        ("f", "held_out", 1, "z"), ("g", "train", 1, "z"),
    )  # fmt: skip
    assert doubts_of_contents(files, ["wave", "fall"]) == [
        {
            "kind": "same recording in two splits",
            "reason": "the same recording is in train and test",
            "files": ["a", "b"],
        },
        {
            "kind": "same recording twice",
            "reason": "the same recording is 2 times in train, as 'wave' and 'fall'",
            "files": ["c", "d"],
        },
        {
            "kind": "same recording in two splits",
            "reason": "the same recording is in train and held_out",
            "files": ["f", "g"],
        },
    ]


def test_lines_are_short_and_count_everything():
    doubts = [{"kind": "odd", "reason": f"reason {number}", "files": list("abcdefg")} for number in range(7)]
    (line,) = doubt_lines(doubts)
    assert line.startswith("odd: reason 0 (a, b, c, d, e … and 2 more, listed in preparation.json); reason 1 (")
    assert line.endswith(" … and 2 more, listed in preparation.json") and "reason 5" not in line
    assert doubt_lines([{"kind": "b", "reason": "x", "files": []}, {"kind": "a", "reason": "y", "files": []}]) == [
        "a: y",
        "b: x",
    ]


def test_missing_recordings_of_a_published_data_set():
    doubt = missing_doubt(69, 56578, {"setup": set(range(2, 18)), "camera": {3}, "performer": set()})
    assert doubt["reason"] == (
        "56,509 of 56,578 published recordings are not in the folder; no file of setups 2–17, camera 3"
    )
    assert missing_doubt(1, 2, {})["reason"] == "1 of 2 published recordings are not in the folder"


def test_an_incomplete_folder_of_ntu(tmp_path, simulated, caplog):
    """All but four recordings are missing: the record, the report, the card and the log say so."""
    source = tmp_path / "source"
    source.mkdir()
    names = {"S001C001P001R001A010": "S001C001P001R001A010", "S001C002P001R001A010": "S001C002P001R001A010"}
    for name, of in (names | {"S001C001P003R001A010": "S003C001P003R001A010"}).items():
        (source / f"{name}.skeleton").write_bytes((simulated / f"{of}.skeleton").read_bytes())
    (source / "S001C001P002R001A023.skeleton").write_text("broken")  # present, but unreadable
    account = prepare("ntu60-xsub", source, tmp_path / "out", num_proc=1)["ntu60-xsub"]
    (doubt,) = account["doubts"]
    expected = "56,574 of 56,578 published recordings are not in the folder; no file of setups 2–17, camera 3, performers 4–40"
    assert doubt == {"kind": "missing", "reason": expected, "files": []}
    line = f"missing: {expected}"
    assert json.loads((tmp_path / "out" / "preparation.json").read_text())["ntu60-xsub"]["doubts"] == [doubt]
    assert f'<li class="off">{line}</li>' in (tmp_path / "out" / "report.html").read_text()
    assert f"## To check\n\n- ntu60-xsub: {line}\n" in (tmp_path / "out" / "README.md").read_text()
    with caplog.at_level(logging.INFO):
        load_action_dataset("ntu60-xsub", source, cache_dir=tmp_path / "cache")
    assert f"ntu60-xsub: {line}" in caplog.messages


@pytest.mark.slow
def test_the_command_reports_missing_recordings(tmp_path, simulated):
    source = tmp_path / "source"
    source.mkdir()
    name = "S001C001P001R001A010.skeleton"
    (source / name).write_bytes((simulated / name).read_bytes())
    command = ["-m", "action_llm_datasets.prepare", "ntu60-xsub", "--source", source, "--output", tmp_path / "out"]
    done = python(*command, "--num_proc", "1")
    assert "ntu60-xsub: missing: 56,577 of 56,578" in done.stdout and "left out: nothing" not in done.stdout
    assert "left out: none of the files that are there" in done.stdout


def test_unseen_classes_raise_no_doubt(simulated, tmp_path):
    accounts = prepare("simulated-unseen", simulated, tmp_path / "out", num_proc=1)
    categories = {doubt["kind"] for account in accounts.values() for doubt in account["doubts"]}
    assert categories <= {"empty frames"}
    assert "no training recording" not in (tmp_path / "out" / "README.md").read_text()


def test_published_fields_of_a_part_of_a_protocol(simulated, tmp_path):
    """Unseen classes are expected of test performers only, seen classes of training performers only."""
    name = "S001C001P001R001A010.skeleton"
    (tmp_path / name).write_bytes((simulated / name).read_bytes())
    expected = {}
    for part in ("seen", "unseen"):
        builder = NTUSkeletons(config_name=f"ntu60-zero-shot-55-5-{part}", data_dir=tmp_path)
        expected[part] = set(builder.published_fields()["performer"])
    assert expected["seen"] == set(builder.protocol.train) and expected["unseen"] == set(builder.protocol.test)


def test_duplicate_videos(tmp_path):
    rows = ["file_name,label,split"]
    for name, split, frames in (("a", "train", 6), ("b", "test", 6), ("c", "train", 7), ("d", "test", 8)):
        (tmp_path / f"{name}.mp4").write_bytes(tiny_video(frames))
        rows.append(f"{name}.mp4,wave,{split}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    (doubt,) = prepare("folder-video", tmp_path, tmp_path / "out", num_proc=1)["folder-video"]["doubts"]
    assert (doubt["kind"], doubt["files"]) == ("same recording in two splits", ["a.mp4", "b.mp4"])


@pytest.mark.parametrize("archive", [False, True])
def test_videos_that_differ_only_in_the_middle_are_no_duplicates(tmp_path, archive):
    """Their sizes and ends are equal; real copies are still detected."""
    folder, where = tmp_path / "in", "videos.zip/" if archive else ""
    folder.mkdir()
    rows, files = ["file_name,label,split"], {}
    for name, split, middle in (("a", "train", 1), ("b", "test", 2), ("c", "test", 1)):
        unused = bytes(100_000) + bytes([middle]) + bytes(100_000)
        files[f"{name}.mp4"] = tiny_video(6) + (len(unused) + 8).to_bytes(4, "big") + b"free" + unused
        rows.append(f"{where}{name}.mp4,wave,{split}")
    for name, split, middle in (("d", "train", 40), ("e", "test", 90), ("f", "test", 40)):
        (folder / name).mkdir()
        for number, grey in enumerate((7, middle, 7)):
            Image.new("RGB", (32, 24), (grey,) * 3).save(folder / name / f"{number}.bmp")
        rows.append(f"{name},wave,{split}")
    if archive:
        with zipfile.ZipFile(folder / "videos.zip", "w") as opened:
            for name, content in files.items():
                opened.writestr(name, content)
    else:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "skeleton.json").write_text('{"fps": 12}')
    account = prepare("folder-video", folder, tmp_path / "out", num_proc=1)["folder-video"]
    assert account["files"] == []
    accused = [doubt["files"] for doubt in account["doubts"]]
    assert sorted(accused) == sorted([[f"{where}a.mp4", f"{where}c.mp4"], ["d", "f"]])


def test_duplicates_in_two_file_formats(tmp_path):
    body = person(9, "kinect20")
    np.save(tmp_path / "a.npy", body)
    np.savez(tmp_path / "b.npz", keypoints=body)
    np.save(tmp_path / "c.npy", np.nextafter(body, 1))
    rows = ["a.npy,wave,train", "b.npz,wave,test", "c.npy,wave,test"]
    (tmp_path / "metadata.csv").write_text("file_name,label,split\n" + "\n".join(rows))
    (tmp_path / "skeleton.json").write_text('{"layout": "kinect20", "fps": 30}')
    doubts = prepare("folder", tmp_path, tmp_path / "out", num_proc=1)["folder"]["doubts"]
    (doubt,) = [doubt for doubt in doubts if doubt["kind"].startswith("same recording")]
    assert doubt["files"] == ["a.npy", "b.npz"]


def test_a_tally_survives_json():
    tally = Tally("train", used=used(("a", "train", 0, "x")))
    assert Tally(**json.loads(tally.to_json())).used == tally.used


@pytest.mark.real_data
def test_real_data_sets(real_data, tmp_path):
    """UTD-MHAD is complete and without duplicates; the example folders have their known doubts."""
    builder = UTDMHAD(config_name="utd-mhad", data_dir=real_data / "utd_mhad", cache_dir=str(tmp_path))
    builder.download_and_prepare()
    assert builder.report["doubts"] == []
    cases = {"d05_label_case_unicode": ["class names", "class names", "untrained class", "untrained class"]}
    cases |= {
        "d06_test_only_class": ["untrained class"],
        "d08_same_recording_both_splits": ["same recording in two splits"],
    }
    for case, expected in cases.items():
        load_action_dataset("folder", real_data / "cases" / case, cache_dir=tmp_path / case)
        report = json.loads(next((tmp_path / case).rglob("preparation.json")).read_text())
        actual = [doubt["kind"] for doubt in report["doubts"] if doubt["kind"] != "frame rate"]
        assert actual[: len(expected)] == expected
    assert report["doubts"][0]["files"] == ["a.npy", "b.npy"]


# ------------------------------------------------------------------------------------------ joints


def skeleton_folder(root, layout="kinect20-sdk", stated="kinect20", turned=None, count=6, **common):
    """A folder of bodies in `layout` whose skeleton.json names the layout `stated`."""
    root.mkdir()
    rows = ["file_name,label,split"]
    for number in range(count):
        body = person(20, layout, seed=number, yaw=20 * number, activity=0.05)
        np.save(root / f"{number}.npy", body if turned is None else body @ turned)
        rows.append(f"{number}.npy,{'wave' if number % 2 else 'fall'},{'test' if number > 3 else 'train'}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    (root / "skeleton.json").write_text(json.dumps({"layout": stated, "fps": 30, **common}))
    return root


def test_joints_in_another_order_stop_the_build_unless_they_are_accepted(tmp_path):
    root = skeleton_folder(tmp_path / "mine")
    message = (
        r"look like those of the layout kinect20-sdk, not of kinect20: set the layout to kinect20-sdk \(6 of 6 rec"
    )
    with pytest.raises(DataFolderError, match=message):
        load_action_dataset("folder", root, cache_dir=tmp_path / "cache")
    with pytest.raises(DataFolderError, match=message + r"ordings\), for example 0\.npy\. Set accept_doubts"):
        prepare("folder", root, tmp_path / "out", num_proc=1)
    account = prepare("folder", root, tmp_path / "out", num_proc=1, accept_doubts=True)["folder"]
    (doubt,) = account["doubts"]
    assert doubt["kind"] == "joint order" and doubt["files"] == [f"{number}.npy" for number in range(6)]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How the joints are read" in page and 'src="report-folder-joints.png"' in page
    assert (tmp_path / "out" / "report-folder-joints.png").stat().st_size > 10_000
    (root / "skeleton.json").write_text('{"layout": "kinect20-sdk", "fps": 30}')
    assert prepare("folder", root, tmp_path / "right", num_proc=1)["folder"]["doubts"] == []


def test_another_vertical_axis_is_reported_and_rotated(tmp_path):
    z_up = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)  # y becomes z
    root = skeleton_folder(tmp_path / "mine", "kinect20", turned=z_up)
    with pytest.raises(DataFolderError, match=r'set "up": "z" in skeleton\.json'):
        load_action_dataset("folder", root, cache_dir=tmp_path / "cache")
    (root / "skeleton.json").write_text('{"layout": "kinect20", "fps": 30, "up": "z"}')
    row = load_action_dataset("folder", root, cache_dir=tmp_path / "cache")["train"][0]
    body = person(20, "kinect20", seed=0, activity=0.05)
    np.testing.assert_allclose(np.reshape(row["keypoints"], row["shape"])[:, 0], body, atol=1e-6)
    assert row["up"] == "z"  # a model reads new files in the same way
    for wrong in ("up", 5, ["z"]):
        (root / "skeleton.json").write_text(json.dumps({"layout": "kinect20", "up": wrong}))
        with pytest.raises(DataFolderError, match=r"skeleton\.json: up: expected one of y, -y, z, -z"):
            load_action_dataset("folder", root, cache_dir=tmp_path / "cache")


def test_an_assumed_frame_rate_raises_a_doubt(tmp_path):
    root = skeleton_folder(tmp_path / "mine", "kinect20")
    (root / "skeleton.json").write_text('{"layout": "kinect20"}')
    (doubt,) = prepare("folder", root, tmp_path / "out", num_proc=1)["folder"]["doubts"]
    assert doubt["kind"] == "frame rate" and "taken to be 30 frames per second" in doubt["reason"]
    rows = (root / "metadata.csv").read_text().replace("split\n", "split,fps\n").replace("train\n", "train,15\n")
    (root / "metadata.csv").write_text(rows.replace("test\n", "test,15\n"))
    assert prepare("folder", root, tmp_path / "with rates", num_proc=1)["folder"]["doubts"] == []


@pytest.mark.slow
def test_the_folder_command_refuses_implausible_joints(tmp_path):
    root = skeleton_folder(tmp_path / "mine")
    for name in ("metadata.csv", "skeleton.json"):
        (root / name).unlink()
    command = ["-m", "action_llm_datasets.folder", root, "--pattern", r"(?P<label>\d)\.npy", "--fps", "30"]
    refused = python(*command, "--layout", "kinect20")
    assert refused.returncode == 2 and "set the layout to kinect20-sdk (6 of 6 recordings)" in refused.stderr
    assert not (root / "metadata.csv").exists() and not (root / "skeleton.json").exists()
    accepted = python(*command, "--layout", "kinect20", "--accept_doubts")
    assert accepted.returncode == 0 and json.loads((root / "skeleton.json").read_text())["layout"] == "kinect20"
    right = python(*command, "--layout", "kinect20-sdk", "--overwrite")
    assert right.returncode == 0 and not right.stderr


def test_the_folder_command_reports_unreadable_recordings(tmp_path):
    from action_llm_datasets.folder import doubts_of_recordings

    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.zeros((3, 60, 20, 1)))
    with pytest.raises(
        ValueError, match=r"none of the 3 recordings that were checked can be read; for example .*ST-GCN"
    ):
        doubts_of_recordings(tmp_path, "kinect20")


@pytest.mark.parametrize("names", [("1", "01"), ("1", "1.0"), ("hand wave", "hand_wave"), ("hand-wave", "hand wave")])
def test_class_names_that_differ_in_separators_or_numbers(names):
    files = used(("a", "train", 0), ("b", "train", 1), ("c", "train", 2))
    (doubt,) = doubts_of_labels(files, [*names, "fall"])
    assert "differ only in case, separators or the way numbers are written" in doubt["reason"]
    assert doubts_of_labels(files, ["1", "2", "10"]) == []


def test_people_in_both_splits(tmp_path):
    root = skeleton_folder(tmp_path / "mine", "kinect20")
    rows = (root / "metadata.csv").read_text().splitlines()
    people = ["person", "3", "3", "4", "5", "3", "6"]
    (root / "metadata.csv").write_text("\n".join(f"{row},{who}" for row, who in zip(rows, people, strict=True)) + "\n")
    (doubt,) = prepare("folder", root, tmp_path / "out", num_proc=1)["folder"]["doubts"]
    assert doubt["reason"] == "1 of 4 people by the column person are in train and in test (3)" and doubt["files"] == [
        "4"
    ]
