"""Configuration of the Video-to-Semantic-Tokens module, which turns videos into action sentences (LVLM-VAR, section 3.1)."""

from typing import ClassVar, Literal

from transformers import AutoConfig

from .checked_config import strict
from .compatibility import PreTrainedConfig, SubConfigSpec
from .video_action_config import VideoActionConfig


@strict
class VSTConfig(VideoActionConfig):
    r"""
    Configuration of [`VSTModel`]. The defaults are those of LVLM-VAR (section 4.1) and, where it is silent, of this project,
    for Swin Transformer V2 and LLaVA-13B.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*, defaults to a `Swinv2Config`):
            Configuration of the visual encoder: any transformers model of pictures (Swin V2; ResNet-50, Table 2) or of
            clips (VideoMAE, V-JEPA 2), or the [`ResNet3DModel`] of this project.
        feature_size (`int`, defaults to 768):
            Width of the visual encoder's features.
        hidden_size (`int`, defaults to 512), num_layers (`int`, defaults to 2), num_heads (`int`, defaults to 8),
        intermediate_size (`int`, defaults to 2048), dropout (`float`, defaults to 0.1):
            The temporal self-attention, and its mirror image that reconstructs features.
        codebook_dim (`int`, defaults to 5120):
            Width of the codes: the word embedding width of the language model that is to read them.
        codebook_size (`int`, defaults to 512):
            Number K of semantic action tokens (LVLM-VAR, Table 6).
        latent_norm (`float`, defaults to 1.0):
            Norm of every latent: nothing else would keep the contrastive terms, which see directions alone, from letting
            latents run away from their codes. Losses between latents and codes are means over channels of root mean square 1.
        num_roles (`int`, defaults to 1):
            Parts of the codebook, one for each semantic role. With R > 1 every segment is R tokens, one of each part: the
            features are projected R times. Tokens r K/R to (r + 1) K/R − 1 are those of role r.
        merge_runs (`bool`, defaults to `True`):
            Whether equal tokens that follow each other become one, whose time is that of all.
        quantize (`bool`, defaults to `True`):
            `False`: no codebook; the sentence is one continuous latent a segment.
        direct (`bool`, defaults to `False`):
            Direct feature projection (LVLM-VAR, Table 2, "w/o VST"): latents are the standardised features themselves, and
            nothing is trained here. Needs `quantize=False`, and `codebook_dim` equal to `feature_size`.
        codebook_training (`"gradient"` or `"ema"`, defaults to `"gradient"`), kmeans_init (`bool`, defaults to `False`),
        ema_decay (`float`, defaults to 0.99), dead_code_threshold (`float`, defaults to 0.0),
        codebook_init_norm (`float`, defaults to 1.0):
            As of [`ActionVQVAEConfig`].
        reconstruction_weight, embedding_weight (`float`, default to 1.0), commitment_weight (`float`, defaults to 0.02):
            Weights of the mean squared errors between features and their reconstruction, and between latents and codes.
        consistency_weight (`float`, defaults to 0.1):
            Weight of the temporal consistency: InfoNCE between latents of the two halves of a segment's frames, or of
            neighbouring segments where a segment has one feature.
        consistency_distance (`int`, defaults to 4):
            Segments of the same video are negatives when they are further away than this.
        alignment_weight (`float`, defaults to 0.1):
            Weight of the semantic alignment: InfoNCE between a video's mean token and the frozen text embeddings of the
            class names in the batch.
        contrast_temperature (`float`, defaults to 0.1):
            Of both.
        familiar_distance (`float`, *optional*):
            As of [`ActionVQVAEConfig`].

    Raises:
        ConfigError (a `ValueError`): a field of the wrong type, a value out of range, or a name that is no field.
    """

    model_type = "vst"
    removed_fields = {"freeze_backbone": True}
    _auto_class: ClassVar[str] = "AutoConfig"
    num_codebooks: ClassVar[int] = 1
    sub_configs_defaults = {"backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="swinv2")}

    backbone_config: dict | PreTrainedConfig | None = None
    feature_size: int = 768
    hidden_size: int = 512
    num_layers: int = 2
    num_heads: int = 8
    intermediate_size: int = 2048
    dropout: float | int = 0.1
    codebook_dim: int = 5120
    codebook_size: int = 512
    latent_norm: float | int = 1.0
    num_roles: int = 1
    merge_runs: bool = True
    quantize: bool = True
    direct: bool = False
    codebook_training: Literal["gradient", "ema"] = "gradient"
    kmeans_init: bool = False
    ema_decay: float | int = 0.99
    dead_code_threshold: float | int = 0.0
    codebook_init_norm: float | int = 1.0
    reconstruction_weight: float | int = 1.0
    embedding_weight: float | int = 1.0
    commitment_weight: float | int = 0.02
    consistency_weight: float | int = 0.1
    consistency_distance: int = 4
    alignment_weight: float | int = 0.1
    contrast_temperature: float | int = 0.1
    familiar_distance: float | int | None = None

    def validate_sizes(self):
        """Everything that is counted is at least 1, and what is divided leaves no remainder."""
        for name in (
            "feature_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "intermediate_size",
            "codebook_dim",
            "codebook_size",
            "num_roles",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"`hidden_size` {self.hidden_size} must be a multiple of `num_heads` {self.num_heads}.")
        if self.codebook_size % self.num_roles:
            raise ValueError(
                f"`codebook_size` {self.codebook_size} must be a multiple of `num_roles` {self.num_roles}."
            )
        if self.consistency_distance < 0:
            raise ValueError(f"`consistency_distance` must not be negative, got {self.consistency_distance}.")

    def validate_fractions(self):
        """Fractions are fractions, weights are not negative."""
        for name in ("dropout", "ema_decay", "dead_code_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 0 and below 1, got {getattr(self, name)}.")
        for name in self.__dataclass_fields__:
            if name.endswith("_weight") and not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        for name in ("contrast_temperature", "codebook_init_norm", "latent_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be a positive number, got {getattr(self, name)}.")

    def validate_direct(self):
        """Direct feature projection has neither codes nor a width of its own."""
        if self.direct and (self.quantize or self.codebook_dim != self.feature_size):
            raise ValueError(
                f"`direct` needs `quantize=False` and `codebook_dim` equal to `feature_size` {self.feature_size}, got "
                f"`quantize={self.quantize}` and `codebook_dim={self.codebook_dim}`."
            )
        if self.num_roles > 1 and not self.quantize:
            raise ValueError("`num_roles` divides a codebook: it needs `quantize=True`.")

    @property
    def num_action_tokens(self) -> int:
        """Tokens of all codebooks, of which there is one."""
        return self.codebook_size


__all__ = ["VSTConfig"]
