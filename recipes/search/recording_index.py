"""
The index of a search: class probabilities, times and action sentences of the windows of recordings, in one file.

A window is a whole recording, or a span of its timeline. A query is a distribution over the classes, too (`queries`), and the
score of a window is the fidelity of the two, (Σ_c √(query_c · window_c))², the squared Bhattacharyya coefficient: 1 if they are
equal, and the probability of the class if the query is a single one. With the square roots stored, the scores of all windows
are one matrix product, so they are exact, and no approximate index is needed (`benchmarks/benchmark_search.py`).
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from action_llm.model_files import as_written

FORMAT = "action_llm_search_1"
# Seconds of work after which a growing index is written, so that a stopped run continues from there.
SECONDS_BETWEEN_WRITES = 60
DTYPES = {"recording": "int32", "starts": "float64", "ends": "float64", "roots": "float32", "tokens": "int32"} | {
    "offsets": "int64"
}


class SearchIndexError(ValueError):
    """The file is not an index, or not of this recogniser and these settings; the message names the file and the difference."""


class Window(NamedTuple):
    """
    A part of a recording.

    Attributes:
        start, end: seconds from the start of the recording.
        probabilities: of the classes, (num_classes,).
        tokens: the tokens of its action sentence, one after another; none of models that read continuous latents, and of
            timelines of skeletons.
    """

    start: float
    end: float
    probabilities: np.ndarray
    tokens: list[int]


@dataclass
class Recording:
    """
    A recording of an index.

    Attributes:
        file: absolute path.
        state: size in bytes, and time of the last change in nanoseconds; see `_state`.
        windows: in the order of time; none if the recording could not be read.
        reason: why it could not be read, or None.
    """

    file: str
    state: list[int]
    windows: list[Window] = field(default_factory=list)
    reason: str | None = None


@dataclass
class RecordingIndex:
    """
    An index of N windows.

    Attributes:
        settings: of the index: `model`, `action_model` and `training` (fingerprints), `class_names`, `codes_per_word`,
            `seconds` (None if each recording is a single window), `stride`, `pose`, `mirrored`.
        files: path of each recording.
        recording: index of the recording of each window, int32 (N,). The windows of a recording are in the order of time.
        starts, ends: of each window in seconds, float64 (N,).
        roots: square roots of the class probabilities, float32 (N, num_classes); rows have length 1.
        tokens, offsets: the tokens of window n are `tokens[offsets[n]:offsets[n + 1]]`; int32, and int64 (N + 1,).
    """

    settings: dict[str, Any]
    files: list[str]
    recording: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    roots: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.recording)

    @property
    def class_names(self) -> list[str]:
        return self.settings["class_names"]

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """The fidelity of each window and a distribution over the classes (num_classes,): float32 (N,), from 0 to 1."""
        chosen = np.flatnonzero(weights)
        roots = np.sqrt(weights).astype(np.float32)
        # A query of few classes reads only their columns.
        if 4 * len(chosen) < len(roots):
            products = self.roots[:, chosen] @ roots[chosen]
        else:
            products = self.roots @ roots
        return np.minimum(products**2, 1)

    def words(self, window: int) -> list:
        """The action sentence of a window: tokens, or, of several codebooks, lists of tokens."""
        tokens = self.tokens[self.offsets[window] : self.offsets[window + 1]].tolist()
        size = self.settings["codes_per_word"]
        return tokens if size == 1 else [tokens[place : place + size] for place in range(0, len(tokens), size)]

    def sentence(self, window: int) -> str:
        """The action sentence of a window as text, such as `<act_3><act_17>`."""
        return "".join(f"<act_{token}>" for token in self.tokens[self.offsets[window] : self.offsets[window + 1]])

    def label(self, window: int) -> str:
        """The most likely class of a window."""
        return self.class_names[int(self.roots[window].argmax())]


def update_index(
    path: str | os.PathLike, settings: dict[str, Any], files: list[Path], read: "Reader"
) -> list[Recording]:
    """
    Brings an index up to date with files: reads those that are new, have changed, or could not be read, and removes others.

    Args:
        path: of the index.
        settings: of the index, see [`RecordingIndex`].
        files: of the recordings.
        read: yields a `Recording` for each file, in order.

    Returns:
        All recordings, in the order of `files`.

    Raises:
        SearchIndexError: if the file is no index, or has other settings.
    """
    path, known = Path(path), {}
    if path.exists():
        written, recordings = _read(path)
        for name in sorted(settings.keys() - {"model"}):  # a folder may have moved
            if written.get(name) != settings[name]:
                raise SearchIndexError(
                    f"{path} was made with another {name}: expected {as_written(settings[name])}, found "
                    f"{as_written(written.get(name))}; choose another --output"
                )
        known = {recording.file: recording for recording in recordings if recording.reason is None}
    states = {os.path.abspath(file): _state(file) for file in files}
    fresh = {name: known[name] for name, state in states.items() if name in known and known[name].state == state}
    missing = [file for file in states if file not in fresh]
    written_at = time.monotonic()
    for recording in read(missing):
        fresh[recording.file] = recording
        recording.state = states[recording.file]
        if time.monotonic() - written_at > SECONDS_BETWEEN_WRITES:
            _write(path, settings, fresh.values())
            written_at = time.monotonic()
    recordings = [fresh[name] for name in states]
    _write(path, settings, recordings)
    return recordings


def read_index(path: str | os.PathLike) -> RecordingIndex:
    """
    Reads an index.

    Raises:
        SearchIndexError: if the file is damaged or no index, or has no windows.
        OSError: if the file cannot be read.
    """
    content, arrays = _load(Path(path))
    if not len(arrays["recording"]):
        raise SearchIndexError(f"{path} has no windows: no recording could be read")
    return RecordingIndex(content["settings"], [entry["file"] for entry in content["recordings"]], **arrays)


def _state(path: Path) -> list[int]:
    """Size and last change of a file, or of the files of a folder."""
    files = [entry for entry in path.iterdir() if entry.is_file()] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return [sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)]


def _write(path: Path, settings: dict[str, Any], recordings: Iterable[Recording]) -> None:
    from safetensors.numpy import save

    from action_llm_datasets.atomic_files import write_atomically

    recordings = list(recordings)
    windows = [window for recording in recordings for window in recording.windows]
    lengths = [len(window.tokens) for window in windows]
    probabilities = np.array([window.probabilities for window in windows], np.float64)
    arrays = {
        "recording": [number for number, recording in enumerate(recordings) for _ in recording.windows],
        "starts": [window.start for window in windows],
        "ends": [window.end for window in windows],
        "roots": np.sqrt(probabilities).reshape(len(windows), len(settings["class_names"])),
        "tokens": [token for window in windows for token in window.tokens],
        "offsets": np.cumsum([0, *lengths]),
    }
    entries = [{"file": entry.file, "state": entry.state, "reason": entry.reason} for entry in recordings]
    content = json.dumps({"settings": settings, "recordings": entries}, ensure_ascii=False)
    arrays = {name: np.asarray(values, DTYPES[name]) for name, values in arrays.items()}
    metadata = {"format": FORMAT, "content": content, "sha256": _checksum(content, arrays)}
    write_atomically(path, save(arrays, metadata))


def _load(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The JSON content and the arrays of an index."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SearchIndexError(f"{path}: expected an index, found no file: write it with action-llm-search index")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise SearchIndexError(
                    f"{path}: expected an index of action-llm-search, found another safetensors file"
                )
            content = json.loads(metadata["content"])
            arrays = {name: file.get_tensor(name) for name in DTYPES}
        if _checksum(metadata["content"], arrays) != metadata["sha256"]:
            raise ValueError("its content differs from its checksum")
        _check(content, arrays)
    except SearchIndexError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SearchIndexError(f"{path} is damaged ({error}): delete it, and write the index again") from error
    return content, arrays


def _checksum(content: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(content.encode())
    for name in DTYPES:
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def _check(content: dict, arrays: dict[str, np.ndarray]) -> None:
    """Raises `ValueError` for arrays that cannot be those of an index, whoever wrote them."""
    number, classes = len(arrays["recording"]), len(content["settings"]["class_names"])
    shapes = dict.fromkeys(("recording", "starts", "ends"), (number,))
    shapes |= {"roots": (number, classes), "offsets": (number + 1,), "tokens": (arrays["tokens"].size,)}
    for name, dtype in DTYPES.items():
        actual = arrays[name].dtype.name, arrays[name].shape
        if actual != (dtype, shapes[name]):
            raise ValueError(f"{name}: expected {dtype} {shapes[name]}, found {actual[0]} {actual[1]}")
    recording, starts, ends, roots, tokens, offsets = arrays.values()
    of_recording = np.concatenate([[0], recording, [len(content["recordings"]) - 1]])
    if number and (np.diff(of_recording) < 0).any():
        raise ValueError(f"recording: expected numbers in order, from 0 to {len(content['recordings']) - 1}")
    if not (np.isfinite(ends) & (starts >= 0) & (starts <= ends)).all():
        raise ValueError("starts, ends: expected seconds, each start at or before its end")
    if not ((roots >= 0).all() and np.allclose((roots.astype(np.float64) ** 2).sum(axis=1), 1, atol=1e-3)):
        raise ValueError("roots: expected square roots of probabilities that sum to 1")
    if offsets[0] != 0 or offsets[-1] != len(tokens) or (np.diff(offsets) < 0).any() or (tokens < 0).any():
        raise ValueError(
            f"tokens, offsets: expected offsets in order, from 0 to {len(tokens)}, of tokens of at least 0"
        )


def _read(path: Path) -> tuple[dict[str, Any], list[Recording]]:
    """The settings and the recordings of an index."""
    content, arrays = _load(path)
    index = RecordingIndex(content["settings"], [], **arrays)
    recordings = [Recording(entry["file"], entry["state"], reason=entry["reason"]) for entry in content["recordings"]]
    for number, place in enumerate(index.recording):
        window = slice(index.offsets[number], index.offsets[number + 1])
        recordings[place].windows.append(
            Window(
                float(index.starts[number]),
                float(index.ends[number]),
                index.roots[number].astype(np.float64) ** 2,
                index.tokens[window].tolist(),
            )
        )
    return index.settings, recordings


class Reader:
    """
    Reads recordings as windows, with a recogniser.

    Args:
        model: folder or Hub repository of a recogniser.
        seconds, stride: the sliding window of timelines; without `seconds`, each recording is a single window.
        batch_size: number of recordings, or of windows of a timeline, that are read at a time.
        pose: name of the pose estimator with which a recogniser of skeletons reads videos; by default the first whose weights
            are on this machine.
        mirrored: whether these videos are mirror images.

    Raises:
        ValueError: if a timeline cannot be made with the recogniser, its window has gaps, or settings of poses are given to a
            recogniser of videos.
    """

    def __init__(
        self,
        model: str,
        seconds: float | None = None,
        stride: float = 1.0,
        batch_size: int = 8,
        pose: str | None = None,
        mirrored: bool = False,
    ):
        import torch
        from transformers import pipeline

        from action_llm import ActionLLMProcessor
        from action_llm.recording_versions import stable_seed
        from action_llm.timelines import check_reads_timelines, check_window
        from action_llm_recipes.common.fingerprints import weights_fingerprint
        from action_llm_recipes.common.recognisers import load_recogniser
        from action_llm_recipes.common.stage_records import training_record

        self.model = load_recogniser(model, "cuda" if torch.cuda.is_available() else "cpu")
        self.processor = ActionLLMProcessor.from_pretrained(model)
        if seconds is not None:
            check_reads_timelines(self.model.config)
            check_window(seconds, stride)
        self.reads_skeletons = hasattr(self.processor.feature_extractor, "skeleton_layout")
        if (pose or mirrored) and not self.reads_skeletons:
            raise ValueError("pose, mirrored: this recogniser reads videos, and estimates no poses: leave them out.")
        self._recognise = pipeline(
            "action-recognition", model=self.model, processor=self.processor, device=self.model.device
        )
        self._batch_size = batch_size
        self.settings = {
            "model": model,
            "action_model": weights_fingerprint(self.model.base_model.action_model),
            "training": stable_seed(json.dumps(training_record(model), sort_keys=True)),
            "class_names": self.processor.class_names,
            "codes_per_word": self.processor.codes_per_word,
            "seconds": seconds,
            "stride": None if seconds is None else stride,
            "pose": pose,
            "mirrored": mirrored,
        }

    def __call__(self, files: list[str]) -> Iterator[Recording]:
        """
        Yields a [`Recording`] for each file; its `state` is empty.

        Raises:
            PoseError, ImportError: if there are videos whose poses cannot be estimated on this machine.
        """
        from action_llm.pose_estimators import load_pose_estimator
        from action_llm.video_files import is_video
        from action_llm_datasets.progress import Progress

        options = {"batch_size": self._batch_size}
        if self.reads_skeletons and any(map(is_video, files)):  # loaded once for all videos
            options |= {"pose": load_pose_estimator(self.settings["pose"]), "mirrored": self.settings["mirrored"]}
        read = self._wholes if self.settings["seconds"] is None else self._timelines
        with Progress("reading", len(files), "recordings") as bar:
            for recording in read(files, options):
                yield recording
                bar.update()

    def _wholes(self, files: list[str], options: dict[str, Any]) -> Iterator[Recording]:
        has_tokens = self.model.config.injection_layer is None
        answers = self._recognise(
            (file for file in files), top_k=None, return_tokens=has_tokens, on_error="return", **options
        )
        for file, answer in zip(files, answers, strict=True):
            if "error" in answer[0]:
                yield Recording(file, [], reason=answer[0]["error"])
                continue
            scores = {entry["label"]: entry["score"] for entry in answer}
            words = [word["token"] for word in answer[0].get("tokens", [])]
            tokens = [int(token) for word in words for token in word[len("<act_") : -1].split("><act_")]
            probabilities = np.array([scores[name] for name in self.processor.class_names])
            yield Recording(file, [], [Window(0.0, self._length(file), probabilities, tokens)])

    def _length(self, file: str) -> float:
        """Seconds of a recording."""
        from action_llm.video_files import is_video, read_video_info

        if is_video(file):
            return read_video_info(file).seconds
        recording = self.processor.feature_extractor.read(file)
        return len(recording.keypoints) / recording.fps

    def _timelines(self, files: list[str], options: dict[str, Any]) -> Iterator[Recording]:
        options |= {name: self.settings[name] for name in ("seconds", "stride")}
        for file in files:
            try:
                timeline = self.model.timeline(self.processor, file, **options)
            except (ValueError, OSError) as error:
                yield Recording(file, [], reason=str(error))
                continue
            windows = []
            for span in timeline.spans():
                steps = (timeline.starts >= span.start) & (timeline.ends <= span.end)
                events = [event for event in timeline.events if span.start <= (event.start + event.end) / 2 < span.end]
                probabilities = timeline.probabilities[steps].mean(axis=0)
                windows.append(Window(span.start, span.end, probabilities, [event.action_id for event in events]))
            yield Recording(file, [], windows)
