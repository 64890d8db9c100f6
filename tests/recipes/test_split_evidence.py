"""No stage or evaluation measures anything on recordings that an earlier stage was trained on."""

import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset, DatasetDict
from skeleton_people import person
from tiny_features import extract

from action_llm.model_files import ModelFileError
from action_llm_recipes.baselines import run_baselines
from action_llm_recipes.common.data_arguments import DataArguments

SWAPPED = {"train": "test", "test": "train"}


def mark(folder, marks: dict[str, str]):
    """Changes the splits in the table of a folder: of all files in some splits, or of some files."""
    head, *lines = (folder / "metadata.csv").read_text().splitlines()
    place = head.split(",").index("split")
    rows = [line.split(",") for line in lines]
    for row in rows:
        row[place] = marks.get(row[0], marks.get(row[place], row[place]))
    (folder / "metadata.csv").write_text("\n".join([head, *map(",".join, rows)]) + "\n")


def record_of(folder) -> dict:
    return json.loads(Path(folder, "record.json").read_text())


@pytest.fixture
def own(tmp_path):
    """Eight recordings of two classes and four people: 0 to 3 train, 4 and 5 are held out, 6 and 7 are tested."""
    folder = tmp_path / "own"
    folder.mkdir()
    lines = ["file_name,label,split,person"]
    for number in range(8):
        np.save(folder / f"{number}.npy", person(24, "kinect20", seed=number))
        split = ("train", "train", "validation", "test")[number // 2]
        lines.append(f"{number}.npy,{('wave', 'fall')[number % 2]},{split},{('ada', 'bob', '3', '4')[number // 2]}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    (folder / "skeleton.json").write_text(json.dumps({"layout": "kinect20", "fps": 20}))
    return folder


@pytest.fixture
def own_recipes(recipes, own, tmp_path):
    """The recipes on this folder."""

    class FolderRecipes(type(recipes)):
        def data(self, dataset="folder", **kwargs):
            return super().data("folder", **kwargs)

    return FolderRecipes(own, str(tmp_path / "cache"), recipes.llm)


# ------------------------------------------------------------------------------------------------- the folder re-marked


def test_a_folder_whose_splits_change_between_stages_is_not_evaluated(own, own_recipes, tmp_path, caplog):
    """Older versions evaluated both splits on recordings that stage 1 was trained on."""
    tokenizer = own_recipes.train_tokenizer(tmp_path / "tokenizer")
    mark(own, SWAPPED)
    with caplog.at_level(logging.WARNING):
        sentences = own_recipes.encode(tokenizer, tmp_path / "sentences")
        model = own_recipes.sft(tokenizer, sentences, tmp_path / "sft")
    seen = "the action model was trained on 4 of the 4 test recordings, such as '0'"
    with pytest.raises(ValueError, match=seen):
        own_recipes.evaluate(model, sentences, tmp_path / "evaluation", split="test")
    assert sum(seen in message for message in caplog.messages) == 2  # both stages had warned
    with pytest.raises(ValueError, match="the action model was trained on the held-out subjects"):
        own_recipes.evaluate(model, sentences, tmp_path / "evaluation", split="held_out")
    with pytest.raises(ValueError, match=seen):
        own_recipes.explain(model, sentences, tmp_path / "why", data=own_recipes.data())
    with pytest.raises(ValueError, match="the action model was trained on the held-out subjects"):
        own_recipes.sft(tokenizer, sentences, tmp_path / "held_out", hold_out=True)
    settings = {"sentences": sentences, "seeds": 1, "transformer_steps": 2, "encodings": 1}
    for methods, split in ((["tokens"], "test"), (["codes"], "held_out")):
        with pytest.raises(ValueError, match="the action model was trained on"):
            run_baselines.main(
                run_baselines.BaselineArguments(
                    str(tmp_path / f"baselines_{split}"), methods=methods, split=split, **settings
                ),
                own_recipes.data(),
            )
    assert not (tmp_path / "evaluation" / "metrics.json").exists()
    # Training recordings may be evaluated as such.
    metrics = own_recipes.evaluate(model, sentences, tmp_path / "train", split="train")
    assert (metrics["split"], metrics["recordings"]) == ("train", 2)
    # A classifier of the recordings themselves is trained on the marks as they are.
    raw = run_baselines.BaselineArguments(str(tmp_path / "raw"), methods=["kernel_ridge"], encodings=1)
    assert run_baselines.main(raw, own_recipes.data())["recordings"] == 4


def test_the_language_model_is_checked_as_well(own, own_recipes, tmp_path):
    """Stage 2 was trained on recordings that stage 1 was not trained on."""
    mark(own, {"validation": "test"})
    tokenizer = own_recipes.train_tokenizer(tmp_path / "tokenizer")
    before = own_recipes.encode(tokenizer, tmp_path / "before")
    mark(own, {"4.npy": "train"})
    after = own_recipes.encode(tokenizer, tmp_path / "after")
    model = own_recipes.sft(tokenizer, after, tmp_path / "sft")
    assert own_recipes.evaluate(model, after, tmp_path / "good")["recordings"] == 3
    with pytest.raises(ValueError, match="the language model was trained on 1 of the 4 test recordings, such as '4'"):
        own_recipes.evaluate(model, before, tmp_path / "bad")


def train_backbone(folder, data):
    from action_llm_recipes.pretraining import backbone as recipe

    training = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "disable_tqdm": True, "use_cpu": True}
    recipe.main(
        recipe.BackboneArguments(widths=[8, 8]),
        data,
        recipe.VideoArguments(6, 1, height=32, width=32),
        recipe.BackboneTrainingArguments(output_dir=str(folder), **training),
    )
    return str(folder / "model")


def train_vst(features, llm, folder, **arguments):
    from action_llm_recipes import train_tokenizer as recipe
    from action_llm_recipes.stages.video_stage import VSTArguments

    small = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "codebook_size": 16}
    training = {"max_steps": 2, "per_device_train_batch_size": 4, "warmup_steps": 1, "lr_scheduler_type": "cosine"}
    recipe.main(
        recipe.TokenizerArguments(llm_name_or_path=llm, action_model="vst", **arguments),
        DataArguments(dataset="features", data_dir=features),
        VSTArguments(kmeans_init=True, **small),
        recipe.TokenizerTrainingArguments(output_dir=str(folder), disable_tqdm=True, use_cpu=True, **training),
    )
    return str(folder / "model")


def test_videos_that_the_visual_encoder_was_trained_on_are_not_evaluated(videos, recipes, llm, tmp_path, caplog):
    from action_llm_recipes import encode_actions

    root = shutil.copytree(videos, tmp_path / "videos")
    data = DataArguments(dataset="folder-video", data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    backbone = train_backbone(tmp_path / "backbone", data)
    # clip10 and clip11 were the test of the encoder, so that one of them may be held out now.
    mark(root, {"test": "train", "train": "test", "validation": "train", "clip10.mp4": "validation"})
    reading = {"frames_per_segment": 1}
    with caplog.at_level(logging.WARNING):
        features = extract(root, backbone, tmp_path / "features", tmp_path / "cache", reading, versions=1)
    of_features = DataArguments(dataset="features", data_dir=features)
    tokenizer = train_vst(features, llm, tmp_path / "tokenizer", hold_out=True)
    sentences = str(tmp_path / "sentences")
    encode_actions.main(encode_actions.EncodingArguments(tokenizer, sentences, encodings=1), of_features)
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", hold_out=True)
    seen = "the visual encoder was trained on 8 of the 8 test recordings, such as 'clip00'"
    with pytest.raises(ValueError, match=seen):
        recipes.evaluate(model, sentences, tmp_path / "evaluation", split="test")
    assert sum(seen in message for message in caplog.messages) >= 1
    with pytest.raises(ValueError, match=seen):
        run_baselines.main(
            run_baselines.BaselineArguments(str(tmp_path / "baselines"), methods=["kernel_ridge"]), of_features
        )
    metrics = recipes.evaluate(model, sentences, tmp_path / "evaluation", split="held_out")
    assert (metrics["split"], metrics["recordings"]) == ("held_out", 1)
    # clip08 was one of its training videos.
    mark(root, {"validation": "train", "clip08.mp4": "validation"})
    features = extract(root, backbone, tmp_path / "other", tmp_path / "cache", reading, versions=1)
    message = (
        r"the visual encoder was trained on the held-out subjects \(1 of 1 held-out recordings, such as 'clip08'\)"
    )
    with pytest.raises(ValueError, match=message):
        train_vst(features, llm, tmp_path / "refused", hold_out=True)


# ---------------------------------------------------------------------------------------------------------- the records


def test_records_have_fingerprints_and_folders_the_hashes_of_all_stages(own_recipes, tmp_path):
    from action_llm_recipes.common.split_evidence import SPLIT_EVIDENCE

    tokenizer = own_recipes.train_tokenizer(tmp_path / "tokenizer", arguments={"hold_out": True})
    sentences = own_recipes.encode(tokenizer, tmp_path / "sentences", encodings=2)
    model = own_recipes.sft(tokenizer, sentences, tmp_path / "sft")
    own_recipes.evaluate(model, sentences, tmp_path / "evaluation")
    raw = run_baselines.BaselineArguments(
        str(tmp_path / "raw"), methods=["kernel_ridge"], split="held_out", encodings=1
    )
    run_baselines.main(raw, own_recipes.data())
    stage_1, written, stage_2, evaluation, raw = (
        record_of(tmp_path / part)["split_evidence"] for part in ("tokenizer", "sentences", "sft", "evaluation", "raw")
    )
    # Two sentences of a recording are of one recording.
    assert stage_1 == written == raw
    assert {part: entry["recordings"] for part, entry in stage_1.items()} == {"training": 4, "held_out": 2, "test": 2}
    assert {part: entry["recordings"] for part, entry in stage_2.items()} == {"training": 6, "held_out": 0, "test": 2}
    assert stage_2["test"] == written["test"] == evaluation["test"] and list(evaluation) == ["test"]
    fingerprints = {entry["fingerprint"] for part in (stage_1, stage_2) for entry in part.values()}
    for folder in (model, tmp_path / "evaluation"):
        content = Path(folder, SPLIT_EVIDENCE).read_text()
        assert set(json.loads(content)) == fingerprints
        assert not any(name in content for name in ("wave", "fall", "ada", "bob"))
    assert record_of(model)["split_evidence"] == stage_2


def test_a_fingerprint_depends_on_the_set_of_names_and_the_data_set():
    from action_llm_recipes.common.split_evidence import SplitEvidence

    def fingerprint(dataset, *names):
        return SplitEvidence(dataset, {"test": names}).parts["test"].fingerprint

    first = fingerprint("utd-mhad", "a1_s1_t1", "a2_s1_t1")
    assert len(first) == 16 and first == fingerprint("utd-mhad-video", "a2_s1_t1", "a1_s1_t1", "a1_s1_t1")
    assert first not in (fingerprint("utd-mhad", "a1_s1_t1"), fingerprint("folder", "a1_s1_t1", "a2_s1_t1"))
    ntu = ("ntu60-xsub", "ntu120-xset-video-with-skeletons", "ntu120-unseen-0")
    assert len({fingerprint(dataset, "S001C001P001R001A001") for dataset in ntu}) == 1
    # A simulator's recordings have such names, too, and are others.
    assert fingerprint("simulated-xsub", "S001C001P001R001A001") != fingerprint(ntu[0], "S001C001P001R001A001")


def test_the_recording_of_a_window_is_its_video(tmp_path):
    from action_llm_recipes.common.split_evidence import SplitEvidence

    def rows(*names):
        return Dataset.from_dict({"sample_id": names, "held_out": [False] * len(names)})

    splits = DatasetDict(train=rows("one@0s", "one@1.5s", "two@3s"), test=rows("three@0s"))

    def names(stage):
        (tmp_path / "record.json").write_text(json.dumps({"stage": stage, "dataset": "folder-video"}))
        return sorted(SplitEvidence.of_sentences(str(tmp_path), splits, hold_out=False).parts["training"].names)

    assert names("encode_windows") == ["one", "two"]
    assert names("encode_actions") == ["one@0s", "one@1.5s", "two@3s"]  # files may have such names


def test_older_folders_still_load_and_a_warning_says_what_cannot_be_checked(own_recipes, tmp_path, caplog):
    from action_llm_recipes.common.split_evidence import SPLIT_EVIDENCE
    from action_llm_recipes.hub.model_page import model_page

    tokenizer = own_recipes.train_tokenizer(tmp_path / "tokenizer")
    sentences = own_recipes.encode(tokenizer, tmp_path / "sentences")
    model = own_recipes.sft(tokenizer, sentences, tmp_path / "sft")
    metrics = own_recipes.evaluate(model, sentences, tmp_path / "new")
    assert "cannot be checked" not in caplog.text
    for path in tmp_path.rglob(SPLIT_EVIDENCE):
        path.unlink()
    for path in tmp_path.rglob("record.json"):
        path.write_text(json.dumps(without_evidence(json.loads(path.read_text()))))
    assert own_recipes.evaluate(model, sentences, tmp_path / "old") == metrics
    (warning,) = [message for message in caplog.messages if "cannot be checked" in message]
    assert "the action model and the language model" in warning and "whether test recordings were" in warning
    # The record of the evaluation says so, and so does the page that shows it.
    evaluation = json.loads((tmp_path / "old" / "record.json").read_text())
    assert evaluation["split_evidence"]["unchecked_stages"] == ["action model", "language model"]
    page = model_page(Path(model), "me/tiny", [evaluation])
    assert "It could not be checked whether the action model and the language model had been trained on these" in page
    # Records of before say at least whether the held-out subjects were left out.
    with pytest.raises(ValueError, match="the action model was trained on the held-out subjects, or has no record"):
        own_recipes.evaluate(model, sentences, tmp_path / "old", split="held_out")
    tuned = own_recipes.sft(tokenizer, sentences, tmp_path / "later")
    assert own_recipes.evaluate(tuned, sentences, tmp_path / "mixed")["recordings"] == 2


def without_evidence(part):
    if isinstance(part, dict):
        return {name: without_evidence(value) for name, value in part.items() if name != "split_evidence"}
    return part


def test_damaged_evidence_is_an_error(own_recipes, tmp_path):
    from action_llm_recipes.common.split_evidence import SPLIT_EVIDENCE

    tokenizer = own_recipes.train_tokenizer(tmp_path / "tokenizer")
    path = Path(tokenizer, SPLIT_EVIDENCE)
    sets = json.loads(path.read_text())
    fingerprint = next(name for name, text in sets.items() if text)
    for text in (sets[fingerprint][:-8] + "AAAAAAA=", "?", "ä", "AAAA", 7, None):
        path.write_text(json.dumps(sets | {fingerprint: text}))
        with pytest.raises(ModelFileError, match=f"field {fingerprint}: expected the hashes with that fingerprint"):
            own_recipes.encode(tokenizer, tmp_path / "sentences")


# --------------------------------------------------------------------------------------------- which split, how often


def test_the_held_out_split_is_the_default_and_evaluations_of_the_test_split_are_counted(
    own_recipes, tmp_path, caplog
):
    from action_llm_recipes.common.split_evidence import LOCAL_FILES, TEST_EVALUATIONS, default_split
    from action_llm_recipes.hub.model_page import model_page
    from action_llm_recipes.hub.push import repository_files

    tokenizer = own_recipes.train_tokenizer(tmp_path / "tokenizer", arguments={"hold_out": True})
    sentences = own_recipes.encode(tokenizer, tmp_path / "sentences")
    model = own_recipes.sft(tokenizer, sentences, tmp_path / "sft", hold_out=True)

    def page(*evaluations):
        return model_page(Path(model), "me/model", [record_of(folder) for folder in evaluations])

    evaluation = tmp_path / "evaluation"
    with caplog.at_level(logging.INFO):
        assert own_recipes.evaluate(model, sentences, evaluation)["split"] == "held_out"
        assert "--split test evaluates the test split" in caplog.text
        assert not Path(model, TEST_EVALUATIONS).exists() and "The test split was" not in page(evaluation)
        assert record_of(evaluation)["test_evaluations"] is None
        # Explanations have the same default, and count as well.
        assert own_recipes.explain(model, sentences, tmp_path / "why")["split"] == "held_out"
        assert not Path(model, TEST_EVALUATIONS).exists()
        assert own_recipes.explain(model, sentences, tmp_path / "why_test", split="test")["split"] == "test"
        assert "The test split was evaluated once with this model." in caplog.text
        for count, times in ((2, "2 times"), (3, "3 times"), (4, "4 times")):
            folder = tmp_path / f"test{count}"
            assert own_recipes.evaluate(model, sentences, folder, split="test")["split"] == "test"
            assert record_of(folder)["test_evaluations"] == count
            # The same evaluation in the same folder is finished, and not counted again.
            metrics = json.loads((folder / "metrics.json").read_text())
            assert own_recipes.evaluate(model, sentences, folder, split="test") == metrics
            assert record_of(folder)["test_evaluations"] == count
            sentence = f"The test split was evaluated {times} with this model."
            # On each page of this model, whichever evaluation it shows.
            assert all(sentence in text for text in (caplog.text, page(folder), page(evaluation), page()))
    files, _ = repository_files(tmp_path / "sft", "me/model", evaluations=[str(folder)])
    assert not set(LOCAL_FILES) & set(files) and sentence in files["README.md"].decode()
    # A model that has left nobody out is tested.
    everybody = own_recipes.sft(tokenizer, sentences, tmp_path / "all")
    assert own_recipes.evaluate(everybody, sentences, tmp_path / "all_evaluation")["split"] == "test"
    assert [default_split({"hold_out": True}, unseen) for unseen in (False, True)] == ["held_out", "test"]


def test_an_evaluation_that_cannot_be_counted_still_runs(own_recipes, tmp_path, caplog):
    from action_llm_recipes.common.split_evidence import TEST_EVALUATIONS

    tokenizer = own_recipes.train_tokenizer(tmp_path / "tokenizer")
    sentences = own_recipes.encode(tokenizer, tmp_path / "sentences")
    model = own_recipes.sft(tokenizer, sentences, tmp_path / "sft")
    Path(model, TEST_EVALUATIONS).mkdir()  # nobody can write it
    assert own_recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 2
    assert "This evaluation on the test split is not counted" in caplog.text
    assert record_of(tmp_path / "evaluation")["test_evaluations"] is None


# ---------------------------------------------------------------------------------------------------- other subjects


def held_out_people(rows, column):
    return {str(name) for name, held in zip(rows[column], rows["held_out"], strict=True) if held}


def test_each_training_subject_can_be_held_out_in_turn(recipes):
    marked = recipes.data().load()

    def held_out(*subjects):
        splits = recipes.data(held_out_subjects=subjects).load()
        assert splits["train"].column_names == marked["train"].column_names
        assert splits["train"]["sample_id"] == marked["train"]["sample_id"] and splits["test"] is not None
        assert not any(splits["test"]["held_out"])
        return held_out_people(splits["train"], "performer")

    assert held_out_people(marked["train"], "performer") == {"5"}
    for subject in ("1", "2", "4", "5"):
        assert held_out(subject) == {subject}
    assert held_out(4, 1, 1) == {"1", "4"}
    with pytest.raises(
        ValueError, match=r"--held_out_subjects: '3' is not a training subject; these are 1, 2, 4, 5\."
    ):
        held_out("3")
    with pytest.raises(ValueError, match=r"all 4 training subjects are held out\. Leave at least one"):
        held_out("1", "2", "4", "5")
    data = recipes.data(held_out_subjects=["4", "1"])
    splits = data.load()
    identity = data.identity(splits)
    assert identity["held_out_subjects"] == ["1", "4"]
    assert identity["recordings"] != recipes.data().identity(marked)["recordings"]
    assert data.about(splits)["description"].endswith("This run holds out the recordings of subjects 1, 4 instead.")
    assert "This run" not in recipes.data().about(marked)["description"]


def test_the_loop_over_subjects_is_a_command(own, llm, tmp_path, monkeypatch, capfd):
    """`run_line.py --hold_out true --held_out_subjects …` for each training subject."""
    from action_llm_recipes import run_line
    from action_llm_recipes.common.launching import launch
    from action_llm_recipes.common.split_evidence import TEST_EVALUATIONS

    common = {"max_steps": 2, "warmup_steps": 1, "disable_tqdm": True, "use_cpu": True}
    common |= {"per_device_train_batch_size": 2}
    settings = {
        "tokenizer": {"hidden_width": 8, "codebook_size": 16, "window": 16} | common,
        "sft": {"lora_r": 2, "gradient_accumulation_steps": 1} | common,
    }
    command = ["run_line.py", "--dataset", "folder", "--data_dir", own, "--cache_dir", tmp_path / "cache"]
    command += ["--llm_name_or_path", llm, "--encodings", 1, "--hold_out", "true"]
    for stage, own_settings in settings.items():
        (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump(own_settings))
        command += [f"--{stage}_config", tmp_path / f"{stage}.yaml"]

    def run(subject, folder):
        words = [*command, "--held_out_subjects", subject, "--output_dir", tmp_path / folder]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        return launch(run_line.main, *run_line.ARGUMENTS, resumes=True)

    fingerprints = set()
    for subject in ("ada", "bob", "3"):
        metrics = run(subject, subject)
        assert (metrics["split"], metrics["recordings"], list(metrics["people"])) == ("held_out", 2, [subject])
        identity = json.loads((tmp_path / subject / "tokenizer" / "identity.json").read_text())
        assert identity["held_out_subjects"] == [subject]
        listed_by_stages = set()
        for part in ("tokenizer", "sentences", "sft"):
            evidence = record_of(tmp_path / subject / part)["split_evidence"]
            assert evidence["held_out"]["recordings"] == 2
            fingerprints.add(evidence["held_out"]["fingerprint"])
            # Records are published: numbers stay, names do not.
            (listed,) = evidence["held_out_subjects"]
            assert listed == "3" if subject == "3" else len(listed) == 16
            listed_by_stages.add(listed)
        assert len(listed_by_stages) == 1
        assert subject == "3" or subject not in (tmp_path / subject / "sft" / "record.json").read_text()
    assert len(fingerprints) == 3
    assert not (tmp_path / "ada" / "sft" / "model" / TEST_EVALUATIONS).exists()
    # A run cannot be resumed with other held-out subjects, and a test subject is not a training subject.
    for subject, folder, message in (
        ("bob", "ada", "made with other held_out_subjects"),
        ("4", "none", "'4' is not a training subject; these are 3, ada, bob."),
    ):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ending:
            run(subject, folder)
        assert ending.value.code == 2 and message in capfd.readouterr().err


def test_features_know_the_subjects_of_their_videos(videos, backbone, tmp_path):
    root = shutil.copytree(videos, tmp_path / "videos")
    head, *lines = (root / "metadata.csv").read_text().splitlines()
    rows = [f"{line},{number // 2}" for number, line in enumerate(lines)]
    (root / "metadata.csv").write_text("\n".join([f"{head},person", *rows]) + "\n")
    features = extract(root, backbone, tmp_path / "features", tmp_path / "cache", versions=2)
    data = DataArguments(dataset="features", data_dir=features, held_out_subjects=["0", "3"])
    train = data.load("features")["train"]
    assert held_out_people(train, "sample_id") == {"clip00", "clip01", "clip06", "clip07"}
    assert data.identity({"train": train})["held_out_subjects"] == ["0", "3"]
    with pytest.raises(ValueError, match="'5' is not a training subject; these are 0, 1, 2, 3, 4"):
        dataclasses.replace(data, held_out_subjects=["5"]).load("features")
    (Path(features) / "people.json").unlink()
    with pytest.raises(ValueError, match="does not say of each training recording who was recorded"):
        data.load("features")


@pytest.mark.real_data
def test_subjects_of_utd_mhad_rotate(real_data, tmp_path):
    def held_out(**arguments):
        folder = str(real_data / "utd_mhad" / "skeleton")
        data = DataArguments("utd-mhad", folder, cache_dir=str(tmp_path), **arguments)
        return held_out_people(data.load()["train"], "subject")

    assert held_out() == {"7"}
    for subject in (1, 3, 5, 7):
        assert held_out(held_out_subjects=[subject]) == {str(subject)}
    with pytest.raises(ValueError, match=r"'2' is not a training subject; these are 1, 3, 5, 7\."):
        held_out(held_out_subjects=[2])
