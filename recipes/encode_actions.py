"""
Encode recordings as action sentences, once, before the language model is trained.

```bash
accelerate launch recipes/encode_actions.py \\
    --tokenizer runs/utd_mhad/tokenizer/model \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton \\
    --encodings 8 \\
    --output_dir runs/utd_mhad/sentences
```

With an action model for videos, set `--dataset features` and `--data_dir` to the output of `extract_features.py`; each version
of a video is an encoding. Runs resume automatically with the missing shards, and `cluster.py` shares the shards among machines.
Recordings that cannot be read are skipped and listed in `skipped.json`. `tokens.md` (and `tokens.json`, with pictures) has
statistics of the sentences: words per recording, codes used, entropy, perplexity (LVLM-VAR, Fig. 1).
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm.recording_versions import stable_seed, version_arguments
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.fingerprints import weights_fingerprint
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.padding import collate
from action_llm_recipes.common.people import write_people
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.stage_records import training_record
from action_llm_recipes.common.tasks import TaskArguments
from action_llm_recipes.common.written_folders import check_model_folder

logger = logging.getLogger(__name__)


@dataclass
class EncodingArguments:
    """The action model, the number of encodings, and the output."""

    tokenizer: str = field(metadata={"help": "folder of the action model (OUTPUT_DIR/model of train_tokenizer.py)"})
    output_dir: str = field(metadata={"help": "output folder for the sentences"})
    encodings: int = field(
        default=1,
        metadata={"help": "number of encodings per training recording: the first unaugmented, the others augmented"},
    )
    test_encodings: int = field(
        default=1, metadata={"help": "number of encodings per test recording, for evaluate_classifier.py --encodings"}
    )
    latents: bool = field(
        default=False, metadata={"help": "also store the continuous latents (LLM-AR, Table 5, without discretisation)"}
    )
    explanations: str | None = field(
        default=None,
        metadata={
            "help": "explanations for sft.py to learn: narrator (skeletons only), or a JSON Lines file with the fields "
            "sample_id and explanation"
        },
    )
    batch_size: int = field(default=64, metadata={"help": "number of recordings in a batch"})
    seed: int = field(default=0, metadata={"help": "random seed of the augmentation"})

    def __post_init__(self):
        check_model_folder(self.tokenizer)


ARGUMENTS = (EncodingArguments, DataArguments)


@writes_output_dir
def main(arguments: EncodingArguments, data: DataArguments, task: TaskArguments | None = None):
    """Writes the sentences of all splits, their record, and a report about their tokens; one of several tasks writes its share
    of the sentences only."""
    import torch
    from accelerate import PartialState

    from action_llm_recipes.common.action_sentences import write_codebook
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.shards import shards_of_splits
    from action_llm_recipes.common.split_evidence import LANGUAGE_MODEL, SplitEvidence

    task = task or TaskArguments()
    # Without a GPU, accelerate finds the other processes of a launch only with cpu=True.
    state = PartialState(cpu=not torch.cuda.is_available())
    run = RunFolder(arguments.output_dir)
    model, extractor, dataset = load(arguments, data, state.device)
    describe = explanations(arguments.explanations, extractor)
    evidence = SplitEvidence.of_data(data, dataset, [arguments.tokenizer]) if task.is_whole else None
    if state.is_main_process:
        run.check_identity(_identity(arguments, data, dataset, model, extractor))
    if state.is_main_process and task.is_whole:
        sentences = {"tokenizer": training_record(arguments.tokenizer)}
        evidence.doubt_test({"sentences": sentences}, untrained=(LANGUAGE_MODEL,))
        # With the extractor beside the sentences, other recordings can be read in the same way.
        extractor.save_pretrained(run.path)
        if model.config.quantize:
            write_codebook(run.path, model.codebook)
    state.wait_for_everyone()

    shards = shards_of_splits(run.path, dataset)
    for split, rows in dataset.items():
        missing = shards[split].missing(*task.share(state))
        write_shards(missing, split, rows, model, extractor, arguments, describe)
    state.wait_for_everyone()
    if not task.is_whole:
        task.log(shards.values())
    elif state.is_main_process:
        finish(run, arguments, data, dataset, model, shards, evidence)


def write_shards(missing: dict, split: str, rows, model, extractor, arguments: EncodingArguments, describe):
    """Writes the missing shards of a split; `missing` has the path of each and the indices of its rows, and `describe` is of
    `explanations`."""
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_models import merges_runs
    from action_llm_recipes.common.action_sentences import sentence_features
    from action_llm_recipes.common.shards import write_shard

    columns = sentence_features(
        rows.features["label"],
        model.config.num_action_tokens,
        arguments.latents,
        describe is not None,
        merges_runs(model.config),
        codes_per_word(model.config),
    )
    encodings = arguments.encodings if split == "train" else arguments.test_encodings
    for path, indices in progress(list(missing.items()), f"sentences of {split}", "shards"):
        chosen = rows.select(indices).with_format("numpy")
        content, skipped = encode(
            model, extractor, chosen, encodings, arguments.batch_size, arguments.seed, arguments.latents, describe
        )
        write_shard(path, content, columns, skipped=skipped)


def load(arguments: EncodingArguments, data: DataArguments, device) -> tuple:
    """Loads the action model, its feature extractor, and the recordings.

    Raises:
        ValueError: if arguments contradict each other, or do not fit the model or the recordings.
    """
    from transformers import AutoModel

    import action_llm  # noqa: F401  (registers its classes)
    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm.recording_versions import check_versions_differ
    from action_llm_recipes.common.action_models import check_features

    check_at_least_one(arguments, "encodings", "test_encodings", "batch_size")
    model = AutoModel.from_pretrained(arguments.tokenizer, trust_remote_code=False).eval().to(device)
    dataset = data.load("features" if model.main_input_name == "pixel_values" else "skeletons")
    if not (model.config.quantize or arguments.latents):
        raise ValueError(f"{arguments.tokenizer} has no codebook (quantize: false): set --latents true.")
    extractor = load_feature_extractor(arguments.tokenizer)
    check_features(data, model, extractor)
    if arguments.explanations == "narrator" and data.features_record() is not None:
        raise ValueError(
            "--explanations narrator needs joints, but the recordings are features of videos: give a file of explanations "
            "(pretraining/describe_videos.py writes one)."
        )
    check_versions(data, dataset, arguments)
    for name in ("encodings", "test_encodings"):
        check_versions_differ(extractor.to_dict(), getattr(arguments, name), f"--{name}")
    return model, extractor, dataset


def codes_per_word(config) -> int:
    """Number of tokens in a word, by the configuration of an action model; 1 without a codebook."""
    return config.num_codebooks if config.quantize else 1


def finish(run, arguments: EncodingArguments, data: DataArguments, dataset, model, shards: dict, evidence):
    """Writes the list of skipped recordings, the people recorded, the record, and the report about the tokens."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.action_sentences import load_action_sentences
    from action_llm_recipes.stages.token_report import write_token_report

    summary = {
        split: summarise(shards[split], rows, model.config, arguments.explanations is not None)
        for split, rows in dataset.items()
    }
    skipped = [{"split": split, **entry} for split in dataset for entry in shards[split].notes("skipped")]
    write_atomically(run.path / "skipped.json", json.dumps(skipped, indent=2, ensure_ascii=False) + "\n")
    write_people(run.path, data.people(dataset))
    if skipped:
        logger.warning(
            "%d recordings were skipped; %s lists them with the reasons", len(skipped), run.path / "skipped.json"
        )
    run.write_record(
        evidence,
        stage="encode_actions",
        dataset=data.protocol(),
        data=data.about(dataset),
        training_classes=dataset["train"].features["label"].names,
        encodings=arguments.encodings,
        test_encodings=arguments.test_encodings,
        splits=summary,
        tokenizer=training_record(arguments.tokenizer) or None,
    )
    counts = (
        f"{counts['sentences']:,} from {counts['recordings']:,} {split} recordings"
        for split, counts in summary.items()
    )
    run.log_finished("Sentences", *counts, f"{summary['train']['words_per_sentence']:.1f} words each")
    if model.config.quantize:
        write_token_report(
            run.path, load_action_sentences(run.path), model.config.num_action_tokens, model.config.num_codebooks
        )
        logger.info("  statistics: %s", run.path / "tokens.md")


def summarise(shards, rows, config, with_explanations: bool) -> dict:
    """The entry of a split in the record.

    Args:
        shards: the shards of the split (`SplitShards`).
        rows: the recordings.
        config: configuration of the action model.
        with_explanations: whether the sentences have explanations.

    Raises:
        ValueError: if all recordings were skipped, or there are none.
    """
    import torch

    from action_llm.language_priors import word_statistics

    skipped = shards.notes("skipped")
    counts, sentences = torch.zeros(config.num_action_tokens, dtype=torch.long), 0
    for path in shards.paths:
        tokens, num_sentences = _read_sentences(path)
        counts += torch.bincount(torch.from_numpy(tokens), minlength=len(counts))
        sentences += num_sentences
    if sentences == 0:
        raise ValueError(
            f"all recordings of {shards.split} were skipped; the first, {skipped[0]['sample_id']}: {skipped[0]['reason']}"
            if skipped
            else f"the data set has no recordings in {shards.split}."
        )
    return {
        "recordings": _number_of_recordings(rows),
        "skipped": len(skipped),
        "sentences": sentences,
        "words_per_sentence": round(counts.sum().item() / max(sentences * codes_per_word(config), 1), 2),
        **(word_statistics(counts, config.num_codebooks) if config.quantize else {}),
        **({"explained": sum(_explained(path) for path in shards.paths)} if with_explanations else {}),
    }


def explanations(source: str | None, extractor):
    """
    A function that returns the explanation of a version of a row, given the `version_arguments`; None without explanations.

    Args:
        source: "narrator", a JSON Lines file with the fields `sample_id` and `explanation`, or None.
        extractor: the feature extractor, whose versions the narrator describes.

    Raises:
        ValueError: if a line of the file has no such fields.
    """
    if source is None:
        return None
    if source == "narrator":
        from action_llm.motion_narration import narrate

        reading = extractor.to_dict()
        return lambda row, version: narrate(row, reading=reading, **version).text
    texts = {}
    for number, line in enumerate(Path(source).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            texts[entry["sample_id"]] = str(entry["explanation"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{source}, line {number}: expected an object with sample_id and explanation, found {line[:60]!r}"
            ) from error
    return lambda row, version: texts.get(row["sample_id"], "")


def encode(
    model, extractor, rows, encodings: int, batch_size: int, seed: int = 0, latents: bool = False, describe=None
) -> tuple[dict, list[dict]]:
    """
    Encodes recordings.

    Args:
        model, extractor: the action model and its feature extractor.
        rows (iterable of `dict`): the recordings, with NumPy arrays.
        encodings: number of encodings per recording.
        batch_size: number of recordings in a batch.
        seed: of the augmentation.
        latents: whether there is a column of the continuous latents.
        describe: returns the explanation of a version of a row (`explanations`).

    Returns:
        The columns of the sentences; and for each skipped recording, its `sample_id` and the `reason`.
    """
    from action_llm.feature_extraction_skeleton import SkeletonInputError
    from action_llm_recipes.common.action_models import merges_runs

    names = ["sample_id", "encoding", "label", "held_out", "action_ids", "start_times", "end_times"]
    names += ["latents"] * latents + ["explanation"] * (describe is not None)
    names += ["run_lengths"] * merges_runs(model.config)
    columns, skipped, pending = {name: [] for name in names}, [], []

    def flush():
        sentences = encode_features(model, [features for _, features in pending], batch_size, names)
        for (recording, _), sentence in zip(pending, sentences, strict=True):
            for name, values in columns.items():
                values.append({**recording, **sentence}[name])
        pending.clear()

    for row in rows:
        row = row | {"sample_id": str(row["sample_id"]), "label": int(row["label"]), "held_out": bool(row["held_out"])}
        recording = {name: row[name] for name in ("sample_id", "label", "held_out")}
        try:
            for encoding, features in versions_of(row, extractor, encodings, seed).items():
                sentence = {**recording, "encoding": encoding}
                if describe is not None:
                    sentence["explanation"] = describe(row, version_arguments(row["sample_id"], encoding, seed))
                pending.append((sentence, features))
        except SkeletonInputError as error:
            skipped.append({"sample_id": row["sample_id"], "reason": str(error)})
        if len(pending) >= 4 * batch_size:
            flush()
    flush()
    return columns, skipped


def versions_of(row: dict, extractor, encodings: int, seed: int) -> dict[int, dict]:
    """The features of each encoding of a recording: 0 is unaugmented, 1, 2, … are augmented.

    A row with stored features of a video is one version of it; a version beyond `encodings` gives no encoding.
    """
    from action_llm_recipes.common.padding import collate_features

    if "features" in row:
        return {int(row["version"]): collate_features([row])} if row["version"] < encodings else {}
    return {
        encoding: extractor(row, **version_arguments(row["sample_id"], encoding, seed), return_tensors="pt")
        for encoding in range(encodings)
    }


def encode_features(model, features: list[dict], batch_size: int, names: list[str]) -> list[dict]:
    """
    Encodes recordings in batches.

    Args:
        model: the action model.
        features: features of each recording.
        batch_size: number of recordings in a batch.
        names: names of the columns to return.

    Returns:
        For each recording, its values in the columns that come from the action model, without padding.
    """
    import torch

    # Batches of recordings with similar lengths need less padding.
    order = sorted(range(len(features)), key=lambda index: features[index]["input_features"].shape[1])
    sentences = [None] * len(features)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = collate([features[index] for index in indices])
        with torch.no_grad():
            output = model.encode(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        mask = output.attention_mask.bool()
        # Without a codebook there are no tokens; zeros keep the length of the sentence.
        ids = torch.zeros_like(output.attention_mask) if output.action_ids is None else output.action_ids
        outputs = {"action_ids": ids, "start_times": output.start_times, "end_times": output.end_times}
        outputs |= {name: output[name] for name in ("latents", "run_lengths") if name in names}
        for place, index in enumerate(indices):
            sentence = {name: values[place][mask[place]].cpu().numpy() for name, values in outputs.items()}
            if "latents" in sentence:
                sentence["latents"] = sentence["latents"].reshape(-1)
            sentences[index] = sentence
    return sentences


def check_versions(data: DataArguments, dataset, arguments: EncodingArguments):
    """Raises `ValueError` if there are fewer versions of the features of a video than encodings."""
    identity = data.features_record("identity.json")
    if identity is None:
        return
    for split in dataset:
        if split == "train":
            option, encodings, name = "encodings", arguments.encodings, "versions"
        else:
            option, encodings, name = "test_encodings", arguments.test_encodings, "test_versions"
        if encodings > (versions := identity.get(name, 1)):
            raise ValueError(
                f"--{option} {encodings}: {data.data_dir} has {versions} versions of each video of {split}. Run "
                f"extract_features.py with --{name} {encodings} and another --output_dir."
            )


def _number_of_recordings(rows) -> int:
    return rows["version"].count(0) if "version" in rows.features else len(rows)


def _identity(arguments: EncodingArguments, data: DataArguments, dataset, model, extractor) -> dict:
    """What the content of the shards depends on: shards of another run are not resumed."""
    return {
        "dataset": data.protocol(),
        **data.identity(dataset),
        "encodings": arguments.encodings,
        # Older versions had one encoding per test recording, and did not record it.
        **({"test_encodings": arguments.test_encodings} if arguments.test_encodings != 1 else {}),
        "latents": arguments.latents,
        # The content of the file, not its path.
        "explanations": arguments.explanations
        if arguments.explanations in (None, "narrator")
        else stable_seed(Path(arguments.explanations).read_bytes()),
        "seed": arguments.seed,
        "extractor": stable_seed(extractor.to_json_string()),
        "weights": weights_fingerprint(model),
    }


def _explained(path: Path) -> int:
    """Number of recordings in a shard that have an explanation."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["sample_id", "explanation"]).to_pydict()
    return len({name for name, explanation in zip(*table.values(), strict=True) if explanation})


def _read_sentences(path: Path):
    """All tokens of a shard, int64 (N,), and the number of its sentences."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=["action_ids"])["action_ids"].combine_chunks()
    tokens = column.flatten()
    while pa.types.is_nested(tokens.type):  # words of several tokens
        tokens = tokens.flatten()
    return tokens.to_numpy(zero_copy_only=False).astype("int64"), len(column)


def cli():
    """The command line, also of one of several tasks."""
    launch(main, *ARGUMENTS, TaskArguments, resumes=True)


if __name__ == "__main__":
    cli()
