"""3-D ResNets of clips (arXiv:1711.11248): the sparsely sampled feature extractor of VT-LVLM-AR, section III.A.

Modules are named as in torchvision, whose Kinetics-400 checkpoints r3d_18, r2plus1d_18 and mc3_18 load as they are.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention
from transformers.modeling_utils import PreTrainedModel

from .configuration_resnet3d import ResNet3DConfig
from .saved_weights import SavedWeights

# Channels between space and time in the stem of R(2+1)D, whatever its width: those of the checkpoints.
STEM_MIDDLE_WIDTH = 45


def _convolution(width_in: int, width_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Conv3d:
    """A convolution over (frames, pixels each way), padded so that stride 1 keeps their numbers."""
    (frames, pixels), (frame_stride, pixel_stride) = kernel, stride
    return nn.Conv3d(
        width_in,
        width_out,
        kernel_size=(frames, pixels, pixels),
        stride=(frame_stride, pixel_stride, pixel_stride),
        padding=(frames // 2, pixels // 2, pixels // 2),
        bias=False,
    )


def _space_then_time(
    width_in: int, middle_width: int, width_out: int, pixels: int, stride: tuple[int, int]
) -> nn.Sequential:
    """A (2+1)-D convolution over 3 frames, with a nonlinearity between space and time."""
    frame_stride, pixel_stride = stride
    return nn.Sequential(
        _convolution(width_in, middle_width, (1, pixels), (1, pixel_stride)),
        nn.BatchNorm3d(middle_width),
        nn.ReLU(inplace=True),
        _convolution(middle_width, width_out, (3, 1), (frame_stride, 1)),
    )


class ResNet3DBlock(nn.Module):
    """
    Two convolutions, and beside them what goes in.

    Args:
        convolution (`str`): `"3d"`, `"(2+1)d"`, or `"2d"`, which leaves time alone.
        width_in, width_out (`int`): channels.
        stride (`int`): of the first convolution, in all that it goes over.
    """

    def __init__(self, convolution: str, width_in: int, width_out: int, stride: int):
        super().__init__()
        strides = (1 if convolution == "2d" else stride, stride)
        # As many weights as 3 x 3 x 3 would have (arXiv:1711.11248, section 3.5). By that rule the second convolution of a
        # block that widens would have a wider middle; in the checkpoints it has that of the first.
        middle_width = 27 * width_in * width_out // (9 * width_in + 3 * width_out)

        def convolve(width: int, strides: tuple[int, int]) -> nn.Module:
            if convolution == "(2+1)d":
                return _space_then_time(width, middle_width, width_out, 3, strides)
            return _convolution(width, width_out, (1 if convolution == "2d" else 3, 3), strides)

        self.conv1 = nn.Sequential(convolve(width_in, strides), nn.BatchNorm3d(width_out), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(convolve(width_out, (1, 1)), nn.BatchNorm3d(width_out))
        self.downsample = nn.Identity()
        if stride > 1 or width_in != width_out:
            self.downsample = nn.Sequential(
                _convolution(width_in, width_out, (1, 1), strides), nn.BatchNorm3d(width_out)
            )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch_size, width_in, frames, height, width) → (batch_size, width_out, …), each divided by its stride."""
        return F.relu(self.conv2(self.conv1(hidden_states)) + self.downsample(hidden_states))


class ResNet3DPreTrainedModel(SavedWeights, PreTrainedModel):
    config_class = ResNet3DConfig
    base_model_prefix = "resnet3d"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    _no_split_modules = ["ResNet3DBlock"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)  # of batch norms
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNet3DModel(ResNet3DPreTrainedModel):
    """
    Stem and stages of residual blocks, without a classifier.

    Args:
        config ([`ResNet3DConfig`]): the configuration.
    """

    # Saving puts the code beside the weights, so that they load where this package is not installed.
    _auto_class = "AutoModel"

    def __init__(self, config: ResNet3DConfig):
        super().__init__(config)
        width = config.hidden_sizes[0]
        if config.convolution == "(2+1)d":
            stem = _space_then_time(config.num_channels, STEM_MIDDLE_WIDTH, width, 7, (1, 2))
        else:
            stem = [_convolution(config.num_channels, width, (3, 7), (1, 2))]
        self.stem = nn.Sequential(*stem, nn.BatchNorm3d(width), nn.ReLU(inplace=True))
        for stage, (width_out, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True), start=1):
            convolution = config.convolution
            if convolution == "mixed":
                convolution = "3d" if stage == 1 else "2d"
            blocks = [ResNet3DBlock(convolution, width, width_out, stride=1 if stage == 1 else 2)]
            blocks += [ResNet3DBlock(convolution, width_out, width_out, stride=1) for _ in range(depth - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            width = width_out
        self.post_init()

    @classmethod
    def from_torchvision(cls, state_dict: Mapping[str, torch.Tensor]) -> "ResNet3DModel":
        """
        A model with the weights of one of torchvision's video ResNets of basic blocks, in evaluation mode.

        Args:
            state_dict (`Mapping[str, torch.Tensor]`):
                As `torchvision.models.video.r3d_18().state_dict()` gives it, of any widths and depths. The classifier `fc`
                is left out.

        Raises:
            ValueError: `state_dict` is of no such model; the message names the first weight that is missing, of another
                shape, or too many.
        """
        weights = {name: value for name, value in state_dict.items() if not name.startswith("fc.")}
        foreign = "`state_dict` is not that of a video ResNet of torchvision"
        try:
            model = cls(_config_of(weights))
        except KeyError as missing:
            raise ValueError(f"{foreign}: it has no {missing}.") from None
        expected = model.state_dict()
        for name, value in expected.items():
            if name not in weights:
                raise ValueError(f"{foreign}: it has no '{name}'.")
            if weights[name].shape != value.shape:
                shapes = f"{tuple(value.shape)}, got {tuple(weights[name].shape)}"
                raise ValueError(f"{foreign}: '{name}' must have the shape {shapes}.")
        for name in weights:
            if name not in expected:
                raise ValueError(f"{foreign}: it has '{name}', too.")
        model.load_state_dict(weights)
        return model.eval()

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPoolingAndNoAttention:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, frames, num_channels, height, width)`):
                Clips of any size, normalised as those that the weights were trained on.

        Returns:
            `last_hidden_state` of shape `(batch_size, hidden_size, frames', height', width')`: height and width are divided
            by 2 in the stem and in every stage but the first, and rounded up; so are the frames, but not in the stem nor
            where a stage leaves time alone. `pooler_output` of shape `(batch_size, hidden_size)`: its mean.

        Raises:
            ValueError: `pixel_values` has another shape, or nothing in it.
        """
        channels = self.config.num_channels
        if pixel_values.dim() != 5 or pixel_values.shape[2] != channels:
            raise ValueError(
                f"`pixel_values` must have the shape (batch_size, frames, {channels}, height, width), "
                f"got {tuple(pixel_values.shape)}."
            )
        if 0 in pixel_values.shape:
            raise ValueError(
                f"`pixel_values` must have at least one clip, frame and pixel, got {tuple(pixel_values.shape)}."
            )
        hidden_states = self.stem(pixel_values.transpose(1, 2))
        for stage in range(1, len(self.config.hidden_sizes) + 1):
            hidden_states = getattr(self, f"layer{stage}")(hidden_states)
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=hidden_states, pooler_output=hidden_states.mean(dim=(2, 3, 4))
        )


def _config_of(weights: Mapping[str, torch.Tensor]) -> ResNet3DConfig:
    """What the shapes of torchvision's weights say; `KeyError` with the name of a weight that should be there."""
    hidden_sizes, depths = [], []
    while not hidden_sizes or f"layer{len(depths) + 1}.0.conv2.1.weight" in weights:
        stage = f"layer{len(depths) + 1}"
        hidden_sizes.append(len(weights[f"{stage}.0.conv2.1.weight"]))
        depths.append(1)
        while f"{stage}.{depths[-1]}.conv2.1.weight" in weights:
            depths[-1] += 1
    convolution = "3d"
    if "layer1.0.conv1.0.0.weight" in weights:
        convolution = "(2+1)d"
    elif len(depths) > 1 and weights["layer2.0.conv1.0.weight"].shape[2] == 1:
        convolution = "mixed"
    num_channels = weights["stem.0.weight"].shape[1]
    return ResNet3DConfig(convolution=convolution, hidden_sizes=hidden_sizes, depths=depths, num_channels=num_channels)


__all__ = ["ResNet3DModel", "ResNet3DPreTrainedModel"]
