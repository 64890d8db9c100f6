"""Weights that everybody may read who may read the files beside them: safetensors writes its files for their owner alone."""

import os
from pathlib import Path


def share_weights(folder: str | os.PathLike) -> None:
    """Gives the safetensors files of a folder the permissions of the configuration beside them: those of the umask."""
    config = next(Path(folder).glob("*config.json"), None)
    if config is None:
        return
    for weights in Path(folder).glob("*.safetensors"):
        weights.chmod(config.stat().st_mode & 0o777)


class SharedWeights:
    """Base, before `PreTrainedModel`, of models that save their weights so."""

    def save_pretrained(self, save_directory, *args, **kwargs):
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        share_weights(save_directory)
        return saved


__all__ = ["SharedWeights", "share_weights"]
