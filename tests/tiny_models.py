"""Tiny models and a tiny tokenizer, made on the spot: random weights, real classes."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen3Config,
    ResNetConfig,
    SmolVLMConfig,
    Swinv2Config,
    VideoMAEConfig,
    VJEPA2Config,
)

from action_llm import (
    ActionLLMForClassification,
    ActionLLMProcessor,
    ActionVQVAEConfig,
    ActionVQVAEModel,
    ResNet3DConfig,
    SkeletonFeatureExtractor,
    VideoFeatureExtractor,
)
from action_llm.language_models import text_decoder_of
from action_llm.modeling_vst import VSTModel
from action_llm.modeling_vtem import VTEMModel
from action_llm.written_reasons import ReasonWriter

CLASS_NAMES = [
    "drink water",
    "hand waving",
    "hopping (one foot jumping)",
    "walking apart from each other",
    "hush (quite)",
]
WIDTH = 32
NUM_ACTION_TOKENS = 16

_TEXT = [
    "Given a sequence of action tokens, please predict the corresponding action.",
    "please predict the corresponding action from a list",
    *CLASS_NAMES,
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few sentences, with begin and end tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def llm_configs(vocab_size: int) -> dict:
    """Configurations of several families, by name."""
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    return {
        "llama": LlamaConfig(**sizes, num_key_value_heads=4),
        "llama-gqa-tied": LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True),
        "qwen3": Qwen3Config(**sizes, num_key_value_heads=2, head_dim=8),
        "gpt2": GPT2Config(
            vocab_size=vocab_size,
            n_embd=WIDTH,
            n_layer=3,
            n_head=4,
            n_positions=256,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        ),
        "gemma2": Gemma2Config(
            **sizes,
            num_key_value_heads=2,
            head_dim=8,
            sliding_window=16,
            final_logit_softcapping=3.0,
            attn_logit_softcapping=5.0,
        ),
    }


def tiny_llm(family: str = "llama", vocab_size: int | None = None, seed: int = 0):
    """A causal language model of a family in `llm_configs`, with a padded table by default."""
    torch.manual_seed(seed)
    config = llm_configs(vocab_size or len(tiny_tokenizer()) + 7)[family]
    # Larger than the usual 0.02, so that outputs differ enough to be told apart.
    config.initializer_range = 0.3
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_action_model(seed: int = 0, **overrides) -> ActionVQVAEModel:
    """A VQ-VAE for one person of 25 joints."""
    torch.manual_seed(seed)
    settings = {
        "num_persons": 1,
        "hidden_width": 16,
        "codebook_dim": WIDTH,
        "codebook_size": NUM_ACTION_TOKENS,
        "latent_scale": 4.0,
    }
    return ActionVQVAEModel(ActionVQVAEConfig(**settings | overrides)).eval()


def tiny_processor(**overrides) -> ActionLLMProcessor:
    """Feature extractor and tokenizer of the tiny models."""
    settings = {"class_names": CLASS_NAMES, "num_action_tokens": NUM_ACTION_TOKENS} | overrides
    return ActionLLMProcessor(SkeletonFeatureExtractor(num_persons=1), tiny_tokenizer(), **settings)


BACKBONES = {
    "swinv2": lambda: Swinv2Config(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "resnet": lambda: ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    "resnet3d": lambda: ResNet3DConfig(hidden_sizes=[8, 16], depths=[1, 1], num_frames=4, image_size=32),
    "videomae": lambda: VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    ),
    "vjepa2": lambda: VJEPA2Config(
        patch_size=8, crop_size=32, frames_per_clip=4, hidden_size=16, num_attention_heads=2, num_hidden_layers=1,
        pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=1,
    ),
}  # fmt: skip
"""Configurations of visual encoders of pictures and of clips, 32 x 32 pixels, features of width 16."""


def tiny_backbone(kind: str = "swinv2"):
    torch.manual_seed(0)
    return AutoModel.from_config(BACKBONES[kind]()).eval()


def save_backbone(backbone, folder, size: int = 32) -> None:
    """Saves a visual encoder with an image processor that stretches pictures to a square."""
    backbone.save_pretrained(folder)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": size, "width": size}}
    Path(folder, "preprocessor_config.json").write_text(json.dumps(processor))


def tiny_vst(kind: str = "swinv2", **settings) -> VSTModel:
    """16 codes of width 24; the same weights each time."""
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 4, "intermediate_size": 64}
    sizes |= {"codebook_dim": 24, "codebook_size": 16}
    backbone = tiny_backbone(kind)
    torch.manual_seed(1)
    return VSTModel.from_backbone(backbone, **{**sizes, **settings})


def tiny_vtem(kind: str = "swinv2", **settings) -> VTEMModel:
    """16 codes that are features of width 16, at most 8 events in 16 cells; the same weights each time."""
    sizes = {"feature_layer": None, "codebook_size": 16, "max_events": 8, "window_cells": 16, "weight_size": 8}
    sizes |= {"weight_reach": 3, "kmeans_init": False, "dead_code_threshold": 0.0}
    backbone = tiny_backbone(kind)
    torch.manual_seed(1)
    model = VTEMModel.from_backbone(backbone, **{**sizes, **settings}).eval()
    if model.config.pooling == "adaptive":
        model.cell_weights.sensitivity.data.fill_(0.5)  # nothing is calibrated: events all the same
    return model


def tiny_llava():
    """The text decoder of a LLaVA with a projector from width 16; the same weights each time."""
    torch.manual_seed(0)
    return text_decoder_of(
        AutoModelForImageTextToText.from_config(VISION_LANGUAGE["llava"](len(tiny_tokenizer()) + 7))
    )


def tiny_recogniser(reads: str, num_codebooks: int = 1):
    """A classifier of `"skeletons"` or `"videos"` with its processor; the same weights each time."""
    if reads == "skeletons":
        llm, action_model = tiny_llm(), tiny_action_model(num_codebooks=num_codebooks)
        processor = tiny_processor(num_action_tokens=num_codebooks * NUM_ACTION_TOKENS, codes_per_word=num_codebooks)
    else:
        extractor = VideoFeatureExtractor(num_segments=8, frames_per_segment=1, height=32, width=32)
        processor = ActionLLMProcessor(extractor, tiny_tokenizer(), class_names=CLASS_NAMES, num_action_tokens=16)
        llm, action_model = tiny_llava(), tiny_vtem()
    model = ActionLLMForClassification.from_llm(
        llm, action_token_offset=processor.action_token_offset, action_model=action_model, class_names=CLASS_NAMES
    )
    return model, processor


def tiny_writer(*texts: str) -> ReasonWriter:
    """A writer of reasons whose language model answers with these texts in turn; `asked` are the facts that it was told."""

    class Scripted(ReasonWriter):
        def __init__(self):
            self.asked = []

        def generate(self, facts):
            self.asked.append(facts)
            return texts[(len(self.asked) - 1) % len(texts)]

    return Scripted()


def _text(vocab_size: int) -> dict:
    sizes = {"vocab_size": vocab_size, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    return sizes | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.3}


_SIGHT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 8,
}
VISION_LANGUAGE = {
    "llava": lambda vocab_size: LlavaConfig(
        text_config=LlamaConfig(**_text(vocab_size)),
        vision_config=CLIPVisionConfig(**_SIGHT, image_size=16),
        image_token_index=vocab_size - 1,
    ),
    "smolvlm": lambda vocab_size: SmolVLMConfig(
        text_config=LlamaConfig(**_text(vocab_size)),
        vision_config={**_SIGHT, "image_size": 16},
        image_token_id=vocab_size - 1,
        scale_factor=2,
    ),
    "qwen2.5-vl": lambda vocab_size: Qwen2_5_VLConfig(
        text_config={
            **_text(vocab_size),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "depth": 1, "num_heads": 2, "patch_size": 8, "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0], "window_size": 16,
        },
        image_token_id=vocab_size - 1,
        video_token_id=vocab_size - 2,
        vision_start_token_id=vocab_size - 3,
        vision_end_token_id=vocab_size - 4,
    ),
}  # fmt: skip
"""Configurations of models that see, by family; given the rows of the vocabulary."""
