"""
Queries of a search: text, or a recording as an example, as distributions over the classes of a recogniser.

**Text** names actions and their order: "someone sits down and then waves", "waves after sitting down" (`in_order`). Each part
is read as the classes whose names share most word stems with it; a part that is a class name is that class. Words of other
class names are left out, and listed in `Part.left_out`. A part that shares no word with any name is read by the language model:
the classes are as probable as they make the part likely, P(part | sentence) averaged over the sentences of the index that are
most typical of the class. What is not done cannot be searched for, so negation is an error.

**Order.** A part follows another if its window begins after the other's, in the same recording, and soon after it. The score of
windows in order is the product of their scores.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from action_llm_recipes.search.recording_index import RecordingIndex, SearchIndexError

# Between two actions, the first of which happens first; and between two, the second of which does.
THEN = r"(?:and\s+)?(?:then|after(?:wards?|\s+that|\s+which)|before(?!\s+that))|(?:and\s+is\s+)?followed\s+by"
AFTER = r"(?:and\s+)?(?:after|before\s+that)"
CONNECTIVE = re.compile(rf"\b(?:{THEN}|(?P<after>{AFTER}))\b", re.IGNORECASE)
# "After waving, sits down" is "sits down after waving".
OPENING = re.compile(r"\W*(before|after)\s+(?!that\b)([^,]+),(.+)", re.IGNORECASE)
NEGATION = re.compile(r"\b(?:not|cannot|no|nobody|never|without|neither|nor)\b|n['’]t\b", re.IGNORECASE)
# Words that name no action.
IGNORED = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be by child children does doing for from he her him his in is it its man men of on one or people "
        "person s she somebody someone something that the their them they this to up while with woman women",
    )
)
# Sentences of the index that stand for a class, for texts that share no word with its name.
TYPICAL = 3


@dataclass
class Part:
    """
    A part of a query.

    Attributes:
        text: as it was given.
        weights: probabilities of the classes, float64 (num_classes,).
        by: how it was read: "name", "words", "language model" or "example".
        left_out: its words that are in names of other classes only.
    """

    text: str
    weights: np.ndarray
    by: str
    left_out: list[str] = field(default_factory=list)


@dataclass
class Hit:
    """
    A result of a search.

    Attributes:
        score: from 0 to 1.
        windows: index of the window of each part.
    """

    score: float
    windows: list[int]


def stem(word: str) -> str:
    """
    A word without the endings of plurals and verbs.

    The forms of a regular verb have the same stem: "carry", "carries", "carried" and "carrying"; "use", "uses", "used" and
    "using"; "nod", "nods", "nodded" and "nodding". What is left of a word has a vowel, so "sing" is no form of "s".
    """
    word = word.lower()
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        word = word[:-1]
    if re.search("[aeiouy].*ing$", word):
        word = word[:-3]
    elif re.search("[aeiouy].*(?<!e)ed$", word):
        word = word[:-2]
    word = re.sub("ie?$", "y", word)
    word = word[:-1] if word.endswith("e") and len(word) > 2 else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou" else word


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return re.findall(r"\w+", text)


def stems(text: str) -> set[str]:
    """The stems of the words of a text that can name an action."""
    return {stem(word) for word in words_of(text.lower()) if word not in IGNORED}


def by_words(text: str, class_names: Sequence[str]) -> Part | None:
    """
    The classes whose names share most words with a text.

    The share is Dice's coefficient of the stems, each weighted by its inverse frequency in the names; words that are in no name
    do not count.

    Returns:
        The part, with equal weights for the best classes and 0 for others; None if no name shares a word with the text.
    """
    names = [stems(name) for name in class_names]
    counts = Counter(word for name in names for word in name)
    weight = {word: math.log1p(len(names) / count) for word, count in counts.items()}

    def total(words: set[str]) -> float:
        return sum(weight[word] for word in sorted(words))

    query = stems(text) & weight.keys()
    if not query:
        return None
    shares = np.array([2 * total(query & name) / (total(query) + total(name)) for name in names])
    best = shares >= shares.max() * (1 - 1e-9)
    others = query.difference(*(name for name, is_best in zip(names, best, strict=True) if is_best))
    left_out = [word for word in words_of(text) if stem(word) in others]
    return Part(text, best / best.sum(), "words", left_out)


def in_order(text: str) -> list[str]:
    """
    The parts of a text that name an action each, in the order in which the actions happen.

    Raises:
        ValueError: if a part is empty, or "after" stands beside another connective, so that the order is ambiguous.
    """
    if opening := OPENING.fullmatch(text):
        connective, first, second = opening.groups()
        text = f"{second} {connective} {first}"
    connectives = list(CONNECTIVE.finditer(text))
    borders = [0, *(border for connective in connectives for border in connective.span()), len(text)]
    parts = [text[start:end].strip(" .,;") for start, end in zip(borders[::2], borders[1::2], strict=True)]
    if not all(map(words_of, parts)):
        raise ValueError(
            f"expected a text that names an action, or several with 'then', 'before' or 'after' between them; got {text!r}."
        )
    if any(connective["after"] for connective in connectives):
        if len(parts) > 2:
            raise ValueError(
                f"{text!r}: the order of {len(parts)} actions is ambiguous: name the first one first, with 'then'."
            )
        parts.reverse()
    return parts


def read_text(text: str, class_names: Sequence[str], by_language_model: Callable[[str], np.ndarray]) -> list[Part]:
    """
    The parts of a text, in the order in which their actions happen.

    Args:
        text: of the query.
        class_names: of the index.
        by_language_model: text → weights of the classes, for a part that shares no word with any class name.

    Raises:
        ValueError: as of `in_order`, and if the text says what is not done.
    """
    exact = {name.casefold(): place for place, name in enumerate(class_names)}
    text = " ".join(text.split())
    texts = [text]
    if text.casefold() not in exact:
        if negation := NEGATION.search(text):
            raise ValueError(
                f"{text!r}: expected actions that are done, found {negation[0]!r}: leave out what is not done."
            )
        texts = in_order(text)
    parts = []
    for part in texts:
        if part.casefold() in exact:
            parts.append(Part(part, np.eye(len(class_names))[exact[part.casefold()]], "name"))
        else:
            parts.append(by_words(part, class_names) or Part(part, by_language_model(part), "language model"))
    return parts


def by_likelihood(text: str, index: RecordingIndex, model, processor) -> np.ndarray:
    """
    Weights of the classes, by the likelihood of a text as the answer of the recogniser to the typical sentences of each class.

    Args:
        text: that may be none of the class names.
        index: with the action sentences of its windows.
        model, processor: the recogniser of the index.

    Returns:
        float64 (num_classes,), proportional to the mean of P(text | sentence) over the `TYPICAL` sentences of each class.

    Raises:
        SearchIndexError: if the index lacks the sentences.
    """
    import torch

    from action_llm.label_scoring import label_trie, score_labels

    with_sentence = np.flatnonzero(np.diff(index.offsets))
    if processor.run_lengths or len(with_sentence) == 0:
        raise SearchIndexError(
            f"no class shares a word with {text!r}, and the index has no sentences after which the language model could read "
            f"it: use words of the classes {', '.join(index.class_names)}."
        )
    # Up to (TYPICAL, num_classes).
    typical = with_sentence[np.argsort(-index.roots[with_sentence], axis=0, kind="stable")[:TYPICAL]]
    windows = np.unique(typical)
    names = label_trie(tuple(map(tuple, processor.label_ids([text]))), constrained=False)
    likelihood = {}
    for window in windows.tolist():
        inputs = processor(action_ids=[index.words(window)], class_names=[text]).to(model.device)
        with torch.no_grad():
            prompt = inputs["input_ids"], inputs["attention_mask"]
            score = score_labels(model.model, model._head, model.config.text_config, *prompt, names)
        likelihood[window] = float(score[0, 0])
    scores = np.array([[likelihood[window] for window in row] for row in typical.tolist()])
    weights = np.exp(scores - scores.max()).mean(axis=0)
    return weights / weights.sum()


def find(index: RecordingIndex, parts: Sequence[Part], count: int, within: float = 10.0) -> list[Hit]:
    """
    The windows that fit a query best.

    Args:
        index: to search.
        parts: of the query, in order.
        count: maximum number of hits.
        within: maximum number of seconds from the end of the window of a part to the start of that of the next.

    Returns:
        Hits, the best first. Those of several parts do not overlap: of two that share time, the better is kept.

    Raises:
        SearchIndexError: if there are several parts, but each recording of the index is a single window.
    """
    if len(parts) > 1 and index.settings["seconds"] is None:
        raise SearchIndexError(
            f"expected an index of sliding windows, because {parts[0].text!r} and {parts[1].text!r} are different times of a "
            "recording; found an index of whole recordings: write another with action-llm-search index --seconds 4"
        )
    best = index.scores(parts[0].weights).astype(np.float64)
    before = []  # for each later part, the window of the part before it, int64 (N,)
    for part in parts[1:]:
        reached, previous = _best_before(index, best, within)
        best = reached * index.scores(part.weights)
        before.append(previous)
    possible = len(best) if not before else int((before[-1] >= 0).sum())
    hits, taken = [], {}
    # Of several parts, better hits may share the time of others.
    order = _largest(best, count if not before else len(best))
    for window in order[:possible].tolist():
        windows = [window]
        for previous in reversed(before):
            windows.insert(0, int(previous[windows[0]]))
        if before:
            if best[window] <= 0:
                break
            spans, span = taken.setdefault(int(index.recording[window]), []), (windows[0], window)
            if any(first <= span[1] and span[0] <= last for first, last in spans):
                continue
            spans.append(span)
        hits.append(Hit(float(best[window]), windows))
        if len(hits) == count:
            break
    return hits


def _best_before(index: RecordingIndex, scores: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """For each window, the highest score among the windows that it can follow, float64 (N,), 0 without one; and which window
    that is, int64 (N,), -1 without one."""
    number = len(scores)
    best, previous = np.zeros(number), np.full(number, -1)
    # Windows are in the order of time, so those that a window can follow are the next ones before it.
    for distance in range(1, number):
        later = slice(distance, number)
        earlier = slice(0, number - distance)
        is_near = (index.recording[later] == index.recording[earlier]) & (
            index.starts[later] - index.ends[earlier] <= within
        )
        if not is_near.any():
            break
        is_better = is_near & ((scores[earlier] > best[later]) | (previous[later] < 0))
        best[later] = np.where(is_better, scores[earlier], best[later])
        previous[later] = np.where(is_better, np.arange(number - distance), previous[later])
    return best, previous


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest scores, the largest first, and the first of equal ones first."""
    if count < len(scores):
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
        candidates = np.flatnonzero(scores >= threshold)
        return candidates[np.argsort(-scores[candidates], kind="stable")][:count]
    return np.argsort(-scores, kind="stable")
