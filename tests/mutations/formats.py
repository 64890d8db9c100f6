"""Every format that the project reads: its seeds, and how somebody would read one.

A reader returns where it got data, and raises where it did not. It must have checked that the data can be right.
"""

import contextlib
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skeleton_people import person
from tiny_models import CLASS_NAMES, tiny_recogniser
from tiny_videos import picture

from action_llm import (
    ActionLLMForClassification,
    ActionLLMProcessor,
    ActionRecognitionPipeline,
    SkeletonFeatureExtractor,
    VideoFeatureExtractor,
)

from . import mutate, seeds

CLIP = person(40)
FILM = np.stack([picture(number, 32, 32) for number in range(20)])
CALL = ("candidate_labels", "top_k", "explain", "return_tokens", "versions", "unsure_below", "fps")


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        make: (folder, folder of real files or None) → seeds.
        read: (folder, file that was damaged, relative to it).
        weight: Share of the mutations.
        names: What an error may name in place of a file.
    """

    make: Callable[[Path, Path | None], list[seeds.Seed]]
    read: Callable[[Path, str], None]
    weight: float = 1.0
    names: tuple[str, ...] = ()


class NotCheckedError(Exception):
    """A reader returned what cannot be right, without a word."""


def _check(is_right: bool, complaint: str) -> None:
    if not is_right:
        raise NotCheckedError(complaint)


@cache
def recogniser(reads: str) -> ActionRecognitionPipeline:
    model, processor = tiny_recogniser(reads)
    return ActionRecognitionPipeline(model=model.eval(), processor=processor)


def _check_answer(answer: list[dict], class_names: list[str]) -> None:
    _check(bool(answer) and "error" not in answer[0], f"no answer: {answer!r:.200}")
    for entry in answer:
        _check(entry["label"] in class_names, f"label {entry['label']!r:.100} is not in the class list")
        _check(0 <= entry["score"] <= 1 + 1e-6, f"score {entry['score']}")  # NaN is not


def skeletons_in(layout: str) -> Callable[[Path, str], None]:
    """Reads recordings of a layout, as the pipeline does and as training does."""

    def read(folder: Path, file: str) -> None:
        extractor = SkeletonFeatureExtractor(layout=layout)
        recording = extractor.read(str(folder / file))
        extractor.doubts(recording)
        frames, people = recording.present.shape
        _check(
            recording.keypoints.shape == (frames, people, extractor.skeleton_layout.num_joints, 3),
            "shape of keypoints",
        )
        for settings in ({}, {"augment": True, "seed": 0}):
            features = extractor(recording, **settings)["input_features"]
            _check(bool(torch.isfinite(features).all()), "features contain NaN or Inf")

    return read


def read_folder_dataset(folder: Path, file: str) -> None:
    from action_llm_datasets.load import load_action_dataset

    rows = load_action_dataset("folder", str(folder), cache_dir=str(folder.parent / "cache"))
    extractor = None
    for row in (row for split in rows.values() for row in split):
        extractor = extractor or SkeletonFeatureExtractor(layout=_layout(row["layout"]))
        extractor(row)


def _layout(text: str):
    return json.loads(text) if text.startswith("{") else text


def read_sentences(folder: Path, file: str) -> None:
    """As evaluate_classifier.py reads them."""
    from action_llm_recipes import evaluate_classifier as recipe

    arguments = recipe.EvaluationArguments(
        model=str(folder / seeds.MODEL),
        sentences=str(folder / seeds.SENTENCES),
        output_dir=str(folder / "evaluation"),
        resamples=10,
    )
    metrics = recipe.main(arguments)
    _check(0 <= metrics["top_1"]["estimate"] <= 1, f"accuracy {metrics['top_1']}")


@cache
def _video_extractor() -> VideoFeatureExtractor:
    return VideoFeatureExtractor(num_segments=4, frames_per_segment=1, height=32, width=32)


def read_video(folder: Path, file: str) -> None:
    """By its path and as an open file: FFmpeg guards the two in different ways."""
    path, errors = folder / file, []
    with open(path, "rb") as opened:
        for recording in (str(path), opened):
            try:
                features = _video_extractor()(recording)
            except (ValueError, OSError) as error:
                errors.append(error)
            else:
                tensors = [value for value in features.values() if torch.is_tensor(value)]
                _check(all(bool(torch.isfinite(value).all()) for value in tensors), "features contain NaN or Inf")
    if errors:
        raise errors[-1]


def read_frames(folder: Path, file: str) -> None:
    _video_extractor()(str(folder), fps=8.0)


def read_playlist(folder: Path, file: str) -> None:
    """As bytes too, of which no name says what they are."""
    played = NotCheckedError("a playlist was played as if it were a video")
    with contextlib.suppress(ValueError, OSError):
        _video_extractor()(io.BytesIO((folder / file).read_bytes()))
        raise played
    read_video(folder, file)
    raise played


def read_model(folder: Path, file: str) -> None:
    """Loads a recogniser and its record, and asks it what a recording shows."""
    if file == "record.json":
        return _read_record(folder)
    model = ActionLLMForClassification.from_pretrained(str(folder))
    processor = ActionLLMProcessor.from_pretrained(str(folder))
    recognise = ActionRecognitionPipeline(model=model, processor=processor)
    recording = CLIP if hasattr(processor.feature_extractor, "skeleton_layout") else FILM
    _check_answer(recognise(recording, explain=True), processor.class_names)
    model.describe(recording) if hasattr(model, "describe") else None


def _read_record(folder: Path) -> None:
    from action_llm_recipes.common.stage_records import check_dataset, check_held_out, check_unseen, training_record
    from action_llm_recipes.hub.demo import describe_training
    from action_llm_recipes.hub.model_page import is_simulated, known_stages, read_run

    record = training_record(str(folder))
    describe_training(str(folder))
    check_dataset(record, seeds.PROTOCOL)
    check_held_out(record)
    check_unseen(record, ["wave"])
    known_stages(read_run(folder))
    is_simulated(record)


def read_run_folder(folder: Path, file: str) -> None:
    seeds.resume_run(folder)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    _check(last["step"] == 4, f"the last line of metrics.jsonl is of step {last['step']}")


def read_config(folder: Path, file: str) -> None:
    from action_llm_recipes import train_tokenizer
    from action_llm_recipes.common import launching
    from action_llm_recipes.stages.skeleton_stage import SkeletonStage

    classes = (train_tokenizer.TokenizerArguments, train_tokenizer.DataArguments, *SkeletonStage.ARGUMENTS)
    classes += (train_tokenizer.TokenizerTrainingArguments,)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.chdir(folder):
            launching.parse(classes, ["--config", file])
    except SystemExit as error:  # a recipe ends with one line, which names an option
        message = complaint.getvalue().strip()
        named = any(option in message for option in launching.option_names(classes))
        raise ValueError(f"{file}: {message}" if named else message) from error


def _values(path: Path) -> dict:
    """What a seed of values in memory says; nothing where it is no object any more."""
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def read_call(folder: Path, file: str) -> None:
    call = _values(folder / file)
    settings = {name: call[name] for name in CALL if name in call}
    recognise = recogniser("skeletons")
    (answer,) = [recognise(CLIP, **settings)]
    labels = settings.get("candidate_labels")
    labels = [name.strip() for name in labels.split(",")] if isinstance(labels, str) else labels
    _check_answer(answer, CLASS_NAMES if labels is None else list(labels))


def read_row(folder: Path, file: str) -> None:
    row = _values(folder / file)
    recognise = recogniser("skeletons")
    _check_answer(recognise(row), CLASS_NAMES)
    # In a batch it is an entry, and the others are answered.
    answers = recognise([row, CLIP], on_error="return", batch_size=2)
    _check_answer(answers[1], CLASS_NAMES)


_STAGES = ("was trained on", "has no record of the classes", "are NaN: its weights are damaged")
"""What is said of a record of another data set or other classes, and of weights that are numbers, but wrong."""
_IN_A_CALL = (*CALL, "class", "recording")
FORMATS = {
    "skeleton": Format(seeds.skeleton_files, skeletons_in("kinect25")),
    "uav_human": Format(seeds.uav_human_files, skeletons_in("coco17"), 0.7),
    "smarthome": Format(seeds.smarthome_files, skeletons_in("lcrnet13"), 0.7),
    "nw_ucla": Format(seeds.nw_ucla_files, skeletons_in("kinect20-sdk"), 0.5),
    "sbu": Format(seeds.sbu_files, skeletons_in("sbu15"), 0.5),
    "bvh": Format(seeds.bvh_files, skeletons_in("smpl22"), 0.5),
    "c3d": Format(seeds.c3d_files, skeletons_in("smpl22"), 0.5),
    "pose_json": Format(seeds.pose_json_files, skeletons_in("coco17"), 0.7),
    "mat": Format(seeds.mat_files, skeletons_in("kinect20"), 1.5),
    "npy": Format(seeds.npy_files, skeletons_in("kinect25")),
    "npz": Format(seeds.npz_files, skeletons_in("kinect25")),
    "rows": Format(seeds.rows_of_text, skeletons_in("kinect25"), 0.7),
    "folder": Format(seeds.folders_of_recordings, read_folder_dataset),
    "zip": Format(seeds.archives_of_recordings, read_folder_dataset, 0.7),
    "sentences": Format(seeds.folders_of_sentences, read_sentences, 0.5),
    "video": Format(seeds.video_files, read_video, 1.5),
    "frames": Format(seeds.folders_of_frames, read_frames, 0.5),
    "playlist": Format(seeds.playlists, read_playlist, 0.3),
    "skeleton_model": Format(seeds.skeleton_model, read_model, 2, (*_STAGES, "the class list")),
    "video_model": Format(seeds.video_model, read_model, 2, (*_STAGES, "the class list")),
    "run": Format(seeds.run_folders, read_run_folder, 0.5),
    "config": Format(seeds.recipe_configs, read_config, 0.5, ("there is no",)),  # then a value
    "class_list": Format(seeds.class_lists, read_call, 0.5, _IN_A_CALL),
    "row": Format(seeds.dataset_rows, read_row, 0.5, (*_IN_A_CALL, "S001", "keypoints", "shape", "layout", "fps")),
}

MUTATORS: dict[str, mutate.Mutator] = {
    ".skeleton": mutate.mutate_text,
    ".txt": mutate.mutate_text,
    ".bvh": mutate.mutate_text,
    ".json": mutate.mutate_json,
    ".jsonl": mutate.mutate_json_lines,
    ".mat": mutate.mutate_mat,
    ".npy": mutate.mutate_npy,
    ".npz": mutate.mutate_archive(mutate.mutate_npy),
    ".zip": mutate.mutate_archive(mutate.mutate_text),
    ".csv": mutate.mutate_table,
    ".parquet": mutate.mutate_parquet,
    ".safetensors": mutate.mutate_safetensors,
    ".mp4": mutate.mutate_mp4,
    ".yaml": mutate.mutate_yaml,
    ".pt": mutate.mutate_archive(mutate.mutate_bytes),
    ".pth": mutate.mutate_archive(mutate.mutate_bytes),
}
"""By the end of a file's name; others are bytes."""
IN_MEMORY = ("class_list", "row")
"""Formats that are values in a call, so that their seeds stay JSON."""


def mutator_of(name: str, file: str) -> mutate.Mutator:
    if name in IN_MEMORY:
        return mutate.change_json
    return MUTATORS.get(Path(file).suffix.lower(), mutate.mutate_bytes)
