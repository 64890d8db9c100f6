"""A tiny folder of simulated recordings, shared by the tests of builders."""

import pytest

from action_llm_datasets.simulation.simulate import simulate

ACTIONS = (10, 23, 58)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """Simulated `.skeleton` files: 5 people, 3 actions (`ACTIONS`, one by two people), 3 cameras. Do not change the folder."""
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, performers=5, replications=1, actions=ACTIONS, num_proc=1)
    return folder
