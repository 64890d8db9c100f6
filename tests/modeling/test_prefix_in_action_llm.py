"""Prompts in layers as a part of ActionLLM: exact class scores, saving and loading, a language model that stays as it is."""

import copy

import pytest
import torch
from tiny_models import CLASS_NAMES, tiny_action_model, tiny_llm, tiny_processor, tiny_tokenizer

from action_llm import ActionLLMConfig, ActionLLMForClassification


def compose(llm, **settings):
    settings = {"prefix_length": 4, "prefix_layers": [1, 2]} | settings
    model = ActionLLMForClassification.from_llm(
        llm,
        action_token_offset=len(tiny_tokenizer()),
        action_model=tiny_action_model(),
        class_names=CLASS_NAMES,
        **settings,
    )
    if model.model.prefix is not None:
        with torch.no_grad():
            model.model.prefix.weight.normal_(generator=torch.Generator().manual_seed(4))
    return model


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.mark.parametrize("family", ["llama", "llama-gqa-tied", "qwen3", "gemma2"])
def test_class_scores_are_exact_by_trie_and_by_cache(family, processor):
    model = compose(tiny_llm(family))
    sentences = [[1, 2, 3, 4], [7, 7]]
    inputs = processor(action_ids=sentences)
    with torch.no_grad():
        outputs = {method: model(**inputs, method=method).logits for method in ("trie", "cache")}
        for row, sentence in enumerate(sentences):
            for column, name in enumerate(CLASS_NAMES):
                prompt, label = processor.encode_prompt_and_label(processor.prompt(sentence), name)
                logits = model.as_generator()(torch.tensor([prompt + label])).logits.log_softmax(-1)
                alone = logits[0, len(prompt) - 1 : -1].gather(-1, torch.tensor(label)[:, None]).sum()
                for found in outputs.values():
                    torch.testing.assert_close(found[row, column], alone, rtol=1e-4, atol=1e-4)
        plain = compose(tiny_llm(family), prefix_length=0, prefix_layers=None)(**inputs).logits
    assert (plain - outputs["trie"]).abs().max() > 0.01
    expected = outputs["cache"].log_softmax(-1)[:, 1]
    torch.testing.assert_close(model.log_probability(1, **inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("family", ["llama", "llama-gqa-tied", "gemma2"])
@pytest.mark.parametrize("kind", [None, "eager"])
def test_saved_and_loaded_to_the_bit(family, reference, kind, processor, tmp_path):
    llm = tiny_llm(family)
    llm.save_pretrained(tmp_path / "llm")
    # Which attention a family has by default differs between releases of transformers.
    expected = kind or llm.config._attn_implementation
    llm.set_attn_implementation(expected)
    model = compose(llm, llm_name_or_path=str(tmp_path / "llm") if reference else None)
    inputs = processor(action_ids=[[1, 2, 3, 4]])
    model.save_pretrained(tmp_path / "saved")
    settings = {} if kind is None else {"attn_implementation": kind}
    loaded = ActionLLMForClassification.from_pretrained(tmp_path / "saved", **settings)
    assert torch.equal(loaded.model.prefix.weight, model.model.prefix.weight)
    attention = loaded.model.language_model.config._attn_implementation
    assert attention == f"{expected}_prefix"
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, rtol=1e-5, atol=1e-5)
    assert "_prefix" not in (tmp_path / "saved" / "config.json").read_text().replace('"prefix_l', "").replace(
        "action_llm", ""
    )


def test_the_language_model_stays_as_it_is(processor):
    """Prompts alone have gradients, and a step of the optimiser changes nothing else."""
    model = compose(tiny_llm()).as_generator()
    model.requires_grad_(False)
    model.model.prefix.requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    prompt, label = processor.encode_prompt_and_label(processor.prompt([1, 2, 3]), CLASS_NAMES[0])
    ids = torch.tensor([prompt + label])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(5):
        loss = model(ids, labels=torch.tensor([[-100] * len(prompt) + label])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"model.prefix.weight"}


def test_bad_settings():
    with pytest.raises(ValueError, match="`prefix_length` must not be negative"):
        ActionLLMConfig(prefix_length=-1)
    with pytest.raises(ValueError, match=r"`prefix_layers` is \[1\], but `prefix_length` is 0"):
        ActionLLMConfig(prefix_layers=[1])
    with pytest.raises(ValueError, match=r"`prefix_layers` must be different layers of 0 to 2, got \[7\]"):
        compose(tiny_llm(), prefix_layers=[7])
