"""
Stage 1: the action-based VQ-VAE learns to write recordings as sentences (LLM-AR, section 3.1).

```bash
accelerate launch recipes/train_tokenizer.py --config recipes/configs/llm_ar/utd_mhad_tokenizer.yaml \
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton \
    --llm_name_or_path runs/small_lm/model \
    --output_dir runs/utd_mhad/tokenizer
```

The language model that will read the sentences gives the width of the codes and the words that they are aligned with
(Eq. 7). Every field of the configuration (`--codebook_size 256`) and of the feature extractor (`--align_view none`) can be
set in the YAML or on the command line. A run that was stopped goes on from its last checkpoint when it is started again.
"""

import dataclasses
import inspect
import logging
import sys
from dataclasses import dataclass, field

from data_arguments import DataArguments
from transformers import Trainer, TrainerCallback, TrainingArguments

from action_llm import ActionVQVAEConfig, SkeletonFeatureExtractor

logger = logging.getLogger(__name__)

# These follow from the feature extractor and the language model.
DERIVED = {"layout", "num_persons", "num_joints", "num_coordinates", "fps", "codebook_dim"}


def _own_fields(config_class) -> list[dataclasses.Field]:
    """The fields that a configuration class has beyond those of transformers."""
    inherited = {f.name for f in dataclasses.fields(config_class.__mro__[1])}
    return [f for f in dataclasses.fields(config_class) if f.name not in inherited]


def _argument(name: str, annotation, default):
    # The command line has no numbers that are either whole or not.
    if annotation in (float | int, "float | int"):
        annotation, default = float, float(default)
    return name, annotation, field(default=default, metadata={"help": f"default {default!r}"})


def _skeleton_argument(parameter: inspect.Parameter):
    if parameter.name in ("layout", "num_persons"):
        kind = str if parameter.name == "layout" else int
        return parameter.name, kind | None, field(default=None, metadata={"help": "by default that of the recordings"})
    kind = str if parameter.name == "scale" else parameter.annotation
    return _argument(parameter.name, kind, parameter.default)


ActionVQVAEArguments = dataclasses.make_dataclass(
    "ActionVQVAEArguments",
    [_argument(f.name, f.type, f.default) for f in _own_fields(ActionVQVAEConfig) if f.name not in DERIVED],
)
ActionVQVAEArguments.__doc__ = "Fields of `ActionVQVAEConfig`, which describes them."

SkeletonArguments = dataclasses.make_dataclass(
    "SkeletonArguments",
    [
        _skeleton_argument(p)
        for p in inspect.signature(SkeletonFeatureExtractor).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ],
)
SkeletonArguments.__doc__ = "Settings of `SkeletonFeatureExtractor`, which describes them."


@dataclass
class TokenizerArguments:
    """What is trained on, beyond model and optimiser."""

    llm_name_or_path: str = field(
        metadata={"help": "the language model that will read the sentences: repository or folder"}
    )
    llm_revision: str | None = field(default=None, metadata={"help": "commit of the language model's repository"})
    window: int = field(default=64, metadata={"help": "frames of a training window"})
    augment: bool = field(
        default=True, metadata={"help": "vary the recordings (the feature extractor's augment_ settings)"}
    )
    hold_out: bool = field(
        default=False, metadata={"help": "leave the held-out training subjects out, and evaluate on them"}
    )


@dataclass
class TokenizerTrainingArguments(TrainingArguments):
    """`TrainingArguments` with LLM-AR's settings (section 4.2) and, where it is silent, those of its VQ-VAE's family."""

    output_dir: str = field(default="runs/tokenizer", metadata={"help": "folder of the run"})
    max_steps: int = 300_000
    per_device_train_batch_size: int = 256
    learning_rate: float = 2e-4
    adam_beta2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: float = 1000
    lr_drop_step: int | None = field(default=200_000, metadata={"help": "optimiser step at which the rate is lowered"})
    lr_drop_factor: float = field(default=0.05, metadata={"help": "what it is multiplied by then"})
    max_grad_norm: float = 1.0
    logging_steps: float = 100
    save_steps: float = 5000
    save_total_limit: int | None = 2
    remove_unused_columns: bool = False
    label_names: list[str] | None = field(default_factory=lambda: ["input_features"])


class StartEpoch(TrainerCallback):
    """Tells the windows which epoch it is, also of a run that was resumed in the middle of one."""

    def __init__(self, windows):
        self.windows = windows

    def on_epoch_begin(self, args, state, control, **kwargs):
        # A whole number of epochs is a sum of fractions.
        self.windows.start_epoch(int((state.epoch or 0) + 1e-6))


class ActionVQVAETrainer(Trainer):
    """`Trainer` that logs every loss by name and the use of the codebook, and hands usage on between micro-batches."""

    def __init__(self, *args, word_embeddings=None, extractor=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.word_embeddings = None if word_embeddings is None else word_embeddings.to(self.args.device)
        self.extractor = extractor
        self._collected_usage = None
        self._terms, self._usage = {}, None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs, word_embeddings=self.word_embeddings, previous_usage=self._collected_usage)
        if model.training:
            # Zipf's law is a law of the whole optimiser step (LLM-AR, Eq. 4).
            last = self.accelerator.sync_gradients
            self._collected_usage = None if last else outputs.collected_usage
            self._remember(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        from torch.optim.lr_scheduler import LambdaLR

        args = self.args
        warmup = args.get_warmup_steps(num_training_steps)

        def factor(step: int) -> float:
            dropped = args.lr_drop_step is not None and step >= args.lr_drop_step
            return min(1.0, (step + 1) / max(warmup, 1)) * (args.lr_drop_factor if dropped else 1.0)

        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None):
        if "loss" in logs and self._terms:
            from action_llm.language_priors import usage_statistics

            logs |= {name: float(total / count) for name, (total, count) in self._terms.items()}
            if self._usage is not None:
                usage = self.accelerator.reduce(self._usage, reduction="sum")
                logs |= {f"codebook/{name}": value for name, value in usage_statistics(usage).items()}
            self._terms, self._usage = {}, None
        super().log(logs, start_time)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Whole recordings, without augmentation: see [`evaluate_tokenizer`]."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        model = self.accelerator.unwrap_model(self.model)
        metrics = {
            f"{metric_key_prefix}_{name}": value
            for name, value in evaluate_tokenizer(model, self.extractor, rows, self.args.eval_batch_size).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _remember(self, outputs):
        for name, value in outputs.items():
            if name.endswith("_loss"):
                total, count = self._terms.get(name, (0.0, 0))
                self._terms[name] = (total + value.detach(), count + 1)
        if outputs.usage is not None:
            self._usage = outputs.usage.detach() + (0 if self._usage is None else self._usage)


def evaluate_tokenizer(model, extractor, rows, batch_size: int) -> dict[str, float]:
    """Reconstruction of whole recordings and use of the codebook.

    Args:
        model (`ActionVQVAEModel`): the model.
        extractor (`SkeletonFeatureExtractor`): makes the features.
        rows (`datasets.Dataset`): recordings.
        batch_size (`int`): recordings at a time.

    Returns:
        `reconstruction_loss` (smooth-L1, mean over recordings' frames); `joint_error` (mean distance between true and
        reconstructed joints of the people who are there, in recorded units: metres for 3-D layouts); `tokens` (mean number
        a recording); and what [`usage_statistics`] says of the codebook.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F
    from encode_actions import collate

    from action_llm.feature_extraction_skeleton import SkeletonInputError
    from action_llm.language_priors import usage_statistics

    training = model.training
    model.eval()
    loss = error = joints = frames = tokens = recordings = 0
    usage = torch.zeros(model.config.codebook_size)
    people = (extractor.num_persons, extractor.skeleton_layout.num_joints, extractor.coordinates)

    @torch.no_grad()
    def add(batch):
        nonlocal loss, error, joints, frames, tokens, recordings, usage
        inputs = collate(batch)
        outputs = model(
            input_features=inputs["input_features"].to(model.device),
            feature_attention_mask=inputs["feature_attention_mask"].to(model.device),
        )
        for one, truth, made in zip(batch, inputs["input_features"], outputs.reconstruction.cpu(), strict=True):
            transform, length = one["transforms"][0], one["input_features"].shape[1]
            loss += F.smooth_l1_loss(made[:length], truth[:length]).item() * length
            distance = (made[:length] - truth[:length]).view(length, *people).norm(dim=-1)
            present = torch.from_numpy(np.asarray(transform.present))[:length, : people[0]]
            error += float(distance[present].sum()) * transform.scale
            joints += int(present.sum()) * people[1]
            frames += length
        tokens += int(outputs.attention_mask.sum())
        recordings += len(batch)
        if outputs.usage is not None:
            usage += outputs.usage.cpu()

    batch = []
    for row in rows.with_format("numpy"):
        try:
            batch.append(extractor(row, return_transform=True, return_tensors="pt"))
        except SkeletonInputError as problem:
            logger.warning("skipped in evaluation: %s", problem)
        if len(batch) == batch_size:
            add(batch)
            batch = []
    if batch:
        add(batch)
    model.train(training)
    metrics = {"reconstruction_loss": loss / frames, "joint_error": error / joints, "tokens": tokens / recordings}
    if usage.sum() > 0:
        metrics |= {f"codebook/{name}": value for name, value in usage_statistics(usage).items()}
    return metrics


def main(
    arguments: TokenizerArguments, data: DataArguments, model_arguments, skeleton, training: TokenizerTrainingArguments
):
    import transformers
    from data_arguments import recordings_fingerprint, without_held_out
    from recording_windows import RecordingWindows
    from run_cost import report_cost
    from run_folder import JsonLinesCallback, RunFolder
    from word_embeddings import load_word_embeddings, word_width

    from action_llm import ActionVQVAEModel

    if training.tf32:
        raise ValueError("tf32 must be off: distances between latents and codes need all digits of float32.")
    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, data, model_arguments, skeleton, training)
    dataset = data.load()
    if training.process_index == 0:
        run.check_identity({"recordings": recordings_fingerprint(dataset)})
    if run.finished:
        logger.info("%s is finished", run.path)
        return
    training.output_dir = str(run.checkpoints)

    rows = dataset["train"]
    settings = dataclasses.asdict(skeleton)
    if settings["layout"] is None:
        settings["layout"] = rows[0]["layout"]
    if settings["num_persons"] is None:  # actions of more than two people are not in these data sets
        settings["num_persons"] = min(2, max(shape[1] for shape in rows["shape"]))
    # A torso length or a number of metres.
    if settings["scale"] not in ("torso", "none"):
        settings["scale"] = float(settings["scale"])
    extractor = SkeletonFeatureExtractor(**settings)
    config = ActionVQVAEConfig(
        layout=extractor.skeleton_layout.name,
        num_persons=extractor.num_persons,
        num_joints=extractor.skeleton_layout.num_joints,
        num_coordinates=extractor.coordinates,
        fps=extractor.fps or 30.0,
        codebook_dim=word_width(arguments.llm_name_or_path, arguments.llm_revision),
        **dataclasses.asdict(model_arguments),
    )
    train_rows = without_held_out(rows, arguments.hold_out)
    held_out = rows.filter(lambda held: held, input_columns="held_out") if arguments.hold_out else None
    windows = RecordingWindows(train_rows, extractor, arguments.window, training.seed, arguments.augment)
    trainer = ActionVQVAETrainer(
        model=ActionVQVAEModel(config),
        args=training,
        train_dataset=windows,
        eval_dataset=held_out,
        extractor=extractor,
        word_embeddings=(
            load_word_embeddings(arguments.llm_name_or_path, arguments.llm_revision)
            if config.quantize and config.human_weight * config.mmd_weight > 0
            else None
        ),
        callbacks=[JsonLinesCallback(run.metrics), StartEpoch(windows)],
    )
    cost = report_cost(trainer)
    # The noise of Eq. 3 is drawn on every process: another one each.
    transformers.set_seed(training.seed + 1_000_003 * training.process_index)
    run.train(trainer)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    metrics = evaluate_tokenizer(
        model, extractor, train_rows if held_out is None else held_out, training.eval_batch_size
    )
    model.save_pretrained(run.model)
    extractor.save_pretrained(run.model)
    run.write_record(
        stage="train_tokenizer",
        dataset=data.dataset,
        recordings=len(train_rows),
        training_classes=rows.features["label"].names,
        hold_out=arguments.hold_out,
        evaluated_on="training recordings" if held_out is None else "held-out training subjects",
        metrics=metrics,
        seed=training.seed,
        settings={
            **dataclasses.asdict(model_arguments),
            "codebook_dim": config.codebook_dim,
            "window": arguments.window,
            "learning_rate": training.learning_rate,
            "batch_size": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
            "steps": trainer.state.global_step,
        },
        cost=cost,
    )
    logger.info("On %s: %s", run.read_record()["evaluated_on"], metrics)
    logger.info("The action model is in %s", run.model)


if __name__ == "__main__":
    from trl import TrlParser

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = TrlParser(
        (TokenizerArguments, DataArguments, ActionVQVAEArguments, SkeletonArguments, TokenizerTrainingArguments),
        allow_abbrev=False,
    )
    main(*parser.parse_args_and_config())
