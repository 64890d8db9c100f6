"""One way to a prepared data set for every recipe: a protocol's name and the folder of raw files."""

import os

import datasets

from .building import SkeletonBuilder
from .folder_builder import ActionFolder
from .names import check_protocol
from .ntu import NTUSkeletons
from .smarthome import Smarthome
from .uav_human import UAVHuman
from .utd_mhad import UTDMHAD
from .videos import FolderVideos, NTUVideos, SmarthomeVideos, UAVHumanVideos, UTDMHADVideos


def _protocols() -> dict[str, tuple[type[SkeletonBuilder], list[str]]]:
    """Name of a protocol -> its builder and configs: one, or one of seen and one of unseen classes."""
    table: dict[str, tuple[type[SkeletonBuilder], list[str]]] = {}
    skeletons = (NTUSkeletons, UTDMHAD, Smarthome, UAVHuman, ActionFolder)
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
    """Prepare a data set from its raw files (once; the cache follows the files) and load it.

    Args:
        name: the protocol: "ntu60-xsub", "ntu120-unseen-0", "utd-mhad", "smarthome-cs", "uav-human-csv1",
            "simulated-xsub", …, or "folder" for recordings of your own (`folder`); `PROTOCOLS` has all.
        data_dir: folder of the raw files, nested in any way.
        cache_dir: where the prepared data go; None is the cache of `datasets`.
        num_proc: processes that read.
        **overrides: fields of the config, as `held_out_subject` of "utd-mhad".

    Returns:
        Splits `train` and `test` (one-shot: `exemplars` too; smarthome-cv1 and -cv2: `validation`, clips of a camera
        that never trains). Rows as in `building`; `held_out` marks the training recordings that are for selecting.
        Where the test classes are unseen, each split has its own `label` names and those of `train` do not contain a
        test class.

    Raises:
        ValueError: there is no such protocol, or a field has no such value.
        DataFolderError: the folder holds nothing of the data set; says what it holds.
    """
    check_protocol(name)
    builder_class, configs = PROTOCOLS[name]
    splits = datasets.DatasetDict()
    for config in configs:
        cache = None if cache_dir is None else os.fspath(cache_dir)
        builder = builder_class(config_name=config, data_dir=data_dir, cache_dir=cache, **overrides)
        builder.download_and_prepare(num_proc=num_proc)
        # Every time, not only when it was prepared: whoever trains on it now is to know what is missing.
        builder.log_report()
        splits.update(builder.as_dataset())
    return splits
