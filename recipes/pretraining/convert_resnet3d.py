"""
A 3-D ResNet of torchvision for Kinetics-400 → a visual encoder that `extract_features.py` takes.

```bash
python recipes/pretraining/convert_resnet3d.py r2plus1d_18-91a641e6.pth runs/r2plus1d_18
python recipes/extract_features.py --backbone runs/r2plus1d_18 --dataset utd-mhad-video --data_dir UTD-MHAD/Depth \\
    --output_dir runs/utd_mhad_video/features
```

The checkpoint is one of r3d_18, r2plus1d_18 and mc3_18, or of another width or depth of theirs. The folder gets the weights
without the classifier as safetensors, and a `preprocessor_config.json` for clips of 16 frames of 112 x 112 pixels.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from action_llm_recipes.common.launching import CommandParser

logger = logging.getLogger(__name__)

# Of red, green and blue over the training clips of Kinetics-400, as torchvision normalises them.
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
        checkpoint (`str`): file of a state dict, as torchvision publishes it.
        output_dir (`str`): folder that is written.
        image_mean, image_std (`Sequence[float]`): of red, green and blue between 0 and 1, for the feature extractor.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no file of weights alone, or of another model; the message names one.
    """
    import torch

    from action_llm import ResNet3DModel, VideoFeatureExtractor

    # The one place of this project that reads a pickle, of tensors alone: `weights_only` runs nothing that a file says.
    try:
        state_dict = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except (
        Exception
    ) as error:  # whatever a pickle reader makes of a file that is none, or of one that would run something
        found = type(error).__name__
        raise ValueError(f"{checkpoint}: expected a file of weights alone, found something else ({found})") from error
    if not isinstance(state_dict, dict) or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        found = list(state_dict)[:3] if isinstance(state_dict, dict) else type(state_dict).__name__
        raise ValueError(
            f"{checkpoint}: expected weights by their names, as torchvision publishes them; found {found}"
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


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = CommandParser(description="A 3-D ResNet of torchvision → a visual encoder.", allow_abbrev=False)
    parser.add_argument("checkpoint", help="file of the weights (.pth)")
    parser.add_argument("output_dir", help="folder for the visual encoder")
    colours = {"type": float, "nargs": 3, "metavar": ("RED", "GREEN", "BLUE")}
    parser.add_argument("--image_mean", default=KINETICS_MEAN, help="by default those of Kinetics", **colours)
    parser.add_argument("--image_std", default=KINETICS_STD, help="by default those of Kinetics", **colours)
    arguments = parser.parse_args()
    if not Path(arguments.checkpoint).is_file():
        parser.error(f"there is no file {arguments.checkpoint}.")
    convert(**vars(arguments))
