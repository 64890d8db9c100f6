"""Timelines of long videos: which action happens when (VT-LVLM-AR over a sliding window)."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from .class_names import check_class_names
from .modeling_vtem import VisualEvent


class Span(NamedTuple):
    """A span from `start` to `end` seconds in which `label` is the most likely class, and its mean probability."""

    start: float
    end: float
    label: str
    probability: float


@dataclass
class Timeline:
    """
    Class probabilities along a video.

    Attributes:
        class_names: names of the classes.
        starts, ends: start and end of each step in seconds, float64 (num_steps,); a step ends where the next begins.
        probabilities: mean class probabilities of the windows that contain a step, float64 (num_steps, num_classes); rows sum
            to 1.
        events: the visual events of the video, in the order of the sentence, without latents.
    """

    class_names: list[str]
    starts: np.ndarray
    ends: np.ndarray
    probabilities: np.ndarray
    events: list[VisualEvent]

    def spans(self) -> list[Span]:
        """Merges consecutive steps with the same most likely class into spans."""
        best = self.probabilities.argmax(axis=1)
        borders = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
        return [
            Span(
                float(self.starts[first]),
                float(self.ends[last - 1]),
                self.class_names[best[first]],
                float(self.probabilities[first:last, best[first]].mean()),
            )
            for first, last in pairwise(borders)
        ]


class Window(NamedTuple):
    """A window from `start` to `end` seconds. It contains the events with the indices `events`."""

    start: float
    end: float
    events: list[int]


def stream_events(action_model, feature_extractor, recording) -> Iterator[VisualEvent]:
    """
    Yields the visual events of a video of any length, each as soon as it ends. Frames and features are not kept.

    Args:
        action_model ([`VTEMModel`]): the mapper.
        feature_extractor ([`VideoFeatureExtractor`]): a feature extractor with `segment_seconds`.
        recording: a path, an open file, a folder of frames or an array of frames.

    Raises:
        ValueError: if the action model cannot stream.
    """
    if not hasattr(action_model, "stream"):
        raise ValueError(f"expected a vtem, which can stream, got a {action_model.config.model_type}.")
    stream = None
    for pixel_values in feature_extractor.stream(recording):
        if stream is None:
            stream = action_model.stream(1 / feature_extractor.segment_seconds)
        yield from stream.push(pixel_values)
    yield from stream.finish()


def check_reads_timelines(config) -> None:
    """Raises `ValueError` for a recogniser that cannot read long videos.

    Args:
        config ([`ActionLLMConfig`]): configuration of the recogniser.
    """
    action_config = getattr(config, "action_config", None)
    if action_config is None or action_config.model_type != "vtem":
        actual = None if action_config is None else action_config.model_type
        raise ValueError(
            f"a timeline needs a recogniser of long videos, whose action model is a vtem, got {actual}. Recognise clips with "
            "pipeline('action-recognition'), or train a recogniser with run_line.py --paper vt_lvlm_ar."
        )
    if not action_config.quantize:
        raise ValueError("a timeline needs tokens, but the vtem of this recogniser has no codebook (quantize: false).")


def check_window(seconds: float, stride: float) -> None:
    """Raises `ValueError` for a stride that is not positive, or would leave gaps between windows."""
    if not 0 < stride <= seconds:
        raise ValueError(
            f"the stride must be above 0 and at most the window of {seconds} s, or it leaves gaps; got {stride}."
        )


def sliding_windows(events: Sequence[VisualEvent], seconds: float, stride: float) -> Iterator[Window]:
    """
    Yields windows over the events of a video. For each place of the frame, a window contains the events whose middle is in it;
    if there are none, it contains the event at the middle of the window.

    Args:
        events (`Sequence[VisualEvent]`): the events of the whole video, in the order of the sentence.
        seconds (`float`): length of a window; a shorter video is a single window.
        stride (`float`): seconds between the starts of windows.

    Raises:
        ValueError: if the stride is not positive or leaves gaps, or there are no events.
    """
    check_window(seconds, stride)
    if not events:
        raise ValueError("expected at least one event, got none.")
    duration = events[-1].end
    indices = defaultdict(list)
    for index, event in enumerate(events):
        indices[event.place].append(index)
    starts = {place: [events[index].start for index in own] for place, own in indices.items()}
    middles = {
        place: [(events[index].start + events[index].end) / 2 for index in own] for place, own in indices.items()
    }
    count = max(1, int(np.ceil(max(duration - seconds, 0) / stride - 1e-9)) + 1)
    for index in range(count):
        start = index * stride
        end = min(start + seconds, duration)
        inside = []
        for place, own in indices.items():
            first, last = bisect_right(middles[place], start), bisect_right(middles[place], end)
            if first == last:
                first = max(bisect_right(starts[place], (start + end) / 2) - 1, 0)
                last = first + 1
            inside += own[first:last]
        yield Window(start, end, sorted(inside))


@torch.no_grad()
def timeline(
    model,
    processor,
    recording,
    seconds: float = 4.0,
    stride: float = 1.0,
    class_names: Sequence[str] | None = None,
    batch_size: int = 8,
) -> Timeline:
    """
    Recognises which actions happen in a long video, and when.

    Args:
        model ([`ActionLLMForClassification`]): a model whose action model is a [`VTEMModel`] with a codebook.
        processor ([`ActionLLMProcessor`]): the processor of the model.
        recording: a video of any length, in any form that the feature extractor reads.
        seconds (`float`, defaults to 4.0): length of the window that slides over the events.
        stride (`float`, defaults to 1.0): seconds between the starts of windows.
        class_names (`Sequence[str]`, *optional*): class names to score, instead of the trained classes.
        batch_size (`int`, defaults to 8): number of windows that are scored at a time.

    Raises:
        ValueError: if the action model cannot stream or has no codebook, or `stride` or `batch_size` is out of range.
    """
    check_reads_timelines(model.config)
    # Settings are checked before a long video is read.
    check_window(seconds, stride)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    names = processor.class_names
    if class_names is not None:
        names = class_names = check_class_names(class_names, names or ())
    # An hour has thousands of events; their latents are not needed.
    events = [
        event._replace(latent=None)
        for event in stream_events(model.base_model.action_model, processor.feature_extractor, recording)
    ]
    windows = list(sliding_windows(events, seconds, stride))
    sentences = [tuple(events[index].action_id for index in window.events) for window in windows]
    # Many windows can have the same sentence, for instance if nothing happens; each sentence is scored once.
    distinct = sorted(set(sentences), key=len)
    probabilities = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        inputs = processor(action_ids=batch, class_names=class_names)
        inputs = {name: values.to(model.device) for name, values in inputs.items()}
        probabilities |= zip(batch, model(**inputs).probabilities.double().cpu().numpy(), strict=True)
    steps = max(1, int(np.ceil(events[-1].end / stride - 1e-9)))
    totals, counts = np.zeros((steps, len(names))), np.zeros(steps)
    for window, sentence in zip(windows, sentences, strict=True):
        covered = slice(round(window.start / stride), max(int(np.ceil(window.end / stride - 1e-9)), 1))
        totals[covered] += probabilities[sentence]
        counts[covered] += 1
    starts = np.arange(steps) * stride
    ends = np.append(starts[1:], events[-1].end)
    return Timeline(names, starts, ends, totals / counts[:, None], events)


__all__ = [
    "Span",
    "Timeline",
    "Window",
    "check_reads_timelines",
    "check_window",
    "sliding_windows",
    "stream_events",
    "timeline",
]
