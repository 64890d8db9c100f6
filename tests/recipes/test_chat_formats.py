"""Instruction-tuned language models are asked in their own chat format, from training to explanation and export."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CLASS_NAMES, NUM_ACTION_TOKENS, tiny_tokenizer
from tokenizers import processors
from transformers import AutoTokenizer

from action_llm import ActionLLMForClassification, ActionLLMProcessor, SkeletonFeatureExtractor
from action_llm.explanations import describe
from action_llm_recipes.hub import export
from action_llm_recipes.stages.chat_formats import chat_format_of

USER, ANSWER = "{% for m in messages %}{% if m['role'] == 'user' %}", "{% else %}"
END = "{% endif %}{% endfor %}{% if add_generation_prompt %}"
PARTS = "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
TEMPLATES = {
    "Vicuna": USER + "{{ 'USER: ' + m['content'] + ' ' }}" + ANSWER + "{{ 'ASSISTANT: ' + m['content'] + eos_token }}"
    f"{END}{{{{ 'ASSISTANT:' }}}}{{% endif %}}",
    "ChatML": USER + "{{ '<s>user\n' + m['content'] + '</s>\n' }}" + ANSWER + "{{ '<s>assistant\n' + m['content'] + '</s>' }}"
    f"{END}{{{{ '<s>assistant\n' }}}}{{% endif %}}",
    "begin token in the template": "{{ bos_token }}" + USER + "{{ '[INST] ' + m['content'] + ' [/INST]' }}" + ANSWER
    + "{{ ' ' + m['content'] + eos_token }}" + f"{END}{{% endif %}}",
}  # fmt: skip
LLAVA = f"{USER}{{{{ 'USER: ' }}}}{PARTS}{ANSWER}{END}{{{{ 'ASSISTANT:' }}}}{{% endif %}}"


def chat_tokenizer(template, adds_begin=False):
    tokenizer = tiny_tokenizer()
    if adds_begin:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    tokenizer.chat_template = template
    return tokenizer


def chat_processor(tokenizer, **options):
    options |= {"class_names": CLASS_NAMES, "num_action_tokens": NUM_ACTION_TOKENS}
    return ActionLLMProcessor(
        SkeletonFeatureExtractor(num_persons=1), tokenizer, chat_format=chat_format_of(tokenizer), **options
    )


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request):
    return TEMPLATES[request.param]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, NUM_ACTION_TOKENS - 1), min_size=1, max_size=9),
    st.sampled_from(CLASS_NAMES),
    st.booleans(),
)
def test_prompts_are_what_the_chat_template_gives(template, action_ids, name, to_explain):
    processor = chat_processor(chat_tokenizer(template))
    sentence = "".join(f"<act_{u}>" for u in action_ids)
    instruction = processor.instruction_to_explain if to_explain else processor.instruction
    messages = [{"role": "user", "content": instruction.format(tokens=sentence)}]
    prompt = processor.prompt(action_ids, to_explain=to_explain)
    tokenizer = processor.tokenizer
    assert prompt == tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt_ids, label_ids = processor.encode_prompt_and_label(prompt, name)
    messages.append({"role": "assistant", "content": name})
    assert prompt_ids + label_ids == tokenizer.apply_chat_template(messages)["input_ids"]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, NUM_ACTION_TOKENS - 1), min_size=1, max_size=9), st.booleans())
def test_names_are_scored_behind_the_whole_chat(template, action_ids, list_classes):
    processor = chat_processor(chat_tokenizer(template))
    prompt = processor.prompt(action_ids, list_classes=list_classes)
    expected = [processor.encode_prompt_and_label(prompt, name)[1] for name in CLASS_NAMES]
    assert processor.label_ids(list_classes=list_classes) == expected


def test_the_begin_token_comes_once(template):
    """Where the tokenizer adds it to every text, and the chat template writes it as well."""
    processor = chat_processor(chat_tokenizer(template, adds_begin=True))
    ids = processor.encode_prompt_and_label(processor.prompt([3]))[0]
    begin = processor.tokenizer.bos_token_id
    assert ids[0] == begin and (ids[1] != begin or template == TEMPLATES["ChatML"])


def test_templates_of_vision_language_models_read_parts():
    assert chat_format_of(chat_tokenizer(LLAVA)) == "USER: {instruction} ASSISTANT:"


def test_without_a_chat_template_there_is_no_format():
    assert chat_format_of(tiny_tokenizer()) is None
    with pytest.raises(ValueError, match=r"does not show the user's message: set chat_format to the text of a chat"):
        chat_format_of(chat_tokenizer("{{ 'a text' }}"))


def test_soft_prompts_come_first(template):
    processor = chat_processor(chat_tokenizer(template), num_soft_prompts=2)
    without = chat_processor(chat_tokenizer(template))
    assert processor.prompt([5]) == "<soft_0><soft_1>" + without.prompt([5])


@pytest.fixture(scope="module")
def chat_llm(llm, tmp_path_factory):
    """The tiny language model, with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "llm"
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(llm).save_pretrained(folder)
    chat_tokenizer(TEMPLATES["ChatML"]).save_pretrained(folder)
    return str(folder)


def test_from_training_to_explanation_and_export(recipes, tokenizer, sentences, chat_llm, tmp_path, monkeypatch):
    model = recipes.sft(tokenizer, sentences, tmp_path / "sft", llm_name_or_path=chat_llm)
    processor = ActionLLMProcessor.from_pretrained(model)
    assert processor.chat_format == "<s>user\n{instruction}</s>\n<s>assistant\n"
    assert recipes.evaluate(model, sentences, tmp_path / "evaluation")["recordings"] == 12
    recogniser = ActionLLMForClassification.from_pretrained(model)
    seen = {}
    generate = ActionLLMForClassification.generate
    spy = lambda model, **inputs: seen.update(inputs) or generate(model, **inputs)  # noqa: E731
    monkeypatch.setattr(ActionLLMForClassification, "generate", spy)
    describe(recogniser, processor, [1, 2], max_new_tokens=2)
    asked = processor.tokenizer.decode(seen["input_ids"][0])
    assert asked.startswith("<s>user\nGiven a sequence") and asked.endswith(
        "describe what is happening.</s>\n<s>assistant\n"
    )
    export.main(export.ExportArguments(model, str(tmp_path / "plain")))
    messages = [{"role": "user", "content": "<act_1><act_2>"}, {"role": "assistant", "content": "hand waving"}]
    served = AutoTokenizer.from_pretrained(tmp_path / "plain").apply_chat_template(messages)["input_ids"]
    prompt, label = processor.encode_prompt_and_label(processor.prompt([1, 2]), "hand waving")
    assert served == prompt + label


def test_a_set_format_is_used_in_place_of_the_template(recipes, tokenizer, sentences, chat_llm, tmp_path):
    """Zero-shot: `USER: … ASSISTANT:` as in the YAML files of LLaVA, or the instruction alone."""
    for chat_format in ("USER: {instruction} ASSISTANT:", "{instruction}"):
        folder = tmp_path / str(len(chat_format))
        model = recipes.sft(
            tokenizer, sentences, folder, llm_name_or_path=chat_llm, method="none", chat_format=chat_format
        )
        prompt = ActionLLMProcessor.from_pretrained(model).prompt([1])
        plain = "Given a sequence of action tokens <act_1>, please predict the corresponding action."
        assert prompt == chat_format.format(instruction=plain)
