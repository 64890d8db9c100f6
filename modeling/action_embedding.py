"""The embeddings of text and action words."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .action_sentence import WordIds


class ActionEmbedding(nn.Module):
    """Embeds text and action words.

    Ids below `offset` are looked up in the language model's own table; id `offset + u` is row u of the action table. Next come
    the placeholder `<act>`, whose embedding is zero (its latent is passed separately), the soft prompts, and the words of
    several tokens, which are embedded as the sum of their rows.

    This module owns the action table. It only refers to the language model, whose table may be adapted or quantised.
    """

    def __init__(
        self,
        language_model: PreTrainedModel,
        num_action_tokens: int,
        width: int,
        offset: int,
        trainable: bool,
        num_soft_prompts: int = 0,
        word_ids: WordIds | None = None,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_action_tokens, width), requires_grad=trainable)
        self.soft_prompts = nn.Parameter(torch.empty(num_soft_prompts, width)) if num_soft_prompts else None
        self.offset = offset
        self.word_ids = word_ids
        # Not registered as a submodule, because it already is one of the base model.
        self.__dict__["language_model"] = language_model

    def __deepcopy__(self, memo):
        # PEFT copies layers that it trains fully; the language model must not be copied with this one.
        language_model = memo.get(id(self.language_model), self.language_model)
        copied = type(self)(
            language_model, *self.weight.shape, self.offset, self.weight.requires_grad, word_ids=self.word_ids
        )
        for name, weight in self.named_parameters():
            setattr(copied, name, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))
        return copied

    def forward(self, input_ids: torch.LongTensor) -> torch.Tensor:
        """Ids (batch_size, length) → embeddings (batch_size, length, width) in the language model's dtype."""
        text_table = self.language_model.get_input_embeddings()
        is_text = input_ids < self.offset
        text = text_table(torch.where(is_text, input_ids, 0))
        # A row of zeros for the placeholder.
        table = F.pad(self.weight, (0, 0, 0, 1))
        if self.soft_prompts is not None:
            table = torch.cat([table, self.soft_prompts])
        table, rows = table.to(text.device), input_ids - self.offset
        if self.word_ids is None:
            action = F.embedding(torch.where(is_text, 0, rows), table).to(text.dtype)
        else:
            is_word = input_ids >= self.word_ids.first
            action = F.embedding(torch.where(is_text | is_word, 0, rows), table)
            tokens = self.word_ids.tokens(torch.where(is_word, input_ids, self.word_ids.first))
            action = torch.where(is_word[..., None], F.embedding(tokens, table).sum(dim=-2), action).to(text.dtype)
        # Gemma scales the embeddings of its table; those of the action table are scaled like them.
        if (scale := getattr(text_table, "embed_scale", None)) is not None:
            action = action * scale.to(action.dtype)
        return torch.where(is_text.unsqueeze(-1), text, action)


__all__ = ["ActionEmbedding"]
