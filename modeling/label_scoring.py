"""Exact probabilities of class names under a causal language model.

The probability of a class is the product of the token probabilities of its name and end token, given the prompt:
P(A = a | ...) of VT-LVLM-AR, Eq. 7, for a language model that writes the name. Two methods compute the same numbers:

- ``"trie"``: class names that share their first tokens form a trie. One forward pass reads ``[prompt | nodes of the trie]``.
  The attention mask lets a node see the prompt and its own ancestors, and its position is the same as if its name were read
  alone. This needs dense attention masks and explicit `position_ids`.
- ``"cache"``: the reference, for every causal model. The prompt is read once, its cache is repeated, and the names are read
  as padded rows behind it. If the cache cannot be repeated (states of recurrent layers), each row begins with the prompt.

What prompts share is read once: a [`PromptStart`] holds the tokens with which all prompts of a batch begin, and
[`score_similar`] reads prompts that differ in a few tokens as a tree.

[`LabelTrie.constrained`] scores names by constrained decoding: each step is renormalised over the tokens that can continue a
class name. Steps with a single such token have probability 1 and are not read.

Nothing here depends on the model. `base` is called as the backbone of a causal language model, with `input_ids`,
`attention_mask`, `position_ids`, `use_cache` and the key-value cache, and returns `last_hidden_state` (and the cache). `head`
maps hidden states (..., H) to float32 logits (..., V), scaled and soft-capped as in the model.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

from .compatibility import CACHE

# Model types whose backbones take a prepared additive mask (one per layer type if they have `layer_types`) and place tokens by
# `position_ids` alone. Each is tested against scoring every label separately; all others use the reference.
# fmt: off
TRIE_MODEL_TYPES = frozenset({
    "apertus", "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm",
    "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "helium",
    "hunyuan_v1_dense", "llama", "ministral", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "olmo3",
    "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss",
    "smollm3", "stablelm", "starcoder2",
})
# fmt: on
# Rotary frequencies that do not depend on the longest sequence of the batch. Those of "dynamic" and "longrope" do.
STATIC_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})

# Maximum number of float32 logits held at a time: 64 MiB.
LOGITS_PER_BLOCK = 2**24
# Maximum number of elements of an attention mask: 128 MiB in float32. Several hundred prompt tokens and as many nodes
# need less.
MASK_ELEMENTS = 2**25
# About how many tokens a forward pass may read; bounds the memory.
TOKENS_PER_PASS = 8192
# Maximum number of nodes that `score_similar` reads at a time. Each pays attention to all, although it sees few.
NODES_PER_TREE = 1024


class _Tree:
    """Tokens that follow a beginning in different ways.

    Node 0 is the beginning. Nodes come after their parents.

    Attributes:
        node_tokens (`torch.LongTensor` of shape `(N + 1,)`): the token of each node; 0 for node 0, which has none.
        node_parents (`torch.LongTensor` of shape `(N + 1,)`): the parent of each node; 0 for node 0.
        node_depths (`torch.LongTensor` of shape `(N + 1,)`): the distance of each node from node 0, in tokens.
    """

    def __init__(self, tokens: list[int], parents: list[int]):
        depths = [0] * len(tokens)
        for node in range(1, len(tokens)):
            depths[node] = depths[parents[node]] + 1
        # In depth-first order, a node and its descendants are consecutive.
        sizes, places, next_places = [1] * len(tokens), [0] * len(tokens), [1] * len(tokens)
        for node in range(len(tokens) - 1, 0, -1):
            sizes[parents[node]] += sizes[node]
        for node in range(1, len(tokens)):
            places[node] = next_places[parents[node]]
            next_places[parents[node]] += sizes[node]
            next_places[node] = places[node] + 1
        self.node_tokens = torch.tensor(tokens)
        self.node_parents = torch.tensor(parents)
        self.node_depths = torch.tensor(depths)
        self._node_sizes, self._node_places = torch.tensor(sizes), torch.tensor(places)

    @property
    def num_nodes(self) -> int:
        """Number N of tokens behind the beginning."""
        return len(self.node_tokens) - 1

    def sees(self, queries: torch.LongTensor, keys: torch.LongTensor) -> torch.BoolTensor:
        """Whether node `keys[k]` is node `queries[q]` or an ancestor of it: (Q, K) from (Q,) and (K,)."""
        places, first = self._node_places[queries][:, None], self._node_places[keys]
        return (places >= first) & (places < first + self._node_sizes[keys])


class LabelTrie(_Tree):
    """Prefix tree of class names.

    The nodes are the distinct proper prefixes of the labels. Node 0 is the prompt (the empty prefix); nodes 1..N are the
    tokens that a forward pass has to read. The edges are the distinct prefixes of at least one token, whole labels included.
    The logits of the parent score the edge (parent, token), so the last token of a label is never read. Parents come before
    their children. Memory is linear in T, the number of tokens of all labels.

    Args:
        label_ids (`Sequence[Sequence[int]]` of length C):
            For each class, the token ids of its name and end token, as they follow the prompt in training.

    Attributes:
        labels (`tuple[tuple[int, ...], ...]`): the label ids as given.
        node_tokens, node_parents, node_depths (`torch.LongTensor` of shape `(N + 1,)`): the token, the parent and the distance
            from the prompt of each node; 0 for node 0.
        edge_parents, edge_tokens (`torch.LongTensor` of shape `(E,)`): the edges, sorted by parent.
        label_edges (`torch.LongTensor` of shape `(T,)`): the path of each label from the prompt, label after label.
        label_lengths (`torch.LongTensor` of shape `(C,)`): the number of tokens of each label.
        is_constrained (`bool`): whether each step is renormalised over the edges of its node ([`constrained`]).

    Raises:
        TypeError: if a token id is not an integer.
        ValueError: if there are no labels, a label has no tokens or a negative id, two labels are equal, or a label is the
            beginning of another.
    """

    is_constrained = False

    def __init__(self, label_ids: Sequence[Sequence[int]]):
        self.labels = tuple(tuple(label) for label in label_ids)
        if not self.labels:
            raise ValueError("label_ids is empty: expected the token ids of at least one class name")
        tokens, node_parents = [0], [0]
        children: list[dict[int, int]] = [{}]  # of each node: token -> node
        ends: list[dict[int, int]] = [{}]  # of each node: last token -> label
        parents = []
        for index, label in enumerate(self.labels):
            if not label:
                raise ValueError(f"label_ids[{index}] is empty: expected the tokens of a class name and its end token")
            for token in label:
                if not isinstance(token, int) or isinstance(token, bool):
                    raise TypeError(f"label_ids[{index}] contains {token!r}: expected integer token ids")
                if token < 0:
                    raise ValueError(f"label_ids[{index}] contains the token id {token}: expected ids of at least 0")
            node = 0
            for token in label[:-1]:
                if token in ends[node]:
                    raise _prefix_error(ends[node][token], index)
                if token not in children[node]:
                    children[node][token] = len(tokens)
                    node_parents.append(node)
                    tokens.append(token)
                    children.append({})
                    ends.append({})
                node = children[node][token]
            end = label[-1]
            if end in ends[node]:
                raise ValueError(
                    f"label_ids[{ends[node][end]}] and label_ids[{index}] are both {list(label)}: two classes with the "
                    "same tokens cannot be told apart"
                )
            if end in children[node]:
                longer = next(i for i, other in enumerate(self.labels) if i != index and other[: len(label)] == label)
                raise _prefix_error(index, longer)
            ends[node][end] = index
            parents.append(node)

        edges = [(node, token) for node in range(len(tokens)) for token in (*children[node], *ends[node])]
        node_edges, end_edges = [0] * len(tokens), [0] * len(self.labels)  # the edge that leads to each node and label
        for edge, (node, token) in enumerate(edges):
            if token in children[node]:
                node_edges[children[node][token]] = edge
            else:
                end_edges[ends[node][token]] = edge
        label_edges = []
        for parent, edge in zip(parents, end_edges, strict=True):
            path = [edge]
            while parent:
                path.append(node_edges[parent])
                parent = node_parents[parent]
            label_edges += reversed(path)
        super().__init__(tokens, node_parents)
        self.edge_parents = torch.tensor([node for node, _ in edges])
        self.edge_tokens = torch.tensor([token for _, token in edges])
        self.label_edges = torch.tensor(label_edges)
        self.label_lengths = torch.tensor([len(label) for label in self.labels])

    def __len__(self) -> int:
        return len(self.labels)

    def constrained(self) -> "LabelTrie":
        """A trie that scores these labels by constrained decoding.

        The probability of an edge is renormalised over the edges of its node, so the probabilities of all labels add up to 1.
        Each label is cut off where it differs from all others: its remaining tokens have probability 1.
        """
        choices = torch.bincount(self.edge_parents) > 1  # of each node, whether it has several edges
        is_choice = choices[self.edge_parents[self.label_edges]].split(self.label_lengths.tolist())
        trie = LabelTrie(
            [
                label[: 1 + max(steps.nonzero().flatten().tolist(), default=0)]
                for label, steps in zip(self.labels, is_choice, strict=True)
            ]
        )
        trie.is_constrained = True
        return trie

    def along(self, index: int) -> tuple["LabelTrie", int]:
        """What the score of label `index` depends on: a trie, and the index of the label in it.

        By constrained decoding, it depends on no nodes but its own: each other label is cut off where it leaves them.
        Otherwise, probabilities are normalised over all labels.
        """
        if not self.is_constrained:
            return self, index
        label = self.labels[index]
        beginnings = {}  # of all labels, up to the first token that is not one of `label`
        for other in self.labels:
            pairs = enumerate(zip(label, other, strict=False))
            shared = next((place for place, (token, others) in pairs if token != others), len(label))
            beginnings[other[: shared + 1]] = None
        trie = LabelTrie(list(beginnings))
        trie.is_constrained = True
        return trie, trie.labels.index(label)

    def split(self, max_nodes: int) -> list[tuple[list[int], "LabelTrie"]]:
        """Splits the labels into tries of at most `max_nodes` nodes (a longer label is a trie by itself).

        Labels with a common beginning stay together.

        Returns:
            `list` of pairs: the indices of the labels of a trie, and the trie.
        """
        pieces: list[list[int]] = []
        num_nodes, previous = 0, ()
        for index in sorted(range(len(self)), key=self.labels.__getitem__):
            prefix = self.labels[index][:-1]
            new = len(prefix)
            for token, other in zip(prefix, previous, strict=False):
                if token != other:
                    break
                new -= 1
            if pieces and num_nodes + new <= max_nodes:
                pieces[-1].append(index)
                num_nodes += new
            else:
                pieces.append([index])
                num_nodes = len(prefix)
            previous = prefix
        return [(piece, LabelTrie([self.labels[index] for index in piece])) for piece in pieces]


@lru_cache(maxsize=8)
def label_trie(labels: tuple[tuple[int, ...], ...], constrained: bool) -> LabelTrie:
    """The trie of class names; that of a list which was asked for before is not built again. See [`LabelTrie`]."""
    return LabelTrie(labels).constrained() if constrained else LabelTrie(labels)


class _PromptTree(_Tree):
    """Prompts as a prefix tree, with the nodes of the class names behind each of them.

    Attributes:
        ends (`torch.LongTensor` of shape `(B,)`): index of each prompt among the different prompts.
        label_nodes (`torch.LongTensor` of shape `(D, N + 1)`): for each different prompt, its last node, and the nodes of the
            class names behind it.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], labels: LabelTrie):
        tokens, parents = [0], [0]
        children: list[dict[int, int]] = [{}]
        ends = []
        for prompt in prompts:
            node = 0
            for token in prompt:
                if token not in children[node]:
                    children[node][token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                    children.append({})
                node = children[node][token]
            ends.append(node)
        last_nodes = list(dict.fromkeys(ends))
        label_nodes = []
        for end in last_nodes:
            nodes = torch.arange(len(tokens) - 1, len(tokens) + labels.num_nodes)
            nodes[0] = end
            label_nodes.append(nodes)
            tokens += labels.node_tokens[1:].tolist()
            parents += nodes[labels.node_parents[1:]].tolist()
        super().__init__(tokens, parents)
        self.ends = torch.tensor([last_nodes.index(end) for end in ends])
        self.label_nodes = torch.stack(label_nodes)


class PromptStart(NamedTuple):
    """
    The first tokens of prompts, read once. See [`read_start`].

    Attributes:
        length: number of tokens.
        cache: their keys and values, for a batch of 1.
    """

    length: int
    cache: DynamicCache


def supports_label_trie(text_config: PreTrainedConfig, attn_implementation: str | None) -> bool:
    """Whether the trie gives exact probabilities with this language model.

    It needs (1) an attention implementation with dense masks: eager, sdpa, or a function registered with one of their
    mask functions (flash attention takes no dense mask); (2) only layers of full or sliding-window attention (a recurrent
    state cannot branch); (3) positions that follow `position_ids` (ALiBi counts slots) and do not depend on the rest of the
    batch. A model that is not known to meet all three is not supported.

    Args:
        text_config (`PreTrainedConfig`): configuration of the language model.
        attn_implementation (`str`): its attention implementation, `text_config._attn_implementation` of a loaded model.
    """
    mask_function = ALL_MASK_ATTENTION_FUNCTIONS.get(attn_implementation)
    if mask_function not in (eager_mask, sdpa_mask) or text_config.model_type not in TRIE_MODEL_TYPES:
        return False
    layer_types = getattr(text_config, "layer_types", None) or ()
    rope = getattr(text_config, "rope_parameters", None) or {}
    # One set of parameters, or one per layer type; some releases write `rope_type` beside the latter.
    ropes = [parameters for parameters in rope.values() if isinstance(parameters, dict)] or [rope]
    return (
        set(layer_types) <= {"full_attention", "sliding_attention"}
        and all(parameters.get("rope_type", "default") in STATIC_ROPE_TYPES for parameters in ropes)
        and getattr(text_config, "is_causal", True)
        and not getattr(text_config, "use_bidirectional_attention", None)
    )


def score_labels(
    base: Callable[..., Any],
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    labels: LabelTrie,
    method: str = "auto",
    base_kwargs: dict[str, Any] | None = None,
    tokens_per_pass: int = TOKENS_PER_PASS,
    start: PromptStart | None = None,
) -> torch.Tensor:
    """Log-probability of every label given each prompt (VT-LVLM-AR, Eq. 7, before normalisation over the classes).

    With constrained labels ([`LabelTrie.constrained`]), the probabilities add up to 1 and need no normalisation. Gradients flow
    into the model if they are enabled.

    Args:
        base, head: the language model; see the top of this file.
        text_config (`PreTrainedConfig`): its configuration.
        input_ids (`torch.LongTensor` of shape `(B, P)`): prompts, padded on the left.
        attention_mask (`torch.Tensor` of shape `(B, P)`): 1 for tokens, 0 for padding.
        labels (`LabelTrie`): C class names.
        method (`str`): "trie", "cache", or "auto", which uses the trie if [`supports_label_trie`] allows it.
        base_kwargs (`dict`): further arguments of `base` for the prompts. Tensors have B rows, but their other dimensions are
            not aligned with `input_ids`.
        tokens_per_pass (`int`): about how many tokens a forward pass may read; bounds the memory and does not change the
            result. A pass reads at least one label ("cache"), or as many nodes as a prompt has tokens ("trie").
        start ([`PromptStart`], *optional*): the first tokens of all prompts, which `input_ids` then lack. Only for the trie.

    Returns:
        `torch.Tensor` of shape `(B, C)`: float32, or float64 if the head returns float64.

    Raises:
        ValueError: if the method is unknown, or "trie" and the model does not support it; if prompts are empty or not padded
            on the left; if a label is outside the vocabulary; if a prompt with the longest label exceeds the model's context.
    """
    prompts = _Prompts(base, head, text_config, input_ids, attention_mask, base_kwargs or {}, start)
    prompts.check(labels)
    supported = supports_label_trie(text_config, text_config._attn_implementation)
    if method == "auto":
        method = "trie" if supported else "cache"
    if method == "trie":
        if not supported:
            raise ValueError(
                f"method 'trie' is not known to be exact for model_type {text_config.model_type!r} with attention "
                f"{text_config._attn_implementation!r}; use 'cache' or 'auto'"
            )
        batch, slots = input_ids.shape
        max_nodes = max(tokens_per_pass // batch - slots, slots)
        log_probs = None
        read = slots + min(max_nodes, labels.num_nodes)
        if batch * read * (prompts.start_length + read) > MASK_ELEMENTS:
            log_probs = _score_behind_prompts(prompts, labels, tokens_per_pass)
        if log_probs is None:
            pieces = labels.split(max_nodes)
            piece_log_probs = [_score_in_one_pass(prompts, trie) for _, trie in pieces]
            log_probs = torch.cat(piece_log_probs, dim=1)[:, _in_label_order(labels, pieces)]
        return _label_scores(log_probs, labels)
    if method == "cache":
        log_probs = [
            _score_after_prompt(prompts.select(index), labels, tokens_per_pass) for index in range(len(input_ids))
        ]
        return _label_scores(torch.stack(log_probs), labels)
    raise ValueError(f"method is {method!r}: expected 'auto', 'trie' or 'cache'")


@torch.no_grad()
def score_similar(
    base: Callable[..., Any],
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    labels: LabelTrie,
) -> torch.Tensor:
    """The scores of [`score_labels`] for prompts that begin alike, such as a sentence with each of its words left out.

    Prompts that follow each other are read as a tree: each beginning that they share once, and equal prompts once. The class
    names follow each prompt. If a prompt with the class names is too long for a tree, or the model does not support the trie,
    [`score_labels`] scores as many prompts at a time as its `tokens_per_pass` allows.

    Args:
        base, head, text_config, input_ids, attention_mask, labels: as in [`score_labels`].

    Returns:
        `torch.Tensor` of shape `(B, C)`.

    Raises:
        ValueError: as in [`score_labels`].
    """
    prompts = _Prompts(base, head, text_config, input_ids, attention_mask, {}, None)
    prompts.check(labels)
    (batch, slots), device = input_ids.shape, input_ids.device
    tokens_per_prompt = slots + labels.num_nodes
    prompts_per_tree = NODES_PER_TREE // tokens_per_prompt
    if prompts_per_tree == 0 or not supports_label_trie(text_config, text_config._attn_implementation):
        size = max(1, TOKENS_PER_PASS // tokens_per_prompt)
        parts = zip(input_ids.split(size), attention_mask.split(size), strict=True)
        return torch.cat([score_labels(base, head, text_config, ids, mask, labels) for ids, mask in parts])
    rows = [row[mask].tolist() for row, mask in zip(input_ids, attention_mask.bool(), strict=True)]
    cached = torch.zeros(1, 0, dtype=torch.long, device=device)  # the trees begin with their prompts
    scores = []
    for first in range(0, batch, prompts_per_tree):
        tree = _PromptTree(rows[first : first + prompts_per_tree], labels)
        reader = _NodeReader(prompts, tree, DynamicCache(), cached.bool(), cached)
        (hidden,) = reader.read(torch.arange(1, tree.num_nodes + 1))
        log_probs = prompts.label_log_probs(hidden[(tree.label_nodes - 1).to(device)], labels)
        scores.append(_label_scores(log_probs, labels)[tree.ends.to(device)])
    return torch.cat(scores)


@torch.no_grad()
def read_start(base: Callable[..., Any], input_ids: torch.LongTensor) -> PromptStart | None:
    """Reads the first tokens (F,) of prompts, for [`score_labels`]. `None` if the model keeps no keys and values of them."""
    cache, length = DynamicCache(), len(input_ids)
    base(
        input_ids=input_ids[None],
        attention_mask=torch.ones_like(input_ids)[None],
        position_ids=torch.arange(length, device=input_ids.device)[None],
        use_cache=True,
        **{CACHE: cache},
    )
    return PromptStart(length, cache) if _holds_prompt(cache, length) else None


def normalised_entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy (...) of class probabilities (..., C), divided by that of equal probabilities: from 0 to 1. Needs two classes."""
    return torch.special.entr(probabilities).sum(dim=-1) / math.log(probabilities.shape[-1])


class _Prompts(NamedTuple):
    """
    A batch of prompts, and the language model that reads them.

    Attributes:
        base, head, text_config: the language model; see the top of this file.
        input_ids, attention_mask: the prompts (B, P), padded on the left.
        base_kwargs: further arguments of `base` for the prompts.
        start: the F tokens before `input_ids`, if they were read already.
    """

    base: Callable[..., Any]
    head: Callable[[torch.Tensor], torch.Tensor]
    text_config: PreTrainedConfig
    input_ids: torch.LongTensor
    attention_mask: torch.Tensor
    base_kwargs: dict[str, Any]
    start: PromptStart | None

    @property
    def start_length(self) -> int:
        """Number F of tokens that were read already."""
        return 0 if self.start is None else self.start.length

    def start_cache(self, batch: int) -> DynamicCache:
        """A cache of F tokens for `batch` rows, which may grow."""
        return DynamicCache() if self.start is None else _repeat(self.start.cache, batch)

    @property
    def lengths(self) -> torch.LongTensor:
        """Number of tokens (B,) of each prompt, with its start."""
        return self.start_length + self.attention_mask.bool().sum(-1)

    @property
    def is_token(self) -> torch.BoolTensor:
        """Whether a slot is a token or padding: (B, F + P)."""
        return nn.functional.pad(self.attention_mask.bool(), (self.start_length, 0), value=True)

    @property
    def positions(self) -> torch.LongTensor:
        """Positions (B, F + P) of the tokens; 0 for padding."""
        return (self.is_token.long().cumsum(-1) - 1).clamp(min=0)

    def select(self, index: int) -> "_Prompts":
        """A single prompt of the batch, without padding."""
        base_kwargs = {
            name: value[index : index + 1] if isinstance(value, torch.Tensor) else value
            for name, value in self.base_kwargs.items()
        }
        input_ids = self.input_ids[index : index + 1, self.attention_mask[index].bool()]
        return self._replace(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), base_kwargs=base_kwargs)

    def check(self, labels: LabelTrie) -> None:
        """Raises `ValueError` for prompts and labels that cannot be scored."""
        if self.input_ids.ndim != 2 or self.input_ids.shape != self.attention_mask.shape:
            raise ValueError(
                "expected input_ids and attention_mask of the same shape (batch_size, prompt_length), got "
                f"{tuple(self.input_ids.shape)} and {tuple(self.attention_mask.shape)}"
            )
        is_token = self.attention_mask.bool()
        if not (is_token[:, -1:].all() and (is_token[:, 1:] >= is_token[:, :-1]).all() and is_token.shape[1]):
            raise ValueError("attention_mask: expected prompts of at least one token, padded on the left")
        largest, vocab_size = max(map(max, labels.labels)), self.text_config.vocab_size
        if largest >= vocab_size:
            raise ValueError(f"a label contains the token id {largest}, outside the vocabulary of {vocab_size} tokens")
        longest, depth = int(self.lengths.max()), int(labels.node_depths.max())
        context = getattr(self.text_config, "max_position_embeddings", None)
        if context is not None and longest + depth > context:
            raise ValueError(
                f"the model's context of {context} tokens is too short for a prompt of {longest} and {depth} more of the "
                "longest label; shorten the recording or the class names"
            )

    def token_log_probs(self, hidden: torch.Tensor, rows: torch.LongTensor, tokens: torch.LongTensor) -> torch.Tensor:
        """log P(tokens[e] | hidden[rows[e]]), (E,), for hidden (M, H), tokens (E,) and rows (E,) in ascending order.

        All logits together would be by far the largest tensor of the computation. They are computed block by block, and once
        more in the backward pass.
        """
        size = max(1, LOGITS_PER_BLOCK // self.text_config.vocab_size)
        starts = torch.arange(0, len(hidden) + size, size)
        bounds = torch.searchsorted(rows, starts).tolist()

        def of_block(hidden: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
            logits = self.head(hidden)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            # Never above 0, even with rounding, because logsumexp adds to the largest logit.
            return logits[rows, tokens] - logits.logsumexp(-1)[rows]

        blocks = []
        for start, begin, end in zip(starts.tolist(), bounds, bounds[1:], strict=False):
            block = (
                hidden[start : start + size],
                (rows[begin:end] - start).to(hidden.device),
                tokens[begin:end].to(hidden.device),
            )
            blocks.append(
                checkpoint(of_block, *block, use_reentrant=False) if torch.is_grad_enabled() else of_block(*block)
            )
        return torch.cat(blocks)

    def label_log_probs(self, hidden: torch.Tensor, labels: LabelTrie) -> torch.Tensor:
        """Log-probabilities (B, T) of all label tokens, from the hidden states (B, N + 1, H) of the nodes."""
        batch, device = hidden.shape[0], hidden.device
        rows = torch.arange(batch)[:, None] * hidden.shape[1] + labels.edge_parents
        tokens = labels.edge_tokens.expand(batch, -1)
        edge_log_probs = self.token_log_probs(hidden.flatten(0, 1), rows.flatten(), tokens.flatten())
        return edge_log_probs.view(batch, -1)[:, labels.label_edges.to(device)]


def _score_in_one_pass(prompts: _Prompts, labels: LabelTrie) -> torch.Tensor:
    """Log-probabilities (B, T) of all label tokens, from one pass over [prompt | nodes]."""
    (batch, slots), device = prompts.input_ids.shape, prompts.input_ids.device
    start, nodes = prompts.start_length, torch.arange(1, labels.num_nodes + 1)
    node_positions = prompts.lengths[:, None] - 1 + labels.node_depths[nodes].to(device)
    positions = torch.cat([prompts.positions, node_positions], dim=1)
    # A row is a token that is read now, a column a token that it may see.
    behind = start + slots
    visible = torch.zeros(batch, slots + labels.num_nodes, behind + labels.num_nodes, dtype=torch.bool, device=device)
    visible[:, :, :behind] = prompts.is_token[:, None]
    visible[:, :slots, start:behind] &= torch.ones(slots, slots, dtype=torch.bool, device=device).tril()
    visible[:, slots:, behind:] = labels.sees(nodes, nodes).to(device)
    visible.diagonal(start, dim1=1, dim2=2).fill_(True)  # padding sees itself: no row may be empty
    hidden = prompts.base(
        input_ids=torch.cat([prompts.input_ids, labels.node_tokens[nodes].to(device).expand(batch, -1)], dim=1),
        attention_mask=_additive_masks(prompts.base, prompts.text_config, visible, positions[:, start:], positions),
        position_ids=positions[:, start:],
        use_cache=start > 0,
        **({CACHE: prompts.start_cache(batch)} if start else {}),
        **prompts.base_kwargs,
    ).last_hidden_state[:, slots - 1 :]  # node 0 is the last token of the prompt
    return prompts.label_log_probs(hidden, labels)


class _NodeReader:
    """Reads nodes of a tree behind the keys and values of K tokens.

    Args:
        prompts: the language model.
        tree: the tree.
        cache: keys and values for B rows; it grows.
        is_token (`torch.BoolTensor` of shape `(B, K)`): whether a slot of the cache is a token or padding.
        positions (`torch.LongTensor` of shape `(B, K)`): its position.
    """

    def __init__(
        self,
        prompts: _Prompts,
        tree: _Tree,
        cache: DynamicCache,
        is_token: torch.BoolTensor,
        positions: torch.LongTensor,
    ):
        self._prompts, self._tree, self._cache = prompts, tree, cache
        self._is_token, self._key_positions = is_token, positions
        self._nodes = torch.zeros(0, dtype=torch.long)  # those in the cache

    def max_nodes(self) -> int:
        """How many nodes one pass can read without a mask of more than `MASK_ELEMENTS`."""
        batch, keys = self._key_positions.shape
        # The mask of n nodes has n * (keys + n) elements for each row.
        return max(1, int((keys**2 / 4 + MASK_ELEMENTS / batch) ** 0.5 - keys / 2))

    def read(self, nodes: torch.LongTensor) -> torch.Tensor:
        """Hidden states (B, Q, H) of `nodes` (Q,). Ancestors must have been read, or come first."""
        prompts, (batch, _), device = self._prompts, self._is_token.shape, self._is_token.device
        self._nodes = torch.cat([self._nodes, nodes])
        visible = torch.cat(
            [
                self._is_token[:, None].expand(-1, len(nodes), -1),
                self._tree.sees(nodes, self._nodes).to(device).expand(batch, -1, -1),
            ],
            dim=2,
        )
        positions = self._is_token.sum(-1, keepdim=True) - 1 + self._tree.node_depths[nodes].to(device)
        self._key_positions = torch.cat([self._key_positions, positions], dim=1)
        return prompts.base(
            input_ids=self._tree.node_tokens[nodes].to(device).expand(batch, -1),
            attention_mask=_additive_masks(prompts.base, prompts.text_config, visible, positions, self._key_positions),
            position_ids=positions,
            use_cache=True,
            **{CACHE: self._cache},
        ).last_hidden_state


def _score_behind_prompts(prompts: _Prompts, labels: LabelTrie, tokens_per_pass: int) -> torch.Tensor | None:
    """Log-probabilities (B, T) of all label tokens, with masks of at most `MASK_ELEMENTS`: the prompts are read once, then
    pieces of the trie behind their cache. `None` if the model keeps no cache."""
    batch, slots = prompts.input_ids.shape
    # Without a configuration, the cache keeps every key, in sliding-window layers too: the masks hide keys.
    cache, is_token, positions = prompts.start_cache(batch), prompts.is_token, prompts.positions
    start, mask = prompts.start_length, prompts.attention_mask
    if start:  # padding may follow the start, but the model's own windows slide over slots
        visible = is_token[:, None] & torch.ones(slots, start + slots, dtype=torch.bool, device=mask.device).tril(
            start
        )
        visible.diagonal(start, dim1=1, dim2=2).fill_(True)
        mask = _additive_masks(prompts.base, prompts.text_config, visible, positions[:, start:], positions)
    prompt_hidden = prompts.base(
        input_ids=prompts.input_ids,
        attention_mask=mask,
        position_ids=positions[:, start:],
        use_cache=True,
        **{CACHE: cache},
        **prompts.base_kwargs,
    ).last_hidden_state[:, -1:]
    if not _holds_prompt(cache, start + slots):
        return None

    def reader_of(tree: _Tree) -> _NodeReader:
        return _NodeReader(prompts, tree, _repeat(cache, 1), is_token, positions)

    pieces = labels.split(max(1, min(tokens_per_pass // batch, reader_of(labels).max_nodes())))
    log_probs = []
    for _, trie in pieces:
        reader, hidden, first = reader_of(trie), [prompt_hidden], 1
        while first <= trie.num_nodes:  # several passes for a label that is longer than a piece
            last = min(first + reader.max_nodes(), trie.num_nodes + 1)
            hidden.append(reader.read(torch.arange(first, last)))
            first = last
        log_probs.append(prompts.label_log_probs(torch.cat(hidden, dim=1), trie))
    return torch.cat(log_probs, dim=1)[:, _in_label_order(labels, pieces)]


def _in_label_order(labels: LabelTrie, pieces: list[tuple[list[int], LabelTrie]]) -> torch.LongTensor:
    """Indices (T,) that reorder the tokens of the pieces of `labels.split` into the order of `labels`."""
    order = torch.tensor([index for indices, _ in pieces for index in indices])
    return _token_places(labels.label_lengths[order], order.argsort())


def _token_places(lengths: torch.LongTensor, order: torch.LongTensor) -> torch.LongTensor:
    """Indices (T,) that reorder the tokens of consecutive labels of `lengths` (C,) into the label order `order` (C,)."""
    starts = lengths.cumsum(0) - lengths
    return starts[order].repeat_interleave(lengths[order]) + _steps(lengths[order])


def _steps(lengths: torch.LongTensor) -> torch.LongTensor:
    """The ranges 0, …, n − 1 for each n of `lengths` (C,), concatenated: (T,)."""
    return torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)


def _score_after_prompt(prompt: _Prompts, labels: LabelTrie, tokens_per_pass: int) -> torch.Tensor:
    """Log-probabilities (T,) of all label tokens after one prompt, by the reference.

    The prompt, a batch of 1, has no padding, so the model only has to be causal.
    """
    base, input_ids, base_kwargs = prompt.base, prompt.input_ids, prompt.base_kwargs
    length, device = input_ids.shape[1], input_ids.device
    output = base(input_ids=input_ids, attention_mask=prompt.attention_mask, use_cache=True, **base_kwargs)
    cache = getattr(output, CACHE, None)
    first_tokens = torch.tensor([label[0] for label in labels.labels])
    rows = torch.zeros_like(first_tokens)
    first = prompt.token_log_probs(output.last_hidden_state[:, -1], rows, first_tokens)
    starts = labels.label_lengths.cumsum(0) - labels.label_lengths
    places, log_probs = [starts], [first]  # the places are indices into the tokens of all labels
    # Labels of one token are done. Sorted by length, the others need little padding.
    remaining = sorted(
        (index for index, label in enumerate(labels.labels) if len(label) > 1), key=lambda i: len(labels.labels[i])
    )
    while remaining:
        count = max(1, tokens_per_pass // (length + len(labels.labels[remaining[-1]]) - 1))
        chunk, remaining = remaining[:count], remaining[count:]
        inputs = [torch.tensor(labels.labels[index][:-1]) for index in chunk]
        targets = [torch.tensor(labels.labels[index][1:]) for index in chunk]
        suffix = pad_sequence(inputs, batch_first=True).to(device)
        is_token = pad_sequence([torch.ones_like(tokens) for tokens in inputs], batch_first=True).to(device)
        repeated_ids = input_ids.expand(count := len(chunk), -1)
        mask = torch.cat([torch.ones_like(repeated_ids), is_token], dim=1)
        if _holds_prompt(cache, length):
            hidden = base(
                input_ids=suffix, attention_mask=mask, use_cache=True, **{CACHE: _repeat(cache, count)}
            ).last_hidden_state
        else:
            # Padding on the right comes after every token that counts, for recurrent layers too.
            repeated = {
                name: value.expand(count, *value.shape[1:]) if isinstance(value, torch.Tensor) else value
                for name, value in base_kwargs.items()
            }
            hidden = base(
                input_ids=torch.cat([repeated_ids, suffix], dim=1), attention_mask=mask, use_cache=False, **repeated
            ).last_hidden_state[:, length:]
        hidden = hidden[is_token.bool()]
        log_probs.append(prompt.token_log_probs(hidden, torch.arange(len(hidden)), torch.cat(targets)))
        rows, columns = is_token.cpu().nonzero(as_tuple=True)
        places.append(starts[torch.tensor(chunk)[rows]] + columns + 1)
    return torch.cat(log_probs)[torch.cat(places).argsort().to(device)]


def _label_scores(log_probs: torch.Tensor, labels: LabelTrie) -> torch.Tensor:
    """Scores (B, C) of the labels from the log-probabilities (B, T) of their tokens over the whole vocabulary.

    The sums start at the prompt and grow token by token, so that no label scores higher than its prefixes, even with rounding.
    """
    if labels.is_constrained:
        # All labels that share an edge have the same value for it: any of them gives it.
        num_edges = len(labels.edge_tokens)
        of_edges = torch.zeros(num_edges, dtype=torch.long).scatter_(
            0, labels.label_edges, torch.arange(len(labels.label_edges))
        )
        edges = _among_siblings(log_probs[:, of_edges.to(log_probs.device)], labels.edge_parents)
        log_probs = edges[:, labels.label_edges.to(log_probs.device)]
    # The first tokens of all labels, the longest label first; the second tokens of the labels that have one; and so on.
    order = labels.label_lengths.argsort(descending=True, stable=True)
    steps = _steps(labels.label_lengths[order])
    by_step = _token_places(labels.label_lengths, order)[steps.argsort(stable=True)].to(log_probs.device)
    total, *following = log_probs[:, by_step].split(torch.bincount(steps).tolist(), dim=1)
    finished = []
    for step in following:
        count = step.shape[1]
        finished.append(total[:, count:])
        total = total[:, :count] + step
    return torch.cat([total, *reversed(finished)], dim=1)[:, order.argsort().to(log_probs.device)]


def _among_siblings(log_probs: torch.Tensor, parents: torch.LongTensor) -> torch.Tensor:
    """Log-probabilities (..., E) of edges, renormalised over the edges of the same parent; `parents` (E,)."""
    parents = parents.to(log_probs.device)
    count = int(parents.max()) + 1
    largest = log_probs.detach().new_full((*log_probs.shape[:-1], count), -torch.inf)
    index = parents.expand(log_probs.shape)
    largest = largest.scatter_reduce(-1, index, log_probs.detach(), "amax").gather(-1, index)
    # The largest is a term of the sum: no result is above 0, even with rounding.
    total = log_probs.new_zeros((*log_probs.shape[:-1], count)).scatter_add(-1, index, (log_probs - largest).exp())
    return log_probs - largest - total.log().gather(-1, index)


def _additive_masks(
    base: Callable[..., Any],
    text_config: PreTrainedConfig,
    visible: torch.BoolTensor,
    query_positions: torch.LongTensor,
    key_positions: torch.LongTensor,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Additive masks (B, 1, Q, K) from `visible` (B, Q, K), as the model's forward takes them: a dict of one per layer type if
    the model has `layer_types`, else one for all layers.

    They are floats, because eager attention would add a boolean mask as 0 and 1. Windows slide over positions, not slots: in
    the trie, neighbouring slots may have the same position.
    """
    dtype = getattr(base, "dtype", torch.float32)
    window = getattr(text_config, "sliding_window", None)

    def mask_of(layer_type: str) -> torch.Tensor:
        hidden = ~visible
        if layer_type == "sliding_attention":
            hidden = hidden | (query_positions[:, :, None] - key_positions[:, None] >= window)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None]

    layer_types = getattr(text_config, "layer_types", None)
    if layer_types is None:
        return mask_of("full_attention" if window is None else "sliding_attention")
    return {layer_type: mask_of(layer_type) for layer_type in set(layer_types)}


def _holds_prompt(cache: Any, length: int) -> bool:
    """Whether `cache` holds the keys and values of exactly the prompt's tokens, so that its rows can be repeated.

    It does not with recurrent states, with prompt learning that fills the cache beforehand, and with gradient checkpointing,
    which leaves it empty.
    """
    return (
        isinstance(cache, DynamicCache)
        and len(cache.layers) > 0
        and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.get_seq_length() == length
            for layer in cache.layers
        )
    )


def _repeat(cache: DynamicCache, times: int) -> DynamicCache:
    """A copy of `cache` with each row repeated `times` times; the original does not grow with it."""
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    repeated.batch_repeat_interleave(times)
    return repeated


def _prefix_error(shorter: int, longer: int) -> ValueError:
    return ValueError(
        f"label_ids[{shorter}] is the beginning of label_ids[{longer}]: end every label with the end token, or the probability "
        "of the shorter label includes that of the longer"
    )


__all__ = [
    "LabelTrie",
    "PromptStart",
    "label_trie",
    "normalised_entropy",
    "read_start",
    "score_labels",
    "score_similar",
    "supports_label_trie",
]
