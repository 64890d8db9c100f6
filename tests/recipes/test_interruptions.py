"""Runs that are killed, interrupted or damaged end like uninterrupted runs, or say in a sentence why they cannot."""

import contextlib
import functools
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from fresh_python import TRAINING, start
from killed_training import Kill

from action_llm_recipes.common.checkpoints import checkpoints_of, damage_of
from action_llm_recipes.common.run_folder import RunFolder
from action_llm_recipes.pretraining.small_lm import SmallLMArguments, SmallLMConfig

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "eval_runtime"}
TIMES |= {"eval_samples_per_second", "eval_steps_per_second"}


def tiny(folder, **training):
    """Arguments of a tiny small language model."""
    sizes = {"passages": 100, "held_out_passages": 10, "vocabulary_size": 400, "block_length": 32, "hidden_size": 16}
    sizes |= {"intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    settings = {"warmup_steps": 2, "learning_rate": 0.04, "disable_tqdm": True, "use_cpu": True} | training
    return SmallLMArguments(**sizes), SmallLMConfig(output_dir=str(folder), **settings)


def metrics_of(folder) -> list[dict]:
    """The lines of the log without times."""
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def weights_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(folder) / "model").rglob("*.safetensors"))}


@pytest.fixture
def killing(monkeypatch):
    """A function that has the next training killed after a given step."""

    def kill_after(step):
        train, killed = RunFolder.train, []

        def killed_train(self, trainer, what):
            if not killed:
                killed.append(step)
                trainer.add_callback(Kill(step))
            return train(self, trainer, what)

        monkeypatch.setattr(RunFolder, "train", killed_train)

    return kill_after


def stages(recipes, tokenizer, sentences):
    """Each stage as a function of its folder and training settings. Checkpoints are written at steps that are not logged."""
    from action_llm_recipes.pretraining import small_lm

    every = {"save_steps": 1, "save_total_limit": 2}
    few = {"max_steps": 7, "logging_steps": 3, "gradient_accumulation_steps": 2, "num_train_epochs": 9} | every
    return {
        "tokenizer": lambda folder: recipes.train_tokenizer(folder, training=few, dead_code_threshold=0.1),
        "sft": lambda folder: recipes.sft(tokenizer, sentences, folder, training=few),
        "sft by classes": lambda folder: recipes.sft(tokenizer, sentences, folder, training=few, objective="classes"),
        "small_lm": lambda folder: small_lm.main(*tiny(folder, max_steps=7, logging_steps=3, **every)),
    }


@pytest.fixture(scope="module", params=["tokenizer", "sft", "sft by classes", "small_lm"])
def stage(request, recipes, tokenizer, sentences, tmp_path_factory):
    """A stage, and the folder of an uninterrupted run of it."""
    run = stages(recipes, tokenizer, sentences)[request.param]
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return run, folder


@pytest.mark.slow
def test_weights_and_log_of_a_killed_run_are_those_of_an_uninterrupted_run(stage, killing, tmp_path):
    """Killed before the first line of its log, between two lines, and after one."""
    run, whole = stage
    for step in (1, 4, 6):
        killing(step)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
        assert checkpoints_of(tmp_path / "checkpoints")[0].name == f"checkpoint-{step}"
        assert not (tmp_path / "record.json").exists()
    run(tmp_path)
    assert weights_of(tmp_path) == weights_of(whole) != {}
    assert metrics_of(tmp_path) == metrics_of(whole)
    last = metrics_of(whole)[-1]
    assert last["step"] == 7 and {"train_loss", "total_flos"} <= set(last)


def test_a_kill_between_the_last_checkpoint_and_the_last_line_of_the_log(stage, tmp_path):
    run, whole = stage
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "record.json").unlink()
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]) + '{"step": 7, "train_')
    run(tmp_path)
    assert metrics_of(tmp_path) == metrics_of(whole)
    assert weights_of(tmp_path) == weights_of(whole)


# ------------------------------------------------------------------------------------------------ damaged checkpoints


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    """Flips a byte in the middle of the content of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + len(largest.filename) + 100] ^= 255
    path.write_bytes(bytes(content))


DAMAGES = {
    "cut weights": ("model.safetensors", cut, "model.safetensors is not a safetensors file"),
    "no weights": ("model.safetensors", Path.unlink, "it has no weights"),
    "garbage weights": (
        "model.safetensors",
        lambda path: path.write_bytes(b"\xff" * 5000),
        "model.safetensors is truncated",
    ),
    "empty weights": ("model.safetensors", lambda path: path.write_bytes(b""), "model.safetensors is truncated"),
    "empty state": ("trainer_state.json", lambda path: path.write_bytes(b""), "trainer_state.json holds"),
    "cut state": ("trainer_state.json", cut, "trainer_state.json holds"),
    "list as state": ("trainer_state.json", lambda path: path.write_text("[]"), "trainer_state.json holds"),
    "other state": ("trainer_state.json", lambda path: path.write_text('{"a": 1}'), "fields that TrainerState lacks"),
    "no fields": ("trainer_state.json", lambda path: path.write_text("{}"), "is of step 0"),
    "state not UTF-8": ("trainer_state.json", lambda path: path.write_bytes(b"\xff\xfe"), "trainer_state.json holds"),
    "deep state": ("trainer_state.json", lambda path: path.write_text("[" * 10**5), "trainer_state.json holds"),
    "no state": ("trainer_state.json", Path.unlink, "it has no trainer_state.json"),
    "no optimizer": ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
    "cut optimizer": ("optimizer.pt", cut, "optimizer.pt is truncated"),
    "flipped optimizer": ("optimizer.pt", flip, "optimizer.pt is damaged in"),
    "garbage scheduler": ("scheduler.pt", lambda path: path.write_bytes(b"garbage"), "scheduler.pt is truncated"),
    "no random state": ("rng_state.pth", Path.unlink, "rng_state.pth is missing"),
    "cut sums": ("running_sums_0_of_1.pth", cut, "running_sums_0_of_1.pth is truncated"),
}


@pytest.fixture(scope="module")
def small_lm(tmp_path_factory):
    """The folder of a small language model with a checkpoint after each of six steps."""
    from action_llm_recipes.pretraining import small_lm

    folder = tmp_path_factory.mktemp("small_lm")
    small_lm.main(*tiny(folder, max_steps=6, save_steps=1, save_total_limit=9, logging_steps=4))
    return folder


def stopped(small_lm, folder, last_step=5):
    """A copy of a run as a kill after a step leaves it."""
    shutil.copytree(small_lm, folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "model")
    (folder / "record.json").unlink()
    for checkpoint in checkpoints_of(folder / "checkpoints"):
        if int(checkpoint.name[11:]) > last_step:
            shutil.rmtree(checkpoint)
    return folder


def resume(folder, **training):
    from action_llm_recipes.pretraining import small_lm

    settings = {"max_steps": 6, "save_steps": 1, "save_total_limit": 9, "logging_steps": 4} | training
    return small_lm.main(*tiny(folder, **settings))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, small_lm, tmp_path, caplog):
    name, spoil, reason = DAMAGES[damage]
    stopped(small_lm, tmp_path)
    spoil(tmp_path / "checkpoints" / "checkpoint-5" / name)
    assert reason in damage_of(tmp_path / "checkpoints" / "checkpoint-5")
    with caplog.at_level(logging.INFO):
        resume(tmp_path, save_total_limit=3)
    warning = next(text for text in caplog.messages if "checkpoint-5" in text)
    assert "cannot be resumed (" in warning and reason in warning
    assert warning.endswith("training resumes from checkpoint-4") and "Resuming from step 4 of 6" in caplog.messages
    assert weights_of(tmp_path) == weights_of(small_lm) and metrics_of(tmp_path) == metrics_of(small_lm)
    assert [path.name for path in checkpoints_of(tmp_path / "checkpoints")] == [f"checkpoint-{n}" for n in (6, 5, 4)]


def test_without_an_undamaged_checkpoint_training_starts_again_with_a_warning(small_lm, tmp_path, caplog):
    stopped(small_lm, tmp_path, last_step=2)
    for checkpoint in checkpoints_of(tmp_path / "checkpoints"):
        cut(checkpoint / "optimizer.pt")
    resume(tmp_path)
    warnings = [text for text in caplog.messages if "cannot be resumed" in text]
    assert len(warnings) == 2 and all(text.endswith("training starts again") for text in warnings)
    assert weights_of(tmp_path) == weights_of(small_lm) and metrics_of(tmp_path) == metrics_of(small_lm)


def test_runs_resume_from_checkpoints_of_older_versions(small_lm, tmp_path, caplog):
    stopped(small_lm, tmp_path)
    for path in tmp_path.rglob("running_sums*"):
        path.unlink()
    resume(tmp_path)
    assert not [text for text in caplog.messages if "cannot be resumed" in text]
    assert weights_of(tmp_path) == weights_of(small_lm)


def test_an_old_checkpoint_is_removed_once_the_newer_one_is_complete(small_lm, tmp_path, monkeypatch):
    """The run keeps a single checkpoint, and is killed while it writes the second."""
    from transformers import Trainer

    written = Trainer._save_optimizer_and_scheduler

    def killed(self, output_dir):
        assert len(list(Path(output_dir).parent.glob("checkpoint-*"))) <= 2
        if output_dir.endswith("checkpoint-2"):
            raise KeyboardInterrupt
        written(self, output_dir)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_optimizer_and_scheduler", killed)
        with pytest.raises(KeyboardInterrupt):
            resume(tmp_path, save_total_limit=1)
    assert [path.name for path in checkpoints_of(tmp_path / "checkpoints")] == ["checkpoint-1"]
    assert damage_of(tmp_path / "checkpoints" / "checkpoint-1") is None
    resume(tmp_path, save_total_limit=1)
    assert [path.name for path in checkpoints_of(tmp_path / "checkpoints")] == ["checkpoint-6"]
    assert weights_of(tmp_path) == weights_of(small_lm)


# ------------------------------------------------------------------------------------------------ other states of a run


def test_damaged_state_files_are_written_again_or_name_what_to_delete(small_lm, tmp_path, caplog):
    folder = stopped(small_lm, tmp_path)
    (folder / "elapsed.json").write_text('{"seconds": ')
    with open(folder / "metrics.jsonl", "ab") as log:
        log.write(b'\xff\xfe\n[1]\n{"step": "x"}\n{"st')
    assert resume(folder)["stage"] == "small_lm"
    assert metrics_of(folder) == metrics_of(small_lm)
    assert any("elapsed.json is damaged" in text for text in caplog.messages)
    (folder / "record.json").write_text("")
    assert resume(folder)["stage"] == "small_lm"
    assert json.loads((folder / "record.json").read_text())["stage"] == "small_lm"
    for content in (b"a: [", b"\xff\xff", b"- 1"):
        (folder / "config.yaml").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"config\.yaml, which holds the settings of the run, is damaged \(.*\): delete "
        ):
            resume(folder)
    (folder / "identity.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"identity\.json: expected a JSON object, found .* delete .* or choose another"
    ):
        RunFolder(folder).check_identity({})


def test_damaged_shards_are_written_again_by_their_recipe_and_named_by_others(
    recipes, tokenizer, sentences, tmp_path, caplog
):
    from action_llm_recipes.common.action_sentences import load_action_sentences

    shutil.copytree(sentences, tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / ".cache", ignore_errors=True)
    shard = next((tmp_path / "s" / "train").glob("*.parquet"))
    content = shard.read_bytes()
    for damaged in (content[:-20], b"", b"garbage" * 100):
        shard.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=rf"{shard.name} is damaged \(.*\): delete it, and run encode_actions.py again"
        ):
            load_action_sentences(tmp_path / "s")
        recipes.encode(tokenizer, tmp_path / "s", encodings=2)
        assert shard.read_bytes() == content
    assert any("is damaged" in text and "is written again" in text for text in caplog.messages)
    shard.write_bytes(content[:4] + b"\xff" * 200 + content[204:])  # its end is whole
    with pytest.raises(ValueError, match=r"a shard in .*train is damaged \(.*delete it"):
        load_action_sentences(tmp_path / "s")
    shard.write_bytes(content)
    shard.with_suffix(".skipped.json").write_text("{")
    recipes.encode(tokenizer, tmp_path / "s", encodings=2)
    assert json.loads(shard.with_suffix(".skipped.json").read_text()) == []
    (tmp_path / "s" / "record.json").write_text('{"splits"')
    with pytest.raises(ValueError, match=r"record\.json: expected JSON, .* and run encode_actions.py again"):
        load_action_sentences(tmp_path / "s")
    recipes.encode(tokenizer, tmp_path / "s", encodings=2)
    (tmp_path / "s" / "identity.json").write_text("{}")
    with pytest.raises(ValueError, match=r"identity\.json, field weights: expected a value, found nothing: delete "):
        recipes.sft(tokenizer, str(tmp_path / "s"), tmp_path / "sft")


def test_a_damaged_small_language_model_in_the_cache_is_trained_again(tmp_path, monkeypatch, caplog):
    from huggingface_hub import constants

    from action_llm_recipes.pretraining.small_lm import kept_small_lm

    arguments, _ = tiny(tmp_path)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    model = Path(kept_small_lm(arguments, 0))
    content = {path.name: path.read_bytes() for path in model.iterdir() if path.name != "record.json"}
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        cut(model / name)
        assert kept_small_lm(arguments, 0) == str(model)
        assert f"{model} is damaged ({name} " in caplog.text
        assert content == {path.name: path.read_bytes() for path in model.iterdir() if path.name != "record.json"}
        caplog.clear()


# ------------------------------------------------------------------------------------------------ processes


SMALL = {name: value for name, value in vars(tiny("x")[0]).items() if name != "unseen_of"}


def command(folder, max_steps=12, **more) -> list[str]:
    """Starts the training of a tiny small language model as a command."""
    settings = SMALL | {"max_steps": max_steps, "warmup_steps": 2, "learning_rate": 0.04, "use_cpu": True}
    settings |= {"logging_steps": 5, "save_steps": 2, "output_dir": folder} | more
    options = (
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in settings.items()
    )
    return [str(RECIPES / "pretraining/small_lm.py"), *options]


begin = functools.partial(start, imported=TRAINING)


def has_said(process, text: str) -> bool:
    with contextlib.suppress(FileNotFoundError):  # it has not begun
        return text in process.said()[0]
    return False


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.said()
        assert time.monotonic() < deadline, process.said()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = begin(*command(folder))
    assert process.wait() == 0, process.said()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_training_with_a_checkpoint_and_a_single_sentence(signum, status, tmp_path):
    """All processes get the signal; those that read the data end silently."""
    if signal.getsignal(signum) is signal.SIG_IGN:
        pytest.skip("the tests were started to ignore this signal, as nohup does, and so were their processes")
    workers = 2 if signum == signal.SIGTERM else 0
    process = start(*command(tmp_path, 10_000, save_steps=10_000, logging_steps=1, dataloader_num_workers=workers))
    wait_for(lambda: (tmp_path / "metrics.jsonl").is_file(), process)
    assert json.loads((tmp_path / ".action_llm.lock").read_text())["process"] == process.pid
    os.killpg(process.pid, signum)
    assert process.wait(60) == status, process.said()
    (checkpoint,) = checkpoints_of(tmp_path / "checkpoints")
    assert damage_of(checkpoint) is None
    step = int(checkpoint.name[11:])
    notice, sentence = list(filter(None, process.said()[1].splitlines()))[-2:]
    assert notice == "Stopping after this step, with a checkpoint. A second signal stops at once."
    assert sentence == (
        f"small_lm.py: stopped after step {step} of 10000, with a checkpoint. Run the same command again to continue."
    )
    assert "Traceback" not in process.said()[1] and process.said()[1].count("stopped") == 1
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.yaml", "metrics.jsonl", "checkpoints", "elapsed.json"}


@pytest.mark.slow
def test_two_processes_of_a_launch_stop_at_the_same_step_and_resume_from_it(tmp_path):
    """Only one of them gets the signal, and only the first logs."""
    words = command(tmp_path, 10_000, save_steps=10_000, logging_steps=1)

    def stopped_after(step: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
        ranks = [begin(*words, env=common | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
        log = tmp_path / "metrics.jsonl"
        wait_for(lambda: log.is_file() and f'"step": {step},' in log.read_text(), ranks[0])
        os.kill(ranks[1].pid, signal.SIGTERM)
        assert [rank.wait(60) for rank in ranks] == [143, 143], [rank.said() for rank in ranks]
        return ranks, checkpoints_of(tmp_path / "checkpoints")[0]

    _, first = stopped_after(2)
    first = int(first.name[11:])
    ranks, checkpoint = stopped_after(first + 2)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][
        : first + 2
    ] == [*range(1, first + 3)]
    assert damage_of(checkpoint) is None and {"running_sums_0_of_2.pth", "running_sums_1_of_2.pth"} <= {
        path.name for path in checkpoint.iterdir()
    }
    sentence = f"stopped after step {checkpoint.name[11:]} of 10000, with a checkpoint."
    assert [sentence in rank.said()[1] for rank in ranks] == [True, False]
    (checkpoint / "rng_state_1.pth").unlink()
    assert damage_of(checkpoint) == "rng_state_1.pth is missing"


@pytest.mark.slow
def test_a_second_signal_stops_at_once(tmp_path):
    recipe, *options = command(tmp_path)
    process = begin("-c", NEVER_ENDING.format(recipe=recipe), *options)
    wait_for(lambda: has_said(process, "training"), process)
    for _ in range(2):
        time.sleep(1.5)
        os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert process.said()[1].strip().splitlines()[-1] == (
        "small_lm.py: stopped. Run the same command again to continue."
    )


NEVER_ENDING = """
import runpy, sys, time
sys.argv[0] = {recipe!r}
import transformers

def train(*_):
    print("training", flush=True)
    time.sleep(600)

transformers.Trainer.training_step = train
from action_llm_recipes.common import run_cost
run_cost.report_cost = lambda *_: {{}}
runpy.run_path({recipe!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_after_six_random_kills_the_bytes_are_those_of_an_uninterrupted_run(uninterrupted, tmp_path):
    chance, kills = random.Random(21), 0
    while kills < 6:
        process = begin(*command(tmp_path))
        begun = {path.name for path in checkpoints_of(tmp_path / "checkpoints")}
        # Somewhere between its import and its end, most often after it has trained a little.
        if chance.random() < 0.7:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if {path.name for path in checkpoints_of(tmp_path / "checkpoints")} != begun:
                    break
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.1))
        else:
            time.sleep(chance.uniform(0.1, 2))
        if process.poll() is not None:
            assert process.wait() == 0, process.said()
            shutil.rmtree(tmp_path)
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    process = begin(*command(tmp_path))
    assert process.wait() == 0, process.said()
    assert weights_of(tmp_path) == weights_of(uninterrupted)
    assert metrics_of(tmp_path) == metrics_of(uninterrupted)


@pytest.mark.slow
def test_a_second_process_on_a_folder_names_the_process_that_writes_it(tmp_path):
    first = begin(*command(tmp_path, 10_000, save_steps=10_000, logging_steps=1))
    wait_for(lambda: (tmp_path / "metrics.jsonl").is_file(), first)
    before = (tmp_path / "config.yaml").read_bytes()
    second = begin(*command(tmp_path, 9_999))
    assert second.wait(60) == 2
    message = second.said()[1]
    assert re.fullmatch(
        rf"small_lm\.py: error: {tmp_path} is being written by process {first.pid} on {socket.gethostname()} since "
        r"\d\d:\d\d \(.*\): wait for it, or choose another --output_dir\.\n",
        message,
    ), message
    assert (tmp_path / "config.yaml").read_bytes() == before
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    third = begin(*command(tmp_path, 10_000, save_steps=10_000, logging_steps=1))
    wait_for(
        lambda: json.loads((tmp_path / ".action_llm.lock").read_text() or "{}").get("process") == third.pid, third
    )
    os.kill(third.pid, signal.SIGTERM)
    assert third.wait(60) == 143


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_an_error_of_one_sentence_and_keeps_the_last_checkpoint(small_disk):
    folder = small_disk / "run"
    process = start(*command(folder, max_steps=10_000, save_steps=20, logging_steps=1, save_total_limit=2))
    wait_for(lambda: any(damage_of(path) is None for path in checkpoints_of(folder / "checkpoints")), process)
    filling = os.open(small_disk / "filling", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError):
        while True:
            os.write(filling, bytes(2**14))
    os.close(filling)
    assert process.wait(120) == 1, process.said()
    message = process.said()[1].strip().splitlines()[-1]
    assert message.startswith("small_lm.py: error: the disk is full (") and message.endswith(
        "; free some space. Run the same command again to continue."
    )
    assert "Traceback" not in process.said()[1]
    whole = [path for path in checkpoints_of(folder / "checkpoints") if damage_of(path) is None]
    assert whole == checkpoints_of(folder / "checkpoints") != []
    assert not list(folder.rglob(".*"))
