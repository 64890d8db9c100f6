"""Language models for reading: causal ones as they are, and the text side of models that see, without their eyes."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

# What Trainer, TRL and PEFT look at to see how a model was loaded.
LOADING_FLAGS = ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method", "hf_quantizer")


class TextDecoder(PreTrainedModel):
    """
    The decoder and the head of an image-text-to-text model: a causal language model for those families that have none of their
    own for their text.

    Args:
        config (`PreTrainedConfig`): of the text decoder.
        model, lm_head (`nn.Module`, *optional*): the parts, where they are there.
    """

    base_model_prefix = "model"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(
        self, config: PreTrainedConfig, model: PreTrainedModel | None = None, lm_head: nn.Module | None = None
    ):
        super().__init__(config)
        self.model = AutoModel.from_config(config) if model is None else model
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False) if lm_head is None else lm_head
        if model is None:
            self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if module is self.lm_head:
            nn.init.normal_(module.weight, std=getattr(self.config, "initializer_range", 0.02))

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


def fresh_language_model(text_config: PreTrainedConfig) -> PreTrainedModel:
    """A causal language model with weights of no meaning yet."""
    if type(text_config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM.from_config(text_config)
    return TextDecoder(text_config)


def load_language_model(name_or_path: str, revision: str | None = None, **kwargs) -> PreTrainedModel:
    """
    Loads a causal language model, or of an image-text-to-text model (LLaVA, Qwen-VL, SmolVLM…) the language model alone.

    Args:
        name_or_path (`str`): repository or folder.
        revision (`str`, *optional*): commit.
        **kwargs: of `from_pretrained`: dtype, device_map, quantization_config…
    """
    hub = {name: kwargs[name] for name in ("cache_dir", "local_files_only", "token", "proxies") if name in kwargs}
    config = AutoConfig.from_pretrained(name_or_path, revision=revision or "main", **hub)
    if config.get_text_config() is config:
        return AutoModelForCausalLM.from_pretrained(name_or_path, revision=revision or "main", **kwargs)
    return without_eyes(
        AutoModelForImageTextToText.from_pretrained(name_or_path, revision=revision or "main", **kwargs)
    )


def without_eyes(model: PreTrainedModel) -> PreTrainedModel:
    """
    The text decoder and the head of an image-text-to-text model; the weights are not copied, and those of what sees can go.

    So can the projector between the two: action tokens are learnt in the space of the words, not in that of the pictures.

    Raises:
        ValueError: the model has no decoder of text with a head.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    sees = model.config.get_text_config() is not model.config
    if not sees or decoder is None or head is None:
        raise ValueError(f"{type(model).__name__} has no text decoder with a head that could read alone.")
    # Whether they are tied stands in the configuration of the whole.
    decoder.config.tie_word_embeddings = head.weight is decoder.get_input_embeddings().weight
    text = TextDecoder(decoder.config, decoder, head)
    text.generation_config = model.generation_config
    for name in LOADING_FLAGS:
        if hasattr(model, name):
            setattr(text, name, getattr(model, name))
    if hasattr(model, "hf_device_map"):
        path = next(name for name, module in model.named_modules() if module is decoder)
        text.hf_device_map = {
            "model" + key.removeprefix(path) if key.startswith(path) else key: device
            for key, device in model.hf_device_map.items()
            if key.startswith(path) or key in ("", "lm_head")
        }
    return text.eval()


__all__ = ["LOADING_FLAGS", "TextDecoder", "fresh_language_model", "load_language_model", "without_eyes"]
