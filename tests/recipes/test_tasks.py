"""Steps as tasks: their shares, the same bytes whatever their number, interruptions, and what datatrove is given."""

import argparse
import json
import logging
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_features import extract

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes import cluster, encode_actions, extract_features
from action_llm_recipes.common import shards
from action_llm_recipes.common.tasks import Task, TaskArguments


@pytest.fixture
def small_shards(monkeypatch):
    """48 training recordings are six shards, and 12 test recordings two."""
    monkeypatch.setattr(shards, "RECORDINGS_PER_SHARD", 8)


def encode(recipes, tokenizer, folder, task=None, **arguments):
    settings = encode_actions.EncodingArguments(tokenizer=tokenizer, output_dir=str(folder), **arguments)
    encode_actions.main(settings, recipes.data(), task)


def shards_in(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("0*.parquet"))}


def test_the_processes_of_a_task_share_its_shards(tmp_path):
    splits = shards.shards_of_splits(tmp_path, {"train": range(9), "test": range(4)}, 1)
    for task in (TaskArguments(0, 3), TaskArguments(2, 3)):
        processes = [task.share(SimpleNamespace(process_index=process, num_processes=2)) for process in range(2)]
        paths = [path for share in processes for split in splits.values() for path in split.of_share(*share)]
        own = [path for split in splits.values() for path in split.of_share(task.task, task.tasks)]
        assert sorted(paths) == sorted(own) and len(own) == (5 if task.task == 0 else 4)
    assert TaskArguments().is_whole and not TaskArguments(1, 2).is_whole


@pytest.mark.parametrize(("task", "tasks"), [(2, 2), (-1, 2), (0, 0)])
def test_impossible_tasks_are_refused(task, tasks):
    with pytest.raises(ValueError, match=rf"--task {task} --tasks {tasks}: expected"):
        TaskArguments(task, tasks)


def test_tasks_share_the_folder_and_each_is_alone(tmp_path):
    @writes_output_dir
    def locks(settings, task):
        return sorted(path.name for path in tmp_path.iterdir())

    settings = SimpleNamespace(output_dir=str(tmp_path))
    assert locks(settings, TaskArguments()) == [".action_llm.lock"]
    assert locks(settings, TaskArguments(1, 2)) == [".task 1 of 2.action_llm.lock"]


@pytest.fixture(scope="module")
def whole(recipes, tokenizer, tmp_path_factory):
    """Sentences that one process wrote."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "RECORDINGS_PER_SHARD", 8)
        encode(recipes, tokenizer, folder, encodings=2)
    assert len(shards_in(folder)) == 8
    return folder


@pytest.mark.parametrize("tasks", [2, 4])
def test_any_number_of_tasks_writes_the_same_bytes(tasks, recipes, tokenizer, whole, small_shards, tmp_path):
    for task in reversed(range(tasks)):
        encode(recipes, tokenizer, tmp_path, TaskArguments(task, tasks), encodings=2)
        assert not (tmp_path / "record.json").exists()
    expected = shards_in(whole)
    assert shards_in(tmp_path) == expected
    encode(recipes, tokenizer, tmp_path, encodings=2)
    assert shards_in(tmp_path) == expected
    records = [json.loads((folder / "record.json").read_text()) for folder in (tmp_path, whole)]
    assert records[0]["splits"] == records[1]["splits"]
    assert records[0]["split_evidence"] == records[1]["split_evidence"]


def test_a_killed_task_resumes(recipes, tokenizer, whole, small_shards, tmp_path, monkeypatch):
    written, write = [], shards.write_shard

    def die_at_the_second(path, *args, **notes):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *args, **notes)

    monkeypatch.setattr(shards, "write_shard", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        encode(recipes, tokenizer, tmp_path, TaskArguments(0, 2), encodings=2)
    (first,) = shards_in(tmp_path)
    before = (tmp_path / first).stat().st_mtime_ns
    monkeypatch.setattr(shards, "write_shard", write)
    encode(recipes, tokenizer, tmp_path, TaskArguments(0, 2), encodings=2)
    assert (tmp_path / first).stat().st_mtime_ns == before, "it was whole"
    expected = shards_in(whole)
    assert shards_in(tmp_path) == {path: expected[path] for path in sorted(expected) if int(path[-21:-17]) % 2 == 0}


def test_a_task_of_another_run_is_refused(recipes, tokenizer, small_shards, tmp_path):
    encode(recipes, tokenizer, tmp_path, TaskArguments(0, 8))
    with pytest.raises(ValueError, match="the run was made with other encodings: choose another --output_dir"):
        encode(recipes, tokenizer, tmp_path, TaskArguments(1, 8), encodings=2)


def test_skipped_recordings_are_listed_by_task_and_at_the_end(
    recipes, tokenizer, small_shards, tmp_path, monkeypatch, caplog
):
    from action_llm.feature_extraction_skeleton import SkeletonInputError

    read, rows = encode_actions.versions_of, recipes.data().load()["train"]
    bad = str(rows[8]["sample_id"])  # of the second shard

    def versions_of(row, *arguments):
        if row["sample_id"] == bad:
            raise SkeletonInputError(bad, "no joints", "some")
        return read(row, *arguments)

    monkeypatch.setattr(encode_actions, "versions_of", versions_of)
    said, reason = [], f"{bad}: expected some, found no joints"
    for task in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            encode(recipes, tokenizer, tmp_path, TaskArguments(task, 2))
        said.append([message for message in caplog.messages if "skipped" in message])
    assert said == [
        ["Task 0 of 2: 4 shards with 32 rows, 0 recordings skipped"],
        [f"skipped {bad}: {reason}", "Task 1 of 2: 4 shards with 28 rows, 1 recordings skipped"],
    ]
    encode(recipes, tokenizer, tmp_path)
    (entry,) = json.loads((tmp_path / "skipped.json").read_text())
    assert entry == {"split": "train", "sample_id": bad, "reason": reason}


def test_features_of_tasks_are_those_of_one_run(videos, backbone, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(extract_features, "VIDEOS_PER_SHARD", 4)
    folders = tmp_path / "whole", tmp_path / "shared"
    extract(videos, backbone, folders[0], tmp_path / "cache")
    expected = shards_in(folders[0])
    assert len(expected) == 4
    with caplog.at_level(logging.INFO):
        for task in (1, 0):
            extract(videos, backbone, folders[1], tmp_path / "cache", task=TaskArguments(task, 2))
    assert "Task 0 of 2: 2 shards with 6 rows, 0 recordings skipped" in caplog.messages
    assert shards_in(folders[1]) == expected and not (folders[1] / "record.json").exists()
    extract(videos, backbone, folders[1], tmp_path / "cache")
    assert shards_in(folders[1]) == expected
    splits = [json.loads((folder / "record.json").read_text())["splits"] for folder in folders]
    assert splits[0] == splits[1]


# A step that is quick: each task appends its number to a file; `die` and `exit` are done once.
STEP = """
import os, signal, sys
from pathlib import Path

def run():
    folder, words = Path(sys.argv[2]), sys.argv[3:]
    share = words[words.index("--task") + 1] if "--task" in words else "end"
    if share == "1" and not (folder / "tried").exists():
        (folder / "tried").touch()
        if "die" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "exit" in words:
            sys.exit(2)
    with open(folder / share, "a") as file:
        file.write(" ".join(words) + "\\n")
"""


@pytest.fixture
def step(tmp_path, monkeypatch):
    pytest.importorskip("datatrove")
    (tmp_path / "quick_step.py").write_text(STEP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cluster.STEPS, "encode_actions", ("quick_step:run", "--output_dir"))
    output = tmp_path / "output"
    output.mkdir()

    def run(*words, executor=("--executor", "local", "--tasks", "2", "--workers", "1")):
        line = ["cluster.py", *executor, "encode_actions", "--output_dir", str(output), *words]
        monkeypatch.setattr("sys.argv", line)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        cluster.main()

    return SimpleNamespace(run=run, output=output)


def written(output) -> dict[str, int]:
    """How often each task has ended."""
    names = sorted(path.name for path in output.iterdir() if path.is_file() and path.name != "tried")
    return {name: len((output / name).read_text().splitlines()) for name in names}


@pytest.mark.slow
def test_datatrove_runs_each_task_once_and_the_end(step):
    workers = ("--executor", "local", "--tasks", "2", "--workers", "2")
    step.run("--x", "1", executor=workers)
    assert written(step.output) == {"0": 1, "1": 1, "end": 1}
    assert (step.output / "1").read_text() == "--x 1 --task 1 --tasks 2\n"
    step.run("--x", "1", executor=workers)
    assert written(step.output) == {"0": 1, "1": 1, "end": 2}, "tasks that have ended are not run again"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["die", "exit"])
def test_a_task_that_ends_early_ends_the_run_and_is_run_again(end, step):
    with pytest.raises(RuntimeError):  # BrokenProcessPool is one
        step.run(end)
    assert written(step.output) == {"0": 1}
    step.run(end)
    assert written(step.output) == {"0": 1, "1": 1, "end": 1}


SBATCH = """#!/bin/sh
for script; do :; done
number=$(ls {folder} | wc -l)
{{ echo "$@" | sed "s| [^ ]*$||"; cat "$script"; }} > {folder}/$number
echo Submitted batch job 7$number
"""


def test_slurm_is_given_an_array_and_the_end_after_it(step, tmp_path, monkeypatch):
    bin_folder, scripts = tmp_path / "bin", tmp_path / "scripts"
    bin_folder.mkdir(), scripts.mkdir()
    (bin_folder / "sbatch").write_text(SBATCH.format(folder=scripts))
    (bin_folder / "sbatch").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    slurm = ["--executor", "slurm", "--tasks", "512", "--workers", "64", "--partition", "cpu", "--time", "4:00:00"]
    step.run(executor=(*slurm, "--sbatch", "account=me", "--sbatch", "qos=low"))
    texts = [(scripts / name).read_text() for name in sorted(os.listdir(scripts))]
    array, end = (text for text in texts if "launch_pickled_pipeline" in text)
    for line in ("array=0-511%64", "partition=cpu", "time=4:00:00", "account=me", "qos=low", "cpus-per-task=1"):
        assert f"#SBATCH --{line}\n" in array, array
    assert f"launch_pickled_pipeline {step.output}/.tasks/512/executor.pik" in array
    assert "#SBATCH --array=0-0\n" in end and "--dependency=afterok:70" in end
    assert f"launch_pickled_pipeline {step.output}/.tasks/finish/executor.pik" in end
    assert written(step.output) == {}, "nothing is run where the command is typed"


def test_without_datatrove_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datatrove.executor", None)
    with pytest.raises(SystemExit, match=r"cluster\.py needs datatrove: pip install -e '\.\[cluster\]'"):
        cluster.run_tasks(
            argparse.Namespace(tasks=2, workers=1, executor="local"), Task("quick_step:run", []), Path("output")
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "0", "encode_actions"], "--tasks 0 --workers -1: expected numbers from 1."),
        (["--executor", "slurm", "--tasks", "2", "encode_actions"], "expected --partition and --time."),
        (["--tasks", "2", "--sbatch", "me", "encode_actions"], "--sbatch: expected KEY=VALUE, got me."),
    ],
)
def test_wrong_commands(words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cluster.py", "--executor", "local", *words])
    with pytest.raises(SystemExit):
        cluster.main()
    assert capsys.readouterr().err.endswith(f"{message}\n")


def test_the_output_is_named_on_the_command_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["cluster.py", "--executor", "local", "--tasks", "2", "encode_actions"])
    with pytest.raises(ValueError, match="encode_actions: set --output_dir on the command line"):
        cluster.main()
