"""Action sentences: the output of every action model, words of several tokens, and runs of equal tokens."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers.utils import ModelOutput

# Share of the recordings evaluated after training whose token distance is at most `familiar_distance`.
FAMILIAR_SHARE = 0.99


@dataclass
class ActionEncoderOutput(ModelOutput):
    """
    Action sentences.

    Args:
        action_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Token at each position, 0 to `codebook_size` − 1; 0 where padded. `None` without a codebook. With R codebooks, the
            R tokens of each word, of shape `(batch_size, num_tokens, R)`; token u of codebook r is `r * codebook_size + u`.
        attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`):
            1 for tokens, 0 for padding.
        action_embeds (`torch.FloatTensor` of shape `(batch_size, num_tokens, codebook_dim)`):
            The codes of the tokens, summed over codebooks, float32; without a codebook, the latents. 0 where padded.
        latents (`torch.FloatTensor` of shape `(batch_size, num_tokens, codebook_dim)`):
            Continuous latents before quantisation, float32; of merged tokens, their mean. 0 where padded.
        start_times, end_times (`torch.FloatTensor` of shape `(batch_size, num_tokens)`):
            Start and end of each token in seconds from the start of the recording; 0 where padded.
        run_lengths (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Number of equal tokens that were merged into this token; 0 where padded. `None` if runs are not merged.
        places (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            The cell of the frame, row by row, whose features a VTEM pooled into this token; 0 where padded, and without a grid.
            `None` for other action models.
    """

    action_ids: torch.LongTensor | None = None
    attention_mask: torch.LongTensor | None = None
    action_embeds: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None
    start_times: torch.FloatTensor | None = None
    end_times: torch.FloatTensor | None = None
    run_lengths: torch.LongTensor | None = None
    places: torch.LongTensor | None = None


def token_distance(sentences: ActionEncoderOutput) -> torch.Tensor | None:
    """
    Relative quantisation error of recordings: the mean of ‖latent − code‖ / ‖latent‖ over the tokens of each recording.

    It is large for recordings unlike those of training, whose latents lie far from all codes.

    Args:
        sentences ([`ActionEncoderOutput`]): sentences of a batch of recordings.

    Returns:
        `torch.FloatTensor` of shape `(batch_size,)`; `None` without a codebook.
    """
    if sentences.action_ids is None:
        return None
    errors = torch.linalg.vector_norm(sentences.latents - sentences.action_embeds, dim=-1)  # 0 where padded
    lengths = torch.linalg.vector_norm(sentences.latents, dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    return (errors / lengths).sum(dim=1) / sentences.attention_mask.sum(dim=1).clamp_min(1)


def first_tokens(action_ids) -> np.ndarray:
    """The token of each word (W,). Of words of several tokens (W, R), it is the token of the first codebook, which carries most
    of the information."""
    action_ids = np.asarray(action_ids)
    return action_ids[:, 0] if action_ids.ndim == 2 else action_ids


class WordIds:
    """
    Ids of words of several tokens, whose embedding is the sum of R codes.

    In text and in `action_ids`, a word is written as its R tokens, one from each codebook in order:
    `<act_3><act_260><act_700>`. In `input_ids` it is a single id: `first` plus the number whose digits in base U are those
    tokens. Sentences stay plain sequences of ids, which can be padded, packed and truncated, and are no longer than with one
    codebook. Tokenizers do not know these ids; `tokens` decodes them.

    Args:
        offset (`int`): id of `<act_0>`.
        first (`int`): id of the word that consists of the first token of every codebook; all larger ids are words, too.
        codes_per_word (`int`): number R of tokens of a word.
        num_action_tokens (`int`): number of tokens of all codebooks, R times U.

    Raises:
        ValueError: if `num_action_tokens` is not a multiple of `codes_per_word`, or there are more words than 64-bit ids.
    """

    def __init__(self, offset: int, first: int, codes_per_word: int, num_action_tokens: int):
        if codes_per_word < 1 or num_action_tokens % codes_per_word:
            raise ValueError(
                f"num_action_tokens must be a multiple of codes_per_word, got {num_action_tokens} and {codes_per_word}."
            )
        self.offset, self.first = offset, first
        self.codes_per_word, self.codebook_size = codes_per_word, num_action_tokens // codes_per_word
        if first + self.codebook_size**codes_per_word >= 2**63:
            raise ValueError(
                f"{codes_per_word} codebooks of {self.codebook_size} tokens make more words than 64 bits can number."
            )

    def of_tokens(self, action_ids: torch.Tensor) -> torch.Tensor:
        """Ids (…) of words whose tokens are `action_ids` (…, codes_per_word)."""
        ids = torch.zeros_like(action_ids[..., 0])
        for place in range(self.codes_per_word):
            ids = ids * self.codebook_size + action_ids[..., place] - place * self.codebook_size
        return ids + self.first

    def tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Tokens (…, codes_per_word) of words with the `ids` (…)."""
        rest, tokens = ids - self.first, []
        for place in reversed(range(self.codes_per_word)):
            tokens.append(rest % self.codebook_size + place * self.codebook_size)
            rest = rest // self.codebook_size
        return torch.stack(tokens[::-1], dim=-1)

    def fold(self, ids: list[int]) -> list[int]:
        """Replaces the ids of the tokens of each word by the id of the word. Tokens that do not form a word are kept."""
        folded, place = [], 0
        while place < len(ids):
            tokens = [
                divmod(token - self.offset, self.codebook_size) for token in ids[place : place + self.codes_per_word]
            ]
            if [codebook for codebook, _ in tokens] != list(range(self.codes_per_word)):
                folded.append(ids[place])
                place += 1
                continue
            word = 0
            for _, code in tokens:
                word = word * self.codebook_size + code
            folded.append(self.first + word)
            place += self.codes_per_word
        return folded


def merge_runs(sentences: ActionEncoderOutput) -> ActionEncoderOutput:
    """
    Merges consecutive equal tokens into one token, from the start of the first to the end of the last.

    Args:
        sentences ([`ActionEncoderOutput`]): sentences with `action_ids`, padded on the right.
    """
    ids, mask = sentences.action_ids, sentences.attention_mask.bool()
    begins = mask.clone()
    begins[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    run = begins.cumsum(dim=1) - 1  # the run of each position; padding continues the last run and is masked out below
    length = int(begins.sum(dim=1).max()) if begins.numel() else 0
    run = run.clamp_min(0)

    def first_of_run(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Values (batch_size, num_tokens, …) at the positions `where`, one in each run → (batch_size, length, …)."""
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


__all__ = ["FAMILIAR_SHARE", "ActionEncoderOutput", "WordIds", "first_tokens", "merge_runs", "token_distance"]
