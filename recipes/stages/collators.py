"""Prompts of several lengths as a batch: for the words of a class name, and for the class among all."""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence


@dataclass
class LatentsCollator:
    """Pads prompts on the right, and their latents into (batch_size, num_latents, width) with a mask."""

    pad_token_id: int
    width: int

    def __call__(self, examples: list[dict]) -> dict:
        ids = [torch.as_tensor(e["input_ids"]) for e in examples]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
            "labels": pad_sequence(
                [torch.as_tensor(e["labels"]) for e in examples], batch_first=True, padding_value=-100
            ),
            **pad_latents([e["latents"] for e in examples], self.width),
        }


@dataclass
class ClassCollator:
    """Pads prompts on the left, so that class names follow each, and their latents, where there are some, on the right.

    Args:
        pad_token_id (`int`): of the text.
        width (`int`): of a latent.
    """

    pad_token_id: int
    width: int

    def __call__(self, examples: list[dict]) -> dict:
        ids = [torch.as_tensor(example["input_ids"]) for example in examples]
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id, padding_side="left"),
            "attention_mask": pad_sequence(
                [torch.ones_like(one) for one in ids], batch_first=True, padding_side="left"
            ),
            "labels": torch.tensor([example["labels"] for example in examples]),
        }
        if "latents" in examples[0]:
            batch |= pad_latents([example["latents"] for example in examples], self.width)
        return batch


def pad_latents(latents: list, width: int) -> dict[str, torch.Tensor]:
    """Latents (num_latents, width) of some recordings as `action_embeds` and their mask, padded on the right."""
    latents = [torch.as_tensor(one).view(-1, width) for one in latents]
    masks = [torch.ones(len(one), dtype=torch.long) for one in latents]
    return {
        "action_embeds": pad_sequence(latents, batch_first=True),
        "action_embeds_mask": pad_sequence(masks, batch_first=True),
    }
