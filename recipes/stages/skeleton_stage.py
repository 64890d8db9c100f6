"""Stage 1 of LLM-AR: skeletons, windows of them, and the action-based VQ-VAE."""

import dataclasses
import logging
from collections import Counter

from action_llm_recipes.common.field_arguments import argument, config_arguments, extractor_arguments

logger = logging.getLogger(__name__)


def _skeleton_argument(name: str):
    of_recordings = {"layout": str, "num_persons": int, "recorded_fps": float, "recorded_up": str}
    if name in of_recordings:
        help_text = {"help": "by default that of the recordings"}
        return name, of_recordings[name] | None, dataclasses.field(default=None, metadata=help_text)
    if name == "scale":
        return argument("scale", str, "torso")
    return None


# Those left out follow from the feature extractor and the language model.
ActionVQVAEArguments = config_arguments(
    "action_llm.configuration_action_vqvae",
    "ActionVQVAEConfig",
    "ActionVQVAEArguments",
    {
        "layout",
        "num_persons",
        "num_joints",
        "num_coordinates",
        "fps",
        "codebook_dim",
        "joint_parents",
        "decodes",
        "familiar_distance",
    },
)
SkeletonArguments = extractor_arguments(
    "action_llm.feature_extraction_skeleton", "SkeletonFeatureExtractor", "SkeletonArguments", _skeleton_argument
)


class SkeletonStage:
    """What stage 1 does for skeletons.

    Args:
        arguments (`TokenizerArguments`), data (`DataArguments`): of the recipe.
        rows (`datasets.Dataset`): the training recordings.
        model_arguments (`ActionVQVAEArguments`), reading (`SkeletonArguments`): settings of model and feature extractor.
    """

    ARGUMENTS = (ActionVQVAEArguments, SkeletonArguments)

    READS = "skeletons"
    collate = None  # windows are of one length

    def __init__(self, arguments, data, rows, model_arguments, reading):
        from action_llm import ActionVQVAEConfig, ActionVQVAEModel, SkeletonFeatureExtractor
        from action_llm_recipes.stages.word_embeddings import load_word_embeddings, word_width

        settings = dataclasses.asdict(reading)
        if settings["layout"] is None:
            settings["layout"] = rows[0]["layout"]
        if settings["num_persons"] is None:  # actions of more than two people are not in these data sets
            settings["num_persons"] = min(2, max(shape[1] for shape in rows["shape"]))
        # New recordings that do not say their rate or their axes are taken to be like those of the training.
        if settings["recorded_fps"] is None:
            settings["recorded_fps"] = Counter(rows["fps"]).most_common(1)[0][0]
        if settings["recorded_up"] is None and "up" in rows.features:
            settings["recorded_up"] = rows[0]["up"] or None
        # A torso length or a number of metres.
        if settings["scale"] not in ("torso", "none"):
            settings["scale"] = float(settings["scale"])
        self.window, self.augment = arguments.window, arguments.augment
        self.extractor = extractor = SkeletonFeatureExtractor(**settings)
        if (
            "motion" in model_arguments.streams
            and not extractor.length
            and (extractor.max_frames or not extractor.fps)
        ):
            raise ValueError(
                "streams: motion is a way in so many frames, which needs frames of one rate or recordings of one length: set "
                "length, or fps and no max_frames."
            )
        parents = None
        if "bones" in model_arguments.streams:
            # The root is its own.
            parents = [joint if one < 0 else one for joint, one in enumerate(extractor.skeleton_layout.parents)]
        config = ActionVQVAEConfig(
            joint_parents=parents,
            layout=extractor.skeleton_layout.name,
            num_persons=extractor.num_persons,
            num_joints=extractor.skeleton_layout.num_joints,
            num_coordinates=extractor.coordinates,
            fps=extractor.fps or 30.0,
            codebook_dim=word_width(arguments.llm_name_or_path, arguments.llm_revision),
            **dataclasses.asdict(model_arguments),
        )
        self.model = ActionVQVAEModel(config)
        self._words = None
        if config.quantize and config.human_weight * config.mmd_weight > 0:
            self._words = load_word_embeddings(arguments.llm_name_or_path, arguments.llm_revision)

    def examples(self, rows, seed: int):
        """Training examples: they know their epoch by `start_epoch`."""
        from action_llm_recipes.stages.recording_windows import RecordingWindows

        return RecordingWindows(rows, self.extractor, self.window, seed, self.augment)

    def extra_inputs(self, device, collected_usage) -> dict:
        """What the loss needs beside an example. Zipf's law is a law of the whole optimiser step (LLM-AR, Eq. 4)."""
        if self._words is not None:
            self._words = self._words.to(device)
        return {"word_embeddings": self._words, "previous_usage": collected_usage}

    def evaluate(self, model, rows, batch_size: int) -> dict[str, float]:
        """Reconstruction of whole recordings and use of the codebook.

        Args:
            model (`ActionVQVAEModel`): the model.
            rows (`datasets.Dataset`): recordings.
            batch_size (`int`): recordings at a time.

        Returns:
            `reconstruction_loss` (smooth-L1, mean over recordings' frames); `joint_error` (mean distance between true and
            reconstructed joints of the people who are there, in recorded units: metres for 3-D layouts); `tokens` (mean
            number a recording); with a codebook, `familiar_distance` of the configuration, and what [`usage_statistics`] says.
        """
        import numpy as np
        import torch
        import torch.nn.functional as F

        from action_llm.action_sentence import FAMILIAR_SHARE, token_distance
        from action_llm.feature_extraction_skeleton import SkeletonInputError
        from action_llm.language_priors import usage_statistics
        from action_llm_recipes.common.padding import collate

        extractor, training, distances = self.extractor, model.training, []
        model.eval()
        loss = error = joints = frames = tokens = recordings = 0
        usage = torch.zeros(model.config.codebook_size)
        people = (extractor.num_persons, extractor.skeleton_layout.num_joints, extractor.coordinates)

        @torch.no_grad()
        def add(batch):
            nonlocal loss, error, joints, frames, tokens, recordings, usage
            inputs = collate(batch)
            outputs = model(
                input_features=inputs["input_features"].to(model.device),
                feature_attention_mask=inputs["feature_attention_mask"].to(model.device),
            )
            for one, truth, made in zip(batch, inputs["input_features"], outputs.reconstruction.cpu(), strict=True):
                transform, length = one["transforms"][0], one["input_features"].shape[1]
                loss += F.smooth_l1_loss(made[:length], truth[:length]).item() * length
                distance = (made[:length] - truth[:length]).view(length, *people).norm(dim=-1)
                present = torch.from_numpy(np.asarray(transform.present))[:length, : people[0]]
                error += float(distance[present].sum()) * transform.scale
                joints += int(present.sum()) * people[1]
                frames += length
            tokens += int(outputs.attention_mask.sum())
            recordings += len(batch)
            if outputs.usage is not None:
                usage += outputs.usage.cpu()
                distances.append(token_distance(model.encode(**{k: v.to(model.device) for k, v in inputs.items()})))

        batch = []
        for row in rows.with_format("numpy"):
            try:
                batch.append(extractor(row, return_transform=True, return_tensors="pt"))
            except SkeletonInputError as problem:
                logger.warning("skipped in evaluation: %s", problem)
            if len(batch) == batch_size:
                add(batch)
                batch = []
        if batch:
            add(batch)
        model.train(training)
        metrics = {"reconstruction_loss": loss / frames, "joint_error": error / joints, "tokens": tokens / recordings}
        if distances:
            metrics["familiar_distance"] = torch.cat(distances).quantile(FAMILIAR_SHARE).item()
        if usage.sum() > 0:
            metrics |= {f"codebook/{name}": value for name, value in usage_statistics(usage).items()}
        return metrics
