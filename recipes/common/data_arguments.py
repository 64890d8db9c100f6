"""Which recordings a recipe reads."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm.model_files import read_json_object
from action_llm_recipes.common.fingerprints import recordings_fingerprint
from action_llm_recipes.common.people import read_people
from action_llm_recipes.common.records import RECORD, read_written, required
from action_llm_recipes.common.written_folders import check_written_folder

logger = logging.getLogger(__name__)

# What a data set can hold, and the column that tells.
KINDS = {"skeletons": "keypoints", "videos": "video", "features": "features"}


@dataclass
class DataArguments:
    """The data set, its protocol, and where it lies on disk."""

    dataset: str = field(
        metadata={"help": "data set and protocol: ntu60-xsub, ntu120-xset, utd-mhad, simulated-xsub, …; or features"}
    )
    data_dir: str = field(metadata={"help": "folder of the recordings as they were downloaded (or simulated)"})
    cache_dir: str | None = field(default=None, metadata={"help": "where prepared data is kept"})
    num_proc: int | None = field(default=None, metadata={"help": "processes that read the recordings"})
    accept_doubts: bool = field(
        default=False, metadata={"help": "go on where recordings cannot be right (joint order, axes, units)"}
    )
    held_out_subjects: list[str] | None = field(
        default=None,
        metadata={
            "help": "training subjects that are held out, in place of those that the data set marks; by each in turn, settings "
            "can be chosen"
        },
    )

    def __post_init__(self):
        from action_llm_datasets.names import check_protocol

        if self.held_out_subjects is not None:
            self.held_out_subjects = sorted(set(map(str, self.held_out_subjects)))

        if self.dataset != "features":
            check_protocol(self.dataset)
            if not Path(self.data_dir).exists():
                raise ValueError(f"there is no folder {self.data_dir}: --data_dir is that of the recordings.")
        else:
            check_written_folder(self.data_dir, "extract_features.py")

    def load(self, *kinds: str):
        """`DatasetDict` with the splits `train` and `test`.

        Args:
            kinds (`str`): what the recipe reads, "skeletons" where nothing is said: those, "videos", or "features" of
                videos (`extract_features.py`).

        Raises:
            `ValueError`: the data set holds something else, or a subject that is to be held out is no training subject.
        """
        from action_llm_datasets.load import load_action_dataset
        from action_llm_recipes.common.action_features import load_features

        if self.dataset == "features":
            dataset = load_features(self.data_dir)
        else:
            accepted = {"accept_doubts": True} if self.accept_doubts else {}
            dataset = load_action_dataset(
                self.dataset, self.data_dir, cache_dir=self.cache_dir, num_proc=self.num_proc, **accepted
            )
        kinds = kinds or ("skeletons",)
        held = [name for name, column in KINDS.items() if all(column in r.features for r in dataset.values())]
        if not set(kinds) & set(held):
            raise ValueError(f"{self.dataset} holds {' and '.join(held)}: this recipe reads {' or '.join(kinds)}.")
        if self.held_out_subjects:
            from action_llm_recipes.common.held_out_subjects import hold_out_subjects

            dataset = hold_out_subjects(dataset, self.people({"train": dataset["train"]}), self.held_out_subjects)
        return dataset

    def chosen_subjects(self) -> list[str] | None:
        """The subjects that are held out in place of those that the data set marks, without names; None where its own are."""
        from action_llm_recipes.common.held_out_subjects import without_names

        if self.held_out_subjects:
            return without_names(self.held_out_subjects)
        return ((self.features_record() or {}).get("split_evidence") or {}).get("held_out_subjects")

    def protocol(self) -> str:
        """The data set that recordings are of, also where features of them are read."""
        if self.dataset != "features":
            return self.dataset
        return required(Path(self.data_dir, RECORD), self.features_record(), "dataset", str)

    def features_record(self, name: str = RECORD) -> dict | None:
        """What `extract_features.py` says of the features, where those are what is read; None of other data."""
        if self.dataset != "features":
            return None
        fields = {"record.json": ["dataset"], "identity.json": ["extractor", "backbone"]}[name]
        return read_written(self.data_dir, name, "extract_features.py", *fields)

    def about(self, dataset) -> dict:
        """What a page says of these recordings: what they are and who is in which split, their terms, whom to cite."""
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
        """`sample_id` → who was recorded; empty where the data set does not say it for every recording."""
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
        """What tells these recordings, and these features of them, from others; for `RunFolder.check_identity`."""
        found = {"recordings": recordings_fingerprint(dataset)}
        if self.held_out_subjects:
            found["held_out_subjects"] = self.held_out_subjects
        if self.dataset == "features":
            found["features"] = self.features_record("identity.json")
        return found


def unreadable_files(dataset) -> list[dict]:
    """`file` and `reason` of what the builder of a data set could not read, so that there is no row of it."""
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
    """The training split; with `hold_out`, without the recordings of the held-out training subjects.

    Raises:
        ValueError: with `hold_out`, there are none that could be left out, or none that would be left.
    """
    if not hold_out:
        return train
    kept = [index for index, held in enumerate(train["held_out"]) if not held]
    if not 0 < len(kept) < len(train):
        raise ValueError(
            f"--hold_out true: of {len(train)} training recordings {len(train) - len(kept)} are held out. There must be some, "
            "and others: in a folder, --validation marks them."
        )
    return train.select(kept)
