"""ActionLLM: a causal language model that reads sentences of action tokens (LLM-AR, section 3.2).

Three classes share the same weights:

- [`ActionLLMModel`], the base model, embeds text by the language model's own table and action words by the action table, and
  runs the language model's backbone. The weights and the vocabulary of the language model do not change.
- [`ActionLLMForConditionalGeneration`] adds the language model's head, for training with TRL and for explanations.
- [`ActionLLMForClassification`] scores class names: `logits` are log P(class name | prompt).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel, local_torch_dtype
from transformers.utils import ModelOutput

from .action_embedding import ActionEmbedding
from .action_sentence import token_distance
from .checked_config import config_errors
from .compatibility import CACHE
from .configuration_action_llm import ActionLLMConfig
from .label_scoring import (
    PromptStart,
    label_trie,
    read_start,
    score_labels,
    score_similar,
    supports_label_trie,
)
from .language_models import (
    VisualProjector,
    decoder_layers,
    fresh_language_model,
    text_logits,
)
from .modeling_action_vqvae import ActionVQVAEModel
from .modeling_vst import VSTModel
from .modeling_vtem import VTEMModel
from .prefix_tuning import LayerPrefix
from .pretrained_action_llm import ActionLLMPreTrainedModel

if TYPE_CHECKING:
    from .explanations import Explanation
    from .timelines import Step, Timeline

# The action models, by their `model_type`.
ACTION_MODELS = {"action_vqvae": ActionVQVAEModel, "vst": VSTModel, "vtem": VTEMModel}
# A batch reads the text that all of its prompts begin with in a pass of its own if that saves at least this many tokens. On a
# CPU, a pass costs about as much as 20 tokens (measured with 135 million weights).
MIN_TOKENS_SAVED = 32


@dataclass
class ActionClassifierOutput(ModelOutput):
    """
    Output of [`ActionLLMForClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Cross-entropy over the class list, when `labels` are given.
        logits (`torch.FloatTensor` of shape `(batch_size, num_classes)`):
            log P(class name and end token | prompt), natural logarithm, float32.
        probabilities (`torch.FloatTensor` of shape `(batch_size, num_classes)`):
            Probabilities, normalised over the class list: each row sums to 1. If the model is calibrated, they have its
            temperature for a single version of a recording; `logits.softmax(-1)` are those without.
        action_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            The action sentences, if the inputs are recordings; of an action model with several codebooks, `(batch_size,
            num_tokens, num_codebooks)`. 0 where padded.
        action_attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            1 for tokens, 0 for padding.
        start_times (`torch.FloatTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Start of each token, in seconds from the start of the recording.
        end_times (`torch.FloatTensor` of shape `(batch_size, num_tokens)`, *optional*):
            End of each token, in seconds.
        run_lengths (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
            Number of equal tokens that were merged into this token, if the action model merges runs.
        token_distance (`torch.FloatTensor` of shape `(batch_size,)`, *optional*):
            Relative quantisation error of each recording, if the action model has a codebook; see
            [`~action_sentence.token_distance`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    probabilities: torch.FloatTensor | None = None
    action_ids: torch.LongTensor | None = None
    action_attention_mask: torch.LongTensor | None = None
    start_times: torch.FloatTensor | None = None
    end_times: torch.FloatTensor | None = None
    run_lengths: torch.LongTensor | None = None
    token_distance: torch.FloatTensor | None = None


class ActionLLMModel(ActionLLMPreTrainedModel):
    """The embedding of text and action words, and the backbone of the language model.

    Args:
        config ([`ActionLLMConfig`]): the configuration.
        llm (`PreTrainedModel`, *optional*): a causal language model; without it, a new one is initialised.
        action_model (`PreTrainedModel`, *optional*): an action model; without it, a new one is initialised.
    """

    def __init__(
        self, config: ActionLLMConfig, llm: PreTrainedModel | None = None, action_model: PreTrainedModel | None = None
    ):
        super().__init__(config)
        # The language model comes first: `config.dtype` is the dtype of the first parameter.
        if llm is None:
            with config_errors("text_config", "a configuration of a language model"):
                self.language_model = AutoModel.from_config(config.text_config, trust_remote_code=False)
        else:
            self.language_model = llm.base_model
        width = config.text_config.hidden_size
        self.action_embedding = ActionEmbedding(
            self.language_model,
            config.num_action_tokens,
            width,
            config.action_token_offset,
            config.train_action_embeddings,
            config.num_soft_prompts,
            config.word_ids,
        )
        if action_model is None and config.action_config is not None:
            # A visual encoder computes tables when it is built. They must be float32, not of the language model's dtype.
            with config_errors("action_config"), local_torch_dtype(torch.float32):
                action_model = ACTION_MODELS[config.action_config.model_type](config.action_config)
        self.action_model = action_model
        self.action_projector = None
        if config.injection_layer is not None:
            if config.action_config is None:
                raise ValueError("injection_layer needs action_config: the latents come from the action model.")
            projector = VisualProjector if config.reads_visual_features else nn.Linear
            self.action_projector = projector(config.action_config.codebook_dim, width)
            self._injected = None
            if config.injection_layer > 0:
                layer = decoder_layers(self.language_model)[config.injection_layer]
                layer.register_forward_pre_hook(self._inject, with_kwargs=True)
        self.prefix = None
        if config.prefix_length:
            self.prefix = LayerPrefix(config.text_config, config.prefix_length, config.prefix_layers)
            self.prefix.attach(self.language_model)
        if action_model is not None:
            action_model.requires_grad_(False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.action_embedding

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        action_embeds: torch.FloatTensor | None = None,
        action_embeds_mask: torch.LongTensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
                Ids of text (below `action_token_offset`), of action words, and of placeholders.
            action_embeds (`torch.FloatTensor` of shape `(batch_size, num_tokens, codebook_dim)`, *optional*):
                Continuous latents, one for each placeholder `<act>`, in order (LLM-AR, Table 5).
            action_embeds_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*):
                1 for latents, 0 for padding.
            **kwargs:
                Other arguments of the language model's backbone: its key-value cache (`cache`, or `past_key_values` before
                transformers 5.24), `use_cache`, `output_hidden_states`…
        """
        if inputs_embeds is None:
            inputs_embeds = self.action_embedding(input_ids)
        if self.action_projector is not None:
            # Kept until the next forward: gradient checkpointing runs the layer again in the backward pass, with the same
            # vectors.
            self._injected = None
            if action_embeds is not None:
                vectors, places = self._latents_at_placeholders(input_ids, action_embeds, action_embeds_mask)
                if self.config.injection_layer == 0:
                    inputs_embeds = inputs_embeds.masked_scatter(places, vectors.to(inputs_embeds.dtype))
                else:
                    self._injected = (vectors, places)
        elif action_embeds is not None:
            raise ValueError(
                "this model reads discrete words, but got action_embeds: set injection_layer in its config to use latents."
            )
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )

    def _latents_at_placeholders(self, input_ids, action_embeds, mask):
        """Projected latents (num_latents, width), and the mask (batch_size, length, 1) of their placeholders."""
        if input_ids is None:
            raise ValueError("action_embeds need input_ids: they replace the placeholders <act>.")
        places = input_ids == self.config.placeholder_token_id
        latents = action_embeds.flatten(0, 1) if mask is None else action_embeds[mask.bool()]
        if int(places.sum()) != latents.shape[0]:
            raise ValueError(
                f"expected one latent for each placeholder <act>, got {int(places.sum())} placeholders and "
                f"{latents.shape[0]} latents."
            )
        vectors = self.action_projector(latents.to(next(self.action_projector.parameters()).dtype))
        return vectors, places.unsqueeze(-1)

    def _inject(self, layer, args, kwargs):
        """Pre-forward hook of `layer`: replaces the hidden states at the placeholders by the latents."""
        if self._injected is None:
            return None
        vectors, places = self._injected
        hidden_states = args[0] if args else kwargs["hidden_states"]
        hidden_states = hidden_states.masked_scatter(
            places.to(hidden_states.device), vectors.to(hidden_states.device, hidden_states.dtype)
        )
        if args:
            return (hidden_states, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden_states}

    def write_sentences(self, input_ids, attention_mask, **features):
        """Encodes recordings, and replaces the placeholder `<act>` of each prompt by the action sentence.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`): prompts with one placeholder each.
            attention_mask (`torch.LongTensor` of shape `(batch_size, length)`): 1 for tokens, 0 for padding.
            **features: features of the recordings from the feature extractor; see `encode` of the action model.

        Returns:
            `tuple`: the action model's output, and a dict with `input_ids` and `attention_mask` of the completed prompts,
            left-padded. For continuous latents, the dict also has `action_embeds` and `action_embeds_mask`.

        Raises:
            ValueError: if the model has no action model, or a prompt does not have exactly one placeholder.
        """
        if self.action_model is None:
            raise ValueError(
                "this model has no action model (config.action_config is None), so it cannot read recordings: pass encoded "
                "sentences instead."
            )
        with torch.no_grad():
            sentence = self.action_model.encode(**features)
        counts = (input_ids == self.config.placeholder_token_id).sum(1)
        if (counts != 1).any():
            raise ValueError(
                f"each prompt needs one placeholder <act> (id {self.config.placeholder_token_id}), got {counts.tolist()}: use "
                "the processor of this model."
            )
        prompts = []
        for index, (row, row_mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            row, ids = row[row_mask.bool()], self._words(sentence, index)
            place = int((row == self.config.placeholder_token_id).nonzero())
            prompts.append(torch.cat([row[:place], ids, row[place + 1 :]]))
        length = max(len(prompt) for prompt in prompts)
        written = {
            "input_ids": torch.stack([F.pad(p, (length - len(p), 0), value=0) for p in prompts]),
            "attention_mask": torch.stack([F.pad(torch.ones_like(p), (length - len(p), 0), value=0) for p in prompts]),
        }
        if self.action_projector is not None:
            written |= {"action_embeds": sentence.latents, "action_embeds_mask": sentence.attention_mask}
        return sentence, written

    def _words(self, sentence, index: int) -> torch.LongTensor:
        """Ids of the words of sentence `index` of a batch."""
        mask = sentence.attention_mask[index].bool()
        if self.action_projector is not None:  # each continuous latent replaces a placeholder
            return torch.full_like(sentence.attention_mask[index][mask], self.config.placeholder_token_id)
        ids = sentence.action_ids[index][mask]
        if self.config.word_ids is not None:
            return self.config.word_ids.of_tokens(ids)
        ids = ids + self.config.action_token_offset
        numbers = self.config.run_length_ids
        if numbers is None:
            return ids
        lengths = sentence.run_lengths[index][mask].tolist()
        words = [
            word for token, length in zip(ids.tolist(), lengths, strict=True) for word in (token, *numbers[length - 1])
        ]
        return torch.tensor(words, device=ids.device)


class ActionLLMForConditionalGeneration(ActionLLMPreTrainedModel, GenerationMixin):
    """ActionLLM with the language model's own head, for training with TRL and for writing explanations.

    The head has no columns for action words, so the model cannot generate them.
    """

    def __init__(
        self, config: ActionLLMConfig, llm: PreTrainedModel | None = None, action_model: PreTrainedModel | None = None
    ):
        super().__init__(config)
        if llm is None:
            with config_errors("text_config", "a configuration of a language model"):
                llm = fresh_language_model(config.text_config)
        self.model = ActionLLMModel(config, llm=llm, action_model=action_model)
        self.lm_head = llm.get_output_embeddings()
        if config.tie_word_embeddings:
            table = llm.get_input_embeddings().weight
            name = next(name for name, p in self.model.language_model.named_parameters() if p is table)
            self._tied_weights_keys = {"lm_head.weight": f"model.language_model.{name}"}
        self.post_init()
        # The ids behind the text, in a padded head, would be read as action words.
        padded = range(config.action_token_offset, self.lm_head.weight.shape[0])
        if padded:
            self.generation_config.suppress_tokens = list(padded)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        action_embeds: torch.FloatTensor | None = None,
        action_embeds_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        r"""
        Args:
            labels (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                Ids of the tokens to predict; -100 is ignored (LLM-AR, Eq. 13).
            logits_to_keep (`int` or `torch.Tensor`, defaults to 0):
                Number of positions at the end, or indices of positions, for which logits are computed; 0 for all.

        See [`ActionLLMModel`] for the other arguments.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            action_embeds=action_embeds,
            action_embeds_mask=action_embeds_mask,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = text_logits(self.lm_head(outputs.last_hidden_state[:, keep]), self.config.text_config)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1], **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **{CACHE: outputs.get(CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self, input_ids, is_first_iteration=False, cache=None, past_key_values=None, **kwargs
    ):
        # `generate` accepts a cache of text that was read before only if it finds its name in a signature.
        kwargs[CACHE] = past_key_values if cache is None else cache
        # Latents are read with the prompt. In later steps, they are in the cache.
        if not is_first_iteration:
            kwargs.pop("action_embeds", None)
            kwargs.pop("action_embeds_mask", None)
        return super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)

    def as_classifier(self) -> "ActionLLMForClassification":
        """The same weights as a classifier: nothing is copied."""
        return _same_weights(self, ActionLLMForClassification)


class ActionLLMForClassification(ActionLLMForConditionalGeneration):
    """Recognises actions: `logits` are log P(class name | prompt), for any list of class names.

    It has the weights of [`ActionLLMForConditionalGeneration`], under the same names, and its `generate`.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
    _auto_class = "AutoModel"

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        label_ids: torch.LongTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        feature_attention_mask: torch.LongTensor | None = None,
        frame_rate: torch.FloatTensor | None = None,
        start_time: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        action_embeds: torch.FloatTensor | None = None,
        action_embeds_mask: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        method: str = "auto",
    ) -> ActionClassifierOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`):
                Prompts, left-padded. With recordings, each has one placeholder `<act>` in place of its sentence.
            attention_mask (`torch.LongTensor` of shape `(batch_size, length)`, *optional*):
                1 for tokens, 0 for padding; by default, nothing is padding.
            label_ids (`torch.LongTensor` of shape `(num_classes, label_length)`):
                Ids of each class name and its end token, as they follow the prompt; -100 for padding.
            input_features (`torch.FloatTensor` of shape `(batch_size, num_frames, num_channels)`, *optional*):
                Skeletons, as [`SkeletonFeatureExtractor`] returns them, with `feature_attention_mask`, `frame_rate` and
                `start_time`.
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_segments, frames, 3, height, width)`, *optional*):
                Videos, as [`VideoFeatureExtractor`] returns them, with `feature_attention_mask` and `frame_rate`.
            action_embeds, action_embeds_mask:
                See [`ActionLLMModel`].
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Index of the true class, for the loss.
            method (`"auto"`, `"trie"` or `"cache"`, defaults to `"auto"`):
                How class names are scored; all methods give the same result (see [`score_labels`]).
        """
        names, prompts, base_kwargs, sentence = self._read(
            input_ids,
            attention_mask,
            label_ids,
            {"action_embeds": action_embeds, "action_embeds_mask": action_embeds_mask},
            input_features=input_features,
            feature_attention_mask=feature_attention_mask,
            frame_rate=frame_rate,
            start_time=start_time,
            pixel_values=pixel_values,
        )
        start = None
        if method != "cache":
            start, prompts = self._without_shared_text(prompts)
        logits = score_labels(
            self.model,
            self._head,
            self.config.text_config,
            prompts["input_ids"],
            prompts["attention_mask"],
            names,
            method=method,
            base_kwargs=base_kwargs,
            start=start,
        )
        if not self.training and logits.isnan().any():
            raise ValueError(
                f"the scores of {self.config.name_or_path or type(self).__name__} are NaN: its weights are damaged, or too "
                "large for their dtype."
            )
        return ActionClassifierOutput(
            loss=None if labels is None else F.cross_entropy(logits, labels),
            logits=logits,
            probabilities=self.calibrated(logits),
            action_ids=None if sentence is None else sentence.action_ids,
            action_attention_mask=None if sentence is None else sentence.attention_mask,
            start_times=None if sentence is None else sentence.start_times,
            end_times=None if sentence is None else sentence.end_times,
            run_lengths=None if sentence is None else sentence.get("run_lengths"),
            token_distance=None if sentence is None else token_distance(sentence),
        )

    def calibrated(self, log_probabilities: torch.Tensor, versions: int = 1) -> torch.Tensor:
        """Class probabilities with the temperature of this model, or, if it is not calibrated, without.

        Args:
            log_probabilities (`torch.Tensor` of shape `(..., num_classes)`): log-probabilities of the classes, such as
                `logits`; of several versions of a recording, logarithms of their mean probabilities without temperature.
            versions (`int`, defaults to 1): number of versions that were averaged.
        """
        temperature = 1.0 if self.calibration is None else self.calibration.temperature(versions)
        return (log_probabilities / temperature).softmax(dim=-1)

    @torch.no_grad()
    def log_probability(
        self,
        index: int,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        label_ids: torch.LongTensor | None = None,
    ) -> torch.FloatTensor:
        """log P(class | prompt) of a single class, for encoded sentences that begin alike, such as a sentence with each of its
        words left out in turn. It is that of `logits.log_softmax(-1)`; each beginning is read once.

        Args:
            index (`int`): the class, a row of `label_ids`.
            input_ids, attention_mask, label_ids: as in `forward`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size,)`: natural logarithms, normalised over the class list.
        """
        names, prompts, _, _ = self._read(input_ids, attention_mask, label_ids, {"action_embeds": None})
        names, index = names.along(index)
        scores = score_similar(
            self.model,
            self._head,
            self.config.text_config,
            prompts["input_ids"],
            prompts["attention_mask"],
            names,
        )
        return scores.log_softmax(-1)[:, index]

    @torch.no_grad()
    def log_prior(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.LongTensor | None = None,
        label_ids: torch.LongTensor | None = None,
    ) -> torch.FloatTensor:
        """log P(class | prompt without the recording): what the language model expects from the text alone.

        Args:
            input_ids (`torch.LongTensor` of shape `(1, length)`): the prompt of a recording; its placeholder is left out.
            attention_mask, label_ids: as in `forward`.

        Returns:
            `torch.FloatTensor` of shape `(num_classes,)`: natural logarithms, normalised over the class list.
        """
        is_text = input_ids != self.config.placeholder_token_id
        if attention_mask is not None:
            is_text &= attention_mask.bool()
        return self(input_ids=input_ids[is_text][None], label_ids=label_ids).logits[0].log_softmax(-1)

    def explain(self, processor, outputs: ActionClassifierOutput, index: int = 0, **settings) -> "Explanation":
        """Explains the answer for a recording: label, probabilities, and a reason that can be checked.

        ```python
        recording = processor.feature_extractor.read("clip.skeleton")
        outputs = model(**processor(recording))
        reason = model.explain(processor, outputs, recording=recording)
        ```

        Args:
            processor ([`ActionLLMProcessor`]): the processor of this model.
            outputs ([`ActionClassifierOutput`]): outputs of this model for recordings.
            index (`int`, defaults to 0): index of the recording in the batch.
            **settings: arguments of [`~explanations.explain`]. With the `recording`, the text describes what moves.

        Returns:
            `Explanation` with `label`, `probability`, `probabilities`, `text`, `evidence` and, if the model was trained to
            describe recordings, `description`.

        Raises:
            ValueError: if the model reads continuous latents, or the outputs are those of encoded sentences.
        """
        from .explanations import check_explains, explain, sentence_of

        check_explains(self)
        if outputs.action_ids is None:
            raise ValueError(
                "outputs have no action tokens: pass the outputs of recordings, not of encoded sentences."
            )
        words, times = sentence_of(outputs, index, processor.run_lengths)
        log_probabilities = outputs.logits[index].detach().float().log_softmax(-1).cpu()
        return explain(self, processor, words, log_probabilities, times=times, **settings)

    def timeline(self, processor, recording, **settings) -> "Timeline":
        """Recognises which actions happen in a long recording, and when, by a window that slides over it.

        Args:
            processor ([`ActionLLMProcessor`]): the processor of this model.
            recording: a recording of any length, in any form that the feature extractor reads. A model of skeletons also reads
                videos.
            **settings: arguments of [`~timelines.timeline`].

        Returns:
            `Timeline` with class probabilities along the recording, `spans()` and, of videos, the events.
        """
        from .timelines import timeline

        return timeline(self, processor, recording, **settings)

    def timeline_per_person(self, processor, recording, **settings) -> "dict[int, Timeline]":
        """Like [`timeline`], for each person of a recording of skeletons, or of a video by its poses: the timelines by the
        numbers of their tracks; see [`~timelines.timeline_per_person`]."""
        from .timelines import timeline_per_person

        return timeline_per_person(self, processor, recording, **settings)

    def stream_timeline(self, processor, recording, **settings) -> "Iterator[Step]":
        """Like [`timeline`], but yields the steps of the timeline while the recording is read; see
        [`~timelines.stream_timeline`] for its delay. Memory does not grow with the recording."""
        from .timelines import stream_timeline

        return stream_timeline(self, processor, recording, **settings)

    def _head(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return text_logits(self.lm_head(hidden_states), self.config.text_config)

    def _read(self, input_ids, attention_mask, label_ids, latents, **features):
        """The trie of class names, the prompts with their sentences, the latents, and the action model's output for
        recordings (else None)."""
        if label_ids is None:
            raise ValueError("label_ids are missing: pass the ids of the class names, as the processor returns them.")
        names = label_trie(
            tuple(tuple(token for token in row if token != -100) for row in label_ids.tolist()),
            constrained=self.config.constrained_scoring,
        )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        sentence, prompts = None, {"input_ids": input_ids, "attention_mask": attention_mask}
        features = {name: values for name, values in features.items() if values is not None}
        if "input_features" in features or "pixel_values" in features:
            sentence, prompts = self.model.write_sentences(input_ids, attention_mask, **features)
        elif (input_ids == self.config.placeholder_token_id).any() and self.model.action_projector is None:
            raise ValueError("the prompt has a placeholder <act>, but no recording was passed to replace it.")
        if latents["action_embeds"] is None:
            latents = {name: prompts[name] for name in latents if name in prompts}
        return names, prompts, latents, sentence

    def _without_shared_text(
        self, prompts: dict[str, torch.Tensor]
    ) -> tuple[PromptStart | None, dict[str, torch.Tensor]]:
        """The text before the action sentences, read once for all prompts of a batch, and the prompts without it.

        `None` and unchanged prompts if they do not begin with the same text, or little would be saved. Nothing is kept for the
        next batch: its weights may differ, and not every way to write weights leaves a trace.
        """
        text_config = self.config.text_config
        ids, is_token = prompts["input_ids"], prompts["attention_mask"].bool()
        if (
            self.training
            or torch.is_grad_enabled()
            or not supports_label_trie(text_config, text_config._attn_implementation)
        ):
            return None, prompts
        placeholder = self.config.placeholder_token_id
        is_soft_prompt = (ids > placeholder) & (ids <= placeholder + self.config.num_soft_prompts)
        is_text = (ids < self.config.action_token_offset) | is_soft_prompt
        lengths = is_token.sum(-1)
        shared = ((is_text | ~is_token).cumprod(-1).bool() & is_token).sum(-1)
        first = ids[0, is_token[0]][: int(shared.min())]
        places = (ids.shape[1] - lengths)[:, None] + torch.arange(len(first), device=ids.device)
        is_shared = (ids.gather(1, places) == first).all(0)
        first = first[: int(is_shared.cumprod(0).sum())]
        # A prompt without a sentence is text to its end.
        if (len(ids) - 1) * len(first) < MIN_TOKENS_SAVED or (shared == lengths).any():
            return None, prompts
        start = read_start(self.model, first)
        if start is None:
            return None, prompts
        longest = int(lengths.max()) - len(first)
        mask = prompts["attention_mask"] * (is_token.cumsum(-1) > len(first))
        return start, {**prompts, "input_ids": ids[:, -longest:], "attention_mask": mask[:, -longest:]}

    def as_generator(self) -> ActionLLMForConditionalGeneration:
        """The same weights as a language model: nothing is copied."""
        return _same_weights(self, ActionLLMForConditionalGeneration)

    def generate(self, *args, **kwargs):
        """Generates text after a prompt; see [`~transformers.GenerationMixin.generate`]."""
        return self.as_generator().generate(*args, **kwargs)


def _same_weights(model: ActionLLMPreTrainedModel, cls: type) -> ActionLLMPreTrainedModel:
    """A view of `model` as another class with the same weights."""
    view = cls.__new__(cls)
    # A trainer may have replaced `forward` on the instance; that one belongs to the trained class.
    view.__dict__.update({name: value for name, value in model.__dict__.items() if name != "forward"})
    return view


__all__ = [
    "ActionClassifierOutput",
    "ActionLLMForClassification",
    "ActionLLMForConditionalGeneration",
    "ActionLLMModel",
]
