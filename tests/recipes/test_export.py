"""A recogniser exported as a plain causal language model: equal logits of text, no project code, no action tokens generated."""

import json

import pytest
import torch
from fresh_python import python
from peft import LoraConfig, get_peft_model
from tiny_models import (
    CLASS_NAMES,
    NUM_ACTION_TOKENS,
    VISION_LANGUAGE,
    llm_configs,
    tiny_action_model,
    tiny_llm,
    tiny_processor,
    tiny_tokenizer,
)
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from action_llm import ActionLLMForClassification
from action_llm.language_models import text_decoder_of
from action_llm_recipes.hub import export

SENTENCE = [3, 3, 15, 0, 7]


def compose(llm, **settings):
    processor = tiny_processor(num_soft_prompts=settings.get("num_soft_prompts", 0))
    model = ActionLLMForClassification.from_llm(
        llm,
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(),
        class_names=CLASS_NAMES,
        **settings,
    )
    return model, processor


def with_lora(model):
    torch.manual_seed(0)
    targets = r".*language_model\..*\.(q_proj|v_proj|c_attn)"
    get_peft_model(model, LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=targets))
    return model


def exported(model, processor, folder):
    """The plain model and its tokenizer after saving and loading, a prompt, and the logits of the recogniser for it."""
    prompt = processor.encode_prompt_and_label(processor.prompt(SENTENCE))[0]
    with torch.no_grad():
        expected = model.as_generator()(torch.tensor([prompt])).logits
    model.save_pretrained(folder / "recogniser")
    processor.save_pretrained(folder / "recogniser")
    export.main(export.ExportArguments(str(folder / "recogniser"), str(folder / "plain")))
    plain = AutoModelForCausalLM.from_pretrained(folder / "plain").eval()
    # `AutoProcessor`, with which `transformers serve` loads a model, would look for the processor of the recogniser.
    assert "ActionLLM" not in (folder / "plain" / "tokenizer_config.json").read_text()
    return plain, AutoTokenizer.from_pretrained(folder / "plain"), prompt, expected


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", list(llm_configs(100)))
def test_text_has_the_logits_of_the_recogniser(family, lora, tmp_path):
    model, processor = compose(tiny_llm(family))
    plain, tokenizer, prompt, expected = exported(with_lora(model) if lora else model, processor, tmp_path)
    offset = processor.action_token_offset
    assert plain.config.vocab_size >= offset + NUM_ACTION_TOKENS + 1 and not plain.config.tie_word_embeddings
    with torch.no_grad():
        actual = plain(torch.tensor([prompt])).logits.float()
    # Merged, the same sum is rounded elsewhere.
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if lora else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(actual[..., :offset], expected[..., :offset], **tolerance)
    messages = [{"role": "user", "content": "".join(f"<act_{u}>" for u in SENTENCE)}]
    assert tokenizer.apply_chat_template(messages)["input_ids"] == prompt
    answer = [{"role": "assistant", "content": CLASS_NAMES[2]}]
    label = processor.encode_prompt_and_label(processor.prompt(SENTENCE), CLASS_NAMES[2])[1]
    assert tokenizer.apply_chat_template(messages + answer)["input_ids"] == [*prompt, *label]


def test_action_words_are_never_written_and_no_code_of_ours_is_needed(tmp_path):
    model, processor = compose(tiny_llm("llama-gqa-tied"), num_soft_prompts=3)
    _, _, prompt, _ = exported(with_lora(model), processor, tmp_path)
    script = """
import json, sys
sys.modules["action_llm"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
# Where an action word would be the likeliest by far.
model.lm_head.weight.data[int(sys.argv[2]):] = 100 * torch.randn_like(model.lm_head.weight[int(sys.argv[2]):])
torch.manual_seed(0)
ids = torch.tensor([json.loads(sys.argv[3])])
made = model.generate(ids, max_new_tokens=12, do_sample=True, num_return_sequences=8, attention_mask=torch.ones_like(ids))
print(int(made[:, ids.shape[1]:].max()))
"""
    done = python("-c", script, tmp_path / "plain", processor.action_token_offset, json.dumps(prompt))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < processor.action_token_offset
    assert not list((tmp_path / "plain").glob("*.py"))


def test_the_text_side_of_llava_is_a_llama(tmp_path):
    torch.manual_seed(0)
    llava = AutoModelForImageTextToText.from_config(VISION_LANGUAGE["llava"](len(tiny_tokenizer()) + 7)).eval()
    model, processor = compose(text_decoder_of(llava))
    plain, _, prompt, expected = exported(model, processor, tmp_path)
    offset = processor.action_token_offset
    with torch.no_grad():
        torch.testing.assert_close(
            plain(torch.tensor([prompt])).logits[..., :offset], expected[..., :offset], rtol=0, atol=0
        )
    assert plain.config.model_type == "llama"


def test_what_cannot_be_a_plain_model_is_told():
    for settings, message in (
        ({"prefix_length": 4, "prefix_layers": [0, 2]}, "4 prompts in its layers"),
        ({"injection_layer": 1}, "continuous latents"),
    ):
        model, processor = compose(tiny_llm(), **settings)
        with pytest.raises(export.ExportError, match=message):
            export.to_causal_lm(model, len(processor.tokenizer))
    model, processor = compose(tiny_llm())
    model.is_quantized = True
    with pytest.raises(export.ExportError, match="quantised"):
        export.to_causal_lm(model, len(processor.tokenizer))
    from peft import IA3Config

    model, processor = compose(tiny_llm())
    get_peft_model(model, IA3Config(target_modules=r".*language_model.*(k_proj|v_proj)", feedforward_modules=[]))
    with pytest.raises(export.ExportError, match=r"language_model.*only LoRA can be merged"):
        export.to_causal_lm(model, len(processor.tokenizer))


def test_sums_of_scaled_embeddings_are_told():
    processor = tiny_processor(num_action_tokens=2 * NUM_ACTION_TOKENS, codes_per_word=2)
    model = ActionLLMForClassification.from_llm(
        tiny_llm("gemma2"),
        action_token_offset=processor.action_token_offset,
        action_model=tiny_action_model(num_codebooks=2),
        class_names=CLASS_NAMES,
    )
    with pytest.raises(export.ExportError, match=r"sums of 2 embeddings.*gemma2 scales its embeddings"):
        export.to_causal_lm(model, len(processor.tokenizer))


def test_names_are_written_as_they_are_scored(tmp_path, capsys, caplog):
    """A recogniser that scores by constrained decoding: the page's example restricts the plain model to the class names."""
    model, processor = compose(tiny_llm(), constrained_scoring=True)
    plain, tokenizer, prompt, _ = exported(model, processor, tmp_path)
    page = (tmp_path / "plain" / "README.md").read_text()
    assert "scores names by constrained decoding" in page
    assert any("does not do by itself: see" in message for message in caplog.messages)
    code = page.partition("```python\n")[2].partition("```")[0]
    sentence = "".join(f"<act_{token}>" for token in SENTENCE)
    code = code.replace("FOLDER", str(tmp_path / "plain")).replace("<act_0><act_1>", sentence)
    exec(compile(code, "README.md", "exec"), {})
    written = capsys.readouterr().out.splitlines()[-1].strip()
    # Greedily over the tokens that continue a name, as the recogniser scores them.
    answers = processor.label_ids()
    made: list[int] = []
    with torch.no_grad():
        while made not in answers:
            logits = model.as_generator()(torch.tensor([prompt + made])).logits[0, -1]
            next_tokens = sorted({answer[len(made)] for answer in answers if answer[: len(made)] == made})
            made.append(next_tokens[int(logits[next_tokens].argmax())])
    assert written == CLASS_NAMES[answers.index(made)]
    free = plain.generate(
        torch.tensor([prompt]), max_new_tokens=20, do_sample=False, attention_mask=torch.ones(1, len(prompt))
    )
    assert tokenizer.decode(free[0, len(prompt) :], skip_special_tokens=True).strip() not in CLASS_NAMES


def test_a_recogniser_that_scores_names_among_all_texts_needs_no_restriction(tmp_path):
    model, processor = compose(tiny_llm())
    exported(model, processor, tmp_path)
    page = (tmp_path / "plain" / "README.md").read_text()
    assert "Greedy decoding gives a class name, or another text." in page
    assert "constrained" not in page and "prefix_allowed_tokens_fn" not in page
    # Others may read the weights, too.
    (weights,) = (tmp_path / "plain").glob("*.safetensors")
    assert weights.stat().st_mode == (tmp_path / "plain" / "config.json").stat().st_mode
