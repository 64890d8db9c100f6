"""A prepared data set is uploaded to the Hub over HTTP, and loaded from there without this project, also in streaming mode."""

import pytest
from fresh_python import python
from hub_server import HubServer

READ = """
import sys
sys.modules["action_llm_datasets"] = None  # as if the package were not installed
from datasets import load_dataset
rows = load_dataset("tester/simulated")
first = next(iter(load_dataset("tester/simulated", split="test", streaming=True)))
same = first["keypoints"] == rows["test"][0]["keypoints"]
print(rows["train"].num_rows, rows["test"].num_rows, first["sample_id"], same, rows["test"].features["label"].names)
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


def run(hub, home, *arguments: str, expected: int = 0) -> str:
    done = python(*arguments, env=hub.environment(home), cwd=home)
    assert done.returncode == expected, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_a_prepared_data_set_is_pushed_loaded_and_streamed(hub, tmp_path):
    simulated = ["--performers", "3", "--replications", "1", "--actions", "6", "50", "--num_proc", "1"]
    run(hub, tmp_path, "-m", "action_llm_datasets.simulation.simulate", "--output", "sim", *simulated)
    prepare = [
        "-m",
        "action_llm_datasets.prepare",
        "simulated-xsub",
        "--source",
        "sim",
        "--output",
        "prepared",
        "--num_proc",
        "1",
    ]
    run(hub, tmp_path, *prepare, "--push_to_hub", "tester/simulated")
    repository = hub.repositories["dataset", "tester/simulated"]
    assert repository.private and len(repository.commits) == 2
    files = hub.files("tester/simulated", "dataset")
    assert {"README.md", "preparation.json", "simulated-xsub/train-00000-of-00001.parquet"} <= files.keys()
    assert not [path for path in files if path.startswith(".preparation")]
    output = run(hub, tmp_path, "-c", READ)
    assert "12 6 S003C001P003R001A006 True ['pickup', 'punching/slapping other person']" in output
