"""Timelines of long videos: when did which action happen (VT-LVLM-AR over a sliding window)."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from .class_names import check_class_names
from .modeling_vtem import VisualEvent


class Span(NamedTuple):
    """Seconds from `start` to `end` in which `label` is the most likely class, with its mean probability."""

    start: float
    end: float
    label: str
    probability: float


@dataclass
class Timeline:
    """
    Class probabilities along a video.

    Attributes:
        class_names: the classes.
        starts, ends: float64 (num_steps,), seconds; every step ends where the next one begins.
        probabilities: float64 (num_steps, num_classes), the mean over the windows that a step is in; rows sum to 1.
        events: the visual events of the video, in order, without their latents.
    """

    class_names: list[str]
    starts: np.ndarray
    ends: np.ndarray
    probabilities: np.ndarray
    events: list[VisualEvent]

    def spans(self) -> list[Span]:
        """Steps that follow each other with the same most likely class, as one."""
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
    """Seconds from `start` to `end`, and the numbers of the events in it, `first` up to `last` without it."""

    start: float
    end: float
    first: int
    last: int


def stream_events(action_model, feature_extractor, recording) -> Iterator[VisualEvent]:
    """
    Visual events of a video of any length, as they end; neither its frames nor its features are kept.

    Args:
        action_model ([`VTEMModel`]): the mapper.
        feature_extractor ([`VideoFeatureExtractor`]): with `segment_seconds`.
        recording: a path, an open file, a folder of pictures or an array of frames.
    """
    if not hasattr(action_model, "stream"):
        raise ValueError(f"a {action_model.config.model_type} reads whole recordings: only a vtem streams.")
    stream = None
    for pixel_values in feature_extractor.stream(recording):
        if stream is None:
            stream = action_model.stream(1 / feature_extractor.segment_seconds)
        yield from stream.push(pixel_values)
    yield from stream.finish()


def check_reads_timelines(config) -> None:
    """Raises `ValueError` for a recogniser that reads no timelines.

    Args:
        config ([`ActionLLMConfig`]): of the recogniser.
    """
    action_config = getattr(config, "action_config", None)
    if action_config is None or action_config.model_type != "vtem":
        reads = "none" if action_config is None else f"{action_config.model_type}, which reads whole recordings"
        raise ValueError(
            f"a timeline needs a recogniser whose action model is a vtem, which reads long videos; this one has {reads}. "
            "Recognise clips with pipeline('action-recognition'), or train a recogniser with run_line.py --line vt_lvlm_ar."
        )
    if not action_config.quantize:
        raise ValueError(
            "a timeline is read from tokens: the vtem of this recogniser has no codebook (quantize: false)."
        )


def check_window(seconds: float, stride: float) -> None:
    """Raises `ValueError` for a window that does not slide over all of a video."""
    if not 0 < stride <= seconds:
        raise ValueError(
            f"the stride must be above 0 and at most the window of {seconds} s, or it leaves gaps; got {stride}."
        )


def sliding_windows(events: Sequence[VisualEvent], seconds: float, stride: float) -> Iterator[Window]:
    """
    Windows over the events of a video. An event is in a window if its middle is; where none is, the one that is going on.

    Args:
        events (`Sequence[VisualEvent]`): in order.
        seconds (`float`): length of a window; that of the video, where it is shorter.
        stride (`float`): seconds between the starts of windows.

    Raises:
        ValueError: lengths that are not positive, a stride that leaves gaps, no event.
    """
    check_window(seconds, stride)
    if not events:
        raise ValueError("there are no events.")
    duration = events[-1].end
    middles = [(event.start + event.end) / 2 for event in events]
    starts = [event.start for event in events]
    count = max(1, int(np.ceil(max(duration - seconds, 0) / stride - 1e-9)) + 1)
    for index in range(count):
        start = index * stride
        end = min(start + seconds, duration)
        first, last = bisect_right(middles, start), bisect_right(middles, end)
        if first == last:
            first = max(bisect_right(starts, (start + end) / 2) - 1, 0)
            last = first + 1
        yield Window(start, end, first, last)


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
    Recognises what happens in a long video, and when.

    Args:
        model ([`ActionLLMForClassification`]): with a [`VTEMModel`] that has a codebook.
        processor ([`ActionLLMProcessor`]): the one that the model was trained with.
        recording: whatever its feature extractor reads.
        seconds (`float`, defaults to 4.0), stride (`float`, defaults to 1.0): of the window that slides over the events.
        class_names (`Sequence[str]`, *optional*): any list, instead of the trained classes.
        batch_size (`int`, defaults to 8): windows that are read at a time.

    Raises:
        ValueError: the action model does not stream or has no codebook; settings that make no windows.
    """
    check_reads_timelines(model.config)
    # Whatever is wrong shows before a long video is read.
    check_window(seconds, stride)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    names = processor.class_names
    if class_names is not None:
        names = class_names = check_class_names(class_names, names or ())
    # Of an hour, thousands: what is not read of them is not kept.
    events = [
        event._replace(latent=None)
        for event in stream_events(model.base_model.action_model, processor.feature_extractor, recording)
    ]
    windows = list(sliding_windows(events, seconds, stride))
    sentences = [tuple(event.action_id for event in events[w.first : w.last]) for w in windows]
    # Where nothing happens, windows are alike.
    different = sorted(set(sentences), key=len)
    found = {}
    for start in range(0, len(different), batch_size):
        chosen = different[start : start + batch_size]
        inputs = processor(action_ids=chosen, class_names=class_names)
        inputs = {name: values.to(model.device) for name, values in inputs.items()}
        found |= zip(chosen, model(**inputs).probabilities.double().cpu().numpy(), strict=True)
    steps = max(1, int(np.ceil(events[-1].end / stride - 1e-9)))
    totals, counts = np.zeros((steps, len(names))), np.zeros(steps)
    for window, sentence in zip(windows, sentences, strict=True):
        covered = slice(round(window.start / stride), max(int(np.ceil(window.end / stride - 1e-9)), 1))
        totals[covered] += found[sentence]
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
