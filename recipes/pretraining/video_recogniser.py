"""The model that a visual encoder is trained in: temporal attention over its features, and a linear classifier."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import ResNetConfig, ResNetModel

from action_llm.temporal_attention import TemporalSelfAttention
from action_llm.visual_encoder import VisualEncoder


class VideoRecogniser(nn.Module):
    """Visual encoder, temporal self-attention over segments, and a linear classifier on their mean.

    Args:
        config (`ResNetConfig`): configuration of the visual encoder.
        num_classes (`int`): number of classes.
        label_smoothing (`float`): label smoothing of the loss.
        mixup (`float`): α of the beta distribution by which videos of a batch, and their losses, are blended in training (Zhang
            et al., "mixup: Beyond Empirical Risk Minimization", 2018); 0 disables mixup.
    """

    accepts_loss_kwargs = False

    def __init__(self, config: ResNetConfig, num_classes: int, label_smoothing: float, mixup: float = 0.0):
        super().__init__()
        width = config.hidden_sizes[-1]
        self.encoder = VisualEncoder(ResNetModel(config))
        self.attention = TemporalSelfAttention(
            width, width, hidden_size=width, num_layers=2, num_heads=4, intermediate_size=2 * width, dropout=0.1
        )
        self.head = nn.Linear(width, num_classes)
        self.label_smoothing, self.mixup = label_smoothing, mixup

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict:
        """(B, segments, frames, 3, H, W) → `logits` (B, classes), and the `loss` if there are labels (B,)."""
        uses_mixup = self.training and self.mixup > 0 and labels is not None
        if uses_mixup:
            share = torch.distributions.Beta(self.mixup, self.mixup).sample().item()
            order = torch.randperm(len(labels))
            pixel_values = share * pixel_values + (1 - share) * pixel_values[order]
        features = self.encoder(pixel_values).mean(dim=2)
        states = self.attention(features, torch.ones(features.shape[:2], device=features.device))
        logits = self.head(states.mean(dim=1))
        if labels is None:
            return {"logits": logits}
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if uses_mixup:
            other = F.cross_entropy(logits, labels[order], label_smoothing=self.label_smoothing)
            loss = share * loss + (1 - share) * other
        return {"loss": loss, "logits": logits}
