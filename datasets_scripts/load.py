"""Loads any data set from the name of a protocol and the folder of the raw files."""

import os

import datasets

from .building import SkeletonBuilder
from .folder_builder import ActionFolder
from .names import check_protocol
from .ntu import NTUSkeletons
from .nw_ucla import NWUCLA
from .sbu import SBU
from .smarthome import Smarthome
from .uav_human import UAVHuman
from .utd_mhad import UTDMHAD
from .videos import FolderVideos, NTUVideos, SmarthomeVideos, UAVHumanVideos, UTDMHADVideos


def _protocols() -> dict[str, tuple[type[SkeletonBuilder], list[str]]]:
    """Name of a protocol → its builder and the names of its configs: one, or one each for seen and unseen classes."""
    table: dict[str, tuple[type[SkeletonBuilder], list[str]]] = {}
    skeletons = (NTUSkeletons, UTDMHAD, Smarthome, UAVHuman, NWUCLA, SBU, ActionFolder)
    for builder in (*skeletons, NTUVideos, UTDMHADVideos, SmarthomeVideos, UAVHumanVideos, FolderVideos):
        for config in builder.BUILDER_CONFIGS:
            protocol = config.name.removesuffix(f"-{getattr(config, 'part', 'all')}")
            table.setdefault(protocol, (builder, []))[1].append(config.name)
    return table


PROTOCOLS = _protocols()


def load_action_dataset(
    name: str,
    data_dir: str | os.PathLike,
    *,
    cache_dir: str | os.PathLike | None = None,
    num_proc: int | None = None,
    **overrides,
) -> datasets.DatasetDict:
    """Prepares a data set from its raw files and loads it. The prepared data are cached until the files change.

    Args:
        name: of the protocol: "ntu60-xsub", "ntu120-unseen-0", "utd-mhad", "smarthome-cs", "uav-human-csv1", "nw-ucla-xview",
            "sbu-fold-0", "simulated-xsub", …, or "folder" for your own recordings (`folder_builder`). `PROTOCOLS` has all
            names.
        data_dir: folder of the raw files, in any folder structure.
        cache_dir: folder for the prepared data; None uses the cache of `datasets`.
        num_proc: number of processes that read files.
        **overrides: fields of the config, such as `held_out_subject` of "utd-mhad".

    Returns:
        The splits `train` and `test`; one-shot protocols also have `exemplars`, and smarthome-cv1 and -cv2 have `validation`,
        the clips of a camera that is never used for training. `building` describes the rows; `held_out` marks the training
        recordings that select checkpoints and settings. If the test classes are unseen, each split has its own `label` names,
        and `train` has no test class.

    Raises:
        ValueError: if there is no such protocol, or a field has a wrong value.
        DataFolderError: if the folder has no usable recording of the data set; says what it holds.
    """
    check_protocol(name)
    builder_class, configs = PROTOCOLS[name]
    splits = datasets.DatasetDict()
    for config in configs:
        cache = None if cache_dir is None else os.fspath(cache_dir)
        builder = builder_class(config_name=config, data_dir=data_dir, cache_dir=cache, **overrides)
        builder.download_and_prepare(num_proc=num_proc)
        # Also for cached data: every training run should show what is missing.
        builder.log_report()
        splits.update(builder.as_dataset())
    return splits
