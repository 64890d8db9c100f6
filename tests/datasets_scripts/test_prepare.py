"""Raw recordings to Parquet: the same rows as the builder's, whatever was killed on the way, and terms that are kept."""

import json
import os
import signal
import subprocess
import sys
import time

import datasets
import pytest

from action_llm_datasets import prepare as module
from action_llm_datasets.load import load_action_dataset
from action_llm_datasets.prepare import PreparationError, prepare, push


def read(output, config, cache, **options):
    return datasets.load_dataset(str(output), config, cache_dir=str(cache), **options)


def test_rows_are_those_of_the_builder(simulated, tmp_path):
    accounts = prepare("simulated-xsub", simulated, tmp_path / "out", num_proc=1, files_per_shard=10)
    assert accounts["simulated-xsub"]["recordings"] == {"train": 36, "test": 9}
    own = load_action_dataset("simulated-xsub", simulated, cache_dir=tmp_path / "cache")
    found = read(tmp_path / "out", "simulated-xsub", tmp_path / "cache")
    assert set(found) == {"train", "test"}
    for split in own:
        assert found[split].features == own[split].features
        assert found[split].data.table.equals(own[split].data.table)
    streamed = read(tmp_path / "out", "simulated-xsub", tmp_path / "cache", streaming=True)
    assert [row["sample_id"] for row in streamed["test"]] == list(own["test"]["sample_id"])


def test_classes_that_are_unseen_are_a_config_of_their_own(simulated, tmp_path):
    prepare("simulated-unseen", simulated, tmp_path / "out", num_proc=1)
    seen = read(tmp_path / "out", "simulated-unseen-seen", tmp_path / "cache")
    unseen = read(tmp_path / "out", "simulated-unseen-unseen", tmp_path / "cache")
    assert set(seen) == {"train"} and set(unseen) == {"test"}
    names = (seen["train"].features["label"].names, unseen["test"].features["label"].names)
    assert not set(names[0]) & set(names[1])


def test_a_finished_run_reads_nothing_again(simulated, tmp_path, monkeypatch):
    first = prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert len(written) == 4 + 1
    monkeypatch.setattr(module, "_write_shard", None)
    assert prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10) == first
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_what_is_missing_is_written(simulated, tmp_path, monkeypatch):
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10)
    lost = tmp_path / "simulated-xsub" / "train-00002-of-00004.parquet"
    content = lost.read_bytes()
    lost.unlink()
    lost.with_name(f".{lost.name}.123").write_bytes(content[:100])  # as a kill leaves it
    calls, write = [], module._write_shard
    monkeypatch.setattr(
        module, "_write_shard", lambda builder, shard: calls.append(shard.parquet) or write(builder, shard)
    )
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1, files_per_shard=10)
    assert calls == [lost] and lost.read_bytes() == content


def test_what_is_left_out_is_counted_named_and_shown(simulated, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for path in simulated.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    broken = "S001C001P001R001A010.skeleton"
    (source / broken).write_bytes((source / broken).read_bytes()[:5000])
    (source / "S001C001P001R001A999.skeleton").write_text("0\n")
    account = prepare("simulated-xsub", source, tmp_path / "out", num_proc=1)["simulated-xsub"]
    assert account["skipped"] == {"unreadable": 1, "action": 1} and account["recordings"]["train"] == 35
    page = (tmp_path / "out" / "report.html").read_text()
    card = (tmp_path / "out" / "README.md").read_text()
    assert broken in page and "expected" in page and "1 (unreadable)" in card
    assert json.loads((tmp_path / "out" / "preparation.json").read_text())["simulated-xsub"] == account
    assert (tmp_path / "out" / "report-simulated-xsub-odd.png").stat().st_size > 5000
    # Other files are another data set.
    (source / broken).write_bytes((simulated / broken).read_bytes())
    with pytest.raises(PreparationError, match="was made of other files"):
        prepare("simulated-xsub", source, tmp_path / "out", num_proc=1)


def test_the_card_says_what_it_is(simulated, tmp_path):
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1)
    card = (tmp_path / "README.md").read_text()
    assert "**Simulated.**" in card and "- simulated" in card and "Nobody was recorded" in card
    assert (
        "| simulated-xsub | train | 36 |" in card
        and str(tmp_path) not in card + (tmp_path / "report.html").read_text()
    )


@pytest.fixture
def hub(monkeypatch):
    """Calls that would go to the Hub."""
    calls = []

    class Api:
        def create_repo(self, repository, **options):
            calls.append(("create", repository, options))
            return repository

        def upload_folder(self, **options):
            calls.append(("upload", options["repo_id"], options))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    return calls


def test_repositories_are_private_unless_the_terms_and_the_user_say_otherwise(simulated, tmp_path, hub):
    prepare("simulated-xsub", simulated, tmp_path, num_proc=1)
    push(tmp_path, "me/simulated")
    assert hub[0][2]["private"] and "token" not in hub[0][2]
    assert any(".preparation" in pattern for pattern in hub[1][2]["ignore_patterns"])
    push(tmp_path, "me/simulated", public=True)
    assert not hub[2][2]["private"]
    terms = tmp_path / ".preparation" / "terms.json"
    terms.write_text(json.dumps({"license": "no redistribution", "may_be_published": False}))
    with pytest.raises(PreparationError, match=r"must not be passed on \(no redistribution\)"):
        push(tmp_path, "me/ntu", public=True)
    assert len(hub) == 4


def command(simulated, output):
    return [
        sys.executable, "-m", "action_llm_datasets.prepare", "simulated", "--protocol", "xsub", "--source", str(simulated),
        "--output", str(output), "--num_proc", "2",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_run_goes_on(simulated, tmp_path):
    """kill -9 in the middle, twice, with two processes; what comes out is what an undisturbed run writes."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepare("simulated-xsub", simulated, whole, num_proc=1, files_per_shard=4)
    code = (
        "import sys, action_llm_datasets.prepare as p\n"
        "if __name__ == '__main__':\n"
        "    p.prepare('simulated-xsub', sys.argv[1], sys.argv[2], num_proc=2, files_per_shard=4)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    for wanted in (2, 6):
        process = subprocess.Popen([sys.executable, str(script), str(simulated), str(killed)], start_new_session=True)
        deadline = time.monotonic() + 120
        while len(list(killed.rglob("*.parquet"))) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, str(script), str(simulated), str(killed)], check=True, timeout=120)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*.parquet"))
    assert names == sorted(path.relative_to(killed) for path in killed.rglob("[!.]*.parquet"))
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)
    assert (whole / "preparation.json").read_text() == (killed / "preparation.json").read_text()


@pytest.mark.slow
def test_the_command(simulated, tmp_path):
    done = subprocess.run(command(simulated, tmp_path / "out"), capture_output=True, text=True)
    assert done.returncode == 0 and "36 train, 9 test" in done.stdout and "left out: nothing" in done.stdout
    failed = subprocess.run(command(tmp_path, tmp_path / "other"), capture_output=True, text=True)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr and "holds no .skeleton file" in failed.stderr
    wrong = command(simulated, tmp_path / "other")
    wrong[wrong.index("xsub")] = "xview2"
    failed = subprocess.run(wrong, capture_output=True, text=True)
    assert "there is no protocol 'simulated-xview2'; there are simulated-xsub, simulated-unseen" in failed.stderr
