"""ActionLLM: a causal language model that reads sentences of action tokens (LLM-AR, section 3.2).

Three classes share the same weights:

- [`ActionLLMModel`], the base model, embeds text by the language model's own table and action words by the action table, and
  runs the language model's backbone. The weights and the vocabulary of the language model do not change.
- [`ActionLLMForConditionalGeneration`] adds the language model's head, for training with TRL and for explanations.
- [`ActionLLMForClassification`] scores class names: `logits` are log P(class name | prompt).
"""

import copy
import json
import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel, local_torch_dtype
from transformers.utils import ModelOutput
from transformers.utils.hub import cached_file

from .action_sentence import WordIds, token_distance
from .adapters import ADAPTER_FOLDER, has_adapter, load_adapter, save_adapter
from .calibration import CALIBRATION, Calibration, read_calibration
from .checked_config import check_attention, config_errors
from .class_names import check_class_names
from .compatibility import CACHE
from .configuration_action_llm import ActionLLMConfig
from .label_scoring import (
    PromptStart,
    label_trie,
    read_start,
    score_labels,
    score_similar,
    supports_label_trie,
)
from .language_models import (
    LOADING_FLAGS,
    VisualProjector,
    check_projector,
    check_reference,
    fresh_language_model,
    load_language_model,
    visual_words,
    why_not_loaded,
)
from .model_files import HUB_ARGUMENTS, ModelFileError
from .modeling_action_vqvae import ActionVQVAEModel
from .modeling_vst import VSTModel
from .modeling_vtem import VTEMModel
from .pipeline_action_recognition import ActionRecognitionPipeline
from .prefix_tuning import LayerPrefix
from .saved_weights import SavedWeights, doubt_numbers, weight_files
from .token_lexicon import read_lexicon

if TYPE_CHECKING:
    from .explanations import Explanation
    from .timelines import Timeline

# The action models, by their `model_type`.
ACTION_MODELS = {"action_vqvae": ActionVQVAEModel, "vst": VSTModel, "vtem": VTEMModel}
# Fields that distinguish language models of the same family.
LLM_SIZES = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")

LEXICON = "lexicon.json"

# A batch reads the text that all of its prompts begin with in a pass of its own if that saves at least this many tokens. On a
# CPU, a pass costs about as much as 20 tokens (measured with 135 million weights).
MIN_TOKENS_SAVED = 32

# The entry of `custom_pipelines` in config.json, by which `pipeline("action-recognition")` finds its class.
PIPELINE = {"impl": "pipeline_action_recognition.ActionRecognitionPipeline", "pt": ["AutoModel"], "type": "multimodal"}

# Arguments of `from_pretrained` that apply to the language model.
LLM_LOADING_ARGUMENTS = (
    "dtype",
    "torch_dtype",
    "device_map",
    "max_memory",
    "offload_folder",
    "offload_buffers",
    "attn_implementation",
    "quantization_config",
)


@dataclass
class ActionClassifierOutput(ModelOutput):
    """
    Output of [`ActionLLMForClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Cross-entropy over the class list, when `labels` are given.
        logits (`torch.FloatTensor` of shape `(batch_size, num_classes)`):
            log P(class name and end token | prompt), natural logarithm, float32.
        probabilities (`torch.FloatTensor` of shape `(batch_size, num_classes)`):
            Probabilities, normalised over the class list: each row sums to 1. If the model is calibrated, they have its
            temperature for a single version of a recording; `logits.softmax(-1)` are those without.
        action_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            The action sentences, if the inputs are recordings; of an action model with several codebooks, `(batch_size,
            num_tokens, num_codebooks)`. 0 where padded.
        action_attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            1 for tokens, 0 for padding.
        start_times (`torch.FloatTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Start of each token, in seconds from the start of the recording.
        end_times (`torch.FloatTensor` of shape `(batch_size, num_tokens)`, *optional*):
            End of each token, in seconds.
        run_lengths (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Number of equal tokens that were merged into this token, if the action model merges runs.
        token_distance (`torch.FloatTensor` of shape `(batch_size,)`, *optional*):
            Relative quantisation error of each recording, if the action model has a codebook; see
            [`~action_sentence.token_distance`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    probabilities: torch.FloatTensor | None = None
    action_ids: torch.LongTensor | None = None
    action_attention_mask: torch.LongTensor | None = None
    start_times: torch.FloatTensor | None = None
    end_times: torch.FloatTensor | None = None
    run_lengths: torch.LongTensor | None = None
    token_distance: torch.FloatTensor | None = None


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


class ActionEmbedding(nn.Module):
    """Embeds text and action words.

    Ids below `offset` are looked up in the language model's own table; id `offset + u` is row u of the action table. Next come
    the placeholder `<act>`, whose embedding is zero (its latent is passed separately), the soft prompts, and the words of
    several tokens, which are embedded as the sum of their rows.

    This module owns the action table. It only refers to the language model, whose table may be adapted or quantised.
    """

    def __init__(
        self,
        language_model: PreTrainedModel,
        num_action_tokens: int,
        width: int,
        offset: int,
        trainable: bool,
        num_soft_prompts: int = 0,
        word_ids: WordIds | None = None,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_action_tokens, width), requires_grad=trainable)
        self.soft_prompts = nn.Parameter(torch.empty(num_soft_prompts, width)) if num_soft_prompts else None
        self.offset = offset
        self.word_ids = word_ids
        # Not registered as a submodule, because it already is one of the base model.
        self.__dict__["language_model"] = language_model

    def __deepcopy__(self, memo):
        # PEFT copies layers that it trains fully; the language model must not be copied with this one.
        language_model = memo.get(id(self.language_model), self.language_model)
        copied = type(self)(
            language_model, *self.weight.shape, self.offset, self.weight.requires_grad, word_ids=self.word_ids
        )
        for name, weight in self.named_parameters():
            setattr(copied, name, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))
        return copied

    def forward(self, input_ids: torch.LongTensor) -> torch.Tensor:
        """Ids (batch_size, length) → embeddings (batch_size, length, width) in the language model's dtype."""
        text_table = self.language_model.get_input_embeddings()
        is_text = input_ids < self.offset
        text = text_table(torch.where(is_text, input_ids, 0))
        # A row of zeros for the placeholder.
        table = F.pad(self.weight, (0, 0, 0, 1))
        if self.soft_prompts is not None:
            table = torch.cat([table, self.soft_prompts])
        table, rows = table.to(text.device), input_ids - self.offset
        if self.word_ids is None:
            action = F.embedding(torch.where(is_text, 0, rows), table).to(text.dtype)
        else:
            is_word = input_ids >= self.word_ids.first
            action = F.embedding(torch.where(is_text | is_word, 0, rows), table)
            tokens = self.word_ids.tokens(torch.where(is_word, input_ids, self.word_ids.first))
            action = torch.where(is_word[..., None], F.embedding(tokens, table).sum(dim=-2), action).to(text.dtype)
        # Gemma scales the embeddings of its table; those of the action table are scaled like them.
        if (scale := getattr(text_table, "embed_scale", None)) is not None:
            action = action * scale.to(action.dtype)
        return torch.where(is_text.unsqueeze(-1), text, action)


class ActionLLMPreTrainedModel(SavedWeights, PreTrainedModel):
    """Loads and saves the language model, the action model, the action table and an adapter together."""

    config: ActionLLMConfig
    config_class = ActionLLMConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # A `token_lexicon.TokenEntry` for each token, if the repository has a lexicon.
    lexicon: list | None = None
    # Temperatures of the class probabilities, if the repository has a `calibration.json`.
    calibration: Calibration | None = None
    _skip_keys_device_placement = [CACHE]
    # Distances of the hyperbolic codebook need float32, whatever the dtype of the language model. Embeddings of words of
    # several tokens are summed in float32 and then rounded, as in training.
    _keep_in_fp32_modules_strict = ["action_model", "action_embedding"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module):
        if isinstance(module, ActionEmbedding):
            for weight in module.parameters():
                init.normal_(weight, std=getattr(self.config.text_config, "initializer_range", 0.02))
        elif isinstance(module, LayerPrefix):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=getattr(self.config.text_config, "initializer_range", 0.02))
            if module.bias is not None:
                init.zeros_(module.bias)

    def resize_token_embeddings(self, *args, **kwargs):
        raise NotImplementedError(
            f"{type(self).__name__} keeps the language model's vocabulary; action words have a table of their own."
        )

    def set_input_embeddings(self, value):
        raise NotImplementedError(
            f"{type(self).__name__} has two embedding tables: set the language model's by "
            "model.language_model.set_input_embeddings."
        )

    @classmethod
    def from_llm(
        cls,
        llm: PreTrainedModel,
        *,
        action_model: PreTrainedModel | None = None,
        action_table: torch.Tensor | None = None,
        class_names: Sequence[str] | None = None,
        **config_fields,
    ) -> Self:
        """Combines a language model and an action model.

        Args:
            llm (`PreTrainedModel`):
                A causal language model, or the text decoder of a vision-language model (`load_language_model`). It is not
                copied.
            action_model (`PreTrainedModel`, *optional*):
                The model that encodes recordings as action sentences. Its codebook becomes the action table; if its codes are
                visual features (VT-LVLM-AR), the language model's projector maps them to word embeddings.
            action_table (`torch.Tensor` of shape `(num_action_tokens, width)`, *optional*):
                The action table, if there is no action model, or the table differs from its codebook.
            class_names (`Sequence[str]`, *optional*):
                Names of the trained classes, in the order of their labels.
            **config_fields:
                Fields of [`ActionLLMConfig`]. `action_token_offset`, the length of the text tokenizer, is required. With
                `llm_name_or_path`, saving stores a reference to the language model instead of its weights.

        Raises:
            ValueError: if a required argument is missing, or the action table does not match the action model or the width of
                the language model.
        """
        class_names = None if class_names is None else check_class_names(class_names)
        if action_model is None and action_table is None:
            raise ValueError("from_llm needs an action_model or an action_table.")
        if "action_token_offset" not in config_fields:
            raise ValueError("from_llm needs action_token_offset, the length of the text tokenizer.")
        if None not in (action_model, action_table) and len(action_table) != action_model.config.num_action_tokens:
            raise ValueError(
                f"the action table has {len(action_table)} rows, but the action model has "
                f"{action_model.config.num_action_tokens} tokens."
            )
        reads_visual_features = action_model is not None and action_model.config.model_type == "vtem"
        table, reads_latents = action_table, config_fields.get("injection_layer") is not None
        # A model of continuous latents needs no action table.
        if table is None and not reads_latents:
            table = visual_words(llm, action_model.codebook) if reads_visual_features else action_model.codebook
        config = ActionLLMConfig(
            text_config=llm.config,
            action_config=None if action_model is None else action_model.config,
            num_action_tokens=action_model.config.num_action_tokens if table is None else len(table),
            codes_per_word=1 if action_model is None or reads_latents else action_model.config.num_codebooks,
            id2label=None if class_names is None else dict(enumerate(class_names)),
            label2id=None if class_names is None else {name: index for index, name in enumerate(class_names)},
            **config_fields,
        )
        width = llm.get_input_embeddings().weight.shape[1]
        if table is not None and table.shape[1] != width:
            raise ValueError(
                f"the action table has vectors of width {table.shape[1]}, but the words of the language model "
                f"have width {width}; train the action model with codebook_dim={width}."
            )
        _mark_initialized(llm, action_model)
        model = cls(config, llm=llm, action_model=action_model)
        if table is not None:
            model.base_model.action_embedding.weight.data = table.detach().float().clone()
        elif reads_visual_features:
            projector = check_projector(llm, action_model.config.codebook_dim)
            model.base_model.action_projector.load_state_dict(projector.state_dict())
            model._freeze_own_weights()
        if config.num_soft_prompts:  # the embeddings of words are a better start than noise
            words = llm.get_input_embeddings().weight
            shape = (config.num_soft_prompts,)
            chosen = torch.randint(min(config.action_token_offset, len(words)), shape, device=words.device)
            model.base_model.action_embedding.soft_prompts.data = words.detach()[chosen].float().clone()
        model._mirror_loading(llm)
        return model.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs) -> Self:
        """Loads the action model, the action table, the adapter and the language model, which may be a reference.

        `dtype`, `device_map`, `attn_implementation` and `quantization_config` apply to the language model; the action model
        is always float32. All other arguments are those of [`PreTrainedModel.from_pretrained`]. An `attn_implementation`
        with a slash is code from the Hub and is refused; pass it to `set_attn_implementation` of the loaded model instead.

        Raises:
            ModelFileError: if a file of the repository lacks something that the model needs.
            OSError: if a file or the language model is missing.
        """
        # Without a value, transformers would ask in the terminal whether to run code of the folder.
        kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        if (
            not isinstance(config, ActionLLMConfig)
            and getattr(config, "model_type", None) != ActionLLMConfig.model_type
        ):
            config = cls.config_class.from_pretrained(config or pretrained_model_name_or_path, **hub)
        if config.llm_name_or_path is None:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
            model = loaded[0] if isinstance(loaded, tuple) else loaded
        else:
            loaded = model = cls._from_referenced_llm(pretrained_model_name_or_path, config, hub, kwargs)
        model._freeze_own_weights()
        lexicon, calibration = (
            cached_file(pretrained_model_name_or_path, name, _raise_exceptions_for_missing_entries=False, **hub)
            for name in (LEXICON, CALIBRATION)
        )
        model.lexicon = None if lexicon is None else read_lexicon(lexicon, config.num_action_tokens)
        model.calibration = None if calibration is None else read_calibration(calibration)
        folder = os.path.join(hub.pop("subfolder", ""), ADAPTER_FOLDER)
        adapter = cached_file(
            pretrained_model_name_or_path,
            "adapter_config.json",
            subfolder=folder,
            _raise_exceptions_for_missing_entries=False,
            **hub,
        )
        if adapter is not None:
            # Files from the Hub are downloaded one by one.
            cached_file(pretrained_model_name_or_path, "adapter_model.safetensors", subfolder=folder, **hub)
            load_adapter(model, Path(adapter).parent, config.llm_name_or_path)
            doubt_numbers(model, Path(adapter).parent)
        return loaded

    @classmethod
    def _from_referenced_llm(cls, name_or_path, config, hub: dict, kwargs: dict):
        """Loads the language model from its own repository, and everything else from this one."""
        config = copy.deepcopy(config)
        check_reference(config.llm_name_or_path, name_or_path)
        check_attention(kwargs.get("attn_implementation"))
        paths = weight_files(name_or_path, kwargs.get("variant"), **hub)
        cls.check_files(name_or_path, config, paths, hub, cls._is_llm_key)
        llm_kwargs = {name: kwargs[name] for name in LLM_LOADING_ARGUMENTS if name in kwargs}
        source = {name: hub[name] for name in ("cache_dir", "local_files_only", "token", "proxies") if name in hub}
        try:
            llm = load_language_model(
                config.llm_name_or_path, config.llm_revision, config.llm_sha256, **source, **llm_kwargs
            )
        except OSError as error:
            reason = why_not_loaded(error, config.llm_name_or_path, config.llm_revision)
            raise OSError(f"the language model of {name_or_path} cannot be loaded: {reason}") from error
        expected, actual = (
            {name: getattr(part, name, None) for name in LLM_SIZES} for part in (config.text_config, llm.config)
        )
        if expected != actual:
            raise ValueError(
                f"{name_or_path} was trained with another language model than {config.llm_name_or_path}: "
                + ", ".join(
                    f"expected {name} {expected[name]}, got {actual[name]}"
                    for name in LLM_SIZES
                    if expected[name] != actual[name]
                )
                + "."
            )
        config.text_config = llm.config
        _mark_initialized(llm)
        model = cls(config, llm=llm)
        own_weights = {key: value for path in paths for key, value in load_file(path).items()}
        missing, unexpected = model.load_state_dict(own_weights, strict=False)
        missing = [key for key in missing if not model._is_llm_key(key)]
        if missing or unexpected:
            difference = f"missing {missing[:5]}, unexpected {unexpected[:5]}"
            expected = "exactly the weights of the model in config.json"
            raise ModelFileError(paths[0], (missing + unexpected)[0], difference, expected)
        doubt_numbers(model, name_or_path)
        model._mirror_loading(llm)
        device = llm.get_input_embeddings().weight.device
        for child in model._own_modules():
            child.to(device)
        return model.eval()

    def save_pretrained(self, save_directory, *args, state_dict: dict | None = None, **kwargs):
        """Saves config, action model, action table, adapter (in a subfolder) and code.

        The weights of the language model are saved only if it is not a reference, that is, if `config.llm_name_or_path` is
        `None`.
        """
        state_dict = self.state_dict() if state_dict is None else state_dict
        own = {}
        for key, value in state_dict.items():
            # PEFT renames the original weight of an adapted layer, and adds the trained weights.
            if ".lora_" not in key and ".modules_to_save." not in key:
                own[key.replace(".base_layer.", ".").replace(".original_module.", ".")] = value
        if self.config.llm_name_or_path is not None:
            own = {key: value for key, value in own.items() if not self._is_llm_key(key)}
        # Do not undo the renaming of weights that transformers remembers from loading an adapter.
        kwargs["save_original_format"] = False
        # If the code is saved too, the base class registers `AutoModel`; the rest is registered here.
        with_code = self._auto_class is not None
        if with_code:
            self.config.custom_pipelines = {"action-recognition": dict(PIPELINE)}
            if self.config.reads_videos:
                classes = {"AutoModelForVideoClassification": "modeling_action_llm.ActionLLMForClassification"}
                self.config.auto_map = {**(getattr(self.config, "auto_map", None) or {}), **classes}
        with self._plain():
            super().save_pretrained(save_directory, *args, state_dict=own, **kwargs)
        if with_code and kwargs.get("is_main_process", True):
            custom_object_save(ActionRecognitionPipeline, save_directory)
        if self.lexicon is not None and kwargs.get("is_main_process", True):
            entries = [entry.to_dict() for entry in self.lexicon]
            Path(save_directory, LEXICON).write_text(json.dumps(entries, ensure_ascii=False) + "\n", encoding="utf-8")
        if self.calibration is not None and kwargs.get("is_main_process", True):
            Path(save_directory, CALIBRATION).write_text(self.calibration.to_json(), encoding="utf-8")
        if has_adapter(self) and kwargs.get("is_main_process", True):
            save_adapter(self, Path(save_directory, ADAPTER_FOLDER), state_dict, self.config.llm_name_or_path)

    @contextmanager
    def _plain(self):
        """Hides quantisation, adapters and local paths while saving: they do not belong into this repository."""
        hidden = {
            name: self.__dict__.pop(name)
            for name in ("hf_quantizer", "_hf_peft_config_loaded")
            if name in self.__dict__
        }
        # The folders from which the parts were loaded must not be saved.
        text_config = self.config.text_config
        configs = [config for config in (self.config, text_config, self.config.action_config) if config is not None]
        names = [config._name_or_path for config in configs]
        for config in configs:
            config._name_or_path = ""
        # Whether a referenced language model is quantised is decided when it is loaded.
        quantized = text_config.__dict__.pop("quantization_config", None) if self.config.llm_name_or_path else None
        try:
            yield
        finally:
            self.__dict__.update(hidden)
            if quantized is not None:
                text_config.quantization_config = quantized
            for config, name in zip(configs, names, strict=True):
                config._name_or_path = name

    @staticmethod
    def _is_llm_key(key: str) -> bool:
        return key.startswith(("language_model.", "model.language_model.", "lm_head."))

    def _own_modules(self) -> list[nn.Module]:
        return [child for name, child in self.base_model.named_children() if name != "language_model"]

    def _freeze_own_weights(self):
        """Freezes the parts that the config freezes; needed after loading too, because `requires_grad` is not saved."""
        base = self.base_model
        base.action_embedding.weight.requires_grad_(self.config.train_action_embeddings)
        if base.action_model is not None:
            base.action_model.requires_grad_(False)
        if self.config.reads_visual_features and base.action_projector is not None:
            base.action_projector.requires_grad_(False)

    def _mirror_loading(self, llm: PreTrainedModel):
        """Copies the loading flags of the language model, so that Trainer, TRL and PEFT find them on this model."""
        for name in LOADING_FLAGS:
            if hasattr(llm, name):
                setattr(self, name, getattr(llm, name))
        if hasattr(llm, "hf_device_map"):
            prefix = llm.base_model_prefix
            self.hf_device_map = {
                key.replace(prefix, "model.language_model", 1) if key.startswith(prefix) else key: device
                for key, device in llm.hf_device_map.items()
            }


class ActionLLMModel(ActionLLMPreTrainedModel):
    """The embedding of text and action words, and the backbone of the language model.

    Args:
        config ([`ActionLLMConfig`]): the configuration.
        llm (`PreTrainedModel`, *optional*): a causal language model; without it, a new one is initialised.
        action_model (`PreTrainedModel`, *optional*): an action model; without it, a new one is initialised.
    """

    def __init__(
        self, config: ActionLLMConfig, llm: PreTrainedModel | None = None, action_model: PreTrainedModel | None = None
    ):
        super().__init__(config)
        # The language model comes first: `config.dtype` is the dtype of the first parameter.
        if llm is None:
            with config_errors("text_config", "a configuration of a language model"):
                self.language_model = AutoModel.from_config(config.text_config, trust_remote_code=False)
        else:
            self.language_model = llm.base_model
        width = config.text_config.hidden_size
        self.action_embedding = ActionEmbedding(
            self.language_model,
            config.num_action_tokens,
            width,
            config.action_token_offset,
            config.train_action_embeddings,
            config.num_soft_prompts,
            config.word_ids,
        )
        if action_model is None and config.action_config is not None:
            # A visual encoder computes tables when it is built. They must be float32, not of the language model's dtype.
            with config_errors("action_config"), local_torch_dtype(torch.float32):
                action_model = ACTION_MODELS[config.action_config.model_type](config.action_config)
        self.action_model = action_model
        self.action_projector = None
        if config.injection_layer is not None:
            if config.action_config is None:
                raise ValueError("injection_layer needs action_config: the latents come from the action model.")
            projector = VisualProjector if config.reads_visual_features else nn.Linear
            self.action_projector = projector(config.action_config.codebook_dim, width)
            self._injected = None
            if config.injection_layer > 0:
                layer = decoder_layers(self.language_model)[config.injection_layer]
                layer.register_forward_pre_hook(self._inject, with_kwargs=True)
        self.prefix = None
        if config.prefix_length:
            self.prefix = LayerPrefix(config.text_config, config.prefix_length, config.prefix_layers)
            self.prefix.attach(self.language_model)
        if action_model is not None:
            action_model.requires_grad_(False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.action_embedding

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        action_embeds: torch.FloatTensor | None = None,
        action_embeds_mask: torch.LongTensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
                Ids of text (below `action_token_offset`), of action words, and of placeholders.
            action_embeds (`torch.FloatTensor` of shape `(batch_size, num_tokens, codebook_dim)`, *optional*):
                Continuous latents, one for each placeholder `<act>`, in order (LLM-AR, Table 5).
            action_embeds_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                1 for latents, 0 for padding.
            **kwargs:
                Other arguments of the language model's backbone: its key-value cache (`cache`, or `past_key_values` before
                transformers 5.24), `use_cache`, `output_hidden_states`…
        """
        if inputs_embeds is None:
            inputs_embeds = self.action_embedding(input_ids)
        if self.action_projector is not None:
            # Kept until the next forward: gradient checkpointing runs the layer again in the backward pass, with the same
            # vectors.
            self._injected = None
            if action_embeds is not None:
                vectors, places = self._latents_at_placeholders(input_ids, action_embeds, action_embeds_mask)
                if self.config.injection_layer == 0:
                    inputs_embeds = inputs_embeds.masked_scatter(places, vectors.to(inputs_embeds.dtype))
                else:
                    self._injected = (vectors, places)
        elif action_embeds is not None:
            raise ValueError(
                "this model reads discrete words, but got action_embeds: set injection_layer in its config to use latents."
            )
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )

    def _latents_at_placeholders(self, input_ids, action_embeds, mask):
        """Projected latents (num_latents, width), and the mask (batch_size, length, 1) of their placeholders."""
        if input_ids is None:
            raise ValueError("action_embeds need input_ids: they replace the placeholders <act>.")
        places = input_ids == self.config.placeholder_token_id
        latents = action_embeds.flatten(0, 1) if mask is None else action_embeds[mask.bool()]
        if int(places.sum()) != latents.shape[0]:
            raise ValueError(
                f"expected one latent for each placeholder <act>, got {int(places.sum())} placeholders and "
                f"{latents.shape[0]} latents."
            )
        vectors = self.action_projector(latents.to(next(self.action_projector.parameters()).dtype))
        return vectors, places.unsqueeze(-1)

    def _inject(self, layer, args, kwargs):
        """Pre-forward hook of `layer`: replaces the hidden states at the placeholders by the latents."""
        if self._injected is None:
            return None
        vectors, places = self._injected
        hidden_states = args[0] if args else kwargs["hidden_states"]
        hidden_states = hidden_states.masked_scatter(
            places.to(hidden_states.device), vectors.to(hidden_states.device, hidden_states.dtype)
        )
        if args:
            return (hidden_states, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden_states}

    def write_sentences(self, input_ids, attention_mask, **features):
        """Encodes recordings, and replaces the placeholder `<act>` of each prompt by the action sentence.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`): prompts with one placeholder each.
            attention_mask (`torch.LongTensor` of shape `(batch_size, length)`): 1 for tokens, 0 for padding.
            **features: features of the recordings from the feature extractor; see `encode` of the action model.

        Returns:
            `tuple`: the action model's output, and a dict with `input_ids` and `attention_mask` of the completed prompts,
            left-padded. For continuous latents, the dict also has `action_embeds` and `action_embeds_mask`.

        Raises:
            ValueError: if the model has no action model, or a prompt does not have exactly one placeholder.
        """
        if self.action_model is None:
            raise ValueError(
                "this model has no action model (config.action_config is None), so it cannot read recordings: pass encoded "
                "sentences instead."
            )
        with torch.no_grad():
            sentence = self.action_model.encode(**features)
        counts = (input_ids == self.config.placeholder_token_id).sum(1)
        if (counts != 1).any():
            raise ValueError(
                f"each prompt needs one placeholder <act> (id {self.config.placeholder_token_id}), got {counts.tolist()}: use "
                "the processor of this model."
            )
        prompts = []
        for index, (row, row_mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            row, ids = row[row_mask.bool()], self._words(sentence, index)
            place = int((row == self.config.placeholder_token_id).nonzero())
            prompts.append(torch.cat([row[:place], ids, row[place + 1 :]]))
        length = max(len(prompt) for prompt in prompts)
        written = {
            "input_ids": torch.stack([F.pad(p, (length - len(p), 0), value=0) for p in prompts]),
            "attention_mask": torch.stack([F.pad(torch.ones_like(p), (length - len(p), 0), value=0) for p in prompts]),
        }
        if self.action_projector is not None:
            written |= {"action_embeds": sentence.latents, "action_embeds_mask": sentence.attention_mask}
        return sentence, written

    def _words(self, sentence, index: int) -> torch.LongTensor:
        """Ids of the words of sentence `index` of a batch."""
        mask = sentence.attention_mask[index].bool()
        if self.action_projector is not None:  # each continuous latent replaces a placeholder
            return torch.full_like(sentence.attention_mask[index][mask], self.config.placeholder_token_id)
        ids = sentence.action_ids[index][mask]
        if self.config.word_ids is not None:
            return self.config.word_ids.of_tokens(ids)
        ids = ids + self.config.action_token_offset
        numbers = self.config.run_length_ids
        if numbers is None:
            return ids
        lengths = sentence.run_lengths[index][mask].tolist()
        words = [
            word for token, length in zip(ids.tolist(), lengths, strict=True) for word in (token, *numbers[length - 1])
        ]
        return torch.tensor(words, device=ids.device)


class ActionLLMForConditionalGeneration(ActionLLMPreTrainedModel, GenerationMixin):
    """ActionLLM with the language model's own head, for training with TRL and for writing explanations.

    The head has no columns for action words, so the model cannot generate them.
    """

    def __init__(
        self, config: ActionLLMConfig, llm: PreTrainedModel | None = None, action_model: PreTrainedModel | None = None
    ):
        super().__init__(config)
        if llm is None:
            with config_errors("text_config", "a configuration of a language model"):
                llm = fresh_language_model(config.text_config)
        self.model = ActionLLMModel(config, llm=llm, action_model=action_model)
        self.lm_head = llm.get_output_embeddings()
        if config.tie_word_embeddings:
            table = llm.get_input_embeddings().weight
            name = next(name for name, p in self.model.language_model.named_parameters() if p is table)
            self._tied_weights_keys = {"lm_head.weight": f"model.language_model.{name}"}
        self.post_init()
        # The ids behind the text, in a padded head, would be read as action words.
        padded = range(config.action_token_offset, self.lm_head.weight.shape[0])
        if padded:
            self.generation_config.suppress_tokens = list(padded)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        action_embeds: torch.FloatTensor | None = None,
        action_embeds_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        r"""
        Args:
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Ids of the tokens to predict; -100 is ignored (LLM-AR, Eq. 13).
            logits_to_keep (`int` or `torch.Tensor`, defaults to 0):
                Number of positions at the end, or indices of positions, for which logits are computed; 0 for all.

        See [`ActionLLMModel`] for the other arguments.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            action_embeds=action_embeds,
            action_embeds_mask=action_embeds_mask,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = text_logits(self.lm_head(outputs.last_hidden_state[:, keep]), self.config.text_config)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **{CACHE: outputs.get(CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(self, input_ids, is_first_iteration=False, **kwargs):
        # Latents are read with the prompt. In later steps, they are in the cache.
        if not is_first_iteration:
            kwargs.pop("action_embeds", None)
            kwargs.pop("action_embeds_mask", None)
        return super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)

    def as_classifier(self) -> "ActionLLMForClassification":
        """The same weights as a classifier: nothing is copied."""
        return _same_weights(self, ActionLLMForClassification)


class ActionLLMForClassification(ActionLLMForConditionalGeneration):
    """Recognises actions: `logits` are log P(class name | prompt), for any list of class names.

    It has the weights of [`ActionLLMForConditionalGeneration`], under the same names, and its `generate`.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
    _auto_class = "AutoModel"

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        label_ids: torch.LongTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        feature_attention_mask: torch.LongTensor | None = None,
        frame_rate: torch.FloatTensor | None = None,
        start_time: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        action_embeds: torch.FloatTensor | None = None,
        action_embeds_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        method: str = "auto",
    ) -> ActionClassifierOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
                Prompts, left-padded. With recordings, each has one placeholder `<act>` in place of its sentence.
            attention_mask (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                1 for tokens, 0 for padding; by default, nothing is padding.
            label_ids (`torch.LongTensor` of shape `(num_classes, label_length)`):
                Ids of each class name and its end token, as they follow the prompt; -100 for padding.
            input_features (`torch.FloatTensor` of shape `(batch_size, num_frames, num_channels)`, *optional*):
                Skeletons, as [`SkeletonFeatureExtractor`] returns them, with `feature_attention_mask`, `frame_rate` and
                `start_time`.
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_segments, frames, 3, height, width)`, *optional*):
                Videos, as [`VideoFeatureExtractor`] returns them, with `feature_attention_mask` and `frame_rate`.
            action_embeds, action_embeds_mask:
                See [`ActionLLMModel`].
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Index of the true class, for the loss.
            method (`"auto"`, `"trie"` or `"cache"`, defaults to `"auto"`):
                How class names are scored; all methods give the same result (see [`score_labels`]).
        """
        names, prompts, base_kwargs, sentence = self._read(
            input_ids,
            attention_mask,
            label_ids,
            {"action_embeds": action_embeds, "action_embeds_mask": action_embeds_mask},
            input_features=input_features,
            feature_attention_mask=feature_attention_mask,
            frame_rate=frame_rate,
            start_time=start_time,
            pixel_values=pixel_values,
        )
        start = None
        if method != "cache":
            start, prompts = self._without_shared_text(prompts)
        logits = score_labels(
            self.model,
            self._head,
            self.config.text_config,
            prompts["input_ids"],
            prompts["attention_mask"],
            names,
            method=method,
            base_kwargs=base_kwargs,
            start=start,
        )
        if not self.training and logits.isnan().any():
            raise ValueError(
                f"the scores of {self.config.name_or_path or type(self).__name__} are NaN: its weights are damaged, or too "
                "large for their dtype."
            )
        return ActionClassifierOutput(
            loss=None if labels is None else F.cross_entropy(logits, labels),
            logits=logits,
            probabilities=self.calibrated(logits),
            action_ids=None if sentence is None else sentence.action_ids,
            action_attention_mask=None if sentence is None else sentence.attention_mask,
            start_times=None if sentence is None else sentence.start_times,
            end_times=None if sentence is None else sentence.end_times,
            run_lengths=None if sentence is None else sentence.get("run_lengths"),
            token_distance=None if sentence is None else token_distance(sentence),
        )

    def calibrated(self, log_probabilities: torch.Tensor, versions: int = 1) -> torch.Tensor:
        """Class probabilities with the temperature of this model, or, if it is not calibrated, without.

        Args:
            log_probabilities (`torch.Tensor` of shape `(..., num_classes)`): log-probabilities of the classes, such as
                `logits`; of several versions of a recording, logarithms of their mean probabilities without temperature.
            versions (`int`, defaults to 1): number of versions that were averaged.
        """
        temperature = 1.0 if self.calibration is None else self.calibration.temperature(versions)
        return (log_probabilities / temperature).softmax(dim=-1)

    @torch.no_grad()
    def log_probability(
        self,
        index: int,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        label_ids: torch.LongTensor | None = None,
    ) -> torch.FloatTensor:
        """log P(class | prompt) of a single class, for encoded sentences that begin alike, such as a sentence with each of its
        words left out in turn. It is that of `logits.log_softmax(-1)`; each beginning is read once.

        Args:
            index (`int`): the class, a row of `label_ids`.
            input_ids, attention_mask, label_ids: as in `forward`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size,)`: natural logarithms, normalised over the class list.
        """
        names, prompts, _, _ = self._read(input_ids, attention_mask, label_ids, {"action_embeds": None})
        names, index = names.along(index)
        scores = score_similar(
            self.model,
            self._head,
            self.config.text_config,
            prompts["input_ids"],
            prompts["attention_mask"],
            names,
        )
        return scores.log_softmax(-1)[:, index]

    def explain(self, processor, outputs: ActionClassifierOutput, index: int = 0, **settings) -> "Explanation":
        """Explains the answer for a recording: label, probabilities, and a reason that can be checked.

        ```python
        recording = processor.feature_extractor.read("clip.skeleton")
        outputs = model(**processor(recording))
        reason = model.explain(processor, outputs, recording=recording)
        ```

        Args:
            processor ([`ActionLLMProcessor`]): the processor of this model.
            outputs ([`ActionClassifierOutput`]): outputs of this model for recordings.
            index (`int`, defaults to 0): index of the recording in the batch.
            **settings: arguments of [`~explanations.explain`]. With a skeleton's `recording`, the text describes the movement.

        Returns:
            `Explanation` with `label`, `probability`, `probabilities`, `text`, `evidence` and, if the model was trained to
            describe recordings, `description`.

        Raises:
            ValueError: if the model reads continuous latents, or the outputs are those of encoded sentences.
        """
        from .explanations import check_explains, explain, sentence_of

        check_explains(self)
        if outputs.action_ids is None:
            raise ValueError(
                "outputs have no action tokens: pass the outputs of recordings, not of encoded sentences."
            )
        words, times = sentence_of(outputs, index, processor.run_lengths)
        log_probabilities = outputs.logits[index].detach().float().log_softmax(-1).cpu()
        return explain(self, processor, words, log_probabilities, times=times, **settings)

    def timeline(self, processor, recording, **settings) -> "Timeline":
        """Recognises which actions happen in a long video, and when, by a window that slides over its visual events.

        Args:
            processor ([`ActionLLMProcessor`]): the processor of this model.
            recording: a video of any length, in any form that the feature extractor reads.
            **settings: arguments of [`~timelines.timeline`].

        Returns:
            `Timeline` with class probabilities along the video, `spans()` and the events.
        """
        from .timelines import timeline

        return timeline(self, processor, recording, **settings)

    def _head(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return text_logits(self.lm_head(hidden_states), self.config.text_config)

    def _read(self, input_ids, attention_mask, label_ids, latents, **features):
        """The trie of class names, the prompts with their sentences, the latents, and the action model's output for
        recordings (else None)."""
        if label_ids is None:
            raise ValueError("label_ids are missing: pass the ids of the class names, as the processor returns them.")
        names = label_trie(
            tuple(tuple(token for token in row if token != -100) for row in label_ids.tolist()),
            constrained=self.config.constrained_scoring,
        )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        sentence, prompts = None, {"input_ids": input_ids, "attention_mask": attention_mask}
        features = {name: values for name, values in features.items() if values is not None}
        if "input_features" in features or "pixel_values" in features:
            sentence, prompts = self.model.write_sentences(input_ids, attention_mask, **features)
        elif (input_ids == self.config.placeholder_token_id).any() and self.model.action_projector is None:
            raise ValueError("the prompt has a placeholder <act>, but no recording was passed to replace it.")
        if latents["action_embeds"] is None:
            latents = {name: prompts[name] for name in latents if name in prompts}
        return names, prompts, latents, sentence

    def _without_shared_text(
        self, prompts: dict[str, torch.Tensor]
    ) -> tuple[PromptStart | None, dict[str, torch.Tensor]]:
        """The text before the action sentences, read once for all prompts of a batch, and the prompts without it.

        `None` and unchanged prompts if they do not begin with the same text, or little would be saved. Nothing is kept for the
        next batch: its weights may differ, and not every way to write weights leaves a trace.
        """
        text_config = self.config.text_config
        ids, is_token = prompts["input_ids"], prompts["attention_mask"].bool()
        if (
            self.training
            or torch.is_grad_enabled()
            or not supports_label_trie(text_config, text_config._attn_implementation)
        ):
            return None, prompts
        placeholder = self.config.placeholder_token_id
        is_soft_prompt = (ids > placeholder) & (ids <= placeholder + self.config.num_soft_prompts)
        is_text = (ids < self.config.action_token_offset) | is_soft_prompt
        lengths = is_token.sum(-1)
        shared = ((is_text | ~is_token).cumprod(-1).bool() & is_token).sum(-1)
        first = ids[0, is_token[0]][: int(shared.min())]
        places = (ids.shape[1] - lengths)[:, None] + torch.arange(len(first), device=ids.device)
        is_shared = (ids.gather(1, places) == first).all(0)
        first = first[: int(is_shared.cumprod(0).sum())]
        # A prompt without a sentence is text to its end.
        if (len(ids) - 1) * len(first) < MIN_TOKENS_SAVED or (shared == lengths).any():
            return None, prompts
        start = read_start(self.model, first)
        if start is None:
            return None, prompts
        longest = int(lengths.max()) - len(first)
        mask = prompts["attention_mask"] * (is_token.cumsum(-1) > len(first))
        return start, {**prompts, "input_ids": ids[:, -longest:], "attention_mask": mask[:, -longest:]}

    def as_generator(self) -> ActionLLMForConditionalGeneration:
        """The same weights as a language model: nothing is copied."""
        return _same_weights(self, ActionLLMForConditionalGeneration)

    def generate(self, *args, **kwargs):
        """Generates text after a prompt; see [`~transformers.GenerationMixin.generate`]."""
        return self.as_generator().generate(*args, **kwargs)


def _same_weights(model: ActionLLMPreTrainedModel, cls: type) -> ActionLLMPreTrainedModel:
    """A view of `model` as another class with the same weights."""
    view = cls.__new__(cls)
    # A trainer may have replaced `forward` on the instance; that one belongs to the trained class.
    view.__dict__.update({name: value for name, value in model.__dict__.items() if name != "forward"})
    return view


def _mark_initialized(*models: PreTrainedModel | None):
    """Marks models as initialised, so that the model that contains them does not initialise them again."""
    for model in models:
        for module in [] if model is None else model.modules():
            module._is_hf_initialized = True


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
    "ActionClassifierOutput",
    "ActionLLMForClassification",
    "ActionLLMForConditionalGeneration",
    "ActionLLMModel",
    "ActionLLMPreTrainedModel",
]
