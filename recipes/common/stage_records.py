"""The stages that a model was trained in, by its record, and the evaluations that their training data permits."""

import itertools
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from action_llm.model_files import as_written
from action_llm_recipes.common.joined_data_sets import titles_in
from action_llm_recipes.common.records import RECORDS_WITHIN, read_record

# Stages that are not trained on recordings. A small language model is trained on text.
UNTRAINED = ("features", "action sentences", "small language model")


def check_dataset(record: dict, dataset: str):
    """
    Checks that a model may be evaluated on sentences of a data set: test recordings of one protocol can be training recordings
    of another.

    Args:
        record: training record of the model.
        dataset: data set and protocol of the sentences, such as "ntu60-xsub".

    Raises:
        ValueError: if the model was trained on sentences of another data set or protocol, or an earlier stage was trained on
            another protocol of this data set.
    """
    from action_llm_datasets.load import PROTOCOLS

    trained_on = record.get("sentences", {}).get("dataset", dataset)
    if trained_on != dataset:
        raise ValueError(
            f"the model was trained on {as_written(trained_on)}, but the sentences are of {as_written(dataset)}."
        )

    def protocol(name: str) -> str:
        return name.removesuffix("-with-skeletons")

    for stage, part in training_stages(record).items():
        for other, own in itertools.product(titles_in(part.get("dataset", dataset)), titles_in(dataset)):
            same_builder = other in PROTOCOLS and own in PROTOCOLS and PROTOCOLS[other][0] is PROTOCOLS[own][0]
            if same_builder and protocol(other) != protocol(own):
                raise ValueError(
                    f"the {stage} was trained on {other}: its training recordings may be test recordings of {own}."
                )


class Stage(NamedTuple):
    """
    A stage that a model was trained in.

    Attributes:
        name: what the stage made. A "vision tower" is the visual encoder of the features that VTEM predicts (VT-LVLM-AR).
        record: content of its `record.json`.
    """

    name: str
    record: dict


def stages_behind(record: dict) -> list[Stage]:
    """All stages in a record, in the order in which they were run. The last stage is that of the record itself."""
    stages = []

    def visit(record: dict, fields: tuple[str, ...]):
        for name in RECORDS_WITHIN:
            if record.get(name):
                visit(record[name], (*fields, name))
        stages.append(Stage(_name_of_stage(record, fields), record))

    visit(record, ())
    return stages


def _name_of_stage(record: dict, fields: tuple[str, ...]) -> str:
    """The name of a stage, from its record and the path of fields to that record."""
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
    """Name → record of the stages that were trained on recordings. An action model without a record has an empty record."""
    stages = {stage.name: stage.record for stage in stages_behind(record) if stage.name not in UNTRAINED}
    stages.setdefault("action model", {})
    return stages


def check_held_out(record: dict, unchecked: Collection[str] | None = None):
    """
    Checks that the records of stages say that the held-out training subjects were left out.

    Args:
        record: training record of a model.
        unchecked: names of the stages to check; by default all of them.

    Raises:
        ValueError: if a stage was trained on the held-out subjects, or its record does not say.
    """
    for stage, part in training_stages(record).items():
        if (unchecked is None or stage in unchecked) and not part.get("hold_out"):
            raise ValueError(
                f"the {stage} was trained on the held-out subjects, or has no record: train all stages with --hold_out true."
            )


def check_unseen(record: dict, class_names: list[str]):
    """
    Checks that no stage was trained on any of some classes, by the records of all stages. Names are compared without case,
    spaces and punctuation.

    The text of `pretraining/small_lm.py` counts as a stage. Pretrained language models from elsewhere do not: LLM-AR, Table 8,
    relies on their knowledge of the names.

    Raises:
        ValueError: if a stage was trained on a class, or does not say which classes it was trained on.
    """
    for stage, part in ({"action sentences": record.get("sentences") or {}} | training_stages(record)).items():
        trained = part.get("training_classes")
        if trained is None:
            raise ValueError(
                f"the model has no record of the classes that its {stage} was trained on, so it is not known which are unseen."
            )
        known = {letters_of(name) for name in trained}
        if seen := sorted(name for name in class_names if letters_of(name) in known):
            raise ValueError(f"not unseen: the {stage} was trained on {', '.join(seen)}.")
    check_unseen_text(record.get("llm_training"), class_names)


def check_unseen_text(llm_training: dict | None, class_names: list[str]):
    """
    Checks that the training text of a small language model is not about any of some classes.

    Args:
        llm_training: record of `pretraining/small_lm.py` or `pretraining/small_lvlm.py`; None for other language models.
        class_names: classes of the test split.

    Raises:
        ValueError: if the text is about a class. The text of versions that left out passages by class name, not by action, is.
    """
    small_lm = llm_training or {}
    small_lm = small_lm.get("llm_training", small_lm)
    if not small_lm:
        return
    left_out = {letters_of(name) for name in small_lm.get("classes_without_text", ())}
    if read := sorted(name for name in class_names if letters_of(name) not in left_out):
        raise ValueError(
            f"not unseen: the text of the small language model is about {', '.join(read)}. Train it on text without these "
            "classes (pretraining/small_lm.py --unseen_of)."
        )


def letters_of(name: str) -> str:
    """A class name in lower case, without spaces and punctuation: "Take off  head-phone" → "takeoffheadphone"."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(character for character in plain if unicodedata.category(character)[0] not in "ZPC") or plain


def llm_training(llm_name_or_path: str, revision: str | None = None) -> dict | None:
    """The record of a language model that `pretraining/small_lm.py` or `small_lvlm.py` trained, in a folder or on the Hub; None
    for other models, such as GGUF files."""
    from action_llm.llm_references import is_gguf

    if is_gguf(llm_name_or_path):
        return None
    return pretraining_record(llm_name_or_path, revision) or None


def training_record(model: str) -> dict:
    """The training record beside a model, in a folder or on the Hub; empty if there is none."""
    return _record_beside(model)


def pretraining_record(model: str, revision: str | None = None) -> dict:
    """The record beside a model that others may have trained. It is empty if the Hub cannot be reached, because cached models
    must load offline."""
    return _record_beside(
        model,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _record_beside(model: str, **settings) -> dict:
    from transformers.utils.hub import cached_file

    path = cached_file(model, "record.json", _raise_exceptions_for_missing_entries=False, **settings)
    return {} if path is None else read_record(Path(path))


def differ_by_seed_alone(first: dict, second: dict) -> bool:
    """Whether two records are of the same data and settings, but for the seed."""
    return _without_outcomes(first) == _without_outcomes(second)


# Fields that differ between two seeds of the same run.
_OUTCOMES = {
    "seed",
    "seconds",
    "cost",
    "final_loss",
    "metrics",
    "hardware",
    "libraries",
    "splits",
    "held_out_perplexity",
    "samples",
    "version",
}


def _without_outcomes(part):
    if isinstance(part, dict):
        return {name: _without_outcomes(value) for name, value in part.items() if name not in _OUTCOMES}
    return part
