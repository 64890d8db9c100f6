import re
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, tiny_processor, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from action_llm import ActionLLMProcessor, SkeletonFeatureExtractor
from action_llm.processing_action_llm import with_action_words


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


def test_action_words_follow_the_text(processor):
    assert processor.action_token_offset == len(tiny_tokenizer())
    ids = processor.tokenizer("<act_0><act_15><act>", add_special_tokens=False)["input_ids"]
    assert ids == [processor.action_token_offset + n for n in (0, 15, NUM_ACTION_TOKENS)]


def test_the_given_tokenizer_is_not_changed():
    tokenizer = tiny_tokenizer()
    length = len(tokenizer)
    with_action_words(tokenizer, 8)
    assert len(tokenizer) == length


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, NUM_ACTION_TOKENS - 1), min_size=1, max_size=30), st.sampled_from(CLASS_NAMES))
def test_prompt_and_label_are_the_text_they_stand_for(processor, action_ids, name):
    prompt = processor.prompt(action_ids)
    prompt_ids, label_ids = processor.encode_prompt_and_label(prompt, name)
    assert [i - processor.action_token_offset for i in prompt_ids if i >= processor.action_token_offset] == action_ids
    assert label_ids[-1] == processor.tokenizer.eos_token_id
    assert processor.tokenizer.decode(prompt_ids + label_ids) == f"{prompt} {name}</s>"
    # One text, tokenized as one: what training sees is what is scored.
    assert prompt_ids + label_ids[:-1] == processor.tokenizer(f"{prompt} {name}")["input_ids"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, NUM_ACTION_TOKENS - 1), min_size=1, max_size=30), st.booleans())
def test_label_ids_do_not_depend_on_the_sentence(processor, action_ids, list_classes):
    prompt = processor.prompt(action_ids, list_classes=list_classes)
    expected = [processor.encode_prompt_and_label(prompt, name)[1] for name in CLASS_NAMES]
    assert processor.label_ids(list_classes=list_classes) == expected


def test_label_ids_follow_changes_of_the_tokenizer():
    processor = tiny_processor()
    first = processor.label_ids()
    assert processor.label_ids() == first
    processor.tokenizer.add_special_tokens({"eos_token": "<end>"})
    assert processor.label_ids() == [[*ids[:-1], processor.tokenizer.eos_token_id] for ids in first] != first
    processor.tokenizer.eos_token = "<pad>"
    assert {ids[-1] for ids in processor.label_ids()} == {processor.tokenizer.pad_token_id}
    processor.tokenizer.add_tokens(["hand waving"])
    assert processor.label_ids() == _one_by_one(processor, CLASS_NAMES, False)
    processor.tokenizer = tiny_processor().tokenizer
    assert processor.label_ids() == first
    assert not any(isinstance(part, PreTrainedTokenizerFast) for part in processor._label_ids[0])


def _one_by_one(processor, names, list_classes):
    """Each name behind the whole prompt: the definition."""
    prompt = processor.prompt([0], names, list_classes)
    return [processor.encode_prompt_and_label(prompt, name)[1] for name in names]


def _tokenizers():
    """Tokenizers of all kinds: with and without words, of one language model and of the other, in Python too."""
    sentences = ["please predict the corresponding action from a list.", *CLASS_NAMES, "ab ba, abc. bca"] * 4
    metaspace, byte_level = pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel(add_prefix_space=False)
    kinds = {
        "byte-level BPE": (models.BPE(), byte_level, trainers.BpeTrainer),
        "BPE over words": (models.BPE(unk_token="<unk>"), metaspace, trainers.BpeTrainer),
        "BPE over whole texts": (models.BPE(unk_token="<unk>"), metaspace, trainers.BpeTrainer),
        "unigram": (models.Unigram(), metaspace, trainers.UnigramTrainer),
        "unigram over whole texts": (models.Unigram(), metaspace, trainers.UnigramTrainer),
        "word pieces": (
            models.WordPiece(unk_token="<unk>"),
            pre_tokenizers.BertPreTokenizer(),
            trainers.WordPieceTrainer,
        ),
        "words": (models.WordLevel(unk_token="<unk>"), pre_tokenizers.Whitespace(), trainers.WordLevelTrainer),
    }
    for name, (model, pre_tokenizer, trainer) in kinds.items():
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizer
        special = {"special_tokens": ["<s>", "</s>", "<unk>"], "show_progress": False, "vocab_size": 150}
        special |= {"unk_token": "<unk>"} if "unigram" in name else {}
        tokenizer.train_from_iterator(sentences, trainer(**special))
        if "whole texts" in name:  # as SentencePiece: no token goes across words, and nothing cuts the text into words
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
        yield name, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    yield "bytes, in Python", ByT5Tokenizer()


@pytest.fixture(scope="module", params=dict(_tokenizers()).items(), ids=lambda param: param[0])
def any_processor(request):
    return ActionLLMProcessor(
        SkeletonFeatureExtractor(num_persons=1), request.param[1], CLASS_NAMES, num_action_tokens=2
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text("ab c,.(é", min_size=1, max_size=45).filter(str.strip), min_size=1, max_size=6, unique=True),
    st.booleans(),
)
def test_label_ids_are_those_behind_the_whole_prompt(any_processor, names, list_classes):
    processor = any_processor
    processor.class_names = names  # as of a model that was trained on names that look alike
    assert processor.label_ids(names, list_classes) == _one_by_one(processor, names, list_classes)


def test_long_class_lists_take_linear_time(processor):
    """20 s for a thousand names, when the whole list was tokenized with each of them."""
    names = [f"action number {number}" for number in range(5000)]
    start = time.process_time()
    inputs = processor(action_ids=[[1]], class_names=names, list_classes=True)
    assert time.process_time() - start < 10
    assert inputs["label_ids"].shape[0] == 5000 and inputs["input_ids"].shape[1] > 5000


def test_class_list_in_the_prompt(processor):
    prompt = processor.prompt([3, 1], ["wave", "clap"], list_classes=True)
    assert prompt == (
        "Given a sequence of action tokens <act_3><act_1>, please predict the corresponding action from wave, clap."
    )


def test_batches_are_padded_on_the_left(processor):
    inputs = processor(action_ids=[[1, 2, 3], [4]])
    assert inputs["attention_mask"].sum(1).tolist() == [
        len(processor.encode_prompt_and_label(processor.prompt(ids))[0]) for ids in ([1, 2, 3], [4])
    ]
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]
    assert (inputs["attention_mask"].diff(dim=1) >= 0).all()


def test_recordings_get_one_placeholder(processor):
    recording = np.random.default_rng(0).normal(size=(12, 25, 3)).astype(np.float32)
    inputs = processor(recordings=[recording, recording[:8]])
    placeholder = processor.action_token_offset + NUM_ACTION_TOKENS
    assert (inputs["input_ids"] == placeholder).sum(1).tolist() == [1, 1]
    assert inputs["input_features"].shape == (2, 12, 75)
    assert inputs["feature_attention_mask"].sum(1).tolist() == [12, 8]


def test_save_and_load(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = ActionLLMProcessor.from_pretrained(tmp_path)
    assert loaded.class_names == CLASS_NAMES
    assert loaded.action_token_offset == processor.action_token_offset
    for name, tensor in processor(action_ids=[[1, 2]]).items():
        assert torch.equal(loaded(action_ids=[[1, 2]])[name], tensor)
    assert SkeletonFeatureExtractor.from_pretrained(tmp_path).num_persons == 1
    assert (tmp_path / "preprocessor_config.json").is_file()


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "the class list is empty"),
        ("wave", "must be a list of names, got the string 'wave'"),
        (["wave", ""], "class 1 has no name"),
        (["wave", "   "], "class 1 has no name"),
        (["wave", "clap", "wave"], "'wave' is in the list twice (second time at 2)"),
        (b"wave", "must be a list of names, got the string b'wave'"),
        (
            {"wave": 0, "clap": 1},
            "must be a list of names, got a dict: convert it to a list, in the order of the labels",
        ),
        ({"wave", "clap"}, "got a set"),
        (iter(["wave", "clap"]), "got a list_iterator"),
        (3, "got a int"),
        (np.array("wave"), "got a ndarray"),
        (["wave", 3], "class 1 must be a name, got 3 (int)"),
        (["wave", None], "class 1 must be a name, got None"),
        (np.array([["wave"], ["clap"]]), "class 0 must be a name, got array(['wave']"),
        (["wave", "\u200d"], "class 1 has no name"),
        (["wave", "wa\u200bve"], r"'wa\u200bve' contains the control character '\u200b'"),
    ],
)
def test_bad_class_lists(processor, names, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        processor(action_ids=[[1]], class_names=names)
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_processor(class_names=names)


@pytest.mark.parametrize(
    "names",
    [
        ["wave", "wave "],
        [" wave", "wave"],
        ["big  wave", "big wave"],
        ["big\u00a0wave", "big wave"],
        ["caf\u00e9", "cafe\u0301"],
        ["wa\u200dve", "wave"],
        ["wave\ufe0f", "wave"],
    ],
)
def test_names_that_look_the_same_are_one_class(processor, names):
    """Unless a model was trained on both: it still loads, and still tells them apart."""
    with pytest.raises(ValueError, match=r"is in the list twice \(second time at 1, and looks like '.*' at 0\)"):
        processor(action_ids=[[1]], class_names=names)
    trained = tiny_processor(class_names=names)
    assert trained.class_names == names
    assert trained.label_ids() == trained.label_ids(names) == _one_by_one(trained, names, None)


@pytest.mark.parametrize("listed", [tuple, np.array, lambda names: dict.fromkeys(names, 0).keys()])
def test_class_lists_of_other_types(processor, listed):
    names = ["wave", "clap"]
    inputs = processor(action_ids=[[1]], class_names=listed(names), list_classes=True)
    assert (
        inputs["label_ids"].tolist()
        == processor(action_ids=[[1]], class_names=names, list_classes=True)["label_ids"].tolist()
    )
    assert [type(name) for name in tiny_processor(class_names=listed(names)).class_names] == [str, str]


@pytest.mark.parametrize("ids, message", [([], "empty"), ([16], "0 to 15, got 16"), ([-1], "0 to 15, got -1")])
def test_bad_sentences(processor, ids, message):
    with pytest.raises(ValueError, match=message):
        processor.prompt(ids)


def test_other_bad_input(processor):
    with pytest.raises(ValueError, match="either recordings or action_ids"):
        processor()
    with pytest.raises(ValueError, match=r"instruction must contain \{tokens\} once"):
        tiny_processor(instruction="What is this?")
    with pytest.raises(ValueError, match="no class names of its own"):
        tiny_processor(class_names=None)(action_ids=[[1]])
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        ActionLLMProcessor(SkeletonFeatureExtractor(), tokenizer)
    with pytest.raises(ValueError, match="it has another number of action tokens"):
        with_action_words(with_action_words(tiny_tokenizer(), 8), 9)


def test_a_tokenizer_that_joins_prompt_and_label_is_refused():
    """BPE without pre-tokenization merges across words."""
    bpe = Tokenizer(models.BPE())
    bpe.train_from_iterator(["so. wave"] * 9, trainers.BpeTrainer(special_tokens=["</s>"], show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>")
    processor = ActionLLMProcessor(
        SkeletonFeatureExtractor(), tokenizer, class_names=["wave"], num_action_tokens=4, instruction="{tokens}so."
    )
    with pytest.raises(ValueError, match="merges the end of the prompt with 'wave'"):
        processor(action_ids=[[1]])
