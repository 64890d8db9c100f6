"""
The whole pipeline of LLM-AR in a few minutes on two CPU cores, offline, on simulated recordings.

```bash
python recipes/quickstart.py
```

It simulates people who perform actions, and trains a small language model on text about bodies and actions. Then, for the
cross-subject and the cross-view protocol, it trains the action-based VQ-VAE, encodes the recordings as action sentences, trains
LoRA on the frozen language model, and evaluates. At the end there are a folder that is ready for the Hub, pictures, and the
five lines of code that load the model. All recordings are simulated: the numbers show that the pipeline works, not how well it
recognises people.

`--llm NAME` uses another language model, from a folder, a GGUF file or the Hub; `--llm smollm2` is SmolLM2-135M-Instruct. Runs
resume automatically.
"""

import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_datasets.endings import SIGNALS, handle_signals
from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_language_model

logger = logging.getLogger("quickstart")

# Placeholder for the repository name on the model page.
REPOSITORY = "me/llm-ar-simulated"
PROTOCOLS = {"cross-subject": "simulated-xsub", "cross-view": "simulated-xview"}
CLEAR_LINE = "\r\x1b[K"


@dataclass
class QuickstartArguments:
    """The simulated recordings, and the language model."""

    output_dir: str = field(default="runs/quickstart", metadata={"help": "folder of the run"})
    performers: int = field(default=20, metadata={"help": "number of simulated people"})
    replications: int = field(default=1, metadata={"help": "number of times that each person performs each action"})
    llm: str | None = field(
        default=None,
        metadata={
            "help": "language model: Hub repository, folder, GGUF file or smollm2; by default a small one is trained"
        },
    )
    processes: int = field(
        default=2, metadata={"help": "number of protocols that run in parallel, on one core each; 1 runs them in turn"}
    )
    seed: int = field(default=0, metadata={"help": "random seed of all stages"})

    def __post_init__(self):
        if self.llm is not None:
            check_language_model(self.llm)


ARGUMENTS = (QuickstartArguments,)


@writes_output_dir
def main(arguments: QuickstartArguments):
    """Runs the quickstart; returns the metrics of both protocols."""
    from action_llm_recipes.common.run_folder import RunFolder

    if arguments.performers < 3:
        raise ValueError(
            f"performers must be at least 3, so that somebody is a test subject, got {arguments.performers}."
        )
    folder = Path(arguments.output_dir)
    run = RunFolder(folder)
    run.check_identity(
        {
            "performers": arguments.performers,
            "replications": arguments.replications,
            "actions": list(ACTIONS),
            "llm": arguments.llm,
            "seed": arguments.seed,
        }
    )
    try:
        return run_quickstart(arguments, run)
    finally:
        run.save_elapsed()


def run_quickstart(arguments: QuickstartArguments, run) -> dict:
    """Runs all steps in the folder of `run` (`RunFolder`); returns the metrics of both protocols."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import duration, finished
    from action_llm_datasets.simulation.simulate import simulate
    from action_llm_recipes.evaluate_classifier import table

    folder, started = run.path, time.monotonic()
    recordings = folder / "simulated_recordings"
    counts = {"performers": arguments.performers, "replications": arguments.replications}
    simulated = simulate(recordings, **counts, actions=ACTIONS, seed=arguments.seed)["recordings"]
    finished("Simulation", time.monotonic() - started, f"{simulated} simulated recordings")

    llm = arguments.llm
    if llm is None:
        from action_llm_recipes.pretraining.small_lm import SmallLMArguments, kept_small_lm

        llm = kept_small_lm(SmallLMArguments(passages=PASSAGES), arguments.seed)
    prepare(recordings, folder)

    work = [
        (name, protocol, str(folder), str(recordings), llm, arguments.seed) for name, protocol in PROTOCOLS.items()
    ]
    results = side_by_side(work, arguments.processes) if arguments.processes > 1 else dict(map(run_protocol, work))

    finishing = time.monotonic()
    model = make_repository(folder)
    draw(folder, recordings)
    finished("Pictures and page", time.monotonic() - finishing)
    results = {name: results[name] for name in PROTOCOLS}
    summary = {"data": "simulated recordings", "seconds": round(run.seconds), **results}
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    logger.info("\nOn simulated recordings, after %s:\n\n%s", duration(summary["seconds"]), table(results))
    example = next(path for path in sorted(recordings.glob("*.skeleton")) if "P003" in path.name)
    logger.info(NEXT_STEPS, model, model, example, model, example, folder)
    return summary


NEXT_STEPS = """
To use it:

from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("%s", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("%s", trust_remote_code=True)
outputs = model(**processor("%s"))
print(model.config.id2label[int(outputs.logits.argmax())], float(outputs.probabilities.max()))

To see it at work (pip install -e ".[demo]"), and to upload it:

action-llm-demo --model %s --examples %s
action-llm-push %s me/llm-ar-simulated --dry_run
"""


def prepare(recordings: Path, folder: Path):
    """Prepares the data sets, before the protocols share them."""
    from action_llm_datasets.load import load_action_dataset
    from action_llm_datasets.progress import finished

    started = time.monotonic()
    for protocol in PROTOCOLS.values():
        load_action_dataset(protocol, recordings, cache_dir=folder / "prepared", num_proc=os.cpu_count())
    finished("Data sets", time.monotonic() - started, " and ".join(PROTOCOLS.values()))


def side_by_side(work: list[tuple], processes: int) -> dict[str, dict]:
    """
    Runs protocols in parallel, each in a process with a single core, which is fastest for models this small.

    It logs a line for each finished stage of a protocol. A terminal shows the progress of all protocols in its last line.

    Args:
        work: arguments of `run_protocol` for each protocol.
        processes: number of processes.

    Returns:
        The metrics of each protocol, by its name.
    """
    context = multiprocessing.get_context("spawn")
    progress_texts = {name: context.RawArray(ctypes.c_char, 80) for name, *_ in work}
    for text in progress_texts.values():
        text.value = b"starting"
    logger.info("\n%s in parallel:", " and ".join(progress_texts))
    pool = ProcessPoolExecutor(min(processes, len(work)), context, _start_process, (progress_texts,))
    with ending_at_once(), pool, ending_processes():
        results = [pool.submit(run_protocol, arguments) for arguments in work]
        failed = set()
        while wait(results, timeout=1).not_done:
            # The error of a protocol is shown at once. The other protocol runs on, so that its work is not lost.
            for (name, *_), result in zip(work, results, strict=True):
                error = result.exception() if result.done() else None
                if name not in failed and isinstance(error, Exception):
                    failed.add(name)
                    logger.error("  %-15s %s", name, error)
            if sys.stderr.isatty():
                status = "   ".join(f"{name}: {text.value.decode()}" for name, text in progress_texts.items())
                width = shutil.get_terminal_size().columns - 3
                print(f"{CLEAR_LINE}  {status[:width]}", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
        logger.info("")
        return dict(result.result() for result in results)


@contextlib.contextmanager
def ending_at_once():
    """Ends the processes at a second Ctrl-C, which may come while they finish a step."""
    try:
        yield
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()
        raise


@contextlib.contextmanager
def ending_processes():
    """Ends the processes at Ctrl-C: they finish the step of a training, and save a checkpoint."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nStopping both protocols; a second signal stops at once.", file=sys.stderr)
        for process in multiprocessing.active_children():
            process.terminate()
        raise


# In a process of `side_by_side`: the progress of each protocol, shared with the first process.
_progress_texts = {}


def _start_process(progress_texts: dict):
    """Initialises a process of `side_by_side`: a single core, and a log of finished stages and problems."""
    import torch

    from action_llm_datasets.progress import set_up_output

    for signum in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)  # the first process ends this one
    torch.set_num_threads(1)
    set_up_output()
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("action_llm_datasets.progress").setLevel(logging.INFO)
    # It warns that batches are too small for Zipf's law; the settings below give that loss a small weight.
    logging.getLogger("action_llm.modeling_action_vqvae").setLevel(logging.ERROR)
    _progress_texts.update(progress_texts)


def run_protocol(work: tuple) -> tuple[str, dict]:
    """Runs the pipeline for a protocol; returns its name and its metrics."""
    name, protocol, folder, recordings, llm, seed = work
    is_parallel = name in _progress_texts
    if is_parallel:
        handle_signals([signal.SIGTERM], speaks=False)
    from action_llm_datasets.progress import Progress
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.run_line import run_main_stages

    if is_parallel:
        clear = CLEAR_LINE if sys.stderr.isatty() else ""
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(f"{clear}  {name:<16}%(message)s"))

        def show(text: str):
            _progress_texts[name].value = text.encode()

        Progress.listener = show
    else:
        logger.info("\n%s:", name)
    data = DataArguments(dataset=protocol, data_dir=recordings, cache_dir=str(Path(folder) / "prepared"))
    common = {"seed": seed, "use_cpu": True}
    try:
        metrics = run_main_stages(
            data,
            {"llm_name_or_path": llm},
            Path(folder) / name,
            {
                "tokenizer": {**SKELETON, **TOKENIZER, **TOKENIZER_TRAINING, **common},
                "encode": {"encodings": ENCODINGS},
                "sft": {**LORA, **LORA_TRAINING, **common},
                "evaluation": {},
            },
        )
    finally:
        if is_parallel:  # without work, the process may end at once
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return name, metrics


# NTU's ids of 16 of the 24 simulated actions, five of them of two people. The others differ from these mostly in the hands
# (wiping, saluting, pointing), and action words that are learned in two minutes are too coarse for hands.
ACTIONS = (6, 7, 8, 9, 10, 23, 24, 26, 27, 35, 43, 50, 55, 58, 59, 60)
PASSAGES = 4000
# All settings were chosen on held-out training subjects.
SKELETON = {
    # The position of the body moves all joints. Without it, more of the 256 codes are left for the limbs.
    "center": "frame",
}
TOKENIZER = {
    "hidden_width": 64,
    "codebook_size": 256,
    "kmeans_init": True,
    "ema_decay": 0.95,
    "dead_code_threshold": 0.1,
    "gumbel_temperature": 0.1,
    "commitment_weight": 0.25,
    # In such a short run, stronger language priors outweigh the motion.
    "human_weight": 0.005,
}
TOKENIZER_TRAINING = {
    "max_steps": 310,
    "per_device_train_batch_size": 48,
    "warmup_steps": 20,
    "learning_rate": 1e-3,
    "lr_drop_step": 260,
    "lr_drop_factor": 0.1,
    "logging_steps": 100,
    "save_steps": 200,
}
ENCODINGS = 8
LORA = {
    "lora_r": 64,
    "lora_alpha": 64,
    "lora_dropout": 0.0,
    # All linear layers, not only q and v as in the paper: in so small a model, those two have too few weights.
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
LORA_TRAINING = {
    "max_steps": 330,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 20,
    "logging_steps": 60,
    "save_steps": 200,
}


def make_repository(folder: Path) -> Path:
    """Writes the recogniser of the cross-subject protocol as `hub/push.py` would push it; returns the folder."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes import token_lexicon
    from action_llm_recipes.hub.push import repository_files

    run, model = folder / "cross-subject", folder / "model"
    token_lexicon.main(
        token_lexicon.LexiconArguments(str(run / "tokenizer" / "model"), str(run / "sentences"), str(run / "lexicon"))
    )
    files, _ = repository_files(run, REPOSITORY)
    for name, content in files.items():
        write_atomically(model / name, content)
    return model


def draw(folder: Path, recordings: Path):
    """Draws some recordings with their sentences, and copies the pictures of the token usage and the evaluations."""
    import numpy as np

    from action_llm import ActionLLMProcessor
    from action_llm.skeleton_files import read_skeleton
    from action_llm_recipes.common.action_sentences import load_action_sentences
    from action_llm_recipes.metrics.plots import plot_action_sentence

    pictures = folder / "pictures"
    sentences = load_action_sentences(folder / "cross-subject" / "sentences")
    processor = ActionLLMProcessor.from_pretrained(folder / "model")
    test = sentences["test"]
    names = test.features["label"].names
    paths = {path.stem: path for path in recordings.rglob("*.skeleton")}
    for row in test.select(range(0, len(test), max(1, len(test) // 6))):
        recording = read_skeleton(paths[row["sample_id"]])
        plot_action_sentence(
            recording.keypoints,
            processor.feature_extractor.skeleton_layout,
            recording.fps,
            np.asarray(row["action_ids"]),
            np.asarray(row["start_times"]),
            np.asarray(row["end_times"]),
            pictures / f"{row['sample_id']}.png",
            title=f"{names[row['label']]} (simulated)",
        )
    shutil.copy(folder / "cross-subject" / "sentences" / "token_usage.png", pictures)
    for name in PROTOCOLS:
        for picture in ("confusion", "calibration", "per_class"):
            shutil.copy(folder / name / "evaluation" / f"{picture}.png", pictures / f"{name}-{picture}.png")


def cli():
    """The command `action-llm-quickstart`."""
    launch(main, *ARGUMENTS, resumes=True)


if __name__ == "__main__":
    cli()
