"""Exact label scores against the definition: every label alone behind its prompt, no padding, no cache, no trie."""

import random
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AttentionInterface,
    AttentionMaskInterface,
    AutoModel,
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    FalconMambaConfig,
    Gemma2Config,
    GPT2Config,
    JambaConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# In some releases it compiles functions at import, which must not meet the softmax that `in_float64` puts in place.
from transformers.models.gpt_bigcode import modeling_gpt_bigcode  # noqa: F401

from action_llm import label_scoring
from action_llm.label_scoring import (
    TRIE_MODEL_TYPES,
    LabelTrie,
    label_trie,
    read_start,
    score_labels,
    score_similar,
    supports_label_trie,
)

VOCABULARY = 61
END = 1
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, num_key_value_heads=4),
    "llama-gqa-tied": LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    "qwen3-window": Qwen3Config(
        **SIZES, num_key_value_heads=2, head_dim=8, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "mistral-window": MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=5),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=96),
    "gemma2-window": Gemma2Config(
        **SIZES,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=5,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
    ),
}
# Soft-capping of attention logits exists in eager attention only.
CASES = [
    (family, attention)
    for family in CONFIGS
    for attention in ("sdpa", "eager")
    if (family, attention) != ("gemma2-window", "sdpa")
]


def random_model(cls, config, attention="sdpa", dtype=torch.float32, seed=0):
    """A model with weights large enough for every token to matter."""
    torch.manual_seed(seed)
    model = cls.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.to(dtype)


def in_float64(model, monkeypatch):
    """The model without the float32 islands of the families' code: normalisation, and softmax of eager attention."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if "RMSNorm" in type(child).__name__:
                setattr(module, name, nn.RMSNorm(child.weight.shape, eps=1e-6, dtype=torch.float64))
    softmax = nn.functional.softmax
    monkeypatch.setattr(nn.functional, "softmax", lambda x, dim=None, dtype=None: softmax(x, dim=dim))
    return model.double()


def causal_lm(family, attention="sdpa", dtype=torch.float32):
    """(whole model, base, head) of a family in CONFIGS."""
    model = random_model(AutoModelForCausalLM, CONFIGS[family], attention, dtype)
    cap = getattr(model.config, "final_logit_softcapping", None)

    def head(hidden):
        logits = model.lm_head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if cap is None else torch.tanh(logits / cap) * cap

    return model, model.base_model, head


def left_padded(prompts):
    """(input_ids, attention_mask) of prompts of several lengths. What stands in the padding must not matter."""
    length = max(map(len, prompts))
    generator = torch.Generator().manual_seed(len(prompts))
    input_ids = torch.randint(0, VOCABULARY, (len(prompts), length), generator=generator)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    return input_ids, mask


def random_prompts(*lengths, seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(2, VOCABULARY) for _ in range(length)] for length in lengths]


def random_labels(count, seed=0, alphabet=range(2, 6), longest=5):
    """Distinct names over a small alphabet, so that many begin alike, each with the end token."""
    rng = random.Random(seed)
    labels = {}
    while len(labels) < count:
        labels[(*(rng.choice(alphabet) for _ in range(rng.randint(1, longest))), END)] = None
    return [list(label) for label in labels]


def scores_alone(logits_of, prompts, labels, constrained=False):
    """The definition: sum of log P(token | prompt and tokens before), one sequence at a time; constrained, P is among the
    tokens that continue a label."""
    rows = []
    for prompt in prompts:
        row = []
        for label in labels:
            sequence = torch.tensor([prompt + label[:-1]])
            logits = logits_of(sequence)[0, len(prompt) - 1 :]
            if constrained:
                for place, one in enumerate(logits):
                    going_on = {other[place] for other in labels if other[:place] == label[:place]}
                    logits = logits.clone()
                    logits[place, [token for token in range(len(one)) if token not in going_on]] = -torch.inf
            log_probs = logits.log_softmax(-1)
            row.append(log_probs.gather(1, torch.tensor(label)[:, None]).sum())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def assert_exact(
    base, head, prompts, labels, expected, tolerance, methods=("trie", "cache"), constrained=False, **kwargs
):
    """All ways equal `expected`."""
    trie = LabelTrie(labels).constrained() if constrained else LabelTrie(labels)
    inputs = (base, head, base.config, *left_padded(prompts), trie)
    for method in methods:
        scores = score_labels(*inputs, method, **kwargs)
        torch.testing.assert_close(scores, expected.to(scores.dtype), rtol=0, atol=tolerance)
    if not kwargs:
        scores = score_similar(*inputs)
        torch.testing.assert_close(scores, expected.to(scores.dtype), rtol=0, atol=tolerance)


# --- the trie itself


def prefix_codes(longest=4, alphabet=4, most=12):
    """Lists of distinct token lists, none of which begins another: their last token is END."""
    names = st.lists(st.integers(2, 1 + alphabet), max_size=longest).map(lambda name: (*name, END))
    return st.lists(names, min_size=1, max_size=most, unique=True).map(lambda labels: [list(x) for x in labels])


@given(prefix_codes())
def test_trie_holds_every_prefix_once(labels):
    trie = LabelTrie(labels)
    inner = {tuple(label[:n]) for label in labels for n in range(1, len(label))}
    prefixes = {tuple(label[:n]) for label in labels for n in range(1, len(label) + 1)}
    assert len(trie) == len(labels)
    assert trie.num_nodes == len(inner)
    assert len(trie.edge_tokens) == len(prefixes)
    assert trie.edge_parents.tolist() == sorted(trie.edge_parents.tolist())

    names = [()]
    for parent, token in zip(trie.node_parents.tolist()[1:], trie.node_tokens.tolist()[1:], strict=True):
        names.append((*names[parent], token))
    assert set(names[1:]) == inner and names[0] == ()
    assert trie.node_depths.tolist() == [len(name) for name in names]
    sees = trie.sees(torch.arange(len(names)), torch.arange(len(names)))
    for query, name in enumerate(names):
        for key, other in enumerate(names):
            assert sees[query, key] == (name[: len(other)] == other)

    edges = [
        (*names[parent], token) for parent, token in zip(trie.edge_parents, trie.edge_tokens.tolist(), strict=True)
    ]
    assert trie.label_lengths.tolist() == [len(label) for label in labels]
    for path, label in zip(trie.label_edges.split(trie.label_lengths.tolist()), labels, strict=True):
        assert [edges[edge] for edge in path] == [tuple(label[:n]) for n in range(1, len(label) + 1)]


@given(prefix_codes(), st.integers(1, 8))
def test_split_covers_every_label_within_the_bound(labels, max_nodes):
    pieces = LabelTrie(labels).split(max_nodes)
    assert sorted(index for indices, _ in pieces for index in indices) == list(range(len(labels)))
    for indices, trie in pieces:
        assert [list(label) for label in trie.labels] == [labels[index] for index in indices]
        assert trie.num_nodes <= max_nodes or len(trie) == 1
    for (indices, _), (following, _) in pairwise(pieces):  # none is smaller than it has to be
        assert LabelTrie([labels[index] for index in [*indices, following[0]]]).num_nodes > max_nodes


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([], ValueError, "label_ids is empty"),
        ([[5, END], []], ValueError, r"label_ids\[1\] is empty"),
        ([[5, END], [6, END], [5, END]], ValueError, r"label_ids\[0\] and label_ids\[2\] are both \[5, 1\]"),
        ([[5], [5, 6]], ValueError, r"label_ids\[0\] is the beginning of label_ids\[1\].*end token"),
        ([[4, END], [5, 6, 7], [5, 6]], ValueError, r"label_ids\[2\] is the beginning of label_ids\[1\]"),
        ([[5, -100]], ValueError, "-100"),
        ([[5.0, END]], TypeError, "5.0"),
        ([[True, END]], TypeError, "True"),
    ],
)
def test_bad_labels(labels, error, message):
    with pytest.raises(error, match=message):
        LabelTrie(labels)


def test_a_trie_is_linear_in_the_tokens():
    """A name of 20,000 tokens, which took minutes and 10 GB when each node listed its ancestors."""
    start = time.process_time()
    name = [2 + place % 5 for place in range(20_000)]
    trie = LabelTrie([[*name, END], [9, END]])
    assert trie.num_nodes == 20_001 and trie.constrained().labels == ((2,), (9,))
    assert sum(values.numel() for values in vars(trie).values() if torch.is_tensor(values)) < 12 * len(name)
    sums = label_scoring._label_scores(-torch.ones(1, len(trie.label_edges)), trie)
    assert sums.tolist() == [[-20_001.0, -2.0]]
    assert time.process_time() - start < 20


# --- equal to the definition


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_float32_scores_equal_each_label_alone(family, attention):
    model, base, head = causal_lm(family, attention)
    prompts, labels = random_prompts(9, 4, 1, 12), random_labels(14)
    with torch.no_grad():
        expected = scores_alone(lambda ids: model(ids).logits, prompts, labels)
        assert_exact(base, head, prompts, labels, expected, 1e-4)


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_float64_scores_equal_each_label_alone(family, attention, monkeypatch):
    model, base, head = causal_lm(family, attention)
    in_float64(model, monkeypatch)
    prompts, labels = random_prompts(9, 4, 1, 12), random_labels(14)
    with torch.no_grad():
        expected = scores_alone(lambda ids: head(base(ids).last_hidden_state), prompts, labels)
        assert expected.dtype == torch.float64
        assert_exact(base, head, prompts, labels, expected, 1e-10)


@pytest.fixture(scope="module")
def float64_models():
    """A model with learned positions, and a rotary one whose windows are shorter than most prompts."""
    models = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for family in ("gpt2", "qwen3-window"):
            model, base, head = causal_lm(family)
            in_float64(model, monkeypatch)
            models[family] = base, head
        yield models


@pytest.mark.parametrize("family", ["gpt2", "qwen3-window"])
@settings(max_examples=8, deadline=None)
@given(
    labels=prefix_codes(),
    prompts=st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=3),
)
def test_any_labels_and_prompts(float64_models, family, labels, prompts):
    base, head = float64_models[family]
    with torch.no_grad():
        for constrained in (False, True):
            expected = scores_alone(lambda ids: head(base(ids).last_hidden_state), prompts, labels, constrained)
            assert_exact(base, head, prompts, labels, expected, 1e-10, constrained=constrained)
            # In pieces of few nodes, whose siblings lie in others.
            assert_exact(base, head, prompts, labels, expected, 1e-10, constrained=constrained, tokens_per_pass=3)


@pytest.mark.parametrize("family", ["gpt2", "qwen3-window"])
@pytest.mark.parametrize("constrained", [False, True])
def test_masks_are_bounded(float64_models, family, constrained, monkeypatch):
    """Long lists are read in pieces behind the prompts, and long names in several: masks stay small, and scores exact."""
    base, head = float64_models[family]
    prompts = random_prompts(9, 4, 1)
    labels = [*random_labels(40), [*random_prompts(50)[0], END]]
    masks, additive_masks = [], label_scoring._additive_masks

    def spied(base, text_config, visible, *positions):
        masks.append(visible.numel())
        return additive_masks(base, text_config, visible, *positions)

    monkeypatch.setattr(label_scoring, "MASK_ELEMENTS", 400)
    monkeypatch.setattr(label_scoring, "NODES_PER_TREE", 20)
    monkeypatch.setattr(label_scoring, "_additive_masks", spied)
    with torch.no_grad():
        expected = scores_alone(lambda ids: head(base(ids).last_hidden_state), prompts, labels, constrained)
        assert_exact(base, head, prompts, labels, expected, 1e-10, methods=("trie",), constrained=constrained)
    assert len(masks) > 2 and max(masks) <= 400


def test_gradients_of_long_lists(monkeypatch):
    """Behind the prompts' cache, and, where gradient checkpointing leaves none, without it."""
    model, base, head = causal_lm("llama")
    labels = LabelTrie(random_labels(30))
    gradients = []
    for elements, checkpointing in ((2**25, False), (900, False), (900, True)):
        monkeypatch.setattr(label_scoring, "MASK_ELEMENTS", elements)
        if checkpointing:
            model.gradient_checkpointing_enable()
            model.train()
        model.zero_grad()
        score_labels(base, head, base.config, *left_padded(random_prompts(9, 4)), labels, "trie").sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for others in gradients[1:]:
        for gradient, expected in zip(others, gradients[0], strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3)


@given(prefix_codes())
def test_constrained_labels_end_where_no_other_goes_along(labels):
    trie = LabelTrie(labels).constrained()
    for label, cut in zip(labels, trie.labels, strict=True):
        others = [other for other in labels if other != label]
        alone = [n for n in range(1, len(label) + 1) if all(tuple(other[:n]) != tuple(label[:n]) for other in others)]
        assert cut == tuple(label[: alone[0]])
    assert trie.is_constrained and trie.num_nodes <= LabelTrie(labels).num_nodes


@pytest.mark.parametrize("method", ["trie", "cache"])
def test_constrained_probabilities_add_up_to_one(method):
    _, base, head = causal_lm("llama")
    labels = LabelTrie(random_labels(9)).constrained()
    scores = score_labels(base, head, base.config, *left_padded(random_prompts(4, 7)), labels, method)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(2))
    only = LabelTrie([[3, 4, 1]]).constrained()
    assert only.labels == ((3,),)
    alone = score_labels(base, head, base.config, *left_padded(random_prompts(4, 7)), only, method)
    assert alone.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("model_type", sorted(TRIE_MODEL_TYPES))
def test_every_family_on_the_trie(model_type):
    """Each name in TRIE_MODEL_TYPES has earned its place, with windows shorter than the prompt where it has windows."""
    sizes = SIZES | {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rotary_dim": 4,
        "sliding_window": 5,
        "use_sliding_window": True,
        "max_window_layers": 1,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 8,
        "num_local_experts": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
    }
    config_class = CONFIG_MAPPING[model_type]
    default = config_class()
    config = config_class(**{name: value for name, value in sizes.items() if hasattr(default, name)})
    attention = "sdpa" if model_type not in ("gemma2", "gpt_oss", "gptj") else "eager"
    base = random_model(AutoModel, config, attention)
    assert supports_label_trie(base.config, base.config._attn_implementation)
    weight = torch.randn(VOCABULARY, 32, generator=torch.Generator().manual_seed(0)) * 0.3

    def head(hidden):
        return hidden @ weight.T

    prompts, labels = random_prompts(9, 6), random_labels(6)
    with torch.no_grad():
        expected = scores_alone(lambda ids: head(base(ids).last_hidden_state), prompts, labels)
        assert_exact(base, head, prompts, labels, expected, 2e-4)


def test_probabilities_of_a_complete_code_sum_to_one():
    """Every sequence of up to three tokens that the end token closes, and every one of four: together they are certain."""
    alphabet, length = range(4), 4
    labels, open_ends = [], [[]]
    for _ in range(length - 1):
        labels += [[*beginning, END] for beginning in open_ends]
        open_ends = [[*beginning, token] for beginning in open_ends for token in alphabet if token != END]
    labels += [[*beginning, token] for beginning in open_ends for token in alphabet]
    model = random_model(
        AutoModelForCausalLM, LlamaConfig(**SIZES | {"vocab_size": 4}, num_key_value_heads=2), dtype=torch.float64
    )
    input_ids, mask = left_padded([[2, 3, 0], [3]])
    inputs = (model.model, model.lm_head, model.config, input_ids % 4, mask, LabelTrie(labels))
    with torch.no_grad():
        for method in ("trie", "cache"):
            total = score_labels(*inputs, method).exp().sum(1)
            torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
            torch.testing.assert_close(total.double().log(), torch.zeros_like(total), rtol=0, atol=1e-6)


def test_class_names_of_many_words():
    """120 labels of 2 to 13 tokens with common beginnings, as the word pieces of NTU RGB+D 120's names have."""
    rng = random.Random(0)
    names = {(rng.randrange(2, 20),): None}
    while len(names) < 120:
        beginning = rng.choice(list(names))[: rng.randint(0, 6)]
        names[(*beginning, *(rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, 5))))] = None
    labels = [[*name, END] for name in names]
    model, base, head = causal_lm("llama-gqa-tied")
    prompts = random_prompts(30, 17)
    with torch.no_grad():
        expected = scores_alone(lambda ids: model(ids).logits, prompts, labels)
        assert_exact(base, head, prompts, labels, expected, 1e-4)


def test_lora_on_the_backbone():
    model, base, head = causal_lm("llama")
    prompts, labels = random_prompts(8, 5), random_labels(10)
    with torch.no_grad():
        without = scores_alone(lambda ids: model(ids).logits, prompts, labels)
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).eval()
    with torch.no_grad():
        expected = scores_alone(lambda ids: model(ids).logits, prompts, labels)
        assert (expected - without).abs().max() > 0.1
        inputs = (adapted, head, model.config, *left_padded(prompts), LabelTrie(labels))
        for method in ("trie", "cache"):
            torch.testing.assert_close(score_labels(*inputs, method), expected, rtol=0, atol=1e-4)


def test_prompt_learning_that_fills_the_cache():
    """PEFT's prefix tuning writes into the cache and overwrites one that is passed: the rows begin with the prompt."""
    model, base, head = causal_lm("llama-gqa-tied")
    prefix = PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
    tuned = get_peft_model(base, prefix).eval()
    with torch.no_grad():
        tuned.prompt_encoder["default"].embedding.weight.normal_()
    prompts, labels = random_prompts(6, 2), random_labels(8)
    with torch.no_grad():
        expected = scores_alone(lambda ids: head(tuned(input_ids=ids).last_hidden_state), prompts, labels)
        without = scores_alone(lambda ids: model(ids).logits, prompts, labels)
        assert (expected - without).abs().max() > 0.1
        scores = score_labels(tuned, head, model.config, *left_padded(prompts), LabelTrie(labels), "cache")
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype, attention):
    """No overflow of masked rows, log-probabilities in float32, and the error of the arithmetic, not more."""
    model, base, head = causal_lm("llama-gqa-tied", attention, dtype)
    with torch.no_grad():
        for parameter in base.layers.parameters():
            parameter.mul_(0.5)
    prompts, labels = random_prompts(9, 2), random_labels(10)
    inputs = (base, head, base.config, *left_padded(prompts), LabelTrie(labels))
    with torch.no_grad():
        expected = scores_alone(lambda ids: model(ids).logits.float(), prompts, labels)
        for method in ("trie", "cache"):
            scores = score_labels(*inputs, method)
            assert scores.dtype == torch.float32
            torch.testing.assert_close(scores, expected, rtol=0, atol=0.5 if dtype == torch.bfloat16 else 0.1)
        torch.testing.assert_close(score_similar(*inputs), score_labels(*inputs, "trie"), rtol=0, atol=0.2)


@pytest.mark.parametrize("method", ["trie", "cache"])
def test_memory_bounds_do_not_change_the_result(method, monkeypatch):
    model, base, head = causal_lm("qwen3-window")
    in_float64(model, monkeypatch)
    reads, blocks = [], []
    base.register_forward_pre_hook(lambda m, args, kwargs: reads.append(kwargs["input_ids"].shape), with_kwargs=True)
    model.lm_head.register_forward_pre_hook(lambda m, args: blocks.append(len(args[0])))
    inputs = (base, head, base.config, *left_padded(random_prompts(7, 3)), LabelTrie(random_labels(20)), method)
    with torch.no_grad():
        whole = score_labels(*inputs)
        passes, reads[:], blocks[:] = len(reads), [], []
        monkeypatch.setattr(label_scoring, "LOGITS_PER_BLOCK", 3 * VOCABULARY)
        parts = score_labels(*inputs, tokens_per_pass=36)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)
    assert len(reads) > passes and max(rows * length for rows, length in reads) <= 36
    assert max(blocks) == 3
    if method == "cache":
        assert sorted(length for rows, length in reads if rows == 1)[-2:] == [3, 7]  # each prompt was read once
        assert all(length <= 5 for rows, length in reads if rows > 1)  # behind it, nothing but names


def test_masks_leave_no_row_empty():
    """A row of nothing but the lowest number is one overflow away from not-a-number, in float16 above all."""
    _, base, head = causal_lm("qwen3-window")
    masks = []

    def record(module, args, kwargs):
        if isinstance(kwargs["attention_mask"], dict):
            masks.extend(kwargs["attention_mask"].items())

    base.register_forward_pre_hook(record, with_kwargs=True)
    inputs = (base, head, base.config, *left_padded(random_prompts(9, 2)), LabelTrie(random_labels(20)))
    with torch.no_grad():
        score_labels(*inputs, "trie")
        once = len(masks)
        score_similar(*inputs)
    assert {kind for kind, _ in masks} == {"full_attention", "sliding_attention"} and len(masks) > once == 2
    for _, mask in masks:
        assert mask.dtype == torch.float32 and set(mask.unique().tolist()) == {0.0, torch.finfo(mask.dtype).min}
        assert (mask == 0).any(-1).all()


# --- gradients


@pytest.mark.parametrize("method", ["trie", "cache"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("constrained", [False, True])
def test_gradients_equal_those_of_each_label_alone(method, checkpointing, constrained, monkeypatch):
    model, base, head = causal_lm("llama-gqa-tied")
    in_float64(model, monkeypatch)
    prompts, labels = random_prompts(6, 3), random_labels(7)
    weights = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (scores_alone(lambda ids: model(ids).logits, prompts, labels, constrained) * weights).sum().backward()
    expected = [parameter.grad.clone() for parameter in base.parameters()]
    model.zero_grad()
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.train()  # without dropout in its config
    calls = []
    model.lm_head.register_forward_pre_hook(lambda *_: calls.append(None))
    trie = LabelTrie(labels).constrained() if constrained else LabelTrie(labels)
    scores = score_labels(base, head, base.config, *left_padded(prompts), trie, method)
    forward_calls = len(calls)
    (scores * weights).sum().backward()
    assert len(calls) == 2 * forward_calls  # logits are not kept, but made again
    for parameter, grad in zip(base.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-8, atol=1e-10)


# --- models that cannot branch, and how they are told


def test_what_the_trie_supports():
    llama = CONFIGS["llama"]
    assert supports_label_trie(llama, "sdpa") and supports_label_trie(llama, "eager")
    for attention in ("flash_attention_2", "flex_attention", "unheard_of", None):
        assert not supports_label_trie(llama, attention)
    for name, parameters in {
        "dynamic": {"factor": 2.0},
        "longrope": {
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 16,
            "factor": 2.0,
        },
    }.items():
        rope = {"rope_type": name, "rope_theta": 1e4, **parameters}
        assert not supports_label_trie(LlamaConfig(**SIZES, rope_parameters=rope), "sdpa")
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 48}
    assert supports_label_trie(LlamaConfig(**SIZES, rope_parameters=yarn), "sdpa")
    for config in (BloomConfig(), FalconConfig(alibi=True), MambaConfig(), JambaConfig()):
        assert not supports_label_trie(config, "sdpa") and not supports_label_trie(config, "eager")
    # Attention of one's own is fine where it was registered with a dense mask function.
    AttentionInterface.register("label_scoring_test", sdpa_attention_forward)
    assert not supports_label_trie(llama, "label_scoring_test")
    AttentionMaskInterface.register("label_scoring_test", sdpa_mask)
    assert supports_label_trie(llama, "label_scoring_test")


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        FalconConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True),
        MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
        FalconMambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
        JambaConfig(
            **SIZES,
            num_key_value_heads=2,
            num_experts=2,
            attn_layer_offset=1,
            attn_layer_period=2,
            mamba_d_state=4,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_reference_serves_models_that_cannot_branch(config):
    """ALiBi and recurrent layers."""
    model = random_model(AutoModelForCausalLM, config, "eager")
    base, prompts, labels = model.base_model, random_prompts(7, 3), random_labels(8)
    with torch.no_grad():
        expected = scores_alone(lambda ids: model(ids, use_cache=False).logits, prompts, labels)
        assert_exact(base, model.lm_head, prompts, labels, expected, 1e-4, methods=("auto", "cache"))
    with pytest.raises(ValueError, match=f"'trie' is not known to be exact for model_type '{config.model_type}'"):
        score_labels(base, model.lm_head, base.config, *left_padded(prompts), LabelTrie(labels), "trie")


@pytest.mark.parametrize(
    "config", [CONFIGS["llama"], MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2)]
)
def test_vectors_beside_the_prompt(config):
    """Arguments that belong to the prompt go with its rows, and with no row of a label."""
    placeholder = 60

    class WithVectors(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.config = model, model.config

        def forward(self, input_ids, vectors=None, note=None, **kwargs):
            embeds = self.model.get_input_embeddings()(input_ids)
            places = input_ids == placeholder
            assert places.any() == (vectors is not None) == (note == "prompt")
            if vectors is not None:
                embeds = embeds.masked_scatter(places[..., None], vectors)
            return self.model(inputs_embeds=embeds, **kwargs)

    model = random_model(AutoModelForCausalLM, config, "eager")
    base = WithVectors(model.base_model)
    prompts = [[5, placeholder, 6, placeholder, 7], [placeholder, placeholder, 8]]
    vectors = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(0))
    labels = random_labels(8)
    with torch.no_grad():
        expected = torch.cat(
            [
                scores_alone(
                    lambda ids, row=row: model.lm_head(base(ids, vectors=row, note="prompt").last_hidden_state),
                    [prompt],
                    labels,
                )
                for prompt, row in zip(prompts, vectors[:, None], strict=True)
            ]
        )
        methods = ("auto", "cache")
        kwargs = {"vectors": vectors, "note": "prompt"}
        assert_exact(base, model.lm_head, prompts, labels, expected, 1e-4, methods, base_kwargs=kwargs)


# --- what prompts share is read once


@pytest.mark.parametrize(("family", "attention"), CASES)
@pytest.mark.parametrize("constrained", [False, True])
def test_prompts_behind_their_start(family, attention, constrained, monkeypatch):
    """The first tokens are read once, alone; whole tries and pieces of tries follow their cache."""
    model, base, head = causal_lm(family, attention)
    first, rest, labels = [7, 9, 11, 13, 17, 19, 23], random_prompts(6, 2, 1, 6), random_labels(9)
    trie = label_trie(tuple(map(tuple, labels)), constrained)
    with torch.no_grad():
        expected = scores_alone(
            lambda ids: model(ids).logits, [first + prompt for prompt in rest], labels, constrained
        )
        start = read_start(base, torch.tensor(first))
        inputs = (base, head, base.config, *left_padded(rest), trie)
        for _ in range(2):  # reading prompts does not change their start
            results = [score_labels(*inputs, "trie", start=start)]
        monkeypatch.setattr(label_scoring, "MASK_ELEMENTS", 400)
        results.append(score_labels(*inputs, "trie", start=start))
    for scores in results:
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


def test_similar_prompts_are_read_as_a_tree():
    """A sentence with each word left out: equal prompts and shared beginnings are read once, in order."""
    model, base, head = causal_lm("llama-gqa-tied")
    sentence, end, labels = [3, 5, 5, 7, 9, 11], [20, 21], random_labels(6)
    prompts = [sentence[:place] + sentence[place + 1 :] + end for place in range(len(sentence))]
    reads = []
    base.register_forward_pre_hook(lambda m, args, kwargs: reads.append(kwargs["input_ids"].shape), with_kwargs=True)
    trie = LabelTrie(labels)
    with torch.no_grad():
        scores = score_similar(base, head, base.config, *left_padded(prompts), trie)
        beginnings = {tuple(prompt[:n]) for prompt in prompts for n in range(1, len(prompt) + 1)}
        assert reads == [(1, len(beginnings) + 5 * trie.num_nodes)]  # without either 5, the sentence is the same
        expected = scores_alone(lambda ids: model(ids).logits, prompts, labels)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("has_trees", [True, False])
def test_similar_prompts_are_read_in_bounded_passes(has_trees, monkeypatch):
    """Three prompts fit into a tree, or none, or the model supports no trees."""
    model, base, head = causal_lm("llama-gqa-tied")
    prompts, labels, reads = random_prompts(*[8] * 6), random_labels(9), []
    trie = LabelTrie(labels)
    most = 3 * (8 + trie.num_nodes)
    with torch.no_grad():
        expected = scores_alone(lambda ids: model(ids).logits, prompts, labels)
    base.register_forward_pre_hook(lambda m, args, kwargs: reads.append(kwargs["input_ids"].numel()), with_kwargs=True)
    monkeypatch.setattr(label_scoring, "TOKENS_PER_PASS", most)
    if not has_trees:
        monkeypatch.setattr(label_scoring, "supports_label_trie", lambda *args: False)
    for nodes in (most, 7):
        monkeypatch.setattr(label_scoring, "NODES_PER_TREE", nodes)
        reads.clear()
        scores = score_similar(base, head, base.config, *left_padded(prompts), trie)
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)
        assert reads == [most, most] if has_trees else max(reads) <= most


@settings(max_examples=20, deadline=None)
@given(prefix_codes())
def test_along_keeps_what_the_score_of_a_label_depends_on(labels):
    values = torch.randn(2, sum(map(len, labels)), generator=torch.Generator().manual_seed(len(labels)))
    whole = LabelTrie(labels)
    by_prefix = {}
    for path, label in zip(whole.label_edges.split(whole.label_lengths.tolist()), labels, strict=True):
        by_prefix |= {tuple(label[: n + 1]): values[:, edge] for n, edge in enumerate(path.tolist())}

    def scores(trie):
        log_probs = [by_prefix[label[:n]] for label in trie.labels for n in range(1, len(label) + 1)]
        return label_scoring._label_scores(torch.stack(log_probs, dim=1), trie)

    for index in range(len(labels)):
        assert whole.along(index) == (whole, index)
        trie, place = whole.constrained().along(index)
        torch.testing.assert_close(scores(trie)[:, place], scores(whole.constrained())[:, index], rtol=0, atol=1e-6)
        assert trie.num_nodes == len(whole.constrained().labels[index]) - 1  # its own nodes alone


def test_a_model_that_keeps_no_cache_has_no_start():
    assert read_start(lambda **inputs: None, torch.tensor([3, 4])) is None


# --- bad input


def test_bad_input():
    _, base, head = causal_lm("gpt2")
    trie = LabelTrie([[5, 6, END]])
    ids, mask = left_padded(random_prompts(4, 2))

    def score(input_ids=ids, attention_mask=mask, labels=trie, method="auto"):
        return score_labels(base, head, base.config, input_ids, attention_mask, labels, method)

    with pytest.raises(ValueError, match="'fast': expected 'auto', 'trie' or 'cache'"):
        score(method="fast")
    with pytest.raises(ValueError, match="padded on the left"):
        score(attention_mask=mask.flip(1))
    with pytest.raises(ValueError, match="at least one token"):
        score(attention_mask=mask * torch.tensor([[1], [0]]))
    with pytest.raises(
        ValueError, match=r"of the same shape \(batch_size, prompt_length\), got \(2, 4\) and \(2, 3\)"
    ):
        score(attention_mask=mask[:, 1:])
    with pytest.raises(ValueError, match="token id 61, outside the vocabulary of 61"):
        score(labels=LabelTrie([[5, VOCABULARY, END]]))
    long = torch.ones(1, 95, dtype=torch.long)
    with pytest.raises(
        ValueError,
        match=r"context of 96 tokens .* a prompt of 95 and 2 more .*; shorten the recording or the class names",
    ):
        score(long, long)
    assert score(long[:, 1:], long[:, 1:]).isfinite().all()
