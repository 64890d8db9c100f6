"""The notebook runs, and the API pages are built without a warning."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "model_cards" / "first_steps.ipynb"


def printed(cell: dict) -> str:
    """What a cell printed when the notebook was stored."""
    return "".join(line for output in cell["outputs"] for line in output.get("text", []))


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_is_stored(tmp_path, monkeypatch, capsys):
    """Its cells, one after another in a new folder. Numbers may differ between machines, so their digits are not compared."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    monkeypatch.chdir(tmp_path)
    variables, shown = {}, []
    for cell in cells:
        exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), variables)
        shown.append(capsys.readouterr().out)
    accuracy, answer, answers, listing = (text for text in shown if text)
    assert re.match(r"top-1 \d+% of 12 recordings", accuracy)
    names = set(variables["NAMES"].values())
    assert {line.split()[0] for line in answer.splitlines()[:3]} < names and "<act_" in answer
    assert [line.split()[0] for line in answers.splitlines()] == [
        f"{name}_P005_C002" for name in ("sit", "wave", "hop", "fall")
    ]
    assert all(line.split()[1] in names for line in answers.splitlines())
    assert "model.safetensors" in listing and "nothing was pushed" in listing and ".skeleton\n" not in listing
    stored = [text for cell in cells if (text := printed(cell))]
    assert len(stored) == 4 and stored[0].startswith("top-1 ") and "with a probability of" in stored[1]


@pytest.mark.slow
def test_api_pages_are_built_without_a_warning(tmp_path):
    """In a Python of its own, which has imported nothing of the project yet."""
    pytest.importorskip("pdoc")
    import subprocess

    command = [sys.executable, str(ROOT / "model_cards" / "api.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "index.html").is_file()
    page = (tmp_path / "action_llm.html").read_text("utf-8")
    assert "ActionRecognitionPipeline" in page and "candidate_labels" in page
