"""The action-based VQ-VAE: turns skeleton sequences into action sentences and back (LLM-AR, section 3.1)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, logging

from .action_sentence import ActionEncoderOutput
from .codebook import TRAINING_BUFFERS, Codebook, EuclideanCodebook, PoincareCodebook, residual_quantize
from .collectives import sum_over_ranks, world_size
from .configuration_action_vqvae import RELATION_ENDS, ActionVQVAEConfig
from .language_priors import (
    StepUsage,
    context_loss,
    correlated_tokens,
    gumbel_noise,
    gumbel_usage,
    maximum_mean_discrepancy,
    zipf_divergence,
)
from .saved_weights import SavedWeights
from .semantic_alignment import alignment_loss

logger = logging.get_logger(__name__)

# Displacements are scaled to this time span, over which they are about as large as joint coordinates.
MOTION_SECONDS = 0.2
# The smallest divisor of closeness: the bodies of absent people have no extent.
LEAST_LENGTH = 1e-6
# β of the smooth-L1 loss of closeness, which lies between 0 and 1, and facing, between -1 and 1. With PyTorch's default of 1,
# nearly all errors would be squared.
RELATION_BETA = 0.1


@dataclass
class ActionVQVAEOutput(ModelOutput):
    """
    Loss (LLM-AR, Eq. 12) and its unweighted terms.

    A term that does not apply is `None`: all but the first five without a codebook, `velocity_loss` or `relation_loss` if its
    weight is 0, `mmd_loss` without word embeddings, and `alignment_loss` without labels. Other terms of weight 0 are still
    reported, without gradient.

    Args:
        loss (`torch.FloatTensor` scalar):
            reconstruction + velocity + relation + embedding + ω1 commitment + ω2 (Zipf + context + MMD) + alignment, each times
            its own weight.
        reconstruction_loss (`torch.FloatTensor` scalar):
            Smooth-L1 loss, mean over channels and valid frames (LLM-AR, Eq. 11).
        velocity_loss (`torch.FloatTensor` scalar, *optional*):
            Smooth-L1 loss of the differences between neighbouring valid frames.
        relation_loss (`torch.FloatTensor` scalar, *optional*):
            Smooth-L1 loss of the relation of the first two people (`SkeletonStreams.relation`), mean over channels and the
            valid frames that show both; 0 without such frames.
        alignment_loss (`torch.FloatTensor` scalar, *optional*):
            InfoNCE of recordings and class names ([`~semantic_alignment.alignment_loss`]). Only with `labels` and
            `class_embeddings`.
        embedding_loss, commitment_loss (`torch.FloatTensor` scalar, *optional*):
            Mean squared difference between valid latents and their codes (LLM-AR, Eq. 11). With several codebooks, the
            embedding loss is summed over codebooks and their residuals, and the commitment loss compares latents with the sum
            of codes.
        zipf_loss (`torch.FloatTensor` scalar, *optional*):
            JS divergence, base 2, between sorted usage and Zipf's law (LLM-AR, Eq. 4). This and the next term are about the
            first codebook, and in training about the whole optimiser step on all ranks (see [`~ActionVQVAEModel.count_usage`]).
        context_loss (`torch.FloatTensor` scalar, *optional*):
            Share of tokens whose partner does not occur in the sample (LLM-AR, Eq. 5).
        mmd_loss (`torch.FloatTensor` scalar, *optional*):
            Squared MMD between codes and the language model's words (LLM-AR, Eq. 7).
        action_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Nearest tokens; with several codebooks, of shape `(batch_size, num_tokens, num_codebooks)`. 0 where padded.
        attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`):
            1 for tokens, 0 for padding.
        usage (`torch.FloatTensor` of shape `(codebook_size,)`, *optional*):
            How often each token of the first codebook was chosen in this call, on this process.
        collected_usage (`torch.FloatTensor` of shape `(codebook_size,)`, *optional*):
            The usage that `zipf_loss` reads: in training sampled, and collected from all ranks and, with `step_usage`, from
            all micro-batches of the optimiser step.
        reconstruction (`torch.FloatTensor` of shape `(batch_size, num_frames, num_channels)`):
            Reconstructed features; 0 where padded.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    velocity_loss: torch.FloatTensor | None = None
    relation_loss: torch.FloatTensor | None = None
    alignment_loss: torch.FloatTensor | None = None
    embedding_loss: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    zipf_loss: torch.FloatTensor | None = None
    context_loss: torch.FloatTensor | None = None
    mmd_loss: torch.FloatTensor | None = None
    action_ids: torch.LongTensor | None = None
    attention_mask: torch.LongTensor | None = None
    usage: torch.FloatTensor | None = None
    collected_usage: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None


class MaskedConv1d(nn.Conv1d):
    """
    Convolution over time that reads 0 at padded positions, as beyond the ends of a sequence. A recording therefore gives the
    same result alone and in a padded batch.
    """

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, channels, length)`).
            mask (`torch.Tensor` of shape `(batch_size, 1, length)`, *optional*): 1 for valid positions, 0 for padding.
        """
        if mask is not None:
            hidden_states = hidden_states * mask
        return super().forward(hidden_states)


class ActionVQVAEResidualBlock(nn.Module):
    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.dilated_conv = MaskedConv1d(width, width, kernel_size=3, padding=dilation, dilation=dilation)
        self.pointwise_conv = MaskedConv1d(width, width, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        residual = self.dilated_conv(F.relu(hidden_states), mask)
        residual = self.pointwise_conv(F.relu(residual), mask)
        return hidden_states + residual


class ActionVQVAEResidualStack(nn.Module):
    def __init__(self, config: ActionVQVAEConfig):
        super().__init__()
        self.blocks = nn.ModuleList(
            ActionVQVAEResidualBlock(config.hidden_width, config.dilation_growth**depth)
            for depth in reversed(range(config.num_residual_blocks))
        )

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states, mask)
        return hidden_states


def downsample_mask(mask: torch.Tensor) -> torch.Tensor:
    """Mask (..., length // 2) after a downsampling: a position is valid if both positions it covers are valid."""
    even = mask[..., : mask.shape[-1] // 2 * 2]
    return even[..., 0::2] * even[..., 1::2]


class SkeletonStreams(nn.Module):
    """Joints (batch_size, num_channels, num_frames) → `config.streams` (batch_size, num_stream_channels, num_frames)."""

    def __init__(self, config: ActionVQVAEConfig):
        super().__init__()
        self.config = config

    def forward(self, joints: torch.Tensor) -> torch.Tensor:
        if self.config.streams == ["joints"]:
            return joints
        people = self._people(joints)
        streams = {
            "joints": lambda: people,
            "bones": lambda: people - people[:, :, self.config.joint_parents],
            "motion": lambda: self._displacements(people, people),
            "body": lambda: people - self._pelvis(people),
            "path": lambda: self._displacements(self._pelvis(people), people),
            "relation": lambda: self.relation(joints),
        }
        return torch.cat([streams[name]().flatten(1, -2) for name in self.config.streams], dim=1)

    def relation(self, joints: torch.Tensor) -> torch.Tensor:
        """
        Closeness of the first two people, and how they face each other.

        Closeness of two points is t / (t + d) at a distance d, where t is the mean length of the two trunks: 1 where they
        touch, 1/2 at the length of a trunk, near 0 far away. For a point of one person and another point of the other, such as
        head and hand, the closer of the two pairs comes first. In three dimensions follows the cosine between the direction
        that a person faces and the direction to the other, first of the person who faces the other less.

        The numbers do not depend on which of the two comes first, nor on the place, the direction and the size of the scene.
        They are 0 where one of the two is absent.

        Args:
            joints (`torch.Tensor` of shape `(batch_size, num_channels, num_frames)`).

        Returns:
            `torch.Tensor` of shape `(batch_size, 36, num_frames)`, or 38 channels in three dimensions: closeness of 6 x 6
            points (pelvis, head, hands, feet), and facing.
        """
        pair = self._people(joints)[:, :2].movedim(-1, 1)  # (batch_size, frames, 2, joints, coordinates)
        rows_of = {"pelvis": self.config.pelvis, **self.config.relation_joints}
        points = {name: pair[..., rows, :].mean(dim=-2) for name, rows in rows_of.items()}
        trunk = points["neck"] - points["pelvis"]
        length = trunk.norm(dim=-1).mean(dim=-1)[..., None, None]
        first, second = torch.stack([points[name] for name in ("pelvis", *RELATION_ENDS)], dim=-2).unbind(dim=2)
        distance = (first[..., :, None, :] - second[..., None, :, :]).norm(dim=-1)
        closeness = length / (length + distance).clamp(min=LEAST_LENGTH)
        closer, farther = torch.maximum(closeness, closeness.mT), torch.minimum(closeness, closeness.mT)
        relation = (closer.triu() + farther.tril(-1)).flatten(2)
        if self.config.num_coordinates == 3:
            ahead = torch.linalg.cross(trunk, points["right_side"] - points["left_side"])
            to_other = points["pelvis"].flip(2) - points["pelvis"]
            facing = F.cosine_similarity(ahead, to_other, dim=-1)
            relation = torch.cat([relation, facing.sort(dim=-1).values], dim=-1)
        is_present = (pair != 0).flatten(3).any(dim=-1).all(dim=-1, keepdim=True)
        return (relation * is_present).mT

    def _people(self, joints: torch.Tensor) -> torch.Tensor:
        """Joints of each person (batch_size, num_persons, num_joints, num_coordinates, num_frames)."""
        return joints.unflatten(1, (self.config.num_persons, self.config.num_joints, self.config.num_coordinates))

    def _pelvis(self, people: torch.Tensor) -> torch.Tensor:
        return people[:, :, self.config.pelvis].mean(dim=2, keepdim=True)

    def _displacements(self, points: torch.Tensor, people: torch.Tensor) -> torch.Tensor:
        """Scaled displacements since the last frame of points (batch_size, persons, points, coordinates, frames) of people."""
        # A person who enters or leaves has not moved.
        is_present = (people != 0).flatten(2, 3).any(dim=2)[:, :, None, None]
        steps = points.diff(dim=-1) * (is_present[..., 1:] & is_present[..., :-1])
        return F.pad(steps * (self.config.fps * MOTION_SECONDS), (1, 0))


class ActionVQVAEEncoder(nn.Module):
    """Features (batch_size, num_channels, num_frames) → latents (batch_size, codebook_dim, num_tokens)."""

    def __init__(self, config: ActionVQVAEConfig):
        super().__init__()
        width = config.hidden_width
        self.streams = SkeletonStreams(config)
        self.input_conv = MaskedConv1d(config.num_stream_channels, width, kernel_size=3, padding=1)
        self.down_convs = nn.ModuleList(
            MaskedConv1d(width, width, kernel_size=4, stride=2, padding=1) for _ in range(config.num_downsamplings)
        )
        self.stacks = nn.ModuleList(ActionVQVAEResidualStack(config) for _ in range(config.num_downsamplings))
        self.output_conv = MaskedConv1d(width, config.codebook_dim, kernel_size=3, padding=1)

    def forward(self, hidden_states: torch.Tensor, masks: list[torch.Tensor | None]) -> torch.Tensor:
        """`masks`: the mask of the frames, and the mask after each downsampling."""
        # Differences are computed in float32, whatever the dtype of the convolutions.
        hidden_states = self.streams(hidden_states).to(self.input_conv.weight.dtype)
        hidden_states = F.relu(self.input_conv(hidden_states, masks[0]))
        for level, (down_conv, stack) in enumerate(zip(self.down_convs, self.stacks, strict=True)):
            hidden_states = down_conv(hidden_states, masks[level])
            hidden_states = stack(hidden_states, masks[level + 1])
        return self.output_conv(hidden_states, masks[-1])


class ActionVQVAEDecoder(nn.Module):
    """Codes (batch_size, codebook_dim, num_tokens) → features (batch_size, num_channels, num_frames)."""

    def __init__(self, config: ActionVQVAEConfig):
        super().__init__()
        width = config.hidden_width
        self.input_conv = MaskedConv1d(config.codebook_dim, width, kernel_size=3, padding=1)
        self.stacks = nn.ModuleList(ActionVQVAEResidualStack(config) for _ in range(config.num_downsamplings))
        self.up_convs = nn.ModuleList(
            MaskedConv1d(width, width, kernel_size=3, padding=1) for _ in range(config.num_downsamplings)
        )
        self.hidden_conv = MaskedConv1d(width, width, kernel_size=3, padding=1)
        self.output_conv = MaskedConv1d(width, config.num_channels, kernel_size=3, padding=1)

    def forward(self, hidden_states: torch.Tensor, masks: list[torch.Tensor | None]) -> torch.Tensor:
        """`masks`: the mask of the tokens, and the mask after each upsampling."""
        hidden_states = F.relu(self.input_conv(hidden_states, masks[0]))
        for level, (stack, up_conv) in enumerate(zip(self.stacks, self.up_convs, strict=True)):
            hidden_states = stack(hidden_states, masks[level])
            hidden_states = hidden_states.repeat_interleave(2, dim=-1)
            hidden_states = up_conv(hidden_states, masks[level + 1])
        hidden_states = F.relu(self.hidden_conv(hidden_states, masks[-1]))
        return self.output_conv(hidden_states, masks[-1])


class ActionVQVAEPreTrainedModel(SavedWeights, PreTrainedModel):
    config_class = ActionVQVAEConfig
    base_model_prefix = "action_vqvae"
    main_input_name = "input_features"
    input_modalities = ("time",)
    # Distances in the Poincaré ball grow exponentially with the norm: half precision cannot resolve them.
    _keep_in_fp32_modules_strict = ["quantizer", "refinements"]

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv1d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.in_channels * module.kernel_size[0])
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, Codebook):
            # A later codebook that is still to start at k-means centres adds nothing until then.
            waits = module.kmeans_init and module is not self.quantizer
            norm = 0.0 if waits else self.config.codebook_init_norm
            module.reset_parameters(norm / math.sqrt(self.config.codebook_dim))


class ActionVQVAEModel(ActionVQVAEPreTrainedModel):
    """
    The action-based VQ-VAE of LLM-AR: an encoder of 1-D convolutions over time, a codebook, and a mirrored decoder.

    Raises:
        ValueError: if an input of `encode`, `decode` or `forward` has the wrong shape; the message names the argument.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
    _auto_class = "AutoModel"

    # `forward` returns means, so Trainer itself must divide by the number of accumulation steps.
    accepts_loss_kwargs = False
    # With `decodes=False`, the weights of a model with decoder load without it.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^decoder\."]
    _keys_to_ignore_on_load_missing: ClassVar[list[str]] = TRAINING_BUFFERS

    def __init__(self, config: ActionVQVAEConfig):
        super().__init__(config)
        self.encoder = ActionVQVAEEncoder(config)
        self.decoder = ActionVQVAEDecoder(config) if config.decodes else None
        # From the encoder's output to tangent coordinates.
        self.latent_scale = config.latent_scale / math.sqrt(config.codebook_dim)
        if config.quantize:
            codebook_class = PoincareCodebook if config.geometry == "poincare" else EuclideanCodebook
            codebooks = [codebook_class.from_config(config) for _ in range(config.num_codebooks)]
            self.quantizer = codebooks[0]
            self.refinements = nn.ModuleList(codebooks[1:])
        # Until the first optimiser step has been checked for enough latents.
        self._checks_step_size = True
        self.post_init()

    @property
    def codebook(self) -> torch.Tensor:
        """Codes (num_action_tokens, codebook_dim), float32: tangent coordinates, as `decode` and a language model read them."""
        if not self.config.quantize:
            raise ValueError("this model has no codebook: its configuration has `quantize=False`")
        if not self.refinements:
            return self.quantizer.weight
        return torch.cat([codebook.weight for codebook in (self.quantizer, *self.refinements)])

    def encode(
        self,
        input_features: torch.Tensor,
        feature_attention_mask: torch.Tensor | None = None,
        frame_rate: torch.Tensor | None = None,
        start_time: torch.Tensor | None = None,
    ) -> ActionEncoderOutput:
        """
        Turns features into action sentences.

        Args:
            input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_channels)`):
                Skeleton features; `num_frames` is a multiple of `config.frames_per_token`.
            feature_attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 for valid frames, 0 for padding. A token is valid if all its frames are.
            frame_rate (`torch.Tensor` of shape `(batch_size,)`, *optional*, defaults to `config.fps`):
                Frames per second of each sample; gives the times of the tokens.
            start_time (`torch.Tensor` of shape `(batch_size,)`, *optional*, defaults to 0):
                Time of the first frame of each sample, in seconds.
        """
        hidden_states, token_mask = self._encode(input_features, feature_attention_mask)
        latents = hidden_states * self.latent_scale
        action_ids, action_embeds = None, latents
        if self.config.quantize:
            # Padded positions are quantised too, as latents of 0, and masked below.
            flat = latents.flatten(0, 1)
            with torch.autocast(device_type=latents.device.type, enabled=False):
                quantized, _ = residual_quantize((self.quantizer, *self.refinements), flat, update_codes=False)
            codes = torch.stack([residual.ids for residual in quantized], dim=-1).unflatten(0, token_mask.shape)
            action_ids = self._token_ids(codes, token_mask)
            action_embeds = self._word_embeds(action_ids) * token_mask[..., None]
        start_times, end_times = self._token_times(token_mask, frame_rate, start_time)
        return ActionEncoderOutput(
            action_ids=action_ids,
            attention_mask=token_mask,
            action_embeds=action_embeds,
            latents=latents,
            start_times=start_times,
            end_times=end_times,
        )

    def decode(
        self,
        action_ids: torch.Tensor | None = None,
        action_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Turns action sentences into features.

        Args:
            action_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                Tokens, 0 to `codebook_size` − 1. With several codebooks, a token of each, of shape `(batch_size, num_tokens,
                num_codebooks)`.
            action_embeds (`torch.Tensor` of shape `(batch_size, num_tokens, codebook_dim)`, *optional*):
                Codes or latents, instead of ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_tokens)`, *optional*):
                1 for tokens, 0 for padding.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_tokens * frames_per_token, num_channels)`; 0 where padded.
        """
        if (action_ids is None) == (action_embeds is None):
            raise ValueError("`decode` needs either `action_ids` or `action_embeds`.")
        if action_ids is not None:
            self._check_words(action_ids)
            last = self.config.num_action_tokens - 1
            if action_ids.numel() and not 0 <= action_ids.min() <= action_ids.max() <= last:
                raise ValueError(
                    f"`action_ids` must lie between 0 and {last}, "
                    f"got {action_ids.min().item()} to {action_ids.max().item()}."
                )
            action_embeds = self._word_embeds(action_ids)
        return self._decode(action_embeds / self.latent_scale, attention_mask)

    def forward(
        self,
        input_features: torch.Tensor,
        feature_attention_mask: torch.Tensor | None = None,
        word_embeddings: torch.Tensor | None = None,
        step_usage: StepUsage | None = None,
        target_features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        class_embeddings: torch.Tensor | None = None,
    ) -> ActionVQVAEOutput:
        """
        Computes the reconstruction and all losses of LLM-AR, Eq. 12.

        In training, usage is sampled (Eq. 3) and summed over ranks, and k-means, moving averages and restarts move the codes;
        all processes of a run must take part. In evaluation, nothing is sampled, moved or communicated.

        Args:
            input_features (`torch.Tensor` of shape `(batch_size, num_frames, num_channels)`):
                Skeleton features; `num_frames` is a multiple of `config.frames_per_token`.
            feature_attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*):
                1 for valid frames, 0 for padding.
            word_embeddings (`torch.Tensor` of shape `(num_words, codebook_dim)`, *optional*):
                Word embeddings of the language model, all or a sample of them, for the MMD.
            step_usage ([`~language_priors.StepUsage`], *optional*):
                With several micro-batches in an optimiser step, what [`~ActionVQVAEModel.count_usage`] returned for this one.
            target_features (`torch.Tensor` of the shape of `input_features`, *optional*, defaults to `input_features`):
                What the decoder is to reconstruct: with `input_features` of an augmented recording, those of the original, so
                that tokens do not tell views and errors apart.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Class of each recording, for the semantic alignment loss; or the share of each class in blended recordings, a
                `torch.FloatTensor` of shape `(batch_size, num_classes)`.
            class_embeddings (`torch.Tensor` of shape `(num_classes, codebook_dim)`, *optional*):
                Text embeddings of the class names, for the semantic alignment loss; they get no gradient.
        """
        config = self.config
        if target_features is None:
            target_features = input_features
        elif target_features.shape != input_features.shape:
            raise ValueError(
                f"`target_features` must have the shape {tuple(input_features.shape)} of `input_features`, "
                f"got {tuple(target_features.shape)}."
            )
        hidden_states, token_mask = self._encode(input_features, feature_attention_mask)
        valid = token_mask.bool()

        terms, loss = {}, 0.0
        if config.quantize:
            valid_states = hidden_states[valid]
            if len(valid_states) == 0:
                raise ValueError("`feature_attention_mask` leaves no valid token in the batch.")
            with torch.autocast(device_type=hidden_states.device.type, enabled=False):
                scale = self.latent_scale
                quantized, residuals = residual_quantize((self.quantizer, *self.refinements), valid_states * scale)
                loss = self._usage_losses(terms, quantized[0].distances, quantized[0].ids, valid, step_usage)
                if word_embeddings is not None:
                    loss = loss + self._word_loss(terms, word_embeddings)
                elif self.training and config.human_weight * config.mmd_weight > 0:
                    logger.warning_once(
                        "`mmd_weight` is not 0, but `forward` gets no `word_embeddings`: the MMD between codes and words is "
                        "left out of the loss."
                    )
            ids = torch.zeros(*valid.shape, config.num_codebooks, dtype=torch.long, device=valid.device)
            ids[valid] = torch.stack([residual.ids for residual in quantized], dim=-1)
            terms["action_ids"] = self._token_ids(ids, token_mask)
            # Eq. 11 in the encoder's units: the losses are means over its channels.
            codes = [residual.embeds / scale for residual in quantized]
            residuals = [valid_states, *(residual / scale for residual in residuals[1:])]
            terms["embedding_loss"] = sum(
                F.mse_loss(code, residual.detach()) for code, residual in zip(codes, residuals, strict=True)
            )
            codes = sum(codes)
            terms["commitment_loss"] = F.mse_loss(valid_states, codes.detach())
            if config.codebook_training == "gradient":
                loss = loss + config.embedding_weight * terms["embedding_loss"]
            loss = loss + config.commitment_weight * terms["commitment_loss"]
            # Straight-through: the decoder reads codes, and its gradient is passed to the latents unchanged.
            codes = torch.zeros_like(hidden_states).masked_scatter(valid[..., None], codes.detach())
            hidden_states = hidden_states + (codes - hidden_states).detach()
        if labels is not None and class_embeddings is not None:
            pooled = hidden_states.sum(dim=1) / token_mask.sum(dim=1, keepdim=True).clamp_min(1)
            terms["alignment_loss"] = alignment_loss(pooled, labels, class_embeddings, config.contrast_temperature)
            loss = loss + config.alignment_weight * terms["alignment_loss"]

        decoder_mask = None if feature_attention_mask is None else token_mask
        reconstruction = self._decode(hidden_states, decoder_mask).float()
        frames = valid.repeat_interleave(config.frames_per_token, dim=1)
        # The target stays in float32, whatever the dtype of the encoder.
        target = target_features.float()
        reconstruction_loss = F.smooth_l1_loss(reconstruction[frames], target[frames])
        loss = loss + config.reconstruction_weight * reconstruction_loss
        if config.velocity_weight > 0:
            steps = frames[:, 1:] & frames[:, :-1]
            terms["velocity_loss"] = F.smooth_l1_loss(reconstruction.diff(dim=1)[steps], target.diff(dim=1)[steps])
            loss = loss + config.velocity_weight * terms["velocity_loss"]
        if config.relation_weight > 0:
            terms["relation_loss"] = self._relation_loss(reconstruction, target, frames)
            loss = loss + config.relation_weight * terms["relation_loss"]
        return ActionVQVAEOutput(
            loss=loss,
            reconstruction_loss=reconstruction_loss,
            attention_mask=token_mask,
            reconstruction=reconstruction,
            **terms,
        )

    @torch.no_grad()
    def count_usage(self, micro_batches: list[dict[str, torch.Tensor]]) -> list[StepUsage | None]:
        """
        Counts the sampled usage of the first codebook in all micro-batches of an optimiser step, before the step is trained on.

        The Zipf and context losses are about the whole step, and so is their gradient. With these counts, the sum of the
        gradients of the micro-batches is the gradient of a single batch that has the same Gumbel noise:

        ```python
        for inputs, step_usage in zip(micro_batches, model.count_usage(micro_batches)):
            (model(**inputs, step_usage=step_usage).loss / len(micro_batches)).backward()
        ```

        Nothing but the noise is drawn, and no code is moved. Moving averages and restarts move codes between the micro-batches:
        a micro-batch is then sampled with the codes of its own time, and all others with the codes at the start of the step.
        In the step in which the codes start at k-means centres, nothing is counted: each micro-batch stands for itself.

        In a distributed run, all processes must call it, with equally many micro-batches.

        Args:
            micro_batches (`list[dict[str, torch.Tensor]]`):
                The inputs of `forward` for each micro-batch.

        Returns:
            `list[StepUsage | None]`: the `step_usage` of each micro-batch. All `None` where there is nothing to count: for a
            single micro-batch, in evaluation, without a codebook, if both losses have the weight 0, and before k-means.
        """
        nothing = [None] * len(micro_batches)
        if len(micro_batches) == 1 or not self._samples_usage:
            return nothing
        encoded = [
            self._encode(inputs["input_features"], inputs.get("feature_attention_mask")) for inputs in micro_batches
        ]
        if self.quantizer.waits_for_kmeans:
            self._check_step_size(sum(int(token_mask.sum()) for _, token_mask in encoded) * world_size())
            return nothing
        noises, counts, correlated = [], [], []
        for hidden_states, token_mask in encoded:
            valid = token_mask.bool()
            with torch.autocast(device_type=hidden_states.device.type, enabled=False):
                latents = hidden_states[valid] * self.latent_scale
                distances = self.quantizer.pairwise_distance(latents, self.quantizer.weight)
                noises.append(gumbel_noise(distances))
                usage = gumbel_usage(
                    distances, _sample_index(valid), len(valid), self.config.gumbel_temperature, noises[-1]
                )
            counts.append(usage.sum(dim=0))
            correlated.append(correlated_tokens(usage).sum())
        counts, correlated = sum_over_ranks(torch.stack(counts)), sum_over_ranks(torch.stack(correlated))
        # Counts are whole numbers, so the differences are exact.
        others = zip(counts.sum(dim=0) - counts, correlated.sum() - correlated, noises, strict=True)
        return [StepUsage(*other, num_micro_batches=len(micro_batches)) for other in others]

    def _check_words(self, action_ids: torch.Tensor) -> None:
        """Raises `ValueError` for words that are not a token of each codebook, in order. Padding is zeros."""
        number = self.config.num_codebooks
        if number == 1:
            return
        shape = tuple(action_ids.shape)
        if len(shape) != 3 or shape[2] != number:
            raise ValueError(f"`action_ids` must have the shape (batch_size, num_tokens, {number}), got {shape}.")
        codebooks = action_ids[action_ids.any(dim=-1)] // self.config.codebook_size
        if (codebooks != torch.arange(number, device=codebooks.device)).any():
            raise ValueError(
                f"a word in `action_ids` must be a token of each of {number} codebooks of {self.config.codebook_size}, in "
                "their order."
            )

    def _token_ids(self, codes: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Indices within each codebook (batch_size, num_tokens, num_codebooks) → action ids, 0 where padded; of shape
        (batch_size, num_tokens) for a single codebook."""
        firsts = torch.arange(self.config.num_codebooks, device=codes.device) * self.config.codebook_size
        ids = (codes + firsts) * token_mask[..., None]
        return ids if self.config.num_codebooks > 1 else ids.squeeze(-1)

    def _word_embeds(self, action_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings (batch_size, num_tokens, codebook_dim) of words: the sums of their codes."""
        embeds = F.embedding(action_ids, self.codebook)
        return embeds.sum(dim=2) if self.refinements else embeds

    def _encode(
        self, input_features: torch.Tensor, feature_attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Unscaled output of the encoder (batch_size, num_tokens, codebook_dim), float32, 0 where padded, and the mask
        (batch_size, num_tokens) of the tokens.
        """
        channels, multiple = self.config.num_channels, self.config.frames_per_token
        shape = tuple(input_features.shape)
        if len(shape) != 3 or shape[1] == 0 or shape[1] % multiple or shape[2] != channels:
            raise ValueError(
                f"`input_features` must have the shape (batch_size, num_frames, {channels}) with num_frames a multiple of "
                f"{multiple}, got {shape}."
            )
        masks = [None] * (self.config.num_downsamplings + 1)
        if feature_attention_mask is not None:
            if feature_attention_mask.shape != shape[:2]:
                raise ValueError(
                    f"`feature_attention_mask` must have the shape {shape[:2]} of the frames, "
                    f"got {tuple(feature_attention_mask.shape)}."
                )
            masks[0] = feature_attention_mask[:, None].to(self.dtype)
            for level in range(self.config.num_downsamplings):
                masks[level + 1] = downsample_mask(masks[level])
        hidden_states = self.encoder(input_features.transpose(1, 2).float(), masks).float().transpose(1, 2)
        if masks[-1] is None:
            return hidden_states, torch.ones(hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device)
        token_mask = masks[-1].squeeze(1).long()
        return hidden_states * token_mask[..., None], token_mask

    def _decode(self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None) -> torch.Tensor:
        """Unscaled hidden states (batch_size, num_tokens, codebook_dim) → features (batch_size, num_frames, num_channels), 0
        where padded."""
        if self.decoder is None:
            raise ValueError(
                "this action model has no decoder (`decodes=False`): load the tokenizer from which it was made."
            )
        masks = [None] * (self.config.num_downsamplings + 1)
        if token_mask is not None:
            masks[0] = token_mask[:, None].to(self.dtype)
            for level in range(self.config.num_downsamplings):
                masks[level + 1] = masks[level].repeat_interleave(2, dim=-1)
        features = self.decoder(hidden_states.transpose(1, 2).to(self.dtype), masks)
        if masks[-1] is not None:
            features = features * masks[-1]
        return features.transpose(1, 2)

    def _token_times(
        self, token_mask: torch.Tensor, frame_rate: torch.Tensor | None, start_time: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and end times (batch_size, num_tokens) in seconds."""
        batch_size, num_tokens = token_mask.shape
        if frame_rate is None:
            frame_rate = torch.full((batch_size,), float(self.config.fps), device=token_mask.device)
        if start_time is None:
            start_time = torch.zeros(batch_size)
        for name, values in (("frame_rate", frame_rate), ("start_time", start_time)):
            if values.shape != (batch_size,):
                raise ValueError(f"`{name}` must have the shape ({batch_size},), got {tuple(values.shape)}.")
        start = start_time.to(token_mask.device, torch.float32)[:, None]
        duration = self.config.frames_per_token / frame_rate.to(token_mask.device, torch.float32)[:, None]
        position = torch.arange(num_tokens, device=token_mask.device, dtype=torch.float32)
        return (start + position * duration) * token_mask, (start + (position + 1) * duration) * token_mask

    def _relation_loss(self, reconstruction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Loss of the relation of two people in features (batch_size, num_frames, num_channels), in valid frames."""
        actual, expected = (self.encoder.streams.relation(joints.mT).mT for joints in (reconstruction, target))
        shows_both = (expected != 0).any(dim=-1) & valid
        losses = F.smooth_l1_loss(actual, expected, beta=RELATION_BETA, reduction="none").mean(dim=-1)
        return (losses * shows_both).sum() / shows_both.sum().clamp(min=1)

    def _usage_losses(
        self,
        terms: dict[str, torch.Tensor],
        distances: torch.Tensor,
        ids: torch.Tensor,
        valid: torch.Tensor,
        step_usage: StepUsage | None,
    ) -> torch.Tensor:
        """Adds the Zipf and context losses (LLM-AR, Eq. 3 to 5) to `terms`; returns their weighted sum."""
        config = self.config
        batch_size, codebook_size = len(valid), config.codebook_size
        sample_index = _sample_index(valid)
        usage = torch.bincount(sample_index * codebook_size + ids, minlength=batch_size * codebook_size)
        usage = usage.view(batch_size, codebook_size).float()
        terms["usage"] = usage.sum(dim=0)
        zipf_weight = config.human_weight * config.zipf_weight
        context_weight = config.human_weight * config.context_weight
        if self._samples_usage:
            noise = None if step_usage is None else step_usage.noise
            if noise is not None and noise.shape != distances.shape:
                raise ValueError(
                    f"`step_usage` must be that of this micro-batch, with noise of shape {tuple(distances.shape)}, "
                    f"got {tuple(noise.shape)}: pass what `count_usage` returned for it."
                )
            usage = gumbel_usage(distances, sample_index, batch_size, config.gumbel_temperature, noise)
        if step_usage is not None:
            # Trainer divides gradients by the number of micro-batches, but in the usage of the step they add up.
            usage = usage.detach() + step_usage.num_micro_batches * (usage - usage.detach())
        counts, correlated = usage.sum(dim=0), correlated_tokens(usage).sum()
        if self.training:
            counts, correlated = sum_over_ranks(counts), sum_over_ranks(correlated)
        if step_usage is not None:
            counts, correlated = counts + step_usage.counts, correlated + step_usage.correlated
        num_latents = counts.detach().sum()
        if self.training and zipf_weight > 0 and self._checks_step_size:
            self._check_step_size(int(num_latents))
        terms["collected_usage"] = counts.detach()
        zipf = zipf_divergence(counts, config.zipf_alpha, config.zipf_beta)
        context = context_loss(correlated, num_latents)
        terms["zipf_loss"] = zipf if zipf_weight > 0 else zipf.detach()
        terms["context_loss"] = context if context_weight > 0 else context.detach()
        return zipf_weight * terms["zipf_loss"] + context_weight * terms["context_loss"]

    def _word_loss(self, terms: dict[str, torch.Tensor], word_embeddings: torch.Tensor) -> torch.Tensor:
        """Adds the MMD (LLM-AR, Eq. 7) between codes and a sample of words to `terms`; returns it weighted."""
        config = self.config
        if word_embeddings.dim() != 2 or word_embeddings.shape[1] != config.codebook_dim:
            raise ValueError(
                f"`word_embeddings` must have the shape (num_words, {config.codebook_dim}), as wide as the codes, "
                f"got {tuple(word_embeddings.shape)}."
            )
        if len(word_embeddings) > config.mmd_num_words:
            chosen = torch.randperm(len(word_embeddings), device=word_embeddings.device)[: config.mmd_num_words]
            word_embeddings = word_embeddings[chosen]
        weight = config.human_weight * config.mmd_weight
        codes = self.quantizer.weight if weight > 0 else self.quantizer.weight.detach()
        terms["mmd_loss"] = maximum_mean_discrepancy(
            codes, word_embeddings, config.mmd_num_kernels, config.mmd_kernel_factor
        )
        return weight * terms["mmd_loss"]

    @property
    def _samples_usage(self) -> bool:
        """Whether `forward` samples the usage: in training, if the Zipf or the context loss has a weight."""
        config = self.config
        return (
            self.training
            and config.quantize
            and config.human_weight * (config.zipf_weight + config.context_weight) > 0
        )

    def _check_step_size(self, num_latents: int) -> None:
        """Warns if the first optimiser step has too few latents, on all ranks, for the Zipf loss."""
        needed = 4 * self.config.codebook_size
        if self._checks_step_size and num_latents < needed:
            logger.warning(
                f"An optimiser step has {num_latents} latents for {self.config.codebook_size} tokens. With fewer than about "
                f"{needed}, even samples drawn from Zipf's law have a large Zipf loss: use larger batches, or accumulate "
                "gradients over several micro-batches and pass the `step_usage` that `count_usage` returns for them."
            )
        self._checks_step_size = False


def _sample_index(valid: torch.Tensor) -> torch.Tensor:
    """The row (num_latents,) of each valid position of `valid` (batch_size, num_tokens)."""
    return torch.arange(len(valid), device=valid.device)[:, None].expand_as(valid)[valid]


__all__ = ["ActionVQVAEModel", "ActionVQVAEOutput", "ActionVQVAEPreTrainedModel"]
