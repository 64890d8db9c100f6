"""Configuration of the Video-to-Semantic-Tokens (VST) module, which turns videos into action sentences (LVLM-VAR, 3.1)."""

from typing import ClassVar, Literal

from transformers import AutoConfig

from .checked_config import strict
from .compatibility import PreTrainedConfig, SubConfigSpec
from .video_action_config import VideoActionConfig


@strict
class VSTConfig(VideoActionConfig):
    r"""
    Configuration of [`VSTModel`]. The defaults are for Swin Transformer V2 and LLaVA-13B. They follow LVLM-VAR (section 4.1);
    values that the paper does not give are this project's.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*, defaults to a `Swinv2Config`):
            Configuration of the visual encoder: any transformers model of images (Swin V2; ResNet-50, Table 2) or of
            clips (VideoMAE, V-JEPA 2), or the [`ResNet3DModel`] of this project.
        feature_size (`int`, defaults to 768):
            Width of the visual encoder's features.
        hidden_size (`int`, defaults to 512), num_layers (`int`, defaults to 2), num_heads (`int`, defaults to 8),
        intermediate_size (`int`, defaults to 2048), dropout (`float`, defaults to 0.1):
            Sizes of the temporal self-attention, and of the decoder, its mirror image, which reconstructs features.
        codebook_dim (`int`, defaults to 5120):
            Width of the codes: the word embedding width of the language model that reads them.
        codebook_size (`int`, defaults to 512):
            Number K of semantic action tokens (LVLM-VAR, Table 6).
        latent_norm (`float`, defaults to 1.0):
            Norm of every latent. It is fixed because the contrastive losses depend only on directions, and would let latents
            drift away from their codes. Losses between latents and codes are means over channels of root mean square 1.
        num_roles (`int`, defaults to 1):
            Number of parts of the codebook, one for each semantic role. With R > 1, the features are projected R times, and
            every segment becomes R tokens, one from each part. Tokens r K/R to (r + 1) K/R − 1 belong to role r.
        merge_runs (`bool`, defaults to `True`):
            Whether consecutive equal tokens are merged into one token that spans their time.
        quantize (`bool`, defaults to `True`):
            `False`: no codebook; the sentence has one continuous latent per segment.
        direct (`bool`, defaults to `False`):
            Direct feature projection (LVLM-VAR, Table 2, "w/o VST"): the latents are the standardised features, and this
            module is not trained. Needs `quantize=False`, and `codebook_dim` equal to `feature_size`.
        codebook_training (`"gradient"` or `"ema"`, defaults to `"gradient"`), kmeans_init (`bool`, defaults to `False`),
        ema_decay (`float`, defaults to 0.99), dead_code_threshold (`float`, defaults to 0.0),
        codebook_init_norm (`float`, defaults to 1.0):
            See [`ActionVQVAEConfig`].
        reconstruction_weight, embedding_weight (`float`, default to 1.0), commitment_weight (`float`, defaults to 0.02):
            Weights of the mean squared errors between features and their reconstruction, and between latents and codes.
        consistency_weight (`float`, defaults to 0.1):
            Weight of the temporal consistency loss: InfoNCE between the latents of the two halves of a segment's frames, or of
            neighbouring segments if a segment has one feature.
        consistency_distance (`int`, defaults to 4):
            Segments of the same video are negatives if they are more than this many segments apart.
        alignment_weight (`float`, defaults to 0.1):
            Weight of the semantic alignment loss: InfoNCE between the mean token of a video and the frozen text embeddings of
            the class names in the batch.
        contrast_temperature (`float`, defaults to 0.1):
            Temperature of both InfoNCE losses.
        familiar_distance (`float`, *optional*):
            See [`ActionVQVAEConfig`].

    Raises:
        ConfigError (a `ValueError`): if a field has the wrong type or is out of range, or a name is not a field.
    """

    model_type = "vst"
    removed_fields = {"freeze_backbone": True}
    _auto_class: ClassVar[str] = "AutoConfig"
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
        """Sizes must be positive; heads divide the hidden size, and roles divide the codebook."""
        self.check_sizes("feature_size", "hidden_size", "num_layers", "num_heads", "intermediate_size")
        self.check_sizes("codebook_dim", "codebook_size", "num_roles")
        self.check_not_negative("consistency_distance")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"`hidden_size` {self.hidden_size} must be a multiple of `num_heads` {self.num_heads}.")
        if self.codebook_size % self.num_roles:
            raise ValueError(
                f"`codebook_size` {self.codebook_size} must be a multiple of `num_roles` {self.num_roles}."
            )

    def validate_numbers(self):
        """Dropout is a fraction; temperature and norms must be positive."""
        self.check_fractions("dropout")
        self.check_positive("contrast_temperature", "codebook_init_norm", "latent_norm")

    def validate_direct(self):
        """Direct feature projection has no codes, and latents as wide as the features; roles need a codebook."""
        if self.direct and (self.quantize or self.codebook_dim != self.feature_size):
            raise ValueError(
                f"`direct` needs `quantize=False` and `codebook_dim` equal to `feature_size` {self.feature_size}, got "
                f"`quantize={self.quantize}` and `codebook_dim={self.codebook_dim}`."
            )
        if self.num_roles > 1 and not self.quantize:
            raise ValueError("`num_roles` above 1 needs `quantize=True`: roles are parts of the codebook.")


__all__ = ["VSTConfig"]
