"""Reasons that can be checked: which tokens moved the decision, when they were, and what the body did then.

The probability of a class is exact, so what a token did to it is exact too: it is left out, and the class is scored again. The
text is made of that and of what was measured (`motion_narration`), not of what a language model would like to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .class_names import check_class_names
from .token_lexicon import TokenEntry


@dataclass(frozen=True)
class TokenEvidence:
    """What one token of a sentence did to the decision.

    Attributes:
        place: Its place in the sentence.
        action_id: The token; of a word of several tokens, the first one. What is left out is the whole word.
        start, end: Seconds from the start of the recording.
        contribution: log P(label | whole sentence) − log P(label | sentence without it), natural logarithm, probabilities
            normalised over the class list. Positive where it spoke for the label.
        further: The other tokens of its word.
    """

    place: int
    action_id: int
    start: float
    end: float
    contribution: float
    further: tuple[int, ...] = ()

    @property
    def word(self) -> str:
        """As it stands in the text that the language model reads."""
        return "".join(f"<act_{token}>" for token in (self.action_id, *self.further))


@dataclass(frozen=True)
class Explanation:
    """A decision and its reason.

    Attributes:
        label: The likeliest class; `probability` is its probability.
        probabilities: Of every class, by name.
        is_sure: Whether the probability reaches the threshold.
        evidence: Every token, the one that spoke for the label most first.
        text: In English.
        description: What the language model says that happens, where it was trained to; it has no part in the decision.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    is_sure: bool
    evidence: list[TokenEvidence]
    text: str
    description: str = ""

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
    class_names: Sequence[str] | None = None,
    list_classes: bool | None = None,
    unsure_below: float = 0.0,
    probabilities: Sequence[float] | None = None,
    num_reasons: int = 3,
    lexicon: Sequence[TokenEntry] | None = None,
    batch_size: int = 16,
) -> Explanation:
    """
    Says why a sentence was recognised as it was: each token is left out in turn, and the class is scored again.

    Args:
        model ([`ActionLLMForClassification`]), processor ([`ActionLLMProcessor`]): as trained together.
        action_ids (`Sequence`): The sentence, as [`~ActionLLMProcessor.prompt`] takes it.
        log_probabilities (`torch.Tensor`, *optional*): What the model said of it: (number of classes,), in the order of the
            class list. By default the sentence is scored here.
        times (`Sequence[tuple[float, float]]`, *optional*): Start and end of each token, seconds.
        recording (*optional*): Of a skeleton, what the feature extractor reads; it is narrated, and not encoded again.
        class_names (`Sequence[str]`, *optional*): The class list, where it is not the trained one.
        list_classes (`bool`, *optional*): Whether the class list stands in the prompt, where that is not as trained.
        unsure_below (`float`): Below this probability the text says that it is not sure (`abstention_threshold`).
        probabilities (`Sequence[float]`, *optional*): Of every class, where the decision was made by more than this sentence,
            such as their means over versions of the recording; the reason is about the likeliest. By default this sentence's.
        num_reasons (`int`): Tokens that the text names, at most; those that spoke against the label are never named for it.
        lexicon (`Sequence[TokenEntry]`, *optional*): Of the action model (`build_lexicon`), by default that of the model's
            repository: where no joints say what happened during a token, the text names the classes that it occurs in most.
        batch_size (`int`): Sentences scored at a time.

    Raises:
        ValueError: The model reads continuous latents, which cannot be left out one by one; or sizes that cannot be.
    """
    check_explains(model)
    names = processor.class_names
    if class_names is not None:
        names = class_names = check_class_names(class_names, names or ())
    for name, value, least in (("num_reasons", num_reasons, 0), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    action_ids = list(action_ids)
    times = [(float("nan"), float("nan"))] * len(action_ids) if times is None else times
    scored = {"class_names": class_names, "list_classes": list_classes, "batch_size": batch_size}
    if log_probabilities is None:
        (log_probabilities,) = class_log_probabilities(model, processor, [action_ids], **scored)
    probabilities = log_probabilities.exp().tolist() if probabilities is None else list(probabilities)
    best = int(np.argmax(probabilities))
    evidence = []
    if len(action_ids) > 1:
        shortened = [action_ids[:place] + action_ids[place + 1 :] for place in range(len(action_ids))]
        without = class_log_probabilities(model, processor, shortened, **scored)[:, best]
        for place, (word, (start, end)) in enumerate(zip(action_ids, times, strict=True)):
            action_id, *further = map(int, np.atleast_1d(word))
            contribution = float(log_probabilities[best] - without[place])
            further = () if processor.run_lengths else tuple(further)
            evidence.append(TokenEvidence(place, action_id, float(start), float(end), contribution, further))
    evidence.sort(key=lambda token: -token.contribution)
    is_sure = probabilities[best] >= unsure_below
    lexicon = model.lexicon if lexicon is None else lexicon
    events = _narration(processor, recording)
    return Explanation(
        names[best],
        probabilities[best],
        dict(zip(names, probabilities, strict=True)),
        is_sure,
        evidence,
        _text(names, probabilities, is_sure, evidence[:num_reasons], events, lexicon),
        describe(model, processor, action_ids) if processor.explains else "",
    )


def check_explains(model) -> None:
    """Raises `ValueError` for a model that reads continuous latents: only tokens can be left out one by one."""
    if model.config.injection_layer is not None:
        raise ValueError("this model reads continuous latents: only tokens can be left out one by one.")


def sentence_of(outputs, index: int = 0, run_lengths: bool = False) -> tuple[list, list[tuple[float, float]]]:
    """The words of one recording in the outputs of a model, and their start and end in seconds.

    A word is a token or a list of several; with `run_lengths`, a pair of a token and how many equal ones became it.
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
    What the language model says that happens in a sentence, the likeliest word each time. It can be wrong where the evidence
    cannot; it is not asked for a class, and no class probability depends on it.

    Args:
        model ([`ActionLLMForClassification`]), processor ([`ActionLLMProcessor`]): trained on explanations.
        action_ids (`Sequence[int]`): The sentence.
        max_new_tokens (`int`): Words of the language model, at most.
    """
    prompt, _ = processor.encode_prompt_and_label(processor.prompt(action_ids, to_explain=True))
    ids = torch.tensor([prompt], device=model.device)
    tokenizer = processor.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
    )
    return tokenizer.decode(made[0, len(prompt) :], skip_special_tokens=True).strip()


@torch.no_grad()
def class_log_probabilities(
    model,
    processor,
    sentences: Sequence[Sequence[int]],
    class_names: Sequence[str] | None = None,
    list_classes: bool | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """log P(class | sentence), normalised over the class list: (num_sentences, num_classes), float32, on the CPU."""
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
    Whether the tokens that explanations name are those that the decision hangs on: the probability of the label after they
    are deleted, against that after as many others, drawn at random, are. Only tokens that spoke for the label are named.

    Args:
        sentences (`Sequence[Sequence[int]]`): Action sentences, see [`~ActionLLMProcessor.prompt`]; those of fewer than
            `2 * num_tokens` tokens are left out, and those of which no token spoke for the label.
        num_tokens (`int`): Tokens that an explanation names, at most.
        seed (`int`): Of the draw.

    Returns:
        `whole`, `without_named` and `without_others`, mean probabilities of the label; `difference` of the last two: how much
        more the named tokens carry; `sentences`, how many were scored.

    Raises:
        ValueError: No sentence is long enough, or explained.
    """
    generator = np.random.default_rng(seed)
    long_enough = [list(one) for one in sentences if len(one) >= 2 * num_tokens]
    if not long_enough:
        raise ValueError(f"no sentence of {len(sentences)} has {2 * num_tokens} tokens.")
    whole, shorter, labels = [], [], []
    for sentence in long_enough:
        found = explain(model, processor, sentence, class_names=class_names, batch_size=batch_size)
        named = [token.place for token in found.evidence[:num_tokens] if token.contribution > 0]
        if not named:
            continue
        others = generator.permutation([place for place in range(len(sentence)) if place not in named])[: len(named)]
        for deleted in (named, others.tolist()):
            shorter.append([token for place, token in enumerate(sentence) if place not in deleted])
        whole.append(found.probability)
        labels.append(list(found.probabilities).index(found.label))
    if not labels:
        raise ValueError(f"in none of {len(long_enough)} sentences a token spoke for the label.")
    scored = class_log_probabilities(model, processor, shorter, class_names, batch_size=batch_size).exp()
    index = torch.tensor(labels).repeat_interleave(2)[:, None]
    named, others = scored.gather(1, index).view(-1, 2).mean(0).tolist()
    return {
        "whole": float(np.mean(whole)),
        "without_named": named,
        "without_others": others,
        "difference": others - named,
        "sentences": len(labels),
    }


def abstention_threshold(probabilities: Sequence[float], is_right: Sequence[bool], accuracy: float) -> float:
    """
    The lowest probability from which on answers are right often enough; chosen on recordings of held-out training subjects.

    Args:
        probabilities (`Sequence[float]`): Of the likeliest class, a recording each.
        is_right (`Sequence[bool]`): Whether it was the true one.
        accuracy (`float`): Share of answers at or above the threshold that are to be right.

    Returns:
        The threshold; infinity where even the surest answers are not right so often.

    Raises:
        ValueError: No recording, or as many as there are not answers.
    """
    values, right = np.asarray(probabilities, np.float64), np.asarray(is_right, bool)
    if values.ndim != 1 or values.shape != right.shape or not len(values):
        raise ValueError(f"expected as many probabilities as answers, found {values.shape} and {right.shape}.")
    order = np.argsort(-values, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(values) + 1)
    # Of equal probabilities all are answered or none.
    is_last = np.append(values[order][1:] != values[order][:-1], True)
    enough = (is_last & (share >= accuracy)).nonzero()[0]
    return float(values[order][enough[-1]]) if len(enough) else float("inf")


def _on(model, inputs) -> dict:
    return {name: value.to(model.device) for name, value in inputs.items()}


def _narration(processor, recording) -> list:
    """What the first person did, where the recording has joints."""
    from .feature_extraction_skeleton import SkeletonFeatureExtractor
    from .motion_narration import narrate

    extractor = processor.feature_extractor
    if recording is None or type(extractor).__name__ != SkeletonFeatureExtractor.__name__:
        return []
    if isinstance(recording, list | tuple):
        recording = recording[0]
    # As a description: a processor that was loaded from the Hub has classes of its own, beside those of the model.
    events = narrate(recording, extractor.skeleton_layout.to_dict()).events
    return events[0] if events else []


def _text(
    names: Sequence[str],
    probabilities: Sequence[float],
    is_sure: bool,
    reasons: Sequence[TokenEvidence],
    events: list,
    lexicon: Sequence[TokenEntry] | None = None,
) -> str:
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    best = order[0]
    if is_sure:
        said = f"{names[best]}, with a probability of {probabilities[best]:.0%}."
    else:
        others = " or ".join(f"{names[one]} ({probabilities[one]:.0%})" for one in order[:2])
        said = f"Not sure: {others}."
    reasons = [one for one in reasons if one.contribution > 0]
    if not reasons:
        return f"{said} No single token spoke for it."
    # Tokens during which the body did the same, and equal tokens, are named together.
    groups: dict[str, tuple[str, list[TokenEvidence]]] = {}
    for one in sorted(reasons, key=lambda one: one.place):
        half = (one.end - one.start) / 2
        meanwhile = [event for event in events if min(event.end, one.end) - max(event.start, one.start) >= half]
        did = " and ".join(f"the {event.part} {event.said}" for event in meanwhile[:2]).replace("the both", "both")
        groups.setdefault(did or one.word, (did, []))[1].append(one)
    parts = []
    for did, some in groups.values():
        tokens = {one.word: f"{one.word}{'' if did else _meaning(one, lexicon)}" for one in some}
        times = [f"{one.start:.1f} to {one.end:.1f}" for one in some]
        when = "" if np.isnan(some[0].start) else f" at {_listed(times)} s"
        parts.append(f"{_listed(list(tokens.values()))}{when}{f', when {did}' if did else ''}")
    return f"{said} What spoke for it most: {'; '.join(parts)}."


def _listed(words: Sequence[str]) -> str:
    """One; one and another; one, another and a third."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _meaning(token: TokenEvidence, lexicon: Sequence[TokenEntry] | None) -> str:
    """The classes that a token, the first one of its word, occurs in most, in brackets, or nothing."""
    classes = lexicon[token.action_id].classes if lexicon is not None else []
    return f" (as in {' and '.join(name for name, _ in classes[:2])})" if classes else ""


__all__ = [
    "Explanation",
    "TokenEvidence",
    "abstention_threshold",
    "check_explains",
    "class_log_probabilities",
    "describe",
    "explain",
    "faithfulness",
    "sentence_of",
]
