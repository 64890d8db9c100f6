"""
The index of a search: class probabilities, times and action sentences of the windows of recordings, in one file.

A window is a whole recording, or a span of its timeline. A query is a distribution over the classes, too (`queries`), and the
score of a window is the fidelity of the two, (Σ_c √(query_c · window_c))², the squared Bhattacharyya coefficient: 1 if they are
equal, and the probability of the class if the query is a single one. With the square roots stored, the scores of all windows
are one matrix product, so they are exact, and no approximate index is needed (`benchmarks/benchmark_search.py`).
"""

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
        tokens: the tokens of its action sentence, one after another; empty if a timeline has none.
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
        state: size in bytes, and time of the last change in nanoseconds.
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
            `seconds`, `stride`.
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
            if written[name] != settings[name]:
                raise SearchIndexError(
                    f"{path} was made with another {name}: expected {as_written(settings[name])}, found "
                    f"{as_written(written[name])}; choose another --output"
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


def _state(file: Path) -> list[int]:
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns]


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
    write_atomically(path, save(arrays, {"format": FORMAT, "content": content}))


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
        number, classes = len(arrays["recording"]), len(content["settings"]["class_names"])
        shapes = {"roots": (number, classes), "offsets": (number + 1,), "starts": (number,), "ends": (number,)}
        if any(arrays[name].shape != shape for name, shape in shapes.items()):
            raise ValueError(f"expected {number} windows of {classes} classes in every array")
    except SearchIndexError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SearchIndexError(f"{path} is damaged ({error}): delete it, and write the index again") from error
    return content, arrays


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

    Raises:
        ValueError: if a timeline cannot be made with the recogniser, or its window has gaps.
    """

    def __init__(self, model: str, seconds: float | None = None, stride: float = 1.0, batch_size: int = 8):
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
        self._recognise = pipeline(
            "action-recognition", model=self.model, processor=self.processor, device=self.model.device
        )
        self._seconds, self._stride, self._batch_size = seconds, stride, batch_size
        self.settings = {
            "model": model,
            "action_model": weights_fingerprint(self.model.base_model.action_model),
            "training": stable_seed(json.dumps(training_record(model), sort_keys=True)),
            "class_names": self.processor.class_names,
            "codes_per_word": self.processor.codes_per_word,
            "seconds": seconds,
            "stride": None if seconds is None else stride,
        }

    def __call__(self, files: list[str]) -> Iterator[Recording]:
        """Yields a [`Recording`] for each file; its `state` is empty."""
        from action_llm_datasets.progress import Progress

        with Progress("reading", len(files), "recordings") as bar:
            for recording in self._timelines(files) if self._seconds is not None else self._wholes(files):
                yield recording
                bar.update()

    def _wholes(self, files: list[str]) -> Iterator[Recording]:
        answers = self._recognise(
            (file for file in files), top_k=None, return_tokens=True, on_error="return", batch_size=self._batch_size
        )
        for file, answer in zip(files, answers, strict=True):
            if "error" in answer[0]:
                yield Recording(file, [], reason=answer[0]["error"])
                continue
            scores = {entry["label"]: entry["score"] for entry in answer}
            words = answer[0]["tokens"]
            tokens = [int(part) for word in words for part in word["token"][len("<act_") : -1].split("><act_")]
            probabilities = np.array([scores[name] for name in self.processor.class_names])
            yield Recording(file, [], [Window(words[0]["start"], words[-1]["end"], probabilities, tokens)])

    def _timelines(self, files: list[str]) -> Iterator[Recording]:
        for file in files:
            try:
                timeline = self.model.timeline(
                    self.processor, file, seconds=self._seconds, stride=self._stride, batch_size=self._batch_size
                )
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
