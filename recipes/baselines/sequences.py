"""Input sequences of the baselines: joints, pooled pixels, features, latents, tokens."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

FRAMES_PER_TOKEN = 4
# Number of frames read from a video, and their size in pixels.
POOLED_FRAMES, POOLED_HEIGHT, POOLED_WIDTH = 16, 12, 16


@dataclass
class Examples:
    """Sequences for training and evaluation: arrays of vectors (T, D) or of token ids (T,).

    Attributes:
        train: training sequences; a recording may have several versions.
        train_labels: class of each training sequence.
        train_versions: version of each training sequence; 0 is the recording itself, the others are augmented.
        evaluation: evaluated sequences, one for each recording.
        evaluation_labels, sample_ids: class and name of each evaluated recording.
        skipped: `sample_id` and `reason` of each recording that could not be read.
        frames_per_step: number of consecutive elements that a transformer reads at each position.
        extractor: the `SkeletonFeatureExtractor` of the joints; None for other modalities.
    """

    train: list = field(default_factory=list)
    train_labels: list[int] = field(default_factory=list)
    train_versions: list[int] = field(default_factory=list)
    evaluation: list = field(default_factory=list)
    evaluation_labels: list[int] = field(default_factory=list)
    sample_ids: list[str] = field(default_factory=list)
    skipped: list[dict] = field(default_factory=list)
    frames_per_step: int = 1
    extractor: object = None


def read_recordings(
    modality: str, dataset, data_dir: str, split: str, versions: int, sentences: str | None
) -> Examples:
    """Reads the sequences of recordings.

    Args:
        modality: "skeletons" for joints (frames, channels), "videos" for pooled pixels, "features" for a vector of the visual
            encoder per segment.
        dataset: data set with the splits train and test.
        data_dir: folder of the videos.
        split: "test", or "held_out" for the held-out training subjects, which are then left out of training.
        versions: number of versions of each training recording; videos have one.
        sentences: folder of action sentences, whose feature extractor reads the joints; None for a default one.

    Raises:
        ValueError: if there is no training sequence, or no recording to evaluate.
    """
    from action_llm.feature_extraction_skeleton import SkeletonInputError
    from action_llm.video_frames import VideoFileError
    from action_llm_datasets.building import UNREADABLE

    examples = Examples()
    if modality == "skeletons":
        examples.extractor = _skeleton_extractor(dataset["train"], sentences)
        examples.frames_per_step = FRAMES_PER_TOKEN
    pooled = _pooled_pixels(data_dir) if modality == "videos" else None
    for part in ("train", "test"):
        if part == "test" and split == "held_out":
            continue
        rows = dataset[part].with_format("numpy")
        read = {
            "skeletons": lambda row, evaluated: _joints(row, examples.extractor, 1 if evaluated else versions),
            "videos": lambda row, _: [(0, pooled(row))],
            "features": lambda row, evaluated: _features(row, 1 if evaluated else versions),
        }[modality]
        columns = {
            "skeletons": ["keypoints", "shape", "layout", "fps"],
            "videos": ["video", "video_fps"],
            "features": ["features", "shape", "version"],
        }[modality]
        for row in rows.select_columns([*columns, "sample_id", "label", "held_out"]):
            evaluated = part == "test" or (split == "held_out" and bool(row["held_out"]))
            name, label = str(row["sample_id"]), int(row["label"])
            try:
                for version, sequence in read(row, evaluated):
                    if evaluated:
                        examples.evaluation.append(sequence)
                        examples.evaluation_labels.append(label)
                        examples.sample_ids.append(name)
                    else:
                        examples.train.append(sequence)
                        examples.train_labels.append(label)
                        examples.train_versions.append(version)
            except (SkeletonInputError, VideoFileError, *UNREADABLE) as error:
                examples.skipped.append({"sample_id": name, "reason": str(error)})
    if not examples.train or not examples.evaluation:
        raise ValueError(
            f"expected recordings to train on and to evaluate on ({split}); got {len(examples.train)} training sequences and "
            f"{len(examples.evaluation)} recordings to evaluate."
        )
    return examples


def read_sentences(folder: str, column: str, class_names: list[str], wanted: set[str]) -> Examples:
    """Reads the sequences that an action model wrote.

    Args:
        folder: folder of action sentences.
        column: `latents` (W, D), `codes` (W, D), or `action_ids` (W,), (W, R) for words of several tokens.
        class_names: classes of the data set.
        wanted: names of the recordings to evaluate; other training recordings are trained on.

    Raises:
        ValueError: if the sentences are of other classes, have no latents, or lack a recording to evaluate.
        FileNotFoundError: if codes are read and there is no codebook.
    """
    from action_llm_recipes.common.action_sentences import load_action_sentences, read_codebook

    sentences = load_action_sentences(folder)
    if sentences["train"].features["label"].names != class_names:
        raise ValueError(
            f"{folder} has other classes than the data set: encode its recordings with encode_actions.py."
        )
    codebook = read_codebook(folder) if column == "codes" else None
    if codebook is None and column not in sentences["train"].column_names:
        raise ValueError(f"{folder} contains no latents: run encode_actions.py with --latents true.")
    examples = Examples()
    for part, rows in sentences.items():
        for row in rows.with_format("numpy"):
            sequence = np.asarray(row["action_ids" if column == "codes" else column])
            if column == "codes":
                sequence = codebook[sequence]
                sequence = sequence.sum(axis=1) if sequence.ndim == 3 else sequence
            if column == "latents":
                sequence = sequence.reshape(len(row["action_ids"]), -1)
            if str(row["sample_id"]) in wanted:
                if int(row["encoding"]) == 0:
                    examples.evaluation.append(sequence)
                    examples.evaluation_labels.append(int(row["label"]))
                    examples.sample_ids.append(str(row["sample_id"]))
            elif part == "train":
                examples.train.append(sequence)
                examples.train_labels.append(int(row["label"]))
                examples.train_versions.append(int(row["encoding"]))
    if missing := wanted - set(examples.sample_ids):
        raise ValueError(
            f"{folder} lacks sentences of {len(missing)} recordings, such as {min(missing)}: encode the same data set."
        )
    return examples


def _skeleton_extractor(train, sentences: str | None):
    from action_llm import SkeletonFeatureExtractor
    from action_llm_recipes.common.joined_data_sets import usual_layout

    if sentences is not None:  # the action model's own
        return SkeletonFeatureExtractor.from_pretrained(sentences)
    persons = min(2, max(int(shape[1]) for shape in train["shape"]))
    return SkeletonFeatureExtractor(layout=usual_layout(train), num_persons=persons, frame_multiple=FRAMES_PER_TOKEN)


def _joints(row: dict, extractor, versions: int) -> list[tuple[int, np.ndarray]]:
    from action_llm.recording_versions import stable_seed

    sequences = []
    for version in range(versions):
        seed = stable_seed(0, str(row["sample_id"]), version)
        features = extractor(row, augment=version > 0, seed=seed, return_tensors=None)["input_features"][0]
        sequences.append((version, features))
    return sequences


def _pooled_pixels(data_dir: str):
    """A function that reads a row with a video as float32 (POOLED_FRAMES, pixels), with colours from 0 to 1."""
    from action_llm import VideoFeatureExtractor
    from action_llm_datasets.videos import open_row

    extractor = VideoFeatureExtractor(
        POOLED_FRAMES, 1, height=POOLED_HEIGHT, width=POOLED_WIDTH, image_mean=(0, 0, 0), image_std=(1, 1, 1)
    )

    def pooled(row: dict) -> np.ndarray:
        with open_row(data_dir, row) as video:
            return extractor(video, return_tensors=None)["pixel_values"][0].reshape(POOLED_FRAMES, -1)

    return pooled


def _features(row: dict, versions: int) -> Iterator[tuple[int, np.ndarray]]:
    """Features of segments (M, D), averaged over the views of each segment."""
    if row["version"] < versions:
        yield int(row["version"]), np.asarray(row["features"]).reshape(tuple(row["shape"])).mean(axis=1)
