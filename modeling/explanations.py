"""Explanations that can be checked: which tokens changed the decision, when they occurred, and what moved meanwhile.

Class probabilities are exact, so the contribution of a token is exact too: the class is scored again without it. The text is
composed of contributions and of measured movements: of joints (`motion_narration`), or in the frames of a video
(`video_motion`). Rules write it, or a language model whose statements are checked (`written_reasons`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from .class_names import check_class_names
from .token_lexicon import TokenEntry
from .written_reasons import MeasuredFacts, Moment, ReasonWriter, WrittenReason


@dataclass(frozen=True)
class TokenEvidence:
    """The contribution of a token, or of a word of several tokens, to the decision.

    Attributes:
        place: Index of the token in the sentence.
        action_id: The token; of a word of several tokens, the first.
        start, end: Seconds from the start of the recording.
        contribution: log P(label | whole sentence) − log P(label | sentence without the word), natural logarithm of
            probabilities normalised over the class list. Positive if the word supports the label.
        further: The other tokens of the word.
    """

    place: int
    action_id: int
    start: float
    end: float
    contribution: float
    further: tuple[int, ...] = ()

    @property
    def word(self) -> str:
        """The word as written in the prompt."""
        return "".join(f"<act_{token}>" for token in (self.action_id, *self.further))


@dataclass(frozen=True)
class Explanation:
    """A decision and its reason.

    Attributes:
        label: The explained class, the most likely one unless another was chosen.
        probability: Its probability.
        probabilities: The probability of each class, by name.
        is_sure: Whether `probability` is at least `unsure_below`.
        evidence: All tokens, by decreasing contribution.
        text: The reason in English.
        description: What happens, as written by the language model if it was trained to describe recordings. The decision does
            not depend on it.
        reason_by: Who wrote the reason in `text`.
        written: What the `writer` wrote, and its statements, also if it was rejected; None without a writer, and if there was
            nothing to write about.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    is_sure: bool
    evidence: list[TokenEvidence]
    text: str
    description: str = ""
    reason_by: Literal["rules", "language model"] = "rules"
    written: WrittenReason | None = None

    def __str__(self) -> str:
        return self.text


@torch.no_grad()
def explain(
    model,
    processor,
    action_ids: Sequence,
    log_probabilities: torch.Tensor | None = None,
    *,
    times: Sequence[tuple[float, float]] | None = None,
    recording: Any = None,
    fps: float | None = None,
    class_names: Sequence[str] | None = None,
    list_classes: bool | None = None,
    unsure_below: float = 0.0,
    probabilities: Sequence[float] | None = None,
    num_reasons: int = 3,
    lexicon: Sequence[TokenEntry] | None = None,
    label: str | None = None,
    name_tokens: bool = False,
    writer: ReasonWriter | None = None,
) -> Explanation:
    """
    Explains the decision for an action sentence, or what speaks for another class: each word is left out in turn, and the class
    is scored again.

    Args:
        model ([`ActionLLMForClassification`]), processor ([`ActionLLMProcessor`]): The model and its processor.
        action_ids (`Sequence`): The sentence, in the form of [`~ActionLLMProcessor.prompt`].
        log_probabilities (`torch.Tensor` of shape `(num_classes,)`, *optional*): Log-probabilities of the classes given the
            sentence, in the order of the class list. By default, the sentence is scored here.
        times (`Sequence[tuple[float, float]]`, *optional*): Start and end of each token in seconds. Without them, the text says
            where in the sentence the tokens are.
        recording (*optional*): The recording, in any form that the feature extractor reads. With `times`, the text then
            describes what moves during each token.
        fps (`float`, *optional*): Frames per second of a video that is a folder or an array of frames, by default that of the
            feature extractor.
        class_names (`Sequence[str]`, *optional*): The class list, if it differs from the trained classes.
        list_classes (`bool`, *optional*): Overrides the processor's `list_classes`.
        unsure_below (`float`): Below this probability, the text says that the model is not sure.
        probabilities (`Sequence[float]`, *optional*): Class probabilities of a decision that is based on more than this
            sentence, such as means over versions of the recording. The reason explains the most likely class. By default, the
            probabilities given this sentence, calibrated if the model is.
        num_reasons (`int`): Maximum number of tokens that the text names. Only tokens that support the label are named.
        lexicon (`Sequence[TokenEntry]`, *optional*): Lexicon of the action model (`build_lexicon`), by default from the model's
            repository. Tokens that are named are described by it. Without a recording, the text tells what its tokens show as a
            rule or, if they are not described, the other classes in which they occur most.
        label (`str`, *optional*): The class to explain, by default the most likely one.
        name_tokens (`bool`): Whether the text names the tokens, in brackets.
        writer ([`~written_reasons.ReasonWriter`], *optional*): A language model that rewords the reason for a skeleton. Its
            text is used only if all of its statements are measured; else the reason is that by rules.

    Raises:
        ValueError: If the model reads continuous latents, `num_reasons` is negative, `label` is not in the class list, or there
            is a `writer` without a recording of skeletons and `times`.
    """
    check_explains(model)
    names = processor.class_names
    if class_names is not None:
        names = class_names = check_class_names(class_names, names or ())
    if num_reasons < 0:
        raise ValueError(f"num_reasons must be at least 0, got {num_reasons}.")
    action_ids = list(action_ids)
    narration = None if times is None else _narration(processor, recording)
    if writer is not None and narration is None:
        raise ValueError("writer: reasons are written from measured joints: pass a recording of skeletons, and times.")
    times = [(float("nan"), float("nan"))] * len(action_ids) if times is None else times
    if log_probabilities is None:
        (log_probabilities,) = class_log_probabilities(model, processor, [action_ids], class_names, list_classes)
    probabilities = model.calibrated(log_probabilities).tolist() if probabilities is None else list(probabilities)
    if label is not None and label not in names:
        raise ValueError(f"label: expected one of the classes {', '.join(names[:5])}, …, got {label!r}.")
    best = int(np.argmax(probabilities)) if label is None else list(names).index(label)
    evidence = []
    if len(action_ids) > 1:
        # Neighbours in this order have the most in common.
        shortened = [action_ids[:place] + action_ids[place + 1 :] for place in range(len(action_ids))]
        inputs = _on(model, processor(action_ids=shortened, class_names=class_names, list_classes=list_classes))
        without = model.log_probability(best, **inputs).tolist()
        for place, (word, (start, end)) in enumerate(zip(action_ids, times, strict=True)):
            action_id, *further = map(int, np.atleast_1d(word))
            contribution = float(log_probabilities[best] - without[place])
            further = () if processor.run_lengths else tuple(further)
            evidence.append(TokenEvidence(place, action_id, float(start), float(end), contribution, further))
    evidence.sort(key=lambda token: -token.contribution)
    is_sure = label is not None or probabilities[best] >= unsure_below
    lexicon = model.lexicon if lexicon is None else lexicon
    answer = _answer(names, probabilities, best, is_sure)
    written = None
    if writer is not None and narration.events and (moments := _moments(evidence, num_reasons, narration)):
        written = writer.write(MeasuredFacts(names[best], moments, narration))
    is_written = written is not None and written.is_supported
    if is_written:
        reason = f"{written.text}{_doubt(evidence)}"
    else:
        with _opened(processor, recording, fps) as video:
            reason = _reason(names[best], evidence, num_reasons, narration, video, lexicon, name_tokens)
    return Explanation(
        names[best],
        probabilities[best],
        dict(zip(names, probabilities, strict=True)),
        is_sure,
        evidence,
        f"{answer} {reason}".rstrip(),
        describe(model, processor, action_ids) if processor.explains else "",
        "language model" if is_written else "rules",
        written,
    )


def check_explains(model) -> None:
    """Raises `ValueError` for a model that reads continuous latents instead of tokens."""
    if model.config.injection_layer is not None:
        raise ValueError("this model reads continuous latents; only decisions from tokens can be explained.")


def sentence_of(outputs, index: int = 0, run_lengths: bool = False) -> tuple[list, list[tuple[float, float]]]:
    """The words of a recording in the outputs of a model, and the start and end of each word in seconds.

    A word is a token, or a list of several tokens; with `run_lengths`, it is a pair of a token and the length of its run.
    """
    mask = outputs.action_attention_mask[index].bool()
    words = outputs.action_ids[index][mask].tolist()
    if run_lengths:
        words = list(zip(words, outputs.run_lengths[index][mask].tolist(), strict=True))
    starts, ends = (times[index][mask].tolist() for times in (outputs.start_times, outputs.end_times))
    return words, list(zip(starts, ends, strict=True))


@torch.no_grad()
def describe(model, processor, action_ids: Sequence[int], max_new_tokens: int = 120) -> str:
    """
    Generates a description of an action sentence by greedy decoding. Unlike the evidence, it can be wrong. Class probabilities
    do not depend on it.

    Args:
        model ([`ActionLLMForClassification`]), processor ([`ActionLLMProcessor`]): A model that was trained to describe
            recordings, and its processor.
        action_ids (`Sequence[int]`): The sentence.
        max_new_tokens (`int`): Maximum number of tokens to generate.
    """
    prompt, _ = processor.encode_prompt_and_label(processor.prompt(action_ids, to_explain=True))
    ids = torch.tensor([prompt], device=model.device)
    tokenizer = processor.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    generated = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    return tokenizer.decode(generated[0, len(prompt) :], skip_special_tokens=True).strip()


@torch.no_grad()
def class_log_probabilities(
    model,
    processor,
    sentences: Sequence[Sequence[int]],
    class_names: Sequence[str] | None = None,
    list_classes: bool | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """log P(class | sentence), normalised over the class list: (num_sentences, num_classes), float32 on the CPU."""
    rows = []
    for start in range(0, len(sentences), batch_size):
        inputs = processor(
            action_ids=sentences[start : start + batch_size], class_names=class_names, list_classes=list_classes
        )
        rows.append(model(**_on(model, inputs)).logits.log_softmax(-1).cpu())
    return torch.cat(rows)


def faithfulness(
    model,
    processor,
    sentences: Sequence[Sequence[int]],
    *,
    num_tokens: int = 3,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    batch_size: int = 16,
) -> dict[str, float]:
    """
    Measures whether the decision depends on the tokens that explanations name: compares the probability of the label after they
    are deleted with that after the same number of other tokens, drawn at random, is deleted.

    Args:
        sentences (`Sequence[Sequence[int]]`): Action sentences, see [`~ActionLLMProcessor.prompt`]. Sentences of fewer than
            `2 * num_tokens` tokens are left out, and sentences without a token that supports the label.
        num_tokens (`int`): Maximum number of tokens that an explanation names.
        seed (`int`): Seed of the random draw.

    Returns:
        `dict[str, float]`: `whole`, `without_named` and `without_others`, mean probabilities of the label; `difference`, the
        last minus the second, which is how much more the named tokens contribute; `sentences`, the number of scored sentences.

    Raises:
        ValueError: If no sentence is long enough, or none has a token that supports the label.
    """
    generator = np.random.default_rng(seed)
    long_enough = [list(sentence) for sentence in sentences if len(sentence) >= 2 * num_tokens]
    if not long_enough:
        raise ValueError(f"none of the {len(sentences)} sentences has at least {2 * num_tokens} tokens.")
    whole, shorter, labels = [], [], []
    for sentence in long_enough:
        explanation = explain(model, processor, sentence, class_names=class_names)
        named = [token.place for token in explanation.evidence[:num_tokens] if token.contribution > 0]
        if not named:
            continue
        others = generator.permutation([place for place in range(len(sentence)) if place not in named])[: len(named)]
        for deleted in (named, others.tolist()):
            shorter.append([token for place, token in enumerate(sentence) if place not in deleted])
        whole.append(explanation.probability)
        labels.append(list(explanation.probabilities).index(explanation.label))
    if not labels:
        raise ValueError(f"none of the {len(long_enough)} sentences has a token that supports the label.")
    scored = model.calibrated(class_log_probabilities(model, processor, shorter, class_names, batch_size=batch_size))
    index = torch.tensor(labels).repeat_interleave(2)[:, None]
    named, others = scored.gather(1, index).view(-1, 2).mean(0).tolist()
    return {
        "whole": float(np.mean(whole)),
        "without_named": named,
        "without_others": others,
        "difference": others - named,
        "sentences": len(labels),
    }


def _on(model, inputs) -> dict:
    return {name: value.to(model.device) for name, value in inputs.items()}


def _narration(processor, recording):
    """The `MotionNarration` of a skeleton; None for videos."""
    from .feature_extraction_skeleton import SkeletonFeatureExtractor
    from .motion_narration import narrate

    extractor = processor.feature_extractor
    if recording is None or type(extractor).__name__ != SkeletonFeatureExtractor.__name__:
        return None
    return narrate(recording[0] if isinstance(recording, list | tuple) else recording, reading=extractor.to_dict())


@contextmanager
def _opened(processor, recording, fps: float | None) -> Iterator[Any]:
    """The opened video of a recording; None for a skeleton, or without a recording."""
    from .feature_extraction_video import VideoFeatureExtractor
    from .video_files import open_video

    extractor = processor.feature_extractor
    if recording is None or type(extractor).__name__ != VideoFeatureExtractor.__name__:
        yield None
    elif hasattr(recording, "frames_at"):  # opened by the caller, who closes it
        yield recording
    else:
        with open_video(recording, fps=extractor.fps if fps is None else fps) as video:
            yield video


def _answer(names: Sequence[str], probabilities: Sequence[float], best: int, is_sure: bool) -> str:
    if is_sure:
        return f"{names[best]}, with a probability of {probabilities[best]:.0%}."
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    candidates = " or ".join(f"{names[index]} ({probabilities[index]:.0%})" for index in order[:2])
    return f"Not sure: {candidates}."


def _reason(
    label: str,
    evidence: Sequence[TokenEvidence],
    num_reasons: int,
    narration,
    video,
    lexicon: Sequence[TokenEntry] | None,
    name_tokens: bool,
) -> str:
    """What happened during the tokens that support a class most, in English, and how many tokens speak against it."""
    if not evidence:
        return "The sentence has a single token."
    doubt = _doubt(evidence)
    if evidence[0].contribution <= 0:
        return f"No single token supports it.{doubt}"
    if not num_reasons:
        return doubt.strip()
    is_skeleton = narration is not None and bool(narration.events)
    is_measured = is_skeleton or (video is not None and not np.isnan(evidence[0].start))

    def meanwhile_of(token: TokenEvidence) -> str:
        if is_skeleton:
            return _movement(token, narration)
        return _change(token, video) if is_measured else _as_a_rule(token, label, lexicon)

    parts = []
    for meanwhile, tokens in _grouped(evidence, num_reasons, meanwhile_of).items():
        named = f" ({'; '.join(dict.fromkeys(_named(token, lexicon) for token in tokens))})" if name_tokens else ""
        when = _when(tokens, len(evidence))
        text = f"{meanwhile} {when}" if is_measured else f"{when}{f' ({meanwhile})' if meanwhile else ''}"
        parts.append(f"{text}{named}")
    subject = "the person " if is_skeleton else "" if is_measured else "what happens "
    return f"Strongest evidence: {subject}{_listed(parts)}.{doubt}"


def _doubt(evidence: Sequence[TokenEvidence]) -> str:
    """A sentence about the tokens that speak against a class, if most do; else empty."""
    against = sum(token.contribution < 0 for token in evidence)
    if 2 * against <= len(evidence):
        return ""
    return f" Most tokens ({against} of {len(evidence)}) speak against it."


def _grouped(
    evidence: Sequence[TokenEvidence], num_reasons: int, meanwhile_of: Callable[[TokenEvidence], str]
) -> dict[str, list[TokenEvidence]]:
    """The tokens that support a class most, in order of time; those of the same movement are named together."""
    groups: dict[str, list[TokenEvidence]] = {}
    supporting = [token for token in evidence if token.contribution > 0]
    for token in sorted(supporting[:num_reasons], key=lambda token: token.place):
        groups.setdefault(meanwhile_of(token), []).append(token)
    return groups


def _moments(evidence: Sequence[TokenEvidence], num_reasons: int, narration) -> list[Moment]:
    """What the first person does during the tokens that support a class most."""
    groups = _grouped(evidence, num_reasons, lambda token: _movement(token, narration))
    return [Moment(movement, tuple(_spans(tokens))) for movement, tokens in groups.items()]


def _change(token: TokenEvidence, video) -> str:
    """What moves in a video during a token."""
    from .video_motion import describe_motions, measure_motion

    return describe_motions([measure_motion(video, token.start, token.end)])[0]


def _named(token: TokenEvidence, lexicon: Sequence[TokenEntry] | None) -> str:
    """A token, and what it shows as a rule if it is described."""
    description = "" if lexicon is None else lexicon[token.action_id].description
    return f"{token.word}: as a rule, {description}" if description else token.word


def _as_a_rule(token: TokenEvidence, label: str, lexicon: Sequence[TokenEntry] | None) -> str:
    """What a token shows as a rule, by its description or else by other classes than the explained one; empty if unknown."""
    if lexicon is None:
        return ""
    entry = lexicon[token.action_id]
    if entry.description:
        return f"as a rule, {entry.description}"
    classes = [name for name, _ in entry.classes if name != label]
    return f"as in {' and '.join(classes[:2])}" if classes else ""


def _movement(token: TokenEvidence, narration) -> str:
    """What the first person does during a token, of several movements the largest, or else the pose."""
    half = (token.end - token.start) / 2
    moves = [move for move in narration.events[0] if min(move.end, token.end) - max(move.start, token.start) >= half]
    if moves:
        move = max(moves, key=lambda move: move.amount / (move.end - move.start))
        # A count is of the whole movement, of which the token may hold a part.
        is_whole = token.start <= move.start and move.end <= token.end
        return (move if is_whole else replace(move, count=1)).movement
    return f"has {_listed(narration.bodies[0].pose(token.start, token.end).split(', '))}"


def _when(tokens: Sequence[TokenEvidence], num_tokens: int) -> str:
    """When tokens occur, neighbours joined; if their times are unknown, where they are in a sentence of `num_tokens`."""
    if np.isnan(tokens[0].start):
        places = _listed([str(token.place + 1) for token in tokens])
        return f"in token{'s' if len(tokens) > 1 else ''} {places} of {num_tokens}"
    return f"from {_listed([f'{start:.1f} to {end:.1f}' for start, end in _spans(tokens)])} s"


def _spans(tokens: Sequence[TokenEvidence]) -> list[tuple[float, float]]:
    """The times of tokens, neighbours joined."""
    spans: list[tuple[float, float]] = []
    for token in tokens:
        if spans and token.start - spans[-1][1] < 0.05:
            spans[-1] = (spans[-1][0], token.end)
        else:
            spans.append((token.start, token.end))
    return spans


def _listed(words: Sequence[str]) -> str:
    """ "a"; "a and b"; "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


__all__ = [
    "Explanation",
    "TokenEvidence",
    "check_explains",
    "class_log_probabilities",
    "describe",
    "explain",
    "faithfulness",
    "sentence_of",
]
