"""The text side of models that see: the same numbers as in the whole, read by the same classifier, saved and loaded."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import CLASS_NAMES, VISION_LANGUAGE, WIDTH, tiny_action_model, tiny_processor, tiny_tokenizer
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration

from action_llm import ActionLLMForClassification
from action_llm.language_models import TextDecoder, fresh_language_model, load_language_model, text_decoder_of


def whole(family):
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(VISION_LANGUAGE[family](len(tiny_tokenizer()) + 7)).eval()


def compose(llm, **settings):
    return ActionLLMForClassification.from_llm(
        llm,
        action_token_offset=len(tiny_tokenizer()),
        action_model=tiny_action_model(),
        class_names=CLASS_NAMES,
        **settings,
    )


@pytest.mark.parametrize("family", VISION_LANGUAGE)
def test_text_is_read_as_by_the_whole(family, tmp_path):
    model = whole(family)
    ids = torch.tensor([tiny_tokenizer()("please predict the corresponding action").input_ids])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    model.save_pretrained(tmp_path)
    llm = load_language_model(str(tmp_path))
    composed = compose(llm, llm_name_or_path=str(tmp_path))
    with torch.no_grad():
        found = composed.as_generator()(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not any("vision" in name or "visual" in name for name, _ in composed.named_parameters())


@pytest.mark.parametrize("family", VISION_LANGUAGE)
def test_class_scores_are_exact_and_survive_saving(family, tmp_path):
    composed, processor = compose(text_decoder_of(whole(family))), tiny_processor()
    inputs = processor(action_ids=[[3, 1, 4], [1]])
    with torch.no_grad():
        by_cache = composed(**inputs, method="cache").logits
        by_default = composed(**inputs).logits
        one_by_one = []
        for name in CLASS_NAMES:
            row = []
            for sentence in ([3, 1, 4], [1]):
                prompt, label = processor.encode_prompt_and_label(processor.prompt(sentence), name)
                logits = composed.as_generator()(input_ids=torch.tensor([prompt + label])).logits[0].log_softmax(-1)
                row.append(sum(float(logits[len(prompt) - 1 + i, word]) for i, word in enumerate(label)))
            one_by_one.append(row)
    expected = torch.tensor(one_by_one).T
    torch.testing.assert_close(by_cache, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(by_default, expected, atol=1e-4, rtol=1e-4)
    composed.save_pretrained(tmp_path)
    loaded = ActionLLMForClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, by_default, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", VISION_LANGUAGE)
def test_referenced_and_loaded(family, tmp_path):
    whole(family).save_pretrained(tmp_path / "lvlm")
    composed = compose(load_language_model(str(tmp_path / "lvlm")), llm_name_or_path=str(tmp_path / "lvlm"))
    composed.save_pretrained(tmp_path / "own")
    inputs = tiny_processor()(action_ids=[[3, 1, 4]])
    loaded = ActionLLMForClassification.from_pretrained(tmp_path / "own")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, composed(**inputs).logits)


def test_a_causal_model_is_loaded_as_it_is(tmp_path):
    config = LlamaConfig(
        vocab_size=64, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    model = fresh_language_model(config)
    assert type(model).__name__ == "LlamaForCausalLM"
    model.save_pretrained(tmp_path)
    assert type(load_language_model(str(tmp_path))).__name__ == "LlamaForCausalLM"
    with pytest.raises(ValueError, match="has no text decoder with a head"):
        text_decoder_of(model)


def test_the_share_of_trainable_parameters_of_llava_13b():
    """LVLM-VAR, section 4.1: LoRA of rank 8 is 0.1 % of the LVLM; by q, k, v and o of LLaVA-13B, counted without memory."""
    text = LlamaConfig(
        vocab_size=32064, hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
    )
    sight = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=sight))
        total = sum(parameter.numel() for parameter in model.parameters())
        text_side = text_decoder_of(model)
        assert isinstance(text_side, TextDecoder)
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
        adapted = get_peft_model(text_side, lora)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert trained == 40 * 4 * 8 * 2 * 5120 == 13_107_200
    assert total == pytest.approx(13.35e9, rel=0.001)
    assert f"{100 * trained / total:.1f}" == "0.1"
