"""Exact probabilities of class names under a causal language model.

The probability of a class is the product of the token probabilities of its name with its end token, given the prompt
(VT-LVLM-AR, Eq. 6). Two ways lead to the same numbers:

- ``"trie"``: class names share their first words, so the names form a trie. One forward pass reads
  ``[prompt | nodes of the trie]`` under an attention mask in which a node sees the prompt and its own ancestors only,
  at the position that it would have had alone. Needs dense attention masks and positions that can be given.
- ``"cache"``: the reference for every causal model. The prompt is read once, its cache is repeated, and the names follow as
  padded rows. Where a cache cannot be repeated, as the states of recurrent layers, the rows begin with the prompt itself.

:func:`most_likely_label` finds the arg-max alone, without a score for every class.

Everything is agnostic of the model. ``base`` is called as Hugging Face text backbones are, with ``input_ids``,
``attention_mask``, ``position_ids``, ``past_key_values`` and ``use_cache``, and returns ``last_hidden_state`` (and
``past_key_values``). ``head`` maps hidden states (..., H) to float32 logits (..., V), scaled and soft-capped as in the model.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask


# Families whose backbones were read, and are tested, to take a prepared additive mask (one per kind of layer where they have
# `layer_types`) and to place every token by `position_ids` alone. Others may; until they are tested they use the reference.
TRIE_MODEL_TYPES = frozenset(
    {
        "gemma2",
        "gpt2",
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
    }
)
# Rotary frequencies that do not depend on the longest sequence of the batch ("dynamic" and "longrope" do).
STATIC_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})

# Elements of the largest block of float32 logits held at a time: 64 MiB.
LOGITS_PER_BLOCK = 2**24


class LabelTrie:
    """Prefix tree of class names.

    Nodes are the distinct proper prefixes of the labels: node 0 is the prompt itself (the empty prefix), nodes 1..N need a
    forward pass each. Edges are the distinct prefixes of length one and more, full labels included: the edge ``(parent, token)``
    is scored from the logits of its parent, so that the last token of a label is never read. Parents come before children.

    Args:
        label_ids (`list[list[int]]` of length C):
            For each class the token ids of its name in context with the end token, as in training.

    Attributes:
        labels (`tuple[tuple[int, ...], ...]`): the label ids as given.
        node_tokens, node_depths (`torch.LongTensor` of shape `(N + 1,)`): token read at a node; its distance from the prompt.
        sees (`torch.BoolTensor` of shape `(N + 1, N + 1)`): whether the row's node has the column's node among its ancestors or
            is that node. Column and row 0 are False: the prompt is not a token of the trie.
        edge_parents, edge_tokens (`torch.LongTensor` of shape `(E,)`): sorted by parent.
        node_paths (`torch.LongTensor` of shape `(N + 1, D)`), label_paths (`(C, D)`): edges from the prompt to a node or to the
            end of a label, filled up with E; D is the length of the longest label.
        label_parents (`torch.LongTensor` of shape `(C,)`): the node whose logits score the last token of a label.

    Raises:
        ValueError: no labels; a label without tokens or with a negative id; two equal labels; a label that is the beginning of
            another (every label must close with an end token, or its probability would contain the other's).
        TypeError: a token id that is not an integer.
    """

    def __init__(self, label_ids: Sequence[Sequence[int]]):
        self.labels = tuple(tuple(label) for label in label_ids)
        if not self.labels:
            raise ValueError("label_ids is empty: expected the token ids of at least one class name")
        children: list[dict[int, int]] = [{}]  # per node: token -> child node
        ends: list[dict[int, int]] = [{}]  # per node: last token -> label
        tokens, parents, depths = [0], [0], [0]
        for index, label in enumerate(self.labels):
            if not label:
                raise ValueError(f"label_ids[{index}] is empty: expected the tokens of a class name and its end token")
            for token in label:
                if not isinstance(token, int) or isinstance(token, bool):
                    raise TypeError(f"label_ids[{index}] holds {token!r}: expected integer token ids")
                if token < 0:
                    raise ValueError(f"label_ids[{index}] holds the token id {token}: expected ids of 0 or more")
            node = 0
            for token in label[:-1]:
                if token in ends[node]:
                    raise _prefix_error(ends[node][token], index)
                if token not in children[node]:
                    children[node][token] = len(tokens)
                    tokens.append(token)
                    parents.append(node)
                    depths.append(depths[node] + 1)
                    children.append({})
                    ends.append({})
                node = children[node][token]
            if label[-1] in ends[node]:
                raise ValueError(
                    f"label_ids[{ends[node][label[-1]]}] and label_ids[{index}] are both {list(label)}: two classes with the "
                    "same tokens cannot be told apart"
                )
            if label[-1] in children[node]:
                longer = next(i for i, other in enumerate(self.labels) if other[: len(label)] == label)
                raise _prefix_error(index, longer)
            ends[node][label[-1]] = index

        edges = [(node, token) for node in range(len(tokens)) for token in (*children[node], *ends[node])]
        edge_index = {edge: index for index, edge in enumerate(edges)}
        depth = max(map(len, self.labels))
        label_paths, label_parents = [], []
        node_paths = [[len(edges)] * depth for _ in tokens]
        sees = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
        for label in self.labels:
            node, path = 0, []
            for token in label[:-1]:
                path.append(edge_index[node, token])
                parent, node = node, children[node][token]
                sees[node] = sees[parent]
                sees[node, node] = True
                node_paths[node] = path + [len(edges)] * (depth - len(path))
            label_parents.append(node)
            label_paths.append([*path, edge_index[node, label[-1]]] + [len(edges)] * (depth - len(label)))

        self.node_tokens = torch.tensor(tokens)
        self.node_depths = torch.tensor(depths)
        self.sees = sees
        self.edge_parents, self.edge_tokens = torch.tensor(edges).unbind(-1)
        self.node_paths = torch.tensor(node_paths)
        self.label_paths = torch.tensor(label_paths)
        self.label_parents = torch.tensor(label_parents)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_nodes(self) -> int:
        """Number N of tokens that a forward pass must read to score every label."""
        return len(self.node_tokens) - 1

    def split(self, max_nodes: int) -> list[tuple[list[int], "LabelTrie"]]:
        """Cut the labels into tries of at most `max_nodes` nodes each (a single longer label has a trie of its own).

        Labels with common beginnings stay together. Returns the indices of the labels beside each trie.
        """
        pieces: list[list[int]] = []
        nodes, previous = 0, ()
        for index in sorted(range(len(self)), key=self.labels.__getitem__):
            prefix = self.labels[index][:-1]
            shared = next((i for i, (a, b) in enumerate(zip(prefix, previous, strict=False)) if a != b), None)
            shared = min(len(prefix), len(previous)) if shared is None else shared
            if pieces and nodes + len(prefix) - shared <= max_nodes:
                pieces[-1].append(index)
                nodes += len(prefix) - shared
            else:
                pieces.append([index])
                nodes = len(prefix)
            previous = prefix
        return [(piece, LabelTrie([self.labels[index] for index in piece])) for piece in pieces]


class MostLikelyLabel(NamedTuple):
    """Result of :func:`most_likely_label`.

    Attributes:
        indices (`torch.LongTensor` of shape `(B,)`): the most likely class; the lowest index among equals.
        log_probs (`torch.FloatTensor` of shape `(B,)`): its log-probability given the prompt, not normalised over the classes.
        num_nodes (`torch.LongTensor` of shape `(B,)`): trie nodes that were read until the arg-max was certain.
    """

    indices: torch.Tensor
    log_probs: torch.Tensor
    num_nodes: torch.Tensor


def supports_label_trie(text_config: PreTrainedConfig, attn_implementation: str | None) -> bool:
    """Whether the one-pass trie is exact for this language model.

    It needs (1) an attention implementation with dense masks: eager, sdpa, or a function registered with one of their masks
    (flash attention takes no such mask); (2) layers of full or sliding-window attention only (a recurrent state cannot branch);
    (3) positions that follow `position_ids` (ALiBi follows slots) and do not depend on what else is in the batch.
    What is not known to have all three is refused.
    """
    masks = ALL_MASK_ATTENTION_FUNCTIONS.get(attn_implementation)
    if masks not in (eager_mask, sdpa_mask) or text_config.model_type not in TRIE_MODEL_TYPES:
        return False
    layer_types = getattr(text_config, "layer_types", None) or ()
    rope = getattr(text_config, "rope_parameters", None) or {}
    ropes = rope.values() if any(isinstance(value, dict) for value in rope.values()) else (rope,)
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
    tokens_per_pass: int = 8192,
) -> torch.Tensor:
    """Log-probability of every label given its prompt (VT-LVLM-AR, Eq. 6, before normalising over the classes).

    Gradients flow to the model where they are enabled.

    Args:
        base, head: the language model, see the head of this file.
        text_config (`PreTrainedConfig`): configuration of the language model.
        input_ids (`torch.LongTensor` of shape `(B, P)`): prompts, padded on the left.
        attention_mask (`torch.Tensor` of shape `(B, P)`): 1 for tokens, 0 for padding.
        labels (`LabelTrie`): C class names.
        method (`str`): "trie", "cache", or "auto": the trie where :func:`supports_label_trie` allows it.
        base_kwargs (`dict`): further arguments of `base` that belong to the prompt. The first dimension of a tensor is B; none
            may be aligned with the slots of `input_ids`.
        tokens_per_pass (`int`): bound on the tokens that one forward pass reads, which bounds its memory. A prompt and at least
            one label are read together whatever the bound. It does not change the result.

    Returns:
        `torch.Tensor` of shape `(B, C)`: float32 (float64 for a head that returns float64).

    Raises:
        ValueError: an unknown method; "trie" for a model that does not support it; prompts not padded on the left; prompt and
            label longer than the model's context.
    """
    lengths = _prompt_lengths(text_config, input_ids, attention_mask, labels)
    supported = supports_label_trie(text_config, text_config._attn_implementation)
    if method == "auto":
        method = "trie" if supported else "cache"
    if method == "trie" and not supported:
        raise ValueError(
            f"method 'trie' is not exact for model_type {text_config.model_type!r} with attention "
            f"{text_config._attn_implementation!r}: use 'cache' or 'auto'"
        )
    if method == "trie":
        batch, slots = input_ids.shape
        pieces = labels.split(max(tokens_per_pass // batch - slots, 1))
        scores = [
            _score_in_one_pass(base, head, text_config, input_ids, attention_mask, lengths, trie, base_kwargs or {})
            for _, trie in pieces
        ]
        order = torch.tensor([index for indices, _ in pieces for index in indices])
        return torch.cat(scores, dim=1)[:, order.argsort().to(input_ids.device)]
    if method == "cache":
        rows = []
        for clip, mask in enumerate(attention_mask.bool()):
            of_clip = {
                name: value[clip : clip + 1] if isinstance(value, torch.Tensor) else value
                for name, value in (base_kwargs or {}).items()
            }
            prompt = input_ids[clip : clip + 1, mask]
            rows.append(_score_after_prompt(base, head, text_config, prompt, labels, of_clip, tokens_per_pass))
        return torch.stack(rows)
    raise ValueError(f"method is {method!r}: expected 'auto', 'trie' or 'cache'")


@torch.no_grad()
def most_likely_label(
    base: Callable[..., Any],
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    labels: LabelTrie,
    base_kwargs: dict[str, Any] | None = None,
    nodes_per_step: int = 8,
) -> MostLikelyLabel:
    """The label that :func:`score_labels` ranks first, found best-first and without reading the whole trie.

    The log-probability of a prefix is an upper bound for every label that begins with it. So the most promising nodes are
    read, `nodes_per_step` at a time and per clip, behind the cache of the prompt, until a label that is fully scored is at
    least as likely as the bound of every other. The result is exact whatever the model; only the cost depends on how sure
    the model is. Models without support for the trie score every label by the reference.

    Args and errors are those of :func:`score_labels`; `nodes_per_step` (`int`) trades forward passes against nodes.
    """
    if not supports_label_trie(text_config, text_config._attn_implementation):
        scores = score_labels(base, head, text_config, input_ids, attention_mask, labels, "cache", base_kwargs)
        indices = scores.argmax(-1)
        num_nodes = torch.full_like(indices, labels.num_nodes)
        return MostLikelyLabel(indices, scores.gather(1, indices[:, None])[:, 0], num_nodes)

    lengths = _prompt_lengths(text_config, input_ids, attention_mask, labels)
    batch, device = input_ids.shape[0], input_ids.device
    # A cache without a configuration keeps every key, also in sliding-window layers: which of them are seen is said by our mask.
    cache = DynamicCache()
    key_positions = _prompt_positions(attention_mask)
    prompt_is_seen = attention_mask.bool()[:, None]
    output = base(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=key_positions,
        past_key_values=cache,
        use_cache=True,
        **(base_kwargs or {}),
    )
    hidden = output.last_hidden_state[:, -1:]
    # The search runs on the host. An edge that is not scored yet counts 0, the upper bound of a log-probability.
    edge_log_probs: torch.Tensor | None = None
    is_read = torch.zeros(batch, labels.num_nodes + 1, dtype=torch.bool)
    nodes, is_node = torch.zeros(batch, 1, dtype=torch.long), torch.ones(batch, 1, dtype=torch.bool)
    slot_nodes = torch.zeros(batch, 0, dtype=torch.long)  # which node each slot behind the prompt holds; 0 is padding
    first_edge = torch.searchsorted(labels.edge_parents, torch.arange(labels.num_nodes + 2))
    while True:
        clips, columns = is_node.nonzero(as_tuple=True)
        read = nodes[clips, columns]
        is_read[clips, read] = True
        counts = first_edge[read + 1] - first_edge[read]
        rows = torch.arange(len(read)).repeat_interleave(counts)
        within = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        edges = first_edge[read][rows] + within
        of_nodes = hidden[clips.to(device), columns.to(device)]
        log_probs = _token_log_probs(
            head, text_config, of_nodes, rows.to(device), labels.edge_tokens[edges].to(device)
        ).cpu()
        if edge_log_probs is None:
            edge_log_probs = log_probs.new_zeros(batch, len(labels.edge_tokens))
        edge_log_probs[clips[rows], edges] = log_probs

        label_bounds = _sum_along(edge_log_probs, labels.label_paths)
        node_bounds = _sum_along(edge_log_probs, labels.node_paths)
        is_scored = is_read[:, labels.label_parents]
        leaders = label_bounds.argmax(-1, keepdim=True)  # the lowest index among equals, scored or not
        done = is_scored.gather(1, leaders)
        if done.all():
            break
        best = label_bounds.masked_fill(~is_scored, -torch.inf).amax(-1, keepdim=True)
        is_open = ~is_read & ~done & (node_bounds >= best)
        width = min(nodes_per_step, int(is_open.sum(-1).max()))
        if width == 0:
            raise ValueError("the language model returned logits that are not numbers")
        # A node that waits for its parent has its parent's bound and a higher index: in a stable order it comes behind it.
        nodes = (
            node_bounds.masked_fill(~is_open, -torch.inf).sort(dim=-1, descending=True, stable=True).indices[:, :width]
        )
        is_node = is_open.gather(1, nodes)
        nodes = nodes.masked_fill(~is_node, 0)

        slot_nodes = torch.cat([slot_nodes, nodes], dim=1)
        sees_slot = labels.sees[nodes[:, :, None], slot_nodes[:, None]]
        sees_slot[:, :, -width:] |= torch.eye(width, dtype=torch.bool)  # padding sees itself: no row may be empty
        visible = torch.cat([prompt_is_seen.expand(-1, width, -1), sees_slot.to(device)], dim=-1)
        positions = lengths[:, None] + labels.node_depths[nodes].to(device) - 1
        key_positions = torch.cat([key_positions, positions], dim=1)
        hidden = base(
            input_ids=labels.node_tokens[nodes].to(device),
            attention_mask=_additive_masks(base, text_config, visible, positions, key_positions),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    num_nodes = is_read.sum(-1) - 1
    return MostLikelyLabel(
        leaders[:, 0].to(device), label_bounds.gather(1, leaders)[:, 0].to(device), num_nodes.to(device)
    )


def _score_in_one_pass(
    base: Callable[..., Any],
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    lengths: torch.Tensor,
    labels: LabelTrie,
    base_kwargs: dict[str, Any],
) -> torch.Tensor:
    """Scores (B, C) from one pass over [prompt | nodes]."""
    (batch, slots), device = input_ids.shape, input_ids.device
    is_token = attention_mask.bool()
    tokens = labels.node_tokens[1:].to(device).expand(batch, -1)
    positions = torch.cat(
        [_prompt_positions(attention_mask), lengths[:, None] + labels.node_depths[1:].to(device) - 1], dim=1
    )
    total = slots + labels.num_nodes
    visible = torch.zeros(batch, total, total, dtype=torch.bool, device=device)
    visible[:, :, :slots] = is_token[:, None]
    visible[:, :slots, :slots] &= torch.ones(slots, slots, dtype=torch.bool, device=device).tril()
    visible[:, slots:, slots:] = labels.sees[1:, 1:].to(device)
    visible.diagonal(dim1=1, dim2=2).fill_(True)  # padding sees itself: no row may be empty
    output = base(
        input_ids=torch.cat([input_ids, tokens], dim=1),
        attention_mask=_additive_masks(base, text_config, visible, positions, positions),
        position_ids=positions,
        use_cache=False,
        **base_kwargs,
    )
    hidden = output.last_hidden_state[:, slots - 1 :]  # node 0 is the last token of the prompt
    rows = torch.arange(batch)[:, None] * (labels.num_nodes + 1) + labels.edge_parents
    edge_log_probs = _token_log_probs(
        head,
        text_config,
        hidden.flatten(0, 1),
        rows.flatten().to(device),
        labels.edge_tokens.repeat(batch).to(device),
    )
    return _sum_along(edge_log_probs.view(batch, -1), labels.label_paths.to(device))


def _score_after_prompt(
    base: Callable[..., Any],
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    prompt: torch.Tensor,
    labels: LabelTrie,
    base_kwargs: dict[str, Any],
    tokens_per_pass: int,
) -> torch.Tensor:
    """Scores (C,) of one clip by the reference. `prompt` (1, P) has no padding: nothing but causality is asked of the model."""
    length, device = prompt.shape[1], prompt.device
    output = base(input_ids=prompt, attention_mask=torch.ones_like(prompt), use_cache=True, **base_kwargs)
    cache = getattr(output, "past_key_values", None)
    first = torch.tensor([label[0] for label in labels.labels], device=device)
    scores = _token_log_probs(head, text_config, output.last_hidden_state[:, -1], torch.zeros_like(first), first)
    longer = sorted(
        (c for c, label in enumerate(labels.labels) if len(label) > 1), key=lambda c: len(labels.labels[c])
    )
    while longer:
        # Shortest first: the padding of a pass is what its last row has more than its first.
        count = max(1, tokens_per_pass // (length + len(labels.labels[longer[-1]]) - 1))
        chunk, longer = longer[:count], longer[count:]
        tails = [torch.tensor(labels.labels[c][1:]) for c in chunk]
        inputs = [torch.tensor(labels.labels[c][:-1]) for c in chunk]
        suffix = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True).to(device)
        is_token = torch.nn.utils.rnn.pad_sequence([torch.ones_like(x) for x in inputs], batch_first=True).to(device)
        mask = torch.cat([torch.ones_like(prompt).expand(len(chunk), -1), is_token], dim=1)
        if _can_be_repeated(cache, length):
            hidden = base(
                input_ids=suffix,
                attention_mask=mask,
                past_key_values=_repeat(cache, len(chunk)),
                use_cache=True,
            ).last_hidden_state
        else:
            # Recurrent layers run over right padding only after the last token that counts, so it does no harm.
            repeated = {
                name: value.expand(len(chunk), *value.shape[1:]) if isinstance(value, torch.Tensor) else value
                for name, value in base_kwargs.items()
            }
            hidden = base(
                input_ids=torch.cat([prompt.expand(len(chunk), -1), suffix], dim=1),
                attention_mask=mask,
                use_cache=False,
                **repeated,
            ).last_hidden_state[:, length:]
        hidden = hidden[is_token.bool()]
        rows = torch.arange(len(hidden), device=device)
        of_tails = _token_log_probs(head, text_config, hidden, rows, torch.cat(tails).to(device))
        owners = torch.repeat_interleave(torch.tensor(chunk), torch.tensor([len(tail) for tail in tails])).to(device)
        scores = scores.index_add(0, owners, of_tails)
    return scores


def _token_log_probs(
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    hidden: torch.Tensor,
    rows: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """log P(tokens[e] | hidden[rows[e]]) of shape (E,), for hidden (M, H) and sorted rows (E,).

    The logits of all M rows at once would be the largest tensor of the whole computation: they are made block by block, and
    made again in the backward pass.
    """
    size = max(1, LOGITS_PER_BLOCK // text_config.vocab_size)
    starts = range(0, len(hidden), size)
    bounds = torch.searchsorted(rows, torch.tensor([*starts, len(hidden)], device=rows.device)).tolist()

    def of_block(hidden: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits = head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # Rounding can lift a certain token above 0, and the bounds of the search rest on log-probabilities being at most 0.
        return (logits[rows, tokens] - logits.logsumexp(-1)[rows]).clamp(max=0)

    blocks = []
    for start, begin, end in zip(starts, bounds, bounds[1:], strict=False):
        block = (hidden[start : start + size], rows[begin:end] - start, tokens[begin:end])
        if torch.is_grad_enabled():
            blocks.append(checkpoint(of_block, *block, use_reentrant=False))
        else:
            blocks.append(of_block(*block))
    return torch.cat(blocks)


def _sum_along(edge_log_probs: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
    """Sums (B, R) of edge_log_probs (B, E) along paths (R, D), from the prompt outwards.

    The order of the additions is fixed, so that the sum of a path is never above that of its beginning.
    """
    padded = torch.nn.functional.pad(edge_log_probs, (0, 1))
    total = padded[:, paths[:, 0]]
    for step in paths.T[1:]:
        total = total + padded[:, step]
    return total


def _additive_masks(
    base: Callable[..., Any],
    text_config: PreTrainedConfig,
    visible: torch.Tensor,
    query_positions: torch.Tensor,
    key_positions: torch.Tensor,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Additive float masks (B, 1, Q, K) from visible (B, Q, K), in the form that the model's forward takes.

    One per kind of layer where the model has several, else one. A boolean mask would be added as 0 and 1 by eager attention.
    Windows slide over positions: slots of the trie that lie side by side may be at the same position.
    """
    dtype = getattr(base, "dtype", torch.float32)
    window = getattr(text_config, "sliding_window", None)

    def additive(visible: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]

    def sliding() -> torch.Tensor:
        return additive(visible & (query_positions[:, :, None] - key_positions[:, None] < window))

    layer_types = getattr(text_config, "layer_types", None)
    if layer_types is None:
        return additive(visible) if window is None else sliding()
    masks = {"full_attention": lambda: additive(visible), "sliding_attention": sliding}
    return {kind: masks[kind]() for kind in set(layer_types)}


def _prompt_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions (B, P) of left-padded tokens, 0 for padding."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def _prompt_lengths(
    text_config: PreTrainedConfig, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: LabelTrie
) -> torch.Tensor:
    """Number of tokens (B,) of each prompt, after checking prompts and labels against the model."""
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
        raise ValueError(
            f"input_ids has the shape {tuple(input_ids.shape)} and attention_mask {tuple(attention_mask.shape)}: expected "
            "(batch, prompt length) of both"
        )
    is_token = attention_mask.bool()
    if not (is_token[:, -1].all() and (is_token[:, 1:] >= is_token[:, :-1]).all()):
        raise ValueError("attention_mask: expected prompts of at least one token, padded on the left")
    largest = max(map(max, labels.labels))
    if largest >= text_config.vocab_size:
        raise ValueError(f"a label holds the token id {largest}: the vocabulary has {text_config.vocab_size} tokens")
    lengths = is_token.sum(-1)
    context = getattr(text_config, "max_position_embeddings", None)
    needed = int(lengths.max()) + int(labels.node_depths.max())
    if context is not None and needed > context:
        raise ValueError(
            f"the longest prompt has {int(lengths.max())} tokens and needs {needed} with the longest label: the model's "
            f"context is {context}"
        )
    return lengths


def _can_be_repeated(cache: Any, length: int) -> bool:
    """Whether `cache` holds keys and values of exactly the prompt's tokens, and nothing else.

    It does not for recurrent states, for prompt learning that fills the cache first, and under gradient checkpointing,
    which leaves it empty.
    """
    return (
        isinstance(cache, DynamicCache)
        and len(cache.layers) > 0
        and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
        and all(layer.get_seq_length() == length for layer in cache.layers)
    )


def _repeat(cache: DynamicCache, times: int) -> DynamicCache:
    """A cache of `times` equal rows that can grow without touching the original of one row."""
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    repeated.batch_repeat_interleave(times)
    return repeated


def _prefix_error(shorter: int, longer: int) -> ValueError:
    return ValueError(
        f"label_ids[{shorter}] is the beginning of label_ids[{longer}]: every label must close with the end token, or the "
        "probability of the shorter would contain that of the longer"
    )


__all__ = ["LabelTrie", "MostLikelyLabel", "most_likely_label", "score_labels", "supports_label_trie"]
