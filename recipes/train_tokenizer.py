"""
Stage 1: train an action model, which turns recordings into action sentences (LLM-AR and LVLM-VAR, section 3.1; VT-LVLM-AR,
section III.A).

```bash
accelerate launch recipes/train_tokenizer.py --config recipes/configs/llm_ar/small_tokenizer.yaml \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton \\
    --llm_name_or_path runs/small_lm/model \\
    --output_dir runs/utd_mhad/tokenizer
```

`--llm_name_or_path` is the language model that will read the sentences. It sets the width of the codes and the word embeddings
that they are aligned with; its other weights are not read.

`--action_model` is `action_vqvae` for skeletons (the default; `skeleton_stage.py`), or `vst` or `vtem` for features of videos
(`video_stage.py`, `event_stage.py`). For features, set `--dataset features` and `--data_dir` to the output of
`extract_features.py`. Every field of the model's configuration (`--codebook_size 256`) and of the skeleton feature extractor
(`--align_view none`) can be set in the YAML file or on the command line. Runs resume automatically from the last checkpoint.
"""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import chosen_value, launch
from action_llm_recipes.common.training_arguments import RunTrainingArguments
from action_llm_recipes.common.written_folders import check_language_model, public_name
from action_llm_recipes.stages.event_stage import EventStage
from action_llm_recipes.stages.skeleton_stage import SkeletonStage
from action_llm_recipes.stages.video_stage import VideoStage

logger = logging.getLogger(__name__)

STAGES = {"action_vqvae": SkeletonStage, "vst": VideoStage, "vtem": EventStage}


@dataclass
class TokenizerArguments:
    """The language model, the action model, and the training recordings."""

    llm_name_or_path: str = field(
        metadata={
            "help": "language model that will read the sentences: Hub repository, folder, GGUF file (FILE.gguf, or "
            "OWNER/NAME:FILE.gguf on the Hub), or smollm2. If it is not the one in the YAML "
            "file, the file's llm_revision is ignored"
        }
    )
    llm_revision: str | None = field(
        default=None,
        metadata={"help": "commit of the language model's repository", "belongs_to": "llm_name_or_path"},
    )
    action_model: Literal["action_vqvae", "vst", "vtem"] = field(
        default="action_vqvae", metadata={"help": "type of the action model; each has its own options"}
    )
    window: int = field(default=64, metadata={"help": "length of a training window, in frames (skeletons)"})
    augment: bool = field(
        default=True,
        metadata={"help": "augment the skeletons, as set by the augment_ options of the feature extractor"},
    )
    denoise: bool = field(
        default=False,
        metadata={
            "help": "the decoder reconstructs the recording without augmentation instead of the augmented one, so that tokens "
            "do not tell views and errors apart (skeletons)"
        },
    )
    mixup: float = field(
        default=0.0,
        metadata={
            "help": "α of mixup's beta distribution: a training window is blended with one of another recording, and so are "
            "their classes in the alignment loss; 0 disables mixup (skeletons)"
        },
    )
    orthogonal_names: bool = field(
        default=False,
        metadata={
            "help": "for alignment_weight: class names that share words are moved apart, to the nearest orthonormal vectors"
        },
    )
    hold_out: bool = field(
        default=False, metadata={"help": "leave the held-out training subjects out of training, and evaluate on them"}
    )

    def __post_init__(self):
        check_language_model(self.llm_name_or_path)
        if not 0 <= self.mixup < float("inf"):
            raise ValueError(f"--mixup must be at least 0, got {self.mixup}.")
        for name in ("denoise", "mixup"):
            if getattr(self, name) and self.action_model != "action_vqvae":
                raise ValueError(f"--{name} is for skeletons, and {self.action_model} reads videos: leave it out.")
        if self.denoise and not self.augment:
            raise ValueError(
                "--denoise undoes the augmentation, which --augment false disables: leave one of them out."
            )


@dataclass
class TokenizerTrainingArguments(RunTrainingArguments, base="transformers.TrainingArguments"):
    """`TrainingArguments` with LLM-AR's settings (section 4.2), and common ones of motion VQ-VAEs where it gives none."""

    output_dir: str = field(default="runs/tokenizer", metadata={"help": "folder of the run"})
    max_steps: int = 300_000
    per_device_train_batch_size: int = 256
    learning_rate: float = 2e-4
    adam_beta2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: float = 1000
    lr_scheduler_type: str = field(
        default="constant",
        metadata={
            "help": "constant: warm-up, then a single drop (lr_drop_step); any other name is a schedule of transformers"
        },
    )
    lr_drop_step: int | None = field(
        default=200_000, metadata={"help": "optimiser step at which the learning rate drops (constant schedule)"}
    )
    lr_drop_factor: float = field(
        default=0.05, metadata={"help": "the learning rate is multiplied by this at lr_drop_step"}
    )
    max_grad_norm: float = 1.0
    logging_steps: float = 100
    save_steps: float = 5000
    save_total_limit: int | None = 2
    remove_unused_columns: bool = False
    label_names: list[str] | None = field(default_factory=lambda: ["input_features"])


def arguments_of(action_model: str) -> tuple[type, ...]:
    """The argument classes of `main` for an action model, a key of `STAGES`."""
    return (TokenizerArguments, DataArguments, *STAGES[action_model].ARGUMENTS, TokenizerTrainingArguments)


@writes_output_dir
def main(arguments: TokenizerArguments, data: DataArguments, *settings):
    """Trains an action model; `settings` are the argument classes of its stage (`ARGUMENTS`), in their order, and
    `TokenizerTrainingArguments`."""
    import transformers

    from action_llm_recipes.common.data_arguments import held_out_rows, without_held_out
    from action_llm_recipes.common.run_folder import RunFolder

    *stage_settings, training = settings
    if training.tf32:
        raise ValueError(
            "tf32 must be false or unset: distances between latents and codes need full float32 precision."
        )
    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, data, *settings)
    dataset = data.load(STAGES[arguments.action_model].READS)
    target = target_features(data, stage_settings)
    if not run.begin_training(training, identity_of(data, dataset, target)):
        return

    train_rows = without_held_out(dataset["train"], arguments.hold_out)
    encoders = {"features": data.features_record(), "target_features": target and target.features_record()}
    evidence = check_splits(arguments, data, dataset, target, encoders)
    held_out = held_out_rows(dataset["train"]) if arguments.hold_out else None
    stage = STAGES[arguments.action_model](arguments, data, train_rows, *stage_settings)
    trainer = make_trainer(stage, train_rows, held_out, training, run)
    cost = train(trainer, run)
    if not trainer.is_world_process_zero():
        return
    metrics = evaluate_and_save(trainer, train_rows if held_out is None else held_out, run)
    run.write_record(
        evidence,
        stage="train_tokenizer",
        dataset=data.protocol(),
        data=data.about(dataset),
        **encoders,
        llm=public_name(arguments.llm_name_or_path),
        llm_revision=arguments.llm_revision,
        recordings=len(trainer.train_dataset),
        training_classes=dataset["train"].features["label"].names,
        hold_out=arguments.hold_out,
        evaluated_on="training recordings" if held_out is None else "held-out training subjects",
        metrics=metrics,
        seed=training.seed,
        settings=record_of_settings(arguments, stage_settings[0], trainer),
        cost=cost,
    )
    log_result(run, metrics, stage.model.config)


def target_features(data: DataArguments, stage_settings: list) -> DataArguments | None:
    """The features that those of `data` are mapped to (`--target_data_dir`), or None."""
    folder = getattr(stage_settings[-1], "target_data_dir", None)
    return None if folder is None else dataclasses.replace(data, data_dir=folder)


def identity_of(data: DataArguments, dataset, target: DataArguments | None) -> dict:
    """What identifies the recordings of a run (`RunFolder.check_identity`)."""
    identity = data.identity(dataset)
    return identity if target is None else identity | {"target": target.features_record("identity.json")}


def check_splits(
    arguments: TokenizerArguments, data: DataArguments, dataset, target: DataArguments | None, encoders: dict
):
    """
    The evidence of which recordings are trained on, held out and tested (`SplitEvidence`).

    Args:
        arguments, data: of the recipe.
        dataset: its splits.
        target: the features that those of `data` are mapped to, if there are any.
        encoders: the records of the features, which say what the visual encoders were trained on.

    Raises:
        ValueError: if a visual encoder was trained on recordings that are held out here.
    """
    from action_llm_recipes.common.split_evidence import ACTION_MODEL, LANGUAGE_MODEL, SplitEvidence

    folders = [] if target is None else [target.data_dir]
    evidence = SplitEvidence.of_data(data, dataset, folders, hold_out=arguments.hold_out)
    evidence.check_training({"sentences": {"tokenizer": encoders}}, untrained=(ACTION_MODEL, LANGUAGE_MODEL))
    return evidence


def make_trainer(stage, train_rows, held_out, training: TokenizerTrainingArguments, run):
    """The trainer of the action model of a stage; `held_out` are the recordings that are evaluated, or None."""
    from action_llm_recipes.common.run_folder import JsonLinesCallback
    from action_llm_recipes.stages.tokenizer_trainer import StartEpoch, TokenizerTrainer

    examples = stage.examples(train_rows, training.seed)
    return TokenizerTrainer(
        model=stage.model,
        args=training,
        train_dataset=examples,
        eval_dataset=held_out,
        data_collator=stage.collate,
        stage=stage,
        callbacks=[JsonLinesCallback(run.metrics), StartEpoch(examples)],
    )


def train(trainer, run) -> dict:
    """Trains, where there is something to train, and returns the cost (`report_cost`)."""
    import transformers

    from action_llm_recipes.common.run_cost import report_cost

    # Direct feature projection (LVLM-VAR, Table 2) has no weights in stage 1.
    is_trained = any(parameter.requires_grad for parameter in trainer.model.parameters())
    cost = report_cost(trainer, "action model") if is_trained else {}
    # All processes share the order of the examples, which accelerate would otherwise shuffle by the seed of each process.
    sampling = trainer.accelerator.dataloader_config
    sampling.data_seed = trainer.args.seed if sampling.data_seed is None else sampling.data_seed
    # Each process draws its own noise for Eq. 3 of LLM-AR.
    transformers.set_seed(trainer.args.seed + 1_000_003 * trainer.args.process_index)
    if is_trained:
        run.train(trainer, "action model")
    return cost


def evaluate_and_save(trainer, rows, run) -> dict[str, float]:
    """Evaluates the action model on some recordings, saves it with its feature extractor, and returns the metrics."""
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    metrics = trainer.stage.evaluate(model, rows, trainer.args.eval_batch_size)
    model.config.familiar_distance = metrics.get("familiar_distance")
    model.save_pretrained(run.model)
    trainer.stage.extractor.save_pretrained(run.model)
    return metrics


def record_of_settings(arguments: TokenizerArguments, model_arguments, trainer) -> dict:
    """The settings for the record: those of the model, and those of its training."""
    training = trainer.args
    return {
        **dataclasses.asdict(model_arguments),
        "codebook_dim": trainer.stage.model.config.codebook_dim,
        "window": arguments.window,
        "learning_rate": training.learning_rate,
        "batch_size": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
        "steps": trainer.state.global_step,
    }


def log_result(run, metrics: dict[str, float], config):
    """Logs that the action model is finished, its main metrics, and its folder."""
    facts = [f"{metrics['tokens']:.1f} tokens per recording"]
    if "reconstruction_loss" in metrics:
        facts.insert(0, f"reconstruction loss {metrics['reconstruction_loss']:.3g}")
    if "codebook/codes_used" in metrics:
        num_codes = config.codebook_size * config.num_codebooks
        facts.append(f"{metrics['codebook/codes_used']:.0f} of {num_codes} codes used")
    if "context_loss" in metrics:
        mean, deviation = metrics["context_loss_random_pairs"], metrics["context_loss_random_pairs_std"]
        facts.append(f"context loss {metrics['context_loss']:.3f} (random pairs {mean:.3f} ± {deviation:.3f})")
    run.log_finished("Action model", *facts)
    logger.info("  in %s", run.model)


if __name__ == "__main__":
    chosen = chosen_value("action_model", "action_vqvae")
    launch(main, *arguments_of(chosen if chosen in STAGES else "action_vqvae"), resumes=True)
