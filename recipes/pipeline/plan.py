"""What a run of the whole line is going to do, and about how long it takes, before anything is trained."""

import logging
import math
import time
from collections.abc import Collection
from typing import NamedTuple

from action_llm_datasets.progress import duration
from action_llm_recipes.pipeline.stages import STAGES

logger = logging.getLogger(__name__)

TITLES = {"small_lm": "small language model"} | {name: stage.title for name, stage in STAGES.items()}

# Milliseconds for an example of a training step, or for a sentence, with the default settings and small models, on one core of
# the machine whose results are in model_cards/results. Each stage measures itself when it begins (`run_cost`); this is for
# whoever wants to know before.
MILLISECONDS = {
    "backbone": 25.0,
    "features": 60.0,
    "lvlm": 10.0,
    "tokenizer": 4.0,
    "encode": 1.5,
    "sft": 8.0,
    "evaluation": 5.0,
}
SMALL_LM_SECONDS = 100.0
# Seconds of `probe` on that core.
PROBE_SECONDS = 0.07


class RecordingCounts(NamedTuple):
    """Numbers of recordings and of their sentences.

    Attributes:
        trained: recordings that are trained on.
        held_out: training recordings that are left out of training.
        test: recordings of the test split.
        evaluates_held_out: whether the held-out recordings are evaluated in place of the test.
        encodings: sentences of each training recording.
        test_encodings: sentences of each recording that is evaluated.
    """

    trained: int
    held_out: int
    test: int
    evaluates_held_out: bool
    encodings: int
    test_encodings: int


def show_plan(
    settings: dict[str, dict], counts: RecordingCounts, makes_llm: bool, done: Collection[str] = ()
) -> float | None:
    """
    Logs the stages with their steps and times, and the total.

    Args:
        settings: of the stages that have some, as in their YAML files, with the defaults of the recipes
            (`launching.with_defaults`).
        counts: of recordings and their sentences.
        makes_llm: whether the language model is the small one; of another one, the time of stage 2 is not known yet.
        done: stages that an earlier start has finished, which take no time.

    Returns:
        Seconds in all; None where a stage is of unknown time.
    """
    speed = probe() / PROBE_SECONDS
    rows = []
    if makes_llm:
        rows.append(("small_lm", "unless it was made before", SMALL_LM_SECONDS))
    for stage in ("backbone", "features", "lvlm", "tokenizer"):
        if stage in settings:
            rows.append((stage, *work_of(stage, settings[stage], counts)))
    evaluated = counts.held_out if counts.evaluates_held_out else counts.test
    asked = evaluated * counts.test_encodings
    train = counts.trained + counts.held_out
    # Where the held-out recordings are evaluated, with sentences of training recordings, test recordings have one each.
    sentences = train * counts.encodings + counts.test * (1 if counts.evaluates_held_out else counts.test_encodings)
    work = f"{sentences} of {train} training and {counts.test} test recordings"
    rows.append(("encode", work, MILLISECONDS["encode"] * sentences / 1000))
    rows.append(("sft", *work_of("sft", settings["sft"], counts)))
    work = f"{asked} sentences of {evaluated} recordings"
    rows.append(("evaluation", work, MILLISECONDS["evaluation"] * asked / 1000))
    logger.info("Plan, of %d training recordings:", counts.trained)
    total = 0.0
    for stage, work, seconds in rows:
        if stage in done:
            logger.info("  %-22s done by an earlier start", TITLES[stage])
            continue
        is_known = makes_llm or stage not in ("lvlm", "sft", "evaluation")
        total += seconds * speed * is_known
        time_of_it = f"about {duration(seconds * speed)}" if is_known else "its time depends on the language model"
        logger.info("  %-22s %s, %s", TITLES[stage], work, time_of_it)
    if not makes_llm:
        logger.info("  About %s, and what the language model takes: its stage measures itself.", duration(total))
        return None
    logger.info("  In all about %s on this machine; each stage measures itself when it begins.", duration(total))
    return total


def work_of(stage: str, settings: dict, counts: RecordingCounts) -> tuple[str, float]:
    """What a stage does, and seconds of it on the machine where the times were measured."""
    if stage == "features":
        train = counts.trained + counts.held_out
        versions = train * settings["versions"] + counts.test * settings["test_versions"]
        work = f"{versions} versions of {train} training and {counts.test} test videos"
        return work, MILLISECONDS[stage] * versions / 1000
    if settings.get("method") == "none":
        return "not trained", 0.0
    # An epoch of the language model is of all sentences; the other stages read another version of a recording in each.
    examples = counts.trained * (counts.encodings if stage == "sft" else 1)
    steps = training_steps(settings, examples)
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    early = ", fewer if the loss on held-out recordings stops falling" if settings.get("early_stopping") else ""
    return f"{steps} steps of {batch} examples{early}", MILLISECONDS[stage] * steps * batch / 1000


def training_steps(settings: dict, examples: int) -> int:
    """Optimiser steps of a training in one process: `max_steps`, or else those of its epochs, as `transformers` counts them."""
    if settings["max_steps"] > 0:
        return settings["max_steps"]
    batches = math.ceil(examples / settings["per_device_train_batch_size"])
    return math.ceil(settings["num_train_epochs"] * math.ceil(batches / settings["gradient_accumulation_steps"]))


def probe() -> float:
    """Seconds of work like that of small models, on this machine as busy as it is now."""
    import torch

    left, right = torch.ones(256, 512), torch.full((512, 512), 1e-3)
    for repetition in range(23):
        if repetition == 3:  # the first are slow
            started = time.perf_counter()
        torch.nn.functional.gelu(left @ right)
    return time.perf_counter() - started
