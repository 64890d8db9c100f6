"""Loads and saves adapters of the language model through PEFT's own functions.

transformers has a mixin for this, but it checks the PEFT release in every call, and transformers 5.24.0 requires a release that
was never published. PEFT's functions read and write the same files, in the format that `PeftModel` reads.
"""

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import logging

from .model_files import ModelFileError, as_written, read_field, read_json_object, shortened
from .saved_weights import StoredTensor, share_weights, stored_tensors

try:
    from peft import (
        PEFT_TYPE_TO_CONFIG_MAPPING,
        get_peft_model_state_dict,
        inject_adapter_in_model,
        set_peft_model_state_dict,
    )
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper
except ImportError as error:
    PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_ERROR = None, error

logger = logging.get_logger(__name__)

# The adapter's folder in a repository. In the root of the repository, `AutoModel` would take the repository for a bare adapter
# and look for a base model.
ADAPTER_FOLDER = "adapter"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# PEFT names weights as seen from a `PeftModel` around the model.
PEFT_PREFIX = "base_model.model."
ADAPTER_NAME = "default"

# Methods that consist only of configuration and weights; others download or compile something.
ADAPTER_TYPES = ("LORA", "IA3")
# Settings of LoRA that import a module or copy layers.
REFUSED_SETTINGS = ("megatron_config", "layer_replication")
# Settings that select the modules of an adapter.
SELECTING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
# Settings that PEFT reads as regular expressions, and the maximum number of repetitions in an expression: more can take
# exponential time.
PATTERNS = ("feedforward_modules", "rank_pattern", "alpha_pattern")
MAX_REPETITIONS = 4


def load_adapter(model: nn.Module, folder: str | os.PathLike, base_model: str | None = None) -> None:
    """
    Loads an adapter into a model, frozen and ready for inference.

    Args:
        model (`nn.Module`): the model that the adapter was trained with, without an adapter.
        folder (`str` or `os.PathLike`): folder with `adapter_config.json` and `adapter_model.safetensors`.
        base_model (`str`, *optional*): repository of the language model. If the adapter names another one, a warning is logged.

    Raises:
        ImportError: if PEFT is not installed.
        ModelFileError: if the files are not an adapter of this model.
    """
    if PEFT_TYPE_TO_CONFIG_MAPPING is None:
        raise ImportError(f"{folder} is an adapter, which needs PEFT: pip install peft ({PEFT_ERROR}).")
    path, config_path = os.path.join(folder, ADAPTER_WEIGHTS), os.path.join(folder, ADAPTER_CONFIG)
    settings = read_json_object(config_path)
    check_adapter_config(config_path, settings, stored_tensors([path]))
    other = read_field(config_path, settings, "base_model_name_or_path", str)
    if None not in (other, base_model) and other != base_model:
        logger.warning("%s is for the language model %s, but the model has %s.", config_path, other, base_model)
    weights = {key.removeprefix(PEFT_PREFIX): value for key, value in load_file(path).items()}
    try:
        config = PEFT_TYPE_TO_CONFIG_MAPPING[settings["peft_type"]].from_pretrained(os.fspath(folder))
        config.inference_mode = True
        _inject(config, model, weights)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # PEFT does not check the types of its settings
        actual = shortened(f"{type(error).__name__}: {error}")
        raise ModelFileError(config_path, None, actual, "an adapter of the language model") from error
    try:
        loaded = set_peft_model_state_dict(model, weights, ADAPTER_NAME)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a weight of another shape, or of a module that the settings do not name
        actual = str(error).splitlines()[-1].strip()
        raise ModelFileError(path, None, actual, "weights that fit the model") from error
    expected = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME, save_embedding_layers=False)
    missing = sorted(expected.keys() - weights.keys())
    if missing or loaded.unexpected_keys:
        actual = f"missing {missing[:5]}, unexpected {loaded.unexpected_keys[:5]}"
        raise ModelFileError(path, None, actual, "weights that fit the model")
    # transformers' own methods (`disable_adapters`…) look at this flag.
    model._hf_peft_config_loaded = True
    model.eval()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.requires_grad_(False)


def _inject(config, model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Adds the layers of an adapter to the modules for which it has weights.

    The modules follow from the names of the weights. The settings may select them by regular expressions, some of which take
    exponential time.
    """
    selection = {name: getattr(config, name, None) for name in SELECTING}
    for name in SELECTING:
        setattr(config, name, None)
    config.target_modules = {
        re.split(r"\.(?:lora|ia3)_", key)[0] for key in weights if re.search(r"\.(?:lora|ia3)_", key)
    }
    try:
        inject_adapter_in_model(config, model, ADAPTER_NAME)
    finally:
        for name, value in selection.items():
            setattr(config, name, value)


def check_adapter_config(path: str, settings: dict[str, Any], tensors: dict[str, StoredTensor]) -> None:
    """Raises `ModelFileError` for settings with which PEFT would load or run more than the weights of the adapter, or allocate
    more than them."""
    if settings.get("peft_type") not in ADAPTER_TYPES:
        raise ModelFileError(
            path, "peft_type", as_written(settings.get("peft_type")), f"one of {', '.join(ADAPTER_TYPES)}"
        )
    for name in REFUSED_SETTINGS:
        if settings.get(name) is not None:
            raise ModelFileError(path, name, as_written(settings[name]), "none")
    _texts(path, settings, "target_modules")
    for name in PATTERNS:
        for pattern in _texts(path, settings, name):
            if len(re.findall(r"[*+{]", pattern)) > MAX_REPETITIONS or re.search(r"\)[*+{]", pattern):
                expected = f"a pattern without repeated groups, and with at most {MAX_REPETITIONS} repetitions"
                raise ModelFileError(path, name, as_written(pattern), expected)
    patterns = read_field(path, settings, "rank_pattern", dict) or {}
    ranks = [tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name and tensor.shape]
    for name, value in {"r": settings.get("r"), **patterns}.items():
        if settings["peft_type"] == "LORA" and not (isinstance(value, int) and 0 < value <= max(ranks, default=0)):
            raise ModelFileError(path, name, as_written(value), f"a rank of the weights, {sorted(set(ranks))}")
    for name in _texts(path, settings, "modules_to_save"):
        if not any(name in key.split(".") for key in tensors):
            raise ModelFileError(path, "modules_to_save", as_written(name), "modules whose weights are saved")


def _texts(path: str, settings: dict[str, Any], field: str) -> list[str]:
    """The strings of a setting that is a string, a list of strings, or an object with strings as keys."""
    value = read_field(path, settings, field, str, list, dict)
    texts = [value] if isinstance(value, str) else list(value or ())
    if not all(isinstance(text, str) for text in texts):
        raise ModelFileError(path, field, as_written(value), "module names")
    return texts


def has_adapter(model: nn.Module) -> bool:
    """Whether a model has an adapter, loaded or being trained."""
    return bool(getattr(model, "peft_config", None))


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """Turns off the adapter of a model, if it has one: its original weights compute. No other thread may use it meanwhile."""
    layers = []
    if has_adapter(model):
        layers = [
            module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        ]
    # PEFT sets `requires_grad` when it turns an adapter on.
    flags = [(weight, weight.requires_grad) for layer in layers for weight in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for weight, flag in flags:
            weight.requires_grad_(flag)


def save_adapter(
    model: nn.Module, folder: str | os.PathLike, state_dict: dict[str, torch.Tensor], base_model: str | None
) -> None:
    """
    Writes the active adapter of a model in PEFT's format.

    Args:
        model (`nn.Module`): a model with an adapter.
        folder (`str` or `os.PathLike`): output folder, created if needed.
        state_dict (`dict[str, torch.Tensor]`): the weights of the model, which may be gathered from several processes.
        base_model (`str`, *optional*): repository of the language model, to be named in the adapter's config.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = active_adapter(model)
    config = copy.copy(model.peft_config[name])
    config.base_model_name_or_path = base_model
    config.inference_mode = True
    config.save_pretrained(folder)
    weights = get_peft_model_state_dict(model, state_dict=state_dict, adapter_name=name)
    weights = {PEFT_PREFIX + key: value.contiguous() for key, value in weights.items()}
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    share_weights(folder)


def active_adapter(model: nn.Module) -> str:
    """Name of the active adapter of a model."""
    layer = next((module for module in model.modules() if isinstance(module, BaseTunerLayer)), None)
    return next(iter(model.peft_config)) if layer is None else layer.active_adapters[0]


__all__ = ["ADAPTER_FOLDER", "active_adapter", "has_adapter", "load_adapter", "save_adapter", "without_adapter"]
