"""Exact probabilities of class names under a causal language model.

The probability of a class is the product of the token probabilities of its name with its end token, given the prompt
(VT-LVLM-AR, Eq. 6). Two ways lead to the same numbers:

- ``"trie"``: class names share their first words, so they form a trie. One forward pass reads
  ``[prompt | nodes of the trie]`` under an attention mask in which a node sees the prompt and its own ancestors only,
  at the position that it would have alone. Needs dense attention masks, and positions that can be given.
- ``"cache"``: the reference for every causal model. The prompt is read once, its cache is repeated, and the names
  follow as padded rows. Where a cache cannot be repeated, as the states of recurrent layers, each row begins with the
  prompt itself.

[`most_likely_label`] finds the arg-max alone, without a score for every class.

A trie that is [`~LabelTrie.restricted`] asks for another probability: that with which decoding writes the name when it may
choose, at each token, only among those that continue some name. Where one token is left, nothing is asked of the model.

All of it is agnostic of the model. `base` is called as text backbones are, with `input_ids`, `attention_mask`,
`position_ids`, `use_cache` and the cache of keys and values, and returns `last_hidden_state` (and that cache). `head` maps
hidden states (..., H) to float32 logits (..., V), scaled and soft-capped as in the model.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

from .compatibility import CACHE

# Families whose backbones take a prepared additive mask (one per kind of layer where they have `layer_types`) and place
# every token by `position_ids` alone. Each is tested against scoring every label alone; others use the reference.
# fmt: off
TRIE_MODEL_TYPES = frozenset({
    "apertus", "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm",
    "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "helium",
    "hunyuan_v1_dense", "llama", "ministral", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "olmo3",
    "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss",
    "smollm3", "stablelm", "starcoder2",
})
# fmt: on
# Rotary frequencies that do not depend on the longest sequence of the batch, as "dynamic" and "longrope" do.
STATIC_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})

# Elements of the largest block of float32 logits held at a time: 64 MiB.
LOGITS_PER_BLOCK = 2**24


class LabelTrie:
    """Prefix tree of class names.

    Its nodes are the distinct proper prefixes of the labels. Node 0 is the prompt itself (the empty prefix); nodes 1..N
    are tokens that a forward pass has to read. Its edges are the distinct prefixes of one token and more, whole labels
    included: the edge (parent, token) is scored from the logits of its parent, so that the last token of a label is
    never read. Parents come before their children.

    Args:
        label_ids (`Sequence[Sequence[int]]` of length C):
            For each class the token ids of its name with the end token, as they follow the prompt in training.

    Attributes:
        labels (`tuple[tuple[int, ...], ...]`): the label ids as given.
        node_tokens (`torch.LongTensor` of shape `(N + 1,)`): the token of each node; 0 for node 0, which has none.
        node_ancestors (`torch.LongTensor` of shape `(N + 1, D)`):
            Each node's ancestors from the prompt (left out) down to itself, filled up with -1. D is the length of the
            longest label.
        node_depths (`torch.LongTensor` of shape `(N + 1,)`): distance from the prompt.
        edge_parents, edge_tokens (`torch.LongTensor` of shape `(E,)`): the edges, sorted by parent.
        node_paths (`torch.LongTensor` of shape `(N + 1, D)`), label_paths (`torch.LongTensor` of shape `(C, D)`):
            Edges from the prompt to a node, and to the end of a label, filled up with E.
        label_parents (`torch.LongTensor` of shape `(C,)`): the node that scores the last token of a label.
        is_restricted (`bool`): whether tokens are chosen among the edges of their node alone ([`restricted`]).

    Raises:
        TypeError: a token id that is not an integer.
        ValueError: no labels; a label without tokens or with a negative id; two equal labels; a label that is the
            beginning of another.
    """

    is_restricted = False

    def __init__(self, label_ids: Sequence[Sequence[int]]):
        self.labels = tuple(tuple(label) for label in label_ids)
        if not self.labels:
            raise ValueError("label_ids is empty: expected the token ids of at least one class name")
        depth = max(map(len, self.labels))
        tokens, ancestors = [0], [()]
        children: list[dict[int, int]] = [{}]  # of each node: token -> node
        ends: list[dict[int, int]] = [{}]  # of each node: last token -> label
        parents = []
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
                    ancestors.append((*ancestors[node], len(tokens)))
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
        edge_index = {edge: index for index, edge in enumerate(edges)}

        def path(nodes: tuple[int, ...], path_tokens: tuple[int, ...]) -> list[int]:
            steps = [edge_index[step] for step in zip((0, *nodes), path_tokens, strict=False)]
            return steps + [len(edges)] * (depth - len(steps))

        self.node_tokens = torch.tensor(tokens)
        self.node_ancestors = torch.tensor([[*nodes, *[-1] * (depth - len(nodes))] for nodes in ancestors])
        self.node_depths = torch.tensor([len(nodes) for nodes in ancestors])
        self.edge_parents = torch.tensor([node for node, _ in edges])
        self.edge_tokens = torch.tensor([token for _, token in edges])
        self.node_paths = torch.tensor([path(nodes, tuple(tokens[node] for node in nodes)) for nodes in ancestors])
        self.label_paths = torch.tensor(
            [path(ancestors[parent], label) for parent, label in zip(parents, self.labels, strict=True)]
        )
        self.label_parents = torch.tensor(parents)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_nodes(self) -> int:
        """Number N of tokens that have to be read to score every label."""
        return len(self.node_tokens) - 1

    def sees(self, queries: torch.LongTensor, keys: torch.LongTensor) -> torch.BoolTensor:
        """Whether each of the nodes `queries` (B, Q) has each of the nodes `keys` (B, K) among its ancestors, or is it:
        (B, Q, K). Nobody sees node 0, which serves as padding.
        """
        seen = torch.zeros(*queries.shape, keys.shape[1], dtype=torch.bool)
        for ancestors in self.node_ancestors[queries].unbind(-1):
            seen |= ancestors[:, :, None] == keys[:, None]
        return seen

    def restricted(self) -> "LabelTrie":
        """The trie of decoding that is restricted to these labels.

        The probability of an edge is that among the edges of its node, so that those of all labels add up to 1. Labels end
        where no other goes along with them any more: what follows is certain, and is not read.
        """
        choices = torch.bincount(self.edge_parents) > 1  # of each node, whether it has several edges
        # By whether there is a choice at each token of a label; behind its end there is none.
        parents = torch.cat([self.edge_parents, torch.zeros(1, dtype=torch.long)])[self.label_paths]
        is_choice = choices[parents] & (self.label_paths < len(self.edge_tokens))
        trie = LabelTrie(
            [
                label[: 1 + max(row.nonzero().flatten().tolist(), default=0)]
                for label, row in zip(self.labels, is_choice, strict=True)
            ]
        )
        trie.is_restricted = True
        return trie

    def split(self, max_nodes: int) -> list[tuple[list[int], "LabelTrie"]]:
        """Cuts the labels into tries of at most `max_nodes` nodes (a single label that has more is a trie of its own).

        Labels that begin alike stay together. Beside each trie are the indices of its labels.
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


class MostLikelyLabel(NamedTuple):
    """Result of [`most_likely_label`].

    Attributes:
        indices (`torch.LongTensor` of shape `(B,)`): the most likely class; the lowest index among equals.
        log_probs (`torch.FloatTensor` of shape `(B,)`): its log-probability, not normalised over the classes.
        num_nodes (`torch.LongTensor` of shape `(B,)`): how many nodes of the trie were read to be sure of it.
    """

    indices: torch.Tensor
    log_probs: torch.Tensor
    num_nodes: torch.Tensor


def supports_label_trie(text_config: PreTrainedConfig, attn_implementation: str | None) -> bool:
    """Whether the trie is exact for this language model.

    It needs (1) an attention implementation with dense masks: eager, sdpa, or a function registered with one of their
    mask functions (flash attention takes no such mask); (2) layers of full or sliding-window attention only (a recurrent
    state cannot branch); (3) positions that follow `position_ids` (ALiBi follows slots) and do not depend on what else
    is in the batch. What is not known to have all three is refused.

    Args:
        text_config (`PreTrainedConfig`): configuration of the language model.
        attn_implementation (`str`): the attention that it runs with, `text_config._attn_implementation` when loaded.
    """
    mask_function = ALL_MASK_ATTENTION_FUNCTIONS.get(attn_implementation)
    if mask_function not in (eager_mask, sdpa_mask) or text_config.model_type not in TRIE_MODEL_TYPES:
        return False
    layer_types = getattr(text_config, "layer_types", None) or ()
    rope = getattr(text_config, "rope_parameters", None) or {}
    # One set of parameters, or one for each kind of layer; some releases write `rope_type` beside the latter, too.
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
    tokens_per_pass: int = 8192,
) -> torch.Tensor:
    """Log-probability of every label given each prompt (VT-LVLM-AR, Eq. 6, before normalising over the classes).

    Of labels that are restricted, exp of it adds up to 1: there is nothing left to normalise. Gradients flow into the model
    where they are enabled.

    Args:
        base, head: the language model; see the top of this file.
        text_config (`PreTrainedConfig`): its configuration.
        input_ids (`torch.LongTensor` of shape `(B, P)`): prompts, padded on the left.
        attention_mask (`torch.Tensor` of shape `(B, P)`): 1 for tokens, 0 for padding.
        labels (`LabelTrie`): C class names.
        method (`str`): "trie", "cache", or "auto", which is the trie where [`supports_label_trie`] allows it.
        base_kwargs (`dict`): further arguments of `base` that belong to the prompts. Tensors have B rows, and are not
            aligned with the slots of `input_ids`.
        tokens_per_pass (`int`): how many tokens a forward pass may read, which bounds the memory. A prompt is read with
            one label at least ("cache") or with as many nodes as it has tokens ("trie"). The result does not depend on it.

    Returns:
        `torch.Tensor` of shape `(B, C)`: float32; float64 where the head returns float64.

    Raises:
        ValueError: an unknown method; "trie" for a model without support; prompts that are empty or not padded on the
            left; a label outside the vocabulary; a prompt that with the longest label exceeds the model's context.
    """
    lengths = _prompt_lengths(text_config, input_ids, attention_mask, labels)
    supported = supports_label_trie(text_config, text_config._attn_implementation)
    if method == "auto":
        method = "trie" if supported else "cache"
    base_kwargs = base_kwargs or {}
    if method == "trie":
        if not supported:
            raise ValueError(
                f"method 'trie' is not known to be exact for model_type {text_config.model_type!r} with attention "
                f"{text_config._attn_implementation!r}: use 'cache' or 'auto'"
            )
        batch, slots = input_ids.shape
        pieces = labels.split(max(tokens_per_pass // batch - slots, slots))
        depth = labels.label_paths.shape[1]
        log_probs = [
            _score_in_one_pass(base, head, text_config, input_ids, attention_mask, lengths, trie, base_kwargs)
            for _, trie in pieces
        ]
        log_probs = [torch.nn.functional.pad(piece, (0, depth - piece.shape[2])) for piece in log_probs]
        order = torch.tensor([index for indices, _ in pieces for index in indices])
        return _label_scores(torch.cat(log_probs, dim=1)[:, order.argsort()], labels)
    if method == "cache":
        log_probs = []
        for clip, mask in enumerate(attention_mask.bool()):
            of_clip = {
                name: value[clip : clip + 1] if isinstance(value, torch.Tensor) else value
                for name, value in base_kwargs.items()
            }
            prompt = input_ids[clip : clip + 1, mask]
            log_probs.append(_score_after_prompt(base, head, text_config, prompt, labels, of_clip, tokens_per_pass))
        return _label_scores(torch.stack(log_probs), labels)
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
    """The label that [`score_labels`] puts first, found best-first and without reading the whole trie.

    The log-probability of a prefix is an upper bound for every label that begins with it. So the most promising nodes
    are read, behind the cache of the prompts, until a label is scored that no bound of another exceeds. The result is
    exact; how soon it comes depends on how sure the model is. A model without support for the trie scores every label
    by the reference.

    Args:
        base, head, text_config, input_ids, attention_mask, labels, base_kwargs: as in [`score_labels`].
        nodes_per_step (`int`): nodes of the first step for each clip. Every further step reads up to twice as many: where
            the first do not settle it, many are needed, and few large steps are faster.

    Raises:
        ValueError: as in [`score_labels`]; logits that are not numbers.
    """
    if not supports_label_trie(text_config, text_config._attn_implementation):
        scores = score_labels(base, head, text_config, input_ids, attention_mask, labels, "cache", base_kwargs)
        log_probs, indices = scores.max(-1).values, scores.argmax(-1)
        return MostLikelyLabel(indices, log_probs, torch.full_like(indices, labels.num_nodes))

    lengths = _prompt_lengths(text_config, input_ids, attention_mask, labels)
    batch, device = input_ids.shape[0], input_ids.device
    # Made without a configuration, the cache keeps every key in layers with a window too: our masks say which are seen.
    cache = DynamicCache()
    key_positions = _prompt_positions(attention_mask)
    hidden = base(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=key_positions,
        use_cache=True,
        **{CACHE: cache},
        **(base_kwargs or {}),
    ).last_hidden_state[:, -1:]
    # The search runs on the host. An edge without a score counts 0, the upper bound of a log-probability.
    edge_log_probs = torch.zeros(batch, len(labels.edge_tokens))
    first_edges = torch.searchsorted(labels.edge_parents, torch.arange(labels.num_nodes + 2))
    is_read = torch.zeros(batch, labels.num_nodes + 1, dtype=torch.bool)
    # What the last pass read: node 0 is the prompt at first, later it fills up the rows.
    nodes, is_node = torch.zeros(batch, 1, dtype=torch.long), torch.ones(batch, 1, dtype=torch.bool)
    slot_nodes = torch.zeros(batch, 0, dtype=torch.long)  # the node in each slot behind the prompt
    while True:
        clips, columns = is_node.nonzero(as_tuple=True)
        read = nodes[clips, columns]
        is_read[clips, read] = True
        counts = first_edges[read + 1] - first_edges[read]
        rows = torch.arange(len(read)).repeat_interleave(counts)
        edges = torch.arange(len(rows)) + (first_edges[read] - counts.cumsum(0) + counts)[rows]
        log_probs = _token_log_probs(
            head, text_config, hidden[clips.to(device), columns.to(device)], rows, labels.edge_tokens[edges]
        ).cpu()
        if labels.is_restricted:
            log_probs = _among_siblings(log_probs, rows)
        edge_log_probs = edge_log_probs.to(log_probs.dtype)
        edge_log_probs[clips[rows], edges] = log_probs

        label_bounds = _sum_along(edge_log_probs, labels.label_paths)
        node_bounds = _sum_along(edge_log_probs, labels.node_paths)
        is_scored = is_read[:, labels.label_parents]
        leaders = label_bounds.argmax(-1, keepdim=True)  # scored or not, the lowest index among equals
        is_done = is_scored.gather(1, leaders)
        if is_done.all():
            break
        best = label_bounds.masked_fill(~is_scored, -torch.inf).amax(-1, keepdim=True)
        is_open = ~is_read & ~is_done & (node_bounds >= best)
        width = min(nodes_per_step, int(is_open.sum(-1).max()))
        if width == 0:
            raise ValueError("the language model gave logits that are not numbers")
        nodes_per_step *= 2
        # Below an open node, bounds are as high as its own and indices higher: a stable order puts parents first.
        order = node_bounds.masked_fill(~is_open, -torch.inf).sort(descending=True, stable=True).indices[:, :width]
        is_node = is_open.gather(1, order)
        nodes = order.masked_fill(~is_node, 0)

        slot_nodes = torch.cat([slot_nodes, nodes], dim=1)
        sees_slot = labels.sees(nodes, slot_nodes).to(device)
        sees_prompt = attention_mask.bool()[:, None].expand(-1, width, -1)
        positions = lengths[:, None] - 1 + labels.node_depths[nodes].to(device)
        key_positions = torch.cat([key_positions, positions], dim=1)
        hidden = base(
            input_ids=labels.node_tokens[nodes].to(device),
            attention_mask=_additive_masks(
                base, text_config, torch.cat([sees_prompt, sees_slot], dim=2), positions, key_positions
            ),
            position_ids=positions,
            use_cache=True,
            **{CACHE: cache},
        ).last_hidden_state
    log_probs = label_bounds.gather(1, leaders)[:, 0]
    return MostLikelyLabel(leaders[:, 0].to(device), log_probs.to(device), (is_read.sum(-1) - 1).to(device))


def _score_in_one_pass(
    base: Callable[..., Any],
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    input_ids: torch.LongTensor,
    attention_mask: torch.Tensor,
    lengths: torch.LongTensor,
    labels: LabelTrie,
    base_kwargs: dict[str, Any],
) -> torch.Tensor:
    """Log-probabilities (B, C, D) of the tokens of the labels, 0 behind their ends, from one pass over [prompt | nodes]."""
    (batch, slots), device = input_ids.shape, input_ids.device
    nodes = torch.arange(1, labels.num_nodes + 1)
    positions = torch.cat(
        [_prompt_positions(attention_mask), lengths[:, None] - 1 + labels.node_depths[nodes].to(device)], dim=1
    )
    visible = torch.zeros(batch, *2 * (slots + labels.num_nodes,), dtype=torch.bool, device=device)
    visible[:, :, :slots] = attention_mask.bool()[:, None]
    visible[:, :slots, :slots] &= torch.ones(slots, slots, dtype=torch.bool, device=device).tril()
    visible[:, slots:, slots:] = labels.sees(nodes[None], nodes[None]).to(device)
    visible.diagonal(dim1=1, dim2=2).fill_(True)  # padding sees itself: no row may be empty
    hidden = base(
        input_ids=torch.cat([input_ids, labels.node_tokens[nodes].to(device).expand(batch, -1)], dim=1),
        attention_mask=_additive_masks(base, text_config, visible, positions, positions),
        position_ids=positions,
        use_cache=False,
        **base_kwargs,
    ).last_hidden_state[:, slots - 1 :]  # node 0 is the last token of the prompt
    rows = torch.arange(batch)[:, None] * hidden.shape[1] + labels.edge_parents
    tokens = labels.edge_tokens.expand(batch, -1)
    edge_log_probs = _token_log_probs(head, text_config, hidden.flatten(0, 1), rows.flatten(), tokens.flatten())
    return torch.nn.functional.pad(edge_log_probs.view(batch, -1), (0, 1))[:, labels.label_paths.to(device)]


def _score_after_prompt(
    base: Callable[..., Any],
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    prompt: torch.LongTensor,
    labels: LabelTrie,
    base_kwargs: dict[str, Any],
    tokens_per_pass: int,
) -> torch.Tensor:
    """Log-probabilities (C, D) of the tokens of the labels, 0 behind their ends, of one clip by the reference.

    `prompt` (1, P) has no padding: all that is asked is causality.
    """
    length, device = prompt.shape[1], prompt.device
    output = base(input_ids=prompt, attention_mask=torch.ones_like(prompt), use_cache=True, **base_kwargs)
    cache = getattr(output, CACHE, None)
    first_tokens = torch.tensor([label[0] for label in labels.labels])
    rows = torch.zeros_like(first_tokens)
    first = _token_log_probs(head, text_config, output.last_hidden_state[:, -1], rows, first_tokens)
    # Label and place of each of the log-probabilities.
    places, found = [torch.stack([torch.arange(len(first)), rows])], [first]
    # Labels of one token are done. Shortest first, so that little of a pass is padding.
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
        prompts = prompt.expand(count := len(chunk), -1)
        mask = torch.cat([torch.ones_like(prompts), is_token], dim=1)
        if _holds_prompt(cache, length):
            hidden = base(
                input_ids=suffix, attention_mask=mask, use_cache=True, **{CACHE: _repeat(cache, count)}
            ).last_hidden_state
        else:
            # Padding on the right comes after all that counts, for recurrent layers too.
            repeated = {
                name: value.expand(count, *value.shape[1:]) if isinstance(value, torch.Tensor) else value
                for name, value in base_kwargs.items()
            }
            hidden = base(
                input_ids=torch.cat([prompts, suffix], dim=1), attention_mask=mask, use_cache=False, **repeated
            ).last_hidden_state[:, length:]
        hidden = hidden[is_token.bool()]
        found.append(_token_log_probs(head, text_config, hidden, torch.arange(len(hidden)), torch.cat(targets)))
        clips, columns = is_token.cpu().nonzero(as_tuple=True)
        places.append(torch.stack([torch.tensor(chunk)[clips], columns + 1]))
    labels_of, columns = torch.cat(places, dim=1).to(device)
    scores = first.new_zeros(labels.label_paths.shape)
    return scores.index_put((labels_of, columns), torch.cat(found))


def _token_log_probs(
    head: Callable[[torch.Tensor], torch.Tensor],
    text_config: PreTrainedConfig,
    hidden: torch.Tensor,
    rows: torch.LongTensor,
    tokens: torch.LongTensor,
) -> torch.Tensor:
    """log P(tokens[e] | hidden[rows[e]]), (E,), for hidden (M, H), tokens (E,) and rows (E,) in ascending order.

    All logits at once would be the largest tensor of the computation by far. They are made block by block, and again
    in the backward pass.
    """
    size = max(1, LOGITS_PER_BLOCK // text_config.vocab_size)
    starts = torch.arange(0, len(hidden) + size, size)
    bounds = torch.searchsorted(rows, starts).tolist()

    def of_block(hidden: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits = head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # No rounding lifts this above 0, on which the bounds of the search rest: logsumexp adds to the largest logit.
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


def _label_scores(log_probs: torch.Tensor, labels: LabelTrie) -> torch.Tensor:
    """Scores (B, C) from the log-probabilities (B, C, D) of the labels' tokens among all tokens."""
    paths, num_edges = labels.label_paths, len(labels.edge_tokens)
    if labels.is_restricted:
        # Each edge from any of the labels that go along it.
        of_edges = torch.zeros(num_edges + 1, dtype=torch.long).scatter_(
            0, paths.flatten(), torch.arange(paths.numel())
        )
        edges = log_probs.flatten(1)[:, of_edges[:num_edges].to(log_probs.device)]
        return _sum_along(_among_siblings(edges, labels.edge_parents), paths)
    return _add_up(log_probs)


def _among_siblings(log_probs: torch.Tensor, parents: torch.LongTensor) -> torch.Tensor:
    """Log-probabilities (..., E) of edges → those among the edges of the same parent (E,)."""
    parents = parents.to(log_probs.device)
    count = int(parents.max()) + 1
    largest = log_probs.detach().new_full((*log_probs.shape[:-1], count), -torch.inf)
    index = parents.expand(log_probs.shape)
    largest = largest.scatter_reduce(-1, index, log_probs.detach(), "amax").gather(-1, index)
    # The largest is one of those that are added up: no rounding lifts any above 0.
    total = log_probs.new_zeros((*log_probs.shape[:-1], count)).scatter_add(-1, index, (log_probs - largest).exp())
    return log_probs - largest - total.log().gather(-1, index)


def _sum_along(edge_log_probs: torch.Tensor, paths: torch.LongTensor) -> torch.Tensor:
    """Sums (B, R) of edge_log_probs (B, E) along paths (R, D)."""
    padded = torch.nn.functional.pad(edge_log_probs, (0, 1))
    return _add_up(padded[:, paths.to(padded.device)])


def _add_up(log_probs: torch.Tensor) -> torch.Tensor:
    """Sums (B, R) of (B, R, D): from the prompt outwards, one by one, so that no path has a higher sum than its beginning."""
    total, *steps = log_probs.unbind(-1)
    for step in steps:
        total = total + step
    return total


def _additive_masks(
    base: Callable[..., Any],
    text_config: PreTrainedConfig,
    visible: torch.BoolTensor,
    query_positions: torch.LongTensor,
    key_positions: torch.LongTensor,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Additive masks (B, 1, Q, K) from visible (B, Q, K), as the model's forward takes them: one for each kind of layer
    where it has `layer_types`, else one for all.

    Floats, because eager attention would add a boolean mask as 0 and 1. Windows slide over positions: in the trie,
    neighbouring slots may have the same position.
    """
    dtype = getattr(base, "dtype", torch.float32)
    window = getattr(text_config, "sliding_window", None)

    def mask_of(kind: str) -> torch.Tensor:
        hidden = ~visible
        if kind == "sliding_attention":
            hidden = hidden | (query_positions[:, :, None] - key_positions[:, None] >= window)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None]

    layer_types = getattr(text_config, "layer_types", None)
    if layer_types is None:
        return mask_of("full_attention" if window is None else "sliding_attention")
    return {kind: mask_of(kind) for kind in set(layer_types)}


def _prompt_positions(attention_mask: torch.Tensor) -> torch.LongTensor:
    """Positions (B, P) of the tokens of prompts that are padded on the left; 0 for padding."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def _prompt_lengths(
    text_config: PreTrainedConfig, input_ids: torch.LongTensor, attention_mask: torch.Tensor, labels: LabelTrie
) -> torch.LongTensor:
    """Tokens (B,) of each prompt, after a check of prompts and labels."""
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
        raise ValueError(
            f"input_ids has the shape {tuple(input_ids.shape)} and attention_mask {tuple(attention_mask.shape)}: expected "
            "the same (batch, prompt length) of both"
        )
    is_token = attention_mask.bool()
    if not (is_token[:, -1:].all() and (is_token[:, 1:] >= is_token[:, :-1]).all() and input_ids.shape[1]):
        raise ValueError("attention_mask: expected prompts of at least one token, padded on the left")
    largest = max(map(max, labels.labels))
    if largest >= text_config.vocab_size:
        raise ValueError(f"a label holds the token id {largest}, outside the vocabulary of {text_config.vocab_size}")
    lengths = is_token.sum(-1)
    longest, depth = int(lengths.max()), int(labels.node_depths.max())
    context = getattr(text_config, "max_position_embeddings", None)
    if context is not None and longest + depth > context:
        raise ValueError(
            f"a prompt of {longest} tokens and the {depth} tokens that are read of the longest label exceed the model's "
            f"context of {context}"
        )
    return lengths


def _holds_prompt(cache: Any, length: int) -> bool:
    """Whether `cache` holds keys and values of exactly the prompt's tokens, so that its rows can be repeated.

    Not so for recurrent states, for prompt learning that fills the cache beforehand, and under gradient checkpointing,
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
    """A cache of `times` equal rows that grows without touching the original of one row."""
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
