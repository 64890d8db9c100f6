"""Stage 2 with the objective `classes`: cross-entropy over the class list.

The objective `words` (LLM-AR, Eq. 13) is the language modelling loss on the class name, over the whole vocabulary. `classes` is
the cross-entropy of P(class | sentence), normalised over the class list (VT-LVLM-AR, Eq. 7): it trains the probabilities that
the classifier returns, with every class name scored exactly.
"""

import torch
import torch.nn.functional as F
from trl import SFTTrainer


class ClassTrainer(SFTTrainer):
    """
    [`~trl.SFTTrainer`] with the cross-entropy over the class list as its loss.

    Args:
        model (`ActionLLMForClassification`): the model.
        label_ids (`torch.LongTensor` of shape `(num_classes, label_length)`):
            Token ids of each class name and its end token, as they follow the prompt, padded with -100.
        label_smoothing (`float`): share of the probability that is spread over the class list.
        **kwargs: arguments of `SFTTrainer`.
    """

    # The loss is a mean over the recordings of a batch.
    loss_is_scaled_for_ga = False

    def __init__(self, model, *, label_ids: torch.LongTensor, label_smoothing: float, **kwargs):
        self.label_ids, self.label_smoothing = label_ids, label_smoothing
        super().__init__(model, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        # Replaces the loss of SFTTrainer, which is over the tokens of a text.
        labels = inputs.pop("labels")
        outputs = model(**inputs, label_ids=self.label_ids)
        loss = F.cross_entropy(outputs.logits, labels, label_smoothing=self.label_smoothing)
        return (loss, outputs) if return_outputs else loss
