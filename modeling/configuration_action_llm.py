"""Configuration of ActionLLM: a language model that reads sentences of action tokens."""

from typing import ClassVar

from transformers import AutoConfig

from .action_sentence import WordIds
from .checked_config import CheckedConfig, ConfigError, config_errors, strict
from .compatibility import PreTrainedConfig, SubConfigSpec
from .configuration_action_vqvae import ActionVQVAEConfig
from .configuration_vst import VSTConfig
from .configuration_vtem import VTEMConfig

# The configurations of action models, by their `model_type`.
ACTION_CONFIGS = {"action_vqvae": ActionVQVAEConfig, "vst": VSTConfig, "vtem": VTEMConfig}


@strict
class ActionLLMConfig(CheckedConfig):
    r"""
    Configuration of [`ActionLLMForClassification`] and [`ActionLLMForConditionalGeneration`].

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*, defaults to a `LlamaConfig`):
            Configuration of the causal language model that reads the action sentence.
        action_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the action model, which encodes recordings as action sentences; its `model_type` is
            `"action_vqvae"`, `"vst"` or `"vtem"`. `None` for a model that reads only encoded sentences.
        llm_name_or_path (`str`, *optional*):
            Repository, folder or GGUF file of the language model, if it is stored elsewhere; see
            [`~language_models.load_language_model`]. `None` if its weights are in this repository.
        llm_revision (`str`, *optional*):
            Commit of the referenced language model.
        llm_sha256 (`str`, *optional*):
            SHA-256 of the referenced GGUF file. A file with another one is not loaded.
        action_token_offset (`int`, defaults to 32000):
            Id of the word `<act_0>`. It is the length of the text tokenizer, not the number of rows of the language
            model's embedding table, which may be padded.
        num_action_tokens (`int`, defaults to 512):
            Number U of action tokens of all codebooks (LLM-AR). `<act_u>` has the id `action_token_offset + u`; the
            placeholder `<act>` has the id `action_token_offset + num_action_tokens`.
        codes_per_word (`int`, defaults to 1):
            Number R of tokens, one from each codebook, whose embeddings are summed to a word of the sentence
            ([`~action_sentence.WordIds`]). 1 in all three papers.
        train_action_embeddings (`bool`, defaults to `False`):
            Whether the action table is trained with the language model. If it is frozen, its rows are the codes.
        injection_layer (`int`, *optional*):
            LLM-AR, Table 5, without discretisation: before this decoder layer, projected continuous latents replace the
            hidden states at the `<act>` placeholders (0: the input embedding). `None`: the model reads discrete words.
        prefix_length (`int`, defaults to 0):
            Number of prompts in layers, P-Tuning v2 (VT-LVLM-AR, section III.C: 16). 0: no prompts.
        prefix_layers (`list[int]`, *optional*):
            Indices of the layers with prompts; by default the last 9 of 32, and the same share of other depths.
        num_soft_prompts (`int`, defaults to 0):
            Number of soft prompts at the input (VT-LVLM-AR, Eq. 5): trained embeddings, whose ids follow that of `<act>`.
        run_length_ids (`list[list[int]]`, *optional*):
            Text ids of the numbers 1, 2, …, to write the length of each run after its token
            ([`~ActionLLMProcessor.run_length_ids`]). `None`: lengths are not written.
        constrained_scoring (`bool`, defaults to `False`):
            Whether class names are scored by constrained decoding: each step is renormalised over the tokens that can
            continue a class name. If `False`, a name is scored among all texts, and the scores are then normalised over
            the class list (VT-LVLM-AR, Eq. 7).
    """

    model_type = "action_llm"
    _auto_class: ClassVar[str] = "AutoConfig"
    renamed_fields = {"restrict_names": "constrained_scoring"}
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}

    text_config: dict | PreTrainedConfig | None = None
    action_config: dict | PreTrainedConfig | None = None
    llm_name_or_path: str | None = None
    llm_revision: str | None = None
    llm_sha256: str | None = None
    action_token_offset: int = 32000
    num_action_tokens: int = 512
    codes_per_word: int = 1
    train_action_embeddings: bool = False
    injection_layer: int | None = None
    prefix_length: int = 0
    prefix_layers: list[int] | None = None
    num_soft_prompts: int = 0
    run_length_ids: list[list[int]] | None = None
    constrained_scoring: bool = False
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if isinstance(self.action_config, dict):
            model_type = self.action_config.get("model_type")
            if model_type not in ACTION_CONFIGS:
                expected = f"one of {sorted(ACTION_CONFIGS)}"
                message = f"ActionLLMConfig.action_config has model_type {model_type!r}; expected {expected}."
                raise ConfigError("action_config.model_type", repr(model_type), expected, message)
            with config_errors("action_config"):
                self.action_config = ACTION_CONFIGS[model_type](**self.action_config)
        # A loaded language model has an attention implementation already. The base class would reset it, and without an
        # implementation, attention runs without a causal mask.
        attention = getattr(self.text_config, "_attn_implementation", None)
        if attention is not None:
            kwargs.setdefault("attn_implementation", attention)
        super().__post_init__(**kwargs)
        # The language model determines whether the head is tied.
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))

    def validate_action_words(self):
        """Action words need a text tokenizer before them, and ids of run lengths must be text ids."""
        if self.action_token_offset < 1:
            raise ValueError(
                f"`action_token_offset` must be the length of the text tokenizer, got {self.action_token_offset}."
            )
        self.check_sizes("num_action_tokens")
        _ = self.word_ids  # raises an error if the words do not fit the codebooks
        if self.run_length_ids is not None:
            if self.codes_per_word > 1:
                raise ValueError(
                    "`run_length_ids` must be None with `codes_per_word` above 1: lengths are written after single tokens."
                )
            if self.action_config is not None and not getattr(self.action_config, "merge_runs", False):
                raise ValueError(
                    "`run_length_ids` must be None if the action model does not merge equal tokens, got lengths."
                )
            ids = [token for number in self.run_length_ids for token in number]
            if not all(self.run_length_ids) or not all(0 <= token < self.action_token_offset for token in ids):
                raise ValueError(f"`run_length_ids` must be text ids for each number, got {self.run_length_ids}.")

    def validate_action_model(self):
        """The language model must have an embedding for every token of the action model."""
        action = self.action_config
        if action is None:
            return
        if action.num_action_tokens != self.num_action_tokens:
            raise ValueError(
                f"`num_action_tokens` must be the {action.num_action_tokens} tokens of the action model, got "
                f"{self.num_action_tokens}."
            )
        if self.injection_layer is None and not (action.quantize and action.num_codebooks == self.codes_per_word):
            codebooks = action.num_codebooks if action.quantize else "no"
            raise ValueError(
                f"`codes_per_word` is {self.codes_per_word}, but the action model has {codebooks} codebooks: set it to their "
                "number, or `injection_layer` for a model without a codebook."
            )

    def validate_prefix(self):
        """The numbers of prompts must not be negative, and `prefix_layers` needs prompts."""
        self.check_not_negative("prefix_length", "num_soft_prompts")
        if self.prefix_layers is not None and not self.prefix_length:
            raise ValueError(
                f"`prefix_layers` is {self.prefix_layers}, but `prefix_length` is 0: set it to the number of prompts."
            )

    def validate_injection_layer(self):
        """The injection layer must exist."""
        num_layers = getattr(self.text_config, "num_hidden_layers", None)
        if self.injection_layer is not None and num_layers is not None and not 0 <= self.injection_layer < num_layers:
            raise ValueError(
                f"injection_layer is {self.injection_layer}, but the language model has the layers 0 to {num_layers - 1}."
            )

    @property
    def reads_videos(self) -> bool:
        """Whether recordings are videos (else skeletons)."""
        return self.action_config is not None and self.action_config.model_type != ActionVQVAEConfig.model_type

    @property
    def reads_visual_features(self) -> bool:
        """Whether codes are features that the language model's own, frozen projector maps to word embeddings (VT-LVLM-AR)."""
        return self.action_config is not None and self.action_config.model_type == VTEMConfig.model_type

    @property
    def word_ids(self) -> WordIds | None:
        """Ids of words of several tokens; `None` if a word is a single token."""
        if self.codes_per_word == 1:
            return None
        first = self.placeholder_token_id + 1 + self.num_soft_prompts
        return WordIds(self.action_token_offset, first, self.codes_per_word, self.num_action_tokens)

    @property
    def placeholder_token_id(self) -> int:
        """Id of `<act>`, the placeholder for an action sentence or for a continuous latent."""
        return self.action_token_offset + self.num_action_tokens


__all__ = ["ActionLLMConfig"]
