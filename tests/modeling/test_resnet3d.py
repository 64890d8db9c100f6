"""3-D ResNets: the weights and numbers of torchvision's, what is saved, what is refused, and how a recipe reads them.

`python tests/modeling/test_resnet3d.py` asks torchvision anew. It is no dependency of the tests: what pip installs of it is
made for a CUDA build of PyTorch, and does not load beside the CPU build that the tests run with.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from fresh_python import python
from tiny_models import tiny_backbone, tiny_vst
from torch import nn
from transformers import AutoConfig, AutoModel

from action_llm import ResNet3DConfig, ResNet3DModel, VideoFeatureExtractor, VSTModel

STORED = Path(__file__).parent / "stored" / "resnet3d.json"
CONVOLUTIONS = {"r3d_18": "3d", "mc3_18": "mixed", "r2plus1d_18": "(2+1)d"}
# Of all weights, with a classifier of 400 classes, as torchvision publishes them.
PARAMETERS = {"r3d_18": 33_371_472, "mc3_18": 11_695_440, "r2plus1d_18": 31_505_325}


def tiny(convolution="3d", **settings) -> ResNet3DModel:
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [4, 6, 8], "depths": [1, 2, 1]} | settings
    return ResNet3DModel(ResNet3DConfig(convolution=convolution, **sizes)).eval()


def clips(batch_size=2, frames=5, height=24, width=30) -> torch.Tensor:
    return torch.randn(batch_size, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def stored() -> dict:
    return json.loads(STORED.read_text())


def scattered(shape, seed: int) -> torch.Tensor:
    """Numbers between -1 and 1 from whole numbers alone: random ones may change between versions of PyTorch."""
    place = torch.arange(math.prod(shape), dtype=torch.int64)
    # Bits of a square look random, bits of a product do not.
    return (((place * place + 7 * place + seed) * 40503 >> 8) % 65536 / 32768 - 1).float().view(shape)


def weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Weights of these names and shapes that keep the size of what goes through."""
    made = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        values = scattered(shape, seed)
        if name.endswith("num_batches_tracked"):
            values = torch.tensor(seed)
        elif len(shape) > 1:
            values *= math.sqrt(6 / math.prod(shape[1:]))
        elif name.endswith(("weight", "running_var")):
            values = 1 + values / 2
        made[name] = values
    return made


def clip() -> torch.Tensor:
    return scattered((1, 5, 3, 36, 44), seed=1)


# ------------------------------------------------------------------------------------------------------- torchvision's


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weights_and_numbers_are_those_of_torchvision(name):
    expected = stored()[name]
    state_dict = weights(expected["shapes"])
    # Batch norms count their batches and average over them in buffers, which are no parameters.
    parameters = [value for key, value in state_dict.items() if "running_" not in key and "num_batches" not in key]
    assert sum(value.numel() for value in parameters) == PARAMETERS[name]
    model = ResNet3DModel.from_torchvision(state_dict)
    assert not model.training
    assert model.config.to_diff_dict() == ResNet3DConfig(convolution=CONVOLUTIONS[name]).to_diff_dict()
    found = model.state_dict()
    assert found.keys() == state_dict.keys() - {"fc.weight", "fc.bias"}
    for key in found:
        assert torch.equal(found[key], state_dict[key]), key
    with torch.no_grad():
        outputs = model(clip())
    assert list(outputs.last_hidden_state.shape) == expected["map"]
    torch.testing.assert_close(outputs.pooler_output[0, ::16], torch.tensor(expected["pooled"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("convolution", CONVOLUTIONS.values())
def test_other_widths_and_depths_are_found_in_the_weights(convolution):
    model = tiny(convolution, num_channels=2, num_frames=16)
    state_dict = {**model.state_dict(), "fc.weight": torch.zeros(5, 8), "fc.bias": torch.zeros(5)}
    found = ResNet3DModel.from_torchvision(state_dict)
    assert found.config.to_diff_dict() == model.config.to_diff_dict()
    made = torch.randn(1, 4, 2, 20, 20)
    assert torch.equal(found(made).last_hidden_state, model(made).last_hidden_state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.clear(), "it has no 'layer1.0.conv2.1.weight'"),
        (lambda one: one.pop("stem.0.weight"), "it has no 'stem.0.weight'"),
        (lambda one: one.pop("layer2.1.conv2.1.running_var"), "it has no 'layer2.1.conv2.1.running_var'"),
        (lambda one: one.update({"conv1.weight": torch.zeros(1)}), "it also has 'conv1.weight'"),
        (
            lambda one: one.update({"layer2.0.downsample.0.weight": torch.zeros(6, 4, 1, 1)}),
            r"'layer2.0.downsample.0.weight' has the shape \(6, 4, 1, 1\) instead of \(6, 4, 1, 1, 1\)",
        ),
    ],
)
def test_weights_of_another_model_are_refused(change, message):
    state_dict = tiny().state_dict()
    change(state_dict)
    with pytest.raises(
        ValueError, match=f"^expected the `state_dict` of a video ResNet of torchvision, but {message}"
    ):
        ResNet3DModel.from_torchvision(state_dict)


# ------------------------------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize(("convolution", "frames"), [("3d", 2), ("(2+1)d", 2), ("mixed", 5)])
def test_map_and_its_mean(convolution, frames):
    model = tiny(convolution)
    outputs = model(clips())
    assert outputs.last_hidden_state.shape == (2, 8, frames, 3, 4)
    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state.flatten(2).mean(dim=2))
    alone = model(clips()[1:])
    torch.testing.assert_close(alone.pooler_output, outputs.pooler_output[1:], rtol=1e-4, atol=1e-5)
    assert model(clips(1, 1, 1, 1)).last_hidden_state.shape == (1, 8, 1, 1, 1)
    outputs.pooler_output.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_time_is_seen():
    """A clip backwards is another clip; "mixed" sees less far than "3d", because most of its stages leave time alone."""
    model, made = tiny(), clips()
    assert not torch.allclose(model(made).pooler_output, model(made.flip(1)).pooler_output, atol=1e-3)
    later = made.clone()
    later[:, -1] += 1
    kept = [tiny(kind)(later).last_hidden_state - tiny(kind)(made).last_hidden_state for kind in ("3d", "mixed")]
    # The stem and the first stage of "mixed", three convolutions of 3 frames, carry the last frame over three more.
    assert kept[1][:, :, 1:].abs().amax(dim=(0, 1, 3, 4)).min() > 0 and not kept[1][:, :, 0].any()
    assert kept[0].abs().amax(dim=(0, 1, 3, 4)).min() > 0


def test_fresh_weights():
    """Kaiming's, by what goes out; batch norms change nothing yet."""
    model = tiny("(2+1)d", hidden_sizes=[64, 96], depths=[1, 1])
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.weight[:, 0].numel()
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
        if isinstance(module, nn.BatchNorm3d):
            assert module.eps == 1e-5 and torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any() and not module.running_mean.any() and bool((module.running_var == 1).all())


@pytest.mark.parametrize("convolution", CONVOLUTIONS.values())
def test_saved_and_loaded(convolution, tmp_path):
    model = tiny(convolution).train()
    with torch.no_grad():
        model(clips())  # moves the averages
    model.eval().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded, config = AutoModel.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is ResNet3DModel and type(config) is ResNet3DConfig
    assert config.convolution == convolution and config.hidden_size == 8
    assert torch.equal(loaded(clips()).last_hidden_state, model(clips()).last_hidden_state)
    half = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half(clips().bfloat16()).pooler_output.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 24, 30), r"\(batch_size, frames, 3, height, width\), got \(2, 5, 24, 30\)"),
        ((2, 3, 5, 24, 30), r"\(batch_size, frames, 3, height, width\), got \(2, 3, 5, 24, 30\)"),
        ((2, 0, 3, 24, 30), r"at least one clip, frame and pixel, got \(2, 0, 3, 24, 30\)"),
        ((2, 5, 3, 24, 0), r"at least one clip, frame and pixel, got \(2, 5, 3, 24, 0\)"),
    ],
)
def test_wrong_inputs(shape, message):
    with pytest.raises(ValueError, match=f"`pixel_values` must have .*{message}"):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": [1]}, r"`depth` \(did you mean `depths`\?\)"),
        ({"convolution": "2d"}, "convolution"),
        ({"depths": [2, 2]}, r"must have one entry per stage, got \[64, 128, 256, 512\] and \[2, 2\]"),
        ({"hidden_sizes": [], "depths": []}, r"`hidden_sizes` must be a list of numbers of at least 1.* got \[\]"),
        ({"depths": [2, 2, 0, 2]}, r"`depths` must be a list of numbers of at least 1.* got \[2, 2, 0, 2\]"),
        ({"num_frames": 0}, "`num_frames` must be at least 1, got 0"),
    ],
)
def test_impossible_configurations(change, message):
    with pytest.raises(Exception, match=message):
        ResNet3DConfig(**change)


# ----------------------------------------------------------------------------------------------- as a visual encoder


def test_features_are_its_means():
    model, made = tiny_vst("resnet3d").eval(), clips(3, 4, 32, 32)
    features = model.features(made[None])
    with torch.no_grad():
        expected = tiny_backbone("resnet3d")(made).pooler_output
    torch.testing.assert_close(features[0, :, 0], expected)


LOAD_ALONE = """
import json, sys
sys.modules["action_llm"] = None  # the package may be installed here: as if it were not
import torch
from transformers import AutoModel
made = torch.linspace(-1, 1, 2 * 4 * 3 * 32 * 32).view(2, 4, 3, 32, 32)
alone, inside = (AutoModel.from_pretrained(folder, trust_remote_code=True) for folder in sys.argv[1:])
with torch.no_grad():
    found = alone(made).pooler_output, inside.features(made[None])[0, :, 0]
print(json.dumps([one.tolist() for one in found]))
"""


def test_loads_as_remote_code_in_a_process_without_the_project(tmp_path):
    """By itself, and as the visual encoder of another model of the project."""
    folders = [tmp_path / "alone", tmp_path / "inside"]
    tiny_backbone("resnet3d").save_pretrained(folders[0])
    tiny_vst("resnet3d").save_pretrained(folders[1])
    alone = {"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    result = python("-c", LOAD_ALONE, *folders, cwd=tmp_path, env=alone)
    assert result.returncode == 0, result.stderr[-3000:]
    made = torch.linspace(-1, 1, 2 * 4 * 3 * 32 * 32).view(2, 4, 3, 32, 32)
    with torch.no_grad():
        expected = tiny_backbone("resnet3d")(made).pooler_output
    for found in json.loads(result.stdout.splitlines()[-1]):
        torch.testing.assert_close(torch.tensor(found), expected)


def test_a_checkpoint_becomes_a_visual_encoder(tmp_path):
    """By `convert_resnet3d.py`; `extract_features.py` then takes size, frames, mean and deviation from the folder."""
    from action_llm_recipes import extract_features
    from action_llm_recipes.pretraining.convert_resnet3d import KINETICS_MEAN, convert

    model = tiny("(2+1)d")
    file = tmp_path / "tiny.pth"
    torch.save({**model.state_dict(), "fc.weight": torch.zeros(5, 8), "fc.bias": torch.zeros(5)}, file)
    convert(str(file), str(tmp_path / "encoder"), image_std=[0.5, 0.25, 0.125])
    names = {path.name for path in (tmp_path / "encoder").iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= names
    loaded = AutoModel.from_pretrained(tmp_path / "encoder")
    assert torch.equal(loaded(clips()).pooler_output, model(clips()).pooler_output)
    own = extract_features.video_settings(
        str(tmp_path / "encoder"), None, loaded.config, extract_features.VideoArguments()
    )
    extractor = VideoFeatureExtractor(**own)
    assert (extractor.height, extractor.width, extractor.frames_per_segment) == (112, 112, 16)
    assert (extractor.image_mean, extractor.image_std) == (list(KINETICS_MEAN), [0.5, 0.25, 0.125])
    assert VSTModel.from_backbone(loaded, quantize=False, direct=True).config.feature_size == 8


def test_a_file_that_would_run_something_is_not_read(tmp_path):

    from action_llm_recipes.pretraining.convert_resnet3d import convert

    torch.save(tiny(), tmp_path / "whole_model.pth")
    with pytest.raises(ValueError, match="expected a file of weights alone, found something else"):
        convert(str(tmp_path / "whole_model.pth"), str(tmp_path / "encoder"))
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], r"expected names and weights, as in the files that torchvision publishes; found list"),
        ({"state_dict": {"stem.0.weight": torch.zeros(1)}}, r"found \['state_dict'\]"),
    ],
)
def test_a_file_of_something_else(content, message, tmp_path):
    from action_llm_recipes.pretraining.convert_resnet3d import convert

    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        convert(str(tmp_path / "other.pth"), str(tmp_path / "encoder"))
    (tmp_path / "noise.pth").write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match=r"noise\.pth: expected a file of weights alone"):
        convert(str(tmp_path / "noise.pth"), str(tmp_path / "encoder"))


def write():
    """Names, shapes and numbers of torchvision's own models."""
    import torchvision

    entries = {}
    for name in CONVOLUTIONS:
        model = getattr(torchvision.models.video, name)().eval()
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict(weights(shapes))
        maps = []
        model.layer4.register_forward_hook(lambda *hook, maps=maps: maps.append(hook[2]))
        model.fc = nn.Identity()
        with torch.no_grad():
            pooled = model(clip().transpose(1, 2))[0, ::16]
        entries[name] = {"map": list(maps[0].shape), "pooled": pooled.tolist(), "shapes": shapes}
    STORED.write_text(json.dumps(entries) + "\n")


if __name__ == "__main__":
    write()
