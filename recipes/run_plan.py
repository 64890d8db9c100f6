"""What a run of the whole line is going to do, and about how long it takes, before anything is trained."""

import logging
import time

from action_llm_datasets.progress import duration

logger = logging.getLogger(__name__)

TITLES = {
    "small_lm": "small language model",
    "backbone": "visual encoder",
    "features": "features of videos",
    "lvlm": "small LVLM",
    "tokenizer": "action model",
    "encode": "sentences",
    "sft": "language model",
    "evaluation": "evaluation",
}

# Milliseconds for an example of a training step, or for a sentence, with the default settings and small models, on one core of
# the machine whose results are in model_cards/results. Each stage measures itself when it begins (`run_cost.py`); this is for
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


def show_plan(
    settings: dict[str, dict],
    recordings: int,
    evaluated: int,
    encodings: int,
    test_encodings: int,
    makes_llm: bool,
) -> float | None:
    """
    Logs the stages with their steps and times, and the total.

    Args:
        settings: of the stages that have some, as in their YAML files.
        recordings, evaluated: numbers of recordings that train, and that are evaluated.
        encodings, test_encodings: sentences of each of them.
        makes_llm: whether the language model is the small one; of another one, the time of stage 2 is not known yet.

    Returns:
        Seconds in all; None where a stage is of unknown time.
    """
    speed = probe() / PROBE_SECONDS
    rows = []
    if makes_llm:
        rows.append(("small_lm", "unless it was made before", SMALL_LM_SECONDS))
    for stage in ("backbone", "features", "lvlm", "tokenizer"):
        if stage in settings:
            rows.append((stage, *work_of(settings[stage], recordings, stage)))
    asked = evaluated * test_encodings
    sentences = recordings * encodings + asked
    work = f"{sentences} of {recordings} training and {evaluated} evaluated recordings"
    rows.append(("encode", work, MILLISECONDS["encode"] * sentences / 1000))
    rows.append(("sft", *work_of(settings["sft"], recordings, "sft")))
    work = f"{asked} sentences of {evaluated} recordings"
    rows.append(("evaluation", work, MILLISECONDS["evaluation"] * asked / 1000))
    logger.info("Plan, of %d training recordings:", recordings)
    total = 0.0
    for stage, work, seconds in rows:
        is_known = makes_llm or stage not in ("lvlm", "sft", "evaluation")
        total += seconds * speed * is_known
        time_of_it = f"about {duration(seconds * speed)}" if is_known else "its time depends on the language model"
        logger.info("  %-22s %s, %s", TITLES[stage], work, time_of_it)
    if not makes_llm:
        logger.info("  About %s, and what the language model takes: its stage measures itself.", duration(total))
        return None
    logger.info("  In all about %s on this machine; each stage measures itself when it begins.", duration(total))
    return total


def work_of(settings: dict, recordings: int, stage: str) -> tuple[str, float]:
    """What a stage does, and seconds of it on the machine where the times were measured."""
    if stage == "features":
        versions = settings.get("versions", 1)
        return f"{versions} of each video", MILLISECONDS[stage] * versions * recordings / 1000
    batch = settings.get("per_device_train_batch_size", 8) * settings.get("gradient_accumulation_steps", 1)
    steps = settings.get("max_steps", 0)
    if steps <= 0:
        steps = round(settings.get("num_train_epochs", 1) * -(-recordings // batch))
    early = ", fewer if the loss on held-out recordings stops falling" if settings.get("early_stopping") else ""
    return f"{steps} steps of {batch} examples{early}", MILLISECONDS[stage] * steps * batch / 1000


def probe() -> float:
    """Seconds of work like that of small models, on this machine as busy as it is now."""
    import torch

    left, right = torch.ones(256, 512), torch.full((512, 512), 1e-3)
    for repetition in range(23):
        if repetition == 3:  # the first are slow
            started = time.perf_counter()
        torch.nn.functional.gelu(left @ right)
    return time.perf_counter() - started
