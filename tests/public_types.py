"""What a type checker knows of the public names; never run, but checked by `.ci/run` (mypy tests/public_types.py)."""

from typing import assert_type

import datasets
import torch
from transformers.feature_extraction_utils import BatchFeature

from action_llm import (
    ActionLLMConfig,
    ActionLLMForClassification,
    ActionLLMForConditionalGeneration,
    ActionLLMProcessor,
    ActionVQVAEConfig,
    ActionVQVAEModel,
    SkeletonFeatureExtractor,
    VideoFeatureExtractor,
    VSTModel,
    VTEMModel,
    __version__,
)
from action_llm.explanations import Explanation
from action_llm.modeling_action_llm import ActionClassifierOutput
from action_llm.modeling_action_vqvae import ActionVQVAEOutput
from action_llm.skeleton_files import SkeletonRecording, read_skeleton
from action_llm.timelines import Timeline
from action_llm_datasets.load import load_action_dataset


def recognise(folder: str, processor: ActionLLMProcessor, words: torch.LongTensor) -> None:
    model = ActionLLMForClassification.from_pretrained(folder)
    assert_type(model, ActionLLMForClassification)
    assert_type(model.forward(words, label_ids=words), ActionClassifierOutput)
    assert_type(model.forward(words).logits, torch.FloatTensor | None)
    assert_type(model.log_probability(0, words, label_ids=words), torch.FloatTensor)
    assert_type(model.explain(processor, model.forward(words, label_ids=words)), Explanation)
    assert_type(model.timeline(processor, folder), Timeline)
    assert_type(model.timeline_per_person(processor, folder), dict[int, Timeline])
    assert_type(model.as_generator(), ActionLLMForConditionalGeneration)
    assert_type(model.as_generator().as_classifier(), ActionLLMForClassification)
    assert_type(processor(folder), BatchFeature)


def compose(llm: torch.nn.Module, action_model: ActionVQVAEModel | VSTModel | VTEMModel) -> None:
    config = ActionLLMConfig(action_token_offset=100)
    assert_type(config.num_action_tokens, int)
    assert_type(ActionVQVAEConfig().codebook_size, int)
    ActionLLMForClassification.from_llm(llm, action_token_offset="100")  # type: ignore[arg-type]


def read(path: str) -> None:
    assert_type(read_skeleton(path), SkeletonRecording)
    assert_type(SkeletonFeatureExtractor()(path), BatchFeature)
    assert_type(VideoFeatureExtractor()(path), BatchFeature)
    assert_type(load_action_dataset("utd-mhad", path), datasets.DatasetDict)
    assert_type(__version__, str)


def tokens(action_model: ActionVQVAEModel, features: torch.FloatTensor) -> None:
    assert_type(action_model.forward(features), ActionVQVAEOutput)
