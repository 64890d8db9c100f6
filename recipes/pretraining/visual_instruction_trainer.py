"""The trainer of small LVLMs."""

import torch
from transformers import Trainer

# Against overfitting to few videos: noise on features, relative to their standard deviation, and dropout of input embeddings.
NOISE, DROPOUT = 0.5, 0.1


class VisualInstructionTrainer(Trainer):
    """`Trainer` of an LVLM that reads features of its vision tower in place of pictures."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inner, features = self.accelerator.unwrap_model(model).model, inputs["features"]
        is_valid = inputs["attention_mask"][:, : features.shape[1]].bool()
        features = features + NOISE * features[is_valid].std(dim=0) * torch.randn_like(features)
        visual = inner.multi_modal_projector(features)
        embeds = torch.cat([visual, inner.get_input_embeddings()(inputs["input_ids"])], dim=1)
        embeds = torch.nn.functional.dropout(embeds, DROPOUT)
        labels = torch.nn.functional.pad(inputs["labels"], (visual.shape[1], 0), value=-100)
        outputs = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], labels=labels)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        # LLaVA is saved with the names of weights that older versions had. `Trainer` looks for today's names, finds none, and
        # would go on with the weights from before the training.
        model = self.model if model is None else model
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=model.dtype, trust_remote_code=False)
        model.load_state_dict(saved.state_dict())
