"""Reasons written by a language model, which is given what was measured, and their check against it.

The language model only rewords: a text is used if each of its statements is one of the measured movements, at its time and in
its place in the order, and the joints contradict none of them.
"""

import copy
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .adapters import has_adapter, without_adapter
from .compatibility import CACHE
from .language_models import language_model_tokenizer, load_language_model
from .motion_narration import MotionNarration
from .prefix_tuning import without_prompts
from .statement_checks import Statement, Verdict, check_statements, clauses_of

# The most that a language model writes, in tokens and in sentences.
MAX_NEW_TOKENS, MAX_SENTENCES = 80, 2
# Seconds by which movements may be told in the wrong order.
SAME_TIME = 0.1
# The name of the recogniser's own language model as a writer.
OWN = "own"

TASK = "You explain what a person in a recording does. Write one or two plain sentences. Use only the facts, with their times."
# Facts in the form of `MeasuredFacts.text`, and how a person would write them.
EXAMPLES = (
    (
        "Action: wave\n"
        "Motion: The person raises the right hand from the hips to the head, then swings it from side to side three times at "
        "the height of the head, then lowers it from the head to the hips. The left arm and the legs are still.\n"
        "Evidence: swings the right hand from side to side three times at the height of the head from 0.9 to 1.4 s",
        "The person raises the right hand and swings it from side to side three times at head height from 0.9 to 1.4 s. The "
        "left arm and the legs are still.",
    ),
    (
        "Action: squat\n"
        "Motion: The person lowers the hips, then raises the hips. The person also raises both hands from the hips to the "
        "chest and lowers them again.\n"
        "Evidence: lowers the hips from 0.6 to 1.0 s; raises the hips from 1.8 to 2.1 s",
        "The person lowers the hips from 0.6 to 1.0 s, then raises the hips from 1.8 to 2.1 s.",
    ),
    (
        "Action: throw ball (left hand)\n"
        "Motion: The person raises the left hand from the hips to the head, then moves it forward at the height of the "
        "shoulders and back. The right arm and the legs are still.\n"
        "Evidence: raises the left hand from the hips to the head from 0.3 to 0.8 s; moves the left hand forward at the height "
        "of the shoulders and back from 1.3 to 1.5 s",
        "The person raises the left hand from the hips to the head from 0.3 to 0.8 s, then moves it forward at shoulder height "
        "and back from 1.3 to 1.5 s. The legs are still.",
    ),
)


@dataclass(frozen=True)
class Moment:
    """What the first person does while some tokens occur.

    Attributes:
        movement: In words, without subject: "raises the right hand from the hips to the head".
        spans: Start and end in seconds from the start of the recording, in order of time.
    """

    movement: str
    spans: tuple[tuple[float, float], ...]

    @property
    def times(self) -> list[str]:
        """The spans in words: "0.9 to 1.4"."""
        return [f"{start:.1f} to {end:.1f}" for start, end in self.spans]


@dataclass(frozen=True)
class MeasuredFacts:
    """What a reason may say.

    Attributes:
        label: The recognised class.
        moments: The moments that support it most, in order of time.
        narration: What the body did in all.
    """

    label: str
    moments: Sequence[Moment]
    narration: MotionNarration

    @property
    def text(self) -> str:
        """The facts as they are given to a language model."""
        evidence = "; ".join(f"{moment.movement} from {' and '.join(moment.times)} s" for moment in self.moments)
        return f"Action: {self.label}\nMotion: {self.narration.text}\nEvidence: {evidence}"


@dataclass(frozen=True)
class WrittenReason:
    """A text by a language model.

    Attributes:
        text: At most `MAX_SENTENCES` complete sentences; empty if it wrote none.
        statements: Its statements about the body. "not checkable" are those that are none of the measured facts.
    """

    text: str
    statements: list[Statement]

    @property
    def is_supported(self) -> bool:
        """Whether the text makes a statement, and all of its statements are supported."""
        return bool(self.statements) and all(statement.verdict == "supported" for statement in self.statements)


class ReasonWriter:
    """
    A language model that writes reasons by greedy decoding, after the examples of this file in its own chat format.

    Args:
        llm (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`): a causal language model that follows instructions.

    Raises:
        ValueError: if the language model cannot generate text, or the tokenizer has no chat format.
    """

    def __init__(self, llm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        instead = "choose one that was trained to follow instructions, such as 'smollm2'; their names often end in -Instruct."
        model_type = llm.config.get_text_config().model_type
        if not hasattr(llm, "generate"):
            raise ValueError(f"the language model ({model_type}) is part of a vision-language model: {instead}")
        if tokenizer.chat_template is None:
            raise ValueError(f"the language model ({model_type}) has no chat format: {instead}")
        self.llm, self.tokenizer = llm.eval(), tokenizer
        messages = [{"role": "system", "content": TASK}]
        for facts, reason in EXAMPLES:
            messages += [{"role": "user", "content": facts}, {"role": "assistant", "content": reason}]
        self.messages = messages

    @classmethod
    def from_pretrained(cls, name_or_path: str, **kwargs) -> "ReasonWriter":
        """Loads a language model by any name that [`~language_models.load_language_model`] takes, with its arguments."""
        return cls(load_language_model(name_or_path, **kwargs), language_model_tokenizer(name_or_path))

    @classmethod
    def of_recogniser(cls, model: PreTrainedModel, processor) -> "ReasonWriter":
        """
        The language model of a recogniser, which writes without the adapter or the prompts that it recognises with. Weights are
        shared, not copied. While it writes, no other thread may use the recogniser.

        Args:
            model ([`ActionLLMForClassification`]), processor ([`ActionLLMProcessor`]): the recogniser.

        Raises:
            ValueError: if neither its configuration nor an adapter shows that the language model was frozen in training, or
                if it has no chat format.
        """
        config = model.config
        has_prompts = config.prefix_length or config.num_soft_prompts
        if config.llm_name_or_path is None and not (has_adapter(model) or has_prompts):
            raise ValueError(
                "writer: this recogniser has neither an adapter nor prompts, so its language model may have been trained "
                "(method: full), and may not follow instructions: name another language model, such as 'smollm2'."
            )
        return cls(model.as_generator(), processor.tokenizer)

    def write(self, facts: MeasuredFacts) -> WrittenReason:
        """Writes a reason and checks it."""
        text = first_sentences(self.generate(facts.text))
        return WrittenReason(text, check_reason(text, facts))

    @torch.no_grad()
    def generate(self, facts: str) -> str:
        """What the language model answers to facts in words."""
        ids = self._ids([*self.messages, {"role": "user", "content": facts}], add_generation_prompt=True)
        pad = self.tokenizer.pad_token_id
        with without_adapter(self.llm), without_prompts(self.llm):
            read, cache = self._examples
            is_read = ids[0, : read.shape[1]].equal(read[0])
            generated = self.llm.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id if pad is None else pad,
                **({CACHE: copy.deepcopy(cache)} if is_read else {}),
            )
        return self.tokenizer.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)

    @functools.cached_property
    def _examples(self) -> tuple[torch.Tensor, Any]:
        """The tokens of the examples, (1, T), and the cache of the language model after them, so that it reads them once."""
        ids = self._ids(self.messages)
        return ids, self.llm(input_ids=ids, use_cache=True)[CACHE]

    def _ids(self, messages: list[dict[str, str]], **settings) -> torch.Tensor:
        """The tokens of messages in the chat format, (1, T)."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, **settings)
        return self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(self.llm.device)


def load_writer(name: str, model: PreTrainedModel, processor) -> ReasonWriter:
    """
    The writer of a name, on the device of a recogniser.

    Args:
        name (`str`): `"own"` for [`ReasonWriter.of_recogniser`], or any name that [`ReasonWriter.from_pretrained`] takes.
        model ([`ActionLLMForClassification`]), processor ([`ActionLLMProcessor`]): the recogniser.

    Raises:
        ValueError: if the recogniser reads videos, or the language model cannot write.
        ImportError, OSError: see [`~language_models.load_language_model`].
    """
    check_measures_joints(processor)
    if name == OWN:
        return ReasonWriter.of_recogniser(model, processor)
    writer = ReasonWriter.from_pretrained(name)
    writer.llm.to(model.device)
    return writer


def check_measures_joints(processor) -> None:
    """Raises `ValueError` for the processor of a recogniser of videos."""
    if not hasattr(processor.feature_extractor, "skeleton_layout"):
        raise ValueError("writer: this model reads videos, and a language model writes only about measured joints.")


def first_sentences(text: str) -> str:
    """The first complete sentences of a text, at most `MAX_SENTENCES`."""
    sentences = re.findall(r"\S.*?[.!?](?=\s|$)", " ".join(text.split()))
    return " ".join(sentences[:MAX_SENTENCES])


def check_reason(text: str, facts: MeasuredFacts) -> list[Statement]:
    """
    Checks a text against measured facts.

    A clause is supported if a single movement has all of its words, that movement is not before those of the clauses before it
    in its sentence, and the joints do not contradict it. Synonyms and inflections count as the same word; words that state
    nothing, such as "the person", are left out.

    Returns:
        The statements in the order of the text: clauses with words, unless they only name the class.
    """
    known, labels = _measured(facts), [_words(facts.label), _words(facts.label.partition("(")[0])]
    statements, reached = [], float("-inf")
    for clause, by_joints in zip(clauses_of(text), check_statements(text, facts.narration), strict=True):
        words = _words(clause.text)
        if not words or words in labels:
            continue
        words += [] if clause.part is None else _words(" ".join(filter(None, clause.part)))
        reached = reached if clause.follows else float("-inf")
        starts = [
            start
            for person, start, fact in known
            if person == clause.person
            and not clause.is_negated
            and fact.issuperset(words)
            # "The person is still" says more than that an arm is.
            and (clause.part is not None or start < float("inf"))
        ]
        later = [start for start in starts if start >= reached - SAME_TIME]
        verdict: Verdict = "supported" if later else "contradicted" if starts else "not checkable"
        if by_joints.verdict == "contradicted":
            verdict = "contradicted"
        if later and min(later) < float("inf"):
            reached = min(later)
        statements.append(Statement(clause.text, verdict))
    return statements


def _measured(facts: MeasuredFacts) -> list[tuple[int, float, frozenset[str]]]:
    """Person, start and words of each movement; what is still has the start ∞, because it has no place in the order."""
    known = []
    for moment in facts.moments:
        times = " ".join(f"{time} s" for time in moment.times) + " ".join(
            f" {start:.1f} {end:.1f}" for start, end in moment.spans
        )
        known.append((0, moment.spans[0][0], _words(f"{moment.movement} {times}")))
    for person, events in enumerate(facts.narration.events):
        known += [(person, event.start, _words(event.movement)) for event in events]
    for clause in clauses_of(facts.narration.text):
        if clause.text.endswith(" still"):
            known.append((clause.person, float("inf"), _words(clause.text)))
    # What both hands do, each of them does.
    return [
        (person, start, frozenset(words) | ({"left", "right"} if "both" in words else set()))
        for person, start, words in known
    ]


# Words that say nothing about the motion.
_NO_STATEMENT = re.compile(
    "an?|the|this|that|these|there|its?|they|them|their|which|what|person|first|second|is|are|was|were|be|being|been|do|does|doing|"
    "did|has|have|having|remains?|stays?|keeps?|and|or|so|then|next|finally|afterwards|while|meanwhile|as|because|also|at|from|to|"
    "of|in|on|with|by|for|about|around|during|between|until|s|sec|seconds?|time|same|evidence|strongest|shows?|shown|seen|action|"
    "motion|movement|recording|performs?|performing|makes?|making"
)
# Stem → stem of the measured movements.
_SYNONYMS = {
    "lift": "rais", "arm": "hand", "wrist": "hand", "leg": "foot", "feet": "foot", "upward": "up", "downward": "down",
    "motionles": "stil",
}  # fmt: skip
_PLACES = re.compile(
    r"\b(from|to|at|above) (?:(?:the|their) )?(?:(?:height|level) of (?:(?:the|their) )?)?"
    r"(head|shoulder|chest|waist|hip|knee|feet|left|right|side)s?\b(?:[- ](?:height|level)\b)?"
)
_RANGE = re.compile(r"(\d+\.\d+)(?: to | and |-|–)(\d+\.\d+)")


def _words(text: str) -> list[str]:
    """The words of a text that say something, as stems; a place with its preposition is a word, and so is a range of times."""
    text = _RANGE.sub(r"\1_\2", " ".join(text.lower().split()))
    text = _PLACES.sub(r"\1_\2", text)
    words = re.findall(r"\d+(?:\.\d+)?(?:_\d+\.\d+)?%?|[^\W\d]\w*", text)
    return [_stem(word) for word in words if not _NO_STATEMENT.fullmatch(word)]


def _stem(word: str) -> str:
    """A word without its ending, or that of its synonym."""
    if "_" in word or word[0].isdigit():
        return word
    stem = re.sub(r"(?<=\w\w\w)(?:ing|ed|es|s|e)$", "", word)
    stem = re.sub(r"([^\W\d])\1$", r"\1", stem)
    return _SYNONYMS.get(stem, stem)


__all__ = [
    "OWN",
    "MeasuredFacts",
    "Moment",
    "ReasonWriter",
    "WrittenReason",
    "check_measures_joints",
    "check_reason",
    "first_sentences",
    "load_writer",
]
