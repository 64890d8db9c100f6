"""The trainer of a small LVLM."""

import torch
from transformers import Trainer

# Against a small model knowing its few videos by heart: noise on features, as a share of their deviation, and dropout of words.
NOISE, DROPOUT = 0.5, 0.1


class VisualInstructionTrainer(Trainer):
    """`Trainer` of an LVLM whose vision tower has looked already."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inner, features = self.accelerator.unwrap_model(model).model, inputs["features"]
        there = inputs["attention_mask"][:, : features.shape[1]].bool()
        features = features + NOISE * features[there].std(dim=0) * torch.randn_like(features)
        seen = inner.multi_modal_projector(features)
        words = torch.cat([seen, inner.get_input_embeddings()(inputs["input_ids"])], dim=1)
        words = torch.nn.functional.dropout(words, DROPOUT)
        labels = torch.nn.functional.pad(inputs["labels"], (seen.shape[1], 0), value=-100)
        outputs = model(inputs_embeds=words, attention_mask=inputs["attention_mask"], labels=labels)
        return (outputs.loss, outputs) if return_outputs else outputs.loss
