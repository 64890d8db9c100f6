"""Stage 1 of VT-LVLM-AR: the Video-to-Event Mapper, trained on the features of cells that `extract_features.py` wrote."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_recipes.common.field_arguments import config_arguments
from action_llm_recipes.common.written_folders import check_written_folder
from action_llm_recipes.stages.video_stage import FeatureExamples, feature_statistics

# The fields that are left out are set from the features.
VTEMArguments = config_arguments(
    "action_llm.configuration_vtem",
    "VTEMConfig",
    "VTEMArguments",
    {"backbone_config", "feature_layer", "grid", "feature_size", "codebook_dim", "maps_features", "familiar_distance"},
)


@dataclass
class TargetArguments:
    """The target features, for a visual encoder that is not the language model's own."""

    target_data_dir: str | None = field(
        default=None,
        metadata={
            "help": "features of the same videos and versions by the LVLM's own vision tower (from extract_features.py), which "
            "the features in --data_dir are mapped to; not needed if those are from that tower themselves"
        },
    )

    def __post_init__(self):
        if self.target_data_dir is not None:
            check_written_folder(self.target_data_dir, "extract_features.py")


class TargetExamples(FeatureExamples):
    """Training examples with the features of the vision tower as targets.

    Args:
        rows, targets (`datasets.Dataset`): features, as `extract_features.py` writes them.

    Raises:
        ValueError: if a video, a version or a cell has no target.
    """

    def __init__(self, rows, targets):
        super().__init__(rows)
        self.targets = targets.with_format("numpy")
        columns = zip(targets["sample_id"], targets["version"], targets["shape"], strict=True)
        target_rows = {(name, version): (index, shape[0]) for index, (name, version, shape) in enumerate(columns)}
        self.target_indices = []
        for name, version, shape in zip(rows["sample_id"], rows["version"], rows["shape"], strict=True):
            index, num_targets = target_rows.get((name, version), (None, 0))
            if num_targets != shape[0]:
                raise ValueError(
                    f"{name}, version {version}: {shape[0]} cells in --data_dir, but {num_targets} in --target_data_dir."
                )
            self.target_indices.append(index)

    def __getitem__(self, index: int) -> dict:
        row = self.targets[self.target_indices[self.row_of(index)]]
        return {**super().__getitem__(index), "target_features": row["features"].reshape(row["shape"])}


# What two sets of features must have in common, so that their cells show the same part of the same version of a video.
SHARED_IDENTITY = ("dataset", "recordings", "versions", "seed", "grid")
SHARED_SETTINGS = (
    "num_segments",
    "segment_seconds",
    "fit",
    "trim_black",
    "fps",
    "augment_scale",
    "augment_brightness",
    "augment_mirror",
)
# Fields of a configuration that tell visual encoders apart without their weights.
TOWER_FIELDS = ("model_type", "hidden_size", "hidden_sizes", "num_hidden_layers", "depths", "patch_size", "image_size")


def check_same_videos(identity: dict, tower) -> None:
    """
    Checks that two sets of features are of the same cells and versions of videos.

    Args:
        identity: `identity.json` of the features that are mapped.
        tower (`DataArguments`): where the features of the vision tower are, which they are mapped to.

    Raises:
        ValueError: if they are not; names what differs.
    """
    from action_llm import VideoFeatureExtractor

    tower_identity = tower.features_record("identity.json")
    differences = [name for name in SHARED_IDENTITY if identity.get(name) != tower_identity.get(name)]
    # Settings that are not in the file had their default values.
    settings, tower_settings = (
        VideoFeatureExtractor.from_dict(features["extractor"]).to_dict() for features in (identity, tower_identity)
    )
    differences += [name for name in SHARED_SETTINGS if settings[name] != tower_settings[name]]
    if differences:
        raise ValueError(
            f"the features in {tower.data_dir} are not of the same cells and versions of videos as those in --data_dir. They "
            f"differ in {', '.join(differences)}: run extract_features.py with the same settings."
        )


def check_tower(data, llm_name_or_path: str, llm_revision: str | None) -> None:
    """
    Checks that the projector of the language model can read the tokens.

    Args:
        data (`DataArguments`): where the features are that the projector will read as tokens.
        llm_name_or_path, llm_revision: the language model, and the commit of its repository.

    Raises:
        ValueError: if the language model has no projector, or another vision tower, or reads another layer of it.
    """
    from transformers import AutoConfig

    from action_llm.language_models import language_model_config, projected_layer

    config = language_model_config(llm_name_or_path, llm_revision)
    layer = projected_layer(config)
    if layer is None:
        raise ValueError(
            f"{llm_name_or_path}, a {config.model_type}, has no projector of visual features. Use a model of the LLaVA family, "
            "or a small one from pretraining/small_lvlm.py."
        )
    backbone = AutoConfig.from_pretrained(Path(data.data_dir, "backbone"), trust_remote_code=False)
    tower = config.vision_config
    differences = [name for name in TOWER_FIELDS if getattr(backbone, name, None) != getattr(tower, name, None)]
    feature_layer = data.features_record("identity.json")["feature_layer"]
    if (-1 if feature_layer is None else feature_layer) != layer:  # the last layer is None or -1
        differences.append(f"feature_layer ({feature_layer} here, {layer} there)")
    # LLaVA's configuration needs a `hidden_size`, which some encoders have under another name.
    if getattr(backbone, "hidden_size", None) is None and "hidden_size" in differences:
        differences.remove("hidden_size")
    if differences:
        raise ValueError(
            f"the projector of {llm_name_or_path} cannot read the features in {data.data_dir}: their visual encoder differs "
            f"from its vision tower in {', '.join(differences)}. Set --target_data_dir to features of that tower "
            f"(extract_features.py --backbone {llm_name_or_path})."
        )


class EventStage:
    """Stage 1 for visual events: the model, its training examples and its evaluation.

    Args:
        arguments (`TokenizerArguments`): arguments of the recipe.
        data (`DataArguments`): where the features are; the visual encoder that made them is in the same folder.
        rows (`datasets.Dataset`): features of the training videos, as `extract_features.py` writes them.
        model_arguments (`VTEMArguments`): settings of the model.
        target_arguments (`TargetArguments`): where the features of the vision tower are.

    Raises:
        ValueError: if the features have no cells, or are not those that the projector of the language model reads.
    """

    ARGUMENTS = (VTEMArguments, TargetArguments)
    READS = "features"

    def __init__(self, arguments, data, rows, model_arguments, target_arguments):
        import torch
        from transformers import AutoModel

        from action_llm import VideoFeatureExtractor, VTEMModel
        from action_llm_recipes.common.action_features import load_features

        identity = data.features_record("identity.json")
        if identity.get("grid") is None:
            raise ValueError(
                f"{data.data_dir} holds no features of cells: run extract_features.py with --grid 1 or more."
            )
        backbone = AutoModel.from_pretrained(
            Path(data.data_dir, "backbone"), dtype=torch.float32, trust_remote_code=False
        )
        self.extractor = VideoFeatureExtractor.from_pretrained(data.data_dir)
        self.targets, token_data = None, data
        if target_arguments.target_data_dir is not None:
            token_data = dataclasses.replace(data, data_dir=target_arguments.target_data_dir)
            check_same_videos(identity, token_data)
            self.targets = load_features(token_data.data_dir)["train"]
        check_tower(token_data, arguments.llm_name_or_path, arguments.llm_revision)
        width = int((rows if self.targets is None else self.targets)[0]["shape"][2])
        self.model = VTEMModel.from_backbone(
            backbone,
            **dataclasses.asdict(model_arguments),
            grid=identity["grid"],
            feature_layer=identity["feature_layer"],
            maps_features=self.targets is not None,
            codebook_dim=width,
        )
        self.model.standardisation.set(*feature_statistics(rows))
        if self.targets is not None:
            names = set(rows["sample_id"])
            # Without the videos that are held out.
            indices = [index for index, name in enumerate(self.targets["sample_id"]) if name in names]
            self.model.target_standardisation.set(*feature_statistics(self.targets.select(indices)))
        if self.model.config.pooling == "adaptive":
            self._calibrate(rows)

    def examples(self, rows, seed: int):
        """The training examples; `seed` has no effect, since the versions of a video are fixed."""
        return FeatureExamples(rows) if self.targets is None else TargetExamples(rows, self.targets)

    @staticmethod
    def collate(examples: list[dict]) -> dict:
        """A batch of examples, padded on the right."""
        import torch

        from action_llm_recipes.common.padding import pad_features, padded

        batch = pad_features([torch.as_tensor(example["input_features"]) for example in examples])
        if "target_features" in examples[0]:
            batch["target_features"], _ = padded([torch.as_tensor(example["target_features"]) for example in examples])
        return batch

    def extra_inputs(self, model, micro_batches: list[dict]) -> list[dict]:
        """Nothing for each micro-batch of an optimiser step: the loss needs only the examples."""
        return [{}] * len(micro_batches)

    def evaluate(self, model, rows, batch_size: int) -> dict[str, float]:
        """Reconstruction of cells and usage of the codebook, on the unaugmented version of each video.

        Args:
            model (`VTEMModel`): the model.
            rows (`datasets.Dataset`): features, as `extract_features.py` writes them.
            batch_size (`int`): number of videos in a batch.

        Returns:
            `dict[str, float]`:
            - `reconstruction_loss`: mean squared error of the standardised features, 1 for the mean feature;
            - `tokens`, `cells`: mean numbers per video;
            - what [`codebook_metrics`] returns.
        """
        import torch

        from action_llm.action_sentence import token_distance
        from action_llm_recipes.common.action_features import first_versions
        from action_llm_recipes.stages.codebook_metrics import codebook_metrics

        training, distances = model.training, []
        model.eval()
        loss = cells = tokens = 0
        usage = torch.zeros(model.config.codebook_size)
        examples = self.examples(first_versions(rows), 0)
        for start in range(0, len(examples), batch_size):
            batch = self.collate([examples[i] for i in range(start, min(start + batch_size, len(examples)))])
            batch = {name: value.to(model.device) for name, value in batch.items()}
            with torch.no_grad():
                outputs = model(**batch)
            count = int(batch["feature_attention_mask"].sum())
            loss, cells = loss + float(outputs.reconstruction_loss) * count, cells + count
            tokens += int(outputs.attention_mask.sum())
            if outputs.usage is not None:
                usage += outputs.usage.cpu()
                batch.pop("target_features", None)
                with torch.no_grad():
                    distances.append(token_distance(model.encode(**batch)))
        model.train(training)
        return {
            "reconstruction_loss": loss / cells,
            "tokens": tokens / len(examples),
            "cells": cells / len(examples),
            **codebook_metrics(usage, distances),
        }

    def _calibrate(self, rows):
        """Calibrates the weights of cells on the novelty of all training cells."""
        import torch

        weights, novelties = self.model.cell_weights, []
        with torch.no_grad():
            for row in rows.with_format("torch"):
                features = row["features"].reshape(tuple(row["shape"])).mean(dim=1)
                states = self.model.standardisation(features)[None]
                novelties.append(weights.log_novelty(states, weights.begin(states))[0])
        weights.calibrate(torch.cat(novelties))
