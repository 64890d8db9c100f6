"""Stage 2 by the class among all: a language model learns the posterior that it is asked for afterwards, and nothing else.

The loss of a class name's words (LLM-AR, Eq. 13) asks for the words one after another, among all words there are. This one asks
which of the class names it is: the cross-entropy of P(class | sentence), normalised over the class list (VT-LVLM-AR, Eq. 6),
with every name scored exactly.
"""

import torch
import torch.nn.functional as F
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
