"""The training stages behind a model, by its record, and what their data allows: held-out evaluation, unseen classes."""

from pathlib import Path

from action_llm.model_files import as_written
from action_llm_recipes.common.records import read_record


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

    for stage, part in stages_of(record).items():
        other = part.get("dataset", dataset)
        same_builder = other in PROTOCOLS and dataset in PROTOCOLS and PROTOCOLS[other][0] is PROTOCOLS[dataset][0]
        if same_builder and protocol(other) != protocol(dataset):
            raise ValueError(
                f"the {stage} was trained on {other}: its training recordings may be test recordings of {dataset}."
            )


def stages_of(record: dict) -> dict[str, dict]:
    """The records of all stages of training; empty where there is none.

    A visual encoder and an LVLM are stages where they were trained on videos of the data set (`pretraining/backbone.py`,
    `pretraining/small_lvlm.py`).
    """
    sentences = record.get("sentences") or {}
    tokenizer = sentences.get("tokenizer") or {}
    stages = {}

    def add_encoder(name: str, features: dict | None):
        trained = (features or {}).get("backbone_training")
        if trained is not None:
            stages[name] = trained

    add_encoder("visual encoder", tokenizer.get("features"))
    add_encoder("vision tower", tokenizer.get("target_features"))
    lvlm = record.get("llm_training") or {}
    if lvlm.get("stage") == "pretrain_small_lvlm":
        add_encoder("vision tower of the small LVLM", lvlm.get("features"))
        stages["small LVLM"] = lvlm
    return stages | {"action model": tokenizer, "language model": record}


def check_held_out(record: dict):
    """Raises `ValueError` unless all stages left the held-out training subjects out."""
    for stage, part in stages_of(record).items():
        if not part.get("hold_out"):
            raise ValueError(
                f"the {stage} was trained on the held-out subjects, or has no record: train all stages with --hold_out true."
            )


def check_unseen(record: dict, class_names: list[str]):
    """Raises `ValueError` unless the records of all stages of training say that none of the classes was in them.

    The text of `pretraining/small_lm.py` counts as a stage. What a language model from elsewhere has read does not: that it may
    know the names is the point of LLM-AR, Table 8.
    """
    for stage, part in ({"action sentences": record.get("sentences") or {}} | stages_of(record)).items():
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
