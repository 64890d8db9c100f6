"""Builders of the videos of NTU RGB+D, UTD-MHAD, Toyota Smarthome and UAV-Human: names, splits, labels as of their skeletons.

    load_action_dataset("ntu60-xsub-video", "nturgb+d_rgb")

A row has `video`, the path of the file below `data_dir` (behind the archive's, for a member of a `.zip` archive:
`building.open_source` opens both), instead of the columns of a skeleton. Nothing is decoded here, so that a data set of videos
is built in seconds; a file that is empty, or begins like no container of videos, is skipped and listed.

NTU RGB+D has every config twice: `…-video` is all recordings, `…-video-with-skeletons` leaves out those without complete
skeletons, so that the counts are those of skeleton papers.
"""

import re
from dataclasses import replace
from pathlib import Path

import datasets

from .building import UNREADABLE, open_source
from .ntu import NTUSkeletons
from .protocols import NotInProtocolError
from .smarthome import Smarthome
from .uav_human import UAVHuman
from .utd_mhad import UTDMHAD

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm")
# What stands behind the name of a recording: which camera of the sensor.
_TAG = re.compile(r"_(rgb|color|depth)$", re.IGNORECASE)
# AVI, Matroska and WebM; MP4 has its mark behind the size of its first box.
_BEGINNINGS = (b"RIFF", b"\x1a\x45\xdf\xa3")


class _Videos:
    """Makes videos of a builder of skeletons; stands before it among the bases."""

    SUFFIX = VIDEO_SUFFIXES

    def facts(self, data_dir: Path) -> list[Path]:
        return [*super().facts(data_dir), Path(__file__)]

    def key(self, file) -> str:
        return _TAG.sub("", super().key(file))

    def recording_features(self) -> dict:
        return {"video": datasets.Value("string")}

    def recording_columns(self, path: str) -> dict:
        try:
            with open_source(self.config.data_dir, path) as file:
                start = file.read(12)
        except UNREADABLE as error:
            raise NotInProtocolError("unreadable", f"{path}: {getattr(error, 'strerror', None) or error}") from error
        if not (start.startswith(_BEGINNINGS) or start[4:8] in (b"ftyp", b"moov", b"mdat")):
            found = "an empty file" if not start else f"a beginning {start!r}"
            raise NotInProtocolError(
                "unreadable", f"{path}: found {found}, expected an MP4, AVI, Matroska or WebM file"
            )
        return {"video": path}


class NTUVideos(_Videos, NTUSkeletons):
    """Colour videos of NTU RGB+D 60 and 120."""

    BUILDER_CONFIGS = [
        replace(config, name=_name, skip_missing=_clean)
        for config in NTUSkeletons.BUILDER_CONFIGS
        if not config.name.startswith("simulated")
        for _clean in (False, True)
        for _name in [
            config.protocol
            + ("-video-with-skeletons" if _clean else "-video")
            + ("" if config.part == "all" else f"-{config.part}")
        ]
    ]
    TITLE = "NTU RGB+D (videos)"


class UTDMHADVideos(_Videos, UTDMHAD):
    """Depth or colour videos of UTD-MHAD."""

    BUILDER_CONFIGS = [replace(config, name=f"{config.name}-video") for config in UTDMHAD.BUILDER_CONFIGS]
    TITLE = "UTD-MHAD (videos)"


class SmarthomeVideos(_Videos, Smarthome):
    """Videos of Toyota Smarthome."""

    BUILDER_CONFIGS = [replace(config, name=f"{config.name}-video") for config in Smarthome.BUILDER_CONFIGS]
    TITLE = "Toyota Smarthome (videos)"


class UAVHumanVideos(_Videos, UAVHuman):
    """Colour videos of UAV-Human. How many of them each split should have is not published."""

    BUILDER_CONFIGS = [replace(config, name=f"{config.name}-video") for config in UAVHuman.BUILDER_CONFIGS]
    TITLE = "UAV-Human (videos)"

    def published_counts(self) -> dict[str, int]:
        return {}
