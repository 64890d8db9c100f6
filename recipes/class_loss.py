"""Stage 2 by the class among all: a language model learns the posterior that it is asked for afterwards, and nothing else.

The loss of a class name's words (LLM-AR, Eq. 13) asks for the words one after another, among all words there are. This one asks
which of the class names it is: the cross-entropy of P(class | sentence), normalised over the class list (VT-LVLM-AR, Eq. 6),
with every name scored exactly.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from trl import SFTTrainer


class ClassTrainer(SFTTrainer):
    """
    [`~trl.SFTTrainer`] of an `ActionLLMForClassification`, whose loss is that of the class.

    Args:
        model (`ActionLLMForClassification`): what is trained.
        label_ids (`torch.LongTensor` of shape `(num_classes, label_length)`):
            Ids of each class name and its end token, as they follow the prompt; -100 where there is none.
        label_smoothing (`float`): share of the probability that is spread over the class list.
        **kwargs: of `SFTTrainer`.
    """

    # A mean over the recordings of a batch.
    loss_is_scaled_for_ga = False

    def __init__(self, model, *, label_ids: torch.LongTensor, label_smoothing: float, **kwargs):
        self.label_ids, self.label_smoothing = label_ids, label_smoothing
        super().__init__(model, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Not that of SFTTrainer, which scores each word of a text.
        labels = inputs.pop("labels")
        outputs = model(**inputs, label_ids=self.label_ids)
        loss = F.cross_entropy(outputs.logits, labels, label_smoothing=self.label_smoothing)
        return (loss, outputs) if return_outputs else loss


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
