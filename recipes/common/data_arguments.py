"""The recordings that a recipe reads."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm.model_files import read_json_object
from action_llm_recipes.common.fingerprints import recordings_fingerprint
from action_llm_recipes.common.joined_data_sets import join_data_sets, joined_title, persons_of, titles_of
from action_llm_recipes.common.people import read_people
from action_llm_recipes.common.records import RECORD, read_written, required
from action_llm_recipes.common.shared_classes import read_shared_classes
from action_llm_recipes.common.written_folders import check_written_folder

logger = logging.getLogger(__name__)

# Modality → the column that data sets of this modality have.
MODALITIES = {"skeletons": "keypoints", "videos": "video", "features": "features"}


@dataclass
class DataArguments:
    """The data set, its protocol, and its folder."""

    dataset: str | list[str] = field(
        metadata={
            "help": "data set and protocol: ntu60-xsub, ntu120-xset, utd-mhad, simulated-xsub, …; or features, for "
            "a folder that extract_features.py wrote. Several data sets of skeletons are read as one: classes of one name are "
            "one class, and names of recordings and subjects begin with that of their data set (utd-mhad/1)",
            "several": True,
        }
    )
    data_dir: str | list[str] = field(
        metadata={
            "help": "folder of the recordings as downloaded or simulated, or of the features; for several data sets, the "
            "folder of each, in the same order",
            "several": True,
        }
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "folder for the prepared data set; by default the cache of datasets"}
    )
    num_proc: int | None = field(default=None, metadata={"help": "number of processes that read the recordings"})
    accept_doubts: bool = field(
        default=False,
        metadata={"help": "use recordings even if they look wrong (order of the joints, vertical axis, units)"},
    )
    pose: Literal["mediapipe", "vitpose"] | None = field(
        default=None,
        metadata={
            "help": "with --dataset folder-video, for recipes that read skeletons: estimate the poses of the people in the "
            "videos first, with mediapipe or vitpose (action_llm_datasets.pose)"
        },
    )
    pose_model: str | None = field(
        default=None,
        metadata={
            "help": "weights of the pose estimator: a path, or a name on the Hub; by default its usual place",
            "belongs_to": "pose",
        },
    )
    pose_dir: str | None = field(
        default=None,
        metadata={
            "help": "folder for the estimated skeletons, which all runs share; by default DATA_DIR_POSE, such as "
            "my_videos_mediapipe. A folder that `action-llm-pose` wrote keeps its settings",
            "belongs_to": "pose",
        },
    )
    mirrored: bool | None = field(
        default=None,
        metadata={
            "help": "with --pose: the videos are mirror images, as those of Kinect (NTU RGB+D); by default as in the folder "
            "of the skeletons, or false in a new one"
        },
    )
    held_out_subjects: list[str] | None = field(
        default=None,
        metadata={
            "help": "training subjects to hold out instead of those that the data set marks. Holding out each subject in turn "
            "is a cross-validation of settings"
        },
    )
    same_classes: str | None = field(
        default=None,
        metadata={
            "help": "with several data sets: YAML file with a list for each class whose names differ, as in - [jog, jogging]; "
            "the first name is that of the class"
        },
    )

    def __post_init__(self):
        from action_llm_datasets.names import check_protocol

        names, folders = (value if isinstance(value, list) else [value] for value in (self.dataset, self.data_dir))
        if not names or len(names) != len(folders):
            raise ValueError(
                f"--data_dir: expected the folder of each of {len(names)} data sets, in the order of --dataset "
                f"({', '.join(names)}), got {len(folders)}: {', '.join(folders)}."
            )
        if len(names) == 1:
            (self.dataset,), (self.data_dir,) = names, folders
        if self.held_out_subjects is not None:
            self.held_out_subjects = sorted(set(map(str, self.held_out_subjects)))
        if self.pose is not None:
            if self.dataset != "folder-video":
                raise ValueError(
                    f"--pose reads the videos of --dataset folder-video, not of {', '.join(names)}: `action-llm-pose` "
                    "estimates skeletons of any folder of videos."
                )
            if self.pose_dir is None:
                videos = Path(os.path.abspath(self.data_dir))  # `.` has no name
                self.pose_dir = str(videos.with_name(f"{videos.name}_{self.pose}"))
        for name in ("pose_model", "pose_dir", "mirrored"):
            if self.pose is None and getattr(self, name) is not None:
                raise ValueError(f"--{name} is a setting of the estimated skeletons: set --pose, too.")
        if len(names) > 1:
            titles_of(names, folders)  # refuses what cannot be joined
        if self.dataset == "features":
            check_written_folder(self.data_dir, "extract_features.py")
        else:
            for name, folder in zip(names, folders, strict=True):
                check_protocol(name)
                if not Path(folder).exists():
                    raise ValueError(f"there is no folder {folder}: --data_dir must be the folder of the recordings.")
        if self.same_classes is not None:
            if len(names) == 1:
                raise ValueError("--same_classes joins classes of several data sets, but --dataset names one.")
            read_shared_classes(self.same_classes, "--same_classes")

    @property
    def folders(self) -> list[str]:
        """The folder of each data set."""
        return self.data_dir if isinstance(self.data_dir, list) else [self.data_dir]

    @property
    def is_video(self) -> bool:
        """Whether the recipe reads videos; with `pose`, it reads their skeletons."""
        return isinstance(self.dataset, str) and "-video" in self.dataset and self.pose is None

    def load(self, *modalities: str):
        """
        Loads the data set: a `DatasetDict` with the splits `train` and `test`.

        Args:
            *modalities: that the recipe reads: "skeletons" (the default), "videos", or "features" of videos.

        Raises:
            ValueError: if the data set has none of these modalities, or `held_out_subjects` are not training subjects.
        """
        from action_llm_recipes.common.action_features import load_features

        if self.dataset == "features":
            dataset = load_features(self.data_dir)
        elif isinstance(self.dataset, list):
            same = [] if self.same_classes is None else read_shared_classes(self.same_classes, "--same_classes")
            titles = titles_of(self.dataset, self.data_dir)
            dataset = join_data_sets(
                dict(zip(titles, map(self._load, self.dataset, self.data_dir), strict=True)), same
            )
        elif self.pose is not None:
            dataset = self._load("folder", self._estimated_poses())
        else:
            dataset = self._load(self.dataset, self.data_dir)
        modalities = modalities or ("skeletons",)
        available = [
            name for name, column in MODALITIES.items() if all(column in rows.features for rows in dataset.values())
        ]
        if not set(modalities) & set(available):
            name = self.dataset if isinstance(self.dataset, str) else self.protocol()
            raise ValueError(
                f"{name} holds {' and '.join(available)}, but this recipe reads {' or '.join(modalities)}."
            )
        if self.held_out_subjects:
            from action_llm_recipes.common.held_out_subjects import hold_out_subjects

            dataset = hold_out_subjects(dataset, self.people({"train": dataset["train"]}), self.held_out_subjects)
        return dataset

    def _load(self, name: str, folder: str):
        from action_llm_datasets.load import load_action_dataset

        accepted = {"accept_doubts": True} if self.accept_doubts else {}
        return load_action_dataset(name, folder, cache_dir=self.cache_dir, num_proc=self.num_proc, **accepted)

    def _estimated_poses(self) -> str:
        """The folder of the skeletons of the videos; estimates those that are missing."""
        from action_llm_datasets.pose import ON_GPU, estimate_poses

        summary = estimate_poses(
            self.data_dir,
            self.pose_dir,
            pose=self.pose,
            pose_model=self.pose_model,
            mirrored=self.mirrored,
            num_proc=None if self.pose in ON_GPU else self.num_proc,
        )
        if summary["estimated"]:  # else an earlier stage has logged this
            logger.info(
                "Poses of %d videos in %s, %d skipped; nobody is seen in %d of %d frames. Look at poses.html there.",
                summary["recordings"],
                self.pose_dir,
                len(summary["skipped"]),
                summary["empty_frames"],
                summary["frames"],
            )
        return self.pose_dir

    def chosen_subjects(self) -> list[str] | None:
        """The `held_out_subjects` of this recipe, or else of the features, with names hashed (`without_names`). None if the
        data set marks them."""
        from action_llm_recipes.common.held_out_subjects import without_names

        if self.held_out_subjects:
            return without_names(self.held_out_subjects)
        return ((self.features_record() or {}).get("split_evidence") or {}).get("held_out_subjects")

    def protocol(self) -> str:
        """The data set and protocol of the recordings, also of those that features were extracted from; several data sets as
        a `joined_title`."""
        if isinstance(self.dataset, list):
            return joined_title(titles_of(self.dataset, self.data_dir))
        if self.dataset != "features":
            return self.dataset
        return required(Path(self.data_dir, RECORD), self.features_record(), "dataset", str)

    def features_record(self, name: str = RECORD) -> dict | None:
        """The "record.json" or "identity.json" that `extract_features.py` wrote beside the features; None if the recipe reads
        recordings."""
        if self.dataset != "features":
            return None
        fields = {"record.json": ["dataset"], "identity.json": ["extractor", "backbone"]}[name]
        return read_written(self.data_dir, name, "extract_features.py", *fields)

    def about(self, dataset) -> dict:
        """What a model page says of the recordings: `description` (with the subjects of each split), `license`, `citation`,
        `homepage`, and whether they are `simulated`."""
        from action_llm_datasets.building import SIMULATED

        if self.dataset == "features":
            about = self.features_record().get("data", {})
        else:
            info = dataset["train"].info
            about = {name: getattr(info, name) for name in ("description", "license", "citation", "homepage")}
            about["simulated"] = info.description.count(SIMULATED) == len(self.folders)
        if self.held_out_subjects and about.get("description"):
            from action_llm_recipes.common.held_out_subjects import describe_held_out

            about = about | {"description": f"{about['description']} {describe_held_out(self.held_out_subjects)}"}
        return about

    def people(self, dataset) -> dict[str, str]:
        """`sample_id` → person; empty unless the data set names the person of every recording."""
        if self.dataset == "features":
            return read_people(self.data_dir)
        people = {}
        for rows in dataset.values():
            people |= dict(zip(rows["sample_id"], persons_of(rows), strict=True))
        return people if all(people.values()) else {}

    def identity(self, dataset) -> dict:
        """Fingerprints of the recordings and features, for `RunFolder.check_identity`."""
        identity = {"recordings": recordings_fingerprint(dataset)}
        if self.held_out_subjects:
            identity["held_out_subjects"] = self.held_out_subjects
        if self.dataset == "features":
            identity["features"] = self.features_record("identity.json")
        return identity


def unreadable_files(dataset) -> list[dict]:
    """`file` and `reason` of each file that could not be read when the data set was built, and has no row in it."""
    from action_llm_datasets.names import REPORT_NAME

    folders = {Path(file["filename"]).parent for rows in dataset.values() for file in rows.cache_files}
    reports = [folder / REPORT_NAME for folder in sorted(folders) if (folder / REPORT_NAME).is_file()]
    return [
        {"file": entry["file"], "reason": entry["reason"]}
        for report in reports
        for entry in required(report, read_json_object(report), "files", list)
        if entry["kind"] == "unreadable"
    ]


def without_held_out(train, hold_out: bool):
    """
    The training split; with `hold_out`, without the recordings of the held-out training subjects.

    Raises:
        ValueError: with `hold_out`, if no recording is held out, or all are.
    """
    if not hold_out:
        return train
    kept = [index for index, held in enumerate(train["held_out"]) if not held]
    if not 0 < len(kept) < len(train):
        raise ValueError(
            f"--hold_out true: of {len(train)} training recordings {len(train) - len(kept)} are held out, expected some but "
            "not all. Choose them with --held_out_subjects, or in a folder with --validation."
        )
    return train.select(kept)


def held_out_rows(train):
    """The rows of the training split that belong to the held-out training subjects."""
    return train.select([index for index, held in enumerate(train["held_out"]) if held])
