"""The recordings that a recipe reads."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm.model_files import read_json_object
from action_llm_recipes.common.fingerprints import recordings_fingerprint
from action_llm_recipes.common.people import read_people
from action_llm_recipes.common.records import RECORD, read_written, required
from action_llm_recipes.common.written_folders import check_written_folder

logger = logging.getLogger(__name__)

# Modality → the column that data sets of this modality have.
MODALITIES = {"skeletons": "keypoints", "videos": "video", "features": "features"}


@dataclass
class DataArguments:
    """The data set, its protocol, and its folder."""

    dataset: str = field(
        metadata={
            "help": "data set and protocol: ntu60-xsub, ntu120-xset, utd-mhad, simulated-xsub, …; or features, for "
            "a folder that extract_features.py wrote"
        }
    )
    data_dir: str = field(metadata={"help": "folder of the recordings as downloaded or simulated, or of the features"})
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

    def __post_init__(self):
        from action_llm_datasets.names import check_protocol

        if self.held_out_subjects is not None:
            self.held_out_subjects = sorted(set(map(str, self.held_out_subjects)))
        if self.pose is not None:
            if self.dataset != "folder-video":
                raise ValueError(
                    f"--pose reads the videos of --dataset folder-video, not of {self.dataset}: `action-llm-pose` estimates "
                    "skeletons of any folder of videos."
                )
            if self.pose_dir is None:
                videos = Path(os.path.abspath(self.data_dir))  # `.` has no name
                self.pose_dir = str(videos.with_name(f"{videos.name}_{self.pose}"))
        for name in ("pose_model", "pose_dir", "mirrored"):
            if self.pose is None and getattr(self, name) is not None:
                raise ValueError(f"--{name} is a setting of the estimated skeletons: set --pose, too.")
        if self.dataset != "features":
            check_protocol(self.dataset)
            if not Path(self.data_dir).exists():
                raise ValueError(
                    f"there is no folder {self.data_dir}: --data_dir must be the folder of the recordings."
                )
        else:
            check_written_folder(self.data_dir, "extract_features.py")

    @property
    def is_video(self) -> bool:
        """Whether the recipe reads videos; with `pose`, it reads their skeletons."""
        return "-video" in self.dataset and self.pose is None

    def load(self, *modalities: str):
        """
        Loads the data set: a `DatasetDict` with the splits `train` and `test`.

        Args:
            *modalities: that the recipe reads: "skeletons" (the default), "videos", or "features" of videos.

        Raises:
            ValueError: if the data set has none of these modalities, or `held_out_subjects` are not training subjects.
        """
        from action_llm_datasets.load import load_action_dataset
        from action_llm_recipes.common.action_features import load_features

        if self.dataset == "features":
            dataset = load_features(self.data_dir)
        else:
            name, folder = self.dataset, self.data_dir
            if self.pose is not None:
                name, folder = "folder", self._estimated_poses()
            accepted = {"accept_doubts": True} if self.accept_doubts else {}
            dataset = load_action_dataset(name, folder, cache_dir=self.cache_dir, num_proc=self.num_proc, **accepted)
        modalities = modalities or ("skeletons",)
        available = [
            name for name, column in MODALITIES.items() if all(column in rows.features for rows in dataset.values())
        ]
        if not set(modalities) & set(available):
            raise ValueError(
                f"{self.dataset} holds {' and '.join(available)}, but this recipe reads {' or '.join(modalities)}."
            )
        if self.held_out_subjects:
            from action_llm_recipes.common.held_out_subjects import hold_out_subjects

            dataset = hold_out_subjects(dataset, self.people({"train": dataset["train"]}), self.held_out_subjects)
        return dataset

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
        """The data set and protocol of the recordings, also of those that features were extracted from."""
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
            about["simulated"] = info.description.startswith(SIMULATED)
        if self.held_out_subjects and about.get("description"):
            from action_llm_recipes.common.held_out_subjects import describe_held_out

            about = about | {"description": f"{about['description']} {describe_held_out(self.held_out_subjects)}"}
        return about

    def people(self, dataset) -> dict[str, str]:
        """`sample_id` → person; empty unless the data set names the person of every recording."""
        if self.dataset == "features":
            return read_people(self.data_dir)
        from action_llm_datasets.names import PERSON_COLUMNS

        people = {}
        for rows in dataset.values():
            column = next((name for name in PERSON_COLUMNS if name in rows.features), None)
            if column is None:
                return {}
            people |= dict(zip(rows["sample_id"], map(str, rows[column]), strict=True))
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
