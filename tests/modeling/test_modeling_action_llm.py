import copy
import json

import numpy as np
import pytest
import torch
from fresh_python import python
from peft import IA3Config, LoraConfig, get_peft_model, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny_models import (
    CLASS_NAMES,
    NUM_ACTION_TOKENS,
    WIDTH,
    llm_configs,
    tiny_action_model,
    tiny_llm,
    tiny_processor,
    tiny_tokenizer,
)
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from action_llm import ActionLLMConfig, ActionLLMForClassification, ActionLLMForConditionalGeneration
from action_llm.label_scoring import LabelTrie
from action_llm.language_models import check_context_length, decoder_layers
from action_llm.modeling_action_llm import MIN_TOKENS_SAVED

FAMILIES = list(llm_configs(100))
LORA = {"r": 4, "lora_alpha": 8, "init_lora_weights": False}
LORA["target_modules"] = r".*language_model\..*\.(q_proj|v_proj|c_attn)"


def compose(family="llama", cls=ActionLLMForClassification, **kwargs):
    settings = {"class_names": CLASS_NAMES, "action_token_offset": len(tiny_tokenizer())} | kwargs
    if "action_table" not in settings:
        settings.setdefault("action_model", tiny_action_model())
    return cls.from_llm(settings.pop("llm", None) or tiny_llm(family), **settings)


def recordings(count=2, frames=24, seed=0):
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(count, frames, 25, 3)).cumsum(axis=1) * 0.1 + rng.normal(size=(count, 1, 25, 3))
    return [r[: frames - 4 * i].astype(np.float32) for i, r in enumerate(walk)]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.mark.parametrize("family", FAMILIES)
def test_text_is_read_as_by_the_language_model_alone(family):
    llm = tiny_llm(family)
    model = compose(llm=llm, cls=ActionLLMForConditionalGeneration)
    text = torch.randint(3, len(tiny_tokenizer()), (2, 11))
    with torch.no_grad():
        torch.testing.assert_close(model(text).logits, llm(text).logits.float(), rtol=0, atol=0)
    ids = model.generate(text, max_new_tokens=5, do_sample=False)
    banned = list(range(len(tiny_tokenizer()), llm.config.vocab_size))
    assert torch.equal(ids, llm.generate(text, max_new_tokens=5, do_sample=False, suppress_tokens=banned))
    assert ids.max() < len(tiny_tokenizer()), "an id past the text is an action word"


@pytest.mark.parametrize("family", FAMILIES)
def test_action_words_are_rows_of_the_codebook(family):
    """A plain model whose own table has the codebook's rows in it gives the same hidden states."""
    llm, offset = tiny_llm(family), len(tiny_tokenizer())
    model = compose(llm=llm)
    plain = copy.deepcopy(llm)
    with torch.no_grad():
        table = plain.get_input_embeddings().weight
        wide = torch.cat([table[:offset], model.model.action_model.codebook])
        plain.get_input_embeddings().weight = torch.nn.Parameter(wide)
        ids = torch.tensor([[5, 9, offset, offset + 7, offset + NUM_ACTION_TOKENS - 1, 4]])
        expected = plain.base_model(ids).last_hidden_state
        torch.testing.assert_close(model.model(ids).last_hidden_state, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_log_probabilities_of_each_label_alone(family, processor):
    model = compose(family)
    inputs = processor(action_ids=[[1, 2, 3, 4], [7, 7]])
    with torch.no_grad():
        outputs = {method: model(**inputs, method=method) for method in ("auto", "cache")}
        for row, sentence in enumerate([[1, 2, 3, 4], [7, 7]]):
            for column, name in enumerate(CLASS_NAMES):
                prompt, label = processor.encode_prompt_and_label(processor.prompt(sentence), name)
                text = torch.tensor([prompt + label])
                logits = model.as_generator()(text).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
                alone = logits.gather(-1, torch.tensor(label)[:, None]).sum()
                for output in outputs.values():
                    torch.testing.assert_close(output.logits[row, column], alone, rtol=1e-4, atol=1e-4)
    output = outputs["auto"]
    torch.testing.assert_close(output.probabilities.sum(-1), torch.ones(2))
    expected = outputs["cache"].logits.log_softmax(-1)[:, 2]
    torch.testing.assert_close(model.log_probability(2, **inputs), expected, rtol=1e-4, atol=1e-4)


def test_text_before_the_sentences_of_a_batch_is_read_once(processor):
    model, reads = compose("llama"), []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: reads.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    inputs = processor(action_ids=[[1, 2, 3], [4, 5], [6], [1, 2]])
    names = LabelTrie([[token for token in row if token != -100] for row in inputs["label_ids"].tolist()]).num_nodes
    text = len(processor.encode_prompt_and_label(processor.prompt([0]).partition("<act_0>")[0])[0])
    length = inputs["input_ids"].shape[1] + names
    assert 3 * text >= MIN_TOKENS_SAVED > text
    with torch.no_grad():
        model(**inputs)
        model(**processor(action_ids=[[1, 2, 3], [4, 5]]))  # little to save
    model(**inputs)  # gradients pass through the text
    with torch.no_grad():
        model.train()(**inputs)  # each row has its own dropout
    assert reads == [(1, text), (4, length - text), (2, length), (4, length), (4, length)]


def test_answers_are_those_of_the_current_weights(processor):
    """However weights are changed, and whether adapters are in use."""
    model, inputs = compose("llama"), processor(action_ids=[[1, 2, 3], [4, 5], [6], [1, 2]])
    layers = model.model.language_model.layers
    other = {name: weight + 0.1 for name, weight in model.model.language_model.state_dict().items()}
    ia3 = IA3Config(target_modules=r".*(k_proj|v_proj)", feedforward_modules=[], init_ia3_weights=False)

    def enable_adapters(enabled):
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.enable_adapters(enabled)

    changes = {
        "as composed": lambda: None,
        "added to data": lambda: layers[0].self_attn.k_proj.weight.data.add_(0.5),
        "copied to data": lambda: layers[1].self_attn.v_proj.weight.data.copy_(layers[2].self_attn.v_proj.weight),
        "another state": lambda: model.model.language_model.load_state_dict(other),
        "another dtype": lambda: model.bfloat16(),
        "IA3": lambda: inject_adapter_in_model(ia3, model.float()),
        "IA3 off": lambda: enable_adapters(False),
        "IA3 on": lambda: enable_adapters(True),
    }
    previous = torch.full((4, len(CLASS_NAMES)), torch.inf)
    with torch.no_grad():
        for name, change in changes.items():
            change()
            expected = model(**inputs, method="cache").logits
            assert (expected - previous).abs().max() > 1e-3, name
            previous = expected
            tolerance = 0.5 if model.dtype == torch.bfloat16 else 1e-4
            torch.testing.assert_close(model(**inputs).logits, expected, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("family", ["llama", "llama-gqa-tied", "gpt2", "gemma2"])
def test_save_and_load_with_adapter(family, reference, processor, tmp_path):
    """Bit-equal after a round trip, with the language model inside or referenced, without and with an adapter."""
    llm = tiny_llm(family)
    llm.save_pretrained(tmp_path / "llm")
    model = compose(llm=llm, llm_name_or_path=str(tmp_path / "llm") if reference else None)
    inputs = processor(recordings=recordings())
    with torch.no_grad():
        expected = model(**inputs).logits
    model.save_pretrained(tmp_path / "plain")
    loaded = ActionLLMForClassification.from_pretrained(tmp_path / "plain")
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, expected)
    size = (tmp_path / "plain" / "model.safetensors").stat().st_size
    weights = sum(p.numel() * 4 for p in llm.parameters())
    assert (size < weights) == reference or size > weights, "a referenced language model is not saved again"
    assert loaded.config.id2label[1] == "hand waving"

    torch.manual_seed(0)
    peft_model = get_peft_model(loaded, LoraConfig(**LORA))
    adapted = peft_model.get_base_model()
    with torch.no_grad():
        expected_adapted = adapted(**inputs).logits
    assert not torch.equal(expected_adapted, expected)
    adapted.save_pretrained(tmp_path / "adapted")
    again = ActionLLMForClassification.from_pretrained(tmp_path / "adapted")
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, expected_adapted)
    # A loaded repository is saved as completely as it was loaded.
    again.save_pretrained(tmp_path / "twice")
    with torch.no_grad():
        twice = ActionLLMForClassification.from_pretrained(tmp_path / "twice")
        assert torch.equal(twice(**inputs).logits, expected_adapted)


def test_nothing_of_the_machine_is_saved(tmp_path):
    tiny_llm().save_pretrained(tmp_path / "llm")
    model = compose(llm=AutoModelForCausalLM.from_pretrained(tmp_path / "llm"))
    model.save_pretrained(tmp_path / "model")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()


def test_dtype_and_attention_are_the_language_models(tmp_path):
    tiny_llm().save_pretrained(tmp_path / "llm")
    compose(llm_name_or_path=str(tmp_path / "llm")).save_pretrained(tmp_path / "model")
    model = ActionLLMForClassification.from_pretrained(
        tmp_path / "model", dtype=torch.bfloat16, attn_implementation="eager"
    )
    assert model.dtype == torch.bfloat16
    assert model.model.language_model.config._attn_implementation == "eager"
    assert {p.dtype for p in model.model.action_model.quantizer.parameters()} == {torch.float32}


def test_language_model_is_untouched():
    llm = tiny_llm()
    before = {name: tensor.clone() for name, tensor in llm.state_dict().items()}
    model = compose(llm=llm)
    model.requires_grad_(False)
    peft_model = get_peft_model(model.as_generator(), LoraConfig(**LORA))
    optimizer = torch.optim.AdamW([p for p in peft_model.parameters() if p.requires_grad], lr=0.1)
    text = torch.randint(3, 40, (2, 9))
    peft_model(input_ids=text, labels=text).loss.backward()
    optimizer.step()
    after = {name.replace(".base_layer", ""): tensor for name, tensor in llm.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_trained_action_words_travel_with_the_adapter(processor, tmp_path):
    model = compose(train_action_embeddings=True)
    peft_model = get_peft_model(model.as_generator(), LoraConfig(**LORA, modules_to_save=["action_embedding"]))
    own = peft_model.get_base_model().model.action_embedding.modules_to_save["default"]
    assert own.language_model is model.model.language_model, "the language model was copied"
    with torch.no_grad():
        own.weight += 1
    classifier = peft_model.get_base_model().as_classifier()
    inputs = processor(action_ids=[[1, 2, 3]])
    expected = classifier(**inputs).logits
    classifier.save_pretrained(tmp_path)
    loaded = ActionLLMForClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, expected)


@pytest.mark.parametrize("layer", [0, 1])
def test_continuous_latents_replace_hidden_states(layer, processor):
    """LLM-AR, Table 5: against the backbone run by hand, layer by layer."""
    model = compose(injection_layer=layer, action_model=tiny_action_model(quantize=False))
    inputs = processor(recordings=recordings(1))
    outputs = model(**inputs)
    torch.testing.assert_close(outputs.probabilities.sum(-1), torch.ones(1))
    assert outputs.action_ids is None

    sentence = model.model.action_model.encode(inputs["input_features"], inputs["feature_attention_mask"])
    count = int(sentence.attention_mask.sum())
    prompt, _ = processor.encode_prompt_and_label(processor.prompt(None, num_latents=count))
    ids = torch.tensor([prompt])
    places = ids[0] == model.config.placeholder_token_id
    seen = {}
    block = decoder_layers(model.model.language_model)[layer]
    hook = block.register_forward_hook(lambda module, args, kwargs, out: seen.update(args=args), with_kwargs=True)
    # A forward hook sees what the layer was given after all pre-hooks.
    model.model(ids, action_embeds=sentence.latents, action_embeds_mask=sentence.attention_mask)
    hook.remove()
    projected = model.model.action_projector(sentence.latents[sentence.attention_mask.bool()])
    torch.testing.assert_close(seen["args"][0][0, places], projected)

    with pytest.raises(ValueError, match=f"got {count} placeholders and {count - 1} latents"):
        model.model(ids, action_embeds=sentence.latents[:, 1:])
    with pytest.raises(ValueError, match="this model reads discrete words"):
        compose().model(ids, action_embeds=sentence.latents)


def test_gradient_checkpointing_with_latents():
    model = compose(injection_layer=1, action_model=tiny_action_model(quantize=False)).as_generator()
    offset = len(tiny_tokenizer())
    ids = torch.tensor([[4, 5, offset + NUM_ACTION_TOKENS, offset + NUM_ACTION_TOKENS, 6, 7]])
    latents = torch.randn(1, 2, WIDTH)

    def gradients():
        model.zero_grad()
        model(ids, action_embeds=latents, labels=torch.where(ids < offset, ids, -100)).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.train()
    plain = gradients()
    model.gradient_checkpointing_enable()
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


def test_generation_with_latents(processor):
    model = compose(injection_layer=1, action_model=tiny_action_model(quantize=False))
    prompt, _ = processor.encode_prompt_and_label(processor.prompt(None, num_latents=3))
    ids, latents = torch.tensor([prompt]), torch.randn(1, 3, WIDTH)
    cached, uncached = (
        model.generate(ids, action_embeds=latents, max_new_tokens=6, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, uncached)


def test_bad_input(processor):
    model = compose()
    inputs = processor(action_ids=[[1]])
    with pytest.raises(ValueError, match="label_ids are missing"):
        model(inputs["input_ids"])
    with pytest.raises(ValueError, match="no recording was passed"):
        model(**{**inputs, "input_ids": torch.full_like(inputs["input_ids"], model.config.placeholder_token_id)})
    two = processor(recordings=recordings(1))
    two["input_ids"][0, :2] = model.config.placeholder_token_id
    with pytest.raises(ValueError, match=r"one placeholder <act> \(id \d+\), got \[3\]"):
        model(**two)
    with pytest.raises(ValueError, match="context of 256"):
        model(**processor(action_ids=[[1] * 250]))
    with pytest.raises(ValueError, match="take 300 tokens"):
        check_context_length(300, model.config.text_config)
    with pytest.raises(ValueError, match="no action model"):
        compose(action_table=torch.zeros(NUM_ACTION_TOKENS, WIDTH))(**processor(recordings=recordings(1)))
    with pytest.raises(ValueError, match="width 16, but the words of the language model have width 32"):
        compose(action_table=torch.zeros(4, 16))
    with pytest.raises(ValueError, match="needs an action_model or an action_table"):
        compose(action_model=None)
    with pytest.raises(NotImplementedError, match="table of their own"):
        model.resize_token_embeddings(10)


def test_bad_config():
    with pytest.raises(ValueError, match=r"has no field `action_token_ofset` \(did you mean `action_token_offset`"):
        ActionLLMConfig(action_token_ofset=3)
    with pytest.raises(ValueError, match=r"layers 0 to 2"):
        ActionLLMConfig(text_config=llm_configs(50)["llama"], injection_layer=3)
    with pytest.raises(ValueError, match="action_config has model_type 'bert'"):
        ActionLLMConfig(action_config={"model_type": "bert"})


def test_a_renamed_field_is_read_and_not_written_again():
    config = ActionLLMConfig.from_dict({"model_type": "action_llm", "restrict_names": True})
    assert config.constrained_scoring
    saved = config.to_dict()
    assert saved["constrained_scoring"] and "restrict_names" not in saved
    with pytest.raises(ValueError, match="`constrained_scoring` must be bool, got 'yes'"):
        ActionLLMConfig.from_dict({"model_type": "action_llm", "restrict_names": "yes"})


LOAD_ALONE = """
import json, sys
sys.modules["action_llm"] = None  # the package may be installed here: as if it were not
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor
folder = sys.argv[1]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
import numpy as np
recording = np.load(folder + "/recording.npy")
with torch.no_grad():
    logits = model(**processor(recordings=[recording])).logits
reason = model.explain(processor, model(**processor(recording)), recording=recording)
print(json.dumps([type(model).__name__, [float(x).hex() for x in logits[0]], reason.label]))
"""


@pytest.mark.parametrize("adapter", [False, True])
def test_loads_as_remote_code_in_a_process_without_the_project(adapter, processor, tmp_path):
    folder = tmp_path / "repository"
    model = compose("llama-gqa-tied")
    if adapter:
        get_peft_model(model, LoraConfig(**LORA))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    recording = recordings(1)[0]
    np.save(folder / "recording.npy", recording)
    with torch.no_grad():
        expected = model(**processor(recordings=[recording])).logits
    alone = {"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    result = python("-c", LOAD_ALONE, folder, cwd=tmp_path, env=alone)
    assert result.returncode == 0, result.stderr[-3000:]
    name, logits, label = json.loads(result.stdout.splitlines()[-1])
    assert label == CLASS_NAMES[int(expected[0].argmax())]
    assert name == "ActionLLMForClassification"
    assert [float.fromhex(x) for x in logits] == expected[0].tolist(), "not equal to the bit"


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("referenced", [False, True])
def test_the_language_model_is_loaded_in_few_bits_where_the_library_is(bits, referenced, processor, tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    # bitsandbytes packs blocks of 64 weights of a row, on processors with AVX-512 without a remainder.
    sizes = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16}
    config = LlamaConfig(**llm_configs(len(tiny_tokenizer()) + 7)["llama-gqa-tied"].to_dict() | sizes)
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config).eval()
    llm.save_pretrained(tmp_path / "llm")
    home = str(tmp_path / "llm") if referenced else None
    model = compose(llm=llm, llm_name_or_path=home, action_model=tiny_action_model(codebook_dim=64))
    model.save_pretrained(tmp_path / "model")
    few = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    loaded = ActionLLMForClassification.from_pretrained(tmp_path / "model", quantization_config=few)
    kinds = {type(m).__name__ for n, m in loaded.named_modules() if n.endswith("q_proj")}
    assert kinds == {"Linear8bitLt" if bits == 8 else "Linear4bit"} and loaded.is_quantized
    own = [p.dtype for n, p in loaded.named_parameters() if "action_model" in n or "action_embedding" in n]
    assert set(own) == {torch.float32}, "only the language model is in few bits"
    inputs = processor(recordings=recordings(1))
    with torch.no_grad():
        few, whole = loaded(**inputs).probabilities, model(**inputs).probabilities
    assert few.argmax() == whole.argmax() and (few - whole).abs().max() < 0.2
