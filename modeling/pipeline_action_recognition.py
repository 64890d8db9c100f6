"""The pipeline `pipeline("action-recognition", model=REPO, trust_remote_code=True)`: from recordings to labels and reasons."""

import contextlib
import http.client
import io
import math
import mimetypes
import os
import re
import socket
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from .action_sentence import FAMILIAR_SHARE
from .class_names import check_class_names, must_list_classes
from .explanations import sentence_of
from .feature_extraction_skeleton import TooFewJointsError
from .frame_sequences import FRAME_SUFFIXES
from .label_scoring import normalised_entropy
from .model_files import as_written
from .pose_estimators import PoseEstimator, load_pose_estimator
from .pose_json_files import is_openpose_folder
from .recording_files import RECORDING_SUFFIXES
from .recording_parts import people_of
from .recording_versions import check_versions_differ, version_arguments
from .statement_checks import count_verdicts
from .video_files import VIDEO_SUFFIXES, is_video
from .written_reasons import ReasonWriter, check_measures_joints, load_writer

logger = logging.get_logger(__name__)

# Upper bound of the versions of a recording that are averaged; more than a few dozen hardly help.
MAX_VERSIONS = 1000
# Limits of a download: seconds without data, seconds in all, bytes, and redirects.
SILENT_SECONDS, URL_SECONDS = 30, 600
URL_BYTES, URL_REDIRECTS = 1 << 30, 5
# A download of up to this many bytes is kept in memory; a larger one in an unnamed temporary file.
URL_MEMORY = 1 << 24
_NOT_GIVEN = "not given"
_BYTES = (bytes, bytearray, memoryview)
# Arguments of loading that `pipeline` passes on.
_LOADING = ("local_files_only", "code_revision")


class ActionRecognitionPipeline(Pipeline):
    """
    Recognises actions in recordings: skeletons or videos, depending on the model.

    ```python
    recognise = pipeline("action-recognition", model="me/llm-ar", trust_remote_code=True)
    recognise("clip.skeleton", explain=True, return_tokens=True)
    ```

    A recording is a path, a URL (`http`, `https`), a file opened in binary mode, an array, or a row of a data set. A model of
    videos also reads the bytes of a file, and a folder of frames. A row of skeletons may have another joint layout than the
    training recordings; `warnings` say which joints are missing or estimated. A recording gives a list of at most `top_k`
    dicts, the most likely class first. A list of recordings gives a list of such lists; a generator or a data set gives a lazy
    iterator.

    A model of skeletons also reads video files: their poses are estimated first ([`~pose_estimators.load_pose_estimator`]).

    A download from a URL may take at most 1 GiB and ten minutes. The pipeline connects to any address that this machine can
    reach, so a service must check the URLs of its users first.

    Each dict has `label` and `score`, the probability of the class, normalised over the class list. It is calibrated if the
    model is ([`~calibration.Calibration`]). The first dict also has:

    - `unsure`, which is `True`, if `score` is below `unsure_below`.
    - `warnings`, a list of sentences, if there is reason to doubt the answer: implausible joints, an assumed frame rate, or a
      recording further from the model's tokens than 99 % of the recordings that it was evaluated on after training.
    - `reason`, with `explain=True`: an English text that says what happened during the tokens that support the label most; see
      [`~explanations.explain`]. Models that were trained to describe recordings also give `description`. With a `writer`,
      `reason_by` is "language model" or "rules", and `statements` counts those of the language model, also of a rejected text:
      `supported` by what was measured, `contradicted` by it, and `not checkable`, which are none of the measured facts.
    - `entropy`, with `return_entropy=True`: that of the scores of all classes, from 0 to 1. It is high for recordings that show
      none of the classes, as far as the scores tell (`recipes/evaluate_unknown.py` measures how far).
    - `person`, `start` and `end`, with `per_person=True`: the number of a person's track, and the seconds from the first to the
      last frame in which they are seen.
    - `tokens`, with `return_tokens=True`: the action sentence as a list of dicts with `token`, `id` (of a word of several
      tokens, the id of the first), `start` and `end` in seconds.

    Args:
        top_k (`int` or `None`, defaults to 5):
            Number of classes to return; `None` returns all.
        candidate_labels (`str` or `Sequence[str]`, *optional*):
            Classes to choose from, instead of the trained ones: a list of names, or a string of names separated by commas, as
            in zero-shot pipelines (`"abc"` is one class). Names that differ only in spaces, Unicode form or invisible
            characters are the same class. If the model was not trained on all of them, the list is written into the prompt
            (LLM-AR, Table 8), and must fit the language model's context.
        divide_by_prior (`bool`, defaults to `False`):
            Whether the probability of each of the `candidate_labels` is divided by that after the same prompt without the
            recording (Holtzman et al. 2021, "Surface Form Competition"), so that short and common names have no advantage. It
            is meant for names that the model was not trained on, and harms others.
        explain, return_tokens, return_entropy (`bool`, defaults to `False`):
            Whether to return `reason`, `tokens` and `entropy`.
        writer (`str` or [`~written_reasons.ReasonWriter`], *optional*):
            With `explain` and a model of skeletons, a language model that rewords the reason: a repository, a folder, a GGUF
            file, `"smollm2"`, or `"own"`, that of the recogniser without its adapter or prompts, which takes no further memory
            for weights. It must follow instructions. Its text is used if all of its statements are measured, at their times and
            in their order; else the reason is that by rules.
        per_person (`bool`, defaults to `False`):
            Whether a model of skeletons recognises each person of a recording alone, whether a sensor saw them or a pose
            estimator. A recording then gives a list with the first of the dicts above for each person, in order of appearance.
            People of whom too few joints are seen are left out, with a warning in the log. Actions that need two people are
            not recognised so, and `top_k` must be left out.
        versions (`int`, defaults to 1):
            Number of versions of a recording whose probabilities are averaged: the original, and versions varied by the
            `augment_` settings of the model's feature extractor. All versions are read in one batch. `tokens` belong to the
            original, and `reason` explains the class that is most likely on average. The versions are the same as those of
            `encode_actions.py` and `extract_features.py` with their default seed, for a recording whose `sample_id` is that of
            the row, or the name of the file without suffix.
        fps (`float`, *optional*):
            Frames per second of skeletons, video arrays and folders of frames; overrides the rate in a skeleton file. If
            no rate is known, that of the training recordings is assumed, with a warning. In a video file that a model of
            skeletons reads, poses are estimated this many times per second, by default in every frame.
        pose (`str` or [`~pose_estimation.PoseEstimator`], *optional*):
            The pose estimator with which a model of skeletons reads video files: `"mediapipe"`, `"vitpose"`, or an estimator
            from [`~pose_estimators.load_pose_estimator`]; by default the first whose weights are on this machine.
        mirrored (`bool`, defaults to `False`):
            Whether the video files that a model of skeletons reads are mirror images, as those of Kinect (NTU RGB+D) and of
            some front cameras. The people are mirrored back, so that left is their own left.
        calibrated (`bool`, defaults to `True`):
            Whether scores of trained classes have the temperature of the model's calibration, if it has one. The order of the
            classes is the same.
        unsure_below (`float`, *optional*):
            Answers with a lower score are marked as `unsure`, and their `reason` says so. By default the threshold of the
            model's calibration, if one was chosen for this number of `versions`; it applies to calibrated scores of the
            trained classes.
        on_error (`"raise"` or `"return"`, defaults to `"raise"`):
            Whether a recording that cannot be read raises an exception, or gives `[{"error": message}]`, so that the other
            recordings are still read.
        batch_size (`int`, defaults to 1):
            Number of recordings in a batch; their lengths may differ.
        num_workers (`int`, defaults to 0):
            Number of processes that read files.
    """

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = False

    def __init__(self, *args, **kwargs):
        self._pose_estimators: dict[str | None, PoseEstimator] = {}
        self._writers: dict[str, ReasonWriter] = {}
        super().__init__(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Saves the model, its code and the processor in a folder that `pipeline` can load."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        top_k: int | str | None = _NOT_GIVEN,
        candidate_labels: str | Sequence[str] | None = None,
        divide_by_prior: bool | None = None,
        explain: bool | None = None,
        writer: str | ReasonWriter | None = None,
        return_tokens: bool | None = None,
        return_entropy: bool | None = None,
        calibrated: bool | None = None,
        unsure_below: float | None = None,
        per_person: bool | None = None,
        versions: int | None = None,
        fps: float | None = None,
        pose: str | PoseEstimator | None = None,
        mirrored: bool | None = None,
        on_error: str | None = None,
        **unknown,
    ):
        unknown = sorted(set(unknown) - set(_LOADING))
        if unknown:
            raise TypeError(
                f"the pipeline has no setting {unknown[0]!r}; it has top_k, candidate_labels, divide_by_prior, explain, "
                "writer, return_tokens, return_entropy, calibrated, unsure_below, per_person, versions, fps, pose, mirrored, "
                "on_error, batch_size and num_workers."
            )
        if top_k not in (None, _NOT_GIVEN) and not (isinstance(top_k, int) and top_k >= 1):
            raise ValueError(f"top_k must be an integer of at least 1, or None for all, got {as_written(top_k)}.")
        if versions is not None and not (isinstance(versions, int) and 1 <= versions <= MAX_VERSIONS):
            raise ValueError(f"versions must be an integer from 1 to {MAX_VERSIONS}, got {as_written(versions)}.")
        if isinstance(candidate_labels, str):  # as the zero-shot pipelines of transformers read it
            candidate_labels = [name.strip() for name in candidate_labels.split(",") if name.strip()]
        if candidate_labels is not None:
            try:
                candidate_labels = check_class_names(candidate_labels, self.processor.class_names or ())
            except ValueError as error:
                raise ValueError(f"candidate_labels: {error}") from error
        flags = {
            "divide_by_prior": divide_by_prior,
            "explain": explain,
            "return_tokens": return_tokens,
            "return_entropy": return_entropy,
            "calibrated": calibrated,
        }
        for name, flag in {**flags, "mirrored": mirrored, "per_person": per_person}.items():
            if flag not in (None, True, False):
                raise ValueError(f"{name} must be True or False, got {as_written(flag)}.")
        if candidate_labels is not None and len(candidate_labels) == 1:
            logger.warning_once(
                f"candidate_labels has a single class, {candidate_labels[0]!r}, whose probability is always 1: add another "
                "class to choose from."
            )
        if unsure_below is not None and not (isinstance(unsure_below, int | float) and 0 <= unsure_below <= 1):
            raise ValueError(f"unsure_below must be a probability from 0 to 1, got {as_written(unsure_below)}.")
        if fps is not None and not (isinstance(fps, int | float) and 0 < fps < math.inf):
            raise ValueError(f"fps must be a positive number of frames per second, got {as_written(fps)}.")
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error must be 'raise' or 'return', got {as_written(on_error)}.")
        if not (pose is None or isinstance(pose, str) or callable(pose)):
            raise ValueError(f"pose must be a pose estimator or the name of one, got {as_written(pose)}.")
        if not (writer is None or isinstance(writer, str) or hasattr(writer, "write")):
            raise ValueError(
                f"writer must be a ReasonWriter or the name of a language model, got {as_written(writer)}."
            )
        if writer is not None:
            check_measures_joints(self.processor)
        for name, setting in (("pose", pose), ("mirrored", mirrored), ("per_person", per_person)):
            if setting and not self._reads_skeletons:
                raise ValueError(f"{name}: this model reads videos, and neither estimates poses nor tracks people.")
        if per_person and top_k != _NOT_GIVEN:
            raise ValueError("per_person gives the most likely class of each person: leave out top_k.")
        preprocess = {
            "candidate_labels": candidate_labels,
            "per_person": per_person,
            "versions": versions,
            "fps": fps,
            "pose": pose,
            "mirrored": mirrored,
            "explain": explain,
            "on_error": on_error,
        }
        forward = {
            "candidate_labels": candidate_labels,
            **flags,
            "writer": writer,
            "unsure_below": unsure_below,
            "on_error": on_error,
        }
        postprocess = {} if top_k == _NOT_GIVEN else {"top_k": top_k}
        preprocess, forward = (
            {name: value for name, value in settings.items() if value is not None}
            for settings in (preprocess, forward)
        )
        return preprocess, forward, postprocess

    def __call__(self, inputs, **settings):
        """Recognises actions in recordings; see [`ActionRecognitionPipeline`] for inputs and settings."""
        own = {name: value for name, value in settings.items() if name not in ("batch_size", "num_workers")}
        preprocess, forward, _ = self._sanitize_parameters(**own)
        self._check_together({**self._preprocess_params, **self._forward_params, **preprocess, **forward})
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif hasattr(inputs, "column_names"):  # a data set of the library datasets
            inputs = _Rows(inputs) if hasattr(inputs, "__len__") else (row for row in inputs)
        return super().__call__(inputs, **settings)

    def _check_together(self, settings: dict[str, Any]) -> None:
        """Raises `ValueError` for a setting that would have no effect without another setting, or with this model."""
        if settings.get("divide_by_prior") and settings.get("candidate_labels") is None:
            raise ValueError(
                "divide_by_prior is for names that the model was not trained on: pass them as candidate_labels."
            )
        if settings.get("writer") is not None and not settings.get("explain"):
            raise ValueError("writer writes reasons: pass explain=True as well.")
        self._writer(settings.get("writer"))
        if settings.get("candidate_labels") is not None:
            self._check_context(settings["candidate_labels"])
        check_versions_differ(self.processor.feature_extractor.to_dict(), settings.get("versions", 1), "versions")
        of_tokens = [name for name in ("explain", "return_tokens") if settings.get(name)]
        if of_tokens and self.model.config.injection_layer is not None:
            raise ValueError(f"{of_tokens[0]}: this model reads continuous latents, so it has no tokens.")

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[list[dict]]:
        """Yields the results of many recordings, in order."""
        if hasattr(inputs, "__len__"):
            dataset = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:  # each of several processes would read the whole iterator
            dataset, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), min(num_workers, 1)
        for batch in DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=list):
            for decision in self.forward(batch, **forward_params)["decisions"]:
                yield self.postprocess({"decisions": [decision]}, **postprocess_params)

    def preprocess(
        self,
        recording: Any,
        candidate_labels: Sequence[str] | None = None,
        per_person: bool = False,
        versions: int = 1,
        fps: float | None = None,
        pose: str | PoseEstimator | None = None,
        mirrored: bool = False,
        explain: bool = False,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        """Reads a recording.

        Returns:
            `dict`: `inputs`, the model's inputs for each version; `recording` for the explanation, the skeletons or, with
            `explain`, the video, and its `fps`; `warnings`. With `per_person`, only `people`: the same for each of them, and
            `person`, `start` and `end`. With `on_error="return"`, only `error` if the recording cannot be read.
        """
        sample_id = _sample_id(recording)
        try:
            self._check_type(recording)
            recording = self._opened(recording)
            sample_id, doubts, rate = _sample_id(recording), [], {"fps": fps}
            if self._reads_skeletons:  # read once, for features, warnings and explanation
                extractor, rate = self.processor.feature_extractor, {}
                if is_video(recording):
                    recording, fps = self._estimator(pose)(recording, fps=fps, mirrored=mirrored), None
                recording = extractor.read(recording, fps=fps)
                doubts = extractor.doubts(recording)
            listed = must_list_classes(candidate_labels, self.processor.class_names)
            names = {"class_names": candidate_labels, "list_classes": listed}

            def inputs_of(recording: Any) -> list[dict]:
                inputs = []
                for version in range(versions):
                    _rewind(recording)
                    arguments = version_arguments(sample_id, version)
                    inputs.append(dict(self.processor(recording, **arguments, **names, **rate)))
                return inputs

            if per_person:
                people, error = [], TooFewJointsError(sample_id, "nobody", "at least one person")
                for person in people_of(recording, extractor.cleaning):
                    try:
                        inputs = inputs_of(person.recording)
                    except TooFewJointsError as error_of_person:
                        error = error_of_person
                        logger.warning(f"person {person.number} is left out: {error}")
                        continue
                    about = {"person": person.number, "start": person.start, "end": person.end}
                    warnings = extractor.doubts(person.recording)
                    people.append(
                        {"inputs": inputs, "recording": person.recording, "warnings": warnings, "about": about}
                    )
                if not people:
                    raise error
                return {"people": people}
            inputs = inputs_of(recording)
        except (ValueError, TypeError, OSError, ImportError) as error:
            if on_error == "raise":
                raise
            name = _sample_id(recording)
            return {"error": str(error) if name in str(error) else f"{name}: {error}"}
        except (MemoryError, OverflowError) as error:  # their messages do not name the recording
            if on_error == "raise":
                raise
            return {"error": f"{sample_id}: too large to be read ({type(error).__name__}: {error})"}
        if not self._reads_skeletons:
            recording = _to_explain(recording) if explain else None
        return {"inputs": inputs, "recording": recording, "fps": fps, "warnings": doubts}

    @property
    def _reads_skeletons(self) -> bool:
        return hasattr(self.processor.feature_extractor, "skeleton_layout")

    def _check_type(self, recording: Any) -> None:
        """Raises `ValueError` for a nested list, and for a type of file that this model does not read."""
        if isinstance(recording, list | tuple):
            raise ValueError(f"expected a recording, got a {type(recording).__name__} of {len(recording)}.")
        if isinstance(recording, io.TextIOBase):
            raise ValueError(
                f"{getattr(recording, 'name', 'the file')} is opened in text mode: open it with mode 'rb'."
            )
        if self._reads_skeletons and isinstance(recording, _BYTES):
            raise ValueError(
                f"the format of {len(recording)} bytes is unknown: pass an open file whose name ends in one of "
                f"{', '.join(RECORDING_SUFFIXES)} (set the .name of io.BytesIO)."
            )
        name = recording if isinstance(recording, str | os.PathLike) else getattr(recording, "name", None)
        if not isinstance(name, str | os.PathLike):
            return
        if os.path.isdir(name):
            self._check_folder(Path(name))
        if not self._reads_skeletons and os.fspath(name).lower().endswith(RECORDING_SUFFIXES):
            raise ValueError(f"{recording} is a recording of skeletons, but this model reads videos.")

    def _estimator(self, pose: str | PoseEstimator | None) -> PoseEstimator:
        """An estimator unchanged, or that of a name, loaded once."""
        # Not by its class: if this code came from a repository, an estimator of the installed package has another base.
        if pose is not None and not isinstance(pose, str):
            return pose
        if pose not in self._pose_estimators:
            self._pose_estimators[pose] = load_pose_estimator(pose)
        return self._pose_estimators[pose]

    def _writer(self, writer: str | ReasonWriter | None) -> ReasonWriter | None:
        """A writer unchanged, or that of a name, loaded once."""
        if not isinstance(writer, str):
            return writer
        if writer not in self._writers:
            self._writers[writer] = load_writer(writer, self.model, self.processor)
        return self._writers[writer]

    def _check_folder(self, folder: Path) -> None:
        """Raises `ValueError` for a folder, unless it contains frames: of a video, or of OpenPose, as this model reads."""
        names = sorted(os.listdir(folder))
        if self._reads_skeletons and is_openpose_folder(folder):
            return
        if not self._reads_skeletons and any(name.lower().endswith(FRAME_SUFFIXES) for name in names):
            return
        suffixes = RECORDING_SUFFIXES if self._reads_skeletons else VIDEO_SUFFIXES
        recordings = [name for name in names if name.lower().endswith(suffixes)]
        if not recordings:
            raise ValueError(f"{folder} is a folder without recordings: expected a file ({', '.join(suffixes)}).")
        raise ValueError(
            f"{folder} is a folder of {len(recordings)} recordings: expected a recording, or a list of recordings, such as "
            f"[str(path) for path in sorted(Path({str(folder)!r}).glob('*{Path(recordings[0]).suffix}'))]."
        )

    def _opened(self, recording: Any) -> Any:
        """An open file for a URL or for bytes; every other recording unchanged.

        Raises:
            OSError: if a URL cannot be downloaded.
        """
        if isinstance(recording, _BYTES):
            recording = io.BytesIO(recording)
        elif isinstance(recording, str) and _is_web_address(recording):
            recording = _downloaded(recording)
        elif isinstance(recording, str) and re.match(r"[a-z][a-z0-9+.-]*://", recording, re.IGNORECASE):
            raise OSError(f"{recording}: expected a path, or a URL of http or https; download it, and pass its path")
        _rewind(recording)
        return recording

    def _check_context(self, candidate_labels: Sequence[str]) -> None:
        """Raises `ValueError` for candidate labels that do not fit the language model's context with any recording."""
        listed = must_list_classes(candidate_labels, self.processor.class_names)
        context = getattr(self.model.config.text_config, "max_position_embeddings", None)
        if context is None:
            return
        # Each listed class takes at least a token, which spares tokenizing very long lists.
        tokens, at_least = len(candidate_labels) if listed else 0, "at least "
        if tokens <= context:
            prompt = self.processor.prompt(None, candidate_labels, listed)
            tokens = len(self.processor.encode_prompt_and_label(prompt)[0])
            # The last token of a name is scored, but not read.
            tokens, at_least = tokens + max(map(len, self.processor.label_ids(candidate_labels, listed))) - 1, ""
        if tokens > context:
            raise ValueError(
                f"candidate_labels: {len(candidate_labels):,} classes and the prompt take {at_least}{tokens:,} tokens, but the "
                f"language model has a context of {context:,}: pass fewer or shorter names, or several parts of the list."
            )

    def _forward(self, batch: dict | list[dict], on_error: str = "raise", **settings) -> dict[str, list[dict]]:
        """Returns `decisions`, a dict for each output of `preprocess`, in order; with people, a dict of their decisions."""
        batch = batch if isinstance(batch, list) else [batch]
        try:
            decided = iter(
                self._decide([person for item in batch for person in item.get("people", [item])], **settings)
            )
            return {
                "decisions": [
                    {"people": list(islice(decided, len(item["people"])))} if "people" in item else next(decided)
                    for item in batch
                ]
            }
        # A sentence can be too long for the language model, or for the memory.
        except (ValueError, MemoryError) as error:
            if on_error == "raise":
                raise
            if len(batch) == 1:
                return {"decisions": [{"error": str(error)}]}
        return {"decisions": [self._forward([item], on_error, **settings)["decisions"][0] for item in batch]}

    def _decide(
        self,
        batch: list[dict],
        candidate_labels: Sequence[str] | None = None,
        divide_by_prior: bool = False,
        explain: bool = False,
        writer: str | ReasonWriter | None = None,
        return_tokens: bool = False,
        return_entropy: bool = False,
        calibrated: bool = True,
        unsure_below: float | None = None,
    ) -> list[dict]:
        """Probabilities, warnings, tokens and reason of each recording; recordings that could not be read keep their error."""
        decisions = [dict(item) for item in batch]
        readable = [decision for decision in decisions if "inputs" in decision]
        if not readable:
            return decisions
        counts = [len(decision["inputs"]) for decision in readable]
        inputs = _collated([version for decision in readable for version in decision.pop("inputs")])
        outputs = self.model(**inputs)
        logits = outputs.logits
        if divide_by_prior:  # the prompt is the same for all
            prompt = {name: inputs[name][:1] for name in ("input_ids", "attention_mask")}
            logits = logits - self.model.log_prior(**prompt, label_ids=inputs["label_ids"])
        # A temperature is fitted on the names of training.
        listed = must_list_classes(candidate_labels, self.processor.class_names)
        calibrated = calibrated and not divide_by_prior and not listed
        names = self.processor.class_names if candidate_labels is None else list(candidate_labels)
        originals = [sum(counts[:place]) for place in range(len(counts))]  # index of each recording's first version
        for index, count, decision in zip(originals, counts, readable, strict=True):
            recording, fps = decision.pop("recording"), decision.pop("fps", None)
            probabilities = self._mean(logits[index : index + count], calibrated)
            decision["probabilities"] = dict(zip(names, probabilities, strict=True))
            threshold = unsure_below
            if threshold is None:
                threshold = self._chosen_threshold(count) if calibrated and candidate_labels is None else 0.0
            if max(probabilities) < threshold:
                decision["unsure"] = True
            warnings = decision.pop("warnings") + self._unlike_training(outputs, index)
            if warnings:
                decision["warnings"] = warnings
            decision |= decision.pop("about", {})
            if return_entropy and len(probabilities) > 1:
                decision["entropy"] = float(normalised_entropy(torch.tensor(probabilities, dtype=torch.float64)))
            if return_tokens:
                decision["tokens"] = self._tokens(outputs, index)
            if explain:
                _rewind(recording)
                reason = self.model.explain(
                    self.processor,
                    outputs,
                    index,
                    recording=recording,
                    fps=fps,
                    class_names=candidate_labels,
                    list_classes=listed,
                    unsure_below=threshold,
                    probabilities=probabilities,
                    writer=self._writer(writer),
                )
                decision["reason"] = reason.text
                if writer is not None:
                    decision["reason_by"] = reason.reason_by
                    decision["statements"] = count_verdicts(reason.written.statements if reason.written else [])
                if reason.description:
                    decision["description"] = reason.description
        return decisions

    def _mean(self, logits: torch.Tensor, calibrated: bool) -> list[float]:
        """Mean class probabilities of the versions of a recording, whose logits are (versions, classes)."""
        versions = len(logits)
        if not calibrated:
            return logits.softmax(-1).mean(dim=0).tolist()
        log_means = logits.log_softmax(-1).logsumexp(dim=0) - math.log(versions)
        return self.model.calibrated(log_means, versions).tolist()

    def _chosen_threshold(self, versions: int) -> float:
        """The probability below which answers are unsure by the model's calibration; 0 if none was chosen."""
        calibration = self.model.calibration
        if calibration is None or calibration.sure_accuracy is None:
            return 0.0
        threshold = calibration.unsure_below(versions)
        if threshold is None:
            fitted = ", ".join(
                str(reading.versions) for reading in calibration.readings if reading.unsure_below is not None
            )
            logger.warning_once(
                f"answers from {versions} versions are never marked as unsure: thresholds were chosen for {fitted} versions."
            )
        return threshold or 0.0

    def _tokens(self, outputs, index: int) -> list[dict]:
        """The action sentence of a recording, word by word: the tokens as text, the id of the first, and times in seconds."""
        words, times = sentence_of(outputs, index)
        return [
            {
                "token": "".join(f"<act_{token}>" for token in np.atleast_1d(word)),
                "id": int(np.atleast_1d(word)[0]),
                "start": round(start, 3),
                "end": round(end, 3),
            }
            for word, (start, end) in zip(words, times, strict=True)
        ]

    def _unlike_training(self, outputs, index: int) -> list[str]:
        """A warning if the recording is unlike those that the action model knows; else an empty list."""
        familiar = getattr(self.model.config.action_config, "familiar_distance", None)
        if familiar is None or outputs.token_distance is None:
            return []
        distance = float(outputs.token_distance[index])
        if not distance > familiar:  # nor NaN
            return []
        return [
            "this recording is unlike those that the model knows, so the answer is unreliable: its quantisation error is "
            f"{distance:.3g}, and {FAMILIAR_SHARE:.0%} of the recordings evaluated after training have at most {familiar:.3g}"
        ]

    def postprocess(self, outputs: dict[str, list[dict]], top_k: int | None = 5) -> list[dict]:
        """The most likely classes of a single decision."""
        (decision,) = outputs["decisions"]
        if "error" in decision:
            return [decision]
        if "people" in decision:
            return [self.postprocess({"decisions": [person]}, top_k=1)[0] for person in decision["people"]]
        probabilities = decision.pop("probabilities")
        best = sorted(probabilities, key=probabilities.get, reverse=True)[:top_k]
        labels = [{"label": name, "score": probabilities[name]} for name in best]
        labels[0] |= decision
        return labels


class _Rows(Dataset):
    """Rows of a data set of the library datasets as a torch data set, which `pipeline` accepts."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return self.rows[index]


def _sample_id(recording: Any) -> str:
    """The `sample_id` of a row, or the name of a file without suffix, as in the recipes; empty for arrays."""
    if isinstance(recording, Mapping):
        return str(recording.get("sample_id", ""))
    if not isinstance(recording, str | os.PathLike):
        recording = getattr(recording, "source", None) or getattr(recording, "name", "")
    return Path(str(recording)).stem


def _rewind(recording: Any) -> None:
    """Moves an open file to its start, so that it can be read again."""
    if hasattr(recording, "seekable") and recording.seekable():
        recording.seek(0)


def _to_explain(video: Any) -> Any:
    """A video that is looked at again: what can be sent to another process, which an open file cannot; None if it is gone."""
    if isinstance(video, str | os.PathLike | io.BytesIO) or hasattr(video, "__array__"):
        return video
    name = getattr(video, "name", None)
    if isinstance(name, str) and os.path.isfile(name):
        return os.path.abspath(name)
    if not (hasattr(video, "seekable") and video.seekable()):
        return None
    _rewind(video)
    return io.BytesIO(video.read())


class _Download(tempfile.SpooledTemporaryFile):
    """A downloaded file and its name; deleted when it is closed."""

    name = ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows at most `URL_REDIRECTS` redirects, only to http and https."""

    max_redirections = max_repeats = URL_REDIRECTS

    def redirect_request(self, request, response, code, message, headers, url):
        if not _is_web_address(url):
            raise urllib.error.URLError(f"it redirects to {url}, but only http and https are followed")
        return super().redirect_request(request, response, code, message, headers, url)


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections and ends them after some seconds, even if a server keeps sending; use it in a `with` statement."""

    def __init__(self, seconds: float):
        urllib.request.HTTPSHandler.__init__(self)
        self._sockets, self.is_ended = [], False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self):
        self._timer.start()
        return self

    def __exit__(self, *exception):
        self._timer.cancel()
        for handle in self._sockets:
            handle.close()

    def http_open(self, request):
        return self.do_open(self._connection(http.client.HTTPConnection), request)

    def https_open(self, request):
        return self.do_open(self._connection(http.client.HTTPSConnection), request, context=self._context)

    def _connection(self, base: type):
        def make(*arguments, **settings):
            connection = base(*arguments, **settings)
            connection._create_connection = self._connected
            return connection

        return make

    def _connected(self, *arguments, **settings) -> socket.socket:
        connection = socket.create_connection(*arguments, **settings)
        # A second handle of the connection, because TLS takes over the first.
        self._sockets.append(connection.dup())
        if self.is_ended:
            self._end()
        return connection

    def _end(self) -> None:
        self.is_ended = True
        for handle in self._sockets:
            with contextlib.suppress(OSError):  # the server has already closed it
                handle.shutdown(socket.SHUT_RDWR)


def _is_web_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _downloaded(url: str) -> _Download:
    """Downloads a file. Raises `OSError` if that fails, or exceeds the limits of size and time."""
    content = _Download(URL_MEMORY)
    address = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # encodes characters beyond ASCII
    with _Connections(URL_SECONDS) as connections:
        try:
            with _opener(connections).open(address, timeout=SILENT_SECONDS) as response:
                _copy(response, content)
                content.name = _name_of(response)
        except (ValueError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
        else:
            reason = None
    # After a time-out, any error may have been raised, or none, depending on what the server was sending.
    if connections.is_ended:
        reason = f"it takes more than {URL_SECONDS} s; download it, and pass its path"
    if reason is None:
        return content
    content.close()
    raise OSError(f"{url} cannot be downloaded: {reason}")


def _opener(connections: _Connections) -> urllib.request.OpenerDirector:
    """An opener of http and https alone; the default opener of urllib also opens files and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(urllib.request.ProxyHandler(), connections, _Redirects(), urllib.request.HTTPErrorProcessor()),
        *(urllib.request.HTTPDefaultErrorHandler(), urllib.request.UnknownHandler()),
    ):
        opener.add_handler(handler)
    return opener


def _copy(response, content: BinaryIO) -> None:
    """Copies a response. Raises `URLError` if it is too large, or ends early."""
    expected = response.length
    if expected is None or expected <= URL_BYTES:
        while content.tell() <= URL_BYTES and (part := response.read(1 << 16)):
            content.write(part)
    if max(content.tell(), expected or 0) > URL_BYTES:
        raise urllib.error.URLError(f"it is larger than {URL_BYTES >> 20:,} MiB; download it, and pass its path")
    if expected is not None and content.tell() < expected:
        raise urllib.error.URLError(f"the response ends after {content.tell():,} of {expected:,} bytes")


def _name_of(response) -> str:
    """The name of a downloaded file: from its address, or, if that has no known suffix, from the headers."""
    name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(response.url).path))
    if name.lower().endswith((*RECORDING_SUFFIXES, *VIDEO_SUFFIXES)):
        return name
    content_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return os.path.basename(response.headers.get_filename() or name + (mimetypes.guess_extension(content_type) or ""))


def _collated(inputs: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Joins the inputs of single recordings, which have the same prompt and classes, to a batch; features are padded by 0."""
    batch = {}
    for name, first in inputs[0].items():
        rows = [recording_inputs[name] for recording_inputs in inputs]
        if name == "label_ids":
            batch[name] = first
        elif first.ndim > 1 and len({row.shape[1] for row in rows}) > 1:
            batch[name] = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
        else:
            batch[name] = torch.cat(rows)
    return batch


# `pipeline` needs this to accept a loaded model, also if its code came from a repository.
if "action-recognition" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        "action-recognition", pipeline_class=ActionRecognitionPipeline, pt_model=AutoModel, type="multimodal"
    )


__all__ = ["ActionRecognitionPipeline"]
