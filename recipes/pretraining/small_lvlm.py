"""
Train a small vision-language model, for use where LLaVA is not available: a projector between a visual encoder and a small
language model.

```bash
python recipes/pretraining/small_lvlm.py --dataset features --data_dir runs/events/features \\
    --llm_name_or_path runs/small_lm/model --output_dir runs/events/small_lvlm
```

It is built like LLaVA (Liu et al. 2024): features of the frozen vision tower pass through two linear layers with a GELU and are
put before a question, and projector and language model learn to answer. The questions ask for the class of a training video in
several wordings; there is no other training data. The model takes the place of the frozen LVLM of VT-LVLM-AR, of which only
prompts are trained afterwards (`sft.py --method prefix`). `OUTPUT_DIR/model` is a `LlavaForConditionalGeneration` with its
tokenizer. Runs resume automatically.
"""

import logging
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.training_arguments import RunTrainingArguments
from action_llm_recipes.common.written_folders import check_language_model, public_name
from action_llm_recipes.stages.video_stage import FeatureExamples, feature_statistics

logger = logging.getLogger(__name__)

IMAGE_TOKEN = "<image>"
# The prompt of the recogniser differs from these questions; otherwise prompts would have nothing to learn.
QUESTIONS = (
    "What is the person doing?",
    "Which action is shown?",
    "What happens in the video? Name the action.",
    "Which of these actions is it: {classes}?",
    "Name what is done. It is one of {classes}.",
)
# Features are averaged over segments of random lengths, down to a quarter of their number, since events have any length.
MAX_MEAN_LENGTH = 4


@dataclass
class SmallLVLMArguments:
    """The language model, and the held-out subjects."""

    llm_name_or_path: str = field(metadata={"help": "causal language model: repository, folder or GGUF file"})
    llm_revision: str | None = field(
        default=None,
        metadata={"help": "commit of the language model's repository", "belongs_to": "llm_name_or_path"},
    )
    hold_out: bool = field(default=False, metadata={"help": "leave the held-out training subjects out of training"})

    def __post_init__(self):
        check_language_model(self.llm_name_or_path)


@dataclass
class SmallLVLMTrainingArguments(RunTrainingArguments, base="transformers.TrainingArguments"):
    """`TrainingArguments` for a few hundred videos on two cores."""

    output_dir: str = field(default="runs/small_lvlm", metadata={"help": "folder of the run"})
    max_steps: int = 600
    per_device_train_batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 30
    logging_steps: float = 50
    save_steps: float = 200
    save_total_limit: int | None = 1
    remove_unused_columns: bool = False


class QuestionExamples(FeatureExamples):
    """Features of videos, averaged over random segments, with a question and its answer.

    An example depends on seed, epoch and index alone.

    Args:
        rows (`datasets.Dataset`): features, as `extract_features.py` writes them.
        tokenizer: tokenizer of the language model.
        seed (`int`): seed of the segments and questions.
    """

    def __init__(self, rows, tokenizer, seed: int):
        super().__init__(rows)
        self.names, self.tokenizer, self.seed = rows.features["label"].names, tokenizer, seed

    def __getitem__(self, index: int) -> dict:
        import random

        import torch

        from action_llm.recording_versions import stable_seed

        example = super().__getitem__(index)
        generator = random.Random(stable_seed(self.seed, self.epoch, int(index)))
        features = torch.as_tensor(example["input_features"]).mean(dim=1)
        count = generator.randint(max(1, len(features) // MAX_MEAN_LENGTH), len(features))
        borders = [0, *sorted(generator.sample(range(1, len(features)), count - 1)), len(features)]
        features = torch.stack([features[start:end].mean(dim=0) for start, end in pairwise(borders)])
        classes = ", ".join(generator.sample(self.names, len(self.names)))
        question = f" {generator.choice(QUESTIONS).format(classes=classes)}"
        question_ids, ids = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (question, f"{question} {self.names[example['labels']]}")
        )
        ids = [*ids, self.tokenizer.eos_token_id]
        labels = [-100] * len(question_ids) + ids[len(question_ids) :]
        return {"features": features, "input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


ARGUMENTS = (SmallLVLMArguments, DataArguments, SmallLVLMTrainingArguments)


@writes_output_dir
def main(arguments: SmallLVLMArguments, data: DataArguments, training: SmallLVLMTrainingArguments):
    """Trains the small LVLM and saves it with its tokenizer and record."""
    import torch
    import transformers
    from transformers import AutoModel, AutoModelForCausalLM

    from action_llm.language_models import locate
    from action_llm.tokenizer_files import load_tokenizer
    from action_llm_recipes.common.data_arguments import without_held_out
    from action_llm_recipes.common.run_cost import report_cost
    from action_llm_recipes.common.run_folder import JsonLinesCallback, RunFolder
    from action_llm_recipes.common.split_evidence import ACTION_MODEL, LANGUAGE_MODEL, SplitEvidence
    from action_llm_recipes.common.stage_records import llm_training
    from action_llm_recipes.pretraining.visual_instruction_trainer import VisualInstructionTrainer
    from action_llm_recipes.stages.tokenizer_trainer import StartEpoch

    transformers.set_seed(training.seed)
    run = RunFolder(training.output_dir)
    run.save_config(arguments, data, training)
    dataset = data.load("features")
    if not run.begin_training(training, data.identity(dataset)):
        return
    rows = without_held_out(dataset["train"], arguments.hold_out)
    evidence = SplitEvidence.of_data(data, dataset, hold_out=arguments.hold_out)
    encoder = {"tokenizer": {"features": data.features_record()}}
    evidence.check_training({"sentences": encoder}, untrained=(ACTION_MODEL, LANGUAGE_MODEL))
    names = rows.features["label"].names
    place, revision = locate(arguments.llm_name_or_path, arguments.llm_revision)
    tokenizer = load_tokenizer(place, revision=revision)
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    model = join(
        AutoModel.from_pretrained(Path(data.data_dir, "backbone"), dtype=torch.float32, trust_remote_code=False),
        AutoModelForCausalLM.from_pretrained(place, revision=revision, dtype=torch.float32, trust_remote_code=False),
        data.features_record().get("feature_layer"),
        tokenizer,
        *feature_statistics(rows),
    )
    examples = QuestionExamples(rows, tokenizer, training.seed)
    trainer = VisualInstructionTrainer(
        model=model,
        args=training,
        train_dataset=examples,
        data_collator=collate,
        callbacks=[JsonLinesCallback(run.metrics), StartEpoch(examples)],
    )
    # The loss is a mean over a micro-batch, so Trainer must divide it by the number of micro-batches.
    trainer.model_accepts_loss_kwargs = False
    cost = report_cost(trainer, "small LVLM")
    run.train(trainer, "small LVLM")
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(run.model)
    tokenizer.save_pretrained(run.model)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    run.write_record(
        evidence,
        stage="pretrain_small_lvlm",
        dataset=data.protocol(),
        features=data.features_record(),
        llm=public_name(arguments.llm_name_or_path),
        llm_training=llm_training(arguments.llm_name_or_path),
        recordings=len(examples),
        training_classes=names,
        hold_out=arguments.hold_out,
        seed=training.seed,
        settings={name: value for name, value in asdict(arguments).items() if value is not None}
        | {"llm_name_or_path": public_name(arguments.llm_name_or_path)},
        cost=cost,
        final_loss=losses[-1] if losses else None,
    )
    run.log_finished("Small LVLM", *(f"loss {loss:.3g}" for loss in losses[-1:]))
    logger.info("  in %s", run.model)


def join(tower, llm, feature_layer: int | None, tokenizer, mean, deviation):
    """A LLaVA of a pretrained vision tower and a pretrained language model, with a new projector.

    Args:
        tower: vision tower.
        llm: causal language model.
        feature_layer: index of the tower's hidden state that is read; None for the last.
        tokenizer: tokenizer of the language model, with the image token.
        mean, deviation: mean and standard deviation (feature_size,) of the tower's features. The first layer of the projector
            is initialised for standardised features, since those of most encoders differ less than they have in common.

    Returns:
        A `LlavaForConditionalGeneration` whose vision tower is frozen.
    """
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    from action_llm.visual_encoder import FeatureStandardisation, VisualEncoder

    llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # LLaVA reads the width of features from this name, which not every model uses (ResNet).
    tower.config.hidden_size = VisualEncoder(tower).feature_size
    # The folders of the parts on this machine stay private.
    tower.config._name_or_path = llm.config._name_or_path = ""
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=llm.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_layer=-1 if feature_layer is None else feature_layer,
        vision_feature_select_strategy="full",
        projector_hidden_act="gelu",
        tie_word_embeddings=llm.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(llm.base_model.state_dict())
    model.lm_head.load_state_dict(llm.lm_head.state_dict())
    model.tie_weights()
    model.generation_config = llm.generation_config
    model.model.vision_tower.requires_grad_(False)
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        for layer in (projector.linear_1, projector.linear_2):
            torch.nn.init.xavier_uniform_(layer.weight)
            layer.bias.zero_()
        statistics = FeatureStandardisation(len(mean))
        statistics.set(mean, deviation)
        projector.linear_1.weight /= statistics.deviation
        projector.linear_1.bias -= projector.linear_1.weight @ statistics.mean
    return model


def collate(examples: list[dict]) -> dict:
    """A batch of `features`, `input_ids` and `labels`, padded at the end; `attention_mask` covers features, then tokens."""
    import torch

    from action_llm_recipes.common.padding import padded

    batch, masks = {}, {}
    for name, value in (("features", 0.0), ("input_ids", 0), ("labels", -100)):
        batch[name], masks[name] = padded([example[name] for example in examples], value)
    return {**batch, "attention_mask": torch.cat([masks["features"], masks["input_ids"]], dim=1)}


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
