"""Configuration of the action-based VQ-VAE, which turns skeletons into action sentences (LLM-AR, section 3.1)."""

from dataclasses import field
from typing import ClassVar, Literal

from .checked_config import CheckedConfig, strict

# What an encoder can read of a skeleton.
STREAMS = ("joints", "bones", "motion")


@strict
class ActionVQVAEConfig(CheckedConfig):
    r"""
    Configuration of [`ActionVQVAEModel`]. The defaults are those of LLM-AR (section 4.2) for NTU RGB+D and LLaMA-13B.

    Args:
        layout (`str`, defaults to `"kinect25"`):
            Name of the joint layout that the features were made with.
        num_persons (`int`, defaults to 2), num_joints (`int`, defaults to 25), num_coordinates (`int`, defaults to 3):
            A frame has `num_persons * num_joints * num_coordinates` channels in this order, the last changing fastest.
        fps (`float`, defaults to 30.0):
            Frames per second of the features, for the times of tokens where no `frame_rate` is given.
        hidden_width (`int`, defaults to 512):
            Channels of the convolutions.
        num_downsamplings (`int`, defaults to 2):
            Each halves the frame rate: a token stands for 2^num_downsamplings frames.
        num_residual_blocks (`int`, defaults to 3), dilation_growth (`int`, defaults to 3):
            Residual blocks after each downsampling and before each upsampling; their dilations are powers of
            `dilation_growth`, the largest first (9, 3, 1).
        codebook_dim (`int`, defaults to 5120):
            Width d_u of latents and codes: the word embedding width of the LLM that is to read them.
        codebook_size (`int`, defaults to 512):
            Number U of tokens; even, because tokens u and u + U/2 are a pair (LLM-AR, Eq. 5).
        num_codebooks (`int`, defaults to 1):
            Number R of codes in a word. Each codebook after the first one, of as many codes, writes down what those before
            it left over, and the word is their sum; LLM-AR has one. Token u of codebook r has the id `r * codebook_size + u`.
            The language priors (LLM-AR, Eq. 7) are about the first codebook.
        streams (`list[str]`, defaults to `["joints"]`):
            What the encoder reads, after each other: `"joints"`; `"bones"`, each joint seen from the one before it in
            `joint_parents`; `"motion"`, its way since the last frame, times the frames of a fifth of a second at `fps`.
            LLM-AR: joints.
        joint_parents (`list[int]`, *optional*):
            For `"bones"`: of each joint the one before it on the way to the root, and of the root itself.
        geometry (`"poincare"` or `"euclidean"`, defaults to `"poincare"`):
            Distance that says which token is nearest (LLM-AR, Eq. 9; Table 6).
        curvature (`float`, defaults to 1.0):
            c of the Poincaré ball.
        latent_scale (`float`, defaults to 1.0):
            A latent is the encoder's output times `latent_scale / sqrt(codebook_dim)`: with 1, its norm is the root mean
            square of the encoder's channels, which keeps it, at any width, where the ball has room (below 2 or so).
            Codes, distances and what the LLM reads are in these scaled coordinates; the decoder undoes the scale, and the
            losses of LLM-AR, Eq. 11, are means over the encoder's own channels.
        quantize (`bool`, defaults to `True`):
            `False`: no codebook, the decoder reads the latents (LLM-AR, Table 5).
        decodes (`bool`, defaults to `True`):
            `False`: encoder and codebook alone. They are all that a recogniser needs, and at LLaMA-13B's width half of it.
        codebook_training (`"gradient"` or `"ema"`, defaults to `"gradient"`):
            Codes follow their latents by the embedding loss (LLM-AR, Eq. 11), or by moving averages, in which case the
            embedding loss is reported but not trained on.
        kmeans_init (`bool`, defaults to `False`):
            Start the codes at k-means centres of the first training batch.
        ema_decay (`float`, defaults to 0.99):
            Decay per training forward of the codes' average usage, and of the codes with `codebook_training="ema"`.
        dead_code_threshold (`float`, defaults to 0.0):
            A code used less than this fraction of uniform use is restarted on a random latent. 0: never.
        codebook_init_norm (`float`, defaults to 0.1):
            Root mean square norm of the random codes at the start; that of fresh latents is about 0.1.
        reconstruction_weight, embedding_weight (`float`, default to 1.0):
            Weights of the first two terms of LLM-AR, Eq. 12.
        commitment_weight (`float`, defaults to 0.02):
            ω1 of LLM-AR, Eq. 12.
        velocity_weight (`float`, defaults to 0.0):
            Weight of the smooth-L1 loss between frame-to-frame differences; not in LLM-AR.
        human_weight (`float`, defaults to 0.2):
            ω2 of LLM-AR, Eq. 12, for the next three together.
        zipf_weight, context_weight, mmd_weight (`float`, default to 1.0):
            Weights of the terms of LLM-AR, Eq. 7. 0 turns one off (Table 4).
        gumbel_temperature (`float`, defaults to 1.0):
            τ of the sampled usage (LLM-AR, Eq. 3).
        zipf_alpha (`float`, defaults to 1.0), zipf_beta (`float`, defaults to 2.7):
            Zipf's law (LLM-AR, Eq. 2).
        mmd_num_kernels (`int`, defaults to 5), mmd_kernel_factor (`float`, defaults to 2.0):
            RBF kernels of the MMD, and the ratio of their bandwidths.
        mmd_num_words (`int`, defaults to 512):
            Rows of the LLM's embedding table that are drawn for each step's MMD.
        familiar_distance (`float`, *optional*):
            Largest [`~action_sentence.token_distance`] of the nearest 99 % of the recordings on which the trained model is
            evaluated; an answer about a recording that is further away carries a warning. With `hold_out` these are the
            held-out recordings, of people whom training never saw: about 1 % of the recordings of other such people get a
            warning. Otherwise they are the training recordings themselves, which are nearer to their tokens: more than 1 % of
            the recordings of new people get one. `None`: there are no warnings.

    Raises:
        ConfigError (a `ValueError`): a field of the wrong type, a value out of range, or a name that is no field.
    """

    model_type = "action_vqvae"
    removed_fields = {"learn_latent_scale": False}
    _auto_class: ClassVar[str] = "AutoConfig"

    layout: str = "kinect25"
    num_persons: int = 2
    num_joints: int = 25
    num_coordinates: int = 3
    fps: float | int = 30.0
    hidden_width: int = 512
    num_downsamplings: int = 2
    num_residual_blocks: int = 3
    dilation_growth: int = 3
    codebook_dim: int = 5120
    codebook_size: int = 512
    num_codebooks: int = 1
    streams: list[str] = field(default_factory=lambda: ["joints"])
    joint_parents: list[int] | None = None
    geometry: Literal["poincare", "euclidean"] = "poincare"
    curvature: float | int = 1.0
    latent_scale: float | int = 1.0
    quantize: bool = True
    decodes: bool = True
    codebook_training: Literal["gradient", "ema"] = "gradient"
    kmeans_init: bool = False
    ema_decay: float | int = 0.99
    dead_code_threshold: float | int = 0.0
    codebook_init_norm: float | int = 0.1
    reconstruction_weight: float | int = 1.0
    embedding_weight: float | int = 1.0
    commitment_weight: float | int = 0.02
    velocity_weight: float | int = 0.0
    human_weight: float | int = 0.2
    zipf_weight: float | int = 1.0
    context_weight: float | int = 1.0
    mmd_weight: float | int = 1.0
    gumbel_temperature: float | int = 1.0
    zipf_alpha: float | int = 1.0
    zipf_beta: float | int = 2.7
    mmd_num_kernels: int = 5
    mmd_kernel_factor: float | int = 2.0
    mmd_num_words: int = 512
    familiar_distance: float | int | None = None

    def validate_sizes(self):
        """Everything that is counted is at least 1."""
        for name in (
            "num_persons",
            "num_joints",
            "num_coordinates",
            "hidden_width",
            "num_downsamplings",
            "num_residual_blocks",
            "dilation_growth",
            "codebook_dim",
            "num_codebooks",
            "mmd_num_kernels",
            "mmd_num_words",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.codebook_size < 2 or self.codebook_size % 2:
            raise ValueError(
                f"`codebook_size` must be an even number, because tokens are paired, got {self.codebook_size}."
            )
        # In a language model's input, a word is one number.
        if self.num_codebooks > 62 or self.codebook_size**self.num_codebooks >= 2**62:
            raise ValueError(
                f"`num_codebooks` {self.num_codebooks} of `codebook_size` {self.codebook_size} make more words than can be "
                "numbered."
            )

    def validate_streams(self):
        """The encoder reads something that can be made of joints."""
        unknown = [name for name in self.streams if name not in STREAMS]
        if unknown or not self.streams or len(set(self.streams)) < len(self.streams):
            raise ValueError(f"`streams` must be some of {', '.join(STREAMS)}, each once, got {self.streams}.")
        if "bones" not in self.streams:
            return
        parents = self.joint_parents
        if (
            parents is None
            or len(parents) != self.num_joints
            or not all(0 <= one < self.num_joints for one in parents)
        ):
            raise ValueError(
                f"`joint_parents` must name a joint for each of {self.num_joints}, because `streams` has bones, got {parents}."
            )

    def validate_positive_numbers(self):
        """What is divided by, or taken the logarithm of, is positive and finite."""
        for name in (
            "fps",
            "curvature",
            "latent_scale",
            "codebook_init_norm",
            "gumbel_temperature",
            "mmd_kernel_factor",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be a positive number, got {getattr(self, name)}.")

    def validate_codebook_averages(self):
        """Decay and threshold are fractions."""
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be at least 0 and below 1, got {self.ema_decay}.")
        if not 0 <= self.dead_code_threshold < 1:
            raise ValueError(
                f"`dead_code_threshold` is a fraction of uniform use, at least 0 and below 1, "
                f"got {self.dead_code_threshold}."
            )

    def validate_weights(self):
        """Loss weights, and the parameters of Zipf's law, are not negative."""
        names = [name for name in self.__dataclass_fields__ if name.endswith("_weight")]
        for name in [*names, "zipf_alpha", "zipf_beta"]:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")

    @property
    def num_channels(self) -> int:
        """Channels of a frame."""
        return self.num_persons * self.num_joints * self.num_coordinates

    @property
    def num_action_tokens(self) -> int:
        """Tokens of all codebooks."""
        return self.num_codebooks * self.codebook_size

    @property
    def frames_per_token(self) -> int:
        """Frames that one token stands for."""
        return 2**self.num_downsamplings


__all__ = ["ActionVQVAEConfig"]
