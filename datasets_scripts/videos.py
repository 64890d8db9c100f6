"""Builders for videos of NTU RGB+D, UTD-MHAD, Toyota Smarthome, UAV-Human and your own folders, with the splits of skeletons.

    load_action_dataset("ntu60-xsub-video", "nturgb+d_rgb")
    load_action_dataset("ntu60-xsub-video", "nturgb+d_rgb", skeletons="nturgb+d_skeletons")

Instead of the columns of a skeleton, a row has `video`, the path of the file relative to `data_dir`, and the properties in its
container: `num_frames`, `video_fps`, `seconds`, `width`, `height`. The path of an archive member starts with the path of the
archive; `building.open_source` opens both. No frame is decoded. Files that are empty, damaged or not videos are skipped and
listed. `open_row` opens the video of a row. In your own folders, a video may be a folder of pictures whose names end in their
numbers, with the frame rate of the column `fps` in metadata.csv, or of skeleton.json.

`modality=` chooses the camera of a sensor by the tag at the end of file names: "rgb", "depth", "ir" or "color". It is required
if a folder has videos of several cameras and the data set has no default camera. Videos of other cameras are skipped and
listed.

With `skeletons=`, the folder of the skeletons, rows also have the columns of a skeleton. If the skeleton has as many frames as
its video, it gets the frame rate of the video. A video without a skeleton, or with a skeleton that is longer or shorter by more
than half a second, counted both in frames and in seconds, is skipped and listed.

NTU RGB+D has each config twice: `…-video` has all recordings, and `…-video-with-skeletons` leaves out the recordings without
complete skeletons, so that counts match papers on skeletons. `render` draws videos of simulated recordings.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import datasets

from action_llm import frame_sequences, video_files, video_frames
from action_llm.frame_sequences import FRAME_SUFFIXES, FrameFolder
from action_llm.video_files import VIDEO_SUFFIXES, read_video_info
from action_llm.video_frames import VideoFileError, VideoInfo

from .building import UNREADABLE, DataFolderError, SourceFile, Tally, find_files, open_source
from .folder_builder import ActionFolder
from .ntu import NTUSkeletons
from .protocols import NotInProtocolError
from .smarthome import Smarthome
from .uav_human import UAVHuman
from .utd_mhad import UTDMHAD

LENGTH_TOLERANCE = 0.5
DIGEST_BYTES = 1 << 16
# The tag at the end of a file name: the camera of the sensor.
_TAG = re.compile(r"_(rgb|color|depth|ir)$", re.IGNORECASE)


class _Videos:
    """Turns a builder of skeletons into a builder of videos; it is the first of the two base classes."""

    SUFFIX = VIDEO_SUFFIXES
    MODALITY = ""
    """The default camera; empty if there is none."""

    def facts(self, data_dir: Path) -> list[Path]:
        readers = [Path(module.__file__) for module in (video_files, video_frames, frame_sequences)]
        return [*super().facts(data_dir), Path(__file__), *readers]

    def source_files(self, data_dir: str | os.PathLike, skeletons: str) -> list[SourceFile]:
        videos = super().source_files(data_dir, skeletons)
        return [*videos, *find_files(skeletons, super().SUFFIX)] if skeletons else videos

    def _check_settings(self) -> None:
        if (self.config.clean or self.config.keep) and not self.config.skeletons:
            raise ValueError(
                f"clean and keep are settings for skeletons; {self.config.name} has skeletons only if `skeletons` is set"
            )

    def key(self, file: SourceFile) -> str:
        return _TAG.sub("", super().key(file))

    def assign(self) -> tuple[dict[str, list[str]], list[dict]]:
        tags = {file.path: tag[1].lower() for file in self.listed() if (tag := _TAG.search(file.stem))}
        wanted = self.config.modality or self.MODALITY
        modalities = sorted(set(tags.values()))
        if not wanted and len(modalities) > 1:
            raise DataFolderError(
                f"{self.config.data_dir!r} has videos of several cameras: set modality to one of {', '.join(modalities)}"
            )
        self._others = {path: tag for path, tag in tags.items() if tag != (wanted or tag)}
        return super().assign()

    def check(self, file: SourceFile) -> None:
        if file.path in self._others:
            wanted = self.config.modality or self.MODALITY
            raise NotInProtocolError("modality", f"{file.path} is {self._others[file.path]}, not {wanted}")

    def account(self, tallies: list[Tally], skipped: list[dict]) -> dict:
        # Videos with the same size and the same ends may still differ: only these are read completely.
        counts = Counter(file.content for tally in tallies for file in tally.used)
        for tally in tallies:
            tally.used = [
                file._replace(content=self._whole_content(file.file)) if counts[file.content] > 1 else file
                for file in tally.used
            ]
        return super().account(tallies, skipped)

    def _whole_content(self, path: str) -> str:
        try:
            return self.digest(path)
        except UNREADABLE:
            return path  # unreadable: equal to no other video

    def digest(self, path: str) -> str:
        """A digest of all bytes of a video."""
        with open_source(self.config.data_dir, path) as file:
            return hashlib.file_digest(file, _new_digest).hexdigest()

    def read_video(self, path: str) -> tuple[VideoInfo, str]:
        """The properties in the header of a video, and a digest of a part of its content."""
        with open_source(self.config.data_dir, path) as file:
            return read_video_info(file), _digest_of_ends(file)

    @cached_property
    def _skeletons(self) -> dict[str, str]:
        """Sample id → path of its skeleton."""
        paths = {}
        for file in find_files(self.config.skeletons, super().SUFFIX):
            try:
                paths.setdefault(self.place(super().key(file))[0], file.path)
            except NotInProtocolError:
                continue  # the name of the video decides whether a recording is used
        return paths

    def recording_features(self) -> dict:
        features = {"video": datasets.Value("string"), "num_frames": datasets.Value("int32")}
        features |= {name: datasets.Value("float32") for name in ("video_fps", "seconds")}
        features |= {name: datasets.Value("int32") for name in ("width", "height")}
        return features | (self.skeleton_features() if self.config.skeletons else {})

    def recording_columns(self, path: str) -> dict:
        try:
            info, content = self.read_video(path)
        except VideoFileError as error:
            raise NotInProtocolError(
                "unreadable", f"{path}: found {error.actual}, expected {error.expected}"
            ) from error
        except UNREADABLE as error:
            raise NotInProtocolError("unreadable", f"{path}: {getattr(error, 'strerror', None) or error}") from error
        columns = {"video": path, **info._asdict(), "video_fps": info.fps, "content": content}
        if not self.config.skeletons:
            return columns
        sample_id, _, _ = self.place(self.key(SourceFile(path, 0, 0)))
        if sample_id not in self._skeletons:
            raise NotInProtocolError("no skeleton", f"{path}: {sample_id} has no skeleton")
        skeleton = self.skeleton_columns(self.config.skeletons, self._skeletons[sample_id])
        seconds = skeleton["shape"][0] / skeleton["fps"]
        # For some data sets, the frame rate of skeletons is not documented. If the video has as many frames, its rate is right.
        if abs(skeleton["shape"][0] - info.num_frames) <= LENGTH_TOLERANCE * info.fps:
            skeleton["fps"] = info.fps
        elif abs(seconds - info.seconds) > LENGTH_TOLERANCE:
            raise NotInProtocolError(
                "length", f"{path}: the video has {info.seconds:.2f} s ({info.num_frames} frames), "
                f"its skeleton {seconds:.2f} s ({skeleton['shape'][0]} frames)"
            )  # fmt: skip
        return columns | skeleton


def _new_digest(content: bytes = b""):
    return hashlib.blake2b(content, digest_size=12)


def _digest_of_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, _new_digest).digest()


def _digest_of_ends(file: BinaryIO) -> str:
    """A digest of the size and both ends of a file, in which nearly all videos differ. Reading all files would take hours."""
    size = file.seek(0, os.SEEK_END)
    content = _new_digest(str(size).encode())
    for start in (0, max(0, size - DIGEST_BYTES)):
        file.seek(start)
        content.update(file.read(DIGEST_BYTES))
    return content.hexdigest()


@contextmanager
def open_row(data_dir: str | os.PathLike, row: dict) -> Iterator[BinaryIO | FrameFolder]:
    """Opens the video of a row for `open_video` and the extractor of video features.

    Args:
        data_dir: the folder that the row was made from.
        row: with the columns `video` and `video_fps`.

    Raises:
        VideoFileError, OSError, zipfile.BadZipFile, NotImplementedError: if the video cannot be opened.
    """
    path = Path(data_dir, str(row["video"]))
    if path.is_dir():
        yield FrameFolder(path, float(row["video_fps"]))
        return
    with open_source(data_dir, str(row["video"])) as file:
        yield file


class NTUVideos(_Videos, NTUSkeletons):
    """Colour videos of NTU RGB+D 60 and 120, and videos of simulated recordings."""

    BUILDER_CONFIGS = [
        replace(config, name=_name, skip_missing=_clean)
        for config in NTUSkeletons.BUILDER_CONFIGS
        for _clean in ((False,) if config.name.startswith("simulated") else (False, True))
        for _name in [
            config.protocol
            + ("-video-with-skeletons" if _clean else "-video")
            + ("" if config.part == "all" else f"-{config.part}")
        ]
    ]
    TITLE = "NTU RGB+D (videos)"
    MODALITY = "rgb"


class FolderVideos(_Videos, ActionFolder):
    """Your own videos, or folders of pictures, with a metadata.csv."""

    BUILDER_CONFIGS = [replace(config, name=f"{config.name}-video") for config in ActionFolder.BUILDER_CONFIGS]
    TITLE = "Videos in a folder"

    def source_files(self, data_dir: str | os.PathLike, skeletons: str) -> list[SourceFile]:
        return find_files(data_dir, (*self.SUFFIX, *FRAME_SUFFIXES), self.NAME_PARTS)

    def listed(self) -> list[SourceFile]:
        videos = [file for file in super().listed() if file.path.lower().endswith(self.SUFFIX)]
        folders = [
            SourceFile(name, 0, 0) for name, row in self._rows.items() if row.is_folder and self._pictures(name)
        ]
        return sorted([*videos, *folders], key=lambda file: file.path)

    def _pictures(self, name: str) -> list[Path]:
        """The pictures of a folder, sorted by name."""
        files = sorted(Path(self.config.data_dir, name).iterdir())
        return [file for file in files if file.name.lower().endswith(FRAME_SUFFIXES) and file.name[0] != "."]

    def _why_absent(self, name: str) -> str:
        if self._rows[name].is_folder:
            return f"{name} is a folder without pictures ({', '.join(FRAME_SUFFIXES)})"
        return super()._why_absent(name)

    def key(self, file: SourceFile) -> str:
        return file.path

    def read_video(self, path: str) -> tuple[VideoInfo, str]:
        if not self._rows[path].is_folder:
            return super().read_video(path)
        info = FrameFolder(Path(self.config.data_dir, path), self.frame_rate(path, self._common["fps"])).info
        pictures = self._pictures(path)
        content = _new_digest(repr([file.stat().st_size for file in pictures]).encode())
        for picture in (pictures[0], pictures[-1]):
            content.update(_digest_of_file(picture))
        return info, content.hexdigest()

    def digest(self, path: str) -> str:
        if not self._rows[path].is_folder:
            return super().digest(path)
        content = _new_digest()
        for picture in self._pictures(path):
            content.update(_digest_of_file(picture))
        return content.hexdigest()

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.config.skeletons:
            raise ValueError(
                "skeletons: videos in your own folder cannot be paired with skeletons; load the skeletons alone"
            )


class UTDMHADVideos(_Videos, UTDMHAD):
    """Depth or colour videos of UTD-MHAD."""

    BUILDER_CONFIGS = [
        replace(config, name=config.name.replace(config.protocol, f"{config.protocol}-video"))
        for config in UTDMHAD.BUILDER_CONFIGS
    ]
    TITLE = "UTD-MHAD (videos)"


class SmarthomeVideos(_Videos, Smarthome):
    """Videos of Toyota Smarthome."""

    BUILDER_CONFIGS = [replace(config, name=f"{config.name}-video") for config in Smarthome.BUILDER_CONFIGS]
    TITLE = "Toyota Smarthome (videos)"


class UAVHumanVideos(_Videos, UAVHuman):
    """Colour videos of UAV-Human. Their numbers per split are not published."""

    BUILDER_CONFIGS = [replace(config, name=f"{config.name}-video") for config in UAVHuman.BUILDER_CONFIGS]
    TITLE = "UAV-Human (videos)"

    def published_counts(self) -> dict[str, int]:
        return {}
