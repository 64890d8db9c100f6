"""Loading and saving of ActionLLM: language model, action model, action table and adapter together."""

import copy
import json
import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.hub import cached_file

from .action_embedding import ActionEmbedding
from .adapters import ADAPTER_FOLDER, has_adapter, load_adapter, save_adapter
from .calibration import CALIBRATION, Calibration, read_calibration
from .checked_config import check_attention
from .class_names import check_class_names
from .compatibility import CACHE
from .configuration_action_llm import ActionLLMConfig
from .language_models import (
    LOADING_FLAGS,
    check_projector,
    check_reference,
    load_language_model,
    visual_words,
    why_not_loaded,
)
from .model_files import HUB_ARGUMENTS, ModelFileError
from .pipeline_action_recognition import ActionRecognitionPipeline
from .prefix_tuning import LayerPrefix
from .saved_weights import SavedWeights, doubt_numbers, weight_files
from .token_lexicon import read_lexicon

# Fields that distinguish language models of the same family.
LLM_SIZES = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")

LEXICON = "lexicon.json"

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


def _mark_initialized(*models: PreTrainedModel | None):
    """Marks models as initialised, so that the model that contains them does not initialise them again."""
    for model in models:
        for module in [] if model is None else model.modules():
            module._is_hf_initialized = True


__all__ = ["ActionLLMPreTrainedModel"]
