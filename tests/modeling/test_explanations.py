"""Evidence is what leaving a token out does, faithfulness what deleting does, and a threshold what it promises."""

import re

import numpy as np
import pytest
import torch
from skeleton_people import person, recording
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, tiny_action_model, tiny_llm, tiny_processor, tiny_tokenizer

from action_llm import ActionLLMForClassification
from action_llm.explanations import TokenEvidence, _reason, explain, faithfulness
from action_llm.label_scoring import label_trie
from action_llm.motion_narration import MeasuredBody, MotionEvent, MotionNarration
from action_llm.skeleton_layouts import LAYOUTS
from action_llm.token_lexicon import TokenEntry
from action_llm.video_files import open_video


@pytest.fixture(scope="module")
def model():
    return ActionLLMForClassification.from_llm(
        tiny_llm(),
        action_token_offset=len(tiny_tokenizer()),
        action_model=tiny_action_model(),
        class_names=CLASS_NAMES,
    )


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def probability(model, processor, sentence, label):
    with torch.no_grad():
        return float(model(**processor(action_ids=[sentence])).logits[0].softmax(-1)[label])


def test_evidence_is_what_leaving_a_token_out_does(model, processor):
    sentence = [3, 14, 3, 7, 1]
    found = explain(model, processor, sentence)
    label = CLASS_NAMES.index(found.label)
    assert found.probability == pytest.approx(probability(model, processor, sentence, label), rel=1e-4)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert found.probability == max(found.probabilities.values())
    assert sorted(one.place for one in found.evidence) == [0, 1, 2, 3, 4]
    for one in found.evidence:
        shorter = [token for place, token in enumerate(sentence) if place != one.place]
        expected = np.log(found.probability) - np.log(probability(model, processor, shorter, label))
        assert one.action_id == sentence[one.place] and one.contribution == pytest.approx(expected, abs=1e-3)
    contributions = [one.contribution for one in found.evidence]
    assert contributions == sorted(contributions, reverse=True)


@pytest.mark.parametrize("constrained_scoring", [False, True])
def test_shortened_sentences_are_read_in_one_pass(processor, constrained_scoring):
    """What they share is read once, and of constrained names, only that of the label."""
    model = ActionLLMForClassification.from_llm(
        tiny_llm(),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(),
        constrained_scoring=constrained_scoring,
    )
    sentence, reads = [3, 14, 14, 7, 1], []
    found = explain(model, processor, sentence)
    label = CLASS_NAMES.index(found.label)
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: reads.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    explain(model, processor, sentence)
    assert len(reads) == 2
    for one in found.evidence:
        shorter = [token for place, token in enumerate(sentence) if place != one.place]
        with torch.no_grad():
            scores = model(**processor(action_ids=[sentence, shorter]), method="cache").logits.log_softmax(-1)[
                :, label
            ]
        assert one.contribution == pytest.approx(float(scores[0] - scores[1]), abs=1e-4)
    trie = label_trie(tuple(map(tuple, processor.label_ids())), constrained_scoring).along(label)[0]
    prompts = [
        processor.encode_prompt_and_label(processor.prompt(sentence[:place] + sentence[place + 1 :]))[0]
        for place in range(5)
    ]
    beginnings = {tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)}
    assert reads[1] == len(beginnings) + 4 * trie.num_nodes  # without either 14, the sentence is the same


def test_the_outputs_of_a_recording_are_explained(model, processor):
    body = person(64, activity=0.0)
    body[20:50, [9, 10, 11, 23, 24], 1] += 0.6 * np.sin(np.pi * np.arange(30) / 30)[:, None]  # the right hand goes up
    with torch.no_grad():
        outputs = model(**processor(recording([(0, body)])))
    found = model.explain(processor, outputs, recording=recording([(0, body)]))
    assert found.label == CLASS_NAMES[int(outputs.logits.argmax())]
    assert [one.action_id for one in sorted(found.evidence, key=lambda one: one.place)] == outputs.action_ids[
        0
    ].tolist()
    times = {one.place: (one.start, one.end) for one in found.evidence}
    assert times[1] == pytest.approx((4 / 30, 8 / 30))
    assert str(found) == found.text
    assert found.text.startswith(f"{found.label}, with a probability of ") and "<act_" not in found.text


def test_a_recording_is_read_once_and_no_sentence_scored_twice(model, processor, monkeypatch, tmp_path):
    """By the pipeline; of a sentence of n tokens, it and the n shorter ones are scored."""
    from action_llm import feature_extraction_skeleton
    from action_llm.pipeline_action_recognition import ActionRecognitionPipeline

    np.save(tmp_path / "walk.npy", person(40))
    opened, scored, encoded = [], [], []
    read, forward = feature_extraction_skeleton.read_recording, type(model).forward
    log_probability = type(model).log_probability

    def remember(self, input_ids, **inputs):
        scored.append(len(input_ids))
        encoded.append("input_features" in inputs)
        return forward(self, input_ids, **inputs)

    monkeypatch.setattr(
        feature_extraction_skeleton,
        "read_recording",
        lambda file, *more, **kw: opened.append(file) or read(file, *more, **kw),
    )

    def remember_similar(self, index, input_ids, **inputs):
        scored.append(len(input_ids))
        return log_probability(self, index, input_ids, **inputs)

    monkeypatch.setattr(type(model), "forward", remember)
    monkeypatch.setattr(type(model), "log_probability", remember_similar)
    recognise = ActionRecognitionPipeline(model=model, processor=processor)
    answer = recognise(str(tmp_path / "walk.npy"), explain=True, return_tokens=True)[0]
    assert answer["reason"] and len(opened) == 1
    assert scored == [1, len(answer["tokens"])] and encoded == [True]


def test_without_a_reason_it_says_so():
    assert _reason("wave", [], 3, None, None, None, False) == "The sentence has a single token."
    against = [TokenEvidence(place, 5, place, place + 1, -0.5) for place in range(2)]
    assert _reason("wave", against, 3, None, None, None, False) == (
        "No single token supports it. Most tokens (2 of 2) speak against it."
    )
    assert _reason("wave", [TokenEvidence(0, 5, 0.0, 1.0, 0.5)], 0, None, None, None, False) == ""


def test_the_text_says_what_the_body_did_at_the_time():
    """Of two movements, the larger one; without a movement, the pose."""
    evidence = [
        TokenEvidence(7, 5, 1.0, 1.2, 0.5),
        TokenEvidence(8, 4, 1.2, 1.4, 0.4),
        TokenEvidence(2, 9, 0.2, 0.4, 0.2),
        TokenEvidence(3, 1, 0.6, 0.8, -1.0),
    ]
    hand = MotionEvent("right hand", "move", 0.9, 1.4, 0.8, way="forward", heights=(1.0,))
    foot = MotionEvent("left foot", "step", 0.9, 1.4, 0.5, way="forward")
    body = MeasuredBody(np.zeros((60, 25, 3)), LAYOUTS["kinect25"], 0.0)
    narration = MotionNarration("", [[foot, hand]], [body])
    pose = " and ".join(body.pose(0.2, 0.4).rsplit(", ", 1))
    assert _reason("wave", evidence, 3, narration, None, None, False) == (
        f"Strongest evidence: the person has {pose} from 0.2 to 0.4 s and moves the right hand forward at the height of the "
        "shoulders from 1.0 to 1.4 s."
    )
    assert _reason("wave", evidence, 3, narration, None, None, True).endswith("from 1.0 to 1.4 s (<act_5>; <act_4>).")


def test_a_count_is_told_only_of_a_movement_that_a_token_holds():
    swing = MotionEvent("right hand", "swing", 0.2, 1.4, 3.0, way="up and down", heights=(0.5,), count=7)
    body = MeasuredBody(np.zeros((60, 25, 3)), LAYOUTS["kinect25"], 0.0)
    narration = MotionNarration("", [[swing]], [body])
    for end, told in ((0.6, "up and down at"), (1.6, "up and down seven times at")):
        assert told in _reason("wave", [TokenEvidence(0, 5, 0.0, end, 2.0)], 1, narration, None, None, False)


def test_tokens_of_videos_are_named_by_other_classes_than_the_explained_one():
    lexicon = [TokenEntry(code, classes=[("wave", 2.0), ("clap", 1.5)]) for code in range(10)]
    evidence = [TokenEvidence(place, code, place, place + 1, 0.5) for place, code in ((0, 5), (3, 7), (4, 5))]
    assert _reason("wave", evidence, 3, None, None, lexicon, False) == (
        "Strongest evidence: what happens from 0.0 to 1.0 and 3.0 to 5.0 s (as in clap)."
    )
    only = [TokenEntry(code, classes=[("wave", 2.0)]) for code in range(10)]
    assert (
        _reason("wave", evidence, 1, None, None, only, False) == "Strongest evidence: what happens from 0.0 to 1.0 s."
    )


def test_the_text_says_what_moves_in_a_video_during_a_token():
    """In this video, whatever the token shows as a rule: a square that goes right, then stands."""
    frames = np.full((30, 48, 64), 60, np.uint8)
    for frame in range(30):
        left = 8 + 2 * min(frame, 15)
        frames[frame, 16:28, left : left + 12] = 200
    evidence = [TokenEvidence(2, 5, 0.7, 0.9, 0.5), TokenEvidence(0, 4, 0.1, 0.4, 0.4)]
    lexicon = [TokenEntry(code, classes=[("clap", 1.5)], description="something moves up") for code in range(10)]
    with open_video(frames, fps=30) as video:
        told = _reason("wave", evidence, 3, None, video, lexicon, False)
        named = _reason("wave", evidence, 1, None, video, lexicon, True)
    moves, stands = told.removeprefix("Strongest evidence: ").split(" and hardly ")
    assert re.fullmatch(r"something .*moves to the viewer's right .*from 0\.1 to 0\.4 s", moves)
    assert stands == "anything moves from 0.7 to 0.9 s."
    assert named == (
        "Strongest evidence: hardly anything moves from 0.7 to 0.9 s (<act_5>: as a rule, something moves up)."
    )
    # Without the video, what the tokens show as a rule.
    assert _reason("wave", evidence, 3, None, None, lexicon, False) == (
        "Strongest evidence: what happens from 0.1 to 0.4 and 0.7 to 0.9 s (as a rule, something moves up)."
    )


def test_tokens_without_times_are_named_by_their_places(model, processor):
    evidence = [
        TokenEvidence(place, 5, np.nan, np.nan, contribution)
        for place, contribution in ((3, 0.9), (1, 0.5), (0, 0), (2, 0))
    ]
    assert (
        _reason("wave", evidence, 2, None, None, None, False)
        == "Strongest evidence: what happens in tokens 2 and 4 of 4."
    )
    lexicon = [TokenEntry(code, classes=[("clap", 1.5)]) for code in range(10)]
    assert _reason("wave", evidence, 1, None, None, lexicon, True) == (
        "Strongest evidence: what happens in token 4 of 4 (as in clap) (<act_5>)."
    )
    found = explain(model, processor, [3, 14, 3, 2], recording=recording([(0, person(16))]), num_reasons=4)
    supporting = sorted(token.place + 1 for token in found.evidence if token.contribution > 0)
    assert supporting and all(f"{place}" in found.text for place in supporting) and " of 4." in found.text


def test_another_class_can_be_explained(model, processor):
    best = explain(model, processor, [3, 14, 3])
    other = next(name for name in CLASS_NAMES if name != best.label)
    found = explain(model, processor, [3, 14, 3], label=other)
    assert (found.label, found.probability) == (other, best.probabilities[other])
    assert found.probabilities == best.probabilities and found.text.startswith(f"{other}, with a probability of ")
    shorter = probability(model, processor, [3, 14], CLASS_NAMES.index(other))
    (last,) = (token for token in found.evidence if token.place == 2)
    assert last.contribution == pytest.approx(np.log(found.probability / shorter), abs=1e-3)
    with pytest.raises(ValueError, match="label: expected one of the classes"):
        explain(model, processor, [3, 14, 3], label="no class")


def test_the_text_says_when_it_is_not_sure(model, processor):
    found = explain(model, processor, [1, 2, 3], unsure_below=1.1)
    second = sorted(found.probabilities, key=lambda name: -found.probabilities[name])[1]
    assert (
        not found.is_sure and found.text.startswith(f"Not sure: {found.label} (") and f" or {second} (" in found.text
    )


def test_other_names_and_single_tokens(model, processor):
    found = explain(model, processor, [5], class_names=["waving", "falling"])
    assert found.label in ("waving", "falling") and found.evidence == []
    assert found.text.endswith("%. The sentence has a single token.")
    with torch.no_grad():
        outputs = model(**processor(action_ids=[[5]]))
    with pytest.raises(ValueError, match="have no action tokens: pass the outputs of recordings"):
        model.explain(processor, outputs)


def test_faithfulness_is_what_deleting_does(model, processor):
    generator = np.random.default_rng(0)
    sentences = [generator.integers(NUM_ACTION_TOKENS, size=8).tolist() for _ in range(4)] + [[1, 2]]
    found = faithfulness(model, processor, sentences, num_tokens=2, seed=3)
    assert found["sentences"] == 4
    named, whole = [], []
    for sentence in sentences[:4]:
        one = explain(model, processor, sentence)
        places = {evidence.place for evidence in one.evidence[:2]}
        shorter = [token for place, token in enumerate(sentence) if place not in places]
        named.append(probability(model, processor, shorter, CLASS_NAMES.index(one.label)))
        whole.append(one.probability)
    assert found["without_named"] == pytest.approx(np.mean(named), abs=1e-4)
    assert found["whole"] == pytest.approx(np.mean(whole), abs=1e-4)
    assert found["difference"] == pytest.approx(found["without_others"] - found["without_named"])
    assert found == faithfulness(model, processor, sentences, num_tokens=2, seed=3, batch_size=5)
    with pytest.raises(ValueError, match="none of the 1 sentences has at least 6 tokens"):
        faithfulness(model, processor, [[1, 2]])
