"""Collators of stage 2: prompts of different lengths as a batch, for the objectives `words` and `classes`."""

from dataclasses import dataclass

import torch

from action_llm_recipes.common.padding import pad_latents, padded


@dataclass
class LatentsCollator:
    """Pads prompts on the right, and their latents to `action_embeds` (batch_size, num_latents, width) with a mask.

    Args:
        pad_token_id (`int`): padding token of the prompts.
        width (`int`): width of a latent.
    """

    pad_token_id: int
    width: int

    def __call__(self, examples: list[dict]) -> dict:
        ids, mask = padded([torch.as_tensor(example["input_ids"]) for example in examples], self.pad_token_id)
        labels, _ = padded([torch.as_tensor(example["labels"]) for example in examples], -100)
        latents = pad_latents([example["latents"] for example in examples], self.width)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, **latents}


@dataclass
class ClassCollator:
    """Pads prompts on the left, since the class names follow them, and latents, if there are any, on the right.

    Args:
        pad_token_id (`int`): padding token of the prompts.
        width (`int`): width of a latent.
    """

    pad_token_id: int
    width: int

    def __call__(self, examples: list[dict]) -> dict:
        ids, mask = padded([torch.as_tensor(example["input_ids"]) for example in examples], self.pad_token_id, "left")
        labels = torch.tensor([example["labels"] for example in examples])
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        if "latents" in examples[0]:
            batch |= pad_latents([example["latents"] for example in examples], self.width)
        return batch
