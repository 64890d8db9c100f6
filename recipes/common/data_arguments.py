"""Which recordings a recipe reads."""

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from action_llm.model_files import ModelFileError, as_written, read_field, read_json_object

logger = logging.getLogger(__name__)

# What a data set can hold, and the column that tells.
KINDS = {"skeletons": "keypoints", "videos": "video", "features": "features"}
# Beside features and sentences: sample_id → person.
PEOPLE = "people.json"
# Beside whatever a recipe wrote to its end.
RECORD = "record.json"
# Records of the stages before, and the types of what is read from one.
RECORDS_WITHIN = (
    "backbone_training",
    "features",
    "target_features",
    "llm_training",
    "tokenizer",
    "sentences",
    "model",
)
MAX_STAGES = 16
RECORD_FIELDS = {
    **dict.fromkeys(("cost", "data", "libraries", "metrics", "settings", "splits"), (dict,)),
    **dict.fromkeys(("dataset", "evaluated_on", "hardware", "llm", "method", "stage", "version"), (str,)),
    **dict.fromkeys(("examples", "recordings", "seed"), (int,)),
    "hold_out": (bool,),
    "seconds": (int, float),
    "training_classes": (list,),
}


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

    def __post_init__(self):
        from action_llm_datasets.names import check_protocol

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
            `ValueError`: the data set holds something else.
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
        return dataset

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
            return self.features_record().get("data", {})
        info = dataset["train"].info
        said = {name: getattr(info, name) for name in ("description", "license", "citation", "homepage")}
        return said | {"simulated": info.description.startswith(SIMULATED)}

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
        if self.dataset == "features":
            found["features"] = self.features_record("identity.json")
        return found


def read_record(path: Path) -> dict:
    """What a run says of itself, `record.json`.

    Raises:
        ModelFileError: The file, or a field that is read from it, is of another type.
    """
    record = read_json_object(path)
    _check_record(path, record)
    return record


def _check_record(path: Path, record: dict, within: str = ""):
    for name, types in RECORD_FIELDS.items():
        read_field(path, record, within + name, *types)
    for class_name in read_field(path, record, f"{within}training_classes", list) or ():
        if not isinstance(class_name, str):
            raise ModelFileError(path, f"{within}training_classes", as_written(class_name), "names of classes")
    for name in RECORDS_WITHIN if within.count(".") < MAX_STAGES else ():
        if read_field(path, record, within + name, dict) is not None:
            _check_record(path, record, f"{within}{name}.")


def required(path: Path, record: dict, field: str, *types: type):
    """A field that a record must have; `ModelFileError` where it has none."""
    value = read_field(path, record, field, *types)
    if value is None:
        raise ModelFileError(path, field, "none", "what a finished run writes there: run its recipe again")
    return value


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


def write_people(folder: Path, people: dict[str, str]):
    """Writes who was recorded beside features or sentences, for the accuracy of each person."""
    from action_llm_datasets.atomic_files import write_atomically

    write_atomically(folder / PEOPLE, json.dumps(people, indent=0, ensure_ascii=False) + "\n")


def read_people(folder: str | Path) -> dict[str, str]:
    """`sample_id` → who was recorded; empty where that is not known, or an older version wrote the folder."""
    path = Path(folder, PEOPLE)
    people = read_json_object(path) if path.is_file() else {}
    for sample_id, person in people.items():
        if not isinstance(person, str):
            raise ModelFileError(path, sample_id, as_written(person), "who was recorded, as a text")
    return people


# A name on the Hub; anything else that is no folder here is the path of one that is missing.
REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_model_folder(path: str):
    """Raises `ValueError` for the folder of a run where the model in it is meant, and for a folder that is not there."""
    if Path(path, "model", "config.json").is_file() and not Path(path, "config.json").is_file():
        raise ValueError(f"{path} is the folder of a run: its model is {Path(path, 'model')}.")
    if not Path(path).is_dir() and not REPOSITORY.fullmatch(path):
        raise ValueError(f"there is no folder {path}, and it is no name of a repository on the Hub (OWNER/NAME).")
    if not Path(path).is_dir() and "/" in path and Path(path).parent.is_dir():
        logger.warning("there is no folder %s: it is looked for as a repository on the Hub.", path)


def check_recogniser(path: str):
    """Raises `ValueError` for what `check_model_folder` refuses, and for the folder of another model than a recogniser."""
    check_model_folder(path)
    config = Path(path, "config.json")
    if config.is_file():
        model_type = read_json_object(config).get("model_type")
        if model_type != "action_llm":
            raise ValueError(
                f"{path} is no recogniser, but a model of the type {model_type}: sft.py writes recognisers."
            )
    elif Path(path).is_dir():
        raise ValueError(f"{path} is no recogniser: it has no config.json. sft.py writes recognisers.")


def check_written_folder(path: str, recipe: str):
    """Raises `FileNotFoundError` for a folder that a recipe has not written, or not to its end."""
    if not Path(path).is_dir():
        raise FileNotFoundError(f"there is no folder {path}: {recipe} writes it (--output_dir {path}).")
    if not Path(path, "record.json").is_file():
        raise FileNotFoundError(
            f"{path} holds nothing that {recipe} has finished (no record.json): run {recipe} with --output_dir {path}."
        )


def read_written(folder: str | Path, name: str, recipe: str, *fields: str) -> dict:
    """A JSON object that a recipe wrote beside its result.

    Args:
        folder, name: of the file.
        recipe: that wrote it.
        fields: that the file must have.

    Raises:
        `ValueError`: it is damaged, or lacks a field; says what to do.
    """
    path = Path(folder, name)
    try:
        content = (read_record if name == RECORD else read_json_object)(path)
        for field_name in fields:
            if field_name not in content:
                raise ModelFileError(path, field_name, "nothing", "a value")
    except ModelFileError as error:
        raise ValueError(f"{error}: delete {folder}, and run {recipe} again.") from error
    return content


def recordings_fingerprint(dataset) -> str:
    """Changes with the recordings of any split: their names, classes and lengths, and which are held out."""
    import hashlib

    digest = hashlib.blake2b(digest_size=8)
    for split, rows in sorted(dataset.items()):
        digest.update(repr((split, rows.features["label"].names)).encode())
        for name in ("sample_id", "label", "held_out", "shape", "num_frames", "version"):
            if name in rows.features:
                digest.update(repr(list(rows[name])).encode())
    return digest.hexdigest()


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
