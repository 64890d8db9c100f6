"""Saved weights: checked against the configuration before a model is built, and saved with the permissions of other files."""

import copy
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import GenerationConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging
from transformers.utils.hub import cached_file

from .checked_config import ConfigError, check_attention, config_errors
from .model_files import HUB_ARGUMENTS, ModelFileError, as_written, read_json_object, shortened

logger = logging.get_logger(__name__)

# A model may need this many numbers more than its files contain, because transformers renames weights when it loads them.
SPARE_NUMBERS = 2**22
# Maximum number of beams of `generate`, which copies the cache for each.
MAX_BEAMS = 256


class StoredTensor(NamedTuple):
    """Shape, dtype (`F32`, `BF16`…) and file of a tensor, from the header of a safetensors file."""

    shape: tuple[int, ...]
    dtype: str
    path: str


def share_weights(folder: str | os.PathLike) -> None:
    """Gives the safetensors files of a folder the permissions of the configuration beside them, which follow the umask;
    safetensors makes its files readable only for the owner."""
    config = next(Path(folder).glob("*config.json"), None)
    if config is None:
        return
    for weights in Path(folder).glob("*.safetensors"):
        weights.chmod(config.stat().st_mode & 0o777)


def stored_tensors(paths: Iterable[str | os.PathLike]) -> dict[str, StoredTensor]:
    """
    The tensors of safetensors files, by name. Only the headers are read, a few kilobytes.

    Raises:
        ModelFileError: If a file is not a safetensors file, or is incomplete.
    """
    tensors = {}
    for path in map(os.fspath, paths):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (not a dictionary)
                    part = file.get_slice(name)
                    tensors[name] = StoredTensor(tuple(part.get_shape()), part.get_dtype(), path)
        except SafetensorError as error:
            raise ModelFileError(path, None, str(error), "a complete safetensors file") from error
    return tensors


def weight_files(name_or_path: str | os.PathLike, variant: str | None = None, **hub) -> list[str]:
    """
    Paths of the safetensors files of a model: a single file, or those of its index.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or repository.
        variant (`str`, *optional*): The argument of `from_pretrained`.
        **hub: `HUB_ARGUMENTS`.

    Raises:
        ModelFileError: If the index is invalid, or names files outside the folder.
        OSError: If there are no such files, or a file of the index is missing.
    """
    single, index = (
        name if variant is None else re.sub(r"(?=\.safetensors)", f".{variant}", name)
        for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    )
    path = cached_file(name_or_path, single, _raise_exceptions_for_missing_entries=False, **hub)
    if path is not None:
        return [path]
    path = cached_file(name_or_path, index, _raise_exceptions_for_missing_entries=False, **hub)
    if path is None:
        raise OSError(f"{name_or_path} has no {single}: only weights in safetensors files can be loaded.")
    content = read_json_object(path)
    files = content.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelFileError(path, "weight_map", as_written(files), "an object with the file of each weight")
    for weight, name in files.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise ModelFileError(path, f"weight_map.{weight}", as_written(name), "a safetensors file beside it")
    if not isinstance(content.get("metadata"), dict):  # transformers reads it without a check
        raise ModelFileError(path, "metadata", as_written(content.get("metadata")), "an object")
    return [cached_file(name_or_path, name, **hub) for name in sorted(set(files.values()))]


def check_weights(
    model: nn.Module, tensors: Mapping[str, StoredTensor], prefix: str = "", quantized: bool = False
) -> None:
    """
    Compares the weights that a model needs with the weights in its files.

    Args:
        model (`nn.Module`): The model on the meta device, where nothing is allocated.
        tensors: The tensors of its files, from `stored_tensors`.
        prefix (`str`): Prefix that names may have in the files of a model with a head.
        quantized (`bool`): Whether the weights are quantised, and so stored in other shapes.

    Raises:
        ModelFileError: If a weight has another shape or type of number than the configuration says, or the model needs many
            more weights than its files contain.
    """
    tied, missing = getattr(model, "all_tied_weights_keys", None) or {}, {}
    for name, weight in model.state_dict().items():
        names = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))
        stored = next((tensors[stored_name] for stored_name in names if stored_name in tensors), None)
        if stored is None:
            if name not in tied:
                missing[name] = weight
        elif not quantized and stored.shape != tuple(weight.shape):
            shape = f"the shape {tuple(weight.shape)}, as config.json says"
            raise ModelFileError(stored.path, name, str(stored.shape), shape)
        elif not quantized and weight.is_floating_point() != stored.dtype.startswith(("F", "BF")):
            raise ModelFileError(stored.path, name, stored.dtype, str(weight.dtype).removeprefix("torch."))
    num_stored = sum(torch.Size(stored.shape).numel() for stored in tensors.values())
    if sum(weight.numel() for weight in missing.values()) > 2 * num_stored + SPARE_NUMBERS:
        name, weight = max(missing.items(), key=lambda item: item[1].numel())
        path = next(iter(tensors.values())).path if tensors else SAFE_WEIGHTS_NAME
        raise ModelFileError(path, name, "none", f"weights of the shape {tuple(weight.shape)}, as config.json says")


def check_generation_config(path: str | os.PathLike) -> None:
    """Raises `ModelFileError` for a `generation_config.json` that `generate` cannot use."""
    content = read_json_object(path)
    for field, value in content.items():
        if field.endswith("_token_id") or field in ("suppress_tokens", "begin_suppress_tokens"):
            ids = value if isinstance(value, list) else [value]
            if not all(token is None or (isinstance(token, int) and not isinstance(token, bool)) for token in ids):
                raise ModelFileError(path, field, as_written(value), "token ids")
        elif field in ("num_beams", "num_return_sequences") and value not in (None, *range(1, MAX_BEAMS + 1)):
            raise ModelFileError(path, field, as_written(value), f"a number from 1 to {MAX_BEAMS}")
    try:
        GenerationConfig.from_dict(content).validate()
    except Exception as error:
        actual = shortened(f"{type(error).__name__}: {error}")
        raise ModelFileError(path, None, actual, "valid settings of text generation") from error


def doubt_numbers(model: nn.Module, path: str | os.PathLike) -> None:
    """Logs a warning if weights contain NaN, since the model's output is then NaN, too."""
    damaged = []
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.is_meta or weight.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            continue
        # The sum, which needs no memory, is NaN or infinite if a weight is.
        if not torch.isfinite(weight.detach().sum()) and torch.isnan(weight.detach()).any():
            damaged.append(name)
    if damaged:
        several = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        logger.warning("%s: %s%s contain NaN: the answers of this model are meaningless.", path, damaged[0], several)


class SavedWeights:
    """
    Base class of this project's models, to be listed before `PreTrainedModel`.

    Weights are loaded only from safetensors files. Before a model is built, its configuration is compared with the headers of
    the files. A missing weight is an error; it is not initialised at random. The modules of `_keep_in_fp32_modules_strict` stay
    float32 in `half()`, `bfloat16()` and `to(dtype)`, as they do when a model is loaded with that `dtype`.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Like [`PreTrainedModel.from_pretrained`], with checks.

        Raises:
            ModelFileError: If a file of the folder lacks something that the model needs.
            OSError: If a file is missing.
        """
        if pretrained_model_name_or_path is None:  # weights from memory
            return super().from_pretrained(None, *model_args, config=config, **kwargs)
        if kwargs.pop("use_safetensors", None) is False:
            raise ValueError(f"{cls.__name__} can only be loaded from safetensors files: omit `use_safetensors`.")
        if "attn_implementation" in kwargs:
            check_attention(kwargs["attn_implementation"])
        name, hub = pretrained_model_name_or_path, {n: kwargs[n] for n in HUB_ARGUMENTS if n in kwargs}
        cls._refuse_adapter(name, hub)
        if cls.can_generate():
            path = cached_file(name, "generation_config.json", _raise_exceptions_for_missing_entries=False, **hub)
            if path is not None:
                check_generation_config(path)
        settings = (
            {} if kwargs.get("force_download") is None else {"force_download": False}
        )  # it has just been downloaded
        with_info = kwargs.pop("output_loading_info", False)
        if not kwargs.get("ignore_mismatched_sizes"):
            checked = config if isinstance(config, PreTrainedConfig) else cls._config_of(name, config, hub, kwargs)
            cls.check_files(name, checked, weight_files(name, kwargs.get("variant"), **hub), hub)
        model, info = super().from_pretrained(
            name, *model_args, config=config, use_safetensors=True, output_loading_info=True, **{**kwargs, **settings}
        )
        if info["missing_keys"] and not kwargs.get("ignore_mismatched_sizes"):
            path = os.path.join(name, hub.get("subfolder") or "", SAFE_WEIGHTS_NAME)
            expected = "the weights of all parts in config.json"
            raise ModelFileError(path, min(info["missing_keys"]), "none", expected)
        doubt_numbers(model, name)
        return (model, info) if with_info else model

    @classmethod
    def _config_of(cls, name, config, hub: dict, kwargs: dict) -> PreTrainedConfig:
        changed = {n: value for n, value in kwargs.items() if n in cls.config_class.__dataclass_fields__}
        changed.pop("dtype", None)
        return cls.config_class.from_pretrained(config or name, **hub, **changed)

    @classmethod
    def _refuse_adapter(cls, name, hub: dict):
        """Refuses an adapter in the root of a repository, which transformers would load itself, even if it is pickled."""
        path = cached_file(name, "adapter_config.json", _raise_exceptions_for_missing_entries=False, **hub)
        if path is not None:
            raise ModelFileError(path, None, "it beside the model", "an adapter in the folder `adapter`")

    @classmethod
    def check_files(cls, name, config: PreTrainedConfig, paths: list[str], hub: dict, ignored=lambda name: False):
        """
        Builds the model on the meta device, and compares it with the headers of its files.

        Args:
            name (`str` or `os.PathLike`): Folder or repository, for errors.
            config (`PreTrainedConfig`): The configuration; it is not changed.
            paths (`list[str]`): The safetensors files.
            hub (`dict`): `HUB_ARGUMENTS`, for errors.
            ignored: Function of a weight's name that is true if the weight is stored elsewhere.

        Raises:
            ModelFileError: See `check_weights`; also if no model can be built from the configuration.
        """
        try:
            with config_errors(None), torch.device("meta"):
                model = cls(copy.deepcopy(config))
        except ConfigError as error:
            raise error.in_file(name, hub.get("subfolder")) from error
        for key in [key for key, _ in model.named_parameters() if ignored(key)]:
            module, _, weight = key.rpartition(".")
            setattr(model.get_submodule(module), weight, None)
        quantized = getattr(config, "quantization_config", None) is not None
        check_weights(model, stored_tensors(paths), cls.base_model_prefix, quantized)

    def save_pretrained(self, save_directory, *args, **kwargs):
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        share_weights(save_directory)
        return saved

    def _apply(self, fn, recurse=True):
        # `half()`, `to()` and similar methods all call this one.
        kept = set()
        for name, module in self.named_modules():
            if not set(name.split(".")).isdisjoint(self._keep_in_fp32_modules_strict or ()):
                kept |= {id(tensor) for weight in module.parameters() for tensor in (weight, weight.grad)}
                kept |= {id(buffer) for buffer in module.buffers()}
            # The frequencies of rotary embeddings also stay in float32 when a model is loaded.
            kept |= {id(buffer) for name, buffer in module.named_buffers(recurse=False) if "inv_freq" in name}

        def keep_float32(weight):
            moved = fn(weight)
            if id(weight) in kept and moved.is_floating_point() and moved.dtype != torch.float32:
                return weight.to(moved.device)
            return moved

        return super()._apply(keep_float32, recurse)


__all__ = [
    "SavedWeights",
    "StoredTensor",
    "check_weights",
    "doubt_numbers",
    "share_weights",
    "stored_tensors",
    "weight_files",
]
