"""Collators of stage 2: prompts of different lengths as a batch, for the objectives `words` and `classes`."""

from dataclasses import dataclass

import torch

from action_llm_recipes.common.padding import pad_latents, padded


@dataclass
class PromptCollator:
    """Base of the collators.

    Args:
        pad_token_id (`int`): padding token of the prompts.
        width (`int`): width of a latent.
    """

    pad_token_id: int
    width: int

    def prompts(self, examples: list[dict], side: str) -> dict:
        """`input_ids` and `attention_mask` (batch_size, length), padded on a side, "left" or "right"."""
        prompts = [torch.as_tensor(example["input_ids"]) for example in examples]
        ids, mask = padded(prompts, self.pad_token_id, side)
        return {"input_ids": ids, "attention_mask": mask}

    def latents(self, examples: list[dict]) -> dict:
        """`action_embeds` (batch_size, num_latents, width), padded on the right, with a mask; empty without latents."""
        if "latents" not in examples[0]:
            return {}
        return pad_latents([example["latents"] for example in examples], self.width)


class LatentsCollator(PromptCollator):
    """Prompts and labels for the loss on words, padded on the right, and latents."""

    def __call__(self, examples: list[dict]) -> dict:
        labels, _ = padded([torch.as_tensor(example["labels"]) for example in examples], -100)
        return {**self.prompts(examples, "right"), "labels": labels, **self.latents(examples)}


class ClassCollator(PromptCollator):
    """Prompts for the loss on classes, padded on the left, since the class names follow them, and latents."""

    def __call__(self, examples: list[dict]) -> dict:
        labels = torch.tensor([example["labels"] for example in examples])
        return {**self.prompts(examples, "left"), "labels": labels, **self.latents(examples)}
