"""Language models for reading: causal ones as they are, and the text side of models that see, without their eyes."""

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
from transformers.utils import logging

from .checked_config import check_attention
from .model_files import ModelFileError, as_written

logger = logging.get_logger(__name__)

# What Trainer, TRL and PEFT look at to see how a model was loaded.
LOADING_FLAGS = ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method", "hf_quantizer")


class VisualProjector(nn.Module):
    """
    What makes words of features in the LLaVA family: two linear layers and a GELU.

    Args:
        feature_size (`int`): width of the vision tower's features.
        hidden_size (`int`): width of the language model's words.
    """

    def __init__(self, feature_size: int, hidden_size: int):
        super().__init__()
        self.linear_1 = nn.Linear(feature_size, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    @classmethod
    def of(cls, model: PreTrainedModel) -> "VisualProjector | None":
        """That of an image-text-to-text model, its weights shared; `None` where it has another kind."""
        found = next((m for name, m in model.named_modules() if name.endswith("multi_modal_projector")), None)
        if found is None:
            return None
        names = {name: tuple(weight.shape) for name, weight in found.named_parameters()}
        first = names.get("linear_1.weight")
        if first is None or getattr(model.config, "projector_hidden_act", None) != "gelu":
            return None
        hidden_size, feature_size = first
        with torch.device("meta"):
            projector = cls(feature_size, hidden_size)
        if names != {name: tuple(weight.shape) for name, weight in projector.named_parameters()}:
            return None
        projector.linear_1, projector.linear_2 = found.linear_1, found.linear_2
        return projector

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., feature_size) → (..., hidden_size)."""
        return self.linear_2(nn.functional.gelu(self.linear_1(features)))


class TextDecoder(PreTrainedModel):
    """
    The decoder and the head of an image-text-to-text model: a causal language model for those families that have none of their
    own for their text.

    Args:
        config (`PreTrainedConfig`): of the text decoder.
        model, lm_head (`nn.Module`, *optional*): the parts, where they are there.

    Attributes:
        projector ([`VisualProjector`], *optional*): what makes words of features in the model that this one is taken from. It
            is no part of this one.
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
    """A causal language model with weights of no meaning yet."""
    if type(text_config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM.from_config(text_config, trust_remote_code=False)
    return TextDecoder(text_config)


def load_language_model(name_or_path: str, revision: str | None = None, **kwargs) -> PreTrainedModel:
    """
    Loads a causal language model, or of an image-text-to-text model (LLaVA, Qwen-VL, SmolVLM…) the language model alone.

    Args:
        name_or_path (`str`): repository or folder.
        revision (`str`, *optional*): commit.
        **kwargs: of `from_pretrained`: dtype, device_map, quantization_config…

    Raises:
        ValueError: There is a model, and it cannot be loaded, or only by running code of its repository.
        OSError: There is none.
    """
    hub = {name: kwargs[name] for name in ("cache_dir", "local_files_only", "token", "proxies") if name in kwargs}
    source = {"revision": revision or "main", "trust_remote_code": False}
    check_attention(kwargs.get("attn_implementation"))
    try:
        config = AutoConfig.from_pretrained(name_or_path, **source, **hub)
        for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
            check_attention(getattr(part, "_attn_implementation", None), "_attn_implementation")
        if config.get_text_config() is config:
            return AutoModelForCausalLM.from_pretrained(name_or_path, **source, **kwargs)
        return without_eyes(AutoModelForImageTextToText.from_pretrained(name_or_path, **source, **kwargs))
    except (OSError, ImportError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever transformers stumbles over in files that it does not check
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name_or_path} cannot be loaded as a language model: {reason}") from error


def check_reference(llm_name_or_path: str, model_name_or_path: str | os.PathLike) -> None:
    """
    Checks where a model says that its language model lives. A model from the Hub may name a repository there and nothing else;
    a folder may name another folder, which is said aloud. Code of either is never run.

    Raises:
        ModelFileError: It is neither.
    """
    path = os.path.join(model_name_or_path, "config.json")
    if not os.path.isdir(llm_name_or_path):
        try:
            validate_repo_id(llm_name_or_path)
        except ValueError as error:
            expected = "a repository on the Hub, or a folder that is there"
            raise ModelFileError(path, "llm_name_or_path", as_written(llm_name_or_path), expected) from error
    elif not os.path.isdir(model_name_or_path):
        expected = "a repository on the Hub, not a folder of this machine"
        raise ModelFileError(path, "llm_name_or_path", as_written(llm_name_or_path), expected)
    else:
        logger.warning("The language model is read from the folder %s, as %s says.", llm_name_or_path, path)


def why_not_loaded(error: Exception, name_or_path: str, revision: str | None) -> str:
    """Why a repository could not be loaded, and what to do, in a sentence; the library's own words where that is not known."""
    causes = []
    while error is not None:
        causes.append(error)
        error = error.__cause__ or error.__context__
    if any(isinstance(one, GatedRepoError) for one in causes):
        return (
            f"{name_or_path} is gated: accept its terms at {ENDPOINT}/{name_or_path}, and then log in with "
            "`hf auth login`, or set HF_TOKEN."
        )
    if any(isinstance(one, RevisionNotFoundError) for one in causes):
        return f"{name_or_path} has no commit {revision} any more: pass another, or ask who pushed the model."
    if any(isinstance(one, RepositoryNotFoundError) for one in causes):
        return (
            f"there is no repository {name_or_path}, or it is private: log in with `hf auth login`, or set HF_TOKEN."
        )
    if any(isinstance(one, LocalEntryNotFoundError | OfflineModeIsEnabled) for one in causes):
        return f"the Hub cannot be reached, and {name_or_path} is not in the cache."
    return str(causes[0])


def projected_layer(config: PreTrainedConfig) -> int | None:
    """The hidden state of its vision tower that a model of the LLaVA family projects; `None` of other models."""
    layer = getattr(config, "vision_feature_layer", None)
    return layer if isinstance(layer, int) else None


def load_vision_tower(name_or_path: str, revision: str | None = None, **kwargs) -> tuple[PreTrainedModel, int]:
    """
    Loads the visual encoder of a model of the LLaVA family.

    Args:
        name_or_path (`str`): repository or folder.
        revision (`str`, *optional*): commit.
        **kwargs: of `from_pretrained`: dtype…

    Returns:
        The encoder, and the hidden state of it that the projector reads.

    Raises:
        ValueError: the model has no vision tower with one such state.
    """
    model = AutoModelForImageTextToText.from_pretrained(
        name_or_path, revision=revision or "main", trust_remote_code=False, **kwargs
    )
    tower = next((m for name, m in model.named_modules() if name.endswith("vision_tower")), None)
    layer = projected_layer(model.config)
    if tower is None or layer is None:
        raise ValueError(
            f"{name_or_path}, a {model.config.model_type}, has no vision tower of which one hidden state is read."
        )
    return tower, layer


def visual_words(llm: PreTrainedModel, features: torch.Tensor) -> torch.Tensor:
    """
    Features of the vision tower as words of the language model (VT-LVLM-AR, section III.B).

    Args:
        llm (`PreTrainedModel`): as `load_language_model` gives it.
        features (`torch.Tensor` of shape `(num_features, feature_size)`).

    Returns:
        `torch.Tensor` of shape `(num_features, hidden_size)`, float32, as the frozen projector makes them.

    Raises:
        ValueError: the language model is none of the LLaVA family, or its projector reads features of another width.
    """
    projector = check_projector(llm, features.shape[-1])
    weight = projector.linear_1.weight
    with torch.no_grad():
        return projector(features.to(weight.device, weight.dtype)).float().to(features.device)


def check_projector(llm: PreTrainedModel, feature_size: int) -> VisualProjector:
    """The projector of a language model; `ValueError` where it has none that reads features of this width."""
    projector = getattr(llm, "projector", None)
    if projector is None:
        raise ValueError(
            f"visual event tokens become words by the projector of a LLaVA model, and this {llm.config.model_type} has none."
        )
    if projector.linear_1.in_features != feature_size:
        raise ValueError(
            f"the codebook has vectors of width {feature_size}, but the projector of the language model takes "
            f"{projector.linear_1.in_features}: train the action model on features of its own vision tower."
        )
    return projector


def without_eyes(model: PreTrainedModel) -> PreTrainedModel:
    """
    The text decoder and the head of an image-text-to-text model, with its projector beside them where that is LLaVA's; the
    weights are not copied, and those of what sees can go.

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


__all__ = [
    "LOADING_FLAGS",
    "TextDecoder",
    "VisualProjector",
    "check_projector",
    "check_reference",
    "fresh_language_model",
    "load_language_model",
    "load_vision_tower",
    "projected_layer",
    "visual_words",
    "why_not_loaded",
    "without_eyes",
]
