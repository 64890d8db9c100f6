"""Loads and saves adapters of the language model through PEFT's own functions.

transformers has a mixin for this, which checks for a PEFT release in every call: transformers 5.24.0 asks for one that was
never published. PEFT's functions read and write the same files, in the format that `PeftModel` reads.
"""

import copy
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .saved_weights import share_weights

try:
    from peft import PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer
except ImportError as error:
    PeftConfig, PEFT_ERROR = None, error

# Where the adapter lies in a repository. Not in its root: there, `AutoModel` would take the repository for a bare adapter
# and look for a base model.
ADAPTER_FOLDER = "adapter"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# PEFT names weights as seen from a `PeftModel` around the model.
PEFT_PREFIX = "base_model.model."
ADAPTER_NAME = "default"


def load_adapter(model: nn.Module, folder: str | os.PathLike) -> None:
    """
    Puts the adapter of `folder` on a model, frozen and ready for inference.

    Args:
        model (`nn.Module`): the model that the adapter was trained on, without an adapter.
        folder (`str` or `os.PathLike`): holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ImportError: PEFT is not installed.
        ValueError: the weights do not belong to this model.
    """
    if PeftConfig is None:
        raise ImportError(f"{folder} is an adapter, which needs PEFT: pip install peft ({PEFT_ERROR}).")
    config = PeftConfig.from_pretrained(os.fspath(folder))
    config.inference_mode = True
    inject_adapter_in_model(config, model, ADAPTER_NAME)
    path = Path(folder, ADAPTER_WEIGHTS)
    weights = {key.removeprefix(PEFT_PREFIX): value for key, value in load_file(path).items()}
    try:
        loaded = set_peft_model_state_dict(model, weights, ADAPTER_NAME)
    except RuntimeError as error:  # a weight of another shape
        raise ValueError(f"{path} does not fit the model: {str(error).splitlines()[-1].strip()}") from error
    expected = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME, save_embedding_layers=False)
    missing = sorted(expected.keys() - weights.keys())
    if missing or loaded.unexpected_keys:
        raise ValueError(
            f"{path} does not fit the model: missing {missing[:5]}, unexpected {loaded.unexpected_keys[:5]}."
        )
    # What transformers' own methods (`disable_adapters`…) look at.
    model._hf_peft_config_loaded = True
    model.eval()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.requires_grad_(False)


def has_adapter(model: nn.Module) -> bool:
    """Whether a model has an adapter, loaded or in training."""
    return bool(getattr(model, "peft_config", None))


def save_adapter(
    model: nn.Module, folder: str | os.PathLike, state_dict: dict[str, torch.Tensor], base_model: str | None
) -> None:
    """
    Writes the active adapter of a model in PEFT's format.

    Args:
        model (`nn.Module`): a model with an adapter.
        folder (`str` or `os.PathLike`): where to; it is made if it is not there.
        state_dict (`dict[str, torch.Tensor]`): the weights of the model, which may be gathered from several processes.
        base_model (`str`, *optional*): repository of the language model, as the adapter's config names it.
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
    """Name of the adapter that a model computes with."""
    layer = next((module for module in model.modules() if isinstance(module, BaseTunerLayer)), None)
    return next(iter(model.peft_config)) if layer is None else layer.active_adapters[0]


__all__ = ["ADAPTER_FOLDER", "active_adapter", "has_adapter", "load_adapter", "save_adapter"]
