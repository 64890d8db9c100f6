"""Weights that everybody may read who may read the files beside them."""

import os
import stat

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import BACKBONES, tiny_action_model, tiny_recogniser, tiny_vst, tiny_vtem

from action_llm import ResNet3DModel
from action_llm.saved_weights import share_weights


def modes(folder) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def adapted():
    model, _ = tiny_recogniser("skeletons")
    torch.manual_seed(0)
    get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj"))
    return model


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
@pytest.mark.parametrize(
    "make",
    [tiny_action_model, tiny_vst, tiny_vtem, lambda: ResNet3DModel(BACKBONES["resnet3d"]()), adapted],
    ids=["action_vqvae", "vst", "vtem", "resnet3d", "recogniser with an adapter"],
)
def test_the_umask_decides_who_may_read(make, umask, tmp_path):
    model, before = make(), os.umask(umask)
    try:
        model.save_pretrained(tmp_path)
    finally:
        os.umask(before)
    found = modes(tmp_path)
    assert any(name.endswith(".safetensors") for name in found)
    assert set(found.values()) == {0o666 & ~umask}, found


def test_a_folder_without_a_configuration_stays_as_it_is(tmp_path):
    (tmp_path / "a.safetensors").touch(mode=0o600)
    share_weights(tmp_path)
    assert modes(tmp_path) == {"a.safetensors": 0o600}
