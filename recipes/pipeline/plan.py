"""The plan of a pipeline: what each stage will do, and about how long it will take."""

import logging
import math
import time
from collections.abc import Collection
from typing import NamedTuple

from action_llm_datasets.progress import duration
from action_llm_recipes.pipeline.stages import STAGES

logger = logging.getLogger(__name__)

TITLES = {"small_lm": "small language model"} | {name: stage.title for name, stage in STAGES.items()}

# Milliseconds per example of a training step, per video, or per sentence, with the default settings and small models, on one
# core of the machine that made model_cards/results. A rough estimate: each stage measures its own time when it starts
# (`run_cost`).
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
# Seconds that `probe` takes on that core.
PROBE_SECONDS = 0.07


class RecordingCounts(NamedTuple):
    """Numbers of recordings and of their encodings.

    Attributes:
        trained: recordings that are trained on.
        held_out: training recordings that are left out of training.
        test: recordings of the test split.
        evaluates_held_out: whether the held-out recordings are evaluated, not the test split.
        encodings: encodings (sentences) per training recording.
        test_encodings: encodings per evaluated recording.
    """

    trained: int
    held_out: int
    test: int
    evaluates_held_out: bool
    encodings: int
    test_encodings: int


def show_plan(
    settings: dict[str, dict], counts: RecordingCounts, trains_llm: bool, done: Collection[str] = ()
) -> float | None:
    """
    Logs the stages with their steps and times, and the total time.

    Args:
        settings: settings of the stages with a YAML file, completed by the defaults of the recipes (`with_defaults`).
        counts: numbers of recordings and of their encodings.
        trains_llm: whether the language model is the small one. With another one, the time of stage 2 is unknown.
        done: finished stages, which take no time.

    Returns:
        The total time in seconds, or None if the time of a stage is unknown.
    """
    speed = probe() / PROBE_SECONDS
    total, is_complete = 0.0, True
    logger.info("Plan for %d training recordings:", counts.trained)
    for stage, work, seconds in planned_stages(settings, counts, trains_llm):
        if stage in done:
            logger.info("  %-22s already done", TITLES[stage])
            continue
        unknown = None
        if stage in ("lvlm", "sft", "evaluation") and not trains_llm:
            unknown = "language model"
        elif stage == "features" and "backbone" not in settings:
            unknown = "visual encoder"
        total += 0 if unknown else seconds * speed
        is_complete = is_complete and unknown is None
        estimate = f"time depends on the {unknown}" if unknown else f"about {duration(seconds * speed)}"
        logger.info("  %-22s %s, %s", TITLES[stage], work, estimate)
    if not is_complete:
        logger.info(
            "  About %s in total, plus the stages of unknown time: each measures its time when it starts.",
            duration(total),
        )
        return None
    logger.info("  About %s in total on this machine; each stage measures its time when it starts.", duration(total))
    return total


def planned_stages(
    settings: dict[str, dict], counts: RecordingCounts, trains_llm: bool
) -> list[tuple[str, str, float]]:
    """The stages in order: name, amount of work, and seconds on the machine where times were measured; arguments as of
    `show_plan`."""
    stages = [("small_lm", "unless this machine has it already", SMALL_LM_SECONDS)] if trains_llm else []
    for stage in ("backbone", "features", "lvlm", "tokenizer"):
        if stage in settings:
            stages.append((stage, *work_of(stage, settings[stage], counts)))
    train = counts.trained + counts.held_out
    # If held-out recordings are evaluated, they have the encodings of training recordings, and test recordings have one each.
    encodings_per_test = 1 if counts.evaluates_held_out else counts.test_encodings
    sentences = train * counts.encodings + counts.test * encodings_per_test
    work = f"{sentences} of {train} training and {counts.test} test recordings"
    stages.append(("encode", work, MILLISECONDS["encode"] * sentences / 1000))
    stages.append(("sft", *work_of("sft", settings["sft"], counts)))
    evaluated = counts.held_out if counts.evaluates_held_out else counts.test
    sentences = evaluated * counts.test_encodings
    work = f"{sentences} sentences of {evaluated} recordings"
    stages.append(("evaluation", work, MILLISECONDS["evaluation"] * sentences / 1000))
    return stages


def work_of(stage: str, settings: dict, counts: RecordingCounts) -> tuple[str, float]:
    """The amount of work of a stage, and its seconds on the machine where times were measured."""
    if stage == "features":
        train = counts.trained + counts.held_out
        versions = train * settings["versions"] + counts.test * settings["test_versions"]
        work = f"{versions} versions of {train} training and {counts.test} test videos"
        return work, MILLISECONDS[stage] * versions / 1000
    if settings.get("method") == "none":
        return "not trained", 0.0
    # Stage 2 reads all encodings of a recording in an epoch, the other stages one version.
    examples = counts.trained * (counts.encodings if stage == "sft" else 1)
    steps = training_steps(settings, examples)
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    early = ", fewer if the loss on held-out recordings stops falling" if settings.get("early_stopping") else ""
    return f"{steps} steps of {batch} examples{early}", MILLISECONDS[stage] * steps * batch / 1000


def training_steps(settings: dict, examples: int) -> int:
    """Number of optimiser steps in one process: `max_steps`, or that of the epochs, counted as `transformers` does."""
    if settings["max_steps"] > 0:
        return settings["max_steps"]
    batches = math.ceil(examples / settings["per_device_train_batch_size"])
    return math.ceil(settings["num_train_epochs"] * math.ceil(batches / settings["gradient_accumulation_steps"]))


def probe() -> float:
    """Seconds for a fixed amount of work like that of small models, at the current load of this machine."""
    import torch

    left, right = torch.ones(256, 512), torch.full((512, 512), 1e-3)
    for repetition in range(23):
        if repetition == 3:  # the first repetitions are slow
            started = time.perf_counter()
        torch.nn.functional.gelu(left @ right)
    return time.perf_counter() - started
