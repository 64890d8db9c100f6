"""Timelines: which action happens when in a long recording, by a window that slides over it (`sliding_windows`)."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .action_sentence import ActionEncoderOutput, token_distance
from .class_names import check_class_names, must_list_classes
from .feature_extraction_skeleton import TooFewJointsError
from .modeling_vtem import VisualEvent
from .pose_estimators import PoseEstimator, load_pose_estimator
from .recording_parts import as_recording, each_body, join_bodies
from .skeleton_bodies import valid_joints
from .skeleton_files import SkeletonRecording
from .sliding_windows import SLACK, EventBlock, Window, check_window, windows_of_events, windows_of_frames
from .video_files import is_video

# Action models that timelines can be made with.
ACTION_MODELS = ("action_vqvae", "vtem")


class Span(NamedTuple):
    """
    A span in which `label` is the most likely class.

    Attributes:
        start, end: seconds from the start of the recording.
        label: name of the class.
        probability: its mean probability in the span.
        known: seconds of the recording that were read when the label was known at the start of the span.
        is_doubtful: whether half of its steps or more are (see [`Step`]).
    """

    start: float
    end: float
    label: str
    probability: float
    known: float
    is_doubtful: bool = False


class Step(NamedTuple):
    """
    A step of a timeline.

    Attributes:
        start, end: seconds from the start of the recording.
        probabilities: mean class probabilities of the windows that contain the step, float64 (num_classes,); NaN if nobody is
            seen in the step itself, or well enough in its windows.
        known: seconds of the recording that were read when the last of these windows was complete.
        is_doubtful: whether these windows are unlike the recordings that the model knows, so that the probabilities mean
            little: their mean [`~action_sentence.token_distance`] is above the `familiar_distance` of the action model.
        person: with `per_person`, the number of the track of the person who is recognised; None if nobody is seen.
    """

    start: float
    end: float
    probabilities: np.ndarray
    known: float
    is_doubtful: bool = False
    person: int | None = None


@dataclass
class Timeline:
    """
    Class probabilities along a recording, or along the part of it in which a person is seen.

    Attributes:
        class_names: names of the classes.
        starts, ends, known: of each [`Step`], in seconds, float64 (num_steps,); a step ends where the next begins.
        probabilities: of each step, float64 (num_steps, num_classes); rows sum to 1, or are NaN.
        is_doubtful: of each step, bool (num_steps,).
        events: the visual events of a video, in the order of the sentence, without latents; none of skeletons.
    """

    class_names: list[str]
    starts: np.ndarray
    ends: np.ndarray
    probabilities: np.ndarray
    known: np.ndarray
    events: list[VisualEvent]
    is_doubtful: np.ndarray

    def best(self) -> np.ndarray:
        """Index of the most likely class in each step, int64 (num_steps,); -1 if nobody is seen."""
        is_seen = ~np.isnan(self.probabilities).any(axis=1)
        return np.where(is_seen, np.where(is_seen[:, None], self.probabilities, 0).argmax(axis=1), -1)

    def spans(self) -> list[Span]:
        """Merges consecutive steps with the same most likely class into spans. Steps in which nobody is seen have none."""
        best = self.best()
        borders = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
        return [
            Span(
                float(self.starts[first]),
                float(self.ends[last - 1]),
                self.class_names[best[first]],
                float(self.probabilities[first:last, best[first]].mean()),
                float(self.known[first]),
                bool(self.is_doubtful[first:last].mean() >= 0.5),
            )
            for first, last in itertools.pairwise(borders)
            if best[first] >= 0
        ]

    def caption(self, nothing: str | None = None) -> str:
        """
        Tells the actions in their order, by the names of their classes: "2 actions in 9.0 s: throw (0.5 to 3.0 s) and then wave
        (4.0 to 8.5 s)." Doubtful spans are marked.

        Args:
            nothing: class of the time without an action, which is left out.
        """
        length = f"{self.ends[-1] - self.starts[0]:.1f} s"
        actions = [span for span in self.spans() if span.label != nothing]
        if not actions:
            return f"No action in {length}."
        doubt = ", unlike the training recordings"
        told = [
            f"{span.label} ({span.start:.1f} to {span.end:.1f} s{doubt if span.is_doubtful else ''})"
            for span in actions
        ]
        *before, last = told
        text = f"{', then '.join(before)} and then {last}" if before else last
        return f"{len(told)} action{'s' * (len(told) > 1)} in {length}: {text}."


def check_reads_timelines(config) -> None:
    """Raises `ValueError` for a recogniser that cannot read long recordings.

    Args:
        config ([`ActionLLMConfig`]): configuration of the recogniser.
    """
    action_config = getattr(config, "action_config", None)
    actual = None if action_config is None else action_config.model_type
    if actual not in ACTION_MODELS:
        raise ValueError(
            f"a timeline needs a recogniser whose action model is one of {', '.join(ACTION_MODELS)}, got {actual}. Recognise "
            "clips with pipeline('action-recognition'), or train a recogniser with run_line.py --paper vt_lvlm_ar."
        )
    if actual == "vtem" and not action_config.quantize:
        raise ValueError("a timeline needs tokens, but the vtem of this recogniser has no codebook (quantize: false).")


def segments_per_second(feature_extractor) -> float:
    """The segments per second of a [`VideoFeatureExtractor`]; `ValueError` if it divides videos into equally many instead."""
    if feature_extractor.segment_seconds is None:
        raise ValueError("a timeline has segments of equal duration: set segment_seconds; it is None.")
    return 1 / feature_extractor.segment_seconds


def stream_events(action_model, batches: Iterable[dict[str, torch.Tensor]], frame_rate: float) -> Iterator[EventBlock]:
    """
    Yields the visual events of a video of any length, block by block. Frames and features are not kept.

    Args:
        action_model ([`VTEMModel`]): the mapper.
        batches: `pixel_values` or `input_features` of consecutive segments, in batches of any length, as arguments of
            [`~VisualEventStream.push`].
        frame_rate (`float`): segments per second.

    Raises:
        ValueError: if the action model cannot stream, or there are no segments.
    """
    if not hasattr(action_model, "stream"):
        raise ValueError(f"expected a vtem, which can stream, got a {action_model.config.model_type}.")
    stream = action_model.stream(frame_rate)
    end = 0.0
    for batch in batches:
        ((name, segments),) = batch.items()
        for segment in segments:
            ended = stream.push(**{name: segment[None]})
            if stream.seconds > end:
                end = stream.seconds
                yield EventBlock(ended, stream.unfinished(), end)
    ended = stream.finish()
    if not end and not ended:
        raise ValueError("the video has no segments.")
    yield EventBlock(ended, [], max([end, *(event.end for event in ended)]))


def stream_timeline(
    model,
    processor,
    recording,
    seconds: float = 4.0,
    stride: float = 1.0,
    class_names: Sequence[str] | None = None,
    batch_size: int = 1,
    fps: float | None = None,
    pose: str | PoseEstimator | None = None,
    mirrored: bool = False,
    per_person: bool = False,
) -> Iterator[Step]:
    """
    Recognises which actions happen in a recording while it is read. Memory does not grow with the recording.

    A step is yielded when all windows that contain it are complete: `seconds` after its start. A window over the events of a
    video also waits, for up to `seconds`, for those that have not ended. Everything is decoded, searched for people and turned
    into events once. Windows over skeletons are encoded as a whole, because a recogniser of skeletons was trained on clips
    that are centred and turned by their own first frames.

    Args:
        model ([`ActionLLMForClassification`]): a model whose action model is an [`ActionVQVAEModel`], or a [`VTEMModel`] with a
            codebook.
        processor ([`ActionLLMProcessor`]): the processor of the model.
        recording: for a model of videos, a video of any length, in any form that the feature extractor reads. For a model of
            skeletons, a recording in any form that its feature extractor reads, a video, or an iterator of consecutive pieces
            of a recording ([`~pose_estimation.PoseEstimator.stream`]).
        seconds (`float`, defaults to 4.0): length of the window.
        stride (`float`, defaults to 1.0): seconds between the starts of windows.
        class_names (`Sequence[str]`, *optional*): class names to score, instead of the trained classes. They are listed in the
            prompt if the model was not trained on all of them.
        batch_size (`int`, defaults to 1): number of windows that are scored at a time; more of them delay the steps.
        fps (`float`, *optional*): frames per second of skeletons; of a video, those at which poses are estimated.
        pose (`str` or [`~pose_estimation.PoseEstimator`], *optional*): the pose estimator with which a model of skeletons reads
            videos; by default the first whose weights are on this machine.
        mirrored (`bool`, defaults to `False`): whether the video that a model of skeletons reads is a mirror image.
        per_person (`bool`, defaults to `False`): whether a model of skeletons recognises each body alone: there is a step for
            each that is seen in its time, in the order of their numbers, or one without a person. Bodies that a sensor took
            for different people are joined in a whole recording ([`~recording_parts.join_bodies`]), not in pieces or a video.

    Raises:
        ValueError: if the model cannot read long recordings, or a setting is out of range.
    """
    names = _check(model, processor, seconds, stride, class_names, batch_size)
    blocks_or_pieces = _read(model, processor, recording, fps, pose, mirrored, per_person)
    return _steps(model, processor, blocks_or_pieces, seconds, stride, names, batch_size, per_person)


def timeline(
    model,
    processor,
    recording,
    seconds: float = 4.0,
    stride: float = 1.0,
    class_names: Sequence[str] | None = None,
    batch_size: int = 8,
    fps: float | None = None,
    pose: str | PoseEstimator | None = None,
    mirrored: bool = False,
) -> Timeline:
    """
    Recognises which actions happen in a long recording, and when. The timeline has the steps of [`stream_timeline`], which also
    describes the arguments and errors; `batch_size` is higher by default, because nobody waits for single steps.
    """
    names = _check(model, processor, seconds, stride, class_names, batch_size)
    events: list[VisualEvent] = []

    def noted(parts):
        for part in parts:
            if isinstance(part, EventBlock):
                # An hour has thousands of events; their latents are not needed.
                events.extend(event._replace(latent=None) for event in part.ended)
            yield part

    parts = noted(_read(model, processor, recording, fps, pose, mirrored))
    steps = list(_steps(model, processor, parts, seconds, stride, names, batch_size))
    return _timeline_of(steps, names or processor.class_names, events)


def timeline_per_person(
    model,
    processor,
    recording,
    seconds: float = 4.0,
    stride: float = 1.0,
    class_names: Sequence[str] | None = None,
    batch_size: int = 8,
    fps: float | None = None,
    pose: str | PoseEstimator | None = None,
    mirrored: bool = False,
) -> dict[int, Timeline]:
    """
    Recognises which actions each person of a long recording of skeletons does, and when. The timelines have the steps of
    [`stream_timeline`] with `per_person`, which also describes the arguments and errors.

    Returns:
        `dict[int, Timeline]`: number of a person's track → their timeline, in order of first appearance; empty if nobody is
        seen. It begins with the first step in which the person is seen, and ends with the last; its steps in between in which
        they are not seen have NaN.
    """
    names = _check(model, processor, seconds, stride, class_names, batch_size)
    parts = _read(model, processor, recording, fps, pose, mirrored, per_person=True)
    nobody = np.full(len(names or processor.class_names), np.nan)
    steps_without: list[Step] = []
    people: dict[int, dict[int, Step]] = {}  # the steps of each person by their place in the recording
    for step in _steps(model, processor, parts, seconds, stride, names, batch_size, per_person=True):
        if not steps_without or steps_without[-1].start < step.start:
            steps_without.append(step._replace(probabilities=nobody, is_doubtful=False))
        if step.person is not None:
            people.setdefault(step.person, {})[len(steps_without) - 1] = step
    return {
        person: _timeline_of(
            [own.get(place, steps_without[place]) for place in range(min(own), max(own) + 1)],
            names or processor.class_names,
            [],
        )
        for person, own in people.items()
    }


def _timeline_of(steps: Sequence[Step], class_names: list[str], events: list[VisualEvent]) -> Timeline:
    starts, ends, probabilities, known, is_doubtful, _ = (np.array(values) for values in zip(*steps, strict=True))
    return Timeline(class_names, starts, ends, probabilities, known, events, is_doubtful)


def _check(model, processor, seconds, stride, class_names, batch_size) -> list[str] | None:
    """Checks settings before a long recording is read; returns the class names."""
    check_reads_timelines(model.config)
    check_window(seconds, stride)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    return None if class_names is None else check_class_names(class_names, processor.class_names or ())


def _read(
    model, processor, recording, fps, pose, mirrored, per_person=False
) -> Iterator[EventBlock] | Iterator[SkeletonRecording]:
    """The events of a video, or the skeletons of a recording, part by part."""
    extractor = processor.feature_extractor
    if model.config.action_config.model_type == "vtem":
        of_skeletons = {"fps": fps, "pose": pose, "mirrored": mirrored, "per_person": per_person}
        for name, setting in of_skeletons.items():
            if setting:
                raise ValueError(f"{name}: a setting of skeletons, but this model reads videos; leave it out.")
        rate = segments_per_second(extractor)
        batches = ({"pixel_values": segments} for segments in extractor.stream(recording))
        return stream_events(model.base_model.action_model, batches, rate)
    if isinstance(recording, Iterator):
        return recording
    if is_video(recording):
        estimator = load_pose_estimator(pose) if pose is None or isinstance(pose, str) else pose
        return estimator.stream(recording, fps=fps, mirrored=mirrored)
    whole = as_recording(extractor.read(recording, fps=fps))
    return iter([join_bodies(whole, extractor.cleaning) if per_person else whole])


def _steps(
    model,
    processor,
    parts: Iterable,
    seconds: float,
    stride: float,
    class_names: list[str] | None,
    batch_size: int,
    per_person: bool = False,
) -> Iterator[Step]:
    """The steps of a recording, from its events or skeletons."""
    if model.config.action_config.model_type == "vtem":
        windows, score = windows_of_events(parts, seconds, stride), _ScoreEvents(model, processor, class_names)
    else:
        windows, score = windows_of_frames(parts, seconds, stride), _ScoreSkeletons(model, processor, class_names)
    familiar = getattr(model.config.action_config, "familiar_distance", None)
    familiar = math.inf if familiar is None else familiar
    nobody = np.full(len(class_names or processor.class_names), np.nan)
    # For each unfinished step, the windows that contain it, by the person whom they show; None is everybody.
    scored: dict[int, dict[int | None, list[_Scored]]] = {}

    def finished_steps(number: int, window: Window, shown: dict) -> Iterator[Step]:
        """The steps of this number; `window` is the last one that contains them, and `shown` its content by person."""
        start, end = number * stride, (number + 1) * stride
        end = end if end <= window.end + SLACK * stride else window.end
        of_step = scored.pop(number)
        seen = [person for person in shown if _shows_somebody(shown[person], window.start, start, end)]
        for person in seen:
            found = [of for of in of_step[person] if not np.isnan(of.probabilities).any()] or of_step[person]
            probabilities, distances = zip(*found, strict=True)
            is_doubtful = bool(np.mean(distances) > familiar)
            yield Step(start, end, np.mean(probabilities, axis=0), window.known, is_doubtful, person)
        if not seen:
            yield Step(start, end, nobody.copy(), window.known)

    number, window, shown = 0, None, {}
    while batch := list(itertools.islice(windows, batch_size)):
        contents = [
            dict(sorted(each_body(window.content).items())) if per_person else {None: window.content}
            for window in batch
        ]
        to_score = [content for shown in contents for content in shown.values()]
        scores = (score(to_score[first : first + batch_size]) for first in range(0, len(to_score), batch_size))
        results = itertools.chain.from_iterable(scores)
        for window, shown in zip(batch, contents, strict=True):
            of_window = {person: next(results) for person in shown}
            for step in range(number, _num_steps(window.end, stride)):
                of_step = scored.setdefault(step, {})
                for person, of_person in of_window.items():
                    of_step.setdefault(person, []).append(of_person)
            # The next window begins after this step.
            yield from finished_steps(number, window, shown)
            number += 1
    for step in sorted(scored):
        yield from finished_steps(step, window, shown)


def _num_steps(end: float, stride: float) -> int:
    return max(1, math.ceil(end / stride - SLACK))


class _Scored(NamedTuple):
    """What a window was recognised as: its class probabilities, float64 (num_classes,), and its token distance."""

    probabilities: np.ndarray
    token_distance: float


def _shows_somebody(content, window_start: float, start: float, end: float) -> bool:
    """Whether anybody is seen in a part of a window. Events of a video are there whether they show people or not."""
    if not isinstance(content, SkeletonRecording):
        return True
    before = round(window_start * content.fps)
    first = min(round(start * content.fps) - before, len(content.present) - 1)
    last = max(round(end * content.fps) - before, first + 1)
    return bool(valid_joints(content.keypoints[first:last], content.present[first:last]).any())


class _ScoreEvents:
    """Recognises windows over events."""

    def __init__(self, model, processor, class_names: list[str] | None):
        self._model, self._processor = model, processor
        listed = must_list_classes(class_names, processor.class_names)
        self._names = {"class_names": class_names, "list_classes": listed}
        self._known: dict[tuple, np.ndarray] = {}

    @torch.no_grad()
    def __call__(self, windows: list[list[VisualEvent]]) -> list[_Scored]:
        sentences = [tuple(event.action_id for event in events) for events in windows]
        # If nothing happens, the windows of a batch and those before have the same sentence, which is scored once.
        distinct = sorted(set(sentences) - set(self._known), key=lambda words: (len(words), words))
        known = {words: self._known[words] for words in sentences if words in self._known}
        if distinct:
            inputs = self._processor(action_ids=distinct, **self._names)
            probabilities = self._model(**_on_device(self._model, inputs)).probabilities
            known |= zip(distinct, probabilities.double().cpu().numpy(), strict=True)
        self._known = known
        distances = map(self._token_distance, windows)
        return [_Scored(known[words], distance) for words, distance in zip(sentences, distances, strict=True)]

    def _token_distance(self, events: list[VisualEvent]) -> float:
        latents = torch.stack([event.latent for event in events])
        codes = self._model.base_model.action_model.quantizer.weight[[event.action_id for event in events]]
        mask = torch.ones(1, len(events), dtype=torch.long, device=latents.device)
        sentence = ActionEncoderOutput(mask, mask, codes[None].to(latents), latents[None])
        return float(token_distance(sentence))


class _ScoreSkeletons:
    """Recognises windows over skeletons; the probabilities are NaN if nobody is seen well enough."""

    def __init__(self, model, processor, class_names: list[str] | None):
        self._model, self._processor = model, processor
        listed = must_list_classes(class_names, processor.class_names)
        self._names = {"class_names": class_names, "list_classes": listed}
        self._num_classes = len(class_names or processor.class_names)

    @torch.no_grad()
    def __call__(self, windows: list[SkeletonRecording]) -> list[_Scored]:
        try:
            inputs = self._processor(windows, **self._names)
        except TooFewJointsError:
            if len(windows) == 1:
                return [_Scored(np.full(self._num_classes, np.nan), math.nan)]
            return [scored for window in windows for scored in self([window])]
        outputs = self._model(**_on_device(self._model, inputs))
        distances = outputs.token_distance
        distances = [math.nan] * len(windows) if distances is None else distances.tolist()
        return list(map(_Scored, outputs.probabilities.double().cpu().numpy(), distances))


def _on_device(model, inputs) -> dict:
    return {name: values.to(model.device) for name, values in inputs.items()}


__all__ = [
    "Span",
    "Step",
    "Timeline",
    "check_reads_timelines",
    "segments_per_second",
    "stream_events",
    "stream_timeline",
    "timeline",
    "timeline_per_person",
]
