"""The training stages behind a model, by its record, and what their data allows: held-out evaluation, unseen classes."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from action_llm.model_files import as_written
from action_llm_recipes.common.records import RECORDS_WITHIN, read_record

# Stages that learn nothing from recordings: a small language model reads text.
UNTRAINED = ("features", "action sentences", "small language model")


def check_dataset(record: dict, dataset: str):
    """Raises `ValueError` for sentences of another protocol: its test recordings may be the model's training recordings.

    So may they be those of another stage: a visual encoder, or an action model, of another protocol of the same data set.
    """
    from action_llm_datasets.load import PROTOCOLS

    trained_on = record.get("sentences", {}).get("dataset", dataset)
    if trained_on != dataset:
        raise ValueError(
            f"the model was trained on {as_written(trained_on)}, the sentences are of {as_written(dataset)}."
        )

    def protocol(name: str) -> str:
        return name.removesuffix("-with-skeletons")

    for stage, part in training_stages(record).items():
        other = part.get("dataset", dataset)
        same_builder = other in PROTOCOLS and dataset in PROTOCOLS and PROTOCOLS[other][0] is PROTOCOLS[dataset][0]
        if same_builder and protocol(other) != protocol(dataset):
            raise ValueError(
                f"the {stage} was trained on {other}: its training recordings may be test recordings of {dataset}."
            )


class Stage(NamedTuple):
    """A stage behind a model.

    Attributes:
        name: what it made; "vision tower" is the visual encoder of the features that codes are learned for (VT-LVLM-AR).
        record: its `record.json`.
    """

    name: str
    record: dict


def stages_behind(record: dict) -> list[Stage]:
    """All stages that a record knows of, in the order in which they were run; the last is the run's own."""
    stages = []

    def visit(record: dict, fields: tuple[str, ...]):
        for name in RECORDS_WITHIN:
            if record.get(name):
                visit(record[name], (*fields, name))
        stages.append(Stage(_name_of_stage(record, fields), record))

    visit(record, ())
    return stages


def _name_of_stage(record: dict, fields: tuple[str, ...]) -> str:
    """The name of a stage, by its record and the fields that led to it."""
    field = fields[-1] if fields else ""
    if field == "backbone_training":
        if "llm_training" in fields:
            return "vision tower of the small LVLM"
        return "vision tower" if "target_features" in fields else "visual encoder"
    if field == "llm_training":
        return "small LVLM" if record.get("stage") == "pretrain_small_lvlm" else "small language model"
    names = {"tokenizer": "action model", "sentences": "action sentences", "model": "language model"}
    return names.get(field, "features" if field else "language model")


def training_stages(record: dict) -> dict[str, dict]:
    """Name → record of the stages that were trained on recordings; an action model without a record has an empty one."""
    stages = {stage.name: stage.record for stage in stages_behind(record) if stage.name not in UNTRAINED}
    stages.setdefault("action model", {})
    return stages


def check_held_out(record: dict, unchecked: Collection[str] | None = None):
    """Raises `ValueError` unless the records of all stages, or of those that are `unchecked` by their recordings, say that they
    left the held-out training subjects out."""
    for stage, part in training_stages(record).items():
        if (unchecked is None or stage in unchecked) and not part.get("hold_out"):
            raise ValueError(
                f"the {stage} was trained on the held-out subjects, or has no record: train all stages with --hold_out true."
            )


def check_unseen(record: dict, class_names: list[str]):
    """Raises `ValueError` unless the records of all stages of training say that none of the classes was in them.

    The text of `pretraining/small_lm.py` counts as a stage. What a language model from elsewhere has read does not: that it may
    know the names is the point of LLM-AR, Table 8.
    """
    for stage, part in ({"action sentences": record.get("sentences") or {}} | training_stages(record)).items():
        trained = part.get("training_classes")
        if trained is None:
            raise ValueError(f"the model has no record of the classes that its {stage} was trained on.")
        if seen := sorted(set(class_names) & set(trained)):
            raise ValueError(f"not unseen: the {stage} was trained on {', '.join(seen)}.")
    check_unseen_text(record.get("llm_training"), class_names)


def check_unseen_text(llm_training: dict | None, class_names: list[str]):
    """Raises `ValueError` for a small language model whose text names one of the classes.

    Args:
        llm_training: what `pretraining/small_lm.py` or `pretraining/small_lvlm.py` recorded of it; None of another one.
        class_names: of the test.
    """
    small_lm = llm_training or {}
    small_lm = small_lm.get("llm_training", small_lm)
    if small_lm and (read := sorted(set(class_names) - set(small_lm.get("left_out_classes", ())))):
        raise ValueError(
            f"not unseen: the text of the small language model names {', '.join(read)} (pretraining/small_lm.py --unseen_of)."
        )


def llm_training(llm_name_or_path: str) -> dict | None:
    """What `pretraining/small_lm.py` recorded of the language model, if that is where it comes from."""
    path = Path(llm_name_or_path, "record.json")
    return read_record(path) if path.is_file() else None


def training_record(model: str) -> dict:
    """The record of training that lies beside a model, or nothing."""
    from transformers.utils.hub import cached_file

    path = cached_file(model, "record.json", _raise_exceptions_for_missing_entries=False)
    return {} if path is None else read_record(Path(path))
