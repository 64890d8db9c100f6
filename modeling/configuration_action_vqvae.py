"""Configuration of the action-based VQ-VAE, which turns skeletons into action sentences (LLM-AR, section 3.1)."""

from dataclasses import field
from typing import ClassVar, Literal

from .action_model_config import ActionModelConfig
from .checked_config import strict

# The inputs that the encoder can derive from joints.
STREAMS = ("joints", "bones", "motion", "body", "path", "relation")
# The points of each body that the stream `relation` is measured at, beside the pelvis. The ends come first; the neck and the
# sides of the trunk, each the mean of hip and shoulder, tell its length and direction.
RELATION_ENDS = ("head", "left_hand", "right_hand", "left_foot", "right_foot")
RELATION_POINTS = (*RELATION_ENDS, "neck", "left_side", "right_side")


@strict
class ActionVQVAEConfig(ActionModelConfig):
    r"""
    Configuration of [`ActionVQVAEModel`]. The defaults are those of LLM-AR (section 4.2) for NTU RGB+D and LLaMA-13B.

    Args:
        layout (`str`, defaults to `"kinect25"`):
            Name of the joint layout of the features.
        num_persons (`int`, defaults to 2), num_joints (`int`, defaults to 25), num_coordinates (`int`, defaults to 3):
            A frame has `num_persons * num_joints * num_coordinates` channels in this order; the coordinate varies fastest.
        fps (`float`, defaults to 30.0):
            Frames per second of the features; gives the times of tokens if no `frame_rate` is passed.
        hidden_width (`int`, defaults to 512):
            Number of channels of the convolutions.
        num_downsamplings (`int`, defaults to 2):
            Number of layers that halve the frame rate: a token stands for 2^num_downsamplings frames.
        num_residual_blocks (`int`, defaults to 3), dilation_growth (`int`, defaults to 3):
            Number of residual blocks after each downsampling and before each upsampling. Their dilations are powers of
            `dilation_growth`, the largest first (9, 3, 1).
        codebook_dim (`int`, defaults to 5120):
            Width d_u of latents and codes: the word embedding width of the language model that reads them.
        codebook_size (`int`, defaults to 512):
            Number U of tokens of a codebook; even, because tokens u and u + U/2 are a pair (LLM-AR, Eq. 5).
        num_codebooks (`int`, defaults to 1):
            Number R of codebooks of the residual quantisation: each codebook quantises the residual of those before it, and a
            word is the sum of R codes. LLM-AR has one. Token u of codebook r has the id `r * codebook_size + u`. The language
            priors (LLM-AR, Eq. 7) apply to the first codebook.
        streams (`list[str]`, defaults to `["joints"]`):
            Inputs of the encoder, concatenated in this order. `"joints"`: positions (LLM-AR). `"bones"`: the position of each
            joint relative to its parent in `joint_parents`. `"motion"`: the displacement since the last frame, multiplied by
            the number of frames in 0.2 seconds at `fps`. `"body"`: positions relative to the person's pelvis in the same
            frame. `"path"`: the displacement of the pelvis, scaled like motion. `"relation"`: how close the first two people
            are and how they face each other, whichever of them comes first (`SkeletonStreams.relation`).
        joint_parents (`list[int]`, *optional*):
            For `"bones"`: the parent of each joint, which is the next joint towards the root. The root is its own parent.
        pelvis (`list[int]`, *optional*):
            For `"body"`, `"path"` and `"relation"`: the joints whose mean is the pelvis.
        relation_joints (`dict[str, list[int]]`, *optional*):
            For `"relation"`: the joints whose mean is the head, the left and right hand, the left and right foot, the neck, and
            the left and right side of the trunk (`joint_mapping.relation_joints` finds them in a layout).
        geometry (`"poincare"` or `"euclidean"`, defaults to `"poincare"`):
            Distance by which the nearest token is chosen (LLM-AR, Eq. 9; Table 6).
        curvature (`float`, defaults to 1.0):
            c of the Poincaré ball, whose curvature is −c.
        latent_scale (`float`, defaults to 1.0):
            A latent is the encoder's output times `latent_scale / sqrt(codebook_dim)`. With 1, its norm is the root mean
            square of the encoder's channels, which keeps it below about 2, where the ball has room, at any width. Codes,
            distances and the language model's input are in these scaled coordinates. The decoder undoes the scale, and the
            losses of LLM-AR, Eq. 11, are means over the unscaled channels.
        quantize (`bool`, defaults to `True`):
            `False`: no codebook; the decoder reads the latents (LLM-AR, Table 5).
        decodes (`bool`, defaults to `True`):
            `False`: no decoder. A recogniser needs only encoder and codebook, which at LLaMA-13B's width are half the weights.
        codebook_training (`"gradient"` or `"ema"`, defaults to `"gradient"`):
            Codes are trained by the embedding loss (LLM-AR, Eq. 11), or follow exponential moving averages of their latents;
            the embedding loss is then reported but not trained on.
        kmeans_init (`bool`, defaults to `False`):
            Whether the codes start at k-means centres of the first training batch.
        ema_decay (`float`, defaults to 0.99):
            Decay, per training step, of the average usage of the codes, and of the codes with `codebook_training="ema"`.
        dead_code_threshold (`float`, defaults to 0.0):
            A code is restarted at a random latent if it is used less than this fraction of uniform use. 0: never.
        codebook_init_norm (`float`, defaults to 0.1):
            Root mean square norm of the randomly initialised codes; that of the latents is about 0.1 at the start.
        reconstruction_weight, embedding_weight (`float`, default to 1.0):
            Weights of the first two terms of LLM-AR, Eq. 12.
        commitment_weight (`float`, defaults to 0.02):
            ω1 of LLM-AR, Eq. 12.
        velocity_weight (`float`, defaults to 0.0):
            Weight of the smooth-L1 loss between frame-to-frame differences; not in LLM-AR.
        relation_weight (`float`, defaults to 0.0):
            Weight of the smooth-L1 loss between the relations of two people in the reconstruction and in the recording, with
            the stream `"relation"`; without it, tokens need not keep how close people are. Not in LLM-AR.
        alignment_weight (`float`, defaults to 0.0), contrast_temperature (`float`, defaults to 0.1):
            Weight and temperature of the semantic alignment loss of LVLM-VAR: InfoNCE between the mean word of a recording and
            the frozen text embeddings of the class names in the batch; not in LLM-AR.
        human_weight (`float`, defaults to 0.2):
            ω2 of LLM-AR, Eq. 12; multiplies the next three weights.
        zipf_weight, context_weight, mmd_weight (`float`, default to 1.0):
            Weights of the terms of LLM-AR, Eq. 7. 0 turns a term off (Table 4).
        gumbel_temperature (`float`, defaults to 1.0):
            τ of the sampled usage (LLM-AR, Eq. 3). The lower, the more often the sampled token is the nearest one: for UTD-MHAD
            11 % at 0.1, 76 % at 0.01.
        zipf_alpha (`float`, defaults to 1.0), zipf_beta (`float`, defaults to 2.7):
            α and β of Zipf's law (LLM-AR, Eq. 2).
        mmd_num_kernels (`int`, defaults to 5), mmd_kernel_factor (`float`, defaults to 2.0):
            Number of RBF kernels of the MMD, and the ratio of their bandwidths.
        mmd_num_words (`int`, defaults to 512):
            Number of rows of the language model's embedding table that are sampled for the MMD of a step.
        familiar_distance (`float`, *optional*):
            The 99th percentile of [`~action_sentence.token_distance`] over the recordings on which the trained model is
            evaluated. The pipeline warns about recordings beyond it. With `hold_out`, the evaluation uses the held-out
            recordings, of people not seen in training: about 1 % of the recordings of other new people get a warning. Without
            it, the evaluation uses the training recordings, which are closer to their tokens: more than 1 % of the recordings
            of new people get a warning. `None`: no warnings.

    Raises:
        ConfigError (a `ValueError`): if a field has the wrong type or is out of range, or a name is not a field.
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
    pelvis: list[int] | None = None
    relation_joints: dict[str, list[int]] | None = None
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
    relation_weight: float | int = 0.0
    alignment_weight: float | int = 0.0
    contrast_temperature: float | int = 0.1
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
        """Sizes must be positive, the codebook size even, and the number of words must fit into 62 bits."""
        self.check_sizes("num_persons", "num_joints", "num_coordinates", "hidden_width", "num_downsamplings")
        self.check_sizes("num_residual_blocks", "dilation_growth", "codebook_dim", "num_codebooks")
        self.check_sizes("mmd_num_kernels", "mmd_num_words")
        if self.codebook_size < 2 or self.codebook_size % 2:
            raise ValueError(
                f"`codebook_size` must be an even number, because tokens are paired, got {self.codebook_size}."
            )
        # In a language model's input, a word is one integer.
        if self.num_codebooks > 62 or self.codebook_size**self.num_codebooks >= 2**62:
            raise ValueError(
                f"`num_codebooks` {self.num_codebooks} of `codebook_size` {self.codebook_size} make more than 2**62 words, the "
                "most that can be numbered."
            )

    def validate_streams(self):
        """Streams must be known and distinct, and have the joints and people that they need."""
        unknown = [name for name in self.streams if name not in STREAMS]
        if unknown or not self.streams or len(set(self.streams)) < len(self.streams):
            raise ValueError(f"`streams` must be some of {', '.join(STREAMS)}, each once, got {self.streams}.")
        if "bones" in self.streams and not (
            len(self.joint_parents or []) == self.num_joints and self._are_joints(self.joint_parents)
        ):
            raise ValueError(
                f"`joint_parents` must name a parent for each of the {self.num_joints} joints, because `streams` has bones, "
                f"got {self.joint_parents}."
            )
        if {"body", "path", "relation"} & set(self.streams) and not self._are_joints(self.pelvis):
            raise ValueError(
                f"`pelvis` must name some of the {self.num_joints} joints, because `streams` has body, path or relation, got "
                f"{self.pelvis}."
            )
        if "relation" in self.streams:
            self._check_relation()
        elif self.relation_weight > 0:
            raise ValueError(
                f"`relation_weight` must be 0 without relation in `streams` {self.streams}, got {self.relation_weight}."
            )

    def _check_relation(self):
        points = self.relation_joints or {}
        if set(points) != set(RELATION_POINTS) or not all(map(self._are_joints, points.values())):
            raise ValueError(
                f"`relation_joints` must name some of the {self.num_joints} joints for each of {', '.join(RELATION_POINTS)}, "
                f"because `streams` has relation, got {self.relation_joints}."
            )
        if self.num_persons < 2:
            raise ValueError(
                "`num_persons` must be at least 2, because `streams` has relation: leave it out for recordings of single "
                f"people, got {self.num_persons}."
            )

    def _are_joints(self, joints: list[int] | None) -> bool:
        return bool(joints) and all(0 <= joint < self.num_joints for joint in joints)

    def validate_numbers(self):
        """Rates, scales and temperatures must be positive, the parameters of Zipf's law not negative."""
        self.check_positive("fps", "curvature", "latent_scale", "codebook_init_norm")
        self.check_positive("gumbel_temperature", "mmd_kernel_factor", "contrast_temperature")
        self.check_not_negative("zipf_alpha", "zipf_beta")

    @property
    def num_channels(self) -> int:
        """Number of channels of a frame."""
        return self.num_persons * self.num_joints * self.num_coordinates

    @property
    def num_stream_channels(self) -> int:
        """Number of channels of a frame of all streams."""
        widths = dict.fromkeys(STREAMS, self.num_channels)
        widths["path"] = self.num_persons * self.num_coordinates
        # Two people face each other in three dimensions only.
        widths["relation"] = (1 + len(RELATION_ENDS)) ** 2 + (2 if self.num_coordinates == 3 else 0)
        return sum(widths[stream] for stream in self.streams)

    @property
    def frames_per_token(self) -> int:
        """Number of frames that a token stands for."""
        return 2**self.num_downsamplings


__all__ = ["RELATION_ENDS", "ActionVQVAEConfig"]
