"""Classifiers that read rows of recordings: recognisers, and kernel ridge on raw joints beside them."""

import numpy as np
import torch
from datasets import ClassLabel, Dataset

from action_llm import ActionLLMProcessor
from action_llm.feature_extraction_skeleton import SkeletonInputError
from action_llm_recipes.baselines.models import KernelRidge
from action_llm_recipes.common.action_models import merges_runs
from action_llm_recipes.common.action_sentences import sentence_features
from action_llm_recipes.common.recognisers import load_recogniser
from action_llm_recipes.encode_actions import codes_per_word, encode
from action_llm_recipes.evaluate_classifier import average_encodings, score


class RecogniserReader:
    """
    A recogniser of skeletons.

    Args:
        path (`str`): folder or Hub repository of the recogniser.
        encodings (`int`): number of versions per recording whose class probabilities are averaged.
        batch_size (`int`): number of recordings per batch.

    Attributes:
        class_names (`list[str]`): classes that the recogniser was trained on.
    """

    def __init__(self, path: str, encodings: int, batch_size: int):
        self.model = load_recogniser(path, "cuda" if torch.cuda.is_available() else "cpu")
        self.processor = ActionLLMProcessor.from_pretrained(path)
        self.class_names = self.processor.class_names
        self.encodings, self.batch_size = encodings, batch_size

    def scores(self, rows: list[dict]) -> np.ndarray:
        """log P(class | recording), float64 (N, classes), of rows with different `sample_id`; NaN where one cannot be read."""
        action_model = self.model.base_model.action_model
        config, continuous = action_model.config, self.model.config.injection_layer is not None
        columns = sentence_features(
            ClassLabel(names=self.class_names),
            config.num_action_tokens,
            continuous,
            with_run_lengths=merges_runs(config),
            codes_per_word=codes_per_word(config),
        )
        unlabelled = ({**row, "label": 0} for row in rows)  # a label may be one of another data set
        sentences, _ = encode(
            action_model,
            self.processor.feature_extractor,
            unlabelled,
            self.encodings,
            self.batch_size,
            latents=continuous,
        )
        scores = np.full((len(rows), len(self.class_names)), np.nan)
        if sentences["sample_id"]:
            sentences = Dataset.from_dict(sentences, features=columns)
            of_sentences = score(self.model, self.processor, sentences, None, self.batch_size)
            averages, first_rows = average_encodings(of_sentences, sentences["sample_id"])
            places = {str(row["sample_id"]): place for place, row in enumerate(rows)}
            scores[[places[name] for name in sentences.select(first_rows)["sample_id"]]] = averages
        return scores


class JointReader:
    """
    Kernel ridge on joints.

    Args:
        train (`datasets.Dataset`): training recordings; those that cannot be read are left out.
        extractor (`SkeletonFeatureExtractor`): reads the joints.

    Attributes:
        class_names (`list[str]`): classes of the training recordings.
    """

    def __init__(self, train, extractor):
        self.extractor, self.class_names = extractor, train.features["label"].names
        read = [(self._joints(row), int(row["label"])) for row in train.with_format("numpy")]
        joints, labels = zip(*((joints, label) for joints, label in read if joints is not None), strict=True)
        self.classifier = KernelRidge(len(self.class_names)).fit(joints, np.array(labels))

    def scores(self, rows: list[dict]) -> np.ndarray:
        """Scores, no probabilities: float64 (N, classes); NaN for recordings that cannot be read."""
        sequences = [self._joints(row) for row in rows]
        is_read = np.array([sequence is not None for sequence in sequences], bool)
        scores = np.full((len(rows), len(self.class_names)), np.nan)
        if is_read.any():
            scores[is_read] = self.classifier.scores([sequence for sequence in sequences if sequence is not None])
        return scores

    def _joints(self, row: dict) -> np.ndarray | None:
        try:
            return self.extractor(row, return_tensors=None)["input_features"][0]
        except SkeletonInputError:
            return None
