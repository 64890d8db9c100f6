"""Fixtures shared by all tests."""

import gc
import os
from pathlib import Path

import one_thread  # noqa: F401
import pytest
import tiny_quickstart
import torch
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)

# No test is about time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real recordings, named by ACTION_LLM_TEST_DATA; the test is skipped where there is none."""
    folder = Path(os.environ.get("ACTION_LLM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings: ACTION_LLM_TEST_DATA names no folder ({folder})")
    return folder


@pytest.fixture(autouse=True, scope="module")
def what_is_there_is_not_searched_for_garbage():
    """Every `Trainer` collects garbage, and searches all that torch and transformers imported: half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def quickstart_run(tmp_path_factory) -> tiny_quickstart.QuickstartRun:
    """A tiny quickstart in `runs/quickstart` of a folder that is empty otherwise; not to be changed."""
    return tiny_quickstart.run(tmp_path_factory.mktemp("reader") / "runs" / "quickstart")
