"""Language models: causal language models, and the text decoders of vision-language models."""

import os

import torch
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging

from .checked_config import check_attention
from .gguf_models import gguf_folder
from .llm_references import SMOLLM2, check_gguf, is_gguf, repository_of
from .model_files import ModelFileError, as_written
from .tokenizer_files import load_tokenizer

logger = logging.get_logger(__name__)

# Attributes by which Trainer, TRL and PEFT recognise how a model was loaded.
LOADING_FLAGS = ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method", "hf_quantizer")


class VisualProjector(nn.Module):
    """
    The projector of the LLaVA family, which maps visual features to word embeddings: two linear layers and a GELU.

    Args:
        feature_size (`int`): width of the vision tower's features.
        hidden_size (`int`): width of the language model's word embeddings.
    """

    def __init__(self, feature_size: int, hidden_size: int):
        super().__init__()
        self.linear_1 = nn.Linear(feature_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    @classmethod
    def of(cls, model: PreTrainedModel) -> "VisualProjector | None":
        """The projector of a vision-language model, with shared weights; `None` if its projector has another architecture."""
        original = next((m for name, m in model.named_modules() if name.endswith("multi_modal_projector")), None)
        if original is None:
            return None
        shapes = {name: tuple(weight.shape) for name, weight in original.named_parameters()}
        first = shapes.get("linear_1.weight")
        if first is None or getattr(model.config, "projector_hidden_act", None) != "gelu":
            return None
        hidden_size, feature_size = first
        with torch.device("meta"):
            projector = cls(feature_size, hidden_size)
        if shapes != {name: tuple(weight.shape) for name, weight in projector.named_parameters()}:
            return None
        projector.linear_1, projector.linear_2 = original.linear_1, original.linear_2
        return projector

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., feature_size) → (..., hidden_size)."""
        return self.linear_2(nn.functional.gelu(self.linear_1(features)))


class TextDecoder(PreTrainedModel):
    """
    The text decoder of a vision-language model with its head, as a causal language model. Some vision-language models have no
    causal class of their own for their text decoder.

    Args:
        config (`PreTrainedConfig`): configuration of the text decoder.
        model, lm_head (`nn.Module`, *optional*): existing decoder and head; without them, new ones are initialised.

    Attributes:
        projector ([`VisualProjector`], *optional*): projector of the vision-language model. Its weights are not part of this
            model.
    """

    base_model_prefix = "model"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(
        self, config: PreTrainedConfig, model: PreTrainedModel | None = None, lm_head: nn.Module | None = None
    ):
        super().__init__(config)
        self.__dict__["projector"] = None
        self.model = AutoModel.from_config(config, trust_remote_code=False) if model is None else model
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
    """An untrained causal language model."""
    if type(text_config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM.from_config(text_config, trust_remote_code=False)
    return TextDecoder(text_config)


def locate(name_or_path: str, revision: str | None = None, sha256: str | None = None, **hub) -> tuple[str, str]:
    """
    Where transformers finds a language model: a folder or repository, and its revision. A GGUF file is converted to a folder.

    Args:
        name_or_path (`str`): repository, folder, or GGUF file: its path, `repository:file.gguf`, or `smollm2`.
        revision (`str`, *optional*): commit of the repository.
        sha256 (`str`, *optional*): expected SHA-256 of the GGUF file.
        **hub: arguments of the download of the GGUF file, such as `token`.

    Raises:
        ValueError, ImportError, OSError: see [`~gguf_models.gguf_folder`].
    """
    if is_gguf(name_or_path):
        return gguf_folder(name_or_path, revision, sha256, **hub), "main"
    return name_or_path, revision or "main"


def language_model_config(name_or_path: str, revision: str | None = None) -> PreTrainedConfig:
    """Loads the configuration of a language model; the arguments are those of [`locate`]."""
    place, revision = locate(name_or_path, revision)
    return AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)


def language_model_tokenizer(name_or_path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a language model; the arguments are those of [`locate`]."""
    place, revision = locate(name_or_path, revision)
    return load_tokenizer(place, revision=revision)


def load_language_model(
    name_or_path: str, revision: str | None = None, sha256: str | None = None, **kwargs
) -> PreTrainedModel:
    """
    Loads a causal language model, or the text decoder of a vision-language model (LLaVA, Qwen-VL, SmolVLM…).

    Args:
        name_or_path (`str`): repository, folder, or GGUF file: its path, `repository:file.gguf`, or `smollm2`.
        revision (`str`, *optional*): commit of the repository.
        sha256 (`str`, *optional*): expected SHA-256 of the GGUF file.
        **kwargs: arguments of `from_pretrained`, such as dtype, device_map and quantization_config.

    Raises:
        ValueError: if the model cannot be loaded, or only with code of its repository, or the GGUF file has another SHA-256.
        ImportError: if a package for GGUF files is missing.
        OSError: if there is no such model.
    """
    hub = {name: kwargs[name] for name in ("cache_dir", "local_files_only", "token", "proxies") if name in kwargs}
    check_attention(kwargs.get("attn_implementation"))
    place, revision = locate(name_or_path, revision, sha256, **hub)
    source = {"revision": revision, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(place, **source, **hub)
        for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
            check_attention(getattr(part, "_attn_implementation", None), "_attn_implementation")
        if config.get_text_config() is config:
            return AutoModelForCausalLM.from_pretrained(place, **source, **kwargs)
        return text_decoder_of(AutoModelForImageTextToText.from_pretrained(place, **source, **kwargs))
    except (OSError, ImportError, torch.OutOfMemoryError):
        raise
    except (
        Exception
    ) as error:  # transformers does not check all files, and raises many kinds of errors for damaged files
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name_or_path} cannot be loaded as a language model: {reason}") from error


def check_reference(llm_name_or_path: str, model_name_or_path: str | os.PathLike) -> None:
    """
    Checks the reference of a model to its language model. A model from the Hub may refer only to the Hub, or to `smollm2`. A
    local folder may also refer to another folder, or to a GGUF file; a warning names it. No code of either is run.

    Args:
        llm_name_or_path (`str`): the reference, `config.llm_name_or_path`.
        model_name_or_path (`str` or `os.PathLike`): the model that holds the reference.

    Raises:
        ModelFileError: if the reference is not allowed.
        ImportError: if it is to a package that is not installed.
    """
    path = os.path.join(model_name_or_path, "config.json")
    if not os.path.exists(llm_name_or_path) or llm_name_or_path == SMOLLM2:
        try:
            (check_gguf if is_gguf(llm_name_or_path) else validate_repo_id)(llm_name_or_path)
        except ValueError as error:
            expected = "a repository on the Hub, or an existing folder or GGUF file"
            raise ModelFileError(path, "llm_name_or_path", as_written(llm_name_or_path), expected) from error
    elif not os.path.isdir(model_name_or_path):
        expected = "a repository on the Hub, not a path on this machine"
        raise ModelFileError(path, "llm_name_or_path", as_written(llm_name_or_path), expected)
    else:
        logger.warning("The language model is loaded from %s, as given in %s.", llm_name_or_path, path)


def why_not_loaded(error: Exception, name_or_path: str, revision: str | None) -> str:
    """Explains why a repository could not be loaded and what to do; the library's own message for unknown causes."""
    name_or_path, causes = repository_of(name_or_path) or name_or_path, []
    while error is not None:
        causes.append(error)
        error = error.__cause__ or error.__context__
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"{name_or_path} is gated: accept its terms at {ENDPOINT}/{name_or_path}, and then log in with "
            "`hf auth login`, or set HF_TOKEN."
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return (
            f"{name_or_path} no longer has the commit {revision}: pass another commit, or ask the author of the model."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"the repository {name_or_path} does not exist or is private: log in with `hf auth login`, or set HF_TOKEN."
    if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled) for cause in causes):
        return f"the Hub cannot be reached, and {name_or_path} is not in the cache."
    return str(causes[0])


def projected_layer(config: PreTrainedConfig) -> int | None:
    """Index of the hidden state of the vision tower that a LLaVA model projects; `None` for other models."""
    layer = getattr(config, "vision_feature_layer", None)
    return layer if isinstance(layer, int) else None


def load_vision_tower(name_or_path: str, revision: str | None = None, **kwargs) -> tuple[PreTrainedModel, int]:
    """
    Loads the visual encoder of a model of the LLaVA family.

    Args:
        name_or_path (`str`): repository or folder.
        revision (`str`, *optional*): commit.
        **kwargs: arguments of `from_pretrained`, such as dtype.

    Returns:
        `tuple`: the encoder, and the index of the hidden state that the projector reads.

    Raises:
        ValueError: if the model has no vision tower, or its projector does not read a single hidden state.
    """
    model = AutoModelForImageTextToText.from_pretrained(
        name_or_path, revision=revision or "main", trust_remote_code=False, **kwargs
    )
    tower = next((m for name, m in model.named_modules() if name.endswith("vision_tower")), None)
    layer = projected_layer(model.config)
    if tower is None or layer is None:
        raise ValueError(
            f"{name_or_path} is a {model.config.model_type}; expected a LLaVA model, whose projector reads one hidden state "
            "of a vision tower."
        )
    return tower, layer


def visual_words(llm: PreTrainedModel, features: torch.Tensor) -> torch.Tensor:
    """
    Maps features of the vision tower to word embeddings of the language model (VT-LVLM-AR, section III.B).

    Args:
        llm (`PreTrainedModel`): the language model, as `load_language_model` returns it.
        features (`torch.Tensor` of shape `(num_features, feature_size)`): features of the vision tower.

    Returns:
        `torch.Tensor` of shape `(num_features, hidden_size)`, float32: the output of the frozen projector.

    Raises:
        ValueError: if the language model is not from the LLaVA family, or its projector reads features of another width.
    """
    projector = check_projector(llm, features.shape[-1])
    weight = projector.linear_1.weight
    with torch.no_grad():
        return projector(features.to(weight.device, weight.dtype)).float().to(features.device)


def check_projector(llm: PreTrainedModel, feature_size: int) -> VisualProjector:
    """The projector of a language model. Raises `ValueError` if it has none that reads features of this width."""
    projector = getattr(llm, "projector", None)
    if projector is None:
        raise ValueError(
            f"visual event tokens need the projector of a LLaVA model, but this {llm.config.model_type} has none: choose a "
            "LLaVA model as language model."
        )
    if projector.linear_1.in_features != feature_size:
        raise ValueError(
            f"the codebook has vectors of width {feature_size}, but the projector of the language model takes "
            f"{projector.linear_1.in_features}: train the action model on features of the language model's own vision tower."
        )
    return projector


def text_decoder_of(model: PreTrainedModel) -> TextDecoder:
    """
    The text decoder of a vision-language model as a causal language model, with the projector of a LLaVA model. Weights are
    shared, not copied; the vision tower is not kept.

    Raises:
        ValueError: if the model has no text decoder with a head.
    """
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    has_vision = model.config.get_text_config() is not model.config
    if not has_vision or decoder is None or head is None:
        raise ValueError(f"{type(model).__name__} has no text decoder with a head: expected a vision-language model.")
    # Only the configuration of the whole model tells whether they are tied.
    decoder.config.tie_word_embeddings = head.weight is decoder.get_input_embeddings().weight
    text = TextDecoder(decoder.config, decoder, head)
    text.generation_config = model.generation_config
    text.__dict__["projector"] = VisualProjector.of(model)
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


def text_logits(logits: torch.Tensor, text_config) -> torch.Tensor:
    """Applies the scale and soft-capping of the language model's own `forward`, in float32.

    ActionLLM calls the head directly, so it has to repeat what the language model's class does after the head.

    Args:
        logits (`torch.Tensor` of shape `(..., vocab_size)`): output of the head.
        text_config (`PreTrainedConfig`): the language model's configuration.

    Returns:
        `torch.FloatTensor` of shape `(..., vocab_size)`.
    """
    logits = logits.float()
    scale = next(
        (
            value
            for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")
            if (value := getattr(text_config, name, None)) is not None
        ),
        None,
    )
    if scale is None and (scaling := getattr(text_config, "logits_scaling", None)) is not None:
        scale = 1.0 / scaling
    if scale is not None:
        logits = logits * scale
    if (cap := getattr(text_config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def decoder_layers(language_model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers of a language model: the list with as many modules as the config has layers."""
    depth = language_model.config.num_hidden_layers
    for module in language_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(f"{type(language_model).__name__} has no list of {depth} decoder layers.")


def check_context_length(length: int, text_config):
    """Raises `ValueError` if a prompt with its class name does not fit the context of the language model.

    Args:
        length (`int`): number of tokens of the longest prompt and class name together.
        text_config (`PreTrainedConfig`): the language model's configuration.
    """
    context = getattr(text_config, "max_position_embeddings", None)
    if context is not None and length > context:
        raise ValueError(
            f"the prompt and its class name take {length} tokens, but the language model "
            f"({text_config.model_type}) has a context of {context}: shorten the recording or the class list."
        )


__all__ = [
    "LOADING_FLAGS",
    "TextDecoder",
    "VisualProjector",
    "check_context_length",
    "check_projector",
    "check_reference",
    "decoder_layers",
    "fresh_language_model",
    "language_model_config",
    "language_model_tokenizer",
    "load_language_model",
    "load_vision_tower",
    "locate",
    "projected_layer",
    "text_decoder_of",
    "text_logits",
    "visual_words",
    "why_not_loaded",
]
