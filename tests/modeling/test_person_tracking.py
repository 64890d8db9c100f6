"""Tracking of people: simulated crossings and gaps, whose truth is known."""

import numpy as np
import pytest

from action_llm.person_tracking import Detections, track_people

FPS = 30.0
BODY = np.random.default_rng(0).uniform(-1, 1, (17, 2)) * (20, 60)
# Postures change from frame to frame, and differ between people.
SWING = np.random.default_rng(1).normal(size=(17, 2)) * 8


def detections(people, seed=0):
    """Detections of people at (N, 2) pixels, with noise, in random order; and the person of each."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(people))
    pixels = np.array(
        [
            people[person][1]
            + BODY
            + np.sin(seed / 4 + ord(people[person][0])) * SWING
            + generator.normal(size=(17, 2))
            for person in order
        ]
    )
    pixels = pixels.reshape(-1, *BODY.shape)
    return Detections(pixels, np.full(pixels.shape[:2], 0.9), pixels), [people[person][0] for person in order]


def identities_of(frames):
    """Tracks lists of (person, place) per frame; the identities that each person has, in order of appearance."""
    made = [detections(people, seed) for seed, people in enumerate(frames)]
    numbers = track_people([found for found, _ in made], FPS)
    of_person = {}
    for (_, people), identities in zip(made, numbers, strict=True):
        assert len(set(identities.tolist())) == len(people)
        if -1 in identities:  # they are in the same place, and there seems to be one person
            continue
        for person, identity in zip(people, identities.tolist(), strict=True):
            of_person.setdefault(person, {})[identity] = None
    return {person: list(identities) for person, identities in of_person.items()}


@pytest.mark.parametrize("hidden", [0, 5, 15])
@pytest.mark.parametrize("shift", [0.0, 15.0])
def test_people_who_walk_past_each_other_keep_their_identity(hidden, shift):
    frames = []
    for frame in range(60):
        people = [("a", np.array([100.0 + 5 * frame, 200.0])), ("b", np.array([395.0 - 5 * frame, 200.0 + shift]))]
        frames.append(people[:1] if abs(frame - 29.5) < hidden / 2 else people)
    found = identities_of(frames)
    assert sorted(map(len, found.values())) == [1, 1] and found["a"] != found["b"]


def test_a_person_who_is_lost_and_walks_on_is_the_same_for_two_seconds():
    def walk(gap):
        seen = [*range(20), *range(20 + gap, 40 + gap)]
        return [[("a", np.array([100.0 + 3 * frame, 200.0]))] if frame in seen else [] for frame in range(40 + gap)]

    assert identities_of(walk(45)) == {"a": [0]}
    assert identities_of(walk(75)) == {"a": [0, 1]}


def test_the_nearest_assignment_is_not_the_best_one():
    # The first person has moved to where the second was, who has moved on by as much: greedy assignment exchanges them.
    places = [{"a": 100, "b": 130}, {"a": 128, "b": 158}]
    frames = [[(name, np.array([x, 200.0])) for name, x in frame.items()] for frame in places]
    assert identities_of(frames) in ({"a": [0], "b": [1]}, {"a": [1], "b": [0]})


def test_a_far_detection_is_a_new_person_and_a_copy_is_none():
    near, far, copy = (BODY + offset for offset in ((0, 0), (500, 0), (1, 1)))
    pixels = [near[None], np.stack([far, near]), np.stack([near, far, copy])]
    scores = [np.full(part.shape[:2], 0.9) for part in pixels]
    scores[2][0] = 0.5
    frames = [Detections(*parts, parts[0]) for parts in zip(pixels, scores, strict=True)]
    assert [numbers.tolist() for numbers in track_people(frames, FPS)] == [[0], [1, 0], [-1, 1, 0]]


def test_frames_without_people():
    empty = Detections(np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros((0, 17, 2)))
    assert [len(numbers) for numbers in track_people([empty] * 3, FPS)] == [0, 0, 0]
