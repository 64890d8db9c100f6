"""Processor of ActionLLM: turns recordings or action ids into prompts, class names and features."""

import copy
import os
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from transformers.configuration_utils import PreTrainedConfig
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import AddedToken
from transformers.utils.hub import extract_commit_hash

from .action_sentence import WordIds
from .checked_settings import SettingError, checked, true_or_false
from .class_names import check_class_names
from .extractor_files import (
    EXTRACTOR_FIELD,
    PROCESSOR_FILE,
    RecordingFeatureExtractor,
    check_class_references,
    model_file,
    read_feature_extractor,
)
from .model_files import HUB_ARGUMENTS, ModelFileError, as_written, read_json_object
from .tokenizer_files import load_tokenizer

# LLM-AR, section 3.2; with the class list, as for unseen classes, Table 8.
INSTRUCTION = "Given a sequence of action tokens {tokens}, please predict the corresponding action."
INSTRUCTION_WITH_CLASSES = (
    "Given a sequence of action tokens {tokens}, please predict the corresponding action from {classes}."
)
# LVLM-VAR, Eq. 3 asks for a class and an explanation. Here they are separate prompts, so that the class does not depend on the
# text of an explanation.
INSTRUCTION_TO_EXPLAIN = "Given a sequence of action tokens {tokens}, please describe what is happening."
PLACEHOLDER = "<act>"
# Upper bounds of what a processor adds to a tokenizer, and of the number of codebooks.
MAX_ACTION_TOKENS, MAX_SOFT_PROMPTS, MAX_CODES = 2**16, 4096, 64
# Class names are tokenized after this many characters of a class list, not after the whole list. This is exact: the end of the
# prompt is also the end of a token (checked), and BPE and unigram models segment the text behind it independently.
CHARACTERS_BEFORE_NAME = 32


class ActionLLMProcessor(ProcessorMixin):
    r"""
    Builds all prompts and labels of ActionLLM, for training, scoring, evaluation and the pipeline.

    Token u of the codebook is written `<act_u>`. The placeholder `<act>` stands for an action sentence that the model
    encodes from a recording. Both are added to a copy of the text tokenizer, after its own tokens.

    Args:
        feature_extractor ([`SkeletonFeatureExtractor`] or [`VideoFeatureExtractor`]):
            Computes features of recordings.
        tokenizer (`PreTrainedTokenizerBase`):
            The language model's own tokenizer. It must have an end token.
        class_names (`Sequence[str]`, *optional*):
            Names of the trained classes, in the order of their labels. They are scored unless other names are passed.
        num_action_tokens (`int`, defaults to 512):
            Number of action tokens of all codebooks.
        codes_per_word (`int`, defaults to 1):
            Number of codebooks. With several, a word is a token of each ([`~action_sentence.WordIds`]).
        instruction (`str`):
            Prompt that asks for the class; the sentence replaces `{tokens}`.
        instruction_with_classes (`str`):
            Prompt that asks for a class of a list; the list replaces `{classes}`.
        list_classes (`bool`, defaults to `False`):
            Whether the class list is part of the prompt.
        instruction_to_explain (`str`):
            Prompt that asks for a description.
        chat_format (`str`, defaults to `"{instruction}"`):
            Text of a chat up to the answer, as an instruction-tuned language model reads it, such as
            `"USER: {instruction} ASSISTANT:"`; an instruction replaces `{instruction}`.
        explains (`bool`, defaults to `False`):
            Whether the model was trained to describe recordings.
        run_lengths (`bool`, defaults to `False`):
            Whether the length of each run of equal tokens is written after the token, as a number. The words of a sentence are
            then pairs (token, length).
        num_soft_prompts (`int`, defaults to 0):
            Number of soft prompts, written `<soft_0>`, `<soft_1>`, … at the start of the prompt (VT-LVLM-AR, Eq. 5).

    Raises:
        SettingError (a `ValueError`): if a setting has the wrong type or is out of range, or settings contradict each other.
        ValueError: if the tokenizer has no end token, or does not give the action tokens consecutive ids.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
    _auto_class = "AutoProcessor"

    def __init__(
        self,
        feature_extractor,
        tokenizer,
        class_names: Sequence[str] | None = None,
        num_action_tokens: int = 512,
        codes_per_word: int = 1,
        instruction: str = INSTRUCTION,
        instruction_with_classes: str = INSTRUCTION_WITH_CLASSES,
        list_classes: bool = False,
        instruction_to_explain: str = INSTRUCTION_TO_EXPLAIN,
        explains: bool = False,
        run_lengths: bool = False,
        num_soft_prompts: int = 0,
        chat_format: str = "{instruction}",
        **kwargs,
    ):
        self.class_names = None if class_names is None else check_class_names(class_names)
        self.num_action_tokens = checked("num_action_tokens", num_action_tokens, int, 1, MAX_ACTION_TOKENS)
        self.codes_per_word = checked("codes_per_word", codes_per_word, int, 1, MAX_CODES)
        self.list_classes = true_or_false("list_classes", list_classes)
        self.explains = true_or_false("explains", explains)
        self.run_lengths = true_or_false("run_lengths", run_lengths)
        self.num_soft_prompts = checked("num_soft_prompts", num_soft_prompts, int, 0, MAX_SOFT_PROMPTS)
        for name, template, fields in (
            ("instruction", instruction, ["{tokens}"]),
            ("instruction_with_classes", instruction_with_classes, ["{tokens}", "{classes}"]),
            ("instruction_to_explain", instruction_to_explain, ["{tokens}"]),
            ("chat_format", chat_format, ["{instruction}"]),
        ):
            if not isinstance(template, str):
                raise SettingError(name, f"text that contains {' and '.join(fields)}", as_written(template))
            for field in fields:
                if template.count(field) != 1:
                    message = f"{name} must contain {field} once, got {as_written(template)}."
                    raise SettingError(name, f"text that contains {field} once", as_written(template), message)
            setattr(self, name, template)
        if codes_per_word > 1 and run_lengths:
            message = "run_lengths must be False with codes_per_word above 1: lengths are written after single tokens."
            raise SettingError("run_lengths", "False with codes_per_word above 1", "True", message)
        if run_lengths and not hasattr(feature_extractor, "num_segments"):
            expected = "False with a feature extractor of skeletons, whose sentences have no limit"
            raise SettingError("run_lengths", expected, "True")
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no end token, which must follow every class name: set tokenizer.eos_token."
            )
        super().__init__(
            feature_extractor, with_action_words(tokenizer, num_action_tokens, num_soft_prompts), **kwargs
        )
        _ = self.word_ids  # raises an error if the words do not fit the codebooks
        # The last result of `label_ids`, after what it depends on: many recordings have the same classes.
        self._label_ids: tuple[tuple, list[list[int]]] | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, *, trust_remote_code: bool | None = False, **kwargs
    ) -> Self:
        """Loads the processor of a model folder or repository.

        No code of the repository is run, whatever classes its files name: the processor and its feature extractor are classes
        of this package.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                Folder, or repository on the Hub.
            trust_remote_code (`bool`, defaults to `False`):
                Whether a tokenizer that is not part of transformers may be loaded with the repository's code.
            **kwargs:
                Arguments of the download (`revision`, `token`, `cache_dir`, …), and settings of the processor, the feature
                extractor and the tokenizer that override the saved ones.

        Raises:
            `ModelFileError`: if a file lacks something that the processor needs; the message names the file and the field.
            `OSError`: if there is no such folder or repository, or it has no processor.
        """
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        path = model_file(pretrained_model_name_or_path, PROCESSOR_FILE, hub)
        if path is None:
            raise OSError(
                f"{pretrained_model_name_or_path} has no {PROCESSOR_FILE}, so it has no processor: save it there with "
                "ActionLLMProcessor.save_pretrained."
            )
        if commit := extract_commit_hash(path, None):  # all files come from the same commit, even during a push
            hub["revision"] = kwargs["revision"] = commit
        settings = cls._settings(path)
        overrides = {name: kwargs.pop(name) for name in _SETTINGS if name in kwargs}
        extractor = load_feature_extractor(pretrained_model_name_or_path, **hub)
        changed = {name: kwargs.pop(name) for name in extractor.to_dict().keys() & kwargs.keys()}
        if changed:
            extractor = type(extractor).from_dict(extractor.to_dict() | changed)
        # The tokenizer's own files name its class; the empty configuration keeps transformers from reading the model's.
        tokenizer = load_tokenizer(
            pretrained_model_name_or_path,
            trust_remote_code=bool(trust_remote_code),
            **{"config": PreTrainedConfig(), **kwargs},
        )
        try:
            return cls(extractor, tokenizer, chat_template=tokenizer.chat_template, **settings | overrides)
        except SettingError as error:
            if error.setting in overrides:
                raise
            raise ModelFileError(path, error.setting, error.actual, error.expected) from error
        except ValueError as error:
            raise ModelFileError(path, None, str(error), "settings that fit each other and the tokenizer") from error

    @classmethod
    def _settings(cls, path: str) -> dict[str, Any]:
        """The processor's own settings in `PROCESSOR_FILE`."""
        content = read_json_object(path)
        for name in (EXTRACTOR_FIELD, "tokenizer", "chat_template"):  # stored in files of their own
            content.pop(name, None)
        try:
            check_class_references(content)
        except SettingError as error:
            raise ModelFileError(path, error.setting, error.actual, error.expected) from error
        content.pop("auto_map", None)
        class_name = content.pop("processor_class", None)
        if class_name not in (None, cls.__name__):
            raise ModelFileError(path, "processor_class", class_name, cls.__name__)
        unknown = sorted(set(content) - set(_SETTINGS))
        if unknown:
            expected = f"one of the settings {', '.join(_SETTINGS)}"
            raise ModelFileError(path, unknown[0][:100], "a setting that no processor has", expected)
        names = content.get("class_names")
        if names is not None:
            if not isinstance(names, list):
                raise ModelFileError(path, "class_names", as_written(names), "a list of class names")
            try:
                check_class_names(names)
            except ValueError as error:
                raise ModelFileError(path, "class_names", str(error), "a list of distinct class names") from error
        return content

    @property
    def action_token_offset(self) -> int:
        """Id of `<act_0>`: the length of the text tokenizer."""
        return self.tokenizer.convert_tokens_to_ids("<act_0>")

    @property
    def word_ids(self) -> WordIds | None:
        """Ids of words of several tokens; `None` if a word is a single token."""
        if self.codes_per_word == 1:
            return None
        first = self.action_token_offset + self.num_action_tokens + 1 + self.num_soft_prompts
        return WordIds(self.action_token_offset, first, self.codes_per_word, self.num_action_tokens)

    def prompt(
        self,
        action_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        class_names: Sequence[str] | None = None,
        list_classes: bool | None = None,
        num_latents: int = 1,
        to_explain: bool = False,
    ) -> str:
        """The text of a prompt.

        Args:
            action_ids (`Sequence`, *optional*):
                The action sentence: tokens 0 to U - 1; with `run_lengths`, pairs of a token and the length of its run; with
                several codebooks, words of several tokens. Without a sentence, the prompt has placeholders.
            class_names (`Sequence[str]`, *optional*):
                The class names to list, if the class list is part of the prompt.
            list_classes (`bool`, *optional*):
                Overrides the processor's `list_classes`.
            num_latents (`int`, defaults to 1):
                Number of placeholders: 1 for a sentence that the model encodes, or the number of continuous latents.
            to_explain (`bool`, defaults to `False`):
                Whether the prompt asks for a description instead of a class.

        Raises:
            `ValueError`: if the sentence is empty, an id is not a token of the codebook, or lengths are missing or unexpected.
        """
        lists = self.list_classes if list_classes is None else list_classes
        classes = ", ".join(self._class_names(class_names)) if lists and not to_explain else None
        return self._prompt(action_ids, classes, num_latents, to_explain)

    def _prompt(self, action_ids, classes: str | None, num_latents: int = 1, to_explain: bool = False) -> str:
        """The text of a prompt; `classes` is the text of the class list, or None if the prompt has no list."""
        if action_ids is None:
            tokens = PLACEHOLDER * num_latents
        else:
            tokens = "".join(self._word(word) for word in action_ids)
            if not tokens:
                raise ValueError("the action sentence is empty.")
        soft = "".join(f"<soft_{prompt}>" for prompt in range(self.num_soft_prompts))
        if to_explain:
            instruction = self.instruction_to_explain.replace("{tokens}", tokens)
        elif classes is not None:
            # Names are inserted last, because they might contain "{tokens}".
            instruction = self.instruction_with_classes.replace("{tokens}", tokens).replace("{classes}", classes)
        else:
            instruction = self.instruction.replace("{tokens}", tokens)
        return soft + self.chat_format.replace("{instruction}", instruction)

    @property
    def separator(self) -> str:
        """Text between a prompt and its completion: a space, or nothing after a `chat_format` that ends with white space."""
        return "" if self.chat_format[-1].isspace() else " "

    def _word(self, word) -> str:
        """The text of a token, of a token and the length of its run, or of a word of several tokens."""
        if self.codes_per_word > 1:
            size = self.num_action_tokens // self.codes_per_word
            tokens = [int(token) for token in word] if isinstance(word, Iterable) else [int(word)]
            if [token // size for token in tokens] != list(range(self.codes_per_word)):
                raise ValueError(
                    f"a word is {self.codes_per_word} tokens, one of each codebook of {size} in their order, got {tokens}."
                )
            return "".join(f"<act_{token}>" for token in tokens)
        has_length = isinstance(word, list | tuple)
        if has_length != self.run_lengths:
            expected = "pairs of a token and the length of its run" if self.run_lengths else "tokens without lengths"
            raise ValueError(f"this model reads {expected}, got {word!r}.")
        token, length = map(int, word) if has_length else (int(word), 1)
        if not 0 <= token < self.num_action_tokens:
            raise ValueError(f"action ids must be 0 to {self.num_action_tokens - 1}, got {token}.")
        if length < 1:
            raise ValueError(f"the length of a run must be at least 1, got {length}.")
        return f"<act_{token}> {length}" if has_length else f"<act_{token}>"

    def run_length_ids(self) -> list[list[int]] | None:
        """Text ids of the numbers 1 to the maximum number of segments of a video, as written after a token; `None`
        without `run_lengths`.

        Raises:
            `ValueError`: if the tokenizer writes a number differently within a sentence and at its end.
        """
        if not self.run_lengths:
            return None
        action_token = self.action_token_offset
        number_ids = []
        for length in range(1, self.feature_extractor.num_segments + 1):
            inside = self.encode_prompt_and_label(self.prompt([(0, length), (0, 1)]))[0]
            first, second = (index for index, token in enumerate(inside) if token == action_token)
            number_ids.append(inside[first + 1 : second])
            at_the_end = self.encode_prompt_and_label(self.prompt([(0, length)]))[0]
            if at_the_end[first + 1 : second] != number_ids[-1] or len(at_the_end) != len(inside) - 1 - len(
                number_ids[0]
            ):
                raise ValueError(
                    f"the tokenizer writes {length} differently within a sentence and at its end: change the instruction "
                    f"{self.instruction!r}."
                )
        return number_ids

    def encode_prompt_and_label(self, prompt: str, completion: str | None = None) -> tuple[list[int], list[int]]:
        """Ids of a prompt and of its completion, tokenized together as a single text.

        All prompts and labels are tokenized here.

        Args:
            prompt (`str`): the text of [`~ActionLLMProcessor.prompt`].
            completion (`str`, *optional*): class name or explanation, without end token.

        Returns:
            `tuple`: ids of the prompt; ids of the completion with its end token (empty without a completion).

        Raises:
            `ValueError`: if the tokenizer merges the end of the prompt with the completion.
        """
        if completion is None:
            return self._ids([prompt])[0], []
        prompt_ids, label_ids = self._encode_labels(prompt, [completion])
        return prompt_ids, label_ids[0]

    def _encode_labels(self, prompt: str, completions: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Ids of a prompt, and of each of several alternative completions with their end tokens."""
        texts = (prompt + self.separator + completion for completion in completions)
        prompt_ids, *all_ids = self._ids([prompt, *texts])
        for completion, ids in zip(completions, all_ids, strict=True):
            if ids[: len(prompt_ids)] != prompt_ids:
                raise ValueError(
                    f"the tokenizer merges the end of the prompt with {completion!r}: end the instruction, or chat_format, "
                    "with a full stop or another token that does not merge with the text after it."
                )
        return prompt_ids, [[*ids[len(prompt_ids) :], self.tokenizer.eos_token_id] for ids in all_ids]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of incomplete texts: without the end token that some tokenizers add to every text."""
        all_ids, words = self.tokenizer(texts)["input_ids"], self.word_ids
        for index, text in enumerate(texts):
            ids = all_ids[index] if words is None else words.fold(all_ids[index])
            if words is not None and any(
                words.offset <= token < words.offset + self.num_action_tokens for token in ids
            ):
                raise ValueError(
                    f"the tokenizer does not write the tokens of a word directly after each other: {text[:80]!r}."
                )
            if not ids:
                raise ValueError(f"the tokenizer gives no tokens for {text[:80]!r}.")
            all_ids[index] = ids[:-1] if ids[-1] == self.tokenizer.eos_token_id else ids
        return all_ids

    def label_ids(self, class_names: Sequence[str] | None = None, list_classes: bool | None = None) -> list[list[int]]:
        """Ids of each class name with its end token, as they follow the prompt.

        The last result is kept until the prompt, the class names or the tokenizer (its length or end token) change.
        """
        names = self._class_names(class_names)
        # The ids of a name depend only on the text between the last action word and the name, and on the end of a class list.
        # A short prompt therefore gives the same ids as the full one.
        if self.codes_per_word > 1:
            word = range(0, self.num_action_tokens, self.num_action_tokens // self.codes_per_word)
        else:
            word = (0, 1) if self.run_lengths else 0
        lists = self.list_classes if list_classes is None else list_classes
        end_of_list = ", ".join(names[-2:])[-CHARACTERS_BEFORE_NAME:] if lists else None
        prompt = self._prompt([word], end_of_list)
        # Not the tokenizer itself: it equals itself after a change, and `to_dict` would copy it.
        key = (id(self.tokenizer), len(self.tokenizer), self.tokenizer.eos_token_id, prompt, tuple(names))
        if self._label_ids is None or self._label_ids[0] != key:
            self._label_ids = key, self._encode_labels(prompt, names)[1]
        return [list(ids) for ids in self._label_ids[1]]

    def __call__(
        self,
        recordings=None,
        action_ids: Sequence[Sequence[int]] | None = None,
        class_names: Sequence[str] | None = None,
        list_classes: bool | None = None,
        return_tensors: str = "pt",
        **kwargs,
    ) -> BatchFeature:
        """Inputs of [`ActionLLMForClassification`].

        Args:
            recordings (a recording or a list of recordings, *optional*):
                Anything that the feature extractor reads: paths, arrays, rows of a dataset.
            action_ids (`Sequence[Sequence[int]]`, *optional*):
                Encoded action sentences, instead of recordings; see [`~ActionLLMProcessor.prompt`].
            class_names (`Sequence[str]`, *optional*):
                Class names to score, instead of the trained ones.
            list_classes (`bool`, *optional*):
                Overrides the processor's `list_classes`.
            return_tensors (`str`, defaults to `"pt"`):
                Only `"pt"` is supported.

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask` (batch_size, length), left-padded; `label_ids` (num_classes,
            label_length), padded with -100; for recordings, also their features.
        """
        if return_tensors != "pt":
            raise ValueError(f"ActionLLMProcessor returns only torch tensors, got return_tensors={return_tensors!r}.")
        if (recordings is None) == (action_ids is None):
            raise ValueError("give either recordings or action_ids.")
        names = self._class_names(class_names)
        features = {}
        if recordings is not None:
            features = dict(self.feature_extractor(recordings, return_tensors="pt", **kwargs))
            ids = self._ids([self.prompt(None, names, list_classes)]) * len(features["frame_rate"])
        else:
            ids = self._ids([self.prompt(words, names, list_classes) for words in action_ids])
        length = max(len(row) for row in ids)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        labels = self.label_ids(names, list_classes)
        label_length = max(len(row) for row in labels)
        return BatchFeature(
            {
                "input_ids": torch.tensor([[pad] * (length - len(row)) + row for row in ids]),
                "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in ids]),
                "label_ids": torch.tensor([row + [-100] * (label_length - len(row)) for row in labels]),
                **features,
            }
        )

    def _class_names(self, class_names: Sequence[str] | None) -> list[str]:
        if class_names is not None:
            return check_class_names(class_names, self.class_names or ())
        if self.class_names is None:
            raise ValueError("this processor has no class names of its own: pass class_names.")
        return self.class_names

    def save_pretrained(self, save_directory, **kwargs):
        """Saves the processor, and `preprocessor_config.json`, from which the feature extractor loads separately."""
        files = super().save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(save_directory)
        return files

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "label_ids", *self.feature_extractor.model_input_names]


def load_feature_extractor(name_or_path: str | os.PathLike, **hub) -> RecordingFeatureExtractor:
    """Loads the feature extractor of a model folder or repository. No code of the repository is run.

    Args:
        name_or_path (`str` or `os.PathLike`): folder, or repository on the Hub.
        **hub: arguments of the download, such as revision, token and cache_dir.

    Returns:
        [`SkeletonFeatureExtractor`] or [`VideoFeatureExtractor`], as named in the files.

    Raises:
        ModelFileError: if a file has no settings of a feature extractor of this package, or two files have different ones.
        OSError: if there are no such files.
    """
    from .feature_extraction_skeleton import SkeletonFeatureExtractor
    from .feature_extraction_video import VideoFeatureExtractor

    return read_feature_extractor(name_or_path, hub, (SkeletonFeatureExtractor, VideoFeatureExtractor))[1]


def with_action_words(tokenizer, num_action_tokens: int, num_soft_prompts: int = 0):
    """A copy of a text tokenizer with the action words `<act_0>` … `<act_{U-1}>`, the placeholder `<act>` and the soft prompts
    `<soft_0>` … after its own tokens. A tokenizer that already has them is returned unchanged.

    Raises:
        `ValueError`: if the ids of the words do not directly follow those of the text.
    """
    words = [f"<act_{u}>" for u in range(num_action_tokens)] + [PLACEHOLDER]
    words += [f"<soft_{prompt}>" for prompt in range(num_soft_prompts)]
    known = tokenizer.get_vocab()
    if words[0] not in known:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_tokens([AddedToken(word, special=True, normalized=False) for word in words], special_tokens=True)
        known = tokenizer.get_vocab()
    own = set(words)
    offset = 1 + max(index for word, index in known.items() if word not in own)
    for index, word in enumerate(words, start=offset):
        if known.get(word) != index:
            raise ValueError(
                f"expected the id {index} for the action word {word}, but the tokenizer has {known.get(word)}: it has another "
                f"number of action tokens than {num_action_tokens} or of soft prompts than {num_soft_prompts}, or gaps between "
                "its text ids."
            )
    return tokenizer


# The settings in `PROCESSOR_FILE`, besides those of the feature extractor.
_SETTINGS = tuple(ActionLLMProcessor.__init__.__annotations__)


__all__ = ["ActionLLMProcessor"]
