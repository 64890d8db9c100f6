"""What a recipe says while it runs."""

import logging

import pytest

from action_llm_datasets import progress as module
from action_llm_datasets.progress import Progress, duration, finished, progress


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger=module.__name__)
    return lambda: [record.getMessage() for record in caplog.records]


def test_long_work_has_a_line_at_each_quarter(said, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0)
    assert list(progress(range(8), "reading", "files")) == list(range(8))
    assert [line.split(",")[0] for line in said()] == [f"  reading: {done} of 8 files" for done in (2, 4, 6)]


def test_short_work_has_none(said):
    list(progress(range(8), "reading", "files"))
    assert said() == []


def test_work_that_was_begun_before_counts_from_there(said, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0)
    with Progress("training", 100, done=60) as so_far:
        so_far.update(10, "loss 0.5")
        so_far.update(10, "loss 0.4")
    assert said() == ["  training: 80 of 100 steps, loss 0.4, 0 s left"]


def test_another_process_hears_how_far_work_is(said, monkeypatch):
    heard = []
    monkeypatch.setattr(Progress, "listener", heard.append)
    list(progress("abcd", "scoring", "batch"))
    assert heard == [f"scoring {share}%" for share in (25, 50, 75, 100)] and said() == []


def test_a_stage_that_is_done_is_a_line(said):
    finished("Sentences", 95.2, "48 of 12 train recordings", "21.0 words each")
    assert said() == ["Sentences                 95 s   48 of 12 train recordings, 21.0 words each"]
    assert [duration(seconds) for seconds in (3, 600, 7200)] == ["3 s", "10 min", "2.0 h"]


def test_a_trainer_prints_nothing_of_its_own(tmp_path):
    from transformers import PrinterCallback, ProgressCallback

    from action_llm_recipes.common.run_folder import Checkpoints, RunFolder, TrainingProgress
    from action_llm_recipes.pretraining.small_lm import SmallLMConfig

    class Trainer:
        def __init__(self):
            self.callbacks = {PrinterCallback, ProgressCallback}
            self.args = SmallLMConfig(output_dir=str(tmp_path), use_cpu=True)

        def remove_callback(self, callback):
            self.callbacks.discard(callback)

        def add_callback(self, callback):
            self.callbacks.add(type(callback))

        def train(self, resume_from_checkpoint):
            self.trained = True

    trainer = Trainer()
    RunFolder(tmp_path).train(trainer, "language model")
    assert trainer.trained and trainer.callbacks == {TrainingProgress, Checkpoints}


def test_memory_is_pinned_only_for_a_gpu(tmp_path):
    import torch

    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.pretraining.small_lm import SmallLMConfig

    training = SmallLMConfig(output_dir=str(tmp_path), use_cpu=True)
    RunFolder(tmp_path).configure(training)
    assert training.dataloader_pin_memory == torch.cuda.is_available()
    assert training.output_dir == str(tmp_path / "checkpoints")
