"""The Video-to-Event Mapper (VTEM): turns long videos into sentences of visual event tokens (VT-LVLM-AR, section III.A)."""

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
from .codebook import EuclideanCodebook
from .configuration_vtem import VTEMConfig
from .modeling_vst import consistency_loss
from .temporal_pooling import (
    BURST,
    SLACK,
    Budget,
    Events,
    EventStream,
    PooledEvent,
    largest_sum,
    pool_events,
    unpool,
    within_budget,
)
from .video_action_model import VideoActionModel
from .visual_encoder import FeatureStandardisation, VisualEncoder, fresh_backbone, keep_weights

# Lower bound of the novelty, in units of standardised features: smaller differences count as none.
LEAST_NOVELTY = 1e-3
# Initial change of the logit of a weight per standard deviation of the log novelty.
SENSITIVITY = 2.0
# Bound of the network's contribution to that logit: unfamiliar input alone must not make events where nothing changes.
MOST_LEARNED = 2.0
# Number of segments that a stream processes at a time.
STREAM_BLOCK = 8


@dataclass
class VTEMOutput(ModelOutput):
    """
    Loss of [`VTEMModel`] and its unweighted terms. A term that does not apply is `None`.

    Args:
        loss (`torch.FloatTensor` scalar):
            Weighted sum of the terms.
        reconstruction_loss (`torch.FloatTensor` scalar):
            Mean squared error between the standardised features of the cells (with `maps_features`, those of the vision
            tower) and the tokens of their events.
        coherence_loss (`torch.FloatTensor` scalar, *optional*):
            InfoNCE of consecutive events at the same place. Only in training, and if its weight is positive.
        embedding_loss, commitment_loss (`torch.FloatTensor` scalar, *optional*):
            Mean squared difference between valid latents and their codes.
        quantity_loss (`torch.FloatTensor` scalar, *optional*):
            Squared relative error of the number of events. Only with adaptive pooling.
        action_ids (`torch.LongTensor` of shape `(batch_size, num_events)`, *optional*):
            Nearest tokens; 0 where padded.
        attention_mask (`torch.LongTensor` of the same shape):
            1 for events, 0 for padding.
        usage (`torch.FloatTensor` of shape `(codebook_size,)`, *optional*):
            How often each token was chosen.
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
    Weights of cells: a cell weighs more, the more it differs from the cells before it at the same place of the frame.

    The logit of a weight is a linear function of the log novelty, plus the output of a network that sees the same cells.
    Novelty is the distance from the mean of the cells before. `calibrate` chooses the bias so that pooling makes three quarters
    of the allowed events; the network starts at 0.
    """

    def __init__(self, config: VTEMConfig):
        super().__init__()
        self.reach, self.places = config.weight_reach, config.grid**2
        self.rate = mean_weight(config)
        self.input = nn.Linear(config.feature_size, config.weight_size)
        self.context = nn.Conv1d(config.weight_size, config.weight_size, self.reach, dilation=self.places)
        self.output = nn.Linear(config.weight_size, 1)
        self.sensitivity = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(()))
        # Statistics of the log novelty over training videos.
        self.novelty = FeatureStandardisation(1)

    @property
    def num_before(self) -> int:
        """Number of cells before the first cell that its weight depends on."""
        return (self.reach - 1) * self.places

    def begin(self, states: torch.Tensor) -> torch.Tensor:
        """
        Stand-ins for the cells before the start of a video: copies of the cells of its first frame.

        Args:
            states (`torch.Tensor` of shape `(batch_size, num_cells, feature_size)`): standardised features.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_before, feature_size)`.
        """
        return states[:, torch.arange(self.num_before, device=states.device) % self.places % states.shape[1]]

    def log_novelty(self, states: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Logarithm (batch_size, num_cells) of the root mean square difference from the mean of the cells before."""
        cells, length = torch.cat([before, states], dim=1), states.shape[1]
        past = sum(cells[:, i * self.places : i * self.places + length] for i in range(self.reach - 1))
        differences = states - past / (self.reach - 1)
        return differences.square().mean(dim=-1).clamp_min(LEAST_NOVELTY**2).log() / 2

    def forward(self, states: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(batch_size, num_cells, feature_size)`): standardised features.
            before (`torch.Tensor` of shape `(batch_size, num_before, feature_size)`): features of the cells before.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_cells)`, between 0 and 1.
        """
        cells = self.input(torch.cat([before, states], dim=1).to(self.input.weight.dtype))
        learned = self.output(F.gelu(self.context(cells.transpose(1, 2))).transpose(1, 2))[..., 0].float()
        learned = MOST_LEARNED * torch.tanh(learned / MOST_LEARNED)
        return torch.sigmoid(self._of_novelty(self.log_novelty(states, before)) + learned)

    def _of_novelty(self, log_novelty: torch.Tensor) -> torch.Tensor:
        return self.bias + self.sensitivity * self.novelty(log_novelty[..., None])[..., 0]

    @torch.no_grad()
    def calibrate(self, log_novelty: torch.Tensor) -> None:
        """Sets the statistics of the log novelty, and the bias that gives the number of events that pooling aims at.

        Args:
            log_novelty (`torch.Tensor` of shape `(num_cells,)`): log novelty of all cells of the training videos.
        """
        values = log_novelty.double()
        self.novelty.set(values.mean()[None].float(), values.std(correction=0)[None].float())
        low, high = -50.0, 50.0
        for _ in range(60):
            self.bias.fill_((low + high) / 2)
            too_many = torch.sigmoid(self._of_novelty(log_novelty)).mean() > self.rate
            low, high = (low, float(self.bias)) if too_many else (float(self.bias), high)


def mean_weight(config: VTEMConfig) -> float:
    """
    Mean weight of a cell that pooling aims at: three quarters of the largest sum in a window (see `BURST`), divided by its
    cells. This is the number of events per cell, and its inverse the mean length of events in steps.
    """
    return (1 - BURST / 2) * largest_sum(config.max_events, config.num_places) / config.window_cells


class VTEMPreTrainedModel(VideoActionModel):
    config_class = VTEMConfig
    base_model_prefix = "vtem"
    _keep_in_fp32_modules_strict = ["quantizer", "standardisation", "target_standardisation", "novelty"]
    code_deviation = 1.0  # of standardised features
    feature_unit = "cells"

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
    Visual encoder, adaptive temporal pooling and codebook (VT-LVLM-AR, Eq. 1 to 3). The codes are features of the language
    model's own vision tower, which its projector reads. There is no decoder: the code of an event itself reconstructs the
    features of its cells.

    All methods take `pixel_values`, as [`VideoFeatureExtractor`] returns them, or `input_features` (batch_size, num_cells,
    views, feature_size), which `features` computes from them: the features of a data set need to be computed only once.

    Args:
        config ([`VTEMConfig`]): the configuration.
        backbone (`PreTrainedModel`, *optional*): a pretrained visual encoder; without it, a new one is initialised.

    Raises:
        ValueError: if an input of a method has the wrong shape; the message names the argument.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
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
            self.quantizer = EuclideanCodebook.from_config(config)
        self.post_init()
        if backbone is not None:
            keep_weights(backbone)
        self.freeze()

    @staticmethod
    def codes_are_features(config_fields: dict) -> bool:
        return not config_fields.get("maps_features")

    @property
    def features_per_segment(self) -> int:
        return self.config.grid**2

    @property
    def codebook(self) -> torch.Tensor:
        """Codes (codebook_size, codebook_dim), float32, as features of the vision tower."""
        if not self.config.quantize:
            raise ValueError("this model has no codebook: its configuration has `quantize=False`")
        return self._targets.inverse(self.quantizer.weight)

    @property
    def _targets(self) -> FeatureStandardisation:
        """Statistics of the vision tower's features, in whose standardised units codes are kept."""
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
                1 for valid positions, 0 for padding: (batch_size, num_segments) with `pixel_values`, (batch_size, num_cells)
                with `input_features`.
            frame_rate (`torch.Tensor` of shape `(batch_size,)`, *optional*, defaults to 1):
                Segments per second; gives the times of the tokens.
        """
        features, mask = self._inputs(pixel_values, input_features, feature_attention_mask)
        rates = self._segment_rates(frame_rate, features)
        shortest = int(mask.sum(dim=1).min())
        if shortest < min(self.config.max_events, self.config.window_cells):
            warnings.warn(
                f"a video has {shortest} cells, fewer than the {self.config.max_events} events that it may have: read more "
                "segments of it, or use a finer grid.",
                stacklevel=2,
            )
        events, _ = self._events(self.standardisation(features.mean(dim=2)), mask)
        latents, places = self._latents(events.features), events.places
        starts, ends = self._times(events.starts, events.ends, rates.double()[:, None])
        valid = events.mask[..., None]
        raw = self._targets.inverse(latents) * valid
        if not self.config.quantize:
            return ActionEncoderOutput(None, events.mask, raw, raw, starts, ends, places=places)
        ids, codes = self._nearest(latents.flatten(0, 1))
        embeds = self._targets.inverse(codes).view_as(latents) * valid
        ids = ids.view_as(events.mask) * events.mask
        return ActionEncoderOutput(ids, events.mask, embeds, raw, starts, ends, places=places)

    def stream(self, frame_rate: float) -> "VisualEventStream":
        """
        Returns a [`VisualEventStream`], which reads one video of any length in bounded memory.

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
        Computes all losses (VT-LVLM-AR, Eq. 4).

        Args:
            pixel_values, input_features, feature_attention_mask: see `encode`.
            target_features (`torch.Tensor` of shape `(batch_size, num_cells, views, codebook_dim)`, *optional*):
                Features of the vision tower for the same cells; required with `maps_features`.
        """
        config = self.config
        features, mask = self._inputs(pixel_values, input_features, feature_attention_mask)
        states = self.standardisation(features.mean(dim=2))
        targets = states
        if config.maps_features:
            if target_features is None or target_features.shape[:2] != mask.shape:
                actual = None if target_features is None else tuple(target_features.shape)
                raise ValueError(
                    f"`target_features` of the vision tower must have the cells {tuple(mask.shape)} of the visual encoder, "
                    f"got {actual}."
                )
            targets = self.target_standardisation(target_features.float().mean(dim=2))
        events, weights = self._events(states, mask)
        latents, valid = self._latents(events.features), events.mask.bool()
        terms, loss, embeds = {"attention_mask": events.mask}, 0.0, latents
        if weights is not None:
            expected = mean_weight(config) * mask.sum()
            terms["quantity_loss"] = ((weights.flatten(1) * mask).sum() / expected - 1).square()
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
            # Straight-through: the value is the code, and the gradient goes to the latents (and here, to the codes as well).
            codes = torch.zeros_like(latents).masked_scatter(valid[..., None], codes)
            through = latents - latents.detach()
            embeds, contrasted = codes.detach() + through, codes + through
        else:
            contrasted = latents
        # The features are targets and get no gradient.
        is_cell = mask.bool()
        cells = unpool(embeds, events).flatten(1, 2)
        terms["reconstruction_loss"] = F.mse_loss(cells[is_cell], targets.detach()[is_cell])
        loss = loss + config.reconstruction_weight * terms["reconstruction_loss"]
        if self.training and config.coherence_weight > 0:
            terms["coherence_loss"] = self._coherence_loss(contrasted, events)
            loss = loss + config.coherence_weight * terms["coherence_loss"]
        return VTEMOutput(loss=loss, **terms)

    def _inputs(self, pixel_values, input_features, mask) -> tuple[torch.Tensor, torch.Tensor]:
        """See [`VideoActionModel`]; also checks that segments are whole."""
        features, mask = super()._inputs(pixel_values, input_features, mask)
        cells = self.features_per_segment
        if features.shape[1] % cells or bool((mask.unflatten(1, (-1, cells)).diff(dim=2) != 0).any()):
            raise ValueError(
                f"`input_features` and `feature_attention_mask` must have {cells} cells for each segment, which `grid` "
                f"{self.config.grid} gives, got {mask.sum(dim=1).tolist()} cells of {features.shape[1]}."
            )
        return features, mask

    def _events(self, states: torch.Tensor, mask: torch.Tensor) -> tuple[Events, torch.Tensor | None]:
        """
        Standardised features (batch_size, num_cells, feature_size) and their mask → events, and the cell weights (batch_size,
        num_steps, num_places) before the budget, `None` with uniform pooling.
        """
        if self.config.pooling == "uniform":
            weights, kept = None, self._uniform(states)
        else:
            weights = self._weights(states, self.cell_weights.begin(states))
            kept = within_budget(weights, self.config.max_events, self.config.window_cells)
        return pool_events(self._steps(states), kept, self._steps(mask)[..., 0]), weights

    def _steps(self, cells: torch.Tensor) -> torch.Tensor:
        """Cells (batch_size, num_cells, …) → (batch_size, num_steps, num_places, …)."""
        return cells.unflatten(1, (-1, self.config.num_places))

    def _weights(self, states: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Weights (batch_size, num_steps, num_places) of cells; see [`CellWeights`]."""
        weights = self._steps(self.cell_weights(states, before))
        if self.config.pooling_scope == "frame":
            weights = weights.mean(dim=2, keepdim=True).expand_as(weights)
        return weights

    def _uniform(self, states: torch.Tensor) -> torch.Tensor:
        """Weights (batch_size, num_steps, num_places) that give events of equal length, as many as adaptive pooling aims at."""
        return self._steps(states.new_full(states.shape[:2], mean_weight(self.config), dtype=torch.float64))

    def _coherence_loss(self, tokens: torch.Tensor, events: Events) -> torch.Tensor:
        """InfoNCE between consecutive events at the same place, by the time between the middles of events."""
        # Events of equal length are whole numbers of lengths apart.
        distance = self.config.negative_distance / mean_weight(self.config) + SLACK
        middles = (events.starts + events.ends) / 2
        return consistency_loss(
            tokens, tokens, events.mask, events.following, middles, distance, self.config.contrast_temperature
        )

    def _latents(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled features (…, feature_size) → standardised features of the vision tower (…, codebook_dim), float32."""
        if self.config.maps_features:
            pooled = self.feature_map(pooled.to(self.feature_map.weight.dtype))
        return pooled.float()

    def _nearest(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (N, dim) → ids (N,), codes (N, dim); the codes are not moved."""
        with torch.autocast(device_type=latents.device.type, enabled=False):
            quantized = self.quantizer.lookup(latents.contiguous())
        return quantized.ids, quantized.embeds

    def _times(self, starts, ends, rate) -> tuple[torch.Tensor, torch.Tensor]:
        """Steps → seconds, float32. If a segment has several steps, they have the same time."""
        steps = self.features_per_segment // self.config.num_places
        if steps > 1:
            starts, ends = torch.floor(starts / steps + 1e-9), torch.ceil(ends / steps - 1e-9)
        return (starts / rate).float(), (ends / rate).float()


class VisualEvent(NamedTuple):
    """
    An event of a stream.

    Attributes:
        action_id: the token, 0 to `codebook_size` − 1; `None` without a codebook.
        start, end: seconds from the start of the video.
        latent: the pooled feature before quantisation, float32 (codebook_dim,); `None` if it was not kept.
        place: the cell of the frame, row by row, 0 to `grid` ** 2 − 1.
    """

    action_id: int | None
    start: float
    end: float
    latent: torch.Tensor | None
    place: int = 0


class VisualEventStream:
    """
    Turns the frames of one video of any length into events, in a single pass. Memory does not grow with the video.

    Segments are processed in blocks of `STREAM_BLOCK`, counted from the start of the video. The events are therefore identical
    to the last bit, however the video is divided into calls of `push`.

    Args:
        model ([`VTEMModel`]): the mapper; it is not changed.
        frame_rate (`float`): segments per second.

    Raises:
        ValueError: if the frame rate is not a positive number.
    """

    def __init__(self, model: VTEMModel, frame_rate: float):
        if not 0 < frame_rate < math.inf:
            raise ValueError(f"`frame_rate` must be a positive number of segments per second, got {frame_rate}.")
        self.model, self.frame_rate = model, frame_rate
        config = model.config
        self._budget = Budget(config.max_events, config.window_cells, config.num_places)
        self._events = EventStream(config.feature_size, config.num_places)
        self._before = None
        self._waiting: list[torch.Tensor] = []
        self._pushed, self._shape = 0, None

    def push(
        self, pixel_values: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> list[VisualEvent]:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(num_segments, frames, 3, height, width)`, *optional*):
                The next segments of the video.
            input_features (`torch.Tensor` of shape `(num_segments, grid ** 2, views, feature_size)`, *optional*):
                Features of the next segments, instead of pixels.

        Returns:
            `list[VisualEvent]`: the events that have ended since the last call.

        Raises:
            ValueError: if segments have the wrong shape, or contain NaN or Inf; no segment of the call is read then.
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
        """Returns the remaining events, and resets the stream for the next video."""
        events = self._read(self._waiting) if self._waiting else []
        events += [self._quantized(event) for event in self._events.finish()]
        self.__init__(self.model, self.frame_rate)
        return events

    @property
    def seconds(self) -> float:
        """Seconds of the video whose blocks have been processed."""
        return (self._pushed - len(self._waiting)) / self.frame_rate

    def unfinished(self) -> list[VisualEvent]:
        """The event at each place that has not ended, as if the video ended after the last block. Changes nothing."""
        return [self._quantized(event) for event in self._events.unfinished()]

    def _checked(self, segments: torch.Tensor) -> torch.Tensor:
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
            raise ValueError(
                f"segment {self._pushed} has the shape {shape}, but the segments before it have {self._shape}."
            )
        bad = ~segments.flatten(1).isfinite().all(dim=1)
        if bad.any():
            raise ValueError(f"segment {self._pushed + int(bad.nonzero()[0])} contains NaN or Inf.")
        self._shape = shape
        return segments

    @torch.no_grad()
    def _read(self, block: list[torch.Tensor]) -> list[VisualEvent]:
        model, segments = self.model, torch.stack(block).to(self.model.device)
        features = model.features(segments[None])[0] if segments.dim() == 5 else segments.flatten(0, 1).float()
        states = model.standardisation(features.mean(dim=1))[None]
        if model.config.pooling == "uniform":
            weights = model._uniform(states).cpu().numpy()
        else:
            cells = model.cell_weights
            before = cells.begin(states) if self._before is None else self._before
            weights = model._weights(states, before).double().cpu().numpy()
            weights = np.minimum(weights, self._budget.allow(weights))
            self._before = torch.cat([before, states], dim=1)[:, -cells.num_before :]
        steps = model._steps(states)[0].cpu().numpy()
        return [self._quantized(event) for event in self._events.push(steps, weights[0])]

    @torch.no_grad()
    def _quantized(self, event: PooledEvent) -> VisualEvent:
        model = self.model
        pooled = torch.from_numpy(event.feature).to(model.device, torch.float32)[None]
        latents = model._latents(pooled)
        token = int(model._nearest(latents)[0]) if model.config.quantize else None
        span = (torch.tensor(at, dtype=torch.float64) for at in (event.start, event.end))
        start, end = model._times(*span, self.frame_rate)
        latent = model._targets.inverse(latents)[0].cpu()
        return VisualEvent(token, float(start), float(end), latent, event.place)


__all__ = ["VTEMModel", "VTEMOutput", "VTEMPreTrainedModel", "VisualEvent", "VisualEventStream"]
