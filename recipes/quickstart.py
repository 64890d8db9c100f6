"""
The whole line of LLM-AR in a few minutes on two cores, offline, on simulated recordings.

```bash
python recipes/quickstart.py
```

Simulates people doing actions, makes a small language model and lets it read about bodies and actions, and then, for the
cross-subject and for the cross-view protocol: trains the action-based VQ-VAE, writes the recordings as action sentences,
trains LoRA on the frozen language model, and evaluates. It ends with a folder that is ready for the Hub, with pictures, and
with the five lines that load the model. Everything in it is simulated: the numbers say that the line works, not how well it
does on people.

`--llm NAME` reads the sentences with another language model, from a folder or from the Hub. A run that was stopped goes on
where it was.
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
from action_llm_recipes.common.written_folders import check_model_folder

logger = logging.getLogger("quickstart")

# A name to fill in: what the page of the folder for the Hub calls it.
REPOSITORY = "me/llm-ar-simulated"
LINES = {"cross-subject": "simulated-xsub", "cross-view": "simulated-xview"}
CLEAR_LINE = "\r\x1b[K"


@dataclass
class QuickstartArguments:
    """How much is simulated, and who reads it."""

    output_dir: str = field(default="runs/quickstart", metadata={"help": "folder of the run"})
    performers: int = field(default=20, metadata={"help": "simulated people"})
    replications: int = field(default=1, metadata={"help": "how often everybody does everything"})
    llm: str | None = field(default=None, metadata={"help": "another language model: a folder or a Hub repository"})
    processes: int = field(
        default=2, metadata={"help": "lines trained side by side, one core each; 1: after each other"}
    )
    seed: int = field(default=0, metadata={"help": "seed of everything"})

    def __post_init__(self):
        if self.llm is not None:
            check_model_folder(self.llm)


ARGUMENTS = (QuickstartArguments,)


@writes_output_dir
def main(arguments: QuickstartArguments):
    from action_llm_recipes.common.run_folder import RunFolder

    if arguments.performers < 3:
        raise ValueError(
            f"performers: three are the fewest of whom one is a test subject; got {arguments.performers}."
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
    """Everything, in the folder of `run` (`RunFolder`); returns the metrics of both protocols."""
    from action_llm_datasets.progress import duration, finished
    from action_llm_datasets.simulation.simulate import simulate
    from action_llm_recipes.evaluate_classifier import table

    folder, started = run.path, time.monotonic()
    recordings = folder / "simulated_recordings"
    counts = {"performers": arguments.performers, "replications": arguments.replications}
    simulated = simulate(recordings, **counts, actions=ACTIONS, seed=arguments.seed)["recordings"]
    finished("Simulation", time.monotonic() - started, f"{simulated} recordings; nobody was recorded")

    llm = arguments.llm
    if llm is None:
        from action_llm_recipes.pretraining.small_lm import SmallLMArguments, kept_small_lm

        llm = kept_small_lm(SmallLMArguments(passages=PASSAGES), arguments.seed)
    prepare(recordings, folder)

    work = [(name, protocol, str(folder), str(recordings), llm, arguments.seed) for name, protocol in LINES.items()]
    results = side_by_side(work, arguments.processes) if arguments.processes > 1 else dict(map(run_protocol, work))

    finishing = time.monotonic()
    model = make_repository(folder)
    draw(folder, recordings)
    finished("Pictures and page", time.monotonic() - finishing)
    results = {name: results[name] for name in LINES}
    summary = {"data": "simulated recordings", "seconds": round(run.seconds), **results}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    logger.info("\nOn simulated recordings, after %s:\n\n%s", duration(summary["seconds"]), table(results))
    example = next(path for path in sorted(recordings.glob("*.skeleton")) if "P003" in path.name)
    logger.info(FIVE_LINES, model, model, example, model, example, folder)
    return summary


FIVE_LINES = """
To use it:

from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("%s", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("%s", trust_remote_code=True)
outputs = model(**processor("%s"))
print(model.config.id2label[int(outputs.logits.argmax())], float(outputs.probabilities.max()))

To look at what it does (pip install -e ".[demo]"), and to push it:

python recipes/hub/demo.py --model %s --examples %s
python recipes/hub/push.py %s me/llm-ar-simulated --dry_run
"""


def prepare(recordings: Path, folder: Path):
    """Reads the recordings once, before the lines share them."""
    from action_llm_datasets.load import load_action_dataset
    from action_llm_datasets.progress import finished

    started = time.monotonic()
    for protocol in LINES.values():
        load_action_dataset(protocol, recordings, cache_dir=folder / "prepared", num_proc=os.cpu_count())
    finished("Data sets", time.monotonic() - started, " and ".join(LINES.values()))


def side_by_side(work: list[tuple], processes: int) -> dict[str, dict]:
    """`run_protocol` of each, in processes of one core, on which models this small train fastest; metrics by name.

    Lines say which stage of which protocol is done; below them, a terminal shows how far each protocol is.
    """
    context = multiprocessing.get_context("spawn")
    so_far = {name: context.RawArray(ctypes.c_char, 80) for name, *_ in work}
    for text in so_far.values():
        text.value = b"starting"
    logger.info("\n%s side by side:", " and ".join(so_far))
    pool = ProcessPoolExecutor(min(processes, len(work)), context, _start_process, (so_far,))
    with ending_at_once(), pool, ending_processes():
        results = [pool.submit(run_protocol, one) for one in work]
        told = set()
        while wait(results, timeout=1).not_done:
            # What one protocol ends with is said at once; the other is let finish, so that nothing is done twice.
            for (name, *_), result in zip(work, results, strict=True):
                error = result.exception() if result.done() else None
                if name not in told and isinstance(error, Exception):
                    told.add(name)
                    logger.error("  %-15s %s", name, error)
            if sys.stderr.isatty():
                shown = "   ".join(f"{name}: {text.value.decode()}" for name, text in so_far.items())
                width = shutil.get_terminal_size().columns - 3
                print(f"{CLEAR_LINE}  {shown[:width]}", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
        logger.info("")
        return dict(one.result() for one in results)


@contextlib.contextmanager
def ending_at_once():
    """A second Ctrl-C, while the processes come to the end of a step, waits for them no longer."""
    try:
        yield
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()
        raise


@contextlib.contextmanager
def ending_processes():
    """Ctrl-C ends the processes that this one has started: those that train, at the end of a step with a checkpoint of it."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nStopping both protocols; a second signal stops at once.", file=sys.stderr)
        for process in multiprocessing.active_children():
            process.terminate()
        raise


_so_far = {}


def _start_process(so_far: dict):
    """Of a process of `side_by_side`: one core; lines say that a stage is done, and what is wrong."""
    import torch

    from action_llm_datasets.progress import set_up_output

    for signum in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(signum, signal.SIG_IGN)  # the first process ends this one
    torch.set_num_threads(1)
    set_up_output()
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("action_llm_datasets.progress").setLevel(logging.INFO)
    # It warns that batches are too small for Zipf's law, which is why the settings below let it weigh little.
    logging.getLogger("action_llm.modeling_action_vqvae").setLevel(logging.ERROR)
    _so_far.update(so_far)


def run_protocol(work: tuple) -> tuple[str, dict]:
    """Stage 1, sentences, stage 2 and evaluation of one protocol; returns its name and its metrics."""
    name, protocol, folder, recordings, llm, seed = work
    if name in _so_far:
        handle_signals([signal.SIGTERM], speaks=False)
    from action_llm_datasets.progress import Progress
    from action_llm_recipes.common.data_arguments import DataArguments
    from action_llm_recipes.run_line import run_line

    if name in _so_far:
        clear = CLEAR_LINE if sys.stderr.isatty() else ""
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter(f"{clear}  {name:<16}%(message)s"))

        def show(text: str):
            _so_far[name].value = text.encode()

        Progress.listener = show
    else:
        logger.info("\n%s:", name)
    data = DataArguments(dataset=protocol, data_dir=recordings, cache_dir=str(Path(folder) / "prepared"))
    common = {"seed": seed, "use_cpu": True}
    try:
        metrics = run_line(
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
        if name in _so_far:  # while it waits for work, it ends at once
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return name, metrics


# NTU's ids of 16 of the 24 simulated actions, five of them of two people. The others differ from these in little but what
# the hands do (to wipe, to salute, to point), and the words that are learned in two minutes are too coarse for hands.
ACTIONS = (6, 7, 8, 9, 10, 23, 24, 26, 27, 35, 43, 50, 55, 58, 59, 60)
PASSAGES = 4000
# All settings were chosen on held-out training subjects.
SKELETON = {
    # Where somebody walks is in every joint: taken out, more of the 256 words are left for what the limbs do.
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
    # In so short a run the language priors win over the motion unless they weigh little.
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
    # All linear layers, not only q and v as in the paper: so small a model has little else to learn with.
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
    """What `hub/push.py` would push, as a folder: the recogniser of the cross-subject protocol."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes import token_lexicon
    from action_llm_recipes.hub.push import repository_files

    line, model = folder / "cross-subject", folder / "model"
    token_lexicon.main(
        token_lexicon.LexiconArguments(
            str(line / "tokenizer" / "model"), str(line / "sentences"), str(line / "lexicon")
        )
    )
    files, _ = repository_files(line, REPOSITORY)
    for name, content in files.items():
        write_atomically(model / name, content)
    return model


def draw(folder: Path, recordings: Path):
    """Use of the tokens against Zipf's law, and some recordings over their sentences."""
    import numpy as np

    from action_llm import ActionLLMProcessor
    from action_llm.skeleton_files import read_skeleton
    from action_llm_recipes.common.action_sentences import load_action_sentences
    from action_llm_recipes.metrics.plots import plot_action_sentence, plot_token_usage

    pictures = folder / "pictures"
    sentences = load_action_sentences(folder / "cross-subject" / "sentences")
    processor = ActionLLMProcessor.from_pretrained(folder / "model")
    counts = np.zeros(processor.num_action_tokens, dtype=int)
    for ids in sentences["train"]["action_ids"]:
        np.add.at(counts, np.asarray(ids), 1)
    plot_token_usage(counts, pictures / "token_usage.png", title="Use of the action words (simulated recordings)")
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
    for name in LINES:
        for picture in ("confusion", "calibration", "per_class"):
            shutil.copy(folder / name / "evaluation" / f"{picture}.png", pictures / f"{name}-{picture}.png")


def cli():
    """The command `action-llm-quickstart`."""
    launch(main, *ARGUMENTS, resumes=True)


if __name__ == "__main__":
    cli()
