"""Stage 1 of VT-LVLM-AR: features of cells of videos, computed once (`extract_features.py`), and the Video-to-Event Mapper."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_recipes.common.field_arguments import config_arguments
from action_llm_recipes.common.written_folders import check_written_folder
from action_llm_recipes.stages.video_stage import FeatureExamples, feature_statistics

# Those left out follow from the features.
VTEMArguments = config_arguments(
    "action_llm.configuration_vtem",
    "VTEMConfig",
    "VTEMArguments",
    {"backbone_config", "feature_layer", "grid", "feature_size", "codebook_dim", "maps_features", "familiar_distance"},
)


@dataclass
class TargetArguments:
    """What tokens are, where another visual encoder than the language model's sees the videos."""

    target_data_dir: str | None = field(
        default=None,
        metadata={
            "help": "features of the same videos and versions by the LVLM's own vision tower (extract_features.py), which "
            "those of --data_dir are mapped to; by default those of --data_dir are its own"
        },
    )

    def __post_init__(self):
        if self.target_data_dir is not None:
            check_written_folder(self.target_data_dir, "extract_features.py")


class TargetExamples(FeatureExamples):
    """Features with those of the vision tower beside them.

    Args:
        rows, targets (`datasets.Dataset`): both as `extract_features.py` writes them.

    Raises:
        ValueError: a video, a version or a cell has no target.
    """

    def __init__(self, rows, targets):
        super().__init__(rows)
        self.targets = targets.with_format("numpy")
        columns = zip(targets["sample_id"], targets["version"], targets["shape"], strict=True)
        found = {(name, version): (index, shape[0]) for index, (name, version, shape) in enumerate(columns)}
        self.places = []
        for name, version, shape in zip(rows["sample_id"], rows["version"], rows["shape"], strict=True):
            index, cells = found.get((name, version), (None, None))
            if cells != shape[0]:
                raise ValueError(
                    f"{name}, version {version}: {shape[0]} cells, and {'none' if cells is None else cells} of the tower."
                )
            self.places.append(index)

    def __getitem__(self, index: int) -> dict:
        row = self.targets[self.places[self.version_of(index)]]
        return {**super().__getitem__(index), "target_features": row["features"].reshape(row["shape"])}


# What must be the same of two features of the same videos, so that their cells and their versions are the same pictures.
SAME = ("dataset", "recordings", "versions", "seed", "grid")
SAME_OF_EXTRACTOR = (
    "num_segments",
    "segment_seconds",
    "fit",
    "trim_black",
    "fps",
    "augment_scale",
    "augment_brightness",
    "augment_mirror",
)
# What tells one visual encoder from another, without its weights.
TOWER = ("model_type", "hidden_size", "hidden_sizes", "num_hidden_layers", "depths", "patch_size", "image_size")


def check_same_videos(made: dict, tower) -> None:
    """Raises `ValueError` where features of the vision tower are not of the same cells and versions.

    Args:
        made: identity of the features that are to be mapped.
        tower (`DataArguments`): of those that they are mapped to.
    """
    from action_llm import VideoFeatureExtractor

    other = tower.features_record("identity.json")
    differ = [name for name in SAME if made.get(name) != other.get(name)]
    # What is not in it had its default when it was written.
    own, others = (VideoFeatureExtractor.from_dict(one["extractor"]).to_dict() for one in (made, other))
    differ += [name for name in SAME_OF_EXTRACTOR if own[name] != others[name]]
    if differ:
        raise ValueError(
            f"the features in {tower.data_dir} are not of the same cells and versions of videos: they were made with another "
            f"{', '.join(differ)}."
        )


def check_tower(data, llm_name_or_path: str, llm_revision: str | None) -> None:
    """Raises `ValueError` where tokens would not be what the projector of the language model reads.

    Args:
        data (`DataArguments`): of the features that tokens are.
        llm_name_or_path, llm_revision: the language model.
    """
    from transformers import AutoConfig

    from action_llm.language_models import projected_layer

    config = AutoConfig.from_pretrained(llm_name_or_path, revision=llm_revision or "main", trust_remote_code=False)
    layer = projected_layer(config)
    if layer is None:
        raise ValueError(
            f"{llm_name_or_path}, a {config.model_type}, has no projector of visual features: tokens of a vtem are read by a "
            "model of the LLaVA family, or by a small one of pretraining/small_lvlm.py."
        )
    made, own = (
        AutoConfig.from_pretrained(Path(data.data_dir, "backbone"), trust_remote_code=False),
        config.vision_config,
    )
    differ = [name for name in TOWER if getattr(made, name, None) != getattr(own, name, None)]
    read = data.features_record("identity.json")["feature_layer"]
    # The last state has two names.
    if (-1 if read is None else read) != layer:
        differ.append(f"feature_layer ({read} here, {layer} there)")
    # LLaVA asks for a width that some encoders call otherwise.
    if getattr(made, "hidden_size", None) is None and "hidden_size" in differ:
        differ.remove("hidden_size")
    if differ:
        raise ValueError(
            f"the features in {data.data_dir} are not those that the projector of {llm_name_or_path} reads: they are of "
            f"another {', '.join(differ)}. Set --target_data_dir to features of its own vision tower (extract_features.py "
            f"--backbone {llm_name_or_path})."
        )


class EventStage:
    """What stage 1 does for long videos.

    Args:
        arguments (`TokenizerArguments`): of the recipe.
        data (`DataArguments`): where the features lie; the visual encoder that made them lies beside them.
        rows (`datasets.Dataset`): the training videos' features, as `extract_features.py` writes them.
        model_arguments (`VTEMArguments`): settings of the model.
        target_arguments (`TargetArguments`): the features that tokens are.
    """

    ARGUMENTS = (VTEMArguments, TargetArguments)
    READS = "features"

    def __init__(self, arguments, data, rows, model_arguments, target_arguments):
        import torch
        from transformers import AutoModel

        from action_llm import VideoFeatureExtractor, VTEMModel
        from action_llm_recipes.common.action_features import load_features

        made = data.features_record("identity.json")
        if made.get("grid") is None:
            raise ValueError(
                f"{data.data_dir} holds no features of cells: run extract_features.py with --grid 1 or more."
            )
        backbone = AutoModel.from_pretrained(
            Path(data.data_dir, "backbone"), dtype=torch.float32, trust_remote_code=False
        )
        self.extractor = VideoFeatureExtractor.from_pretrained(data.data_dir)
        self.targets, tokens_of = None, data
        if target_arguments.target_data_dir is not None:
            tokens_of = dataclasses.replace(data, data_dir=target_arguments.target_data_dir)
            check_same_videos(made, tokens_of)
            self.targets = load_features(tokens_of.data_dir)["train"]
        check_tower(tokens_of, arguments.llm_name_or_path, arguments.llm_revision)
        width = int((rows if self.targets is None else self.targets)[0]["shape"][2])
        self.model = VTEMModel.from_backbone(
            backbone,
            **dataclasses.asdict(model_arguments),
            grid=made["grid"],
            feature_layer=made["feature_layer"],
            maps_features=self.targets is not None,
            codebook_dim=width,
        )
        self.model.standardisation.set(*feature_statistics(rows))
        if self.targets is not None:
            names = set(rows["sample_id"])
            seen = [index for index, name in enumerate(self.targets["sample_id"]) if name in names]
            self.model.target_standardisation.set(*feature_statistics(self.targets.select(seen)))
        if self.model.config.pooling == "adaptive":
            self._calibrate(rows)

    def examples(self, rows, seed: int):
        return FeatureExamples(rows) if self.targets is None else TargetExamples(rows, self.targets)

    @staticmethod
    def collate(examples: list[dict]) -> dict:
        """A batch of examples, padded at the end."""
        import torch

        from action_llm_recipes.common.padding import pad_features, padded

        batch = pad_features([torch.as_tensor(example["input_features"]) for example in examples])
        if "target_features" in examples[0]:
            batch["target_features"], _ = padded([torch.as_tensor(example["target_features"]) for example in examples])
        return batch

    def extra_inputs(self, device, collected_usage) -> dict:
        return {}

    def evaluate(self, model, rows, batch_size: int) -> dict[str, float]:
        """Reconstruction of cells and use of the codebook, on the first version of each video.

        Returns:
            `reconstruction_loss` (mean squared error of standardised features: 1 is what the mean feature gives); `tokens`
            (mean number a video); `cells` (mean number a video); with a codebook, `familiar_distance` of the configuration, and
            what [`usage_statistics`] says.
        """
        import torch

        from action_llm.action_sentence import FAMILIAR_SHARE, token_distance
        from action_llm.language_priors import usage_statistics
        from action_llm_recipes.common.action_features import first_versions

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
        metrics = {
            "reconstruction_loss": loss / cells,
            "tokens": tokens / len(examples),
            "cells": cells / len(examples),
        }
        if distances:
            metrics["familiar_distance"] = torch.cat(distances).quantile(FAMILIAR_SHARE).item()
        if usage.sum() > 0:
            metrics |= {f"codebook/{name}": value for name, value in usage_statistics(usage).items()}
        return metrics

    def _calibrate(self, rows):
        """Sets the weights of cells by the novelty of all training cells."""
        import torch

        weights, found = self.model.cell_weights, []
        with torch.no_grad():
            for row in rows.with_format("torch"):
                features = row["features"].reshape(tuple(row["shape"])).mean(dim=1)
                states = self.model.standardisation(features)[None]
                found.append(weights.log_novelty(states, weights.begin(states))[0])
        weights.calibrate(torch.cat(found))
