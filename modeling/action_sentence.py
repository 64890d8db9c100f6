"""Action sentences: what every action model writes, and runs of equal tokens in them."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class ActionEncoderOutput(ModelOutput):
    """
    Action sentences.

    Args:
        action_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Token of each position, 0 to `codebook_size` − 1; 0 where padded. `None` without a codebook.
        attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`):
            1 for a token, 0 for padding.
        action_embeds (`torch.FloatTensor` of shape `(batch_size, num_tokens, codebook_dim)`):
            The codebook rows of the tokens, float32; without a codebook the latents. 0 where padded.
        latents (`torch.FloatTensor` of shape `(batch_size, num_tokens, codebook_dim)`):
            Continuous latents before quantisation, float32, their mean where several became one token; 0 where padded.
        start_times, end_times (`torch.FloatTensor` of shape `(batch_size, num_tokens)`):
            Span of each token in seconds from the start of the recording; 0 where padded.
        run_lengths (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Equal tokens that became this one; 0 where padded. `None` where runs are not merged.
    """

    action_ids: torch.LongTensor | None = None
    attention_mask: torch.LongTensor | None = None
    action_embeds: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    start_times: torch.FloatTensor | None = None
    end_times: torch.FloatTensor | None = None
    run_lengths: torch.LongTensor | None = None


def merge_runs(sentences: ActionEncoderOutput) -> ActionEncoderOutput:
    """
    Makes one token of equal tokens that follow each other: from the start of the first to the end of the last.

    Args:
        sentences ([`ActionEncoderOutput`]): with `action_ids`; padding only behind the tokens.
    """
    ids, mask = sentences.action_ids, sentences.attention_mask.bool()
    begins = mask.clone()
    begins[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    run = begins.cumsum(dim=1) - 1  # of each position; in padding that of the last token, which is masked out below
    length = int(begins.sum(dim=1).max()) if begins.numel() else 0
    run = run.clamp_min(0)

    def first_of_run(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """(batch_size, length, …) of those values (batch_size, num_tokens, …) that `where` marks, one a run."""
        merged = values.new_zeros(len(values), length, *values.shape[2:])
        rows, places = where.nonzero(as_tuple=True)
        merged[rows, run[rows, places]] = values[rows, places]
        return merged

    ends = mask.clone()
    ends[:, :-1] &= begins[:, 1:] | ~mask[:, 1:]
    summed = sentences.latents.new_zeros(len(ids), length, sentences.latents.shape[-1])
    weights = mask.to(summed.dtype)
    summed.scatter_add_(1, run[..., None].expand_as(sentences.latents), sentences.latents * weights[..., None])
    counts = summed.new_zeros(len(ids), length).scatter_add_(1, run, weights)
    return ActionEncoderOutput(
        action_ids=first_of_run(ids, begins),
        attention_mask=first_of_run(mask.long(), begins),
        action_embeds=first_of_run(sentences.action_embeds, begins),
        latents=summed / counts.clamp_min(1)[..., None],
        start_times=first_of_run(sentences.start_times, begins),
        end_times=first_of_run(sentences.end_times, ends),
        run_lengths=counts.long(),
    )


__all__ = ["ActionEncoderOutput", "merge_runs"]
