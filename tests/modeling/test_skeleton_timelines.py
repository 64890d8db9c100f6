"""Timelines of skeletons: windows over frames, and labels only where somebody is seen."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from skeleton_people import frames_of, person, recording, row
from tiny_models import CLASS_NAMES, tiny_recogniser

from action_llm.feature_extraction_skeleton import SkeletonFeatureExtractor
from action_llm.recording_parts import as_recording
from action_llm.skeleton_files import SkeletonRecording
from action_llm.sliding_windows import windows_of_frames


@pytest.fixture(scope="module")
def recogniser():
    return tiny_recogniser("skeletons")


def test_time_without_anybody_has_no_label(recogniser):
    """A person is seen from 3.2 to 4.5 s; windows of two seconds reach further."""
    model, processor = recogniser
    scene = recording([(0, np.zeros((240, 25, 3), np.float32)), (96, person(39))])
    (span,) = model.timeline(processor, scene, seconds=2.0, stride=0.5).spans()
    assert (span.start, span.end) == (3.0, 4.5)
    steps = list(model.stream_timeline(processor, scene, seconds=2.0, stride=0.5))
    assert [step.start for step in steps if not np.isnan(step.probabilities).any()] == [3.0, 3.5, 4.0]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_person_has_the_steps_of_a_recording_without_the_others(recogniser, batch_size):
    model, processor = recogniser
    settings = {"seconds": 1.0, "stride": 0.5}
    nobody = (0, np.zeros((150, 25, 3), np.float32))
    parts = {3: (0, person(150)), 7: (45, person(45, seed=1, place=(1.5, 0, 3)))}
    scene = replace(recording(list(parts.values())), body_ids=np.array(list(parts)))
    steps = list(model.stream_timeline(processor, scene, **settings, batch_size=batch_size, per_person=True))
    times = {number: [step.start for step in steps if step.person == number] for number in parts}
    assert times == {3: [0.5 * place for place in range(10)], 7: [1.5, 2.0, 2.5]}
    assert [step.start for step in steps] == sorted(step.start for step in steps)
    for number, part in parts.items():
        alone = model.stream_timeline(processor, recording([nobody, part]), **settings)
        expected = [step for step in alone if not np.isnan(step.probabilities).any()]
        found = [step for step in steps if step.person == number]
        assert [step.known for step in found] == [step.known for step in expected]
        for step, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(step.probabilities, other.probabilities, atol=1e-6)


def test_each_person_has_a_timeline_while_they_are_seen(recogniser):
    """Person 3 leaves the picture for two seconds and comes back under another id."""
    model, processor = recogniser
    settings = {"seconds": 1.0, "stride": 1.0}
    empty = (0, np.zeros((180, 25, 3), np.float32))
    parts = {3: (30, person(30)), 7: (45, person(45, seed=1, place=(1.5, 0, 3))), 8: (120, person(30))}
    scene = replace(recording([empty, *parts.values()]), body_ids=np.array([1, *parts]))
    timelines = model.timeline_per_person(processor, scene, **settings)
    times = {number: (timeline.starts[0], timeline.ends[-1]) for number, timeline in timelines.items()}
    assert times == {3: (1.0, 5.0), 7: (1.0, 3.0)}
    assert (timelines[3].best() < 0).tolist() == [False, True, True, False]
    assert timelines[3].caption().startswith("2 actions in 4.0 s: ")
    steps = list(model.stream_timeline(processor, scene, **settings, per_person=True))
    for number, timeline in timelines.items():
        own = {step.start: step.probabilities for step in steps if step.person == number}
        for start, probabilities in zip(timeline.starts, timeline.probabilities, strict=True):
            expected = own.get(start, np.full(len(CLASS_NAMES), np.nan))
            np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert model.timeline_per_person(processor, recording([empty]), **settings) == {}


def test_time_without_anybody_is_a_step_of_nobody(recogniser):
    model, processor = recogniser
    scene = recording([(0, np.zeros((120, 25, 3), np.float32)), (60, person(30))])
    steps = list(model.stream_timeline(processor, scene, seconds=1.0, stride=1.0, per_person=True))
    assert [step.person is None for step in steps] == [True, True, False, True]
    assert [bool(np.isnan(step.probabilities).all()) for step in steps] == [True, True, False, True]


def test_new_class_names_are_listed_in_the_prompt_as_by_the_pipeline(recogniser, monkeypatch):
    model, processor = recogniser
    seen, call = [], type(processor).__call__

    def noted(self, *arguments, **settings):
        seen.append(settings["list_classes"])
        return call(self, *arguments, **settings)

    monkeypatch.setattr(type(processor), "__call__", noted)
    for names in (None, CLASS_NAMES[:2], ["hand waving", "juggling"]):
        model.timeline(processor, recording([(0, person(20))]), class_names=names)
    assert seen == [None, None, True]


@pytest.mark.parametrize(("cleaned", "people"), [(True, 2), (False, 1)])
def test_people_of_a_row_are_the_same_in_its_windows(cleaned, people):
    """Tracked bodies of fewer than eleven frames are left out; people of a cleaned row are not."""
    scene = recording([(0, person(60)), (20, person(8, place=(1.5, 0, 3)))])
    scene = row(scene) | {"cleaned": cleaned}
    (window,) = windows_of_frames([as_recording(scene)], 4.0, 1.0)
    extractor = SkeletonFeatureExtractor(num_persons=2)
    expected = frames_of(extractor, scene)
    assert expected.any((0, 2, 3)).sum() == people
    np.testing.assert_array_equal(frames_of(extractor, window.content), expected)


@pytest.mark.parametrize("seed", range(8))
def test_windows_hold_the_frames_of_their_time_wherever_the_recording_is_cut(seed):
    generator = np.random.default_rng(seed)
    length, people, fps = int(generator.integers(1, 80)), 3, float(generator.choice([5, 7.3, 29.97, 30]))
    present = generator.random((length, people)) < 0.6
    joints = (generator.normal(size=(length, people, 25, 3)) * present[..., None, None]).astype(np.float32)
    whole = SkeletonRecording(joints, present, np.arange(people), "kinect25", fps, "cut")
    seconds = float(generator.uniform(0.2, 2))
    stride = seconds * float(generator.choice([1, 0.5, 0.37]))
    cuts = [0, *sorted(generator.integers(0, length + 1, 5).tolist()), length]
    parts = (
        replace(whole, keypoints=joints[first:last], present=present[first:last]) for first, last in pairwise(cuts)
    )
    windows = list(windows_of_frames(parts, seconds, stride))
    duration = length / fps
    assert windows[-1].end == duration
    for number, window in enumerate(windows):
        assert window.start == number * stride and window.end == pytest.approx(min(window.start + seconds, duration))
        assert window.known == window.end
        first = min(round(window.start * fps), length - 1)
        last = max(round(window.end * fps), first + 1)
        seen = sorted(np.flatnonzero(present[first:last].any(0)))
        order = np.argsort(window.content.body_ids)
        assert window.content.body_ids[order].tolist() == seen
        np.testing.assert_array_equal(window.content.keypoints[:, order], joints[first:last, seen])
