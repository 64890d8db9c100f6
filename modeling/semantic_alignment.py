"""Semantic alignment: tokens of a recording near the words that name its action (LVLM-VAR, section 3.1)."""

import torch
import torch.nn.functional as F


def alignment_loss(
    recordings: torch.Tensor, labels: torch.Tensor, class_embeddings: torch.Tensor, temperature: float
) -> torch.Tensor:
    """
    InfoNCE between recordings and the names of the classes in the batch, by cosine similarity.

    Args:
        recordings (`torch.Tensor` of shape `(batch_size, dim)`): mean token of each recording.
        labels (`torch.LongTensor` of shape `(batch_size,)`, or `torch.FloatTensor` of shape `(batch_size, num_classes)`): class
            of each recording, or the share of each class in a blended one; shares sum to 1.
        class_embeddings (`torch.Tensor` of shape `(num_classes, dim)`): text embeddings of the class names; get no gradient.
        temperature (`float`): divides the similarities.

    Raises:
        ValueError: if the class embeddings are not as wide as the codes, or the shares are not of as many classes.
    """
    if recordings.shape[-1] != class_embeddings.shape[-1]:
        raise ValueError(
            f"`class_embeddings` must be as wide as the codes, {recordings.shape[-1]}, got {class_embeddings.shape[-1]}."
        )
    if labels.is_floating_point():
        if labels.shape[-1] != len(class_embeddings):
            raise ValueError(
                f"`labels` must have the share of each of the {len(class_embeddings)} classes of `class_embeddings`, got "
                f"{labels.shape[-1]} shares."
            )
        in_batch = (labels > 0).any(dim=0)
        classes, targets = in_batch.nonzero().squeeze(1), labels[:, in_batch].float()
    else:
        classes, targets = labels.unique(return_inverse=True)
    names = F.normalize(class_embeddings.detach()[classes].float(), dim=-1)
    return F.cross_entropy(F.normalize(recordings.float(), dim=-1) @ names.T / temperature, targets)


__all__ = ["alignment_loss"]
