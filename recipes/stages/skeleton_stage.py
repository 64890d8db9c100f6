"""Stage 1 of LLM-AR: the action-based VQ-VAE, trained on windows of skeleton recordings."""

import dataclasses
import logging
from collections import Counter

from action_llm_recipes.common.field_arguments import argument, config_arguments, extractor_arguments
from action_llm_recipes.common.joined_data_sets import usual_layout

logger = logging.getLogger(__name__)

MMD_WORDS = 4096


def _skeleton_argument(name: str):
    """The settings of the feature extractor that have another type or default on the command line."""
    from_recordings = {"layout": str, "num_persons": int, "recorded_fps": float, "recorded_up": str}
    if name in from_recordings:
        help_text = {"help": "by default that of the training recordings"}
        return name, from_recordings[name] | None, dataclasses.field(default=None, metadata=help_text)
    if name == "scale":
        return argument("scale", str, "torso")
    return None


# The fields that are left out are set from the feature extractor and the language model.
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
        "pelvis",
        "relation_joints",
        "decodes",
        "familiar_distance",
    },
)
SkeletonArguments = extractor_arguments(
    "action_llm.feature_extraction_skeleton", "SkeletonFeatureExtractor", "SkeletonArguments", _skeleton_argument
)


class SkeletonStage:
    """Stage 1 for skeletons: the model, its training examples and its evaluation.

    Args:
        arguments (`TokenizerArguments`): arguments of the recipe.
        data (`DataArguments`): where the recordings are.
        rows (`datasets.Dataset`): the training recordings.
        model_arguments (`ActionVQVAEArguments`): settings of the model.
        reading (`SkeletonArguments`): settings of the feature extractor.

    Raises:
        ValueError: if a window is no whole number of words, the stream `motion` or `path` is set and frames have no common time
            step, the stream `relation` and recordings show one person only or lack a joint, or the path alone, of one person
            who is centred in each frame.
    """

    ARGUMENTS = (ActionVQVAEArguments, SkeletonArguments)
    READS = "skeletons"
    collate = None  # windows have one length, so the default collator works

    def __init__(self, arguments, data, rows, model_arguments, reading):
        from action_llm import ActionVQVAEConfig, ActionVQVAEModel, SkeletonFeatureExtractor
        from action_llm_recipes.stages.word_embeddings import class_name_embeddings, load_word_embeddings, word_width

        self.window, self.augment = arguments.window, arguments.augment
        self.denoise, self.mixup = arguments.denoise, arguments.mixup
        self.extractor = extractor = SkeletonFeatureExtractor(**_extractor_settings(reading, rows))
        has_time_step = extractor.length or (extractor.fps and not extractor.max_frames)
        displacements = [stream for stream in ("motion", "path") if stream in model_arguments.streams]
        if displacements and not has_time_step:
            raise ValueError(
                f"streams: {displacements[0]}, the displacement between frames, needs recordings of one frame rate or of one "
                "length: set length, or fps and no max_frames."
            )
        if model_arguments.streams == ["path"] and extractor.center == "frame" and extractor.num_persons == 1:
            raise ValueError(
                "streams: with center: frame, the path of a single person is zero: add a stream, or set center: first."
            )
        config = ActionVQVAEConfig(
            **stream_joints(model_arguments.streams, extractor.skeleton_layout),
            layout=extractor.skeleton_layout.name,
            num_persons=extractor.num_persons,
            num_joints=extractor.skeleton_layout.num_joints,
            num_coordinates=extractor.coordinates,
            fps=extractor.fps or 30.0,
            codebook_dim=word_width(arguments.llm_name_or_path, arguments.llm_revision),
            **dataclasses.asdict(model_arguments),
        )
        if self.window < 1 or self.window % config.frames_per_token:
            raise ValueError(
                f"--window must be a multiple of the {config.frames_per_token} frames of a word, got {self.window}."
            )
        self.model = ActionVQVAEModel(config)
        self._words = self._class_embeddings = None
        if config.quantize:
            self._words = load_word_embeddings(arguments.llm_name_or_path, arguments.llm_revision)
        if config.alignment_weight > 0:
            names = rows.features["label"].names
            self._class_embeddings = class_name_embeddings(
                arguments.llm_name_or_path, names, arguments.llm_revision, arguments.orthogonal_names
            )
        elif arguments.orthogonal_names:
            raise ValueError("orthogonal_names has no effect without alignment_weight: set both, or neither.")

    def examples(self, rows, seed: int):
        """The training examples: a window of each recording, which depends on the epoch (`start_epoch`)."""
        from action_llm_recipes.stages.recording_windows import RecordingWindows

        return RecordingWindows(
            rows,
            self.extractor,
            self.window,
            seed,
            augment=self.augment,
            denoise=self.denoise,
            mixup=self.mixup,
            with_labels=self._class_embeddings is not None,
        )

    def extra_inputs(self, model, micro_batches: list[dict]) -> list[dict]:
        """
        Inputs of the loss that are not part of an example, for each micro-batch of an optimiser step: the word embeddings of
        the language model (LLM-AR, Eq. 7), the embeddings of the class names, and the usage of the codes in the other
        micro-batches, since the Zipf and context losses are about the whole step (Eq. 4 and 5).
        """
        if self._class_embeddings is not None:
            self._class_embeddings = self._class_embeddings.to(model.device)
        words = None
        if self._words is not None and model.config.human_weight * model.config.mmd_weight > 0:
            words = self._words = self._words.to(model.device)
        step_usages = model.count_usage(micro_batches)
        shared = {"word_embeddings": words, "class_embeddings": self._class_embeddings}
        return [shared | {"step_usage": step_usage} for step_usage in step_usages]

    def evaluate(self, model, rows, batch_size: int) -> dict[str, float]:
        """Reconstruction of whole recordings and usage of the codebook.

        Args:
            model (`ActionVQVAEModel`): the model.
            rows (`datasets.Dataset`): recordings; those that the feature extractor cannot read are skipped with a warning.
            batch_size (`int`): number of recordings in a batch.

        Returns:
            `dict[str, float]`:
            - `reconstruction_loss`: smooth-L1, mean over frames;
            - `joint_error`: mean distance between true and reconstructed joints of the people in a frame, in the unit of the
              recordings (metres for 3-D layouts);
            - `tokens`: mean number per recording;
            - what [`codebook_metrics`] returns;
            - with a codebook, what [`context_statistics`] returns for its tokens, or those of the first of several codebooks;
              and `mmd`, the MMD between its codes and `MMD_WORDS` words of the language model, the same for all models.
        """
        import torch

        from action_llm.action_sentence import token_distance
        from action_llm.language_priors import context_statistics
        from action_llm_recipes.common.padding import collate
        from action_llm_recipes.stages.codebook_metrics import codebook_metrics

        training, distances, totals = model.training, [], Counter()
        usage = []
        model.eval()
        for recordings in self._batches(rows, batch_size):
            inputs = {name: tensor.to(model.device) for name, tensor in collate(recordings).items()}
            with torch.no_grad():
                outputs = model(
                    input_features=inputs["input_features"], feature_attention_mask=inputs["feature_attention_mask"]
                )
                if outputs.action_ids is not None:
                    usage.append(_usage_of_recordings(outputs, model.config.codebook_size))
                    distances.append(token_distance(model.encode(**inputs)))
            self._add_errors(totals, recordings, outputs.reconstruction.cpu())
            totals["tokens"] += int(outputs.attention_mask.sum())
            totals["recordings"] += len(recordings)
        model.train(training)
        usage = torch.cat(usage) if usage else torch.zeros(0, model.config.codebook_size)
        return {
            "reconstruction_loss": totals["loss"] / totals["frames"],
            "joint_error": totals["distance"] / totals["joints"],
            "tokens": totals["tokens"] / totals["recordings"],
            **codebook_metrics(usage.sum(dim=0), distances),
            **(context_statistics(usage) if len(usage) else {}),
            **({"mmd": self._mmd(model)} if self._words is not None else {}),
        }

    def _mmd(self, model) -> float:
        import torch

        from action_llm.language_priors import maximum_mean_discrepancy

        config = model.config
        chosen = torch.randperm(len(self._words), generator=torch.Generator().manual_seed(0))[:MMD_WORDS]
        words = self._words[chosen.to(self._words.device)].to(model.device)
        with torch.no_grad():
            mmd = maximum_mean_discrepancy(
                model.quantizer.weight, words, config.mmd_num_kernels, config.mmd_kernel_factor
            )
        return mmd.item()

    def _batches(self, rows, batch_size: int):
        """Lists of features of whole recordings, without augmentation."""
        from action_llm.feature_extraction_skeleton import SkeletonInputError

        recordings = []
        for row in rows.with_format("numpy"):
            try:
                recordings.append(self.extractor(row, return_transform=True, return_tensors="pt"))
            except SkeletonInputError as error:
                logger.warning("Skipped in the evaluation: %s", error)
            if len(recordings) == batch_size:
                yield recordings
                recordings = []
        if recordings:
            yield recordings

    def _add_errors(self, totals: Counter, recordings: list[dict], reconstructions):
        """Adds the errors of some recordings to `totals`: `loss` and `distance`, and the `frames` and `joints` that they are
        sums over.

        Args:
            totals: sums so far.
            recordings: features of the recordings.
            reconstructions: tensor (recordings, frames, features), padded.
        """
        import numpy as np
        import torch
        import torch.nn.functional as F

        num_persons, num_joints = self.extractor.num_persons, self.extractor.skeleton_layout.num_joints
        for features, reconstruction in zip(recordings, reconstructions, strict=True):
            truth, transform = features["input_features"][0], features["transforms"][0]
            length = len(truth)
            totals["loss"] += F.smooth_l1_loss(reconstruction[:length], truth).item() * length
            distances = (reconstruction[:length] - truth).view(length, num_persons, num_joints, -1).norm(dim=-1)
            is_present = torch.from_numpy(np.asarray(transform.present))[:length, :num_persons]
            totals["distance"] += float(distances[is_present].sum()) * transform.scale
            totals["joints"] += int(is_present.sum()) * num_joints
            totals["frames"] += length


def stream_joints(streams: list[str], layout) -> dict:
    """The fields of `ActionVQVAEConfig` that name joints of a layout, as far as its `streams` need them.

    Raises:
        ValueError: if the layout lacks a joint.
    """
    from action_llm.joint_mapping import relation_joints

    joints = {}
    if "bones" in streams:  # the root is its own parent
        joints["joint_parents"] = [joint if parent < 0 else parent for joint, parent in enumerate(layout.parents)]
    if {"body", "path", "relation"} & set(streams):
        joints["pelvis"] = list(layout.pelvis)
    if "relation" in streams:
        joints["relation_joints"] = relation_joints(layout)
    return joints


def _usage_of_recordings(outputs, codebook_size: int):
    """How often each token of the first codebook occurs in each recording: tensor (recordings, codebook_size), on the CPU."""
    import torch

    ids = outputs.action_ids[..., 0] if outputs.action_ids.dim() == 3 else outputs.action_ids
    usage = torch.zeros(len(ids), codebook_size)
    return usage.scatter_add_(1, ids.cpu(), outputs.attention_mask.cpu().float())


def _extractor_settings(reading, rows) -> dict:
    """The settings of the feature extractor, with those that are left open taken from the training recordings."""
    settings = dataclasses.asdict(reading)
    if settings["layout"] is None:
        settings["layout"] = usual_layout(rows)
    if settings["num_persons"] is None:  # the data sets have no actions of more than two people
        settings["num_persons"] = min(2, max(shape[1] for shape in rows["shape"]))
    # New recordings without a rate or a vertical axis are read like the training recordings.
    if settings["recorded_fps"] is None:
        settings["recorded_fps"] = Counter(rows["fps"]).most_common(1)[0][0]
    if settings["recorded_up"] is None and "up" in rows.features and len(axes := rows.unique("up")) == 1:
        settings["recorded_up"] = axes[0]
    if settings["scale"] not in ("torso", "none"):  # a length in metres
        settings["scale"] = float(settings["scale"])
    return settings
