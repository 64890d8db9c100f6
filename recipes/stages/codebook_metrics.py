"""The metrics of a codebook in the evaluation of stage 1."""

import torch

from action_llm.action_sentence import FAMILIAR_SHARE
from action_llm.language_priors import usage_statistics


def codebook_metrics(usage: torch.Tensor, distances: list[torch.Tensor]) -> dict[str, float]:
    """
    How recordings use a codebook, and how far they are from it.

    Args:
        usage (`torch.Tensor` of shape `(codebook_size,)`):
            How often each code was chosen.
        distances (`list[torch.Tensor]`):
            Of each batch of recordings, what [`token_distance`] returns. Empty without a codebook.

    Returns:
        `dict[str, float]`: with a codebook, `familiar_distance` of the model's configuration, and what [`usage_statistics`]
        returns, as `codebook/NAME`. Empty without.
    """
    metrics = {}
    if distances:
        metrics["familiar_distance"] = torch.cat(distances).quantile(FAMILIAR_SHARE).item()
    if usage.sum() > 0:
        metrics |= {f"codebook/{name}": value for name, value in usage_statistics(usage).items()}
    return metrics
