"""
Recordings → action sentences: every recording is encoded once, before the language model is trained.

```bash
accelerate launch recipes/encode_actions.py \\
    --tokenizer runs/utd_mhad/tokenizer/model \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton \\
    --encodings 8 \\
    --output_dir runs/utd_mhad/sentences
```

With a model of videos, `--dataset features --data_dir` is the folder that `extract_features.py` wrote; its versions of a
video are what is encoded. A run that was stopped goes on with the shards that are missing. Recordings that cannot be read
are skipped, counted and listed in `skipped.json`. `tokens.md` (and `.json`, with pictures) says what the sentences are like:
tokens per recording, codes used, entropy, perplexity (LVLM-VAR, Fig. 1).
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm.recording_versions import stable_seed
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments, check_model_folder, read_record, write_people
from action_llm_recipes.common.launching import launch

logger = logging.getLogger(__name__)


@dataclass
class EncodingArguments:
    """What encodes the recordings, how often, and where the sentences go."""

    tokenizer: str = field(metadata={"help": "folder of a trained action model with its preprocessor_config.json"})
    output_dir: str = field(metadata={"help": "folder for the sentences"})
    encodings: int = field(
        default=1,
        metadata={"help": "sentences a training recording: the first as it is, the others augmented"},
    )
    test_encodings: int = field(
        default=1, metadata={"help": "the same of a test recording, for evaluate_classifier.py --encodings"}
    )
    latents: bool = field(
        default=False, metadata={"help": "keep the continuous latents too (LLM-AR, Table 5, without discretisation)"}
    )
    explanations: str | None = field(
        default=None,
        metadata={
            "help": "what sft.py is to learn to say: narrator (skeletons), or a file of JSON lines with sample_id, explanation"
        },
    )
    batch_size: int = field(default=64, metadata={"help": "recordings encoded at a time"})
    seed: int = field(default=0, metadata={"help": "seed of the augmentation"})

    def __post_init__(self):
        check_model_folder(self.tokenizer)


@writes_output_dir
def main(arguments: EncodingArguments, data: DataArguments):
    import torch
    from accelerate import PartialState
    from transformers import AutoModel

    import action_llm  # noqa: F401  (makes its classes known)
    from action_llm.language_priors import word_statistics
    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm.recording_versions import check_versions_differ
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_sentences import (
        RECORDINGS_PER_SHARD,
        is_whole,
        load_action_sentences,
        read_entries,
        sentence_features,
        shard_path,
        write_codebook,
        write_shard,
    )
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.stages.token_report import write_token_report

    for name in ("encodings", "test_encodings", "batch_size"):
        if (value := getattr(arguments, name)) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    # Without a GPU, accelerate sees the processes of a launch only when it is told that there is none.
    state = PartialState(cpu=not torch.cuda.is_available())
    run = RunFolder(arguments.output_dir)
    model = AutoModel.from_pretrained(arguments.tokenizer, trust_remote_code=False).eval().to(state.device)
    dataset = data.load("features" if model.main_input_name == "pixel_values" else "skeletons")
    if not (model.config.quantize or arguments.latents):
        raise ValueError(f"{arguments.tokenizer} has no codebook (quantize: false): set --latents true.")
    extractor = load_feature_extractor(arguments.tokenizer)
    check_features(data, model, extractor)
    if arguments.explanations == "narrator" and data.features_record() is not None:
        raise ValueError(
            "the narrator reads joints, and these are features of videos: give a file (pretraining/describe_videos.py)."
        )
    check_versions(data, dataset, arguments)
    for name in ("encodings", "test_encodings"):
        check_versions_differ(extractor.to_dict(), getattr(arguments, name), f"--{name}")
    say = explanations(arguments.explanations)
    if arguments.explanations == "narrator" and arguments.encodings > 1 and extractor.augment_mirror > 0:
        raise ValueError(
            "augment_mirror swaps left and right, of which the narrator speaks: train the action model with augment_mirror 0, "
            "or set --encodings 1."
        )
    if state.is_main_process:
        run.check_identity(_identity(arguments, data, dataset, model, extractor))
        # Whoever reads the sentences can read the recordings in the same way.
        extractor.save_pretrained(run.path)
        if model.config.quantize:
            write_codebook(run.path, model.codebook)
    state.wait_for_everyone()

    codes_per_word = model.config.num_codebooks if model.config.quantize else 1
    for split, rows in dataset.items():
        count = -(-len(rows) // RECORDINGS_PER_SHARD)
        features = sentence_features(
            rows.features["label"],
            model.config.num_action_tokens,
            arguments.latents,
            arguments.explanations is not None,
            merges_runs(model.config),
            codes_per_word,
        )
        encodings = arguments.encodings if split == "train" else arguments.test_encodings
        mine = range(state.process_index, count, state.num_processes)
        for index in progress(mine, f"sentences of {split}", "shards"):
            path = shard_path(run.path, split, index, count)
            if is_whole(path, ".skipped.json"):
                continue
            start = index * RECORDINGS_PER_SHARD
            shard = rows.select(range(start, min(start + RECORDINGS_PER_SHARD, len(rows))))
            columns, skipped = encode(model, extractor, shard, encodings, arguments, say)
            write_atomically(path.with_suffix(".skipped.json"), json.dumps(skipped))
            write_shard(path, columns, features)
    state.wait_for_everyone()
    if not state.is_main_process:
        return

    summary, all_skipped = {}, []
    for split, rows in dataset.items():
        count = -(-len(rows) // RECORDINGS_PER_SHARD)
        paths = [shard_path(run.path, split, index, count) for index in range(count)]
        skipped = [entry for path in paths for entry in read_entries(path.with_suffix(".skipped.json"))]
        all_skipped += [{"split": split, **entry} for entry in skipped]
        counts, sentences = torch.zeros(model.config.num_action_tokens, dtype=torch.long), 0
        for path in paths:
            tokens, number = _read_sentences(path)
            counts += torch.bincount(torch.from_numpy(tokens), minlength=len(counts))
            sentences += number
        summary[split] = {
            "recordings": _number_of_recordings(rows),
            "skipped": len(skipped),
            "sentences": sentences,
            "words_per_sentence": round(counts.sum().item() / max(sentences * codes_per_word, 1), 2),
            **(word_statistics(counts, model.config.num_codebooks) if model.config.quantize and sentences else {}),
        }
        if arguments.explanations is not None:
            summary[split]["explained"] = sum(_explained(path) for path in paths)
        if sentences == 0:
            raise ValueError(
                f"every recording of {split} was skipped; the first is {skipped[0]['sample_id']}: {skipped[0]['reason']}"
                if skipped
                else f"the data set has no recordings in {split}."
            )
    write_atomically(run.path / "skipped.json", json.dumps(all_skipped, indent=2, ensure_ascii=False) + "\n")
    write_people(run.path, data.people(dataset))
    if all_skipped:
        logger.warning(
            "%d recordings were skipped; they are listed in %s", len(all_skipped), run.path / "skipped.json"
        )
    record = Path(arguments.tokenizer) / "record.json"
    run.write_record(
        stage="encode_actions",
        dataset=data.protocol(),
        data=data.about(dataset),
        training_classes=dataset["train"].features["label"].names,
        encodings=arguments.encodings,
        test_encodings=arguments.test_encodings,
        splits=summary,
        tokenizer=read_record(record) if record.is_file() else None,
    )
    counts = (f"{one['sentences']:,} from {one['recordings']:,} {split} recordings" for split, one in summary.items())
    run.log_finished("Sentences", *counts, f"{summary['train']['words_per_sentence']:.1f} words each")
    if model.config.quantize:
        write_token_report(
            run.path, load_action_sentences(run.path), model.config.num_action_tokens, model.config.num_codebooks
        )
        logger.info("  what they are like: %s", run.path / "tokens.md")


def check_features(data: DataArguments, model, extractor):
    """Raises `ValueError` for features that another visual encoder made than the action model's, or that it made otherwise."""
    from action_llm import VideoFeatureExtractor

    made = data.features_record("identity.json")
    if made is None:
        return
    # What is not in it had its default when it was written.
    own, settings = (one.to_dict() for one in (extractor, VideoFeatureExtractor.from_dict(made["extractor"])))
    differ = sorted(name for name in {*own, *settings} - {"auto_map"} if own.get(name) != settings.get(name))
    encoder = model.visual_encoder
    if weights_fingerprint(encoder.backbone) != made["backbone"]:
        differ.append("visual encoder")
    differ += [name for name in ("grid", "feature_layer") if getattr(encoder, name) != made.get(name)]
    if differ:
        raise ValueError(
            f"the features in {data.data_dir} are not those of the action model, which was trained with another "
            f"{', '.join(differ)}."
        )


def explanations(source: str | None):
    """A function of a row that says what happens in it, or None.

    Raises:
        ValueError: a line of the file is no explanation.
    """
    if source is None:
        return None
    if source == "narrator":
        from action_llm.motion_narration import narrate

        return lambda row: narrate(row).text
    texts = {}
    for number, line in enumerate(Path(source).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            texts[entry["sample_id"]] = str(entry["explanation"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{source}, line {number}: expected an object with sample_id and explanation, found {line[:60]!r}"
            ) from error
    return lambda row: texts.get(row["sample_id"], "")


def encode(model, extractor, rows, encodings: int, arguments: EncodingArguments, say=None) -> tuple[dict, list[dict]]:
    """Columns of a shard, and what was skipped with the reason."""
    import torch

    from action_llm.feature_extraction_skeleton import SkeletonInputError
    from action_llm.recording_versions import version_arguments
    from action_llm_recipes.common.action_features import collate_features

    names = ("sample_id", "encoding", "label", "held_out", "action_ids", "start_times", "end_times")
    columns = {name: [] for name in names}
    if arguments.latents:
        columns["latents"] = []
    if say is not None:
        columns["explanation"] = []
    if merges_runs(model.config):
        columns["run_lengths"] = []
    skipped, pending = [], []

    @torch.no_grad()
    def flush():
        # Recordings of one length together: less padding. Their order in the shard stays as it was.
        order = sorted(range(len(pending)), key=lambda i: pending[i][2]["input_features"].shape[1])
        encoded = [None] * len(pending)
        for start in range(0, len(order), arguments.batch_size):
            chosen = order[start : start + arguments.batch_size]
            batch = collate([pending[i][2] for i in chosen])
            output = model.encode(**{name: tensor.to(model.device) for name, tensor in batch.items()})
            for row, i in enumerate(chosen):
                mask = output.attention_mask[row].bool()
                # Without a codebook there is no sentence, only its length.
                ids = torch.zeros_like(output.attention_mask) if output.action_ids is None else output.action_ids
                encoded[i] = (
                    ids[row][mask].cpu(),
                    output.start_times[row][mask].cpu(),
                    output.end_times[row][mask].cpu(),
                    output.latents[row][mask].cpu() if arguments.latents else None,
                    output.run_lengths[row][mask].cpu() if "run_lengths" in columns else None,
                )
        for (row, encoding, _), (ids, starts, ends, latents, lengths) in zip(pending, encoded, strict=True):
            columns["sample_id"].append(row["sample_id"])
            columns["encoding"].append(encoding)
            columns["label"].append(row["label"])
            columns["held_out"].append(row["held_out"])
            columns["action_ids"].append(ids.numpy())
            columns["start_times"].append(starts.numpy())
            columns["end_times"].append(ends.numpy())
            if arguments.latents:
                columns["latents"].append(latents.flatten().numpy())
            if say is not None:
                columns["explanation"].append(row["explanation"])
            if lengths is not None:
                columns["run_lengths"].append(lengths.numpy())
        pending.clear()

    for row in rows.with_format("numpy"):
        row = {
            **row,
            "sample_id": str(row["sample_id"]),
            "label": int(row["label"]),
            "held_out": bool(row["held_out"]),
        }
        facts = {name: row[name] for name in ("sample_id", "label", "held_out")}
        try:
            facts["explanation"] = "" if say is None else say(row)
        except SkeletonInputError as error:
            skipped.append({"sample_id": row["sample_id"], "reason": str(error)})
            continue
        if "features" in row:  # of a video, made before
            if row["version"] < encodings:
                pending.append((facts, int(row["version"]), collate_features([row])))
            if len(pending) >= 4 * arguments.batch_size:
                flush()
            continue
        try:
            versions = [
                extractor(row, **version_arguments(row["sample_id"], encoding, arguments.seed), return_tensors="pt")
                for encoding in range(encodings)
            ]
            pending.extend((facts, encoding, features) for encoding, features in enumerate(versions))
        except SkeletonInputError as error:
            skipped.append({"sample_id": row["sample_id"], "reason": str(error)})
        if len(pending) >= 4 * arguments.batch_size:
            flush()
    flush()
    return columns, skipped


def check_versions(data: DataArguments, dataset, arguments: EncodingArguments):
    """Raises `ValueError` where features of fewer versions of a video were made than there are to be sentences."""
    made = data.features_record("identity.json")
    if made is None:
        return
    for split in dataset:
        training = split == "train"
        name, asked = ("versions", arguments.encodings) if training else ("test_versions", arguments.test_encodings)
        if asked > made.get(name, 1):
            raise ValueError(
                f"{asked} sentences a {'training' if training else 'test'} video need as many versions of it: {data.data_dir} "
                f"holds {made.get(name, 1)}; run extract_features.py with --{name} {asked}, into another folder."
            )


def merges_runs(config) -> bool:
    """Whether an action model makes one token of equal ones that follow each other."""
    return config.quantize and getattr(config, "merge_runs", False)


def collate(features: list[dict]) -> dict:
    """Features of single recordings as one batch, padded at the end with zeros."""
    import torch

    longest = max(item["input_features"].shape[1] for item in features)

    def pad(tensor):
        return torch.nn.functional.pad(tensor, [0, 0] * (tensor.dim() - 2) + [0, longest - tensor.shape[1]])

    batch = {
        name: torch.cat([pad(item[name]) for item in features])
        for name in ("input_features", "feature_attention_mask")
    }
    # Of skeletons also when their first frame is.
    of_recordings = [name for name in ("frame_rate", "start_time") if name in features[0]]
    return batch | {name: torch.cat([item[name] for item in features]) for name in of_recordings}


def _number_of_recordings(rows) -> int:
    return rows["version"].count(0) if "version" in rows.features else len(rows)


def _identity(arguments: EncodingArguments, data: DataArguments, dataset, model, extractor) -> dict:
    """What decides the content of the shards: shards of another run are not gone on with."""
    return {
        "dataset": data.protocol(),
        **data.identity(dataset),
        "encodings": arguments.encodings,
        # Sentences of before were of one.
        **({"test_encodings": arguments.test_encodings} if arguments.test_encodings != 1 else {}),
        "latents": arguments.latents,
        # Of a file, what it says and not where it lies.
        "explanations": arguments.explanations
        if arguments.explanations in (None, "narrator")
        else stable_seed(Path(arguments.explanations).read_bytes()),
        "seed": arguments.seed,
        "extractor": stable_seed(extractor.to_json_string()),
        "weights": weights_fingerprint(model),
    }


def weights_fingerprint(model) -> str:
    """A number that tells the weights of one action model from those of another, on every device.

    A decoder has no part in it: it writes no sentence, and recognisers of skeletons have none.
    """
    import hashlib

    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, weight in sorted(model.state_dict().items()):
        if name.startswith("decoder."):
            continue
        digest.update(name.encode())
        # Of every dtype, those that NumPy does not have as well.
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _explained(path: Path) -> int:
    """Recordings of a shard that have an explanation."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["sample_id", "explanation"]).to_pydict()
    return len({name for name, said in zip(*table.values(), strict=True) if said})


def _read_sentences(path: Path):
    """All tokens of a shard, int64 (N,), and how many sentences it has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pq.read_table(path, columns=["action_ids"])["action_ids"].combine_chunks()
    tokens = column.flatten()
    while pa.types.is_nested(tokens.type):  # words of several tokens
        tokens = tokens.flatten()
    return tokens.to_numpy(zero_copy_only=False).astype("int64"), len(column)


if __name__ == "__main__":
    launch(main, EncodingArguments, DataArguments, resumes=True)
