"""Several data sets in one run: classes by name, unique names, layouts, evidence, and the recipes."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from action_llm.joint_mapping import map_layout
from action_llm.skeleton_layouts import LAYOUTS
from action_llm_recipes import run_line
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.fingerprints import recordings_fingerprint
from action_llm_recipes.common.held_out_subjects import by_number, without_names
from action_llm_recipes.common.joined_data_sets import join_data_sets, titles_of
from action_llm_recipes.common.launching import parse
from action_llm_recipes.common.shared_classes import join_classes
from action_llm_recipes.common.split_evidence import RecordingSet
from action_llm_recipes.common.stage_records import check_dataset


def test_classes_are_joined_by_name_and_by_the_list_of_the_user():
    lists = {"a": ["wave", "Side-Boxing"], "b": ["side boxing", "high arm wave"], "c": ["sit", "WAVE "]}
    joined = join_classes(lists)
    assert joined.names == ["wave", "Side-Boxing", "high arm wave", "sit"]
    assert joined.labels == {"a": [0, 1], "b": [1, 2], "c": [3, 0]}
    joined = join_classes(lists, [["high arm wave", "wave"]])
    assert joined.names == ["high arm wave", "Side-Boxing", "sit"]
    assert joined.labels == {"a": [0, 1], "b": [1, 0], "c": [2, 0]}


def test_names_that_nearly_agree_are_doubted_and_not_joined(caplog):
    lists = {
        "a": ["wave with both hands", "jog", "pickup and throw", "throw", "sit down", "drink"],
        "b": ["two hand wave", "jogging", "pick up & throw", "stand up", "eat", "throw"],
    }
    joined = join_classes(lists)
    pairs = {tuple(sorted((joined.names[one], joined.names[other]))) for one, other in joined.alike()}
    assert pairs == {
        ("two hand wave", "wave with both hands"),
        ("jog", "jogging"),
        ("pick up & throw", "pickup and throw"),
    }, "both data sets tell throwing from picking up and throwing"
    with caplog.at_level(logging.INFO):
        joined.log()
    shared, first, second, doubted = (record.getMessage() for record in caplog.records)
    assert shared == "Classes of several data sets: throw (a; b)."
    assert first.startswith("Classes of a alone: wave with both hands, jog") and "eat" in second
    assert "'jog' and 'jogging'" in doubted and "--same_classes" in doubted


@pytest.mark.parametrize(
    ("lists", "same", "message"),
    [
        ({"a": ["1", "2"], "b": ["A001", "A002"]}, [], "classes of a and b are numbers"),
        ({"a": ["wave"], "b": ["sit"]}, [["wave", "wav"]], "no data set has a class 'wav'; did you mean wave"),
        ({"a": ["wave", "sit"], "b": ["Wave"]}, [["sit", "wave"], ["Wave"]], "'Wave' stands in two entries"),
    ],
)
def test_class_lists_that_cannot_be_joined_are_refused(lists, same, message):
    with pytest.raises(ValueError, match=message):
        join_classes(lists, same)


@pytest.mark.parametrize(
    ("names", "folders", "message"),
    [
        (["utd-mhad", "nw-ucla-xsub"], ["a"], "folder of each of 2 data sets.*got 1: "),
        (["utd-mhad", "utd-mhad"], ["a", "b"], "utd-mhad and utd-mhad are the same data set"),
        (["ntu60-xsub", "ntu120-xset"], ["a", "b"], "ntu60-xsub and ntu120-xset are the same data set"),
        (["utd-mhad", "folder-video"], ["a", "b"], "folder-video has videos.*action-llm-pose"),
        (["features", "features"], ["a", "b"], "features has features"),
        (["utd-mhad", "folder"], ["a", "a"], "is given twice"),
        (["folder", "folder"], ["a/own", "b/own"], "two folders are called own"),
        (["utd-mhad", "folders"], ["a", "b"], "no protocol 'folders'; did you mean folder"),
    ],
)
def test_data_sets_that_cannot_be_joined_are_refused(names, folders, message, tmp_path):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(ValueError, match=message):
        DataArguments(names, [str(tmp_path / folder) for folder in folders])


def test_one_data_set_is_as_without_lists(tmp_path):
    assert DataArguments(["folder"], [str(tmp_path)]) == DataArguments("folder", str(tmp_path))
    with pytest.raises(ValueError, match="--dataset names one"):
        DataArguments("folder", str(tmp_path), same_classes="classes.yaml")
    with pytest.raises(ValueError, match="--pose reads the videos"):
        DataArguments(["utd-mhad", "folder"], [str(tmp_path), str(tmp_path)], pose="mediapipe")


def test_several_folders_are_told_apart_by_their_names(tmp_path):
    folders = [str(tmp_path / name) for name in ("gym", "at home", "other")]
    assert titles_of(["folder", "folder", "utd-mhad"], folders) == ["folder:gym", "folder:at_home", "utd-mhad"]
    assert titles_of(["utd-mhad", "folder"], folders[:2]) == ["utd-mhad", "folder"]


def test_the_command_line_and_yaml_files_take_one_or_several(tmp_path):
    words = ["--data_dir", str(tmp_path), "--dataset", "folder"]
    assert parse([DataArguments], words)[0].dataset == "folder"
    (tmp_path / "own").mkdir()
    (data,) = parse([DataArguments], [*words, "utd-mhad", "--data_dir", str(tmp_path), str(tmp_path / "own")])
    assert data.dataset == ["folder", "utd-mhad"] and data.protocol() == "folder+utd-mhad" and not data.is_video
    for content, dataset in (("dataset: folder", "folder"), ("dataset: [folder]", "folder")):
        (tmp_path / "run.yaml").write_text(f"{content}\ndata_dir: {tmp_path}\n")
        assert parse([DataArguments], ["--config", str(tmp_path / "run.yaml")])[0].dataset == dataset


def made(names=("wave", "sit"), persons=(1, 2, 1), column="subject", layout="kinect20", **extra):
    """A data set of three training recordings and one of test."""
    features = Features(
        {
            "sample_id": Value("string"),
            "keypoints": List(Value("float32")),
            "shape": List(Value("int32")),
            "body_ids": List(Value("int64")),
            "layout": Value("string"),
            "fps": Value("float32"),
            "cleaned": Value("bool"),
            "label": ClassLabel(names=list(names)),
            "held_out": Value("bool"),
            column: Value("int32" if column == "subject" else "string"),
            **dict.fromkeys(extra, Value("string")),
        }
    )

    def rows(ids, persons):
        columns = {name: [[]] * len(ids) for name in ("keypoints", "shape", "body_ids")}
        columns |= {"sample_id": ids, "layout": [layout] * len(ids), "fps": [30.0] * len(ids)}
        columns |= {"cleaned": [False] * len(ids), "label": [0, 1, 1][: len(ids)], column: list(persons)}
        columns |= {"held_out": [False, False, True][: len(ids)]}
        return Dataset.from_dict(columns | {name: [value] * len(ids) for name, value in extra.items()}, features)

    return DatasetDict(train=rows(["x", "y", "z"], persons), test=rows(["t"], persons[:1]))


def test_rows_keep_their_data_set_in_the_names_of_recordings_and_people():
    own = made(["sit", "jump"], ["anna", "", "bo"], "person", up="y")
    joined = join_data_sets({"utd-mhad": made(), "folder": own})
    train = joined["train"]
    assert train["sample_id"] == [f"{title}/{name}" for title in ("utd-mhad", "folder") for name in "xyz"]
    assert train["person"] == ["utd-mhad/1", "utd-mhad/2", "utd-mhad/1", "folder/anna", "", "folder/bo"]
    assert train.features["label"].names == joined["test"].features["label"].names == ["wave", "sit", "jump"]
    assert train["label"] == [0, 1, 1, 1, 2, 2] and train["held_out"] == [False, False, True] * 2
    assert joined["test"]["sample_id"] == ["utd-mhad/t", "folder/t"]
    assert "up" not in train.features and "subject" not in train.features
    assert "up" in join_data_sets({"folder:a": own, "folder:b": own})["train"].features

    with pytest.raises(ValueError, match="folder has unseen test classes"):
        other = made(["sit", "eat"])["test"]
        join_data_sets({"utd-mhad": made(), "folder": DatasetDict(train=own["train"], test=other)})
    described = LAYOUTS["kinect20"].to_dict()
    described["joint_names"] = ["other", *described["joint_names"][1:]]
    with pytest.raises(ValueError, match="different joint layouts of the name kinect20"):
        join_data_sets({"utd-mhad": made(), "folder": made(layout=json.dumps(described))})


def test_fingerprints_change_with_each_of_the_data_sets():
    parts = {"utd-mhad": made(), "folder": made(["sit", "jump"])}
    changed = [
        parts | {"utd-mhad": made(["wave", "stand"])},
        parts | {"folder": DatasetDict(made(["sit", "jump"]), train=made(["sit", "jump"])["train"].select([0, 1]))},
        {"utd-mhad": parts["utd-mhad"], "sbu-fold-0": parts["folder"]},
    ]
    fingerprints = [recordings_fingerprint(join_data_sets(data_sets)) for data_sets in (parts, *changed)]
    fingerprints.append(recordings_fingerprint(join_data_sets(parts, [["wave", "jump"]])))
    assert len(set(fingerprints)) == 5
    assert fingerprints[0] == recordings_fingerprint(join_data_sets(parts))


def test_subjects_of_joined_data_sets_are_numbers_and_other_names_stay_hidden():
    subjects = ["folder/anna", "utd-mhad/10", "utd-mhad/2", "folder:gym/3", "team/7", "4"]
    assert by_number(subjects)[:4] == ["4", "folder:gym/3", "utd-mhad/2", "utd-mhad/10"]
    hidden = [name for name, written in zip(subjects, without_names(subjects), strict=True) if name != written]
    assert hidden == ["folder/anna", "team/7"]


def test_evidence_knows_the_recordings_of_joined_data_sets():
    """A recording has one hash in every run, so a joined test split cannot hide what a single data set trained."""
    joined = RecordingSet.of("utd-mhad+folder", ["utd-mhad/a1_s1_t1", "folder/sub/0"])
    alone = {*RecordingSet.of("utd-mhad-video", ["a1_s1_t1"]).hashes, *RecordingSet.of("folder", ["sub/0"]).hashes}
    assert set(joined.hashes) == alone
    several = RecordingSet.of("folder:gym+folder:home", ["folder:gym/0", "folder:home/0"])
    assert len(set(several.hashes)) == 2

    record = {"sentences": {"tokenizer": {"dataset": "nw-ucla-xview"}}}
    check_dataset(record, "utd-mhad+nw-ucla-xview")
    with pytest.raises(ValueError, match=r"trained on nw-ucla-xview.*test recordings of nw-ucla-xsub\."):
        check_dataset(record, "utd-mhad+nw-ucla-xsub")


@pytest.fixture(scope="module")
def joined(recipes, tmp_path_factory):
    """`DataArguments` of the simulated recordings (kinect25) and of a folder with some of them in kinect20."""
    folder = tmp_path_factory.mktemp("joined") / "own"
    folder.mkdir()
    splits, mapping = recipes.data().load(), map_layout(LAYOUTS["kinect25"], LAYOUTS["kinect20"])
    names = splits["train"].features["label"].names
    lines = ["file_name,label,split,person"]
    for split, rows in splits.items():
        for number, row in enumerate(rows.select(range(0, len(rows), 3)).with_format("numpy")):
            joints = row["keypoints"].reshape(row["shape"])[:, :1]
            np.save(folder / f"{split}_{number}.npy", mapping.map_joints(joints, joints.any(-1))[0][:, 0])
            label = names[row["label"]] if row["label"] else "of the folder alone"
            lines.append(f"{split}_{number}.npy,{label},{split},{number % 2}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    (folder / "skeleton.json").write_text(json.dumps({"layout": "kinect20", "fps": 30}))
    return DataArguments(["simulated-xsub", "folder"], [recipes.recordings, str(folder)], cache_dir=recipes.cache)


def test_subjects_of_one_data_set_can_be_held_out(joined):
    settings = {name: getattr(joined, name) for name in ("dataset", "data_dir", "cache_dir")}
    data = DataArguments(**settings, held_out_subjects=["folder/1", "simulated-xsub/2"])
    train = data.load()["train"]
    held = {person for person, held in zip(train["person"], train["held_out"], strict=True) if held}
    assert held == {"folder/1", "simulated-xsub/2"} and "simulated-xsub/1" in train["person"]
    with pytest.raises(
        ValueError, match="'1' is not a training subject; these are folder/0, folder/1, simulated-xsub/1"
    ):
        DataArguments(**settings, held_out_subjects=["1"]).load()
    assert not data.about(data.load())["simulated"], "the folder may hold recordings of people"


def test_data_sets_of_two_layouts_go_through_all_stages(joined, recipes, monkeypatch, tmp_path):
    monkeypatch.setattr(recipes, "data", lambda dataset=None: joined)
    tokenizer = recipes.train_tokenizer(tmp_path / "tokenizer")
    sentences = recipes.encode(tokenizer, tmp_path / "sentences")
    record = json.loads((tmp_path / "sentences" / "record.json").read_text())
    assert record["dataset"] == "simulated-xsub+folder" and record["splits"]["train"]["skipped"] == 0
    assert json.loads((tmp_path / "sentences" / "skipped.json").read_text()) == []
    layout = json.loads((tmp_path / "tokenizer" / "model" / "preprocessor_config.json").read_text())["layout"]
    assert layout == "kinect25", "that of most training recordings"

    metrics = recipes.evaluate(recipes.sft(tokenizer, sentences, tmp_path / "sft"), sentences, tmp_path / "evaluation")
    of_sets = metrics["data_sets"]
    assert list(of_sets) == ["simulated-xsub", "folder"]
    tested = [name.partition("/")[0] for name in joined.load()["test"]["sample_id"]]
    assert {title: of_set["recordings"] for title, of_set in of_sets.items()} == Counter(tested)
    hits = sum(of_set["recordings"] * of_set["top_1"]["estimate"] for of_set in of_sets.values())
    assert hits == pytest.approx(metrics["recordings"] * metrics["top_1"]["estimate"])
    assert set(metrics["people"]) >= {"folder/0", "folder/1"}


def test_the_line_plans_for_all_recordings(joined, recipes):
    arguments = run_line.PipelineArguments(output_dir="none", llm_name_or_path=recipes.llm)
    counts, rows = run_line.resolve(arguments, joined).counts, joined.load()
    assert counts.trained + counts.held_out == len(rows["train"]) and counts.test == len(rows["test"])
