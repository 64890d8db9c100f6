"""
Convert a 3-D ResNet of torchvision (Kinetics-400) to a visual encoder for `extract_features.py`.

```bash
python recipes/pretraining/convert_resnet3d.py r2plus1d_18-91a641e6.pth runs/r2plus1d_18
python recipes/extract_features.py --backbone runs/r2plus1d_18 --dataset utd-mhad-video --data_dir UTD-MHAD/Depth \\
    --output_dir runs/utd_mhad_video/features
```

The checkpoint is one of r3d_18, r2plus1d_18 and mc3_18, or a variant of another width or depth. The folder contains the weights
without the classifier, as safetensors, and a `preprocessor_config.json` for clips of 16 frames of 112 x 112 pixels.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from action_llm_recipes.common.launching import CommandParser, launch_command

logger = logging.getLogger(__name__)

# Mean and standard deviation of red, green and blue over the training clips of Kinetics-400, as in torchvision.
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


def convert(
    checkpoint: str,
    output_dir: str,
    image_mean: Sequence[float] = KINETICS_MEAN,
    image_std: Sequence[float] = KINETICS_STD,
) -> None:
    """
    Writes a folder that `AutoModel.from_pretrained` loads.

    Args:
        checkpoint (`str`): file with a state dict, as torchvision publishes it.
        output_dir (`str`): folder of the visual encoder.
        image_mean, image_std (`Sequence[float]`): mean and standard deviation of red, green and blue, from 0 to 1.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file contains more than weights, or weights of another model.
    """
    import torch

    from action_llm import ResNet3DModel, VideoFeatureExtractor

    # The only pickle that this project reads. `weights_only` loads tensors, and runs no code of the file.
    try:
        state_dict = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError:
        raise
    # Damaged files, and those that would run code, raise errors of many types.
    except Exception as error:
        reason = type(error).__name__
        raise ValueError(f"{checkpoint}: expected a file of weights alone, found something else ({reason})") from error
    if not isinstance(state_dict, dict) or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        content = list(state_dict)[:3] if isinstance(state_dict, dict) else type(state_dict).__name__
        raise ValueError(
            f"{checkpoint}: expected names and weights, as in the files that torchvision publishes; found {content}"
        )
    model = ResNet3DModel.from_torchvision(state_dict)
    size = model.config.image_size
    extractor = VideoFeatureExtractor(
        frames_per_segment=model.config.num_frames,
        height=size,
        width=size,
        image_mean=image_mean,
        image_std=image_std,
    )
    model.save_pretrained(output_dir)
    extractor.save_pretrained(output_dir)
    logger.info("The visual encoder is in %s", output_dir)


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line, and converts."""
    parser = CommandParser(description="Converts a 3-D ResNet of torchvision to a visual encoder.", allow_abbrev=False)
    parser.add_argument("checkpoint", help="file with the weights (.pth)")
    parser.add_argument("output_dir", help="folder for the visual encoder")
    colours = {"type": float, "nargs": 3, "metavar": ("RED", "GREEN", "BLUE")}
    parser.add_argument(
        "--image_mean",
        default=KINETICS_MEAN,
        help="mean of each colour, 0 to 1; by default that of Kinetics",
        **colours,
    )
    parser.add_argument(
        "--image_std", default=KINETICS_STD, help="standard deviation; by default that of Kinetics", **colours
    )
    given = parser.parse_args(arguments)
    if not Path(given.checkpoint).is_file():
        parser.error(f"there is no file {given.checkpoint}.")
    convert(**vars(given))


if __name__ == "__main__":
    launch_command(main)
