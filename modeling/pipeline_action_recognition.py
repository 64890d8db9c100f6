"""`pipeline("action-recognition", model=REPO, trust_remote_code=True)`: recordings in; labels, scores and reasons out."""

import http.client
import io
import mimetypes
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils import logging

from .recording_files import RECORDING_SUFFIXES, read_recording
from .video_files import VIDEO_SUFFIXES

logger = logging.get_logger(__name__)

# The longest that a server may be silent.
URL_SECONDS = 30
_NOT_SAID = "not said"
# What `pipeline` hands on although it is about loading.
_LOADING = ("local_files_only", "code_revision")


class ActionRecognitionPipeline(Pipeline):
    """
    Recognises actions in recordings of skeletons or videos, whichever the model reads.

    ```python
    recognise = pipeline("action-recognition", model="me/llm-ar", trust_remote_code=True)
    recognise("clip.skeleton", explain=True, return_tokens=True)
    ```

    A recording is a path, a URL (`http`, `https`), an array, or a row of a data set. One gives a list of at most `top_k` dicts,
    the likeliest class first; a list gives a list of such lists; a generator or a data set gives an iterator of them, which
    reads as it goes.

    Each dict has `label` and `score`, the probability of the class, exact and normalised over the class list. The first one
    has what was asked for besides:

    - `reason` (`explain=True`): in English, which tokens moved the decision and what happened then; see
      [`~explanations.explain`]. `description`, too, of models that were trained to describe.
    - `tokens` (`return_tokens=True`): the action sentence, a dict each: `token`, its `id` (of a word of several tokens, that
      of the first), `start` and `end` in seconds.

    Args:
        top_k (`int` or `None`, defaults to 5):
            How many classes; `None`: all of them.
        candidate_labels (`Sequence[str]`, *optional*):
            The classes to choose from, in place of the trained ones. Where the model was not trained on one of them, the list
            is written into the prompt (LLM-AR, Table 8).
        explain, return_tokens (`bool`, defaults to `False`):
            What is asked for besides.
        versions (`int`, defaults to 1):
            Times that a recording is read: as it is, and varied by the `augment_` settings of the model's feature extractor.
            The probabilities are the means, and all versions are read at a time; `tokens` are of the recording as it is. Not
            together with `explain`, which is about one sentence.
        unsure_below (`float`, defaults to 0):
            Below this probability the reason says that it is not sure.
        on_error (`"raise"` or `"return"`, defaults to `"raise"`):
            What becomes of a recording that cannot be read: an exception; or `[{"error": why}]`, and the rest goes on.
        batch_size (`int`, defaults to 1):
            Recordings that are read at a time, of whatever lengths.
        num_workers (`int`, defaults to 0):
            Processes that read files.
    """

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = False

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Saves the model, its code and the processor; `pipeline` loads the folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        top_k: int | str | None = _NOT_SAID,
        candidate_labels: Sequence[str] | None = None,
        explain: bool | None = None,
        return_tokens: bool | None = None,
        unsure_below: float | None = None,
        versions: int | None = None,
        on_error: str | None = None,
        **unknown,
    ):
        unknown = sorted(set(unknown) - set(_LOADING))
        if unknown:
            raise TypeError(
                f"the pipeline has no setting {unknown[0]!r}; it has top_k, candidate_labels, explain, return_tokens, "
                "unsure_below, versions, on_error, batch_size and num_workers."
            )
        if top_k not in (None, _NOT_SAID) and not (isinstance(top_k, int) and top_k >= 1):
            raise ValueError(f"top_k must be a whole number of at least 1, or None for all, got {top_k!r}.")
        if versions is not None and not (isinstance(versions, int) and versions >= 1):
            raise ValueError(f"versions must be a whole number of at least 1, got {versions!r}.")
        candidate_labels = None if candidate_labels is None else list(candidate_labels)
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error: expected 'raise' or 'return', got {on_error!r}.")
        read = {"candidate_labels": candidate_labels, "versions": versions, "on_error": on_error}
        decide = {
            "candidate_labels": candidate_labels,
            "explain": explain,
            "return_tokens": return_tokens,
            "unsure_below": unsure_below,
            "on_error": on_error,
        }
        tell = {} if top_k == _NOT_SAID else {"top_k": top_k}
        read, decide = ({name: value for name, value in part.items() if value is not None} for part in (read, decide))
        return read, decide, tell

    def __call__(self, inputs, **settings):
        """Recordings → labels; see the class."""
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif hasattr(inputs, "column_names"):  # of the library datasets
            inputs = _Rows(inputs) if hasattr(inputs, "__len__") else (row for row in inputs)
        return super().__call__(inputs, **settings)

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[list[dict]]:
        """Results of many recordings, in order."""
        if hasattr(inputs, "__len__"):
            read = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:  # several processes would each go through all of it
            read, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), min(num_workers, 1)
        for batch in DataLoader(read, batch_size, num_workers=num_workers, collate_fn=list):
            for found in self.forward(batch, **forward_params)["found"]:
                yield self.postprocess({"found": [found]}, **postprocess_params)

    def preprocess(
        self,
        recording: Any,
        candidate_labels: Sequence[str] | None = None,
        versions: int = 1,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        """What the model reads of a recording's versions; or, where it cannot be read and that is no reason to stop, why."""
        try:
            self._check_kind(recording)
            recording = self._fetched(recording)
            names = {"class_names": candidate_labels, "list_classes": self._lists(candidate_labels)}
            inputs = [
                dict(self.processor(recording, augment=version > 0, seed=version, **names))
                for version in range(versions)
            ]
        except (ValueError, TypeError, OSError, ImportError) as error:
            if on_error == "raise":
                raise
            return {"error": str(error)}
        return {"inputs": inputs, "recording": recording}

    def _check_kind(self, recording: Any) -> None:
        """Raises `ValueError` for several recordings in one's place, and for a file of a kind that this model does not read."""
        if isinstance(recording, list | tuple):
            raise ValueError(f"expected a recording, found a {type(recording).__name__} of {len(recording)}.")
        if not isinstance(recording, str | os.PathLike):
            return
        name = os.fspath(recording).lower()
        reads_skeletons = hasattr(self.processor.feature_extractor, "skeleton_layout")
        if reads_skeletons and name.endswith(VIDEO_SUFFIXES):
            raise ValueError(
                f"{recording} is a video, and this model reads skeletons ({', '.join(RECORDING_SUFFIXES)})."
            )
        if not reads_skeletons and name.endswith(RECORDING_SUFFIXES):
            raise ValueError(f"{recording} is a recording of skeletons, and this model reads videos.")

    def _fetched(self, recording: Any) -> Any:
        """What lies behind a URL; everything else as it is.

        Raises:
            OSError: nothing can be had from there.
        """
        if not (isinstance(recording, str) and recording.lower().startswith(("http://", "https://"))):
            return recording
        try:
            with urllib.request.urlopen(recording, timeout=URL_SECONDS) as answer:
                content = io.BytesIO(answer.read())
                content.name = _name_of(answer)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise OSError(f"{recording} cannot be fetched: {getattr(error, 'reason', error)}") from error
        extractor = self.processor.feature_extractor
        if not hasattr(extractor, "skeleton_layout"):
            return content
        # Read once: its joints are narrated as well.
        return read_recording(content, layout=extractor.skeleton_layout.to_dict(), fps=extractor.fps or 30.0)

    def _lists(self, candidate_labels: Sequence[str] | None) -> bool | None:
        """Whether the class list is part of the prompt: where the model was not trained on all of it."""
        trained = self.processor.class_names or ()
        new = [] if candidate_labels is None else [name for name in candidate_labels if name not in trained]
        if new:
            logger.warning_once(
                f"the model was not trained on {', '.join(map(repr, new[:3]))}{', …' * (len(new) > 3)}: how sure it is of "
                "names that are new to it says little."
            )
        return True if new else None

    def _forward(self, batch: dict | list[dict], on_error: str = "raise", **asked) -> dict[str, list[dict]]:
        """Decisions about what `preprocess` made of recordings, in order, as `found`."""
        batch = batch if isinstance(batch, list) else [batch]
        try:
            return {"found": self._decide(batch, **asked)}
        except ValueError as error:  # a sentence that is too long for the language model
            if on_error == "raise":
                raise
            if len(batch) == 1:
                return {"found": [{"error": str(error)}]}
        return {"found": [self._forward([item], on_error, **asked)["found"][0] for item in batch]}

    def _decide(
        self,
        batch: list[dict],
        candidate_labels: Sequence[str] | None = None,
        explain: bool = False,
        return_tokens: bool = False,
        unsure_below: float = 0.0,
    ) -> list[dict]:
        """A decision for each of what was read, and what was asked for besides."""
        found = [dict(item) for item in batch]
        read = [item for item in found if "inputs" in item]
        if not read:
            return found
        counts = [len(item["inputs"]) for item in read]
        if explain and max(counts) > 1:
            # No fault of a recording, which `on_error` would be about.
            raise TypeError(f"a reason is about one sentence: with explain, versions must be 1, got {max(counts)}.")
        outputs = self.model(**_collated([version for item in read for version in item.pop("inputs")]))
        names = self.processor.class_names if candidate_labels is None else list(candidate_labels)
        means = [of_versions.mean(dim=0).tolist() for of_versions in outputs.probabilities.split(counts)]
        firsts = [sum(counts[:place]) for place in range(len(counts))]
        for index, mean, item in zip(firsts, means, read, strict=True):
            recording = item.pop("recording")
            item["probabilities"] = dict(zip(names, mean, strict=True))
            if not (explain or return_tokens):
                continue
            sentence = _sentence(outputs, index)
            if return_tokens:
                item["tokens"] = [
                    {
                        "token": "".join(f"<act_{one}>" for one in np.atleast_1d(word)),
                        "id": int(np.atleast_1d(word)[0]),
                        "start": round(start, 3),
                        "end": round(end, 3),
                    }
                    for word, start, end, _ in sentence
                ]
            if explain:
                reason = self.model.explain(
                    self.processor,
                    recording if hasattr(self.processor.feature_extractor, "skeleton_layout") else None,
                    action_ids=[
                        (word, length) if self.processor.run_lengths else word for word, _, _, length in sentence
                    ],
                    times=[(start, end) for _, start, end, _ in sentence],
                    class_names=candidate_labels,
                    list_classes=self._lists(candidate_labels),
                    unsure_below=unsure_below,
                )
                item["reason"] = reason.text
                if reason.description:
                    item["description"] = reason.description
        return found

    def postprocess(self, outputs: dict[str, list[dict]], top_k: int | None = 5) -> list[dict]:
        """One decision as the list of its likeliest classes."""
        (found,) = outputs["found"]
        if "error" in found:
            return [found]
        probabilities = found.pop("probabilities")
        best = sorted(probabilities, key=probabilities.get, reverse=True)[:top_k]
        labels = [{"label": name, "score": probabilities[name]} for name in best]
        labels[0] |= found
        return labels


class _Rows(Dataset):
    """Rows of a data set of the library datasets, for `pipeline`, which knows those of torch."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return self.rows[index]


def _sentence(outputs, index: int) -> list[tuple[int, float, float, int]]:
    """Words of one recording: token (of several, a list), start, end, length of its run."""
    if outputs.action_ids is None:
        raise ValueError("this model reads continuous latents: it has no tokens to show or to leave out.")
    mask = outputs.action_attention_mask[index].bool()
    lengths = (
        outputs.run_lengths if outputs.run_lengths is not None else torch.ones_like(outputs.action_attention_mask)
    )
    columns = (outputs.action_ids, outputs.start_times, outputs.end_times, lengths)
    return list(zip(*(column[index][mask].tolist() for column in columns), strict=True))


def _name_of(answer) -> str:
    """The name of a file that a server sends: that of its address, or, where that tells no kind, what the server says."""
    name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(answer.url).path))
    if name.lower().endswith((*RECORDING_SUFFIXES, *VIDEO_SUFFIXES)):
        return name
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return answer.headers.get_filename() or name + (mimetypes.guess_extension(kind) or "")


def _collated(inputs: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Inputs of single recordings as those of a batch. Prompts and class names are the same; features are filled up with 0."""
    batch = {}
    for name, first in inputs[0].items():
        rows = [one[name] for one in inputs]
        if name == "label_ids":
            batch[name] = first
        elif first.ndim > 1 and len({row.shape[1] for row in rows}) > 1:
            batch[name] = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
        else:
            batch[name] = torch.cat(rows)
    return batch


# A model that is there already is given to `pipeline` by this, also where its code came from a repository.
if "action-recognition" not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        "action-recognition", pipeline_class=ActionRecognitionPipeline, pt_model=AutoModel, type="multimodal"
    )


__all__ = ["ActionRecognitionPipeline"]
