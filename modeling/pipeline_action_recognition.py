"""`pipeline("action-recognition", model=REPO, trust_remote_code=True)`: recordings in; labels, scores and reasons out."""

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
from .class_names import check_class_names
from .explanations import sentence_of
from .model_files import as_written
from .recording_files import RECORDING_SUFFIXES
from .recording_versions import check_versions_differ, version_arguments
from .video_files import FRAME_SUFFIXES, VIDEO_SUFFIXES

logger = logging.get_logger(__name__)

# Versions of a recording that are averaged; the gain ends with a few dozen.
MAX_VERSIONS = 1000
# The longest that a server may be silent, and that all of an answer may take; bytes of an answer, and redirects to it.
SILENT_SECONDS, URL_SECONDS = 30, 600
URL_BYTES, URL_REDIRECTS = 1 << 30, 5
# Bytes of an answer that are held in memory; of a longer one all are in a file without a name.
URL_MEMORY = 1 << 24
_NOT_SAID = "not said"
_BYTES = (bytes, bytearray, memoryview)
# What `pipeline` hands on although it is about loading.
_LOADING = ("local_files_only", "code_revision")


class ActionRecognitionPipeline(Pipeline):
    """
    Recognises actions in recordings of skeletons or videos, whichever the model reads.

    ```python
    recognise = pipeline("action-recognition", model="me/llm-ar", trust_remote_code=True)
    recognise("clip.skeleton", explain=True, return_tokens=True)
    ```

    A recording is a path, a URL (`http`, `https`), a file that is open for reading bytes, an array, or a row of a data set; for
    a model of videos also the bytes of a file, or a folder of frames. One gives a list of at most `top_k` dicts, the likeliest
    class first; a list gives a list of such lists; a generator or a data set gives an iterator of them, which reads as it goes.

    What a URL leads to is 1 GiB at most, and there within ten minutes. A service that hands on the URLs of strangers must check
    them first: any address that this machine can reach is asked.

    Each dict has `label` and `score`, the probability of the class, exact and normalised over the class list. The first one
    has `warnings`, a list of sentences, where there is reason to doubt the answer: joints that do not look like those of the
    model's layout, a frame rate that had to be assumed, a recording further from the model's tokens than 99 % of those that it
    was made with; and what was asked for besides:

    - `reason` (`explain=True`): in English, which tokens moved the decision and what happened then; see
      [`~explanations.explain`]. `description`, too, of models that were trained to describe.
    - `tokens` (`return_tokens=True`): the action sentence, a dict each: `token`, its `id` (of a word of several tokens, that
      of the first), `start` and `end` in seconds.

    Args:
        top_k (`int` or `None`, defaults to 5):
            How many classes; `None`: all of them.
        candidate_labels (`str` or `Sequence[str]`, *optional*):
            The classes to choose from, in place of the trained ones: a list of names, or a text of names with commas between
            them, as the zero-shot pipelines take it (`"abc"` is one class). Names that differ only in spaces, Unicode form or
            invisible characters are the same class. Where the model was not trained on one of them, the list is written into
            the prompt (LLM-AR, Table 8), and has to fit the language model's context.
        explain, return_tokens (`bool`, defaults to `False`):
            What is asked for besides.
        versions (`int`, defaults to 1):
            Times that a recording is read: as it is, and varied by the `augment_` settings of the model's feature extractor.
            The probabilities are the means, and all versions are read at a time; `tokens` are of the recording as it is, and
            `reason` says which of these spoke for the class that is likeliest by the means. They are the versions that
            `encode_actions.py` and `extract_features.py` make with their default seed, of a recording whose `sample_id` is
            that of the row, or the name of the file without its suffix.
        fps (`float`, *optional*):
            Frames per second of the recording, whatever it says itself; of videos, that of arrays and of folders of frames.
            Where neither says it, it is that of the recordings that the model was trained on, with a warning.
        unsure_below (`float`, defaults to 0):
            Below this probability the reason says that it is not sure; with `explain`.
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
        candidate_labels: str | Sequence[str] | None = None,
        explain: bool | None = None,
        return_tokens: bool | None = None,
        unsure_below: float | None = None,
        versions: int | None = None,
        fps: float | None = None,
        on_error: str | None = None,
        **unknown,
    ):
        unknown = sorted(set(unknown) - set(_LOADING))
        if unknown:
            raise TypeError(
                f"the pipeline has no setting {unknown[0]!r}; it has top_k, candidate_labels, explain, return_tokens, "
                "unsure_below, versions, fps, on_error, batch_size and num_workers."
            )
        if top_k not in (None, _NOT_SAID) and not (isinstance(top_k, int) and top_k >= 1):
            raise ValueError(f"top_k must be a whole number of at least 1, or None for all, got {as_written(top_k)}.")
        if versions is not None and not (isinstance(versions, int) and 1 <= versions <= MAX_VERSIONS):
            raise ValueError(f"versions must be a whole number from 1 to {MAX_VERSIONS}, got {as_written(versions)}.")
        if isinstance(candidate_labels, str):  # as the zero-shot pipelines of transformers read it
            candidate_labels = [name.strip() for name in candidate_labels.split(",") if name.strip()]
        if candidate_labels is not None:
            try:
                candidate_labels = check_class_names(candidate_labels, self.processor.class_names or ())
            except ValueError as error:
                raise ValueError(f"candidate_labels: {error}") from error
        for name, flag in (("explain", explain), ("return_tokens", return_tokens)):
            if flag not in (None, True, False):
                raise ValueError(f"{name} must be True or False, got {as_written(flag)}.")
        if candidate_labels is not None and len(candidate_labels) == 1:
            logger.warning_once(
                f"candidate_labels has one class, {candidate_labels[0]!r}, whose probability is 1 whatever a recording shows: "
                "give another one to choose from."
            )
        is_number = isinstance(unsure_below, int | float)
        if unsure_below is not None and not (is_number and (0 <= unsure_below <= 1 or unsure_below == math.inf)):
            raise ValueError(f"unsure_below must be a probability from 0 to 1, got {as_written(unsure_below)}.")
        if fps is not None and not (isinstance(fps, int | float) and 0 < fps < math.inf):
            raise ValueError(f"fps must be a positive number of frames per second, got {as_written(fps)}.")
        if on_error not in (None, "raise", "return"):
            raise ValueError(f"on_error: expected 'raise' or 'return', got {as_written(on_error)}.")
        read = {"candidate_labels": candidate_labels, "versions": versions, "fps": fps, "on_error": on_error}
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
        given = {name: value for name, value in settings.items() if name not in ("batch_size", "num_workers")}
        reading, deciding, _ = self._sanitize_parameters(**given)
        self._check_together({**self._preprocess_params, **self._forward_params, **reading, **deciding})
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif hasattr(inputs, "column_names"):  # of the library datasets
            inputs = _Rows(inputs) if hasattr(inputs, "__len__") else (row for row in inputs)
        return super().__call__(inputs, **settings)

    def _check_together(self, settings: dict[str, Any]) -> None:
        """Raises `ValueError` for a setting that has no effect without another one, or on what this model reads."""
        if "unsure_below" in settings and not settings.get("explain"):
            raise ValueError(
                f"unsure_below {settings['unsure_below']} is about the reason: set explain=True, or leave unsure_below out and "
                "compare the scores with it."
            )
        if settings.get("candidate_labels") is not None:
            self._check_context(settings["candidate_labels"])
        check_versions_differ(self.processor.feature_extractor.to_dict(), settings.get("versions", 1), "versions")
        asked = [name for name in ("explain", "return_tokens") if settings.get(name)]
        if asked and self.model.config.injection_layer is not None:
            raise ValueError(
                f"{asked[0]}: this model reads continuous latents, so it has no tokens to show or to leave out."
            )

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
        fps: float | None = None,
        on_error: str = "raise",
    ) -> dict[str, Any]:
        """What the model reads of a recording's versions; or, where it cannot be read and that is no reason to stop, why."""
        sample_id = _sample_id(recording)
        try:
            self._check_kind(recording)
            recording = self._opened(recording)
            sample_id, doubts, rate = _sample_id(recording), [], {"fps": fps}
            if self._reads_skeletons:  # once; it is looked at, and its joints are narrated as well
                extractor, rate = self.processor.feature_extractor, {}
                recording = extractor.read(recording, fps=fps)
                doubts = extractor.doubts(recording)
            names = {"class_names": candidate_labels, "list_classes": self._lists(candidate_labels)}
            inputs = []
            for version in range(versions):
                _rewind(recording)
                arguments = version_arguments(sample_id, version)
                inputs.append(dict(self.processor(recording, **arguments, **names, **rate)))
        except (ValueError, TypeError, OSError, ImportError) as error:
            if on_error == "raise":
                raise
            name = _sample_id(recording)
            return {"error": str(error) if name in str(error) else f"{name}: {error}"}
        except (MemoryError, OverflowError) as error:  # of this recording, whose name they do not say
            if on_error == "raise":
                raise
            return {"error": f"{sample_id}: too large to be read ({type(error).__name__}: {error})"}
        # Of a video nothing is narrated; an open one could not go from the process that reads it to another.
        recording = recording if self._reads_skeletons else None
        return {"inputs": inputs, "recording": recording, "warnings": doubts}

    @property
    def _reads_skeletons(self) -> bool:
        return hasattr(self.processor.feature_extractor, "skeleton_layout")

    def _check_kind(self, recording: Any) -> None:
        """Raises `ValueError` for several recordings in one's place, and for a file of a kind that this model does not read."""
        if isinstance(recording, list | tuple):
            raise ValueError(f"expected a recording, found a {type(recording).__name__} of {len(recording)}.")
        if isinstance(recording, io.TextIOBase):
            raise ValueError(
                f"{getattr(recording, 'name', 'the file')} is open for reading text: open it with mode 'rb'."
            )
        if self._reads_skeletons and isinstance(recording, _BYTES):
            raise ValueError(
                f"{len(recording)} bytes do not say which kind of recording they are: give an open file whose name ends in one "
                f"of {', '.join(RECORDING_SUFFIXES)} (io.BytesIO has none until its .name is set)."
            )
        name = recording if isinstance(recording, str | os.PathLike) else getattr(recording, "name", None)
        if not isinstance(name, str | os.PathLike):
            return
        if os.path.isdir(name):
            self._check_folder(Path(name))
        name = os.fspath(name).lower()
        if self._reads_skeletons and name.endswith(VIDEO_SUFFIXES):
            raise ValueError(
                f"{recording} is a video, and this model reads skeletons ({', '.join(RECORDING_SUFFIXES)})."
            )
        if not self._reads_skeletons and name.endswith(RECORDING_SUFFIXES):
            raise ValueError(f"{recording} is a recording of skeletons, and this model reads videos.")

    def _check_folder(self, folder: Path) -> None:
        """Raises `ValueError` for a folder, unless it holds the frames of a video and this model reads videos."""
        names = sorted(os.listdir(folder))
        if not self._reads_skeletons and any(name.lower().endswith(FRAME_SUFFIXES) for name in names):
            return
        suffixes = RECORDING_SUFFIXES if self._reads_skeletons else VIDEO_SUFFIXES
        recordings = [name for name in names if name.lower().endswith(suffixes)]
        if not recordings:
            raise ValueError(f"{folder} is a folder without recordings: expected a file ({', '.join(suffixes)}).")
        raise ValueError(
            f"{folder} is a folder of {len(recordings)} recordings: expected one recording, or a list of them, such as "
            f"[str(path) for path in sorted(Path({str(folder)!r}).glob('*{Path(recordings[0]).suffix}'))]."
        )

    def _opened(self, recording: Any) -> Any:
        """What lies behind a URL, and bytes, as an open file; everything else as it is.

        Raises:
            OSError: nothing can be had from there.
        """
        if isinstance(recording, _BYTES):
            recording = io.BytesIO(recording)
        elif isinstance(recording, str) and _is_web_address(recording):
            recording = _fetched(recording)
        elif isinstance(recording, str) and re.match(r"[a-z][a-z0-9+.-]*://", recording, re.IGNORECASE):
            raise OSError(f"{recording}: expected a path, or a URL of http or https: download it, and give its path")
        _rewind(recording)
        return recording

    def _check_context(self, candidate_labels: Sequence[str]) -> None:
        """Raises `ValueError` for candidate labels that do not fit the language model's context, whatever the recording."""
        listed = self._lists(candidate_labels)
        context = getattr(self.model.config.text_config, "max_position_embeddings", None)
        if context is None:
            return
        tokens, at_least = (
            len(candidate_labels) if listed else 0,
            "at least ",
        )  # a class that is listed has a token or more
        if tokens <= context:
            prompt = self.processor.prompt(None, candidate_labels, listed)
            tokens = len(self.processor.encode_prompt_and_label(prompt)[0])
            # The last token of a name is scored and not read.
            tokens, at_least = tokens + max(map(len, self.processor.label_ids(candidate_labels, listed))) - 1, ""
        if tokens > context:
            raise ValueError(
                f"candidate_labels: {len(candidate_labels):,} classes and the prompt take {at_least}{tokens:,} tokens, but the "
                f"language model has a context of {context:,}: give fewer or shorter names, or choose among parts of them."
            )

    def _lists(self, candidate_labels: Sequence[str] | None) -> bool | None:
        """Whether the class list is part of the prompt: where the model was not trained on all of it."""
        trained = set(self.processor.class_names or ())
        new = [name for name in candidate_labels or () if name not in trained]
        if new:
            logger.warning_once(
                f"the model was not trained on {', '.join(repr(name[:80]) for name in new[:3])}{', …' * (len(new) > 3)}: how "
                "sure it is of names that are new to it says little."
            )
        return True if new else None

    def _forward(self, batch: dict | list[dict], on_error: str = "raise", **asked) -> dict[str, list[dict]]:
        """Decisions about what `preprocess` made of recordings, in order, as `found`."""
        batch = batch if isinstance(batch, list) else [batch]
        try:
            return {"found": self._decide(batch, **asked)}
        except (
            ValueError,
            MemoryError,
        ) as error:  # a sentence that is too long for the language model, or for the memory
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
        outputs = self.model(**_collated([version for item in read for version in item.pop("inputs")]))
        names = self.processor.class_names if candidate_labels is None else list(candidate_labels)
        means = [of_versions.mean(dim=0).tolist() for of_versions in outputs.probabilities.split(counts)]
        firsts = [sum(counts[:place]) for place in range(len(counts))]
        for index, mean, item in zip(firsts, means, read, strict=True):
            recording = item.pop("recording")
            item["probabilities"] = dict(zip(names, mean, strict=True))
            warnings = item.pop("warnings") + self._unlike_training(outputs, index)
            if warnings:
                item["warnings"] = warnings
            if not (explain or return_tokens):
                continue
            if return_tokens:
                item["tokens"] = self._tokens(outputs, index)
            if explain:
                reason = self.model.explain(
                    self.processor,
                    outputs,
                    index,
                    recording=recording,
                    class_names=candidate_labels,
                    list_classes=self._lists(candidate_labels),
                    unsure_below=unsure_below,
                    probabilities=mean,
                )
                item["reason"] = reason.text
                if reason.description:
                    item["description"] = reason.description
        return found

    def _tokens(self, outputs, index: int) -> list[dict]:
        """The sentence of a recording, a word at a time: its tokens as text, the first one's id, and its times in seconds."""
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
        """Why an answer says little: the recording is unlike those that the action model was trained on; empty otherwise."""
        familiar = getattr(self.model.config.action_config, "familiar_distance", None)
        if familiar is None or outputs.token_distance is None:
            return []
        distance = float(outputs.token_distance[index])
        if not distance > familiar:  # nor NaN
            return []
        return [
            "this recording is unlike those that the model was trained on, so the answer says little: its distance from "
            f"its tokens is {distance:.3g}, and that of {FAMILIAR_SHARE:.0%} of those recordings at most {familiar:.3g}"
        ]

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


def _sample_id(recording: Any) -> str:
    """What recipes call a recording: the `sample_id` of a row, the name of a file without its suffix; an array has none."""
    if isinstance(recording, Mapping):
        return str(recording.get("sample_id", ""))
    if not isinstance(recording, str | os.PathLike):
        recording = getattr(recording, "source", None) or getattr(recording, "name", "")
    return Path(str(recording)).stem


def _rewind(recording: Any) -> None:
    """An open file is read from its start, each time."""
    if hasattr(recording, "seekable") and recording.seekable():
        recording.seek(0)


class _Answer(tempfile.SpooledTemporaryFile):
    """What a server has sent, and the name of it; gone when it is closed."""

    name = ""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, and none to an address that is not of the web."""

    max_redirections = max_repeats = URL_REDIRECTS

    def redirect_request(self, request, answer, code, message, headers, url):
        if not _is_web_address(url):
            raise urllib.error.URLError(f"it redirects to {url}, and only http and https are followed")
        return super().redirect_request(request, answer, code, message, headers, url)


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that end some seconds later, also where a server sends byte after byte; to be used in a `with`."""

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
        for connected in self._sockets:
            connected.close()

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
        connected = socket.create_connection(*arguments, **settings)
        # A second handle of the same connection, which stays as it is while TLS takes over the first.
        self._sockets.append(connected.dup())
        if self.is_ended:
            self._end()
        return connected

    def _end(self) -> None:
        self.is_ended = True
        for connected in self._sockets:
            with contextlib.suppress(OSError):  # the server has ended it
                connected.shutdown(socket.SHUT_RDWR)


def _is_web_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _fetched(url: str) -> _Answer:
    """What a server sends, under its name; `OSError` where nothing can be had from there, or too much, or too slowly."""
    content = _Answer(URL_MEMORY)
    address = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # letters beyond ASCII
    with _Connections(URL_SECONDS) as connections:
        try:
            with _opener(connections).open(address, timeout=SILENT_SECONDS) as answer:
                _copy(answer, content)
                content.name = _name_of(answer)
        except (ValueError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
        else:
            reason = None
    # How an answer ends that was ended depends on where the server was: without a word, or amid a line.
    if connections.is_ended:
        reason = f"it is not there after {URL_SECONDS} s: download it, and give its path"
    if reason is None:
        return content
    content.close()
    raise OSError(f"{url} cannot be fetched: {reason}")


def _opener(connections: _Connections) -> urllib.request.OpenerDirector:
    """Opens addresses of the web, and nothing else: that of urllib opens files and ftp, too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(urllib.request.ProxyHandler(), connections, _Redirects(), urllib.request.HTTPErrorProcessor()),
        *(urllib.request.HTTPDefaultErrorHandler(), urllib.request.UnknownHandler()),
    ):
        opener.add_handler(handler)
    return opener


def _copy(answer, content: BinaryIO) -> None:
    """Raises `URLError` for an answer that is too large, or ends before it is whole."""
    expected = answer.length
    if expected is None or expected <= URL_BYTES:
        while content.tell() <= URL_BYTES and (part := answer.read(1 << 16)):
            content.write(part)
    if max(content.tell(), expected or 0) > URL_BYTES:
        raise urllib.error.URLError(f"it is larger than {URL_BYTES >> 20:,} MiB: download it, and give its path")
    if expected is not None and content.tell() < expected:
        raise urllib.error.URLError(f"the answer ends after {content.tell():,} of {expected:,} bytes")


def _name_of(answer) -> str:
    """The name of a file that a server sends: that of its address, or, where that tells no kind, what the server says."""
    name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(answer.url).path))
    if name.lower().endswith((*RECORDING_SUFFIXES, *VIDEO_SUFFIXES)):
        return name
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return os.path.basename(answer.headers.get_filename() or name + (mimetypes.guess_extension(kind) or ""))


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
