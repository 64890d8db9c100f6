"""
Train a small visual encoder, for use where no pretrained one is available.

```bash
python recipes/pretraining/backbone.py --dataset utd-mhad-video --data_dir UTD-MHAD/Depth --output_dir runs/video/backbone
```

A ResNet reads frames, temporal self-attention (as in `VSTModel`) reads its features, and a linear layer classifies the video.
All of them are trained to classify the training videos; the ResNet is saved, as a transformers model with a
`preprocessor_config.json` that `extract_features.py` reads like any other. It is no foundation model: it was trained on a
single data set. Runs resume automatically. `skipped.json` lists the videos that could not be read when the data set was
prepared.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.training_arguments import RunTrainingArguments
from action_llm_recipes.common.video_arguments import VideoArguments

logger = logging.getLogger(__name__)


@dataclass
class BackboneArguments:
    """The visual encoder and its training."""

    widths: list[int] = field(
        default_factory=lambda: [16, 32, 64, 128], metadata={"help": "channels of each stage of the ResNet"}
    )
    blocks: int = field(default=1, metadata={"help": "residual blocks per stage"})
    label_smoothing: float = field(default=0.1, metadata={"help": "label smoothing of the cross-entropy"})
    mixup: float = field(
        default=0.0,
        metadata={
            "help": "α of mixup's beta distribution, by which the videos of a batch are blended; 0 disables mixup"
        },
    )
    hold_out: bool = field(
        default=False, metadata={"help": "leave the held-out training subjects out of training, and evaluate on them"}
    )


@dataclass
class BackboneTrainingArguments(RunTrainingArguments, base="transformers.TrainingArguments"):
    """`TrainingArguments` for a few hundred videos on two cores."""

    output_dir: str = field(
        default="runs/backbone", metadata={"help": "folder of the run; the encoder is in its subfolder model"}
    )
    num_train_epochs: float = 40
    per_device_train_batch_size: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = field(
        default=0.1, metadata={"help": "warm-up steps, or their share of all steps if below 1"}
    )
    logging_steps: float = 27
    save_strategy: str = "epoch"
    save_total_limit: int | None = 2
    remove_unused_columns: bool = False


class VideoExamples:
    """Training videos, augmented differently in each epoch. An example depends on seed, epoch and index alone.

    Args:
        rows (`datasets.Dataset`): rows of the videos.
        data_dir (`str`): folder of the videos.
        extractor (`VideoFeatureExtractor`): feature extractor that reads the videos.
        seed (`int`): seed of the augmentation.
    """

    def __init__(self, rows, data_dir: str, extractor, seed: int):
        self.rows, self.data_dir, self.extractor, self.seed = rows, data_dir, extractor, seed
        self.epoch = 0

    def start_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        from action_llm.recording_versions import stable_seed

        row = self.rows[int(index)]
        inputs = read_video(row, self.data_dir, self.extractor, stable_seed(self.seed, self.epoch, int(index)))
        return {"pixel_values": inputs["pixel_values"][0], "labels": row["label"]}


def read_video(row: dict, data_dir: str, extractor, seed: int | None = None) -> dict:
    """The features of a video; augmented if there is a seed."""
    from action_llm_datasets.videos import open_row

    with open_row(data_dir, row) as video:
        return extractor(video, augment=seed is not None, seed=seed)


ARGUMENTS = (BackboneArguments, DataArguments, VideoArguments, BackboneTrainingArguments)


@writes_output_dir
def main(arguments: BackboneArguments, data: DataArguments, reading, training: BackboneTrainingArguments):
    """Trains the visual encoder and saves it with its feature extractor and record."""
    import transformers
    from transformers import ResNetConfig

    from action_llm import VideoFeatureExtractor
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.data_arguments import held_out_rows, unreadable_files, without_held_out
    from action_llm_recipes.common.run_folder import JsonLinesCallback, RunFolder
    from action_llm_recipes.common.split_evidence import SplitEvidence
    from action_llm_recipes.pretraining.video_recogniser import VideoRecogniser
    from action_llm_recipes.stages.tokenizer_trainer import StartEpoch

    if not 0 <= arguments.mixup < float("inf"):
        raise ValueError(f"mixup must be at least 0, got {arguments.mixup}.")
    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, data, reading, training)
    dataset = data.load("videos")
    if not run.begin_training(training, data.identity(dataset)):
        return
    extractor = VideoFeatureExtractor(**{name: value for name, value in asdict(reading).items() if value is not None})
    rows = without_held_out(dataset["train"], arguments.hold_out)
    config = ResNetConfig(
        embedding_size=arguments.widths[0],
        hidden_sizes=arguments.widths,
        depths=[arguments.blocks] * len(arguments.widths),
        layer_type="basic",
    )
    names = rows.features["label"].names
    examples = VideoExamples(rows, data.data_dir, extractor, training.seed)
    trainer = transformers.Trainer(
        model=VideoRecogniser(config, len(names), arguments.label_smoothing, arguments.mixup),
        args=training,
        train_dataset=examples,
        callbacks=[JsonLinesCallback(run.metrics), StartEpoch(examples)],
    )
    run.train(trainer, "visual encoder")
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    held_out = held_out_rows(dataset["train"]) if arguments.hold_out else []
    metrics = {"held_out_top_1": accuracy(model, held_out, data.data_dir, extractor)} if held_out else {}
    model.encoder.backbone.save_pretrained(run.model)
    extractor.save_pretrained(run.model)
    unreadable = unreadable_files(dataset)
    write_atomically(run.path / "skipped.json", json.dumps(unreadable, indent=2, ensure_ascii=False) + "\n")
    run.write_record(
        SplitEvidence.of_data(data, dataset, hold_out=arguments.hold_out),
        stage="pretrain_backbone",
        dataset=data.dataset,
        data=data.about(dataset),
        recordings=len(rows),
        unreadable_files=len(unreadable),
        training_classes=names,
        hold_out=arguments.hold_out,
        metrics=metrics,
        seed=training.seed,
        settings=asdict(arguments),
    )
    run.log_finished(
        "Visual encoder",
        f"{len(rows)} videos",
        *(f"top-1 {top_1:.1%} on {len(held_out)} held-out videos" for top_1 in metrics.values()),
    )
    logger.info("  in %s", run.model)


def accuracy(model, rows: Sequence[dict], data_dir: str, extractor) -> float:
    """Fraction of videos whose class a [`VideoRecogniser`] predicts."""
    import torch

    device, correct = next(model.parameters()).device, 0
    for row in rows:
        pixel_values = read_video(row, data_dir, extractor)["pixel_values"].to(device)
        with torch.no_grad():
            correct += int(model(pixel_values)["logits"].argmax()) == row["label"]
    return correct / len(rows)


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
