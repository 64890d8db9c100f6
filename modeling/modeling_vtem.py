"""The Video-to-Event Mapper: long videos to sentences of visual event tokens (VT-LVLM-AR, section III.A)."""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput

from .action_sentence import ActionEncoderOutput
from .codebook import EuclideanCodebook, codebook_settings
from .configuration_vtem import VTEMConfig
from .modeling_vst import consistency_loss
from .temporal_pooling import BURST, Budget, Events, EventStream, PooledEvent, pool_events, unpool, within_budget
from .video_action_model import VideoActionModel
from .visual_encoder import FeatureStandardisation, VisualEncoder, fresh_backbone, keep_weights

# Of standardised features: what differs by less is the same.
LEAST_NOVELTY = 1e-3
# What a deviation of the logarithm of the novelty adds to the logit of a weight, where training begins.
SENSITIVITY = 2.0
# What a network may add to that logit, at most: where nothing changes, nothing that it has never seen makes events.
MOST_LEARNED = 2.0
# Segments that a stream looks at together.
STREAM_BLOCK = 8


@dataclass
class VTEMOutput(ModelOutput):
    """
    Loss of [`VTEMModel`] with every term by name, unweighted; a term is `None` where it does not exist.

    Args:
        loss (`torch.FloatTensor` scalar):
            Every term times its weight.
        reconstruction_loss (`torch.FloatTensor` scalar):
            Mean squared error between the standardised features of the cells (with `maps_features`, those of the vision
            tower) and the tokens of their events.
        coherence_loss (`torch.FloatTensor` scalar, *optional*):
            InfoNCE of tokens that are close in time. Only in training, with a weight.
        embedding_loss, commitment_loss (`torch.FloatTensor` scalar, *optional*):
            Mean squared difference between valid latents and their codes.
        quantity_loss (`torch.FloatTensor` scalar, *optional*):
            Squared relative error of the number of events. Only with adaptive pooling.
        action_ids (`torch.LongTensor` of shape `(batch_size, num_events)`, *optional*):
            Nearest tokens; 0 where padded.
        attention_mask (`torch.LongTensor` of the same shape):
            1 for an event, 0 for padding.
        usage (`torch.FloatTensor` of shape `(codebook_size,)`, *optional*):
            How often each token is the nearest one.
    """

    loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    coherence_loss: torch.FloatTensor | None = None
    embedding_loss: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    quantity_loss: torch.FloatTensor | None = None
    action_ids: torch.LongTensor | None = None
    attention_mask: torch.LongTensor | None = None
    usage: torch.FloatTensor | None = None


class CellWeights(nn.Module):
    """
    How much of an event each cell is: the more, the more it differs from the cells before it at the same place of the picture.

    Where it begins is the novelty alone, the distance from their mean, which weighs so that three quarters of the allowed
    events come to pass (`calibrate`); a network that sees those cells learns what is to be added.
    """

    def __init__(self, config: VTEMConfig):
        super().__init__()
        self.reach, self.places = config.weight_reach, config.grid**2
        self.rate = events_per_cell(config)
        self.input = nn.Linear(config.feature_size, config.weight_size)
        self.context = nn.Conv1d(config.weight_size, config.weight_size, self.reach, dilation=self.places)
        self.output = nn.Linear(config.weight_size, 1)
        self.sensitivity = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(()))
        # Of the logarithm of the novelty, over training videos.
        self.novelty = FeatureStandardisation(1)

    @property
    def num_before(self) -> int:
        """Cells that are seen before the first one."""
        return (self.reach - 1) * self.places

    def begin(self, states: torch.Tensor) -> torch.Tensor:
        """What is taken for the cells before the first ones (batch_size, num_cells, feature_size): those, standing still."""
        return states[:, torch.arange(self.num_before, device=states.device) % self.places % states.shape[1]]

    def log_novelty(self, states: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Logarithm (batch_size, num_cells) of the root mean square difference from the mean of the cells before."""
        seen, length = torch.cat([before, states], dim=1), states.shape[1]
        past = sum(seen[:, i * self.places : i * self.places + length] for i in range(self.reach - 1))
        differences = states - past / (self.reach - 1)
        return differences.square().mean(dim=-1).clamp_min(LEAST_NOVELTY**2).log() / 2

    def forward(self, states: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(batch_size, num_cells, feature_size)`): standardised features.
            before (`torch.Tensor` of shape `(batch_size, num_before, feature_size)`): those of the cells before.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_cells)`, between 0 and 1.
        """
        seen = self.input(torch.cat([before, states], dim=1).to(self.input.weight.dtype))
        learned = self.output(F.gelu(self.context(seen.transpose(1, 2))).transpose(1, 2))[..., 0].float()
        learned = MOST_LEARNED * torch.tanh(learned / MOST_LEARNED)
        return torch.sigmoid(self._of_novelty(self.log_novelty(states, before)) + learned)

    def _of_novelty(self, log_novelty: torch.Tensor) -> torch.Tensor:
        return self.bias + self.sensitivity * self.novelty(log_novelty[..., None])[..., 0]

    @torch.no_grad()
    def calibrate(self, log_novelty: torch.Tensor) -> None:
        """Takes the statistics of the novelty over, and the bias with which it makes as many events as are aimed at.

        Args:
            log_novelty (`torch.Tensor` of shape `(num_cells,)`): of all cells of the training videos.
        """
        found = log_novelty.double()
        self.novelty.set(found.mean()[None].float(), found.std(correction=0)[None].float())
        low, high = -50.0, 50.0
        for _ in range(60):
            self.bias.fill_((low + high) / 2)
            too_many = torch.sigmoid(self._of_novelty(log_novelty)).mean() > self.rate
            low, high = (low, float(self.bias)) if too_many else (float(self.bias), high)


def events_per_cell(config: VTEMConfig) -> float:
    """The number of events a cell that pooling aims at: what a window can have, less half of what it may save up."""
    return (1 - BURST / 2) * config.max_events / config.window_cells


class VTEMPreTrainedModel(VideoActionModel):
    config_class = VTEMConfig
    base_model_prefix = "vtem"
    _keep_in_fp32_modules_strict = ["quantizer", "standardisation", "target_standardisation", "novelty"]
    # That of standardised features.
    code_deviation = 1.0

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, CellWeights):
            init.zeros_(module.output.weight)
            init.zeros_(module.output.bias)
            init.constant_(module.bias, math.log(module.rate / (1 - module.rate)))
            init.constant_(module.sensitivity, SENSITIVITY)


class VTEMModel(VTEMPreTrainedModel):
    """
    Visual encoder, adaptive temporal pooling, codebook (VT-LVLM-AR, Eq. 1 to 3). Tokens are features of the language model's
    own vision tower, which its projector reads: what reconstructs the cells of an event is its token.

    All methods take `pixel_values`, as [`VideoFeatureExtractor`] gives them, or `input_features` (batch_size, num_cells,
    views, feature_size), what `features` makes of them: those of a data set need be computed only once.

    Args:
        config ([`VTEMConfig`]): the configuration.
        backbone (`PreTrainedModel`, *optional*): a visual encoder to use instead of a fresh one.

    Raises:
        ValueError: by all methods, for inputs of a wrong shape; the message names the argument.
    """

    # Saving puts the code beside the weights, so that they load where this package is not installed.
    _auto_class = "AutoModel"

    def __init__(self, config: VTEMConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        self.visual_encoder = VisualEncoder(
            fresh_backbone(config.backbone_config) if backbone is None else backbone,
            config.feature_layer,
            config.grid,
        )
        self.standardisation = FeatureStandardisation(config.feature_size)
        if config.pooling == "adaptive":
            self.cell_weights = CellWeights(config)
        if config.maps_features:
            self.feature_map = nn.Linear(config.feature_size, config.codebook_dim)
            self.target_standardisation = FeatureStandardisation(config.codebook_dim)
        if config.quantize:
            self.quantizer = EuclideanCodebook(config.codebook_size, **codebook_settings(config))
        self.post_init()
        if backbone is not None:
            keep_weights(backbone)
        self.freeze()

    @classmethod
    def from_backbone(cls, backbone: PreTrainedModel, **settings) -> "VTEMModel":
        """
        A fresh mapper around a visual encoder that is there.

        Args:
            backbone (`PreTrainedModel`): of pictures or clips, as `AutoModel.from_pretrained` gives it.
            **settings: fields of [`VTEMConfig`]; `backbone_config` and `feature_size` are the visual encoder's.
        """
        # Where it lies on this machine is nobody else's business.
        backbone.config._name_or_path = ""
        settings = {"feature_size": VisualEncoder(backbone).feature_size, **settings}
        if not settings.get("maps_features"):
            settings.setdefault("codebook_dim", settings["feature_size"])
        return cls(VTEMConfig(**{**settings, "backbone_config": backbone.config}), backbone=backbone)

    @property
    def codebook(self) -> torch.Tensor:
        """Codes (codebook_size, codebook_dim), float32, as features of the vision tower."""
        if not self.config.quantize:
            raise ValueError("this model has no codebook: it was made with `quantize=False`")
        return self._targets.inverse(self.quantizer.weight)

    @property
    def _targets(self) -> FeatureStandardisation:
        """Statistics of the features that tokens are."""
        return self.target_standardisation if self.config.maps_features else self.standardisation

    def encode(
        self,
        pixel_values: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        frame_rate: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
    ) -> ActionEncoderOutput:
        """
        Turns videos into visual event sentences.

        Args:
            pixel_values, input_features: see [`VTEMModel`].
            feature_attention_mask (`torch.Tensor`, *optional*):
                1 for what is there, 0 for padding: (batch_size, num_segments) of `pixel_values`, (batch_size, num_cells) of
                `input_features`.
            frame_rate (`torch.Tensor` of shape `(batch_size,)`, *optional*):
                Segments per second, for the times; 1 by default.
        """
        features, mask = self._inputs(pixel_values, input_features, feature_attention_mask)
        rate = features.new_ones(len(mask)) if frame_rate is None else frame_rate.to(features)
        if rate.shape != (len(mask),):
            raise ValueError(f"`frame_rate` must have the shape ({len(mask)},), got {tuple(rate.shape)}.")
        shortest = int(mask.sum(dim=1).min())
        if shortest < min(self.config.max_events, self.config.window_cells):
            warnings.warn(
                f"a video has {shortest} cells, fewer than the {self.config.max_events} events that it may have: take more "
                "segments of it, or a finer grid.",
                stacklevel=2,
            )
        events, _ = self._events(self.standardisation(features.mean(dim=2)), mask)
        latents = self._latents(events.features)
        starts, ends = self._times(events.starts, events.ends, rate.double()[:, None])
        valid = events.mask[..., None]
        raw = self._targets.inverse(latents) * valid
        if not self.config.quantize:
            return ActionEncoderOutput(None, events.mask, raw, raw, starts, ends)
        ids, codes = self._nearest(latents.flatten(0, 1))
        embeds = self._targets.inverse(codes).view_as(latents) * valid
        return ActionEncoderOutput(ids.view_as(events.mask) * events.mask, events.mask, embeds, raw, starts, ends)

    def stream(self, frame_rate: float) -> "VisualEventStream":
        """
        Reads one video of any length, in bounded memory: see [`VisualEventStream`].

        Args:
            frame_rate (`float`): segments per second.
        """
        return VisualEventStream(self, frame_rate)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        feature_attention_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        target_features: torch.Tensor | None = None,
    ) -> VTEMOutput:
        """
        Every loss (VT-LVLM-AR, Eq. 4).

        Args:
            pixel_values, input_features, feature_attention_mask: see `encode`.
            target_features (`torch.Tensor` of shape `(batch_size, num_cells, views, codebook_dim)`, *optional*):
                With `maps_features`, what the vision tower makes of the same cells.
        """
        config = self.config
        features, mask = self._inputs(pixel_values, input_features, feature_attention_mask)
        states = self.standardisation(features.mean(dim=2))
        targets = states
        if config.maps_features:
            if target_features is None or target_features.shape[:2] != mask.shape:
                found = None if target_features is None else tuple(target_features.shape)
                raise ValueError(
                    f"`target_features` of the vision tower must have the cells {tuple(mask.shape)} of the visual encoder, "
                    f"got {found}."
                )
            targets = self.target_standardisation(target_features.float().mean(dim=2))
        events, weights = self._events(states, mask)
        latents, valid = self._latents(events.features), events.mask.bool()
        terms, loss, read = {"attention_mask": events.mask}, 0.0, latents
        if weights is not None:
            expected = events_per_cell(config) * mask.sum()
            terms["quantity_loss"] = ((weights * mask).sum() / expected - 1).square()
            loss = loss + config.quantity_weight * terms["quantity_loss"]
        if config.quantize:
            with torch.autocast(device_type=latents.device.type, enabled=False):
                ids, codes, _ = self.quantizer(latents[valid])
            terms["usage"] = torch.bincount(ids, minlength=config.codebook_size).float()
            terms["action_ids"] = ids.new_zeros(mask.shape[0], valid.shape[1]).masked_scatter(valid, ids)
            terms["embedding_loss"] = F.mse_loss(codes, latents[valid].detach())
            terms["commitment_loss"] = F.mse_loss(latents[valid], codes.detach())
            if config.codebook_training == "gradient":
                loss = loss + config.embedding_weight * terms["embedding_loss"]
            loss = loss + config.commitment_weight * terms["commitment_loss"]
            # Straight-through: tokens are codes, and their gradient goes to latents as well.
            codes = torch.zeros_like(latents).masked_scatter(valid[..., None], codes)
            through = latents - latents.detach()
            read, contrasted = codes.detach() + through, codes + through
        else:
            contrasted = latents
        # The features are the target, not what is to move.
        there = mask.bool()
        terms["reconstruction_loss"] = F.mse_loss(unpool(read, events)[there], targets.detach()[there])
        loss = loss + config.reconstruction_weight * terms["reconstruction_loss"]
        if self.training and config.coherence_weight > 0:
            terms["coherence_loss"] = consistency_loss(
                contrasted, contrasted, events.mask, 1, config.coherence_distance, config.contrast_temperature
            )
            loss = loss + config.coherence_weight * terms["coherence_loss"]
        return VTEMOutput(loss=loss, **terms)

    def _inputs(self, pixel_values, input_features, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (batch_size, num_cells, views, feature_size) and the mask (batch_size, num_cells) of cells."""
        if (pixel_values is None) == (input_features is None):
            raise ValueError("give either `pixel_values` or `input_features`.")
        if input_features is None:
            features = self.features(pixel_values)
            mask = None if mask is None else mask.repeat_interleave(self.config.grid**2, dim=1)
        else:
            features = input_features.float()
        if features.dim() != 4 or features.shape[-1] != self.config.feature_size or 0 in features.shape:
            raise ValueError(
                f"`input_features` must have the shape (batch_size, num_cells, views, {self.config.feature_size}), "
                f"got {tuple(features.shape)}."
            )
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.long, device=features.device)
        if mask.shape != features.shape[:2]:
            raise ValueError(
                f"`feature_attention_mask` must be of the {tuple(features.shape[:2])} cells, got {tuple(mask.shape)}."
            )
        return features, mask.long()

    def _events(self, states: torch.Tensor, mask: torch.Tensor) -> tuple[Events, torch.Tensor | None]:
        """Standardised features (batch_size, num_cells, feature_size) → events, and the weights before the budget."""
        if self.config.pooling == "uniform":
            return pool_events(states, self._uniform(states), mask), None
        weights = self.cell_weights(states, self.cell_weights.begin(states))
        kept = within_budget(weights, self.config.max_events, self.config.window_cells)
        return pool_events(states, kept, mask), weights

    def _uniform(self, states: torch.Tensor) -> torch.Tensor:
        """Weights (…, num_cells) of events of equal length, as many as adaptive pooling aims at."""
        return states.new_full(states.shape[:-1], events_per_cell(self.config), dtype=torch.float64)

    def _latents(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled features (…, feature_size) → standardised features of the vision tower (…, codebook_dim), float32."""
        if self.config.maps_features:
            pooled = self.feature_map(pooled.to(self.feature_map.weight.dtype))
        return pooled.float()

    def _nearest(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (N, dim) → ids (N,), codes (N, dim); nothing is learned."""
        with torch.autocast(device_type=latents.device.type, enabled=False):
            found = self.quantizer.lookup(latents.contiguous())
        return found.ids, found.embeds

    def _times(self, starts, ends, rate) -> tuple[torch.Tensor, torch.Tensor]:
        """Cells → seconds, float32. The cells of one picture are at the same time."""
        places = self.config.grid**2
        if places > 1:
            starts, ends = torch.floor(starts / places + 1e-9), torch.ceil(ends / places - 1e-9)
        return (starts / rate).float(), (ends / rate).float()


class VisualEvent(NamedTuple):
    """
    An event of a stream.

    Attributes:
        action_id: its token, 0 to `codebook_size` − 1; `None` without a codebook.
        start, end: seconds from the start of the video.
        latent: float32 (codebook_dim,), the pooled feature before quantisation; `None` where it was not kept.
    """

    action_id: int | None
    start: float
    end: float
    latent: torch.Tensor | None


class VisualEventStream:
    """
    Frames in, events out: one video of any length, looked at once. What is held does not grow with it.

    Whatever comes is read in blocks of `STREAM_BLOCK` segments, counted from the start: wherever a video is cut on its way in
    here, the events are the same to the last bit.

    Args:
        model ([`VTEMModel`]): the mapper; it is not changed.
        frame_rate (`float`): segments per second.
    """

    def __init__(self, model: VTEMModel, frame_rate: float):
        if not 0 < frame_rate < math.inf:
            raise ValueError(f"`frame_rate` must be a positive number of segments per second, got {frame_rate}.")
        self.model, self.frame_rate = model, frame_rate
        config = model.config
        self._budget = Budget(config.max_events, config.window_cells)
        self._events = EventStream(config.feature_size)
        self._before = None
        self._waiting: list[torch.Tensor] = []
        self._pushed, self._shape = 0, None

    def push(
        self, pixel_values: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> list[VisualEvent]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(num_segments, frames, 3, height, width)`, *optional*): what comes next.
            input_features (`torch.Tensor` of shape `(num_segments, grid ** 2, views, feature_size)`, *optional*):
                Or what the visual encoder made of it.

        Returns:
            Events that have ended.
        """
        if (pixel_values is None) == (input_features is None):
            raise ValueError("give either `pixel_values` or `input_features`.")
        segments = self._checked(pixel_values if input_features is None else input_features)
        self._waiting.extend(segments)
        self._pushed += len(segments)
        events = []
        while len(self._waiting) >= STREAM_BLOCK:
            block, self._waiting = self._waiting[:STREAM_BLOCK], self._waiting[STREAM_BLOCK:]
            events += self._read(block)
        return events

    def finish(self) -> list[VisualEvent]:
        """The events of what is left. The next video may follow."""
        events = self._read(self._waiting) if self._waiting else []
        events += [self._named(event) for event in self._events.finish()]
        self.__init__(self.model, self.frame_rate)
        return events

    def _checked(self, segments: torch.Tensor) -> torch.Tensor:
        """What is pushed; `ValueError` for what is none, before anything of it is taken."""
        config = self.model.config
        segments = torch.as_tensor(segments)
        shape = tuple(segments.shape[1:])
        is_pixels = len(shape) == 4 and shape[1] == 3
        is_features = len(shape) == 3 and (shape[0], shape[2]) == (config.grid**2, config.feature_size)
        if not (is_pixels or is_features):
            raise ValueError(
                f"a segment must be `input_features` ({config.grid**2}, views, {config.feature_size}) or `pixel_values` "
                f"(frames, 3, height, width), got {shape}."
            )
        if self._shape not in (None, shape):
            raise ValueError(f"segment {self._pushed} has the shape {shape}, and those before it {self._shape}.")
        bad = ~segments.flatten(1).isfinite().all(dim=1)
        if bad.any():
            raise ValueError(f"segment {self._pushed + int(bad.nonzero()[0])} holds what is no number.")
        self._shape = shape
        return segments

    @torch.no_grad()
    def _read(self, block: list[torch.Tensor]) -> list[VisualEvent]:
        model, segments = self.model, torch.stack(block).to(self.model.device)
        features = model.features(segments[None])[0] if segments.dim() == 5 else segments.flatten(0, 1).float()
        states = model.standardisation(features.mean(dim=1))[None]
        if model.config.pooling == "uniform":
            weights = model._uniform(states).double().cpu().numpy()
        else:
            cells = model.cell_weights
            before = cells.begin(states) if self._before is None else self._before
            found = cells(states, before).double().cpu().numpy()
            weights = np.minimum(found, self._budget.allow(found))
            self._before = torch.cat([before, states], dim=1)[:, -cells.num_before :]
        return [self._named(event) for event in self._events.push(states[0].cpu().numpy(), weights[0])]

    @torch.no_grad()
    def _named(self, event: PooledEvent) -> VisualEvent:
        model = self.model
        pooled = torch.from_numpy(event.feature).to(model.device, torch.float32)[None]
        latents = model._latents(pooled)
        token = int(model._nearest(latents)[0]) if model.config.quantize else None
        span = (torch.tensor(at, dtype=torch.float64) for at in (event.start, event.end))
        start, end = model._times(*span, self.frame_rate)
        return VisualEvent(token, float(start), float(end), model._targets.inverse(latents)[0].cpu())


__all__ = ["VTEMModel", "VTEMOutput", "VTEMPreTrainedModel", "VisualEvent", "VisualEventStream"]
