"""The Video-to-Semantic-Tokens (VST) module: turns videos into sentences of semantic action tokens (LVLM-VAR, section 3.1)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from .action_sentence import ActionEncoderOutput, merge_runs
from .codebook import EuclideanCodebook, Quantized
from .configuration_vst import VSTConfig
from .semantic_alignment import alignment_loss
from .temporal_attention import TemporalSelfAttention
from .video_action_model import VideoActionModel
from .visual_encoder import FeatureStandardisation, VisualEncoder, fresh_backbone, keep_weights

# Maximum number of anchors of the temporal consistency loss of a step: similarities take memory per anchor and latent.
MAX_ANCHORS = 1024


@dataclass
class VSTOutput(ModelOutput):
    """
    Loss of [`VSTModel`] and its unweighted terms. A term that does not apply is `None`.

    Args:
        loss (`torch.FloatTensor` scalar):
            Weighted sum of the terms.
        reconstruction_loss (`torch.FloatTensor` scalar):
            Mean squared error between the standardised features and their reconstruction from tokens.
        embedding_loss, commitment_loss (`torch.FloatTensor` scalar, *optional*):
            Mean squared difference between valid latents and their codes.
        consistency_loss (`torch.FloatTensor` scalar, *optional*):
            InfoNCE of latents that are close in time. Only in training, and if its weight is positive.
        alignment_loss (`torch.FloatTensor` scalar, *optional*):
            InfoNCE of videos and class names. Only with `labels` and `class_embeddings`.
        action_ids (`torch.LongTensor` of shape `(batch_size, num_segments * num_roles)`, *optional*):
            Nearest tokens, before runs are merged; 0 where padded.
        attention_mask (`torch.LongTensor` of the same shape):
            1 for tokens, 0 for padding.
        usage (`torch.FloatTensor` of shape `(codebook_size,)`, *optional*):
            How often each token was chosen.
        reconstruction (`torch.FloatTensor` of shape `(batch_size, num_segments, feature_size)`):
            Reconstructed features, in the visual encoder's units; 0 where padded.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    embedding_loss: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    consistency_loss: torch.FloatTensor | None = None
    alignment_loss: torch.FloatTensor | None = None
    action_ids: torch.LongTensor | None = None
    attention_mask: torch.LongTensor | None = None
    usage: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None


class VSTPreTrainedModel(VideoActionModel):
    config_class = VSTConfig
    base_model_prefix = "vst"
    _keep_in_fp32_modules_strict = ["quantizers", "standardisation"]

    @property
    def code_deviation(self) -> float:
        """Standard deviation of the channels of the codes at the start of training."""
        return self.config.codebook_init_norm / math.sqrt(self.config.codebook_dim)

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.MultiheadAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
            init.zeros_(module.out_proj.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class VSTModel(VSTPreTrainedModel):
    """
    Visual encoder, temporal self-attention, projection and codebook (LVLM-VAR, Eq. 1 and 2), and a decoder of features.

    All methods take `pixel_values`, as [`VideoFeatureExtractor`] returns them, or `input_features` (batch_size, num_segments,
    views, feature_size), which `features` computes from them: the features of a data set need to be computed only once.

    Args:
        config ([`VSTConfig`]): the configuration.
        backbone (`PreTrainedModel`, *optional*): a pretrained visual encoder; without it, a new one is initialised.

    Raises:
        ValueError: if an input of a method has the wrong shape; the message names the argument.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
    _auto_class = "AutoModel"

    def __init__(self, config: VSTConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        self.visual_encoder = VisualEncoder(fresh_backbone(config.backbone_config) if backbone is None else backbone)
        self.standardisation = FeatureStandardisation(config.feature_size)
        if not config.direct:
            sizes = {
                name: getattr(config, name)
                for name in ("hidden_size", "num_layers", "num_heads", "intermediate_size", "dropout")
            }
            width = config.num_roles * config.codebook_dim
            self.temporal_attention = TemporalSelfAttention(config.feature_size, width, **sizes)
            self.decoder = TemporalSelfAttention(width, config.feature_size, **sizes)
        if config.quantize:
            self.quantizers = nn.ModuleList(
                EuclideanCodebook.from_config(config, config.codebook_size // config.num_roles)
                for _ in range(config.num_roles)
            )
        self.post_init()
        if backbone is not None:
            keep_weights(backbone)
        self.freeze()

    @staticmethod
    def codes_are_features(config_fields: dict) -> bool:
        return bool(config_fields.get("direct"))

    @property
    def scale(self) -> float:
        """Root mean square of the channels of a latent."""
        return self.config.latent_norm / math.sqrt(self.config.codebook_dim)

    @property
    def codebook(self) -> torch.Tensor:
        """Codes (codebook_size, codebook_dim), float32, as a language model reads them: role 0 first, then role 1, …"""
        if not self.config.quantize:
            raise ValueError("this model has no codebook: its configuration has `quantize=False`")
        return torch.cat([quantizer.weight for quantizer in self.quantizers])

    def encode(
        self,
        pixel_values: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        frame_rate: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
    ) -> ActionEncoderOutput:
        """
        Turns videos into action sentences.

        Args:
            pixel_values, input_features: see [`VSTModel`].
            feature_attention_mask (`torch.Tensor` of shape `(batch_size, num_segments)`, *optional*):
                1 for segments, 0 for padding.
            frame_rate (`torch.Tensor` of shape `(batch_size,)`, *optional*, defaults to 1):
                Segments per second; gives the times of the tokens.
        """
        features, mask = self._inputs(pixel_values, input_features, feature_attention_mask)
        states = self.standardisation(features.mean(dim=2))
        batch_size, num_segments = mask.shape
        rates = self._segment_rates(frame_rate, features)[:, None]
        starts = torch.arange(num_segments, device=mask.device)[None] / rates
        start_times, end_times = starts * mask, (starts + 1 / rates) * mask
        if self.config.direct:
            latents = states * mask[..., None]
            return ActionEncoderOutput(None, mask, latents, latents, start_times, end_times)
        latents = self._latents(states, mask)
        if not self.config.quantize:
            latents = latents[:, :, 0] * mask[..., None]
            return ActionEncoderOutput(None, mask, latents, latents, start_times, end_times)
        ids, _, _ = self._quantize(latents.flatten(0, 1))
        ids = ids.view(batch_size, num_segments, -1) * mask[..., None]
        roles = []
        for role in range(self.config.num_roles):
            embeds = F.embedding(ids[..., role], self.codebook) * mask[..., None]
            role_latents = latents[:, :, role] * mask[..., None]
            sentence = ActionEncoderOutput(ids[..., role], mask, embeds, role_latents, start_times, end_times)
            roles.append(merge_runs(sentence) if self.config.merge_runs else sentence)
        return roles[0] if len(roles) == 1 else _interleaved(roles)

    def decode(
        self, action_ids: torch.Tensor | None = None, action_embeds: torch.Tensor | None = None, attention_mask=None
    ) -> torch.Tensor:
        """
        Reconstructs features, in the visual encoder's units, from action sentences whose runs are not merged.

        Args:
            action_ids (`torch.LongTensor` of shape `(batch_size, num_segments * num_roles)`, *optional*):
                Tokens, `num_roles` for each segment.
            action_embeds (`torch.Tensor` of shape `(batch_size, num_segments * num_roles, codebook_dim)`, *optional*):
                Codes or latents, instead of ids.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_segments * num_roles)`, *optional*):
                1 for tokens, 0 for padding.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_segments, feature_size)`; 0 where padded.
        """
        if (action_ids is None) == (action_embeds is None):
            raise ValueError("`decode` needs either `action_ids` or `action_embeds`.")
        if self.config.direct:
            raise ValueError("this model has no decoder: its configuration has `direct=True`")
        if action_ids is not None:
            if action_ids.numel() and not 0 <= action_ids.min() <= action_ids.max() < self.config.codebook_size:
                raise ValueError(
                    f"`action_ids` must lie between 0 and {self.config.codebook_size - 1}, "
                    f"got {action_ids.min().item()} to {action_ids.max().item()}."
                )
            action_embeds = F.embedding(action_ids, self.codebook)
        roles = self.config.num_roles
        if action_embeds.shape[1] % roles:
            raise ValueError(
                f"expected {roles} tokens for each segment, got {action_embeds.shape[1]} tokens, which is not a multiple."
            )
        states = action_embeds.reshape(len(action_embeds), -1, roles * self.config.codebook_dim) / self.scale
        mask = states.new_ones(states.shape[:2]) if attention_mask is None else attention_mask[:, ::roles]
        return self.standardisation.inverse(self._reconstruct(states, mask)) * mask[..., None]

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        class_embeddings: torch.Tensor | None = None,
    ) -> VSTOutput:
        """
        Computes the reconstruction and all losses.

        Args:
            pixel_values, input_features: see [`VSTModel`].
            feature_attention_mask (`torch.Tensor` of shape `(batch_size, num_segments)`, *optional*):
                1 for segments, 0 for padding.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Class of each video, for the semantic alignment loss.
            class_embeddings (`torch.Tensor` of shape `(num_classes, codebook_dim)`, *optional*):
                Frozen text embeddings of the class names.
        """
        config = self.config
        if config.direct:
            raise ValueError("direct feature projection (`direct=True`) has nothing to train: call `encode` instead.")
        features, mask = self._inputs(pixel_values, input_features, feature_attention_mask)
        valid = mask.bool()
        if not valid.any():
            raise ValueError("`feature_attention_mask` leaves no valid segment in the batch.")
        states = self.standardisation(features.mean(dim=2))
        latents = self._latents(states, mask)
        terms, loss, embeds = {}, 0.0, latents
        if config.quantize:
            ids, codes, usage = self._quantize(latents[valid])
            terms["usage"] = usage
            terms["action_ids"] = (
                ids.new_zeros(*mask.shape, config.num_roles).masked_scatter(valid[..., None], ids).flatten(1)
            )
            terms["embedding_loss"] = F.mse_loss(codes / self.scale, latents[valid].detach() / self.scale)
            terms["commitment_loss"] = F.mse_loss(latents[valid] / self.scale, codes.detach() / self.scale)
            if config.codebook_training == "gradient":
                loss = loss + config.embedding_weight * terms["embedding_loss"]
            loss = loss + config.commitment_weight * terms["commitment_loss"]
            # Straight-through: the decoder reads codes, and its gradient is passed to the latents unchanged.
            codes = torch.zeros_like(latents).masked_scatter(valid[..., None, None], codes.detach())
            embeds = latents + (codes - latents).detach()
        reconstruction = self._reconstruct(embeds.flatten(2) / self.scale, mask)
        # The features are targets and get no gradient.
        terms["reconstruction_loss"] = F.mse_loss(reconstruction[valid], states.detach()[valid])
        loss = loss + config.reconstruction_weight * terms["reconstruction_loss"]
        if self.training and config.consistency_weight > 0:
            terms["consistency_loss"] = self._consistency_loss(features, latents, mask)
            loss = loss + config.consistency_weight * terms["consistency_loss"]
        if labels is not None and class_embeddings is not None:
            pooled = (embeds.mean(dim=2) * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)
            terms["alignment_loss"] = alignment_loss(pooled, labels, class_embeddings, config.contrast_temperature)
            loss = loss + config.alignment_weight * terms["alignment_loss"]
        return VSTOutput(
            loss=loss,
            attention_mask=mask.repeat_interleave(config.num_roles, dim=1),
            reconstruction=self.standardisation.inverse(reconstruction) * mask[..., None],
            **terms,
        )

    def _latents(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Standardised features (batch_size, num_segments, feature_size) → latents (batch_size, num_segments, roles, dim)."""
        latents = self.temporal_attention(states.to(self.temporal_attention.input.weight.dtype), mask).float()
        latents = latents.view(*mask.shape, self.config.num_roles, -1)
        return F.rms_norm(latents, latents.shape[-1:]) * self.scale

    def _reconstruct(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Codes (batch_size, num_segments, roles * dim), divided by `scale` → standardised features, float32."""
        return self.decoder(states.to(self.decoder.input.weight.dtype), mask).float()

    def _quantize(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (N, roles, dim) → ids (N, roles) in the whole codebook, codes (N, roles, dim), usage (codebook_size,)."""
        ids, codes = [], []
        with torch.autocast(device_type=latents.device.type, enabled=False):
            for role, quantizer in enumerate(self.quantizers):
                quantized: Quantized = quantizer(latents[:, role].contiguous())
                ids.append(quantized.ids + role * len(quantizer.weight))
                codes.append(quantized.embeds)
        ids = torch.stack(ids, dim=1)
        usage = torch.bincount(ids.flatten(), minlength=self.config.codebook_size).float()
        return ids, torch.stack(codes, dim=1), usage

    def _consistency_loss(self, features: torch.Tensor, latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Consistency of the two halves of each segment's views, or of neighbouring segments if a segment has one view."""
        views = features.shape[2]
        positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        settings = (self.config.consistency_distance, self.config.contrast_temperature)
        if views > 1:
            halves = (features[:, :, : views // 2], features[:, :, views // 2 :])
            first, second = (self._latents(self.standardisation(half.mean(dim=2)), mask).flatten(2) for half in halves)
            return consistency_loss(first, second, mask, positions, positions, *settings)
        latents, has_next = latents.flatten(2), F.pad(mask[:, 1:], (0, 1)).bool()
        return consistency_loss(latents, latents, mask, torch.where(has_next, positions + 1, -1), positions, *settings)


def consistency_loss(
    first: torch.Tensor,
    second: torch.Tensor,
    mask: torch.Tensor,
    positives: torch.Tensor,
    times: torch.Tensor,
    distance: float,
    temperature: float,
) -> torch.Tensor:
    """
    InfoNCE over temporal proximity, by cosine similarity.

    Args:
        first, second (`torch.Tensor` of shape `(batch_size, length, dim)`): two sets of latents of the same videos.
        mask (`torch.Tensor` of shape `(batch_size, length)`): 1 for latents, 0 for padding.
        positives (`torch.Tensor` of shape `(batch_size, length)`): the index in `second` of the positive of each latent of
            `first`; −1 if it has none.
        times (`torch.Tensor` of shape `(batch_size, length)`): the time of each latent, in any unit.
        distance (`float`): latents of the same video that are further away in time are negatives, as are those of all other
            videos.
        temperature (`float`): divides the similarities.

    Returns:
        `torch.Tensor` scalar: mean over at most `MAX_ANCHORS` latents, drawn at random; 0 if no latent has a positive.
    """
    valid = mask.bool()
    sample, index = (torch.arange(size, device=mask.device) for size in mask.shape)
    sample, index = sample[:, None].expand_as(mask)[valid], index.expand_as(mask)[valid]
    rows, anchors = (valid & (positives >= 0)).nonzero(as_tuple=True)
    if len(rows) == 0:
        return first.sum() * 0.0
    if len(rows) > MAX_ANCHORS:
        chosen = torch.randperm(len(rows), device=rows.device)[:MAX_ANCHORS]
        rows, anchors = rows[chosen], anchors[chosen]
    similarity = F.normalize(first[rows, anchors].float(), dim=-1) @ F.normalize(second[valid].float(), dim=-1).T
    similarity = similarity / temperature
    same_video = rows[:, None] == sample
    near = same_video & ((times[rows, anchors][:, None] - times[valid]).abs() <= distance)
    positive = same_video & (index == positives[rows, anchors][:, None])
    similarity = similarity.masked_fill(near & ~positive, -torch.inf)
    return F.cross_entropy(similarity, positive.long().argmax(dim=1))


def _interleaved(roles: list[ActionEncoderOutput]) -> ActionEncoderOutput:
    """Merges the sentences of several roles into one, ordered by start time; tokens that start together are ordered by role."""
    joined = {name: torch.cat([role[name] for role in roles], dim=1) for name in roles[0]}
    role_numbers = torch.cat([torch.full_like(role.start_times, number) for number, role in enumerate(roles)], dim=1)
    starts = torch.where(joined["attention_mask"].bool(), joined["start_times"], torch.inf)
    order = torch.argsort(role_numbers, dim=1, stable=True)
    order = order.gather(1, torch.argsort(starts.gather(1, order), dim=1, stable=True))
    return ActionEncoderOutput(
        **{
            name: values.gather(1, order.view(*order.shape, *[1] * (values.dim() - 2)).expand_as(values))
            for name, values in joined.items()
        }
    )


__all__ = ["VSTModel", "VSTOutput", "VSTPreTrainedModel", "consistency_loss"]
