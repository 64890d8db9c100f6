"""Tiny language models in GGUF files, written with the writer of the package gguf."""

import json
from pathlib import Path

import numpy as np


def write_gguf(
    path: Path, model, tokenizer, *, architecture: str = "llama", dtype=None, leave_out=(), **fields
) -> Path:
    """
    Writes a LLaMA with a byte-level tokenizer as llama.cpp's converter does.

    Args:
        path: the file.
        model, tokenizer: what is written.
        architecture: name of the architecture in the file.
        dtype: `gguf.GGMLQuantizationType` of the matrices; float32 by default.
        leave_out: prefixes of metadata and tensors that are left out.
        **fields: `chat_template`.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if "tokenizer" not in leave_out:
        tokens = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        vocabulary = sorted(tokens["vocab"], key=tokens["vocab"].get)
        padding = [f"<unused{number}>" for number in range(config.vocab_size - len(vocabulary))]
        special = set(tokenizer.all_special_tokens)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(vocabulary + padding)
        writer.add_token_types([3 if token in special else 1 for token in vocabulary] + [5] * len(padding))
        writer.add_token_merges([" ".join(merge) for merge in tokens["merges"]])
        writer.add_bos_token_id(tokenizer.bos_token_id)
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_pad_token_id(tokenizer.pad_token_id)
        if "chat_template" in fields:
            writer.add_chat_template(fields["chat_template"])
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        target = _name(name)
        if target.startswith(tuple(leave_out)):
            continue
        weight = weight.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            # llama.cpp interleaves the two halves of each head.
            weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        kind = gguf.GGMLQuantizationType.F32 if dtype is None or weight.ndim == 1 else dtype
        writer.add_tensor(target, gguf.quantize(np.ascontiguousarray(weight), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}


def _name(name: str) -> str:
    """The name of a weight in llama.cpp."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name
