"""Stage 1 of LVLM-VAR: the Video-to-Semantic-Tokens module, trained on the features that `extract_features.py` wrote."""

import dataclasses
from pathlib import Path

from action_llm_recipes.common.field_arguments import config_arguments

# The fields that are left out are set from the visual encoder and the language model.
VSTArguments = config_arguments(
    "action_llm.configuration_vst",
    "VSTConfig",
    "VSTArguments",
    {"backbone_config", "feature_size", "codebook_dim", "familiar_distance"},
)


class FeatureExamples:
    """Training examples: one version of each video per epoch; the versions take turns.

    Args:
        rows (`datasets.Dataset`): features, as `extract_features.py` writes them: the versions of a video follow each other.
    """

    def __init__(self, rows):
        self.rows = rows.with_format("numpy")
        self.versions: list[list[int]] = []
        for index, version in enumerate(rows["version"]):
            if version == 0:
                self.versions.append([])
            self.versions[-1].append(index)
        self.epoch = 0

    def start_epoch(self, epoch: int):
        """Called at the beginning of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.versions)

    def row_of(self, index: int) -> int:
        """The index of the row that is the example in this epoch."""
        versions = self.versions[int(index)]
        return versions[(self.epoch + int(index)) % len(versions)]

    def __getitem__(self, index: int) -> dict:
        row = self.rows[self.row_of(index)]
        return {"input_features": row["features"].reshape(row["shape"]), "labels": row["label"]}


class VideoStage:
    """Stage 1 for videos: the model, its training examples and its evaluation.

    Args:
        arguments (`TokenizerArguments`): arguments of the recipe.
        data (`DataArguments`): where the features are; the visual encoder that made them is in the same folder.
        rows (`datasets.Dataset`): features of the training videos, as `extract_features.py` writes them.
        model_arguments (`VSTArguments`): settings of the model.
    """

    ARGUMENTS = (VSTArguments,)
    READS = "features"

    def __init__(self, arguments, data, rows, model_arguments):
        import torch
        from transformers import AutoModel

        from action_llm import VideoFeatureExtractor, VSTModel
        from action_llm_recipes.stages.word_embeddings import class_name_embeddings, word_width

        backbone = AutoModel.from_pretrained(
            Path(data.data_dir, "backbone"), dtype=torch.float32, trust_remote_code=False
        )
        self.extractor = VideoFeatureExtractor.from_pretrained(data.data_dir)
        settings = dataclasses.asdict(model_arguments)
        if not settings["direct"]:
            settings["codebook_dim"] = word_width(arguments.llm_name_or_path, arguments.llm_revision)
        self.model = VSTModel.from_backbone(backbone, **settings)
        self.model.standardisation.set(*feature_statistics(rows))
        self._class_embeddings = None
        if settings["alignment_weight"] > 0 and not settings["direct"]:
            names = rows.features["label"].names
            self._class_embeddings = class_name_embeddings(
                arguments.llm_name_or_path, names, arguments.llm_revision, arguments.orthogonal_names
            )
        elif arguments.orthogonal_names:
            raise ValueError("orthogonal_names has no effect without alignment_weight: set both, or neither.")

    def examples(self, rows, seed: int):
        """The training examples; `seed` has no effect, since the versions of a video are fixed."""
        return FeatureExamples(rows)

    @staticmethod
    def collate(examples: list[dict]) -> dict:
        """A batch of examples, padded on the right."""
        import torch

        from action_llm_recipes.common.padding import pad_features

        batch = pad_features([torch.as_tensor(example["input_features"]) for example in examples])
        return {**batch, "labels": torch.tensor([int(example["labels"]) for example in examples])}

    def extra_inputs(self, model, micro_batches: list[dict]) -> list[dict]:
        """Inputs of the loss that are not part of an example, for each micro-batch of an optimiser step: the embeddings of the
        class names."""
        if self._class_embeddings is not None:
            self._class_embeddings = self._class_embeddings.to(model.device)
        return [{"class_embeddings": self._class_embeddings}] * len(micro_batches)

    def evaluate(self, model, rows, batch_size: int) -> dict[str, float]:
        """Reconstruction of features and usage of the codebook, on the unaugmented version of each video.

        Args:
            model (`VSTModel`): the model.
            rows (`datasets.Dataset`): features, as `extract_features.py` writes them.
            batch_size (`int`): number of videos in a batch.

        Returns:
            `dict[str, float]`:
            - `tokens`: mean number per video, with runs merged as configured;
            - `reconstruction_loss`: mean squared error of the standardised features, 1 for the mean feature; not with direct
              feature projection;
            - what [`codebook_metrics`] returns.
        """
        import torch

        from action_llm.action_sentence import token_distance
        from action_llm_recipes.common.action_features import first_versions
        from action_llm_recipes.common.padding import collate_features
        from action_llm_recipes.stages.codebook_metrics import codebook_metrics

        training, distances = model.training, []
        model.eval()
        loss = segments = tokens = videos = 0
        usage = torch.zeros(model.config.codebook_size)
        rows = first_versions(rows).with_format("numpy")
        for start in range(0, len(rows), batch_size):
            batch = collate_features([rows[i] for i in range(start, min(start + batch_size, len(rows)))])
            batch = {name: value.to(model.device) for name, value in batch.items()}
            with torch.no_grad():
                sentences = model.encode(**batch)
            tokens, videos = tokens + int(sentences.attention_mask.sum()), videos + len(sentences.attention_mask)
            if model.config.direct:
                continue
            batch.pop("frame_rate")
            with torch.no_grad():
                outputs = model(**batch)
            count = int(batch["feature_attention_mask"].sum())
            loss, segments = loss + float(outputs.reconstruction_loss) * count, segments + count
            if outputs.usage is not None:
                usage += outputs.usage.cpu()
                distances.append(token_distance(sentences))
        model.train(training)
        metrics = {"tokens": tokens / videos}
        if segments:
            metrics["reconstruction_loss"] = loss / segments
        return metrics | codebook_metrics(usage, distances)


def feature_statistics(rows) -> tuple:
    """
    Mean and standard deviation of the features over all segments, or cells. Views of a segment are averaged first.

    Returns:
        Two tensors (feature_size,), float32, computed in float64.
    """
    import numpy as np
    import torch

    total, squares, count = 0.0, 0.0, 0
    for row in rows.with_format("numpy"):
        features = row["features"].astype(np.float64).reshape(row["shape"]).mean(axis=1)
        total, squares, count = total + features.sum(0), squares + (features**2).sum(0), count + len(features)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()
