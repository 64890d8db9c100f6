"""Early stopping and resuming: a killed run ends like an uninterrupted run."""

import json
import shutil

import pytest
import torch
from killed_training import Kill
from transformers import EarlyStoppingCallback, Trainer

from action_llm_recipes.common.run_folder import JsonLinesCallback, RunFolder
from action_llm_recipes.common.training_arguments import RunTrainingArguments

# Loss on the held-out examples after each step: worse from step 1 to 4, and better again behind.
LOSSES = [9.0, 1.0, 2.0, 3.0, 4.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]


class Counter(torch.nn.Module):
    """A model whose weight is the number of its training steps."""

    def __init__(self):
        super().__init__()
        self.steps = torch.nn.Parameter(torch.zeros(()))

    def forward(self, labels):
        loss = -self.steps if self.training else torch.tensor(LOSSES)[self.steps.round().long()]
        return {"loss": loss, "logits": labels}


class Arguments(RunTrainingArguments, base="transformers.TrainingArguments"):
    pass


def train(folder, killed_after=None):
    run = RunFolder(folder)
    arguments = Arguments(
        output_dir=str(folder), max_steps=10, learning_rate=1.0, optim="sgd", lr_scheduler_type="constant",
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, logging_steps=1, max_grad_norm=0.0,
        load_best_model_at_end=True, metric_for_best_model="eval_loss", greater_is_better=False, use_cpu=True,
        report_to="none", save_total_limit=2,
    )  # fmt: skip
    run.configure(arguments)
    callbacks = [JsonLinesCallback(run.metrics), EarlyStoppingCallback(3)]
    examples = [{"labels": torch.tensor(0.0)}] * 8
    trainer = Trainer(Counter(), arguments, train_dataset=examples, eval_dataset=examples, callbacks=callbacks)
    if killed_after is not None:
        trainer.add_callback(Kill(killed_after))
    run.train(trainer, "counter")
    names = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    assert len(names) == len(set(names)), "a resume adds no callback twice"
    return trainer


def logged_losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainer = train(folder)
    assert trainer.state.global_step == 4 and trainer.model.steps.item() == 1, "the best of four steps is the first"
    return folder


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_killed_run_stops_early_at_the_same_step_as_an_uninterrupted_run(uninterrupted, step, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, killed_after=step)
    trainer = train(tmp_path)
    assert trainer.state.global_step == 4 and trainer.model.steps.item() == 1
    assert logged_losses(tmp_path) == logged_losses(uninterrupted)


def test_a_run_that_stopped_early_and_was_killed_before_its_record_is_not_trained_further(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob("trainer_state.json"):
        path.write_text(path.read_text().replace(str(uninterrupted), str(tmp_path)))
    trainer = train(tmp_path)
    assert trainer.state.global_step == 4 and trainer.model.steps.item() == 1
    assert logged_losses(tmp_path) == logged_losses(uninterrupted)
