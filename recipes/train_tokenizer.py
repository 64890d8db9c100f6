"""
Stage 1: an action model learns to write recordings as sentences (LLM-AR and LVLM-VAR, section 3.1; VT-LVLM-AR, III.A).

```bash
accelerate launch recipes/train_tokenizer.py --config recipes/configs/llm_ar/small_tokenizer.yaml \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton \\
    --llm_name_or_path runs/small_lm/model \\
    --output_dir runs/utd_mhad/tokenizer
```

The language model that will read the sentences gives the width of the codes and the words that they are aligned with. With
`action_model: action_vqvae`, the default, recordings are skeletons (`skeleton_stage.py`); with `vst` or `vtem`, features of
videos (`--dataset features --data_dir` the folder that `extract_features.py` wrote; `video_stage.py`, `event_stage.py`). Every
field of the model's configuration (`--codebook_size 256`) and of the skeletons' feature extractor (`--align_view none`) can be
set in the YAML or on the command line. A run that was stopped goes on from its last checkpoint when it is started again.
"""

import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import given, launch
from action_llm_recipes.common.training_arguments import RunTrainingArguments
from action_llm_recipes.common.written_folders import check_model_folder
from action_llm_recipes.stages.event_stage import EventStage
from action_llm_recipes.stages.skeleton_stage import SkeletonStage
from action_llm_recipes.stages.video_stage import VideoStage

logger = logging.getLogger(__name__)

STAGES = {"action_vqvae": SkeletonStage, "vst": VideoStage, "vtem": EventStage}


@dataclass
class TokenizerArguments:
    """What is trained on, beyond model and optimiser."""

    llm_name_or_path: str = field(
        metadata={
            "help": "the language model that will read the sentences: repository or folder. Another one than the YAML's "
            "leaves the YAML's llm_revision out"
        }
    )
    llm_revision: str | None = field(
        default=None,
        metadata={"help": "commit of the language model's repository", "belongs_to": "llm_name_or_path"},
    )
    action_model: Literal["action_vqvae", "vst", "vtem"] = field(
        default="action_vqvae", metadata={"help": "what is trained; each has options of its own"}
    )
    window: int = field(default=64, metadata={"help": "frames of a training window of skeletons"})
    augment: bool = field(
        default=True, metadata={"help": "vary the skeletons (the feature extractor's augment_ settings)"}
    )
    hold_out: bool = field(
        default=False, metadata={"help": "leave the held-out training subjects out, and evaluate on them"}
    )

    def __post_init__(self):
        check_model_folder(self.llm_name_or_path)


@dataclass
class TokenizerTrainingArguments(RunTrainingArguments, base="transformers.TrainingArguments"):
    """`TrainingArguments` with LLM-AR's settings (section 4.2) and, where it is silent, those of its VQ-VAE's family."""

    output_dir: str = field(default="runs/tokenizer", metadata={"help": "folder of the run"})
    max_steps: int = 300_000
    per_device_train_batch_size: int = 256
    learning_rate: float = 2e-4
    adam_beta2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: float = 1000
    lr_scheduler_type: str = field(
        default="constant",
        metadata={"help": "constant: warm-up, then one drop (below); any other is transformers' own"},
    )
    lr_drop_step: int | None = field(default=200_000, metadata={"help": "optimiser step at which the rate is lowered"})
    lr_drop_factor: float = field(default=0.05, metadata={"help": "what it is multiplied by then"})
    max_grad_norm: float = 1.0
    logging_steps: float = 100
    save_steps: float = 5000
    save_total_limit: int | None = 2
    remove_unused_columns: bool = False
    label_names: list[str] | None = field(default_factory=lambda: ["input_features"])


def arguments_of(action_model: str) -> tuple[type, ...]:
    """The argument classes of `main`, which depend on the action model."""
    return (TokenizerArguments, DataArguments, *STAGES[action_model].ARGUMENTS, TokenizerTrainingArguments)


@writes_output_dir
def main(arguments: TokenizerArguments, data: DataArguments, *settings):
    """Trains; `settings` are those of the stage (`ARGUMENTS`), in their order, and `TokenizerTrainingArguments`."""
    import transformers

    from action_llm_recipes.common.data_arguments import without_held_out
    from action_llm_recipes.common.run_cost import report_cost
    from action_llm_recipes.common.run_folder import JsonLinesCallback, RunFolder
    from action_llm_recipes.common.split_evidence import ACTION_MODEL, LANGUAGE_MODEL, SplitEvidence
    from action_llm_recipes.stages.tokenizer_trainer import StartEpoch, TokenizerTrainer

    *stage_settings, training = settings
    if training.tf32:
        raise ValueError("tf32 must be off: distances between latents and codes need all digits of float32.")
    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, data, *settings)
    dataset = data.load(STAGES[arguments.action_model].READS)
    # Features of a vision tower that others are mapped to.
    target = getattr(stage_settings[-1], "target_data_dir", None)
    target = None if target is None else dataclasses.replace(data, data_dir=target)
    if training.process_index == 0:
        identity = data.identity(dataset)
        run.check_identity(
            identity if target is None else identity | {"target": target.features_record("identity.json")}
        )
    if run.finished:
        logger.info("%s is finished", run.path)
        return
    run.configure(training)

    rows = dataset["train"]
    train_rows = without_held_out(rows, arguments.hold_out)
    target_folder = [] if target is None else [target.data_dir]
    evidence = SplitEvidence.of_data(data, dataset, target_folder, hold_out=arguments.hold_out)
    encoders = {"features": data.features_record(), "target_features": target and target.features_record()}
    evidence.check_training({"sentences": {"tokenizer": encoders}}, untrained=(ACTION_MODEL, LANGUAGE_MODEL))
    stage = STAGES[arguments.action_model](arguments, data, train_rows, *stage_settings)
    held_out = rows.filter(lambda held: held, input_columns="held_out") if arguments.hold_out else None
    config = stage.model.config
    # In direct feature projection nothing is: all is learnt in stage 2.
    is_trained = any(parameter.requires_grad for parameter in stage.model.parameters())
    examples = stage.examples(train_rows, training.seed)
    trainer = TokenizerTrainer(
        model=stage.model,
        args=training,
        train_dataset=examples,
        eval_dataset=held_out,
        data_collator=stage.collate,
        stage=stage,
        callbacks=[JsonLinesCallback(run.metrics), StartEpoch(examples)],
    )
    cost = report_cost(trainer, "action model") if is_trained else {}
    # The noise of Eq. 3 is drawn on every process: another one each.
    transformers.set_seed(training.seed + 1_000_003 * training.process_index)
    if is_trained:
        run.train(trainer, "action model")
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    metrics = stage.evaluate(model, train_rows if held_out is None else held_out, training.eval_batch_size)
    config.familiar_distance = metrics.get("familiar_distance")
    model.save_pretrained(run.model)
    stage.extractor.save_pretrained(run.model)
    run.write_record(
        evidence,
        stage="train_tokenizer",
        dataset=data.protocol(),
        data=data.about(dataset),
        **encoders,
        llm=Path(arguments.llm_name_or_path).name
        if Path(arguments.llm_name_or_path).exists()
        else arguments.llm_name_or_path,
        llm_revision=arguments.llm_revision,
        recordings=len(examples),
        training_classes=rows.features["label"].names,
        hold_out=arguments.hold_out,
        evaluated_on="training recordings" if held_out is None else "held-out training subjects",
        metrics=metrics,
        seed=training.seed,
        settings={
            **dataclasses.asdict(stage_settings[0]),
            "codebook_dim": config.codebook_dim,
            "window": arguments.window,
            "learning_rate": training.learning_rate,
            "batch_size": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
            "steps": trainer.state.global_step,
        },
        cost=cost,
    )
    used = metrics.get("codebook/codes_used")
    run.log_finished(
        "Action model",
        *([f"reconstruction loss {metrics['reconstruction_loss']:.3g}"] if "reconstruction_loss" in metrics else []),
        f"{metrics['tokens']:.1f} tokens a recording",
        *([] if used is None else [f"{used:.0f} of {config.codebook_size * config.num_codebooks} codes used"]),
    )
    logger.info("  in %s", run.model)


if __name__ == "__main__":
    chosen = given("action_model", "action_vqvae")
    launch(main, *arguments_of(chosen if chosen in STAGES else "action_vqvae"), resumes=True)
