"""3-D ResNets (arXiv:1711.11248): the visual encoder of clips of VT-LVLM-AR, section III.A.

Modules are named as in torchvision, whose Kinetics-400 checkpoints r3d_18, r2plus1d_18 and mc3_18 can be loaded directly.
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

# Channels between space and time in the stem of R(2+1)D, as in torchvision's checkpoints; independent of the stem's width.
STEM_MIDDLE_WIDTH = 45


def _convolution(width_in: int, width_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Conv3d:
    """A convolution with a kernel and stride of (frames, pixels); padding keeps the size with stride 1."""
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
    A residual block of two convolutions.

    Args:
        convolution (`str`): `"3d"`, `"(2+1)d"`, or `"2d"`, which convolves only space.
        width_in, width_out (`int`): number of channels of input and output.
        stride (`int`): stride of the first convolution, in all dimensions that it convolves.
    """

    def __init__(self, convolution: str, width_in: int, width_out: int, stride: int):
        super().__init__()
        strides = (1 if convolution == "2d" else stride, stride)
        # The number of weights equals that of a 3 x 3 x 3 convolution (arXiv:1711.11248, section 3.5). By this rule, the second
        # convolution of a widening block would have a larger middle width; in the checkpoints, it has that of the first.
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
        """(batch_size, width_in, frames, height, width) → (batch_size, width_out, …), divided by the strides."""
        return F.relu(self.conv2(self.conv1(hidden_states)) + self.downsample(hidden_states))


class ResNet3DPreTrainedModel(SavedWeights, PreTrainedModel):
    config_class = ResNet3DConfig
    base_model_prefix = "resnet3d"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    _no_split_modules = ["ResNet3DBlock"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)  # initialises batch norms
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNet3DModel(ResNet3DPreTrainedModel):
    """
    Stem and stages of residual blocks, without a classifier.

    Args:
        config ([`ResNet3DConfig`]): the configuration.
    """

    # Saving writes the code beside the weights, so that they load without installing this package.
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
        A model with the weights of a video ResNet of torchvision (with basic blocks), in evaluation mode.

        Args:
            state_dict (`Mapping[str, torch.Tensor]`):
                The weights, as from `torchvision.models.video.r3d_18().state_dict()`, of any widths and depths. The
                classifier `fc` is ignored.

        Raises:
            ValueError: if `state_dict` is not from such a model; the message names the first weight that is missing, has
                another shape, or is unexpected.
        """
        weights = {name: value for name, value in state_dict.items() if not name.startswith("fc.")}
        expected = "expected the `state_dict` of a video ResNet of torchvision"
        try:
            model = cls(_config_of(weights))
        except KeyError as missing:
            raise ValueError(f"{expected}, but it has no {missing}.") from None
        own_weights = model.state_dict()
        for name, value in own_weights.items():
            if name not in weights:
                raise ValueError(f"{expected}, but it has no '{name}'.")
            if weights[name].shape != value.shape:
                shapes = f"{tuple(weights[name].shape)} instead of {tuple(value.shape)}"
                raise ValueError(f"{expected}, but '{name}' has the shape {shapes}.")
        for name in weights:
            if name not in own_weights:
                raise ValueError(f"{expected}, but it also has '{name}'.")
        model.load_state_dict(weights)
        return model.eval()

    def forward(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPoolingAndNoAttention:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, frames, num_channels, height, width)`):
                Clips of any size, normalised as in training.

        Returns:
            `last_hidden_state` of shape `(batch_size, hidden_size, frames', height', width')`, and its mean `pooler_output` of
            shape `(batch_size, hidden_size)`. The stem and every stage but the first halve height and width, rounding up.
            Every stage but the first that convolves time also halves the number of frames.

        Raises:
            ValueError: if `pixel_values` has another shape, or is empty.
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
    """The configuration that the shapes of torchvision's weights imply. Raises `KeyError` for a missing weight."""
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
