"""The quickstart from end to end at a tiny size."""

import dataclasses
import json
import multiprocessing
import re
import signal
import time

import pytest
import tiny_quickstart
import torch

from action_llm_datasets.simulation.actions import SINGLE_ACTIONS
from action_llm_datasets.simulation.interactions import MUTUAL_ACTIONS
from action_llm_recipes import quickstart


def test_the_actions_are_sixteen_and_four_or_more_are_of_two_people():
    assert len(set(quickstart.ACTIONS)) >= 16
    assert set(quickstart.ACTIONS) <= {*SINGLE_ACTIONS, *MUTUAL_ACTIONS}
    assert len(MUTUAL_ACTIONS.keys() & set(quickstart.ACTIONS)) >= 4


def test_the_next_steps_need_no_checkout():
    commands = re.findall(r"^action-llm-\w+", quickstart.NEXT_STEPS, re.MULTILINE)
    assert commands == ["action-llm-demo", "action-llm-push"] and "recipes/" not in quickstart.NEXT_STEPS


def test_two_people_are_too_few_to_test_on(tmp_path):
    with pytest.raises(ValueError, match="performers must be at least 3"):
        quickstart.main(quickstart.QuickstartArguments(output_dir=str(tmp_path), performers=2))


def test_ctrl_c_ends_the_processes_of_the_protocols():
    """A terminal sends Ctrl-C to all processes: the others ignore it, and the first process ends them."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    with pytest.raises(KeyboardInterrupt), quickstart.ending_processes():
        raise KeyboardInterrupt
    process.join(60)
    assert process.exitcode == -signal.SIGTERM


@pytest.mark.slow
def test_it_runs_and_leaves_a_folder_that_answers(quickstart_run):
    from transformers import AutoModel, AutoProcessor

    summary, run = quickstart_run.summary, quickstart_run.folder
    assert summary["data"] == "simulated recordings"
    # Subject 3 is on the test side of NTU-60; camera 1 of all three people.
    assert summary["cross-subject"]["recordings"] == 6 and summary["cross-view"]["recordings"] == 6
    for name in quickstart.PROTOCOLS:
        assert 0 <= summary[name]["top_1"]["estimate"] <= 1
        assert (run / "pictures" / f"{name}-confusion.png").is_file()
    # Of one sentence per recording, as the pages of all runs show it.
    of_sentences = run / "cross-subject" / "sentences" / "token_usage.png"
    assert (run / "pictures" / "token_usage.png").read_bytes() == of_sentences.read_bytes()
    assert json.loads((run / "summary.json").read_text())["cross-view"] == summary["cross-view"]

    folder = run / "model"
    page = (folder / "README.md").read_text()
    assert (
        "**Simulated data.**" in page
        and "on simulated-xsub" in page
        and "pickup, punching/slapping other person." in page
    )
    assert "- Terms. Simulated recordings: Apache-2.0." in page and "license: apache-2.0" in page
    assert (folder / "lexicon.json").is_file() and (folder / ".eval_results" / "simulated-xsub.yaml").is_file()
    assert all((folder / picture).is_file() for picture in re.findall(r"\((pictures/[^)]+)\)", page))
    recording = run / "simulated_recordings" / "S003C001P003R001A050.skeleton"
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**processor(recording))
    torch.testing.assert_close(outputs.probabilities.sum(), torch.tensor(1.0))
    assert set(model.config.id2label.values()) == {"pickup", "punching/slapping other person"}


@pytest.mark.slow
def test_it_goes_on_where_it_was(quickstart_run, monkeypatch):
    tiny_quickstart.shrink(monkeypatch, quickstart_run.folder)
    lines = [quickstart_run.folder / name for name in quickstart.PROTOCOLS]
    trained = {path: path.stat().st_mtime_ns for line in lines for path in line.rglob("model/*.safetensors")}
    again = quickstart.main(quickstart_run.arguments)
    assert again["cross-subject"] == quickstart_run.summary["cross-subject"]
    assert trained and trained == {path: path.stat().st_mtime_ns for path in trained}
    with pytest.raises(ValueError, match="other performers: choose another --output_dir"):
        quickstart.main(dataclasses.replace(quickstart_run.arguments, performers=4))
