"""Your own recordings: a folder and a table become a data set, and errors name the line."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fresh_python import python
from skeleton_people import person, skeleton_text, smarthome_text

from action_llm import SkeletonFeatureExtractor
from action_llm.skeleton_layouts import LAYOUTS
from action_llm.smarthome_files import read_smarthome
from action_llm_datasets import folder_builder
from action_llm_datasets.building import DataFolderError
from action_llm_datasets.folder import write_metadata
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.prepare import prepare
from action_llm_datasets.utd_mhad import FACTS

HEADER = "file_name,label,split,camera,note\n"
ROWS = ["a.npy,wave,train,1,x", "more/b.npz,fall,validation,2,y", "c.txt,wave,test,3,", "d.npy,fall,train,4,z"]


@pytest.fixture
def folder(tmp_path):
    """Four recordings of two classes in three formats; returns a function that writes the table."""
    root = tmp_path / "mine"
    (root / "more").mkdir(parents=True)
    bodies = [person(8 + number, "kinect20", seed=number).astype(np.float32) for number in range(4)]
    np.save(root / "a.npy", bodies[0])
    np.savez(root / "more" / "b.npz", keypoints=bodies[1], fps=15.0)
    np.savetxt(root / "c.txt", bodies[2].reshape(-1, 3), fmt="%.9g")
    np.save(root / "d.npy", bodies[3])
    (root / "skeleton.json").write_text('{"layout": "kinect20", "fps": 25}')

    def table(*rows, header=HEADER):
        (root / "metadata.csv").write_text(header + "".join(f"{row}\n" for row in rows), encoding="utf-8")
        return root

    table.bodies = bodies
    return table


def load(root, tmp_path, **options):
    return load_action_dataset("folder", root, cache_dir=tmp_path / "cache", **options)


def report(tmp_path):
    path = next((tmp_path / "cache").rglob("preparation.json"))
    return {entry["file"]: entry for entry in json.loads(path.read_text())["files"]}


def test_files_and_table_become_rows(folder, tmp_path):
    splits = load(folder(*ROWS), tmp_path)
    rows = {row["sample_id"]: row for split in splits.values() for row in split}
    assert list(splits["train"]["sample_id"]) == ["a", "d", "more/b"] and list(splits["test"]["sample_id"]) == ["c"]
    for name, body in zip(("a", "more/b", "c", "d"), folder.bodies, strict=True):
        assert np.array_equal(np.reshape(rows[name]["keypoints"], rows[name]["shape"])[:, 0], body)
    assert [rows[name]["fps"] for name in ("a", "more/b", "c")] == [25, 15, 25]
    assert [name for name, row in rows.items() if row["held_out"]] == ["more/b"]
    names = splits["train"].features["label"].names
    assert names == ["fall", "wave"] and [names[row["label"]] for row in rows.values()] == [
        "wave",
        "fall",
        "fall",
        "wave",
    ]
    assert {name: (row["camera"], row["note"]) for name, row in rows.items()} == {
        "a": (1, "x"), "more/b": (2, "y"), "c": (3, ""), "d": (4, "z"),
    }  # fmt: skip


def test_a_changed_table_is_read_again(folder, tmp_path):
    assert len(load(folder(*ROWS), tmp_path)["test"]) == 1
    assert len(load(folder(*ROWS[:3], ROWS[3].replace("train", "test")), tmp_path)["test"]) == 2


def test_class_names_set_the_label_order(folder, tmp_path):
    root = folder(*ROWS)
    (root / "skeleton.json").write_text('{"layout": "kinect20", "class_names": ["wave", "sit", "fall"]}')
    assert load(root, tmp_path)["train"].features["label"].names == ["wave", "sit", "fall"]
    (root / "skeleton.json").write_text('{"layout": "kinect20", "class_names": ["wave"]}')
    load(root, tmp_path / "other")
    assert "the label 'fall' is not among class_names" in report(tmp_path / "other")["d.npy"]["reason"]
    (root / "skeleton.json").write_text('{"layout": "kinect20", "class_names": ["wave", "Fall"]}')
    load(root, tmp_path / "third")
    assert report(tmp_path / "third")["d.npy"]["reason"].endswith("of skeleton.json; did you mean Fall?")


def test_numeric_labels_are_sorted_as_numbers(folder, tmp_path):
    splits = load(folder("a.npy,10,train,1,", "d.npy,9,test,1,"), tmp_path)
    assert splits["train"].features["label"].names == ["9", "10"]


def test_a_custom_layout_is_stored_in_each_row(folder, tmp_path):
    root = folder(*ROWS)
    own = LAYOUTS["kinect20"].to_dict() | {"name": "mine"}
    (root / "skeleton.json").write_text(json.dumps({"layout": own}))
    row = load(root, tmp_path)["train"].with_format("numpy")[0]
    extractor = SkeletonFeatureExtractor(str(row["layout"]), num_persons=1)
    assert extractor.skeleton_layout.name == "mine"
    expected = SkeletonFeatureExtractor("kinect20", num_persons=1)(folder.bodies[0], return_tensors="np")
    assert np.array_equal(extractor(row, return_tensors="np")["input_features"], expected["input_features"])


def test_unusable_rows_and_files_are_skipped_and_listed(folder, tmp_path):
    root = folder(
        *ROWS,
        "gone.npy,wave,train,1,",
        "a.npy,wave,test,1,",
        "e.npy,,train,1,",
        "f.npy,wave,tset,1,",
        "b2.npy,fall,train,1,,7",
    )
    for name in ("e", "f", "b2", "stranger"):
        np.save(root / f"{name}.npy", folder.bodies[0])
    np.save(root / "d.npy", folder.bodies[0][:, :7])
    load(root, tmp_path)
    skipped = {name: (entry["kind"], entry["reason"]) for name, entry in report(tmp_path).items()}
    assert skipped.pop("gone.npy") == ("missing file", "metadata.csv, line 6: there is no gone.npy")
    assert skipped.pop("a.npy (line 7)") == ("duplicate", "metadata.csv, line 7: a.npy is already in line 2")
    assert skipped.pop("e.npy") == ("label", "metadata.csv, line 8: e.npy has no label")
    assert (
        skipped.pop("f.npy")[1] == "metadata.csv, line 9: expected the split train, test or validation, found 'tset'"
    )
    assert skipped.pop("b2.npy") == ("metadata", "metadata.csv, line 10: 1 more values than columns")
    assert skipped.pop("stranger.npy") == ("not in the table", "stranger.npy has no row in metadata.csv")
    category, reason = skipped.pop("d.npy")
    assert category == "unreadable" and "found float32 (8, 7, 3), expected numbers (frames, 20, 3)" in reason
    assert not skipped


@pytest.mark.parametrize(
    ("header", "skeleton", "message"),
    [
        ("file,label,split\n", None, r"metadata\.csv, line 1: no column 'file_name'; found file, label, split"),
        ("file_name,label,split,shape\n", None, r"line 1: the column name 'shape' is repeated or reserved"),
        (HEADER, "{", r"skeleton\.json: expected JSON"),
        (HEADER, "[]", r"skeleton\.json: expected an object with layout, .*, found 'list'"),
        (
            HEADER,
            '{"layuot": "kinect20"}',
            r"expected an object with layout, fps, up, class_names, license, found 'layuot'",
        ),
        (HEADER, '{"layout": "kinect21"}', r"skeleton\.json: layout: unknown skeleton layout 'kinect21'"),
        (HEADER, '{"layout": 5}', r"skeleton\.json: layout: expected a name or a description, found 5"),
        (HEADER, '{"layout": {"name": "x", "pelvis": {}}}', r"layout: skeleton layout 'x': pelvis must be a joint"),
        (HEADER, '{"class_names": ["wave", "</s>"]}', r"skeleton\.json: class_names, entry 2: .* contains </s>"),
        (HEADER, '{"fps": 0}', r"fps: expected a positive number, found 0"),
        (HEADER, '{"fps": 0.001}', r"skeleton\.json: fps: expected from 1 to 500 frames per second, found 0\.001"),
        (HEADER, "[" * 100_000, r"skeleton\.json: expected JSON"),
        (
            HEADER,
            " " * (1 << 20) + "{}",
            r"skeleton\.json: expected a layout and a few settings, found more than 1 MiB",
        ),
        (HEADER.strip() + "," * 1000 + "\n", None, r"line 1: 1,005 columns, expected at most 1000"),
        (HEADER, '{"class_names": ["a", "a"]}', r"class_names: expected distinct names"),
    ],
)
def test_errors_of_wrong_tables_and_settings(folder, tmp_path, header, skeleton, message):
    root = folder(*ROWS, header=header)
    if skeleton is not None:
        (root / "skeleton.json").write_text(skeleton)
    with pytest.raises(DataFolderError, match=message):
        load(root, tmp_path)


def test_impossible_frame_rates_are_skipped(folder, tmp_path):
    header = "file_name,label,split,fps\n"
    rows = ["a.npy,wave,train,20", "more/b.npz,fall,train,1e-300", "d.npy,fall,train,501", "c.txt,wave,train,0.001"]
    assert load(folder(*rows, header=header), tmp_path)["train"]["sample_id"] == ["a"]
    expected = "metadata.csv, line 4: fps: expected from 1 to 500 frames per second, found '501'"
    assert report(tmp_path)["d.npy"]["reason"] == expected and len(report(tmp_path)) == 3


def test_a_table_with_too_many_values(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_builder, "_MAX_VALUES", 8)
    with pytest.raises(
        DataFolderError, match=r"metadata\.csv, line 3: expected a table of at most 8 values: split the folder"
    ):
        load(folder(*ROWS), tmp_path)


def test_a_frame_rate_for_each_recording(folder, tmp_path):
    """The column overrides the rate of a file; with an empty cell, the rate of the file or of the folder applies."""
    header = "file_name,label,split,fps,note\n"
    rows = ["a.npy,wave,train,20,x", "more/b.npz,fall,train,29.97,x", "c.txt,wave,test,,x", "d.npy,fall,train,fast,x"]
    for number, wrong in enumerate(("0", "-25", "nan", "inf", "1e999", "1_0", "25 fps")):
        np.save(tmp_path / "mine" / f"{number}.npy", folder.bodies[0])
        rows.append(f"{number}.npy,wave,train,{wrong},x")
    splits = load(folder(*rows, header=header), tmp_path)
    rates = {row["sample_id"]: row["fps"] for split in splits.values() for row in split}
    assert rates == {"a": 20, "more/b": pytest.approx(29.97), "c": 25}
    assert splits["train"].column_names.count("fps") == 1 and splits["train"]["note"] == ["x", "x"]
    skipped = report(tmp_path)
    assert skipped["d.npy"]["kind"] == "fps" and len(skipped) == 8
    assert skipped["d.npy"]["reason"] == "metadata.csv, line 5: fps: expected a positive number, found 'fast'"


def test_an_empty_frame_rate_keeps_that_of_the_file(folder, tmp_path):
    splits = load(folder("more/b.npz,fall,train,", header="file_name,label,split,fps\n"), tmp_path)
    assert splits["train"]["fps"] == [15]


def test_windows_paths(folder, tmp_path):
    root = folder("more\\b.npz,fall,train,1,x", "back\\slash.npy,wave,train,1,x", "a.npy,wave,test,1,x")
    np.save(root / "back\\slash.npy", folder.bodies[0])  # a valid name on other systems
    splits = load(root, tmp_path)
    assert splits["train"]["sample_id"] == ["back\\slash", "more/b"]


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ('"wa\nve"', r"contains the control character '\n'"),
        ("wa\tve", r"contains the control character '\t'"),
        ("wa\x1bve", r"contains the control character '\x1b'"),
        ("wave\u202e", r"contains the control character '\u202e'"),
        ("wave<act_3>", "contains <act_3>, which tokenizers may read as a special token"),
        ("</s>", "contains </s>"),
        ("<|im_end|> wave", "contains <|im_end|>"),
        ("[INST] wave", "contains [INST]"),
    ],
)
def test_class_names_that_are_refused(folder, tmp_path, label, fault):
    splits = load(folder("a.npy,wave,train,1,x", f"d.npy,{label},train,1,x"), tmp_path)
    assert splits["train"].features["label"].names == ["wave"]
    entry = report(tmp_path)["d.npy"]
    lines = 1 + label.count("\n")  # a quoted line break is part of the row
    assert entry["kind"] == "label" and entry["reason"].startswith(f"metadata.csv, line {2 + lines}: the label ")
    assert fault in entry["reason"]


def test_class_names_that_are_accepted(folder, tmp_path):
    names = ["a < b > c", "می\u200cرود", "put on (a shoe)", "wave [left]", "手を振る"]
    root = folder(*(f"{number}.npy,{name},train,1,x" for number, name in enumerate(names)))
    for number in range(len(names)):
        np.save(root / f"{number}.npy", folder.bodies[0])
    assert load(root, tmp_path)["train"].features["label"].names == sorted(names)


@pytest.mark.parametrize("layout", ["lcrnet13", "lcrnet13-2d"])
def test_json_of_toyota_smarthome(folder, tmp_path, layout):
    """skeleton.json is not read as a recording, and its frame rate overrides the default of the data set."""
    root = folder("clip.json,drink,train,1,x", "gone.json,drink,test,1,x")
    (root / "skeleton.json").write_text(json.dumps({"layout": layout}))
    (root / "clip.json").write_bytes(smarthome_text((1, 1, 1)))
    row = load(root, tmp_path)["train"][0]
    expected = read_smarthome(root / "clip.json", pose="pose2d" if layout.endswith("2d") else "pose3d")
    assert np.array_equal(np.reshape(row["keypoints"], row["shape"]), expected.keypoints)
    assert (row["layout"], row["fps"]) == (layout, 20)
    assert "skeleton.json" not in report(tmp_path)
    (root / "skeleton.json").write_text(json.dumps({"layout": layout, "fps": 25}))
    assert load(root, tmp_path)["train"]["fps"] == [25]


def openpose(folder, body):
    """A folder with a file of OpenPose for each frame of a body (T, 17, 3) of pixels and scores."""
    folder.mkdir(parents=True)
    for frame, joints in enumerate(body):
        people = [{"pose_keypoints_2d": np.ravel(joints).tolist()}]
        (folder / f"{folder.name}_{frame:012d}_keypoints.json").write_text(json.dumps({"people": people}))


def pixels(seed=0, score=0.9):
    return person(8, "coco17", seed=seed) * [150, 150, 0] + np.array([320, 240, score])


def test_folders_of_openpose_are_recordings(folder, tmp_path):
    root = folder("clips/one,wave,train,1,x", "clips/two,fall,test,2,y", "more,fall,test,3,z")
    (root / "skeleton.json").write_text('{"layout": "coco17", "fps": 25}')
    openpose(root / "clips" / "one", pixels())
    openpose(root / "clips" / "two", pixels(1))
    splits = load(root, tmp_path)
    (row,) = splits["train"]
    assert (row["sample_id"], row["fps"], row["shape"]) == ("clips/one", 25, [8, 1, 17, 3])
    np.testing.assert_allclose(np.reshape(row["keypoints"], row["shape"])[:, 0, :, :2], pixels()[..., :2], rtol=1e-6)
    reason = report(tmp_path)["more"]["reason"]
    assert reason.endswith("more is a folder: expected a file, or a folder with a JSON file of OpenPose per frame")
    path = next((root / "clips" / "one").iterdir())
    path.write_text("{")
    load(root, tmp_path / "damaged")
    assert f"{path.name}, line 1: found Expecting property name" in report(tmp_path / "damaged")["clips/one"]["reason"]
    assert report(tmp_path / "damaged")["clips/one"]["reason"].startswith("clips/one/one_")
    counts = write_metadata(root, "clips/(?P<label>.*)", {}, {})
    assert counts == {"train": 2, "left out": 4}
    assert (root / "metadata.csv").read_text().splitlines()[1:] == ["clips/one,one,train", "clips/two,two,train"]


def test_scores_are_kept_on_request(folder, tmp_path):
    root = folder("a.npy,wave,train,1,x", "b.npy,fall,test,1,x")
    (root / "skeleton.json").write_text('{"layout": "coco17"}')
    scored = pixels()
    scored[3, 5, 2] = 0
    np.save(root / "a.npy", scored)
    without = pixels(1)[..., :2]
    without[2, 4] = 0
    np.save(root / "b.npy", without)
    splits = load(root, tmp_path, keep=("scores",))
    expected = np.full((8, 1, 17), 0.9, np.float32)
    expected[3, 0, 5] = 0
    assert np.array_equal(np.reshape(splits["train"][0]["scores"], (8, 1, 17)), expected)
    expected[:] = 1
    expected[2, 0, 4] = 0
    assert np.array_equal(np.reshape(splits["test"][0]["scores"], (8, 1, 17)), expected)
    assert "scores" not in load(root, tmp_path / "plain")["train"].column_names


def test_a_vertical_axis_for_each_recording(folder, tmp_path):
    root = folder(
        "a.npy,wave,train,z", "d.npy,wave,train,", "more/b.npz,fall,test,down", header="file_name,label,split,up\n"
    )
    np.save(root / "a.npy", folder.bodies[0][..., [0, 2, 1]] * [1, -1, 1])
    splits = load(root, tmp_path)
    rows = {row["sample_id"]: row for row in splits["train"]}
    assert {name: row["up"] for name, row in rows.items()} == {"a": "z", "d": None}
    for name, body in (("a", folder.bodies[0]), ("d", folder.bodies[3])):
        np.testing.assert_allclose(np.reshape(rows[name]["keypoints"], rows[name]["shape"])[:, 0], body, atol=1e-6)
    assert report(tmp_path)["more/b.npz"]["reason"].startswith("metadata.csv, line 4: up: expected one of y, -y, z")


def test_folders_of_classes(tmp_path):
    root = tmp_path / "mine"
    for name in ("wave/p1_1", "sit/p1_1", "sit/p2_1"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", person(5, seed=len(name) + int(name[-3])))
    splits = load(root, tmp_path)
    assert list(splits) == ["train"] and list(splits["train"]["sample_id"]) == ["sit/p1_1", "sit/p2_1", "wave/p1_1"]
    names = splits["train"].features["label"].names
    assert names == ["sit", "wave"] and [names[label] for label in splits["train"]["label"]] == ["sit", "sit", "wave"]
    doubts = json.loads(next((tmp_path / "cache").rglob("preparation.json")).read_text())["doubts"]
    assert any(
        "all recordings are for training: put some in a folder test, or write metadata.csv" in doubt["reason"]
        for doubt in doubts
    )
    pattern = r"(?P<label>[^/]+)/(?P<person>[^_]+)_.*"
    assert write_metadata(root, pattern, {"person": {"p2"}}, {}) == {"train": 2, "test": 1}
    assert list(load(root, tmp_path)["test"]["sample_id"]) == ["sit/p2_1"]


def test_folders_of_classes_in_folders_of_splits(tmp_path):
    root = tmp_path / "mine"
    for seed, name in enumerate(("train/wave/a", "train/sit/b", "Test/sit/c", "val/wave/d")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", person(5, seed=seed))
    openpose(root / "train" / "sit" / "frames", pixels())  # of another layout
    splits = load(root, tmp_path)
    assert list(splits["test"]["sample_id"]) == ["Test/sit/c"]
    assert {row["sample_id"]: row["held_out"] for row in splits["train"]} == {
        "train/wave/a": False,
        "train/sit/b": False,
        "val/wave/d": True,
    }
    reason = report(tmp_path)["train/sit/frames"]["reason"]
    assert reason.endswith('found the layout coco17, expected kinect25, or "layout": "coco17" in skeleton.json')
    (root / "train" / "e.npy").write_bytes((root / "train/sit/b.npy").read_bytes())
    with pytest.raises(DataFolderError, match=r"neither metadata\.csv .* nor a folder for each class; `python -m"):
        load(root, tmp_path / "mixed")


@pytest.mark.real_data
def test_real_user_folders(real_data, tmp_path):
    def rows(case, name="folder"):
        splits = load_action_dataset(name, real_data / "cases" / case, cache_dir=tmp_path / "cache" / Path(case).name)
        return {row["sample_id"]: row for split in splits.values() for row in split}

    assert {name: row["shape"] for name, row in rows("d01_openpose_folder_as_rows").items()} == {
        "clip1": [20, 1, 17, 3], "clip2": [20, 1, 17, 3]
    }  # fmt: skip
    assert set(rows("d02_windows_csv")) == {"sub/a", "sub/b"}
    with pytest.raises(DataFolderError, match=r"line 1: no column 'file_name'; found file_name;label;split"):
        rows("d03_semicolon")
    with pytest.raises(DataFolderError, match=r"metadata\.csv: expected a CSV table in UTF-8"):
        rows("d04_cp1252")
    assert {name: row["fps"] for name, row in rows("d07_fps_column").items()} == {"a": 20, "b": 30}
    assert len(rows("d09_macosx_zip", "ntu60-xsub")) == 2
    skipped = json.loads(next((tmp_path / "cache" / "d09_macosx_zip").rglob("preparation.json")).read_text())["files"]
    assert skipped == []
    with pytest.raises(DataFolderError, match="layouts with that many joints are coco17, h36m17"):
        rows("d12_class_folders")
    classes = tmp_path / "classes"
    shutil.copytree(real_data / "cases" / "d12_class_folders", classes)
    (classes / "skeleton.json").write_text('{"layout": "coco17"}')
    assert set(rows(classes)) == {"sit/p1_1", "sit/p2_1", "wave/p1_1"}


def test_the_error_of_a_missing_table_names_the_command(folder, tmp_path):
    root = folder(*ROWS)
    (root / "metadata.csv").unlink()
    with pytest.raises(DataFolderError, match=r"neither metadata\.csv .*python -m action_llm_datasets\.folder"):
        load(root, tmp_path)


def test_text_that_looks_like_a_number_stays_text(folder, tmp_path):
    header = "file_name,label,split,who,code,hash,size,part\n"
    long = "9" * 24
    root = folder(f"a.npy,wave,train,007,1_0,{long},1.50,3", f"d.npy,fall,test,12,20,{long},-2e3,4", header=header)
    row = load(root, tmp_path)["train"][0]
    assert (row["who"], row["code"], row["hash"], row["size"], row["part"]) == ("007", "1_0", long, 1.5, 3)


def test_skeleton_files_with_a_custom_layout(folder, tmp_path):
    root = folder("mine.skeleton,wave,train,1,x", "d.npy,fall,test,1,x")
    layout = {
        "name": "mine", "joint_names": ["pelvis", "left_hip", "right_hip", "left_shoulder", "right_shoulder", "head"],
        "parents": [-1, 0, 0, 0, 0, 0], "parts": {"body": [0, 1, 2, 3, 4], "top": [5]}, "left_right": [[1, 2], [3, 4]],
    }  # fmt: skip
    (root / "skeleton.json").write_text(json.dumps({"layout": layout, "fps": 20}))
    pose = [[*point, *[0] * 8, 2] for point in np.random.default_rng(0).normal(size=(6, 3)).tolist()]
    (root / "mine.skeleton").write_text(skeleton_text([[(5, pose)]] * 8))
    row = load(root, tmp_path)["train"][0]
    assert row["shape"] == [8, 1, 6, 3]
    features = SkeletonFeatureExtractor(layout=layout, num_persons=1)(row)
    assert features["input_features"].shape == (1, 12, 18)  # at 30 frames per second
    prepared = prepare("folder", root, tmp_path / "prepared", num_proc=1)
    assert prepared["folder"]["recordings"]["train"] == 1


def test_archive_members_by_their_full_path(folder, tmp_path):
    root = folder("a.npy,wave,train,1,x", "p2.zip/p2/a.npy,fall,train,1,x", "p2.zip/p3/a.npy,fall,test,1,x")
    with zipfile.ZipFile(root / "p2.zip", "w") as archive:
        for name in ("p2/a.npy", "p3/a.npy"):
            archive.write(root / "d.npy", name)
    splits = load(root, tmp_path)
    assert len(splits["train"]) == 2 and len(splits["test"]) == 1


def test_values_without_a_file_name(tmp_path):
    """For example subject=2 for file names with s02."""
    for subject in ("01", "02"):
        np.save(tmp_path / f"wave_s{subject}.npy", person(5, "kinect20"))
    pattern = r"(?P<label>[a-z]+)_s(?P<subject>\d+)\.npy"
    with pytest.raises(ValueError, match="no file name has subject '2'; the values are '01', '02'"):
        write_metadata(tmp_path, pattern, {"subject": {"2"}}, {})
    assert write_metadata(tmp_path, pattern, {"subject": {"02"}}, {}) == {"train": 1, "test": 1}


@pytest.mark.slow
def test_the_command_writes_the_table_from_file_names(tmp_path):
    for name in ("wave_p1_x", "wave_p2_y", "fall_p1_x", "fall_p3_z", "readme"):
        np.save(tmp_path / f"{name}.npy", person(5, "kinect20", seed=0))
    command = ["-m", "action_llm_datasets.folder", tmp_path]
    command += ["--pattern", r"(?P<label>[a-z]+)_p(?P<person>\d)_.*\.npy", "--test", "person=2"]
    command += ["--validation", "person=3", "--layout", "kinect20", "--fps", "15"]
    done = python(*command)
    assert done.returncode == 0 and "2 train" in done.stdout and "1 left out" in done.stdout
    splits = load(tmp_path, tmp_path)
    assert splits["test"]["person"] == [2] and set(splits["train"]["person"]) == {1, 3}
    assert [row["sample_id"] for row in splits["train"] if row["held_out"]] == ["fall_p3_z"]
    failed = python(*command)
    assert failed.returncode == 2 and "already has metadata.csv and skeleton.json: set --overwrite" in failed.stderr
    failed = python(*command, "--overwrite", "--test", "subject=2")
    assert failed.returncode == 2 and "has no group (?P<subject>…)" in failed.stderr


def test_numeric_labels_become_class_names(tmp_path):
    np.save(tmp_path / "a2.npy", person(5, "kinect20", seed=0))
    write_metadata(tmp_path, r"a(?P<label>\d+)\.npy", {}, {}, ["walk", "wave"])
    assert (tmp_path / "metadata.csv").read_text() == "file_name,label,split\na2.npy,wave,train\n"
    with pytest.raises(ValueError, match=r"a2\.npy: expected a label from 1 to 1, found '2'"):
        write_metadata(tmp_path, r"a(?P<label>\d+)\.npy", {}, {}, ["walk"])


@pytest.mark.real_data
def test_utd_mhad_as_a_folder_equals_its_builder(real_data, tmp_path):
    root = tmp_path / "utd"
    root.mkdir()
    (root / "files").symlink_to(real_data / "utd_mhad" / "skeleton")
    names = [entry["name"] for entry in FACTS["classes"]]
    pattern = r"(?P<sample_id>a(?P<label>\d+)_s(?P<subject>\d+)_t(?P<trial>\d+))_skeleton\.mat"
    write_metadata(root, pattern, {"subject": {"2", "4", "6", "8"}}, {"subject": {"7"}}, names)
    (root / "skeleton.json").write_text(json.dumps({"layout": "kinect20", "class_names": names}))
    own = load_action_dataset("utd-mhad", real_data / "utd_mhad" / "skeleton", cache_dir=tmp_path)
    splits = load(root, tmp_path)
    columns = ["sample_id", "keypoints", "shape", "body_ids", "layout", "fps", "label", "held_out"]
    for split in own:
        assert splits[split].features["label"] == own[split].features["label"]
        assert splits[split].select_columns(columns).data.equals(own[split].select_columns(columns).data)


@pytest.mark.real_data
def test_msr_action3d(real_data, tmp_path):
    root = tmp_path / "msr"
    root.mkdir()
    (root / "files").symlink_to(real_data / "msr_action3d" / "real_world_coordinates")
    pattern = r"a(?P<label>\d+)_s(?P<subject>\d+)_e(?P<trial>\d+)_skeleton3D\.txt"
    counts = write_metadata(root, pattern, {"subject": {"02", "04", "06", "08", "10"}}, {"subject": {"09"}})
    assert sum(counts.values()) - counts["left out"] == 567
    (root / "skeleton.json").write_text('{"layout": "msr20", "fps": 15}')
    splits = load(root, tmp_path)
    assert len(splits["train"].features["label"].names) == 20
    lengths = []
    for row in splits["test"].with_format("numpy").select(range(0, 270, 30)):
        joints = row["keypoints"].reshape(row["shape"])[:, 0]
        joints = joints[joints.any((1, 2))]
        lengths.append(
            [np.linalg.norm(joints[:, c] - joints[:, p], axis=-1).mean() for c, p in LAYOUTS["msr20"].bones]
        )
    # Left and right bones of people have the same length.
    lengths, bones = np.mean(lengths, axis=0), [child for child, _ in LAYOUTS["msr20"].bones]
    for left, right in LAYOUTS["msr20"].left_right:
        assert lengths[bones.index(left)] == pytest.approx(lengths[bones.index(right)], rel=0.05)
