"""Reasons by a language model are used if every statement is measured; others are rejected, and the reason is that by rules."""

from contextlib import contextmanager

import pytest
import torch
from peft import LoraConfig, get_peft_model
from skeleton_people import hand_wave
from tiny_models import (
    CLASS_NAMES,
    tiny_action_model,
    tiny_llava,
    tiny_llm,
    tiny_processor,
    tiny_recogniser,
    tiny_tokenizer,
    tiny_writer,
)
from transformers import pipeline

from action_llm import ActionLLMForClassification, ActionLLMProcessor
from action_llm.motion_narration import narrate
from action_llm.written_reasons import (
    EXAMPLES,
    MeasuredFacts,
    Moment,
    ReasonWriter,
    _words,
    check_reason,
    first_sentences,
    load_writer,
)

CHAT = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def waving():
    return hand_wave()


@pytest.fixture(scope="module")
def facts(waving):
    moments = [Moment("raises the right hand from the hips to the head", ((1.0, 1.5), (1.8, 2.0)))]
    return MeasuredFacts("hand wave (right)", moments, narrate(waving))


def test_the_language_model_is_told_what_was_measured(facts):
    assert facts.text == (
        "Action: hand wave (right)\n"
        f"Motion: {facts.narration.text}\n"
        "Evidence: raises the right hand from the hips to the head from 1.0 to 1.5 and 1.8 to 2.0 s"
    )
    assert "then lowers it from the head to the hips. The left arm and the legs are still." in facts.narration.text


@pytest.mark.parametrize(
    "text",
    [
        "The person raises the right hand from the hips to the head, then lowers it from the head to the hips.",
        "The action is hand wave: they lift their right arm to head height from 1.0 to 1.5 s and lower it to the hips.",
        "They are hand waving (right) because the right hand is raised between 1.8 and 2.0 seconds. The legs remain still.",
        "The left arm and the legs are still while the right hand is lowered.",
        "The person lowers the right hand. The person raises it.",
        "The person raises the right hand. Then they lower it from the head.",
    ],
)
def test_what_is_measured_is_supported(facts, text):
    statements = check_reason(text, facts)
    assert statements and {statement.verdict for statement in statements} == {"supported"}


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("The person raises the left hand.", ["contradicted"]),
        ("The person raises both hands.", ["contradicted"]),
        ("The right hand is still.", ["contradicted"]),
        ("The person raises the right hand from 3.0 to 3.5 s.", ["contradicted"]),
        ("The person lowers the right hand from 1.0 to 1.5 s.", ["contradicted"]),
        ("The person lowers the right hand, then raises it.", ["supported", "contradicted"]),
        ("The person lowers the right hand. Then they raise it.", ["supported", "contradicted"]),
        ("The person raises the right hand from the head to the hips.", ["not checkable"]),
        ("The person raises the right hand from 1.1 to 1.4 s.", ["not checkable"]),
        ("The person raises the right hand twice.", ["not checkable"]),
        ("The person raises the right hand to greet a friend.", ["not checkable"]),
        ("The person throws a ball, then raises the right hand.", ["not checkable", "supported"]),
        ("The person does not lower the right hand.", ["not checkable"]),
        ("The person is still.", ["not checkable"]),
        ("He raises the right hand.", ["not checkable"]),
        ("The person hand waves (right) to the left.", ["contradicted"]),
        ("The second person raises the right hand.", ["not checkable"]),
        ("This is hand wave.", []),
    ],
)
def test_what_is_not_measured_is_no_reason(facts, text, verdicts):
    reason = tiny_writer(text).write(facts)
    assert [statement.verdict for statement in reason.statements] == verdicts
    assert not reason.is_supported


def test_what_the_narrator_and_the_examples_say_is_supported(facts):
    assert {statement.verdict for statement in check_reason(facts.narration.text, facts)} == {"supported"}
    for told, written in EXAMPLES:
        assert set(_words(written)) <= set(_words(told))


def test_only_complete_sentences_are_used():
    assert first_sentences(" They wave from 0.9 to\n1.4 s. They stop! They go. And th") == (
        "They wave from 0.9 to 1.4 s. They stop!"
    )
    assert first_sentences("The person raises") == ""


def test_a_true_reason_is_used_and_others_are_not(waving):
    model, processor = tiny_recogniser("skeletons")
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    (by_rules, *_) = recognise(waving, explain=True)
    assert "reason_by" not in by_rules and "statements" not in by_rules
    answer = by_rules["reason"][: by_rules["reason"].index("%.") + 2]

    true = tiny_writer("The legs are still. The person raises the right hand.")
    (found, *_) = recognise(waving, explain=True, writer=true)
    assert found["reason"].startswith(f"{answer} The legs are still. The person raises the right hand.")
    assert found["reason_by"] == "language model"
    assert found["statements"] == {"supported": 2, "contradicted": 0, "not checkable": 0}
    assert true.asked[0].startswith(f"Action: {found['label']}\nMotion: The person raises the right hand ")

    for text, statements in (
        ("The person raises the left hand. The legs are still.", (1, 1, 0)),
        ("A dog runs over the field.", (0, 0, 1)),
        ("?? the the (", (0, 0, 0)),
        ("", (0, 0, 0)),
    ):
        (found, *_) = recognise(waving, explain=True, writer=tiny_writer(text))
        assert found["reason"] == by_rules["reason"] and found["reason_by"] == "rules"
        assert tuple(found["statements"].values()) == statements


def test_a_named_language_model_writes(waving, tmp_path, monkeypatch):
    """It is loaded once, reads the examples once, and writes what it would write after the whole prompt."""
    llm, tokenizer = tiny_llm("llama"), tiny_tokenizer()
    tokenizer.chat_template = CHAT
    llm.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr("action_llm.written_reasons.MAX_NEW_TOKENS", 8)
    lengths, answers = [], []
    forward, generate = type(llm).forward, ReasonWriter.generate
    monkeypatch.setattr(
        type(llm),
        "forward",
        lambda self, input_ids=None, **inputs: (
            lengths.append(input_ids.shape[1]) or forward(self, input_ids=input_ids, **inputs)
        ),
    )
    monkeypatch.setattr(
        ReasonWriter,
        "generate",
        lambda self, facts: answers.append((self, facts, generate(self, facts))) or answers[-1][-1],
    )
    model, processor = tiny_recogniser("skeletons")
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    lengths.clear()
    for _ in range(2):
        (found, *_) = recognise(waving, explain=True, writer=str(tmp_path))
        assert found["reason_by"] == "rules" and found["statements"]["contradicted"] == 0
    (first, facts, text), (second, *_) = answers
    assert first is second

    messages = [*first.messages, {"role": "user", "content": facts}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt.count("<assistant>") == len(EXAMPLES) + 1 and prompt.endswith(f"{facts}\n<assistant>")
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert sorted(lengths)[-2] < ids.shape[1] / 2, "only one pass is as long as the examples"
    whole = llm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=2)
    assert text == tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)


def with_frozen_llm(method: str, **processing):
    """A recogniser whose language model is frozen, with random weights of the method, and that language model alone."""
    processor = tiny_processor(num_soft_prompts=4 * (method == "prompt"), **processing)
    processor.tokenizer.chat_template = CHAT
    model = ActionLLMForClassification.from_llm(
        tiny_llm("llama-gqa-tied"),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(),
        class_names=CLASS_NAMES,
        prefix_length=4 if method == "prefix" else 0,
        prefix_layers=[0, 1, 2] if method == "prefix" else None,
        num_soft_prompts=processor.num_soft_prompts,
    )
    torch.manual_seed(1)
    if method == "lora":
        settings = {"target_modules": r".*language_model\..*_proj", "init_lora_weights": False}
        get_peft_model(model, LoraConfig(r=8, lora_alpha=64, **settings))
        model.requires_grad_(False)
    elif method == "prefix":
        torch.nn.init.normal_(model.model.prefix.weight, std=10.0)
    return model, processor, tiny_llm("llama-gqa-tied")


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt"])
def test_the_own_language_model_writes_as_before_training(method, waving, facts, tmp_path, monkeypatch):
    """What it writes is what the language model alone writes, before and after it recognises; its answers stay the same."""
    monkeypatch.setattr("action_llm.written_reasons.MAX_NEW_TOKENS", 12)
    model, processor, alone = with_frozen_llm(method)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = ActionLLMForClassification.from_pretrained(tmp_path)
    processor = ActionLLMProcessor.from_pretrained(tmp_path)
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    writer = load_writer("own", model, processor)
    alone.generation_config.suppress_tokens = model.generation_config.suppress_tokens  # the padding of the head
    expected, text = recognise(waving, top_k=None), ReasonWriter(alone, processor.tokenizer).generate(facts.text)
    for _ in range(2):
        assert writer.generate(facts.text) == text
        (found, *others) = recognise(waving, top_k=None, explain=True, writer="own")
        assert found["reason_by"] == "rules"
        assert [(entry["label"], entry["score"]) for entry in (found, *others)] == [
            (entry["label"], entry["score"]) for entry in expected
        ]
    assert not any(weight.requires_grad for name, weight in model.named_parameters() if "lora_" in name)
    if method != "prompt":  # a soft prompt is no part of other prompts

        @contextmanager
        def stays(model):
            yield

        for name in ("without_adapter", "without_prompts"):
            monkeypatch.setattr(f"action_llm.written_reasons.{name}", stays)
        assert ReasonWriter.of_recogniser(model, processor).generate(facts.text) != text


def test_the_weights_of_the_own_language_model_are_shared():
    model, processor, _ = with_frozen_llm("lora")
    writer = ReasonWriter.of_recogniser(model, processor)
    assert {id(weight) for weight in writer.llm.parameters()} == {id(weight) for weight in model.parameters()}


def test_an_own_language_model_that_was_trained_or_cannot_chat_is_refused(waving):
    model, processor = tiny_recogniser("skeletons")
    processor.tokenizer.chat_template = CHAT
    with pytest.raises(ValueError, match=r"\(method: full\), .* name another language model, such as 'smollm2'"):
        load_writer("own", model, processor)
    model.config.llm_name_or_path = "me/llm"  # a language model that is referred to was not trained
    assert load_writer("own", model, processor).llm.get_output_embeddings() is model.lm_head
    processor.tokenizer.chat_template = None
    with pytest.raises(
        ValueError, match=r"the language model \(llama\) has no chat format: choose .* such as 'smollm2'"
    ):
        load_writer("own", model, processor)
    with pytest.raises(ValueError, match=r"the language model \(llama\) is part of a vision-language model: choose"):
        ReasonWriter(tiny_llava(), tiny_tokenizer())


@pytest.mark.parametrize(
    ("reads", "settings", "message"),
    [
        ("skeletons", {"writer": "smollm2"}, "writer writes reasons: pass explain=True"),
        (
            "skeletons",
            {"writer": 3, "explain": True},
            "writer must be a ReasonWriter or the name of a language model, got 3",
        ),
        ("videos", {"writer": "smollm2", "explain": True}, "writer: this model reads videos"),
    ],
)
def test_a_writer_that_cannot_write_is_refused(waving, reads, settings, message):
    model, processor = tiny_recogniser(reads)
    recognise = pipeline("action-recognition", model=model, processor=processor, device="cpu")
    with pytest.raises(ValueError, match=message):
        recognise(waving, **settings)


def test_a_language_model_without_a_chat_format_is_refused():
    with pytest.raises(ValueError, match=r"the language model \(llama\) has no chat format: choose one"):
        ReasonWriter(tiny_llm("llama"), tiny_tokenizer())


def test_the_recording_is_needed(facts):
    model, processor = tiny_recogniser("skeletons")
    from action_llm.explanations import explain

    with pytest.raises(ValueError, match="pass a recording of skeletons, and times"):
        explain(model, processor, [1, 2, 3], writer=tiny_writer("The legs are still."))
